/* The loops behind pass.h; the including file defines PASS, the name of the table. */
#include "engine/pass.h"

#include "base/num.h"

#include <math.h>

enum { LANE = PASS_LANE, BLOCK = PASS_BLOCK };

static float max_of(const float *x, int n)
{
    float m[LANE], max = x[0];
    int i = 0;
    for (int j = 0; j < LANE; j++)
        m[j] = x[0];
    for (; i + LANE <= n; i += LANE)
        for (int j = 0; j < LANE; j++)
            m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    for (int j = 0; j < LANE; j++)
        max = m[j] > max ? m[j] : max;
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static int32_t argmax(const float *x, int n, float *max)
{
    int at = 0;
    *max = -INFINITY;
    for (int i = 0; i < n; i += BLOCK) {
        float m = max_of(x + i, min_int(BLOCK, n - i));
        at = m > *max ? i : at;
        *max = m > *max ? m : *max;
    }
    while (at < n - 1 && x[at] != *max)
        at++;
    return at;
}

/* exp(x) for x <= 0, relative error below 2e-7; 0 where the result would be denormal, -Inf
 * included. 2^k by the exponent bits, the rest by a polynomial (Cephes' expf). */
static inline float exp_below_0(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float y = x < -87.0f ? -87.0f : x;
    float shifted = y * 1.44269504f + magic;
    float k = shifted - magic;
    float r = y - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float q = 1.9875691500e-4f;
    q = q * r + 1.3981999507e-3f;
    q = q * r + 8.3334519073e-3f;
    q = q * r + 4.1665795894e-2f;
    q = q * r + 1.6666665459e-1f;
    q = q * r + 5.0000001201e-1f;
    q = q * r * r + r + 1.0f;
    float scaled = bits_f32(f32_bits(q) + (f32_bits(shifted) << 23));
    return x < -87.0f ? 0.0f : scaled;
}

static double sum_block(const float *x, int n)
{
    float part[LANE] = {0};
    double sum = 0;
    int i = 0;
    for (; i + LANE <= n; i += LANE)
        for (int j = 0; j < LANE; j++)
            part[j] += x[i + j];
    for (; i < n; i++)
        part[0] += x[i];
    for (int j = 0; j < LANE; j++)
        sum += (double)part[j];
    return sum;
}

static double exp_block(const float *x, int n, float max, float inv_t, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = exp_below_0((x[i] - max) * inv_t);
    return sum_block(out, n);
}

static void mask_word(uint32_t bits, int n, float v, float *x)
{
    if (n == 32) {
        for (int j = 0; j < 32; j++)
            x[j] = bits & (uint32_t)1 << j ? x[j] : v;
        return;
    }
    for (int j = 0; j < n; j++)
        x[j] = bits & (uint32_t)1 << j ? x[j] : v;
}

static void range(const float *x, int n, float *least, float *most)
{
    float lo[LANE], hi[LANE];
    int i = 0;
    for (int j = 0; j < LANE; j++)
        lo[j] = hi[j] = x[0];
    for (; i + LANE <= n; i += LANE)
        for (int j = 0; j < LANE; j++) {
            lo[j] = x[i + j] < lo[j] ? x[i + j] : lo[j];
            hi[j] = x[i + j] > hi[j] ? x[i + j] : hi[j];
        }
    for (; i < n; i++) {
        lo[0] = x[i] < lo[0] ? x[i] : lo[0];
        hi[0] = x[i] > hi[0] ? x[i] : hi[0];
    }
    *least = lo[0];
    *most = hi[0];
    for (int j = 1; j < LANE; j++) {
        *least = lo[j] < *least ? lo[j] : *least;
        *most = hi[j] > *most ? hi[j] : *most;
    }
}

static void group_max(const float *x, int n, float *out)
{
    for (int i = 0; i < n; i++) {
        float m = x[i * LANE];
        for (int j = 0; j < LANE; j++)
            m = x[i * LANE + j] > m ? x[i * LANE + j] : m;
        out[i] = m;
    }
}

static int collect(const float *x, int n, float floor, float *out, int32_t *index)
{
    int k = 0;
    floor = floor > 0 ? floor : 1.17549435e-38f; /* the smallest that exp_below_0 gives is larger */
    for (int i = 0; i < n; i += LANE) {
        int m = min_int(LANE, n - i), any = 0;
        if (m == LANE)
            for (int j = 0; j < LANE; j++)
                any += x[i + j] >= floor;
        if (m == LANE && any == 0)
            continue;
        if (any == LANE) { /* a flat distribution has many of these */
            for (int j = 0; j < LANE; j++)
                out[k + j] = x[i + j];
            for (int j = 0; j < LANE; j++)
                index[k + j] = i + j;
            k += LANE;
            continue;
        }
        for (int j = i; j < i + m; j++) {
            out[k] = x[j]; /* kept only if counted */
            index[k] = j;
            k += x[j] >= floor;
        }
    }
    return k;
}

static int between(const float *x, int n, float lo, float hi, float *out)
{
    int k = 0;
    for (int i = 0; i < n; i += LANE) {
        int m = min_int(LANE, n - i), any = m < LANE;
        for (int j = 0; j < LANE && m == LANE; j++)
            any += (x[i + j] >= lo) & (x[i + j] <= hi);
        for (int j = i; any && j < i + m; j++) {
            float q = x[j];
            out[k] = q; /* kept only if counted */
            k += (q >= lo) & (q <= hi);
        }
    }
    return k;
}

static int keep(float *x, int n, float v)
{
    int equal = 0;
    for (int i = 0; i < n; i++) {
        equal += x[i] == v;
        x[i] = x[i] >= v ? x[i] : 0;
    }
    return equal;
}

const struct sample_pass PASS = {
    .argmax = argmax,
    .exp = exp_block,
    .sum = sum_block,
    .mask = mask_word,
    .range = range,
    .group_max = group_max,
    .collect = collect,
    .between = between,
    .keep = keep,
};
