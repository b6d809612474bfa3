/* Finds a checkpoint's files, checks them against its configuration, and fills struct weights.
 *
 * Order of work: folder -> config.json -> list of files -> each header validated -> one index of
 * all tensors, none twice -> every tensor of the architecture taken by name with its exact shape ->
 * none left over. Only then are bytes read: the small tensors, widened and checked for NaN and Inf.
 *
 * Three families of names are known (model.md section 2): Hugging Face, original/, and exports with
 * one tensor per expert.
 */
#include "model/weights.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sysmem.h"
#include "model/mxfp4.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FILES = 1000, MAX_NAME = 256, VECTOR_ALIGN = 64 };

/* A tensor of some file, and whether the architecture asked for it. */
struct entry {
    const struct st_tensor *t;
    int i_file;
    bool used;
};

struct weights_store {
    char dir[PATH_MAX];  /* "" for memory */
    struct entry *entry; /* [n_entry] all tensors by name */
    int n_entry;
    struct st_file **file; /* [n_file] */
    char **name;           /* [n_file] for messages */
    int n_file;
    void **owned; /* [n_owned] widened vectors, realigned matrices, expert tables */
    int n_owned, max_owned;
};

/* Parts into one name or path. */
#define NAME(buf, ...) snprintf(buf, sizeof buf, __VA_ARGS__)

/* What loading needs and the finished weights do not. */
struct loader {
    struct weights *w;
    bool original, check_all;
    char missing[MAX_NAME]; /* first tensor that was asked for in vain */
    struct err *e;
};

/* ---- memory ---- */

/* Room of n bytes that lives as long as the weights. */
static void *own(struct loader *l, size_t n)
{
    struct weights_store *s = l->w->store;
    if (s->n_owned == s->max_owned) {
        int max = s->max_owned ? s->max_owned * 2 : 64;
        void **grown = mem_realloc_array(s->owned, (size_t)max, sizeof *grown);
        if (!grown)
            return NULL;
        s->owned = grown;
        s->max_owned = max;
    }
    void *p = mem_aligned(VECTOR_ALIGN, n);
    if (p)
        s->owned[s->n_owned++] = p;
    return p;
}

static status no_memory(struct loader *l)
{
    return err_set(l->e, E_NOMEM, "out of memory loading the checkpoint");
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    struct weights_store *s = w->store;
    if (s) {
        for (int i = 0; i < s->n_owned; i++)
            mem_free(s->owned[i]);
        for (int i = 0; i < s->n_file; i++) {
            st_close(s->file[i]);
            mem_free(s->name[i]);
        }
        mem_free(s->entry);
        mem_free(s->owned);
        mem_free(s->file);
        mem_free(s->name);
        mem_free(s);
    }
    mem_free(w->dir);
    mem_free(w);
}

void weights_release(const struct weights *w, const void *p, size_t n)
{
    for (int i = 0; w->store && i < w->store->n_file; i++)
        st_release(w->store->file[i], p, n);
}

static uint64_t mix(uint64_t id, const void *p, size_t n)
{
    return hash_sip((struct hash_key){.k0 = id}, p, n);
}

bool weights_identity(const struct weights *w, uint64_t *id)
{
    enum { SAMPLES = 16, SAMPLE_BYTES = 64 };
    const struct weights_store *s = w->store;
    *id = 0;
    for (int i = 0; w->dir && i < s->n_file; i++) {
        char path[PATH_MAX];
        struct stat sb;
        NAME(path, "%s/%s", w->dir, s->name[i]);
        if (stat(path, &sb) != 0)
            return false;
        int64_t about[] = {sb.st_size, sb.st_mtim.tv_sec, sb.st_mtim.tv_nsec};
        *id = mix(mix(*id, s->name[i], strlen(s->name[i])), about, sizeof about);
    }
    for (int i = 0; w->dir && i < s->n_entry; i++) {
        const struct st_tensor *t = s->entry[i].t;
        *id = mix(mix(*id, t->name, strlen(t->name)), t->dim, sizeof t->dim);
        for (size_t k = 0; k < SAMPLES && t->n_bytes >= SAMPLE_BYTES; k++)
            *id = mix(*id, t->p + (t->n_bytes - SAMPLE_BYTES) / SAMPLES * k, SAMPLE_BYTES);
    }
    return w->dir != NULL;
}

int weights_count(const struct weights *w)
{
    return w->store->n_entry;
}

const struct st_tensor *weights_at(const struct weights *w, int i)
{
    return w->store->entry[i].t;
}

/* ---- looking at values ---- */

/* Each scan runs over whole runs of LANES values with a fixed count, which compilers turn into
 * vector code, and looks at the result once per run: memory speed, and an early end at a bad
 * tensor. A float is NaN or Inf when all bits of its exponent `mask` are set. */
enum { LANES = 1024 };

static bool any_special16(const uint16_t *p, size_t n, uint16_t mask)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        uint16_t found = 0;
        for (int k = 0; k < LANES; k++)
            found |= (uint16_t) - ((p[i + (size_t)k] & mask) == mask);
        if (found)
            return true;
    }
    for (; i < n; i++)
        if ((p[i] & mask) == mask)
            return true;
    return false;
}

static bool any_special32(const uint32_t *p, size_t n)
{
    const uint32_t mask = 0x7f800000;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        uint32_t found = 0;
        for (int k = 0; k < LANES; k++)
            found |= -(uint32_t)((p[i + (size_t)k] & mask) == mask);
        if (found)
            return true;
    }
    for (; i < n; i++)
        if ((p[i] & mask) == mask)
            return true;
    return false;
}

/* p is aligned for its type. */
static bool any_special(enum dtype t, const void *p, size_t n)
{
    if (t == DT_F32)
        return any_special32(p, n);
    return any_special16(p, n, t == DT_BF16 ? 0x7f80 : 0x7c00);
}

/* Every code is a number; touching each page still finds an unreadable file now, not later. */
static void touch_pages(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 4096)
        (void)*(const volatile uint8_t *)(p + i);
}

static void widen(enum dtype t, const void *p, size_t n, float *out)
{
    if (t == DT_F32)
        memcpy(out, p, n * sizeof *out);
    else if (t == DT_BF16)
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_f32(((const uint16_t *)p)[i]);
    else
        for (size_t i = 0; i < n; i++)
            out[i] = f16_f32(((const uint16_t *)p)[i]);
}

void mat_row(const struct mat *m, int64_t i, float *out)
{
    size_t n = (size_t)m->n_in;
    widen(m->dtype, (const uint8_t *)m->p + (size_t)i * n * dtype_size(m->dtype), n, out);
}

void expert_row(const struct expert_mat *m, int e, int64_t i, float *out)
{
    size_t n_in = (size_t)m->n_in, n_out = (size_t)m->n_out, row = (size_t)i;
    size_t size = dtype_size(m->dtype);
    switch (m->layout) {
    case EXPERT_MXFP4: {
        size_t n_block = n_in / MX_BLOCK;
        mxfp4_unpack(m->blocks[e] + row * n_block * MX_BLOCK_BYTES, m->scales[e] + row * n_block,
                     n_block, out);
        break;
    }
    case EXPERT_OUT_MAJOR:
        widen(m->dtype, m->blocks[e] + row * n_in * size, n_in, out);
        break;
    case EXPERT_IN_MAJOR:
        for (size_t j = 0; j < n_in; j++)
            widen(m->dtype, m->blocks[e] + (j * n_out + row) * size, 1, out + j);
        break;
    }
}

/* ---- taking tensors by name ---- */

static int cmp_entry(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return strcmp(x->t->name, y->t->name);
}

static struct entry *find(struct loader *l, const char *name)
{
    struct st_tensor t = {.name = name};
    struct entry key = {.t = &t};
    const struct weights_store *s = l->w->store;
    return bsearch(&key, s->entry, (size_t)s->n_entry, sizeof key, cmp_entry);
}

static void shape_text(char *s, size_t n, const int64_t *dim, int n_dim)
{
    size_t at = (size_t)snprintf(s, n, "[");
    for (int i = 0; i < n_dim && at < n; i++)
        at += (size_t)snprintf(s + at, n - at, i ? ", %lld" : "%lld", (long long)dim[i]);
    if (at < n)
        snprintf(s + at, n - at, "]");
}

/* Takes a tensor of exactly this shape; *t is NULL (and the name noted) when it is not there.
 * `u8`: bytes are wanted; else one of the float types. */
static status take(struct loader *l, const char *name, bool u8, const int64_t *dim, int n_dim,
                   const struct st_tensor **t)
{
    struct entry *x = find(l, name);
    *t = NULL;
    if (!x) {
        if (!l->missing[0])
            snprintf(l->missing, sizeof l->missing, "%s", name);
        return OK;
    }
    x->used = true;
    const char *file = l->w->store->name[x->i_file];
    bool same = x->t->n_dim == n_dim;
    for (int i = 0; i < n_dim && same; i++)
        same = x->t->dim[i] == dim[i];
    if (!same) {
        char have[96], want[96];
        shape_text(have, sizeof have, x->t->dim, x->t->n_dim);
        shape_text(want, sizeof want, dim, n_dim);
        return err_param(l->e, E_FORMAT, name,
                         "%s: tensor %s has shape %s, the configuration asks for %s", file, name,
                         have, want);
    }
    enum dtype d = x->t->dtype;
    if (u8 ? d != DT_U8 : d != DT_F32 && d != DT_F16 && d != DT_BF16)
        return err_param(l->e, E_FORMAT, name, "%s: tensor %s has type %s, not %s", file, name,
                         dtype_name(d), u8 ? "U8" : "BF16, F16 or F32");
    *t = x->t;
    return OK;
}

static status not_finite(struct loader *l, const char *name)
{
    return err_param(l->e, E_NUMERIC, name, "tensor %s holds NaN or Inf", name);
}

/* The tensor's bytes aligned for its type: in place, or a copy. NULL: out of memory. */
static const void *aligned(struct loader *l, const struct st_tensor *t)
{
    if ((uintptr_t)t->p % dtype_size(t->dtype) == 0)
        return t->p;
    void *copy = own(l, t->n_bytes);
    if (copy)
        memcpy(copy, t->p, t->n_bytes);
    return copy;
}

/* A small tensor, widened to float32 into `out` and checked. */
static status widen_checked(struct loader *l, const struct st_tensor *t, float *out)
{
    size_t size = dtype_size(t->dtype), n = t->n_bytes / size;
    if ((uintptr_t)t->p % size == 0) {
        widen(t->dtype, t->p, n, out);
    } else {
        for (size_t i = 0; i < n; i++) {
            uint32_t one = 0;
            memcpy(&one, t->p + i * size, size);
            widen(t->dtype, &one, 1, out + i);
        }
    }
    return any_special(DT_F32, out, n) ? not_finite(l, t->name) : OK;
}

/* A vector, or the router: [dim0] or [dim0, dim1] float32. */
static status take_vector(struct loader *l, const char *name, int64_t dim0, int64_t dim1,
                          const float **v)
{
    const struct st_tensor *t;
    status st = take(l, name, false, (const int64_t[]){dim0, dim1}, dim1 ? 2 : 1, &t);
    if (st < 0 || !t)
        return st;
    float *out = own(l, t->n_bytes / dtype_size(t->dtype) * sizeof *out);
    if (!out)
        return no_memory(l);
    *v = out;
    return widen_checked(l, t, out);
}

static status take_mat(struct loader *l, const char *name, int n_out, int n_in, struct mat *m)
{
    const struct st_tensor *t;
    status st = take(l, name, false, (const int64_t[]){n_out, n_in}, 2, &t);
    if (st < 0 || !t)
        return st;
    *m = (struct mat){.p = aligned(l, t), .dtype = t->dtype, .n_out = n_out, .n_in = n_in};
    if (!m->p)
        return no_memory(l);
    if (l->check_all && any_special(t->dtype, m->p, (size_t)n_out * (size_t)n_in))
        return not_finite(l, name);
    return OK;
}

/* Rows row0 .. row0 + n_out - 1 of a matrix. */
static struct mat mat_rows(const struct mat *m, int row0, int n_out)
{
    struct mat r = *m;
    if (m->p)
        r.p = (const uint8_t *)m->p + (size_t)row0 * (size_t)m->n_in * dtype_size(m->dtype);
    r.n_out = n_out;
    return r;
}

/* ---- experts ---- */

/* The tables of expert starts, filled from one tensor [E, ...] each. */
static status expert_tables(struct loader *l, struct expert_mat *m, int n_expert,
                            const uint8_t *blocks, size_t block_stride, const uint8_t *scales,
                            size_t scale_stride)
{
    m->blocks = own(l, (size_t)n_expert * sizeof *m->blocks);
    m->scales = scales ? own(l, (size_t)n_expert * sizeof *m->scales) : NULL;
    if (!m->blocks || (scales && !m->scales))
        return no_memory(l);
    for (size_t i = 0; i < (size_t)n_expert; i++) {
        m->blocks[i] = blocks ? blocks + i * block_stride : NULL;
        if (scales)
            m->scales[i] = scales + i * scale_stride;
    }
    return OK;
}

static status take_mxfp4(struct loader *l, const char *blocks, const char *scales,
                         struct expert_mat *m)
{
    status st = OK;
    int n_expert = l->w->spec.n_expert, n_block = m->n_in / MX_BLOCK;
    const int64_t dim[4] = {n_expert, m->n_out, n_block, MX_BLOCK_BYTES};
    const struct st_tensor *b, *s;
    TRY(take(l, blocks, true, dim, 4, &b));
    TRY(take(l, scales, true, dim, 3, &s));
    if (!b || !s)
        return OK;
    size_t n = (size_t)m->n_out * (size_t)n_block;
    m->layout = EXPERT_MXFP4;
    TRY(expert_tables(l, m, n_expert, b->p, n * MX_BLOCK_BYTES, s->p, n));
    if (!l->check_all)
        return OK;
    touch_pages(b->p, b->n_bytes);
    if (memchr(s->p, 255, s->n_bytes))
        return err_param(l->e, E_NUMERIC, scales, "tensor %s holds a scale of 255 (NaN)", scales);
out:
    return st;
}

static status take_dense(struct loader *l, const char *name, enum expert_layout layout,
                         struct expert_mat *m)
{
    int n_expert = l->w->spec.n_expert;
    bool in_major = layout == EXPERT_IN_MAJOR;
    const int64_t dim[3] = {n_expert, in_major ? m->n_in : m->n_out, in_major ? m->n_out : m->n_in};
    const struct st_tensor *t;
    status st = take(l, name, false, dim, 3, &t);
    if (st < 0 || !t)
        return st;
    m->layout = layout;
    m->dtype = t->dtype;
    const void *p = aligned(l, t);
    if (!p)
        return no_memory(l);
    size_t n = (size_t)m->n_out * (size_t)m->n_in;
    if (l->check_all && any_special(t->dtype, p, n * (size_t)n_expert))
        return not_finite(l, name);
    return expert_tables(l, m, n_expert, p, n * dtype_size(t->dtype), NULL, 0);
}

/* One tensor [n_out, n_in] and one bias [n_out] per expert: PREFIX.E.weight, PREFIX.E.bias. */
static status take_each(struct loader *l, const char *prefix, struct expert_mat *m,
                        const float **bias)
{
    status st = OK;
    int n_expert = l->w->spec.n_expert;
    m->layout = EXPERT_OUT_MAJOR;
    TRY(expert_tables(l, m, n_expert, NULL, 0, NULL, 0));
    float *b = own(l, (size_t)n_expert * (size_t)m->n_out * sizeof *b);
    if (!b)
        return no_memory(l);
    *bias = b;
    for (int e = 0; e < n_expert; e++) {
        char name[MAX_NAME + 32];
        struct mat one = {0};
        NAME(name, "%s.%d.weight", prefix, e);
        TRY(take_mat(l, name, m->n_out, m->n_in, &one));
        if (one.p && e > 0 && one.dtype != m->dtype)
            return err_param(l->e, E_FORMAT, name, "tensor %s differs in type from expert 0", name);
        m->dtype = one.dtype;
        m->blocks[e] = one.p;
        NAME(name, "%s.%d.bias", prefix, e);
        const struct st_tensor *t;
        TRY(take(l, name, false, (const int64_t[]){m->n_out}, 1, &t));
        if (t)
            TRY(widen_checked(l, t, b + (size_t)e * (size_t)m->n_out));
    }
out:
    return st;
}

/* One of the two expert matrices of a layer, in whichever form the file has it.
 * hf and orig name it in the two layouts, with the layer's prefix. */
static status take_experts(struct loader *l, const char *hf, const char *orig, int n_out, int n_in,
                           struct expert_mat *m, const float **bias)
{
    status st = OK;
    char a[MAX_NAME], b[MAX_NAME];
    int n_expert = l->w->spec.n_expert;
    *m = (struct expert_mat){.n_out = n_out, .n_in = n_in};
    if (l->original) {
        NAME(a, "%s_bias", orig);
        TRY(take_vector(l, a, n_expert, n_out, bias));
        NAME(a, "%s_weight", orig);
        if (find(l, a))
            return take_dense(l, a, EXPERT_OUT_MAJOR, m);
        NAME(a, "%s_weight.blocks", orig);
        NAME(b, "%s_weight.scales", orig);
        return take_mxfp4(l, a, b, m);
    }
    NAME(a, "%ss.0.weight", hf);
    if (find(l, a)) {
        NAME(a, "%ss", hf);
        return take_each(l, a, m, bias);
    }
    NAME(a, "%s_bias", hf);
    TRY(take_vector(l, a, n_expert, n_out, bias));
    if (find(l, hf))
        return take_dense(l, hf, EXPERT_IN_MAJOR, m);
    NAME(a, "%s_blocks", hf);
    NAME(b, "%s_scales", hf);
    TRY(take_mxfp4(l, a, b, m));
out:
    return st;
}

/* ---- the whole model ---- */

static status take_attention(struct loader *l, const char *prefix, struct layer *y)
{
    status st = OK;
    const struct spec *s = &l->w->spec;
    int d = s->d_model, n_q = s->n_head * s->d_head, n_kv = s->n_kv_head * s->d_head;
    char name[MAX_NAME];
    if (l->original) {
        struct mat qkv = {0};
        const float *b = NULL;
        NAME(name, "%sattn.norm.scale", prefix);
        TRY(take_vector(l, name, d, 0, &y->attn_norm));
        NAME(name, "%sattn.qkv.weight", prefix);
        TRY(take_mat(l, name, n_q + 2 * n_kv, d, &qkv));
        NAME(name, "%sattn.qkv.bias", prefix);
        TRY(take_vector(l, name, n_q + 2 * n_kv, 0, &b));
        y->q = mat_rows(&qkv, 0, n_q);
        y->k = mat_rows(&qkv, n_q, n_kv);
        y->v = mat_rows(&qkv, n_q + n_kv, n_kv);
        if (b) {
            y->bq = b;
            y->bk = b + n_q;
            y->bv = b + n_q + n_kv;
        }
        NAME(name, "%sattn.sinks", prefix);
        TRY(take_vector(l, name, s->n_head, 0, &y->sinks));
        NAME(name, "%sattn.out.weight", prefix);
        TRY(take_mat(l, name, d, n_q, &y->o));
        NAME(name, "%sattn.out.bias", prefix);
        return take_vector(l, name, d, 0, &y->bo);
    }
    NAME(name, "%sinput_layernorm.weight", prefix);
    TRY(take_vector(l, name, d, 0, &y->attn_norm));
    const struct {
        char letter;
        int n_out, n_in;
        struct mat *m;
        const float **bias;
    } proj[4] = {{'q', n_q, d, &y->q, &y->bq},
                 {'k', n_kv, d, &y->k, &y->bk},
                 {'v', n_kv, d, &y->v, &y->bv},
                 {'o', d, n_q, &y->o, &y->bo}};
    for (int i = 0; i < 4; i++) {
        NAME(name, "%sself_attn.%c_proj.weight", prefix, proj[i].letter);
        TRY(take_mat(l, name, proj[i].n_out, proj[i].n_in, proj[i].m));
        NAME(name, "%sself_attn.%c_proj.bias", prefix, proj[i].letter);
        TRY(take_vector(l, name, proj[i].n_out, 0, proj[i].bias));
    }
    NAME(name, "%sself_attn.sinks", prefix);
    TRY(take_vector(l, name, s->n_head, 0, &y->sinks));
out:
    return st;
}

static status take_mlp(struct loader *l, const char *prefix, struct layer *y)
{
    status st = OK;
    const struct spec *s = &l->w->spec;
    char name[MAX_NAME], orig[MAX_NAME];
    NAME(name, l->original ? "%smlp.norm.scale" : "%spost_attention_layernorm.weight", prefix);
    TRY(take_vector(l, name, s->d_model, 0, &y->mlp_norm));
    const char *router = l->original ? "gate" : "router";
    NAME(name, "%smlp.router.linear.weight", prefix);
    if (!l->original && find(l, name))
        router = "router.linear";
    NAME(name, "%smlp.%s.weight", prefix, router);
    TRY(take_vector(l, name, s->n_expert, s->d_model, &y->router));
    NAME(name, "%smlp.%s.bias", prefix, router);
    TRY(take_vector(l, name, s->n_expert, 0, &y->b_router));
    NAME(name, "%smlp.experts.gate_up_proj", prefix);
    NAME(orig, "%smlp.mlp1", prefix);
    TRY(take_experts(l, name, orig, 2 * s->d_ff, s->d_model, &y->gate_up, &y->b_gate_up));
    NAME(name, "%smlp.experts.down_proj", prefix);
    NAME(orig, "%smlp.mlp2", prefix);
    TRY(take_experts(l, name, orig, s->d_model, s->d_ff, &y->down, &y->b_down));
out:
    return st;
}

static status take_all(struct loader *l)
{
    status st = OK;
    struct weights *w = l->w;
    const struct spec *s = &w->spec;
    l->original = find(l, "embedding.weight") || find(l, "block.0.attn.qkv.weight");
    bool o = l->original;
    TRY(take_mat(l, o ? "embedding.weight" : "model.embed_tokens.weight", s->n_vocab, s->d_model,
                 &w->embed));
    for (int i = 0; i < s->n_layer; i++) {
        char prefix[64];
        NAME(prefix, o ? "block.%d." : "model.layers.%d.", i);
        TRY(take_attention(l, prefix, &w->layer[i]));
        TRY(take_mlp(l, prefix, &w->layer[i]));
    }
    TRY(take_vector(l, o ? "norm.scale" : "model.norm.weight", s->d_model, 0, &w->final_norm));
    if (s->tied)
        w->unembed = w->embed;
    else
        TRY(take_mat(l, o ? "unembedding.weight" : "lm_head.weight", s->n_vocab, s->d_model,
                     &w->unembed));
    const struct entry *left = NULL;
    for (int i = 0; i < w->store->n_entry && !left; i++)
        left = w->store->entry[i].used ? NULL : &w->store->entry[i];
    const char *file = left ? w->store->name[left->i_file] : "";
    if (l->missing[0] && left)
        return err_param(l->e, E_FORMAT, l->missing,
                         "tensor %s is missing; %s has %s, which is not part of the model",
                         l->missing, file, left->t->name);
    if (l->missing[0])
        return err_param(l->e, E_FORMAT, l->missing, "tensor %s is missing", l->missing);
    if (left)
        return err_param(l->e, E_FORMAT, left->t->name,
                         "%s: tensor %s is not part of a model of this configuration", file,
                         left->t->name);
out:
    return st;
}

/* One index over all files; a name may come once. */
static status index_all(struct loader *l)
{
    struct weights_store *s = l->w->store;
    int n = 0;
    for (int i = 0; i < s->n_file; i++)
        n += st_count(s->file[i]);
    s->entry = mem_calloc((size_t)n, sizeof *s->entry);
    if (!s->entry)
        return no_memory(l);
    for (int i = 0; i < s->n_file; i++)
        for (int j = 0; j < st_count(s->file[i]); j++) {
            const struct st_tensor *t = st_at(s->file[i], j);
            s->entry[s->n_entry++] = (struct entry){.t = t, .i_file = i};
            l->w->n_bytes += t->n_bytes;
            if (strstr(t->name, "mlp.experts.") || strstr(t->name, ".mlp.mlp"))
                l->w->n_expert_bytes += t->n_bytes;
        }
    qsort(s->entry, (size_t)n, sizeof *s->entry, cmp_entry);
    for (int i = 1; i < n; i++) {
        const struct entry *a = &s->entry[i - 1], *b = &s->entry[i];
        if (strcmp(a->t->name, b->t->name) == 0)
            return err_param(l->e, E_FORMAT, b->t->name, "tensor %s is both in %s and in %s",
                             b->t->name, s->name[a->i_file], s->name[b->i_file]);
    }
    return OK;
}

/* ---- configuration ---- */

/* Parses one of the configuration files and hands it to `read`; messages name the file. */
static status read_config(struct weights *w, const char *label, const char *text, size_t n,
                          status (*read)(const struct json *, struct spec *, struct err *),
                          struct err *e)
{
    struct err inner = {0};
    struct json *j;
    status st = json_parse(text, n, &json_limits_file, &j, &inner);
    if (st == E_INPUT || st == E_LIMIT)
        st = E_FORMAT;
    if (st == OK)
        st = read(j, &w->spec, &inner);
    json_free(j);
    return st < 0 ? err_param(e, st, inner.param, "%s: %s", label, inner.msg) : OK;
}

/* A small text file of the folder. Absent: E_NOENT. */
static status read_text(const char *dir, const char *name, struct buf *b, struct err *e)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return err_set(e, E_INPUT, "path too long");
    buf_clear(b);
    status st = file_read(path, b, e);
    if (st == E_INPUT || st == E_LIMIT)
        st = err_set(e, E_FORMAT, "%s/%s: not a regular file of sane size", dir, name);
    return st;
}

static status read_configs(struct weights *w, const char *dir, struct err *e)
{
    status st = OK;
    char label[PATH_MAX + 64];
    struct buf b;
    buf_init(&b, 16 << 20);
    TRY(read_text(dir, "config.json", &b, e));
    NAME(label, "%s/config.json", dir);
    TRY(read_config(w, label, b.p, b.n, spec_from_json, e));
    st = read_text(dir, "generation_config.json", &b, e);
    if (st == OK) {
        NAME(label, "%s/generation_config.json", dir);
        st = read_config(w, label, b.p, b.n, spec_read_generation, e);
    } else if (st == E_NOENT) {
        st = OK;
    }
out:
    buf_fini(&b);
    return st;
}

/* ---- folder and files ---- */

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n > k && strcmp(s + n - k, suffix) == 0;
}

static bool is_tensor_file(const char *name)
{
    return name[0] != '.' && has_suffix(name, ".safetensors");
}

static bool has_tensor_files(const char *dir)
{
    DIR *d = opendir(dir);
    bool found = false;
    for (struct dirent *ent; d && !found && (ent = readdir(d));)
        found = is_tensor_file(ent->d_name);
    if (d)
        closedir(d);
    return found;
}

/* A plain name: no folder part, not hidden. */
static bool is_plain(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < 256;
}

/* The hub's cache keeps models--ORG--NAME/{blobs, refs/main, snapshots/REVISION}. Appends the
 * snapshot of refs/main to `dir`. */
static status enter_snapshot(char *dir, size_t cap, struct err *e)
{
    status st = OK;
    char rev[128] = "";
    struct buf b;
    buf_init(&b, sizeof rev - 1);
    TRY(read_text(dir, "refs/main", &b, e));
    memcpy(rev, b.p, b.n + 1);
    rev[strcspn(rev, "\r\n")] = '\0';
    size_t n = strlen(dir);
    if (!is_plain(rev) || snprintf(dir + n, cap - n, "/snapshots/%s", rev) >= (int)(cap - n))
        st = err_set(e, E_FORMAT, "%s/refs/main does not name a snapshot", dir);
out:
    buf_fini(&b);
    return st;
}

/* The folder that holds the files: `name` itself, its snapshot, or its original/ subfolder. */
static status find_folder(const char *name, char *dir, size_t cap, struct err *e)
{
    char sub[PATH_MAX + 16];
    if (!file_is_dir(name))
        return file_exists(name) ? err_set(e, E_INPUT, "%s: not a folder", name)
                                 : err_set(e, E_NOENT, "%s: no such folder", name);
    if (snprintf(dir, cap, "%s", name) >= (int)cap || strlen(dir) + 256 > cap)
        return err_set(e, E_INPUT, "path too long");
    NAME(sub, "%s/snapshots", dir);
    if (file_is_dir(sub) && !has_tensor_files(dir)) {
        status st = enter_snapshot(dir, cap, e);
        if (st < 0)
            return st;
    }
    if (has_tensor_files(dir))
        return OK;
    NAME(sub, "%s/original", dir);
    if (has_tensor_files(sub)) {
        size_t n = strlen(dir);
        snprintf(dir + n, cap - n, "/original");
        return OK;
    }
    return err_set(e, E_NOENT, "%s: no *.safetensors file here or in original/", dir);
}

static int cmp_str(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adds a file name to the store; not sorted. */
static status add_name(struct weights_store *s, const char *name, struct err *e)
{
    if (s->n_file == MAX_FILES)
        return err_set(e, E_FORMAT, "more than %d safetensors files", MAX_FILES);
    char *copy = mem_strdup(name);
    if (!copy)
        return err_set(e, E_NOMEM, "out of memory");
    s->name[s->n_file++] = copy;
    return OK;
}

static status list_folder(struct weights_store *s, const char *dir, struct err *e)
{
    status st = OK;
    DIR *d = opendir(dir);
    if (!d)
        return err_set(e, E_IO, "%s: cannot list the folder", dir);
    for (struct dirent *ent; st == OK && (ent = readdir(d));)
        if (is_tensor_file(ent->d_name))
            st = add_name(s, ent->d_name, e);
    closedir(d);
    qsort(s->name, (size_t)s->n_file, sizeof *s->name, cmp_str);
    return st;
}

/* The distinct file names of the index's weight_map. */
static status list_index(struct weights_store *s, const struct json *map, const char *label,
                         struct err *e)
{
    if (json_kind(map) != J_OBJ)
        return err_set(e, E_FORMAT, "%s: no \"weight_map\"", label);
    for (void *it = json_first(map); it; it = json_next(map, it)) {
        const struct json *v = json_val(it);
        size_t n = 0;
        const char *file = json_kind(v) == J_STR ? json_str(v, &n) : "";
        if (!is_plain(file) || strlen(file) != n || !is_tensor_file(file))
            return err_param(e, E_FORMAT, json_key(it, NULL),
                             "%s: \"%.60s\" is not the plain name of a .safetensors file", label,
                             file);
        bool known = false;
        for (int i = s->n_file - 1; i >= 0 && !known; i--)
            known = strcmp(s->name[i], file) == 0;
        if (!known) {
            status st = add_name(s, file, e);
            if (st < 0)
                return st;
        }
    }
    return OK;
}

/* Every tensor of the index in the file it names, and every tensor of the files in the index. */
static status check_index(const struct weights_store *s, const struct json *map, const char *label,
                          struct err *e)
{
    for (void *it = json_first(map); it; it = json_next(map, it)) {
        const char *name = json_key(it, NULL), *file = json_str(json_val(it), NULL);
        int i = 0;
        while (strcmp(s->name[i], file) != 0)
            i++;
        if (!st_find(s->file[i], name))
            return err_param(e, E_FORMAT, name, "%s: tensor %.80s is not in %s", label, name, file);
    }
    for (int i = 0; i < s->n_file; i++)
        for (int k = 0; k < st_count(s->file[i]); k++) {
            const char *name = st_at(s->file[i], k)->name;
            const struct json *v = json_get(map, name);
            if (!v || strcmp(json_str(v, NULL), s->name[i]) != 0)
                return err_param(e, E_FORMAT, name, "%s: tensor %s of %s is not in the index",
                                 label, name, s->name[i]);
        }
    return OK;
}

/* Room for a copy and, so that other programs and the next start find them, the files. */
static bool fits_twice(const struct weights_store *s, const char *dir)
{
    char path[PATH_MAX];
    uint64_t n = 0;
    struct stat sb;
    for (int i = 0; i < s->n_file; i++) {
        NAME(path, "%s/%s", dir, s->name[i]);
        if (stat(path, &sb) == 0)
            n += (uint64_t)sb.st_size;
    }
    return sysmem_available() / 9 * 4 > n; /* 2.25 of them: the cache needs memory too */
}

static status open_files(struct weights *w, const char *dir, enum load_mode mode, struct err *e)
{
    struct weights_store *s = w->store;
    bool copy = mode == LOAD_HUGE || (mode == LOAD_AUTO && fits_twice(s, dir));
    w->copied = copy;
    for (int i = 0; i < s->n_file; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", dir, s->name[i]) >= (int)sizeof path)
            return err_set(e, E_INPUT, "path too long");
        status st = (copy ? st_open_copy : st_open)(path, &s->file[i], e);
        if (st < 0)
            return st;
    }
    return OK;
}

static status open_folder(struct weights *w, const char *dir, enum load_mode mode, struct err *e)
{
    static const char index_name[] = "model.safetensors.index.json";
    static const struct json_limits limits = {
        .max_bytes = ST_MAX_HEADER, .max_depth = 8, .max_values = 2 * ST_MAX_TENSORS};
    status st = OK;
    struct json *index = NULL;
    struct err inner = {0};
    char label[PATH_MAX + 64];
    struct buf b;
    buf_init(&b, ST_MAX_HEADER);
    struct weights_store *s = w->store;
    s->name = mem_calloc(MAX_FILES, sizeof *s->name);
    s->file = mem_calloc(MAX_FILES, sizeof *s->file);
    if (!s->name || !s->file)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    TRY(read_configs(w, dir, e));
    NAME(label, "%s/%s", dir, index_name);
    st = read_text(dir, index_name, &b, e);
    if (st == E_NOENT) {
        TRY(list_folder(s, dir, e));
        TRY(open_files(w, dir, mode, e));
        goto out;
    }
    TRY(st);
    st = json_parse(b.p, b.n, &limits, &index, &inner);
    if (st < 0)
        TRY(err_set(e, st == E_NOMEM ? st : E_FORMAT, "%s: %s", label, inner.msg));
    const struct json *map = json_get(index, "weight_map");
    TRY(list_index(s, map, label, e));
    TRY(open_files(w, dir, mode, e));
    TRY(check_index(s, map, label, e));
out:
    json_free(index);
    buf_fini(&b);
    return st;
}

/* ---- entry ---- */

static struct weights *weights_new(struct err *e)
{
    struct weights *w = mem_calloc(1, sizeof *w);
    if (w)
        w->store = mem_calloc(1, sizeof *w->store);
    if (!w || !w->store) {
        mem_free(w);
        err_set(e, E_NOMEM, "out of memory");
        return NULL;
    }
    return w;
}

/* From opened files to finished weights. */
static status load(struct weights *w, bool check_all, struct err *e)
{
    status st = OK;
    struct loader l = {.w = w, .check_all = check_all, .e = e};
    TRY(index_all(&l));
    TRY(take_all(&l));
out:
    return st;
}

status weights_open(const char *name, const struct weights_opts *opts, struct weights **out,
                    struct err *e)
{
    status st = OK;
    char dir[PATH_MAX];
    *out = NULL;
    struct weights *w = weights_new(e);
    if (!w)
        return E_NOMEM;
    TRY(find_folder(name, dir, sizeof dir, e));
    TRY(open_folder(w, dir, opts ? opts->mode : LOAD_MMAP, e));
    TRY(load(w, opts && opts->check_all, e));
    if (opts && opts->n_layer > 0)
        w->spec.n_layer = min_int(w->spec.n_layer, opts->n_layer);
    w->dir = mem_strdup(dir);
    if (!w->dir)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    *out = w;
    w = NULL;
out:
    weights_close(w);
    return st;
}

status weights_open_memory(const struct weights_blob *b, bool check_all, struct weights **out,
                           struct err *e)
{
    status st = OK;
    *out = NULL;
    struct weights *w = weights_new(e);
    if (!w)
        return E_NOMEM;
    struct weights_store *s = w->store;
    s->name = mem_calloc(1, sizeof *s->name);
    s->file = mem_calloc(1, sizeof *s->file);
    if (!s->name || !s->file)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    TRY(add_name(s, "the built-in model", e));
    TRY(read_config(w, "config.json", b->config, b->n_config, spec_from_json, e));
    if (b->generation_config)
        TRY(read_config(w, "generation_config.json", b->generation_config, b->n_generation_config,
                        spec_read_generation, e));
    TRY(st_open_memory(b->tensors, b->n_tensors, s->name[0], &s->file[0], e));
    TRY(load(w, check_all, e));
    *out = w;
    w = NULL;
out:
    weights_close(w);
    return st;
}
