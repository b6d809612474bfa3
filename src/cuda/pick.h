/* Choosing tokens on the card: struct pick of model/backend.h over the logits of a step.
 *
 * What the choices are made by (masks, lists, parameters) goes to the card on a stream of its own
 * while the step computes; then one kernel does it, a block of 1024 threads a row.
 */
#ifndef CUDA_PICK_H
#define CUDA_PICK_H

#include "cuda/dev.h"

struct picker;

/* NULL: out of memory. What the card refuses is cu_check's. */
struct picker *picker_open(int max_row, int n_vocab);
void picker_close(struct picker *); /* NULL allowed */

struct pick_rows {
    const float *logits;      /* [n, n_vocab] on the card */
    const int32_t *best;      /* [n] k_best's, on the card */
    const int32_t *host_best; /* [n] the same here, once the stream has come to its end */
    float *host_logits;       /* [n, n_vocab] takes rows that are wanted whole */
};

/* Fills in the picks [n]'s results; waits for the stream. E_LIMIT for lists longer than the
 * vocabulary. Rows that hold NaN or Inf get any token. */
MUST_USE status picker_run(struct picker *, struct pick *pick, int n, const struct pick_rows *rows,
                           cudaStream_t s, struct err *e);

#endif
