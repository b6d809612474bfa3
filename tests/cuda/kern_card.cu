/* The kernel checker for a card: every launch of dev.h against kern_c.c or plain loops, over shapes
 * and numbers of rows that reach all of its forms.
 *
 *     kern_card [FILTER]             FILTER is a part of "kernel/how"
 *     kern_card --bench [FILTER]     times of the same launches at gpt-oss-20b's shape
 *
 * Exit status: the number of failed checks (at most 100). Choosing tokens is checked by cuda_check.
 */
#include "cuda/dev.h"

extern "C" {
#include "cpu/kern.h"
#include "model/mxfp4.h"
}

#include <cuda_fp8.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

using std::vector;

struct shape {
    const char *name;
    int d, n_head, n_kv, n_expert, n_active, ff, n_vocab, window;
};
/* Widths that fill steps and tiles, widths that do not. */
static const struct shape shapes[] = {{"whole", 320, 16, 2, 8, 4, 192, 1024, 40},
                                      {"ragged", 736, 24, 3, 5, 2, 352, 1003, 33}};
/* A quarter of the head. */
static const struct shape full = {"20b", 2880, 64, 8, 32, 4, 2880, 50272, 128};
static const int row_counts[] = {1, 2, 8, 9, 17, 64, 65, 129, 300};
static const float eps = 1e-5f, alpha = 1.702f, limit = 7, log2e = 1.4426950408889634f;

static int n_bad, n_run;
static const char *filter = "";
static uint64_t state = 20261124;

static void must(cudaError_t rc, const char *what)
{
    if (rc == cudaSuccess)
        return;
    fprintf(stderr, "kern_card: %s: %s\n", what, cudaGetErrorString(rc));
    exit(100);
}

static void must_be(status st, const struct err *e)
{
    if (st == OK)
        return;
    fprintf(stderr, "kern_card: %s\n", e->msg);
    exit(100);
}

/* ---- numbers ---- */

/* xorshift64: whole worlds of weights want a quick one. */
static uint64_t rnd64()
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* About normal, of the given spread: the sum of four uniform numbers. */
static float draw(float spread)
{
    uint64_t r = rnd64();
    int sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (int)(r >> (16 * i) & 0xFFFF);
    return ((float)sum / 65536 - 2) * 1.73f * spread;
}

static vector<float> floats(size_t n, float spread)
{
    vector<float> v(n);
    for (float &x : v)
        x = draw(spread);
    return v;
}

static uint16_t to_bf16(float v)
{
    return __bfloat16_as_ushort(__float2bfloat16(v));
}

static float of_bf16(uint16_t v)
{
    return __bfloat162float(__ushort_as_bfloat16(v));
}

static float e4m3(float v)
{
    return (float)__nv_fp8_e4m3(v);
}

static vector<uint16_t> bf16s(size_t n, float spread)
{
    vector<uint16_t> v(n);
    for (uint16_t &x : v)
        x = to_bf16(draw(spread));
    return v;
}

static vector<float> widened(const vector<uint16_t> &v)
{
    vector<float> f(v.size());
    for (size_t i = 0; i < v.size(); i++)
        f[i] = of_bf16(v[i]);
    return f;
}

template <typename T> static T *on_card(const vector<T> &v)
{
    T *p;
    must(cudaMalloc((void **)&p, v.size() * sizeof(T)), "memory");
    must(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
    return p;
}

template <typename T> static T *zeros(size_t n)
{
    return on_card(vector<T>(n));
}

template <typename T> static vector<T> fetched(const T *p, size_t n)
{
    vector<T> v(n);
    must(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost), "kernel");
    return v;
}

/* ---- verdicts and times ---- */

static bool wanted(const char *kernel, const char *how)
{
    char name[96];
    snprintf(name, sizeof name, "%s/%s", kernel, how);
    return strstr(name, filter) != NULL;
}

/* Both the whole and the worst number must fit: |got - want| over the size of want. */
static void verdict(const char *kernel, const char *how, int rows, const vector<float> &got,
                    const vector<float> &want, double tolerance)
{
    double d = 0, s = 0, worst = 0, most = 0;
    for (size_t i = 0; i < want.size(); i++) {
        double x = (double)got[i] - (double)want[i];
        d += x * x;
        s += (double)want[i] * (double)want[i];
        worst = fmax(worst, isfinite(x) ? fabs(x) : INFINITY);
        most = fmax(most, fabs((double)want[i]));
    }
    double all = sqrt(d / s), one = worst / most;
    bool ok = all <= tolerance && one <= 8 * tolerance;
    n_run++;
    n_bad += !ok;
    if (!ok)
        printf("FAIL  %s/%s, %d rows: error %.1e of the whole, %.1e of the largest\n", kernel, how,
               rows, all, one);
}

/* Where one form serves any number of rows, a row alone gives the bits it gave among others. */
static void same_bits(const char *kernel, const char *how, int rows, const float *among,
                      const vector<float> &alone)
{
    n_run++;
    if (memcmp(among, alone.data(), alone.size() * sizeof(float)) == 0)
        return;
    n_bad++;
    printf("FAIL  %s/%s, %d rows: the last alone has other bits\n", kernel, how, rows);
}

/* Runs it 20 times behind 3; bytes and operations of one run. */
template <typename F>
static void timed(const char *kernel, const char *how, int rows, double bytes, double flops, F run)
{
    cudaEvent_t a, b;
    float ms;
    cudaEventCreate(&a);
    cudaEventCreate(&b);
    for (int i = -3; i < 20; i++) {
        if (i == 0)
            cudaEventRecord(a, 0);
        run();
    }
    cudaEventRecord(b, 0);
    must(cudaEventSynchronize(b), kernel);
    cudaEventElapsedTime(&ms, a, b);
    double us = (double)ms / 20 * 1e3;
    printf("%-10s %-14s %5d rows %9.1f us %8.0f GB/s %8.1f TFLOP/s\n", kernel, how, rows, us,
           bytes / us / 1e3, flops / us / 1e6);
}

/* ---- weights ---- */

struct matrix {
    vector<uint16_t> w; /* [n_out, n_in] as the checkpoint has it */
    vector<float> seen; /* [n_out, n_in] as the card computes with it */
    struct mat m;
};

/* As layout.cu makes 8-bit blocks: scales rounded to bf16, products too. */
static void see_q8(struct matrix *x)
{
    for (size_t at = 0; at < x->w.size(); at += 32) {
        float most = 0;
        for (int i = 0; i < 32; i++)
            most = fmaxf(most, fabsf(of_bf16(x->w[at + i])));
        float d = of_bf16(to_bf16(most / 127));
        for (int i = 0; i < 32; i++) {
            float n = d > 0 ? rintf(of_bf16(x->w[at + i]) / d) : 0;
            x->seen[at + i] = of_bf16(to_bf16(fminf(fmaxf(n, -127), 127) * d));
        }
    }
}

static struct matrix matrix_of(int n_out, int n_in, bool q8)
{
    struct matrix x;
    x.w = bf16s((size_t)n_out * n_in, 0.05f);
    x.seen = widened(x.w);
    if (q8)
        see_q8(&x);
    return x;
}

struct experts {
    vector<uint16_t> w; /* bf16 [E, n_out, n_in] */
    vector<uint8_t> blocks, scales;
    vector<const uint8_t *> block_at, scale_at;
    vector<float> seen; /* [E, n_out, n_in] */
    struct expert_mat m;
};

/* As layout.cu keeps MX8: codes of blocks with scales more than 2^11 below the row's largest are
 * rounded to those of 2^-11 of it. */
static void see_mx8(struct experts *x, int n_in)
{
    static const float of[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    int per = n_in / 32;
    for (size_t b = 0; b < x->scales.size(); b++) {
        const uint8_t *row = &x->scales[b / per * per];
        int top = 0;
        for (int i = 0; i < per; i++)
            top = row[i] > top ? row[i] : top;
        float unit = ldexpf(1, top - 11 - 127);
        for (size_t i = b * 32; i < b * 32 + 32 && x->scales[b] < top - 11; i++) {
            float v = fabsf(x->seen[i]) / unit;
            int best = 0;
            for (int c = 1; c < 8; c++)
                if (fabsf(of[c] - v) < fabsf(of[best] - v) ||
                    (fabsf(of[c] - v) == fabsf(of[best] - v) && c % 2 == 0))
                    best = c;
            x->seen[i] = copysignf(of[best] * unit, x->seen[i]);
        }
    }
}

static void experts_make(struct experts *x, int E, int n_out, int n_in, bool mx, bool f8)
{
    size_t each = (size_t)n_out * n_in, n = each * E;
    x->m = (struct expert_mat){mx ? EXPERT_MXFP4 : EXPERT_OUT_MAJOR, DT_BF16, n_out, n_in};
    x->seen.resize(n);
    if (mx) {
        x->blocks.resize(n / 2);
        x->scales.resize(n / 32);
        for (uint8_t &b : x->blocks)
            b = (uint8_t)(rnd64() >> 32);
        for (uint8_t &s : x->scales)
            s = (uint8_t)(118 + (rnd64() >> 32) % 5 - (f8 && rnd64() >> 61 == 0 ? 12 : 0));
        mxfp4_unpack(x->blocks.data(), x->scales.data(), n / 32, x->seen.data());
        if (f8)
            see_mx8(x, n_in);
    } else {
        x->w = bf16s(n, 0.05f);
        x->seen = widened(x->w);
    }
    for (int e = 0; e < E; e++) {
        x->block_at.push_back(mx ? &x->blocks[each / 2 * e] : (const uint8_t *)&x->w[each * e]);
        x->scale_at.push_back(mx ? &x->scales[each / 32 * e] : NULL);
    }
    x->m.blocks = x->block_at.data();
    x->m.scales = mx ? x->scale_at.data() : NULL;
}

/* y[n, n_out] = bias + w x by kern_c.c; x [n, n_in]. */
static void product(const float *w, const float *bias, const float *x, int n, int n_out, int n_in,
                    float *y)
{
    static struct cpu_kern c;
    if (!c.name)
        kern_c_init(&c);
    vector<char> tmp(mul_tmp(n_in));
    struct mul m = {};
    m.w = w;
    m.n_out = n_out;
    m.n_in = n_in;
    m.x = x;
    m.ld_x = (size_t)n_in;
    m.n_row = n;
    m.bias = bias;
    m.y = y;
    m.ld_y = (size_t)n_out;
    m.tmp = tmp.data();
    c.mul_f32[DT_F32](&m);
}

/* One layer and the head, here and on the card. */
struct world {
    struct shape s;
    bool q8, mx, f8; /* f8: e4m3 activations of the experts */
    int ld_x, ld_ff;
    struct matrix q, k, v, o, head;
    struct experts gate, down;
    vector<float> attn_norm, b_qkv, b_o, mlp_norm, router, b_router, b_gate, b_down, sinks;
    struct dlayer l;
    struct dmat d_head;
    float *d_norm;
};

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

static void world_make(struct world *w, const struct shape *s, bool q8, bool mx, bool f8,
                       bool one_form)
{
    struct err e = {};
    struct upload *u;
    w->s = *s;
    w->q8 = q8;
    w->mx = mx;
    w->f8 = f8;
    w->ld_x = round_up(s->d, STEP);
    w->ld_ff = round_up(s->ff, STEP);
    int q = s->n_head * HEAD, kv = s->n_kv * HEAD, E = s->n_expert;
    w->q = matrix_of(q, s->d, q8);
    w->k = matrix_of(kv, s->d, q8);
    w->v = matrix_of(kv, s->d, q8);
    w->o = matrix_of(s->d, q, q8);
    w->head = matrix_of(s->n_vocab, s->d, q8);
    struct matrix *all[] = {&w->q, &w->k, &w->v, &w->o, &w->head};
    int n_out[] = {q, kv, kv, s->d, s->n_vocab}, n_in[] = {s->d, s->d, s->d, q, s->d};
    for (int i = 0; i < 5; i++)
        all[i]->m = (struct mat){all[i]->w.data(), DT_BF16, n_out[i], n_in[i]};
    experts_make(&w->gate, E, 2 * s->ff, s->d, mx, f8);
    experts_make(&w->down, E, s->d, s->ff, mx, f8);
    w->attn_norm = floats((size_t)s->d, 1);
    w->mlp_norm = floats((size_t)s->d, 1);
    w->b_qkv = floats((size_t)(q + 2 * kv), 1);
    w->b_o = floats((size_t)s->d, 1);
    w->router = floats((size_t)E * s->d, 0.1f);
    w->b_router = floats((size_t)E, 1);
    w->b_gate = floats((size_t)E * 2 * s->ff, 1);
    w->b_down = floats((size_t)E * s->d, 1);
    w->sinks = floats((size_t)s->n_head, 1);

    struct dlayer *l = &w->l;
    *l = {};
    l->attn_norm = on_card(w->attn_norm);
    l->mlp_norm = on_card(w->mlp_norm);
    l->b_qkv = on_card(w->b_qkv);
    l->b_o = on_card(w->b_o);
    l->b_router = on_card(w->b_router);
    l->b_gate = on_card(w->b_gate);
    l->b_down = on_card(w->b_down);
    l->sinks = on_card(w->sinks);
    for (l->ld_router = 4; l->ld_router < E;)
        l->ld_router *= 2;
    vector<float> r((size_t)E * s->d), t((size_t)round_up(s->d, TILE_ROWS) * l->ld_router);
    for (int i = 0; i < E; i++)
        for (int j = 0; j < s->d; j++)
            t[(size_t)j * l->ld_router + i] = r[(size_t)i * s->d + j] =
                w->router[(size_t)i * s->d + j] * w->mlp_norm[j];
    l->router = on_card(r);
    l->router_t = on_card(t);
    const struct mat *qkv[] = {&w->q.m, &w->k.m, &w->v.m}, *o[] = {&w->o.m}, *h[] = {&w->head.m};
    enum row_order qkv_order[] = {ORDER_ROPE, ORDER_ROPE, ORDER_PLAIN}, plain[] = {ORDER_PLAIN};
    enum form form = q8 ? FORM_Q8 : FORM_BF16;
    must_be(upload_open(&u, &e), &e);
    must_be(upload_dense(u, qkv, qkv_order, 3, form, &l->qkv, &e), &e);
    must_be(upload_dense(u, o, plain, 1, form, &l->o, &e), &e);
    must_be(upload_dense(u, h, plain, 1, form, &w->d_head, &e), &e);
    must_be(upload_experts(u, &w->gate.m, E, ORDER_PAIR, f8, &l->gate, &e), &e);
    must_be(upload_experts(u, &w->down.m, E, ORDER_PLAIN, f8, &l->down, &e), &e);
    must_be(upload_sync(u, &e), &e);
    upload_close(u);
    l->qkv.one_form = l->o.one_form = l->gate.one_form = l->down.one_form = one_form;
    w->d_head.one_form = one_form;
    float most = 0;
    for (float v : w->mlp_norm)
        most = fmaxf(most, fabsf(v));
    l->raise_x = fp8_scale(most * sqrtf((float)s->d));
    l->raise_ff = fp8_scale(limit * (limit + 1));
    w->d_norm = l->attn_norm;
}

static void world_free(struct world *w)
{
    struct dlayer *l = &w->l;
    void *p[] = {l->attn_norm,     l->mlp_norm,     l->b_qkv,      l->b_o,     l->b_router,
                 l->b_gate,        l->b_down,       l->sinks,      l->router,  l->router_t,
                 l->qkv.w,         l->qkv.scale,    l->o.w,        l->o.scale, w->d_head.w,
                 w->d_head.scale,  l->gate.w,       l->gate.scale, l->down.w,  l->down.scale,
                 l->gate.row_gain, l->down.row_gain};
    for (void *x : p)
        cudaFree(x);
}

/* x [n, d] normed and rounded to bf16, kept as float. */
static vector<float> normed(const struct world *w, const vector<float> &x, const vector<float> &k,
                            int n)
{
    vector<float> y(x.size());
    for (int r = 0; r < n; r++) {
        double s = 0;
        const float *v = &x[(size_t)r * w->s.d];
        for (int i = 0; i < w->s.d; i++)
            s += (double)v[i] * (double)v[i];
        float f = (float)(1 / sqrt(s / w->s.d + (double)eps));
        for (int i = 0; i < w->s.d; i++)
            y[(size_t)r * w->s.d + i] = of_bf16(to_bf16(v[i] * f * k[i]));
    }
    return y;
}

/* ---- a step of one sequence whose first row is at pos0 ---- */

struct scene {
    struct dstep st;
    int n, pos0, n_page, n_block;
    vector<int32_t> table;
    int32_t *ints[8];
};

/* Blocks of n rows, the first of them of at most `first`. */
static void scene_blocks(struct scene *c, int first)
{
    int n_q = 8; /* heads a key head of the shapes */
    int per = attn_block_queries() / n_q, m = first < per ? first : per;
    vector<int32_t> block;
    for (int i = 0; i < c->n; i += m, m = per) {
        m = c->n - i < m ? c->n - i : m;
        block.insert(block.begin(), {0, i, m, c->pos0 + i + m});
    }
    cudaFree(c->ints[5]);
    c->st.block = c->ints[5] = on_card(block);
    c->n_block = (int)block.size() / 4;
}

static void scene_make(struct scene *c, int n, int pos0)
{
    c->n = n;
    c->pos0 = pos0;
    c->n_page = (pos0 + n - 1) / KV_PAGE + 1;
    vector<int32_t> id(n), pos(n), seq_of(n), single;
    for (int i = 0; i < n; i++) {
        id[i] = i;
        pos[i] = pos0 + i;
    }
    c->table.clear();
    for (int i = 0; i < 2 * c->n_page; i++) /* pages in no order, full and window apart */
        c->table.push_back((i % c->n_page * 7 + 3) % c->n_page);
    for (int i = 0; i < c->n_page; i++)
        if (c->n_page % 7 == 0) /* 7 would not reach all */
            c->table[i] = c->table[i + c->n_page] = c->n_page - 1 - i;
    struct dseq sq = {0, n, pos0, 0, c->n_page, 0};
    single = {0, pos0, 0, c->n_page};
    vector<struct dseq> seq(1, sq);
    c->st.tok = c->ints[0] = on_card(id);
    c->st.pos = c->ints[1] = on_card(pos);
    c->st.row_seq = c->ints[2] = on_card(seq_of);
    c->st.logit_row = c->ints[3] = on_card(id);
    c->st.single = (const int4 *)(c->ints[4] = on_card(single));
    c->ints[5] = NULL;
    scene_blocks(c, n);
    c->st.seq = on_card(seq);
    c->ints[6] = (int32_t *)c->st.seq;
    c->st.table = c->ints[7] = on_card(c->table);
}

static void scene_free(struct scene *c)
{
    for (int32_t *p : c->ints)
        cudaFree(p);
}

/* ---- products ---- */

static const char *how_of(const struct world *w, const char *extra, char *buf, size_t n)
{
    snprintf(buf, n, "%s,%s,%s%s%s", w->s.name, w->q8 ? "q8" : "bf16", w->mx ? "mxfp4" : "bf16",
             w->f8 ? ",fp8" : "", extra);
    return buf;
}

static void check_head(struct world *w, int n, const char *how)
{
    vector<float> x = floats((size_t)n * w->s.d, 1), want((size_t)n * w->s.n_vocab);
    struct scene c;
    scene_make(&c, n, 0);
    float *dx = on_card(x), *logits = zeros<float>(want.size());
    __nv_bfloat16 *xn = zeros<__nv_bfloat16>((size_t)n * w->ld_x);
    bool fused = n == 1 && !w->d_head.one_form;
    if (!fused)
        k_norm(dx, NULL, w->d_norm, n, w->s.d, w->ld_x, eps, xn, 0);
    k_head(&w->d_head, w->d_norm, eps, &c.st, dx, fused ? NULL : xn, n, logits, 0);
    product(w->head.seen.data(), NULL, normed(w, x, w->attn_norm, n).data(), n, w->s.n_vocab,
            w->s.d, want.data());
    vector<float> got = fetched(logits, want.size());
    verdict("head", how, n, got, want, 1e-3);
    if (w->d_head.one_form) {
        k_norm(dx + (size_t)(n - 1) * w->s.d, NULL, w->d_norm, 1, w->s.d, w->ld_x, eps, xn, 0);
        k_head(&w->d_head, w->d_norm, eps, &c.st, dx, xn, 1, logits, 0);
        same_bits("head", how, n, &got[(size_t)(n - 1) * w->s.n_vocab],
                  fetched(logits, (size_t)w->s.n_vocab));
    }
    cudaFree(dx);
    cudaFree(logits);
    cudaFree(xn);
    scene_free(&c);
}

/* Queries, and the keys and values where they land. */
static void check_qkv(struct world *w, int n, const char *how, bool f8)
{
    int H = w->s.n_head, K = w->s.n_kv, d = w->s.d;
    vector<float> x = floats((size_t)n * d, 1), cs = floats((size_t)n * 32, 1),
                  sn = floats((size_t)n * 32, 1);
    struct scene c;
    scene_make(&c, n, 37);
    struct dpool pool = {};
    pool.f8 = f8;
    size_t each = f8 ? 1 : 2, head_bytes = 2 * KV_PAGE * HEAD * each;
    pool.page = 2 * K * head_bytes; /* two layers, ours the second */
    pool.n_layer = 2;
    pool.p = zeros<uint8_t>(pool.page * c.n_page);
    float *dx = on_card(x), *dc = on_card(cs), *ds = on_card(sn);
    __nv_bfloat16 *xn = zeros<__nv_bfloat16>((size_t)n * w->ld_x),
                  *q = zeros<__nv_bfloat16>((size_t)n * H * HEAD);
    bool fused = n == 1 && !w->l.qkv.one_form;
    struct qkv_out out = {q, pool, 1, true, H, K, dc, ds};
    if (fused) {
        k_qkv_one(&w->l, &c.st, dx, eps, &out, 0);
    } else {
        k_norm(dx, NULL, w->l.attn_norm, n, d, w->ld_x, eps, xn, 0);
        k_qkv(&w->l, &c.st, xn, n, &out, 0);
    }

    vector<float> y = normed(w, x, w->attn_norm, n), want, got;
    vector<uint16_t> raw_q = fetched((uint16_t *)q, (size_t)n * H * HEAD);
    vector<uint8_t> raw = fetched(pool.p, pool.page * c.n_page);
    const struct matrix *m[] = {&w->q, &w->k, &w->v};
    int heads[] = {H, K, K}, bias = 0;
    for (int kind = 0; kind < 3; kind++) {
        int wide = heads[kind] * HEAD;
        vector<float> v((size_t)n * wide);
        product(m[kind]->seen.data(), &w->b_qkv[bias], y.data(), n, wide, d, v.data());
        bias += wide;
        want.clear();
        got.clear();
        for (int r = 0; r < n; r++)
            for (int h = 0; h < heads[kind]; h++)
                for (int i = 0; i < HEAD; i++) {
                    const float *at = &v[((size_t)r * heads[kind] + h) * HEAD];
                    int j = i % 32, pos = c.pos0 + r, slot = pos % KV_PAGE;
                    float a = at[j], b = at[j + 32], co = cs[r * 32 + j], si = sn[r * 32 + j];
                    float f = kind == 2 ? at[i] : i < 32 ? a * co - b * si : b * co + a * si;
                    want.push_back(kind == 0 ? f * 0.125f * log2e : f);
                    if (kind == 0) {
                        got.push_back(of_bf16(raw_q[((size_t)r * H + h) * HEAD + i]));
                        continue;
                    }
                    int page = c.table[c.n_page + pos / KV_PAGE];
                    size_t e = kind == 1 ? (size_t)slot * HEAD + i
                                         : (size_t)KV_PAGE * HEAD + (size_t)i * KV_PAGE + slot;
                    const uint8_t *p = &raw[page * pool.page + (K + h) * head_bytes + e * each];
                    __nv_fp8_e4m3 small;
                    small.__x = *p;
                    uint16_t two;
                    memcpy(&two, p, f8 ? 1 : 2);
                    got.push_back(f8 ? (float)small : of_bf16(two));
                }
        verdict(kind == 0   ? "queries"
                : kind == 1 ? "keys"
                            : "values",
                how, n, got, want, f8 && kind ? 4e-2 : 4e-3);
    }
    cudaFree(dx);
    cudaFree(dc);
    cudaFree(ds);
    cudaFree(xn);
    cudaFree(q);
    cudaFree(pool.p);
    scene_free(&c);
}

struct moe {
    struct droute r;
    __nv_bfloat16 *xn, *ff;
    uint8_t *x8, *ff8;
    float *y, *share;
};

static void moe_make(struct moe *m, const struct world *w, int n)
{
    size_t slots = (size_t)n * w->s.n_active;
    m->r.expert = zeros<int32_t>(slots);
    m->r.weight = zeros<float>(slots);
    m->r.slot = zeros<int32_t>(slots);
    m->r.slot_row = zeros<int32_t>(slots);
    m->r.group = zeros<int4>(slots);
    m->r.n_group = zeros<int32_t>(1);
    m->r.arrived = zeros<unsigned>((size_t)n + 1);
    m->xn = zeros<__nv_bfloat16>((size_t)n * w->ld_x);
    m->ff = zeros<__nv_bfloat16>(slots * w->ld_ff);
    m->x8 = zeros<uint8_t>(fp8_bytes(n, w->s.n_active, w->s.n_expert, w->s.d));
    m->ff8 = zeros<uint8_t>(fp8_bytes(n, w->s.n_active, w->s.n_expert, w->s.ff));
    m->y = zeros<float>(slots * w->s.d);
    m->share = zeros<float>((size_t)w->l.o.n_tile * w->l.ld_router);
}

static void moe_free(struct moe *m)
{
    void *p[] = {m->r.expert,  m->r.weight,  m->r.slot, m->r.slot_row, m->r.group,
                 m->r.n_group, m->r.arrived, m->xn,     m->ff,         m->y,
                 m->share,     m->x8,        m->ff8};
    for (void *x : p)
        cudaFree(x);
}

/* The output projection and the experts here: x [n, d] changes as on the card; chosen [n, K]. */
static void half_layer(const struct world *w, const vector<float> &attn, vector<float> *x, int n,
                       vector<int> *chosen)
{
    int d = w->s.d, H = w->s.n_head * HEAD, E = w->s.n_expert, K = w->s.n_active, ff = w->s.ff;
    vector<float> o((size_t)n * d), score((size_t)n * E), up(2 * (size_t)ff), down((size_t)d);
    product(w->o.seen.data(), w->b_o.data(), attn.data(), n, d, H, o.data());
    for (size_t i = 0; i < o.size(); i++)
        (*x)[i] += o[i];
    vector<float> y = normed(w, *x, w->mlp_norm, n), exact(x->size());
    for (int r = 0; r < n; r++) { /* the router works on float32 */
        double s = 0;
        for (int i = 0; i < d; i++)
            s += (double)(*x)[(size_t)r * d + i] * (double)(*x)[(size_t)r * d + i];
        for (int i = 0; i < d; i++)
            exact[(size_t)r * d + i] =
                (float)((double)(*x)[(size_t)r * d + i] / sqrt(s / d + (double)eps)) *
                w->mlp_norm[i];
    }
    product(w->router.data(), w->b_router.data(), exact.data(), n, E, d, score.data());
    for (float &v : y)
        v = w->f8 ? e4m3(v * w->l.raise_x) / w->l.raise_x : v;
    chosen->clear();
    for (int r = 0; r < n; r++) {
        float *v = &score[(size_t)r * E], top = 0, sum = 0, weight[16];
        int best[16];
        for (int j = 0; j < K; j++) {
            best[j] = 0;
            for (int e = 1; e < E; e++)
                best[j] = v[e] > v[best[j]] ? e : best[j];
            top = j ? top : v[best[0]];
            weight[j] = expf(v[best[j]] - top);
            sum += weight[j];
            v[best[j]] = -INFINITY;
            chosen->push_back(best[j]);
        }
        for (int j = 0; j < K; j++) {
            int e = best[j];
            vector<float> act((size_t)ff);
            product(&w->gate.seen[(size_t)e * 2 * ff * d], &w->b_gate[(size_t)e * 2 * ff],
                    &y[(size_t)r * d], 1, 2 * ff, d, up.data());
            for (int i = 0; i < ff; i++) {
                float g = fminf(up[2 * i], limit), u = fmaxf(fminf(up[2 * i + 1], limit), -limit);
                float v = g / (1 + expf(-alpha * g)) * (u + 1);
                act[i] = w->f8 ? e4m3(v * w->l.raise_ff) / w->l.raise_ff : of_bf16(to_bf16(v));
            }
            product(&w->down.seen[(size_t)e * d * ff], &w->b_down[(size_t)e * d], act.data(), 1, d,
                    ff, down.data());
            for (int i = 0; i < d; i++)
                (*x)[(size_t)r * d + i] += weight[j] / sum * down[i];
        }
    }
}

/* From the attention's results to the layer's end. */
static void run_half(const struct world *w, struct moe *m, const __nv_bfloat16 *attn, float *x,
                     int n)
{
    const struct shape *s = &w->s;
    if (n == 1 && !w->l.gate.one_form && one_row_fits(&w->l, s->n_expert)) {
        k_out_one(&w->l, attn, x, m->share, 0);
        k_gate_one(&w->l, x, m->share, s->n_expert, s->n_active, eps, alpha, limit, &m->r, m->ff,
                   0);
        k_down_one(&w->l, &m->r, s->n_active, m->ff, x, 0);
        return;
    }
    k_out(&w->l, attn, x, n, 0);
    k_router(&w->l, x, n, s->d, w->ld_x, eps, s->n_expert, s->n_active, &m->r, m->xn, 0);
    if (w->f8) {
        k_gate8(&w->l, &m->r, m->xn, n, s->n_active, s->n_expert, alpha, limit, m->x8, m->ff8, 0);
        k_down8(&w->l, &m->r, m->ff8, n, s->n_active, s->n_expert, m->y, 0);
    } else {
        k_gate(&w->l, &m->r, m->xn, n, s->n_active, s->n_expert, alpha, limit, m->ff, 0);
        k_down(&w->l, &m->r, m->ff, n, s->n_active, s->n_expert, m->y, 0);
    }
    k_combine(&m->r, m->y, n, s->n_active, s->d, x, w->l.attn_norm, w->ld_x, eps, m->xn, 0);
}

static void check_half(struct world *w, int n, const char *how)
{
    int H = w->s.n_head * HEAD, d = w->s.d, K = w->s.n_active;
    vector<float> x = floats((size_t)n * d, 1), attn = floats((size_t)n * H, 1);
    vector<uint16_t> padded((size_t)n * (H + ATTN_PAD));
    vector<int> chosen;
    for (int r = 0; r < n; r++)
        for (int i = 0; i < H; i++) {
            uint16_t v = to_bf16(attn[(size_t)r * H + i]);
            padded[(size_t)r * (H + ATTN_PAD) + i] = v;
            attn[(size_t)r * H + i] = of_bf16(v);
        }
    struct moe m;
    moe_make(&m, w, n);
    float *dx = on_card(x);
    uint16_t *da = on_card(padded);
    run_half(w, &m, (const __nv_bfloat16 *)da, dx, n);
    if (w->l.gate.one_form) {
        vector<float> among = fetched(dx + (size_t)(n - 1) * d, (size_t)d);
        struct moe lone;
        moe_make(&lone, w, 1);
        float *row = on_card(vector<float>(x.end() - d, x.end()));
        run_half(w, &lone, (const __nv_bfloat16 *)da + (size_t)(n - 1) * (H + ATTN_PAD), row, 1);
        same_bits("layer", how, n, among.data(), fetched(row, (size_t)d));
        cudaFree(row);
        moe_free(&lone);
    }
    half_layer(w, attn, &x, n, &chosen);
    vector<int32_t> expert = fetched(m.r.expert, chosen.size());
    vector<float> got = fetched(dx, x.size());
    int differ = 0;
    for (int r = 0; r < n; r++)
        if (memcmp(&expert[(size_t)r * K], &chosen[(size_t)r * K], (size_t)K * 4) != 0) {
            differ++; /* near-tied scores: the sums differ in their last bits */
            memcpy(&got[(size_t)r * d], &x[(size_t)r * d], (size_t)d * 4);
        }
    verdict("layer", how, n, got, x, w->f8 ? 6e-3 : 2e-3);
    n_run++;
    if (differ > n / 50 + (n > 1)) { /* a row alone must choose right */
        n_bad++;
        printf("FAIL  router/%s, %d rows: %d chose other experts\n", how, n, differ);
    }
    if (n > 1) {
        vector<float> next = normed(w, got, w->attn_norm, n), seen;
        vector<uint16_t> raw = fetched((uint16_t *)m.xn, (size_t)n * w->ld_x);
        for (int r = 0; r < n; r++)
            for (int i = 0; i < d; i++)
                seen.push_back(of_bf16(raw[(size_t)r * w->ld_x + i]));
        if (differ == 0)
            verdict("next norm", how, n, seen, next, 4e-3);
    }
    cudaFree(dx);
    cudaFree(da);
    moe_free(&m);
}

/* ---- attention ---- */

static void check_attn(const struct shape *s, int n, int pos0, bool f8, bool window,
                       const char *how)
{
    int H = s->n_head, K = s->n_kv, n_q = H / K, n_pos = pos0 + n;
    struct scene c;
    scene_make(&c, n, pos0);
    vector<float> key = floats((size_t)n_pos * K * HEAD, 1), val = floats(key.size(), 1),
                  sinks = floats((size_t)H, 1), want, got;
    vector<uint16_t> q = bf16s((size_t)n * H * HEAD, 0.3f);
    size_t each = f8 ? 1 : 2, head_bytes = 2 * KV_PAGE * HEAD * each;
    struct dpool pool = {};
    pool.f8 = f8;
    pool.page = K * head_bytes;
    vector<uint8_t> raw(pool.page * c.n_page);
    for (int p = 0; p < n_pos; p++)
        for (int h = 0; h < K; h++)
            for (int i = 0; i < HEAD; i++) {
                size_t at = ((size_t)p * K + h) * HEAD + i;
                float *v[] = {&key[at], &val[at]};
                size_t e[] = {(size_t)(p % KV_PAGE) * HEAD + i,
                              (size_t)KV_PAGE * HEAD + (size_t)i * KV_PAGE + p % KV_PAGE};
                uint8_t *to = &raw[c.table[p / KV_PAGE] * pool.page + h * head_bytes];
                for (int j = 0; j < 2; j++) {
                    *v[j] = f8 ? e4m3(*v[j]) : of_bf16(to_bf16(*v[j]));
                    uint16_t two = to_bf16(*v[j]);
                    if (f8)
                        to[e[j]] = __nv_fp8_e4m3(*v[j]).__x;
                    else
                        memcpy(to + 2 * e[j], &two, 2);
                }
            }
    pool.p = on_card(raw);
    uint16_t *dq = on_card(q), *out = zeros<uint16_t>((size_t)n * (H * HEAD + ATTN_PAD));
    float *ds = on_card(sinks);
    int unit = 1;
    while (unit * SPLIT_KEYS < n_pos)
        unit *= 2;
    float *part = zeros<float>((size_t)K * unit * 16 * (HEAD + 2));
    unsigned *arrived = zeros<unsigned>((size_t)K);
    struct attn_args a = {(const __nv_bfloat16 *)dq, pool, 0,      H, K, window ? s->window : 0, ds,
                          (__nv_bfloat16 *)out,      part, arrived};
    if (n == 1)
        k_attn_single(&a, &c.st, 1, window ? 1 : unit, 0);
    else
        k_attn_block(&a, &c.st, c.n_block, 0);
    vector<uint16_t> o = fetched(out, (size_t)n * (H * HEAD + ATTN_PAD));
    if (n > 1) { /* cut otherwise: the same bits */
        must(cudaMemset(out, 0, o.size() * sizeof *out), "memory");
        scene_blocks(&c, 5);
        k_attn_block(&a, &c.st, c.n_block, 0);
        n_run++;
        if (fetched(out, o.size()) != o) {
            n_bad++;
            printf("FAIL  attention/%s, %d rows: cut otherwise it has other bits\n", how, n);
        }
    }
    for (int r = 0; r < n; r++)
        for (int h = 0; h < H; h++) {
            int pos = pos0 + r, lo = window && pos >= s->window ? pos - s->window + 1 : 0;
            vector<double> p;
            double top = (double)sinks[h] * (double)log2e, sum = 0, v[HEAD] = {};
            for (int t = lo; t <= pos; t++) {
                double x = 0;
                for (int i = 0; i < HEAD; i++)
                    x += (double)of_bf16(q[((size_t)r * H + h) * HEAD + i]) *
                         (double)key[((size_t)t * K + h / n_q) * HEAD + i];
                p.push_back(x);
                top = fmax(top, x);
            }
            sum = exp2((double)sinks[h] * (double)log2e - top);
            for (int t = lo; t <= pos; t++) {
                double e = exp2(p[t - lo] - top);
                sum += e;
                for (int i = 0; i < HEAD; i++)
                    v[i] += e * (double)val[((size_t)t * K + h / n_q) * HEAD + i];
            }
            for (int i = 0; i < HEAD; i++) {
                want.push_back((float)(v[i] / sum));
                got.push_back(of_bf16(o[(size_t)r * (H * HEAD + ATTN_PAD) + h * HEAD + i]));
            }
        }
    verdict("attention", how, n, got, want, 6e-3);
    vector<unsigned> left = fetched(arrived, (size_t)K);
    for (unsigned u : left)
        n_bad += u != 0; /* counters return to zero */
    cudaFree(pool.p);
    cudaFree(dq);
    cudaFree(out);
    cudaFree(ds);
    cudaFree(part);
    cudaFree(arrived);
    scene_free(&c);
}

/* ---- all of it ---- */

static void check_world(const struct shape *s, bool q8, bool mx, bool f8, bool one_form)
{
    struct world w;
    char how[64];
    w.s = *s;
    w.q8 = q8;
    w.mx = mx;
    w.f8 = f8;
    how_of(&w, one_form ? ",one form" : "", how, sizeof how);
    if (!wanted("layer", how) && !wanted("head", how) && !wanted("queries", how))
        return;
    world_make(&w, s, q8, mx, f8, one_form);
    for (int n : row_counts) {
        if (wanted("head", how))
            check_head(&w, n, how);
        if (wanted("queries", how))
            for (int f8 = 0; f8 < 2; f8++)
                check_qkv(&w, n, how, f8);
        if (wanted("layer", how))
            check_half(&w, n, how);
    }
    if (wanted("layer", how) && s == &shapes[0]) /* so many that an expert has 256 rows at a time */
        check_half(&w, 777, how);
    world_free(&w);
    must(cudaGetLastError(), how);
    printf("ran   %s\n", how);
}

static void check_all()
{
    for (const struct shape &s : shapes)
        for (int way = 0; way < 8; way++)
            check_world(&s, way & 1, way & 2, false, way & 4);
    for (const struct shape &s : shapes)
        for (int one_form = 0; one_form < 2 && card()->major == 9; one_form++)
            check_world(&s, false, true, true, one_form);
    for (const struct shape &s : shapes)
        for (int way = 0; way < 4; way++) {
            char how[64];
            snprintf(how, sizeof how, "%s,%s%s", s.name, way & 1 ? "e4m3" : "bf16",
                     way & 2 ? ",window" : "");
            if (!wanted("attention", how))
                continue;
            static const int depth[] = {0, 5, 31, 64, 300, 2100};
            for (int pos0 : depth)
                for (int n : {1, 2, 16, 17, 70})
                    check_attn(&s, n, pos0, way & 1, way & 2, how);
            printf("ran   attention/%s\n", how);
        }
}

static void bench_all()
{
    for (int way = 0; way < (card()->major == 9 ? 3 : 2); way++) {
        struct world w;
        char how[64];
        bool q8 = way == 1;
        world_make(&w, &full, q8, true, way == 2, false);
        how_of(&w, "", how, sizeof how);
        for (int n : {1, 8, 64, 256, 2048}) {
            const struct shape *s = &w.s;
            int H = s->n_head * HEAD, wide = H + 2 * s->n_kv * HEAD;
            double byte = q8 ? 1 + 1.0 / 16 : 2, mx = 17.0 / 32;
            double used = s->n_expert * (1 - pow(1 - (double)s->n_active / s->n_expert, n));
            struct scene c;
            struct moe m;
            scene_make(&c, n, 0);
            moe_make(&m, &w, n);
            struct dpool pool = {};
            pool.page = (size_t)s->n_kv * 2 * KV_PAGE * HEAD * 2;
            pool.p = zeros<uint8_t>(pool.page * c.n_page);
            float *x = on_card(floats((size_t)n * s->d, 1)), *cs = zeros<float>((size_t)n * 32);
            __nv_bfloat16 *q = zeros<__nv_bfloat16>((size_t)n * H),
                          *attn = zeros<__nv_bfloat16>((size_t)n * (H + ATTN_PAD));
            struct qkv_out out = {q, pool, 0, false, s->n_head, s->n_kv, cs, cs};
            if (wanted("qkv", how))
                timed("qkv", how, n, (double)wide * s->d * byte, 2.0 * n * wide * s->d, [&] {
                    if (n > 1)
                        k_qkv(&w.l, &c.st, m.xn, n, &out, 0);
                    else
                        k_qkv_one(&w.l, &c.st, x, eps, &out, 0);
                });
            if (wanted("out", how))
                timed("out", how, n, (double)H * s->d * byte, 2.0 * n * H * s->d,
                      [&] { k_out(&w.l, attn, x, n, 0); });
            if (wanted("half", how))
                timed("half", how, n, (double)H * s->d * byte + used * 3.0 * s->d * s->ff * mx,
                      2.0 * n * (H * s->d + s->n_active * 3.0 * s->d * s->ff),
                      [&] { run_half(&w, &m, attn, x, n); });
            if (wanted("head", how) && n <= 256) {
                float *logits = zeros<float>((size_t)n * s->n_vocab);
                timed("head", how, n, (double)s->n_vocab * s->d * byte, 2.0 * n * s->n_vocab * s->d,
                      [&] {
                          k_head(&w.d_head, w.d_norm, eps, &c.st, x, n > 1 ? m.xn : NULL, n, logits,
                                 0);
                      });
                cudaFree(logits);
            }
            cudaFree(pool.p);
            cudaFree(x);
            cudaFree(cs);
            cudaFree(q);
            cudaFree(attn);
            moe_free(&m);
            scene_free(&c);
        }
        world_free(&w);
    }
}

int main(int argc, char **argv)
{
    bool bench = argc > 1 && strcmp(argv[1], "--bench") == 0;
    if (argc > 1 + bench)
        filter = argv[1 + bench];
    if (bench) {
        bench_all();
        return 0;
    }
    check_all();
    printf("%d of %d checks failed\n", n_bad, n_run);
    return n_bad < 100 ? n_bad : 100;
}
