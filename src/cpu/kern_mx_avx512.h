/* MXFP4 to bf16 with AVX-512 VBMI, for the sets that multiply bf16: kern_avx512.c, kern_amx.c.
 *
 * Three instructions per block of 32: bytes to doublewords, a multishift that brings both nibbles
 * into index position, and a word permutation of the table that already contains the scale
 * (kern_mx_bf16). The permutation uses 5 index bits; the tables hold their 16 values twice, so
 * whatever the fifth bit is, no mask is needed.
 */
#ifndef CPU_KERN_MX_AVX512_H
#define CPU_KERN_MX_AVX512_H

#include "cpu/kern.h"

#include <immintrin.h>

/* 32 codes to the 32 bf16 values of the given table, in order. */
static inline __m512i mx_bf16(const uint8_t *p, const uint16_t table[32])
{
    __m512i d = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    d = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x0824082008040800), d);
    return _mm512_permutexvar_epi16(d, _mm512_load_si512(table));
}

#endif
