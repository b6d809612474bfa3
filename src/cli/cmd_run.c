/* gloss run NAME ENTRYPOINT: the runner's form of gloss. Parameters are a map in YAML or JSON, the
 * result an envelope {"content_type","data"}; exit codes are the runner's own (see below).
 *
 *   infer                one answer to a conversation
 *   setup                whether this machine can run the model
 *   download_files       where its files are
 *   benchmark_tinymmlu   accuracy on tinyMMLU
 */
#include "base/file.h"
#include "cli/cli.h"
#include "eval/eval.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct runner {
    struct conf *c;
    const char *model; /* what is opened */
    struct buf params; /* JSON text of the merged parameters */
    struct json *root; /* the same, parsed */
    gloss_model *m;
    gloss_engine *g;
    char day[16];
    const char *date;
    struct buf data; /* the result, one JSON value */
};

/* ---- parameters ---- */

/* "3" -> 3, "0.5" -> 0.5, "true", JSON that begins with [ or {, else text: as the runner types
 * them. */
static status put_value(struct buf *b, const char *s, struct err *e)
{
    size_t n = strlen(s);
    struct json *j = NULL;
    struct err je = {0};
    bool word = strcmp(s, "true") == 0 || strcmp(s, "false") == 0 || strcmp(s, "True") == 0 ||
                strcmp(s, "False") == 0;
    if (word) {
        buf_puts(b, *s == 't' || *s == 'T' ? "true" : "false");
        return OK;
    }
    if (*s == '[' || *s == '{') {
        status st = json_parse(s, n, &json_limits_file, &j, &je);
        if (st < 0)
            return err_set(e, E_PARAMS, "%.200s", je.msg);
        json_dump(b, j);
        json_free(j);
        return OK;
    }
    bool digits = n && strspn(s, "+-.0123456789eE") == n && strpbrk(s, "0123456789");
    if (digits && yaml_to_json(s, n, b, &je) == OK)
        return OK;
    json_quote(b, s, n);
    return OK;
}

static status bad(struct err *e, const char *fmt, const char *a, const char *b)
{
    char text[200];
    snprintf(text, sizeof text, fmt, a, b);
    return err_set(e, E_PARAMS, "%s", text);
}

/* --params: the file of that name, else the text itself; then every -p. */
static status read_params(struct runner *r, struct err *e)
{
    const char *params = conf_str(r->c, "params");
    const struct conf_val *list = conf_get(r->c, "param");
    struct buf text, json;
    struct json *base = NULL;
    struct err je = {0};
    buf_init(&text, CLI_TEXT_MAX);
    buf_init(&json, CLI_TEXT_MAX);
    status st = OK;
    if (params && file_exists(params))
        TRY(input_file(params, &text, e));
    else if (params)
        buf_puts(&text, params);
    if (params && (yaml_to_json(text.p, text.n, &json, &je) < 0 ||
                   json_parse(json.p, json.n, &json_limits_file, &base, &je) < 0))
        TRY(bad(e, "--params: %.180s%s", je.msg, ""));
    if (params && json_kind(base) != J_OBJ)
        TRY(bad(e, "--params: a map is wanted%s%s", "", ""));
    buf_putc(&r->params, '{');
    for (void *it = json_first(base); it; it = json_next(base, it)) {
        size_t n;
        const char *key = json_key(it, &n);
        bool replaced = false;
        for (int i = 0; i < list->n_list; i++)
            replaced = replaced || (strncmp(list->list[i], key, n) == 0 && list->list[i][n] == '=');
        if (replaced)
            continue;
        buf_puts(&r->params, r->params.n > 1 ? "," : "");
        json_quote(&r->params, key, n);
        buf_putc(&r->params, ':');
        json_dump(&r->params, json_val(it));
    }
    for (int i = 0; i < list->n_list; i++) {
        const char *s = list->list[i], *eq = strchr(s, '=');
        bool later = false;
        if (!eq || eq == s)
            TRY(bad(e, "-p '%.80s': KEY=VALUE is wanted%s", s, ""));
        for (int k = i + 1; k < list->n_list; k++) /* the last one counts */
            later = later || strncmp(list->list[k], s, (size_t)(eq - s) + 1) == 0;
        if (later)
            continue;
        buf_puts(&r->params, r->params.n > 1 ? "," : "");
        json_quote(&r->params, s, (size_t)(eq - s));
        buf_putc(&r->params, ':');
        TRY(put_value(&r->params, eq + 1, e));
    }
    buf_putc(&r->params, '}');
    if (json_parse(r->params.p, r->params.n, &json_limits_file, &r->root, &je) < 0)
        st = bad(e, "the parameters: %.180s%s", je.msg, "");
out:
    json_free(base);
    buf_fini(&json);
    buf_fini(&text);
    return st;
}

/* Refuses keys that are not among the words. */
static status only(const struct runner *r, const char *const *keys, struct err *e)
{
    for (void *it = json_first(r->root); it; it = json_next(r->root, it)) {
        int i = 0;
        while (keys[i] && strcmp(keys[i], json_key(it, NULL)) != 0)
            i++;
        if (!keys[i])
            return bad(e, "unknown parameter '%.80s' of %s", json_key(it, NULL), r->c->pos[1]);
    }
    return OK;
}

static status get_int(const struct runner *r, const char *key, int64_t lo, int64_t hi, int64_t *v,
                      struct err *e)
{
    struct err je = {0};
    return json_get_int(r->root, key, lo, hi, v, &je) < 0 ? err_set(e, E_PARAMS, "%s", je.msg) : OK;
}

static status get_num(const struct runner *r, const char *key, double lo, double hi, double *v,
                      struct err *e)
{
    struct err je = {0};
    return json_get_num(r->root, key, lo, hi, v, &je) < 0 ? err_set(e, E_PARAMS, "%s", je.msg) : OK;
}

static status get_word(const struct runner *r, const char *key, const char *const *words,
                       const char **v, struct err *e)
{
    struct err je = {0};
    if (json_get_str(r->root, key, v, &je) < 0)
        return err_set(e, E_PARAMS, "%s", je.msg);
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], *v) == 0)
            return OK;
    return bad(e, "%s: '%.60s' is not allowed here", key, *v);
}

static status get_bool(const struct runner *r, const char *key, bool *v, struct err *e)
{
    struct err je = {0};
    return json_get_bool(r->root, key, v, &je) < 0 ? err_set(e, E_PARAMS, "%s", je.msg) : OK;
}

static const char *const levels[] = {"low", "medium", "high", NULL};

/* ---- entrypoints ---- */

static status open_all(struct runner *r, struct err *e)
{
    int n_ctx = conf_given(r->c, "ctx-size") ? (int)conf_int(r->c, "ctx-size") : 0;
    status st = cli_open_named(r->c, r->model, &r->m, e);
    if (st == OK)
        st = cli_open_engine(r->c, r->m, n_ctx, 4, conf_str(r->c, "scripted"), &r->g, e);
    return st;
}

static struct sampler_opts sampler_of(const struct runner *r)
{
    return (struct sampler_opts){.kind = SAMPLER_LOCAL,
                                 .model = r->m,
                                 .engine = r->g,
                                 .date = r->date,
                                 .model_name = r->c->pos[0]};
}

/* Trimmed, or null when empty. */
static void put_text(struct buf *b, const char *key, const struct buf *t, bool null)
{
    const char *s = t->p, *end = t->p + t->n;
    while (s < end && strchr(" \t\r\n", *s))
        s++;
    while (end > s && strchr(" \t\r\n", end[-1]))
        end--;
    buf_printf(b, "\"%s\":", key);
    if (s == end && null)
        buf_puts(b, "null");
    else
        json_quote(b, s, (size_t)(end - s));
    buf_putc(b, ',');
}

static status infer(struct runner *r, struct err *e)
{
    static const char *const keys[] = {"messages", "max_tokens", "temperature", "reasoning_level",
                                       NULL};
    int64_t max_tokens = 256;
    double temperature = 0.7;
    const char *level = "medium";
    struct sampler *s = NULL;
    struct sampler_question q = {0}, *done;
    struct buf text;
    buf_init(&text, CLI_TEXT_MAX);
    status st = OK;
    const struct json *messages = json_get(r->root, "messages");
    if (json_absent(messages) || (json_kind(messages) == J_ARR && !json_len(messages))) {
        buf_puts(&r->data, "{\"error\":\"messages required\"}");
        goto out;
    }
    if (json_kind(messages) != J_ARR)
        TRY(bad(e, "messages: an array is wanted%s%s", "", ""));
    TRY(only(r, keys, e));
    TRY(get_int(r, "max_tokens", 1, INT32_MAX, &max_tokens, e));
    TRY(get_num(r, "temperature", 0, 2, &temperature, e));
    TRY(get_word(r, "reasoning_level", levels, &level, e));
    json_dump(&text, messages);
    TRY(open_all(r, e));
    struct sampler_opts so = sampler_of(r);
    TRY(sampler_open(&so, &s, e));
    q.messages = text.p;
    q.n_messages = text.n;
    q.effort = level;
    q.temperature = temperature;
    q.max_tokens = (int)max_tokens;
    q.seed = -1;
    TRY(sampler_ask(s, &q, e));
    while (!(done = sampler_next(s, 100)))
        TRY(cli_check_stop(e));
    if (done->st < 0) {
        *e = done->err;
        st = done->st;
        goto out;
    }
    buf_putc(&r->data, '{');
    put_text(&r->data, "response", &q.final, false);
    put_text(&r->data, "analysis", &q.analysis, true);
    put_text(&r->data, "commentary", &q.commentary, true);
    buf_printf(&r->data,
               "\"reasoning_level\":\"%s\",\"finish_reason\":\"%s\",\"usage\":{"
               "\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"reasoning_tokens\":%lld}}",
               level, q.finish, (long long)q.n_prompt, (long long)q.n_output,
               (long long)q.n_reasoning);
out:
    sampler_close(s);
    sampler_question_fini(&q);
    buf_fini(&text);
    return st;
}

static status setup(struct runner *r, struct err *e)
{
    static const char *const keys[] = {"force", NULL};
    char path[4096] = "";
    struct err why = {0};
    status st = only(r, keys, e);
    if (st < 0)
        return st;
    bool present = cli_find_model(r->model, path, sizeof path, &why) == OK, ok = false;
    struct gloss_stats stats = GLOSS_INIT(struct gloss_stats);
    if (present) {
        ok = open_all(r, &why) == OK;
        if (ok)
            gloss_engine_stats(r->g, &stats);
    }
    bool cuda = ok && strcmp(stats.device, "cuda") == 0;
    buf_printf(&r->data, "{\"ok\":%s,\"checks\":{\"cuda_available\":%s,\"device_name\":",
               ok ? "true" : "false", cuda ? "true" : "false");
    if (ok)
        json_quote(&r->data, stats.device, strlen(stats.device));
    else
        buf_puts(&r->data, "null");
    buf_printf(&r->data,
               ",\"driver_version\":null,\"volume_mounted\":%s,\"model_present_before\":%s,"
               "\"model_present_after\":%s}",
               present ? "true" : "false", present ? "true" : "false", present ? "true" : "false");
    if (!ok) {
        buf_puts(&r->data, ",\"error\":");
        json_quote(&r->data, why.msg, strlen(why.msg));
    }
    buf_putc(&r->data, '}');
    return OK;
}

static status download_files(struct runner *r, struct err *e)
{
    static const char *const keys[] = {"force", NULL};
    char path[4096] = "";
    struct err why = {0};
    status st = only(r, keys, e);
    if (st < 0)
        return st;
    bool ok = cli_find_model(r->model, path, sizeof path, &why) == OK;
    buf_printf(&r->data, "{\"ok\":%s,\"%s\":", ok ? "true" : "false", ok ? "model_path" : "error");
    json_quote(&r->data, ok ? path : why.msg, strlen(ok ? path : why.msg));
    buf_putc(&r->data, '}');
    return OK;
}

static bool on_stopped(void *ctx)
{
    (void)ctx;
    return cli_stopped() != 0;
}

static status tinymmlu(struct runner *r, struct err *e)
{
    static const char *const keys[] = {
        "split",        "max_items",       "batch_size", "max_new_tokens",
        "temperature",  "use_formatted",   "method",     "samples_limit",
        "samples_full", "reasoning_level", NULL};
    static const char *const methods[] = {"reuses_infer_logic", "loglikelihood", "single_token",
                                          NULL};
    static const char *const splits[] = {"test", "dev", NULL};
    const char *split = "test", *method = methods[0], *level = "low";
    int64_t max_items = 100, batch = 8, max_tokens = 2048, samples = 10;
    double temperature = 0;
    bool formatted = true, full = false;
    char data[64];
    status st = OK;
    TRY(only(r, keys, e));
    TRY(get_word(r, "split", splits, &split, e));
    TRY(get_word(r, "method", methods, &method, e));
    TRY(get_word(r, "reasoning_level", levels, &level, e));
    TRY(get_int(r, "max_items", 1, INT32_MAX, &max_items, e));
    TRY(get_int(r, "batch_size", 1, 4096, &batch, e));
    TRY(get_int(r, "max_new_tokens", 1, INT32_MAX, &max_tokens, e));
    TRY(get_int(r, "samples_limit", 0, INT32_MAX, &samples, e));
    TRY(get_num(r, "temperature", 0, 2, &temperature, e));
    TRY(get_bool(r, "use_formatted", &formatted, e));
    TRY(get_bool(r, "samples_full", &full, e));
    snprintf(data, sizeof data, "%s.jsonl", split);
    TRY(open_all(r, e));
    struct eval_opts o = {
        .task = "tinymmlu",
        .data = conf_str(r->c, "data") ? conf_str(r->c, "data") : data,
        .split = split,
        .n_shot = -1,
        .n_example = (int)max_items,
        .method = strcmp(method, methods[1]) == 0   ? EVAL_LOGLIKELIHOOD
                  : strcmp(method, methods[2]) == 0 ? EVAL_SINGLE_TOKEN
                                                    : EVAL_GENERATE,
        .final_prefix = true,
        .plain_question = !formatted,
        .samples_full = full,
        .samples_limit = (int)samples,
        .sampler = sampler_of(r),
        .n_parallel = (int)batch,
        .effort = level,
        .temperature = temperature,
        .max_tokens = (int)max_tokens,
        .seed = -1,
        .model_name = r->c->pos[0],
        .stopped = on_stopped,
    };
    struct eval_result res = {0};
    st = eval_run(&o, &res, e);
    if (st == OK)
        buf_put(&r->data, res.runner.p, res.runner.n);
    eval_result_fini(&res);
out:
    return st;
}

/* ---- output ---- */

/* Indented by two blanks a level, as the runner prints it. */
static void put_indented(struct buf *b, const struct json *j, int depth)
{
    enum json_kind k = json_kind(j);
    size_t n = json_len(j), i = 0;
    if ((k != J_ARR && k != J_OBJ) || !n) {
        json_dump(b, j);
        return;
    }
    buf_putc(b, k == J_ARR ? '[' : '{');
    void *it = k == J_OBJ ? json_first(j) : NULL;
    for (; i < n; i++) {
        buf_printf(b, "%s\n%*s", i ? "," : "", 2 * depth + 2, "");
        if (it) {
            size_t len;
            const char *key = json_key(it, &len);
            json_quote(b, key, len);
            buf_puts(b, ": ");
        }
        put_indented(b, it ? json_val(it) : json_at(j, i), depth + 1);
        it = it ? json_next(j, it) : NULL;
    }
    buf_printf(b, "\n%*s%c", 2 * depth, "", k == J_ARR ? ']' : '}');
}

static status save(const struct runner *r, const struct json *data, struct buf *out, struct err *e)
{
    const char *dir = conf_str(r->c, "outdir") ? conf_str(r->c, "outdir") : "./omni_out";
    const char *file = conf_str(r->c, "outfile") ? conf_str(r->c, "outfile") : "artifact.json";
    char path[4096], whole[PATH_MAX];
    struct buf b;
    buf_init(&b, CLI_ANSWER_MAX);
    status st = OK;
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path)
        TRY(err_set(e, E_INPUT, "--outdir and --outfile: the path is too long"));
    TRY(file_mkdir(dir, e));
    put_indented(&b, data, 0);
    TRY(buf_status(&b));
    TRY(file_save(path, b.p, b.n, e));
    const char *shown = realpath(path, whole) ? whole : path;
    buf_puts(out, "{\n  \"saved\": [\n    ");
    json_quote(out, shown, strlen(shown));
    buf_puts(out, "\n  ]\n}\n");
out:
    buf_fini(&b);
    return st;
}

static status print(const struct runner *r, struct err *e)
{
    struct json *data = NULL;
    struct buf out, envelope;
    buf_init(&out, CLI_ANSWER_MAX);
    buf_init(&envelope, CLI_ANSWER_MAX);
    status st = OK;
    buf_printf(&envelope, "{\"content_type\":\"application/json\",\"data\":%s}", r->data.p);
    TRY(buf_status(&r->data));
    TRY(json_parse(envelope.p, envelope.n, &json_limits_file, &data, e));
    if (conf_on(r->c, "save") || conf_str(r->c, "outdir")) {
        TRY(save(r, json_get(data, "data"), &out, e));
    } else {
        put_indented(&out, data, 0);
        buf_putc(&out, '\n');
    }
    TRY(out_buf(&out, e));
out:
    json_free(data);
    buf_fini(&envelope);
    buf_fini(&out);
    return st;
}

/* ---- the command ---- */

static const struct {
    const char *name;
    status (*run)(struct runner *, struct err *);
} entrypoints[] = {{"infer", infer},
                   {"setup", setup},
                   {"download_files", download_files},
                   {"benchmark_tinymmlu", tinymmlu}};

static status find_runner(struct runner *r, char name[64], struct err *e)
{
    static const char *const known[] = {"gpt-oss-20b", "gpt-oss-120b", "tiny"};
    const char *s = r->c->pos[0];
    snprintf(name, 64, "%.*s", (int)strcspn(s, ":"), s);
    for (int i = 0; i < 3; i++)
        if (strcmp(name, known[i]) == 0) {
            r->model = conf_str(r->c, "model") ? conf_str(r->c, "model") : name;
            return OK;
        }
    return err_set(e, E_USAGE, "unknown runner '%.60s'; there are gpt-oss-20b, gpt-oss-120b, tiny",
                   s);
}

status cmd_run(struct conf *c, struct err *e)
{
    struct runner r = {.c = c};
    char name[64];
    size_t i = 0, n = sizeof entrypoints / sizeof entrypoints[0];
    buf_init(&r.params, CLI_TEXT_MAX);
    buf_init(&r.data, CLI_ANSWER_MAX);
    status st = OK;
    if (c->n_pos != 2)
        TRY(err_set(e, E_USAGE, "give a runner and its entrypoint: gloss run gpt-oss-20b infer"));
    TRY(find_runner(&r, name, e));
    while (i < n && strcmp(entrypoints[i].name, c->pos[1]) != 0)
        i++;
    if (i == n)
        TRY(err_set(e, E_USAGE,
                    "unknown entrypoint '%.60s'; there are infer, setup, download_files, "
                    "benchmark_tinymmlu",
                    c->pos[1]));
    TRY(input_date(c, r.day, &r.date, e));
    TRY(read_params(&r, e));
    cli_catch_signals();
    st = entrypoints[i].run(&r, e);
    if (st == OK)
        st = print(&r, e);
    if (st < 0 && st != E_PARAMS)
        st = E_RUN;
out:
    gloss_engine_free(r.g);
    gloss_model_close(r.m);
    json_free(r.root);
    buf_fini(&r.params);
    buf_fini(&r.data);
    return st;
}
