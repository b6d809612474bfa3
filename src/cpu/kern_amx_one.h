/* AMX: MXFP4 times a single row, for which a tile would be nearly empty, by float32 instead.
 * Included by kern_amx.c.
 *
 * Lanes are outputs. The additions are those of tdpbf16ps: within a step of 32 inputs the even and
 * the odd ones have chains of their own that begin at 0; then the two and the sum so far are added.
 * Denormals are taken for 0. MXFP4's scale, a power of two that a step's inputs share, multiplies
 * what the step adds: the same bits but where products leave the range of floats, so that scales
 * far from 1 are left to the tiles.
 */
#ifndef CPU_KERN_AMX_ONE_H
#define CPU_KERN_AMX_ONE_H

enum { ONE_LEAST = 64, ONE_MOST = 190 }; /* scale bytes */

/* 16 outputs' codes, c[g] those of inputs 8 g to 8 g + 7, times x [IN]. */
INLINE __m512 one_codes(const __m512i c[4], const float *x)
{
    const __m512 table =
        _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    UNROLL for (int p = 0; p < 16; p++)
    {
        __m512i lo = _mm512_srli_epi32(c[p / 4], p % 4 * 8);
        __m512i hi = _mm512_srli_epi32(c[p / 4], p % 4 * 8 + 4);
        even = _mm512_fmadd_ps(_mm512_permutexvar_ps(lo, table), _mm512_set1_ps(x[2 * p]), even);
        odd = _mm512_fmadd_ps(_mm512_permutexvar_ps(hi, table), _mm512_set1_ps(x[2 * p + 1]), odd);
    }
    return _mm512_add_ps(even, odd);
}

/* Bytes 4 g to 4 g + 3 of block k of 16 outputs to c[g]. */
INLINE void one_gather(const uint8_t *const w[SIDE], int k, __m512i c[4])
{
    __m512i q[4], t[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        q[i] =
            _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(w[i] + k * 16)));
        q[i] = _mm512_inserti32x4(
            q[i], _mm_loadu_si128((const __m128i *)(const void *)(w[4 + i] + k * 16)), 1);
        q[i] = _mm512_inserti32x4(
            q[i], _mm_loadu_si128((const __m128i *)(const void *)(w[8 + i] + k * 16)), 2);
        q[i] = _mm512_inserti32x4(
            q[i], _mm_loadu_si128((const __m128i *)(const void *)(w[12 + i] + k * 16)), 3);
    }
    t[0] = _mm512_unpacklo_epi32(q[0], q[1]);
    t[1] = _mm512_unpackhi_epi32(q[0], q[1]);
    t[2] = _mm512_unpacklo_epi32(q[2], q[3]);
    t[3] = _mm512_unpackhi_epi32(q[2], q[3]);
    c[0] = _mm512_unpacklo_epi64(t[0], t[2]);
    c[1] = _mm512_unpackhi_epi64(t[0], t[2]);
    c[2] = _mm512_unpacklo_epi64(t[1], t[3]);
    c[3] = _mm512_unpackhi_epi64(t[1], t[3]);
}

/* Outputs [o, o + n) of the row x [n_in]. */
INLINE void one_tile(const struct mul *m, int o, int n, const float *x)
{
    const size_t ld = (size_t)m->n_in / 2;
    const uint8_t *w[SIDE], *scale[SIDE], *ahead = (const uint8_t *)m->w + (size_t)(o + SIDE) * ld;
    const int ahead_bytes = SIDE * (IN / 2);
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < SIDE; i++) {
        size_t at = (size_t)(o + min_int(i, n - 1));
        w[i] = (const uint8_t *)m->w + at * ld;
        scale[i] = m->scale + at * (size_t)(m->n_in / IN);
    }
    for (int k = 0; k < m->n_in / IN; k++, x += IN, ahead += ahead_bytes) {
        __m512i c[4];
        uint8_t s[SIDE];
        for (int i = 0; i < ahead_bytes; i += 64)
            _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
        one_gather(w, k, c);
        UNROLL for (int i = 0; i < SIDE; i++) s[i] = scale[i][k];
        __m512i e = _mm512_slli_epi32(
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)s)), 23);
        sum = _mm512_fmadd_ps(one_codes(c, x), _mm512_castsi512_ps(e), sum);
    }
    float y[SIDE];
    _mm512_storeu_ps(y, sum);
    for (int i = 0; i < n; i++) {
        float *to = m->y + o + i, v = m->bias ? y[i] + m->bias[o + i] : y[i];
        *to = m->add ? *to + v : v;
    }
}

static void one_row(const struct mul *m)
{
    const uint16_t *from = (const uint16_t *)m->x + (size_t)(m->row ? m->row[0] : 0) * m->ld_x;
    float *x = m->tmp;
    for (int i = 0; i < m->n_in; i++)
        x[i] = bf16_f32(from[i]);
    const unsigned csr = _mm_getcsr();
    _mm_setcsr(csr | 0x8040); /* denormals, read and made, are 0 */
    for (int o = 0; o < m->n_out; o += SIDE)
        one_tile(m, o, min_int(SIDE, m->n_out - o), x);
    _mm_setcsr(csr);
}

/* Are all scales near enough to 1? */
static bool one_scales(const struct mul *m)
{
    size_t n = (size_t)m->n_out * (size_t)(m->n_in / IN);
    uint8_t least = 255, most = 0;
    for (size_t i = 0; i < n; i++) {
        least = m->scale[i] < least ? m->scale[i] : least;
        most = m->scale[i] > most ? m->scale[i] : most;
    }
    return least >= ONE_LEAST && most <= ONE_MOST;
}

#endif
