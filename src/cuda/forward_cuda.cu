/* The CUDA backend: the forward pass of ref/forward_ref.c as launches of the kernels of dev.h.
 *
 * Of the first n_cpu_moe layers the experts are the CPU backend's: the residual goes there and
 * comes back in the middle of the step, as a call on the stream.
 *
 * Owns the weights on the card, the page pools, the activations and one stream; borrows the host's
 * weights while opening only. A step copies one block of integers to the card, runs
 *
 *     embed | per layer: qkv with norm, rotation and cache | attention | output with residual |
 *     norm, router, choice | gate and up with SwiGLU | down, experts' sum | head, best token
 *
 * and copies the results back, or leaves the logits there for pick.h to choose from. Steps in which
 * every row has logits (decoding, with guessed tokens or without) are replayed as CUDA graphs, one
 * for each number of rows and of blocks and power of two of keys.
 *
 * Arithmetic: residual, norms, router, softmax, rotation and sums in float32, inputs of the
 * matrix products and the cache in bf16, or of the experts in e4m3, weights exact. Exported is
 * cuda_backend_open alone.
 */
#include "cuda/dev.h"
#include "cuda/pick.h"

extern "C" {
#include "base/mem.h"
#include "base/num.h"
#include "model/rope.h"
}

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A kind of step worth a graph comes again; with guessed tokens there are many kinds. */
enum { MAX_GRAPHS = 64, COMES_AGAIN = 3 };

/* What the launches of a step whose rows all have logits, and the places of its integers, depend
 * on. */
struct shape {
    int n_row, n_seq, n_single, n_block, n_unit;
};

struct graph {
    struct shape shape;
    int n_seen;
    cudaGraphExec_t exec; /* NULL: not made yet */
};

struct cuda;

struct cpu_layer {
    struct cuda *c;
    int layer;
};

struct cuda {
    struct backend base;
    struct backend_opts opts;
    struct spec spec;
    cudaStream_t stream;
    struct dlayer layer[SPEC_MAX_LAYER];
    struct dmat head;
    __nv_bfloat16 *embed;
    float *final_norm, *inv;
    float rope_factor;
    struct dpool full, window;
    uint8_t *host_full, *host_window; /* [places, page] what is swapped out; pinned */

    struct backend *cpu; /* ours; computes the experts of the first n_cpu_moe layers. Or NULL */
    int n_cpu_moe;
    struct cpu_layer cpu_layer[SPEC_MAX_LAYER];
    float *host_x; /* [R, d] pinned, for it */
    size_t free_before, weight_bytes, work_bytes;

    bool ready;
    struct kv_plan plan;
    float *x, *cos, *sin, *y, *part, *logits;
    float *share; /* of the router's sums, when one row decodes */
    __nv_bfloat16 *xn, *q, *attn, *ff;
    uint8_t *x8, *ff8; /* --arith fp8: the experts' inputs (k_fp8.cu) */
    int ld_x, ld_ff;   /* d_model and d_ff rounded up to whole steps */
    struct droute route;
    unsigned *arrived; /* zero between kernels */
    uint64_t *best_part;
    int32_t *best;
    float *host_logits;
    int32_t *host_best;
    struct picker *picker;
    int32_t *host_step, *dev_step; /* [cap_step] the step's integers */
    size_t cap_step;
    struct graph graph[MAX_GRAPHS];
    int n_graph, next_graph;

    /* the step under way */
    struct dstep st;
    int n_row, n_single, n_block, n_logit, n_unit;
};

/* ---- errors ---- */

static cudaError_t latched;
static bool latched_pinned; /* it was the host's memory that ran out */
static char latched_at[160];

cudaError_t cu_check(cudaError_t rc, const char *what, const char *file, int line)
{
    if (rc != cudaSuccess && latched == cudaSuccess) {
        latched = rc;
        const char *base = strrchr(file, '/');
        snprintf(latched_at, sizeof latched_at, "%.90s (%s:%d)", what, base ? base + 1 : file,
                 line);
    }
    return rc;
}

static status card_error(struct err *e)
{
    if (latched_pinned)
        return err_set(e, E_NOMEM,
                       "this machine cannot lock enough memory for copies to the card (a smaller "
                       "--swap-gb or --max-batch-tokens wants less): %s",
                       latched_at);
    if (latched == cudaErrorMemoryAllocation)
        return err_set(e, E_NOMEM, "the card's memory is too small: %s", latched_at);
    return err_set(e, E_DEVICE, "CUDA: %s: %s", cudaGetErrorString(latched), latched_at);
}

const struct card *card()
{
    static struct card c;
    if (c.n_sm == 0) {
        int dev = 0, smem = 0;
        cudaGetDevice(&dev);
        cudaDeviceGetAttribute(&c.major, cudaDevAttrComputeCapabilityMajor, dev);
        cudaDeviceGetAttribute(&smem, cudaDevAttrMaxSharedMemoryPerBlockOptin, dev);
        c.max_smem = (size_t)smem;
        cudaDeviceGetAttribute(&c.n_sm, cudaDevAttrMultiProcessorCount, dev);
    }
    return &c;
}

/* ---- a step ---- */

static void CUDART_CB cpu_experts(void *arg)
{
    const struct cpu_layer *l = (const struct cpu_layer *)arg;
    l->c->cpu->experts(l->c->cpu, l->layer, l->c->host_x, l->c->n_row);
}

/* The experts' half of a layer on the processor. */
static void run_cpu_experts(struct cuda *c, int i)
{
    size_t n = (size_t)c->n_row * (size_t)c->spec.d_model * sizeof(float);
    CU(cudaMemcpyAsync(c->host_x, c->x, n, cudaMemcpyDeviceToHost, c->stream));
    CU(cudaLaunchHostFunc(c->stream, cpu_experts, &c->cpu_layer[i]));
    CU(cudaMemcpyAsync(c->x, c->host_x, n, cudaMemcpyHostToDevice, c->stream));
}

static void run_layer(struct cuda *c, int i)
{
    const struct spec *s = &c->spec;
    const struct dlayer *l = &c->layer[i];
    const struct dpool *pool = l->sliding ? &c->window : &c->full;
    int n = c->n_row;
    bool alone = n == 1 && !c->opts.deterministic; /* norms inside the products */
    bool here = i >= c->n_cpu_moe, one = alone && here && one_row_fits(l, s->n_expert);
    if ((i == 0 || i <= c->n_cpu_moe) && !alone) /* else the layer before has done it */
        k_norm(c->x, NULL, l->attn_norm, n, s->d_model, c->ld_x, s->norm_eps, c->xn, c->stream);
    struct qkv_out out = {c->q,      *pool,        l->i_pool, l->sliding,
                          s->n_head, s->n_kv_head, c->cos,    c->sin};
    if (alone)
        k_qkv_one(l, &c->st, c->x, s->norm_eps, &out, c->stream);
    else
        k_qkv(l, &c->st, c->xn, n, &out, c->stream);
    struct attn_args a = {
        c->q,     *pool,   l->i_pool, s->n_head, s->n_kv_head, l->sliding ? s->window : 0,
        l->sinks, c->attn, c->part,   c->arrived};
    if (c->n_single)
        k_attn_single(&a, &c->st, c->n_single, l->sliding ? 1 : c->n_unit, c->stream);
    if (c->n_block)
        k_attn_block(&a, &c->st, c->n_block, c->stream);
    if (one) {
        k_out_one(l, c->attn, c->x, c->share, c->stream);
        k_gate_one(l, c->x, c->share, s->n_expert, s->n_active, s->norm_eps, s->swiglu_alpha,
                   s->swiglu_limit, &c->route, c->ff, c->stream);
        k_down_one(l, &c->route, s->n_active, c->ff, c->x, c->stream);
        return;
    }
    k_out(l, c->attn, c->x, n, c->stream);
    if (!here) {
        run_cpu_experts(c, i);
        return;
    }
    k_router(l, c->x, n, s->d_model, c->ld_x, s->norm_eps, s->n_expert, s->n_active, &c->route,
             c->xn, c->stream);
    if (l->gate.row_gain) {
        k_gate8(l, &c->route, c->xn, n, s->n_active, s->n_expert, s->swiglu_alpha, s->swiglu_limit,
                c->x8, c->ff8, c->stream);
        k_down8(l, &c->route, c->ff8, n, s->n_active, s->n_expert, c->y, c->stream);
    } else {
        k_gate(l, &c->route, c->xn, n, s->n_active, s->n_expert, s->swiglu_alpha, s->swiglu_limit,
               c->ff, c->stream);
        k_down(l, &c->route, c->ff, n, s->n_active, s->n_expert, c->y, c->stream);
    }
    const float *next = !alone && i + 1 < s->n_layer ? c->layer[i + 1].attn_norm : NULL;
    k_combine(&c->route, c->y, n, s->n_active, s->d_model, c->x, next, c->ld_x, s->norm_eps, c->xn,
              c->stream);
}

static void run_step(struct cuda *c)
{
    const struct spec *s = &c->spec;
    k_embed(c->embed, &c->st, c->n_row, s->d_model, c->inv, c->rope_factor, c->x, c->cos, c->sin,
            c->stream);
    for (int i = 0; i < s->n_layer; i++)
        run_layer(c, i);
    if (c->n_logit == 0)
        return;
    bool fused = c->n_logit == 1 && !c->opts.deterministic;
    if (!fused)
        k_norm(c->x, c->st.logit_row, c->final_norm, c->n_logit, s->d_model, c->ld_x, s->norm_eps,
               c->xn, c->stream);
    k_head(&c->head, c->final_norm, s->norm_eps, &c->st, c->x, fused ? NULL : c->xn, c->n_logit,
           c->logits, c->stream);
    k_best(c->logits, c->n_logit, s->n_vocab, c->best_part, c->arrived, c->best, c->stream);
    CU(cudaMemcpyAsync(c->host_best, c->best, (size_t)c->n_logit * sizeof *c->best,
                       cudaMemcpyDeviceToHost, c->stream));
}

/* The place of this kind of step; the oldest kind gives way to a new one. */
static struct graph *graph_at(struct cuda *c, const struct shape *shape)
{
    for (int i = 0; i < c->n_graph; i++)
        if (memcmp(&c->graph[i].shape, shape, sizeof *shape) == 0)
            return &c->graph[i];
    struct graph *at = &c->graph[c->next_graph];
    if (c->n_graph < MAX_GRAPHS)
        c->n_graph++;
    else if (at->exec)
        cudaGraphExecDestroy(at->exec);
    c->next_graph = (c->next_graph + 1) % MAX_GRAPHS;
    *at = (struct graph){*shape, 0, NULL};
    return at;
}

/* The graph of the step under way, made when its kind has come often enough; before that NULL. */
static cudaGraphExec_t graph_of(struct cuda *c, int n_seq)
{
    struct shape shape = {c->n_row, n_seq, c->n_single, c->n_block, c->n_unit};
    struct graph *at = graph_at(c, &shape);
    bool decodes = c->n_block == 0 || c->opts.deterministic;
    at->n_seen += at->n_seen < COMES_AGAIN;
    if (at->exec || (!decodes && at->n_seen < COMES_AGAIN))
        return at->exec;
    cudaGraph_t g = NULL;
    CU(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
    run_step(c);
    CU(cudaStreamEndCapture(c->stream, &g));
    if (latched != cudaSuccess)
        return NULL;
    CU(cudaGraphInstantiate(&at->exec, g, 0));
    cudaGraphDestroy(g);
    return at->exec;
}

static int div_up(int a, int b)
{
    return (a + b - 1) / b;
}

/* Hands out parts of the step's integers, the same place on the host and on the card. */
static int32_t *take(struct cuda *c, size_t *at, size_t n, const int32_t **dev)
{
    int32_t *p = c->host_step + *at;
    *dev = c->dev_step + *at;
    *at += n;
    return p;
}

/* A row alone attends in its own way, whose sums come out otherwise in the last bits. */
static bool by_block(const struct cuda *c, const struct batch_seq *q)
{
    return q->n_row > 1 || c->opts.deterministic;
}

/* Blocks that see the most keys first: so they fall to the SMs alike. */
static int by_keys(const void *a, const void *b)
{
    return ((const int32_t *)b)[3] - ((const int32_t *)a)[3];
}

/* Fills the step's block; returns its length. Rows alone come before blocks of prompts. */
static size_t fill_step(struct cuda *c, const struct batch *b)
{
    const struct spec *s = &c->spec;
    int n_q = s->n_head / s->n_kv_head, per = attn_block_queries() / n_q, most = 1;
    size_t at = 0;
    const int32_t *seq_dev, *single_dev;
    int4 *single = (int4 *)take(c, &at, (size_t)b->n_row * 4, &single_dev);
    c->st.single = (const int4 *)single_dev;
    int32_t *tok = take(c, &at, (size_t)b->n_row, &c->st.tok);
    int32_t *pos = take(c, &at, (size_t)b->n_row, &c->st.pos);
    int32_t *row_seq = take(c, &at, (size_t)b->n_row, &c->st.row_seq);
    int32_t *logit_row = take(c, &at, (size_t)b->n_row, &c->st.logit_row);
    struct dseq *seq =
        (struct dseq *)take(c, &at, (size_t)b->n_seq * (sizeof *seq / sizeof(int32_t)), &seq_dev);
    c->st.seq = (const struct dseq *)seq_dev;
    int n_block = 0;
    for (int i = 0; i < b->n_seq; i++)
        n_block += by_block(c, &b->seq[i]) ? div_up(b->seq[i].n_row, per) : 0;
    int32_t *block = take(c, &at, (size_t)n_block * 4, &c->st.block), *blk = block;
    int32_t *table = take(c, &at, 0, &c->st.table);
    int n_table = 0;
    memcpy(tok, b->tok, (size_t)b->n_row * sizeof *tok);
    memcpy(logit_row, b->logit_row, (size_t)b->n_logit * sizeof *tok);
    c->n_row = b->n_row;
    c->n_logit = b->n_logit;
    c->n_single = 0;
    c->n_block = n_block;
    for (int i = 0; i < b->n_seq; i++) {
        const struct batch_seq *q = &b->seq[i];
        int last = q->pos0 + q->n_row - 1, n_page = last / KV_PAGE + 1;
        int window0 = max_int(0, q->pos0 - (s->window - 1)) / KV_PAGE;
        seq[i] = (struct dseq){q->row0, q->n_row, q->pos0, n_table, n_table + n_page, window0};
        if (c->full.n_layer)
            memcpy(table + n_table, q->full, (size_t)n_page * sizeof *table);
        if (c->window.n_layer)
            memcpy(table + n_table + n_page, q->window + window0,
                   (size_t)(n_page - window0) * sizeof *table);
        n_table += 2 * n_page - window0;
        for (int r = 0; r < q->n_row; r++) {
            pos[q->row0 + r] = q->pos0 + r;
            row_seq[q->row0 + r] = i;
        }
        if (!by_block(c, q)) {
            single[c->n_single++] =
                make_int4(q->row0, q->pos0, seq[i].full, seq[i].window - window0);
            most = max_int(most, n_page);
        }
        for (int r = 0; r < q->n_row && by_block(c, q); r += per, blk += 4) {
            blk[0] = i;
            blk[1] = q->row0 + r;
            blk[2] = min_int(per, q->n_row - r);
            blk[3] = q->pos0 + r + blk[2];
        }
    }
    qsort(block, (size_t)n_block, 4 * sizeof *block, by_keys);
    /* A power of two, so that there are few graphs. */
    int need = c->n_single ? div_up(most, SPLIT_KEYS / KV_PAGE) : 1;
    for (c->n_unit = 1; c->n_unit < need;)
        c->n_unit *= 2;
    return at + (size_t)n_table;
}

/* Does the step's block hold what fill_step will put into it? */
static bool step_fits(const struct cuda *c, const struct batch *b)
{
    size_t ints = (size_t)b->n_row * 16;
    for (int i = 0; i < b->n_seq; i++)
        ints += 2 * (size_t)((b->seq[i].pos0 + b->seq[i].n_row - 1) / KV_PAGE + 1) +
                sizeof(struct dseq) / sizeof(int32_t) + 4;
    return ints <= c->cap_step;
}

/* After the stream has come to its end: did the card, and the numbers, hold? */
static status check_step(const struct cuda *c, struct err *e)
{
    const int32_t *row = c->host_step + (c->st.logit_row - c->dev_step);
    if (latched != cudaSuccess)
        return card_error(e);
    for (int i = 0; i < c->n_logit; i++)
        if (c->host_best[i] < 0)
            return err_set(e, E_NUMERIC,
                           "the logits of row %d hold NaN or Inf: the checkpoint's numbers are "
                           "damaged or overflow; --check-tensors finds damaged ones",
                           (int)row[i]);
    return OK;
}

static status cuda_step(struct backend *base, const struct batch *b, struct step_out *out,
                        struct err *e)
{
    struct cuda *c = (struct cuda *)base;
    if (!c->ready)
        return err_set(e, E_STATE, "step before kv_init");
    status st = batch_check(b, &c->spec, &c->plan, e);
    if (st < 0)
        return st;
    if (!step_fits(c, b))
        return err_set(e, E_LIMIT, "the step's page tables are longer than planned");
    if (latched != cudaSuccess)
        return card_error(e);
    CU(cudaSetDevice(c->opts.i_card)); /* the engine's thread is not the one that opened */
    size_t n = fill_step(c, b);
    CU(cudaMemcpyAsync(c->dev_step, c->host_step, n * sizeof *c->dev_step, cudaMemcpyHostToDevice,
                       c->stream));
    cudaGraphExec_t exec = c->n_logit == c->n_row ? graph_of(c, b->n_seq) : NULL;
    if (exec)
        CU(cudaGraphLaunch(exec, c->stream));
    else if (latched == cudaSuccess)
        run_step(c);
    out->logits = NULL;
    if (b->defer)
        return latched == cudaSuccess ? OK : card_error(e);
    CU(cudaMemcpyAsync(c->host_logits, c->logits,
                       (size_t)b->n_logit * (size_t)c->spec.n_vocab * sizeof *c->logits,
                       cudaMemcpyDeviceToHost, c->stream));
    CU(cudaStreamSynchronize(c->stream));
    out->logits = c->host_logits;
    return check_step(c, e);
}

static status cuda_pick(struct backend *base, struct pick *pick, int n, struct err *e)
{
    struct cuda *c = (struct cuda *)base;
    struct pick_rows rows = {c->logits, c->best, c->host_best, c->host_logits};
    if (n != c->n_logit)
        return err_set(e, E_BUG, "%d picks for %d rows of logits", n, c->n_logit);
    if (latched != cudaSuccess)
        return card_error(e);
    status st = picker_run(c->picker, pick, n, &rows, c->stream, e);
    return st < 0 ? st : check_step(c, e);
}

/* ---- memory ---- */

static size_t page_bytes(const struct cuda *c, int n_layer)
{
    size_t each = c->opts.kv == KV_FP8 ? 1 : sizeof(__nv_bfloat16);
    return (size_t)n_layer * (size_t)c->spec.n_kv_head * 2 * KV_PAGE * HEAD * each;
}

static void cuda_page_bytes(const struct backend *base, int page_tok, size_t *full, size_t *window)
{
    const struct cuda *c = (const struct cuda *)base;
    *full = page_bytes(c, c->full.n_layer) * (size_t)page_tok / KV_PAGE;
    *window = page_bytes(c, c->window.n_layer) * (size_t)page_tok / KV_PAGE;
}

/* Bytes of the card that are still ours to take; *total: of all that were, at opening. */
static size_t room(const struct cuda *c, size_t *total)
{
    size_t now = 0, all = 0, used;
    CU(cudaMemGetInfo(&now, &all));
    *total = c->opts.card_bytes > 0 && c->opts.card_bytes < all ? c->opts.card_bytes : all;
    used = c->free_before > now ? c->free_before - now : 0;
    size_t left = *total > used ? *total - used : 0;
    return left < now ? left : now;
}

/* A tenth of the card stays for activations, graphs and the driver. */
static size_t cuda_memory(const struct backend *base)
{
    size_t total, left = room((const struct cuda *)base, &total);
    return left > total / 10 ? left - total / 10 : 0;
}

static void cuda_memory_used(const struct backend *base, size_t *weight, size_t *work)
{
    const struct cuda *c = (const struct cuda *)base;
    *weight = c->weight_bytes;
    *work = c->work_bytes;
}

static void cuda_kv_copy(struct backend *base, const struct page_pair *pair, int n)
{
    struct cuda *c = (struct cuda *)base;
    for (int i = 0; i < n; i++) {
        const struct dpool *kv = pair[i].window ? &c->window : &c->full;
        CU(cudaMemcpyAsync(kv->p + (size_t)pair[i].to * kv->page,
                           kv->p + (size_t)pair[i].from * kv->page, kv->page,
                           cudaMemcpyDeviceToDevice, c->stream));
    }
}

static void cuda_kv_swap(struct backend *base, const struct page_pair *pair, int n, bool out)
{
    struct cuda *c = (struct cuda *)base;
    CU(cudaSetDevice(c->opts.i_card));
    for (int i = 0; i < n; i++) {
        const struct dpool *kv = pair[i].window ? &c->window : &c->full;
        uint8_t *host = pair[i].window ? c->host_window : c->host_full;
        size_t from = (size_t)pair[i].from * kv->page, to = (size_t)pair[i].to * kv->page;
        CU(cudaMemcpyAsync((out ? host : kv->p) + to, (out ? kv->p : host) + from, kv->page,
                           out ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, c->stream));
    }
}

/* Zeroed memory. The zeros are awaited: streams of ours don't wait for the default one. */
template <typename T> static void get(T **p, size_t n)
{
    if (latched == cudaSuccess && CU(cudaMalloc((void **)p, n * sizeof **p)) == cudaSuccess &&
        CU(cudaMemset(*p, 0, n * sizeof **p)) == cudaSuccess)
        CU(cudaStreamSynchronize(0));
}

static void pool_init(struct cuda *c, struct dpool *kv, int n_page)
{
    kv->page = page_bytes(c, kv->n_layer);
    kv->f8 = c->opts.kv == KV_FP8;
    kv->n_page = n_page;
    if (kv->page > 0 && n_page > 0)
        get(&kv->p, kv->page * (size_t)n_page);
}

/* Page-locked memory of the host, which copies to and from the card want. */
template <typename T> static void pin(T **p, size_t n)
{
    if (n > 0 && latched == cudaSuccess)
        latched_pinned = CU(cudaHostAlloc((void **)p, n * sizeof **p, cudaHostAllocDefault)) ==
                         cudaErrorMemoryAllocation;
}

static status cuda_kv_init(struct backend *base, const struct kv_plan *plan, struct err *e)
{
    struct cuda *c = (struct cuda *)base;
    const struct spec *s = &c->spec;
    if (c->ready)
        return err_set(e, E_STATE, "kv_init twice");
    enum { MAX_ROWS = 1 << 16 };
    if (plan->page_tok != KV_PAGE)
        return err_set(e, E_INPUT, "pages of %d positions: the CUDA backend has %d", plan->page_tok,
                       KV_PAGE);
    if (plan->max_rows < 1 || plan->max_rows > MAX_ROWS || plan->max_logit_rows < 1)
        return err_set(e, E_INPUT, "steps of %d rows, %d with logits: must be 1 to %d",
                       plan->max_rows, plan->max_logit_rows, MAX_ROWS);
    c->plan = *plan;
    if (c->cpu) {
        struct kv_plan own = {.page_tok = KV_PAGE, .max_rows = plan->max_rows, .max_logit_rows = 1};
        status st = c->cpu->kv_init(c->cpu, &own, e);
        if (st < 0)
            return st;
    }
    size_t before = 0, after = 0, all;
    size_t R = (size_t)plan->max_rows, K = (size_t)s->n_active, L = (size_t)plan->max_logit_rows;
    size_t d = (size_t)s->d_model, q = (size_t)s->n_head * HEAD;
    size_t rows = R > L ? R : L;
    pool_init(c, &c->full, plan->n_full);
    pool_init(c, &c->window, plan->n_window);
    pin(&c->host_full, c->full.page * (size_t)plan->n_host_full);
    pin(&c->host_window, c->window.page * (size_t)plan->n_host_window);
    CU(cudaMemGetInfo(&before, &all));
    if (c->cpu)
        pin(&c->host_x, R * d);
    get(&c->x, R * d);
    get(&c->cos, R * 32);
    get(&c->sin, R * 32);
    get(&c->xn, rows * (size_t)c->ld_x);
    get(&c->q, R * q);
    get(&c->attn, R * (q + ATTN_PAD));
    get(&c->share, (size_t)c->layer[0].o.n_tile * (size_t)c->layer[0].ld_router);
    if (c->opts.arith == ARITH_FP8) {
        get(&c->x8, fp8_bytes(plan->max_rows, s->n_active, s->n_expert, s->d_model));
        get(&c->ff8, fp8_bytes(plan->max_rows, s->n_active, s->n_expert, s->d_ff));
    } else {
        get(&c->ff, R * K * (size_t)c->ld_ff);
    }
    get(&c->y, R * K * d);
    get(&c->route.expert, R * K);
    get(&c->route.weight, R * K);
    get(&c->route.slot, R * K);
    get(&c->route.slot_row, R * K);
    get(&c->route.group, R * K);
    get(&c->route.n_group, 1);
    get(&c->route.arrived, R + 1);
    /* Partial attention: each decoding row has one for every split it can have. */
    size_t splits = (size_t)plan->n_full * KV_PAGE / SPLIT_KEYS + 2;
    size_t parts = splits + R; /* rounding up to powers of two at most doubles */
    get(&c->part, 2 * parts * (size_t)s->n_kv_head * 16 * (HEAD + 2));
    get(&c->arrived, rows * (size_t)s->n_kv_head);
    get(&c->logits, L * (size_t)s->n_vocab);
    get(&c->best_part, L * BEST_PARTS);
    get(&c->best, L);
    c->cap_step = R * 32 + 2 * ((size_t)plan->n_full + (size_t)plan->n_window) + 64 * R;
    get(&c->dev_step, c->cap_step);
    pin(&c->host_step, c->cap_step);
    pin(&c->host_logits, L * (size_t)s->n_vocab);
    pin(&c->host_best, L);
    if (latched == cudaSuccess && !(c->picker = picker_open(plan->max_logit_rows, s->n_vocab)))
        return err_set(e, E_NOMEM, "out of memory for the CUDA backend");
    CU(cudaMemGetInfo(&after, &all));
    if (latched != cudaSuccess)
        return card_error(e);
    c->work_bytes = before > after ? before - after : 0;
    c->ready = true;
    return OK;
}

static void free_mat(struct dmat *m)
{
    cudaFree(m->w);
    cudaFree(m->scale);
    cudaFree(m->row_gain);
}

static void cuda_close(struct backend *base)
{
    struct cuda *c = (struct cuda *)base;
    if (!c)
        return;
    if (c->stream)
        cudaStreamSynchronize(c->stream);
    for (int i = 0; i < c->n_graph; i++)
        if (c->graph[i].exec)
            cudaGraphExecDestroy(c->graph[i].exec);
    for (int i = 0; i < c->spec.n_layer; i++) {
        struct dlayer *l = &c->layer[i];
        float *v[] = {l->attn_norm, l->b_qkv,    l->sinks,    l->b_o,    l->mlp_norm,
                      l->router,    l->router_t, l->b_router, l->b_gate, l->b_down};
        for (size_t j = 0; j < sizeof v / sizeof *v; j++)
            cudaFree(v[j]);
        free_mat(&l->qkv);
        free_mat(&l->o);
        free_mat(&l->gate);
        free_mat(&l->down);
    }
    free_mat(&c->head);
    void *p[] = {c->embed,
                 c->final_norm,
                 c->inv,
                 c->full.p,
                 c->window.p,
                 c->x,
                 c->cos,
                 c->sin,
                 c->share,
                 c->y,
                 c->part,
                 c->logits,
                 c->xn,
                 c->q,
                 c->attn,
                 c->ff,
                 c->x8,
                 c->ff8,
                 c->route.expert,
                 c->route.weight,
                 c->route.slot,
                 c->route.slot_row,
                 c->route.group,
                 c->route.n_group,
                 c->route.arrived,
                 c->arrived,
                 c->best_part,
                 c->best,
                 c->dev_step};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        cudaFree(p[i]);
    picker_close(c->picker);
    cudaFreeHost(c->host_full);
    cudaFreeHost(c->host_window);
    if (c->cpu)
        c->cpu->close(c->cpu);
    cudaFreeHost(c->host_x);
    cudaFreeHost(c->host_logits);
    cudaFreeHost(c->host_best);
    cudaFreeHost(c->host_step);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    mem_free(c);
}

/* ---- opening ---- */

static status check_spec(const struct spec *s, struct err *e)
{
    int n_q = s->n_head / s->n_kv_head;
    if (s->d_head != HEAD)
        return err_set(e, E_INPUT,
                       "the CUDA backend wants heads of %d numbers, this model's have %d: use "
                       "--device cpu",
                       HEAD, s->d_head);
    if (n_q > 16 || s->d_model > 3072 || s->n_expert > SPEC_MAX_EXPERT || s->n_active > 16)
        return err_set(
            e, E_INPUT,
            "the CUDA backend does not run this shape (%d query heads a key head, width %d): use "
            "--device cpu",
            n_q, s->d_model);
    return OK;
}

/* The router's weights times the norm's, both ways round. */
static status load_router(struct cuda *c, const struct layer *l, struct dlayer *d, struct upload *u,
                          struct err *e)
{
    size_t m = (size_t)c->spec.d_model, E = (size_t)c->spec.n_expert, ld = 4;
    while (ld < E)
        ld *= 2;
    size_t rows = (m + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    float *w = (float *)mem_array(E * m, sizeof *w), *t = (float *)mem_calloc(rows * ld, sizeof *t);
    status st = OK;
    if (!w || !t)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    for (size_t i = 0; i < E; i++)
        for (size_t j = 0; j < m; j++)
            t[j * ld + i] = w[i * m + j] = l->router[i * m + j] * l->mlp_norm[j];
    d->ld_router = (int)ld;
    TRY(upload_floats(u, w, E * m, &d->router, e));
    TRY(upload_floats(u, t, rows * ld, &d->router_t, e));
out:
    mem_free(t);
    mem_free(w);
    return st;
}

static enum form dense_form(const struct cuda *c)
{
    return c->opts.dense == DENSE_Q8 ? FORM_Q8 : FORM_BF16;
}

static status load_layer(struct cuda *c, const struct weights *w, int i, struct upload *u,
                         struct err *e)
{
    static const enum row_order qkv_order[] = {ORDER_ROPE, ORDER_ROPE, ORDER_PLAIN};
    static const enum row_order plain[] = {ORDER_PLAIN};
    const struct spec *s = &c->spec;
    const struct layer *l = &w->layer[i];
    struct dlayer *d = &c->layer[i];
    enum form form = dense_form(c);
    size_t m = (size_t)s->d_model, E = (size_t)s->n_expert, q = (size_t)s->n_head * HEAD,
           kv = (size_t)s->n_kv_head * HEAD;
    const struct mat *qkv[] = {&l->q, &l->k, &l->v}, *o[] = {&l->o};
    float *bias = (float *)mem_array(q + 2 * kv, sizeof *bias), most = 0;
    bool f8 = c->opts.arith == ARITH_FP8;
    status st = OK;
    d->sliding = s->sliding[i];
    d->i_pool = d->sliding ? c->window.n_layer++ : c->full.n_layer++;
    if (!bias)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    memcpy(bias, l->bq, q * sizeof *bias);
    memcpy(bias + q, l->bk, kv * sizeof *bias);
    memcpy(bias + q + kv, l->bv, kv * sizeof *bias);
    TRY(upload_floats(u, bias, q + 2 * kv, &d->b_qkv, e));
    TRY(upload_floats(u, l->attn_norm, m, &d->attn_norm, e));
    TRY(upload_floats(u, l->sinks, (size_t)s->n_head, &d->sinks, e));
    TRY(upload_floats(u, l->bo, m, &d->b_o, e));
    TRY(upload_floats(u, l->mlp_norm, m, &d->mlp_norm, e));
    TRY(load_router(c, l, d, u, e));
    TRY(upload_floats(u, l->b_router, E, &d->b_router, e));
    TRY(upload_floats(u, l->b_gate_up, E * 2 * (size_t)s->d_ff, &d->b_gate, e));
    TRY(upload_floats(u, l->b_down, E * m, &d->b_down, e));
    TRY(upload_dense(u, qkv, qkv_order, 3, form, &d->qkv, e));
    TRY(upload_dense(u, o, plain, 1, form, &d->o, e));
    if (i >= c->n_cpu_moe) {
        TRY(upload_experts(u, &l->gate_up, s->n_expert, ORDER_PAIR, f8, &d->gate, e));
        TRY(upload_experts(u, &l->down, s->n_expert, ORDER_PLAIN, f8, &d->down, e));
    }
    for (size_t j = 0; j < m; j++)
        most = fmaxf(most, fabsf(l->mlp_norm[j]));
    d->raise_x = fp8_scale(most * sqrtf((float)m));
    d->raise_ff = fp8_scale(s->swiglu_limit * (s->swiglu_limit + 1));
    d->qkv.one_form = d->o.one_form = d->gate.one_form = d->down.one_form = c->opts.deterministic;
out:
    mem_free(bias);
    return st;
}

/* Bytes on the card of a layer's experts. */
static size_t expert_bytes(const struct spec *s, const struct layer *l)
{
    const struct expert_mat *m[] = {&l->gate_up, &l->down};
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        size_t steps = (size_t)div_up(m[i]->n_out, TILE_ROWS) * (size_t)div_up(m[i]->n_in, STEP);
        n += steps * (m[i]->layout == EXPERT_MXFP4 ? 32 * 16 + 32 : 128 * 16);
    }
    return n * (size_t)s->n_expert;
}

/* How many layers' experts the card has no room for, beside the rest, a sixteenth of it for the
 * cache and what cuda_memory leaves free. */
static int fit(const struct cuda *c, const struct weights *w)
{
    const struct spec *s = &c->spec;
    size_t d = (size_t)s->d_model, total, left = room(c, &total);
    size_t heads = (size_t)(s->n_head + 2 * s->n_kv_head) * HEAD + (size_t)s->n_head * HEAD;
    size_t dense = (heads * (size_t)s->n_layer + 2 * (size_t)s->n_vocab) * d * 2;
    size_t rest = dense + total / 10 + total / 16;
    int n = s->n_layer;
    for (size_t need = rest; n > 0; n--) {
        need += expert_bytes(s, &w->layer[n - 1]);
        if (need > left)
            break;
    }
    return n;
}

static status load(struct cuda *c, const struct weights *w, struct err *e)
{
    static const enum row_order plain[] = {ORDER_PLAIN};
    const struct spec *s = &c->spec;
    struct upload *u = NULL;
    const struct mat *head[] = {&w->unembed};
    size_t n_embed = (size_t)s->n_vocab * (size_t)s->d_model;
    double inv[SPEC_MAX_HEAD_DIM / 2];
    float inv_f[HEAD / 2];
    status st = OK;
    TRY(upload_open(&u, e));
    for (int i = 0; i < s->n_layer; i++)
        TRY(load_layer(c, w, i, u, e));
    TRY(upload_dense(u, head, plain, 1, dense_form(c), &c->head, e));
    TRY(upload_floats(u, w->final_norm, (size_t)s->d_model, &c->final_norm, e));
    c->head.one_form = c->opts.deterministic;
    get(&c->embed, n_embed);
    if (latched != cudaSuccess)
        TRY(card_error(e));
    TRY(upload_raw(u, w->embed.p, n_embed * sizeof *c->embed, c->embed, e));
    c->rope_factor = (float)rope_frequencies(s, inv);
    for (int i = 0; i < HEAD / 2; i++)
        inv_f[i] = (float)inv[i];
    TRY(upload_floats(u, inv_f, HEAD / 2, &c->inv, e));
    TRY(upload_sync(u, e));
out:
    upload_close(u);
    return st;
}

extern "C" __attribute__((visibility("default"))) status
cuda_backend_open(const char *abi, const struct weights *w, const struct backend_opts *opts,
                  status (*open_cpu)(const struct weights *, const struct backend_opts *,
                                     struct backend **, struct err *),
                  struct backend **out, struct err *e)
{
    size_t total;
    *out = NULL;
    if (strcmp(abi, BACKEND_CUDA_ABI) != 0)
        return err_set(e, E_DEVICE,
                       "libgloss-cuda.so is of another version than gloss (%s, %s): build both "
                       "again (make CUDA=1)",
                       BACKEND_CUDA_ABI, abi);
    int n_dev = 0;
    cudaError_t rc = cudaGetDeviceCount(&n_dev);
    if (rc != cudaSuccess || n_dev == 0)
        return err_set(e, E_DEVICE, "no CUDA card here, or its driver is older than CUDA %d.%d: %s",
                       CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10,
                       rc == cudaSuccess ? "none found" : cudaGetErrorString(rc));
    if (opts->i_card >= n_dev || cudaSetDevice(opts->i_card) != cudaSuccess)
        return err_set(e, E_DEVICE, "no CUDA card number %d: this machine has %d", opts->i_card,
                       n_dev);
    if (opts->arith != ARITH_BF16 && opts->arith != ARITH_FP8)
        return err_set(e, E_INPUT, "a card computes in bf16 or fp8: --arith says which");
    if (opts->arith == ARITH_FP8 && card()->major != 9)
        return err_set(e, E_INPUT,
                       "--arith fp8 wants a card of compute capability 9.0 (Hopper), this one is "
                       "%d.x: --arith bf16",
                       card()->major);
    if (opts->kv != KV_AUTO && opts->kv != KV_BF16 && opts->kv != KV_FP8)
        return err_set(e, E_INPUT,
                       "on a card keys and values are kept in bfloat16 or fp8: "
                       "--kv-cache-dtype says which");
    status st = check_spec(&w->spec, e);
    if (st < 0)
        return st;
    struct cuda *c = (struct cuda *)mem_calloc(1, sizeof *c);
    if (!c)
        return err_set(e, E_NOMEM, "out of memory for the CUDA backend");
    c->base.name = "cuda";
    c->base.chunk = 2048; /* some 40 ms of gpt-oss-20b */
    c->base.close = cuda_close;
    c->base.kv_init = cuda_kv_init;
    c->base.kv_page_bytes = cuda_page_bytes;
    c->base.kv_memory = cuda_memory;
    c->base.kv_copy = cuda_kv_copy;
    c->base.kv_swap = cuda_kv_swap;
    c->base.step = cuda_step;
    c->base.pick = cuda_pick;
    c->base.memory = cuda_memory_used;
    c->spec = w->spec;
    c->opts = *opts;
    c->ld_x = div_up(w->spec.d_model, STEP) * STEP;
    c->ld_ff = div_up(w->spec.d_ff, STEP) * STEP;
    CU(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    if (w->embed.dtype != DT_BF16)
        st = err_set(e, E_INPUT,
                     "the CUDA backend takes bf16 and MXFP4 weights, this checkpoint has others: "
                     "use --device cpu");
    CU(cudaMemGetInfo(&c->free_before, &total));
    c->n_cpu_moe = opts->n_cpu_moe < 0 ? fit(c, w) : min_int(opts->n_cpu_moe, w->spec.n_layer);
    for (int i = 0; i < c->n_cpu_moe; i++)
        c->cpu_layer[i] = (struct cpu_layer){c, i};
    if (st == OK)
        st = latched == cudaSuccess ? load(c, w, e) : card_error(e);
    struct backend_opts own = {.arith = ARITH_BF16, .n_thread = opts->n_thread};
    if (st == OK && c->n_cpu_moe > 0)
        st = open_cpu(w, &own, &c->cpu, e);
    if (st < 0) {
        cuda_close(&c->base);
        return st;
    }
    size_t left = room(c, &total);
    c->weight_bytes = total > left ? total - left : 0;
    *out = &c->base;
    return OK;
}
