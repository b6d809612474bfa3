/* The rows of a data set: JSON Lines in memory, each row an object.
 *
 * Column names are the benchmark's: token ids are input_tokens or, before, tok_input; dataset names
 * the row's part, ground_truth its answer. Text is kept as it stands in the file, so that results
 * can be appended to rows without changing them.
 */
#ifndef MLPERF_ROWS_H
#define MLPERF_ROWS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct row {
    const char *text; /* [n_text] the object, without its line end */
    size_t n_text;
    int line;           /* in the file, from 1 */
    int32_t *ids;       /* [n_ids] the prompt, when it was asked for */
    size_t n_ids;       /* */
    char *dataset;      /* or NULL */
    char *ground_truth; /* as text, whatever its type; or NULL */
};

struct rows {
    struct buf text;
    struct row *row; /* [n] */
    size_t n;
};

/* What a row must have. */
enum { ROWS_IDS = 1, ROWS_TRUTH = 2 };

/* At most max_rows rows (0: all). E_INPUT names the line. rows_fini in any case. */
MUST_USE status rows_read(struct rows *r, const char *path, size_t max_rows, int need,
                          struct err *e);
void rows_fini(struct rows *r);

/* Parses one row's text; free with json_free. */
MUST_USE status rows_parse(const struct row *r, struct json **root, struct err *e);
/* A JSON array of token ids in an object; NULL ids when neither column is there. */
MUST_USE status rows_ids(const struct json *obj, int32_t **ids, size_t *n, struct err *e);

#endif
