/* UTF-8: validation and decoding of text that may be wrong or cut anywhere. */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the longest valid prefix; equal to n when all is valid (RFC 3629: no surrogates, no
 * overlong forms, at most U+10FFFF). */
size_t utf8_valid(const char *s, size_t n);

/* Decodes the character at s (n >= 1 bytes there). Returns its length 1-4 and the code point; 0
 * when the bytes are invalid; -1 when they are a valid beginning cut short. */
int utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Writes cp as UTF-8 (1-4 bytes) and returns the length. cp must be a scalar value. */
int utf8_put(uint32_t cp, char out[4]);

#endif
