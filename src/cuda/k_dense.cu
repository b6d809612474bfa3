/* The dense products: queries, keys and values with their rotation and place in the cache; the
 * output projection onto the residual; the head.
 */
#include "cuda/thin.h"
#include "cuda/warpgroup.h"

#include <cuda_fp8.h>
#include <limits.h>

struct epi_qkv {
    const float *bias;
    float gain;
    struct qkv_out o;
    struct dstep st;
    __device__ void operator()(int, int tile, int g, int row, float lo, float hi) const
    {
        int head = tile / 4, kv = head - o.n_head, d = tile % 4 * 8 + g;
        bool is_v = kv >= o.n_kv_head;
        int d2 = d + HEAD / 2;
        if (is_v) {
            kv -= o.n_kv_head;
            d = tile % 4 * 16 + g;
            d2 = d + 8;
        }
        lo = lo * gain + __ldg(bias + head * HEAD + d);
        hi = hi * gain + __ldg(bias + head * HEAD + d2);
        if (!is_v) {
            float c = __ldg(o.cos + row * 32 + d), s = __ldg(o.sin + row * 32 + d), a = lo;
            lo = a * c - hi * s;
            hi = hi * c + a * s;
        }
        if (kv < 0) {
            /* 1/sqrt(64) and log2(e), so that attention works with powers of two */
            const float f = 0.125f * 1.4426950408889634f;
            __nv_bfloat16 *q = o.q + ((size_t)row * o.n_head + head) * HEAD;
            q[d] = __float2bfloat16(lo * f);
            q[d2] = __float2bfloat16(hi * f);
            return;
        }
        const struct dseq *sq = st.seq + __ldg(st.row_seq + row);
        int pos = __ldg(st.pos + row), page = pos / KV_PAGE, slot = pos % KV_PAGE;
        page = __ldg(st.table + (o.sliding ? __ldg(&sq->window) + page - __ldg(&sq->window0)
                                           : __ldg(&sq->full) + page));
        size_t at = ((size_t)o.i_layer * o.n_kv_head + kv) * (2 * KV_PAGE * HEAD);
        uint8_t *p = o.pool.p + (size_t)page * o.pool.page;
        if (is_v) {
            at += KV_PAGE * HEAD + slot;
            put(p, at + d * KV_PAGE, lo);
            put(p, at + d2 * KV_PAGE, hi);
        } else {
            at += slot * HEAD;
            put(p, at + d, lo);
            put(p, at + d2, hi);
        }
    }
    __device__ __forceinline__ void put(uint8_t *p, size_t i, float v) const
    {
        if (o.pool.f8)
            p[i] = __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
        else
            ((__nv_bfloat16 *)p)[i] = __float2bfloat16(v);
    }
};

struct epi_out {
    const float *bias;
    float gain;
    float *x;
    int d;
    __device__ void operator()(int, int tile, int g, int row, float lo, float hi) const
    {
        int o = tile * TILE_ROWS + g;
        float *p = x + (size_t)row * d + o;
        /* An addition that nobody waits for; each number gets one. */
        if (o < d)
            atomicAdd(p, lo * gain + __ldg(bias + o));
        if (o + 8 < d)
            atomicAdd(p + 8, hi * gain + __ldg(bias + o + 8));
    }
};

struct epi_head {
    float gain;
    float *logits;
    int n_vocab;
    __device__ void operator()(int, int tile, int g, int row, float lo, float hi) const
    {
        int o = tile * TILE_ROWS + g;
        float *p = logits + (size_t)row * n_vocab + o;
        if (o < n_vocab)
            p[0] = lo * gain;
        if (o + 8 < n_vocab)
            p[8] = hi * gain;
    }
};

/* Rows a block takes in a wide dense product. */
static int dense_rows(const struct dmat *m, int n)
{
    return n <= 64 ? 64 : n < 4096 || card()->major != 9 || m->one_form ? 128 : 256;
}

/* ring_most: rows up to which the ring is the faster. */
template <int NC, enum form F, typename E>
static void product(const struct dmat *m, const struct source &src, const E &epi, int n,
                    int persist, int ring_most, cudaStream_t s)
{
    struct work k = work_of(m, n);
    int per = dense_rows(m, n);
    k.by_rows = m->n_out > n;
    if (n <= THIN_ROWS && !m->one_form)
        thin_go<F, 1, NC>(k, src, epi, 1, persist, s);
    else if (n > 64 && n <= ring_most && card()->major == 9 && !m->one_form)
        ring_dense<F>(k, src, epi, s);
    else
        many<NC, F>(per, (n + per - 1) / per, k, src, epi, s);
}

template <int NC, typename E>
static void dense(const struct dmat *m, const struct source &src, const E &epi, int n, int persist,
                  int ring_most, cudaStream_t s)
{
    (m->scale ? product<NC, FORM_Q8, E> : product<NC, FORM_BF16, E>)(m, src, epi, n, persist,
                                                                     ring_most, s);
}

void k_qkv(const struct dlayer *l, const struct dstep *st, const __nv_bfloat16 *xn, int n_row,
           const struct qkv_out *out, cudaStream_t s)
{
    struct source src = {xn, l->qkv.n_step * STEP, NULL, NULL, NULL, l->qkv.n_in, 0};
    struct epi_qkv epi = {l->b_qkv, l->qkv.gain, *out, *st};
    /* Each result's rotation and place want loads that wait for each other: with many rows two
     * blocks an SM hide them better. */
    dense<CHAINS_QKV>(&l->qkv, src, epi, n_row, 0, 256, s);
}

void k_out(const struct dlayer *l, const __nv_bfloat16 *attn, float *x, int n_row, cudaStream_t s)
{
    struct source src = {attn, l->o.n_step * STEP + ATTN_PAD, NULL, NULL, NULL, l->o.n_in, 0};
    struct epi_out epi = {l->b_o, l->o.gain, x, l->o.n_out};
    dense<CHAINS_OUT>(&l->o, src, epi, n_row, 0, INT_MAX, s);
}

void k_head(const struct dmat *m, const float *norm, float eps, const struct dstep *st,
            const float *x, const __nv_bfloat16 *xn, int n_logit, float *logits, cudaStream_t s)
{
    struct source src = {xn, m->n_step * STEP, xn ? NULL : st->logit_row, x, norm, m->n_in, eps};
    struct epi_head epi = {m->gain, logits, m->n_out};
    dense<CHAINS_HEAD>(m, src, epi, n_logit, 2 * card()->n_sm, INT_MAX, s);
}
