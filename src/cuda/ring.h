/* Products of many rows on Hopper: weights and activations pass through a ring of stages in shared
 * memory, a step of the inputs each. One thread has the copy engine fill them; W warpgroups of 64
 * outputs each empty them, so that many steps are under way whatever the registers hold. A block
 * goes from turn to turn, and the ring fills for the next one while the last writes its results.
 *
 * A stage: activations, N rows of 128 bytes whose 16-byte pieces are swizzled as wgmma wants; the
 * weights of 4 W tiles in fragment order, which a lane reads as it would from global memory; their
 * scales. Two barriers tell that it is full and that it is empty.
 */
#ifndef CUDA_RING_H
#define CUDA_RING_H

#include "cuda/gemm.h"
#include "cuda/hopper.h"

enum { MAX_STAGES = 16 };

/* What the blocks of a launch go through: items (blocks or groups of rows) times blocks of outputs.
 */
struct ring {
    CUtensorMap x, w, scale;
    int n_stage, stage;  /* the latter in bytes */
    int n_block, n_item; /* n_item says nothing of groups */
};

template <enum form F, int W> struct ring_sizes {
    static const int tile = frag<F>::pieces * 16, scale = frag<F>::scales * 4; /* of a step */
    static const int tiles = 4 * W, weights = tiles * tile, scales = tiles * scale;
};

#ifdef GLOSS_WGMMA
/* An item and a block of outputs. */
struct turn {
    int expert, slot0, n, tile0;
};

template <int W, int N>
static __device__ __forceinline__ struct turn turn_of(const struct work &k, const struct ring &r,
                                                      int i, int n_item)
{
    int item = k.by_rows ? i % n_item : i / r.n_block;
    int tile0 = (k.by_rows ? i / n_item : i % r.n_block) * 4 * W;
    if (k.group) {
        int4 g = k.group[item];
        return {g.x, g.y, g.z, tile0};
    }
    return {0, item * N, min(k.n - item * N, N), tile0};
}

/* The stage in hand. */
struct spot {
    int stage;
    uint32_t phase;
    __device__ __forceinline__ void next(int n)
    {
        if (++stage == n) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* One thread fills the ring, for all turns of the block. */
template <enum form F, int W, int N>
static __device__ __forceinline__ void ring_fill(const struct work &k, const struct ring &r,
                                                 uint32_t base, uint32_t full, uint32_t empty,
                                                 int s0, int n_step, int n_item)
{
    typedef ring_sizes<F, W> size;
    struct spot at = {0, 1};
    auto weights = [&](const struct turn &t, int s, int stage) {
        uint32_t to = base + stage * r.stage + N * 128, bar = full + stage * 8;
        int tile = t.expert * k.n_tile + t.tile0;
        bar_expect(bar, N * 128 + size::weights + size::scales);
        copy_box(to, &r.w, (s0 + s) * (size::tile / 8), tile, bar);
        if (size::scale)
            copy_box(to + size::weights, &r.scale, (s0 + s) * (size::scale / 8), tile, bar);
    };
    /* Of a dense product the first weights are asked for before the kernel before has ended. */
    int ahead = k.group ? 0 : min(r.n_stage, n_step);
    for (int s = 0; s < ahead; s++)
        weights(turn_of<W, N>(k, r, blockIdx.x, n_item), s, s);
    pdl_wait();
    for (int i = blockIdx.x; i < n_item * r.n_block; i += gridDim.x) {
        struct turn t = turn_of<W, N>(k, r, i, n_item);
        for (int s = 0; s < n_step; s++) {
            bar_wait(empty + at.stage * 8, at.phase);
            if (s >= ahead)
                weights(t, s, at.stage);
            copy_box(base + at.stage * r.stage, &r.x, (s0 + s) * STEP, t.slot0,
                     full + at.stage * 8);
            at.next(r.n_stage);
        }
        ahead = 0;
    }
}

static __device__ __forceinline__ uint4 load_shared(uint32_t at)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at));
    return v;
}

static __device__ __forceinline__ uint32_t load_word(uint32_t at)
{
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}

/* What frag.load does, from a stage: w at the lane's pieces, scale at those of the tile. */
static __device__ __forceinline__ void frag_shared(frag<FORM_BF16> &f, uint32_t w, uint32_t, int)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        f.v[i] = load_shared(w + i * 512);
}

static __device__ __forceinline__ void frag_shared(frag<FORM_MX> &f, uint32_t w, uint32_t scale,
                                                   int g)
{
    f.v = load_shared(w);
    f.s = load_word(scale + g * 4);
}

static __device__ __forceinline__ void frag_shared(frag<FORM_Q8> &f, uint32_t w, uint32_t scale,
                                                   int g)
{
    f.v[0] = load_shared(w);
    f.v[1] = load_shared(w + 512);
    f.s.x = load_word(scale + g * 8);
    f.s.y = load_word(scale + g * 8 + 4);
}

/* One turn of the warpgroups that empty the ring. The blocks of a cluster share the inputs; then
 * each adds up, in order, and hands to the epilogue a part of the rows. */
template <enum form F, int W, int N, typename E>
static __device__ __forceinline__ void
ring_turn(const struct work &k, const struct ring &r, const E &epi, const struct turn &t,
          struct spot &at, uint32_t base, uint32_t full, uint32_t empty, int n_step)
{
    typedef ring_sizes<F, W> size;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    uint32_t my_w = base + N * 128 + warp * size::tile + lane * 16;
    uint32_t my_scale = base + N * 128 + size::weights + warp * size::scale;
    float acc[N / 2] = {};
    int last = 0;
    auto release = [&] {
        if (lane == 0)
            bar_arrive(empty + last * 8);
    };
    /* Two sets of registers in turn: the tensor core still reads one while the other is filled. */
    uint32_t a[2][4][4];
    auto step = [&](bool first, uint32_t(&x)[4][4]) {
        uint32_t from = at.stage * r.stage;
        frag<F> f;
        bar_wait(full + at.stage * 8, at.phase);
        frag_shared(f, my_w + from, my_scale + from, g);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            f.slice(i, x[i]);
            /* In registers of its own, not the load's: the assembler must see that what wgmma reads
             * is not written while it runs. `zero` is 0, but it does not know that. */
            for (int j = 0; j < 4 && F == FORM_BF16; j++)
                x[i][j] ^= k.zero;
        }
        /* matrix descriptor: address, rows of 8 every 1024 bytes, 128-byte swizzle */
        uint64_t b = (uint64_t)((base + from) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
        wg_begin();
#pragma unroll
        for (int i = 0; i < 4; i++)
            wgmma(acc, x[i], b + 2 * i);
        wg_end<1>(); /* the step before has ended */
        if (!first)
            release();
        last = at.stage;
        at.next(r.n_stage);
    };
    int s = 0;
    for (; s + 2 <= n_step; s += 2) {
        step(s == 0, a[0]);
        step(false, a[1]);
    }
    if (s < n_step)
        step(s == 0, a[0]);
    wg_end<0>();
    release();
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        asm volatile("" : "+f"(acc[i])::"memory"); /* not read before the wait */
    int tile = t.tile0 + warp;
    auto finish = [&](int i, const float *v) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int row = i * 8 + 2 * q + j;
            if (tile < k.n_tile && row < t.n)
                epi(t.expert, tile, g, t.slot0 + row, v[j], v[2 + j]);
        }
    };
    if (gridDim.z == 1) {
#pragma unroll
        for (int i = 0; i < N / 8; i++)
            finish(i, acc + 4 * i);
        return;
    }
    /* The only turn: when nobody reads stages any more, their place takes the sums. */
    asm volatile("bar.sync 1, %0;" ::"n"(W * 128) : "memory");
    join_cluster<W * 128, N>(acc, base + threadIdx.x * 16, finish);
}
#endif

/* grid (blocks that share out the turns, 1, parts of the inputs); with more than one part, a block
 * a turn. */
template <enum form F, int W, int N, typename E>
static __global__ void __launch_bounds__(W * 128 + 128, 1)
    ring_product(struct work k, const __grid_constant__ struct ring r, E epi)
{
#ifdef GLOSS_WGMMA
    extern __shared__ __align__(1024) char smem[];
    __shared__ __align__(8) uint64_t bars[2 * MAX_STAGES];
    uint32_t base = ((uint32_t)__cvta_generic_to_shared(smem) + 1023) & ~1023u;
    uint32_t full = (uint32_t)__cvta_generic_to_shared(bars), empty = full + MAX_STAGES * 8;
    if (!k.group)
        pdl_go();
    if (threadIdx.x == 0) {
        for (int i = 0; i < r.n_stage; i++) {
            bar_init(full + i * 8, 1);
            bar_init(empty + i * 8, W * 4);
        }
        bar_ready();
    }
    __syncthreads();
    int s0 = (int)blockIdx.z * k.n_step / (int)gridDim.z;
    int n_step = ((int)blockIdx.z + 1) * k.n_step / (int)gridDim.z - s0;
    if (k.group) { /* as take_group */
        pdl_wait();
        pdl_go();
    }
    int n_item = k.group ? *k.n_group : r.n_item;
    if (threadIdx.x >= W * 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(W == 2 ? 40 : 32));
        if (threadIdx.x == W * 128)
            ring_fill<F, W, N>(k, r, base, full, empty, s0, n_step, n_item);
        __syncwarp();
        if (gridDim.z > 1) { /* as in join_cluster */
            cluster_sync();
            cluster_sync();
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(W == 2 ? 232 : 160));
        pdl_wait();
        struct spot at = {0, 0};
        for (int i = blockIdx.x; i < n_item * r.n_block; i += gridDim.x)
            ring_turn<F, W, N, E>(k, r, epi, turn_of<W, N>(k, r, i, n_item), at, base, full, empty,
                                  n_step);
    }
#endif
}

/* How a product goes round: W warpgroups of 64 outputs times N rows, the inputs in n_part parts. */
template <enum form F, int W, int N, typename E> struct ring_launch {
    typedef ring_sizes<F, W> size;
    static const int stage = (N * 128 + size::weights + size::scales + 1023) & ~1023;

    static int stages()
    {
        int n = ((int)card()->max_smem - 2048) / stage; /* beside the barriers */
        return n < MAX_STAGES ? n : MAX_STAGES;
    }
    static size_t smem()
    {
        return (size_t)stages() * stage + 1024; /* so that they may begin at 1024 */
    }
    static int blocks(int n_tile)
    {
        return (n_tile + size::tiles - 1) / size::tiles;
    }
    /* Clusters of n_part blocks that the card holds. */
    static int room(int n_part)
    {
        static int known[9];
        if (!known[n_part]) {
            cudaLaunchAttribute at = {};
            at.id = cudaLaunchAttributeClusterDimension;
            at.val.clusterDim.x = at.val.clusterDim.y = 1;
            at.val.clusterDim.z = n_part;
            cudaLaunchConfig_t c = {};
            c.gridDim = dim3(1, 1, n_part);
            c.blockDim = dim3(W * 128 + 128);
            c.dynamicSmemBytes = smem();
            c.attrs = &at;
            c.numAttrs = 1;
            allow_smem(ring_product<F, W, N, E>, smem());
            CU(cudaOccupancyMaxActiveClusters(&known[n_part], ring_product<F, W, N, E>, &c));
            if (known[n_part] < 1)
                known[n_part] = 1;
        }
        return known[n_part];
    }
    /* Time of n rows, of a step of a row and an output each; joining costs about six steps. */
    static double cost(const struct work &k, int n, int n_part)
    {
        int turns = blocks(k.n_tile) * ((n + N - 1) / N), per = room(n_part);
        double steps = (double)k.n_step / n_part + (n_part > 1 ? 6 : 0);
        return (turns + per - 1) / per * steps * W * N;
    }
    /* x_rows: rows of the activations in all. */
    static void go(const struct work &k, const struct source &src, const E &epi, int x_rows,
                   int n_expert, int n_item, int n_part, cudaStream_t s)
    {
        struct ring r = {};
        size_t tiles = (size_t)k.n_tile * n_expert, steps = k.n_step;
        r.x = box_map(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, src.xn, steps * STEP, x_rows,
                      (size_t)src.ld * 2, STEP, N, true);
        r.w = box_map(CU_TENSOR_MAP_DATA_TYPE_INT64, k.w, steps * size::tile / 8, tiles,
                      steps * size::tile, size::tile / 8, size::tiles, false);
        if (size::scale)
            r.scale = box_map(CU_TENSOR_MAP_DATA_TYPE_INT64, k.scale, steps * size::scale / 8,
                              tiles, steps * size::scale, size::scale / 8, size::tiles, false);
        r.stage = stage;
        r.n_stage = stages();
        r.n_block = blocks(k.n_tile);
        r.n_item = n_item;
        int turns = r.n_block * n_item, n_sm = card()->n_sm;
        allow_smem(ring_product<F, W, N, E>, smem());
        launch<true>(ring_product<F, W, N, E>,
                     dim3(n_part > 1 || turns < n_sm ? turns : n_sm, 1, n_part), W * 128 + 128,
                     smem(), s, k, r, epi);
    }
};

/* A dense product, in the shape and the number of parts whose rounds take the least time. */
template <enum form F, typename E>
static void ring_dense(const struct work &k, const struct source &src, const E &epi, cudaStream_t s)
{
    typedef ring_launch<F, 3, 128, E> tall;
    typedef ring_launch<F, 2, 256, E> wide;
    int part = 1;
    for (int p = 2; p <= 4 && k.n_step / p >= 4; p *= 2)
        if (tall::cost(k, k.n, p) < tall::cost(k, k.n, part))
            part = p;
    /* Of equal size the second is a little faster. */
    if (0.95 * wide::cost(k, k.n, 1) < tall::cost(k, k.n, part))
        wide::go(k, src, epi, k.n, 1, (k.n + 255) / 256, 1, s);
    else
        tall::go(k, src, epi, k.n, 1, (k.n + 127) / 128, part, s);
}

#endif
