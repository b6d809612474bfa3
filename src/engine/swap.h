/* Pages of preempted sequences in the host's memory.
 *
 * A preempted sequence leaves its pages to the prefix cache, where others may soon take them.
 * Before that they are copied to places in the host's memory, if there are enough, and when the
 * sequence runs again, what the cache lost comes back from there instead of being computed again.
 * The places are the backend's (kv_swap in model/backend.h); this counts them and says what lies
 * where. Called by the engine thread alone.
 */
#ifndef ENGINE_SWAP_H
#define ENGINE_SWAP_H

#include "engine/kv.h"

struct swap {
    struct kv_pool full, win; /* places */
    struct page_pair *pair;   /* [places of both] */
    struct backend *backend;
    uint64_t n_out, n_in; /* pages */
};

/* Of one sequence. */
struct swapped {
    int32_t *full, *win; /* [n_entry] places, by table entry */
    int n;               /* positions that they hold; 0: none are taken */
    int n_page, win_lo;  /* entries in use: 0 .. n_page-1 of full, win_lo .. n_page-1 of win */
};

MUST_USE status swap_open(struct swap *w, const struct kv_plan *plan, struct backend *b);
void swap_close(struct swap *w);
MUST_USE status swapped_open(struct swapped *s, int n_entry);
void swapped_close(struct swapped *s); /* its places were given back before */

/* Copies what a sequence of n computed positions needs to go on. False: there are too few places.
 */
bool swap_out(struct swap *w, const struct kv *kv, const struct kv_seq *pages, int n,
              struct swapped *s);
/* Copies back what lies in table entries from `from` on, into pages that are there. */
void swap_in(struct swap *w, const struct kv_seq *pages, int from, const struct swapped *s);
/* Gives the places back. */
void swap_drop(struct swap *w, struct swapped *s);

#endif
