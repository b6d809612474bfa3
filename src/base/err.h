/* Status codes and error records: how every fallible function in gloss reports.
 *
 * A fallible function returns `status` (0 or a negative E_ code) and gives its results through
 * out-parameters. Functions at a boundary (files, options, public API) also fill a `struct err`
 * with one line that says what was wrong and what to do. Nothing here allocates.
 *
 * Shape of a function body:
 *
 *     status st = OK;
 *     TRY(first(...));
 *     TRY(second(...));
 * out:
 *     release in reverse order;
 *     return st;
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

typedef int status;

enum {
    OK = 0,
    E_NOMEM = -1,    /* memory could not be had */
    E_INPUT = -2,    /* the caller's data is wrong */
    E_LIMIT = -3,    /* a stated ceiling was reached */
    E_FORMAT = -4,   /* a file is not what it says it is */
    E_IO = -5,       /* the operating system refused a read, write, map, ... */
    E_BUSY = -6,     /* try again later */
    E_CANCEL = -7,   /* somebody asked to stop */
    E_DEVICE = -8,   /* an accelerator failed */
    E_STATE = -9,    /* calls out of order */
    E_BUG = -10,     /* an internal promise was broken */
    E_NOENT = -11,   /* a named model or file is not there (the command line's exit code 3) */
    E_NUMERIC = -12, /* NaN or Inf where a number must be (weights, logits) */
    E_NET = -13      /* another server could not be reached or failed (exit code 5) */
};

/* One error, without allocation. `param` names the field, tensor or option concerned, or "". */
struct err {
    status code;
    char param[64];
    char msg[256];
};

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Jumps to `out:` with `st` set when `x` fails. */
#define TRY(x)                                                                                     \
    do {                                                                                           \
        st = (x);                                                                                  \
        if (st < 0)                                                                                \
            goto out;                                                                              \
    } while (0)

/* States what no input can cause; on in release builds too. Prints the place and aborts. */
#define ASSERT(x) ((x) ? (void)0 : err_assert_failed(#x, __FILE__, __LINE__))

/* Records an error and returns `code`, so that `return err_set(e, E_INPUT, "...")` reads well.
 * `e` may be NULL. The message is cut at the record's size. */
status err_set(struct err *e, status code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The same with the name of the field, tensor or option concerned. */
status err_param(struct err *e, status code, const char *param, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* A short English name of the code, for when no message was recorded. Never NULL. */
const char *err_name(status code);

/* The program's exit code for a status: the table of docs/cli.md. */
int err_exit_code(status code);

void err_assert_failed(const char *what, const char *file, int line) __attribute__((noreturn));

#endif
