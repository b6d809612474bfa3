#include "unit.h"

#include "base/arena.h"
#include "base/mem.h"

static void test_alloc(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1 << 22);
    unsigned char *p[2000];
    for (size_t i = 0; i < 2000; i++) {
        size_t n = i * 7 % 300;
        p[i] = arena_alloc(&a, n);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], (int)i & 0xff, n);
    }
    for (size_t i = 0; i < 2000; i++) /* nobody wrote into another's bytes */
        for (size_t k = 0; k < i * 7 % 300; k++)
            assert_int_equal(p[i][k], i & 0xff);
    char *big = arena_alloc(&a, 1 << 20);
    assert_non_null(big);
    memset(big, 1, 1 << 20);
    assert_string_equal(arena_strndup(&a, "hello", 3), "hel");
    assert_string_equal(arena_strndup(&a, "", 0), "");
    arena_fini(&a);
    assert_int_equal(a.used, 0);
    assert_non_null(arena_alloc(&a, 10));
    arena_fini(&a);
}

static void test_ceiling(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 100000);
    assert_null(arena_alloc(&a, 100001));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 20));
    assert_null(arena_array(&a, SIZE_MAX / 2, 3));
    assert_null(arena_array(&a, SIZE_MAX, SIZE_MAX));
    size_t total = 0;
    while (arena_alloc(&a, 1000))
        total += 1000;
    assert_true(total >= 60000 && total <= 100000);
    assert_true(a.used <= 100000);
    arena_fini(&a);
    assert_non_null(arena_array(&a, 100, 100));
    arena_fini(&a);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1 << 20);
    mem_fault_at(1);
    assert_null(arena_alloc(&a, 10));
    mem_fault_at(0);
    assert_non_null(arena_alloc(&a, 10));
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
