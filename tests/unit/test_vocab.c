#include "unit.h"

#include "base/mem.h"
#include "fuzz/small_vocab.h"

static void test_o200k(void **state)
{
    (void)state;
    const struct vocab *v = vocab_o200k();
    assert_int_equal(vocab_size(v), 201089);
    size_t n;
    for (int id = 0; id < vocab_size(v); id++) {
        const uint8_t *p = vocab_bytes(v, id, &n);
        assert_non_null(p);
        if (id < 199998) {
            assert_int_equal(vocab_find(v, p, n), id);
            assert_false(vocab_is_special(v, id));
        } else {
            assert_int_equal(vocab_special_named(v, (const char *)p, n), id);
            assert_true(vocab_is_special(v, id));
            assert_int_equal(vocab_find(v, p, n), -1);
        }
    }
    assert_null(vocab_bytes(v, -1, &n));
    assert_null(vocab_bytes(v, 201089, &n));
    assert_false(vocab_is_special(v, -1));
    assert_false(vocab_is_special(v, 201089));
    assert_int_equal(vocab_find(v, (const uint8_t *)"", 0), -1);
    vocab_free((struct vocab *)(uintptr_t)v); /* allowed, does nothing */
    assert_int_equal(vocab_size(v), 201089);
    vocab_free(NULL);
}

static void test_specials(void **state)
{
    (void)state;
    static const struct {
        enum special which;
        const char *name;
        int id;
    } want[] = {{SP_START, "<|start|>", 200006},         {SP_END, "<|end|>", 200007},
                {SP_MESSAGE, "<|message|>", 200008},     {SP_CHANNEL, "<|channel|>", 200005},
                {SP_CONSTRAIN, "<|constrain|>", 200003}, {SP_RETURN, "<|return|>", 200002},
                {SP_CALL, "<|call|>", 200012},           {SP_ENDOFTEXT, "<|endoftext|>", 199999}};
    const struct vocab *v = vocab_o200k();
    for (size_t i = 0; i < N_SPECIAL; i++) {
        assert_int_equal(vocab_special(v, want[i].which), want[i].id);
        assert_int_equal(vocab_special_named(v, want[i].name, strlen(want[i].name)), want[i].id);
    }
    static const struct {
        const char *name;
        int id;
    } named[] = {{"<|startoftext|>", 199998},
                 {"<|reserved_200000|>", 200000},
                 {"<|reserved_200001|>", 200001},
                 {"<|reserved_200004|>", 200004},
                 {"<|reserved_200011|>", 200011},
                 {"<|reserved_200018|>", 200018},
                 {"<|reserved_201087|>", 201087},
                 {"<|reserved_201088|>", 201088},
                 {"<|reserved_201089|>", -1},
                 {"<|reserved_200002|>", -1},
                 {"<|reserved_0200013|>", -1},
                 {"<|endofprompt|>", -1},
                 {"<|refusal|>", -1},
                 {"start", -1},
                 {"<|start|> ", -1},
                 {"", -1}};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        assert_int_equal(vocab_special_named(v, named[i].name, strlen(named[i].name)), named[i].id);
    size_t n;
    const uint8_t *p = vocab_bytes(v, 9552, &n); /* a blank and half an emoji */
    assert_int_equal(n, 3);
    assert_memory_equal(p, " \xf0\x9f", 3);
}

static void test_small(void **state)
{
    (void)state;
    struct vocab *v = small_vocab(1000);
    size_t n, m;
    assert_int_equal(vocab_size(v), 1006);
    for (int id = 0; id < 1000; id++) {
        const uint8_t *p = vocab_bytes(v, id, &n), *q = vocab_bytes(vocab_o200k(), id, &m);
        assert_int_equal(n, m);
        assert_memory_equal(p, q, n);
        assert_int_equal(vocab_find(v, p, n), id);
    }
    assert_int_equal(vocab_special(v, SP_START), 1000);
    assert_int_equal(vocab_special(v, SP_CALL), 1005);
    assert_int_equal(vocab_special(v, SP_CONSTRAIN), -1);
    assert_null(vocab_bytes(v, 1006, &n));
    vocab_free(v);
}

/* ---- tokenizer.json that must be refused, or taken ---- */

/* A complete file with 256 single bytes; `vocab` goes behind them, `rest` behind the model's vocab,
 * `top` at the top level. */
static status read_with(const char *vocab, const char *rest, const char *top, struct vocab **v,
                        struct err *e)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_printf(&b, "{%s\"model\":{\"vocab\":{", top);
    for (int i = 0; i < 256; i++) {
        uint8_t c = (uint8_t)i;
        if (i)
            buf_putc(&b, ',');
        small_spell(&b, &c, 1);
        buf_printf(&b, ":%d", i);
    }
    buf_printf(&b, "%s}%s}}", vocab, rest);
    *e = (struct err){0};
    status st = vocab_from_json(b.p, b.n, v, e);
    buf_fini(&b);
    return st;
}

static void test_json_taken(void **state)
{
    (void)state;
    static const struct {
        const char *vocab, *rest, *top;
        int size;
    } good[] = {
        {"", "", "", 256},
        {",\"ab\":256", ",\"merges\":[\"a b\"]", "", 257},
        {",\"ab\":5000", ",\"merges\":[[\"a\",\"b\"]]", "", 5001}, /* ids need not be dense */
        {",\"ab\":256,\"abc\":257", ",\"merges\":[\"a b\",\"a bc\"]", "", 0}, /* see below */
        {",\"<|end|>\":300", "", "\"added_tokens\":[{\"id\":300,\"content\":\"<|end|>\"}],", 301},
        {"", ",\"dropout\":null,\"byte_fallback\":false,\"end_of_word_suffix\":\"\"",
         "\"normalizer\":null,\"pre_tokenizer\":null,", 256},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct vocab *v;
        struct err e;
        status st = read_with(good[i].vocab, good[i].rest, good[i].top, &v, &e);
        if (!good[i].size) { /* "bc" is no token, so that merge is refused */
            assert_int_equal(st, E_FORMAT);
            continue;
        }
        if (st != OK)
            fail_msg("case %zu refused: %s", i, e.msg);
        assert_int_equal(vocab_size(v), good[i].size);
        vocab_free(v);
    }
}

static void test_json_refused(void **state)
{
    (void)state;
    static const struct {
        const char *vocab, *rest, *top, *says;
    } bad[] = {
        {",\"ab\":-1", "", "", "ids must be integers"},
        {",\"ab\":1048576", "", "", "ids must be integers"},
        {",\"ab\":1e3", "", "", "ids must be integers"},
        {",\"ab\":\"256\"", "", "", "ids must be integers"},
        {",\"ab\":null", "", "", "ids must be integers"},
        {",\"ab\":97", "", "", "the id 97"},
        {",\"ab\":256,\"ab\":257", "", "", "duplicate"},
        {",\"\":256", "", "", "byte-level alphabet"},
        {",\"a b\":256", "", "", "byte-level alphabet"},
        {",\"\xe6\x97\xa5\":256", "", "", "byte-level alphabet"},
        {",\"ab\":256", ",\"merges\":[\"ab\"]", "", "merges[0] is not two tokens"},
        {",\"ab\":256", ",\"merges\":[\"a c\"]", "", "merges[0] makes no token"},
        {",\"ab\":256", ",\"merges\":[[\"a\"]]", "", "merges[0] is not two tokens"},
        {",\"ab\":256", ",\"merges\":[[\"a\",1]]", "", "merges[0] is not two tokens"},
        {",\"ab\":256", ",\"merges\":[7]", "", "merges[0] is not two tokens"},
        {",\"ab\":256", ",\"merges\":{}", "", "not an array"},
        {",\"ab\":257,\"cd\":256", ",\"merges\":[\"a b\",\"c d\"]", "", "merge order"},
        {"", ",\"type\":\"Unigram\"", "", "BPE"},
        {"", ",\"byte_fallback\":true", "", "byte_fallback"},
        {"", ",\"dropout\":0.1", "", "dropout"},
        {"", ",\"continuing_subword_prefix\":\"##\"", "", "continuing_subword_prefix"},
        {"", "", "\"normalizer\":{\"type\":\"NFC\"},", "normalizer"},
        {"", "", "\"pre_tokenizer\":{\"type\":\"ByteLevel\"},", "o200k split"},
        {"", "", "\"added_tokens\":{},", "not an array"},
        {"", "", "\"added_tokens\":[1],", "added_tokens[0]"},
        {"", "", "\"added_tokens\":[{\"id\":300}],", "added_tokens[0]"},
        {"", "", "\"added_tokens\":[{\"content\":\"x\"}],", "ids must be integers"},
        {"", "", "\"added_tokens\":[{\"id\":300,\"content\":\"\"}],", "added_tokens[0]"},
        {"", "", "\"added_tokens\":[{\"id\":65,\"content\":\"<x>\"}],", "the id 65"},
        {"", "",
         "\"added_tokens\":[{\"id\":300,\"content\":\"x\"},{\"id\":300,\"content\":\"y\"}],",
         "the id 300"},
        {"", "",
         "\"added_tokens\":[{\"id\":300,\"content\":\"x\"},{\"id\":301,\"content\":\"x\"}],",
         "there twice"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct vocab *v;
        struct err e;
        status st = read_with(bad[i].vocab, bad[i].rest, bad[i].top, &v, &e);
        if (st != E_FORMAT || !strstr(e.msg, bad[i].says))
            fail_msg("case %zu: %d, \"%s\", not \"%s\"", i, st, e.msg, bad[i].says);
        assert_null(v);
    }
    static const char *const plain[] = {
        "",
        "[]",
        "{}",
        "{\"model\":null}",
        "{\"model\":{\"vocab\":[]}}",
        "{\"model\":{\"vocab\":{}}}",
        "{\"model\":{\"vocab\":{\"a\":0}}}",
        "{\"model\":{\"vocab\":{\"a\":0}",
        "\xff\xfe",
    };
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        struct vocab *v;
        struct err e = {0};
        assert_int_equal(vocab_from_json(plain[i], strlen(plain[i]), &v, &e), E_FORMAT);
        assert_true(e.msg[0]);
        assert_null(v);
    }
}

static void test_long_tokens(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 16);
    for (size_t n = 1020; n <= 1030; n++) {
        struct vocab *v;
        struct err e;
        buf_clear(&b);
        buf_puts(&b, ",\"");
        for (size_t i = 0; i < n; i++)
            buf_putc(&b, 'a');
        buf_puts(&b, "\":256");
        status st = read_with(b.p, "", "", &v, &e);
        assert_int_equal(st, n <= 1024 ? OK : E_FORMAT);
        if (st == OK)
            assert_int_equal(vocab_find(v, (const uint8_t *)b.p + 2, n), 256);
        vocab_free(v);
    }
    buf_fini(&b);
}

/* Every allocation fails once; the outcome is E_NOMEM until there are none left to fail. */
static void test_no_memory(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    small_json(&b, 300);
    status st = E_NOMEM;
    long at = 0;
    while (st != OK) {
        struct vocab *v;
        struct err e = {0};
        at++;
        mem_fault_at(at);
        st = vocab_from_json(b.p, b.n, &v, &e);
        mem_fault_at(0);
        if (st == OK) {
            vocab_free(v);
        } else {
            if (st != E_NOMEM)
                fail_msg("allocation %ld: %d %s", at, st, e.msg);
            assert_null(v);
            assert_true(e.msg[0]);
        }
    }
    assert_true(at > 300);
    buf_fini(&b);
}

static void test_is_o200k(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 64 << 20);
    small_json(&b, 1000);
    assert_false(vocab_json_is_o200k(b.p, b.n));
    assert_false(vocab_json_is_o200k("", 0));
    buf_clear(&b);
    static const int ids[] = {199998, 199999, 200002, 200003, 200005,
                              200006, 200007, 200008, 200012};
    for (int wrong = 0; wrong < 2; wrong++) {
        buf_clear(&b);
        buf_puts(&b, "{\n  \"added_tokens\": [\n");
        for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
            size_t n;
            const uint8_t *p = vocab_bytes(vocab_o200k(), ids[i], &n);
            buf_printf(
                &b,
                "    {\n      \"id\": %d,\n      \"content\": \"%.*s\",\n      \"special\": true\n"
                "    },\n",
                wrong && ids[i] == 200006 ? 1529 : ids[i], (int)n, (const char *)p);
        }
        for (int id = 0; id < 199998; id++)
            buf_printf(&b, "      \"token %d\": %d,\n", id, id);
        assert_int_equal(vocab_json_is_o200k(b.p, b.n), !wrong);
    }
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_o200k),        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_small),        cmocka_unit_test(test_json_taken),
        cmocka_unit_test(test_json_refused), cmocka_unit_test(test_long_tokens),
        cmocka_unit_test(test_no_memory),    cmocka_unit_test(test_is_o200k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
