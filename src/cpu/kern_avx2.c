/* AVX2 + FMA + F16C: the vocabulary of kern_simd.h on 8 floats, and to_bf16. */
#include "cpu/kern.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VF __m256
#define VF_REG "x"
#define VF_W 8
#define MUL_NR 3
#define MUL_IN_NR 2
#define ATTN_NQ 4
/* A macro: gcc 12 takes a function that only prefetches for one without effect. */
#define vf_fetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define vf_fetch_far(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#define MX_GROUP 2
#define MX_NO_ONE 4

static inline __m256i first_n(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline VF vf_zero(void)
{
    return _mm256_setzero_ps();
}
static inline VF vf_set1(float f)
{
    return _mm256_set1_ps(f);
}
static inline VF vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline VF vf_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, first_n(n));
}
static inline void vf_store(float *p, VF v)
{
    _mm256_storeu_ps(p, v);
}
static inline void vf_store_n(float *p, VF v, int n)
{
    _mm256_maskstore_ps(p, first_n(n), v);
}
static inline VF vf_load_bf16(const void *p)
{
    __m128i h = _mm_loadu_si128((const __m128i *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline VF vf_load_i8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline VF vf_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline VF vf_fma(VF a, VF b, VF c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline VF vf_add(VF a, VF b)
{
    return _mm256_add_ps(a, b);
}
static inline VF vf_sub(VF a, VF b)
{
    return _mm256_sub_ps(a, b);
}
static inline VF vf_mul(VF a, VF b)
{
    return _mm256_mul_ps(a, b);
}
static inline VF vf_div(VF a, VF b)
{
    return _mm256_div_ps(a, b);
}
static inline VF vf_min(VF a, VF b)
{
    return _mm256_min_ps(a, b);
}
static inline VF vf_max(VF a, VF b)
{
    return _mm256_max_ps(a, b);
}
static inline float vf_sum(VF v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_hmax(VF v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline VF vf_round(VF v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline VF vf_ldexp(VF v, VF n)
{
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23); /* a NaN's is 0 */
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), e));
}
static inline void vf_load2(const float *p, VF *even, VF *odd)
{
    __m256 a = vf_load(p), b = vf_load(p + 8);
    __m256 lo = _mm256_permute2f128_ps(a, b, 0x20), hi = _mm256_permute2f128_ps(a, b, 0x31);
    *even = _mm256_shuffle_ps(lo, hi, 0x88);
    *odd = _mm256_shuffle_ps(lo, hi, 0xdd);
}
static inline void vf_load2_bf16(const void *p, VF *even, VF *odd)
{
    __m256i u = _mm256_loadu_si256((const __m256i *)p);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(u, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(u, _mm256_set1_epi32((int)0xffff0000)));
}
static inline void vf_zip(VF *even, VF *odd)
{
    VF lo = _mm256_unpacklo_ps(*even, *odd), hi = _mm256_unpackhi_ps(*even, *odd);
    *even = _mm256_permute2f128_ps(lo, hi, 0x20);
    *odd = _mm256_permute2f128_ps(lo, hi, 0x31);
}
static inline VF vf_round_bf16(VF v)
{
    __m256i u = _mm256_castps_si256(v), top = _mm256_set1_epi32((int)0xffff0000);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_blendv_epi8(up, quiet, nan), top));
}
static inline __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
/* The codes of n = 1 or 2 blocks. */
static inline __m256i blocks(const uint8_t *p, int n)
{
    return n == 2 ? load(p)
                  : _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
}
/* Four floats of each of n = 1 or 2 blocks. */
static inline __m256i pair(const void *a, const void *b, int n)
{
    __m256i v = _mm256_zextsi128_si256(_mm_loadu_si128(a));
    return n == 2 ? _mm256_inserti128_si256(v, _mm_loadu_si128(b), 1) : v;
}
/* Two blocks, one in each half. A byte shuffle looks up the low and one the high byte of each value
 * as bf16, scale included (kern_mx_byte); pairs of them widen by a shift or a mask. So, in each
 * half, v[0] holds inputs 0 4 8 12, v[1] 2 6 10 14, v[4] 1 5 9 13, v[5] 3 7 11 15, the others the
 * same of the inputs from 16 on. */
static inline void vf_mx_load(const uint8_t *p, const uint8_t *s, int n, VF v[8])
{
    const __m256i nibble = _mm256_set1_epi8(15), top = _mm256_set1_epi32((int)0xffff0000);
    const uint8_t(*t0)[32] = kern_mx_byte[s[0]], (*t1)[32] = kern_mx_byte[n == 2 ? s[1] : 0];
    __m256i low = _mm256_blend_epi32(load(t0[0]), load(t1[0]), 0xf0);
    __m256i high = _mm256_blend_epi32(load(t0[1]), load(t1[1]), 0xf0), b = blocks(p, n);
    __m256i c[2] = {_mm256_and_si256(b, nibble), _mm256_and_si256(_mm256_srli_epi16(b, 4), nibble)};
    for (int i = 0; i < 2; i++) {
        __m256i l = _mm256_shuffle_epi8(low, c[i]), h = _mm256_shuffle_epi8(high, c[i]);
        __m256i w[2] = {_mm256_unpacklo_epi8(l, h), _mm256_unpackhi_epi8(l, h)};
        for (int j = 0; j < 2; j++) {
            v[4 * i + 2 * j] = _mm256_castsi256_ps(_mm256_slli_epi32(w[j], 16));
            v[4 * i + 2 * j + 1] = _mm256_castsi256_ps(_mm256_and_si256(w[j], top));
        }
    }
}
static inline void vf_mx_x(const float *x, int n, VF v[8])
{
    for (int j = 0; j < 2; j++, x += 16) {
        VF r[4], t[4];
        for (int i = 0; i < 4; i++)
            r[i] = _mm256_castsi256_ps(pair(x + 4 * i, x + 32 + 4 * i, n));
        t[0] = _mm256_unpacklo_ps(r[0], r[1]);
        t[1] = _mm256_unpackhi_ps(r[0], r[1]);
        t[2] = _mm256_unpacklo_ps(r[2], r[3]);
        t[3] = _mm256_unpackhi_ps(r[2], r[3]);
        v[2 * j] = _mm256_shuffle_ps(t[0], t[2], 0x44);
        v[2 * j + 4] = _mm256_shuffle_ps(t[0], t[2], 0xee);
        v[2 * j + 1] = _mm256_shuffle_ps(t[1], t[3], 0x44);
        v[2 * j + 5] = _mm256_shuffle_ps(t[1], t[3], 0xee);
    }
}

#include "cpu/kern_simd.h"

#define Q8_DENSE_BIAS 0

static inline __m256i q8_repeat(const int8_t *x)
{
    int32_t v;
    memcpy(&v, x, sizeof v);
    return _mm256_set1_epi32(v);
}
/* Signs go over to x: biased weights would overflow the sums of 16 bits. */
static inline __m256i q8_dense(__m256i v)
{
    return _mm256_abs_epi8(v);
}
static inline __m256i q8_dot(__m256i acc, __m256i u, __m256i v, const int8_t *x)
{
    /* at most 2 * 127 * 127: no saturation */
    __m256i two = _mm256_maddubs_epi16(u, _mm256_sign_epi8(q8_repeat(x), v));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
}
/* 16 bits hold eight products of at most 24 * 127. */
static inline __m256i q8_dot_small(__m256i acc, const __m256i u[4], const int8_t *x)
{
    __m256i s = _mm256_maddubs_epi16(u[0], q8_repeat(x));
    for (int g = 1; g < 4; g++)
        s = _mm256_add_epi16(s, _mm256_maddubs_epi16(u[g], q8_repeat(x + 4 * g)));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}
/* 16 bits hold four products, and eight; then two outputs share a vector, then four. */
static inline void q8_across(const __m256i lo[8], const __m256i hi[8], __m256i even, __m256i odd,
                             __m256i *s0, __m256i *s1)
{
    __m256i v[8];
    UNROLL for (int i = 0; i < 8; i++) v[i] =
        _mm256_add_epi16(_mm256_maddubs_epi16(lo[i], even), _mm256_maddubs_epi16(hi[i], odd));
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        __m256i s = _mm256_add_epi16(_mm256_unpacklo_epi64(v[i], v[i + 1]),
                                     _mm256_unpackhi_epi64(v[i], v[i + 1]));
        v[i] = _mm256_madd_epi16(s, _mm256_set1_epi16(1));
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        __m256 f = _mm256_castsi256_ps(v[i]), g = _mm256_castsi256_ps(v[i + 2]);
        v[i] = _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(f, g, 0x88)),
                                _mm256_castps_si256(_mm256_shuffle_ps(f, g, 0xdd)));
    }
    *s0 = _mm256_permute2x128_si256(v[0], v[4], 0x20);
    *s1 = _mm256_permute2x128_si256(v[0], v[4], 0x31);
}

#include "cpu/kern_q8_x86.h"

#include "cpu/kern_q16_avx2.h"

/* As kern_simd.h's peak: products of bytes, their sums in pairs, and those of the pairs. */
static double peak_q8(int n, float *out)
{
    enum { CHAINS = 12, BYTES = 32 };
    __m256i s[CHAINS], x = _mm256_set1_epi8(1), one = _mm256_set1_epi16(1);
    UNROLL for (int i = 0; i < CHAINS; i++) s[i] = _mm256_setzero_si256();
    for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
            __m256i y = x;
            __asm__("" : "+x"(y));
            s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_maddubs_epi16(y, x), one));
        }
    }
    UNROLL for (int i = 1; i < CHAINS; i++) s[0] = _mm256_add_epi32(s[0], s[i]);
    *out = (float)_mm256_extract_epi32(s[0], 0);
    return 2.0 * CHAINS * BYTES * n;
}

static void to_bf16(const float *x, int n, uint16_t *out)
{
    int i = 0;
    for (; i + VF_W <= n; i += VF_W) {
        __m256i u = _mm256_srli_epi32(_mm256_castps_si256(vf_round_bf16(vf_load(x + i))), 16);
        __m128i h = _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
        _mm_storeu_si128((__m128i *)(void *)(out + i), h);
    }
    for (; i < n; i++)
        out[i] = f32_bf16(x[i]);
}

void kern_avx2_init(struct cpu_kern *k)
{
    simd_init(k);
    q8_init(k);
    k->name = "avx2";
    k->to_bf16 = to_bf16;
    k->mx_q16 = true;
    k->mul_mx_q16 = mul_mx_q16;
    k->to_q16 = to_q16;
    k->peak_q8 = peak_q8;
}
