/* What the measurements ran on, as the operating system tells. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stdint.h>

struct machine {
    char cpu[96];          /* name of the processor's model, or "" */
    int n_cpu;             /* processors this process may use */
    uint64_t memory_bytes; /* of the machine, or of its memory cgroup if that is less; 0: unknown */
    char system[160];      /* kernel and distribution */
};
void machine_read(struct machine *);

/* "2025-08-05T12:00:00Z" */
void machine_date(char to[32]);

/* Memory of this process now and at its highest since machine_reset_peak, in bytes; 0: unknown. */
uint64_t machine_resident(void);
uint64_t machine_peak_resident(void);
void machine_reset_peak(void);

#endif
