/* Heap memory. The only place that calls malloc; everything else in gloss allocates through it.
 *
 * In a test build (-DGLOSS_FAULT) the nth allocation can be made to fail: mem_fault_at(n) lets
 * n-1 further allocations succeed and fails the nth; 0 turns it off. In other builds the hook
 * does not exist.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>

/* All return NULL when memory can't be had or `n * size` overflows; n == 0 gives a unique pointer.
 */
void *mem_alloc(size_t n);
void *mem_calloc(size_t n, size_t size);                 /* zeroed */
void *mem_array(size_t n, size_t size);                  /* not zeroed */
void *mem_realloc_array(void *p, size_t n, size_t size); /* p unchanged on failure */
/* Contents undefined; align a power of two. Large blocks cost physical memory only once touched, so
 * a cache may be sized for the longest context. */
void *mem_aligned(size_t align, size_t n);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void mem_free(void *p); /* NULL is allowed; frees what any function above returned */

#ifdef GLOSS_FAULT
void mem_fault_at(long n);
long mem_fault_count(void); /* allocations since the last mem_fault_at */
#endif

#endif
