#include "engine/gwork.h"

#include "base/num.h"

void gwork_init(struct gwork *w, struct err *e)
{
    *w = (struct gwork){.left = GWORK_STEPS, .e = e};
    arena_init(&w->a, GWORK_BYTES);
}

void gwork_fini(struct gwork *w)
{
    arena_fini(&w->a);
}

static status too_big(struct gwork *w)
{
    return err_set(w->e, E_LIMIT,
                   "the schema or pattern is too large or too complex to compile; simplify it");
}

status gwork_spend(struct gwork *w, uint64_t steps)
{
    if (steps > w->left)
        return too_big(w);
    w->left -= steps;
    return OK;
}

status gwork_array(struct gwork *w, size_t n, size_t size, void *out_ptr)
{
    size_t total;
    if (!mul_ok(n, size, &total) || total > w->a.max / 2)
        return too_big(w);
    void *p = arena_alloc(&w->a, total);
    if (!p)
        return w->a.used + total + 32768 > w->a.max
                   ? too_big(w)
                   : err_set(w->e, E_NOMEM, "out of memory compiling a schema");
    memcpy(out_ptr, &p, sizeof p);
    return OK;
}

status gwork_grow(struct gwork *w, void *ptr, size_t n, size_t *cap, size_t size)
{
    if (n <= *cap)
        return OK;
    size_t more = *cap ? *cap * 2 : 16;
    while (more < n)
        more *= 2;
    void *old, *p;
    memcpy(&old, ptr, sizeof old);
    status st = gwork_array(w, more, size, &p);
    if (st < 0)
        return st;
    if (*cap)
        memcpy(p, old, *cap * size);
    memcpy(ptr, &p, sizeof p);
    *cap = more;
    return OK;
}

static uint32_t hash_bytes(const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t h = n * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = 0;
        memcpy(&v, b + i, n - i < 8 ? n - i : 8);
        h = (h ^ v) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    return (uint32_t)(h ^ h >> 29);
}

static status rehash(struct gwork *w, struct gintern *t)
{
    size_t n_slot = t->n_slot ? t->n_slot * 2 : 64;
    uint32_t *slot;
    status st = gwork_array(w, n_slot, sizeof *slot, &slot);
    if (st < 0)
        return st;
    for (size_t i = 0; i < t->n; i++) {
        size_t k = t->item[i].hash & (n_slot - 1);
        while (slot[k])
            k = (k + 1) & (n_slot - 1);
        slot[k] = (uint32_t)i + 1;
    }
    t->slot = slot;
    t->n_slot = n_slot;
    return OK;
}

status gintern_put(struct gwork *w, struct gintern *t, const void *p, size_t n, uint32_t *id,
                   bool *fresh)
{
    status st = OK;
    if (t->n * 2 >= t->n_slot)
        TRY(rehash(w, t));
    uint32_t h = hash_bytes(p, n);
    size_t k = h & (t->n_slot - 1);
    uint64_t probes = 1 + n / 16;
    for (; t->slot[k]; k = (k + 1) & (t->n_slot - 1), probes++) {
        const struct gintern_item *it = &t->item[t->slot[k] - 1];
        if (it->hash == h && it->n == n && memcmp(it->p, p, n) == 0) {
            *id = t->slot[k] - 1;
            *fresh = false;
            return gwork_spend(w, probes);
        }
    }
    TRY(gwork_spend(w, probes));
    TRY(gwork_grow(w, &t->item, t->n + 1, &t->cap, sizeof *t->item));
    void *copy;
    TRY(gwork_array(w, n ? n : 1, 1, &copy));
    if (n)
        memcpy(copy, p, n);
    t->item[t->n] = (struct gintern_item){copy, (uint32_t)n, h};
    *id = (uint32_t)t->n++;
    t->slot[k] = *id + 1;
    *fresh = true;
out:
    return st;
}
