/* The kernel checker's shared parts: guarded memory, random and special values, comparison.
 *
 * Every array a kernel sees lies in an arena slot whose pages are fenced by unmapped ones; it ends
 * exactly at the fence (or begins there), so a byte read or written too far faults and is named.
 * The rest of a slot is filled with a pattern that must survive.
 */
#ifndef TESTS_KERN_CHECK_H
#define TESTS_KERN_CHECK_H

#include "cpu/kern.h"

#include "base/num.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- kern_check.c: memory, values, complaints ---- */

enum { SLOT_BYTES = 1 << 20, N_SLOT = 12 };

void guard_init(void);
/* Starts a new call: all slots free and patterned. */
void guard_reset(void);
/* n bytes of a slot of their own: at its end (or, one time in four, at its start). */
void *guard_new(size_t n);
/* Are the bytes around all arrays of this call as they were? */
bool guard_intact(void);

uint32_t rnd(uint32_t n); /* uniform in 0 .. n-1 */
void rnd_seed(uint64_t seed);

enum values {
    V_NORMAL,  /* standard normal */
    V_WIDE,    /* normal, magnitudes over eight decades, some zeros of both signs */
    V_SPECIAL, /* also denormals and numbers whose squares overflow */
    N_VALUES
};
float rnd_value(enum values kind);
float *rnd_floats(size_t n, enum values kind);

/* What is being checked, for messages; a failure prints it once and counts. */
void about(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* |got - want| <= tolerance; non-finite want needs a non-finite got (NaN for NaN). */
bool near(float got, float want, double tolerance);

/* ---- check_mul.c, check_row.c, check_q8.c: one entry per kernel ---- */

/* c: the reference; k: the set under test; both complete tables. */
struct kern_case {
    const char *name;
    /* The pointer inside a table, to see whether a set has its own version. */
    void *(*pointer)(const struct cpu_kern *k, int i);
    /* NULL: another shape of a kernel that is checked already, timed alone. */
    void (*check)(const struct cpu_kern *c, const struct cpu_kern *k, int i);
    /* Runs once over a workload of the gpt-oss-20b shape; *bytes and *flops of one run. */
    void (*bench)(const struct cpu_kern *k, int i, double *bytes, double *flops);
    int i; /* which of its family */
};
extern const struct kern_case mul_cases[], row_cases[], q8_cases[];
extern const int n_mul_cases, n_row_cases, n_q8_cases;

/* Memory of the benchmarks, kept until the end: a shared block of at least n bytes, random. */
void *bench_block(size_t n);
enum { BENCH_BYTES = 192 << 20 };

#endif
