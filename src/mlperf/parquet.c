#include "mlperf/parquet.h"

#include "base/json.h"
#include "base/mem.h"
#include "mlperf/detok.h"
#include "mlperf/thrift.h"
#include "mlperf/unpack.h"

#include <string.h>

enum {
    DEPTH_MAX = 16,
    COLUMNS_MAX = 1024,
    PAGE_BYTES_MAX = 1 << 30,
    PAGE_VALUES_MAX = 1 << 27,
    ROWS_MAX = 1 << 28
};

/* Physical types, encodings and kinds of pages, as Parquet numbers them. */
enum { T_BOOL = 0, T_INT32 = 1, T_INT64 = 2, T_FLOAT = 4, T_DOUBLE = 5, T_BYTES = 6 };
enum { E_PLAIN = 0, E_PLAIN_DICT = 2, E_RLE = 3, E_RLE_DICT = 8 };
enum { P_DATA = 0, P_DICT = 2, P_DATA_V2 = 3 };

struct node { /* of the schema, depth first */
    int type, repetition, n_child, converted;
    const uint8_t *name; /* [n_name] */
    size_t n_name;
};

/* A column of the table. Definition levels tell what is there: a list from d_list on, an element
 * from d_elem on, its value at max_def; of a column without lists only the last counts. */
struct column {
    struct buf name; /* as JSON, with a colon */
    int type, d_list, d_elem, max_def;
    bool list, is_unsigned;
};

struct chunk { /* a column's part of a row group */
    int type, codec;
    int64_t n_value, n_byte, data_at, dict_at;
    bool elsewhere; /* in another file */
};

struct cell {
    union {
        int64_t i;
        double d;
        const uint8_t *p; /* [n] */
    };
    size_t n;
};

struct file {
    const uint8_t *p; /* [n] */
    size_t n;
    struct column *col; /* [n_col] */
    int n_col;
    struct chunk *chunk; /* [n_col] of the row group at hand */
    struct buf *out;
    size_t n_out, max_rows;
};

/* A column chunk while it is read: the cells of its rows as JSON. */
struct reader {
    const struct column *c;
    struct cell *dict; /* [n_dict] */
    size_t n_dict;
    uint8_t *dict_bytes; /* what they point into */
    struct buf *text;
    size_t *row_end; /* [n_row], room for cap */
    size_t n_row, cap, n_elem;
    bool open; /* inside a list */
};

static status broken(struct err *e, const char *what)
{
    return err_set(e, E_FORMAT, "not a sound Parquet file: %s", what);
}

static status no_memory(struct err *e)
{
    return err_set(e, E_NOMEM, "out of memory");
}

/* ---- numbers ---- */

static uint64_t little(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* n numbers of `bits` bits in Parquet's mix of runs and packed groups; false when they are cut. */
static bool hybrid(const uint8_t *p, const uint8_t *end, int bits, uint32_t *out, size_t n)
{
    struct thrift t = {p, end, false};
    size_t width = ((size_t)bits + 7) / 8;
    uint64_t mask = (1ull << bits) - 1;
    for (size_t i = 0; i < n;) {
        uint64_t head = thrift_varint(&t), count = head >> 1;
        size_t left = (size_t)(t.end - t.p);
        if (t.bad || count == 0)
            return false;
        if (head & 1) { /* groups of 8 numbers, low bits first */
            size_t take = count < (n - i + 7) / 8 ? (size_t)count * 8 : n - i;
            take = take < n - i ? take : n - i;
            if ((take * (size_t)bits + 7) / 8 > left)
                return false;
            for (size_t k = 0; k < take; k++) {
                size_t at = k * (size_t)bits, from = at / 8,
                       size = left - from < 8 ? left - from : 8;
                out[i + k] = (uint32_t)(little(t.p + from, size) >> at % 8 & mask);
            }
            uint64_t all = count * (uint64_t)bits;
            t.p += all < left ? (size_t)all : left;
            i += take;
        } else {
            if (width > left)
                return false;
            uint32_t v = (uint32_t)(little(t.p, width) & mask);
            t.p += width;
            for (uint64_t k = 0; k < count && i < n; k++)
                out[i++] = v;
        }
    }
    return true;
}

/* n plain values from [*p, end). */
static bool plain(int type, const uint8_t **p, const uint8_t *end, struct cell *out, size_t n)
{
    const uint8_t *q = *p;
    size_t size = type == T_INT32 || type == T_FLOAT ? 4 : 8;
    if (type == T_BOOL) {
        if ((n + 7) / 8 > (size_t)(end - q))
            return false;
        for (size_t i = 0; i < n; i++)
            out[i].i = q[i / 8] >> i % 8 & 1;
        *p = q + (n + 7) / 8;
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        size_t left = (size_t)(end - q);
        if (type == T_BYTES) {
            size_t len = left >= 4 ? (size_t)little(q, 4) : 0;
            if (left < 4 || len > left - 4)
                return false;
            out[i].p = q + 4;
            out[i].n = len;
            q += 4 + len;
            continue;
        }
        if (left < size)
            return false;
        uint64_t v = little(q, size);
        uint32_t half = (uint32_t)v;
        float f;
        q += size;
        if (type == T_DOUBLE) {
            memcpy(&out[i].d, &v, sizeof v);
        } else if (type == T_FLOAT) {
            memcpy(&f, &half, sizeof f);
            out[i].d = (double)f;
        } else {
            out[i].i = type == T_INT32 ? (int32_t)half : (int64_t)v;
        }
    }
    *p = q;
    return true;
}

/* ---- cells ---- */

static void put_int(struct buf *b, int64_t v, bool is_unsigned, bool small)
{
    char digits[24];
    int n = sizeof digits;
    bool minus = v < 0 && !is_unsigned;
    uint64_t u = minus ? 0 - (uint64_t)v : is_unsigned && small ? (uint32_t)v : (uint64_t)v;
    do
        digits[--n] = (char)('0' + u % 10);
    while ((u /= 10) > 0);
    if (minus)
        digits[--n] = '-';
    buf_put(b, digits + n, sizeof digits - (size_t)n);
}

static status put_text(struct buf *b, const struct cell *v, struct err *e)
{
    struct buf t;
    buf_init(&t, 3 * v->n + 3);
    detok_utf8(&t, (const char *)v->p, v->n);
    bool same = buf_status(&t) == OK && t.n == v->n && memcmp(t.p, v->p, v->n) == 0;
    if (same)
        json_quote(b, t.p, t.n);
    buf_fini(&t);
    return same ? OK : err_set(e, E_FORMAT, "holds bytes that are not text");
}

static status put_cell(struct reader *r, const struct cell *v, struct err *e)
{
    struct buf *b = r->text;
    switch (r->c->type) {
    case T_BOOL:
        buf_puts(b, v->i ? "true" : "false");
        break;
    case T_INT32:
    case T_INT64:
        put_int(b, v->i, r->c->is_unsigned, r->c->type == T_INT32);
        break;
    case T_FLOAT:
    case T_DOUBLE:
        json_put_num(b, v->d);
        break;
    default:
        return put_text(b, v, e);
    }
    return OK;
}

static void end_row(struct reader *r)
{
    if (r->open)
        buf_putc(r->text, ']');
    r->open = false;
    r->row_end[r->n_row++] = r->text->n;
}

/* One entry of the levels: a row, or an element of a list. v is NULL where there is no value. */
static status take_entry(struct reader *r, uint32_t rep, uint32_t def, const struct cell *v,
                         struct err *e)
{
    const struct column *c = r->c;
    if (rep == 0) {
        if (r->open)
            end_row(r);
        if (r->n_row == r->cap)
            return broken(e, "more rows in a column than in its group");
        if (c->list && (int)def >= c->d_list) {
            buf_putc(r->text, '[');
            r->open = true;
            r->n_elem = 0;
        }
    } else if (!r->open || (int)def < c->d_elem) {
        return broken(e, "an element without its list");
    }
    if (!c->list || !r->open || (int)def >= c->d_elem) {
        if (r->open && r->n_elem++ > 0)
            buf_putc(r->text, ',');
        status st = OK;
        if (v)
            st = put_cell(r, v, e);
        else
            buf_puts(r->text, "null");
        if (st < 0)
            return st;
    }
    if (!r->open)
        end_row(r);
    return buf_status(r->text) < 0 ? err_set(e, buf_status(r->text), "is too large") : OK;
}

/* ---- pages ---- */

struct page {
    int kind, encoding;
    int64_t n_packed, n_plain, n_value, n_def_byte, n_rep_byte;
    bool packed;
};

/* The struct inside a page's header that its kind has. */
static void read_inner(struct thrift *t, int which, struct page *h)
{
    int id = 0, type;
    while (thrift_field(t, &id, &type)) {
        bool v2 = which == 8;
        if (id == 1 && type == THRIFT_I32)
            h->n_value = thrift_int(t);
        else if (id == (v2 ? 4 : 2) && type == THRIFT_I32)
            h->encoding = (int)thrift_int(t);
        else if (v2 && id == 5 && type == THRIFT_I32)
            h->n_def_byte = thrift_int(t);
        else if (v2 && id == 6 && type == THRIFT_I32)
            h->n_rep_byte = thrift_int(t);
        else if (v2 && id == 7)
            h->packed = type == THRIFT_TRUE;
        else
            thrift_skip(t, type, DEPTH_MAX);
    }
}

static bool read_page(struct thrift *t, struct page *h)
{
    int id = 0, type;
    *h = (struct page){.kind = -1, .n_packed = -1, .n_plain = -1, .packed = true};
    while (thrift_field(t, &id, &type)) {
        if (id == 1 && type == THRIFT_I32)
            h->kind = (int)thrift_int(t);
        else if (id == 2 && type == THRIFT_I32)
            h->n_plain = thrift_int(t);
        else if (id == 3 && type == THRIFT_I32)
            h->n_packed = thrift_int(t);
        else if ((id == 5 || id == 7 || id == 8) && type == THRIFT_STRUCT)
            read_inner(t, id, h);
        else
            thrift_skip(t, type, DEPTH_MAX);
    }
    int64_t levels = h->n_def_byte + h->n_rep_byte;
    return !t->bad && h->n_packed >= 0 && h->n_packed <= t->end - t->p && h->n_plain >= 0 &&
           h->n_plain <= PAGE_BYTES_MAX && h->n_value >= 0 && h->n_value <= PAGE_VALUES_MAX &&
           h->n_def_byte >= 0 && h->n_rep_byte >= 0 && levels <= h->n_packed &&
           levels <= h->n_plain;
}

/* The page's bytes [h->n_plain] unpacked; NULL when they can't be. Levels of version 2 are never
 * packed. */
static uint8_t *page_bytes(const struct page *h, int codec, const uint8_t *p)
{
    size_t levels = (size_t)(h->n_def_byte + h->n_rep_byte), n = (size_t)h->n_plain;
    uint8_t *out = mem_alloc(n + 1);
    if (!out)
        return NULL;
    memcpy(out, p, levels);
    if (!unpack(h->packed ? codec : UNPACK_NONE, p + levels, (size_t)h->n_packed - levels,
                out + levels, n - levels)) {
        mem_free(out);
        return NULL;
    }
    return out;
}

/* Levels of `max` 0 or more; *p moves behind them. n_byte: their length in version 2, else -1. */
static status read_levels(const uint8_t **p, const uint8_t *end, int max, int64_t n_byte, size_t n,
                          uint32_t **out, struct err *e)
{
    const uint8_t *q = *p;
    size_t len = (size_t)n_byte;
    *out = mem_calloc(n, sizeof **out);
    if (!*out)
        return no_memory(e);
    if (max == 0) {
        *p += n_byte > 0 ? n_byte : 0;
        return OK;
    }
    if (n_byte < 0) {
        len = end - q >= 4 ? (size_t)little(q, 4) : SIZE_MAX;
        q += end - q >= 4 ? 4 : 0;
    }
    if (len > (size_t)(end - q) || !hybrid(q, q + len, max > 3 ? 3 : max > 1 ? 2 : 1, *out, n))
        return broken(e, "levels are cut");
    *p = q + len;
    return OK;
}

static status read_values(const struct reader *r, const struct page *h, const uint8_t *p,
                          const uint8_t *end, struct cell *v, size_t n, struct err *e)
{
    bool dict = h->encoding == E_PLAIN_DICT || h->encoding == E_RLE_DICT,
         rle = h->encoding == E_RLE && r->c->type == T_BOOL;
    if (h->encoding == E_PLAIN)
        return plain(r->c->type, &p, end, v, n) ? OK : broken(e, "values are cut");
    if (!dict && !rle)
        return err_set(e, E_FORMAT, "is in encoding %d, which gloss does not read", h->encoding);
    if (n == 0)
        return OK;
    uint32_t *at = mem_array(n, sizeof *at);
    if (!at)
        return no_memory(e);
    size_t skip = dict ? 1 : 4;
    int bits = !dict ? 1 : end > p ? p[0] : 64;
    bool ok = (size_t)(end - p) >= skip && bits <= 32 && hybrid(p + skip, end, bits, at, n);
    for (size_t i = 0; ok && i < n; i++) {
        if (!dict)
            v[i].i = at[i];
        else if (at[i] < r->n_dict)
            v[i] = r->dict[at[i]];
        else
            ok = false;
    }
    mem_free(at);
    return ok ? OK : broken(e, "values are cut or not in the dictionary");
}

static status data_page(struct reader *r, const struct page *h, const uint8_t *bytes, struct err *e)
{
    const uint8_t *p = bytes, *end = bytes + h->n_plain;
    size_t n = (size_t)h->n_value, n_full = 0;
    bool v2 = h->kind == P_DATA_V2;
    uint32_t *rep = NULL, *def = NULL;
    struct cell *v = NULL;
    status st = OK;
    TRY(read_levels(&p, end, r->c->list, v2 ? h->n_rep_byte : -1, n, &rep, e));
    TRY(read_levels(&p, end, r->c->max_def, v2 ? h->n_def_byte : -1, n, &def, e));
    for (size_t i = 0; i < n; i++)
        n_full += (int)def[i] == r->c->max_def;
    v = mem_array(n_full, sizeof *v);
    if (!v)
        TRY(no_memory(e));
    TRY(read_values(r, h, p, end, v, n_full, e));
    for (size_t i = 0, k = 0; i < n; i++) {
        bool full = (int)def[i] == r->c->max_def;
        TRY(take_entry(r, rep[i], def[i], full ? &v[k] : NULL, e));
        k += full;
    }
out:
    mem_free(rep);
    mem_free(def);
    mem_free(v);
    return st;
}

static status dict_page(struct reader *r, const struct page *h, uint8_t *bytes, struct err *e)
{
    const uint8_t *p = bytes;
    if (r->dict_bytes || (h->encoding != E_PLAIN && h->encoding != E_PLAIN_DICT)) {
        mem_free(bytes);
        return broken(e, "a dictionary of an unknown kind");
    }
    r->dict_bytes = bytes; /* texts point into it */
    r->dict = mem_array((size_t)h->n_value, sizeof *r->dict);
    if (!r->dict)
        return no_memory(e);
    if (!plain(r->c->type, &p, bytes + h->n_plain, r->dict, (size_t)h->n_value))
        return broken(e, "a dictionary is cut");
    r->n_dict = (size_t)h->n_value;
    return OK;
}

/* All pages of a chunk. */
static status read_chunk(const struct file *f, const struct chunk *k, struct reader *r,
                         struct err *e)
{
    int64_t at = k->dict_at > 0 && k->dict_at < k->data_at ? k->dict_at : k->data_at, seen = 0;
    status st = OK;
    if (k->elsewhere || k->type != r->c->type)
        return broken(e, "a chunk does not belong to its column");
    if (!unpack_known(k->codec))
        return err_set(e, E_FORMAT, "is compressed by codec %d, which gloss does not read",
                       k->codec);
    if (at < 0 || (uint64_t)at > f->n || k->n_byte < 0 || (uint64_t)k->n_byte > f->n - (uint64_t)at)
        return broken(e, "a chunk lies outside the file");
    struct thrift t = {f->p + at, f->p + at + k->n_byte, false};
    while (seen < k->n_value) {
        struct page h;
        if (!read_page(&t, &h))
            return broken(e, "a page's header");
        uint8_t *bytes = page_bytes(&h, k->codec, t.p);
        if (!bytes)
            return broken(e, "a page does not unpack");
        t.p += h.n_packed;
        if (h.kind == P_DICT) {
            st = dict_page(r, &h, bytes, e); /* takes the bytes */
            bytes = NULL;
        } else if (h.kind == P_DATA || h.kind == P_DATA_V2) {
            st = data_page(r, &h, bytes, e);
            seen += h.n_value;
        }
        mem_free(bytes);
        if (st < 0)
            return st;
    }
    if (r->open)
        end_row(r);
    return r->n_row == r->cap ? OK : broken(e, "fewer rows in a column than in its group");
}

/* ---- row groups ---- */

static void write_rows(struct file *f, struct reader *r, size_t n)
{
    for (size_t i = 0; i < n && (!f->max_rows || f->n_out < f->max_rows); i++, f->n_out++) {
        buf_putc(f->out, '{');
        for (int c = 0; c < f->n_col; c++) {
            size_t from = i ? r[c].row_end[i - 1] : 0;
            if (c)
                buf_putc(f->out, ',');
            buf_put(f->out, f->col[c].name.p, f->col[c].name.n);
            buf_put(f->out, r[c].text->p + from, r[c].row_end[i] - from);
        }
        buf_puts(f->out, "}\n");
    }
}

static status read_group(struct file *f, int64_t n_row, struct err *e)
{
    struct reader *r = mem_calloc((size_t)f->n_col, sizeof *r);
    struct buf *text = mem_array((size_t)f->n_col, sizeof *text);
    status st = OK;
    if (!r || !text) {
        mem_free(r);
        mem_free(text);
        return no_memory(e);
    }
    for (int i = 0; i < f->n_col; i++)
        buf_init(&text[i], f->out->max);
    for (int i = 0; i < f->n_col; i++) {
        struct err ce = {0};
        r[i].c = &f->col[i];
        r[i].text = &text[i];
        r[i].cap = (size_t)n_row;
        r[i].row_end = mem_array(r[i].cap, sizeof *r[i].row_end);
        if (!r[i].row_end)
            TRY(no_memory(e));
        st = read_chunk(f, &f->chunk[i], &r[i], &ce);
        if (st < 0)
            TRY(err_set(e, st, "column %.60s %.110s (scripts/convert_dataset.py converts any file)",
                        f->col[i].name.p, ce.msg));
    }
    write_rows(f, r, (size_t)n_row);
    if (buf_status(f->out) < 0)
        TRY(err_set(e, buf_status(f->out), "the table is too large"));
out:
    for (int i = 0; i < f->n_col; i++) {
        mem_free(r[i].row_end);
        mem_free(r[i].dict);
        mem_free(r[i].dict_bytes);
        buf_fini(&text[i]);
    }
    mem_free(r);
    mem_free(text);
    return st;
}

static void read_chunk_meta(struct thrift *t, struct chunk *k)
{
    int id = 0, type;
    while (thrift_field(t, &id, &type)) {
        if (id == 1 && type == THRIFT_I32)
            k->type = (int)thrift_int(t);
        else if (id == 4 && type == THRIFT_I32)
            k->codec = (int)thrift_int(t);
        else if (id == 5 && type == THRIFT_I64)
            k->n_value = thrift_int(t);
        else if (id == 7 && type == THRIFT_I64)
            k->n_byte = thrift_int(t);
        else if (id == 9 && type == THRIFT_I64)
            k->data_at = thrift_int(t);
        else if (id == 11 && type == THRIFT_I64)
            k->dict_at = thrift_int(t);
        else
            thrift_skip(t, type, DEPTH_MAX);
    }
}

/* The chunks of a group, in the order of the columns. */
static bool read_chunks(struct file *f, struct thrift *t)
{
    int type, id;
    size_t n = thrift_list(t, &type);
    if (n != (size_t)f->n_col || type != THRIFT_STRUCT)
        return false;
    for (size_t i = 0; i < n; i++) {
        f->chunk[i] = (struct chunk){.type = -1, .n_value = -1, .n_byte = -1, .data_at = -1};
        id = 0;
        while (thrift_field(t, &id, &type)) {
            if (id == 3 && type == THRIFT_STRUCT) {
                read_chunk_meta(t, &f->chunk[i]);
                continue;
            }
            f->chunk[i].elsewhere = f->chunk[i].elsewhere || id == 1;
            thrift_skip(t, type, DEPTH_MAX);
        }
    }
    return !t->bad;
}

static status read_groups(struct file *f, struct thrift *t, struct err *e)
{
    int type;
    size_t n = thrift_list(t, &type);
    for (size_t i = 0; i < n && (!f->max_rows || f->n_out < f->max_rows); i++) {
        int64_t n_row = -1;
        bool ok = true, chunks = false;
        int id = 0;
        while (ok && thrift_field(t, &id, &type)) {
            if (id == 1 && type == THRIFT_LIST)
                ok = chunks = read_chunks(f, t);
            else if (id == 3 && type == THRIFT_I64)
                n_row = thrift_int(t);
            else
                thrift_skip(t, type, DEPTH_MAX);
        }
        if (t->bad || !chunks || n_row < 0 || n_row > ROWS_MAX)
            return broken(e, "a row group");
        status st = read_group(f, n_row, e);
        if (st < 0)
            return st;
    }
    return OK;
}

/* ---- the schema ---- */

static bool read_node(struct thrift *t, struct node *x)
{
    int id = 0, type;
    *x = (struct node){.type = -1, .converted = -1};
    while (thrift_field(t, &id, &type)) {
        if (id == 1 && type == THRIFT_I32)
            x->type = (int)thrift_int(t);
        else if (id == 3 && type == THRIFT_I32)
            x->repetition = (int)thrift_int(t);
        else if (id == 4 && type == THRIFT_BINARY)
            x->name = thrift_binary(t, &x->n_name);
        else if (id == 5 && type == THRIFT_I32)
            x->n_child = (int)thrift_int(t);
        else if (id == 6 && type == THRIFT_I32)
            x->converted = (int)thrift_int(t);
        else
            thrift_skip(t, type, DEPTH_MAX);
    }
    return !t->bad && x->name && x->n_child >= 0 && x->repetition >= 0 && x->repetition <= 2;
}

/* Texts, JSON texts and whole numbers, or nothing said: not dates, times and decimals. */
static bool leaf_known(const struct node *x)
{
    static const int kinds[] = {-1, 0, 4, 19, 11, 12, 13, 14, 15, 16, 17, 18};
    bool known = false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        known = known || x->converted == kinds[i];
    return known && x->n_child == 0 &&
           (x->type == T_BOOL || x->type == T_INT32 || x->type == T_INT64 || x->type == T_FLOAT ||
            x->type == T_DOUBLE || x->type == T_BYTES);
}

/* The column whose nodes begin at x [n]; the number of its nodes, 0 for a shape that is not read.
 */
static int read_column(const struct node *x, size_t n, struct column *c)
{
    const struct node *leaf = x;
    int outer = x->repetition == 1, depth = 1;
    if (x->n_child == 0) {
        c->list = x->repetition == 2;
        c->d_elem = c->list;
        c->max_def = x->repetition > 0;
    } else {
        bool pair = n > 1 && x->n_child == 1 && x->repetition != 2 && x[1].repetition == 2,
             triple =
                 pair && n > 2 && x[1].n_child == 1 && x[2].n_child == 0 && x[2].repetition != 2;
        if (!pair || (x[1].n_child != 0 && !triple))
            return 0;
        depth = triple ? 3 : 2;
        leaf = &x[depth - 1];
        c->list = true;
        c->d_list = outer;
        c->d_elem = outer + 1;
        c->max_def = c->d_elem + (triple && leaf->repetition == 1);
    }
    c->type = leaf->type;
    c->is_unsigned = leaf->converted >= 11 && leaf->converted <= 14;
    return leaf_known(leaf) ? depth : 0;
}

static status read_schema(struct file *f, struct thrift *t, struct err *e)
{
    int type;
    size_t n = thrift_list(t, &type), i = 1;
    struct node *x = mem_array(n, sizeof *x);
    status st = OK;
    if (!x)
        TRY(no_memory(e));
    for (size_t k = 0; k < n; k++)
        if (type != THRIFT_STRUCT || !read_node(t, &x[k]))
            TRY(broken(e, "its schema"));
    if (n < 2 || x[0].n_child < 1 || x[0].n_child > COLUMNS_MAX || f->col)
        TRY(broken(e, "its schema has no columns, or too many"));
    f->col = mem_calloc((size_t)x[0].n_child, sizeof *f->col);
    f->chunk = mem_calloc((size_t)x[0].n_child, sizeof *f->chunk);
    if (!f->col || !f->chunk)
        TRY(no_memory(e));
    for (int k = 0; k < x[0].n_child; k++) {
        if (i >= n)
            TRY(broken(e, "its schema is cut"));
        struct column *c = &f->col[f->n_col++];
        struct cell name = {.p = x[i].name, .n = x[i].n_name};
        buf_init(&c->name, 1 << 20);
        TRY(put_text(&c->name, &name, e));
        int used = read_column(&x[i], n - i, c);
        if (used == 0)
            TRY(err_set(e, E_FORMAT,
                        "column %.80s has a type that gloss does not read from Parquet "
                        "(scripts/convert_dataset.py converts any file)",
                        c->name.p));
        buf_putc(&c->name, ':');
        TRY(buf_status(&c->name));
        i += (size_t)used;
    }
    if (i != n)
        TRY(broken(e, "its schema"));
out:
    mem_free(x);
    return st;
}

/* ---- the file ---- */

bool parquet_is(const uint8_t *p, size_t n)
{
    return n >= 12 && memcmp(p, "PAR1", 4) == 0;
}

status parquet_read(const uint8_t *p, size_t n, size_t max_rows, struct buf *out, struct err *e)
{
    struct file f = {.p = p, .n = n, .out = out, .max_rows = max_rows};
    int id = 0, type;
    status st = OK;
    size_t foot = n >= 12 ? (size_t)little(p + n - 8, 4) : SIZE_MAX;
    if (n < 12 || memcmp(p + n - 4, "PAR1", 4) != 0 || foot > n - 12)
        return broken(e, "its end is missing");
    struct thrift t = {p + n - 8 - foot, p + n - 8, false};
    while (thrift_field(&t, &id, &type)) {
        if (id == 2 && type == THRIFT_LIST)
            TRY(read_schema(&f, &t, e));
        else if (id == 4 && type == THRIFT_LIST && f.col)
            TRY(read_groups(&f, &t, e));
        else
            thrift_skip(&t, type, DEPTH_MAX);
    }
    if (!f.col || (t.bad && !(max_rows && f.n_out == max_rows)))
        TRY(broken(e, "its footer"));
out:
    for (int i = 0; i < f.n_col; i++)
        buf_fini(&f.col[i].name);
    mem_free(f.col);
    mem_free(f.chunk);
    return st;
}
