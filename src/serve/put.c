/* Writers of JSON for the endpoints: text that is not quite text, tokens, log-probabilities. */
#include "serve/put.h"

#include "base/json.h"

#include <math.h>
#include <time.h>

/* Bytes of the character at s: 1-4, 0 when it is not UTF-8, -1 when it is cut. */
static int character(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    int len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (int i = 1; i < len; i++) {
        if ((size_t)i == n)
            return -1;
        unsigned char lo = 0x80, hi = 0xbf;
        if (i == 1) {
            lo = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : lo;
            hi = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : hi;
        }
        if (s[i] < lo || s[i] > hi)
            return 0;
    }
    return len;
}

size_t put_valid(const char *s, size_t n, bool *cut)
{
    size_t i = 0;
    *cut = false;
    while (i < n) {
        int len = character((const unsigned char *)s + i, n - i);
        if (len <= 0) {
            *cut = len < 0;
            break;
        }
        i += (size_t)len;
    }
    return i;
}

void put_utf8(struct buf *b, const char *s, size_t n)
{
    while (n) {
        bool cut;
        size_t ok = put_valid(s, n, &cut);
        buf_put(b, s, ok);
        if (ok == n)
            break;
        buf_puts(b, "\xef\xbf\xbd");
        if (cut)
            break;
        s += ok + 1;
        n -= ok + 1;
    }
}

void put_text(struct buf *b, const char *s, size_t n)
{
    bool cut;
    if (put_valid(s, n, &cut) == n) {
        json_quote(b, s, n);
        return;
    }
    struct buf text;
    buf_init(&text, 3 * n + 3);
    put_utf8(&text, s, n);
    json_quote(b, text.p, text.n);
    buf_fini(&text);
}

void put_token_name(struct buf *b, const char *s, size_t n)
{
    bool cut;
    if (put_valid(s, n, &cut) == n) {
        json_quote(b, s, n);
        return;
    }
    buf_puts(b, "\"bytes:");
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "\\\\x%02x", (unsigned char)s[i]);
    buf_putc(b, '"');
}

int64_t unix_now(void)
{
    return (int64_t)time(NULL);
}

void put_logprob(struct buf *b, float v)
{
    if (isfinite(v))
        json_put_num(b, (double)v);
    else
        buf_puts(b, "-9999.0");
}
