/* Deterministic automata over characters (Unicode scalar values): what patterns, formats, lengths
 * and number ranges become before they are spelt in bytes.
 *
 * All live in the arena of the compilation that made them. State 0 starts; no states at all means
 * that nothing matches. After chardfa_trim every state left with edges or acceptance leads to an
 * accepting one.
 */
#ifndef ENGINE_CHARDFA_H
#define ENGINE_CHARDFA_H

#include "engine/gwork.h"

enum { CHAR_MAX_CP = 0x10ffff, CHARDFA_STATES = 1 << 16 };

struct char_edge {
    uint32_t lo, hi, to; /* characters lo..hi; never a surrogate */
};

struct chardfa {
    uint32_t n;             /* states */
    uint32_t *at;           /* [n + 1] first edge of a state */
    struct char_edge *edge; /* [at[n]] per state sorted by lo, disjoint */
    uint8_t *accept;        /* [n] */
    size_t cap_at, cap_edge, cap_accept;
};

/* Building: begin a state (they are numbered in order), then give its edges in order of lo. */
MUST_USE status chardfa_state(struct gwork *w, struct chardfa *d, bool accept);
MUST_USE status chardfa_edge(struct gwork *w, struct chardfa *d, uint32_t lo, uint32_t hi,
                             uint32_t to);

/* Removes every edge to a state from which nothing is accepted; d->n = 0 if that is state 0. */
MUST_USE status chardfa_trim(struct gwork *w, struct chardfa *d);

/* Both at once; trimmed. */
MUST_USE status chardfa_and(struct gwork *w, const struct chardfa *a, const struct chardfa *b,
                            struct chardfa *out);

/* Strings of min..max characters; max UINT32_MAX: no limit. */
MUST_USE status chardfa_length(struct gwork *w, uint32_t min, uint32_t max, struct chardfa *out);

/* Every string except the n given ones (UTF-8, any order). */
MUST_USE status chardfa_except(struct gwork *w, const char *const *s, const size_t *len, size_t n,
                               struct chardfa *out);

/* Whether the UTF-8 string is accepted. */
bool chardfa_match(const struct chardfa *d, const char *s, size_t n);

/* True for an accepting state that stays in itself on every character. */
bool chardfa_is_free(const struct chardfa *d, uint32_t state);

#endif
