/* The meter's thread reads the counters; the rest is bookkeeping under one lock. See meter.h.
 *
 * Between two readings power counts as constant: a generation that ends there is charged with the
 * power of the reading before. `share` is the integral of power / generations up to `t_ns`, so a
 * generation's energy is the difference of two of its values; `part` are the seconds since the last
 * reading that belong to each phase.
 */
#include "serve/meter.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/power.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

enum { TICK_MS = 20, IDLE_TICK_MS = 1000 };

const char *const meter_phase_name[N_METER] = {"prefill", "decode", "idle"};

struct meter {
    struct power *power;
    pthread_t thread;
    bool has_thread, stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int n_prefill, n_decode;
    double watt;          /* between the last two readings */
    double share;         /* J per running generation, up to t_ns */
    uint64_t t_ns;        /* of the last event */
    double read_j;        /* the counters at the last reading ... */
    uint64_t read_ns;     /* ... and when that was */
    double share_s;       /* integral of 1 / generations since then */
    double share_at;      /* `share` at that time */
    double part[N_METER]; /* s */
    double total[N_METER];
};

/* Up to now, at the power known. With the lock held. */
static void advance(struct meter *m, uint64_t now)
{
    double s = now > m->t_ns ? (double)(now - m->t_ns) * 1e-9 : 0;
    int n = m->n_prefill + m->n_decode;
    m->t_ns = now;
    if (n == 0) {
        m->part[METER_IDLE] += s;
        return;
    }
    m->share_s += s / n;
    m->share += m->watt * s / n;
    m->part[METER_PREFILL] += s * m->n_prefill / n;
    m->part[METER_DECODE] += s * m->n_decode / n;
}

/* A reading replaces the estimate since the one before. With the lock held. */
static void take_reading(struct meter *m, double joules, uint64_t now)
{
    advance(m, now);
    double s = (double)(now - m->read_ns) * 1e-9, j = joules - m->read_j;
    if (!(j >= 0) || s <= 0)
        return;
    m->watt = j / s;
    m->share = m->share_at + m->watt * m->share_s;
    for (int i = 0; i < N_METER; i++) {
        m->total[i] += m->watt * m->part[i];
        m->part[i] = 0;
    }
    m->share_at = m->share;
    m->share_s = 0;
    m->read_j = joules;
    m->read_ns = now;
}

/* The counters' sum; NAN when none can be read. */
static double read_joules(struct power *p)
{
    struct power_now now;
    power_read(p, &now);
    return isnan(now.gpu_j) ? now.cpu_j : isnan(now.cpu_j) ? now.gpu_j : now.gpu_j + now.cpu_j;
}

static void *meter_main(void *arg)
{
    struct meter *m = arg;
    pthread_mutex_lock(&m->lock);
    while (!m->stop) {
        bool busy = m->n_prefill + m->n_decode > 0;
        uint64_t until = clock_ns() + (uint64_t)(busy ? TICK_MS : IDLE_TICK_MS) * 1000000;
        struct timespec t = {.tv_sec = (time_t)(until / 1000000000),
                             .tv_nsec = (long)(until % 1000000000)};
        /* The first generation after idle time wakes it: then its ticks are the short ones. */
        pthread_cond_timedwait(&m->wake, &m->lock, &t);
        pthread_mutex_unlock(&m->lock);
        double j = read_joules(m->power);
        pthread_mutex_lock(&m->lock);
        take_reading(m, j, clock_ns());
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

status meter_open(int i_gpu, const char *powercap, struct meter **out, struct err *e)
{
    *out = NULL;
    struct meter *m = mem_calloc(1, sizeof *m);
    if (!m)
        return err_set(e, E_NOMEM, "out of memory");
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wake, &a);
    pthread_condattr_destroy(&a);
    status st = OK;
    TRY(power_open(&(struct power_opts){.i_gpu = i_gpu, .powercap = powercap}, &m->power, e));
    m->read_j = read_joules(m->power);
    m->t_ns = m->read_ns = clock_ns();
    if (strcmp(power_source(m->power), "none") == 0 || isnan(m->read_j)) {
        meter_close(m);
        return OK;
    }
    if (pthread_create(&m->thread, NULL, meter_main, m) != 0)
        TRY(err_set(e, E_LIMIT, "the system refuses another thread"));
    m->has_thread = true;
    *out = m;
    return OK;
out:
    meter_close(m);
    return st;
}

void meter_close(struct meter *m)
{
    if (!m)
        return;
    if (m->has_thread) {
        pthread_mutex_lock(&m->lock);
        m->stop = true;
        pthread_cond_signal(&m->wake);
        pthread_mutex_unlock(&m->lock);
        pthread_join(m->thread, NULL);
    }
    power_close(m->power);
    pthread_cond_destroy(&m->wake);
    pthread_mutex_destroy(&m->lock);
    mem_free(m);
}

const char *meter_source(const struct meter *m)
{
    return m ? power_source(m->power) : "none";
}

void meter_begin(struct meter *m, struct meter_mark *k)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    advance(m, clock_ns());
    k->running = true;
    k->at[0] = m->share;
    if (m->n_prefill++ + m->n_decode == 0)
        pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
}

void meter_first(struct meter *m, struct meter_mark *k)
{
    if (!k->running || k->decoding)
        return;
    pthread_mutex_lock(&m->lock);
    advance(m, clock_ns());
    k->decoding = true;
    k->at[1] = m->share;
    m->n_prefill--;
    m->n_decode++;
    pthread_mutex_unlock(&m->lock);
}

void meter_end(struct meter *m, struct meter_mark *k)
{
    if (!k->running)
        return;
    pthread_mutex_lock(&m->lock);
    advance(m, clock_ns());
    k->running = false;
    k->at[2] = m->share;
    if (!k->decoding)
        k->at[1] = m->share;
    *(k->decoding ? &m->n_decode : &m->n_prefill) -= 1;
    pthread_mutex_unlock(&m->lock);
}

bool meter_joules(const struct meter *m, const struct meter_mark *k, double *prefill,
                  double *decode)
{
    *prefill = fmax(0, k->at[1] - k->at[0]);
    *decode = fmax(0, k->at[2] - k->at[1]);
    return m && *prefill + *decode > 0;
}

void meter_totals(struct meter *m, double joules[N_METER])
{
    pthread_mutex_lock(&m->lock);
    memcpy(joules, m->total, sizeof m->total);
    pthread_mutex_unlock(&m->lock);
}
