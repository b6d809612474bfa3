/* Text <-> tokens.
 *
 * Encoding runs in three steps: the text is checked to be UTF-8; piece_end() cuts it into pieces
 * (words, numbers, punctuation, blanks) the way the o200k regular expression does; each piece is
 * looked up whole, and only if it is no token its bytes are merged pair by pair, lowest id first.
 *
 * Cost is bounded on any input. The splitter looks at a character at most a few times: what a piece
 * leaves over (the capitals after "x" in "xABC", the last blank of a run) is scanned once more by
 * the next piece and then consumed. The merge keeps pair ranks in a tournament tree, so that n
 * bytes cost n log n, and takes long pieces a stretch at a time. There is no state outside the
 * call.
 */
#include "text/o200k.h"

#include "base/mem.h"
#include "text/o200k_tab.h"
#include "text/utf8.h"
#include "text/vocab_tab.h"

#include <limits.h>

/* ---- struct ids ---- */

void ids_init(struct ids *t, size_t max)
{
    *t = (struct ids){.max = max};
}

void ids_fini(struct ids *t)
{
    mem_free(t->v);
    ids_init(t, t->max);
}

/* Room for `more` ids past t->n, or false with t->st set. */
static bool ids_room(struct ids *t, size_t more)
{
    if (t->st < 0)
        return false;
    if (more > t->max - t->n) {
        t->st = E_LIMIT;
        return false;
    }
    if (t->n + more > t->cap) {
        size_t cap = t->cap ? t->cap : 64;
        while (cap < t->n + more)
            cap *= 2;
        int32_t *p = mem_realloc_array(t->v, cap, sizeof *p);
        if (!p) {
            t->st = E_NOMEM;
            return false;
        }
        t->v = p;
        t->cap = cap;
    }
    return true;
}

void ids_put(struct ids *t, int32_t id)
{
    if (ids_room(t, 1))
        t->v[t->n++] = id;
}

void ids_append(struct ids *t, const int32_t *v, size_t n)
{
    if (n == 0 || !ids_room(t, n))
        return;
    memcpy(t->v + t->n, v, n * sizeof *v);
    t->n += n;
}

/* ---- the split ---- */

/* A stretch of valid UTF-8 being cut. Look-ahead never leaves it. */
struct span {
    const uint8_t *s; /* [n] */
    size_t n;
};

/* Class and length of the character at i < n. */
static inline enum ch_class class_at(struct span t, size_t i, size_t *len)
{
    const uint8_t *b = t.s + i;
    if (b[0] < 0x80) {
        *len = 1;
        return ch_class[0][b[0]]; /* block 0 is the first of the table */
    }
    if (b[0] < 0xe0) {
        *len = 2;
        return ch_class_of((b[0] & 0x1fu) << 6 | (b[1] & 0x3fu));
    }
    if (b[0] < 0xf0) {
        *len = 3;
        return ch_class_of((b[0] & 0x0fu) << 12 | (b[1] & 0x3fu) << 6 | (b[2] & 0x3fu));
    }
    *len = 4;
    return ch_class_of((b[0] & 0x07u) << 18 | (b[1] & 0x3fu) << 12 | (b[2] & 0x3fu) << 6 |
                       (b[3] & 0x3fu));
}

static inline bool in_lower_half(enum ch_class c) /* Ll Lm Lo M */
{
    return c >= CH_LOWER;
}

static inline bool in_upper_half(enum ch_class c) /* Lu Lt Lm Lo M */
{
    return c >= CH_UPPER && c != CH_LOWER;
}

/* A word whose second half is not empty: [Lu Lt Lm Lo M]* [Ll Lm Lo M]+ from p. The first half is
 * greedy, so without a character that is only in the second half it gives back what follows its
 * last Lm, Lo or M. Returns the end, or 0 when there's no such word; *upper_end is then the end of
 * the capitals at p (p when there are none). */
static size_t word_end(struct span t, size_t p, size_t *upper_end)
{
    size_t e = p, last = 0, len;
    while (e < t.n) {
        enum ch_class c = class_at(t, e, &len);
        if (c == CH_LOWER) {
            do {
                e += len;
            } while (e < t.n && in_lower_half(class_at(t, e, &len)));
            return e;
        }
        if (!in_upper_half(c))
            break;
        e += len;
        if (c != CH_UPPER)
            last = e;
    }
    *upper_end = e;
    return last;
}

/* The end after an optional 's 't 're 've 'm 'll 'd in any case. Case folding makes U+017F (long s,
 * C5 BF) an s too. */
static size_t contraction_end(struct span t, size_t i)
{
    if (i + 1 >= t.n || t.s[i] != '\'')
        return i;
    uint8_t a = t.s[i + 1] | 0x20, b = i + 2 < t.n ? t.s[i + 2] : 0;
    if (t.s[i + 1] == 0xc5)
        return b == 0xbf ? i + 3 : i;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return i + 2;
    b |= 0x20;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l'))
        return i + 3;
    return i;
}

/* End of the run of CR, LF and '/' at i. */
static size_t slashes_end(struct span t, size_t i)
{
    while (i < t.n && (t.s[i] == '\r' || t.s[i] == '\n' || t.s[i] == '/'))
        i++;
    return i;
}

/* Blanks at i: up to and with the last line end; else all but the last, which goes with what
 * follows. */
static size_t blank_end(struct span t, size_t i)
{
    size_t e = i, line_end = 0, before = i, len;
    while (e < t.n) {
        enum ch_class c = class_at(t, e, &len);
        if (c != CH_SPACE && c != CH_NEWLINE)
            break;
        before = e;
        e += len;
        if (c == CH_NEWLINE)
            line_end = e;
    }
    if (line_end)
        return line_end;
    return e == t.n || before == i ? e : before;
}

/* End of the piece that begins at i < n. */
static size_t piece_end(struct span t, size_t i)
{
    size_t len, upper_end, end;
    enum ch_class c = class_at(t, i, &len);
    switch (c) {
    case CH_UPPER:
    case CH_LOWER:
    case CH_OTHER:
        end = word_end(t, i, &upper_end);
        return contraction_end(t, end ? end : upper_end);
    case CH_DIGIT:
        end = i + len;
        for (int k = 1; k < 3 && end < t.n && class_at(t, end, &len) == CH_DIGIT; k++)
            end += len;
        return end;
    case CH_NEWLINE:
        return blank_end(t, i);
    case CH_PUNCT:
    case CH_SPACE:
    case CH_MARK:
        break;
    }
    /* One character that is no letter may lead a word. */
    size_t next = i + len;
    end = word_end(t, next, &upper_end);
    if (end)
        return contraction_end(t, end);
    if (c == CH_MARK) { /* is a word by itself, before a capitals-only word is tried */
        size_t unused;
        return contraction_end(t, word_end(t, i, &unused));
    }
    if (upper_end > next)
        return contraction_end(t, upper_end);
    /* Not a word: punctuation, which one U+0020 may lead. */
    if (c == CH_SPACE) {
        if (t.s[i] != ' ' || next == t.n || class_at(t, next, &len) != CH_PUNCT)
            return blank_end(t, i);
        next += len;
    }
    while (next < t.n) {
        c = class_at(t, next, &len);
        if (c != CH_PUNCT && c != CH_MARK)
            break;
        next += len;
    }
    return slashes_end(t, next);
}

/* ---- the merge ---- */

/* A piece being merged. Parts keep their numbers; a merge joins a part with the next one still
 * alive. The rank of every live part joined with its successor lies in blocks of BLOCK, and a
 * binary tree of minima over the blocks leads to the leftmost lowest, the next pair to merge. */
enum { BLOCK = 8, MAX_SHORT = 63, STACK_PARTS = 1024, NO_RANK = -1, PAD = 8 };

struct merge {
    const struct vocab *v;
    const uint8_t *s; /* [n + PAD] a copy of the piece: 8 bytes are readable at any place in it */
    size_t n;
    size_t n_part, n_leaf; /* n_leaf: blocks, rounded up to a power of two */
    uint32_t *at;          /* [n_part + 1] where each part starts, then n */
    int32_t *id;           /* [n_part] token of each live part */
    uint64_t *live;        /* [n_part / 64 + 1] bit i: part i is alive; bit n_part is set too */
    uint32_t *rank;        /* [n_part, rounded up to BLOCK] NO_RANK: dead or no token */
    uint32_t *tree;        /* [2 * n_leaf] node 1 is the root, i has children 2i and 2i + 1 */
};

/* The n >= 1 bytes from s as a little-endian number; 8 are readable. */
static inline uint64_t load_key(const uint8_t *s, size_t n)
{
    uint64_t key;
    memcpy(&key, s, 8);
    return key & UINT64_MAX >> (64 - 8 * n);
}

/* Rank of the parts from i to before k as one token: its id. */
static inline uint32_t rank_of(const struct merge *g, size_t i, size_t k)
{
    const uint8_t *s = g->s + g->at[i];
    size_t n = g->at[k] - g->at[i];
    if (n == 2)
        return (uint32_t)g->v->pairs[s[0] * 256 + s[1]];
    if (n <= VOCAB_SHORT_MAX)
        return (uint32_t)vocab_find_rare(g->v, load_key(s, n), n);
    return (uint32_t)vocab_find_long(g->v, s, n, vocab_hash(s, n));
}

static inline size_t next_live(const struct merge *g, size_t i)
{
    size_t w = ++i / 64;
    uint64_t bits = g->live[w] >> i % 64;
    if (bits)
        return i + (size_t)__builtin_ctzll(bits);
    while (!g->live[++w])
        ;
    return w * 64 + (size_t)__builtin_ctzll(g->live[w]);
}

static inline size_t prev_live(const struct merge *g, size_t i)
{
    size_t w = --i / 64;
    uint64_t bits = g->live[w] << (63 - i % 64);
    if (bits)
        return i - (size_t)__builtin_clzll(bits);
    while (!g->live[--w])
        ;
    return w * 64 + 63 - (size_t)__builtin_clzll(g->live[w]);
}

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t block_min(const uint32_t *rank)
{
    uint32_t a = min_u32(min_u32(rank[0], rank[1]), min_u32(rank[2], rank[3]));
    return min_u32(a, min_u32(min_u32(rank[4], rank[5]), min_u32(rank[6], rank[7])));
}

/* Brings the tree up to date after a change in the block of part i. */
static inline void update(struct merge *g, size_t i)
{
    size_t node = g->n_leaf + i / BLOCK;
    uint32_t m = block_min(g->rank + i / BLOCK * BLOCK);
    while (g->tree[node] != m) {
        g->tree[node] = m;
        if (node == 1)
            break;
        m = min_u32(m, g->tree[node ^ 1]);
        node /= 2;
    }
}

/* The part whose pair is the lowest, the leftmost of equals. There is one. */
static inline size_t lowest(const struct merge *g)
{
    uint32_t rank = g->tree[1];
    size_t node = 1;
    while (node < g->n_leaf)
        node = 2 * node + (g->tree[2 * node] != rank);
    size_t i = (node - g->n_leaf) * BLOCK;
    while (g->rank[i] != rank)
        i++;
    return i;
}

/* The parts to begin with: bytes, but whole characters where that is the same (vocab_tab.h). */
static void cut(struct merge *g)
{
    const uint8_t *s = g->s;
    size_t m = 0;
    for (size_t i = 0, len; i < g->n; i += len) {
        g->id[m] = g->v->singles[s[i]];
        g->at[m++] = (uint32_t)i;
        len = 1;
        if (s[i] < 0xc0 || s[i] >= 0xf0)
            continue;
        size_t n_char = s[i] < 0xe0 ? 2 : 3;
        if (n_char > g->n - i) /* a stretch of a piece may end inside a character */
            continue;
        uint32_t cp = n_char == 2
                          ? (s[i] & 0x1fu) << 6 | (s[i + 1] & 0x3fu)
                          : (s[i] & 0x0fu) << 12 | (s[i + 1] & 0x3fu) << 6 | (s[i + 2] & 0x3fu);
        uint32_t id = g->v->chars[cp];
        size_t end = i + n_char;
        if (id != VOCAB_NO_CHAR && (i == 0 || id < g->v->seams[s[i - 1] * 256 + s[i]]) &&
            (end == g->n || id < g->v->seams[s[end - 1] * 256 + s[end]])) {
            g->id[m - 1] = (int32_t)id;
            len = n_char;
        }
    }
    g->at[m] = (uint32_t)g->n;
    g->n_part = m;
}

static void merge_long(struct merge *g)
{
    size_t m = g->n_part, n_block = (m + BLOCK - 1) / BLOCK;
    memset(g->live, 0xff, (m / 64 + 1) * sizeof *g->live);
    for (size_t i = 0; i + 1 < m; i++)
        g->rank[i] = rank_of(g, i, i + 2);
    for (size_t i = m - 1; i < n_block * BLOCK; i++)
        g->rank[i] = (uint32_t)NO_RANK;
    for (size_t i = 0; i < g->n_leaf; i++)
        g->tree[g->n_leaf + i] = i < n_block ? block_min(g->rank + i * BLOCK) : (uint32_t)NO_RANK;
    for (size_t i = g->n_leaf; i-- > 1;)
        g->tree[i] = min_u32(g->tree[2 * i], g->tree[2 * i + 1]);
    while (g->tree[1] != (uint32_t)NO_RANK) {
        size_t a = lowest(g), b = next_live(g, a), c = next_live(g, b);
        g->id[a] = (int32_t)g->rank[a];
        g->live[b / 64] &= ~((uint64_t)1 << b % 64);
        g->rank[b] = (uint32_t)NO_RANK;
        g->rank[a] = c < m ? rank_of(g, a, next_live(g, c)) : (uint32_t)NO_RANK;
        if (a > 0) {
            size_t before = prev_live(g, a);
            g->rank[before] = rank_of(g, before, c);
            if (before / BLOCK != a / BLOCK)
                update(g, before);
        }
        if (b / BLOCK != a / BLOCK)
            update(g, b);
        update(g, a);
    }
}

/* A rank with the part it belongs to: the least key is the leftmost of the lowest. */
static inline uint64_t key_of(uint32_t rank, size_t part)
{
    return (uint64_t)rank << 8 | part;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t row_min(const uint64_t *key)
{
    uint64_t a = min_u64(min_u64(key[0], key[1]), min_u64(key[2], key[3]));
    return min_u64(a, min_u64(min_u64(key[4], key[5]), min_u64(key[6], key[7])));
}

/* The same for at most MAX_SHORT parts, almost all pieces there are: one word says who is alive,
 * the minima of the blocks are searched in a row, and nothing but the lookups branches on data. */
static void merge_short(struct merge *g)
{
    size_t m = g->n_part, n_row = (m + BLOCK - 1) / BLOCK;
    uint64_t key[MAX_SHORT + 1], low[(MAX_SHORT + 1) / BLOCK];
    uint64_t live = UINT64_MAX >> (63 - m); /* bit m ends every search */
    for (size_t i = 0; i + 1 < m; i++)
        key[i] = key_of(rank_of(g, i, i + 2), i);
    for (size_t i = m - 1; i < n_row * BLOCK; i++)
        key[i] = UINT64_MAX;
    for (size_t i = 0; i < n_row; i++)
        low[i] = row_min(key + i * BLOCK);
    for (;;) {
        uint64_t best = low[0];
        for (size_t i = 1; i < n_row; i++)
            best = min_u64(best, low[i]);
        if (best >= key_of((uint32_t)NO_RANK, 0))
            break;
        size_t a = best & 0xff;
        uint64_t after = live & UINT64_MAX << a << 1, below = live & (((uint64_t)1 << a) - 1);
        size_t b = (size_t)__builtin_ctzll(after);
        after &= after - 1;
        size_t c = (size_t)__builtin_ctzll(after);
        after &= after - 1;
        size_t before = below ? 63 - (size_t)__builtin_clzll(below) : b;
        live &= ~((uint64_t)1 << b);
        g->id[a] = (int32_t)(best >> 8);
        key[b] = UINT64_MAX;
        key[a] = after ? key_of(rank_of(g, a, (size_t)__builtin_ctzll(after)), a) : UINT64_MAX;
        key[before] = below ? key_of(rank_of(g, before, c), before) : UINT64_MAX;
        low[a / BLOCK] = row_min(key + a / BLOCK * BLOCK);
        low[b / BLOCK] = row_min(key + b / BLOCK * BLOCK);
        low[before / BLOCK] = row_min(key + before / BLOCK * BLOCK);
    }
    g->live[0] = live;
}

/* Merges the n bytes at s; the arrays have room. */
static void merge_bytes(struct merge *g, uint8_t *copy, const uint8_t *s, size_t n)
{
    memcpy(copy, s, n);
    memset(copy + n, 0, PAD);
    g->s = copy;
    g->n = n;
    cut(g);
    g->n_leaf = 1;
    while (g->n_leaf * BLOCK < g->n_part)
        g->n_leaf *= 2;
    if (g->n_part <= MAX_SHORT)
        merge_short(g);
    else
        merge_long(g);
}

/* The ids of at most STACK_PARTS bytes; returns how many. */
static size_t merge_stretch(const struct vocab *v, const uint8_t *s, size_t n, int32_t *out)
{
    uint8_t copy[STACK_PARTS + PAD];
    uint32_t at[STACK_PARTS + 1], rank[STACK_PARTS], tree[2 * STACK_PARTS / BLOCK];
    uint64_t live[STACK_PARTS / 64 + 1];
    struct merge g = {.v = v, .at = at, .id = out, .live = live, .rank = rank, .tree = tree};
    size_t m = 0;
    merge_bytes(&g, copy, s, n);
    for (size_t i = 0; i < g.n_part; i = next_live(&g, i))
        out[m++] = out[i];
    return m;
}

/* A piece of any length at once; takes some 15 bytes of memory for each byte. */
static status merge_whole(const struct vocab *v, const uint8_t *s, size_t n, struct ids *t)
{
    struct merge g = {.v = v};
    size_t n_live = n / 64 + 1, n_leaf = 1;
    while (n_leaf * BLOCK < n)
        n_leaf *= 2;
    uint8_t *heap = mem_alloc(n_live * 8 + 4 * ((n + 1) + n + (n + BLOCK) + 2 * n_leaf) + n + PAD);
    if (!heap)
        return E_NOMEM;
    g.live = (uint64_t *)(void *)heap;
    g.at = (uint32_t *)(g.live + n_live);
    g.id = (int32_t *)(g.at + n + 1);
    g.rank = (uint32_t *)(g.id + n);
    g.tree = g.rank + n + BLOCK;
    merge_bytes(&g, (uint8_t *)(g.tree + 2 * n_leaf), s, n);
    for (size_t i = 0; i < g.n_part; i = next_live(&g, i))
        ids_put(t, g.id[i]);
    mem_free(heap);
    return t->st;
}

/* True when merging the bytes of two tokens gives the two back. s is where the second begins. */
static bool stay_apart(const struct vocab *v, const uint8_t *s, int32_t left, int32_t right)
{
    size_t n_left, n_right;
    int32_t out[STACK_PARTS];
    vocab_at(v, left, &n_left);
    vocab_at(v, right, &n_right);
    return merge_stretch(v, s - n_left, n_left + n_right, out) == 2 && out[0] == left &&
           out[1] == right;
}

/* Appends the ids of a piece that is no token itself.
 *
 * A long piece is merged in stretches, which keeps memory small and near. Tokens whose neighbours
 * all stay apart when merged in pairs are the outcome of merging the whole: its first merge across
 * one of their borders would, seen from the two tokens beside it, happen in the pair as well.
 * Within a stretch they stay apart, so only where two stretches meet is it tried: the last tokens
 * of a stretch, which what follows may change, are dropped and the next stretch begins with their
 * bytes. Should the border not hold, the piece is merged at once. */
static status merge_piece(const struct vocab *v, const uint8_t *s, size_t n, struct ids *t)
{
    int32_t out[STACK_PARTS];
    size_t before = t->n, redo = 2 * v->max_len; /* bytes of a stretch to drop, at least */
    if (n > STACK_PARTS && 4 * redo > STACK_PARTS)
        return merge_whole(v, s, n, t);
    for (size_t from = 0;;) {
        size_t n_stretch = n - from < STACK_PARTS ? n - from : STACK_PARTS;
        size_t m = merge_stretch(v, s + from, n_stretch, out);
        if (from > 0 && !stay_apart(v, s + from, t->v[t->n - 1], out[0])) {
            t->n = before;
            return merge_whole(v, s, n, t);
        }
        bool last = from + n_stretch == n;
        from += n_stretch;
        for (size_t dropped = 0, len; !last && dropped < redo; dropped += len) {
            vocab_at(v, out[--m], &len);
            from -= len;
        }
        ids_append(t, out, m);
        if (last || t->st < 0)
            return t->st;
    }
}

/* ---- encode ---- */

/* Pieces that had to be merged come again in real text: words the vocabulary lacks. A slot tells
 * where in the call's text one was and which ids it gave. */
struct seen {
    const uint8_t *s; /* [n] in the text; NULL: free slot */
    uint32_t n, n_id;
    size_t i_id; /* in struct ids */
};

struct encoder {
    const struct vocab *v;
    struct ids *t;
    int seen_bits;
    struct seen seen[1 << 10];
};

static void encoder_init(struct encoder *c, const struct vocab *v, struct ids *t, size_t n_text)
{
    c->v = v;
    c->t = t;
    c->seen_bits = 2;
    while (c->seen_bits < 10 && (size_t)16 << c->seen_bits < n_text)
        c->seen_bits++;
    memset(c->seen, 0, sizeof c->seen[0] << c->seen_bits);
}

/* Appends the ids of a piece that is no token itself. */
static status put_merged(struct encoder *c, const uint8_t *s, size_t n, uint64_t hash)
{
    struct ids *t = c->t;
    struct seen *slot = &c->seen[hash >> (64 - c->seen_bits)];
    if (slot->s && slot->n == n && memcmp(slot->s, s, n) == 0) {
        if (ids_room(t, slot->n_id)) {
            memcpy(t->v + t->n, t->v + slot->i_id, slot->n_id * sizeof *t->v);
            t->n += slot->n_id;
        }
        return t->st;
    }
    size_t before = t->n;
    status st = merge_piece(c->v, s, n, t);
    *slot =
        (struct seen){.s = s, .n = (uint32_t)n, .n_id = (uint32_t)(t->n - before), .i_id = before};
    return st;
}

/* Text without special tokens. */
static status encode_plain(struct encoder *c, struct span text)
{
    const struct vocab *v = c->v;
    for (size_t i = 0, end; i < text.n; i = end) {
        end = piece_end(text, i);
        const uint8_t *s = text.s + i;
        size_t n = end - i;
        uint64_t hash;
        int32_t id;
        if (n <= VOCAB_SHORT_MAX) {
            uint64_t key = text.n - i >= 8 ? load_key(s, n) : vocab_key(s, n);
            hash = vocab_hash_short(key, n);
            id = vocab_find_short(v, key, hash, n);
        } else {
            hash = vocab_hash(s, n);
            id = vocab_find_long(v, s, n, hash);
        }
        if (id >= 0)
            ids_put(c->t, id);
        else if (put_merged(c, s, n, hash) == E_NOMEM)
            return E_NOMEM;
        if (c->t->st < 0)
            return c->t->st;
    }
    return OK;
}

/* The special token at s, the longest if several fit: its id, else -1. */
static int32_t special_at(const struct vocab *v, const uint8_t *s, size_t left, size_t *n)
{
    if (!(v->special_first[s[0] / 64] >> s[0] % 64 & 1))
        return -1;
    uint64_t lens = v->special_len;
    while (lens) {
        *n = 64 - (size_t)__builtin_clzll(lens);
        lens &= ~((uint64_t)1 << (*n - 1));
        int32_t id = *n <= left ? vocab_find_special(v, s, *n) : -1;
        if (id >= 0)
            return id;
    }
    return -1;
}

static status encode_marked(struct encoder *c, struct span text, enum special_mode mode,
                            struct err *e)
{
    status st = OK;
    size_t from = 0;
    for (size_t i = 0, n; i < text.n;) {
        int32_t id = special_at(c->v, text.s + i, text.n - i, &n);
        if (id < 0) {
            i++;
            continue;
        }
        if (mode == SPECIAL_ERROR)
            return err_set(e, E_INPUT, "the text contains the special token %.*s at byte %zu",
                           (int)n, (const char *)text.s + i, i);
        TRY(encode_plain(c, (struct span){text.s + from, i - from}));
        ids_put(c->t, id);
        TRY(c->t->st);
        from = i += n;
    }
    TRY(encode_plain(c, (struct span){text.s + from, text.n - from}));
out:
    return st;
}

status o200k_encode(const struct vocab *v, const char *text, size_t n, enum special_mode mode,
                    struct ids *t, struct err *e)
{
    if (n > INT_MAX)
        return err_set(e, E_LIMIT, "a text of %zu bytes is too long to encode", n);
    size_t valid = utf8_valid(text, n);
    if (valid < n)
        return err_set(e, E_INPUT, "the text is not valid UTF-8 at byte %zu", valid);
    size_t before = t->n;
    struct span all = {(const uint8_t *)text, n};
    struct encoder c;
    encoder_init(&c, v, t, n);
    status st = mode == SPECIAL_TEXT ? encode_plain(&c, all) : encode_marked(&c, all, mode, e);
    if (st == OK)
        return OK;
    t->n = before;
    if (st == E_LIMIT)
        err_set(e, st, "the text has more than %zu tokens", t->max - before);
    else if (st == E_NOMEM)
        err_set(e, st, "out of memory encoding %zu bytes of text", n);
    return st;
}

status o200k_decode(const struct vocab *v, const int32_t *ids, size_t n, struct buf *out,
                    struct err *e)
{
    size_t total = 0, len;
    for (size_t i = 0; i < n; i++) {
        if (!vocab_bytes(v, ids[i], &len))
            return err_set(e, E_INPUT, "%d is no token of this vocabulary", (int)ids[i]);
        total += len;
    }
    char *to = buf_room(out, total);
    if (!to) {
        status st = buf_status(out);
        return err_set(e, st, "cannot decode %zu tokens: %s", n, err_name(st));
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = vocab_at(v, ids[i], &len);
        memcpy(to, p, len);
        to += len;
    }
    if (total) {
        out->n += total;
        out->p[out->n] = '\0';
    }
    return OK;
}
