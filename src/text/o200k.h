/* Text <-> tokens: the o200k split and byte-pair merge.
 *
 * Linear in the text (n log n within one piece) on any input, and exact: the same ids as tiktoken,
 * and decoding gives back the same bytes.
 */
#ifndef TEXT_O200K_H
#define TEXT_O200K_H

#include "base/buf.h"
#include "base/err.h"
#include "text/vocab.h"

/* A growable list of token ids with a ceiling; errors stick as in struct buf. */
struct ids {
    int32_t *v; /* [n] */
    size_t n, cap, max;
    status st;
};
void ids_init(struct ids *t, size_t max);
void ids_fini(struct ids *t);
void ids_put(struct ids *t, int32_t id);
void ids_append(struct ids *t, const int32_t *v, size_t n);

enum special_mode {
    SPECIAL_TEXT,  /* "<|start|>" in the text is ordinary text (the default everywhere) */
    SPECIAL_ALLOW, /* it becomes the control token */
    SPECIAL_ERROR  /* it is refused: E_INPUT naming the token */
};

/* Appends the ids of `text`. E_INPUT with the byte offset when it isn't valid UTF-8 (nothing is
 * appended then); E_LIMIT at t->max; E_NOMEM. */
MUST_USE status o200k_encode(const struct vocab *v, const char *text, size_t n, enum special_mode,
                             struct ids *t, struct err *e);

/* Appends the bytes of the ids, as they are (may be invalid UTF-8 when a character is cut).
 * E_INPUT naming the first id that is no token. */
MUST_USE status o200k_decode(const struct vocab *v, const int32_t *ids, size_t n, struct buf *out,
                             struct err *e);

#endif
