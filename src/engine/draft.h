/* What a sequence will probably say next, read off what it said before: the tokens that followed
 * the last few ones at an earlier place of prompt or answer.
 *
 *     ... "name" : "lamp" , "kind" : "red" } , { "name" : "lamp" , "kind"
 *                                     ^ at                               ^ end: 9 tokens in common
 *
 * `at` is followed while what comes is what stood there; when it is not, the index of all runs of
 * three tokens gives the place with the longest common past. How often a guess was right is counted
 * whether or not anybody asked for it, by the length of that past; so its chance is known before
 * anything is staked on it.
 *
 * Memory is laid out at the start; nothing here allocates later. Positions count the sequence's
 * tokens; position 0 has no past and stands for "none".
 */
#ifndef ENGINE_DRAFT_H
#define ENGINE_DRAFT_H

#include "base/err.h"

#include <stdint.h>

enum { DRAFT_RUN = 3, DRAFT_CLASSES = 5 };

struct draft {
    int32_t *last;   /* [n_last] by hash of a run: the latest position behind such a run */
    int32_t *before; /* [n_max] of a position: the one before it with the same hash */
    int n_last;      /* a power of two; 0: no index, nothing is ever guessed */
    int n_max;
    int at;  /* the position whose token is guessed to come next; 0: no guess */
    int len; /* tokens in common before it, as far as they were compared */
    /* guesses, and those that were right, by class of len; older ones count less */
    float n_guess[DRAFT_CLASSES], n_right[DRAFT_CLASSES];
};

/* For a sequence of at most n_max tokens. Closed again by draft_close; zeroed is closed. */
MUST_USE status draft_open(struct draft *d, int n_max);
void draft_close(struct draft *d);
/* The first n tokens, a prompt. */
void draft_begin(struct draft *d, const int32_t *ids, int n);
/* `to`, opened for as many tokens, learns the prompt of n tokens that `from` began with. */
void draft_copy(struct draft *to, const struct draft *from, int n);
/* ids[n - 1] came. */
void draft_add(struct draft *d, const int32_t *ids, int n);
/* The probability that the guess is right; 0 without one. */
float draft_chance(const struct draft *d);
/* What is guessed to follow ids[n]: k tokens; without a guess none. Returns their number. */
int draft_get(const struct draft *d, const int32_t *ids, int n, int k, int32_t *out);

#endif
