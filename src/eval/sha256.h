/* SHA-256 (FIPS 180-4), for the hashes that lm-eval's sample files carry. */
#ifndef EVAL_SHA256_H
#define EVAL_SHA256_H

#include <stddef.h>

/* The digest of n bytes as 64 lower-case hexadecimal digits and a NUL. */
void sha256_hex(const void *p, size_t n, char out[65]);

#endif
