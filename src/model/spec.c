/* Reads the shape of a checkpoint from its config.json and checks every number once.
 *
 * Three generations of files describe the same model: OpenAI's original/config.json, transformers 4
 * (rope_scaling, torch_dtype) and transformers 5 (rope_parameters, dtype). The names differ, not
 * the meaning, so one reader takes them all; a value given under two names must agree.
 */
#include "model/spec.h"
#include "base/json.h"
#include "base/num.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The released models (their config.json; model.md section 1). */
#define RELEASED(layers, experts)                                                                  \
    {                                                                                              \
        .n_layer = layers, .n_expert = experts, .n_active = 4, .d_model = 2880, .d_ff = 2880,      \
        .n_head = 64, .n_kv_head = 8, .d_head = 64, .n_vocab = 201088, .window = 128,              \
        .n_ctx = 131072, .norm_eps = 1e-5f, .swiglu_alpha = 1.702f, .swiglu_limit = 7.0f,          \
        .yarn = true, .rope_theta = 150000, .rope_factor = 32, .beta_fast = 32, .beta_slow = 1,    \
        .rope_ctx = 4096, .rope_mscale = 1.3465735902799727, .eos = {200002, 199999, 200012},      \
        .n_eos = 3, .bos = 199998, .pad = 199999, .sliding = {                                     \
            EVEN(layers)                                                                           \
        }                                                                                          \
    }
#define T4 true, false, true, false
#define EVEN(layers) EVEN_##layers
#define EVEN_24 T4, T4, T4, T4, T4, T4
#define EVEN_36 T4, T4, T4, T4, T4, T4, T4, T4, T4

static const struct spec gpt_oss_20b = RELEASED(24, 32);
static const struct spec gpt_oss_120b = RELEASED(36, 128);

const struct spec *spec_known(const char *name)
{
    static const struct {
        const char *name;
        const struct spec *spec;
    } known[] = {
        {"gpt-oss-20b", &gpt_oss_20b},
        {"gpt-oss:20b", &gpt_oss_20b},
        {"gpt-oss-120b", &gpt_oss_120b},
        {"gpt-oss:120b", &gpt_oss_120b},
    };
    if (strncmp(name, "openai/", 7) == 0)
        name += 7;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].spec;
    return NULL;
}

static bool same_model(const struct spec *a, const struct spec *b)
{
    return a->n_layer == b->n_layer && a->n_expert == b->n_expert && a->n_active == b->n_active &&
           a->d_model == b->d_model && a->d_ff == b->d_ff && a->n_head == b->n_head &&
           a->n_kv_head == b->n_kv_head && a->d_head == b->d_head && a->n_vocab == b->n_vocab &&
           a->window == b->window && a->n_ctx == b->n_ctx && a->norm_eps == b->norm_eps &&
           a->swiglu_alpha == b->swiglu_alpha && a->swiglu_limit == b->swiglu_limit &&
           a->tied == b->tied && a->yarn == b->yarn && a->rope_theta == b->rope_theta &&
           a->rope_factor == b->rope_factor && a->beta_fast == b->beta_fast &&
           a->beta_slow == b->beta_slow && a->rope_ctx == b->rope_ctx &&
           a->rope_truncate == b->rope_truncate && fabs(a->rope_mscale - b->rope_mscale) < 1e-12 &&
           memcmp(a->sliding, b->sliding, sizeof a->sliding) == 0;
}

const char *spec_name(const struct spec *s)
{
    if (same_model(s, &gpt_oss_20b))
        return "gpt-oss-20b";
    return same_model(s, &gpt_oss_120b) ? "gpt-oss-120b" : NULL;
}

/* Parameters of one layer when n_expert of its experts count. */
static int64_t layer_params(const struct spec *s, int n_expert)
{
    int64_t d = s->d_model, q = (int64_t)s->n_head * s->d_head;
    int64_t kv = (int64_t)s->n_kv_head * s->d_head;
    int64_t attention = (d + 1) * (q + 2 * kv) + (q + 1) * d + s->n_head + d;
    int64_t router = (d + 1) * (int64_t)s->n_expert + d;
    int64_t expert = (d + 1) * 2 * s->d_ff + ((int64_t)s->d_ff + 1) * d;
    return attention + router + n_expert * expert;
}

int64_t spec_params(const struct spec *s)
{
    int64_t embedding = (int64_t)s->n_vocab * s->d_model;
    return s->n_layer * layer_params(s, s->n_expert) + s->d_model + embedding * (s->tied ? 1 : 2);
}

int64_t spec_params_active(const struct spec *s)
{
    int64_t embedding = (int64_t)s->n_vocab * s->d_model;
    return s->n_layer * layer_params(s, s->n_active) + s->d_model + embedding;
}

/* ---- reading config.json ---- */

/* Reads an integer known under several names (a NULL ends the list). Absent: E_FORMAT when there is
 * no default (*v < 0), else *v stays. Two names with different values: E_FORMAT. */
static status get_int(const struct json *c, const char *const *names, int64_t lo, int64_t hi,
                      int *v, struct err *e)
{
    const char *found = NULL, *first = *names;
    for (; *names; names++) {
        if (json_absent(json_get(c, *names)))
            continue;
        int64_t x = 0;
        status st = json_get_int(c, *names, lo, hi, &x, e);
        if (st < 0)
            return st;
        if (found && x != *v)
            return err_param(e, E_FORMAT, *names, "\"%s\" and \"%s\" differ: %d and %lld", found,
                             *names, *v, (long long)x);
        found = *names;
        *v = (int)x;
    }
    if (!found && *v < 0)
        return err_param(e, E_FORMAT, first, "\"%s\" is missing", first);
    return OK;
}
#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static status get_float(const struct json *c, const char *name, double lo, double hi, float *v,
                        struct err *e)
{
    double x = (double)*v;
    status st = json_get_num(c, name, lo, hi, &x, e);
    if (st == OK && !json_absent(json_get(c, name)))
        *v = (float)x;
    return st;
}

static bool str_is(const struct json *j, const char *want)
{
    return json_kind(j) == J_STR && strcmp(json_str(j, NULL), want) == 0;
}

/* What the forward pass does not know must be refused here, not silently computed otherwise. */
static status check_kind(const struct json *c, struct err *e)
{
    if (json_kind(c) != J_OBJ)
        return err_set(e, E_FORMAT, "the configuration is not a JSON object");
    const struct json *type = json_get(c, "model_type");
    if (!json_absent(type) && !str_is(type, "gpt_oss"))
        return err_param(e, E_FORMAT, "model_type", "\"model_type\" is \"%.40s\", not \"gpt_oss\"",
                         json_kind(type) == J_STR ? json_str(type, NULL) : "?");
    bool attention_bias = true;
    status st = json_get_bool(c, "attention_bias", &attention_bias, e);
    if (st < 0)
        return st;
    if (!attention_bias)
        return err_param(e, E_FORMAT, "attention_bias",
                         "\"attention_bias\" false: gpt-oss has biases in its attention");
    const struct json *quant = json_get(c, "quantization_config");
    const struct json *method = json_get(quant, "quant_method");
    if (!json_absent(quant) && !str_is(method, "mxfp4"))
        return err_param(e, E_FORMAT, "quant_method",
                         "\"quant_method\" \"%.40s\": only mxfp4 is read",
                         json_kind(method) == J_STR ? json_str(method, NULL) : "?");
    return OK;
}

static status read_layers(const struct json *c, struct spec *s, struct err *e)
{
    const struct json *types = json_get(c, "layer_types"), *window = json_get(c, "sliding_window");
    for (int i = 0; i < s->n_layer; i++)
        s->sliding[i] = i % 2 == 0;
    if (!json_absent(types)) {
        if (json_kind(types) != J_ARR || json_len(types) != (size_t)s->n_layer)
            return err_param(e, E_FORMAT, "layer_types",
                             "\"layer_types\" must be a list of %d names, one per layer",
                             s->n_layer);
        for (int i = 0; i < s->n_layer; i++) {
            const struct json *t = json_at(types, (size_t)i);
            s->sliding[i] = str_is(t, "sliding_attention");
            if (!s->sliding[i] && !str_is(t, "full_attention"))
                return err_param(e, E_FORMAT, "layer_types",
                                 "\"layer_types\"[%d] is neither \"sliding_attention\" nor "
                                 "\"full_attention\"",
                                 i);
        }
    }
    s->window = 128;
    /* An explicit null is transformers' "no window": only right when no layer slides. */
    bool no_window = window && json_absent(window);
    for (int i = 0; no_window && i < s->n_layer; i++)
        if (s->sliding[i])
            return err_param(e, E_FORMAT, "sliding_window",
                             "\"sliding_window\" is null but layer %d slides", i);
    return get_int(c, NAMES("sliding_window"), 1, 1 << 24, &s->window, e);
}

/* 0.1 m ln(factor) + 1: the paper's attention scaling, as transformers generalises it. */
static double yarn_mscale(double factor, double m)
{
    return factor <= 1 ? 1.0 : 0.1 * m * log(factor) + 1.0;
}

/* The rope keys of transformers: an object under its old or new name. */
static status read_rope_hf(const struct json *c, struct spec *s, struct err *e)
{
    status st = OK;
    const char *name =
        !json_absent(json_get(c, "rope_scaling")) ? "rope_scaling" : "rope_parameters";
    const struct json *r = json_get(c, name);
    if (json_absent(r)) {
        /* transformers' default for this model is the released models' YaRN */
        TRY(json_get_num(c, "rope_theta", 1.0001, 1e12, &s->rope_theta, e));
        return OK;
    }
    if (json_kind(r) != J_OBJ)
        return err_param(e, E_FORMAT, name, "\"%s\" must be an object", name);
    if (json_get(r, "sliding_attention") || json_get(r, "full_attention"))
        return err_param(e, E_FORMAT, name, "\"%s\" per layer type is not supported", name);
    const struct json *type = json_get(r, "rope_type");
    if (json_absent(type))
        type = json_get(r, "type");
    if (json_absent(type) && !json_absent(json_get(r, "factor")))
        return err_param(e, E_FORMAT, "rope_type", "\"%s\" has a factor but no \"rope_type\"",
                         name);
    s->yarn = str_is(type, "yarn");
    if (!s->yarn && !json_absent(type) && !str_is(type, "default"))
        return err_param(e, E_FORMAT, "rope_type",
                         "\"rope_type\" \"%.40s\": only \"yarn\" and \"default\" are supported",
                         json_kind(type) == J_STR ? json_str(type, NULL) : "?");
    double partial = 1;
    TRY(json_get_num(c, "partial_rotary_factor", 0, 1, &partial, e));
    TRY(json_get_num(r, "partial_rotary_factor", 0, 1, &partial, e));
    if (partial != 1)
        return err_param(e, E_FORMAT, "partial_rotary_factor",
                         "\"partial_rotary_factor\" %g: only whole heads are rotated", partial);
    TRY(json_get_num(c, "rope_theta", 1.0001, 1e12, &s->rope_theta, e));
    TRY(json_get_num(r, "rope_theta", 1.0001, 1e12, &s->rope_theta, e));
    if (!s->yarn) {
        s->rope_factor = s->rope_mscale = 1;
        return OK;
    }
    s->rope_ctx = s->n_ctx;
    TRY(get_int(c, NAMES("initial_context_length"), 1, 1 << 30, &s->rope_ctx, e));
    TRY(get_int(r, NAMES("original_max_position_embeddings"), 1, 1 << 30, &s->rope_ctx, e));
    s->rope_factor = (double)s->n_ctx / s->rope_ctx;
    TRY(json_get_num(r, "factor", 1, 1e6, &s->rope_factor, e));
    TRY(json_get_num(r, "beta_fast", 1e-6, 1e6, &s->beta_fast, e));
    TRY(json_get_num(r, "beta_slow", 1e-6, 1e6, &s->beta_slow, e));
    /* Generic YaRN truncates unless told otherwise; gpt-oss never does, and early gpt-oss files
     * lack the key. */
    TRY(json_get_bool(r, "truncate", &s->rope_truncate, e));
    double m = 0, m_all = 0;
    TRY(json_get_num(r, "mscale", 0, 1e3, &m, e));
    TRY(json_get_num(r, "mscale_all_dim", 0, 1e3, &m_all, e));
    s->rope_mscale = m != 0 && m_all != 0
                         ? yarn_mscale(s->rope_factor, m) / yarn_mscale(s->rope_factor, m_all)
                         : yarn_mscale(s->rope_factor, 1);
    TRY(json_get_num(r, "attention_factor", 1e-3, 1e3, &s->rope_mscale, e));
out:
    return st;
}

/* The rope keys of original/config.json, all at the top. A factor of 1 means no scaling. */
static status read_rope_original(const struct json *c, struct spec *s, struct err *e)
{
    status st = OK;
    TRY(json_get_num(c, "rope_theta", 1.0001, 1e12, &s->rope_theta, e));
    TRY(json_get_num(c, "rope_scaling_factor", 1, 1e6, &s->rope_factor, e));
    TRY(json_get_num(c, "rope_ntk_alpha", 1e-6, 1e6, &s->beta_slow, e));
    TRY(json_get_num(c, "rope_ntk_beta", 1e-6, 1e6, &s->beta_fast, e));
    TRY(get_int(c, NAMES("initial_context_length"), 1, 1 << 24, &s->rope_ctx, e));
    s->yarn = s->rope_factor > 1;
    s->rope_mscale = yarn_mscale(s->rope_factor, 1);
    s->n_ctx = (int)fmin(s->rope_ctx * s->rope_factor, 1 << 30);
out:
    return st;
}

static status read_token(const struct json *c, const char *key, int *v, struct err *e)
{
    return get_int(c, NAMES(key), 0, 1 << 24, v, e);
}

/* bos, pad and one or several eos. Absent keys leave *s as it is. */
static status read_tokens(const struct json *c, struct spec *s, struct err *e)
{
    status st = OK;
    if (!json_absent(json_get(c, "bos_token_id")))
        TRY(read_token(c, "bos_token_id", &s->bos, e));
    if (!json_absent(json_get(c, "pad_token_id")))
        TRY(read_token(c, "pad_token_id", &s->pad, e));
    const struct json *eos = json_get(c, "eos_token_id");
    if (json_absent(eos))
        return OK;
    if (json_kind(eos) != J_ARR) {
        TRY(read_token(c, "eos_token_id", &s->eos[0], e));
        s->n_eos = 1;
        return OK;
    }
    size_t n = json_len(eos);
    if (n > SPEC_MAX_EOS)
        return err_param(e, E_FORMAT, "eos_token_id", "\"eos_token_id\" has %zu values, at most %d",
                         n, SPEC_MAX_EOS);
    for (size_t i = 0; i < n; i++) {
        const struct json *t = json_at(eos, i);
        if (json_kind(t) != J_INT || json_int(t) < 0 || json_int(t) > 1 << 24)
            return err_param(e, E_FORMAT, "eos_token_id", "\"eos_token_id\"[%zu] is no token", i);
        s->eos[i] = (int)json_int(t);
    }
    s->n_eos = (int)n;
out:
    return st;
}

static status check_shape(const struct spec *s, struct err *e)
{
    if (s->d_model % 32)
        return err_param(e, E_FORMAT, "hidden_size", "\"hidden_size\" %d is not a multiple of 32",
                         s->d_model);
    if (s->d_ff % 32)
        return err_param(e, E_FORMAT, "intermediate_size",
                         "\"intermediate_size\" %d is not a multiple of 32", s->d_ff);
    if (s->d_head % 2)
        return err_param(e, E_FORMAT, "head_dim", "\"head_dim\" %d is odd", s->d_head);
    if (s->n_kv_head > s->n_head || s->n_head % s->n_kv_head)
        return err_param(e, E_FORMAT, "num_key_value_heads",
                         "\"num_attention_heads\" %d is not a multiple of "
                         "\"num_key_value_heads\" %d",
                         s->n_head, s->n_kv_head);
    if (s->n_active > s->n_expert)
        return err_param(e, E_FORMAT, "num_experts_per_tok",
                         "\"num_experts_per_tok\" %d of only %d experts", s->n_active, s->n_expert);
    if (s->yarn && s->beta_fast <= s->beta_slow)
        return err_param(e, E_FORMAT, "beta_fast", "\"beta_fast\" %g must exceed \"beta_slow\" %g",
                         s->beta_fast, s->beta_slow);
    return OK;
}

status spec_from_json(const struct json *c, struct spec *out, struct err *e)
{
    status st = OK;
    struct spec s = {
        .n_layer = -1,
        .n_expert = -1,
        .n_active = -1,
        .d_model = -1,
        .d_ff = -1,
        .n_head = -1,
        .n_vocab = -1,
        .d_head = 64,
        .norm_eps = 1e-5f,
        .swiglu_alpha = 1.702f,
        .swiglu_limit = 7.0f,
        .yarn = true,
        .rope_theta = 150000,
        .rope_factor = 32,
        .beta_fast = 32,
        .beta_slow = 1,
        .rope_ctx = 4096,
        .n_ctx = 131072,
        .rope_mscale = yarn_mscale(32, 1),
        .bos = -1,
        .pad = -1,
    };
    TRY(check_kind(c, e));
    TRY(get_int(c, NAMES("num_hidden_layers"), 1, SPEC_MAX_LAYER, &s.n_layer, e));
    TRY(get_int(c, NAMES("num_local_experts", "num_experts"), 1, SPEC_MAX_EXPERT, &s.n_expert, e));
    TRY(get_int(c, NAMES("num_experts_per_tok", "experts_per_token"), 1, SPEC_MAX_ACTIVE,
                &s.n_active, e));
    TRY(get_int(c, NAMES("hidden_size"), 1, 1 << 16, &s.d_model, e));
    TRY(get_int(c, NAMES("intermediate_size"), 1, 1 << 16, &s.d_ff, e));
    TRY(get_int(c, NAMES("num_attention_heads"), 1, 1024, &s.n_head, e));
    s.n_kv_head = s.n_head;
    TRY(get_int(c, NAMES("num_key_value_heads"), 1, 1024, &s.n_kv_head, e));
    TRY(get_int(c, NAMES("head_dim"), 2, SPEC_MAX_HEAD_DIM, &s.d_head, e));
    TRY(get_int(c, NAMES("vocab_size"), 1, 1 << 24, &s.n_vocab, e));
    TRY(get_int(c, NAMES("max_position_embeddings"), 1, 1 << 30, &s.n_ctx, e));
    TRY(get_float(c, "rms_norm_eps", 1e-12, 1, &s.norm_eps, e));
    TRY(get_float(c, "swiglu_limit", 1e-3, 1e6, &s.swiglu_limit, e));
    TRY(get_float(c, "swiglu_alpha", 1e-3, 1e3, &s.swiglu_alpha, e));
    TRY(json_get_bool(c, "tie_word_embeddings", &s.tied, e));
    TRY(read_layers(c, &s, e));
    if (json_absent(json_get(c, "rope_scaling_factor")))
        TRY(read_rope_hf(c, &s, e));
    else
        TRY(read_rope_original(c, &s, e));
    TRY(read_tokens(c, &s, e));
    TRY(check_shape(&s, e));
    *out = s;
out:
    /* The typed getters speak of input; here the input is a file. */
    if (st == E_INPUT) {
        st = E_FORMAT;
        if (e)
            e->code = st;
    }
    return st;
}

status spec_read_generation(const struct json *generation_config, struct spec *s, struct err *e)
{
    status st = read_tokens(generation_config, s, e);
    if (st == E_INPUT) {
        st = E_FORMAT;
        if (e)
            e->code = st;
    }
    return st;
}
