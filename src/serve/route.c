/* The routes, and what is checked of a request's head before anything of its body is read: framing,
 * Host, Origin, key, route, readiness, content type, size; in this order, deny by default.
 */
#include "base/clock.h"
#include "base/num.h"
#include "serve/server.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_ID = 256 };

const struct route routes[] = {
    {"GET", "/health", api_health, ROUTE_OPEN | ROUTE_FAST | ROUTE_EARLY},
    {"GET", "/", api_root, ROUTE_OPEN | ROUTE_FAST | ROUTE_EARLY},
    {"GET", "/metrics", api_metrics, ROUTE_FAST | ROUTE_EARLY},
    {"GET", "/props", api_props, ROUTE_FAST},
    {"GET", "/openapi.json", api_openapi, ROUTE_FAST | ROUTE_EARLY},
    {"GET", "/v1/models", api_models, ROUTE_FAST | ROUTE_EARLY},
    {"GET", "/v1/models/{id}", api_model, ROUTE_FAST | ROUTE_EARLY},
    {"POST", "/v1/chat/completions", api_chat, 0},
    {"POST", "/v1/completions", api_completions, 0},
    {"POST", "/v1/responses", api_responses, 0},
    {"POST", "/v1/responses/input_tokens", api_response_tokens, 0},
    {"GET", "/v1/responses/{id}", api_response_get, 0},
    {"DELETE", "/v1/responses/{id}", api_response_delete, 0},
    {"POST", "/v1/responses/{id}/cancel", api_response_cancel, 0},
    {"GET", "/v1/responses/{id}/input_items", api_response_items, 0},
    {"POST", "/generate", api_generate, 0},
    {"POST", "/tokenize", api_tokenize, 0},
    {"POST", "/detokenize", api_detokenize, 0},
    {"GET", "/tokenizer_info", api_tokenizer_info, ROUTE_FAST},
    {"POST", "/v1/embeddings", api_no_embeddings, ROUTE_FAST},
};
const int n_route = sizeof routes / sizeof routes[0];

/* Whether `path` fits the pattern; `id` receives what stands for {id}. Models' names may hold
 * slashes, so a pattern that ends in {id} takes the rest, but only theirs. */
static bool fits(const char *pattern, const char *path, char id[MAX_ID])
{
    id[0] = '\0';
    const char *hole = strstr(pattern, "{id}");
    if (!hole)
        return strcmp(pattern, path) == 0;
    size_t head = (size_t)(hole - pattern), n = strlen(path), tail = strlen(hole + 4);
    if (n <= head + tail || strncmp(pattern, path, head) != 0 ||
        strcmp(path + n - tail, hole + 4) != 0)
        return false;
    size_t len = n - head - tail;
    bool model = strncmp(pattern, "/v1/models/", 11) == 0;
    if (len >= MAX_ID || (!model && memchr(path + head, '/', len)))
        return false;
    memcpy(id, path + head, len);
    id[len] = '\0';
    return true;
}

static bool same_method(const char *have, const char *want)
{
    return strcmp(have, want) == 0 || (strcmp(have, "HEAD") == 0 && strcmp(want, "GET") == 0);
}

/* NULL: none; *known: the path has a route of another method, listed in `allow`. */
static const struct route *find(const struct exch *x, bool *known, char allow[64])
{
    char id[MAX_ID];
    const struct route *found = NULL;
    *known = false;
    size_t n = 0;
    for (int i = 0; i < n_route; i++) {
        if (!fits(routes[i].path, x->path, id))
            continue;
        *known = true;
        if (n < 40)
            n += (size_t)snprintf(allow + n, 64 - n, "%s%s", n ? ", " : "", routes[i].method);
        if (!found && same_method(x->method, routes[i].method))
            found = &routes[i];
    }
    if (*known)
        snprintf(allow + n, 64 - n, ", OPTIONS");
    return found;
}

/* What proxies might read differently than the library does. */
static bool check_framing(struct exch *x)
{
    int n_len = http_header_count(x, "Content-Length"),
        n_te = http_header_count(x, "Transfer-Encoding");
    const char *len = http_header(x, "Content-Length"), *te = http_header(x, "Transfer-Encoding");
    bool bad = !http_strict(x) || n_len > 1 || n_te > 1 || (n_len && n_te) ||
               http_header_count(x, "Host") > 1 || (te && strcasecmp(te, "chunked") != 0) ||
               (len && (!*len || strspn(len, "0123456789") != strlen(len)));
    if (bad) { /* what follows could be anything */
        http_set(x, "Connection", "close");
        api_error(x, 400, NULL, NULL, "the request's framing is ambiguous");
    }
    return !bad;
}

static bool own_origin(const struct exch *x, const char *origin)
{
    const char *host = http_header(x, "Host"), *at = strstr(origin, "://");
    return host && at && strcasecmp(at + 3, host) == 0;
}

static bool check_source(struct server *s, struct exch *x)
{
    const char *host = http_header(x, "Host"), *origin = http_header(x, "Origin");
    if (host && !auth_host_ok(s, host)) {
        api_error(x, 403, NULL, NULL,
                  "this Host is not served here; --allowed-host admits further names");
        return false;
    }
    if (!origin || own_origin(x, origin))
        return true;
    if (!auth_origin_ok(s, origin)) {
        api_error(x, 403, NULL, NULL, "this Origin is not admitted; --cors-origin admits it");
        return false;
    }
    http_set(x, "Access-Control-Allow-Origin", origin);
    http_set(x, "Access-Control-Expose-Headers", "x-request-id, retry-after, retry-after-ms");
    http_set(x, "Vary", "Origin");
    return true;
}

static void answer_options(struct exch *x, bool known, const char *allow)
{
    if (!known && strcmp(x->path, "*") != 0) {
        api_error(x, 404, NULL, NULL, "there is nothing at this path");
        return;
    }
    http_set(x, "Allow", known ? allow : "GET, HEAD, POST, DELETE, OPTIONS");
    if (http_header(x, "Origin")) {
        http_set(x, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
        const char *ask = http_header(x, "Access-Control-Request-Headers");
        http_set(x, "Access-Control-Allow-Headers", ask && strlen(ask) < 1024 ? ask : "*");
        http_set(x, "Access-Control-Max-Age", "600");
    }
    http_reply(x, 204, NULL, NULL);
}

static bool check_state(struct server *s, struct exch *x, const struct route *r)
{
    int state = atomic_load(&s->state);
    if (state == SERVER_READY || r->flags & ROUTE_EARLY)
        return true;
    if (state == SERVER_LOADING)
        api_error(x, 503, "model_loading", NULL, "the model is being loaded; try again soon");
    else
        api_error(x, 503, "shutting_down", NULL, "the server is shutting down");
    return false;
}

static bool check_body(struct exch *x)
{
    const char *type = http_header(x, "Content-Type"), *len = http_header(x, "Content-Length");
    size_t n = type ? strcspn(type, "; \t") : 0;
    if (type && (n != 16 || strncasecmp(type, "application/json", 16) != 0)) {
        api_error(x, 415, NULL, NULL, "the body must be application/json");
        return false;
    }
    int64_t v = 0;
    if (len && (num_i64(len, 0, INT64_MAX, &v) < 0 || v > BODY_MAX)) {
        api_error(x, 413, NULL, NULL, "the body is larger than %d bytes", BODY_MAX);
        return false;
    }
    return true;
}

void route_head(void *server, struct exch *x)
{
    struct server *s = server;
    bool known;
    char allow[64];
    if (!check_framing(x) || !check_source(s, x))
        return;
    const struct route *r = find(x, &known, allow);
    if (strcmp(x->method, "OPTIONS") == 0) {
        answer_options(x, known, allow);
        return;
    }
    if (!(r && r->flags & ROUTE_OPEN) && !auth_check(s->auth, x, &x->tenant)) {
        api_error(x, 401, NULL, NULL,
                  "a valid API key is needed, as \"Authorization: Bearer KEY\"");
        return;
    }
    if (!known) {
        api_error(x, 404, NULL, NULL, "there is nothing at this path; /openapi.json lists them");
        return;
    }
    if (!r) {
        http_set(x, "Allow", allow);
        api_error(x, 405, NULL, NULL, "this path takes %s", allow);
        return;
    }
    if (!check_state(s, x, r) || (strcmp(x->method, "POST") == 0 && !check_body(x)))
        return;
    x->route = r;
}

void route_run(struct server *s, struct exch *x)
{
    const struct route *r = x->route;
    char id[MAX_ID];
    (void)fits(r->path, x->path, id);
    r->run(s, x, id);
}

void route_request(void *server, struct exch *x)
{
    struct server *s = server;
    const struct route *r = x->route;
    if (r->flags & ROUTE_FAST)
        route_run(s, x);
    else if (!work_put(s->work, x))
        api_error(x, 429, NULL, NULL, "too many requests wait already; try again later");
}

void route_too_large(void *server, struct exch *x, bool crowded)
{
    (void)server;
    if (crowded)
        api_error(x, 429, NULL, NULL, "too many large requests at once; try again later");
    else
        api_error(x, 413, NULL, NULL, "the body is larger than %d bytes", BODY_MAX);
}

void route_cut_short(void *server, struct exch *x)
{
    (void)server;
    api_error(x, 400, NULL, NULL, "the connection ended before the body did");
}

/* A value of a log line: quoted when it needs to be, harmless in any case. */
static void put_value(struct buf *b, const char *s)
{
    bool plain = *s != '\0';
    for (const char *p = s; *p; p++)
        plain = plain && (unsigned char)*p > ' ' && (unsigned char)*p < 0x7f && *p != '"' &&
                *p != '=' && *p != '\\';
    if (plain) {
        buf_puts(b, s);
        return;
    }
    buf_putc(b, '"');
    for (const char *p = s; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c >= 0x7f)
            buf_printf(b, "\\x%02x", c);
        else if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else
            buf_putc(b, (char)c);
    }
    buf_putc(b, '"');
}

void route_done(void *server, const struct exch *x)
{
    struct server *s = server;
    metrics_http(&s->metrics, x->status);
    if (!s->o.access_log)
        return;
    struct buf b;
    buf_init(&b, 1 << 17);
    struct timespec t;
    struct tm tm;
    char day[32];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(&b, "id=%s time=%s.%03ldZ method=", x->id, day, t.tv_nsec / 1000000);
    put_value(&b, x->method);
    buf_puts(&b, " path=");
    put_value(&b, x->path);
    buf_printf(&b, " status=%d ms=%.1f in=%zu out=%llu", x->status, clock_ms_since(x->start_ns),
               x->body_bytes, (unsigned long long)x->out_bytes);
    const char *agent = http_header(x, "User-Agent");
    if (agent) {
        buf_puts(&b, " agent=");
        put_value(&b, agent);
    }
    buf_putc(&b, '\n');
    if (buf_status(&b) == OK)
        fwrite(b.p, 1, b.n, stderr);
    buf_fini(&b);
}
