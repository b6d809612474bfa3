/* The plan behind gloss_synth, for its test: which tensors a checkpoint of a shape has. */
#ifndef SYNTH_H
#define SYNTH_H

#include "model/shards.h"
#include "model/spec.h"

/* Declares every tensor of the layout in file order. */
MUST_USE status synth_declare(const struct spec *s, bool original, bool bf16_experts,
                              struct shards *out, struct err *e);

#endif
