#include "unit.h"

#include "text/utf8.h"

#include <stdbool.h>

/* RFC 3629 read the slow way: decode by the bit layout, then refuse what the rules forbid. */
static int slow_decode(const uint8_t *b, size_t n, uint32_t *cp)
{
    int len = b[0] < 0x80 ? 1 : b[0] >> 5 == 6 ? 2 : b[0] >> 4 == 14 ? 3 : b[0] >> 3 == 30 ? 4 : 0;
    if (len == 0)
        return 0;
    *cp = len == 1 ? b[0] : b[0] & (0x7f >> len);
    int i = 1;
    for (; i < len && (size_t)i < n; i++) {
        if (b[i] >> 6 != 2)
            return 0;
        *cp = *cp << 6 | (b[i] & 0x3f);
    }
    /* Cut short: what the missing bytes could make of it, at least and at most. */
    int missing = len - i;
    uint32_t lo = *cp << 6 * missing, hi = lo | ((1u << 6 * missing) - 1);
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (hi < least[len] || lo > 0x10ffff || (lo >= 0xd800 && hi <= 0xdfff))
        return 0;
    return missing ? -1 : len;
}

static void test_all_code_points(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char s[4];
        uint32_t back = 1;
        if (cp >= 0xd800 && cp < 0xe000)
            continue;
        int n = utf8_put(cp, s);
        assert_int_equal(utf8_decode(s, (size_t)n, &back), n);
        assert_int_equal(back, cp);
        assert_int_equal(utf8_valid(s, (size_t)n), n);
        for (int cut = 1; cut < n; cut++)
            assert_int_equal(utf8_decode(s, (size_t)cut, &back), -1);
    }
}

/* Every beginning of up to four bytes, the last two coarsely. */
static void test_all_prefixes(void **state)
{
    (void)state;
    static const uint8_t some[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90,
                                   0x9f, 0xa0, 0xbf, 0xc0, 0xed, 0xff};
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++)
            for (size_t c = 0; c < sizeof some; c++)
                for (size_t d = 0; d < sizeof some; d++)
                    for (size_t n = 1; n <= 4; n++) {
                        uint8_t s[4] = {(uint8_t)a, (uint8_t)b, some[c], some[d]};
                        uint32_t got = 0, want = 0;
                        int len = utf8_decode((const char *)s, n, &got);
                        int ref = slow_decode(s, n, &want);
                        if (len != ref)
                            fail_msg("%02x %02x %02x %02x, %zu bytes: %d, not %d", a, b, s[2], s[3],
                                     n, len, ref);
                        if (len > 0)
                            assert_int_equal(got, want);
                    }
}

/* A fault at any place behind any stretch of ASCII is found there. */
static void test_valid_prefix(void **state)
{
    (void)state;
    static const char *const faults[] = {"\x80",         "\xc0\xaf",         "\xe0\x80\x80",
                                         "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x9f\x98",
                                         "\xff"};
    for (size_t ascii = 0; ascii < 70; ascii++)
        for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++)
            for (int wide = 0; wide < 2; wide++) {
                char s[128];
                size_t n = ascii, good;
                memset(s, 'x', n);
                if (wide) {
                    memcpy(s + n, "\xe6\x97\xa5", 3);
                    n += 3;
                }
                assert_int_equal(utf8_valid(s, n), n);
                good = n;
                memcpy(s + n, faults[f], strlen(faults[f]));
                n += strlen(faults[f]);
                assert_int_equal(utf8_valid(s, n), good);
                memset(s + n, 'y', 20);
                assert_int_equal(utf8_valid(s, n + 20), good);
            }
    assert_int_equal(utf8_valid("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_code_points),
        cmocka_unit_test(test_all_prefixes),
        cmocka_unit_test(test_valid_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
