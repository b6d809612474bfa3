/* How a vocabulary lies in memory, and its hash tables. Private to vocab.c, o200k.c and the build's
 * generator scripts/gen_vocab.c, which writes the same tables ahead of time.
 *
 * Three open-addressing tables with linear probing hold the tokens:
 *   shorts    ordinary tokens of at most 8 bytes; the slot holds the bytes themselves, so that the
 *             usual lookup touches one cache line;
 *   longs     longer ordinary tokens, by hash; the bytes are compared where they lie;
 *   specials  special tokens, by hash.
 * shorts and longs are cut into 256 drawers by a token's first byte that is no blank. A text in one
 * script then works in a small part of the table: that memory, not the instructions, is what
 * lookups cost.
 *
 * Smaller tables answer most lookups of the merge without touching these:
 *   singles   the id of every byte;
 *   pairs     the id of every two-byte token, by its bytes;
 *   filter    eight bits a slot, found by other bits of the hash: clear says that no token has it.
 *
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
    int32_t id;
    uint32_t at;  /* the token's place in `bytes` */
    uint32_t len; /* 0: free slot */
};

/* Slots [first, first + size) of a table; at least one is free. */
struct vocab_drawer {
    uint32_t first, size;
};

enum { VOCAB_DRAWERS = 256 };

struct vocab {
    int32_t n_id;           /* one past the highest id */
    uint32_t max_len;       /* longest ordinary token */
    const uint32_t *off;    /* [n_id + 1] start in `bytes`, plus the special bit */
    const uint8_t *bytes;   /* all tokens' bytes, in id order */
    const uint32_t *chars;  /* [65536] by code point: its token's id, else VOCAB_NO_CHAR */
    const uint32_t *seams;  /* [65536] by byte before * 256 + byte after, see above */
    const int32_t *singles; /* [256] */
    const int32_t *pairs;   /* [65536] by first byte * 256 + second, -1: none */
    const struct vocab_drawer *short_drawer; /* [256] */
    const struct vocab_drawer *long_drawer;  /* [256] */
    const struct vocab_short *shorts;
    const struct vocab_long *longs, *specials;
    const uint8_t *short_filter, *long_filter; /* a byte for each slot */
    struct vocab_drawer special_drawer;
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

/* The drawer of bytes, and of a key of 1-8 bytes. A lone blank is in drawer 0. */
static inline unsigned vocab_lead(const uint8_t *s, size_t n)
{
    return s[0] != ' ' ? s[0] : n > 1 ? s[1] : 0;
}

static inline unsigned vocab_lead_key(uint64_t key)
{
    return (key & 0xff) == ' ' ? key >> 8 & 0xff : key & 0xff;
}

/* x / 2^32 of the way through n places. */
static inline uint32_t vocab_scale(uint32_t x, uint32_t n)
{
    return (uint32_t)((uint64_t)x * n >> 32);
}

static inline uint32_t vocab_slot(struct vocab_drawer d, uint64_t hash)
{
    return d.first + vocab_scale((uint32_t)(hash >> 32), d.size);
}

static inline uint32_t vocab_next(struct vocab_drawer d, uint32_t slot)
{
    return slot + 1 < d.first + d.size ? slot + 1 : d.first;
}

/* A bit's place in a filter. */
static inline uint32_t vocab_filter_bit(struct vocab_drawer d, uint64_t hash)
{
    return d.first * 8 + vocab_scale((uint32_t)hash, d.size * 8);
}

/* The ordinary token of at most 8 bytes with this key and hash, or -1. */
static inline int32_t vocab_find_short(const struct vocab *v, uint64_t key, uint64_t hash, size_t n)
{
    struct vocab_drawer d = v->short_drawer[vocab_lead_key(key)];
    for (uint32_t i = vocab_slot(d, hash);; i = vocab_next(d, i)) {
        const struct vocab_short *slot = &v->shorts[i];
        if (slot->key == key && slot->len == n)
            return slot->id;
        if (!slot->len)
            return -1;
    }
}

static inline int32_t vocab_find_hashed(const struct vocab *v, const struct vocab_long *table,
                                        struct vocab_drawer d, const uint8_t *s, size_t n,
                                        uint64_t hash)
{
    for (uint32_t i = vocab_slot(d, hash);; i = vocab_next(d, i)) {
        const struct vocab_long *slot = &table[i];
        if (slot->hash == (uint32_t)(hash >> 32) && slot->len == n &&
            memcmp(v->bytes + slot->at, s, n) == 0)
            return slot->id;
        if (!slot->len)
            return -1;
    }
}

/* The ordinary token of these 3-8 bytes, or -1: for bytes that probably are none. */
static inline int32_t vocab_find_rare(const struct vocab *v, uint64_t key, size_t n)
{
    uint64_t hash = vocab_hash_short(key, n);
    uint32_t bit = vocab_filter_bit(v->short_drawer[vocab_lead_key(key)], hash);
    if (!(v->short_filter[bit / 8] >> bit % 8 & 1))
        return -1;
    return vocab_find_short(v, key, hash, n);
}

/* The ordinary token of these more than 8 bytes with this hash, or -1. */
static inline int32_t vocab_find_long(const struct vocab *v, const uint8_t *s, size_t n,
                                      uint64_t hash)
{
    struct vocab_drawer d = v->long_drawer[vocab_lead(s, n)];
    uint32_t bit = vocab_filter_bit(d, hash);
    if (n > v->max_len || !(v->long_filter[bit / 8] >> bit % 8 & 1))
        return -1;
    return vocab_find_hashed(v, v->longs, d, s, n, hash);
}

static inline int32_t vocab_find_special(const struct vocab *v, const uint8_t *s, size_t n)
{
    if (n == 0 || n > VOCAB_SPECIAL_MAX || !(v->special_len >> (n - 1) & 1))
        return -1;
    return vocab_find_hashed(v, v->specials, v->special_drawer, s, n, vocab_hash(s, n));
}

/* ---- building ---- */

/* The tables while they are being filled; struct vocab's pointers look at the same memory. */
struct vocab_build {
    struct vocab_drawer short_drawer[VOCAB_DRAWERS], long_drawer[VOCAB_DRAWERS], special_drawer;
    uint32_t n_short, n_long, n_special; /* slots */
    struct vocab_short *shorts;          /* [n_short] zeroed by the caller, like all here */
    struct vocab_long *longs, *specials; /* [n_long], [n_special] */
    uint8_t *short_filter, *long_filter; /* [n_short], [n_long] */
    int32_t *singles, *pairs;            /* [256], [65536] */
};

/* At most 5/8 full, and never quite full. */
static inline uint32_t vocab_slots(uint32_t n)
{
    return n + n / 5 * 3 + 3;
}

/* Sizes of everything, from v->off and v->bytes. */
static inline void vocab_measure(const struct vocab *v, struct vocab_build *b)
{
    uint32_t n_special = 0;
    for (int32_t id = 0; id < v->n_id; id++) {
        size_t n;
        const uint8_t *s = vocab_at(v, id, &n);
        if (v->off[id] & VOCAB_SPECIAL_BIT)
            n_special++;
        else if (n > VOCAB_SHORT_MAX)
            b->long_drawer[vocab_lead(s, n)].size++;
        else if (n > 0)
            b->short_drawer[vocab_lead(s, n)].size++;
    }
    for (int i = 0; i < VOCAB_DRAWERS; i++) {
        struct vocab_drawer *d = &b->short_drawer[i], *e = &b->long_drawer[i];
        *d = (struct vocab_drawer){b->n_short, vocab_slots(d->size)};
        *e = (struct vocab_drawer){b->n_long, vocab_slots(e->size)};
        b->n_short += d->size;
        b->n_long += e->size;
    }
    b->special_drawer.size = b->n_special = vocab_slots(n_special);
}

static inline bool vocab_put_hashed(struct vocab_long *table, struct vocab_drawer d, uint64_t hash,
                                    struct vocab_long entry)
{
    uint32_t i = vocab_slot(d, hash);
    for (int probe = 0; probe < VOCAB_PROBES; probe++, i = vocab_next(d, i))
        if (!table[i].len) {
            table[i] = entry;
            return true;
        }
    return false;
}

/* Enters a token. False when a chain got too long. */
static inline bool vocab_put(const struct vocab *v, struct vocab_build *b, int32_t id)
{
    size_t n;
    const uint8_t *s = vocab_at(v, id, &n);
    if (n == 0)
        return true;
    uint64_t hash = vocab_hash(s, n);
    struct vocab_long entry = {(uint32_t)(hash >> 32), id, (uint32_t)(s - v->bytes), (uint32_t)n};
    if (v->off[id] & VOCAB_SPECIAL_BIT)
        return vocab_put_hashed(b->specials, b->special_drawer, hash, entry);
    if (n > VOCAB_SHORT_MAX) {
        struct vocab_drawer d = b->long_drawer[vocab_lead(s, n)];
        uint32_t bit = vocab_filter_bit(d, hash);
        b->long_filter[bit / 8] |= (uint8_t)(1 << bit % 8);
        return vocab_put_hashed(b->longs, d, hash, entry);
    }
    if (n == 1)
        b->singles[s[0]] = id;
    if (n == 2)
        b->pairs[s[0] * 256 + s[1]] = id;
    struct vocab_drawer d = b->short_drawer[vocab_lead(s, n)];
    uint32_t bit = vocab_filter_bit(d, hash), i = vocab_slot(d, hash);
    b->short_filter[bit / 8] |= (uint8_t)(1 << bit % 8);
    for (int probe = 0; probe < VOCAB_PROBES; probe++, i = vocab_next(d, i))
        if (!b->shorts[i].len) {
            b->shorts[i] = (struct vocab_short){vocab_key(s, n), id, (uint32_t)n};
            return true;
        }
    return false;
}

/* Points the vocabulary at what was built. */
static inline void vocab_adopt(struct vocab *v, const struct vocab_build *b)
{
    v->short_drawer = b->short_drawer;
    v->long_drawer = b->long_drawer;
    v->special_drawer = b->special_drawer;
    v->shorts = b->shorts;
    v->longs = b->longs;
    v->specials = b->specials;
    v->short_filter = b->short_filter;
    v->long_filter = b->long_filter;
    v->singles = b->singles;
    v->pairs = b->pairs;
}

#endif
