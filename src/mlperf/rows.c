#include "mlperf/rows.h"

#include "base/file.h"
#include "base/mem.h"
#include "mlperf/parquet.h"

#include <string.h>

enum { ROWS_BYTES_MAX = 2000 << 20, ID_MAX = INT32_MAX };

/* One row: a prompt of a long context is a million values at most. */
static const struct json_limits row_limits = {64 << 20, 64, 4 << 20};

status rows_parse(const struct row *r, struct json **root, struct err *e)
{
    struct err je = {0};
    status st = json_parse(r->text, r->n_text, &row_limits, root, &je);
    if (st == OK && json_kind(*root) != J_OBJ) {
        json_free(*root);
        *root = NULL;
        st = err_set(&je, E_INPUT, "not a JSON object");
    }
    return st < 0 ? err_set(e, st, "line %d: %.200s", r->line, je.msg) : OK;
}

status rows_ids(const struct json *obj, int32_t **ids, size_t *n, struct err *e)
{
    static const char *const names[] = {"input_tokens", "tok_input", "input_ids"};
    const struct json *list = NULL;
    *ids = NULL;
    *n = 0;
    for (int i = 0; i < 3 && json_absent(list); i++)
        list = json_get(obj, names[i]);
    if (json_absent(list))
        return OK;
    if (json_kind(list) != J_ARR || json_len(list) == 0)
        return err_set(e, E_INPUT, "the token ids must be a list that is not empty");
    size_t len = json_len(list);
    int32_t *p = mem_array(len, sizeof *p);
    if (!p)
        return err_set(e, E_NOMEM, "out of memory");
    for (size_t i = 0; i < len; i++) {
        const struct json *v = json_at(list, i);
        if (json_kind(v) != J_INT || json_int(v) < 0 || json_int(v) > ID_MAX) {
            mem_free(p);
            return err_set(e, E_INPUT, "token id %zu is not a whole number from 0", i);
        }
        p[i] = (int32_t)json_int(v);
    }
    *ids = p;
    *n = len;
    return OK;
}

/* A scalar as text: ground truths are strings, letters or numbers. */
static status scalar(const struct json *v, char **out)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    *out = NULL;
    if (json_absent(v))
        return OK;
    if (json_kind(v) == J_STR)
        buf_puts(&b, json_str(v, NULL));
    else
        json_dump(&b, v);
    status st = buf_status(&b);
    if (st == OK && !(*out = mem_strndup(b.p, b.n)))
        st = E_NOMEM;
    buf_fini(&b);
    return st;
}

static status read_row(struct row *r, int need, struct err *e)
{
    struct json *root = NULL;
    struct err re = {0};
    status st = OK;
    TRY(rows_parse(r, &root, e));
    if (need & ROWS_IDS)
        TRY(rows_ids(root, &r->ids, &r->n_ids, &re));
    if ((need & ROWS_IDS) && !r->ids)
        TRY(err_set(&re, E_INPUT,
                    "no token ids: a column input_tokens or tok_input is needed (gloss mlperf "
                    "harmonize makes it)"));
    TRY(scalar(json_get(root, "dataset"), &r->dataset));
    TRY(scalar(json_get(root, "ground_truth"), &r->ground_truth));
    if ((need & ROWS_TRUTH) && !r->dataset)
        TRY(err_set(&re, E_INPUT, "no column dataset"));
out:
    json_free(root);
    if (re.msg[0])
        err_set(e, st, "line %d: %.200s", r->line, re.msg);
    else if (st == E_NOMEM)
        err_set(e, st, "out of memory");
    return st;
}

static status add_row(struct rows *r, size_t *cap, const char *text, size_t n, int line,
                      struct err *e)
{
    if (r->n == *cap) {
        *cap = *cap ? 2 * *cap : 1024;
        struct row *p = mem_realloc_array(r->row, *cap, sizeof *p);
        if (!p)
            return err_set(e, E_NOMEM, "out of memory");
        r->row = p;
    }
    r->row[r->n++] = (struct row){.text = text, .n_text = n, .line = line};
    return OK;
}

/* The file as JSON Lines, whichever of the two it is. */
static status read_text(struct buf *b, const char *path, size_t max_rows, struct err *e)
{
    struct file_map m = {0};
    struct err pe = {0};
    status st = OK;
    if (strcmp(path, "-") == 0)
        return file_read(path, b, e);
    TRY(file_map(path, &m, e));
    if (!parquet_is(m.p, m.n)) {
        buf_put(b, m.p, m.n);
        TRY(buf_status(b) < 0 ? err_set(e, buf_status(b), "%.150s is too large", path) : OK);
    } else if ((st = parquet_read(m.p, m.n, max_rows, b, &pe)) < 0) {
        TRY(err_set(e, st, "%.80s: %.170s", path, pe.msg));
    }
out:
    file_unmap(&m);
    return st;
}

status rows_read(struct rows *r, const char *path, size_t max_rows, int need, struct err *e)
{
    size_t cap = 0;
    int line = 0;
    struct err re = {0};
    status st = OK;
    *r = (struct rows){0};
    buf_init(&r->text, ROWS_BYTES_MAX);
    TRY(read_text(&r->text, path, max_rows, e));
    for (const char *p = r->text.p, *end = p + r->text.n; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *stop = nl ? nl : end;
        size_t n = (size_t)(stop - p);
        line++;
        if (n && stop[-1] == '\r')
            n--;
        if (strspn(p, " \t") < n) {
            if (max_rows && r->n == max_rows)
                break;
            TRY(add_row(r, &cap, p, n, line, e));
            st = read_row(&r->row[r->n - 1], need, &re);
            if (st < 0)
                TRY(err_set(e, st, "%.80s: %.170s", path, re.msg));
        }
        p = stop + (nl != NULL);
    }
    if (r->n == 0)
        TRY(err_set(e, E_INPUT, "%.120s holds no rows", path));
out:
    return st;
}

void rows_fini(struct rows *r)
{
    for (size_t i = 0; i < r->n; i++) {
        mem_free(r->row[i].ids);
        mem_free(r->row[i].dataset);
        mem_free(r->row[i].ground_truth);
    }
    mem_free(r->row);
    buf_fini(&r->text);
    *r = (struct rows){0};
}
