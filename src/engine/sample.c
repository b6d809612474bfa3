/* The passes over the whole vocabulary are pass.h's. No pass sorts: top-k and top-p find their
 * threshold by counting float bit patterns.
 */
#include "engine/sample.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"

#include <math.h>

enum {
    HIST = 1024, /* buckets */
    COPIES = 4
};

/* Counts or sums of one level. Neighbours often fall into one bucket, and an update has to wait for
 * the one before: so each has a copy of its own. */
struct hist {
    double at[HIST][COPIES];
};

status sample_scratch_open(struct sample_scratch *s, int n_vocab)
{
    size_t n = (size_t)n_vocab;
    *s = (struct sample_scratch){.n_vocab = n_vocab, .pass = sample_pass_best()};
    s->row = mem_array(n, sizeof *s->row);
    s->p = mem_array(n, sizeof *s->p);
    s->cand_p = mem_array(n, sizeof *s->cand_p);
    s->cand = mem_array(n, sizeof *s->cand);
    s->block = mem_array(n / PASS_BLOCK + 1, sizeof *s->block);
    s->hist = mem_alloc(sizeof(struct hist));
    if (s->row && s->p && s->cand_p && s->cand && s->block && s->hist)
        return OK;
    sample_scratch_close(s);
    return E_NOMEM;
}

void sample_scratch_close(struct sample_scratch *s)
{
    mem_free(s->row);
    mem_free(s->p);
    mem_free(s->cand_p);
    mem_free(s->cand);
    mem_free(s->block);
    mem_free(s->hist);
    *s = (struct sample_scratch){0};
}

/* ---- what a sequence holds ---- */

status sample_seen_open(struct sample_seen *s, int max_distinct)
{
    *s = (struct sample_seen){.cap = 2, .max = max_distinct};
    while (s->cap < 2 * max_distinct)
        s->cap *= 2;
    s->list = mem_array((size_t)max_distinct, sizeof *s->list);
    s->table = mem_array((size_t)s->cap, sizeof *s->table);
    if (!s->list || !s->table) {
        sample_seen_close(s);
        return E_NOMEM;
    }
    for (int i = 0; i < s->cap; i++)
        s->table[i] = -1;
    return OK;
}

void sample_seen_close(struct sample_seen *s)
{
    mem_free(s->list);
    mem_free(s->table);
    *s = (struct sample_seen){0};
}

void sample_seen_add(struct sample_seen *s, int32_t id, bool generated)
{
    if (!s->table)
        return;
    uint32_t at = (uint32_t)id * 0x9E3779B1u & (uint32_t)(s->cap - 1);
    while (s->table[at] >= 0 && s->list[s->table[at]].id != id)
        at = (at + 1) & (uint32_t)(s->cap - 1);
    if (s->table[at] < 0) {
        ASSERT(s->n < s->max);
        s->table[at] = s->n;
        s->list[s->n++] = (struct token_count){.id = id};
    }
    s->list[s->table[at]].n_out += generated;
}

/* ---- passes over the vocabulary ---- */

int32_t sample_argmax(const float *logits, int n_vocab)
{
    float unused;
    return sample_pass_best()->argmax(logits, n_vocab, &unused);
}

static double lse_of(const struct sample_pass *pass, const float *logits, int n_vocab, float max)
{
    float unused[PASS_BLOCK];
    double sum = 0;
    for (int i = 0; i < n_vocab; i += PASS_BLOCK)
        sum += pass->exp(logits + i, min_int(PASS_BLOCK, n_vocab - i), max, 1, unused);
    return (double)max + log(sum);
}

double sample_lse(const float *logits, int n_vocab)
{
    const struct sample_pass *pass = sample_pass_best();
    float max;
    (void)pass->argmax(logits, n_vocab, &max);
    return lse_of(pass, logits, n_vocab, max);
}

void sample_top(const float *logits, int n_vocab, int n, int32_t *id)
{
    const struct sample_pass *pass = sample_pass_best();
    int k = 0;
    for (int from = 0; from < n_vocab; from += PASS_BLOCK) {
        int to = min_int(from + PASS_BLOCK, n_vocab);
        float max;
        (void)pass->argmax(logits + from, to - from, &max);
        if (k == n && !(max > logits[id[k - 1]]))
            continue;
        for (int32_t i = from; i < to; i++) {
            if (k == n && !(logits[i] > logits[id[k - 1]]))
                continue;
            int at = k < n ? k++ : n - 1;
            for (; at > 0 && logits[i] > logits[id[at - 1]]; at--)
                id[at] = id[at - 1];
            id[at] = i;
        }
    }
}

/* ---- filters ---- */

/* Walks down from the largest of v[n] until there are *left elements (by_mass: until their sum is
 * *left), in buckets of 2^shift bit patterns from `lo` on; *left loses what lies above. Returns the
 * bucket. */
static uint32_t crossing(struct hist *h, const float *v, int n, uint32_t lo, int shift,
                         bool by_mass, double *left)
{
    memset(h, 0, sizeof *h);
    if (by_mass)
        for (int i = 0; i < n; i++)
            h->at[(f32_bits(v[i]) - lo) >> shift][i % COPIES] += (double)v[i];
    else
        for (int i = 0; i < n; i++)
            h->at[(f32_bits(v[i]) - lo) >> shift][i % COPIES]++;
    uint32_t last = 0;
    for (int b = HIST - 1; b >= 0; b--) {
        double in = 0;
        for (int i = 0; i < COPIES; i++)
            in += h->at[b][i];
        if (in <= 0)
            continue;
        last = (uint32_t)b;
        if (in >= *left)
            return last;
        *left -= in;
    }
    return last; /* the smallest elements stand in for a crossing that rounding hid */
}

/* The smallest value that is kept when the largest of v[n] are taken until there are `left` of them
 * (by_mass: until their sum is `left`); *n_equal of those with this very value. Bit patterns order
 * positive floats as their values do; each round narrows their range to a thousandth, a flat
 * distribution's as quickly as a steep one's. tmp[n]; n > 0. */
static float threshold(const struct sample_pass *pass, struct hist *h, const float *v, int n,
                       bool by_mass, double left, float *tmp, int *n_equal)
{
    float least, most;
    pass->range(v, n, &least, &most);
    uint32_t lo = f32_bits(least), hi = f32_bits(most);
    while (hi > lo) {
        int shift = 0;
        while ((hi - lo) >> shift >= HIST)
            shift++;
        lo += crossing(h, v, n, lo, shift, by_mass, &left) << shift;
        hi = lo + ((uint32_t)1 << shift) - 1;
        n = pass->between(v, n, bits_f32(lo), bits_f32(hi), tmp);
        v = tmp; /* in place from the second round on */
    }
    double want = by_mass ? ceil(left / (double)v[0]) : left;
    *n_equal = max_int(1, want < (double)n ? (int)want : n);
    return v[0];
}

/* Keeps the likeliest candidates until there are `left` of them, or until they sum to `left`; of
 * equal ones those with the lowest ids. The others become 0. */
static void cut(struct sample_scratch *s, int n, bool by_mass, double left)
{
    int take;
    float v = threshold(s->pass, s->hist, s->cand_p, n, by_mass, left, s->row, &take);
    int more = s->pass->keep(s->cand_p, n, v) - take;
    for (int i = n - 1; more > 0; i--)
        if (s->cand_p[i] == v) {
            s->cand_p[i] = 0;
            more--;
        }
}

/* A value that at least k elements of p reach: the k-th largest of the groups' maxima. */
static float floor_of_top(struct sample_scratch *s, int k)
{
    int n = s->n_vocab / PASS_LANE, unused;
    if (k > n / 2)
        return 0;
    s->pass->group_max(s->p, n, s->cand_p);
    return threshold(s->pass, s->hist, s->cand_p, n, false, k, s->row, &unused);
}

static bool mask_allows(const struct pick *p, int32_t id)
{
    return !p->mask || id == p->also || (p->mask[id / 32] >> (id % 32) & 1);
}

/* Gives x[n], the elements of ids from..from + n - 1, the value v where the mask forbids; `from` is
 * a multiple of 32. False: there was none. */
static bool mask_block(const struct sample_pass *pass, const struct pick *p, int from, int n,
                       float v, float *x)
{
    bool any = false;
    for (int i = 0; i < n; i += 32) {
        uint32_t w = p->mask[(from + i) / 32];
        if (w == UINT32_MAX)
            continue;
        if (p->also >= from + i && p->also - (from + i) < 32)
            w |= (uint32_t)1 << (p->also - (from + i));
        pass->mask(w, min_int(32, n - i), v, x + i);
        any = true;
    }
    return any;
}

/* Penalties, bias, forbidden tokens and mask, into a copy of the row: whatever makes a token
 * impossible sets its logit to -Inf. */
static const float *apply_rules(const float *logits, const struct pick *p, bool forbid,
                                struct sample_scratch *s)
{
    memcpy(s->row, logits, (size_t)s->n_vocab * sizeof *s->row);
    for (int i = 0; i < p->n_seen; i++) {
        const struct token_count *c = &p->seen[i];
        float *x = &s->row[c->id];
        if (p->repetition > 0 && p->repetition != 1)
            *x = *x > 0 ? *x / p->repetition : *x * p->repetition;
        *x -= p->frequency * (float)c->n_out + (c->n_out > 0 ? p->presence : 0);
    }
    for (int i = 0; i < p->n_bias; i++)
        s->row[p->bias_id[i]] += p->bias[i];
    for (int i = 0; forbid && i < p->n_forbidden; i++)
        s->row[p->forbidden[i]] = -INFINITY;
    if (p->mask)
        (void)mask_block(s->pass, p, 0, s->n_vocab, -INFINITY, s->row);
    return s->row;
}

/* The index of the element of x[n] where the running sum passes `at`; s->block holds the sums of
 * its blocks. -1: rounding used up the mass, and there is no last one either. */
static int32_t draw(const struct sample_scratch *s, const float *x, int n, double at)
{
    int32_t last = -1;
    for (int i = 0; i < n; i += PASS_BLOCK) {
        int m = min_int(PASS_BLOCK, n - i);
        if (s->block[i / PASS_BLOCK] <= at && i + m < n) {
            at -= s->block[i / PASS_BLOCK];
            continue;
        }
        for (int j = i; j < i + m; j++) {
            if (x[j] <= 0)
                continue;
            last = j;
            at -= (double)x[j];
            if (at < 0)
                return j;
        }
    }
    return last;
}

void sample_describe(const struct sample_params *p, const struct sample_rules *r, struct pick *out)
{
    *out = (struct pick){.temperature = p->temperature,
                         .top_p = p->top_p,
                         .min_p = p->min_p,
                         .top_k = p->top_k,
                         .presence = p->presence,
                         .frequency = p->frequency,
                         .repetition = p->repetition,
                         .seen = r->seen ? r->seen->list : NULL,
                         .n_seen = r->seen ? r->seen->n : 0,
                         .bias_id = p->bias_id,
                         .bias = p->bias,
                         .n_bias = p->n_bias,
                         .forbidden = r->forbidden,
                         .n_forbidden = r->n_forbidden,
                         .mask = r->mask.bits,
                         .also = r->mask.also};
    if (p->temperature > 0)
        out->u = rng_uniform(p->seed, p->stream, r->pos);
}

int32_t sample_token(const float *logits, const struct sample_params *p,
                     const struct sample_rules *r, double *lse, struct sample_scratch *s)
{
    struct pick pick;
    sample_describe(p, r, &pick);
    return sample_pick(logits, &pick, lse, s);
}

int32_t sample_pick(const float *logits, const struct pick *p, double *lse,
                    struct sample_scratch *s)
{
    int n = s->n_vocab;
    const float *raw = logits;
    bool mask = p->mask != NULL, rules = p->n_seen || p->n_bias || p->n_forbidden;
    const struct sample_pass *pass = s->pass;
    float max = 0;
    int32_t top = rules && !lse ? 0 : pass->argmax(raw, n, &max);
    float raw_max = max;
    if (!rules && mask && !mask_allows(p, top))
        rules = true; /* the largest of those allowed is to be found */
    if (rules) {
        logits = apply_rules(raw, p, true, s);
        top = pass->argmax(logits, n, &max);
        if (max == -INFINITY) {
            logits = apply_rules(raw, p, false, s);
            top = pass->argmax(logits, n, &max);
        }
        mask = false; /* applied */
    }
    bool same = !rules && p->temperature == 1; /* the sum below is that of the model itself */
    if (lse && !same)
        *lse = lse_of(pass, raw, n, raw_max);
    if (p->temperature <= 0)
        return top;
    double sum = 0, whole = 0;
    for (int i = 0; i < n; i += PASS_BLOCK) {
        int m = min_int(PASS_BLOCK, n - i);
        double in = pass->exp(logits + i, m, max, 1 / p->temperature, s->p + i);
        whole += in;
        if (mask && mask_block(pass, p, i, m, 0, s->p + i))
            in = pass->sum(s->p + i, m);
        sum += s->block[i / PASS_BLOCK] = in;
    }
    if (lse && same)
        *lse = (double)max + log(whole);
    bool by_mass = p->top_p > 0 && p->top_p<1, by_n = p->top_k> 0 && p->top_k < n;
    if (!by_mass && !by_n && p->min_p <= 0) {
        int32_t id = draw(s, s->p, n, p->u * sum);
        return id < 0 ? top : id;
    }
    /* Elements below (1 - top_p) of the average sum to less than 1 - top_p of the mass: the others
     * reach top_p without them. The likeliest element is 1. */
    float floor_p = by_n      ? floor_of_top(s, p->top_k)
                    : by_mass ? (float)((1 - (double)p->top_p) * sum / n)
                              : p->min_p;
    int m = pass->collect(s->p, n, floor_p, s->cand_p, s->cand);
    if (by_n) {
        if (m > p->top_k)
            cut(s, m, false, p->top_k);
        sum = 0;
        for (int i = 0; i < m; i++)
            sum += (double)s->cand_p[i];
    }
    if (by_mass)
        cut(s, m, true, (double)p->top_p * sum);
    double mass = 0;
    for (int i = 0; i < m; i += PASS_BLOCK) {
        int in = min_int(PASS_BLOCK, m - i);
        for (int j = i; j < i + in; j++)
            s->cand_p[j] = s->cand_p[j] >= p->min_p ? s->cand_p[j] : 0;
        mass += s->block[i / PASS_BLOCK] = pass->sum(s->cand_p + i, in);
    }
    int32_t i = draw(s, s->cand_p, m, p->u * mass);
    return i < 0 ? top : s->cand[i];
}
