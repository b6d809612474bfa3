/* AVX-VNNI: the products on blocks of signed bytes with vpdpbusd in its 256-bit form, for
 * processors that have it without AVX-512. All else is AVX2's. */
#include "cpu/kern.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

static inline __m256i q8_dp(__m256i acc, __m256i u, __m256i s)
{
    return _mm256_dpbusd_avx_epi32(acc, u, s);
}

#include "cpu/kern_q8_vnni.h"

/* As kern_simd.h's peak. */
static double peak_q8(int n, float *out)
{
    enum { CHAINS = 12, BYTES = 32 };
    __m256i s[CHAINS], x = _mm256_set1_epi8(1);
    UNROLL for (int i = 0; i < CHAINS; i++) s[i] = _mm256_setzero_si256();
    for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
            s[i] = q8_dp(s[i], x, x);
            __asm__("" : "+x"(s[i]));
        }
    }
    UNROLL for (int i = 1; i < CHAINS; i++) s[0] = _mm256_add_epi32(s[0], s[i]);
    *out = (float)_mm256_extract_epi32(s[0], 0);
    return 2.0 * CHAINS * BYTES * n;
}

void kern_avxvnni_init(struct cpu_kern *k)
{
    q8_init(k);
    k->name = "avxvnni";
    k->peak_q8 = peak_q8;
}
