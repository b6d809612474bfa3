#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

static void err_fill(struct err *e, status code, const char *param, const char *fmt, va_list ap)
{
    if (!e)
        return;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
}

status err_set(struct err *e, status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_fill(e, code, "", fmt, ap);
    va_end(ap);
    return code;
}

status err_param(struct err *e, status code, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_fill(e, code, param, fmt, ap);
    va_end(ap);
    return code;
}

static const struct {
    const char *name;
    int exit_code;
} table[] = {
    [-OK] = {"ok", 0},
    [-E_NOMEM] = {"out of memory", 4},
    [-E_INPUT] = {"invalid input", 1},
    [-E_LIMIT] = {"limit reached", 1},
    [-E_FORMAT] = {"not a valid file of its kind", 1},
    [-E_IO] = {"input or output error", 1},
    [-E_BUSY] = {"busy, try again", 1},
    [-E_CANCEL] = {"cancelled", 1},
    [-E_DEVICE] = {"device failure", 1},
    [-E_STATE] = {"call out of order", 1},
    [-E_BUG] = {"internal error", 1},
    [-E_NOENT] = {"not found", 3},
    [-E_NUMERIC] = {"not a number", 1},
    [-E_NET] = {"network failure", 5},
};

static const int n_table = (int)(sizeof table / sizeof table[0]);

const char *err_name(status code)
{
    if (code > 0 || -code >= n_table)
        return "unknown error";
    return table[-code].name;
}

int err_exit_code(status code)
{
    if (code > 0 || -code >= n_table)
        return 1;
    return table[-code].exit_code;
}

void err_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "gloss: internal error: %s (%s:%d)\n", what, file, line);
    abort();
}
