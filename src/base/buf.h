/* A growable byte buffer with a ceiling.
 *
 * Errors stick: after a failed append the buffer ignores further appends and buf_status() tells
 * E_NOMEM or E_LIMIT, so that a run of appends is checked once, at its end. The bytes are always
 * followed by a NUL that does not count in `n`; `p` is never NULL.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
    char *p;    /* [n] bytes, then a NUL */
    size_t n;   /* bytes in use */
    size_t cap; /* bytes allocated, 0 while p is the shared empty string */
    size_t max; /* ceiling of n */
    status st;  /* first failure, else OK */
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
void buf_clear(struct buf *b); /* n = 0, failure forgotten, memory kept */

void buf_put(struct buf *b, const void *p, size_t n);
void buf_putc(struct buf *b, char c);
void buf_puts(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_html(struct buf *b, const char *s); /* as text or attribute of HTML */

/* Room for n more bytes: the place to write them (then add to b->n), or NULL. */
char *buf_room(struct buf *b, size_t n);

static inline MUST_USE status buf_status(const struct buf *b)
{
    return b->st;
}

#endif
