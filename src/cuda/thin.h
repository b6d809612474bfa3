/* Products of up to 8 rows, and of experts with few tokens: a warp takes one chain of one tile, all
 * activations lie in shared memory, and what counts is how many bytes of weights are under way.
 */
#ifndef CUDA_THIN_H
#define CUDA_THIN_H

#include "cuda/gemm.h"

/* Steps under way in a warp, and blocks an SM shall hold: the registers for the one limit the
 * other. */
template <enum form F, int NT, int NC> struct depth {
    static const int steps = F == FORM_BF16 && NT == 1 && NC == 1 ? 2 : 4;
    static const int blocks = NT == 1 ? F == FORM_MX ? 4 : NC == 1 ? 3 : 2 : 2;
    /* Shared memory, not registers, limits the blocks of 16 rows: so they are larger. */
    static const int warps = F == FORM_MX && NT == 2 && NC == 1 ? 12 : 8;
};

/* Adds the chains of each tile in order; the result is in the first chain's warp. */
template <int NT, int NC>
static __device__ __forceinline__ void join_chains(float acc[NT][4], int warp, int lane,
                                                   float *part)
{
    if (NC == 1)
        return;
    if (warp % NC)
        for (int t = 0; t < NT; t++)
            *(float4 *)(part + ((warp * NT + t) * 32 + lane) * 4) =
                make_float4(acc[t][0], acc[t][1], acc[t][2], acc[t][3]);
    __syncthreads();
    if (warp % NC == 0)
        for (int c = 1; c < NC; c++)
            for (int t = 0; t < NT; t++) {
                float4 v = *(float4 *)(part + (((warp + c) * NT + t) * 32 + lane) * 4);
                acc[t][0] += v.x;
                acc[t][1] += v.y;
                acc[t][2] += v.z;
                acc[t][3] += v.w;
            }
    __syncthreads();
}

template <enum form F, int NT, int NC, typename E>
static __global__ void __launch_bounds__((depth<F, NT, NC>::warps * 32), (depth<F, NT, NC>::blocks))
    thin(struct work k, struct source src, E epi)
{
    extern __shared__ char smem[];
    __shared__ float part8[8];
    constexpr int D = depth<F, NT, NC>::steps, TILES = depth<F, NT, NC>::warps / NC;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    size_t stride = (size_t)k.n_step * STEP * 2 + 16;
    float *part = (float *)(smem + (size_t)NT * 8 * stride);
    int chain = warp % NC;
    int s0 = chain * k.n_step / NC, s1 = (chain + 1) * k.n_step / NC;
    frag<F> f[D];
    int expert = 0, slot0 = blockIdx.y * NT * 8, n = min(NT * 8, k.n - slot0);
    if (!k.group)
        pdl_go();
    if (k.group && !take_group(k, blockIdx.y, &expert, &slot0, &n))
        return;
    bool staged = false;
    for (int t0 = blockIdx.x * TILES; t0 < k.n_tile; t0 += gridDim.x * TILES) {
        int tile = t0 + warp / NC;
        bool on = tile < k.n_tile;
        place<F> p(k.w, k.scale, (size_t)(expert * k.n_tile + (on ? tile : 0)) * k.n_step + s0,
                   lane);
        chain_begin<F, D>(f, p, on ? s1 - s0 : 0);
        if (!staged) {
            if (!k.group)
                pdl_wait();
            stage<raised<F, NT>()>(src, k.n_step, slot0, n, smem, stride, part8);
            staged = true;
        }
        float acc[NT][4] = {};
        uint32_t b[NT];
#pragma unroll
        for (int t = 0; t < NT; t++) /* rows beyond n repeat the last: nobody looks at their sums */
            b[t] = (uint32_t)__cvta_generic_to_shared(smem) +
                   (uint32_t)(min(t * 8 + lane % 8, n - 1) * stride) + lane / 8 * 16 +
                   s0 * STEP * 2;
        chain_run<F, D, NT>(f, p, on ? s1 - s0 : 0, b, acc);
        join_chains<NT, NC>(acc, warp, lane, part);
        if (on && chain == 0) {
#pragma unroll
            for (int t = 0; t < NT; t++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int row = t * 8 + 2 * q + j;
                    float f = raised<F, NT>() ? lower : 1;
                    if (row < n)
                        epi(expert, tile, g, slot0 + row, acc[t][j] * f, acc[t][2 + j] * f);
                }
        }
    }
}

template <enum form F, int NT, int NC, typename E>
static void thin_go(const struct work &k, const struct source &src, const E &epi, int n_group,
                    int persist, cudaStream_t s)
{
    size_t smem = (size_t)NT * 8 * ((size_t)k.n_step * STEP * 2 + 16) + NT * 4096;
    allow_smem(thin<F, NT, NC, E>, smem);
    constexpr int WARPS = depth<F, NT, NC>::warps;
    int tiles = (k.n_tile + WARPS / NC - 1) / (WARPS / NC);
    if (persist && tiles > persist)
        tiles = persist;
    launch(thin<F, NT, NC, E>, dim3(tiles, n_group), WARPS * 32, smem, s, k, src, epi);
}

#endif
