/* Data sets: the rows of JSON Lines and CSV files as JSON objects. Parquet files are refused with
 * the command that converts them.
 */
#ifndef EVAL_DATASET_H
#define EVAL_DATASET_H

#include "base/err.h"
#include "base/json.h"

struct dataset {
    struct json **row; /* [n], each an object */
    int n;
};
/* Appends the rows of a file; what a CSV has in its cells becomes strings. The error names file and
 * line. dataset_fini in any case. */
MUST_USE status dataset_read(struct dataset *r, const char *path, struct err *e);
void dataset_fini(struct dataset *r);

/* A member as text: a string, or a number as written; NULL and n = 0 when absent or anything else.
 */
const char *dataset_text(const struct json *row, const char *key, size_t *n);

#endif
