/* CPython's random.Random: the Mersenne Twister (Matsumoto and Nishimura, 1998) seeded and drawn
 * from as Python 3 does, so that choices are shuffled exactly as by the published harnesses.
 */
#ifndef EVAL_MT19937_H
#define EVAL_MT19937_H

#include "base/err.h"

#include <stdbool.h>

#include <stddef.h>
#include <stdint.h>

struct mt19937 {
    uint32_t s[624];
    int i;
};

void mt_seed(struct mt19937 *r, uint64_t seed);    /* random.Random(seed) */
uint32_t mt_next(struct mt19937 *r);               /* getrandbits(32) */
uint32_t mt_below(struct mt19937 *r, uint32_t n);  /* randrange(n), n > 0 */
double mt_uniform(struct mt19937 *r);              /* random() */
void mt_shuffle(struct mt19937 *r, int *v, int n); /* shuffle(v) */
/* sample(range(n), k): k distinct numbers below n into out [k]; k <= n. */
MUST_USE status mt_sample(struct mt19937 *r, int n, int k, int *out);

#endif
