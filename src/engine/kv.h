/* Who owns which page of the key/value cache.
 *
 * Two pools of page numbers (the bytes belong to the backend): one for the full-attention layers,
 * one for the sliding layers, whose pages are recycled as soon as no later row can see them. A
 * sequence has a page table for each; entry p / page_tok holds the page of position p, or -1.
 * Pages are reserved when a sequence is admitted, so a running one never lacks a page.
 * Called by the engine under its lock.
 */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "base/err.h"
#include "model/backend.h"

struct kv_pool {
    int32_t *free; /* [n] stack of free pages, the last used on top: its memory is warm */
    int n, n_free;
    int n_reserved; /* promised to running sequences but not yet taken */
};

struct kv {
    int page_tok, window;
    struct kv_pool full, win;
};

struct kv_seq {
    int32_t *full, *win; /* [n_entry] page tables */
    int n_entry;
    int n_full;              /* entries of full in use: 0 .. n_full-1 */
    int win_lo, win_hi;      /* entries of win in use */
    int rest_full, rest_win; /* reserved and not yet taken */
};

MUST_USE status kv_open(struct kv *kv, const struct kv_plan *plan, int window);
void kv_close(struct kv *kv);

/* Pages that a sequence of n_tok positions, fed at most `chunk` at a time, may hold at once. */
int kv_need_full(const struct kv *kv, int n_tok);
int kv_need_window(const struct kv *kv, int n_tok, int chunk);

/* Reserves pages for n_tok positions. E_BUSY when they aren't free now, E_NOMEM. */
MUST_USE status kv_admit(struct kv *kv, struct kv_seq *s, int n_tok, int chunk);
/* Makes positions [pos, pos + n) writable and those before, as far as they are visible, readable;
 * gives window pages back that no row from pos on can see. n must fit the reservation. */
void kv_advance(struct kv *kv, struct kv_seq *s, int pos, int n);
void kv_release(struct kv *kv, struct kv_seq *s);

#endif
