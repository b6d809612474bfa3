/* One decoding row: what a single stream waits for. Four kernels a layer beside attention.
 *
 * `qkv_one` norms the row and makes queries, keys and values. `out_one` adds the output projection
 * to the residual and, as it has the new numbers at hand, each block's share of the router's
 * products. `gate_one` adds up the shares, chooses the experts and computes gate and up;
 * `down_one` the rest.
 *
 * What counts is that memory is never idle and that nothing is asked for late. Weights that are
 * known before the kernel before has ended are on their way by then: those of attention's matrices
 * into shared memory, `down`'s into registers, as MXFP4 pays for each instruction. Of what else a
 * kernel reads, constants come before the wait and the rest right behind it, so that the end of a
 * block is arithmetic and a store. Bounds on registers and shared memory let blocks of two kernels,
 * but not two of one kernel where it has one for each SM, share an SM.
 *
 * Attention's matrices are cut into more chains than for several rows, one a warp, and a step adds
 * to two sums, since what a lone warp waits for is the tensor core.
 */
#include "cuda/frag.h"

#include <cuda_fp8.h>

/* ---- weights on their way ---- */

static __device__ __forceinline__ void take(frag<FORM_BF16> &f, const uint4 *w, const uint32_t *)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        f.v[i] = w[i * 32];
}

static __device__ __forceinline__ void take(frag<FORM_Q8> &f, const uint4 *w, const uint32_t *scale)
{
    f.v[0] = w[0];
    f.v[1] = w[32];
    f.s = *(const uint2 *)scale;
}

/* A step into two sums, each with half of its slices. */
template <enum form F>
static __device__ __forceinline__ void step_two(frag<F> &f, uint32_t b, float acc[2][4])
{
    uint32_t x[8];
    ldmatrix4(x, b);
    ldmatrix4(x + 4, b + 64);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t a[4];
        f.slice(i, a);
        mma(acc[i / 2], a, x[2 * i], x[2 * i + 1]);
    }
}

/* A warp's chain of a tile, every `apart`-th step of it, on its way through the warp's own ring of
 * D steps in shared memory; behind the ring lie the scales of all. A lane copies the very bytes it
 * will read, so weights need no barrier; scales, which a lane shares with its neighbours, one of
 * the warp. */
template <enum form F, int D> struct pipe {
    static const int step = frag<F>::pieces * 16, scale_step = frag<F>::scales * 4; /* bytes */
    const char *from;
    int n, left, apart, ring, to; /* ring: its place in shared memory; to: within the ring */

    /* Bytes of shared memory for a chain of n steps. */
    static __host__ __device__ int bytes(int n)
    {
        return D * step + n * scale_step;
    }
    __device__ __forceinline__ void fetch()
    {
        extern __shared__ __align__(16) char smem[];
        if (left > 0) {
            uint32_t t = (uint32_t)__cvta_generic_to_shared(smem) + ring + to;
#pragma unroll
            for (int j = 0; j < step; j += 512)
                copy_async(t + j, from + j);
            to = to == (D - 1) * step ? 0 : to + step;
            from += apart * step;
            left--;
        }
        asm volatile("cp.async.commit_group;");
    }
    /* n steps from number s0 of the tile on; D of them under way. The warp's part of shared memory
     * begins at `mem`. */
    __device__ __forceinline__ void begin(const struct dmat &m, int tile, int s0, int n_step,
                                          int apart_, int mem)
    {
        extern __shared__ __align__(16) char smem[];
        int lane = threadIdx.x % 32;
        size_t first = (size_t)tile * m.n_step + s0;
        n = left = n_step;
        apart = apart_;
        to = 0;
        from = (const char *)m.w + first * step + lane * 16;
        ring = mem + lane * 16;
        if constexpr (frag<F>::scales > 0) {
            uint32_t t = (uint32_t)__cvta_generic_to_shared(smem) + mem + D * step;
            const char *f = (const char *)m.scale + first * scale_step;
            for (int j = lane * 16; j < n * scale_step; j += 512)
                copy_async(t + j, f + j / scale_step * apart * scale_step + j % scale_step);
        }
#pragma unroll 1
        for (int i = 0; i < D; i++)
            fetch();
    }
    /* b: where the chain's first step of the row lies, lane / 8 * 16 further. */
    __device__ __forceinline__ void run(uint32_t b, float acc[2][4])
    {
        extern __shared__ __align__(16) char smem[];
        int slot = ring, scale = ring - threadIdx.x % 32 * 16 + D * step +
                                 threadIdx.x % 32 / 4 * (scale_step / 8);
#pragma unroll 2
        for (int i = 0; i < n; i++) {
            frag<F> f;
            asm volatile("cp.async.wait_group %0;" ::"n"(D - 1) : "memory");
            if (frag<F>::scales > 0)
                __syncwarp();
            take(f, (const uint4 *)(smem + slot), (const uint32_t *)(smem + scale));
            step_two<F>(f, b, acc);
            slot = slot == ring + (D - 1) * step ? ring : slot + step;
            scale += scale_step;
            b += apart * STEP * 2;
            fetch();
        }
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
};

/* Rows g and g + 8 of a chain's sums, `part` [TILE_ROWS]. */
static __device__ __forceinline__ void put_sums(float *part, const float acc[2][4])
{
    int g = threadIdx.x % 32 / 4;
    if (threadIdx.x % 4 == 0) {
        part[g] = acc[0][0] + acc[1][0];
        part[g + 8] = acc[0][2] + acc[1][2];
    }
}

template <int NC>
static __device__ __forceinline__ float add_chains(const float (*part)[TILE_ROWS], int row)
{
    float y = part[0][row];
#pragma unroll
    for (int c = 1; c < NC; c++)
        y += part[c][row];
    return y;
}

/* Steps of the longest of n chains. */
static __host__ __device__ int longest(int n_step, int n)
{
    return (n_step + n - 1) / n;
}

/* Shared memory of blocks of which an SM shall hold one: else some would get two, others none. */
static size_t one_an_sm(size_t bytes)
{
    size_t half = card()->max_smem / 2 + 1024;
    return bytes > half ? bytes : half;
}

/* Does the card's shared memory hold that beside what a kernel has of its own? */
static bool fits(size_t bytes)
{
    return bytes + 4096 <= card()->max_smem;
}

/* Blocks for n tiles, at most `most` of them in one: one an SM if that is enough. */
static int blocks_for(int n, int most)
{
    int few = (n + most - 1) / most;
    return few > card()->n_sm ? few : n < card()->n_sm ? n : card()->n_sm;
}

/* Warps of the blocks that norm the row: enough for a thread to have four numbers of it. */
enum { ROW_WARPS = 24 };

/* ---- queries, keys and values ---- */

enum { QKV_TILES = 3, QKV_CHAINS = ROW_WARPS / QKV_TILES };

struct qkv_args {
    struct dmat m;
    const float *bias, *x, *norm;
    float eps;
    const int4 *single;
    const int32_t *table;
    struct qkv_out o;
};

/* Which numbers the rows g and g + 8 of a tile are. */
struct qkv_pair {
    int head, kv, d, apart; /* of all heads; of the keys' or values'; the first's place, on to the
                               second's */
    bool is_q, is_v;
    __device__ __forceinline__ qkv_pair(const struct qkv_out &o, int tile, int g)
    {
        head = tile / 4;
        is_q = head < o.n_head;
        is_v = head >= o.n_head + o.n_kv_head;
        kv = head - o.n_head - (is_v ? o.n_kv_head : 0);
        d = is_v ? tile % 4 * 16 + g : tile % 4 * 8 + g;
        apart = is_v ? 8 : HEAD / 2;
    }
};

/* What such a pair needs at the end, asked for early. */
struct qkv_end {
    float lo, hi, cos, sin; /* bias, rotation */
    int page, slot;         /* in the cache */

    __device__ __forceinline__ void bias(const struct qkv_args &a, int tile, int g)
    {
        struct qkv_pair p(a.o, tile, g);
        lo = __ldg(a.bias + p.head * HEAD + p.d);
        hi = __ldg(a.bias + p.head * HEAD + p.d + p.apart);
    }
    /* rec: the row's, of dstep.single. */
    __device__ __forceinline__ void more(const struct qkv_args &a, int4 rec, int tile, int g)
    {
        struct qkv_pair p(a.o, tile, g);
        cos = p.is_v ? 1 : __ldcg(a.o.cos + p.d);
        sin = p.is_v ? 0 : __ldcg(a.o.sin + p.d);
        page = p.is_q ? 0 : __ldg(a.table + (a.o.sliding ? rec.w : rec.z) + rec.y / KV_PAGE);
        slot = rec.y % KV_PAGE;
    }
    __device__ __forceinline__ void put(const struct qkv_args &a, int tile, int g, float y,
                                        float z) const
    {
        const struct qkv_out &o = a.o;
        struct qkv_pair p(o, tile, g);
        /* 1/sqrt(64) and log2(e), so that attention works with powers of two */
        const float f = p.is_q ? 0.125f * 1.4426950408889634f : 1;
        y = y * a.m.gain + lo;
        z = z * a.m.gain + hi;
        float u = (y * cos - z * sin) * f, v = (z * cos + y * sin) * f;
        int apart = p.is_v ? p.apart * KV_PAGE : p.apart;
        size_t at = ((size_t)o.i_layer * o.n_kv_head + p.kv) * (2 * KV_PAGE * HEAD) +
                    (p.is_v ? KV_PAGE * HEAD + p.d * KV_PAGE + slot : slot * HEAD + p.d);
        uint8_t *cache = o.pool.p + (size_t)page * o.pool.page;
        if (!p.is_q && o.pool.f8) {
            cache[at] = __nv_cvt_float_to_fp8(u, __NV_SATFINITE, __NV_E4M3);
            cache[at + apart] = __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
            return;
        }
        __nv_bfloat16 *to = p.is_q ? o.q + p.head * HEAD + p.d : (__nv_bfloat16 *)cache + at;
        to[0] = __float2bfloat16(u);
        to[apart] = __float2bfloat16(v);
    }
};

/* A block takes up to QKV_TILES tiles, a warp a chain. */
template <enum form F, int D>
static __global__ void __launch_bounds__(ROW_WARPS * 32, 2) qkv_one(struct qkv_args a)
{
    extern __shared__ __align__(16) char smem[]; /* the normed row, the warps' weights */
    constexpr int NC = QKV_CHAINS;
    __shared__ float part[ROW_WARPS][TILE_ROWS], squares[ROW_WARPS];
    const struct dmat &m = a.m;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, chain = warp % NC;
    int t0 = blockIdx.x * m.n_tile / gridDim.x, t1 = (blockIdx.x + 1) * m.n_tile / gridDim.x;
    int n = (m.n_step - chain + NC - 1) / NC, tile = t0 + warp / NC;
    pipe<F, D> p;
    p.begin(m, tile, chain, tile < t1 ? n : 0, NC,
            m.n_step * STEP * 2 + warp * pipe<F, D>::bytes(longest(m.n_step, NC)));
    pdl_go();
    struct qkv_end end;
    int4 rec = __ldg(a.single);
    int mine = t0 + threadIdx.x / 8, g = threadIdx.x % 8; /* the pair that a thread ends */
    bool ends = threadIdx.x < QKV_TILES * 8 && mine < t1;
    if (ends)
        end.bias(a, mine, g);
    int d = m.n_in, at = threadIdx.x;
    float4 v = make_float4(0, 0, 0, 0), k = v;
    if (at < d / 4)
        k = __ldg((const float4 *)a.norm + at);
    pdl_wait();
    if (at < d / 4)
        v = __ldcg((const float4 *)a.x + at);
    if (ends)
        end.more(a, rec, mine, g);
    float sq = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    for (int o = 16; o; o >>= 1)
        sq += __shfl_xor_sync(~0u, sq, o);
    if (lane == 0)
        squares[warp] = sq;
    __syncthreads();
    sq = 0;
#pragma unroll
    for (int i = 0; i < ROW_WARPS; i++)
        sq += squares[i];
    float f = rsqrtf(sq / (float)d + a.eps);
    if (at < m.n_step * STEP / 4)
        ((uint2 *)smem)[at] = make_uint2(pack_bf16(v.x * f * k.x, v.y * f * k.y),
                                         pack_bf16(v.z * f * k.z, v.w * f * k.w));
    __syncthreads();
    float acc[2][4] = {};
    p.run((uint32_t)__cvta_generic_to_shared(smem) + lane / 8 * 16 + chain * STEP * 2, acc);
    put_sums(part[warp], acc);
    __syncthreads();
    if (ends) {
        const float(*sums)[TILE_ROWS] = part + threadIdx.x / 8 * NC;
        end.put(a, mine, g, add_chains<NC>(sums, g), add_chains<NC>(sums, g + 8));
    }
}

template <enum form F, int D> static size_t qkv_smem(const struct dmat &m)
{
    return one_an_sm((size_t)m.n_step * STEP * 2 +
                     (size_t)ROW_WARPS * pipe<F, D>::bytes(longest(m.n_step, QKV_CHAINS)));
}

template <enum form F, int D> static void qkv_go(const struct qkv_args &a, cudaStream_t s)
{
    const struct dmat &m = a.m;
    size_t smem = qkv_smem<F, D>(m);
    allow_smem(qkv_one<F, D>, smem);
    launch(qkv_one<F, D>, dim3(blocks_for(m.n_tile, QKV_TILES)), ROW_WARPS * 32, smem, s, a);
}

void k_qkv_one(const struct dlayer *l, const struct dstep *st, const float *x, float eps,
               const struct qkv_out *out, cudaStream_t s)
{
    struct qkv_args a = {l->qkv, l->b_qkv, x, l->attn_norm, eps, st->single, st->table, *out};
    bool room = fits(qkv_smem<FORM_BF16, 3>(a.m));
    (l->qkv.scale ? qkv_go<FORM_Q8, 2> : room ? qkv_go<FORM_BF16, 3> : qkv_go<FORM_BF16, 1>)(a, s);
}

/* ---- output projection ---- */

enum { OUT_CHAINS = 8 };

/* A block a tile, a warp a chain. */
template <enum form F, int D>
static __global__ void __launch_bounds__(OUT_CHAINS * 32, 4)
    out_one(struct dmat m, const float *bias, const __nv_bfloat16 *attn, const float *router_t,
            int ld_router, float *x, float *share)
{
    /* The row, each warp its chain's part; the router's weights of the tile's rows; weights. */
    extern __shared__ __align__(16) char smem[];
    constexpr int NC = OUT_CHAINS;
    __shared__ float part[NC][TILE_ROWS], xs[TILE_ROWS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, tile = blockIdx.x;
    int n = (m.n_step - warp + NC - 1) / NC, o = tile * TILE_ROWS + threadIdx.x;
    bool ends = threadIdx.x < TILE_ROWS && o < m.n_out;
    float *w = (float *)(smem + m.n_step * STEP * 2);
    for (int i = threadIdx.x * 4; i < TILE_ROWS * ld_router; i += OUT_CHAINS * 32 * 4)
        copy_async((uint32_t)__cvta_generic_to_shared(w + i),
                   router_t + (size_t)tile * TILE_ROWS * ld_router + i);
    pipe<F, D> p;
    p.begin(m, tile, warp, n, NC,
            m.n_step * STEP * 2 + TILE_ROWS * ld_router * 4 +
                warp * pipe<F, D>::bytes(longest(m.n_step, NC)));
    pdl_go();
    float plus = ends ? __ldg(bias + o) : 0;
    pdl_wait();
    if (ends)
        plus += __ldcg(x + o);
    uint4 *row = (uint4 *)smem;
    for (int i = lane; i < n * 8; i += 32) {
        int at = (i / 8 * NC + warp) * 8 + i % 8;
        row[at] = __ldcg((const uint4 *)attn + at);
    }
    __syncwarp();
    float acc[2][4] = {};
    p.run((uint32_t)__cvta_generic_to_shared(smem) + lane / 8 * 16 + warp * STEP * 2, acc);
    put_sums(part[warp], acc);
    __syncthreads();
    if (threadIdx.x < TILE_ROWS) {
        float y = ends ? add_chains<NC>(part, threadIdx.x) * m.gain + plus : 0;
        if (ends)
            x[o] = y;
        xs[threadIdx.x] = y;
    }
    __syncthreads();
    if (threadIdx.x < ld_router) {
        float s = 0;
#pragma unroll
        for (int i = 0; i < TILE_ROWS; i++)
            s = fmaf(xs[i], w[i * ld_router + threadIdx.x], s);
        share[tile * ld_router + threadIdx.x] = s;
    }
}

template <enum form F, int D> static size_t out_smem(const struct dlayer *l)
{
    return (size_t)l->o.n_step * STEP * 2 + (size_t)TILE_ROWS * (size_t)l->ld_router * 4 +
           (size_t)OUT_CHAINS * pipe<F, D>::bytes(longest(l->o.n_step, OUT_CHAINS));
}

template <enum form F, int D>
static void out_go(const struct dlayer *l, const __nv_bfloat16 *attn, float *x, float *share,
                   cudaStream_t s)
{
    size_t smem = out_smem<F, D>(l);
    allow_smem(out_one<F, D>, smem);
    launch(out_one<F, D>, dim3(l->o.n_tile), OUT_CHAINS * 32, smem, s, l->o, l->b_o, attn,
           l->router_t, l->ld_router, x, share);
}

void k_out_one(const struct dlayer *l, const __nv_bfloat16 *attn, float *x, float *share,
               cudaStream_t s)
{
    bool room = fits(out_smem<FORM_BF16, 6>(l));
    (l->o.scale ? out_go<FORM_Q8, 8>
     : room     ? out_go<FORM_BF16, 6>
                : out_go<FORM_BF16, 4>)(l, attn, x, share, s);
}

/* ---- experts ---- */

enum { GATE_CHAINS = 2, DOWN_WARPS = 16, DOWN_CHAINS = 4, ONE_EXPERTS = 128 };

bool one_row_fits(const struct dlayer *l, int n_expert)
{
    return n_expert <= ONE_EXPERTS && !l->gate.scale == !l->down.scale && !l->gate.row_gain;
}

struct gate_args {
    struct dmat m;
    const float *x, *norm, *share, *b_router, *bias;
    int ld_router, n_share, n_expert, n_active, d_ff, ld_ff;
    float eps, alpha, limit;
    float up;          /* raise of ff, as down_one wants it */
    __nv_bfloat16 *ff; /* [n_active, ld_ff] */
    int32_t *expert;   /* [n_active] */
    float *weight;     /* [n_active] */
};

/* The normed row into xn, raised for MXFP4 (frag.h), and the chosen experts with their scores,
 * likeliest first. */
static __device__ __forceinline__ void route_one(const struct gate_args &a, uint2 *xn, int *expert,
                                                 float *chosen)
{
    __shared__ __align__(16) float sums[ROW_WARPS][ONE_EXPERTS], score[ONE_EXPERTS];
    __shared__ float squares[ROW_WARPS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, at = threadIdx.x;
    int d = a.m.n_in, n_quad = a.ld_router / 4;
    float4 v = make_float4(0, 0, 0, 0), k = v, s = v;
    float bias = 0;
    if (at < d / 4)
        k = __ldg((const float4 *)a.norm + at);
    if (at < a.n_expert)
        bias = __ldg(a.b_router + at);
    pdl_wait();
    if (at < d / 4)
        v = __ldcg((const float4 *)a.x + at);
#pragma unroll 4
    for (int t = at / n_quad; t < a.n_share; t += ROW_WARPS * 32 / n_quad) {
        float4 u = __ldcg((const float4 *)a.share + t * n_quad + at % n_quad);
        s.x += u.x;
        s.y += u.y;
        s.z += u.z;
        s.w += u.w;
    }
    float sq = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    for (int o = 16; o; o >>= 1)
        sq += __shfl_xor_sync(~0u, sq, o);
    for (int o = 16; o >= n_quad; o >>= 1) {
        s.x += __shfl_xor_sync(~0u, s.x, o);
        s.y += __shfl_xor_sync(~0u, s.y, o);
        s.z += __shfl_xor_sync(~0u, s.z, o);
        s.w += __shfl_xor_sync(~0u, s.w, o);
    }
    if (lane < n_quad)
        *(float4 *)&sums[warp][lane * 4] = s;
    if (lane == 0)
        squares[warp] = sq;
    if (at < a.n_active) { /* should NaN leave a place empty */
        expert[at] = 0;
        chosen[at] = 0;
    }
    __syncthreads();
    float total = 0, mine = 0, up = a.m.scale ? raise : 1;
#pragma unroll
    for (int i = 0; i < ROW_WARPS; i++)
        total += squares[i];
    float f = rsqrtf(total / (float)d + a.eps);
    if (at < a.ld_router) {
#pragma unroll
        for (int i = 0; i < ROW_WARPS; i++)
            mine += sums[i][at];
        mine = at < a.n_expert ? mine * f + bias : -INFINITY;
        score[at] = mine;
    }
    if (at < a.m.n_step * STEP / 4)
        xn[at] = make_uint2(pack_bf16(v.x * f * k.x * up, v.y * f * k.y * up),
                            pack_bf16(v.z * f * k.z * up, v.w * f * k.w * up));
    __syncthreads();
    if (at < a.n_expert) {
        int rank = 0; /* the lower index first among equals */
#pragma unroll 4
        for (int e = 0; e < a.ld_router; e += 4) {
            float4 u = *(const float4 *)(score + e);
            rank += u.x > mine || (u.x == mine && e < at);
            rank += u.y > mine || (u.y == mine && e + 1 < at);
            rank += u.z > mine || (u.z == mine && e + 2 < at);
            rank += u.w > mine || (u.w == mine && e + 3 < at);
        }
        if (rank < a.n_active) {
            expert[rank] = at;
            chosen[rank] = mine;
        }
    }
    __syncthreads();
}

/* The first block tells the kernels behind whom it has chosen. */
static __device__ __forceinline__ void tell(const struct gate_args &a, const int *expert,
                                            const float *chosen)
{
    int at = threadIdx.x;
    if (blockIdx.x > 0)
        return;
    if (at < a.n_active) {
        float sum = 0;
        for (int j = 0; j < a.n_active; j++)
            sum += expf(chosen[j] - chosen[0]);
        a.weight[at] = expf(chosen[at] - chosen[0]) / sum;
        a.expert[at] = expert[at];
        __threadfence();
    }
    __syncthreads();
}

/* A pair of warps a tile of an expert, a warp a chain; one block an SM. */
template <enum form F>
static __global__ void __launch_bounds__(ROW_WARPS * 32, 1) gate_one(struct gate_args a)
{
    constexpr int D = F == FORM_MX ? 4 : 2, NC = GATE_CHAINS, PAIRS = ROW_WARPS / NC;
    extern __shared__ __align__(16) char smem[]; /* the normed row */
    __shared__ float part[ROW_WARPS][TILE_ROWS];
    __shared__ int expert[SPEC_MAX_ACTIVE];
    __shared__ float chosen[SPEC_MAX_ACTIVE];
    const struct dmat &m = a.m;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int chain = warp % NC, n_item = m.n_tile * a.n_active;
    int i0 = blockIdx.x * n_item / gridDim.x, i1 = (blockIdx.x + 1) * n_item / gridDim.x;
    int s0 = chain * m.n_step / NC, n = (chain + 1) * m.n_step / NC - s0;
    route_one(a, (uint2 *)smem, expert, chosen);
    bool told = false;
    for (; i0 < i1; i0 += PAIRS) {
        int item = i0 + warp / NC, j = item / m.n_tile, tile = item % m.n_tile;
        int o = tile * 8 + lane;
        bool on = item < i1, ends = on && chain == 0 && lane < 8 && o < a.d_ff;
        place<F> p(m.w, m.scale, on ? ((size_t)expert[j] * m.n_tile + tile) * m.n_step + s0 : 0,
                   lane);
        frag<F> f[D];
        chain_begin<F, D>(f, p, on ? n : 0);
        float2 bias = make_float2(0, 0);
        if (ends)
            bias = __ldg((const float2 *)a.bias + (size_t)expert[j] * a.d_ff + o);
        if (!told) {
            tell(a, expert, chosen);
            pdl_go(); /* the experts stand: down_one counts on it */
            told = true;
        }
        float acc[1][4] = {};
        uint32_t b[1] = {(uint32_t)__cvta_generic_to_shared(smem) + lane / 8 * 16 + s0 * STEP * 2};
        chain_run<F, D, 1>(f, p, on ? n : 0, b, acc);
        if (q == 0) {
            part[warp][g] = acc[0][0];
            part[warp][g + 8] = acc[0][2];
        }
        __syncthreads();
        if (ends) {
            float f = raised<F, 1>() ? lower * m.gain : m.gain;
            float lo = add_chains<NC>(part + warp, lane) * f + bias.x;
            float hi = add_chains<NC>(part + warp, lane + 8) * f + bias.y;
            a.ff[(size_t)j * a.ld_ff + o] =
                __float2bfloat16(swiglu(lo, hi, a.alpha, a.limit) * a.up);
        }
        if (i0 + PAIRS < i1)
            __syncthreads();
    }
}

void k_gate_one(const struct dlayer *l, const float *x, const float *share, int n_expert,
                int n_active, float eps, float alpha, float limit, const struct droute *r,
                __nv_bfloat16 *ff, cudaStream_t s)
{
    struct gate_args a = {l->gate,     x,         l->mlp_norm,  share,
                          l->b_router, l->b_gate, l->ld_router, l->o.n_tile,
                          n_expert,    n_active,  l->down.n_in, l->down.n_step * STEP,
                          eps,         alpha,     limit,        l->down.scale ? raise : 1,
                          ff,          r->expert, r->weight};
    /* each block has an item, the first above all: it tells the choice */
    int n_item = l->gate.n_tile * n_active, n_block = n_item < card()->n_sm ? n_item : card()->n_sm;
    launch(l->gate.scale ? gate_one<FORM_MX> : gate_one<FORM_BF16>, dim3(n_block), ROW_WARPS * 32,
           (size_t)l->gate.n_step * STEP * 2, s, a);
}

struct down_args {
    struct dmat m;
    const float *bias;
    const int32_t *expert;
    const float *weight;
    int n_active;
    const __nv_bfloat16 *ff;
    float *x;
};

/* The experts of a tile in one block, a warp a chain, and their weighted sum. It may begin when the
 * choice of experts stands, before gate_one has ended. */
template <enum form F>
static __global__ void __launch_bounds__(DOWN_WARPS * 32, 2) down_one(struct down_args a)
{
    extern __shared__ __align__(16) char smem[]; /* [n_active] rows, a warp its chain's part */
    constexpr int D = F == FORM_MX ? 4 : 2, NC = DOWN_CHAINS, SETS = DOWN_WARPS / NC;
    __shared__ float part[SPEC_MAX_ACTIVE][NC][TILE_ROWS], y[SPEC_MAX_ACTIVE][TILE_ROWS];
    const struct dmat &m = a.m;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int tile = blockIdx.x, chain = warp % NC, ld = m.n_step * STEP;
    int s0 = chain * m.n_step / NC, n = (chain + 1) * m.n_step / NC - s0;
    /* A thread ends one output of one expert. */
    int j_end = threadIdx.x / TILE_ROWS, r = threadIdx.x % TILE_ROWS, o = tile * TILE_ROWS + r;
    bool ends = j_end < a.n_active && o < m.n_out;
    float bias = 0, weight = 0, old = 0;
    for (int j = warp / NC; j < a.n_active; j += SETS) {
        place<F> p(m.w, m.scale, ((size_t)__ldcg(a.expert + j) * m.n_tile + tile) * m.n_step + s0,
                   lane);
        frag<F> f[D];
        chain_begin<F, D>(f, p, n);
        if (j < SETS) {
            pdl_go();
            if (ends) {
                bias = __ldg(a.bias + (size_t)__ldcg(a.expert + j_end) * m.n_out + o);
                weight = __ldcg(a.weight + j_end);
            }
            pdl_wait();
            if (ends && j_end == 0)
                old = __ldcg(a.x + o);
        }
        uint4 *row = (uint4 *)(smem + j * ld * 2);
        for (int i = s0 * 8 + lane; i < (s0 + n) * 8; i += 32)
            row[i] = __ldcg((const uint4 *)(a.ff + j * ld) + i);
        __syncwarp();
        float acc[1][4] = {};
        uint32_t b[1] = {(uint32_t)__cvta_generic_to_shared(row) + lane / 8 * 16 + s0 * STEP * 2};
        chain_run<F, D, 1>(f, p, n, b, acc);
        if (q == 0) {
            part[j][chain][g] = acc[0][0];
            part[j][chain][g + 8] = acc[0][2];
        }
    }
    __syncthreads();
    if (ends)
        y[j_end][r] =
            weight *
            (add_chains<NC>(part[j_end], r) * (raised<F, 1>() ? lower * m.gain : m.gain) + bias);
    __syncthreads();
    if (ends && j_end == 0) {
        for (int j = 0; j < a.n_active; j++)
            old += y[j][r];
        a.x[o] = old;
    }
}

void k_down_one(const struct dlayer *l, const struct droute *r, int n_active,
                const __nv_bfloat16 *ff, float *x, cudaStream_t s)
{
    struct down_args a = {l->down, l->b_down, r->expert, r->weight, n_active, ff, x};
    void (*kernel)(struct down_args) = l->down.scale ? down_one<FORM_MX> : down_one<FORM_BF16>;
    size_t smem = (size_t)n_active * (size_t)l->down.n_step * STEP * 2;
    allow_smem(kernel, smem);
    launch(kernel, dim3(l->down.n_tile), DOWN_WARPS * 32, smem, s, a);
}
