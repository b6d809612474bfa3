/* POST /v1/responses: the request becomes a chat, the answer a list of items, whole or as events.
 *
 * Each message of the model is one item: reasoning, message or function call. An event is written
 * as soon as its text is there; numbers run from 0 without gaps. A stored response is put down when
 * it begins, so that it can be asked for and cancelled, and again when it ends.
 */
#include "serve/ask.h"
#include "serve/items.h"
#include "serve/put.h"
#include "serve/seal.h"
#include "serve/store.h"

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 256 << 20 };

enum item_kind { ITEM_REASONING, ITEM_MESSAGE, ITEM_CALL };

struct item {
    enum item_kind kind;
    char id[40];
    int message; /* of the choice */
    int i_call;
    bool preamble, done;
    struct buf text;     /* of ITEM_CALL: its arguments are in the choice */
    struct buf logprobs; /* entries with commas */
    struct buf sealed;
};

struct response {
    struct json *chat; /* the chat that was made of the request */
    struct buf input;  /* normalised items */
    struct item *item; /* [n_item] */
    int n_item;
    int seq;
    bool store, summary, seal, logprobs;
    char previous[64];
    const char *status;
    char failure[320]; /* message, when status is "failed" */
};

/* ---- the response object ---- */

static void put_or(struct buf *b, const struct json *root, const char *key, const char *otherwise)
{
    const struct json *j = json_get(root, key);
    buf_printf(b, ",\"%s\":", key);
    if (json_absent(j))
        buf_puts(b, otherwise);
    else
        json_dump(b, j);
}

static void put_message_content(struct buf *b, const struct item *t)
{
    buf_puts(b, "{\"type\":\"output_text\",\"text\":");
    json_quote(b, t->text.p, t->text.n);
    buf_puts(b, ",\"annotations\":[],\"logprobs\":[");
    buf_put(b, t->logprobs.p, t->logprobs.n);
    buf_puts(b, "]}");
}

static void put_text_part(struct buf *b, const char *type, const struct item *t)
{
    buf_printf(b, "{\"type\":\"%s\",\"text\":", type);
    json_quote(b, t->text.p, t->text.n);
    buf_putc(b, '}');
}

/* `begun`: as it stands in output_item.added, without its text. */
static void put_item(const struct gen *g, struct buf *b, const struct item *t, const char *how,
                     bool begun)
{
    const struct response *r = g->own;
    const struct choice *c = &g->choice[0];
    switch (t->kind) {
    case ITEM_REASONING:
        buf_printf(b, "{\"id\":\"%s\",\"type\":\"reasoning\",\"status\":\"%s\",\"summary\":[",
                   t->id, how);
        if (r->summary && !begun)
            put_text_part(b, "summary_text", t);
        buf_puts(b, "],\"content\":[");
        if (!begun)
            put_text_part(b, "reasoning_text", t);
        buf_putc(b, ']');
        if (r->seal && !begun)
            buf_printf(b, ",\"encrypted_content\":\"%s\"", t->sealed.p);
        buf_putc(b, '}');
        break;
    case ITEM_MESSAGE:
        buf_printf(b,
                   "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"%s\","
                   "\"phase\":\"%s\",\"content\":[",
                   t->id, how, t->preamble ? "commentary" : "final_answer");
        if (!begun)
            put_message_content(b, t);
        buf_puts(b, "]}");
        break;
    case ITEM_CALL: {
        const struct call *call = &c->call[t->i_call];
        buf_printf(b,
                   "{\"id\":\"%s\",\"type\":\"function_call\",\"status\":\"%s\",\"call_id\":\"%s\"",
                   t->id, how, call->id);
        buf_puts(b, ",\"name\":");
        json_quote(b, call->name, strlen(call->name));
        buf_puts(b, ",\"arguments\":");
        json_quote(b, begun ? "" : call->args.p, begun ? 0 : call->args.n);
        buf_putc(b, '}');
        break;
    }
    }
}

static void put_usage(const struct gen *g, struct buf *b)
{
    int n = gen_completion_tok(g);
    buf_printf(b,
               "{\"input_tokens\":%d,\"input_tokens_details\":{\"cached_tokens\":%d,"
               "\"cache_write_tokens\":0},\"output_tokens\":%d,\"output_tokens_details\":{"
               "\"reasoning_tokens\":%d},\"total_tokens\":%d",
               g->n_prompt_tok, g->n_cached_tok, n, gen_reasoning_tok(g), g->n_prompt_tok + n);
    gen_put_energy(g, b);
    buf_putc(b, '}');
}

/* `tools` of the kinds that we know. */
static void put_tools(struct buf *b, const struct json *list)
{
    bool any = false;
    buf_puts(b, ",\"tools\":[");
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *t = json_at(list, i), *type = json_get(t, "type");
        if (json_kind(type) != J_STR || strcmp(json_str(type, NULL), "function") != 0)
            continue;
        buf_puts(b, any ? ",{\"type\":\"function\"" : "{\"type\":\"function\"");
        any = true;
        put_or(b, t, "name", "\"\"");
        put_or(b, t, "description", "null");
        put_or(b, t, "parameters", "null");
        put_or(b, t, "strict", "false");
        buf_putc(b, '}');
    }
    buf_putc(b, ']');
}

static void put_fields(const struct gen *g, struct buf *b)
{
    const struct response *r = g->own;
    const struct json *q = g->root, *text = json_get(q, "text"), *why = json_get(q, "reasoning");
    put_or(b, q, "instructions", "null");
    put_or(b, q, "max_output_tokens", "null");
    put_or(b, q, "max_tool_calls", "null");
    put_or(b, q, "metadata", "{}");
    put_or(b, q, "parallel_tool_calls", "true");
    put_or(b, q, "prompt_cache_key", "null");
    put_or(b, q, "safety_identifier", "null");
    put_or(b, q, "user", "null");
    put_or(b, q, "tool_choice", "\"auto\"");
    put_or(b, q, "truncation", "\"disabled\"");
    put_or(b, q, "temperature", "1.0");
    put_or(b, q, "top_p", "1.0");
    put_or(b, q, "top_logprobs", "0");
    put_or(b, q, "presence_penalty", "0.0");
    put_or(b, q, "frequency_penalty", "0.0");
    put_tools(b, json_get(q, "tools"));
    buf_puts(b, ",\"reasoning\":{\"effort\":");
    if (json_absent(json_get(why, "effort")))
        buf_printf(b, "\"%s\"", g->s->o.effort ? g->s->o.effort : "medium");
    else
        json_dump(b, json_get(why, "effort"));
    put_or(b, why, "summary", "null");
    buf_puts(b, "},\"text\":{\"format\":");
    if (json_absent(json_get(text, "format")))
        buf_puts(b, "{\"type\":\"text\"}");
    else
        json_dump(b, json_get(text, "format"));
    put_or(b, text, "verbosity", "\"medium\"");
    buf_printf(b, "},\"service_tier\":\"default\",\"background\":false,\"store\":%s",
               r->store ? "true" : "false");
}

static void put_response(const struct gen *g, struct buf *b, const char *how)
{
    const struct response *r = g->own;
    bool over = strcmp(how, "in_progress") != 0, cut = strcmp(how, "incomplete") == 0;
    buf_printf(b, "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\"",
               g->id, (long long)g->created, how);
    if (over && strcmp(how, "completed") == 0)
        buf_printf(b, ",\"completed_at\":%lld", (long long)unix_now());
    else
        buf_puts(b, ",\"completed_at\":null");
    buf_puts(b, ",\"error\":");
    if (strcmp(how, "failed") == 0) {
        buf_puts(b, "{\"code\":\"server_error\",\"message\":");
        json_quote(b, r->failure, strlen(r->failure));
        buf_putc(b, '}');
    } else {
        buf_puts(b, "null");
    }
    buf_printf(b, ",\"incomplete_details\":%s,\"model\":",
               cut ? "{\"reason\":\"max_output_tokens\"}" : "null");
    json_quote(b, g->model, strlen(g->model));
    if (r->previous[0])
        buf_printf(b, ",\"previous_response_id\":\"%s\"", r->previous);
    else
        buf_puts(b, ",\"previous_response_id\":null");
    put_fields(g, b);
    buf_puts(b, ",\"output\":[");
    for (int i = 0; over && i < r->n_item; i++) {
        if (i)
            buf_putc(b, ',');
        bool last = i == r->n_item - 1;
        put_item(g, b, &r->item[i],
                 last && strcmp(how, "completed") != 0 ? "incomplete" : "completed", false);
    }
    buf_puts(b, "],\"usage\":");
    if (over)
        put_usage(g, b);
    else
        buf_puts(b, "null");
    buf_putc(b, '}');
}

static void keep(struct gen *g, const char *how)
{
    struct response *r = g->own;
    if (!r->store)
        return;
    struct buf b;
    buf_init(&b, TEXT_MAX);
    put_response(g, &b, how);
    if (buf_status(&b) == OK)
        (void)!store_put(g->s->store, g->x->tenant, g->id, r->previous, &b, &r->input);
    buf_fini(&b);
}

/* ---- events ---- */

static struct buf *event(struct gen *g, const char *type)
{
    struct response *r = g->own;
    buf_printf(&g->frame, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%d", type, type,
               r->seq++);
    return &g->frame;
}

static struct buf *item_event(struct gen *g, const char *type, int i)
{
    const struct response *r = g->own;
    struct buf *b = event(g, type);
    buf_printf(b, ",\"item_id\":\"%s\",\"output_index\":%d", r->item[i].id, i);
    return b;
}

static void event_end(struct gen *g)
{
    buf_puts(&g->frame, "}\n\n");
}

static void response_event(struct gen *g, const char *type, const char *how)
{
    struct buf *b = event(g, type);
    buf_puts(b, ",\"response\":");
    put_response(g, b, how);
    event_end(g);
}

static void on_begin(struct gen *g)
{
    response_event(g, "response.created", "in_progress");
    response_event(g, "response.in_progress", "in_progress");
}

static void item_added(struct gen *g, int i)
{
    const struct response *r = g->own;
    const struct item *t = &r->item[i];
    struct buf *b = event(g, "response.output_item.added");
    buf_printf(b, ",\"output_index\":%d,\"item\":", i);
    put_item(g, b, t, "in_progress", true);
    event_end(g);
    if (t->kind == ITEM_CALL)
        return;
    if (t->kind == ITEM_REASONING && r->summary) {
        b = item_event(g, "response.reasoning_summary_part.added", i);
        buf_puts(b, ",\"summary_index\":0,\"part\":{\"type\":\"summary_text\",\"text\":\"\"}");
        event_end(g);
    }
    b = item_event(g, "response.content_part.added", i);
    buf_printf(b, ",\"content_index\":0,\"part\":%s",
               t->kind == ITEM_REASONING
                   ? "{\"type\":\"reasoning_text\",\"text\":\"\"}"
                   : "{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[],\"logprobs\":[]}");
    event_end(g);
}

/* An event with a text member: a delta or the whole. */
static void text_event(struct gen *g, const char *type, int i, const char *index, const char *key,
                       const char *s, size_t n)
{
    struct buf *b = item_event(g, type, i);
    if (index)
        buf_printf(b, ",\"%s\":0", index);
    buf_printf(b, ",\"%s\":", key);
    json_quote(b, s, n);
}

static void close_reasoning(struct gen *g, int i)
{
    const struct response *r = g->own;
    const struct item *t = &r->item[i];
    struct buf *b = &g->frame;
    text_event(g, "response.reasoning_text.done", i, "content_index", "text", t->text.p, t->text.n);
    event_end(g);
    if (r->summary) {
        text_event(g, "response.reasoning_summary_text.done", i, "summary_index", "text", t->text.p,
                   t->text.n);
        event_end(g);
        item_event(g, "response.reasoning_summary_part.done", i);
        buf_puts(b, ",\"summary_index\":0,\"part\":");
        put_text_part(b, "summary_text", t);
        event_end(g);
    }
    item_event(g, "response.content_part.done", i);
    buf_puts(b, ",\"content_index\":0,\"part\":");
    put_text_part(b, "reasoning_text", t);
    event_end(g);
}

static void close_message(struct gen *g, int i)
{
    const struct response *r = g->own;
    const struct item *t = &r->item[i];
    struct buf *b = &g->frame;
    text_event(g, "response.output_text.done", i, "content_index", "text", t->text.p, t->text.n);
    buf_puts(b, ",\"logprobs\":[");
    buf_put(b, t->logprobs.p, t->logprobs.n);
    buf_putc(b, ']');
    event_end(g);
    item_event(g, "response.content_part.done", i);
    buf_puts(b, ",\"content_index\":0,\"part\":");
    put_message_content(b, t);
    event_end(g);
}

/* Ends the last item. */
static void close_item(struct gen *g, const char *how)
{
    struct response *r = g->own;
    int i = r->n_item - 1;
    if (i < 0 || r->item[i].done)
        return;
    struct item *t = &r->item[i];
    t->done = true;
    if (t->kind == ITEM_REASONING && r->seal)
        (void)!seal_text(g->s->seal, g->x->tenant, t->text.p, t->text.n, &t->sealed);
    if (t->kind == ITEM_CALL) {
        struct call *call = &g->choice[0].call[t->i_call];
        if (!call->args.n)
            buf_puts(&call->args, "{}"); /* arguments are JSON to every client */
    }
    if (!g->streaming)
        return;
    if (t->kind == ITEM_REASONING) {
        close_reasoning(g, i);
    } else if (t->kind == ITEM_MESSAGE) {
        close_message(g, i);
    } else {
        const struct call *call = &g->choice[0].call[t->i_call];
        text_event(g, "response.function_call_arguments.done", i, NULL, "arguments", call->args.p,
                   call->args.n);
        buf_puts(&g->frame, ",\"name\":");
        json_quote(&g->frame, call->name, strlen(call->name));
        event_end(g);
    }
    struct buf *b = event(g, "response.output_item.done");
    buf_printf(b, ",\"output_index\":%d,\"item\":", i);
    put_item(g, b, t, how, false);
    event_end(g);
}

static struct item *open_item(struct gen *g, struct choice *c, const struct piece *p)
{
    static const char *const prefix[] = {"rs", "msg", "fc"};
    struct response *r = g->own;
    close_item(g, "completed");
    struct item *to = mem_realloc_array(r->item, (size_t)r->n_item + 1, sizeof *to);
    if (!to)
        return NULL;
    r->item = to;
    struct item *t = &r->item[r->n_item++];
    *t = (struct item){.kind = p->part == PART_REASONING ? ITEM_REASONING
                               : p->part == PART_CALL    ? ITEM_CALL
                                                         : ITEM_MESSAGE,
                       .message = p->message,
                       .i_call = c->n_call - 1,
                       .preamble = p->part == PART_PREAMBLE};
    buf_init(&t->text, TEXT_MAX);
    buf_init(&t->logprobs, TEXT_MAX);
    buf_init(&t->sealed, TEXT_MAX);
    snprintf(t->id, sizeof t->id, "%s_%016llx%08x", prefix[t->kind],
             (unsigned long long)rng_os_seed(), (unsigned)(rng_os_seed() & 0xffffffff));
    if (g->streaming)
        item_added(g, r->n_item - 1);
    return t;
}

static void stream_piece(struct gen *g, const struct choice *c, const struct piece *p, int i)
{
    const struct response *r = g->own;
    switch (r->item[i].kind) {
    case ITEM_REASONING:
        text_event(g, "response.reasoning_text.delta", i, "content_index", "delta", p->body,
                   p->n_body);
        event_end(g);
        if (!r->summary)
            return;
        text_event(g, "response.reasoning_summary_text.delta", i, "summary_index", "delta", p->body,
                   p->n_body);
        event_end(g);
        return;
    case ITEM_MESSAGE:
        text_event(g, "response.output_text.delta", i, "content_index", "delta", p->body,
                   p->n_body);
        buf_puts(&g->frame, ",\"logprobs\":[");
        buf_put(&g->frame, c->logprobs.p, c->logprobs.n);
        buf_putc(&g->frame, ']');
        event_end(g);
        return;
    case ITEM_CALL:
        text_event(g, "response.function_call_arguments.delta", i, NULL, "delta", p->body,
                   p->n_body);
        event_end(g);
        return;
    }
}

static void on_piece(struct gen *g, struct choice *c, const struct piece *p)
{
    struct response *r = g->own;
    struct item *t = r->n_item ? &r->item[r->n_item - 1] : NULL;
    if (!t || t->message != p->message) {
        if (!p->n_body && p->part != PART_CALL)
            return;
        t = open_item(g, c, p);
    }
    if (!t) {
        g->failed = true;
        err_set(&g->err, E_NOMEM, "out of memory");
        return;
    }
    if (!p->n_body)
        return;
    if (t->kind != ITEM_CALL)
        buf_put(&t->text, p->body, p->n_body);
    if (g->streaming)
        stream_piece(g, c, p, r->n_item - 1);
    if (t->kind == ITEM_MESSAGE && c->logprobs.n) {
        if (t->logprobs.n)
            buf_putc(&t->logprobs, ',');
        buf_put(&t->logprobs, c->logprobs.p, c->logprobs.n);
        buf_clear(&c->logprobs);
    }
}

static void on_choice_end(struct gen *g, struct choice *c)
{
    for (int i = 0; i < c->n_call; i++)
        thoughts_keep(g->s->thoughts, g->x->tenant, c->call[i].id, c->reasoning.p, c->reasoning.n);
}

static void on_end(struct gen *g)
{
    struct response *r = g->own;
    bool cut = g->choice[0].was_length, stopped = atomic_load(&g->cancelled);
    r->status = stopped ? "cancelled" : cut ? "incomplete" : "completed";
    close_item(g, cut || stopped ? "incomplete" : "completed");
    keep(g, r->status);
    if (g->streaming) {
        response_event(g, cut || stopped ? "response.incomplete" : "response.completed", r->status);
        buf_puts(&g->frame, "data: [DONE]\n\n");
        return;
    }
    put_response(g, &g->frame, r->status);
    http_reply(g->x, 200, "application/json", &g->frame);
    buf_clear(&g->frame);
}

static void on_fail(struct gen *g, const struct err *e)
{
    struct response *r = g->own;
    snprintf(r->failure, sizeof r->failure, "%s", e->msg[0] ? e->msg : err_name(e->code));
    if (!g->streaming) {
        keep(g, "failed");
        api_fail(g->s, g->x, e);
        return;
    }
    close_item(g, "incomplete");
    keep(g, "failed");
    response_event(g, "response.failed", "failed");
}

static void on_fini(struct gen *g)
{
    struct response *r = g->own;
    for (int i = 0; i < r->n_item; i++) {
        buf_fini(&r->item[i].text);
        buf_fini(&r->item[i].logprobs);
        buf_fini(&r->item[i].sealed);
    }
    mem_free(r->item);
    buf_fini(&r->input);
    json_free(r->chat);
    mem_free(r);
}

static const struct gen_ops ops = {.begin = on_begin,
                                   .piece = on_piece,
                                   .choice_end = on_choice_end,
                                   .end = on_end,
                                   .fail = on_fail,
                                   .fini = on_fini};

/* ---- requests ---- */

static bool is(const struct json *j, const char *word)
{
    return json_kind(j) == J_STR && strcmp(json_str(j, NULL), word) == 0;
}

/* text.format in the chat's form. */
static void put_format(struct buf *b, const struct json *format)
{
    const struct json *type = json_get(format, "type");
    if (json_absent(format))
        return;
    buf_puts(b, ",\"response_format\":");
    if (!is(type, "json_schema")) {
        json_dump(b, format);
        return;
    }
    buf_puts(b, "{\"type\":\"json_schema\",\"json_schema\":{\"x\":0");
    static const char *const keys[] = {"name", "description", "schema", "strict"};
    for (int i = 0; i < 4; i++)
        if (!json_absent(json_get(format, keys[i])))
            put_or(b, format, keys[i], "null");
    buf_puts(b, "}}");
}

static void put_functions(struct buf *b, const struct json *list)
{
    bool any = false;
    buf_puts(b, ",\"tools\":[");
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *t = json_at(list, i);
        if (json_kind(t) == J_OBJ && !is(json_get(t, "type"), "function"))
            continue; /* a tool of another kind: its maker's own client runs it, or nobody */
        if (any)
            buf_putc(b, ',');
        any = true;
        json_dump(b, t);
    }
    buf_putc(b, ']');
}

/* The request as a chat, in r->chat. */
static status make_chat(struct gen *g, struct response *r, struct err *e)
{
    const struct json *q = g->root, *said = json_get(q, "instructions"),
                      *tools = json_get(q, "tools");
    struct items t;
    struct json *input = NULL;
    struct buf b;
    status st = OK;
    items_init(&t, g->s, g->x->tenant);
    buf_init(&b, TEXT_MAX);
    if (!json_absent(tools) && json_kind(tools) != J_ARR)
        TRY(err_param(e, E_INPUT, "tools", "\"tools\" must be a list"));
    if (!json_absent(said) && json_kind(said) != J_STR)
        TRY(err_param(e, E_INPUT, "instructions", "\"instructions\" must be a text"));
    TRY(items_normal(json_get(q, "input"), &r->input, e));
    TRY(json_parse(r->input.p, r->input.n, &json_limits_file, &input, e));
    if (!json_absent(said)) {
        buf_puts(&t.out, "{\"role\":\"developer\",\"content\":");
        json_dump(&t.out, said);
        buf_putc(&t.out, '}');
    }
    if (r->previous[0])
        TRY(items_add_stored(&t, r->previous, e));
    TRY(items_add_list(&t, input, "input", e));
    items_flush(&t);
    buf_puts(&b, "{\"messages\":[");
    buf_put(&b, t.out.p, t.out.n);
    buf_putc(&b, ']');
    if (json_len(tools))
        put_functions(&b, tools);
    static const char *const same[] = {"tool_choice", "reasoning"};
    for (int i = 0; i < 2; i++)
        if (!json_absent(json_get(q, same[i])))
            put_or(&b, q, same[i], "null");
    put_format(&b, json_get(json_get(q, "text"), "format"));
    buf_putc(&b, '}');
    TRY(buf_status(&b));
    TRY(json_parse(b.p, b.n, &json_limits_file, &r->chat, e));
out:
    json_free(input);
    items_fini(&t);
    buf_fini(&b);
    return st;
}

static status read_previous(struct gen *g, struct response *r, struct err *e)
{
    const struct json *j = json_get(g->root, "previous_response_id");
    if (json_absent(j))
        return OK;
    size_t n = 0;
    if (json_kind(j) != J_STR || strlen(json_str(j, &n)) != n || !n || n >= sizeof r->previous ||
        !store_get(g->s->store, g->x->tenant, json_str(j, NULL), NULL, NULL, NULL))
        return err_param(e, E_INPUT, "previous_response_id",
                         "there is no such stored response; send the full history");
    memcpy(r->previous, json_str(j, NULL), n + 1);
    return OK;
}

static status read_choices(struct gen *g, struct response *r, struct err *e)
{
    static const char *const never[] = {"conversation", "prompt"};
    const struct json *q = g->root, *include = json_get(q, "include"),
                      *cut = json_get(q, "truncation"), *why = json_get(q, "reasoning");
    bool background = false;
    status st = OK;
    for (int i = 0; i < 2; i++)
        if (!json_absent(json_get(q, never[i])))
            return err_param(e, E_STATE, never[i], "\"%s\" is not supported here", never[i]);
    TRY(json_get_bool(q, "background", &background, e));
    if (background)
        return err_param(e, E_STATE, "background", "\"background\" is not supported here");
    TRY(json_get_bool(q, "store", &r->store, e));
    if (!json_absent(cut) && !is(cut, "auto") && !is(cut, "disabled"))
        return err_param(e, E_INPUT, "truncation", "\"truncation\" must be auto or disabled");
    if (!json_absent(why) && json_kind(why) != J_OBJ)
        return err_param(e, E_INPUT, "reasoning", "\"reasoning\" must be an object");
    r->summary =
        !json_absent(json_get(why, "summary")) || !json_absent(json_get(why, "generate_summary"));
    if (!json_absent(include) && json_kind(include) != J_ARR)
        return err_param(e, E_INPUT, "include", "\"include\" must be a list");
    for (size_t i = 0; i < json_len(include); i++) {
        r->seal = r->seal || is(json_at(include, i), "reasoning.encrypted_content");
        r->logprobs = r->logprobs || is(json_at(include, i), "message.output_text.logprobs");
    }
out:
    return st;
}

static status check_echoed(const struct json *q, struct err *e)
{
    static const struct {
        const char *key;
        enum json_kind kind;
        const char *what;
    } echoed[] = {{"metadata", J_OBJ, "an object"},
                  {"text", J_OBJ, "an object"},
                  {"user", J_STR, "a text"},
                  {"prompt_cache_key", J_STR, "a text"},
                  {"safety_identifier", J_STR, "a text"}};
    bool parallel;
    int64_t calls = 0;
    for (size_t i = 0; i < sizeof echoed / sizeof echoed[0]; i++) {
        const struct json *j = json_get(q, echoed[i].key);
        if (!json_absent(j) && json_kind(j) != echoed[i].kind)
            return err_param(e, E_INPUT, echoed[i].key, "\"%s\" must be %s", echoed[i].key,
                             echoed[i].what);
    }
    status st = json_get_bool(q, "parallel_tool_calls", &parallel, e);
    return st < 0 ? st : json_get_int(q, "max_tool_calls", 0, INT32_MAX, &calls, e);
}

static status read_request(struct gen *g, struct response *r, struct err *e)
{
    status st = OK;
    TRY(ask_refused(g->root, e));
    TRY(check_echoed(g->root, e));
    TRY(read_choices(g, r, e));
    TRY(ask_params(g, g->root, ASK_RESPONSES, e));
    if (r->logprobs || g->p.n_top) {
        g->want_logprobs = true;
        g->p.no_logprobs = 0;
    }
    TRY(read_previous(g, r, e));
    TRY(make_chat(g, r, e));
    TRY(ask_hold(g, r->chat, e));
    TRY(ask_prompt(g, r->chat, e));
out:
    if (st < 0 && strncmp(e->param, "messages", 8) == 0)
        snprintf(e->param, sizeof e->param, "input");
    if (st < 0 && strncmp(e->param, "response_format", 15) == 0)
        snprintf(e->param, sizeof e->param, "text.format");
    return st;
}

/* The generation of a request, or NULL: answered with an error. */
static struct gen *make(struct server *s, struct exch *x)
{
    struct json *root;
    struct err e = {0};
    const char *model;
    if (!ask_body(s, x, &root))
        return NULL;
    if (!ask_model(s, x, root, &model)) {
        json_free(root);
        return NULL;
    }
    struct response *r = mem_calloc(1, sizeof *r);
    struct gen *g = r ? gen_new(s, x, &ops, "resp_") : NULL;
    if (!g) {
        mem_free(r);
        json_free(root);
        api_error(x, 503, NULL, NULL, "out of memory");
        return NULL;
    }
    buf_init(&r->input, TEXT_MAX);
    r->store = true;
    g->own = r;
    g->root = root;
    g->model = model;
    if (read_request(g, r, &e) == OK)
        return g;
    api_fail(s, x, &e);
    gen_free(g);
    return NULL;
}

void api_responses(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    struct gen *g = make(s, x);
    if (!g)
        return;
    keep(g, "in_progress");
    gen_start(g);
}

void api_response_tokens(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    struct gen *g = make(s, x);
    if (!g)
        return;
    struct buf b;
    buf_init(&b, 256);
    buf_printf(&b, "{\"object\":\"response.input_tokens\",\"input_tokens\":%d}", g->n_prompt_tok);
    http_reply(x, 200, "application/json", &b);
    buf_fini(&b);
    gen_free(g);
}

/* ---- stored ones ---- */

static void not_found(struct exch *x)
{
    api_error(x, 404, "not_found", "response_id", "there is no such stored response");
}

void api_response_get(struct server *s, struct exch *x, const char *id)
{
    struct buf b;
    buf_init(&b, TEXT_MAX);
    const char *stream = http_query(x, "stream");
    if (stream && strcmp(stream, "true") == 0)
        api_error(x, 400, "unsupported_parameter", "stream", "a stored response is not streamed");
    else if (store_get(s->store, x->tenant, id, &b, NULL, NULL))
        http_reply(x, 200, "application/json", &b);
    else
        not_found(x);
    buf_fini(&b);
}

void api_response_delete(struct server *s, struct exch *x, const char *id)
{
    if (!store_delete(s->store, x->tenant, id)) {
        not_found(x);
        return;
    }
    struct buf b;
    buf_init(&b, 1024);
    buf_printf(&b, "{\"id\":\"%s\",\"object\":\"response\",\"deleted\":true}", id);
    http_reply(x, 200, "application/json", &b);
    buf_fini(&b);
}

/* The stored object as cancelled: a running one is still being ended by the pump. */
static void reply_cancelled(struct server *s, struct exch *x, const char *id)
{
    static const char from[] = "\"status\":\"in_progress\"", to[] = "\"status\":\"cancelled\"";
    struct buf b, out;
    buf_init(&b, TEXT_MAX);
    buf_init(&out, TEXT_MAX);
    if (!store_get(s->store, x->tenant, id, &b, NULL, NULL)) {
        not_found(x);
    } else {
        const char *at = strstr(b.p, from);
        size_t before = at ? (size_t)(at - b.p) : b.n;
        buf_put(&out, b.p, before);
        if (at) {
            buf_puts(&out, to);
            buf_puts(&out, at + sizeof from - 1);
        }
        http_reply(x, 200, "application/json", &out);
    }
    buf_fini(&out);
    buf_fini(&b);
}

void api_response_cancel(struct server *s, struct exch *x, const char *id)
{
    if (strncmp(id, "resp_", 5) == 0 && pump_cancel(s->pump, x->tenant, id))
        reply_cancelled(s, x, id);
    else
        api_response_get(s, x, id);
}

/* Newest first, as OpenAI lists them, or order=asc; after=ID, limit=1-100. */
void api_response_items(struct server *s, struct exch *x, const char *id)
{
    struct buf in, b;
    struct json *list = NULL;
    struct err e = {0};
    buf_init(&in, TEXT_MAX);
    buf_init(&b, TEXT_MAX);
    const char *order = http_query(x, "order"), *after = http_query(x, "after"),
               *limit = http_query(x, "limit");
    int64_t most = 20;
    bool up = order && strcmp(order, "asc") == 0;
    if (!store_get(s->store, x->tenant, id, NULL, &in, NULL)) {
        not_found(x);
    } else if ((limit && num_i64(limit, 1, 100, &most) < 0) ||
               (order && !up && strcmp(order, "desc") != 0)) {
        api_error(x, 400, "invalid_value", limit ? "limit" : "order",
                  "limit is 1 to 100, order is asc or desc");
    } else if (json_parse(in.p, in.n, &json_limits_file, &list, &e) < 0) {
        api_fail(s, x, &e);
    } else {
        size_t n = json_len(list), i = 0, shown = 0;
        for (size_t k = 0; after && k < n; k++)
            if (is(json_get(json_at(list, up ? k : n - 1 - k), "id"), after))
                i = k + 1;
        size_t first = i;
        buf_puts(&b, "{\"object\":\"list\",\"data\":[");
        for (; i < n && shown < (size_t)most; i++, shown++) {
            if (shown)
                buf_putc(&b, ',');
            json_dump(&b, json_at(list, up ? i : n - 1 - i));
        }
        buf_printf(&b, "],\"has_more\":%s,\"first_id\":", i < n ? "true" : "false");
        const struct json *a = shown ? json_at(list, up ? first : n - 1 - first) : NULL,
                          *z = shown ? json_at(list, up ? i - 1 : n - i) : NULL;
        json_dump(&b, json_get(a, "id"));
        buf_puts(&b, ",\"last_id\":");
        json_dump(&b, json_get(z, "id"));
        buf_putc(&b, '}');
        http_reply(x, 200, "application/json", &b);
    }
    json_free(list);
    buf_fini(&in);
    buf_fini(&b);
}
