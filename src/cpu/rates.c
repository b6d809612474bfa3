/* What this processor and the kernels reach: reading, multiplying, and the products and attention
 * of a gpt-oss-20b layer, every thread on memory of its own, a gigabyte in all, so that no cache
 * holds a part worth mentioning.
 *
 * A figure is taken from a few runs of all threads together, from the first start to the last end:
 * of a limit the median, which is what lasts, of a kernel the best. Limits and kernels are timed in
 * one call, so that they belong to the same minutes of a machine whose speed may change.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/pool.h"
#include "base/sysmem.h"
#include "cpu/kern.h"
#include "model/backend.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALL_BYTES = 1 << 30,  /* of weights, all threads together; less where memory is short ... */
    MIN_BYTES = 64 << 20, /* ... but of a thread at least these and at most those */
    MAX_BYTES = 256 << 20,
    N_IN = 2880, /* of 20b: hidden and intermediate width */
    N_OUT_MANY = 1440,
    ROWS = 64,
    N_Q = 8, /* query heads of a key head */
    D_HEAD = 64,
    PAGE_TOK = 64,
    N_KEY = 4096,
    RUNS = 5, /* at least, ... */
    MAX_RUNS = 2000,
    PEAK = 1 << 16
};
static const double MIN_NS = 2e8; /* ... and until they took so long together */

struct rates {
    struct cpu_kern k;
    struct pool *pool;
    size_t n_w;             /* bytes of weights a thread */
    uint8_t *w;             /* [threads][n_w] any bits, no NaN as bf16 */
    uint8_t *scale;         /* [n_w / 16] */
    float *x;               /* [ROWS, N_IN] */
    struct q8_rows q, wide; /* the same, in bytes and in 16 bits */
    float *out;             /* [threads][n_out] */
    uint8_t *tmp;           /* [threads][mul_tmp(N_IN)] */
    size_t n_out;
    double *flops; /* [threads] of the run, and bytes */
    double *bytes;
    int rows;
};

static void run_read(void *arg, int t)
{
    struct rates *r = arg;
    typedef uint64_t part __attribute__((vector_size(16)));
    const part *p = (const part *)(const void *)(r->w + (size_t)t * r->n_w);
    part s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (size_t i = 0; i < r->n_w / sizeof *p; i += 4) {
        __builtin_prefetch(p + i + 256);
        s0 ^= p[i];
        s1 ^= p[i + 1];
        s2 ^= p[i + 2];
        s3 ^= p[i + 3];
    }
    s0 ^= s1 ^ s2 ^ s3;
    r->out[(size_t)t * r->n_out] = (float)(s0[0] ^ s0[1]); /* so that it is read at all */
    r->bytes[t] = (double)r->n_w;
    r->flops[t] = 0;
}

static void run_chains(struct rates *r, int t, double (*peak)(int n, float *out))
{
    r->bytes[t] = 0;
    r->flops[t] = peak(PEAK, r->out + (size_t)t * r->n_out);
}

static void run_peak(void *arg, int t)
{
    struct rates *r = arg;
    run_chains(r, t, r->k.peak);
}

static void run_peak_bf16(void *arg, int t)
{
    struct rates *r = arg;
    run_chains(r, t, r->k.peak_bf16);
}

static void run_peak_q8(void *arg, int t)
{
    struct rates *r = arg;
    run_chains(r, t, r->k.peak_q8);
}

static struct mul mul_for(struct rates *r, int t, double per_weight)
{
    struct mul m = {.w = r->w + (size_t)t * r->n_w,
                    .scale = r->scale,
                    .n_in = N_IN,
                    .x = r->x,
                    .ld_x = N_IN,
                    .n_row = r->rows,
                    .y = r->out + (size_t)t * r->n_out,
                    .tmp = r->tmp + (size_t)t * mul_tmp(N_IN)};
    m.n_out =
        r->rows > 1 ? N_OUT_MANY : (int)((double)r->n_w / per_weight / N_IN) / Q8_OUT * Q8_OUT;
    m.ld_y = (size_t)m.n_out;
    r->bytes[t] = per_weight * m.n_out * N_IN;
    r->flops[t] = 2.0 * m.n_out * N_IN * m.n_row;
    return m;
}

static void run_bf16(void *arg, int t)
{
    struct rates *r = arg;
    struct mul m = mul_for(r, t, 2);
    if (r->k.bf16_dot)
        r->k.mul_bf16(&m);
    else
        r->k.mul_f32[DT_BF16](&m);
}

static void run_q8(struct rates *r, int t, double per_weight, const struct q8_rows *x,
                   void (*kernel)(const struct mul_q8 *))
{
    struct mul m = mul_for(r, t, per_weight);
    struct mul_q8 q = {.w = m.w,
                       .scale = m.scale,
                       .n_out = m.n_out,
                       .n_in = N_IN,
                       .x = *x,
                       .n_row = m.n_row,
                       .y = m.y,
                       .ld_y = m.ld_y,
                       .tmp = m.tmp};
    kernel(&q);
}

static void run_mx(void *arg, int t)
{
    struct rates *r = arg;
    if (r->k.mx_q16) {
        run_q8(r, t, 17.0 / 32, &r->wide, r->k.mul_mx_q16);
        return;
    }
    struct mul m = mul_for(r, t, 17.0 / 32);
    if (r->k.bf16_dot)
        r->k.mul_mx_bf16(&m);
    else
        r->k.mul_mx_f32(&m);
}

static void run_dense_q8(void *arg, int t)
{
    struct rates *r = arg;
    run_q8(r, t, 34.0 / 32, &r->q, r->k.mul_q8);
}

static void run_mx_q8(void *arg, int t)
{
    struct rates *r = arg;
    run_q8(r, t, 17.0 / 32, &r->q, r->k.mul_mx_q8);
}

/* One row of eight query heads against N_KEY keys. */
static void run_attn(void *arg, int t)
{
    struct rates *r = arg;
    const size_t half = (size_t)PAGE_TOK * D_HEAD * 2;
    float m[N_Q] = {0}, l[N_Q] = {0};
    float *acc = r->out + (size_t)t * r->n_out;
    const uint8_t *page = r->w + (size_t)t * r->n_w;
    memset(acc, 0, sizeof(float) * N_Q * D_HEAD);
    for (int i = 0; i < N_KEY / PAGE_TOK; i++, page += 2 * half) {
        struct attn a = {.q = r->x,
                         .k = page,
                         .v = page + half,
                         .n_q = N_Q,
                         .d_head = D_HEAD,
                         .page_tok = PAGE_TOK,
                         .hi = PAGE_TOK,
                         .m = m,
                         .l = l,
                         .acc = acc};
        r->k.attn_bf16(&a);
    }
    r->bytes[t] = 4.0 * N_KEY * D_HEAD;
    r->flops[t] = 4.0 * N_Q * N_KEY * D_HEAD;
}

/* Each thread its own part, so that it lies with its memory node. */
static void run_fill(void *arg, int t)
{
    struct rates *r = arg;
    uint8_t *w = r->w + (size_t)t * r->n_w;
    for (size_t i = 0; i < r->n_w / 4; i++) {
        uint32_t v = ((uint32_t)i * 2654435761u & 0x82ff82ff) | 0x3c003c00;
        memcpy(w + 4 * i, &v, sizeof v);
    }
}

/* n numbers of so many bytes. */
static struct q8_rows rows_new(size_t n, size_t size)
{
    return (struct q8_rows){.q = mem_aligned(64, n * size),
                            .d = mem_aligned(64, n / Q8_IN * sizeof(float)),
                            .sum = mem_aligned(64, n / Q8_IN * sizeof(int32_t)),
                            .ld = N_IN};
}

static bool rows_there(const struct q8_rows *x)
{
    return x->q && x->d && x->sum;
}

static void rows_free(struct q8_rows *x)
{
    mem_free(x->q);
    mem_free(x->d);
    mem_free(x->sum);
}

static status rates_open(struct rates *r, int n_thread, struct err *e)
{
    unsigned flags;
    status st = OK;
    TRY(cpu_flags(&flags, e));
    cpu_kern_init(&r->k, flags);
    TRY(pool_new(n_thread, &r->pool, e));
    size_t n = (size_t)pool_size(r->pool), n_x = (size_t)ROWS * N_IN;
    size_t all = min_size(ALL_BYTES, sysmem_available() / 8);
    r->n_w = all / n < MIN_BYTES ? MIN_BYTES : min_size(all / n, MAX_BYTES);
    r->n_w &= ~(size_t)(MIN_BYTES - 1);
    size_t one_row = r->n_w / N_IN * 2; /* a weight is half a byte at least */
    r->n_out = one_row > (size_t)ROWS * N_OUT_MANY ? one_row : (size_t)ROWS * N_OUT_MANY;
    r->w = mem_aligned(2 << 20, n * r->n_w);
    r->scale = mem_aligned(64, r->n_w / 16);
    r->x = mem_aligned(64, n_x * sizeof *r->x);
    r->q = rows_new(n_x, 1);
    r->wide = rows_new(n_x, 2);
    r->out = mem_aligned(64, n * r->n_out * sizeof *r->out);
    r->tmp = mem_aligned(64, n * mul_tmp(N_IN));
    r->flops = mem_calloc(n, sizeof *r->flops);
    r->bytes = mem_calloc(n, sizeof *r->bytes);
    if (!r->w || !r->scale || !r->x || !rows_there(&r->q) || !rows_there(&r->wide) || !r->out ||
        !r->tmp || !r->flops || !r->bytes)
        TRY(err_set(e, E_NOMEM, "out of memory: %zu MiB for each thread are needed", r->n_w >> 20));
    (void)madvise(r->w, n * r->n_w, MADV_HUGEPAGE); /* else page walks are measured too */
    pool_run(r->pool, run_fill, r);
    memset(r->scale, 122, r->n_w / 16);
    for (size_t i = 0; i < n_x; i++)
        r->x[i] = (float)(i * 37 % 255) / 128 - 1;
    for (size_t i = 0; i < ROWS; i++) {
        size_t at = i * N_IN, b = at / Q8_IN;
        r->k.to_q8(r->x + at, N_IN, r->q.q + at, r->q.d + b, r->q.sum + b);
        r->k.to_q16(r->x + at, N_IN, r->wide.q + 2 * at, r->wide.d + b, r->wide.sum + b);
    }
out:
    return st;
}

static void rates_close(struct rates *r)
{
    pool_free(r->pool);
    mem_free(r->w);
    mem_free(r->scale);
    mem_free(r->x);
    rows_free(&r->q);
    rows_free(&r->wide);
    mem_free(r->out);
    mem_free(r->tmp);
    mem_free(r->flops);
    mem_free(r->bytes);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Runs it for a while; `limit`: the median time, else the best. */
static struct cpu_rate measure(struct rates *r, const char *name, int rows, bool limit,
                               void (*run)(void *, int))
{
    struct cpu_rate rate = {.name = name, .rows = rows};
    double ns[MAX_RUNS], total = 0;
    int n = 0;
    r->rows = rows;
    while (n < RUNS || (n < MAX_RUNS && total < MIN_NS)) {
        uint64_t start = clock_ns();
        pool_run(r->pool, run, r);
        ns[n] = (double)(clock_ns() - start);
        total += ns[n++];
    }
    qsort(ns, (size_t)n, sizeof *ns, by_value);
    rate.ns = ns[limit ? n / 2 : 0];
    for (int t = 0; t < pool_size(r->pool); t++) {
        rate.bytes += r->bytes[t];
        rate.flops += r->flops[t];
    }
    return rate;
}

status backend_cpu_limits(int n_thread, enum arith arith, struct cpu_limits *to, struct err *e)
{
    struct rates r = {0};
    status st = OK;
    TRY(rates_open(&r, n_thread, e));
    struct cpu_rate read = measure(&r, "read", 0, true, run_read);
    struct cpu_rate peak = measure(&r, "peak", 0, true,
                                   arith == ARITH_F32    ? run_peak
                                   : arith == ARITH_BF16 ? run_peak_bf16
                                                         : run_peak_q8);
    *to =
        (struct cpu_limits){.read = read.bytes / read.ns * 1e9, .peak = peak.flops / peak.ns * 1e9};
out:
    rates_close(&r);
    return st;
}

status backend_cpu_rates(int n_thread, void (*take)(void *ctx, const struct cpu_rate *), void *ctx,
                         struct err *e)
{
    static const struct {
        const char *name;
        int rows;
        void (*run)(void *, int);
    } what[] = {{"read", 0, run_read},          {"fma_f32", 0, run_peak},
                {"dot_bf16", 0, run_peak_bf16}, {"dot_q8", 0, run_peak_q8},
                {"dense_bf16", 1, run_bf16},    {"dense_bf16", ROWS, run_bf16},
                {"experts_bf16", 1, run_mx},    {"experts_bf16", ROWS, run_mx},
                {"dense_q8", 1, run_dense_q8},  {"dense_q8", ROWS, run_dense_q8},
                {"experts_q8", 1, run_mx_q8},   {"experts_q8", ROWS, run_mx_q8},
                {"attention_4096", 1, run_attn}};
    struct rates r = {0};
    status st = OK;
    TRY(rates_open(&r, n_thread, e));
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        bool limit = what[i].rows == 0;
        struct cpu_rate rate = measure(&r, what[i].name, what[i].rows, limit, what[i].run);
        take(ctx, &rate);
    }
out:
    rates_close(&r);
    return st;
}
