/* The experts' products of --arith fp8: e4m3 activations times MXFP4 weights, which e4m3 holds
 * exactly (layout.cu, MX8), on Hopper's warpgroup instructions: twice the arithmetic of bf16.
 *
 * Activations. `spread` makes them from the router's normed rows, the gated unit's epilogue from
 * its results. Both lie as a block reads them, group by group: [stage of 128 inputs][row of the
 * group, rounded up to 8][128 bytes], the bytes of a row swizzled as the hardware wants, so that a
 * stage is one copy by the copy engine. Within 16 inputs they have the order of the weights' bits:
 * 4q + {0, 1, 2, 3} is input 2q, 2q + 1, 2q + 8, 2q + 9.
 *
 * Scales. A normed row's numbers are at most sqrt(d) times the norm's largest weight, the gated
 * unit's at most limit * (limit + 1). So a layer has two powers of two, known before the first
 * token, that keep everything below e4m3's largest number, and rows have none of their own; what
 * rounding loses does not depend on it, as long as a number stays above 2^-6.
 */
#include "cuda/gemm.h"
#include "cuda/hopper.h"

#include <math.h>

enum {
    STAGE = 2 * STEP, /* inputs of a stage: bytes of a row in it */
    N_STAGE = 4,      /* stages in shared memory */
    GROUPS = 2,       /* warpgroups of a block */
    AHEAD = 4,        /* steps of weights under way */
    ROUND = N_STAGE,  /* steps of half of the stages; AHEAD divides it */
};

/* ---- where a group's activations lie ---- */

struct tiles {
    uint8_t *p;
    int n_stage;
};

/* Group `item` of n rows from slot0 on: its first row among all, where each group begins at a
 * multiple of 8, and the distance of its stages. */
struct span {
    int first, stride;
};

static __device__ __forceinline__ struct span span_of(int item, int slot0, int n)
{
    return {((slot0 + 7) & ~7) + 8 * item, (n + 7) & ~7};
}

static __device__ __forceinline__ size_t stage_at(const struct tiles &t, const struct span &s,
                                                  int stage)
{
    return ((size_t)s.first * t.n_stage + (size_t)stage * s.stride) * STAGE;
}

size_t fp8_bytes(int n_row, int n_active, int n_expert, int n_in)
{
    size_t slots = (size_t)n_row * n_active, items = slots / FP8_FEW + n_expert + 1;
    return (slots + 8 * items) * ((n_in + STAGE - 1) / STAGE) * STAGE;
}

static __device__ __forceinline__ uint32_t pack_e4m3(float lo, float hi)
{
    uint16_t v = 0;
#if __CUDA_ARCH__ >= 890
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(v) : "f"(hi), "f"(lo));
#endif
    return v;
}

/* A block a row of xn [R, ld], ld a multiple of 64: times `scale` to its slots' places. */
static __global__ void __launch_bounds__(192)
    spread(const __nv_bfloat16 *xn, int ld, struct droute r, int n_active, float scale,
           struct tiles to)
{
    __shared__ struct span span[SPEC_MAX_ACTIVE];
    __shared__ int place[SPEC_MAX_ACTIVE]; /* row of the group */
    pdl_go();
    pdl_wait();
    for (int i = threadIdx.x, n = *r.n_group; i < n; i += blockDim.x) {
        int4 grp = r.group[i];
        for (int j = 0; j < n_active; j++) {
            int row = r.slot[blockIdx.x * n_active + j] - grp.y;
            if (row < 0 || row >= grp.z)
                continue;
            span[j] = span_of(i, grp.y, grp.z);
            place[j] = row;
        }
    }
    __syncthreads();
    const uint4 *from = (const uint4 *)(xn + (size_t)blockIdx.x * ld);
    for (int c = threadIdx.x; c < ld / 16; c += blockDim.x) {
        uint4 v[2] = {from[2 * c], from[2 * c + 1]};
        const __nv_bfloat162 *u = (const __nv_bfloat162 *)v;
        uint32_t p[4];
#pragma unroll
        for (int q = 0; q < 4; q++) {
            float2 a = __bfloat1622float2(u[q]), b = __bfloat1622float2(u[q + 4]);
            p[q] = pack_e4m3(a.x * scale, a.y * scale) | pack_e4m3(b.x * scale, b.y * scale) << 16;
        }
        for (int j = 0; j < n_active; j++)
            *(uint4 *)(to.p + stage_at(to, span[j], c / 8) + place[j] * STAGE +
                       (c % 8 ^ place[j] % 8) * 16) = make_uint4(p[0], p[1], p[2], p[3]);
    }
}

/* ---- the product ---- */

struct work8 {
    const uint4 *w;
    const uint32_t *scale;
    int n_tile, n_step, n_block; /* n_block: of 32 inputs */
    const int4 *group;
    const int32_t *n_group;
    struct tiles x;
};

/* What an epilogue needs to know of a lane's place. */
struct spot {
    int expert, tile, g, slot0, n;
    struct span at;
};

#ifdef GLOSS_WGMMA
/* Four of the eight bytes of lo and hi, by the nibbles of four's low half, whose bit 3 is 0. */
static __device__ __forceinline__ uint32_t look_up(uint32_t lo, uint32_t hi, uint32_t four)
{
    uint32_t r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(lo), "r"(hi), "r"(four));
    return r;
}

/* A step's weights as the A operands of its two blocks. */
static __device__ __forceinline__ void decode(const uint4 &v, uint32_t scale, uint32_t a[2][4])
{
#pragma unroll
    for (int b = 0; b < 2; b++) {
        uint32_t w[2] = {b ? v.z : v.x, b ? v.w : v.y}, lo[2], hi[2];
#pragma unroll
        for (int h = 0; h < 2; h++) { /* the numbers 0 .. 1.5 and 2 .. 6 of rows g and g + 8 */
            uint32_t e = __byte_perm(scale, 0, 0x4440 + 2 * b + h);
            lo[h] = e * 0x08080800 + 0x0C080000;
            hi[h] = e * 0x08080808 + 0x1C181410;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t size = w[i] & 0x77777777;
            a[b][2 * i] = look_up(lo[0], hi[0], size) | (w[i] & 0x80808080);
            a[b][2 * i + 1] = look_up(lo[1], hi[1], size >> 16) | ((w[i] << 4) & 0x80808080);
        }
    }
}

/* n bytes on their way; the barrier turns when they are there. */
static __device__ __forceinline__ void copy_bulk(uint32_t to, const void *from, int n, uint32_t bar)
{
    bar_expect(bar, n);
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(n), "r"(bar)
                 : "memory");
}

/* 64 outputs a warpgroup times up to N rows. A step's weights are decoded while the tensor core
 * works on the step before; warpgroups meet at a stage's barriers alone. `bars`: N_STAGE that turn
 * when a stage is there, N_STAGE that turn when all warps have done with it. */
template <int N, int MOST, typename E>
static __device__ __forceinline__ void rows8(const struct work8 &k, const E &epi, uint32_t base,
                                             uint32_t bars, const struct spot &spot)
{
    enum { PLACE = MOST * STAGE }; /* bytes of a stage in shared memory */
    int lane = threadIdx.x % 32;
    bool on = spot.tile < k.n_tile, first = threadIdx.x == 0;
    size_t step0 = (size_t)(spot.expert * k.n_tile + (on ? spot.tile : 0)) * k.n_step;
    const char *w = (const char *)(k.w + step0 * 32 + lane);
    const char *scale = (const char *)(k.scale + step0 * 8 + spot.g);
    asm volatile("" : "+l"(w), "+l"(scale)); /* pointers, not indices: fewer instructions a step */
    auto fetch = [&](int stage, uint32_t place) {
        copy_bulk(base + place * PLACE, k.x.p + stage_at(k.x, spot.at, stage),
                  spot.at.stride * STAGE, bars + place * 8);
    };
    for (int i = 0; first && i < N_STAGE && i < k.x.n_stage; i++)
        fetch(i, i);
    uint4 v[AHEAD];
    uint32_t s[AHEAD];
    auto load = [&](int i, int step) {
        uint32_t at = min(step, k.n_step - 1);
        v[i] = load_stream((const uint4 *)(w + at * 512ull));
        s[i] = __ldg((const uint32_t *)(scale + at * 32ull));
    };
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        load(i, i);
    float acc[N / 2] = {};
    uint32_t a[2][2][4]; /* the tensor core reads one while the other is filled */
    /* Step t = ROUND * r + i; a round has half of the stages. */
    auto step = [&](int t, int i, uint32_t r, bool whole) {
        uint32_t half = r % 2 * (N_STAGE / 2), turn = r / 2 % 2, place = half + i / 2;
        decode(v[i], s[i], a[i % 2]);
        load(i, t + AHEAD);
        if (i % 2 == 0)
            bar_wait(bars + place * 8, turn);
        /* matrix descriptor: address, rows of 8 every 1024 bytes, 128-byte swizzle */
        uint32_t low = (base >> 4 | 1 << 16) + place * (PLACE >> 4) + i % 2 * 4;
        uint64_t b = 64ull << 32 | 1ull << 62 | low;
        wg_begin();
        wgmma8(acc, a[i % 2][0], b);
        /* Where the inputs end with half a step, weights are 0, but activations are what was there,
         * NaN perhaps: so those before, once more. */
        wgmma8(acc, a[i % 2][1], b + (whole || 2 * t + 1 < k.n_block ? 2 : 0));
        wg_end<1>();
        if (i % 2 == 0 && (i > 0 || t > 0)) { /* the stage before has been read */
            uint32_t last = i > 0 ? place - 1 : N_STAGE / 2 - half + N_STAGE / 2 - 1;
            uint32_t last_turn = i > 0 ? turn : (r - 1) / 2 % 2;
            int next = t / 2 - 1 + N_STAGE;
            if (lane == 0)
                bar_arrive(bars + (N_STAGE + last) * 8);
            if (first && next < k.x.n_stage) {
                bar_wait(bars + (N_STAGE + last) * 8, last_turn);
                fetch(next, last);
            }
        }
    };
    int t = 0;
    uint32_t r = 0;
    for (; t + ROUND <= k.n_step; t += ROUND, r++)
#pragma unroll
        for (int i = 0; i < ROUND; i++)
            step(t + i, i, r, i < ROUND - 1);
#pragma unroll
    for (int i = 0; i < ROUND - 1; i++)
        if (t + i < k.n_step)
            step(t + i, i, r, false);
    wg_end<0>();
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        asm volatile("" : "+f"(acc[i])::"memory"); /* not read before the wait */
    if (!on)
        return;
    auto put = epi.at(spot);
#pragma unroll
    for (int i = 0; i < N / 8; i++)
        put(i * 8 + lane % 4 * 2, acc + 4 * i);
}
#endif

/* Groups of up to MOST rows, with instructions as narrow as their rows. Grid (blocks of outputs,
 * groups), so that what runs at one time reads few experts. */
template <int MOST, typename E>
static __global__ void __launch_bounds__(GROUPS * 128, MOST <= 32 ? 3 : 2)
    product8(struct work8 k, E epi)
{
#ifdef GLOSS_WGMMA
    extern __shared__ __align__(1024) char smem[];
    __shared__ uint64_t bar[2 * N_STAGE];
    uint32_t base = ((uint32_t)__cvta_generic_to_shared(smem) + 1023) & ~1023u;
    uint32_t bars = (uint32_t)__cvta_generic_to_shared(bar);
    if (threadIdx.x == 0) {
        for (int i = 0; i < N_STAGE; i++) {
            bar_init(bars + i * 8, 1);
            bar_init(bars + (N_STAGE + i) * 8, GROUPS * 4);
        }
        bar_ready();
    }
    __syncthreads();
    pdl_wait();
    pdl_go(); /* what is older than this kernel, the one behind may read before its own wait */
    int item = blockIdx.y;
    int4 grp = k.group[item];
    if (item >= *k.n_group)
        return;
    struct spot spot = {grp.x,
                        (int)(blockIdx.x * GROUPS * 4 + threadIdx.x / 32),
                        (int)(threadIdx.x % 32 / 4),
                        grp.y,
                        grp.z,
                        span_of(item, grp.y, grp.z)};
    if constexpr (MOST == FP8_FEW) {
        if (spot.n <= 16)
            rows8<16, MOST>(k, epi, base, bars, spot);
        else
            rows8<32, MOST>(k, epi, base, bars, spot);
    } else {
        if (spot.n <= 32)
            rows8<32, MOST>(k, epi, base, bars, spot);
        else if (spot.n <= 64)
            rows8<64, MOST>(k, epi, base, bars, spot);
        else if (spot.n <= 96)
            rows8<96, MOST>(k, epi, base, bars, spot);
        else
            rows8<128, MOST>(k, epi, base, bars, spot);
    }
#endif
}

template <int MOST, typename E>
static void product8_go(const struct dmat *m, const struct droute *r, uint8_t *x, int n_group,
                        const E &epi, cudaStream_t s)
{
    struct work8 k = {m->w,         m->scale, m->n_tile,  m->n_step,
                      m->n_in / 32, r->group, r->n_group, {x, (m->n_in + STAGE - 1) / STAGE}};
    size_t smem = (size_t)N_STAGE * MOST * STAGE + 1024;
    allow_smem(product8<MOST, E>, smem);
    launch(product8<MOST, E>, dim3((m->n_tile + GROUPS * 4 - 1) / (GROUPS * 4), n_group),
           GROUPS * 128, smem, s, k, epi);
}

/* ---- gate and up, down ---- */

/* The largest power of two that brings `most` to e4m3's largest number or below. */
float fp8_scale(float most)
{
    return exp2f(floorf(log2f(448 / most)));
}

/* An epilogue's at() reads what a lane needs and returns what takes the sums of rows row and row +
 * 1 of output g of its tile, then those of output g + 8. */
struct epi_gate8 {
    const float *bias, *gain; /* gain [n_expert, n_tile, 16] */
    float lower, alpha, limit, raise;
    struct tiles ff;
    int d_ff, n_tile;
    __device__ __forceinline__ auto at(const struct spot &p) const
    {
        int j = p.tile * 8 + p.g, odd = p.g % 2;
        const float *f = gain + ((size_t)p.expert * n_tile + p.tile) * TILE_ROWS + p.g;
        float lo = __ldg(f) * lower, hi = __ldg(f + 8) * lower;
        float2 b = __ldg((const float2 *)bias + (size_t)p.expert * d_ff + j);
        int chunk = j % STAGE / 16, n = p.n;
        uint8_t *to = ff.p + stage_at(ff, p.at, j / STAGE) + j % 8 / 2 * 4 + j % 16 / 8 * 2;
        float alpha = this->alpha, limit = this->limit, raise = this->raise;
        return [=](int row, const float *v) {
            float x = swiglu(v[0] * lo + b.x, v[2] * hi + b.y, alpha, limit) * raise;
            float y = swiglu(v[1] * lo + b.x, v[3] * hi + b.y, alpha, limit) * raise;
            /* of two neighbouring outputs' lanes the even one writes row, the odd one row + 1 */
            float other = __shfl_xor_sync(~0u, odd ? x : y, 4);
            row += odd;
            if (row < n)
                *(uint16_t *)(to + row * STAGE + (chunk ^ row % 8) * 16) =
                    (uint16_t)(odd ? pack_e4m3(other, y) : pack_e4m3(x, other));
        };
    }
};

struct epi_down8 {
    const float *bias, *gain;
    float lower;
    float *y; /* [slots, d] */
    int d, n_tile;
    __device__ __forceinline__ auto at(const struct spot &p) const
    {
        int o = p.tile * TILE_ROWS + p.g, n = p.n, d = this->d;
        const float *f = gain + ((size_t)p.expert * n_tile + p.tile) * TILE_ROWS + p.g;
        const float *b = bias + (size_t)p.expert * d + o;
        float lo = __ldg(f) * lower, hi = __ldg(f + 8) * lower, b0 = __ldg(b), b1 = __ldg(b + 8);
        float *to = y + (size_t)p.slot0 * d + o;
        return [=](int row, const float *v) {
#pragma unroll
            for (int j = 0; j < 2; j++)
                if (row + j < n) {
                    float *at = to + (size_t)(row + j) * d;
                    at[0] = v[j] * lo + b0;
                    at[8] = v[2 + j] * hi + b1;
                }
        };
    }
};

int fp8_group(int n_row, int n_active, int n_expert)
{
    return n_row * n_active <= FP8_FEW / 2 * n_expert ? FP8_FEW : FP8_ROWS;
}

template <typename E>
static void product8_of(const struct dmat *m, const struct droute *r, uint8_t *x, int n_row,
                        int n_active, int n_expert, const E &epi, cudaStream_t s)
{
    int slots = n_row * n_active, per = fp8_group(n_row, n_active, n_expert);
    int n = (n_row <= per ? 0 : slots / per) + n_expert; /* groups at most */
    (per == FP8_FEW ? product8_go<FP8_FEW, E> : product8_go<FP8_ROWS, E>)(m, r, x, min(n, slots),
                                                                          epi, s);
}

void k_gate8(const struct dlayer *l, const struct droute *r, const __nv_bfloat16 *xn, int n_row,
             int n_active, int n_expert, float alpha, float limit, uint8_t *x8, uint8_t *ff8,
             cudaStream_t s)
{
    const struct dmat *m = &l->gate;
    int n_stage = (m->n_in + STAGE - 1) / STAGE;
    launch(spread, dim3(n_row), 192, 0, s, xn, m->n_step * STEP, *r, n_active, l->raise_x,
           (struct tiles){x8, n_stage});
    struct epi_gate8 epi = {l->b_gate,
                            m->row_gain,
                            1 / l->raise_x,
                            alpha,
                            limit,
                            l->raise_ff,
                            {ff8, (l->down.n_in + STAGE - 1) / STAGE},
                            l->down.n_in,
                            m->n_tile};
    product8_of(m, r, x8, n_row, n_active, n_expert, epi, s);
}

void k_down8(const struct dlayer *l, const struct droute *r, const uint8_t *ff8, int n_row,
             int n_active, int n_expert, float *y, cudaStream_t s)
{
    const struct dmat *m = &l->down;
    struct epi_down8 epi = {l->b_down, m->row_gain, 1 / l->raise_ff, y, m->n_out, m->n_tile};
    product8_of(m, r, (uint8_t *)ff8, n_row, n_active, n_expert, epi, s);
}
