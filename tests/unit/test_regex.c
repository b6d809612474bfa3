/* Patterns: what they match, what is refused and why, and that hostile ones end quickly. */
#include "unit/unit.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/regex.h"

static status compile(const char *p, bool whole, struct gwork *w, struct chardfa *d, struct err *e)
{
    *e = (struct err){0};
    gwork_init(w, e);
    return regex_compile(w, p, strlen(p), whole, d);
}

static bool match(const char *p, bool whole, const char *s)
{
    struct gwork w;
    struct chardfa d;
    struct err e;
    status st = compile(p, whole, &w, &d, &e);
    if (st < 0)
        fail_msg("%s: %s", p, e.msg);
    bool yes = chardfa_match(&d, s, strlen(s));
    gwork_fini(&w);
    return yes;
}

static void test_meaning(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        bool whole;
        const char *yes[4], *no[4];
    } cases[] = {
        {"abc", true, {"abc"}, {"ab", "abcd", ""}},
        {"b+", false, {"b", "abbbc"}, {"", "ac"}},
        {"^b+$", false, {"b", "bb"}, {"ab", "bc", ""}},
        {"^a|b$", false, {"ax", "xb"}, {"xa", "bx"}},
        {"(a|bc)*d", true, {"d", "abcad"}, {"abd", "dd"}},
        {"a{2}b{1,3}c{2,}", true, {"aabcc", "aabbbccc"}, {"abcc", "aabbbbcc", "aabc"}},
        {"x?y??z*?", true, {"", "xyzz"}, {"xx"}},
        {"[a-c^]-[^a-c]", true, {"a-d", "^-\xc3\xa9"}, {"d-d", "a-a"}},
        {"\\d\\D\\w\\W\\s\\S", true, {"1x_- a", "0ab.\ta"}, {"aaaaaa", "1x_-aa"}},
        {"\\u00e9\\xe9\\u{1f600}\\ud83d\\ude00",
         true,
         {"\xc3\xa9\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80"},
         {"ee"}},
        {".", true, {"a", "\xf0\x9f\x98\x80"}, {"\n", "\xe2\x80\xa8", "ab"}},
        {"(?:a)(?<n>b)(c)", true, {"abc"}, {"ab"}},
        {"a{,3}", true, {"a{,3}"}, {"aaa"}},
        {"(^a)?b$", false, {"ab", "b", "xb"}, {"ba"}},
        {"^^a$$", false, {"a"}, {"aa"}},
        {"a^b", false, {NULL}, {"ab", "a^b"}},
        {"[\\]\\-\\\\]+", true, {"]-\\"}, {"a"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int k = 0; k < 4; k++) {
            if (cases[i].yes[k] && !match(cases[i].p, cases[i].whole, cases[i].yes[k]))
                fail_msg("%s should match %s", cases[i].p, cases[i].yes[k]);
            if (cases[i].no[k] && match(cases[i].p, cases[i].whole, cases[i].no[k]))
                fail_msg("%s should not match %s", cases[i].p, cases[i].no[k]);
        }
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        status st;
        const char *word;
    } cases[] = {
        {"+", E_INPUT, "nothing before"},   {"a**", E_INPUT, "after a quantifier"},
        {"(", E_INPUT, "without )"},        {")", E_INPUT, "without ("},
        {"[a", E_INPUT, "without ]"},       {"[]", E_INPUT, "empty"},
        {"[b-a]", E_INPUT, "range"},        {"\\", E_INPUT, "nothing after"},
        {"(a)\\1", E_INPUT, "backref"},     {"(?=a)", E_INPUT, "lookaround"},
        {"(?<!a)b", E_INPUT, "lookaround"}, {"\\bx", E_INPUT, "word bound"},
        {"\\p{L}", E_INPUT, "\\p"},         {"(?i)a", E_INPUT, "flags"},
        {"a{3,2}", E_INPUT, "m > n"},       {"\\xg0", E_INPUT, "hexadecimal"},
        {"\\ud800", E_INPUT, "surrogate"},  {"\\q", E_INPUT, "unknown escape"},
        {"^*", E_INPUT, "nothing before"},  {"a{1,1000000}", E_LIMIT, "repetitions"},
        {"\xff", E_INPUT, "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gwork w;
        struct chardfa d;
        struct err e;
        status st = compile(cases[i].p, true, &w, &d, &e);
        if (strcmp(cases[i].p, "^*") == 0)
            assert_int_equal(st, E_INPUT);
        else if (st != cases[i].st || !strstr(e.msg, cases[i].word))
            fail_msg("%s: %d %s", cases[i].p, st, e.msg);
        gwork_fini(&w);
    }
}

/* Each ends within the limits, whatever the outcome. */
static void test_hostile(void **state)
{
    (void)state;
    char deep[5001], wide[60001];
    memset(deep, '(', 2500);
    memset(deep + 2500, ')', 2500);
    deep[5000] = '\0';
    for (size_t i = 0; i < sizeof wide - 1; i++)
        wide[i] = "a|"[i % 2];
    wide[sizeof wide - 1] = '\0';
    wide[sizeof wide - 2] = 'b';
    const char *const p[] = {"^(a+)+$",
                             "(a|aa)+$",
                             "(.*a){30}",
                             "(a|b)*a(a|b){25}",
                             "((a{100}){100}){100}",
                             "(((((a{1,9}){1,9}){1,9}){1,9}){1,9}){1,9}",
                             "(a?){5000}a{5000}",
                             "[a-z]{1,20000}",
                             "(.{0,999}x){0,20}",
                             deep,
                             wide};
    for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
        for (int whole = 0; whole < 2; whole++) {
            struct gwork w;
            struct chardfa d;
            struct err e;
            uint64_t t = clock_ns();
            status st = compile(p[i], whole, &w, &d, &e);
            assert_true(st == OK || st == E_LIMIT);
            assert_true(w.a.used <= GWORK_BYTES);
            gwork_fini(&w);
            printf("%-24.24s whole %d: %s in %.1f ms\n", p[i], whole, err_name(st),
                   clock_ms_since(t));
        }
}

static void test_products(void **state)
{
    (void)state;
    struct gwork w;
    struct chardfa a, b, c;
    gwork_init(&w, NULL);
    assert_int_equal(regex_compile(&w, "[ab]*", 5, true, &a), OK);
    assert_int_equal(chardfa_length(&w, 2, 3, &b), OK);
    assert_int_equal(chardfa_and(&w, &a, &b, &c), OK);
    assert_true(chardfa_match(&c, "ab", 2) && chardfa_match(&c, "bbb", 3));
    assert_false(chardfa_match(&c, "a", 1) || chardfa_match(&c, "abab", 4) ||
                 chardfa_match(&c, "ac", 2));
    assert_int_equal(regex_compile(&w, "c+", 2, true, &b), OK);
    assert_int_equal(chardfa_and(&w, &a, &b, &c), OK);
    assert_int_equal(c.n, 0);
    const char *const names[] = {"a", "ab", "\xc3\xa9", "a"};
    const size_t len[] = {1, 2, 2, 1};
    assert_int_equal(chardfa_except(&w, names, len, 4, &c), OK);
    assert_false(chardfa_match(&c, "a", 1) || chardfa_match(&c, "ab", 2) ||
                 chardfa_match(&c, "\xc3\xa9", 2));
    assert_true(chardfa_match(&c, "", 0) && chardfa_match(&c, "abc", 3) &&
                chardfa_match(&c, "b", 1) && chardfa_match(&c, "\xc3\xa8", 2) &&
                chardfa_match(&c, "\xf0\x9f\x98\x80", 4));
    gwork_fini(&w);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    status st = E_NOMEM;
    for (long n = 1; st != OK; n++) {
        struct gwork w;
        struct chardfa d;
        struct err e;
        mem_fault_at(n);
        st = compile("^([a-z]{1,40}|\\d+)*x$", false, &w, &d, &e);
        mem_fault_at(0);
        gwork_fini(&w);
        assert_true(st == OK || st == E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meaning),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile),       cmocka_unit_test(test_products),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
