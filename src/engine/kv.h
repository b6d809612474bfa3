/* Pages of the key/value cache: two pools of page numbers, and each sequence's tables.
 *
 * One pool is for the full-attention layers, one for the sliding layers, whose pages a sequence
 * gives up as soon as no later row of it can see them. The bytes belong to the backend. A page is
 * counted once per holder (a sequence, the prefix cache) and is free again at zero. A page with
 * more than one holder is complete and never written again; so sharing needs no copies, but for the
 * incomplete last page when a sequence forks.
 *
 * Nothing is reserved: a sequence takes pages as it grows, and when none are free the engine makes
 * room (prefix.h evicts, sched.c preempts). Called by the engine thread alone.
 */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "base/err.h"
#include "model/backend.h"

#include <stdbool.h>

struct kv_pool {
    int32_t *free; /* [n] stack of free pages, the last given back on top: its memory is warm */
    int32_t *ref;  /* [n] holders */
    int n, n_free;
    int min_free; /* the fewest that ever were free */
};

struct kv {
    int page_tok, window;
    struct kv_pool full, win;
};

/* Entry p / page_tok of a table holds the page of position p, or -1. */
struct kv_seq {
    int32_t *full, *win; /* [n_entry] */
    int n_entry;
    int n_full;         /* entries of full in use: 0 .. n_full-1 */
    int win_lo, win_hi; /* entries of win in use */
    int n_node;         /* leading full pages that are nodes of the prefix cache */
};

MUST_USE status kv_pool_open(struct kv_pool *p, int n);
void kv_pool_close(struct kv_pool *p);
MUST_USE status kv_open(struct kv *kv, const struct kv_plan *plan, int window);
void kv_close(struct kv *kv);

int32_t kv_take(struct kv_pool *p); /* a free page with one holder, or -1 */
void kv_hold(struct kv_pool *p, int32_t page);
int kv_drop(struct kv_pool *p, int32_t page); /* holders left; the page is free at 0 */

/* Pages that n_tok positions need. */
int kv_pages(const struct kv *kv, int n_tok);
/* The first table entry of the sliding layers that a row at `pos` can see. */
int kv_first_visible(const struct kv *kv, int pos);
/* Most window pages that a sequence fed at most `chunk` positions at a time holds at once. */
int kv_window_pages(const struct kv *kv, int n_tok, int chunk);

/* Tables for n_tok positions, without pages. */
MUST_USE status kv_seq_open(const struct kv *kv, struct kv_seq *s, int n_tok);
void kv_seq_close(struct kv_seq *s); /* its pages were given back before */

#endif
