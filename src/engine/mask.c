/* A reading is a pair (state, stack of return states); a matcher holds the set of all readings of
 * the text so far. That set says everything about the next byte, but masks are about 200,000 tokens
 * at once, so they are computed in parts that repeat:
 *
 *   - The readings are grouped by their stack. Which tokens a group allows without ever returning
 *     to that stack depends on its states only, not on what is below: a "local set". Inside a
 *     string, that is nearly every token, and the same for every string of every grammar.
 *   - One walk of the trie with the local set gives those tokens, and the trie nodes where a token
 *     leaves through the bottom (the closing quote in `",`): its exits. Both are kept.
 *   - For a mask, the kept tokens of each group are joined, and each exit is followed further with
 *     the states below, usually a few dozen trie nodes.
 *
 * Inside plain strings even that first walk is spared: where a string may hold so many characters
 * more, the tokens are those of the unlimited string with at most so many characters. They are
 * listed by that count once ("spelling").
 *
 * The walk itself runs on a table: local sets are numbered, and a row of 256 next sets is made for
 * each one when it is first left. All this lives in pools of fixed size; when one is full,
 * everything is forgotten and made anew.
 *
 * Nesting: a reader is at most GRAMMAR_DEPTH calls deep. Local sets don't know their depth, so
 * within one token at most LOCAL_DEEP calls are opened; near the limit (where even that could pass
 * it) the sets are kept apart by depth.
 */
#include "engine/mask.h"

#include "base/mem.h"
#include "base/num.h"
#include "engine/memo.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_READING = 2048, /* readings of one matcher */
    N_FRAME = 4096,   /* stack nodes of one matcher */
    N_WORK = 16384,   /* scratch of one closure */
    LOCAL_DEEP = 32,
    POOL_SETS = 60000, /* local sets; ids fit 16 bits */
    POOL_ROWS = 12000, /* 512 bytes each */
    POOL_READINGS = 1 << 20,
    POOL_FRAMES = 1 << 16,
    POOL_MASKS = 8192,
    POOL_DENSE_BYTES = 24 << 20,
    MEMO_BYTES = 8 << 20, /* of whole masks */
    POOL_LIST = 1 << 20,  /* token ids of sparse masks, and exits */
    SPARSE_MAX = 1024,
    KEEP_FROM = 48, /* trie nodes visited from which a mask is worth keeping */
    MAX_TOKEN = 1024
};

struct reading {
    uint32_t state, stack;
};

/* Hash-consed stacks; node 0 is the bottom. A parent always has a lower number. */
struct frame {
    uint32_t ret, parent;
    uint16_t depth;
    bool own; /* some state in it is not the prelude's */
};
struct stacks {
    struct frame *node; /* [cap] */
    uint32_t *slot;     /* [n_slot] node, 0: free; valid where stamp == now */
    uint32_t *stamp;    /* [n_slot] */
    uint32_t n, cap, n_slot, now;
};

struct tnode {
    uint32_t skip; /* the node after this one's subtree, in preorder */
    int32_t token; /* -1: none ends here */
    uint16_t depth;
    uint8_t byte;
};

struct lset {
    uint64_t grammar;   /* its id; 0: prelude states only */
    uint32_t at, n;     /* readings in the pool */
    uint32_t row, mask; /* + 1; 0: not made yet */
    uint32_t next;      /* in its hash chain, + 1 */
    uint8_t deep;       /* 0: far from the depth limit, else depth of the bottom */
    bool pop;           /* a reading left through the bottom */
};

enum { SET_POPS = 1, SET_GOES_ON = 2 }; /* lset.pop; lset.n > 0 */

struct lmask {
    bool dense;
    uint32_t at, n;           /* dense: index of the bitmap; else the list of tokens */
    uint32_t exit_at, n_exit; /* trie nodes */
};

/* The tokens that fit inside an unlimited string, from one of the states of its block: those that
 * stay inside, those that end with the closing quote, and the exits (which have passed the quote).
 * Each list is sorted by the number of characters begun. */
struct spelling {
    bool ready;
    uint32_t at[3];                  /* OPEN, CLOSED, EXITS: start in m->spell_list */
    uint32_t upto[3][MAX_TOKEN + 2]; /* how many have at most that many characters */
};
enum { OPEN, CLOSED, EXITS };

struct masker {
    pthread_mutex_t lock;
    const struct vocab *vocab;
    struct prelude *prelude;
    int n_id;
    size_t words;
    uint32_t *ordinary; /* [words] */
    struct tnode *trie; /* [n_trie]; node 0 is the root */
    uint32_t n_trie;
    int32_t single[256]; /* the token of each byte */
    uint16_t max_len;

    /* scratch of one step */
    struct stacks work;
    struct reading *cur, *next, *todo; /* [N_READING], [N_READING], [N_WORK] */
    struct reading *target;            /* [N_WORK] */
    uint64_t *seen_key;                /* [2 * N_WORK] */
    uint32_t *seen_stamp;              /* [2 * N_WORK] */
    uint32_t *number;                  /* [N_WORK] */
    uint32_t seen_now, n_seen;

    /* pools */
    struct stacks local;
    struct lset *set; /* [POOL_SETS]; 0 is the dead one */
    uint8_t *flags;   /* [POOL_SETS] SET_POPS, SET_GOES_ON: what the walk asks of every node */
    uint32_t *chain;  /* [N_CHAIN] */
    struct reading *readings;
    uint16_t *row; /* [POOL_ROWS, 256] */
    struct lmask *mask;
    uint32_t *dense; /* [n_dense_max, words] */
    int32_t *list;
    uint32_t n_set, n_reading, n_row, n_mask, n_dense, n_dense_max, n_list;
    bool full;

    struct memo memo; /* whole masks */

    struct spelling *spell; /* [GSPAN_STATES] */
    int32_t *spell_list;    /* [n_spell_max] */
    uint32_t *spell_open;   /* [GSPAN_STATES, words] all tokens of an OPEN list */
    uint32_t n_spell, n_spell_max;

    /* scratch of one mask */
    const uint16_t *row_at[MAX_TOKEN + 2];
    uint32_t *bits; /* [words] of the walk under way */
    int32_t *exits; /* [POOL_LIST] */
    struct exit_item {
        uint32_t node, stack;
    } * item; /* [N_WORK] */
    struct masker_stats stats;
};

enum { N_CHAIN = 1 << 16 };

struct matcher {
    struct masker *m;
    struct grammar *g;
    uint32_t n, n_frame;
    bool can_end;
    struct reading *r;   /* [N_READING] sorted by stack, then state */
    struct frame *frame; /* [N_FRAME] */
};

/* ---- stacks ---- */

static status stacks_open(struct stacks *s, uint32_t cap)
{
    s->cap = cap;
    s->n_slot = cap * 2;
    s->node = mem_array(cap, sizeof *s->node);
    s->slot = mem_calloc(s->n_slot, sizeof *s->slot);
    s->stamp = mem_calloc(s->n_slot, sizeof *s->stamp);
    return s->node && s->slot && s->stamp ? OK : E_NOMEM;
}

static void stacks_close(struct stacks *s)
{
    mem_free(s->node);
    mem_free(s->slot);
    mem_free(s->stamp);
}

static void stacks_clear(struct stacks *s)
{
    if (++s->now == 0) {
        memset(s->stamp, 0, s->n_slot * sizeof *s->stamp);
        s->now = 1;
    }
    s->node[0] = (struct frame){0};
    s->n = 1;
}

/* The stack `parent` with `ret` on top; 0 when the pool is full. */
static uint32_t push(struct stacks *s, uint32_t ret, uint32_t parent, uint32_t base)
{
    uint64_t h = ((uint64_t)ret << 32 | parent) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    uint32_t k = (uint32_t)(h >> 32) & (s->n_slot - 1);
    for (; s->stamp[k] == s->now; k = (k + 1) & (s->n_slot - 1)) {
        const struct frame *f = &s->node[s->slot[k]];
        if (f->ret == ret && f->parent == parent)
            return s->slot[k];
    }
    if (s->n >= s->cap)
        return 0;
    s->node[s->n] = (struct frame){ret, parent, (uint16_t)(s->node[parent].depth + 1),
                                   ret >= base || s->node[parent].own};
    s->stamp[k] = s->now;
    s->slot[k] = s->n;
    return s->n++;
}

/* ---- closures ---- */

struct closing {
    struct masker *m;
    const struct grammar *g;
    struct stacks *stacks;
    uint32_t base; /* states from here on are the grammar's own */
    int deepest;   /* depth plus height at most; LOCAL_DEEP rules apply if `local` */
    bool local, pop;
    struct reading *out; /* [N_READING] */
    uint32_t n;
};

static void closing_begin(struct closing *c, struct masker *m, const struct grammar *g,
                          struct stacks *s, struct reading *out)
{
    *c = (struct closing){.m = m,
                          .g = g,
                          .stacks = s,
                          .base = m->prelude->g->n,
                          .deepest = GRAMMAR_DEPTH,
                          .out = out};
    m->n_seen = 0;
    if (++m->seen_now == 0) {
        memset(m->seen_stamp, 0, 2 * N_WORK * sizeof *m->seen_stamp);
        m->seen_now = 1;
    }
}

/* False when it was there already, or when there are too many. */
static bool first_time(struct masker *m, uint32_t state, uint32_t stack)
{
    uint64_t key = (uint64_t)state << 32 | stack;
    uint32_t k = (uint32_t)(key * 0x9e3779b97f4a7c15u >> 40) & (2 * N_WORK - 1);
    for (; m->seen_stamp[k] == m->seen_now; k = (k + 1) & (2 * N_WORK - 1))
        if (m->seen_key[k] == key)
            return false;
    if (m->n_seen >= N_WORK) {
        m->stats.cut++;
        return false;
    }
    m->n_seen++;
    m->seen_stamp[k] = m->seen_now;
    m->seen_key[k] = key;
    return true;
}

/* Adds (state, stack) and all that follows from it without a byte. Every pushed item was seen for
 * the first time, so the work list can't overflow. */
static void closing_add(struct closing *c, uint32_t state, uint32_t stack)
{
    struct masker *m = c->m;
    struct reading *todo = m->todo;
    uint32_t n = 0;
    if (first_time(m, state, stack))
        todo[n++] = (struct reading){state, stack};
    while (n) {
        struct reading r = todo[--n];
        const struct grammar *o;
        const struct gstate *s = grammar_state(c->g, r.state, &o);
        uint32_t depth = c->stacks->node[r.stack].depth;
        if (s[1].byte_at > s->byte_at) {
            if (c->n < N_READING)
                c->out[c->n++] = r;
            else
                m->stats.cut++;
        }
        if (s->is_end) {
            if (r.stack == 0) {
                c->pop = true;
            } else {
                const struct frame *f = &c->stacks->node[r.stack];
                if (first_time(m, f->ret, f->parent))
                    todo[n++] = (struct reading){f->ret, f->parent};
            }
        }
        for (uint32_t i = s->eps_at; i < s[1].eps_at; i++)
            if (first_time(m, o->eps[i], r.stack))
                todo[n++] = (struct reading){o->eps[i], r.stack};
        for (uint32_t i = s->call_at; i < s[1].call_at; i++) {
            const struct gcall *call = &o->call[i];
            const struct grammar *at;
            int inside = (int)depth + 1 + grammar_state(c->g, call->start, &at)->height;
            int behind = (int)depth + grammar_state(c->g, call->ret, &at)->height;
            if (inside > c->deepest || behind > c->deepest || (c->local && depth >= LOCAL_DEEP))
                continue;
            uint32_t top = push(c->stacks, call->ret, r.stack, c->base);
            if (!top) {
                m->stats.cut++;
                m->full |= c->local;
            } else if (first_time(m, call->start, top)) {
                todo[n++] = (struct reading){call->start, top};
            }
        }
    }
}

static bool less(struct reading a, struct reading b)
{
    return a.stack != b.stack ? a.stack < b.stack : a.state < b.state;
}

/* By stack, then state; in place (qsort may allocate): short lists by insertion, long ones as a
 * heap. */
static void sort_readings(struct reading *r, uint32_t n)
{
    for (uint32_t i = 1; i < n && n <= 24; i++) {
        struct reading t = r[i];
        uint32_t k = i;
        for (; k > 0 && less(t, r[k - 1]); k--)
            r[k] = r[k - 1];
        r[k] = t;
    }
    for (uint32_t i = n / 2, end = n; n > 24 && end > 1;) {
        struct reading t;
        if (i > 0) {
            t = r[--i]; /* still building the heap */
        } else {
            t = r[--end];
            r[end] = r[0];
        }
        uint32_t at = i;
        for (uint32_t kid; (kid = 2 * at + 1) < end; at = kid) {
            kid += kid + 1 < end && less(r[kid], r[kid + 1]);
            if (!less(t, r[kid]))
                break;
            r[at] = r[kid];
        }
        r[at] = t;
    }
}

/* ---- local sets ---- */

static void forget(struct masker *m)
{
    memset(m->chain, 0, N_CHAIN * sizeof *m->chain);
    stacks_clear(&m->local);
    m->set[0] = (struct lset){0};
    m->n_set = 1;
    m->n_reading = m->n_row = m->n_mask = m->n_dense = m->n_list = 0;
    m->full = false;
    m->stats.flushed++;
}

/* The number of the local set of these readings (sorted here); 0 for none at all, or when a pool is
 * full (m->full). */
static uint32_t set_of(struct masker *m, const struct grammar *g, uint8_t deep, struct reading *r,
                       uint32_t n, bool pop)
{
    if (!n && !pop)
        return 0;
    sort_readings(r, n);
    uint32_t base = m->prelude->g->n;
    uint64_t id = 0, h = pop;
    for (uint32_t i = 0; i < n; i++) {
        if (r[i].state >= base || m->local.node[r[i].stack].own)
            id = g->id;
        h = (h ^ ((uint64_t)r[i].state << 32 | r[i].stack)) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    h = (h ^ id ^ (uint64_t)deep << 56) * 0x9e3779b97f4a7c15u;
    uint32_t *head = &m->chain[h >> 48];
    for (uint32_t i = *head; i; i = m->set[i - 1].next) {
        const struct lset *s = &m->set[i - 1];
        if (s->grammar == id && s->deep == deep && s->pop == pop && s->n == n &&
            memcmp(m->readings + s->at, r, n * sizeof *r) == 0)
            return i - 1;
    }
    if (m->n_set >= POOL_SETS || m->n_reading + n > POOL_READINGS) {
        m->full = true;
        return 0;
    }
    if (n)
        memcpy(m->readings + m->n_reading, r, n * sizeof *r);
    m->set[m->n_set] = (struct lset){
        .grammar = id, .at = m->n_reading, .n = n, .next = *head, .deep = deep, .pop = pop};
    m->flags[m->n_set] = (uint8_t)((pop ? SET_POPS : 0) | (n ? SET_GOES_ON : 0));
    m->n_reading += n;
    *head = m->n_set + 1;
    return m->n_set++;
}

static void local_begin(struct closing *c, struct masker *m, const struct grammar *g, uint8_t deep)
{
    closing_begin(c, m, g, &m->local, m->next);
    c->local = true;
    c->deepest = deep ? GRAMMAR_DEPTH - deep : INT32_MAX;
}

/* How deep the bottom of a group is, as far as its local sets care. */
static uint8_t deep_of(const struct grammar *g, uint32_t depth)
{
    return depth + LOCAL_DEEP + g->max_height <= GRAMMAR_DEPTH ? 0 : (uint8_t)depth;
}

/* The next sets of a set, by byte; NULL when a pool is full. */
static const uint16_t *row_of(struct masker *m, const struct grammar *g, uint32_t id)
{
    struct lset *s = &m->set[id];
    if (s->row)
        return m->row + (size_t)(s->row - 1) * 256;
    if (m->n_row >= POOL_ROWS) {
        m->full = true;
        return NULL;
    }
    uint16_t *row = m->row + (size_t)m->n_row * 256;
    const struct reading *r = m->readings + s->at;
    const struct grammar *o;
    bool cut[257] = {false};
    memset(row, 0, 256 * sizeof *row);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct gstate *q = grammar_state(g, r[i].state, &o);
        for (uint32_t k = q->byte_at; k < q[1].byte_at; k++)
            cut[o->byte[k].lo] = cut[o->byte[k].hi + 1] = true;
    }
    /* Byte ranges that lead to the same targets share one closure; few targets recur. */
    struct {
        uint64_t hash;
        uint16_t to;
    } known[16];
    int n_known = 0;
    for (int lo = 0, hi; lo < 256; lo = hi) {
        for (hi = lo + 1; hi < 256 && !cut[hi]; hi++)
            ;
        uint64_t h = 0;
        uint32_t n_to = 0;
        for (uint32_t i = 0; i < s->n; i++) {
            const struct gstate *q = grammar_state(g, r[i].state, &o);
            for (uint32_t k = q->byte_at; k < q[1].byte_at && o->byte[k].lo <= lo; k++)
                if (o->byte[k].hi >= lo && n_to < N_WORK) {
                    struct reading t = {o->byte[k].to, r[i].stack};
                    m->target[n_to++] = t;
                    h = (h ^ ((uint64_t)t.state << 32 | t.stack)) * 0xd6e8feb86659fd93u;
                    h ^= h >> 32;
                }
        }
        if (!n_to)
            continue;
        int at = 0;
        while (at < n_known && known[at].hash != h)
            at++;
        if (at == n_known) {
            struct closing c;
            local_begin(&c, m, g, s->deep);
            for (uint32_t i = 0; i < n_to; i++)
                closing_add(&c, m->target[i].state, m->target[i].stack);
            uint32_t to = set_of(m, g, s->deep, c.out, c.n, c.pop);
            if (m->full)
                return NULL;
            at = n_known < 16 ? n_known++ : 15;
            known[at].hash = h;
            known[at].to = (uint16_t)to;
        }
        for (int b = lo; b < hi; b++)
            row[b] = known[at].to;
    }
    s->row = ++m->n_row;
    return row;
}

/* ---- masks ---- */

static void set_bit(uint32_t *bits, int32_t id)
{
    bits[id >> 5] |= (uint32_t)1 << (id & 31);
}

/* Walks the subtree of trie node `top` (not the node itself) from a set. Sets the bits of its
 * tokens and lists the exits that have something below them. False when a pool is full. */
static bool walk(struct masker *m, const struct grammar *g, uint32_t set, uint32_t top,
                 uint32_t *bits, int32_t *tokens, uint32_t *n_token, int32_t *exits,
                 uint32_t *n_exit, uint32_t max_exit, uint32_t *visited)
{
    const struct tnode *t = m->trie;
    const uint16_t **row = m->row_at;
    uint32_t i = top + 1, end = t[top].skip, seen = 0;
    row[t[top].depth] = row_of(m, g, set);
    if (!row[t[top].depth])
        return false;
    while (i < end) {
        uint32_t s = row[t[i].depth - 1][t[i].byte];
        seen++;
        if (!s) {
            i = t[i].skip;
            continue;
        }
        if (t[i].token >= 0) {
            set_bit(bits, t[i].token);
            if (tokens && *n_token < SPARSE_MAX)
                tokens[*n_token] = t[i].token;
            if (n_token)
                ++*n_token;
        }
        if (t[i].skip == i + 1) {
            i++;
            continue;
        }
        if ((m->flags[s] & SET_POPS) && *n_exit < max_exit)
            exits[(*n_exit)++] = (int32_t)i;
        if (!(m->flags[s] & SET_GOES_ON)) {
            i = t[i].skip;
            continue;
        }
        if (!(row[t[i].depth] = row_of(m, g, s)))
            return false;
        i++;
    }
    *visited += seen;
    return true;
}

/* Follows the exits on m->item[0..n) with the stacks below them. */
static bool follow(struct masker *m, const struct grammar *g, const struct frame *frame, uint32_t n,
                   uint32_t *bits)
{
    uint32_t last_stack = 0, set = 0, visited = 0;
    while (n) {
        struct exit_item it = m->item[--n];
        if (it.stack == 0)
            continue; /* the text is complete: no byte may follow */
        const struct frame *f = &frame[it.stack];
        if (it.stack != last_stack) {
            uint8_t deep = deep_of(g, frame[f->parent].depth);
            struct closing c;
            local_begin(&c, m, g, deep);
            closing_add(&c, f->ret, 0);
            set = set_of(m, g, deep, c.out, c.n, c.pop);
            if (m->full)
                return false;
            last_stack = it.stack;
        }
        if (m->set[set].pop && n < N_WORK)
            m->item[n++] = (struct exit_item){it.node, f->parent};
        if (!m->set[set].n)
            continue;
        uint32_t n_exit = 0;
        if (!walk(m, g, set, it.node, bits, NULL, NULL, m->exits, &n_exit, N_WORK - n, &visited))
            return false;
        for (uint32_t i = 0; i < n_exit; i++)
            m->item[n++] = (struct exit_item){(uint32_t)m->exits[i], f->parent};
    }
    return true;
}

/* The span that holds the state; its block and the place within it. */
static const struct gspan *span_of(const struct grammar *g, uint32_t state, uint32_t *block,
                                   uint32_t *place)
{
    const struct grammar *o;
    grammar_state(g, state, &o);
    for (uint32_t i = 0; i < o->n_span; i++) {
        const struct gspan *s = &o->span[i];
        if (state - s->first < s->n * GSPAN_STATES) {
            *block = (state - s->first) / GSPAN_STATES;
            *place = (state - s->first) % GSPAN_STATES;
            return s;
        }
    }
    return NULL;
}

/* Fills m->spell[place]: one walk from that place of the unlimited string, twice: to count, then to
 * sort. False when a pool is full. */
static bool spell(struct masker *m, uint32_t place)
{
    struct spelling *sp = &m->spell[place];
    const struct grammar *g = m->prelude->g;
    const struct tnode *t = m->trie;
    uint32_t main_state = m->prelude->tail[PRELUDE_TAILS];
    struct reading r = {main_state, 0}, r0 = {main_state + place, 0};
    uint32_t inside = set_of(m, g, 0, &r, 1, false), from = set_of(m, g, 0, &r0, 1, false);
    uint16_t chars[MAX_TOKEN + 2], set_at[MAX_TOKEN + 2];
    const uint16_t **row = m->row_at;
    if (m->full)
        return false;
    memset(sp, 0, sizeof *sp);
    for (int pass = 0; pass < 2; pass++) {
        if (pass) { /* counts to places: upto[c] is where count c + 1 begins, while filling */
            uint32_t total = 0;
            for (int k = 0; k < 3; k++) {
                sp->at[k] = m->n_spell + total;
                uint32_t before = 0;
                for (int c = 0; c <= m->max_len + 1; c++) {
                    uint32_t n = sp->upto[k][c];
                    sp->upto[k][c] = before;
                    before += n;
                }
                total += before;
            }
            if (m->n_spell + total > m->n_spell_max)
                return true; /* not ready: the caller walks */
            m->n_spell += total;
        }
        chars[0] = 0;
        set_at[0] = (uint16_t)from;
        if (!(row[0] = row_of(m, g, from)))
            return false;
        for (uint32_t i = 1; i < m->n_trie;) {
            uint32_t d = t[i].depth, s = row[d - 1][t[i].byte];
            if (!s) {
                i = t[i].skip;
                continue;
            }
            bool pop = m->flags[s] & SET_POPS, leaf = t[i].skip == i + 1;
            uint16_t c = (uint16_t)(chars[d - 1] + (set_at[d - 1] == inside && !pop));
            for (int k = 0; k < 2; k++) {
                if (k == 0 ? t[i].token < 0 : !pop || leaf)
                    continue;
                int which = k ? EXITS : pop ? CLOSED : OPEN;
                uint32_t *n = &sp->upto[which][c];
                if (pass)
                    m->spell_list[sp->at[which] + *n] = k ? (int32_t)i : t[i].token;
                ++*n;
            }
            if (pop || leaf) {
                i = t[i].skip;
                continue;
            }
            chars[d] = c;
            set_at[d] = (uint16_t)s;
            if (!(row[d] = row_of(m, g, s)))
                return false;
            i++;
        }
    }
    uint32_t *open = m->spell_open + place * m->words;
    memset(open, 0, m->words * sizeof *open);
    for (uint32_t i = 0; i < sp->upto[OPEN][m->max_len + 1]; i++)
        set_bit(open, m->spell_list[sp->at[OPEN] + i]);
    sp->ready = true;
    return true;
}

/* The mask of a place in a string by counting: into m->bits, with the token count and the exits;
 * *done = false when that place must be walked. False when a pool is full. */
static bool mask_spelled(struct masker *m, const struct grammar *g, uint32_t state, bool *done,
                         uint32_t *n_token, uint32_t *n_exit)
{
    uint32_t block, place;
    const struct gspan *span = span_of(g, state, &block, &place);
    *done = false;
    if (!span)
        return true;
    uint32_t max = span->max == UINT32_MAX ? UINT32_MAX : span->max + block;
    uint32_t min = span->min == UINT32_MAX ? UINT32_MAX : span->min + block * span->min_step;
    if (place > 0) { /* within a character that is counted already */
        max -= max != UINT32_MAX;
        min -= min != UINT32_MAX && min > 0;
    }
    if (min == UINT32_MAX && max <= m->max_len)
        return true; /* a token might leave the block */
    const struct spelling *sp = &m->spell[place];
    if (!sp->ready && !spell(m, place))
        return false;
    if (!sp->ready)
        return true;
    uint32_t top = max < m->max_len ? max : m->max_len + 1u;
    /* all that stay inside without the longest, or the shortest one by one */
    uint32_t n_open = sp->upto[OPEN][top], n_all = sp->upto[OPEN][m->max_len + 1];
    const int32_t *list = m->spell_list + sp->at[OPEN];
    if (n_open > n_all / 2) {
        memcpy(m->bits, m->spell_open + place * m->words, m->words * sizeof *m->bits);
        for (uint32_t i = n_open; i < n_all; i++)
            m->bits[list[i] >> 5] &= ~((uint32_t)1 << (list[i] & 31));
    } else {
        memset(m->bits, 0, m->words * sizeof *m->bits);
        for (uint32_t i = 0; i < n_open; i++)
            set_bit(m->bits, list[i]);
    }
    *n_token = n_open;
    *n_exit = 0;
    if (min <= top) {
        uint32_t from = min ? sp->upto[CLOSED][min - 1] : 0;
        for (uint32_t i = from; i < sp->upto[CLOSED][top]; i++, ++*n_token)
            set_bit(m->bits, m->spell_list[sp->at[CLOSED] + i]);
        for (uint32_t i = min ? sp->upto[EXITS][min - 1] : 0; i < sp->upto[EXITS][top]; i++)
            m->exits[(*n_exit)++] = m->spell_list[sp->at[EXITS] + i];
    }
    *done = true;
    return true;
}

/* A string with room for more characters than any token has is as good as an unlimited one. */
static uint32_t unlimited(const struct masker *m, uint32_t state)
{
    const struct prelude *p = m->prelude;
    uint32_t first = p->tail[1], k = state - first;
    if (state < first || k >= (PRELUDE_TAILS - 1) * GSPAN_STATES ||
        k / GSPAN_STATES <= m->max_len + 1u)
        return state;
    return p->tail[PRELUDE_TAILS] + k % GSPAN_STATES;
}

/* Joins what one group (readings r[0..n) with the same stack) allows. False when a pool is full. */
static bool mask_group(struct matcher *x, const struct reading *r, uint32_t n, uint32_t *bits)
{
    struct masker *m = x->m;
    uint32_t stack = r[0].stack;
    uint8_t deep = deep_of(x->g, x->frame[stack].depth);
    for (uint32_t i = 0; i < n; i++)
        m->cur[i] = (struct reading){unlimited(m, r[i].state), 0};
    uint32_t set = set_of(m, x->g, deep, m->cur, n, false);
    if (m->full)
        return false;
    const int32_t *exits = m->exits;
    uint32_t n_exit = 0;
    if (m->set[set].mask) {
        const struct lmask *k = &m->mask[m->set[set].mask - 1];
        if (k->dense) {
            const uint32_t *from = m->dense + (size_t)k->at * m->words;
            for (size_t i = 0; i < m->words; i++)
                bits[i] |= from[i];
        } else {
            for (uint32_t i = 0; i < k->n; i++)
                set_bit(bits, m->list[k->at + i]);
        }
        exits = m->list + k->exit_at;
        n_exit = k->n_exit;
    } else {
        int32_t tokens[SPARSE_MAX];
        uint32_t n_token = 0, visited = 0;
        bool done = false;
        m->stats.built++;
        if (n == 1 && !mask_spelled(m, x->g, m->cur[0].state, &done, &n_token, &n_exit))
            return false;
        if (!done)
            memset(m->bits, 0, m->words * sizeof *bits);
        visited = done ? KEEP_FROM : 0;
        if (!done && !walk(m, x->g, set, 0, m->bits, tokens, &n_token, m->exits, &n_exit,
                           POOL_LIST / 4, &visited))
            return false;
        bool dense = n_token > SPARSE_MAX || done;
        if (dense)
            for (size_t i = 0; i < m->words; i++)
                bits[i] |= m->bits[i];
        else
            for (uint32_t i = 0; i < n_token; i++)
                set_bit(bits, tokens[i]);
        uint32_t n_list = n_exit + (dense ? 0 : n_token);
        if (visited < KEEP_FROM) {
            /* as quick to walk again */
        } else if (m->n_mask >= POOL_MASKS || (dense && m->n_dense >= m->n_dense_max) ||
                   m->n_list + n_list > POOL_LIST) {
            m->full = true; /* this mask is right, the next one starts afresh */
        } else {
            struct lmask *k = &m->mask[m->n_mask++];
            *k = (struct lmask){.dense = dense, .n = n_token, .n_exit = n_exit};
            k->at = dense ? m->n_dense++ : m->n_list;
            if (dense)
                memcpy(m->dense + (size_t)k->at * m->words, m->bits, m->words * sizeof *bits);
            else
                memcpy(m->list + m->n_list, tokens, n_token * sizeof *tokens);
            m->n_list += dense ? 0 : n_token;
            k->exit_at = m->n_list;
            memcpy(m->list + m->n_list, m->exits, n_exit * sizeof *m->exits);
            m->n_list += n_exit;
            m->set[set].mask = m->n_mask;
            exits = m->list + k->exit_at;
        }
    }
    bool was_full = m->full;
    m->full = false;
    for (uint32_t done = 0; stack && done < n_exit;) {
        uint32_t k = 0;
        for (; k < N_WORK / 2 && done < n_exit; k++, done++)
            m->item[k] = (struct exit_item){(uint32_t)exits[done], stack};
        if (exits == m->exits && done < n_exit)
            n_exit = done; /* following reuses m->exits; more than 8,192 exits don't occur */
        if (!follow(m, x->g, x->frame, k, bits))
            return false;
    }
    m->full = was_full;
    return true;
}

static uint32_t step(struct masker *m, const struct grammar *g, const struct reading *from,
                     uint32_t n, uint8_t byte, struct reading *to, bool *can_end)
{
    struct closing c;
    const struct grammar *o;
    closing_begin(&c, m, g, &m->work, to);
    for (uint32_t i = 0; i < n; i++) {
        const struct gstate *q = grammar_state(g, from[i].state, &o);
        for (uint32_t k = q->byte_at; k < q[1].byte_at && o->byte[k].lo <= byte; k++)
            if (o->byte[k].hi >= byte)
                closing_add(&c, o->byte[k].to, from[i].stack);
    }
    *can_end = c.pop;
    return c.n;
}

static void load(struct matcher *x)
{
    struct masker *m = x->m;
    stacks_clear(&m->work);
    for (uint32_t i = 1; i < x->n_frame; i++)
        push(&m->work, x->frame[i].ret, x->frame[i].parent, m->prelude->g->n);
    memcpy(m->cur, x->r, x->n * sizeof *x->r);
}

/* All that a mask depends on, and the length; 0: it is too long. */
static uint32_t memo_key(const struct matcher *x, uint32_t *key)
{
    if (4 + 2 * (x->n + x->n_frame) > MEMO_KEY)
        return 0;
    uint32_t n = 0;
    key[n++] = (uint32_t)x->g->id;
    key[n++] = (uint32_t)(x->g->id >> 32);
    key[n++] = x->n;
    for (uint32_t i = 0; i < x->n; i++) {
        key[n++] = unlimited(x->m, x->r[i].state);
        key[n++] = x->r[i].stack;
    }
    for (uint32_t i = 1; i < x->n_frame; i++) {
        key[n++] = x->frame[i].ret;
        key[n++] = x->frame[i].parent;
    }
    return n;
}

void matcher_mask(struct matcher *x, uint32_t *bits)
{
    struct masker *m = x->m;
    uint32_t key[MEMO_KEY], n_key = memo_key(x, key);
    pthread_mutex_lock(&m->lock);
    m->stats.masks++;
    const uint32_t *made = n_key ? memo_find(&m->memo, key, n_key) : NULL;
    m->stats.known += made != NULL;
    if (made) { /* copied without the lock: another thread may go on */
        pthread_mutex_unlock(&m->lock);
        memcpy(bits, made, m->words * sizeof *bits);
        memo_done(&m->memo);
        return;
    }
    bool ok = false;
    for (int attempt = 0; attempt < 2 && !ok; attempt++) {
        if (m->full)
            forget(m);
        memset(bits, 0, m->words * sizeof *bits);
        ok = true;
        for (uint32_t i = 0, k; i < x->n && ok; i = k) {
            for (k = i + 1; k < x->n && x->r[k].stack == x->r[i].stack; k++)
                ;
            ok = mask_group(x, x->r + i, k - i, bits);
        }
        if (!ok)
            m->full = true;
    }
    if (ok && n_key)
        memo_keep(&m->memo, key, n_key, bits);
    if (!ok) { /* one mask alone fills the pools: the tokens found, and every single byte */
        load(x);
        bool end;
        for (int b = 0; b < 256; b++)
            if (m->single[b] >= 0 && (step(m, x->g, x->r, x->n, (uint8_t)b, m->next, &end) || end))
                set_bit(bits, m->single[b]);
    }
    pthread_mutex_unlock(&m->lock);
}

/* ---- matchers ---- */

/* Keeps the readings `r` and those stacks of m->work that they use. */
static void keep(struct matcher *x, struct reading *r, uint32_t n, bool can_end)
{
    struct masker *m = x->m;
    uint32_t *number = m->number;
    memset(number, 0, m->work.n * sizeof *number);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t s = r[i].stack; s && !number[s]; s = m->work.node[s].parent)
            number[s] = 1;
    x->n_frame = 1;
    x->frame[0] = (struct frame){0};
    for (uint32_t s = 1; s < m->work.n; s++) {
        if (!number[s])
            continue;
        uint32_t parent = m->work.node[s].parent;
        bool lost = x->n_frame >= N_FRAME || (parent && number[parent] == UINT32_MAX);
        number[s] = lost ? UINT32_MAX : x->n_frame;
        if (lost)
            continue;
        x->frame[x->n_frame] = m->work.node[s];
        x->frame[x->n_frame++].parent = parent ? number[parent] : 0;
    }
    x->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t to = r[i].stack ? number[r[i].stack] : 0;
        if (to == UINT32_MAX)
            m->stats.cut++;
        else
            x->r[x->n++] = (struct reading){r[i].state, to};
    }
    sort_readings(x->r, x->n);
    x->can_end = can_end;
}

void matcher_reset(struct matcher *x)
{
    struct masker *m = x->m;
    struct closing c;
    pthread_mutex_lock(&m->lock);
    stacks_clear(&m->work);
    closing_begin(&c, m, x->g, &m->work, m->next);
    closing_add(&c, x->g->start, 0);
    keep(x, c.out, c.n, c.pop);
    pthread_mutex_unlock(&m->lock);
}

void matcher_restart(struct matcher *x, struct grammar *g)
{
    grammar_ref(g);
    grammar_unref(x->g);
    x->g = g;
    matcher_reset(x);
}

/* Reads the token's bytes; the result is in m->cur. */
static bool read_token(struct matcher *x, int32_t id, uint32_t *n, bool *can_end)
{
    struct masker *m = x->m;
    size_t len;
    const uint8_t *s = vocab_bytes(m->vocab, id, &len);
    if (!s || id >= m->n_id || vocab_is_special(m->vocab, id))
        return false;
    load(x);
    *n = x->n;
    for (size_t i = 0; i < len; i++) {
        *n = step(m, x->g, m->cur, *n, s[i], m->next, can_end);
        if (!*n && !(*can_end && i + 1 == len))
            return false;
        struct reading *t = m->cur;
        m->cur = m->next;
        m->next = t;
    }
    return true;
}

bool matcher_allows(struct matcher *x, int32_t id)
{
    uint32_t n;
    bool can_end;
    pthread_mutex_lock(&x->m->lock);
    bool yes = read_token(x, id, &n, &can_end);
    pthread_mutex_unlock(&x->m->lock);
    return yes;
}

status matcher_accept(struct matcher *x, int32_t id)
{
    uint32_t n;
    bool can_end;
    pthread_mutex_lock(&x->m->lock);
    bool yes = read_token(x, id, &n, &can_end);
    if (yes)
        keep(x, x->m->cur, n, can_end);
    pthread_mutex_unlock(&x->m->lock);
    return yes ? OK : E_INPUT;
}

bool matcher_can_end(const struct matcher *x)
{
    return x->can_end;
}

void matcher_copy(struct matcher *to, const struct matcher *from)
{
    ASSERT(to->m == from->m);
    if (to->g != from->g) {
        grammar_unref(to->g);
        to->g = grammar_ref(from->g);
    }
    to->n = from->n;
    to->n_frame = from->n_frame;
    to->can_end = from->can_end;
    memcpy(to->r, from->r, from->n * sizeof *to->r);
    memcpy(to->frame, from->frame, from->n_frame * sizeof *to->frame);
}

void matcher_free(struct matcher *x)
{
    if (!x)
        return;
    grammar_unref(x->g);
    mem_free(x->r);
    mem_free(x->frame);
    mem_free(x);
}

status matcher_new(struct masker *m, struct grammar *g, struct matcher **out)
{
    struct matcher *x = mem_calloc(1, sizeof *x);
    *out = NULL;
    if (!x)
        return E_NOMEM;
    x->m = m;
    x->g = grammar_ref(g);
    x->r = mem_array(N_READING, sizeof *x->r);
    x->frame = mem_array(N_FRAME, sizeof *x->frame);
    if (!x->r || !x->frame) {
        matcher_free(x);
        return E_NOMEM;
    }
    matcher_reset(x);
    *out = x;
    return OK;
}

/* ---- the masker ---- */

struct word {
    const uint8_t *s;
    uint32_t n;
    int32_t id;
};

static int by_bytes(const void *x, const void *y)
{
    const struct word *a = x, *b = y;
    int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

/* Tokens in byte order give the trie in preorder: each new token adds nodes behind the prefix that
 * it shares with the one before. */
static status build_trie(struct masker *m)
{
    status st = OK;
    size_t n = 0, nodes = 1;
    uint32_t open[MAX_TOKEN + 1]; /* node at each depth of the current path */
    const uint8_t *prev = NULL;
    uint32_t n_prev = 0;
    struct word *w = mem_array((size_t)m->n_id + 1, sizeof *w);
    if (!w)
        return E_NOMEM;
    for (int b = 0; b < 256; b++)
        m->single[b] = -1;
    for (int id = 0; id < m->n_id; id++) {
        size_t len;
        const uint8_t *s = vocab_bytes(m->vocab, id, &len);
        if (!s || vocab_is_special(m->vocab, id) || len > MAX_TOKEN)
            continue;
        w[n++] = (struct word){s, (uint32_t)len, id};
        nodes += len;
        m->max_len = len > m->max_len ? (uint16_t)len : m->max_len;
        if (len == 1)
            m->single[s[0]] = id;
    }
    qsort(w, n, sizeof *w, by_bytes);
    m->trie = mem_array(nodes, sizeof *m->trie);
    if (!m->trie) {
        st = E_NOMEM;
        goto out;
    }
    m->trie[0] = (struct tnode){.token = -1};
    m->n_trie = 1;
    open[0] = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t same = 0;
        while (same < n_prev && same < w[i].n && prev[same] == w[i].s[same])
            same++;
        for (uint32_t d = n_prev; d > same; d--)
            m->trie[open[d]].skip = m->n_trie;
        for (uint32_t d = same; d < w[i].n; d++) {
            open[d + 1] = m->n_trie;
            m->trie[m->n_trie++] =
                (struct tnode){.token = -1, .depth = (uint16_t)(d + 1), .byte = w[i].s[d]};
        }
        m->trie[open[w[i].n]].token = w[i].id;
        prev = w[i].s;
        n_prev = w[i].n;
    }
    for (uint32_t d = 0; d <= n_prev; d++)
        m->trie[open[d]].skip = m->n_trie;
    m->stats.trie_nodes = m->n_trie;
out:
    mem_free(w);
    return st;
}

static status open_pools(struct masker *m)
{
    status st = OK;
    TRY(stacks_open(&m->work, N_WORK));
    TRY(stacks_open(&m->local, POOL_FRAMES));
    TRY(memo_open(&m->memo, m->words, MEMO_BYTES));
    m->stats.bytes += memo_bytes(&m->memo);
    m->n_dense_max = (uint32_t)(POOL_DENSE_BYTES / (m->words * sizeof *m->dense));
    m->n_dense_max = m->n_dense_max < POOL_MASKS ? m->n_dense_max : POOL_MASKS;
    m->n_spell_max = (uint32_t)m->n_id * 3 + 4096;
    const struct {
        void *where;
        size_t n, size;
        bool zero;
    } part[] = {
        {&m->cur, N_READING, sizeof *m->cur, false},
        {&m->next, N_READING, sizeof *m->next, false},
        {&m->todo, N_WORK, sizeof *m->todo, false},
        {&m->seen_key, 2 * N_WORK, sizeof *m->seen_key, false},
        {&m->seen_stamp, 2 * N_WORK, sizeof *m->seen_stamp, true},
        {&m->target, N_WORK, sizeof *m->target, false},
        {&m->number, N_WORK, sizeof *m->number, false},
        {&m->set, POOL_SETS, sizeof *m->set, false},
        {&m->flags, POOL_SETS, sizeof *m->flags, true},
        {&m->chain, N_CHAIN, sizeof *m->chain, true},
        {&m->readings, POOL_READINGS, sizeof *m->readings, false},
        {&m->row, (size_t)POOL_ROWS * 256, sizeof *m->row, false},
        {&m->mask, POOL_MASKS, sizeof *m->mask, false},
        {&m->dense, m->n_dense_max * m->words, sizeof *m->dense, false},
        {&m->list, POOL_LIST, sizeof *m->list, false},
        {&m->exits, POOL_LIST / 4, sizeof *m->exits, false},
        {&m->spell, GSPAN_STATES, sizeof *m->spell, true},
        {&m->spell_list, m->n_spell_max, sizeof *m->spell_list, false},
        {&m->spell_open, GSPAN_STATES * m->words, sizeof *m->spell_open, false},
        {&m->bits, m->words, sizeof *m->bits, false},
        {&m->item, N_WORK, sizeof *m->item, false},
    };
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
        void *p =
            part[i].zero ? mem_calloc(part[i].n, part[i].size) : mem_array(part[i].n, part[i].size);
        memcpy(part[i].where, &p, sizeof p);
        if (!p)
            return E_NOMEM;
        m->stats.bytes += part[i].n * part[i].size;
    }
    m->stats.bytes += (size_t)(N_WORK + POOL_FRAMES) * (sizeof(struct frame) + 16);
    m->stats.bytes += (size_t)m->n_trie * sizeof *m->trie + m->prelude->g->bytes;
    stacks_clear(&m->work);
    forget(m);
    m->stats.flushed = 0;
out:
    return st;
}

void masker_free(struct masker *m)
{
    if (!m)
        return;
    stacks_close(&m->work);
    stacks_close(&m->local);
    memo_close(&m->memo);
    void *part[] = {m->ordinary,   m->trie,       m->cur,    m->next,     m->todo,      m->seen_key,
                    m->seen_stamp, m->set,        m->chain,  m->readings, m->row,       m->mask,
                    m->dense,      m->list,       m->exits,  m->bits,     m->item,      m->number,
                    m->spell,      m->spell_list, m->target, m->flags,    m->spell_open};
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++)
        mem_free(part[i]);
    prelude_free(m->prelude);
    pthread_mutex_destroy(&m->lock);
    mem_free(m);
}

status masker_new_plain(const struct vocab *v, int n_id, struct masker **out, struct err *e)
{
    struct masker *m = mem_calloc(1, sizeof *m);
    *out = NULL;
    if (!m)
        return err_set(e, E_NOMEM, "out of memory for masks");
    pthread_mutex_init(&m->lock, NULL);
    m->vocab = v;
    m->n_id = min_int(n_id, vocab_size(v));
    m->words = ((size_t)n_id + 31) / 32;
    m->ordinary = mem_calloc(m->words, sizeof *m->ordinary);
    if (!m->ordinary) {
        masker_free(m);
        return err_set(e, E_NOMEM, "out of memory for masks");
    }
    for (int id = 0; id < m->n_id; id++) {
        size_t len;
        if (vocab_bytes(v, id, &len) && !vocab_is_special(v, id) && len <= MAX_TOKEN)
            set_bit(m->ordinary, id);
    }
    *out = m;
    return OK;
}

status masker_new(const struct vocab *v, int n_id, struct masker **out, struct err *e)
{
    struct masker *m;
    *out = NULL;
    status st = masker_new_plain(v, n_id, &m, e);
    if (st < 0)
        return st;
    st = prelude_new(&m->prelude, e);
    if (st == OK)
        st = build_trie(m);
    if (st == OK)
        st = open_pools(m);
    if (st < 0) {
        masker_free(m);
        return err_set(e, st, "out of memory for masks");
    }
    (void)!spell(m, 0); /* what every string needs, before the first request */
    *out = m;
    return OK;
}

const struct prelude *masker_prelude(const struct masker *m)
{
    return m->prelude;
}

const struct vocab *masker_vocab(const struct masker *m)
{
    return m->vocab;
}

size_t masker_words(const struct masker *m)
{
    return m->words;
}

const uint32_t *masker_ordinary(const struct masker *m)
{
    return m->ordinary;
}

void masker_stats(struct masker *m, struct masker_stats *s)
{
    pthread_mutex_lock(&m->lock);
    *s = m->stats;
    pthread_mutex_unlock(&m->lock);
}
