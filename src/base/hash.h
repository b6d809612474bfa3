/* Keyed hashing: SipHash-2-4 (Aumasson and Bernstein, 2012), for tables whose keys come from
 * strangers. Who does not know the key cannot make entries collide.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_key {
    uint64_t k0, k1;
};

uint64_t hash_sip(struct hash_key key, const void *p, size_t n);

#endif
