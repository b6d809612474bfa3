/* Queue and threads of the system under test. */
#include "base/clock.h"
#include "base/mem.h"
#include "mlperf/sut_own.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

status sut_ids_add(struct sut_ids *v, int32_t id)
{
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 256;
        int32_t *p = mem_realloc_array(v->p, cap, sizeof *p);
        if (!p)
            return E_NOMEM;
        v->p = p;
        v->cap = cap;
    }
    v->p[v->n++] = id;
    return OK;
}

static void wake(struct sut *s)
{
    uint64_t one = 1;
    for (int i = 0; i < s->n_thread; i++)
        (void)!write(s->thread[i].wake, &one, sizeof one); /* a full counter wakes as well */
}

void sut_pause(struct sut_thread *t)
{
    struct pollfd fd = {.fd = t->wake, .events = POLLIN};
    uint64_t count;
    (void)poll(&fd, 1, -1);
    (void)!read(t->wake, &count, sizeof count);
}

void sut_refuse_all(struct sut_thread *t, const struct err *why)
{
    struct sut_job job;
    while (!sut_ending(t->s)) {
        sut_pause(t);
        while (sut_take(t->s, &job)) {
            struct sut_answer a = {.id = job.id, .st = why->code, .err = *why};
            a.start_ns = a.end_ns = clock_ns();
            sut_done(t->s, &a);
        }
    }
}

/* Room for n more jobs; the lock is held. */
static bool grow(struct sut *s, size_t n)
{
    if (s->n_job + n <= s->cap)
        return true;
    size_t cap = s->cap ? s->cap : 64;
    while (cap < s->n_job + n)
        cap *= 2;
    struct sut_job *p = mem_array(cap, sizeof *p);
    if (!p)
        return false;
    for (size_t i = 0; i < s->n_job; i++)
        p[i] = s->job[(s->head + i) % s->cap];
    mem_free(s->job);
    s->job = p;
    s->cap = cap;
    s->head = 0;
    return true;
}

status sut_add(struct sut *s, const struct sut_job *job, size_t n)
{
    pthread_mutex_lock(&s->lock);
    bool ok = grow(s, n);
    for (size_t i = 0; ok && i < n; i++)
        s->job[(s->head + s->n_job++) % s->cap] = job[i];
    s->n_open += ok ? n : 0;
    pthread_mutex_unlock(&s->lock);
    wake(s);
    return ok ? OK : E_NOMEM;
}

bool sut_take(struct sut *s, struct sut_job *job)
{
    pthread_mutex_lock(&s->lock);
    bool any = s->n_job > 0;
    if (any) {
        *job = s->job[s->head];
        s->head = (s->head + 1) % s->cap;
        s->n_job--;
    }
    pthread_mutex_unlock(&s->lock);
    return any;
}

void sut_untake(struct sut *s, const struct sut_job *job)
{
    pthread_mutex_lock(&s->lock);
    s->head = (s->head + s->cap - 1) % s->cap; /* the place that taking it left free */
    s->job[s->head] = *job;
    s->n_job++;
    pthread_mutex_unlock(&s->lock);
}

bool sut_ending(struct sut *s)
{
    pthread_mutex_lock(&s->lock);
    bool end = s->closing && s->n_job == 0;
    pthread_mutex_unlock(&s->lock);
    return end;
}

void sut_done(struct sut *s, const struct sut_answer *a)
{
    s->o.done(s->o.ctx, a);
    pthread_mutex_lock(&s->lock);
    if (--s->n_open == 0)
        pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

status sut_open(const struct sut_opts *o, struct sut **out, struct err *e)
{
    struct sut *s = mem_calloc(1, sizeof *s);
    status st = OK;
    *out = NULL;
    if (!s)
        return err_set(e, E_NOMEM, "out of memory");
    s->o = *o;
    if (o->gen.engine || s->o.gen.n_worker < 1)
        s->o.gen.n_worker = 1;
    if (s->o.gen.n_worker > o->gen.n_parallel)
        s->o.gen.n_worker = o->gen.n_parallel;
    s->n_place = (o->gen.n_parallel + s->o.gen.n_worker - 1) / s->o.gen.n_worker;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, NULL);
    s->thread = mem_calloc((size_t)s->o.gen.n_worker, sizeof *s->thread);
    if (!s->thread)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    for (; s->n_thread < s->o.gen.n_worker; s->n_thread++) {
        struct sut_thread *t = &s->thread[s->n_thread];
        t->s = s;
        t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (t->wake < 0)
            TRY(err_set(e, E_IO, "the system has no more descriptors"));
        if (pthread_create(&t->id, NULL, o->gen.engine ? sut_engine_worker : sut_server_worker,
                           t)) {
            close(t->wake);
            TRY(err_set(e, E_NOMEM, "the system has no more threads"));
        }
    }
    *out = s;
out:
    if (st < 0)
        sut_close(s);
    return st;
}

void sut_wait(struct sut *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->n_open)
        pthread_cond_wait(&s->idle, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

void sut_close(struct sut *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_mutex_unlock(&s->lock);
    wake(s);
    for (int i = 0; i < s->n_thread; i++) {
        pthread_join(s->thread[i].id, NULL);
        close(s->thread[i].wake);
    }
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->idle);
    mem_free(s->thread);
    mem_free(s->job);
    mem_free(s);
}
