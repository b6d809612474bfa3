/* Attention of decoding rows over the paged cache, with sinks and windows, on tensor cores.
 *
 * What a lane needs of a page goes straight into its registers, not through shared memory.
 *
 * A row's keys are shared out over blocks of SPLIT_KEYS and joined by the block that arrives last,
 * in order, so the result does not depend on timing or on other rows.
 */
#include "cuda/attn.h"

enum { WARPS = SPLIT_KEYS / KV_PAGE, PART = HEAD + 2 };

/* grid (kv heads, splits, rows); a split is `turns` times WARPS pages, and a warp takes every
 * WARPS-th. Its first page, unless this step writes it, is fetched before the kernel before has
 * ended. */
template <bool F8>
static __global__ void __launch_bounds__(WARPS * 32)
    attn_single(struct attn_args a, struct dstep st, int turns)
{
    __shared__ float sh[WARPS][16][PART];
    __shared__ bool last;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int kv = blockIdx.x, split = blockIdx.y, n_q = a.n_head / a.n_kv_head;
    pdl_go();
    int4 rec = st.single[blockIdx.z];
    int row = rec.x, pos = rec.y, low = a.window ? max(0, pos - (a.window - 1)) : 0;
    int page0 = low / KV_PAGE, n_page = pos / KV_PAGE + 1 - page0, per = WARPS * turns;
    int n_split = (n_page + per - 1) / per, mine = split * per + warp;
    int end = min(n_page, (split + 1) * per);
    struct page<F8> pg;
    auto from = [&](int i) {
        return head_of<F8>(a, st.table[(a.window ? rec.w : rec.z) + page0 + i], kv);
    };
    const uint8_t *first = mine < n_page ? from(mine) : NULL;
    if (mine < n_page - 1)
        page_load<F8>(pg, first);
    /* 16 threads a query, 4 numbers each. */
    enum { EACH = 4 };
    int r = threadIdx.x / 16, c = threadIdx.x % 16 * EACH;
    float sink = r < n_q ? __ldg(a.sinks + kv * n_q + r) * 1.4426950408889634f : 0;
    pdl_wait();
    if (split >= n_split)
        return;
    if (mine == n_page - 1)
        page_load<F8>(pg, first);
    struct tile t;
    const __nv_bfloat16 *qr = a.q + ((size_t)row * a.n_head + kv * n_q) * HEAD;
    const __nv_bfloat16 *at[2] = {g < n_q ? qr + g * HEAD : NULL,
                                  g + 8 < n_q ? qr + (g + 8) * HEAD : NULL};
    tile_begin<F8>(t, at);
    int lo[1][2] = {{low, low}}, hi[1][2] = {{pos, pos}};
    while (mine < end) {
        page_step<F8, 1>(&t, pg, (page0 + mine) * KV_PAGE, lo, hi, false);
        mine += WARPS;
        if (mine < end)
            page_load<F8>(pg, from(mine));
    }
    tile_end(t);
    for (int i = 0; i < 2; i++) {
        float *to = sh[warp][g + 8 * i];
        for (int u = 0; u < 8; u++)
            *(float2 *)(to + 8 * u + 2 * q) = make_float2(t.o[u][2 * i], t.o[u][2 * i + 1]);
        if (q == 0) {
            to[HEAD] = t.m[i];
            to[HEAD + 1] = t.l[i];
        }
    }
    __syncthreads();
    float m = NONE, l = 0, o[EACH] = {}, f, f2;
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        m = fmaxf(m, sh[w][r][HEAD]);
#pragma unroll 2
    for (int w = 0; w < WARPS; w++) {
        f = m == NONE ? 0 : exp2_fast(sh[w][r][HEAD] - m);
        l += sh[w][r][HEAD + 1] * f;
        for (int i = 0; i < EACH; i++)
            o[i] += sh[w][r][c + i] * f;
    }
    if (n_split > 1) {
        float *part = a.part + ((size_t)(blockIdx.z * a.n_kv_head + kv) * gridDim.y) * 16 * PART;
        float *to = part + ((size_t)split * 16 + r) * PART;
        if (r < n_q) {
            *(float2 *)(to + c) = make_float2(o[0], o[1]);
            *(float2 *)(to + c + 2) = make_float2(o[2], o[3]);
            if (c == 0)
                *(float2 *)(to + HEAD) = make_float2(m, l);
        }
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned *n = &a.arrived[blockIdx.z * a.n_kv_head + kv];
            last = atomicAdd(n, 1) == (unsigned)n_split - 1;
            if (last)
                *n = 0;
        }
        __syncthreads();
        if (!last)
            return;
        __threadfence();
        /* Up to 8 queries leave threads for two halves of the partial results. */
        int n_half = n_q <= 8 ? 2 : 1, half = n_half == 2 ? r / 8 : 0;
        r -= 8 * half;
        m = NONE;
        l = 0;
        for (int i = 0; i < EACH; i++)
            o[i] = 0;
        auto add = [&](float m2, float l2, const float *v) {
            join(m, l, m2, l2, f, f2);
            for (int i = 0; i < EACH; i++)
                o[i] = o[i] * f + v[i] * f2;
        };
#pragma unroll 8
        for (int s = half; s < n_split; s += n_half) {
            const float *p = part + ((size_t)s * 16 + r) * PART;
            float2 ml = __ldcg((const float2 *)(p + HEAD));
            float2 v0 = __ldcg((const float2 *)(p + c)), v1 = __ldcg((const float2 *)(p + c + 2));
            float v[EACH] = {v0.x, v0.y, v1.x, v1.y};
            add(ml.x, ml.y, v);
        }
        if (n_half == 2) {
            float *to = sh[0][r];
            if (half == 1) {
                for (int i = 0; i < EACH; i++)
                    to[c + i] = o[i];
                if (c == 0) {
                    to[HEAD] = m;
                    to[HEAD + 1] = l;
                }
            }
            __syncthreads();
            if (half == 1)
                return;
            add(to[HEAD], to[HEAD + 1], to + c);
        }
    }
    if (r >= n_q)
        return;
    join(m, l, sink, 1, f, f2);
    f /= l;
    *(uint2 *)(a.out + (size_t)row * (a.n_head * HEAD + ATTN_PAD) + (kv * n_q + r) * HEAD + c) =
        make_uint2(pack_bf16(o[0] * f, o[1] * f), pack_bf16(o[2] * f, o[3] * f));
}

void k_attn_single(const struct attn_args *a, const struct dstep *st, int n_single, int n_unit,
                   cudaStream_t s)
{
    /* Times a warp goes on: with many rows, rows alone fill the card, and more blocks than it holds
     * at once don't help. */
    int turns = n_single <= 8 ? 1 : n_single <= 16 ? 2 : n_single <= 32 ? 4 : 8;
    while (turns < n_unit && n_single * a->n_kv_head * (n_unit / turns) > 2 * card()->n_sm)
        turns *= 2;
    int n_split = n_unit > turns ? n_unit / turns : 1;
    launch(a->pool.f8 ? attn_single<true> : attn_single<false>,
           dim3(a->n_kv_head, n_split, n_single), WARPS * 32, 0, s, *a, *st, turns);
}
