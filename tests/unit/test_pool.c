#include "unit.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>

static void test_split(void **state)
{
    (void)state;
    for (int total = 0; total < 70; total++) {
        for (int unit = 1; unit < 20; unit += 3) {
            for (int n = 1; n < 9; n++) {
                int at = 0;
                for (int i = 0; i < n; i++) {
                    int lo, hi;
                    pool_split(total, unit, i, n, &lo, &hi);
                    assert_int_equal(lo, at);
                    assert_true(hi >= lo && (hi == total || hi % unit == 0));
                    assert_true(hi - lo <= (total / unit / n + 2) * unit);
                    at = hi;
                }
                assert_int_equal(at, total);
            }
        }
    }
}

enum { MAX_N = 9, ROUNDS = 300 };

/* Plain (not atomic) memory: the barrier alone must order it, which ThreadSanitizer checks too. */
struct team {
    struct pool *p;
    int n, cell[MAX_N], runs[MAX_N];
    bool wrong;
};

static void rounds(void *arg, int i)
{
    struct team *t = arg;
    for (int r = 0; r < ROUNDS; r++) {
        t->cell[i] = r * MAX_N + i;
        pool_sync(t->p);
        for (int j = 0; j < t->n; j++)
            if (t->cell[j] != r * MAX_N + j)
                t->wrong = true;
        pool_sync(t->p);
    }
    t->runs[i]++;
}

static void test_phases(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_N; n += n < 4 ? 1 : 5) {
        struct team t = {.n = n};
        struct err e;
        assert_int_equal(pool_new(n, &t.p, &e), OK);
        assert_int_equal(pool_size(t.p), n);
        for (int i = 0; i < 3; i++)
            pool_run(t.p, rounds, &t);
        assert_false(t.wrong);
        for (int i = 0; i < n; i++)
            assert_int_equal(t.runs[i], 3);
        pool_free(t.p);
    }
}

static void nothing(void *arg, int i)
{
    (void)arg;
    (void)i;
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Workers that have slept long wake up, and sleeping costs no processor time. */
static void test_idle(void **state)
{
    (void)state;
    struct pool *p;
    struct err e;
    assert_int_equal(pool_new(4, &p, &e), OK);
    struct timespec nap = {.tv_nsec = 200000000};
    pool_run(p, nothing, NULL);
    double start = cpu_ms();
    nanosleep(&nap, NULL);
    double used = cpu_ms() - start;
    pool_run(p, nothing, NULL);
    pool_free(p);
    if (used > 20)
        fail_msg("an idle pool used %.1f ms of 200", used);
}

static void test_refusals(void **state)
{
    (void)state;
    struct pool *p;
    struct err e;
    assert_true(pool_processors() >= 1);
    assert_int_equal(pool_new(-1, &p, &e), E_INPUT);
    assert_int_equal(pool_new(POOL_MAX_THREAD + 1, &p, &e), E_INPUT);
    assert_null(p);
    for (long n = 1; n <= 2; n++) {
        mem_fault_at(n);
        assert_int_equal(pool_new(2, &p, &e), E_NOMEM);
        mem_fault_at(0);
        assert_null(p);
    }
    pool_free(NULL);
    assert_int_equal(pool_new(0, &p, &e), OK);
    assert_int_equal(pool_size(p), pool_processors());
    pool_free(p);
}

/* Thread 64 of 64 can't be had when memory for stacks runs out; those already there go away again.
 */
static void test_too_many(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they need address space without limit */
#else
    struct rlimit old, small;
    struct pool *p;
    struct err e;
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    small = old;
    small.rlim_cur = 160u << 20; /* room for some stacks of 8 MiB */
    assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
    status st = pool_new(64, &p, &e);
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
    assert_int_equal(st, E_LIMIT);
    assert_null(p);
    assert_non_null(strstr(e.msg, "of 64"));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),    cmocka_unit_test(test_phases),
        cmocka_unit_test(test_idle),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
