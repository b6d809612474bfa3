/* The experts' products over rows grouped by expert. */
#include "cuda/stream.h"
#include "cuda/thin.h"
#include "cuda/warpgroup.h"

#include <math.h>

struct epi_gate {
    const float *bias;
    float gain, alpha, limit;
    __nv_bfloat16 *ff;
    int d_ff, ld;
    __device__ void operator()(int expert, int tile, int g, int slot, float lo, float hi) const
    {
        int j = tile * 8 + g;
        if (j >= d_ff)
            return;
        const float *b = bias + ((size_t)expert * d_ff + j) * 2;
        float v = swiglu(lo * gain + __ldg(b), hi * gain + __ldg(b + 1), alpha, limit);
        ff[(size_t)slot * ld + j] = __float2bfloat16(v);
    }
};

struct epi_down {
    const float *bias;
    float gain;
    float *y; /* [slots, d] */
    int d;
    __device__ void operator()(int expert, int tile, int g, int slot, float lo, float hi) const
    {
        int o = tile * TILE_ROWS + g;
        const float *b = bias + (size_t)expert * d + o;
        float *p = y + (size_t)slot * d + o;
        if (o < d)
            p[0] = lo * gain + __ldg(b);
        if (o + 8 < d)
            p[8] = hi * gain + __ldg(b + 8);
    }
};

/* Up to so many rows an expert on average, its weights are read as vectors (thin). */
enum { THIN_SLOTS = 12 };

static bool experts_thin(const struct dmat *m, int n_row, int n_active, int n_expert)
{
    return !m->one_form && (n_row <= 16 || n_row * n_active <= THIN_SLOTS * n_expert);
}

static bool experts_stream(const struct dlayer *l, int n_row, int n_active, int n_expert)
{
    int n_step = l->gate.n_step > l->down.n_step ? l->gate.n_step : l->down.n_step;
    return experts_thin(&l->gate, n_row, n_active, n_expert) && l->gate.scale && l->down.scale &&
           card()->major == 9 && stream_rows(n_step) >= STREAM_ROWS;
}

int router_group(const struct dlayer *l, int n_row, int n_active, int n_expert)
{
    int mean = n_row * n_active / n_expert;
    if (l->gate.row_gain)
        return fp8_group(n_row, n_active, n_expert);
    if (experts_stream(l, n_row, n_active, n_expert))
        return STREAM_ROWS;
    if (experts_thin(&l->gate, n_row, n_active, n_expert))
        return mean <= 2 || card()->max_smem < (size_t)120 << 10 ? 8 : 16;
    return mean <= 64 ? 64 : mean < 384 || card()->major != 9 ? 128 : 256;
}

/* Groups of a step at most. */
static int max_groups(int per, int n_row, int n_active, int n_expert)
{
    int slots = n_row * n_active;
    int n = (n_row <= per ? 0 : slots / per) + n_expert;
    return n < slots ? n : slots;
}

/* m: one of the layer's matrices. */
template <int NC, typename E>
static void experts(const struct dlayer *l, const struct dmat *m, const struct droute *r,
                    const struct source &src, const E &epi, int n_row, int n_active, int n_expert,
                    cudaStream_t s)
{
    struct work k = work_of(m, 0);
    k.group = r->group;
    k.n_group = r->n_group;
    if (experts_stream(l, n_row, n_active, n_expert)) {
        stream_go(k, src, epi, m == &l->down, s);
        return;
    }
    int per = router_group(l, n_row, n_active, n_expert);
    int groups = max_groups(per, n_row, n_active, n_expert);
    /* as many blocks as the card holds, so that one staging of activations serves many tiles; so
     * many experts get rows when rows choose at random */
    double used = n_expert * (1 - pow(1 - (double)n_active / n_expert, n_row));
    int persist = (int)((n_row < per ? n_row : per) <= 8 ? 4 * card()->n_sm / used + 1
                                                         : 2 * card()->n_sm / used);
    persist = persist < 1 ? 1 : persist;
    bool thin8 = n_row <= 8 || per == 8;
    if (experts_thin(m, n_row, n_active, n_expert) && m->scale)
        (thin8 ? thin_go<FORM_MX, 1, NC, E> : thin_go<FORM_MX, 2, NC, E>)(k, src, epi, groups,
                                                                          persist, s);
    else if (experts_thin(m, n_row, n_active, n_expert))
        (thin8 ? thin_go<FORM_BF16, 1, NC, E> : thin_go<FORM_BF16, 2, NC, E>)(k, src, epi, groups,
                                                                              persist, s);
    else if (m->scale)
        many<NC, FORM_MX>(per, groups, k, src, epi, s);
    else
        many<NC, FORM_BF16>(per, groups, k, src, epi, s);
}

/* `down` of many rows, which lie in the order of their slots. */
template <enum form F>
static void down_ring(const struct dlayer *l, const struct droute *r, const struct source &src,
                      const struct epi_down &epi, int per, int n_row, int n_active, int n_expert,
                      cudaStream_t s)
{
    struct work k = work_of(&l->down, 0);
    k.group = r->group;
    k.n_group = r->n_group;
    int slots = n_row * n_active, groups = max_groups(per, n_row, n_active, n_expert);
    (per > 128
         ? ring_launch<F, 2, 256, struct epi_down>::go
         : ring_launch<F, 3, 128, struct epi_down>::go)(k, src, epi, slots, n_expert, groups, 1, s);
}

void k_gate(const struct dlayer *l, const struct droute *r, const __nv_bfloat16 *xn, int n_row,
            int n_active, int n_expert, float alpha, float limit, __nv_bfloat16 *ff, cudaStream_t s)
{
    struct source src = {xn, l->gate.n_step * STEP, r->slot_row, NULL, NULL, l->gate.n_in, 0};
    struct epi_gate epi = {l->b_gate,    l->gate.gain,         alpha, limit, ff,
                           l->down.n_in, l->down.n_step * STEP};
    experts<CHAINS_EXPERTS>(l, &l->gate, r, src, epi, n_row, n_active, n_expert, s);
}

void k_down(const struct dlayer *l, const struct droute *r, const __nv_bfloat16 *ff, int n_row,
            int n_active, int n_expert, float *y, cudaStream_t s)
{
    struct source src = {ff, l->down.n_step * STEP, NULL, NULL, NULL, l->down.n_in, 0};
    struct epi_down epi = {l->b_down, l->down.gain, y, l->down.n_out};
    const struct dmat *m = &l->down;
    int per = router_group(l, n_row, n_active, n_expert);
    if (per > 64 && card()->major == 9 && !m->one_form) {
        (m->scale ? down_ring<FORM_MX> : down_ring<FORM_BF16>)(l, r, src, epi, per, n_row, n_active,
                                                               n_expert, s);
        return;
    }
    experts<CHAINS_EXPERTS>(l, m, r, src, epi, n_row, n_active, n_expert, s);
}
