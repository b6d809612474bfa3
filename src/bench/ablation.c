/* What changes when one thing changes: the study's ablation program.
 *
 * Four tests, each a CSV and a list in the JSON of all: the way of choosing tokens, the precision
 * of weights and arithmetic, the context's length, and who serves. A row has medians and 95th
 * percentiles (the study's kind) over the runs, of time and of tokens per second with the prompt
 * included. A variant that fails becomes a row with its error.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/probe.h"
#include "remote/client.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SEED = 1234, ANSWER_MAX = 16 << 20, WAIT_MS = 100, FRAME_ROOM = 256 };

/* The columns of each file, in alphabetical order as the study has them. */
static const char decoding_columns[] =
    "decoding_method max_new_tokens mean_new_tokens mean_time_s mean_tokps model p50_new_tokens "
    "p50_time_s p50_tokps p95_time_s p95_tokps runs throughput_scope";
static const char precision_columns[] =
    "error max_new_tokens mean_new_tokens mean_time_s mean_tokps model p50_new_tokens p50_time_s "
    "p50_tokps p95_time_s p95_tokps precision runs throughput_scope";
static const char context_columns[] =
    "max_new_tokens mean_new_tokens mean_time_s mean_tokps measured_context_tokens model "
    "p50_new_tokens p50_time_s p50_tokps p95_time_s p95_tokps runs target_context_length "
    "throughput_scope";
static const char server_columns[] =
    "error framework max_new_tokens mean_new_tokens mean_time_s mean_tokps model p50_new_tokens "
    "p50_time_s p50_tokps p95_time_s p95_tokps runs throughput_scope";

struct runs {
    struct series s, tokens, rate;
};

static void runs_put(struct runs *r, double ms, double tokens)
{
    series_put(&r->s, ms * 1e-3);
    series_put(&r->tokens, tokens);
    series_put(&r->rate, tokens / ms * 1e3);
}

static void runs_fini(struct runs *r)
{
    series_fini(&r->s);
    series_fini(&r->tokens);
    series_fini(&r->rate);
}

static void put_runs(struct sheet *s, const struct bench *b, const struct ablation_opts *o,
                     struct runs *r)
{
    sheet_row(s);
    sheet_text(s, "model", b->name);
    sheet_int(s, "max_new_tokens", o->max_new_tokens);
    if (r->s.n == 0)
        return;
    sheet_text(s, "throughput_scope", "prefill+decode");
    sheet_num(s, "p50_tokps", series_ceil(&r->rate, 0.5));
    sheet_num(s, "p95_tokps", series_ceil(&r->rate, 0.95));
    sheet_num(s, "mean_tokps", series_mean(&r->rate));
    sheet_num(s, "p50_time_s", series_ceil(&r->s, 0.5));
    sheet_num(s, "p95_time_s", series_ceil(&r->s, 0.95));
    sheet_num(s, "mean_time_s", series_mean(&r->s));
    sheet_num(s, "p50_new_tokens", series_ceil(&r->tokens, 0.5));
    sheet_num(s, "mean_new_tokens", series_mean(&r->tokens));
    sheet_int(s, "runs", (int64_t)r->s.n);
}

/* Warm-up, then the runs, each with its seed. */
static status shoot(struct probe *p, const struct ablation_opts *o, struct gloss_params g,
                    struct runs *r, struct err *e)
{
    struct shot shot;
    status st = OK;
    TRY(probe_warm_up(p, e));
    for (int i = 0; i < o->n_run; i++) {
        g.seed = (uint64_t)(SEED + i);
        TRY(probe_shoot(p, &g, NULL, &shot, e));
        runs_put(r, shot.total_ms, shot.n_token);
    }
out:
    return st;
}

/* ---- the way of choosing ---- */

static status decoding(struct bench *b, const struct ablation_opts *o, struct sheet *s,
                       struct err *e)
{
    static const struct {
        const char *name;
        float temperature, top_p;
        int top_k;
    } way[] = {{"Greedy", 0, 0, 0},
               {"Top-p (0.9)", 0.7f, 0.9f, 0},
               {"Top-k (50)", 0.7f, 0, 50},
               {"High Temp", 1, 0.95f, 0},
               {"Low Temp", 0.3f, 0.8f, 0}};
    struct probe p = {0};
    status st = OK;
    TRY(probe_open(&p, b, o->max_new_tokens + FRAME_ROOM, e));
    TRY(probe_chat(&p, "Explain the benefits of renewable energy in 2-3 sentences.", e));
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
        struct runs r = {0};
        struct gloss_params g = probe_params(o->max_new_tokens);
        g.temperature = way[i].temperature;
        g.top_p = way[i].top_p;
        g.top_k = way[i].top_k;
        bench_say(b, "decoding: %s", way[i].name);
        st = shoot(&p, o, g, &r, e);
        if (st == OK) {
            put_runs(s, b, o, &r);
            sheet_text(s, "decoding_method", way[i].name);
            st = sheet_end_row(s, e);
        }
        runs_fini(&r);
        TRY(st);
    }
out:
    probe_close(&p);
    return st;
}

/* ---- precision ---- */

static status measure_model(struct bench *b, const struct ablation_opts *o, struct runs *r,
                            struct err *e)
{
    struct probe p = {0};
    status st = OK;
    TRY(probe_open(&p, b, o->max_new_tokens + FRAME_ROOM, e));
    TRY(probe_chat(&p, "Write a short poem about artificial intelligence.", e));
    TRY(shoot(&p, o, probe_params(o->max_new_tokens), r, e));
out:
    probe_close(&p);
    return st;
}

/* Removes a checkpoint that we wrote: a folder of plain files. */
static void remove_folder(const char *path)
{
    char file[4608];
    DIR *d = opendir(path);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        if (ent->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, ent->d_name);
        unlink(file);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

/* The same model with its experts as bf16, written beside the results and removed again. */
static status measure_bf16(const struct bench *b, const struct ablation_opts *o, struct runs *r,
                           struct err *e)
{
    struct bench v = *b;
    struct gloss_quant_opts q = GLOSS_INIT(struct gloss_quant_opts);
    char path[4096];
    status st = OK;
    q.method = GLOSS_QUANT_BF16;
    if (strcmp(b->path, "tiny") == 0)
        return err_set(e, E_INPUT, "the compiled-in model has no files to dequantise");
    snprintf(path, sizeof path, "%s/bf16-checkpoint-%ld", o->dir, (long)getpid());
    v.model = NULL;
    TRY(gloss_quantize(b->path, path, &q, bench_err(e)));
    TRY(gloss_model_open(path, NULL, &v.model, bench_err(e)));
    gloss_model_info(v.model, &v.info);
    TRY(measure_model(&v, o, r, e));
out:
    gloss_model_close(v.model);
    remove_folder(path);
    return st;
}

/* A row of a variant that may have failed (why): then the row says so and the others go on. The
 * runs are freed. */
static status end_variant(struct sheet *s, const struct bench *b, const struct ablation_opts *o,
                          const char *column, const char *name, status ran, struct runs *r,
                          const struct err *why, struct err *e)
{
    status st = ran;
    if (ran == E_CANCEL) {
        err_set(e, ran, "%s", why->msg);
    } else {
        put_runs(s, b, o, r);
        sheet_text(s, column, name);
        if (ran < 0)
            sheet_text(s, "error", *why->msg ? why->msg : err_name(ran));
        st = sheet_end_row(s, e);
    }
    runs_fini(r);
    return st;
}

enum { N_PRECISION = 4 };
static const char *const precision_name[N_PRECISION] = {"mxfp4", "bf16", "fp32", "q8"};

static status precision(struct bench *b, const struct ablation_opts *o, struct sheet *s,
                        struct err *e)
{
    const char *const *name = precision_name;
    status st = OK;
    for (int i = 0; i < N_PRECISION; i++) {
        struct bench v = *b;
        struct runs r = {0};
        struct err why = {0};
        if (!bench_listed(o->precisions, name[i]))
            continue;
        bench_say(b, "precision: %s", name[i]);
        if (i >= 2)
            v.engine.arith = i == 2 ? GLOSS_ARITH_F32 : GLOSS_ARITH_Q8;
        st = i == 1 ? measure_bf16(b, o, &r, &why) : measure_model(&v, o, &r, &why);
        TRY(end_variant(s, b, o, "precision", name[i], st, &r, &why, e));
    }
out:
    return st;
}

/* ---- context ---- */

static status context(struct bench *b, const struct ablation_opts *o, struct sheet *s,
                      struct err *e)
{
    struct probe p = {0};
    int most = 0;
    status st = OK;
    for (int i = 0; i < o->context.n; i++)
        if (o->context.v[i] + o->max_new_tokens <= b->info.n_ctx)
            most = o->context.v[i] > most ? o->context.v[i] : most;
    TRY(probe_open(&p, b, most + o->max_new_tokens, e));
    for (int i = 0; i < o->context.n; i++) {
        struct runs r = {0};
        int n = o->context.v[i];
        if (n > most) {
            bench_say(b, "context: %d is more than the model's %d, left out", n, b->info.n_ctx);
            continue;
        }
        bench_say(b, "context: %d", n);
        st = probe_context(&p, n, false, e);
        if (st == OK)
            st = shoot(&p, o, probe_params(o->max_new_tokens), &r, e);
        if (st == OK) {
            put_runs(s, b, o, &r);
            sheet_int(s, "target_context_length", n);
            sheet_int(s, "measured_context_tokens", p.n_ids);
            st = sheet_end_row(s, e);
        }
        runs_fini(&r);
        TRY(st);
    }
out:
    probe_close(&p);
    return st;
}

/* ---- who serves ---- */

static const char question[] = "Explain quantum computing in simple terms.";

static status ask_once(struct bench *b, struct client *c, const char *model, int n, double *ms,
                       double *tokens, struct err *e)
{
    struct buf body;
    struct json *root = NULL;
    struct client_call call = {.path = "/chat/completions"};
    status st = OK;
    buf_init(&body, 1 << 16);
    buf_puts(&body, "{\"model\":");
    json_quote(&body, model, strlen(model));
    buf_printf(&body,
               ",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%d,"
               "\"temperature\":0,\"ignore_eos\":true}",
               question, n);
    call.body = body.p;
    call.n_body = body.n;
    TRY(buf_status(&body));
    TRY(client_send(c, &call, e));
    while (client_running(c) > 0) {
        TRY(b->check_stop(e));
        (void)client_next(c, WAIT_MS);
    }
    if (call.st < 0)
        TRY(err_set(e, call.st, "%s", call.err.msg));
    TRY(json_parse(call.answer.p, call.answer.n, &json_limits_file, &root, e));
    const struct json *out = json_get(json_get(root, "usage"), "completion_tokens");
    if (json_kind(out) != J_INT)
        TRY(err_set(e, E_FORMAT, "the server's answer has no usage.completion_tokens"));
    *ms = (double)(call.end_ns - call.start_ns) * 1e-6;
    *tokens = (double)json_int(out);
out:
    json_free(root);
    buf_fini(&call.answer);
    buf_fini(&body);
    return st;
}

static status ask_server(struct bench *b, const struct ablation_opts *o, const char *url,
                         const char *key, const char *model, struct runs *r, struct err *e)
{
    struct client_opts co = {.base_url = url,
                             .api_key = key,
                             .n_parallel = 1,
                             .backoff_s = 1,
                             .backoff_max_s = 10,
                             .connect_timeout_s = 10,
                             .max_answer_bytes = ANSWER_MAX};
    struct client *c = NULL;
    double ms, tokens;
    status st = OK;
    TRY(client_open(&co, &c, e));
    TRY(ask_once(b, c, model, 1, &ms, &tokens, e)); /* warm-up */
    for (int i = 0; i < o->n_run; i++) {
        TRY(ask_once(b, c, model, o->max_new_tokens, &ms, &tokens, e));
        runs_put(r, ms, tokens);
    }
out:
    client_close(c);
    return st;
}

static status in_process(struct bench *b, const struct ablation_opts *o, struct runs *r,
                         struct err *e)
{
    struct probe p = {0};
    status st = OK;
    TRY(probe_open(&p, b, o->max_new_tokens + FRAME_ROOM, e));
    TRY(probe_chat(&p, question, e));
    TRY(shoot(&p, o, probe_params(o->max_new_tokens), r, e));
out:
    probe_close(&p);
    return st;
}

static status own_server(struct bench *b, const struct ablation_opts *o, struct runs *r,
                         struct err *e)
{
    struct gloss_engine_opts eo = b->engine;
    gloss_engine *g = NULL;
    char url[64];
    bool serving = false;
    status st = OK;
    eo.n_ctx = o->max_new_tokens + FRAME_ROOM;
    eo.max_requests = 1;
    eo.no_prefix_cache = 1;
    TRY(gloss_engine_new(b->model, &eo, &g, bench_err(e)));
    TRY(b->serve_begin(b->ctx, b->model, g, b->name, url, e));
    serving = true;
    TRY(ask_server(b, o, url, NULL, b->name, r, e));
out:
    if (serving)
        b->serve_end(b->ctx);
    gloss_engine_free(g);
    return st;
}

static status server(struct bench *b, const struct ablation_opts *o, struct sheet *s, struct err *e)
{
    const char *const name[] = {"gloss", "gloss serve", o->base_url};
    status st = OK;
    for (int i = 0; i < (o->base_url ? 3 : 2); i++) {
        struct runs r = {0};
        struct err why = {0};
        bench_say(b, "server: %s", name[i]);
        st = i == 0   ? in_process(b, o, &r, &why)
             : i == 1 ? own_server(b, o, &r, &why)
                      : ask_server(b, o, o->base_url, o->api_key,
                                   o->remote_model ? o->remote_model : b->name, &r, &why);
        TRY(end_variant(s, b, o, "framework", name[i], st, &r, &why, e));
    }
out:
    return st;
}

/* ---- all ---- */

static const struct {
    const char *test, *file, *columns;
    status (*run)(struct bench *, const struct ablation_opts *, struct sheet *, struct err *);
} tests[] = {{"decoding", "decoding_parameters", decoding_columns, decoding},
             {"quantization", "quantization_effects", precision_columns, precision},
             {"context", "context_scaling", context_columns, context},
             {"server", "server_comparison", server_columns, server}};
enum { N_TEST = sizeof tests / sizeof *tests };

/* Whether every word of the list is known. */
static bool all_known(const char *list, bool (*known)(const char *word, size_t n))
{
    for (const char *p = list; *p; p += *p == ',') {
        size_t n = strcspn(p, ",");
        if (!known(p, n))
            return false;
        p += n;
    }
    return true;
}

static bool is_word(const char *name, const char *word, size_t n)
{
    return strlen(name) == n && strncmp(name, word, n) == 0;
}

static bool known_test(const char *word, size_t n)
{
    for (int i = 0; i < N_TEST; i++)
        if (is_word(tests[i].test, word, n))
            return true;
    return is_word("all", word, n);
}

static bool known_precision(const char *word, size_t n)
{
    for (int i = 0; i < N_PRECISION; i++)
        if (is_word(precision_name[i], word, n))
            return true;
    return false;
}

status ablation_check(const struct ablation_opts *o, struct err *e)
{
    if (!all_known(o->tests, known_test))
        return err_param(e, E_INPUT, "tests",
                         "--tests '%.60s': must be all or some of decoding, quantization, "
                         "context, server",
                         o->tests);
    if (!all_known(o->precisions, known_precision))
        return err_param(e, E_INPUT, "precisions",
                         "--precisions '%.60s': must be some of mxfp4, bf16, fp32, q8",
                         o->precisions);
    return OK;
}

status ablation_run(struct bench *b, const struct ablation_opts *o, struct err *e)
{
    struct buf all;
    char tag[256], path[4096];
    const char *sep = "";
    buf_init(&all, 16 << 20);
    snprintf(tag, sizeof tag, "%s", b->name);
    for (char *p = tag; *p; p++)
        *p = *p == '/' ? '_' : *p;
    status st = OK;
    TRY(bench_folder(o->dir, e));
    buf_puts(&all, "{");
    for (int i = 0; i < N_TEST; i++) {
        struct sheet s = {0};
        if (!bench_listed(o->tests, "all") && !bench_listed(o->tests, tests[i].test))
            continue;
        snprintf(path, sizeof path, "%s/ablation_%s_%s.csv", o->dir, tests[i].file, tag);
        st = sheet_init(&s, tests[i].columns, e);
        if (st == OK)
            st = tests[i].run(b, o, &s, e);
        if (st == OK)
            st = sheet_save(&s, path, e);
        if (st == OK) {
            buf_printf(&all, "%s\"%s\": ", sep, tests[i].file);
            sheet_json(&s, &all);
            sep = ", ";
        }
        sheet_fini(&s);
        TRY(st);
    }
    buf_puts(&all, "}\n");
    TRY(buf_status(&all) < 0 ? err_set(e, E_NOMEM, "out of memory") : OK);
    snprintf(path, sizeof path, "%s/ablation_all_%s.json", o->dir, tag);
    TRY(file_save(path, all.p, all.n, e));
out:
    buf_fini(&all);
    return st;
}
