/* The whole study in one folder: every part in turn, then tables over all models, figures and the
 * page. What was finished with the same options is not measured again, and a part that was broken
 * off goes on behind its last finished row.
 *
 *   DIR/new_results/{latency,memeory,energy,ablations,safety,ape}/   the study's own layout
 *   DIR/figs/                       figures
 *   DIR/results/model_specs/        commands_MODEL.jsonl: what was run when, on what
 *   DIR/report.html                 the page
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "bench/bench.h"
#include "bench/machine.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_MAX = 16 << 20 };

struct study {
    struct bench *b;
    const struct study_opts *o;
    char tag[128], log[4096];
    struct buf done; /* lines of the log */
};

struct part {
    const char *name;
    const char *folder, *file; /* file: a format for the model's tag */
    status (*run)(struct study *, const char *path, struct err *);
};

/* ---- the parts ---- */

static status table(struct study *t, const char *path,
                    status (*columns)(struct study *, struct sheet *, struct err *),
                    status (*run)(struct study *, struct sheet *, struct err *), struct err *e)
{
    struct sheet s = {0};
    status st = OK;
    char part[4200];
    snprintf(part, sizeof part, "%s.part", path);
    if (t->o->fresh)
        unlink(part);
    TRY(columns(t, &s, e));
    TRY(sheet_resume(&s, path, t->o->what, e));
    TRY(run(t, &s, e));
    TRY(sheet_save(&s, path, e));
out:
    sheet_fini(&s);
    return st;
}

static status c_latency(struct study *t, struct sheet *s, struct err *e)
{
    return latency_columns(s, t->o->latency.extended, e);
}
static status r_latency(struct study *t, struct sheet *s, struct err *e)
{
    return latency_run(t->b, &t->o->latency, s, e);
}
static status c_memory(struct study *t, struct sheet *s, struct err *e)
{
    (void)t;
    return memory_columns(s, e);
}
static status r_memory(struct study *t, struct sheet *s, struct err *e)
{
    return memory_run(t->b, &t->o->memory, s, e);
}
static status c_energy(struct study *t, struct sheet *s, struct err *e)
{
    (void)t;
    return energy_columns(s, e);
}
static status r_energy(struct study *t, struct sheet *s, struct err *e)
{
    return energy_run(t->b, &t->o->energy, s, e);
}
static status c_load(struct study *t, struct sheet *s, struct err *e)
{
    (void)t;
    return load_columns(s, e);
}
static status r_load(struct study *t, struct sheet *s, struct err *e)
{
    return load_run(t->b, &t->o->load, s, NULL, e);
}

static status latency_part(struct study *t, const char *path, struct err *e)
{
    return table(t, path, c_latency, r_latency, e);
}
static status memory_part(struct study *t, const char *path, struct err *e)
{
    return table(t, path, c_memory, r_memory, e);
}
static status energy_part(struct study *t, const char *path, struct err *e)
{
    return table(t, path, c_energy, r_energy, e);
}
static status load_part(struct study *t, const char *path, struct err *e)
{
    return table(t, path, c_load, r_load, e);
}
static status ablation_part(struct study *t, const char *path, struct err *e)
{
    struct ablation_opts o = t->o->ablation;
    (void)path;
    char dir[3072];
    snprintf(dir, sizeof dir, "%s/new_results/ablations", t->o->dir);
    o.dir = dir;
    return ablation_run(t->b, &o, e);
}
static status governance_part(struct study *t, const char *path, struct err *e)
{
    (void)path;
    char dir[3072];
    snprintf(dir, sizeof dir, "%s/new_results/safety", t->o->dir);
    return governance_run(dir, t->o->metadata, e);
}

static const struct part parts[] = {
    {"latency", "latency", "latency_%s_universal.csv", latency_part},
    {"memory", "memeory", "memory_%s_v2.csv", memory_part},
    {"energy", "energy", "energy_%s_fixed.csv", energy_part},
    {"serve", "latency", "serving_%s.csv", load_part},
    {"ablation", "ablations", "ablation_all_%s.json", ablation_part},
    {"governance", "safety", "safety_governance_summary.json", governance_part},
};
enum { N_PART = sizeof parts / sizeof *parts };

/* ---- what was done ---- */

status study_check(const struct study_opts *o, struct err *e)
{
    const char *list = o->parts;
    for (const char *p = list; *p; p += *p == ',') {
        size_t n = strcspn(p, ",");
        bool known = false;
        for (int i = 0; i < N_PART; i++)
            known = known || (strlen(parts[i].name) == n && strncmp(p, parts[i].name, n) == 0);
        if (!known)
            return err_param(e, E_INPUT, "parts",
                             "--parts '%.80s': must be some of latency, memory, energy, serve, "
                             "ablation, governance",
                             list);
        p += n;
    }
    return OK;
}

/* The beginning of the log's line for a part with these options. */
static void put_key(const struct study *t, const struct part *p, struct buf *b)
{
    buf_printf(b, "{\"part\": \"%s\", \"options\": ", p->name);
    json_quote(b, t->o->what, strlen(t->o->what));
}

static bool was_done(const struct study *t, const struct part *p)
{
    struct buf key;
    bool found;
    buf_init(&key, LOG_MAX);
    put_key(t, p, &key);
    found = buf_status(&key) == OK && strstr(t->done.p, key.p) != NULL;
    buf_fini(&key);
    return found;
}

static void put_machine(struct study *t, struct buf *b)
{
    struct machine m;
    struct power *power = NULL;
    struct gloss_info *i = &t->b->info;
    machine_read(&m);
    buf_puts(b, ", \"machine\": {\"processor\": ");
    json_quote(b, m.cpu, strlen(m.cpu));
    buf_printf(b, ", \"processors\": %d, \"memory_gb\": %.1f, \"system\": ", m.n_cpu,
               (double)m.memory_bytes * 1e-9);
    json_quote(b, m.system, strlen(m.system));
    if (power_open(&t->b->power, &power, NULL) == OK) {
        buf_puts(b, ", \"card\": ");
        json_quote(b, power_card(power), strlen(power_card(power)));
        buf_printf(b, ", \"power_source\": \"%s\"", power_source(power));
    }
    power_close(power);
    buf_printf(b,
               ", \"kernels\": \"%s\"}, \"model\": {\"name\": \"%s\", \"layers\": %d, "
               "\"experts\": %d, \"parameters\": %lld, \"active\": %lld, \"bytes\": %lld}",
               gloss_cpu(), i->name, i->n_layer, i->n_expert, (long long)i->n_param,
               (long long)i->n_param_active, (long long)i->bytes_total);
}

static status note_done(struct study *t, const struct part *p, double seconds, struct err *e)
{
    char date[32];
    machine_date(date);
    put_key(t, p, &t->done);
    buf_puts(&t->done, ", \"command\": ");
    json_quote(&t->done, t->o->command, strlen(t->o->command));
    buf_printf(&t->done, ", \"version\": \"%s\", \"finished\": \"%s\", \"seconds\": %.1f",
               gloss_version(), date, seconds);
    put_machine(t, &t->done);
    buf_puts(&t->done, "}\n");
    if (buf_status(&t->done) < 0)
        return err_set(e, E_NOMEM, "the log %.120s is full", t->log);
    return file_save(t->log, t->done.p, t->done.n, e);
}

/* ---- the study ---- */

static status run_part(struct study *t, const struct part *p, int at, int n, struct err *e)
{
    char folder[3072], name[320], path[4096];
    status st = OK;
    snprintf(folder, sizeof folder, "%s/new_results/%s", t->o->dir, p->folder);
    snprintf(name, sizeof name, p->file, t->tag);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!t->o->fresh && was_done(t, p) && file_exists(path)) {
        bench_say(t->b, "part %d of %d: %s, done before", at, n, p->name);
        return OK;
    }
    bench_say(t->b, "part %d of %d: %s", at, n, p->name);
    uint64_t start = clock_ns();
    TRY(bench_folder(folder, e));
    TRY(p->run(t, path, e));
    TRY(note_done(t, p, clock_ms_since(start) * 1e-3, e));
out:
    return st;
}

status study_report(const struct study_opts *o, void (*say)(void *, const char *), void *ctx,
                    struct err *e)
{
    char dir[3072], page[4096], line[512];
    struct unify_opts u = o->unify;
    int n_unified, n_ape, n_figure;
    status st = OK;
    snprintf(dir, sizeof dir, "%s/new_results", o->dir);
    snprintf(page, sizeof page, "%s/report.html", o->dir);
    u.dir = dir;
    TRY(unify_run(&u, &n_unified, e));
    if (n_unified == 0)
        TRY(err_set(e, E_NOENT,
                    "%.120s holds no results: latency/latency_*_universal.csv and the like; "
                    "'gloss bench study' makes them",
                    dir));
    TRY(ape_run(&u, &n_ape, e));
    TRY(plot_run(o->dir, &n_figure, e));
    if (n_figure == 0)
        say(ctx, "no figures: gnuplot is not installed (scripts/deps.sh study)");
    TRY(report_run(o->dir, page, e));
    snprintf(line, sizeof line, "%d rows, %d of efficiency, %d figures, %.200s", n_unified, n_ape,
             n_figure, page);
    say(ctx, line);
out:
    return st;
}

status study_run(struct bench *b, const struct study_opts *o, struct err *e)
{
    struct study t = {.b = b, .o = o};
    char folder[3072];
    int n = 0, at = 0;
    buf_init(&t.done, LOG_MAX);
    bench_tag(b->name, t.tag);
    status st = OK;
    snprintf(folder, sizeof folder, "%s/results/model_specs", o->dir);
    TRY(bench_folder(folder, e));
    snprintf(t.log, sizeof t.log, "%s/commands_%s.jsonl", folder, t.tag);
    if (file_exists(t.log))
        TRY(file_read(t.log, &t.done, e));
    for (int i = 0; i < N_PART; i++)
        n += bench_listed(o->parts, parts[i].name);
    status failed = OK;
    for (int i = 0; i < N_PART; i++) {
        struct err why = {0};
        if (!bench_listed(o->parts, parts[i].name))
            continue;
        st = run_part(&t, &parts[i], ++at, n, &why);
        if (st == E_CANCEL)
            TRY(err_set(e, st, "%s", why.msg));
        if (st < 0) { /* the others are worth having all the same */
            bench_say(b, "%s failed: %s", parts[i].name, *why.msg ? why.msg : err_name(st));
            failed = failed == OK ? err_set(e, st, "%s: %s", parts[i].name, why.msg) : failed;
        }
    }
    struct err why = {0};
    st = study_report(o, b->say, b->ctx, &why);
    if (failed == OK && st < 0)
        err_set(e, st, "%s", why.msg);
    st = failed == OK ? st : failed;
out:
    buf_fini(&t.done);
    return st;
}
