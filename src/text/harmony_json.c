/* Conversations from JSON and messages to JSON.
 *
 * Two forms come in. The library's own is taken as it is, with the refusals of its reader. An
 * OpenAI chat request is translated (docs/harmony.md says how, and why so): a system message with
 * the defaults, one developer message with instructions, functions and the answer's schema, then
 * the conversation, where one OpenAI message may become several harmony messages.
 *
 * Strings and schemas point into the JSON tree; everything made here lives in the caller's arena.
 * Every refusal names its place as "messages[2].content[0].text". Called by gloss.c.
 */
#include "text/harmony_json.h"
#include "text/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct arena *a;
    struct err *e;
    struct harmony_conversation *c;
    int n_cap;              /* room of c->msg */
    const struct json *all; /* the messages array */
    struct call *call;      /* [n_call] every call of an OpenAI request, by id */
    size_t n_call;
};

/* A place in the source, for error records. */
struct place {
    char s[64];
};

static struct place at(const char *fmt, ...) PRINTF_LIKE(1, 2);
static struct place at(const char *fmt, ...)
{
    struct place p;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p.s, sizeof p.s, fmt, ap);
    va_end(ap);
    return p;
}

/* The beginning of a text, for a message: whole characters, at most 40 bytes. */
static struct place clip(struct str s)
{
    struct place p = {{0}};
    size_t n = s.n < 40 ? s.n : 40;
    memcpy(p.s, s.p, utf8_valid(s.p, n));
    return p;
}

static void *take(struct reader *r, size_t n, size_t size, status *st)
{
    void *p = arena_array(r->a, n, size);
    if (!p)
        *st = err_set(r->e, E_NOMEM, "out of memory reading the conversation");
    return p;
}

static struct str str_of(const struct json *j)
{
    struct str s;
    s.p = json_str(j, &s.n);
    return s;
}

/* An optional string member: absent and null are the same. */
static status opt_str(struct reader *r, const struct json *obj, const char *key, struct place where,
                      struct str *s)
{
    const struct json *j = json_get(obj, key);
    *s = (struct str){0};
    if (json_absent(j))
        return OK;
    if (json_kind(j) != J_STR)
        return err_param(r->e, E_INPUT, at("%s.%s", where.s, key).s, "\"%s\" must be a string",
                         key);
    *s = str_of(j);
    return OK;
}

static status need_str(struct reader *r, const struct json *obj, const char *key,
                       struct place where, struct str *s)
{
    status st = opt_str(r, obj, key, where, s);
    if (st == OK && !s->p)
        st = err_param(r->e, E_INPUT, at("%s.%s", where.s, key).s, "\"%s\" is missing", key);
    return st;
}

static status need_kind(struct reader *r, const struct json *j, enum json_kind kind,
                        struct place where)
{
    if (json_kind(j) == kind)
        return OK;
    return err_param(r->e, E_INPUT, where.s, "must be %s",
                     kind == J_OBJ ? "an object" : "an array");
}

static status role_of(struct reader *r, const struct json *msg, struct place where,
                      enum harmony_role *role)
{
    struct str s;
    status st = need_str(r, msg, "role", where, &s);
    if (st < 0)
        return st;
    for (int i = 0; i < N_ROLE; i++)
        if (str_eq(s, harmony_role_name[i])) {
            *role = (enum harmony_role)i;
            return OK;
        }
    return err_param(r->e, E_INPUT, at("%s.role", where.s).s,
                     "unknown role \"%s\"; known are system, developer, user, assistant, tool",
                     clip(s).s);
}

/* The next message of the conversation, zeroed, with room for n_part parts. */
static struct harmony_message *add(struct reader *r, enum harmony_role role, int n_part, status *st)
{
    struct harmony_conversation *c = r->c;
    if (c->n_msg == r->n_cap) {
        int cap = r->n_cap ? 2 * r->n_cap : 16;
        struct harmony_message *m = take(r, (size_t)cap, sizeof *m, st);
        if (!m)
            return NULL;
        if (c->n_msg)
            memcpy(m, c->msg, (size_t)c->n_msg * sizeof *m);
        c->msg = m;
        r->n_cap = cap;
    }
    struct harmony_part *part = take(r, (size_t)n_part, sizeof *part, st);
    if (!part)
        return NULL;
    struct harmony_message *m = &c->msg[c->n_msg++];
    *m = (struct harmony_message){.role = role, .part = part, .n_part = n_part};
    return m;
}

static struct harmony_message *add_text(struct reader *r, enum harmony_role role, struct str text,
                                        const char *channel, status *st)
{
    struct harmony_message *m = add(r, role, 1, st);
    if (!m)
        return NULL;
    m->part[0] = (struct harmony_part){.kind = CONTENT_TEXT, .text = text};
    if (channel)
        m->channel = (struct str){channel, strlen(channel)};
    return m;
}

/* ---- tools ---- */

/* One tool: its name, its description (`need_desc`: the library demands one) and its parameters. */
static status read_tool(struct reader *r, const struct json *j, struct place where, bool need_desc,
                        struct harmony_tool *t)
{
    status st = need_kind(r, j, J_OBJ, where);
    if (st == OK)
        st = need_str(r, j, "name", where, &t->name);
    if (st == OK && need_desc)
        st = need_str(r, j, "description", where, &t->description);
    else if (st == OK)
        st = opt_str(r, j, "description", where, &t->description);
    const struct json *p = json_get(j, "parameters");
    t->parameters = json_absent(p) ? NULL : p;
    return st;
}

/* ---- the library's form ---- */

static status read_namespaces(struct reader *r, const struct json *map, struct place where,
                              struct harmony_namespace **out, int *n_out)
{
    status st = OK;
    if (json_absent(map))
        return OK;
    TRY(need_kind(r, map, J_OBJ, where));
    struct harmony_namespace *ns = take(r, json_len(map), sizeof *ns, &st);
    if (!ns)
        return st;
    *out = ns;
    for (void *it = json_first(map); it; it = json_next(map, it), ns++) {
        ns->key.p = json_key(it, &ns->key.n);
        const struct json *v = json_val(it);
        struct place here = at("%s[%zu]", where.s, (size_t)*n_out);
        TRY(need_kind(r, v, J_OBJ, here));
        TRY(need_str(r, v, "name", here, &ns->name));
        TRY(opt_str(r, v, "description", here, &ns->description));
        const struct json *tools = json_get(v, "tools");
        TRY(need_kind(r, tools, J_ARR, at("%s.tools", here.s)));
        struct harmony_tool *t = take(r, json_len(tools), sizeof *t, &st);
        if (!t)
            return st;
        ns->tool = t;
        ns->n_tool = (int)json_len(tools);
        for (int i = 0; i < ns->n_tool; i++)
            TRY(read_tool(r, json_at(tools, (size_t)i), at("%s.tools[%d]", here.s, i), true,
                          t + i));
        ++*n_out;
    }
out:
    return st;
}

static status read_channels(struct reader *r, const struct json *j, struct place where,
                            struct harmony_system *s)
{
    status st = OK;
    if (json_absent(j))
        return OK;
    TRY(need_kind(r, j, J_OBJ, where));
    const struct json *list = json_get(j, "valid_channels"),
                      *required = json_get(j, "channel_required");
    TRY(need_kind(r, list, J_ARR, at("%s.valid_channels", where.s)));
    if (json_kind(required) != J_TRUE && json_kind(required) != J_FALSE)
        return err_param(r->e, E_INPUT, at("%s.channel_required", where.s).s,
                         "\"channel_required\" must be true or false");
    s->channel_required = json_kind(required) == J_TRUE;
    s->channel = take(r, json_len(list), sizeof *s->channel, &st);
    for (size_t i = 0; s->channel && i < json_len(list); i++) {
        if (json_kind(json_at(list, i)) != J_STR)
            return err_param(r->e, E_INPUT, at("%s.valid_channels[%zu]", where.s, i).s,
                             "a channel must be a string");
        s->channel[s->n_channel++] = str_of(json_at(list, i));
    }
out:
    return st;
}

static status read_system(struct reader *r, const struct json *j, struct place where,
                          struct harmony_system *s)
{
    static const char *const efforts[] = {"Low", "Medium", "High"};
    struct str effort;
    status st = OK;
    TRY(opt_str(r, j, "model_identity", where, &s->identity));
    TRY(opt_str(r, j, "knowledge_cutoff", where, &s->knowledge_cutoff));
    TRY(opt_str(r, j, "conversation_start_date", where, &s->current_date));
    TRY(opt_str(r, j, "reasoning_effort", where, &effort));
    for (int i = 0; i < 3 && effort.p; i++)
        if (str_eq(effort, efforts[i])) {
            s->has_effort = true;
            s->effort = (enum harmony_effort)i;
        }
    if (effort.p && !s->has_effort)
        return err_param(r->e, E_INPUT, at("%s.reasoning_effort", where.s).s,
                         "\"reasoning_effort\" must be Low, Medium or High");
    TRY(read_namespaces(r, json_get(j, "tools"), at("%s.tools", where.s), &s->ns, &s->n_ns));
    TRY(read_channels(r, json_get(j, "channel_config"), at("%s.channel_config", where.s), s));
out:
    return st;
}

static status read_library_part(struct reader *r, const struct json *j, struct place where,
                                struct harmony_part *p)
{
    struct str type;
    status st = OK;
    TRY(need_kind(r, j, J_OBJ, where));
    TRY(need_str(r, j, "type", where, &type));
    if (str_eq(type, "text")) {
        p->kind = CONTENT_TEXT;
        TRY(need_str(r, j, "text", where, &p->text));
    } else if (str_eq(type, "system_content")) {
        p->kind = CONTENT_SYSTEM;
        p->system = take(r, 1, sizeof *p->system, &st);
        if (p->system)
            st = read_system(r, j, where, p->system);
    } else if (str_eq(type, "developer_content")) {
        p->kind = CONTENT_DEVELOPER;
        p->developer = take(r, 1, sizeof *p->developer, &st);
        if (!p->developer)
            return st;
        TRY(opt_str(r, j, "instructions", where, &p->developer->instructions));
        TRY(read_namespaces(r, json_get(j, "tools"), at("%s.tools", where.s), &p->developer->ns,
                            &p->developer->n_ns));
    } else {
        st = err_param(r->e, E_INPUT, at("%s.type", where.s).s,
                       "unknown content \"%s\"; known are text, system_content, "
                       "developer_content",
                       clip(type).s);
    }
out:
    return st;
}

static status read_library_message(struct reader *r, const struct json *j, struct place where)
{
    struct harmony_message head = {0}, *m;
    status st = OK;
    TRY(need_kind(r, j, J_OBJ, where));
    TRY(role_of(r, j, where, &head.role));
    TRY(opt_str(r, j, "name", where, &head.name));
    TRY(opt_str(r, j, "recipient", where, &head.recipient));
    TRY(opt_str(r, j, "channel", where, &head.channel));
    TRY(opt_str(r, j, "content_type", where, &head.content_type));
    const struct json *content = json_get(j, "content");
    if (json_kind(content) == J_STR) {
        m = add_text(r, head.role, str_of(content), NULL, &st);
    } else if (json_kind(content) == J_ARR) {
        m = add(r, head.role, (int)json_len(content), &st);
        for (int i = 0; m && i < m->n_part; i++)
            TRY(read_library_part(r, json_at(content, (size_t)i), at("%s.content[%d]", where.s, i),
                                  &m->part[i]));
    } else {
        return err_param(r->e, E_INPUT, at("%s.content", where.s).s,
                         "\"content\" must be a string or a list of parts");
    }
    if (m) {
        m->name = head.name;
        m->recipient = head.recipient;
        m->channel = head.channel;
        m->content_type = head.content_type;
    }
out:
    return st;
}

/* ---- OpenAI requests ---- */

/* A content part that is text; refuses images, audio and files. */
static status part_text(struct reader *r, const struct json *j, struct place where, struct str *s)
{
    struct str type;
    status st = OK;
    TRY(need_kind(r, j, J_OBJ, where));
    TRY(need_str(r, j, "type", where, &type));
    if (str_eq(type, "text"))
        return need_str(r, j, "text", where, s);
    if (str_eq(type, "refusal"))
        return need_str(r, j, "refusal", where, s);
    return err_param(r->e, E_INPUT, at("%s.type", where.s).s,
                     "content of type \"%s\" is not supported; this model reads text only",
                     clip(type).s);
out:
    return st;
}

/* A message whose body is `content`: a string, or a list of text parts. */
static status add_content(struct reader *r, enum harmony_role role, const struct json *content,
                          const char *channel, struct place where)
{
    status st = OK;
    if (json_kind(content) == J_STR) {
        add_text(r, role, str_of(content), channel, &st);
        return st;
    }
    if (json_kind(content) != J_ARR)
        return err_param(r->e, E_INPUT, at("%s.content", where.s).s,
                         "\"content\" must be a string or a list of text parts");
    struct harmony_message *m = add(r, role, (int)json_len(content), &st);
    for (int i = 0; m && i < m->n_part; i++)
        TRY(part_text(r, json_at(content, (size_t)i), at("%s.content[%d]", where.s, i),
                      &m->part[i].text));
    if (m && channel)
        m->channel = (struct str){channel, strlen(channel)};
out:
    return st;
}

/* A history call looks as the harmony library's own examples print it:
 *     assistant to=functions.NAME<|channel|>commentary <|constrain|>json
 * Plain " json" is what some servers send; the marker is the form the format's guide documents and
 * the one the model itself writes. Arguments are text and pass through untouched: re-encoding them
 * is a known fault of the published chat template. */
static status add_call(struct reader *r, const struct json *fn, struct place where)
{
    struct str name, args;
    status st = OK;
    TRY(need_kind(r, fn, J_OBJ, where));
    TRY(need_str(r, fn, "name", where, &name));
    TRY(need_str(r, fn, "arguments", where, &args));
    if (!name.n)
        return err_param(r->e, E_INPUT, at("%s.name", where.s).s, "a tool must have a name");
    char *recipient = take(r, name.n + sizeof "functions.", 1, &st);
    struct harmony_message *m =
        recipient ? add_text(r, ROLE_ASSISTANT, args, "commentary", &st) : NULL;
    if (!m)
        return st;
    memcpy(recipient, "functions.", sizeof "functions." - 1);
    memcpy(recipient + sizeof "functions." - 1, name.p, name.n);
    m->recipient = (struct str){recipient, name.n + sizeof "functions." - 1};
    m->content_type = STR("<|constrain|>json");
out:
    return st;
}

/* Reasoning first, then the words, then the calls, as the model writes them. Words beside a call,
 * or of the phase "commentary", are a preamble: commentary without recipient; else they are the
 * answer. */
static status read_assistant(struct reader *r, const struct json *j, struct place where)
{
    struct str think, refusal, phase;
    status st = OK;
    const struct json *content = json_get(j, "content"), *calls = json_get(j, "tool_calls"),
                      *old_call = json_get(j, "function_call");
    TRY(opt_str(r, j, "reasoning_content", where, &think));
    if (!think.p)
        TRY(opt_str(r, j, "reasoning", where, &think));
    TRY(opt_str(r, j, "refusal", where, &refusal));
    TRY(opt_str(r, j, "phase", where, &phase));
    if (!json_absent(calls))
        TRY(need_kind(r, calls, J_ARR, at("%s.tool_calls", where.s)));
    bool has_call = json_len(calls) > 0 || !json_absent(old_call);
    const char *channel = has_call || str_eq(phase, "commentary") ? "commentary" : "final";
    if (think.n)
        add_text(r, ROLE_ASSISTANT, think, "analysis", &st);
    if (st < 0)
        return st;
    bool empty = json_absent(content) || (json_kind(content) == J_STR && !str_of(content).n);
    if (!empty || (!json_absent(content) && !has_call && !refusal.n))
        TRY(add_content(r, ROLE_ASSISTANT, content, channel, where));
    else if (refusal.n)
        add_text(r, ROLE_ASSISTANT, refusal, channel, &st);
    else if (!has_call && !think.n)
        return err_param(r->e, E_INPUT, at("%s.content", where.s).s,
                         "an assistant message must have content or tool_calls");
    for (size_t i = 0; st == OK && i < json_len(calls); i++) {
        struct place here = at("%s.tool_calls[%zu]", where.s, i);
        const struct json *call = json_at(calls, i);
        struct str type;
        TRY(need_kind(r, call, J_OBJ, here));
        TRY(opt_str(r, call, "type", here, &type));
        if (type.p && !str_eq(type, "function"))
            return err_param(r->e, E_INPUT, at("%s.type", here.s).s,
                             "tool calls of type \"%s\" are not supported; only \"function\"",
                             clip(type).s);
        TRY(add_call(r, json_get(call, "function"), at("%s.function", here.s)));
    }
    if (st == OK && !json_absent(old_call))
        st = add_call(r, old_call, at("%s.function_call", where.s));
out:
    return st;
}

/* A call of the conversation, for the tool messages that answer it. */
struct call {
    struct str id, name;
    size_t i_msg;
};

static int call_order(const void *a, const void *b)
{
    const struct call *x = a, *y = b;
    size_t n = x->id.n < y->id.n ? x->id.n : y->id.n;
    int c = memcmp(x->id.p, y->id.p, n);
    if (c == 0)
        c = (x->id.n > y->id.n) - (x->id.n < y->id.n);
    return c ? c : (x->i_msg > y->i_msg) - (x->i_msg < y->i_msg);
}

/* All calls with an id and a name, sorted: a hostile list of answers costs n log n. */
static status index_calls(struct reader *r)
{
    status st = OK;
    for (int fill = 0; fill < 2; fill++) {
        size_t n = 0;
        for (size_t i = 0; i < json_len(r->all); i++) {
            const struct json *calls = json_get(json_at(r->all, i), "tool_calls");
            for (size_t k = 0; json_kind(calls) == J_ARR && k < json_len(calls); k++) {
                const struct json *call = json_at(calls, k), *id = json_get(call, "id"),
                                  *name = json_get(json_get(call, "function"), "name");
                if (json_kind(id) != J_STR || json_kind(name) != J_STR)
                    continue;
                if (fill)
                    r->call[n] = (struct call){str_of(id), str_of(name), i};
                n++;
            }
        }
        if (!fill && !(r->call = take(r, n, sizeof *r->call, &st)))
            return st;
        r->n_call = n;
    }
    qsort(r->call, r->n_call, sizeof *r->call, call_order);
    return OK;
}

/* The function named by the last call with this id before message `before`. */
static struct str called_name(const struct reader *r, size_t before, struct str id)
{
    const struct call key = {.id = id, .i_msg = before};
    size_t lo = 0, hi = r->n_call;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (call_order(&r->call[mid], &key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    const struct call *c = lo ? &r->call[lo - 1] : NULL;
    bool same = c && c->id.n == id.n && memcmp(c->id.p, id.p, id.n) == 0;
    return same ? c->name : (struct str){0};
}

/* A tool's answer: "functions.NAME to=assistant" on the commentary channel. The name comes from the
 * call that is answered, else from the message's own `name`. */
static status read_tool_message(struct reader *r, const struct json *j, size_t i,
                                struct place where)
{
    struct str id, name, own;
    status st = OK;
    TRY(opt_str(r, j, "tool_call_id", where, &id));
    TRY(opt_str(r, j, "name", where, &own));
    name = id.p ? called_name(r, i, id) : (struct str){0};
    if (!name.p)
        name = own;
    if (!name.n) {
        const char *key = id.p ? "tool_call_id" : "name";
        return err_param(r->e, E_INPUT, at("%s.%s", where.s, key).s,
                         id.p ? "no earlier tool call has this id, and the message has no name"
                              : "a tool message needs a tool_call_id or a name");
    }
    const size_t n_prefix = sizeof "functions." - 1;
    if (name.n < n_prefix || memcmp(name.p, "functions.", n_prefix) != 0) {
        char *full = take(r, name.n + n_prefix + 1, 1, &st);
        if (!full)
            return st;
        memcpy(full, "functions.", n_prefix);
        memcpy(full + n_prefix, name.p, name.n);
        name = (struct str){full, name.n + n_prefix};
    }
    TRY(add_content(r, ROLE_TOOL, json_get(j, "content"), "commentary", where));
    struct harmony_message *m = &r->c->msg[r->c->n_msg - 1];
    m->name = name;
    m->recipient = STR("assistant");
out:
    return st;
}

static status effort_of(struct reader *r, const struct json *root, enum harmony_effort *effort)
{
    /* OpenAI's scale has more steps than the model was trained on. */
    static const struct {
        const char *word;
        enum harmony_effort effort;
    } scale[] = {{"none", EFFORT_LOW},      {"minimal", EFFORT_LOW}, {"low", EFFORT_LOW},
                 {"medium", EFFORT_MEDIUM}, {"high", EFFORT_HIGH},   {"xhigh", EFFORT_HIGH},
                 {"max", EFFORT_HIGH}};
    const char *param = "reasoning_effort";
    const struct json *j = json_get(root, param);
    if (json_absent(j)) {
        j = json_get(json_get(root, "reasoning"), "effort");
        param = "reasoning.effort";
    }
    if (json_absent(j))
        return OK;
    for (size_t i = 0; i < sizeof scale / sizeof scale[0] && json_kind(j) == J_STR; i++)
        if (str_eq(str_of(j), scale[i].word)) {
            *effort = scale[i].effort;
            return OK;
        }
    return err_param(r->e, E_INPUT, param,
                     "the reasoning effort must be low, medium or high (also none, minimal, xhigh, "
                     "max)");
}

static status add_system(struct reader *r, const struct json *root,
                         const struct harmony_openai_opts *o)
{
    status st = OK;
    struct harmony_message *m = add(r, ROLE_SYSTEM, 1, &st);
    struct harmony_system *s = m ? take(r, 1, sizeof *s, &st) : NULL;
    if (!s)
        return st;
    m->part[0] = (struct harmony_part){.kind = CONTENT_SYSTEM, .system = s};
    harmony_system_default(s);
    if (o->identity.p)
        s->identity = o->identity;
    s->current_date = o->current_date;
    st = effort_of(r, root, &s->effort);
    if (o->has_effort)
        s->effort = o->effort;
    return st;
}

/* `tools` in the chat form {type, function: {...}} or the flat one {type, name, ...}, and the old
 * `functions` list, as the namespace "functions". */
static status read_functions(struct reader *r, const struct json *root, struct harmony_developer *d)
{
    status st = OK;
    bool old = json_absent(json_get(root, "tools"));
    const char *key = old ? "functions" : "tools";
    const struct json *list = json_get(root, key);
    if (json_absent(list))
        return OK;
    TRY(need_kind(r, list, J_ARR, at("%s", key)));
    if (json_len(list) == 0)
        return OK;
    d->ns = take(r, 1, sizeof *d->ns, &st);
    struct harmony_tool *t = d->ns ? take(r, json_len(list), sizeof *t, &st) : NULL;
    if (!t)
        return st;
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *j = json_at(list, i), *fn = json_get(j, "function");
        struct place where = at("%s[%zu]", key, i);
        struct str type;
        TRY(need_kind(r, j, J_OBJ, where));
        TRY(opt_str(r, j, "type", where, &type));
        if (!old && type.p && !str_eq(type, "function"))
            return err_param(r->e, E_INPUT, at("%s.type", where.s).s,
                             "tools of type \"%s\" are not supported; only \"function\"",
                             clip(type).s);
        if (!old && !json_absent(fn)) {
            where = at("%s[%zu].function", key, i);
            j = fn;
        }
        TRY(read_tool(r, j, where, false, t + i));
        if (!t[i].name.n)
            return err_param(r->e, E_INPUT, at("%s.name", where.s).s, "a tool must have a name");
        if (t[i].parameters)
            TRY(need_kind(r, t[i].parameters, J_OBJ, at("%s.parameters", where.s)));
    }
    *d->ns = (struct harmony_namespace){
        .name = STR("functions"), .tool = t, .n_tool = (int)json_len(list)};
    d->n_ns = 1;
out:
    return st;
}

/* Appends the text of a system or developer message to the instructions. */
static status read_instructions(struct reader *r, const struct json *j, struct place where,
                                struct buf *all)
{
    const struct json *content = json_get(j, "content");
    status st = OK;
    if (json_kind(content) != J_STR && json_kind(content) != J_ARR)
        return err_param(r->e, E_INPUT, at("%s.content", where.s).s,
                         "\"content\" must be a string or a list of text parts");
    const size_t before = all->n;
    if (before)
        buf_puts(all, "\n\n");
    const size_t from = all->n;
    if (json_kind(content) == J_STR)
        buf_put(all, str_of(content).p, str_of(content).n);
    for (size_t i = 0; i < json_len(content); i++) {
        struct str s;
        TRY(part_text(r, json_at(content, i), at("%s.content[%zu]", where.s, i), &s));
        buf_put(all, s.p, s.n);
    }
    if (all->n == from)
        all->n = before; /* nothing said */
    st = buf_status(all);
    if (st < 0)
        err_set(r->e, st, "%s", err_name(st));
out:
    return st;
}

static status keep(struct reader *r, const struct buf *b, struct str *s)
{
    status st = buf_status(b);
    if (st < 0)
        return err_set(r->e, st, "%s", err_name(st));
    char *p = arena_strndup(r->a, b->p, b->n);
    if (!p)
        return err_set(r->e, E_NOMEM, "out of memory reading the conversation");
    *s = (struct str){p, b->n};
    return OK;
}

/* The section that tells the model the shape of its answer:
 *     # Response Formats
 *
 *     ## name
 *
 *     // description
 *     {"type":"object",...}
 * `format` is a JSON Schema, or OpenAI's {name, description, schema} around one. */
static status response_section(struct reader *r, const struct json *format, const char *param,
                               struct str *out)
{
    const struct json *schema = json_get(format, "schema");
    status st = OK;
    bool wrapped = json_kind(schema) == J_OBJ && json_absent(json_get(format, "type")) &&
                   json_absent(json_get(format, "properties"));
    struct str name, description = {0};
    struct buf b;
    buf_init(&b, json_limits_file.max_bytes);
    TRY(need_kind(r, format, J_OBJ, at("%s", param)));
    TRY(opt_str(r, format, wrapped ? "name" : "title", at("%s", param), &name));
    if (wrapped)
        TRY(opt_str(r, format, "description", at("%s", param), &description));
    buf_puts(&b, "# Response Formats\n\n## ");
    if (name.n)
        buf_put(&b, name.p, name.n);
    else
        buf_puts(&b, "response");
    buf_puts(&b, "\n\n");
    if (description.n) {
        buf_puts(&b, "// ");
        buf_put(&b, description.p, description.n);
        buf_putc(&b, '\n');
    }
    harmony_json_compact(&b, wrapped ? schema : format);
    TRY(keep(r, &b, out));
out:
    buf_fini(&b);
    return st;
}

static status read_response_format(struct reader *r, const struct json *root,
                                   const struct harmony_openai_opts *o, struct str *out)
{
    if (o->response_schema.p) {
        struct json *j;
        status st =
            json_parse(o->response_schema.p, o->response_schema.n, &json_limits_file, &j, r->e);
        if (st == OK)
            st = response_section(r, j, "schema", out);
        json_free(j);
        return st;
    }
    const struct json *f = json_get(root, "response_format"), *type = json_get(f, "type");
    if (json_kind(type) != J_STR || !str_eq(str_of(type), "json_schema"))
        return OK;
    return response_section(r, json_get(f, "json_schema"), "response_format.json_schema", out);
}

/* The developer message: added only when there is something to say. */
static status add_developer(struct reader *r, const struct json *root,
                            const struct harmony_openai_opts *o)
{
    status st = OK;
    struct harmony_developer d = {0};
    struct buf text;
    buf_init(&text, json_limits_file.max_bytes);
    for (size_t i = 0; i < json_len(r->all); i++) {
        const struct json *j = json_at(r->all, i), *role = json_get(j, "role");
        if (json_kind(role) == J_STR &&
            (str_eq(str_of(role), "system") || str_eq(str_of(role), "developer")))
            TRY(read_instructions(r, j, at("messages[%zu]", i), &text));
    }
    if (text.n)
        TRY(keep(r, &text, &d.instructions));
    TRY(read_functions(r, root, &d));
    TRY(read_response_format(r, root, o, &d.response_format));
    if (d.instructions.p || d.n_ns || d.response_format.p) {
        struct harmony_message *m = add(r, ROLE_DEVELOPER, 1, &st);
        struct harmony_developer *in_arena = m ? take(r, 1, sizeof d, &st) : NULL;
        if (in_arena) {
            *in_arena = d;
            m->part[0] = (struct harmony_part){.kind = CONTENT_DEVELOPER, .developer = in_arena};
        }
    }
out:
    buf_fini(&text);
    return st;
}

static status read_openai_message(struct reader *r, const struct json *j, size_t i,
                                  struct place where)
{
    enum harmony_role role = ROLE_USER;
    struct str name;
    status st = OK;
    TRY(need_kind(r, j, J_OBJ, where));
    TRY(need_str(r, j, "role", where, &name));
    if (str_eq(name, "function")) /* the old name of the tool role */
        return read_tool_message(r, j, i, where);
    TRY(role_of(r, j, where, &role));
    switch (role) {
    case ROLE_ASSISTANT:
        return read_assistant(r, j, where);
    case ROLE_TOOL:
        return read_tool_message(r, j, i, where);
    case ROLE_USER:
        return add_content(r, role, json_get(j, "content"), NULL, where);
    default: /* system and developer: in the instructions already */
        return OK;
    }
out:
    return st;
}

/* ---- telling the forms apart ---- */

static bool has_any(const struct json *obj, const char *const *key)
{
    for (; *key; key++)
        if (json_get(obj, *key))
            return true;
    return false;
}

static bool has_library_part(const struct json *content)
{
    for (size_t i = 0; json_kind(content) == J_ARR && i < json_len(content); i++) {
        const struct json *type = json_get(json_at(content, i), "type");
        if (json_kind(type) == J_STR &&
            (str_eq(str_of(type), "system_content") || str_eq(str_of(type), "developer_content")))
            return true;
    }
    return false;
}

/* Anything that only one form has decides. An object with messages alone, all of them lists of
 * parts, is what the library writes; with plain strings it is what people write for OpenAI. */
static enum harmony_json_form form_of(const struct json *root, const struct json *all)
{
    static const char *const library[] = {"channel", "recipient", "content_type", NULL};
    static const char *const openai[] = {"tool_calls", "tool_call_id",      "function_call",
                                         "reasoning",  "reasoning_content", "refusal",
                                         NULL};
    bool parts_only = json_kind(root) == J_OBJ && json_len(root) == 1;
    for (size_t i = 0; i < json_len(all); i++) {
        const struct json *m = json_at(all, i);
        if (has_any(m, library) || has_library_part(json_get(m, "content")))
            return FORM_LIBRARY;
        if (has_any(m, openai))
            return FORM_OPENAI;
        parts_only = parts_only && json_kind(json_get(m, "content")) == J_ARR;
    }
    return parts_only ? FORM_LIBRARY : FORM_OPENAI;
}

status harmony_from_json(const struct json *root, enum harmony_json_form form,
                         const struct harmony_openai_opts *o, struct arena *a,
                         struct harmony_conversation *c, struct err *e)
{
    static const struct harmony_openai_opts defaults;
    struct reader r = {.a = a, .e = e, .c = c};
    status st = OK;
    *c = (struct harmony_conversation){0};
    if (!o)
        o = &defaults;
    r.all = json_kind(root) == J_ARR ? root : json_get(root, "messages");
    if (json_kind(r.all) != J_ARR)
        return err_param(e, E_INPUT, "messages",
                         "a conversation needs \"messages\", a list of messages");
    if (form == FORM_AUTO)
        form = form_of(root, r.all);
    if (form == FORM_OPENAI) {
        if (json_len(r.all) == 0)
            return err_param(e, E_INPUT, "messages", "\"messages\" must not be empty");
        TRY(index_calls(&r));
        TRY(add_system(&r, root, o));
        TRY(add_developer(&r, root, o));
    }
    for (size_t i = 0; i < json_len(r.all); i++) {
        const struct json *j = json_at(r.all, i);
        struct place where = at("messages[%zu]", i);
        if (form == FORM_OPENAI)
            TRY(read_openai_message(&r, j, i, where));
        else
            TRY(read_library_message(&r, j, where));
    }
out:
    return st;
}

/* ---- to JSON ---- */

static void put_field(struct buf *b, const char *key, struct str s)
{
    if (!s.p)
        return;
    buf_printf(b, ",\"%s\":", key);
    json_quote(b, s.p, s.n);
}

/* Fields in the order of the library's to_json: a missing name is null, other missing fields are
 * left out. Parsed messages hold text parts only; other parts are the input's own and never come
 * back. */
void harmony_message_json(struct buf *b, const struct harmony_message *m)
{
    buf_printf(b, "{\"role\":\"%s\",\"name\":", harmony_role_name[m->role]);
    if (m->name.p)
        json_quote(b, m->name.p, m->name.n);
    else
        buf_puts(b, "null");
    buf_puts(b, ",\"content\":[");
    const char *comma = "";
    for (int i = 0; i < m->n_part; i++) {
        if (m->part[i].kind != CONTENT_TEXT)
            continue;
        buf_printf(b, "%s{\"type\":\"text\",\"text\":", comma);
        json_quote(b, m->part[i].text.p, m->part[i].text.n);
        buf_putc(b, '}');
        comma = ",";
    }
    buf_putc(b, ']');
    put_field(b, "channel", m->channel);
    put_field(b, "recipient", m->recipient);
    put_field(b, "content_type", m->content_type);
    buf_putc(b, '}');
}

void harmony_to_json(struct buf *b, const struct harmony_message *msg, int n)
{
    buf_puts(b, "{\"messages\":[");
    for (int i = 0; i < n; i++) {
        if (i)
            buf_putc(b, ',');
        harmony_message_json(b, &msg[i]);
    }
    buf_puts(b, "]}");
}
