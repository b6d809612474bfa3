/* The prefix cache: what was computed for one request and may serve the next.
 *
 * A node is one complete page of the full layers: its page_tok token ids, the node before it, and
 * perhaps the page of the sliding layers for the same positions. Nodes form a tree; a path from a
 * root is a sequence's beginning. There is one root per tenant, so tenants never share. Lookup goes
 * through a hash table (SipHash with a random key, chained over the path), but a node is accepted
 * only when its parent is the one before and all its tokens are equal.
 *
 *     root(tenant) -- [0..31] -- [32..63] -- [64..95] -- [96..127] -- ...
 *                                    \------- [64'..95'] -- ...
 *
 * To go on from page-aligned position p a sequence needs every full page before p, but of the
 * sliding layers only the pages of the window-1 positions before p: a "snapshot", four pages with
 * a window of 128. The cache keeps window pages that stand before places where a later prompt is
 * likely to leave the path: marks (the harmony control tokens that begin and end messages), the end
 * of the prompt, the end of what was generated. A dropped analysis therefore costs the next turn
 * nothing but its own new tokens and at most one page.
 *
 * Pages are immutable once complete, so they are shared by counting holders; the node of a page has
 * the page's number. Invariants: a sequence that holds a node's page holds those of all its
 * ancestors; so a page whose one holder is the cache has no descendant in use, and eviction takes
 * leaves, least recently used first. The tree's memory is laid out at the start; nothing here
 * allocates later. Called by the engine thread alone.
 */
#ifndef ENGINE_PREFIX_H
#define ENGINE_PREFIX_H

#include "base/hash.h"
#include "engine/kv.h"

enum { PREFIX_MAX_MARK = 4, PREFIX_PAGE_TOK = 32 };

struct prefix_node;

struct prefix {
    struct kv *kv;
    bool on; /* off: pages are only counted, nothing is kept or found */
    struct hash_key key;
    uint64_t hash_mask; /* all ones; tests make collisions by clearing bits */
    int32_t mark[PREFIX_MAX_MARK];
    int n_mark;
    struct prefix_node *node; /* [n full pages] */
    int32_t *bucket;          /* [n_bucket] first node of the chain, or -1 */
    int n_bucket;             /* a power of two */
    int32_t *win_node;        /* [n window pages] node that keeps it, or -1 */
    struct {
        int32_t first, last; /* least recently used first */
    } idle_leaf, idle_win;
    uint64_t clock;
    int n_node, n_idle;    /* nodes; of them, held by nobody but the cache */
    int n_win, n_win_idle; /* window pages kept; of them, held by nobody else */
    uint64_t n_evict, n_evict_win;
};

MUST_USE status prefix_open(struct prefix *p, struct kv *kv, bool on, struct hash_key key);
void prefix_close(struct prefix *p);

/* What a sequence is to the cache. */
struct prefix_seq {
    uint64_t tenant;
    const int32_t *ids; /* [n_ids] prompt and what was generated */
    int n_ids, n_prompt;
    struct kv_seq *kv;
};

/* Gives an empty sequence the pages of its longest known beginning that can be continued; returns
 * the positions gained, a multiple of the page size and less than n_ids. */
int prefix_match(struct prefix *p, const struct prefix_seq *s);

/* Makes positions [pos, pos + n) writable, and gives up window pages that no row from pos on can
 * see. False when pages lack even after evicting everything idle; what was taken stays taken. */
bool prefix_extend(struct prefix *p, const struct prefix_seq *s, int pos, int n);

/* Positions below n_done are computed: complete pages become nodes (or give way to equal ones). */
void prefix_learn(struct prefix *p, const struct prefix_seq *s, int n_done);

/* The new empty sequence `to` gets what `from` computed, n_done positions. Complete pages are
 * shared; *copy_full and *copy_win are the page numbers of from's incomplete last page and those
 * of its copy, which the caller fills (from -1: nothing to copy). False when pages lack. */
struct prefix_copy {
    int32_t full_from, full_to, win_from, win_to;
};
bool prefix_fork(struct prefix *p, const struct kv_seq *from, struct kv_seq *to, int n_done,
                 struct prefix_copy *copy);

/* The sequence gives everything back; the snapshot before n_done is kept. */
void prefix_release(struct prefix *p, const struct prefix_seq *s, int n_done);

/* Free or evictable pages. */
int prefix_room(const struct prefix *p);
int prefix_room_window(const struct prefix *p);

/* Forgets everything idle. */
void prefix_clear(struct prefix *p);

#endif
