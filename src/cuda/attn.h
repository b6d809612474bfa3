/* What the kernels of attention on mma.sync share: a warp's tile of queries, its step over a page.
 *
 * Pages hold keys as rows [32 keys][64] and values transposed [64][32 keys], so that what a lane
 * needs of either is 16 contiguous bytes. A warp works on tiles of 16 queries: the query heads of
 * one key head, of as many positions as fit (eight heads in gpt-oss: two positions; a decoding row
 * fills half a tile).
 *
 * Column c of key tile t stands for key 8(c/2) + 2t + c%2 of the page; then the scores that a lane
 * holds are the very probabilities that it must bring to the product with the values.
 *
 * A cache in e4m3 is widened to f16 on the way; queries and softmax weights are f16 then, else
 * bf16.
 *
 * Scores are powers of two: the queries carry log2(e). The sink joins once, at the end.
 */
#ifndef CUDA_ATTN_H
#define CUDA_ATTN_H

#include "cuda/dev.h"

#include <cuda_fp8.h>

#define NONE (-INFINITY)

/* Eight numbers of the cache as they are kept, and as a tensor-core instruction takes them. */
template <bool F8> struct eight {
    typedef uint4 bits;
    static __device__ __forceinline__ uint4 wide(uint4 v)
    {
        return v;
    }
    static __device__ __forceinline__ uint32_t pair(float lo, float hi)
    {
        return pack_bf16(lo, hi);
    }
    static __device__ __forceinline__ uint32_t query(uint32_t v)
    {
        return v;
    }
};

template <> struct eight<true> {
    typedef uint2 bits;
    static __device__ __forceinline__ uint32_t two(uint32_t v)
    {
        __half2_raw h = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)v, __NV_E4M3);
        return h.x | (uint32_t)h.y << 16;
    }
    static __device__ __forceinline__ uint4 wide(uint2 v)
    {
        return make_uint4(two(v.x & 0xFFFF), two(v.x >> 16), two(v.y & 0xFFFF), two(v.y >> 16));
    }
    static __device__ __forceinline__ uint32_t pair(float lo, float hi)
    {
        __half2 v = __floats2half2_rn(lo, hi);
        return *(uint32_t *)&v;
    }
    static __device__ __forceinline__ uint32_t query(uint32_t v)
    {
        return pair(__uint_as_float(v << 16), __uint_as_float(v & 0xFFFF0000));
    }
};

template <bool F8>
static __device__ __forceinline__ void mma_kv(float c[4], const uint32_t a[4], uint32_t b0,
                                              uint32_t b1)
{
    if (!F8)
        return mma(c, a, b0, b1);
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

struct tile {
    uint32_t q[4][4];
    float o[8][4];
    float m[2], l[2]; /* rows g and g + 8; l: of this lane's keys alone until tile_end */
};

/* Row i of the tile (g or g + 8) is query `head` at row `row`, or absent (row < 0). */
template <bool F8>
static __device__ __forceinline__ void tile_begin(struct tile &t, const __nv_bfloat16 *const at[2])
{
    int q = threadIdx.x % 4;
    uint4 v[2][2] = {};
    for (int i = 0; i < 2; i++)
        if (at[i]) {
            v[i][0] = *(const uint4 *)(at[i] + 16 * q);
            v[i][1] = *(const uint4 *)(at[i] + 16 * q + 8);
        }
    for (int s = 0; s < 4; s++) {
        const uint4 &a = v[0][s / 2], &b = v[1][s / 2];
        t.q[s][0] = s % 2 ? a.z : a.x;
        t.q[s][1] = s % 2 ? b.z : b.x;
        t.q[s][2] = s % 2 ? a.w : a.y;
        t.q[s][3] = s % 2 ? b.w : b.y;
        for (int j = 0; j < 4; j++)
            t.q[s][j] = eight<F8>::query(t.q[s][j]);
    }
    for (int u = 0; u < 8; u++)
        for (int j = 0; j < 4; j++)
            t.o[u][j] = 0;
    for (int i = 0; i < 2; i++) {
        t.m[i] = NONE;
        t.l[i] = 0;
    }
}

static __device__ __forceinline__ void tile_end(struct tile &t)
{
    for (int i = 0; i < 2; i++) {
        t.l[i] += __shfl_xor_sync(~0u, t.l[i], 1);
        t.l[i] += __shfl_xor_sync(~0u, t.l[i], 2);
    }
}

/* A lane's part of a page's keys and values. */
template <bool F8> struct page {
    typename eight<F8>::bits k[4][2], v[8];
    __device__ __forceinline__ uint4 key(int j, int half) const
    {
        return eight<F8>::wide(k[j][half]);
    }
    __device__ __forceinline__ uint4 value(int u) const
    {
        return eight<F8>::wide(v[u]);
    }
};

enum { PAGE_PIECES = 2 * KV_PAGE * HEAD / 8 }; /* of eight numbers; keys, then values */

template <bool F8>
static __device__ __forceinline__ void page_load(struct page<F8> &p, const uint8_t *from)
{
    typedef typename eight<F8>::bits bits;
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const bits *k = (const bits *)from + (8 * (g / 2) + g % 2) * 8 + 2 * q;
    const bits *v = (const bits *)from + PAGE_PIECES / 2 + g * 4 + q;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        p.k[j][0] = k[j * 16];
        p.k[j][1] = k[j * 16 + 1];
    }
#pragma unroll
    for (int u = 0; u < 8; u++)
        p.v[u] = v[u * 32];
}

/* 2^x; 0 for -Inf. Two units in the last place. */
static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Keys at positions p0 .. p0+31; row i of tile m sees those in [lo[m][i], hi[m][i]], or all
 * of them. P: where the page is, registers or shared memory. */
template <bool F8, int MT, typename P>
static __device__ __forceinline__ void page_step(struct tile *t, const P &pg, int p0,
                                                 const int (*lo)[2], const int (*hi)[2], bool all)
{
    int q = threadIdx.x % 4;
    float s[MT][4][4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        uint4 a = pg.key(j, 0), b = pg.key(j, 1);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            for (int i = 0; i < 4; i++)
                s[m][j][i] = 0;
            mma_kv<F8>(s[m][j], t[m].q[0], a.x, a.y);
            mma_kv<F8>(s[m][j], t[m].q[1], a.z, a.w);
            mma_kv<F8>(s[m][j], t[m].q[2], b.x, b.y);
            mma_kv<F8>(s[m][j], t[m].q[3], b.z, b.w);
        }
    }
    uint32_t pa[MT][2][4];
    float scale[MT][2];
    bool same = true; /* maxima rarely move after the first pages */
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) { /* rows g, g + 8 */
            float top = NONE;
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int b = 0; b < 2; b++) {
                    int pos = p0 + 8 * q + 2 * j + b;
                    float &x = s[m][j][2 * i + b];
                    if (!all && (pos < lo[m][i] || pos > hi[m][i]))
                        x = NONE;
                    top = fmaxf(top, x);
                }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float m1 = fmaxf(t[m].m[i], top);
            float base = m1 == NONE ? 0 : m1;
            float sum = 0;
            scale[m][i] = exp2_fast(t[m].m[i] - base);
            same = same && m1 == t[m].m[i];
            t[m].m[i] = m1;
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int b = 0; b < 2; b++) {
                    float &x = s[m][j][2 * i + b];
                    x = exp2_fast(x - base);
                    sum += x;
                }
            t[m].l[i] = t[m].l[i] * scale[m][i] + sum;
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int c = 0; c < 2; c++)
                    pa[m][h][2 * c + i] =
                        eight<F8>::pair(s[m][2 * h + c][2 * i], s[m][2 * h + c][2 * i + 1]);
        }
    }
    if (!__all_sync(~0u, same))
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int u = 0; u < 8; u++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    t[m].o[u][i] *= scale[m][i / 2];
#pragma unroll
    for (int u = 0; u < 8; u++) {
        uint4 a = pg.value(u);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            mma_kv<F8>(t[m].o[u], pa[m][0], a.x, a.y);
            mma_kv<F8>(t[m].o[u], pa[m][1], a.z, a.w);
        }
    }
}

/* A key head's part of a page. */
template <bool F8>
static __device__ __forceinline__ const uint8_t *head_of(const struct attn_args &a, int page,
                                                         int kv)
{
    return a.pool.p + (size_t)page * a.pool.page +
           ((size_t)a.i_layer * a.n_kv_head + kv) *
               (PAGE_PIECES * sizeof(typename eight<F8>::bits));
}

/* Joins two partial softmaxes: (m, l) += (m2, l2); returns both factors. */
static __device__ __forceinline__ void join(float &m, float &l, float m2, float l2, float &f,
                                            float &f2)
{
    float top = fmaxf(m, m2), base = top == NONE ? 0 : top;
    f = exp2_fast(m - base);
    f2 = exp2_fast(m2 - base);
    m = top;
    l = l * f + l2 * f2;
}

#endif
