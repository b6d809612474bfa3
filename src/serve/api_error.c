/* Errors as clients know them: {"error":{"message","type","param","code"}} with the HTTP status
 * that makes their libraries raise the right class, and headers that say whether to try again.
 * Messages hold nothing of the server's paths or of other requests.
 */
#include "serve/put.h"
#include "serve/server.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int code;
    const char *type, *name;
} kinds[] = {
    {400, "invalid_request_error", NULL},
    {401, "authentication_error", "invalid_api_key"},
    {403, "permission_error", NULL},
    {404, "invalid_request_error", "not_found"},
    {405, "invalid_request_error", NULL},
    {408, "timeout_error", "request_timeout"},
    {409, "conflict", NULL},
    {413, "invalid_request_error", NULL},
    {415, "invalid_request_error", NULL},
    {429, "rate_limit_error", "rate_limit_exceeded"},
    {500, "server_error", NULL},
    {501, "invalid_request_error", "unsupported"},
    {503, "service_unavailable", NULL},
};

static void put_body(struct buf *b, int code, const char *name, const char *param, const char *msg)
{
    const char *type = "server_error";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].code == code) {
            type = kinds[i].type;
            name = name ? name : kinds[i].name;
        }
    buf_puts(b, "{\"error\":{\"message\":");
    put_text(b, msg, strlen(msg)); /* may be cut within a character */
    buf_printf(b, ",\"type\":\"%s\",\"param\":", type);
    if (param && *param)
        put_text(b, param, strlen(param));
    else
        buf_puts(b, "null");
    buf_puts(b, ",\"code\":");
    if (name)
        buf_printf(b, "\"%s\"", name);
    else
        buf_puts(b, "null");
    buf_puts(b, "}}");
}

static void answer(struct exch *x, int code, const char *name, const char *param, const char *msg)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    put_body(&b, code, name, param, msg);
    if (code == 401)
        http_set(x, "WWW-Authenticate", "Bearer");
    if (code == 429 || code == 503) {
        http_set(x, "Retry-After", "1");
        http_set(x, "retry-after-ms", "1000");
    }
    if (code == 500 || code == 501 || code == 408)
        http_set(x, "x-should-retry", "false");
    http_reply(x, code, "application/json", &b);
    buf_fini(&b);
}

/* The message cut to whole characters. */
static void clip(char *msg, size_t n)
{
    while (n && ((unsigned char)msg[n - 1] & 0xc0) == 0x80)
        n--;
    if (n && (unsigned char)msg[n - 1] >= 0xc0)
        msg[n - 1] = '\0';
}

void api_error(struct exch *x, int code, const char *name, const char *param, const char *fmt, ...)
{
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof msg)
        clip(msg, sizeof msg - 1);
    answer(x, code, name, param, msg);
}

int api_status(struct server *s, const struct err *e)
{
    switch (e->code) {
    case E_INPUT:
    case E_LIMIT:
    case E_STATE: /* what is not supported */
        return 400;
    case E_BUSY:
        return atomic_load(&s->state) == SERVER_READY ? 429 : 503;
    case E_NOENT:
        return 404;
    case E_NOMEM:
        return 503;
    case E_CANCEL:
        return 408;
    default:
        return 500;
    }
}

/* A ceiling without a parameter's name is that of the context. */
static const char *name_of(struct server *s, const struct err *e)
{
    if (e->code == E_LIMIT && !e->param[0])
        return "context_length_exceeded";
    if (e->code == E_STATE)
        return "unsupported_parameter";
    if (e->code == E_INPUT || e->code == E_LIMIT)
        return "invalid_value";
    if (e->code == E_BUSY && atomic_load(&s->state) != SERVER_READY)
        return "shutting_down";
    return NULL;
}

static void message(const struct err *e, char msg[300])
{
    snprintf(msg, 300, "%s", e->msg[0] ? e->msg : err_name(e->code));
    size_t n = strlen(msg);
    if (n >= sizeof e->msg - 1)
        clip(msg, n);
}

void api_fail(struct server *s, struct exch *x, const struct err *e)
{
    char msg[300];
    message(e, msg);
    answer(x, api_status(s, e), name_of(s, e), e->param, msg);
}

void api_error_body(struct server *s, struct buf *b, const struct err *e)
{
    char msg[300];
    message(e, msg);
    put_body(b, api_status(s, e), name_of(s, e), e->param, msg);
}
