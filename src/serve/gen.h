/* A generation: one exchange's requests to the engine, and the way of their tokens into its answer.
 *
 * A prep thread makes it (gen_new), fills in what the endpoint wants, and starts it (gen_start);
 * from then on the pump alone touches it. Each request's tokens go through the harmony parser of
 * their choice and reach the endpoint as pieces: text of one kind, in order. The pump never waits:
 * a client that does not read makes it leave that generation's events in the engine, which pauses
 * the sequence.
 *
 *     gen_ops.piece*  gen_ops.choice_end  (per choice)   gen_ops.end | gen_ops.fail
 *
 * Whatever the model emits, every body's text becomes a piece, and no control token does.
 */
#ifndef SERVE_GEN_H
#define SERVE_GEN_H

#include "base/arena.h"
#include "serve/meter.h"
#include "serve/server.h"

enum part { PART_REASONING, PART_PREAMBLE, PART_ANSWER, PART_CALL };

struct piece {
    enum part part;
    int message;      /* messages of one choice are numbered upwards */
    bool first;       /* of its message */
    const char *name; /* PART_CALL: the function */
    const char *text; /* with the blank line that parts it from the message before */
    size_t n;
    const char *body; /* without */
    size_t n_body;
};

struct call {
    char id[40];
    char *name;
    struct buf args;
    int message;
};

struct choice {
    int index;
    struct part_req *req;
    gloss_chat *chat;              /* NULL: plain text */
    struct buf reasoning, content; /* complete so far */
    struct buf logprobs;           /* entries of tokens not yet taken by the endpoint */
    struct buf ids;                /* token ids with commas, when wanted */
    struct call *call;             /* [n_call] */
    int n_call, cap_call;
    int at_message;                   /* the message of the last piece, or -1 */
    int last_reasoning, last_content; /* message that each buffer's end came from, or -1 */
    bool in_analysis, ended, was_length, was_stop_text;
    const char *finish; /* "stop", "length", "tool_calls" */
    int n_tok, n_reasoning_tok;
    void *own; /* the endpoint's */
};

/* One prompt: a request to the engine with n choices. */
struct part_req {
    struct gen *g;
    gloss_request *r;
    int32_t *ids; /* [n_ids] the prompt, until the end */
    size_t n_ids;
    int first; /* index of its first choice */
    int n_open;
    int n_reused;
};

struct gen;
struct gen_ops {
    void (*begin)(struct gen *); /* a stream has begun */
    void (*prompt)(struct gen *, struct choice *, const struct gloss_event *); /* echo; or NULL */
    void (*plain)(struct gen *, struct choice *, const struct gloss_event *);  /* without harmony */
    void (*piece)(struct gen *, struct choice *, const struct piece *);
    void (*tick)(struct gen *); /* after each batch of events; or NULL */
    void (*choice_end)(struct gen *, struct choice *);
    void (*end)(struct gen *);                      /* all choices ended, or it was cancelled */
    void (*fail)(struct gen *, const struct err *); /* answer with an error */
    void (*fini)(struct gen *);                     /* of `own`; or NULL */
};

struct gen {
    struct server *s;
    struct exch *x;
    const struct gen_ops *ops;
    void *own;
    struct arena mem;  /* strings that live as long */
    struct json *root; /* the request's tree, or NULL */
    struct gloss_params p;
    bool plain, stream, want_logprobs, want_ids;
    bool usage, usage_each; /* stream_options */
    char id[48];
    int64_t created;
    const char *model;    /* as asked */
    struct part_req *req; /* [n_req] */
    int n_req;
    struct choice *choice; /* [n_choice] */
    int n_choice, n_open;
    struct buf frame; /* SSE bytes of this batch */
    uint64_t t_submit, t_first, t_last;
    struct meter_mark energy;
    int n_prompt_tok, n_cached_tok;
    int n_fed; /* tokens at the prompts' ends that the answer's parser must see */

    /* private to gen.c */
    pthread_mutex_t lock;
    bool started, behind, failed, streaming;
    atomic_bool gone, shut, cancelled;
    struct err err;
    struct gen *next_queued, *prev, *next;
    bool queued, named;
    int n_unsent; /* tokens since the last write */
};

MUST_USE status pump_open(struct server *, struct pump **, struct err *);
/* Cancels what is left. */
void pump_close(struct pump *);
int pump_running(struct pump *);
/* Ends a generation as cancelled, by its id; false when none of the tenant's has it. */
bool pump_cancel(struct pump *, uint64_t tenant, const char *id);
/* Every generation ends with an error. */
void pump_shut(struct pump *);

/* Takes a reference to x. NULL: no memory. */
struct gen *gen_new(struct server *, struct exch *, const struct gen_ops *, const char *prefix);
/* Adds a prompt; the ids are copied. */
MUST_USE status gen_add(struct gen *, const int32_t *ids, size_t n);
/* Keeps the last n tokens of every prompt. */
void gen_keep_last(struct gen *, size_t n);
/* Submits; the generation belongs to the pump. On failure it was answered and freed. */
void gen_start(struct gen *);
/* Instead of gen_start. */
void gen_free(struct gen *);

/* Sums over choices. */
int gen_completion_tok(const struct gen *);
int gen_reasoning_tok(const struct gen *);
/* Appends "usage":{...} of the chat and completions endpoints / "timings":{...}. */
void gen_put_usage(const struct gen *, struct buf *);
/* Appends ,"energy":{...} where it was measured. */
void gen_put_energy(const struct gen *, struct buf *);
void gen_put_timings(const struct gen *, struct buf *);
/* gen_ops.fail of those two: an error reply, or once streaming a data line with the error. */
void gen_fail(struct gen *, const struct err *);

#endif
