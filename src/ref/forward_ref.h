/* The plain float32 forward: slow, complete, obvious. The oracle for every kernel and backend. */
#ifndef REF_FORWARD_REF_H
#define REF_FORWARD_REF_H

#include "model/weights.h"

/* Runs tok[n] from position 0 and writes logits[n, n_vocab] (or, with last_only, [1, n_vocab]).
 * E_NOMEM; E_NUMERIC when a logit is NaN. */
MUST_USE status forward_ref(const struct weights *w, const int32_t *tok, int n, bool last_only,
                            float *logits, struct err *e);

#endif
