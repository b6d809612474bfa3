/* gloss_quantize: the experts of a Hugging Face checkpoint from bf16, f16 or f32 into MXFP4 blocks,
 * or from MXFP4 back into bf16 (which is exact).
 *
 * Unquantised experts are stored input-major [E, n_in, n_out], MXFP4 ones output-major
 * [E, n_out, n_in/32, 16] (model.md section 2): quantising transposes. Everything else is copied
 * byte for byte, tensor by tensor in the order of their names; at most one expert matrix and one
 * tensor's scales are in memory. The result is a folder that appears whole or not at all.
 *
 * Example: model.layers.0.mlp.experts.down_proj [32, 2880, 2880] bf16 becomes
 * down_proj_blocks [32, 2880, 90, 16] and down_proj_scales [32, 2880, 90].
 */
#include "base/buf.h"
#include "base/file.h"
#include "base/folder.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "gloss.h"
#include "model/mxfp4.h"
#include "model/shards.h"
#include "model/weights.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 256, TILE = 64 };

static const size_t max_shard = 4810000000u; /* as the released checkpoints */
static const size_t max_side_file = 128u << 20;

struct quant {
    const struct weights *w;
    const struct gloss_quant_opts *opts;
    enum mx_scale_rule rule;
    bool back; /* MXFP4 -> bf16 */
    struct shards *out;
    bool writing;
    float *rows;     /* one expert matrix [n_out, n_in] */
    float *decoded;  /* one row of it as stored [n_in] */
    uint8_t *bytes;  /* one expert matrix in its new form */
    uint8_t *scales; /* [E, n_out, n_in/32] */
    struct err *e;
};

/* "...experts.gate_up_proj" with `suffix`: the layer's number, else -1. */
static int expert_tensor(const char *name, const char *which, const char *suffix)
{
    int layer, n = 0;
    char rest[MAX_NAME];
    if (sscanf(name, "model.layers.%d.%n", &layer, &n) != 1 || n == 0)
        return -1;
    snprintf(rest, sizeof rest, "mlp.experts.%s%s", which, suffix);
    return strcmp(name + n, rest) == 0 ? layer : -1;
}

/* The two expert matrices of a layer share everything but these. */
static const struct expert_mat *expert_of(const struct quant *q, const char *name,
                                          const char *suffix)
{
    int l = expert_tensor(name, "gate_up_proj", suffix);
    if (l >= 0)
        return &q->w->layer[l].gate_up;
    l = expert_tensor(name, "down_proj", suffix);
    return l >= 0 ? &q->w->layer[l].down : NULL;
}

/* ---- error report ---- */

struct tally {
    double err2, ref2, worst;
    int64_t saturated;
};

static void tally_row(struct tally *t, const float *want, const float *got, const uint8_t *scales,
                      int n)
{
    for (int i = 0; i < n; i++) {
        double d = (double)want[i] - (double)got[i];
        t->err2 += d * d;
        t->ref2 += (double)want[i] * (double)want[i];
        t->worst = fmax(t->worst, fabs(d));
        t->saturated += fabsf(want[i]) > 6.0f * e8m0_f32(scales[i / MX_BLOCK]);
    }
}

static status report(const struct quant *q, const char *name, const struct tally *t)
{
    struct gloss_quant_report r = {
        .tensor = name, .max_abs = t->worst, .n_saturated = t->saturated};
    r.rel_rmse = t->ref2 > 0 ? sqrt(t->err2 / t->ref2) : 0;
    if (q->opts->report && q->opts->report(q->opts->ctx, &r))
        return err_set(q->e, E_CANCEL, "stopped");
    return OK;
}

/* ---- the two directions ---- */

/* Expert e of an input-major matrix into q->rows [n_out, n_in], tile by tile. */
static void transpose_expert(const struct quant *q, const struct expert_mat *m, int e)
{
    struct mat in_rows = {m->blocks[e], m->dtype, m->n_in, m->n_out};
    size_t n_in = (size_t)m->n_in, n_out = (size_t)m->n_out;
    float *line = q->decoded; /* [TILE, n_out] */
    for (size_t j0 = 0; j0 < n_in; j0 += TILE) {
        size_t n = n_in - j0 < TILE ? n_in - j0 : TILE;
        for (size_t j = 0; j < n; j++)
            mat_row(&in_rows, (int64_t)(j0 + j), line + j * n_out);
        for (size_t o = 0; o < n_out; o++)
            for (size_t j = 0; j < n; j++)
                q->rows[o * n_in + j0 + j] = line[j * n_out + o];
    }
}

/* name_blocks and name_scales from a dense matrix. */
static status write_packed(struct quant *q, const char *name, const struct expert_mat *m)
{
    status st = OK;
    struct tally t = {0};
    int n_expert = q->w->spec.n_expert;
    size_t n_in = (size_t)m->n_in, n_out = (size_t)m->n_out, n_block = n_in / MX_BLOCK;
    for (int e = 0; e < n_expert; e++) {
        uint8_t *scales = q->scales + (size_t)e * n_out * n_block;
        transpose_expert(q, m, e);
        mxfp4_pack(q->rows, n_out * n_block, q->rule, q->bytes, scales);
        for (size_t o = 0; o < n_out; o++) {
            const uint8_t *s = scales + o * n_block;
            mxfp4_unpack(q->bytes + o * n_block * MX_BLOCK_BYTES, s, n_block, q->decoded);
            tally_row(&t, q->rows + o * n_in, q->decoded, s, m->n_in);
        }
        if (!isfinite(t.err2) || !isfinite(t.ref2))
            return err_param(q->e, E_NUMERIC, name, "tensor %s holds NaN or Inf", name);
        TRY(shards_write(q->out, q->bytes, n_out * n_block * MX_BLOCK_BYTES, q->e));
    }
    TRY(shards_write(q->out, q->scales, (size_t)n_expert * n_out * n_block, q->e));
    TRY(report(q, name, &t));
out:
    return st;
}

/* The dense matrix [E, n_in, n_out] in bf16 from blocks and scales. */
static status write_dense(struct quant *q, const char *name, const struct expert_mat *m)
{
    status st = OK;
    struct tally t = {0};
    size_t n_in = (size_t)m->n_in, n_out = (size_t)m->n_out;
    uint16_t *out = (uint16_t *)(void *)q->bytes;
    for (int e = 0; e < q->w->spec.n_expert; e++) {
        for (size_t o = 0; o < n_out; o++)
            expert_row(m, e, (int64_t)o, q->rows + o * n_in);
        for (size_t o0 = 0; o0 < n_out; o0 += TILE)
            for (size_t j = 0; j < n_in; j++)
                for (size_t o = o0; o < n_out && o < o0 + TILE; o++)
                    out[j * n_out + o] = f32_bf16(q->rows[o * n_in + j]);
        for (size_t i = 0; i < n_in * n_out; i++)
            t.ref2 += (double)q->rows[i] * (double)q->rows[i];
        if (!isfinite(t.ref2))
            return err_param(q->e, E_NUMERIC, name, "tensor %s holds a scale of 255 (NaN)", name);
        TRY(shards_write(q->out, q->bytes, n_in * n_out * sizeof *out, q->e));
    }
    TRY(report(q, name, &t));
out:
    return st;
}

/* One tensor of the source: declared, or written, in its new form. */
static status one_tensor(struct quant *q, const struct st_tensor *t)
{
    status st = OK;
    char name[MAX_NAME + 16];
    int64_t n_expert = q->w->spec.n_expert;
    const struct expert_mat *dense = expert_of(q, t->name, "");
    const struct expert_mat *blocks = expert_of(q, t->name, "_blocks");
    if (dense) {
        if (q->writing)
            return write_packed(q, t->name, dense);
        int64_t dim[4] = {n_expert, dense->n_out, dense->n_in / MX_BLOCK, MX_BLOCK_BYTES};
        snprintf(name, sizeof name, "%s_blocks", t->name);
        TRY(shards_declare(q->out, name, DT_U8, dim, 4, q->e));
        snprintf(name, sizeof name, "%s_scales", t->name);
        TRY(shards_declare(q->out, name, DT_U8, dim, 3, q->e));
    } else if (blocks) {
        snprintf(name, sizeof name, "%.*s", (int)(strlen(t->name) - strlen("_blocks")), t->name);
        if (q->writing)
            return write_dense(q, name, blocks);
        int64_t dim[3] = {n_expert, blocks->n_in, blocks->n_out};
        TRY(shards_declare(q->out, name, DT_BF16, dim, 3, q->e));
    } else if (!expert_of(q, t->name, "_scales")) {
        if (q->writing)
            return shards_write(q->out, t->p, t->n_bytes, q->e);
        TRY(shards_declare(q->out, t->name, t->dtype, t->dim, t->n_dim, q->e));
    }
out:
    return st;
}

static status all_tensors(struct quant *q)
{
    for (int i = 0; i < weights_count(q->w); i++) {
        status st = one_tensor(q, weights_at(q->w, i));
        if (st < 0)
            return st;
    }
    return OK;
}

/* ---- the other files ---- */

/* config.json with the experts' new form: quantization_config added or left out. */
static status write_config(const struct quant *q, const struct folder_new *dir)
{
    status st = OK;
    char path[PATH_MAX];
    struct json *j = NULL;
    struct buf in, out;
    buf_init(&in, 16 << 20);
    buf_init(&out, 16 << 20);
    snprintf(path, sizeof path, "%s/config.json", q->w->dir);
    TRY(file_read(path, &in, q->e));
    TRY(json_parse(in.p, in.n, &json_limits_file, &j, q->e));
    const char *sep = "{";
    for (void *it = json_first(j); it; it = json_next(j, it)) {
        size_t n;
        const char *key = json_key(it, &n);
        if (strcmp(key, "quantization_config") == 0)
            continue;
        buf_printf(&out, "%s\n  ", sep);
        json_quote(&out, key, n);
        buf_puts(&out, ": ");
        json_dump(&out, json_val(it));
        sep = ",";
    }
    if (!q->back)
        buf_printf(&out,
                   "%s\n  \"quantization_config\": {\n    \"modules_to_not_convert\": [\n"
                   "      \"model.layers.*.self_attn\",\n      \"model.layers.*.mlp.router\",\n"
                   "      \"model.embed_tokens\",\n      \"lm_head\"\n    ],\n"
                   "    \"quant_method\": \"mxfp4\"\n  }",
                   sep);
    buf_puts(&out, "\n}\n");
    TRY(buf_status(&out));
    snprintf(path, sizeof path, "%s/config.json", dir->tmp);
    TRY(file_save(path, out.p, out.n, q->e));
out:
    json_free(j);
    buf_fini(&in);
    buf_fini(&out);
    return st;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* Tokenizer, generation settings, chat template, licence and the like; never weights. */
static bool is_side_file(const char *name)
{
    static const char *const kinds[] = {".json", ".jinja", ".txt", ".md", ".model"};
    if (name[0] == '.' || strcmp(name, "config.json") == 0 || ends_with(name, ".index.json"))
        return false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (ends_with(name, kinds[i]))
            return true;
    return strcmp(name, "LICENSE") == 0 || strcmp(name, "USAGE_POLICY") == 0;
}

static status copy_side_files(const struct quant *q, const struct folder_new *dir)
{
    status st = OK;
    struct buf b;
    buf_init(&b, max_side_file);
    DIR *d = opendir(q->w->dir);
    if (!d)
        return err_set(q->e, E_IO, "%s: cannot list the folder", q->w->dir);
    for (struct dirent *ent; (ent = readdir(d));) {
        char path[PATH_MAX];
        if (!is_side_file(ent->d_name))
            continue;
        snprintf(path, sizeof path, "%s/%s", q->w->dir, ent->d_name);
        buf_clear(&b);
        TRY(file_read(path, &b, q->e));
        snprintf(path, sizeof path, "%s/%s", dir->tmp, ent->d_name);
        TRY(file_save(path, b.p, b.n, q->e));
    }
out:
    closedir(d);
    buf_fini(&b);
    return st;
}

/* ---- the whole ---- */

/* What can be done with this checkpoint, and the scratch for it. */
static status prepare(struct quant *q)
{
    const struct layer *y = &q->w->layer[0];
    size_t n_expert = (size_t)q->w->spec.n_expert;
    bool packed = y->gate_up.layout == EXPERT_MXFP4;
    if (q->back && !packed)
        return err_set(q->e, E_INPUT, "%s: its experts are not MXFP4: nothing to undo", q->w->dir);
    if (!q->back && packed)
        return err_set(q->e, E_INPUT, "%s: its experts are MXFP4 already", q->w->dir);
    for (int l = 0; l < q->w->spec.n_layer; l++) {
        const struct expert_mat *m[2] = {&q->w->layer[l].gate_up, &q->w->layer[l].down};
        for (int i = 0; i < 2; i++)
            if (m[i]->layout != (q->back ? EXPERT_MXFP4 : EXPERT_IN_MAJOR))
                return err_set(q->e, E_INPUT,
                               "%s: quantize reads the Hugging Face layout with all experts of one "
                               "layer in one tensor",
                               q->w->dir);
    }
    bool hf = false;
    for (int i = 0; i < weights_count(q->w) && !hf; i++)
        hf = strcmp(weights_at(q->w, i)->name, "model.norm.weight") == 0;
    if (!hf)
        return err_set(q->e, E_INPUT, "%s: quantize reads the Hugging Face layout, not original/",
                       q->w->dir);
    size_t up = (size_t)y->gate_up.n_out * (size_t)y->gate_up.n_in;
    size_t down = (size_t)y->down.n_out * (size_t)y->down.n_in;
    size_t most = up > down ? up : down;
    size_t widest = (size_t)(y->gate_up.n_out > y->down.n_out ? y->gate_up.n_out : y->down.n_out);
    widest = widest > (size_t)y->gate_up.n_in ? widest : (size_t)y->gate_up.n_in;
    q->rows = mem_array(most, sizeof *q->rows);
    q->decoded = mem_array(widest * TILE, sizeof *q->decoded);
    q->bytes = mem_array(most, sizeof(uint16_t));
    q->scales = mem_array(n_expert, most / MX_BLOCK);
    if (!q->rows || !q->decoded || !q->bytes || !q->scales)
        return err_set(q->e, E_NOMEM, "out of memory");
    return OK;
}

static status quantize(const char *src, const char *dst, const struct gloss_quant_opts *o,
                       struct err *e)
{
    /* The default is the rule of least error: docs/model.md has the measurement. */
    static const enum mx_scale_rule rules[] = {MX_SEARCH, MX_ROUNDUP, MX_OCP, MX_SEARCH};
    status st = OK;
    struct weights *w = NULL;
    struct folder_new dir = {0};
    struct quant q = {.opts = o, .back = o->method == GLOSS_QUANT_BF16, .e = e};
    if (o->method < GLOSS_QUANT_MXFP4 || o->method > GLOSS_QUANT_BF16 || o->scale_rule < 0 ||
        o->scale_rule > GLOSS_SCALE_SEARCH)
        TRY(err_set(e, E_INPUT, "unknown method or scale rule"));
    q.rule = rules[o->scale_rule];
    TRY(weights_open(src, NULL, &w, e));
    q.w = w;
    TRY(prepare(&q));
    TRY(folder_begin(&dir, dst, e));
    TRY(shards_new(dir.tmp, max_shard, &q.out, e));
    TRY(all_tensors(&q));
    TRY(folder_has_room(&dir, (uint64_t)shards_bytes(q.out) + max_side_file, e));
    q.writing = true;
    TRY(all_tensors(&q));
    TRY(shards_end(q.out, e));
    TRY(copy_side_files(&q, &dir));
    TRY(write_config(&q, &dir));
    TRY(folder_commit(&dir, e));
out:
    shards_free(q.out);
    folder_abort(&dir);
    mem_free(q.rows);
    mem_free(q.decoded);
    mem_free(q.bytes);
    mem_free(q.scales);
    weights_close(w);
    return st;
}

gloss_status gloss_quantize(const char *src, const char *dst, const struct gloss_quant_opts *opts,
                            struct gloss_err *ge)
{
    struct gloss_quant_opts o = {0};
    struct err e = {0};
    if (opts)
        memcpy(&o, opts, opts->size && opts->size < sizeof o ? opts->size : sizeof o);
    status st = quantize(src, dst, &o, &e);
    if (st < 0 && e.code != st)
        err_set(&e, st, "%s", err_name(st));
    if (st < 0 && ge)
        memcpy(ge, &e, sizeof *ge);
    return st;
}
