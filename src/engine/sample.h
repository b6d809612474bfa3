/* Logits to a token.
 *
 * Order: penalties, bias, forbidden tokens, mask; then temperature, top-k, top-p, min-p, each over
 * what the one before left. The random number is a pure function of (seed, stream, position), and
 * every sum has a fixed order, so a request's tokens do not depend on what else is in the batch nor
 * on the processor's instruction set. Ties go to the lowest id. Log-probabilities are those of the
 * model itself: log-softmax of the untouched logits.
 */
#ifndef ENGINE_SAMPLE_H
#define ENGINE_SAMPLE_H

#include "base/err.h"
#include "engine/pass.h"
#include "model/backend.h"

struct sample_params {
    float temperature; /* 0: greedy */
    float top_p;       /* 0 or 1: off */
    float min_p;       /* 0: off; relative to the likeliest token */
    int top_k;         /* 0: off */
    uint64_t seed, stream;
    float presence, frequency; /* subtracted for generated tokens: once, per occurrence */
    float repetition;          /* 0 or 1: off; divides (or multiplies) the logit of seen tokens */
    const int32_t *bias_id;    /* [n_bias] each < n_vocab */
    const float *bias;         /* [n_bias] added */
    int n_bias;
};

/* Which tokens a sequence holds and how often it generated them: for the penalties. A hash table
 * of the distinct ids, sized at the start. */
struct sample_seen {
    struct token_count *list; /* [n] distinct ids in order of appearance */
    int32_t *table;           /* [cap] index into list, or -1 */
    int n, cap, max;
};
MUST_USE status sample_seen_open(struct sample_seen *s, int max_distinct);
void sample_seen_close(struct sample_seen *s);
void sample_seen_add(struct sample_seen *s, int32_t id, bool generated);

/* Which tokens a grammar allows: those of `bits` [(n_vocab + 31) / 32] and `also` (-1: no other).
 */
struct sample_mask {
    const uint32_t *bits; /* NULL: every token is allowed */
    int32_t also;
};

struct sample_scratch {
    float *row;    /* [n_vocab] logits with penalties and bias */
    float *p;      /* [n_vocab] */
    float *cand_p; /* [n_vocab] candidates left by the filters: values, and their ids, ascending */
    int32_t *cand; /* [n_vocab] */
    double *block; /* [blocks] sums of p */
    void *hist;
    const struct sample_pass *pass;
    int n_vocab;
};
MUST_USE status sample_scratch_open(struct sample_scratch *s, int n_vocab);
void sample_scratch_close(struct sample_scratch *s);

/* Log of the sum of exp(logits): logprob of token t is logits[t] - sample_lse(...). */
double sample_lse(const float *logits, int n_vocab);

int32_t sample_argmax(const float *logits, int n_vocab);

/* The n likeliest ids, likeliest first, lower id first among equals. */
void sample_top(const float *logits, int n_vocab, int n, int32_t *id);

/* What a choice is made from beside the logits and the parameters. All of it is known before the
 * logits are. */
struct sample_rules {
    const struct sample_seen *seen; /* NULL: no penalties */
    const int32_t *forbidden;       /* [n_forbidden] can't be chosen */
    int n_forbidden;
    struct sample_mask mask; /* allows one token at least */
    uint64_t pos;            /* counts the request's generated tokens */
};

/* logits[n_vocab] finite. Where everything that the mask allows is forbidden, the mask wins. *lse
 * (may be NULL) is the untouched logits'. */
int32_t sample_token(const float *logits, const struct sample_params *p,
                     const struct sample_rules *rules, double *lse, struct sample_scratch *s);

/* The same choice as a backend is asked for it (model/backend.h): all but kind and wants_logprob.
 * It points at what parameters and rules point at. */
void sample_describe(const struct sample_params *p, const struct sample_rules *rules,
                     struct pick *pick);
/* What a backend's pick does, here: sample_token is these two. */
int32_t sample_pick(const float *logits, const struct pick *pick, double *lse,
                    struct sample_scratch *s);

#endif
