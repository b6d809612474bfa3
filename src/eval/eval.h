/* Evaluations: questions of a data set to a model here or on a server, answers scored, files
 * written. The whole face to the command line.
 */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include "base/buf.h"
#include "base/err.h"
#include "remote/sampler.h"

#include <stdbool.h>
#include <stdint.h>

enum { EVAL_GENERATE, EVAL_LOGLIKELIHOOD, EVAL_SINGLE_TOKEN };

struct eval_progress {
    int done, total; /* answers; grades of HealthBench count, too */
    const char *what;
    double mean, lo, hi; /* of the scores so far, with a 95 % interval; NAN without */
    int n_truncated, n_no_answer, n_failed;
};

struct eval_opts {
    const char *task;
    const char *data;    /* the rows */
    const char *split;   /* what tinymmlu's result calls them, or NULL: the file's name */
    const char *shots;   /* rows of the examples before each question, or NULL */
    int n_shot;          /* below 0: the task's own */
    bool shots_random;   /* drawn as lm-eval draws them; else the first ones */
    int n_example;       /* most rows, 0: all */
    int n_repeat;        /* 0: the task's own */
    int method;          /* EVAL_, or below 0: the task's own */
    bool final_prefix;   /* log-likelihoods behind the final channel's header */
    bool plain_question; /* tinymmlu: from question and choices, not input_formatted */
    bool samples_full;   /* tinymmlu: texts of samples uncut */
    int samples_limit;   /* tinymmlu: how many are in the result */
    bool debug;          /* few rows, and _DEBUG in file names */
    struct sampler_opts sampler;
    int n_parallel; /* questions under way at once */
    const char *effort;
    double temperature;          /* below 0: the task's own */
    double top_p;                /* 0: 1 */
    int max_tokens;              /* 0: the task's own */
    int64_t seed;                /* below 0: none; question i gets seed + i */
    const char *model_name;      /* as the result files say it */
    const char *out_dir;         /* NULL: no files */
    const char *journal;         /* SQLite file of answers, so that a run can go on; NULL: none */
    bool fresh;                  /* forget an unfinished run */
    const char *irt;             /* parameters of gp-IRT, or NULL */
    struct sampler_opts grader;  /* HealthBench */
    const char *grader_template; /* text file with <<conversation>> and <<rubric_item>>, or NULL */
    bool self_graded;
    bool (*stopped)(void *ctx);
    void (*progress)(void *ctx, const struct eval_progress *);
    void (*note)(void *ctx, const char *text);
    void *ctx;
};

struct eval_result {
    double published;          /* OpenAI's score of that model, task and effort, or NAN */
    struct buf json;           /* the summary: one object */
    struct buf runner;         /* tinymmlu: the runner's result; else empty */
    double score, err, lo, hi; /* err: standard error */
    int n, n_truncated, n_no_answer;
    double mean_tokens;  /* of answers; NAN: unknown */
    char files[8][1024]; /* [n_file] written */
    int n_file;
};

/* Names of the tasks, NULL at the end. */
extern const char *const eval_tasks[];
/* Whether the task of that name asks for --data only, or NULL when there is none; the default
 * temperature tells whether it samples. */
MUST_USE status eval_run(const struct eval_opts *o, struct eval_result *r, struct err *e);
void eval_result_fini(struct eval_result *r); /* zeroed allowed */

#endif
