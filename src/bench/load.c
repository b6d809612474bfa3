/* Many requests at once against an OpenAI-style server: the serving sweep.
 *
 * A cell is a number of requests under way, a prompt length and an answer length; as one request
 * ends the next begins. Every answer is streamed and every event has its time, taken where it
 * arrives. No two prompts begin alike, so that a prefix cache finds nothing. Token numbers are the
 * server's own (usage); a chunk of a stream may hold several tokens, and then gaps between chunks
 * (ITL) are not gaps between tokens, but TPOT still is per token.
 *
 * Percentiles here are the usual ones, as in vLLM's benchmark, whose text block and JSON keys a
 * cell is also written in.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/machine.h"
#include "remote/client.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BODY_MAX = 64 << 20, WAIT_MS = 100, FRAME_ROOM = 512, LEAST_REQUESTS = 10, PER_PLACE = 4 };

static const char columns[] =
    "model endpoint concurrency prompt_tokens gen_tokens requests failed duration_s "
    "mean_prompt_tokens mean_output_tokens mean_reasoning_tokens ttft_p50_ms ttft_p95_ms "
    "ttft_p99_ms ttft_reasoning_p50_ms ttft_reasoning_p95_ms ttft_reasoning_p99_ms "
    "ttft_final_p50_ms ttft_final_p95_ms ttft_final_p99_ms s_per_token_p50 s_per_token_p95 "
    "s_per_token_p99 itl_p50_ms itl_p95_ms itl_p99_ms e2e_p50_ms e2e_p95_ms e2e_p99_ms "
    "requests_per_s output_tokens_per_s total_tokens_per_s";

status load_columns(struct sheet *s, struct err *e)
{
    return sheet_init(s, columns, e);
}

/* ---- one request ---- */

struct ask {
    struct client_call call;
    struct buf body, text;            /* what is sent; what was answered */
    struct series at;                 /* ns at which its pieces came */
    uint64_t reasoning_ns, final_ns;  /* first piece of the kind, 0: none */
    int64_t n_in, n_out, n_reasoning; /* tokens, -1: the server did not say */
    bool done;
};

static void ask_fini(struct ask *a)
{
    buf_fini(&a->call.answer);
    buf_fini(&a->body);
    buf_fini(&a->text);
    series_fini(&a->at);
}

/* The text of a member, "" when absent or of another kind. */
static const char *member(const struct json *o, const char *key, size_t *n)
{
    const struct json *v = json_get(o, key);
    *n = 0;
    return json_kind(v) == J_STR ? json_str(v, n) : "";
}

static void read_usage(struct ask *a, const struct json *u)
{
    if (json_kind(u) != J_OBJ)
        return;
    const struct json *in = json_get(u, "prompt_tokens"), *out = json_get(u, "completion_tokens"),
                      *why = json_get(json_get(u, "completion_tokens_details"), "reasoning_tokens");
    a->n_in = json_kind(in) == J_INT ? json_int(in) : a->n_in;
    a->n_out = json_kind(out) == J_INT ? json_int(out) : a->n_out;
    a->n_reasoning = json_kind(why) == J_INT ? json_int(why) : a->n_reasoning;
}

/* A chunk of /chat/completions or /completions. */
static status on_data(void *user, const char *data, size_t n, uint64_t t_ns, struct err *e)
{
    struct ask *a = user;
    struct json *root = NULL;
    size_t n_why, n_why2, n_text, n_plain;
    status st = OK;
    TRY(json_parse(data, n, &json_limits_file, &root, e));
    const struct json *choice = json_at(json_get(root, "choices"), 0),
                      *delta = json_get(choice, "delta");
    (void)member(delta, "reasoning", &n_why);
    (void)member(delta, "reasoning_content", &n_why2);
    const char *text = member(delta, "content", &n_text), *plain = member(choice, "text", &n_plain);
    if ((n_why || n_why2) && !a->reasoning_ns)
        a->reasoning_ns = t_ns;
    if ((n_text || n_plain) && !a->final_ns)
        a->final_ns = t_ns;
    buf_put(&a->text, text, n_text);
    buf_put(&a->text, plain, n_plain);
    if (n_why || n_why2 || n_text || n_plain || json_len(json_get(delta, "tool_calls")))
        series_put(&a->at, (double)t_ns);
    read_usage(a, json_get(root, "usage"));
out:
    json_free(root);
    return st;
}

/* ---- prompts ---- */

static const char filler_text[] =
    " The night train left the valley at ten, and the lamps of the stations went by like beads on "
    "a string: a mill, a bridge, a yard full of timber, then nothing but snow for an hour. Nobody "
    "spoke. A child counted the tunnels and fell asleep at the ninth.";

/* Prompt number `k`: its number, so that none begins like another, then filler, n tokens. */
static status make_prompt(gloss_model *m, int k, int n, int32_t **ids, struct err *e)
{
    int32_t *head = NULL, *filler = NULL;
    size_t n_head, n_filler;
    char first[64];
    status st = OK;
    *ids = mem_array((size_t)n, sizeof **ids);
    if (!*ids)
        TRY(err_set(e, E_NOMEM, "out of memory for a prompt of %d tokens", n));
    snprintf(first, sizeof first, "%d", k);
    TRY(gloss_encode(m, first, strlen(first), GLOSS_SPECIAL_TEXT, &head, &n_head, bench_err(e)));
    TRY(gloss_encode(m, filler_text, sizeof filler_text - 1, GLOSS_SPECIAL_TEXT, &filler, &n_filler,
                     bench_err(e)));
    for (size_t i = 0; i < (size_t)n; i++)
        (*ids)[i] = i < n_head ? head[i] : filler[(i - n_head) % n_filler];
out:
    gloss_free(head);
    gloss_free(filler);
    return st;
}

static status put_prompt(struct buf *b, gloss_model *m, const struct load_opts *o,
                         const int32_t *ids, int n, struct err *e)
{
    char *text = NULL;
    size_t len;
    if (o->completions) {
        buf_puts(b, "\"prompt\":[");
        for (int i = 0; i < n; i++)
            buf_printf(b, "%s%d", i ? "," : "", ids[i]);
        buf_puts(b, "]");
        return OK;
    }
    status st = gloss_decode(m, ids, (size_t)n, &text, &len, bench_err(e));
    if (st < 0)
        return st;
    buf_puts(b, "\"messages\":[{\"role\":\"user\",\"content\":");
    json_quote(b, text, len);
    buf_puts(b, "}]");
    if (o->effort)
        buf_printf(b, ",\"reasoning_effort\":\"%s\"", o->effort);
    gloss_free(text);
    return OK;
}

static status ask_init(struct ask *a, gloss_model *m, const struct load_opts *o,
                       const char *model_name, int k, int n_prompt, int n_gen, struct err *e)
{
    int32_t *ids = NULL;
    status st = OK;
    *a = (struct ask){.n_in = -1, .n_out = -1, .n_reasoning = -1};
    buf_init(&a->body, BODY_MAX);
    buf_init(&a->text, BODY_MAX);
    TRY(make_prompt(m, k, n_prompt, &ids, e));
    buf_puts(&a->body, "{\"model\":");
    json_quote(&a->body, model_name, strlen(model_name));
    buf_putc(&a->body, ',');
    TRY(put_prompt(&a->body, m, o, ids, n_prompt, e));
    buf_printf(&a->body,
               ",\"max_tokens\":%d,\"temperature\":0,\"ignore_eos\":true,\"stream\":true,"
               "\"stream_options\":{\"include_usage\":true}}",
               n_gen);
    if (buf_status(&a->body) < 0)
        TRY(err_set(e, E_NOMEM, "out of memory for the requests"));
    a->call.path = o->completions ? "/completions" : "/chat/completions";
    a->call.body = a->body.p;
    a->call.n_body = a->body.n;
    a->call.on_data = on_data;
    a->call.user = a;
out:
    mem_free(ids);
    return st;
}

/* ---- a cell ---- */

struct cell {
    int concurrency, n_prompt, n_gen, n;
    struct ask *ask; /* [n] */
    int n_done, n_failed;
    double duration;
    double n_in, n_out, n_reasoning; /* tokens of all that succeeded */
    struct series ttft, reasoning, final, tpot, itl, e2e;
    double peak_rate;
    int peak_open;
};

static void cell_fini(struct cell *c)
{
    struct series *all[] = {&c->ttft, &c->reasoning, &c->final, &c->tpot, &c->itl, &c->e2e};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        series_fini(all[i]);
    for (int i = 0; c->ask && i < c->n; i++)
        ask_fini(&c->ask[i]);
    mem_free(c->ask);
}

static double ms_between(uint64_t from, uint64_t to)
{
    return ((double)to - (double)from) * 1e-6;
}

static void add_answer(struct cell *c, const struct ask *a)
{
    uint64_t start = a->call.start_ns;
    size_t n = a->at.n;
    double n_out = a->n_out >= 0 ? (double)a->n_out : (double)n;
    c->n_done++;
    c->n_in += (double)(a->n_in >= 0 ? a->n_in : c->n_prompt);
    c->n_out += n_out;
    c->n_reasoning += a->n_reasoning > 0 ? (double)a->n_reasoning : 0;
    series_put(&c->e2e, ms_between(start, a->call.end_ns));
    if (n == 0)
        return;
    series_put(&c->ttft, (a->at.v[0] - (double)start) * 1e-6);
    if (a->reasoning_ns)
        series_put(&c->reasoning, ms_between(start, a->reasoning_ns));
    if (a->final_ns)
        series_put(&c->final, ms_between(start, a->final_ns));
    for (size_t i = 1; i < n; i++)
        series_put(&c->itl, (a->at.v[i] - a->at.v[i - 1]) * 1e-6);
    if (n_out > 1)
        series_put(&c->tpot, (a->at.v[n - 1] - a->at.v[0]) * 1e-6 / (n_out - 1));
}

/* The busiest second by its pieces, and the most requests open at once. */
static void find_peaks(struct cell *c, uint64_t first_ns)
{
    struct series start = {0}, end = {0};
    size_t n_bucket = (size_t)c->duration + 1;
    uint32_t *bucket = mem_calloc(n_bucket, sizeof *bucket);
    for (int i = 0; i < c->n; i++) {
        const struct ask *a = &c->ask[i];
        if (a->call.st < 0)
            continue;
        series_put(&start, (double)a->call.start_ns);
        series_put(&end, (double)a->call.end_ns);
        for (size_t k = 0; bucket && k < a->at.n; k++) {
            size_t at = (size_t)((a->at.v[k] - (double)first_ns) * 1e-9);
            if (at < n_bucket && ++bucket[at] > c->peak_rate)
                c->peak_rate = bucket[at];
        }
    }
    (void)series_ceil(&start, 0); /* sorts */
    (void)series_ceil(&end, 0);
    for (size_t i = 0, k = 0; i < start.n; i++) {
        while (k < end.n && end.v[k] <= start.v[i])
            k++;
        c->peak_open = (int)(i + 1 - k) > c->peak_open ? (int)(i + 1 - k) : c->peak_open;
    }
    series_fini(&start);
    series_fini(&end);
    mem_free(bucket);
}

static status run_cell(struct bench *b, struct client *client, struct cell *c, struct err *e)
{
    const struct client_call *why = NULL; /* the first that failed */
    uint64_t first = UINT64_MAX, last = 0;
    status st = OK;
    for (int i = 0; i < c->n; i++)
        TRY(client_send(client, &c->ask[i].call, e));
    while (client_running(client) > 0) {
        TRY(b->check_stop(e));
        (void)client_next(client, WAIT_MS);
    }
    for (int i = 0; i < c->n; i++) {
        const struct ask *a = &c->ask[i];
        if (a->call.st < 0) {
            why = c->n_failed++ ? why : &a->call;
            continue;
        }
        add_answer(c, a);
        first = a->call.start_ns < first ? a->call.start_ns : first;
        last = a->call.end_ns > last ? a->call.end_ns : last;
    }
    if (c->n_done == 0 && why && why->http == 0)
        TRY(err_set(e, why->st, "%s", why->err.msg)); /* nobody is there */
    if (why)
        bench_say(b, "%d requests failed, the first: %s", c->n_failed, why->err.msg);
    if (c->n_done) {
        c->duration = (double)(last - first) * 1e-9;
        find_peaks(c, first);
    }
out:
    return st;
}

/* ---- what is written ---- */

static void put_three(struct sheet *s, const char *name, const char *unit, struct series *v,
                      double scale)
{
    static const char *const level[] = {"p50", "p95", "p99"};
    static const double q[] = {0.5, 0.95, 0.99};
    char col[64];
    for (int i = 0; i < 3; i++) {
        snprintf(col, sizeof col, "%s_%s%s", name, level[i], unit);
        sheet_num(s, col, series_linear(v, q[i]) * scale);
    }
}

static void put_row(struct sheet *s, const char *name, const struct load_opts *o, struct cell *c)
{
    double n = c->n_done;
    sheet_row(s);
    sheet_text(s, "model", name);
    sheet_text(s, "endpoint", o->completions ? "completions" : "chat");
    sheet_int(s, "concurrency", c->concurrency);
    sheet_int(s, "prompt_tokens", c->n_prompt);
    sheet_int(s, "gen_tokens", c->n_gen);
    sheet_int(s, "requests", c->n);
    sheet_int(s, "failed", c->n_failed);
    if (c->n_done == 0)
        return;
    sheet_num(s, "duration_s", c->duration);
    sheet_num(s, "mean_prompt_tokens", c->n_in / n);
    sheet_num(s, "mean_output_tokens", c->n_out / n);
    sheet_num(s, "mean_reasoning_tokens", c->n_reasoning / n);
    put_three(s, "ttft", "_ms", &c->ttft, 1);
    put_three(s, "ttft_reasoning", "_ms", &c->reasoning, 1);
    put_three(s, "ttft_final", "_ms", &c->final, 1);
    put_three(s, "s_per_token", "", &c->tpot, 1e-3);
    put_three(s, "itl", "_ms", &c->itl, 1);
    put_three(s, "e2e", "_ms", &c->e2e, 1);
    sheet_num(s, "requests_per_s", n / c->duration);
    sheet_num(s, "output_tokens_per_s", c->n_out / c->duration);
    sheet_num(s, "total_tokens_per_s", (c->n_in + c->n_out) / c->duration);
}

struct metric {
    const char *key, *title, *label;
    struct series *v;
};

static void text_line(struct buf *b, const char *label, double v, bool whole)
{
    if (whole)
        buf_printf(b, "%-40s %-10.0f\n", label, v);
    else
        buf_printf(b, "%-40s %-10.2f\n", label, v);
}

/* A title in the middle of fifty of the character. */
static void text_title(struct buf *b, const char *title, char fill)
{
    int n = (int)strlen(title), left = (50 - n) / 2;
    for (int i = 0; i < 50 - n + 1; i++) {
        if (i == left)
            buf_puts(b, title);
        if (i < 50 - n)
            buf_putc(b, fill);
    }
    buf_putc(b, '\n');
}

static void put_text(struct buf *b, struct cell *c, const struct metric *m, int n_metric)
{
    char label[64];
    text_title(b, " Serving Benchmark Result ", '=');
    text_line(b, "Successful requests:", c->n_done, true);
    text_line(b, "Failed requests:", c->n_failed, true);
    text_line(b, "Maximum request concurrency:", c->concurrency, true);
    text_line(b, "Benchmark duration (s):", c->duration, false);
    text_line(b, "Total input tokens:", c->n_in, true);
    text_line(b, "Total generated tokens:", c->n_out, true);
    text_line(b, "Request throughput (req/s):", c->n_done / c->duration, false);
    text_line(b, "Output token throughput (tok/s):", c->n_out / c->duration, false);
    text_line(b, "Peak output token throughput (tok/s):", c->peak_rate, false);
    text_line(b, "Peak concurrent requests:", c->peak_open, false);
    text_line(b, "Total token throughput (tok/s):", (c->n_in + c->n_out) / c->duration, false);
    for (int i = 0; i < n_metric; i++) {
        text_title(b, m[i].title, '-');
        snprintf(label, sizeof label, "Mean %s (ms):", m[i].label);
        text_line(b, label, series_mean(m[i].v), false);
        snprintf(label, sizeof label, "Median %s (ms):", m[i].label);
        text_line(b, label, series_median(m[i].v), false);
        snprintf(label, sizeof label, "P99 %s (ms):", m[i].label);
        text_line(b, label, series_linear(m[i].v, 0.99), false);
    }
    text_title(b, "", '=');
}

static void key_num(struct buf *b, const char *key, double v)
{
    buf_printf(b, ",\"%s\":", key);
    json_put_num(b, v);
}

static void put_details(struct buf *b, const struct cell *c)
{
    const char *sep;
    buf_puts(b, ",\"input_lens\":[");
    for (int i = 0; i < c->n; i++)
        buf_printf(b, "%s%lld", i ? "," : "",
                   (long long)(c->ask[i].n_in >= 0 ? c->ask[i].n_in : c->n_prompt));
    buf_puts(b, "],\"output_lens\":[");
    for (int i = 0; i < c->n; i++)
        buf_printf(b, "%s%lld", i ? "," : "",
                   (long long)(c->ask[i].n_out >= 0 ? c->ask[i].n_out : (int64_t)c->ask[i].at.n));
    buf_puts(b, "],\"ttfts\":[");
    for (int i = 0; i < c->n; i++) {
        const struct ask *a = &c->ask[i];
        buf_puts(b, i ? "," : "");
        json_put_num(b, a->at.n ? (a->at.v[0] - (double)a->call.start_ns) * 1e-9 : 0);
    }
    buf_puts(b, "],\"itls\":[");
    for (int i = 0; i < c->n; i++) {
        const struct ask *a = &c->ask[i];
        buf_puts(b, i ? ",[" : "[");
        sep = "";
        for (size_t k = 1; k < a->at.n; k++, sep = ",") {
            buf_puts(b, sep);
            json_put_num(b, (a->at.v[k] - a->at.v[k - 1]) * 1e-9);
        }
        buf_puts(b, "]");
    }
    buf_puts(b, "],\"generated_texts\":[");
    for (int i = 0; i < c->n; i++) {
        buf_puts(b, i ? "," : "");
        json_quote(b, c->ask[i].text.p, c->ask[i].text.n);
    }
    buf_puts(b, "],\"errors\":[");
    for (int i = 0; i < c->n; i++) {
        const char *why = c->ask[i].call.st < 0 ? c->ask[i].call.err.msg : "";
        buf_puts(b, i ? "," : "");
        json_quote(b, why, strlen(why));
    }
    buf_puts(b, "]");
}

/* The result of a cell in the key names of vLLM's benchmark, in a file of its own. */
static status save_json(const struct load_opts *o, const char *name, struct cell *c,
                        const struct metric *m, int n_metric, struct err *e)
{
    const char *endpoint = o->completions ? "openai" : "openai-chat";
    char path[4096], date[32], tag[128], key[64];
    struct buf b;
    buf_init(&b, 1 << 30);
    bench_tag(name, tag);
    machine_date(date);
    status st = OK;
    buf_printf(&b, "{\"date\":\"%s\",\"endpoint_type\":\"%s\",\"backend\":\"%s\",\"label\":null,",
               date, endpoint, endpoint);
    buf_puts(&b, "\"model_id\":");
    json_quote(&b, name, strlen(name));
    buf_puts(&b, ",\"tokenizer_id\":");
    json_quote(&b, name, strlen(name));
    buf_printf(&b,
               ",\"num_prompts\":%d,\"request_rate\":\"inf\",\"burstiness\":1.0,"
               "\"max_concurrency\":%d",
               c->n, c->concurrency);
    key_num(&b, "duration", c->duration);
    buf_printf(&b, ",\"completed\":%d,\"failed\":%d", c->n_done, c->n_failed);
    key_num(&b, "total_input_tokens", c->n_in);
    key_num(&b, "total_output_tokens", c->n_out);
    key_num(&b, "request_throughput", c->n_done / c->duration);
    buf_puts(&b, ",\"request_goodput\":null");
    key_num(&b, "output_throughput", c->n_out / c->duration);
    key_num(&b, "total_token_throughput", (c->n_in + c->n_out) / c->duration);
    key_num(&b, "max_output_tokens_per_s", c->peak_rate);
    key_num(&b, "max_concurrent_requests", c->peak_open);
    put_details(&b, c);
    for (int i = 0; i < n_metric; i++) {
        snprintf(key, sizeof key, "mean_%s_ms", m[i].key);
        key_num(&b, key, series_mean(m[i].v));
        snprintf(key, sizeof key, "median_%s_ms", m[i].key);
        key_num(&b, key, series_median(m[i].v));
        snprintf(key, sizeof key, "std_%s_ms", m[i].key);
        key_num(&b, key, series_std(m[i].v));
        snprintf(key, sizeof key, "p99_%s_ms", m[i].key);
        key_num(&b, key, series_linear(m[i].v, 0.99));
    }
    buf_puts(&b, "}\n");
    snprintf(path, sizeof path, "%s/%s-infqps-concurrency%d-in%d-out%d-%s.json", o->result_dir,
             endpoint, c->concurrency, c->n_prompt, c->n_gen, tag);
    TRY(buf_status(&b) < 0 ? err_set(e, E_NOMEM, "out of memory for %.200s", path) : OK);
    TRY(bench_folder(o->result_dir, e));
    TRY(file_save(path, b.p, b.n, e));
out:
    buf_fini(&b);
    return st;
}

/* ---- the sweep ---- */

struct sweep {
    struct bench *b;
    const struct load_opts *o;
    const char *url, *model_name;
    char first_model[256]; /* what model_name may point to */
    int n_sent;            /* prompts made so far: their numbers */
};

static status open_client(const struct sweep *w, int n_parallel, struct client **c, struct err *e)
{
    struct client_opts o = {.base_url = w->url,
                            .api_key = w->o->api_key,
                            .n_parallel = n_parallel,
                            .backoff_s = 1,
                            .backoff_max_s = 10,
                            .connect_timeout_s = 10,
                            .max_answer_bytes = BODY_MAX};
    return client_open(&o, c, e);
}

/* The server's first model, for who did not name one. */
static status ask_model(struct sweep *w, struct err *e)
{
    struct client *client = NULL;
    struct client_call call = {.path = "/models"};
    struct json *root = NULL;
    status st = OK;
    TRY(open_client(w, 1, &client, e));
    TRY(client_send(client, &call, e));
    while (client_running(client) > 0) {
        TRY(w->b->check_stop(e));
        (void)client_next(client, WAIT_MS);
    }
    if (call.st < 0)
        TRY(err_set(e, call.st, "%s", call.err.msg));
    TRY(json_parse(call.answer.p, call.answer.n, &json_limits_file, &root, e));
    size_t n;
    const char *id = member(json_at(json_get(root, "data"), 0), "id", &n);
    if (n == 0)
        TRY(err_set(e, E_FORMAT, "%.120s lists no model: name it with --served-model-name",
                    w->url));
    snprintf(w->first_model, sizeof w->first_model, "%s", id);
    w->model_name = w->first_model;
    bench_say(w->b, "model of the server: %s", w->model_name);
out:
    json_free(root);
    client_close(client);
    buf_fini(&call.answer);
    return st;
}

static status measure(struct sweep *w, struct cell *c, struct sheet *s, struct buf *text,
                      struct err *e)
{
    struct client *client = NULL;
    const struct load_opts *o = w->o;
    status st = OK;
    c->ask = mem_calloc((size_t)c->n, sizeof *c->ask);
    if (!c->ask)
        TRY(err_set(e, E_NOMEM, "out of memory for %d requests", c->n));
    for (int i = 0; i < c->n; i++)
        TRY(ask_init(&c->ask[i], w->b->model, o, w->model_name, w->n_sent++, c->n_prompt, c->n_gen,
                     e));
    TRY(open_client(w, c->concurrency, &client, e));
    TRY(run_cell(w->b, client, c, e));
    const struct metric metric[] = {
        {"ttft", "Time to First Token", "TTFT", &c->ttft},
        {"tpot", "Time per Output Token (excl. 1st token)", "TPOT", &c->tpot},
        {"itl", "Inter-token Latency", "ITL", &c->itl},
        {"e2el", "End-to-end Latency", "E2EL", &c->e2e},
    };
    if (!s)
        goto out;
    put_row(s, w->b->name, o, c);
    TRY(sheet_end_row(s, e));
    if (text && c->n_done)
        put_text(text, c, metric, 4);
    if (o->result_dir && c->n_done)
        TRY(save_json(o, w->b->name, c, metric, 4, e));
out:
    client_close(client);
    return st;
}

/* Whether the row is there already. */
static bool has_row(const struct sheet *s, int concurrency, int n_prompt, int n_gen)
{
    for (int i = 0; i < s->n_row; i++)
        if (sheet_get_num(s, i, "concurrency") == concurrency &&
            sheet_get_num(s, i, "prompt_tokens") == n_prompt &&
            sheet_get_num(s, i, "gen_tokens") == n_gen)
            return true;
    return false;
}

static int requests_of(const struct load_opts *o, int concurrency)
{
    int n = PER_PLACE * concurrency;
    return o->n_request ? o->n_request : n > LEAST_REQUESTS ? n : LEAST_REQUESTS;
}

static status sweep(struct sweep *w, struct sheet *s, struct buf *text, struct err *e)
{
    const struct load_opts *o = w->o;
    int n_cell = o->prompt.n * o->gen.n * o->concurrency.n, at = 0;
    struct cell c = {.concurrency = 1, .n_prompt = o->prompt.v[0], .n_gen = 2, .n = 1};
    status st = OK;
    TRY(measure(w, &c, NULL, NULL, e)); /* warm-up: connection, tables, caches */
    for (int p = 0; p < o->prompt.n; p++)
        for (int g = 0; g < o->gen.n; g++)
            for (int i = 0; i < o->concurrency.n; i++) {
                cell_fini(&c);
                c = (struct cell){.concurrency = o->concurrency.v[i],
                                  .n_prompt = o->prompt.v[p],
                                  .n_gen = o->gen.v[g],
                                  .n = requests_of(o, o->concurrency.v[i])};
                bench_say(w->b, "serve %d of %d: %d at once, %d tokens in, %d out", ++at, n_cell,
                          c.concurrency, c.n_prompt, c.n_gen);
                if (!has_row(s, c.concurrency, c.n_prompt, c.n_gen))
                    TRY(measure(w, &c, s, text, e));
            }
out:
    cell_fini(&c);
    return st;
}

status load_run(struct bench *b, const struct load_opts *o, struct sheet *s, struct buf *text,
                struct err *e)
{
    struct sweep w = {.b = b, .o = o, .url = o->base_url, .model_name = b->name};
    const char *name = b->name;
    gloss_engine *g = NULL;
    char url[64];
    bool serving = false;
    status st = OK;
    if (o->remote_model)
        w.model_name = o->remote_model;
    if (!w.model_name)
        TRY(ask_model(&w, e));
    b->name = name ? name : w.model_name;
    if (!w.url) {
        struct gloss_engine_opts eo = b->engine;
        eo.n_ctx = int_list_most(&o->prompt) + int_list_most(&o->gen) + FRAME_ROOM;
        eo.max_requests = int_list_most(&o->concurrency);
        eo.no_prefix_cache = 1;
        TRY(gloss_engine_new(b->model, &eo, &g, bench_err(e)));
        TRY(b->serve_begin(b->ctx, b->model, g, w.model_name, url, e));
        serving = true;
        w.url = url;
    }
    TRY(sweep(&w, s, text, e));
out:
    if (serving)
        b->serve_end(b->ctx);
    gloss_engine_free(g);
    b->name = name;
    return st;
}
