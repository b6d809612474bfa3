#include "unit.h"

#include "base/json.h"
#include "base/mem.h"

static const struct json_limits roomy = {
    .max_bytes = 1 << 20, .max_depth = 64, .max_values = 10000};

static status parse(const char *text, struct json **root, struct err *e)
{
    *e = (struct err){0};
    return json_parse(text, strlen(text), &roomy, root, e);
}

static void expect_dump(const char *text, const char *want)
{
    struct json *j;
    struct err e;
    struct buf b;
    buf_init(&b, 1 << 20);
    if (parse(text, &j, &e) != OK)
        fail_msg("%s: %s", text, e.msg);
    json_dump(&b, j);
    assert_int_equal(buf_status(&b), OK);
    assert_string_equal(b.p, want);
    json_free(j);
    buf_fini(&b);
}

static void test_dump(void **state)
{
    (void)state;
    expect_dump(" { \"z\" : 1 , \"a\" : [ ] , \"m\" : { } } ", "{\"z\":1,\"a\":[],\"m\":{}}");
    expect_dump("[1,-2,3.5,1e300,-0.0,-0,1.50E+02,true,false,null]",
                "[1,-2,3.5,1e300,-0.0,-0,1.50E+02,true,false,null]"); /* numbers as written */
    expect_dump("12345678901234567890123", "12345678901234567890123");
    expect_dump("[\"\\u0000#1\",\"\\u0000\",\"\\u0000\\u0000#\"]",
                "[\"\\u0000#1\",\"\\u0000\",\"\\u0000\\u0000#\"]");
    expect_dump("\"\\u00e9\\ud83d\\ude00\\u0000\\n\\\"\\\\/\\u001f\"",
                "\"\xc3\xa9\xf0\x9f\x98\x80\\u0000\\n\\\"\\\\/\\u001f\"");
    expect_dump("0.1", "0.1");
    expect_dump("9223372036854775807", "9223372036854775807");
    expect_dump("-9223372036854775808", "-9223372036854775808");
    struct buf b;
    buf_init(&b, 100);
    json_put_num(&b, 0.0 / 0.0);
    json_put_num(&b, 1.0 / 0.0);
    json_put_num(&b, 3.0);
    assert_string_equal(b.p, "nullnull3");
    buf_clear(&b);
    json_put_num(&b, 0.30000000000000004);
    json_put_num(&b, -1.7976931348623157e308);
    assert_string_equal(b.p, "0.30000000000000004-1.7976931348623157e+308");
    buf_fini(&b);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "nul",
        "1 2",
        "[1] x",
        "'a'",
        "{a:1}",
        "\"\\x\"",
        "\"\n\"",
        "\"\xff\"",
        "01",
        "1.",
        ".5",
        "+1",
        "NaN",
        "Infinity",
        "1e400",
        "\"\\ud800\"",
        "\"abc",
        "// x\n1",
        "[1 2]",
        "{\"a\":1,\"a\":2}",
        "\xef\xbb\xbf{}",
        "\"\xed\xa0\x80\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct json *j;
        struct err e;
        status st = parse(bad[i], &j, &e);
        if (st != E_INPUT || !strstr(e.msg, "invalid JSON"))
            fail_msg("%s: %d %s", bad[i], st, e.msg);
        assert_null(j);
    }
}

/* The offset is that of the text given, though numbers in front of it are rewritten. */
static void test_utf8_offset(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int at;
    } cases[] = {
        {"{\"a\":\"\xff\"}", 6},
        {"\xff", 0},
        {"[\"\xe2\x82\"]", 2},
        {"[\"\xc3\xa9\xff\"]", 4},
        {"[1.50,2.250,-0.0,{\"a\":1e5,\"b\":\"abc\xff\"}]", 34},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json *j;
        struct err e;
        char want[64];
        snprintf(want, sizeof want, "invalid JSON: invalid UTF-8 at byte %d", cases[i].at);
        assert_int_equal(parse(cases[i].text, &j, &e), E_INPUT);
        assert_string_equal(e.msg, want);
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct json_limits lim = {.max_bytes = 20, .max_depth = 3, .max_values = 5};
    static const struct {
        const char *text;
        status st;
    } cases[] = {{"[1,2,3]", OK},
                 {"[1,2,3,4,5]", E_LIMIT},
                 {"[[[1]]]", OK},
                 {"[[[[1]]]]", E_LIMIT},
                 {"{\"a\":{\"b\":[0]}}", OK},
                 {"\"[[[[[[[,,,,,,\\\"{\"", OK}, /* inside a string nothing counts */
                 {"\"0123456789abcdefgh\"", OK},
                 {"\"0123456789abcdefghi\"", E_LIMIT},
                 {"[[[[[[[[[[[[[[[[[[[[", E_LIMIT},
                 {"]]]]]]]]", E_INPUT},
                 {"\"unfinished \\", E_INPUT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json *j;
        struct err e = {0};
        status st = json_parse(cases[i].text, strlen(cases[i].text), &lim, &j, &e);
        if (st != cases[i].st)
            fail_msg("%s: %d %s", cases[i].text, st, e.msg);
        json_free(j);
    }
    /* Far deeper and longer than any stack or heap would like: refused by the scan, at once. */
    size_t n = 32u << 20;
    char *text = malloc(n);
    memset(text, '[', n);
    struct json *j;
    struct err e;
    assert_int_equal(json_parse(text, n, &json_limits_file, &j, &e), E_LIMIT);
    memset(text, ',', n);
    assert_int_equal(json_parse(text, n, &json_limits_file, &j, &e), E_LIMIT);
    free(text);
    json_free(NULL);
}

static void test_walk(void **state)
{
    (void)state;
    struct json *j;
    struct err e;
    assert_int_equal(parse("{\"z\":1,\"b\":[true,2.5,\"x\\u0000y\"],\"a\":null}", &j, &e), OK);
    assert_int_equal(json_kind(j), J_OBJ);
    assert_int_equal(json_len(j), 3);
    const char *keys = "zba";
    for (void *it = json_first(j); it; it = json_next(j, it)) {
        size_t n;
        assert_int_equal(json_key(it, &n)[0], *keys++);
        assert_int_equal(n, 1);
    }
    const struct json *b = json_get(j, "b");
    size_t n;
    assert_int_equal(json_kind(json_at(b, 0)), J_TRUE);
    assert_true(json_num(json_at(b, 1)) == 2.5);
    assert_memory_equal(json_str(json_at(b, 2), &n), "x\0y", 4);
    assert_int_equal(n, 3);
    assert_null(json_at(b, 3));
    assert_null(json_get(j, "none"));
    assert_null(json_get(b, "none"));
    assert_null(json_get(NULL, "none"));
    assert_null(json_at(NULL, 0));
    assert_null(json_first(NULL));
    assert_int_equal(json_len(json_get(j, "z")), 0);
    assert_true(json_absent(json_get(j, "a")));
    assert_true(json_absent(NULL));
    assert_int_equal(json_int(json_get(j, "z")), 1);
    assert_true(json_num(json_get(j, "z")) == 1.0);
    json_free(j);
}

static void test_getters(void **state)
{
    (void)state;
    struct json *j;
    struct err e;
    assert_int_equal(
        parse("{\"i\":5,\"r\":5.0,\"h\":5.5,\"big\":1e300,\"t\":true,\"s\":\"text\",\"n\":null,"
              "\"nul\":\"a\\u0000b\"}",
              &j, &e),
        OK);
    int64_t i = 77;
    double d = 77;
    bool b = false;
    const char *s = "default";
    assert_int_equal(json_get_int(j, "i", 0, 9, &i, &e), OK);
    assert_int_equal(i, 5);
    assert_int_equal(json_get_int(j, "r", 0, 9, &i, &e), OK); /* 5.0 is whole */
    assert_int_equal(i, 5);
    static const char *const not_int[] = {"h", "big", "t", "s"};
    for (int k = 0; k < 4; k++) {
        assert_int_equal(json_get_int(j, not_int[k], 0, 9, &i, &e), E_INPUT);
        assert_string_equal(e.param, not_int[k]);
    }
    assert_int_equal(json_get_int(j, "i", 6, 9, &i, &e), E_INPUT);
    assert_int_equal(json_get_int(j, "i", 0, 4, &i, &e), E_INPUT);
    assert_int_equal(json_get_int(j, "n", 0, 4, &i, &e), OK);
    assert_int_equal(json_get_int(j, "none", 0, 4, &i, &e), OK);
    assert_int_equal(i, 5);
    assert_int_equal(json_get_num(j, "h", 0, 9, &d, &e), OK);
    assert_true(d == 5.5);
    assert_int_equal(json_get_num(j, "i", 0, 9, &d, &e), OK);
    assert_true(d == 5);
    assert_int_equal(json_get_num(j, "h", 6, 9, &d, &e), E_INPUT);
    assert_int_equal(json_get_num(j, "t", 0, 9, &d, &e), E_INPUT);
    assert_int_equal(json_get_num(j, "n", 0, 9, &d, &e), OK);
    assert_true(d == 5);
    assert_int_equal(json_get_bool(j, "t", &b, &e), OK);
    assert_true(b);
    assert_int_equal(json_get_bool(j, "i", &b, &e), E_INPUT);
    assert_int_equal(json_get_bool(j, "n", &b, &e), OK);
    assert_true(b);
    assert_int_equal(json_get_str(j, "n", &s, &e), OK);
    assert_string_equal(s, "default");
    assert_int_equal(json_get_str(j, "s", &s, &e), OK);
    assert_string_equal(s, "text");
    assert_int_equal(json_get_str(j, "i", &s, &e), E_INPUT);
    assert_int_equal(json_get_str(j, "nul", &s, &e), E_INPUT); /* would be cut at the NUL */
    json_free(j);
}

/* Each allocation fails once: E_NOMEM, nothing else, nothing lost. */
static void test_no_memory(void **state)
{
    (void)state;
    static const char text[] =
        "{\"key\":[1,2.5,\"a string that is longer than a short buffer\",{\"k\":"
        "null,\"\\u00e9\\ud83d\\ude00\":[[],{}]}],\"x\":\"y\"}";
    status st = E_NOMEM;
    long at = 0;
    while (st != OK) {
        struct json *j;
        struct err e = {0};
        mem_fault_at(++at);
        st = parse(text, &j, &e);
        mem_fault_at(0);
        if (st == OK) {
            expect_dump(text,
                        "{\"key\":[1,2.5,\"a string that is longer than a short buffer\",{\"k\":"
                        "null,\"\xc3\xa9\xf0\x9f\x98\x80\":[[],{}]}],\"x\":\"y\"}");
        } else {
            assert_int_equal(st, E_NOMEM);
            assert_null(j);
        }
        json_free(j);
    }
    assert_true(at > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dump),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_utf8_offset),
        cmocka_unit_test(test_walk),      cmocka_unit_test(test_getters),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
