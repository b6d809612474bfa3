/* What an answer is held to while it is sampled: from the options and from an OpenAI request's
 * tools, tool_choice and response_format to the fields of gloss_params.
 *
 * The strings of each part are gathered in a buffer, as offsets while it grows. Names are those of
 * functions; the library wants recipients, "functions." and the name.
 */
#include "base/mem.h"
#include "cli/cli.h"

#include <string.h>

static const char prefix[] = "functions.";

static bool is(const struct json *j, const char *word)
{
    return json_kind(j) == J_STR && strcmp(json_str(j, NULL), word) == 0;
}

/* Appends a NUL-terminated recipient; returns its offset. */
static size_t put_recipient(struct buf *b, const char *name, size_t n)
{
    size_t at = b->n;
    buf_put(b, prefix, sizeof prefix - 1);
    buf_put(b, name, n);
    buf_putc(b, '\0');
    return at;
}

/* `function` of the chat form, or the flat form's tool itself. */
static const struct json *function_of(const struct json *tool)
{
    const struct json *fn = json_get(tool, "function");
    return json_absent(fn) ? tool : fn;
}

static status read_tools(struct hold *h, struct err *e)
{
    const struct json *list = json_get(h->root, "tools");
    size_t n = json_kind(list) == J_ARR ? json_len(list) : 0;
    struct place {
        size_t name, schema, n_schema;
    } *place = mem_calloc(n + 1, sizeof *place);
    h->tools = mem_calloc(n + 1, sizeof *h->tools);
    status st = OK;
    if (!place || !h->tools)
        TRY(err_set(e, E_NOMEM, "out of memory for the tools"));
    for (size_t i = 0; i < n; i++) {
        const struct json *fn = function_of(json_at(list, i)), *name = json_get(fn, "name"),
                          *schema = json_get(fn, "parameters");
        size_t n_name;
        if (json_kind(name) != J_STR)
            TRY(err_set(e, E_INPUT, "tools[%zu]: a tool must have a name", i));
        const char *s = json_str(name, &n_name);
        place[i].name = put_recipient(&h->tool_text, s, n_name);
        place[i].schema = h->tool_text.n;
        if (!json_absent(schema))
            json_dump(&h->tool_text, schema);
        place[i].n_schema = h->tool_text.n - place[i].schema;
        h->tools[i].strict = json_kind(json_get(fn, "strict")) == J_TRUE;
    }
    TRY(buf_status(&h->tool_text));
    for (size_t i = 0; i < n; i++) {
        h->tools[i].recipient = h->tool_text.p + place[i].name;
        h->tools[i].schema = place[i].n_schema ? h->tool_text.p + place[i].schema : NULL;
        h->tools[i].n_schema = place[i].n_schema;
    }
    h->n_tools = (int)n;
out:
    mem_free(place);
    return st;
}

/* One function by name, or a list of {"type":"function","function":{"name":...}}. */
static status allow(struct hold *h, const char *name, size_t n_name, const struct json *list,
                    struct err *e)
{
    size_t n = name ? 1 : json_len(list);
    size_t *place = mem_calloc(n + 1, sizeof *place);
    h->allowed = mem_calloc(n + 1, sizeof *h->allowed);
    status st = OK;
    if (!place || !h->allowed)
        TRY(err_set(e, E_NOMEM, "out of memory for the tools"));
    for (size_t i = 0; i < n; i++) {
        const struct json *j = name ? NULL : json_get(function_of(json_at(list, i)), "name");
        if (!name && json_kind(j) != J_STR)
            TRY(err_set(e, E_INPUT, "tool_choice: allowed tool %zu has no name", i));
        const char *s = name ? name : json_str(j, &n_name);
        place[i] = put_recipient(&h->choice_text, s, n_name);
    }
    TRY(buf_status(&h->choice_text));
    for (size_t i = 0; i < n; i++)
        h->allowed[i] = h->choice_text.p + place[i];
    h->n_allowed = (int)n;
out:
    mem_free(place);
    return st;
}

static bool mode(struct hold *h, const char *s)
{
    static const char *const words[] = {[GLOSS_TOOL_CHOICE_AUTO] = "auto",
                                        [GLOSS_TOOL_CHOICE_NONE] = "none",
                                        [GLOSS_TOOL_CHOICE_REQUIRED] = "required"};
    for (int i = 0; i < 3; i++)
        if (strcmp(s, words[i]) == 0) {
            h->choice = i;
            return true;
        }
    return false;
}

static status read_choice(struct hold *h, const char *option, struct err *e)
{
    const struct json *j = json_get(h->root, "tool_choice");
    if (option) {
        if (mode(h, option))
            return OK;
        h->choice = GLOSS_TOOL_CHOICE_REQUIRED;
        return allow(h, option, strlen(option), NULL, e);
    }
    if (json_absent(j) || (json_kind(j) == J_STR && mode(h, json_str(j, NULL))))
        return OK;
    const struct json *name = json_get(function_of(j), "name"),
                      *group = json_get(j, "allowed_tools");
    if (is(json_get(j, "type"), "function") && json_kind(name) == J_STR) {
        size_t n;
        const char *s = json_str(name, &n);
        h->choice = GLOSS_TOOL_CHOICE_REQUIRED;
        return allow(h, s, n, NULL, e);
    }
    if (is(json_get(j, "type"), "allowed_tools")) {
        const struct json *o = json_absent(group) ? j : group, *m = json_get(o, "mode");
        if ((json_absent(m) || (json_kind(m) == J_STR && mode(h, json_str(m, NULL)))) &&
            json_kind(json_get(o, "tools")) == J_ARR)
            return allow(h, NULL, 0, json_get(o, "tools"), e);
    }
    return err_set(e, E_INPUT,
                   "tool_choice: \"auto\", \"none\", \"required\", a function or allowed_tools is "
                   "wanted");
}

/* The schema itself, which may stand in OpenAI's {name, schema}. */
static const struct json *unwrapped(const struct json *j)
{
    const struct json *inner = json_get(j, "schema");
    bool wrapped = json_kind(inner) == J_OBJ && json_absent(json_get(j, "type")) &&
                   json_absent(json_get(j, "properties"));
    return wrapped ? inner : j;
}

static status read_format(struct hold *h, const struct conf *c, const struct buf *schema,
                          struct err *e)
{
    const struct conf_val *choice = conf_get(c, "choice");
    const struct json *f = json_get(h->root, "response_format"), *type = json_get(f, "type");
    const char *regex = conf_str(c, "regex");
    struct json *own = NULL;
    status st = OK;
    if (schema->n) {
        TRY(json_parse(schema->p, schema->n, &json_limits_file, &own, e));
        h->format = GLOSS_FORMAT_JSON_SCHEMA;
        json_dump(&h->format_text, unwrapped(own));
    } else if (regex) {
        h->format = GLOSS_FORMAT_REGEX;
        buf_puts(&h->format_text, regex);
    } else if (choice->n_list) {
        h->format = GLOSS_FORMAT_CHOICE;
        for (int i = 0; i < choice->n_list; i++) {
            buf_putc(&h->format_text, i ? ',' : '[');
            TRY(input_utf8(choice->list[i], strlen(choice->list[i]), "--choice", e));
            json_quote(&h->format_text, choice->list[i], strlen(choice->list[i]));
        }
        buf_putc(&h->format_text, ']');
    } else if (conf_on(c, "json-object") || is(type, "json_object")) {
        h->format = GLOSS_FORMAT_JSON_OBJECT;
    } else if (is(type, "json_schema")) {
        h->format = GLOSS_FORMAT_JSON_SCHEMA;
        json_dump(&h->format_text, unwrapped(json_get(f, "json_schema")));
    } else if (!json_absent(f) && !is(type, "text")) {
        TRY(err_set(e, E_INPUT,
                    "response_format: type text, json_object or json_schema is wanted"));
    }
out:
    json_free(own);
    return st;
}

status hold_read(struct hold *h, const struct conf *c, const struct buf *request,
                 const struct buf *schema, struct err *e)
{
    status st = OK;
    *h = (struct hold){0};
    buf_init(&h->tool_text, CLI_TEXT_MAX);
    buf_init(&h->choice_text, CLI_TEXT_MAX);
    buf_init(&h->format_text, CLI_TEXT_MAX);
    TRY(json_parse(request->p, request->n, &json_limits_file, &h->root, e));
    TRY(read_tools(h, e));
    TRY(read_choice(h, conf_str(c, "tool-choice"), e));
    TRY(read_format(h, c, schema, e));
    TRY(buf_status(&h->format_text));
out:
    return st;
}

void hold_apply(const struct hold *h, struct gloss_params *p)
{
    p->tools = h->tools;
    p->n_tools = h->n_tools;
    p->tool_choice = h->choice;
    p->allowed_tools = h->allowed;
    p->n_allowed_tools = h->n_allowed;
    p->format = h->format;
    p->format_text = h->format_text.p;
    p->n_format_text = h->format_text.n;
}

void hold_fini(struct hold *h)
{
    json_free(h->root);
    buf_fini(&h->tool_text);
    buf_fini(&h->choice_text);
    buf_fini(&h->format_text);
    mem_free(h->tools);
    mem_free(h->allowed);
    *h = (struct hold){0};
}
