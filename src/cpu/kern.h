/* The kernels of the CPU forward pass: a table of function pointers, filled once per backend.
 *
 * kern_c.c defines what each kernel computes; kern_{avx2,avx512,neon}.c overwrite what they do
 * faster. tests/kern compares every one of them with kern_c.c within the tolerance stated here.
 *
 * Rules that hold for every kernel:
 * - No alignment is needed anywhere, no byte outside the stated shapes is read or written.
 * - Row invariance: an output element is computed by additions whose order depends on the inner
 *   dimension alone, never on how many rows or outputs the call has. Hence results don't depend on
 *   batch, prompt chunks or threads. (MUL_* sizes and tiles may change freely; chains may not.)
 * - NaN in gives NaN out; clamps must not swallow it.
 * - Weights are exact: bf16 and f16 widened, MXFP4 decoded to value * 2^(s-127) without rounding
 *   (s = 255 gives NaN); sums are float32.
 *
 * Tolerances are relative to the sum of the absolute values of the addends ("mass") where a kernel
 * sums, else to the result.
 */
#ifndef CPU_KERN_H
#define CPU_KERN_H

#include "model/safetensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A matrix product: y[i, o] = (add ? y[i, o] : 0) + (bias[o] + sum over k of w[o, k] x[row[i], k]).
 */
struct mul {
    const void *w;        /* [n_out, n_in]; MXFP4: codes [n_out, n_in/32, 16] */
    const uint8_t *scale; /* MXFP4: [n_out, n_in/32] */
    size_t ld_w;          /* mul_in only: w is [n_in, ld_w], the first n_out columns are used */
    int n_out, n_in;
    const void *x; /* [any, ld_x] float, or bf16 for the *_bf16 kernels */
    size_t ld_x;
    const int32_t *row; /* [n_row] rows of x; NULL: 0 .. n_row-1 */
    int n_row;
    const float *bias; /* [n_out] or NULL */
    float *y;          /* [n_row, ld_y] */
    size_t ld_y;
    bool add;
    void *tmp; /* mul_tmp(n_in) bytes of the worker's own */
};
enum { MUL_TMP_OUT = 32, MUL_TMP_BYTES = 1 << 20 };

/* Room for the blocks of a product of many rows, or MUL_TMP_OUT decoded outputs. */
static inline size_t mul_tmp(int n_in)
{
    size_t outputs = (size_t)MUL_TMP_OUT * (size_t)n_in * sizeof(float);
    return outputs > MUL_TMP_BYTES ? outputs : MUL_TMP_BYTES;
}

/* Rows in blocks of 32 signed bytes (ARITH_Q8): x[k] is about q[k] * d. A block holds its even
 * inputs first, then the odd ones, as the nibbles of MXFP4 come out. Codes are in [-127, 127]; a
 * block with NaN or Inf has codes 0 and d NaN. */
enum { Q8_IN = 32, Q8_OUT = 8 };
struct q8_rows {
    int8_t *q;    /* [n, ld] */
    float *d;     /* [n, ld/32] */
    int32_t *sum; /* [n, ld/32] of the block's codes */
    size_t ld;    /* a multiple of 32 */
};

/* Rows of bf16 in blocks of 32 whole numbers of 16 bits share that struct, but q is [n, 2 * ld]: a
 * block's high bytes in the order above, then its low ones; x[k] is d * (256 * high + low). d is a
 * power of two, numbers are in [-16320, 16320], so what is at least a 64th of the block's largest
 * is exact, and an error is at most 1/16,000 of that largest. */

/* A dense matrix in such blocks, Q8_OUT outputs side by side: w is [n_out/8, n_in/32] of these. */
struct q8_block {
    uint16_t d[Q8_OUT];             /* bf16 */
    int8_t q[Q8_IN / 4][Q8_OUT][4]; /* [four inputs][output], inputs in the order of q8_rows */
};

/* The products of struct mul on q8_rows. Each block's integer sum is exact; as float it is
 * multiplied by (weight's scale * d) into the output's only sum, fused, block after block. So every
 * instruction set gives the same bits. Not for NaN payloads. */
struct mul_q8 {
    const void *w;        /* struct q8_block; MXFP4: codes [n_out, n_in/32, 16] */
    const uint8_t *scale; /* MXFP4: [n_out, n_in/32] */
    int n_out, n_in;      /* n_in a multiple of 32; dense: n_out a multiple of 8 */
    struct q8_rows x;
    const int32_t *row; /* as in struct mul, and so on */
    int n_row;
    const float *bias;
    float *y;
    size_t ld_y;
    bool add;
    void *tmp; /* mul_tmp(n_in) bytes */
};

/* Attention of the n_q query heads of one key head over slots [lo, hi) of one page, as one step of
 * an online softmax. Begin a row with m = sink, l = 1, acc = 0: the sink is then simply a key
 * without a value; or with m = -inf, l = 0: no key yet. After the last page the output is acc / l.
 */
struct attn {
    const float *q;   /* [n_q, d_head], already times 1/sqrt(d_head) */
    const void *k;    /* [d_head, page_tok]: transposed, so that keys lie side by side */
    const void *v;    /* [page_tok, d_head] */
    const void *next; /* keys and values that will be read next, to be fetched; or NULL */
    const float *k_scale, *v_scale; /* [page_tok] attn_q8: what a slot's bytes are multiplied by */
    int n_q, d_head, page_tok, lo, hi;
    float *m, *l; /* [n_q] maximum and sum so far */
    float *acc;   /* [n_q, d_head] */
};

struct cpu_kern {
    const char *name; /* strongest set in use, as GLOSS_CPU names it */
    /* The *_bf16 products run on the processor's own bf16 instructions. Where false, ARITH_BF16
     * rounds activations to bf16 but keeps them as floats for the *_f32 products. */
    bool bf16_dot;
    /* Not bf16_dot, but MXFP4 meets rounded activations faster as whole numbers: mul_mx_q16. */
    bool mx_q16;

    /* Output-major products, float activations; index: DT_F32, DT_F16, DT_BF16.
     * Tolerance 2e-7 * (2 + sqrt(n_in)) of the mass. */
    void (*mul_f32[3])(const struct mul *);
    void (*mul_mx_f32)(const struct mul *); /* MXFP4 weights; n_in a multiple of 32 */

    /* The same with bf16 activations and bf16 or MXFP4 weights. vdpbf16ps treats denormals as 0 and
     * fixes its own order within a pair: tolerance as above, plus 1.2e-38 * n_in * max|x|. */
    void (*mul_bf16)(const struct mul *);
    void (*mul_mx_bf16)(const struct mul *);

    /* 8-bit activations (ARITH_Q8): the same bits on every set. */
    void (*mul_q8)(const struct mul_q8 *);    /* dense */
    void (*mul_mx_q8)(const struct mul_q8 *); /* MXFP4 */
    /* The same with rows of 16 bits, and their making: floats, rounded to bf16 first. The same bits
     * on every set. */
    void (*mul_mx_q16)(const struct mul_q8 *);
    void (*to_q16)(const float *x, int n, int8_t *q, float *d, int32_t *sum);
    /* n floats (a multiple of 32) to blocks: d = max|x| / 127, codes to nearest even. The same bits
     * on every set. */
    void (*to_q8)(const float *x, int n, int8_t *q, float *d, int32_t *sum);
    /* Q8_OUT rows of a matrix [Q8_OUT, n_in] of any type to blocks w[n_in/32], at load: scale
     * max|x| / 127 rounded to bf16, codes to nearest even. A block with NaN or Inf gets codes 0 and
     * a scale that is not finite. The same bits on every set. */
    void (*q8_pack)(enum dtype t, const void *p, int n_in, struct q8_block *w);

    /* Input-major weights [n_in, ld_w], float activations; index as mul_f32. Same tolerance. */
    void (*mul_in[3])(const struct mul *);

    /* out[i] = x[i] * w[i] / sqrt(mean(x^2) + eps), n floats. Relative 1e-5 (n up to 4096). */
    void (*rmsnorm)(const float *x, const float *w, int n, float eps, float *out);

    /* To bf16, nearest even; exact except that denormals may become 0. NaN stays NaN. */
    void (*to_bf16)(const float *x, int n, uint16_t *out);
    /* The same kept as float (in place allowed). */
    void (*round_bf16)(const float *x, int n, float *out);

    /* Rotates (x[i], x[i+half]) by (cos[i], sin[i]), then scales; in place, 2*half floats.
     * Within 2e-7 of |x[i]| + |x[i+half]|, scaled. */
    void (*rope)(float *x, const float *cos, const float *sin, int half, float scale);

    /* Key and value pages in float or bf16. Within t = 4e-6 + 1e-6 * sum|q| of l, and of
     * max(1, |m|) and max|v| * l for m and acc: a score's own rounding moves its weight by that. */
    void (*attn_f32)(const struct attn *);
    void (*attn_bf16)(const struct attn *);
    /* The same on signed bytes, k and v in their layouts, each slot with a scale for its keys and
     * one for its values. */
    void (*attn_q8)(const struct attn *);

    /* Fused multiply-adds in registers alone, n rounds of independent ones: what the other kernels
     * could reach at most. The operations done; out[1] keeps the compiler from skipping them. */
    double (*peak)(int n, float *out);
    /* The same with the instruction that ARITH_BF16's and ARITH_Q8's products run on. */
    double (*peak_bf16)(int n, float *out);
    double (*peak_q8)(int n, float *out);

    /* y[2n] interleaved gate, up -> out[n]: g = min(gate, limit), u = clamp(up, +-limit),
     * out = g * sigmoid(alpha g) * (u + 1). Relative 2e-6, absolute 1e-37 * |gate|. */
    void (*swiglu)(const float *y, int n, float alpha, float limit, float *out);

    /* x[i] += sum over j < n_y, in this order, of w[j] * y[slot[j] * ld_y + i]; n floats.
     * Within 1e-6 of the mass. */
    void (*combine)(float *x, int n, const float *y, size_t ld_y, const int32_t *slot,
                    const float *w, int n_y);

    /* The k largest of v[n], descending, lower index first among equals, and the softmax over them.
     * idx[k] are valid even when v holds NaN (then so do the weights, or the NaN was not chosen).
     */
    void (*topk)(const float *v, int n, int k, int32_t *idx, float *w);
};

enum cpu_flag {
    CPU_AVX2 = 1,
    CPU_AVX512 = 2,
    CPU_NEON = 4,
    CPU_AVXVNNI = 8,
    CPU_DOTPROD = 16,
    CPU_AMX = 32,
    CPU_I8MM = 64
};

/* What this processor and its system support, masked by GLOSS_CPU: c, avx2, avxvnni, avx512, amx,
 * neon, dotprod or i8mm names the strongest set allowed. E_INPUT for another value, E_DEVICE for a
 * set this processor lacks. */
MUST_USE status cpu_flags(unsigned *flags, struct err *e);

/* Fills every pointer: from kern_c.c, then by each set in `flags`, weakest first. */
void cpu_kern_init(struct cpu_kern *k, unsigned flags);

/* One per instruction set, in its own file with its own compiler flags. */
void kern_c_init(struct cpu_kern *k);
void kern_avx2_init(struct cpu_kern *k);
void kern_avxvnni_init(struct cpu_kern *k);
void kern_avx512_init(struct cpu_kern *k);
void kern_amx_init(struct cpu_kern *k);
void kern_neon_init(struct cpu_kern *k);
void kern_dotprod_init(struct cpu_kern *k);
void kern_i8mm_init(struct cpu_kern *k);

/* For the kernels' own helpers. Tile sizes are constants at each call, so that loops over a tile
 * unroll into registers. */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* Decoding tables, complete after cpu_kern_init: 2^(s-127), and for each scale byte the 16 codes
 * as bf16, twice (a 5-bit index then needs no mask). Exact: bf16 has float's exponents, denormals
 * included. */
extern float kern_e8m0[256];
extern uint16_t kern_mx_bf16[256][32];
/* Twice the values of the codes, whole numbers. */
extern const int8_t kern_mx_twice[16];
/* The low and the high bytes of these 16 values, twice each. */
extern uint8_t kern_mx_byte[256][2][32];

#endif
