/* YAML as JSON text, by libyaml's events: the only user of yaml.h. What the result means is for the
 * JSON reader, so that YAML and JSON have the same limits and errors.
 *
 * Plain scalars are typed as YAML 1.2's core schema says: null, true, false, integers, floats
 * (2.0e-04 too); anything else, and everything in quotes, is text.
 */
#include "cli/cli.h"

#include "base/num.h"

#include <math.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 64 };

/* Where the next value stands, per level. */
struct level {
    bool map, key; /* in a map; a key comes next */
    int n;
};
struct yaml {
    yaml_parser_t p;
    struct level level[MAX_DEPTH];
    int depth;
    struct buf *out;
};

static bool one_of(const char *s, const char *words)
{
    size_t n = strlen(s);
    for (const char *w = words; *w; w += strcspn(w, " ") + (w[strcspn(w, " ")] == ' '))
        if (strcspn(w, " ") == n && memcmp(w, s, n) == 0)
            return true;
    return false;
}

static void put_plain(struct buf *b, const char *s, size_t n)
{
    int64_t i;
    double d;
    const char *digits = *s == '+' ? s + 1 : s;
    if (one_of(s, "null Null NULL ~") || n == 0)
        buf_puts(b, "null");
    else if (one_of(s, "true True TRUE"))
        buf_puts(b, "true");
    else if (one_of(s, "false False FALSE"))
        buf_puts(b, "false");
    else if (num_i64(digits, INT64_MIN, INT64_MAX, &i) == OK)
        buf_printf(b, "%lld", (long long)i);
    else if (strpbrk(s, "0123456789") && num_f64(digits, -INFINITY, INFINITY, &d) == OK &&
             !strpbrk(s, "xX"))
        json_put_num(b, d);
    else
        json_quote(b, s, n);
}

static void put_scalar(struct yaml *y, const yaml_event_t *v)
{
    const char *s = (const char *)v->data.scalar.value;
    size_t n = v->data.scalar.length;
    struct level *l = &y->level[y->depth];
    if (l->map && l->key) /* keys of JSON are text */
        json_quote(y->out, s, n);
    else if (v->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        put_plain(y->out, s, n);
    else
        json_quote(y->out, s, n);
}

/* What stands before a value. False: a key that is no scalar. */
static bool before(struct yaml *y, bool scalar)
{
    struct level *l = &y->level[y->depth];
    if (y->depth == 0)
        return true;
    if (l->map && !l->key) {
        buf_putc(y->out, ':');
        return true;
    }
    if (l->n++)
        buf_putc(y->out, ',');
    return scalar || !l->map;
}

static void after(struct yaml *y)
{
    struct level *l = &y->level[y->depth];
    if (l->map)
        l->key = !l->key;
}

static status refuse(struct yaml *y, const yaml_event_t *v, const char *what, struct err *e)
{
    (void)y;
    return err_set(e, E_INPUT, "line %zu: %s", v->start_mark.line + 1, what);
}

static status open_level(struct yaml *y, const yaml_event_t *v, bool map, struct err *e)
{
    if (!before(y, false))
        return refuse(y, v, "a key must be text", e);
    if (y->depth + 1 == MAX_DEPTH)
        return refuse(y, v, "nested too deeply", e);
    y->level[++y->depth] = (struct level){map, map, 0};
    buf_putc(y->out, map ? '{' : '[');
    return OK;
}

static status take(struct yaml *y, const yaml_event_t *v, int *n_doc, struct err *e)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (v->type) {
    case YAML_SCALAR_EVENT:
        anchor = v->data.scalar.anchor;
        tag = v->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = v->data.sequence_start.anchor;
        tag = v->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = v->data.mapping_start.anchor;
        tag = v->data.mapping_start.tag;
        break;
    case YAML_ALIAS_EVENT:
        return refuse(y, v, "aliases are not taken", e);
    case YAML_DOCUMENT_START_EVENT:
        if (++*n_doc > 1)
            return refuse(y, v, "a second document is not taken", e);
        return OK;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        buf_putc(y->out, v->type == YAML_MAPPING_END_EVENT ? '}' : ']');
        y->depth--;
        after(y);
        return OK;
    default:
        return OK;
    }
    if (anchor || tag)
        return refuse(y, v, "anchors and tags are not taken", e);
    if (v->type != YAML_SCALAR_EVENT)
        return open_level(y, v, v->type == YAML_MAPPING_START_EVENT, e);
    if (!before(y, true))
        return refuse(y, v, "a key must be text", e);
    put_scalar(y, v);
    after(y);
    return OK;
}

status yaml_to_json(const char *s, size_t n, struct buf *out, struct err *e)
{
    struct yaml y = {.out = out};
    status st = OK;
    int n_doc = 0;
    bool end = false;
    if (!yaml_parser_initialize(&y.p))
        return err_set(e, E_NOMEM, "out of memory for a YAML document");
    yaml_parser_set_input_string(&y.p, (const unsigned char *)s, n);
    while (!end && st == OK) {
        yaml_event_t v;
        if (!yaml_parser_parse(&y.p, &v)) {
            st = err_set(e, E_INPUT, "line %zu: %.160s", y.p.problem_mark.line + 1,
                         y.p.problem ? y.p.problem : "not YAML");
            break;
        }
        end = v.type == YAML_STREAM_END_EVENT;
        st = take(&y, &v, &n_doc, e);
        yaml_event_delete(&v);
    }
    yaml_parser_delete(&y.p);
    if (st == OK && n_doc == 0)
        buf_puts(out, "null");
    return st == OK ? buf_status(out) : st;
}
