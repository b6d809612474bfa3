/* What the measurements share: what they run on, and the commands as the command line calls them.
 *
 * A measurement takes its options in a struct and fills a sheet whose columns it states. It never
 * prints: what there is to say while it runs goes to `say`. See README in this folder.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/power.h"
#include "bench/quantile.h"
#include "bench/sheet.h"
#include "gloss.h"

#include <stdbool.h>
#include <stdint.h>

enum { MAX_LIST = 64 };
struct int_list {
    int v[MAX_LIST], n;
};
/* "128,512": each from 1 to `hi`, or from `lo`. E_INPUT names `what`. */
MUST_USE status int_list_read(struct int_list *, const char *text, int hi, const char *what,
                              struct err *e);
MUST_USE status int_list_read_from(struct int_list *, const char *text, int lo, int hi,
                                   const char *what, struct err *e);
int int_list_most(const struct int_list *); /* the largest, 0 of none */
/* Whether a list of words, commas between, holds this one. */
bool bench_listed(const char *list, const char *word);

/* Everything a measurement needs of the program. The command line fills it. */
struct bench {
    const char
        *name; /* of the model in the results; NULL with load_opts.base_url: the server says */
    gloss_model *model;
    const char *path; /* where it was opened, for variants of it */
    double open_ms;   /* how long that took */
    struct gloss_info info;
    struct gloss_engine_opts engine; /* device, arithmetic, threads, memory, script */
    struct power_opts power;
    bool card_if_used; /* power.i_gpu counts only if the model runs on a card */

    status (*check_stop)(struct err *e);      /* E_CANCEL after a signal */
    void (*say)(void *ctx, const char *line); /* progress, for a person */
    /* An HTTP server over the engine on loopback; writes its base URL. */
    status (*serve_begin)(void *ctx, gloss_model *, gloss_engine *, const char *name, char url[64],
                          struct err *e);
    void (*serve_end)(void *ctx);
    void *ctx;
};
void bench_say(const struct bench *, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The name as part of a file's name: behind the last '/', only letters, digits, ".-_". */
void bench_tag(const char *name, char to[128]);
/* Makes the folder and its missing parents. */
MUST_USE status bench_folder(const char *path, struct err *e);

/* gloss.h and base have error records of one layout (asserted in the command line's main.c). */
static inline struct gloss_err *bench_err(struct err *e)
{
    return (struct gloss_err *)(void *)e;
}

/* ---- latency.c ---- */

struct latency_opts {
    struct int_list prompt, gen;
    int n_request;
    bool extended;
};
MUST_USE status latency_columns(struct sheet *, bool extended, struct err *e);
MUST_USE status latency_run(struct bench *, const struct latency_opts *, struct sheet *,
                            struct err *e);

/* ---- memory.c ---- */

struct memory_opts {
    struct int_list context;
    int n_gen;
};
MUST_USE status memory_columns(struct sheet *, struct err *e);
MUST_USE status memory_run(struct bench *, const struct memory_opts *, struct sheet *,
                           struct err *e);
/* MB of cache = a + b tokens, over the rows of the model. */
struct line_fit memory_fit(const struct sheet *, const char *model);

/* ---- energy.c ---- */

struct energy_opts {
    struct int_list context;
    int n_gen, n_run;
    double hz, min_s; /* more runs than n_run until the decoding took so long */
};
MUST_USE status energy_columns(struct sheet *, struct err *e);
MUST_USE status energy_run(struct bench *, const struct energy_opts *, struct sheet *,
                           struct err *e);

/* ---- ablation.c ---- */

struct ablation_opts {
    const char *tests;      /* "decoding,quantization,context,server" or "all" */
    const char *precisions; /* "mxfp4,bf16,fp32,q8" */
    struct int_list context;
    int n_run, max_new_tokens;
    const char *base_url, *api_key, *remote_model; /* a further server to compare with, or NULL */
    const char *dir; /* results go there, and for a while a dequantised checkpoint */
};
/* E_INPUT for an unknown test or precision. */
MUST_USE status ablation_check(const struct ablation_opts *, struct err *e);
/* Writes its CSVs and the JSON of all into dir. */
MUST_USE status ablation_run(struct bench *, const struct ablation_opts *, struct err *e);

/* ---- load.c ---- */

struct load_opts {
    const char *base_url, *api_key; /* NULL: a server of this process */
    const char
        *remote_model; /* "model" of the requests; NULL: bench.name, else the server's first */
    struct int_list concurrency, prompt, gen;
    int n_request;          /* of each cell; 0: four for each that is under way, at least 10 */
    bool completions;       /* the endpoint; prompts as token ids. Otherwise chat completions */
    const char *effort;     /* reasoning_effort of chats, or NULL */
    const char *result_dir; /* where vLLM's JSON goes, a file a cell, or NULL */
};
MUST_USE status load_columns(struct sheet *, struct err *e);
/* vLLM's text block of each cell is appended to text (NULL: not wanted). */
MUST_USE status load_run(struct bench *, const struct load_opts *, struct sheet *, struct buf *text,
                         struct err *e);

/* ---- speed.c ---- */

struct steps_opts {
    bool prefill; /* prompts are measured, else decoding */
    struct int_list depth, prompt, parallel;
    int n_generate, n_repeat;
    bool grammar; /* answers are held to a JSON Schema */
};
MUST_USE status steps_columns(struct sheet *, struct err *e);
/* A row for each depth, prompt and number of requests. */
MUST_USE status steps_run(struct bench *, const struct steps_opts *, struct sheet *, struct err *e);
/* The rows as a person reads them. */
void steps_text(const struct sheet *, struct buf *);

struct speed_opts {
    int n_prompt, n_generate, n_parallel, n_repeat;
    bool grammar;
};
/* Appends one JSON value. */
MUST_USE status speed_engine(struct bench *, const struct speed_opts *, struct buf *, struct err *);

/* ---- fidelity.c ---- */

struct fidelity_opts {
    const char *text; /* [n_text], or NULL: a text of its own */
    size_t n_text;
    int n_token;            /* at most so many of its tokens */
    struct int_list layers; /* compared after so many first layers each; empty: after all */
};
MUST_USE status fidelity_columns(struct sheet *, struct err *e);
MUST_USE status fidelity_run(struct bench *, const struct fidelity_opts *, struct sheet *,
                             struct err *e);

/* ---- kernels.c ---- */

MUST_USE status kernels_columns(struct sheet *, struct err *e);
/* n_thread 0: all processors. */
MUST_USE status kernels_run(int n_thread, struct sheet *, struct err *e);

/* ---- unify.c: tables over all models of a results folder ---- */

struct unify_opts {
    const char *dir;        /* holds latency/, memeory/, energy/ */
    const char *const *map; /* [n_map] "NAME=SHORT" */
    int n_map;
    const char *specs;       /* JSON file of model specs, or NULL */
    const char *const *eval; /* [n_eval] "SHORT=FILE": results of evaluations, for the efficiency */
    int n_eval;
};
/* unified_*.csv in dir; *n rows written, 0 where no input was found. */
MUST_USE status unify_run(const struct unify_opts *, int *n, struct err *e);
/* ape/ape_analysis.csv and .json in dir, from the unified tables. */
MUST_USE status ape_run(const struct unify_opts *, int *n, struct err *e);

/* ---- governance.c ---- */

/* The four files of the licence and policy review; metadata: a JSON file that overrides, or NULL.
 */
MUST_USE status governance_run(const char *dir, const char *metadata, struct err *e);

/* ---- plot.c and report.c ---- */

/* Figures of dir/new_results into dir/figs by gnuplot; *n made. OK and *n = 0 without gnuplot. */
MUST_USE status plot_run(const char *dir, int *n, struct err *e);
/* One HTML page of everything in dir. */
MUST_USE status report_run(const char *dir, const char *out, struct err *e);

/* ---- study.c ---- */

struct study_opts {
    const char *dir, *parts;
    struct latency_opts latency;
    struct memory_opts memory;
    struct energy_opts energy;
    struct ablation_opts ablation;
    struct load_opts load;
    struct unify_opts unify;
    const char *metadata;
    const char *command; /* the command line, for the log */
    const char *what;    /* one line that names all that the results depend on */
    bool fresh;          /* nothing of an earlier run is taken up */
};
MUST_USE status study_check(const struct study_opts *, struct err *e); /* parts */
MUST_USE status study_run(struct bench *, const struct study_opts *, struct err *e);
/* Tables, figures and page from what lies in opts->dir. */
MUST_USE status study_report(const struct study_opts *, void (*say)(void *, const char *),
                             void *ctx, struct err *e);

#endif
