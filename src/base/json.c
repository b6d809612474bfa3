#include "base/json.h"
#include "base/num.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

const struct json_limits json_limits_file = {
    .max_bytes = 64u << 20, .max_depth = 128, .max_values = 4u << 20};

/* jansson's nodes are ours under another name. */
static const json_t *node(const struct json *j)
{
    return (const json_t *)(const void *)j;
}
static json_t *node_mut(const struct json *j)
{
    return (json_t *)(uintptr_t)j;
}

/* Counts nesting and values without building anything. Wrong nesting is left to the parser. */
static status scan(const char *s, size_t n, const struct json_limits *lim, struct err *e)
{
    if (n > lim->max_bytes)
        return err_set(e, E_LIMIT, "JSON text of %zu bytes; at most %zu are read", n,
                       lim->max_bytes);
    int depth = 0;
    size_t values = 1;
    for (size_t i = 0; i < n; i++) {
        switch (s[i]) {
        case '"':
            for (i++; i < n && s[i] != '"'; i++)
                if (s[i] == '\\')
                    i++;
            break;
        case '[':
        case '{':
            values++;
            if (++depth > lim->max_depth)
                return err_set(e, E_LIMIT, "JSON nested deeper than %d levels", lim->max_depth);
            break;
        case ']':
        case '}':
            depth--;
            break;
        case ',':
            if (++values > lim->max_values)
                return err_set(e, E_LIMIT, "JSON with more than %zu values", lim->max_values);
            break;
        default:
            break;
        }
    }
    return OK;
}

status json_parse(const char *text, size_t n, const struct json_limits *lim, struct json **root,
                  struct err *e)
{
    *root = NULL;
    status st = scan(text, n, lim, e);
    if (st < 0)
        return st;
    json_error_t je;
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (!j) {
        if (json_error_code(&je) == json_error_out_of_memory)
            return err_set(e, E_NOMEM, "out of memory reading JSON");
        return err_set(e, E_INPUT, "invalid JSON at line %d, column %d: %s", je.line, je.column,
                       je.text);
    }
    *root = (struct json *)(void *)j;
    return OK;
}

void json_free(struct json *root)
{
    json_decref(node_mut(root));
}

enum json_kind json_kind(const struct json *j)
{
    if (!j)
        return J_NULL;
    switch (json_typeof(node(j))) {
    case JSON_OBJECT:
        return J_OBJ;
    case JSON_ARRAY:
        return J_ARR;
    case JSON_STRING:
        return J_STR;
    case JSON_INTEGER:
        return J_INT;
    case JSON_REAL:
        return J_REAL;
    case JSON_TRUE:
        return J_TRUE;
    case JSON_FALSE:
        return J_FALSE;
    default:
        return J_NULL;
    }
}

const struct json *json_get(const struct json *obj, const char *key)
{
    return obj ? (const struct json *)(void *)json_object_get(node_mut(obj), key) : NULL;
}

size_t json_len(const struct json *j)
{
    enum json_kind k = json_kind(j);
    if (k == J_ARR)
        return json_array_size(node(j));
    return k == J_OBJ ? json_object_size(node(j)) : 0;
}

const struct json *json_at(const struct json *arr, size_t i)
{
    return arr ? (const struct json *)(void *)json_array_get(node_mut(arr), i) : NULL;
}

void *json_first(const struct json *obj)
{
    return obj ? json_object_iter(node_mut(obj)) : NULL;
}

void *json_next(const struct json *obj, void *it)
{
    return json_object_iter_next(node_mut(obj), it);
}

const char *json_key(void *it, size_t *n)
{
    if (n)
        *n = json_object_iter_key_len(it);
    return json_object_iter_key(it);
}

const struct json *json_val(void *it)
{
    return (const struct json *)(void *)json_object_iter_value(it);
}

const char *json_str(const struct json *j, size_t *n)
{
    if (n)
        *n = json_string_length(node(j));
    return json_string_value(node(j));
}

int64_t json_int(const struct json *j)
{
    return json_integer_value(node(j));
}

double json_num(const struct json *j)
{
    return json_number_value(node(j));
}

status json_get_int(const struct json *obj, const char *key, int64_t lo, int64_t hi, int64_t *v,
                    struct err *e)
{
    const struct json *j = json_get(obj, key);
    if (json_absent(j))
        return OK;
    double d = json_num(j);
    bool whole =
        json_kind(j) == J_INT || (json_kind(j) == J_REAL && d == floor(d) && fabs(d) <= 0x1p53);
    int64_t x = !whole ? 0 : json_kind(j) == J_INT ? json_int(j) : (int64_t)d;
    if (!whole || x < lo || x > hi)
        return err_param(e, E_INPUT, key, "\"%s\" must be an integer between %lld and %lld", key,
                         (long long)lo, (long long)hi);
    *v = x;
    return OK;
}

status json_get_num(const struct json *obj, const char *key, double lo, double hi, double *v,
                    struct err *e)
{
    const struct json *j = json_get(obj, key);
    if (json_absent(j))
        return OK;
    bool number = json_kind(j) == J_INT || json_kind(j) == J_REAL;
    double x = number ? json_num(j) : 0;
    if (!number || !(x >= lo && x <= hi))
        return err_param(e, E_INPUT, key, "\"%s\" must be a number between %g and %g", key, lo, hi);
    *v = x;
    return OK;
}

status json_get_bool(const struct json *obj, const char *key, bool *v, struct err *e)
{
    const struct json *j = json_get(obj, key);
    if (json_absent(j))
        return OK;
    if (json_kind(j) != J_TRUE && json_kind(j) != J_FALSE)
        return err_param(e, E_INPUT, key, "\"%s\" must be true or false", key);
    *v = json_kind(j) == J_TRUE;
    return OK;
}

status json_get_str(const struct json *obj, const char *key, const char **v, struct err *e)
{
    const struct json *j = json_get(obj, key);
    if (json_absent(j))
        return OK;
    size_t n = 0;
    if (json_kind(j) != J_STR || strlen(json_str(j, &n)) != n)
        return err_param(e, E_INPUT, key, "\"%s\" must be a string", key);
    *v = json_str(j, NULL);
    return OK;
}

void json_put_num(struct buf *b, double v)
{
    if (!isfinite(v)) {
        buf_puts(b, "null");
        return;
    }
    char s[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (strtod(s, NULL) == v)
            break;
    }
    buf_puts(b, s);
}

void json_quote(struct buf *b, const char *s, size_t n)
{
    buf_putc(b, '"');
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_put(b, s + from, i - from);
        from = i + 1;
        static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
        const char *p = shorts;
        while (*p && *p != (char)c)
            p += 2;
        if (*p)
            buf_printf(b, "\\%c", p[1]);
        else
            buf_printf(b, "\\u%04x", c);
    }
    buf_put(b, s + from, n - from);
    buf_putc(b, '"');
}

void json_dump(struct buf *b, const struct json *j)
{
    size_t n;
    const char *s;
    char sep = '[';
    switch (json_kind(j)) {
    case J_NULL:
        buf_puts(b, "null");
        break;
    case J_FALSE:
        buf_puts(b, "false");
        break;
    case J_TRUE:
        buf_puts(b, "true");
        break;
    case J_INT:
        buf_printf(b, "%lld", (long long)json_int(j));
        break;
    case J_REAL:
        json_put_num(b, json_num(j));
        break;
    case J_STR:
        s = json_str(j, &n);
        json_quote(b, s, n);
        break;
    case J_ARR:
        if (!json_len(j))
            buf_putc(b, '[');
        for (size_t i = 0; i < json_len(j); i++, sep = ',') {
            buf_putc(b, sep);
            json_dump(b, json_at(j, i));
        }
        buf_putc(b, ']');
        break;
    case J_OBJ:
        sep = '{';
        if (!json_len(j))
            buf_putc(b, '{');
        for (void *it = json_first(j); it; it = json_next(j, it), sep = ',') {
            buf_putc(b, sep);
            s = json_key(it, &n);
            json_quote(b, s, n);
            buf_putc(b, ':');
            json_dump(b, json_val(it));
        }
        buf_putc(b, '}');
        break;
    }
}
