/* Prompts of conversations, and what their answers are held to. See ask.h.
 *
 * The conversation stays JSON text: it is checked, a chain of thought that the client dropped is
 * put back beside its tool call, and gloss_chat renders it. Names of tools are recipients to the
 * library: "functions." and the name.
 */
#include "serve/ask.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool is(const struct json *j, const char *word)
{
    return json_kind(j) == J_STR && strcmp(json_str(j, NULL), word) == 0;
}

static status no_memory(struct err *e)
{
    return err_set(e, E_NOMEM, "out of memory for the request");
}

/* ---- tools and formats ---- */

/* `function` of the chat form, or the flat form's tool itself. */
static const struct json *function_of(const struct json *tool)
{
    const struct json *fn = json_get(tool, "function");
    return json_absent(fn) ? tool : fn;
}

static char *recipient(struct gen *g, const struct json *name)
{
    static const char prefix[] = "functions.";
    size_t n;
    const char *s = json_str(name, &n);
    char *p = arena_alloc(&g->mem, n + sizeof prefix);
    if (p) {
        memcpy(p, prefix, sizeof prefix - 1);
        memcpy(p + sizeof prefix - 1, s, n);
    }
    return p;
}

/* The node as text in the generation's memory. */
static const char *text_of(struct gen *g, const struct json *j, size_t *n)
{
    struct buf b;
    buf_init(&b, 2 * BODY_MAX);
    json_dump(&b, j);
    *n = b.n;
    char *p = buf_status(&b) == OK ? arena_strndup(&g->mem, b.p, b.n) : NULL;
    buf_fini(&b);
    return p;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static status check_distinct(struct gen *g, const struct gloss_tool *t, size_t n, struct err *e)
{
    const char **name = arena_array(&g->mem, n + 1, sizeof *name);
    if (!name)
        return no_memory(e);
    for (size_t i = 0; i < n; i++)
        name[i] = t[i].recipient;
    qsort(name, n, sizeof *name, by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(name[i - 1], name[i]) == 0)
            return err_param(e, E_INPUT, "tools", "two tools have the name '%.64s'",
                             name[i] + sizeof "functions." - 1);
    return OK;
}

static status hold_tools(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *list = json_get(root, "tools");
    const char *key = "tools";
    if (json_absent(list)) {
        key = "functions";
        list = json_get(root, key);
    }
    if (json_absent(list))
        return OK;
    if (json_kind(list) != J_ARR)
        return err_param(e, E_INPUT, key, "\"%s\" must be a list", key);
    size_t n = json_len(list);
    struct gloss_tool *t = arena_array(&g->mem, n + 1, sizeof *t);
    if (!t)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        const struct json *fn = function_of(json_at(list, i)), *name = json_get(fn, "name"),
                          *schema = json_get(fn, "parameters");
        size_t n_name = 0;
        char place[64];
        snprintf(place, sizeof place, "%s[%zu].function.name", key, i);
        if (json_kind(name) != J_STR || strlen(json_str(name, &n_name)) != n_name || !n_name ||
            n_name > 256)
            return err_param(e, E_INPUT, place, "a tool must have a name of 1 to 256 bytes");
        t[i].recipient = recipient(g, name);
        t[i].strict = json_kind(json_get(fn, "strict")) == J_TRUE;
        if (json_kind(schema) == J_OBJ && json_len(schema))
            t[i].schema = text_of(g, schema, &t[i].n_schema);
        if (!t[i].recipient || (t[i].n_schema && !t[i].schema))
            return no_memory(e);
    }
    g->p.tools = t;
    g->p.n_tools = (int)n;
    return check_distinct(g, t, n, e);
}

static bool mode(struct gen *g, const struct json *j)
{
    static const char *const words[] = {[GLOSS_TOOL_CHOICE_AUTO] = "auto",
                                        [GLOSS_TOOL_CHOICE_NONE] = "none",
                                        [GLOSS_TOOL_CHOICE_REQUIRED] = "required"};
    for (int i = 0; i < 3; i++)
        if (is(j, words[i])) {
            g->p.tool_choice = i;
            return true;
        }
    return false;
}

static status allow(struct gen *g, const struct json *one, const struct json *list, struct err *e)
{
    size_t n = one ? 1 : json_len(list);
    const char **name = arena_array(&g->mem, n + 1, sizeof *name);
    if (!name)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        const struct json *j = one ? one : json_get(function_of(json_at(list, i)), "name");
        size_t len = 0;
        if (json_kind(j) != J_STR || strlen(json_str(j, &len)) != len)
            return err_param(e, E_INPUT, "tool_choice", "an allowed tool must be named");
        name[i] = recipient(g, j);
        if (!name[i])
            return no_memory(e);
        bool known = false;
        for (int k = 0; k < g->p.n_tools && !known; k++)
            known = strcmp(g->p.tools[k].recipient, name[i]) == 0;
        if (!known)
            return err_param(e, E_INPUT, "tool_choice", "there is no tool '%.64s'",
                             name[i] + sizeof "functions." - 1);
    }
    g->p.allowed_tools = name;
    g->p.n_allowed_tools = (int)n;
    return OK;
}

static status hold_choice(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *j = json_get(root, "tool_choice");
    if (json_absent(j))
        j = json_get(root, "function_call"); /* the deprecated pair */
    const struct json *name = json_get(function_of(j), "name"),
                      *group = json_get(j, "allowed_tools"), *type = json_get(j, "type");
    status st = OK;
    if (json_absent(j))
        return OK;
    if (json_kind(j) == J_STR && mode(g, j)) {
        if (g->p.tool_choice == GLOSS_TOOL_CHOICE_REQUIRED && !g->p.n_tools)
            return err_param(e, E_INPUT, "tool_choice", "a tool is required, but there is none");
        return OK;
    }
    if (json_kind(j) == J_OBJ && json_kind(name) == J_STR &&
        (json_absent(type) || is(type, "function"))) {
        g->p.tool_choice = GLOSS_TOOL_CHOICE_REQUIRED;
        return allow(g, name, NULL, e);
    }
    if (is(type, "allowed_tools")) {
        const struct json *o = json_absent(group) ? j : group, *m = json_get(o, "mode");
        const struct json *list = json_get(o, "tools");
        if ((json_absent(m) || (json_kind(m) == J_STR && mode(g, m))) && json_kind(list) == J_ARR &&
            json_len(list))
            return allow(g, NULL, list, e);
    }
    st = err_param(e, E_INPUT, "tool_choice",
                   "\"tool_choice\" must be none, auto, required, a function or allowed_tools");
    return st;
}

/* The tier-3 spellings of vLLM: `json`, `regex`, `choice` with their prefix. */
static status hold_guided(struct gen *g, const struct json *o, const char *prefix, struct err *e)
{
    static const struct {
        const char *word;
        int format;
    } kinds[] = {{"json", GLOSS_FORMAT_JSON_SCHEMA},
                 {"regex", GLOSS_FORMAT_REGEX},
                 {"choice", GLOSS_FORMAT_CHOICE}};
    char key[32];
    for (size_t i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%s%s", prefix, kinds[i].word);
        const struct json *j = json_get(o, key);
        if (json_absent(j))
            continue;
        g->p.format = kinds[i].format;
        if (json_kind(j) == J_STR)
            g->p.format_text = json_str(j, &g->p.n_format_text);
        else
            g->p.format_text = text_of(g, j, &g->p.n_format_text);
        return g->p.format_text ? OK : no_memory(e);
    }
    snprintf(key, sizeof key, "%sgrammar", prefix);
    if (!json_absent(json_get(o, key)))
        return err_param(e, E_STATE, key, "\"%s\" is not supported; a schema or regex is", key);
    return OK;
}

static status hold_format(struct gen *g, const struct json *root, struct err *e)
{
    const struct json *f = json_get(root, "response_format"), *type = json_get(f, "type");
    status st = OK;
    TRY(hold_guided(g, json_get(root, "structured_outputs"), "", e));
    TRY(hold_guided(g, root, "guided_", e));
    if (!json_absent(json_get(root, "grammar")))
        return err_param(e, E_STATE, "grammar",
                         "\"grammar\" is not supported; a schema or regex is");
    if (json_absent(f) || is(type, "text"))
        return OK;
    if (is(type, "json_object")) {
        g->p.format = GLOSS_FORMAT_JSON_OBJECT;
        return OK;
    }
    const struct json *outer = json_get(f, "json_schema"), *schema = json_get(outer, "schema");
    if (!is(type, "json_schema"))
        return err_param(e, E_INPUT, "response_format",
                         "\"response_format\" must be text, json_object or json_schema");
    if (json_kind(schema) != J_OBJ)
        return err_param(e, E_INPUT, "response_format.json_schema.schema",
                         "a JSON Schema must be an object");
    g->p.format = GLOSS_FORMAT_JSON_SCHEMA;
    g->p.format_text = text_of(g, schema, &g->p.n_format_text);
    if (!g->p.format_text)
        st = no_memory(e);
out:
    return st;
}

status ask_hold(struct gen *g, const struct json *chat, struct err *e)
{
    status st = OK;
    TRY(hold_tools(g, chat, e));
    TRY(hold_choice(g, chat, e));
    TRY(hold_format(g, chat, e));
out:
    return st;
}

/* ---- effort ---- */

/* *none: the analysis is to be empty. */
static status read_effort(struct gen *g, const struct json *chat, int *effort, bool *none,
                          struct err *e)
{
    static const struct {
        const char *word;
        int effort;
    } scale[] = {{"none", GLOSS_EFFORT_LOW},  {"minimal", GLOSS_EFFORT_LOW},
                 {"low", GLOSS_EFFORT_LOW},   {"medium", GLOSS_EFFORT_MEDIUM},
                 {"high", GLOSS_EFFORT_HIGH}, {"xhigh", GLOSS_EFFORT_HIGH},
                 {"max", GLOSS_EFFORT_HIGH}};
    const struct json *j = json_get(chat, "reasoning_effort");
    const char *param = "reasoning_effort";
    if (json_absent(j)) {
        j = json_get(json_get(chat, "reasoning"), "effort");
        param = "reasoning.effort";
    }
    if (json_absent(j))
        j = json_get(json_get(chat, "chat_template_kwargs"), "reasoning_effort");
    const char *word = json_kind(j) == J_STR ? json_str(j, NULL) : NULL;
    if (json_absent(j))
        word = g->s->o.effort ? g->s->o.effort : "medium";
    for (size_t i = 0; word && i < sizeof scale / sizeof scale[0]; i++)
        if (strcmp(word, scale[i].word) == 0) {
            *effort = scale[i].effort;
            *none = i == 0;
            return OK;
        }
    return err_param(e, E_INPUT, param,
                     "the reasoning effort must be none, minimal, low, medium, high, xhigh or max");
}

/* ---- messages ---- */

/* The ids of the calls so far, to know which a tool message may answer. */
struct ids_seen {
    struct hash_key key;
    uint64_t *slot; /* [cap], 0: free */
    size_t cap;
};

static bool seen(struct ids_seen *s, const struct json *id, bool add)
{
    size_t n;
    const char *p = json_str(id, &n);
    uint64_t h = hash_sip(s->key, p, n) | 1;
    for (size_t i = h & (s->cap - 1);; i = (i + 1) & (s->cap - 1)) {
        if (s->slot[i] == h)
            return true;
        if (!s->slot[i]) {
            if (add)
                s->slot[i] = h;
            return false;
        }
    }
}

static status seen_open(struct gen *g, const struct json *messages, struct ids_seen *s,
                        struct err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < json_len(messages); i++)
        n += json_len(json_get(json_at(messages, i), "tool_calls"));
    for (s->cap = 16; s->cap < 2 * n; s->cap *= 2)
        ;
    s->key = g->s->salt;
    s->slot = arena_array(&g->mem, s->cap, sizeof *s->slot);
    return s->slot ? OK : no_memory(e);
}

/* The thought that was kept for this message's calls, if the message brings none. */
static void put_thought(struct gen *g, const struct json *m, struct buf *b)
{
    const struct json *calls = json_get(m, "tool_calls");
    if (!json_absent(json_get(m, "reasoning_content")) || !json_absent(json_get(m, "reasoning")))
        return;
    struct buf t;
    buf_init(&t, BODY_MAX);
    for (size_t i = 0; i < json_len(calls) && !t.n; i++) {
        const struct json *id = json_get(json_at(calls, i), "id");
        if (json_kind(id) == J_STR &&
            thoughts_get(g->s->thoughts, g->x->tenant, json_str(id, NULL), &t) && t.n) {
            buf_puts(b, ",\"reasoning_content\":");
            json_quote(b, t.p, t.n);
        }
    }
    buf_fini(&t);
}

/* The first n messages, and what else is rendered. */
static status put_messages(struct gen *g, const struct json *chat, size_t n, struct buf *b,
                           struct err *e)
{
    const struct json *list = json_get(chat, "messages");
    struct ids_seen ids = {0};
    status st = seen_open(g, list, &ids, e);
    if (st < 0)
        return st;
    buf_puts(b, "{\"messages\":[");
    for (size_t i = 0; i < n; i++) {
        const struct json *m = json_at(list, i), *answers = json_get(m, "tool_call_id");
        const struct json *calls = json_get(m, "tool_calls");
        if (json_kind(m) == J_OBJ && is(json_get(m, "role"), "tool") &&
            json_kind(answers) == J_STR && !seen(&ids, answers, false)) {
            char place[64];
            snprintf(place, sizeof place, "messages[%zu].tool_call_id", i);
            return err_param(e, E_INPUT, place, "no earlier tool call has this id");
        }
        for (size_t k = 0; json_kind(calls) == J_ARR && k < json_len(calls); k++) {
            const struct json *id = json_get(json_at(calls, k), "id");
            if (json_kind(id) == J_STR)
                (void)seen(&ids, id, true);
        }
        if (i)
            buf_putc(b, ',');
        json_dump(b, m);
        if (json_kind(m) == J_OBJ && json_len(m) && json_len(calls)) {
            b->n--; /* open the object again */
            put_thought(g, m, b);
            buf_putc(b, '}');
        }
    }
    buf_putc(b, ']');
    static const char *const also[] = {"tools", "functions", "response_format"};
    for (size_t i = 0; i < 3; i++) {
        const struct json *v = json_get(chat, also[i]);
        if (json_absent(v))
            continue;
        buf_printf(b, ",\"%s\":", also[i]);
        json_dump(b, v);
    }
    buf_putc(b, '}');
    return buf_status(b) < 0 ? no_memory(e) : OK;
}

static const char *today(const struct server *s, char day[16])
{
    if (strcmp(s->o.date, "none") == 0)
        return NULL;
    if (strcmp(s->o.date, "today") != 0)
        return s->o.date;
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(day, 16, "%Y-%m-%d", &tm);
    return day;
}

/* Tokens behind the rendered prompt: `text` with control tokens, then `body` as plain text. */
static status append(struct gen *g, struct buf *ids, const char *text, const char *body, size_t n,
                     struct err *e)
{
    int32_t *a = NULL, *b = NULL;
    size_t n_a = 0, n_b = 0;
    status st = OK;
    TRY(gloss_encode(g->s->model, text, strlen(text), GLOSS_SPECIAL_ALLOW, &a, &n_a, pub(e)));
    buf_put(ids, a, n_a * sizeof *a);
    if (body) {
        TRY(gloss_encode(g->s->model, body, n, GLOSS_SPECIAL_TEXT, &b, &n_b, pub(e)));
        buf_put(ids, b, n_b * sizeof *b);
        g->n_fed = (int)(n_a + n_b);
    }
    if (buf_status(ids) < 0)
        st = no_memory(e);
out:
    gloss_free(a);
    gloss_free(b);
    return st;
}

status ask_prompt(struct gen *g, const struct json *chat, struct err *e)
{
    const struct json *list = json_get(chat, "messages"), *last = NULL;
    bool none = false, go_on = false;
    char day[16];
    gloss_chat *c = NULL;
    const int32_t *ids;
    size_t n, n_msg = json_len(list);
    struct buf b, all;
    status st = OK;
    buf_init(&b, 4u * BODY_MAX);
    buf_init(&all, 1u << 30);
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    if (json_kind(list) != J_ARR || !n_msg)
        TRY(err_param(e, E_INPUT, "messages", "\"messages\" must be a list that is not empty"));
    TRY(json_get_bool(chat, "continue_final_message", &go_on, e));
    if (go_on) {
        last = json_get(json_at(list, n_msg - 1), "content");
        if (!is(json_get(json_at(list, n_msg - 1), "role"), "assistant") ||
            json_kind(last) != J_STR || n_msg < 2)
            TRY(err_param(e, E_INPUT, "continue_final_message",
                          "the last message must be the assistant's, with text, to be continued"));
        n_msg--;
    }
    TRY(read_effort(g, chat, &o.effort, &none, e));
    o.drop = GLOSS_DROP_CLOSED_TURNS;
    o.date = today(g->s, day);
    TRY(put_messages(g, chat, n_msg, &b, e));
    TRY(gloss_chat_new(g->s->model, &o, &c, pub(e)));
    TRY(gloss_chat_load(c, b.p, b.n, GLOSS_FORM_OPENAI, pub(e)));
    TRY(gloss_chat_render(c, &ids, &n, pub(e)));
    buf_put(&all, ids, n * sizeof *ids);
    if (go_on) {
        TRY(append(g, &all, "<|channel|>final<|message|>", json_str(last, NULL),
                   strlen(json_str(last, NULL)), e));
    } else if (none) {
        TRY(append(g, &all, "<|channel|>analysis<|message|><|end|><|start|>assistant", NULL, 0, e));
        g->p.no_analysis = 1;
    }
    if (gen_add(g, (const int32_t *)(const void *)all.p, all.n / sizeof *ids) < 0)
        st = no_memory(e);
out:
    gloss_chat_free(c);
    buf_fini(&all);
    buf_fini(&b);
    return st;
}
