/* One barrier does everything. Idle workers wait in it for a run to begin; the caller's arrival
 * completes it, everybody runs, and a second passage ends the run. Arrivals are counted; the last
 * one resets the count and advances `phase`, on which the others spin and then sleep (futex).
 */
#include "base/pool.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/relax.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long a waiter spins before it sleeps: at most longer than the gap between two decode steps of
 * a small model. Where others want the processors, a waiter that spins steals from the worker it
 * waits for, so every spin in vain halves the time and every successful one doubles it (measured
 * with three other busy processes on two processors: twice the tokens/s, a third of the time). */
enum { SPIN_MAX_NS = 50000, SPIN_MIN_NS = 1000, SPIN_BURST = 32 };

struct worker {
    pthread_t id;
    struct pool *pool;
    int i;
};

struct pool {
    _Alignas(64) atomic_uint phase;
    atomic_int n_asleep;
    _Alignas(64) atomic_int n_arrived;
    _Alignas(64) atomic_int n; /* workers, the caller included */
    atomic_bool stop;
    bool spin; /* never when workers outnumber processors */
    atomic_int spin_ns;
    void (*fn)(void *arg, int i);
    void *arg;
    int n_worker; /* started threads, n - 1 */
    struct worker *worker;
};

static int affinity(cpu_set_t *set)
{
    CPU_ZERO(set);
    if (sched_getaffinity(0, sizeof *set, set) != 0)
        return 0;
    return CPU_COUNT(set);
}

int pool_processors(void)
{
    cpu_set_t set;
    int n = affinity(&set);
    return n < 1 ? 1 : n > POOL_MAX_THREAD ? POOL_MAX_THREAD : n;
}

int pool_size(const struct pool *p)
{
    return p->n_worker + 1;
}

void pool_sync(struct pool *p)
{
    unsigned seen = atomic_load_explicit(&p->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&p->n_arrived, 1, memory_order_acq_rel) + 1 ==
        atomic_load_explicit(&p->n, memory_order_relaxed)) {
        atomic_store_explicit(&p->n_arrived, 0, memory_order_relaxed);
        /* Both sides sequentially consistent: either a sleeper is counted here, or it sees the new
         * phase before it sleeps (the kernel compares once more). */
        atomic_store(&p->phase, seen + 1);
        if (atomic_load(&p->n_asleep) > 0)
            syscall(SYS_futex, &p->phase, FUTEX_WAKE_PRIVATE, POOL_MAX_THREAD, NULL, NULL, 0);
        return;
    }
    if (p->spin) {
        uint64_t start = clock_ns();
        int most = atomic_load_explicit(&p->spin_ns, memory_order_relaxed);
        do {
            for (int i = 0; i < SPIN_BURST; i++) {
                if (atomic_load_explicit(&p->phase, memory_order_acquire) != seen) {
                    if (most < SPIN_MAX_NS)
                        atomic_store_explicit(&p->spin_ns, min_int(2 * most, SPIN_MAX_NS),
                                              memory_order_relaxed);
                    return;
                }
                relax();
            }
        } while (clock_ns() - start < (uint64_t)most);
        atomic_store_explicit(&p->spin_ns, max_int(most / 2, SPIN_MIN_NS), memory_order_relaxed);
    }
    atomic_fetch_add(&p->n_asleep, 1);
    while (atomic_load(&p->phase) == seen)
        syscall(SYS_futex, &p->phase, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&p->n_asleep, 1);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (;;) {
        pool_sync(p);
        if (atomic_load_explicit(&p->stop, memory_order_relaxed))
            return NULL;
        p->fn(p->arg, w->i);
        pool_sync(p);
    }
}

void pool_run(struct pool *p, void (*fn)(void *arg, int i), void *arg)
{
    p->fn = fn;
    p->arg = arg;
    pool_sync(p);
    fn(arg, 0);
    pool_sync(p);
}

/* A failure to pin is harmless: the worker then runs where the system puts it. */
static void pin(pthread_t id, const cpu_set_t *set, int i)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, set) || i-- > 0)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(id, sizeof one, &one);
        return;
    }
}

status pool_new(int n_thread, struct pool **out, struct err *e)
{
    *out = NULL;
    if (n_thread < 0 || n_thread > POOL_MAX_THREAD)
        return err_param(e, E_INPUT, "threads", "%d threads: must be 0 (all processors) to %d",
                         n_thread, POOL_MAX_THREAD);
    cpu_set_t set;
    int n_cpu = affinity(&set);
    int n = n_thread ? n_thread : pool_processors();
    struct pool *p = mem_aligned(64, sizeof *p);
    if (!p)
        return err_set(e, E_NOMEM, "out of memory for the threads");
    memset(p, 0, sizeof *p);
    p->worker = mem_calloc((size_t)n, sizeof *p->worker);
    if (!p->worker) {
        mem_free(p);
        return err_set(e, E_NOMEM, "out of memory for the threads");
    }
    atomic_init(&p->n, n);
    p->spin = n <= n_cpu;
    atomic_init(&p->spin_ns, SPIN_MAX_NS);
    for (int i = 1; i < n; i++) {
        struct worker *w = &p->worker[i - 1];
        *w = (struct worker){.pool = p, .i = i};
        int rc = pthread_create(&w->id, NULL, worker_main, w);
        if (rc != 0) {
            pool_free(p);
            return err_set(e, E_LIMIT, "cannot start thread %d of %d: %s", i + 1, n, strerror(rc));
        }
        p->n_worker = i;
        if (p->spin)
            pin(w->id, &set, i);
    }
    *out = p;
    return OK;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    /* After a failed start the team is smaller than planned: those who came wait for us alone. */
    atomic_store(&p->stop, true);
    atomic_store(&p->n, p->n_worker + 1);
    pool_sync(p);
    for (int i = 0; i < p->n_worker; i++)
        pthread_join(p->worker[i].id, NULL);
    mem_free(p->worker);
    mem_free(p);
}
