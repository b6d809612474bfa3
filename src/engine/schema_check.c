/* Reading single keywords, and whether a given value satisfies a schema (for enum and const next to
 * other keywords). */
#include "engine/schema.h"

#include "base/num.h"
#include "engine/regex.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CHECK_DEPTH = 64, MAX_POINTER_DEPTH = 200 };

/* ---- errors that say where ---- */

/* Appends the path from `at` to `want` to b[*n]; false when it isn't below `at`. */
static bool find(const struct json *at, const struct json *want, char *b, size_t cap, size_t *n,
                 int depth)
{
    if (at == want)
        return true;
    if (depth > MAX_POINTER_DEPTH)
        return false;
    size_t had = *n;
    char part[48];
    if (json_kind(at) == J_OBJ) {
        for (void *it = json_first(at); it; it = json_next(at, it)) {
            int m = snprintf(part, sizeof part, "/%s", json_key(it, NULL));
            for (int i = 0; i < m && i < (int)sizeof part - 1 && *n + 1 < cap; i++)
                b[(*n)++] = part[i];
            if (find(json_val(it), want, b, cap, n, depth + 1))
                return true;
            *n = had;
        }
    } else if (json_kind(at) == J_ARR) {
        for (size_t i = 0; i < json_len(at); i++) {
            int m = snprintf(part, sizeof part, "/%zu", i);
            for (int k = 0; k < m && *n + 1 < cap; k++)
                b[(*n)++] = part[k];
            if (find(json_at(at, i), want, b, cap, n, depth + 1))
                return true;
            *n = had;
        }
    }
    return false;
}

status schema_fail(struct schema *s, status code, const struct json *node, const char *key,
                   const char *fmt, ...)
{
    char path[64], msg[256];
    size_t n = 1;
    path[0] = '#';
    if (!find(s->root, node, path, sizeof path - 1, &n, 0))
        n = 1;
    path[n] = '\0';
    if (key && n + 1 + strlen(key) < sizeof path)
        snprintf(path + n, sizeof path - n, "/%s", key);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return err_param(s->w->e, code, path, "schema at %s: %s", path, msg);
}

/* ---- keywords ---- */

static bool is_str(const struct json *j, const char *want)
{
    size_t n;
    if (json_kind(j) != J_STR)
        return false;
    const char *s = json_str(j, &n);
    return n == strlen(want) && memcmp(s, want, n) == 0;
}

static unsigned type_named(const struct json *j)
{
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = {{"null", T_NULL},          {"boolean", T_BOOL}, {"integer", T_INT},
                 {"number", T_NUM | T_INT}, {"string", T_STR},   {"array", T_ARR},
                 {"object", T_OBJ}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (is_str(j, types[i].name))
            return types[i].bits;
    return 0;
}

status schema_types(struct schema *s, const struct json *node, unsigned *types, bool *given)
{
    const struct json *t = json_get(node, "type");
    *types = T_ALL;
    *given = t != NULL;
    if (!t)
        return OK;
    *types = 0;
    size_t n = json_kind(t) == J_ARR ? json_len(t) : 1;
    for (size_t i = 0; i < n; i++) {
        unsigned bits = type_named(json_kind(t) == J_ARR ? json_at(t, i) : t);
        if (!bits)
            return schema_fail(s, E_INPUT, node, "type",
                               "\"type\" must be null, boolean, integer, number, string, array or "
                               "object, or a list of these");
        *types |= bits;
    }
    if (json_kind(json_get(node, "nullable")) == J_TRUE)
        *types |= T_NULL;
    return OK;
}

static status number_at(struct schema *s, const struct json *node, const char *key, bool *has,
                        struct decimal *d)
{
    const struct json *j = json_get(node, key);
    char text[32];
    *has = false;
    if (!j)
        return OK;
    if (json_kind(j) == J_INT) {
        snprintf(text, sizeof text, "%lld", (long long)json_int(j));
        decimal_parse(d, text);
    } else if (json_kind(j) == J_REAL) {
        decimal_parse(d, json_real_text(j));
    } else {
        return schema_fail(s, E_INPUT, node, key, "\"%s\" must be a number", key);
    }
    *has = true;
    return OK;
}

status schema_numbers(struct schema *s, const struct json *node, struct num_range *r)
{
    static const char *const keys[2][2] = {{"minimum", "exclusiveMinimum"},
                                           {"maximum", "exclusiveMaximum"}};
    status st = OK;
    struct decimal d;
    bool has;
    for (int k = 0; k < 2; k++) {
        void (*add)(struct num_range *, const struct decimal *, bool) =
            k ? num_range_hi : num_range_lo;
        /* draft 4: a boolean that changes the other keyword */
        enum json_kind flag = json_kind(json_get(node, keys[k][1]));
        bool old = json_get(node, keys[k][1]) && (flag == J_TRUE || flag == J_FALSE);
        TRY(number_at(s, node, keys[k][0], &has, &d));
        if (has)
            add(r, &d, old && flag == J_TRUE);
        if (old)
            continue;
        TRY(number_at(s, node, keys[k][1], &has, &d));
        if (has)
            add(r, &d, true);
    }
    TRY(number_at(s, node, "multipleOf", &has, &d));
    if (has && num_range_step(s->w, r, &d) < 0)
        return schema_fail(s, E_INPUT, node, "multipleOf",
                           "\"multipleOf\" must be above 0 with few digits");
    if (json_kind(json_get(node, "format")) == J_STR && is_str(json_get(node, "format"), "int32")) {
        decimal_parse(&d, "-2147483648");
        num_range_lo(r, &d, false);
        decimal_parse(&d, "2147483647");
        num_range_hi(r, &d, false);
    }
out:
    return st;
}

status schema_counts(struct schema *s, const struct json *node, const char *min_key,
                     const char *max_key, uint32_t *min, uint32_t *max)
{
    const char *keys[2] = {min_key, max_key};
    for (int k = 0; k < 2; k++) {
        const struct json *j = json_get(node, keys[k]);
        if (!j)
            continue;
        double v = json_kind(j) == J_INT || json_kind(j) == J_REAL ? json_num(j) : -1;
        if (v < 0 || v != floor(v))
            return schema_fail(s, E_INPUT, node, keys[k], "\"%s\" must be a whole number from 0 on",
                               keys[k]);
        uint32_t n = v < UINT32_MAX - 1 ? (uint32_t)v : UINT32_MAX - 1;
        if (k == 0 && n > *min)
            *min = n;
        if (k == 1 && n < *max)
            *max = n;
    }
    return OK;
}

#define YEAR "(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})"
#define LEAP "(?:(?:[02468][48]|[13579][26]|[2468]0)00|\\d\\d(?:0[48]|[2468][048]|[13579][26]))"
#define DATE                                                                                       \
    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|"  \
    "30)|02-(?:0[1-9]|1\\d|2[0-8]))|" LEAP "-02-29)"
#define TIME                                                                                       \
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,28}[A-Za-z0-9])?"
#define OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define H16 "[0-9a-fA-F]{1,4}"

/* The formats that are enforced, as patterns for the whole string. docs/structured-output.md lists
 * where they are narrower than their standards. */
static const struct {
    const char *name, *pattern; /* NULL: an annotation only */
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P(?:\\d{1,9}W|(?:\\d{1,9}Y(?:\\d{1,9}M(?:\\d{1,9}D)?)?|\\d{1,9}M(?:\\d{1,9}D)?|"
                 "\\d{1,9}D)(?:T(?:\\d{1,9}H(?:\\d{1,9}M(?:\\d{1,9}S)?)?|\\d{1,9}M(?:\\d{1,9}S)?|"
                 "\\d{1,9}S))?|T(?:\\d{1,9}H(?:\\d{1,9}M(?:\\d{1,9}S)?)?|\\d{1,9}M(?:\\d{1,9}S)?|"
                 "\\d{1,9}S))"},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"email", "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}(?:\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}){0,1}"
              "@" LABEL "(?:\\." LABEL "){1,6}"},
    {"hostname", LABEL "(?:\\." LABEL "){0,7}"},
    {"ipv4", OCTET "(?:\\." OCTET "){3}"},
    {"ipv6",
     "(?:" H16 ":){7}" H16 "|(?:" H16 ":){1,7}:|(?:" H16 ":){1,6}:" H16 "|(?:" H16 ":){1,5}(?::" H16
     "){2}|(?:" H16 ":){1,4}(?::" H16 "){3}|(?:" H16 ":){1,3}(?::" H16 "){4}|(?:" H16
     ":){1,2}(?::" H16 "){5}|" H16 ":(?::" H16 "){6}|:(?:(?::" H16 "){1,7}|:)"},
    {"uri", "[A-Za-z][A-Za-z0-9+.-]{0,30}:(?:[A-Za-z0-9._~:/?#\\[\\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
            "+"},
    {"byte", NULL},
    {"binary", NULL},
    {"password", NULL},
    {"text", NULL},
};

status schema_text(struct schema *s, const struct json *node, int which, bool *has,
                   struct chardfa *d)
{
    const char *key = which ? "format" : "pattern", *text;
    const struct json *j = json_get(node, key);
    size_t n;
    *has = false;
    if (!j)
        return OK;
    if (json_kind(j) != J_STR)
        return schema_fail(s, E_INPUT, node, key, "\"%s\" must be a string", key);
    text = json_str(j, &n);
    if (which) {
        for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
            if (!is_str(j, formats[i].name))
                continue;
            if (!formats[i].pattern)
                return OK;
            *has = true;
            return regex_compile(s->w, formats[i].pattern, strlen(formats[i].pattern), true, d);
        }
        return schema_fail(s, E_INPUT, node, key, "\"format\": \"%.40s\" is not supported", text);
    }
    *has = true;
    struct err inner = {0}, *outer = s->w->e;
    s->w->e = &inner;
    status st = regex_compile(s->w, text, n, false, d);
    s->w->e = outer;
    return st == E_INPUT || st == E_LIMIT ? schema_fail(s, st, node, key, "%s", inner.msg) : st;
}

status schema_ref(struct schema *s, const struct json *node, const struct json **target)
{
    const struct json *j = json_get(node, "$ref"), *at = s->root;
    size_t n;
    if (json_kind(j) != J_STR)
        return schema_fail(s, E_INPUT, node, "$ref", "\"$ref\" must be a string");
    const char *p = json_str(j, &n), *end = p + n;
    if (n == 0 || *p != '#')
        return schema_fail(s, E_INPUT, node, "$ref",
                           "\"$ref\" outside this schema is not supported (and never fetched)");
    p++;
    if (p < end && *p != '/')
        return schema_fail(s, E_INPUT, node, "$ref", "\"$ref\" must be # or a path like #/$defs/X");
    while (p < end && at) {
        char part[512];
        size_t k = 0;
        for (p++; p < end && *p != '/' && k + 1 < sizeof part; p++) {
            char c = *p;
            unsigned v;
            if (c == '%' && end - p > 2 && sscanf(p + 1, "%2x", &v) == 1) {
                c = (char)v;
                p += 2;
            }
            if (c == '~' && end - p > 1) {
                c = p[1] == '0' ? '~' : '/';
                p++;
            }
            part[k++] = c;
        }
        part[k] = '\0';
        if (json_kind(at) == J_ARR) {
            int64_t i;
            at = num_i64(part, 0, INT32_MAX, &i) == OK ? json_at(at, (size_t)i) : NULL;
        } else {
            at = json_get(at, part);
        }
    }
    if (!at)
        return schema_fail(s, E_INPUT, node, "$ref", "\"$ref\": \"%.60s\" leads nowhere",
                           json_str(j, NULL));
    *target = at;
    return gwork_spend(s->w, 1 + n);
}

/* ---- values ---- */

static bool is_num(enum json_kind k)
{
    return k == J_INT || k == J_REAL;
}

static void decimal_of(const struct json *v, struct decimal *d)
{
    char text[32];
    if (json_kind(v) == J_REAL) {
        decimal_parse(d, json_real_text(v));
        return;
    }
    snprintf(text, sizeof text, "%lld", (long long)json_int(v));
    decimal_parse(d, text);
}

bool schema_equal(const struct json *a, const struct json *b, int depth)
{
    enum json_kind ka = json_kind(a), kb = json_kind(b);
    if (is_num(ka) && is_num(kb)) {
        struct decimal x, y;
        decimal_of(a, &x);
        decimal_of(b, &y);
        return decimal_cmp(&x, &y) == 0;
    }
    if (ka != kb || depth > MAX_CHECK_DEPTH)
        return false;
    size_t na, nb;
    switch (ka) {
    case J_STR: {
        const char *x = json_str(a, &na), *y = json_str(b, &nb);
        return na == nb && memcmp(x, y, na) == 0;
    }
    case J_ARR:
        if (json_len(a) != json_len(b))
            return false;
        for (size_t i = 0; i < json_len(a); i++)
            if (!schema_equal(json_at(a, i), json_at(b, i), depth + 1))
                return false;
        return true;
    case J_OBJ:
        if (json_len(a) != json_len(b))
            return false;
        for (void *it = json_first(a); it; it = json_next(a, it)) {
            const struct json *v = json_get(b, json_key(it, NULL));
            if (!v || !schema_equal(json_val(it), v, depth + 1))
                return false;
        }
        return true;
    default:
        return true;
    }
}

static unsigned type_of(const struct json *v)
{
    struct decimal d;
    switch (json_kind(v)) {
    case J_NULL:
        return T_NULL;
    case J_FALSE:
    case J_TRUE:
        return T_BOOL;
    case J_INT:
        return T_INT;
    case J_REAL: /* 1.0 is an integer */
        decimal_of(v, &d);
        return d.n > d.n_int ? T_NUM : T_INT;
    case J_STR:
        return T_STR;
    case J_ARR:
        return T_ARR;
    default:
        return T_OBJ;
    }
}

static uint32_t n_chars(const char *s, size_t n)
{
    uint32_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += ((unsigned char)s[i] & 0xc0) != 0x80;
    return k;
}

static status allows_string(struct schema *s, const struct json *node, const struct json *v,
                            bool *yes)
{
    status st = OK;
    size_t n;
    const char *p = json_str(v, &n);
    uint32_t min = 0, max = UINT32_MAX, chars = n_chars(p, n);
    TRY(schema_counts(s, node, "minLength", "maxLength", &min, &max));
    *yes = chars >= min && chars <= max;
    for (int k = 0; k < 2 && *yes; k++) {
        struct chardfa d;
        bool has;
        TRY(schema_text(s, node, k, &has, &d));
        TRY(gwork_spend(s->w, n));
        *yes = !has || chardfa_match(&d, p, n);
    }
out:
    return st;
}

static status allows_array(struct schema *s, const struct json *node, const struct json *v,
                           int depth, bool *yes)
{
    status st = OK;
    uint32_t min = 0, max = UINT32_MAX;
    const struct json *pre = json_get(node, "prefixItems"), *items = json_get(node, "items");
    TRY(schema_counts(s, node, "minItems", "maxItems", &min, &max));
    *yes = json_len(v) >= min && json_len(v) <= max;
    for (size_t i = 0; i < json_len(v) && *yes; i++) {
        const struct json *want = i < json_len(pre) ? json_at(pre, i) : items;
        if (want)
            TRY(schema_allows(s, want, json_at(v, i), depth + 1, yes));
    }
out:
    return st;
}

static status allows_object(struct schema *s, const struct json *node, const struct json *v,
                            int depth, bool *yes)
{
    status st = OK;
    uint32_t min = 0, max = UINT32_MAX;
    const struct json *props = json_get(node, "properties"), *req = json_get(node, "required"),
                      *extra = json_get(node, "additionalProperties");
    TRY(schema_counts(s, node, "minProperties", "maxProperties", &min, &max));
    *yes = json_len(v) >= min && json_len(v) <= max;
    for (size_t i = 0; i < json_len(req) && *yes; i++)
        *yes = json_kind(json_at(req, i)) == J_STR && json_get(v, json_str(json_at(req, i), NULL));
    for (void *it = json_first(v); it && *yes; it = json_next(v, it)) {
        const struct json *want = json_get(props, json_key(it, NULL));
        want = want ? want : extra;
        if (want)
            TRY(schema_allows(s, want, json_val(it), depth + 1, yes));
    }
out:
    return st;
}

/* anyOf and oneOf: at least one, exactly one. */
static status allows_some(struct schema *s, const struct json *list, const struct json *v,
                          int depth, bool one, bool *yes)
{
    status st = OK;
    size_t n = 0;
    for (size_t i = 0; i < json_len(list); i++) {
        bool ok;
        TRY(schema_allows(s, json_at(list, i), v, depth + 1, &ok));
        n += ok;
    }
    *yes = one ? n == 1 : n > 0;
out:
    return st;
}

status schema_allows(struct schema *s, const struct json *node, const struct json *v, int depth,
                     bool *yes)
{
    status st = OK;
    unsigned types, t = type_of(v);
    bool given;
    const struct json *j, *target;
    *yes = json_kind(node) != J_FALSE;
    if (json_kind(node) != J_OBJ)
        return OK;
    TRY(gwork_spend(s->w, 1));
    if (depth > MAX_CHECK_DEPTH)
        return schema_fail(s, E_LIMIT, node, NULL, "nested too deeply around an enum or const");
    TRY(schema_types(s, node, &types, &given));
    *yes = types & t;
    if (*yes && (j = json_get(node, "const")))
        *yes = schema_equal(j, v, 0);
    if (*yes && (j = json_get(node, "enum"))) {
        *yes = false;
        for (size_t i = 0; i < json_len(j) && !*yes; i++) {
            TRY(gwork_spend(s->w, 1));
            *yes = schema_equal(json_at(j, i), v, 0);
        }
    }
    if (*yes && (t == T_INT || t == T_NUM)) {
        struct num_range r = {0};
        struct decimal d;
        TRY(schema_numbers(s, node, &r));
        decimal_of(v, &d);
        *yes = num_range_has(&r, &d);
    }
    if (*yes && t == T_STR)
        TRY(allows_string(s, node, v, yes));
    if (*yes && t == T_ARR)
        TRY(allows_array(s, node, v, depth, yes));
    if (*yes && t == T_OBJ)
        TRY(allows_object(s, node, v, depth, yes));
    if (*yes && json_get(node, "$ref")) {
        TRY(schema_ref(s, node, &target));
        TRY(schema_allows(s, target, v, depth + 1, yes));
    }
    j = json_get(node, "allOf");
    for (size_t i = 0; i < json_len(j) && *yes; i++)
        TRY(schema_allows(s, json_at(j, i), v, depth + 1, yes));
    if (*yes && (j = json_get(node, "anyOf")))
        TRY(allows_some(s, j, v, depth, false, yes));
    if (*yes && (j = json_get(node, "oneOf")))
        TRY(allows_some(s, j, v, depth, true, yes));
out:
    return st;
}
