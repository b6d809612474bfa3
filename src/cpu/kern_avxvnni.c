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

void kern_avxvnni_init(struct cpu_kern *k)
{
    q8_init(k);
    k->name = "avxvnni";
}
