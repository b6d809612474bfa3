/* Schemas, patterns and choices of any bytes: refused with a message, or a grammar along which
 * masks are never empty before the end, agree with single tries, and every masked-in token is
 * taken. The first byte chooses the kind, the rest is its text. */
#include "engine/gcache.h"
#include "engine/mask.h"
#include "small_vocab.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_RANK = 1000, N_STEP = 24 };

static struct masker *masker;
static struct gcache *cache;
static uint32_t bits[(N_RANK + 6 + 31) / 32];

static void walk(struct grammar *g, uint64_t seed)
{
    struct matcher *x;
    ASSERT(matcher_new(masker, g, &x) == OK);
    for (int step = 0; step < N_STEP; step++) {
        struct masker_stats s;
        uint32_t total = 0;
        int32_t id = 0;
        matcher_mask(x, bits);
        for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++)
            total += (uint32_t)__builtin_popcount(bits[i]);
        if (!total) {
            ASSERT(matcher_can_end(x));
            break;
        }
        masker_stats(masker, &s);
        seed = (seed ^ (uint64_t)step) * 0x9e3779b97f4a7c15u;
        for (uint32_t k = (uint32_t)(seed >> 33) % total;; id++)
            if (bits[id / 32] >> (id % 32) & 1 && k-- == 0)
                break;
        int32_t other = (int32_t)(seed >> 13) % N_RANK;
        if (other >= 0 && !s.cut)
            ASSERT(matcher_allows(x, other) == (bits[other / 32] >> (other % 32) & 1));
        status st = matcher_accept(x, id);
        masker_stats(masker, &s);
        ASSERT(st == OK || s.cut); /* readings were dropped: a hostile, ambiguous grammar */
        if (st < 0)
            break;
    }
    matcher_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err e = {0};
    struct grammar *g;
    if (!masker) {
        ASSERT(masker_new(small_vocab(N_RANK), N_RANK + 6, &masker, &e) == OK);
        ASSERT(gcache_new(masker_prelude(masker), 1 << 16, &cache) == OK);
    }
    if (n < 1)
        return 0;
    enum gcache_kind kind = data[0] % 4;
    status st = gcache_get(cache, kind, (const char *)data + 1, n - 1, &g, &e);
    if (st < 0) {
        ASSERT(!g && e.msg[0] && (st == E_INPUT || st == E_LIMIT));
        return 0;
    }
    uint64_t seed = n;
    for (size_t i = 0; i < n; i++)
        seed = (seed ^ data[i]) * 0x100000001b3u;
    walk(g, seed);
    grammar_unref(g);
    return 0;
}
