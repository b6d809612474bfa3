/* Answers of runs that are not finished, in an SQLite file, so that a run goes on where it was cut
 * off. A run is named by a key that holds everything its answers depend on; finishing a run ends
 * its key, so that the same command then asks anew.
 */
#ifndef EVAL_JOURNAL_H
#define EVAL_JOURNAL_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct journal;
/* Makes the file when missing. fresh: an unfinished run of that key is forgotten. */
MUST_USE status journal_open(const char *path, const char *key, bool fresh, struct journal **j,
                             struct err *e);
void journal_close(struct journal *j); /* NULL allowed */
int journal_count(struct journal *j);  /* answers of the run that were there */
/* Appends what was put under that number; false: nothing. */
bool journal_get(struct journal *j, int64_t i, struct buf *out);
MUST_USE status journal_put(struct journal *j, int64_t i, const char *s, size_t n, struct err *e);
MUST_USE status journal_finish(struct journal *j, struct err *e);

#endif
