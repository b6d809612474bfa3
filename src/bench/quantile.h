/* Summaries of measured values. Two kinds of percentile: the study's (an element of the sample, the
 * one at ceil(q (n-1)) of the sorted list, so that for ten values p95, p99 and the largest are
 * one), and the usual one (linear between the two nearest elements), which vLLM's benchmark and
 * `--extended` report. No values: NAN.
 */
#ifndef BENCH_QUANTILE_H
#define BENCH_QUANTILE_H

#include "base/err.h"

#include <stddef.h>

/* Values collected one by one. Zeroed: empty. A failed allocation sticks and is told by st. */
struct series {
    double *v; /* [n], sorted by the first of the functions below that needs it */
    size_t n, cap;
    status st;
};
void series_put(struct series *, double);
void series_fini(struct series *);
void series_clear(struct series *);

double series_ceil(struct series *, double q);   /* the study's percentile */
double series_linear(struct series *, double q); /* the usual one */
double series_median(struct series *);           /* the mean of the middle two */
double series_mean(const struct series *);
double series_std(const struct series *); /* of the population */

/* Least squares y = a + b x over n points; r2 is 1 for points on a line, NAN for fewer than two
 * different x. */
struct line_fit {
    double a, b, r2;
};
struct line_fit fit_line(const double *x, const double *y, size_t n);

#endif
