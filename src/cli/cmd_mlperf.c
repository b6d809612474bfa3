/* gloss mlperf: the options of the benchmark's commands, and the engine they run on. */
#include "base/pool.h"
#include "cli/cli.h"
#include "mlperf/mlperf.h"

#include <string.h>

enum { REPORT_BYTES_MAX = 64 << 20 };

/* Defaults of the two forms of `run`, from the reference implementation. */
enum {
    TOKENS_ACCURACY = 32768,
    TOKENS_PERFORMANCE = 10240,
    TOKENS_INFER = 20480,
    CONCURRENCY_RUN = 128,
    CONCURRENCY_INFER = 256
};

static void on_progress(void *ctx, int64_t done, int64_t total)
{
    progress_show(ctx, done, total);
}

/* What was measured is worth reading, whatever came of it. */
static status print_report(const struct buf *report, status st, struct err *e)
{
    struct err we = {0};
    status put = report->n ? out_buf(report, &we) : OK;
    return st == OK && put < 0 ? err_set(e, put, "%s", we.msg) : st;
}

static int given_int(const struct conf *c, const char *name, int otherwise)
{
    return conf_given(c, name) ? (int)conf_int(c, name) : otherwise;
}

static float given_num(const struct conf *c, const char *name, double otherwise)
{
    return (float)(conf_given(c, name) ? conf_num(c, name) : otherwise);
}

static status read_gen(const struct conf *c, bool infer, struct mlperf_gen *g, struct err *e)
{
    int tokens = infer                    ? TOKENS_INFER
                 : conf_on(c, "accuracy") ? TOKENS_ACCURACY
                                          : TOKENS_PERFORMANCE;
    bool server = conf_given(c, "backend") ? strcmp(conf_str(c, "backend"), "native") != 0
                                           : conf_given(c, "server-url");
    *g = (struct mlperf_gen){.max_tokens = tokens,
                             .temperature = infer ? 0.001f : 1,
                             .top_k = infer,
                             .top_p = 1,
                             .url = server ? conf_str(c, "server-url") : NULL,
                             .api_key = conf_str(c, "api-key"),
                             .timeout_s = conf_num(c, "timeout"),
                             .n_worker = (int)conf_int(c, "num-workers"),
                             .seed = (uint64_t)(conf_given(c, "seed") ? conf_int(c, "seed") : 0)};
    status st = OK;
    if (conf_str(c, "generation-config"))
        TRY(mlperf_gen_read(conf_str(c, "generation-config"), g, e));
    g->max_tokens = given_int(c, "max-new-tokens", g->max_tokens);
    g->temperature = given_num(c, "temperature", (double)g->temperature);
    g->top_k = given_int(c, "top-k", g->top_k);
    g->top_p = given_num(c, "top-p", (double)g->top_p);
    g->n_parallel = given_int(c, "max-concurrency", infer ? CONCURRENCY_INFER : CONCURRENCY_RUN);
out:
    return st;
}

/* An engine that takes the longest prompt and answer, or as much as the model's context has. */
static status open_engine(struct conf *c, gloss_model *m, const struct rows *rows,
                          struct mlperf_gen *g, struct err *e)
{
    struct gloss_info info;
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    size_t longest = 0;
    gloss_model_info(m, &info);
    for (size_t i = 0; i < rows->n; i++) {
        const struct row *r = &rows->row[i];
        longest = r->n_ids > longest ? r->n_ids : longest;
        if (r->n_ids >= (size_t)info.n_ctx)
            return err_set(e, E_LIMIT, "line %d: a prompt of %zu tokens; the model's context is %d",
                           r->line, r->n_ids, info.n_ctx);
        for (size_t k = 0; k < r->n_ids; k++)
            if (r->ids[k] >= info.n_vocab)
                return err_set(e, E_INPUT, "line %d: token %d is not in the vocabulary of %d",
                               r->line, r->ids[k], info.n_vocab);
    }
    size_t n_ctx = longest + (size_t)g->max_tokens;
    o.n_ctx = n_ctx < (size_t)info.n_ctx ? (int)n_ctx : info.n_ctx;
    o.max_requests = g->n_parallel;
    o.no_prefix_cache = !conf_on(c, "prefix-cache");
    return cli_start_engine(c, m, &o, conf_str(c, "scripted"), &g->engine, e);
}

status cmd_mlperf_run(struct conf *c, struct err *e)
{
    const char *tokens = conf_str(c, "input-tokens"), *file = conf_str(c, "input-file");
    bool infer = tokens != NULL;
    struct mlperf_gen g = {0};
    struct rows rows = {0};
    gloss_model *m = NULL;
    struct progress bar;
    struct mlperf_watch watch = {on_progress, &bar};
    struct buf report;
    status st = OK;
    buf_init(&report, REPORT_BYTES_MAX);
    if ((tokens == NULL) == (file == NULL))
        TRY(err_set(e, E_USAGE,
                    "give --input-file for a LoadGen run, or --input-tokens to answer each row"));
    TRY(read_gen(c, infer, &g, e));
    TRY(rows_read(&rows, infer ? tokens : file, (size_t)given_int(c, "max-samples", 0), ROWS_IDS,
                  e));
    if (!g.url) {
        TRY(cli_open_model(c, false, &m, e));
        TRY(open_engine(c, m, &rows, &g, e));
    } else if (conf_given(c, "model")) {
        TRY(cli_open_model(c, false, &m, e)); /* its vocabulary */
    }
    progress_begin(&bar, c, infer ? "infer" : "mlperf");
    if (infer) {
        st = mlperf_infer(m, &rows, (int)conf_int(c, "pass-k"), &g, conf_str(c, "output"), &watch,
                          &report, e);
    } else {
        struct mlperf_run o = {.scenario = (enum mlperf_scenario)conf_get(c, "scenario")->i,
                               .accuracy = conf_on(c, "accuracy"),
                               .ref_compat = conf_on(c, "ref-compat"),
                               .trace = conf_on(c, "trace"),
                               .mlperf_conf = conf_str(c, "mlperf-conf"),
                               .user_conf = conf_str(c, "user-conf"),
                               .audit_config = conf_str(c, "audit-config"),
                               .output_dir = conf_str(c, "output-dir"),
                               .rows = &rows};
        st = mlperf_run(&o, &g, &watch, &report, e);
    }
    progress_end(&bar);
    st = print_report(&report, st, e);
out:
    gloss_engine_free(g.engine);
    gloss_model_close(m);
    rows_fini(&rows);
    buf_fini(&report);
    return st;
}

status cmd_mlperf_harmonize(struct conf *c, struct err *e)
{
    struct rows rows = {0};
    gloss_model *m = NULL;
    struct buf report;
    char day[16];
    status st = OK;
    buf_init(&report, REPORT_BYTES_MAX);
    struct mlperf_harmonize o = {.output = conf_str(c, "output-file"),
                                 .profiles = conf_str(c, "profiles"),
                                 .dataset = conf_str(c, "dataset"),
                                 .effort =
                                     GLOSS_EFFORT_LOW + (int)conf_get(c, "reasoning-effort")->i,
                                 .n_thread = given_int(c, "num-processes", pool_processors())};
    TRY(input_date(c, day, &o.date, e));
    TRY(rows_read(&rows, conf_str(c, "data-file"), (size_t)given_int(c, "max-rows", 0), 0, e));
    TRY(cli_open_vocab(c, &m, e));
    TRY(mlperf_harmonize(m, &rows, &o, &report, e));
    TRY(out_buf(&report, e));
out:
    gloss_model_close(m);
    rows_fini(&rows);
    buf_fini(&report);
    return st;
}

/* What accuracy and compliance share. */
static struct mlperf_accuracy read_accuracy(const struct conf *c, const struct rows *rows)
{
    return (struct mlperf_accuracy){
        .rows = rows, .grader = conf_str(c, "lcb-grader"), .skip_lcb = conf_on(c, "skip-lcb")};
}

status cmd_mlperf_accuracy(struct conf *c, struct err *e)
{
    struct rows rows = {0};
    struct mlperf_score score;
    gloss_model *m = NULL;
    struct buf report;
    status st = OK;
    buf_init(&report, REPORT_BYTES_MAX);
    TRY(rows_read(&rows, conf_str(c, "reference-data"), 0, ROWS_TRUTH, e));
    TRY(cli_open_vocab(c, &m, e));
    struct mlperf_accuracy o = read_accuracy(c, &rows);
    o.log = conf_str(c, "mlperf-log");
    o.output_file = conf_str(c, "output-file");
    o.save_outputs = conf_str(c, "save-outputs");
    TRY(mlperf_accuracy(m, &o, &score, &report, e));
    TRY(out_buf(&report, e));
out:
    gloss_model_close(m);
    rows_fini(&rows);
    buf_fini(&report);
    return st;
}

static status need(const struct conf *c, const char *option, struct err *e)
{
    return conf_str(c, option) ? OK : err_set(e, E_USAGE, "--%s is needed", option);
}

status cmd_mlperf_compliance(struct conf *c, struct err *e)
{
    const char *name = c->n_pos ? c->pos[0] : "";
    struct mlperf_compliance o = {.test =
                                      strcmp(name, "TEST09") == 0 ? MLPERF_TEST09 : MLPERF_TEST07};
    struct rows rows = {0};
    gloss_model *m = NULL;
    struct buf report;
    status st = OK;
    buf_init(&report, REPORT_BYTES_MAX);
    if (strcmp(name, "TEST07") != 0 && strcmp(name, "TEST09") != 0)
        TRY(err_set(e, E_USAGE, "which test? give TEST07 or TEST09"));
    if (conf_str(c, "write-audit-config")) {
        st = mlperf_audit_config(o.test, given_int(c, "samples", 0),
                                 conf_str(c, "write-audit-config"), e);
        goto out;
    }
    TRY(need(c, "compliance-dir", e));
    TRY(need(c, "output-dir", e));
    if (o.test == MLPERF_TEST07) {
        TRY(need(c, "reference-data", e));
        TRY(rows_read(&rows, conf_str(c, "reference-data"), 0, ROWS_TRUTH, e));
        TRY(cli_open_vocab(c, &m, e));
        o.accuracy = read_accuracy(c, &rows);
    }
    o.dir = conf_str(c, "compliance-dir");
    o.output_dir = conf_str(c, "output-dir");
    o.audit_config = conf_str(c, "audit-config");
    o.accuracy_threshold =
        conf_given(c, "accuracy-threshold") ? conf_num(c, "accuracy-threshold") : -1;
    o.min_tokens = conf_given(c, "min-output-tokens") ? conf_num(c, "min-output-tokens") : -1;
    o.max_tokens = conf_given(c, "max-output-tokens") ? conf_num(c, "max-output-tokens") : -1;
    st = print_report(&report, mlperf_compliance(m, &o, &report, e), e);
out:
    gloss_model_close(m);
    rows_fini(&rows);
    buf_fini(&report);
    return st;
}
