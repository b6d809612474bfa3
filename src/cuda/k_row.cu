/* Kernels that work row by row: embedding and rotation tables, norm, router with the choice and
 * grouping of experts, the weighted sum of experts, the best token.
 */
#include "cuda/dev.h"

static __global__ void embed(const __nv_bfloat16 *table, struct dstep st, int d, const float *inv,
                             float factor, float *x, float *cos_out, float *sin_out)
{
    int row = blockIdx.x;
    pdl_go();
    pdl_wait();
    const __nv_bfloat162 *from = (const __nv_bfloat162 *)(table + (size_t)st.tok[row] * d);
    float2 *to = (float2 *)(x + (size_t)row * d);
    for (int i = threadIdx.x; i < d / 2; i += blockDim.x)
        to[i] = __bfloat1622float2(from[i]);
    if (threadIdx.x < HEAD / 2) {
        float angle = (float)st.pos[row] * inv[threadIdx.x];
        cos_out[row * 32 + threadIdx.x] = cosf(angle) * factor;
        sin_out[row * 32 + threadIdx.x] = sinf(angle) * factor;
    }
}

void k_embed(const __nv_bfloat16 *table, const struct dstep *st, int n_row, int d, const float *inv,
             float factor, float *x, float *cos, float *sin, cudaStream_t s)
{
    launch(embed, dim3(n_row), 256, 0, s, table, *st, d, inv, factor, x, cos, sin);
}

static __global__ void norm(const float *x, const int32_t *rows, const float *w, int d, int ld,
                            float eps, __nv_bfloat16 *xn)
{
    __shared__ float part[8];
    pdl_go();
    pdl_wait();
    int r = rows ? rows[blockIdx.x] : blockIdx.x;
    norm_row(x + (size_t)r * d, w, d, ld, eps, (uint2 *)(xn + (size_t)blockIdx.x * ld), part);
}

void k_norm(const float *x, const int32_t *rows, const float *w, int n, int d, int ld, float eps,
            __nv_bfloat16 *xn, cudaStream_t s)
{
    launch(norm, dim3(n), 256, 0, s, x, rows, w, d, ld, eps, xn);
}

/* ---- router ---- */

/* Does every thread's block arrive last of n? The counter returns to zero. */
static __device__ bool last_of(unsigned *counter, unsigned n)
{
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(counter, 1) == n - 1;
        if (last)
            *counter = 0;
    }
    __syncthreads();
    if (last)
        __threadfence();
    return last;
}

/* One warp: the k largest of v[n] (shared memory), descending, lower index first among equals, and
 * their softmax.
 */
static __device__ void choose(const float *v, int n, int k, int32_t *idx, float *weight)
{
    int lane = threadIdx.x % 32;
    uint64_t taken = 0; /* bit i: element lane + 32 i */
    float top = 0, sum = 0, mine = 0;
    for (int j = 0; j < k; j++) {
        float best = -INFINITY;
        int at = -1;
        for (int i = lane, b = 0; i < n; i += 32, b++)
            if (!(taken >> b & 1) && (at < 0 || v[i] > best)) {
                best = v[i];
                at = i;
            }
        for (int o = 16; o; o >>= 1) {
            float b2 = __shfl_xor_sync(~0u, best, o);
            int a2 = __shfl_xor_sync(~0u, at, o);
            if (a2 >= 0 && (at < 0 || b2 > best || (!(best > b2) && a2 < at))) {
                best = b2;
                at = a2;
            }
        }
        if (at % 32 == lane)
            taken |= 1ull << (at / 32);
        if (j == 0)
            top = best;
        float e = expf(best - top);
        sum += e;
        if (lane == j) {
            mine = e;
            idx[j] = at;
        }
    }
    if (lane < k)
        weight[lane] = mine / sum;
}

/* The last block of all sorts the slots by expert. */
static __device__ void group_slots(const struct droute &r, int n_row, int k, int n_expert, int per)
{
    __shared__ int count[SPEC_MAX_EXPERT], first[SPEC_MAX_EXPERT];
    int n = n_row * k, t = threadIdx.x, mine = t < n ? __ldcg(r.expert + t) : 0;
    for (int e = t; e < n_expert; e += blockDim.x)
        count[e] = 0;
    __syncthreads();
    for (int i = t; i < n; i += blockDim.x)
        atomicAdd(&count[i == t ? mine : __ldcg(r.expert + i)], 1);
    __syncthreads();
    if (threadIdx.x < 32) {
        /* running totals of slots and groups, 32 experts at a time */
        int at = 0, g = 0;
        for (int e0 = 0; e0 < n_expert; e0 += 32) {
            int e = e0 + t, slots = e < n_expert ? count[e] : 0;
            int c = slots, k2 = (slots + per - 1) / per, groups = k2;
            for (int o = 1; o < 32; o *= 2) {
                int c1 = __shfl_up_sync(~0u, c, o), k1 = __shfl_up_sync(~0u, k2, o);
                if (t >= o) {
                    c += c1;
                    k2 += k1;
                }
            }
            int slot0 = at + c - slots, g0 = g + k2 - groups;
            if (e < n_expert)
                first[e] = slot0;
            for (int i = 0; i < groups; i++)
                r.group[g0 + i] = make_int4(e, slot0 + i * per, min(per, slots - i * per), 0);
            at += __shfl_sync(~0u, c, 31);
            g += __shfl_sync(~0u, k2, 31);
        }
        if (threadIdx.x == 0)
            *r.n_group = g;
    }
    __syncthreads();
    for (int i = t; i < n; i += blockDim.x) {
        int s = atomicAdd(&first[i == t ? mine : __ldcg(r.expert + i)], 1);
        r.slot[i] = s;
        r.slot_row[s] = i / k;
    }
}

/* A thread's part of a row: up to 3 x 4 x 256 numbers. */
enum { ROW_VEC = 3 };

/* A block takes R rows, a warp R experts at a time, 1024 / R threads: each weight that it reads
 * serves all rows. `w` [n_expert, d] are the router's weights times the norm's. The last block
 * groups the slots. */
template <int R>
static __global__ void __launch_bounds__(1024 / R)
    router(const float *x, const float *norm, const float *w, const float *bias, int d, int ld,
           float eps, int n_expert, int n_active, int per, int n_row, struct droute r,
           __nv_bfloat16 *xn)
{
    enum { EXPERTS = R, THREADS = 1024 / R, VEC = (3072 / 4 + THREADS - 1) / THREADS };
    enum { CHUNKS = 3072 / 4 / 32 };
    extern __shared__ __align__(16) char smem[];
    __shared__ float part[CHUNKS][R]; /* sums of squares of 128 numbers, the same for every R */
    float4 *xs = (float4 *)smem;      /* [R, d / 4] */
    float *score = (float *)(smem + (size_t)R * d * sizeof(float)); /* [R, n_expert] */
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = blockIdx.x * R;
    int n = min(R, n_row - row0);
    pdl_go();
    if (threadIdx.x < n_expert && threadIdx.x % gridDim.x == blockIdx.x)
        warm(w + (size_t)threadIdx.x * d, d * (int)sizeof *w);
    pdl_wait();
    float f[R], q[R][VEC] = {};
#pragma unroll
    for (int j = 0; j < R; j++) {
        const float4 *from = (const float4 *)(x + (size_t)(row0 + min(j, n - 1)) * d);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            int at = threadIdx.x + i * THREADS;
            if (at >= d / 4)
                continue;
            float4 v = from[at];
            xs[j * (d / 4) + at] = v;
            q[j][i] = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        }
    }
#pragma unroll
    for (int j = 0; j < R; j++)
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            int chunk = warp + i * (THREADS / 32);
            for (int o = 16; o; o >>= 1)
                q[j][i] += __shfl_xor_sync(~0u, q[j][i], o);
            if (lane == 0 && chunk < CHUNKS)
                part[chunk][j] = q[j][i];
        }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < R; j++) {
        f[j] = 0;
        for (int i = 0; i < CHUNKS; i++)
            f[j] += part[i][j];
        f[j] = rsqrtf(f[j] / (float)d + eps);
    }
    for (int e0 = warp * EXPERTS; e0 < n_expert; e0 += THREADS / 32 * EXPERTS) {
        float acc[EXPERTS][R] = {};
#pragma unroll R == 1 ? 8 : 4
        for (int i = lane; i < d / 4; i += 32) {
            float4 k[EXPERTS];
#pragma unroll
            for (int e = 0; e < EXPERTS; e++)
                k[e] = __ldg((const float4 *)(w + (size_t)min(e0 + e, n_expert - 1) * d) + i);
#pragma unroll
            for (int j = 0; j < R; j++) {
                float4 v = xs[j * (d / 4) + i];
#pragma unroll
                for (int e = 0; e < EXPERTS; e++)
                    acc[e][j] += v.x * k[e].x + v.y * k[e].y + v.z * k[e].z + v.w * k[e].w;
            }
        }
#pragma unroll
        for (int e = 0; e < EXPERTS; e++)
#pragma unroll
            for (int j = 0; j < R; j++) {
                float s = acc[e][j];
                for (int o = 16; o; o >>= 1)
                    s += __shfl_xor_sync(~0u, s, o);
                if (lane == 0 && e0 + e < n_expert)
                    score[j * n_expert + e0 + e] = s * f[j] + bias[e0 + e];
            }
    }
#pragma unroll
    for (int i = 0; i < VEC; i++) {
        int at = threadIdx.x + i * THREADS;
        if (at >= ld / 4)
            continue;
        bool in = at < d / 4;
        float4 k = in ? __ldg((const float4 *)norm + at) : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < R; j++) {
            float4 v = in ? xs[j * (d / 4) + at] : make_float4(0, 0, 0, 0);
            if (j < n)
                ((uint2 *)(xn + (size_t)(row0 + j) * ld))[at] =
                    make_uint2(pack_bf16(v.x * f[j] * k.x, v.y * f[j] * k.y),
                               pack_bf16(v.z * f[j] * k.z, v.w * f[j] * k.w));
        }
    }
    __syncthreads();
    if (warp < n)
        choose(score + warp * n_expert, n_expert, n_active,
               r.expert + (size_t)(row0 + warp) * n_active,
               r.weight + (size_t)(row0 + warp) * n_active);
    if (last_of(r.arrived, gridDim.x))
        group_slots(r, n_row, n_active, n_expert, per);
}

/* ---- router of few rows, from Hopper on ---- */

/* A block takes FEW rows and, a warp each, 8 experts at a time, whose weights are in registers when
 * the rows arrive; the blocks of a cluster share the experts. Every sum is made as in `router`. */
enum { FEW = 2, FEW_VEC = 3072 / 4 / 32 };

static __global__ void __launch_bounds__(256, 2)
    router_few(const float *x, const float *norm, const float *w, const float *bias, int d, int ld,
               float eps, int n_expert, int n_active, int per, int n_row, struct droute r,
               __nv_bfloat16 *xn)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(16) char smem[];
    __shared__ float part[FEW_VEC][FEW], score[FEW][SPEC_MAX_EXPERT];
    float4 *xs = (float4 *)smem; /* [FEW, d / 4] */
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = blockIdx.x * FEW;
    int rank = blockIdx.z, n_rank = gridDim.z, n = min(FEW, n_row - row0), n_vec = d / 4;
    pdl_go();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;");
    float4 k[FEW_VEC];
    float b;
    auto fetch = [&](int e) {
        b = e < n_expert ? __ldg(bias + e) : 0;
#pragma unroll
        for (int i = 0; i < FEW_VEC; i++)
            k[i] = e < n_expert && lane + 32 * i < n_vec
                       ? __ldg((const float4 *)(w + (size_t)e * d) + lane + 32 * i)
                       : make_float4(0, 0, 0, 0);
    };
    int e = rank * 8 + warp;
    fetch(e);
    pdl_wait();
    float f[FEW], q[FEW][3] = {};
#pragma unroll
    for (int j = 0; j < FEW; j++)
#pragma unroll
        for (int i = 0; i < 3; i++) {
            int at = threadIdx.x + i * 256;
            if (at >= n_vec)
                continue;
            float4 v = ((const float4 *)(x + (size_t)(row0 + min(j, n - 1)) * d))[at];
            xs[j * n_vec + at] = v;
            q[j][i] = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        }
#pragma unroll
    for (int j = 0; j < FEW; j++)
#pragma unroll
        for (int i = 0; i < 3; i++) {
            for (int o = 16; o; o >>= 1)
                q[j][i] += __shfl_xor_sync(~0u, q[j][i], o);
            if (lane == 0)
                part[warp + i * 8][j] = q[j][i];
        }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < FEW; j++) {
        f[j] = 0;
        for (int i = 0; i < FEW_VEC; i++)
            f[j] += part[i][j];
        f[j] = rsqrtf(f[j] / (float)d + eps);
    }
    asm volatile("barrier.cluster.wait.aligned;"); /* the first block has begun */
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, 0;"
                 : "=r"(there)
                 : "r"((uint32_t)__cvta_generic_to_shared(score)));
    for (;;) {
        float acc[FEW] = {};
#pragma unroll
        for (int i = 0; i < FEW_VEC; i++) {
            if (lane + 32 * i >= n_vec)
                break;
#pragma unroll
            for (int j = 0; j < FEW; j++) {
                float4 v = xs[j * n_vec + lane + 32 * i];
                acc[j] += v.x * k[i].x + v.y * k[i].y + v.z * k[i].z + v.w * k[i].w;
            }
        }
#pragma unroll
        for (int j = 0; j < FEW; j++) {
            for (int o = 16; o; o >>= 1)
                acc[j] += __shfl_xor_sync(~0u, acc[j], o);
            if (lane == 0 && e < n_expert)
                asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(
                                 there + (uint32_t)(j * SPEC_MAX_EXPERT + e) * 4),
                             "f"(acc[j] * f[j] + b)
                             : "memory");
        }
        e += n_rank * 8;
        if (e - warp >= n_expert)
            break;
        fetch(e);
    }
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#pragma unroll
    for (int i = 0; i < 3; i++) {
        int at = threadIdx.x + i * 256;
        if (at >= ld / 4 || i % n_rank != rank)
            continue;
        bool in = at < n_vec;
        float4 g = in ? __ldg((const float4 *)norm + at) : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < FEW; j++) {
            float4 v = in ? xs[j * n_vec + at] : make_float4(0, 0, 0, 0);
            if (j < n)
                ((uint2 *)(xn + (size_t)(row0 + j) * ld))[at] =
                    make_uint2(pack_bf16(v.x * f[j] * g.x, v.y * f[j] * g.y),
                               pack_bf16(v.z * f[j] * g.z, v.w * f[j] * g.w));
        }
    }
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    if (rank)
        return;
    if (warp < n)
        choose(score[warp], n_expert, n_active, r.expert + (size_t)(row0 + warp) * n_active,
               r.weight + (size_t)(row0 + warp) * n_active);
    if (last_of(r.arrived, gridDim.x))
        group_slots(r, n_row, n_active, n_expert, per);
#endif
}

template <int R>
static void router_go(const struct dlayer *l, const float *x, int n_row, int d, int ld, float eps,
                      int n_expert, int n_active, const struct droute *r, __nv_bfloat16 *xn,
                      cudaStream_t s)
{
    size_t smem = (size_t)R * (d + n_expert) * sizeof(float);
    if (smem > 32 << 10) /* beside 8 KB for the grouping */
        CU(cudaFuncSetAttribute(router<R>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem));
    launch(router<R>, dim3((n_row + R - 1) / R), 1024 / R, smem, s, x, l->mlp_norm, l->router,
           l->b_router, d, ld, eps, n_expert, n_active, router_group(l, n_row, n_active, n_expert),
           n_row, *r, xn);
}

static void router_few_go(const struct dlayer *l, const float *x, int n_row, int d, int ld,
                          float eps, int n_expert, int n_active, const struct droute *r,
                          __nv_bfloat16 *xn, cudaStream_t s)
{
    int ranks = (n_expert + 7) / 8;
    launch<true>(router_few, dim3((n_row + FEW - 1) / FEW, 1, ranks < 8 ? ranks : 8), 256,
                 FEW * d * sizeof(float), s, x, l->mlp_norm, l->router, l->b_router, d, ld, eps,
                 n_expert, n_active, router_group(l, n_row, n_active, n_expert), n_row, *r, xn);
}

void k_router(const struct dlayer *l, const float *x, int n_row, int d, int ld, float eps,
              int n_expert, int n_active, const struct droute *r, __nv_bfloat16 *xn, cudaStream_t s)
{
    auto *go = n_row <= card()->n_sm && card()->major == 9 ? router_few_go
               : n_row <= card()->n_sm                     ? router_go<1>
               : n_row <= 4 * card()->n_sm                 ? router_go<2>
                                                           : router_go<4>;
    go(l, x, n_row, d, ld, eps, n_expert, n_active, r, xn, s);
}

/* ---- the experts' sum ---- */

/* A block a row: the residual, and normed for the layer behind when there is one. Only y is the
 * kernel before's: the rest is older, so it is read before the wait. */
static __global__ void __launch_bounds__(256)
    combine(const int32_t *slot, const float *weight, const float *y, int n_active, int d, float *x,
            const float *norm, int ld, float eps, __nv_bfloat16 *xn)
{
    __shared__ float part[8];
    int row = blockIdx.x, lane = threadIdx.x % 32;
    float4 v[ROW_VEC], k[ROW_VEC];
    float s = 0;
    pdl_go();
    int from = lane < n_active ? __ldcg(slot + row * n_active + lane) : 0;
    float share = lane < n_active ? __ldcg(weight + row * n_active + lane) : 0;
#pragma unroll
    for (int i = 0; i < ROW_VEC; i++) {
        int at = threadIdx.x + i * 256;
        bool in = at < d / 4;
        v[i] = in ? __ldcg((const float4 *)(x + (size_t)row * d) + at) : make_float4(0, 0, 0, 0);
        k[i] = in && norm ? __ldg((const float4 *)norm + at) : make_float4(0, 0, 0, 0);
    }
    pdl_wait();
#pragma unroll 4
    for (int j = 0; j < n_active; j++) {
        float w = __shfl_sync(~0u, share, j);
        const float4 *u = (const float4 *)(y + (size_t)__shfl_sync(~0u, from, j) * d);
#pragma unroll
        for (int i = 0; i < ROW_VEC; i++) {
            int at = threadIdx.x + i * 256;
            float4 t = at < d / 4 ? u[at] : make_float4(0, 0, 0, 0);
            v[i].x = fmaf(w, t.x, v[i].x);
            v[i].y = fmaf(w, t.y, v[i].y);
            v[i].z = fmaf(w, t.z, v[i].z);
            v[i].w = fmaf(w, t.w, v[i].w);
        }
    }
#pragma unroll
    for (int i = 0; i < ROW_VEC; i++) {
        int at = threadIdx.x + i * 256;
        if (at < d / 4)
            ((float4 *)(x + (size_t)row * d))[at] = v[i];
        s += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
    }
    if (!norm)
        return;
    float f = rsqrtf(block_sum(s, part) / (float)d + eps);
#pragma unroll
    for (int i = 0; i < ROW_VEC; i++) {
        int at = threadIdx.x + i * 256;
        if (at < ld / 4)
            ((uint2 *)(xn + (size_t)row * ld))[at] =
                make_uint2(pack_bf16(v[i].x * f * k[i].x, v[i].y * f * k[i].y),
                           pack_bf16(v[i].z * f * k[i].z, v[i].w * f * k[i].w));
    }
}

void k_combine(const struct droute *r, const float *y, int n_row, int n_active, int d, float *x,
               const float *norm, int ld, float eps, __nv_bfloat16 *xn, cudaStream_t s)
{
    launch(combine, dim3(n_row), 256, 0, s, r->slot, r->weight, y, n_active, d, x, norm, ld, eps,
           xn);
}

/* ---- the best token ---- */

/* Orders by value, then by lower id; NaN and Inf above everything, marked by id -1. */
static __device__ uint64_t rank_of(float v, int id)
{
    uint32_t b = __float_as_uint(v);
    if ((b & 0x7f800000) == 0x7f800000)
        return ~0ull;
    b = b & 0x80000000 ? ~b : b | 0x80000000;
    return (uint64_t)b << 32 | (0x7fffffffu - (uint32_t)id);
}

static __device__ uint64_t block_max(uint64_t v, uint64_t *part)
{
    for (int o = 16; o; o >>= 1) {
        uint64_t u = __shfl_xor_sync(~0u, v, o);
        v = u > v ? u : v;
    }
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    for (int i = 0; i < 8; i++)
        v = part[i] > v ? part[i] : v;
    return v;
}

static __global__ void __launch_bounds__(256)
    best_of(const float *logits, int n_vocab, uint64_t *part, unsigned *arrived, int32_t *best)
{
    __shared__ uint64_t part8[8];
    int row = blockIdx.y;
    pdl_go();
    pdl_wait();
    const float *l = logits + (size_t)row * n_vocab;
    uint64_t top = 0;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n_vocab; i += 256 * BEST_PARTS) {
        uint64_t v = rank_of(l[i], i);
        top = v > top ? v : top;
    }
    top = block_max(top, part8);
    if (threadIdx.x == 0)
        part[row * BEST_PARTS + blockIdx.x] = top;
    if (!last_of(&arrived[row], BEST_PARTS))
        return;
    if (threadIdx.x == 0) {
        for (int i = 0; i < BEST_PARTS; i++) {
            uint64_t v = part[row * BEST_PARTS + i];
            top = v > top ? v : top;
        }
        best[row] = top == ~0ull ? -1 : (int32_t)(0x7fffffffu - (uint32_t)top);
    }
}

void k_best(const float *logits, int n_logit, int n_vocab, uint64_t *part, unsigned *arrived,
            int32_t *best, cudaStream_t s)
{
    launch(best_of, dim3(BEST_PARTS, n_logit), 256, 0, s, logits, n_vocab, part, arrived, best);
}
