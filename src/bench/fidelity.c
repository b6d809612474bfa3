/* How far each arithmetic is from float32 over a text: divergence of the next-token distributions,
 * agreement of the likeliest token, error of the logits.
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

static const char columns[] =
    "model cpu arith tokens kl_mean kl_max top1_agreement logit_rms_error";

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
    bool fill; /* the rows that come are float32's */
    double kl, kl_max, error, power;
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
    double kl = 0;
    for (int i = 0; i < n_vocab; i++) {
        double p = (double)want[i] - log_p, q = (double)logits[i] - log_q;
        double d = (double)logits[i] - (double)want[i];
        kl += exp(p) * (p - q);
        f->error += d * d;
        f->power += (double)want[i] * (double)want[i];
    }
    kl = kl > 0 ? kl : 0; /* rounding of a sum whose parts cancel */
    f->kl += kl;
    f->kl_max = kl > f->kl_max ? kl : f->kl_max;
    f->n_same += best == best_want;
    return GLOSS_OK;
}

static status pass(struct bench *b, struct fidelity *f, int arith, const int32_t *ids,
                   struct err *e)
{
    struct gloss_engine_opts o = b->engine;
    gloss_engine *g = NULL;
    status st = OK;
    o.arith = arith;
    o.n_ctx = f->n;
    o.max_requests = 1;
    o.no_prefix_cache = 1;
    f->i = f->n_same = 0;
    f->kl = f->kl_max = f->error = f->power = 0;
    TRY(gloss_engine_new(b->model, &o, &g, bench_err(e)));
    TRY(gloss_logits(g, ids, (size_t)f->n, 0, 0, take_row, f, bench_err(e)));
    TRY(b->check_stop(e));
out:
    gloss_engine_free(g);
    return st;
}

status fidelity_run(struct bench *b, const struct fidelity_opts *o, struct sheet *s, struct err *e)
{
    static const struct {
        const char *name;
        int arith;
    } kinds[] = {{"f32", GLOSS_ARITH_F32}, {"bf16", GLOSS_ARITH_BF16}, {"q8", GLOSS_ARITH_Q8}};
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
    f.fill = true;
    TRY(pass(b, &f, GLOSS_ARITH_F32, ids, e));
    f.fill = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bench_say(b, "%s over %d tokens", kinds[i].name, f.n);
        TRY(pass(b, &f, kinds[i].arith, ids, e));
        sheet_row(s);
        sheet_text(s, "model", b->name);
        sheet_text(s, "cpu", gloss_cpu());
        sheet_text(s, "arith", kinds[i].name);
        sheet_int(s, "tokens", f.n);
        sheet_num(s, "kl_mean", f.kl / f.n);
        sheet_num(s, "kl_max", f.kl_max);
        sheet_num(s, "top1_agreement", (double)f.n_same / f.n);
        sheet_num(s, "logit_rms_error", sqrt(f.error / f.power));
        TRY(sheet_end_row(s, e));
    }
out:
    gloss_free(ids);
    mem_free(f.want);
    return st;
}
