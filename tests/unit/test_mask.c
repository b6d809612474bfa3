/* Masks: equal to trying every token, at random places of many grammars; never empty; no
 * allocation; full pools, deep nesting and ambiguous grammars. */
#include "unit/unit.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/gcache.h"
#include "engine/mask.h"
#include "engine/schema.h"

#include <pthread.h>

static struct masker *masker;
static struct gcache *cache;
static uint32_t *bits;

enum { N_ID = 201088 };

static struct grammar *grammar(const char *text)
{
    struct grammar *g;
    struct err e = {0};
    if (gcache_get(cache, GRAMMAR_SCHEMA, text, strlen(text), &g, &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    return g;
}

static bool in_mask(int32_t id)
{
    return bits[id >> 5] >> (id & 31) & 1;
}

static int32_t byte_token(char c)
{
    return vocab_find(masker_vocab(masker), (const uint8_t *)&c, 1);
}

static bool feed(struct matcher *x, const char *s)
{
    for (; *s; s++)
        if (matcher_accept(x, byte_token(*s)) < 0)
            return false;
    return true;
}

static uint64_t count_bits(void)
{
    uint64_t n = 0;
    for (size_t i = 0; i < masker_words(masker); i++)
        n += (uint64_t)__builtin_popcount(bits[i]);
    return n;
}

static int32_t pick(uint64_t k)
{
    for (int32_t id = 0; id < N_ID; id++)
        if (in_mask(id) && k-- == 0)
            return id;
    return -1;
}

static const char *const schemas[] = {
    "{}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":7}",
    "{\"type\":\"string\",\"minLength\":1,\"maxLength\":1500}",
    "{\"type\":\"string\",\"minLength\":300}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":2}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"^[a-z "
    "]{2,9}$\"},"
    "\"b\":{\"type\":\"number\",\"minimum\":-3.5},\"c\":{\"type\":\"string\",\"format\":\"email\"}}"
    ","
    "\"additionalProperties\":{\"type\":\"string\"}}",
    "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":4},{\"type\":\"string\",\"pattern\":\"x$\"},{"
    "\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}]}",
};

/* At places of random walks, the mask and one try per token agree on every id. */
static void test_every_token(void **state)
{
    (void)state;
    uint64_t seed = 11;
    printf("seed %llu\n", (unsigned long long)seed);
    for (size_t s = 0; s < sizeof schemas / sizeof schemas[0]; s++) {
        struct grammar *g = grammar(schemas[s]);
        struct matcher *x;
        assert_int_equal(matcher_new(masker, g, &x), OK);
        for (uint64_t n = 0; n < 12; n++) {
            matcher_mask(x, bits);
            if (n % 4 == 1 || n == 0)
                for (int32_t id = 0; id < N_ID; id++)
                    if (in_mask(id) != matcher_allows(x, id))
                        fail_msg("schema %zu, step %d: token %d", s, (int)n, id);
            uint64_t total = count_bits();
            if (!total) {
                assert_true(matcher_can_end(x));
                break;
            }
            double u = rng_uniform(seed, s, n);
            assert_int_equal(matcher_accept(x, pick((uint64_t)(u * (double)total))), OK);
        }
        matcher_free(x);
        grammar_unref(g);
    }
}

static void test_refuses_without_moving(void **state)
{
    (void)state;
    struct grammar *g = grammar("{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}");
    struct matcher *x, *y;
    assert_int_equal(matcher_new(masker, g, &x), OK);
    assert_int_equal(matcher_new(masker, g, &y), OK);
    assert_true(feed(x, "[1,"));
    assert_int_equal(matcher_accept(x, byte_token(']')), E_INPUT);
    assert_int_equal(matcher_accept(x, 200002), E_INPUT);
    assert_int_equal(matcher_accept(x, -1), E_INPUT);
    assert_int_equal(matcher_accept(x, 201088), E_INPUT);
    matcher_copy(y, x);
    assert_true(feed(x, "22]") && matcher_can_end(x));
    assert_false(matcher_can_end(y));
    assert_true(feed(y, "3]") && matcher_can_end(y));
    matcher_mask(x, bits);
    assert_int_equal(count_bits(), 0);
    matcher_reset(x);
    assert_false(matcher_can_end(x));
    matcher_free(x);
    matcher_free(y);
    grammar_unref(g);
}

static void test_no_allocation(void **state)
{
    (void)state;
    struct grammar *g = grammar(schemas[5]);
    struct matcher *x;
    assert_int_equal(matcher_new(masker, g, &x), OK);
    mem_fault_at(0);
    long before = mem_fault_count();
    for (int n = 0; n < 30; n++) {
        matcher_mask(x, bits);
        if (!count_bits())
            break;
        assert_int_equal(matcher_accept(x, pick(count_bits() / 2)), OK);
    }
    assert_int_equal(mem_fault_count(), before);
    matcher_free(x);
    grammar_unref(g);
}

/* Opening brackets up to the limit: a way out exists at every depth, and is taken. */
static void test_depth(void **state)
{
    (void)state;
    struct grammar *g = grammar("{}");
    struct matcher *x;
    assert_int_equal(matcher_new(masker, g, &x), OK);
    int depth = 0;
    while (matcher_allows(x, byte_token('['))) {
        matcher_mask(x, bits);
        assert_true(in_mask(byte_token('[')));
        assert_int_equal(matcher_accept(x, byte_token('[')), OK);
        depth++;
    }
    printf("%d levels\n", depth);
    assert_true(depth > 100 && depth <= GRAMMAR_DEPTH + 1);
    for (; depth > 0; depth--) {
        matcher_mask(x, bits);
        for (int32_t id = 0; id < N_ID; id += 1 + id / 8)
            assert_int_equal(in_mask(id), matcher_allows(x, id));
        assert_true(in_mask(byte_token(']')));
        assert_int_equal(matcher_accept(x, byte_token(']')), OK);
    }
    assert_true(matcher_can_end(x));
    matcher_free(x);
    grammar_unref(g);
}

/* More readings than are kept: some are dropped, what is left still works and stays quick. */
static void test_ambiguous(void **state)
{
    (void)state;
    struct grammar *g = grammar(
        "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"anyOf\":[{\"type\":\"array\",\"items\":{"
        "\"$ref\":\"#/$defs/a\"}},{\"type\":\"array\",\"maxItems\":5,\"items\":{\"$ref\":"
        "\"#/$defs/a\"}},{\"type\":\"array\",\"maxItems\":6,\"items\":{\"$ref\":\"#/$defs/"
        "a\"}}]}}}");
    struct matcher *x;
    assert_int_equal(matcher_new(masker, g, &x), OK);
    uint64_t t = clock_ns();
    for (int n = 0; n < 40; n++) {
        matcher_mask(x, bits);
        assert_true(count_bits() > 0);
        assert_int_equal(matcher_accept(x, byte_token('[')), OK);
    }
    int closed = 0;
    while (!matcher_can_end(x) && closed < 40) {
        matcher_mask(x, bits);
        assert_true(in_mask(byte_token(']')));
        assert_int_equal(matcher_accept(x, byte_token(']')), OK);
        closed++;
    }
    assert_true(matcher_can_end(x));
    struct masker_stats s;
    masker_stats(masker, &s);
    printf("80 steps in %.0f ms, %llu readings cut\n", clock_ms_since(t),
           (unsigned long long)s.cut);
    matcher_free(x);
    grammar_unref(g);
}

/* Unique schemas: the cache of grammars stays under its ceiling, the mask pools empty and refill,
 * and a mask is the same before and after. */
static void test_caches(void **state)
{
    (void)state;
    struct grammar *g, *first = grammar(schemas[5]);
    struct matcher *x;
    struct gcache_stats s;
    struct masker_stats before, after;
    uint32_t *want = mem_alloc(masker_words(masker) * sizeof *want);
    assert_non_null(want);
    assert_int_equal(matcher_new(masker, first, &x), OK);
    assert_true(feed(x, "{\"a\":\"x"));
    matcher_mask(x, bits);
    memcpy(want, bits, masker_words(masker) * sizeof *want);
    matcher_free(x);
    masker_stats(masker, &before);
    after = before;
    int n = 0;
    for (; after.flushed == before.flushed && n < 4000; n++) {
        char text[200];
        snprintf(text, sizeof text, "{\"type\":\"string\",\"pattern\":\"^[^a]{1,12}%d\"}", n);
        g = grammar(text);
        assert_int_equal(matcher_new(masker, g, &x), OK);
        assert_true(feed(x, "\""));
        matcher_mask(x, bits);
        assert_true(count_bits() > 1000);
        matcher_free(x);
        grammar_unref(g);
        masker_stats(masker, &after);
    }
    assert_true(after.flushed > before.flushed);
    for (int i = 0; i < 20000; i++) {
        char text[100];
        struct err e;
        int len = snprintf(text, sizeof text, "{\"type\":\"string\",\"maxLength\":%d}", i % 10000);
        assert_int_equal(gcache_get(cache, GRAMMAR_SCHEMA, text, (size_t)len, &g, &e), OK);
        grammar_unref(g);
    }
    gcache_stats(cache, &s);
    printf("pools emptied after %d schemas; cache: %zu grammars, %zu bytes, %llu dropped\n", n, s.n,
           s.bytes, (unsigned long long)s.dropped);
    assert_true(s.bytes <= 4u << 20 && s.dropped > 0);
    assert_int_equal(matcher_new(masker, first, &x), OK);
    assert_true(feed(x, "{\"a\":\"x"));
    matcher_mask(x, bits);
    assert_memory_equal(want, bits, masker_words(masker) * sizeof *want);
    matcher_free(x);
    grammar_unref(first);
    mem_free(want);
}

enum { N_THREAD = 4 };

static void *walk_thread(void *arg)
{
    const uint64_t me = (uint64_t)(uintptr_t)arg;
    uint32_t *mine = mem_calloc(masker_words(masker), sizeof *mine);
    long bad = !mine;
    for (uint64_t round = 0; round < 6 && mine; round++) {
        const char *text = schemas[(me + round) % 7];
        struct grammar *g;
        struct matcher *x;
        struct err e;
        bad += gcache_get(cache, GRAMMAR_SCHEMA, text, strlen(text), &g, &e) < 0;
        bad += matcher_new(masker, g, &x) < 0;
        for (uint64_t n = 0; n < 30; n++) {
            matcher_mask(x, mine);
            int32_t from = (int32_t)(rng_uniform(me, round, n) * N_ID), id = -1;
            for (int32_t i = 0; i < N_ID && id < 0; i++) {
                int32_t k = (from + i) % N_ID;
                if (mine[k >> 5] >> (k & 31) & 1)
                    id = k;
            }
            if (id < 0)
                break;
            bad += matcher_accept(x, id) < 0;
        }
        matcher_free(x);
        grammar_unref(g);
    }
    mem_free(mine);
    return (void *)(uintptr_t)bad;
}

/* Several threads on one masker and one cache. */
static void test_threads(void **state)
{
    (void)state;
    pthread_t t[N_THREAD];
    for (uintptr_t i = 0; i < N_THREAD; i++)
        assert_int_equal(pthread_create(&t[i], NULL, walk_thread, (void *)i), 0);
    for (int i = 0; i < N_THREAD; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
}

/* A mask asked for again is copied, and the same; more of them than are kept at once. */
static void test_known(void **state)
{
    (void)state;
    struct masker_stats before, after;
    uint32_t *want = mem_alloc(masker_words(masker) * sizeof *want);
    assert_non_null(want);
    for (int i = 0; i < 800; i++) {
        char text[100];
        struct matcher *x;
        snprintf(text, sizeof text, "{\"enum\":[\"k%d\",\"kilo%d\",\"m\"]}", i, i);
        struct grammar *g = grammar(text);
        assert_int_equal(matcher_new(masker, g, &x), OK);
        assert_true(feed(x, "\"k"));
        masker_stats(masker, &before);
        matcher_mask(x, want);
        for (int k = 0; k < 3; k++) {
            memset(bits, 0xff, masker_words(masker) * sizeof *bits);
            matcher_mask(x, bits);
            assert_memory_equal(want, bits, masker_words(masker) * sizeof *want);
        }
        masker_stats(masker, &after);
        assert_int_equal(after.known - before.known, 2);
        for (int b = 0; b < 256; b++)
            assert_int_equal(in_mask(byte_token((char)b)), matcher_allows(x, byte_token((char)b)));
        matcher_free(x);
        grammar_unref(g);
    }
    mem_free(want);
}

static void test_cache_hits(void **state)
{
    (void)state;
    struct gcache *c;
    struct grammar *a, *b;
    struct gcache_stats s;
    struct err e;
    assert_int_equal(gcache_new(masker_prelude(masker), 1 << 20, &c), OK);
    assert_int_equal(gcache_get(c, GRAMMAR_REGEX, "a+", 2, &a, &e), OK);
    assert_int_equal(gcache_get(c, GRAMMAR_REGEX, "a+", 2, &b, &e), OK);
    assert_ptr_equal(a, b);
    grammar_unref(b);
    assert_int_equal(gcache_get(c, GRAMMAR_REGEX, "a+?", 3, &b, &e), OK);
    assert_ptr_not_equal(a, b);
    grammar_unref(b);
    assert_int_equal(gcache_get(c, GRAMMAR_CHOICE, "[\"x\",\"y\"]", 9, &b, &e), OK);
    grammar_unref(b);
    assert_int_equal(gcache_get(c, GRAMMAR_CHOICE, "[1]", 3, &b, &e), E_INPUT);
    assert_int_equal(gcache_get(c, GRAMMAR_OBJECT, "", 0, &b, &e), OK);
    grammar_unref(b);
    assert_int_equal(gcache_get(c, GRAMMAR_SCHEMA, "{", 1, &b, &e), E_INPUT);
    gcache_stats(c, &s);
    assert_int_equal(s.hits, 1);
    assert_int_equal(s.n, 4);
    gcache_free(c);
    grammar_unref(a); /* outlives the cache */
}

static void test_out_of_memory(void **state)
{
    (void)state;
    static const char text[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}}}";
    status st = E_NOMEM;
    for (long n = 1; st != OK; n++) {
        struct gcache *c = NULL;
        struct grammar *g = NULL;
        struct matcher *x = NULL;
        struct err e;
        mem_fault_at(n);
        st = gcache_new(masker_prelude(masker), 1 << 20, &c);
        if (st == OK)
            st = gcache_get(c, GRAMMAR_SCHEMA, text, sizeof text - 1, &g, &e);
        if (st == OK)
            st = matcher_new(masker, g, &x);
        mem_fault_at(0);
        /* the parser of JSON allocates on its own and calls what it can't get bad input */
        assert_true(st == OK || st == E_NOMEM);
        matcher_free(x);
        grammar_unref(g);
        gcache_free(c);
    }
    for (long n = 1; n < 40; n++) {
        struct masker *m;
        struct err e;
        mem_fault_at(n);
        st = masker_new(vocab_o200k(), N_ID, &m, &e);
        mem_fault_at(0);
        assert_true(st == OK || st == E_NOMEM);
        masker_free(m);
        if (st == OK)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_token),   cmocka_unit_test(test_refuses_without_moving),
        cmocka_unit_test(test_no_allocation), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_ambiguous),     cmocka_unit_test(test_caches),
        cmocka_unit_test(test_cache_hits),    cmocka_unit_test(test_threads),
        cmocka_unit_test(test_known),         cmocka_unit_test(test_out_of_memory),
    };
    struct err e = {0};
    if (masker_new(vocab_o200k(), N_ID, &masker, &e) < 0 ||
        gcache_new(masker_prelude(masker), 4 << 20, &cache) < 0)
        return 1;
    bits = mem_calloc(masker_words(masker), sizeof *bits);
    int rc = bits ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    mem_free(bits);
    gcache_free(cache);
    masker_free(masker);
    return rc;
}
