/* Products of experts with few tokens, on Hopper: `thin` with its ends tied together.
 *
 * A block an SM takes an equal part of all groups' tiles, which go round its warps, as many of them
 * as come out even. A warp keeps the next steps of weights under way in registers, those of its
 * next tile behind those of this one. A group's rows of activations are copied in bulk, the next
 * group's beside them while there is room.
 *
 * A row's sums do not depend on how many rows its group has: they are those of `thin` for 16.
 */
#ifndef CUDA_STREAM_H
#define CUDA_STREAM_H

#include "cuda/gemm.h"
#include "cuda/hopper.h"

enum {
    STREAM_WARPS = 24, /* at most; so many registers are left */
    STREAM_STEPS = 5,  /* under way in a warp; a divisor of gpt-oss's 45 */
    STREAM_ROWS = 16,  /* of a group at most */
    STREAM_BARS = 4,   /* barriers for the groups' rows, in turn */
};

static size_t stream_stride(int n_step)
{
    return (size_t)n_step * STEP * 2 + 16; /* rows begin in different banks */
}

/* Rows of activations that shared memory holds. */
static int stream_rows(int n_step)
{
    return (int)((card()->max_smem - 256) / stream_stride(n_step));
}

#if __CUDA_ARCH__ >= 900
/* n bytes, a multiple of 16, into shared memory; bar counts them. */
static __device__ __forceinline__ void copy_bulk(uint32_t to, const void *from, uint32_t n,
                                                 uint32_t bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(n), "r"(bar)
                 : "memory");
}

/* ---- a warp's weights ---- */

/* Tiles u, u + n_warp ... before end, counted over all groups; f: the steps that are used next, p
 * and left: where those behind them lie. */
struct weights_ahead {
    frag<FORM_MX> f[STREAM_STEPS];
    place<FORM_MX> p;
    int u, end, n_warp, left;
    int expert; /* of tile u + n_warp, asked for in time */

    __device__ __forceinline__ void tile(const struct work &k)
    {
        size_t at = ((size_t)expert * k.n_tile + u % k.n_tile) * k.n_step;
        p = place<FORM_MX>(k.w, k.scale, at, threadIdx.x % 32);
        left = k.n_step;
        int v = u + n_warp;
        expert = v < end ? __ldcg(&k.group[v / k.n_tile].x) : 0;
    }
    __device__ __forceinline__ weights_ahead(const struct work &k, int u0, int u1, int n)
        : p(k.w, k.scale, 0, 0), u(u0), end(u1), n_warp(n)
    {
        expert = __ldcg(&k.group[u / k.n_tile].x);
        tile(k);
#pragma unroll
        for (int i = 0; i < STREAM_STEPS; i++)
            p.load(f[i], min(i, left - 1));
        advance(k);
    }
    /* The next steps were asked for. Behind the last tile those of its end are, again. */
    __device__ __forceinline__ void advance(const struct work &k)
    {
        if (left > STREAM_STEPS) {
            p.advance(STREAM_STEPS);
            left -= STREAM_STEPS;
        } else if (u + n_warp < end) {
            u += n_warp;
            tile(k);
        }
    }
};

/* One tile for n rows that lie at `rows`. */
template <int NT>
static __device__ __forceinline__ void stream_tile(struct weights_ahead &a, const struct work &k,
                                                   uint32_t rows, uint32_t stride, int n,
                                                   float acc[NT][4])
{
    int lane = threadIdx.x % 32;
    uint32_t b[NT];
#pragma unroll
    for (int t = 0; t < NT; t++) /* rows beyond n repeat the last: nobody looks at their sums */
        b[t] = rows + min(t * 8 + lane % 8, n - 1) * stride + lane / 8 * 16;
    for (int left = k.n_step; left > 0; left -= STREAM_STEPS) {
        if (min(left, a.left) >= STREAM_STEPS) {
#pragma unroll
            for (int i = 0; i < STREAM_STEPS; i++) {
                step_scaled<FORM_MX, NT>(a.f[i], b, i * STEP * 2, acc);
                a.p.load(a.f[i], i);
            }
        } else {
#pragma unroll
            for (int i = 0; i < STREAM_STEPS; i++) {
                if (i < left)
                    step_scaled<FORM_MX, NT>(a.f[i], b, i * STEP * 2, acc);
                a.p.load(a.f[i], min(i, a.left - 1));
            }
        }
        a.advance(k);
#pragma unroll
        for (int t = 0; t < NT; t++)
            b[t] += STREAM_STEPS * STEP * 2;
    }
}

/* The warp's tiles of one group: u, u + n_warp ... before end; tile0 is the group's first. */
template <int NT, typename E>
static __device__ __forceinline__ void stream_tiles(struct weights_ahead &a, const struct work &k,
                                                    uint32_t rows, uint32_t stride, int u, int end,
                                                    int tile0, int4 grp, const E &epi)
{
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    for (; u < end; u += a.n_warp) {
        float acc[NT][4] = {};
        stream_tile<NT>(a, k, rows, stride, grp.z, acc);
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int row = t * 8 + 2 * q + j;
                if (row < grp.z)
                    epi(grp.x, u - tile0, g, grp.y + row, acc[t][j], acc[t][2 + j]);
            }
    }
}
#endif

/* early: the groups are older than the kernel before, which lets this one begin only behind its own
 * wait. n_row: rows that shared memory holds, at least STREAM_ROWS. */
template <typename E>
static __global__ void __launch_bounds__(STREAM_WARPS * 32, 1)
    streamed(struct work k, struct source src, E epi, bool early, int n_row)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(16) char stream_mem[]; /* [n_row, stride] */
    __shared__ __align__(8) uint64_t bars[STREAM_BARS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t rows = (uint32_t)__cvta_generic_to_shared(stream_mem);
    uint32_t bar0 = (uint32_t)__cvta_generic_to_shared(bars);
    uint32_t row_bytes = k.n_step * STEP * 2, stride = row_bytes + 16;
    if (threadIdx.x < STREAM_BARS)
        bar_init(bar0 + threadIdx.x * 8, 1);
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::
                     : "memory");
    __syncthreads();
    if (!early)
        pdl_wait();
    long long total = (long long)__ldcg(k.n_group) * k.n_tile;
    int u0 = (int)(blockIdx.x * total / gridDim.x);
    int u1 = (int)((blockIdx.x + 1) * total / gridDim.x);
    int turns = (u1 - u0 + STREAM_WARPS - 1) / STREAM_WARPS;
    int n_warp = turns ? (u1 - u0 + turns - 1) / turns : 0;
    if (warp >= n_warp)
        return;
    struct weights_ahead ahead(k, u0 + warp, u1, n_warp);
    if (early)
        pdl_wait();
    pdl_go(); /* only now, see take_group */
    auto stage = [&](int4 grp, int at, int i) {
        if (warp)
            return;
        uint32_t bar = bar0 + i % STREAM_BARS * 8;
        if (lane == 0)
            bar_expect(bar, grp.z * row_bytes);
        __syncwarp();
        if (lane < grp.z) {
            int row = src.row ? __ldcg(src.row + grp.y + lane) : grp.y + lane;
            copy_bulk(rows + (at + lane) * stride, src.xn + (size_t)row * src.ld, row_bytes, bar);
        }
        __syncwarp();
    };
    int first = u0 / k.n_tile, n = (u1 - 1) / k.n_tile + 1 - first, at = 0;
    bool there = false; /* the group's rows are asked for */
    int4 next = __ldcg(k.group + first);
    for (int i = 0, u = u0 + warp; i < n; i++) {
        int4 grp = next;
        if (!there) {
            if (i) /* nobody reads rows any more */
                asm volatile("bar.sync 1, %0;" ::"r"(n_warp * 32) : "memory");
            at = 0;
            stage(grp, at, i);
        }
        there = false;
        if (i + 1 < n) {
            next = __ldcg(k.group + first + i + 1);
            /* a barrier serves again only when all warps have met since */
            there = at + grp.z + next.z <= n_row && (i + 1) % STREAM_BARS;
            if (there)
                stage(next, at + grp.z, i + 1);
        }
        bar_wait(bar0 + i % STREAM_BARS * 8, i / STREAM_BARS % 2);
        int tile0 = (first + i) * k.n_tile, end = min(u1, tile0 + k.n_tile);
        if (grp.z <= 8)
            stream_tiles<1>(ahead, k, rows + at * stride, stride, u, end, tile0, grp, epi);
        else
            stream_tiles<2>(ahead, k, rows + at * stride, stride, u, end, tile0, grp, epi);
        if (u < end)
            u += (end - u + n_warp - 1) / n_warp * n_warp;
        at += grp.z;
    }
#endif
}

template <typename E>
static void stream_go(const struct work &k, const struct source &src, const E &epi, bool early,
                      cudaStream_t s)
{
    int n_row = stream_rows(k.n_step);
    n_row = n_row < 2 * STREAM_ROWS ? n_row : 2 * STREAM_ROWS;
    size_t smem = (size_t)n_row * stream_stride(k.n_step);
    allow_smem(streamed<E>, smem);
    launch(streamed<E>, dim3(card()->n_sm), STREAM_WARPS * 32, smem, s, k, src, epi, early, n_row);
}

#endif
