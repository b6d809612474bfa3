/* The CPU backend: the forward pass of ref/forward_ref.c on the kernels of kern.h.
 *
 * Owns the scratch memory and the worker threads, and with attn_cpu.c the key/value pages; borrows
 * the weights. One step is one pool_run: every worker walks through all layers (run_step below is
 * the model), and barriers stand where a phase reads what other workers wrote:
 *
 *     norm, q k v, rope, cache | attention | o, residual | norm, router | gate up, swiglu |
 *     down, combine, residual
 *
 * Work is split statically, by heads, rows or outputs. Every element is computed by one worker
 * with the order of additions that kern.h promises, so the number of workers, the other rows of the
 * batch and the cuts between steps change nothing, not a bit. With few rows each worker norms
 * and routes all of them for itself: that costs less than a barrier.
 *
 * Arithmetic. The residual, norms, router, softmax, rotation and combination are float32. Inputs of
 * the other matrix products are float32, rounded to bf16 (for MXFP4 perhaps as whole numbers of 16
 * bits) or blocks of signed bytes (`struct acts`);
 * keys and values are stored as float32, bf16 or signed bytes (enum kv_type). Sums are float32.
 * ARITH_Q8 keeps copies of the dense matrices as such blocks, made at open; matrices of experts
 * that are not MXFP4 are then used as with ARITH_BF16. The mapped pages of what was copied are
 * given back.
 *
 * kv_init allocates everything; step allocates nothing. Called by the engine (or a test), by one
 * thread at a time. Does not check what backend.h makes the engine promise beyond memory safety.
 */
#include "cpu/forward_cpu.h"

#include "base/mem.h"
#include "base/num.h"
#include "base/sysmem.h"
#include "model/rope.h"

#include <limits.h>
#include <math.h>
#include <sys/mman.h>

enum {
    SMALL_ROWS = 4, /* up to so many rows each worker norms all of them for itself */
    SMALL_ROUTER =
        1 << 14,          /* router weights (and as many floats) that are cheaper than a barrier */
    OUT_UNIT = 16,        /* outputs are shared out in multiples of this */
    PAIR_CHUNK = 64,      /* gate/up pairs computed before their SwiGLU: they stay in L1 */
    DOWN_FLOATS = 1 << 17 /* a worker's buffer for the experts' outputs: half a megabyte */
};

/* ---- products ---------------------------------------------------------------------------- */

/* Is this kind of matrix fed with bf16 rows (else with floats, rounded or not, or with blocks)? */
static bool wants_h(const struct cpu *c, bool mx, enum dtype t)
{
    return c->arith != ARITH_F32 && c->k.bf16_dot && (mx || t == DT_BF16);
}

void cpu_acts_put(const struct cpu *c, const struct acts *a, size_t row, size_t col, const float *v,
                  int n)
{
    size_t at = row * a->ld + col;
    if (a->q.q)
        (c->wide ? c->k.to_q16 : c->k.to_q8)(v, n, a->q.q + at * a->q_size, a->q.d + at / Q8_IN,
                                             a->q.sum + at / Q8_IN);
    if (a->h)
        c->k.to_bf16(v, n, a->h + at);
    if (a->f && c->arith != ARITH_F32)
        c->k.round_bf16(v, n, a->f + at);
    else if (a->f)
        memcpy(a->f + at, v, (size_t)n * sizeof *v);
}

static struct acts acts_at(const struct acts *a, size_t row)
{
    struct acts at = *a;
    size_t n = row * a->ld;
    at.f = a->f ? a->f + n : NULL;
    at.h = a->h ? a->h + n : NULL;
    if (a->q.q)
        at.q = (struct q8_rows){a->q.q + n * a->q_size, a->q.d + n / Q8_IN, a->q.sum + n / Q8_IN,
                                a->q.ld};
    return at;
}

/* Where a product's rows come from and go to; the callers fill these, the two functions below
 * add the weights. Outputs [o0, o1) go to y[i * ld_y + (o - o0)]. */
struct io {
    const struct acts *x;
    const int32_t *row; /* NULL: 0 .. n_row-1 */
    int n_row;
    const float *bias; /* of output 0 */
    float *y;
    size_t ld_y;
    bool add;
    void *tmp;
};

static struct mul mul_of(const struct io *io, bool h, int n_in, int o0, int o1)
{
    return (struct mul){.n_out = o1 - o0,
                        .n_in = n_in,
                        .x = h ? (const void *)io->x->h : io->x->f,
                        .ld_x = io->x->ld,
                        .row = io->row,
                        .n_row = io->n_row,
                        .bias = io->bias ? io->bias + o0 : NULL,
                        .y = io->y,
                        .ld_y = io->ld_y,
                        .add = io->add,
                        .tmp = io->tmp};
}

static struct mul_q8 mul_q8_of(const struct io *io, int n_in, int o0, int o1)
{
    return (struct mul_q8){.n_out = o1 - o0,
                           .n_in = n_in,
                           .x = io->x->q,
                           .row = io->row,
                           .n_row = io->n_row,
                           .bias = io->bias ? io->bias + o0 : NULL,
                           .y = io->y,
                           .ld_y = io->ld_y,
                           .add = io->add,
                           .tmp = io->tmp};
}

static void mul_mat(const struct cpu *c, const struct dense *d, int o0, int o1, const struct io *io)
{
    const struct mat *w = d->m;
    if (d->q8) {
        struct mul_q8 q = mul_q8_of(io, w->n_in, o0, o1);
        q.w = d->q8 + (size_t)(o0 / Q8_OUT) * (size_t)(w->n_in / Q8_IN);
        c->k.mul_q8(&q);
        return;
    }
    bool h = wants_h(c, false, w->dtype);
    struct mul m = mul_of(io, h, w->n_in, o0, o1);
    m.w = (const uint8_t *)w->p + (size_t)o0 * (size_t)w->n_in * dtype_size(w->dtype);
    if (h)
        c->k.mul_bf16(&m);
    else
        c->k.mul_f32[w->dtype](&m);
}

static void mul_expert(const struct cpu *c, const struct expert_mat *w, int e, int o0, int o1,
                       const struct io *io)
{
    bool mx = w->layout == EXPERT_MXFP4;
    bool h = wants_h(c, mx, w->dtype) && w->layout != EXPERT_IN_MAJOR;
    struct mul m = mul_of(io, h, w->n_in, o0, o1);
    size_t n_block = (size_t)w->n_in / 32;
    if (mx && c->need_q & USE_EXPERT) {
        struct mul_q8 q = mul_q8_of(io, w->n_in, o0, o1);
        q.w = w->blocks[e] + (size_t)o0 * n_block * 16;
        q.scale = w->scales[e] + (size_t)o0 * n_block;
        (c->wide ? c->k.mul_mx_q16 : c->k.mul_mx_q8)(&q);
        return;
    }
    switch (w->layout) {
    case EXPERT_MXFP4:
        m.w = w->blocks[e] + (size_t)o0 * n_block * 16;
        m.scale = w->scales[e] + (size_t)o0 * n_block;
        if (h)
            c->k.mul_mx_bf16(&m);
        else
            c->k.mul_mx_f32(&m);
        break;
    case EXPERT_OUT_MAJOR:
        m.w = w->blocks[e] + (size_t)o0 * (size_t)w->n_in * dtype_size(w->dtype);
        if (h)
            c->k.mul_bf16(&m);
        else
            c->k.mul_f32[w->dtype](&m);
        break;
    case EXPERT_IN_MAJOR:
        m.w = w->blocks[e] + (size_t)o0 * dtype_size(w->dtype);
        m.ld_w = (size_t)w->n_out;
        c->k.mul_in[w->dtype](&m);
        break;
    }
}

/* ---- the phases of a layer --------------------------------------------------------------- */

/* Norms rows of x. Few rows: all of them into the worker's own memory. Many: each worker its part,
 * into the common memory, and a barrier. rows[n] selects (NULL: all); *f and *a receive the result.
 */
static void norm_rows(struct cpu *c, int t, const float *w, const int32_t *rows, int n,
                      const float **f, const struct acts **a)
{
    const struct spec *s = &c->w->spec;
    bool own = n <= SMALL_ROWS;
    float *out = own ? c->scratch[t].norm_f : c->norm_f;
    *a = own ? &c->scratch[t].norm : &c->norm;
    *f = out;
    int lo = 0, hi = n;
    if (!own)
        pool_split(n, 1, t, pool_size(c->pool), &lo, &hi);
    for (int i = lo; i < hi; i++) {
        size_t r = (size_t)(rows ? rows[i] : i), d = (size_t)s->d_model;
        c->k.rmsnorm(c->x + r * d, w, s->d_model, s->norm_eps, out + (size_t)i * d);
        cpu_acts_put(c, *a, (size_t)i, 0, out + (size_t)i * d, s->d_model);
    }
    if (!own)
        pool_sync(c->pool);
}

/* Queries, keys and values of all rows; a worker takes whole heads. */
static void phase_qkv(struct cpu *c, int t, int layer)
{
    const struct spec *s = &c->w->spec;
    const struct layer *l = &c->w->layer[layer];
    int n_row = c->b->n_row, d = s->d_head, half = d / 2, lo, hi;
    const float *f;
    const struct acts *x;
    norm_rows(c, t, l->attn_norm, NULL, n_row, &f, &x);
    pool_split(s->n_head + 2 * s->n_kv_head, 1, t, pool_size(c->pool), &lo, &hi);
    for (int i = lo; i < hi; i++) {
        int kind = i < s->n_head ? 0 : i < s->n_head + s->n_kv_head ? 1 : 2;
        int head = kind == 0 ? i : (i - s->n_head) % s->n_kv_head;
        const float *bias = kind == 0 ? l->bq : kind == 1 ? l->bk : l->bv;
        float *y = kind == 0 ? c->q + head * d : c->scratch[t].head;
        size_t ld = kind == 0 ? (size_t)s->n_head * (size_t)d : (size_t)d;
        mul_mat(c, &c->dense[layer][kind], head * d, (head + 1) * d,
                &(struct io){.x = x,
                             .n_row = n_row,
                             .bias = bias,
                             .y = y,
                             .ld_y = ld,
                             .tmp = c->scratch[t].tmp});
        float scale = kind == 0 ? 1.0f / sqrtf((float)d) : 1.0f;
        for (int r = 0; r < n_row && kind != 2; r++)
            c->k.rope(y + (size_t)r * ld, c->cos + r * half, c->sin + r * half, half, scale);
        if (kind != 0)
            cpu_kv_put(c, layer, head, y, kind == 1);
    }
}

static void phase_out(struct cpu *c, int t, int layer)
{
    const struct layer *l = &c->w->layer[layer];
    int lo, hi;
    pool_split(l->o.n_out, OUT_UNIT, t, pool_size(c->pool), &lo, &hi);
    if (lo < hi)
        mul_mat(c, &c->dense[layer][3], lo, hi,
                &(struct io){.x = &c->attn,
                             .n_row = c->b->n_row,
                             .bias = l->bo,
                             .y = c->x + lo,
                             .ld_y = (size_t)l->o.n_out,
                             .add = true,
                             .tmp = c->scratch[t].tmp});
}

/* Chooses the experts of every row and numbers the slots; each worker for itself. */
static void route(struct cpu *c, int t, const float *v)
{
    const struct spec *s = &c->w->spec;
    struct scratch *sc = &c->scratch[t];
    int n_row = c->b->n_row, k = s->n_active, n_slot = n_row * k;
    for (int r = 0; r < n_row; r++)
        c->k.topk(v + (size_t)r * (size_t)s->n_expert, s->n_expert, k, sc->expert + r * k,
                  sc->weight + r * k);
    memset(sc->first, 0, ((size_t)s->n_expert + 1) * sizeof *sc->first);
    for (int i = 0; i < n_slot; i++)
        sc->first[sc->expert[i] + 1]++;
    for (int e = 0; e < s->n_expert; e++)
        sc->first[e + 1] += sc->first[e];
    /* Counting sort: first[e] runs through its group and ends at the next group's start... */
    for (int i = 0; i < n_slot; i++) {
        sc->slot[i] = sc->first[sc->expert[i]]++;
        sc->slot_row[sc->slot[i]] = i / k;
    }
    /* ... so shifting by one expert restores the starts. */
    for (int e = s->n_expert; e > 0; e--)
        sc->first[e] = sc->first[e - 1];
    sc->first[0] = 0;
}

/* Norm and router; *x receives the normed rows. */
static void phase_router(struct cpu *c, int t, int layer, const struct acts **x)
{
    const struct spec *s = &c->w->spec;
    const struct layer *l = &c->w->layer[layer];
    const float *f;
    int n_row = c->b->n_row, lo = 0, hi = s->n_expert;
    norm_rows(c, t, l->mlp_norm, NULL, n_row, &f, x);
    bool own = n_row <= SMALL_ROWS && (int64_t)s->n_expert * s->d_model <= SMALL_ROUTER;
    float *v = own ? c->scratch[t].router_v : c->router_v;
    if (!own)
        pool_split(s->n_expert, 1, t, pool_size(c->pool), &lo, &hi);
    struct mul m = {.w = l->router + (size_t)lo * (size_t)s->d_model,
                    .n_out = hi - lo,
                    .n_in = s->d_model,
                    .x = f,
                    .ld_x = (size_t)s->d_model,
                    .n_row = n_row,
                    .bias = l->b_router + lo,
                    .y = v + lo,
                    .ld_y = (size_t)s->n_expert,
                    .tmp = c->scratch[t].tmp};
    if (lo < hi)
        c->k.mul_f32[DT_F32](&m);
    if (!own)
        pool_sync(c->pool);
    route(c, t, v);
}

static void phase_gate_up(struct cpu *c, int t, int layer, const struct acts *x)
{
    const struct spec *s = &c->w->spec;
    const struct layer *l = &c->w->layer[layer];
    struct scratch *sc = &c->scratch[t];
    int lo, hi;
    int unit = c->need_q & USE_EXPERT ? Q8_IN : OUT_UNIT / 2;
    pool_split(s->d_ff, unit, t, pool_size(c->pool), &lo, &hi);
    for (int e = 0; e < s->n_expert; e++) {
        int slot0 = sc->first[e], n = sc->first[e + 1] - slot0;
        for (int j = lo; j < hi && n > 0; j += PAIR_CHUNK) {
            int n_pair = min_int(PAIR_CHUNK, hi - j);
            mul_expert(c, &l->gate_up, e, 2 * j, 2 * (j + n_pair),
                       &(struct io){.x = x,
                                    .row = sc->slot_row + slot0,
                                    .n_row = n,
                                    .bias = l->b_gate_up + (size_t)e * 2 * (size_t)s->d_ff,
                                    .y = sc->pair,
                                    .ld_y = 2 * PAIR_CHUNK,
                                    .tmp = sc->tmp});
            for (int i = 0; i < n; i++) {
                c->k.swiglu(sc->pair + (size_t)i * 2 * PAIR_CHUNK, n_pair, s->swiglu_alpha,
                            s->swiglu_limit, sc->swiglu);
                cpu_acts_put(c, &c->ff, (size_t)(slot0 + i), (size_t)j, sc->swiglu, n_pair);
            }
        }
    }
}

/* A worker's outputs of all experts, then their weighted sum into the residual, in the order in
 * which the row ranked its experts. */
static void phase_down(struct cpu *c, int t, int layer)
{
    const struct spec *s = &c->w->spec;
    const struct layer *l = &c->w->layer[layer];
    struct scratch *sc = &c->scratch[t];
    int n_row = c->b->n_row, k = s->n_active, lo, hi;
    pool_split(s->d_model, OUT_UNIT, t, pool_size(c->pool), &lo, &hi);
    int chunk = (int)(c->n_down / (size_t)(n_row * k)) / OUT_UNIT * OUT_UNIT;
    for (int o = lo; o < hi; o += chunk) {
        int n = min_int(chunk, hi - o);
        for (int e = 0; e < s->n_expert; e++) {
            int slot0 = sc->first[e], n_slot = sc->first[e + 1] - slot0;
            if (n_slot == 0)
                continue;
            struct acts x = acts_at(&c->ff, (size_t)slot0);
            mul_expert(c, &l->down, e, o, o + n,
                       &(struct io){.x = &x,
                                    .n_row = n_slot,
                                    .bias = l->b_down + (size_t)e * (size_t)s->d_model,
                                    .y = sc->down + (size_t)slot0 * (size_t)n,
                                    .ld_y = (size_t)n,
                                    .tmp = sc->tmp});
        }
        for (int r = 0; r < n_row; r++)
            c->k.combine(c->x + (size_t)r * (size_t)s->d_model + o, n, sc->down, (size_t)n,
                         sc->slot + r * k, sc->weight + r * k, k);
    }
}

/* ---- the step ---------------------------------------------------------------------------- */

static void phase_embed(struct cpu *c, int t)
{
    const struct spec *s = &c->w->spec;
    int half = s->d_head / 2, lo, hi;
    pool_split(c->b->n_row, 1, t, pool_size(c->pool), &lo, &hi);
    for (int r = lo; r < hi; r++) {
        mat_row(&c->w->embed, c->b->tok[r], c->x + (size_t)r * (size_t)s->d_model);
        rope_row(s, c->inv, c->rope_factor, c->row_pos[r], c->cos + r * half, c->sin + r * half);
    }
}

static bool finite_all(const float *v, int n)
{
    uint32_t bad = 0;
    for (int i = 0; i < n; i++)
        bad |= (f32_bits(v[i]) & 0x7f800000) == 0x7f800000;
    return !bad;
}

static void phase_logits(struct cpu *c, int t)
{
    const struct spec *s = &c->w->spec;
    int n = c->b->n_logit, lo, hi;
    const float *f;
    const struct acts *x;
    norm_rows(c, t, c->w->final_norm, c->b->logit_row, n, &f, &x);
    pool_split(s->n_vocab, OUT_UNIT, t, pool_size(c->pool), &lo, &hi);
    if (lo == hi)
        return;
    mul_mat(c, &c->unembed, lo, hi,
            &(struct io){.x = x,
                         .n_row = n,
                         .y = c->logits + lo,
                         .ld_y = (size_t)s->n_vocab,
                         .tmp = c->scratch[t].tmp});
    for (int i = n - 1; i >= 0; i--) {
        if (finite_all(c->logits + (size_t)i * (size_t)s->n_vocab + lo, hi - lo))
            continue;
        int bad = atomic_load_explicit(&c->bad, memory_order_relaxed);
        while (i < bad && !atomic_compare_exchange_weak(&c->bad, &bad, i))
            ;
    }
}

static void run_step(void *arg, int t)
{
    struct cpu *c = arg;
    phase_embed(c, t);
    pool_sync(c->pool);
    for (int layer = 0; layer < c->w->spec.n_layer; layer++) {
        const struct acts *x;
        phase_qkv(c, t, layer);
        pool_sync(c->pool);
        cpu_attention(c, t, layer);
        pool_sync(c->pool);
        phase_out(c, t, layer);
        pool_sync(c->pool);
        phase_router(c, t, layer, &x);
        phase_gate_up(c, t, layer, x);
        pool_sync(c->pool);
        phase_down(c, t, layer);
        pool_sync(c->pool);
    }
    if (c->b->n_logit > 0)
        phase_logits(c, t);
}

static status cpu_step(struct backend *base, const struct batch *b, struct step_out *out,
                       struct err *e)
{
    struct cpu *c = (struct cpu *)base;
    if (!c->ready)
        return err_set(e, E_STATE, "step before kv_init");
    status st = batch_check(b, &c->w->spec, &c->plan, e);
    if (st < 0)
        return st;
    for (int i = 0; i < b->n_seq; i++)
        for (int j = 0; j < b->seq[i].n_row; j++) {
            c->row_seq[b->seq[i].row0 + j] = &b->seq[i];
            c->row_pos[b->seq[i].row0 + j] = b->seq[i].pos0 + j;
        }
    c->b = b;
    atomic_store(&c->bad, INT_MAX);
    pool_run(c->pool, run_step, c);
    c->b = NULL;
    *out = (struct step_out){.logits = c->logits};
    int bad = atomic_load(&c->bad);
    if (bad == INT_MAX)
        return OK;
    return err_set(
        e, E_NUMERIC,
        "the logits of row %d (position %d) hold NaN or Inf: the checkpoint's numbers are "
        "damaged or overflow; --check-tensors finds damaged ones",
        (int)b->logit_row[bad], (int)c->row_pos[b->logit_row[bad]]);
}

struct experts_call {
    struct cpu *c;
    int layer;
};

static void run_experts(void *arg, int t)
{
    const struct experts_call *call = arg;
    const struct acts *x;
    phase_router(call->c, t, call->layer, &x);
    phase_gate_up(call->c, t, call->layer, x);
    pool_sync(call->c->pool);
    phase_down(call->c, t, call->layer);
}

static void cpu_experts(struct backend *base, int layer, float *x, int n_row)
{
    struct cpu *c = (struct cpu *)base;
    struct experts_call call = {c, layer};
    float *own = c->x;
    c->x = x;
    c->b = &(struct batch){.n_row = n_row};
    pool_run(c->pool, run_experts, &call);
    c->b = NULL;
    c->x = own;
}

/* ---- memory ------------------------------------------------------------------------------ */

void *cpu_carve(struct carve *k, size_t n, size_t size)
{
    size_t bytes, at = k->used;
    if (!mul_ok(n, size, &bytes) || !add_ok(bytes, 63, &bytes) ||
        !add_ok(at, bytes & ~(size_t)63, &k->used))
        k->overflow = true;
    return k->base ? k->base + at : NULL;
}

static void carve_acts(struct carve *k, const struct cpu *c, struct acts *a, size_t rows, size_t ld,
                       unsigned use)
{
    size_t n = 0;
    k->overflow |= !mul_ok(rows, ld, &n);
    a->ld = ld;
    a->f = c->need_f & use ? cpu_carve(k, n, sizeof *a->f) : NULL;
    a->h = c->need_h & use ? cpu_carve(k, n, sizeof *a->h) : NULL;
    a->q = (struct q8_rows){.ld = ld};
    a->q_size = c->wide ? 2 : 1;
    if (c->need_q & use) {
        a->q.q = cpu_carve(k, n, a->q_size);
        a->q.d = cpu_carve(k, n / Q8_IN, sizeof *a->q.d);
        a->q.sum = cpu_carve(k, n / Q8_IN, sizeof *a->q.sum);
    }
}

static void carve_scratch(struct carve *k, const struct cpu *c, struct scratch *s)
{
    const struct spec *p = &c->w->spec;
    size_t R = (size_t)c->plan.max_rows, K = (size_t)p->n_active, E = (size_t)p->n_expert;
    size_t d = (size_t)p->d_model, dh = (size_t)p->d_head;
    s->norm_f = cpu_carve(k, SMALL_ROWS * d, sizeof(float));
    carve_acts(k, c, &s->norm, SMALL_ROWS, d, USE_DENSE | USE_EXPERT);
    s->router_v = cpu_carve(k, SMALL_ROWS * E, sizeof(float));
    s->head = cpu_carve(k, R * dh, sizeof(float));
    cpu_attn_carve(k, c, s);
    s->pair = cpu_carve(k, R * 2 * PAIR_CHUNK, sizeof(float));
    s->swiglu = cpu_carve(k, PAIR_CHUNK, sizeof(float));
    s->down = cpu_carve(k, c->n_down, sizeof(float));
    size_t n_in = d > (size_t)p->d_ff ? d : (size_t)p->d_ff, n_attn = (size_t)p->n_head * dh;
    n_in = n_in > n_attn ? n_in : n_attn;
    s->tmp = cpu_carve(k, 1, mul_tmp((int)n_in));
    s->expert = cpu_carve(k, R * K, sizeof(int32_t));
    s->weight = cpu_carve(k, R * K, sizeof(float));
    s->slot = cpu_carve(k, R * K, sizeof(int32_t));
    s->slot_row = cpu_carve(k, R * K, sizeof(int32_t));
    s->first = cpu_carve(k, E + 1, sizeof(int32_t));
}

static void carve_all(struct carve *k, struct cpu *c)
{
    const struct spec *p = &c->w->spec;
    size_t R = (size_t)c->plan.max_rows, K = (size_t)p->n_active, d = (size_t)p->d_model;
    size_t half = (size_t)p->d_head / 2, n_qd = (size_t)p->n_head * (size_t)p->d_head;
    int n_t = pool_size(c->pool);
    c->scratch = cpu_carve(k, (size_t)n_t, sizeof *c->scratch);
    c->x = cpu_carve(k, R * d, sizeof(float));
    c->cos = cpu_carve(k, R * half, sizeof(float));
    c->sin = cpu_carve(k, R * half, sizeof(float));
    c->norm_f = cpu_carve(k, R * d, sizeof(float));
    carve_acts(k, c, &c->norm, R, d, USE_DENSE | USE_EXPERT);
    c->q = cpu_carve(k, R * n_qd, sizeof(float));
    carve_acts(k, c, &c->attn, R, n_qd, USE_DENSE);
    c->router_v = cpu_carve(k, R * (size_t)p->n_expert, sizeof(float));
    carve_acts(k, c, &c->ff, R * K, (size_t)p->d_ff, USE_EXPERT);
    c->logits = cpu_carve(k, (size_t)c->plan.max_logit_rows, (size_t)p->n_vocab * sizeof(float));
    c->row_seq = cpu_carve(k, R, sizeof *c->row_seq);
    c->row_pos = cpu_carve(k, R, sizeof *c->row_pos);
    cpu_attn_carve_shared(k, c);
    for (int t = 0; t < n_t; t++) {
        struct scratch unused;
        carve_scratch(k, c, k->base ? &c->scratch[t] : &unused);
    }
}

static size_t cpu_memory(const struct backend *base)
{
    const struct cpu *c = (const struct cpu *)base;
    /* The weights are mapped, not yet read: their bytes are still counted as available. */
    size_t available = sysmem_available();
    return available > c->w->n_bytes ? available - c->w->n_bytes : available > 0;
}

static void cpu_kv_fini(struct cpu *c)
{
    cpu_kv_free(c);
    mem_free(c->block);
    c->block = NULL;
}

static status cpu_kv_init(struct backend *base, const struct kv_plan *plan, struct err *e)
{
    struct cpu *c = (struct cpu *)base;
    const struct spec *s = &c->w->spec;
    status st = OK;
    if (c->ready)
        return err_set(e, E_STATE, "kv_init twice");
    enum { MAX_PAGE_TOK = 1 << 16, MAX_ROWS = 1 << 20 };
    if (plan->page_tok < 1 || plan->page_tok > MAX_PAGE_TOK ||
        (plan->page_tok & (plan->page_tok - 1)) != 0)
        return err_set(e, E_INPUT, "pages of %d positions: must be a power of two up to %d",
                       plan->page_tok, MAX_PAGE_TOK);
    if (plan->max_rows < 1 || plan->max_rows > MAX_ROWS || plan->max_logit_rows < 1)
        return err_set(e, E_INPUT, "steps of %d rows, %d with logits: must be 1 to %d",
                       plan->max_rows, plan->max_logit_rows, MAX_ROWS);
    c->plan = *plan;
    size_t least = (size_t)plan->max_rows * (size_t)s->n_active * OUT_UNIT;
    c->n_down = least > DOWN_FLOATS ? least : DOWN_FLOATS;
    struct carve k = {0};
    carve_all(&k, c);
    if (k.overflow)
        return err_set(e, E_LIMIT, "steps of %d rows are too large", plan->max_rows);
    TRY(cpu_kv_alloc(c, e));
    c->block_bytes = k.used;
    c->block = mem_aligned(64, k.used);
    if (!c->block) {
        TRY(err_set(e, E_NOMEM, "out of memory for the scratch of the forward pass: %.1f MiB",
                    (double)k.used / (1 << 20)));
    }
    k = (struct carve){.base = c->block};
    carve_all(&k, c);
    if (c->lock)
        TRY(cpu_lock_cache(c, e));
    c->ready = true;
out:
    if (st < 0)
        cpu_kv_fini(c);
    return st;
}

/* The weights are read where the files are mapped, or as 8-bit copies in their place. */
static void cpu_memory_used(const struct backend *base, size_t *weight, size_t *work)
{
    const struct cpu *c = (const struct cpu *)base;
    *weight = c->w->n_bytes - c->packed_bytes + c->q8_bytes;
    *work = sizeof *c + c->block_bytes;
}

static void cpu_close(struct backend *base)
{
    struct cpu *c = (struct cpu *)base;
    if (!c)
        return;
    pool_free(c->pool);
    cpu_kv_fini(c);
    cpu_dense_close(c);
    mem_free(c);
}

static void need_of(struct cpu *c, enum use use, bool mx, bool in_major, enum dtype t)
{
    if (mx && c->need_q & USE_EXPERT)
        return;
    if (wants_h(c, mx, t) && !in_major)
        c->need_h |= use;
    else
        c->need_f |= use;
}

/* Which forms of rows do the matrices want? */
static void need_all(struct cpu *c)
{
    bool q8 = c->arith == ARITH_Q8, all_mx = true;
    int n_layer = c->w->spec.n_layer;
    for (int i = 0; i < n_layer; i++)
        all_mx &= c->w->layer[i].gate_up.layout == EXPERT_MXFP4 &&
                  c->w->layer[i].down.layout == EXPERT_MXFP4;
    c->wide = c->arith == ARITH_BF16 && c->k.mx_q16 && all_mx;
    c->need_q = (q8 ? USE_DENSE : 0) | ((q8 && all_mx) || c->wide ? USE_EXPERT : 0);
    for (int i = 0; i <= n_layer * N_DENSE && !q8; i++)
        need_of(c, USE_DENSE, false, false, cpu_dense_at(c, i)->m->dtype);
    for (int i = 0; i < n_layer; i++) {
        const struct layer *l = &c->w->layer[i];
        const struct expert_mat *expert[] = {&l->gate_up, &l->down};
        for (size_t j = 0; j < sizeof expert / sizeof *expert; j++)
            need_of(c, USE_EXPERT, expert[j]->layout == EXPERT_MXFP4,
                    expert[j]->layout == EXPERT_IN_MAJOR, expert[j]->dtype);
    }
}

static status check_opts(const struct backend_opts *o, struct err *e)
{
    bool q8 = o->arith == ARITH_Q8;
    if (o->arith == ARITH_FP8)
        return err_param(e, E_INPUT, "arith",
                         "--arith fp8 is for CUDA cards: here f32, bf16 or q8");
    if (o->dense != DENSE_AUTO && (o->dense == DENSE_Q8) != q8)
        return err_param(e, E_INPUT, "dense",
                         "on the processor 8-bit dense matrices and --arith q8 go together");
    if (o->kv == KV_FP8)
        return err_param(e, E_INPUT, "kv-cache-dtype",
                         "--kv-cache-dtype fp8 is for CUDA cards: here float32, bfloat16 or q8");
    return OK;
}

status backend_cpu_open(const struct weights *w, const struct backend_opts *opts,
                        struct backend **out, struct err *e)
{
    status st = OK;
    unsigned flags;
    *out = NULL;
    struct cpu *c = mem_calloc(1, sizeof *c);
    if (!c)
        return err_set(e, E_NOMEM, "out of memory for the CPU backend");
    c->base = (struct backend){.name = "cpu",
                               .chunk = 256,
                               .close = cpu_close,
                               .kv_init = cpu_kv_init,
                               .kv_page_bytes = cpu_kv_page_bytes,
                               .kv_memory = cpu_memory,
                               .kv_copy = cpu_kv_copy,
                               .kv_swap = cpu_kv_swap,
                               .step = cpu_step,
                               .experts = cpu_experts,
                               .memory = cpu_memory_used};
    c->w = w;
    c->arith = opts->arith;
    c->kv = opts->kv != KV_AUTO ? opts->kv : opts->arith == ARITH_F32 ? KV_F32 : KV_BF16;
    TRY(check_opts(opts, e));
    TRY(cpu_flags(&flags, e));
    cpu_kern_init(&c->k, flags);
    TRY(pool_new(opts->n_thread, &c->pool, e));
    c->rope_factor = rope_frequencies(&w->spec, c->inv);
    c->unembed.m = &w->unembed;
    for (int i = 0; i < w->spec.n_layer; i++) {
        const struct layer *l = &w->layer[i];
        const struct mat *mat[N_DENSE] = {&l->q, &l->k, &l->v, &l->o};
        for (int j = 0; j < N_DENSE; j++)
            c->dense[i][j].m = mat[j];
        c->pool_layer[i] = w->spec.sliding[i] ? c->window.n_layer++ : c->full.n_layer++;
    }
    need_all(c);
    if (c->arith == ARITH_Q8)
        TRY(cpu_dense_open(c, opts->no_dense_cache, e));
    c->lock = opts->lock;
    if (c->lock)
        TRY(cpu_lock(c, e));
    *out = &c->base;
    c = NULL;
out:
    if (c)
        cpu_close(&c->base);
    return st;
}
