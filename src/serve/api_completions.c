/* POST /v1/completions and /generate: raw text or token ids in, raw text out; no conversation.
 *
 * Tokens are bytes; a character may be cut between two of them, so text leaves in whole characters.
 * Control tokens have no text, unless skip_special_tokens is false. With `echo` the prompt's tokens
 * come first, with their log-probabilities (the first has none: null). The number of a sampled
 * token is printed by the same function in both lists, so that a client may compare them for
 * equality.
 */
#include "serve/ask.h"
#include "serve/put.h"

#include "base/mem.h"
#include "base/num.h"

#include <math.h>
#include <string.h>

enum { MAX_TEXT = 64 << 20 };

struct completion {
    struct buf head;
    bool echo, logprobs, special, no_tokens, generate;
    int n_top;
};

/* What one choice has made. */
struct made {
    struct buf text; /* whole characters, all of them */
    size_t sent;     /* of text, to the client */
    char tail[8];    /* bytes of a character that is not complete */
    size_t n_tail;
    size_t n_char;                             /* characters of text and tail's place */
    struct buf tokens, numbers, tops, offsets; /* of logprobs, with commas */
    struct buf ids;
};

static struct made *made_of(struct choice *c)
{
    if (!c->own) {
        struct made *m = mem_calloc(1, sizeof *m);
        if (!m)
            return NULL;
        struct buf *const all[] = {&m->text, &m->tokens,  &m->numbers,
                                   &m->tops, &m->offsets, &m->ids};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            buf_init(all[i], MAX_TEXT);
        c->own = m;
    }
    return c->own;
}

static void made_free(struct choice *c)
{
    struct made *m = c->own;
    if (!m)
        return;
    struct buf *const all[] = {&m->text, &m->tokens, &m->numbers, &m->tops, &m->offsets, &m->ids};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_fini(all[i]);
    mem_free(m);
    c->own = NULL;
}

static bool is_control(const char *s, size_t n)
{
    return n > 4 && memcmp(s, "<|", 2) == 0 && memcmp(s + n - 2, "|>", 2) == 0;
}

static size_t count_chars(const char *s, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += ((unsigned char)s[i] & 0xc0) != 0x80;
    return k;
}

/* Appends bytes; a cut character waits for the rest of itself. */
static void add_bytes(struct made *m, const char *s, size_t n, bool last)
{
    struct buf b;
    buf_init(&b, n + sizeof m->tail);
    buf_put(&b, m->tail, m->n_tail);
    buf_put(&b, s, n);
    size_t at = 0, before = m->text.n;
    m->n_tail = 0;
    while (at < b.n) {
        bool cut;
        size_t ok = put_valid(b.p + at, b.n - at, &cut);
        buf_put(&m->text, b.p + at, ok);
        at += ok;
        if (at == b.n)
            break;
        if (cut && !last) {
            m->n_tail = b.n - at;
            memcpy(m->tail, b.p + at, m->n_tail);
            break;
        }
        buf_puts(&m->text, "\xef\xbf\xbd");
        at += cut ? b.n - at : 1;
    }
    m->n_char += count_chars(m->text.p + before, m->text.n - before);
    buf_fini(&b);
}

static void comma(struct buf *b)
{
    if (b->n)
        buf_putc(b, ',');
}

static void put_name(const struct gen *g, struct buf *b, int32_t id)
{
    size_t n = 0;
    const char *s = gloss_token_bytes(g->s->model, id, &n);
    put_token_name(b, s ? s : "", s ? n : 0);
}

static void add_numbers(struct gen *g, struct made *m, const struct gloss_event *ev, bool first)
{
    const struct completion *h = g->own;
    comma(&m->tokens);
    put_name(g, &m->tokens, ev->token);
    comma(&m->offsets);
    buf_printf(&m->offsets, "%zu", m->n_char);
    comma(&m->numbers);
    comma(&m->tops);
    if (first) {
        buf_puts(&m->numbers, "null");
        buf_puts(&m->tops, "null");
        return;
    }
    put_logprob(&m->numbers, ev->logprob);
    buf_putc(&m->tops, '{');
    bool there = false;
    for (int i = 0; i < ev->n_top && i < h->n_top; i++) {
        if (i)
            buf_putc(&m->tops, ',');
        put_name(g, &m->tops, ev->top_ids[i]);
        buf_putc(&m->tops, ':');
        bool same = ev->top_ids[i] == ev->token;
        put_logprob(&m->tops, same ? ev->logprob : ev->top_logprobs[i]);
        there = there || same;
    }
    if (!there) {
        if (m->tops.p[m->tops.n - 1] != '{')
            buf_putc(&m->tops, ',');
        put_name(g, &m->tops, ev->token);
        buf_putc(&m->tops, ':');
        put_logprob(&m->tops, ev->logprob);
    }
    buf_putc(&m->tops, '}');
}

static void add_token(struct gen *g, struct choice *c, const struct gloss_event *ev, bool first)
{
    const struct completion *h = g->own;
    struct made *m = made_of(c);
    if (!m) {
        g->failed = true;
        err_set(&g->err, E_NOMEM, "out of memory");
        return;
    }
    if (h->no_tokens && ev->kind == GLOSS_EV_TOKEN)
        return;
    size_t n = 0;
    const char *s = gloss_token_bytes(g->s->model, ev->token, &n);
    n = s ? n : 0;
    if (h->logprobs)
        add_numbers(g, m, ev, first);
    if (h->generate && ev->kind == GLOSS_EV_TOKEN) {
        comma(&m->ids);
        buf_printf(&m->ids, "%d", ev->token);
    }
    bool control = s && is_control(s, n);
    if (control && !h->special)
        n = 0;
    else if (ev->n_hide)
        n -= min_int((int)n, ev->n_hide);
    add_bytes(m, s ? s : "", n, false);
}

static void on_prompt(struct gen *g, struct choice *c, const struct gloss_event *ev)
{
    add_token(g, c, ev, isnan(ev->logprob) && !((struct made *)c->own));
}

static void on_plain(struct gen *g, struct choice *c, const struct gloss_event *ev)
{
    add_token(g, c, ev, false);
}

/* What of the lists was not sent. */
static void put_logprobs(struct buf *b, struct made *m)
{
    buf_puts(b, "{\"tokens\":[");
    buf_put(b, m->tokens.p, m->tokens.n);
    buf_puts(b, "],\"token_logprobs\":[");
    buf_put(b, m->numbers.p, m->numbers.n);
    buf_puts(b, "],\"top_logprobs\":[");
    buf_put(b, m->tops.p, m->tops.n);
    buf_puts(b, "],\"text_offset\":[");
    buf_put(b, m->offsets.p, m->offsets.n);
    buf_puts(b, "]}");
}

/* A choice as JSON, from what was not sent yet. */
static void put_choice(struct gen *g, struct choice *c, struct buf *b, const char *finish)
{
    const struct completion *h = g->own;
    struct made *m = made_of(c);
    if (!m)
        return;
    buf_printf(b, "{\"index\":%d,\"text\":", c->index);
    json_quote(b, m->text.p + m->sent, m->text.n - m->sent);
    m->sent = m->text.n;
    buf_puts(b, ",\"logprobs\":");
    if (h->logprobs)
        put_logprobs(b, m);
    else
        buf_puts(b, "null");
    if (g->streaming) {
        buf_clear(&m->tokens);
        buf_clear(&m->numbers);
        buf_clear(&m->tops);
        buf_clear(&m->offsets);
    }
    if (g->want_ids) {
        buf_puts(b, ",\"token_ids\":[");
        buf_put(b, c->ids.p, c->ids.n);
        buf_putc(b, ']');
        if (g->streaming)
            buf_clear(&c->ids);
    }
    if (finish)
        buf_printf(b, ",\"finish_reason\":\"%s\"}", finish);
    else
        buf_puts(b, ",\"finish_reason\":null}");
}

static void stream_choice(struct gen *g, struct choice *c, const char *finish)
{
    const struct completion *h = g->own;
    struct buf *b = &g->frame;
    buf_puts(b, "data: ");
    buf_put(b, h->head.p, h->head.n);
    buf_puts(b, "\"choices\":[");
    put_choice(g, c, b, finish);
    buf_putc(b, ']');
    if (g->usage_each) {
        buf_putc(b, ',');
        gen_put_usage(g, b);
    } else if (g->usage) {
        buf_puts(b, ",\"usage\":null");
    }
    buf_puts(b, "}\n\n");
}

/* /generate: ids and text since the last frame. */
static void put_generated(struct gen *g, struct choice *c, struct buf *b, const char *finish)
{
    struct made *m = made_of(c);
    if (!m)
        return;
    buf_puts(b, "{\"text\":");
    json_quote(b, m->text.p + m->sent, m->text.n - m->sent);
    m->sent = m->text.n;
    buf_puts(b, ",\"output_ids\":[");
    buf_put(b, m->ids.p, m->ids.n);
    buf_clear(&m->ids);
    buf_printf(b,
               "],\"meta_info\":{\"id\":\"%s\",\"prompt_tokens\":%d,\"completion_tokens\":%d,"
               "\"cached_tokens\":%d,\"finish_reason\":",
               g->id, g->n_prompt_tok, c->n_tok, g->n_cached_tok);
    if (finish)
        buf_printf(b, "{\"type\":\"%s\"}}}", finish);
    else
        buf_puts(b, "null}}");
}

static void stream_any(struct gen *g, struct choice *c, const char *finish)
{
    const struct completion *h = g->own;
    if (!h->generate) {
        stream_choice(g, c, finish);
        return;
    }
    buf_puts(&g->frame, "data: ");
    put_generated(g, c, &g->frame, finish);
    buf_puts(&g->frame, "\n\n");
}

static void on_begin(struct gen *g)
{
    (void)g;
}

/* Streams what a batch of events has brought. */
static void on_tick(struct gen *g)
{
    for (int i = 0; g->streaming && i < g->n_choice; i++) {
        struct choice *c = &g->choice[i];
        struct made *m = c->own;
        if (!c->ended && m && (m->text.n > m->sent || m->tokens.n || m->ids.n))
            stream_any(g, c, NULL);
    }
}

static void on_choice_end(struct gen *g, struct choice *c)
{
    const struct completion *h = g->own;
    struct made *m = made_of(c);
    if (m)
        add_bytes(m, "", 0, true);
    if (h->no_tokens) {
        c->finish = "length";
        c->n_tok = 0;
        buf_clear(&c->ids);
    }
    if (g->streaming)
        stream_any(g, c, c->finish);
}

static void on_end(struct gen *g)
{
    const struct completion *h = g->own;
    struct buf *b = &g->frame;
    if (g->streaming) {
        if ((g->usage || g->usage_each) && !h->generate) {
            buf_puts(b, "data: ");
            buf_put(b, h->head.p, h->head.n);
            buf_puts(b, "\"choices\":[],");
            gen_put_usage(g, b);
            buf_puts(b, "}\n\n");
        }
        buf_puts(b, "data: [DONE]\n\n");
        return;
    }
    if (h->generate) {
        put_generated(g, &g->choice[0], b, g->choice[0].finish);
    } else {
        buf_put(b, h->head.p, h->head.n);
        buf_puts(b, "\"choices\":[");
        for (int i = 0; i < g->n_choice; i++) {
            if (i)
                buf_putc(b, ',');
            put_choice(g, &g->choice[i], b, g->choice[i].finish);
        }
        buf_puts(b, "],");
        gen_put_usage(g, b);
        buf_putc(b, ',');
        gen_put_timings(g, b);
        buf_putc(b, '}');
    }
    http_reply(g->x, 200, "application/json", b);
    buf_clear(b);
}

static void on_fini(struct gen *g)
{
    struct completion *h = g->own;
    for (int i = 0; i < g->n_choice; i++)
        made_free(&g->choice[i]);
    if (h)
        buf_fini(&h->head);
    mem_free(h);
}

static const struct gen_ops ops = {.begin = on_begin,
                                   .prompt = on_prompt,
                                   .plain = on_plain,
                                   .tick = on_tick,
                                   .choice_end = on_choice_end,
                                   .end = on_end,
                                   .fail = gen_fail,
                                   .fini = on_fini};

/* ---- requests ---- */

static status add_text(struct gen *g, const struct json *text, int special, struct err *e)
{
    size_t n, n_ids;
    const char *s = json_str(text, &n);
    int32_t *ids = NULL;
    status st = gloss_encode(g->s->model, s, n, special, &ids, &n_ids, pub(e));
    if (st == OK && !n_ids)
        st = err_param(e, E_INPUT, "prompt", "the prompt is empty");
    if (st == OK && gen_add(g, ids, n_ids) < 0)
        st = err_set(e, E_NOMEM, "out of memory for the prompt");
    gloss_free(ids);
    return st;
}

static status add_list(struct gen *g, const struct json *list, const char *param, struct err *e)
{
    int32_t *ids;
    size_t n;
    status st = ask_ids(g->s, list, param, &ids, &n, e);
    if (st < 0)
        return st;
    if (!n)
        st = err_param(e, E_INPUT, param, "the prompt is empty");
    else if (gen_add(g, ids, n) < 0)
        st = err_set(e, E_NOMEM, "out of memory for the prompt");
    mem_free(ids);
    return st;
}

static status add_prompts(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *p = json_get(root, "prompt"), *first = json_at(p, 0);
    bool allow = false;
    status st = OK;
    TRY(json_get_bool(root, "allow_special_tokens", &allow, e));
    int special = allow ? GLOSS_SPECIAL_ALLOW : GLOSS_SPECIAL_TEXT;
    if (json_kind(p) == J_STR)
        return add_text(g, p, special, e);
    if (json_kind(p) != J_ARR || !json_len(p))
        return err_param(e, E_INPUT, "prompt",
                         "\"prompt\" must be a text, token ids, or a list of these");
    if (json_kind(first) != J_STR && json_kind(first) != J_ARR)
        return add_list(g, p, "prompt", e);
    if (json_len(p) > MAX_PROMPTS)
        return err_param(e, E_INPUT, "prompt", "%zu prompts; at most %d", json_len(p), MAX_PROMPTS);
    for (size_t i = 0; i < json_len(p); i++) {
        const struct json *one = json_at(p, i);
        if (json_kind(one) == J_STR)
            TRY(add_text(g, one, special, e));
        else
            TRY(add_list(g, one, "prompt", e));
    }
out:
    return st;
}

static status read_completion(struct gen *g, struct completion *h, struct err *e)
{
    const struct json *root = g->root;
    int64_t max_tokens = 16, top = -1, best_of = 1;
    bool skip = true;
    status st = OK;
    TRY(ask_refused(root, e));
    TRY(ask_params(g, root, ASK_COMPLETIONS, e));
    TRY(json_get_bool(root, "echo", &h->echo, e));
    TRY(json_get_bool(root, "skip_special_tokens", &skip, e));
    TRY(json_get_int(root, "max_tokens", h->echo ? 0 : 1, INT32_MAX, &max_tokens, e));
    const struct json *lp = json_get(root, "logprobs");
    if (json_kind(lp) == J_TRUE || json_kind(lp) == J_FALSE)
        top = json_kind(lp) == J_TRUE ? 0 : -1;
    else
        TRY(json_get_int(root, "logprobs", 0, 20, &top, e));
    TRY(json_get_int(root, "best_of", 1, MAX_CHOICES, &best_of, e));
    if (best_of > g->p.n)
        TRY(err_param(e, E_STATE, "best_of", "\"best_of\" beyond \"n\" is not supported"));
    h->special = !skip;
    h->logprobs = top >= 0;
    h->n_top = (int)max_int((int)top, 0);
    h->no_tokens = max_tokens == 0;
    g->p.max_tokens = h->no_tokens ? 1 : (int)max_tokens;
    g->p.no_logprobs = !h->logprobs;
    g->p.n_top = h->n_top;
    g->p.prompt_logprobs = h->echo;
    if (h->echo && !h->logprobs)
        g->p.no_logprobs = 1;
    TRY(add_prompts(g, root, e));
    TRY(ask_truncate(g, root, e));
    if (g->n_req * g->p.n > MAX_PROMPTS)
        TRY(err_param(e, E_INPUT, "n", "%d answers in all; at most %d", g->n_req * g->p.n,
                      MAX_PROMPTS));
    buf_printf(&h->head,
               "{\"id\":\"%s\",\"object\":\"text_completion\",\"created\":%lld,\"model\":", g->id,
               (long long)g->created);
    json_quote(&h->head, g->model, strlen(g->model));
    buf_printf(&h->head, ",\"system_fingerprint\":\"%s\",", g->s->fingerprint);
out:
    return st;
}

static status read_generate(struct gen *g, struct completion *h, struct err *e)
{
    const struct json *ids = json_get(g->root, "input_ids"), *text = json_get(g->root, "text"),
                      *params = json_get(g->root, "sampling_params");
    status st = OK;
    h->generate = true;
    if (!json_absent(params) && json_kind(params) != J_OBJ)
        return err_param(e, E_INPUT, "sampling_params", "\"sampling_params\" must be an object");
    TRY(ask_params(g, params, ASK_GENERATE, e));
    TRY(json_get_bool(g->root, "stream", &g->stream, e));
    if (json_kind(text) == J_STR && json_absent(ids))
        TRY(add_text(g, text, GLOSS_SPECIAL_TEXT, e));
    else
        TRY(add_list(g, ids, "input_ids", e));
out:
    return st;
}

static void run(struct server *s, struct exch *x, bool generate)
{
    struct json *root;
    struct err e = {0};
    const char *model;
    if (!ask_body(s, x, &root))
        return;
    if (!ask_model(s, x, root, &model)) {
        json_free(root);
        return;
    }
    struct gen *g = gen_new(s, x, &ops, generate ? "gen-" : "cmpl-");
    struct completion *h = g ? mem_calloc(1, sizeof *h) : NULL;
    if (!h) {
        gen_free(g);
        json_free(root);
        api_error(x, 503, NULL, NULL, "out of memory");
        return;
    }
    buf_init(&h->head, 1 << 16);
    g->own = h;
    g->root = root;
    g->model = model;
    g->plain = true;
    g->p.plain = 1;
    status st = generate ? read_generate(g, h, &e) : read_completion(g, h, &e);
    if (st < 0) {
        api_fail(s, x, &e);
        gen_free(g);
        return;
    }
    gen_start(g);
}

void api_completions(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    run(s, x, false);
}

void api_generate(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    run(s, x, true);
}
