/* Schemas to grammars: what is accepted and refused, errors that name keyword and place, hostile
 * schemas within time and memory, every failing allocation. */
#include "unit/unit.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/mask.h"
#include "engine/schema.h"

static struct masker *masker;

static status compile(const char *text, struct grammar **g, struct err *e)
{
    struct json *j = NULL;
    *e = (struct err){0};
    *g = NULL;
    status st = json_parse(text, strlen(text), &schema_json_limits, &j, e);
    if (st == OK)
        st = schema_compile(masker_prelude(masker), j, g, e);
    json_free(j);
    return st;
}

/* Whether the text, byte by byte, is a complete value of the grammar. */
static bool reads(struct grammar *g, const char *text)
{
    struct matcher *x;
    assert_int_equal(matcher_new(masker, g, &x), OK);
    bool ok = true;
    for (const char *c = text; *c && ok; c++) {
        int id = vocab_find(masker_vocab(masker), (const uint8_t *)c, 1);
        ok = matcher_accept(x, id) == OK;
    }
    ok = ok && matcher_can_end(x);
    matcher_free(x);
    return ok;
}

struct one {
    const char *schema;
    const char *yes[6], *no[6];
};

static void check(const struct one *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct grammar *g;
        struct err e;
        if (compile(c[i].schema, &g, &e) < 0)
            fail_msg("%s: %s", c[i].schema, e.msg);
        for (int k = 0; k < 6; k++) {
            if (c[i].yes[k] && !reads(g, c[i].yes[k]))
                fail_msg("%s should allow %s", c[i].schema, c[i].yes[k]);
            if (c[i].no[k] && reads(g, c[i].no[k]))
                fail_msg("%s should not allow %s", c[i].schema, c[i].no[k]);
        }
        grammar_unref(g);
    }
}

static void test_values(void **state)
{
    (void)state;
    static const struct one c[] = {
        {"{}",
         {"null", "-1.5e3", "\"\"", "[1, {\"a\":[]}]", "{\"a\": 1,\n  \"b\":2}", "{}"},
         {"", "01", "[1,]", "{\"a\":1,}", "nul", " 1"}},
        {"{\"type\":\"integer\"}",
         {"0", "-7", "123456789012345678"},
         {"-0", "1.0", "00", "1234567890123456789", "1e2"}},
        {"{\"type\":\"number\"}",
         {"0", "-0.5", "1e9", "1.25E-2"},
         {"+1", ".5", "1.", "1e", "1e100"}},
        {"{\"type\":\"string\",\"minLength\":1,\"maxLength\":3}",
         {"\"a\"", "\"\xc3\xa9\\n\\u00e9\"", "\"\\ud83d\\ude00xy\""},
         {"\"\"", "\"abcd\"", "\"\\ud83d\"", "\"\n\"", "\"\xff\"", "\"\\x\""}},
        {"{\"type\":\"string\",\"maxLength\":900}", {"\"\"", "\"a\""}, {"a", "\"a"}},
        {"{\"type\":\"string\",\"pattern\":\"^a+$\",\"maxLength\":2}",
         {"\"a\"", "\"aa\""},
         {"\"\"", "\"aaa\"", "\"b\""}},
        {"{\"enum\":[1,\"a\",null,[1,2],{\"k\":true}]}",
         {"1", "\"a\"", "null", "[1, 2]", "{\"k\":true}"},
         {"2", "\"b\"", "[1]", "{}"}},
        {"{\"enum\":[1,\"a\",null],\"type\":\"string\"}", {"\"a\""}, {"1", "null"}},
        {"{\"const\":5,\"maximum\":7}", {"5"}, {"6"}},
        {"{\"type\":[\"integer\",\"null\"],\"minimum\":3}", {"3", "null"}, {"2", "\"\""}},
        {"{\"type\":\"string\",\"nullable\":true}", {"\"x\"", "null"}, {"1"}},
        {"{\"type\":\"string\",\"format\":\"date\"}",
         {"\"2024-02-29\"", "\"2000-02-29\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-13-01\"", "\"0000-01-01\"",
          "\"2024-04-31\""}},
        {"{\"type\":\"string\",\"format\":\"uuid\"}",
         {"\"123e4567-e89b-12d3-a456-426614174000\""},
         {"\"123e4567e89b12d3a456426614174000\""}},
    };
    check(c, sizeof c / sizeof c[0]);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct one c[] = {
        {"{\"type\":\"integer\",\"minimum\":-5,\"maximum\":120}",
         {"-5", "0", "9", "99", "120"},
         {"-6", "121", "-0", "1000", "-10"}},
        {"{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":12}",
         {"10", "11"},
         {"9", "12", "1", "110"}},
        {"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", {"2", "3"}, {"1", "4"}},
        {"{\"type\":\"number\",\"minimum\":0.5,\"exclusiveMaximum\":1}",
         {"0.5", "0.500", "0.75", "0.999999"},
         {"0.4999", "1", "1.0", "0", "-0.7", "0.5e0"}},
        {"{\"type\":\"number\",\"minimum\":-2.25,\"maximum\":-0.5}",
         {"-2.25", "-1", "-0.5", "-0.50"},
         {"-2.26", "-0.4", "0", "1", "-3"}},
        {"{\"type\":\"number\",\"exclusiveMinimum\":0}",
         {"0.1", "5", "0.000001"},
         {"0", "-1", "-0.0", "0.0"}},
        {"{\"type\":\"number\",\"maximum\":1e2,\"minimum\":1e-2}",
         {"100", "0.01", "100.0"},
         {"100.1", "0.009", "1000"}},
        {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":0,\"maximum\":100}",
         {"0", "7", "98"},
         {"1", "105", "-7", "71"}},
        {"{\"type\":\"number\",\"multipleOf\":0.25}",
         {"0.25", "-1.5", "3", "2.0"},
         {"0.1", "0.255", "1.30"}},
        {"{\"type\":\"integer\",\"minimum\":1e30}", {NULL}, {"1", "999999999999999999"}},
    };
    check(c, sizeof c / sizeof c[0] - 1);
    struct grammar *g;
    struct err e;
    assert_int_equal(compile(c[9].schema, &g, &e), E_INPUT);
}

static void test_structures(void **state)
{
    (void)state;
    static const struct one c[] = {
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
         {"[1]", "[1, 2,3]", "[\n  1,\n  2\n]"},
         {"[]", "[1,2,3,4]", "[1,]", "[,1]", "[1 ,2]"}},
        {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":false}",
         {"[]", "[1]", "[1,2]"},
         {"[2]", "[1,2,3]"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
         "\"null\"},\"c\":{\"const\":1}},\"required\":[\"b\"]}",
         {"{\"b\":null}", "{\"a\": 1, \"b\": null}", "{\"b\":null,\"c\":1}",
          "{\n\t\"a\":1,\n\t\"b\":null\n}"},
         {"{}", "{\"b\":null,\"a\":1}", "{\"b\":null,\"d\":1}", "{\"b\" :null}",
          "{\"b\":null,\"b\":null}", "{\"a\":1,}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"minProperties\":1,"
         "\"maxProperties\":2}",
         {"{\"x\":1}", "{\"x\":1,\"y\":2}"},
         {"{}", "{\"x\":\"\"}", "{\"x\":1,\"y\":2,\"z\":3}"}},
        {"{\"type\":\"object\",\"properties\":{\"ab\":{\"const\":1}},\"additionalProperties\":"
         "true}",
         {"{}", "{\"ab\":1,\"a\":2,\"abc\":3}", "{\"\":null}"},
         {"{\"ab\":2}", "{\"x\":1,\"ab\":1}"}},
        {"{\"type\":\"object\",\"required\":[\"k\"]}", {"{\"k\":[]}", "{\"k\":1,\"z\":2}"}, {"{}"}},
        {"{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},"
         "\"required\":[\"a\"]},{\"properties\":{\"a\":{\"minimum\":5},\"b\":{}}}]}",
         {"{\"a\":5}", "{\"a\":6,\"b\":[]}"},
         {"{\"a\":4}", "{}", "{\"a\":5,\"c\":1}"}},
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"description\":\"x\"}",
         {"1", "\"\""},
         {"null", "[]"}},
        {"{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[{"
         "\"$ref\":\"#\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}",
         {"{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"},
         {"{\"v\":1}", "{\"v\":1,\"next\":{}}"}},
        {"{\"$defs\":{\"a/b\":{\"anyOf\":[{\"$ref\":\"#/$defs/a~1b\"},{\"const\":1}]}},"
         "\"$ref\":\"#/$defs/a~1b\"}",
         {"1"},
         {"2", "null", "[]"}},
        {"{\"$ref\":\"#/definitions/x\",\"definitions\":{\"x\":{\"type\":\"array\",\"items\":{"
         "\"$ref\":\"#/definitions/x\"}}}}",
         {"[]", "[[],[[]]]"},
         {"[1]", "1"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}},\"anyOf\":[{"
         "\"required\":"
         "[\"a\"]},{\"properties\":{\"b\":{\"const\":1}},\"required\":[\"b\"]}]}",
         {"{\"a\":\"\"}", "{\"b\":1}", "{\"a\":\"\",\"b\":1}"},
         {"{}"}},
    };
    check(c, sizeof c / sizeof c[0]);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *schema;
        status st;
        const char *param, *word;
    } c[] = {
        {"{\"type\":\"foo\"}", E_INPUT, "#/type", "type"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}", E_INPUT, "#/properties/a/not",
         "\"not\""},
        {"{\"if\":{}}", E_INPUT, "#/if", "if"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", E_INPUT, "#/uniqueItems", "uniqueItems"},
        {"{\"patternProperties\":{}}", E_INPUT, "#/patternProperties", "patternProperties"},
        {"{\"$ref\":\"https://example.com/s.json\"}", E_INPUT, "#/$ref", "never fetched"},
        {"{\"$ref\":\"#/$defs/x\"}", E_INPUT, "#/$ref", "nowhere"},
        {"{\"type\":\"string\",\"format\":\"color\"}", E_INPUT, "#/format", "color"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", E_INPUT, "#/pattern", "lookaround"},
        {"{\"type\":\"string\",\"pattern\":\"a{1,1000000}\"}", E_LIMIT, "#/pattern", "repetitions"},
        {"{\"anyOf\":[]}", E_INPUT, "#/anyOf", "non-empty"},
        {"{\"enum\":[]}", E_INPUT, "#/enum", "non-empty"},
        {"{\"required\":[1]}", E_INPUT, "#/required", "strings"},
        {"{\"minLength\":-1}", E_INPUT, "#/minLength", "whole number"},
        {"{\"minimum\":\"1\"}", E_INPUT, "#/minimum", "number"},
        {"{\"properties\":[]}", E_INPUT, "#/properties", "object"},
        {"{\"items\":[{}]}", E_INPUT, "#/items", "prefixItems"},
        {"{\"allOf\":[5]}", E_INPUT, "#/allOf/0", "object or a boolean"},
        {"{\"maxItems\":1000000,\"type\":\"array\"}", E_LIMIT, "#/maxItems", "items"},
        {"{\"minimum\":5,\"maximum\":4}", E_INPUT, "", "nothing satisfies"},
        {"{\"$ref\":\"#\"}", E_INPUT, "", "nothing satisfies"},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", E_INPUT, "",
         "nothing satisfies"},
        {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", E_INPUT, "",
         "nothing satisfies"},
        {"false", E_INPUT, "", "object"},
        {"[]", E_INPUT, "", "object"},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        struct grammar *g;
        struct err e;
        status st = compile(c[i].schema, &g, &e);
        if (st != c[i].st || strcmp(e.param, c[i].param) != 0 || !strstr(e.msg, c[i].word))
            fail_msg("%s: %d [%s] %s", c[i].schema, st, e.param, e.msg);
        assert_null(g);
    }
}

static char *many(const char *head, const char *each, const char *tail, int n)
{
    size_t cap = strlen(head) + (strlen(each) + 12) * (size_t)n + strlen(tail) + 1, k;
    char *s = mem_alloc(cap);
    assert_non_null(s);
    k = (size_t)snprintf(s, cap, "%s", head);
    for (int i = 0; i < n; i++) {
        k += (size_t)snprintf(s + k, cap - k, i ? "," : "");
        k += (size_t)snprintf(s + k, cap - k, each, i, i + 1, i + 1); /* NOLINT: test formats */
    }
    snprintf(s + k, cap - k, "%s", tail);
    return s;
}

/* Each is refused or compiled, in bounded time and memory (the limits of gwork.h). */
static void test_hostile(void **state)
{
    (void)state;
    struct {
        const char *what;
        char *text;
        bool ok;
    } c[] = {
        {"enum of a million", many("{\"enum\":[", "%d", "]}", 1000000), false},
        {"enum of 10,000", many("{\"enum\":[", "%d", "]}", 10000), true},
        {"1,000 optional properties", many("{\"properties\":{", "\"p%d\":{}", "}}", 1000), true},
        {"20,000 properties",
         many("{\"properties\":{", "\"p%d\":{\"type\":\"string\"}", "}}", 20000), false},
        {"doubling references",
         many("{\"$ref\":\"#/$defs/0\",\"$defs\":{",
              "\"%d\":{\"type\":\"array\",\"prefixItems\":[{\"$ref\":\"#/$defs/%d\"},{\"$ref\":"
              "\"#/$defs/%d\"}]}",
              ",\"100\":{}}}", 100),
         true},
        {"doubling branches",
         many("{\"$ref\":\"#/$defs/0\",\"$defs\":{",
              "\"%d\":{\"anyOf\":[{\"allOf\":[{\"$ref\":\"#/$defs/"
              "%d\"}],\"minimum\":1},{\"allOf\":[{"
              "\"$ref\":\"#/$defs/%d\"}],\"maximum\":9}]}",
              ",\"40\":{}}}", 40),
         false},
        {"anyOf of 30 pairs",
         many("{\"allOf\":[", "{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d}]}", "]}", 30), false},
        {"a chain of 1,000 references",
         many("{\"$ref\":\"#/$defs/0\",\"$defs\":{", "\"%d\":{\"$ref\":\"#/$defs/%d\"}",
              ",\"1000\":{\"const\":1}}}", 1000),
         true},
        {"nested patterns",
         many("{\"allOf\":[", "{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){%d}\"}", "]}", 14),
         false},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        struct json *j = NULL;
        struct grammar *g = NULL;
        struct err e = {0};
        status st = json_parse(c[i].text, strlen(c[i].text), &schema_json_limits, &j, &e);
        uint64_t t = clock_ns();
        if (st == OK)
            st = schema_compile(masker_prelude(masker), j, &g, &e);
        printf("%-28s %s in %.1f ms\n", c[i].what, err_name(st), clock_ms_since(t));
        if (c[i].ok ? st != OK : st != E_LIMIT)
            fail_msg("%s: %s", c[i].what, e.msg);
        grammar_unref(g);
        json_free(j);
        mem_free(c[i].text);
    }
    char *deep = mem_alloc(700001);
    assert_non_null(deep);
    for (int i = 0; i < 100000; i++)
        memcpy(deep + 6 * i, "{\"a\":", 5), deep[6 * i + 5] = ' ';
    deep[600000] = '1';
    memset(deep + 600001, '}', 100000);
    deep[700001 - 1] = '\0';
    struct grammar *g;
    struct err e;
    assert_int_equal(compile(deep, &g, &e), E_LIMIT);
    mem_free(deep);
}

static void test_other_kinds(void **state)
{
    (void)state;
    struct grammar *g;
    struct err e = {0};
    assert_int_equal(schema_any_object(masker_prelude(masker), &g, &e), OK);
    assert_true(reads(g, "{\"a\": [1, {}]}") && reads(g, "{}"));
    assert_false(reads(g, "[]") || reads(g, "1"));
    grammar_unref(g);
    assert_int_equal(schema_regex(masker_prelude(masker), "\\d+(\\.\\d)?", 10, &g, &e), OK);
    assert_true(reads(g, "12") && reads(g, "1.5"));
    assert_false(reads(g, "x1") || reads(g, "1."));
    grammar_unref(g);
    const char *const s[] = {"yes", "no", "maybe", "no"};
    const size_t len[] = {3, 2, 5, 2};
    assert_int_equal(schema_choice(masker_prelude(masker), s, len, 4, &g, &e), OK);
    assert_true(reads(g, "yes") && reads(g, "no") && reads(g, "maybe"));
    assert_false(reads(g, "may") || reads(g, "") || reads(g, "yesno"));
    grammar_unref(g);
    assert_int_equal(schema_choice(masker_prelude(masker), s, len, 0, &g, &e), E_INPUT);
    assert_int_equal(schema_regex(masker_prelude(masker), "a(?!b)", 6, &g, &e), E_INPUT);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    static const char text[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\","
                               "\"pattern\":\"^x+$\"},\"b\":"
                               "{\"enum\":[1,[2]]},\"c\":{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":"
                               "\"integer\",\"minimum\":3}]}"
                               "},\"required\":[\"c\"]}";
    struct json *j;
    struct err e = {0};
    assert_int_equal(json_parse(text, sizeof text - 1, &schema_json_limits, &j, &e), OK);
    status st = E_NOMEM;
    for (long n = 1; st != OK; n++) {
        struct grammar *g;
        mem_fault_at(n);
        st = schema_compile(masker_prelude(masker), j, &g, &e);
        mem_fault_at(0);
        assert_true(st == OK || st == E_NOMEM);
        grammar_unref(g);
    }
    json_free(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_structures),    cmocka_unit_test(test_errors),
        cmocka_unit_test(test_other_kinds),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_out_of_memory),
    };
    struct err e = {0};
    if (masker_new(vocab_o200k(), 201088, &masker, &e) < 0)
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    masker_free(masker);
    return rc;
}
