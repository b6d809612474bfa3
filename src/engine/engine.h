/* The engine: runs requests on one backend.
 *
 * Whoever waits for an event drives the steps: request_next takes the engine's lock and, as long as
 * its own request has nothing to say, runs one step for all admitted requests (a decode row each,
 * prefill in chunks). So there is no thread to start and several requests still share each step.
 * Requests are admitted first come, first served, when pages for their longest outcome are free;
 * admitted ones never fail for lack of memory. The step loop allocates nothing.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/sample.h"
#include "model/backend.h"
#include "text/harmony.h"

struct engine;
struct request;

struct engine_opts {
    const struct weights *weights; /* outlives the engine */
    const struct vocab *vocab;     /* NULL for a checkpoint without tokenizer */
    enum arith arith;
    int n_thread;
    int n_ctx;        /* most tokens of one request */
    int max_requests; /* admitted at once */
    int chunk;        /* most prompt rows of one step */
};
MUST_USE status engine_open(const struct engine_opts *, struct engine **, struct err *);
void engine_close(struct engine *); /* all requests freed before */

struct request_params {
    int max_tok; /* 0: to the end of the context */
    struct sample_params sample;
    int reasoning_budget; /* analysis tokens after which the answer is opened; 0: none */
    bool ignore_eos;
    bool plain; /* no harmony stream: only the checkpoint's own end tokens stop it */
};

enum finish { FINISH_NONE, FINISH_STOP, FINISH_CALL, FINISH_LENGTH, FINISH_ERROR };

struct event {
    bool is_finish;
    int32_t token;
    float logprob;
    enum finish finish;
    struct err err;
    uint64_t t_ns;
};

/* Copies the prompt. E_LIMIT when prompt and one token exceed the context, E_INPUT for an id
 * outside the vocabulary, E_NOMEM. */
MUST_USE status request_new(struct engine *, const int32_t *ids, size_t n,
                            const struct request_params *, struct request **, struct err *);
/* E_STATE after the finish was delivered, E_BUSY when timeout_ms passed (negative: wait). */
MUST_USE status request_next(struct request *, struct event *, int timeout_ms);
void request_cancel(struct request *); /* any thread; ends with FINISH_ERROR, E_CANCEL */
void request_free(struct request *);   /* gives its pages back; NULL allowed */

/* E_INPUT naming the first id outside the model's vocabulary. */
MUST_USE status engine_check_ids(const struct engine *, const int32_t *ids, size_t n, struct err *);

/* Runs ids[n] alone and hands each row's logits to `row` in order. E_BUSY when no pages are free.
 */
MUST_USE status engine_rows(struct engine *, const int32_t *ids, size_t n, bool last_only,
                            status (*row)(void *ctx, size_t i, const float *logits, int n_vocab),
                            void *ctx, struct err *);

#endif
