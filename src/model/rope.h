/* YaRN rotary embedding tables (model.md section 5; Peng et al., arXiv 2309.00071). */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "model/spec.h"

/* inv[d_head/2] angles per position; returns the factor on cos and sin (1 without YaRN). */
double rope_frequencies(const struct spec *s, double *inv);

/* cos and sin of one position, each [d_head/2], the factor included. Angles are formed in float32
 * as pos * (float)inv, as the reference does. */
void rope_row(const struct spec *s, const double *inv, double factor, int pos, float *cos_out,
              float *sin_out);

#endif
