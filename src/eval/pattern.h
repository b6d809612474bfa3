/* Regular expressions, as Python's re understands them (PCRE2 with UTF and Unicode classes). The
 * only user of pcre2.h. Patterns are constants of this program; texts are what models wrote, so a
 * match that takes too many steps counts as none.
 */
#ifndef EVAL_PATTERN_H
#define EVAL_PATTERN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    PATTERN_ICASE = 1,     /* re.I */
    PATTERN_MULTILINE = 2, /* re.M */
    PATTERN_DOTALL = 4     /* re.S */
};

struct pattern;
/* A pattern that does not compile is a bug of ours: asserted. NULL: out of memory. */
struct pattern *pattern_new(const char *text, int flags);
void pattern_free(struct pattern *p); /* NULL allowed */

/* Groups 0 .. n_group-1 of a match as [begin, end) in the text; an unset group has begin = end =
 * (size_t)-1. */
enum { PATTERN_GROUPS = 8 };
struct pattern_match {
    size_t begin[PATTERN_GROUPS], end[PATTERN_GROUPS];
    int n_group;
};

/* The first match that begins at `from` or later. Invalid UTF-8 never matches. */
bool pattern_find(const struct pattern *p, const char *text, size_t n, size_t from,
                  struct pattern_match *m);

#endif
