#include "bench/sheet.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MEM_MAX = 256 << 20, FILE_MAX = 64 << 20 };

/* ---- columns ---- */

status sheet_add_columns(struct sheet *s, const char *columns, struct err *e)
{
    ASSERT(s->n_row == 0);
    for (const char *p = columns + strspn(columns, " \n"); *p;) {
        size_t n = strcspn(p, " \n");
        if (s->n_col == SHEET_MAX_COL)
            return err_set(e, E_LIMIT, "more than %d columns", SHEET_MAX_COL);
        s->col[s->n_col] = arena_strndup(&s->mem, p, n);
        if (!s->col[s->n_col++])
            return err_set(e, E_NOMEM, "out of memory");
        p += n + strspn(p + n, " \n");
    }
    return OK;
}

status sheet_init(struct sheet *s, const char *columns, struct err *e)
{
    *s = (struct sheet){0};
    arena_init(&s->mem, MEM_MAX);
    return sheet_add_columns(s, columns, e);
}

void sheet_fini(struct sheet *s)
{
    mem_free(s->cell);
    arena_fini(&s->mem);
    *s = (struct sheet){0};
}

int sheet_col(const struct sheet *s, const char *col)
{
    for (int i = 0; i < s->n_col; i++)
        if (strcmp(s->col[i], col) == 0)
            return i;
    return -1;
}

/* ---- rows ---- */

void sheet_row(struct sheet *s)
{
    if ((size_t)s->n_row == s->cap && s->st == OK) {
        size_t cap = s->cap ? 2 * s->cap : 32, n;
        const char **p = s->n_row >= SHEET_MAX_ROW || !mul_ok(cap, (size_t)s->n_col, &n)
                             ? NULL
                             : mem_realloc_array(s->cell, n, sizeof *p);
        if (p) {
            s->cell = p;
            s->cap = cap;
        } else {
            s->st = E_NOMEM;
        }
    }
    if (s->st < 0)
        return;
    for (int i = 0; i < s->n_col; i++)
        s->cell[(size_t)s->n_row * (size_t)s->n_col + (size_t)i] = NULL;
    s->n_row++;
}

static const char **cell_at(const struct sheet *s, int row, int col)
{
    return &s->cell[(size_t)row * (size_t)s->n_col + (size_t)col];
}

static void set(struct sheet *s, int col, const char *text, size_t n)
{
    ASSERT(col >= 0);
    if (s->st < 0 || n == 0)
        return;
    const char *copy = arena_strndup(&s->mem, text, n);
    if (!copy)
        s->st = E_NOMEM;
    *cell_at(s, s->n_row - 1, col) = copy;
}

void sheet_text(struct sheet *s, const char *col, const char *text)
{
    set(s, sheet_col(s, col), text, text ? strlen(text) : 0);
}

void sheet_num(struct sheet *s, const char *col, double v)
{
    struct buf b;
    buf_init(&b, 64);
    if (isfinite(v))
        json_put_num(&b, v);
    set(s, sheet_col(s, col), b.p, b.n);
    buf_fini(&b);
}

void sheet_int(struct sheet *s, const char *col, int64_t v)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)v);
    set(s, sheet_col(s, col), text, strlen(text));
}

const char *sheet_get(const struct sheet *s, int row, const char *col)
{
    int i = sheet_col(s, col);
    const char *v = i < 0 ? NULL : *cell_at(s, row, i);
    return v ? v : "";
}

double sheet_get_num(const struct sheet *s, int row, const char *col)
{
    double v;
    return num_f64(sheet_get(s, row, col), -1e300, 1e300, &v) == OK ? v : NAN;
}

int sheet_find(const struct sheet *s, const char *col, const char *text)
{
    for (int i = 0; i < s->n_row; i++)
        if (strcmp(sheet_get(s, i, col), text) == 0)
            return i;
    return -1;
}

int sheet_find2(const struct sheet *s, const char *col1, double v1, const char *col2, double v2)
{
    for (int i = 0; i < s->n_row; i++)
        if (sheet_get_num(s, i, col1) == v1 && sheet_get_num(s, i, col2) == v2)
            return i;
    return -1;
}

/* ---- CSV ---- */

static void put_field(struct buf *b, const char *s)
{
    if (s && strpbrk(s, ",\"\r\n")) {
        buf_putc(b, '"');
        for (; *s; s++) {
            if (*s == '"')
                buf_putc(b, '"');
            buf_putc(b, *s);
        }
        buf_putc(b, '"');
    } else if (s) {
        buf_puts(b, s);
    }
}

static void put_names(const struct sheet *s, struct buf *b)
{
    for (int i = 0; i < s->n_col; i++) {
        buf_puts(b, i ? "," : "");
        put_field(b, s->col[i]);
    }
    buf_putc(b, '\n');
}

static void put_row(const struct sheet *s, int row, struct buf *b)
{
    for (int i = 0; i < s->n_col; i++) {
        buf_puts(b, i ? "," : "");
        put_field(b, *cell_at(s, row, i));
    }
    buf_putc(b, '\n');
}

void sheet_csv(const struct sheet *s, struct buf *b)
{
    put_names(s, b);
    for (int i = 0; i < s->n_row; i++)
        put_row(s, i, b);
}

/* One field from *p into text, which is cleared; *p stands behind its separator, which is returned
 * (',' or '\n', 0 at the end). -1: a quoted field that does not end. */
static int read_field(const char **p, const char *end, struct buf *text)
{
    const char *s = *p;
    buf_clear(text);
    if (s < end && *s == '"') {
        for (s++;; s++) {
            if (s >= end)
                return -1;
            if (*s == '"' && (s + 1 >= end || s[1] != '"'))
                break;
            s += *s == '"';
            buf_putc(text, *s);
        }
        s++;
    }
    for (; s < end && *s != ',' && *s != '\n'; s++)
        if (*s != '\r')
            buf_putc(text, *s);
    int sep = s < end ? *s : 0;
    *p = s < end ? s + 1 : s;
    return sep;
}

static bool line_is_blank(const char *p, const char *end)
{
    while (p < end && *p == '\r')
        p++;
    return p < end && *p == '\n';
}

/* Rows of CSV text behind the names. A last line without its end was cut off in writing and is
 * left out when `whole` is false. */
static status read_rows(struct sheet *s, const char *p, const char *end, bool whole,
                        const char *path, struct err *e)
{
    struct buf text;
    buf_init(&text, FILE_MAX);
    status st = OK;
    for (int line = 2; p < end && st == OK; line++) {
        if (line_is_blank(p, end)) {
            p = memchr(p, '\n', (size_t)(end - p));
            p++;
            continue;
        }
        int sep = ',', i = 0;
        sheet_row(s);
        for (; sep == ','; i++) {
            sep = read_field(&p, end, &text);
            if (sep >= 0 && i < s->n_col)
                set(s, i, text.p, text.n);
        }
        bool cut = sep <= 0 && !whole;
        if (cut)
            s->n_row--;
        else if (sep < 0)
            st = err_set(e, E_FORMAT, "%.120s: line %d: a quoted field does not end", path, line);
        else if (i != s->n_col)
            st = err_set(e, E_FORMAT, "%.120s: line %d has %d fields, the first line %d", path,
                         line, i, s->n_col);
        if (s->st < 0 || text.st < 0)
            st = err_set(e, E_NOMEM, "out of memory for %.120s", path);
    }
    buf_fini(&text);
    return st;
}

status sheet_read(struct sheet *s, const char *path, struct err *e)
{
    struct buf b, name;
    *s = (struct sheet){0};
    arena_init(&s->mem, MEM_MAX);
    buf_init(&b, FILE_MAX);
    buf_init(&name, 4096);
    status st = OK;
    TRY(file_read(path, &b, e));
    const char *p = b.p, *end = b.p + b.n;
    for (int sep = ','; sep == ',';) {
        sep = read_field(&p, end, &name);
        if (sep < 0 || buf_status(&name) < 0 || s->n_col == SHEET_MAX_COL)
            TRY(err_set(e, E_FORMAT, "%.120s: the first line is no list of at most %d names", path,
                        SHEET_MAX_COL));
        s->col[s->n_col] = arena_strndup(&s->mem, name.p, name.n);
        if (!s->col[s->n_col++])
            TRY(err_set(e, E_NOMEM, "out of memory for %.120s", path));
    }
    TRY(read_rows(s, p, end, true, path, e));
out:
    buf_fini(&name);
    buf_fini(&b);
    if (st < 0)
        sheet_fini(s);
    return st;
}

/* ---- JSON ---- */

/* Whether the cell is a JSON number as it stands. */
static bool is_number(const char *s)
{
    struct json *j = NULL;
    bool ok = json_parse(s, strlen(s), &json_limits_file, &j, NULL) == OK &&
              (json_kind(j) == J_INT || json_kind(j) == J_REAL);
    json_free(j);
    return ok;
}

void sheet_json_row(const struct sheet *s, int row, struct buf *b)
{
    buf_putc(b, '{');
    for (int i = 0; i < s->n_col; i++) {
        const char *v = *cell_at(s, row, i);
        buf_puts(b, i ? ", " : "");
        json_quote(b, s->col[i], strlen(s->col[i]));
        buf_puts(b, ": ");
        if (!v)
            buf_puts(b, "null");
        else if (is_number(v))
            buf_puts(b, v);
        else
            json_quote(b, v, strlen(v));
    }
    buf_putc(b, '}');
}

void sheet_json(const struct sheet *s, struct buf *b)
{
    buf_putc(b, '[');
    for (int i = 0; i < s->n_row; i++) {
        buf_puts(b, i ? ",\n " : "");
        sheet_json_row(s, i, b);
    }
    buf_puts(b, "]\n");
}

/* ---- on disk ---- */

/* Appends to the file of finished rows. */
static status append(const struct sheet *s, const struct buf *b, struct err *e)
{
    FILE *f = fopen(s->part, "ae");
    bool ok = f && fwrite(b->p, 1, b->n, f) == b->n && fflush(f) == 0 && fsync(fileno(f)) == 0;
    int fault = errno;
    if (f && fclose(f) != 0 && ok) {
        ok = false;
        fault = errno;
    }
    return ok ? OK : err_set(e, E_IO, "cannot write %.120s: %s", s->part, strerror(fault));
}

status sheet_end_row(struct sheet *s, struct err *e)
{
    if (s->st < 0)
        return err_set(e, s->st, "out of memory for the results");
    if (!s->part[0])
        return OK;
    struct buf b;
    buf_init(&b, FILE_MAX);
    put_row(s, s->n_row - 1, &b);
    status st = buf_status(&b) < 0 ? err_set(e, E_NOMEM, "out of memory") : append(s, &b, e);
    buf_fini(&b);
    return st;
}

status sheet_resume(struct sheet *s, const char *path, const char *what, struct err *e)
{
    struct buf head, old;
    buf_init(&head, FILE_MAX);
    buf_init(&old, FILE_MAX);
    status st = OK;
    if ((size_t)snprintf(s->part, sizeof s->part, "%s.part", path) >= sizeof s->part)
        TRY(err_set(e, E_INPUT, "the path %.80s... is too long", path));
    buf_printf(&head, "# %s\n", what);
    put_names(s, &head);
    TRY(buf_status(&head));
    if (file_read(s->part, &old, NULL) == OK && old.n >= head.n &&
        memcmp(old.p, head.p, head.n) == 0)
        TRY(read_rows(s, old.p + head.n, old.p + old.n, false, s->part, e));
    for (int i = 0; i < s->n_row; i++)
        put_row(s, i, &head);
    TRY(buf_status(&head));
    TRY(file_save(s->part, head.p, head.n, e)); /* without a row that was cut off */
out:
    buf_fini(&old);
    buf_fini(&head);
    return st;
}

status sheet_save(struct sheet *s, const char *path, struct err *e)
{
    struct buf b;
    buf_init(&b, FILE_MAX);
    sheet_csv(s, &b);
    status st = buf_status(&b);
    if (st < 0)
        err_set(e, st, "out of memory for the results");
    if (st == OK)
        st = file_save(path, b.p, b.n, e);
    if (st == OK && s->part[0])
        unlink(s->part);
    buf_fini(&b);
    return st;
}
