/* How a vocabulary lies in memory, and its hash tables. Private to vocab.c, o200k.c and the build's
 * generator scripts/gen_vocab.c, which writes the same tables ahead of time.
 *
 * Small tables answer most lookups of the merge without touching the large ones:
 *   singles   the id of every byte;
 *   pairs     the id of every two-byte token, by its bytes;
 *   bloom     a bit per hash: clear says that no ordinary token has it.
 * Three open-addressing tables hold the tokens, with linear probing, each a power of two in size:
 *   shorts    ordinary tokens of at most 8 bytes; the slot holds the bytes themselves, so that the
 *             usual lookup touches one cache line;
 *   longs     longer ordinary tokens, by hash; the bytes are compared where they lie;
 *   specials  special tokens, by hash.
 * `chars` and `seams` let the merge begin with whole characters instead of bytes where the outcome
 * is the same. Merging happens in the order of ids (gen_vocab.c checks that no token of o200k is
 * made from one with a higher id). While a character's bytes are not yet one part, only a token
 * that ends in part of a character or begins with the rest of one can join them to a neighbour. The
 * seam of the two bytes where such a token crosses into the next character holds the lowest id of
 * those tokens: a character whose own id is below the seams at both its ends is complete before any
 * of them can act, so it may as well start complete. Vocabularies read from a file know no
 * characters: their merge begins with bytes.
 *
 * No run of occupied slots is longer than VOCAB_PROBES, so a lookup has a fixed worst case.
 */
#ifndef TEXT_VOCAB_TAB_H
#define TEXT_VOCAB_TAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    VOCAB_N_SPECIAL = 8,    /* N_SPECIAL of vocab.h, which the generator does not see */
    VOCAB_SHORT_MAX = 8,    /* bytes of a token in `shorts` */
    VOCAB_SPECIAL_MAX = 64, /* bytes of a special token: a bit each in special_len */
    VOCAB_TOKEN_MAX = 1024, /* bytes of an ordinary token; o200k's longest has 128 */
    VOCAB_PROBES = 256      /* longest chain accepted; o200k's longest is far below */
};

/* Marks in `off` that the token is special. */
#define VOCAB_SPECIAL_BIT 0x80000000u

#define VOCAB_NO_CHAR UINT32_MAX /* in `chars`: the character is no token */

struct vocab_short {
    uint64_t key; /* the bytes, first byte lowest, zero-padded */
    int32_t id;
    uint32_t len; /* 0: free slot */
};

struct vocab_long {
    uint32_t hash; /* upper half of vocab_hash */
    int32_t id;    /* -1: free slot */
};

struct vocab {
    int32_t n_id;           /* one past the highest id */
    uint32_t max_len;       /* longest ordinary token */
    const uint32_t *off;    /* [n_id + 1] start in `bytes`, plus the special bit */
    const uint8_t *bytes;   /* all tokens' bytes, in id order */
    const uint32_t *chars;  /* [65536] by code point: its token's id, else VOCAB_NO_CHAR */
    const uint32_t *seams;  /* [65536] by byte before * 256 + byte after, see above */
    const int32_t *singles; /* [256] */
    const int32_t *pairs;   /* [65536] by first byte * 256 + second, -1: none */
    const uint64_t *bloom;  /* [1 << bloom_bits] bits */
    const struct vocab_short *shorts;  /* [1 << short_bits] */
    const struct vocab_long *longs;    /* [1 << long_bits] */
    const struct vocab_long *specials; /* [1 << special_bits] */
    int short_bits, long_bits, special_bits, bloom_bits;
    uint64_t special_len;             /* bit i: some special token has i + 1 bytes */
    uint64_t special_first[4];        /* 256 bits: some special token begins with this byte */
    int32_t special[VOCAB_N_SPECIAL]; /* by enum special, -1: none */
};

/* The first n (1-8) bytes as a little-endian number. */
static inline uint64_t vocab_key(const uint8_t *s, size_t n)
{
    uint64_t key = 0;
    if (n >= 4) { /* two loads that may overlap: the shared bytes agree */
        uint32_t lo, hi;
        memcpy(&lo, s, 4);
        memcpy(&hi, s + n - 4, 4);
        return lo | (uint64_t)hi << 8 * (n - 4);
    }
    for (size_t i = n; i-- > 0;)
        key = key << 8 | s[i];
    return key;
}

static inline uint64_t vocab_mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

static inline uint64_t vocab_hash_short(uint64_t key, size_t n)
{
    return vocab_mix(key ^ n << 59);
}

/* Any n >= 1. */
static inline uint64_t vocab_hash(const uint8_t *s, size_t n)
{
    if (n <= 8)
        return vocab_hash_short(vocab_key(s, n), n);
    uint64_t h = n, w;
    for (size_t i = 0; i + 8 < n; i += 8) {
        memcpy(&w, s + i, 8);
        h = vocab_mix(h ^ w);
    }
    memcpy(&w, s + n - 8, 8);
    return vocab_mix(h ^ w);
}

static inline const uint8_t *vocab_at(const struct vocab *v, int32_t id, size_t *n)
{
    uint32_t from = v->off[id] & ~VOCAB_SPECIAL_BIT, to = v->off[id + 1] & ~VOCAB_SPECIAL_BIT;
    *n = to - from;
    return v->bytes + from;
}

/* The ordinary token of at most 8 bytes with this key and hash, or -1. */
static inline int32_t vocab_find_short(const struct vocab *v, uint64_t key, uint64_t hash, size_t n)
{
    uint32_t mask = (1u << v->short_bits) - 1;
    for (uint32_t i = (uint32_t)(hash >> (64 - v->short_bits));; i = (i + 1) & mask) {
        const struct vocab_short *slot = &v->shorts[i];
        if (slot->key == key && slot->len == n)
            return slot->id;
        if (!slot->len)
            return -1;
    }
}

static inline int32_t vocab_find_hashed(const struct vocab *v, const struct vocab_long *table,
                                        int bits, const uint8_t *s, size_t n, uint64_t hash)
{
    uint32_t mask = (1u << bits) - 1, upper = (uint32_t)(hash >> 32);
    for (uint32_t i = (uint32_t)(hash >> (64 - bits));; i = (i + 1) & mask) {
        int32_t id = table[i].id;
        if (id < 0)
            return -1;
        if (table[i].hash != upper)
            continue;
        size_t len;
        const uint8_t *p = vocab_at(v, id, &len);
        if (len == n && memcmp(p, s, n) == 0)
            return id;
    }
}

/* The tables are indexed by the hash's upper bits, the filter by its lower ones. */
static inline bool vocab_bloom(const struct vocab *v, uint64_t hash)
{
    uint32_t bit = (uint32_t)hash & ((1u << v->bloom_bits) - 1);
    return v->bloom[bit / 64] >> bit % 64 & 1;
}

/* The ordinary token of these 3-8 bytes, or -1: for bytes that probably are none. */
static inline int32_t vocab_find_rare(const struct vocab *v, uint64_t key, size_t n)
{
    uint64_t hash = vocab_hash_short(key, n);
    return vocab_bloom(v, hash) ? vocab_find_short(v, key, hash, n) : -1;
}

/* The ordinary token of these more than 8 bytes with this hash, or -1. */
static inline int32_t vocab_find_long(const struct vocab *v, const uint8_t *s, size_t n,
                                      uint64_t hash)
{
    if (n > v->max_len || !vocab_bloom(v, hash))
        return -1;
    return vocab_find_hashed(v, v->longs, v->long_bits, s, n, hash);
}

static inline int32_t vocab_find_special(const struct vocab *v, const uint8_t *s, size_t n)
{
    if (n == 0 || n > VOCAB_SPECIAL_MAX || !(v->special_len >> (n - 1) & 1))
        return -1;
    return vocab_find_hashed(v, v->specials, v->special_bits, s, n, vocab_hash(s, n));
}

/* Building. False when the chain got too long. */
static inline bool vocab_put_short(struct vocab_short *table, int bits, const uint8_t *s, size_t n,
                                   int32_t id)
{
    uint64_t key = vocab_key(s, n);
    uint32_t mask = (1u << bits) - 1;
    uint32_t i = (uint32_t)(vocab_hash_short(key, n) >> (64 - bits));
    for (int probe = 0; probe < VOCAB_PROBES; probe++, i = (i + 1) & mask)
        if (!table[i].len) {
            table[i] = (struct vocab_short){.key = key, .id = id, .len = (uint32_t)n};
            return true;
        }
    return false;
}

static inline bool vocab_put_hashed(struct vocab_long *table, int bits, const uint8_t *s, size_t n,
                                    int32_t id)
{
    uint64_t h = vocab_hash(s, n);
    uint32_t mask = (1u << bits) - 1;
    uint32_t i = (uint32_t)(h >> (64 - bits));
    for (int probe = 0; probe < VOCAB_PROBES; probe++, i = (i + 1) & mask)
        if (table[i].id < 0) {
            table[i] = (struct vocab_long){.hash = (uint32_t)(h >> 32), .id = id};
            return true;
        }
    return false;
}

/* The filter's size for n tokens: about ten bits each. */
static inline int vocab_bloom_bits(size_t n)
{
    int bits = 6;
    while ((size_t)1 << bits < 10 * n)
        bits++;
    return bits;
}

static inline void vocab_put_bloom(uint64_t *bloom, int bits, const uint8_t *s, size_t n)
{
    uint32_t bit = (uint32_t)vocab_hash(s, n) & ((1u << bits) - 1);
    bloom[bit / 64] |= (uint64_t)1 << bit % 64;
}

/* Table size for n tokens: at most 5/8 full, at least 8 slots (so a free slot ends every search).
 */
static inline int vocab_bits(size_t n)
{
    int bits = 3;
    while (((size_t)5 << bits) / 8 < n)
        bits++;
    return bits;
}

#endif
