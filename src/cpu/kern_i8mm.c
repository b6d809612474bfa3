/* ARM's matrix products of bytes (FEAT_I8MM, ARMv8.6): the products on blocks of signed bytes, in
 * place of the dot product's. All else is NEON's.
 *
 * smmla multiplies two outputs by two rows, eight inputs at once, into four sums. A tile is four
 * outputs times up to four pairs of rows; a row without a partner meets itself, and that half is
 * dropped. Sums within a block are exact, so the bits are those of every other set.
 */
#include "cpu/kern.h"

#include "base/num.h"

#include <arm_neon.h>

enum {
    OUT = 4,            /* outputs of a tile */
    PAIRS = 4,          /* of rows */
    STEPS = Q8_IN / 8,  /* of eight inputs in a block */
    HALF = Q8_OUT / OUT /* tiles of a dense block */
};

/* One block of the tile's weights: [step][pair of outputs], and the outputs' scales. */
struct block {
    int8x16_t w[STEPS][OUT / 2];
    float32x4_t scale;
};

INLINE struct block dense_block(const struct q8_block *q, int half)
{
    struct block b;
    UNROLL for (int i = 0; i < STEPS; i++)
    {
        int32x4_t v0 = vreinterpretq_s32_s8(vld1q_s8(q->q[2 * i][OUT * half]));
        int32x4_t v1 = vreinterpretq_s32_s8(vld1q_s8(q->q[2 * i + 1][OUT * half]));
        b.w[i][0] = vreinterpretq_s8_s32(vzip1q_s32(v0, v1));
        b.w[i][1] = vreinterpretq_s8_s32(vzip2q_s32(v0, v1));
    }
    b.scale = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(q->d + OUT * half), 16));
    return b;
}

/* Block i of MXFP4 outputs whose codes and scales begin at code and scale. */
INLINE struct block mx_block(const uint8_t *const code[OUT], const uint8_t *const scale[OUT], int i)
{
    const int8x16_t twice = vld1q_s8(kern_mx_twice);
    int64x2_t even[OUT], odd[OUT];
    float d[OUT];
    UNROLL for (int o = 0; o < OUT; o++)
    {
        uint8x16_t c = vld1q_u8(code[o] + i * (Q8_IN / 2));
        even[o] = vreinterpretq_s64_s8(vqtbl1q_s8(twice, vandq_u8(c, vdupq_n_u8(15))));
        odd[o] = vreinterpretq_s64_s8(vqtbl1q_s8(twice, vshrq_n_u8(c, 4)));
        d[o] = kern_e8m0[scale[o][i]] * 0.5f;
    }
    struct block b = {.scale = vld1q_f32(d)};
    UNROLL for (int p = 0; p < OUT / 2; p++)
    {
        b.w[0][p] = vreinterpretq_s8_s64(vtrn1q_s64(even[2 * p], even[2 * p + 1]));
        b.w[1][p] = vreinterpretq_s8_s64(vtrn2q_s64(even[2 * p], even[2 * p + 1]));
        b.w[2][p] = vreinterpretq_s8_s64(vtrn1q_s64(odd[2 * p], odd[2 * p + 1]));
        b.w[3][p] = vreinterpretq_s8_s64(vtrn2q_s64(odd[2 * p], odd[2 * p + 1]));
    }
    return b;
}

/* Outputs [o, o + n), n <= OUT, of rows [r, r + n_row), of which there are np pairs. */
INLINE void tile(bool mx, int np, const struct mul_q8 *m, int o, int n, int r, int n_row)
{
    int n_block = m->n_in / Q8_IN;
    const int8_t *x[2 * PAIRS];
    const float *d[2 * PAIRS];
    const uint8_t *code[OUT], *scale[OUT];
    const struct q8_block *dense =
        (const struct q8_block *)m->w + (size_t)(o / Q8_OUT) * (size_t)n_block;
    float32x4_t acc[PAIRS][OUT / 2]; /* each [output][row] of a pair of both */
    UNROLL for (int j = 0; j < 2 * np; j++)
    {
        int at = r + min_int(j, n_row - 1);
        size_t row = (size_t)(m->row ? m->row[at] : at);
        x[j] = m->x.q + row * m->x.ld;
        d[j] = m->x.d + row * (m->x.ld / Q8_IN);
    }
    UNROLL for (int i = 0; i < OUT && mx; i++)
    {
        size_t at = (size_t)(o + min_int(i, n - 1)) * (size_t)n_block;
        code[i] = (const uint8_t *)m->w + at * (Q8_IN / 2);
        scale[i] = m->scale + at;
    }
    UNROLL for (int j = 0; j < np; j++) acc[j][0] = acc[j][1] = vdupq_n_f32(0);
    for (int b = 0; b < n_block; b++) {
        struct block w = mx ? mx_block(code, scale, b) : dense_block(dense + b, o / OUT % HALF);
        float32x4_t s0 = vzip1q_f32(w.scale, w.scale), s1 = vzip2q_f32(w.scale, w.scale);
        UNROLL for (int j = 0; j < np; j++)
        {
            int32x4_t sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
            UNROLL for (int i = 0; i < STEPS; i++)
            {
                int8x16_t xv = vcombine_s8(vld1_s8(x[2 * j] + b * Q8_IN + 8 * i),
                                           vld1_s8(x[2 * j + 1] + b * Q8_IN + 8 * i));
                sum[0] = vmmlaq_s32(sum[0], w.w[i][0], xv);
                sum[1] = vmmlaq_s32(sum[1], w.w[i][1], xv);
            }
            float32x2_t dd = {d[2 * j][b], d[2 * j + 1][b]};
            float32x4_t dv = vcombine_f32(dd, dd);
            acc[j][0] = vfmaq_f32(acc[j][0], vcvtq_f32_s32(sum[0]), vmulq_f32(s0, dv));
            acc[j][1] = vfmaq_f32(acc[j][1], vcvtq_f32_s32(sum[1]), vmulq_f32(s1, dv));
        }
    }
    UNROLL for (int j = 0; j < np; j++)
    {
        float v[2 * OUT];
        vst1q_f32(v, acc[j][0]);
        vst1q_f32(v + OUT, acc[j][1]);
        for (int k = 2 * j; k < 2 * j + 2 && k < n_row; k++) {
            float *y = m->y + (size_t)(r + k) * m->ld_y + o;
            for (int i = 0; i < n; i++) {
                float sum = v[2 * i + k % 2] + (m->bias ? m->bias[o + i] : 0);
                y[i] = m->add ? y[i] + sum : sum;
            }
        }
    }
}

INLINE void mul_any(bool mx, const struct mul_q8 *m)
{
    for (int o = 0; o < m->n_out; o += OUT) {
        int n = min_int(OUT, m->n_out - o), r = 0;
        for (; m->n_row - r > PAIRS; r += 2 * PAIRS)
            tile(mx, PAIRS, m, o, n, r, min_int(2 * PAIRS, m->n_row - r));
        for (; r < m->n_row; r += 2)
            tile(mx, 1, m, o, n, r, min_int(2, m->n_row - r));
    }
}

static void mul_q8(const struct mul_q8 *m)
{
    mul_any(false, m);
}

static void mul_mx_q8(const struct mul_q8 *m)
{
    mul_any(true, m);
}

/* As kern_simd.h's peak. */
static double peak_q8(int n, float *out)
{
    enum { CHAINS = 12 };
    int32x4_t s[CHAINS];
    int8x16_t a = vdupq_n_s8(1), b = vdupq_n_s8(2);
    UNROLL for (int i = 0; i < CHAINS; i++) s[i] = vdupq_n_s32(0);
    for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
            s[i] = vmmlaq_s32(s[i], a, b);
            __asm__("" : "+w"(s[i])); /* else one chain would do for all */
        }
    }
    UNROLL for (int i = 1; i < CHAINS; i++) s[0] = vaddq_s32(s[0], s[i]);
    *out = (float)vgetq_lane_s32(s[0], 0);
    return 2.0 * CHAINS * 32 * n;
}

void kern_i8mm_init(struct cpu_kern *k)
{
    k->mul_q8 = mul_q8;
    k->mul_mx_q8 = mul_mx_q8;
    k->peak_q8 = peak_q8;
    k->name = "i8mm";
}
