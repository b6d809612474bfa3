/* A block of 32 values is one power-of-two scale and 32 codes of e2m1 (magnitudes 0, 0.5, 1, 1.5,
 * 2, 3, 4, 6). Unpacking is exact. Packing chooses the scale by a rule, then the nearest code; a
 * value half-way goes to the smaller magnitude and zero is always code 0, as in gguf's encoder.
 *
 * Example, rule MX_OCP: absmax 5.5 has exponent 2, so the scale is 2^(2-2) = 1 and 5.5 becomes 6;
 * absmax 7.9 has the same scale and saturates to 6. MX_ROUNDUP then takes scale 2 and 7.9 -> 8.
 */
#include "model/mxfp4.h"
#include "base/num.h"

#include <math.h>

void mxfp4_unpack(const uint8_t *blocks, const uint8_t *scales, size_t n_block, float *out)
{
    for (size_t b = 0; b < n_block; b++, blocks += MX_BLOCK_BYTES, out += MX_BLOCK) {
        float scale = e8m0_f32(scales[b]);
        for (int i = 0; i < MX_BLOCK_BYTES; i++) {
            out[2 * i] = e2m1_f32[blocks[i] & 15] * scale;
            out[2 * i + 1] = e2m1_f32[blocks[i] >> 4] * scale;
        }
    }
}

/* The nearest code of a magnitude in units of the scale. */
static unsigned nearest(float a)
{
    return (unsigned)((a > 0.25f) + (a > 0.75f) + (a > 1.25f) + (a > 1.75f) + (a > 2.5f) +
                      (a > 3.5f) + (a > 5.0f));
}

/* 1 / 2^(s-127): exact for every scale byte. */
static float inverse_scale(int s)
{
    return ldexpf(1.0f, 127 - s);
}

/* Sum of squared errors of 32 values under scale byte s, in units of the values. */
static double block_error(const float *in, int s)
{
    float inv = inverse_scale(s), scale = e8m0_f32((uint8_t)s);
    double sum = 0;
    for (int i = 0; i < MX_BLOCK; i++) {
        float a = fabsf(in[i]);
        double d = (double)a - (double)(e2m1_f32[nearest(a * inv)] * scale);
        sum += d * d;
    }
    return sum;
}

static int clamp_scale(int s)
{
    return s < 0 ? 0 : s > 254 ? 254 : s;
}

static int choose_scale(const float *in, enum mx_scale_rule rule)
{
    float top = 0;
    for (int i = 0; i < MX_BLOCK; i++)
        top = fmaxf(top, fabsf(in[i]));
    if (top == 0)
        return 0;
    int exponent; /* top = m * 2^exponent, m in [0.5, 1) */
    frexpf(top, &exponent);
    int s = clamp_scale(exponent - 1 - 2 + 127);
    if (rule == MX_ROUNDUP)
        return top * inverse_scale(s) > 6.0f ? s + 1 : s;
    if (rule == MX_SEARCH) {
        int best = s;
        double least = block_error(in, s);
        for (int near = s - 1; near <= s + 1; near += 2) {
            double err = near == clamp_scale(near) ? block_error(in, near) : INFINITY;
            if (err < least) {
                least = err;
                best = near;
            }
        }
        return best;
    }
    return s;
}

void mxfp4_pack(const float *in, size_t n_block, enum mx_scale_rule rule, uint8_t *blocks,
                uint8_t *scales)
{
    for (size_t b = 0; b < n_block; b++, in += MX_BLOCK, blocks += MX_BLOCK_BYTES) {
        int s = choose_scale(in, rule);
        float inv = inverse_scale(s);
        unsigned code[MX_BLOCK];
        for (int i = 0; i < MX_BLOCK; i++) {
            unsigned c = nearest(fabsf(in[i]) * inv);
            code[i] = c && in[i] < 0 ? c | 8 : c;
        }
        for (int i = 0; i < MX_BLOCK_BYTES; i++)
            blocks[i] = (uint8_t)(code[2 * i] | code[2 * i + 1] << 4);
        scales[b] = (uint8_t)s;
    }
}
