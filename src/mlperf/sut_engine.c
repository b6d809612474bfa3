/* The system under test in this process: one thread that hands prompts to the engine and reads all
 * answers through its descriptor.
 *
 * More requests than the engine runs at once are handed over (AHEAD), so that a place that becomes
 * free is taken in the engine's next step, without waiting for this thread.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "mlperf/sut_own.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { AHEAD = 64, READY_MAX = 256 };

struct flight {
    struct sut_job job;
    gloss_request *r;
    struct sut_ids ids;
    uint64_t start_ns;
    status lost; /* ids could not be kept */
};

struct worker {
    struct sut *s;
    struct flight *flight; /* [n] */
    int *spare;            /* [n_spare] flights not in use */
    int n, n_spare;
};

static void finish(struct worker *w, struct flight *f, status st, const struct err *why)
{
    struct sut_answer a = {.id = f->job.id,
                           .ids = f->ids.p,
                           .n_ids = f->ids.n,
                           .start_ns = f->start_ns,
                           .end_ns = clock_ns(),
                           .st = st};
    if (why)
        a.err = *why;
    gloss_request_free(f->r);
    f->r = NULL;
    sut_done(w->s, &a);
    w->spare[w->n_spare++] = (int)(f - w->flight);
}

/* False when the engine takes no more now. */
static bool start(struct worker *w, const struct sut_job *job)
{
    const struct sut_opts *o = &w->s->o;
    struct flight *f = &w->flight[w->spare[--w->n_spare]];
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_err ge = {0};
    p.max_tokens = o->gen.max_tokens;
    p.temperature = o->gen.temperature;
    p.top_p = o->gen.top_p;
    p.top_k = o->gen.top_k > 0 ? o->gen.top_k : 0;
    p.seed = job->seed;
    p.plain = 1;
    p.no_logprobs = 1;
    p.user = f;
    f->job = *job;
    f->ids.n = 0;
    f->lost = OK;
    f->start_ns = clock_ns();
    gloss_status st = gloss_submit(o->gen.engine, job->ids, job->n_ids, &p, &f->r, &ge);
    if (st == GLOSS_OK)
        return true;
    f->r = NULL;
    if (st == GLOSS_E_BUSY) {
        w->n_spare++;
        return false;
    }
    struct err why = {.code = st};
    err_set(&why, st, "%.250s", ge.msg);
    finish(w, f, st, &why);
    return true;
}

static void read_all(struct worker *w, struct flight *f)
{
    const struct sut_opts *o = &w->s->o;
    struct gloss_event ev;
    while (f->r && gloss_next(f->r, &ev, 0) == GLOSS_OK) {
        if (ev.kind == GLOSS_EV_TOKEN) {
            if (o->stream && f->ids.n == 0)
                o->first(o->ctx, f->job.id, ev.token);
            status st = sut_ids_add(&f->ids, ev.token);
            f->lost = f->lost < 0 ? f->lost : st;
        } else if (ev.kind == GLOSS_EV_FINISH) {
            struct err why = {0};
            status st = f->lost;
            if (ev.finish == GLOSS_FINISH_ERROR)
                st = err_set(&why, ev.err.code, "%.250s", ev.err.msg);
            else if (st < 0)
                err_set(&why, st, "out of memory");
            finish(w, f, st, &why);
        }
    }
}

static void run(struct worker *w, int wake)
{
    struct sut *s = w->s;
    gloss_request *ready[READY_MAX];
    struct pollfd fd[2] = {{.fd = gloss_engine_fd(s->o.gen.engine), .events = POLLIN},
                           {.fd = wake, .events = POLLIN}};
    struct sut_job job;
    while (w->n_spare < w->n || !sut_ending(s)) {
        while (w->n_spare > 0 && sut_take(s, &job))
            if (!start(w, &job)) {
                sut_untake(s, &job);
                break;
            }
        (void)poll(fd, 2, -1);
        uint64_t count;
        if (fd[1].revents)
            (void)!read(wake, &count, sizeof count);
        for (int n = READY_MAX; n == READY_MAX;) {
            n = gloss_engine_ready(s->o.gen.engine, ready, READY_MAX);
            for (int i = 0; i < n; i++)
                read_all(w, gloss_request_user(ready[i]));
        }
    }
}

void *sut_engine_worker(void *ctx)
{
    struct sut_thread *t = ctx;
    struct worker w = {.s = t->s, .n = t->s->n_place + AHEAD};
    struct err why = {0};
    w.flight = mem_calloc((size_t)w.n, sizeof *w.flight);
    w.spare = mem_array((size_t)w.n, sizeof *w.spare);
    if (!w.flight || !w.spare) {
        err_set(&why, E_NOMEM, "out of memory");
        sut_refuse_all(t, &why);
    } else {
        for (int i = w.n; i > 0; i--)
            w.spare[w.n_spare++] = i - 1;
        run(&w, t->wake);
        for (int i = 0; i < w.n; i++)
            mem_free(w.flight[i].ids.p);
    }
    mem_free(w.flight);
    mem_free(w.spare);
    return NULL;
}
