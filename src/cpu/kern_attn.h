/* Attention for any vector instruction set: part of kern_simd.h, whose vocabulary it uses.
 *
 * A block of up to ATTN_BLOCK keys is one step of the online softmax for ATTN_HEADS heads at once:
 * scores, then the weights of all these heads, then the values. Both products hold ATTN_NQ heads
 * times two vectors in registers; two vectors of bf16 are taken as even and odd elements, which
 * costs a shift and a mask, and are put in order where the sums are stored. The sum of a score runs
 * over the dimensions and that of an output over the keys, both ascending, whatever the tile.
 */
enum {
    ATTN_BLOCK = 64, /* keys; cut at multiples of it within the page */
    ATTN_HEADS = 8,
    ATTN_LINE = 64 /* bytes that a fetch brings */
};

/* What is asked for while something else is computed: n lines from p on, one in `every` steps, so
 * that they come evenly and never fill the queue of misses. */
struct ahead {
    const uint8_t *p;
    int n, every, left;
};

INLINE struct ahead ahead_of(enum wtype t, const struct attn *a)
{
    struct ahead f = {.p = a->next, .every = 1};
    int tiles = (a->n_q + ATTN_NQ - 1) / ATTN_NQ, bytes = (int)w_bytes(t);
    if (f.p) {
        f.n = a->d_head * a->page_tok * 2 * bytes / ATTN_LINE;
        f.every = max_int(1, tiles * (ATTN_LINE / 2) / (VF_W * bytes));
    }
    return f;
}

INLINE void ahead_step(struct ahead *f)
{
    if (f->n > 0 && --f->left < 0) {
        vf_fetch_far(f->p);
        f->p += ATTN_LINE;
        f->n--;
        f->left = f->every - 1;
    }
}

/* Two vectors of keys or dimensions, or one of n <= VF_W. `pair` leaves them even and odd. */
INLINE void attn_load(enum wtype t, int nv, int n, const uint8_t *p, VF v[2])
{
    if (nv == 2 && t == W_BF16)
        vf_load2_bf16(p, &v[0], &v[1]);
    else if (nv == 2) {
        v[0] = w_load(t, p);
        v[1] = w_load(t, p + VF_W * w_bytes(t));
    } else
        v[0] = n == VF_W ? w_load(t, p) : w_load_n(t, p, n);
}

/* Scores of keys from slot j on, nv = 2 vectors of them or n <= VF_W, for nq heads from q on. */
INLINE void attn_score(enum wtype t, int nq, int nv, int n, const struct attn *a, const float *q,
                       int j, float (*s)[ATTN_BLOCK], int at, struct ahead *f)
{
    VF acc[ATTN_NQ][2];
    const size_t d_head = (size_t)a->d_head;
    const uint8_t *k = (const uint8_t *)a->k + (size_t)j * w_bytes(t);
    VF scale[2];
    UNROLL for (int v = 0; t == W_I8 && v < nv; v++) scale[v] =
        nv == 2 || n == VF_W ? vf_load(a->k_scale + j + v * VF_W) : vf_load_n(a->k_scale + j, n);
    UNROLL for (int i = 0; i < nq; i++)
    {
        UNROLL for (int v = 0; v < nv; v++) acc[i][v] = vf_zero();
    }
    for (size_t d = 0; d < d_head; d++, k += (size_t)a->page_tok * w_bytes(t)) {
        VF kv[2];
        attn_load(t, nv, n, k, kv);
        ahead_step(f);
        UNROLL for (int i = 0; i < nq; i++)
        {
            VF qv = vf_set1(q[(size_t)i * d_head + d]);
            UNROLL for (int v = 0; v < nv; v++) acc[i][v] = vf_fma(qv, kv[v], acc[i][v]);
        }
    }
    UNROLL for (int i = 0; i < nq; i++)
    {
        if (nv == 2 && t == W_BF16)
            vf_zip(&acc[i][0], &acc[i][1]);
        UNROLL for (int v = 0; v < nv; v++)
        {
            if (t == W_I8)
                acc[i][v] = vf_mul(acc[i][v], scale[v]);
            vf_store(s[i] + at + v * VF_W, acc[i][v]);
        }
    }
}

INLINE void attn_scores(enum wtype t, int nq, const struct attn *a, const float *q, int slot0,
                        int from, int to, float (*s)[ATTN_BLOCK], struct ahead *f)
{
    int j = from, end = min_int(to, a->page_tok - slot0);
    for (; j + 2 * VF_W <= end; j += 2 * VF_W)
        attn_score(t, nq, 2, 0, a, q, slot0 + j, s, j, f);
    for (; j + VF_W <= end; j += VF_W)
        attn_score(t, nq, 1, VF_W, a, q, slot0 + j, s, j, f);
    if (j < to)
        attn_score(t, nq, 1, a->page_tok - slot0 - j, a, q, slot0 + j, s, j, f);
}

/* Scores [from, to), vectors of which [lo, hi) count, to weights; the heads' maxima and sums are
 * brought up to date, and keep[n_h] receives what the sums so far are worth now. */
INLINE void attn_softmax(const struct attn *a, int h, int n_h, int from, int lo, int hi, int to,
                         float (*s)[ATTN_BLOCK], float *keep)
{
    float m[ATTN_HEADS + VF_W];
    for (int i = 0; i < n_h; i++) {
        for (int j = from; j < lo; j++)
            s[i][j] = -INFINITY;
        for (int j = hi; j < to; j++)
            s[i][j] = -INFINITY;
        VF top = vf_set1(a->m[h + i]);
        for (int j = from; j < to; j += VF_W)
            top = vf_max(top, vf_load(s[i] + j));
        m[i] = vf_hmax(top);
        keep[i] = a->m[h + i] - m[i];
        a->m[h + i] = m[i];
    }
    for (int i = 0; i < n_h; i += VF_W)
        vf_store(keep + i, vf_exp(vf_load_n(keep + i, min_int(VF_W, n_h - i))));
    for (int i = 0; i < n_h; i++) {
        VF sum = vf_zero(), top = vf_set1(m[i]);
        for (int j = from; j < to; j += VF_W) {
            VF p = vf_exp(vf_sub(vf_load(s[i] + j), top));
            vf_store(s[i] + j, p);
            sum = vf_add(sum, p);
        }
        a->l[h + i] = a->l[h + i] * keep[i] + vf_sum(sum);
    }
}

/* acc = acc * keep + sum over j in [lo, hi) of s[j] v[j], dimensions from d on as attn_score. */
INLINE void attn_value(enum wtype t, int nq, int nv, int n, const struct attn *a, float *out, int d,
                       int slot0, int lo, int hi, float (*s)[ATTN_BLOCK], const float *keep,
                       struct ahead *f)
{
    VF acc[ATTN_NQ][2];
    const size_t ld = (size_t)a->d_head;
    const bool pair = nv == 2 && t == W_BF16;
    const uint8_t *p = (const uint8_t *)a->v + ((size_t)(slot0 + lo) * ld + (size_t)d) * w_bytes(t);
    UNROLL for (int i = 0; i < nq; i++)
    {
        const float *from = out + (size_t)i * ld + d;
        if (pair)
            vf_load2(from, &acc[i][0], &acc[i][1]);
        else if (nv == 2) {
            acc[i][0] = vf_load(from);
            acc[i][1] = vf_load(from + VF_W);
        } else
            acc[i][0] = vf_load_n(from, n);
        UNROLL for (int v = 0; v < nv; v++) acc[i][v] = vf_mul(acc[i][v], vf_set1(keep[i]));
    }
    for (int j = lo; j < hi; j++, p += ld * w_bytes(t)) {
        VF x[2];
        attn_load(t, nv, n, p, x);
        ahead_step(f);
        UNROLL for (int i = 0; i < nq; i++)
        {
            VF sv = vf_set1(s[i][j]);
            UNROLL for (int v = 0; v < nv; v++) acc[i][v] = vf_fma(sv, x[v], acc[i][v]);
        }
    }
    UNROLL for (int i = 0; i < nq; i++)
    {
        float *to = out + (size_t)i * ld + d;
        if (pair)
            vf_zip(&acc[i][0], &acc[i][1]);
        if (nv == 2) {
            vf_store(to, acc[i][0]);
            vf_store(to + VF_W, acc[i][1]);
        } else
            vf_store_n(to, acc[i][0], n);
    }
}

INLINE void attn_values(enum wtype t, int nq, const struct attn *a, float *out, int slot0, int lo,
                        int hi, float (*s)[ATTN_BLOCK], const float *keep, struct ahead *f)
{
    int d = 0;
    for (; d + 2 * VF_W <= a->d_head; d += 2 * VF_W)
        attn_value(t, nq, 2, 0, a, out, d, slot0, lo, hi, s, keep, f);
    for (; d < a->d_head; d += VF_W)
        attn_value(t, nq, 1, min_int(VF_W, a->d_head - d), a, out, d, slot0, lo, hi, s, keep, f);
}

/* Heads of the tile that begins with head h of n. */
INLINE int attn_nq(int h, int n)
{
    return n - h >= ATTN_NQ ? ATTN_NQ : n - h >= 2 ? 2 : 1;
}

INLINE void attn_any(enum wtype t, const struct attn *a)
{
    float s[ATTN_HEADS][ATTN_BLOCK], keep[ATTN_HEADS + VF_W];
    struct ahead f = ahead_of(t, a);
    for (int slot0 = a->lo / ATTN_BLOCK * ATTN_BLOCK; slot0 < a->hi; slot0 += ATTN_BLOCK) {
        int lo = max_int(a->lo - slot0, 0), hi = min_int(a->hi - slot0, ATTN_BLOCK);
        int from = lo / VF_W * VF_W, to = (hi + VF_W - 1) / VF_W * VF_W;
        for (int h = 0, n_h; h < a->n_q; h += n_h) {
            n_h = min_int(ATTN_HEADS, a->n_q - h);
            for (int i = 0, nq; i < n_h; i += nq) {
                const float *q = a->q + (size_t)(h + i) * (size_t)a->d_head;
                nq = attn_nq(i, n_h);
                if (nq == ATTN_NQ)
                    attn_scores(t, ATTN_NQ, a, q, slot0, from, to, s + i, &f);
                else if (nq == 2)
                    attn_scores(t, 2, a, q, slot0, from, to, s + i, &f);
                else
                    attn_scores(t, 1, a, q, slot0, from, to, s + i, &f);
            }
            attn_softmax(a, h, n_h, from, lo, hi, to, s, keep);
            for (int i = 0; t == W_I8 && i < n_h; i++)
                for (int j = lo; j < hi; j++)
                    s[i][j] *= a->v_scale[slot0 + j];
            for (int i = 0, nq; i < n_h; i += nq) {
                float *out = a->acc + (size_t)(h + i) * (size_t)a->d_head;
                nq = attn_nq(i, n_h);
                if (nq == ATTN_NQ)
                    attn_values(t, ATTN_NQ, a, out, slot0, lo, hi, s + i, keep + i, &f);
                else if (nq == 2)
                    attn_values(t, 2, a, out, slot0, lo, hi, s + i, keep + i, &f);
                else
                    attn_values(t, 1, a, out, slot0, lo, hi, s + i, keep + i, &f);
            }
        }
    }
}

static void attn_f32(const struct attn *a)
{
    attn_any(W_F32, a);
}

static void attn_bf16(const struct attn *a)
{
    attn_any(W_BF16, a);
}

/* A score is scaled once it is summed, a weight before it meets its values. */
static void attn_q8(const struct attn *a)
{
    attn_any(W_I8, a);
}
