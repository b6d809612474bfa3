/* gloss: run gpt-oss models from C. The only installed header.
 *
 *     struct gloss_err err;
 *     gloss_model *m;
 *     if (gloss_model_open("tiny", NULL, &m, &err) < 0)
 *         die(err.msg);
 *     gloss_chat *c;                                  // messages <-> tokens
 *     gloss_chat_new(m, NULL, &c, &err);
 *     gloss_chat_load(c, messages_json, n, GLOSS_FORM_AUTO, &err);
 *     gloss_chat_render(c, &ids, &n_ids, &err);
 *     gloss_engine *g;                                // runs requests
 *     gloss_engine_new(m, NULL, &g, &err);
 *     gloss_request *r;
 *     gloss_submit(g, ids, n_ids, NULL, &r, &err);
 *     struct gloss_event ev;
 *     while (gloss_next(r, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH)
 *         gloss_chat_feed(c, ev.token, &delta, &err); // text, channel, recipient
 *
 * Every option struct begins with its own size (set by GLOSS_INIT), so that fields can be added at
 * the end; zero means the default. NULL options mean all defaults. A model is immutable and may be
 * shared between threads; engine handles too; a request or a chat is used by one thread at a time.
 * Strings returned live until the next call on the same handle. Functions return GLOSS_OK or a
 * negative code and, where there is a gloss_err (may be NULL), one line that says what was wrong.
 */
#ifndef GLOSS_H
#define GLOSS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GLOSS_API __attribute__((visibility("default")))
#define GLOSS_INIT(type)                                                                           \
    {                                                                                              \
        .size = sizeof(type)                                                                       \
    }

typedef int gloss_status;
enum {
    GLOSS_OK = 0,
    GLOSS_E_NOMEM = -1,
    GLOSS_E_INPUT = -2,
    GLOSS_E_LIMIT = -3,
    GLOSS_E_FORMAT = -4,
    GLOSS_E_IO = -5,
    GLOSS_E_BUSY = -6,
    GLOSS_E_CANCEL = -7,
    GLOSS_E_DEVICE = -8,
    GLOSS_E_STATE = -9,
    GLOSS_E_BUG = -10,
    GLOSS_E_NOENT = -11,
    GLOSS_E_NUMERIC = -12
};

struct gloss_err {
    gloss_status code;
    char param[64]; /* field, tensor or option concerned, or "" */
    char msg[256];
};

GLOSS_API const char *gloss_version(void);
GLOSS_API const char *gloss_strerror(gloss_status);
/* The instruction sets that the build contains: "c avx2 avx512". */
GLOSS_API const char *gloss_features(void);
/* The instruction set whose kernels run on this processor: "c", "avx2", "avx512", "neon". */
GLOSS_API const char *gloss_cpu(void);

/* ---- model ---- */

typedef struct gloss_model gloss_model;

struct gloss_model_opts {
    size_t size;
    int check_tensors; /* read every tensor for NaN, Inf and scale bytes of 255 */
    int load_mode;     /* GLOSS_LOAD_ */
    int n_layer;       /* only the first so many layers, for measurements; 0: all */
};

/* Files mapped; copied into pages of 2 MiB; copied if they fit beside the files twice over. */
enum { GLOSS_LOAD_MMAP, GLOSS_LOAD_HUGE, GLOSS_LOAD_AUTO };

/* `name`: "tiny" (compiled in) or a checkpoint folder. A known name that is not a folder:
 * GLOSS_E_NOENT. */
GLOSS_API gloss_status gloss_model_open(const char *name, const struct gloss_model_opts *,
                                        gloss_model **, struct gloss_err *);
GLOSS_API void gloss_model_close(gloss_model *);

struct gloss_info {
    const char *name; /* "gpt-oss-20b", "gpt-oss-120b", "tiny" or "gpt-oss" */
    int n_layer, n_expert, n_active, d_model, d_ff, n_head, n_kv_head, d_head, n_vocab, window,
        n_ctx;
    int n_sliding; /* layers with the window */
    int64_t n_param, n_param_active;
    int64_t bytes_total, bytes_expert, bytes_dense, bytes_embed;
    int64_t kv_bytes_full, kv_bytes_window; /* per token, bf16, all layers of the kind */
    int has_tokenizer;
};
GLOSS_API void gloss_model_info(const gloss_model *, struct gloss_info *);

/* ---- text; model NULL means the compiled-in o200k_harmony vocabulary ---- */

enum { GLOSS_SPECIAL_TEXT, GLOSS_SPECIAL_ALLOW, GLOSS_SPECIAL_ERROR };

/* *ids is allocated; release with gloss_free. */
GLOSS_API gloss_status gloss_encode(const gloss_model *, const char *text, size_t n, int special,
                                    int32_t **ids, size_t *n_ids, struct gloss_err *);
/* *text is allocated, NUL-terminated behind n bytes; release with gloss_free. */
GLOSS_API gloss_status gloss_decode(const gloss_model *, const int32_t *ids, size_t n_ids,
                                    char **text, size_t *n, struct gloss_err *);
/* Borrowed bytes of one token, or NULL. */
GLOSS_API const char *gloss_token_bytes(const gloss_model *, int32_t id, size_t *n);
GLOSS_API void gloss_free(void *);

/* ---- conversations: harmony rendering and parsing ---- */

typedef struct gloss_chat gloss_chat;

enum { GLOSS_FORM_AUTO, GLOSS_FORM_LIBRARY, GLOSS_FORM_OPENAI };
enum { GLOSS_FOR_COMPLETION, GLOSS_FOR_TRAINING, GLOSS_FOR_CONVERSATION };
enum { GLOSS_DROP_LIBRARY, GLOSS_DROP_CLOSED_TURNS, GLOSS_DROP_NOTHING };
enum { GLOSS_PARSE_RECOVER, GLOSS_PARSE_LENIENT, GLOSS_PARSE_STRICT };
enum { GLOSS_EFFORT_DEFAULT, GLOSS_EFFORT_LOW, GLOSS_EFFORT_MEDIUM, GLOSS_EFFORT_HIGH };

struct gloss_chat_opts {
    size_t size;
    int render_for, drop; /* GLOSS_FOR_, GLOSS_DROP_ */
    int effort;           /* overrides a request's reasoning_effort */
    const char *identity; /* replaces the default system identity line */
    const char *date;     /* "YYYY-MM-DD"; NULL prints no date line */
    const char *schema;   /* JSON Schema of the answer, printed as response format */
    int parse_mode;       /* GLOSS_PARSE_ */
    int parse_from_start; /* the stream begins with <|start|>, not after "<|start|>assistant" */
};

GLOSS_API gloss_status gloss_chat_new(const gloss_model *, const struct gloss_chat_opts *,
                                      gloss_chat **, struct gloss_err *);
GLOSS_API void gloss_chat_free(gloss_chat *);

/* Takes a conversation as JSON: the harmony library's or an OpenAI request (docs/harmony.md).
 * Replaces what was loaded before. */
GLOSS_API gloss_status gloss_chat_load(gloss_chat *, const char *json, size_t n, int form,
                                       struct gloss_err *);
/* Tokens of the loaded conversation, borrowed. */
GLOSS_API gloss_status gloss_chat_render(gloss_chat *, const int32_t **ids, size_t *n_ids,
                                         struct gloss_err *);

struct gloss_delta {
    const char *text; /* newly visible text, or NULL (n = 0) */
    size_t n;
    const char *role, *recipient, *channel, *content_type; /* NULL outside a body or when absent */
    int message; /* index of the message the text belongs to */
};
/* Parses one generated token. Never fails on model output in recover mode. */
GLOSS_API gloss_status gloss_chat_feed(gloss_chat *, int32_t id, struct gloss_delta *,
                                       struct gloss_err *);
GLOSS_API gloss_status gloss_chat_finish(gloss_chat *, struct gloss_delta *, struct gloss_err *);
/* Parsed messages so far as {"messages":[...]} in the library's form. */
GLOSS_API gloss_status gloss_chat_parsed(gloss_chat *, const char **json, size_t *n,
                                         struct gloss_err *);

/* How often recover mode had to mend the stream so far, by kind: a header that harmony does not
 * have; a message without <|start|>; one without an end; a control or reserved token inside a body.
 */
enum {
    GLOSS_REPAIR_HEADER,
    GLOSS_REPAIR_START,
    GLOSS_REPAIR_END,
    GLOSS_REPAIR_BODY,
    GLOSS_N_REPAIR
};
GLOSS_API int gloss_chat_repairs(const gloss_chat *, int kind);

/* A finished parsed message; strings borrowed until the next feed. NULL fields are absent. */
struct gloss_message {
    const char *role, *name, *recipient, *channel, *content_type, *text;
    size_t n_text;
};
GLOSS_API int gloss_chat_messages(const gloss_chat *);
GLOSS_API gloss_status gloss_chat_message(gloss_chat *, int i, struct gloss_message *,
                                          struct gloss_err *);

/* ---- generation ----
 *
 * An engine has one thread of its own, which batches all requests: a row for every sequence that is
 * generating, prompts in chunks beside them. Submitting, reading, cancelling and freeing never wait
 * for a step, and may happen on any thread (a request: one at a time). A request's tokens depend
 * on nothing but the model, its tokens and its parameters: not on its company, not on chunks,
 * cache hits or preemptions. docs/engine.md says how.
 */

typedef struct gloss_engine gloss_engine;
typedef struct gloss_request gloss_request;

enum { GLOSS_ARITH_DEFAULT, GLOSS_ARITH_F32, GLOSS_ARITH_BF16, GLOSS_ARITH_Q8, GLOSS_ARITH_FP8 };
/* Attention's matrices and the head: AUTO keeps the checkpoint's, but 8-bit under ARITH_Q8. */
enum { GLOSS_DENSE_AUTO, GLOSS_DENSE_BF16, GLOSS_DENSE_Q8 };
/* Keys and values: AUTO is float32 under ARITH_F32, else bf16. */
enum { GLOSS_KV_AUTO, GLOSS_KV_F32, GLOSS_KV_BF16, GLOSS_KV_Q8, GLOSS_KV_FP8 };

struct gloss_engine_opts {
    size_t size;
    /* "cpu", "cuda", "cuda:N" (the Nth card), "auto" (NULL): a card if there is one that runs the
     * model, else the processor. */
    const char *device;
    int arith;        /* GLOSS_ARITH_ */
    int n_thread;     /* 0: the processors this process may use */
    int n_ctx;        /* most tokens of one request, prompt included; 0: the model's */
    int max_requests; /* sequences running at once; 0: 1 */
    int chunk;        /* most prompt tokens per step; 0: 256 on the processor, 2048 on a card */
    int max_queue;    /* requests waiting beyond max_requests, more are GLOSS_E_BUSY; 0: 1024 */
    int no_prefix_cache;
    /* Bytes of the key/value cache. 0: what max_requests contexts need, or nine tenths of what the
     * machine has available beside the weights, if that is less. gloss_engine_stats tells what came
     * of it: pages, bytes, and the longest request that fits. */
    uint64_t memory_bytes;
    /* JSON Lines that replace the model's output, for tests (docs/engine.md); NULL: the model. */
    const char *script;
    size_t n_script;
    double memory_share; /* instead of nine tenths, above 0 and at most 1 */
    int dense;           /* GLOSS_DENSE_ */
    int kv;              /* GLOSS_KV_ */
    int deterministic;   /* 1: what a request gets never depends on what runs beside it (on the
                            processor it never does) */
    int n_cpu_moe;       /* layers whose experts the processor computes beside a card; -1: as many
                            as do not fit the card */
    uint64_t card_bytes; /* of a card's memory, what may be used; 0: all */
    int lock;            /* on the processor: weights and cache may not leave memory (mlock) */
    int no_dense_cache;  /* on the processor: 8-bit copies of the dense matrices are made anew, and
                            not kept beside the checkpoint or in the user's cache folder */
    /* Most tokens guessed ahead of a sequence in one step, from what it said before; which tokens
     * it gets is the same. 0: as many as are measured to pay; -1: none. */
    int speculate;
    /* Bytes of the host's memory (pinned where a card copies from it) for pages of requests that
     * had to make room; they come back from there where that is quicker than computing again. */
    uint64_t swap_bytes;
};
GLOSS_API gloss_status gloss_engine_new(const gloss_model *, const struct gloss_engine_opts *,
                                        gloss_engine **, struct gloss_err *);
/* After all its requests were freed. */
GLOSS_API void gloss_engine_free(gloss_engine *);

/* A tool that the model may call. */
struct gloss_tool {
    const char *recipient; /* "functions.get_weather", "python", "browser.search" */
    const char *schema;    /* [n_schema] JSON Schema of the arguments. NULL: any JSON object, or of
                              a built-in tool any text */
    size_t n_schema;
    int builtin; /* is called on the analysis or commentary channel; a function on commentary */
    int strict;  /* a schema outside the subset (docs/structured-output.md) is refused; otherwise
                    the arguments are any JSON object then. One too large is refused always */
};

/* A named function: GLOSS_TOOL_CHOICE_REQUIRED with its recipient as the one allowed tool. */
enum { GLOSS_TOOL_CHOICE_AUTO, GLOSS_TOOL_CHOICE_NONE, GLOSS_TOOL_CHOICE_REQUIRED };
enum {
    GLOSS_FORMAT_TEXT,
    GLOSS_FORMAT_JSON_OBJECT,
    GLOSS_FORMAT_JSON_SCHEMA, /* format_text: the schema */
    GLOSS_FORMAT_REGEX,       /* format_text: a pattern that the whole answer matches */
    GLOSS_FORMAT_CHOICE       /* format_text: a JSON list of strings, one of which is the answer */
};

struct gloss_params {
    size_t size;
    int max_tokens;       /* 0: up to the context's end */
    float temperature;    /* 0: greedy */
    float top_p, min_p;   /* 0: off */
    int top_k;            /* 0: off; filters apply in the order top_k, top_p, min_p */
    uint64_t seed;        /* 0: from the operating system */
    int reasoning_budget; /* most analysis tokens; 0: no bound */
    int ignore_eos;
    int plain; /* not a harmony stream: no headers, budget, tools or format; only the checkpoint's
                  own end tokens stop it */
    int n;     /* choices from one prompt, which is computed once; 0: 1; at most 128 */

    float presence_penalty, frequency_penalty; /* -2 to 2, over generated tokens; 0: off */
    float repetition_penalty;                  /* over prompt and generated tokens; 0 or 1: off */
    const int32_t *bias_ids;                   /* [n_bias] tokens whose logits are changed ... */
    const float *bias;                         /* [n_bias] ... by so much */
    int n_bias;

    int n_top;           /* likeliest tokens reported beside each; at most 20 */
    int no_logprobs;     /* spares a pass over the vocabulary; event.logprob is NaN */
    int prompt_logprobs; /* GLOSS_EV_PROMPT for every prompt token first */

    /* Stop texts, found over token borders in the text a client sees: the final channel and
     * commentary to the user, never analysis or tool arguments. */
    const char *const *stop; /* [n_stop] at most 64 of at most 1024 bytes */
    int n_stop;
    const int32_t *stop_ids; /* [n_stop_ids] end the answer; delivered as its last token */
    int n_stop_ids;
    int min_tokens; /* no end before so many tokens: end tokens can't be sampled */

    uint64_t tenant;      /* prefix caches are never shared between tenants; service is fair */
    int priority;         /* higher goes first */
    uint64_t deadline_ms; /* from now; then GLOSS_FINISH_ERROR with GLOSS_E_CANCEL; 0: none */

    /* What the tokens are held to while sampling. Headers are always legal ones, unless
     * no_header_grammar; their recipients are the tools, so without tools nothing can be called.
     * The grammar starts where the prompt stands: normally behind <|start|>assistant, but a message
     * of the assistant that is begun is gone on with. Everything is compiled in gloss_submit, on
     * the caller's thread, and kept for the next request with the same texts. Refused: E_INPUT with
     * the keyword and its place in the message, E_LIMIT for what is too large; param is "tools",
     * "tool_choice", "format" or "prompt". */
    int no_header_grammar;          /* headers as they come; bodies are held when theirs is legal */
    int no_analysis;                /* the prompt holds a closed analysis: no further one */
    const struct gloss_tool *tools; /* [n_tools] at most 512, distinct recipients */
    int n_tools;
    int tool_choice;                  /* GLOSS_TOOL_CHOICE_; required: the turn ends with a call */
    const char *const *allowed_tools; /* [n_allowed_tools] recipients of `tools`; none: all */
    int n_allowed_tools;
    int format;              /* GLOSS_FORMAT_ of the final message; the analysis stays free */
    const char *format_text; /* [n_format_text] */
    size_t n_format_text;

    void *user;          /* the caller's own, for gloss_request_user */
    int no_prefix_cache; /* computes the whole prompt, whatever the cache holds of it */
};

enum { GLOSS_EV_TOKEN, GLOSS_EV_FINISH, GLOSS_EV_PROMPT };
enum { GLOSS_FINISH_STOP, GLOSS_FINISH_CALL, GLOSS_FINISH_LENGTH, GLOSS_FINISH_ERROR };

struct gloss_event {
    int kind;
    int32_t token; /* GLOSS_EV_TOKEN; stop tokens are delivered too, before the finish */
    float logprob; /* of the token under the model's own distribution (temperature 1), or NaN */
    int finish;    /* GLOSS_EV_FINISH: GLOSS_FINISH_ */
    struct gloss_err err;
    uint64_t t_ns; /* monotonic clock */
    int index;     /* choice; every choice has a GLOSS_EV_FINISH of its own */
    /* Bytes at the end of the token's text, as gloss_chat_feed returns it in recover mode, that
     * belong to a stop text and are not part of the answer. */
    int n_hide;
    int i_stop; /* GLOSS_EV_FINISH: the stop text that was met, or -1 */
    int n_top;
    const int32_t *top_ids;    /* [n_top] likeliest first; valid until the next gloss_next */
    const float *top_logprobs; /* [n_top] */
    int n_reused, n_computed;  /* GLOSS_EV_FINISH: prompt tokens from the cache, and computed */
};

/* Copies all that the parameters point to. GLOSS_E_LIMIT with both numbers when the prompt doesn't
 * fit the context, GLOSS_E_INPUT naming the parameter out of range, GLOSS_E_BUSY when the queue is
 * full or the engine drains. */
GLOSS_API gloss_status gloss_submit(gloss_engine *, const int32_t *ids, size_t n,
                                    const struct gloss_params *, gloss_request **,
                                    struct gloss_err *);
/* The next event; timeout_ms < 0 waits, else GLOSS_E_BUSY when the time is over. When every choice
 * has finished: GLOSS_E_STATE. A reader may be 256 tokens late; then its sequence pauses until it
 * reads on, and nobody else waits. */
GLOSS_API gloss_status gloss_next(gloss_request *, struct gloss_event *, int timeout_ms);
/* The request ends within one step. Any thread. */
GLOSS_API void gloss_cancel(gloss_request *);
/* Cancels what still runs. Does not wait. */
GLOSS_API void gloss_request_free(gloss_request *);

/* For one thread that reads many requests. The descriptor is readable (poll, epoll) while
 * gloss_engine_ready has something to say; it belongs to the engine. -1: the system has none left.
 */
GLOSS_API int gloss_engine_fd(gloss_engine *);
/* Requests that got events since they were last named here, at most cap; the number of them. Read
 * each with timeout 0 until GLOSS_E_BUSY. */
GLOSS_API int gloss_engine_ready(gloss_engine *, gloss_request **, int cap);
/* What gloss_params.user was. */
GLOSS_API void *gloss_request_user(const gloss_request *);

/* Takes no new requests and waits until the others have finished, by their readers or by
 * gloss_cancel. GLOSS_E_BUSY when timeout_ms (negative: none) passed before. */
GLOSS_API gloss_status gloss_engine_drain(gloss_engine *, int timeout_ms);

struct gloss_stats {
    size_t size;
    int n_running, n_waiting; /* sequences with and without pages */
    int page_tokens;
    int n_ctx;                                   /* longest request that fits */
    int pages_full, pages_window;                /* of the full and the sliding layers */
    int free_full, free_window;                  /* nobody's */
    int cached_full, cached_window;              /* kept by the prefix cache, in use or not */
    uint64_t page_bytes_full, page_bytes_window; /* of one page */
    uint64_t n_step, n_row, step_ns;             /* steps, their rows, time spent in the backend */
    uint64_t n_submitted;                        /* requests */
    uint64_t n_finished, n_cancelled, n_failed;  /* choices */
    uint64_t prompt_tokens, prompt_reused;       /* of ended choices */
    uint64_t computed_tokens;                    /* rows, prompts and generated */
    uint64_t generated_tokens;                   /* of ended choices */
    uint64_t n_preempt, n_evict, n_evict_window; /* pages evicted from the prefix cache */
    const char *device;         /* what runs the model: "cpu", "cuda", "scripted" */
    int peak_full, peak_window; /* most pages that were ever in use */
    /* Memory beside the pages: the weights where the device reads them, and scratch (0 from a
     * backend that does not tell). */
    uint64_t weight_bytes, work_bytes;
    uint64_t n_draft, n_accept;     /* tokens guessed ahead, and those that were right */
    uint64_t n_swap_out, n_swap_in; /* pages copied to the host's memory and back */
};
/* As of the last step. size must be set. */
GLOSS_API void gloss_engine_stats(gloss_engine *, struct gloss_stats *);

/* Logits [n, n_vocab] of every position (last_only: [1, n_vocab]); reference: by the plain forward.
 * Each row is handed to `row` as it is ready; a non-zero return stops with that code. Runs beside
 * the engine's requests. */
GLOSS_API gloss_status gloss_logits(gloss_engine *, const int32_t *ids, size_t n, int last_only,
                                    int reference,
                                    gloss_status (*row)(void *ctx, const float *logits,
                                                        int n_vocab),
                                    void *ctx, struct gloss_err *);

/* One timing of gloss_cpu_rates: the best of a few runs of all threads together. */
struct gloss_rate {
    const char *name;        /* "read", "fma_f32": the processor's limits; then the kernels */
    int rows;                /* rows of a matrix product, 0: not one */
    double ns, bytes, flops; /* of one run; 0: does not apply */
};
/* What this processor and the CPU kernels reach at gpt-oss-20b's shapes; some seconds. n_thread 0:
 * all processors. Needs no model. */
GLOSS_API gloss_status gloss_cpu_rates(int n_thread,
                                       void (*take)(void *ctx, const struct gloss_rate *),
                                       void *ctx, struct gloss_err *);

/* The limits alone, for the products of this arithmetic (GLOSS_ARITH_); half a second. */
struct gloss_limits {
    double read; /* bytes a second, out of memory */
    double peak; /* operations a second */
};
GLOSS_API gloss_status gloss_cpu_limits(int n_thread, int arith, struct gloss_limits *,
                                        struct gloss_err *);

/* logprobs[i] of ids[i] given ids[0..i-1] ([0] is NaN); greedy[i] the likeliest token there (or
 * -1). */
GLOSS_API gloss_status gloss_score(gloss_engine *, const int32_t *ids, size_t n, double *logprobs,
                                   int32_t *greedy, struct gloss_err *);

/* ---- checkpoints ---- */

struct gloss_synth_opts {
    size_t size;
    const char *like; /* "gpt-oss-20b" or "gpt-oss-120b" */
    int n_layer, n_expert, d_model, d_ff, n_head, n_kv_head, n_vocab; /* 0: as in `like` */
    int original; /* write the original/ layout */
    int bf16;     /* unquantised experts */
    uint64_t seed;
    int (*progress)(void *ctx, int64_t done, int64_t total); /* bytes; non-zero: GLOSS_E_CANCEL */
    void *ctx;
};
/* Writes a checkpoint of that layout with random weights of sane scale. */
GLOSS_API gloss_status gloss_synth(const char *dir, const struct gloss_synth_opts *,
                                   struct gloss_err *);

enum { GLOSS_QUANT_MXFP4, GLOSS_QUANT_BF16 };
enum { GLOSS_SCALE_DEFAULT, GLOSS_SCALE_ROUNDUP, GLOSS_SCALE_OCP, GLOSS_SCALE_SEARCH };

struct gloss_quant_report {
    const char *tensor;
    double rel_rmse, max_abs; /* against the source values */
    int64_t n_saturated;      /* values clipped at 6 scales */
};
struct gloss_quant_opts {
    size_t size;
    int method;                                                  /* GLOSS_QUANT_ */
    int scale_rule;                                              /* GLOSS_SCALE_ */
    int (*report)(void *ctx, const struct gloss_quant_report *); /* non-zero: GLOSS_E_CANCEL */
    void *ctx;
};
GLOSS_API gloss_status gloss_quantize(const char *src, const char *dst,
                                      const struct gloss_quant_opts *, struct gloss_err *);

#ifdef __cplusplus
}
#endif
#endif
