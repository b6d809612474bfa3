/* The answer inside a model's text, by the rules of the benchmark's reference implementation.
 *
 * Texts are UTF-8 and are not changed. The rules are Python regular expressions there; here they
 * are scanners that find the same. Known difference: only ASCII digits count as digits, and which
 * characters beyond ASCII are letters is told by blocks of Unicode, not character by character.
 */
#ifndef MLPERF_RULES_H
#define MLPERF_RULES_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

struct span {
    const char *p; /* [n] inside the text that was given; NULL: nothing found */
    size_t n;
};

/* Without white space at both ends. */
struct span rule_trim(struct span s);
/* The body of the first final-channel message, whatever stands between "final" and <|message|>, up
 * to <|return|> or the end; the whole text when there is none. Trimmed. */
struct span rule_final(struct span text);

/* The letter of a multiple-choice answer, 'A' to `last` ('D' or 'J'), or 0. E_NOMEM in b->st is
 * possible: b is scratch. */
char rule_choice(struct span text, char last, struct buf *b);
/* 0 to 999, or -1. */
int rule_integer(struct span text);
/* Source text of the last Python fence, else of the last fence, of the final message, else of the
 * whole text; p NULL when there is no fence. */
struct span rule_code(struct span text);

#endif
