/* Attention of blocks of prompts over the paged cache, with sinks and windows, on tensor cores.
 *
 * Pages pass through shared memory, once for the four warps of a block. Each has its own queries; a
 * query's sums do not depend on how rows are cut into blocks: pages are the same for all.
 */
#include "cuda/attn.h"

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
