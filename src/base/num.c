#include "base/num.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

const float e2m1_f32[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                            -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

status num_i64(const char *s, int64_t lo, int64_t hi, int64_t *v)
{
    const char *digits = *s == '-' ? s + 1 : s;
    if (!isdigit((unsigned char)*digits))
        return E_INPUT;
    char *end;
    errno = 0;
    long long x = strtoll(s, &end, 10);
    if (errno || *end || x < lo || x > hi)
        return E_INPUT;
    *v = x;
    return OK;
}

status num_f64(const char *s, double lo, double hi, double *v)
{
    /* strtod also takes blanks, "inf", "nan" and hexadecimal: only plain decimals pass. */
    for (const char *c = s; *c; c++)
        if (!isdigit((unsigned char)*c) && !strchr("+-.eE", *c))
            return E_INPUT;
    char *end;
    double x = strtod(s, &end);
    if (end == s || *end || !isfinite(x) || x < lo || x > hi)
        return E_INPUT;
    *v = x;
    return OK;
}

float f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31)
        return bits_f32(sign | 0x7f800000 | man << 13);
    if (exp)
        return bits_f32(sign | (exp + 112) << 23 | man << 13);
    float f = (float)man * 0x1p-24f;
    return sign ? -f : f;
}

uint16_t f32_f16(float f)
{
    uint32_t u = f32_bits(f);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (u >= 0x477ff000) /* 65520: rounds to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000) { /* subnormal half: adding 0.5 lets the FPU round at 2^-24 */
        uint32_t m = f32_bits(bits_f32(u) + 0.5f) - 0x3f000000;
        return (uint16_t)(sign | m);
    }
    u += 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | (u - 0x38000000) >> 13);
}
