/* The reasoning budget: counts analysis tokens of a harmony stream and, when the bound is reached,
 * dictates the tokens that close the analysis and open the final channel. Where a turn holds the
 * headers, only the token that closes: the turn knows what may follow.
 */
#ifndef ENGINE_BUDGET_H
#define ENGINE_BUDGET_H

#include "text/harmony.h"

enum { BUDGET_MAX_FORCED = 16 };

struct budget {
    struct harmony_parser *parser; /* follows the stream; NULL when there is no bound */
    int left;                      /* analysis tokens still allowed */
    int32_t forced[BUDGET_MAX_FORCED];
    int n_forced, i_forced; /* the dictated tokens and how many of them were given */
};

/* max_tok <= 0 means no bound: the budget then does nothing. */
MUST_USE status budget_open(struct budget *b, const struct vocab *v, int max_tok, bool close_only,
                            struct err *e);
void budget_close(struct budget *b);

/* Tells the budget which token the stream got: the dictated one while it dictates. Fails only for
 * lack of memory. */
MUST_USE status budget_feed(struct budget *b, int32_t id);
/* The bound was reached with the last token: dictation begins. */
bool budget_spent(const struct budget *b);
/* The token that must come next, or -1 when the model decides. */
int32_t budget_next(const struct budget *b);

#endif
