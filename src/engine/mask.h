/* Which tokens may come next: grammars against the tokens of a vocabulary.
 *
 * A masker belongs to one vocabulary: a trie of all ordinary tokens' bytes, the prelude that
 * grammars for it are built on, and bounded caches of masks, shared by all requests. A matcher is
 * one request's place in one grammar. A token is allowed when the grammar can read all its bytes;
 * control tokens never are (turn.h gives them out).
 *
 * Everything is allocated by masker_new and matcher_new: masks and steps allocate nothing. One lock
 * per masker; different matchers may be used from different threads.
 */
#ifndef ENGINE_MASK_H
#define ENGINE_MASK_H

#include "engine/grammar.h"
#include "text/vocab.h"

struct masker;

/* n_id: ids below it exist in the model (its rows of logits); masks have (n_id + 31) / 32 words. */
MUST_USE status masker_new(const struct vocab *v, int n_id, struct masker **m, struct err *e);
/* Without trie, prelude and caches: knows the ordinary tokens, but matches no grammars. For turns
 * that only watch over their headers; takes a hundredth of the time and memory. */
MUST_USE status masker_new_plain(const struct vocab *v, int n_id, struct masker **m, struct err *e);
void masker_free(struct masker *m); /* after its matchers and grammars; NULL allowed */
const struct prelude *masker_prelude(const struct masker *m);
const struct vocab *masker_vocab(const struct masker *m);
size_t masker_words(const struct masker *m);
/* Bit per id: ordinary tokens (not control, below n_id, with bytes). [masker_words] */
const uint32_t *masker_ordinary(const struct masker *m);

struct masker_stats {
    size_t bytes;            /* reserved; touched as needed */
    size_t trie_nodes;       /* of the vocabulary */
    uint64_t masks, known;   /* masks asked for; known as a whole */
    uint64_t built, flushed; /* parts walked anew; caches emptied */
    uint64_t cut;            /* readings dropped because there were too many at once */
};
void masker_stats(struct masker *m, struct masker_stats *s);

struct matcher;

MUST_USE status matcher_new(struct masker *m, struct grammar *g, struct matcher **x);
void matcher_free(struct matcher *x);                       /* NULL allowed */
void matcher_reset(struct matcher *x);                      /* back to the start */
void matcher_restart(struct matcher *x, struct grammar *g); /* at the start of another grammar */
void matcher_copy(struct matcher *to, const struct matcher *from); /* of the same masker */

/* Sets the bit of every allowed token, clears all others. Never empty unless matcher_can_end. */
void matcher_mask(struct matcher *x, uint32_t *bits);
/* Whether `id` is allowed, without a mask. */
bool matcher_allows(struct matcher *x, int32_t id);
/* Moves past the token. E_INPUT, without moving, for one that isn't allowed; for one in the mask
 * that only happens when readings were dropped (masker_stats.cut): a schema that hostile can only
 * end its request. */
MUST_USE status matcher_accept(struct matcher *x, int32_t id);
/* Whether the text so far is complete. */
bool matcher_can_end(const struct matcher *x);

#endif
