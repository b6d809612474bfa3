/* The float32 kernels for any vector instruction set, written once on a small vocabulary.
 *
 * Included by exactly one place in each kern_<set>.c, which has defined before:
 *
 *   VF, VF_W, VF_REG      the vector of floats, its width, and asm's letter for its register
 *   MUL_NR                rows of x that a product tile holds: 4 x MUL_NR accumulators, MUL_NR
 *                         vectors of x and one of w at once in the registers
 *   MUL_IN_NR             the same of the input-major products: 2 x MUL_IN_NR accumulators
 *   ATTN_NQ               query heads that an attention tile holds, times two vectors
 *   vf_zero() vf_set1(f)  vf_load(p) vf_load_n(p, n) vf_store(p, v) vf_store_n(p, v, n)
 *   vf_load_bf16(p) vf_load_f16(p)     VF_W elements at any address, widened
 *   vf_load_i8(p)         the same of signed bytes
 *   vf_fma(a, b, c)       a * b + c, rounded once
 *   vf_add vf_sub vf_mul vf_div
 *   vf_min(a, b) vf_max(a, b)          a NaN in b comes through
 *   vf_sum(v) vf_hmax(v)  over the lanes, in a fixed order
 *   vf_round(v)           to the nearest whole number
 *   vf_ldexp(v, n)        v * 2^n for whole n in [-126, 127]
 *   vf_load2(p, &a, &b)   2 * VF_W floats, even ones to a, odd ones to b
 *   vf_load2_bf16(p, &a, &b)  the same from bf16
 *   vf_zip(&a, &b)        the inverse: the first VF_W of them to a, the others to b
 *   vf_round_bf16(v)      to the nearest bf16, ties to even, NaN kept
 *   vf_fetch(p)           asks for the cache line at p (any address)
 *   vf_fetch_far(p)       the same, to the second level
 *   MX_NO_ONE             outputs per tile of MXFP4 rows times a single row, at most MUL_NO_ONE
 *   MX_GROUP              MXFP4 blocks that are decoded together
 *   vf_mx_load(p, s, n, v)  n <= MX_GROUP blocks of a row, codes p and scale bytes s, exact, to
 *                         v[MX_VEC]; in any order of the inputs that depends on n alone; with
 *                         n < MX_GROUP the lanes that are left are zero
 *   vf_mx_x(x, n, v)      the same n * 32 inputs of x in the same order
 *
 * _n forms touch n < VF_W elements only; lanes beyond are zero. Everything is forced inline and the
 * tile sizes are constants at each call, so the loops over tiles unroll into registers.
 *
 * Chains (kern.h, row invariance): inputs are cut into vectors, dense rows in ascending order,
 * MXFP4 rows as vf_mx_load gives them; an output's products are added lane by lane, vector after
 * vector, then vf_sum. Every tile shape does exactly that.
 *
 * One row (of dense weights a few) streams the weights from memory. Several rows are a matrix
 * product (mul_many): blocks of inputs and outputs, so that what the innermost loop reads lies in
 * L1.
 */
#include "cpu/kern.h"

#include "base/num.h"

#include <math.h>

enum wtype { W_F32, W_F16, W_BF16, W_MX, W_I8 };

enum {
    MX_IN = 32,    /* inputs per MXFP4 block */
    MX_BYTES = 16, /* their codes */
    MX_VEC = MX_GROUP * MX_IN / VF_W,
    MUL_NO = 4,     /* outputs per tile */
    MUL_NO_ONE = 8, /* the same for a single row: as many chains as the adders' latency needs */
    MUL_FEW = 4,    /* rows that meet dense weights as they stream in */
    MANY_IN = 512,  /* inputs, outputs and rows of a block of mul_many */
    MANY_OUT = 128,
    MANY_ROW = 48
};
_Static_assert(MANY_ROW * 4 * (MANY_IN + MANY_OUT * VF_W) <= MUL_TMP_BYTES, "struct mul's tmp");

INLINE size_t w_bytes(enum wtype t)
{
    return t == W_F32 ? 4 : t == W_I8 ? 1 : 2;
}

INLINE VF w_load(enum wtype t, const void *p)
{
    return t == W_F32   ? vf_load((const float *)p)
           : t == W_F16 ? vf_load_f16(p)
           : t == W_I8  ? vf_load_i8(p)
                        : vf_load_bf16(p);
}

INLINE VF w_load_n(enum wtype t, const void *p, int n)
{
    if (t == W_F32)
        return vf_load_n((const float *)p, n);
    uint16_t h[VF_W] = {0};
    memcpy(h, p, (size_t)n * w_bytes(t));
    return w_load(t, h);
}

/* ---- elementary functions ------------------------------------------------------------------- */

/* e^x within 2 ulp: x = n ln 2 + r, |r| <= 0.35, e^r by the polynomial of degree 6 whose largest
 * relative error there is least, 2e-9 (found by reweighted least squares). Arguments are held in
 * [-87, 88]: what is beyond never matters here. */
INLINE VF vf_exp(VF x)
{
    x = vf_min(vf_set1(88.0f), vf_max(vf_set1(-87.0f), x));
    VF n = vf_round(vf_mul(x, vf_set1(1.44269504f)));
    VF r = vf_fma(n, vf_set1(-0.693359375f), x); /* ln 2 in two parts, the first exact in n * it */
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    VF p = vf_set1(0.0013843606f);
    p = vf_fma(p, r, vf_set1(0.008374196f));
    p = vf_fma(p, r, vf_set1(0.041668005f));
    p = vf_fma(p, r, vf_set1(0.1666643f));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r, vf_set1(1.0f));
    p = vf_fma(p, r, vf_set1(1.0f));
    return vf_ldexp(p, n);
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

/* n inputs of a row of weights from p on (MXFP4: blocks, with their scales), and the same of x, as
 * vectors: the only places that know how each type is cut. n is at most one step's. */
INLINE int step_in(enum wtype t)
{
    return t == W_MX ? MX_GROUP * MX_IN : VF_W;
}

INLINE void step_w(enum wtype t, const uint8_t *p, const uint8_t *scale, int n, VF *v)
{
    if (t == W_MX && n == MX_GROUP * MX_IN)
        vf_mx_load(p, scale, MX_GROUP, v);
    else if (t == W_MX)
        vf_mx_load(p, scale, 1, v);
    else
        v[0] = n == VF_W ? w_load(t, p) : w_load_n(t, p, n);
}

INLINE void step_x(enum wtype t, const float *x, int n, VF *v)
{
    if (t == W_MX && n == MX_GROUP * MX_IN)
        vf_mx_x(x, MX_GROUP, v);
    else if (t == W_MX)
        vf_mx_x(x, 1, v);
    else
        v[0] = n == VF_W ? vf_load(x) : vf_load_n(x, n);
}

/* Bytes of n inputs of a row of weights. */
INLINE size_t row_bytes(enum wtype t, int n)
{
    return t == W_MX ? (size_t)n / MX_IN * MX_BYTES : (size_t)n * w_bytes(t);
}

/* Adds n inputs from k on to `no` outputs of nr rows, acc [no, nr]; x [vector, nr]: the rows'
 * vectors of this step. MXFP4's are read again for each output: kept in registers they would push
 * out the accumulators. */
INLINE void few_step(enum wtype t, int no, int nr, const uint8_t *w, size_t ld,
                     const uint8_t *scale, int n_block, int k, int n, const float *x, VF *acc)
{
    const int vectors = t == W_MX ? MX_VEC : 1;
    UNROLL for (int i = 0; i < no; i++)
    {
        VF v[MX_VEC];
        step_w(t, w + (size_t)i * ld + row_bytes(t, k), scale + i * n_block + k / MX_IN, n, v);
        if (vectors > 1)
            __asm__("" : "+r"(x));
        UNROLL for (int j = 0; j < vectors * nr; j++) acc[i * nr + j % nr] =
            vf_fma(v[j / nr], vf_load(x + j * VF_W), acc[i * nr + j % nr]);
    }
}

/* Outputs [o, o + no) of all nr rows, x as vectors. MXFP4 rows side by side defeat the hardware's
 * prefetcher, so each step fetches as much of the next tile; longer rows do better alone. */
INLINE void few_tile(enum wtype t, int no, int nr, const struct mul *m, const float *x, int o)
{
    const int in = step_in(t), vectors = t == W_MX ? MX_VEC : 1;
    int n_in = m->n_in, n_block = n_in / MX_IN, k = 0;
    size_t ld = row_bytes(t, n_in);
    const uint8_t *w = (const uint8_t *)m->w + (size_t)o * ld;
    const uint8_t *scale = t == W_MX ? m->scale + (size_t)o * (size_t)n_block : NULL;
    const uint8_t *ahead = w + (size_t)no * ld;
    VF acc[MUL_NO_ONE];
    UNROLL for (int i = 0; i < no * nr; i++) acc[i] = vf_zero();
    for (; k + in <= n_in; k += in, x += vectors * nr * VF_W) {
        const size_t step = row_bytes(t, in) * (size_t)no;
        if (t == W_MX && no > 1) {
            for (size_t p = 0; p < step; p += 64)
                vf_fetch(ahead + p);
        }
        ahead += step;
        few_step(t, no, nr, w, ld, scale, n_block, k, in, x, acc);
    }
    if (k < n_in)
        few_step(t, no, nr, w, ld, scale, n_block, k, n_in - k, x, acc);
    UNROLL for (int i = 0; i < no * nr; i++) mul_put(m, i % nr, o + i / nr, vf_sum(acc[i]));
}

/* All of a product of nr rows. */
INLINE void mul_few(enum wtype t, int nr, const struct mul *m)
{
    const int in = step_in(t), vectors = t == W_MX ? MX_VEC : 1;
    float *x = m->tmp;
    for (int r = 0; r < nr; r++) {
        const float *from = mul_x(m, r);
        float *to = x + r * VF_W;
        for (int k = 0; k < m->n_in; k += in) {
            VF v[MX_VEC];
            step_x(t, from + k, min_int(in, m->n_in - k), v);
            UNROLL for (int j = 0; j < vectors; j++, to += nr * VF_W) vf_store(to, v[j]);
        }
    }
    const int no = t == W_MX ? MX_NO_ONE : MUL_NO_ONE / nr;
    int o = 0;
    for (; o + no <= m->n_out; o += no)
        few_tile(t, no, nr, m, x, o);
    for (; o < m->n_out; o++)
        few_tile(t, 1, nr, m, x, o);
}

/* acc[MUL_NO, nr] += w x over n_vec vectors: w [n_vec, MUL_NO], x [n_vec, nr], all of vectors. */
INLINE void many_tile(int nr, int n_vec, const float *w, const float *x, float *acc, bool first)
{
    VF a[MUL_NO][MUL_NR];
    UNROLL for (int i = 0; i < MUL_NO; i++)
    {
        UNROLL for (int j = 0; j < nr; j++) a[i][j] =
            first ? vf_zero() : vf_load(acc + (i * nr + j) * VF_W);
    }
    for (int k = 0; k < n_vec; k++, w += MUL_NO * VF_W, x += nr * VF_W) {
        VF xv[MUL_NR];
        UNROLL for (int j = 0; j < nr; j++) xv[j] = vf_load(x + j * VF_W);
        UNROLL for (int i = 0; i < MUL_NO; i++)
        {
            VF wv = vf_load(w + i * VF_W);
            UNROLL for (int j = 0; j < nr; j++) a[i][j] = vf_fma(wv, xv[j], a[i][j]);
        }
    }
    UNROLL for (int i = 0; i < MUL_NO; i++)
    {
        UNROLL for (int j = 0; j < nr; j++) vf_store(acc + (i * nr + j) * VF_W, a[i][j]);
    }
}

/* Rows of the tile that begins with row r of n. */
INLINE int many_nr(int r, int n)
{
    return n - r >= MUL_NR ? MUL_NR : n - r >= 2 ? 2 : 1;
}

/* Inputs [k, k + n_k) of rows [r0, r0 + n_row), tile by tile: x [tile][vector, nr]. */
INLINE void many_pack_x(enum wtype t, const struct mul *m, int r0, int n_row, int k, int n_k,
                        int n_vec, float *x)
{
    const int in = step_in(t), vectors = t == W_MX ? MX_VEC : 1;
    for (int r = 0, nr; r < n_row; r += nr, x += (size_t)n_vec * (size_t)nr * VF_W) {
        nr = many_nr(r, n_row);
        for (int j = 0; j < nr; j++) {
            const float *from = mul_x(m, r0 + r + j) + k;
            float *to = x + j * VF_W;
            for (int i = 0; i < n_k; i += in) {
                VF v[MX_VEC];
                step_x(t, from + i, min_int(in, n_k - i), v);
                UNROLL for (int l = 0; l < vectors; l++, to += nr * VF_W) vf_store(to, v[l]);
            }
        }
    }
}

/* The same inputs of up to MUL_NO outputs from o on: w [vector, MUL_NO], zero for those beyond. The
 * next outputs' are fetched meanwhile. */
INLINE void many_pack_w(enum wtype t, const struct mul *m, int o, int no, int k, int n_k, float *w)
{
    const int in = step_in(t), vectors = t == W_MX ? MX_VEC : 1;
    size_t ld = row_bytes(t, m->n_in), n_block = (size_t)m->n_in / MX_IN;
    for (int i = 0; i < MUL_NO; i++) {
        const uint8_t *from = (const uint8_t *)m->w + (size_t)(o + i) * ld + row_bytes(t, k);
        const uint8_t *scale = t == W_MX ? m->scale + (size_t)(o + i) * n_block + k / MX_IN : NULL;
        float *to = w + i * VF_W;
        for (int j = 0; j < n_k; j += in) {
            VF v[MX_VEC];
            if (i < no) {
                const uint8_t *p = from + row_bytes(t, j);
                vf_fetch(p + MUL_NO * ld);
                step_w(t, p, scale + j / MX_IN, min_int(in, n_k - j), v);
            } else {
                UNROLL for (int l = 0; l < vectors; l++) v[l] = vf_zero();
            }
            UNROLL for (int l = 0; l < vectors; l++, to += MUL_NO * VF_W) vf_store(to, v[l]);
        }
    }
}

/* Outputs [o0, o0 + n_out) of rows [r0, r0 + n_row), which fit m->tmp. */
INLINE void many_block(enum wtype t, const struct mul *m, int o0, int n_out, int r0, int n_row)
{
    const int in = step_in(t), vectors = t == W_MX ? MX_VEC : 1;
    float w[MUL_NO * MANY_IN];
    float *x = m->tmp, *acc = x + MANY_ROW * MANY_IN;
    for (int k = 0; k < m->n_in; k += MANY_IN) {
        int n_k = min_int(MANY_IN, m->n_in - k), n_vec = (n_k + in - 1) / in * vectors;
        many_pack_x(t, m, r0, n_row, k, n_k, n_vec, x);
        for (int o = 0; o < n_out; o += MUL_NO) {
            many_pack_w(t, m, o0 + o, min_int(MUL_NO, n_out - o), k, n_k, w);
            for (int r = 0, nr; r < n_row; r += nr) {
                const float *xt = x + (size_t)r * (size_t)n_vec * VF_W;
                float *at = acc + ((size_t)o * MANY_ROW + (size_t)(r * MUL_NO)) * VF_W;
                nr = many_nr(r, n_row);
                if (nr == MUL_NR)
                    many_tile(MUL_NR, n_vec, w, xt, at, k == 0);
                else if (nr == 2)
                    many_tile(2, n_vec, w, xt, at, k == 0);
                else
                    many_tile(1, n_vec, w, xt, at, k == 0);
            }
        }
    }
    for (int o = 0; o < n_out; o++) {
        for (int r = 0, nr; r < n_row; r += nr) {
            nr = many_nr(r, n_row);
            const float *at = acc + ((size_t)(o / MUL_NO * MUL_NO) * MANY_ROW +
                                     (size_t)(r * MUL_NO + o % MUL_NO * nr)) *
                                        VF_W;
            for (int j = 0; j < nr; j++, at += VF_W)
                mul_put(m, r0 + r + j, o0 + o, vf_sum(vf_load(at)));
        }
    }
}

/* A block of outputs stays in the caches while all rows meet it, unless they are few. */
INLINE void mul_any(enum wtype t, const struct mul *m)
{
    if (m->n_row == 1) {
        mul_few(t, 1, m);
        return;
    }
    if (t != W_MX && m->n_row <= MUL_FEW) {
        if (m->n_row == 2)
            mul_few(t, 2, m);
        else if (m->n_row == 3)
            mul_few(t, 3, m);
        else
            mul_few(t, 4, m);
        return;
    }
    for (int o = 0; o < m->n_out; o += MANY_OUT)
        for (int r = 0; r < m->n_row; r += MANY_ROW)
            many_block(t, m, o, min_int(MANY_OUT, m->n_out - o), r,
                       min_int(MANY_ROW, m->n_row - r));
}

static void mul_f32(const struct mul *m)
{
    mul_any(W_F32, m);
}

static void mul_f16(const struct mul *m)
{
    mul_any(W_F16, m);
}

static void mul_bf16_f32(const struct mul *m)
{
    mul_any(W_BF16, m);
}

static void mul_mx_f32(const struct mul *m)
{
    mul_any(W_MX, m);
}

/* Input-major: lanes are outputs; nv vectors of them (n < VF_W of one when nv is 0) x nr rows. */
INLINE void mul_in_tile(enum wtype t, int nv, int n, int nr, const struct mul *m, int o, int r)
{
    VF acc[4][MUL_IN_NR];
    const float *x[MUL_IN_NR];
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
    for (; r + MUL_IN_NR <= m->n_row; r += MUL_IN_NR)
        mul_in_rows(t, MUL_IN_NR, m, r);
    for (; r < m->n_row; r++)
        mul_in_rows(t, 1, m, r);
}

INLINE void mul_in_any(enum wtype t, const struct mul *m)
{
    if (m->n_row <= MUL_IN_NR) {
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

/* Twelve chains: two instructions a cycle of four or five cycles' latency need ten. */
static double peak(int n, float *out)
{
    enum { CHAINS = 12 };
    VF s[CHAINS], half = vf_set1(0.5f), one = vf_set1(1.0f);
    UNROLL for (int i = 0; i < CHAINS; i++) s[i] = vf_zero();
    for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
            s[i] = vf_fma(s[i], half, one);
            __asm__("" : "+" VF_REG(s[i])); /* else one chain would do for all */
        }
    }
    UNROLL for (int i = 1; i < CHAINS; i++) s[0] = vf_add(s[0], s[i]);
    *out = vf_sum(s[0]);
    return 2.0 * CHAINS * VF_W * n;
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

#include "cpu/kern_attn.h"

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
    k->attn_q8 = attn_q8;
    k->peak = peak;
    k->peak_bf16 = peak;
    k->peak_q8 = peak;
    k->swiglu = swiglu;
    k->combine = combine;
}
