#include "engine/ahead.h"

#include "base/mem.h"
#include "base/num.h"
#include "engine/request.h"

#include <string.h>

enum { GRAB = 4 }; /* a mask that is known takes little more than the lock: several at once */

/* Takes some of the jobs and does them; with a->lock held, and given up meanwhile. */
static void do_some(struct ahead *a)
{
    int from = a->next, to = min_int(a->n, from + GRAB);
    a->next = to;
    pthread_mutex_unlock(&a->lock);
    for (int i = from; i < to; i++) {
        struct seq *s = a->job[i];
        int32_t unused;
        turn_mask(s->turn, s->mask_bits, &unused);
        s->mask_ready = true;
    }
    pthread_mutex_lock(&a->lock);
}

static void *ahead_main(void *arg)
{
    struct ahead *a = arg;
    pthread_mutex_lock(&a->lock);
    while (!a->quit) {
        if (a->next == a->n) {
            pthread_cond_wait(&a->wake, &a->lock);
            continue;
        }
        a->busy = true;
        do_some(a);
        a->busy = false;
        if (a->next == a->n)
            pthread_cond_signal(&a->idle);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

status ahead_open(struct ahead *a, int max_seq, struct err *e)
{
    *a = (struct ahead){0};
    a->job = mem_array((size_t)max_seq, sizeof(struct seq *));
    if (!a->job)
        return E_NOMEM;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->wake, NULL);
    pthread_cond_init(&a->idle, NULL);
    int rc = pthread_create(&a->thread, NULL, ahead_main, a);
    a->started = rc == 0;
    return rc == 0 ? OK
                   : err_set(e, E_LIMIT, "cannot start the thread for masks: %s", strerror(rc));
}

void ahead_close(struct ahead *a)
{
    if (!a->job)
        return;
    if (a->started) {
        pthread_mutex_lock(&a->lock);
        a->quit = true;
        pthread_cond_signal(&a->wake);
        pthread_mutex_unlock(&a->lock);
        pthread_join(a->thread, NULL);
    }
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->wake);
    pthread_cond_destroy(&a->idle);
    mem_free(a->job);
}

void ahead_begin(struct ahead *a, int n)
{
    if (n == 0)
        return;
    pthread_mutex_lock(&a->lock);
    a->n = n;
    a->next = 0;
    pthread_cond_signal(&a->wake);
    pthread_mutex_unlock(&a->lock);
}

void ahead_finish(struct ahead *a)
{
    pthread_mutex_lock(&a->lock);
    while (a->next < a->n)
        do_some(a);
    while (a->busy)
        pthread_cond_wait(&a->idle, &a->lock);
    a->n = a->next = 0;
    pthread_mutex_unlock(&a->lock);
}
