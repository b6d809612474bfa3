/* The products on blocks of signed bytes for x86, on vectors of 256 bits.
 *
 * Included once by kern_<set>.c, which has defined before, on eight sums of 32 bits:
 *
 *   Q8_DENSE_BIAS          what the unsigned form of a dense weight has added to it, or 0
 *   q8_dense(v)            dense weights in their unsigned form
 *   q8_dot(acc, u, v, x)   adds, per sum, four products of the dense weights v, in unsigned form u,
 *                          and four signed bytes (at least -127) at x, the same for all sums
 *   q8_dot_small(acc, u, x)  adds the products of four vectors u of unsigned bytes up to 24, each
 *                          with the four signed bytes of x [16] that are next
 *   q8_across(lo, hi, even, odd, &s0, &s1)  outputs' codes lo[8] and hi[8], unsigned bytes up to
 *                          24: s0 gets each output's sum of products with even and odd over the
 *                          first half of the vectors, s1 over the second
 *
 * Unsigned codes are the values plus a bias (MXFP4: 12 plus twice the value); sums then start at
 * minus the bias times the sum of x. A tile is 8 outputs, one per lane, times some rows; few rows
 * decode MXFP4 as they need it, many unpack it once for all. A single row of MXFP4 is read as it
 * lies instead, two blocks at once, and the lanes are added across.
 * Integers are exact, so all ways give the same sums.
 */
#include "cpu/kern.h"

#include "base/num.h"

enum {
    Q8_NR = 4,    /* rows per tile */
    Q8_FEW = 8,   /* rows up to which each tile decodes MXFP4 for itself */
    Q8_ROWS = 96, /* rows that meet all outputs before the next ones: they stay in L2 */
    Q8_BIAS = 12,
    Q8_TILE = Q8_IN * Q8_OUT, /* bytes of a block of a tile */
    Q8_AHEAD = 4096           /* bytes that a single row fetches ahead of dense weights */
};

/* Nibbles to twice their values + 12. */
static inline __m256i q8_codes(__m256i nibbles)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, _mm256_set1_epi8(15)));
}

static inline __m256 q8_add(__m256 acc, __m256i sum, __m256 w_scale, float d)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(w_scale, _mm256_set1_ps(d)), acc);
}

static inline __m256 q8_bf16(const uint16_t *p)
{
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* The codes of n = 1 or 2 blocks. */
static inline __m256i q8_blocks(const uint8_t *p, int n)
{
    return n == 2 ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                  : _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* What sums of unsigned codes start at. */
static inline __m256i q8_start(int bias, int32_t sum)
{
    return _mm256_set1_epi32(-bias * sum);
}

static inline size_t q8_row(const struct mul_q8 *m, int r)
{
    return (size_t)(m->row ? m->row[r] : r);
}

/* The first n of 8 outputs from o on. */
static inline void q8_put(const struct mul_q8 *m, int r, int o, int n, __m256 acc)
{
    float v[Q8_OUT], *y = m->y + (size_t)r * m->ld_y + o;
    _mm256_storeu_ps(v, acc);
    for (int i = 0; i < n; i++) {
        float sum = m->bias ? v[i] + m->bias[o + i] : v[i];
        y[i] = m->add ? y[i] + sum : sum;
    }
}

/* Codes of output o + i (the last of n for those beyond). */
static inline const uint8_t *q8_code_row(const struct mul_q8 *m, int o, int n, int i)
{
    size_t ld = (size_t)m->n_in / 2;
    return (const uint8_t *)m->w + (size_t)(o + min_int(i, n - 1)) * ld;
}

/* Bytes 4 g to 4 g + 3 of a block of 8 outputs to v[g], output by output: eight nibbles each. */
INLINE void q8_gather(const uint8_t *const p[Q8_OUT], int b, __m256i v[4])
{
    __m256i t[4];
    UNROLL for (int i = 0; i < 4; i++) v[i] = _mm256_inserti128_si256(
        q8_blocks(p[i] + 16 * b, 1),
        _mm_loadu_si128((const __m128i *)(const void *)(p[i + 4] + 16 * b)), 1);
    UNROLL for (int i = 0; i < 4; i += 2)
    {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        v[2 * i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[2 * i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    }
}

/* The next 8 outputs' codes, of which block b's time fetches its share: rows of 1,440 bytes side by
 * side defeat the hardware's own prefetcher. */
INLINE void q8_fetch(const uint8_t *next, int b)
{
    UNROLL for (int j = 0; j < Q8_TILE / 2; j += 64)
        _mm_prefetch((const char *)next + b * (Q8_TILE / 2) + j, _MM_HINT_T0);
}

/* What a tile's weights are: struct q8_block; MXFP4's codes as they lie; the same by q8_unpack. */
enum q8_form { Q8_DENSE, Q8_CODES, Q8_UNPACKED };

/* Outputs [o, o + n) of rows [r, r + nr). w: the matrix's struct q8_block, or what q8_unpack made;
 * MXFP4: ws [n_block, Q8_OUT] their scales. */
INLINE void q8_tile(enum q8_form form, int nr, const struct mul_q8 *m, const void *w,
                    const float *ws, int o, int n, int r)
{
    int n_block = m->n_in / Q8_IN;
    const uint8_t *p = w, *code[Q8_OUT], *next = NULL;
    const int8_t *x[Q8_NR];
    const float *d[Q8_NR];
    const int32_t *sum[Q8_NR];
    __m256 acc[Q8_NR];
    if (form == Q8_CODES) {
        next = q8_code_row(m, o + Q8_OUT, 1, 0);
        UNROLL for (int i = 0; i < Q8_OUT; i++) code[i] = q8_code_row(m, o, n, i);
    }
    UNROLL for (int j = 0; j < nr; j++)
    {
        size_t i = q8_row(m, r + j);
        x[j] = m->x.q + i * m->x.ld;
        d[j] = m->x.d + i * (m->x.ld / Q8_IN);
        sum[j] = m->x.sum + i * (m->x.ld / Q8_IN);
        acc[j] = _mm256_setzero_ps();
    }
    for (int b = 0; b < n_block; b++) {
        __m256i s[Q8_NR], raw[4];
        __m256 scale;
        if (form == Q8_DENSE) {
            scale = q8_bf16((const uint16_t *)(const void *)p);
            p += offsetof(struct q8_block, q);
            UNROLL for (int j = 0; j < nr; j++) s[j] = q8_start(Q8_DENSE_BIAS, sum[j][b]);
            UNROLL for (int g = 0; g < Q8_IN / 4; g++, p += 32)
            {
                __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
                __m256i u = q8_dense(v);
                if (g % 2 == 0)
                    _mm_prefetch((const char *)p + Q8_AHEAD, _MM_HINT_T0);
                UNROLL for (int j = 0; j < nr; j++) s[j] =
                    q8_dot(s[j], u, v, x[j] + b * Q8_IN + 4 * g);
            }
        } else {
            if (form == Q8_CODES) {
                q8_fetch(next, b);
                q8_gather(code, b, raw);
            }
            scale = _mm256_loadu_ps(ws + b * Q8_OUT);
            UNROLL for (int j = 0; j < nr; j++) s[j] = q8_start(Q8_BIAS, sum[j][b]);
            UNROLL for (int h = 0; h < 2; h++, p += Q8_TILE / 2)
            {
                __m256i u[4];
                UNROLL for (int g = 0; g < 4; g++) u[g] =
                    form == Q8_CODES
                        ? q8_codes(h == 0 ? raw[g] : _mm256_srli_epi16(raw[g], 4))
                        : _mm256_loadu_si256((const __m256i *)(const void *)(p + 32 * g));
                UNROLL for (int j = 0; j < nr; j++) s[j] =
                    q8_dot_small(s[j], u, x[j] + b * Q8_IN + 16 * h);
            }
        }
        UNROLL for (int j = 0; j < nr; j++) acc[j] = q8_add(acc[j], s[j], scale, d[j][b]);
    }
    UNROLL for (int j = 0; j < nr; j++) q8_put(m, r + j, o, n, acc[j]);
}

/* Rows [r, end) meet a tile: four at once, but five as three and two. */
INLINE void q8_rows_meet(enum q8_form form, const struct mul_q8 *m, const void *w, const float *ws,
                         int o, int n, int r, int end)
{
    for (; end - r == 4 || end - r > 6; r += 4)
        q8_tile(form, 4, m, w, ws, o, n, r);
    if (end - r == 3 || end - r > 4) {
        q8_tile(form, 3, m, w, ws, o, n, r);
        r += 3;
    }
    if (end - r == 3)
        q8_tile(form, 3, m, w, ws, o, n, r);
    else if (end - r == 2)
        q8_tile(form, 2, m, w, ws, o, n, r);
    else if (end - r == 1 && form != Q8_CODES)
        q8_tile(form, 1, m, w, ws, o, n, r);
}

static void mul_q8(const struct mul_q8 *m)
{
    const struct q8_block *w = m->w;
    for (int r = 0; r < m->n_row; r += Q8_ROWS)
        for (int o = 0; o < m->n_out; o += Q8_OUT)
            q8_rows_meet(Q8_DENSE, m, w + (size_t)o / Q8_OUT * (size_t)(m->n_in / Q8_IN), NULL, o,
                         Q8_OUT, r, min_int(r + Q8_ROWS, m->n_row));
}

/* Eight consecutive scale bytes of each of eight outputs as floats, half because the codes are
 * twice the values: ws [8, Q8_OUT]. False, and nothing is written, if any is not an ordinary
 * number. */
static inline bool q8_scales8(const uint8_t *const s[Q8_OUT], int b, float *ws)
{
    __m128i v[8], t[8];
    UNROLL for (int i = 0; i < 8; i++) v[i] =
        _mm_loadl_epi64((const __m128i *)(const void *)(s[i] + b));
    UNROLL for (int i = 0; i < 4; i++) t[i] = _mm_unpacklo_epi8(v[i], v[i + 4]);
    UNROLL for (int i = 0; i < 2; i++)
    {
        v[2 * i] = _mm_unpacklo_epi8(t[i], t[i + 2]);
        v[2 * i + 1] = _mm_unpackhi_epi8(t[i], t[i + 2]);
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        t[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 2]); /* [scale 4 i, 4 i + 1][output] */
        t[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 2]);
    }
    const __m128i least = _mm_set1_epi8(2), most = _mm_set1_epi8((char)254);
    __m128i odd = _mm_setzero_si128();
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m128i in = _mm_max_epu8(least, _mm_min_epu8(t[i], most));
        odd = _mm_or_si128(odd, _mm_xor_si128(in, t[i]));
    }
    if (!_mm_testz_si128(odd, odd))
        return false;
    UNROLL for (int i = 0; i < 8; i++)
    {
        __m128i of = i % 2 ? _mm_srli_si128(t[i / 2], 8) : t[i / 2];
        __m256i e = _mm256_sub_epi32(_mm256_cvtepu8_epi32(of), _mm256_set1_epi32(1));
        _mm256_storeu_ps(ws + i * Q8_OUT, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
    }
    return true;
}

/* The scales of outputs [o, o + n): ws [n_block, Q8_OUT]; those beyond n repeat the last. */
static void q8_scales(const struct mul_q8 *m, int o, int n, float *ws)
{
    int n_block = m->n_in / Q8_IN, b = 0;
    const uint8_t *s[Q8_OUT];
    for (int i = 0; i < Q8_OUT; i++)
        s[i] = m->scale + (size_t)(o + min_int(i, n - 1)) * (size_t)n_block;
    while (b < n_block) {
        if (b + 8 <= n_block && q8_scales8(s, b, ws + b * Q8_OUT)) {
            b += 8;
            continue;
        }
        for (int end = min_int(b + 8, n_block); b < end; b++)
            for (int i = 0; i < Q8_OUT; i++)
                ws[b * Q8_OUT + i] = kern_e8m0[s[i][b]] * 0.5f;
    }
}

/* 8 x 8 numbers of 32 bits. */
INLINE void q8_transpose(__m256i v[8])
{
    __m256i t[8];
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m256i lo = _mm256_permute2x128_si256(v[i], v[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x31);
        v[i] = lo;
    }
}

/* The codes of the same outputs: to [n_block][four inputs][output][4]. */
static void q8_unpack(const struct mul_q8 *m, int o, int n, uint8_t *to)
{
    const uint8_t *p[Q8_OUT], *next = q8_code_row(m, o + Q8_OUT, 1, 0);
    for (int i = 0; i < Q8_OUT; i++)
        p[i] = q8_code_row(m, o, n, i);
    for (int b = 0; b < m->n_in / Q8_IN; b++, to += Q8_TILE) {
        __m256i v[4];
        q8_fetch(next, b);
        q8_gather(p, b, v);
        UNROLL for (int g = 0; g < 4; g++)
        {
            _mm256_storeu_si256((__m256i *)(void *)(to + 32 * g), q8_codes(v[g]));
            _mm256_storeu_si256((__m256i *)(void *)(to + Q8_TILE / 2 + 32 * g),
                                q8_codes(_mm256_srli_epi16(v[g], 4)));
        }
    }
}

/* Blocks [b, b + nb) of 8 outputs and the only row; nb is 1 or 2. */
INLINE __m256 q8_mx_step(int nb, const uint8_t *const p[Q8_OUT], int b, const int8_t *x,
                         const float *d, const int32_t *sum, const float *ws, __m256 acc)
{
    __m256i even, odd;
    __m256i x0 = _mm256_loadu_si256((const __m256i *)(const void *)(x + b * Q8_IN));
    if (nb == 2) {
        __m256i x1 = _mm256_loadu_si256((const __m256i *)(const void *)(x + (b + 1) * Q8_IN));
        even = _mm256_permute2x128_si256(x0, x1, 0x20);
        odd = _mm256_permute2x128_si256(x0, x1, 0x31);
    } else {
        even = _mm256_zextsi128_si256(_mm256_castsi256_si128(x0));
        odd = _mm256_zextsi128_si256(_mm256_extracti128_si256(x0, 1));
    }
    __m256i lo[Q8_OUT], hi[Q8_OUT], s0, s1;
    UNROLL for (int i = 0; i < Q8_OUT; i++)
    {
        __m256i c = q8_blocks(p[i] + 16 * b, nb);
        lo[i] = q8_codes(c);
        hi[i] = q8_codes(_mm256_srli_epi16(c, 4));
    }
    q8_across(lo, hi, even, odd, &s0, &s1);
    s0 = _mm256_add_epi32(s0, q8_start(Q8_BIAS, sum[b]));
    acc = q8_add(acc, s0, _mm256_loadu_ps(ws + b * Q8_OUT), d[b]);
    if (nb == 2) {
        s1 = _mm256_add_epi32(s1, q8_start(Q8_BIAS, sum[b + 1]));
        acc = q8_add(acc, s1, _mm256_loadu_ps(ws + (b + 1) * Q8_OUT), d[b + 1]);
    }
    return acc;
}

static void q8_mx_one(const struct mul_q8 *m, int o, int n, const float *ws)
{
    int n_block = m->n_in / Q8_IN, b = 0;
    size_t i = q8_row(m, 0), at = i * (m->x.ld / Q8_IN);
    const int8_t *x = m->x.q + i * m->x.ld;
    const uint8_t *p[Q8_OUT], *next = q8_code_row(m, o + Q8_OUT, 1, 0);
    __m256 acc = _mm256_setzero_ps();
    for (int j = 0; j < Q8_OUT; j++)
        p[j] = q8_code_row(m, o, n, j);
    for (; b + 2 <= n_block; b += 2) {
        q8_fetch(next, b);
        q8_fetch(next, b + 1);
        acc = q8_mx_step(2, p, b, x, m->x.d + at, m->x.sum + at, ws, acc);
    }
    if (b < n_block)
        acc = q8_mx_step(1, p, b, x, m->x.d + at, m->x.sum + at, ws, acc);
    q8_put(m, 0, o, n, acc);
}

static void mul_mx_q8(const struct mul_q8 *m)
{
    float *ws = m->tmp;
    uint8_t *codes = (uint8_t *)(ws + (size_t)(m->n_in / Q8_IN) * Q8_OUT);
    for (int r = 0; r < m->n_row; r += Q8_ROWS) {
        int end = min_int(r + Q8_ROWS, m->n_row);
        for (int o = 0; o < m->n_out; o += Q8_OUT) {
            int n = min_int(Q8_OUT, m->n_out - o);
            q8_scales(m, o, n, ws);
            if (m->n_row == 1) {
                q8_mx_one(m, o, n, ws);
            } else if (m->n_row <= Q8_FEW) {
                q8_rows_meet(Q8_CODES, m, NULL, ws, o, n, r, end);
            } else {
                q8_unpack(m, o, n, codes);
                q8_rows_meet(Q8_UNPACKED, m, codes, ws, o, n, r, end);
            }
        }
    }
}

/* The largest magnitude of a block by its bits: NaN and Inf are the largest of all. */
static inline float q8_top(const __m256 v[4])
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i t = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 4; i++) t =
        _mm256_max_epu32(t, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
    __m128i h = _mm_max_epu32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    h = _mm_max_epu32(h, _mm_srli_si128(h, 8));
    h = _mm_max_epu32(h, _mm_srli_si128(h, 4));
    return bits_f32((uint32_t)_mm_cvtsi128_si32(h));
}

/* 32 whole numbers to bytes in the order of struct q8_rows. */
static inline __m256i q8_bytes(const __m256i c[4])
{
    const __m256i natural = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i apart = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    __m256i p = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
    p = _mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(p, natural), apart);
    return _mm256_permute4x64_epi64(p, 0xd8);
}

INLINE void q8_pack_any(enum dtype t, const uint8_t *p, int n_in, struct q8_block *w)
{
    const size_t size = t == DT_F32 ? 4 : 2;
    for (int b = 0; b < n_in / Q8_IN; b++, w++) {
        __m256i q[Q8_OUT];
        for (int o = 0; o < Q8_OUT; o++) {
            const uint8_t *at = p + ((size_t)o * (size_t)n_in + (size_t)b * Q8_IN) * size;
            __m256 v[4];
            UNROLL for (int i = 0; i < 4; i++, at += 8 * size)
            {
                v[i] = t == DT_F32 ? _mm256_loadu_ps((const float *)(const void *)at)
                       : t == DT_BF16
                           ? q8_bf16((const uint16_t *)(const void *)at)
                           : _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at));
            }
            w->d[o] = f32_bf16(q8_top(v) / 127.0f);
            float d = bf16_f32(w->d[o]), inv = d > 1e-30f && isfinite(d) ? 1 / d : 0;
            __m256i c[4];
            UNROLL for (int i = 0; i < 4; i++) c[i] =
                _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inv)));
            q[o] = inv > 0 ? _mm256_max_epi8(q8_bytes(c), _mm256_set1_epi8(-127))
                           : _mm256_setzero_si256();
        }
        q8_transpose(q);
        UNROLL for (int i = 0; i < 8; i++) _mm256_storeu_si256((__m256i *)(void *)w->q[i], q[i]);
    }
}

static void q8_pack(enum dtype t, const void *p, int n_in, struct q8_block *w)
{
    if (t == DT_F32)
        q8_pack_any(DT_F32, p, n_in, w);
    else if (t == DT_F16)
        q8_pack_any(DT_F16, p, n_in, w);
    else
        q8_pack_any(DT_BF16, p, n_in, w);
}

static void to_q8(const float *x, int n, int8_t *q, float *d, int32_t *sum)
{
    for (int b = 0; b < n / Q8_IN; b++, x += Q8_IN, q += Q8_IN) {
        __m256 v[4];
        __m256i c[4];
        UNROLL for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(x + 8 * i);
        float top = q8_top(v);
        bool some = top >= 1e-30f && top <= 3.4e38f;
        float inv = some ? 127.0f / top : 0;
        d[b] = some ? top / 127.0f : isfinite(top) && top < 1 ? 0 : NAN;
        sum[b] = 0;
        if (!some) {
            memset(q, 0, Q8_IN);
            continue;
        }
        UNROLL for (int i = 0; i < 4; i++) c[i] =
            _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inv)));
        __m256i s = _mm256_add_epi32(_mm256_add_epi32(c[0], c[1]), _mm256_add_epi32(c[2], c[3]));
        __m128i u = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
        u = _mm_add_epi32(u, _mm_srli_si128(u, 8));
        sum[b] = _mm_cvtsi128_si32(_mm_add_epi32(u, _mm_srli_si128(u, 4)));
        _mm256_storeu_si256((__m256i *)(void *)q, q8_bytes(c));
    }
}

static void q8_init(struct cpu_kern *k)
{
    k->mul_q8 = mul_q8;
    k->mul_mx_q8 = mul_mx_q8;
    k->to_q8 = to_q8;
    k->q8_pack = q8_pack;
}
