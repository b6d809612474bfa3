/* MXFP4 decode exhaustively, encode against a slow encoder written from the format's definition. */
#include "base/num.h"
#include "base/rng.h"
#include "model/mxfp4.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const double magnitude[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

/* Every byte of codes under every scale, nibble order included. */
static void unpack_exhaustive(void **state)
{
    (void)state;
    for (int scale = 0; scale < 256; scale++)
        for (int byte = 0; byte < 256; byte++) {
            uint8_t block[16], s = (uint8_t)scale;
            float out[32];
            memset(block, byte, sizeof block);
            block[3] = (uint8_t)~byte;
            mxfp4_unpack(block, &s, 1, out);
            for (int i = 0; i < 32; i++) {
                int code = i % 2 ? block[i / 2] >> 4 : block[i / 2] & 15;
                double want = magnitude[code & 7] * pow(2, scale - 127) * (code & 8 ? -1 : 1);
                if (scale == 255)
                    assert_true(isnan(out[i]));
                else
                    assert_true(out[i] == (float)want && !!signbit(out[i]) == !!(code & 8));
                /* bf16 holds every value of a normal scale */
                if (scale > 0 && scale < 254)
                    assert_true(bf16_f32(f32_bf16(out[i])) == out[i]);
            }
        }
}

/* The encoder as gguf 0.19 states it: nearest of the 16 values, the first of equals. */
static void encode_slow(const float *in, int scale, uint8_t *block)
{
    static const int order[15] = {0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15};
    memset(block, 0, 16);
    for (int i = 0; i < 32; i++) {
        int best = 0;
        double least = INFINITY;
        for (int k = 0; k < 15; k++) {
            int c = order[k];
            double v = magnitude[c & 7] * ldexp(1, scale - 127) * (c & 8 ? -1 : 1);
            if (fabs(v - in[i]) < least) {
                least = fabs(v - in[i]);
                best = c;
            }
        }
        block[i / 2] |= (uint8_t)(i % 2 ? best << 4 : best);
    }
}

static double squared_error(const float *in, const uint8_t *block, uint8_t scale)
{
    float out[32];
    double sum = 0;
    mxfp4_unpack(block, &scale, 1, out);
    for (int i = 0; i < 32; i++)
        sum += ((double)in[i] - out[i]) * ((double)in[i] - out[i]);
    return sum;
}

static int ocp_scale(const float *in)
{
    double top = 0;
    for (int i = 0; i < 32; i++)
        top = fmax(top, fabs(in[i]));
    int s = top > 0 ? ilogb(top) - 2 + 127 : 0;
    return s < 0 ? 0 : s;
}

static void random_block(uint64_t i, float *in)
{
    uint32_t w[4];
    rng_block(77, 1, i, w);
    float scale = ldexpf(1, (int)(w[0] % 240) - 125);
    if (w[1] % 3)
        scale = 0.02f;
    for (int k = 0; k < 32; k += 4) {
        rng_normal4(77, 2, i * 8 + (uint64_t)k / 4, in + k);
        for (int j = k; j < k + 4; j++) {
            in[j] *= scale;
            if (w[2] % 2) /* bf16 sources meet half-way points */
                in[j] = bf16_f32(f32_bf16(in[j]));
        }
    }
}

static void pack_ocp(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        float in[32];
        uint8_t block[16], scale, want[16];
        random_block(i, in);
        mxfp4_pack(in, 1, MX_OCP, block, &scale);
        assert_int_equal(scale, ocp_scale(in));
        encode_slow(in, scale, want);
        assert_memory_equal(block, want, 16);
    }
}

static void pack_rules(void **state)
{
    (void)state;
    double err[3] = {0};
    for (uint64_t i = 0; i < 20000; i++) {
        float in[32];
        uint8_t block[16], scale[3];
        double e[3];
        random_block(i * 3 + 1, in);
        for (int rule = 0; rule < 3; rule++) {
            mxfp4_pack(in, 1, (enum mx_scale_rule)rule, block, &scale[rule]);
            e[rule] = squared_error(in, block, scale[rule]);
            uint8_t want[16];
            encode_slow(in, scale[rule], want);
            assert_memory_equal(block, want, 16);
        }
        /* ROUNDUP never saturates; SEARCH is at least as good as both. */
        for (int k = 0; k < 32; k++)
            assert_true(fabs(in[k]) <= 6 * ldexp(1, scale[MX_ROUNDUP] - 127));
        assert_true(e[MX_SEARCH] <= e[MX_OCP] && e[MX_SEARCH] <= e[MX_ROUNDUP]);
        if (fabsf(in[0]) > 1e-6f && fabsf(in[0]) < 1)
            for (int rule = 0; rule < 3; rule++)
                err[rule] += e[rule];
    }
    printf("squared error, OCP = 1: roundup %.4f, search %.4f\n", err[1] / err[0], err[2] / err[0]);
}

/* A packed block packs to itself, whatever the rule (values, not scales: a block whose largest code
 * is small may be written with another scale). */
static void idempotent(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 5000; i++) {
        float in[32], again[32];
        uint8_t block[16], s;
        random_block(i + 100000, in);
        mxfp4_pack(in, 1, MX_OCP, block, &s);
        mxfp4_unpack(block, &s, 1, in);
        for (int rule = 0; rule < 3; rule++) {
            mxfp4_pack(in, 1, (enum mx_scale_rule)rule, block, &s);
            mxfp4_unpack(block, &s, 1, again);
            for (int k = 0; k < 32; k++)
                assert_true(in[k] == again[k]);
        }
    }
}

static void edges(void **state)
{
    (void)state;
    float in[32] = {0};
    uint8_t block[16], s;
    mxfp4_pack(in, 1, MX_SEARCH, block, &s);
    assert_int_equal(s, 0);
    for (int i = 0; i < 16; i++)
        assert_int_equal(block[i], 0);
    /* the largest and the smallest floats: scales stay in 0..254 */
    for (int rule = 0; rule < 3; rule++) {
        for (int i = 0; i < 32; i++)
            in[i] = i % 2 ? 3.4e38f : -3.4e38f;
        mxfp4_pack(in, 1, (enum mx_scale_rule)rule, block, &s);
        assert_in_range(s, 252, 254);
        for (int i = 0; i < 32; i++)
            in[i] = 1e-45f;
        mxfp4_pack(in, 1, (enum mx_scale_rule)rule, block, &s);
        assert_in_range(s, 0, 1);
    }
    /* the header's example: absmax 7.9 saturates under OCP, not under ROUNDUP */
    memset(in, 0, sizeof in);
    in[0] = 7.9f;
    float out[32];
    mxfp4_pack(in, 1, MX_OCP, block, &s);
    mxfp4_unpack(block, &s, 1, out);
    assert_true(out[0] == 6);
    mxfp4_pack(in, 1, MX_ROUNDUP, block, &s);
    mxfp4_unpack(block, &s, 1, out);
    assert_true(out[0] == 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(unpack_exhaustive),
                                       cmocka_unit_test(pack_ocp), cmocka_unit_test(pack_rules),
                                       cmocka_unit_test(idempotent), cmocka_unit_test(edges)};
    return cmocka_run_group_tests_name("mxfp4", tests, NULL, NULL);
}
