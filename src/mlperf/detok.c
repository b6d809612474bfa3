#include "mlperf/detok.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd";

/* Bytes of the character at s, 0 when it is none (overlong, surrogate, cut). */
static size_t char_len(const unsigned char *s, size_t n)
{
    static const struct {
        unsigned char mask, lead;
        size_t n;
        uint32_t least;
    } kinds[] = {
        {0x80, 0, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};
    for (int k = 0; k < 4; k++) {
        if ((s[0] & kinds[k].mask) != kinds[k].lead)
            continue;
        uint32_t c = s[0] & (unsigned char)~kinds[k].mask;
        if (n < kinds[k].n)
            return 0;
        for (size_t i = 1; i < kinds[k].n; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (s[i] & 0x3f);
        }
        bool bad = c < kinds[k].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000);
        return bad ? 0 : kinds[k].n;
    }
    return 0;
}

void detok_utf8(struct buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t start = i, len = 0;
        while (i < n && (len = char_len((const unsigned char *)s + i, n - i)) > 0)
            i += len;
        buf_put(b, s + start, i - start);
        if (i < n) {
            buf_puts(b, replacement);
            i++;
        }
    }
}

void detok(struct buf *b, const gloss_model *m, const int32_t *ids, size_t n, bool skip)
{
    struct buf raw;
    buf_init(&raw, b->max);
    for (size_t i = 0; i < n; i++) {
        size_t len = 0;
        const char *t = gloss_token_bytes(m, ids[i], &len);
        bool control = t && len > 4 && memcmp(t, "<|", 2) == 0 && memcmp(t + len - 2, "|>", 2) == 0;
        if (!t)
            buf_puts(&raw, replacement);
        else if (!skip || !control)
            buf_put(&raw, t, len);
    }
    detok_utf8(b, raw.p, raw.n);
    if (buf_status(&raw) < 0 && b->st == OK)
        b->st = buf_status(&raw);
    buf_fini(&raw);
}
