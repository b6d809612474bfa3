/* gp-IRT, the estimate of tinyBenchmarks (arXiv 2402.14992) for the 100 rows of tinyMMLU: from 100
 * right-or-wrong answers to the accuracy on the whole benchmark.
 *
 * A multi-dimensional item response model gives each of the benchmark's N questions A_i, B_i; the
 * model's ability theta maximises the likelihood of its 100 answers (BFGS from zero). Then
 *   irt    the weighted mean of the 100 answers,
 *   pirt   lambda * balanced mean of them + (1 - lambda) * balanced mean of the model's
 *          probabilities of the other questions, lambda = 100 / N,
 *   gpirt  L * irt + (1 - L) * pirt with the scenario's own L.
 * The parameters are a file of the user's (JSON; docs/evaluation.md), not part of gloss.
 */
#include "base/file.h"
#include "base/mem.h"
#include "eval/job.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SEEN = 100, MAX_DIM = 32, MAX_STEP = 500 };

struct irt {
    int n, d;
    int seen[SEEN];
    double weight[SEEN], lambda;
    double *a, *b;   /* [d, n] */
    double *balance; /* [n] */
    bool *is_seen;   /* [n] */
    const double *y; /* [SEEN] */
};

static status bad(struct err *e, const char *what)
{
    return err_set(e, E_FORMAT, "the gp-IRT parameters: %s", what);
}

static bool numbers(const struct json *list, double *v, size_t n)
{
    if (json_len(list) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct json *x = json_at(list, i);
        if (json_kind(x) != J_INT && json_kind(x) != J_REAL)
            return false;
        v[i] = json_num(x);
    }
    return true;
}

/* A and B: [1][d][n], or [d][n]. */
static status read_matrix(const struct json *j, const char *name, struct irt *p, double **v,
                          struct err *e)
{
    char text[64];
    if (json_len(j) == 1 && json_kind(json_at(json_at(j, 0), 0)) == J_ARR)
        j = json_at(j, 0);
    int d = (int)json_len(j), n = (int)json_len(json_at(j, 0));
    snprintf(text, sizeof text, "%s must have the shape [1][D][N]", name);
    if (d < 1 || d > MAX_DIM || n < SEEN || (p->d && (d != p->d || n != p->n)))
        return bad(e, text);
    p->d = d;
    p->n = n;
    *v = mem_array((size_t)d * (size_t)n, sizeof **v);
    if (!*v)
        return err_set(e, E_NOMEM, "out of memory for the gp-IRT parameters");
    for (int i = 0; i < d; i++)
        if (!numbers(json_at(j, (size_t)i), *v + (size_t)i * n, (size_t)n))
            return bad(e, text);
    return OK;
}

/* Weight of each question, so that every sub-scenario counts the same: N / (n_sub * n_s).
 * positions: {"mmlu": {sub: [indices]}} or {sub: [indices]}; without it all are 1. */
static status read_balance(const struct json *positions, struct irt *p, struct err *e)
{
    const struct json *subs = json_get(positions, "mmlu");
    if (json_absent(subs))
        subs = positions;
    for (int i = 0; i < p->n; i++)
        p->balance[i] = 1;
    if (json_absent(subs))
        return OK;
    size_t n_sub = json_len(subs);
    for (void *it = json_first(subs); it; it = json_next(subs, it)) {
        const struct json *list = json_val(it);
        for (size_t k = 0; k < json_len(list); k++) {
            const struct json *x = json_at(list, k);
            if (json_kind(x) != J_INT || json_int(x) < 0 || json_int(x) >= p->n)
                return bad(e, "subscenarios_position must hold indices below N");
            p->balance[json_int(x)] = (double)p->n / ((double)n_sub * (double)json_len(list));
        }
    }
    return OK;
}

static status read_params(const struct json *root, struct irt *p, struct err *e)
{
    const struct json *mmlu = json_get(root, "mmlu"), *lambda;
    double seen[SEEN];
    if (!json_absent(mmlu))
        root = mmlu;
    status st = OK;
    TRY(read_matrix(json_get(root, "A"), "A", p, &p->a, e));
    TRY(read_matrix(json_get(root, "B"), "B", p, &p->b, e));
    p->balance = mem_array((size_t)p->n, sizeof *p->balance);
    p->is_seen = mem_calloc((size_t)p->n, sizeof *p->is_seen);
    TRY(p->balance && p->is_seen ? OK : err_set(e, E_NOMEM, "out of memory for gp-IRT"));
    if (!numbers(json_get(root, "seen_examples"), seen, SEEN) ||
        !numbers(json_get(root, "examples_weights"), p->weight, SEEN))
        TRY(bad(e, "seen_examples and examples_weights must hold 100 numbers each"));
    for (int i = 0; i < SEEN; i++) {
        if (seen[i] < 0 || seen[i] >= p->n || seen[i] != floor(seen[i]))
            TRY(bad(e, "seen_examples must hold indices below N"));
        p->seen[i] = (int)seen[i];
        p->is_seen[p->seen[i]] = true;
    }
    lambda = json_get(root, "optimal_lambda");
    if (json_kind(lambda) != J_INT && json_kind(lambda) != J_REAL)
        TRY(bad(e, "optimal_lambda must be a number"));
    p->lambda = json_num(lambda);
    TRY(read_balance(json_get(root, "subscenarios_position"), p, e));
out:
    return st;
}

static double probability(const struct irt *p, const double *theta, int i)
{
    double x = 0;
    for (int k = 0; k < p->d; k++) {
        double t = p->a[(size_t)k * p->n + i] * theta[k] - p->b[(size_t)k * p->n + i];
        x += t < -30 ? -30 : t > 30 ? 30 : t;
    }
    return 1 / (1 + exp(-x));
}

/* Negative log-likelihood of the answers, and its gradient [d]. */
static double loss(const struct irt *p, const double *theta, double *grad)
{
    double sum = 0;
    memset(grad, 0, (size_t)p->d * sizeof *grad);
    for (int i = 0; i < SEEN; i++) {
        double q = probability(p, theta, p->seen[i]), y = p->y[i], tiny = 1e-10;
        sum -= y * log(q + tiny) + (1 - y) * log(1 - q + tiny);
        double slope = (-y / (q + tiny) + (1 - y) / (1 - q + tiny)) * q * (1 - q);
        for (int k = 0; k < p->d; k++) {
            size_t at = (size_t)k * p->n + p->seen[i];
            double t = p->a[at] * theta[k] - p->b[at];
            if (t > -30 && t < 30)
                grad[k] += slope * p->a[at];
        }
    }
    return sum;
}

static double dot(const double *a, const double *b, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

/* The better of this step's lengths: halved until the loss falls enough (Armijo). */
static double step(const struct irt *p, const double *x, const double *dir, double f, double slope,
                   double *x_new, double *g_new)
{
    for (double t = 1; t > 1e-14; t *= 0.5) {
        for (int k = 0; k < p->d; k++)
            x_new[k] = x[k] + t * dir[k];
        double f_new = loss(p, x_new, g_new);
        if (f_new <= f + 1e-4 * t * slope)
            return f_new;
    }
    return f;
}

/* BFGS with the inverse Hessian h. */
static void fit(const struct irt *p, double *x)
{
    double h[MAX_DIM][MAX_DIM] = {{0}}, g[MAX_DIM], g_new[MAX_DIM], x_new[MAX_DIM], dir[MAX_DIM];
    double s[MAX_DIM], y[MAX_DIM], hy[MAX_DIM];
    int d = p->d;
    for (int i = 0; i < d; i++) {
        h[i][i] = 1;
        x[i] = 0;
    }
    double f = loss(p, x, g);
    for (int n = 0; n < MAX_STEP; n++) {
        for (int i = 0; i < d; i++)
            dir[i] = -dot(h[i], g, d);
        double slope = dot(dir, g, d), f_new;
        if (sqrt(dot(g, g, d)) < 1e-7 || slope > -1e-18)
            return;
        f_new = step(p, x, dir, f, slope, x_new, g_new);
        if (f_new >= f)
            return;
        for (int i = 0; i < d; i++) {
            s[i] = x_new[i] - x[i];
            y[i] = g_new[i] - g[i];
            x[i] = x_new[i];
            g[i] = g_new[i];
        }
        f = f_new;
        double sy = dot(s, y, d);
        if (sy <= 1e-14)
            continue;
        for (int i = 0; i < d; i++)
            hy[i] = dot(h[i], y, d);
        double yhy = dot(y, hy, d);
        for (int i = 0; i < d; i++)
            for (int k = 0; k < d; k++)
                h[i][k] += (1 + yhy / sy) * s[i] * s[k] / sy - (hy[i] * s[k] + s[i] * hy[k]) / sy;
    }
}

static void estimate(const struct irt *p, struct buf *out)
{
    double theta[MAX_DIM], irt = 0, seen = 0, unseen = 0;
    int n_seen = 0, n_unseen = 0;
    fit(p, theta);
    for (int i = 0; i < SEEN; i++) {
        irt += p->weight[i] * p->y[i];
        seen += p->balance[p->seen[i]] * p->y[i];
        n_seen++;
    }
    for (int i = 0; i < p->n; i++)
        if (!p->is_seen[i]) {
            unseen += p->balance[i] * probability(p, theta, i);
            n_unseen++;
        }
    double share = (double)SEEN / p->n;
    double pirt = share * seen / n_seen + (n_unseen ? (1 - share) * unseen / n_unseen : 0);
    buf_puts(out, "{\"irt\":");
    json_put_num(out, irt);
    buf_puts(out, ",\"pirt\":");
    json_put_num(out, pirt);
    buf_puts(out, ",\"gpirt\":");
    json_put_num(out, p->lambda * irt + (1 - p->lambda) * pirt);
    buf_putc(out, '}');
}

status irt_score(const char *path, const double *y, int n, struct buf *out, struct err *e)
{
    struct irt p = {.y = y};
    struct json *root = NULL;
    struct json_limits lim = {1u << 30, 16, 50000000};
    struct buf b;
    buf_init(&b, 1u << 30);
    status st = OK;
    if (n != SEEN)
        return err_set(e, E_INPUT, "gp-IRT needs the answers to all %d rows, and there are %d",
                       SEEN, n);
    TRY(file_read(path, &b, e));
    TRY(json_parse(b.p, b.n, &lim, &root, e));
    TRY(read_params(root, &p, e));
    estimate(&p, out);
out:
    mem_free(p.a);
    mem_free(p.b);
    mem_free(p.balance);
    mem_free(p.is_seen);
    json_free(root);
    buf_fini(&b);
    return st;
}
