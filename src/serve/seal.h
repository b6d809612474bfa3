/* Sealed text: what a client keeps for the server, opaque and authenticated. */
#ifndef SERVE_SEAL_H
#define SERVE_SEAL_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* Appends base64 of nonce, cipher text and tag (AES-256-GCM); bound to the tenant. */
MUST_USE status seal_text(const uint8_t key[32], uint64_t tenant, const char *s, size_t n,
                          struct buf *);
/* Appends the text; false when it is not one that this key sealed for this tenant. */
bool seal_open(const uint8_t key[32], uint64_t tenant, const char *s, size_t n, struct buf *);

#endif
