/* Data sets. See dataset.h.
 *
 * CSV as in RFC 4180: fields parted by commas, records by LF or CR LF; a field in double quotes may
 * hold all three, and a quote as two. The first record has the names; a byte order mark before it
 * is skipped; blank lines between records are too.
 */
#include "eval/dataset.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MAX_BYTES = 1 << 30, MAX_ROWS = 10000000 };

static status add_row(struct dataset *r, const char *text, size_t n, const char *path, int line,
                      struct err *e)
{
    struct err je = {0};
    struct json *row = NULL;
    status st = json_parse(text, n, &json_limits_file, &row, &je);
    if (st == OK && json_kind(row) != J_OBJ)
        st = err_set(&je, E_INPUT, "an object is wanted");
    if (st == OK && r->n == MAX_ROWS)
        st = err_set(&je, E_LIMIT, "more than %d rows", MAX_ROWS);
    if (st == OK && (r->n & (r->n - 1)) == 0) { /* full: at every power of two */
        struct json **more =
            mem_realloc_array(r->row, r->n ? (size_t)r->n * 2 : 1, sizeof(struct json *));
        if (more)
            r->row = more;
        else
            st = err_set(&je, E_NOMEM, "out of memory");
    }
    if (st < 0) {
        json_free(row);
        return err_set(e, st, "%.100s line %d: %.120s", path, line, je.msg);
    }
    r->row[r->n++] = row;
    return OK;
}

/* ---- JSON Lines ---- */

static status read_lines(struct dataset *r, const struct buf *b, const char *path, struct err *e)
{
    int line = 0;
    for (const char *p = b->p, *end = b->p + b->n, *q; p < end; p = q + 1) {
        q = memchr(p, '\n', (size_t)(end - p));
        if (!q)
            q = end;
        line++;
        size_t n = (size_t)(q - p);
        if (strspn(p, " \t\r") >= n)
            continue;
        status st = add_row(r, p, n, path, line, e);
        if (st < 0)
            return st;
    }
    return OK;
}

/* ---- CSV ---- */

struct csv {
    const char *p, *end;
    int line;
    bool open; /* the last field was in quotes that did not end */
};

/* The next field into b; true when another one follows in the record. */
static bool csv_field(struct csv *c, struct buf *b)
{
    buf_clear(b);
    if (c->p < c->end && *c->p == '"') {
        for (c->p++;; c->p++) {
            if (c->p >= c->end) {
                c->open = true;
                return false;
            }
            if (*c->p == '"' && !(c->p + 1 < c->end && c->p[1] == '"'))
                break;
            if (*c->p == '"')
                c->p++;
            c->line += *c->p == '\n';
            buf_putc(b, *c->p);
        }
        c->p++;
    }
    while (c->p < c->end && *c->p != ',' && *c->p != '\n') {
        if (*c->p != '\r' || c->p + 1 >= c->end || c->p[1] != '\n')
            buf_putc(b, *c->p);
        c->p++;
    }
    bool more = c->p < c->end && *c->p == ',';
    if (c->p < c->end) {
        c->line += *c->p == '\n';
        c->p++;
    }
    return more;
}

static bool blank_line(const struct csv *c)
{
    return *c->p == '\n' || (*c->p == '\r' && c->p + 1 < c->end && c->p[1] == '\n');
}

static status read_csv(struct dataset *r, const struct buf *in, const char *path, struct err *e)
{
    struct csv c = {in->p, in->p + in->n, 1, false};
    if (in->n >= 3 && memcmp(in->p, "\xef\xbb\xbf", 3) == 0)
        c.p += 3;
    struct buf field, names, row;
    buf_init(&field, MAX_BYTES);
    buf_init(&names, 1 << 20); /* quoted, each behind a NUL */
    buf_init(&row, MAX_BYTES);
    status st = OK;
    int n_name = 0;
    bool more = true;
    while (more && c.p < c.end) {
        more = csv_field(&c, &field);
        json_quote(&names, field.p, field.n);
        buf_putc(&names, '\0');
        n_name++;
    }
    while (c.p < c.end && !c.open) {
        int first = c.line, i = 0;
        const char *name = names.p;
        if (blank_line(&c)) {
            csv_field(&c, &field);
            continue;
        }
        buf_clear(&row);
        for (more = true; more; i++) {
            more = csv_field(&c, &field);
            if (i >= n_name)
                continue;
            buf_printf(&row, "%c%s:", i ? ',' : '{', name);
            json_quote(&row, field.p, field.n);
            name += strlen(name) + 1;
        }
        buf_putc(&row, '}');
        if (c.open)
            break;
        if (i != n_name) {
            st = err_set(e, E_INPUT, "%.100s line %d: %d fields, but the first line names %d", path,
                         first, i, n_name);
            goto out;
        }
        TRY(buf_status(&row));
        TRY(buf_status(&names));
        TRY(add_row(r, row.p, row.n, path, first, e));
    }
    if (c.open)
        st = err_set(e, E_INPUT, "%.100s: a quote that begins a field does not end", path);
out:
    if (st < 0 && e && !e->code)
        err_set(e, st, "%.100s: does not fit into memory", path);
    buf_fini(&field);
    buf_fini(&names);
    buf_fini(&row);
    return st;
}

/* ---- the contract ---- */

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

status dataset_read(struct dataset *r, const char *path, struct err *e)
{
    struct buf b;
    buf_init(&b, MAX_BYTES);
    status st = OK;
    TRY(file_read(path, &b, e));
    if (ends_with(path, ".parquet") || (b.n >= 4 && memcmp(b.p, "PAR1", 4) == 0))
        st = err_set(e, E_INPUT,
                     "%.80s is a parquet file; convert it: scripts/convert_dataset.py FILE.parquet "
                     "FILE.jsonl",
                     path);
    else if (ends_with(path, ".csv"))
        st = read_csv(r, &b, path, e);
    else
        st = read_lines(r, &b, path, e);
    if (st == OK && r->n == 0)
        st = err_set(e, E_INPUT, "%.100s has no rows", path);
out:
    buf_fini(&b);
    return st;
}

void dataset_fini(struct dataset *r)
{
    for (int i = 0; i < r->n; i++)
        json_free(r->row[i]);
    mem_free(r->row);
    *r = (struct dataset){0};
}

const char *dataset_text(const struct json *row, const char *key, size_t *n)
{
    const struct json *j = json_get(row, key);
    *n = 0;
    if (json_kind(j) == J_STR)
        return json_str(j, n);
    if (json_kind(j) == J_REAL) {
        const char *s = json_real_text(j);
        *n = strlen(s);
        return s;
    }
    return NULL;
}
