/* gloss info: what a model is and what it needs. */
#include "cli/cli.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A window layer keeps the window and the pages that are being left behind. */
enum { WINDOW_SLACK = 128 };

/* What fits into some memory. */
struct plan {
    int64_t ctx, parallel;
    double memory, weights, cache; /* bytes */
    bool fits;
    int64_t most_ctx, most_parallel; /* 0: not even one */
};

static double cache_of(const struct gloss_info *in, double ctx)
{
    double window = fmin(ctx, in->window + WINDOW_SLACK);
    return ctx * (double)in->kv_bytes_full + window * (double)in->kv_bytes_window;
}

static void make_plan(struct plan *p, const struct gloss_info *in)
{
    double room = p->memory - p->weights;
    p->cache = (double)p->parallel * cache_of(in, (double)p->ctx);
    p->fits = p->cache <= room;
    double each = cache_of(in, (double)p->ctx);
    p->most_parallel = room > 0 && each > 0 ? (int64_t)(room / each) : 0;
    /* the cache grows with the context: halve the interval until it is one token wide */
    int64_t lo = 0, hi = in->n_ctx;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo + 1) / 2;
        if ((double)p->parallel * cache_of(in, (double)mid) <= room)
            lo = mid;
        else
            hi = mid - 1;
    }
    p->most_ctx = lo;
}

static int usable_threads(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                       : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static void print_json(struct buf *b, const struct gloss_info *in, const struct plan *p)
{
    buf_printf(b, "{\"model\":");
    json_quote(b, in->name, strlen(in->name));
    buf_printf(b,
               ",\"shape\":{\"layers\":%d,\"sliding_layers\":%d,\"window\":%d,\"experts\":%d,"
               "\"active_experts\":%d,\"hidden\":%d,\"intermediate\":%d,\"heads\":%d,"
               "\"kv_heads\":%d,\"head_dim\":%d,\"vocab\":%d,\"context\":%d}",
               in->n_layer, in->n_sliding, in->window, in->n_expert, in->n_active, in->d_model,
               in->d_ff, in->n_head, in->n_kv_head, in->d_head, in->n_vocab, in->n_ctx);
    buf_printf(b, ",\"tokenizer\":%s", in->has_tokenizer ? "true" : "false");
    buf_printf(b, ",\"parameters\":{\"total\":%lld,\"active\":%lld}", (long long)in->n_param,
               (long long)in->n_param_active);
    buf_printf(b, ",\"bytes\":{\"total\":%lld,\"experts\":%lld,\"dense\":%lld,\"embeddings\":%lld}",
               (long long)in->bytes_total, (long long)in->bytes_expert, (long long)in->bytes_dense,
               (long long)in->bytes_embed);
    buf_printf(b, ",\"kv_bytes_per_token\":{\"full_layers\":%lld,\"window_layers\":%lld}",
               (long long)in->kv_bytes_full, (long long)in->kv_bytes_window);
    buf_puts(b, ",\"cpu\":{\"instruction_set\":");
    json_quote(b, gloss_cpu(), strlen(gloss_cpu()));
    buf_printf(b, ",\"threads\":%d},\"deterministic\":true", usable_threads());
    buf_printf(b,
               ",\"plan\":{\"ctx_size\":%lld,\"parallel\":%lld,\"memory_bytes\":%.0f,"
               "\"weights_bytes\":%.0f,\"cache_bytes\":%.0f,\"fits\":%s,\"most_ctx_size\":%lld,"
               "\"most_parallel\":%lld}}\n",
               (long long)p->ctx, (long long)p->parallel, p->memory, p->weights, p->cache,
               p->fits ? "true" : "false", (long long)p->most_ctx, (long long)p->most_parallel);
}

/* "13.8 GB" with a unit that keeps the number short. */
static const char *bytes_text(char out[32], double v)
{
    const char *unit = v >= 1e9 ? "GB" : v >= 1e6 ? "MB" : v >= 1e3 ? "KB" : "B";
    double by = v >= 1e9 ? 1e9 : v >= 1e6 ? 1e6 : v >= 1e3 ? 1e3 : 1;
    snprintf(out, 32, by > 1 ? "%.1f %s" : "%.0f %s", v / by, unit);
    return out;
}

static const char *count_text(char out[32], int64_t v)
{
    double x = (double)v;
    snprintf(out, 32, "%.2f %s", x >= 1e9 ? x * 1e-9 : x * 1e-6, x >= 1e9 ? "billion" : "million");
    return out;
}

static void print_text(struct buf *b, const struct gloss_info *in, const struct plan *p)
{
    char s[32], t[32], u[32];
    buf_printf(b, "model         %s%s\n", in->name, in->has_tokenizer ? "" : " (no tokenizer)");
    buf_printf(b, "parameters    %s, %s active for each token\n", count_text(s, in->n_param),
               count_text(t, in->n_param_active));
    buf_printf(b, "layers        %d, of them %d with a window of %d tokens\n", in->n_layer,
               in->n_sliding, in->window);
    buf_printf(b, "width         %d; %d heads of %d over %d key-value heads\n", in->d_model,
               in->n_head, in->d_head, in->n_kv_head);
    buf_printf(b, "experts       %d of width %d in each layer, %d chosen for each token\n",
               in->n_expert, in->d_ff, in->n_active);
    buf_printf(b, "vocabulary    %d tokens\n", in->n_vocab);
    buf_printf(b, "context       %d tokens\n", in->n_ctx);
    buf_printf(b, "weights       %s: experts %s, ", bytes_text(s, (double)in->bytes_total),
               bytes_text(t, (double)in->bytes_expert));
    buf_printf(b, "dense %s, embeddings %s\n", bytes_text(s, (double)in->bytes_dense),
               bytes_text(t, (double)in->bytes_embed));
    buf_printf(b, "cache         %s for each token, and %s within the window\n",
               bytes_text(s, (double)in->kv_bytes_full),
               bytes_text(t, (double)in->kv_bytes_window));
    buf_printf(b,
               "processor     %s kernels, %d threads; results do not depend on what runs "
               "beside them\n",
               gloss_cpu(), usable_threads());
    buf_printf(b, "plan          %lld x %lld tokens: weights %s + cache %s ",
               (long long)p->parallel, (long long)p->ctx, bytes_text(s, p->weights),
               bytes_text(t, p->cache));
    buf_printf(b, "%s in %s\n", p->fits ? "fit" : "do not fit", bytes_text(u, p->memory));
    if (p->most_parallel > 0 || p->most_ctx > 0)
        buf_printf(b,
                   "at most       %lld tokens for %lld at once, or %lld at once of %lld tokens\n",
                   (long long)p->most_ctx, (long long)p->parallel, (long long)p->most_parallel,
                   (long long)p->ctx);
}

status cmd_info(struct conf *c, struct err *e)
{
    gloss_model *m = NULL;
    status st = cli_open_model(c, false, &m, e);
    if (st < 0)
        return st;
    struct gloss_info in;
    gloss_model_info(m, &in);
    struct plan p = {
        .ctx = conf_given(c, "ctx-size") ? conf_int(c, "ctx-size") : in.n_ctx,
        .parallel = conf_int(c, "parallel"),
        .memory = conf_given(c, "memory-gb") ? conf_num(c, "memory-gb") * 1e9 : input_free_memory(),
        .weights = (double)in.bytes_total,
    };
    make_plan(&p, &in);
    struct buf b;
    buf_init(&b, 1 << 16);
    if (conf_on(c, "json"))
        print_json(&b, &in, &p);
    else
        print_text(&b, &in, &p);
    st = out_buf(&b, e);
    buf_fini(&b);
    gloss_model_close(m);
    return st;
}
