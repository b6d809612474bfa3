/* Electric power and energy of this machine: NVIDIA cards by NVML (opened at run time) or, without
 * it, by nvidia-smi; processors by RAPL's counters under powercap(sysfs).
 *
 * What has no source reads as NAN, never as 0. GPU figures are those of one card, processor
 * figures the sum of all packages. Counters wrap and are unwrapped here, if they are read at least
 * once a round (RAPL's has some 260 kJ). Any thread may read; spans belong to one thread.
 */
#ifndef BASE_POWER_H
#define BASE_POWER_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct power_opts {
    int i_gpu;            /* card, as nvidia-smi counts (not CUDA_VISIBLE_DEVICES); below 0: none */
    const char *nvml;     /* library, NULL: "libnvidia-ml.so.1" */
    const char *powercap; /* folder, NULL: "/sys/class/powercap" */
};

struct power;
/* No source at all is OK: everything then reads NAN. */
MUST_USE status power_open(const struct power_opts *, struct power **, struct err *e);
void power_close(struct power *); /* NULL allowed */
/* "nvml", "nvidia-smi", "rapl", "nvml+rapl" or "none"; and the card's name or "". */
const char *power_source(const struct power *);
const char *power_card(const struct power *);

struct power_now {
    uint64_t t_ns;
    double gpu_w;              /* the card's draw */
    double gpu_j, cpu_j;       /* counters since power_open */
    double gpu_util, mem_util; /* per cent, as NVML defines them */
    double mem_used_b, mem_total_b;
};
void power_read(struct power *, struct power_now *);

/* A span measured two ways: by samples (trapezoid over time) and by the counters. */
struct power_span {
    double s;                         /* its length */
    double gpu_w, gpu_util, mem_util; /* means over time */
    double gpu_sampled_j, gpu_counter_j, cpu_j;
    int n_sample;
};
/* hz 0: only at both ends. One span at a time. */
MUST_USE status power_span_begin(struct power *, double hz, struct err *e);
void power_span_end(struct power *, struct power_span *);

#endif
