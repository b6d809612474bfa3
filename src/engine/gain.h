/* Whether guessed tokens (draft.h) are worth a step's rows.
 *
 * A step with more rows takes longer; by how much is measured, by number of rows, from the steps
 * that hold nothing but generating sequences. Rows beyond the sequences' own are added in the order
 * of their chance to be kept, as many as make the tokens expected of the step, divided by the time
 * expected of it, largest. So there are none where a row costs as much as a step, and many where
 * a step is bound by reading the weights and the text repeats itself.
 */
#ifndef ENGINE_GAIN_H
#define ENGINE_GAIN_H

#include <stdbool.h>
#include <stdint.h>

enum {
    GAIN_ROWS = 128, /* steps with more rows get none */
    GAIN_LEVELS = 16 /* chances are told apart by so many levels */
};

struct gain {
    float ns[GAIN_ROWS + 1];     /* a step with so many rows takes about ... */
    uint8_t seen[GAIN_ROWS + 1]; /* times measured, up to 2: once is not enough */
    int since_try;               /* steps that could have had further rows and had none */

    /* of the step being planned: further rows by level of their chance, and their chances' sum */
    int n_seq, n[GAIN_LEVELS];
    float sum[GAIN_LEVELS];
};

/* A step of n rows took so long. */
void gain_measured(struct gain *g, int n, uint64_t ns);
/* About how long a step of n rows takes; 0: nothing is known. */
float gain_expected(const struct gain *g, int n);

/* Planning a step: for each sequence that generates, how many rows it could have more and the
 * chance that one is right when those before it were. */
void gain_begin(struct gain *g);
void gain_offer(struct gain *g, int n, float chance);
/* How many levels pay, from the best on, with at most `most` rows in them; 0: none. */
int gain_decide(struct gain *g, int most);
/* Of n rows that a sequence could have more, those of so many levels. */
int gain_take(int n, float chance, int levels);

#endif
