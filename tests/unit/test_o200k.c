#include "unit.h"

#include "base/mem.h"
#include "fuzz/small_vocab.h"
#include "text/o200k.h"

#include <math.h>
#include <time.h>

static void expect(const char *text, enum special_mode mode, const int32_t *want, size_t n)
{
    struct ids t;
    struct buf back;
    struct err e = {0};
    ids_init(&t, 1 << 20);
    buf_init(&back, 1 << 20);
    status st = o200k_encode(vocab_o200k(), text, strlen(text), mode, &t, &e);
    if (st != OK)
        fail_msg("%s: %s", text, e.msg);
    if (t.n != n || memcmp(t.v, want, n * sizeof *want) != 0) {
        for (size_t i = 0; i < t.n; i++)
            print_message("%d ", (int)t.v[i]);
        fail_msg("are the ids of %s", text);
    }
    assert_int_equal(o200k_decode(vocab_o200k(), t.v, t.n, &back, &e), OK);
    assert_string_equal(back.p, text);
    ids_fini(&t);
    buf_fini(&back);
}

#define IDS(...)                                                                                   \
    ((const int32_t[]){__VA_ARGS__}), sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

/* Observed with tiktoken and the harmony library. */
static void test_known(void **state)
{
    (void)state;
    expect("hello world", SPECIAL_TEXT, IDS(24912, 2375));
    expect("assistant", SPECIAL_TEXT, IDS(173781));
    expect(" assistant", SPECIAL_TEXT, IDS(29186));
    expect("user", SPECIAL_TEXT, IDS(1428));
    expect("system", SPECIAL_TEXT, IDS(17360));
    expect("developer", SPECIAL_TEXT, IDS(77944));
    expect("tool", SPECIAL_TEXT, IDS(17952));
    expect("analysis", SPECIAL_TEXT, IDS(35644));
    expect("commentary", SPECIAL_TEXT, IDS(12606, 815));
    expect("final", SPECIAL_TEXT, IDS(17196));
    expect(" to=functions.f", SPECIAL_TEXT, IDS(316, 28, 44580, 1196));
    expect(" json", SPECIAL_TEXT, IDS(5701));
    expect("json", SPECIAL_TEXT, IDS(4108));
    expect(" code", SPECIAL_TEXT, IDS(3490));
    expect("I'll don't", SPECIAL_TEXT, IDS(67504, 4128));
    expect("2024-06", SPECIAL_TEXT, IDS(1323, 19, 12, 3218));
    expect("HTTPServer's", SPECIAL_TEXT, IDS(17893, 6444, 885));
    struct ids t;
    struct err e;
    ids_init(&t, 10);
    assert_int_equal(o200k_encode(vocab_o200k(), "", 0, SPECIAL_TEXT, &t, &e), OK);
    assert_int_equal(t.n, 0);
    ids_fini(&t);
}

static void test_special_modes(void **state)
{
    (void)state;
    expect("<|start|>", SPECIAL_TEXT, IDS(27, 91, 5236, 91, 29));
    expect("<|start|>", SPECIAL_ALLOW, IDS(200006));
    expect("<|start|>user<|message|>hello world<|end|>", SPECIAL_ALLOW,
           IDS(200006, 1428, 200008, 24912, 2375, 200007));
    expect("<|reserved_200013|><|reserved_201088|>", SPECIAL_ALLOW, IDS(200013, 201088));
    /* No token of this vocabulary, so text in every mode. */
    static const char *const text[] = {"<|reserved_201089|>",
                                       "<|endofprompt|>",
                                       "<|refusal|>",
                                       "<|start",
                                       "<start>",
                                       "<||>",
                                       "<|"};
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        struct ids a, b;
        struct err e;
        ids_init(&a, 100);
        ids_init(&b, 100);
        size_t n = strlen(text[i]);
        assert_int_equal(o200k_encode(vocab_o200k(), text[i], n, SPECIAL_TEXT, &a, &e), OK);
        assert_int_equal(o200k_encode(vocab_o200k(), text[i], n, SPECIAL_ERROR, &b, &e), OK);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
        ids_fini(&a);
        ids_fini(&b);
    }
    struct ids t;
    struct err e = {0};
    ids_init(&t, 100);
    ids_put(&t, 42);
    assert_int_equal(o200k_encode(vocab_o200k(), "ab <|call|>", 11, SPECIAL_ERROR, &t, &e),
                     E_INPUT);
    assert_non_null(strstr(e.msg, "<|call|>"));
    assert_non_null(strstr(e.msg, "byte 3"));
    assert_int_equal(t.n, 1);
    /* The last blanks before a control token end their stretch of text. */
    assert_int_equal(o200k_encode(vocab_o200k(), "a  <|end|>b", 11, SPECIAL_ALLOW, &t, &e), OK);
    assert_int_equal(t.n, 5);
    assert_int_equal(t.v[3], 200007);
    ids_fini(&t);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t at;
    } bad[] = {
        {"abc\xff", 3}, {"\xc3", 0}, {"ok \xed\xa0\x80", 3}, {"12345678901234567\xf0\x9f\x98", 17}};
    struct ids t;
    struct err e;
    ids_init(&t, 100);
    ids_put(&t, 7);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char want[40];
        snprintf(want, sizeof want, "UTF-8 at byte %zu", bad[i].at);
        size_t n = strlen(bad[i].text);
        assert_int_equal(o200k_encode(vocab_o200k(), bad[i].text, n, SPECIAL_TEXT, &t, &e),
                         E_INPUT);
        assert_non_null(strstr(e.msg, want));
        assert_int_equal(t.n, 1);
    }
    ids_fini(&t);

    struct buf out;
    buf_init(&out, 100);
    buf_puts(&out, "before");
    assert_int_equal(o200k_decode(vocab_o200k(), (int32_t[]){24912, -5}, 2, &out, &e), E_INPUT);
    assert_non_null(strstr(e.msg, "-5"));
    assert_string_equal(out.p, "before");
    assert_int_equal(o200k_decode(vocab_o200k(), (int32_t[]){201089}, 1, &out, &e), E_INPUT);
    /* Decoding is of bytes: half a character passes. */
    buf_clear(&out);
    assert_int_equal(o200k_decode(vocab_o200k(), (int32_t[]){9552}, 1, &out, &e), OK);
    assert_string_equal(out.p, " \xf0\x9f");
    buf_fini(&out);
    buf_init(&out, 5);
    assert_int_equal(o200k_decode(vocab_o200k(), (int32_t[]){24912, 2375}, 2, &out, &e), E_LIMIT);
    buf_fini(&out);
}

/* The ceiling holds exactly, in words, merged words and long pieces; nothing is left behind. */
static void test_ceiling(void **state)
{
    (void)state;
    char word[600], texts[3][700];
    memset(word, 'q', sizeof word);
    snprintf(texts[0], sizeof texts[0], "hello world hello world");
    snprintf(texts[1], sizeof texts[1], "qzxjvkq qzxjvkq <|end|>");
    snprintf(texts[2], sizeof texts[2], "%.600s", word);
    for (int i = 0; i < 3; i++) {
        struct ids t;
        struct err e = {0};
        size_t n = strlen(texts[i]), full;
        ids_init(&t, 10000);
        assert_int_equal(o200k_encode(vocab_o200k(), texts[i], n, SPECIAL_ALLOW, &t, &e), OK);
        full = t.n;
        ids_fini(&t);
        for (size_t max = 0; max <= full; max++) {
            ids_init(&t, max);
            status st = o200k_encode(vocab_o200k(), texts[i], n, SPECIAL_ALLOW, &t, &e);
            assert_int_equal(st, max < full ? E_LIMIT : OK);
            assert_int_equal(t.n, max < full ? 0 : full);
            ids_fini(&t);
        }
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    enum { N = 3000 };
    char text[N];
    memset(text, 'q', N);
    memcpy(text + 1000, " hello ", 7);
    status st = E_NOMEM;
    long at = 0;
    while (st != OK) {
        struct ids t;
        struct err e = {0};
        ids_init(&t, 1 << 20);
        mem_fault_at(++at);
        st = o200k_encode(vocab_o200k(), text, N, SPECIAL_TEXT, &t, &e);
        mem_fault_at(0);
        assert_true(st == OK || (st == E_NOMEM && t.n == 0 && e.msg[0]));
        ids_fini(&t);
    }
    assert_true(at > 3);
}

static void test_ids(void **state)
{
    (void)state;
    struct ids t;
    ids_init(&t, 5);
    ids_append(&t, (int32_t[]){1, 2, 3}, 3);
    ids_append(&t, NULL, 0);
    ids_put(&t, 4);
    assert_int_equal(t.st, OK);
    ids_append(&t, (int32_t[]){5, 6}, 2); /* all or nothing */
    assert_int_equal(t.st, E_LIMIT);
    assert_int_equal(t.n, 4);
    ids_put(&t, 5); /* errors stick */
    assert_int_equal(t.n, 4);
    assert_memory_equal(t.v, ((int32_t[]){1, 2, 3, 4}), 16);
    ids_fini(&t);
    ids_put(&t, 1);
    assert_int_equal(t.n, 1);
    ids_fini(&t);
}

/* ---- against a slow merge ---- */

/* One piece merged by searching all pairs at each step. */
static size_t slow_merge(const struct vocab *v, const uint8_t *s, size_t n, int32_t *out)
{
    size_t *at = malloc((n + 1) * sizeof *at), m = n;
    if (vocab_find(v, s, n) >= 0) {
        out[0] = vocab_find(v, s, n);
        free(at);
        return 1;
    }
    for (size_t i = 0; i <= n; i++)
        at[i] = i;
    for (;;) {
        size_t best = 0;
        int rank = -1;
        for (size_t i = 0; i + 1 < m; i++) {
            int r = vocab_find(v, s + at[i], at[i + 2] - at[i]);
            if (r >= 0 && (rank < 0 || r < rank)) {
                rank = r;
                best = i;
            }
        }
        if (rank < 0)
            break;
        memmove(at + best + 1, at + best + 2, (m - best - 1) * sizeof *at);
        m--;
    }
    for (size_t i = 0; i < m; i++)
        out[i] = vocab_find(v, s + at[i], at[i + 1] - at[i]);
    free(at);
    return m;
}

/* Words of one script are one piece each, so the slow merge is a complete reference for them. */
static void check_words(const struct vocab *v, uint64_t *seed)
{
    static const uint32_t scripts[][2] = {
        {'a', 26},   {0x430, 32}, {0x4e00, 4000}, {0xac00, 3000}, {0x905, 50}, {0x10d0, 33},
        {0x627, 30}, {0xe01, 46}, {0x20000, 99},  {0xdf, 1},      {0x3b1, 17}};
    for (int k = 0; k < 3000; k++) {
        char text[4 * 900];
        int32_t want[4 * 900];
        size_t n = 0;
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t r = *seed >> 20;
        const uint32_t *script = scripts[r % 11];
        size_t len = r % 97 == 0 ? 700 : r % 60 + 1, letters = r / 7 % 20 + 2;
        for (size_t i = 0; i < len; i++) {
            *seed = *seed * 6364136223846793005u + 1442695040888963407u;
            uint32_t pick = (uint32_t)(*seed >> 33) % letters * 131 % script[1];
            n += (size_t)utf8_put(script[0] + pick, text + n);
        }
        struct ids t;
        struct err e;
        ids_init(&t, 1 << 20);
        assert_int_equal(o200k_encode(v, text, n, SPECIAL_TEXT, &t, &e), OK);
        /* Marks among the letters may lead a new piece; then the reference does not apply. */
        bool one_piece = script[0] != 0x905 && script[0] != 0xe01;
        if (one_piece) {
            size_t m = slow_merge(v, (const uint8_t *)text, n, want);
            assert_int_equal(t.n, m);
            assert_memory_equal(t.v, want, m * sizeof *want);
        }
        ids_fini(&t);
    }
}

static void test_slow_merge(void **state)
{
    (void)state;
    uint64_t seed = 20240806;
    print_message("seed %llu\n", (unsigned long long)seed);
    struct vocab *small = small_vocab(3000);
    check_words(vocab_o200k(), &seed);
    check_words(small, &seed);
    vocab_free(small);
}

/* One piece, against the slow merge. */
static void check_piece(const struct vocab *v, const char *text, size_t n)
{
    struct ids t;
    struct err e;
    int32_t *want = malloc(n * sizeof *want);
    ids_init(&t, 1 << 20);
    assert_int_equal(o200k_encode(v, text, n, SPECIAL_TEXT, &t, &e), OK);
    size_t m = slow_merge(v, (const uint8_t *)text, n, want);
    assert_int_equal(t.n, m);
    assert_memory_equal(t.v, want, m * sizeof *want);
    ids_fini(&t);
    free(want);
}

/* A vocabulary of the bytes and some more tokens, given as `,"ab":256...`. */
static struct vocab *bytes_and(const char *more)
{
    struct buf b;
    struct vocab *v = NULL;
    struct err e = {0};
    buf_init(&b, 1 << 20);
    small_json(&b, 256);
    b.n = (size_t)(strstr(b.p, "},\"merges\"") - b.p);
    buf_printf(&b, "%s}}}", more);
    if (vocab_from_json(b.p, b.n, &v, &e) != OK)
        fail_msg("%s", e.msg);
    buf_fini(&b);
    return v;
}

/* Long pieces are merged in stretches. Here what a stretch's end gives depends on bytes far behind
 * it, so that the stretches don't fit and the piece must be merged at once: of two-letter tokens
 * the later in the alphabet come first, so "abc...y" is paired from its end. */
static void test_far_reach(void **state)
{
    (void)state;
    struct buf more;
    char text[3000];
    buf_init(&more, 1 << 16);
    for (int i = 0; i < 25; i++)
        buf_printf(&more, ",\"%c%c\":%d", 'y' - i, 'z' - i, 270 + i);
    struct vocab *v = bytes_and(more.p);
    for (size_t period = 23; period <= 26; period++) {
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)('a' + i % period);
        for (size_t n = 1000; n <= sizeof text; n += 97)
            check_piece(v, text, n);
    }
    vocab_free(v);

    /* Tokens longer than a stretch could hold a few of. */
    buf_clear(&more);
    buf_puts(&more, ",\"aa\":270,\"aaaa\":271,\"");
    for (int i = 0; i < 400; i++)
        buf_putc(&more, 'a');
    buf_puts(&more, "\":272");
    v = bytes_and(more.p);
    memset(text, 'a', sizeof text);
    for (size_t n = 390; n <= sizeof text; n += 101)
        check_piece(v, text, n);
    vocab_free(v);
    buf_fini(&more);
}

/* ---- time ---- */

static double seconds(const struct vocab *v, const char *unit, size_t n_text)
{
    size_t n = strlen(unit), done = n_text / n * n;
    char *text = malloc(n_text);
    double best = 1e9;
    for (size_t i = 0; i < done; i += n)
        memcpy(text + i, unit, n);
    struct ids t;
    ids_init(&t, 1 << 28);
    for (int k = 0; k < 4; k++) { /* the first also makes room */
        struct err e;
        t.n = 0;
        clock_t start = clock(); /* processor time: other programs count little */
        assert_int_equal(o200k_encode(v, text, done, SPECIAL_TEXT, &t, &e), OK);
        double s = (double)(clock() - start) / CLOCKS_PER_SEC;
        best = s < best ? s : best;
    }
    ids_fini(&t);
    free(text);
    return best;
}

/* A tokenizer with a quadratic path shows 4 here; noise is given more chances. */
static void test_linear(void **state)
{
    (void)state;
    struct vocab *small = small_vocab(600);
    static const char *const units[] = {"a",
                                        "A",
                                        " ",
                                        "\xcc\x81",
                                        "7",
                                        "\xe6\x97\xa5"
                                        "A"};
    for (int i = 0; i < 6; i++)
        for (int which = 0; which < 2; which++) {
            const struct vocab *v = which ? small : vocab_o200k();
            double one = 1e9, two = 1e9;
            for (int attempt = 0; attempt < 8 && (attempt == 0 || two >= 2.4 * one); attempt++) {
                one = fmin(one, seconds(v, units[i], 500000));
                two = fmin(two, seconds(v, units[i], 1000000));
            }
            if (two >= 2.4 * one)
                fail_msg("twice as much of '%s' costs %.2f times as much", units[i], two / one);
        }
    vocab_free(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),      cmocka_unit_test(test_special_modes),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_ids),
        cmocka_unit_test(test_slow_merge), cmocka_unit_test(test_far_reach),
        cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
