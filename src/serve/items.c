/* Items of the Responses interface into chat messages. See items.h.
 *
 * A chat message of the assistant holds reasoning, words and calls at once; items hold one each.
 * They are gathered as long as they stand in that order, and any other item ends the message.
 */
#include "serve/items.h"

#include "base/mem.h"
#include "base/rng.h"
#include "serve/seal.h"
#include "serve/store.h"

#include <stdio.h>
#include <string.h>

enum { ITEMS_MAX = 256 << 20, MAX_CHAIN = 1000, MAX_DEPTH = 4 };

static bool is(const struct json *j, const char *word)
{
    return json_kind(j) == J_STR && strcmp(json_str(j, NULL), word) == 0;
}

void items_init(struct items *t, struct server *s, uint64_t tenant)
{
    *t = (struct items){.s = s, .tenant = tenant};
    struct buf *const all[] = {&t->out, &t->think, &t->text, &t->calls};
    for (int i = 0; i < 4; i++)
        buf_init(all[i], ITEMS_MAX);
}

void items_fini(struct items *t)
{
    struct buf *const all[] = {&t->out, &t->think, &t->text, &t->calls};
    for (int i = 0; i < 4; i++)
        buf_fini(all[i]);
}

static void begin(struct items *t, const char *role)
{
    if (t->out.n)
        buf_putc(&t->out, ',');
    buf_printf(&t->out, "{\"role\":\"%s\"", role);
}

static void member(struct buf *b, const char *key, const char *s, size_t n)
{
    buf_printf(b, ",\"%s\":", key);
    json_quote(b, s, n);
}

void items_flush(struct items *t)
{
    if (!t->open)
        return;
    begin(t, "assistant");
    if (t->think.n)
        member(&t->out, "reasoning_content", t->think.p, t->think.n);
    if (t->has_text)
        member(&t->out, "content", t->text.p, t->text.n);
    else if (t->calls.n || t->think.n)
        buf_puts(&t->out, ",\"content\":null");
    else
        buf_puts(&t->out, ",\"content\":\"\"");
    if (t->preamble)
        buf_puts(&t->out, ",\"phase\":\"commentary\"");
    if (t->calls.n) {
        buf_puts(&t->out, ",\"tool_calls\":[");
        buf_put(&t->out, t->calls.p, t->calls.n);
        buf_putc(&t->out, ']');
    }
    buf_putc(&t->out, '}');
    buf_clear(&t->think);
    buf_clear(&t->text);
    buf_clear(&t->calls);
    t->open = t->has_text = t->preamble = false;
}

static status bad(struct err *e, const char *place, const char *field, const char *what)
{
    char param[64];
    snprintf(param, sizeof param, "%.40s.%.20s", place, field);
    return err_param(e, E_INPUT, param, "%s", what);
}

/* A text, or the texts of a list of parts, without anything between. */
static status read_text(const struct json *j, const char *place, const char *field, struct buf *b,
                        struct err *e)
{
    size_t n;
    if (json_kind(j) == J_STR) {
        const char *s = json_str(j, &n);
        buf_put(b, s, n);
        return OK;
    }
    if (json_kind(j) != J_ARR)
        return bad(e, place, field, "must be a text or a list of text parts");
    for (size_t i = 0; i < json_len(j); i++) {
        static const char *const kinds[] = {"input_text", "output_text",  "text",
                                            "refusal",    "summary_text", "reasoning_text"};
        const struct json *part = json_at(j, i), *type = json_get(part, "type");
        const struct json *text = json_get(part, is(type, "refusal") ? "refusal" : "text");
        bool known = false;
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
            known = known || is(type, kinds[k]);
        if (!known || json_kind(text) != J_STR)
            return bad(e, place, field, "a part must be text; this model reads nothing else");
        const char *s = json_str(text, &n);
        buf_put(b, s, n);
    }
    return OK;
}

static status add_message(struct items *t, const struct json *item, const char *place,
                          struct err *e)
{
    static const char *const roles[] = {"user", "system", "developer", "assistant"};
    const struct json *role = json_get(item, "role"), *content = json_get(item, "content");
    int r = 0;
    while (r < 4 && !is(role, roles[r]))
        r++;
    if (r == 4)
        return bad(e, place, "role", "the role must be user, assistant, system or developer");
    if (r == 3) {
        if (t->calls.n || t->has_text)
            items_flush(t);
        t->open = t->has_text = true;
        t->preamble = is(json_get(item, "phase"), "commentary");
        return read_text(content, place, "content", &t->text, e);
    }
    items_flush(t);
    struct buf text;
    buf_init(&text, ITEMS_MAX);
    status st = read_text(content, place, "content", &text, e);
    if (st == OK) {
        begin(t, roles[r]);
        member(&t->out, "content", text.p, text.n);
        buf_putc(&t->out, '}');
    }
    buf_fini(&text);
    return st;
}

static status add_reasoning(struct items *t, const struct json *item, const char *place,
                            struct err *e)
{
    const struct json *content = json_get(item, "content"),
                      *sealed = json_get(item, "encrypted_content");
    if (t->calls.n || t->has_text)
        items_flush(t);
    if (t->think.n)
        buf_puts(&t->think, "\n\n");
    if (json_kind(sealed) == J_STR && json_len(content) == 0) {
        size_t n;
        const char *s = json_str(sealed, &n);
        if (!seal_open(t->s->seal, t->tenant, s, n, &t->think))
            return bad(e, place, "encrypted_content", "was not made by this server for this key");
    } else if (!json_absent(content)) {
        status st = read_text(content, place, "content", &t->think, e);
        if (st < 0)
            return st;
    }
    t->open = t->open || t->think.n > 0;
    return OK;
}

static status add_call(struct items *t, const struct json *item, const char *arguments,
                       const char *place, struct err *e)
{
    const struct json *id = json_get(item, "call_id"), *name = json_get(item, "name"),
                      *args = json_get(item, arguments);
    size_t n;
    if (json_kind(id) != J_STR || json_kind(name) != J_STR || json_kind(args) != J_STR)
        return bad(e, place, "call_id", "a call needs call_id, name and arguments as texts");
    t->open = true;
    if (t->calls.n)
        buf_putc(&t->calls, ',');
    const char *s = json_str(id, &n);
    buf_puts(&t->calls, "{\"id\":");
    json_quote(&t->calls, s, n);
    buf_puts(&t->calls, ",\"type\":\"function\",\"function\":{\"name\":");
    s = json_str(name, &n);
    json_quote(&t->calls, s, n);
    s = json_str(args, &n);
    member(&t->calls, "arguments", s, n);
    buf_puts(&t->calls, "}}");
    return OK;
}

static status add_output(struct items *t, const struct json *item, const char *place, struct err *e)
{
    const struct json *id = json_get(item, "call_id");
    size_t n;
    if (json_kind(id) != J_STR)
        return bad(e, place, "call_id", "an output needs the call_id of its call");
    items_flush(t);
    struct buf text;
    buf_init(&text, ITEMS_MAX);
    status st = read_text(json_get(item, "output"), place, "output", &text, e);
    if (st == OK) {
        begin(t, "tool");
        const char *s = json_str(id, &n);
        member(&t->out, "tool_call_id", s, n);
        member(&t->out, "content", text.p, text.n);
        buf_putc(&t->out, '}');
    }
    buf_fini(&text);
    return st;
}

/* The item with this id in a list, or NULL. */
static const struct json *item_of(const struct json *list, const char *id)
{
    for (size_t i = 0; i < json_len(list); i++)
        if (is(json_get(json_at(list, i), "id"), id))
            return json_at(list, i);
    return NULL;
}

static status add_reference(struct items *t, const struct json *item, const char *place,
                            struct err *e)
{
    const struct json *id = json_get(item, "id");
    char owner[64];
    const char *name = json_kind(id) == J_STR ? json_str(id, NULL) : "";
    if (!*name || strlen(name) > 63 || t->depth >= MAX_DEPTH ||
        !store_find_item(t->s->store, t->tenant, name, owner))
        return bad(e, place, "id", "there is no such stored item; send the item itself");
    struct buf object, input;
    struct json *a = NULL, *b = NULL;
    buf_init(&object, ITEMS_MAX);
    buf_init(&input, ITEMS_MAX);
    status st = OK;
    const struct json *found = NULL;
    if (store_get(t->s->store, t->tenant, owner, &object, &input, NULL)) {
        TRY(json_parse(object.p, object.n, &json_limits_file, &a, e));
        TRY(json_parse(input.p, input.n, &json_limits_file, &b, e));
        found = item_of(json_get(a, "output"), name);
        found = found ? found : item_of(b, name);
    }
    t->depth++;
    st = found ? items_add(t, found, place, e)
               : bad(e, place, "id", "there is no such stored item; send the item itself");
    t->depth--;
out:
    json_free(a);
    json_free(b);
    buf_fini(&object);
    buf_fini(&input);
    return st;
}

status items_add(struct items *t, const struct json *item, const char *place, struct err *e)
{
    const struct json *type = json_get(item, "type");
    if (json_kind(item) != J_OBJ)
        return err_param(e, E_INPUT, place, "an item must be an object");
    if (json_absent(type) || is(type, "message"))
        return add_message(t, item, place, e);
    if (is(type, "reasoning"))
        return add_reasoning(t, item, place, e);
    if (is(type, "function_call"))
        return add_call(t, item, "arguments", place, e);
    if (is(type, "custom_tool_call"))
        return add_call(t, item, "input", place, e);
    if (is(type, "function_call_output") || is(type, "custom_tool_call_output"))
        return add_output(t, item, place, e);
    if (is(type, "item_reference"))
        return add_reference(t, item, place, e);
    if (json_kind(type) != J_STR)
        return bad(e, place, "type", "an item's type must be a text");
    return OK; /* calls of tools that are not ours: nothing the model could use */
}

status items_add_list(struct items *t, const struct json *list, const char *place, struct err *e)
{
    status st = OK;
    for (size_t i = 0; i < json_len(list); i++) {
        char here[64];
        snprintf(here, sizeof here, "%.40s[%zu]", place, i);
        TRY(items_add(t, json_at(list, i), here, e));
    }
out:
    return st;
}

static status add_one_stored(struct items *t, const char *id, struct err *e)
{
    struct buf object, input;
    struct json *a = NULL, *b = NULL;
    buf_init(&object, ITEMS_MAX);
    buf_init(&input, ITEMS_MAX);
    status st = OK;
    if (!store_get(t->s->store, t->tenant, id, &object, &input, NULL))
        TRY(err_param(e, E_INPUT, "previous_response_id",
                      "a response before it is not stored (any more); send the full history"));
    TRY(json_parse(input.p, input.n, &json_limits_file, &b, e));
    TRY(json_parse(object.p, object.n, &json_limits_file, &a, e));
    TRY(items_add_list(t, b, "input", e));
    TRY(items_add_list(t, json_get(a, "output"), "output", e));
out:
    json_free(a);
    json_free(b);
    buf_fini(&object);
    buf_fini(&input);
    return st;
}

status items_add_stored(struct items *t, const char *id, struct err *e)
{
    char(*chain)[64] = mem_array(MAX_CHAIN, sizeof *chain);
    int n = 0;
    status st = OK;
    if (!chain)
        return err_set(e, E_NOMEM, "out of memory");
    snprintf(chain[n++], 64, "%.63s", id);
    while (n < MAX_CHAIN && store_get(t->s->store, t->tenant, chain[n - 1], NULL, NULL, chain[n]) &&
           chain[n][0])
        n++;
    if (n == MAX_CHAIN)
        TRY(err_param(e, E_INPUT, "previous_response_id", "more than %d responses in a row",
                      MAX_CHAIN));
    while (n--)
        TRY(add_one_stored(t, chain[n], e));
out:
    mem_free(chain);
    return st;
}

/* ---- as stored ---- */

static void put_content(struct buf *b, const struct json *item)
{
    const struct json *content = json_get(item, "content");
    if (json_kind(content) != J_STR) {
        json_dump(b, content);
        return;
    }
    buf_printf(b, "[{\"type\":\"%s\",\"text\":",
               is(json_get(item, "role"), "assistant") ? "output_text" : "input_text");
    json_dump(b, content);
    buf_puts(b, is(json_get(item, "role"), "assistant") ? ",\"annotations\":[],\"logprobs\":[]}]"
                                                        : "}]");
}

static void put_item(struct buf *b, const struct json *item)
{
    const struct json *type = json_get(item, "type");
    const char *kind = json_kind(type) == J_STR ? json_str(type, NULL) : "message";
    bool message = strcmp(kind, "message") == 0;
    const char *prefix = message                             ? "msg"
                         : strcmp(kind, "reasoning") == 0    ? "rs"
                         : strncmp(kind, "function", 8) == 0 ? "fc"
                                                             : "item";
    buf_puts(b, "{\"type\":");
    json_quote(b, kind, strlen(kind));
    if (json_absent(json_get(item, "id")))
        buf_printf(b, ",\"id\":\"%s_%016llx%08x\"", prefix, (unsigned long long)rng_os_seed(),
                   (unsigned)(rng_os_seed() & 0xffffffff));
    if (json_absent(json_get(item, "status")) && strcmp(kind, "item_reference") != 0)
        buf_puts(b, ",\"status\":\"completed\"");
    for (void *it = json_first(item); it; it = json_next(item, it)) {
        size_t n;
        const char *key = json_key(it, &n);
        bool null_id =
            (strcmp(key, "id") == 0 || strcmp(key, "status") == 0) && json_absent(json_val(it));
        if (strcmp(key, "type") == 0 || null_id)
            continue;
        buf_putc(b, ',');
        json_quote(b, key, n);
        buf_putc(b, ':');
        if (message && strcmp(key, "content") == 0)
            put_content(b, item);
        else
            json_dump(b, json_val(it));
    }
    buf_putc(b, '}');
}

status items_normal(const struct json *input, struct buf *b, struct err *e)
{
    size_t n;
    buf_putc(b, '[');
    if (json_kind(input) == J_STR) {
        const char *s = json_str(input, &n);
        buf_printf(b,
                   "{\"type\":\"message\",\"id\":\"msg_%016llx%08x\",\"status\":\"completed\","
                   "\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":",
                   (unsigned long long)rng_os_seed(), (unsigned)(rng_os_seed() & 0xffffffff));
        json_quote(b, s, n);
        buf_puts(b, "}]}");
    } else if (json_kind(input) == J_ARR) {
        for (size_t i = 0; i < json_len(input); i++) {
            if (json_kind(json_at(input, i)) != J_OBJ) {
                char place[32];
                snprintf(place, sizeof place, "input[%zu]", i);
                return err_param(e, E_INPUT, place, "an item must be an object");
            }
            if (i)
                buf_putc(b, ',');
            put_item(b, json_at(input, i));
        }
    } else {
        return err_param(e, E_INPUT, "input", "\"input\" must be a text or a list of items");
    }
    buf_putc(b, ']');
    return buf_status(b) < 0 ? err_set(e, E_NOMEM, "out of memory for the request") : OK;
}
