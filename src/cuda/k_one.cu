/* One decoding row: what a single stream waits for. Three kernels in place of five.
 *
 * `out_one` adds the output projection to the residual and, as it has the new numbers at hand, each
 * block's share of the router's products. `gate_one` adds up the shares, chooses the experts and
 * computes gate and up; `down_one` the rest.
 *
 * What counts is that memory is never idle: weights are asked for before the kernel before has
 * ended, the first steps of a chain into registers. For that the blocks of two kernels must fit an
 * SM together, hence the bounds on registers.
 */
#include "cuda/frag.h"

/* ---- output projection ---- */

enum { OUT_WARPS = CHAINS_OUT };

/* A block a tile, a warp a chain. */
template <enum form F>
static __global__ void __launch_bounds__(OUT_WARPS * 32, 2)
    out_one(struct dmat m, const float *bias, const __nv_bfloat16 *attn, const float *router_t,
            int ld_router, float *x, float *share)
{
    extern __shared__ __align__(16) char smem[]; /* the row, each warp its chain's part */
    constexpr int D = 4;
    __shared__ float part[OUT_WARPS][TILE_ROWS], xs[TILE_ROWS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int tile = blockIdx.x, s0 = warp * m.n_step / OUT_WARPS, s1 = (warp + 1) * m.n_step / OUT_WARPS;
    pdl_go();
    place<F> p(m.w, m.scale, (size_t)tile * m.n_step + s0, lane);
    frag<F> f[D];
    chain_begin<F, D>(f, p, s1 - s0);
    float w[TILE_ROWS];
    for (int i = 0; i < TILE_ROWS; i++) {
        int o = tile * TILE_ROWS + i;
        w[i] = threadIdx.x < ld_router && o < m.n_out
                   ? __ldg(router_t + (size_t)o * ld_router + threadIdx.x)
                   : 0;
    }
    pdl_wait();
    uint4 *row = (uint4 *)smem;
    for (int i = s0 * 8 + lane; i < s1 * 8; i += 32)
        row[i] = ((const uint4 *)attn)[i];
    __syncwarp();
    float acc[1][4] = {};
    uint32_t b[1] = {(uint32_t)__cvta_generic_to_shared(smem) + lane / 8 * 16 + s0 * STEP * 2};
    chain_run<F, D, 1>(f, p, s1 - s0, b, acc);
    if (q == 0) {
        part[warp][g] = acc[0][0];
        part[warp][g + 8] = acc[0][2];
    }
    __syncthreads();
    if (threadIdx.x < TILE_ROWS) {
        int o = tile * TILE_ROWS + threadIdx.x;
        float y = 0;
        if (o < m.n_out) {
            y = part[0][threadIdx.x];
            for (int c = 1; c < OUT_WARPS; c++)
                y += part[c][threadIdx.x];
            y = y * m.gain + (x[o] + bias[o]);
            x[o] = y;
        }
        xs[threadIdx.x] = y;
    }
    __syncthreads();
    if (threadIdx.x < ld_router) {
        float s = 0;
        for (int i = 0; i < TILE_ROWS; i++)
            s = fmaf(xs[i], w[i], s);
        share[tile * ld_router + threadIdx.x] = s;
    }
}

void k_out_one(const struct dlayer *l, const __nv_bfloat16 *attn, float *x, float *share,
               cudaStream_t s)
{
    launch(l->o.scale ? out_one<FORM_Q8> : out_one<FORM_BF16>, dim3(l->o.n_tile), OUT_WARPS * 32,
           (size_t)l->o.n_step * STEP * 2, s, l->o, l->b_o, attn, l->router_t, l->ld_router, x,
           share);
}

/* ---- experts ---- */

/* Warps of gate_one's blocks, two an SM; 64 registers a thread leave room for others. */
enum { ONE_WARPS = 12, GATE_CHAINS = 2, DOWN_WARPS = 16, DOWN_CHAINS = 4, ONE_EXPERTS = 128 };

bool one_row_fits(const struct dlayer *l, int n_expert)
{
    return n_expert <= ONE_EXPERTS && !l->gate.scale == !l->down.scale;
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

/* The normed row into xn, raised for MXFP4 (frag.h), the chosen experts, likeliest first; the first
 * block tells the others behind it. */
static __device__ void route_one(const struct gate_args &a, uint2 *xn, int *expert)
{
    __shared__ float sums[ONE_WARPS][ONE_EXPERTS], squares[ONE_WARPS], score[ONE_EXPERTS];
    __shared__ float chosen[SPEC_MAX_ACTIVE];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warp = blockDim.x / 32;
    int d = a.m.n_in, n_quad = a.ld_router / 4;
    float4 v[2], k[2], s = make_float4(0, 0, 0, 0);
    float sq = 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int at = threadIdx.x + i * blockDim.x;
        v[i] = at < d / 4 ? __ldcg((const float4 *)a.x + at) : make_float4(0, 0, 0, 0);
        k[i] = at < d / 4 ? __ldg((const float4 *)a.norm + at) : make_float4(0, 0, 0, 0);
    }
#pragma unroll 4
    for (int t = threadIdx.x / n_quad; t < a.n_share; t += blockDim.x / n_quad) {
        float4 u = __ldcg((const float4 *)a.share + t * n_quad + threadIdx.x % n_quad);
        s.x += u.x;
        s.y += u.y;
        s.z += u.z;
        s.w += u.w;
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
        sq += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
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
    if (threadIdx.x < a.n_active) { /* should NaN leave a place empty */
        expert[threadIdx.x] = 0;
        chosen[threadIdx.x] = 0;
    }
    __syncthreads();
    float total = 0;
    for (int i = 0; i < n_warp; i++)
        total += squares[i];
    float f = rsqrtf(total / (float)d + a.eps), mine = 0, up = a.m.scale ? raise : 1;
    if (threadIdx.x < a.n_expert) {
        for (int i = 0; i < n_warp; i++)
            mine += sums[i][threadIdx.x];
        mine = mine * f + __ldg(a.b_router + threadIdx.x);
        score[threadIdx.x] = mine;
    }
    int ld = a.m.n_step * STEP;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int at = threadIdx.x + i * blockDim.x;
        if (at < ld / 4)
            xn[at] = make_uint2(pack_bf16(v[i].x * f * k[i].x * up, v[i].y * f * k[i].y * up),
                                pack_bf16(v[i].z * f * k[i].z * up, v[i].w * f * k[i].w * up));
    }
    __syncthreads();
    if (threadIdx.x < a.n_expert) {
        int rank = 0; /* the lower index first among equals */
        for (int e = 0; e < a.n_expert; e++)
            rank += score[e] > mine || (score[e] == mine && e < threadIdx.x);
        if (rank < a.n_active) {
            expert[rank] = threadIdx.x;
            chosen[rank] = mine;
        }
    }
    __syncthreads();
    if (blockIdx.x == 0 && threadIdx.x < a.n_active) {
        float sum = 0;
        for (int j = 0; j < a.n_active; j++)
            sum += expf(chosen[j] - chosen[0]);
        a.weight[threadIdx.x] = expf(chosen[threadIdx.x] - chosen[0]) / sum;
        a.expert[threadIdx.x] = expert[threadIdx.x];
        __threadfence();
    }
}

/* A pair of warps a tile of an expert, a warp a chain. */
template <enum form F> static __global__ void __launch_bounds__(512, 2) gate_one(struct gate_args a)
{
    constexpr int D = F == FORM_MX ? 4 : 2, NC = GATE_CHAINS;
    extern __shared__ __align__(16) char smem[]; /* the normed row */
    __shared__ float part[ONE_WARPS][TILE_ROWS];
    __shared__ int expert[SPEC_MAX_ACTIVE];
    const struct dmat &m = a.m;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int chain = warp % NC, n_pair = blockDim.x / 32 / NC, n_item = m.n_tile * a.n_active;
    int s0 = chain * m.n_step / NC, n = (chain + 1) * m.n_step / NC - s0;
    pdl_wait();
    route_one(a, (uint2 *)smem, expert);
    pdl_go(); /* the experts stand: down_one counts on it */
    for (int i0 = blockIdx.x * n_pair; i0 < n_item; i0 += gridDim.x * n_pair) {
        int item = i0 + warp / NC, j = item / m.n_tile, tile = item % m.n_tile;
        bool on = item < n_item;
        size_t at = on ? ((size_t)expert[j] * m.n_tile + tile) * m.n_step + s0 : 0;
        place<F> p(m.w, m.scale, at, lane);
        frag<F> f[D];
        chain_begin<F, D>(f, p, on ? n : 0);
        float acc[1][4] = {};
        uint32_t b[1] = {(uint32_t)__cvta_generic_to_shared(smem) + lane / 8 * 16 + s0 * STEP * 2};
        chain_run<F, D, 1>(f, p, on ? n : 0, b, acc);
        if (q == 0) {
            part[warp][g] = acc[0][0];
            part[warp][g + 8] = acc[0][2];
        }
        __syncthreads();
        int o = tile * 8 + lane;
        if (on && chain == 0 && lane < 8 && o < a.d_ff) {
            float lo = part[warp][lane], hi = part[warp][lane + 8];
            for (int c = 1; c < NC; c++) {
                lo += part[warp + c][lane];
                hi += part[warp + c][lane + 8];
            }
            const float *bias = a.bias + ((size_t)expert[j] * a.d_ff + o) * 2;
            float f = raised<F, 1>() ? lower * m.gain : m.gain;
            a.ff[(size_t)j * a.ld_ff + o] = __float2bfloat16(
                swiglu(lo * f + __ldg(bias), hi * f + __ldg(bias + 1), a.alpha, a.limit) * a.up);
        }
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
    launch(l->gate.scale ? gate_one<FORM_MX> : gate_one<FORM_BF16>, dim3(2 * card()->n_sm),
           ONE_WARPS * 32, (size_t)l->gate.n_step * STEP * 2, s, a);
}

/* The experts of a tile in one block, a warp a chain, and their weighted sum. Weights are fetched
 * before gate_one has ended, which lets this kernel begin when the choice of experts stands. */
template <enum form F>
static __global__ void __launch_bounds__(DOWN_WARPS * 32, 2)
    down_one(struct dmat m, const float *bias, const int32_t *expert, const float *weight,
             int n_active, const __nv_bfloat16 *ff, float *x)
{
    extern __shared__ __align__(16) char smem[]; /* [n_active] rows */
    constexpr int D = F == FORM_MX ? 4 : 2, NC = DOWN_CHAINS, SETS = DOWN_WARPS / NC;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int tile = blockIdx.x, chain = warp % NC, ld = m.n_step * STEP;
    int s0 = chain * m.n_step / NC, n = (chain + 1) * m.n_step / NC - s0;
    __shared__ float part[SPEC_MAX_ACTIVE][NC][TILE_ROWS];
    pdl_go();
    bool staged = false;
    for (int j = warp / NC; j < n_active || !staged; j += SETS) {
        bool on = j < n_active;
        size_t at = on ? ((size_t)__ldcg(expert + j) * m.n_tile + tile) * m.n_step + s0 : 0;
        place<F> p(m.w, m.scale, at, lane);
        frag<F> f[D];
        chain_begin<F, D>(f, p, on ? n : 0);
        if (!staged) {
            pdl_wait();
            for (int i = threadIdx.x; i < n_active * ld / 8; i += DOWN_WARPS * 32)
                ((uint4 *)smem)[i] = ((const uint4 *)ff)[i];
            __syncthreads();
            staged = true;
        }
        float acc[1][4] = {};
        uint32_t b[1] = {(uint32_t)__cvta_generic_to_shared(smem) + (on ? j : 0) * ld * 2 +
                         lane / 8 * 16 + s0 * STEP * 2};
        chain_run<F, D, 1>(f, p, on ? n : 0, b, acc);
        if (on && q == 0) {
            part[j][chain][g] = acc[0][0];
            part[j][chain][g + 8] = acc[0][2];
        }
    }
    __syncthreads();
    int o = tile * TILE_ROWS + threadIdx.x;
    if (threadIdx.x >= TILE_ROWS || o >= m.n_out)
        return;
    float sum = x[o];
    for (int j = 0; j < n_active; j++) {
        float y = part[j][0][threadIdx.x];
        for (int c = 1; c < NC; c++)
            y += part[j][c][threadIdx.x];
        y = y * (raised<F, 1>() ? lower * m.gain : m.gain) +
            __ldg(bias + (size_t)expert[j] * m.n_out + o);
        sum = fmaf(weight[j], y, sum);
    }
    x[o] = sum;
}

void k_down_one(const struct dlayer *l, const struct droute *r, int n_active,
                const __nv_bfloat16 *ff, float *x, cudaStream_t s)
{
    launch(l->down.scale ? down_one<FORM_MX> : down_one<FORM_BF16>, dim3(l->down.n_tile),
           DOWN_WARPS * 32, (size_t)n_active * l->down.n_step * STEP * 2, s, l->down, l->b_down,
           r->expert, r->weight, n_active, ff, x);
}
