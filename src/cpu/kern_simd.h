/* The float32 kernels for any vector instruction set, written once on a small vocabulary.
 *
 * Included by exactly one place in each kern_<set>.c, which has defined before:
 *
 *   VF, VF_W              the vector of floats and its width
 *   MUL_NR                rows of x that a product tile holds (accumulators: 4 outputs x MUL_NR)
 *   ATTN_NQ               query heads that an attention tile holds
 *   vf_zero() vf_set1(f)  vf_load(p) vf_load_n(p, n) vf_store(p, v) vf_store_n(p, v, n)
 *   vf_load_bf16(p) vf_load_f16(p)     VF_W elements at any address, widened
 *   vf_fma(a, b, c)       a * b + c, rounded once
 *   vf_add vf_sub vf_mul vf_div
 *   vf_min(a, b) vf_max(a, b)          a NaN in b comes through
 *   vf_sum(v) vf_hmax(v)  over the lanes, in a fixed order
 *   vf_round(v)           to the nearest whole number
 *   vf_ldexp(v, n)        v * 2^n for whole n in [-126, 127]
 *   vf_load2(p, &a, &b)   2 * VF_W floats, even ones to a, odd ones to b
 *   vf_round_bf16(v)      to the nearest bf16, ties to even, NaN kept
 *   vf_mx_block(p, v)     the 32 codes of an MXFP4 block, in order, to v[32 / VF_W]; the values are
 *                         e2m1 / MX_UNIT
 *   MX_UNIT
 *
 * _n forms touch n < VF_W elements only; lanes beyond are zero. Everything is forced inline and the
 * tile sizes are constants at each call, so the loops over tiles unroll into registers.
 *
 * Chains (kern.h, row invariance): an output's products are added by lane k mod VF_W in ascending
 * k, then vf_sum. Every tile shape does exactly that.
 */
#include "cpu/kern.h"

#include "base/num.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum wtype { W_F32, W_F16, W_BF16, W_MX };

enum {
    MX_IN = 32,     /* inputs per MXFP4 block */
    MX_BYTES = 16,  /* their codes */
    MUL_NO = 4,     /* outputs per tile */
    MUL_NO_ONE = 8, /* the same for a single row: as many chains as the adders' latency needs */
    MUL_EXPAND_ROWS = 8, /* from so many rows on, MXFP4 is decoded once into tmp */
    ATTN_BLOCK = 64      /* keys per softmax update; cut at multiples within the page */
};

INLINE size_t w_bytes(enum wtype t)
{
    return t == W_F32 ? 4 : 2;
}

INLINE VF w_load(enum wtype t, const void *p)
{
    return t == W_F32 ? vf_load((const float *)p) : t == W_F16 ? vf_load_f16(p) : vf_load_bf16(p);
}

INLINE VF w_load_n(enum wtype t, const void *p, int n)
{
    if (t == W_F32)
        return vf_load_n((const float *)p, n);
    uint16_t h[VF_W] = {0};
    memcpy(h, p, (size_t)n * sizeof *h);
    return w_load(t, h);
}

/* ---- elementary functions ------------------------------------------------------------------- */

/* e^x within 2 ulp: x = n ln 2 + r, |r| <= 0.35, e^r by its Taylor polynomial (the remainder r^8/8!
 * is below 1e-8). Arguments are held in [-87, 88]: what is beyond never matters here. */
INLINE VF vf_exp(VF x)
{
    x = vf_min(vf_set1(88.0f), vf_max(vf_set1(-87.0f), x));
    VF n = vf_round(vf_mul(x, vf_set1(1.44269504f)));
    VF r = vf_fma(n, vf_set1(-0.693359375f), x); /* ln 2 in two parts, the first exact in n * it */
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    VF p = vf_set1(1.0f / 5040);
    p = vf_fma(p, r, vf_set1(1.0f / 720));
    p = vf_fma(p, r, vf_set1(1.0f / 120));
    p = vf_fma(p, r, vf_set1(1.0f / 24));
    p = vf_fma(p, r, vf_set1(1.0f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r, vf_set1(1.0f));
    p = vf_fma(p, r, vf_set1(1.0f));
    return vf_ldexp(p, n);
}

static float exp_one(float x)
{
    float v[VF_W];
    vf_store(v, vf_exp(vf_set1(x)));
    return v[0];
}

/* ---- products -------------------------------------------------------------------------------- */

INLINE void mul_put(const struct mul *m, int r, int o, float sum)
{
    float *y = m->y + (size_t)r * m->ld_y + o;
    if (m->bias)
        sum += m->bias[o];
    *y = m->add ? *y + sum : sum;
}

INLINE const float *mul_x(const struct mul *m, int r)
{
    return (const float *)m->x + (size_t)(m->row ? m->row[r] : r) * m->ld_x;
}

/* Outputs [o, o + no) of rows [r, r + nr); w and scale are those of output o. */
INLINE void mul_tile(enum wtype t, int no, int nr, const struct mul *m, const uint8_t *w,
                     const uint8_t *scale, int o, int r)
{
    VF acc[MUL_NO_ONE][MUL_NR];
    const float *x[MUL_NR];
    int n_in = m->n_in, n_block = n_in / MX_IN;
    size_t ld = t == W_MX ? (size_t)n_block * MX_BYTES : (size_t)n_in * w_bytes(t);
    UNROLL for (int j = 0; j < nr; j++)
    {
        x[j] = mul_x(m, r + j);
        UNROLL for (int i = 0; i < no; i++) acc[i][j] = vf_zero();
    }
    if (t == W_MX) {
        for (int b = 0; b < n_block; b++) {
            UNROLL for (int i = 0; i < no; i++)
            {
                VF v[MX_IN / VF_W];
                VF s = vf_set1(kern_e8m0[scale[i * n_block + b]] * MX_UNIT);
                vf_mx_block(w + (size_t)i * ld + (size_t)b * MX_BYTES, v);
                UNROLL for (int k = 0; k < MX_IN / VF_W; k++)
                {
                    v[k] = vf_mul(v[k], s);
                    UNROLL for (int j = 0; j < nr; j++) acc[i][j] =
                        vf_fma(v[k], vf_load(x[j] + b * MX_IN + k * VF_W), acc[i][j]);
                }
            }
        }
    } else {
        int k = 0;
        for (; k + VF_W <= n_in; k += VF_W) {
            VF xv[MUL_NR];
            UNROLL for (int j = 0; j < nr; j++) xv[j] = vf_load(x[j] + k);
            UNROLL for (int i = 0; i < no; i++)
            {
                VF wv = w_load(t, w + (size_t)i * ld + (size_t)k * w_bytes(t));
                UNROLL for (int j = 0; j < nr; j++) acc[i][j] = vf_fma(wv, xv[j], acc[i][j]);
            }
        }
        if (k < n_in) {
            UNROLL for (int i = 0; i < no; i++)
            {
                VF wv = w_load_n(t, w + (size_t)i * ld + (size_t)k * w_bytes(t), n_in - k);
                UNROLL for (int j = 0; j < nr; j++) acc[i][j] =
                    vf_fma(wv, vf_load_n(x[j] + k, n_in - k), acc[i][j]);
            }
        }
    }
    UNROLL for (int i = 0; i < no; i++)
    {
        UNROLL for (int j = 0; j < nr; j++) mul_put(m, r + j, o + i, vf_sum(acc[i][j]));
    }
}

/* Outputs [o0, o0 + n) of rows [r, r + nr). */
INLINE void mul_stripe(enum wtype t, int nr, const struct mul *m, const uint8_t *w,
                       const uint8_t *scale, int o0, int n, int r)
{
    int n_block = m->n_in / MX_IN, o = 0;
    size_t ld = t == W_MX ? (size_t)n_block * MX_BYTES : (size_t)m->n_in * w_bytes(t);
    const int no = nr == 1 ? MUL_NO_ONE : MUL_NO;
    for (; o + no <= n; o += no)
        mul_tile(t, no, nr, m, w + (size_t)o * ld, scale + o * n_block, o0 + o, r);
    for (; o < n; o++)
        mul_tile(t, 1, nr, m, w + (size_t)o * ld, scale + o * n_block, o0 + o, r);
}

/* Blocks of MUL_TMP_OUT outputs, small enough for L2, meet all rows before the next block. */
INLINE void mul_block(enum wtype t, const struct mul *m, const uint8_t *w, const uint8_t *scale,
                      int o0, int n)
{
    int r = 0;
    for (; r + MUL_NR <= m->n_row; r += MUL_NR)
        mul_stripe(t, MUL_NR, m, w, scale, o0, n, r);
    if (MUL_NR > 2 && r + 2 <= m->n_row) {
        mul_stripe(t, 2, m, w, scale, o0, n, r);
        r += 2;
    }
    for (; r < m->n_row; r++)
        mul_stripe(t, 1, m, w, scale, o0, n, r);
}

INLINE void mul_dense(enum wtype t, const struct mul *m)
{
    size_t ld = (size_t)m->n_in * w_bytes(t);
    if (m->n_row == 1) {
        mul_stripe(t, 1, m, m->w, NULL, 0, m->n_out, 0);
        return;
    }
    for (int o = 0; o < m->n_out; o += MUL_TMP_OUT)
        mul_block(t, m, (const uint8_t *)m->w + (size_t)o * ld, NULL, o,
                  min_int(MUL_TMP_OUT, m->n_out - o));
}

static void mul_f32(const struct mul *m)
{
    mul_dense(W_F32, m);
}

static void mul_f16(const struct mul *m)
{
    mul_dense(W_F16, m);
}

static void mul_bf16_f32(const struct mul *m)
{
    mul_dense(W_BF16, m);
}

static void mul_mx_f32(const struct mul *m)
{
    size_t n_block = (size_t)m->n_in / MX_IN;
    if (m->n_row == 1) {
        mul_stripe(W_MX, 1, m, m->w, m->scale, 0, m->n_out, 0);
        return;
    }
    for (int o = 0; o < m->n_out; o += MUL_TMP_OUT) {
        int n = min_int(MUL_TMP_OUT, m->n_out - o);
        const uint8_t *w = (const uint8_t *)m->w + (size_t)o * n_block * MX_BYTES;
        const uint8_t *scale = m->scale + (size_t)o * n_block;
        if (m->n_row < MUL_EXPAND_ROWS) {
            mul_block(W_MX, m, w, scale, o, n);
            continue;
        }
        float *tmp = m->tmp;
        for (size_t b = 0; b < (size_t)n * n_block; b++) {
            VF v[MX_IN / VF_W], s = vf_set1(kern_e8m0[scale[b]] * MX_UNIT);
            vf_mx_block(w + b * MX_BYTES, v);
            UNROLL for (int k = 0; k < MX_IN / VF_W; k++)
                vf_store(tmp + b * MX_IN + k * VF_W, vf_mul(v[k], s));
        }
        mul_block(W_F32, m, (const uint8_t *)tmp, NULL, o, n);
    }
}

/* Input-major: lanes are outputs; nv vectors of them (n < VF_W of one when nv is 0) x nr rows. */
INLINE void mul_in_tile(enum wtype t, int nv, int n, int nr, const struct mul *m, int o, int r)
{
    VF acc[4][MUL_NR];
    const float *x[MUL_NR];
    const uint8_t *w = (const uint8_t *)m->w + (size_t)o * w_bytes(t);
    int vectors = nv ? nv : 1;
    UNROLL for (int j = 0; j < nr; j++)
    {
        x[j] = mul_x(m, r + j);
        UNROLL for (int i = 0; i < vectors; i++) acc[i][j] = vf_zero();
    }
    for (int k = 0; k < m->n_in; k++, w += m->ld_w * w_bytes(t)) {
        UNROLL for (int i = 0; i < vectors; i++)
        {
            VF wv = nv ? w_load(t, w + (size_t)(i * VF_W) * w_bytes(t)) : w_load_n(t, w, n);
            UNROLL for (int j = 0; j < nr; j++) acc[i][j] = vf_fma(wv, vf_set1(x[j][k]), acc[i][j]);
        }
    }
    UNROLL for (int j = 0; j < nr; j++)
    {
        UNROLL for (int i = 0; i < vectors; i++)
        {
            float sum[VF_W];
            vf_store(sum, acc[i][j]);
            for (int l = 0; l < (nv ? VF_W : n); l++)
                mul_put(m, r + j, o + i * VF_W + l, sum[l]);
        }
    }
}

INLINE void mul_in_rows(enum wtype t, int nr, const struct mul *m, int r)
{
    int o = 0;
    const int nv = nr == 1 ? 4 : 2;
    for (; o + nv * VF_W <= m->n_out; o += nv * VF_W)
        mul_in_tile(t, nv, 0, nr, m, o, r);
    for (; o + VF_W <= m->n_out; o += VF_W)
        mul_in_tile(t, 1, 0, nr, m, o, r);
    if (o < m->n_out)
        mul_in_tile(t, 0, m->n_out - o, nr, m, o, r);
}

/* Columns [o, o + n) side by side as floats: tmp [n_in, MUL_TMP_OUT]. The rows of w lie far apart,
 * so reading them for every tile would cost a cache line and often a page walk each time. */
INLINE void mul_in_pack(enum wtype t, const struct mul *m, int o, int n, float *tmp)
{
    const uint8_t *w = (const uint8_t *)m->w + (size_t)o * w_bytes(t);
    for (int k = 0; k < m->n_in; k++, w += m->ld_w * w_bytes(t), tmp += MUL_TMP_OUT) {
        int i = 0;
        for (; i + VF_W <= n; i += VF_W)
            vf_store(tmp + i, w_load(t, w + (size_t)i * w_bytes(t)));
        if (i < n)
            vf_store(tmp + i, w_load_n(t, w + (size_t)i * w_bytes(t), n - i));
    }
}

INLINE void mul_in_block(enum wtype t, const struct mul *m)
{
    int r = 0;
    for (; r + MUL_NR <= m->n_row; r += MUL_NR)
        mul_in_rows(t, MUL_NR, m, r);
    for (; r < m->n_row; r++)
        mul_in_rows(t, 1, m, r);
}

INLINE void mul_in_any(enum wtype t, const struct mul *m)
{
    if (m->n_row <= MUL_NR) {
        mul_in_block(t, m);
        return;
    }
    for (int o = 0; o < m->n_out; o += MUL_TMP_OUT) {
        struct mul part = *m;
        part.n_out = min_int(MUL_TMP_OUT, m->n_out - o);
        mul_in_pack(t, m, o, part.n_out, m->tmp);
        part.w = m->tmp;
        part.ld_w = MUL_TMP_OUT;
        part.bias = m->bias ? m->bias + o : NULL;
        part.y = m->y + o;
        mul_in_block(W_F32, &part);
    }
}

static void mul_in_f32(const struct mul *m)
{
    mul_in_any(W_F32, m);
}

static void mul_in_f16(const struct mul *m)
{
    mul_in_any(W_F16, m);
}

static void mul_in_bf16(const struct mul *m)
{
    mul_in_any(W_BF16, m);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void rmsnorm(const float *x, const float *w, int n, float eps, float *out)
{
    VF s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    int i = 0;
    for (; i + 4 * VF_W <= n; i += 4 * VF_W) {
        UNROLL for (int j = 0; j < 4; j++)
        {
            VF v = vf_load(x + i + j * VF_W);
            s[j] = vf_fma(v, v, s[j]);
        }
    }
    for (; i + VF_W <= n; i += VF_W)
        s[0] = vf_fma(vf_load(x + i), vf_load(x + i), s[0]);
    if (i < n)
        s[0] = vf_fma(vf_load_n(x + i, n - i), vf_load_n(x + i, n - i), s[0]);
    float sum = vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
    VF f = vf_set1(1.0f / sqrtf(sum / (float)n + eps));
    for (i = 0; i + VF_W <= n; i += VF_W)
        vf_store(out + i, vf_mul(vf_mul(vf_load(x + i), f), vf_load(w + i)));
    if (i < n)
        vf_store_n(out + i, vf_mul(vf_mul(vf_load_n(x + i, n - i), f), vf_load_n(w + i, n - i)),
                   n - i);
}

static void round_bf16(const float *x, int n, float *out)
{
    int i = 0;
    for (; i + VF_W <= n; i += VF_W)
        vf_store(out + i, vf_round_bf16(vf_load(x + i)));
    if (i < n)
        vf_store_n(out + i, vf_round_bf16(vf_load_n(x + i, n - i)), n - i);
}

INLINE void rope_step(float *a, float *b, const float *cos, const float *sin, VF scale, int n)
{
    bool all = n >= VF_W;
    VF va = all ? vf_load(a) : vf_load_n(a, n), vb = all ? vf_load(b) : vf_load_n(b, n);
    VF vc = all ? vf_load(cos) : vf_load_n(cos, n), vs = all ? vf_load(sin) : vf_load_n(sin, n);
    VF ra = vf_mul(vf_sub(vf_mul(va, vc), vf_mul(vb, vs)), scale);
    VF rb = vf_mul(vf_fma(vb, vc, vf_mul(va, vs)), scale);
    if (all) {
        vf_store(a, ra);
        vf_store(b, rb);
    } else {
        vf_store_n(a, ra, n);
        vf_store_n(b, rb, n);
    }
}

static void rope(float *x, const float *cos, const float *sin, int half, float scale)
{
    for (int i = 0; i < half; i += VF_W)
        rope_step(x + i, x + half + i, cos + i, sin + i, vf_set1(scale), half - i);
}

INLINE VF swiglu_step(VF g, VF u, float alpha, float limit)
{
    VF hi = vf_set1(limit), one = vf_set1(1.0f);
    g = vf_min(hi, g);
    u = vf_max(vf_set1(-limit), vf_min(hi, u));
    VF e = vf_exp(vf_mul(vf_set1(-alpha), g));
    return vf_mul(vf_div(g, vf_add(one, e)), vf_add(u, one));
}

static void swiglu(const float *y, int n, float alpha, float limit, float *out)
{
    VF g, u;
    int i = 0;
    for (; i + VF_W <= n; i += VF_W) {
        vf_load2(y + 2 * i, &g, &u);
        vf_store(out + i, swiglu_step(g, u, alpha, limit));
    }
    if (i < n) {
        float last[2 * VF_W] = {0};
        memcpy(last, y + 2 * i, (size_t)(n - i) * 2 * sizeof *y);
        vf_load2(last, &g, &u);
        vf_store_n(out + i, swiglu_step(g, u, alpha, limit), n - i);
    }
}

static void combine(float *x, int n, const float *y, size_t ld_y, const int32_t *slot,
                    const float *w, int n_y)
{
    int i = 0;
    for (; i + VF_W <= n; i += VF_W) {
        VF sum = vf_load(x + i);
        for (int j = 0; j < n_y; j++)
            sum = vf_fma(vf_set1(w[j]), vf_load(y + (size_t)slot[j] * ld_y + i), sum);
        vf_store(x + i, sum);
    }
    if (i < n) {
        VF sum = vf_load_n(x + i, n - i);
        for (int j = 0; j < n_y; j++)
            sum = vf_fma(vf_set1(w[j]), vf_load_n(y + (size_t)slot[j] * ld_y + i, n - i), sum);
        vf_store_n(x + i, sum, n - i);
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

/* Scores of nv vectors of keys (n < VF_W keys when nv is 0), slot j on, for nq heads from h. */
INLINE void attn_score(enum wtype t, int nq, int nv, int n, const struct attn *a, int h, int j,
                       float s[ATTN_NQ][ATTN_BLOCK], int at)
{
    VF acc[ATTN_NQ][4];
    int vectors = nv ? nv : 1;
    const uint8_t *k = (const uint8_t *)a->k + (size_t)j * w_bytes(t);
    const float *q = a->q + (size_t)h * (size_t)a->d_head;
    UNROLL for (int i = 0; i < nq; i++)
    {
        UNROLL for (int v = 0; v < vectors; v++) acc[i][v] = vf_zero();
    }
    for (int d = 0; d < a->d_head; d++, k += (size_t)a->page_tok * w_bytes(t)) {
        VF kv[4];
        UNROLL for (int v = 0; v < vectors; v++) kv[v] =
            nv ? w_load(t, k + (size_t)(v * VF_W) * w_bytes(t)) : w_load_n(t, k, n);
        UNROLL for (int i = 0; i < nq; i++)
        {
            VF qv = vf_set1(q[(size_t)i * (size_t)a->d_head + (size_t)d]);
            UNROLL for (int v = 0; v < vectors; v++) acc[i][v] = vf_fma(qv, kv[v], acc[i][v]);
        }
    }
    UNROLL for (int i = 0; i < nq; i++)
    {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(s[i] + at + v * VF_W, acc[i][v]);
    }
}

/* acc = acc * keep + sum over j in [lo, hi) of s[j] v[j], for nv vectors of the head's dimensions
 * from d on (n < VF_W dimensions when nv is 0). */
INLINE void attn_value(enum wtype t, int nq, int nv, int n, const struct attn *a, int h, int d,
                       int slot0, int lo, int hi, float s[ATTN_NQ][ATTN_BLOCK], const float *keep)
{
    VF acc[ATTN_NQ][4];
    int vectors = nv ? nv : 1;
    size_t ld = (size_t)a->d_head;
    const uint8_t *p = (const uint8_t *)a->v + ((size_t)(slot0 + lo) * ld + (size_t)d) * w_bytes(t);
    UNROLL for (int i = 0; i < nq; i++)
    {
        UNROLL for (int v = 0; v < vectors; v++)
        {
            const float *from = a->acc + (size_t)(h + i) * ld + d + v * VF_W;
            acc[i][v] = vf_mul(nv ? vf_load(from) : vf_load_n(from, n), vf_set1(keep[i]));
        }
    }
    for (int j = lo; j < hi; j++, p += ld * w_bytes(t)) {
        VF x[4];
        UNROLL for (int v = 0; v < vectors; v++) x[v] =
            nv ? w_load(t, p + (size_t)(v * VF_W) * w_bytes(t)) : w_load_n(t, p, n);
        UNROLL for (int i = 0; i < nq; i++)
        {
            UNROLL for (int v = 0; v < vectors; v++) acc[i][v] =
                vf_fma(vf_set1(s[i][j]), x[v], acc[i][v]);
        }
    }
    UNROLL for (int i = 0; i < nq; i++)
    {
        UNROLL for (int v = 0; v < vectors; v++)
        {
            float *to = a->acc + (size_t)(h + i) * ld + d + v * VF_W;
            if (nv)
                vf_store(to, acc[i][v]);
            else
                vf_store_n(to, acc[i][v], n);
        }
    }
}

INLINE void attn_heads(enum wtype t, int nq, const struct attn *a, int h)
{
    float s[ATTN_NQ][ATTN_BLOCK], keep[ATTN_NQ];
    const int nv = nq <= 2 ? 4 : 2; /* enough independent chains for the adders' latency */
    for (int slot0 = a->lo / ATTN_BLOCK * ATTN_BLOCK; slot0 < a->hi; slot0 += ATTN_BLOCK) {
        int lo = max_int(a->lo - slot0, 0), hi = min_int(a->hi - slot0, ATTN_BLOCK);
        int from = lo / VF_W * VF_W, to = (hi + VF_W - 1) / VF_W * VF_W, j = from;
        for (; j + nv * VF_W <= to && slot0 + j + nv * VF_W <= a->page_tok; j += nv * VF_W)
            attn_score(t, nq, nv, 0, a, h, slot0 + j, s, j);
        for (; j < to && slot0 + j + VF_W <= a->page_tok; j += VF_W)
            attn_score(t, nq, 1, 0, a, h, slot0 + j, s, j);
        if (j < to)
            attn_score(t, nq, 0, a->page_tok - slot0 - j, a, h, slot0 + j, s, j);
        for (int i = 0; i < nq; i++) {
            for (j = from; j < lo; j++)
                s[i][j] = -INFINITY;
            for (j = hi; j < to; j++)
                s[i][j] = -INFINITY;
            VF top = vf_set1(a->m[h + i]), sum = vf_zero();
            for (j = from; j < to; j += VF_W)
                top = vf_max(top, vf_load(s[i] + j));
            float m = vf_hmax(top);
            for (j = from; j < to; j += VF_W) {
                VF p = vf_exp(vf_sub(vf_load(s[i] + j), vf_set1(m)));
                vf_store(s[i] + j, p);
                sum = vf_add(sum, p);
            }
            keep[i] = a->m[h + i] == m ? 1.0f : exp_one(a->m[h + i] - m);
            a->l[h + i] = a->l[h + i] * keep[i] + vf_sum(sum);
            a->m[h + i] = m;
        }
        int d = 0;
        for (; d + nv * VF_W <= a->d_head; d += nv * VF_W)
            attn_value(t, nq, nv, 0, a, h, d, slot0, lo, hi, s, keep);
        for (; d + VF_W <= a->d_head; d += VF_W)
            attn_value(t, nq, 1, 0, a, h, d, slot0, lo, hi, s, keep);
        if (d < a->d_head)
            attn_value(t, nq, 0, a->d_head - d, a, h, d, slot0, lo, hi, s, keep);
    }
}

INLINE void attn_any(enum wtype t, const struct attn *a)
{
    int h = 0;
    for (; h + ATTN_NQ <= a->n_q; h += ATTN_NQ)
        attn_heads(t, ATTN_NQ, a, h);
    for (; h + 2 <= a->n_q; h += 2)
        attn_heads(t, 2, a, h);
    if (h < a->n_q)
        attn_heads(t, 1, a, h);
}

static void attn_f32(const struct attn *a)
{
    attn_any(W_F32, a);
}

static void attn_bf16(const struct attn *a)
{
    attn_any(W_BF16, a);
}

/* Everything above into the table. */
static void simd_init(struct cpu_kern *k)
{
    k->mul_f32[DT_F32] = mul_f32;
    k->mul_f32[DT_F16] = mul_f16;
    k->mul_f32[DT_BF16] = mul_bf16_f32;
    k->mul_mx_f32 = mul_mx_f32;
    k->mul_in[DT_F32] = mul_in_f32;
    k->mul_in[DT_F16] = mul_in_f16;
    k->mul_in[DT_BF16] = mul_in_bf16;
    k->rmsnorm = rmsnorm;
    k->round_bf16 = round_bf16;
    k->rope = rope;
    k->attn_f32 = attn_f32;
    k->attn_bf16 = attn_bf16;
    k->swiglu = swiglu;
    k->combine = combine;
}
