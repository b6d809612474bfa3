#include "engine/sample.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <stdbool.h>

status sample_scratch_open(struct sample_scratch *s, int n_vocab)
{
    *s = (struct sample_scratch){.n_vocab = n_vocab};
    s->p = mem_array((size_t)n_vocab, sizeof *s->p);
    s->id = mem_array((size_t)n_vocab, sizeof *s->id);
    if (s->p && s->id)
        return OK;
    sample_scratch_close(s);
    return E_NOMEM;
}

void sample_scratch_close(struct sample_scratch *s)
{
    mem_free(s->p);
    mem_free(s->id);
    *s = (struct sample_scratch){0};
}

int32_t sample_argmax(const float *logits, int n_vocab)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

double sample_lse(const float *logits, int n_vocab)
{
    float max = logits[sample_argmax(logits, n_vocab)];
    double sum = 0;
    for (int i = 0; i < n_vocab; i++)
        sum += (double)expf(logits[i] - max);
    return (double)max + log(sum);
}

/* A max-heap of (p, id) in parallel arrays: likelier first, lower id first on ties. */
static bool before(const struct sample_scratch *s, int a, int b)
{
    return s->p[a] > s->p[b] || (s->p[a] == s->p[b] && s->id[a] < s->id[b]);
}

static void swap(struct sample_scratch *s, int a, int b)
{
    float p = s->p[a];
    int32_t id = s->id[a];
    s->p[a] = s->p[b];
    s->id[a] = s->id[b];
    s->p[b] = p;
    s->id[b] = id;
}

static void sift_down(struct sample_scratch *s, int i, int n)
{
    for (;;) {
        int first = i, left = 2 * i + 1;
        if (left < n && before(s, left, first))
            first = left;
        if (left + 1 < n && before(s, left + 1, first))
            first = left + 1;
        if (first == i)
            return;
        swap(s, i, first);
        i = first;
    }
}

/* Keeps the nucleus: pops the heap of n candidates (whose p sum to `sum`) until the popped ones
 * reach top_p of the mass or top_k in number. They end at the arrays' tail, likeliest last;
 * returns where they begin. */
static int nucleus(struct sample_scratch *s, int n, const struct sample_params *p)
{
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(s, i, n);
    int k = p->top_k > 0 && p->top_k < n ? p->top_k : n;
    bool by_mass = p->top_p > 0 && p->top_p < 1;
    int end = n;
    double sum = 0;
    /* The mass of top-p is that of what top-k left, so top-k comes first. */
    while (n - end < k && end > 0) {
        swap(s, 0, --end);
        sift_down(s, 0, end);
        sum += (double)s->p[end];
        if (by_mass && k == n && sum >= (double)p->top_p)
            return end;
    }
    if (!by_mass)
        return end;
    double kept = 0;
    for (int i = n - 1; i >= end; i--) {
        kept += (double)s->p[i];
        if (kept >= (double)p->top_p * sum)
            return i;
    }
    return end;
}

int32_t sample_token(const float *logits, const struct sample_params *p, uint64_t pos,
                     struct sample_scratch *s)
{
    int n = s->n_vocab;
    int32_t best = sample_argmax(logits, n);
    if (p->temperature <= 0)
        return best;
    float max = logits[best];
    double sum = 0;
    for (int i = 0; i < n; i++) {
        s->p[i] = expf((logits[i] - max) / p->temperature);
        s->id[i] = i;
        sum += (double)s->p[i];
    }
    int from = 0;
    if ((p->top_k > 0 && p->top_k < n) || (p->top_p > 0 && p->top_p < 1)) {
        for (int i = 0; i < n; i++)
            s->p[i] = (float)((double)s->p[i] / sum);
        from = nucleus(s, n, p);
    }
    float floor_p = 0; /* min-p: relative to the likeliest, which every filter keeps */
    for (int i = from; i < n; i++)
        floor_p = fmaxf(floor_p, s->p[i]);
    floor_p *= p->min_p;

    double mass = 0;
    for (int i = from; i < n; i++)
        if (s->p[i] >= floor_p)
            mass += (double)s->p[i];
    double left = rng_uniform(p->seed, 0, pos) * mass;
    int32_t chosen = best;
    for (int i = from; i < n; i++) {
        if (s->p[i] < floor_p || s->p[i] == 0)
            continue;
        chosen = s->id[i];
        left -= (double)s->p[i];
        if (left < 0)
            break;
    }
    return chosen;
}
