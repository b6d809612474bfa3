/* The CUDA backend on a machine with a card:
 *
 *     cuda_check                     every fixture of tests/golden/logits that the backend takes,
 *                                    against transformers in float32 and against the CPU backend
 *     cuda_check FOLDER [LAYERS]     a checkpoint: CUDA against the CPU backend, both in bf16, over
 *                                    one prompt; then the same rows in other batches and cuts
 *     cuda_check --bench FOLDER CASE...   times steps; a case is ROWSxDEPTH (decoding), pN or pNxM
 *                                    (M prompts of N tokens), or tN (choosing N tokens, beside the
 *                                    step before)
 *
 * --arith fp8, --dense q8, --kv fp8, --deterministic, --n-cpu-moe N, --gpu-memory-gb N in front of
 * these: the backend's options. Prints a line per check; exit status 1 when one fails.
 */
#include "base/clock.h"
#include "engine/sample.h"
#include "fixture.h"
#include "model/backend.h"

enum { PAGE = 32, MAX_ROWS = 8192, MAX_SEQ = 1024 };

static int n_bad;
static struct backend_opts card_opts = {.arith = ARITH_BF16};

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

static status run_open(struct run *r, const struct weights *w, bool cuda, int n_seq, int n_pos,
                       int max_rows, int max_logits, struct err *e)
{
    struct backend_opts o = cuda ? card_opts : (struct backend_opts){.arith = ARITH_BF16};
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

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median relative error allowed: e4m3 numbers have 3 bits behind the point. */
static double close_enough(void)
{
    return card_opts.arith == ARITH_FP8 ? 0.1 : card_opts.kv == KV_FP8 ? 0.06 : 0.02;
}

/* Rows of the card that ran otherwise: equal to the bit where that is promised. */
static bool same_enough(const float *a, const float *b, int n_row, int n_vocab, double median)
{
    size_t n = (size_t)n_row * (size_t)n_vocab;
    double most = card_opts.arith == ARITH_FP8 ? close_enough() : 0.02;
    return card_opts.deterministic ? memcmp(a, b, n * sizeof *a) == 0 : median < most;
}

/* Relative error of each row: ||a - b|| / ||b||. Returns the median; *worst; *n_far beyond 2 %. */
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

/* Mean over the rows of the distance, in nats, of what b makes likely from what a does. */
static double mean_kl(const float *a, const float *b, int n_row, int n_vocab)
{
    double kl = 0;
    for (int r = 0; r < n_row; r++, a += n_vocab, b += n_vocab) {
        double la = sample_lse(a, n_vocab), lb = sample_lse(b, n_vocab);
        for (int i = 0; i < n_vocab; i++)
            kl += exp((double)b[i] - lb) * ((double)b[i] - lb - ((double)a[i] - la));
    }
    return kl / n_row;
}

/* ---- choosing tokens ---- */

enum { PICK_ROWS = 64, PICK_LIST = 300, PICK_MASKS = 4 };

/* What the random choices are made by: all ids, masks of several densities, lists that start with
 * the row's likeliest token, so that they matter. */
struct rules {
    int n_vocab;
    float *logits; /* [PICK_ROWS, n_vocab] the card's */
    int32_t *all;  /* [n_vocab] */
    uint32_t *mask[PICK_MASKS];
    struct token_count seen[PICK_ROWS][PICK_LIST];
    int32_t id[PICK_ROWS][PICK_LIST];
    float bias[PICK_LIST];
    struct sample_scratch scratch;
};

static void rules_open(struct rules *u, int n_vocab)
{
    size_t V = (size_t)n_vocab, words = (V + 31) / 32;
    static const double share[PICK_MASKS] = {0.002, 0.5, 0.9, 1};
    u->n_vocab = n_vocab;
    u->logits = mem_array(PICK_ROWS * V, sizeof *u->logits);
    u->all = mem_array(V, sizeof *u->all);
    ASSERT(u->logits && u->all && sample_scratch_open(&u->scratch, n_vocab) == OK);
    for (int i = 0; i < n_vocab; i++)
        u->all[i] = i;
    for (int m = 0; m < PICK_MASKS; m++) {
        u->mask[m] = mem_calloc(words, sizeof **u->mask);
        ASSERT(u->mask[m]);
        for (int i = 0; i < n_vocab; i++)
            if (i == 7 || rng_uniform(20, (uint64_t)m, (uint64_t)i) < share[m])
                u->mask[m][i / 32] |= (uint32_t)1 << (i % 32);
    }
    for (int i = 0; i < PICK_LIST; i++)
        u->bias[i] = (float)(i % 7 - 3);
}

static void rules_close(struct rules *u)
{
    mem_free(u->logits);
    mem_free(u->all);
    for (int m = 0; m < PICK_MASKS; m++)
        mem_free(u->mask[m]);
    sample_scratch_close(&u->scratch);
}

/* The random choice number `round` for a row. */
static struct pick random_pick(struct rules *u, int row, int round)
{
    static const float temperature[] = {0, 0, 0.3f, 0.7f, 1, 1, 1.5f, 100};
    static const float top_p[] = {0, 0, 0.5f, 0.9f, 0.99f}, min_p[] = {0, 0, 0, 0.05f, 0.4f};
    int V = u->n_vocab, i = 0, top_k[] = {0, 0, 0, 1, 40, 300, V / 2};
#define ANY(n) (int)(rng_uniform(21, (uint64_t)(round * PICK_ROWS + row), (uint64_t)i++) * (n))
#define ONE_OF(list) list[ANY(sizeof(list) / sizeof *(list))]
    int best = sample_argmax(u->logits + (size_t)row * (size_t)V, V);
    int n = min_int(PICK_LIST, V / 2), stride = V / n;
    for (int k = 0; k < n; k++) {
        u->id[row][k] = (best + k * stride) % V;
        u->seen[row][k] = (struct token_count){u->id[row][k], k % 4};
    }
    struct pick p = {.kind = ANY(10) ? PICK_TOKEN : PICK_LOGPROB, .also = -1};
    p.token = p.kind == PICK_LOGPROB ? ANY(V) : -1;
    p.temperature = ONE_OF(temperature);
    p.top_p = ONE_OF(top_p);
    p.min_p = ONE_OF(min_p);
    p.top_k = ONE_OF(top_k);
    p.u = rng_uniform(22, (uint64_t)row, (uint64_t)round);
    p.wants_logprob = ANY(2);
    if (ANY(3) == 0) {
        p.mask = u->mask[ANY(PICK_MASKS)];
        p.also = ANY(2) ? ANY(V) : -1;
    }
    if (ANY(4) == 0) {
        p.seen = u->seen[row];
        p.n_seen = ANY(n) + 1;
        p.presence = 0.5f;
        p.frequency = 0.25f;
        p.repetition = ANY(2) ? 1.3f : 0;
    }
    if (ANY(4) == 0) {
        p.bias_id = u->id[row];
        p.bias = u->bias;
        p.n_bias = ANY(n) + 1;
    }
    if (ANY(5) == 0) {
        p.forbidden = u->id[row];
        p.n_forbidden = ANY(n) + 1;
    }
    if (round == 0 || ANY(30) == 0) { /* then the mask wins */
        p.forbidden = u->all;
        p.n_forbidden = V;
    }
    return p;
#undef ANY
#undef ONE_OF
}

struct likely {
    double p;
    int id;
    bool kept;
};

static int by_likely(const void *a, const void *b)
{
    const struct likely *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p ? 1 : -1) : x->id - y->id;
}

static int by_id(const void *a, const void *b)
{
    return ((const struct likely *)a)->id - ((const struct likely *)b)->id;
}

/* How far u lies outside of the token's part of what the filters leave, as a share of the whole:
 * 0 if inside. Written apart from both implementations, with a sort, in double; `shift` moves
 * top-p's border. */
static double distance(struct rules *u, const float *logits, const struct pick *p, int32_t token,
                       double shift)
{
    int V = u->n_vocab, n = V;
    float *x = mem_array((size_t)V, sizeof *x), *e = mem_array((size_t)V, sizeof *e);
    struct likely *v = mem_array((size_t)V, sizeof *v);
    ASSERT(x && e && v);
    for (int forbid = 1; forbid >= 0; forbid--) {
        memcpy(x, logits, (size_t)V * sizeof *x);
        for (int i = 0; i < p->n_seen; i++) {
            float *at = &x[p->seen[i].id];
            if (p->repetition > 0)
                *at = *at > 0 ? *at / p->repetition : *at * p->repetition;
            *at -= p->frequency * (float)p->seen[i].n_out + (p->seen[i].n_out ? p->presence : 0);
        }
        for (int i = 0; i < p->n_bias; i++)
            x[p->bias_id[i]] += p->bias[i];
        for (int i = 0; forbid && i < p->n_forbidden; i++)
            x[p->forbidden[i]] = -INFINITY;
        for (int i = 0; p->mask && i < V; i++)
            if (i != p->also && !(p->mask[i / 32] >> (i % 32) & 1))
                x[i] = -INFINITY;
        if (x[sample_argmax(x, V)] > -INFINITY)
            break;
    }
    float max = x[sample_argmax(x, V)];
    double sum = 0, kept = 0, mass = 0, from = 0, to = -1, at = 0;
    for (int i = 0; i < V; i += PASS_BLOCK)
        (void)sample_pass_best()->exp(x + i, min_int(PASS_BLOCK, V - i), max, 1 / p->temperature,
                                      e + i);
    for (int i = 0; i < V; i++)
        v[i] = (struct likely){.p = (double)e[i], .id = i};
    qsort(v, (size_t)V, sizeof *v, by_likely);
    if (p->top_k > 0)
        n = min_int(n, p->top_k);
    for (int i = 0; i < n; i++)
        sum += v[i].p;
    double most = p->top_p > 0 ? (double)p->top_p * sum * (1 + shift) : 1e300;
    for (int i = 0; i < n && kept < most; i++) {
        kept += v[i].p;
        v[i].kept = v[i].p >= (double)p->min_p;
        mass += v[i].kept ? v[i].p : 0;
    }
    qsort(v, (size_t)V, sizeof *v, by_id);
    for (int i = 0; i < V; i++) {
        if (i == token && v[i].kept) {
            from = at;
            to = at + v[i].p;
        }
        at += v[i].kept ? v[i].p : 0;
    }
    mem_free(x);
    mem_free(e);
    mem_free(v);
    if (to < 0)
        return 1;
    return fmax(0, fmax(from / mass - p->u, p->u - to / mass));
}

/* Choices on the card against the processor's over the same logits: equal where nothing is drawn;
 * drawn ones differ only where u is at the border of two tokens, as the sums round differently. */
static void check_picks(struct run *r, const char *name, const int32_t *tok, int n_row, int n_round)
{
    static struct rules u;
    static int32_t all[PICK_ROWS];
    static struct pick p[PICK_ROWS], alone;
    struct batch_seq q = span(r, 0, 0, n_row, 0);
    struct batch b = {.n_row = n_row,
                      .tok = tok,
                      .n_seq = 1,
                      .seq = &q,
                      .n_logit = n_row,
                      .logit_row = all,
                      .defer = true};
    struct step_out out;
    struct err e = {0};
    size_t V = (size_t)r->n_vocab;
    int n_sure = 0, n_wrong = 0, n_drawn = 0, n_differ = 0, n_company = 0;
    double far = 0, lp_error = 0;
    rules_open(&u, r->n_vocab);
    for (int i = 0; i < n_row; i++) {
        all[i] = i;
        p[i] = (struct pick){.kind = PICK_LOGITS};
    }
    fixture_must(r->b->step(r->b, &b, &out, &e), &e);
    fixture_must(r->b->pick(r->b, p, n_row, &e), &e);
    for (int i = 0; i < n_row; i++)
        memcpy(u.logits + (size_t)i * V, p[i].logits, V * sizeof *u.logits);
    for (int round = 0; round < n_round; round++) {
        for (int i = 0; i < n_row; i++)
            p[i] = random_pick(&u, i, round);
        fixture_must(r->b->pick(r->b, p, n_row, &e), &e);
        for (int i = 0; i < n_row; i++) {
            const float *row = u.logits + (size_t)i * V;
            double lse = sample_lse(row, r->n_vocab);
            int32_t want =
                p[i].kind == PICK_LOGPROB ? p[i].token : sample_pick(row, &p[i], NULL, &u.scratch);
            bool drawn = p[i].kind == PICK_TOKEN && p[i].temperature > 0;
            n_sure += !drawn;
            n_wrong += !drawn && p[i].token != want;
            n_drawn += drawn;
            if (drawn && p[i].token != want) {
                double d = 1;
                for (int s = -1; s <= 1; s++)
                    d = fmin(d, distance(&u, row, &p[i], p[i].token, s * 4e-6));
                n_differ++;
                far = fmax(far, d);
            }
            if (p[i].kind == PICK_LOGPROB || p[i].wants_logprob)
                lp_error =
                    fmax(lp_error, fabs((double)p[i].logprob - ((double)row[p[i].token] - lse)));
        }
        /* One row among others that are not chosen from. */
        int one = round % n_row;
        alone = p[one];
        for (int i = 0; i < n_row; i++)
            p[i].kind = i == one ? alone.kind : PICK_NONE;
        fixture_must(r->b->pick(r->b, p, n_row, &e), &e);
        n_company += p[one].token != alone.token ||
                     ((alone.wants_logprob || alone.kind == PICK_LOGPROB) &&
                      memcmp(&p[one].logprob, &alone.logprob, sizeof alone.logprob) != 0);
    }
    verdict(n_wrong == 0 && n_differ <= 1 + n_drawn / 50 && far < 4e-6 && lp_error < 1e-5 &&
                n_company == 0,
            "%-18s tokens chosen on the card: %d of %d certain ones wrong; %d of %d drawn ones "
            "differ, u at most %.1e beside the border; log-probabilities within %.1e; %d depend on "
            "company",
            name, n_wrong, n_sure, n_differ, n_drawn, far, lp_error, n_company);
    rules_close(&u);
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
    status st = run_open(&cuda, w, true, 1, f.n_tok, 512, 512, &e);
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
    fixture_must(run_open(&cpu, w, false, 1, f.n_tok, 512, 512, &e), &e);
    feed(&cpu, 0, f.tok, f.n_tok, 300, ours);
    double cpu_median = row_errors(got, ours, f.n_tok, f.spec.n_vocab, &cpu_worst, &cpu_far);
    verdict(median < close_enough() && cpu_median < close_enough(),
            "%-18s against float32: median %.1e worst %.1e, %d of %d rows over 2 %%, KL %.1e; "
            "against the CPU in bf16: median %.1e worst %.1e, %d of %d, KL %.1e",
            f.name, median, worst, far, f.n_row, mean_kl(row, f.want, f.n_row, f.spec.n_vocab),
            cpu_median, cpu_worst, cpu_far, f.n_tok, mean_kl(got, ours, f.n_tok, f.spec.n_vocab));
    /* One row at a time, and in chunks of 7: the same numbers? */
    int n = min_int(f.n_tok, 200);
    feed(&cuda, 0, f.tok, n, 1, ours);
    median = row_errors(ours, got, n, f.spec.n_vocab, &worst, &far);
    verdict(same_enough(ours, got, n, f.spec.n_vocab, median),
            "%-18s row by row against chunks: median %.1e worst %.1e", f.name, median, worst);
    feed(&cuda, 0, f.tok, n, 7, ours);
    median = row_errors(ours, got, n, f.spec.n_vocab, &worst, &far);
    verdict(same_enough(ours, got, n, f.spec.n_vocab, median),
            "%-18s chunks of 7: median %.1e worst %.1e", f.name, median, worst);
    feed(&cuda, 0, f.tok, n, 40, ours);
    median = row_errors(ours, got, n, f.spec.n_vocab, &worst, &far);
    verdict(same_enough(ours, got, n, f.spec.n_vocab, median),
            "%-18s chunks of 40: median %.1e worst %.1e", f.name, median, worst);
    check_picks(&cuda, f.name, f.tok, min_int(n, PICK_ROWS), 60);
    run_close(&cpu);
    mem_free(got);
    mem_free(row);
    mem_free(ours);
out:
    run_close(&cuda);
    weights_close(w);
    fixture_free(&f);
}

/* The same rows again, in steps that two sequences share: one row of the first, 9 of the second,
 * then the other way round. Logits [2][n, n_vocab]. */
static void feed_two(struct run *r, const int32_t *tok, int n, float *first, float *second)
{
    struct err e = {0};
    float *got[2] = {first, second};
    int at[2] = {0, 0};
    for (int turn = 0; at[0] < n || at[1] < n; turn++) {
        struct batch_seq q[2];
        int32_t ids[16], rows[16];
        int m = 0, n_seq = 0, of[2] = {0, 0};
        for (int i = 0; i < 2; i++) {
            of[i] = min_int((turn + i) % 2 ? 9 : 1, n - at[i]);
            if (of[i] <= 0)
                continue;
            q[n_seq++] = span(r, i, m, of[i], at[i]);
            for (int k = 0; k < of[i]; k++, m++) {
                ids[m] = tok[at[i] + k];
                rows[m] = m;
            }
        }
        struct batch b = {
            .n_row = m, .tok = ids, .n_seq = n_seq, .seq = q, .n_logit = m, .logit_row = rows};
        struct step_out out;
        size_t V = (size_t)r->n_vocab, from = 0;
        fixture_must(r->b->step(r->b, &b, &out, &e), &e);
        for (int i = 0; i < 2; i++) {
            if (of[i] > 0)
                memcpy(got[i] + (size_t)at[i] * V, out.logits + from * V,
                       (size_t)of[i] * V * sizeof *out.logits);
            from += (size_t)max_int(of[i], 0);
            at[i] += max_int(of[i], 0);
        }
    }
}

/* The rows once more, `chunk` of them in each step between whole prompts of other sequences, so
 * that a step has up to MOST rows. */
enum { MOST = 512, OTHERS = 3 };

static void feed_among(struct run *r, const int32_t *tok, int n, int chunk, float *got)
{
    struct err e = {0};
    static int32_t ids[MOST], rows[MOST];
    size_t V = (size_t)r->n_vocab;
    int long_one = min_int(n, (MOST - chunk) / OTHERS);
    for (int p = 0; p < n; p += chunk) {
        struct batch_seq q[OTHERS + 1];
        int m = 0, own = min_int(chunk, n - p), own_row0 = 0;
        for (int i = 0; i <= OTHERS; i++) {
            bool mine = i == 1;
            int len = mine ? own : long_one;
            if (mine)
                own_row0 = m;
            q[i] = span(r, i, m, len, mine ? p : 0);
            memcpy(ids + m, tok + (mine ? p : 0), (size_t)len * sizeof *ids);
            m += len;
        }
        for (int k = 0; k < own; k++)
            rows[k] = own_row0 + k;
        struct batch b = {.n_row = m,
                          .tok = ids,
                          .n_seq = OTHERS + 1,
                          .seq = q,
                          .n_logit = own,
                          .logit_row = rows};
        struct step_out out;
        fixture_must(r->b->step(r->b, &b, &out, &e), &e);
        memcpy(got + (size_t)p * V, out.logits, (size_t)own * V * sizeof *got);
    }
}

static void check_folder(const char *dir, int n)
{
    struct err e = {0};
    struct weights *w;
    struct run cuda, cpu;
    fixture_must(weights_open(dir, false, &w, &e), &e);
    uint64_t t = clock_ns();
    fixture_must(run_open(&cuda, w, true, OTHERS + 1, n, MOST, MOST, &e), &e);
    printf("      on the card after %.2f s, %.1f GB/s\n", clock_ms_since(t) / 1e3,
           (double)w->n_bytes / clock_ms_since(t) / 1e6);
    fixture_must(run_open(&cpu, w, false, 2, n, 512, 512, &e), &e);
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
    verdict(median < close_enough(),
            "%d rows against the CPU in bf16: median %.1e worst %.1e, %d over 2 %%, KL %.1e", n,
            median, worst, far, mean_kl(a, b, n, w->spec.n_vocab));
    static const int chunk[] = {1, 7, 20, 100};
    for (int i = 0; i < 4; i++) {
        feed(&cuda, 1, tok, n, chunk[i], b);
        median = row_errors(b, a, n, w->spec.n_vocab, &worst, &far);
        verdict(same_enough(b, a, n, w->spec.n_vocab, median),
                "chunks of %d: median %.1e worst %.1e, %d over 2 %%", chunk[i], median, worst, far);
    }
    float *two = mem_array((size_t)n * V, sizeof *two);
    ASSERT(two);
    feed_two(&cuda, tok, n, b, two);
    for (int i = 0; i < 2; i++) {
        float *got = i ? two : b;
        median = row_errors(got, a, n, w->spec.n_vocab, &worst, &far);
        verdict(same_enough(got, a, n, w->spec.n_vocab, median),
                "beside another sequence: median %.1e worst %.1e, %d over 2 %%", median, worst,
                far);
    }
    static const int among[] = {1, 16, 60};
    for (int i = 0; i < 3; i++) {
        feed_among(&cuda, tok, n, among[i], b);
        median = row_errors(b, a, n, w->spec.n_vocab, &worst, &far);
        verdict(same_enough(b, a, n, w->spec.n_vocab, median),
                "chunks of %d among many rows: median %.1e worst %.1e, %d over 2 %%", among[i],
                median, worst, far);
    }
    mem_free(two);
    check_picks(&cuda, dir, tok, min_int(n, PICK_ROWS), 60);
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

/* A step and its likeliest tokens. */
static void step_greedy(struct run *r, struct batch b, struct pick *pick)
{
    struct err e = {0};
    struct step_out out;
    b.defer = true;
    fixture_must(r->b->step(r->b, &b, &out, &e), &e);
    for (int i = 0; i < b.n_logit; i++)
        pick[i] = (struct pick){.kind = PICK_TOKEN};
    fixture_must(r->b->pick(r->b, pick, b.n_logit, &e), &e);
}

static void bench_decode(struct run *r, int n_row, int depth)
{
    enum { N = 64 };
    static int32_t tok[MAX_SEQ], row[MAX_SEQ];
    static struct pick pick[MAX_SEQ];
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
                          .logit_row = row};
        uint64_t t = clock_ns();
        step_greedy(r, b, pick);
        if (k >= 0)
            ms[k] = clock_ms_since(t);
        for (int i = 0; i < n_row; i++)
            tok[i] = pick[i].token;
    }
    spread(ms, N);
    printf("decode %4d rows at %5d: %.3f / %.3f / %.3f ms, %.0f tokens/s\n", n_row, depth, ms[0],
           ms[N / 2], ms[N - 1], n_row / ms[N / 2] * 1e3);
    fflush(stdout);
}

static void bench_prefill(struct run *r, int n_seq, int n, int max_rows)
{
    enum { N = 5 };
    double ms[N];
    static int32_t tok[MAX_ROWS];
    static struct pick pick[MAX_SEQ];
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
                                      .logit_row = &at};
                    step_greedy(r, b, pick);
                }
                s++;
                continue;
            }
            struct batch b = {
                .n_row = rows, .tok = tok, .n_seq = m, .seq = q, .n_logit = m, .logit_row = last};
            step_greedy(r, b, pick);
        }
        if (k >= 0)
            ms[k] = clock_ms_since(t);
    }
    spread(ms, N);
    printf("prefill %d x %d: %.2f / %.2f / %.2f ms, %.0f tokens/s\n", n_seq, n, ms[0], ms[N / 2],
           ms[N - 1], n_seq * n / ms[N / 2] * 1e3);
    fflush(stdout);
}

/* Choosing tokens for n rows: the kernel with its way there and back, without a step. */
static void bench_pick(struct run *r, int n)
{
    enum { N = 33 };
    static const struct {
        const char *name;
        struct pick pick;
    } way[] = {
        {"greedy", {.kind = PICK_TOKEN}},
        {"greedy, log-probability", {.kind = PICK_TOKEN, .wants_logprob = true}},
        {"temperature 1", {.kind = PICK_TOKEN, .temperature = 1}},
        {"top-p 0.9", {.kind = PICK_TOKEN, .temperature = 1, .top_p = 0.9f}},
        {"top-k 40", {.kind = PICK_TOKEN, .temperature = 1, .top_k = 40}},
        {"temperature 0.7, top-p 0.9, log-probability",
         {.kind = PICK_TOKEN, .temperature = 0.7f, .top_p = 0.9f, .wants_logprob = true}},
        {"rows to the host", {.kind = PICK_LOGITS}},
    };
    static int32_t tok[MAX_SEQ], row[MAX_SEQ];
    static struct batch_seq q[MAX_SEQ];
    static struct pick pick[MAX_SEQ];
    struct err e = {0};
    for (int i = 0; i < n; i++) {
        tok[i] = (int32_t)(rng_uniform(7, 8, (uint64_t)i) * r->n_vocab);
        row[i] = i;
        q[i] = span(r, i, i, 1, 0);
    }
    struct batch b = {.n_row = n, .tok = tok, .n_seq = n, .seq = q, .n_logit = n, .logit_row = row};
    step_greedy(r, b, pick);
    for (size_t w = 0; w < sizeof way / sizeof *way; w++) {
        double us[N];
        for (int k = -3; k < N; k++) {
            for (int i = 0; i < n; i++) {
                pick[i] = way[w].pick;
                pick[i].u = rng_uniform(9, (uint64_t)k, (uint64_t)i);
            }
            uint64_t t = clock_ns();
            fixture_must(r->b->pick(r->b, pick, n, &e), &e);
            if (k >= 0)
                us[k] = clock_ms_since(t) * 1e3;
        }
        spread(us, N);
        printf("pick %4d rows, %s: %.1f / %.1f / %.1f us\n", n, way[w].name, us[0], us[N / 2],
               us[N - 1]);
    }
    fflush(stdout);
}

struct bench_case {
    char kind; /* p, t, or 0: decoding */
    int n_seq, n_pos;
};

static struct bench_case case_of(const char *text)
{
    int a = 1, b = 1;
    char kind = text[0] == 'p' || text[0] == 't' ? text[0] : 0;
    if (sscanf(text + (kind != 0), "%dx%d", &a, &b) < 1)
        fixture_must(E_INPUT, &(struct err){.msg = "a case is ROWSxDEPTH, pN, pNxM or tN"});
    return kind == 'p' ? (struct bench_case){kind, b, a} : (struct bench_case){kind, a, b + 80};
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
    fixture_must(run_open(&r, w, true, 1, (n_page - 1) * PAGE, MAX_ROWS, n_seq, &e), &e);
    double ms = clock_ms_since(t);
    printf("weights on the card after %.2f s, %.1f GB/s\n", ms / 1e3,
           (double)w->n_bytes / ms / 1e6);
    for (int i = 0; i < n; i++) {
        struct bench_case c = case_of(cases[i]);
        r.n_page = c.n_pos / PAGE + 1;
        if (c.kind == 't')
            bench_pick(&r, c.n_seq);
        else if (c.kind == 'p')
            bench_prefill(&r, c.n_seq, c.n_pos, MAX_ROWS);
        else
            bench_decode(&r, c.n_seq, c.n_pos - 80);
    }
    run_close(&r);
    weights_close(w);
}

int main(int argc, char **argv)
{
    int64_t n = 128, number;
    for (; argc > 1; argc--, argv++)
        if (strcmp(argv[1], "--deterministic") == 0)
            card_opts.deterministic = true;
        else if (argc > 2 && strcmp(argv[1], "--dense") == 0 && strcmp(argv[2], "q8") == 0)
            card_opts.dense = DENSE_Q8, argc--, argv++;
        else if (argc > 2 && strcmp(argv[1], "--arith") == 0 && strcmp(argv[2], "fp8") == 0)
            card_opts.arith = ARITH_FP8, argc--, argv++;
        else if (argc > 2 && strcmp(argv[1], "--kv") == 0 && strcmp(argv[2], "fp8") == 0)
            card_opts.kv = KV_FP8, argc--, argv++;
        else if (argc > 2 && strcmp(argv[1], "--n-cpu-moe") == 0 &&
                 num_i64(argv[2], 0, 1024, &number) == OK)
            card_opts.n_cpu_moe = (int)number, argc--, argv++;
        else if (argc > 2 && strcmp(argv[1], "--gpu-memory-gb") == 0 &&
                 num_i64(argv[2], 1, 1024, &number) == OK) {
            card_opts.card_bytes = (uint64_t)number * 1000000000;
            card_opts.n_cpu_moe = -1;
            argc--, argv++;
        } else
            break;
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
