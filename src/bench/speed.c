/* How fast the model decodes and reads prompts here beside the machine's limits, and what the
 * engine itself costs.
 *
 * Tokens are pseudo-random ids, so that no prompt has a beginning in common with another. Contexts
 * that are to hold tokens already (`depth`) get them in the round that does not count, and find
 * them in the prefix cache afterwards; it is off otherwise. All requests are read by this thread
 * through the engine's descriptor, as a server would.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "bench/machine.h"
#include "bench/quantile.h"

#include <math.h>
#include <poll.h>
#include <string.h>

enum { POLL_MS = 100, SCRIPT_MAX = 1 << 30, WARM_UP = 128 /* tokens a prompt */ };

/* When the tokens of one request came. */
struct track {
    gloss_request *request;
    uint64_t first, last;
    int n, n_computed; /* tokens generated; of the prompt, those that no cache held */
};

struct speed {
    struct bench *b;
    struct speed_opts o;            /* of the cell */
    const struct steps_opts *steps; /* decode, prefill */
    struct sheet *sheet;
    struct buf *out; /* engine */
    gloss_engine *engine;
    int depth;                /* of the cell: tokens before the prompt, the same in each round */
    int round;                /* rounds so far: other prompts in each */
    uint64_t submitted;       /* the round's beginning */
    double open_ms;           /* the engine's start */
    struct gloss_stats stats; /* behind the last round */
    double resident, peak;    /* bytes */
    struct track *track;      /* [o.n_parallel] */
    gloss_request **ready;    /* [o.n_parallel] */
    int32_t *ids;             /* [depth + o.n_prompt] */
    uint64_t *t;              /* [o.n_parallel * o.n_generate] times of all tokens */
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
    uint64_t start = clock_ns();
    o.n_ctx = v->depth + v->o.n_prompt + v->o.n_generate;
    /* One more than run, so that the pages of a context's depth survive the rounds between. */
    o.max_requests = v->o.n_parallel + (v->depth > 0);
    o.no_prefix_cache = v->depth == 0;
    if (script) {
        o.script = script->p;
        o.n_script = script->n;
    }
    status st = gloss_engine_new(v->b->model, &o, &v->engine, bench_err(e));
    v->open_ms = (double)(clock_ns() - start) * 1e-6;
    return st;
}

/* Tokens of the depth are the request's own, those of the prompt the round's too. */
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
    int n = v->depth + v->o.n_prompt;
    for (int k = 0; k < n; k++) {
        uint64_t stream = k < v->depth ? (uint64_t)i : ((uint64_t)round + 1) << 32 | (uint64_t)i;
        v->ids[k] = (int32_t)(rng_uniform(1, stream, (uint64_t)k) * v->b->info.n_vocab);
    }
    v->track[i] = (struct track){0};
    return gloss_submit(v->engine, v->ids, (size_t)n, &p, &v->track[i].request, bench_err(e));
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
            t->n_computed = ev.n_computed;
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
    v->submitted = clock_ns();
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

/* ---- what a step has to read and to do ---- */

/* Bytes and operations of a round's measured part. */
struct work {
    double bytes, flops;
};

/* Keys that a row at this position meets, in all layers together: of the full ones every position
 * up to its own, of the sliding ones at most the window's. */
static double keys_at(const struct gloss_info *m, double pos)
{
    double full = m->n_layer - m->n_sliding, window = pos + 1 < m->window ? pos + 1 : m->window;
    return full * (pos + 1) + m->n_sliding * window;
}

/* Bytes of keys and values that a sequence at this position reads, as the cache keeps them. */
static double cache_bytes(const struct speed *v, double pos)
{
    const struct gloss_info *m = &v->b->info;
    double window = pos + 1 < m->window ? pos + 1 : m->window;
    return ((double)v->stats.page_bytes_full * (pos + 1) +
            (double)v->stats.page_bytes_window * window) /
           v->stats.page_tokens;
}

/* Weights that a step of so many rows reads, as the backend keeps them: everything dense once, and
 * the experts that independent rows choose if every expert is equally likely. The embedding's rows
 * do not count. */
static double weight_bytes(const struct speed *v, double rows, bool head)
{
    const struct gloss_info *m = &v->b->info;
    double expert = (double)m->bytes_expert, share = (double)m->n_active / m->n_expert;
    double one = 3.0 * m->d_ff * m->d_model + 2.0 * m->d_ff + m->d_model;
    double idle = (double)m->n_layer * (m->n_expert - m->n_active) * one;
    bool tied = (double)(m->n_param - m->n_param_active) < idle + 1;
    double dense = (double)v->stats.weight_bytes - expert - (tied ? 0 : (double)m->bytes_embed);
    double kept = (double)m->bytes_dense + (tied ? (double)m->bytes_embed : 0);
    if (!head) /* the head's share of the dense bytes: each has that many bytes a number */
        dense *= 1 - (double)m->bytes_embed / kept;
    return dense + expert * (1 - pow(1 - share, rows));
}

static double row_flops(const struct speed *v, double pos, bool head)
{
    const struct gloss_info *m = &v->b->info;
    double n = (double)m->n_param_active - (head ? 0 : (double)m->n_vocab * m->d_model);
    return 2 * n + 4.0 * m->n_head * m->d_head * keys_at(m, pos);
}

/* Of a decoding step of all requests, in the middle of their answers. */
static struct work decode_work(const struct speed *v)
{
    double n = v->o.n_parallel, pos = v->depth + v->o.n_prompt + 0.5 * v->o.n_generate;
    return (struct work){weight_bytes(v, n, true) + n * cache_bytes(v, pos),
                         n * row_flops(v, pos, true)};
}

/* Of all prompts: what each of their steps reads, a prompt's keys once a step. */
static struct work prefill_work(const struct speed *v, double n_step)
{
    struct work w = {0};
    double n = v->o.n_parallel, rows = v->o.n_prompt * n / n_step;
    w.bytes = n_step * weight_bytes(v, rows, false) + weight_bytes(v, 1, true) -
              weight_bytes(v, 1, false);
    for (double i = 0; i < n_step; i++)
        w.bytes += cache_bytes(v, v->depth + v->o.n_prompt * (i + 0.5) / n_step) *
                   (n > n_step ? n / n_step : 1);
    for (int i = 0; i < v->o.n_prompt; i++)
        w.flops += n * row_flops(v, v->depth + i, i + 1 == v->o.n_prompt);
    return w;
}

/* ---- decode and prefill ---- */

static const char columns[] =
    "bench model device cpu arith threads prompt_tokens generate_tokens depth parallel repeats "
    "tokens_per_s_min tokens_per_s_median tokens_per_s_max ms_per_step ttft_ms_min ttft_ms_median "
    "ttft_ms_max ttft_mean_ms_median gb_per_s gflop_per_s read_gb_per_s peak_gflop_per_s of_read "
    "of_peak gb_per_step load_ms resident_mb peak_resident_mb checkpoint_mb kv_mb "
    "drafted accepted";

status steps_columns(struct sheet *s, struct err *e)
{
    return sheet_init(s, columns, e);
}

/* A cell's repeats. */
struct cell {
    struct series rate;       /* tokens/s */
    struct series first;      /* ms to the last request's first token */
    struct series mean_first; /* ms to the first token, mean of the requests */
    double ms_per_step, n_step;
    double n_draft, n_accept; /* of all repeats */
};

static void cell_fini(struct cell *c)
{
    series_fini(&c->rate);
    series_fini(&c->first);
    series_fini(&c->mean_first);
}

/* Between the moment the last request began to generate and the moment the first one ended. */
static status take_decode(struct speed *v, struct cell *c, struct err *e)
{
    uint64_t from = 0, to = UINT64_MAX;
    size_t n = 0;
    for (int i = 0; i < v->o.n_parallel; i++) {
        from = v->track[i].first > from ? v->track[i].first : from;
        to = v->track[i].last < to ? v->track[i].last : to;
    }
    for (size_t i = 0; i < v->n_t; i++)
        n += v->t[i] > from && v->t[i] <= to;
    if (n == 0 || to <= from)
        return err_set(e, E_INPUT,
                       "the first answers ended before the last began: more --generate-tokens or "
                       "fewer --prompt-tokens");
    double s = (double)(to - from) * 1e-9;
    series_put(&c->rate, (double)n / s);
    return OK;
}

/* From submission to the first token of the last request. */
static void take_first(struct speed *v, bool prefill, struct cell *c)
{
    double last = 0, sum = 0;
    int64_t n = 0;
    for (int i = 0; i < v->o.n_parallel; i++) {
        double ms = (double)(v->track[i].first - v->submitted) * 1e-6;
        last = ms > last ? ms : last;
        sum += ms;
        n += v->track[i].n_computed;
    }
    series_put(&c->first, last);
    series_put(&c->mean_first, sum / v->o.n_parallel);
    if (prefill)
        series_put(&c->rate, (double)n / (last * 1e-3));
}

static bool on_cpu(const struct speed *v)
{
    return v->stats.device && strcmp(v->stats.device, "cpu") == 0;
}

/* The processor's limits now; NAN where it is not what computes. */
static status read_limits(const struct speed *v, struct gloss_limits *l, struct err *e)
{
    *l = (struct gloss_limits){NAN, NAN};
    return on_cpu(v) ? gloss_cpu_limits(v->b->engine.n_thread, v->b->engine.arith, l, bench_err(e))
                     : OK;
}

static status put_row(struct speed *v, bool prefill, struct cell *c, const struct gloss_limits *l,
                      struct sheet *s, struct err *e)
{
    static const char *const ariths[] = {"bf16", "f32", "bf16", "q8", "fp8"};
    struct machine m;
    machine_read(&m);
    double rate = series_median(&c->rate), n = v->o.n_parallel;
    double seconds = prefill ? v->o.n_prompt * n / rate : n / rate, steps = prefill ? c->n_step : 1;
    struct work w = prefill ? prefill_work(v, steps) : decode_work(v);
    double gb = v->stats.weight_bytes ? w.bytes / seconds * 1e-9 : NAN;
    double gflop = v->stats.weight_bytes ? w.flops / seconds * 1e-9 : NAN;
    sheet_row(s);
    sheet_text(s, "bench", prefill ? "prefill" : "decode");
    sheet_text(s, "model", v->b->name);
    sheet_text(s, "device", v->stats.device);
    sheet_text(s, "cpu", gloss_cpu());
    sheet_text(s, "arith", ariths[v->b->engine.arith]);
    sheet_int(s, "threads", v->b->engine.n_thread ? v->b->engine.n_thread : m.n_cpu);
    sheet_int(s, "prompt_tokens", v->o.n_prompt);
    sheet_num(s, "generate_tokens", prefill ? NAN : v->o.n_generate);
    sheet_int(s, "depth", v->depth);
    sheet_int(s, "parallel", v->o.n_parallel);
    sheet_int(s, "repeats", v->o.n_repeat);
    sheet_num(s, "tokens_per_s_min", series_linear(&c->rate, 0));
    sheet_num(s, "tokens_per_s_median", rate);
    sheet_num(s, "tokens_per_s_max", series_linear(&c->rate, 1));
    sheet_num(s, "ms_per_step", seconds / steps * 1e3);
    sheet_num(s, "ttft_ms_min", series_linear(&c->first, 0));
    sheet_num(s, "ttft_ms_median", series_median(&c->first));
    sheet_num(s, "ttft_ms_max", series_linear(&c->first, 1));
    sheet_num(s, "ttft_mean_ms_median", series_median(&c->mean_first));
    sheet_num(s, "gb_per_s", gb);
    sheet_num(s, "gflop_per_s", gflop);
    sheet_num(s, "read_gb_per_s", l->read * 1e-9);
    sheet_num(s, "peak_gflop_per_s", l->peak * 1e-9);
    sheet_num(s, "of_read", gb * 1e9 / l->read);
    sheet_num(s, "of_peak", gflop * 1e9 / l->peak);
    sheet_num(s, "gb_per_step", v->stats.weight_bytes ? w.bytes / steps * 1e-9 : NAN);
    sheet_num(s, "load_ms", v->b->open_ms + v->open_ms);
    sheet_num(s, "resident_mb", v->resident * 1e-6);
    sheet_num(s, "peak_resident_mb", v->peak * 1e-6);
    sheet_num(s, "checkpoint_mb", (double)v->b->info.bytes_total * 1e-6);
    sheet_num(s, "kv_mb",
              ((double)v->stats.peak_full * (double)v->stats.page_bytes_full +
               (double)v->stats.peak_window * (double)v->stats.page_bytes_window) *
                  1e-6);
    sheet_num(s, "drafted", prefill ? NAN : c->n_draft);
    sheet_num(s, "accepted", prefill ? NAN : c->n_accept);
    return sheet_end_row(s, e);
}

/* One cell: a round that fills the caches and does not count, the repeats, and the limits. */
static status run_cell(struct speed *v, bool prefill, struct gloss_limits *before, struct sheet *s,
                       struct err *e)
{
    struct cell c = {0};
    struct gloss_limits after, mean;
    struct gloss_stats was = GLOSS_INIT(struct gloss_stats);
    int n_generate = v->o.n_generate, n_prompt = v->o.n_prompt;
    status st = OK;
    bench_say(v->b, "%s of %d tokens behind %d, %d at once", prefill ? "prompts" : "answers",
              prefill ? v->o.n_prompt : n_generate, v->depth, v->o.n_parallel);
    for (int round = 0; round <= v->o.n_repeat; round++) {
        bool warm_up = round == 0;
        v->o.n_generate = prefill || warm_up ? 1 : n_generate;
        v->o.n_prompt = warm_up ? min_int(n_prompt, WARM_UP) : n_prompt;
        was = (struct gloss_stats)GLOSS_INIT(struct gloss_stats);
        gloss_engine_stats(v->engine, &was);
        TRY(run_round(v, v->round++, e));
        v->o.n_generate = n_generate;
        v->o.n_prompt = n_prompt;
        v->stats = (struct gloss_stats)GLOSS_INIT(struct gloss_stats);
        gloss_engine_stats(v->engine, &v->stats);
        if (warm_up)
            continue;
        c.n_step = (double)(v->stats.n_step - was.n_step);
        c.n_draft += (double)(v->stats.n_draft - was.n_draft);
        c.n_accept += (double)(v->stats.n_accept - was.n_accept);
        take_first(v, prefill, &c);
        if (!prefill)
            TRY(take_decode(v, &c, e));
    }
    v->resident = (double)machine_resident();
    v->peak = (double)machine_peak_resident();
    TRY(read_limits(v, &after, e));
    mean = (struct gloss_limits){(before->read + after.read) / 2, (before->peak + after.peak) / 2};
    *before = after;
    machine_reset_peak();
    TRY(put_row(v, prefill, &c, &mean, s, e));
out:
    v->o.n_generate = n_generate;
    v->o.n_prompt = n_prompt;
    cell_fini(&c);
    return st;
}

static status run_cells(struct speed *v, struct err *e)
{
    const struct steps_opts *o = v->steps;
    struct gloss_limits limits;
    status st = OK;
    /* The device is known once an engine is open, and the limits' memory must not count as its
     * own. */
    TRY(open_engine(v, NULL, e));
    v->stats = (struct gloss_stats)GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(v->engine, &v->stats);
    TRY(read_limits(v, &limits, e));
    machine_reset_peak();
    for (int i = 0; i < o->depth.n; i++)
        for (int j = 0; j < o->prompt.n; j++)
            for (int k = 0; k < o->parallel.n; k++) {
                v->depth = o->depth.v[i];
                v->o.n_prompt = o->prompt.v[j];
                v->o.n_parallel = o->parallel.v[k];
                TRY(run_cell(v, o->prefill, &limits, v->sheet, e));
            }
out:
    return st;
}

/* Steps without arithmetic: what is left is scheduling, pages, delivery and this reader. */
static status run_engine(struct speed *v, struct err *e)
{
    struct buf *out = v->out;
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
    buf_printf(out,
               "{\"bench\":\"engine\",\"model\":\"%s\",\"cpu\":\"%s\",\"prompt_tokens\":%d,"
               "\"generate_tokens\":%d,\"parallel\":%d,\"grammar\":%s,",
               v->b->info.name, gloss_cpu(), v->o.n_prompt, v->o.n_generate, v->o.n_parallel,
               v->o.grammar ? "true" : "false");
    buf_printf(out, "\"steps\":%llu,\"us_per_step\":%.2f}\n", n_step,
               (ns - (double)(s.step_ns - before.step_ns)) / 1e3 / (double)n_step);
out:
    buf_fini(&script);
    return st;
}

/* Makes room for what one of the above needs, and runs it. */
static status with_room(struct speed *v, status (*run)(struct speed *, struct err *), struct err *e)
{
    const struct speed_opts *o = &v->o;
    status st = OK;
    v->track = mem_calloc((size_t)o->n_parallel, sizeof *v->track);
    v->ready = mem_array((size_t)o->n_parallel, sizeof(gloss_request *));
    v->ids = mem_array((size_t)o->n_prompt + (size_t)v->depth, sizeof *v->ids);
    v->t = mem_array((size_t)o->n_parallel * (size_t)o->n_generate, sizeof *v->t);
    if (!v->track || !v->ready || !v->ids || !v->t)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    TRY(run(v, e));
out:
    gloss_engine_free(v->engine);
    mem_free(v->track);
    mem_free(v->ready);
    mem_free(v->ids);
    mem_free(v->t);
    return st;
}

status steps_run(struct bench *b, const struct steps_opts *o, struct sheet *s, struct err *e)
{
    struct speed v = {.b = b,
                      .steps = o,
                      .sheet = s,
                      .depth = int_list_most(&o->depth),
                      .o = {.n_prompt = int_list_most(&o->prompt),
                            .n_parallel = int_list_most(&o->parallel),
                            .n_generate = o->n_generate,
                            .n_repeat = o->n_repeat,
                            .grammar = o->grammar}};
    return with_room(&v, run_cells, e);
}

status speed_engine(struct bench *b, const struct speed_opts *o, struct buf *out, struct err *e)
{
    struct speed v = {.b = b, .o = *o, .out = out};
    return with_room(&v, run_engine, e);
}

/* ---- for a person ---- */

static double cell_num(const struct sheet *s, int row, const char *col)
{
    return sheet_get_num(s, row, col);
}

void steps_text(const struct sheet *s, struct buf *b)
{
    if (s->n_row == 0)
        return;
    int last = s->n_row - 1;
    buf_printf(
        b, "%s on %s (%s), %s, %s threads: loaded in %.2f s, resident %.2f GB, at most %.2f\n",
        sheet_get(s, 0, "model"), sheet_get(s, 0, "device"), sheet_get(s, 0, "cpu"),
        sheet_get(s, 0, "arith"), sheet_get(s, 0, "threads"), cell_num(s, 0, "load_ms") / 1e3,
        cell_num(s, last, "resident_mb") / 1e3, cell_num(s, last, "peak_resident_mb") / 1e3);
    buf_printf(b, "%7s %7s %9s | %8s %8s %8s | %8s %9s | %7s %7s %5s | %8s %8s %5s\n", "depth",
               "prompt", "parallel", "tok/s", "median", "max", "ms/step", "first ms", "GB/s",
               "machine", "of it", "GFLOP/s", "machine", "of it");
    for (int i = 0; i < s->n_row; i++)
        buf_printf(b,
                   "%7.0f %7.0f %9.0f | %8.2f %8.2f %8.2f | %8.2f %9.1f | %7.1f %7.1f %5.2f | "
                   "%8.1f %8.1f %5.2f\n",
                   cell_num(s, i, "depth"), cell_num(s, i, "prompt_tokens"),
                   cell_num(s, i, "parallel"), cell_num(s, i, "tokens_per_s_min"),
                   cell_num(s, i, "tokens_per_s_median"), cell_num(s, i, "tokens_per_s_max"),
                   cell_num(s, i, "ms_per_step"), cell_num(s, i, "ttft_mean_ms_median"),
                   cell_num(s, i, "gb_per_s"), cell_num(s, i, "read_gb_per_s"),
                   cell_num(s, i, "of_read"), cell_num(s, i, "gflop_per_s"),
                   cell_num(s, i, "peak_gflop_per_s"), cell_num(s, i, "of_peak"));
}
