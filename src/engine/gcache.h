/* Compiled grammars by content, so that the schema that every request of an application brings is
 * compiled once. Bounded in bytes; the least recently used goes first. A hit is confirmed by
 * comparing the text. Safe for use from several threads; compiling happens outside the lock.
 */
#ifndef ENGINE_GCACHE_H
#define ENGINE_GCACHE_H

#include "engine/grammar.h"

struct gcache;

enum gcache_kind {
    GRAMMAR_SCHEMA, /* text: JSON Schema */
    GRAMMAR_REGEX,  /* text: a pattern for the whole output */
    GRAMMAR_CHOICE, /* text: a JSON list of strings */
    GRAMMAR_OBJECT  /* any JSON object; text empty */
};

/* `p` outlives the cache. max_bytes counts grammars and their texts. */
MUST_USE status gcache_new(const struct prelude *p, size_t max_bytes, struct gcache **c);
void gcache_free(struct gcache *c); /* NULL allowed */

/* A reference to the grammar of this text, compiled now if need be. Errors as in schema.h, and
 * E_INPUT for text that isn't JSON. */
MUST_USE status gcache_get(struct gcache *c, enum gcache_kind kind, const char *text, size_t n,
                           struct grammar **g, struct err *e);

struct gcache_stats {
    size_t bytes, n;
    uint64_t hits, misses, dropped;
};
void gcache_stats(struct gcache *c, struct gcache_stats *s);

#endif
