/* CPython's random.Random. See mt19937.h. */
#include "eval/mt19937.h"

#include "base/mem.h"

#include <string.h>

enum { N = 624, M = 397 };

/* init_by_array of the reference implementation, with the seed's 32-bit digits as key. */
void mt_seed(struct mt19937 *r, uint64_t seed)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, *s = r->s;
    int n_key = key[1] ? 2 : 1, i = 1, j = 0;
    s[0] = 19650218u;
    for (int k = 1; k < N; k++)
        s[k] = 1812433253u * (s[k - 1] ^ s[k - 1] >> 30) + (uint32_t)k;
    for (int k = N; k; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key[j] + (uint32_t)j;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
        j = (j + 1) % n_key;
    }
    for (int k = N - 1; k; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
    r->i = N;
}

static void refill(struct mt19937 *r)
{
    uint32_t *s = r->s;
    for (int k = 0; k < N; k++) {
        uint32_t y = (s[k] & 0x80000000u) | (s[(k + 1) % N] & 0x7fffffffu);
        s[k] = s[(k + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->i = 0;
}

uint32_t mt_next(struct mt19937 *r)
{
    if (r->i == N)
        refill(r);
    uint32_t y = r->s[r->i++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

uint32_t mt_below(struct mt19937 *r, uint32_t n)
{
    int bits = 32 - __builtin_clz(n);
    uint32_t v;
    do
        v = mt_next(r) >> (32 - bits);
    while (v >= n);
    return v;
}

double mt_uniform(struct mt19937 *r)
{
    uint32_t a = mt_next(r) >> 5, b = mt_next(r) >> 6;
    return (a * 67108864.0 + b) / 9007199254740992.0;
}

void mt_shuffle(struct mt19937 *r, int *v, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = (int)mt_below(r, (uint32_t)i + 1), t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
}

/* Python draws from a shrinking list when that is smaller than the set it would need. */
static bool use_list(int n, int k)
{
    int64_t most = 21;
    if (k > 5) {
        int64_t p = 1;
        while (p < 3 * (int64_t)k)
            p *= 4;
        most += p;
    }
    return n <= most;
}

status mt_sample(struct mt19937 *r, int n, int k, int *out)
{
    ASSERT(n >= 0 && k >= 0 && k <= n);
    int *pool = mem_array((size_t)n, sizeof *pool);
    if (!pool)
        return E_NOMEM;
    if (use_list(n, k)) {
        for (int i = 0; i < n; i++)
            pool[i] = i;
        for (int i = 0; i < k; i++) {
            uint32_t j = mt_below(r, (uint32_t)(n - i));
            out[i] = pool[j];
            pool[j] = pool[n - i - 1];
        }
    } else {
        memset(pool, 0, (size_t)n * sizeof *pool);
        for (int i = 0; i < k; i++) {
            uint32_t j = mt_below(r, (uint32_t)n);
            while (pool[j]) /* taken before */
                j = mt_below(r, (uint32_t)n);
            pool[j] = 1;
            out[i] = (int)j;
        }
    }
    mem_free(pool);
    return OK;
}
