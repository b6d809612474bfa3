/* Numeric ranges as character automata: the decimal spellings of the numbers between two bounds,
 * compared digit by digit, never through a double.
 *
 * Spellings have no exponent, no leading zeros, no "-0", at most GRAMMAR_DIGITS digits before and
 * after the point.
 */
#ifndef ENGINE_SCHEMA_NUM_H
#define ENGINE_SCHEMA_NUM_H

#include "engine/chardfa.h"

enum { DECIMAL_DIGITS = 60 };

/* +- digit[0..n_int) . digit[n_int..n). Integer part without leading zeros ("0" when zero),
 * fraction without trailing ones. Magnitudes from 1e40 on count as 1e40, digits past
 * DECIMAL_DIGITS after the point are dropped: nothing that is written out gets near. */
struct decimal {
    bool neg;
    int n_int, n;
    uint8_t digit[2 * DECIMAL_DIGITS];
};

/* Reads a JSON number. */
void decimal_parse(struct decimal *d, const char *text);
int decimal_cmp(const struct decimal *a, const struct decimal *b);

struct num_range {
    bool has_lo, has_hi, excl_lo, excl_hi;
    struct decimal lo, hi;
    bool integer;
    uint32_t step; /* multiples of step / 10^step_frac; 0: any number */
    int step_frac;
};

void num_range_lo(struct num_range *r, const struct decimal *v, bool excl); /* keeps the tighter */
void num_range_hi(struct num_range *r, const struct decimal *v, bool excl);
MUST_USE status num_range_step(struct gwork *w, struct num_range *r, const struct decimal *v);

bool num_range_has(const struct num_range *r, const struct decimal *v);

MUST_USE status num_range_dfa(struct gwork *w, const struct num_range *r, struct chardfa *out);

#endif
