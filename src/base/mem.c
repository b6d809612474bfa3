#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#ifdef GLOSS_FAULT
#include <stdatomic.h>

static atomic_long fault_at;
static atomic_long fault_count;

void mem_fault_at(long n)
{
    atomic_store(&fault_count, 0);
    atomic_store(&fault_at, n);
}

long mem_fault_count(void)
{
    return atomic_load(&fault_count);
}

static int refused(void)
{
    long i = atomic_fetch_add(&fault_count, 1) + 1;
    long at = atomic_load(&fault_at);
    return at != 0 && i == at;
}
#else
static int refused(void)
{
    return 0;
}
#endif

void *mem_alloc(size_t n)
{
    return refused() ? NULL : malloc(n ? n : 1);
}

void *mem_calloc(size_t n, size_t size)
{
    return refused() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

void *mem_array(size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total))
        return NULL;
    return mem_alloc(total);
}

void *mem_realloc_array(void *p, size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total) || refused())
        return NULL;
    return realloc(p, total ? total : 1);
}

void *mem_aligned(size_t align, size_t n)
{
    void *p = NULL;
    if (refused() || posix_memalign(&p, align < sizeof p ? sizeof p : align, n ? n : 1) != 0)
        return NULL;
    return p;
}

char *mem_strndup(const char *s, size_t n)
{
    char *p = mem_alloc(n + 1);
    if (p) {
        memcpy(p, s, n);
        p[n] = '\0';
    }
    return p;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

void mem_free(void *p)
{
    free(p);
}
