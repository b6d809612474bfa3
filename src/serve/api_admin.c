/* What watches and describes the server: /health, /metrics, /props, /openapi.json, /, and the
 * tokenizer's endpoints at the root, where lm-eval looks for them.
 */
#include "serve/ask.h"
#include "serve/put.h"

#include "base/mem.h"

#include <string.h>

/* openapi.json, assembled in openapi_data.S. */
extern const char serve_openapi[], serve_openapi_end[];

static void reply(struct exch *x, const char *type, struct buf *b)
{
    http_reply(x, 200, type, b);
    buf_fini(b);
}

void api_health(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    int state = atomic_load(&s->state);
    if (state == SERVER_LOADING) {
        api_error(x, 503, "model_loading", NULL, "the model is being loaded");
        return;
    }
    if (state == SERVER_DRAINING) {
        api_error(x, 503, "shutting_down", NULL, "the server is shutting down");
        return;
    }
    struct buf b;
    buf_init(&b, 256);
    buf_puts(&b, "{\"status\":\"ok\"}");
    reply(x, "application/json", &b);
}

void api_metrics(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    struct buf b;
    buf_init(&b, 1 << 20);
    metrics_put(s, &b);
    reply(x, "text/plain; version=0.0.4; charset=utf-8", &b);
}

void api_props(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    struct gloss_stats st = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(s->engine, &st);
    struct buf b;
    buf_init(&b, 1 << 16);
    buf_puts(&b, "{\"model\":");
    json_quote(&b, model_shown(s), strlen(model_shown(s)));
    buf_printf(&b,
               ",\"n_ctx\":%d,\"n_ctx_train\":%d,\"n_vocab\":%d,\"n_layer\":%d,\"n_expert\":%d,"
               "\"build_info\":\"gloss %s\",\"cpu\":\"%s\",",
               s->n_ctx, s->info.n_ctx, s->info.n_vocab, s->info.n_layer, s->info.n_expert,
               gloss_version(), gloss_cpu());
    buf_printf(&b,
               "\"cache\":{\"page_tokens\":%d,\"pages_full\":%d,\"pages_window\":%d,"
               "\"free_full\":%d,\"free_window\":%d,\"cached_full\":%d,\"cached_window\":%d},",
               st.page_tokens, st.pages_full, st.pages_window, st.free_full, st.free_window,
               st.cached_full, st.cached_window);
    buf_puts(&b, "\"default_generation_settings\":{\"temperature\":");
    json_put_num(&b, s->o.temperature);
    buf_puts(&b, ",\"top_p\":");
    json_put_num(&b, s->o.top_p);
    buf_puts(&b, ",\"min_p\":");
    json_put_num(&b, s->o.min_p);
    buf_printf(&b, ",\"top_k\":%d,\"reasoning_effort\":\"%s\"},\"chat_format\":\"harmony\"}",
               s->o.top_k, s->o.effort ? s->o.effort : "medium");
    reply(x, "application/json", &b);
}

void api_openapi(struct server *s, struct exch *x, const char *id)
{
    (void)s;
    (void)id;
    size_t n = (size_t)(serve_openapi_end - serve_openapi);
    struct buf b;
    buf_init(&b, n);
    buf_put(&b, serve_openapi, n);
    reply(x, "application/json", &b);
}

void api_root(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    if (s->o.no_web) {
        api_error(x, 404, "not_found", NULL,
                  "there is nothing at /: the server runs with --no-web");
        return;
    }
    struct buf b;
    buf_init(&b, 1024);
    buf_printf(&b,
               "gloss %s: an OpenAI-compatible server; its base URL ends in /v1, /openapi.json "
               "describes it. There is no chat page yet.\n",
               gloss_version());
    reply(x, "text/plain; charset=utf-8", &b);
}

void api_no_embeddings(struct server *s, struct exch *x, const char *id)
{
    (void)s;
    (void)id;
    api_error(x, 404, NULL, NULL, "gpt-oss makes no embeddings; there is no such endpoint");
}

/* ---- the tokenizer ---- */

/* Appends {"tokens":[...],"count":n,...}. */
static void put_ids(const struct server *s, struct buf *b, const int32_t *ids, size_t n)
{
    buf_puts(b, "{\"tokens\":[");
    for (size_t i = 0; i < n; i++)
        buf_printf(b, i ? ",%d" : "%d", ids[i]);
    buf_printf(b, "],\"count\":%zu,\"max_model_len\":%d}", n, s->n_ctx);
}

static void nothing(struct gen *g)
{
    (void)g;
}
static const struct gen_ops no_ops = {.begin = nothing};

/* The tokens of a conversation, as the chat endpoint would render it. */
static status tokenize_chat(struct server *s, struct exch *x, const struct json *root,
                            struct buf *b, struct err *e)
{
    struct gen *g = gen_new(s, x, &no_ops, "");
    if (!g)
        return err_set(e, E_NOMEM, "out of memory");
    static const char opening[] = "<|start|>assistant";
    bool open = true;
    int32_t *last = NULL;
    size_t n, n_last;
    status st = OK;
    TRY(json_get_bool(root, "add_generation_prompt", &open, e));
    TRY(ask_prompt(g, root, e));
    TRY(gloss_encode(s->model, opening, sizeof opening - 1, GLOSS_SPECIAL_ALLOW, &last, &n_last,
                     pub(e)));
    n = g->req[0].n_ids;
    if (!open && n > n_last && memcmp(g->req[0].ids + n - n_last, last, n_last * sizeof *last) == 0)
        n -= n_last;
    put_ids(s, b, g->req[0].ids, n);
out:
    gloss_free(last);
    gen_free(g);
    return st;
}

static status tokenize(struct server *s, struct exch *x, const struct json *root, struct buf *b,
                       struct err *e)
{
    const struct json *p = json_get(root, "prompt");
    if (json_absent(p))
        p = json_get(root, "content"); /* llama.cpp's name */
    bool allow = false;
    int32_t *ids = NULL;
    size_t n, n_ids;
    status st = OK;
    if (!json_absent(json_get(root, "messages")))
        return tokenize_chat(s, x, root, b, e);
    TRY(json_get_bool(root, "allow_special_tokens", &allow, e));
    if (json_kind(p) != J_STR)
        return err_param(e, E_INPUT, "prompt", "\"prompt\" must be a text");
    const char *text = json_str(p, &n);
    TRY(gloss_encode(s->model, text, n, allow ? GLOSS_SPECIAL_ALLOW : GLOSS_SPECIAL_TEXT, &ids,
                     &n_ids, pub(e)));
    put_ids(s, b, ids, n_ids);
out:
    gloss_free(ids);
    return st;
}

static status detokenize(struct server *s, const struct json *root, struct buf *b, struct err *e)
{
    int32_t *ids = NULL;
    size_t n_ids, n;
    char *text = NULL;
    status st = OK;
    TRY(ask_ids(s, json_get(root, "tokens"), "tokens", &ids, &n_ids, e));
    TRY(gloss_decode(s->model, ids, n_ids, &text, &n, pub(e)));
    buf_puts(b, "{\"prompt\":");
    put_text(b, text, n);
    buf_puts(b, ",\"content\":"); /* llama.cpp's name */
    put_text(b, text, n);
    buf_putc(b, '}');
out:
    gloss_free(text);
    mem_free(ids);
    return st;
}

static void answer(struct server *s, struct exch *x, bool back)
{
    struct json *root;
    struct err e = {0};
    const char *model;
    if (!ask_body(s, x, &root))
        return;
    if (ask_model(s, x, root, &model)) {
        struct buf b;
        buf_init(&b, HTTP_OUT_BYTES);
        status st = back ? detokenize(s, root, &b, &e) : tokenize(s, x, root, &b, &e);
        if (st < 0)
            api_fail(s, x, &e);
        else
            http_reply(x, 200, "application/json", &b);
        buf_fini(&b);
    }
    json_free(root);
}

void api_tokenize(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    answer(s, x, false);
}

void api_detokenize(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    answer(s, x, true);
}

void api_tokenizer_info(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    struct buf b;
    buf_init(&b, 1 << 16);
    buf_printf(&b,
               "{\"tokenizer_class\":\"o200k_harmony\",\"n_vocab\":%d,\"eos_token\":\"<|return|>\","
               "\"bos_token\":\"<|startoftext|>\",\"pad_token\":\"<|endoftext|>\","
               "\"chat_template\":null,\"max_model_len\":%d}",
               s->info.n_vocab, s->n_ctx);
    reply(x, "application/json", &b);
}
