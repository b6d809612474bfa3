#include "base/arena.h"
#include "base/mem.h"
#include "base/num.h"

struct arena_block {
    struct arena_block *next;
    size_t cap, n;
    _Alignas(16) unsigned char data[];
};

enum { BLOCK_BYTES = 16 * 1024 };

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){.max = max};
}

void arena_fini(struct arena *a)
{
    while (a->head) {
        struct arena_block *b = a->head;
        a->head = b->next;
        mem_free(b);
    }
    a->used = 0;
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t need, total;
    if (!add_ok(n, 15, &need))
        return NULL;
    need &= ~(size_t)15;
    struct arena_block *b = a->head;
    if (!b || b->cap - b->n < need) {
        size_t cap = need > BLOCK_BYTES ? need : BLOCK_BYTES;
        if (!add_ok(cap, sizeof *b, &total) || total > a->max - a->used)
            return NULL;
        b = mem_calloc(1, total);
        if (!b)
            return NULL;
        b->cap = cap;
        b->next = a->head;
        a->head = b;
        a->used += total;
    }
    void *p = b->data + b->n;
    b->n += need;
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t total;
    return mul_ok(n, size, &total) ? arena_alloc(a, total) : NULL;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    size_t total;
    char *p = add_ok(n, 1, &total) ? arena_alloc(a, total) : NULL;
    if (p)
        memcpy(p, s, n);
    return p;
}
