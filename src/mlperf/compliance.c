/* gloss mlperf compliance: MLPerf's TEST07 (accuracy in a performance run) and TEST09 (length of
 * the answers), judged from the logs of a run under an audit.config.
 *
 * The folder that comes out has the layout that submissions have: TESTnn/verify_*.txt,
 * TESTnn/accuracy/mlperf_log_accuracy.json,
 * TESTnn/performance/run_1/mlperf_log_{summary,detail}.txt.
 */
#include "base/file.h"
#include "base/mem.h"
#include "mlperf/acclog.h"
#include "mlperf/mlperf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 1 << 20, LOG_BYTES_MAX = 2000 << 20, REPORT_BYTES_MAX = 16 << 20 };

/* MLPerf's own figures for gpt-oss-120b. */
static const double threshold_accuracy = 60.698, threshold_min = 1150.38, threshold_max = 1406.02;
static const struct {
    const char *name, *verdict;
    int64_t n_rows, n_logged;
} tests[] = {[MLPERF_TEST07] = {"TEST07", "verify_accuracy.txt", 990, 990},
             [MLPERF_TEST09] = {"TEST09", "verify_output_len.txt", 6396, 10000}};

static const char rule[] =
    "================================================================================\n";

status mlperf_audit_config(enum mlperf_test test, int64_t n, const char *path, struct err *e)
{
    struct buf b;
    buf_init(&b, CONFIG_BYTES_MAX);
    int64_t rows = n ? n : tests[test].n_rows,
            logged = n > tests[test].n_logged ? n : tests[test].n_logged;
    buf_printf(&b,
               "# %s: a performance run whose answers are all logged, each row once.\n"
               "*.*.mode = 2\n"
               "*.*.accuracy_log_rng_seed = 720381539243781796\n"
               "*.*.accuracy_log_sampling_target = %lld\n"
               "*.*.min_query_count = %lld\n"
               "*.*.min_duration = 0\n"
               "*.*.performance_issue_unique = 1\n"
               "*.*.sample_concatenate_permutation = 0\n"
               "# Read by the verification, not by LoadGen.\n",
               tests[test].name, (long long)logged, (long long)rows);
    if (test == MLPERF_TEST07)
        buf_printf(&b, "*.*.test07_accuracy_threshold = %g\n", threshold_accuracy);
    else
        buf_printf(&b, "*.*.test09_min_output_tokens = %g\n*.*.test09_max_output_tokens = %g\n",
                   threshold_min, threshold_max);
    status st = buf_status(&b) < 0 ? buf_status(&b) : file_save(path, b.p, b.n, e);
    buf_fini(&b);
    return st;
}

/* The value of the last key that ends in ".NAME"; unchanged when there is none. */
static status read_key(const struct buf *b, const char *name, double *v, struct err *e)
{
    size_t n_name = strlen(name);
    for (const char *p = b->p, *end = p + b->n; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *stop = nl ? nl : end;
        const char *key = p + strspn(p, " \t"), *eq = memchr(p, '=', (size_t)(stop - p));
        p = stop + (nl != NULL);
        if (*key == '#' || !eq)
            continue;
        size_t n = (size_t)(eq - key);
        while (n && strchr(" \t", key[n - 1]))
            n--;
        if (n <= n_name || memcmp(key + n - n_name, name, n_name) != 0 ||
            key[n - n_name - 1] != '.')
            continue;
        char *rest;
        double got = strtod(eq + 1, &rest);
        if (rest == eq + 1 || !isfinite(got) || got < 0)
            return err_set(e, E_INPUT, "audit config: %s is not a number from 0", name);
        *v = got;
    }
    return OK;
}

static status read_thresholds(const struct mlperf_compliance *o, double *accuracy, double *min,
                              double *max, struct err *e)
{
    struct buf b;
    status st = OK;
    buf_init(&b, CONFIG_BYTES_MAX);
    *accuracy = threshold_accuracy;
    *min = threshold_min;
    *max = threshold_max;
    if (o->audit_config) {
        TRY(file_read(o->audit_config, &b, e));
        TRY(read_key(&b, "test07_accuracy_threshold", accuracy, e));
        TRY(read_key(&b, "test09_min_output_tokens", min, e));
        TRY(read_key(&b, "test09_max_output_tokens", max, e));
    }
    *accuracy = o->accuracy_threshold >= 0 ? o->accuracy_threshold : *accuracy;
    *min = o->min_tokens >= 0 ? o->min_tokens : *min;
    *max = o->max_tokens >= 0 ? o->max_tokens : *max;
out:
    buf_fini(&b);
    return st;
}

/* ---- the tests ---- */

/* As Python prints a float. */
static void put_float(struct buf *b, double v)
{
    size_t from = b->n;
    json_put_num(b, v);
    if (!strpbrk(b->p + from, ".en"))
        buf_puts(b, ".0");
}

static status test07(const gloss_model *m, const struct mlperf_compliance *o, const char *log,
                     double threshold, struct buf *b, bool *pass, struct err *e)
{
    struct mlperf_accuracy a = o->accuracy;
    struct mlperf_score score;
    a.log = log;
    status st = mlperf_accuracy(m, &a, &score, b, e);
    if (st < 0)
        return st;
    /* The score is judged as it is printed. */
    double printed = round(score.percent * 1000) / 1000;
    *pass = printed >= threshold;
    buf_printf(b, "\n%sTEST07 Verification Summary\n%sAccuracy score: ", rule, rule);
    put_float(b, printed);
    buf_puts(b, "\nAccuracy threshold: ");
    put_float(b, threshold);
    buf_printf(b, "\nAccuracy check pass: %s\nTEST %s\n", *pass ? "True" : "False",
               *pass ? "PASS" : "FAIL");
    return OK;
}

struct lengths {
    size_t *len; /* [n] */
    size_t n, cap;
};

static status take_length(void *ctx, const struct acclog_entry *a, struct err *e)
{
    struct lengths *l = ctx;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 1024;
        size_t *p = mem_realloc_array(l->len, cap, sizeof *p);
        if (!p)
            return err_set(e, E_NOMEM, "out of memory");
        l->len = p;
        l->cap = cap;
    }
    l->len[l->n++] = a->n_ids;
    return OK;
}

static status test09(const char *log, double min, double max, struct buf *b, bool *pass,
                     struct err *e)
{
    struct lengths l = {0};
    double sum = 0, square = 0;
    size_t n, low = SIZE_MAX, high = 0;
    status st = OK;
    TRY(acclog_read(log, take_length, &l, &n, e));
    for (size_t i = 0; i < n; i++) {
        sum += (double)l.len[i];
        low = l.len[i] < low ? l.len[i] : low;
        high = l.len[i] > high ? l.len[i] : high;
    }
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        square += ((double)l.len[i] - mean) * ((double)l.len[i] - mean);
    *pass = mean >= min && mean <= max;
    buf_printf(b,
               "%sTEST09: Verify Output Token Length in Performance Mode\n%s\n"
               "Output Token Length Statistics\n----------------------------------------\n"
               "Total samples: %zu\nMean output tokens: %.2f\nMin output tokens: %zu\n"
               "Max output tokens: %zu\nStd deviation: %.2f\n\n%sVerification Results\n%s"
               "Mean output tokens: %.2f\nMin threshold: ",
               rule, rule, n, mean, low, high, sqrt(square / (double)n), rule, rule, mean);
    put_float(b, min);
    buf_puts(b, "\nMax threshold: ");
    put_float(b, max);
    buf_printf(b, "\nMin check pass: %s\nMax check pass: %s\n\nTEST %s\n",
               mean >= min ? "True" : "False", mean <= max ? "True" : "False",
               *pass ? "PASS" : "FAIL");
out:
    mem_free(l.len);
    return st;
}

/* ---- the folder ---- */

static status join(char *to, size_t cap, const char *dir, const char *name, struct err *e)
{
    int n = snprintf(to, cap, "%s/%s", dir, name);
    return n < 0 || (size_t)n >= cap ? err_set(e, E_INPUT, "a path is too long") : OK;
}

static status copy(const char *from_dir, const char *to_dir, const char *name, struct err *e)
{
    char from[4096], to[4096];
    struct buf b;
    status st = OK;
    buf_init(&b, LOG_BYTES_MAX);
    TRY(join(from, sizeof from, from_dir, name, e));
    TRY(join(to, sizeof to, to_dir, name, e));
    TRY(file_read(from, &b, e));
    TRY(file_save(to, b.p, b.n, e));
out:
    buf_fini(&b);
    return st;
}

static status write_folder(const struct mlperf_compliance *o, const struct buf *verdict,
                           struct err *e)
{
    char top[3072], path[4096];
    status st = OK;
    TRY(file_mkdir(o->output_dir, e));
    TRY(join(top, sizeof top, o->output_dir, tests[o->test].name, e));
    TRY(file_mkdir(top, e));
    TRY(join(path, sizeof path, top, "accuracy", e));
    TRY(file_mkdir(path, e));
    TRY(copy(o->dir, path, "mlperf_log_accuracy.json", e));
    TRY(join(path, sizeof path, top, "performance", e));
    TRY(file_mkdir(path, e));
    TRY(join(path, sizeof path, top, "performance/run_1", e));
    TRY(file_mkdir(path, e));
    TRY(copy(o->dir, path, "mlperf_log_summary.txt", e));
    TRY(copy(o->dir, path, "mlperf_log_detail.txt", e));
    TRY(join(path, sizeof path, top, tests[o->test].verdict, e));
    TRY(file_save(path, verdict->p, verdict->n, e)); /* last: it says that the rest is there */
out:
    return st;
}

status mlperf_compliance(const gloss_model *m, const struct mlperf_compliance *o,
                         struct buf *report, struct err *e)
{
    char log[4096];
    double accuracy, min, max;
    bool pass = false;
    struct buf b;
    status st = OK;
    buf_init(&b, REPORT_BYTES_MAX);
    TRY(read_thresholds(o, &accuracy, &min, &max, e));
    TRY(join(log, sizeof log, o->dir, "mlperf_log_accuracy.json", e));
    TRY(o->test == MLPERF_TEST07 ? test07(m, o, log, accuracy, &b, &pass, e)
                                 : test09(log, min, max, &b, &pass, e));
    TRY(buf_status(&b));
    TRY(write_folder(o, &b, e));
    buf_put(report, b.p, b.n);
    if (!pass)
        TRY(err_set(e, E_STATE, "%s failed; %s says by how much", tests[o->test].name,
                    tests[o->test].verdict));
out:
    buf_fini(&b);
    return st;
}
