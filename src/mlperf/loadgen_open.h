#ifndef MLPERF_LOADGEN_OPEN_H
#define MLPERF_LOADGEN_OPEN_H

#include "base/err.h"
#include "mlperf/loadgen_abi.h"

/* The library's functions; E_NOENT with how to get it. Never closed. */
MUST_USE status loadgen_open(const struct loadgen **, struct err *e);

#endif
