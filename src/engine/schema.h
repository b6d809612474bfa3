/* JSON Schema, patterns and lists of choices to grammars. The subset, with every deviation from the
 * standard, is docs/structured-output.md.
 *
 * Deterministic: the same text is always accepted or always refused. Errors: E_INPUT with the
 * keyword in the message and its JSON pointer as `param` for what is outside the subset or can't be
 * satisfied, E_LIMIT for what is too large, E_NOMEM. Nothing is fetched, no native recursion
 * follows the schema.
 */
#ifndef ENGINE_SCHEMA_H
#define ENGINE_SCHEMA_H

#include "base/json.h"
#include "engine/grammar.h"
#include "engine/schema_num.h"

/* Limits for parsing a client's schema text: 4 MiB, 128 levels, 200,000 values. */
extern const struct json_limits schema_json_limits;

MUST_USE status schema_compile(const struct prelude *p, const struct json *schema,
                               struct grammar **g, struct err *e);

/* Any JSON object. */
MUST_USE status schema_any_object(const struct prelude *p, struct grammar **g, struct err *e);

/* Text that matches the pattern from end to end. */
MUST_USE status schema_regex(const struct prelude *p, const char *s, size_t n, struct grammar **g,
                             struct err *e);

/* One of the n strings [n] with lengths. */
MUST_USE status schema_choice(const struct prelude *p, const char *const *s, const size_t *len,
                              size_t n, struct grammar **g, struct err *e);

/* ---- shared by schema.c and schema_check.c ---- */

enum {
    T_NULL = 1,
    T_BOOL = 2,
    T_INT = 4,
    T_NUM = 8, /* comes with T_INT */
    T_STR = 16,
    T_ARR = 32,
    T_OBJ = 64,
    T_ALL = 127
};

struct schema {
    struct gwork *w;
    const struct json *root;
};

/* The types a schema object's "type" and "nullable" name; T_ALL and *given = false without. */
MUST_USE status schema_types(struct schema *s, const struct json *node, unsigned *types,
                             bool *given);
/* Adds the node's numeric keywords to r. */
MUST_USE status schema_numbers(struct schema *s, const struct json *node, struct num_range *r);
/* Lower and upper bound of a pair of count keywords, each left alone when absent. */
MUST_USE status schema_counts(struct schema *s, const struct json *node, const char *min_key,
                              const char *max_key, uint32_t *min, uint32_t *max);
/* The automaton of "pattern" (0) or "format" (1); *has = false when it constrains nothing. */
MUST_USE status schema_text(struct schema *s, const struct json *node, int which, bool *has,
                            struct chardfa *d);
MUST_USE status schema_ref(struct schema *s, const struct json *node, const struct json **target);
/* Whether the value satisfies the schema. */
MUST_USE status schema_allows(struct schema *s, const struct json *node, const struct json *value,
                              int depth, bool *yes);
bool schema_equal(const struct json *a, const struct json *b, int depth);
/* An error about `key` of `node`. */
status schema_fail(struct schema *s, status code, const struct json *node, const char *key,
                   const char *fmt, ...) PRINTF_LIKE(5, 6);

#endif
