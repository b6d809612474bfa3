/* How fast the model decodes and reads prompts here, and what the engine itself costs.
 *
 * Tokens are pseudo-random ids, so that no prompt has a beginning in common with another; the
 * prefix cache is off. All requests are read by this thread through the engine's descriptor, as a
 * server would. Output is one JSON value.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "bench/bench.h"

#include <poll.h>

enum { PREFILL_RUNS = 3, POLL_MS = 100, SCRIPT_MAX = 1 << 30 };

/* When the tokens of one request came. */
struct track {
    gloss_request *request;
    uint64_t first, last;
    int n;
};

struct speed {
    struct bench *b;
    struct speed_opts o;
    gloss_engine *engine;
    struct track *track;   /* [o.n_parallel] */
    gloss_request **ready; /* [o.n_parallel] */
    int32_t *ids;          /* [o.n_prompt] */
    uint64_t *t;           /* [o.n_parallel * o.n_generate] times of all tokens */
    size_t n_t;
};

/* Lists of any length: a script of that form never leaves it; a model may, and is then free. */
static const char bench_schema[] =
    "{\"type\":\"object\",\"properties\":{\"items\":{\"type\":\"array\","
    "\"items\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"kind\":{"
    "\"enum\":[\"red\",\"green\"]},\"n\":{\"type\":\"integer\"}},"
    "\"required\":[\"name\",\"kind\",\"n\"]}}},\"required\":[\"items\"]}";

static status open_engine(struct speed *v, const struct buf *script, struct err *e)
{
    struct gloss_engine_opts o = v->b->engine;
    o.n_ctx = v->o.n_prompt + v->o.n_generate;
    o.max_requests = v->o.n_parallel;
    o.no_prefix_cache = 1;
    if (script) {
        o.script = script->p;
        o.n_script = script->n;
    }
    return gloss_engine_new(v->b->model, &o, &v->engine, bench_err(e));
}

static status submit(struct speed *v, int i, int round, struct err *e)
{
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.max_tokens = v->o.n_generate;
    p.ignore_eos = 1;
    p.plain = !v->o.grammar;
    if (v->o.grammar) {
        p.no_analysis = 1;
        p.format = GLOSS_FORMAT_JSON_SCHEMA;
        p.format_text = bench_schema;
        p.n_format_text = sizeof bench_schema - 1;
    }
    for (int k = 0; k < v->o.n_prompt; k++)
        v->ids[k] = (int32_t)(rng_uniform(1, (uint64_t)(round * v->o.n_parallel + i), (uint64_t)k) *
                              v->b->info.n_vocab);
    v->track[i] = (struct track){0};
    return gloss_submit(v->engine, v->ids, (size_t)v->o.n_prompt, &p, &v->track[i].request,
                        bench_err(e));
}

static struct track *track_of(struct speed *v, const gloss_request *r)
{
    for (int i = 0; i < v->o.n_parallel; i++)
        if (v->track[i].request == r)
            return &v->track[i];
    return NULL;
}

/* All events that are there; *left counts the requests not finished. */
static status read_events(struct speed *v, struct track *t, int *left, struct err *e)
{
    struct gloss_event ev;
    while (gloss_next(t->request, &ev, 0) == GLOSS_OK) {
        if (ev.kind == GLOSS_EV_TOKEN) {
            t->first = t->n++ ? t->first : ev.t_ns;
            t->last = ev.t_ns;
            v->t[v->n_t++] = ev.t_ns;
        } else {
            --*left;
            if (ev.finish == GLOSS_FINISH_ERROR)
                return err_set(e, ev.err.code, "%s", ev.err.msg);
        }
    }
    return OK;
}

/* Runs n_parallel requests to their ends. */
static status run_round(struct speed *v, int round, struct err *e)
{
    struct pollfd fd = {.fd = gloss_engine_fd(v->engine), .events = POLLIN};
    int left = v->o.n_parallel;
    status st = OK;
    v->n_t = 0;
    for (int i = 0; i < v->o.n_parallel; i++)
        TRY(submit(v, i, round, e));
    while (left > 0) {
        TRY(v->b->check_stop(e));
        (void)poll(&fd, 1, POLL_MS);
        int n = gloss_engine_ready(v->engine, v->ready, v->o.n_parallel);
        for (int i = 0; i < n; i++)
            TRY(read_events(v, track_of(v, v->ready[i]), &left, e));
    }
out:
    for (int i = 0; i < v->o.n_parallel; i++) {
        gloss_request_free(v->track[i].request);
        v->track[i].request = NULL;
    }
    return st;
}

static void put_head(struct buf *out, const struct speed *v, const char *what)
{
    buf_printf(out,
               "{\"bench\":\"%s\",\"model\":\"%s\",\"cpu\":\"%s\",\"prompt_tokens\":%d,"
               "\"generate_tokens\":%d,\"parallel\":%d,\"grammar\":%s,",
               what, v->b->info.name, gloss_cpu(), v->o.n_prompt, v->o.n_generate, v->o.n_parallel,
               v->o.grammar ? "true" : "false");
}

/* Between the moment the last request began to generate and the moment the first one ended. */
static status decode(struct speed *v, struct buf *out, struct err *e)
{
    uint64_t from = 0, to = UINT64_MAX;
    size_t n = 0;
    status st = OK;
    TRY(open_engine(v, NULL, e));
    TRY(run_round(v, 0, e));
    for (int i = 0; i < v->o.n_parallel; i++) {
        from = v->track[i].first > from ? v->track[i].first : from;
        to = v->track[i].last < to ? v->track[i].last : to;
    }
    for (size_t i = 0; i < v->n_t; i++)
        n += v->t[i] > from && v->t[i] <= to;
    if (n == 0 || to <= from)
        TRY(err_set(e, E_INPUT,
                    "the first answers ended before the last began: more --generate-tokens or "
                    "fewer --prompt-tokens"));
    double s = (double)(to - from) * 1e-9;
    put_head(out, v, "decode");
    buf_printf(out, "\"tokens_per_s\":%.2f,\"ms_per_step\":%.4f}\n", (double)n / s,
               s * 1e3 * v->o.n_parallel / (double)n);
out:
    return st;
}

/* The best of a few runs: time from submission to the first token of the last request. */
static status prefill(struct speed *v, struct buf *out, struct err *e)
{
    double best = 1e300;
    status st = OK;
    v->o.n_generate = 1;
    TRY(open_engine(v, NULL, e));
    for (int round = 0; round < PREFILL_RUNS; round++) {
        uint64_t start = clock_ns(), end = 0;
        TRY(run_round(v, round, e));
        for (int i = 0; i < v->o.n_parallel; i++)
            end = v->track[i].last > end ? v->track[i].last : end;
        double s = (double)(end - start) * 1e-9;
        best = s < best ? s : best;
    }
    put_head(out, v, "prefill");
    buf_printf(out, "\"tokens_per_s\":%.2f,\"ms\":%.3f}\n",
               (double)v->o.n_prompt * v->o.n_parallel / best, best * 1e3);
out:
    return st;
}

/* Steps without arithmetic: what is left is scheduling, pages, delivery and this reader. */
static status engine(struct speed *v, struct buf *out, struct err *e)
{
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    struct buf script;
    buf_init(&script, SCRIPT_MAX);
    status st = OK;
    if (v->o.grammar) {
        buf_puts(&script, "{\"text\":\"<|channel|>final<|message|>{\\\"items\\\":[");
        for (int i = 0; i < v->o.n_generate; i++) /* an item has many tokens */
            buf_printf(&script,
                       "%s{\\\"name\\\":\\\"The %d. of them\\\",\\\"kind\\\":\\\"%s\\\","
                       "\\\"n\\\":%d}",
                       i ? ", " : "", i, i % 3 ? "red" : "green", i * 17);
        buf_puts(&script, "\"}");
    } else {
        buf_puts(&script, "{\"tokens\":[0");
        for (int i = 1; i < v->o.n_generate; i++)
            buf_printf(&script, ",%d", i % v->b->info.n_vocab);
        buf_puts(&script, "]}");
    }
    TRY(buf_status(&script));
    TRY(open_engine(v, &script, e));
    TRY(run_round(v, 0, e)); /* what is made once, the grammar for example */
    struct gloss_stats before = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(v->engine, &before);
    uint64_t start = clock_ns();
    TRY(run_round(v, 1, e));
    double ns = (double)(clock_ns() - start);
    gloss_engine_stats(v->engine, &s);
    unsigned long long n_step = s.n_step - before.n_step;
    put_head(out, v, "engine");
    buf_printf(out, "\"steps\":%llu,\"us_per_step\":%.2f}\n", n_step,
               (ns - (double)(s.step_ns - before.step_ns)) / 1e3 / (double)n_step);
out:
    buf_fini(&script);
    return st;
}

/* Makes room for what one of the above needs, and runs it. */
static status with_room(struct bench *b, const struct speed_opts *o, struct buf *out,
                        status (*run)(struct speed *, struct buf *, struct err *), struct err *e)
{
    struct speed v = {.b = b, .o = *o};
    status st = OK;
    v.track = mem_calloc((size_t)o->n_parallel, sizeof *v.track);
    v.ready = mem_array((size_t)o->n_parallel, sizeof(gloss_request *));
    v.ids = mem_array((size_t)o->n_prompt, sizeof *v.ids);
    v.t = mem_array((size_t)o->n_parallel * (size_t)o->n_generate, sizeof *v.t);
    if (!v.track || !v.ready || !v.ids || !v.t)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    TRY(run(&v, out, e));
out:
    gloss_engine_free(v.engine);
    mem_free(v.track);
    mem_free(v.ready);
    mem_free(v.ids);
    mem_free(v.t);
    return st;
}

status speed_decode(struct bench *b, const struct speed_opts *o, struct buf *out, struct err *e)
{
    return with_room(b, o, out, decode, e);
}

status speed_prefill(struct bench *b, const struct speed_opts *o, struct buf *out, struct err *e)
{
    return with_room(b, o, out, prefill, e);
}

status speed_engine(struct bench *b, const struct speed_opts *o, struct buf *out, struct err *e)
{
    return with_room(b, o, out, engine, e);
}
