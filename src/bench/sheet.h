/* A table of results: named columns in a fixed order, rows of cells that are texts or numbers.
 *
 * Cells are set by the column's name, so that the order of a file is stated once, in the list of
 * its columns. A cell never set is empty, and so is a number that is NAN: no source, no value.
 * Numbers are written with all their digits. As CSV (RFC 4180) or as a JSON array of objects.
 *
 * A sheet may be kept on disk while it grows (sheet_resume): each finished row is appended to
 * PATH.part, and a later run with the same columns and the same `what` takes up its rows.
 */
#ifndef BENCH_SHEET_H
#define BENCH_SHEET_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { SHEET_MAX_COL = 96, SHEET_MAX_ROW = 1 << 16 };

struct sheet {
    const char *col[SHEET_MAX_COL];
    int n_col, n_row;
    const char **cell; /* [n_row][n_col], NULL: empty; a row under way included */
    size_t cap;        /* rows that fit */
    struct arena mem;
    char part[4096]; /* file of finished rows, or "" */
    status st;       /* the first failed allocation sticks; sheet_end_row tells */
};

/* `columns`: names separated by blanks or newlines. */
MUST_USE status sheet_init(struct sheet *, const char *columns, struct err *e);
MUST_USE status sheet_add_columns(struct sheet *, const char *columns, struct err *e);
void sheet_fini(struct sheet *); /* zeroed allowed */

void sheet_row(struct sheet *);                                 /* begins a row */
void sheet_text(struct sheet *, const char *col, const char *); /* copied; NULL is empty */
void sheet_num(struct sheet *, const char *col, double);
void sheet_int(struct sheet *, const char *col, int64_t);
MUST_USE status sheet_end_row(struct sheet *, struct err *e);

int sheet_col(const struct sheet *, const char *col);                  /* or -1 */
const char *sheet_get(const struct sheet *, int row, const char *col); /* "" when empty */
double sheet_get_num(const struct sheet *, int row, const char *col);  /* NAN when none */
/* A row with these two numbers in these columns, or -1. */
int sheet_find2(const struct sheet *, const char *col1, double v1, const char *col2, double v2);
/* The first row with this text in this column, or -1. */
int sheet_find(const struct sheet *, const char *col, const char *text);

void sheet_csv(const struct sheet *, struct buf *);
void sheet_json(const struct sheet *, struct buf *);
void sheet_json_row(const struct sheet *, int row, struct buf *);
MUST_USE status sheet_save(struct sheet *, const char *path, struct err *e); /* ends PATH.part */

/* Reads a CSV file with a line of names. E_FORMAT with line and reason. */
MUST_USE status sheet_read(struct sheet *, const char *path, struct err *e);

/* See above; `what` is one line that names all that the results depend on. */
MUST_USE status sheet_resume(struct sheet *, const char *path, const char *what, struct err *e);

#endif
