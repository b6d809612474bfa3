/* Passes over the whole vocabulary: the loops of sample.c that take the time. They are plain loops
 * without branches, over lanes of a fixed width, which the compiler turns into vector code; pass.c
 * is built for the baseline instruction set and pass_avx2.c, the same text, for AVX2. Sums have one
 * order in both and no multiplication is fused with an addition, so results are equal, bit by bit.
 */
#ifndef ENGINE_PASS_H
#define ENGINE_PASS_H

#include <stdint.h>

enum {
    PASS_LANE = 16,
    PASS_BLOCK = 1024 /* elements summed in float before they go into a double */
};

struct sample_pass {
    /* Index of the largest of x[n], the first among equals; *max is its value. */
    int32_t (*argmax)(const float *x, int n, float *max);
    /* out[i] = exp((x[i] - max) * inv_t) for one block of n <= PASS_BLOCK; returns their sum. */
    double (*exp)(const float *x, int n, float max, float inv_t, float *out);
    double (*sum)(const float *x, int n); /* of a block */
    /* x[i] = v where bit i is clear; n <= 32. */
    void (*mask)(uint32_t bits, int n, float v, float *x);
    void (*range)(const float *x, int n, float *least, float *most); /* n > 0 */
    /* The largest of each of n groups of PASS_LANE elements. */
    void (*group_max)(const float *x, int n, float *out);
    /* Copies the elements of x[n] that are at least `floor` and not 0, and their indices; returns
     * how many. out and index have room for n. */
    int (*collect)(const float *x, int n, float floor, float *out, int32_t *index);
    /* Copies those from lo to hi; returns how many. In place is fine. */
    int (*between)(const float *x, int n, float lo, float hi, float *out);
    /* Makes all below v 0; returns how many equal v. */
    int (*keep)(float *x, int n, float v);
};

extern const struct sample_pass sample_pass_base, sample_pass_avx2;

/* The best one for this processor. */
const struct sample_pass *sample_pass_best(void);

#endif
