/* Masks ahead of time: what a grammar allows next is known before the model's step that it will be
 * applied to, so a thread of its own computes those masks while the backend computes logits.
 *
 * The engine's thread puts sequences, begins, steps, and finishes: then it computes itself what the
 * other thread has not come to, so that a busy machine costs no more than without the thread.
 * Between begin and finish turn and mask of those sequences belong to whoever computes them.
 */
#ifndef ENGINE_AHEAD_H
#define ENGINE_AHEAD_H

#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>

struct seq;

struct ahead {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    struct seq **job; /* [max] */
    int n, next;      /* jobs, and how many of them were taken */
    bool busy, quit;
};

MUST_USE status ahead_open(struct ahead *a, int max_seq, struct err *e);
void ahead_close(struct ahead *a); /* zeroed allowed */
/* job[0..n) was filled in. */
void ahead_begin(struct ahead *a, int n);
void ahead_finish(struct ahead *a);

#endif
