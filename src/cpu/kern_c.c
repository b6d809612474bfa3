/* Every kernel in plain C: the definition that the other instruction sets are checked against, and
 * what runs where there is no faster one. kern.h says what each computes.
 *
 * Products keep MUL_LANE partial sums (k modulo MUL_LANE) so that compilers can use whatever
 * vectors they have without reordering anything.
 */
#include "cpu/kern.h"

#include "base/num.h"

#include <math.h>

enum { MUL_LANE = 8, MX_BLOCK_IN = 32, ATTN_BLOCK = 64 };

static float load(enum dtype t, const void *p, size_t i)
{
    const uint8_t *b = p;
    if (t == DT_F32) {
        float f;
        memcpy(&f, b + 4 * i, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, b + 2 * i, sizeof h);
    return t == DT_F16 ? f16_f32(h) : bf16_f32(h);
}

/* n elements of a row, widened. */
static void widen(enum dtype t, const void *p, size_t first, int n, float *out)
{
    for (int k = 0; k < n; k++)
        out[k] = load(t, p, first + (size_t)k);
}

static void widen_mx(const uint8_t *code, uint8_t scale, float out[MX_BLOCK_IN])
{
    float s = kern_e8m0[scale];
    for (int i = 0; i < MX_BLOCK_IN / 2; i++) {
        out[2 * i] = e2m1_f32[code[i] & 15] * s;
        out[2 * i + 1] = e2m1_f32[code[i] >> 4] * s;
    }
}

static float sum_lanes(const float s[MUL_LANE])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static void put(const struct mul *m, int r, int o, float sum)
{
    float *y = m->y + (size_t)r * m->ld_y + o;
    if (m->bias)
        sum += m->bias[o];
    *y = m->add ? *y + sum : sum;
}

/* Both operands are widened by blocks of 32 inputs; a tail block is filled up with zeros. */
static void mul_any(const struct mul *m, bool mx, enum dtype tw, enum dtype tx)
{
    int n_block = (m->n_in + MX_BLOCK_IN - 1) / MX_BLOCK_IN;
    for (int o = 0; o < m->n_out; o++) {
        for (int r = 0; r < m->n_row; r++) {
            size_t x0 = (size_t)(m->row ? m->row[r] : r) * m->ld_x;
            float s[MUL_LANE] = {0};
            for (int b = 0; b < n_block; b++) {
                float w[MX_BLOCK_IN] = {0}, x[MX_BLOCK_IN] = {0};
                int n = min_int(MX_BLOCK_IN, m->n_in - b * MX_BLOCK_IN);
                if (mx) {
                    size_t i = (size_t)o * (size_t)n_block + (size_t)b;
                    widen_mx((const uint8_t *)m->w + i * (MX_BLOCK_IN / 2), m->scale[i], w);
                } else {
                    widen(tw, m->w, (size_t)o * (size_t)m->n_in + (size_t)b * MX_BLOCK_IN, n, w);
                }
                widen(tx, m->x, x0 + (size_t)b * MX_BLOCK_IN, n, x);
                for (int k = 0; k < MX_BLOCK_IN; k += MUL_LANE)
                    for (int i = 0; i < MUL_LANE; i++)
                        s[i] += w[k + i] * x[k + i];
            }
            put(m, r, o, sum_lanes(s));
        }
    }
}

static void mul_f32(const struct mul *m)
{
    mul_any(m, false, DT_F32, DT_F32);
}

static void mul_f16(const struct mul *m)
{
    mul_any(m, false, DT_F16, DT_F32);
}

static void mul_bf16_f32(const struct mul *m)
{
    mul_any(m, false, DT_BF16, DT_F32);
}

static void mul_mx_f32(const struct mul *m)
{
    mul_any(m, true, DT_U8, DT_F32);
}

static void mul_bf16(const struct mul *m)
{
    mul_any(m, false, DT_BF16, DT_BF16);
}

static void mul_mx_bf16(const struct mul *m)
{
    mul_any(m, true, DT_U8, DT_BF16);
}

/* ---- blocks of signed bytes ------------------------------------------------------------------ */

/* Place of input k within its block. */
static int q8_at(int k)
{
    return k % 2 * (Q8_IN / 2) + k / 2;
}

/* The largest magnitude by its bits: NaN and Inf are the largest of all. */
static float q8_max(const float x[Q8_IN])
{
    uint32_t top = 0;
    for (int k = 0; k < Q8_IN; k++) {
        uint32_t a = f32_bits(x[k]) & 0x7fffffff;
        top = a > top ? a : top;
    }
    return bits_f32(top);
}

static void to_q8(const float *x, int n, int8_t *q, float *d, int32_t *sum)
{
    for (int b = 0; b < n / Q8_IN; b++, x += Q8_IN, q += Q8_IN) {
        float top = q8_max(x);
        bool some = top >= 1e-30f && top <= 3.4e38f;
        float inv = some ? 127.0f / top : 0;
        d[b] = some ? top / 127.0f : isfinite(top) && top < 1 ? 0 : NAN;
        sum[b] = 0;
        for (int k = 0; k < Q8_IN; k++) {
            int c = some ? (int)rintf(x[k] * inv) : 0;
            q[q8_at(k)] = (int8_t)c;
            sum[b] += c;
        }
    }
}

static void to_q16(const float *x, int n, int8_t *q, float *d, int32_t *sum)
{
    for (int b = 0; b < n / Q8_IN; b++, x += Q8_IN, q += 2 * Q8_IN) {
        float v[Q8_IN];
        for (int k = 0; k < Q8_IN; k++)
            v[k] = bf16_f32(f32_bf16(x[k]));
        float top = q8_max(v);
        bool some = top >= 1e-30f && top <= 3.4e38f;
        uint32_t unit = (f32_bits(top) >> 23) - 13; /* so that the largest is below 2^14 */
        d[b] = some ? bits_f32(unit << 23) : isfinite(top) && top < 1 ? 0 : NAN;
        sum[b] = 0;
        for (int k = 0; k < Q8_IN; k++) {
            int c = some ? (int)rintf(v[k] * bits_f32((254 - unit) << 23)) : 0;
            int high = (c + 128) >> 8;
            q[q8_at(k)] = (int8_t)high;
            q[Q8_IN + q8_at(k)] = (int8_t)(c - 256 * high);
            sum[b] += c;
        }
    }
}

static void q8_pack(enum dtype t, const void *p, int n_in, struct q8_block *w)
{
    for (int o = 0; o < Q8_OUT; o++) {
        for (int b = 0; b < n_in / Q8_IN; b++) {
            float x[Q8_IN];
            widen(t, p, (size_t)o * (size_t)n_in + (size_t)b * Q8_IN, Q8_IN, x);
            float top = q8_max(x);
            w[b].d[o] = f32_bf16(top / 127.0f);
            float d = bf16_f32(w[b].d[o]), inv = d > 1e-30f && isfinite(d) ? 1 / d : 0;
            for (int k = 0; k < Q8_IN; k++) {
                float c = inv > 0 ? rintf(x[k] * inv) : 0;
                int at = q8_at(k);
                w[b].q[at / 4][o][at % 4] = (int8_t)(c > 127 ? 127 : c < -127 ? -127 : c);
            }
        }
    }
}

static void put_q8(const struct mul_q8 *m, int r, int o, float sum)
{
    float *y = m->y + (size_t)r * m->ld_y + o;
    if (m->bias)
        sum += m->bias[o];
    *y = m->add ? *y + sum : sum;
}

static void mul_q8(const struct mul_q8 *m)
{
    int n_block = m->n_in / Q8_IN;
    const struct q8_block *w = m->w;
    for (int r = 0; r < m->n_row; r++) {
        size_t i = (size_t)(m->row ? m->row[r] : r);
        const int8_t *x = m->x.q + i * m->x.ld;
        const float *d = m->x.d + i * (m->x.ld / Q8_IN);
        for (int o = 0; o < m->n_out; o++) {
            const struct q8_block *wo = w + (size_t)(o / Q8_OUT) * (size_t)n_block;
            float sum = 0;
            for (int b = 0; b < n_block; b++) {
                int dot = 0;
                for (int k = 0; k < Q8_IN; k++)
                    dot += wo[b].q[k / 4][o % Q8_OUT][k % 4] * x[b * Q8_IN + k];
                sum = fmaf((float)dot, bf16_f32(wo[b].d[o % Q8_OUT]) * d[b], sum);
            }
            put_q8(m, r, o, sum);
        }
    }
}

/* One row's numbers of block b: bytes, or high and low ones. */
static int row_code(bool wide, const int8_t *x, int b, int at)
{
    if (!wide)
        return x[b * Q8_IN + at];
    return 256 * x[2 * b * Q8_IN + at] + x[(2 * b + 1) * Q8_IN + at];
}

static void mul_mx_whole(const struct mul_q8 *m, bool wide)
{
    int n_block = m->n_in / Q8_IN;
    for (int r = 0; r < m->n_row; r++) {
        size_t i = (size_t)(m->row ? m->row[r] : r);
        const int8_t *x = m->x.q + i * m->x.ld * (wide ? 2 : 1);
        const float *d = m->x.d + i * (m->x.ld / Q8_IN);
        for (int o = 0; o < m->n_out; o++) {
            float sum = 0;
            for (int b = 0; b < n_block; b++) {
                size_t at = (size_t)o * (size_t)n_block + (size_t)b;
                const uint8_t *code = (const uint8_t *)m->w + at * (Q8_IN / 2);
                int dot = 0;
                for (int k = 0; k < Q8_IN / 2; k++)
                    dot += kern_mx_twice[code[k] & 15] * row_code(wide, x, b, k) +
                           kern_mx_twice[code[k] >> 4] * row_code(wide, x, b, Q8_IN / 2 + k);
                sum = fmaf((float)dot, kern_e8m0[m->scale[at]] * 0.5f * d[b], sum);
            }
            put_q8(m, r, o, sum);
        }
    }
}

static void mul_mx_q8(const struct mul_q8 *m)
{
    mul_mx_whole(m, false);
}

static void mul_mx_q16(const struct mul_q8 *m)
{
    mul_mx_whole(m, true);
}

static void mul_in_any(const struct mul *m, enum dtype t)
{
    for (int r = 0; r < m->n_row; r++) {
        const float *x = (const float *)m->x + (size_t)(m->row ? m->row[r] : r) * m->ld_x;
        for (int o = 0; o < m->n_out; o += MUL_LANE) {
            int n = min_int(MUL_LANE, m->n_out - o);
            float s[MUL_LANE] = {0}, w[MUL_LANE] = {0};
            for (int k = 0; k < m->n_in; k++) {
                widen(t, m->w, (size_t)k * m->ld_w + (size_t)o, n, w);
                for (int i = 0; i < MUL_LANE; i++)
                    s[i] += w[i] * x[k];
            }
            for (int i = 0; i < n; i++)
                put(m, r, o + i, s[i]);
        }
    }
}

static void mul_in_f32(const struct mul *m)
{
    mul_in_any(m, DT_F32);
}

static void mul_in_f16(const struct mul *m)
{
    mul_in_any(m, DT_F16);
}

static void mul_in_bf16(const struct mul *m)
{
    mul_in_any(m, DT_BF16);
}

static void rmsnorm(const float *x, const float *w, int n, float eps, float *out)
{
    float s[MUL_LANE] = {0};
    for (int i = 0; i < n; i++)
        s[i % MUL_LANE] += x[i] * x[i];
    float f = 1.0f / sqrtf(sum_lanes(s) / (float)n + eps);
    for (int i = 0; i < n; i++)
        out[i] = x[i] * f * w[i];
}

static void to_bf16(const float *x, int n, uint16_t *out)
{
    for (int i = 0; i < n; i++)
        out[i] = f32_bf16(x[i]);
}

static void round_bf16(const float *x, int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = bf16_f32(f32_bf16(x[i]));
}

static void rope(float *x, const float *cos, const float *sin, int half, float scale)
{
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = (a * cos[i] - b * sin[i]) * scale;
        x[i + half] = (b * cos[i] + a * sin[i]) * scale;
    }
}

/* An element of the cache; DT_U8: a signed byte, times its slot's scale. */
static float cached(enum dtype t, const void *p, size_t at, float scale)
{
    return t == DT_U8 ? (float)((const int8_t *)p)[at] * scale : load(t, p, at);
}

static void attn_any(const struct attn *a, enum dtype t)
{
    for (int j0 = a->lo; j0 < a->hi; j0 = (j0 / ATTN_BLOCK + 1) * ATTN_BLOCK) {
        int n = min_int(a->hi, (j0 / ATTN_BLOCK + 1) * ATTN_BLOCK) - j0;
        for (int h = 0; h < a->n_q; h++) {
            const float *q = a->q + (size_t)h * (size_t)a->d_head;
            float *acc = a->acc + (size_t)h * (size_t)a->d_head;
            float s[ATTN_BLOCK], m = a->m[h], l = a->l[h];
            for (int j = 0; j < n; j++) {
                float scale = t == DT_U8 ? a->k_scale[j0 + j] : 1;
                s[j] = 0;
                for (int d = 0; d < a->d_head; d++)
                    s[j] +=
                        q[d] *
                        cached(t, a->k, (size_t)d * (size_t)a->page_tok + (size_t)(j0 + j), scale);
                if (!(s[j] <= m))
                    m = s[j];
            }
            float keep = expf(a->m[h] - m);
            l *= keep;
            for (int d = 0; d < a->d_head; d++)
                acc[d] *= keep;
            for (int j = 0; j < n; j++) {
                float p = expf(s[j] - m), scale = t == DT_U8 ? a->v_scale[j0 + j] : 1;
                l += p;
                for (int d = 0; d < a->d_head; d++)
                    acc[d] += p * cached(t, a->v, (size_t)(j0 + j) * (size_t)a->d_head + (size_t)d,
                                         scale);
            }
            a->m[h] = m;
            a->l[h] = l;
        }
    }
}

static void attn_f32(const struct attn *a)
{
    attn_any(a, DT_F32);
}

static void attn_bf16(const struct attn *a)
{
    attn_any(a, DT_BF16);
}

static void attn_q8(const struct attn *a)
{
    attn_any(a, DT_U8);
}

static double peak(int n, float *out)
{
    float s[MUL_LANE] = {0};
    for (int k = 0; k < n; k++)
        for (int i = 0; i < MUL_LANE; i++)
            s[i] = s[i] * 0.5f + 1.0f;
    *out = sum_lanes(s);
    return 2.0 * MUL_LANE * n;
}

static void swiglu(const float *y, int n, float alpha, float limit, float *out)
{
    for (int i = 0; i < n; i++) {
        float g = y[2 * i], u = y[2 * i + 1];
        g = g > limit ? limit : g;
        u = u > limit ? limit : u < -limit ? -limit : u;
        out[i] = g / (1.0f + expf(-alpha * g)) * (u + 1.0f);
    }
}

static void combine(float *x, int n, const float *y, size_t ld_y, const int32_t *slot,
                    const float *w, int n_y)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n_y; j++)
            x[i] += w[j] * y[(size_t)slot[j] * ld_y + (size_t)i];
}

static bool taken(const int32_t *idx, int n, int i)
{
    for (int j = 0; j < n; j++)
        if (idx[j] == i)
            return true;
    return false;
}

static void topk(const float *v, int n, int k, int32_t *idx, float *w)
{
    float sum = 0;
    for (int j = 0; j < k; j++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!taken(idx, j, i) && (best < 0 || v[i] > v[best]))
                best = i;
        idx[j] = best;
        w[j] = expf(v[best] - v[idx[0]]);
        sum += w[j];
    }
    for (int j = 0; j < k; j++)
        w[j] /= sum;
}

void kern_c_init(struct cpu_kern *k)
{
    *k = (struct cpu_kern){
        .name = "c",
        .mul_f32 = {mul_f32, mul_f16, mul_bf16_f32},
        .mul_mx_f32 = mul_mx_f32,
        .mul_bf16 = mul_bf16,
        .mul_mx_bf16 = mul_mx_bf16,
        .mul_q8 = mul_q8,
        .mul_mx_q8 = mul_mx_q8,
        .to_q8 = to_q8,
        .mul_mx_q16 = mul_mx_q16,
        .to_q16 = to_q16,
        .q8_pack = q8_pack,
        .mul_in = {mul_in_f32, mul_in_f16, mul_in_bf16},
        .rmsnorm = rmsnorm,
        .to_bf16 = to_bf16,
        .round_bf16 = round_bf16,
        .rope = rope,
        .attn_f32 = attn_f32,
        .attn_bf16 = attn_bf16,
        .attn_q8 = attn_q8,
        .peak = peak,
        .peak_bf16 = peak,
        .peak_q8 = peak,
        .swiglu = swiglu,
        .combine = combine,
        .topk = topk,
    };
}
