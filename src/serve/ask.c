/* Bodies and sampling parameters. See ask.h. */
#include "serve/ask.h"

#include "base/mem.h"
#include "base/num.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct json_limits limits = {
    .max_bytes = BODY_MAX, .max_depth = 128, .max_values = 900000};

enum { MAX_STOP = 4, MAX_BIAS = 1024 };

/* The member of the outermost object that has most values, when a text has too many: its name, ""
 * when there is none. */
static void find_crowded(const char *s, size_t n, char name[64])
{
    size_t key = 0, n_key = 0, values = 0, most = 0;
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"') {
            size_t from = i + 1;
            for (i = from; i < n && s[i] != '"'; i++)
                i += s[i] == '\\';
            if (depth == 1 && i + 1 < n && s[i + 1] == ':') {
                key = from;
                n_key = i - from;
                values = 0;
            }
        }
        depth += i < n && (s[i] == '{' || s[i] == '[');
        depth -= i < n && (s[i] == '}' || s[i] == ']');
        if (i < n && s[i] == ',' && ++values > most && n_key < 64) {
            most = values;
            memcpy(name, s + key, n_key);
            name[n_key] = '\0';
        }
    }
}

bool ask_body(struct server *s, struct exch *x, struct json **root)
{
    (void)s;
    struct err e = {0};
    *root = NULL;
    if (json_parse(x->body.p, x->body.n, &limits, root, &e) < 0) {
        int code = e.code == E_NOMEM ? 503 : 400;
        if (e.code == E_LIMIT)
            find_crowded(x->body.p, x->body.n, e.param);
        api_error(x, code, code == 400 ? "invalid_json" : NULL, e.param[0] ? e.param : NULL, "%s",
                  e.msg);
        return false;
    }
    if (json_kind(*root) == J_OBJ)
        return true;
    api_error(x, 400, "invalid_json", NULL, "the body must be a JSON object");
    json_free(*root);
    *root = NULL;
    return false;
}

bool ask_model(struct server *s, struct exch *x, const struct json *root, const char **name)
{
    const struct json *j = json_get(root, "model");
    *name = model_shown(s);
    if (json_absent(j))
        return true;
    size_t n = 0;
    if (json_kind(j) != J_STR || strlen(json_str(j, &n)) != n) {
        api_error(x, 400, "invalid_value", "model", "\"model\" must be a string");
        return false;
    }
    *name = json_str(j, NULL);
    if (model_named(s, *name))
        return true;
    api_error(x, 404, "model_not_found", "model",
              "the model '%.100s' is not loaded here; /v1/models lists what is", *name);
    return false;
}

status ask_refused(const struct json *root, struct err *e)
{
    static const char *const never[] = {"prompt_embeds", "chat_template", "audio", "suffix",
                                        "lora"};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        if (!json_absent(json_get(root, never[i])))
            return err_param(e, E_STATE, never[i], "\"%s\" is not supported here", never[i]);
    const struct json *m = json_get(root, "modalities");
    for (size_t i = 0; json_kind(m) == J_ARR && i < json_len(m); i++) {
        const struct json *one = json_at(m, i);
        if (json_kind(one) != J_STR || strcmp(json_str(one, NULL), "text") != 0)
            return err_param(e, E_STATE, "modalities", "this model reads and writes text only");
    }
    return OK;
}

/* Absent: *v unchanged. */
static status get_i(const struct json *root, const char *key, int lo, int hi, int *v, struct err *e)
{
    int64_t x = *v;
    status st = json_get_int(root, key, lo, hi, &x, e);
    *v = (int)x;
    return st;
}

static status get_f(const struct json *root, const char *key, double lo, double hi, float *v,
                    struct err *e)
{
    double x = (double)*v;
    status st = json_get_num(root, key, lo, hi, &x, e);
    *v = (float)x;
    return st;
}

static status get_flag(const struct json *root, const char *key, bool *v, struct err *e)
{
    return json_get_bool(root, key, v, e);
}

static status take(struct gen *g, size_t n, size_t size, void **p, struct err *e)
{
    *p = arena_array(&g->mem, n ? n : 1, size);
    return *p ? OK : err_set(e, E_NOMEM, "out of memory for the request");
}

static status read_stop(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *j = json_get(root, "stop");
    if (json_absent(j))
        return OK;
    bool one = json_kind(j) == J_STR;
    size_t n = one ? 1 : json_len(j);
    if (!one && json_kind(j) != J_ARR)
        return err_param(e, E_INPUT, "stop", "\"stop\" must be a string or a list of strings");
    if (n > MAX_STOP)
        return err_param(e, E_INPUT, "stop", "\"stop\" has %zu texts; at most %d", n, MAX_STOP);
    const char **stop;
    status st = take(g, n, sizeof *stop, (void **)&stop, e);
    for (size_t i = 0; st == OK && i < n; i++) {
        const struct json *t = one ? j : json_at(j, i);
        size_t len = 0;
        if (json_kind(t) != J_STR || strlen(json_str(t, &len)) != len || len > 1024)
            return err_param(e, E_INPUT, "stop",
                             "a stop text must be a string of at most 1024 bytes without NUL");
        if (len)
            stop[g->p.n_stop++] = json_str(t, NULL);
    }
    g->p.stop = stop;
    return st;
}

static status read_bias(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *j = json_get(root, "logit_bias");
    if (json_absent(j))
        return OK;
    if (json_kind(j) != J_OBJ || json_len(j) > MAX_BIAS)
        return err_param(e, E_INPUT, "logit_bias",
                         "\"logit_bias\" must be an object of at most %d entries", MAX_BIAS);
    int32_t *ids;
    float *bias;
    status st = OK;
    TRY(take(g, json_len(j), sizeof *ids, (void **)&ids, e));
    TRY(take(g, json_len(j), sizeof *bias, (void **)&bias, e));
    for (void *it = json_first(j); it; it = json_next(j, it)) {
        int64_t id;
        const struct json *v = json_val(it);
        bool number = json_kind(v) == J_INT || json_kind(v) == J_REAL;
        double b = number ? json_num(v) : NAN;
        if (num_i64(json_key(it, NULL), 0, g->s->info.n_vocab - 1, &id) < 0 ||
            !(b >= -100 && b <= 100))
            return err_param(e, E_INPUT, "logit_bias",
                             "\"logit_bias\" maps token ids below %d to numbers from -100 to 100",
                             g->s->info.n_vocab);
        ids[g->p.n_bias] = (int32_t)id;
        bias[g->p.n_bias++] = (float)b;
    }
    g->p.bias_ids = ids;
    g->p.bias = bias;
out:
    return st;
}

status ask_ids(struct server *s, const struct json *list, const char *param, int32_t **ids,
               size_t *n, struct err *e)
{
    *ids = NULL;
    *n = json_len(list);
    if (json_kind(list) != J_ARR)
        return err_param(e, E_INPUT, param, "\"%s\" must be a list of token ids", param);
    int32_t *v = mem_array(*n + 1, sizeof *v);
    if (!v)
        return err_set(e, E_NOMEM, "out of memory for %zu tokens", *n);
    for (size_t i = 0; i < *n; i++) {
        const struct json *j = json_at(list, i);
        int64_t id = json_kind(j) == J_INT ? json_int(j) : -1;
        if (id < 0 || id >= s->info.n_vocab) {
            mem_free(v);
            return err_param(e, E_INPUT, param, "\"%s\" must hold token ids from 0 to %d", param,
                             s->info.n_vocab - 1);
        }
        v[i] = (int32_t)id;
    }
    *ids = v;
    return OK;
}

status ask_truncate(struct gen *g, const struct json *root, struct err *e)
{
    int64_t most = INT32_MAX;
    status st = json_get_int(root, "truncate_prompt_tokens", 1, INT32_MAX, &most, e);
    if (st == OK)
        gen_keep_last(g, (size_t)most);
    return st;
}

static status read_stop_ids(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *j = json_get(root, "stop_token_ids");
    if (json_absent(j))
        return OK;
    int32_t *ids, *kept;
    size_t n;
    if (json_len(j) > 64)
        return err_param(e, E_INPUT, "stop_token_ids", "at most 64 stop tokens");
    status st = ask_ids(g->s, j, "stop_token_ids", &ids, &n, e);
    if (st < 0)
        return st;
    st = take(g, n, sizeof *ids, (void **)&kept, e);
    if (st == OK) {
        memcpy(kept, ids, n * sizeof *ids);
        g->p.stop_ids = kept;
        g->p.n_stop_ids = (int)n;
    }
    mem_free(ids);
    return st;
}

/* top_k: -1 is off too, as vLLM has it. */
static status read_filters(struct gen *g, const struct json *root, struct err *e)
{
    const struct serve_opts *o = &g->s->o;
    struct gloss_params *p = &g->p;
    p->temperature = (float)o->temperature;
    p->top_p = (float)o->top_p;
    p->min_p = (float)o->min_p;
    int top_k = o->top_k;
    int64_t seed = -1;
    status st = OK;
    TRY(get_f(root, "temperature", 0, 2, &p->temperature, e));
    TRY(get_f(root, "top_p", 0, 1, &p->top_p, e));
    if (!json_absent(json_get(root, "top_p")) && p->top_p < 1e-6f)
        p->top_p = 1e-6f; /* to the engine 0 is "off"; asked for, it means the likeliest alone */
    TRY(get_f(root, "min_p", 0, 1, &p->min_p, e));
    TRY(get_i(root, "top_k", -1, INT32_MAX, &top_k, e));
    p->top_k = max_int(top_k, 0);
    TRY(get_f(root, "presence_penalty", -2, 2, &p->presence_penalty, e));
    TRY(get_f(root, "frequency_penalty", -2, 2, &p->frequency_penalty, e));
    TRY(get_f(root, "repetition_penalty", 0, 10, &p->repetition_penalty, e));
    TRY(json_get_int(root, "seed", 0, INT64_MAX, &seed, e));
    if (seed >= 0) /* 0 is a seed like any other, but "none" to the library */
        p->seed = seed ? (uint64_t)seed : UINT64_MAX;
out:
    return st;
}

static status read_lengths(struct gen *g, const struct json *root, enum ask_kind kind,
                           struct err *e)
{
    struct gloss_params *p = &g->p;
    bool ignore_eos = false;
    status st = OK;
    if (kind == ASK_CHAT) {
        TRY(get_i(root, "max_tokens", 1, INT32_MAX, &p->max_tokens, e));
        TRY(get_i(root, "max_completion_tokens", 1, INT32_MAX, &p->max_tokens, e));
    } else if (kind == ASK_RESPONSES) {
        TRY(get_i(root, "max_output_tokens", 1, INT32_MAX, &p->max_tokens, e));
    } else if (kind == ASK_GENERATE) {
        p->max_tokens = 128;
        TRY(get_i(root, "max_new_tokens", 1, INT32_MAX, &p->max_tokens, e));
    }
    TRY(get_i(root, "min_tokens", 0, INT32_MAX, &p->min_tokens, e));
    p->reasoning_budget = g->s->o.reasoning_budget;
    TRY(get_i(root, "reasoning_budget", 1, INT32_MAX, &p->reasoning_budget, e));
    TRY(get_flag(root, "ignore_eos", &ignore_eos, e));
    p->ignore_eos = ignore_eos;
    p->deadline_ms = (uint64_t)g->s->o.request_timeout_ms;
    bool cache = true;
    TRY(get_flag(root, "cache-prompt", &cache, e)); /* llama-benchy's spelling */
    TRY(get_flag(root, "cache_prompt", &cache, e));
    p->no_prefix_cache = !cache;
out:
    return st;
}

static status read_stream(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *o = json_get(root, "stream_options");
    status st = OK;
    TRY(get_flag(root, "stream", &g->stream, e));
    if (json_absent(o))
        return OK;
    if (json_kind(o) != J_OBJ)
        return err_param(e, E_INPUT, "stream_options", "\"stream_options\" must be an object");
    TRY(get_flag(o, "include_usage", &g->usage, e));
    TRY(get_flag(o, "continuous_usage_stats", &g->usage_each, e));
out:
    if (st < 0)
        snprintf(e->param, sizeof e->param, "stream_options");
    return st;
}

status ask_params(struct gen *g, const struct json *root, enum ask_kind kind, struct err *e)
{
    struct gloss_params *p = &g->p;
    bool want = false;
    status st = OK;
    p->no_logprobs = 1;
    TRY(read_filters(g, root, e));
    TRY(read_lengths(g, root, kind, e));
    TRY(read_stop_ids(g, root, e));
    if (kind == ASK_GENERATE)
        return OK;
    TRY(read_stop(g, root, e));
    TRY(read_bias(g, root, e));
    TRY(read_stream(g, root, e));
    p->n = 1;
    if (kind != ASK_RESPONSES)
        TRY(get_i(root, "n", 1, MAX_CHOICES, &p->n, e));
    TRY(get_flag(root, "return_token_ids", &g->want_ids, e));
    if (kind == ASK_COMPLETIONS)
        return OK;
    if (kind == ASK_CHAT)
        TRY(get_flag(root, "logprobs", &want, e));
    TRY(get_i(root, "top_logprobs", 0, 20, &p->n_top, e));
    if (p->n_top && kind == ASK_CHAT && !want)
        return err_param(e, E_INPUT, "top_logprobs", "\"top_logprobs\" needs \"logprobs\": true");
    g->want_logprobs = want;
    p->no_logprobs = !want;
    if (!want && kind == ASK_CHAT)
        p->n_top = 0;
out:
    return st;
}
