/* What the parts of the system under test share. */
#ifndef MLPERF_SUT_OWN_H
#define MLPERF_SUT_OWN_H

#include "mlperf/sut.h"

#include <pthread.h>

/* Ids that grow. */
struct sut_ids {
    int32_t *p; /* [n] */
    size_t n, cap;
};
/* E_NOMEM; the ids so far stay. */
MUST_USE status sut_ids_add(struct sut_ids *, int32_t id);

struct sut {
    struct sut_opts o;
    pthread_mutex_t lock;
    pthread_cond_t idle; /* n_open became 0 */
    struct sut_job *job; /* [cap] ring of jobs not yet taken */
    size_t head, n_job, cap;
    size_t n_open; /* added and not done */
    bool closing;
    struct sut_thread {
        struct sut *s;
        pthread_t id;
        int wake; /* eventfd: jobs were added, or closing */
    } * thread;   /* [n_thread] */
    int n_thread;
    int n_place; /* jobs under way at once of each worker */
};

/* The next job, if there is one. */
bool sut_take(struct sut *, struct sut_job *);
/* Puts a job that could not be started back in front. */
void sut_untake(struct sut *, const struct sut_job *);
bool sut_ending(struct sut *);
/* Reports and counts it. */
void sut_done(struct sut *, const struct sut_answer *);

/* The workers' bodies. */
void *sut_engine_worker(void *thread);
void *sut_server_worker(void *thread);

/* Takes jobs until the end and fails each: a worker that could not be set up. */
void sut_refuse_all(struct sut_thread *, const struct err *why);
/* Waits for jobs to be added, or the end. Returns at once if there was one since the last call. */
void sut_pause(struct sut_thread *);

#endif
