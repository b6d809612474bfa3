/* The CPU backend's key/value pages, and attention over them.
 *
 * Page layout: [layer of the pool][key head][keys [d_head, page_tok], values [page_tok, d_head]]:
 * keys transposed, so that a vector holds the same dimension of neighbouring keys. A page of a head
 * lies together and is read once for all query heads of the key head. With signed bytes (KV_Q8)
 * the slots' scales follow, those of the keys [page_tok], then those of the values: a slot's vector
 * is its bytes times max|v| / 127.
 *
 * A row's keys of a full layer are taken in spans of ATTN_SPAN positions, each a chain of softmax
 * steps of its own, and the spans are joined in ascending order. Where cuts lie depends on
 * positions alone; so it changes no bit whether one worker takes all spans of a unit (rows and a
 * key head) or several workers take them, which happens when there are too few units for all
 * workers.
 *
 * Slots that a row must not see are never read as numbers: they may hold anything.
 */
#include "cpu/forward_cpu.h"

#include "base/mem.h"
#include "base/num.h"
#include "base/numa.h"

#include <limits.h>
#include <math.h>
#include <sys/mman.h>

enum {
    ATTN_ROWS = 16,   /* rows that walk over a sequence's pages together */
    ATTN_SPAN = 1024, /* positions of a full layer whose softmax is one chain */
    FEW_UNITS = 4,    /* a worker's; where there are fewer, an uneven share matters */
    PART_FLOATS = 1 << 20
};

/* ---- pages ------------------------------------------------------------------------------- */

static size_t element_bytes(const struct cpu *c)
{
    return c->kv == KV_F32 ? sizeof(float) : c->kv == KV_Q8 ? sizeof(int8_t) : sizeof(uint16_t);
}

static size_t page_bytes(const struct cpu *c, int n_layer, int page_tok)
{
    const struct spec *s = &c->w->spec;
    size_t slot = (size_t)s->d_head * element_bytes(c) + (c->kv == KV_Q8 ? sizeof(float) : 0);
    return (size_t)n_layer * (size_t)s->n_kv_head * 2 * slot * (size_t)page_tok;
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
    kv->p = mem_aligned(total < HUGE_PAGE ? 64 : HUGE_PAGE, total);
    if (!kv->p)
        return err_set(e, E_NOMEM, "out of memory for the cache of %s: %.1f MiB", what,
                       (double)total / (1 << 20));
    if (total >= HUGE_PAGE) {
        (void)madvise(kv->p, total, MADV_HUGEPAGE); /* fewer page walks; without it slower only */
        (void)numa_spread(kv->p, total);            /* any worker may read any page */
    }
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

/* One vector to signed bytes at this slot of a head's page. NaN and Inf become a scale of NaN. */
static void put_q8(uint8_t *page, size_t d, size_t n_tok, size_t slot, const float *v, bool is_key)
{
    int8_t *q = (int8_t *)page + (is_key ? slot : n_tok * d + slot * d);
    float *scale = (float *)(void *)(page + 2 * n_tok * d) + (is_key ? 0 : n_tok) + slot;
    float most = 0, sum = 0;
    for (size_t i = 0; i < d; i++) {
        most = fabsf(v[i]) > most ? fabsf(v[i]) : most;
        sum += v[i] - v[i]; /* 0 of any number but those two */
    }
    float inverse = most > 0 && sum == 0 ? 127.0f / most : 0;
    *scale = sum == 0 ? most / 127.0f : NAN;
    for (size_t i = 0; i < d; i++)
        q[is_key ? i * n_tok : i] = inverse > 0 ? (int8_t)lrintf(v[i] * inverse) : 0;
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
        if (c->kv == KV_Q8) {
            put_q8(p, d, n_tok, slot, v, is_key);
        } else if (c->kv == KV_F32) {
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

static struct attn_state state_at(float *p, size_t n, size_t n_q)
{
    return (struct attn_state){.m = p, .l = p + n * n_q, .acc = p + 2 * n * n_q};
}

/* Floats of the state of n rows, the query heads of a key head. */
static size_t state_floats(const struct cpu *c, int n)
{
    const struct spec *s = &c->w->spec;
    return (size_t)n * (size_t)(s->n_head / s->n_kv_head) * (size_t)(s->d_head + 2);
}

void cpu_attn_carve(struct carve *k, const struct cpu *c, struct scratch *s)
{
    size_t n = state_floats(c, ATTN_ROWS), n_q = (size_t)(c->w->spec.n_head / c->w->spec.n_kv_head);
    float *p = cpu_carve(k, 2 * n, sizeof(float));
    if (!p)
        return; /* only sizes are wanted */
    s->attn = state_at(p, ATTN_ROWS, n_q);
    s->attn_span = state_at(p + n, ATTN_ROWS, n_q);
}

void cpu_attn_carve_shared(struct carve *k, struct cpu *c)
{
    c->part = cpu_carve(k, PART_FLOATS, sizeof(float));
}

/* Some rows of one sequence and one key head; its query heads attend together. */
struct unit {
    const struct batch_seq *q;
    int layer, head, r0, n, pos0;
    int window; /* positions that a row sees */
    int first, n_span;
};

static int span_pages(const struct cpu *c)
{
    return max_int(1, ATTN_SPAN / c->plan.page_tok);
}

static struct unit unit_of(const struct cpu *c, int layer, int head, const struct batch_seq *q,
                           int r)
{
    const struct spec *s = &c->w->spec;
    struct unit u = {.q = q,
                     .layer = layer,
                     .head = head,
                     .r0 = q->row0 + r,
                     .n = min_int(ATTN_ROWS, q->n_row - r),
                     .pos0 = q->pos0 + r,
                     .window = s->sliding[layer] ? s->window : INT_MAX,
                     .n_span = 1};
    int n_tok = c->plan.page_tok, last = (u.pos0 + u.n - 1) / n_tok;
    u.first = max_int(0, u.pos0 - (u.window - 1)) / n_tok;
    if (!s->sliding[layer])
        u.n_span = last / span_pages(c) + 1;
    return u;
}

/* The keys of span i of a unit; the first one counts the sink too. */
static void attend_span(const struct cpu *c, const struct unit *u, int i,
                        const struct attn_state *to)
{
    const struct spec *s = &c->w->spec;
    bool sliding = s->sliding[u->layer];
    const struct kv_pool *kv = sliding ? &c->window : &c->full;
    const int32_t *table = sliding ? u->q->window : u->q->full;
    int n_q = s->n_head / s->n_kv_head, n_tok = c->plan.page_tok, d = s->d_head;
    size_t q_at = (size_t)(u->head * n_q) * (size_t)d, ld = (size_t)s->n_head * (size_t)d;
    size_t acc = (size_t)n_q * (size_t)d;
    size_t values = (size_t)n_tok * (size_t)d * element_bytes(c);
    for (int h = 0; h < u->n * n_q; h++) {
        to->m[h] = i == 0 ? c->w->layer[u->layer].sinks[u->head * n_q + h % n_q] : -INFINITY;
        to->l[h] = i == 0 ? 1.0f : 0.0f;
    }
    memset(to->acc, 0, (size_t)u->n * acc * sizeof(float));
    int page = u->first, last = (u->pos0 + u->n - 1) / n_tok, end = last + 1;
    if (u->n_span > 1) {
        page = i * span_pages(c);
        end = min_int(end, page + span_pages(c));
    }
    for (; page < end; page++) {
        const uint8_t *k = page_head(c, kv, table[page], u->layer, u->head);
        const uint8_t *next =
            page < last ? page_head(c, kv, table[page + 1], u->layer, u->head) : NULL;
        for (int r = 0; r < u->n; r++) {
            int lo = max_int(0, u->pos0 + r - (u->window - 1)) - page * n_tok;
            int hi = u->pos0 + r + 1 - page * n_tok;
            struct attn a = {.q = c->q + (size_t)(u->r0 + r) * ld + q_at,
                             .k = k,
                             .v = k + values,
                             .next = next,
                             .n_q = n_q,
                             .d_head = d,
                             .page_tok = n_tok,
                             .lo = max_int(lo, 0),
                             .hi = min_int(hi, n_tok),
                             .m = to->m + r * n_q,
                             .l = to->l + r * n_q,
                             .acc = to->acc + (size_t)r * acc};
            if (a.lo >= a.hi)
                continue;
            next = NULL;
            if (c->kv == KV_Q8) {
                a.k_scale = (const float *)(const void *)(k + 2 * values);
                a.v_scale = a.k_scale + n_tok;
                c->k.attn_q8(&a);
            } else if (c->kv == KV_F32) {
                c->k.attn_f32(&a);
            } else {
                c->k.attn_bf16(&a);
            }
        }
    }
}

/* Adds a later span to what `to` has. Rows that saw no key there stay as they are. */
static void join(const struct cpu *c, const struct unit *u, const struct attn_state *to,
                 const struct attn_state *span)
{
    const struct spec *s = &c->w->spec;
    int n_q = s->n_head / s->n_kv_head, d = s->d_head;
    for (int h = 0; h < u->n * n_q; h++) {
        if (span->l[h] == 0)
            continue;
        float m = to->m[h] >= span->m[h] ? to->m[h] : span->m[h];
        float keep = expf(to->m[h] - m), more = expf(span->m[h] - m);
        float *acc = to->acc + (size_t)h * (size_t)d;
        const float *from = span->acc + (size_t)h * (size_t)d;
        to->m[h] = m;
        to->l[h] = to->l[h] * keep + span->l[h] * more;
        for (int j = 0; j < d; j++)
            acc[j] = acc[j] * keep + from[j] * more;
    }
}

static void finish(const struct cpu *c, const struct unit *u, const struct attn_state *of)
{
    const struct spec *s = &c->w->spec;
    int n_q = s->n_head / s->n_kv_head, d = s->d_head;
    for (int h = 0; h < u->n * n_q; h++)
        for (int j = 0; j < d; j++)
            of->acc[h * d + j] /= of->l[h];
    for (int r = 0; r < u->n; r++)
        cpu_acts_put(c, &c->attn, (size_t)(u->r0 + r), (size_t)(u->head * n_q) * (size_t)d,
                     of->acc + (size_t)r * (size_t)(n_q * d), n_q * d);
}

/* The whole of a unit, by one worker. */
static void attend(const struct cpu *c, struct scratch *sc, const struct unit *u)
{
    attend_span(c, u, 0, &sc->attn);
    for (int i = 1; i < u->n_span; i++) {
        attend_span(c, u, i, &sc->attn_span);
        join(c, u, &sc->attn, &sc->attn_span);
    }
    finish(c, u, &sc->attn);
}

/* The unit after *u (the first where u->q is NULL), in the order of the rows; false: there is none.
 */
static bool next_unit(const struct cpu *c, int layer, struct unit *u)
{
    const struct batch_seq *q = u->q ? u->q : c->b->seq, *end = c->b->seq + c->b->n_seq;
    int head = u->q ? u->head + 1 : 0, r = u->q ? u->r0 - q->row0 : 0;
    if (head == c->w->spec.n_kv_head) {
        head = 0;
        r += ATTN_ROWS;
    }
    while (q < end && r >= q->n_row) {
        q++;
        r = 0;
    }
    if (q == end)
        return false;
    *u = unit_of(c, layer, head, q, r);
    return true;
}

/* Are there too few units to keep all workers busy, and spans to deal out instead? What is added
 * to what in which order is the same either way. */
static bool deal_spans(const struct cpu *c, int layer)
{
    int n_unit = 0, n_span = 0, n_t = pool_size(c->pool);
    size_t n_float = 0;
    for (struct unit u = {0}; next_unit(c, layer, &u) && n_unit < FEW_UNITS * n_t;) {
        n_unit++;
        n_span = max_int(n_span, u.n_span);
        n_float += (size_t)u.n_span * state_floats(c, u.n);
    }
    return n_unit % n_t != 0 && n_unit < FEW_UNITS * n_t && n_span > 1 && n_float <= PART_FLOATS;
}

void cpu_attention(struct cpu *c, int t, int layer)
{
    int n_t = pool_size(c->pool), item = 0;
    if (!deal_spans(c, layer)) {
        for (struct unit u = {0}; next_unit(c, layer, &u);)
            if (item++ % n_t == t)
                attend(c, &c->scratch[t], &u);
        return;
    }
    float *part = c->part;
    size_t n_q = (size_t)(c->w->spec.n_head / c->w->spec.n_kv_head);
    for (struct unit u = {0}; next_unit(c, layer, &u);)
        for (int i = 0; i < u.n_span; i++, part += state_floats(c, u.n)) {
            struct attn_state to = state_at(part, (size_t)u.n, n_q);
            if (item++ % n_t == t)
                attend_span(c, &u, i, &to);
        }
    pool_sync(c->pool);
    part = c->part;
    item = 0;
    for (struct unit u = {0}; next_unit(c, layer, &u);) {
        bool mine = item++ % n_t == t;
        struct attn_state to = state_at(part, (size_t)u.n, n_q);
        for (int i = 0; i < u.n_span; i++, part += state_floats(c, u.n)) {
            struct attn_state span = state_at(part, (size_t)u.n, n_q);
            if (mine && i > 0)
                join(c, &u, &to, &span);
        }
        if (mine)
            finish(c, &u, &to);
    }
}
