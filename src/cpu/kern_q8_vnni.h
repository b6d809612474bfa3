/* The products on blocks of signed bytes with the instruction that adds four of them: for
 * kern_q8_x86.h, which follows. Included by kern_avxvnni.c and kern_avx512.c, which have defined
 *
 *   q8_dp(acc, u, s)      dpbusd: unsigned bytes times signed ones
 */
#ifndef CPU_KERN_Q8_VNNI_H
#define CPU_KERN_Q8_VNNI_H

#define Q8_DENSE_BIAS 128

static inline __m256i q8_repeat(const int8_t *x)
{
    int32_t v;
    memcpy(&v, x, sizeof v);
    return _mm256_set1_epi32(v);
}
static inline __m256i q8_dense(__m256i v)
{
    return _mm256_xor_si256(v, _mm256_set1_epi8(-128));
}
static inline __m256i q8_dot(__m256i acc, __m256i u, __m256i v, const int8_t *x)
{
    (void)v;
    return q8_dp(acc, u, q8_repeat(x));
}
static inline __m256i q8_dot_small(__m256i acc, const __m256i u[4], const int8_t *x)
{
    for (int g = 0; g < 4; g++)
        acc = q8_dp(acc, u[g], q8_repeat(x + 4 * g));
    return acc;
}
/* Four sums in each half of v; then two outputs share a vector, then four. */
static inline void q8_across(const __m256i lo[8], const __m256i hi[8], __m256i even, __m256i odd,
                             __m256i *s0, __m256i *s1)
{
    __m256i v[8];
    UNROLL for (int i = 0; i < 8; i++) v[i] =
        q8_dp(q8_dp(_mm256_setzero_si256(), lo[i], even), hi[i], odd);
    UNROLL for (int i = 0; i < 8; i += 2) v[i] = _mm256_add_epi32(
        _mm256_unpacklo_epi32(v[i], v[i + 1]), _mm256_unpackhi_epi32(v[i], v[i + 1]));
    UNROLL for (int i = 0; i < 8; i += 4) v[i] = _mm256_add_epi32(
        _mm256_unpacklo_epi64(v[i], v[i + 2]), _mm256_unpackhi_epi64(v[i], v[i + 2]));
    *s0 = _mm256_permute2x128_si256(v[0], v[4], 0x20);
    *s1 = _mm256_permute2x128_si256(v[0], v[4], 0x31);
}

#include "cpu/kern_q8_x86.h"

#endif
