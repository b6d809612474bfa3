/* A counter-based random generator: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). The number at (seed, stream, position) is a pure function of the
 * three, so a sampled token does not depend on which other requests share the batch.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

void rng_block(uint64_t seed, uint64_t stream, uint64_t pos, uint32_t out[4]);

/* Uniform in [0, 1) with 53 random bits. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t pos);

/* Four standard normal floats (Box-Muller). */
void rng_normal4(uint64_t seed, uint64_t stream, uint64_t pos, float out[4]);

/* A seed from the operating system, for when the user gave none. */
uint64_t rng_os_seed(void);

#endif
