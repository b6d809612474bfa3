/* What executes the model: one `struct backend` per process and device, called by one thread.
 *
 * The whole contract is struct batch: rows (tokens) of several sequences, each row with its
 * position; the key/value cache is paged, and the engine alone decides which page belongs to whom.
 * A backend never sees text, JSON or requests.
 *
 * Cache. There are two pools: one for the full-attention layers, one for the sliding layers. A page
 * holds `page_tok` consecutive positions of one sequence, for all layers of its pool. Position p
 * of a sequence lies in its table's entry p / page_tok, slot p % page_tok, in both pools. The
 * engine recycles window pages that no later row can see and writes -1 in their entries. Before a
 * step it guarantees that the entries for every position the step writes, and for every earlier
 * position its rows may see, are valid pages, and that no two sequences write one page.
 *
 * Order inside a step: per layer, keys and values of all rows are written, then all rows attend.
 * So a sequence's rows may be one (decode) or many (a prefill chunk) in the same call.
 */
#ifndef MODEL_BACKEND_H
#define MODEL_BACKEND_H

#include "model/weights.h"

enum arith { ARITH_F32, ARITH_BF16, ARITH_Q8, ARITH_FP8 };
enum dense_type { DENSE_AUTO, DENSE_BF16, DENSE_Q8 };
enum kv_type { KV_AUTO, KV_F32, KV_BF16, KV_Q8, KV_FP8 };

/* How to compute. A backend refuses what it cannot do with E_INPUT and a line that says what it
 * can. */
struct backend_opts {
    enum arith arith;      /* inputs of the matrix products */
    enum dense_type dense; /* attention's matrices and the head; AUTO: 8-bit under ARITH_Q8 alone */
    enum kv_type kv;       /* keys and values; AUTO: float32 under ARITH_F32, else bf16 */
    int n_thread;          /* CPU workers; 0 = the processors this process may use */
    int i_card;            /* which CUDA card */
    bool deterministic; /* a row's result never depends on the other rows; on the CPU always so */
    /* CUDA: the first layers whose experts stay with the CPU; -1: as many as the card's memory
     * wants. card_bytes: of that memory, what may be used; 0: all. */
    int n_cpu_moe;
    uint64_t card_bytes;
    bool lock; /* CPU: what steps read may not leave memory (mlock) */
    /* CPU: where 8-bit copies made once are kept for the next time (cpu/dense_cache.h). */
    bool no_dense_cache;
};

struct kv_plan {
    int page_tok;                   /* positions per page, a power of two */
    int n_full;                     /* pages in the pool of full layers */
    int n_window;                   /* pages in the pool of sliding layers */
    int n_host_full, n_host_window; /* places in the host's memory for pages of each, for kv_swap */
    int max_rows;                   /* most rows of one step: scratch is sized by it */
    int max_logit_rows;
};

struct batch_seq {
    int row0, n_row; /* its rows in the batch, consecutive, positions pos0, pos0+1, ... */
    int pos0;
    const int32_t *full;   /* page table of the full layers */
    const int32_t *window; /* page table of the sliding layers */
};

struct batch {
    int n_row;
    const int32_t *tok; /* [n_row] token ids, each < n_vocab */
    int n_seq;
    const struct batch_seq *seq; /* [n_seq]; rows of sequence i follow those of i-1 */
    int n_logit;
    const int32_t *logit_row; /* [n_logit] ascending rows whose logits are wanted */
    /* A backend with `pick` begins to compute and returns; `pick` comes before its next call. */
    bool defer;
};

/* Whether a batch keeps what is promised above: E_BUG, or E_INPUT for a token out of range. */
MUST_USE status batch_check(const struct batch *, const struct spec *, const struct kv_plan *,
                            struct err *);

struct step_out {
    /* [n_logit, n_vocab], the backend's memory, valid until the next step; NULL of a step that was
     * deferred, and from the scripted backend (engine/scripted.h), which leaves the tokens to a
     * script. */
    float *logits;
};

/* What is to become of a row of logits where the backend computed it: the row of a deferred step,
 * so that 4 bytes leave the device instead of the whole row. The order of the rules is sample.h's:
 * penalties, bias, forbidden tokens, mask; temperature, top-k, top-p, min-p. */
enum pick_kind {
    PICK_NONE,   /* nothing: it is not needed after all */
    PICK_LOGITS, /* the row itself, into the host's memory */
    PICK_TOKEN,  /* a token, chosen by the rules */
    PICK_LOGPROB /* `token` is known; only its log-probability is wanted */
};

/* A token that a sequence holds, and how often it generated it. */
struct token_count {
    int32_t id, n_out;
};

struct pick {
    enum pick_kind kind;
    bool wants_logprob; /* PICK_TOKEN's */
    float temperature;  /* 0: the largest logit, the lowest id among equals */
    float top_p, min_p; /* 0 (top_p: or 1): off */
    int top_k;          /* 0: off */
    double u;           /* uniform in [0, 1): decides among what the filters leave */
    float presence, frequency, repetition;
    const struct token_count *seen; /* [n_seen] what the penalties are for: distinct ids */
    int n_seen;
    const int32_t *bias_id; /* [n_bias] distinct */
    const float *bias;      /* [n_bias] added */
    int n_bias;
    const int32_t *forbidden; /* [n_forbidden] unless that leaves nothing */
    int n_forbidden;
    const uint32_t *mask; /* [(n_vocab + 31) / 32] what is allowed; NULL: everything */
    int32_t also;         /* allowed beside the mask's; -1: no other */
    /* results; of PICK_LOGPROB an input */
    int32_t token;
    float logprob;       /* log-softmax of the untouched logits */
    const float *logits; /* PICK_LOGITS: [n_vocab], until the next step; behind the row before */
};

/* A page of one pool and the page of that pool that becomes its copy; of kv_swap one of the two is
 * a place in the host's memory. */
struct page_pair {
    int from, to;
    bool window; /* of the pool of sliding layers */
};

struct backend {
    const char *name;
    int chunk; /* prompt rows that a step should have, to be efficient and yet short */
    void (*close)(struct backend *);
    /* Reserves the pages and the scratch; once, before the first step. */
    status (*kv_init)(struct backend *, const struct kv_plan *, struct err *);
    /* Bytes of one page of each pool. */
    void (*kv_page_bytes)(const struct backend *, int page_tok, size_t *full, size_t *window);
    /* Bytes that the cache may take, in the memory where pages live; 0: no limit known. */
    size_t (*kv_memory)(const struct backend *);
    /* Copies whole pages [n]: a sequence that forks inside a page. Cannot fail. */
    void (*kv_copy)(struct backend *, const struct page_pair *, int n);
    /* Copies whole pages [n], bit for bit, to places in the host's memory (out: from is a page, to
     * a place) or back (from is a place, to a page). kv_init made the places: of each pool 0 ..
     * n_host - 1, memory of the backend's own, pinned where a card copies from it. Takes its turn
     * among the calls: what was called before is seen, what is called later sees it, so pages and
     * places may be used again at once; but it may return before the bytes have moved. Cannot fail;
     * what goes wrong on a card is reported by the next step. */
    void (*kv_swap)(struct backend *, const struct page_pair *, int n, bool out);
    /* E_NUMERIC when a wanted logit is NaN. Deterministic: a row's logits do not depend on the
     * other rows of the batch nor on how a sequence was cut into steps. */
    status (*step)(struct backend *, const struct batch *, struct step_out *, struct err *);
    /* Ends a deferred step: pick [n] says what becomes of its n = n_logit rows. May be called again
     * for other picks from the same rows. What went wrong in the step is reported here, E_NUMERIC
     * too. Deterministic: a row's token does not depend on the other rows. NULL: the backend has
     * none, and its steps are not deferred. */
    status (*pick)(struct backend *, struct pick *, int n, struct err *);
    /* Norm, router and experts of one layer alone, after kv_init: x [n_row, d_model] is the
     * residual, to which their sum is added. For a card without room for them; NULL: only the CPU
     * can. */
    void (*experts)(struct backend *, int layer, float *x, int n_row);
    /* Bytes in use beside the cache's pages, after kv_init: the weights, where and as the steps
     * read them, and everything else. NULL: not known. */
    void (*memory)(const struct backend *, size_t *weight, size_t *work);
};

/* The CPU backend (src/cpu). */
MUST_USE status backend_cpu_open(const struct weights *, const struct backend_opts *,
                                 struct backend **, struct err *);

/* The CUDA backend: libgloss-cuda.so, opened at run time. E_DEVICE when it or a card is missing.
 * Both sides must agree on the ABI: its last number grows when a struct that they share changes. */
MUST_USE status backend_cuda_open(const struct weights *, const struct backend_opts *,
                                  struct backend **, struct err *);
#define BACKEND_CUDA_ABI GLOSS_VERSION "-8"

/* One timing: best of a few runs of all threads together; bytes and flops of such a run (0: none).
 */
struct cpu_rate {
    const char *name;
    int rows; /* of x; 0: not a product */
    double ns, bytes, flops;
};
/* The processor's limits ("read", "fma_f32"), then its kernels at gpt-oss-20b's shapes. */
MUST_USE status backend_cpu_rates(int n_thread, void (*take)(void *ctx, const struct cpu_rate *),
                                  void *ctx, struct err *);

/* The processor's limits alone, for this arithmetic's products: bytes a second out of memory, and
 * operations a second. */
struct cpu_limits {
    double read, peak;
};
MUST_USE status backend_cpu_limits(int n_thread, enum arith, struct cpu_limits *, struct err *e);

/* Instruction sets compiled in, "c avx2 avx512", and the strongest that runs here ("none" when
 * GLOSS_CPU asks for one that doesn't). */
const char *backend_cpu_features(void);
const char *backend_cpu_name(void);

#endif
