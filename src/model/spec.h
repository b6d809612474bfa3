/* The shape of a checkpoint: everything the forward pass needs to know besides the weights.
 *
 * Read from config.json (Hugging Face, old and new spellings) or original/config.json, checked
 * once; afterwards every number here can be trusted. Letters used all over the program:
 * n_layer, d_model (hidden), n_head, n_kv_head, d_head, n_expert, n_active, d_ff (expert width),
 * n_vocab.
 */
#ifndef MODEL_SPEC_H
#define MODEL_SPEC_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct json;

enum {
    SPEC_MAX_LAYER = 256,
    SPEC_MAX_EXPERT = 1024,
    SPEC_MAX_ACTIVE = 16,
    SPEC_MAX_EOS = 8,
    SPEC_MAX_HEAD_DIM = 256,
};

struct spec {
    int n_layer, n_expert, n_active; /* n_active experts of n_expert per token */
    int d_model, d_ff;               /* multiples of 32 */
    int n_head, n_kv_head, d_head;   /* n_head a multiple of n_kv_head; d_head even */
    int n_vocab;
    bool tied;                    /* the unembedding is the embedding (tie_word_embeddings) */
    int window;                   /* keys a sliding layer sees, itself included */
    bool sliding[SPEC_MAX_LAYER]; /* per layer; the released models: even layers */
    int n_ctx;                    /* most positions */
    float norm_eps, swiglu_alpha, swiglu_limit;

    bool yarn; /* false: plain rope without scaling */
    double rope_theta, rope_factor, beta_fast, beta_slow;
    int rope_ctx;       /* positions before scaling (original_max_position_embeddings) */
    bool rope_truncate; /* floor/ceil the ramp; false in gpt-oss */
    double rope_mscale; /* factor on cos and sin; 0.1 ln(factor) + 1 unless given */

    int eos[SPEC_MAX_EOS], n_eos; /* from generation_config.json, else config.json */
    int bos, pad;                 /* -1 when absent */
};

/* Fills *s from a parsed config.json of either layout. E_FORMAT with the key at fault in `param`.
 */
MUST_USE status spec_from_json(const struct json *config, struct spec *s, struct err *e);

/* Takes eos, bos and pad from a parsed generation_config.json; absent keys change nothing. */
MUST_USE status spec_read_generation(const struct json *generation_config, struct spec *s,
                                     struct err *e);

/* The released shapes by name: "gpt-oss-20b", "gpt-oss-120b" ("openai/" prefix and "gpt-oss:20b"
 * accepted). NULL for any other name. */
const struct spec *spec_known(const char *name);

/* The name of a released shape that equals this one, else NULL. */
const char *spec_name(const struct spec *s);

/* Parameter counts (model.md section 7): all, and those used for one token (the unembedding
 * counts, the embedding does not). */
int64_t spec_params(const struct spec *s);
int64_t spec_params_active(const struct spec *s);

#endif
