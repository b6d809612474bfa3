/* What the CPU backend's kernels reach beside the machine's own limits, measured in the same run.
 */
#include "bench/bench.h"
#include "bench/machine.h"

#include <math.h>
#include <string.h>

static const char columns[] = "cpu threads kernel rows ns gb_per_s gflop_per_s of_read of_fma";

status kernels_columns(struct sheet *s, struct err *e)
{
    return sheet_init(s, columns, e);
}

struct kernels {
    struct sheet *s;
    int n_thread;
    double read, fma; /* GB/s, GFLOP/s: the first two that come */
    status st;
    struct err *e;
};

static double some(double v)
{
    return v > 0 ? v : NAN;
}

static void take(void *ctx, const struct gloss_rate *r)
{
    struct kernels *k = ctx;
    double gb = some(r->bytes / r->ns), gflop = some(r->flops / r->ns);
    if (strcmp(r->name, "read") == 0)
        k->read = gb;
    if (strcmp(r->name, "fma_f32") == 0)
        k->fma = gflop;
    if (k->st < 0)
        return;
    sheet_row(k->s);
    sheet_text(k->s, "cpu", gloss_cpu());
    sheet_int(k->s, "threads", k->n_thread);
    sheet_text(k->s, "kernel", r->name);
    sheet_num(k->s, "rows", some(r->rows));
    sheet_num(k->s, "ns", r->ns);
    sheet_num(k->s, "gb_per_s", gb);
    sheet_num(k->s, "gflop_per_s", gflop);
    sheet_num(k->s, "of_read", gb / k->read);
    sheet_num(k->s, "of_fma", gflop / k->fma);
    k->st = sheet_end_row(k->s, k->e);
}

status kernels_run(int n_thread, struct sheet *s, struct err *e)
{
    struct machine m;
    machine_read(&m);
    struct kernels k = {
        .s = s, .n_thread = n_thread ? n_thread : m.n_cpu, .read = NAN, .fma = NAN, .e = e};
    status st = gloss_cpu_rates(n_thread, take, &k, bench_err(e));
    return st < 0 ? st : k.st;
}
