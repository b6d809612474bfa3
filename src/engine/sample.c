/* The passes over the whole vocabulary are plain loops over blocks of LANE elements without
 * branches, which the compiler turns into vector code of the baseline instruction set (the Makefile
 * gives this file -O3). No pass sorts: top-k and top-p find their threshold by counting float bit
 * patterns, eleven or ten bits at a time, so that a flat distribution costs what a steep one does.
 */
#include "engine/sample.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"

#include <math.h>

enum {
    LANE = 16,
    BLOCK = 1024, /* elements summed in float before they go into a double */
    HIST = 1024   /* buckets; bits of 1.0f >> 20 are below it */
};

/* Counts and masses of one level; two copies, since neighbours often fall into one bucket and an
 * update has to wait for the one before. */
struct hist {
    int32_t n[2][HIST];
    double mass[2][HIST];
};

status sample_scratch_open(struct sample_scratch *s, int n_vocab)
{
    size_t n = (size_t)n_vocab;
    *s = (struct sample_scratch){.n_vocab = n_vocab};
    s->row = mem_array(n, sizeof *s->row);
    s->p = mem_array(n, sizeof *s->p);
    s->cand_p = mem_array(n, sizeof *s->cand_p);
    s->cand = mem_array(n, sizeof *s->cand);
    s->block = mem_array(n / BLOCK + 1, sizeof *s->block);
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
        s->list[s->n++] = (struct sample_count){.id = id};
    }
    s->list[s->table[at]].n_out += generated;
}

/* ---- passes over the vocabulary ---- */

static float max_of(const float *x, int n)
{
    float m[LANE], max = x[0];
    int i = 0;
    for (int j = 0; j < LANE; j++)
        m[j] = x[0];
    for (; i + LANE <= n; i += LANE)
        for (int j = 0; j < LANE; j++)
            m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    for (int j = 0; j < LANE; j++)
        max = m[j] > max ? m[j] : max;
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static int32_t index_of(const float *x, int n, float v)
{
    int i = 0;
    for (; i + LANE <= n; i += LANE) {
        int any = 0;
        for (int j = 0; j < LANE; j++)
            any |= x[i + j] == v;
        if (any)
            break;
    }
    while (i < n - 1 && x[i] != v)
        i++;
    return i;
}

int32_t sample_argmax(const float *logits, int n_vocab)
{
    return index_of(logits, n_vocab, max_of(logits, n_vocab));
}

/* exp(x) for x <= 0, relative error below 2e-7; 0 where the result would be denormal, -Inf
 * included. 2^k by the exponent bits, the rest by a polynomial (Cephes' expf). */
static inline float exp_below_0(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float y = x < -87.0f ? -87.0f : x;
    float shifted = y * 1.44269504f + magic;
    float k = shifted - magic;
    float r = y - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float q = 1.9875691500e-4f;
    q = q * r + 1.3981999507e-3f;
    q = q * r + 8.3334519073e-3f;
    q = q * r + 4.1665795894e-2f;
    q = q * r + 1.6666665459e-1f;
    q = q * r + 5.0000001201e-1f;
    q = q * r * r + r + 1.0f;
    float scaled = bits_f32(f32_bits(q) + (f32_bits(shifted) << 23));
    return x < -87.0f ? 0.0f : scaled;
}

static double sum_block(const float *x, int n)
{
    float part[LANE] = {0};
    double sum = 0;
    int i = 0;
    for (; i + LANE <= n; i += LANE)
        for (int j = 0; j < LANE; j++)
            part[j] += x[i + j];
    for (; i < n; i++)
        part[0] += x[i];
    for (int j = 0; j < LANE; j++)
        sum += (double)part[j];
    return sum;
}

/* out[i] = exp((x[i] - max) * inv_t) for one block of n <= BLOCK; returns their sum. */
static double exp_block(const float *x, int n, float max, float inv_t, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = exp_below_0((x[i] - max) * inv_t);
    return sum_block(out, n);
}

static double lse_of(const float *logits, int n_vocab, float max)
{
    float unused[BLOCK];
    double sum = 0;
    for (int i = 0; i < n_vocab; i += BLOCK)
        sum += exp_block(logits + i, min_int(BLOCK, n_vocab - i), max, 1, unused);
    return (double)max + log(sum);
}

double sample_lse(const float *logits, int n_vocab)
{
    return lse_of(logits, n_vocab, max_of(logits, n_vocab));
}

void sample_top(const float *logits, int n_vocab, int n, int32_t *id)
{
    int k = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (k == n && !(logits[i] > logits[id[k - 1]]))
            continue;
        int at = k < n ? k++ : n - 1;
        for (; at > 0 && logits[i] > logits[id[at - 1]]; at--)
            id[at] = id[at - 1];
        id[at] = i;
    }
}

/* ---- filters ---- */

/* Appends the elements of at least `floor_p` to the candidates; returns how many there are. */
static int collect(struct sample_scratch *s, float floor_p)
{
    int n = 0, i = 0;
    for (; i < s->n_vocab; i += LANE) {
        int m = min_int(LANE, s->n_vocab - i), any = 0;
        if (m == LANE)
            for (int j = 0; j < LANE; j++)
                any |= s->p[i + j] >= floor_p;
        if (m == LANE && !any)
            continue;
        for (int j = i; j < i + m; j++) {
            s->cand_p[n] = s->p[j]; /* kept only if counted */
            s->cand[n] = j;
            n += s->p[j] >= floor_p && s->p[j] > 0;
        }
    }
    return n;
}

/* Counts v[n] by `shift`ed bits and walks down from the largest until *left_n elements or
 * *left_mass are reached; both lose what lies above. Returns the bucket; *in_n is what it holds. */
static uint32_t crossing(struct hist *h, const float *v, int n, int shift, int *left_n,
                         double *left_mass, int *in_n)
{
    memset(h, 0, sizeof *h);
    for (int i = 0; i < n; i++) {
        uint32_t b = f32_bits(v[i]) >> shift & (HIST - 1);
        h->n[i & 1][b]++;
        h->mass[i & 1][b] += (double)v[i];
    }
    int rest = n;
    for (int b = HIST - 1;; b--) {
        *in_n = h->n[0][b] + h->n[1][b];
        double in_mass = h->mass[0][b] + h->mass[1][b];
        rest -= *in_n;
        /* The last elements stand in for a crossing that rounding hid. */
        if (*in_n && (*in_n >= *left_n || in_mass >= *left_mass || rest == 0))
            return (uint32_t)b;
        *left_n -= *in_n;
        *left_mass -= in_mass;
    }
}

/* The smallest value that is kept when the likeliest of v[n] are taken until there are max_n of
 * them or they reach max_mass; *n_equal of those with this very value. Bit patterns order positive
 * floats as their values do: three rounds find the pattern. tmp[n]; n > 0. */
static float threshold(struct hist *h, const float *v, int n, int max_n, double max_mass,
                       float *tmp, int *n_equal)
{
    static const int shift[] = {20, 10, 0};
    uint32_t bits = 0;
    for (int level = 0; level < 3; level++) {
        int in_n, k = 0;
        bits = bits << 10 | crossing(h, v, n, shift[level], &max_n, &max_mass, &in_n);
        for (int i = 0; i < n && k < in_n; i++) { /* in place from the second round on */
            tmp[k] = v[i];
            k += f32_bits(v[i]) >> shift[level] == bits;
        }
        v = tmp;
        n = in_n;
    }
    double want = ceil(max_mass / (double)v[0]);
    *n_equal = max_int(1, want < (double)min_int(max_n, n) ? (int)want : min_int(max_n, n));
    return v[0];
}

/* Keeps the likeliest candidates until there are max_n of them or they reach max_mass; of equal
 * ones those with the lowest ids. */
static int cut(struct sample_scratch *s, int n, int max_n, double max_mass)
{
    int take, kept = 0;
    float v = threshold(s->hist, s->cand_p, n, max_n, max_mass, s->row, &take);
    for (int i = 0; i < n; i++) {
        float q = s->cand_p[i];
        s->cand_p[kept] = q;
        s->cand[kept] = s->cand[i];
        kept += q > v || (q == v && take-- > 0);
    }
    return kept;
}

/* A value that at least k elements of p reach: the k-th largest of the blocks' maxima. */
static float floor_of_top(struct sample_scratch *s, int k)
{
    int n = s->n_vocab / LANE, unused;
    if (k > n / 2)
        return 0;
    for (int i = 0; i < n; i++)
        s->cand_p[i] = max_of(s->p + i * LANE, LANE);
    return threshold(s->hist, s->cand_p, n, k, INFINITY, s->row, &unused);
}

static bool mask_allows(const struct sample_mask *m, int32_t id)
{
    return !m->bits || id == m->also || (m->bits[id / 32] >> (id % 32) & 1);
}

/* Gives x[n], the elements of ids from..from + n - 1, the value v where the mask forbids; `from` is
 * a multiple of 32. False: there was none. */
static bool mask_block(const struct sample_mask *m, int from, int n, float v, float *x)
{
    bool any = false;
    for (int i = 0; i < n; i += 32) {
        uint32_t w = m->bits[(from + i) / 32];
        int most = min_int(32, n - i);
        if (w == UINT32_MAX)
            continue;
        if (m->also >= from + i && m->also - (from + i) < 32)
            w |= (uint32_t)1 << (m->also - (from + i));
        for (int j = 0; j < most; j++)
            x[i + j] = w >> j & 1 ? x[i + j] : v;
        any = true;
    }
    return any;
}

/* Penalties, bias, forbidden tokens and mask, into a copy of the row: whatever makes a token
 * impossible sets its logit to -Inf. */
static const float *apply_rules(const float *logits, const struct sample_params *p,
                                const struct sample_rules *r, bool forbid, struct sample_scratch *s)
{
    memcpy(s->row, logits, (size_t)s->n_vocab * sizeof *s->row);
    for (int i = 0; r->seen && i < r->seen->n; i++) {
        const struct sample_count *c = &r->seen->list[i];
        float *x = &s->row[c->id];
        if (p->repetition > 0 && p->repetition != 1)
            *x = *x > 0 ? *x / p->repetition : *x * p->repetition;
        *x -= p->frequency * (float)c->n_out + (c->n_out > 0 ? p->presence : 0);
    }
    for (int i = 0; i < p->n_bias; i++)
        s->row[p->bias_id[i]] += p->bias[i];
    for (int i = 0; forbid && i < r->n_forbidden; i++)
        s->row[r->forbidden[i]] = -INFINITY;
    if (r->mask.bits)
        (void)mask_block(&r->mask, 0, s->n_vocab, -INFINITY, s->row);
    return s->row;
}

/* Everything may be chosen: the block sums find the block. */
static int32_t draw_all(struct sample_scratch *s, double at)
{
    int32_t last = 0;
    for (int i = 0; i < s->n_vocab; i += BLOCK) {
        int n = min_int(BLOCK, s->n_vocab - i);
        if (s->block[i / BLOCK] <= at && i + n < s->n_vocab) {
            at -= s->block[i / BLOCK];
            continue;
        }
        for (int j = i; j < i + n; j++) {
            if (s->p[j] == 0)
                continue;
            last = j;
            at -= (double)s->p[j];
            if (at < 0)
                return j;
        }
    }
    return s->p[last] > 0 ? last : index_of(s->p, s->n_vocab, 1); /* rounding used up the mass */
}

int32_t sample_token(const float *logits, const struct sample_params *p,
                     const struct sample_rules *r, double *lse, struct sample_scratch *s)
{
    int n = s->n_vocab;
    const float *raw = logits;
    const struct sample_mask *mask = r->mask.bits ? &r->mask : NULL;
    bool rules = (r->seen && r->seen->n) || p->n_bias || r->n_forbidden;
    float raw_max = rules && !lse ? 0 : max_of(raw, n);
    float max = raw_max;
    if (!rules && mask && !mask_allows(mask, index_of(raw, n, raw_max)))
        rules = true; /* the largest of those allowed is to be found */
    if (rules) {
        logits = apply_rules(raw, p, r, true, s);
        max = max_of(logits, n);
        if (max == -INFINITY) {
            logits = apply_rules(raw, p, r, false, s);
            max = max_of(logits, n);
        }
        mask = NULL; /* applied */
    }
    bool same = !rules && p->temperature == 1; /* the sum below is that of the model itself */
    if (lse && !same)
        *lse = lse_of(raw, n, raw_max);
    if (p->temperature <= 0)
        return index_of(logits, n, max);
    double sum = 0, whole = 0;
    for (int i = 0; i < n; i += BLOCK) {
        int m = min_int(BLOCK, n - i);
        double in = exp_block(logits + i, m, max, 1 / p->temperature, s->p + i);
        whole += in;
        if (mask && mask_block(mask, i, m, 0, s->p + i))
            in = sum_block(s->p + i, m);
        sum += s->block[i / BLOCK] = in;
    }
    if (lse && same)
        *lse = (double)max + log(whole);
    double u = rng_uniform(p->seed, p->stream, r->pos);
    bool by_mass = p->top_p > 0 && p->top_p<1, by_n = p->top_k> 0 && p->top_k < n;
    if (!by_mass && !by_n && p->min_p <= 0)
        return draw_all(s, u * sum);
    /* Elements below (1 - top_p) of the average sum to less than 1 - top_p of the mass: the others
     * reach top_p without them. The likeliest element is 1. */
    float floor_p = by_n      ? floor_of_top(s, p->top_k)
                    : by_mass ? (float)((1 - (double)p->top_p) * sum / n)
                              : p->min_p;
    int m = collect(s, floor_p);
    if (by_n && m > p->top_k) {
        m = cut(s, m, p->top_k, INFINITY);
        sum = 0;
        for (int i = 0; i < m; i++)
            sum += (double)s->cand_p[i];
    }
    if (by_mass)
        m = cut(s, m, n, (double)p->top_p * sum);
    double mass = 0;
    for (int i = 0; i < m; i++)
        mass += s->cand_p[i] >= p->min_p ? (double)s->cand_p[i] : 0;
    double at = u * mass;
    int32_t chosen = s->cand[0];
    for (int i = 0; i < m; i++) {
        if (s->cand_p[i] < p->min_p)
            continue;
        chosen = s->cand[i];
        at -= (double)s->cand_p[i];
        if (at < 0)
            break;
    }
    return chosen;
}
