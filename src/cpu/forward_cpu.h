/* What the files of the CPU backend share: its state, a worker's memory, and the few functions that
 * one file defines for another. forward_cpu.c describes the whole.
 */
#ifndef CPU_FORWARD_CPU_H
#define CPU_FORWARD_CPU_H

#include "cpu/kern.h"

#include "base/file.h"
#include "base/pool.h"
#include "model/backend.h"

#include <stdatomic.h>

/* Rows ready for the products: [n, n_in] each, in the forms that this checkpoint's matrices need.
 */
struct acts {
    float *f;         /* exact (ARITH_F32) or rounded to bf16; NULL when no product wants it */
    uint16_t *h;      /* bf16, for the *_bf16 kernels; NULL when no product wants it */
    size_t ld;        /* elements per row */
    struct q8_rows q; /* blocks of whole numbers, else q.q is NULL */
    size_t q_size;    /* bytes of such a number: 1, or 2 for mul_mx_q16 */
};

/* Whose inputs rows are. */
enum use { USE_DENSE = 1, USE_EXPERT = 2 };

/* A dense matrix and, for ARITH_Q8, its copy: [n_out/8, n_in/32] or NULL. */
struct dense {
    const struct mat *m;
    const struct q8_block *q8;
};
enum { N_DENSE = 4 }; /* of a layer: q, k, v, o */

enum { HUGE_PAGE = 2 << 20 };

/* Where the attention of n rows stands: their query heads of one key head. */
struct attn_state {
    float *m, *l; /* [n, heads per key head] maximum and sum */
    float *acc;   /* [n, heads per key head, d_head] */
};

/* One worker's own memory. R = max_rows, K = n_active, E = n_expert. */
struct scratch {
    float *norm_f;    /* [SMALL_ROWS, d_model] */
    struct acts norm; /* [SMALL_ROWS, d_model] */
    float *router_v;  /* [SMALL_ROWS, E] */
    float *head;      /* [R, d_head] a key or value head before it goes to the cache */
    struct attn_state attn, attn_span;
    float *pair;   /* [R, 2 * PAIR_CHUNK] */
    float *swiglu; /* [PAIR_CHUNK] */
    float *down;   /* [n_down] */
    void *tmp;     /* struct mul's */
    /* Routing of all rows; every worker computes the same. A slot is a (row, expert) pair; slots
     * are numbered expert by expert, so an expert's rows lie together. */
    int32_t *expert;   /* [R, K] */
    float *weight;     /* [R, K] */
    int32_t *slot;     /* [R, K] slot of the row's j-th expert */
    int32_t *slot_row; /* [R * K] */
    int32_t *first;    /* [E + 1] first slot of each expert */
};

struct kv_pool {
    int n_layer; /* layers that use this pool */
    size_t page_bytes;
    int n_page;
    /* [n_page + places of kv_swap, page_bytes], untouched: one costs memory once used */
    uint8_t *p;
};

struct cpu {
    struct backend base;
    const struct weights *w;
    struct cpu_kern k;
    struct pool *pool;
    enum arith arith;
    enum kv_type kv;                 /* F32, BF16 or Q8 */
    unsigned need_f, need_h, need_q; /* forms of struct acts in use, by enum use */
    bool wide;                       /* need_q is for mul_mx_q16 */
    struct dense dense[SPEC_MAX_LAYER][N_DENSE], unembed;
    struct q8_block *q8;           /* all copies, or NULL where a file holds them */
    struct file_map q8_file;       /* that file */
    size_t q8_bytes, packed_bytes; /* of the copies, of what they stand for */
    bool lock;                     /* what steps read may not leave memory */
    double inv[SPEC_MAX_HEAD_DIM / 2], rope_factor;
    int pool_layer[SPEC_MAX_LAYER]; /* a layer's place within the pages of its pool */

    bool ready;
    struct kv_plan plan;
    struct kv_pool full, window;
    size_t n_down;
    size_t block_bytes;
    void *block;                      /* all that follows */
    float *x;                         /* [R, d_model] residual */
    float *cos, *sin;                 /* [R, d_head/2] */
    float *norm_f;                    /* [R, d_model] */
    struct acts norm;                 /* [R, d_model] */
    float *q;                         /* [R, n_head * d_head] */
    struct acts attn;                 /* [R, n_head * d_head] */
    float *router_v;                  /* [R, E] */
    struct acts ff;                   /* [R * K, d_ff], by slot */
    float *logits;                    /* [max_logit_rows, n_vocab] */
    struct batch_seq const **row_seq; /* [R] */
    int32_t *row_pos;                 /* [R] */
    float *part;                      /* states of spans that workers deal out */
    struct scratch *scratch;          /* [workers] */

    const struct batch *b; /* of the running step */
    atomic_int bad;        /* first wanted logit row with NaN or Inf, or INT_MAX */
};

/* ---- forward_cpu.c ---- */

/* Stores n elements at (row, col) in the forms in use, rounding as the arithmetic says. */
void cpu_acts_put(const struct cpu *c, const struct acts *a, size_t row, size_t col, const float *v,
                  int n);

/* Hands out parts of one block; first with base NULL to learn the size. Overflow sticks. */
struct carve {
    uint8_t *base;
    size_t used;
    bool overflow;
};
void *cpu_carve(struct carve *k, size_t n, size_t size);

/* ---- dense_cpu.c ---- */

/* The i-th dense matrix of the model, the unembedding last. */
struct dense *cpu_dense_at(struct cpu *c, int i);
/* For ARITH_Q8: every matrix's copy. A worker's part of any row must be whole blocks, and its part
 * of the outputs whole tiles: E_INPUT for shapes that are not. */
MUST_USE status cpu_dense_open(struct cpu *c, bool no_cache, struct err *e);
void cpu_dense_close(struct cpu *c);
/* The weights that steps read, read now and kept in memory; the pages of the cache and scratch, as
 * they are used. E_LIMIT when the process may not. */
MUST_USE status cpu_lock(struct cpu *c, struct err *e);
MUST_USE status cpu_lock_cache(struct cpu *c, struct err *e);

/* ---- attn_cpu.c: the key/value pages, and attention over them ---- */

/* Allocates the pages of c->plan; after a failure cpu_kv_free frees what there is. */
MUST_USE status cpu_kv_alloc(struct cpu *c, struct err *e);
void cpu_kv_free(struct cpu *c); /* twice allowed */

/* struct backend's kv_page_bytes, kv_copy and kv_swap. */
void cpu_kv_page_bytes(const struct backend *base, int page_tok, size_t *full, size_t *window);
void cpu_kv_copy(struct backend *base, const struct page_pair *pair, int n);
void cpu_kv_swap(struct backend *base, const struct page_pair *pair, int n, bool out);

/* Puts one head of every row of the step, v [n_row, d_head], into the cache. */
void cpu_kv_put(struct cpu *c, int layer, int head, const float *v, bool is_key);

/* Attention's memory, handed out: a worker's own, and what all share. */
void cpu_attn_carve(struct carve *k, const struct cpu *c, struct scratch *s);
void cpu_attn_carve_shared(struct carve *k, struct cpu *c);

/* Worker t's part of the attention of all rows: c->q to c->attn. */
void cpu_attention(struct cpu *c, int t, int layer);

#endif
