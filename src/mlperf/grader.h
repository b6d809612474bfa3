/* Programs that an answer holds are judged by a command of the user's: LiveCodeBench's tests are
 * not part of gloss.
 *
 * The command (given to sh) reads a line {"question_id":...,"code":...} per program on standard
 * input and prints a line {"passed":true|false,"details":"..."} for each, in the same order.
 */
#ifndef MLPERF_GRADER_H
#define MLPERF_GRADER_H

#include "base/buf.h"
#include "base/err.h"

/* Runs the command on `programs`; its output is appended to `verdicts`. E_IO when it can't be run
 * or does not exit with 0. */
MUST_USE status grader_run(const char *command, const struct buf *programs, struct buf *verdicts,
                           struct err *e);

#endif
