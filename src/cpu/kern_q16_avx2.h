/* The products of MXFP4 with rows in whole numbers of 16 bits (kern.h, mul_mx_q16) for AVX2: after
 * kern_q8_x86.h, whose layout of tiles, scales and codes they share.
 *
 * A row's number is 256 times one signed byte plus another, so each vector of weights meets two of
 * x. Sums of 16 bits hold eight products of bytes up to 128 with codes up to 24.
 */
enum {
    Q16_NR = 2,   /* rows of a tile */
    Q16_FEW = 4,  /* rows up to which each tile decodes for itself */
    Q16_ROWS = 48 /* rows that stay in L2 */
};

/* Outputs [o, o + n) of rows [r, r + nr): Q8_CODES, or Q8_UNPACKED to p, as for q8_tile. */
INLINE void q16_tile(enum q8_form form, int nr, const struct mul_q8 *m, const uint8_t *p,
                     const float *ws, int o, int n, int r)
{
    int n_block = m->n_in / Q8_IN;
    const uint8_t *code[Q8_OUT], *next = NULL;
    const int8_t *x[Q16_NR];
    const float *d[Q16_NR];
    const int32_t *sum[Q16_NR];
    __m256 acc[Q16_NR];
    if (form == Q8_CODES) {
        next = q8_code_row(m, o + Q8_OUT, 1, 0);
        UNROLL for (int i = 0; i < Q8_OUT; i++) code[i] = q8_code_row(m, o, n, i);
    }
    UNROLL for (int j = 0; j < nr; j++)
    {
        size_t i = q8_row(m, r + j);
        x[j] = m->x.q + i * 2 * m->x.ld;
        d[j] = m->x.d + i * (m->x.ld / Q8_IN);
        sum[j] = m->x.sum + i * (m->x.ld / Q8_IN);
        acc[j] = _mm256_setzero_ps();
    }
    for (int b = 0; b < n_block; b++) {
        __m256i high[Q16_NR], low[Q16_NR], raw[4];
        if (form == Q8_CODES) {
            q8_fetch(next, b);
            q8_gather(code, b, raw);
        }
        UNROLL for (int j = 0; j < nr; j++)
        {
            high[j] = _mm256_setzero_si256();
            low[j] = q8_start(Q8_BIAS, sum[j][b]);
        }
        UNROLL for (int h = 0; h < 2; h++)
        {
            __m256i u[4];
            UNROLL for (int g = 0; g < 4; g++) u[g] =
                form == Q8_CODES ? q8_codes(h == 0 ? raw[g] : _mm256_srli_epi16(raw[g], 4))
                                 : load(p + 32 * g);
            UNROLL for (int j = 0; j < nr; j++)
            {
                const int8_t *at = x[j] + 2 * b * Q8_IN + 16 * h;
                high[j] = q8_dot_small(high[j], u, at);
                low[j] = q8_dot_small(low[j], u, at + Q8_IN);
            }
            if (form == Q8_UNPACKED)
                p += Q8_TILE / 2;
        }
        __m256 scale = _mm256_loadu_ps(ws + b * Q8_OUT);
        UNROLL for (int j = 0; j < nr; j++)
        {
            __m256i s = _mm256_add_epi32(_mm256_slli_epi32(high[j], 8), low[j]);
            acc[j] = q8_add(acc[j], s, scale, d[j][b]);
        }
    }
    UNROLL for (int j = 0; j < nr; j++) q8_put(m, r + j, o, n, acc[j]);
}

/* The only row's blocks in pairs: high bytes of even inputs, of odd ones, low bytes of both, each
 * [32] of two blocks; zero for a block that is not there. */
static void q16_pairs(const int8_t *x, int n_block, int8_t *to)
{
    for (int b = 0; b < n_block; b += 2)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 2; j++, to += 16) {
                if (b + j < n_block)
                    memcpy(to, x + (b + j) * 2 * Q8_IN + 16 * i, 16);
                else
                    memset(to, 0, 16);
            }
}

/* Blocks [b, b + nb) of 8 outputs and the only row, x being these blocks' pair; nb is 1 or 2. */
INLINE __m256 q16_step(int nb, const uint8_t *const p[Q8_OUT], int b, const int8_t *x,
                       const float *d, const int32_t *sum, const float *ws, __m256 acc)
{
    __m256i v[Q8_OUT];
    UNROLL for (int i = 0; i < Q8_OUT; i++)
    {
        __m256i c = q8_blocks(p[i] + 16 * b, nb);
        __m256i even = q8_codes(c), odd = q8_codes(_mm256_srli_epi16(c, 4));
        __m256i high = _mm256_add_epi16(_mm256_maddubs_epi16(even, load(x)),
                                        _mm256_maddubs_epi16(odd, load(x + 32)));
        __m256i low = _mm256_add_epi16(_mm256_maddubs_epi16(even, load(x + 64)),
                                       _mm256_maddubs_epi16(odd, load(x + 96)));
        v[i] = _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(256)),
                                _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
    }
    UNROLL for (int i = 0; i < 8; i += 2) v[i] = _mm256_add_epi32(
        _mm256_unpacklo_epi32(v[i], v[i + 1]), _mm256_unpackhi_epi32(v[i], v[i + 1]));
    UNROLL for (int i = 0; i < 8; i += 4) v[i] = _mm256_add_epi32(
        _mm256_unpacklo_epi64(v[i], v[i + 2]), _mm256_unpackhi_epi64(v[i], v[i + 2]));
    __m256i s = _mm256_permute2x128_si256(v[0], v[4], 0x20);
    s = _mm256_add_epi32(s, q8_start(Q8_BIAS, sum[b]));
    acc = q8_add(acc, s, _mm256_loadu_ps(ws + b * Q8_OUT), d[b]);
    if (nb == 2) {
        s = _mm256_permute2x128_si256(v[0], v[4], 0x31);
        s = _mm256_add_epi32(s, q8_start(Q8_BIAS, sum[b + 1]));
        acc = q8_add(acc, s, _mm256_loadu_ps(ws + (b + 1) * Q8_OUT), d[b + 1]);
    }
    return acc;
}

static void q16_one(const struct mul_q8 *m, int o, int n, const float *ws, const int8_t *x)
{
    int n_block = m->n_in / Q8_IN, b = 0;
    size_t at = q8_row(m, 0) * (m->x.ld / Q8_IN);
    const float *d = m->x.d + at;
    const int32_t *sum = m->x.sum + at;
    const uint8_t *p[Q8_OUT], *next = q8_code_row(m, o + Q8_OUT, 1, 0);
    __m256 acc = _mm256_setzero_ps();
    for (int j = 0; j < Q8_OUT; j++)
        p[j] = q8_code_row(m, o, n, j);
    for (; b + 2 <= n_block; b += 2, x += 4 * Q8_IN) {
        q8_fetch(next, b);
        q8_fetch(next, b + 1);
        acc = q16_step(2, p, b, x, d, sum, ws, acc);
    }
    if (b < n_block)
        acc = q16_step(1, p, b, x, d, sum, ws, acc);
    q8_put(m, 0, o, n, acc);
}

/* Rows [r, end) meet a tile. */
INLINE void q16_rows_meet(enum q8_form form, const struct mul_q8 *m, const uint8_t *p,
                          const float *ws, int o, int n, int r, int end)
{
    for (; r + Q16_NR <= end; r += Q16_NR)
        q16_tile(form, Q16_NR, m, p, ws, o, n, r);
    if (r < end)
        q16_tile(form, 1, m, p, ws, o, n, r);
}

static void mul_mx_q16(const struct mul_q8 *m)
{
    int n_block = m->n_in / Q8_IN;
    float *ws = m->tmp;
    uint8_t *codes = (uint8_t *)(ws + (size_t)n_block * Q8_OUT);
    if (m->n_row == 1) {
        int8_t *x = (int8_t *)codes;
        q16_pairs(m->x.q + q8_row(m, 0) * 2 * m->x.ld, n_block, x);
        for (int o = 0, n; o < m->n_out; o += Q8_OUT) {
            n = min_int(Q8_OUT, m->n_out - o);
            q8_scales(m, o, n, ws);
            q16_one(m, o, n, ws, x);
        }
        return;
    }
    for (int r0 = 0; r0 < m->n_row; r0 += Q16_ROWS) {
        int end = min_int(r0 + Q16_ROWS, m->n_row);
        for (int o = 0; o < m->n_out; o += Q8_OUT) {
            int n = min_int(Q8_OUT, m->n_out - o);
            q8_scales(m, o, n, ws);
            if (m->n_row <= Q16_FEW) {
                q16_rows_meet(Q8_CODES, m, NULL, ws, o, n, r0, end);
            } else {
                q8_unpack(m, o, n, codes);
                q16_rows_meet(Q8_UNPACKED, m, codes, ws, o, n, r0, end);
            }
        }
    }
}

static void to_q16(const float *x, int n, int8_t *q, float *d, int32_t *sum)
{
    for (int b = 0; b < n / Q8_IN; b++, x += Q8_IN, q += 2 * Q8_IN) {
        __m256 v[4];
        __m256i high[4], low[4], s = _mm256_setzero_si256();
        UNROLL for (int i = 0; i < 4; i++) v[i] = vf_round_bf16(_mm256_loadu_ps(x + 8 * i));
        float top = q8_top(v);
        bool some = top >= 1e-30f && top <= 3.4e38f;
        uint32_t unit = (f32_bits(top) >> 23) - 13;
        d[b] = some ? bits_f32(unit << 23) : isfinite(top) && top < 1 ? 0 : NAN;
        sum[b] = 0;
        if (!some) {
            memset(q, 0, 2 * Q8_IN);
            continue;
        }
        UNROLL for (int i = 0; i < 4; i++)
        {
            __m256 inv = _mm256_set1_ps(bits_f32((254 - unit) << 23));
            __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inv));
            high[i] = _mm256_srai_epi32(_mm256_add_epi32(c, _mm256_set1_epi32(128)), 8);
            low[i] = _mm256_sub_epi32(c, _mm256_slli_epi32(high[i], 8));
            s = _mm256_add_epi32(s, c);
        }
        __m128i u = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
        u = _mm_add_epi32(u, _mm_srli_si128(u, 8));
        sum[b] = _mm_cvtsi128_si32(_mm_add_epi32(u, _mm_srli_si128(u, 4)));
        _mm256_storeu_si256((__m256i *)(void *)q, q8_bytes(high));
        _mm256_storeu_si256((__m256i *)(void *)(q + Q8_IN), q8_bytes(low));
    }
}
