/* Checks of the matrix products: value, bounds, and that a row's result does not depend on the
 * company it is computed in. */
#include "kern_check.h"

enum family { F32, F16, BF16, MX_F32, DP_BF16, DP_MX, IN_F32, IN_F16, IN_BF16 };

static bool is_mx(int f)
{
    return f == MX_F32 || f == DP_MX;
}

static bool is_dp(int f)
{
    return f == DP_BF16 || f == DP_MX;
}

static bool is_in(int f)
{
    return f >= IN_F32;
}

static enum dtype dtype_of(int f)
{
    switch (f) {
    case F32:
    case IN_F32:
        return DT_F32;
    case F16:
    case IN_F16:
        return DT_F16;
    default:
        return DT_BF16;
    }
}

static size_t value_bytes(enum dtype t)
{
    return t == DT_F32 ? 4 : 2;
}

static void (*kernel(const struct cpu_kern *k, int f))(const struct mul *)
{
    switch (f) {
    case MX_F32:
        return k->mul_mx_f32;
    case DP_BF16:
        return k->mul_bf16;
    case DP_MX:
        return k->mul_mx_bf16;
    default:
        return is_in(f) ? k->mul_in[dtype_of(f)] : k->mul_f32[dtype_of(f)];
    }
}

static void *pointer(const struct cpu_kern *k, int f)
{
    return (void *)(uintptr_t)kernel(k, f);
}

static void put(enum dtype t, void *p, size_t i, float v)
{
    uint16_t h = t == DT_F16 ? f32_f16(v) : f32_bf16(v);
    if (t == DT_F32)
        memcpy((uint8_t *)p + 4 * i, &v, 4);
    else
        memcpy((uint8_t *)p + 2 * i, &h, 2);
}

static float get(enum dtype t, const void *p, size_t i)
{
    float v;
    uint16_t h;
    if (t == DT_F32) {
        memcpy(&v, (const uint8_t *)p + 4 * i, 4);
        return v;
    }
    memcpy(&h, (const uint8_t *)p + 2 * i, 2);
    return t == DT_F16 ? f16_f32(h) : bf16_f32(h);
}

/* A weight as an exact double, and the same for x. */
static double weight(const struct mul *m, int f, int o, int k)
{
    if (is_mx(f)) {
        size_t block = ((size_t)o * (size_t)m->n_in + (size_t)k) / 32;
        uint8_t b = ((const uint8_t *)m->w)[block * 16 + (size_t)(k % 32) / 2];
        return (double)e2m1_f32[k % 2 ? b >> 4 : b & 15] * (double)e8m0_f32(m->scale[block]);
    }
    size_t i = is_in(f) ? (size_t)k * m->ld_w + (size_t)o : (size_t)o * (size_t)m->n_in + (size_t)k;
    return get(dtype_of(f), m->w, i);
}

static double input(const struct mul *m, int f, int r, int k)
{
    size_t i = (size_t)(m->row ? m->row[r] : r) * m->ld_x + (size_t)k;
    return get(is_dp(f) ? DT_BF16 : DT_F32, m->x, i);
}

enum { MAX_Y = 1 << 13 };
static float want[MAX_Y], got[MAX_Y], before[MAX_Y];

/* scales: 0 ordinary, 1 the ends of the range, 2 with NaN (255). */
static void one(const struct cpu_kern *c, const struct cpu_kern *k, int f, int n_out, int n_in,
                int n_row, enum values kind, int scales)
{
    guard_reset();
    int n_x = n_row + (int)rnd(3);
    struct mul m = {.n_out = n_out,
                    .n_in = n_in,
                    .n_row = n_row,
                    .ld_x = (size_t)n_in + rnd(4),
                    .ld_y = (size_t)n_out + rnd(4),
                    .ld_w = (size_t)n_out + rnd(4),
                    .add = rnd(2)};
    about("n_out %d n_in %d n_row %d values %d scales %d", n_out, n_in, n_row, kind, scales);
    size_t n_w =
        is_in(f) ? (size_t)(n_in - 1) * m.ld_w + (size_t)n_out : (size_t)n_out * (size_t)n_in;
    if (is_mx(f)) {
        uint8_t *w = guard_new(n_w / 2), *s = guard_new(n_w / 32);
        static const uint8_t ends[] = {0, 1, 2, 252, 253, 254, 127};
        for (size_t i = 0; i < n_w / 2; i++)
            w[i] = (uint8_t)rnd(256);
        for (size_t i = 0; i < n_w / 32; i++)
            s[i] = scales == 0   ? (uint8_t)(118 + rnd(12))
                   : scales == 1 ? ends[rnd(7)]
                                 : (uint8_t)(rnd(3) ? 127 : 255);
        m.w = w;
        m.scale = s;
    } else {
        void *w = guard_new(n_w * value_bytes(dtype_of(f)));
        for (size_t i = 0; i < n_w; i++)
            put(dtype_of(f), w, i, rnd_value(kind));
        m.w = w;
    }
    m.tmp = guard_new(mul_tmp(n_in));
    enum dtype tx = is_dp(f) ? DT_BF16 : DT_F32;
    size_t n_xv = (size_t)(n_x - 1) * m.ld_x + (size_t)n_in;
    void *x = guard_new(n_xv * value_bytes(tx));
    float x_max = 0;
    for (size_t i = 0; i < n_xv; i++) {
        float v = rnd_value(kind == V_SPECIAL ? V_WIDE : kind);
        x_max = fabsf(v) > x_max ? fabsf(v) : x_max;
        put(tx, x, i, v);
    }
    m.x = x;
    if (rnd(2)) {
        int32_t *row = guard_new((size_t)n_row * sizeof *row);
        for (int r = 0; r < n_row; r++)
            row[r] = (int32_t)rnd((uint32_t)n_x);
        m.row = row;
    }
    if (rnd(2))
        m.bias = rnd_floats((size_t)n_out, V_NORMAL);
    size_t n_y = (size_t)(n_row - 1) * m.ld_y + (size_t)n_out;
    float *y = m.y = rnd_floats(n_y, V_NORMAL);
    memcpy(before, y, n_y * sizeof *y);
    kernel(c, f)(&m);
    memcpy(want, y, n_y * sizeof *y);
    memcpy(y, before, n_y * sizeof *y);
    kernel(k, f)(&m);
    memcpy(got, y, n_y * sizeof *y);
    if (!guard_intact())
        complain("wrote outside its arrays");
    for (int r = 0; r < n_row; r++) {
        for (size_t o = 0; o < m.ld_y && (r < n_row - 1 || o < (size_t)n_out); o++) {
            size_t i = (size_t)r * m.ld_y + o;
            if (o >= (size_t)n_out) {
                if (f32_bits(got[i]) != f32_bits(before[i]))
                    complain("wrote between rows");
                continue;
            }
            double mass = m.add ? fabs((double)before[i]) : 0, exact = m.add ? before[i] : 0;
            mass += m.bias ? fabs((double)m.bias[o]) : 0;
            exact += m.bias ? m.bias[o] : 0;
            for (int j = 0; j < n_in; j++) {
                double p = weight(&m, f, (int)o, j) * input(&m, f, r, j);
                mass += fabs(p);
                exact += p;
            }
            double tol = 2e-7 * (2 + sqrt(n_in)) * mass + 1e-44 * n_in;
            if (is_dp(f))
                tol += 1.2e-38 * n_in * (1 + (double)x_max);
            if (isinf(tol) || mass > 1e38) /* sums of this size may overflow in one order only */
                continue;
            if (!near(got[i], want[i], tol) || !near(got[i], (float)exact, tol))
                complain("row %d output %zu is %.9g, C has %.9g, exactly %.9g", r, o,
                         (double)got[i], (double)want[i], exact);
        }
    }
    /* A part of the outputs of one row, by itself: the same bits. */
    int r = (int)rnd((uint32_t)n_row), o0 = (int)rnd((uint32_t)n_out);
    struct mul part = m;
    int32_t row = m.row ? m.row[r] : r;
    part.row = &row;
    part.n_row = 1;
    part.n_out = 1 + (int)rnd((uint32_t)(n_out - o0));
    part.y = y + (size_t)r * m.ld_y + o0;
    part.bias = m.bias ? m.bias + o0 : NULL;
    if (is_mx(f)) {
        part.w = (const uint8_t *)m.w + (size_t)o0 * (size_t)n_in / 2;
        part.scale = m.scale + (size_t)o0 * (size_t)n_in / 32;
    } else {
        part.w = (const uint8_t *)m.w +
                 (size_t)o0 * (is_in(f) ? 1 : (size_t)n_in) * value_bytes(dtype_of(f));
    }
    memcpy(y, before, n_y * sizeof *y);
    kernel(k, f)(&part);
    for (int o = 0; o < part.n_out; o++) {
        float a = part.y[o], b = got[(size_t)r * m.ld_y + (size_t)(o0 + o)];
        if (f32_bits(a) != f32_bits(b) && !(isnan(a) && isnan(b)))
            complain("row %d output %d alone is %.9g, in company %.9g", r, o0 + o, (double)a,
                     (double)b);
    }
}

static void check(const struct cpu_kern *c, const struct cpu_kern *k, int f)
{
    static const int outs[] = {1, 3, 8, 13, 33, 70}, rows[] = {1, 2, 3, 4, 5, 7, 8, 11, 18};
    static const int ins[] = {1, 2, 7, 15, 16, 17, 31, 33, 64, 95, 100};
    static const int mx_ins[] = {32, 64, 96, 160};
    int n_ins = is_mx(f) ? 4 : 11;
    for (size_t o = 0; o < sizeof outs / sizeof *outs; o++) {
        for (int i = 0; i < n_ins; i++) {
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                int n_in = is_mx(f) ? mx_ins[i] : ins[i];
                one(c, k, f, outs[o], n_in, rows[r], (enum values)(r % 2), 0);
                if (is_mx(f)) {
                    one(c, k, f, outs[o], n_in, rows[r], V_WIDE, 1);
                    one(c, k, f, outs[o], n_in, rows[r], V_NORMAL, 2);
                } else {
                    one(c, k, f, outs[o], n_in, rows[r], V_SPECIAL, 0);
                }
            }
        }
    }
    one(c, k, f, 9, 2880, 2, V_NORMAL, 0);
    one(c, k, f, 130, 544, 55, V_NORMAL, 0); /* more than one block of each kind */
}

/* gpt-oss-20b: n_in 2880. One row (decode) streams 64 MB of weights; 64 rows are a prompt's share
 * of one expert. */
static void bench_any(const struct cpu_kern *k, int f, int n_out, int n_row, double *bytes,
                      double *flops)
{
    enum { N_IN = 2880, MAX_ROW = 64, MAX_OUT = 50000 };
    static float y[MAX_ROW * 5760];
    static float tmp[MUL_TMP_BYTES / sizeof(float)];
    static uint8_t scale[MAX_OUT * (N_IN / 32)];
    const uint8_t *block = bench_block(BENCH_BYTES);
    if (!scale[0])
        for (size_t i = 0; i < sizeof scale; i++)
            scale[i] = (uint8_t)(120 + i % 5);
    double per_weight = is_mx(f) ? 17.0 / 32 : (double)value_bytes(dtype_of(f));
    struct mul m = {.w = block + 16 * 1024 * 1024,
                    .scale = scale,
                    .ld_w = (size_t)n_out,
                    .n_out = n_out,
                    .n_in = N_IN,
                    .x = block,
                    .ld_x = N_IN,
                    .n_row = n_row,
                    .y = y,
                    .ld_y = (size_t)n_out,
                    .tmp = tmp};
    kernel(k, f)(&m);
    *bytes = per_weight * n_out * N_IN;
    *flops = 2.0 * n_out * N_IN * n_row;
}

static void bench_one(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    double per_weight = is_mx(f) ? 17.0 / 32 : (double)value_bytes(dtype_of(f));
    bench_any(k, f, (int)(64e6 / per_weight / 2880), 1, bytes, flops);
}

static void bench_many(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    bench_any(k, f, 2880, 64, bytes, flops);
}

#define CASES(name, f)                                                                             \
    {name, pointer, check, bench_one, f},                                                          \
    {                                                                                              \
        name "_64rows", pointer, NULL, bench_many, f                                               \
    }

const struct kern_case mul_cases[] = {
    CASES("mul_f32_f32", F32),   CASES("mul_f32_f16", F16),   CASES("mul_f32_bf16", BF16),
    CASES("mul_mx_f32", MX_F32), CASES("mul_bf16", DP_BF16),  CASES("mul_mx_bf16", DP_MX),
    CASES("mul_in_f32", IN_F32), CASES("mul_in_f16", IN_F16), CASES("mul_in_bf16", IN_BF16),
};
const int n_mul_cases = sizeof mul_cases / sizeof *mul_cases;
