/* POST /v1/chat/completions: the request, and its answer whole or as server-sent events.
 *
 * A stream's chunks share their beginning, which is printed once (chat.head). The order of a
 * choice's chunks: role; reasoning, content and calls as the model makes them; an empty delta with
 * the finish reason. Then usage, if asked, and [DONE].
 */
#include "serve/ask.h"
#include "serve/put.h"

#include "base/mem.h"

#include <string.h>

struct chat {
    struct buf head;
    bool short_name, long_name; /* of the reasoning field */
    bool old_calls;             /* the deprecated functions/function_call pair */
};

static void put_prompt_ids(struct gen *g, struct buf *b)
{
    buf_puts(b, ",\"prompt_token_ids\":[");
    for (size_t i = 0; i < g->req[0].n_ids; i++)
        buf_printf(b, i ? ",%d" : "%d", g->req[0].ids[i]);
    buf_putc(b, ']');
}

/* Begins a chunk of the choice; what the caller appends is the inside of "delta". */
static struct buf *chunk_begin(struct gen *g, const struct choice *c)
{
    struct chat *h = g->own;
    buf_puts(&g->frame, "data: ");
    buf_put(&g->frame, h->head.p, h->head.n);
    buf_puts(&g->frame, "\"choices\":[{\"index\":");
    buf_putc(&g->frame, (char)('0' + c->index)); /* MAX_CHOICES has one digit */
    buf_puts(&g->frame, ",\"delta\":{");
    return &g->frame;
}

static void chunk_end(struct gen *g, struct choice *c, const char *finish)
{
    struct buf *b = &g->frame;
    buf_puts(b, "},\"logprobs\":");
    if (c->logprobs.n) {
        buf_puts(b, "{\"content\":[");
        buf_put(b, c->logprobs.p, c->logprobs.n);
        buf_puts(b, "],\"refusal\":null}");
        buf_clear(&c->logprobs);
    } else {
        buf_puts(b, "null");
    }
    if (c->ids.n) {
        buf_puts(b, ",\"token_ids\":[");
        buf_put(b, c->ids.p, c->ids.n);
        buf_putc(b, ']');
        buf_clear(&c->ids);
    }
    if (finish)
        buf_printf(b, ",\"finish_reason\":\"%s\"}]", finish);
    else
        buf_puts(b, ",\"finish_reason\":null}]");
    if (g->usage_each) {
        buf_putc(b, ',');
        gen_put_usage(g, b);
    } else if (g->usage) {
        buf_puts(b, ",\"usage\":null");
    }
    buf_puts(b, "}\n\n");
}

static void put_field(struct buf *b, const char *name, const char *s, size_t n)
{
    buf_putc(b, '"');
    buf_puts(b, name);
    buf_puts(b, "\":");
    json_quote(b, s, n);
}

static void put_reasoning(const struct chat *h, struct buf *b, const char *s, size_t n)
{
    if (h->short_name)
        put_field(b, "reasoning", s, n);
    if (h->short_name && h->long_name)
        buf_putc(b, ',');
    if (h->long_name)
        put_field(b, "reasoning_content", s, n);
}

static void on_begin(struct gen *g)
{
    for (int i = 0; i < g->n_choice; i++) {
        struct buf *b = chunk_begin(g, &g->choice[i]);
        buf_puts(b, "\"role\":\"assistant\",\"content\":\"\"");
        chunk_end(g, &g->choice[i], NULL);
        if (i == 0 && g->want_ids) { /* open the object again */
            b->n -= 3;
            put_prompt_ids(g, b);
            buf_puts(b, "}\n\n");
        }
    }
}

static void stream_call(struct gen *g, struct choice *c, const struct piece *p)
{
    const struct chat *h = g->own;
    int i = c->n_call - 1;
    const struct call *call = &c->call[i];
    struct buf *b;
    if (h->old_calls && i > 0)
        return; /* that form has room for one */
    if (p->first) {
        b = chunk_begin(g, c);
        if (h->old_calls)
            buf_puts(b, "\"function_call\":{");
        else
            buf_printf(b,
                       "\"tool_calls\":[{\"index\":%d,\"id\":\"%s\",\"type\":\"function\","
                       "\"function\":{",
                       i, call->id);
        put_field(b, "name", call->name, strlen(call->name));
        buf_puts(b, h->old_calls ? ",\"arguments\":\"\"}" : ",\"arguments\":\"\"}}]");
        chunk_end(g, c, NULL);
    }
    if (!p->n)
        return;
    b = chunk_begin(g, c);
    if (h->old_calls)
        buf_puts(b, "\"function_call\":{");
    else
        buf_printf(b, "\"tool_calls\":[{\"index\":%d,\"function\":{", i);
    put_field(b, "arguments", p->text, p->n);
    buf_puts(b, h->old_calls ? "}" : "}}]");
    chunk_end(g, c, NULL);
}

static void on_piece(struct gen *g, struct choice *c, const struct piece *p)
{
    const struct chat *h = g->own;
    if (!g->streaming)
        return;
    if (p->part == PART_CALL) {
        stream_call(g, c, p);
        return;
    }
    if (!p->n || (p->part == PART_REASONING && !h->short_name && !h->long_name))
        return;
    struct buf *b = chunk_begin(g, c);
    if (p->part == PART_REASONING)
        put_reasoning(h, b, p->text, p->n);
    else
        put_field(b, "content", p->text, p->n);
    chunk_end(g, c, NULL);
}

static const char *finish_of(const struct gen *g, const struct choice *c)
{
    const struct chat *h = g->own;
    return h->old_calls && strcmp(c->finish, "tool_calls") == 0 ? "function_call" : c->finish;
}

static void on_choice_end(struct gen *g, struct choice *c)
{
    for (int i = 0; i < c->n_call; i++) {
        struct call *call = &c->call[i];
        thoughts_keep(g->s->thoughts, g->x->tenant, call->id, c->reasoning.p, c->reasoning.n);
        if (call->args.n)
            continue;
        buf_puts(&call->args, "{}"); /* arguments are JSON to every client */
        if (g->streaming && i == c->n_call - 1) {
            struct piece p = {.part = PART_CALL, .text = "{}", .n = 2};
            stream_call(g, c, &p);
        }
    }
    if (!g->streaming)
        return;
    chunk_begin(g, c);
    chunk_end(g, c, finish_of(g, c));
}

static void put_message(const struct gen *g, struct buf *b, const struct choice *c)
{
    const struct chat *h = g->own;
    buf_puts(b, "{\"role\":\"assistant\",\"content\":");
    if (c->content.n || !c->n_call)
        json_quote(b, c->content.p, c->content.n);
    else
        buf_puts(b, "null");
    buf_puts(b, ",\"refusal\":null,\"annotations\":[]");
    if (c->reasoning.n && (h->short_name || h->long_name)) {
        buf_putc(b, ',');
        put_reasoning(h, b, c->reasoning.p, c->reasoning.n);
    }
    for (int i = 0; i < c->n_call && !(h->old_calls && i); i++) {
        const struct call *call = &c->call[i];
        if (h->old_calls)
            buf_puts(b, ",\"function_call\":{");
        else
            buf_printf(b, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{",
                       i ? "," : ",\"tool_calls\":[", call->id);
        put_field(b, "name", call->name, strlen(call->name));
        buf_putc(b, ',');
        put_field(b, "arguments", call->args.p, call->args.n);
        buf_puts(b, h->old_calls ? "}" : "}}");
    }
    buf_puts(b, c->n_call && !h->old_calls ? "]}" : "}");
}

static void put_choice(const struct gen *g, struct buf *b, const struct choice *c)
{
    buf_printf(b, "{\"index\":%d,\"message\":", c->index);
    put_message(g, b, c);
    if (g->want_logprobs) {
        buf_puts(b, ",\"logprobs\":{\"content\":[");
        buf_put(b, c->logprobs.p, c->logprobs.n);
        buf_puts(b, "],\"refusal\":null}");
    } else {
        buf_puts(b, ",\"logprobs\":null");
    }
    if (g->want_ids) {
        buf_puts(b, ",\"token_ids\":[");
        buf_put(b, c->ids.p, c->ids.n);
        buf_putc(b, ']');
    }
    buf_printf(b, ",\"finish_reason\":\"%s\"}", finish_of(g, c));
}

static void on_end(struct gen *g)
{
    struct chat *h = g->own;
    struct buf *b = &g->frame;
    if (g->streaming) {
        if (g->usage || g->usage_each) {
            buf_puts(b, "data: ");
            buf_put(b, h->head.p, h->head.n);
            buf_puts(b, "\"choices\":[],");
            gen_put_usage(g, b);
            buf_putc(b, ',');
            gen_put_timings(g, b);
            buf_puts(b, "}\n\n");
        }
        buf_puts(b, "data: [DONE]\n\n");
        return;
    }
    buf_put(b, h->head.p, h->head.n);
    buf_puts(b, "\"choices\":[");
    for (int i = 0; i < g->n_choice; i++) {
        if (i)
            buf_putc(b, ',');
        put_choice(g, b, &g->choice[i]);
    }
    buf_puts(b, "],");
    gen_put_usage(g, b);
    buf_putc(b, ',');
    gen_put_timings(g, b);
    if (g->want_ids)
        put_prompt_ids(g, b);
    buf_putc(b, '}');
    http_reply(g->x, 200, "application/json", b);
    buf_clear(b);
}

static void on_fini(struct gen *g)
{
    struct chat *h = g->own;
    if (h)
        buf_fini(&h->head);
    mem_free(h);
}

static const struct gen_ops ops = {.begin = on_begin,
                                   .piece = on_piece,
                                   .choice_end = on_choice_end,
                                   .end = on_end,
                                   .fail = gen_fail,
                                   .fini = on_fini};

static status read_request(struct gen *g, struct chat *h, struct err *e)
{
    bool want = true;
    status st = OK;
    TRY(ask_refused(g->root, e));
    TRY(ask_params(g, g->root, ASK_CHAT, e));
    TRY(json_get_bool(g->root, "include_reasoning", &want, e));
    TRY(ask_hold(g, g->root, e));
    int field = want ? g->s->o.reasoning_field : SERVE_REASONING_NONE;
    h->short_name = field == SERVE_REASONING_BOTH || field == SERVE_REASONING_SHORT;
    h->long_name = field == SERVE_REASONING_BOTH || field == SERVE_REASONING_LONG;
    h->old_calls =
        !json_absent(json_get(g->root, "functions")) && json_absent(json_get(g->root, "tools"));
    buf_printf(&h->head, "{\"id\":\"%s\",\"object\":\"chat.completion%s\",\"created\":%lld,", g->id,
               g->stream ? ".chunk" : "", (long long)g->created);
    put_field(&h->head, "model", g->model, strlen(g->model));
    buf_printf(&h->head, ",\"system_fingerprint\":\"%s\",\"service_tier\":\"default\",",
               g->s->fingerprint);
    TRY(ask_prompt(g, g->root, e));
    TRY(ask_truncate(g, g->root, e));
out:
    return st;
}

void api_chat(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    struct json *root;
    struct err e = {0};
    const char *model;
    if (!ask_body(s, x, &root))
        return;
    if (!ask_model(s, x, root, &model)) {
        json_free(root);
        return;
    }
    struct gen *g = gen_new(s, x, &ops, "chatcmpl-");
    struct chat *h = g ? mem_calloc(1, sizeof *h) : NULL;
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
    if (read_request(g, h, &e) < 0) {
        api_fail(s, x, &e);
        gen_free(g);
        return;
    }
    gen_start(g);
}
