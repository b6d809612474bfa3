/* Small writers of JSON and of bytes that may not be text. */
#ifndef SERVE_PUT_H
#define SERVE_PUT_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* Length of the valid UTF-8 prefix of s; *cut: what follows is the begin of a character. */
size_t put_valid(const char *s, size_t n, bool *cut);
/* Appends s as a JSON string; what is not UTF-8 becomes U+FFFD. */
void put_text(struct buf *, const char *s, size_t n);
/* Appends s as UTF-8 itself, likewise. */
void put_utf8(struct buf *, const char *s, size_t n);
/* A token's name: its text as a JSON string, or "bytes:\\x.." when it is none. */
void put_token_name(struct buf *, const char *s, size_t n);
/* Seconds since 1970. */
int64_t unix_now(void);
/* A float the way JSON clients can take it: NaN and Inf become -9999. */
void put_logprob(struct buf *, float v);

#endif
