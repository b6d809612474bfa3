/* Masks made before, by what they were made of: inside a field of a JSON text one place of the
 * grammar comes again at every token, and 25 KB copied are a fifth of what making them costs.
 *
 * An entry never changes until all are dropped, which happens when the pool is full and nobody
 * reads. A hit is one whose whole key is equal. find and keep are to be called under the owner's
 * lock; what find returned may be read without it until memo_done. Nothing is allocated after
 * memo_open.
 */
#ifndef ENGINE_MEMO_H
#define ENGINE_MEMO_H

#include "base/err.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { MEMO_KEY = 64, MEMO_SEEN = 1024 };

struct memo_entry {
    uint64_t hash;
    uint32_t n_key;
    uint32_t key[MEMO_KEY];
};

struct memo {
    size_t words;             /* of one mask */
    uint32_t n, max, n_slot;  /* entries; n_slot is a power of two above max */
    struct memo_entry *entry; /* [max] */
    uint32_t *bits;           /* [max, words] */
    uint32_t *slot;           /* [n_slot] entry + 1, 0: free */
    uint64_t seen[MEMO_SEEN]; /* hashes asked for once: only what comes again is kept */
    atomic_int readers;
};

MUST_USE status memo_open(struct memo *m, size_t words, size_t max_bytes);
void memo_close(struct memo *m); /* zeroed allowed */
size_t memo_bytes(const struct memo *m);
/* The mask of key[0..n), n at most MEMO_KEY; NULL when it isn't known. Else memo_done must follow,
 * from any thread. */
const uint32_t *memo_find(struct memo *m, const uint32_t *key, uint32_t n);
void memo_done(struct memo *m);
/* After a find that was in vain. */
void memo_keep(struct memo *m, const uint32_t *key, uint32_t n, const uint32_t *bits);

#endif
