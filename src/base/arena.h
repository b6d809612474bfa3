/* A bump arena: many small allocations with one lifetime, freed together, under one ceiling.
 * Used for a request's parse tree, prompt and strings. Not thread-safe.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *head; /* newest block first */
    size_t used;              /* bytes taken from the heap so far */
    size_t max;               /* ceiling of used */
};

void arena_init(struct arena *a, size_t max);
void arena_fini(struct arena *a); /* frees everything; the arena is empty again and usable */

/* Aligned to 16, zeroed. NULL at the ceiling or when memory is out. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_array(struct arena *a, size_t n, size_t size); /* NULL on overflow too */
char *arena_strndup(struct arena *a, const char *s, size_t n);

#endif
