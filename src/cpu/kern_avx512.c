/* AVX-512 (F, BW, VL, DQ, VBMI, VNNI, BF16): the vocabulary of kern_simd.h on 16 floats, the
 * products on vdpbf16ps, which multiplies 32 pairs of bf16 at once, and those on vpdpbusd.
 */
#include "cpu/kern.h"
#include "cpu/kern_mx_avx512.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VF __m512
#define VF_REG "v"
#define VF_W 16
#define MUL_NR 6
#define MUL_IN_NR 4
#define ATTN_NQ 8
/* A macro: gcc 12 takes a function that only prefetches for one without effect. */
#define vf_fetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#define vf_fetch_far vf_fetch
#define MX_GROUP 1
#define MX_NO_ONE 8

static inline __mmask16 first_n(int n)
{
    return (__mmask16)((1u << n) - 1);
}
static inline VF vf_zero(void)
{
    return _mm512_setzero_ps();
}
static inline VF vf_set1(float f)
{
    return _mm512_set1_ps(f);
}
static inline VF vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline VF vf_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(first_n(n), p);
}
static inline void vf_store(float *p, VF v)
{
    _mm512_storeu_ps(p, v);
}
static inline void vf_store_n(float *p, VF v, int n)
{
    _mm512_mask_storeu_ps(p, first_n(n), v);
}
static inline VF widen(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline VF vf_load_bf16(const void *p)
{
    return widen(_mm256_loadu_si256((const __m256i *)p));
}
static inline VF vf_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline VF vf_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline VF vf_fma(VF a, VF b, VF c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline VF vf_add(VF a, VF b)
{
    return _mm512_add_ps(a, b);
}
static inline VF vf_sub(VF a, VF b)
{
    return _mm512_sub_ps(a, b);
}
static inline VF vf_mul(VF a, VF b)
{
    return _mm512_mul_ps(a, b);
}
static inline VF vf_div(VF a, VF b)
{
    return _mm512_div_ps(a, b);
}
static inline VF vf_min(VF a, VF b)
{
    return _mm512_min_ps(a, b);
}
static inline VF vf_max(VF a, VF b)
{
    return _mm512_max_ps(a, b);
}
static inline float vf_sum(VF v)
{
    return _mm512_reduce_add_ps(v);
}
static inline float vf_hmax(VF v)
{
    return _mm512_reduce_max_ps(v);
}
static inline VF vf_round(VF v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline VF vf_ldexp(VF v, VF n)
{
    return _mm512_scalef_ps(v, n);
}
static inline void vf_load2(const float *p, VF *even, VF *odd)
{
    const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    VF a = vf_load(p), b = vf_load(p + 16);
    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}
static inline void vf_load2_bf16(const void *p, VF *even, VF *odd)
{
    __m512i u = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32((int)0xffff0000)));
}
static inline void vf_zip(VF *even, VF *odd)
{
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    VF lo = _mm512_permutex2var_ps(*even, first, *odd);
    *odd = _mm512_permutex2var_ps(*even, _mm512_add_epi32(first, _mm512_set1_epi32(8)), *odd);
    *even = lo;
}
static inline VF vf_round_bf16(VF v)
{
    return widen((__m256i)_mm512_cvtneps_pbh(v));
}

static inline void vf_mx_load(const uint8_t *p, const uint8_t *s, int n, VF v[2])
{
    (void)n;
    __m512i w = mx_bf16(p, kern_mx_bf16[*s]);
    v[0] = widen(_mm512_castsi512_si256(w));
    v[1] = widen(_mm512_extracti64x4_epi64(w, 1));
}
static inline void vf_mx_x(const float *x, int n, VF v[2])
{
    (void)n;
    v[0] = vf_load(x);
    v[1] = vf_load(x + 16);
}

#include "cpu/kern_simd.h"

/* ---- products on bf16 pairs ------------------------------------------------------------------ */

enum {
    DP_IN = 32,   /* inputs per instruction: also an MXFP4 block */
    DP_NR = 4,    /* rows of x per tile */
    DP_EXPAND = 8 /* from so many rows on, MXFP4 is decoded once into tmp */
};

INLINE __m512bh dp_load(const void *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

INLINE __m512bh dp_load_n(const void *p, int n)
{
    return (__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((1u << n) - 1), p);
}

/* Outputs [o, o + no) of rows [r, r + nr); w and scale are those of output o. The chain: lanes take
 * inputs 2l and 2l+1 of each 32, ascending, then vf_sum. Long rows defeat the hardware's
 * prefetcher when several run side by side, so a single row (which streams the weights from memory)
 * fetches the next tile while it computes this one. */
INLINE void dp_tile(bool mx, int no, int nr, const struct mul *m, const uint8_t *w,
                    const uint8_t *scale, int o, int r)
{
    __m512 acc[MUL_NO_ONE][DP_NR];
    const uint16_t *x[DP_NR];
    int n_in = m->n_in, n_block = n_in / DP_IN, b = 0;
    size_t ld = mx ? (size_t)n_block * MX_BYTES : (size_t)n_in * 2;
    const uint8_t *ahead = w + (size_t)no * ld;
    UNROLL for (int j = 0; j < nr; j++)
    {
        x[j] = (const uint16_t *)m->x + (size_t)(m->row ? m->row[r + j] : r + j) * m->ld_x;
        UNROLL for (int i = 0; i < no; i++) acc[i][j] = _mm512_setzero_ps();
    }
    for (; b < n_block; b++) {
        __m512bh xv[DP_NR];
        UNROLL for (int j = 0; j < nr; j++) xv[j] = dp_load(x[j] + b * DP_IN);
        if (nr == 1 && no > 1) {
            const int step = no * (mx ? MX_BYTES : 64);
            UNROLL for (int p = 0; p < step; p += 64)
                _mm_prefetch(ahead + b * step + p, _MM_HINT_T1);
        }
        UNROLL for (int i = 0; i < no; i++)
        {
            __m512bh wv = mx ? (__m512bh)mx_bf16(w + (size_t)i * ld + b * MX_BYTES,
                                                 kern_mx_bf16[scale[i * n_block + b]])
                             : dp_load(w + (size_t)i * ld + b * DP_IN * 2);
            UNROLL for (int j = 0; j < nr; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], wv, xv[j]);
        }
    }
    if (!mx && n_in % DP_IN) {
        UNROLL for (int i = 0; i < no; i++)
        {
            __m512bh wv = dp_load_n(w + (size_t)i * ld + b * DP_IN * 2, n_in % DP_IN);
            UNROLL for (int j = 0; j < nr; j++) acc[i][j] =
                _mm512_dpbf16_ps(acc[i][j], wv, dp_load_n(x[j] + b * DP_IN, n_in % DP_IN));
        }
    }
    UNROLL for (int i = 0; i < no; i++)
    {
        UNROLL for (int j = 0; j < nr; j++) mul_put(m, r + j, o + i, vf_sum(acc[i][j]));
    }
}

INLINE void dp_stripe(bool mx, int nr, const struct mul *m, const uint8_t *w, const uint8_t *scale,
                      int o0, int n, int r)
{
    int n_block = m->n_in / DP_IN, o = 0;
    size_t ld = mx ? (size_t)n_block * MX_BYTES : (size_t)m->n_in * 2;
    const int no = nr == 1 && mx ? MUL_NO_ONE : MUL_NO;
    for (; o + no <= n; o += no)
        dp_tile(mx, no, nr, m, w + (size_t)o * ld, scale + o * n_block, o0 + o, r);
    for (; o < n; o++)
        dp_tile(mx, 1, nr, m, w + (size_t)o * ld, scale + o * n_block, o0 + o, r);
}

INLINE void dp_block(bool mx, const struct mul *m, const uint8_t *w, const uint8_t *scale, int o0,
                     int n)
{
    int r = 0;
    for (; r + DP_NR <= m->n_row; r += DP_NR)
        dp_stripe(mx, DP_NR, m, w, scale, o0, n, r);
    for (; r + 2 <= m->n_row; r += 2)
        dp_stripe(mx, 2, m, w, scale, o0, n, r);
    if (r < m->n_row)
        dp_stripe(mx, 1, m, w, scale, o0, n, r);
}

static void mul_bf16(const struct mul *m)
{
    if (m->n_row == 1) {
        dp_stripe(false, 1, m, m->w, NULL, 0, m->n_out, 0);
        return;
    }
    for (int o = 0; o < m->n_out; o += MUL_TMP_OUT)
        dp_block(false, m, (const uint8_t *)m->w + (size_t)o * (size_t)m->n_in * 2, NULL, o,
                 min_int(MUL_TMP_OUT, m->n_out - o));
}

static void mul_mx_bf16(const struct mul *m)
{
    size_t n_block = (size_t)m->n_in / DP_IN;
    if (m->n_row == 1) {
        dp_stripe(true, 1, m, m->w, m->scale, 0, m->n_out, 0);
        return;
    }
    for (int o = 0; o < m->n_out; o += MUL_TMP_OUT) {
        int n = min_int(MUL_TMP_OUT, m->n_out - o);
        const uint8_t *w = (const uint8_t *)m->w + (size_t)o * n_block * MX_BYTES;
        const uint8_t *scale = m->scale + (size_t)o * n_block;
        if (m->n_row < DP_EXPAND) {
            dp_block(true, m, w, scale, o, n);
            continue;
        }
        uint16_t *tmp = m->tmp;
        for (size_t b = 0; b < (size_t)n * n_block; b++)
            _mm512_storeu_si512(tmp + b * DP_IN, mx_bf16(w + b * MX_BYTES, kern_mx_bf16[scale[b]]));
        dp_block(false, m, (const uint8_t *)tmp, NULL, o, n);
    }
}

static inline __m256i q8_dp(__m256i acc, __m256i u, __m256i s)
{
    return _mm256_dpbusd_epi32(acc, u, s);
}

#include "cpu/kern_q8_vnni.h"

/* As kern_simd.h's peak. */
enum { CHAINS = 12 };

static double peak_bf16(int n, float *out)
{
    VF s[CHAINS];
    __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f00);
    UNROLL for (int i = 0; i < CHAINS; i++) s[i] = vf_zero();
    for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
            s[i] = _mm512_dpbf16_ps(s[i], x, x);
            __asm__("" : "+v"(s[i]));
        }
    }
    UNROLL for (int i = 1; i < CHAINS; i++) s[0] = vf_add(s[0], s[i]);
    *out = vf_sum(s[0]);
    return 2.0 * CHAINS * 2 * VF_W * n;
}

static double peak_q8(int n, float *out)
{
    __m512i s[CHAINS], x = _mm512_set1_epi8(1);
    UNROLL for (int i = 0; i < CHAINS; i++) s[i] = _mm512_setzero_si512();
    for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
            s[i] = _mm512_dpbusd_epi32(s[i], x, x);
            __asm__("" : "+v"(s[i]));
        }
    }
    UNROLL for (int i = 1; i < CHAINS; i++) s[0] = _mm512_add_epi32(s[0], s[i]);
    *out = vf_sum(_mm512_cvtepi32_ps(s[0]));
    return 2.0 * CHAINS * 4 * VF_W * n;
}

static void to_bf16(const float *x, int n, uint16_t *out)
{
    int i = 0;
    for (; i + VF_W <= n; i += VF_W)
        _mm256_storeu_si256((__m256i *)(void *)(out + i),
                            (__m256i)_mm512_cvtneps_pbh(vf_load(x + i)));
    if (i < n)
        _mm256_mask_storeu_epi16(out + i, first_n(n - i),
                                 (__m256i)_mm512_cvtneps_pbh(vf_load_n(x + i, n - i)));
}

void kern_avx512_init(struct cpu_kern *k)
{
    simd_init(k);
    q8_init(k);
    k->name = "avx512";
    k->bf16_dot = true;
    k->mx_q16 = false;
    k->mul_bf16 = mul_bf16;
    k->mul_mx_bf16 = mul_mx_bf16;
    k->to_bf16 = to_bf16;
    k->peak_bf16 = peak_bf16;
    k->peak_q8 = peak_q8;
}
