#include "engine/memo.h"

#include "base/mem.h"
#include "base/num.h"

#include <string.h>

status memo_open(struct memo *m, size_t words, size_t max_bytes)
{
    *m = (struct memo){.words = words};
    m->max = (uint32_t)(max_bytes / (words * sizeof *m->bits));
    m->n_slot = 4;
    while (m->n_slot < 2 * m->max)
        m->n_slot *= 2;
    m->entry = mem_array(m->max, sizeof *m->entry);
    m->bits = mem_array(m->max * words, sizeof *m->bits);
    m->slot = mem_calloc(m->n_slot, sizeof *m->slot);
    if (m->entry && m->bits && m->slot)
        return OK;
    memo_close(m);
    return E_NOMEM;
}

void memo_close(struct memo *m)
{
    mem_free(m->entry);
    mem_free(m->bits);
    mem_free(m->slot);
    *m = (struct memo){0};
}

size_t memo_bytes(const struct memo *m)
{
    return m->max * (sizeof *m->entry + m->words * sizeof *m->bits) + m->n_slot * sizeof *m->slot;
}

static uint64_t hash_of(const uint32_t *key, uint32_t n)
{
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) {
        h = (h ^ key[i]) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
        h ^= h >> 29;
    }
    return h;
}

const uint32_t *memo_find(struct memo *m, const uint32_t *key, uint32_t n)
{
    uint64_t h = hash_of(key, n);
    for (uint32_t k = (uint32_t)h & (m->n_slot - 1); m->slot[k]; k = (k + 1) & (m->n_slot - 1)) {
        const struct memo_entry *e = &m->entry[m->slot[k] - 1];
        if (e->hash != h || e->n_key != n || memcmp(e->key, key, n * sizeof *key) != 0)
            continue;
        atomic_fetch_add(&m->readers, 1);
        return m->bits + (size_t)(m->slot[k] - 1) * m->words;
    }
    return NULL;
}

void memo_done(struct memo *m)
{
    atomic_fetch_sub(&m->readers, 1);
}

void memo_keep(struct memo *m, const uint32_t *key, uint32_t n, const uint32_t *bits)
{
    uint64_t h = hash_of(key, n);
    uint64_t *seen = &m->seen[h >> 54];
    if (*seen != h) {
        *seen = h;
        return;
    }
    if (m->n == m->max) {
        if (atomic_load(&m->readers) > 0)
            return;
        memset(m->slot, 0, m->n_slot * sizeof *m->slot);
        m->n = 0;
    }
    if (m->max == 0)
        return;
    struct memo_entry *e = &m->entry[m->n];
    *e = (struct memo_entry){.hash = h, .n_key = n};
    memcpy(e->key, key, n * sizeof *key);
    memcpy(m->bits + (size_t)m->n * m->words, bits, m->words * sizeof *bits);
    uint32_t k = (uint32_t)h & (m->n_slot - 1);
    while (m->slot[k])
        k = (k + 1) & (m->n_slot - 1);
    m->slot[k] = ++m->n;
}
