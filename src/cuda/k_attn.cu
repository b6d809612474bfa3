/* Attention over the paged cache, with sinks and windows, on tensor cores.
 *
 * Pages hold keys as rows [32 keys][64] and values transposed [64][32 keys], so that what a lane
 * needs of either is 16 contiguous bytes: neither passes through shared memory. A warp works on
 * tiles of 16 queries: the query heads of one key head, of as many positions as fit (eight heads in
 * gpt-oss: two positions; a decoding row fills half a tile).
 *
 * Column c of key tile t stands for key 8(c/2) + 2t + c%2 of the page; then the scores that a lane
 * holds are the very probabilities that it must bring to the product with the values.
 *
 * A cache in e4m3 is widened to f16 on the way; queries and softmax weights are f16 then, else
 * bf16.
 *
 * Scores are powers of two: the queries carry log2(e). The sink joins once, at the end.
 *
 * A decoding row's keys are shared out over blocks of SPLIT_KEYS and joined by the block that
 * arrives last, in order, so the result does not depend on timing or on other rows.
 */
#include "cuda/dev.h"

#include <cuda_fp8.h>

#define NONE (-INFINITY)

/* Eight numbers of the cache as they are kept, and as a tensor-core instruction takes them. */
template <bool F8> struct eight {
    typedef uint4 bits;
    static __device__ __forceinline__ uint4 wide(uint4 v)
    {
        return v;
    }
    static __device__ __forceinline__ uint32_t pair(float lo, float hi)
    {
        return pack_bf16(lo, hi);
    }
    static __device__ __forceinline__ uint32_t query(uint32_t v)
    {
        return v;
    }
};

template <> struct eight<true> {
    typedef uint2 bits;
    static __device__ __forceinline__ uint32_t two(uint32_t v)
    {
        __half2_raw h = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)v, __NV_E4M3);
        return h.x | (uint32_t)h.y << 16;
    }
    static __device__ __forceinline__ uint4 wide(uint2 v)
    {
        return make_uint4(two(v.x & 0xFFFF), two(v.x >> 16), two(v.y & 0xFFFF), two(v.y >> 16));
    }
    static __device__ __forceinline__ uint32_t pair(float lo, float hi)
    {
        __half2 v = __floats2half2_rn(lo, hi);
        return *(uint32_t *)&v;
    }
    static __device__ __forceinline__ uint32_t query(uint32_t v)
    {
        return pair(__uint_as_float(v << 16), __uint_as_float(v & 0xFFFF0000));
    }
};

template <bool F8>
static __device__ __forceinline__ void mma_kv(float c[4], const uint32_t a[4], uint32_t b0,
                                              uint32_t b1)
{
    if (!F8)
        return mma(c, a, b0, b1);
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

struct tile {
    uint32_t q[4][4];
    float o[8][4];
    float m[2], l[2]; /* rows g and g + 8; l: of this lane's keys alone until tile_end */
};

/* Row i of the tile (g or g + 8) is query `head` at row `row`, or absent (row < 0). */
template <bool F8>
static __device__ __forceinline__ void tile_begin(struct tile &t, const __nv_bfloat16 *const at[2])
{
    int q = threadIdx.x % 4;
    uint4 v[2][2] = {};
    for (int i = 0; i < 2; i++)
        if (at[i]) {
            v[i][0] = *(const uint4 *)(at[i] + 16 * q);
            v[i][1] = *(const uint4 *)(at[i] + 16 * q + 8);
        }
    for (int s = 0; s < 4; s++) {
        const uint4 &a = v[0][s / 2], &b = v[1][s / 2];
        t.q[s][0] = s % 2 ? a.z : a.x;
        t.q[s][1] = s % 2 ? b.z : b.x;
        t.q[s][2] = s % 2 ? a.w : a.y;
        t.q[s][3] = s % 2 ? b.w : b.y;
        for (int j = 0; j < 4; j++)
            t.q[s][j] = eight<F8>::query(t.q[s][j]);
    }
    for (int u = 0; u < 8; u++)
        for (int j = 0; j < 4; j++)
            t.o[u][j] = 0;
    for (int i = 0; i < 2; i++) {
        t.m[i] = NONE;
        t.l[i] = 0;
    }
}

static __device__ __forceinline__ void tile_end(struct tile &t)
{
    for (int i = 0; i < 2; i++) {
        t.l[i] += __shfl_xor_sync(~0u, t.l[i], 1);
        t.l[i] += __shfl_xor_sync(~0u, t.l[i], 2);
    }
}

/* A lane's part of a page's keys and values. */
template <bool F8> struct page {
    typename eight<F8>::bits k[4][2], v[8];
    __device__ __forceinline__ uint4 key(int j, int half) const
    {
        return eight<F8>::wide(k[j][half]);
    }
    __device__ __forceinline__ uint4 value(int u) const
    {
        return eight<F8>::wide(v[u]);
    }
};

enum { PAGE_PIECES = 2 * KV_PAGE * HEAD / 8 }; /* of eight numbers; keys, then values */

template <bool F8>
static __device__ __forceinline__ void page_load(struct page<F8> &p, const uint8_t *from)
{
    typedef typename eight<F8>::bits bits;
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const bits *k = (const bits *)from + (8 * (g / 2) + g % 2) * 8 + 2 * q;
    const bits *v = (const bits *)from + PAGE_PIECES / 2 + g * 4 + q;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        p.k[j][0] = k[j * 16];
        p.k[j][1] = k[j * 16 + 1];
    }
#pragma unroll
    for (int u = 0; u < 8; u++)
        p.v[u] = v[u * 32];
}

/* 2^x; 0 for -Inf. Two units in the last place. */
static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Keys at positions p0 .. p0+31; row i of tile m sees those in [lo[m][i], hi[m][i]], or all
 * of them. P: where the page is, registers or shared memory. */
template <bool F8, int MT, typename P>
static __device__ __forceinline__ void page_step(struct tile *t, const P &pg, int p0,
                                                 const int (*lo)[2], const int (*hi)[2], bool all)
{
    int q = threadIdx.x % 4;
    float s[MT][4][4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        uint4 a = pg.key(j, 0), b = pg.key(j, 1);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            for (int i = 0; i < 4; i++)
                s[m][j][i] = 0;
            mma_kv<F8>(s[m][j], t[m].q[0], a.x, a.y);
            mma_kv<F8>(s[m][j], t[m].q[1], a.z, a.w);
            mma_kv<F8>(s[m][j], t[m].q[2], b.x, b.y);
            mma_kv<F8>(s[m][j], t[m].q[3], b.z, b.w);
        }
    }
    uint32_t pa[MT][2][4];
    float scale[MT][2];
    bool same = true; /* maxima rarely move after the first pages */
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) { /* rows g, g + 8 */
            float top = NONE;
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int b = 0; b < 2; b++) {
                    int pos = p0 + 8 * q + 2 * j + b;
                    float &x = s[m][j][2 * i + b];
                    if (!all && (pos < lo[m][i] || pos > hi[m][i]))
                        x = NONE;
                    top = fmaxf(top, x);
                }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float m1 = fmaxf(t[m].m[i], top);
            float base = m1 == NONE ? 0 : m1;
            float sum = 0;
            scale[m][i] = exp2_fast(t[m].m[i] - base);
            same = same && m1 == t[m].m[i];
            t[m].m[i] = m1;
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int b = 0; b < 2; b++) {
                    float &x = s[m][j][2 * i + b];
                    x = exp2_fast(x - base);
                    sum += x;
                }
            t[m].l[i] = t[m].l[i] * scale[m][i] + sum;
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int c = 0; c < 2; c++)
                    pa[m][h][2 * c + i] =
                        eight<F8>::pair(s[m][2 * h + c][2 * i], s[m][2 * h + c][2 * i + 1]);
        }
    }
    if (!__all_sync(~0u, same))
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int u = 0; u < 8; u++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    t[m].o[u][i] *= scale[m][i / 2];
#pragma unroll
    for (int u = 0; u < 8; u++) {
        uint4 a = pg.value(u);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            mma_kv<F8>(t[m].o[u], pa[m][0], a.x, a.y);
            mma_kv<F8>(t[m].o[u], pa[m][1], a.z, a.w);
        }
    }
}

/* A key head's part of a page. */
template <bool F8>
static __device__ __forceinline__ const uint8_t *head_of(const struct attn_args &a, int page,
                                                         int kv)
{
    return a.pool.p + (size_t)page * a.pool.page +
           ((size_t)a.i_layer * a.n_kv_head + kv) *
               (PAGE_PIECES * sizeof(typename eight<F8>::bits));
}

/* Joins two partial softmaxes: (m, l) += (m2, l2); returns both factors. */
static __device__ __forceinline__ void join(float &m, float &l, float m2, float l2, float &f,
                                            float &f2)
{
    float top = fmaxf(m, m2), base = top == NONE ? 0 : top;
    f = exp2_fast(m - base);
    f2 = exp2_fast(m2 - base);
    m = top;
    l = l * f + l2 * f2;
}

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
    if (mine < n_page - 1)
        page_load<F8>(pg, from(mine));
    pdl_wait();
    if (split >= n_split)
        return;
    if (mine == n_page - 1)
        page_load<F8>(pg, from(mine));
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
    /* 16 threads a query, 4 numbers each; up to 8 queries leave threads for two halves of the
     * partial results. */
    enum { EACH = 4 };
    int n_half = n_q <= 8 ? 2 : 1, half = n_half == 2 ? threadIdx.x / 128 : 0;
    int r = threadIdx.x / 16 - 8 * half, c = threadIdx.x % 16 * EACH;
    float m = NONE, l = 0, o[EACH] = {}, f, f2;
    auto add = [&](float m2, float l2, const float *v) {
        join(m, l, m2, l2, f, f2);
        for (int i = 0; i < EACH; i++)
            o[i] = o[i] * f + v[i] * f2;
    };
    auto join_halves = [&]() {
        if (n_half == 1)
            return;
        float *to = sh[r][15]; /* a row that no query uses */
        __syncthreads();
        if (half == 1) {
            for (int i = 0; i < EACH; i++)
                to[c + i] = o[i];
            if (c == 0) {
                to[HEAD] = m;
                to[HEAD + 1] = l;
            }
        }
        __syncthreads();
        if (half == 0)
            add(to[HEAD], to[HEAD + 1], to + c);
    };
    for (int w = half; w < WARPS; w += n_half)
        add(sh[w][r][HEAD], sh[w][r][HEAD + 1], sh[w][r] + c);
    join_halves();
    if (n_split > 1) {
        float *part = a.part + ((size_t)(blockIdx.z * a.n_kv_head + kv) * gridDim.y) * 16 * PART;
        float *to = part + ((size_t)split * 16 + r) * PART;
        if (half == 0 && r < n_q) {
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
        m = NONE;
        l = 0;
        for (int i = 0; i < EACH; i++)
            o[i] = 0;
#pragma unroll 8
        for (int s = half; s < n_split; s += n_half) {
            const float *p = part + ((size_t)s * 16 + r) * PART;
            float2 ml = __ldcg((const float2 *)(p + HEAD));
            float2 v0 = __ldcg((const float2 *)(p + c)), v1 = __ldcg((const float2 *)(p + c + 2));
            float v[EACH] = {v0.x, v0.y, v1.x, v1.y};
            add(ml.x, ml.y, v);
        }
        join_halves();
    }
    if (r >= n_q || half > 0)
        return;
    join(m, l, a.sinks[kv * n_q + r] * 1.4426950408889634f, 1, f, f2);
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

enum { PAGES = 4 };

/* Where piece i of a page lies in shared memory: in bf16 the pieces of odd keys change places in
 * pairs, so that the lanes of two keys meet different banks. */
template <bool F8> static __device__ __forceinline__ int piece(int i)
{
    return !F8 && i < PAGE_PIECES / 2 ? i ^ (i / 8 & 1) : i;
}

static __device__ __forceinline__ void copy_async(void *to, const void *from)
{
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from));
}

template <bool F8> struct shared_page {
    typedef typename eight<F8>::bits bits;
    const bits *key_at[2], *value_at; /* the lane's places */
    __device__ __forceinline__ shared_page(const bits *p)
    {
        int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
        int key = 8 * (g / 2) + g % 2; /* key tile j adds 2j keys, which changes no parity */
        key_at[0] = p + piece<F8>(key * 8 + 2 * q);
        key_at[1] = p + piece<F8>(key * 8 + 2 * q + 1);
        value_at = p + PAGE_PIECES / 2 + g * 4 + q;
    }
    __device__ __forceinline__ uint4 key(int j, int half) const
    {
        return eight<F8>::wide(key_at[half][j * 16]);
    }
    __device__ __forceinline__ uint4 value(int u) const
    {
        return eight<F8>::wide(value_at[u * 32]);
    }
};

/* grid (kv heads, blocks); a warp takes 32 of the block's 128 queries. */
template <bool F8>
static __global__ void __launch_bounds__(128, 3) attn_block(struct attn_args a, struct dstep st)
{
    typedef typename eight<F8>::bits bits;
    constexpr int COPIES = PAGE_PIECES * sizeof(bits) / 16; /* of 16 bytes */
    __shared__ __align__(16) bits sh[PAGES][PAGE_PIECES];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int kv = blockIdx.x, n_q = a.n_head / a.n_kv_head;
    pdl_go();
    pdl_wait();
    const int32_t *blk = st.block + 3 * blockIdx.y;
    const struct dseq &sq = st.seq[blk[0]];
    int row0 = blk[1], n = blk[2];
    struct tile t[2];
    int lo[2][2], hi[2][2], first = 0x7fffffff, end = -1, last_lo = 0, first_hi = 0x7fffffff;
    for (int m = 0; m < 2; m++) {
        const __nv_bfloat16 *at[2];
        for (int i = 0; i < 2; i++) {
            int r = warp * 32 + m * 16 + i * 8 + g, p = r / n_q, pos = sq.pos0 + row0 - sq.row0 + p;
            bool in = p < n;
            at[i] = in ? a.q + ((size_t)(row0 + p) * a.n_head + kv * n_q + r % n_q) * HEAD : NULL;
            hi[m][i] = in ? pos : -1;
            lo[m][i] = a.window ? max(0, pos - (a.window - 1)) : 0;
            if (in) {
                first = min(first, lo[m][i]);
                end = max(end, pos);
                last_lo = max(last_lo, lo[m][i]);
                first_hi = min(first_hi, pos);
            }
        }
        tile_begin<F8>(t[m], at);
    }
    __shared__ int range[2][4];
    first = __reduce_min_sync(~0u, first);
    end = __reduce_max_sync(~0u, end);
    last_lo = __reduce_max_sync(~0u, last_lo);
    first_hi = __reduce_min_sync(~0u, first_hi);
    if (lane == 0) {
        range[0][warp] = first;
        range[1][warp] = end;
    }
    __syncthreads();
    int p0 = range[0][0] / KV_PAGE, p1 = 0; /* warp 0 has the first positions */
    for (int w = 0; w < 4; w++)
        p1 = max(p1, range[1][w] / KV_PAGE);
    /* Pages come into shared memory three ahead, for all four warps. */
    auto fetch = [&](int p) {
        if (p <= p1) {
            int entry = a.window ? sq.window + p - sq.window0 : sq.full + p;
            const uint4 *from = (const uint4 *)head_of<F8>(a, st.table[entry], kv);
            for (int i = threadIdx.x; i < COPIES; i += 128)
                copy_async((uint4 *)sh[p % PAGES] + piece<F8>(i), from + i);
        }
        asm volatile("cp.async.commit_group;");
    };
    for (int p = p0; p < p0 + PAGES - 1; p++)
        fetch(p);
    for (int p = p0; p <= p1; p++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(PAGES - 2) : "memory");
        __syncthreads(); /* page p is there, and everybody has finished with page p - 1 */
        fetch(p + PAGES - 1);
        if (p * KV_PAGE > end || (p + 1) * KV_PAGE <= first)
            continue;
        page_step<F8, 2>(t, shared_page<F8>(sh[p % PAGES]), p * KV_PAGE, lo, hi,
                         p * KV_PAGE >= last_lo && (p + 1) * KV_PAGE <= first_hi + 1);
    }
    for (int m = 0; m < 2; m++)
        tile_end(t[m]);
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < 2; i++) {
            int r = warp * 32 + m * 16 + i * 8 + g, p = r / n_q, h = kv * n_q + r % n_q;
            if (p >= n)
                continue;
            float f, f2, mm = t[m].m[i], l = t[m].l[i];
            join(mm, l, a.sinks[h] * 1.4426950408889634f, 1, f, f2);
            f /= l;
            uint32_t *out =
                (uint32_t *)(a.out + (size_t)(row0 + p) * (a.n_head * HEAD + ATTN_PAD) + h * HEAD);
            for (int u = 0; u < 8; u++)
                out[4 * u + q] = pack_bf16(t[m].o[u][2 * i] * f, t[m].o[u][2 * i + 1] * f);
        }
}

void k_attn_block(const struct attn_args *a, const struct dstep *st, int n_block, cudaStream_t s)
{
    launch(a->pool.f8 ? attn_block<true> : attn_block<false>, dim3(a->n_kv_head, n_block), 128, 0,
           s, *a, *st);
}
