/* Prep threads: a bounded queue of exchanges, in order of arrival, and the threads that run their
 * routes. Everything whose cost the client decides happens here, never on the io thread.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "serve/server.h"

enum { MAX_WAITING = 4096, MAX_THREAD = 8 };

struct work {
    struct server *s;
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct exch *ring[MAX_WAITING]; /* [n] from `first` */
    int first, n, n_thread;
    bool stop;
    pthread_t thread[MAX_THREAD];
};

static void *prep(void *arg)
{
    struct work *w = arg;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        while (!w->n && !w->stop)
            pthread_cond_wait(&w->some, &w->lock);
        if (!w->n) {
            pthread_mutex_unlock(&w->lock);
            return NULL;
        }
        struct exch *x = w->ring[w->first];
        w->first = (w->first + 1) % MAX_WAITING;
        w->n--;
        pthread_mutex_unlock(&w->lock);
        metrics_time(&w->s->metrics, HIST_QUEUE, clock_ms_since(x->start_ns) * 1e-3);
        if (http_gone(x))
            http_reply(x, 499, NULL, NULL);
        else
            route_run(w->s, x);
        exch_unref(x);
    }
}

status work_open(struct server *s, int n_thread, struct work **out, struct err *e)
{
    struct work *w = mem_calloc(1, sizeof *w);
    *out = w;
    if (!w)
        return err_set(e, E_NOMEM, "out of memory");
    w->s = s;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->some, NULL);
    for (; w->n_thread < n_thread; w->n_thread++)
        if (pthread_create(&w->thread[w->n_thread], NULL, prep, w) != 0)
            return err_set(e, E_LIMIT, "the system refuses another thread");
    return OK;
}

void work_close(struct work *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->some);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_thread; i++)
        pthread_join(w->thread[i], NULL);
    pthread_cond_destroy(&w->some);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
}

bool work_put(struct work *w, struct exch *x)
{
    pthread_mutex_lock(&w->lock);
    bool room = w->n < MAX_WAITING && !w->stop;
    if (room) {
        exch_ref(x);
        w->ring[(w->first + w->n++) % MAX_WAITING] = x;
        pthread_cond_signal(&w->some);
    }
    pthread_mutex_unlock(&w->lock);
    return room;
}

int work_waiting(struct work *w)
{
    pthread_mutex_lock(&w->lock);
    int n = w->n;
    pthread_mutex_unlock(&w->lock);
    return n;
}
