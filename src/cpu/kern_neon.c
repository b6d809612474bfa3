/* Advanced SIMD of any AArch64 processor: the vocabulary of kern_simd.h on 4 floats, and to_bf16.
 * Nothing newer than ARMv8.0 is used, so no feature test is needed. */
#include "cpu/kern.h"

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define VF float32x4_t
#define VF_REG "w"
#define VF_W 4
#define MUL_NR 6
#define MUL_IN_NR 4
#define ATTN_NQ 8
/* A macro: gcc 12 takes a function that only prefetches for one without effect. */
#define vf_fetch(p) __builtin_prefetch(p)
#define vf_fetch_far(p) __builtin_prefetch(p, 0, 2)
#define MX_GROUP 1
#define MX_NO_ONE 8

static inline VF vf_zero(void)
{
    return vdupq_n_f32(0);
}
static inline VF vf_set1(float f)
{
    return vdupq_n_f32(f);
}
static inline VF vf_load(const float *p)
{
    return vld1q_f32(p);
}
static inline VF vf_load_n(const float *p, int n)
{
    float f[4] = {0};
    memcpy(f, p, (size_t)n * sizeof *f);
    return vld1q_f32(f);
}
static inline void vf_store(float *p, VF v)
{
    vst1q_f32(p, v);
}
static inline void vf_store_n(float *p, VF v, int n)
{
    float f[4];
    vst1q_f32(f, v);
    memcpy(p, f, (size_t)n * sizeof *f);
}
static inline VF vf_load_bf16(const void *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline VF vf_load_i8(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    int16x8_t h = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(h)));
}
static inline VF vf_load_f16(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline VF vf_fma(VF a, VF b, VF c)
{
    return vfmaq_f32(c, a, b);
}
static inline VF vf_add(VF a, VF b)
{
    return vaddq_f32(a, b);
}
static inline VF vf_sub(VF a, VF b)
{
    return vsubq_f32(a, b);
}
static inline VF vf_mul(VF a, VF b)
{
    return vmulq_f32(a, b);
}
static inline VF vf_div(VF a, VF b)
{
    return vdivq_f32(a, b);
}
static inline VF vf_min(VF a, VF b)
{
    return vminq_f32(a, b);
}
static inline VF vf_max(VF a, VF b)
{
    return vmaxq_f32(a, b);
}
static inline float vf_sum(VF v)
{
    return vaddvq_f32(v);
}
static inline float vf_hmax(VF v)
{
    return vmaxvq_f32(v);
}
static inline VF vf_round(VF v)
{
    return vrndnq_f32(v);
}
static inline VF vf_ldexp(VF v, VF n)
{
    int32x4_t e = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    return vmulq_f32(v, vreinterpretq_f32_s32(e));
}
static inline void vf_load2(const float *p, VF *even, VF *odd)
{
    float32x4x2_t v = vld2q_f32(p);
    *even = v.val[0];
    *odd = v.val[1];
}
static inline void vf_load2_bf16(const void *p, VF *even, VF *odd)
{
    uint32x4_t u = vreinterpretq_u32_u16(vld1q_u16(p));
    *even = vreinterpretq_f32_u32(vshlq_n_u32(u, 16));
    *odd = vreinterpretq_f32_u32(vandq_u32(u, vdupq_n_u32(0xffff0000)));
}
static inline void vf_zip(VF *even, VF *odd)
{
    VF lo = vzip1q_f32(*even, *odd);
    *odd = vzip2q_f32(*even, *odd);
    *even = lo;
}
static inline VF vf_round_bf16(VF v)
{
    uint32x4_t u = vreinterpretq_u32_f32(v);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t up = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    uint32x4_t r = vbslq_u32(vceqq_f32(v, v), up, quiet);
    return vreinterpretq_f32_u32(vandq_u32(r, vdupq_n_u32(0xffff0000)));
}
/* Nibbles to twice their value by table, low and high interleaved, then to floats. */
static inline void vf_mx_load(const uint8_t *p, const uint8_t *s, int n, VF v[8])
{
    (void)n;
    VF unit = vdupq_n_f32(kern_e8m0[*s] * 0.5f);
    static const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    int8x16_t table = vld1q_s8(twice);
    uint8x16_t b = vld1q_u8(p);
    int8x16_t lo = vqtbl1q_s8(table, vandq_u8(b, vdupq_n_u8(15)));
    int8x16_t hi = vqtbl1q_s8(table, vshrq_n_u8(b, 4));
    int8x16_t z[2] = {vzip1q_s8(lo, hi), vzip2q_s8(lo, hi)};
    for (int i = 0; i < 2; i++) {
        int16x8_t h[2] = {vmovl_s8(vget_low_s8(z[i])), vmovl_s8(vget_high_s8(z[i]))};
        for (int j = 0; j < 2; j++) {
            v[4 * i + 2 * j] = vmulq_f32(unit, vcvtq_f32_s32(vmovl_s16(vget_low_s16(h[j]))));
            v[4 * i + 2 * j + 1] = vmulq_f32(unit, vcvtq_f32_s32(vmovl_s16(vget_high_s16(h[j]))));
        }
    }
}

static inline void vf_mx_x(const float *x, int n, VF v[8])
{
    (void)n;
    for (int i = 0; i < 8; i++)
        v[i] = vf_load(x + 4 * i);
}

#include "cpu/kern_simd.h"

static void to_bf16(const float *x, int n, uint16_t *out)
{
    int i = 0;
    for (; i + VF_W <= n; i += VF_W)
        vst1_u16(out + i, vshrn_n_u32(vreinterpretq_u32_f32(vf_round_bf16(vf_load(x + i))), 16));
    for (; i < n; i++)
        out[i] = f32_bf16(x[i]);
}

void kern_neon_init(struct cpu_kern *k)
{
    simd_init(k);
    k->name = "neon";
    k->to_bf16 = to_bf16;
}
