/* AMX: the products on blocks of signed bytes, many rows at once; a few are left to dpbusd. After
 * kern_q8_vnni.h, included by kern_amx.c.
 *
 * A step is one block of 32 inputs of 16 rows and 16 outputs: rows [16][32], weights
 * [four inputs][output][4], their exact sums [row][output], which leave the tiles to be scaled and
 * added as everywhere. Six steps run ahead of what is added, so that tiles and vectors work at the
 * same time. MXFP4's codes are signed here: nothing has to be taken off the sums.
 */
#ifndef CPU_KERN_AMX_Q8_H
#define CPU_KERN_AMX_Q8_H

enum {
    B_SIDE = 16,  /* rows, and outputs, of a step */
    B_TILE = 512, /* bytes of its rows, and of its weights */
    B_STEPS = 4,  /* tiles of sums */
    B_SUMS = 8,   /* steps whose sums lie in memory, */
    B_LATE = 6,   /* of which the oldest is added now */
    B_FEW = 10,   /* rows up to which dpbusd is faster */
    B_ROWS = 96   /* rows packed for one pass over the outputs */
};

/* What an instance of the product works on. Tiles beyond the last block hold any bytes. */
struct bytes_mul {
    const struct mul_q8 *m;
    int n_block;
    uint8_t *w;   /* [n_block rounded up to B_STEPS][B_TILE] */
    float *scale; /* [2][n_block, Q8_OUT] of the outputs */
    uint8_t *x;   /* [B_ROWS / B_SIDE][n_block rounded up][B_TILE] */
    float *d;     /* [B_ROWS / B_SIDE][n_block, B_SIDE] of the rows */
};

INLINE int bytes_steps(int n_block)
{
    return (n_block + B_STEPS - 1) / B_STEPS * B_STEPS;
}

/* Tiles 0 to 3: sums, 4 and 5: rows, 6 and 7: weights. */
static void bytes_tiles_set(void)
{
    struct tiles t = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        t.bytes[i] = i == 4 || i == 5 ? Q8_IN : 64;
        t.lines[i] = i < 6 ? B_SIDE : Q8_IN / 4;
    }
    _tile_loadconfig(&t);
}

/* Rows [r, end) to tiles, zero beyond the last. */
static void bytes_pack(const struct bytes_mul *b, int r, int end)
{
    size_t n_block = (size_t)b->n_block, n_step = (size_t)bytes_steps(b->n_block);
    for (int i = 0; i < (end - r + B_SIDE - 1) / B_SIDE * B_SIDE; i++) {
        size_t tile = (size_t)(i / B_SIDE), line = (size_t)(i % B_SIDE);
        uint8_t *to = b->x + tile * n_step * B_TILE + line * Q8_IN;
        float *d = b->d + tile * n_block * B_SIDE + line;
        bool there = r + i < end;
        size_t row = there ? q8_row(b->m, r + i) : 0;
        for (size_t k = 0; k < n_block; k++, to += B_TILE, d += B_SIDE) {
            *d = there ? b->m->x.d[row * (b->m->x.ld / Q8_IN) + k] : 0;
            if (there)
                memcpy(to, b->m->x.q + row * b->m->x.ld + k * Q8_IN, Q8_IN);
            else
                memset(to, 0, Q8_IN);
        }
    }
}

INLINE __m256i bytes_codes(__m256i nibbles)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, _mm256_set1_epi8(15)));
}

/* Codes and scales of MXFP4's outputs [o, o + n). */
static void bytes_decode(const struct bytes_mul *b, int o, int n)
{
    for (int half = 0; half < 2; half++) {
        int o8 = o + half * Q8_OUT < o + n ? o + half * Q8_OUT : o; /* any, if there is none */
        int n8 = min_int(Q8_OUT, o + n - o8);
        const uint8_t *p[Q8_OUT];
        for (int i = 0; i < Q8_OUT; i++)
            p[i] = q8_code_row(b->m, o8, n8, i);
        for (int k = 0; k < b->n_block; k++) {
            uint8_t *to = b->w + (size_t)k * B_TILE + half * 32;
            __m256i v[4];
            q8_gather(p, k, v);
            UNROLL for (int g = 0; g < 4; g++)
            {
                _mm256_storeu_si256((__m256i *)(void *)(to + 64 * g), bytes_codes(v[g]));
                _mm256_storeu_si256((__m256i *)(void *)(to + 64 * (g + 4)),
                                    bytes_codes(_mm256_srli_epi16(v[g], 4)));
            }
        }
        q8_scales(b->m, o8, n8, b->scale + half * b->n_block * Q8_OUT);
    }
}

/* The same of dense weights, whose blocks of eight outputs come side by side. */
static void bytes_join(const struct bytes_mul *b, int o, int n)
{
    for (int half = 0; half < 2; half++) {
        int o8 = half * Q8_OUT < n ? o + half * Q8_OUT : o;
        const struct q8_block *p =
            (const struct q8_block *)b->m->w + (size_t)(o8 / Q8_OUT) * (size_t)b->n_block;
        for (int k = 0; k < b->n_block; k++, p++) {
            uint8_t *to = b->w + (size_t)k * B_TILE + half * 32;
            _mm256_storeu_ps(b->scale + (half * b->n_block + k) * Q8_OUT, q8_bf16(p->d));
            UNROLL for (int g = 0; g < Q8_IN / 4; g++) memcpy(to + 64 * g, p->q[g], 32);
        }
    }
}

/* One step's products begin: its sums become tile t, a constant. */
INLINE void bytes_dot(int t, const uint8_t *x, const uint8_t *w)
{
    if (t % 2 == 0) {
        _tile_loadd(4, x, Q8_IN);
        _tile_loadd(6, w, 64);
    } else {
        _tile_loadd(5, x, Q8_IN);
        _tile_loadd(7, w, 64);
    }
    if (t == 0) {
        _tile_zero(0);
        _tile_dpbssd(0, 4, 6);
    } else if (t == 1) {
        _tile_zero(1);
        _tile_dpbssd(1, 5, 7);
    } else if (t == 2) {
        _tile_zero(2);
        _tile_dpbssd(2, 4, 6);
    } else {
        _tile_zero(3);
        _tile_dpbssd(3, 5, 7);
    }
}

/* Tile t leaves. */
INLINE void bytes_leave(int t, int32_t sum[B_SIDE][B_SIDE])
{
    if (t == 0)
        _tile_stored(0, sum, 64);
    else if (t == 1)
        _tile_stored(1, sum, 64);
    else if (t == 2)
        _tile_stored(2, sum, 64);
    else
        _tile_stored(3, sum, 64);
}

/* Step k's sums join those of the first nr rows. */
INLINE void bytes_add(int nr, const struct bytes_mul *b, const float *d, int k,
                      int32_t sum[B_SIDE][B_SIDE], __m512 *acc)
{
    const float *s = b->scale + k * Q8_OUT;
    __m512 scale = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(s)),
                                      _mm256_loadu_ps(s + b->n_block * Q8_OUT), 1);
    UNROLL for (int j = 0; j < nr; j++) acc[j] =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sum[j])),
                        _mm512_mul_ps(scale, _mm512_set1_ps(d[k * B_SIDE + j])), acc[j]);
}

/* Outputs [o, o + n) of the rows from r on, of which nr meet and `some` exist; `tile`: of x. A step
 * begins, the one before the last leaves its tile, and one long in memory is added: a load never
 * waits for a store. Each step fetches so many bytes from `next` on. */
INLINE void bytes_meet(int nr, const struct bytes_mul *b, int o, int n, int r, int some, int tile,
                       const char *next, int bytes)
{
    _Alignas(64) int32_t sum[B_SUMS][B_SIDE][B_SIDE];
    const struct mul_q8 *m = b->m;
    const int n_step = bytes_steps(b->n_block);
    const uint8_t *x = b->x + (size_t)tile * (size_t)n_step * B_TILE, *w = b->w;
    const float *d = b->d + (size_t)tile * (size_t)b->n_block * B_SIDE;
    __m512 acc[B_SIDE];
    UNROLL for (int j = 0; j < nr; j++) acc[j] = _mm512_setzero_ps();
    for (int k0 = 0; k0 < n_step; k0 += B_STEPS) {
        UNROLL for (int i = 0; i < B_STEPS; i++, x += B_TILE, w += B_TILE, next += bytes)
        {
            const int k = k0 + i;
            bytes_dot(i, x, w);
            if (k >= 2)
                bytes_leave((i + 2) % B_STEPS, sum[(k - 2) % B_SUMS]);
            for (int p = 0; p < bytes; p += 64)
                _mm_prefetch(next + p, _MM_HINT_T1);
            if (k >= B_LATE)
                bytes_add(nr, b, d, k - B_LATE, sum[(k - B_LATE) % B_SUMS], acc);
        }
    }
    bytes_leave(2, sum[(n_step - 2) % B_SUMS]);
    bytes_leave(3, sum[(n_step - 1) % B_SUMS]);
    for (int k = max_int(0, n_step - B_LATE); k < b->n_block; k++)
        bytes_add(nr, b, d, k, sum[k % B_SUMS], acc);
    const __mmask16 lanes = (__mmask16)((1u << n) - 1);
    UNROLL for (int j = 0; j < nr; j++)
    {
        if (j < some) {
            float *y = m->y + (size_t)(r + j) * m->ld_y + o;
            __m512 v = acc[j];
            if (m->bias)
                v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(lanes, m->bias + o));
            if (m->add)
                v = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, y), v);
            _mm512_mask_storeu_ps(y, lanes, v);
        }
    }
}

/* of_block: bytes of a block of an output. */
static void bytes_mul(const struct mul_q8 *m, size_t of_block,
                      void (*take)(const struct bytes_mul *, int o, int n))
{
    size_t n_block = (size_t)m->n_in / Q8_IN, n_step = (size_t)bytes_steps((int)n_block);
    struct bytes_mul b = {.m = m, .n_block = (int)n_block, .w = m->tmp};
    b.x = b.w + n_step * B_TILE;
    b.scale = (float *)(void *)(b.x + B_ROWS / B_SIDE * n_step * B_TILE);
    b.d = b.scale + n_block * B_SIDE;
    bytes_tiles_set();
    for (int r0 = 0; r0 < m->n_row; r0 += B_ROWS) {
        int end = min_int(r0 + B_ROWS, m->n_row);
        bytes_pack(&b, r0, end);
        for (int o = 0; o < m->n_out; o += B_SIDE) {
            int n = min_int(B_SIDE, m->n_out - o);
            take(&b, o, n);
            const char *next = (const char *)m->w + (size_t)(o + B_SIDE) * n_block * of_block;
            for (int r = r0; r < end; r += B_SIDE) {
                int some = min_int(B_SIDE, end - r), tile = (r - r0) / B_SIDE;
                int bytes = r == r0 ? B_SIDE * (int)of_block : 0;
                if (some > B_SIDE / 2)
                    bytes_meet(B_SIDE, &b, o, n, r, some, tile, next, bytes);
                else
                    bytes_meet(B_SIDE / 2, &b, o, n, r, some, tile, next, bytes);
            }
        }
    }
    _tile_release();
}

static void bytes_dense(const struct mul_q8 *m)
{
    if (m->n_row <= B_FEW)
        mul_q8(m);
    else
        bytes_mul(m, sizeof(struct q8_block) / Q8_OUT, bytes_join);
}

static void bytes_mx(const struct mul_q8 *m)
{
    if (m->n_row <= B_FEW)
        mul_mx_q8(m);
    else
        bytes_mul(m, Q8_IN / 2, bytes_decode);
}

/* Four sums in turn, as peak_bf16. */
static double peak_q8(int n, float *out)
{
    static const uint8_t zero[B_SIDE * 64];
    int32_t sum[B_SIDE * B_SIDE];
    tiles_set();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, zero, 64);
    _tile_loadd(6, zero, 64);
    for (int k = 0; k < n / 16; k++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 6);
        _tile_dpbssd(2, 4, 6);
        _tile_dpbssd(3, 4, 6);
    }
    _tile_stored(0, sum, 64);
    _tile_release();
    *out = (float)sum[0];
    return 2.0 * 4 * B_SIDE * B_SIDE * 64 * (n / 16);
}

#endif
