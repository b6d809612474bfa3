#include "bench/quantile.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

void series_put(struct series *s, double v)
{
    if (s->n == s->cap && s->st == OK) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        double *p = mem_realloc_array(s->v, cap, sizeof *p);
        if (p) {
            s->v = p;
            s->cap = cap;
        } else {
            s->st = E_NOMEM;
        }
    }
    if (s->st == OK)
        s->v[s->n++] = v;
}

void series_fini(struct series *s)
{
    mem_free(s->v);
    *s = (struct series){0};
}

void series_clear(struct series *s)
{
    s->n = 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sort(struct series *s)
{
    if (s->n > 1)
        qsort(s->v, s->n, sizeof *s->v, by_value);
}

double series_ceil(struct series *s, double q)
{
    if (s->n == 0)
        return NAN;
    sort(s);
    return s->v[(size_t)ceil(q * (double)(s->n - 1))];
}

double series_linear(struct series *s, double q)
{
    if (s->n == 0)
        return NAN;
    sort(s);
    double at = q * (double)(s->n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= s->n)
        return s->v[s->n - 1];
    return s->v[i] + (at - (double)i) * (s->v[i + 1] - s->v[i]);
}

double series_median(struct series *s)
{
    return series_linear(s, 0.5);
}

double series_mean(const struct series *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += s->v[i];
    return s->n ? sum / (double)s->n : NAN;
}

double series_std(const struct series *s)
{
    double mean = series_mean(s), sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += (s->v[i] - mean) * (s->v[i] - mean);
    return s->n ? sqrt(sum / (double)s->n) : NAN;
}

struct line_fit fit_line(const double *x, const double *y, size_t n)
{
    double mx = 0, my = 0, sxx = 0, sxy = 0, syy = 0;
    for (size_t i = 0; i < n; i++) {
        mx += x[i] / (double)n;
        my += y[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        sxx += (x[i] - mx) * (x[i] - mx);
        sxy += (x[i] - mx) * (y[i] - my);
        syy += (y[i] - my) * (y[i] - my);
    }
    if (sxx == 0)
        return (struct line_fit){NAN, NAN, NAN};
    double b = sxy / sxx;
    return (struct line_fit){my - b * mx, b, syy > 0 ? sxy * sxy / (sxx * syy) : 1};
}
