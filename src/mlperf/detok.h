/* Answers as text: token bytes joined, what is not UTF-8 replaced, so that it can be JSON. */
#ifndef MLPERF_DETOK_H
#define MLPERF_DETOK_H

#include "base/buf.h"
#include "gloss.h"

#include <stdbool.h>

/* Appends the text of ids [n]; skip: without control tokens, which print as <|NAME|>. An id that
 * the vocabulary lacks prints as U+FFFD. */
void detok(struct buf *b, const gloss_model *, const int32_t *ids, size_t n, bool skip);
/* Appends s with U+FFFD for each byte that is not part of a UTF-8 character. */
void detok_utf8(struct buf *b, const char *s, size_t n);

#endif
