/* Energy per request: the machine's power, read many times a second, is divided equally among the
 * generations that run. What has no source is absent, never zero.
 *
 *     joules of one generation = integral of power / number of generations running, over its life
 *
 * so the generations' figures and the idle time's add up to the counters', as far as two readings
 * lie apart. Any thread.
 */
#ifndef SERVE_METER_H
#define SERVE_METER_H

#include "base/err.h"

#include <stdbool.h>

enum meter_phase { METER_PREFILL, METER_DECODE, METER_IDLE, N_METER };
extern const char *const meter_phase_name[N_METER];

/* One generation: the meter's reading when it began, got its first token, and ended. */
struct meter_mark {
    double at[3];
    bool running, decoding;
};

struct meter;
/* *out stays NULL where there is no source; every function takes that. i_gpu and powercap as in
 * base/power.h. */
MUST_USE status meter_open(int i_gpu, const char *powercap, struct meter **out, struct err *e);
void meter_close(struct meter *);
const char *meter_source(const struct meter *);

void meter_begin(struct meter *, struct meter_mark *);
void meter_first(struct meter *, struct meter_mark *);
void meter_end(struct meter *, struct meter_mark *);
/* Of an ended generation; false when nothing was measured. */
bool meter_joules(const struct meter *, const struct meter_mark *, double *prefill, double *decode);
/* All energy since the start, by what was running. */
void meter_totals(struct meter *, double joules[N_METER]);

#endif
