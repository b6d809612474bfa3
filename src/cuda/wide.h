/* Products of many rows on any card: activations are staged through shared memory, chains run one
 * after the other, which gives the bits of `thin`.
 */
#ifndef CUDA_WIDE_H
#define CUDA_WIDE_H

#include "cuda/gemm.h"

enum { STAGES = 4, ROW_BYTES = STEP * 2 + 16, WIDE_TILES = 8 };

/* 256 threads: 4 x 2 warps of 32 outputs times NT * 8 rows. */
template <enum form F, int NT, int NC, typename E>
static __global__ void __launch_bounds__(256, 1) wide(struct work k, struct source src, E epi)
{
    extern __shared__ char smem[];
    constexpr int N = NT * 16;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int tile0 = blockIdx.y * WIDE_TILES + warp % 4 * 2, col0 = warp / 4 * NT * 8;
    int expert = 0, slot0 = blockIdx.x * N, n = k.n - slot0;
    pdl_wait();
    pdl_go();
    if (k.group && !take_group(k, blockIdx.x, &expert, &slot0, &n))
        return;
    n = n < N ? n : N;
    const char *from[N / 32];
    uint32_t to[N / 32];
#pragma unroll
    for (int i = 0; i < N / 32; i++) {
        int c = threadIdx.x + i * 256, t = c / 8, r = slot0 + (t < n ? t : n - 1);
        r = src.row ? src.row[r] : r;
        from[i] = (const char *)(src.xn + (size_t)r * src.ld) + c % 8 * 16;
        to[i] = (uint32_t)__cvta_generic_to_shared(smem) + t * ROW_BYTES + c % 8 * 16;
    }
    auto fetch = [&](int s) {
        if (s < k.n_step)
#pragma unroll
            for (int i = 0; i < N / 32; i++)
                copy_async(to[i] + s % STAGES * N * ROW_BYTES, from[i] + (size_t)s * STEP * 2);
        asm volatile("cp.async.commit_group;");
    };
    bool on[2] = {tile0 < k.n_tile, tile0 + 1 < k.n_tile};
    size_t first = (size_t)expert * k.n_tile;
    place<F> p[2] = {{k.w, k.scale, (first + (on[0] ? tile0 : 0)) * k.n_step, lane},
                     {k.w, k.scale, (first + (on[1] ? tile0 + 1 : 0)) * k.n_step, lane}};
    frag<F> f[2], next[2];
    float acc[2][NT][4] = {}, sum[NC > 1 ? 2 : 1][NT][4] = {};
    for (int s = 0; s < STAGES - 1; s++)
        fetch(s);
    for (int m = 0; m < 2; m++)
        p[m].load(next[m], 0);
    int chain = 0, chain_end = k.n_step / NC;
    for (int s = 0; s < k.n_step; s++) {
        if (NC > 1 && s == chain_end) {
#pragma unroll
            for (int m = 0; m < 2; m++)
                for (int t = 0; t < NT; t++)
                    for (int j = 0; j < 4; j++) {
                        sum[m][t][j] = chain ? sum[m][t][j] + acc[m][t][j] : acc[m][t][j];
                        acc[m][t][j] = 0;
                    }
            chain++;
            chain_end = (chain + 1) * k.n_step / NC;
        }
        f[0] = next[0];
        f[1] = next[1];
        if (s + 1 < k.n_step)
            for (int m = 0; m < 2; m++)
                p[m].load(next[m], s + 1);
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
        __syncthreads();
        fetch(s + STAGES - 1);
        uint32_t b = (uint32_t)__cvta_generic_to_shared(smem) +
                     (s % STAGES * N + col0 + lane % 8) * ROW_BYTES + lane / 8 * 16;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t x[NT][4];
#pragma unroll
            for (int t = 0; t < NT; t++)
                ldmatrix4(x[t], b + t * 8 * ROW_BYTES + h * 64);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    uint32_t a[4];
                    f[m].slice(2 * h + i, a);
#pragma unroll
                    for (int t = 0; t < NT; t++)
                        mma(acc[m][t], a, x[t][2 * i], x[t][2 * i + 1]);
                }
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int row = col0 + t * 8 + 2 * q + j;
                float lo = acc[m][t][j], hi = acc[m][t][2 + j];
                if (NC > 1) {
                    lo = sum[m][t][j] + lo;
                    hi = sum[m][t][2 + j] + hi;
                }
                if (on[m] && row < n)
                    epi(expert, tile0 + m, g, slot0 + row, lo, hi);
            }
}

template <int NC, enum form F, int NT, typename E>
static void wide_go(const struct work &k, const struct source &src, const E &epi, int n_item,
                    cudaStream_t s)
{
    size_t smem = (size_t)STAGES * NT * 16 * ROW_BYTES;
    allow_smem(wide<F, NT, NC, E>, smem);
    launch(wide<F, NT, NC, E>, dim3(n_item, (k.n_tile + WIDE_TILES - 1) / WIDE_TILES), 256, smem, s,
           k, src, epi);
}

template <int NC, enum form F, typename E>
static void wide_n(int per_item, int n_item, const struct work &k, const struct source &src,
                   const E &epi, cudaStream_t s)
{
    if (per_item <= 64)
        wide_go<NC, F, 4>(k, src, epi, n_item, s);
    else
        wide_go<NC, F, 8>(k, src, epi, n_item, s);
}

#endif
