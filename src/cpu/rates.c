/* What this processor and the kernels reach: reading, multiplying, and the products and attention
 * of a gpt-oss-20b layer, every thread on memory of its own.
 *
 * A figure is the best of a few runs of all threads together, from the first start to the last end;
 * limits and kernels are timed in one call, so that they belong to the same minutes of a machine
 * whose speed may change.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/pool.h"
#include "cpu/kern.h"
#include "model/backend.h"

#include <string.h>
#include <sys/mman.h>

enum {
    BYTES = 64 << 20, /* of weights a thread: no cache holds them */
    N_IN = 2880,      /* of 20b: hidden and intermediate width */
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
    uint8_t *w;       /* [threads][BYTES] any bits, no NaN as bf16 */
    uint8_t *scale;   /* [BYTES / 16] */
    float *x;         /* [ROWS, N_IN] */
    struct q8_rows q; /* the same */
    float *out;       /* [threads][n_out] */
    uint8_t *tmp;     /* [threads][mul_tmp(N_IN)] */
    size_t n_out;
    double *flops; /* [threads] of the run, and bytes */
    double *bytes;
    int rows;
};

static void run_read(void *arg, int t)
{
    struct rates *r = arg;
    const uint64_t *p = (const uint64_t *)(const void *)(r->w + (size_t)t * BYTES);
    uint64_t s[8] = {0};
    for (size_t i = 0; i < BYTES / sizeof *p; i += 8) {
        __builtin_prefetch(p + i + 512);
        for (size_t j = 0; j < 8; j++)
            s[j] ^= p[i + j];
    }
    for (int j = 1; j < 8; j++)
        s[0] ^= s[j];
    r->out[(size_t)t * r->n_out] = (float)s[0]; /* so that it is read at all */
    r->bytes[t] = BYTES;
    r->flops[t] = 0;
}

static void run_peak(void *arg, int t)
{
    struct rates *r = arg;
    r->bytes[t] = 0;
    r->flops[t] = r->k.peak(PEAK, r->out + (size_t)t * r->n_out);
}

static struct mul mul_for(struct rates *r, int t, double per_weight)
{
    struct mul m = {.w = r->w + (size_t)t * BYTES,
                    .scale = r->scale,
                    .n_in = N_IN,
                    .x = r->x,
                    .ld_x = N_IN,
                    .n_row = r->rows,
                    .y = r->out + (size_t)t * r->n_out,
                    .tmp = r->tmp + (size_t)t * mul_tmp(N_IN)};
    m.n_out = r->rows > 1 ? N_OUT_MANY : (int)(BYTES / per_weight / N_IN) / Q8_OUT * Q8_OUT;
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

static void run_mx(void *arg, int t)
{
    struct rates *r = arg;
    struct mul m = mul_for(r, t, 17.0 / 32);
    if (r->k.bf16_dot)
        r->k.mul_mx_bf16(&m);
    else
        r->k.mul_mx_f32(&m);
}

static void run_q8(struct rates *r, int t, double per_weight, void (*kernel)(const struct mul_q8 *))
{
    struct mul m = mul_for(r, t, per_weight);
    struct mul_q8 q = {.w = m.w,
                       .scale = m.scale,
                       .n_out = m.n_out,
                       .n_in = N_IN,
                       .x = r->q,
                       .n_row = m.n_row,
                       .y = m.y,
                       .ld_y = m.ld_y,
                       .tmp = m.tmp};
    kernel(&q);
}

static void run_dense_q8(void *arg, int t)
{
    struct rates *r = arg;
    run_q8(r, t, 34.0 / 32, r->k.mul_q8);
}

static void run_mx_q8(void *arg, int t)
{
    struct rates *r = arg;
    run_q8(r, t, 17.0 / 32, r->k.mul_mx_q8);
}

/* One row of eight query heads against N_KEY keys. */
static void run_attn(void *arg, int t)
{
    struct rates *r = arg;
    const size_t half = (size_t)PAGE_TOK * D_HEAD * 2;
    float m[N_Q] = {0}, l[N_Q] = {0};
    float *acc = r->out + (size_t)t * r->n_out;
    const uint8_t *page = r->w + (size_t)t * BYTES;
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

static status rates_open(struct rates *r, int n_thread, struct err *e)
{
    unsigned flags;
    status st = OK;
    TRY(cpu_flags(&flags, e));
    cpu_kern_init(&r->k, flags);
    TRY(pool_new(n_thread, &r->pool, e));
    size_t n = (size_t)pool_size(r->pool), n_x = (size_t)ROWS * N_IN;
    r->n_out = (size_t)ROWS * N_OUT_MANY; /* a single row's outputs are fewer */
    r->w = mem_aligned(2 << 20, n * BYTES);
    r->scale = mem_aligned(64, BYTES / 16);
    r->x = mem_aligned(64, n_x * sizeof *r->x);
    r->q = (struct q8_rows){.q = mem_aligned(64, n_x),
                            .d = mem_aligned(64, n_x / Q8_IN * sizeof *r->q.d),
                            .sum = mem_aligned(64, n_x / Q8_IN * sizeof *r->q.sum),
                            .ld = N_IN};
    r->out = mem_aligned(64, n * r->n_out * sizeof *r->out);
    r->tmp = mem_aligned(64, n * mul_tmp(N_IN));
    r->flops = mem_calloc(n, sizeof *r->flops);
    r->bytes = mem_calloc(n, sizeof *r->bytes);
    if (!r->w || !r->scale || !r->x || !r->q.q || !r->q.d || !r->q.sum || !r->out || !r->tmp ||
        !r->flops || !r->bytes)
        TRY(err_set(e, E_NOMEM, "out of memory: %zu MiB for each thread are needed",
                    (size_t)BYTES >> 20));
    (void)madvise(r->w, n * BYTES, MADV_HUGEPAGE); /* else page walks are measured too */
    for (size_t i = 0; i < n * BYTES / 4; i++) {
        uint32_t v = ((uint32_t)i * 2654435761u & 0x82ff82ff) | 0x3c003c00;
        memcpy(r->w + 4 * i, &v, sizeof v);
    }
    memset(r->scale, 122, BYTES / 16);
    for (size_t i = 0; i < n_x; i++)
        r->x[i] = (float)(i * 37 % 255) / 128 - 1;
    for (size_t i = 0; i < ROWS; i++)
        r->k.to_q8(r->x + i * N_IN, N_IN, r->q.q + i * N_IN, r->q.d + i * N_IN / Q8_IN,
                   r->q.sum + i * N_IN / Q8_IN);
out:
    return st;
}

static void rates_close(struct rates *r)
{
    pool_free(r->pool);
    mem_free(r->w);
    mem_free(r->scale);
    mem_free(r->x);
    mem_free(r->q.q);
    mem_free(r->q.d);
    mem_free(r->q.sum);
    mem_free(r->out);
    mem_free(r->tmp);
    mem_free(r->flops);
    mem_free(r->bytes);
}

status backend_cpu_rates(int n_thread, void (*take)(void *ctx, const struct cpu_rate *), void *ctx,
                         struct err *e)
{
    static const struct {
        const char *name;
        int rows;
        void (*run)(void *, int);
    } what[] = {{"read", 0, run_read},          {"fma_f32", 0, run_peak},
                {"dense_bf16", 1, run_bf16},    {"dense_bf16", ROWS, run_bf16},
                {"experts_bf16", 1, run_mx},    {"experts_bf16", ROWS, run_mx},
                {"dense_q8", 1, run_dense_q8},  {"dense_q8", ROWS, run_dense_q8},
                {"experts_q8", 1, run_mx_q8},   {"experts_q8", ROWS, run_mx_q8},
                {"attention_4096", 1, run_attn}};
    struct rates *r = mem_calloc(1, sizeof *r);
    status st = r ? OK : err_set(e, E_NOMEM, "out of memory");
    TRY(st);
    TRY(rates_open(r, n_thread, e));
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        struct cpu_rate best = {.name = what[i].name, .rows = what[i].rows, .ns = 1e300};
        r->rows = what[i].rows;
        double total = 0;
        for (int run = 0; run < RUNS || (run < MAX_RUNS && total < MIN_NS); run++) {
            uint64_t start = clock_ns();
            pool_run(r->pool, what[i].run, r);
            double ns = (double)(clock_ns() - start);
            total += ns;
            best.ns = ns < best.ns ? ns : best.ns;
        }
        for (int t = 0; t < pool_size(r->pool); t++) {
            best.bytes += r->bytes[t];
            best.flops += r->flops[t];
        }
        take(ctx, &best);
    }
out:
    if (r)
        rates_close(r);
    mem_free(r);
    return st;
}
