/* What tokens cost in energy: the study's energy program.
 *
 * For each context: the card's draw at rest; one generation of a single token, charged with the
 * mean of the draw before and after it; then n_run whole generations (and more until min_s are
 * over), over which the draw is sampled. The prompt is raw text. The study's columns are those of a
 * card and come from samples; ours, behind them, are the counters of card and processor over the
 * same span. A cell without a source is empty.
 */
#include "bench/bench.h"
#include "bench/probe.h"
#include "bench/quantile.h"

#include <string.h>

static const char columns[] =
    "model device gpu_index context_length gen_tokens num_runs ttft_ms ttft_joules "
    "decode_tokens_per_second total_tokens_per_second avg_gpu_power_watts "
    "baseline_gpu_power_watts avg_gpu_utilization_percent avg_memory_utilization_percent "
    "baseline_gpu_utilization_percent baseline_memory_utilization_percent "
    "energy_per_decoded_token_joules energy_per_1k_decoded_tokens_joules "
    "energy_per_total_token_joules "
    /* ours */
    "wh_per_1k_decoded_tokens power_source power_samples span_seconds gpu_sampled_joules "
    "gpu_counter_joules counter_energy_per_1k_decoded_tokens_joules "
    "counter_to_sampled_ratio cpu_joules cpu_power_watts cpu_energy_per_1k_decoded_tokens_joules";

status energy_columns(struct sheet *s, struct err *e)
{
    return sheet_init(s, columns, e);
}

struct cell {
    struct power_now rest;
    double ttft_ms, ttft_j;
    struct power_span span;
    struct series ms, tokens;
};

/* One token, and the energy of its time. */
static status first_token(struct probe *p, struct power *power, struct cell *c, struct err *e)
{
    struct power_now before, after;
    struct gloss_params one = probe_params(1);
    struct shot shot;
    power_read(power, &before);
    status st = probe_shoot(p, &one, NULL, &shot, e);
    power_read(power, &after);
    c->ttft_ms = shot.total_ms;
    c->ttft_j = (before.gpu_w + after.gpu_w) / 2 * shot.total_ms * 1e-3;
    return st;
}

static status decode(struct probe *p, struct power *power, const struct energy_opts *o,
                     struct cell *c, struct err *e)
{
    struct gloss_params whole = probe_params(o->n_gen);
    struct shot shot;
    double s = 0;
    status st = power_span_begin(power, o->hz, e);
    if (st < 0)
        return st;
    for (int i = 0; st == OK && (i < o->n_run || s < o->min_s); i++) {
        st = probe_shoot(p, &whole, NULL, &shot, e);
        series_put(&c->ms, shot.total_ms);
        series_put(&c->tokens, shot.n_token);
        s += shot.total_ms * 1e-3;
    }
    power_span_end(power, &c->span);
    return st;
}

static void put_row(struct sheet *s, const struct bench *b, struct power *power,
                    const struct cell *c, const char *device, int n_context, int n_gen)
{
    const struct power_span *span = &c->span;
    double tokens = series_mean(&c->tokens), t = series_mean(&c->ms) * 1e-3, n = (double)c->ms.n;
    double per_token = span->gpu_w * t / tokens, all = tokens * n;
    sheet_row(s);
    sheet_text(s, "model", b->name);
    sheet_text(s, "device", device);
    if (b->power.i_gpu >= 0)
        sheet_int(s, "gpu_index", b->power.i_gpu);
    sheet_int(s, "context_length", n_context);
    sheet_int(s, "gen_tokens", n_gen);
    sheet_num(s, "num_runs", n);
    sheet_num(s, "ttft_ms", c->ttft_ms);
    sheet_num(s, "ttft_joules", c->ttft_j);
    sheet_num(s, "decode_tokens_per_second", tokens / t);
    sheet_num(s, "total_tokens_per_second", (n_context + tokens) / t);
    sheet_num(s, "avg_gpu_power_watts", span->gpu_w);
    sheet_num(s, "baseline_gpu_power_watts", c->rest.gpu_w);
    sheet_num(s, "avg_gpu_utilization_percent", span->gpu_util);
    sheet_num(s, "avg_memory_utilization_percent", span->mem_util);
    sheet_num(s, "baseline_gpu_utilization_percent", c->rest.gpu_util);
    sheet_num(s, "baseline_memory_utilization_percent", c->rest.mem_util);
    sheet_num(s, "energy_per_decoded_token_joules", per_token);
    sheet_num(s, "energy_per_1k_decoded_tokens_joules", per_token * 1e3);
    sheet_num(s, "energy_per_total_token_joules", span->gpu_w * t / (n_context + tokens));
    sheet_num(s, "wh_per_1k_decoded_tokens", per_token * 1e3 / 3600);
    sheet_text(s, "power_source", power_source(power));
    sheet_int(s, "power_samples", span->n_sample);
    sheet_num(s, "span_seconds", span->s);
    sheet_num(s, "gpu_sampled_joules", span->gpu_sampled_j);
    sheet_num(s, "gpu_counter_joules", span->gpu_counter_j);
    sheet_num(s, "counter_energy_per_1k_decoded_tokens_joules", span->gpu_counter_j / all * 1e3);
    sheet_num(s, "counter_to_sampled_ratio", span->gpu_counter_j / span->gpu_sampled_j);
    sheet_num(s, "cpu_joules", span->cpu_j);
    sheet_num(s, "cpu_power_watts", span->cpu_j / span->s);
    sheet_num(s, "cpu_energy_per_1k_decoded_tokens_joules", span->cpu_j / all * 1e3);
}

static status measure(struct probe *p, struct power *power, const struct energy_opts *o,
                      int n_context, struct sheet *s, struct err *e)
{
    struct cell c = {0};
    struct gloss_stats stats = GLOSS_INIT(struct gloss_stats);
    status st = OK;
    TRY(probe_context(p, n_context, true, e));
    power_read(power, &c.rest);
    TRY(probe_warm_up(p, e));
    TRY(first_token(p, power, &c, e));
    TRY(decode(p, power, o, &c, e));
    gloss_engine_stats(p->g, &stats);
    put_row(s, p->b, power, &c, stats.device, n_context, o->n_gen);
    TRY(sheet_end_row(s, e));
out:
    series_fini(&c.ms);
    series_fini(&c.tokens);
    return st;
}

status energy_run(struct bench *b, const struct energy_opts *o, struct sheet *s, struct err *e)
{
    struct probe p = {0};
    struct power *power = NULL;
    struct gloss_stats stats = GLOSS_INIT(struct gloss_stats);
    int most = 0;
    status st = OK;
    for (int i = 0; i < o->context.n; i++)
        most = o->context.v[i] > most ? o->context.v[i] : most;
    TRY(probe_open(&p, b, most + o->n_gen, e));
    gloss_engine_stats(p.g, &stats);
    if (b->card_if_used && strcmp(stats.device, "cuda") != 0)
        b->power.i_gpu = -1; /* it would only be heard idling */
    TRY(power_open(&b->power, &power, e));
    bench_say(b, "power from: %s", power_source(power));
    for (int i = 0; i < o->context.n; i++) {
        int n = o->context.v[i];
        bench_say(b, "energy %d of %d: %d tokens in, %d out", i + 1, o->context.n, n, o->n_gen);
        if (sheet_find2(s, "context_length", n, "gen_tokens", o->n_gen) < 0)
            TRY(measure(&p, power, o, n, s, e));
    }
out:
    probe_close(&p);
    power_close(power);
    return st;
}
