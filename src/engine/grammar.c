#include "engine/grammar.h"

#include "base/mem.h"
#include "base/num.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum garc_kind { ARC_BYTE, ARC_EPS, ARC_CALL };

struct garc {
    uint32_t to, start; /* start: of a call */
    uint32_t next;      /* arc + 1 */
    uint8_t kind, lo, hi;
};

void gbuild_init(struct gbuild *b, struct gwork *w, const struct prelude *p)
{
    *b = (struct gbuild){.w = w, .p = p, .base = p ? p->g->n : 0};
}

status gbuild_state(struct gbuild *b, uint32_t *id)
{
    status st = OK;
    if (b->n >= GRAMMAR_STATES)
        return err_set(b->w->e, E_LIMIT, "the schema or pattern needs over %d states",
                       GRAMMAR_STATES);
    TRY(gwork_spend(b->w, 1));
    TRY(gwork_grow(b->w, &b->first, (size_t)b->n + 1, &b->cap_first, sizeof *b->first));
    TRY(gwork_grow(b->w, &b->is_end, (size_t)b->n + 1, &b->cap_end, 1));
    b->first[b->n] = 0;
    b->is_end[b->n] = 0;
    *id = b->base + b->n++;
out:
    return st;
}

static status put_arc(struct gbuild *b, uint32_t from, struct garc arc)
{
    status st = OK;
    ASSERT(from >= b->base && from - b->base < b->n);
    TRY(gwork_spend(b->w, 1));
    TRY(gwork_grow(b->w, &b->arc, b->n_arc + 1, &b->cap_arc, sizeof *b->arc));
    arc.next = b->first[from - b->base];
    b->arc[b->n_arc++] = arc;
    b->first[from - b->base] = (uint32_t)b->n_arc;
out:
    return st;
}

status gbuild_byte(struct gbuild *b, uint32_t from, uint8_t lo, uint8_t hi, uint32_t to)
{
    return put_arc(b, from, (struct garc){.to = to, .kind = ARC_BYTE, .lo = lo, .hi = hi});
}

status gbuild_eps(struct gbuild *b, uint32_t from, uint32_t to)
{
    return put_arc(b, from, (struct garc){.to = to, .kind = ARC_EPS});
}

status gbuild_call(struct gbuild *b, uint32_t from, uint32_t start, uint32_t ret)
{
    return put_arc(b, from, (struct garc){.to = ret, .start = start, .kind = ARC_CALL});
}

status gbuild_end(struct gbuild *b, uint32_t state)
{
    b->is_end[state - b->base] = 1;
    return OK;
}

status gbuild_text(struct gbuild *b, uint32_t from, const char *s, size_t n, uint32_t to)
{
    status st = OK;
    for (size_t i = 0; i < n; i++) {
        uint32_t next = to;
        if (i + 1 < n)
            TRY(gbuild_state(b, &next));
        TRY(gbuild_byte(b, from, (uint8_t)s[i], (uint8_t)s[i], next));
        from = next;
    }
out:
    return st;
}

static int by_bytes(const void *x, const void *y)
{
    const struct gintern_item *a = x, *b = y;
    int c = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

status gbuild_words(struct gbuild *b, uint32_t from, struct gintern_item *word, size_t n,
                    uint32_t to)
{
    status st = OK;
    uint32_t *path; /* [longest + 1] states along the word before */
    size_t longest = 0, n_prev = 0;
    const uint8_t *prev = NULL;
    for (size_t i = 0; i < n; i++) {
        longest = word[i].n > longest ? word[i].n : longest;
        TRY(gwork_spend(b->w, 8));
    }
    qsort(word, n, sizeof *word, by_bytes);
    TRY(gwork_array(b->w, longest + 1, sizeof *path, &path));
    path[0] = from;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *s = word[i].p;
        size_t same = 0;
        while (same < n_prev && same < word[i].n && s[same] == prev[same])
            same++;
        if (i && same == word[i].n && same == n_prev)
            continue; /* the same word again */
        for (size_t k = same; k < word[i].n; k++) {
            TRY(gbuild_state(b, &path[k + 1]));
            TRY(gbuild_byte(b, path[k], s[k], s[k], path[k + 1]));
        }
        TRY(gbuild_eps(b, path[word[i].n], to));
        prev = s;
        n_prev = word[i].n;
    }
out:
    return st;
}

/* ---- characters ---- */

/* The state "k continuation bytes 80..BF, then `to`". */
static status continued(struct gbuild *b, int k, uint32_t to, uint32_t *id)
{
    status st = OK;
    if (k == 0) {
        *id = to;
        return OK;
    }
    uint32_t **memo = &b->cont[k - 1], next;
    if (to >= b->base) {
        /* new parts of arena arrays are zero */
        TRY(gwork_grow(b->w, memo, (size_t)(to - b->base) + 1, &b->cap_cont[k - 1], sizeof **memo));
        if ((*memo)[to - b->base]) {
            *id = (*memo)[to - b->base];
            return OK;
        }
    }
    TRY(continued(b, k - 1, to, &next));
    TRY(gbuild_state(b, id));
    TRY(gbuild_byte(b, *id, 0x80, 0xbf, next));
    if (to >= b->base)
        b->cont[k - 1][to - b->base] = *id;
out:
    return st;
}

/* UTF-8 of the characters lo..hi, all of the same length `len`. Splits where the bytes after the
 * first differing one don't span 80..BF. */
static status utf8_range(struct gbuild *b, uint32_t from, uint32_t lo, uint32_t hi, int len,
                         uint32_t to)
{
    struct part {
        uint32_t lo, hi, from;
        int k; /* bytes left */
    } todo[32];
    status st = OK;
    int n = 0;
    todo[n++] = (struct part){lo, hi, from, len};
    while (n) {
        struct part t = todo[--n];
        /* the byte now due: the top bits of the 6 * (k - 1) + x that are left */
        int shift = 6 * (t.k - 1);
        static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
        uint8_t mark = t.k == len ? lead[len] : 0x80;
        uint32_t a = t.lo >> shift, z = t.hi >> shift, low = ((uint32_t)1 << shift) - 1, next;
        if (a != z && (t.lo & low) != 0) {
            todo[n++] = (struct part){(a + 1) << shift, t.hi, t.from, t.k};
            t.hi = a << shift | low;
            z = a;
        } else if (a != z && (t.hi & low) != low) {
            todo[n++] = (struct part){z << shift, t.hi, t.from, t.k};
            t.hi = (z << shift) - 1;
            z--;
        }
        uint8_t first = (uint8_t)(mark | a), last = (uint8_t)(mark | z);
        if ((t.lo & low) == 0 && (t.hi & low) == low) {
            TRY(continued(b, t.k - 1, to, &next));
            TRY(gbuild_byte(b, t.from, first, last, next));
        } else {
            TRY(gbuild_state(b, &next));
            TRY(gbuild_byte(b, t.from, first, first, next));
            todo[n++] = (struct part){t.lo & low, t.hi & low, next, t.k - 1};
        }
    }
out:
    return st;
}

static status raw_range(struct gbuild *b, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to)
{
    static const uint32_t last[4] = {0x7f, 0x7ff, 0xffff, CHAR_MAX_CP};
    status st = OK;
    uint32_t begin = 0;
    for (int k = 0; k < 4; begin = last[k++] + 1) {
        uint32_t l = lo > begin ? lo : begin, h = hi < last[k] ? hi : last[k];
        if (l > h)
            continue;
        if (k == 0)
            TRY(gbuild_byte(b, from, (uint8_t)l, (uint8_t)h, to));
        else
            TRY(utf8_range(b, from, l, h, k + 1, to));
    }
out:
    return st;
}

/* Characters lo..hi inside a JSON string, each in its shortest spelling. */
static status json_range(struct gbuild *b, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to)
{
    status st = OK;
    for (; lo < 0x20 && lo <= hi; lo++) {
        char s[8];
        static const char shorts[] = "\bb\ff\nn\rr\tt";
        const char *p = shorts;
        while (*p && *p != (char)lo)
            p += 2;
        int n = *p ? snprintf(s, sizeof s, "\\%c", p[1]) : snprintf(s, sizeof s, "\\u%04x", lo);
        TRY(gbuild_text(b, from, s, (size_t)n, to));
    }
    static const uint32_t quoted[] = {'"', '\\'};
    for (int k = 0; k < 2; k++) {
        uint32_t q = quoted[k];
        if (lo > q || lo > hi)
            continue;
        if (lo < q)
            TRY(raw_range(b, from, lo, hi < q ? hi : q - 1, to));
        if (hi >= q)
            TRY(gbuild_text(b, from, q == '"' ? "\\\"" : "\\\\", 2, to));
        lo = hi < q ? hi + 1 : q + 1;
    }
    if (lo <= hi)
        TRY(raw_range(b, from, lo, hi, to));
out:
    return st;
}

status gbuild_dfa(struct gbuild *b, const struct chardfa *d, bool json, uint32_t to,
                  uint32_t *start)
{
    status st = OK;
    uint32_t *id;
    if (!d->n) { /* nothing matches: a state without arcs */
        TRY(gbuild_state(b, start));
        return OK;
    }
    TRY(gwork_array(b->w, d->n, sizeof *id, &id));
    for (uint32_t s = 0; s < d->n; s++) {
        if (json && b->p && to == b->p->end && chardfa_is_free(d, s))
            id[s] = b->p->tail[PRELUDE_TAILS];
        else
            TRY(gbuild_state(b, &id[s]));
    }
    for (uint32_t s = 0; s < d->n; s++) {
        if (id[s] < b->base)
            continue;
        for (uint32_t i = d->at[s]; i < d->at[s + 1]; i++) {
            const struct char_edge *e = &d->edge[i];
            TRY(json ? json_range(b, id[s], e->lo, e->hi, id[e->to])
                     : raw_range(b, id[s], e->lo, e->hi, id[e->to]));
        }
        if (d->accept[s])
            TRY(json ? gbuild_byte(b, id[s], '"', '"', to) : gbuild_eps(b, id[s], to));
    }
    *start = id[0];
out:
    return st;
}

/* Any one character of a JSON string in any spelling. \u escapes come alone or as a surrogate pair;
 * a pair is one character. */
static status any_char(struct gbuild *b, uint32_t from, uint32_t to)
{
    status st = OK;
    uint32_t c1, c2, c3, e0, ed, f0, f4, esc, u1, u2, u3, u4, d2, p3, p4, ps, pu, l1, l2;
    TRY(gbuild_byte(b, from, 0x20, '"' - 1, to));
    TRY(gbuild_byte(b, from, '"' + 1, '\\' - 1, to));
    TRY(gbuild_byte(b, from, '\\' + 1, 0x7f, to));
    /* not `continued`: a block has its states to itself */
    uint32_t *fresh[] = {&c1, &c2, &c3, &e0, &ed, &f0, &f4, &esc, &u1, &u2,
                         &u3, &u4, &d2, &p3, &p4, &ps, &pu, &l1,  &l2};
    for (size_t i = 0; i < sizeof fresh / sizeof fresh[0]; i++)
        TRY(gbuild_state(b, fresh[i]));
    /* RFC 3629: no overlong forms, no surrogates, at most U+10FFFF */
    const struct {
        uint32_t from;
        uint8_t lo, hi;
        uint32_t to;
    } arc[] = {{c1, 0x80, 0xbf, to},    {c2, 0x80, 0xbf, c1},   {c3, 0x80, 0xbf, c2},
               {from, 0xc2, 0xdf, c1},  {from, 0xe0, 0xe0, e0}, {e0, 0xa0, 0xbf, c1},
               {from, 0xe1, 0xec, c2},  {from, 0xed, 0xed, ed}, {ed, 0x80, 0x9f, c1},
               {from, 0xee, 0xef, c2},  {from, 0xf0, 0xf0, f0}, {f0, 0x90, 0xbf, c2},
               {from, 0xf1, 0xf3, c3},  {from, 0xf4, 0xf4, f4}, {f4, 0x80, 0x8f, c2},
               {from, '\\', '\\', esc}, {esc, '"', '"', to},    {esc, '\\', '\\', to},
               {esc, '/', '/', to},     {esc, 'b', 'b', to},    {esc, 'f', 'f', to},
               {esc, 'n', 'n', to},     {esc, 'r', 'r', to},    {esc, 't', 't', to},
               {esc, 'u', 'u', u1},     {u1, '0', '9', u2},     {u1, 'a', 'c', u2},
               {u1, 'A', 'C', u2},      {u1, 'e', 'f', u2},     {u1, 'E', 'F', u2},
               {u1, 'd', 'd', d2},      {u1, 'D', 'D', d2},     {d2, '0', '7', u3},
               {d2, '8', '9', p3},      {d2, 'a', 'b', p3},     {d2, 'A', 'B', p3},
               {ps, '\\', '\\', pu},    {pu, 'u', 'u', l1},     {l1, 'd', 'd', l2},
               {l1, 'D', 'D', l2},      {l2, 'c', 'f', u3},     {l2, 'C', 'F', u3}};
    for (size_t i = 0; i < sizeof arc / sizeof arc[0]; i++)
        TRY(gbuild_byte(b, arc[i].from, arc[i].lo, arc[i].hi, arc[i].to));
    const uint32_t hex[][2] = {{u2, u3}, {u3, u4}, {u4, to}, {p3, p4}, {p4, ps}};
    for (size_t i = 0; i < sizeof hex / sizeof hex[0]; i++) {
        TRY(gbuild_byte(b, hex[i][0], '0', '9', hex[i][1]));
        TRY(gbuild_byte(b, hex[i][0], 'a', 'f', hex[i][1]));
        TRY(gbuild_byte(b, hex[i][0], 'A', 'F', hex[i][1]));
    }
out:
    return st;
}

/* A block of GSPAN_STATES states: *id, one character, `to`. */
static status char_block(struct gbuild *b, uint32_t to, uint32_t *id)
{
    status st = OK;
    TRY(gbuild_state(b, id));
    TRY(any_char(b, *id, to));
    ASSERT(b->base + b->n - *id == GSPAN_STATES);
out:
    return st;
}

static status put_span(struct gbuild *b, struct gspan span)
{
    status st = OK;
    TRY(gwork_grow(b->w, &b->span, b->n_span + 1, &b->cap_span, sizeof *b->span));
    b->span[b->n_span++] = span;
out:
    return st;
}

status gbuild_string(struct gbuild *b, uint32_t from, uint32_t min, uint32_t max)
{
    status st = OK;
    const struct prelude *p = b->p;
    uint32_t more = max == UINT32_MAX ? UINT32_MAX : max - min, cur, next, last, s;
    /* Beyond the tails, blocks: with k of them to go, either fewer characters than a block and the
     * end, or a whole block and k - 1. */
    uint32_t blocks = 0, rest = PRELUDE_TAILS;
    if (more != UINT32_MAX) {
        if (more >= PRELUDE_TAILS)
            blocks = (more - PRELUDE_TAILS) / PRELUDE_BLOCK + 1;
        rest = more - blocks * PRELUDE_BLOCK;
    }
    last = p->tail[rest];
    if (blocks) {
        TRY(gbuild_state(b, &last));
        cur = last;
        for (; blocks > 0; blocks--, cur = next) {
            TRY(gbuild_eps(b, cur, p->tail[PRELUDE_BLOCK - 1]));
            TRY(gbuild_state(b, &next));
            TRY(gbuild_call(b, cur, p->block, next));
        }
        TRY(gbuild_eps(b, cur, p->tail[rest]));
    }
    uint32_t singles = min % PRELUDE_BLOCK, first = b->base + b->n;
    for (uint32_t i = 0; i < singles; i++)
        TRY(char_block(b, last, &last));
    if (singles)
        TRY(put_span(
            b, (struct gspan){first, singles, 1, 1, more == UINT32_MAX ? UINT32_MAX : more + 1}));
    for (uint32_t k = min / PRELUDE_BLOCK; k > 0; k--) {
        TRY(gbuild_state(b, &s));
        TRY(gbuild_call(b, s, p->block, last));
        last = s;
    }
    TRY(gbuild_byte(b, from, '"', '"', last));
out:
    return st;
}

status gbuild_space(struct gbuild *b, uint32_t from, uint32_t to)
{
    status st = OK;
    TRY(gbuild_eps(b, from, to));
    TRY(gbuild_call(b, from, b->p->space, to));
out:
    return st;
}

status gbuild_blank(struct gbuild *b, uint32_t from, uint32_t to)
{
    status st = OK;
    TRY(gbuild_eps(b, from, to));
    uint32_t s;
    TRY(gbuild_state(b, &s));
    TRY(gbuild_byte(b, from, ' ', ' ', s));
    TRY(gbuild_eps(b, s, to));
out:
    return st;
}

/* ---- finishing ---- */

enum { NEVER = 255 };

/* height[s]: the fewest nested calls on a way from own state s to an end; NEVER when there is none
 * within GRAMMAR_HEIGHT. Dijkstra's algorithm with one queue per height, backwards over the arcs.
 */
static status heights(struct gbuild *b, uint8_t *height)
{
    status st = OK;
    uint32_t n = b->n;
    uint32_t *first, *rev, *todo;
    TRY(gwork_spend(b->w, (uint64_t)n + 2 * b->n_arc));
    TRY(gwork_array(b->w, (size_t)n + 2, sizeof *first, &first));
    TRY(gwork_array(b->w, 2 * b->n_arc + 1, sizeof *rev, &rev));
    TRY(gwork_array(b->w, (size_t)n + 2 * b->n_arc + 1, sizeof *todo, &todo));
    uint32_t *src, *link; /* of each arc; next of the queue at a height */
    TRY(gwork_array(b->w, b->n_arc + 1, sizeof *src, &src));
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t s = 0; s < n; s++)
            for (uint32_t i = b->first[s]; i; i = b->arc[i - 1].next) {
                const struct garc *a = &b->arc[i - 1];
                src[i - 1] = s;
                uint32_t to[2] = {a->to, a->kind == ARC_CALL ? a->start : 0};
                for (int k = 0; k < (a->kind == ARC_CALL ? 2 : 1); k++) {
                    if (to[k] < b->base)
                        continue;
                    if (pass == 0)
                        first[to[k] - b->base + 2]++;
                    else
                        rev[first[to[k] - b->base + 1]++] = i - 1;
                }
            }
        if (pass == 0)
            for (uint32_t s = 2; s < n + 2; s++)
                first[s] += first[s - 1];
    }
    uint32_t head[GRAMMAR_HEIGHT + 1]; /* queue entries are todo slots chained by link, 0: none */
    TRY(gwork_array(b->w, (size_t)n + 2 * b->n_arc + 2, sizeof *link, &link));
    memset(head, 0, sizeof head);
    memset(height, NEVER, n);
    uint32_t n_todo = 0;
    const struct grammar *pre = b->p ? b->p->g : NULL;
    /* seeds: end states, and what arcs into the prelude give at once */
    for (uint32_t s = 0; s < n; s++) {
        unsigned h = b->is_end[s] ? 0 : NEVER;
        for (uint32_t i = b->first[s]; i; i = b->arc[i - 1].next) {
            const struct garc *a = &b->arc[i - 1];
            if (a->to >= b->base || (a->kind == ARC_CALL && a->start >= b->base))
                continue;
            unsigned v = pre->state[a->to].height;
            if (a->kind == ARC_CALL && pre->state[a->start].height + 1u > v)
                v = pre->state[a->start].height + 1u;
            h = v < h ? v : h;
        }
        if (h <= GRAMMAR_HEIGHT) {
            height[s] = (uint8_t)h;
            todo[++n_todo] = s;
            link[n_todo] = head[h];
            head[h] = n_todo;
        }
    }
    for (unsigned h = 0; h <= GRAMMAR_HEIGHT; h++)
        while (head[h]) {
            uint32_t t = head[h], s = todo[t];
            head[h] = link[t];
            if (height[s] != h)
                continue; /* reached lower since */
            for (uint32_t i = first[s]; i < first[s + 1]; i++) {
                const struct garc *a = &b->arc[rev[i]];
                uint32_t from = src[rev[i]];
                unsigned v = a->to < b->base ? pre->state[a->to].height : height[a->to - b->base];
                if (a->kind == ARC_CALL) {
                    unsigned c = a->start < b->base ? pre->state[a->start].height
                                                    : height[a->start - b->base];
                    v = c + 1 > v ? c + 1 : v;
                }
                if (v > GRAMMAR_HEIGHT || v >= height[from])
                    continue;
                height[from] = (uint8_t)v;
                todo[++n_todo] = from;
                link[n_todo] = head[v];
                head[v] = n_todo;
            }
        }
out:
    return st;
}

static uint64_t next_id;

static int arc_order(const void *x, const void *y)
{
    const struct gbyte *a = x, *b = y;
    return a->lo != b->lo ? (a->lo > b->lo) - (a->lo < b->lo) : (a->to > b->to) - (a->to < b->to);
}

status gbuild_finish(struct gbuild *b, uint32_t start, struct grammar **out)
{
    status st = OK;
    uint8_t *height;
    struct grammar *g = NULL;
    *out = NULL;
    TRY(gwork_array(b->w, (size_t)b->n + 1, 1, &height));
    TRY(heights(b, height));
    const struct grammar *pre = b->p ? b->p->g : NULL;
#define HEIGHT(id) ((id) < b->base ? pre->state[id].height : height[(id)-b->base])
    if (HEIGHT(start) == NEVER)
        return err_set(b->w->e, E_INPUT,
                       "nothing satisfies the schema or pattern (or only nesting deeper than %d)",
                       GRAMMAR_HEIGHT);
    size_t n_kind[3] = {0, 0, 0};
    for (int pass = 0; pass < 2; pass++) {
        size_t at[3] = {0, 0, 0};
        for (uint32_t s = 0; s < b->n; s++) {
            if (pass)
                g->state[s] = (struct gstate){(uint32_t)at[ARC_BYTE], (uint32_t)at[ARC_EPS],
                                              (uint32_t)at[ARC_CALL], height[s], b->is_end[s]};
            size_t from = at[ARC_BYTE];
            for (uint32_t i = height[s] == NEVER ? 0 : b->first[s]; i; i = b->arc[i - 1].next) {
                const struct garc *a = &b->arc[i - 1];
                if (HEIGHT(a->to) == NEVER || (a->kind == ARC_CALL && HEIGHT(a->start) == NEVER))
                    continue;
                size_t k = at[a->kind]++;
                if (!pass)
                    continue;
                if (a->kind == ARC_BYTE)
                    g->byte[k] = (struct gbyte){a->to, a->lo, a->hi};
                else if (a->kind == ARC_EPS)
                    g->eps[k] = a->to;
                else
                    g->call[k] = (struct gcall){a->start, a->to};
            }
            if (pass && at[ARC_BYTE] - from > 1)
                qsort(g->byte + from, at[ARC_BYTE] - from, sizeof *g->byte, arc_order);
        }
        if (pass) {
            g->state[b->n] = (struct gstate){(uint32_t)at[ARC_BYTE], (uint32_t)at[ARC_EPS],
                                             (uint32_t)at[ARC_CALL], NEVER, false};
            break;
        }
        memcpy(n_kind, at, sizeof at);
        g = mem_calloc(1, sizeof *g);
        if (!g)
            return err_set(b->w->e, E_NOMEM, "out of memory compiling a schema");
        g->refs = 1;
        g->state = mem_array((size_t)b->n + 1, sizeof *g->state);
        g->byte = mem_array(n_kind[ARC_BYTE] + 1, sizeof *g->byte);
        g->eps = mem_array(n_kind[ARC_EPS] + 1, sizeof *g->eps);
        g->call = mem_array(n_kind[ARC_CALL] + 1, sizeof *g->call);
        g->span = mem_array(b->n_span + 1, sizeof *g->span);
        if (!g->state || !g->byte || !g->eps || !g->call || !g->span) {
            st = err_set(b->w->e, E_NOMEM, "out of memory compiling a schema");
            goto out;
        }
    }
    g->base = b->base;
    g->n = b->n;
    g->start = start;
    g->prelude = pre;
    g->n_span = (uint32_t)b->n_span;
    if (b->n_span)
        memcpy(g->span, b->span, b->n_span * sizeof *g->span);
    g->id = pre ? __atomic_add_fetch(&next_id, 1, __ATOMIC_RELAXED) : 0;
    for (uint32_t s = 0; s < b->n; s++)
        if (height[s] != NEVER && height[s] > g->max_height)
            g->max_height = height[s];
    if (pre && pre->max_height > g->max_height)
        g->max_height = pre->max_height;
#undef HEIGHT
    g->bytes = sizeof *g + (b->n + 1) * sizeof *g->state + n_kind[ARC_BYTE] * sizeof *g->byte +
               n_kind[ARC_EPS] * sizeof *g->eps + n_kind[ARC_CALL] * sizeof *g->call;
    *out = g;
    g = NULL;
out:
    grammar_unref(g);
    return st;
}

struct grammar *grammar_ref(struct grammar *g)
{
    __atomic_add_fetch(&g->refs, 1, __ATOMIC_RELAXED);
    return g;
}

void grammar_unref(struct grammar *g)
{
    if (!g || __atomic_sub_fetch(&g->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    mem_free(g->state);
    mem_free(g->byte);
    mem_free(g->eps);
    mem_free(g->call);
    mem_free(g->span);
    mem_free(g);
}

/* ---- the prelude ---- */

/* A run of 1 to `most` digits from `from` (the first of lo..'9'); each prefix may go on at `to`. */
static status digits(struct gbuild *b, uint32_t from, char lo, int most, uint32_t to)
{
    status st = OK;
    for (int i = 0; i < most; i++, lo = '0') {
        uint32_t d;
        TRY(gbuild_state(b, &d));
        TRY(gbuild_byte(b, from, (uint8_t)lo, '9', d));
        TRY(gbuild_eps(b, d, to));
        from = d;
    }
out:
    return st;
}

static status prelude_numbers(struct gbuild *b, struct prelude *p)
{
    status st = OK;
    uint32_t neg, whole, point, frac, e, sign;
    uint32_t *fresh[] = {&p->integer, &p->number, &neg, &whole, &point, &frac, &e, &sign};
    for (size_t i = 0; i < sizeof fresh / sizeof fresh[0]; i++)
        TRY(gbuild_state(b, fresh[i]));
    uint32_t int_neg;
    TRY(gbuild_state(b, &int_neg));
    TRY(gbuild_byte(b, p->integer, '0', '0', p->end));
    TRY(digits(b, p->integer, '1', GRAMMAR_DIGITS, p->end));
    TRY(gbuild_byte(b, p->integer, '-', '-', int_neg)); /* no -0: its type differs by reader */
    TRY(digits(b, int_neg, '1', GRAMMAR_DIGITS, p->end));

    TRY(gbuild_byte(b, p->number, '-', '-', neg));
    TRY(gbuild_eps(b, p->number, neg)); /* the sign is optional */
    TRY(gbuild_byte(b, neg, '0', '0', whole));
    TRY(digits(b, neg, '1', GRAMMAR_DIGITS, whole));
    TRY(gbuild_eps(b, whole, frac));
    TRY(gbuild_byte(b, whole, '.', '.', point));
    TRY(digits(b, point, '0', GRAMMAR_DIGITS, frac));
    TRY(gbuild_eps(b, frac, p->end));
    TRY(gbuild_byte(b, frac, 'e', 'e', e));
    TRY(gbuild_byte(b, frac, 'E', 'E', e));
    TRY(gbuild_byte(b, e, '+', '+', sign));
    TRY(gbuild_byte(b, e, '-', '-', sign));
    TRY(gbuild_eps(b, e, sign));
    TRY(digits(b, sign, '0', 2, p->end)); /* two digits: never beyond a double's range */
out:
    return st;
}

/* At most 0, 1, 2, ... characters and the closing quote; any number of them; exactly a block. */
static status prelude_strings(struct gbuild *b, struct prelude *p)
{
    status st = OK;
    uint32_t next = p->end;
    TRY(gbuild_state(b, &p->tail[0]));
    TRY(gbuild_byte(b, p->tail[0], '"', '"', p->end));
    for (int i = 1; i < PRELUDE_TAILS; i++) {
        TRY(char_block(b, p->tail[i - 1], &p->tail[i]));
        TRY(gbuild_byte(b, p->tail[i], '"', '"', p->end));
    }
    TRY(put_span(b, (struct gspan){p->tail[1], PRELUDE_TAILS - 1, 0, 0, 1}));
    uint32_t free = b->base + b->n;
    TRY(char_block(b, free, &p->tail[PRELUDE_TAILS]));
    TRY(gbuild_byte(b, free, '"', '"', p->end));
    TRY(put_span(b, (struct gspan){free, 1, 0, 0, UINT32_MAX}));
    uint32_t first = b->base + b->n;
    for (int i = 0; i < PRELUDE_BLOCK; i++)
        TRY(char_block(b, next, &next));
    TRY(put_span(b, (struct gspan){first, PRELUDE_BLOCK, UINT32_MAX, 0, 1}));
    p->block = next;
    TRY(gbuild_state(b, &p->string));
    TRY(gbuild_byte(b, p->string, '"', '"', free));
out:
    return st;
}

/* " ", or a line end and an indentation of blanks or tabs. */
static status prelude_space(struct gbuild *b, struct prelude *p)
{
    status st = OK;
    uint32_t line, s, t;
    TRY(gbuild_state(b, &p->space));
    TRY(gbuild_state(b, &line));
    TRY(gbuild_byte(b, p->space, ' ', ' ', p->end));
    TRY(gbuild_byte(b, p->space, '\n', '\n', line));
    TRY(gbuild_eps(b, line, p->end));
    s = line;
    for (int i = 0; i < GRAMMAR_INDENT + GRAMMAR_TABS; i++, s = t) {
        uint8_t c = i < GRAMMAR_INDENT ? ' ' : '\t';
        if (i == GRAMMAR_INDENT)
            s = line;
        TRY(gbuild_state(b, &t));
        TRY(gbuild_byte(b, s, c, c, t));
        TRY(gbuild_eps(b, t, p->end));
    }
out:
    return st;
}

static status prelude_values(struct gbuild *b, struct prelude *p)
{
    status st = OK;
    uint32_t o[8], a[4];
    uint32_t *fresh[] = {&p->boolean, &p->null, &p->any, &p->object, &p->array};
    for (size_t i = 0; i < sizeof fresh / sizeof fresh[0]; i++)
        TRY(gbuild_state(b, fresh[i]));
    for (int i = 0; i < 8; i++)
        TRY(gbuild_state(b, &o[i]));
    for (int i = 0; i < 4; i++)
        TRY(gbuild_state(b, &a[i]));
    TRY(gbuild_text(b, p->boolean, "true", 4, p->end));
    TRY(gbuild_text(b, p->boolean, "false", 5, p->end));
    TRY(gbuild_text(b, p->null, "null", 4, p->end));
    uint32_t values[] = {p->string, p->number, p->boolean, p->null, p->object, p->array};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        TRY(gbuild_eps(b, p->any, values[i]));

    b->p = p; /* white space is there by now */
    TRY(gbuild_byte(b, p->object, '{', '{', o[0]));
    TRY(gbuild_space(b, o[0], o[1]));
    TRY(gbuild_byte(b, o[1], '}', '}', p->end));
    TRY(gbuild_eps(b, o[1], o[2]));
    TRY(gbuild_call(b, o[2], p->string, o[3]));
    TRY(gbuild_byte(b, o[3], ':', ':', o[4]));
    TRY(gbuild_blank(b, o[4], o[5]));
    TRY(gbuild_call(b, o[5], p->any, o[6]));
    TRY(gbuild_space(b, o[6], o[7]));
    TRY(gbuild_byte(b, o[7], '}', '}', p->end));
    uint32_t comma;
    TRY(gbuild_state(b, &comma));
    TRY(gbuild_byte(b, o[6], ',', ',', comma));
    TRY(gbuild_space(b, comma, o[2]));

    TRY(gbuild_byte(b, p->array, '[', '[', a[0]));
    TRY(gbuild_space(b, a[0], a[1]));
    TRY(gbuild_byte(b, a[1], ']', ']', p->end));
    TRY(gbuild_call(b, a[1], p->any, a[2]));
    TRY(gbuild_space(b, a[2], a[3]));
    TRY(gbuild_byte(b, a[3], ']', ']', p->end));
    TRY(gbuild_state(b, &comma));
    TRY(gbuild_byte(b, a[2], ',', ',', comma));
    uint32_t elem;
    TRY(gbuild_state(b, &elem));
    TRY(gbuild_space(b, comma, elem));
    TRY(gbuild_call(b, elem, p->any, a[2]));
out:
    b->p = NULL;
    return st;
}

status prelude_new(struct prelude **out, struct err *e)
{
    status st = OK;
    struct gwork w;
    struct gbuild b;
    struct prelude *p = mem_calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_set(e, E_NOMEM, "out of memory for grammars");
    gwork_init(&w, e);
    gbuild_init(&b, &w, NULL);
    TRY(gbuild_state(&b, &p->end));
    TRY(gbuild_end(&b, p->end));
    TRY(prelude_numbers(&b, p));
    TRY(prelude_strings(&b, p));
    TRY(prelude_space(&b, p));
    TRY(prelude_values(&b, p));
    TRY(gbuild_finish(&b, p->any, &p->g));
    *out = p;
    p = NULL;
out:
    prelude_free(p);
    gwork_fini(&w);
    return st;
}

void prelude_free(struct prelude *p)
{
    if (!p)
        return;
    grammar_unref(p->g);
    mem_free(p);
}
