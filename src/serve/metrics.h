/* Counters and histograms in Prometheus' text form, under "gloss:" (docs/server.md lists them). */
#ifndef SERVE_METRICS_H
#define SERVE_METRICS_H

#include "base/buf.h"
#include "gloss.h"

#include <pthread.h>
#include <stdint.h>

struct server;

enum { HIST_TTFT, HIST_ITL, HIST_E2E, HIST_QUEUE, HIST_PREFILL, HIST_DECODE, N_HIST };
enum { DONE_STOP, DONE_LENGTH, DONE_CALLS, DONE_ERROR, DONE_ABORT, N_DONE };
enum { START_LISTEN, START_MODEL, START_ENGINE, START_ALL, N_START };
enum { HIST_BUCKETS = 20 };

struct hist {
    uint64_t n[HIST_BUCKETS + 1]; /* by bucket, the last one open */
    uint64_t count;
    double sum;
};

struct metrics {
    pthread_mutex_t lock;
    struct hist hist[N_HIST];
    uint64_t done[N_DONE];
    uint64_t prompt_tok, generated_tok, reasoning_tok;
    uint64_t cache_queries, cache_hits; /* prompt tokens looked up and found */
    uint64_t http[6];                   /* answers by hundreds */
    uint64_t repair[GLOSS_N_REPAIR];    /* of malformed harmony, by kind */
    double start_s[N_START];            /* stages of the start */
};

void metrics_init(struct metrics *);
void metrics_fini(struct metrics *);
void metrics_time(struct metrics *, int hist, double seconds);
void metrics_times(struct metrics *, int hist, double seconds, uint64_t n); /* n equal ones */
void metrics_http(struct metrics *, int code);
void metrics_put(struct server *, struct buf *);

#endif
