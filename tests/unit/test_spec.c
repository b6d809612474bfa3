/* config.json of every generation into struct spec, and what must be refused. */
#include "base/json.h"
#include "model/spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static status parse(const char *text, struct spec *s, struct err *e)
{
    struct json *j;
    memset(e, 0, sizeof *e);
    assert_int_equal(json_parse(text, strlen(text), &json_limits_file, &j, e), OK);
    status st = spec_from_json(j, s, e);
    json_free(j);
    return st;
}

#define OLD_20B                                                                                    \
    "\"architectures\":[\"GptOssForCausalLM\"],\"attention_bias\":true,\"attention_dropout\":0.0," \
    "\"eos_token_id\":200002,\"experts_per_token\":4,\"head_dim\":64,\"hidden_act\":\"silu\","     \
    "\"hidden_size\":2880,\"initial_context_length\":4096,\"intermediate_size\":2880,"             \
    "\"max_position_embeddings\":131072,\"model_type\":\"gpt_oss\",\"num_attention_heads\":64,"    \
    "\"num_experts_per_tok\":4,\"num_hidden_layers\":24,\"num_key_value_heads\":8,"                \
    "\"num_local_experts\":32,\"pad_token_id\":199999,\"rms_norm_eps\":1e-05,"                     \
    "\"sliding_window\":128,\"swiglu_limit\":7.0,\"tie_word_embeddings\":false,"                   \
    "\"vocab_size\":201088"
#define OLD_ROPE                                                                                   \
    ",\"rope_theta\":150000,\"rope_scaling\":{\"beta_fast\":32.0,\"beta_slow\":1.0,"               \
    "\"factor\":32.0,\"original_max_position_embeddings\":4096,\"rope_type\":\"yarn\","            \
    "\"truncate\":false}"
#define NEW_ROPE                                                                                   \
    ",\"rope_parameters\":{\"beta_fast\":32.0,\"beta_slow\":1.0,\"factor\":32.0,"                  \
    "\"original_max_position_embeddings\":4096,\"rope_theta\":150000,\"rope_type\":\"yarn\","      \
    "\"truncate\":false}"
#define ORIGINAL_20B                                                                               \
    "{\"num_hidden_layers\":24,\"num_experts\":32,\"experts_per_token\":4,\"vocab_size\":201088,"  \
    "\"hidden_size\":2880,\"intermediate_size\":2880,\"swiglu_limit\":7.0,\"head_dim\":64,"        \
    "\"num_attention_heads\":64,\"num_key_value_heads\":8,\"sliding_window\":128,"                 \
    "\"initial_context_length\":4096,\"rope_theta\":150000,\"rope_scaling_factor\":32.0,"          \
    "\"rope_ntk_alpha\":1,\"rope_ntk_beta\":32}"

static void every_spelling_is_the_20b(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{" OLD_20B OLD_ROPE ",\"torch_dtype\":\"bfloat16\"}",
        "{" OLD_20B NEW_ROPE ",\"dtype\":\"bfloat16\",\"swiglu_alpha\":1.702}",
        ORIGINAL_20B,
        /* neither rope key: transformers' default for this model is the same YaRN */
        "{" OLD_20B "}",
        "{" OLD_20B ",\"rope_scaling\":null}",
        /* 4.55-era files without truncate */
        "{" OLD_20B ",\"rope_theta\":150000,\"rope_scaling\":{\"factor\":32.0,"
        "\"original_max_position_embeddings\":4096,\"rope_type\":\"yarn\"}}",
        /* the context before scaling under its other name */
        "{" OLD_20B ",\"rope_scaling\":{\"factor\":32,\"type\":\"yarn\"}}",
        "{" OLD_20B OLD_ROPE ",\"quantization_config\":{\"quant_method\":\"mxfp4\"}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct spec s;
        struct err e;
        if (parse(texts[i], &s, &e) < 0)
            fail_msg("%zu: %s", i, e.msg);
        const char *name = spec_name(&s);
        if (!name || strcmp(name, "gpt-oss-20b") != 0)
            fail_msg("%zu: not recognised as the 20b model", i);
    }
}

static void counts(void **state)
{
    (void)state;
    const struct spec *s = spec_known("openai/gpt-oss-20b"), *b = spec_known("gpt-oss:120b");
    assert_non_null(s);
    assert_non_null(b);
    assert_null(spec_known("gpt-oss-40b"));
    /* model.md section 7 */
    assert_true(spec_params(s) == 20914757184);
    assert_true(spec_params_active(s) == 3608307264);
    assert_true(spec_params(b) == 116829156672);
    assert_true(spec_params_active(b) == 5132849472);
    assert_string_equal(spec_name(b), "gpt-oss-120b");
    assert_true(s->sliding[0] && !s->sliding[1] && s->sliding[22] && !s->sliding[23]);
    assert_false(s->sliding[24]);
    struct spec other = *s;
    other.rope_truncate = true;
    assert_null(spec_name(&other));
}

#define SMALL(extra)                                                                               \
    "{\"num_hidden_layers\":3,\"num_local_experts\":8,\"num_experts_per_tok\":2,"                  \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":4,"                       \
    "\"num_key_value_heads\":2,\"vocab_size\":100" extra "}"

static void variants(void **state)
{
    (void)state;
    struct spec s;
    struct err e;
    assert_int_equal(parse(SMALL(""), &s, &e), OK);
    assert_int_equal(s.d_head, 64);
    assert_int_equal(s.window, 128);
    assert_true(s.yarn && !s.rope_truncate && s.bos == -1 && s.n_eos == 0);
    assert_int_equal(
        parse(SMALL(",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e4}"), &s, &e),
        OK);
    assert_false(s.yarn);
    assert_true(s.rope_theta == 1e4 && s.rope_factor == 1 && s.rope_mscale == 1);
    assert_int_equal(parse(SMALL(",\"layer_types\":[\"full_attention\",\"full_attention\","
                                 "\"sliding_attention\"],\"sliding_window\":7"),
                           &s, &e),
                     OK);
    assert_true(!s.sliding[0] && !s.sliding[1] && s.sliding[2] && s.window == 7);
    assert_int_equal(parse(SMALL(",\"layer_types\":[\"full_attention\",\"full_attention\","
                                 "\"full_attention\"],\"sliding_window\":null"),
                           &s, &e),
                     OK);
    assert_int_equal(parse(SMALL(",\"tie_word_embeddings\":true,\"eos_token_id\":[1,2,3],"
                                 "\"bos_token_id\":4"),
                           &s, &e),
                     OK);
    assert_true(s.tied && s.n_eos == 3 && s.eos[2] == 3 && s.bos == 4);
    assert_int_equal(parse(SMALL(",\"max_position_embeddings\":512,\"rope_scaling\":{\"rope_type\":"
                                 "\"yarn\",\"factor\":8,\"original_max_position_embeddings\":64,"
                                 "\"mscale\":1,\"mscale_all_dim\":0.5,\"truncate\":true}"),
                           &s, &e),
                     OK);
    assert_true(s.rope_truncate && s.rope_ctx == 64);
    assert_true(fabs(s.rope_mscale - (0.1 * log(8) + 1) / (0.05 * log(8) + 1)) < 1e-12);
    /* original/ with a factor of 1: no scaling at all */
    assert_int_equal(parse("{\"num_hidden_layers\":2,\"num_experts\":4,\"experts_per_token\":2,"
                           "\"vocab_size\":9,\"hidden_size\":32,\"intermediate_size\":32,"
                           "\"num_attention_heads\":2,\"num_key_value_heads\":1,"
                           "\"initial_context_length\":256,\"rope_scaling_factor\":1}",
                           &s, &e),
                     OK);
    assert_true(!s.yarn && s.n_ctx == 256 && s.rope_mscale == 1);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *param, *says;
    } bad[] = {
        {"[]", "", "not a JSON object"},
        {"{}", "num_hidden_layers", "missing"},
        {SMALL(",\"hidden_size\":1"), "", ""}, /* duplicate key: the JSON reader refuses */
        {SMALL(",\"model_type\":\"llama\""), "model_type", "llama"},
        {SMALL(",\"attention_bias\":false"), "attention_bias", "biases"},
        {SMALL(",\"quantization_config\":{\"quant_method\":\"gptq\"}"), "quant_method", "gptq"},
        {SMALL(",\"experts_per_token\":3"), "experts_per_token", "differ"},
        {SMALL(",\"layer_types\":[\"full_attention\"]"), "layer_types", "3 names"},
        {SMALL(",\"layer_types\":[\"full_attention\",\"x\",\"x\"]"), "layer_types", "[1]"},
        {SMALL(",\"sliding_window\":null"), "sliding_window", "slides"},
        {SMALL(",\"sliding_window\":0"), "sliding_window", "between 1"},
        {SMALL(",\"head_dim\":63"), "head_dim", "odd"},
        {SMALL(",\"head_dim\":100000"), "head_dim", "between"},
        {SMALL(",\"rms_norm_eps\":0"), "rms_norm_eps", "between"},
        {SMALL(",\"rms_norm_eps\":\"small\""), "rms_norm_eps", "number"},
        {SMALL(",\"tie_word_embeddings\":1"), "tie_word_embeddings", "true or false"},
        {SMALL(",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}"), "rope_type", "llama3"},
        {SMALL(",\"rope_scaling\":{\"factor\":8}"), "rope_type", "no \"rope_type\""},
        {SMALL(",\"rope_scaling\":7"), "rope_scaling", "object"},
        {SMALL(",\"rope_parameters\":{\"full_attention\":{},\"sliding_attention\":{}}"),
         "rope_parameters", "per layer type"},
        {SMALL(",\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"rope_type\":\"yarn\"}"),
         "partial_rotary_factor", "whole heads"},
        {SMALL(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8,\"beta_fast\":1}"),
         "beta_fast", "exceed"},
        {SMALL(",\"rope_theta\":1e400"), "", ""},
        {SMALL(",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]"), "eos_token_id", "at most"},
        {SMALL(",\"eos_token_id\":-4"), "eos_token_id", "between"},
        {"{\"num_hidden_layers\":3,\"num_local_experts\":8,\"num_experts_per_tok\":2,"
         "\"hidden_size\":2881,\"intermediate_size\":96,\"num_attention_heads\":4,"
         "\"num_key_value_heads\":2,\"vocab_size\":100}",
         "hidden_size", "2881 is not a multiple of 32"},
        {"{\"num_hidden_layers\":3,\"num_local_experts\":8,\"num_experts_per_tok\":2,"
         "\"hidden_size\":64,\"intermediate_size\":97,\"num_attention_heads\":4,"
         "\"num_key_value_heads\":2,\"vocab_size\":100}",
         "intermediate_size", "97 is not a multiple of 32"},
        {"{\"num_hidden_layers\":3,\"num_local_experts\":8,\"num_experts_per_tok\":9,"
         "\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":4,"
         "\"num_key_value_heads\":2,\"vocab_size\":100}",
         "num_experts_per_tok", "only 8"},
        {"{\"num_hidden_layers\":3,\"num_local_experts\":8,\"num_experts_per_tok\":2,"
         "\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":4,"
         "\"num_key_value_heads\":3,\"vocab_size\":100}",
         "num_key_value_heads", "multiple"},
        {"{\"num_hidden_layers\":257}", "num_hidden_layers", "between"},
        {"{\"num_hidden_layers\":1e30}", "num_hidden_layers", "between"},
        {"{\"num_hidden_layers\":-1}", "num_hidden_layers", "between"},
        {"{\"num_hidden_layers\":1.5}", "num_hidden_layers", "integer"},
        {"{\"num_hidden_layers\":\"24\"}", "num_hidden_layers", "integer"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct spec s;
        struct err e = {0};
        struct json *j;
        if (json_parse(bad[i].text, strlen(bad[i].text), &json_limits_file, &j, &e) < 0)
            continue; /* refused one layer down */
        status st = spec_from_json(j, &s, &e);
        json_free(j);
        if (st != E_FORMAT || e.code != st || strcmp(e.param, bad[i].param) != 0 ||
            !strstr(e.msg, bad[i].says))
            fail_msg("%zu: %d \"%s\" \"%s\"", i, st, e.param, e.msg);
    }
}

static void generation_config(void **state)
{
    (void)state;
    struct spec s = {.eos = {7}, .n_eos = 1, .bos = -1, .pad = 3};
    struct err e;
    struct json *j;
    static const char text[] = "{\"bos_token_id\":199998,\"eos_token_id\":[200002,199999,200012]}";
    assert_int_equal(json_parse(text, strlen(text), &json_limits_file, &j, &e), OK);
    assert_int_equal(spec_read_generation(j, &s, &e), OK);
    json_free(j);
    assert_true(s.n_eos == 3 && s.eos[0] == 200002 && s.eos[2] == 200012);
    assert_true(s.bos == 199998 && s.pad == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_is_the_20b),
        cmocka_unit_test(counts),
        cmocka_unit_test(variants),
        cmocka_unit_test(refused),
        cmocka_unit_test(generation_config),
    };
    return cmocka_run_group_tests_name("spec", tests, NULL, NULL);
}
