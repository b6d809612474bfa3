/* mlperf_log_accuracy.json: the answers of a run, read one by one.
 *
 * LoadGen writes a JSON array; objects one a line, or one behind another, are taken as well.
 */
#ifndef MLPERF_ACCLOG_H
#define MLPERF_ACCLOG_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct acclog_entry {
    int64_t seq_id, qsl_idx;
    const int32_t *ids; /* [n_ids] of data, valid during the call */
    size_t n_ids;
};

/* Calls `take` for every entry; its error ends the reading. E_INPUT names the entry that is cut or
 * wrong. *n: entries read. */
MUST_USE status acclog_read(const char *path,
                            status (*take)(void *ctx, const struct acclog_entry *, struct err *e),
                            void *ctx, size_t *n, struct err *e);

#endif
