/* Matrix products on weights in fragment order (dev.h), what their kernels share; k_dense.cu and
 * k_experts.cu say which serves what.
 *
 * `thin` (thin.h) serves up to 8 rows, and experts with few tokens, for which Hopper has `streamed`
 * (stream.h). `wide` (wide.h) serves more: a block takes 128 outputs times 64 or 128 rows and runs
 * the chains one after the other, which gives the bits of `thin`. On Hopper's own instructions, in
 * one chain, `warpgroup` (warpgroup.h) and, where there are enough rows and they lie as the copy
 * engine wants them, `ring_product` (ring.h) do the work of `wide`.
 *
 * What a product does with its results is its epilogue: a struct whose operator() receives a
 * tile, a lane's row g and the sums of rows g and g + 8 for one activation row.
 */
#ifndef CUDA_GEMM_H
#define CUDA_GEMM_H

#include "cuda/frag.h"

/* ---- where activations come from ---- */

struct source {
    const __nv_bfloat16 *xn; /* [any, ld] bf16, or NULL: norm the row of x in the kernel */
    int ld;
    const int32_t *row; /* rows of xn or x; NULL: 0, 1, ... */
    const float *x, *norm;
    int d;
    float eps;
};

/* Up to n rows of n_step steps from index i0 into shared memory, `stride` bytes apart, raised
 * (frag.h) or not. Rows to be normed want 256 threads. */
template <bool RAISE>
static __device__ void stage(const struct source &s, int n_step, int i0, int n, char *to,
                             size_t stride, float *part)
{
    if (!s.xn) {
        for (int i = 0; i < n; i++) {
            int r = s.row ? s.row[i0 + i] : i0 + i;
            norm_row(s.x + (size_t)r * s.d, s.norm, s.d, s.ld, s.eps, (uint2 *)(to + i * stride),
                     part);
        }
    } else {
        int chunks = n_step * (STEP / 8);
        for (int i = threadIdx.x; i < n * chunks; i += blockDim.x) {
            int t = i / chunks, k = i % chunks;
            int r = s.row ? s.row[i0 + t] : i0 + t;
            uint4 v = *(const uint4 *)((const char *)(s.xn + (size_t)r * s.ld) + k * 16);
            if (RAISE) {
                uint32_t f = pack_bf16(raise, raise);
                v = make_uint4(mul2(v.x, f), mul2(v.y, f), mul2(v.z, f), mul2(v.w, f));
            }
            *(uint4 *)(to + t * stride + k * 16) = v;
        }
    }
    __syncthreads();
}

/* ---- what a launch works on ---- */

struct work {
    const uint4 *w;
    const uint32_t *scale;
    int n_tile, n_step;
    int n;             /* rows; of grouped products it says nothing */
    const int4 *group; /* NULL: not by expert */
    const int32_t *n_group;
    uint32_t zero; /* 0 */
    bool by_rows;  /* order of blocks, see warpgroup */
    bool one_form;
};

/* Waits for the routing, and only then lets the kernel behind begin: what is older than this one it
 * may read before its own wait. False: there are fewer groups. */
static __device__ __forceinline__ bool take_group(const struct work &k, int i, int *expert,
                                                  int *slot0, int *n)
{
    pdl_wait();
    pdl_go();
    int4 grp = k.group[i];
    *expert = grp.x;
    *slot0 = grp.y;
    *n = grp.z;
    return i < *k.n_group;
}

static inline struct work work_of(const struct dmat *m, int n)
{
    struct work k = {m->w, m->scale, m->n_tile, m->n_step, n, NULL, NULL, 0, false, m->one_form};
    return k;
}

#endif
