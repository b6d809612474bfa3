#include "engine/schema_num.h"

#include "engine/grammar.h"

#include <stdlib.h>
#include <string.h>

void decimal_parse(struct decimal *d, const char *s)
{
    enum { HUGE_INT = 41 };
    *d = (struct decimal){.neg = *s == '-'};
    s += *s == '-';
    uint8_t raw[2 * DECIMAL_DIGITS] = {0};
    long n = 0, point = -1, exp = 0, lead = 0, i_digit = 0;
    for (; *s && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            point = i_digit;
            continue;
        }
        i_digit++;
        if (n == 0 && *s == '0') {
            lead++;
            continue;
        }
        if (n < DECIMAL_DIGITS)
            raw[n++] = (uint8_t)(*s - '0');
    }
    if (point < 0)
        point = i_digit;
    if (*s) {
        bool neg = s[1] == '-';
        for (s += s[1] == '-' || s[1] == '+' ? 2 : 1; *s && exp < 100000; s++)
            exp = exp * 10 + (*s - '0');
        exp = neg ? -exp : exp;
    }
    while (n && !raw[n - 1])
        n--;
    if (!n) {
        d->neg = false;
        d->n_int = d->n = 1;
        return;
    }
    long n_int = point - lead + exp; /* may be negative: zeros after the point */
    if (n_int >= HUGE_INT) {
        d->n_int = d->n = HUGE_INT;
        d->digit[0] = 1;
        return;
    }
    if (n_int <= 0) {
        d->n_int = 1;
        long zeros = -n_int < DECIMAL_DIGITS - 1 ? -n_int : DECIMAL_DIGITS - 1;
        d->n = 1 + (int)zeros;
    } else {
        d->n_int = (int)n_int;
    }
    for (long i = 0; (i < n || d->n < d->n_int) && d->n < d->n_int + DECIMAL_DIGITS; i++)
        d->digit[d->n++] = i < n ? raw[i] : 0;
}

static int digit_at(const struct decimal *d, int i)
{
    return i < d->n ? d->digit[i] : 0;
}

static int cmp_abs(const struct decimal *a, const struct decimal *b)
{
    if (a->n_int != b->n_int)
        return a->n_int < b->n_int ? -1 : 1;
    for (int i = 0; i < a->n || i < b->n; i++)
        if (digit_at(a, i) != digit_at(b, i))
            return digit_at(a, i) < digit_at(b, i) ? -1 : 1;
    return 0;
}

int decimal_cmp(const struct decimal *a, const struct decimal *b)
{
    if (a->neg != b->neg)
        return a->neg ? -1 : 1;
    return a->neg ? cmp_abs(b, a) : cmp_abs(a, b);
}

void num_range_lo(struct num_range *r, const struct decimal *v, bool excl)
{
    int c = r->has_lo ? decimal_cmp(v, &r->lo) : 1;
    if (c > 0) {
        r->has_lo = true;
        r->lo = *v;
        r->excl_lo = excl;
    } else if (c == 0) {
        r->excl_lo |= excl;
    }
}

void num_range_hi(struct num_range *r, const struct decimal *v, bool excl)
{
    int c = r->has_hi ? decimal_cmp(v, &r->hi) : -1;
    if (c < 0) {
        r->has_hi = true;
        r->hi = *v;
        r->excl_hi = excl;
    } else if (c == 0) {
        r->excl_hi |= excl;
    }
}

enum { STEP_MAX = 1000000 };

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

status num_range_step(struct gwork *w, struct num_range *r, const struct decimal *v)
{
    uint64_t k = 0;
    int frac = v->n > v->n_int ? v->n - v->n_int : 0;
    for (int i = 0; i < v->n && k <= STEP_MAX; i++)
        k = k * 10 + v->digit[i];
    if (v->neg || k == 0)
        return err_set(w->e, E_INPUT, "multipleOf must be above 0");
    if (k > STEP_MAX || frac > GRAMMAR_DIGITS)
        return err_set(w->e, E_LIMIT, "multipleOf with more digits than can be counted");
    uint64_t have = r->step ? r->step : 0;
    int have_frac = r->step_frac;
    if (have) { /* both: the least common multiple at the finer scale */
        for (; have_frac < frac && have <= STEP_MAX; have_frac++)
            have *= 10;
        for (; frac < have_frac && k <= STEP_MAX; frac++)
            k *= 10;
        k = k / gcd(k, have) * have;
        if (k > STEP_MAX)
            return err_set(w->e, E_LIMIT, "multipleOf with more digits than can be counted");
    }
    r->step = (uint32_t)k;
    r->step_frac = frac;
    return OK;
}

bool num_range_has(const struct num_range *r, const struct decimal *v)
{
    int lo = r->has_lo ? decimal_cmp(v, &r->lo) : 1, hi = r->has_hi ? decimal_cmp(v, &r->hi) : -1;
    if (lo < 0 || (lo == 0 && r->excl_lo) || hi > 0 || (hi == 0 && r->excl_hi))
        return false;
    if (r->integer && v->n > v->n_int)
        return false;
    if (!r->step)
        return true;
    int frac = v->n > v->n_int ? v->n - v->n_int : 0;
    if (frac > r->step_frac)
        return false;
    uint64_t rem = 0;
    for (int i = 0; i < v->n_int + r->step_frac; i++)
        rem = (rem * 10 + (uint64_t)digit_at(v, i)) % r->step;
    return rem == 0;
}

/* ---- the automaton ---- */

enum phase { AT_START, AT_SIGN, AT_INT, AT_ZERO, AT_POINT, AT_FRAC };
enum { LT, EQ, GT };

/* lo, hi: how the digits so far compare with those of the bound's magnitude (of its first nd
 * digits while the integer part lasts). */
struct num_state {
    uint8_t phase, neg, nd, nonzero, lo, hi;
    uint16_t pad;
    uint32_t rem;
};

static uint8_t cmp_digit(uint8_t had, int x, int y)
{
    return had != EQ ? had : x < y ? LT : x > y ? GT : EQ;
}

/* One more digit of the integer part, the nd-th (from 0). */
static uint8_t cmp_int(uint8_t had, const struct decimal *b, int nd, int x)
{
    return nd >= b->n_int ? GT : cmp_digit(had, x, b->digit[nd]);
}

/* The whole number against the bound's magnitude. */
static int cmp_final(const struct num_state *s, uint8_t c, const struct decimal *b)
{
    if (s->phase != AT_FRAC && s->nd < b->n_int)
        return LT;
    if (c != EQ)
        return c;
    return (s->phase == AT_FRAC ? s->nd : 0) < b->n - b->n_int ? LT : EQ;
}

static bool inside(const struct num_state *s, uint8_t c, const struct decimal *b, bool excl,
                   bool is_lo)
{
    if (s->neg != b->neg)
        return s->neg != is_lo;
    int x = cmp_final(s, c, b);
    if (x == EQ)
        return !excl;
    return (x == GT) == (is_lo != s->neg);
}

static bool num_accept(const struct num_range *r, const struct num_state *s)
{
    if (s->phase != AT_INT && s->phase != AT_ZERO && s->phase != AT_FRAC)
        return false;
    if (s->neg && !s->nonzero)
        return false;
    if (r->has_lo && !inside(s, s->lo, &r->lo, r->excl_lo, true))
        return false;
    if (r->has_hi && !inside(s, s->hi, &r->hi, r->excl_hi, false))
        return false;
    uint64_t rem = s->rem;
    if (r->step)
        for (int i = s->phase == AT_FRAC ? s->nd : 0; i < r->step_frac; i++)
            rem = rem * 10 % r->step;
    return rem == 0;
}

static bool num_step(const struct num_range *r, const struct num_state *from, char c,
                     struct num_state *to)
{
    *to = *from;
    if (c == '-') {
        to->neg = 1;
        to->phase = AT_SIGN;
        return from->phase == AT_START;
    }
    if (c == '.') {
        if (r->integer || (r->step && !r->step_frac) ||
            (from->phase != AT_INT && from->phase != AT_ZERO))
            return false;
        if (r->has_lo && from->nd < r->lo.n_int)
            to->lo = LT;
        if (r->has_hi && from->nd < r->hi.n_int)
            to->hi = LT;
        to->phase = AT_POINT;
        to->nd = 0;
        return true;
    }
    int x = c - '0';
    int most = GRAMMAR_DIGITS;
    if (from->phase == AT_ZERO)
        return false;
    if (from->phase == AT_POINT || from->phase == AT_FRAC) {
        if (r->step && r->step_frac < most)
            most = r->step_frac;
        to->phase = AT_FRAC;
        to->lo = cmp_digit(from->lo, x, digit_at(&r->lo, r->lo.n_int + from->nd));
        to->hi = cmp_digit(from->hi, x, digit_at(&r->hi, r->hi.n_int + from->nd));
    } else {
        to->phase = from->phase != AT_INT && x == 0 ? AT_ZERO : AT_INT;
        to->lo = r->has_lo ? cmp_int(from->lo, &r->lo, from->nd, x) : EQ;
        to->hi = r->has_hi ? cmp_int(from->hi, &r->hi, from->nd, x) : EQ;
    }
    if (!r->has_lo)
        to->lo = EQ;
    if (!r->has_hi)
        to->hi = EQ;
    if (from->nd >= most)
        return false;
    to->nd++;
    to->nonzero |= x != 0;
    if (r->step)
        to->rem = (uint32_t)(((uint64_t)from->rem * 10 + (unsigned)x) % r->step);
    return true;
}

status num_range_dfa(struct gwork *w, const struct num_range *r, struct chardfa *out)
{
    status st = OK;
    struct gintern t = {0};
    struct num_state s = {.lo = EQ, .hi = EQ}, to;
    uint32_t id;
    bool fresh;
    *out = (struct chardfa){0};
    TRY(gintern_put(w, &t, &s, sizeof s, &id, &fresh));
    for (uint32_t i = 0; i < t.n; i++) {
        memcpy(&s, t.item[i].p, sizeof s);
        TRY(chardfa_state(w, out, num_accept(r, &s)));
        static const char chars[] = "-.0123456789"; /* ascending */
        for (const char *c = chars; *c; c++) {
            if (!num_step(r, &s, *c, &to))
                continue;
            TRY(gintern_put(w, &t, &to, sizeof to, &id, &fresh));
            TRY(chardfa_edge(w, out, (uint32_t)*c, (uint32_t)*c, id));
        }
    }
    TRY(chardfa_trim(w, out));
out:
    return st;
}
