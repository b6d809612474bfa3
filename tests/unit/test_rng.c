#include "unit.h"

#include "base/rng.h"

#include <math.h>

/* Known answers of the Random123 distribution (kat_vectors, philox4x32 10). The counter's low half
 * is the position, its high half the stream; the key is the seed. */
static void test_vectors(void **state)
{
    (void)state;
    uint32_t r[4];
    rng_block(0, 0, 0, r);
    assert_memory_equal(r, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), 16);
    rng_block(UINT64_MAX, UINT64_MAX, UINT64_MAX, r);
    assert_memory_equal(r, ((uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), 16);
    rng_block(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, r);
    assert_memory_equal(r, ((uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), 16);
}

static void test_uniform(void **state)
{
    (void)state;
    enum { N = 200000, BINS = 16 };
    int bin[BINS] = {0};
    double sum = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(1234, 5, i);
        assert_true(u >= 0 && u < 1);
        assert_true(u == rng_uniform(1234, 5, i)); /* a pure function */
        bin[(int)(u * BINS)]++;
        sum += u;
    }
    assert_true(fabs(sum / N - 0.5) < 0.003); /* 4.6 sigma */
    double chi2 = 0;
    for (int i = 0; i < BINS; i++)
        chi2 += pow(bin[i] - N / (double)BINS, 2) / (N / (double)BINS);
    assert_true(chi2 < 45); /* 15 degrees of freedom: p < 1e-4 beyond */
    assert_true(rng_uniform(1, 5, 0) != rng_uniform(2, 5, 0));
    assert_true(rng_uniform(1, 5, 0) != rng_uniform(1, 6, 0));
    assert_true(rng_uniform(1, 5, 0) != rng_uniform(1, 5, 1));
}

static void test_normal(void **state)
{
    (void)state;
    enum { N = 100000 };
    double sum = 0, square = 0, fourth = 0, cross = 0;
    for (uint64_t i = 0; i < N; i++) {
        float x[4];
        rng_normal4(99, 0, i, x);
        for (int k = 0; k < 4; k++) {
            assert_true(isfinite(x[k]));
            sum += x[k];
            square += x[k] * x[k];
            fourth += x[k] * x[k] * x[k] * x[k];
        }
        cross += x[0] * x[1];
    }
    assert_true(fabs(sum / (4 * N)) < 0.01);
    assert_true(fabs(square / (4 * N) - 1) < 0.015);
    assert_true(fabs(fourth / (4 * N) - 3) < 0.1);
    assert_true(fabs(cross / N) < 0.02);
}

static void test_os_seed(void **state)
{
    (void)state;
    assert_true(rng_os_seed() != rng_os_seed());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_os_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
