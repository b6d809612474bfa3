/* The system under test: prompts of token ids in, answers of token ids out, as fast as the engine
 * or a server takes them.
 *
 * One worker thread owns the engine's descriptor, or with a server each worker thread owns a client
 * of its own; they take jobs from one queue in the order of sut_add. A job always ends in exactly
 * one `done`, with an error in it when it failed. Callbacks come on the workers' threads.
 */
#ifndef MLPERF_SUT_H
#define MLPERF_SUT_H

#include "base/err.h"
#include "gloss.h"
#include "mlperf/mlperf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sut_job {
    uintptr_t id;
    const int32_t *ids; /* [n_ids] borrowed until the job is done */
    size_t n_ids;
    uint64_t seed; /* of sampling; 0: random */
};

struct sut_answer {
    uintptr_t id;
    const int32_t *ids; /* [n_ids] valid during the call */
    size_t n_ids;
    uint64_t start_ns, end_ns; /* when it was handed on, and its end */
    status st;                 /* OK, or why it failed; ids are what came before */
    struct err err;
};

struct sut_opts {
    struct mlperf_gen gen;
    bool stream; /* report first tokens as they come */
    void (*first)(void *ctx, uintptr_t id, int32_t token);
    void (*done)(void *ctx, const struct sut_answer *);
    void *ctx;
};

struct sut;
MUST_USE status sut_open(const struct sut_opts *, struct sut **, struct err *e);
/* Any thread; does not block. E_NOMEM: none was added. */
MUST_USE status sut_add(struct sut *, const struct sut_job *, size_t n);
/* Waits until every job that was added is done. */
void sut_wait(struct sut *);
/* Waits too, then ends the workers. NULL allowed. */
void sut_close(struct sut *);

#endif
