/* The logit fixtures of tests/golden/logits, for the tests of every backend.
 *
 *     for (int i = 0; i < fixture_count(); i++) {
 *         struct fixture f;
 *         fixture_load(i, &f);          // tokens, expected rows, transformers' own bf16 error
 *         char dir[FIXTURE_PATH];
 *         fixture_checkpoint(&f, dir);  // a real checkpoint folder, made or committed
 *         ... weights_open(dir, ...) ...
 *         fixture_remove(&f, dir);
 *         fixture_free(&f);
 *     }
 *
 * The weights follow the rule written in tests/oracle/logits_fixtures.py. Everything here asserts:
 * a fixture that cannot be read is a failed test. Run from the top folder of the repository.
 */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include "unit/unit.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "model/safetensors.h"
#include "model/spec.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define FIXTURE_DIR "tests/golden/logits"
enum { FIXTURE_PATH = 512, FIXTURE_MAX_ROWS = 32, FIXTURE_MAX_SHARDS = 4 };

struct fixture {
    char name[64];
    struct json *record;
    bool committed; /* the checkpoint is in the repository */
    struct spec spec;
    uint64_t seed;
    int n_tok;
    int32_t *tok; /* [n_tok] */
    int n_row;
    int row[FIXTURE_MAX_ROWS]; /* ascending positions whose logits are stored */
    float *want;               /* [n_row, n_vocab] transformers in float32 */
    double scale;              /* largest |logit| of them */
    double bf16_rms, bf16_max; /* transformers in bfloat16 against that */
    double bf16_row_median;    /* its rows' rms: blind to the rare rows that take another expert */
};

static const char *const fixture_names[] = {
    "base_f32",          "mqa_mxfp4",    "original_mxfp4", "original_bf16",
    "head128_f16",       "truncate_f32", "long_mxfp4",     "plain_rope_sharded",
    "real_bf16_sharded", "each_bf16",    "tied_f32",       "real_f32",
};

static inline int fixture_count(void)
{
    return (int)(sizeof fixture_names / sizeof fixture_names[0]);
}

/* The whole of a test program: one cmocka test per fixture, whose *state is the fixture's index. */
static inline int fixture_run_each(const char *group, CMUnitTestFunction test)
{
    struct CMUnitTest tests[sizeof fixture_names / sizeof fixture_names[0]];
    int n = fixture_count();
    for (int i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){
            .name = fixture_names[i], .test_func = test, .initial_state = (void *)(intptr_t)i};
    return _cmocka_run_group_tests(group, tests, (size_t)n, NULL, NULL);
}

static inline void fixture_must(status st, const struct err *e)
{
    if (st < 0) {
        fprintf(stderr, "fixture: %s\n", e->msg);
        abort();
    }
}

static inline struct json *fixture_json(const char *path)
{
    struct err e = {0};
    struct buf b;
    struct json *j;
    buf_init(&b, 1 << 20);
    fixture_must(file_read(path, &b, &e), &e);
    fixture_must(json_parse(b.p, b.n, &json_limits_file, &j, &e), &e);
    buf_fini(&b);
    return j;
}

static inline void fixture_load(int i, struct fixture *f)
{
    struct err e = {0};
    char path[FIXTURE_PATH];
    *f = (struct fixture){0};
    snprintf(f->name, sizeof f->name, "%s", fixture_names[i]);
    snprintf(path, sizeof path, FIXTURE_DIR "/%s.json", f->name);
    f->record = fixture_json(path);
    const struct json *config = json_get(f->record, "config");
    struct json *own = NULL;
    f->committed = json_absent(config);
    if (f->committed) {
        snprintf(path, sizeof path, FIXTURE_DIR "/%s/config.json", f->name);
        config = own = fixture_json(path);
    }
    fixture_must(spec_from_json(config, &f->spec, &e), &e);
    json_free(own);
    f->seed = (uint64_t)json_int(json_get(f->record, "seed"));
    f->n_tok = (int)json_int(json_get(f->record, "n_tok"));
    f->scale = json_num(json_get(f->record, "scale"));
    f->bf16_rms = json_num(json_get(f->record, "bf16_rms"));
    f->bf16_max = json_num(json_get(f->record, "bf16_max"));
    f->bf16_row_median = json_num(json_get(f->record, "bf16_row_median"));
    const struct json *rows = json_get(f->record, "rows");
    f->n_row = (int)json_len(rows);
    ASSERT(f->n_row > 0 && f->n_row <= FIXTURE_MAX_ROWS);
    for (int r = 0; r < f->n_row; r++)
        f->row[r] = (int)json_int(json_at(rows, (size_t)r));
    f->tok = mem_array((size_t)f->n_tok, sizeof *f->tok);
    ASSERT(f->tok);
    for (int t = 0; t < f->n_tok; t++) {
        uint32_t w[4];
        rng_block(f->seed, 1ull << 32, (uint64_t)t, w);
        f->tok[t] = (int32_t)(w[0] % (uint32_t)f->spec.n_vocab);
    }
    struct buf b;
    buf_init(&b, 1 << 20);
    snprintf(path, sizeof path, FIXTURE_DIR "/%s.f32", f->name);
    fixture_must(file_read(path, &b, &e), &e);
    size_t n = (size_t)f->n_row * (size_t)f->spec.n_vocab;
    ASSERT(b.n == n * sizeof *f->want);
    f->want = mem_array(n, sizeof *f->want);
    ASSERT(f->want);
    memcpy(f->want, b.p, b.n);
    buf_fini(&b);
}

static inline void fixture_free(struct fixture *f)
{
    json_free(f->record);
    mem_free(f->tok);
    mem_free(f->want);
}

/* ---- making the checkpoint ---- */

/* One tensor of the rule's list, under the name or names of the fixture's layout. */
struct fixture_tensor {
    int stream; /* place in the list: streams 2t (values or blocks) and 2t + 1 (scales) */
    bool expert;
    int64_t dim[3];
    int n_dim;
    float mean;
    double sigma;
    char name[128];
};

struct fixture_maker {
    const struct fixture *f;
    const char *layout; /* "hf", "original", "each" */
    enum dtype dtype;   /* of dense tensors */
    bool mxfp4;         /* experts */
    int n_shard;
    struct st_writer *w[FIXTURE_MAX_SHARDS];
    int n_tensor; /* tensors declared or written so far: they go round the shards */
    bool writing;
    struct buf index; /* weight_map */
};

static inline uint32_t fixture_word(const struct fixture *f, int stream, size_t i)
{
    uint32_t w[4];
    rng_block(f->seed, (uint64_t)stream, i / 4, w);
    return w[i % 4];
}

static inline float fixture_value(const struct fixture *f, const struct fixture_tensor *t, size_t i)
{
    uint32_t w = fixture_word(f, 2 * t->stream, i);
    int sum = (int)((w & 255) + (w >> 8 & 255) + (w >> 16 & 255) + (w >> 24)) - 510;
    return t->mean + (float)(t->sigma / 147.8) * (float)sum;
}

/* Declares (first pass) or writes (second pass) one tensor of the file. */
static inline void fixture_emit(struct fixture_maker *m, const char *name, enum dtype t,
                                const int64_t *dim, int n_dim, const void *p, size_t n)
{
    struct err e = {0};
    int shard = m->n_tensor++ % m->n_shard;
    if (m->writing) {
        st_write(m->w[shard], p, n);
        return;
    }
    fixture_must(st_declare(m->w[shard], name, t, dim, n_dim, &e), &e);
    buf_printf(&m->index, "%s\"%s\":\"model-%05d-of-%05d.safetensors\"", m->index.n > 1 ? "," : "",
               name, shard + 1, m->n_shard);
}

static inline void fixture_emit_floats(struct fixture_maker *m, const char *name,
                                       const int64_t *dim, int n_dim, const float *x, size_t n)
{
    uint8_t *out = mem_calloc(n, 4);
    ASSERT(out);
    for (size_t i = 0; i < n; i++) {
        uint16_t h = m->dtype == DT_BF16 ? f32_bf16(x[i]) : f32_f16(x[i]);
        if (m->dtype == DT_F32)
            memcpy(out + 4 * i, &x[i], 4);
        else
            memcpy(out + 2 * i, &h, 2);
    }
    fixture_emit(m, name, m->dtype, dim, n_dim, out, n * dtype_size(m->dtype));
    mem_free(out);
}

static inline void fixture_emit_mxfp4(struct fixture_maker *m, const struct fixture_tensor *t)
{
    bool original = strcmp(m->layout, "original") == 0;
    char name[160];
    int64_t dim[4] = {t->dim[0], t->dim[1], t->dim[2] / 32, 16};
    size_t n_block = (size_t)(dim[0] * dim[1] * dim[2]);
    uint8_t *blocks = mem_calloc(n_block, 16), *scales = mem_calloc(n_block, 1);
    ASSERT(blocks && scales);
    int base = 126 + (int)floor(log2(t->sigma / 2.93));
    for (size_t i = 0; i < n_block * 4; i++) {
        uint32_t w = fixture_word(m->f, 2 * t->stream, i);
        memcpy(blocks + 4 * i, &w, 4);
    }
    for (size_t i = 0; i < n_block; i++)
        scales[i] = (uint8_t)(base + (int)(fixture_word(m->f, 2 * t->stream + 1, i) % 3));
    snprintf(name, sizeof name, original ? "%s.blocks" : "%s_blocks", t->name);
    fixture_emit(m, name, DT_U8, dim, 4, blocks, n_block * 16);
    snprintf(name, sizeof name, original ? "%s.scales" : "%s_scales", t->name);
    fixture_emit(m, name, DT_U8, dim, 3, scales, n_block);
    mem_free(blocks);
    mem_free(scales);
}

static inline void fixture_tensor(struct fixture_maker *m, const struct fixture_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->n_dim; i++)
        n *= (size_t)t->dim[i];
    if (t->expert && m->mxfp4) {
        fixture_emit_mxfp4(m, t);
        return;
    }
    float *x = mem_array(n, sizeof *x);
    ASSERT(x);
    for (size_t i = 0; i < n; i++)
        x[i] = fixture_value(m->f, t, i);
    bool each = strcmp(m->layout, "each") == 0 && strstr(t->name, "experts");
    if (each) { /* PREFIX_proj -> PREFIX_projs.E.weight; PREFIX_proj_bias -> PREFIX_projs.E.bias */
        char name[160];
        size_t one = n / (size_t)t->dim[0];
        int stem = (int)(strstr(t->name, "_proj") + 5 - t->name);
        for (int e = 0; e < t->dim[0]; e++) {
            snprintf(name, sizeof name, "%.*ss.%d.%s", stem, t->name, e,
                     t->expert ? "weight" : "bias");
            fixture_emit_floats(m, name, t->dim + 1, t->n_dim - 1, x + (size_t)e * one, one);
        }
    } else if (t->expert && strcmp(m->layout, "hf") == 0) { /* transposed: [E, n_in, n_out] */
        int64_t dim[3] = {t->dim[0], t->dim[2], t->dim[1]};
        float *y = mem_array(n, sizeof *y);
        ASSERT(y);
        size_t n_out = (size_t)t->dim[1], n_in = (size_t)t->dim[2];
        for (size_t i = 0; i < n; i++)
            y[i / (n_out * n_in) * n_out * n_in + i % n_in * n_out + i / n_in % n_out] = x[i];
        fixture_emit_floats(m, t->name, dim, 3, y, n);
        mem_free(y);
    } else {
        fixture_emit_floats(m, t->name, t->dim, t->n_dim, x, n);
    }
    mem_free(x);
}

/* All tensors in the order of the rule. */
static inline void fixture_tensors(struct fixture_maker *m)
{
    const struct spec *s = &m->f->spec;
    bool original = strcmp(m->layout, "original") == 0, each = strcmp(m->layout, "each") == 0;
    int64_t h = s->d_model, ff = s->d_ff, n_e = s->n_expert;
    int64_t q = (int64_t)s->n_head * s->d_head, kv = (int64_t)s->n_kv_head * s->d_head;
    double linear_h = 1.2 / sqrt((double)h), linear_q = 1.2 / sqrt((double)q);
    double expert_h = 4.8 / sqrt((double)h), expert_f = 4.8 / sqrt((double)ff);
    /* [hf, original] names; a NULL original name: part of the fused qkv, handled below. */
    const struct {
        const char *hf, *original;
        int64_t dim[3];
        float mean;
        double sigma;
        bool expert;
    } part[] = {
        {"input_layernorm.weight", "attn.norm.scale", {h}, 1, 0.1, 0},
        {"self_attn.q_proj.weight", NULL, {q, h}, 0, linear_h, 0},
        {"self_attn.q_proj.bias", NULL, {q}, 0, 0.3, 0},
        {"self_attn.k_proj.weight", NULL, {kv, h}, 0, linear_h, 0},
        {"self_attn.k_proj.bias", NULL, {kv}, 0, 0.3, 0},
        {"self_attn.v_proj.weight", NULL, {kv, h}, 0, linear_h, 0},
        {"self_attn.v_proj.bias", NULL, {kv}, 0, 0.3, 0},
        {"self_attn.sinks", "attn.sinks", {s->n_head}, 0, 2.0, 0},
        {"self_attn.o_proj.weight", "attn.out.weight", {h, q}, 0, linear_q, 0},
        {"self_attn.o_proj.bias", "attn.out.bias", {h}, 0, 0.3, 0},
        {"post_attention_layernorm.weight", "mlp.norm.scale", {h}, 1, 0.1, 0},
        {each ? "mlp.router.linear.weight" : "mlp.router.weight",
         "mlp.gate.weight",
         {n_e, h},
         0,
         linear_h,
         0},
        {each ? "mlp.router.linear.bias" : "mlp.router.bias", "mlp.gate.bias", {n_e}, 0, 0.3, 0},
        {"mlp.experts.gate_up_proj", "mlp.mlp1_weight", {n_e, 2 * ff, h}, 0, expert_h, 1},
        {"mlp.experts.gate_up_proj_bias", "mlp.mlp1_bias", {n_e, 2 * ff}, 0, 0.3, 0},
        {"mlp.experts.down_proj", "mlp.mlp2_weight", {n_e, h, ff}, 0, expert_f, 1},
        {"mlp.experts.down_proj_bias", "mlp.mlp2_bias", {n_e, h}, 0, 0.3, 0},
    };
    enum { N_PART = sizeof part / sizeof part[0] };
    struct fixture_tensor t = {.dim = {s->n_vocab, h}, .n_dim = 2, .sigma = 3.0};
    snprintf(t.name, sizeof t.name, "%s",
             original ? "embedding.weight" : "model.embed_tokens.weight");
    fixture_tensor(m, &t);
    for (int l = 0; l < s->n_layer; l++) {
        float *fused[2] = {mem_array((size_t)((q + 2 * kv) * h), sizeof(float)),
                           mem_array((size_t)(q + 2 * kv), sizeof(float))};
        ASSERT(fused[0] && fused[1]);
        size_t at[2] = {0, 0};
        for (int k = 0; k < N_PART; k++) {
            t = (struct fixture_tensor){.stream = 1 + l * N_PART + k,
                                        .expert = part[k].expert,
                                        .mean = part[k].mean,
                                        .sigma = part[k].sigma};
            size_t n = 1;
            while (t.n_dim < 3 && part[k].dim[t.n_dim] > 0) {
                t.dim[t.n_dim] = part[k].dim[t.n_dim];
                n *= (size_t)t.dim[t.n_dim++];
            }
            if (original && !part[k].original) {
                int bias = t.n_dim == 1;
                for (size_t i = 0; i < n; i++)
                    fused[bias][at[bias]++] = fixture_value(m->f, &t, i);
                continue;
            }
            snprintf(t.name, sizeof t.name, original ? "block.%d.%s" : "model.layers.%d.%s", l,
                     original ? part[k].original : part[k].hf);
            fixture_tensor(m, &t);
        }
        for (int bias = 0; original && bias < 2; bias++) {
            int64_t dim[2] = {q + 2 * kv, h};
            snprintf(t.name, sizeof t.name, "block.%d.attn.qkv.%s", l, bias ? "bias" : "weight");
            fixture_emit_floats(m, t.name, dim, bias ? 1 : 2, fused[bias], at[bias]);
        }
        mem_free(fused[0]);
        mem_free(fused[1]);
    }
    t = (struct fixture_tensor){
        .stream = 1 + s->n_layer * N_PART, .dim = {h}, .n_dim = 1, .mean = 1, .sigma = 0.1};
    snprintf(t.name, sizeof t.name, "%s", original ? "norm.scale" : "model.norm.weight");
    fixture_tensor(m, &t);
    if (s->tied)
        return;
    t = (struct fixture_tensor){
        .stream = 2 + s->n_layer * N_PART, .dim = {s->n_vocab, h}, .n_dim = 2, .sigma = linear_h};
    snprintf(t.name, sizeof t.name, "%s", original ? "unembedding.weight" : "lm_head.weight");
    fixture_tensor(m, &t);
}

/* Puts the fixture's checkpoint into a folder of its own and gives its path. */
static inline void fixture_checkpoint(const struct fixture *f, char dir[FIXTURE_PATH])
{
    struct err e = {0};
    char path[FIXTURE_PATH + 64];
    if (f->committed) {
        snprintf(dir, FIXTURE_PATH, FIXTURE_DIR "/%s", f->name);
        return;
    }
    snprintf(dir, FIXTURE_PATH, "/tmp/gloss-%s-XXXXXX", f->name);
    ASSERT(mkdtemp(dir));
    struct fixture_maker m = {.f = f,
                              .layout = json_str(json_get(f->record, "layout"), NULL),
                              .n_shard = (int)json_int(json_get(f->record, "shards"))};
    const char *dtype = json_str(json_get(f->record, "dtype"), NULL);
    m.dtype = strcmp(dtype, "f32") == 0 ? DT_F32 : strcmp(dtype, "f16") == 0 ? DT_F16 : DT_BF16;
    m.mxfp4 = strcmp(json_str(json_get(f->record, "experts"), NULL), "mxfp4") == 0;
    buf_init(&m.index, 1 << 20);
    buf_putc(&m.index, '{');
    for (int i = 0; i < m.n_shard; i++) {
        snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", dir, i + 1, m.n_shard);
        fixture_must(st_writer_new(path, &m.w[i], &e), &e);
    }
    fixture_tensors(&m);
    for (int i = 0; i < m.n_shard; i++)
        fixture_must(st_write_begin(m.w[i], &e), &e);
    m.writing = true;
    m.n_tensor = 0;
    fixture_tensors(&m);
    for (int i = 0; i < m.n_shard; i++) {
        fixture_must(st_write_end(m.w[i], &e), &e);
        st_writer_free(m.w[i]);
    }
    struct buf b;
    buf_init(&b, 1 << 20);
    json_dump(&b, json_get(f->record, "config"));
    snprintf(path, sizeof path, "%s/config.json", dir);
    fixture_must(file_save(path, b.p, b.n, &e), &e);
    if (m.n_shard > 1) {
        buf_clear(&b);
        buf_printf(&b, "{\"metadata\":{},\"weight_map\":%s}}", m.index.p);
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
        fixture_must(file_save(path, b.p, b.n, &e), &e);
    }
    buf_fini(&b);
    buf_fini(&m.index);
}

/* Removes what fixture_checkpoint made. */
static inline void fixture_remove(const struct fixture *f, const char *dir)
{
    if (f->committed)
        return;
    DIR *d = opendir(dir);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        char path[FIXTURE_PATH + 300];
        snprintf(path, sizeof path, "%s/%s", dir, ent->d_name);
        if (ent->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

/* rms and maximum of |got - want| over the stored rows; got [n_row, n_vocab]. */
static inline void fixture_error(const struct fixture *f, const float *got, double *rms,
                                 double *max)
{
    size_t n = (size_t)f->n_row * (size_t)f->spec.n_vocab;
    double sum = 0;
    *max = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)f->want[i]);
        sum += d * d;
        *max = d > *max ? d : *max;
    }
    *rms = sqrt(sum / (double)n);
}

/* The rms of got - want over row i alone. */
static inline double fixture_row_error(const struct fixture *f, const float *got, int i)
{
    size_t n = (size_t)f->spec.n_vocab;
    double sum = 0;
    for (size_t j = (size_t)i * n; j < (size_t)(i + 1) * n; j++)
        sum += ((double)got[j] - (double)f->want[j]) * ((double)got[j] - (double)f->want[j]);
    return sqrt(sum / (double)n);
}

#endif
