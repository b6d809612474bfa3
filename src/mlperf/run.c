/* gloss mlperf run: LoadGen on one side, the system under test on the other. */
#include "base/file.h"
#include "base/mem.h"
#include "mlperf/loadgen_open.h"
#include "mlperf/mlperf.h"
#include "mlperf/sut.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 1 << 20, SUMMARY_BYTES_MAX = 1 << 20 };

static const struct {
    const char *folder, *loadgen, *model, *sut;
} scenarios[] = {
    [MLPERF_OFFLINE] = {"offline", "Offline", "gpt-oss-120b", "gloss_offline"},
    [MLPERF_SERVER] = {"server", "Server", "gpt-oss-120b", "gloss_server"},
    [MLPERF_INTERACTIVE] = {"interactive", "Server", "gpt-oss-120b-interactive",
                            "gloss_interactive"},
};

struct run {
    const struct mlperf_run *o;
    const struct mlperf_watch *watch;
    const struct loadgen *lg;
    struct sut *sut;
    uint64_t seed;
    uint64_t n_issued;                              /* LoadGen's thread only */
    atomic_int_fast64_t n_wanted, n_done, n_tokens; /* samples, samples, output tokens */
    pthread_mutex_t lock;
    int64_t n_failed; /* under the lock */
    struct err why;   /* of the first that failed */
};

status mlperf_gen_read(const char *path, struct mlperf_gen *g, struct err *e)
{
    struct buf b;
    struct json *root = NULL;
    struct err je = {0};
    double temperature = (double)g->temperature, top_p = (double)g->top_p;
    int64_t max_tokens = g->max_tokens, top_k = g->top_k;
    status st = OK;
    buf_init(&b, CONFIG_BYTES_MAX);
    TRY(file_read(path, &b, &je));
    TRY(json_parse(b.p, b.n, &json_limits_file, &root, &je));
    if (json_kind(root) != J_OBJ)
        TRY(err_set(&je, E_INPUT, "not a JSON object"));
    TRY(json_get_int(root, "max_new_tokens", 1, INT32_MAX, &max_tokens, &je));
    TRY(json_get_num(root, "temperature", 0, 100, &temperature, &je));
    TRY(json_get_int(root, "top_k", -1, INT32_MAX, &top_k, &je));
    TRY(json_get_num(root, "top_p", 0, 1, &top_p, &je));
    g->max_tokens = (int)max_tokens;
    g->temperature = (float)temperature;
    g->top_k = (int)top_k;
    g->top_p = (float)top_p;
out:
    if (st < 0)
        err_set(e, st, "generation config %.80s: %.150s", path, je.msg);
    json_free(root);
    buf_fini(&b);
    return st;
}

/* ---- between LoadGen and the system under test ---- */

static void count_failure(struct run *r, const struct err *why)
{
    pthread_mutex_lock(&r->lock);
    if (r->n_failed++ == 0)
        r->why = *why;
    pthread_mutex_unlock(&r->lock);
}

static void on_first(void *ctx, uintptr_t id, int32_t token)
{
    struct run *r = ctx;
    r->lg->first_token(&(struct loadgen_response){id, &token, 1, 1});
}

static void on_done(void *ctx, const struct sut_answer *a)
{
    struct run *r = ctx;
    bool streams = r->o->scenario != MLPERF_OFFLINE;
    /* The reference sends the first token once only, and counts the rest. */
    size_t skip = streams && r->o->ref_compat && a->n_ids > 0;
    if (a->st < 0)
        count_failure(r, &a->err);
    if (streams && a->n_ids == 0) /* LoadGen waits for a first token of every sample */
        r->lg->first_token(&(struct loadgen_response){a->id, NULL, 0, 0});
    r->lg->complete(&(struct loadgen_response){a->id, a->ids ? a->ids + skip : NULL,
                                               a->n_ids - skip, (int64_t)(a->n_ids - skip)});
    atomic_fetch_add(&r->n_tokens, (int_fast64_t)a->n_ids);
    int64_t done = atomic_fetch_add(&r->n_done, 1) + 1;
    if (r->watch->progress)
        r->watch->progress(r->watch->ctx, done, atomic_load(&r->n_wanted));
}

static void on_issue(void *ctx, const struct loadgen_sample *s, size_t n)
{
    struct run *r = ctx;
    struct err why = {0};
    struct sut_job *job = mem_array(n, sizeof *job);
    for (size_t i = 0; job && i < n; i++) {
        ASSERT(s[i].index < r->o->rows->n);
        const struct row *row = &r->o->rows->row[s[i].index];
        uint64_t seed = r->seed ? r->seed + r->n_issued + i : 0;
        job[i] = (struct sut_job){s[i].id, row->ids, row->n_ids, seed};
    }
    r->n_issued += n;
    atomic_fetch_add(&r->n_wanted, (int_fast64_t)n);
    if (!job || sut_add(r->sut, job, n) < 0) {
        err_set(&why, E_NOMEM, "out of memory");
        for (size_t i = 0; i < n; i++)
            on_done(r, &(struct sut_answer){.id = s[i].id, .st = E_NOMEM, .err = why});
    }
    mem_free(job);
}

static void on_flush(void *ctx)
{
    (void)ctx; /* nothing is held back */
}

/* ---- the test ---- */

/* Makes output_dir/SCENARIO/MODE with what is missing on the way. */
static status make_folder(const struct mlperf_run *o, char *path, size_t cap, struct err *e)
{
    const char *parts[] = {o->output_dir, scenarios[o->scenario].folder,
                           o->accuracy ? "accuracy" : "performance"};
    size_t n = 0;
    status st = OK;
    for (int i = 0; i < 3; i++) {
        int len = snprintf(path + n, cap - n, i ? "/%s" : "%s", parts[i]);
        if (len < 0 || (size_t)len >= cap - n)
            return err_set(e, E_INPUT, "the output folder's path is too long");
        n += (size_t)len;
        TRY(file_mkdir(path, e));
    }
out:
    return st;
}

/* LoadGen's own words, and whether it is content. */
static status read_summary(const struct run *r, const char *folder, struct buf *report,
                           struct err *e)
{
    char path[4096];
    struct buf b;
    status st = OK;
    buf_init(&b, SUMMARY_BYTES_MAX);
    snprintf(path, sizeof path, "%.4000s/mlperf_log_summary.txt", folder);
    TRY(file_read(path, &b, e));
    buf_put(report, b.p, b.n);
    buf_printf(report,
               "\nSamples answered: %lld\nOutput tokens: %lld\nFailed samples: %lld\nLogs: %s\n",
               (long long)atomic_load(&r->n_done), (long long)atomic_load(&r->n_tokens),
               (long long)r->n_failed, folder);
    if (r->n_failed)
        TRY(err_set(e, r->why.code, "%lld of %lld samples failed; the first: %.150s",
                    (long long)r->n_failed, (long long)atomic_load(&r->n_done), r->why.msg));
    if (strstr(b.p, "Result is : INVALID"))
        TRY(err_set(e, E_STATE, "LoadGen calls the run INVALID (its reasons are in %.120s)", path));
    if (b.n == 0)
        TRY(err_set(e, E_IO, "LoadGen left no summary in %.150s", folder));
out:
    buf_fini(&b);
    return st;
}

status mlperf_run(const struct mlperf_run *o, const struct mlperf_gen *g,
                  const struct mlperf_watch *watch, struct buf *report, struct err *e)
{
    struct run r = {.o = o, .watch = watch, .seed = g->seed};
    char folder[3072], why[200];
    status st = OK;
    pthread_mutex_init(&r.lock, NULL);
    struct sut_opts so = {.gen = *g,
                          .stream = o->scenario != MLPERF_OFFLINE,
                          .first = on_first,
                          .done = on_done,
                          .ctx = &r};
    TRY(loadgen_open(&r.lg, e));
    TRY(make_folder(o, folder, sizeof folder, e));
    TRY(sut_open(&so, &r.sut, e));
    struct loadgen_test t = {.model = scenarios[o->scenario].model,
                             .scenario = scenarios[o->scenario].loadgen,
                             .accuracy = o->accuracy,
                             .mlperf_conf = o->mlperf_conf,
                             .user_conf = o->user_conf,
                             .audit_config = o->audit_config,
                             .outdir = folder,
                             .sut_name = scenarios[o->scenario].sut,
                             .qsl_name = "gloss_rows",
                             .trace = o->trace,
                             .n_total = o->rows->n,
                             .ctx = &r,
                             .issue = on_issue,
                             .flush = on_flush};
    if (r.lg->run(&t, why, sizeof why) < 0)
        TRY(err_set(e, E_INPUT, "%s", why));
    sut_wait(r.sut);
    TRY(read_summary(&r, folder, report, e));
out:
    sut_close(r.sut);
    pthread_mutex_destroy(&r.lock);
    return st;
}
