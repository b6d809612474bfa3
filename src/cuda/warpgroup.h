/* Products of many rows on Hopper's warpgroup instructions, weights straight to registers, and the
 * choice between them, ring.h and wide.h.
 */
#ifndef CUDA_WARPGROUP_H
#define CUDA_WARPGROUP_H

#include "cuda/ring.h"
#include "cuda/wide.h"

#ifdef GLOSS_WGMMA
/* Stages of N rows in 96 KB of shared memory, so that two blocks fit an SM; beyond 128 rows it has
 * one, with 192 KB. */
template <int N> struct wg_stages {
    enum { n = N <= 64 ? 10 : N == 96 || N == 192 ? 8 : 6 };
};

/* 64 outputs of each of two warpgroups times up to N rows, over the block's share of the inputs.
 * Registers hold the weights, fetched D steps ahead and decoded one step ahead of the tensor core;
 * activations pass through shared memory, in rows of 128 bytes whose 16-byte pieces are swizzled as
 * the hardware wants. The blocks of a cluster share the inputs; then each adds up, in order, and
 * hands to the epilogue a part of the rows. */
template <enum form F, int N, int D, typename E>
static __device__ __forceinline__ void wg_rows(const struct work &k, const struct source &src,
                                               const E &epi, uint32_t base, int expert, int slot0,
                                               int n)
{
    enum { LOADS = N / 32, STAGES = wg_stages<N>::n };
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int tile = (k.by_rows ? blockIdx.y : blockIdx.x) * 8 + warp, part = blockIdx.z,
        n_part = gridDim.z;
    int s0 = part * k.n_step / n_part, n_step = (part + 1) * k.n_step / n_part - s0;
    bool on = tile < k.n_tile;
    place<F> p(k.w, k.scale, (size_t)(expert * k.n_tile + (on ? tile : 0)) * k.n_step + s0, lane);
    frag<F> f[D];
    chain_begin<F, D>(f, p, n_step);
    if (!k.group)
        pdl_wait();
    const char *from[LOADS];
    uint32_t to[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        int c = threadIdx.x + i * 256, t = c / 8, r = slot0 + (t < n ? t : n - 1);
        r = src.row ? src.row[r] : r;
        from[i] = (const char *)(src.xn + (size_t)r * src.ld) + s0 * STEP * 2 + c % 8 * 16;
        to[i] = base + t * 128 + (c % 8 ^ t % 8) * 16;
    }
    auto fetch = [&](int s) {
        if (s < n_step)
#pragma unroll
            for (int i = 0; i < LOADS; i++)
                copy_async(to[i] + s % STAGES * N * 128, from[i] + (size_t)s * STEP * 2);
        asm volatile("cp.async.commit_group;");
    };
    float acc[N / 2] = {};
    for (int s = 0; s < STAGES - 2; s++)
        fetch(s);
    /* Two sets of registers in turn: the tensor core still reads one while the other is filled. */
    uint32_t a[2][4][4];
    auto step = [&](int s, uint32_t(&x)[4][4], frag<F> &w) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            w.slice(i, x[i]);
            /* In registers of its own, not the load's: the assembler must see that what wgmma reads
             * is not written while it runs. `zero` is 0, but it does not know that. */
            for (int j = 0; j < 4 && F == FORM_BF16; j++)
                x[i][j] ^= k.zero;
        }
        asm volatile("cp.async.wait_group %0;\nfence.proxy.async.shared::cta;" ::"n"(STAGES - 3)
                     : "memory");
        __syncthreads(); /* stage s is there, and everybody has finished with stage s - 2 */
        fetch(s + STAGES - 2);
        /* Not before the fence, which waits for all loads under way. */
        p.load(w, min(s + D, n_step - 1));
        /* matrix descriptor: address, rows of 8 every 1024 bytes, 128-byte swizzle */
        uint64_t b =
            (uint64_t)((base + s % STAGES * N * 128) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
        wg_begin();
#pragma unroll
        for (int i = 0; i < 4; i++)
            wgmma(acc, x[i], b + 2 * i);
        wg_end<1>();
    };
    constexpr int U = D < 2 ? 2 : D;
    int s = 0;
    for (; s + U <= n_step; s += U)
#pragma unroll
        for (int i = 0; i < U; i++)
            step(s + i, a[i % 2], f[i % D]);
#pragma unroll
    for (int i = 0; i < U - 1; i++)
        if (s + i < n_step)
            step(s + i, a[i % 2], f[i % D]);
    wg_end<0>();
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        asm volatile("" : "+f"(acc[i])::"memory"); /* not read before the wait */
    auto finish = [&](int t, const float *v) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int row = t * 8 + 2 * q + j;
            if (on && row < n)
                epi(expert, tile, g, slot0 + row, v[j], v[2 + j]);
        }
    };
    if (n_part == 1) {
#pragma unroll
        for (int t = 0; t < N / 8; t++)
            finish(t, acc + 4 * t);
        return;
    }
    __syncthreads(); /* nobody reads activations any more: their place takes the sums */
    join_cluster<256, N>(acc, base + threadIdx.x * 16, finish);
}
#endif

/* grid (blocks of 128 outputs, blocks or groups of at most N rows, parts of the inputs), so that
 * what runs at one time reads few rows and experts; by_rows, the first two change places, so that a
 * matrix larger than its rows is read once. Few rows have a narrower instruction. */
template <enum form F, int N, int D, typename E>
static __global__ void __launch_bounds__(256, N > 128 ? 1 : 2)
    warpgroup(struct work k, struct source src, E epi)
{
#ifdef GLOSS_WGMMA
    extern __shared__ __align__(1024) char smem[];
    uint32_t base = ((uint32_t)__cvta_generic_to_shared(smem) + 1023) & ~1023u;
    if (!k.group)
        pdl_go();
    int item = k.by_rows ? blockIdx.x : blockIdx.y;
    int expert = 0, slot0 = item * N, n = k.n - slot0;
    if (k.group && !take_group(k, item, &expert, &slot0, &n))
        return;
    n = n < N ? n : N;
    if (N <= 128 && n <= 32)
        wg_rows<F, 32, D, E>(k, src, epi, base, expert, slot0, n);
    else if (N == 64 || n <= 64)
        wg_rows<F, 64, D, E>(k, src, epi, base, expert, slot0, n);
    else if (N == 128 && n <= 96)
        wg_rows<F, 96, D, E>(k, src, epi, base, expert, slot0, n);
    else if (N == 128 || n <= 128)
        wg_rows<F, 128, D, E>(k, src, epi, base, expert, slot0, n);
    else if (n <= 192)
        wg_rows<F, 192, D, E>(k, src, epi, base, expert, slot0, n);
    else
        wg_rows<F, 256, D, E>(k, src, epi, base, expert, slot0, n);
#endif
}

template <enum form F, int N, int D, typename E>
static void warpgroup_go(const struct work &k, const struct source &src, const E &epi, int n_item,
                         int n_part, cudaStream_t s)
{
    size_t smem = (size_t)(N > 128 ? 192 : 96) * 1024 + 1024;
    allow_smem(warpgroup<F, N, D, E>, smem);
    int n_block = (k.n_tile + 7) / 8;
    launch<true>(warpgroup<F, N, D, E>,
                 k.by_rows ? dim3(n_item, n_block, n_part) : dim3(n_block, n_item, n_part), 256,
                 smem, s, k, src, epi);
}

/* Blocks of a cluster that share the inputs of a dense product, so that the card is full: the
 * number whose rounds, of n_sm_blocks blocks an SM, take the least time. */
static int dense_parts(int n_block, int n_step, int n_sm_blocks)
{
    int best = 1, room = n_sm_blocks * card()->n_sm;
    double least = 1e30;
    for (int p = 1; p <= 8 && n_step / p >= 4; p *= 2) {
        /* joining costs about three steps */
        double t = (n_block * p + room - 1) / room * ((double)n_step / p + (p > 1 ? 3 : 0));
        if (t < least) {
            least = t;
            best = p;
        }
    }
    return best;
}

/* Wide products of `per` rows a block. */
template <int NC, enum form F, typename E>
static void many(int per, int n_item, const struct work &k, const struct source &src, const E &epi,
                 cudaStream_t s)
{
    /* of a product with one form for all numbers of rows as if there were few rows */
    int n_block = (k.one_form ? 1 : n_item) * ((k.n_tile + 7) / 8);
    int parts = k.group ? 1 : dense_parts(n_block, k.n_step, per > 128 ? 1 : 2);
    if (card()->major != 9)
        wide_n<NC, F>(per, n_item, k, src, epi, s);
    else if (per <= 64)
        warpgroup_go<F, 64, F == FORM_MX ? 4 : 2>(k, src, epi, n_item, parts, s);
    else if (per <= 128)
        warpgroup_go<F, 128, F == FORM_BF16 ? 1 : 2>(k, src, epi, n_item, parts, s);
    else
        warpgroup_go<F, 256, 2>(k, src, epi, n_item, parts, s);
}

#endif
