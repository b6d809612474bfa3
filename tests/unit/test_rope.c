/* YaRN tables against the values of model.md section 5 and a direct evaluation of the formula. */
#include "model/rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void released_values(void **state)
{
    (void)state;
    static const struct {
        int i;
        double inv;
    } want[] = {{0, 1.0},
                {8, 0.0508132748},
                {9, 0.0317056962},
                {12, 0.00679495949},
                {17, 1.29318701e-4},
                {18, 3.83088124e-5},
                {31, 3.02351143e-7}};
    double inv[32], c = rope_frequencies(spec_known("gpt-oss-20b"), inv);
    assert_true(fabs(c - 1.3465735902799727) < 1e-15);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        if (fabs(inv[want[i].i] / want[i].inv - 1) > 2e-9)
            fail_msg("inv[%d] = %.10g", want[i].i, inv[want[i].i]);
}

static void plain_rope(void **state)
{
    (void)state;
    struct spec s = *spec_known("gpt-oss-20b");
    double inv[64];
    s.yarn = false;
    s.d_head = 128;
    s.rope_theta = 10000;
    assert_true(rope_frequencies(&s, inv) == 1);
    for (int i = 0; i < 64; i++)
        assert_true(fabs(inv[i] * pow(10000, i / 64.0) - 1) < 1e-12);
}

/* floor and ceil widen the ramp to pairs 8..18: the classic bug of other programs, wanted only when
 * the configuration says truncate. */
static void truncation(void **state)
{
    (void)state;
    struct spec s = *spec_known("gpt-oss-20b");
    double exact[32], cut[32];
    rope_frequencies(&s, exact);
    s.rope_truncate = true;
    rope_frequencies(&s, cut);
    assert_true(cut[8] == exact[8] && cut[18] == exact[18]);
    assert_true(cut[17] / exact[17] > 1.7 && cut[17] / exact[17] < 1.8); /* +76 % */
    double t = (12 - 8) / 10.0, f = pow(150000, -24.0 / 64);
    assert_true(fabs(cut[12] / (f * (1 - t) + f / 32 * t) - 1) < 1e-12);
}

static void rows(void **state)
{
    (void)state;
    const struct spec *s = spec_known("gpt-oss-120b");
    double inv[32], c = rope_frequencies(s, inv);
    float cosine[32], sine[32];
    rope_row(s, inv, c, 0, cosine, sine);
    for (int i = 0; i < 32; i++)
        assert_true(cosine[i] == (float)c && sine[i] == 0);
    static const int positions[] = {1, 127, 4096, 100000, 131071};
    for (int k = 0; k < 5; k++) {
        rope_row(s, inv, c, positions[k], cosine, sine);
        for (int i = 0; i < 32; i++) {
            float angle = (float)positions[k] * (float)inv[i];
            assert_true(fabs(cosine[i] - c * cos(angle)) < 1e-7);
            assert_true(fabs(sine[i] - c * sin(angle)) < 1e-7);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(released_values),
                                       cmocka_unit_test(plain_rope), cmocka_unit_test(truncation),
                                       cmocka_unit_test(rows)};
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
