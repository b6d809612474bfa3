/* The safetensors format: 8 bytes little-endian header length, a JSON object, the data.
 *
 *     {"__metadata__":{"format":"pt"},
 *      "a.weight":{"dtype":"BF16","shape":[4,32],"data_offsets":[0,256]}, ...}   then spaces
 *
 * The JSON has so little freedom that a scanner of its own is shorter than checking a general tree,
 * and it needs no memory beyond a copy of the header (where the names stay, NUL-terminated in
 * place) and the tensor table. The shortest possible entry takes MIN_ENTRY bytes, so the table,
 * sized by the header's length before reading, stays below twice the header.
 *
 * Refused, each with its own message: any other key, nesting, escaped or non-ASCII names, numbers
 * that are not plain decimals, spans that overlap, leave gaps, run backwards or out of the file,
 * shapes that overflow or do not fit their span, bytes after the last tensor, duplicate names.
 */
#include "model/safetensors.h"
#include "base/guard.h"
#include "base/mem.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

enum {
    MIN_ENTRY = 49, /* "":{"dtype":"U8","shape":[],"data_offsets":[0,0]} without the comma */
    MAX_NAME = 256
};

_Static_assert(sizeof(struct st_tensor) <= 2 * MIN_ENTRY, "the table stays below twice the header");

struct st_file {
    struct file_map map;              /* p NULL when the bytes are borrowed */
    char *header;                     /* private copy: the names */
    struct st_tensor *tensor;         /* [n] in data order */
    const struct st_tensor **by_name; /* [n] */
    int n;
};

static const struct {
    const char *name;
    size_t size;
    enum dtype dtype;
} dtypes[] = {
    {"F32", 4, DT_F32},       {"F16", 2, DT_F16},       {"BF16", 2, DT_BF16},
    {"U8", 1, DT_U8},         {"BOOL", 1, DT_OTHER},    {"I8", 1, DT_OTHER},
    {"I16", 2, DT_OTHER},     {"U16", 2, DT_OTHER},     {"I32", 4, DT_OTHER},
    {"U32", 4, DT_OTHER},     {"I64", 8, DT_OTHER},     {"U64", 8, DT_OTHER},
    {"F64", 8, DT_OTHER},     {"F8_E4M3", 1, DT_OTHER}, {"F8_E5M2", 1, DT_OTHER},
    {"F8_E8M0", 1, DT_OTHER}, {"C64", 8, DT_OTHER},
};

size_t dtype_size(enum dtype t)
{
    return t == DT_OTHER ? 0 : dtypes[t].size;
}

const char *dtype_name(enum dtype t)
{
    return t == DT_OTHER ? "another type" : dtypes[t].name;
}

/* ---- the header scanner ---- */

struct scan {
    char *p, *end;     /* the copy of the header; *end is a NUL */
    const char *label; /* file name for messages */
    char *start;
    struct err *e;
};

static status bad(struct scan *s, const char *what)
{
    return err_set(s->e, E_FORMAT, "%s: header byte %zu: %s", s->label, (size_t)(s->p - s->start),
                   what);
}

static void blanks(struct scan *s)
{
    while (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t')
        s->p++;
}

static status expect(struct scan *s, char c, const char *what)
{
    blanks(s);
    if (*s->p != c)
        return bad(s, s->p == s->end ? "the header ends too early" : what);
    s->p++;
    blanks(s);
    return OK;
}

/* A name: printable ASCII without escapes, terminated in place. */
static status scan_name(struct scan *s, char **name)
{
    blanks(s);
    if (*s->p != '"')
        return bad(s, s->p == s->end ? "the header ends too early" : "expected a quoted name");
    *name = ++s->p;
    while (*s->p != '"') {
        if (s->p == s->end)
            return bad(s, "the header ends inside a name");
        if (*s->p == '\\')
            return bad(s, "escaped characters in a name");
        if (*s->p < 0x20 || *s->p > 0x7e)
            return bad(s, "a name with characters other than printable ASCII");
        if (s->p - *name >= MAX_NAME)
            return bad(s, "a name of more than 256 bytes");
        s->p++;
    }
    *s->p++ = '\0';
    return OK;
}

/* A string whose content does not matter. */
static status skip_string(struct scan *s)
{
    blanks(s);
    if (*s->p != '"')
        return bad(s, "expected a string in __metadata__");
    for (s->p++; *s->p != '"'; s->p++) {
        if (*s->p == '\\')
            s->p++;
        if (s->p >= s->end)
            return bad(s, "the header ends inside __metadata__");
        if ((unsigned char)*s->p < 0x20)
            return bad(s, "a control character in __metadata__");
    }
    s->p++;
    blanks(s);
    return OK;
}

/* {"key":"value", ...} */
static status skip_metadata(struct scan *s)
{
    status st = OK;
    TRY(expect(s, '{', "__metadata__ is not an object"));
    if (*s->p == '}') {
        s->p++;
        return OK;
    }
    do {
        TRY(skip_string(s));
        TRY(expect(s, ':', "expected ':' in __metadata__"));
        TRY(skip_string(s));
    } while (*s->p == ',' && s->p++);
    TRY(expect(s, '}', "expected '}' after __metadata__"));
out:
    return st;
}

/* A plain decimal in [0, 2^63). */
static status scan_number(struct scan *s, int64_t *v)
{
    blanks(s);
    if (*s->p == '-')
        return bad(s, "a negative number");
    if (*s->p < '0' || *s->p > '9')
        return bad(s, s->p == s->end ? "the header ends too early" : "expected a number");
    if (*s->p == '0' && s->p[1] >= '0' && s->p[1] <= '9')
        return bad(s, "a number with leading zeros");
    *v = 0;
    for (; *s->p >= '0' && *s->p <= '9'; s->p++)
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, *s->p - '0', v))
            return bad(s, "a number of 2^63 or more");
    if (*s->p == '.' || *s->p == 'e' || *s->p == 'E')
        return bad(s, "a number that is not an integer");
    blanks(s);
    return OK;
}

/* [n, n, ...] with at most `max` numbers. */
static status scan_numbers(struct scan *s, int64_t *v, int max, int *n)
{
    status st = OK;
    *n = 0;
    TRY(expect(s, '[', "expected a list of numbers"));
    if (*s->p != ']') {
        do {
            if (*n == max)
                return bad(s, "too many numbers in a list");
            TRY(scan_number(s, &v[(*n)++]));
        } while (*s->p == ',' && s->p++);
    }
    TRY(expect(s, ']', "expected ']' after a list of numbers"));
out:
    return st;
}

/* Checks dtype x shape against the span and fills the tensor. `room` is the data section's size. */
static status settle(struct scan *s, struct st_tensor *t, size_t size, const int64_t span[2],
                     const uint8_t *data, size_t room)
{
    if (span[0] > span[1])
        return err_param(s->e, E_FORMAT, t->name, "%s: tensor %s: its offsets run backwards",
                         s->label, t->name);
    if ((uint64_t)span[1] > room)
        return err_param(s->e, E_FORMAT, t->name,
                         "%s: tensor %s ends at byte %lld of %zu bytes of data", s->label, t->name,
                         (long long)span[1], room);
    size_t n = size;
    bool ok = true;
    for (int i = 0; i < t->n_dim && ok; i++)
        ok = mul_ok(n, (size_t)t->dim[i], &n);
    if (!ok)
        return err_param(s->e, E_FORMAT, t->name, "%s: tensor %s: its shape overflows", s->label,
                         t->name);
    if (n != (size_t)(span[1] - span[0]))
        return err_param(s->e, E_FORMAT, t->name,
                         "%s: tensor %s: its shape takes %zu bytes, its offsets span %lld",
                         s->label, t->name, n, (long long)(span[1] - span[0]));
    t->p = data + span[0];
    t->n_bytes = n;
    return OK;
}

/* {"dtype":..., "shape":[...], "data_offsets":[b,e]} in any order. */
static status scan_tensor(struct scan *s, struct st_tensor *t, const uint8_t *data, size_t room)
{
    status st = OK;
    bool have_dtype = false, have_shape = false, have_span = false;
    int64_t span[2] = {0, 0};
    size_t size = 0;
    TRY(expect(s, '{', "expected '{' after a tensor's name"));
    do {
        char *key;
        TRY(scan_name(s, &key));
        TRY(expect(s, ':', "expected ':'"));
        if (strcmp(key, "dtype") == 0 && !have_dtype) {
            char *name;
            TRY(scan_name(s, &name));
            for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
                if (strcmp(name, dtypes[i].name) == 0) {
                    size = dtypes[i].size;
                    t->dtype = dtypes[i].dtype;
                    have_dtype = true;
                }
            if (!have_dtype)
                return err_param(s->e, E_FORMAT, t->name, "%s: tensor %s: unknown type %.32s",
                                 s->label, t->name, name);
        } else if (strcmp(key, "shape") == 0 && !have_shape) {
            TRY(scan_numbers(s, t->dim, ST_MAX_DIM, &t->n_dim));
            have_shape = true;
        } else if (strcmp(key, "data_offsets") == 0 && !have_span) {
            int n;
            TRY(scan_numbers(s, span, 2, &n));
            if (n != 2)
                return bad(s, "data_offsets must be two numbers");
            have_span = true;
        } else {
            return bad(s, "a key that is unknown, or given twice, in a tensor's entry");
        }
        blanks(s);
    } while (*s->p == ',' && s->p++);
    TRY(expect(s, '}', "expected '}' after a tensor's entry"));
    if (!have_dtype || !have_shape || !have_span)
        return err_param(s->e, E_FORMAT, t->name,
                         "%s: tensor %s lacks one of dtype, shape, data_offsets", s->label,
                         t->name);
    TRY(settle(s, t, size, span, data, room));
out:
    return st;
}

static int cmp_data(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;
    if (x->p != y->p)
        return x->p < y->p ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int cmp_name(const void *a, const void *b)
{
    const struct st_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* In data order the spans must cover [data, data + room) exactly. */
static status check_cover(const struct st_file *f, const uint8_t *data, size_t room,
                          const char *label, struct err *e)
{
    const uint8_t *at = data;
    for (int i = 0; i < f->n; i++) {
        const struct st_tensor *t = &f->tensor[i];
        if (t->p < at)
            return err_param(e, E_FORMAT, t->name, "%s: tensor %s overlaps the one before it",
                             label, t->name);
        if (t->p > at)
            return err_param(e, E_FORMAT, t->name, "%s: a gap of %zu bytes before tensor %s", label,
                             (size_t)(t->p - at), t->name);
        at += t->n_bytes;
    }
    if (at != data + room)
        return err_set(e, E_FORMAT, "%s: %zu bytes after the last tensor", label,
                       (size_t)(data + room - at));
    return OK;
}

static status read_header(struct st_file *f, size_t n_header, const uint8_t *data, size_t room,
                          const char *label, struct err *e)
{
    status st = OK;
    struct scan s = {
        .p = f->header, .end = f->header + n_header, .label = label, .start = f->header, .e = e};
    if (*s.p != '{')
        return bad(&s, "expected '{'");
    TRY(expect(&s, '{', ""));
    bool have_metadata = false;
    if (*s.p != '}') {
        do {
            char *name;
            TRY(scan_name(&s, &name));
            TRY(expect(&s, ':', "expected ':'"));
            if (strcmp(name, "__metadata__") == 0) {
                if (have_metadata)
                    return bad(&s, "__metadata__ twice");
                have_metadata = true;
                TRY(skip_metadata(&s));
            } else {
                if (f->n == ST_MAX_TENSORS)
                    return err_set(e, E_FORMAT, "%s: more than %d tensors", label, ST_MAX_TENSORS);
                f->tensor[f->n].name = name;
                TRY(scan_tensor(&s, &f->tensor[f->n], data, room));
                f->n++;
            }
            blanks(&s);
        } while (*s.p == ',' && s.p++);
    }
    TRY(expect(&s, '}', "expected '}' at the end of the header"));
    if (s.p != s.end)
        return bad(&s, "text after the header's object");
    qsort(f->tensor, (size_t)f->n, sizeof *f->tensor, cmp_data);
    TRY(check_cover(f, data, room, label, e));
    f->by_name = mem_array((size_t)f->n, sizeof *f->by_name);
    if (!f->by_name)
        return err_set(e, E_NOMEM, "%s: out of memory", label);
    for (int i = 0; i < f->n; i++)
        f->by_name[i] = &f->tensor[i];
    qsort(f->by_name, (size_t)f->n, sizeof *f->by_name, cmp_name);
    for (int i = 1; i < f->n; i++)
        if (strcmp(f->by_name[i - 1]->name, f->by_name[i]->name) == 0)
            return err_param(e, E_FORMAT, f->by_name[i]->name, "%s: tensor %s is there twice",
                             label, f->by_name[i]->name);
out:
    return st;
}

/* Validates [p, p + n) into f. */
static status open_bytes(struct st_file *f, const uint8_t *p, size_t n, const char *label,
                         struct err *e)
{
    if (n < 8)
        return err_set(e, E_FORMAT, "%s: %zu bytes are no safetensors file", label, n);
    uint64_t n_header = 0;
    for (int i = 7; i >= 0; i--)
        n_header = n_header << 8 | p[i];
    if (n_header < 2)
        return err_set(e, E_FORMAT, "%s: the header is empty", label);
    if (n_header > n - 8)
        return err_set(e, E_FORMAT, "%s: a header of %llu bytes in a file of %zu: cut short?",
                       label, (unsigned long long)n_header, n);
    if (n_header > ST_MAX_HEADER)
        return err_set(e, E_FORMAT, "%s: a header of %llu bytes; at most %d are read", label,
                       (unsigned long long)n_header, ST_MAX_HEADER);
    f->header = mem_strndup((const char *)p + 8, (size_t)n_header);
    size_t most = (size_t)n_header / MIN_ENTRY + 1;
    f->tensor = f->header ? mem_calloc(most, sizeof *f->tensor) : NULL;
    if (!f->tensor)
        return err_set(e, E_NOMEM, "%s: out of memory reading the header", label);
    return read_header(f, (size_t)n_header, p + 8 + n_header, n - 8 - (size_t)n_header, label, e);
}

status st_open_memory(const uint8_t *p, size_t n, const char *label, struct st_file **out,
                      struct err *e)
{
    struct st_file *f = mem_calloc(1, sizeof *f);
    *out = NULL;
    if (!f)
        return err_set(e, E_NOMEM, "%s: out of memory", label);
    status st = open_bytes(f, p, n, label, e);
    if (st < 0)
        st_close(f);
    else
        *out = f;
    return st;
}

static status open_path(const char *path, bool copy, struct st_file **out, struct err *e)
{
    status st = OK;
    *out = NULL;
    struct st_file *f = mem_calloc(1, sizeof *f);
    if (!f)
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    TRY((copy ? file_copy : file_map)(path, &f->map, e));
    if (f->map.p && !copy)
        TRY(guard_add(f->map.p, f->map.n, path, e));
    TRY(open_bytes(f, f->map.p, f->map.n, path, e));
    *out = f;
    f = NULL;
out:
    st_close(f);
    if (st == E_INPUT) { /* a FIFO, device or folder where a checkpoint file should be */
        st = E_FORMAT;
        if (e)
            e->code = st;
    }
    return st;
}

status st_open(const char *path, struct st_file **out, struct err *e)
{
    return open_path(path, false, out, e);
}

status st_open_copy(const char *path, struct st_file **out, struct err *e)
{
    return open_path(path, true, out, e);
}

void st_close(struct st_file *f)
{
    if (!f)
        return;
    if (f->map.p)
        guard_remove(f->map.p);
    file_unmap(&f->map);
    mem_free(f->by_name);
    mem_free(f->tensor);
    mem_free(f->header);
    mem_free(f);
}

void st_release(const struct st_file *f, const void *p, size_t n)
{
    file_release(&f->map, p, n);
}

int st_count(const struct st_file *f)
{
    return f->n;
}

const struct st_tensor *st_at(const struct st_file *f, int i)
{
    return &f->tensor[i];
}

const struct st_tensor *st_find(const struct st_file *f, const char *name)
{
    struct st_tensor key = {.name = name};
    const struct st_tensor *want = &key;
    const struct st_tensor **hit =
        bsearch(&want, f->by_name, (size_t)f->n, sizeof *f->by_name, cmp_name);
    return hit ? *hit : NULL;
}

/* ---- writer ---- */

enum { DATA_ALIGN = 64 };

struct st_writer {
    struct file_new file;
    struct buf header;
    size_t declared, written;
    bool begun;
};

status st_writer_new(const char *path, struct st_writer **out, struct err *e)
{
    *out = NULL;
    struct st_writer *w = mem_calloc(1, sizeof *w);
    if (!w)
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    buf_init(&w->header, ST_MAX_HEADER);
    status st = file_begin(&w->file, path, e);
    if (st < 0) {
        st_writer_free(w);
        return st;
    }
    buf_puts(&w->header, "{\"__metadata__\":{\"format\":\"pt\"}");
    *out = w;
    return OK;
}

status st_declare(struct st_writer *w, const char *name, enum dtype t, const int64_t *dim,
                  int n_dim, struct err *e)
{
    size_t n = dtype_size(t), end;
    bool ok = !w->begun && n > 0 && n_dim >= 0 && n_dim <= ST_MAX_DIM && strlen(name) < MAX_NAME;
    for (int i = 0; i < n_dim && ok; i++)
        ok = dim[i] >= 0 && mul_ok(n, (size_t)dim[i], &n);
    if (!ok || !add_ok(w->declared, n, &end))
        return err_param(e, E_BUG, name, "tensor %s cannot be declared", name);
    buf_printf(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", name, dtype_name(t));
    for (int i = 0; i < n_dim; i++)
        buf_printf(&w->header, i ? ",%lld" : "%lld", (long long)dim[i]);
    buf_printf(&w->header, "],\"data_offsets\":[%zu,%zu]}", w->declared, end);
    w->declared = end;
    return OK;
}

status st_write_begin(struct st_writer *w, struct err *e)
{
    buf_putc(&w->header, '}');
    while ((w->header.n + 8) % DATA_ALIGN && w->header.st == OK)
        buf_putc(&w->header, ' ');
    status st = buf_status(&w->header);
    if (st < 0)
        return err_set(e, st, "%s: the header cannot be built: %s", w->file.path, err_name(st));
    uint8_t len[8];
    for (int i = 0; i < 8; i++)
        len[i] = (uint8_t)((uint64_t)w->header.n >> 8 * i);
    file_write(&w->file, len, sizeof len);
    file_write(&w->file, w->header.p, w->header.n);
    w->begun = true;
    return OK;
}

void st_write(struct st_writer *w, const void *p, size_t n)
{
    file_write(&w->file, p, n);
    w->written += n;
}

bool st_write_failed(const struct st_writer *w)
{
    return w->file.fault != 0;
}

status st_write_end(struct st_writer *w, struct err *e)
{
    if (!w->begun || (w->written != w->declared && !w->file.fault))
        return err_set(e, E_BUG, "%s: %zu bytes written of %zu declared", w->file.path, w->written,
                       w->declared);
    return file_commit(&w->file, e);
}

void st_writer_free(struct st_writer *w)
{
    if (!w)
        return;
    file_abort(&w->file);
    buf_fini(&w->header);
    mem_free(w);
}
