#include "base/buf.h"
#include "base/mem.h"
#include "base/num.h"

#include <stdio.h>

static char empty[1];

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.p = empty, .max = max};
}

void buf_fini(struct buf *b)
{
    if (b->cap)
        mem_free(b->p);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->st = OK;
    if (b->cap)
        b->p[0] = '\0';
}

char *buf_room(struct buf *b, size_t n)
{
    size_t need;
    if (b->st < 0)
        return NULL;
    if (!add_ok(b->n, n, &need) || need > b->max) {
        b->st = E_LIMIT;
        return NULL;
    }
    if (need + 1 > b->cap) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap < need + 1)
            cap *= 2;
        char *p = mem_realloc_array(b->cap ? b->p : NULL, cap, 1);
        if (!p) {
            b->st = E_NOMEM;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    char *to = buf_room(b, n);
    if (!to)
        return;
    if (n)
        memcpy(to, p, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void buf_putc(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_puts(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *to = n < 0 ? NULL : buf_room(b, (size_t)n);
    if (to) {
        vsnprintf(to, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void buf_html(struct buf *b, const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '<':
            buf_puts(b, "&lt;");
            break;
        case '>':
            buf_puts(b, "&gt;");
            break;
        case '&':
            buf_puts(b, "&amp;");
            break;
        case '"':
            buf_puts(b, "&#34;");
            break;
        default:
            buf_putc(b, *s);
        }
}
