/* Matrix products on weights in fragment order (dev.h): the kernels; k_dense.cu and k_experts.cu
 * say which serves what.
 *
 * `thin` serves up to 8 rows, and experts with few tokens: a warp takes one chain of one tile, all
 * activations lie in shared memory, and what counts is how many bytes of weights are under way.
 * `wide` serves more: a block takes 128 outputs times 64 or 128 rows, stages activations through
 * shared memory and runs the chains one after the other, which gives the bits of `thin`.
 * `warpgroup` does the work of `wide` on Hopper's own instructions, in one chain.
 *
 * What a product does with its results is its epilogue: a struct whose operator() receives a
 * tile, a lane's row g and the sums of rows g and g + 8 for one activation row.
 */
#ifndef CUDA_GEMM_H
#define CUDA_GEMM_H

#include "cuda/frag.h"
#include "cuda/wgmma.h"

/* ---- where activations come from ---- */

struct source {
    const __nv_bfloat16 *xn; /* [any, ld] bf16, or NULL: norm the row of x in the kernel */
    int ld;
    const int32_t *row; /* rows of xn or x; NULL: 0, 1, ... */
    const float *x, *norm;
    int d;
    float eps;
};

/* Up to n rows of n_step steps from index i0 into shared memory, `stride` bytes apart, raised
 * (frag.h) or not. Rows to be normed want 256 threads. */
template <bool RAISE>
static __device__ void stage(const struct source &s, int n_step, int i0, int n, char *to,
                             size_t stride, float *part)
{
    if (!s.xn) {
        for (int i = 0; i < n; i++) {
            int r = s.row ? s.row[i0 + i] : i0 + i;
            norm_row(s.x + (size_t)r * s.d, s.norm, s.d, s.ld, s.eps, (uint2 *)(to + i * stride),
                     part);
        }
    } else {
        int chunks = n_step * (STEP / 8);
        for (int i = threadIdx.x; i < n * chunks; i += blockDim.x) {
            int t = i / chunks, k = i % chunks;
            int r = s.row ? s.row[i0 + t] : i0 + t;
            uint4 v = *(const uint4 *)((const char *)(s.xn + (size_t)r * s.ld) + k * 16);
            if (RAISE) {
                uint32_t f = pack_bf16(raise, raise);
                v = make_uint4(mul2(v.x, f), mul2(v.y, f), mul2(v.z, f), mul2(v.w, f));
            }
            *(uint4 *)(to + t * stride + k * 16) = v;
        }
    }
    __syncthreads();
}

/* ---- thin ---- */

struct work {
    const uint4 *w;
    const uint32_t *scale;
    int n_tile, n_step;
    int n;             /* rows; of grouped products it says nothing */
    const int4 *group; /* NULL: not by expert */
    const int32_t *n_group;
    uint32_t zero; /* 0 */
    bool by_rows;  /* order of blocks, see warpgroup */
    bool one_form;
};

/* Waits for the routing; false: there are fewer groups. */
static __device__ __forceinline__ bool take_group(const struct work &k, int i, int *expert,
                                                  int *slot0, int *n)
{
    pdl_wait();
    int4 grp = k.group[i];
    *expert = grp.x;
    *slot0 = grp.y;
    *n = grp.z;
    return i < *k.n_group;
}

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

/* ---- wide ---- */

static __device__ __forceinline__ void copy_async(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
}

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
    pdl_go();
    pdl_wait();
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

/* ---- wide, on Hopper's warpgroup instructions ---- */

#ifdef GLOSS_WGMMA
static __device__ __forceinline__ void wg_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

template <int LEFT> static __device__ __forceinline__ void wg_end()
{
    if (LEFT)
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* Stages of N rows in 96 KB of shared memory, so that two blocks fit an SM; beyond 128 rows it has
 * one, with 192 KB. */
template <int N> struct wg_stages {
    enum { n = N <= 64 ? 10 : N == 96 || N == 192 ? 8 : 6 };
};

static __device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* Four floats of the shared memory of block `rank` of the cluster. */
static __device__ __forceinline__ float4 load_cluster(uint32_t addr, int rank)
{
    uint32_t at;
    float4 v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(addr), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at));
    return v;
}

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
    uint32_t mine = base + threadIdx.x * 16;
#pragma unroll
    for (int t = 0; t < N / 8; t++)
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(mine + t * 4096),
                     "f"(acc[4 * t]), "f"(acc[4 * t + 1]), "f"(acc[4 * t + 2]), "f"(acc[4 * t + 3])
                     : "memory");
    cluster_sync();
    for (int t = part; t < N / 8; t += n_part) {
        float v[4] = {};
        for (int r = 0; r < n_part; r++) {
            float4 u = load_cluster(mine + t * 4096, r);
            v[0] += u.x;
            v[1] += u.y;
            v[2] += u.z;
            v[3] += u.w;
        }
        finish(t, v);
    }
    cluster_sync(); /* nobody leaves while others read its memory */
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

static struct work work_of(const struct dmat *m, int n)
{
    struct work k = {m->w, m->scale, m->n_tile, m->n_step, n, NULL, NULL, 0, false, m->one_form};
    return k;
}

#endif
