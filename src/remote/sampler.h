/* Answers to conversations, from a model in this process or from a server: what the evaluations
 * and the studies ask. All kinds give the same struct, so that a task cannot tell them apart.
 *
 * A question belongs to its caller, who keeps it in place from sampler_ask until sampler_next
 * returns it. One thread uses a sampler.
 */
#ifndef REMOTE_SAMPLER_H
#define REMOTE_SAMPLER_H

#include "base/buf.h"
#include "base/err.h"
#include "gloss.h"
#include "remote/client.h"

#include <stdbool.h>
#include <stdint.h>

enum sampler_kind {
    SAMPLER_LOCAL,     /* an engine of this process */
    SAMPLER_CHAT,      /* POST /chat/completions */
    SAMPLER_RESPONSES, /* POST /responses */
};

struct sampler_opts {
    int kind;
    /* SAMPLER_LOCAL */
    gloss_model *model;
    gloss_engine *engine;
    const char *date; /* "YYYY-MM-DD" in the system message, or NULL for none */
    /* the others */
    struct client_opts client;
    const char *model_name; /* "model" of the requests */
};

/* One question. Zero it, set the first part. Texts are borrowed until it comes back. */
struct sampler_question {
    const char *messages; /* [n_messages] JSON array of chat messages (role, content) */
    size_t n_messages;
    const char *effort; /* "low", "medium", "high" */
    double temperature, top_p;
    int max_tokens; /* 0: what the context allows */
    int64_t seed;   /* below 0: none sent */
    const char *const
        *stop; /* [n_stop] texts the answer ends before, searched in the final channel */
    int n_stop;
    bool stream; /* servers: stream, so that the times below are known */

    /* Set when sampler_next returns it; the buffers are freed by sampler_question_fini. */
    status st; /* a failed question has its reason in err; the others go on */
    struct err err;
    struct buf final, analysis, commentary;  /* text by channel */
    const char *finish;                      /* "stop", "length", "tool_calls" */
    int64_t n_prompt, n_output, n_reasoning; /* tokens; -1: the server did not say */
    uint64_t start_ns, end_ns;
    uint64_t first_ns;           /* first token of any kind; 0: unknown */
    uint64_t first_reasoning_ns; /* 0: none or unknown */
    uint64_t first_final_ns;
    void *work; /* the sampler's own */
};

struct sampler;
MUST_USE status sampler_open(const struct sampler_opts *, struct sampler **, struct err *e);
void sampler_close(struct sampler *); /* drops what is under way; NULL allowed */
MUST_USE status sampler_ask(struct sampler *, struct sampler_question *, struct err *e);
/* The next finished question, or NULL after timeout_ms (as client_next). */
struct sampler_question *sampler_next(struct sampler *, int timeout_ms);
void sampler_question_fini(struct sampler_question *); /* zeroed allowed */

#endif
