/* Checks of the products on blocks of signed bytes: bits equal to those of kern_c.c, the value
 * against an exact sum of what the blocks hold, a row alone against the row in company. */
#include "kern_check.h"

enum family { DENSE, MX, MX16, MAX_Y = 1 << 13 };
static float want[MAX_Y], got[MAX_Y], before[MAX_Y];

static void (*kernel(const struct cpu_kern *k, int f))(const struct mul_q8 *)
{
    return f == MX16 ? k->mul_mx_q16 : f == MX ? k->mul_mx_q8 : k->mul_q8;
}

static void *mul_pointer(const struct cpu_kern *k, int f)
{
    return (void *)(uintptr_t)kernel(k, f);
}

static void (*to(const struct cpu_kern *k, int wide))(const float *, int, int8_t *, float *,
                                                      int32_t *)
{
    return wide ? k->to_q16 : k->to_q8;
}

static void *to_pointer(const struct cpu_kern *k, int wide)
{
    return (void *)(uintptr_t)to(k, wide);
}

static bool same(float a, float b)
{
    return f32_bits(a) == f32_bits(b) || (isnan(a) && isnan(b));
}

/* Place of input k of a block among its codes. */
static int place(int k)
{
    return k % 2 * 16 + k / 2;
}

/* Number j of a row of bytes, or of pairs of bytes. */
static int number(const int8_t *q, int wide, int j)
{
    int b = j / Q8_IN, at = place(j % Q8_IN);
    return wide ? 256 * q[2 * b * Q8_IN + at] + q[(2 * b + 1) * Q8_IN + at] : q[b * Q8_IN + at];
}

static double weight(const struct mul_q8 *m, int f, int o, int k)
{
    int n_block = m->n_in / Q8_IN, b = k / Q8_IN, at = place(k % Q8_IN);
    if (f == DENSE) {
        const struct q8_block *w = (const struct q8_block *)m->w + o / Q8_OUT * n_block + b;
        return (double)bf16_f32(w->d[o % Q8_OUT]) * w->q[at / 4][o % Q8_OUT][at % 4];
    }
    size_t i = (size_t)o * (size_t)n_block + (size_t)b;
    uint8_t c = ((const uint8_t *)m->w)[i * 16 + (size_t)(k % Q8_IN) / 2];
    return (double)e2m1_f32[k % 2 ? c >> 4 : c & 15] * (double)e8m0_f32(m->scale[i]);
}

static void one(const struct cpu_kern *c, const struct cpu_kern *k, int f, int n_out, int n_block,
                int n_row, enum values kind, bool wild)
{
    guard_reset();
    int n_x = n_row + (int)rnd(3), n_in = n_block * Q8_IN, ld = n_block + (int)rnd(2);
    struct mul_q8 m = {.n_out = n_out,
                       .n_in = n_in,
                       .n_row = n_row,
                       .ld_y = (size_t)n_out + rnd(4),
                       .add = rnd(2)};
    about("n_out %d n_in %d n_row %d values %d wild %d", n_out, n_in, n_row, kind, wild);
    if (f != DENSE) {
        static const uint8_t ends[] = {0, 1, 127, 253, 254, 255};
        size_t n = (size_t)n_out * (size_t)n_block;
        uint8_t *w = guard_new(n * 16), *s = guard_new(n);
        for (size_t i = 0; i < n * 16; i++)
            w[i] = (uint8_t)rnd(256);
        for (size_t i = 0; i < n; i++)
            s[i] = wild ? ends[rnd(6)] : (uint8_t)(118 + rnd(12));
        m.w = w;
        m.scale = s;
    } else {
        float *dense = rnd_floats((size_t)n_out * (size_t)n_in, wild ? V_SPECIAL : kind);
        struct q8_block *w =
            guard_new((size_t)n_out / Q8_OUT * (size_t)n_block * sizeof(struct q8_block));
        for (int o = 0; o < n_out; o += Q8_OUT)
            c->q8_pack(DT_F32, dense + o * n_in, n_in, w + o / Q8_OUT * n_block);
        for (int o = 0; o < n_out && !wild; o++) {
            for (int i = 0; i < n_in; i++) {
                double d = bf16_f32(w[o / Q8_OUT * n_block + i / Q8_IN].d[o % Q8_OUT]);
                m.w = w;
                /* half a step, and what clamping costs where the scale was rounded down */
                if (fabs(weight(&m, f, o, i) - (double)dense[o * n_in + i]) > 1.01 * d)
                    complain("packed weight %d of output %d is off", i, o);
            }
        }
        m.w = w;
    }
    float *x = rnd_floats((size_t)n_x * (size_t)n_in, kind);
    const size_t ld_q = (size_t)ld * Q8_IN * (f == MX16 ? 2 : 1);
    m.x = (struct q8_rows){.q = guard_new((size_t)n_x * ld_q),
                           .d = guard_new((size_t)n_x * (size_t)ld * sizeof(float)),
                           .sum = guard_new((size_t)n_x * (size_t)ld * sizeof(int32_t)),
                           .ld = (size_t)ld * Q8_IN};
    memset(m.x.q, 0, (size_t)n_x * ld_q);
    for (int r = 0; r < n_x; r++)
        to(c, f == MX16)(x + r * n_in, n_in, m.x.q + (size_t)r * ld_q, m.x.d + r * ld,
                         m.x.sum + r * ld);
    m.tmp = guard_new(mul_tmp(n_in));
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
    for (size_t i = 0; i < n_y; i++) {
        int r = (int)(i / m.ld_y), o = (int)(i % m.ld_y);
        if (!same(got[i], want[i]))
            complain("row %d output %d is %.9g, C has %.9g", r, o, (double)got[i], (double)want[i]);
        if (o >= n_out || wild)
            continue;
        double exact = (m.add ? before[i] : 0) + (m.bias ? m.bias[o] : 0), mass = fabs(exact);
        size_t xr = (size_t)(m.row ? m.row[r] : r);
        for (int j = 0; j < n_in; j++) {
            double v = (double)number(m.x.q + xr * ld_q, f == MX16, j) *
                       (double)m.x.d[xr * (size_t)ld + (size_t)j / Q8_IN] * weight(&m, f, o, j);
            exact += v;
            mass += fabs(v);
        }
        if (!near(got[i], (float)exact, 2e-7 * (2 + sqrt(n_in)) * mass + 1e-40))
            complain("row %d output %d is %.9g, exactly %.9g", r, o, (double)got[i], exact);
    }
    /* One row by itself, from some output of a tile on: the same bits. */
    int r = (int)rnd((uint32_t)n_row), o0 = (int)rnd((uint32_t)n_out);
    o0 = f == DENSE ? o0 / Q8_OUT * Q8_OUT : o0;
    struct mul_q8 part = m;
    int32_t row = m.row ? m.row[r] : r;
    size_t skip = (size_t)o0 * (size_t)n_block;
    part.row = &row;
    part.n_row = 1;
    part.n_out = n_out - o0;
    part.y = y + (size_t)r * m.ld_y + o0;
    part.bias = m.bias ? m.bias + o0 : NULL;
    part.w = f != DENSE ? (const uint8_t *)m.w + skip * 16
                        : (const uint8_t *)m.w + skip / Q8_OUT * sizeof(struct q8_block);
    part.scale = f != DENSE ? m.scale + skip : NULL;
    memcpy(y, before, n_y * sizeof *y);
    kernel(k, f)(&part);
    for (int o = 0; o < part.n_out; o++)
        if (!same(part.y[o], got[(size_t)r * m.ld_y + (size_t)(o0 + o)]))
            complain("row %d output %d alone differs", r, o0 + o);
}

static void check_mul(const struct cpu_kern *c, const struct cpu_kern *k, int f)
{
    static const int outs[] = {8, 16, 40, 1, 5, 27}, blocks[] = {1, 2, 3, 6},
                     rows[] = {1, 2, 3, 4, 5, 6, 7, 9, 12, 20};
    for (int o = 0; o < (f == DENSE ? 3 : 6); o++)
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                for (int wild = 0; wild < 2; wild++)
                    one(c, k, f, outs[o], blocks[b], rows[r], (enum values)(r % 2), wild);
    one(c, k, f, 16, 91, 3, V_NORMAL, false);
    one(c, k, f, 16, 2, 203, V_NORMAL, false); /* more rows than a block of them */
}

static void check_to(const struct cpu_kern *c, const struct cpu_kern *k, int wide)
{
    for (int i = 0; i < 600; i++) {
        guard_reset();
        int nb = 1 + (int)rnd(4);
        size_t n = (size_t)nb * Q8_IN;
        float *x = rnd_floats(n, (enum values)(i % N_VALUES)), scale = i % 7 ? 1 : 1e-31f;
        for (size_t j = 0; j < n; j++)
            x[j] *= scale;
        if (i % 5 == 0)
            x[rnd((uint32_t)n)] = i % 10 ? NAN : -INFINITY;
        const size_t n_q = n * (wide ? 2 : 1);
        int8_t *q = guard_new(n_q), *qc = guard_new(n_q);
        float *d = guard_new((size_t)nb * 4), *dc = guard_new((size_t)nb * 4);
        int32_t *s = guard_new((size_t)nb * 4), *sc = guard_new((size_t)nb * 4);
        about("n %zu, number %d", n, i);
        to(c, wide)(x, (int)n, qc, dc, sc);
        to(k, wide)(x, (int)n, q, d, s);
        if (!guard_intact())
            complain("wrote outside its arrays");
        for (int b = 0; b < nb; b++) {
            int sum = 0;
            bool finite = true;
            for (int j = 0; j < Q8_IN; j++) {
                float v = x[b * Q8_IN + j];
                v = wide ? bf16_f32(f32_bf16(v)) : v;
                int code = number(q, wide, b * Q8_IN + j);
                finite &= isfinite(v);
                sum += code;
                if (isfinite(d[b]) && fabsf((float)code * d[b] - v) > 0.5001f * d[b] + 1e-30f)
                    complain("%g became %d times %g", (double)v, code, (double)d[b]);
            }
            if (!same(d[b], dc[b]) || s[b] != sc[b] || s[b] != sum || isfinite(d[b]) != finite ||
                memcmp(q, qc, n_q) != 0)
                complain("block %d differs from C, or its sum is wrong", b);
        }
    }
}

static void *pack_pointer(const struct cpu_kern *k, int i)
{
    (void)i;
    return (void *)(uintptr_t)k->q8_pack;
}

static void check_pack(const struct cpu_kern *c, const struct cpu_kern *k, int unused)
{
    (void)unused;
    for (int i = 0; i < 120; i++) {
        guard_reset();
        enum dtype t = (enum dtype)(i % 3);
        int nb = 1 + (int)rnd(4), n_in = nb * Q8_IN, n = Q8_OUT * n_in;
        float *x = rnd_floats((size_t)n, (enum values)(i % N_VALUES));
        if (i % 5 == 0)
            x[rnd((uint32_t)n)] = i % 10 ? NAN : -INFINITY;
        uint16_t *h = guard_new((size_t)n * sizeof *h);
        for (int j = 0; j < n; j++) {
            uint16_t v = t == DT_F16 ? f32_f16(x[j]) : f32_bf16(x[j]);
            memcpy((uint8_t *)h + 2 * j, &v, sizeof v);
        }
        const void *p = t == DT_F32 ? (const void *)x : h;
        size_t bytes = (size_t)nb * sizeof(struct q8_block);
        void *w = guard_new(bytes), *wc = guard_new(bytes);
        about("type %d n_in %d, number %d", t, n_in, i);
        c->q8_pack(t, p, n_in, wc);
        k->q8_pack(t, p, n_in, w);
        if (!guard_intact())
            complain("wrote outside its arrays");
        if (memcmp(w, wc, bytes) != 0)
            complain("differs from C");
    }
}

static void bench_pack(const struct cpu_kern *k, int i, double *bytes, double *flops)
{
    (void)i;
    enum { OUT = 512, IN = 2880 };
    static struct q8_block w[OUT / Q8_OUT * IN / Q8_IN];
    const uint16_t *p = bench_block(BENCH_BYTES);
    for (int o = 0; o < OUT; o += Q8_OUT)
        k->q8_pack(DT_BF16, p + o * IN, IN, w + o / Q8_OUT * (IN / Q8_IN));
    *bytes = (2 + 34.0 / 32) * OUT * IN;
    *flops = 3.0 * OUT * IN;
}

enum { N_IN = 2880, N_BLOCK = N_IN / Q8_IN, FEW = 4, MANY = 64 };

static void bench_mul(const struct cpu_kern *k, int f, int n_out, int n_row, double *bytes,
                      double *flops)
{
    static int8_t q[2 * MANY * N_IN];
    static float d[MANY * N_BLOCK], y[MANY * 50000], tmp[MUL_TMP_BYTES / sizeof(float)];
    static int32_t sum[MANY * N_BLOCK];
    static uint8_t scale[50000 * N_BLOCK];
    const uint8_t *block = bench_block(BENCH_BYTES);
    if (!scale[0]) {
        for (size_t i = 0; i < sizeof scale; i++)
            scale[i] = (uint8_t)(120 + i % 5);
        for (int i = 0; i < 2 * MANY * N_IN; i++) {
            q[i] = (int8_t)(i * 37 % 255 - 127);
            d[i / Q8_IN / 2] = 0.01f;
        }
    }
    struct mul_q8 m = {.w = block,
                       .scale = scale,
                       .n_out = n_out,
                       .n_in = N_IN,
                       .x = {.q = q, .d = d, .sum = sum, .ld = N_IN},
                       .n_row = n_row,
                       .y = y,
                       .ld_y = (size_t)n_out,
                       .tmp = tmp};
    kernel(k, f)(&m);
    *bytes = (f != DENSE ? 17.0 : 34.0) / 32 * n_out * N_IN;
    *flops = 2.0 * n_out * N_IN * n_row;
}

static void bench_one(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    bench_mul(k, f, f != DENSE ? 41600 : 20800, 1, bytes, flops);
}

static void bench_few(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    bench_mul(k, f, f != DENSE ? 41600 : 20800, FEW, bytes, flops);
}

static void bench_many(const struct cpu_kern *k, int f, double *bytes, double *flops)
{
    bench_mul(k, f, 2880, MANY, bytes, flops);
}

static void bench_to(const struct cpu_kern *k, int wide, double *bytes, double *flops)
{
    static int8_t q[2 * N_IN];
    static float d[N_BLOCK];
    static int32_t sum[N_BLOCK];
    to(k, wide)(bench_block(BENCH_BYTES), N_IN, q, d, sum);
    *bytes = (wide ? 6.25 : 5.25) * N_IN;
    *flops = 3.0 * N_IN;
}

const struct kern_case q8_cases[] = {
    {"mul_q8", mul_pointer, check_mul, bench_one, DENSE},
    {"mul_q8_4rows", mul_pointer, NULL, bench_few, DENSE},
    {"mul_q8_64rows", mul_pointer, NULL, bench_many, DENSE},
    {"mul_mx_q8", mul_pointer, check_mul, bench_one, MX},
    {"mul_mx_q8_4rows", mul_pointer, NULL, bench_few, MX},
    {"mul_mx_q8_64rows", mul_pointer, NULL, bench_many, MX},
    {"to_q8", to_pointer, check_to, bench_to, 0},
    {"mul_mx_q16", mul_pointer, check_mul, bench_one, MX16},
    {"mul_mx_q16_4rows", mul_pointer, NULL, bench_few, MX16},
    {"mul_mx_q16_64rows", mul_pointer, NULL, bench_many, MX16},
    {"to_q16", to_pointer, check_to, bench_to, 1},
    {"q8_pack", pack_pointer, check_pack, bench_pack, 0},
};
const int n_q8_cases = sizeof q8_cases / sizeof *q8_cases;
