/* gloss bench: the options become the measurements' (src/bench), their tables the output. */
#include "base/clock.h"
#include "bench/bench.h"
#include "cli/cli.h"
#include "serve/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_run {
    struct bench b;
    struct conf *c;
    struct server *server; /* of bench serve */
    struct buf script;
};

/* ---- what a measurement runs on ---- */

static void say(void *ctx, const char *line)
{
    const struct bench_run *r = ctx;
    out_note(r->c, "%s", line);
}

/* Whose power is read: the card of the device. Without --gpu-index none when the processor is
 * asked for; with "auto" the first, which exists where a model can run on it. */
static int card_of(const struct conf *c)
{
    const char *device = conf_str(c, "device");
    if (conf_given(c, "gpu-index"))
        return (int)conf_int(c, "gpu-index");
    if (strcmp(device, "cpu") == 0)
        return -1;
    return strncmp(device, "cuda:", 5) == 0 ? (int)strtoul(device + 5, NULL, 10) : 0;
}

static status serve_begin(void *ctx, gloss_model *m, gloss_engine *g, const char *name,
                          char url[64], struct err *e)
{
    struct bench_run *r = ctx;
    struct serve_opts o = {.host = "127.0.0.1",
                           .model = name,
                           .any_name = true,
                           .date = "none",
                           .effort = "medium",
                           .top_p = 1,
                           .temperature = 1,
                           .stream_interval = 1};
    status st = OK;
    TRY(serve_open(&o, &r->server, e));
    TRY(serve_ready(r->server, &o, m, g, e));
    snprintf(url, 64, "http://127.0.0.1:%d/v1", serve_port(r->server));
out:
    if (st < 0) {
        serve_close(r->server);
        r->server = NULL;
    }
    return st;
}

static void serve_end(void *ctx)
{
    struct bench_run *r = ctx;
    serve_close(r->server);
    r->server = NULL;
}

/* `power`: the command has the options of power readings. */
static status run_open(struct bench_run *r, struct conf *c, bool study, bool power, struct err *e)
{
    static char path[4096];
    *r = (struct bench_run){.c = c};
    buf_init(&r->script, CLI_TEXT_MAX);
    status st = OK;
    const char *script = study ? conf_str(c, "scripted") : NULL;
    const char *name = study ? conf_str(c, "name") : NULL;
    r->b.name = name ? name : conf_str(c, "model");
    TRY(cli_find_model(conf_str(c, "model"), path, sizeof path, e));
    uint64_t start = clock_ns();
    TRY(cli_open_model(c, false, &r->b.model, e));
    r->b.open_ms = (double)(clock_ns() - start) * 1e-6;
    gloss_model_info(r->b.model, &r->b.info);
    r->b.path = path;
    r->b.engine = (struct gloss_engine_opts)GLOSS_INIT(struct gloss_engine_opts);
    cli_engine_opts(c, &r->b.engine);
    r->b.engine.no_prefix_cache = 1;
    if (script) {
        TRY(input_file(script, &r->script, e));
        r->b.engine.script = r->script.p;
        r->b.engine.n_script = r->script.n;
    }
    r->b.power = (struct power_opts){.i_gpu = -1};
    if (power) {
        r->b.power = (struct power_opts){.i_gpu = card_of(c), .powercap = conf_str(c, "powercap")};
        r->b.card_if_used = !conf_given(c, "gpu-index");
    }
    r->b.check_stop = cli_check_stop;
    r->b.say = say;
    r->b.serve_begin = serve_begin;
    r->b.serve_end = serve_end;
    r->b.ctx = r;
    cli_catch_signals();
out:
    return st;
}

static void run_close(struct bench_run *r)
{
    gloss_model_close(r->b.model);
    buf_fini(&r->script);
}

/* A bad value that only the measurement could know is a mistake in the command line all the same.
 */
static status usage(status st)
{
    return st == E_INPUT ? E_USAGE : st;
}

static status read_list(const struct conf *c, const char *name, struct int_list *l, struct err *e)
{
    return usage(int_list_read(l, conf_str(c, name), 1 << 20, name, e));
}

/* ---- tables ---- */

/* Options that say where results go and which parts are run, not what they are. */
static bool only_places(const char *name)
{
    static const char *const names[] = {"output", "outdir", "parts", "result-dir",
                                        "map",    "eval",   "specs"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Everything the rows depend on, so that those of another run are not taken for ours. */
static void describe(const struct conf *c, struct buf *b)
{
    buf_puts(b, c->t->cmd[c->cmd].name);
    for (int i = 0; i < c->t->n_opt; i++) {
        const struct conf_opt *o = &c->t->opt[i];
        if (conf_applies(o, c->cmd) && c->val[i].source != CONF_UNSET && o->kind != CONF_FLAG &&
            !only_places(o->name))
            buf_printf(b, " --%s=%.200s", o->name, c->val[i].s);
        if (conf_applies(o, c->cmd) && strcmp(o->name, "extended") == 0 && c->val[i].i)
            buf_puts(b, " --extended");
    }
}

/* With --output a run that was stopped is gone on with. */
static status table_begin(const struct conf *c, struct sheet *s, struct err *e)
{
    const char *path = conf_str(c, "output");
    struct buf what;
    buf_init(&what, 1 << 16);
    describe(c, &what);
    status st = !path ? OK : sheet_resume(s, path, what.p, e);
    if (st == OK && s->n_row)
        out_note(c, "going on behind %d finished rows of %s.part", s->n_row, path);
    buf_fini(&what);
    return st;
}

/* quiet: something else was printed. */
static status table_end(const struct conf *c, struct sheet *s, bool quiet, struct err *e)
{
    const char *path = conf_str(c, "output");
    struct buf b;
    buf_init(&b, CLI_TEXT_MAX);
    status st = OK;
    if (path)
        TRY(sheet_save(s, path, e));
    if (conf_on(c, "json"))
        sheet_json(s, &b);
    else if (!path && !quiet)
        sheet_csv(s, &b);
    TRY(out_buf(&b, e));
out:
    buf_fini(&b);
    return st;
}

status cmd_bench_kernels(struct conf *c, struct err *e)
{
    struct sheet s = {0};
    status st = OK;
    TRY(kernels_columns(&s, e));
    TRY(kernels_run((int)conf_int(c, "threads"), &s, e));
    TRY(table_end(c, &s, false, e));
out:
    sheet_fini(&s);
    return st;
}

status cmd_bench_fidelity(struct conf *c, struct err *e)
{
    struct bench_run r = {0};
    struct sheet s = {0};
    struct buf text;
    struct fidelity_opts o = {.n_token = (int)conf_int(c, "num-tokens")};
    const char *path = conf_str(c, "text-file");
    buf_init(&text, CLI_TEXT_MAX);
    status st = OK;
    if (path) {
        TRY(input_file(path, &text, e));
        o.text = text.p;
        o.n_text = text.n;
    }
    if (conf_str(c, "layers"))
        TRY(read_list(c, "layers", &o.layers, e));
    TRY(run_open(&r, c, false, false, e));
    if (int_list_most(&o.layers) > r.b.info.n_layer)
        TRY(err_param(e, E_USAGE, "layers", "--layers '%.60s': the model has %d",
                      conf_str(c, "layers"), r.b.info.n_layer));
    TRY(fidelity_columns(&s, e));
    TRY(fidelity_run(&r.b, &o, &s, e));
    TRY(table_end(c, &s, false, e));
out:
    sheet_fini(&s);
    run_close(&r);
    buf_fini(&text);
    return st;
}

status cmd_bench_latency(struct conf *c, struct err *e)
{
    struct bench_run r = {0};
    struct sheet s = {0};
    struct latency_opts o = {.n_request = (int)conf_int(c, "num-requests"),
                             .extended = conf_on(c, "extended")};
    status st = OK;
    TRY(read_list(c, "prompt-tokens", &o.prompt, e));
    TRY(read_list(c, "gen-tokens", &o.gen, e));
    TRY(run_open(&r, c, true, false, e));
    TRY(latency_columns(&s, o.extended, e));
    TRY(table_begin(c, &s, e));
    TRY(latency_run(&r.b, &o, &s, e));
    TRY(table_end(c, &s, false, e));
out:
    sheet_fini(&s);
    run_close(&r);
    return st;
}

status cmd_bench_memory(struct conf *c, struct err *e)
{
    struct bench_run r = {0};
    struct sheet s = {0};
    struct memory_opts o = {.n_gen = (int)conf_int(c, "gen-tokens")};
    status st = OK;
    TRY(read_list(c, "context-lengths", &o.context, e));
    TRY(run_open(&r, c, true, true, e));
    TRY(memory_columns(&s, e));
    TRY(table_begin(c, &s, e));
    TRY(memory_run(&r.b, &o, &s, e));
    TRY(table_end(c, &s, false, e));
out:
    sheet_fini(&s);
    run_close(&r);
    return st;
}

status cmd_bench_energy(struct conf *c, struct err *e)
{
    struct bench_run r = {0};
    struct sheet s = {0};
    struct energy_opts o = {.n_gen = (int)conf_int(c, "gen-tokens"),
                            .n_run = (int)conf_int(c, "num-runs"),
                            .hz = conf_num(c, "power-poll-hz"),
                            .min_s = conf_num(c, "min-seconds")};
    status st = OK;
    TRY(read_list(c, "context-lengths", &o.context, e));
    TRY(run_open(&r, c, true, true, e));
    TRY(energy_columns(&s, e));
    TRY(table_begin(c, &s, e));
    TRY(energy_run(&r.b, &o, &s, e));
    TRY(table_end(c, &s, false, e));
out:
    sheet_fini(&s);
    run_close(&r);
    return st;
}

status cmd_bench_serve(struct conf *c, struct err *e)
{
    struct bench_run r = {0};
    struct sheet s = {0};
    struct buf text;
    struct load_opts o = {.base_url = conf_str(c, "base-url"),
                          .api_key = conf_str(c, "api-key"),
                          .remote_model = conf_str(c, "served-model-name"),
                          .n_request = (int)conf_int(c, "num-requests"),
                          .completions = conf_get(c, "endpoint")->i == 1,
                          .effort = conf_str(c, "reasoning-effort"),
                          .result_dir = conf_str(c, "result-dir")};
    bool as_text = conf_on(c, "text");
    buf_init(&text, CLI_TEXT_MAX);
    status st = OK;
    TRY(read_list(c, "concurrency", &o.concurrency, e));
    TRY(read_list(c, "prompt-tokens", &o.prompt, e));
    TRY(read_list(c, "gen-tokens", &o.gen, e));
    TRY(run_open(&r, c, true, false, e));
    if (o.base_url && !conf_given(c, "model")) { /* the vocabulary of the real models */
        gloss_model_close(r.b.model);
        r.b.model = NULL;
        r.b.name = conf_str(c, "name");
    }
    TRY(load_columns(&s, e));
    TRY(table_begin(c, &s, e));
    TRY(load_run(&r.b, &o, &s, as_text ? &text : NULL, e));
    if (as_text)
        TRY(out_buf(&text, e));
    TRY(table_end(c, &s, as_text, e));
out:
    buf_fini(&text);
    sheet_fini(&s);
    run_close(&r);
    return st;
}

/* ---- folders of results ---- */

static void read_remote(const struct conf *c, struct ablation_opts *o)
{
    o->base_url = conf_str(c, "base-url");
    o->api_key = conf_str(c, "api-key");
    o->remote_model = conf_str(c, "served-model-name");
}

static void read_ablation(const struct conf *c, struct ablation_opts *o)
{
    o->tests = conf_str(c, "tests");
    o->precisions = conf_str(c, "precisions");
    o->n_run = (int)conf_int(c, "num-runs");
    o->max_new_tokens = (int)conf_int(c, "max-new-tokens");
}

status cmd_bench_ablation(struct conf *c, struct err *e)
{
    struct bench_run r = {0};
    struct ablation_opts o = {.dir = conf_str(c, "output-dir")};
    status st = OK;
    read_remote(c, &o);
    read_ablation(c, &o);
    TRY(read_list(c, "context-lengths", &o.context, e));
    TRY(run_open(&r, c, true, false, e));
    TRY(usage(ablation_check(&o, e)));
    TRY(ablation_run(&r.b, &o, e));
    out_note(c, "results are in %s", o.dir);
out:
    run_close(&r);
    return st;
}

status cmd_bench_governance(struct conf *c, struct err *e)
{
    const char *dir = conf_str(c, "output-dir");
    status st = governance_run(dir, conf_str(c, "metadata"), e);
    if (st == OK)
        out_note(c, "results are in %s", dir);
    return st;
}

static struct unify_opts unify_of(const struct conf *c, const char *dir, bool specs)
{
    const struct conf_val *map = conf_get(c, "map");
    const struct conf_val *eval = specs ? conf_get(c, "eval") : NULL;
    return (struct unify_opts){.dir = dir,
                               .map = map->list,
                               .n_map = map->n_list,
                               .specs = specs ? conf_str(c, "specs") : NULL,
                               .eval = eval ? eval->list : NULL,
                               .n_eval = eval ? eval->n_list : 0};
}

static status none_found(const char *dir, struct err *e)
{
    return err_set(e, E_NOENT, "%.120s holds no tables to work on (gloss help bench unify)", dir);
}

status cmd_bench_unify(struct conf *c, struct err *e)
{
    struct unify_opts o = unify_of(c, c->n_pos ? c->pos[0] : "new_results", false);
    int n;
    status st = unify_run(&o, &n, e);
    if (st == OK && n == 0)
        st = none_found(o.dir, e);
    if (st == OK)
        out_note(c, "%d rows", n);
    return st;
}

status cmd_bench_ape(struct conf *c, struct err *e)
{
    struct unify_opts o = unify_of(c, c->n_pos ? c->pos[0] : "new_results", true);
    int n;
    status st = ape_run(&o, &n, e);
    if (st == OK && n == 0)
        st = none_found(o.dir, e);
    if (st == OK)
        out_note(c, "%d rows", n);
    return st;
}

/* The command as it could be typed again: what was said, not the defaults. */
static void put_command(const struct conf *c, struct buf *b)
{
    buf_printf(b, "gloss %s", c->t->cmd[c->cmd].name);
    for (int i = 0; i < c->t->n_opt; i++) {
        const struct conf_opt *o = &c->t->opt[i];
        const struct conf_val *v = &c->val[i];
        if (!conf_applies(o, c->cmd) || v->source < CONF_ENV)
            continue;
        if (o->kind == CONF_FLAG)
            buf_printf(b, " --%s%s", v->i ? "" : "no-", o->name);
        else if (o->kind == CONF_LIST)
            for (int k = 0; k < v->n_list; k++)
                buf_printf(b, " --%s %s", o->name, v->list[k]);
        else
            buf_printf(b, " --%s %s", o->name, v->s);
    }
}

status cmd_bench_study(struct conf *c, struct err *e)
{
    struct bench_run r = {0};
    struct buf what, command;
    buf_init(&what, 1 << 16);
    buf_init(&command, 1 << 16);
    struct study_opts o = {
        .dir = conf_str(c, "outdir"),
        .parts = conf_str(c, "parts"),
        .latency = {.n_request = (int)conf_int(c, "num-requests"),
                    .extended = conf_on(c, "extended")},
        .memory = {.n_gen = (int)conf_int(c, "max-new-tokens")},
        .energy = {.n_gen = (int)conf_int(c, "max-new-tokens"),
                   .n_run = (int)conf_int(c, "num-runs"),
                   .hz = conf_num(c, "power-poll-hz"),
                   .min_s = conf_num(c, "min-seconds")},
        .load = {.n_request = (int)conf_int(c, "load-requests"),
                 .completions = conf_get(c, "endpoint")->i == 1,
                 .effort = conf_str(c, "reasoning-effort")},
        .unify = unify_of(c, NULL, true),
        .metadata = conf_str(c, "metadata"),
        .fresh = conf_on(c, "fresh"),
    };
    status st = OK;
    read_ablation(c, &o.ablation);
    TRY(read_list(c, "prompt-tokens", &o.latency.prompt, e));
    TRY(read_list(c, "gen-tokens", &o.latency.gen, e));
    TRY(read_list(c, "context-lengths", &o.memory.context, e));
    o.energy.context = o.memory.context;
    TRY(read_list(c, "load-prompt-tokens", &o.load.prompt, e));
    TRY(read_list(c, "load-gen-tokens", &o.load.gen, e));
    TRY(read_list(c, "concurrency", &o.load.concurrency, e));
    TRY(read_list(c, "ablation-contexts", &o.ablation.context, e));
    TRY(usage(ablation_check(&o.ablation, e)));
    TRY(usage(study_check(&o, e)));
    describe(c, &what);
    put_command(c, &command);
    o.what = what.p;
    o.command = command.p;
    TRY(run_open(&r, c, true, true, e));
    TRY(study_run(&r.b, &o, e));
out:
    run_close(&r);
    buf_fini(&what);
    buf_fini(&command);
    return st;
}

status cmd_report(struct conf *c, struct err *e)
{
    struct bench_run r = {.c = c};
    struct study_opts o = {.dir = c->n_pos ? c->pos[0] : "study", .unify = unify_of(c, NULL, true)};
    return study_report(&o, say, &r, e);
}

/* ---- steps ---- */

static status steps(struct conf *c, bool prefill, struct err *e)
{
    struct steps_opts o = {.prefill = prefill,
                           .n_generate = (int)conf_int(c, "generate-tokens"),
                           .n_repeat = (int)conf_int(c, "repeats"),
                           .grammar = conf_on(c, "grammar")};
    struct bench_run r = {0};
    struct sheet s = {0};
    struct buf out;
    buf_init(&out, CLI_TEXT_MAX);
    status st = OK;
    TRY(usage(int_list_read_from(&o.depth, conf_str(c, "depth"), 0, 1 << 20, "depth", e)));
    TRY(read_list(c, "prompt-tokens", &o.prompt, e));
    TRY(usage(int_list_read(&o.parallel, conf_str(c, "parallel"), 4096, "parallel", e)));
    TRY(run_open(&r, c, false, false, e));
    TRY(steps_columns(&s, e));
    TRY(steps_run(&r.b, &o, &s, e));
    if (conf_on(c, "json"))
        sheet_json(&s, &out);
    else if (conf_on(c, "csv"))
        sheet_csv(&s, &out);
    else
        steps_text(&s, &out);
    TRY(out_buf(&out, e));
out:
    buf_fini(&out);
    sheet_fini(&s);
    run_close(&r);
    return st;
}

status cmd_bench_decode(struct conf *c, struct err *e)
{
    return steps(c, false, e);
}

status cmd_bench_prefill(struct conf *c, struct err *e)
{
    return steps(c, true, e);
}

status cmd_bench_engine(struct conf *c, struct err *e)
{
    struct speed_opts o = {.n_prompt = (int)conf_int(c, "prompt-tokens"),
                           .n_generate = (int)conf_int(c, "generate-tokens"),
                           .n_parallel = (int)conf_int(c, "parallel"),
                           .grammar = conf_on(c, "grammar")};
    struct bench_run r = {0};
    struct buf out;
    buf_init(&out, CLI_TEXT_MAX);
    status st = OK;
    TRY(run_open(&r, c, false, false, e));
    TRY(speed_engine(&r.b, &o, &out, e));
    TRY(out_buf(&out, e));
out:
    buf_fini(&out);
    run_close(&r);
    return st;
}
