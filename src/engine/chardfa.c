#include "engine/chardfa.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

status chardfa_state(struct gwork *w, struct chardfa *d, bool accept)
{
    status st = OK;
    if (d->n >= CHARDFA_STATES)
        return err_set(w->e, E_LIMIT, "a pattern, format or number range needs over %d states",
                       CHARDFA_STATES);
    TRY(gwork_spend(w, 1));
    TRY(gwork_grow(w, &d->at, d->n + 2, &d->cap_at, sizeof *d->at));
    TRY(gwork_grow(w, &d->accept, d->n + 1, &d->cap_accept, 1));
    d->accept[d->n++] = accept;
    d->at[d->n] = d->at[d->n - 1];
out:
    return st;
}

status chardfa_edge(struct gwork *w, struct chardfa *d, uint32_t lo, uint32_t hi, uint32_t to)
{
    status st = OK;
    uint32_t k = d->at[d->n];
    if (k > d->at[d->n - 1] && d->edge[k - 1].to == to && d->edge[k - 1].hi + 1 == lo) {
        d->edge[k - 1].hi = hi;
        return OK;
    }
    TRY(gwork_spend(w, 1));
    TRY(gwork_grow(w, &d->edge, (size_t)k + 1, &d->cap_edge, sizeof *d->edge));
    d->edge[k] = (struct char_edge){lo, hi, to};
    d->at[d->n] = k + 1;
out:
    return st;
}

status chardfa_trim(struct gwork *w, struct chardfa *d)
{
    status st = OK;
    uint32_t n = d->n, n_edge = n ? d->at[n] : 0;
    if (!n)
        return OK;
    /* reverse edges: from[first[s]..first[s+1]) are the states with an edge to s */
    uint32_t *first, *from, *todo;
    uint8_t *live;
    TRY(gwork_spend(w, (uint64_t)n + n_edge));
    TRY(gwork_array(w, (size_t)n + 2, sizeof *first, &first));
    TRY(gwork_array(w, (size_t)n_edge + 1, sizeof *from, &from));
    TRY(gwork_array(w, n, sizeof *todo, &todo));
    TRY(gwork_array(w, n, 1, &live));
    for (uint32_t i = 0; i < n_edge; i++)
        first[d->edge[i].to + 2]++;
    for (uint32_t i = 2; i < n + 2; i++)
        first[i] += first[i - 1];
    for (uint32_t s = 0; s < n; s++)
        for (uint32_t i = d->at[s]; i < d->at[s + 1]; i++)
            from[first[d->edge[i].to + 1]++] = s;
    uint32_t n_todo = 0;
    for (uint32_t s = 0; s < n; s++)
        if (d->accept[s]) {
            live[s] = 1;
            todo[n_todo++] = s;
        }
    while (n_todo) {
        uint32_t s = todo[--n_todo];
        for (uint32_t i = first[s]; i < first[s + 1]; i++)
            if (!live[from[i]]) {
                live[from[i]] = 1;
                todo[n_todo++] = from[i];
            }
    }
    uint32_t k = 0;
    for (uint32_t s = 0, i = 0; s < n; s++) {
        uint32_t end = d->at[s + 1], begin = k;
        for (; i < end; i++)
            if (live[s] && live[d->edge[i].to])
                d->edge[k++] = d->edge[i];
        d->at[s] = begin;
    }
    d->at[n] = k;
    if (!live[0])
        d->n = 0;
out:
    return st;
}

status chardfa_and(struct gwork *w, const struct chardfa *a, const struct chardfa *b,
                   struct chardfa *out)
{
    status st = OK;
    struct gintern t = {0};
    uint32_t id, pair[2] = {0, 0};
    bool fresh;
    *out = (struct chardfa){0};
    if (!a->n || !b->n)
        return OK;
    TRY(gintern_put(w, &t, pair, sizeof pair, &id, &fresh));
    for (uint32_t s = 0; s < t.n; s++) {
        memcpy(pair, t.item[s].p, sizeof pair);
        TRY(chardfa_state(w, out, a->accept[pair[0]] && b->accept[pair[1]]));
        uint32_t i = a->at[pair[0]], j = b->at[pair[1]];
        while (i < a->at[pair[0] + 1] && j < b->at[pair[1] + 1]) {
            const struct char_edge *x = &a->edge[i], *y = &b->edge[j];
            uint32_t lo = x->lo > y->lo ? x->lo : y->lo, hi = x->hi < y->hi ? x->hi : y->hi;
            if (lo <= hi) {
                uint32_t to[2] = {x->to, y->to};
                TRY(gintern_put(w, &t, to, sizeof to, &id, &fresh));
                TRY(chardfa_edge(w, out, lo, hi, id));
            }
            if (x->hi < y->hi)
                i++;
            else
                j++;
        }
    }
    TRY(chardfa_trim(w, out));
out:
    return st;
}

static status edge_any(struct gwork *w, struct chardfa *d, uint32_t to)
{
    status st = OK;
    TRY(chardfa_edge(w, d, 0, 0xd7ff, to));
    TRY(chardfa_edge(w, d, 0xe000, CHAR_MAX_CP, to));
out:
    return st;
}

status chardfa_length(struct gwork *w, uint32_t min, uint32_t max, struct chardfa *out)
{
    status st = OK;
    *out = (struct chardfa){0};
    if (min > max)
        return OK;
    uint32_t last = max == UINT32_MAX ? min : max;
    for (uint32_t i = 0; i <= last; i++) {
        TRY(chardfa_state(w, out, i >= min));
        if (i < last)
            TRY(edge_any(w, out, i + 1));
        else if (max == UINT32_MAX)
            TRY(edge_any(w, out, i));
    }
out:
    return st;
}

struct excepted {
    const char *s;
    size_t n;
};

static int by_bytes(const void *x, const void *y)
{
    const struct excepted *a = x, *b = y;
    int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

/* UTF-8 sorts as its code points do, so the strings under one trie node lie together. State 0 is
 * the root, state 1 "differs already"; each queue entry is a node: strings [lo, hi) share `at`
 * bytes. */
status chardfa_except(struct gwork *w, const char *const *s, const size_t *len, size_t n,
                      struct chardfa *out)
{
    struct node {
        size_t lo, hi, at;
    } * q;
    status st = OK;
    struct excepted *x;
    size_t cap = 0, n_q = 0, total = 2;
    *out = (struct chardfa){0};
    TRY(gwork_array(w, n + 1, sizeof *x, &x));
    for (size_t i = 0; i < n; i++) {
        x[i] = (struct excepted){s[i], len[i]};
        total += len[i];
    }
    TRY(gwork_spend(w, total * 4));
    qsort(x, n, sizeof *x, by_bytes);
    q = NULL;
    TRY(gwork_grow(w, &q, total, &cap, sizeof *q));
    q[n_q++] = (struct node){0, n, 0};
    q[n_q++] = (struct node){0, 0, 0};
    for (size_t i = 0; i < n_q; i++) {
        struct node u = q[i];
        size_t k = u.lo;
        bool is_end = k < u.hi && x[k].n == u.at;
        while (k < u.hi && x[k].n == u.at)
            k++;
        TRY(chardfa_state(w, out, !is_end));
        uint32_t next = 0;
        while (k < u.hi) {
            uint32_t cp = 0, c2 = 0;
            int m = utf8_decode(x[k].s + u.at, x[k].n - u.at, &cp);
            size_t from = k;
            if (m <= 0)
                return err_set(w->e, E_INPUT, "a property name is not valid UTF-8");
            while (k < u.hi && utf8_decode(x[k].s + u.at, x[k].n - u.at, &c2) == m && c2 == cp)
                k++;
            if (next <= 0xd7ff && cp > 0xd7ff) {
                TRY(chardfa_edge(w, out, next, 0xd7ff, 1));
                next = 0xe000;
            }
            if (next < cp)
                TRY(chardfa_edge(w, out, next, cp - 1, 1));
            TRY(chardfa_edge(w, out, cp, cp, (uint32_t)n_q));
            q[n_q++] = (struct node){from, k, u.at + (size_t)m};
            next = cp + 1;
        }
        if (next <= 0xd7ff) {
            TRY(chardfa_edge(w, out, next, 0xd7ff, 1));
            next = 0xe000;
        }
        if (next <= CHAR_MAX_CP)
            TRY(chardfa_edge(w, out, next, CHAR_MAX_CP, 1));
    }
out:
    return st;
}

bool chardfa_match(const struct chardfa *d, const char *s, size_t n)
{
    if (!d->n)
        return false;
    uint32_t at = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int m = utf8_decode(s + i, n - i, &cp);
        if (m <= 0)
            return false;
        i += (size_t)m;
        uint32_t lo = d->at[at], hi = d->at[at + 1];
        while (lo < hi) {
            uint32_t mid = lo + (hi - lo) / 2;
            if (d->edge[mid].hi < cp)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo == d->at[at + 1] || d->edge[lo].lo > cp)
            return false;
        at = d->edge[lo].to;
    }
    return d->accept[at];
}

bool chardfa_is_free(const struct chardfa *d, uint32_t s)
{
    const struct char_edge *e = &d->edge[d->at[s]];
    return d->accept[s] && d->at[s + 1] - d->at[s] == 2 && e[0].to == s && e[1].to == s &&
           e[0].lo == 0 && e[0].hi == 0xd7ff && e[1].lo == 0xe000 && e[1].hi == CHAR_MAX_CP;
}
