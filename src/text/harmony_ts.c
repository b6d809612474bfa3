/* Tool declarations: the "# Tools" section, JSON Schema as TypeScript, the two built-in tools.
 *
 * Byte-exact with the harmony library 0.0.8, its oddities included: the model was trained on this
 * text. The rules in words are in docs/harmony.md. Called by harmony_render.c; knows no token.
 *
 * Worked example, schema on the left:
 *
 *     {"type": "object",                       {
 *      "properties": {                         // Town, not country
 *        "city": {"type": "string",            city: string,
 *          "description": "Town, not country"},unit?: "c" | "f", // default: c
 *        "unit": {"type": "string",            }
 *          "enum": ["c", "f"], "default": "c"}},
 *      "required": ["city"]}
 */
#include "base/json.h"
#include "base/mem.h"
#include "text/harmony.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool str_eq(struct str s, const char *z)
{
    return s.p && s.n == strlen(z) && memcmp(s.p, z, s.n) == 0;
}

static void put_str(struct buf *out, struct str s)
{
    buf_put(out, s.p, s.n);
}

static void put_blanks(struct buf *out, int n)
{
    char *to = buf_room(out, (size_t)n);
    if (!to)
        return;
    memset(to, ' ', (size_t)n);
    out->n += (size_t)n;
    out->p[out->n] = '\0';
}

/* Member `key` when it is a string, else absent. */
static struct str get_str(const struct json *obj, const char *key)
{
    struct str s = {0};
    const struct json *j = json_get(obj, key);
    if (json_kind(j) == J_STR)
        s.p = json_str(j, &s.n);
    return s;
}

static const struct json *get_arr(const struct json *obj, const char *key)
{
    const struct json *j = json_get(obj, key);
    return json_kind(j) == J_ARR ? j : NULL;
}

/* ---- numbers as serde_json has them ---- */

/* The exponent at s, [+-]digits, kept within +-100000: beyond any that matters. */
static long exponent(const char *s)
{
    bool neg = *s == '-';
    long x = 0;
    for (s += *s == '-' || *s == '+'; *s >= '0' && *s <= '9'; s++)
        x = x < 100000 ? 10 * x + (*s - '0') : x;
    x = x < 100000 ? x : 100000;
    return neg ? -x : x;
}

/* serde_json's default reader is fast, not exact: it collects the digits in 64 bits, dropping those
 * that do not fit, and scales by one power of ten at a time of at most 308. Its result can be a
 * unit off in the last place, and the library prints that. */
static double serde_read(const char *s)
{
    bool neg = *s == '-', full = false;
    uint64_t sig = 0;
    long exp = 0;
    s += neg;
    for (; *s >= '0' && *s <= '9'; s++) {
        unsigned d = (unsigned)(*s - '0');
        full = full || sig > UINT64_MAX / 10 || (sig == UINT64_MAX / 10 && d > UINT64_MAX % 10);
        if (full)
            exp++;
        else
            sig = sig * 10 + d;
    }
    full = false;
    if (*s == '.') {
        for (s++; *s >= '0' && *s <= '9'; s++) {
            unsigned d = (unsigned)(*s - '0');
            full = full || sig > UINT64_MAX / 10 || (sig == UINT64_MAX / 10 && d > UINT64_MAX % 10);
            if (full)
                continue;
            sig = sig * 10 + d;
            exp--;
        }
    }
    if (*s == 'e' || *s == 'E')
        exp += exponent(s + 1);
    double f = (double)sig;
    while (f != 0 && exp != 0) {
        long step = labs(exp) < 308 ? labs(exp) : 308;
        char power[8];
        snprintf(power, sizeof power, "1e%ld", step);
        f = exp > 0 ? f * strtod(power, NULL) : f / strtod(power, NULL);
        exp += exp > 0 ? -step : step;
        if (isinf(f))
            break;
    }
    return neg ? -f : f;
}

/* The shortest digits that read back as v, laid out as Rust's ryu does: plain between 1e-5 and
 * 1e16, always with a point or an exponent. */
static void serde_write(struct buf *out, double v)
{
    if (v == 0) {
        buf_puts(out, signbit(v) ? "-0.0" : "0.0");
        return;
    }
    char s[40];
    for (int digits = 0; digits <= 16; digits++) {
        snprintf(s, sizeof s, "%.*e", digits, v);
        if (strtod(s, NULL) == v)
            break;
    }
    char digit[24];
    int n = 0;
    const char *c = s;
    if (*c == '-') {
        buf_putc(out, '-');
        c++;
    }
    for (; *c != 'e'; c++)
        if (*c != '.')
            digit[n++] = *c;
    while (n > 1 && digit[n - 1] == '0')
        n--;
    int point = (int)exponent(c + 1) + 1; /* value = 0.DIGITS * 10^point */
    if (n <= point && point <= 16) {
        buf_put(out, digit, (size_t)n);
        for (int i = n; i < point; i++)
            buf_putc(out, '0');
        buf_puts(out, ".0");
    } else if (0 < point && point <= 16) {
        buf_put(out, digit, (size_t)point);
        buf_putc(out, '.');
        buf_put(out, digit + point, (size_t)(n - point));
    } else if (-5 < point && point <= 0) {
        buf_puts(out, "0.");
        for (int i = point; i < 0; i++)
            buf_putc(out, '0');
        buf_put(out, digit, (size_t)n);
    } else {
        buf_putc(out, digit[0]);
        if (n > 1) {
            buf_putc(out, '.');
            buf_put(out, digit + 1, (size_t)(n - 1));
        }
        buf_printf(out, "e%d", point - 1);
    }
}

/* Integers that fit 64 bits, with or without sign, stay integers. */
static void put_real(struct buf *out, const char *text)
{
    if (!strpbrk(text, ".eE") && strcmp(text, "-0") != 0) {
        errno = 0;
        char *end;
        if (*text == '-')
            strtoll(text, &end, 10);
        else
            strtoull(text, &end, 10);
        if (!errno) {
            buf_puts(out, text);
            return;
        }
    }
    double v = serde_read(text);
    serde_write(out, isinf(v) ? strtod(text, NULL) : v);
}

void harmony_json_compact(struct buf *out, const struct json *j)
{
    size_t n;
    const char *s;
    switch (json_kind(j)) {
    case J_REAL:
        put_real(out, json_real_text(j));
        break;
    case J_ARR:
        buf_putc(out, '[');
        for (size_t i = 0; i < json_len(j); i++) {
            if (i)
                buf_putc(out, ',');
            harmony_json_compact(out, json_at(j, i));
        }
        buf_putc(out, ']');
        break;
    case J_OBJ:
        buf_putc(out, '{');
        for (void *first = json_first(j), *it = first; it; it = json_next(j, it)) {
            if (it != first)
                buf_putc(out, ',');
            s = json_key(it, &n);
            json_quote(out, s, n);
            buf_putc(out, ':');
            harmony_json_compact(out, json_val(it));
        }
        buf_putc(out, '}');
        break;
    default:
        json_dump(out, j);
        break;
    }
}

/* ---- schemas ---- */

/* The type, plus " | null" for a nullable schema whose type does not already contain "null". The
 * library looks for the letters, so an enum member "nullable" counts. */
static void put_type(struct buf *out, const struct json *schema, int indent)
{
    size_t from = out->n;
    harmony_ts(out, schema, indent);
    if (json_kind(json_get(schema, "nullable")) == J_TRUE && buf_status(out) == OK &&
        !memmem(out->p + from, out->n - from, "null", 4))
        buf_puts(out, " | null");
}

/* How a string default of a schema with an enum is printed: bare, or (as the default of a variant
 * in a oneOf that is no property's) as JSON. */
enum enum_default { ENUM_BARE, ENUM_QUOTED };

static void put_default(struct buf *out, const struct json *schema, enum enum_default how)
{
    const struct json *v = json_get(schema, "default");
    bool has_enum = json_len(get_arr(schema, "enum")) > 0;
    buf_puts(out, "default: ");
    if (json_kind(v) != J_STR || (has_enum && how == ENUM_QUOTED)) {
        harmony_json_compact(out, v);
        return;
    }
    if (!has_enum)
        buf_putc(out, '"');
    put_str(out, get_str(schema, "default"));
    if (!has_enum)
        buf_putc(out, '"');
}

/* One alternative of a oneOf: " | type // description default: v". `shown` is a description that
 * need not be repeated, `describe` whether to print one at all. */
static void put_variant(struct buf *out, const struct json *variant, int indent, bool describe,
                        struct str shown, enum enum_default how)
{
    put_blanks(out, indent);
    buf_puts(out, " | ");
    put_type(out, variant, indent + 3);
    struct str d = get_str(variant, "description");
    if (!describe || (d.p && shown.p && d.n == shown.n && memcmp(d.p, shown.p, d.n) == 0))
        d.p = NULL;
    bool has_default = json_get(variant, "default") != NULL;
    if (d.p || has_default)
        buf_puts(out, " // ");
    if (d.p)
        put_str(out, d);
    if (d.p && has_default)
        buf_putc(out, ' ');
    if (has_default)
        put_default(out, variant, how);
}

static void put_comment(struct buf *out, int indent, struct str text)
{
    put_blanks(out, indent);
    buf_puts(out, "// ");
    put_str(out, text);
    buf_putc(out, '\n');
}

static int str_cmp(struct str x, struct str y)
{
    size_t n = x.n < y.n ? x.n : y.n;
    int c = n ? memcmp(x.p, y.p, n) : 0;
    return c ? c : (x.n > y.n) - (x.n < y.n);
}

static int str_order(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* The strings of `required`, sorted, so that a hostile schema costs n log n; NULL (and *n = 0) when
 * there are none. Memory running out sticks in `out`. */
static struct str *required_new(struct buf *out, const struct json *required, size_t *n)
{
    *n = 0;
    struct str *v = json_len(required) ? mem_array(json_len(required), sizeof *v) : NULL;
    if (!v) {
        if (json_len(required) && buf_status(out) == OK)
            out->st = E_NOMEM;
        return NULL;
    }
    for (size_t i = 0; i < json_len(required); i++) {
        if (json_kind(json_at(required, i)) != J_STR)
            continue;
        v[*n].p = json_str(json_at(required, i), &v[*n].n);
        ++*n;
    }
    qsort(v, *n, sizeof *v, str_order);
    return v;
}

/* A property whose type is a oneOf: its alternatives stand on lines of their own. */
static void put_oneof_property(struct buf *out, const struct json *val, int indent, struct str key,
                               bool required)
{
    const struct json *one_of = json_get(val, "oneOf");
    struct str desc = get_str(val, "description");
    struct str first = get_str(json_at(one_of, 0), "description");
    bool above = desc.p && !(first.p && first.n == desc.n && !memcmp(first.p, desc.p, desc.n));
    if (above)
        put_comment(out, indent, desc);
    if (json_get(val, "default")) {
        put_blanks(out, indent);
        buf_puts(out, "// ");
        put_default(out, val, ENUM_BARE);
        buf_putc(out, '\n');
    }
    put_blanks(out, indent);
    put_str(out, key);
    buf_puts(out, required ? ":\n" : "?:\n");
    for (size_t i = 0; i < json_len(one_of); i++) {
        put_variant(out, json_at(one_of, i), indent, !(i == 0 && above), desc, ENUM_BARE);
        buf_putc(out, '\n');
    }
    put_blanks(out, indent);
    buf_puts(out, ",\n");
}

static void put_property(struct buf *out, const struct json *val, int indent, struct str key,
                         bool required)
{
    struct str title = get_str(val, "title"), desc = get_str(val, "description");
    if (title.p) {
        put_comment(out, indent, title);
        put_blanks(out, indent);
        buf_puts(out, "//\n");
    }
    /* Any member named oneOf, even one that is no array, takes the description's place here. */
    bool has_oneof = json_get(val, "oneOf") != NULL;
    if (desc.p && !has_oneof)
        put_comment(out, indent, desc);
    const struct json *examples = get_arr(val, "examples");
    if (json_len(examples) > 0) {
        put_blanks(out, indent);
        buf_puts(out, "// Examples:\n");
    }
    for (size_t i = 0; i < json_len(examples); i++) {
        struct str s = {0};
        if (json_kind(json_at(examples, i)) != J_STR)
            continue;
        s.p = json_str(json_at(examples, i), &s.n);
        put_blanks(out, indent);
        buf_puts(out, "// - \"");
        put_str(out, s);
        buf_puts(out, "\"\n");
    }
    if (get_arr(val, "oneOf")) {
        put_oneof_property(out, val, indent, key, required);
        return;
    }
    put_blanks(out, indent);
    put_str(out, key);
    buf_puts(out, required ? ": " : "?: ");
    put_type(out, val, indent + 4);
    buf_putc(out, ',');
    if (json_get(val, "default") && !has_oneof) {
        buf_puts(out, " // ");
        put_default(out, val, ENUM_BARE);
    }
    buf_putc(out, '\n');
}

static void put_object(struct buf *out, const struct json *schema, int indent)
{
    struct str desc = get_str(schema, "description");
    if (desc.p)
        put_comment(out, indent, desc);
    buf_puts(out, "{\n");
    const struct json *props = json_get(schema, "properties");
    if (json_kind(props) == J_OBJ) {
        size_t n_req;
        struct str *req = required_new(out, get_arr(schema, "required"), &n_req);
        for (void *it = json_first(props); it; it = json_next(props, it)) {
            struct str key;
            key.p = json_key(it, &key.n);
            bool required = n_req && bsearch(&key, req, n_req, sizeof key, str_order);
            put_property(out, json_val(it), indent, key, required);
        }
        mem_free(req);
    }
    put_blanks(out, indent);
    buf_putc(out, '}');
}

/* A joined list of the strings among `arr`; false when there are none. */
static bool put_strings(struct buf *out, const struct json *arr, bool quoted)
{
    bool any = false;
    for (size_t i = 0; i < json_len(arr); i++) {
        struct str s = {0};
        if (json_kind(json_at(arr, i)) != J_STR)
            continue;
        s.p = json_str(json_at(arr, i), &s.n);
        if (any)
            buf_puts(out, " | ");
        any = true;
        if (quoted)
            buf_putc(out, '"');
        put_str(out, !quoted && str_eq(s, "integer") ? STR("number") : s);
        if (quoted)
            buf_putc(out, '"');
    }
    return any;
}

void harmony_ts(struct buf *out, const struct json *schema, int indent)
{
    const struct json *one_of = get_arr(schema, "oneOf");
    if (one_of) {
        for (size_t i = 0; i < json_len(one_of); i++) {
            buf_putc(out, '\n');
            put_variant(out, json_at(one_of, i), indent, true, (struct str){0}, ENUM_QUOTED);
        }
        return;
    }
    if (put_strings(out, get_arr(schema, "type"), false))
        return;
    struct str type = get_str(schema, "type");
    if (str_eq(type, "object")) {
        put_object(out, schema, indent);
    } else if (str_eq(type, "string")) {
        if (!put_strings(out, get_arr(schema, "enum"), true))
            buf_puts(out, "string");
    } else if (str_eq(type, "number") || str_eq(type, "integer")) {
        buf_puts(out, "number");
    } else if (str_eq(type, "boolean")) {
        buf_puts(out, "boolean");
    } else if (str_eq(type, "array")) {
        if (!json_get(schema, "items")) {
            buf_puts(out, "Array<any>");
        } else {
            harmony_ts(out, json_get(schema, "items"), indent);
            buf_puts(out, "[]");
        }
    } else {
        buf_puts(out, "any");
    }
}

/* ---- the tools section ---- */

static struct str key_of(const struct harmony_namespace *ns)
{
    return ns->key.p ? ns->key : ns->name;
}

static int by_key(const struct harmony_namespace *a, const struct harmony_namespace *b)
{
    return str_cmp(key_of(a), key_of(b));
}

/* Each line of `text` after a newline and `prefix`. A final newline ends the last line, and "\r\n"
 * counts as one, as in Rust's str::lines. */
static void put_lines(struct buf *out, struct str text, const char *prefix)
{
    for (size_t i = 0; i < text.n;) {
        const char *end = memchr(text.p + i, '\n', text.n - i);
        size_t n = end ? (size_t)(end - (text.p + i)) : text.n - i;
        size_t shown = end && n > 0 && text.p[i + n - 1] == '\r' ? n - 1 : n;
        buf_puts(out, prefix);
        buf_put(out, text.p + i, shown);
        buf_putc(out, '\n');
        i += n + 1;
    }
}

static void put_namespace(struct buf *out, const struct harmony_namespace *ns)
{
    buf_puts(out, "## ");
    put_str(out, ns->name);
    buf_puts(out, "\n\n");
    put_lines(out, ns->description, ns->n_tool ? "// " : "");
    if (!ns->n_tool) {
        /* The section's lines are joined by newlines: none follows the last. */
        if (buf_status(out) == OK)
            out->p[--out->n] = '\0';
        return;
    }
    buf_puts(out, "namespace ");
    put_str(out, ns->name);
    buf_puts(out, " {\n\n");
    for (int i = 0; i < ns->n_tool; i++) {
        const struct harmony_tool *t = &ns->tool[i];
        put_lines(out, t->description, "// ");
        buf_puts(out, "type ");
        put_str(out, t->name);
        buf_puts(out, t->type.p || t->parameters ? " = (_: " : " = (");
        if (t->type.p)
            put_str(out, t->type);
        else if (t->parameters)
            harmony_ts(out, t->parameters, 0);
        buf_puts(out, ") => any;\n\n");
    }
    buf_puts(out, "} // namespace ");
    put_str(out, ns->name);
}

void harmony_tools_section(struct buf *out, const struct harmony_namespace *ns, int n)
{
    buf_puts(out, "# Tools");
    /* Smallest key above the last one, n times: namespaces are few and equal keys keep their order.
     */
    const struct harmony_namespace *last = NULL;
    for (int done = 0; done < n; done++) {
        const struct harmony_namespace *next = NULL;
        for (int i = 0; i < n; i++) {
            const struct harmony_namespace *c = &ns[i];
            int vs_last = last ? by_key(c, last) : 1;
            bool later = vs_last > 0 || (vs_last == 0 && c > last);
            if (later && (!next || by_key(c, next) < 0))
                next = c;
        }
        buf_puts(out, "\n\n");
        put_namespace(out, next);
        last = next;
    }
}

/* ---- built-in tools: wire constants of the harmony library 0.0.8 ---- */

static const struct harmony_tool browser_tool[] = {
    {.name = STR_INIT("search"),
     .description = STR_INIT("Searches for information related to `query` and displays `topn` "
                             "results."),
     .type = STR_INIT("{\n"
                      "query: string,\n"
                      "topn?: number, // default: 10\n"
                      "source?: string,\n"
                      "}")},
    {.name = STR_INIT("open"),
     .description = STR_INIT(
         "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, "
         "showing `num_lines` lines.\n"
         "Valid link ids are displayed with the formatting: "
         "`\xe3\x80\x90{id}\xe2\x80\xa0.*\xe3\x80\x91`.\n"
         "If `cursor` is not provided, the most recent page is implied.\n"
         "If `id` is a string, it is treated as a fully qualified URL associated with `source`.\n"
         "If `loc` is not provided, the viewport will be positioned at the beginning of the "
         "document or centered on the most relevant passage, if available.\n"
         "Use this function without `id` to scroll to a new location of an opened page."),
     .type = STR_INIT("{\n"
                      "id?: number | string, // default: -1\n"
                      "cursor?: number, // default: -1\n"
                      "loc?: number, // default: -1\n"
                      "num_lines?: number, // default: -1\n"
                      "view_source?: boolean, // default: false\n"
                      "source?: string,\n"
                      "}")},
    {.name = STR_INIT("find"),
     .description = STR_INIT("Finds exact matches of `pattern` in the current page, or the page "
                             "given by `cursor`."),
     .type = STR_INIT("{\n"
                      "pattern: string,\n"
                      "cursor?: number, // default: -1\n"
                      "}")},
};

void harmony_builtin_browser(struct harmony_namespace *ns)
{
    *ns = (struct harmony_namespace){
        .name = STR("browser"),
        .description =
            STR("Tool for browsing.\n"
                "The `cursor` appears in brackets before each browsing display: `[{cursor}]`.\n"
                "Cite information from the tool using the following format:\n"
                "`\xe3\x80\x90{cursor}\xe2\x80\xa0L{line_start}(-L{line_end})?\xe3\x80\x91`, "
                "for example: `\xe3\x80\x90"
                "6\xe2\x80\xa0L9-L11\xe3\x80\x91` or `\xe3\x80\x90"
                "8\xe2\x80\xa0L3\xe3\x80\x91`.\n"
                "Do not quote more than 10 words directly from the tool output.\n"
                "sources=web (default: web)"),
        .tool = browser_tool,
        .n_tool = (int)(sizeof browser_tool / sizeof browser_tool[0]),
    };
}

void harmony_builtin_python(struct harmony_namespace *ns)
{
    *ns = (struct harmony_namespace){
        .name = STR("python"),
        .description = STR(
            "Use this tool to execute Python code in your chain of thought. The code will not be "
            "shown to the user. This tool should be used for internal reasoning, but not for code "
            "that is intended to be visible to the user (e.g. when creating plots, tables, or "
            "files).\n\n"
            "When you send a message containing Python code to python, it will be executed in a "
            "stateful Jupyter notebook environment. python will respond with the output of the "
            "execution or time out after 120.0 seconds. The drive at '/mnt/data' can be used to "
            "save and persist user files. Internet access for this session is UNKNOWN. Depends on "
            "the cluster."),
    };
}
