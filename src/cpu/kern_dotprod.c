/* NEON's dot product (ARMv8.2): the products on blocks of signed bytes. All else is NEON's.
 *
 * sdot adds four products of signed bytes per lane, so no bias is needed. Lanes are four outputs:
 * dense weights lie that way; of MXFP4 each output's two halves of a block are multiplied as they
 * lie, and pairs are added across until four outputs share a vector.
 */
#include "cpu/kern.h"

#include "base/num.h"

#include <arm_neon.h>

enum { ROWS = 4, MX_OUT = 4 };

/* What a tile of up to ROWS rows reads of them. */
struct rows {
    const int8_t *x[ROWS];
    const float *d[ROWS];
};

INLINE struct rows rows_of(const struct mul_q8 *m, int nr, int r)
{
    struct rows t;
    UNROLL for (int j = 0; j < nr; j++)
    {
        size_t i = (size_t)(m->row ? m->row[r + j] : r + j);
        t.x[j] = m->x.q + i * m->x.ld;
        t.d[j] = m->x.d + i * (m->x.ld / Q8_IN);
    }
    return t;
}

/* The first n of 4 outputs from o on. */
static inline void put4(const struct mul_q8 *m, int r, int o, int n, float32x4_t acc)
{
    float v[4], *y = m->y + (size_t)r * m->ld_y + o;
    vst1q_f32(v, acc);
    for (int i = 0; i < n; i++) {
        float sum = m->bias ? v[i] + m->bias[o + i] : v[i];
        y[i] = m->add ? y[i] + sum : sum;
    }
}

static inline float32x4_t add4(float32x4_t acc, int32x4_t sum, float32x4_t scale, float d)
{
    return vfmaq_f32(acc, vcvtq_f32_s32(sum), vmulq_n_f32(scale, d));
}

INLINE void dense_tile(int nr, const struct mul_q8 *m, int o, int r)
{
    int n_block = m->n_in / Q8_IN;
    const struct q8_block *w = (const struct q8_block *)m->w + (size_t)(o / Q8_OUT * n_block);
    struct rows t = rows_of(m, nr, r);
    float32x4_t acc[ROWS][2];
    UNROLL for (int j = 0; j < nr; j++) acc[j][0] = acc[j][1] = vdupq_n_f32(0);
    for (int b = 0; b < n_block; b++, w++) {
        int32x4_t s[ROWS][2];
        UNROLL for (int j = 0; j < nr; j++) s[j][0] = s[j][1] = vdupq_n_s32(0);
        UNROLL for (int g = 0; g < Q8_IN / 4; g++)
        {
            int8x16_t lo = vld1q_s8(w->q[g][0]), hi = vld1q_s8(w->q[g][4]);
            UNROLL for (int j = 0; j < nr; j++)
            {
                int8x16_t x = vreinterpretq_s8_s32(
                    vld1q_dup_s32((const int32_t *)(const void *)(t.x[j] + b * Q8_IN + 4 * g)));
                s[j][0] = vdotq_s32(s[j][0], lo, x);
                s[j][1] = vdotq_s32(s[j][1], hi, x);
            }
        }
        uint16x8_t d = vld1q_u16(w->d);
        float32x4_t d0 = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(d), 16));
        float32x4_t d1 = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(d), 16));
        UNROLL for (int j = 0; j < nr; j++)
        {
            acc[j][0] = add4(acc[j][0], s[j][0], d0, t.d[j][b]);
            acc[j][1] = add4(acc[j][1], s[j][1], d1, t.d[j][b]);
        }
    }
    UNROLL for (int j = 0; j < nr; j++)
    {
        put4(m, r + j, o, 4, acc[j][0]);
        put4(m, r + j, o + 4, 4, acc[j][1]);
    }
}

static void mul_q8(const struct mul_q8 *m)
{
    for (int o = 0; o < m->n_out; o += Q8_OUT) {
        int r = 0;
        for (; r + ROWS <= m->n_row; r += ROWS)
            dense_tile(ROWS, m, o, r);
        for (; r < m->n_row; r++)
            dense_tile(1, m, o, r);
    }
}

/* Outputs [o, o + n), n <= MX_OUT; those beyond repeat the last. */
INLINE void mx_tile(int nr, const struct mul_q8 *m, int o, int n, int r)
{
    const int8x16_t twice = vld1q_s8(kern_mx_twice);
    int n_block = m->n_in / Q8_IN;
    const uint8_t *code[MX_OUT], *scale[MX_OUT];
    struct rows t = rows_of(m, nr, r);
    float32x4_t acc[ROWS];
    UNROLL for (int i = 0; i < MX_OUT; i++)
    {
        size_t at = (size_t)(o + min_int(i, n - 1)) * (size_t)n_block;
        code[i] = (const uint8_t *)m->w + at * (Q8_IN / 2);
        scale[i] = m->scale + at;
    }
    UNROLL for (int j = 0; j < nr; j++) acc[j] = vdupq_n_f32(0);
    for (int b = 0; b < n_block; b++) {
        int8x16_t even[MX_OUT], odd[MX_OUT];
        float d[MX_OUT];
        UNROLL for (int i = 0; i < MX_OUT; i++)
        {
            uint8x16_t c = vld1q_u8(code[i] + b * (Q8_IN / 2));
            even[i] = vqtbl1q_s8(twice, vandq_u8(c, vdupq_n_u8(15)));
            odd[i] = vqtbl1q_s8(twice, vshrq_n_u8(c, 4));
            d[i] = kern_e8m0[scale[i][b]] * 0.5f;
        }
        float32x4_t dv = vld1q_f32(d);
        UNROLL for (int j = 0; j < nr; j++)
        {
            int8x16_t x0 = vld1q_s8(t.x[j] + b * Q8_IN), x1 = vld1q_s8(t.x[j] + b * Q8_IN + 16);
            int32x4_t s[MX_OUT];
            UNROLL for (int i = 0; i < MX_OUT; i++) s[i] =
                vdotq_s32(vdotq_s32(vdupq_n_s32(0), even[i], x0), odd[i], x1);
            int32x4_t sum = vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
            acc[j] = add4(acc[j], sum, dv, t.d[j][b]);
        }
    }
    UNROLL for (int j = 0; j < nr; j++) put4(m, r + j, o, n, acc[j]);
}

static void mul_mx_q8(const struct mul_q8 *m)
{
    for (int o = 0; o < m->n_out; o += MX_OUT) {
        int r = 0, n = min_int(MX_OUT, m->n_out - o);
        for (; r + ROWS <= m->n_row; r += ROWS)
            mx_tile(ROWS, m, o, n, r);
        for (; r < m->n_row; r++)
            mx_tile(1, m, o, n, r);
    }
}

/* As kern_simd.h's peak. */
static double peak_q8(int n, float *out)
{
    enum { CHAINS = 12, BYTES = 16 };
    int32x4_t s[CHAINS];
    int8x16_t x = vdupq_n_s8(1);
    UNROLL for (int i = 0; i < CHAINS; i++) s[i] = vdupq_n_s32(0);
    for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
            s[i] = vdotq_s32(s[i], x, x);
            __asm__("" : "+w"(s[i]));
        }
    }
    UNROLL for (int i = 1; i < CHAINS; i++) s[0] = vaddq_s32(s[0], s[i]);
    *out = (float)vaddvq_s32(s[0]);
    return 2.0 * CHAINS * BYTES * n;
}

void kern_dotprod_init(struct cpu_kern *k)
{
    k->mul_q8 = mul_q8;
    k->mul_mx_q8 = mul_mx_q8;
    k->name = "dotprod";
    k->peak_q8 = peak_q8;
}
