/* Numbers: checked size arithmetic, strict parsing, and the small float formats of checkpoints. */
#ifndef BASE_NUM_H
#define BASE_NUM_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* *r = a op b; false (and *r unspecified) on overflow. */
static inline MUST_USE bool add_ok(size_t a, size_t b, size_t *r)
{
    return !__builtin_add_overflow(a, b, r);
}
static inline MUST_USE bool mul_ok(size_t a, size_t b, size_t *r)
{
    return !__builtin_mul_overflow(a, b, r);
}

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}
static inline int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* The whole of `s` must be one decimal number in [lo, hi]: no blanks, no trailing text.
 * E_INPUT otherwise, *v untouched. num_f64 refuses NaN and Inf. */
MUST_USE status num_i64(const char *s, int64_t lo, int64_t hi, int64_t *v);
MUST_USE status num_f64(const char *s, double lo, double hi, double *v);

static inline float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bf16_f32(uint16_t h)
{
    return bits_f32((uint32_t)h << 16);
}
/* Round to nearest, ties to even; NaN stays NaN (quiet). */
static inline uint16_t f32_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float f16_f32(uint16_t h);
uint16_t f32_f16(float f); /* round to nearest even; overflow gives Inf */

/* e2m1 (OCP MX 1.0): bit 3 sign, bits 2-1 exponent, bit 0 mantissa; code 8 is -0. */
extern const float e2m1_f32[16];

/* e8m0 (OCP MX 1.0): 2^(s-127); 255 is NaN. s = 0 is the subnormal 2^-127. */
static inline float e8m0_f32(uint8_t s)
{
    if (s == 255)
        return bits_f32(0x7fc00000);
    return s ? bits_f32((uint32_t)s << 23) : bits_f32(0x00400000);
}

#endif
