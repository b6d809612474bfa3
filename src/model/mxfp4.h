/* MXFP4 (OCP MX 1.0) as gpt-oss checkpoints store it: blocks of 32 consecutive inputs of one row,
 * 16 bytes of e2m1 codes (low nibble = element 2i, high nibble = element 2i+1) and one e8m0 scale.
 * Blocks and scales are two separate arrays.
 */
#ifndef MODEL_MXFP4_H
#define MODEL_MXFP4_H

#include <stddef.h>
#include <stdint.h>

enum { MX_BLOCK = 32, MX_BLOCK_BYTES = 16 };

enum mx_scale_rule {
    MX_OCP,     /* 2^(floor(log2 absmax) - 2): the OCP reference; values above 6 scales saturate */
    MX_ROUNDUP, /* one step more where that would saturate */
    MX_SEARCH   /* of the neighbouring scales, the one with the least squared error */
};

/* n_block blocks -> [n_block * 32] floats, exact. */
void mxfp4_unpack(const uint8_t *blocks, const uint8_t *scales, size_t n_block, float *out);

/* [n_block * 32] finite floats -> codes and scales; nearest code, half-way to the smaller
 * magnitude, zero always code 0 (as gguf's encoder does). */
void mxfp4_pack(const float *in, size_t n_block, enum mx_scale_rule, uint8_t *blocks,
                uint8_t *scales);

#endif
