/* A lane's part of weights in fragment order (dev.h), and the tensor-core step that uses it: what
 * the products of gemm.h and k_one.cu share.
 */
#ifndef CUDA_FRAG_H
#define CUDA_FRAG_H

#include "cuda/dev.h"

template <enum form F> struct frag;

template <> struct frag<FORM_BF16> {
    static const int pieces = 128; /* of 16 bytes, in a step */
    static const int scales = 0;   /* words, in a step */
    uint4 v[4];
    __device__ __forceinline__ void load(const uint4 *w, const uint32_t *)
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            v[i] = load_stream(w + i * 32);
    }
    __device__ __forceinline__ void slice(int i, uint32_t a[4])
    {
        a[0] = v[i].x;
        a[1] = v[i].y;
        a[2] = v[i].z;
        a[3] = v[i].w;
    }
};

static __device__ __forceinline__ uint32_t mul2(uint32_t a, uint32_t b)
{
    __nv_bfloat162 r = __hmul2(*(__nv_bfloat162 *)&a, *(__nv_bfloat162 *)&b);
    return *(uint32_t *)&r;
}

template <> struct frag<FORM_MX> {
    static const int pieces = 32, scales = 8;
    uint4 v;
    uint32_t s, lo, hi;
    __device__ __forceinline__ void load(const uint4 *w, const uint32_t *scale)
    {
        v = load_stream(w);
        s = __ldg(scale);
    }
    /* The numbers of slice i times 2^-126, without their scales. */
    __device__ __forceinline__ void raw(int i, uint32_t a[4]) const
    {
        uint32_t w = i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
        a[0] = w & 0x81C081C0;
        a[1] = __funnelshift_r(w, w, 4) & 0x81C081C0;
        a[2] = (w << 6) & 0x81C081C0;
        a[3] = ((w << 2) & 0x80C080C0) | ((w >> 6) & 0x01000100);
    }
    /* Scales of rows g and g + 8 in block b, times 2^126: the byte is the exponent field. */
    __device__ __forceinline__ float2 scale(int b) const
    {
        return make_float2(__uint_as_float((b ? s << 7 : s << 23) & 0x7F800000),
                           __uint_as_float((b ? s >> 1 : s << 15) & 0x7F800000));
    }
    __device__ __forceinline__ void slice(int i, uint32_t a[4])
    {
        if (i % 2 == 0) { /* as bf16 pairs */
            lo = __byte_perm(s, 0, 0x4440 + i) * 0x00800080;
            hi = __byte_perm(s, 0, 0x4441 + i) * 0x00800080;
        }
        raw(i, a);
        a[0] = mul2(a[0], lo);
        a[1] = mul2(a[1], hi);
        a[2] = mul2(a[2], lo);
        a[3] = mul2(a[3], hi);
    }
};

template <> struct frag<FORM_Q8> {
    static const int pieces = 64, scales = 16;
    uint4 v[2];
    uint2 s; /* rows g and g + 8: the scales of blocks 0 and 1 */
    __device__ __forceinline__ void load(const uint4 *w, const uint32_t *scale)
    {
        v[0] = load_stream(w);
        v[1] = load_stream(w + 32);
        s = __ldg((const uint2 *)scale);
    }
    __device__ __forceinline__ void two(uint32_t w, int b, uint32_t a[2])
    {
        uint32_t lo = __byte_perm(s.x, 0, 0x1010 + 0x2222 * b);
        uint32_t hi = __byte_perm(s.y, 0, 0x1010 + 0x2222 * b);
        a[0] = mul2(w & 0x80FE80FE, lo);
        a[1] = mul2(((w >> 7) & 0x00FE00FE) | (__funnelshift_r(w, w, 1) & 0x80008000), hi);
    }
    __device__ __forceinline__ void slice(int i, uint32_t a[4])
    {
        two(i % 2 ? v[i / 2].z : v[i / 2].x, i / 2, a);
        two(i % 2 ? v[i / 2].w : v[i / 2].y, i / 2, a + 2);
    }
};

/* A lane's place in the weights of one tile: what frag.load takes. */
template <enum form F> struct place {
    const uint4 *w;
    const uint32_t *scale;
    __device__ __forceinline__ place(const uint4 *w0, const uint32_t *scale0, size_t step, int lane)
        : w(w0 + step * frag<F>::pieces + lane),
          scale(scale0 + step * frag<F>::scales + lane / 4 * (frag<F>::scales / 8))
    {
    }
    __device__ __forceinline__ void load(frag<F> &f, int ahead) const
    {
        f.load(w + ahead * frag<F>::pieces, scale + ahead * frag<F>::scales);
    }
    __device__ __forceinline__ void advance(int n)
    {
        w += n * frag<F>::pieces;
        scale += n * frag<F>::scales;
    }
};

/* One step of 16 outputs for NT * 8 rows; b[t]: where lane l's row l % 8 of rows 8t..8t+7 has its
 * 16 bytes number l / 8 of this step. Weights are scaled before they are multiplied. */
template <enum form F, int NT>
static __device__ __forceinline__ void step_scaled(frag<F> &f, const uint32_t b[NT], uint32_t at,
                                                   float acc[NT][4])
{
    uint32_t x[NT][8];
#pragma unroll
    for (int t = 0; t < NT; t++) {
        ldmatrix4(x[t], b[t] + at);
        ldmatrix4(x[t] + 4, b[t] + at + 64);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t a[4];
        f.slice(i, a);
#pragma unroll
        for (int t = 0; t < NT; t++)
            mma(acc[t], a, x[t][2 * i], x[t][2 * i + 1]);
    }
}

/* The same, but where up to 8 rows do not pay for scaling the weights MXFP4 blocks are scaled when
 * they are summed. The activations carry 2^RAISED, so that no product is too small for float32; so
 * do the sums. */
enum { RAISED = 64 };

template <enum form F, int NT>
static __device__ __forceinline__ void step_mma(frag<F> &f, const uint32_t b[NT], uint32_t at,
                                                float acc[NT][4])
{
    step_scaled<F, NT>(f, b, at, acc);
}

template <>
__device__ __forceinline__ void step_mma<FORM_MX, 1>(frag<FORM_MX> &f, const uint32_t b[1],
                                                     uint32_t at, float acc[1][4])
{
    uint32_t x[8];
    ldmatrix4(x, b[0] + at);
    ldmatrix4(x + 4, b[0] + at + 64);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float sum[4] = {};
        float2 scale = f.scale(k);
#pragma unroll
        for (int i = 2 * k; i < 2 * k + 2; i++) {
            uint32_t a[4];
            f.raw(i, a);
            mma(sum, a, x[2 * i], x[2 * i + 1]);
        }
        acc[0][0] = fmaf(sum[0], scale.x, acc[0][0]);
        acc[0][1] = fmaf(sum[1], scale.x, acc[0][1]);
        acc[0][2] = fmaf(sum[2], scale.y, acc[0][2]);
        acc[0][3] = fmaf(sum[3], scale.y, acc[0][3]);
    }
}

/* Whether a product with NT * 8 rows wants its activations raised. */
template <enum form F, int NT> static __device__ constexpr bool raised()
{
    return F == FORM_MX && NT == 1;
}
static const float raise = 0x1p64f, lower = 0x1p-64f;

/* The first steps of a chain, under way. */
template <enum form F, int D>
static __device__ __forceinline__ void chain_begin(frag<F> f[D], const place<F> &p, int n_step)
{
#pragma unroll
    for (int i = 0; i < D; i++)
        if (i < n_step)
            p.load(f[i], i);
}

/* A chain of n_step steps whose first D are under way. Whole rounds have no branch, so that the
 * steps of a round overlap; past the end they ask for the last step again. */
template <enum form F, int D, int NT>
static __device__ __forceinline__ void chain_run(frag<F> f[D], place<F> p, int n_step,
                                                 uint32_t b[NT], float acc[NT][4])
{
    int left = n_step;
    for (; left >= D; left -= D) {
#pragma unroll
        for (int i = 0; i < D; i++) {
            step_mma<F, NT>(f[i], b, i * STEP * 2, acc);
            p.load(f[i], min(i + D, left - 1));
        }
        p.advance(D);
#pragma unroll
        for (int t = 0; t < NT; t++)
            b[t] += D * STEP * 2;
    }
#pragma unroll
    for (int i = 0; i < D - 1; i++)
        if (i < left)
            step_mma<F, NT>(f[i], b, i * STEP * 2, acc);
}

/* 16 bytes into shared memory, past L1. */
static __device__ __forceinline__ void copy_async(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
}

/* gpt-oss's gated unit. */
static __device__ __forceinline__ float swiglu(float gate, float up, float alpha, float limit)
{
    /* not fminf: NaN must stay NaN */
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up < -limit ? -limit : up;
    return gate / (1.0f + __expf(-alpha * gate)) * (up + 1.0f);
}

template <typename K> static void allow_smem(K kernel, size_t bytes)
{
    if (bytes > 48 << 10)
        CU(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

#endif
