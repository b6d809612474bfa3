/* JSON in and out. The only user of jansson; the rest of gloss sees opaque nodes.
 *
 * json_parse refuses, before any tree is built, text larger, deeper or with more values than its
 * limits allow (a linear scan), and then invalid JSON, invalid UTF-8, duplicate keys and trailing
 * bytes. Objects keep the source order of their keys. Nodes inside a tree are borrowed: they live
 * as long as the root that json_parse returned. Numbers that a 64-bit integer can't hold as written
 * (fractions, exponents, "-0", more digits) keep their source text and count as J_REAL.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json; /* a node of a parsed tree */

struct json_limits {
    size_t max_bytes;
    int max_depth;
    size_t max_values;
};

/* 64 MiB, 128 levels, 4 M values: for files the user names. */
extern const struct json_limits json_limits_file;

enum json_kind { J_NULL, J_FALSE, J_TRUE, J_INT, J_REAL, J_STR, J_ARR, J_OBJ };

/* E_INPUT with line and column for bad JSON, E_LIMIT, E_NOMEM. Free with json_free. */
MUST_USE status json_parse(const char *text, size_t n, const struct json_limits *lim,
                           struct json **root, struct err *e);
void json_free(struct json *root); /* NULL allowed */

enum json_kind json_kind(const struct json *j); /* NULL counts as J_NULL */
static inline bool json_absent(const struct json *j)
{
    return json_kind(j) == J_NULL;
}

/* Member of an object; NULL when absent or `obj` is no object. */
const struct json *json_get(const struct json *obj, const char *key);
size_t json_len(const struct json *arr_or_obj);               /* 0 for anything else */
const struct json *json_at(const struct json *arr, size_t i); /* NULL when out of range */

/* Walks an object in source order:
 *     for (void *it = json_first(o); it; it = json_next(o, it)) json_key(it), json_val(it) */
void *json_first(const struct json *obj);
void *json_next(const struct json *obj, void *it);
const char *json_key(void *it, size_t *n); /* n may be NULL */
const struct json *json_val(void *it);

/* Values; the node must be of that type (J_INT counts as a number for json_num). */
const char *json_str(const struct json *j, size_t *n); /* NUL-terminated; n may be NULL */
int64_t json_int(const struct json *j);
double json_num(const struct json *j);
/* The source text of a J_REAL, NUL-terminated. */
const char *json_real_text(const struct json *j);

/* Typed getters with defaults for configuration files: absent or null gives *v unchanged; a wrong
 * type or range is E_INPUT with `param` = key. json_get_str borrows. */
MUST_USE status json_get_int(const struct json *obj, const char *key, int64_t lo, int64_t hi,
                             int64_t *v, struct err *e);
MUST_USE status json_get_num(const struct json *obj, const char *key, double lo, double hi,
                             double *v, struct err *e);
MUST_USE status json_get_bool(const struct json *obj, const char *key, bool *v, struct err *e);
MUST_USE status json_get_str(const struct json *obj, const char *key, const char **v,
                             struct err *e);

/* Appends the node as JSON: compact, source key order, non-ASCII as UTF-8, numbers as written. */
void json_dump(struct buf *b, const struct json *j);
/* Appends a quoted JSON string of valid UTF-8 (control characters and " \ escaped). */
void json_quote(struct buf *b, const char *s, size_t n);
/* Appends a number: shortest form that reads back to the same double; NaN and Inf become null. */
void json_put_num(struct buf *b, double v);

#endif
