/* The seed of a randomised test: fixed, so that a green commit stays green; SEED=N explores. */
#ifndef TESTS_SEED_H
#define TESTS_SEED_H

#include <stdint.h>
#include <stdlib.h>

static inline uint64_t test_seed(void)
{
    const char *s = getenv("SEED");
    return s ? strtoull(s, NULL, 10) : 20261121;
}

#endif
