/* gpt-oss, the whole forward pass, written to be read.
 *
 *     x = embedding of each token                               [n, d_model]
 *     per layer:
 *         x += attention(norm(x))       grouped queries, rotary positions, a sink, maybe a window
 *         x += experts(norm(x))         the n_active best of n_expert, weighted
 *     logits = unembedding * norm(x)                            [n, n_vocab]
 *
 * Everything lives in float32; sums run in double, so that the result is the mathematical one to
 * about float precision whatever the order of summation elsewhere: that is what makes this file an
 * oracle. All n tokens go through a layer together, because then each row of weights is widened
 * once, not n times; there is no other optimisation, no cache and no state.
 *
 * Letters: i, t tokens; a heads; j keys or inputs; o outputs; e experts.
 */
#include "ref/forward_ref.h"
#include "base/arena.h"
#include "model/rope.h"

#include <math.h>
#include <string.h>

enum { LANES = 8 }; /* independent partial sums of a dot product */

struct ref {
    const struct weights *w;
    const struct spec *s;
    int n;            /* tokens */
    float *x;         /* [n, d_model] the residual stream */
    float *h;         /* [n, d_model] normed input of a block */
    float *q;         /* [n, n_head, d_head] */
    float *k, *v;     /* [n, n_kv_head, d_head] */
    float *att;       /* [n, n_head, d_head] attention's output */
    double *score;    /* [n] one query against its keys */
    double *sum;      /* [d_head] */
    float *cos, *sin; /* [n, d_head/2] */
    float *route;     /* [n, n_expert] router logits, then weights: 0 for experts not chosen */
    int *mine;        /* [n] tokens of one expert */
    float *in;        /* [n, d_model] their inputs */
    float *up;        /* [n, 2*d_ff] gate and up of one expert, interleaved */
    float *act;       /* [n, d_ff] */
    float *out;       /* [n, d_model] a block's or an expert's output */
    float *row;       /* one widened row of weights; an expert [n_in, n_out] if it is input-major */
};

static double dot(const float *a, const float *b, int n)
{
    double lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += (double)a[i + l] * (double)b[i + l];
    double sum = 0;
    for (; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    for (int l = 0; l < LANES; l++)
        sum += lane[l];
    return sum;
}

/* out[i] = x[i] / rms(x[i]) * weight */
static void norm(const struct ref *r, const float *weight, float *out /* [n, d_model] */)
{
    int d = r->s->d_model;
    for (int i = 0; i < r->n; i++) {
        const float *x = r->x + (size_t)i * d;
        double scale = 1 / sqrt(dot(x, x, d) / d + (double)r->s->norm_eps);
        for (int j = 0; j < d; j++)
            out[(size_t)i * d + j] = (float)(x[j] * scale) * weight[j];
    }
}

/* y[t] = m x[t] + bias for n rows: x [n, n_in], y [n, n_out]. No bias: NULL. */
static void linear(const struct ref *r, const struct mat *m, const float *bias, const float *x,
                   int n, float *y)
{
    for (int o = 0; o < m->n_out; o++) {
        mat_row(m, o, r->row);
        for (int t = 0; t < n; t++)
            y[(size_t)t * m->n_out + o] =
                (float)(dot(r->row, x + (size_t)t * m->n_in, m->n_in) + (bias ? bias[o] : 0));
    }
}

/* Turns each pair (x[i], x[i + half]) by the angle of its position. */
static void rotate(const struct ref *r, float *x /* [n, n_head, d_head] */, int n_head)
{
    int half = r->s->d_head / 2;
    for (int i = 0; i < r->n; i++)
        for (int a = 0; a < n_head; a++) {
            float *first = x + ((size_t)i * n_head + a) * r->s->d_head, *second = first + half;
            const float *c = r->cos + (size_t)i * half, *s = r->sin + (size_t)i * half;
            for (int j = 0; j < half; j++) {
                float p = first[j], q = second[j];
                first[j] = p * c[j] - q * s[j];
                second[j] = q * c[j] + p * s[j];
            }
        }
}

/* One query of one head over the keys it may see. The sink is a logit without a value: it only
 * takes its share of the softmax. */
static void attend(const struct ref *r, const struct layer *y, bool sliding, int i, int a)
{
    const struct spec *s = r->s;
    int d = s->d_head, a_kv = a / (s->n_head / s->n_kv_head);
    int first = sliding && i >= s->window ? i - s->window + 1 : 0;
    const float *q = r->q + ((size_t)i * s->n_head + a) * d;
    float *out = r->att + ((size_t)i * s->n_head + a) * d;
    double sink = y->sinks[a], top = sink;
    for (int j = first; j <= i; j++) {
        const float *k = r->k + ((size_t)j * s->n_kv_head + a_kv) * d;
        r->score[j] = dot(q, k, d) / sqrt(d);
        top = fmax(top, r->score[j]);
    }
    double total = exp(sink - top);
    memset(r->sum, 0, (size_t)d * sizeof *r->sum);
    for (int j = first; j <= i; j++) {
        const float *v = r->v + ((size_t)j * s->n_kv_head + a_kv) * d;
        double p = exp(r->score[j] - top);
        total += p;
        for (int c = 0; c < d; c++)
            r->sum[c] += p * v[c];
    }
    for (int c = 0; c < d; c++)
        out[c] = (float)(r->sum[c] / total);
}

/* x += Wo attention(norm(x)) + bo */
static void attention(const struct ref *r, const struct layer *y, bool sliding)
{
    const struct spec *s = r->s;
    norm(r, y->attn_norm, r->h);
    linear(r, &y->q, y->bq, r->h, r->n, r->q);
    linear(r, &y->k, y->bk, r->h, r->n, r->k);
    linear(r, &y->v, y->bv, r->h, r->n, r->v);
    rotate(r, r->q, s->n_head);
    rotate(r, r->k, s->n_kv_head);
    for (int i = 0; i < r->n; i++)
        for (int a = 0; a < s->n_head; a++)
            attend(r, y, sliding, i, a);
    linear(r, &y->o, y->bo, r->att, r->n, r->out);
    for (size_t j = 0; j < (size_t)r->n * s->d_model; j++)
        r->x[j] += r->out[j];
}

/* Router logits -> weights: a softmax over the n_active largest, zero for the rest. Of equal logits
 * the lower expert wins everywhere in gloss (torch.topk leaves the choice open). */
static void choose(const struct spec *s, float *route /* [n_expert] */)
{
    int best[SPEC_MAX_ACTIVE];
    double p[SPEC_MAX_ACTIVE], total = 0;
    for (int c = 0; c < s->n_active; c++) {
        best[c] = -1;
        for (int e = 0; e < s->n_expert; e++) {
            bool taken = false;
            for (int b = 0; b < c; b++)
                taken |= best[b] == e;
            if (!taken && (best[c] < 0 || route[e] > route[best[c]]))
                best[c] = e;
        }
        p[c] = exp((double)route[best[c]] - (double)route[best[0]]);
        total += p[c];
    }
    memset(route, 0, (size_t)s->n_expert * sizeof *route);
    for (int c = 0; c < s->n_active; c++)
        route[best[c]] = (float)(p[c] / total);
}

/* y[t] = W_e x[t] + bias for the rows t of one expert. */
static void expert_linear(const struct ref *r, const struct expert_mat *m, int e, const float *bias,
                          const float *x, int n, float *y)
{
    if (m->layout == EXPERT_IN_MAJOR) {
        /* The file has the transpose: lay it out by output rows first. */
        struct mat in_rows = {m->blocks[e], m->dtype, m->n_in, m->n_out};
        float *line = r->row + (size_t)m->n_in * m->n_out; /* [n_out] */
        for (int j = 0; j < m->n_in; j++) {
            mat_row(&in_rows, j, line);
            for (int o = 0; o < m->n_out; o++)
                r->row[(size_t)o * m->n_in + j] = line[o];
        }
    }
    for (int o = 0; o < m->n_out; o++) {
        const float *row = r->row;
        if (m->layout == EXPERT_IN_MAJOR)
            row += (size_t)o * m->n_in;
        else
            expert_row(m, e, o, r->row);
        for (int t = 0; t < n; t++)
            y[(size_t)t * m->n_out + o] =
                (float)(dot(row, x + (size_t)t * m->n_in, m->n_in) + bias[o]);
    }
}

/* The clamped SwiGLU: even rows are gates (clamped above only), odd rows are ups (both sides). */
static float swiglu(const struct spec *s, float gate, float up)
{
    double g = fmin((double)gate, (double)s->swiglu_limit);
    double u = fmin(fmax((double)up, -(double)s->swiglu_limit), (double)s->swiglu_limit);
    return (float)(g / (1 + exp(-(double)s->swiglu_alpha * g)) * (u + 1));
}

/* x += sum over the chosen experts of weight * (W2 swiglu(W1 h + b1) + b2), h = norm(x) */
static void experts(const struct ref *r, const struct layer *y)
{
    const struct spec *s = r->s;
    size_t d = (size_t)s->d_model, f = (size_t)s->d_ff;
    struct mat router = {y->router, DT_F32, s->n_expert, s->d_model};
    norm(r, y->mlp_norm, r->h);
    linear(r, &router, y->b_router, r->h, r->n, r->route);
    for (int i = 0; i < r->n; i++)
        choose(s, r->route + (size_t)i * s->n_expert);

    for (int e = 0; e < s->n_expert; e++) {
        /* Gather the tokens that chose e. */
        int n_mine = 0;
        for (int i = 0; i < r->n; i++)
            if (r->route[(size_t)i * s->n_expert + e] > 0) {
                memcpy(r->in + n_mine * d, r->h + i * d, d * sizeof *r->h);
                r->mine[n_mine++] = i;
            }
        if (n_mine == 0)
            continue;
        expert_linear(r, &y->gate_up, e, y->b_gate_up + e * 2 * f, r->in, n_mine, r->up);
        for (size_t j = 0; j < n_mine * f; j++)
            r->act[j] = swiglu(s, r->up[2 * j], r->up[2 * j + 1]);
        expert_linear(r, &y->down, e, y->b_down + e * d, r->act, n_mine, r->out);
        for (int t = 0; t < n_mine; t++) {
            float weight = r->route[(size_t)r->mine[t] * s->n_expert + e];
            for (size_t j = 0; j < d; j++)
                r->x[r->mine[t] * d + j] += weight * r->out[t * d + j];
        }
    }
}

static status reserve(struct ref *r, struct arena *a, struct err *e)
{
    const struct spec *s = r->s;
    size_t n = (size_t)r->n, d = (size_t)s->d_model, f = (size_t)s->d_ff;
    size_t q = (size_t)s->n_head * (size_t)s->d_head, kv = (size_t)s->n_kv_head * (size_t)s->d_head;
    size_t widest = d > f ? d : f;
    widest = widest > q ? widest : q;
    bool transposed = r->w->layer[0].gate_up.layout == EXPERT_IN_MAJOR;
    r->x = arena_array(a, n * d, sizeof(float));
    r->h = arena_array(a, n * d, sizeof(float));
    r->q = arena_array(a, n * q, sizeof(float));
    r->k = arena_array(a, n * kv, sizeof(float));
    r->v = arena_array(a, n * kv, sizeof(float));
    r->att = arena_array(a, n * q, sizeof(float));
    r->score = arena_array(a, n, sizeof(double));
    r->sum = arena_array(a, (size_t)s->d_head, sizeof(double));
    r->cos = arena_array(a, n * (size_t)s->d_head / 2, sizeof(float));
    r->sin = arena_array(a, n * (size_t)s->d_head / 2, sizeof(float));
    r->route = arena_array(a, n * (size_t)s->n_expert, sizeof(float));
    r->mine = arena_array(a, n, sizeof(int));
    r->in = arena_array(a, n * d, sizeof(float));
    r->up = arena_array(a, n * 2 * f, sizeof(float));
    r->act = arena_array(a, n * f, sizeof(float));
    r->out = arena_array(a, n * d, sizeof(float));
    r->row = arena_array(a, transposed ? 2 * f * (d + 1) : widest, sizeof(float));
    if (!r->x || !r->h || !r->q || !r->k || !r->v || !r->att || !r->score || !r->sum || !r->cos ||
        !r->sin || !r->route || !r->mine || !r->in || !r->up || !r->act || !r->out || !r->row)
        return err_set(e, E_NOMEM, "out of memory for the reference forward of %d tokens", r->n);
    return OK;
}

status forward_ref(const struct weights *w, const int32_t *tok, int n, bool last_only,
                   float *logits, struct err *e)
{
    status st = OK;
    const struct spec *s = &w->spec;
    struct ref r = {.w = w, .s = s, .n = n};
    struct arena a;
    arena_init(&a, SIZE_MAX);
    for (int i = 0; i < n; i++)
        if (tok[i] < 0 || tok[i] >= s->n_vocab)
            TRY(err_set(e, E_INPUT, "token %d is outside the vocabulary of %d", tok[i],
                        s->n_vocab));
    TRY(reserve(&r, &a, e));

    double inv[SPEC_MAX_HEAD_DIM / 2], factor = rope_frequencies(s, inv);
    for (int i = 0; i < n; i++) {
        size_t half = (size_t)s->d_head / 2;
        rope_row(s, inv, factor, i, r.cos + i * half, r.sin + i * half);
        mat_row(&w->embed, tok[i], r.x + (size_t)i * s->d_model);
    }
    for (int l = 0; l < s->n_layer; l++) {
        attention(&r, &w->layer[l], s->sliding[l]);
        experts(&r, &w->layer[l]);
    }
    norm(&r, w->final_norm, r.h);
    int first = last_only ? n - 1 : 0, n_row = n - first;
    linear(&r, &w->unembed, NULL, r.h + (size_t)first * s->d_model, n_row, logits);
    for (size_t j = 0; j < (size_t)n_row * s->n_vocab; j++)
        if (isnan(logits[j]))
            TRY(err_set(e, E_NUMERIC, "a logit is NaN: the weights or their use are damaged"));
out:
    arena_fini(&a);
    return st;
}
