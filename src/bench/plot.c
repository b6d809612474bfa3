/* Figures by gnuplot: each is a script with its data inside, run twice, for SVG and PNG.
 *
 * gnuplot is started without a shell and reads the script from standard input. Where it is not
 * installed there are no figures, and everything else works.
 */
#include "base/file.h"
#include "bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_LINE = 24, SCRIPT_MAX = 8 << 20 };

struct figure {
    const char *name, *title, *x_label, *y_label;
    const char *x, *y;  /* columns */
    const char *key[3]; /* columns that make a line; up to NULL */
    const char *key_unit[3];
    bool first; /* of several rows with one x only the first counts */
    bool log_x;
};

/* ---- gnuplot ---- */

/* Runs it on the script file. OK with *ran false when it is not installed. */
static status run_gnuplot(const char *script, bool *ran, struct err *e)
{
    char name[] = "gnuplot";
    char *argv[] = {name, NULL};
    posix_spawn_file_actions_t act;
    pid_t child;
    int rc, fault = posix_spawn_file_actions_init(&act);
    *ran = false;
    if (fault == 0) {
        posix_spawn_file_actions_addopen(&act, STDIN_FILENO, script, O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&act, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        posix_spawn_file_actions_addopen(&act, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
        fault = posix_spawnp(&child, name, &act, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&act);
    }
    if (fault == ENOENT)
        return OK;
    if (fault)
        return err_set(e, E_IO, "cannot start gnuplot: %s", strerror(fault));
    *ran = true;
    while (waitpid(child, &rc, 0) < 0)
        if (errno != EINTR)
            return err_set(e, E_IO, "gnuplot: %s", strerror(errno));
    if (!WIFEXITED(rc) || WEXITSTATUS(rc) != 0)
        return err_set(e, E_IO, "gnuplot refused %.160s (kept to look at)", script);
    unlink(script);
    return OK;
}

static void put_terminal(struct buf *b, const char *dir, const char *name, bool png)
{
    if (png)
        buf_printf(b, "set terminal png size 900,520 font ',11'\nset output \"%s/%s.png\"\n", dir,
                   name);
    else
        buf_printf(b,
                   "set terminal svg size 720,420 font 'sans-serif,12' background 'white'\n"
                   "set output \"%s/%s.svg\"\n",
                   dir, name);
}

/* The script's body once for each terminal. */
static status draw(const char *dir, const char *name, const struct buf *body, int *n, struct err *e)
{
    char path[4096];
    struct buf b;
    bool ran;
    buf_init(&b, SCRIPT_MAX);
    status st = OK;
    snprintf(path, sizeof path, "%s/%s.gp", dir, name);
    for (int png = 0; png < 2; png++) {
        put_terminal(&b, dir, name, png);
        buf_put(&b, body->p, body->n);
        buf_puts(&b, "unset output\n");
    }
    TRY(buf_status(&b) < 0 || buf_status(body) < 0 ? err_set(e, E_NOMEM, "out of memory") : OK);
    TRY(file_save(path, b.p, b.n, e));
    TRY(run_gnuplot(path, &ran, e));
    if (!ran)
        unlink(path);
    *n += ran;
out:
    buf_fini(&b);
    return st;
}

/* ---- lines ---- */

/* Text inside gnuplot's double quotes, where nothing must be taken for markup. */
static void put_label(struct buf *b, const char *s)
{
    for (; *s; s++)
        if (*s == '"' || *s == '\\' || (unsigned char)*s < ' ')
            buf_putc(b, '_');
        else
            buf_putc(b, *s);
}

static bool same_line(const struct figure *f, const struct sheet *s, int a, int b)
{
    for (int i = 0; i < 3 && f->key[i]; i++)
        if (strcmp(sheet_get(s, a, f->key[i]), sheet_get(s, b, f->key[i])) != 0)
            return false;
    return true;
}

/* Whether an earlier row of the same line has the same x. */
static bool repeated(const struct figure *f, const struct sheet *s, int row)
{
    for (int i = 0; i < row; i++)
        if (same_line(f, s, i, row) && sheet_get_num(s, i, f->x) == sheet_get_num(s, row, f->x))
            return true;
    return false;
}

static bool has_point(const struct figure *f, const struct sheet *s, int row)
{
    return !isnan(sheet_get_num(s, row, f->x)) && !isnan(sheet_get_num(s, row, f->y)) &&
           !(f->first && repeated(f, s, row));
}

/* Data blocks $d0, $d1, ... and their first rows; the number of them. */
static int put_lines(const struct figure *f, const struct sheet *s, struct buf *b,
                     int first[MAX_LINE])
{
    int n = 0;
    for (int i = 0; i < s->n_row && n < MAX_LINE; i++) {
        bool known = !has_point(f, s, i);
        for (int k = 0; k < n && !known; k++)
            known = same_line(f, s, first[k], i);
        if (known)
            continue;
        buf_printf(b, "$d%d << END\n", n);
        for (int k = i; k < s->n_row; k++)
            if (same_line(f, s, i, k) && has_point(f, s, k))
                buf_printf(b, "%s %s\n", sheet_get(s, k, f->x), sheet_get(s, k, f->y));
        buf_puts(b, "END\n");
        first[n++] = i;
    }
    return n;
}

static void put_style(struct buf *b, const char *title, const char *x, const char *y)
{
    static const char *const color[] = {"#1b6ca8", "#d1495b", "#2e8b57", "#b8860b",
                                        "#6a4c93", "#3a3a3a", "#00829b", "#a0522d"};
    buf_printf(b,
               "reset\nset title \"%s\" noenhanced\nset xlabel \"%s\" noenhanced\n"
               "set ylabel \"%s\" noenhanced\nset grid lc rgb '#dddddd'\nset border 3\n"
               "set tics nomirror out\nset key outside right top noenhanced\nset yrange [0:*]\n",
               title, x, y);
    for (int i = 0; i < 24; i++)
        buf_printf(b, "set style line %d lc rgb '%s' lw 2 pt %d ps 0.8 dt %d\n", i + 1,
                   color[i % 8], 4 + i % 8, 1 + i / 8);
}

static status line_figure(const char *figs, const struct figure *f, const struct sheet *s, int *n,
                          struct err *e)
{
    struct buf data, b;
    int first[MAX_LINE];
    buf_init(&data, SCRIPT_MAX);
    buf_init(&b, SCRIPT_MAX);
    status st = OK;
    int n_line = put_lines(f, s, &data, first);
    if (n_line > 0) {
        put_style(&b, f->title, f->x_label, f->y_label);
        if (f->log_x)
            buf_puts(&b, "set logscale x 2\n");
        buf_put(&b, data.p, data.n);
        for (int i = 0; i < n_line; i++) {
            buf_printf(&b, "%s $d%d using 1:2 with linespoints ls %d title \"",
                       i ? ", \\\n    " : "plot", i, i + 1);
            for (int k = 0; k < 3 && f->key[k]; k++) {
                buf_puts(&b, k ? ", " : "");
                put_label(&b, sheet_get(s, first[i], f->key[k]));
                buf_puts(&b, f->key_unit[k] ? f->key_unit[k] : "");
            }
            buf_puts(&b, "\"");
        }
        buf_putc(&b, '\n');
        st = draw(figs, f->name, &b, n, e);
    }
    buf_fini(&data);
    buf_fini(&b);
    return st;
}

/* Bars of the efficiency of each model at its longest context. */
static status ape_figure(const char *figs, const struct sheet *s, int *n, struct err *e)
{
    struct buf b;
    int n_bar = 0;
    buf_init(&b, SCRIPT_MAX);
    put_style(&b, "Active-parameter efficiency at the longest context", "",
              "tokens/s for each 10^9 active parameters");
    buf_puts(&b, "set style fill solid 0.8\nset boxwidth 0.6\nunset key\n$d << END\n");
    for (int i = 0; i < s->n_row; i++) {
        bool longest = true;
        for (int k = 0; k < s->n_row; k++)
            longest =
                longest &&
                !(strcmp(sheet_get(s, k, "model_id"), sheet_get(s, i, "model_id")) == 0 &&
                  sheet_get_num(s, k, "context_length") > sheet_get_num(s, i, "context_length"));
        if (!longest)
            continue;
        buf_puts(&b, "\"");
        put_label(&b, sheet_get(s, i, "model_id"));
        buf_printf(&b, "\" %s\n", sheet_get(s, i, "throughput_per_activeB_tokps_per_B"));
        n_bar++;
    }
    buf_puts(&b, "END\nplot $d using 0:2:xtic(1) with boxes ls 1\n");
    status st = n_bar ? draw(figs, "ape_throughput", &b, n, e) : OK;
    buf_fini(&b);
    return st;
}

/* ---- all figures ---- */

static const char context_label[] = "context (tokens)";

static const struct figure latency[] = {
    {"latency_ttft", "Time to the first token", context_label, "ms", "context_length", "TTFT_ms",
     .key = {"model_short"}, .first = true},
    {"latency_p50", "Whole request, median", context_label, "ms", "context_length", "p50_ms",
     .key = {"model_short", "gen_tokens"}, .key_unit = {NULL, " out"}},
    {"latency_tpot", "Tokens per second, prompt included", context_label, "tokens/s",
     "context_length", "TPOT_tokps", .key = {"model_short", "gen_tokens"},
     .key_unit = {NULL, " out"}},
};
static const struct figure memory[] = {
    {"memory_peak", "Peak memory", context_label, "MB", "context_length", "peak_alloc_mb",
     .key = {"model_short"}},
    {"memory_kv", "Memory of the key-value cache", context_label, "MB", "context_length",
     "kv_cache_alloc_mb", .key = {"model_short"}},
};
static const struct figure energy[] = {
    {"energy_power", "Mean power of the card", context_label, "W", "context_length",
     "avg_gpu_power_watts", .key = {"model_short"}},
    {"energy_per_1k", "Energy for 1000 tokens", context_label, "J", "context_length",
     "energy_per_1k_joules", .key = {"model_short"}},
};
static const struct figure serving[] = {
    {"serving_throughput",
     "Throughput under load",
     "requests at once",
     "tokens/s out",
     "concurrency",
     "output_tokens_per_s",
     {"prompt_tokens", "gen_tokens"},
     {" in", " out"},
     .log_x = true},
    {"serving_ttft",
     "Time to the first token under load, median",
     "requests at once",
     "ms",
     "concurrency",
     "ttft_p50_ms",
     {"prompt_tokens", "gen_tokens"},
     {" in", " out"},
     .log_x = true},
    {"serving_itl",
     "Time between tokens under load, 99th percentile",
     "requests at once",
     "ms",
     "concurrency",
     "itl_p99_ms",
     {"prompt_tokens", "gen_tokens"},
     {" in", " out"},
     .log_x = true},
};

static status table_figures(const char *table, const char *figs, const struct figure *f, int n_f,
                            int *n, struct err *e)
{
    struct sheet s = {0};
    status st = OK;
    if (!file_exists(table))
        return OK;
    TRY(sheet_read(&s, table, e));
    for (int i = 0; i < n_f; i++)
        TRY(line_figure(figs, &f[i], &s, n, e));
out:
    sheet_fini(&s);
    return st;
}

/* The serving table of each model has figures of its own. */
static status serving_figures(const char *dir, const char *figs, int *n, struct err *e)
{
    char folder[3072];
    status st = OK;
    snprintf(folder, sizeof folder, "%s/new_results/latency", dir);
    DIR *d = opendir(folder);
    for (struct dirent *ent; st == OK && d && (ent = readdir(d));) {
        size_t len = strlen(ent->d_name);
        if (strncmp(ent->d_name, "serving_", 8) != 0 || len < 13 ||
            strcmp(ent->d_name + len - 4, ".csv") != 0)
            continue;
        char path[4096], name[3][320];
        struct figure f[3];
        snprintf(path, sizeof path, "%s/%s", folder, ent->d_name);
        for (int i = 0; i < 3; i++) {
            f[i] = serving[i];
            snprintf(name[i], sizeof name[i], "%s_%.*s", serving[i].name, (int)(len - 12),
                     ent->d_name + 8);
            f[i].name = name[i];
        }
        st = table_figures(path, figs, f, 3, n, e);
    }
    if (d)
        closedir(d);
    return st;
}

status plot_run(const char *dir, int *n, struct err *e)
{
    char figs[3072], table[4096];
    struct sheet ape = {0};
    status st = OK;
    *n = 0;
    snprintf(figs, sizeof figs, "%s/figs", dir);
    TRY(bench_folder(figs, e));
    snprintf(table, sizeof table, "%s/new_results/unified_latency_comparison.csv", dir);
    TRY(table_figures(table, figs, latency, 3, n, e));
    snprintf(table, sizeof table, "%s/new_results/unified_memory_comparison_fixed.csv", dir);
    TRY(table_figures(table, figs, memory, 2, n, e));
    snprintf(table, sizeof table, "%s/new_results/unified_energy_comparison_fixed.csv", dir);
    TRY(table_figures(table, figs, energy, 2, n, e));
    TRY(serving_figures(dir, figs, n, e));
    snprintf(table, sizeof table, "%s/new_results/ape/ape_analysis.csv", dir);
    if (file_exists(table)) {
        TRY(sheet_read(&ape, table, e));
        TRY(ape_figure(figs, &ape, n, e));
    }
out:
    sheet_fini(&ape);
    return st;
}
