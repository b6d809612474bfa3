/* The MLPerf gpt-oss-120b benchmark, as the command line sees it. docs/mlperf.md tells the story.
 *
 * Every function writes files whole or not at all, and appends what a person or a submission
 * checker reads to a buffer.
 */
#ifndef MLPERF_MLPERF_H
#define MLPERF_MLPERF_H

#include "base/buf.h"
#include "base/err.h"
#include "gloss.h"
#include "mlperf/rows.h"

#include <stdbool.h>
#include <stdint.h>

/* Told now and then, on any thread, how many of how many are done. */
struct mlperf_watch {
    void (*progress)(void *ctx, int64_t done, int64_t total); /* or NULL */
    void *ctx;
};

/* How answers are made. */
struct mlperf_gen {
    gloss_engine *engine; /* or NULL: the server at url */
    const char *url;      /* "http://localhost:30000"; /generate is asked */
    const char *api_key;
    double timeout_s;      /* of one request to a server */
    int n_worker;          /* threads; in process always one */
    int n_parallel;        /* answers under way at once */
    int max_tokens, top_k; /* top_k 0 or less: off */
    float temperature, top_p;
    uint64_t seed; /* 0: other answers each time */
};

/* generation_config.json: max_new_tokens, temperature, top_k, top_p; the rest is not ours. Values
 * that the file lacks stay. */
MUST_USE status mlperf_gen_read(const char *path, struct mlperf_gen *g, struct err *e);

/* ---- run.c ---- */

enum mlperf_scenario { MLPERF_OFFLINE, MLPERF_SERVER, MLPERF_INTERACTIVE };

struct mlperf_run {
    enum mlperf_scenario scenario;
    bool accuracy;
    bool ref_compat; /* count and send answers as the reference implementation does */
    bool trace;
    const char *mlperf_conf, *user_conf; /* or NULL */
    const char *audit_config;            /* need not exist */
    const char *output_dir; /* logs go to output_dir/SCENARIO/accuracy or performance */
    const struct rows *rows;
};
/* E_STATE: the run was complete and LoadGen calls it INVALID. */
MUST_USE status mlperf_run(const struct mlperf_run *, const struct mlperf_gen *,
                           const struct mlperf_watch *, struct buf *report, struct err *e);

/* ---- infer.c ---- */

/* Answers every row n_pass times and writes the rows with the added columns to `output` (NULL:
 * nowhere). A row that failed has empty columns and error_K; the first one's error is returned,
 * after writing. */
MUST_USE status mlperf_infer(const gloss_model *, const struct rows *, int n_pass,
                             const struct mlperf_gen *, const char *output,
                             const struct mlperf_watch *, struct buf *report, struct err *e);

/* ---- harmonize.c ---- */

struct mlperf_harmonize {
    const char *output;   /* file to write */
    const char *profiles; /* file, or NULL: those compiled in */
    const char *dataset;  /* only rows of this data set, or NULL */
    const char *date;     /* "YYYY-MM-DD" in the system message, or NULL */
    int effort;           /* GLOSS_EFFORT_ */
    int n_thread;
};
/* Writes the rows with tok_input, tok_input_len and text_input added; the bytes don't depend on
 * n_thread. m NULL: the compiled-in vocabulary. */
MUST_USE status mlperf_harmonize(const gloss_model *m, const struct rows *,
                                 const struct mlperf_harmonize *, struct buf *report,
                                 struct err *e);

/* ---- accuracy.c ---- */

struct mlperf_accuracy {
    const char *log;          /* mlperf_log_accuracy.json */
    const struct rows *rows;  /* of the run, with dataset and ground_truth */
    const char *output_file;  /* JSON of all results, or NULL */
    const char *save_outputs; /* JSON Lines with the texts, or NULL */
    const char *grader;       /* command that judges programs (grader.h), or NULL */
    bool skip_lcb;            /* leave programs out of the score */
};
struct mlperf_score {
    int64_t n_correct, n_total;
    double score, max_score, percent;
};
/* m NULL: the compiled-in vocabulary. */
MUST_USE status mlperf_accuracy(const gloss_model *m, const struct mlperf_accuracy *,
                                struct mlperf_score *, struct buf *report, struct err *e);

/* ---- compliance.c ---- */

enum mlperf_test { MLPERF_TEST07, MLPERF_TEST09 };

struct mlperf_compliance {
    enum mlperf_test test;
    const char *dir;                                   /* logs of the run under audit.config */
    const char *output_dir;                            /* TEST07 or TEST09 is made in it */
    const char *audit_config;                          /* where thresholds are read, or NULL */
    double accuracy_threshold, min_tokens, max_tokens; /* negative: the file's, else MLPerf's */
    struct mlperf_accuracy accuracy;                   /* TEST07; its log is dir's */
};
/* Judges the logs, writes the verdict and copies the logs. E_STATE: done, and the test failed. */
MUST_USE status mlperf_compliance(const gloss_model *m, const struct mlperf_compliance *,
                                  struct buf *report, struct err *e);
/* The audit.config of a test on a data set of n rows (0: the benchmark's own). */
MUST_USE status mlperf_audit_config(enum mlperf_test, int64_t n, const char *path, struct err *e);

#endif
