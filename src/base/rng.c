#include "base/rng.h"

#include <math.h>
#include <sys/random.h>
#include <time.h>

/* Multipliers and Weyl constants of Philox4x32 (the paper's table 2 and section 4). */
enum { N_ROUND = 10 };
static const uint32_t m0 = 0xD2511F53, m1 = 0xCD9E8D57, w0 = 0x9E3779B9, w1 = 0xBB67AE85;

void rng_block(uint64_t seed, uint64_t stream, uint64_t pos, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)pos, c1 = (uint32_t)(pos >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < N_ROUND; i++) {
        uint64_t p0 = (uint64_t)m0 * c0, p1 = (uint64_t)m1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += w0;
        k1 += w1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t pos)
{
    uint32_t r[4];
    rng_block(seed, stream, pos, r);
    return (double)(((uint64_t)r[0] << 32 | r[1]) >> 11) * 0x1p-53;
}

void rng_normal4(uint64_t seed, uint64_t stream, uint64_t pos, float out[4])
{
    uint32_t r[4];
    rng_block(seed, stream, pos, r);
    for (int i = 0; i < 4; i += 2) {
        float u = ((float)(r[i] >> 8) + 0.5f) * 0x1p-24f; /* (0, 1): the log is finite */
        float angle = 6.2831853f * ((float)(r[i + 1] >> 8) * 0x1p-24f);
        float radius = sqrtf(-2.0f * logf(u));
        out[i] = radius * cosf(angle);
        out[i + 1] = radius * sinf(angle);
    }
}

uint64_t rng_os_seed(void)
{
    uint64_t s;
    if (getrandom(&s, sizeof s, 0) != (ssize_t)sizeof s)
        s = (uint64_t)time(NULL) * 0x9E3779B97F4A7C15u;
    return s;
}
