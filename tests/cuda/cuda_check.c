/* The CUDA backend on a machine with a card:
 *
 *     cuda_check                     every fixture of tests/golden/logits that the backend takes,
 *                                    against transformers in float32 and against the CPU backend
 *     cuda_check FOLDER [LAYERS]     a checkpoint: CUDA against the CPU backend, both in bf16, over
 *                                    one prompt; then the same rows in other batches and cuts
 *     cuda_check --bench FOLDER CASE...   times steps; a case is ROWSxDEPTH (decoding) or pN or
 *                                    pNxM (M prompts of N tokens)
 *
 * Prints a line per check; exit status 1 when one fails.
 */
#include "base/clock.h"
#include "fixture.h"
#include "model/backend.h"

enum { PAGE = 32, MAX_ROWS = 8192, MAX_SEQ = 1024 };

static int n_bad;

static void verdict(bool ok, const char *fmt, ...)
{
    va_list a;
    va_start(a, fmt);
    printf("%s  ", ok ? "ok  " : "FAIL");
    vprintf(fmt, a);
    printf("\n");
    fflush(stdout);
    va_end(a);
    n_bad += !ok;
}

/* A backend with pages for n_seq sequences of n_pos positions; window pages are not recycled. */
struct run {
    struct backend *b;
    int n_vocab, n_page;
    int32_t *table; /* [n_seq, n_page] */
};

static status run_open(struct run *r, const struct weights *w, bool cuda, enum arith arith,
                       int n_seq, int n_pos, int max_rows, int max_logits, struct err *e)
{
    struct backend_opts o = {.arith = arith};
    *r = (struct run){.n_vocab = w->spec.n_vocab, .n_page = n_pos / PAGE + 1};
    status st = cuda ? backend_cuda_open(w, &o, &r->b, e) : backend_cpu_open(w, &o, &r->b, e);
    if (st < 0)
        return st;
    int n = n_seq * r->n_page;
    struct kv_plan plan = {.page_tok = PAGE,
                           .n_full = n,
                           .n_window = n,
                           .max_rows = max_rows,
                           .max_logit_rows = max_logits};
    r->table = mem_array((size_t)n, sizeof *r->table);
    ASSERT(r->table);
    for (int i = 0; i < n; i++)
        r->table[i] = (int)((int64_t)i * 7919 % n); /* pages in no order; 7919 is prime */
    return r->b->kv_init(r->b, &plan, e);
}

static void run_close(struct run *r)
{
    if (r->b)
        r->b->close(r->b);
    mem_free(r->table);
}

static struct batch_seq span(const struct run *r, int i, int row0, int n, int pos)
{
    return (struct batch_seq){.row0 = row0,
                              .n_row = n,
                              .pos0 = pos,
                              .full = r->table + (size_t)i * (size_t)r->n_page,
                              .window = r->table + (size_t)i * (size_t)r->n_page};
}

/* Feeds tok[n] to sequence i in chunks; logits of every row into got [n, n_vocab] (may be NULL). */
static void feed(struct run *r, int i, const int32_t *tok, int n, int chunk, float *got)
{
    struct err e = {0};
    static int32_t all[MAX_ROWS];
    for (int k = 0; k < MAX_ROWS; k++)
        all[k] = k;
    for (int p = 0; p < n; p += chunk) {
        int m = min_int(chunk, n - p);
        struct batch_seq q = span(r, i, 0, m, p);
        struct batch b = {.n_row = m,
                          .tok = tok + p,
                          .n_seq = 1,
                          .seq = &q,
                          .n_logit = got ? m : 1,
                          .logit_row = got ? all : all + m - 1};
        struct step_out out;
        fixture_must(r->b->step(r->b, &b, &out, &e), &e);
        if (got)
            memcpy(got + (size_t)p * (size_t)r->n_vocab, out.logits,
                   (size_t)m * (size_t)r->n_vocab * sizeof *got);
    }
}

/* Relative error of each row: ||a - b|| / ||b||. Returns the median; *worst, *cosine of the worst.
 */
static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double row_errors(const float *a, const float *b, int n_row, int n_vocab, double *worst,
                         int *n_far)
{
    double *v = mem_array((size_t)n_row, sizeof *v);
    ASSERT(v);
    for (int r = 0; r < n_row; r++) {
        double d = 0, s = 0;
        for (int i = 0; i < n_vocab; i++) {
            double x = a[(size_t)r * (size_t)n_vocab + (size_t)i],
                   y = b[(size_t)r * (size_t)n_vocab + (size_t)i];
            d += (x - y) * (x - y);
            s += y * y;
        }
        v[r] = sqrt(d / s);
    }
    qsort(v, (size_t)n_row, sizeof *v, by_size);
    double median = v[n_row / 2];
    *worst = v[n_row - 1];
    *n_far = 0;
    for (int r = 0; r < n_row; r++)
        *n_far += !(v[r] <= 0.02);
    mem_free(v);
    return median;
}

static void check_fixture(int index)
{
    struct fixture f;
    struct err e = {0};
    struct weights *w;
    struct run cuda, cpu;
    char dir[FIXTURE_PATH];
    fixture_load(index, &f);
    fixture_checkpoint(&f, dir);
    fixture_must(weights_open(dir, false, &w, &e), &e);
    fixture_remove(&f, dir);
    status st = run_open(&cuda, w, true, ARITH_BF16, 1, f.n_tok, 512, 512, &e);
    if (st == E_INPUT) {
        printf("skip  %-18s %s\n", f.name, e.msg);
        goto out;
    }
    fixture_must(st, &e);
    size_t V = (size_t)f.spec.n_vocab;
    float *got = mem_array((size_t)f.n_tok * V, sizeof *got);
    float *row = mem_array((size_t)f.n_row * V, sizeof *row);
    float *ours = mem_array((size_t)f.n_tok * V, sizeof *ours);
    ASSERT(got && row && ours);
    feed(&cuda, 0, f.tok, f.n_tok, 300, got);
    for (int i = 0; i < f.n_row; i++)
        memcpy(row + (size_t)i * V, got + (size_t)f.row[i] * V, V * sizeof *row);
    double worst, cpu_worst;
    int far, cpu_far;
    double median = row_errors(row, f.want, f.n_row, f.spec.n_vocab, &worst, &far);
    fixture_must(run_open(&cpu, w, false, ARITH_BF16, 1, f.n_tok, 512, 512, &e), &e);
    feed(&cpu, 0, f.tok, f.n_tok, 300, ours);
    double cpu_median = row_errors(got, ours, f.n_tok, f.spec.n_vocab, &cpu_worst, &cpu_far);
    verdict(median < 0.02 && cpu_median < 0.02,
            "%-18s against float32: median %.1e worst %.1e, %d of %d rows over 2 %%; against the "
            "CPU in bf16: median %.1e worst %.1e, %d of %d",
            f.name, median, worst, far, f.n_row, cpu_median, cpu_worst, cpu_far, f.n_tok);
    /* One row at a time, and in chunks of 7: the same numbers? */
    int n = min_int(f.n_tok, 200);
    feed(&cuda, 0, f.tok, n, 1, ours);
    median = row_errors(ours, got, n, f.spec.n_vocab, &worst, &far);
    verdict(median < 0.02, "%-18s row by row against chunks: median %.1e worst %.1e", f.name,
            median, worst);
    feed(&cuda, 0, f.tok, n, 7, ours);
    median = row_errors(ours, got, n, f.spec.n_vocab, &worst, &far);
    verdict(median < 0.02, "%-18s chunks of 7: median %.1e worst %.1e", f.name, median, worst);
    feed(&cuda, 0, f.tok, n, 40, ours);
    median = row_errors(ours, got, n, f.spec.n_vocab, &worst, &far);
    verdict(median < 0.02, "%-18s chunks of 40: median %.1e worst %.1e", f.name, median, worst);
    run_close(&cpu);
    mem_free(got);
    mem_free(row);
    mem_free(ours);
out:
    run_close(&cuda);
    weights_close(w);
    fixture_free(&f);
}

static void check_folder(const char *dir, int n)
{
    struct err e = {0};
    struct weights *w;
    struct run cuda, cpu;
    fixture_must(weights_open(dir, false, &w, &e), &e);
    uint64_t t = clock_ns();
    fixture_must(run_open(&cuda, w, true, ARITH_BF16, 2, n, 512, 512, &e), &e);
    printf("      on the card after %.2f s, %.1f GB/s\n", clock_ms_since(t) / 1e3,
           (double)w->n_bytes / clock_ms_since(t) / 1e6);
    fixture_must(run_open(&cpu, w, false, ARITH_BF16, 2, n, 512, 512, &e), &e);
    size_t V = (size_t)w->spec.n_vocab;
    int32_t *tok = mem_array((size_t)n, sizeof *tok);
    float *a = mem_array((size_t)n * V, sizeof *a), *b = mem_array((size_t)n * V, sizeof *b);
    ASSERT(tok && a && b);
    for (int i = 0; i < n; i++)
        tok[i] = (int32_t)(rng_uniform(1, 2, (uint64_t)i) * w->spec.n_vocab);
    double worst;
    int far;
    feed(&cuda, 0, tok, n, 512, a);
    feed(&cpu, 0, tok, n, 512, b);
    double median = row_errors(a, b, n, w->spec.n_vocab, &worst, &far);
    verdict(median < 0.02, "%d rows against the CPU in bf16: median %.1e worst %.1e, %d over 2 %%",
            n, median, worst, far);
    static const int chunk[] = {1, 7, 20, 100};
    for (int i = 0; i < 4; i++) {
        feed(&cuda, 1, tok, n, chunk[i], b);
        median = row_errors(b, a, n, w->spec.n_vocab, &worst, &far);
        verdict(median < 0.02, "chunks of %d: median %.1e worst %.1e, %d over 2 %%", chunk[i],
                median, worst, far);
    }
    run_close(&cuda);
    run_close(&cpu);
    mem_free(tok);
    mem_free(a);
    mem_free(b);
    weights_close(w);
}

/* ---- timing ---- */

static void spread(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
}

static void bench_decode(struct run *r, int n_row, int depth)
{
    enum { N = 64 };
    struct err e = {0};
    static int32_t tok[MAX_SEQ], row[MAX_SEQ];
    static struct batch_seq q[MAX_SEQ];
    double ms[N];
    for (int i = 0; i < n_row; i++) {
        tok[i] = (int32_t)(rng_uniform(3, 4, (uint64_t)i) * r->n_vocab);
        row[i] = i;
    }
    for (int k = -8; k < N; k++) {
        for (int i = 0; i < n_row; i++)
            q[i] = span(r, i, i, 1, depth + (k < 0 ? 0 : k));
        struct batch b = {.n_row = n_row,
                          .tok = tok,
                          .n_seq = n_row,
                          .seq = q,
                          .n_logit = n_row,
                          .logit_row = row,
                          .best_only = true};
        struct step_out out;
        uint64_t t = clock_ns();
        fixture_must(r->b->step(r->b, &b, &out, &e), &e);
        if (k >= 0)
            ms[k] = clock_ms_since(t);
        memcpy(tok, out.best, (size_t)n_row * sizeof *tok);
    }
    spread(ms, N);
    printf("decode %4d rows at %5d: %.3f / %.3f / %.3f ms, %.0f tokens/s\n", n_row, depth, ms[0],
           ms[N / 2], ms[N - 1], n_row / ms[N / 2] * 1e3);
    fflush(stdout);
}

static void bench_prefill(struct run *r, int n_seq, int n, int max_rows)
{
    enum { N = 5 };
    struct err e = {0};
    double ms[N];
    static int32_t tok[MAX_ROWS];
    for (int i = 0; i < MAX_ROWS; i++)
        tok[i] = (int32_t)(rng_uniform(5, 6, (uint64_t)i) * r->n_vocab);
    for (int k = -1; k < N; k++) {
        uint64_t t = clock_ns();
        /* whole prompts together while they fit a step, long ones in chunks */
        for (int s = 0; s < n_seq;) {
            struct batch_seq q[MAX_SEQ];
            int32_t last[MAX_SEQ];
            int m = 0, rows = 0;
            for (; s < n_seq && rows + n <= max_rows && n <= max_rows; s++, m++) {
                q[m] = span(r, s, rows, n, 0);
                rows += n;
                last[m] = rows - 1;
            }
            if (m == 0) {
                for (int p = 0; p < n; p += max_rows) {
                    int c = min_int(max_rows, n - p), at = c - 1;
                    q[0] = span(r, s, 0, c, p);
                    struct batch b = {.n_row = c,
                                      .tok = tok,
                                      .n_seq = 1,
                                      .seq = q,
                                      .n_logit = 1,
                                      .logit_row = &at,
                                      .best_only = true};
                    struct step_out out;
                    fixture_must(r->b->step(r->b, &b, &out, &e), &e);
                }
                s++;
                continue;
            }
            struct batch b = {.n_row = rows,
                              .tok = tok,
                              .n_seq = m,
                              .seq = q,
                              .n_logit = m,
                              .logit_row = last,
                              .best_only = true};
            struct step_out out;
            fixture_must(r->b->step(r->b, &b, &out, &e), &e);
        }
        if (k >= 0)
            ms[k] = clock_ms_since(t);
    }
    spread(ms, N);
    printf("prefill %d x %d: %.2f / %.2f / %.2f ms, %.0f tokens/s\n", n_seq, n, ms[0], ms[N / 2],
           ms[N - 1], n_seq * n / ms[N / 2] * 1e3);
    fflush(stdout);
}

struct bench_case {
    bool prefill;
    int n_seq, n_pos;
};

static struct bench_case case_of(const char *text)
{
    int a = 1, b = 1;
    bool prefill = text[0] == 'p';
    if (sscanf(text + prefill, "%dx%d", &a, &b) < 1)
        fixture_must(E_INPUT, &(struct err){.msg = "a case is ROWSxDEPTH, pN or pNxM"});
    return prefill ? (struct bench_case){true, b, a} : (struct bench_case){false, a, b + 80};
}

static void bench(const char *dir, char **cases, int n)
{
    struct err e = {0};
    struct weights *w;
    struct run r;
    int n_page = 0, n_seq = 1;
    for (int i = 0; i < n; i++) {
        struct bench_case c = case_of(cases[i]);
        n_page = max_int(n_page, c.n_seq * (c.n_pos / PAGE + 1));
        n_seq = max_int(n_seq, c.n_seq);
    }
    fixture_must(weights_open(dir, false, &w, &e), &e);
    uint64_t t = clock_ns();
    fixture_must(run_open(&r, w, true, ARITH_BF16, 1, (n_page - 1) * PAGE, MAX_ROWS, n_seq, &e),
                 &e);
    double ms = clock_ms_since(t);
    printf("weights on the card after %.2f s, %.1f GB/s\n", ms / 1e3,
           (double)w->n_bytes / ms / 1e6);
    for (int i = 0; i < n; i++) {
        struct bench_case c = case_of(cases[i]);
        r.n_page = c.n_pos / PAGE + 1;
        if (c.prefill)
            bench_prefill(&r, c.n_seq, c.n_pos, MAX_ROWS);
        else
            bench_decode(&r, c.n_seq, c.n_pos - 80);
    }
    run_close(&r);
    weights_close(w);
}

int main(int argc, char **argv)
{
    int64_t n = 128;
    if (argc > 3 && strcmp(argv[1], "--bench") == 0) {
        bench(argv[2], argv + 3, argc - 3);
    } else if (argc > 1) {
        if (argc > 2 && num_i64(argv[2], 1, MAX_ROWS, &n) < 0)
            return 2;
        check_folder(argv[1], (int)n);
    } else {
        for (int i = 0; i < fixture_count(); i++)
            check_fixture(i);
    }
    return n_bad > 0;
}
