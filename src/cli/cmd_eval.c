/* gloss eval: accuracy and safety on data sets, of a model here or on a server. The options become
 * jobs of src/eval, one for each task and effort.
 */
#include "cli/cli.h"
#include "eval/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARALLEL_HERE = 4, PARALLEL_SERVER = 64, DEBUG_ROWS = 5 };
static const size_t answer_max = 64 << 20;

struct run {
    struct conf *c;
    gloss_model *m;
    gloss_engine *g;
    char day[16];
    bool bar; /* progress on a terminal */
    bool shown;
    struct buf out;
    int n_done;
};

static bool on_stopped(void *ctx)
{
    (void)ctx;
    return cli_stopped() != 0;
}

static void wipe(struct run *r)
{
    if (r->shown)
        fprintf(stderr, "\r%*s\r", 99, "");
    r->shown = false;
}

static void on_note(void *ctx, const char *text)
{
    struct run *r = ctx;
    wipe(r);
    out_note(r->c, "%s", text);
}

static void on_progress(void *ctx, const struct eval_progress *p)
{
    struct run *r = ctx;
    enum { WIDTH = 20 };
    char bar[WIDTH + 1], score[64] = "";
    if (!r->bar)
        return;
    int full = p->total ? (int)((int64_t)p->done * WIDTH / p->total) : 0;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < full ? '#' : '.';
    bar[WIDTH] = '\0';
    if (!isnan(p->mean))
        snprintf(score, sizeof score, "  score %.3f [%.3f, %.3f]", p->mean, p->lo, p->hi);
    fprintf(stderr, "\r%s [%s] %d/%d%s  cut off %d, no answer %d, failed %d ", p->what, bar,
            p->done, p->total, score, p->n_truncated, p->n_no_answer, p->n_failed);
    r->shown = true;
}

/* ---- samplers ---- */

static const char *key_of(const struct conf *c, const char *option)
{
    const char *env = getenv("OPENAI_API_KEY");
    return conf_str(c, option) ? conf_str(c, option) : env && *env ? env : NULL;
}

static struct client_opts client_of(const struct conf *c, const char *url, const char *key,
                                    int n_parallel)
{
    return (struct client_opts){
        .base_url = url,
        .api_key = key,
        .n_parallel = n_parallel,
        .max_retries = (int)conf_int(c, "max-retries"),
        .backoff_s = 1,
        .backoff_max_s = 60,
        .connect_timeout_s = 30,
        .timeout_s = conf_num(c, "timeout"),
        .max_answer_bytes = answer_max,
    };
}

static status open_here(struct run *r, int n_parallel, struct err *e)
{
    struct conf *c = r->c;
    struct gloss_info info;
    status st = cli_open_model(c, false, &r->m, e);
    if (st < 0)
        return st;
    gloss_model_info(r->m, &info);
    int n_ctx = conf_given(c, "ctx-size") ? (int)conf_int(c, "ctx-size") : info.n_ctx;
    if (n_ctx > info.n_ctx)
        return err_set(e, E_LIMIT, "--ctx-size %d is more than the model's context of %d tokens",
                       n_ctx, info.n_ctx);
    return cli_open_engine(c, r->m, n_ctx, n_parallel, conf_str(c, "scripted"), &r->g, e);
}

/* ---- options ---- */

static status check(const struct conf *c, struct err *e)
{
    if (!c->n_pos)
        return err_set(e, E_USAGE, "name a task; for example: gloss eval gpqa --data FILE");
    for (int i = 0; i < c->n_pos; i++) {
        int k = 0, best = 0;
        for (; eval_tasks[k] && strcmp(eval_tasks[k], c->pos[i]) != 0; k++)
            if (conf_distance(c->pos[i], eval_tasks[k]) <
                conf_distance(c->pos[i], eval_tasks[best]))
                best = k;
        if (!eval_tasks[k])
            return err_set(e, E_USAGE, "unknown task '%.60s'; did you mean '%s'? (gloss help eval)",
                           c->pos[i], eval_tasks[best]);
    }
    int n = conf_get(c, "data")->n_list;
    if (n != c->n_pos)
        return err_set(e, E_USAGE, "%d tasks need --data %d times, in their order; there are %d",
                       c->n_pos, c->n_pos, n);
    return OK;
}

/* The next of "low,medium,high"; false at the end. */
static status next_effort(const char **p, char effort[16], bool *more, struct err *e)
{
    size_t n = strcspn(*p, ",");
    *more = **p != '\0';
    if (!*more)
        return OK;
    snprintf(effort, 16, "%.*s", n < 15 ? (int)n : 15, *p);
    *p += n + ((*p)[n] == ',');
    if (strcmp(effort, "low") != 0 && strcmp(effort, "medium") != 0 && strcmp(effort, "high") != 0)
        return err_set(e, E_USAGE,
                       "--reasoning-effort: '%s' is not allowed here; give low, medium or high, or "
                       "several with commas",
                       effort);
    return OK;
}

static struct eval_opts options(struct run *r, int n_parallel, const char *journal)
{
    const struct conf *c = r->c;
    const char *url = conf_str(c, "base-url"), *grader = conf_str(c, "grader-url");
    bool responses = strcmp(conf_str(c, "sampler"), "responses") == 0;
    struct eval_opts o = {
        .shots = conf_str(c, "fewshot-data"),
        .n_shot = conf_given(c, "num-fewshot") ? (int)conf_int(c, "num-fewshot") : -1,
        .shots_random = conf_on(c, "fewshot-random"),
        .n_example = (int)conf_int(c, "examples"),
        .n_repeat = (int)conf_int(c, "n-repeats"),
        .method = conf_given(c, "method") ? (int)conf_get(c, "method")->i : -1,
        .final_prefix = conf_on(c, "lm-final-prefix"),
        .plain_question = !conf_on(c, "formatted"),
        .samples_full = conf_on(c, "samples-full"),
        .samples_limit = (int)conf_int(c, "samples"),
        .debug = conf_on(c, "debug"),
        .n_parallel = n_parallel,
        .temperature = conf_given(c, "temperature") ? conf_num(c, "temperature") : -1,
        .top_p = conf_num(c, "top-p"),
        .max_tokens = (int)conf_int(c, "max-tokens"),
        .seed = conf_given(c, "seed") ? conf_int(c, "seed") : -1,
        .model_name = conf_str(c, "model"),
        .out_dir = conf_str(c, "out-dir"),
        .journal = journal,
        .fresh = !conf_on(c, "resume"),
        .irt = conf_str(c, "irt"),
        .grader_template = conf_str(c, "grader-template"),
        .stopped = on_stopped,
        .progress = on_progress,
        .note = on_note,
        .ctx = r,
    };
    if (o.debug) {
        o.n_example = o.n_example ? o.n_example : DEBUG_ROWS;
        o.n_repeat = o.n_repeat ? o.n_repeat : 1;
    }
    o.sampler = (struct sampler_opts){.kind = !url        ? SAMPLER_LOCAL
                                              : responses ? SAMPLER_RESPONSES
                                                          : SAMPLER_CHAT,
                                      .model = r->m,
                                      .engine = r->g,
                                      .model_name = conf_str(c, "model")};
    if (url)
        o.sampler.client = client_of(c, url, key_of(c, "api-key"), n_parallel);
    o.grader = o.sampler;
    if (grader) {
        o.grader =
            (struct sampler_opts){.kind = SAMPLER_CHAT, .model_name = conf_str(c, "grader-model")};
        o.grader.client = client_of(c, grader, key_of(c, "grader-key"), n_parallel);
    }
    o.self_graded = !grader;
    return o;
}

/* ---- output ---- */

static void put_row(struct run *r, const struct eval_opts *o, const struct eval_result *res)
{
    struct buf *b = &r->out;
    if (conf_on(r->c, "json")) {
        buf_puts(b, r->n_done++ ? ",\n " : "[");
        buf_put(b, res->json.p, res->json.n);
        return;
    }
    char tokens[32] = "-", err[32] = "-", published[32] = "-";
    if (!isnan(res->published))
        snprintf(published, sizeof published, "%.3f", res->published);
    if (!isnan(res->mean_tokens))
        snprintf(tokens, sizeof tokens, "%.1f", res->mean_tokens);
    if (!isnan(res->err))
        snprintf(err, sizeof err, "%.4f", res->err);
    if (!r->n_done++)
        buf_printf(b, "%-22s %-7s %6s %7s %7s  %-16s %9s %9s %8s %9s\n", "task", "effort", "n",
                   "score", "stderr", "95 % interval", "published", "tokens", "cut off",
                   "no answer");
    buf_printf(b, "%-22s %-7s %6d %7.4f %7s  [%.4f, %.4f] %9s %9s %8d %9d\n", o->task, o->effort,
               res->n, res->score, err, res->lo, res->hi, published, tokens, res->n_truncated,
               res->n_no_answer);
}

static status run_all(struct run *r, struct eval_opts *o, struct err *e)
{
    const struct conf *c = r->c;
    const char *p = conf_str(c, "reasoning-effort");
    char effort[16];
    bool more;
    status st = next_effort(&p, effort, &more, e);
    for (; st == OK && more; st = st < 0 ? st : next_effort(&p, effort, &more, e))
        for (int i = 0; st == OK && i < c->n_pos; i++) {
            struct eval_result res = {0};
            o->task = c->pos[i];
            o->data = conf_get(c, "data")->list[i];
            o->effort = effort;
            st = eval_run(o, &res, e);
            wipe(r);
            if (st == OK) {
                put_row(r, o, &res);
                for (int k = 0; k < res.n_file; k++)
                    out_note(c, "wrote %s", res.files[k]);
            }
            eval_result_fini(&res);
        }
    return st;
}

status cmd_eval(struct conf *c, struct err *e)
{
    struct run r = {.c = c, .bar = isatty(STDERR_FILENO) && !conf_on(c, "quiet")};
    char journal[4096];
    const char *url = conf_str(c, "base-url");
    buf_init(&r.out, CLI_TEXT_MAX);
    status st = OK;
    TRY(check(c, e));
    int n = conf_given(c, "parallel") ? (int)conf_int(c, "parallel")
            : url                     ? PARALLEL_SERVER
                                      : PARALLEL_HERE;
    if (!url)
        TRY(open_here(&r, n, e));
    else if (conf_str(c, "tokenizer"))
        TRY(cli_open_named(c, conf_str(c, "tokenizer"), &r.m, e));
    snprintf(journal, sizeof journal, "%s/progress.sqlite", conf_str(c, "out-dir"));
    struct eval_opts o = options(&r, n, journal);
    TRY(input_date(c, r.day, &o.sampler.date, e));
    if (o.grader.kind == SAMPLER_LOCAL)
        o.grader.date = o.sampler.date;
    cli_catch_signals();
    st = run_all(&r, &o, e);
    if (conf_on(c, "json") && r.n_done)
        buf_puts(&r.out, "]\n");
    if (r.out.n) { /* what was finished, whatever came of the rest */
        struct err we = {0};
        status put = out_buf(&r.out, &we);
        if (st == OK && put < 0)
            st = err_set(e, put, "%s", we.msg);
    }
out:
    gloss_engine_free(r.g);
    gloss_model_close(r.m);
    buf_fini(&r.out);
    return st;
}
