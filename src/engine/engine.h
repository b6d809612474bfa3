/* The engine: runs many requests on one backend.
 *
 * One thread owns the scheduler, the cache and the backend, and loops: take what was submitted,
 * plan a batch (a row for every decoding sequence, prompts in chunks), step, sample, publish. Any
 * thread may submit; each request is read by one thread at a time. Nobody holds a lock while the
 * backend computes, and the loop allocates nothing; what a request needs is allocated when it is
 * submitted. docs/engine.md tells the whole story.
 *
 * Files: engine.c (the loop), sched.c (who runs next), request.c (requests and their readers),
 * prefix.c, kv.c and swap.c (pages), draft.c and gain.c (tokens guessed ahead), sample.c,
 * constrain.c, stop.c, budget.c, scripted.c.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/constrain.h"
#include "engine/sample.h"
#include "model/backend.h"
#include "text/harmony.h"

struct engine;
struct request;

struct engine_opts {
    const struct weights *weights; /* outlives the engine */
    const struct vocab *vocab;     /* NULL for a checkpoint without tokenizer */
    struct constrain *constrain;   /* of the model; outlives the engine */
    enum device { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA } device;
    struct backend_opts compute; /* i_card: of DEVICE_CUDA */
    int n_ctx;                   /* most tokens of one request */
    int max_requests;            /* sequences running at once */
    int max_queue;               /* requests that wait; more are refused with E_BUSY */
    int chunk;                   /* most prompt rows of one step; 0: what the backend likes */
    size_t
        memory_bytes;  /* of the cache; 0: what max_requests contexts need, if the machine has it */
    size_t swap_bytes; /* of the host's memory, for pages of preempted sequences; 0: none */
    double memory_share; /* of what the machine has, the cache's part at most */
    bool no_prefix_cache;
    const char *script; /* [n_script] scripted.h; NULL: the CPU backend */
    size_t n_script;
    int speculate; /* most tokens guessed ahead; 0: where it pays; -1: none */
};
MUST_USE status engine_open(const struct engine_opts *, struct engine **, struct err *);
void engine_close(struct engine *); /* all requests freed before */

struct request_params {
    int max_tok;                 /* 0: to the end of the context */
    int n;                       /* choices; 0: one */
    struct sample_params sample; /* bias arrays are copied; stream is the choice's index */
    int n_top;                   /* alternatives per token, at most REQUEST_MAX_TOP */
    bool no_logprob;             /* spares the sum over the vocabulary */
    bool prompt_logprob;
    int reasoning_budget;    /* analysis tokens after which the answer is opened; 0: none */
    int min_tok;             /* before that nothing stops it */
    const char *const *stop; /* [n_stop] texts, copied */
    int n_stop;
    const int32_t *stop_id; /* [n_stop_id] copied */
    int n_stop_id;
    bool ignore_eos;
    bool plain; /* no harmony stream: only the checkpoint's own end tokens stop it, nothing is held
                 */
    struct constrain_params hold; /* to what the tokens are held; copied */
    uint64_t tenant;
    int priority;         /* higher first */
    uint64_t deadline_ms; /* from submission; 0: none */
    bool no_cache;        /* computes the whole prompt */
    void *owner;          /* what engine_ready returns */
};
enum { REQUEST_MAX_TOP = 20, REQUEST_MAX_N = 128, REQUEST_MAX_LIST = 4096 };

enum finish { FINISH_NONE, FINISH_STOP, FINISH_CALL, FINISH_LENGTH, FINISH_ERROR };
enum event_kind { EVENT_TOKEN, EVENT_PROMPT, EVENT_FINISH };

struct event {
    enum event_kind kind;
    int index; /* choice */
    int32_t token;
    float logprob; /* NaN when there is none */
    int n_hide;    /* bytes at the end of the token's visible text that belong to a stop text */
    int n_top;
    const int32_t *top_id;    /* [n_top] until the next request_next */
    const float *top_logprob; /* [n_top] */
    enum finish finish;
    int i_stop;               /* stop text that ended the choice, or -1 */
    int n_reused, n_computed; /* of its prompt: positions found in the cache, positions computed */
    struct err err;
    uint64_t t_ns;
};

/* Copies everything. E_LIMIT when prompt and one token exceed the context, E_INPUT for an id
 * outside the vocabulary or a parameter out of range, E_BUSY when the queue is full or the engine
 * drains, E_NOMEM. */
MUST_USE status request_new(struct engine *, const int32_t *ids, size_t n,
                            const struct request_params *, struct request **, struct err *);
/* E_STATE after every choice's finish was delivered, E_BUSY when timeout_ms passed (negative:
 * wait). */
MUST_USE status request_next(struct request *, struct event *, int timeout_ms);
void request_cancel(struct request *); /* any thread; ends with FINISH_ERROR, E_CANCEL */
void request_free(struct request *);   /* cancels what still runs; NULL allowed */

/* An eventfd, readable while engine_ready has something to say. -1: the system refused one. */
int engine_fd(struct engine *);
/* Owners of requests that got events since they were last named here, at most cap. */
int engine_ready(struct engine *, void **owner, int cap);
/* Refuses new requests and waits until none is left. E_BUSY when timeout_ms passed (negative:
 * wait). */
MUST_USE status engine_drain(struct engine *, int timeout_ms);

struct engine_stats {
    int n_running, n_waiting; /* sequences with and without pages */
    int page_tok, n_ctx;      /* n_ctx: longest request that the pages allow */
    int pages_full, pages_window, free_full, free_window;
    int cached_full, cached_window; /* kept by the prefix cache, in use or not */
    int peak_full, peak_window;     /* most pages that were ever in use */
    size_t page_bytes_full, page_bytes_window;
    size_t weight_bytes, work_bytes; /* of the backend, beside the pages */
    uint64_t n_step, n_row, step_ns; /* steps, their rows, time inside the backend */
    uint64_t n_submitted, n_finished, n_cancelled, n_failed;
    uint64_t prompt_tok, prompt_reused, computed_tok, generated_tok;
    uint64_t n_preempt, n_evict, n_evict_window;
    uint64_t n_swap_out, n_swap_in; /* pages copied to the host's memory and back */
    uint64_t n_draft, n_accept;     /* tokens guessed ahead, and those that were right */
    const char *backend;
};
void engine_stats(struct engine *, struct engine_stats *);

/* E_INPUT naming the first id outside the model's vocabulary. */
MUST_USE status engine_check_ids(const struct engine *, const int32_t *ids, size_t n, struct err *);

/* Runs ids[n] beside the other requests, without the prefix cache, and hands each row's logits to
 * `row` in order, on the caller's thread. */
MUST_USE status engine_rows(struct engine *, const int32_t *ids, size_t n, bool last_only,
                            status (*row)(void *ctx, size_t i, const float *logits, int n_vocab),
                            void *ctx, struct err *);

#endif
