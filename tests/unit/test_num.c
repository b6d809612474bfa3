#include "unit.h"

#include "base/num.h"

#include <math.h>

/* The value of an IEEE-like float with `n_exp` exponent and `n_man` mantissa bits, by definition.
 */
static double slow_value(uint32_t bits, int n_exp, int n_man)
{
    int sign = (int)(bits >> (n_exp + n_man)) & 1, exp = (int)(bits >> n_man) & ((1 << n_exp) - 1);
    int bias = (1 << (n_exp - 1)) - 1;
    double man = (double)(bits & ((1u << n_man) - 1)) / (double)(1 << n_man), v;
    if (exp == (1 << n_exp) - 1)
        v = man != 0 ? NAN : INFINITY;
    else if (exp == 0)
        v = ldexp(man, 1 - bias);
    else
        v = ldexp(1 + man, exp - bias);
    return sign ? -v : v;
}

static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = bf16_f32((uint16_t)h);
        double want = slow_value(h, 8, 7);
        assert_true(isnan(want) ? isnan(f) : (double)f == want);
        assert_int_equal(f32_bits(f), h << 16);
        if (!isnan(f))
            assert_int_equal(f32_bf16(f), h);
        else
            assert_true(isnan(bf16_f32(f32_bf16(f))));
    }
    assert_true(isnan(bf16_f32(f32_bf16(bits_f32(0x7f800001))))); /* the payload's top bits are 0 */
    assert_int_equal(f32_bf16(bits_f32(0x7f7fffff)), 0x7f80);     /* rounds up to infinity */
    assert_int_equal(f32_bf16(1.00390625f), 0x3f80); /* a tie goes to even, here down */
    assert_int_equal(f32_bf16(1.01171875f), 0x3f82); /* here up */
}

static void test_f16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = f16_f32((uint16_t)h);
        double want = slow_value(h, 5, 10);
        assert_true(isnan(want) ? isnan(f) : (double)f == want);
        assert_int_equal(signbit(f) != 0, h >> 15);
        if (!isnan(f))
            assert_int_equal(f32_f16(f), h);
        else
            assert_true(isnan(f16_f32(f32_f16(f))));
    }
}

/* Rounding, everywhere: between two neighbours a and b the halfway point goes to the even one, and
 * what lies beside it to the nearer. */
static void check_rounding(int n_exp, int n_man, float (*up)(uint16_t), uint16_t (*down)(float))
{
    uint32_t inf = ((1u << n_exp) - 1) << n_man;
    for (uint32_t a = 0; a < inf; a++) {
        double x = slow_value(a, n_exp, n_man);
        double y = a + 1 < inf ? slow_value(a + 1, n_exp, n_man)
                               : ldexp(1, 1 << (n_exp - 1)); /* what would follow, were it finite */
        float half = (float)((x + y) / 2);
        if ((double)half != (x + y) / 2)
            continue; /* below float32's own smallest numbers */
        uint32_t even = a & 1 ? a + 1 : a;
        for (int sign = 0; sign < 2; sign++) {
            float s = sign ? -1.0f : 1.0f;
            uint32_t bit = sign ? 0x8000 : 0;
            assert_int_equal(down(s * half), even | bit);
            assert_int_equal(down(s * nextafterf(half, 0)), a | bit);
            assert_int_equal(down(s * nextafterf(half, INFINITY)), (a + 1) | bit);
        }
        assert_true((double)up((uint16_t)a) == x);
    }
}

static uint16_t f32_bf16_fn(float f)
{
    return f32_bf16(f);
}

static float bf16_f32_fn(uint16_t h)
{
    return bf16_f32(h);
}

static void test_rounding(void **state)
{
    (void)state;
    check_rounding(5, 10, f16_f32, f32_f16);
    check_rounding(8, 7, bf16_f32_fn, f32_bf16_fn);
}

static void test_mx(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 16; c++) {
        assert_true((double)e2m1_f32[c] == (c & 7 ? slow_value(c, 2, 1) : 0.0) ||
                    (c & 6) == 6); /* e2m1 has no infinity: its top exponent is a number */
        assert_int_equal(signbit(e2m1_f32[c]) != 0, c >> 3);
    }
    assert_true(e2m1_f32[6] == 4.0f && e2m1_f32[7] == 6.0f && e2m1_f32[15] == -6.0f);
    for (int s = 0; s < 255; s++)
        assert_true((double)e8m0_f32((uint8_t)s) == ldexp(1, s - 127));
    assert_true(isnan(e8m0_f32(255)));
}

static void test_integers(void **state)
{
    (void)state;
    int64_t v = 99;
    assert_int_equal(num_i64("0", 0, 5, &v), OK);
    assert_int_equal(v, 0);
    assert_int_equal(num_i64("-9223372036854775808", INT64_MIN, INT64_MAX, &v), OK);
    assert_true(v == INT64_MIN);
    assert_int_equal(num_i64("9223372036854775807", INT64_MIN, INT64_MAX, &v), OK);
    assert_true(v == INT64_MAX);
    assert_int_equal(num_i64("007", 0, 7, &v), OK);
    assert_int_equal(v, 7);
    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "+1",
                                      "-",
                                      "--1",
                                      "1.0",
                                      "0x1",
                                      "1e2",
                                      "abc",
                                      "8",
                                      "-1",
                                      "9223372036854775808",
                                      "1\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (num_i64(bad[i], 0, 7, &v) != E_INPUT)
            fail_msg("\"%s\" was accepted", bad[i]);
    assert_int_equal(num_i64("9223372036854775808", INT64_MIN, INT64_MAX, &v), E_INPUT);
    assert_int_equal(v, 7);
}

static void test_floats(void **state)
{
    (void)state;
    double v = 99;
    assert_int_equal(num_f64("0.5", 0, 1, &v), OK);
    assert_true(v == 0.5);
    assert_int_equal(num_f64("-1e-3", -1, 1, &v), OK);
    assert_true(v == -1e-3);
    assert_int_equal(num_f64(".25", 0, 1, &v), OK);
    static const char *const bad[] = {"",    " 1",    "1 ",    "nan",   "inf", "-inf",
                                      "NAN", "0x1p3", "1e999", "1,5",   "1e",  "e1",
                                      ".",   "2",     "-2",    "1.2.3", "--1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (num_f64(bad[i], -1, 1, &v) != E_INPUT)
            fail_msg("\"%s\" was accepted", bad[i]);
    assert_true(v == 0.25);
}

static void test_sizes(void **state)
{
    (void)state;
    size_t r;
    assert_true(add_ok(SIZE_MAX - 1, 1, &r) && r == SIZE_MAX);
    assert_false(add_ok(SIZE_MAX, 1, &r));
    assert_true(mul_ok(SIZE_MAX / 3, 3, &r) && r == SIZE_MAX / 3 * 3);
    assert_false(mul_ok(SIZE_MAX / 3 + 1, 3, &r));
    assert_true(mul_ok(0, SIZE_MAX, &r) && r == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16),     cmocka_unit_test(test_f16),
        cmocka_unit_test(test_rounding), cmocka_unit_test(test_mx),
        cmocka_unit_test(test_integers), cmocka_unit_test(test_floats),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
