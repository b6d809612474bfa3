/* YaRN: low frequencies are interpolated (divided by the factor), high ones kept, with a linear
 * ramp between the two dimensions that turn beta_fast and beta_slow times within the trained
 * context.
 *
 * Frequencies are computed in double, then rounded to float once. At position p an error of one
 * float step in a frequency turns the angle by p * 6e-8, so two correct programs differ a little at
 * long range; nothing in the model depends on that.
 */
#include "model/rope.h"

#include <math.h>

/* The (fractional) dimension pair that makes `turns` turns over the trained context. */
static double pair_of_turns(const struct spec *s, double turns)
{
    const double two_pi = 6.283185307179586;
    return s->d_head * log(s->rope_ctx / (turns * two_pi)) / (2 * log(s->rope_theta));
}

double rope_frequencies(const struct spec *s, double *inv)
{
    double low = 0, high = 0;
    if (s->yarn) {
        low = pair_of_turns(s, s->beta_fast);
        high = pair_of_turns(s, s->beta_slow);
        if (s->rope_truncate) {
            low = floor(low);
            high = ceil(high);
        }
        low = fmax(low, 0);
        high = fmin(high, s->d_head - 1);
        if (low == high)
            high += 0.001; /* the reference's guard against a division by zero */
    }
    for (int i = 0; i < s->d_head / 2; i++) {
        double f = pow(s->rope_theta, -2.0 * i / s->d_head);
        double t = s->yarn ? fmin(fmax((i - low) / (high - low), 0), 1) : 0;
        inv[i] = f * (1 - t) + f / s->rope_factor * t;
    }
    return s->yarn ? s->rope_mscale : 1;
}

void rope_row(const struct spec *s, const double *inv, double factor, int pos, float *cos_out,
              float *sin_out)
{
    for (int i = 0; i < s->d_head / 2; i++) {
        float angle = (float)pos * (float)inv[i];
        cos_out[i] = (float)(cos((double)angle) * factor);
        sin_out[i] = (float)(sin((double)angle) * factor);
    }
}
