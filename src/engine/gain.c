#include "engine/gain.h"
#include "base/num.h"

#include <string.h>

enum { TRY_EVERY = 256 /* steps: then a few rows are tried, as times change */ };

/* What a further row is believed to cost before it was measured, in steps of one row. */
static const float prior_cost = 0.25f;

void gain_measured(struct gain *g, int n, uint64_t ns)
{
    if (n < 1 || n > GAIN_ROWS)
        return;
    float t = (float)ns, *at = &g->ns[n];
    /* The first step of its kind may pay for what is made once; a slow one may be somebody else's
     * fault. */
    if (g->seen[n] < 2) {
        *at = g->seen[n] == 0 || t < *at ? t : *at;
        g->seen[n]++;
    } else {
        *at += (t - *at) / (t < *at ? 4 : 16);
    }
}

float gain_expected(const struct gain *g, int n)
{
    int lo = min_int(n, GAIN_ROWS), hi = n;
    while (lo > 0 && g->seen[lo] < 2)
        lo--;
    while (hi <= GAIN_ROWS && g->seen[hi] < 2)
        hi++;
    if (lo == n)
        return g->ns[n];
    if (lo > 0 && hi <= GAIN_ROWS) {
        float part = (float)(n - lo) / (float)(hi - lo), top = g->ns[hi];
        top = top > g->ns[lo] ? top : g->ns[lo];
        return g->ns[lo] + part * (top - g->ns[lo]);
    }
    if (lo > 0)
        return g->ns[lo] * (1 + prior_cost * (float)(n - lo) / (float)lo);
    return hi <= GAIN_ROWS ? g->ns[hi] : 0;
}

static int level_of(float chance)
{
    return min_int(GAIN_LEVELS - 1, (int)((1 - chance) * GAIN_LEVELS));
}

void gain_begin(struct gain *g)
{
    g->n_seq = 0;
    memset(g->n, 0, sizeof g->n);
    memset(g->sum, 0, sizeof g->sum);
}

void gain_offer(struct gain *g, int n, float chance)
{
    float p = chance;
    g->n_seq++;
    for (int i = 0; i < n; i++, p *= chance) {
        g->n[level_of(p)]++;
        g->sum[level_of(p)] += p;
    }
}

int gain_take(int n, float chance, int levels)
{
    float p = chance;
    int k = 0;
    for (; k < n && level_of(p) < levels; k++)
        p *= chance;
    return k;
}

int gain_decide(struct gain *g, int most)
{
    int n = g->n_seq, first = -1, best = 0;
    float tokens = (float)n, t = gain_expected(g, n), rate = t > 0 ? tokens / t : 0;
    for (int i = 0; i < GAIN_LEVELS; i++) {
        if (g->n[i] == 0)
            continue;
        n += g->n[i];
        tokens += g->sum[i];
        if (n > GAIN_ROWS || n - g->n_seq > most)
            break;
        first = first < 0 ? i : first;
        t = gain_expected(g, n);
        if (t > 0 && tokens / t > rate) {
            rate = tokens / t;
            best = i + 1;
        }
    }
    if (best || first < 0 || first >= GAIN_LEVELS / 2)
        return best;
    if (++g->since_try < TRY_EVERY)
        return 0;
    g->since_try = 0;
    return first + 1;
}
