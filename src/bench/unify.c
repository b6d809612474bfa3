/* One table of each kind over all models of a results folder, and active-parameter efficiency.
 *
 * Inputs are the files latency_*_universal.csv, memory_*_v2.csv and energy_*_fixed.csv in the
 * folders latency/, memeory/ (the study's spelling) and energy/, ours and anybody's that have the
 * study's columns: so the published tables of other models become comparator rows by being put
 * there.
 */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "bench/bench.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 256, SPEC_BYTES = 1 << 20 };

struct kind {
    const char *folder, *prefix, *suffix, *out, *columns;
    void (*derive)(struct sheet *, const struct sheet *, int row);
};

/* ---- files ---- */

struct names {
    char *v[MAX_FILE];
    int n;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_fini(struct names *l)
{
    for (int i = 0; i < l->n; i++)
        mem_free(l->v[i]);
}

/* Paths of the files PREFIX*SUFFIX of a folder, sorted; none when it is not there. */
static status list_files(const char *folder, const char *prefix, const char *suffix,
                         struct names *l, struct err *e)
{
    status st = OK;
    size_t n_prefix = strlen(prefix), n_suffix = strlen(suffix);
    DIR *d = opendir(folder);
    *l = (struct names){0};
    for (struct dirent *ent; st == OK && d && (ent = readdir(d));) {
        char path[4608];
        size_t n = strlen(ent->d_name);
        if (n < n_prefix + n_suffix || strncmp(ent->d_name, prefix, n_prefix) != 0 ||
            strcmp(ent->d_name + n - n_suffix, suffix) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, ent->d_name);
        if (l->n == MAX_FILE)
            st = err_set(e, E_LIMIT, "%.120s has more than %d files %s*%s", folder, MAX_FILE,
                         prefix, suffix);
        else if (!(l->v[l->n] = mem_strdup(path)))
            st = err_set(e, E_NOMEM, "out of memory");
        else
            l->n++;
    }
    if (d)
        closedir(d);
    if (st < 0)
        names_fini(l);
    else
        qsort(l->v, (size_t)l->n, sizeof *l->v, by_name);
    return st;
}

/* ---- unified tables ---- */

static const char latency_columns_unified[] =
    "model_short model model_type prompt_tokens gen_tokens TTFT_ms p50_ms p95_ms p99_ms TPOT_tokps "
    "context_length ttft_ms";
static const char memory_columns_unified[] =
    "model_short model device_name context_length gen_tokens total_tokens baseline_alloc_mb "
    "baseline_reserved_mb after_tokenize_alloc_mb after_tokenize_reserved_mb "
    "after_generate_alloc_mb after_generate_reserved_mb peak_alloc_mb peak_reserved_mb "
    "tokenize_delta_alloc_mb generate_delta_alloc_mb total_delta_alloc_mb kv_cache_alloc_mb "
    "kv_cache_reserved_mb memory_per_token_alloc_mb memory_per_token_reserved_mb "
    "util_after_percent_alloc util_peak_percent_alloc util_peak_percent_reserved "
    "total_gpu_memory_mb peak_memory_mb memory_efficiency";
static const char energy_columns_unified[] =
    "model_short model context_length gen_tokens ttft_ms ttft_joules decode_tokens_per_second "
    "total_tokens_per_second avg_gpu_power_watts baseline_gpu_power_watts "
    "avg_gpu_utilization_percent avg_memory_utilization_percent energy_per_decoded_token_joules "
    "energy_per_1k_decoded_tokens_joules energy_per_total_token_joules tokens_per_watt "
    "energy_per_1k_joules TPOT_tokps";

static void derive_latency(struct sheet *to, const struct sheet *s, int row)
{
    sheet_text(to, "context_length", sheet_get(s, row, "prompt_tokens"));
    sheet_text(to, "ttft_ms", sheet_get(s, row, "TTFT_ms"));
}

static void derive_memory(struct sheet *to, const struct sheet *s, int row)
{
    sheet_text(to, "peak_memory_mb", sheet_get(s, row, "peak_alloc_mb"));
    sheet_num(to, "memory_efficiency",
              sheet_get_num(s, row, "total_tokens") / sheet_get_num(s, row, "peak_alloc_mb"));
}

static void derive_energy(struct sheet *to, const struct sheet *s, int row)
{
    sheet_num(to, "tokens_per_watt",
              sheet_get_num(s, row, "decode_tokens_per_second") /
                  sheet_get_num(s, row, "avg_gpu_power_watts"));
    sheet_text(to, "energy_per_1k_joules",
               sheet_get(s, row, "energy_per_1k_decoded_tokens_joules"));
    sheet_text(to, "TPOT_tokps", sheet_get(s, row, "decode_tokens_per_second"));
}

static const struct kind kinds[] = {
    {"latency", "latency_", "_universal.csv", "unified_latency_comparison.csv",
     latency_columns_unified, derive_latency},
    {"memeory", "memory_", "_v2.csv", "unified_memory_comparison_fixed.csv", memory_columns_unified,
     derive_memory},
    {"energy", "energy_", "_fixed.csv", "unified_energy_comparison_fixed.csv",
     energy_columns_unified, derive_energy},
};

/* The short name: what --map says, the study's for its models, else the name's last part in lower
 * case. */
static void short_name(const struct unify_opts *o, const char *model, char to[128])
{
    for (int i = 0; i < o->n_map; i++) {
        const char *eq = strchr(o->map[i], '=');
        size_t n = eq ? (size_t)(eq - o->map[i]) : 0;
        if (eq && strlen(model) == n && strncmp(model, o->map[i], n) == 0) {
            snprintf(to, 128, "%s", eq + 1);
            return;
        }
    }
    bench_tag(model, to);
    for (char *p = to; *p; p++)
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 'a' - 'A') : *p;
}

static status add_rows(const struct kind *k, const struct unify_opts *o, const char *path,
                       struct sheet *to, struct err *e)
{
    struct sheet s = {0};
    status st = OK;
    TRY(sheet_read(&s, path, e));
    for (int row = 0; row < s.n_row; row++) {
        char name[128];
        short_name(o, sheet_get(&s, row, "model"), name);
        sheet_row(to);
        for (int i = 0; i < to->n_col; i++)
            if (sheet_col(&s, to->col[i]) >= 0)
                sheet_text(to, to->col[i], sheet_get(&s, row, to->col[i]));
        sheet_text(to, "model_short", name);
        k->derive(to, &s, row);
        TRY(sheet_end_row(to, e));
    }
out:
    sheet_fini(&s);
    return st;
}

static status unify_kind(const struct kind *k, const struct unify_opts *o, int *n, struct err *e)
{
    struct names files;
    struct sheet to = {0};
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", o->dir, k->folder);
    status st = list_files(path, k->prefix, k->suffix, &files, e);
    if (st < 0)
        return st;
    TRY(sheet_init(&to, k->columns, e));
    for (int i = 0; i < files.n; i++)
        TRY(add_rows(k, o, files.v[i], &to, e));
    if (to.n_row) {
        snprintf(path, sizeof path, "%s/%s", o->dir, k->out);
        TRY(sheet_save(&to, path, e));
        *n += to.n_row;
    }
out:
    sheet_fini(&to);
    names_fini(&files);
    return st;
}

status unify_run(const struct unify_opts *o, int *n, struct err *e)
{
    status st = OK;
    *n = 0;
    for (size_t i = 0; st == OK && i < sizeof kinds / sizeof *kinds; i++)
        st = unify_kind(&kinds[i], o, n, e);
    return st;
}

/* ---- active-parameter efficiency ---- */

struct spec {
    char id[128], architecture[32], organization[64];
    double total, active; /* parameters */
};
enum { MAX_SPEC = 64 };
struct specs {
    struct spec v[MAX_SPEC];
    int n;
};

/* Of the paper's text (20.9 and 3.61, not the 20 and 3.6 of its code) and the model card. */
static const struct spec known[] = {
    {"gpt-oss-20b", "MoE", "OpenAI", 20.9e9, 3.61e9},
    {"gpt-oss-120b", "MoE", "OpenAI", 116.8e9, 5.13e9},
    {"qwen3-32b", "Dense", "Alibaba", 32e9, 32e9},
    {"yi-34b", "Dense", "01.AI", 34e9, 34e9},
    {"tiny", "MoE", "gloss", 15.02e6, 8.31e6},
};

static status read_specs(const char *path, struct specs *l, struct err *e)
{
    struct buf b;
    struct json *root = NULL;
    buf_init(&b, SPEC_BYTES);
    status st = OK;
    l->n = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        l->v[l->n++] = known[i];
    if (!path)
        goto out;
    TRY(file_read(path, &b, e));
    TRY(json_parse(b.p, b.n, &json_limits_file, &root, e));
    for (void *it = json_first(root); it; it = json_next(root, it)) {
        struct spec s = {.architecture = "MoE"};
        const char *a = "MoE", *org = "";
        snprintf(s.id, sizeof s.id, "%s", json_key(it, NULL));
        TRY(json_get_num(json_val(it), "total_params", 1, 1e15, &s.total, e));
        TRY(json_get_num(json_val(it), "active_params", 1, 1e15, &s.active, e));
        TRY(json_get_str(json_val(it), "architecture", &a, e));
        TRY(json_get_str(json_val(it), "organization", &org, e));
        if (s.total == 0 || s.active == 0)
            TRY(err_set(e, E_INPUT, "--specs: '%.60s' needs total_params and active_params", s.id));
        snprintf(s.architecture, sizeof s.architecture, "%s", a);
        snprintf(s.organization, sizeof s.organization, "%s", org);
        int at = 0;
        while (at < l->n && strcmp(l->v[at].id, s.id) != 0)
            at++;
        if (at == MAX_SPEC)
            TRY(err_set(e, E_LIMIT, "--specs: more than %d models", MAX_SPEC));
        l->v[at] = s;
        l->n = at == l->n ? at + 1 : l->n;
    }
out:
    json_free(root);
    buf_fini(&b);
    return st;
}

static const char ape_columns[] =
    "model_id model_name architecture organization context_length total_params_B active_params_B "
    "ttft_ms tpot_tokps peak_memory_GB energy_per_1k_joules tokens_per_watt "
    "throughput_per_activeB_tokps_per_B inv_ttft_per_activeB_tokps_per_B "
    "tokens_per_watt_per_activeB tokens_per_GB_tokps_per_GB";

/* The accuracy in a result file: lm-eval's first "acc,..." or "exact_match,...", the runner's
 * overall_accuracy, or the harness's score. */
static status read_accuracy(const char *path, double *v, struct err *e)
{
    struct buf b;
    struct json *root = NULL;
    buf_init(&b, 64 << 20);
    status st = OK;
    *v = NAN;
    TRY(file_read(path, &b, e));
    TRY(json_parse(b.p, b.n, &json_limits_file, &root, e));
    const struct json *results = json_get(root, "results");
    for (void *t = results ? json_first(results) : NULL; t && isnan(*v);
         t = json_next(results, t)) {
        const struct json *task = json_val(t);
        for (void *m = json_first(task); m && isnan(*v); m = json_next(task, m)) {
            const char *key = json_key(m, NULL);
            enum json_kind kind = json_kind(json_val(m));
            if ((strncmp(key, "acc,", 4) == 0 || strncmp(key, "exact_match,", 12) == 0) &&
                (kind == J_INT || kind == J_REAL))
                *v = json_num(json_val(m));
        }
    }
    static const char *const flat[] = {"overall_accuracy", "score"};
    for (int i = 0; i < 2 && isnan(*v); i++) {
        enum json_kind kind = json_kind(json_get(root, flat[i]));
        if (kind == J_INT || kind == J_REAL)
            *v = json_num(json_get(root, flat[i]));
    }
    if (isnan(*v))
        TRY(err_set(e, E_FORMAT, "%.120s holds no accuracy", path));
out:
    json_free(root);
    buf_fini(&b);
    return st;
}

/* Fills the two columns of the models that --eval names. */
static status add_accuracy(const struct unify_opts *o, const char *id, double active_b,
                           struct sheet *to, struct err *e)
{
    for (int i = 0; i < o->n_eval; i++) {
        const char *eq = strchr(o->eval[i], '=');
        double v;
        if (!eq)
            return err_param(e, E_INPUT, "eval", "--eval '%.60s': must be SHORT=FILE", o->eval[i]);
        if (strlen(id) != (size_t)(eq - o->eval[i]) || strncmp(id, o->eval[i], strlen(id)) != 0)
            continue;
        status st = read_accuracy(eq + 1, &v, e);
        if (st < 0)
            return st;
        sheet_num(to, "accuracy", v);
        sheet_num(to, "accuracy_per_activeB", v / active_b);
    }
    return OK;
}

/* The first row of the model with that context, or -1. */
static int row_of(const struct sheet *s, const char *model, double context)
{
    for (int i = 0; i < s->n_row; i++)
        if (strcmp(sheet_get(s, i, "model_short"), model) == 0 &&
            sheet_get_num(s, i, "context_length") == context)
            return i;
    return -1;
}

static void ape_row(struct sheet *to, const struct spec *p, const struct sheet *lat, int i,
                    const struct sheet *mem, int k, const struct sheet *en, int m)
{
    double active = p->active / 1e9, ttft = sheet_get_num(lat, i, "TTFT_ms"),
           rate = sheet_get_num(lat, i, "TPOT_tokps"),
           gb = sheet_get_num(mem, k, "peak_alloc_mb") / 1024,
           per_watt = m < 0 ? NAN : sheet_get_num(en, m, "tokens_per_watt");
    sheet_row(to);
    sheet_text(to, "model_id", p->id);
    sheet_text(to, "model_name", sheet_get(lat, i, "model"));
    sheet_text(to, "architecture", p->architecture);
    sheet_text(to, "organization", p->organization);
    sheet_text(to, "context_length", sheet_get(lat, i, "context_length"));
    sheet_num(to, "total_params_B", p->total / 1e9);
    sheet_num(to, "active_params_B", active);
    sheet_num(to, "ttft_ms", ttft);
    sheet_num(to, "tpot_tokps", rate);
    sheet_num(to, "peak_memory_GB", gb);
    sheet_num(to, "energy_per_1k_joules",
              m < 0 ? NAN : sheet_get_num(en, m, "energy_per_1k_joules"));
    sheet_num(to, "tokens_per_watt", per_watt);
    sheet_num(to, "throughput_per_activeB_tokps_per_B", rate / active);
    sheet_num(to, "inv_ttft_per_activeB_tokps_per_B", 1000 / ttft / active);
    sheet_num(to, "tokens_per_watt_per_activeB", per_watt / active);
    sheet_num(to, "tokens_per_GB_tokps_per_GB", rate / gb);
}

static status read_unified(const char *dir, const char *name, struct sheet *s, struct err *e)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return file_exists(path) ? sheet_read(s, path, e) : OK;
}

static status save_ape(const struct unify_opts *o, struct sheet *s, const struct specs *l,
                       struct err *e)
{
    char path[4096];
    struct buf b;
    buf_init(&b, 64 << 20);
    status st = OK;
    snprintf(path, sizeof path, "%s/ape", o->dir);
    TRY(bench_folder(path, e));
    snprintf(path, sizeof path, "%s/ape/ape_analysis.csv", o->dir);
    TRY(sheet_save(s, path, e));
    buf_puts(&b, "{\"ape_results\": ");
    sheet_json(s, &b);
    buf_puts(&b, ", \"model_specs\": {");
    for (int i = 0; i < l->n; i++) {
        buf_puts(&b, i ? ",\n " : "");
        json_quote(&b, l->v[i].id, strlen(l->v[i].id));
        buf_printf(&b, ": {\"total_params\": %.0f, \"active_params\": %.0f, \"architecture\": ",
                   l->v[i].total, l->v[i].active);
        json_quote(&b, l->v[i].architecture, strlen(l->v[i].architecture));
        buf_puts(&b, ", \"organization\": ");
        json_quote(&b, l->v[i].organization, strlen(l->v[i].organization));
        buf_putc(&b, '}');
    }
    buf_puts(&b, "}}\n");
    TRY(buf_status(&b) < 0 ? err_set(e, E_NOMEM, "out of memory") : OK);
    snprintf(path, sizeof path, "%s/ape/ape_analysis.json", o->dir);
    TRY(file_save(path, b.p, b.n, e));
out:
    buf_fini(&b);
    return st;
}

/* The study takes contexts that are in all three tables; without any energy table at all, those in
 * two, and the cells of energy stay empty. */
status ape_run(const struct unify_opts *o, int *n, struct err *e)
{
    struct sheet lat = {0}, mem = {0}, en = {0}, to = {0};
    struct specs specs;
    status st = OK;
    *n = 0;
    TRY(read_specs(o->specs, &specs, e));
    TRY(read_unified(o->dir, kinds[0].out, &lat, e));
    TRY(read_unified(o->dir, kinds[1].out, &mem, e));
    TRY(read_unified(o->dir, kinds[2].out, &en, e));
    TRY(sheet_init(&to, ape_columns, e));
    if (o->n_eval)
        TRY(sheet_add_columns(&to, "accuracy accuracy_per_activeB", e));
    for (int k = 0; k < specs.n; k++)
        for (int i = 0; i < lat.n_row; i++) {
            const char *id = specs.v[k].id;
            double context = sheet_get_num(&lat, i, "context_length");
            int m = row_of(&mem, id, context), w = row_of(&en, id, context);
            if (strcmp(sheet_get(&lat, i, "model_short"), id) == 0 && m >= 0 &&
                (w >= 0 || en.n_row == 0) && row_of(&lat, id, context) == i) {
                ape_row(&to, &specs.v[k], &lat, i, &mem, m, &en, w);
                TRY(add_accuracy(o, id, specs.v[k].active / 1e9, &to, e));
                TRY(sheet_end_row(&to, e));
            }
        }
    *n = to.n_row;
    TRY(save_ape(o, &to, &specs, e));
out:
    sheet_fini(&lat);
    sheet_fini(&mem);
    sheet_fini(&en);
    sheet_fini(&to);
    return st;
}
