/* Attention of blocks of prompts over the paged cache, with sinks and windows, on tensor cores.
 *
 * A block's queries are those of some rows and all query heads of a key head; the pages that they
 * see pass through shared memory once. However rows are cut into blocks, a query's result has the
 * same bits: keys come in groups whose limits are the sequence's own, a query's maximum and sums
 * are its own, and a group that it does not see leaves them as they are.
 *
 * Hopper has a kernel on its warpgroup instructions, other cards one on mma.sync.
 */
#include "cuda/attn.h"
#include "cuda/frag.h"
#include "cuda/wgmma.h"

/* ---- mma.sync ---- */

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
    const int32_t *blk = st.block + 4 * blockIdx.y;
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

/* ---- Hopper ---- */

/* A block has TEAMS warpgroups that compute, 64 queries each, and one that brings queries and keys
 * into shared memory. It goes through its share of the items, an item being a block of the step
 * times a key head; while the teams work on one, the next is on its way.
 *
 * Keys come in groups of KEYS. A team asks the tensor core for the scores of a group and for the
 * product of the weights of the group before with its values, and computes the softmax of the
 * former while the other teams have the tensor core. A row of ones behind the values adds the
 * weights up.
 *
 * Scores are scaled by a maximum that moves only if one is beyond it by LAZY: sums are up to 2^LAZY
 * larger then, which costs no precision. It begins with the sink, a key without a value.
 *
 * Shared memory holds tiles [64][64] in rows of 128 bytes, piece c (of 16 bytes) of row r in place
 * c ^ r % 8, as the tensor core wants them: a team's queries; a stage's keys; its values, whose
 * rows are the 64 numbers of a head. */
enum {
    TEAMS = 4,
    KEYS = 64,
    GROUP_PAGES = KEYS / KV_PAGE,
    ROW = 128, /* bytes */
    TILE = 64 * ROW,
    SUM_ROWS = 8, /* behind a stage's values; the first is ones */
    STAGE = 2 * TILE + SUM_ROWS * ROW,
    STAGES = 8,
    Q_BYTES = TEAMS * TILE,
    Q_PLACES = 2,
    BARS = Q_PLACES * Q_BYTES + STAGES * STAGE,
    TEAMS_SMEM = BARS + 512 + 1024,
    OUT = (HEAD + SUM_ROWS) / 2, /* numbers a thread has of the weighted values and sums */
    LAZY = 8,
};

/* Where things lie from `base` on, in shared memory. Of a place, `full` and `empty` are barriers.
 */
struct stock {
    uint32_t base;
    __device__ __forceinline__ uint32_t queries(int i) const
    {
        return base + i * Q_BYTES;
    }
    __device__ __forceinline__ uint32_t keys(int i) const
    {
        return base + Q_PLACES * Q_BYTES + i * STAGE;
    }
    __device__ __forceinline__ uint32_t values(int i) const
    {
        return keys(i) + TILE;
    }
    __device__ __forceinline__ uint32_t full(int i) const
    {
        return base + BARS + 16 * i;
    }
    __device__ __forceinline__ uint32_t empty(int i) const
    {
        return full(i) + 8;
    }
    __device__ __forceinline__ uint32_t q_full(int i) const
    {
        return full(STAGES + i);
    }
    __device__ __forceinline__ uint32_t q_empty(int i) const
    {
        return empty(STAGES + i);
    }
    /* The item whose queries these are: key head, first row, rows, first row's position. */
    __device__ __forceinline__ uint32_t record(int i) const
    {
        return base + BARS + 256 + 16 * i;
    }
};

#ifdef GLOSS_WGMMA
static __device__ __forceinline__ void bar_init(uint32_t bar, int n)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(n) : "memory");
}

/* Has the phase of this parity ended? */
static __device__ __forceinline__ bool bar_passed(uint32_t bar, uint32_t parity)
{
    uint32_t ok;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, p;\n}"
                 : "=r"(ok)
                 : "r"(bar), "r"(parity)
                 : "memory");
    return ok;
}

static __device__ __forceinline__ void bar_wait(uint32_t bar, uint32_t parity)
{
    while (!bar_passed(bar, parity))
        ;
}

static __device__ __forceinline__ void bar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

static __device__ __forceinline__ void warp_arrive(uint32_t bar)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        bar_arrive(bar);
}

/* What this thread wrote to shared memory, for the tensor core to see. */
static __device__ __forceinline__ void show()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void copies_end()
{
    asm volatile("cp.async.commit_group;");
}

template <int LEFT> static __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

static __device__ __forceinline__ void put(uint32_t to, uint4 v)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z),
                 "r"(v.w)
                 : "memory");
}

static __device__ __forceinline__ void put_word(uint32_t to, uint32_t v)
{
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

static __device__ __forceinline__ int4 get(uint32_t from)
{
    int4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

template <int N> static __device__ __forceinline__ void more_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void fewer_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* A matrix descriptor's lower half; the upper one (rows of 8 every 1024 bytes, 128-byte swizzle) is
 * the same for all. */
static __device__ __forceinline__ uint32_t matrix(uint32_t at)
{
    return at >> 4 | 1 << 16;
}

static __device__ __forceinline__ void wg_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wg_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* What comes after uses c as it is here. */
template <int N> static __device__ __forceinline__ void pin(float (&c)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(c[i])::"memory");
}

/* Waits until LEFT groups are under way; c is not read before. */
template <int LEFT, int N> static __device__ __forceinline__ void wg_wait(float (&c)[N])
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
    pin(c);
}

#define NAMES                                                                                      \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "   \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define EIGHT(i)                                                                                   \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]),    \
        "+f"(c[i + 6]), "+f"(c[i + 7])
#define UPPER "0x40000040"
/* c = a b^T, or added to it: 16 numbers of each of 64 rows; both in shared memory. */
#define SCORES(TYPE)                                                                               \
    asm volatile("{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %34, 0;\n"                     \
                 "mov.b64 a, {%32, " UPPER "};\nmov.b64 b, {%33, " UPPER "};\n"                    \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" NAMES            \
                 "}, a, b, p, 1, 1, 0, 0;\n}"                                                      \
                 : EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24)                                        \
                 : "r"(a), "r"(b), "n"(ADD))
/* c += a b^T; a in registers, b with SUM_ROWS rows more. */
#define WEIGHTED(TYPE)                                                                             \
    asm volatile("{\n.reg .b64 b;\nmov.b64 b, {%40, " UPPER "};\n"                                 \
                 "wgmma.mma_async.sync.aligned.m64n72k16.f32." TYPE "." TYPE " {" NAMES            \
                 ", %32, %33, %34, %35}, {%36, %37, %38, %39}, b, 1, 1, 1, 0;\n}"                  \
                 : EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24), "+f"(c[32]), "+f"(c[33]),             \
                   "+f"(c[34]), "+f"(c[35])                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b))

template <bool F8, bool ADD>
static __device__ __forceinline__ void scores(float (&c)[32], uint32_t a, uint32_t b)
{
    if (F8)
        SCORES("f16");
    else
        SCORES("bf16");
}

template <bool F8>
static __device__ __forceinline__ void weighted(float (&c)[OUT], const uint32_t a[4], uint32_t b)
{
    if (F8)
        WEIGHTED("f16");
    else
        WEIGHTED("bf16");
}

/* Where a thread is in a circle of places, and how often it has gone round, modulo two. */
struct circle {
    int i;
    uint32_t round;
    __device__ __forceinline__ void next(int n)
    {
        if (++i == n) {
            i = 0;
            round ^= 1;
        }
    }
};

/* The block's n-th item, or none (>= all): there and back over the blocks, so that long items,
 * which come first, fall to all alike. */
static __device__ __forceinline__ int item_of(int n)
{
    int G = gridDim.x, b = blockIdx.x;
    return n * G + (n % 2 ? G - 1 - b : b);
}

/* Query x of an item, below 256, is head x % n_q (up to 16) of row x / n_q; division is slow. */
struct heads {
    int n_q, inverse;
    __device__ __forceinline__ heads(const struct attn_args &a)
        : n_q(a.n_head / a.n_kv_head), inverse((65535 + n_q) / n_q)
    {
    }
    __device__ __forceinline__ int row(int x) const
    {
        return x * inverse >> 16;
    }
    __device__ __forceinline__ int head(int x) const
    {
        return x - row(x) * n_q;
    }
};

/* First key that the query at position pos sees. */
static __device__ __forceinline__ int first_key(const struct attn_args &a, int pos)
{
    return a.window ? max(0, pos - (a.window - 1)) : 0;
}

static __device__ __forceinline__ uint32_t piece_at(uint32_t matrix, int row, int c)
{
    return matrix + row * ROW + (c ^ row % 8) * 16;
}

/* 16 numbers of e4m3 as two pieces side by side. */
static __device__ __forceinline__ void put_wide(uint32_t to, uint4 v)
{
    put(to, eight<true>::wide(make_uint2(v.x, v.y)));
    put(to ^ 16, eight<true>::wide(make_uint2(v.z, v.w)));
}

/* The warpgroup that brings. Warp w brings the queries of team w and every fourth group of keys,
 * one at a time. */
template <bool F8>
static __device__ __forceinline__ void bring(const struct attn_args &a, const struct dstep &st,
                                             int n_block, struct stock sh)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, n_item = n_block * a.n_kv_head;
    struct heads of(a);
    struct circle place = {0, 1};
    int c = 0; /* groups of the items before */
    /* Where the lane's first piece of a page lies. Of the others, the row differs by what the
     * swizzle does not see, or by 4, and the piece by 4: both change bit 6 of the address. */
    uint32_t key_to = F8 ? piece_at(0, lane / 4, lane % 4 * 2) : piece_at(0, lane / 8, lane % 8);
    uint32_t value_to = F8 ? piece_at(0, lane / 2, lane % 2 * 2) : piece_at(0, lane / 4, lane % 4);
    auto landed = [&](uint32_t bar) {
        show();
        warp_arrive(bar);
    };
    for (int k = 0; k * (int)gridDim.x < n_item; k++) {
        int item = item_of(k);
        if (item >= n_item)
            break;
        int kv = item % a.n_kv_head;
        const int32_t *blk = st.block + 4 * (item / a.n_kv_head);
        const struct dseq sq = st.seq[blk[0]];
        int row0 = blk[1], n = blk[2], pos0 = sq.pos0 + row0 - sq.row0;
        int p0 = first_key(a, pos0) / KV_PAGE, p1 = (pos0 + n - 1) / KV_PAGE;
        int g0 = p0 / GROUP_PAGES, g1 = p1 / GROUP_PAGES, g = g0 + ((warp - c) & 3);
        const int32_t *table = st.table + (a.window ? sq.window - sq.window0 : sq.full);
        bar_wait(sh.q_empty(place.i), place.round);
        if (threadIdx.x % 128 == 0)
            put(sh.record(place.i), make_uint4(kv, row0, n, pos0));
        const char *q = (const char *)(a.q + ((size_t)row0 * a.n_head + kv * of.n_q) * HEAD);
#pragma unroll 2
        for (int i = 0; i < 16; i++) {
            int x = warp * 64 + i * 4 + lane / 8, p = of.row(x);
            const char *from = q + ((size_t)p * a.n_head + of.head(x)) * ROW + lane % 8 * 16;
            uint32_t to = piece_at(sh.queries(place.i), x, lane % 8);
            if (p >= n) {
                put(to, make_uint4(0, 0, 0, 0));
            } else if (F8) {
                uint4 v = *(const uint4 *)from;
                put(to, make_uint4(eight<F8>::query(v.x), eight<F8>::query(v.y),
                                   eight<F8>::query(v.z), eight<F8>::query(v.w)));
            } else {
                copy_async(to, from);
            }
        }
        copies_end();
        bool with_q = true;
        for (; g <= g1; g += 4) {
            int at = (c + g - g0) % STAGES, round = (c + g - g0) / STAGES;
            int id[GROUP_PAGES]; /* those beside p0 to p1 are not read for what is in them */
            for (int i = 0; i < GROUP_PAGES; i++)
                id[i] = table[min(max(g * GROUP_PAGES + i, p0), p1)];
            bar_wait(sh.empty(at), round % 2 ^ 1);
#pragma unroll
            for (int i = 0; i < GROUP_PAGES; i++) {
                const uint4 *from = (const uint4 *)head_of<F8>(a, id[i], kv) + lane;
                uint32_t keys = sh.keys(at) + i * KV_PAGE * ROW, values = sh.values(at);
                if (F8) {
#pragma unroll 2
                    for (int j = 0; j < 4; j++) {
                        uint4 key = from[j * 32], value = from[j * 32 + 128];
                        put_wide(keys + j * 8 * ROW + key_to, key);
                        put_wide(values + j * 16 * ROW + (value_to ^ i * 64), value);
                    }
                } else {
#pragma unroll
                    for (int j = 0; j < 8; j++) {
                        copy_async(keys + j * 4 * ROW + (key_to ^ j % 2 * 64), from + j * 32);
                        copy_async(values + j * 8 * ROW + (value_to ^ i * 64), from + 256 + j * 32);
                    }
                }
            }
            copies_end();
            if (with_q) {
                copies_wait<1>();
                landed(sh.q_full(place.i));
                with_q = false;
            }
            copies_wait<0>();
            landed(sh.full(at));
        }
        if (with_q) {
            copies_wait<0>();
            landed(sh.q_full(place.i));
        }
        c += g1 + 1 - g0;
        place.next(Q_PLACES);
    }
}

/* One of the teams. */
template <bool F8>
static __device__ __forceinline__ void compute(const struct attn_args &a, int n_block, int team,
                                               struct stock sh)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int x0 = team * 64 + warp * 16, n_item = n_block * a.n_kv_head; /* the warp's first query */
    struct heads of(a);
    struct circle stage = {0, 0}, place = {0, 0};
    auto skip = [&](int n) {
        for (; n > 0; n--) {
            bar_wait(sh.full(stage.i), stage.round);
            warp_arrive(sh.empty(stage.i));
            stage.next(STAGES);
        }
    };
    for (int k = 0; k * (int)gridDim.x < n_item; k++) {
        if (item_of(k) >= n_item)
            break;
        bar_wait(sh.q_full(place.i), place.round);
        int4 rec = get(sh.record(place.i));
        int kv = rec.x, row0 = rec.y, n = rec.z, pos0 = rec.w;
        uint32_t tile = sh.queries(place.i) + team * TILE; /* the team's queries */
        /* Row i of a lane, query x0 + g + 8i, sees keys lo to hi, if it is one. */
        int lo[2], hi[2], last_lo = 0, first_hi = 0x7fffffff;
        float m[2];
        for (int i = 0; i < 2; i++) {
            int x = x0 + g + 8 * i, pos = pos0 + of.row(x);
            bool in = of.row(x) < n;
            hi[i] = in ? pos : -1;
            lo[i] = first_key(a, pos);
            if (in) {
                last_lo = max(last_lo, lo[i]);
                first_hi = min(first_hi, pos);
            }
            m[i] = fmaxf(a.sinks[kv * of.n_q + of.head(x)] * 1.4426950408889634f, -1e30f);
        }
        last_lo = __reduce_max_sync(~0u, last_lo);
        first_hi = __reduce_min_sync(~0u, first_hi);
        /* The block's groups, and the team's own among them. */
        int g0 = first_key(a, pos0) / KEYS, g1 = (pos0 + n - 1) / KEYS;
        int p0 = of.row(team * 64), p1 = min(of.row(team * 64 + 63), n - 1);
        int at = first_key(a, pos0 + p0) / KEYS, end = (pos0 + p1) / KEYS;
        float s[KEYS / 2], o[OUT] = {}, scale[2];
        uint32_t w[KEYS / 16][4];
        o[HEAD / 2] = o[HEAD / 2 + 2] = q == 0; /* the sink's weight */
        auto score = [&](int i) {
            uint32_t key = matrix(sh.keys(i)), query = matrix(tile);
            scores<F8, false>(s, query, key);
#pragma unroll
            for (int j = 1; j < 4; j++)
                scores<F8, true>(s, query + 2 * j, key + 2 * j);
            wg_commit();
        };
        auto weigh = [&](int i) {
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++)
                weighted<F8>(o, w[j], matrix(sh.values(i)) + 2 * j);
            wg_commit();
        };
        /* Scores of group i to weights. */
        auto soften = [&](int i) {
            int key0 = i * KEYS;
            if (key0 < last_lo)
#pragma unroll
                for (int j = 0; j < KEYS / 2; j++)
                    if (j / 4 * 8 + j % 2 < lo[j / 2 % 2] - key0 - 2 * q)
                        s[j] = NONE;
            if (key0 + KEYS - 1 > first_hi)
#pragma unroll
                for (int j = 0; j < KEYS / 2; j++)
                    if (j / 4 * 8 + j % 2 > hi[j / 2 % 2] - key0 - 2 * q)
                        s[j] = NONE;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float tops[2] = {s[2 * h], s[2 * h + 1]};
#pragma unroll
                for (int j = 2; j < KEYS / 4; j++)
                    tops[j % 2] = fmaxf(tops[j % 2], s[4 * (j / 2) + 2 * h + j % 2]);
                float top = fmaxf(tops[0], tops[1]);
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
                float base = top > m[h] + LAZY ? top : m[h];
                scale[h] = exp2_fast(m[h] - base);
                m[h] = base;
#pragma unroll
                for (int j = 0; j < KEYS / 4; j++) {
                    float &x = s[4 * (j / 2) + 2 * h + j % 2];
                    x = exp2_fast(x - base);
                }
            }
            if (__any_sync(~0u, scale[0] != 1 || scale[1] != 1))
#pragma unroll
                for (int j = 0; j < OUT; j++)
                    o[j] *= scale[j / 2 % 2];
        };
        auto pack = [&]() {
#pragma unroll
            for (int j = 0; j < KEYS / 4; j++)
                w[j / 4][j % 4] = eight<F8>::pair(s[2 * j], s[2 * j + 1]);
        };
        if (p0 >= n) { /* rows end before this team */
            skip(g1 + 1 - g0);
            warp_arrive(sh.q_empty(place.i));
            place.next(Q_PLACES);
            continue;
        }
        skip(at - g0);
        bar_wait(sh.full(stage.i), stage.round);
        wg_begin();
        score(stage.i);
        wg_wait<0>(s);
        soften(at);
        pack();
        for (int i = at + 1; i <= end; i++) {
            int before = stage.i;
            stage.next(STAGES);
            bar_wait(sh.full(stage.i), stage.round);
            wg_begin();
            score(stage.i);
            weigh(before);
            wg_wait<0>(s);
            pin(o);
            warp_arrive(sh.empty(before));
            soften(i);
            pack();
        }
        wg_begin();
        weigh(stage.i);
        wg_wait<0>(o);
        warp_arrive(sh.empty(stage.i));
        stage.next(STAGES);
        float f[2];
        for (int i = 0; i < 2; i++)
            f[i] = 1 / __shfl_sync(~0u, o[HEAD / 2 + 2 * i], lane & ~3);
        /* Through the place of the warp's queries, so that rows are written whole. */
        uint32_t mine = tile + warp * 16 * ROW;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            int i = j % 2, u = j / 2;
            put_word(piece_at(mine, g + 8 * i, u) + 4 * q,
                     pack_bf16(o[4 * u + 2 * i] * f[i], o[4 * u + 2 * i + 1] * f[i]));
        }
        __syncwarp();
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int r = j * 4 + lane / 8, x = x0 + r, p = of.row(x);
            int4 v = get(piece_at(mine, r, lane % 8));
            if (p < n)
                *(int4 *)(a.out + (size_t)(row0 + p) * (a.n_head * HEAD + ATTN_PAD) +
                          (kv * of.n_q + of.head(x)) * HEAD + lane % 8 * 8) = v;
        }
        warp_arrive(sh.q_empty(place.i));
        place.next(Q_PLACES);
        skip(g1 - end);
    }
}
#endif

/* As many blocks as the card has SMs, or items. */
template <bool F8>
static __global__ void __launch_bounds__((TEAMS + 1) * 128, 1)
    attn_teams(struct attn_args a, struct dstep st, int n_block)
{
#ifdef GLOSS_WGMMA
    extern __shared__ char smem[];
    struct stock sh = {((uint32_t)__cvta_generic_to_shared(smem) + 1023) & ~1023u};
    int team = __shfl_sync(~0u, threadIdx.x / 128, 0); /* the compiler sees that a warp has one */
    for (int i = threadIdx.x; i < STAGES * SUM_ROWS * 8; i += (TEAMS + 1) * 128) {
        uint32_t v = i % (SUM_ROWS * 8) < 8 ? eight<F8>::pair(1, 1) : 0;
        put(sh.values(i / (SUM_ROWS * 8)) + TILE + i % (SUM_ROWS * 8) * 16, make_uint4(v, v, v, v));
    }
    if (threadIdx.x == 0)
        for (int i = 0; i < STAGES + Q_PLACES; i++) {
            bar_init(sh.full(i), i < STAGES ? 1 : 4);
            bar_init(sh.empty(i), 4 * TEAMS);
        }
    show();
    __syncthreads();
    pdl_go();
    pdl_wait();
    if (team == TEAMS) {
        fewer_registers<32>();
        bring<F8>(a, st, n_block, sh);
    } else {
        more_registers<112>();
        compute<F8>(a, n_block, team, sh);
    }
#endif
}

int attn_block_queries()
{
    return card()->major == 9 ? TEAMS * 64 : 128;
}

void k_attn_block(const struct attn_args *a, const struct dstep *st, int n_block, cudaStream_t s)
{
    bool f8 = a->pool.f8;
    int n_item = n_block * a->n_kv_head, n_sm = card()->n_sm;
    if (card()->major != 9) {
        launch(f8 ? attn_block<true> : attn_block<false>, dim3(a->n_kv_head, n_block), 128, 0, s,
               *a, *st);
        return;
    }
    auto kernel = f8 ? attn_teams<true> : attn_teams<false>;
    allow_smem(kernel, TEAMS_SMEM);
    launch(kernel, dim3(n_item < n_sm ? n_item : n_sm), (TEAMS + 1) * 128, TEAMS_SMEM, s, *a, *st,
           n_block);
}
