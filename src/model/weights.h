/* A checkpoint as the forward pass sees it: struct weights, pointers into the mapped files.
 *
 * Matrices stay as the file has them (type and layout), never converted or copied; the exception is
 * a tensor whose bytes are misaligned for its type. Vectors (norms, biases, sinks) and the router,
 * all small, are widened to float32 at load and checked for NaN and Inf. Afterwards the weights
 * are immutable and shared by all threads and backends.
 */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "model/safetensors.h"
#include "model/spec.h"

/* A dense matrix [n_out, n_in], row-major: y = W x. */
struct mat {
    const void *p;
    enum dtype dtype; /* DT_F32, DT_F16 or DT_BF16 */
    int n_out, n_in;
};

/* The matrices of all experts of one layer. */
enum expert_layout {
    EXPERT_MXFP4,     /* blocks [E, n_out, n_in/32, 16], scales [E, n_out, n_in/32] */
    EXPERT_OUT_MAJOR, /* each expert [n_out, n_in] */
    EXPERT_IN_MAJOR   /* each expert [n_in, n_out]: transformers' unquantised layout */
};
struct expert_mat {
    enum expert_layout layout;
    enum dtype dtype; /* of the dense layouts */
    int n_out, n_in;
    const uint8_t **blocks; /* [E] start of expert e (codes, or dense values) */
    const uint8_t **scales; /* [E] MXFP4 only, else NULL */
};

struct layer {
    const float *attn_norm; /* [d_model] */
    struct mat q, k, v;     /* [n_head*d_head | n_kv_head*d_head (twice), d_model] */
    const float *bq, *bk, *bv;
    const float *sinks;             /* [n_head] */
    struct mat o;                   /* [d_model, n_head*d_head] */
    const float *bo;                /* [d_model] */
    const float *mlp_norm;          /* [d_model] */
    const float *router, *b_router; /* [n_expert, d_model], [n_expert] */
    struct expert_mat gate_up;      /* n_out = 2*d_ff, rows interleaved: even gate, odd up */
    const float *b_gate_up;         /* [n_expert, 2*d_ff] */
    struct expert_mat down;         /* n_out = d_model, n_in = d_ff */
    const float *b_down;            /* [n_expert, d_model] */
};

struct weights {
    struct spec spec;
    struct mat embed, unembed; /* [n_vocab, d_model] */
    const float *final_norm;   /* [d_model] */
    struct layer layer[SPEC_MAX_LAYER];
    size_t n_bytes;              /* of all tensors in the files */
    size_t n_expert_bytes;       /* of those, expert matrices and their biases */
    char *dir;                   /* folder the files were found in; NULL when from memory */
    bool copied;                 /* the files are in memory of this process (LOAD_HUGE) */
    struct weights_store *store; /* mappings and widened copies; NULL: the pointers are another's */
};

/* How the files come into memory: LOAD_MMAP maps them, read where they are used and shared with
 * every other process; LOAD_HUGE copies them into pages of 2 MiB; LOAD_AUTO copies where the copy
 * fits beside the files twice over. */
enum load_mode { LOAD_MMAP, LOAD_HUGE, LOAD_AUTO };
struct weights_opts {
    bool check_all; /* read every tensor for NaN, Inf and scale bytes of 255 */
    enum load_mode mode;
    int n_layer; /* only the first so many layers, for measurements; 0: all */
};

/* Opens a checkpoint folder: Hugging Face or original/ layout, the folder of the files or its
 * parent, sharded or single. Every expected tensor must be there with its exact shape, none may be
 * left over. opts NULL: all zero.
 * E_NOENT, E_FORMAT (file, tensor, reason), E_NUMERIC, E_NOMEM. */
MUST_USE status weights_open(const char *dir, const struct weights_opts *opts, struct weights **w,
                             struct err *e);

/* The same from memory: config.json, generation_config.json (may be NULL) and one safetensors file.
 */
struct weights_blob {
    const char *config, *generation_config;
    size_t n_config, n_generation_config;
    const uint8_t *tensors;
    size_t n_tensors;
};
MUST_USE status weights_open_memory(const struct weights_blob *, bool check_all, struct weights **w,
                                    struct err *e);
void weights_close(struct weights *w);
/* [p, p + n), part of a tensor, will hardly be read again: mapped pages of it may leave memory. */
void weights_release(const struct weights *w, const void *p, size_t n);

/* A number for these files as they are: their names, sizes and times of change, the tensors, some
 * of the matrices' bytes. False when there are no files. */
MUST_USE bool weights_identity(const struct weights *w, uint64_t *id);

/* The tensors as the files have them, in the order of their names: for those who copy checkpoints.
 */
int weights_count(const struct weights *w);
const struct st_tensor *weights_at(const struct weights *w, int i);

/* Row i of a matrix, widened: out[n_in]. */
void mat_row(const struct mat *m, int64_t i, float *out);
/* Output row i of expert e, widened, whatever the layout: out[n_in]. */
void expert_row(const struct expert_mat *m, int e, int64_t i, float *out);

#endif
