/* From what a model wrote to the answer it gave: the extraction rules of the published harnesses.
 *
 * Every function appends the answer to an empty buffer; nothing appended means that there is none.
 * An extractor is used by one thread.
 */
#ifndef EVAL_EXTRACT_H
#define EVAL_EXTRACT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

#include <stdbool.h>

struct extract;
MUST_USE status extract_open(struct extract **x, struct err *e);
void extract_close(struct extract *x); /* NULL allowed */

/* A letter A-D: the thirteen patterns of gpt-oss's multiple-choice grader, in their order of
 * priority. Without a match, the first character behind a leading "**", whatever it is. */
void extract_abcd(struct extract *x, const char *s, size_t n, struct buf *out);
/* The index of the pattern that decides, or -1. */
int extract_abcd_pattern(struct extract *x, const char *s, size_t n);

/* The text of the last \boxed{} or \framebox{} that is not empty, behind its last comma; without
 * one the last run of digits. */
void extract_boxed(struct extract *x, const char *s, size_t n, struct buf *out);
/* What Python's int() makes of a text; false when it would raise. */
bool extract_int(const char *s, size_t n, int64_t *v);

/* tinyMMLU of the runner: "answer: X", else a leading letter, else the last lone one, else '?'. */
void extract_tinymmlu(struct extract *x, const char *s, size_t n, struct buf *out);

/* gsm8k of lm-eval: behind "#### ", or the last number; "[invalid]" without one. */
void extract_gsm8k_strict(struct extract *x, const char *s, size_t n, struct buf *out);
void extract_gsm8k_flexible(struct extract *x, const char *s, size_t n, struct buf *out);
/* gsm8k_cot's strict: behind "The answer is ". */
void extract_gsm8k_cot(struct extract *x, const char *s, size_t n, struct buf *out);
/* Whether two answers are the same to lm-eval's exact_match of gsm8k: without commas, dollars, all
 * up to "#### ", a final dot, and case. */
bool extract_gsm8k_same(struct extract *x, const char *a, const char *b);

/* A rubric's verdict: JSON, perhaps in a ```json fence, with a true or false "criteria_met" (in
 * *met). False: not valid. The explanation, if any, goes to `out`. */
bool extract_verdict(const char *s, size_t n, bool *met, struct buf *out);

#endif
