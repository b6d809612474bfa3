#include "engine/prefix.h"
#include "base/mem.h"
#include "base/num.h"

#include <string.h>

enum { NOT_A_NODE = -2, ROOT = -1 };

/* A node's place in a list of idle ones. */
struct link {
    uint64_t stamp; /* when it was given back */
    int32_t prev, next;
    bool in;
};

struct prefix_node {
    uint64_t hash, tenant;
    int32_t parent; /* ROOT, NOT_A_NODE when this page is none */
    int32_t next;   /* in its bucket */
    int32_t n_child;
    int32_t win; /* window page, or -1 */
    struct link leaf, idle_win;
    int32_t tok[PREFIX_PAGE_TOK];
};

status prefix_open(struct prefix *p, struct kv *kv, bool on, struct hash_key key)
{
    ASSERT(kv->page_tok == PREFIX_PAGE_TOK);
    *p = (struct prefix){.kv = kv,
                         .on = on,
                         .key = key,
                         .hash_mask = ~(uint64_t)0,
                         .n_bucket = 1,
                         .idle_leaf = {-1, -1},
                         .idle_win = {-1, -1}};
    while (p->n_bucket < kv->full.n)
        p->n_bucket *= 2;
    p->node = mem_array((size_t)kv->full.n, sizeof *p->node);
    p->bucket = mem_array((size_t)p->n_bucket, sizeof *p->bucket);
    p->win_node = mem_array((size_t)kv->win.n, sizeof *p->win_node);
    if (!p->node || !p->bucket || !p->win_node) {
        prefix_close(p);
        return E_NOMEM;
    }
    for (int i = 0; i < kv->full.n; i++)
        p->node[i].parent = NOT_A_NODE;
    for (int i = 0; i < p->n_bucket; i++)
        p->bucket[i] = -1;
    for (int i = 0; i < kv->win.n; i++)
        p->win_node[i] = -1;
    return OK;
}

void prefix_close(struct prefix *p)
{
    mem_free(p->node);
    mem_free(p->bucket);
    mem_free(p->win_node);
    *p = (struct prefix){0};
}

/* ---- lists of idle nodes, oldest first ---- */

static struct link *link_of(struct prefix *p, bool win, int32_t i)
{
    return win ? &p->node[i].idle_win : &p->node[i].leaf;
}

static void idle_remove(struct prefix *p, bool win, int32_t i)
{
    struct link *l = link_of(p, win, i);
    int32_t *first = win ? &p->idle_win.first : &p->idle_leaf.first;
    int32_t *last = win ? &p->idle_win.last : &p->idle_leaf.last;
    if (!l->in)
        return;
    *(l->prev < 0 ? first : &link_of(p, win, l->prev)->next) = l->next;
    *(l->next < 0 ? last : &link_of(p, win, l->next)->prev) = l->prev;
    l->in = false;
}

/* By stamp. A node given back just now is the youngest, so the walk from that end is short; only
 * a parent that lost its last child may lie further back. */
static void idle_insert(struct prefix *p, bool win, int32_t i)
{
    struct link *l = link_of(p, win, i);
    int32_t *first = win ? &p->idle_win.first : &p->idle_leaf.first;
    int32_t *last = win ? &p->idle_win.last : &p->idle_leaf.last;
    int32_t before = *last;
    while (before >= 0 && link_of(p, win, before)->stamp > l->stamp)
        before = link_of(p, win, before)->prev;
    l->prev = before;
    l->next = before < 0 ? *first : link_of(p, win, before)->next;
    l->in = true;
    *(l->prev < 0 ? first : &link_of(p, win, l->prev)->next) = i;
    *(l->next < 0 ? last : &link_of(p, win, l->next)->prev) = i;
}

/* ---- holders ---- */

static bool is_node(const struct prefix *p, int32_t page)
{
    return p->node[page].parent != NOT_A_NODE;
}

static void full_hold(struct prefix *p, int32_t page)
{
    if (is_node(p, page) && p->kv->full.ref[page] == 1) {
        p->n_idle--;
        idle_remove(p, false, page);
    }
    kv_hold(&p->kv->full, page);
}

static void full_drop(struct prefix *p, int32_t page)
{
    if (kv_drop(&p->kv->full, page) != 1 || !is_node(p, page))
        return;
    p->n_idle++;
    p->node[page].leaf.stamp = ++p->clock;
    if (p->node[page].n_child == 0)
        idle_insert(p, false, page);
}

static void win_hold(struct prefix *p, int32_t page)
{
    int32_t i = p->win_node[page];
    if (i >= 0 && p->kv->win.ref[page] == 1) {
        p->n_win_idle--;
        idle_remove(p, true, i);
    }
    kv_hold(&p->kv->win, page);
}

static void win_drop(struct prefix *p, int32_t page)
{
    int32_t i = p->win_node[page];
    if (kv_drop(&p->kv->win, page) != 1 || i < 0)
        return;
    p->n_win_idle++;
    p->node[i].idle_win.stamp = ++p->clock;
    idle_insert(p, true, i);
}

/* ---- eviction ---- */

static void forget_window(struct prefix *p, int32_t i)
{
    int32_t page = p->node[i].win;
    ASSERT(p->kv->win.ref[page] == 1);
    idle_remove(p, true, i);
    p->n_win--;
    p->n_win_idle--;
    p->win_node[page] = -1;
    p->node[i].win = -1;
    kv_drop(&p->kv->win, page);
}

static void forget_leaf(struct prefix *p, int32_t i)
{
    struct prefix_node *n = &p->node[i];
    if (n->win >= 0)
        forget_window(p, i);
    idle_remove(p, false, i);
    int32_t *at = &p->bucket[n->hash & (uint64_t)(p->n_bucket - 1)];
    while (*at != i)
        at = &p->node[*at].next;
    *at = n->next;
    int32_t parent = n->parent;
    n->parent = NOT_A_NODE;
    p->n_node--;
    p->n_idle--;
    kv_drop(&p->kv->full, i);
    if (parent != ROOT && --p->node[parent].n_child == 0 && p->kv->full.ref[parent] == 1)
        idle_insert(p, false, parent);
}

static bool evict(struct prefix *p)
{
    if (p->idle_leaf.first < 0)
        return false;
    forget_leaf(p, p->idle_leaf.first);
    p->n_evict++;
    return true;
}

static bool evict_window(struct prefix *p)
{
    if (p->idle_win.first < 0)
        return false;
    forget_window(p, p->idle_win.first);
    p->n_evict_win++;
    return true;
}

static int32_t take_full(struct prefix *p)
{
    while (p->kv->full.n_free == 0 && evict(p))
        ;
    return kv_take(&p->kv->full);
}

static int32_t take_win(struct prefix *p)
{
    while (p->kv->win.n_free == 0 && evict_window(p))
        ;
    return kv_take(&p->kv->win);
}

int prefix_room(const struct prefix *p)
{
    return p->kv->full.n_free + p->n_idle;
}

int prefix_room_window(const struct prefix *p)
{
    return p->kv->win.n_free + p->n_win_idle;
}

void prefix_clear(struct prefix *p)
{
    while (p->idle_leaf.first >= 0)
        forget_leaf(p, p->idle_leaf.first);
}

/* ---- lookup ---- */

static uint64_t hash_root(const struct prefix *p, uint64_t tenant)
{
    return hash_sip(p->key, &tenant, sizeof tenant);
}

static uint64_t hash_next(const struct prefix *p, uint64_t before, const int32_t *tok)
{
    struct {
        uint64_t before;
        int32_t tok[PREFIX_PAGE_TOK];
    } in = {.before = before};
    memcpy(in.tok, tok, sizeof in.tok);
    return hash_sip(p->key, &in, sizeof in) & p->hash_mask;
}

static int32_t find(const struct prefix *p, uint64_t tenant, int32_t parent, uint64_t hash,
                    const int32_t *tok)
{
    int32_t i = p->bucket[hash & (uint64_t)(p->n_bucket - 1)];
    for (; i >= 0; i = p->node[i].next) {
        const struct prefix_node *n = &p->node[i];
        if (n->hash == hash && n->parent == parent && n->tenant == tenant &&
            memcmp(n->tok, tok, sizeof n->tok) == 0)
            return i;
    }
    return -1;
}

/* Are the window pages there that a row at page-aligned position i * page_tok needs? path[i]. */
static bool window_there(const struct prefix *p, const int32_t *path, int i)
{
    for (int k = kv_first_visible(p->kv, i * PREFIX_PAGE_TOK); k < i; k++)
        if (p->node[path[k]].win < 0)
            return false;
    return true;
}

int prefix_match(struct prefix *p, const struct prefix_seq *s)
{
    struct kv_seq *kv = s->kv;
    ASSERT(kv->n_full == 0 && kv->win_lo == kv->win_hi);
    if (!p->on)
        return 0;
    uint64_t hash = hash_root(p, s->tenant);
    int32_t parent = ROOT;
    int n = 0, most = (s->n_ids - 1) / PREFIX_PAGE_TOK;
    /* The path goes straight into the table; what isn't used of it is wiped below. */
    for (; n < most; n++) {
        const int32_t *tok = s->ids + n * PREFIX_PAGE_TOK;
        hash = hash_next(p, hash, tok);
        parent = find(p, s->tenant, parent, hash, tok);
        if (parent < 0)
            break;
        kv->full[n] = parent;
    }
    int use = n;
    while (use > 0 && !window_there(p, kv->full, use))
        use--;
    for (int i = use; i < n; i++)
        kv->full[i] = -1;
    for (int i = 0; i < use; i++)
        full_hold(p, kv->full[i]);
    kv->n_full = kv->n_node = use;
    kv->win_lo = kv_first_visible(p->kv, use * PREFIX_PAGE_TOK);
    kv->win_hi = use;
    for (int i = kv->win_lo; i < use; i++) {
        kv->win[i] = p->node[kv->full[i]].win;
        win_hold(p, kv->win[i]);
    }
    return use * PREFIX_PAGE_TOK;
}

/* ---- a sequence's pages ---- */

static bool is_mark(const struct prefix *p, int32_t id)
{
    for (int i = 0; i < p->n_mark; i++)
        if (p->mark[i] == id)
            return true;
    return false;
}

/* Is page i part of the snapshot before some mark? The mark at position q has its snapshot before
 * page q / page_tok; so the marks of the pages that follow within the window decide. */
static bool worth_keeping(const struct prefix *p, const struct prefix_seq *s, int i, int n_done)
{
    int span = (p->kv->window - 1 + PREFIX_PAGE_TOK - 1) / PREFIX_PAGE_TOK;
    int lo = (i + 1) * PREFIX_PAGE_TOK, hi = (i + 1 + span) * PREFIX_PAGE_TOK;
    if ((n_done >= lo && n_done < hi) || (s->n_prompt >= lo && s->n_prompt <= hi))
        return true;
    for (int q = lo; q < min_int(hi, s->n_ids); q++)
        if (is_mark(p, s->ids[q]))
            return true;
    return false;
}

/* The sequence no longer needs its window page i: into the cache or back to the pool. n_done < 0
 * while it runs. */
static void leave_window(struct prefix *p, const struct prefix_seq *s, int i, int n_done)
{
    int32_t page = s->kv->win[i];
    s->kv->win[i] = -1;
    if (i < s->kv->n_node) {
        int32_t node = s->kv->full[i];
        if (p->node[node].win < 0 && p->win_node[page] < 0 && worth_keeping(p, s, i, n_done)) {
            kv_hold(&p->kv->win, page);
            p->node[node].win = page;
            p->win_node[page] = node;
            p->n_win++;
        }
    }
    win_drop(p, page);
}

bool prefix_extend(struct prefix *p, const struct prefix_seq *s, int pos, int n)
{
    struct kv_seq *kv = s->kv;
    int lo = kv_first_visible(p->kv, pos), hi = kv_pages(p->kv, pos + n);
    ASSERT(n > 0 && hi <= kv->n_entry);
    for (; kv->win_lo < lo && kv->win_lo < kv->win_hi; kv->win_lo++)
        leave_window(p, s, kv->win_lo, -1);
    if (kv->win_lo == kv->win_hi) /* what came from elsewhere may lie beyond all that it held */
        kv->win_lo = kv->win_hi = max_int(lo, kv->win_hi);
    for (; kv->n_full < hi; kv->n_full++)
        if ((kv->full[kv->n_full] = take_full(p)) < 0)
            return false;
    for (; kv->win_hi < hi; kv->win_hi++)
        if ((kv->win[kv->win_hi] = take_win(p)) < 0)
            return false;
    return true;
}

void prefix_learn(struct prefix *p, const struct prefix_seq *s, int n_done)
{
    struct kv_seq *kv = s->kv;
    for (int i = kv->n_node; p->on && i < n_done / PREFIX_PAGE_TOK; i++) {
        int32_t parent = i ? kv->full[i - 1] : ROOT;
        const int32_t *tok = s->ids + i * PREFIX_PAGE_TOK;
        uint64_t hash = hash_next(p, i ? p->node[parent].hash : hash_root(p, s->tenant), tok);
        int32_t page = kv->full[i], known = find(p, s->tenant, parent, hash, tok);
        if (known >= 0) {
            full_hold(p, known);
            kv->full[i] = known;
            full_drop(p, page);
        } else {
            struct prefix_node *node = &p->node[page];
            int32_t *bucket = &p->bucket[hash & (uint64_t)(p->n_bucket - 1)];
            *node = (struct prefix_node){
                .hash = hash, .tenant = s->tenant, .parent = parent, .next = *bucket, .win = -1};
            memcpy(node->tok, tok, sizeof node->tok);
            *bucket = page;
            if (parent != ROOT)
                p->node[parent].n_child++;
            kv_hold(&p->kv->full, page);
            p->n_node++;
        }
        kv->n_node = i + 1;
    }
}

bool prefix_fork(struct prefix *p, const struct kv_seq *from, struct kv_seq *to, int n_done,
                 struct prefix_copy *copy)
{
    int whole = n_done / PREFIX_PAGE_TOK;
    *copy = (struct prefix_copy){-1, -1, -1, -1};
    ASSERT(to->n_full == 0 && to->n_entry >= kv_pages(p->kv, n_done));
    if (n_done % PREFIX_PAGE_TOK) {
        int32_t full = take_full(p), win = full < 0 ? -1 : take_win(p);
        if (win < 0) {
            if (full >= 0)
                kv_drop(&p->kv->full, full);
            return false;
        }
        *copy = (struct prefix_copy){from->full[whole], full, from->win[whole], win};
        to->full[whole] = full;
        to->win[whole] = win;
    }
    for (int i = 0; i < whole; i++)
        full_hold(p, to->full[i] = from->full[i]);
    to->win_lo = max_int(from->win_lo, kv_first_visible(p->kv, n_done));
    for (int i = to->win_lo; i < whole; i++)
        win_hold(p, to->win[i] = from->win[i]);
    to->n_full = to->win_hi = kv_pages(p->kv, n_done);
    to->n_node = min_int(from->n_node, whole);
    return true;
}

void prefix_release(struct prefix *p, const struct prefix_seq *s, int n_done)
{
    struct kv_seq *kv = s->kv;
    for (int i = kv->win_lo; i < kv->win_hi; i++)
        leave_window(p, s, i, n_done);
    /* The end first: then a leaf is older than its parent, as eviction wants it. */
    for (int i = kv->n_full - 1; i >= 0; i--) {
        full_drop(p, kv->full[i]);
        kv->full[i] = -1;
    }
    kv->n_full = kv->win_lo = kv->win_hi = kv->n_node = 0;
}
