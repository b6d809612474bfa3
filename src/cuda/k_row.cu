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

/* One warp: the k largest of v[n], descending, lower index first among equals, and their softmax.
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
            if (!(taken >> b & 1) && (at < 0 || __ldcg(v + i) > best)) {
                best = __ldcg(v + i);
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

/* The last block of all sorts the slots by expert. 256 threads. */
static __device__ void group_slots(const struct droute &r, int n_row, int k, int n_expert, int per)
{
    __shared__ int count[SPEC_MAX_EXPERT], first[SPEC_MAX_EXPERT];
    int n = n_row * k;
    for (int e = threadIdx.x; e < n_expert; e += 256)
        count[e] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += 256)
        atomicAdd(&count[__ldcg(r.expert + i)], 1);
    __syncthreads();
    if (threadIdx.x < 32) {
        /* running totals of slots and groups, 32 experts at a time */
        int at = 0, g = 0;
        for (int e0 = 0; e0 < n_expert; e0 += 32) {
            int e = e0 + threadIdx.x, mine = e < n_expert ? count[e] : 0;
            int c = mine, k2 = (mine + per - 1) / per, groups = k2;
            for (int o = 1; o < 32; o *= 2) {
                int c1 = __shfl_up_sync(~0u, c, o), k1 = __shfl_up_sync(~0u, k2, o);
                if (threadIdx.x >= o) {
                    c += c1;
                    k2 += k1;
                }
            }
            int slot0 = at + c - mine, g0 = g + k2 - groups;
            if (e < n_expert)
                first[e] = slot0;
            for (int i = 0; i < groups; i++)
                r.group[g0 + i] = make_int4(e, slot0 + i * per, min(per, mine - i * per), 0);
            at += __shfl_sync(~0u, c, 31);
            g += __shfl_sync(~0u, k2, 31);
        }
        if (threadIdx.x == 0)
            *r.n_group = g;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += 256) {
        int s = atomicAdd(&first[__ldcg(r.expert + i)], 1);
        r.slot[i] = s;
        r.slot_row[s] = i / k;
    }
}

enum {
    ROUTER_EXPERTS = 4,
    ROUTER_VEC = 3
}; /* a thread's part of a row: up to 3 x 4 x 256 floats */

static __device__ __forceinline__ void fetch_row(float4 v[ROUTER_VEC], const float *x, int d)
{
#pragma unroll
    for (int i = 0; i < ROUTER_VEC; i++) {
        int at = threadIdx.x + i * 256;
        v[i] = at < d / 4 ? ((const float4 *)x)[at] : make_float4(0, 0, 0, 0);
    }
}

/* grid (experts / 4, row groups). A block keeps its experts' weights, times the norm's, in
 * registers and walks over its rows: one pass gives the sum of squares and the four products. It
 * also writes its share of the normed row. */
static __global__ void __launch_bounds__(256)
    router(const float *x, const float *w, const float *router_w, const float *bias, int d, int ld,
           float eps, int n_expert, int n_active, int per, int n_row, int rows_per, float *score,
           struct droute r, __nv_bfloat16 *xn)
{
    __shared__ float part[2][8][ROUTER_EXPERTS + 1];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, e0 = blockIdx.x * ROUTER_EXPERTS;
    float4 k[ROUTER_EXPERTS][ROUTER_VEC] = {}, w4[ROUTER_VEC] = {};
    pdl_go();
    for (int i = 0; i < ROUTER_VEC; i++) {
        int at = threadIdx.x + i * 256;
        if (at >= d / 4)
            continue;
        w4[i] = __ldg((const float4 *)w + at);
        for (int e = 0; e < ROUTER_EXPERTS && e0 + e < n_expert; e++) {
            float4 m = __ldg((const float4 *)(router_w + (size_t)(e0 + e) * d) + at);
            k[e][i] = make_float4(m.x * w4[i].x, m.y * w4[i].y, m.z * w4[i].z, m.w * w4[i].w);
        }
    }
    pdl_wait();
    int row0 = blockIdx.y * rows_per, row1 = min(n_row, row0 + rows_per);
    int share = (d / 4 + gridDim.x - 1) / gridDim.x, lo = blockIdx.x * share;
    float4 next[ROUTER_VEC];
    fetch_row(next, x + (size_t)row0 * d, d);
    for (int row = row0; row < row1; row++) {
        float4 v[ROUTER_VEC];
        float s[ROUTER_EXPERTS + 1] = {};
#pragma unroll
        for (int i = 0; i < ROUTER_VEC; i++)
            v[i] = next[i];
        if (row + 1 < row1)
            fetch_row(next, x + (size_t)(row + 1) * d, d);
#pragma unroll
        for (int i = 0; i < ROUTER_VEC; i++) {
            s[ROUTER_EXPERTS] +=
                v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
#pragma unroll
            for (int e = 0; e < ROUTER_EXPERTS; e++)
                s[e] += v[i].x * k[e][i].x + v[i].y * k[e][i].y + v[i].z * k[e][i].z +
                        v[i].w * k[e][i].w;
        }
#pragma unroll
        for (int e = 0; e <= ROUTER_EXPERTS; e++) {
            for (int o = 16; o; o >>= 1)
                s[e] += __shfl_xor_sync(~0u, s[e], o);
            if (lane == 0)
                part[row % 2][warp][e] = s[e];
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e <= ROUTER_EXPERTS; e++) {
            s[e] = 0;
            for (int i = 0; i < 8; i++)
                s[e] += part[row % 2][i][e];
        }
        float f = rsqrtf(s[ROUTER_EXPERTS] / (float)d + eps);
        if (threadIdx.x < ROUTER_EXPERTS && e0 + threadIdx.x < n_expert) {
            float mine = 0;
            for (int e = 0; e < ROUTER_EXPERTS; e++)
                mine = e == threadIdx.x ? s[e] : mine;
            score[(size_t)row * n_expert + e0 + threadIdx.x] = mine * f + bias[e0 + threadIdx.x];
        }
#pragma unroll
        for (int i = 0; i < ROUTER_VEC; i++) {
            int at = threadIdx.x + i * 256;
            if (at >= lo && at < lo + share && at < d / 4)
                ((uint2 *)(xn + (size_t)row * ld))[at] =
                    make_uint2(pack_bf16(v[i].x * f * w4[i].x, v[i].y * f * w4[i].y),
                               pack_bf16(v[i].z * f * w4[i].z, v[i].w * f * w4[i].w));
        }
    }
    if (!last_of(&r.arrived[blockIdx.y], gridDim.x))
        return;
    for (int row = row0 + warp; row < row1; row += 8) {
        choose(score + (size_t)row * n_expert, n_expert, n_active, r.expert + row * n_active,
               r.weight + row * n_active);
        __syncwarp();
        if (n_row == 1 && lane < n_active) {
            r.slot[lane] = lane;
            r.slot_row[lane] = 0;
            r.group[lane] = make_int4(r.expert[lane], lane, 1, 0);
            *r.n_group = n_active;
        }
    }
    if (n_row > 1 && last_of(&r.arrived[gridDim.y], gridDim.y))
        group_slots(r, n_row, n_active, n_expert, per);
}

void k_router(const struct dlayer *l, const float *x, int n_row, int d, int ld, float eps,
              int n_expert, int n_active, float *score, const struct droute *r, __nv_bfloat16 *xn,
              cudaStream_t s)
{
    int rows_per = n_row <= 128 ? 1 : n_row < 2048 ? n_row / 128 : 16;
    launch(
        router,
        dim3((n_expert + ROUTER_EXPERTS - 1) / ROUTER_EXPERTS, (n_row + rows_per - 1) / rows_per),
        256, 0, s, x, l->mlp_norm, l->router, l->b_router, d, ld, eps, n_expert, n_active,
        router_group(n_row, n_active, n_expert), n_row, rows_per, score, *r, xn);
}

/* ---- the experts' sum ---- */

static __global__ void combine(const int32_t *slot, const float *weight, const float *y,
                               int n_active, int d, float *x)
{
    int row = blockIdx.y, i = blockIdx.x * 256 + threadIdx.x;
    pdl_go();
    pdl_wait();
    if (i >= d)
        return;
    float sum = x[(size_t)row * d + i];
    for (int j = 0; j < n_active; j++)
        sum = fmaf(weight[row * n_active + j], y[(size_t)slot[row * n_active + j] * d + i], sum);
    x[(size_t)row * d + i] = sum;
}

void k_combine(const struct droute *r, const float *y, int n_row, int n_active, int d, float *x,
               cudaStream_t s)
{
    launch(combine, dim3((d + 255) / 256, n_row), 256, 0, s, r->slot, r->weight, y, n_active, d, x);
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
