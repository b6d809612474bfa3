/* Vocabularies: token ids <-> bytes, ranks for the merge, special tokens.
 *
 * Two sources, one type:
 *   - the o200k_harmony vocabulary compiled into the program (199,998 ranks, specials up to
 *     201,088), ready without parsing;
 *   - a checkpoint's own tokenizer.json (byte-level BPE with the o200k split), for smaller ones.
 * In both, an ordinary token's id is its merge priority (lowest first). A vocabulary is immutable
 * after opening and may be shared between threads.
 */
#ifndef TEXT_VOCAB_H
#define TEXT_VOCAB_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vocab;

/* The control tokens that harmony needs, by meaning. Values of the full vocabulary in brackets. */
enum special {
    SP_START,     /* <|start|>       [200006] */
    SP_END,       /* <|end|>         [200007] */
    SP_MESSAGE,   /* <|message|>     [200008] */
    SP_CHANNEL,   /* <|channel|>     [200005] */
    SP_CONSTRAIN, /* <|constrain|>   [200003] */
    SP_RETURN,    /* <|return|>      [200002] */
    SP_CALL,      /* <|call|>        [200012] */
    SP_ENDOFTEXT, /* <|endoftext|>   [199999] */
    N_SPECIAL
};

/* The compiled-in vocabulary. Never fails, no allocation worth naming; don't free. */
const struct vocab *vocab_o200k(void);

/* Reads the bytes of a tokenizer.json. E_FORMAT when it isn't a byte-level BPE whose ids are in
 * merge order, or lacks a single-byte token. `text` may be freed afterwards. */
MUST_USE status vocab_from_json(const char *text, size_t n, struct vocab **v, struct err *e);

/* True when a tokenizer.json is that of the released gpt-oss models, told by its size and by the
 * ids of a few added tokens, without parsing its 27 MB: then use vocab_o200k() instead of reading
 * it. */
bool vocab_json_is_o200k(const char *text, size_t n);

void vocab_free(struct vocab *v); /* NULL and vocab_o200k() allowed */

/* One past the highest id that decodes (201,089 for the compiled-in one: <|reserved_201088|>). */
int vocab_size(const struct vocab *v);

/* The id of a control token, or -1 when the vocabulary lacks it. */
int vocab_special(const struct vocab *v, enum special which);

/* The id of a special token by its text, e.g. "<|start|>", or -1. */
int vocab_special_named(const struct vocab *v, const char *s, size_t n);
bool vocab_is_special(const struct vocab *v, int id);

/* Bytes of a token, special tokens included ("<|start|>"). NULL when the id decodes to nothing. */
const uint8_t *vocab_bytes(const struct vocab *v, int id, size_t *n);

/* The ordinary token of exactly these bytes, or -1. */
int vocab_find(const struct vocab *v, const uint8_t *s, size_t n);

#endif
