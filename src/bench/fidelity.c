/* How far each way to compute is from float32 over a text, after the whole model or its first
 * layers: divergence of the next-token distributions, agreement of the likeliest token, error of
 * the logits.
 *
 * The rows of float32 are kept, those of the others are compared as they come; so the memory is one
 * table of logits, and the number of tokens is bounded by it.
 */
#include "base/mem.h"
#include "base/num.h"
#include "bench/bench.h"

#include <math.h>
#include <string.h>

enum { MAX_TABLE_BYTES = 1 << 30 };

static const char columns[] = "model cpu arith dense kv_cache layers tokens kl_mean kl_max "
                              "top1_agreement logit_rms_error row_error_median";

static const char sample_text[] =
    "The lighthouse keeper wrote every evening what he had seen: ships by name when he knew them, "
    "the "
    "wind by its quarter, the sea in a word or two. In forty years he missed nine evenings. When "
    "the "
    "lamp was changed for one that needs nobody, the town asked him for the books, and he said "
    "that "
    "they were not finished, since he could still see the water from where he now lived.\n"
    "A count of the entries gives 14,601 days. On 3,212 of them there was fog, and 127 + 385 = 512 "
    "ships asked for the pilot. The longest entry is about a bird; the shortest says: calm.\n";

status fidelity_columns(struct sheet *s, struct err *e)
{
    return sheet_init(s, columns, e);
}

struct fidelity {
    float *want; /* [n, n_vocab] of float32 */
    int n_vocab, n, i;
    int n_layer; /* of the model's first layers, 0: all */
    bool fill;   /* the rows that come are float32's */
    double kl, kl_max, error, power;
    struct series row; /* relative rms error of each row */
    int n_same;
};

/* log of the sum of exponentials. */
static double log_sum(const float *v, int n, int *best)
{
    double sum = 0;
    *best = 0;
    for (int i = 1; i < n; i++)
        *best = v[i] > v[*best] ? i : *best;
    for (int i = 0; i < n; i++)
        sum += exp((double)v[i] - (double)v[*best]);
    return log(sum) + (double)v[*best];
}

static gloss_status take_row(void *ctx, const float *logits, int n_vocab)
{
    struct fidelity *f = ctx;
    float *want = f->want + (size_t)f->i++ * (size_t)n_vocab;
    if (f->fill) {
        memcpy(want, logits, (size_t)n_vocab * sizeof *want);
        return GLOSS_OK;
    }
    int best, best_want;
    double log_q = log_sum(logits, n_vocab, &best), log_p = log_sum(want, n_vocab, &best_want);
    double kl = 0, error = 0, power = 0;
    for (int i = 0; i < n_vocab; i++) {
        double p = (double)want[i] - log_p, q = (double)logits[i] - log_q;
        double d = (double)logits[i] - (double)want[i];
        kl += exp(p) * (p - q);
        error += d * d;
        power += (double)want[i] * (double)want[i];
    }
    f->error += error;
    f->power += power;
    series_put(&f->row, sqrt(error / power));
    kl = kl > 0 ? kl : 0; /* rounding of a sum whose parts cancel */
    f->kl += kl;
    f->kl_max = kl > f->kl_max ? kl : f->kl_max;
    f->n_same += best == best_want;
    return GLOSS_OK;
}

/* A way to compute, by its options' names. */
struct way {
    const char *arith, *dense, *kv;
    int i_arith, i_dense, i_kv;
};

static status pass(struct bench *b, gloss_model *m, struct fidelity *f, const struct way *w,
                   const int32_t *ids, struct err *e)
{
    struct gloss_engine_opts o = b->engine;
    gloss_engine *g = NULL;
    status st = OK;
    o.arith = w->i_arith;
    o.dense = w->i_dense;
    o.kv = w->i_kv;
    o.n_ctx = f->n;
    o.max_requests = 1;
    o.no_prefix_cache = 1;
    o.no_dense_cache = o.no_dense_cache || f->n_layer > 0;
    f->i = f->n_same = 0;
    f->kl = f->kl_max = f->error = f->power = 0;
    series_clear(&f->row);
    TRY(gloss_engine_new(m, &o, &g, bench_err(e)));
    TRY(gloss_logits(g, ids, (size_t)f->n, 0, 0, take_row, f, bench_err(e)));
    TRY(b->check_stop(e));
out:
    gloss_engine_free(g);
    return st;
}

/* Every way beside float32, of the whole model or its first f->n_layer layers. A way that the
 * device does not have is left out. */
static status compare(struct bench *b, gloss_model *m, struct fidelity *f, const int32_t *ids,
                      struct sheet *s, struct err *e)
{
    static const struct way ways[] = {
        {"f32", "auto", "float32", GLOSS_ARITH_F32, GLOSS_DENSE_AUTO, GLOSS_KV_F32},
        {"f32", "auto", "q8", GLOSS_ARITH_F32, GLOSS_DENSE_AUTO, GLOSS_KV_Q8},
        {"bf16", "auto", "bfloat16", GLOSS_ARITH_BF16, GLOSS_DENSE_AUTO, GLOSS_KV_BF16},
        {"bf16", "auto", "q8", GLOSS_ARITH_BF16, GLOSS_DENSE_AUTO, GLOSS_KV_Q8},
        {"bf16", "q8", "bfloat16", GLOSS_ARITH_BF16, GLOSS_DENSE_Q8, GLOSS_KV_BF16},
        {"q8", "q8", "bfloat16", GLOSS_ARITH_Q8, GLOSS_DENSE_AUTO, GLOSS_KV_BF16},
        {"q8", "q8", "q8", GLOSS_ARITH_Q8, GLOSS_DENSE_AUTO, GLOSS_KV_Q8},
    };
    status st = OK;
    int n_layer = f->n_layer > 0 ? f->n_layer : b->info.n_layer;
    f->fill = true;
    TRY(pass(b, m, f, &ways[0], ids, e));
    f->fill = false;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct way *w = &ways[i];
        st = pass(b, m, f, w, ids, e);
        if (i > 0 && st == E_INPUT) {
            st = OK;
            continue;
        }
        TRY(st);
        bench_say(b, "%s, dense %s, cache %s, %d layers, %d tokens", w->arith, w->dense, w->kv,
                  n_layer, f->n);
        sheet_row(s);
        sheet_text(s, "model", b->name);
        sheet_text(s, "cpu", gloss_cpu());
        sheet_text(s, "arith", w->arith);
        sheet_text(s, "dense", w->dense);
        sheet_text(s, "kv_cache", w->kv);
        sheet_int(s, "layers", n_layer);
        sheet_int(s, "tokens", f->n);
        sheet_num(s, "kl_mean", f->kl / f->n);
        sheet_num(s, "kl_max", f->kl_max);
        sheet_num(s, "top1_agreement", (double)f->n_same / f->n);
        sheet_num(s, "logit_rms_error", sqrt(f->error / f->power));
        sheet_num(s, "row_error_median", series_median(&f->row));
        TRY(sheet_end_row(s, e));
    }
out:
    return st;
}

/* The model's first layers alone. */
static status compare_first(struct bench *b, struct fidelity *f, int n_layer, const int32_t *ids,
                            struct sheet *s, struct err *e)
{
    struct gloss_model_opts o = GLOSS_INIT(struct gloss_model_opts);
    gloss_model *m = NULL;
    status st = OK;
    o.n_layer = n_layer;
    f->n_layer = n_layer;
    TRY(gloss_model_open(b->path, &o, &m, bench_err(e)));
    TRY(compare(b, m, f, ids, s, e));
out:
    gloss_model_close(m);
    f->n_layer = 0;
    return st;
}

status fidelity_run(struct bench *b, const struct fidelity_opts *o, struct sheet *s, struct err *e)
{
    struct fidelity f = {.n_vocab = b->info.n_vocab};
    const char *text = o->text ? o->text : sample_text;
    int32_t *ids = NULL;
    size_t n = 0, bytes;
    status st = OK;
    TRY(gloss_encode(b->model, text, o->text ? o->n_text : sizeof sample_text - 1,
                     GLOSS_SPECIAL_TEXT, &ids, &n, bench_err(e)));
    n = n < (size_t)o->n_token ? n : (size_t)o->n_token;
    if (n == 0)
        TRY(err_set(e, E_INPUT, "the text is empty: at least one token is needed"));
    if (!mul_ok(n, (size_t)f.n_vocab * sizeof *f.want, &bytes) || bytes > MAX_TABLE_BYTES)
        TRY(err_set(e, E_LIMIT,
                    "the logits of %zu tokens take more than %d MiB: fewer --num-tokens", n,
                    MAX_TABLE_BYTES >> 20));
    f.n = (int)n;
    f.want = mem_array(n * (size_t)f.n_vocab, sizeof *f.want);
    if (!f.want)
        TRY(err_set(e, E_NOMEM, "out of memory for the logits of %zu tokens", n));
    for (int i = 0; i < o->layers.n; i++)
        TRY(compare_first(b, &f, o->layers.v[i], ids, s, e));
    if (o->layers.n == 0)
        TRY(compare(b, b->model, &f, ids, s, e));
out:
    gloss_free(ids);
    series_fini(&f.row);
    mem_free(f.want);
    return st;
}
