/* The CPU backend's key/value pages, and attention over them.
 *
 * Page layout: [layer of the pool][key head][keys [d_head, page_tok], values [page_tok, d_head]]:
 * keys transposed, so that a vector holds the same dimension of neighbouring keys. A page of a head
 * lies together and is read once for all query heads of the key head.
 *
 * Slots that a row must not see are never read as numbers: they may hold anything.
 */
#include "cpu/forward_cpu.h"

#include "base/mem.h"
#include "base/num.h"

#include <limits.h>
#include <math.h>

enum { ATTN_ROWS = 16 }; /* rows that walk over a sequence's pages together */

/* ---- pages ------------------------------------------------------------------------------- */

static size_t page_bytes(const struct cpu *c, int n_layer, int page_tok)
{
    const struct spec *s = &c->w->spec;
    size_t element = c->arith == ARITH_F32 ? sizeof(float) : sizeof(uint16_t);
    return (size_t)n_layer * (size_t)s->n_kv_head * (size_t)s->d_head * 2 * element *
           (size_t)page_tok;
}

void cpu_kv_page_bytes(const struct backend *base, int page_tok, size_t *full, size_t *window)
{
    const struct cpu *c = (const struct cpu *)base;
    *full = page_bytes(c, c->full.n_layer, page_tok);
    *window = page_bytes(c, c->window.n_layer, page_tok);
}

void cpu_kv_copy(struct backend *base, const struct page_pair *pair, int n)
{
    struct cpu *c = (struct cpu *)base;
    for (int i = 0; i < n; i++) {
        const struct kv_pool *kv = pair[i].window ? &c->window : &c->full;
        memcpy(kv->p + (size_t)pair[i].to * kv->page_bytes,
               kv->p + (size_t)pair[i].from * kv->page_bytes, kv->page_bytes);
    }
}

/* Here a place in the host's memory is one more page. */
void cpu_kv_swap(struct backend *base, const struct page_pair *pair, int n, bool out)
{
    struct cpu *c = (struct cpu *)base;
    for (int i = 0; i < n; i++) {
        struct page_pair p = pair[i];
        *(out ? &p.to : &p.from) += p.window ? c->window.n_page : c->full.n_page;
        cpu_kv_copy(base, &p, 1);
    }
}

static status pool_init(struct kv_pool *kv, size_t bytes, int n_page, int n_host, const char *what,
                        struct err *e)
{
    size_t total;
    if (n_page < 0 || n_host < 0 || !mul_ok(bytes, (size_t)n_page + (size_t)n_host, &total))
        return err_set(e, E_LIMIT, "%d pages for %s are too many", n_page, what);
    kv->page_bytes = bytes;
    kv->n_page = n_page;
    kv->p = mem_aligned(64, total);
    if (!kv->p)
        return err_set(e, E_NOMEM, "out of memory for the cache of %s: %.1f MiB", what,
                       (double)total / (1 << 20));
    return OK;
}

status cpu_kv_alloc(struct cpu *c, struct err *e)
{
    const struct kv_plan *p = &c->plan;
    status st = OK;
    TRY(pool_init(&c->full, page_bytes(c, c->full.n_layer, p->page_tok), p->n_full, p->n_host_full,
                  "full layers", e));
    TRY(pool_init(&c->window, page_bytes(c, c->window.n_layer, p->page_tok), p->n_window,
                  p->n_host_window, "sliding layers", e));
out:
    return st;
}

void cpu_kv_free(struct cpu *c)
{
    mem_free(c->full.p);
    mem_free(c->window.p);
    c->full.p = c->window.p = NULL;
}

/* The keys of one head in one page; its values follow. */
static uint8_t *page_head(const struct cpu *c, const struct kv_pool *kv, int page, int layer,
                          int head)
{
    const struct spec *s = &c->w->spec;
    size_t one = kv->page_bytes / ((size_t)kv->n_layer * (size_t)s->n_kv_head);
    return kv->p + (size_t)page * kv->page_bytes +
           ((size_t)c->pool_layer[layer] * (size_t)s->n_kv_head + (size_t)head) * one;
}

void cpu_kv_put(struct cpu *c, int layer, int head, const float *v, bool is_key)
{
    const struct spec *s = &c->w->spec;
    bool sliding = s->sliding[layer];
    const struct kv_pool *kv = sliding ? &c->window : &c->full;
    size_t n_tok = (size_t)c->plan.page_tok, d = (size_t)s->d_head;
    for (int r = 0; r < c->b->n_row; r++, v += d) {
        const struct batch_seq *q = c->row_seq[r];
        size_t pos = (size_t)c->row_pos[r], slot = pos % n_tok;
        int page = (sliding ? q->window : q->full)[pos / n_tok];
        uint8_t *p = page_head(c, kv, page, layer, head);
        if (c->arith == ARITH_F32) {
            float *f = (float *)(void *)p;
            if (!is_key)
                memcpy(f + n_tok * d + slot * d, v, d * sizeof *v);
            else
                for (size_t i = 0; i < d; i++)
                    f[i * n_tok + slot] = v[i];
        } else {
            uint16_t *h = (uint16_t *)(void *)p;
            if (!is_key)
                c->k.to_bf16(v, s->d_head, h + n_tok * d + slot * d);
            else
                for (size_t i = 0; i < d; i++)
                    h[i * n_tok + slot] = f32_bf16(v[i]);
        }
    }
}

/* ---- attention --------------------------------------------------------------------------- */

void cpu_attn_carve(struct carve *k, const struct cpu *c, struct scratch *s)
{
    const struct spec *p = &c->w->spec;
    size_t n_q = (size_t)(p->n_head / p->n_kv_head), d = (size_t)p->d_head;
    s->attn_m = cpu_carve(k, ATTN_ROWS * n_q, sizeof(float));
    s->attn_l = cpu_carve(k, ATTN_ROWS * n_q, sizeof(float));
    s->attn_acc = cpu_carve(k, ATTN_ROWS * n_q * d, sizeof(float));
}

/* Rows [r0, r0 + n) of one sequence, the query heads of one key head: the rows walk over the pages
 * together, so a page is in L1 when the second row needs it. */
static void attend(struct cpu *c, int t, int layer, int head, const struct batch_seq *q, int r0,
                   int n)
{
    const struct spec *s = &c->w->spec;
    struct scratch *sc = &c->scratch[t];
    bool sliding = s->sliding[layer];
    const struct kv_pool *kv = sliding ? &c->window : &c->full;
    const int32_t *table = sliding ? q->window : q->full;
    int n_q = s->n_head / s->n_kv_head, n_tok = c->plan.page_tok, d = s->d_head;
    size_t q_at = (size_t)(head * n_q) * (size_t)d, ld = (size_t)s->n_head * (size_t)d;
    size_t state = (size_t)n_q * (size_t)d;
    size_t values = (size_t)n_tok * (size_t)d * (c->arith == ARITH_F32 ? 4 : 2);
    for (int i = 0; i < n; i++) {
        for (int h = 0; h < n_q; h++) {
            sc->attn_m[i * n_q + h] = c->w->layer[layer].sinks[head * n_q + h];
            sc->attn_l[i * n_q + h] = 1.0f;
        }
    }
    memset(sc->attn_acc, 0, (size_t)n * state * sizeof(float));
    int pos0 = c->row_pos[r0], window = sliding ? s->window : INT_MAX;
    int first = max_int(0, pos0 - (window - 1)) / n_tok;
    for (int page = first; page <= (pos0 + n - 1) / n_tok; page++) {
        const uint8_t *k = page_head(c, kv, table[page], layer, head);
        for (int i = 0; i < n; i++) {
            int lo = max_int(0, pos0 + i - (window - 1)) - page * n_tok;
            int hi = pos0 + i + 1 - page * n_tok;
            struct attn a = {.q = c->q + (size_t)(r0 + i) * ld + q_at,
                             .k = k,
                             .v = k + values,
                             .n_q = n_q,
                             .d_head = d,
                             .page_tok = n_tok,
                             .lo = max_int(lo, 0),
                             .hi = min_int(hi, n_tok),
                             .m = sc->attn_m + i * n_q,
                             .l = sc->attn_l + i * n_q,
                             .acc = sc->attn_acc + (size_t)i * state};
            if (a.lo >= a.hi)
                continue;
            if (c->arith == ARITH_F32)
                c->k.attn_f32(&a);
            else
                c->k.attn_bf16(&a);
        }
    }
    for (int i = 0; i < n; i++) {
        float *acc = sc->attn_acc + (size_t)i * state;
        for (int h = 0; h < n_q; h++)
            for (int j = 0; j < d; j++)
                acc[h * d + j] /= sc->attn_l[i * n_q + h];
        cpu_acts_put(c, &c->attn, (size_t)(r0 + i), q_at, acc, (int)state);
    }
}

void cpu_attention(struct cpu *c, int t, int layer)
{
    const struct spec *s = &c->w->spec;
    int unit = 0, n_t = pool_size(c->pool);
    for (int i = 0; i < c->b->n_seq; i++) {
        const struct batch_seq *q = &c->b->seq[i];
        for (int r = 0; r < q->n_row; r += ATTN_ROWS)
            for (int head = 0; head < s->n_kv_head; head++)
                if (unit++ % n_t == t)
                    attend(c, t, layer, head, q, q->row0 + r, min_int(ATTN_ROWS, q->n_row - r));
    }
}
