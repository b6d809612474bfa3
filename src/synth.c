/* gloss_synth: a checkpoint of the released layout (names, shapes, types, files) with random
 * weights, for tests and speed work at full size without the real ones.
 *
 * The values only need a sane scale: activations must neither die out nor overflow, the softmax
 * must not collapse, the router must use all experts. Dense values are drawn from a table of 4096
 * normal numbers, expert codes are plain random bytes; so the disk, not the generator, is the
 * limit. Every tensor has its own stream of numbers: the same seed gives the same bytes.
 */
#include "synth.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/folder.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "gloss.h"
#include "model/mxfp4.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PIECE = 4 << 20, N_TABLE = 4096 };

/* The hub's files hold a little under 5 GB each; original/ of the 20b model is one file. */
static const size_t max_shard_hf = 4810000000u, max_shard_original = 15000000000u;

/* How a tensor's bytes are made: normal bf16 values, or the bytes of MXFP4 codes or scales. */
enum fill { FILL_NORMAL, FILL_CODES, FILL_SCALES };

struct synth {
    const struct spec *s;
    bool original, bf16_experts;
    struct shards *out;
    struct err *e;
    /* Second pass only: the bytes. */
    bool writing;
    uint64_t seed;
    int n_tensor; /* streams count on */
    const struct gloss_synth_opts *opts;
    int64_t done, total;
    uint16_t *table; /* [N_TABLE] bf16 */
    uint8_t *piece;  /* [PIECE] */
};

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): one multiply chain per eight bytes. */
static inline uint64_t next64(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static void fill_normal(uint16_t *p, size_t n, const uint16_t *table, uint64_t *state)
{
    for (size_t i = 0; i + 4 <= n; i += 4) {
        uint64_t r = next64(state);
        p[i] = table[r % N_TABLE];
        p[i + 1] = table[r >> 16 & (N_TABLE - 1)];
        p[i + 2] = table[r >> 32 & (N_TABLE - 1)];
        p[i + 3] = table[r >> 48 & (N_TABLE - 1)];
    }
    for (size_t i = n / 4 * 4; i < n; i++)
        p[i] = table[next64(state) % N_TABLE];
}

static void fill_bytes(uint8_t *p, size_t n, uint64_t *state)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t r = next64(state);
        memcpy(p + i, &r, n - i < 8 ? n - i : 8);
    }
}

/* Writes n_bytes of one tensor. Uniform codes have a root mean square of 2.93 scales; scales take
 * three neighbouring values about the one that gives sigma. */
static status write_tensor(struct synth *y, enum fill fill, float mean, float sigma, size_t n_bytes)
{
    uint32_t word[4];
    rng_block(y->seed, (uint64_t)y->n_tensor, 0, word);
    uint64_t state = (uint64_t)word[0] << 32 | word[1];
    for (uint64_t i = 0; fill == FILL_NORMAL && i < N_TABLE; i += 4) {
        float z[4];
        rng_normal4(y->seed, 1ull << 32, i, z);
        for (int k = 0; k < 4; k++)
            y->table[i + (uint64_t)k] = f32_bf16(mean + sigma * z[k]);
    }
    int base = 126 + (int)floorf(log2f(sigma / 2.93f));
    for (size_t at = 0; at < n_bytes; at += PIECE) {
        size_t n = n_bytes - at < PIECE ? n_bytes - at : PIECE;
        if (fill == FILL_NORMAL)
            fill_normal((uint16_t *)(void *)y->piece, n / 2, y->table, &state);
        else
            fill_bytes(y->piece, n, &state);
        for (size_t i = 0; fill == FILL_SCALES && i < n; i++)
            y->piece[i] = (uint8_t)(base + (y->piece[i] * 3 >> 8));
        status st = shards_write(y->out, y->piece, n, y->e);
        if (st < 0)
            return st;
        y->done += (int64_t)n;
        if (y->opts->progress && y->opts->progress(y->opts->ctx, y->done, y->total))
            return err_set(y->e, E_CANCEL, "stopped");
    }
    return OK;
}

/* Declares or writes one tensor. `layer` < 0: the name has no number in it. */
static status tensor(struct synth *y, int layer, const char *name, enum fill fill,
                     const int64_t *dim, int n_dim, float mean, float sigma)
{
    char full[128];
    enum dtype t = fill == FILL_NORMAL ? DT_BF16 : DT_U8;
    size_t n = dtype_size(t);
    for (int i = 0; i < n_dim; i++)
        n *= (size_t)dim[i];
    y->n_tensor++;
    if (y->writing)
        return write_tensor(y, fill, mean, sigma, n);
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, y->original ? "block.%d.%s" : "model.layers.%d.%s", layer,
                 name);
    return shards_declare(y->out, full, t, dim, n_dim, y->e);
}

static status dense(struct synth *y, int layer, const char *hf, const char *original, int64_t n_out,
                    int64_t n_in, float mean, float sigma)
{
    int64_t dim[2] = {n_out, n_in};
    return tensor(y, layer, y->original ? original : hf, FILL_NORMAL, dim, n_in ? 2 : 1, mean,
                  sigma);
}

/* One expert matrix: blocks and scales, or bf16 (input-major in the HF layout). */
static status expert(struct synth *y, int layer, const char *hf, const char *original,
                     int64_t n_out, int64_t n_in)
{
    status st = OK;
    int64_t n_expert = y->s->n_expert;
    float sigma = 1.5f / sqrtf((float)n_in);
    char name[96];
    if (y->bf16_experts) {
        int64_t dim[3] = {n_expert, y->original ? n_out : n_in, y->original ? n_in : n_out};
        return tensor(y, layer, y->original ? original : hf, FILL_NORMAL, dim, 3, 0, sigma);
    }
    int64_t dim[4] = {n_expert, n_out, n_in / MX_BLOCK, MX_BLOCK_BYTES};
    snprintf(name, sizeof name, y->original ? "%s.blocks" : "%s_blocks",
             y->original ? original : hf);
    TRY(tensor(y, layer, name, FILL_CODES, dim, 4, 0, sigma));
    snprintf(name, sizeof name, y->original ? "%s.scales" : "%s_scales",
             y->original ? original : hf);
    TRY(tensor(y, layer, name, FILL_SCALES, dim, 3, 0, sigma));
out:
    return st;
}

static status attention(struct synth *y, int l)
{
    status st = OK;
    const struct spec *s = y->s;
    int64_t d = s->d_model, q = (int64_t)s->n_head * s->d_head;
    int64_t kv = (int64_t)s->n_kv_head * s->d_head;
    float w = 1 / sqrtf((float)d), wo = 1 / sqrtf((float)q);
    TRY(dense(y, l, "input_layernorm.weight", "attn.norm.scale", d, 0, 1, 0.1f));
    if (y->original) {
        TRY(dense(y, l, NULL, "attn.qkv.weight", q + 2 * kv, d, 0, w));
        TRY(dense(y, l, NULL, "attn.qkv.bias", q + 2 * kv, 0, 0, 0.1f));
    } else {
        TRY(dense(y, l, "self_attn.q_proj.weight", NULL, q, d, 0, w));
        TRY(dense(y, l, "self_attn.q_proj.bias", NULL, q, 0, 0, 0.1f));
        TRY(dense(y, l, "self_attn.k_proj.weight", NULL, kv, d, 0, w));
        TRY(dense(y, l, "self_attn.k_proj.bias", NULL, kv, 0, 0, 0.1f));
        TRY(dense(y, l, "self_attn.v_proj.weight", NULL, kv, d, 0, w));
        TRY(dense(y, l, "self_attn.v_proj.bias", NULL, kv, 0, 0, 0.1f));
    }
    TRY(dense(y, l, "self_attn.sinks", "attn.sinks", s->n_head, 0, 0, 1));
    TRY(dense(y, l, "self_attn.o_proj.weight", "attn.out.weight", d, q, 0, wo));
    TRY(dense(y, l, "self_attn.o_proj.bias", "attn.out.bias", d, 0, 0, 0.1f));
out:
    return st;
}

static status mlp(struct synth *y, int l)
{
    status st = OK;
    const struct spec *s = y->s;
    int64_t d = s->d_model, f = s->d_ff, n_e = s->n_expert;
    TRY(dense(y, l, "post_attention_layernorm.weight", "mlp.norm.scale", d, 0, 1, 0.1f));
    TRY(dense(y, l, "mlp.router.weight", "mlp.gate.weight", n_e, d, 0, 1 / sqrtf((float)d)));
    TRY(dense(y, l, "mlp.router.bias", "mlp.gate.bias", n_e, 0, 0, 0.1f));
    TRY(expert(y, l, "mlp.experts.gate_up_proj", "mlp.mlp1_weight", 2 * f, d));
    TRY(dense(y, l, "mlp.experts.gate_up_proj_bias", "mlp.mlp1_bias", n_e, 2 * f, 0, 0.1f));
    TRY(expert(y, l, "mlp.experts.down_proj", "mlp.mlp2_weight", d, f));
    TRY(dense(y, l, "mlp.experts.down_proj_bias", "mlp.mlp2_bias", n_e, d, 0, 0.1f));
out:
    return st;
}

/* All tensors, once to declare and once to write. */
static status all_tensors(struct synth *y)
{
    status st = OK;
    const struct spec *s = y->s;
    float w = 2 / sqrtf((float)s->d_model);
    y->n_tensor = 0;
    TRY(dense(y, -1, "model.embed_tokens.weight", "embedding.weight", s->n_vocab, s->d_model, 0,
              1));
    for (int l = 0; l < s->n_layer; l++) {
        TRY(attention(y, l));
        TRY(mlp(y, l));
    }
    TRY(dense(y, -1, "model.norm.weight", "norm.scale", s->d_model, 0, 1, 0.1f));
    TRY(dense(y, -1, "lm_head.weight", "unembedding.weight", s->n_vocab, s->d_model, 0, w));
out:
    return st;
}

status synth_declare(const struct spec *s, bool original, bool bf16_experts, struct shards *out,
                     struct err *e)
{
    struct synth y = {
        .s = s, .original = original, .bf16_experts = bf16_experts, .out = out, .e = e};
    return all_tensors(&y);
}

/* ---- configuration ---- */

/* The released ids, or the last one of a vocabulary too small for them. */
static int token_id(const struct spec *s, int id)
{
    return id < s->n_vocab ? id : s->n_vocab - 1;
}

static void config_original(const struct spec *s, struct buf *b)
{
    buf_printf(b,
               "{\n  \"num_hidden_layers\": %d,\n  \"num_experts\": %d,\n"
               "  \"experts_per_token\": %d,\n  \"vocab_size\": %d,\n  \"hidden_size\": %d,\n"
               "  \"intermediate_size\": %d,\n  \"swiglu_limit\": 7.0,\n  \"head_dim\": %d,\n"
               "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n"
               "  \"sliding_window\": %d,\n  \"initial_context_length\": %d,\n"
               "  \"rope_theta\": 150000,\n  \"rope_scaling_factor\": 32.0,\n"
               "  \"rope_ntk_alpha\": 1,\n  \"rope_ntk_beta\": 32\n}\n",
               s->n_layer, s->n_expert, s->n_active, s->n_vocab, s->d_model, s->d_ff, s->d_head,
               s->n_head, s->n_kv_head, s->window, s->rope_ctx);
}

static void config_hf(const struct spec *s, bool bf16_experts, struct buf *b)
{
    buf_puts(b, "{\n  \"architectures\": [\n    \"GptOssForCausalLM\"\n  ],\n"
                "  \"attention_bias\": true,\n  \"attention_dropout\": 0.0,\n");
    buf_printf(b, "  \"eos_token_id\": %d,\n  \"experts_per_token\": %d,\n  \"head_dim\": %d,\n",
               token_id(s, 200002), s->n_active, s->d_head);
    buf_printf(b,
               "  \"hidden_act\": \"silu\",\n  \"hidden_size\": %d,\n"
               "  \"initial_context_length\": %d,\n  \"initializer_range\": 0.02,\n"
               "  \"intermediate_size\": %d,\n  \"layer_types\": [\n",
               s->d_model, s->rope_ctx, s->d_ff);
    for (int i = 0; i < s->n_layer; i++)
        buf_printf(b, "    \"%s_attention\"%s\n", s->sliding[i] ? "sliding" : "full",
                   i + 1 < s->n_layer ? "," : "");
    buf_printf(b,
               "  ],\n  \"max_position_embeddings\": %d,\n  \"model_type\": \"gpt_oss\",\n"
               "  \"num_attention_heads\": %d,\n  \"num_experts_per_tok\": %d,\n"
               "  \"num_hidden_layers\": %d,\n  \"num_key_value_heads\": %d,\n"
               "  \"num_local_experts\": %d,\n  \"output_router_logits\": false,\n"
               "  \"pad_token_id\": %d,\n",
               s->n_ctx, s->n_head, s->n_active, s->n_layer, s->n_kv_head, s->n_expert,
               token_id(s, 199999));
    if (!bf16_experts)
        buf_puts(b, "  \"quantization_config\": {\n    \"modules_to_not_convert\": [\n"
                    "      \"model.layers.*.self_attn\",\n      \"model.layers.*.mlp.router\",\n"
                    "      \"model.embed_tokens\",\n      \"lm_head\"\n    ],\n"
                    "    \"quant_method\": \"mxfp4\"\n  },\n");
    buf_printf(
        b,
        "  \"rms_norm_eps\": 1e-05,\n  \"rope_scaling\": {\n    \"beta_fast\": 32.0,\n"
        "    \"beta_slow\": 1.0,\n    \"factor\": 32.0,\n"
        "    \"original_max_position_embeddings\": %d,\n    \"rope_type\": \"yarn\",\n"
        "    \"truncate\": false\n  },\n  \"rope_theta\": 150000,\n"
        "  \"router_aux_loss_coef\": 0.9,\n  \"sliding_window\": %d,\n"
        "  \"swiglu_limit\": 7.0,\n  \"tie_word_embeddings\": false,\n"
        "  \"torch_dtype\": \"bfloat16\",\n  \"use_cache\": true,\n  \"vocab_size\": %d\n}\n",
        s->rope_ctx, s->window, s->n_vocab);
}

/* original/dtypes.json: what each tensor is, for OpenAI's own loader. */
static void dtypes_original(const struct spec *s, bool bf16_experts, struct buf *b)
{
    static const char *const dense_names[] = {"attn.norm.scale", "attn.qkv.weight", "attn.qkv.bias",
                                              "attn.sinks",      "attn.out.weight", "attn.out.bias",
                                              "mlp.norm.scale",  "mlp.gate.weight", "mlp.gate.bias",
                                              "mlp.mlp1_bias",   "mlp.mlp2_bias"};
    buf_puts(b, "{\n  \"embedding.weight\": \"BF16\",\n");
    for (int l = 0; l < s->n_layer; l++) {
        for (size_t i = 0; i < sizeof dense_names / sizeof dense_names[0]; i++)
            buf_printf(b, "  \"block.%d.%s\": \"BF16\",\n", l, dense_names[i]);
        for (int i = 1; i <= 2; i++) {
            if (bf16_experts)
                buf_printf(b, "  \"block.%d.mlp.mlp%d_weight\": \"BF16\",\n", l, i);
            else
                buf_printf(b,
                           "  \"block.%d.mlp.mlp%d_weight.blocks\": \"FP4\",\n"
                           "  \"block.%d.mlp.mlp%d_weight.scales\": \"UE8\",\n",
                           l, i, l, i);
        }
    }
    buf_puts(b, "  \"norm.scale\": \"BF16\",\n  \"unembedding.weight\": \"BF16\"\n}\n");
}

static status save(const struct folder_new *dir, const char *name, const struct buf *b,
                   struct err *e)
{
    char path[PATH_MAX];
    status st = buf_status(b);
    if (st < 0)
        return err_set(e, st, "out of memory");
    snprintf(path, sizeof path, "%s/%s", dir->tmp, name);
    return file_save(path, b->p, b->n, e);
}

static status write_configs(const struct synth *y, const struct folder_new *dir, struct err *e)
{
    status st = OK;
    const struct spec *s = y->s;
    struct buf b;
    buf_init(&b, 16 << 20);
    if (y->original) {
        config_original(s, &b);
        TRY(save(dir, "config.json", &b, e));
        buf_clear(&b);
        dtypes_original(s, y->bf16_experts, &b);
        TRY(save(dir, "dtypes.json", &b, e));
    } else {
        config_hf(s, y->bf16_experts, &b);
        TRY(save(dir, "config.json", &b, e));
        buf_clear(&b);
        buf_printf(&b,
                   "{\n  \"bos_token_id\": %d,\n  \"do_sample\": true,\n  \"eos_token_id\": [\n"
                   "    %d,\n    %d,\n    %d\n  ],\n  \"pad_token_id\": %d\n}\n",
                   token_id(s, 199998), token_id(s, 200002), token_id(s, 199999),
                   token_id(s, 200012), token_id(s, 199999));
        TRY(save(dir, "generation_config.json", &b, e));
    }
out:
    buf_fini(&b);
    return st;
}

/* The shape asked for: a released one with changes, checked by the reader of configurations. */
static status choose_spec(const struct gloss_synth_opts *o, struct spec *s, struct err *e)
{
    status st = OK;
    const struct spec *like = spec_known(o->like ? o->like : "gpt-oss-20b");
    struct json *j = NULL;
    struct buf b;
    buf_init(&b, 1 << 20);
    if (!like)
        TRY(err_param(e, E_INPUT, "like", "\"%.60s\" is not gpt-oss-20b or gpt-oss-120b", o->like));
    *s = *like;
    const struct {
        int from, *to;
    } change[] = {{o->n_layer, &s->n_layer}, {o->n_expert, &s->n_expert},
                  {o->d_model, &s->d_model}, {o->d_ff, &s->d_ff},
                  {o->n_head, &s->n_head},   {o->n_kv_head, &s->n_kv_head},
                  {o->n_vocab, &s->n_vocab}};
    for (size_t i = 0; i < sizeof change / sizeof change[0]; i++)
        if (change[i].from)
            *change[i].to = change[i].from;
    if (s->n_layer < 1 || s->n_layer > SPEC_MAX_LAYER)
        TRY(err_param(e, E_INPUT, "layers", "%d layers: 1 to %d are possible", s->n_layer,
                      SPEC_MAX_LAYER));
    for (int i = 0; i < SPEC_MAX_LAYER; i++)
        s->sliding[i] = i < s->n_layer && i % 2 == 0;
    s->n_active = min_int(s->n_active, s->n_expert);
    struct spec checked;
    config_hf(s, o->bf16, &b);
    TRY(buf_status(&b));
    TRY(json_parse(b.p, b.n, &json_limits_file, &j, e));
    struct err inner = {0};
    if (spec_from_json(j, &checked, &inner) < 0)
        TRY(err_param(e, E_INPUT, inner.param, "no such model: %.200s", inner.msg));
out:
    json_free(j);
    buf_fini(&b);
    return st;
}

static status synth(const char *path, const struct gloss_synth_opts *o, struct err *e)
{
    status st = OK;
    struct spec spec;
    struct folder_new dir = {0};
    struct synth y = {.s = &spec,
                      .original = o->original,
                      .bf16_experts = o->bf16,
                      .e = e,
                      .opts = o,
                      .seed = o->seed};
    TRY(choose_spec(o, &spec, e));
    TRY(folder_begin(&dir, path, e));
    TRY(shards_new(dir.tmp, o->original ? max_shard_original : max_shard_hf, &y.out, e));
    TRY(all_tensors(&y));
    y.total = (int64_t)shards_bytes(y.out);
    TRY(folder_has_room(&dir, (uint64_t)y.total + (16 << 20), e));
    y.table = mem_array(N_TABLE, sizeof *y.table);
    y.piece = mem_alloc(PIECE);
    if (!y.table || !y.piece)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    y.writing = true;
    TRY(all_tensors(&y));
    TRY(shards_end(y.out, e));
    TRY(write_configs(&y, &dir, e));
    TRY(folder_commit(&dir, e));
out:
    shards_free(y.out);
    folder_abort(&dir);
    mem_free(y.table);
    mem_free(y.piece);
    return st;
}

gloss_status gloss_synth(const char *dir, const struct gloss_synth_opts *opts, struct gloss_err *ge)
{
    struct gloss_synth_opts o = {0};
    struct err e = {0};
    if (opts)
        memcpy(&o, opts, opts->size && opts->size < sizeof o ? opts->size : sizeof o);
    status st = synth(dir, &o, &e);
    if (st < 0 && e.code != st)
        err_set(&e, st, "%s", err_name(st));
    if (st < 0 && ge)
        memcpy(ge, &e, sizeof *ge);
    return st;
}
