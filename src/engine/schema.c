/* How a schema becomes a grammar.
 *
 * The unit is a rule: a conjunction of schema objects, all of which a value must satisfy (allOf and
 * keywords beside $ref or anyOf make conjunctions of more than one). Rules are numbered at first
 * sight and compiled in that order, so recursion in the schema becomes a call in the grammar and
 * none in this program.
 *
 * Compiling a rule first expands $ref, allOf, anyOf and oneOf until only flat conjunctions are
 * left, one per combination of branches: "alternatives". Each is a rule of its own kind (a flat
 * one), so equal alternatives share their states. A branch that leads back to itself without
 * reading anything is dropped. A flat rule then becomes values, strings, numbers, arrays, objects.
 *
 *     {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "description": "x"}
 *        rule [schema]  ->  alternatives  flat [a], flat [null schema]
 */
#include "engine/schema.h"

#include "base/mem.h"
#include "engine/regex.h"

#include <stdio.h>
#include <string.h>

const struct json_limits schema_json_limits = {
    .max_bytes = 4u << 20, .max_depth = 128, .max_values = 200000};

enum {
    MAX_ALTERNATIVES = 2000, /* of one rule */
    MAX_RULES = 60000,
    RULE_STEPS = 150,  /* looking for some fifty keywords */
    MAX_WORDS = 20000, /* enum values, choices */
    MAX_WORD_BYTES = 1 << 20,
    MAX_VALUE_DEPTH = 64,
    MAX_ITEMS = 20000,  /* minItems, maxItems */
    MAX_COUNTED = 40000 /* states for minProperties and maxProperties */
};

struct sc {
    struct schema s;
    struct gbuild b;
    const struct prelude *p;
    struct gintern rule; /* keys: a word 1 (flat) or 0, then the nodes */
    uint32_t *start;     /* [rule.n] */
    size_t cap_start;
};

struct nodes {
    const struct json **v; /* [n] */
    size_t n, cap;
};

static status nodes_put(struct sc *c, struct nodes *l, const struct json *j)
{
    status st = OK;
    TRY(gwork_spend(c->s.w, 1));
    TRY(gwork_grow(c->s.w, &l->v, l->n + 1, &l->cap, sizeof *l->v));
    l->v[l->n++] = j;
out:
    return st;
}

static status rule(struct sc *c, const struct nodes *l, bool flat, uint32_t *start)
{
    status st = OK;
    struct nodes key = {0};
    uint32_t id;
    bool fresh;
    if (l->n == 0) {
        *start = c->p->any;
        return OK;
    }
    TRY(nodes_put(c, &key, flat ? (const struct json *)(const void *)c : NULL));
    for (size_t i = 0; i < l->n; i++)
        TRY(nodes_put(c, &key, l->v[i]));
    TRY(gintern_put(c->s.w, &c->rule, key.v, key.n * sizeof *key.v, &id, &fresh));
    if (fresh) {
        if (c->rule.n > MAX_RULES)
            return schema_fail(&c->s, E_LIMIT, l->v[0], NULL, "too many combined schemas");
        TRY(gwork_grow(c->s.w, &c->start, c->rule.n, &c->cap_start, sizeof *c->start));
        TRY(gbuild_state(&c->b, &c->start[id]));
    }
    *start = c->start[id];
out:
    return st;
}

/* ---- keywords ---- */

enum keyword { K_NOTE, K_LOCAL, K_APPLY, K_BAD };

static enum keyword keyword_kind(const char *key, const struct json *v)
{
    static const char *const local[] = {"type",
                                        "enum",
                                        "const",
                                        "nullable",
                                        "minimum",
                                        "maximum",
                                        "multipleOf",
                                        "exclusiveMinimum",
                                        "pattern",
                                        "format",
                                        "minLength",
                                        "exclusiveMaximum",
                                        "maxLength",
                                        "properties",
                                        "required",
                                        "additionalProperties",
                                        "minProperties",
                                        "items",
                                        "maxProperties",
                                        "prefixItems",
                                        "minItems",
                                        "maxItems",
                                        NULL};
    static const char *const apply[] = {"$ref", "allOf", "anyOf", "oneOf", NULL};
    static const char *const bad[] = {"not",
                                      "if",
                                      "then",
                                      "else",
                                      "dependentRequired",
                                      "dependentSchemas",
                                      "dependencies",
                                      "patternProperties",
                                      "propertyNames",
                                      "unevaluatedProperties",
                                      "unevaluatedItems",
                                      "contains",
                                      "minContains",
                                      "maxContains",
                                      "additionalItems",
                                      "$dynamicRef",
                                      "$recursiveRef",
                                      "uniqueItems",
                                      NULL};
    for (int i = 0; local[i]; i++)
        if (!strcmp(key, local[i]))
            return K_LOCAL;
    for (int i = 0; apply[i]; i++)
        if (!strcmp(key, apply[i]))
            return K_APPLY;
    for (int i = 0; bad[i]; i++)
        if (!strcmp(key, bad[i]))
            return !strcmp(key, "uniqueItems") && json_kind(v) == J_FALSE ? K_NOTE : K_BAD;
    return K_NOTE;
}

/* ---- expansion ---- */

struct seen {
    const struct json *node;
    int32_t parent; /* index in `seen`, -1: the rule itself */
};

/* A conjunction being expanded. */
struct item {
    struct nodes flat;
    struct seen *seen, *todo; /* expanded; still to expand */
    struct seen *some;        /* arrays of anyOf/oneOf whose branch is not chosen yet */
    size_t n_seen, n_todo, n_some, cap_seen, cap_todo, cap_some;
};

static status put_seen(struct sc *c, struct seen **v, size_t *n, size_t *cap, struct seen x)
{
    status st = OK;
    TRY(gwork_spend(c->s.w, 1));
    TRY(gwork_grow(c->s.w, v, *n + 1, cap, sizeof **v));
    (*v)[(*n)++] = x;
out:
    return st;
}

static status clone(struct sc *c, const struct item *from, struct item *to)
{
    status st = OK;
    *to = (struct item){0};
    for (size_t i = 0; i < from->flat.n; i++)
        TRY(nodes_put(c, &to->flat, from->flat.v[i]));
    for (size_t i = 0; i < from->n_seen; i++)
        TRY(put_seen(c, &to->seen, &to->n_seen, &to->cap_seen, from->seen[i]));
    for (size_t i = 0; i < from->n_some; i++)
        TRY(put_seen(c, &to->some, &to->n_some, &to->cap_some, from->some[i]));
out:
    return st;
}

/* Expands one schema of the item. *dead: nothing can satisfy the conjunction. */
static status expand_one(struct sc *c, struct item *it, struct seen t, bool *dead)
{
    status st = OK;
    enum json_kind k = json_kind(t.node);
    bool local = false;
    if (k == J_TRUE)
        return OK;
    if (k == J_FALSE) {
        *dead = true;
        return OK;
    }
    if (k != J_OBJ)
        return schema_fail(&c->s, E_INPUT, t.node, NULL, "a schema must be an object or a boolean");
    for (size_t i = 0; i < it->n_seen; i++) {
        TRY(gwork_spend(c->s.w, 1));
        if (it->seen[i].node != t.node)
            continue;
        for (int32_t up = t.parent; up >= 0 && !*dead; up = it->seen[up].parent)
            *dead = up == (int32_t)i; /* it leads back to itself */
        return OK;
    }
    int32_t me = (int32_t)it->n_seen;
    TRY(put_seen(c, &it->seen, &it->n_seen, &it->cap_seen, t));
    for (void *m = json_first(t.node); m; m = json_next(t.node, m)) {
        const char *key = json_key(m, NULL);
        const struct json *v = json_val(m), *target;
        TRY(gwork_spend(c->s.w, 4));
        switch (keyword_kind(key, v)) {
        case K_NOTE:
            break;
        case K_LOCAL:
            local = true;
            break;
        case K_BAD:
            return schema_fail(&c->s, E_INPUT, t.node, key, "\"%s\" is not supported", key);
        case K_APPLY:
            if (!strcmp(key, "$ref")) {
                TRY(schema_ref(&c->s, t.node, &target));
                TRY(put_seen(c, &it->todo, &it->n_todo, &it->cap_todo, (struct seen){target, me}));
                break;
            }
            if (json_kind(v) != J_ARR || !json_len(v))
                return schema_fail(&c->s, E_INPUT, t.node, key, "\"%s\" must be a non-empty list",
                                   key);
            if (strcmp(key, "allOf")) {
                TRY(put_seen(c, &it->some, &it->n_some, &it->cap_some, (struct seen){v, me}));
                break;
            }
            for (size_t i = json_len(v); i-- > 0;) /* taken from the end: first one first */
                TRY(put_seen(c, &it->todo, &it->n_todo, &it->cap_todo,
                             (struct seen){json_at(v, i), me}));
            break;
        }
    }
    if (local)
        TRY(nodes_put(c, &it->flat, t.node));
out:
    return st;
}

/* Every alternative of the rule becomes a flat rule that `start` goes on to. */
static status expand(struct sc *c, const struct nodes *l, uint32_t start)
{
    status st = OK;
    struct item *q = NULL;
    size_t n = 0, cap = 0, made = 0;
    TRY(gwork_grow(c->s.w, &q, 1, &cap, sizeof *q));
    q[n++] = (struct item){0};
    for (size_t i = l->n; i-- > 0;)
        TRY(put_seen(c, &q[0].todo, &q[0].n_todo, &q[0].cap_todo, (struct seen){l->v[i], -1}));
    while (n) {
        struct item it = q[--n];
        bool dead = false;
        while (it.n_todo && !dead)
            TRY(expand_one(c, &it, it.todo[--it.n_todo], &dead));
        if (dead)
            continue;
        if (it.n_some) {
            struct seen some = it.some[--it.n_some];
            for (size_t i = json_len(some.node); i-- > 0;) {
                struct item branch;
                if (++made > MAX_ALTERNATIVES)
                    return schema_fail(&c->s, E_LIMIT, l->v[0], NULL,
                                       "anyOf and oneOf combine to over %d alternatives",
                                       MAX_ALTERNATIVES);
                TRY(clone(c, &it, &branch));
                TRY(put_seen(c, &branch.todo, &branch.n_todo, &branch.cap_todo,
                             (struct seen){json_at(some.node, i), some.parent}));
                TRY(gwork_grow(c->s.w, &q, n + 1, &cap, sizeof *q));
                q[n++] = branch;
            }
            continue;
        }
        uint32_t flat;
        TRY(rule(c, &it.flat, true, &flat));
        TRY(gbuild_eps(&c->b, start, flat));
    }
out:
    return st;
}

/* ---- values named one by one ---- */

static status words_put(struct sc *c, struct gintern_item **w, size_t *n, size_t *cap,
                        size_t *bytes, const struct json *node, const char *key, struct buf *text)
{
    status st = OK;
    TRY(buf_status(text));
    *bytes += text->n;
    if (*n >= MAX_WORDS || *bytes > MAX_WORD_BYTES)
        return schema_fail(&c->s, E_LIMIT, node, key, "over %d values, or %d bytes of them",
                           MAX_WORDS, MAX_WORD_BYTES);
    TRY(gwork_spend(c->s.w, 8 + text->n));
    TRY(gwork_grow(c->s.w, w, *n + 1, cap, sizeof **w));
    void *copy;
    TRY(gwork_array(c->s.w, text->n + 1, 1, &copy));
    memcpy(copy, text->p, text->n);
    (*w)[(*n)++] = (struct gintern_item){.p = copy, .n = (uint32_t)text->n};
out:
    return st;
}

/* One array or object, with the usual white space. Recursion is as deep as the value. */
static status composite(struct sc *c, const struct json *node, const struct json *v, uint32_t from,
                        uint32_t to, int depth)
{
    status st = OK;
    struct gbuild *b = &c->b;
    struct buf text;
    bool obj = json_kind(v) == J_OBJ;
    uint32_t at, next, close;
    buf_init(&text, MAX_WORD_BYTES);
    if (depth > MAX_VALUE_DEPTH) {
        st = schema_fail(&c->s, E_LIMIT, node, NULL, "an enum or const value nested too deeply");
        goto out;
    }
    if (!obj && json_kind(v) != J_ARR) {
        json_dump(&text, v);
        TRY(buf_status(&text));
        TRY(gbuild_text(b, from, text.p, text.n, to));
        goto out;
    }
    TRY(gbuild_state(b, &at));
    TRY(gbuild_state(b, &close));
    TRY(gbuild_byte(b, from, obj ? '{' : '[', obj ? '{' : '[', at));
    TRY(gbuild_byte(b, close, obj ? '}' : ']', obj ? '}' : ']', to));
    void *it = json_first(v);
    for (size_t i = 0; i < json_len(v); i++) {
        const struct json *item = obj ? json_val(it) : json_at(v, i);
        TRY(gbuild_state(b, &next));
        TRY(gbuild_space(b, at, next));
        if (obj) {
            size_t n;
            const char *key = json_key(it, &n);
            buf_clear(&text);
            json_quote(&text, key, n);
            buf_putc(&text, ':');
            TRY(buf_status(&text));
            TRY(gbuild_state(b, &at));
            TRY(gbuild_text(b, next, text.p, text.n, at));
            TRY(gbuild_state(b, &next));
            TRY(gbuild_blank(b, at, next));
            it = json_next(v, it);
        }
        TRY(gbuild_state(b, &at));
        TRY(composite(c, node, item, next, at, depth + 1));
        if (i + 1 < json_len(v)) {
            TRY(gbuild_state(b, &next));
            TRY(gbuild_byte(b, at, ',', ',', next));
            at = next;
        }
    }
    TRY(gbuild_space(b, at, close));
out:
    buf_fini(&text);
    return st;
}

/* The values of the first const or enum that all schemas of the conjunction allow. */
static status enumerated(struct sc *c, const struct nodes *l, const struct json *node,
                         uint32_t start)
{
    status st = OK;
    const struct json *one = json_get(node, "const"), *list = json_get(node, "enum");
    struct gintern_item *w = NULL;
    size_t n = 0, cap = 0, bytes = 0, n_value = one ? 1 : json_len(list);
    struct buf text;
    buf_init(&text, MAX_WORD_BYTES);
    if (!one && (json_kind(list) != J_ARR || !n_value)) {
        st = schema_fail(&c->s, E_INPUT, node, "enum", "\"enum\" must be a non-empty list");
        goto out;
    }
    if (n_value > MAX_WORDS) {
        st = schema_fail(&c->s, E_LIMIT, node, "enum", "\"enum\" of over %d values", MAX_WORDS);
        goto out;
    }
    for (size_t i = 0; i < n_value; i++) {
        const struct json *v = one ? one : json_at(list, i);
        bool yes = true;
        for (size_t k = 0; k < l->n && yes; k++)
            if (l->n > 1 || json_len(node) > 1)
                TRY(schema_allows(&c->s, l->v[k], v, 0, &yes));
        if (!yes)
            continue;
        if (json_kind(v) == J_ARR || json_kind(v) == J_OBJ) {
            TRY(composite(c, node, v, start, c->p->end, 0));
            continue;
        }
        buf_clear(&text);
        json_dump(&text, v);
        TRY(words_put(c, &w, &n, &cap, &bytes, node, one ? "const" : "enum", &text));
    }
    if (n)
        TRY(gbuild_words(&c->b, start, w, n, c->p->end));
out:
    buf_fini(&text);
    return st;
}

/* ---- scalars ---- */

static status numbers(struct sc *c, const struct nodes *l, bool integer, uint32_t start)
{
    status st = OK;
    struct num_range r = {.integer = integer};
    struct chardfa d;
    uint32_t begin;
    for (size_t i = 0; i < l->n; i++)
        TRY(schema_numbers(&c->s, l->v[i], &r));
    if (!r.has_lo && !r.has_hi && !r.step) {
        TRY(gbuild_eps(&c->b, start, integer ? c->p->integer : c->p->number));
        return OK;
    }
    TRY(num_range_dfa(c->s.w, &r, &d));
    TRY(gbuild_dfa(&c->b, &d, false, c->p->end, &begin));
    TRY(gbuild_eps(&c->b, start, begin));
out:
    return st;
}

static status strings(struct sc *c, const struct nodes *l, uint32_t start)
{
    status st = OK;
    uint32_t min = 0, max = UINT32_MAX, begin;
    struct chardfa all, one, both;
    bool any = false, has;
    for (size_t i = 0; i < l->n; i++) {
        TRY(schema_counts(&c->s, l->v[i], "minLength", "maxLength", &min, &max));
        for (int k = 0; k < 2; k++) {
            TRY(schema_text(&c->s, l->v[i], k, &has, &one));
            if (!has)
                continue;
            if (any)
                TRY(chardfa_and(c->s.w, &all, &one, &both));
            all = any ? both : one;
            any = true;
        }
    }
    enum { ENDLESS = 1 << 24 }; /* longer than any context: the same as no limit */
    if (min >= ENDLESS)
        return schema_fail(&c->s, E_LIMIT, l->v[0], "minLength", "\"minLength\" is too large");
    if (max >= ENDLESS)
        max = UINT32_MAX;
    if (min > max)
        return OK;
    if (!any) {
        TRY(gbuild_string(&c->b, start, min, max));
        return OK;
    }
    if (min > 0 || max != UINT32_MAX) {
        TRY(chardfa_length(c->s.w, min, max, &one));
        TRY(chardfa_and(c->s.w, &all, &one, &both));
        all = both;
    }
    TRY(gbuild_dfa(&c->b, &all, true, c->p->end, &begin));
    TRY(gbuild_byte(&c->b, start, '"', '"', begin));
out:
    return st;
}

/* ---- arrays ---- */

/* The schemas that item i must satisfy. *last: all further items have the same. */
static status item_nodes(struct sc *c, const struct nodes *l, size_t i, struct nodes *out)
{
    status st = OK;
    *out = (struct nodes){0};
    for (size_t k = 0; k < l->n; k++) {
        const struct json *pre = json_get(l->v[k], "prefixItems");
        const struct json *j = i < json_len(pre) ? json_at(pre, i) : json_get(l->v[k], "items");
        if (j)
            TRY(nodes_put(c, out, j));
    }
out:
    return st;
}

static status arrays(struct sc *c, const struct nodes *l, uint32_t start)
{
    status st = OK;
    struct gbuild *b = &c->b;
    uint32_t min = 0, max = UINT32_MAX, n_pre = 0, open, first, elem, after, close, value;
    struct nodes want;
    for (size_t i = 0; i < l->n; i++) {
        const struct json *pre = json_get(l->v[i], "prefixItems");
        TRY(schema_counts(&c->s, l->v[i], "minItems", "maxItems", &min, &max));
        if (json_kind(json_get(l->v[i], "items")) == J_ARR)
            return schema_fail(&c->s, E_INPUT, l->v[i], "items",
                               "\"items\" as a list is not supported; use prefixItems");
        if (pre && json_kind(pre) != J_ARR)
            return schema_fail(&c->s, E_INPUT, l->v[i], "prefixItems",
                               "\"prefixItems\" must be a list");
        n_pre = json_len(pre) > n_pre ? (uint32_t)json_len(pre) : n_pre;
    }
    if (min > MAX_ITEMS || (max != UINT32_MAX && max > MAX_ITEMS))
        return schema_fail(&c->s, E_LIMIT, l->v[0], min > MAX_ITEMS ? "minItems" : "maxItems",
                           "more than %d items can't be counted", MAX_ITEMS);
    if (min > max)
        return OK;
    /* items from `loop` on are all alike and need no counting */
    uint32_t loop = max != UINT32_MAX ? max : min > n_pre ? min : n_pre;
    TRY(gbuild_state(b, &open));
    TRY(gbuild_state(b, &first));
    TRY(gbuild_state(b, &close));
    TRY(gbuild_byte(b, start, '[', '[', open));
    TRY(gbuild_space(b, open, first));
    TRY(gbuild_byte(b, close, ']', ']', c->p->end));
    if (min == 0)
        TRY(gbuild_eps(b, first, close));
    TRY(gbuild_state(b, &elem)); /* not `first`, which may close: a comma may come back here */
    TRY(gbuild_eps(b, first, elem));
    for (uint32_t i = 0; i < max; i++) {
        uint32_t comma, next;
        TRY(item_nodes(c, l, i, &want));
        TRY(rule(c, &want, false, &value));
        TRY(gbuild_state(b, &after));
        TRY(gbuild_call(b, elem, value, after));
        if (i + 1 >= min)
            TRY(gbuild_space(b, after, close));
        if (i + 1 >= max)
            break;
        TRY(gbuild_state(b, &comma));
        TRY(gbuild_byte(b, after, ',', ',', comma));
        if (i >= loop && max == UINT32_MAX) { /* elem begins an item like the next */
            TRY(gbuild_space(b, comma, elem));
            break;
        }
        TRY(gbuild_state(b, &next));
        TRY(gbuild_space(b, comma, next));
        elem = next;
    }
out:
    return st;
}

/* ---- objects ---- */

struct prop {
    const char *name;
    size_t n;
    struct nodes want;
    bool required;
};

struct object {
    struct prop *prop; /* [n] in the order they are written */
    size_t n, cap;
    struct nodes extra; /* schemas of further properties */
    bool open;          /* further ones are allowed */
    uint32_t min, max;
    struct gintern name; /* names to prop */
};

static status object_prop(struct sc *c, struct object *o, const char *name, size_t n,
                          struct prop **out)
{
    status st = OK;
    uint32_t id;
    bool fresh;
    TRY(gintern_put(c->s.w, &o->name, name, n, &id, &fresh));
    if (fresh) {
        TRY(gwork_grow(c->s.w, &o->prop, o->n + 1, &o->cap, sizeof *o->prop));
        o->prop[o->n++] = (struct prop){.name = name, .n = n};
    }
    *out = &o->prop[id];
out:
    return st;
}

static status object_read(struct sc *c, const struct nodes *l, struct object *o)
{
    status st = OK;
    bool any_props = false, said_open = false, closed = false;
    struct prop *p;
    for (size_t i = 0; i < l->n; i++) {
        const struct json *props = json_get(l->v[i], "properties"),
                          *req = json_get(l->v[i], "required"),
                          *extra = json_get(l->v[i], "additionalProperties");
        TRY(schema_counts(&c->s, l->v[i], "minProperties", "maxProperties", &o->min, &o->max));
        if (props && json_kind(props) != J_OBJ)
            return schema_fail(&c->s, E_INPUT, l->v[i], "properties",
                               "\"properties\" must be an object");
        if (req && json_kind(req) != J_ARR)
            return schema_fail(&c->s, E_INPUT, l->v[i], "required",
                               "\"required\" must be a list of strings");
        for (void *it = json_first(props); it; it = json_next(props, it)) {
            size_t n;
            const char *name = json_key(it, &n);
            TRY(object_prop(c, o, name, n, &p));
            any_props = true;
        }
        said_open |= extra && json_kind(extra) != J_FALSE;
        closed |= extra && json_kind(extra) == J_FALSE;
        if (extra)
            TRY(nodes_put(c, &o->extra, extra));
    }
    /* Nothing said: open if there are no properties, else closed (a choice; docs). */
    o->open = !closed && (said_open || !any_props);
    for (size_t i = 0; i < l->n; i++) {
        const struct json *req = json_get(l->v[i], "required");
        for (size_t k = 0; k < json_len(req); k++) {
            size_t n;
            if (json_kind(json_at(req, k)) != J_STR)
                return schema_fail(&c->s, E_INPUT, l->v[i], "required",
                                   "\"required\" must be a list of strings");
            const char *name = json_str(json_at(req, k), &n);
            TRY(object_prop(c, o, name, n, &p));
            p->required = true;
        }
    }
    /* A property must satisfy what each schema says of it: its own entry or the rule for others. */
    for (size_t k = 0; k < o->n; k++)
        for (size_t i = 0; i < l->n; i++) {
            const struct json *j = json_get(json_get(l->v[i], "properties"), o->prop[k].name);
            j = j ? j : json_get(l->v[i], "additionalProperties");
            if (j)
                TRY(nodes_put(c, &o->prop[k].want, j));
        }
out:
    return st;
}

/* `"name":` and an optional blank. */
static status object_key(struct sc *c, uint32_t from, const struct prop *p, uint32_t *value)
{
    status st = OK;
    struct buf text;
    uint32_t colon;
    buf_init(&text, MAX_WORD_BYTES);
    json_quote(&text, p->name, p->n);
    buf_putc(&text, ':');
    TRY(buf_status(&text));
    TRY(gbuild_state(&c->b, &colon));
    TRY(gbuild_state(&c->b, value));
    TRY(gbuild_text(&c->b, from, text.p, text.n, colon));
    TRY(gbuild_blank(&c->b, colon, *value));
out:
    buf_fini(&text);
    return st;
}

/* A string that is none of the named properties. */
static status extra_key(struct sc *c, const struct object *o, uint32_t *start)
{
    status st = OK;
    const char **name;
    size_t *len;
    struct chardfa d;
    uint32_t begin;
    if (!o->n) {
        *start = c->p->string;
        return OK;
    }
    TRY(gwork_array(c->s.w, o->n, sizeof *name, &name));
    TRY(gwork_array(c->s.w, o->n, sizeof *len, &len));
    for (size_t i = 0; i < o->n; i++) {
        name[i] = o->prop[i].name;
        len[i] = o->prop[i].n;
    }
    TRY(chardfa_except(c->s.w, name, len, o->n, &d));
    TRY(gbuild_dfa(&c->b, &d, true, c->p->end, &begin));
    TRY(gbuild_state(&c->b, start));
    TRY(gbuild_byte(&c->b, *start, '"', '"', begin));
out:
    return st;
}

static status objects(struct sc *c, const struct nodes *l, uint32_t start)
{
    status st = OK;
    struct gbuild *b = &c->b;
    struct object o = {.max = UINT32_MAX};
    uint32_t n_req = 0, open, first, close, *before, *after, value, key, colon;
    TRY(object_read(c, l, &o));
    for (size_t i = 0; i < o.n; i++)
        n_req += o.prop[i].required;
    /* Counting states only where the counts say something new. */
    bool max_says = o.open ? o.max != UINT32_MAX : o.max < o.n;
    uint32_t n_count = max_says ? o.max + 1 : o.min > n_req ? o.min + 1 : 1;
    if (o.min > o.max || n_req > o.max || (!o.open && o.min > o.n))
        return OK;
    if ((uint64_t)n_count * (o.n + 1) > MAX_COUNTED)
        return schema_fail(&c->s, E_LIMIT, l->v[0], max_says ? "maxProperties" : "minProperties",
                           "too many properties to count");
    /* before[i * n_count + k]: k properties written, the next is property i or a later one;
     * after[...]: property i - 1 was the last written. i = o.n: only further ones. */
    size_t n_state = (o.n + 1) * (size_t)n_count;
    TRY(gwork_array(c->s.w, n_state, sizeof *before, &before));
    TRY(gwork_array(c->s.w, n_state, sizeof *after, &after));
    for (size_t i = 0; i < n_state; i++) {
        TRY(gbuild_state(b, &before[i]));
        TRY(gbuild_state(b, &after[i]));
    }
    TRY(gbuild_state(b, &open));
    TRY(gbuild_state(b, &first));
    TRY(gbuild_state(b, &close));
    TRY(gbuild_byte(b, start, '{', '{', open));
    TRY(gbuild_space(b, open, first));
    TRY(gbuild_byte(b, close, '}', '}', c->p->end));
    TRY(gbuild_eps(b, first, before[0]));
    if (n_req == 0 && o.min == 0)
        TRY(gbuild_eps(b, first, close));
    uint32_t req_left = n_req;
    for (size_t i = 0; i <= o.n; i++) {
        uint32_t extra_start = 0, extra_value = 0;
        if (i < o.n)
            TRY(rule(c, &o.prop[i].want, false, &value));
        else if (o.open) {
            TRY(extra_key(c, &o, &extra_start));
            TRY(rule(c, &o.extra, false, &extra_value));
        }
        for (uint32_t k = 0; k < n_count; k++) {
            size_t at = i * n_count + k;
            bool full = max_says && k == o.max;
            uint32_t k1 = k + 1 < n_count ? k + 1 : k, comma;
            if (!full && i < o.n) {
                TRY(object_key(c, before[at], &o.prop[i], &key));
                TRY(gbuild_call(b, key, value, after[(i + 1) * n_count + k1]));
            }
            if (i < o.n && !o.prop[i].required)
                TRY(gbuild_eps(b, before[at], before[at + n_count]));
            if (!full && i == o.n && o.open) {
                TRY(gbuild_state(b, &key));
                TRY(gbuild_state(b, &colon));
                TRY(gbuild_state(b, &value));
                TRY(gbuild_call(b, before[at], extra_start, key));
                TRY(gbuild_byte(b, key, ':', ':', colon));
                TRY(gbuild_blank(b, colon, value));
                TRY(gbuild_call(b, value, extra_value, after[i * n_count + k1]));
            }
            if (req_left == 0 && (k >= o.min || n_count == 1))
                TRY(gbuild_space(b, after[at], close));
            TRY(gbuild_state(b, &comma));
            TRY(gbuild_byte(b, after[at], ',', ',', comma));
            TRY(gbuild_space(b, comma, before[at]));
        }
        if (i < o.n)
            req_left -= o.prop[i].required;
    }
out:
    return st;
}

/* ---- rules ---- */

/* The types that keywords of the node are about; 0 when there are none. */
static unsigned hinted(const struct json *node)
{
    static const struct {
        const char *key;
        unsigned type;
    } hint[] = {{"properties", T_OBJ},
                {"required", T_OBJ},
                {"additionalProperties", T_OBJ},
                {"minProperties", T_OBJ},
                {"maxProperties", T_OBJ},
                {"items", T_ARR},
                {"prefixItems", T_ARR},
                {"minItems", T_ARR},
                {"maxItems", T_ARR},
                {"pattern", T_STR},
                {"format", T_STR},
                {"minLength", T_STR},
                {"maxLength", T_STR},
                {"minimum", T_NUM | T_INT},
                {"maximum", T_NUM | T_INT},
                {"exclusiveMinimum", T_NUM | T_INT},
                {"exclusiveMaximum", T_NUM | T_INT},
                {"multipleOf", T_NUM | T_INT}};
    unsigned t = 0;
    for (size_t i = 0; i < sizeof hint / sizeof hint[0]; i++)
        if (json_get(node, hint[i].key))
            t |= hint[i].type;
    if (t && json_kind(json_get(node, "nullable")) == J_TRUE)
        t |= T_NULL;
    return t;
}

static status flat_rule(struct sc *c, const struct nodes *l, uint32_t start)
{
    status st = OK;
    unsigned types = T_ALL, t;
    bool given, any_given = false;
    TRY(gwork_spend(c->s.w, RULE_STEPS * l->n));
    for (size_t i = 0; i < l->n; i++)
        if (json_get(l->v[i], "const") || json_get(l->v[i], "enum")) {
            st = enumerated(c, l, l->v[i], start);
            if (st == OK && json_kind(json_get(l->v[i], "nullable")) == J_TRUE && l->n == 1)
                st = gbuild_eps(&c->b, start, c->p->null);
            return st;
        }
    for (size_t i = 0; i < l->n; i++) {
        TRY(schema_types(&c->s, l->v[i], &t, &given));
        types &= t;
        any_given |= given;
    }
    /* Without any "type", keywords of one type mean that type (a choice; docs). */
    for (size_t i = 0; i < l->n && !any_given; i++) {
        t = hinted(l->v[i]);
        if (t)
            types &= t;
    }
    if (types & T_NULL)
        TRY(gbuild_eps(&c->b, start, c->p->null));
    if (types & T_BOOL)
        TRY(gbuild_eps(&c->b, start, c->p->boolean));
    if (types & (T_INT | T_NUM))
        TRY(numbers(c, l, !(types & T_NUM), start));
    if (types & T_STR)
        TRY(strings(c, l, start));
    if (types & T_ARR)
        TRY(arrays(c, l, start));
    if (types & T_OBJ)
        TRY(objects(c, l, start));
out:
    return st;
}

status schema_compile(const struct prelude *p, const struct json *schema, struct grammar **g,
                      struct err *e)
{
    status st = OK;
    struct gwork w;
    struct sc c = {.p = p};
    uint32_t start;
    *g = NULL;
    gwork_init(&w, e);
    c.s = (struct schema){.w = &w, .root = schema};
    gbuild_init(&c.b, &w, p);
    if (!schema || (json_kind(schema) != J_OBJ && json_kind(schema) != J_TRUE)) {
        st = err_set(e, E_INPUT, "a schema must be an object");
        goto out;
    }
    const struct json *root[1] = {schema};
    TRY(rule(&c, &(struct nodes){.v = root, .n = 1}, false, &start));
    for (size_t i = 0; i < c.rule.n; i++) {
        struct nodes l = {0};
        const struct json **key = (const struct json **)(uintptr_t)c.rule.item[i].p;
        l.n = c.rule.item[i].n / sizeof *key - 1;
        TRY(gwork_array(&w, l.n, sizeof *l.v, &l.v));
        memcpy(l.v, key + 1, l.n * sizeof *l.v);
        TRY(key[0] ? flat_rule(&c, &l, c.start[i]) : expand(&c, &l, c.start[i]));
    }
    TRY(gbuild_finish(&c.b, start, g));
out:
    gwork_fini(&w);
    return st;
}

status schema_any_object(const struct prelude *p, struct grammar **g, struct err *e)
{
    status st = OK;
    struct gwork w;
    struct gbuild b;
    uint32_t start;
    *g = NULL;
    gwork_init(&w, e);
    gbuild_init(&b, &w, p);
    TRY(gbuild_state(&b, &start));
    TRY(gbuild_eps(&b, start, p->object));
    TRY(gbuild_finish(&b, start, g));
out:
    gwork_fini(&w);
    return st;
}

status schema_regex(const struct prelude *p, const char *s, size_t n, struct grammar **g,
                    struct err *e)
{
    status st = OK;
    struct gwork w;
    struct gbuild b;
    struct chardfa d;
    uint32_t start;
    *g = NULL;
    gwork_init(&w, e);
    gbuild_init(&b, &w, p);
    TRY(regex_compile(&w, s, n, true, &d));
    TRY(gbuild_dfa(&b, &d, false, p->end, &start));
    TRY(gbuild_finish(&b, start, g));
out:
    gwork_fini(&w);
    return st;
}

status schema_choice(const struct prelude *p, const char *const *s, const size_t *len, size_t n,
                     struct grammar **g, struct err *e)
{
    status st = OK;
    struct gwork w;
    struct gbuild b;
    struct gintern_item *word;
    uint32_t start;
    size_t bytes = 0;
    *g = NULL;
    gwork_init(&w, e);
    gbuild_init(&b, &w, p);
    for (size_t i = 0; i < n && i <= MAX_WORDS; i++)
        bytes += len[i];
    if (!n || n > MAX_WORDS || bytes > MAX_WORD_BYTES) {
        st = err_param(e, n ? E_LIMIT : E_INPUT, "choice",
                       "choices: from 1 to %d strings of together at most %d bytes", MAX_WORDS,
                       MAX_WORD_BYTES);
        goto out;
    }
    TRY(gwork_array(&w, n, sizeof *word, &word));
    for (size_t i = 0; i < n; i++)
        word[i] = (struct gintern_item){.p = s[i], .n = (uint32_t)len[i]};
    TRY(gbuild_state(&b, &start));
    TRY(gbuild_words(&b, start, word, n, p->end));
    TRY(gbuild_finish(&b, start, g));
out:
    gwork_fini(&w);
    return st;
}
