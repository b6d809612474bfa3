/* How numbers keep their text. jansson turns "-0" into 0, refuses integers past 64 bits and rounds
 * fractions, but some of our readers must print a number as another program would. So json_parse
 * first rewrites such numbers into strings that start with NUL and '#', which json_kind and the
 * getters take back:
 *
 *     {"a": 1.50, "b": "\u0000x", "c": 7}  ->  {"a": "\u0000#1.50", "b": "\u0000\u0000x", "c": 7}
 *
 * A string of the source that starts with NUL gets a second NUL, so no text can pose as a number.
 */
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
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

static const char mark[] = "\\u0000";
enum { N_MARK = sizeof mark - 1 };

/* Length of the number at s, and whether it must keep its text; 0 when it is no valid number,
 * which is left to jansson to refuse. */
static size_t number(const char *s, size_t n, bool *keep)
{
    size_t i = n && s[0] == '-', digits = i;
    if (i < n && s[i] == '0')
        i++;
    else
        while (i < n && s[i] >= '0' && s[i] <= '9')
            i++;
    digits = i - digits;
    if (!digits)
        return 0;
    /* 18 digits always fit; longer ones keep their text whether they would or not. */
    *keep = digits > 18 || (s[0] == '-' && s[1] == '0');
    if (i < n && s[i] == '.') {
        size_t from = ++i;
        while (i < n && s[i] >= '0' && s[i] <= '9')
            i++;
        if (i == from)
            return 0;
        *keep = true;
    }
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < n && (s[i] == '+' || s[i] == '-'))
            i++;
        size_t from = i;
        while (i < n && s[i] >= '0' && s[i] <= '9')
            i++;
        if (i == from)
            return 0;
        *keep = true;
    }
    return i;
}

/* Counts nesting and values without building anything; *extra is by how many bytes `rewrite` will
 * lengthen the text, *longest the bytes of the longest string, number or word. Wrong nesting is
 * left to the parser. */
static status scan(const char *s, size_t n, const struct json_limits *lim, size_t *extra,
                   size_t *longest, struct err *e)
{
    if (n > lim->max_bytes)
        return err_set(e, E_LIMIT, "JSON text of %zu bytes; at most %zu are read", n,
                       lim->max_bytes);
    int depth = 0;
    size_t values = 1, run = 0;
    *extra = *longest = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t from = i;
        run = s[i] > ' ' && !strchr("\"[]{},:", s[i]) ? run : 0;
        switch (s[i]) {
        case '"':
            if (n - i > N_MARK && memcmp(s + i + 1, mark, N_MARK) == 0)
                *extra += N_MARK;
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
            if (s[i] == '-' || (s[i] >= '0' && s[i] <= '9')) {
                bool keep = false;
                size_t len = number(s + i, n - i, &keep);
                if (len && keep)
                    *extra += N_MARK + 3;
                if (len)
                    i += len - 1;
            }
            break;
        }
        run += i + 1 - from;
        *longest = run > *longest ? run : *longest;
    }
    return OK;
}

/* Copies s to `out` (NULL: only counts) with kept numbers as marked strings, until `stop` bytes
 * were made; returns how many bytes of s that took. */
static size_t rewrite(const char *s, size_t n, char *out, size_t stop)
{
    size_t o = 0, i = 0;
    while (i < n && o < stop) {
        bool keep = false, pass = false;
        size_t len = 1, add = 0;
        if (s[i] == '"') {
            while (i + len < n && s[i + len] != '"')
                len += s[i + len] == '\\' ? 2 : 1;
            len = i + len < n ? len + 1 : n - i;
            pass = len > N_MARK && memcmp(s + i + 1, mark, N_MARK) == 0;
            add = pass ? N_MARK : 0;
        } else if (s[i] == '-' || (s[i] >= '0' && s[i] <= '9')) {
            size_t m = number(s + i, n - i, &keep);
            len = m ? m : 1;
            keep = m && keep;
            add = keep ? N_MARK + 3 : 0;
        }
        if (out && keep) {
            out[o] = '"';
            memcpy(out + o + 1, mark, N_MARK);
            out[o + 1 + N_MARK] = '#';
            memcpy(out + o + 2 + N_MARK, s + i, len);
            out[o + add + len - 1] = '"';
        } else if (out && pass) {
            out[o] = '"';
            memcpy(out + o + 1, mark, N_MARK);
            memcpy(out + o + add + 1, s + i + 1, len - 1);
        } else if (out) {
            memcpy(out + o, s + i, len);
        }
        o += len + add;
        i += len;
    }
    return i;
}

/* A kept number too big for a double is refused, as it would be without its text. */
static bool all_finite(json_t *j)
{
    const char *key;
    json_t *v;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        json_object_foreach(j, key, v)
        {
            if (!all_finite(v))
                return false;
        }
        return true;
    case JSON_ARRAY:
        json_array_foreach(j, i, v)
        {
            if (!all_finite(v))
                return false;
        }
        return true;
    default:
        return json_kind((struct json *)(void *)j) != J_REAL ||
               isfinite(json_num((struct json *)(void *)j));
    }
}

/* jansson allocates through base/mem, so that the fault tests reach it. When the buffer of a token
 * can't grow, it drops the byte and goes on: a lost closing quote makes it write past that buffer.
 * So after the first failure all comes from a reserve, and the text ends (next_text). What can
 * follow is the token begun, whose buffer grows by doubling, and the text jansson had already
 * fetched. */
enum { TEXT_CHUNK = 512, RESERVE_BYTES = 256 * 1024 };

static _Thread_local struct heap {
    bool failed;
    char *reserve; /* [size], NULL outside json_parse */
    size_t size, used;
} heap;

static void *heap_alloc(size_t n)
{
    void *p = heap.failed ? NULL : mem_alloc(n);
    if (p)
        return p;
    heap.failed = true;
    n = (n + 15) & ~(size_t)15;
    if (n > heap.size - heap.used)
        return NULL;
    heap.used += n;
    return heap.reserve + heap.used - n;
}

static void heap_free(void *p)
{
    uintptr_t at = (uintptr_t)p - (uintptr_t)heap.reserve;
    if (!heap.reserve || at >= heap.size)
        mem_free(p);
}

static void use_our_heap(void)
{
    json_set_alloc_funcs(heap_alloc, heap_free);
}

struct text {
    const char *p;
    size_t n;
};

/* The next piece of the text for jansson; nothing more once memory ran out. */
static size_t next_text(void *to, size_t n, void *ctx)
{
    struct text *t = ctx;
    n = n < t->n ? n : t->n;
    n = n < TEXT_CHUNK ? n : TEXT_CHUNK;
    if (heap.failed)
        return 0;
    memcpy(to, t->p, n);
    t->p += n;
    t->n -= n;
    return n;
}

/* `made`: length of the rewritten text jansson saw, 0 when it saw the original. */
static status refused(const char *text, size_t n, size_t made, const json_error_t *je,
                      struct err *e)
{
    int column = je->column;
    size_t pos = je->position > 0 ? (size_t)je->position : 0, at = pos;
    if (made)
        at = rewrite(text, n, NULL, pos);
    if (json_error_code(je) == json_error_invalid_utf8) {
        /* `at` is behind the whole string; what was added in front of it is the difference */
        const struct json_limits none = {SIZE_MAX, INT_MAX, SIZE_MAX};
        size_t extra = 0, longest;
        if (made && scan(text, at, &none, &extra, &longest, NULL) == OK)
            pos -= extra < pos ? extra : pos;
        return err_set(e, E_INPUT, "invalid JSON: invalid UTF-8 at byte %zu", pos);
    }
    if (made)
        for (column = 0; at > 0 && text[at - 1] != '\n'; at--)
            column += ((unsigned char)text[at - 1] & 0xc0) != 0x80;
    return err_set(e, E_INPUT, "invalid JSON at line %d, column %d: %s", je->line, column,
                   je->text);
}

status json_parse(const char *text, size_t n, const struct json_limits *lim, struct json **root,
                  struct err *e)
{
    static pthread_once_t heap_once = PTHREAD_ONCE_INIT;
    *root = NULL;
    pthread_once(&heap_once, use_our_heap);
    size_t extra = 0, made = 0, longest = 0;
    status st = scan(text, n, lim, &extra, &longest, e);
    if (st < 0)
        return st;
    char *copy = extra ? mem_alloc(n + extra) : NULL;
    heap = (struct heap){.size = 8 * (longest + 16) + RESERVE_BYTES};
    heap.reserve = extra && !copy ? NULL : mem_alloc(heap.size);
    if (!heap.reserve) {
        mem_free(copy);
        return err_set(e, E_NOMEM, "out of memory reading JSON");
    }
    if (extra) {
        rewrite(text, n, copy, SIZE_MAX);
        made = n + extra;
    }
    json_error_t je;
    struct text in = {copy ? copy : text, copy ? made : n};
    json_t *j = json_load_callback(next_text, &in,
                                   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    const bool failed = heap.failed;
    if (failed)
        json_decref(j);
    mem_free(heap.reserve);
    heap = (struct heap){0};
    mem_free(copy);
    if (failed)
        return err_set(e, E_NOMEM, "out of memory reading JSON");
    if (!j)
        return refused(text, n, made, &je, e);
    if (made && !all_finite(j)) {
        const char *key, *bad = "";
        json_t *v;
        char name[sizeof e->param];
        json_object_foreach(j, key, v)
        {
            bad = all_finite(v) ? bad : key;
        }
        snprintf(name, sizeof name, "%s", bad);
        json_decref(j);
        return err_param(e, E_INPUT, name, "invalid JSON: a number is out of range");
    }
    *root = (struct json *)(void *)j;
    return OK;
}

/* The text of a number that kept it, or NULL. */
static const char *kept(const struct json *j)
{
    const char *s = json_string_value(node(j));
    return s && json_string_length(node(j)) > 2 && s[0] == '\0' && s[1] == '#' ? s + 2 : NULL;
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
    case JSON_STRING: /* JSON_REAL does not occur: such numbers keep their text */
        return kept(j) ? J_REAL : J_STR;
    case JSON_INTEGER:
        return J_INT;
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
    const char *s = json_string_value(node(j));
    size_t len = json_string_length(node(j));
    bool escaped = s && len > 0 && s[0] == '\0';
    if (n)
        *n = len - escaped;
    return s + escaped;
}

int64_t json_int(const struct json *j)
{
    return json_integer_value(node(j));
}

double json_num(const struct json *j)
{
    const char *s = kept(j);
    return s ? strtod(s, NULL) : json_number_value(node(j));
}

const char *json_real_text(const struct json *j)
{
    return kept(j);
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
        buf_puts(b, json_real_text(j));
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
