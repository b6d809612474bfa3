/* AMX (tiles of bf16 and of bytes): the products of bf16 and MXFP4 weights with bf16 rows, and
 * those on blocks of bytes (kern_amx_q8.h). All else is AVX-512's.
 *
 * A tile of weights is 16 outputs times 32 inputs as they lie in memory (MXFP4: decoded), a tile of
 * x is the same 32 inputs of 16 rows with pairs of inputs as its lines, and the sums are [16
 * outputs, 16 rows]. Two of each are in work at once: 32 outputs times 32 rows, four sums.
 *
 * The chain of a sum: 32 inputs after the other in ascending order; what an instruction adds in
 * which order within them is the same for every element, and known: MXFP4 meets a single row
 * without tiles (kern_amx_one.h). So results don't depend on the batch.
 */
#include "cpu/kern.h"
#include "cpu/kern_mx_avx512.h"

#include "base/num.h"

#include <math.h>
#include <string.h>

enum {
    IN = 32,              /* inputs of a tile: also an MXFP4 block */
    SIDE = 16,            /* outputs or rows of a tile */
    OUT = 2 * SIDE,       /* outputs in work at once */
    ROWS = 2 * SIDE,      /* rows */
    TILE = SIDE * IN * 2, /* bytes */
    STEPS =
        8 /* of IN inputs that are decoded ahead: a tile is not loaded from what is being stored */
};
/* What LDTILECFG reads. */
struct tiles {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a line */
    uint8_t lines[16];
};

/* All eight of them whole. */
static void tiles_set(void)
{
    struct tiles all = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        all.bytes[i] = 64;
        all.lines[i] = SIDE;
    }
    _tile_loadconfig(&all);
}

INLINE void transpose(__m512i v[16])
{
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i += 2)
    {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
    {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512i a = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        __m512i b = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        __m512i c = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        __m512i d = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
        t[i] = _mm512_shuffle_i32x4(a, b, 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
        t[i + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
        t[i + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
    memcpy(v, t, sizeof t);
}

/* n inputs of which the first `some` are there. */
INLINE __m512i load_some(const uint16_t *p, int some)
{
    return some >= IN ? _mm512_loadu_si512(p)
                      : _mm512_maskz_loadu_epi16((__mmask32)((1u << some) - 1), p);
}

/* Inputs from k on of rows [r, r + SIDE), zero beyond the last, as lines of pairs. */
INLINE void pack_x(const struct mul *m, int r, int k, void *to)
{
    __m512i v[SIDE];
    UNROLL for (int j = 0; j < SIDE; j++)
    {
        v[j] = _mm512_setzero_si512();
        if (r + j < m->n_row) {
            size_t row = (size_t)(m->row ? m->row[r + j] : r + j);
            v[j] = load_some((const uint16_t *)m->x + row * m->ld_x + k, m->n_in - k);
        }
    }
    transpose(v);
    UNROLL for (int j = 0; j < SIDE; j++) _mm512_storeu_si512((uint8_t *)to + 64 * j, v[j]);
}

/* Sums [16 outputs][16 rows] from output o and row r on, of which no and nr exist, into y. */
INLINE void put(const struct mul *m, int o, int no, int r, int nr, const float *sum)
{
    __m512i v[SIDE];
    const __mmask16 some = (__mmask16)((1u << no) - 1);
    UNROLL for (int i = 0; i < SIDE; i++) v[i] = _mm512_loadu_si512(sum + i * SIDE);
    transpose(v);
    __m512 bias = m->bias ? _mm512_maskz_loadu_ps(some, m->bias + o) : _mm512_setzero_ps();
    for (int j = 0; j < nr; j++) {
        float *y = m->y + (size_t)(r + j) * m->ld_y + o;
        __m512 s = _mm512_castsi512_ps(v[j]);
        if (m->bias)
            s = _mm512_add_ps(s, bias);
        if (m->add)
            s = _mm512_add_ps(_mm512_maskz_loadu_ps(some, y), s);
        _mm512_mask_storeu_ps(y, some, s);
    }
}

/* Where a step of IN inputs finds 32 outputs: as lines `ld` bytes apart. */
struct lines {
    const uint8_t *p;
    size_t ld;
};

/* Adds a step to the sums in tiles 0 to 3 (0 and 2: the first outputs; 0 and 1: the first rows). */
INLINE void step(bool two_out, bool two_row, struct lines w, const uint8_t *x, size_t ld_x)
{
    _tile_loadd(4, w.p, w.ld);
    _tile_loadd(6, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (two_row) {
        _tile_loadd(7, x + ld_x, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (two_out) {
        _tile_loadd(5, w.p + SIDE * w.ld, w.ld);
        _tile_dpbf16ps(2, 5, 6);
        if (two_row)
            _tile_dpbf16ps(3, 5, 7);
    }
}

/* The products of outputs [o, o + no) in one call of mul: MXFP4, bf16 as it lies, or decoded. */
struct block {
    const struct mul *m;
    const uint8_t *w;     /* of output o */
    const uint8_t *scale; /* MXFP4's, else NULL */
    size_t ld;            /* bytes of an output */
    int o, no;
    bool whole; /* zero outputs and inputs follow the last ones */
};

/* Can step k not be loaded as it lies? */
INLINE bool gathered(const struct block *b, int k)
{
    return !b->whole && (b->scale || b->no < OUT || (k + 1) * IN > b->m->n_in);
}

/* Inputs from k on, fewer than IN or of fewer than OUT outputs or MXFP4, as lines of 64 bytes. */
INLINE void gather(const struct block *b, int k, uint8_t *to)
{
    for (int i = 0; i < OUT; i++, to += 64) {
        __m512i v = _mm512_setzero_si512();
        if (i < b->no && b->scale)
            v = mx_bf16(b->w + (size_t)i * b->ld + k / 2,
                        kern_mx_bf16[b->scale[i * (b->m->n_in / IN) + k / IN]]);
        else if (i < b->no)
            v = load_some((const uint16_t *)(const void *)(b->w + (size_t)i * b->ld) + k,
                          b->m->n_in - k);
        _mm512_storeu_si512(to, v);
    }
}

/* x: [2][n_in / IN rounded up] tiles of rows from r on. */
INLINE void meet(bool two_out, bool two_row, const struct block *b, const uint8_t *x, int r)
{
    const struct mul *m = b->m;
    int n = (m->n_in + IN - 1) / IN;
    size_t ld_x = (size_t)n * TILE;
    _Alignas(64) uint8_t part[STEPS][OUT * 64];
    _Alignas(64) float sum[SIDE * SIDE];
    /* a lone row streams the weights from memory: rows side by side defeat the prefetcher */
    const uint8_t *ahead = m->n_row == 1 ? b->w + (size_t)OUT * b->ld : NULL;
    const int ahead_bytes = OUT * (b->scale ? IN / 2 : IN * 2);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k0 = 0; k0 < n; k0 += STEPS) {
        int end = min_int(k0 + STEPS, n);
        for (int k = k0; k < end; k++) {
            for (int i = 0; ahead && i < ahead_bytes; i += 64)
                _mm_prefetch(ahead + k * ahead_bytes + i, _MM_HINT_T1);
            if (gathered(b, k))
                gather(b, k * IN, part[k - k0]);
        }
        for (int k = k0; k < end; k++) {
            struct lines w = {b->w + (size_t)k * IN * 2, b->ld};
            if (gathered(b, k))
                w = (struct lines){part[k - k0], 64};
            step(two_out, two_row, w, x + (size_t)k * TILE, ld_x);
        }
    }
    int no = b->no, nr = m->n_row - r;
    _tile_stored(0, sum, SIDE * sizeof *sum);
    put(m, b->o, min_int(no, SIDE), r, min_int(nr, SIDE), sum);
    if (two_row) {
        _tile_stored(1, sum, SIDE * sizeof *sum);
        put(m, b->o, min_int(no, SIDE), r + SIDE, min_int(nr - SIDE, SIDE), sum);
    }
    if (two_out) {
        _tile_stored(2, sum, SIDE * sizeof *sum);
        put(m, b->o + SIDE, no - SIDE, r, min_int(nr, SIDE), sum);
        if (two_row) {
            _tile_stored(3, sum, SIDE * sizeof *sum);
            put(m, b->o + SIDE, no - SIDE, r + SIDE, min_int(nr - SIDE, SIDE), sum);
        }
    }
}

static void rows_meet(const struct block *b, const uint8_t *x, int r, int end)
{
    bool two_out = b->no > SIDE, two_row = end - r > SIDE;
    if (two_out && two_row)
        meet(true, true, b, x, r);
    else if (two_out)
        meet(true, false, b, x, r);
    else if (two_row)
        meet(false, true, b, x, r);
    else
        meet(false, false, b, x, r);
}

/* The outputs of a block of MXFP4, to lines of n steps. */
static void decode(struct block *b, int n, uint8_t *to)
{
    for (int k = 0; k < n; k++) {
        uint8_t part[OUT * 64];
        gather(b, k * IN, part);
        for (int i = 0; i < OUT; i++)
            memcpy(to + ((size_t)i * (size_t)n + (size_t)k) * 64, part + 64 * i, 64);
    }
    b->w = to;
    b->scale = NULL;
    b->ld = (size_t)n * 64;
    b->whole = true;
}

/* As many rows as fit are packed, and all outputs meet them; where they are more than a tile's,
 * MXFP4 is decoded once for them. */
static void mul_tiles(const struct mul *m)
{
    tiles_set();
    int n = (m->n_in + IN - 1) / IN;
    size_t ld = m->scale ? (size_t)m->n_in / 2 : (size_t)m->n_in * 2, line = (size_t)n * 64;
    int room = (int)(mul_tmp(m->n_in) / line) - (m->scale ? OUT : 0);
    int n_pack = min_int(room / ROWS * ROWS, m->n_row);
    uint8_t *x = m->tmp, *decoded = x + (size_t)((n_pack + SIDE - 1) / SIDE * SIDE) * line;
    for (int r0 = 0; r0 < m->n_row; r0 += n_pack) {
        int end = min_int(r0 + n_pack, m->n_row);
        for (int r = r0; r < end; r += SIDE)
            for (int k = 0; k < n; k++)
                pack_x(m, r, k * IN, x + (size_t)(r - r0) * line + (size_t)k * TILE);
        for (int o = 0; o < m->n_out; o += OUT) {
            struct block b = {.m = m,
                              .w = (const uint8_t *)m->w + (size_t)o * ld,
                              .scale =
                                  m->scale ? m->scale + (size_t)o * (size_t)(m->n_in / IN) : NULL,
                              .ld = ld,
                              .o = o,
                              .no = min_int(OUT, m->n_out - o)};
            if (b.scale && end - r0 > ROWS)
                decode(&b, n, decoded);
            for (int r = r0; r < end; r += ROWS)
                rows_meet(&b, x + (size_t)(r - r0) * line, r, end);
        }
    }
    _tile_release();
}

#include "cpu/kern_amx_one.h"

static void mul_mx_bf16(const struct mul *m)
{
    if (m->n_row == 1 && one_scales(m))
        one_row(m);
    else
        mul_tiles(m);
}

static void mul_bf16(const struct mul *m)
{
    struct mul dense = *m;
    dense.scale = NULL;
    mul_tiles(&dense);
}

/* Four sums in turn: an instruction's latency is about three times its time. */
static double peak_bf16(int n, float *out)
{
    static const uint8_t zero[TILE];
    float sum[SIDE * SIDE];
    tiles_set();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, zero, 64);
    _tile_loadd(6, zero, 64);
    for (int k = 0; k < n / 16; k++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 6);
    }
    _tile_stored(0, sum, SIDE * sizeof *sum);
    _tile_release();
    *out = sum[0];
    return 2.0 * 4 * SIDE * SIDE * IN * (n / 16);
}

static inline __m256i q8_dp(__m256i acc, __m256i u, __m256i s)
{
    return _mm256_dpbusd_epi32(acc, u, s);
}

#include "cpu/kern_q8_vnni.h"

#include "cpu/kern_amx_q8.h"

void kern_amx_init(struct cpu_kern *k)
{
    q8_init(k);
    k->mul_q8 = bytes_dense;
    k->mul_mx_q8 = bytes_mx;
    k->peak_q8 = peak_q8;
    k->mul_bf16 = mul_bf16;
    k->mul_mx_bf16 = mul_mx_bf16;
    k->peak_bf16 = peak_bf16;
    k->name = "amx";
}
