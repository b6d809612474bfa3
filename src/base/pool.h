/* A fixed team of threads that run one function together, with barriers between its phases.
 *
 * The caller is worker 0; the others are pinned, one processor each, when there are enough
 * processors. Waiting spins for a moment (a phase of a small model lasts microseconds), then
 * sleeps: an idle pool costs nothing. When workers outnumber processors nobody spins.
 *
 * Nothing here depends on timing: who does what follows from (worker, number of workers) alone, so
 * results that give each output to one worker are the same for every size of the team.
 *
 * One pool is used by one thread at a time. Callers: src/cpu.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/err.h"

enum { POOL_MAX_THREAD = 1024 };

struct pool;

/* Processors that this process may use (its affinity mask), at least 1. */
int pool_processors(void);

/* n_thread = 0 means pool_processors(). E_INPUT out of range, E_NOMEM, E_LIMIT when the system
 * refuses a thread. */
MUST_USE status pool_new(int n_thread, struct pool **p, struct err *e);
void pool_free(struct pool *p); /* NULL allowed; not from inside pool_run */

int pool_size(const struct pool *p);

/* Runs fn(arg, i) for i = 0 .. size-1 at once, i = 0 on the caller; returns when all returned. */
void pool_run(struct pool *p, void (*fn)(void *arg, int i), void *arg);

/* Inside fn: waits until every worker has called it. What they wrote before is seen after. */
void pool_sync(struct pool *p);

/* Part i of n of 0 .. total-1, cut at multiples of `unit`: [*lo, *hi), possibly empty. */
static inline void pool_split(int total, int unit, int i, int n, int *lo, int *hi)
{
    long long n_unit = (total + unit - 1) / unit;
    long long a = n_unit * i / n * unit, b = n_unit * (i + 1) / n * unit;
    *lo = (int)(a < total ? a : total);
    *hi = (int)(b < total ? b : total);
}

#endif
