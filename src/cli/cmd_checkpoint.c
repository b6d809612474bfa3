/* gloss synth and gloss quantize: checkpoints made from nothing and from others. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static int on_progress(void *ctx, int64_t done, int64_t total)
{
    progress_show(ctx, done, total);
    return cli_stopped();
}

status cmd_synth(struct conf *c, struct err *e)
{
    struct gloss_synth_opts o = GLOSS_INIT(struct gloss_synth_opts);
    struct progress bar;
    o.like = conf_str(c, "like");
    o.n_layer = (int)conf_int(c, "layers");
    o.n_expert = (int)conf_int(c, "experts");
    o.d_model = (int)conf_int(c, "hidden");
    o.d_ff = (int)conf_int(c, "intermediate");
    o.n_head = (int)conf_int(c, "heads");
    o.n_kv_head = (int)conf_int(c, "kv-heads");
    o.n_vocab = (int)conf_int(c, "vocab");
    o.original = strcmp(conf_str(c, "layout"), "original") == 0;
    o.bf16 = conf_on(c, "bf16");
    o.seed = (uint64_t)conf_int(c, "seed");
    o.progress = on_progress;
    o.ctx = &bar;
    progress_begin(&bar, c, "writing");
    cli_catch_signals();
    status st = gloss_synth(conf_str(c, "out"), &o, pub(e));
    progress_end(&bar);
    return st;
}

/* ---- quantize ---- */

struct report {
    struct buf text;
    bool json;
    int n;
};

static int on_tensor(void *ctx, const struct gloss_quant_report *r)
{
    struct report *rep = ctx;
    struct buf *b = &rep->text;
    if (rep->json) {
        buf_puts(b, rep->n ? ",{\"tensor\":" : "{\"tensor\":");
        json_quote(b, r->tensor, strlen(r->tensor));
        buf_puts(b, ",\"rel_rmse\":");
        json_put_num(b, r->rel_rmse);
        buf_puts(b, ",\"max_abs\":");
        json_put_num(b, r->max_abs);
        buf_printf(b, ",\"saturated\":%lld}", (long long)r->n_saturated);
    } else {
        if (rep->n == 0)
            buf_printf(b, "%-56s %10s %10s %10s\n", "tensor", "rel. RMSE", "largest", "clipped");
        buf_printf(b, "%-56s %10.3e %10.3e %10lld\n", r->tensor, r->rel_rmse, r->max_abs,
                   (long long)r->n_saturated);
    }
    rep->n++;
    return cli_stopped();
}

status cmd_quantize(struct conf *c, struct err *e)
{
    static const int rules[] = {GLOSS_SCALE_ROUNDUP, GLOSS_SCALE_OCP, GLOSS_SCALE_SEARCH};
    struct gloss_quant_opts o = GLOSS_INIT(struct gloss_quant_opts);
    struct report rep = {.json = conf_on(c, "json")};
    const struct conf_val *rule = conf_get(c, "scale-rule");
    char path[4096];
    buf_init(&rep.text, 64 << 20);
    o.method = conf_get(c, "quantization-method")->i == 0 ? GLOSS_QUANT_MXFP4 : GLOSS_QUANT_BF16;
    o.scale_rule = rule->source == CONF_UNSET ? GLOSS_SCALE_DEFAULT : rules[rule->i];
    o.report = on_tensor;
    o.ctx = &rep;
    if (rep.json)
        buf_puts(&rep.text, "{\"tensors\":[");
    status st = OK;
    TRY(cli_find_model(conf_str(c, "model-id"), path, sizeof path, e));
    cli_catch_signals();
    TRY(gloss_quantize(path, conf_str(c, "output-dir"), &o, pub(e)));
    if (rep.json)
        buf_puts(&rep.text, "]}\n");
    TRY(out_buf(&rep.text, e));
out:
    buf_fini(&rep.text);
    return st;
}
