/* Tokens from logits, as engine/sample.c chooses them: the same order, the same meaning of every
 * filter, and the same probabilities bit by bit, but for their sums.
 *
 * A warp owns a segment of consecutive tokens. Sums are in fixed point, so they come out the same
 * in whatever order they are added, and the parts of a sum add up to it exactly: drawing narrows
 * from segments to parts to elements without a remainder. No pass sorts: top-k and top-p find the
 * smallest value to keep in a histogram over bit patterns, which is narrowed 1024-fold a round.
 */
#include "cuda/pick.h"

extern "C" {
#include "base/mem.h"
#include "base/num.h"
}

#include <math.h>
#include <string.h>

enum {
    THREADS = 1024,
    WARPS = THREADS / 32,
    BUCKETS = THREADS,
    AHEAD = 4,          /* elements that a lane loads at once */
    ROUND = 32 * AHEAD, /* elements that a warp loads at once */
};

typedef unsigned long long u64;

/* struct pick for the card. Lists and masks are given by their place in the block of words. */
struct dpick {
    double u;
    float inv_t; /* 1 / temperature; 0: greedy */
    float top_p, min_p, presence, frequency, repetition;
    int32_t top_k, row, token; /* token -1: to be chosen */
    int32_t wants_logprob;
    int32_t seen, n_seen, bias, n_bias, forbidden, n_forbidden;
    int32_t mask, also; /* mask -1: everything is allowed */
};

struct picked {
    int32_t token;
    float logprob;
};

struct pick_args {
    const float *logits; /* [rows, n_vocab] */
    const int32_t *best;
    const uint32_t *block; /* struct dpick [n], then lists and masks */
    float *work;           /* [slots, slot] */
    struct picked *out;    /* [n] in the host's memory */
    size_t slot;
    int n, n_vocab, segment;
    float one; /* 1.0 in fixed point: a power of two */
};

struct shared {
    uint32_t lo[BUCKETS], hi[BUCKETS]; /* halves of counts or sums */
    u64 part[WARPS];                   /* of a reduction */
    u64 mass[WARPS];                   /* of each segment */
    int n[WARPS];                      /* elements of each segment */
    float most[THREADS];               /* largest probability that each thread saw */
    u64 left;
    uint32_t bucket;
};

static __device__ __forceinline__ int lane()
{
    return threadIdx.x % 32;
}

static __device__ __forceinline__ int warp()
{
    return threadIdx.x / 32;
}

static __device__ __forceinline__ uint32_t lanes_below()
{
    return (1u << lane()) - 1;
}

static __device__ __forceinline__ u64 warp_sum(u64 v)
{
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(~0u, v, o);
    return v;
}

static __device__ __forceinline__ u64 warp_max(u64 v)
{
    for (int o = 16; o; o >>= 1) {
        u64 u = __shfl_xor_sync(~0u, v, o);
        v = u > v ? u : v;
    }
    return v;
}

static __device__ u64 block_sum(struct shared *sh, u64 v)
{
    v = warp_sum(v);
    __syncthreads();
    if (lane() == 0)
        sh->part[warp()] = v;
    __syncthreads();
    return warp_sum(sh->part[lane()]);
}

static __device__ u64 block_max(struct shared *sh, u64 v)
{
    v = warp_max(v);
    __syncthreads();
    if (lane() == 0)
        sh->part[warp()] = v;
    __syncthreads();
    return warp_max(sh->part[lane()]);
}

/* Sum of the lanes up to this one. */
static __device__ __forceinline__ u64 warp_upto(u64 v)
{
    for (int o = 1; o < 32; o *= 2) {
        u64 u = __shfl_up_sync(~0u, v, o);
        v += lane() >= o ? u : 0;
    }
    return v;
}

/* One warp: the first i in [0, n) where the sum of f(0) .. f(i) passes *at, which loses what lies
 * before i. The sum of all is more than *at. */
template <typename F> static __device__ int cross(int n, u64 *at, F f)
{
    int per = (n + 31) / 32, from = min(n, lane() * per), to = min(n, from + per), i = from;
    u64 mine = 0;
    for (int k = from; k < to; k++)
        mine += f(k);
    u64 upto = warp_upto(mine), left = *at - (upto - mine);
    bool here = upto - mine <= *at && *at < upto;
    if (here)
        for (u64 v; left >= (v = f(i)); i++)
            left -= v;
    int src = __ffs(__ballot_sync(~0u, here)) - 1;
    *at = __shfl_sync(~0u, left, src);
    return __shfl_sync(~0u, i, src);
}

/* ---- probabilities ---- */

/* exp(x) for x <= 0 by the very operations of engine/pass_loops.h, none of them fused. */
static __device__ __forceinline__ float exp_below_0(float x)
{
    const float magic = 12582912.0f;
    float y = x < -87.0f ? -87.0f : x;
    float shifted = __fadd_rn(__fmul_rn(y, 1.44269504f), magic);
    float k = __fsub_rn(shifted, magic);
    float r = __fsub_rn(y, __fmul_rn(k, 0.693359375f));
    r = __fadd_rn(r, __fmul_rn(k, 2.12194440e-4f));
    float q = 1.9875691500e-4f;
    q = __fadd_rn(__fmul_rn(q, r), 1.3981999507e-3f);
    q = __fadd_rn(__fmul_rn(q, r), 8.3334519073e-3f);
    q = __fadd_rn(__fmul_rn(q, r), 4.1665795894e-2f);
    q = __fadd_rn(__fmul_rn(q, r), 1.6666665459e-1f);
    q = __fadd_rn(__fmul_rn(q, r), 5.0000001201e-1f);
    q = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(q, r), r), r), 1.0f);
    float scaled = __uint_as_float(__float_as_uint(q) + (__float_as_uint(shifted) << 23));
    return x < -87.0f ? 0.0f : scaled;
}

/* The distribution that a row is drawn from: exp((x - max) / temperature), 0 where masked. */
struct dist {
    const float *x;
    const uint32_t *mask; /* NULL: everything is allowed */
    int also;
    float max, inv_t;
};

static __device__ __forceinline__ bool allows(const uint32_t *mask, int also, int i)
{
    return !mask || i == also || (mask[i / 32] >> (i % 32) & 1);
}

static __device__ __forceinline__ float p_of(const struct dist &d, float x, int i)
{
    float p = exp_below_0(__fmul_rn(__fsub_rn(x, d.max), d.inv_t));
    return allows(d.mask, d.also, i) ? p : 0;
}

static __device__ __forceinline__ u64 fixed(float p, float one)
{
    return __float2ull_rn(p * one);
}

/* ---- rules ---- */

static __device__ int argmax(struct shared *sh, const float *x, int n)
{
    u64 top = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        uint32_t b = __float_as_uint(x[i] + 0.0f); /* -0 is 0 */
        b = b & 0x80000000 ? ~b : b | 0x80000000;
        u64 v = (u64)b << 32 | (0x7fffffffu - (uint32_t)i);
        top = v > top ? v : top;
    }
    return (int)(0x7fffffffu - (uint32_t)block_max(sh, top));
}

/* The row under its mask, penalties, biases and forbidden tokens into x; returns its largest. */
static __device__ int apply_rules(struct shared *sh, const struct pick_args &a,
                                  const struct dpick &p, const float *raw, bool forbid, float *x)
{
    const int32_t *list = (const int32_t *)a.block;
    const uint32_t *mask = p.mask < 0 ? NULL : a.block + p.mask;
    for (int i = threadIdx.x; i < a.n_vocab; i += THREADS)
        x[i] = allows(mask, p.also, i) ? raw[i] : -INFINITY;
    __syncthreads();
    for (int i = threadIdx.x; i < p.n_seen; i += THREADS) {
        int id = list[p.seen + 2 * i], n_out = list[p.seen + 2 * i + 1];
        float v = x[id];
        if (p.repetition > 0 && p.repetition != 1)
            v = v > 0 ? __fdiv_rn(v, p.repetition) : __fmul_rn(v, p.repetition);
        x[id] = __fsub_rn(
            v, __fadd_rn(__fmul_rn(p.frequency, (float)n_out), n_out > 0 ? p.presence : 0));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < p.n_bias; i += THREADS)
        x[list[p.bias + i]] += __int_as_float(list[p.bias + p.n_bias + i]);
    __syncthreads();
    for (int i = threadIdx.x; forbid && i < p.n_forbidden; i += THREADS)
        x[list[p.forbidden + i]] = -INFINITY;
    __syncthreads();
    return argmax(sh, x, a.n_vocab);
}

/* ---- filters: v [n] are what a warp has of the candidates ---- */

/* The bucket where walking down from the largest reaches *left, which loses what lies above; where
 * rounding hid that, the last one that holds anything. */
static __device__ uint32_t crossing(struct shared *sh, u64 *left)
{
    int b = BUCKETS - 1 - threadIdx.x;
    u64 in = (u64)sh->hi[b] << 32 | sh->lo[b], upto = warp_upto(in);
    if (lane() == 31)
        sh->part[warp()] = upto;
    __syncthreads();
    u64 of_warp = sh->part[lane()], all = warp_sum(of_warp);
    upto += warp_sum(lane() < warp() ? of_warp : 0);
    if (in > 0 && upto - in < *left && (upto >= *left || upto == all)) {
        sh->bucket = (uint32_t)b;
        sh->left = *left - (upto - in);
    }
    __syncthreads();
    *left = sh->left;
    return sh->bucket;
}

/* Bits of the smallest value that is kept when the largest are taken until there are *left of them
 * (by_mass: until their sum is *left); *left becomes what is still to be taken of that value. None
 * is counted whose bits are below lo. */
static __device__ uint32_t threshold(struct shared *sh, const float *v, int n, uint32_t lo,
                                     bool by_mass, float one, u64 *left)
{
    uint32_t hi = 0x3f800000; /* the likeliest element is 1 */
    while (hi > lo) {
        int shift = 0;
        while ((hi - lo) >> shift >= BUCKETS)
            shift++;
        __syncthreads();
        sh->lo[threadIdx.x] = sh->hi[threadIdx.x] = 0;
        __syncthreads();
        for (int i = lane(); i < n; i += 32) {
            uint32_t b = __float_as_uint(v[i]);
            if (b < lo || b > hi)
                continue;
            u64 add = by_mass ? fixed(v[i], one) : 1;
            b = (b - lo) >> shift;
            uint32_t low = (uint32_t)add, old = atomicAdd(&sh->lo[b], low);
            uint32_t high = (uint32_t)(add >> 32) + (old + low < old);
            if (high)
                atomicAdd(&sh->hi[b], high);
        }
        __syncthreads();
        lo += crossing(sh, left) << shift;
        hi = lo + (1u << shift) - 1;
    }
    return lo;
}

/* Keeps the likeliest until there are `left` of them, or until they sum to `left`; of equal ones
 * those with the lowest ids. The others become 0. */
static __device__ void cut(struct shared *sh, float *v, int n, float floor, bool by_mass, float one,
                           u64 left)
{
    float least = __uint_as_float(threshold(sh, v, n, __float_as_uint(floor), by_mass, one, &left));
    u64 equal = 0;
    for (int i = lane(); i < n; i += 32) {
        equal += v[i] == least;
        v[i] = v[i] < least ? 0 : v[i];
    }
    equal = warp_sum(equal);
    __syncthreads();
    if (lane() == 0)
        sh->part[warp()] = equal;
    __syncthreads();
    u64 of_warp = sh->part[lane()], all = warp_sum(of_warp);
    u64 before = warp_sum(lane() < warp() ? of_warp : 0), each = max(1ull, fixed(least, one));
    u64 take = max(1ull, min(all, by_mass ? (left - 1) / each + 1 : left));
    if (before + equal <= take)
        return;
    for (int i = lane(); i < n + lane(); i += 32) {
        bool is = i < n && v[i] == least;
        uint32_t b = __ballot_sync(~0u, is);
        if (is && before + __popc(b & lanes_below()) >= take)
            v[i] = 0;
        before += __popc(b);
    }
}

/* Drops what is below min_p and sums up the rest. */
static __device__ u64 sum_up(struct shared *sh, float *v, int n, float min_p, float one)
{
    u64 sum = 0;
    for (int i = lane(); i < n; i += 32) {
        if (v[i] < min_p)
            v[i] = 0;
        sum += fixed(v[i], one);
    }
    sum = warp_sum(sum);
    if (lane() == 0) {
        sh->mass[warp()] = sum;
        sh->n[warp()] = n;
    }
    return block_sum(sh, lane() == 0 ? sum : 0);
}

/* The candidates among a warp's segment v [n], those of at least `floor`, move to its front; bits
 * [n / 32] say which they were. Returns how many. */
static __device__ int collect(float *v, int n, float floor, uint32_t *bits)
{
    int k = 0;
    for (int i = 0; i < n; i += ROUND) {
        float x[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            int at = i + 32 * j + lane();
            x[j] = at < n ? v[at] : 0;
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            uint32_t b = __ballot_sync(~0u, x[j] >= floor);
            if (x[j] >= floor)
                v[k + __popc(b & lanes_below())] = x[j]; /* never past what was read */
            if (lane() == 0)
                bits[i / 32 + j] = b;
            k += __popc(b);
        }
    }
    __syncwarp();
    return k;
}

/* Where in which segment the sum of the elements passes `at`; f(segment, i) are elements. Warp 0
 * learns i. */
template <typename F> static __device__ int draw(struct shared *sh, u64 at, int *i, F f)
{
    int s = cross(WARPS, &at, [&](int k) { return sh->mass[k]; });
    int n = sh->n[s], per = (n + WARPS - 1) / WARPS, to = min(n, (warp() + 1) * per);
    u64 sum = 0;
    for (int k = warp() * per + lane(); k < to; k += 32)
        sum += f(s, k);
    sum = warp_sum(sum);
    __syncthreads();
    if (lane() == 0)
        sh->part[warp()] = sum;
    __syncthreads();
    if (warp() > 0)
        return s;
    int w = cross(WARPS, &at, [&](int k) { return sh->part[k]; });
    *i = w * per + cross(min(per, n - w * per), &at, [&](int k) { return f(s, w * per + k); });
    return s;
}

/* ---- a row ---- */

/* Draws from what the filters leave of v [n], the probabilities of this warp's segment; their sum
 * over all is `sum`. Warp 0 learns the token. */
static __device__ int filtered(struct shared *sh, const struct pick_args &a, const struct dpick &p,
                               float *work, int n, u64 sum)
{
    bool by_mass = p.top_p > 0 && p.top_p<1, by_n = p.top_k> 0 && p.top_k < a.n_vocab;
    float *v = work + warp() * a.segment;
    uint32_t *bits = (uint32_t *)(work + WARPS * a.segment);
    /* See sample.c: the others reach top_p without what is below (1 - top_p) of the average. For
     * top-k, at least k elements reach the k-th largest of the threads' maxima. */
    float floor =
        by_n ? 0
        : by_mass
            ? (float)((1 - (double)p.top_p) * ((double)sum / (double)a.one) / (double)a.n_vocab)
            : p.min_p;
    if (by_n && p.top_k <= THREADS / 2) {
        u64 k = (u64)p.top_k;
        floor = __uint_as_float(threshold(sh, sh->most + warp() * 32, 32, 0, false, a.one, &k));
    }
    floor = fmaxf(floor, 1.17549435e-38f);
    int k = collect(v, n, floor, bits + warp() * (a.segment / 32)), start = 0;
    if (by_n) {
        if (block_sum(sh, lane() == 0 ? (u64)k : 0) > (u64)p.top_k)
            cut(sh, v, k, floor, false, a.one, (u64)p.top_k);
        sum = sum_up(sh, v, k, 0, a.one);
    }
    if (by_mass)
        cut(sh, v, k, floor, true, a.one,
            max(1ull, __double2ull_ru((double)p.top_p * (double)sum)));
    sum = sum_up(sh, v, k, p.min_p, a.one);
    u64 at = min(sum - 1, __double2ull_rz(p.u * (double)sum));
    int s = draw(sh, at, &start,
                 [&](int seg, int i) { return fixed(work[seg * a.segment + i], a.one); });
    if (warp() > 0)
        return 0;
    /* The start-th of the bits that its segment has. */
    at = (u64)start;
    const uint32_t *word = bits + s * (a.segment / 32);
    int w = cross(a.segment / 32, &at, [&](int i) { return (u64)__popc(word[i]); });
    uint32_t b = word[w];
    for (; at > 0; at--)
        b &= b - 1;
    return s * a.segment + w * 32 + __ffs(b) - 1;
}

static __device__ void pick_row(struct shared *sh, const struct pick_args &a, const struct dpick &p,
                                float *work, struct picked *out)
{
    const float *raw = a.logits + (size_t)p.row * a.n_vocab;
    int best = a.best[p.row], token = p.token < 0 ? best : p.token;
    struct dist d = {raw, p.mask < 0 ? NULL : a.block + p.mask, p.also, 0, p.inv_t};
    bool draws = p.token < 0 && p.inv_t > 0;
    if (best < 0) { /* bad numbers, which the host reports */
        if (threadIdx.x == 0)
            *out = {0, 0};
        return;
    }
    float raw_max = d.max = raw[best];
    if (p.token < 0 && (p.n_seen || p.n_bias || p.n_forbidden || !allows(d.mask, d.also, best))) {
        token = apply_rules(sh, a, p, raw, true, work);
        bool nothing = work[token] == -INFINITY;
        __syncthreads(); /* before work is written to again */
        if (nothing)
            token = apply_rules(sh, a, p, raw, false, work);
        d = {work, NULL, -1, work[token], p.inv_t};
        __syncthreads(); /* before work is written to */
    }
    bool filters = draws && ((p.top_p > 0 && p.top_p < 1) || (p.top_k > 0 && p.top_k < a.n_vocab) ||
                             p.min_p > 0);
    bool same = d.x == raw && d.inv_t == 1; /* the sum is that of the model itself */
    int from = min(a.n_vocab, warp() * a.segment), to = min(a.n_vocab, from + a.segment);
    u64 mass = 0, whole = 0;
    float most = 0;
    for (int i = from; i < to && (draws || p.wants_logprob); i += ROUND) {
        float x[AHEAD], y[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            int at = i + 32 * j + lane();
            x[j] = at < to ? d.x[at] : -INFINITY;
            y[j] = at < to && p.wants_logprob && !same ? raw[at] : x[j];
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            int at = i + 32 * j + lane();
            if (p.wants_logprob)
                whole += fixed(exp_below_0(__fsub_rn(y[j], raw_max)), a.one);
            if (!draws || at >= to)
                continue;
            float q = p_of(d, x[j], at);
            mass += fixed(q, a.one);
            most = fmaxf(most, q);
            if (filters)
                work[at] = q;
        }
    }
    if (p.wants_logprob)
        whole = block_sum(sh, whole);
    if (draws) {
        mass = warp_sum(mass);
        if (lane() == 0) {
            sh->mass[warp()] = mass;
            sh->n[warp()] = to - from;
        }
        sh->most[threadIdx.x] = most;
        u64 sum = block_sum(sh, lane() == 0 ? mass : 0);
        if (filters) {
            token = filtered(sh, a, p, work, to - from, sum);
        } else {
            int i = 0, s = draw(sh, min(sum - 1, __double2ull_rz(p.u * (double)sum)), &i,
                                [&](int seg, int k) {
                                    int at = seg * a.segment + k;
                                    return fixed(p_of(d, d.x[at], at), a.one);
                                });
            token = s * a.segment + i;
        }
    }
    if (threadIdx.x == 0) {
        double lse = (double)raw_max + (p.wants_logprob ? log((double)whole / (double)a.one) : 0);
        *out = {token, (float)((double)raw[token] - lse)};
    }
}

static __global__ void __launch_bounds__(THREADS) pick(struct pick_args a)
{
    __shared__ struct shared sh;
    const struct dpick *p = (const struct dpick *)a.block;
    for (int i = blockIdx.x; i < a.n; i += gridDim.x) {
        pick_row(&sh, a, p[i], a.work + blockIdx.x * a.slot, &a.out[i]);
        __syncthreads();
    }
}

/* ---- the host's side ---- */

struct picker {
    int max_row, n_vocab, n_slot, n_mask; /* n_mask: words of a mask */
    struct pick_args args;                /* but for the rows and n */
    uint32_t *host, *dev;                 /* [cap] the block of words, here and on the card */
    size_t cap, at;
    int *row; /* [max_row] of the picks queued */
    const uint32_t **mask;
    cudaStream_t copy;
    cudaEvent_t copied;
};

struct picker *picker_open(int max_row, int n_vocab)
{
    struct picker *k = (struct picker *)mem_calloc(1, sizeof *k);
    if (!k)
        return NULL;
    size_t V = (size_t)n_vocab, R = (size_t)max_row;
    k->row = (int *)mem_array(R, sizeof *k->row);
    k->mask = (const uint32_t **)mem_array(R, sizeof *k->mask);
    if (!k->row || !k->mask) {
        picker_close(k);
        return NULL;
    }
    int n_bit = 0;
    while (n_vocab >> n_bit)
        n_bit++;
    k->max_row = max_row;
    k->n_vocab = n_vocab;
    k->n_mask = (n_vocab + 31) / 32;
    k->n_slot = min_int(max_row, card()->n_sm);
    k->args.n_vocab = n_vocab;
    k->args.one = ldexpf(1, 64 - n_bit); /* the sum of n_vocab ones fits */
    k->args.segment = (n_vocab + WARPS * ROUND - 1) / (WARPS * ROUND) * ROUND;
    k->args.slot = (size_t)k->args.segment * (WARPS + 1); /* and a bit for each element */
    /* A row with the longest lists, or every row with a mask. */
    k->cap = R * (sizeof(struct dpick) / 4 + (size_t)k->n_mask) + 6 * V + (1 << 16);
    CU(cudaMalloc((void **)&k->args.work, (size_t)k->n_slot * k->args.slot * sizeof(float)));
    CU(cudaMalloc((void **)&k->dev, k->cap * sizeof *k->dev));
    CU(cudaHostAlloc((void **)&k->host, k->cap * sizeof *k->host, cudaHostAllocDefault));
    CU(cudaHostAlloc((void **)&k->args.out, R * sizeof *k->args.out, cudaHostAllocDefault));
    CU(cudaStreamCreateWithFlags(&k->copy, cudaStreamNonBlocking));
    CU(cudaEventCreateWithFlags(&k->copied, cudaEventDisableTiming));
    k->args.block = k->dev;
    return k;
}

void picker_close(struct picker *k)
{
    if (!k)
        return;
    cudaFree(k->args.work);
    cudaFree(k->dev);
    cudaFreeHost(k->host);
    cudaFreeHost(k->args.out);
    if (k->copy)
        cudaStreamDestroy(k->copy);
    if (k->copied)
        cudaEventDestroy(k->copied);
    mem_free(k->row);
    mem_free(k->mask);
    mem_free(k);
}

static int32_t put(struct picker *k, const void *p, size_t n_word)
{
    size_t at = k->at;
    if (n_word)
        memcpy(k->host + at, p, n_word * sizeof *k->host);
    k->at += n_word;
    return (int32_t)at;
}

/* The place of the mask; most rows have one in common. */
static int32_t put_mask(struct picker *k, const uint32_t *mask)
{
    const struct dpick *d = (const struct dpick *)k->host;
    int i = k->args.n - 1;
    k->mask[k->args.n] = mask;
    if (!mask)
        return -1;
    while (i >= 0 && k->mask[i] != mask)
        i--;
    return i < 0 ? put(k, mask, (size_t)k->n_mask) : d[i].mask;
}

/* Does the kernel's answer differ from k_best's, or say more? */
static bool needs_kernel(const struct pick *p)
{
    return p->kind == PICK_LOGPROB ||
           (p->kind == PICK_TOKEN && (p->temperature > 0 || p->wants_logprob || p->mask ||
                                      p->n_seen || p->n_bias || p->n_forbidden));
}

static size_t words_of(const struct picker *k, const struct pick *p)
{
    return 2 * (size_t)p->n_seen + 2 * (size_t)p->n_bias + (size_t)p->n_forbidden +
           (p->mask ? (size_t)k->n_mask : 0);
}

static void queue(struct picker *k, const struct pick *p, int row)
{
    struct dpick *d = (struct dpick *)k->host + k->args.n;
    float inv_t = p->temperature > 0 ? 1 / p->temperature : 0;
    k->row[k->args.n] = row;
    if (p->kind == PICK_LOGPROB) {
        k->mask[k->args.n++] = NULL;
        *d = {};
        d->row = row;
        d->token = p->token;
        d->wants_logprob = 1;
        d->mask = d->also = -1;
        return;
    }
    *d = {.u = p->u,
          .inv_t = isfinite(inv_t) ? inv_t : 0,
          .top_p = p->top_p,
          .min_p = p->min_p,
          .presence = p->presence,
          .frequency = p->frequency,
          .repetition = p->repetition,
          .top_k = p->top_k,
          .row = row,
          .token = -1,
          .wants_logprob = p->wants_logprob,
          .seen = put(k, p->seen, 2 * (size_t)p->n_seen),
          .n_seen = p->n_seen,
          .bias = put(k, p->bias_id, (size_t)p->n_bias),
          .n_bias = p->n_bias,
          .forbidden = 0,
          .n_forbidden = p->n_forbidden,
          .mask = -1,
          .also = p->also};
    (void)put(k, p->bias, (size_t)p->n_bias); /* behind their ids */
    d->forbidden = put(k, p->forbidden, (size_t)p->n_forbidden);
    d->mask = put_mask(k, p->mask);
    k->args.n++;
}

static void reset(struct picker *k)
{
    k->args.n = 0;
    k->at = (size_t)k->max_row * (sizeof(struct dpick) / 4);
}

/* Starts the kernel for what is queued. */
static void begin(struct picker *k, cudaStream_t s)
{
    if (k->args.n == 0)
        return;
    CU(cudaMemcpyAsync(k->dev, k->host, k->at * sizeof *k->dev, cudaMemcpyHostToDevice, k->copy));
    CU(cudaEventRecord(k->copied, k->copy));
    CU(cudaStreamWaitEvent(s, k->copied, 0));
    pick<<<min_int(k->args.n, k->n_slot), THREADS, 0, s>>>(k->args);
    CU(cudaGetLastError());
}

/* Waits, and takes over the results of what was queued. */
static void finish(struct picker *k, struct pick *p, cudaStream_t s)
{
    CU(cudaStreamSynchronize(s));
    for (int i = 0; i < k->args.n; i++) {
        p[k->row[i]].token = k->args.out[i].token;
        p[k->row[i]].logprob = k->args.out[i].logprob;
    }
    reset(k);
}

status picker_run(struct picker *k, struct pick *p, int n, const struct pick_rows *rows,
                  cudaStream_t s, struct err *e)
{
    size_t V = (size_t)k->n_vocab;
    k->args.logits = rows->logits;
    k->args.best = rows->best;
    reset(k);
    for (int i = 0; i < n; i++) {
        if (!needs_kernel(&p[i]))
            continue;
        if (p[i].n_seen > k->n_vocab || p[i].n_bias > k->n_vocab || p[i].n_forbidden > k->n_vocab)
            return err_set(e, E_LIMIT, "a list of tokens is longer than the vocabulary of %d",
                           k->n_vocab);
        if (words_of(k, &p[i]) > k->cap - k->at) {
            begin(k, s);
            finish(k, p, s);
        }
        queue(k, &p[i], i);
    }
    begin(k, s);
    for (int i = 0, m; i < n; i += m) {
        for (m = 0; i + m < n && p[i + m].kind == PICK_LOGITS; m++)
            p[i + m].logits = rows->host_logits + (size_t)(i + m) * V;
        if (m)
            CU(cudaMemcpyAsync(rows->host_logits + (size_t)i * V, rows->logits + (size_t)i * V,
                               (size_t)m * V * sizeof(float), cudaMemcpyDeviceToHost, s));
        m += m == 0;
    }
    finish(k, p, s);
    for (int i = 0; i < n; i++)
        if (p[i].kind == PICK_TOKEN && !needs_kernel(&p[i]))
            p[i].token = rows->host_best[i];
    return OK;
}
