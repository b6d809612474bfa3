/* Pattern -> tree -> NFA (built backwards, each part knowing what follows it) -> DFA by subset
 * construction. Anchors are NFA states that only let through at the string's start or end: the
 * start is known once (the first closure), the end matters only for acceptance.
 *
 * A pattern that may match anywhere gets a loop over all characters in front and one behind. Once a
 * set holds the loop behind, everything is accepted, so the set is reduced to it.
 */
#include "engine/regex.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_GROUPS_DEEP = 100, MAX_NFA = 60000, MAX_REPEAT = 20000, MAX_PATTERN = 65536 };

enum rkind { R_EMPTY, R_SET, R_CAT, R_ALT, R_REP, R_BOL, R_EOL };

struct range {
    uint32_t lo, hi;
};

struct rset {
    struct range *r; /* [n] sorted, disjoint, without surrogates */
    uint32_t n;
};

struct rnode {
    enum rkind kind;
    uint32_t min, max;   /* R_REP; max UINT32_MAX: no limit */
    struct rset set;     /* R_SET */
    struct rnode *child; /* R_CAT, R_ALT: the last one; R_REP */
    struct rnode *prev;  /* sibling before this one */
};

enum nkind { N_SET, N_EPS, N_BOL, N_EOL, N_ACCEPT };

struct nstate {
    enum nkind kind;
    uint32_t out, out2; /* UINT32_MAX: none */
    const struct rset *set;
};

struct rx {
    struct gwork *w;
    const char *s;
    size_t n, i;
    int deep;
    struct range *tmp; /* the class being read */
    size_t n_tmp, cap_tmp;
    struct nstate *nfa;
    size_t n_nfa, cap_nfa;
    uint32_t tail; /* the loop behind, UINT32_MAX: none */
    /* scratch of the closure */
    uint32_t *todo;  /* [2 * n_nfa] */
    uint32_t *stamp; /* [2 * n_nfa] */
    uint32_t now;
    uint32_t *got; /* the class states found */
    size_t n_got, cap_got;
    bool got_accept, got_tail;
};

static status bad(struct rx *x, const char *what)
{
    return err_set(x->w->e, E_INPUT, "pattern: %s at byte %zu", what, x->i);
}

static bool more(const struct rx *x)
{
    return x->i < x->n;
}
static char peek(const struct rx *x)
{
    return x->i < x->n ? x->s[x->i] : '\0';
}
static bool eat(struct rx *x, char c)
{
    if (!more(x) || x->s[x->i] != c)
        return false;
    x->i++;
    return true;
}

static status next_char(struct rx *x, uint32_t *cp)
{
    int m = utf8_decode(x->s + x->i, x->n - x->i, cp);
    if (m <= 0)
        return bad(x, "invalid UTF-8");
    x->i += (size_t)m;
    return OK;
}

static status new_node(struct rx *x, enum rkind kind, struct rnode **r)
{
    status st = gwork_array(x->w, 1, sizeof **r, r);
    if (st == OK)
        (*r)->kind = kind;
    return st < 0 ? st : gwork_spend(x->w, 1);
}

/* ---- sets of characters ---- */

static status add(struct rx *x, uint32_t lo, uint32_t hi)
{
    status st = OK;
    TRY(gwork_spend(x->w, 1));
    TRY(gwork_grow(x->w, &x->tmp, x->n_tmp + 1, &x->cap_tmp, sizeof *x->tmp));
    x->tmp[x->n_tmp++] = (struct range){lo, hi};
out:
    return st;
}

static int by_lo(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* Sorts and merges tmp[from..], inverts it when asked; leaves the result in its place. */
static status settle(struct rx *x, size_t from, bool invert)
{
    status st = OK;
    struct range *r;
    size_t n = x->n_tmp - from, k = 0;
    if (n)
        qsort(x->tmp + from, n, sizeof *x->tmp, by_lo);
    TRY(gwork_spend(x->w, n));
    TRY(gwork_array(x->w, 2 * n + 4, sizeof *r, &r));
    if (!invert) {
        for (size_t i = from; i < x->n_tmp; i++) {
            struct range t = x->tmp[i];
            if (k && t.lo <= r[k - 1].hi + 1)
                r[k - 1].hi = t.hi > r[k - 1].hi ? t.hi : r[k - 1].hi;
            else
                r[k++] = t;
        }
    } else {
        uint32_t next = 0;
        for (size_t i = from; i < x->n_tmp; i++) {
            struct range t = x->tmp[i];
            if (t.lo > next)
                r[k++] = (struct range){next, t.lo - 1};
            next = t.hi + 1 > next ? t.hi + 1 : next;
        }
        if (next <= CHAR_MAX_CP)
            r[k++] = (struct range){next, CHAR_MAX_CP};
    }
    x->n_tmp = from;
    for (size_t i = 0; i < k; i++) { /* cut the surrogates out */
        if (r[i].lo < 0xd800)
            TRY(add(x, r[i].lo, r[i].hi < 0xd800 ? r[i].hi : 0xd7ff));
        if (r[i].hi > 0xdfff)
            TRY(add(x, r[i].lo > 0xdfff ? r[i].lo : 0xe000, r[i].hi));
    }
out:
    return st;
}

static status add_class(struct rx *x, char c)
{
    /* ECMA-262: \s is WhiteSpace and LineTerminator */
    static const struct range digit[] = {{'0', '9'}},
                              word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                              space[] = {{9, 13},          {32, 32},         {0xa0, 0xa0},
                                         {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029},
                                         {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000},
                                         {0xfeff, 0xfeff}};
    status st = OK;
    const struct range *r = c == 'd' || c == 'D' ? digit : c == 'w' || c == 'W' ? word : space;
    size_t n = r == digit ? 1 : r == word ? 4 : 10, from = x->n_tmp;
    for (size_t i = 0; i < n; i++)
        TRY(add(x, r[i].lo, r[i].hi));
    TRY(settle(x, from, c < 'a'));
out:
    return st;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static status hex(struct rx *x, int digits, uint32_t *cp)
{
    *cp = 0;
    for (int k = 0; k < digits; k++) {
        int v = more(x) ? hex_value(x->s[x->i]) : -1;
        if (v < 0)
            return bad(x, "hexadecimal digits expected");
        *cp = *cp << 4 | (uint32_t)v;
        x->i++;
    }
    return OK;
}

/* After a backslash. A class is added to tmp (*is_class), else *cp is the character. */
static status escape(struct rx *x, bool in_class, uint32_t *cp, bool *is_class)
{
    status st = OK;
    *is_class = false;
    if (!more(x))
        return bad(x, "nothing after \\");
    char c = x->s[x->i++];
    static const char plain[] = "t\tn\nr\rf\fv\v";
    for (const char *p = plain; *p; p += 2)
        if (c == *p) {
            *cp = (uint32_t)p[1];
            return OK;
        }
    if (strchr("dDwWsS", c)) {
        *is_class = true;
        return add_class(x, c);
    }
    if (c == 'b' && in_class) {
        *cp = 8;
        return OK;
    }
    if (c == 'b' || c == 'B')
        return bad(x, "word boundaries (\\b, \\B) are not supported");
    if (c == 'p' || c == 'P')
        return bad(x, "Unicode properties (\\p) are not supported");
    if (c == 'k' || (c >= '1' && c <= '9'))
        return bad(x, "backreferences are not supported");
    if (c == '0') {
        *cp = 0;
    } else if (c == 'x') {
        TRY(hex(x, 2, cp));
    } else if (c == 'c' &&
               ((peek(x) >= 'a' && peek(x) <= 'z') || (peek(x) >= 'A' && peek(x) <= 'Z'))) {
        *cp = (uint32_t)x->s[x->i++] & 31;
    } else if (c == 'u' && eat(x, '{')) {
        *cp = 0;
        size_t from = x->i;
        while (more(x) && peek(x) != '}' && x->i - from < 6) {
            uint32_t d;
            TRY(hex(x, 1, &d));
            *cp = *cp << 4 | d;
        }
        if (x->i == from || !eat(x, '}') || *cp > CHAR_MAX_CP)
            return bad(x, "\\u{...} needs one to six hexadecimal digits");
    } else if (c == 'u') {
        TRY(hex(x, 4, cp));
        uint32_t low;
        if (*cp >= 0xd800 && *cp < 0xdc00 && x->n - x->i >= 6 && x->s[x->i] == '\\' &&
            x->s[x->i + 1] == 'u') {
            x->i += 2;
            TRY(hex(x, 4, &low));
            if (low < 0xdc00 || low > 0xdfff)
                return bad(x, "lone surrogate");
            *cp = 0x10000 + ((*cp - 0xd800) << 10) + (low - 0xdc00);
        } else if (*cp >= 0xd800 && *cp < 0xe000) {
            return bad(x, "lone surrogate");
        }
    } else if ((unsigned char)c < 0x80 && !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))) {
        *cp = (uint32_t)c;
    } else {
        x->i--;
        return bad(x, "unknown escape");
    }
out:
    return st;
}

static status set_node(struct rx *x, struct rnode **r)
{
    status st = OK;
    TRY(new_node(x, R_SET, r));
    (*r)->set.n = (uint32_t)x->n_tmp;
    TRY(gwork_array(x->w, x->n_tmp + 1, sizeof *x->tmp, &(*r)->set.r));
    if (x->n_tmp)
        memcpy((*r)->set.r, x->tmp, x->n_tmp * sizeof *x->tmp);
out:
    return st;
}

/* After "[". */
static status char_class(struct rx *x, struct rnode **r)
{
    status st = OK;
    bool invert = eat(x, '^'), is_class;
    x->n_tmp = 0;
    if (peek(x) == ']')
        return bad(x, "empty [] is not supported");
    while (!eat(x, ']')) {
        uint32_t lo, hi;
        if (!more(x))
            return bad(x, "[ without ]");
        is_class = false;
        if (eat(x, '\\'))
            TRY(escape(x, true, &lo, &is_class));
        else
            TRY(next_char(x, &lo));
        if (is_class)
            continue;
        hi = lo;
        if (peek(x) == '-' && x->i + 1 < x->n && x->s[x->i + 1] != ']') {
            x->i++;
            if (eat(x, '\\'))
                TRY(escape(x, true, &hi, &is_class));
            else
                TRY(next_char(x, &hi));
            if (is_class || hi < lo)
                return bad(x, "bad range in a character class");
        }
        TRY(add(x, lo, hi));
    }
    TRY(settle(x, 0, invert));
    TRY(set_node(x, r));
out:
    return st;
}

/* ---- the tree ---- */

static status alternation(struct rx *x, struct rnode **r);

static status group(struct rx *x, struct rnode **r)
{
    status st = OK;
    if (eat(x, '?')) {
        char c = peek(x), d = x->i + 1 < x->n ? x->s[x->i + 1] : '\0';
        if (c == ':') {
            x->i++;
        } else if (c == '=' || c == '!' || (c == '<' && (d == '=' || d == '!'))) {
            return bad(x, "lookaround is not supported");
        } else if (c == '<' || (c == 'P' && d == '<')) {
            while (more(x) && x->s[x->i] != '>')
                x->i++;
            if (!eat(x, '>'))
                return bad(x, "(?< without >");
        } else {
            return bad(x, "flags and special groups (?...) are not supported");
        }
    }
    if (++x->deep > MAX_GROUPS_DEEP)
        return err_set(x->w->e, E_LIMIT, "pattern: groups nested deeper than %d", MAX_GROUPS_DEEP);
    TRY(alternation(x, r));
    x->deep--;
    if (!eat(x, ')'))
        return bad(x, "( without )");
out:
    return st;
}

/* {m}, {m,}, {m,n} at x->i; false (and nothing read) when it is no quantifier. */
static bool braces(struct rx *x, uint64_t *min, uint64_t *max)
{
    size_t i = x->i + 1, from = i;
    uint64_t v[2] = {0, UINT32_MAX};
    int k = 0;
    for (; i < x->n && x->s[i] != '}'; i++) {
        if (x->s[i] == ',' && k == 0 && i > from) {
            k = 1;
            from = i + 1;
        } else if (x->s[i] >= '0' && x->s[i] <= '9') {
            uint64_t d = (uint64_t)(x->s[i] - '0');
            v[k] = i == from ? d : v[k] * 10 + d;
            if (v[k] >= UINT32_MAX)
                v[k] = UINT32_MAX - 1;
        } else {
            return false;
        }
    }
    if (i >= x->n || (k == 0 && i == from))
        return false;
    x->i = i + 1;
    *min = v[0];
    *max = k ? v[1] : v[0];
    return true;
}

static status quantified(struct rx *x, struct rnode *atom, struct rnode **r)
{
    status st = OK;
    uint64_t min = 0, max = UINT32_MAX;
    *r = atom;
    char c = peek(x);
    if (more(x) && (c == '*' || c == '+' || c == '?')) {
        x->i++;
        min = c == '+';
        max = c == '?' ? 1 : UINT32_MAX;
    } else if (!(c == '{' && braces(x, &min, &max))) {
        return OK;
    }
    if (atom->kind == R_BOL || atom->kind == R_EOL)
        return bad(x, "a quantifier after an anchor");
    if (min > max)
        return bad(x, "{m,n} with m > n");
    if (min > MAX_REPEAT || (max != UINT32_MAX && max > MAX_REPEAT))
        return err_set(x->w->e, E_LIMIT, "pattern: more than %d repetitions", MAX_REPEAT);
    eat(x, '?');
    c = peek(x);
    uint64_t m0, m1;
    size_t at = x->i;
    if (more(x) && (c == '+' || c == '*' || c == '?' || (c == '{' && braces(x, &m0, &m1)))) {
        x->i = at;
        return bad(x, "a quantifier after a quantifier");
    }
    TRY(new_node(x, R_REP, r));
    (*r)->child = atom;
    (*r)->min = (uint32_t)min;
    (*r)->max = (uint32_t)max;
out:
    return st;
}

static status one_char(struct rx *x, struct rnode **r)
{
    status st = OK;
    uint32_t cp;
    bool is_class = false;
    x->n_tmp = 0;
    if (eat(x, '.')) {
        static const uint32_t line_end[] = {'\n', '\r', 0x2028, 0x2029};
        for (int i = 0; i < 4; i++)
            TRY(add(x, line_end[i], line_end[i]));
        TRY(settle(x, 0, true));
    } else {
        if (eat(x, '\\'))
            TRY(escape(x, false, &cp, &is_class));
        else
            TRY(next_char(x, &cp));
        if (!is_class)
            TRY(add(x, cp, cp));
    }
    TRY(set_node(x, r));
out:
    return st;
}

static status alternation(struct rx *x, struct rnode **r)
{
    status st = OK;
    struct rnode *alt, *cat, *atom, *q;
    TRY(new_node(x, R_ALT, &alt));
    for (;;) {
        TRY(new_node(x, R_CAT, &cat));
        cat->prev = alt->child;
        alt->child = cat;
        while (more(x) && peek(x) != '|' && peek(x) != ')') {
            uint64_t m0, m1;
            char c = peek(x);
            if (c == '*' || c == '+' || c == '?' || (c == '{' && braces(x, &m0, &m1)))
                return bad(x, "a quantifier with nothing before it");
            if (eat(x, '('))
                TRY(group(x, &atom));
            else if (eat(x, '['))
                TRY(char_class(x, &atom));
            else if (eat(x, '^'))
                TRY(new_node(x, R_BOL, &atom));
            else if (eat(x, '$'))
                TRY(new_node(x, R_EOL, &atom));
            else
                TRY(one_char(x, &atom));
            TRY(quantified(x, atom, &q));
            if (q->prev) /* cannot be: every node is new */
                return E_BUG;
            q->prev = cat->child;
            cat->child = q;
        }
        if (!eat(x, '|'))
            break;
    }
    *r = alt;
out:
    return st;
}

/* ---- NFA ---- */

static status emit(struct rx *x, enum nkind kind, uint32_t out, uint32_t out2,
                   const struct rset *set, uint32_t *id)
{
    status st = OK;
    if (x->n_nfa >= MAX_NFA)
        return err_set(x->w->e, E_LIMIT, "pattern: too many repetitions, over %d states", MAX_NFA);
    TRY(gwork_spend(x->w, 1));
    TRY(gwork_grow(x->w, &x->nfa, x->n_nfa + 1, &x->cap_nfa, sizeof *x->nfa));
    x->nfa[x->n_nfa] = (struct nstate){kind, out, out2, set};
    *id = (uint32_t)x->n_nfa++;
out:
    return st;
}

/* Depth of recursion: groups and quantifiers, both bounded by MAX_GROUPS_DEEP. */
static status build(struct rx *x, const struct rnode *r, uint32_t next, uint32_t *start)
{
    status st = OK;
    uint32_t cur = next, part, loop;
    switch (r->kind) {
    case R_EMPTY:
        break;
    case R_SET:
        TRY(emit(x, N_SET, next, UINT32_MAX, &r->set, &cur));
        break;
    case R_BOL:
        TRY(emit(x, N_BOL, next, UINT32_MAX, NULL, &cur));
        break;
    case R_EOL:
        TRY(emit(x, N_EOL, next, UINT32_MAX, NULL, &cur));
        break;
    case R_CAT:
        for (const struct rnode *c = r->child; c; c = c->prev)
            TRY(build(x, c, cur, &cur));
        break;
    case R_ALT:
        cur = UINT32_MAX;
        for (const struct rnode *c = r->child; c; c = c->prev) {
            TRY(build(x, c, next, &part));
            if (cur == UINT32_MAX)
                cur = part;
            else
                TRY(emit(x, N_EPS, part, cur, NULL, &cur));
        }
        break;
    case R_REP:
        if (r->max == UINT32_MAX) {
            TRY(emit(x, N_EPS, UINT32_MAX, next, NULL, &loop));
            TRY(build(x, r->child, loop, &part));
            x->nfa[loop].out = part;
            cur = loop;
        } else {
            for (uint32_t i = r->min; i < r->max; i++) {
                TRY(build(x, r->child, cur, &part));
                TRY(emit(x, N_EPS, part, next, NULL, &cur));
            }
        }
        for (uint32_t i = 0; i < r->min; i++)
            TRY(build(x, r->child, cur, &cur));
        break;
    }
    *start = cur;
out:
    return st;
}

/* ---- DFA ---- */

/* Adds to `got` the class states reachable from `from` without a character. A state counts once as
 * it is and once as "after a $" (only acceptance can follow that). */
static status closure(struct rx *x, uint32_t from, bool at_start)
{
    status st = OK;
    size_t n = 0;
    x->todo[n++] = from * 2;
    while (n) {
        uint32_t t = x->todo[--n], id = t / 2, after = t & 1;
        const struct nstate *s = &x->nfa[id];
        uint32_t out[2] = {UINT32_MAX, UINT32_MAX};
        if (x->stamp[t] == x->now)
            continue;
        x->stamp[t] = x->now;
        TRY(gwork_spend(x->w, 1));
        switch (s->kind) {
        case N_ACCEPT:
            x->got_accept = true;
            break;
        case N_SET:
            if (after)
                break;
            x->got_tail |= id == x->tail;
            TRY(gwork_grow(x->w, &x->got, x->n_got + 1, &x->cap_got, sizeof *x->got));
            x->got[x->n_got++] = id;
            break;
        case N_EPS:
            out[0] = s->out;
            out[1] = s->out2;
            break;
        case N_BOL:
            if (at_start)
                out[0] = s->out;
            break;
        case N_EOL:
            out[0] = s->out;
            after = 1;
            break;
        }
        for (int k = 0; k < 2; k++)
            if (out[k] != UINT32_MAX && x->stamp[out[k] * 2 + after] != x->now)
                x->todo[n++] = out[k] * 2 + after;
    }
out:
    return st;
}

static int by_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* What `got` holds becomes a DFA state: its class states in order, then 1 or 0 for acceptance. */
static status intern(struct rx *x, struct gintern *t, uint32_t *id)
{
    status st = OK;
    bool fresh;
    if (x->got_tail) {
        x->got[0] = x->tail;
        x->n_got = 1;
        x->got_accept = true;
    }
    TRY(gwork_spend(x->w, 2 * x->n_got));
    qsort(x->got, x->n_got, sizeof *x->got, by_u32);
    TRY(gwork_grow(x->w, &x->got, x->n_got + 1, &x->cap_got, sizeof *x->got));
    x->got[x->n_got] = x->got_accept;
    TRY(gintern_put(x->w, t, x->got, (x->n_got + 1) * sizeof *x->got, id, &fresh));
out:
    return st;
}

static void begin(struct rx *x)
{
    x->now++;
    x->n_got = 0;
    x->got_accept = x->got_tail = false;
}

static status subsets(struct rx *x, uint32_t start, struct chardfa *d)
{
    status st = OK;
    struct gintern t = {0};
    uint32_t id, *cut = NULL;
    size_t cap_cut = 0;
    TRY(gwork_array(x->w, 4 * x->n_nfa + 4, sizeof *x->todo, &x->todo));
    TRY(gwork_array(x->w, 2 * x->n_nfa, sizeof *x->stamp, &x->stamp));
    TRY(gwork_grow(x->w, &x->got, 1, &x->cap_got, sizeof *x->got));
    begin(x);
    TRY(closure(x, start, true));
    TRY(intern(x, &t, &id));
    for (uint32_t s = 0; s < t.n; s++) {
        const uint32_t *member = t.item[s].p;
        size_t n = t.item[s].n / sizeof *member - 1, n_cut = 0, k = 0;
        TRY(chardfa_state(x->w, d, member[n]));
        for (size_t i = 0; i < n; i++) {
            const struct rset *set = x->nfa[member[i]].set;
            TRY(gwork_spend(x->w, set->n));
            TRY(gwork_grow(x->w, &cut, n_cut + 2 * set->n, &cap_cut, sizeof *cut));
            for (uint32_t j = 0; j < set->n; j++) {
                cut[n_cut++] = set->r[j].lo;
                cut[n_cut++] = set->r[j].hi + 1;
            }
        }
        if (n_cut)
            qsort(cut, n_cut, sizeof *cut, by_u32);
        for (size_t i = 0; i < n_cut; i++)
            if (!k || cut[i] != cut[k - 1])
                cut[k++] = cut[i];
        for (size_t c = 0; c + 1 < k; c++) {
            begin(x);
            bool any = false;
            for (size_t i = 0; i < n; i++) {
                const struct nstate *m = &x->nfa[member[i]];
                uint32_t lo = 0, hi = m->set->n;
                while (lo < hi) {
                    uint32_t mid = (lo + hi) / 2;
                    if (m->set->r[mid].hi < cut[c])
                        lo = mid + 1;
                    else
                        hi = mid;
                }
                TRY(gwork_spend(x->w, 1));
                if (lo < m->set->n && m->set->r[lo].lo <= cut[c]) {
                    any = true;
                    TRY(closure(x, m->out, false));
                }
            }
            if (!any)
                continue;
            TRY(intern(x, &t, &id));
            TRY(chardfa_edge(x->w, d, cut[c], cut[c + 1] - 1, id));
        }
    }
    TRY(chardfa_trim(x->w, d));
out:
    return st;
}

status regex_compile(struct gwork *w, const char *s, size_t n, bool whole, struct chardfa *out)
{
    status st = OK;
    struct rx x = {.w = w, .s = s, .n = n, .tail = UINT32_MAX};
    struct rnode *root, *any;
    uint32_t id, loop, start;
    *out = (struct chardfa){0};
    if (n > MAX_PATTERN)
        return err_set(w->e, E_LIMIT, "pattern: longer than %d bytes", MAX_PATTERN);
    TRY(alternation(&x, &root));
    if (x.i < n)
        return bad(&x, ") without (");
    x.n_tmp = 0;
    TRY(add(&x, 0, 0xd7ff));
    TRY(add(&x, 0xe000, CHAR_MAX_CP));
    TRY(set_node(&x, &any));
    TRY(emit(&x, N_ACCEPT, UINT32_MAX, UINT32_MAX, NULL, &id));
    if (!whole) {
        TRY(emit(&x, N_SET, UINT32_MAX, UINT32_MAX, &any->set, &x.tail));
        TRY(emit(&x, N_EPS, x.tail, id, NULL, &id));
        x.nfa[x.tail].out = id;
    }
    TRY(build(&x, root, id, &start));
    if (!whole) {
        TRY(emit(&x, N_SET, UINT32_MAX, UINT32_MAX, &any->set, &loop));
        TRY(emit(&x, N_EPS, loop, start, NULL, &start));
        x.nfa[loop].out = start;
    }
    TRY(subsets(&x, start, out));
out:
    return st;
}
