/* What one compilation may use: an arena with a ceiling and a count of steps.
 *
 * Schemas, patterns and tool lists come from clients, so every loop over them pays with
 * gwork_spend and every byte comes from the arena. Steps, not a clock, so that the same schema is
 * always accepted or always refused: GWORK_STEPS takes well under 200 ms on one core of 2020 or
 * later. All memory goes at once with gwork_fini.
 */
#ifndef ENGINE_GWORK_H
#define ENGINE_GWORK_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { GWORK_BYTES = 96 << 20, GWORK_STEPS = 2500000 };

struct gwork {
    struct arena a;
    uint64_t left; /* steps */
    struct err *e; /* may be NULL */
};

void gwork_init(struct gwork *w, struct err *e);
void gwork_fini(struct gwork *w);

/* E_LIMIT when the steps are used up. */
MUST_USE status gwork_spend(struct gwork *w, uint64_t steps);

/* Zeroed array; E_LIMIT at the ceiling, E_NOMEM. */
MUST_USE status gwork_array(struct gwork *w, size_t n, size_t size, void *out_ptr);

/* Makes *ptr (an array of *cap items in this arena) hold at least n: doubles and copies. */
MUST_USE status gwork_grow(struct gwork *w, void *ptr, size_t n, size_t *cap, size_t size);

/* Byte strings to dense numbers 0, 1, 2, ... in order of first sight. */
struct gintern_item {
    const void *p; /* [n] bytes, in the arena */
    uint32_t n, hash;
};
struct gintern {
    struct gintern_item *item; /* [n] */
    uint32_t *slot;            /* [n_slot] item + 1, 0: free */
    size_t n, cap, n_slot;
};
MUST_USE status gintern_put(struct gwork *w, struct gintern *t, const void *p, size_t n,
                            uint32_t *id, bool *fresh);

#endif
