/* Checks of the kernels that work on rows: norm, rounding, rotation, attention, SwiGLU,
 * combination, selection. */
#include "kern_check.h"

enum { MAX_N = 4096 };
static float want[2 * MAX_N], before[2 * MAX_N];

#define POINTER(field)                                                                             \
    static void *pointer_##field(const struct cpu_kern *k, int i)                                  \
    {                                                                                              \
        (void)i;                                                                                   \
        return (void *)(uintptr_t)k->field;                                                        \
    }
POINTER(rmsnorm)
POINTER(to_bf16)
POINTER(round_bf16)
POINTER(rope)
POINTER(swiglu)
POINTER(combine)
POINTER(topk)

static void intact(void)
{
    if (!guard_intact())
        complain("wrote outside its arrays");
}

static void compare(const float *got, const float *expect, int n, double relative, double absolute)
{
    intact();
    for (int i = 0; i < n; i++)
        if (!near(got[i], expect[i], relative * fabs((double)expect[i]) + absolute))
            complain("element %d is %.9g, C has %.9g", i, (double)got[i], (double)expect[i]);
}

/* Odd sizes up to some vectors, then the model's own. */
static int size_at(int i)
{
    static const int large[] = {96, 127, 256, 2880, MAX_N};
    return i < 70 ? i + 1 : large[i - 70];
}
enum { N_SIZE = 75 };

static void check_rmsnorm(const struct cpu_kern *c, const struct cpu_kern *k, int f)
{
    (void)f;
    for (int s = 0; s < 4 * N_SIZE; s++) {
        int n = size_at(s % N_SIZE), kind = s / N_SIZE;
        guard_reset();
        about("n %d kind %d", n, kind);
        float *x = rnd_floats((size_t)n, kind == 1 ? V_WIDE : V_NORMAL);
        float *w = rnd_floats((size_t)n, V_NORMAL), *out = guard_new((size_t)n * sizeof *out);
        if (kind == 2)
            x[rnd((uint32_t)n)] = NAN;
        for (int i = 0; kind == 3 && i < n; i++)
            x[i] = 0; /* eps alone */
        c->rmsnorm(x, w, n, 1e-5f, want);
        k->rmsnorm(x, w, n, 1e-5f, out);
        compare(out, want, n, 1e-5, 0);
        if (kind == 2 && !isnan(out[0]))
            complain("NaN was lost");
    }
}

static float special(void)
{
    static const float s[] = {0.0f,        -0.0f,         INFINITY,       -INFINITY,
                              NAN,         3.3961775e38f, -3.4028235e38f, 1e-40f,
                              1.00390625f, 1.01171875f,   1.17549435e-38f};
    return s[rnd(sizeof s / sizeof *s)];
}

static void check_rounding(const struct cpu_kern *c, const struct cpu_kern *k, int to_16)
{
    static uint16_t want16[MAX_N];
    for (int s = 0; s < 2 * N_SIZE; s++) {
        int n = size_at(s % N_SIZE);
        guard_reset();
        about("n %d", n);
        float *x = rnd_floats((size_t)n, V_SPECIAL);
        for (int i = 0; i < n; i++) {
            uint32_t any = rnd(0xffffffff);
            x[i] = rnd(3) == 0 ? special() : rnd(2) ? bits_f32(any) : x[i];
        }
        c->to_bf16(x, n, want16);
        uint16_t *h = guard_new((size_t)n * sizeof *h);
        float *r = guard_new((size_t)n * sizeof *r);
        if (to_16)
            k->to_bf16(x, n, h);
        else
            k->round_bf16(x, n, r);
        intact();
        for (int i = 0; i < n; i++) {
            float v = to_16 ? bf16_f32(h[i]) : r[i], e = bf16_f32(want16[i]);
            bool denormal = fabsf(x[i]) < 1.1754944e-38f && v == 0;
            if (!denormal && !(isnan(v) && isnan(e)) && f32_bits(v) != f32_bits(e))
                complain("element %d: %.9g became %.9g, not %.9g", i, (double)x[i], (double)v,
                         (double)e);
        }
    }
}

static void check_rope(const struct cpu_kern *c, const struct cpu_kern *k, int f)
{
    (void)f;
    for (int half = 1; half <= 128; half += half < 40 ? 1 : 11) {
        for (int kind = 0; kind < 2; kind++) {
            guard_reset();
            about("half %d", half);
            size_t n = 2 * (size_t)half;
            float *x = rnd_floats(n, kind ? V_WIDE : V_NORMAL), scale = rnd_value(V_NORMAL);
            float *cs = rnd_floats((size_t)half, V_NORMAL),
                  *sn = rnd_floats((size_t)half, V_NORMAL);
            memcpy(before, x, n * sizeof *x);
            c->rope(x, cs, sn, half, scale);
            memcpy(want, x, n * sizeof *x);
            memcpy(x, before, n * sizeof *x);
            k->rope(x, cs, sn, half, scale);
            intact();
            for (int i = 0; i < half; i++) {
                double mass = (fabs((double)before[i]) + fabs((double)before[i + half])) *
                              (fabs((double)cs[i]) + fabs((double)sn[i])) * fabs((double)scale);
                if (!near(x[i], want[i], 2e-7 * mass) ||
                    !near(x[i + half], want[i + half], 2e-7 * mass))
                    complain("pair %d is (%.9g, %.9g), C has (%.9g, %.9g)", i, (double)x[i],
                             (double)x[i + half], (double)want[i], (double)want[i + half]);
            }
        }
    }
}

static void check_swiglu(const struct cpu_kern *c, const struct cpu_kern *k, int f)
{
    (void)f;
    for (int s = 0; s < 4 * N_SIZE; s++) {
        int n = size_at(s % N_SIZE), kind = s / N_SIZE;
        guard_reset();
        about("n %d kind %d", n, kind);
        float *y = rnd_floats(2 * (size_t)n, kind == 0 ? V_NORMAL : V_WIDE);
        for (int i = 0; i < 2 * n && kind > 1; i++)
            y[i] = kind == 2 ? 10 * y[i] : rnd(4) ? y[i] : special();
        float *out = guard_new((size_t)n * sizeof *out);
        c->swiglu(y, n, 1.702f, 7, want);
        k->swiglu(y, n, 1.702f, 7, out);
        intact();
        for (int i = 0; i < n; i++) {
            bool nan = isnan(y[2 * i]) || isnan(y[2 * i + 1]);
            if (nan ? !isnan(out[i])
                    : !isinf(y[2 * i]) &&
                          !near(out[i], want[i],
                                2e-6 * fabs((double)want[i]) + 1e-37 * fabs((double)y[2 * i])))
                complain("gate %.9g up %.9g give %.9g, C has %.9g", (double)y[2 * i],
                         (double)y[2 * i + 1], (double)out[i], (double)want[i]);
        }
    }
}

static void check_combine(const struct cpu_kern *c, const struct cpu_kern *k, int f)
{
    (void)f;
    for (int s = 0; s < N_SIZE; s++) {
        int n = size_at(s), n_y = 1 + (int)rnd(9);
        guard_reset();
        about("n %d of %d", n, n_y);
        size_t ld = (size_t)n + rnd(3);
        float *x = rnd_floats((size_t)n, V_NORMAL), *w = rnd_floats((size_t)n_y, V_NORMAL);
        float *y = rnd_floats(10 * ld + (size_t)n, V_NORMAL);
        int32_t *slot = guard_new((size_t)n_y * sizeof *slot);
        for (int j = 0; j < n_y; j++)
            slot[j] = (int32_t)rnd(11);
        memcpy(before, x, (size_t)n * sizeof *x);
        c->combine(x, n, y, ld, slot, w, n_y);
        memcpy(want, x, (size_t)n * sizeof *x);
        memcpy(x, before, (size_t)n * sizeof *x);
        k->combine(x, n, y, ld, slot, w, n_y);
        intact();
        for (int i = 0; i < n; i++) {
            double mass = fabs((double)before[i]);
            for (int j = 0; j < n_y; j++)
                mass += fabs((double)w[j] * (double)y[(size_t)slot[j] * ld + (size_t)i]);
            if (!near(x[i], want[i], 1e-6 * mass))
                complain("element %d is %.9g, C has %.9g", i, (double)x[i], (double)want[i]);
        }
    }
}

/* Checked against its own contract: the C version is the only one. */
static void check_topk(const struct cpu_kern *c, const struct cpu_kern *k, int f)
{
    (void)c;
    (void)f;
    for (int s = 0; s < 2000; s++) {
        int n = 1 + (int)rnd(140), n_k = 1 + (int)rnd((uint32_t)min_int(n, 16));
        guard_reset();
        about("%d of %d", n_k, n);
        float *v = guard_new((size_t)n * sizeof *v), *w = guard_new((size_t)n_k * sizeof *w);
        int32_t *idx = guard_new((size_t)n_k * sizeof *idx);
        for (int i = 0; i < n; i++)
            v[i] = s % 2 ? (float)rnd(5) : rnd_value(V_NORMAL);
        if (s % 10 == 0)
            v[0] = NAN;
        k->topk(v, n, n_k, idx, w);
        intact();
        double sum = 0;
        for (int j = 0; j < n_k; j++) {
            if (idx[j] < 0 || idx[j] >= n) {
                complain("index %d", (int)idx[j]);
                return;
            }
            int better = 0;
            for (int i = 0; i < n; i++)
                better += v[i] > v[idx[j]] || (v[i] == v[idx[j]] && i < idx[j]);
            if (s % 10 && better != j)
                complain("choice %d is %d, which %d others beat", j, (int)idx[j], better);
            if (s % 10 && !near(w[j] / w[0], expf(v[idx[j]] - v[idx[0]]), 1e-6))
                complain("weight %d is %.9g", j, (double)w[j]);
            sum += w[j];
        }
        if (s % 10 && fabs(sum - 1) > 1e-6)
            complain("weights add up to %.9g", sum);
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

/* What keys and values are. */
enum { A_F32, A_BF16, A_Q8 };

static void (*attn(const struct cpu_kern *k, int kind))(const struct attn *)
{
    return kind == A_F32 ? k->attn_f32 : kind == A_BF16 ? k->attn_bf16 : k->attn_q8;
}

static void *pointer_attn(const struct cpu_kern *k, int kind)
{
    return (void *)(uintptr_t)attn(k, kind);
}

static void *values(size_t n, int kind)
{
    if (kind == A_F32)
        return rnd_floats(n, V_NORMAL);
    if (kind == A_Q8) {
        int8_t *q = guard_new(n);
        for (size_t i = 0; i < n; i++)
            q[i] = (int8_t)((int)rnd(255) - 127);
        return q;
    }
    uint16_t *h = guard_new(n * sizeof *h);
    for (size_t i = 0; i < n; i++)
        h[i] = f32_bf16(rnd_value(V_NORMAL));
    return h;
}

/* Of signed bytes any may stand there: it is the scale that is NaN. */
static void poison(void *p, size_t i, int kind)
{
    if (kind == A_BF16)
        ((uint16_t *)p)[i] = 0x7fc0;
    else if (kind == A_F32)
        ((float *)p)[i] = NAN;
}

/* Scales that make bytes as large as the other kinds' values; NaN outside [lo, hi). */
static float *scales(int page_tok, int lo, int hi)
{
    float *s = guard_new((size_t)page_tok * sizeof *s);
    for (int j = 0; j < page_tok; j++)
        s[j] = j < lo || j >= hi ? NAN : (0.5f + (float)rnd(1000) / 1000) / 60;
    return s;
}

/* Slots outside [lo, hi) hold NaN: a recycled page's past must not matter. */
static void attn_one(const struct cpu_kern *c, const struct cpu_kern *k, int kind, int n_q, int d,
                     int page_tok)
{
    guard_reset();
    int lo = (int)rnd((uint32_t)page_tok), hi = lo + 1 + (int)rnd((uint32_t)(page_tok - lo));
    if (rnd(3) == 0)
        lo = 0;
    about("%d heads of %d, slots %d to %d of %d", n_q, d, lo, hi, page_tok);
    size_t n_kv = (size_t)d * (size_t)page_tok, n_acc = (size_t)n_q * (size_t)d;
    void *key = values(n_kv, kind), *value = values(n_kv, kind);
    for (int j = 0; j < page_tok; j++) {
        for (int i = 0; i < d && (j < lo || j >= hi); i++) {
            poison(key, (size_t)i * (size_t)page_tok + (size_t)j, kind);
            poison(value, (size_t)j * (size_t)d + (size_t)i, kind);
        }
    }
    float *q = rnd_floats(n_acc, V_NORMAL), *acc = rnd_floats(n_acc, V_NORMAL);
    float *m = rnd_floats((size_t)n_q, V_NORMAL), *l = rnd_floats((size_t)n_q, V_NORMAL);
    for (int i = 0; i < n_q; i++) {
        l[i] = fabsf(l[i]) + 1;
        m[i] *= rnd(4) ? 3 : 100; /* far above or below all scores too */
    }
    static float acc0[2 * MAX_N], m0[64], l0[64], m1[64], l1[64];
    memcpy(acc0, acc, n_acc * sizeof *acc);
    memcpy(m0, m, (size_t)n_q * sizeof *m);
    memcpy(l0, l, (size_t)n_q * sizeof *l);
    struct attn a = {.q = q,
                     .k = key,
                     .v = value,
                     .k_scale = kind == A_Q8 ? scales(page_tok, lo, hi) : NULL,
                     .v_scale = kind == A_Q8 ? scales(page_tok, lo, hi) : NULL,
                     .n_q = n_q,
                     .d_head = d,
                     .page_tok = page_tok,
                     .lo = lo,
                     .hi = hi,
                     .m = m,
                     .l = l,
                     .acc = acc};
    attn(c, kind)(&a);
    memcpy(want, acc, n_acc * sizeof *acc);
    memcpy(m1, m, (size_t)n_q * sizeof *m);
    memcpy(l1, l, (size_t)n_q * sizeof *l);
    memcpy(acc, acc0, n_acc * sizeof *acc);
    memcpy(m, m0, (size_t)n_q * sizeof *m);
    memcpy(l, l0, (size_t)n_q * sizeof *l);
    attn(k, kind)(&a);
    intact();
    for (int h = 0; h < n_q; h++) {
        /* A score off by s (its own rounding) scales a weight by e^s: allow for |q| |k|. */
        double s = 0;
        for (int i = 0; i < d; i++)
            s += fabs((double)q[h * d + i]);
        double tol = 4e-6 + 1e-6 * s;
        if (!near(m[h], m1[h], tol * (1 + fabs((double)m1[h]))) || !near(l[h], l1[h], tol * l1[h]))
            complain("head %d: maximum %.9g sum %.9g, C has %.9g and %.9g", h, (double)m[h],
                     (double)l[h], (double)m1[h], (double)l1[h]);
        for (int i = 0; i < d; i++)
            if (!near(acc[h * d + i], want[h * d + i], tol * (4 * (double)l1[h] + 4)))
                complain("head %d dimension %d is %.9g, C has %.9g", h, i, (double)acc[h * d + i],
                         (double)want[h * d + i]);
    }
    /* One head by itself: the same bits. */
    int h = (int)rnd((uint32_t)n_q);
    memcpy(want, acc + h * d, (size_t)d * sizeof *acc);
    memcpy(acc, acc0, n_acc * sizeof *acc);
    memcpy(m, m0, (size_t)n_q * sizeof *m);
    memcpy(l, l0, (size_t)n_q * sizeof *l);
    a.q += h * d;
    a.acc += h * d;
    a.m += h;
    a.l += h;
    a.n_q = 1;
    attn(k, kind)(&a);
    if (memcmp(want, a.acc, (size_t)d * sizeof *acc) != 0)
        complain("head %d alone differs", h);
}

static void check_attn(const struct cpu_kern *c, const struct cpu_kern *k, int kind)
{
    static const int d[] = {2, 10, 16, 24, 30, 64, 80, 128}, heads[] = {1, 2, 3, 5, 8, 9, 16};
    for (size_t i = 0; i < sizeof d / sizeof *d; i++)
        for (size_t j = 0; j < sizeof heads / sizeof *heads; j++)
            for (int page_tok = 1; page_tok <= 256; page_tok *= 2)
                for (int n = 0; n < 3; n++)
                    attn_one(c, k, kind, heads[j], d[i], page_tok);
}

/* ---- timing: shapes of gpt-oss-20b ----------------------------------------------------------- */

static float *bench_floats(size_t at)
{
    return (float *)bench_block(BENCH_BYTES) + at;
}

/* 8 query heads over 4096 keys of one key head, in pages of 64. */
static void bench_attn(const struct cpu_kern *k, int kind, double *bytes, double *flops)
{
    enum { PAGES = 64, TOK = 64, D = 64, N_Q = 8 };
    static float m[N_Q], l[N_Q], acc[N_Q * D];
    size_t page = (size_t)TOK * D * (kind == A_F32 ? 4 : kind == A_BF16 ? 2 : 1);
    const uint8_t *kv = bench_block(BENCH_BYTES);
    for (int i = 0; i < N_Q; i++)
        m[i] = l[i] = 1;
    memset(acc, 0, sizeof acc);
    for (int p = 0; p < PAGES; p++)
        attn(k, kind)(&(struct attn){.q = bench_floats(1 << 20),
                                     .k = kv + 2 * (size_t)p * page,
                                     .v = kv + (2 * (size_t)p + 1) * page,
                                     .k_scale = bench_floats(1 << 21),
                                     .v_scale = bench_floats(1 << 21),
                                     .n_q = N_Q,
                                     .d_head = D,
                                     .page_tok = TOK,
                                     .hi = TOK,
                                     .m = m,
                                     .l = l,
                                     .acc = acc});
    *bytes = 2.0 * PAGES * (double)page;
    *flops = 4.0 * PAGES * TOK * D * N_Q;
}

static float out[2 * MAX_N];

static void bench_rmsnorm(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    (void)f;
    k->rmsnorm(bench_floats(0), bench_floats(MAX_N), 2880, 1e-5f, out);
    *bytes = 3 * 4.0 * 2880;
    *flops = 4.0 * 2880;
}

static void bench_rounding(const struct cpu_kern *k, int to_16, double *bytes, double *flops)
{
    if (to_16)
        k->to_bf16(bench_floats(0), 2880, (uint16_t *)(void *)out);
    else
        k->round_bf16(bench_floats(0), 2880, out);
    *bytes = (to_16 ? 6.0 : 8.0) * 2880;
    *flops = 2880;
}

static void bench_rope(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    (void)f;
    for (int h = 0; h < 64; h++)
        k->rope(out + h * 64, bench_floats(0), bench_floats(64), 32, 0.125f);
    *bytes = 64 * 64 * 8.0;
    *flops = 64 * 64 * 4.0;
}

static void bench_swiglu(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    (void)f;
    k->swiglu(bench_floats(0), 2880, 1.702f, 7, out);
    *bytes = 12.0 * 2880;
    *flops = 8.0 * 2880;
}

static void bench_combine(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    (void)f;
    const int32_t slot[4] = {0, 1, 2, 3};
    const float w[4] = {0.1f, 0.2f, 0.3f, 0.4f};
    k->combine(out, 2880, bench_floats(0), 2880, slot, w, 4);
    *bytes = 6 * 4.0 * 2880;
    *flops = 8.0 * 2880;
}

static void bench_topk(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    (void)f;
    int32_t idx[4];
    k->topk(bench_floats(0), 128, 4, idx, out);
    *bytes = 128 * 4;
    *flops = 128 * 4;
}

const struct kern_case row_cases[] = {
    {"rmsnorm", pointer_rmsnorm, check_rmsnorm, bench_rmsnorm, 0},
    {"to_bf16", pointer_to_bf16, check_rounding, bench_rounding, 1},
    {"round_bf16", pointer_round_bf16, check_rounding, bench_rounding, 0},
    {"rope", pointer_rope, check_rope, bench_rope, 0},
    {"attn_f32", pointer_attn, check_attn, bench_attn, A_F32},
    {"attn_bf16", pointer_attn, check_attn, bench_attn, A_BF16},
    {"attn_q8", pointer_attn, check_attn, bench_attn, A_Q8},
    {"swiglu", pointer_swiglu, check_swiglu, bench_swiglu, 0},
    {"combine", pointer_combine, check_combine, bench_combine, 0},
    {"topk", pointer_topk, check_topk, bench_topk, 0},
};
const int n_row_cases = sizeof row_cases / sizeof *row_cases;
