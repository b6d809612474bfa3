/* Inside the CUDA backend: device types and what its files share.
 *
 * Matrices live on the card in fragment order (layout.cu): what a lane of a tensor-core instruction
 * needs lies in one aligned piece, the pieces of a warp side by side, so weights stream from memory
 * to registers with full-width loads and never pass through shared memory.
 *
 * Tile. 16 output rows (after the row order below) times 64 inputs (one "step", four k-slices of
 * 16). Lane l = 4g + q holds rows g and g+8 and of slice i the inputs 16i + 2q + {0,1} and
 * 16i + 2q + 8 + {0,1}: the A operand of mma.m16n8k16, and of wgmma.m64k16 for four warps.
 *   bf16:  [n_tile][n_step][slice 4][lane 32] of 16 bytes (a0 a1 a2 a3)
 *   MXFP4: [n_tile][n_step][lane 32] of 16 bytes, word i = slice i, bits as in layout.cu;
 *          scales [n_tile][n_step][g 8] of four bytes: rows g and g+8, of blocks 0 and 1
 *   8-bit: [n_tile][n_step][half 2][lane 32] of 16 bytes: two words for each of two slices, bits as
 *          in layout.cu; scales [n_tile][n_step][g 8][row g, g+8][block 2] bf16
 *
 * Row orders put what belongs together into one lane's rows g and g+8: the two halves that rotary
 * embedding mixes, and gate beside up.
 *
 * Sums. A product's inputs are cut into a fixed number of chains of consecutive steps; each chain
 * is one accumulation in the tensor core, chains are added in order in float32. Within one kernel a
 * row's sums do not depend on the other rows; the Hopper kernel for many rows has one chain, so it
 * may differ from the others in the last bits (docs/cuda.md).
 */
#ifndef CUDA_DEV_H
#define CUDA_DEV_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "model/backend.h"
}

enum {
    TILE_ROWS = 16,
    STEP = 64,        /* inputs of a step */
    KV_PAGE = 32,     /* positions of a page, what attention works on */
    HEAD = 64,        /* d_head */
    SPLIT_KEYS = 256, /* keys of one turn of a block when a decoding row's cache is shared out */
    ATTN_PAD = 64,    /* numbers after each row of attention's results: a step, so that rows do
                         not lie a power of two apart */
    THIN_ROWS = 8,    /* up to so many rows the products read weights once, as vectors */
    FP8_ROWS = 128,   /* of a group, with e4m3 activations; */
    FP8_FEW = 32,     /* the same when experts have few */
};

/* Chains per product; see above. */
enum { CHAINS_QKV = 4, CHAINS_OUT = 8, CHAINS_HEAD = 1, CHAINS_EXPERTS = 1 };

/* How a matrix's numbers are kept: the checkpoint's own ways, or 8-bit blocks made at load. MX8 is
 * MXFP4 for products with e4m3 activations: bits of its own, scales relative to a row's largest. */
enum form { FORM_BF16, FORM_MX, FORM_Q8, FORM_MX8 };

enum row_order { ORDER_PLAIN, ORDER_ROPE, ORDER_PAIR };

/* A matrix, or the matrices of all experts of a layer one after the other. */
struct dmat {
    uint4 *w;
    uint32_t *scale; /* MXFP4 (experts) or 8-bit blocks (others), else NULL */
    float gain;      /* 2^n taken out of the scales so that they fit; mostly 1 */
    float *row_gain; /* FORM_MX8: [matrices, n_tile, 16] the same for every row; else NULL */
    int n_tile, n_step;
    int n_out, n_in;
    bool one_form; /* the same kernel for any number of rows, so that its bits don't depend on it */
};

struct dlayer {
    float *attn_norm, *b_qkv, *sinks, *b_o, *mlp_norm, *b_router, *b_gate, *b_down;
    float *router;   /* [n_expert, d] times mlp_norm, so that it works on the residual */
    float *router_t; /* [rows of o's tiles, ld_router] the same transposed, zeros around it */
    int ld_router;   /* n_expert rounded up to a power of two, at least 4 */
    struct dmat qkv, o, gate, down;
    float raise_x, raise_ff; /* FORM_MX8: what e4m3 activations are multiplied by (k_fp8.cu) */
    bool sliding;
    int i_pool; /* place within its pool's pages */
};

/* A sequence of the step, as the kernels see it. */
struct dseq {
    int row0, n_row, pos0;
    int full, window; /* offsets of the tables in the step's int block; window[0] is page ... */
    int window0;      /* ... number window0 of the sequence */
};

/* What changes from step to step, in one block that is copied to the card at once. */
struct dstep {
    const int32_t *tok;       /* [n_row] */
    const int32_t *pos;       /* [n_row] */
    const int32_t *row_seq;   /* [n_row] */
    const int32_t *logit_row; /* [n_logit] */
    const int4 *single;   /* [n_single] rows that attend alone (decoding): row, position, and where
                             entry 0 of its full and window tables would be in `table` */
    const int32_t *block; /* [n_block][4] blocks of prompts: sequence, first row, rows, keys of the
                             last row; sorted by the latter, largest first */
    const struct dseq *seq; /* [n_seq] */
    const int32_t *table;   /* page tables */
};

/* Pages of one pool: [page][layer][kv head][keys [32][64], values [64][32]], bf16 or e4m3. */
struct dpool {
    uint8_t *p;
    size_t page; /* bytes of a page */
    int n_layer, n_page;
    bool f8; /* e4m3 */
};

/* Routing of a step. A slot is a (row, choice) pair; slots are sorted by expert. */
struct droute {
    int32_t *expert;   /* [R, K] */
    float *weight;     /* [R, K] */
    int32_t *slot;     /* [R, K] slot of a row's j-th expert */
    int32_t *slot_row; /* [R * K] */
    int4 *group;       /* [n_group] expert, first slot, slots (at most the group size), 0 */
    int32_t *n_group;
    unsigned *arrived; /* counters that kernels leave at zero */
};

#define CU(x) cu_check((x), #x, __FILE__, __LINE__)

/* First error of the process's card, kept: a failed card does not come back. */
cudaError_t cu_check(cudaError_t rc, const char *what, const char *file, int line);

/* The card in use. */
struct card {
    int n_sm, major; /* compute capability */
    size_t max_smem; /* bytes of shared memory that a block can have */
};
const struct card *card();

/* Launches with programmatic dependence on the kernel before: it may start while that one ends,
 * and waits in pdl_wait() before it touches what that one writes. (Before Hopper: one after the
 * other.) cluster: the blocks along z are one, from Hopper on. */
template <bool cluster = false, typename... P, typename... A>
static inline void launch(void (*k)(P...), dim3 grid, int threads, size_t smem, cudaStream_t s,
                          A... a)
{
    cudaLaunchAttribute at[2];
    at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[0].val.programmaticStreamSerializationAllowed = 1;
    at[1].id = cudaLaunchAttributeClusterDimension;
    at[1].val.clusterDim.x = at[1].val.clusterDim.y = 1;
    at[1].val.clusterDim.z = grid.z;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = dim3((unsigned)threads);
    c.dynamicSmemBytes = smem;
    c.stream = s;
    c.attrs = at;
    c.numAttrs = card()->major < 9 ? 0 : cluster ? 2 : 1;
    CU(cudaLaunchKernelEx(&c, k, (P)a...));
}

#ifdef __CUDACC__
static __device__ __forceinline__ void pdl_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void pdl_go()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* n bytes, a multiple of 16, set out for L2. */
static __device__ __forceinline__ void warm(const void *p, int n)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(n));
#endif
}

static __device__ __forceinline__ uint32_t pack_bf16(float lo, float hi)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
    return *(uint32_t *)&v;
}

static __device__ __forceinline__ void mma(float c[4], const uint32_t a[4], uint32_t b0,
                                           uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Weights are read once: past L1. */
static __device__ __forceinline__ uint4 load_stream(const uint4 *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* Sum over a block of 256 threads in a fixed order; every thread gets it. `part` [8]. */
static __device__ __forceinline__ float block_sum(float v, float *part)
{
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(~0u, v, o);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    float s = 0;
    for (int i = 0; i < 8; i++)
        s += part[i];
    return s;
}

/* Four 8x8 matrices of b16: register j of a lane is its part of the matrix whose rows lanes
 * 8j..8j+7 point at. */
static __device__ __forceinline__ void ldmatrix4(uint32_t r[4], uint32_t addr)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr));
}

/* Norms one row into bf16 with 256 threads, read once; out may be in shared or global memory, zeros
 * from d to ld. d a multiple of 4, at most 3072. */
static __device__ __forceinline__ void norm_row(const float *x, const float *w, int d, int ld,
                                                float eps, uint2 *out, float *part)
{
    float4 v[3], k[3];
    float s = 0;
#pragma unroll
    for (int i = 0; i < 3; i++) {
        int at = threadIdx.x + i * 256;
        bool in = at < d / 4;
        v[i] = in ? ((const float4 *)x)[at] : make_float4(0, 0, 0, 0);
        k[i] = in ? __ldg((const float4 *)w + at) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < 3; i++)
        s += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
    float r = rsqrtf(block_sum(s, part) / (float)d + eps);
#pragma unroll
    for (int i = 0; i < 3; i++) {
        int at = threadIdx.x + i * 256;
        if (at < ld / 4)
            out[at] = make_uint2(pack_bf16(v[i].x * r * k[i].x, v[i].y * r * k[i].y),
                                 pack_bf16(v[i].z * r * k[i].z, v[i].w * r * k[i].w));
    }
}
#endif

/* ---- layout.cu: weights to the card ---- */

struct upload; /* pinned ring and the card's staging buffer */
MUST_USE status upload_open(struct upload **, struct err *);
void upload_close(struct upload *);
/* Each allocates its result on the card. */
MUST_USE status upload_floats(struct upload *, const float *p, size_t n, float **out, struct err *);
MUST_USE status upload_raw(struct upload *, const void *p, size_t n, void *out, struct err *);
/* Stacks the parts' rows into one matrix; part i, in bf16, has row order order[i]. form: FORM_BF16
 * or FORM_Q8. */
MUST_USE status upload_dense(struct upload *, const struct mat *const *part,
                             const enum row_order *order, int n_part, enum form form,
                             struct dmat *out, struct err *);
/* f8: MXFP4 in the form for e4m3 activations. */
MUST_USE status upload_experts(struct upload *, const struct expert_mat *m, int n_expert,
                               enum row_order order, bool f8, struct dmat *out, struct err *);
MUST_USE status upload_sync(struct upload *, struct err *);

/* ---- kernels; all asynchronous on `s` ---- */

struct qkv_out {
    __nv_bfloat16 *q; /* [R, n_head * 64], scaled by 1/8 and log2(e) */
    struct dpool pool;
    int i_layer;
    bool sliding;
    int n_head, n_kv_head;
    const float *cos, *sin; /* [R, 32] */
};

/* xn: [R, ld] bf16, the normed rows. */
void k_qkv(const struct dlayer *l, const struct dstep *st, const __nv_bfloat16 *xn, int n_row,
           const struct qkv_out *out, cudaStream_t s);
void k_out(const struct dlayer *l, const __nv_bfloat16 *attn, float *x, int n_row, cudaStream_t s);
/* x: [R, d] residual, of which the one row is normed by the kernel when xn is NULL. */
void k_head(const struct dmat *m, const float *norm, float eps, const struct dstep *st,
            const float *x, const __nv_bfloat16 *xn, int n_logit, float *logits, cudaStream_t s);
/* xn [R, ld] -> ff [slots, ld]; n_slot = rows * K. */
void k_gate(const struct dlayer *l, const struct droute *r, const __nv_bfloat16 *xn, int n_row,
            int n_active, int n_expert, float alpha, float limit, __nv_bfloat16 *ff,
            cudaStream_t s);
/* y [slots, d]. */
void k_down(const struct dlayer *l, const struct droute *r, const __nv_bfloat16 *ff, int n_row,
            int n_active, int n_expert, float *y, cudaStream_t s);
/* Slots of a group at most with e4m3 activations (FORM_MX8). */
int fp8_group(int n_row, int n_active, int n_expert);
/* k_gate and k_down then, on Hopper: x8 and ff8 are fp8_bytes(most rows, ...) each, as
 * k_fp8.cu lays them out. */
size_t fp8_bytes(int n_row, int n_active, int n_expert, int n_in);
/* What numbers of up to `most` are multiplied by. */
float fp8_scale(float most);
void k_gate8(const struct dlayer *l, const struct droute *r, const __nv_bfloat16 *xn, int n_row,
             int n_active, int n_expert, float alpha, float limit, uint8_t *x8, uint8_t *ff8,
             cudaStream_t s);
void k_down8(const struct dlayer *l, const struct droute *r, const uint8_t *ff8, int n_row,
             int n_active, int n_expert, float *y, cudaStream_t s);
/* x += the experts' weighted sum; normed into xn [R, ld] unless norm is NULL. */
void k_combine(const struct droute *r, const float *y, int n_row, int n_active, int d, float *x,
               const float *norm, int ld, float eps, __nv_bfloat16 *xn, cudaStream_t s);

/* One row, st->single[0]: k_qkv with the row's norm; k_out, k_router, k_gate, k_down and k_combine
 * in three kernels. share [tiles of o, ld_router]; of the routing, expert and weight are set. */
bool one_row_fits(const struct dlayer *l, int n_expert);
void k_qkv_one(const struct dlayer *l, const struct dstep *st, const float *x, float eps,
               const struct qkv_out *out, cudaStream_t s);
void k_out_one(const struct dlayer *l, const __nv_bfloat16 *attn, float *x, float *share,
               cudaStream_t s);
void k_gate_one(const struct dlayer *l, const float *x, const float *share, int n_expert,
                int n_active, float eps, float alpha, float limit, const struct droute *r,
                __nv_bfloat16 *ff, cudaStream_t s);
void k_down_one(const struct dlayer *l, const struct droute *r, int n_active,
                const __nv_bfloat16 *ff, float *x, cudaStream_t s);

void k_embed(const __nv_bfloat16 *embed, const struct dstep *st, int n_row, int d, const float *inv,
             float factor, float *x, float *cos, float *sin, cudaStream_t s);
/* rows NULL: all; xn [n, ld] with zeros from d to ld. */
void k_norm(const float *x, const int32_t *rows, const float *w, int n, int d, int ld, float eps,
            __nv_bfloat16 *xn, cudaStream_t s);
/* Norm, router, choice and grouping; xn receives the normed rows. */
void k_router(const struct dlayer *l, const float *x, int n_row, int d, int ld, float eps,
              int n_expert, int n_active, const struct droute *r, __nv_bfloat16 *xn,
              cudaStream_t s);
/* Slots of a group at most. */
int router_group(const struct dlayer *l, int n_row, int n_active, int n_expert);

struct attn_args {
    const __nv_bfloat16 *q;
    struct dpool pool;
    int i_layer, n_head, n_kv_head, window; /* window 0: full */
    const float *sinks;
    __nv_bfloat16 *out; /* [R, n_head * 64 + ATTN_PAD] */
    float *part;        /* [n_single, n_kv_head, n_split, 16, 66] */
    unsigned *arrived;  /* [n_single, n_kv_head] zero before and after */
};
/* n_unit: SPLIT_KEYS that the longest row's keys fill, rounded up to a power of two. */
void k_attn_single(const struct attn_args *a, const struct dstep *st, int n_single, int n_unit,
                   cudaStream_t s);
/* Queries (rows times heads of a key head) that a block of a prompt has at most on this card. */
int attn_block_queries();
void k_attn_block(const struct attn_args *a, const struct dstep *st, int n_block, cudaStream_t s);

/* best[i]: the largest logit's id, the lowest among equals; -1 when the row holds NaN or Inf.
 * part [n_logit, BEST_PARTS]. */
enum { BEST_PARTS = 32 };
void k_best(const float *logits, int n_logit, int n_vocab, uint64_t *part, unsigned *arrived,
            int32_t *best, cudaStream_t s);

#endif
