/* Logits to a token.
 *
 * Order of the filters, each over what the one before left: temperature, top-k, top-p, min-p. The
 * random number is a pure function of (seed, position), so a request's tokens do not depend on what
 * else is in the batch. Ties go to the lowest id.
 */
#ifndef ENGINE_SAMPLE_H
#define ENGINE_SAMPLE_H

#include "base/err.h"

#include <stdint.h>

struct sample_params {
    float temperature; /* 0: greedy */
    float top_p;       /* 0 or 1: off */
    float min_p;       /* 0: off; relative to the likeliest token */
    int top_k;         /* 0: off */
    uint64_t seed;
};

struct sample_scratch {
    float *p;    /* [n_vocab] */
    int32_t *id; /* [n_vocab] */
    int n_vocab;
};

MUST_USE status sample_scratch_open(struct sample_scratch *s, int n_vocab);
void sample_scratch_close(struct sample_scratch *s);

/* Log of the sum of exp(logits): logprob of token t is logits[t] - sample_lse(...). */
double sample_lse(const float *logits, int n_vocab);

int32_t sample_argmax(const float *logits, int n_vocab);

/* logits[n_vocab] finite; `pos` counts the request's generated tokens. */
int32_t sample_token(const float *logits, const struct sample_params *p, uint64_t pos,
                     struct sample_scratch *s);

#endif
