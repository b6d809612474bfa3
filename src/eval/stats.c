/* Statistics of scores. See stats.h. */
#include "eval/stats.h"

#include "base/rng.h"

#include <math.h>
#include <stdbool.h>

static const double z = 1.959963984540054; /* 97.5 % point of the normal distribution */

double stats_mean(const double *v, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += v[i];
    return n ? sum / n : NAN;
}

static double squares(const double *v, int n)
{
    double mean = stats_mean(v, n), sum = 0;
    for (int i = 0; i < n; i++)
        sum += (v[i] - mean) * (v[i] - mean);
    return sum;
}

double stats_std(const double *v, int n)
{
    return n ? sqrt(squares(v, n) / n) : NAN;
}

double stats_stderr(const double *v, int n)
{
    return n > 1 ? sqrt(squares(v, n) / (n - 1) / n) : NAN;
}

void stats_interval(const double *v, int n, double *lo, double *hi)
{
    double p = stats_mean(v, n), half = z * stats_stderr(v, n);
    bool binary = true;
    for (int i = 0; i < n; i++)
        binary = binary && (v[i] == 0 || v[i] == 1);
    if (n && binary) {
        double d = 1 + z * z / n, mid = (p + z * z / (2.0 * n)) / d;
        half = z / d * sqrt(p * (1 - p) / n + z * z / (4.0 * n * n));
        p = mid;
    }
    *lo = p - half;
    *hi = p + half;
}

double stats_bootstrap(const double *v, int n, uint64_t seed)
{
    enum { RESAMPLES = 1000 };
    double means[RESAMPLES];
    if (!n)
        return NAN;
    for (int k = 0; k < RESAMPLES; k++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            int j = (int)(rng_uniform(seed, (uint64_t)k, (uint64_t)i) * n);
            sum += v[j];
        }
        double m = sum / n;
        means[k] = m < 0 ? 0 : m > 1 ? 1 : m;
    }
    return stats_std(means, RESAMPLES);
}
