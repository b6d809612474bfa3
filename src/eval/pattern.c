/* Regular expressions on PCRE2. See pattern.h. */
#include "eval/pattern.h"

#include "base/mem.h"

#include <stdint.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { STEPS = 5000000 }; /* of one match: a second or so */

struct pattern {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
};

struct pattern *pattern_new(const char *text, int flags)
{
    uint32_t options = PCRE2_UTF | PCRE2_UCP;
    options |= flags & PATTERN_ICASE ? PCRE2_CASELESS : 0;
    options |= flags & PATTERN_MULTILINE ? PCRE2_MULTILINE : 0;
    options |= flags & PATTERN_DOTALL ? PCRE2_DOTALL : 0;
    struct pattern *p = mem_calloc(1, sizeof *p);
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (!p || !c)
        goto out;
    int error;
    PCRE2_SIZE at;
    pcre2_set_newline(c, PCRE2_NEWLINE_LF);
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &error, &at, c);
    ASSERT(p->code || error == PCRE2_ERROR_HEAP_FAILED);
    p->context = pcre2_match_context_create(NULL);
    p->data = p->code ? pcre2_match_data_create_from_pattern(p->code, NULL) : NULL;
    if (p->context)
        pcre2_set_match_limit(p->context, STEPS);
out:
    pcre2_compile_context_free(c);
    if (p && (!p->code || !p->context || !p->data)) {
        pattern_free(p);
        p = NULL;
    }
    return p;
}

void pattern_free(struct pattern *p)
{
    if (!p)
        return;
    pcre2_match_data_free(p->data);
    pcre2_match_context_free(p->context);
    pcre2_code_free(p->code);
    mem_free(p);
}

bool pattern_find(const struct pattern *p, const char *text, size_t n, size_t from,
                  struct pattern_match *m)
{
    if (from > n)
        return false;
    int r = pcre2_match(p->code, (PCRE2_SPTR)text, n, from, 0, p->data, p->context);
    if (r < 0)
        return false;
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(p->data);
    m->n_group = r < PATTERN_GROUPS ? r : PATTERN_GROUPS;
    for (int i = 0; i < PATTERN_GROUPS; i++) {
        m->begin[i] = i < m->n_group ? v[2 * i] : (size_t)-1;
        m->end[i] = i < m->n_group ? v[2 * i + 1] : (size_t)-1;
    }
    return true;
}
