/* What the files of the evaluations share: a job is one task on one data set at one effort; its
 * items are the questions, each with its answer and score.
 *
 * Life of a job (job.c): rows are read, the task builds the items, the journal fills in answers of
 * an unfinished run, the rest is asked, every answer is scored, result files are written. Texts of
 * items lie in the job's arena.
 */
#ifndef EVAL_JOB_H
#define EVAL_JOB_H

#include "base/arena.h"
#include "base/json.h"
#include "eval/eval.h"
#include "eval/extract.h"
#include "eval/journal.h"
#include "eval/mt19937.h"
#include "eval/dataset.h"

enum { MAX_CHOICE = 16, MAX_METRIC = 2 };

struct item {
    int i_row, repeat;
    const struct json *row;
    const char *messages; /* JSON array; what is asked. The last message holds the prompt */
    const char *prompt;   /* the question as one text; log-likelihood: the context */
    const char *group;    /* subject or category, or "" */
    const char *gold;     /* the right answer as text, or "" */
    int64_t gold_int;
    int i_gold, n_choice; /* log-likelihood: the right choice */
    const char *choice[MAX_CHOICE];
    /* the answer */
    bool done;
    struct sampler_question q;
    const char *final, *analysis; /* NUL-terminated; analysis "" when absent */
    const char *finish;
    int64_t n_prompt, n_output, n_reasoning;
    double lp[MAX_CHOICE]; /* log-likelihoods */
    bool greedy[MAX_CHOICE];
    /* the score */
    const char *pred; /* extracted, "" or the task's mark for none */
    const char *pred2;
    bool no_answer;
    double metric[MAX_METRIC]; /* [task->n_metric]; the first is the score */
    /* HealthBench: a grade per rubric item, in job.grade from here on */
    int grade0, n_grade;
};

/* One rubric item's verdict. */
struct grade {
    int i_item;
    const struct json *rubric;
    const char *messages;
    double points;
    bool done, met;
    const char *why;
    int n_try;
    struct sampler_question q;
};

struct job;
enum task_files { FILES_GPT_OSS, FILES_LM_EVAL, FILES_SAFETY };
struct task {
    const char *name;
    int n_repeat;
    double temperature;
    int max_tokens;
    int n_shot;
    int method;
    enum task_files files;
    int n_metric;
    bool letters;                   /* generated, its one metric is exact_match,get_response */
    const char *metric[MAX_METRIC]; /* "exact_match,strict-match" */
    const char *const *stop;        /* [n_stop] */
    int n_stop;
    MUST_USE status (*build)(struct job *, struct err *);
    MUST_USE status (*score)(struct job *, struct item *, struct err *);
};
extern const struct task task_table[];
extern const int n_task;

struct job {
    const struct eval_opts *o;
    const struct task *task;
    int method, max_tokens, n_repeat, n_shot;
    double temperature;
    struct dataset rows, shots;
    struct item *item; /* [n] */
    int n;
    struct grade *grade; /* [n_grade] */
    int n_grade;
    struct extract *x;
    struct journal *journal;
    struct arena mem;
    double *score; /* [n] first metrics, filled at the end */
    char started[32];
    double seconds;
};

/* ---- tasks.c ---- */
const struct task *task_find(const char *name);
double task_published(const struct job *);             /* the model card's score, or NAN */
char *job_text(struct job *, const char *s, size_t n); /* copy; NULL: out of memory */
/* The items, with row, repeat and empty texts. r: a part of the rows is drawn with it; NULL: the
 * first ones. */
MUST_USE status job_take_rows(struct job *, struct mt19937 *r, struct err *);

/* ---- health.c ---- */
MUST_USE status health_build(struct job *, struct err *);
MUST_USE status health_score(struct job *, struct item *, struct err *);
/* The grades of all items; asked of the grader, resumable. */
MUST_USE status health_prepare(struct job *, struct err *);
/* False: not a valid verdict. */
bool health_take(struct job *, struct grade *, const char *text, size_t n);

/* ---- safety.c ---- */
MUST_USE status safety_build(struct job *, struct err *);
MUST_USE status safety_score(struct job *, struct item *, struct err *);
bool safety_refuses(const char *text, size_t n);
/* safety/safety_snapshot.csv and .json in the folder, beside what other runs put there. */
MUST_USE status safety_files(struct job *, struct eval_result *, struct err *);

/* ---- loglik.c ---- */
/* Who is told: take, of an item whose answer is there; wait, while there is none (E_CANCEL ends the
 * work, as any error of either does). */
struct loglik_sink {
    status (*take)(void *ctx, struct item *, struct err *);
    status (*wait)(void *ctx, struct err *);
    void *ctx;
};
/* Log-likelihoods of the choices of all items that are not done, or their likeliest token. */
MUST_USE status loglik_all(struct job *, struct loglik_sink *, struct err *);

/* ---- files.c ---- */
MUST_USE status files_write(struct job *, struct eval_result *, struct err *);
/* The summary, and of tinymmlu the runner's result. */
void files_summary(struct job *, struct eval_result *, const struct buf *irt);
/* Remembers a written file's name. */
void files_note(struct eval_result *, const char *path);
int files_chars(const char *s); /* Unicode characters */

/* ---- irt.c ---- */
/* Appends {"irt":..,"pirt":..,"gpirt":..} for the scores of the 100 rows. */
MUST_USE status irt_score(const char *path, const double *y, int n, struct buf *out, struct err *e);

#endif
