/* How long answers take: the study's latency program.
 *
 * For each pair of prompt and answer length: warm-up, n_request whole generations, then five of one
 * token alone, whose median is the time to the first token. TPOT_tokps is what the study calls so:
 * generated tokens over the whole time of the request, the prompt included.
 */
#include "bench/bench.h"
#include "bench/probe.h"
#include "bench/quantile.h"

#include <math.h>

enum { TTFT_RUNS = 5 };

static const char columns[] = "model model_type prompt_tokens gen_tokens TTFT_ms p50_ms p95_ms "
                              "p99_ms TPOT_tokps";
/* ours: the standard percentiles, the token rate behind the first token, and when thinking and
 * answering began */
static const char extended_columns[] =
    "decode_only_tokps tpot_ms std_p50_ms std_p95_ms std_p99_ms mean_ms std_dev_ms min_ms max_ms "
    "itl_p50_ms itl_p99_ms ttft_first_token_ms ttft_first_reasoning_ms ttft_first_final_ms "
    "mean_new_tokens requests";

status latency_columns(struct sheet *s, bool extended, struct err *e)
{
    status st = sheet_init(s, columns, e);
    return st == OK && extended ? sheet_add_columns(s, extended_columns, e) : st;
}

/* What the requests of one cell gave. */
struct cell {
    struct series total, rate, ttft, decode_rate, tpot, itl, first, reasoning, final, tokens;
};

static void cell_fini(struct cell *c)
{
    struct series *all[] = {&c->total, &c->rate,  &c->ttft,      &c->decode_rate, &c->tpot,
                            &c->itl,   &c->first, &c->reasoning, &c->final,       &c->tokens};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        series_fini(all[i]);
}

static void put_shot(struct cell *c, const struct probe *p, const struct shot *s)
{
    series_put(&c->total, s->total_ms);
    series_put(&c->rate, s->n_token / s->total_ms * 1e3);
    series_put(&c->tokens, s->n_token);
    if (!isnan(s->ttft_ms))
        series_put(&c->first, s->ttft_ms);
    if (!isnan(s->reasoning_ms))
        series_put(&c->reasoning, s->reasoning_ms);
    if (!isnan(s->final_ms))
        series_put(&c->final, s->final_ms);
    if (s->n_token > 1) {
        double ms = (double)(p->t_ns[s->n_token - 1] - p->t_ns[0]) * 1e-6;
        series_put(&c->tpot, ms / (s->n_token - 1));
        series_put(&c->decode_rate, (s->n_token - 1) / ms * 1e3);
    }
    for (int i = 1; i < s->n_token; i++)
        series_put(&c->itl, (double)(p->t_ns[i] - p->t_ns[i - 1]) * 1e-6);
}

static void put_row(struct sheet *s, struct cell *c, const struct probe *p, int n_prompt, int n_gen,
                    bool extended)
{
    sheet_row(s);
    sheet_text(s, "model", p->b->name);
    sheet_text(s, "model_type", probe_type(p));
    sheet_int(s, "prompt_tokens", n_prompt);
    sheet_int(s, "gen_tokens", n_gen);
    sheet_num(s, "TTFT_ms", series_median(&c->ttft));
    sheet_num(s, "p50_ms", series_median(&c->total));
    sheet_num(s, "p95_ms", series_ceil(&c->total, 0.95));
    sheet_num(s, "p99_ms", series_ceil(&c->total, 0.99));
    sheet_num(s, "TPOT_tokps", series_median(&c->rate));
    if (!extended)
        return;
    sheet_num(s, "decode_only_tokps", series_median(&c->decode_rate));
    sheet_num(s, "tpot_ms", series_median(&c->tpot));
    sheet_num(s, "std_p50_ms", series_linear(&c->total, 0.5));
    sheet_num(s, "std_p95_ms", series_linear(&c->total, 0.95));
    sheet_num(s, "std_p99_ms", series_linear(&c->total, 0.99));
    sheet_num(s, "mean_ms", series_mean(&c->total));
    sheet_num(s, "std_dev_ms", series_std(&c->total));
    sheet_num(s, "min_ms", series_linear(&c->total, 0));
    sheet_num(s, "max_ms", series_linear(&c->total, 1));
    sheet_num(s, "itl_p50_ms", series_linear(&c->itl, 0.5));
    sheet_num(s, "itl_p99_ms", series_linear(&c->itl, 0.99));
    sheet_num(s, "ttft_first_token_ms", series_median(&c->first));
    sheet_num(s, "ttft_first_reasoning_ms", series_median(&c->reasoning));
    sheet_num(s, "ttft_first_final_ms", series_median(&c->final));
    sheet_num(s, "mean_new_tokens", series_mean(&c->tokens));
    sheet_int(s, "requests", (int64_t)c->total.n);
}

static status measure(struct probe *p, const struct latency_opts *o, int n_prompt, int n_gen,
                      struct sheet *s, struct err *e)
{
    struct cell c = {0};
    struct shot shot;
    struct gloss_params whole = probe_params(n_gen), one = probe_params(1);
    status st = OK;
    TRY(probe_context(p, n_prompt, false, e));
    TRY(probe_warm_up(p, e));
    for (int i = 0; i < o->n_request; i++) {
        TRY(probe_shoot(p, &whole, NULL, &shot, e));
        put_shot(&c, p, &shot);
    }
    for (int i = 0; i < TTFT_RUNS; i++) {
        TRY(probe_shoot(p, &one, NULL, &shot, e));
        series_put(&c.ttft, shot.total_ms);
    }
    put_row(s, &c, p, n_prompt, n_gen, o->extended);
    TRY(sheet_end_row(s, e));
out:
    cell_fini(&c);
    return st;
}

status latency_run(struct bench *b, const struct latency_opts *o, struct sheet *s, struct err *e)
{
    struct probe p = {0};
    int n_cell = o->prompt.n * o->gen.n, i = 0;
    status st = OK;
    TRY(probe_open(&p, b, int_list_most(&o->prompt) + int_list_most(&o->gen), e));
    for (int k = 0; k < o->prompt.n; k++)
        for (int m = 0; m < o->gen.n; m++) {
            int n_prompt = o->prompt.v[k], n_gen = o->gen.v[m];
            bench_say(b, "latency %d of %d: %d tokens in, %d out", ++i, n_cell, n_prompt, n_gen);
            if (sheet_find2(s, "prompt_tokens", n_prompt, "gen_tokens", n_gen) < 0)
                TRY(measure(&p, o, n_prompt, n_gen, s, e));
        }
out:
    probe_close(&p);
    return st;
}
