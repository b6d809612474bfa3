#include "text/utf8.h"

#include <string.h>

/* RFC 3629, section 4: the second byte's range depends on the first; all others are 80..BF. */
int utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const uint8_t *b = (const uint8_t *)s;
    uint8_t lo = 0x80, hi = 0xbf;
    int len;
    if (b[0] < 0x80) {
        *cp = b[0];
        return 1;
    }
    if (b[0] < 0xc2)
        return 0;
    if (b[0] < 0xe0) {
        len = 2;
        *cp = b[0] & 0x1f;
    } else if (b[0] < 0xf0) {
        len = 3;
        *cp = b[0] & 0x0f;
        if (b[0] == 0xe0)
            lo = 0xa0; /* below: overlong */
        else if (b[0] == 0xed)
            hi = 0x9f; /* above: surrogates */
    } else if (b[0] < 0xf5) {
        len = 4;
        *cp = b[0] & 0x07;
        if (b[0] == 0xf0)
            lo = 0x90; /* below: overlong */
        else if (b[0] == 0xf4)
            hi = 0x8f; /* above: past U+10FFFF */
    } else {
        return 0;
    }
    for (int i = 1; i < len; i++) {
        if ((size_t)i == n)
            return -1;
        if (b[i] < lo || b[i] > hi)
            return 0;
        *cp = *cp << 6 | (b[i] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
    }
    return len;
}

size_t utf8_valid(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t w[2];
        while (n - i >= sizeof w) {
            memcpy(w, s + i, sizeof w);
            if ((w[0] | w[1]) & 0x8080808080808080u)
                break;
            i += sizeof w;
        }
        /* Up to the next stretch of ASCII, character by character. */
        for (size_t end = n - i < sizeof w ? n : i + sizeof w; i < end;) {
            uint32_t cp;
            int len = utf8_decode(s + i, n - i, &cp);
            if (len <= 0)
                return i;
            i += (size_t)len;
        }
    }
    return i;
}

int utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}
