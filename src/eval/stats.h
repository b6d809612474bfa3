/* Means of scores and how sure they are. v is [n]; results of no values are NAN. */
#ifndef EVAL_STATS_H
#define EVAL_STATS_H

#include <stdint.h>

double stats_mean(const double *v, int n);
double stats_std(const double *v, int n);    /* of the population: divides by n */
double stats_stderr(const double *v, int n); /* sample std / sqrt(n); NAN for n < 2 */
/* 95 %: Wilson's interval when all values are 0 or 1, else mean +- 1.96 stderr. */
void stats_interval(const double *v, int n, double *lo, double *hi);
/* Standard deviation of the means of 1000 resamples, each clipped to [0, 1]. */
double stats_bootstrap(const double *v, int n, uint64_t seed);

#endif
