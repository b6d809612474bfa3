/* gloss bench: how fast the model decodes and reads prompts here, and what the engine itself costs.
 *
 * Tokens are pseudo-random ids, so that no prompt has a beginning in common with another; the
 * prefix cache is off. All requests are read by this thread through the engine's descriptor, as a
 * server would. Output is one JSON value.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/cli.h"

#include <poll.h>
#include <string.h>

enum { PREFILL_RUNS = 3, POLL_MS = 100 };

/* When the tokens of one request came. */
struct track {
    gloss_request *request;
    uint64_t first, last;
    int n;
};

struct bench {
    gloss_model *model;
    gloss_engine *engine;
    struct gloss_info info;
    int n_prompt, n_generate, n_parallel;
    bool grammar;          /* answers are held to bench_schema */
    struct track *track;   /* [n_parallel] */
    gloss_request **ready; /* [n_parallel] */
    int32_t *ids;          /* [n_prompt] */
    uint64_t *t;           /* [n_parallel * n_generate] times of all tokens */
    size_t n_t;
};

/* Lists of any length: a script of that form never leaves it; a model may, and is then free. */
static const char bench_schema[] =
    "{\"type\":\"object\",\"properties\":{\"items\":{\"type\":\"array\","
    "\"items\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"kind\":{"
    "\"enum\":[\"red\",\"green\"]},\"n\":{\"type\":\"integer\"}},"
    "\"required\":[\"name\",\"kind\",\"n\"]}}},\"required\":[\"items\"]}";

static status open_engine(struct bench *b, struct conf *c, const struct buf *script, struct err *e)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.device = conf_str(c, "device");
    o.arith = cli_arith(c);
    o.n_thread = (int)conf_int(c, "threads");
    o.n_ctx = b->n_prompt + b->n_generate;
    o.max_requests = b->n_parallel;
    o.no_prefix_cache = 1;
    o.memory_bytes = (uint64_t)(conf_num(c, "memory-gb") * 1e9);
    if (script) {
        o.script = script->p;
        o.n_script = script->n;
    }
    return gloss_engine_new(b->model, &o, &b->engine, pub(e));
}

static status submit(struct bench *b, int i, int round, struct err *e)
{
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.max_tokens = b->n_generate;
    p.ignore_eos = 1;
    p.plain = !b->grammar;
    if (b->grammar) {
        p.no_analysis = 1;
        p.format = GLOSS_FORMAT_JSON_SCHEMA;
        p.format_text = bench_schema;
        p.n_format_text = sizeof bench_schema - 1;
    }
    for (int k = 0; k < b->n_prompt; k++)
        b->ids[k] = (int32_t)(rng_uniform(1, (uint64_t)(round * b->n_parallel + i), (uint64_t)k) *
                              b->info.n_vocab);
    b->track[i] = (struct track){0};
    return gloss_submit(b->engine, b->ids, (size_t)b->n_prompt, &p, &b->track[i].request, pub(e));
}

static struct track *track_of(struct bench *b, const gloss_request *r)
{
    for (int i = 0; i < b->n_parallel; i++)
        if (b->track[i].request == r)
            return &b->track[i];
    return NULL;
}

/* All events that are there; *left counts the requests not finished. */
static status read_events(struct bench *b, struct track *t, int *left, struct err *e)
{
    struct gloss_event ev;
    while (gloss_next(t->request, &ev, 0) == GLOSS_OK) {
        if (ev.kind == GLOSS_EV_TOKEN) {
            t->first = t->n++ ? t->first : ev.t_ns;
            t->last = ev.t_ns;
            b->t[b->n_t++] = ev.t_ns;
        } else {
            --*left;
            if (ev.finish == GLOSS_FINISH_ERROR)
                return err_set(e, ev.err.code, "%s", ev.err.msg);
        }
    }
    return OK;
}

/* Runs n_parallel requests to their ends. */
static status run_round(struct bench *b, int round, struct err *e)
{
    struct pollfd fd = {.fd = gloss_engine_fd(b->engine), .events = POLLIN};
    int left = b->n_parallel;
    status st = OK;
    b->n_t = 0;
    for (int i = 0; i < b->n_parallel; i++)
        TRY(submit(b, i, round, e));
    while (left > 0) {
        TRY(cli_check_stop(e));
        (void)poll(&fd, 1, POLL_MS);
        int n = gloss_engine_ready(b->engine, b->ready, b->n_parallel);
        for (int i = 0; i < n; i++)
            TRY(read_events(b, track_of(b, b->ready[i]), &left, e));
    }
out:
    for (int i = 0; i < b->n_parallel; i++) {
        gloss_request_free(b->track[i].request);
        b->track[i].request = NULL;
    }
    return st;
}

static void put_head(struct buf *out, const struct bench *b, const char *what)
{
    buf_printf(out,
               "{\"bench\":\"%s\",\"model\":\"%s\",\"cpu\":\"%s\",\"prompt_tokens\":%d,"
               "\"generate_tokens\":%d,\"parallel\":%d,\"grammar\":%s,",
               what, b->info.name, gloss_cpu(), b->n_prompt, b->n_generate, b->n_parallel,
               b->grammar ? "true" : "false");
}

/* Between the moment the last request began to generate and the moment the first one ended. */
static status bench_decode(struct bench *b, struct conf *c, struct buf *out, struct err *e)
{
    uint64_t from = 0, to = UINT64_MAX;
    size_t n = 0;
    status st = OK;
    TRY(open_engine(b, c, NULL, e));
    TRY(run_round(b, 0, e));
    for (int i = 0; i < b->n_parallel; i++) {
        from = b->track[i].first > from ? b->track[i].first : from;
        to = b->track[i].last < to ? b->track[i].last : to;
    }
    for (size_t i = 0; i < b->n_t; i++)
        n += b->t[i] > from && b->t[i] <= to;
    if (n == 0 || to <= from)
        TRY(err_set(e, E_INPUT,
                    "the first answers ended before the last began: more --generate-tokens or "
                    "fewer --prompt-tokens"));
    double s = (double)(to - from) * 1e-9;
    put_head(out, b, "decode");
    buf_printf(out, "\"tokens_per_s\":%.2f,\"ms_per_step\":%.4f}\n", (double)n / s,
               s * 1e3 * b->n_parallel / (double)n);
out:
    return st;
}

/* The best of a few runs: time from submission to the first token of the last request. */
static status bench_prefill(struct bench *b, struct conf *c, struct buf *out, struct err *e)
{
    double best = 1e300;
    status st = OK;
    b->n_generate = 1;
    TRY(open_engine(b, c, NULL, e));
    for (int round = 0; round < PREFILL_RUNS; round++) {
        uint64_t start = clock_ns(), end = 0;
        TRY(run_round(b, round, e));
        for (int i = 0; i < b->n_parallel; i++)
            end = b->track[i].last > end ? b->track[i].last : end;
        double s = (double)(end - start) * 1e-9;
        best = s < best ? s : best;
    }
    put_head(out, b, "prefill");
    buf_printf(out, "\"tokens_per_s\":%.2f,\"ms\":%.3f}\n",
               (double)b->n_prompt * b->n_parallel / best, best * 1e3);
out:
    return st;
}

/* Steps without arithmetic: what is left is scheduling, pages, delivery and this reader. */
static status bench_engine(struct bench *b, struct conf *c, struct buf *out, struct err *e)
{
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    struct buf script;
    buf_init(&script, CLI_TEXT_MAX);
    status st = OK;
    if (b->grammar) {
        buf_puts(&script, "{\"text\":\"<|channel|>final<|message|>{\\\"items\\\":[");
        for (int i = 0; i < b->n_generate; i++) /* an item has many tokens */
            buf_printf(&script,
                       "%s{\\\"name\\\":\\\"The %d. of them\\\",\\\"kind\\\":\\\"%s\\\","
                       "\\\"n\\\":%d}",
                       i ? ", " : "", i, i % 3 ? "red" : "green", i * 17);
        buf_puts(&script, "\"}");
    } else {
        buf_puts(&script, "{\"tokens\":[0");
        for (int i = 1; i < b->n_generate; i++)
            buf_printf(&script, ",%d", i % b->info.n_vocab);
        buf_puts(&script, "]}");
    }
    TRY(buf_status(&script));
    TRY(open_engine(b, c, &script, e));
    TRY(run_round(b, 0, e)); /* what is made once, the grammar for example */
    struct gloss_stats before = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(b->engine, &before);
    uint64_t start = clock_ns();
    TRY(run_round(b, 1, e));
    double ns = (double)(clock_ns() - start);
    gloss_engine_stats(b->engine, &s);
    unsigned long long n_step = s.n_step - before.n_step;
    put_head(out, b, "engine");
    buf_printf(out, "\"steps\":%llu,\"us_per_step\":%.2f}\n", n_step,
               (ns - (double)(s.step_ns - before.step_ns)) / 1e3 / (double)n_step);
out:
    buf_fini(&script);
    return st;
}

status cmd_bench(struct conf *c, struct err *e)
{
    static const struct {
        const char *name;
        status (*run)(struct bench *, struct conf *, struct buf *, struct err *);
    } kinds[] = {{"decode", bench_decode}, {"prefill", bench_prefill}, {"engine", bench_engine}};
    struct bench b = {.n_prompt = (int)conf_int(c, "prompt-tokens"),
                      .n_generate = (int)conf_int(c, "generate-tokens"),
                      .n_parallel = (int)conf_int(c, "parallel"),
                      .grammar = conf_on(c, "grammar")};
    struct buf out;
    buf_init(&out, CLI_TEXT_MAX);
    status st = OK;
    const char *what = c->n_pos ? c->pos[0] : "decode";
    size_t kind = 0;
    while (kind < sizeof kinds / sizeof kinds[0] && strcmp(kinds[kind].name, what) != 0)
        kind++;
    if (kind == sizeof kinds / sizeof kinds[0])
        TRY(err_set(e, E_USAGE, "bench '%s': must be decode, prefill or engine", what));
    cli_catch_signals();
    TRY(cli_open_model(c, false, &b.model, e));
    gloss_model_info(b.model, &b.info);
    b.track = mem_calloc((size_t)b.n_parallel, sizeof *b.track);
    b.ready = mem_array((size_t)b.n_parallel, sizeof(gloss_request *));
    b.ids = mem_array((size_t)b.n_prompt, sizeof *b.ids);
    b.t = mem_array((size_t)b.n_parallel * (size_t)b.n_generate, sizeof *b.t);
    if (!b.track || !b.ready || !b.ids || !b.t)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    TRY(kinds[kind].run(&b, c, &out, e));
    TRY(out_buf(&out, e));
out:
    gloss_engine_free(b.engine);
    gloss_model_close(b.model);
    mem_free(b.track);
    mem_free(b.ready);
    mem_free(b.ids);
    mem_free(b.t);
    buf_fini(&out);
    return st;
}
