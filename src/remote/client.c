/* The HTTP client on libcurl's multi interface: see client.h.
 *
 * A call has one try at a time, which is in one of three places: in the queue (not begun), in the
 * running list (libcurl works on it, or it waits for its pause to end; it keeps its place
 * meanwhile, so that a server that says "too many" is asked less), or in the done queue. Easy
 * handles are kept for the next call; libcurl keeps the connections.
 *
 * Event streams (text/event-stream) are cut into lines here: LF, CR LF or CR end one; the data
 * lines of an event are joined by LF and passed on at its blank line; an event that the end of the
 * stream cuts off is dropped, as the standard says.
 */
#include "remote/client.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    TEXT_MAX = 160,       /* bytes of a server's error text that are shown */
    ERROR_MAX = 64 << 10, /* bytes of a failed try's body that are kept */
    SLICE_MS = 1000       /* longest sleep inside client_next */
};

struct client_try {
    struct client *c;
    struct client_call *call;
    struct client_try *next; /* of its list */
    CURL *easy;              /* NULL unless libcurl works on it */
    uint64_t due_ns;         /* when a paused one goes on */
    double retry_after_s;    /* what the server asked for; below 0: nothing */
    int may_retry;           /* what x-should-retry said: 1, 0, or -1 for nothing */
    bool event_stream, began,
        passed;            /* the answer's kind; its body began; an event was passed on */
    bool enough;           /* of a failed answer: the rest of its body was not read */
    bool skip_lf;          /* the last line ended with CR: an LF belongs to it */
    struct buf line, data; /* the line and the event that are being read */
    bool has_data;
    status st; /* why we broke the transfer off */
    char why[CURL_ERROR_SIZE];
};

struct list {
    struct client_try *first, **last;
};

struct client {
    CURLM *multi;
    struct client_opts o;
    char *base_url, *key; /* copies */
    struct curl_slist *headers;
    struct list queue, done;
    struct client_try *running; /* [n_running] linked */
    int n_running, n_sent;
    CURL **spare; /* [n_parallel] handles to use again, the first n_spare */
    int n_spare;
    uint64_t seed, n_pause;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void list_put(struct list *l, struct client_try *t)
{
    t->next = NULL;
    *l->last = t;
    l->last = &t->next;
}

static struct client_try *list_take(struct list *l)
{
    struct client_try *t = l->first;
    if (t && !(l->first = t->next))
        l->last = &l->first;
    return t;
}

/* ---- texts of servers ---- */

/* Printable, one line, at most TEXT_MAX bytes, whole characters. */
static void put_text(char *out, size_t cap, const char *s, size_t n)
{
    size_t k = 0;
    bool cut = n > TEXT_MAX;
    if (cut)
        n = TEXT_MAX;
    while (cut && n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
        n--;
    for (size_t i = 0; i < n && k + 4 < cap; i++) {
        unsigned char c = (unsigned char)s[i];
        bool blank = c <= 0x20 || c == 0x7f;
        if (blank && (k == 0 || out[k - 1] == ' '))
            continue;
        out[k++] = blank ? ' ' : (char)c;
    }
    snprintf(out + k, cap - k, "%s", cut ? "..." : "");
}

/* What the body of a failed answer says: an error's message where it has one, else its text. */
static void error_text(char *out, size_t cap, const struct buf *body)
{
    static const struct json_limits lim = {ERROR_MAX, 16, 4096};
    struct json *root = NULL;
    const char *s = body->p;
    size_t n = body->n;
    if (json_parse(body->p, body->n, &lim, &root, NULL) == OK) {
        const struct json *e = json_get(root, "error");
        const struct json *const places[] = {json_get(e, "message"), e, json_get(root, "message"),
                                             json_get(root, "detail")};
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
            if (json_kind(places[i]) == J_STR) {
                s = json_str(places[i], &n);
                break;
            }
    }
    put_text(out, cap, s, n);
    json_free(root);
}

/* ---- event streams ---- */

static status pass_event(struct client_try *t, uint64_t now)
{
    struct client_call *q = t->call;
    status st = OK;
    bool done = t->data.n == 6 && memcmp(t->data.p, "[DONE]", 6) == 0;
    if (t->has_data && !done) {
        t->passed = true;
        st = q->on_data(q->user, t->data.p, t->data.n, now, &q->err);
        if (st < 0 && !q->err.code)
            err_set(&q->err, st, "the stream was not understood");
    }
    buf_clear(&t->data);
    t->has_data = false;
    return st;
}

static status end_line(struct client_try *t, uint64_t now)
{
    const char *s = t->line.p;
    size_t n = t->line.n;
    status st = OK;
    if (n == 0)
        st = pass_event(t, now);
    else if (n >= 4 && memcmp(s, "data", 4) == 0 && (n == 4 || s[4] == ':')) {
        size_t skip = n == 4 ? 4 : n > 5 && s[5] == ' ' ? 6 : 5;
        if (t->has_data)
            buf_putc(&t->data, '\n');
        buf_put(&t->data, s + skip, n - skip);
        t->has_data = true;
    }
    buf_clear(&t->line);
    return st;
}

/* Bytes of a stream, cut anywhere. */
static status take_events(struct client_try *t, const char *p, size_t n, uint64_t now)
{
    const char *end = p + n;
    if (n && t->skip_lf && *p == '\n')
        p++;
    t->skip_lf = false;
    while (p < end) {
        size_t k = 0;
        while (p + k < end && p[k] != '\n' && p[k] != '\r')
            k++;
        buf_put(&t->line, p, k);
        if (t->line.st < 0 || t->data.st < 0)
            return err_set(&t->call->err, E_LIMIT,
                           "the server sent an event of more than %zu bytes",
                           t->c->o.max_answer_bytes);
        p += k;
        if (p == end)
            break;
        if (*p++ == '\r') {
            if (p == end)
                t->skip_lf = true;
            else if (*p == '\n')
                p++;
        }
        status st = end_line(t, now);
        if (st < 0)
            return st;
    }
    return OK;
}

/* ---- libcurl's callbacks ---- */

static bool header_is(const char *line, size_t n, const char *name, const char **value, size_t *k)
{
    size_t len = strlen(name);
    if (n <= len || strncasecmp(line, name, len) != 0 || line[len] != ':')
        return false;
    const char *v = line + len + 1, *end = line + n;
    while (v < end && (*v == ' ' || *v == '\t'))
        v++;
    while (end > v && (unsigned char)end[-1] <= ' ')
        end--;
    *value = v;
    *k = (size_t)(end - v);
    return true;
}

/* Seconds, milliseconds or a date, as what is left of it; false when it is neither. */
static bool pause_of(const char *s, size_t n, double unit, double *v)
{
    char text[64];
    if (n == 0 || n >= sizeof text)
        return false;
    memcpy(text, s, n);
    text[n] = '\0';
    double x;
    if (num_f64(text, 0, 1e9, &x) == OK) {
        *v = x * unit;
        return true;
    }
    time_t at = curl_getdate(text, NULL);
    if (at == (time_t)-1)
        return false;
    *v = difftime(at, time(NULL));
    if (*v < 0)
        *v = 0;
    return true;
}

static size_t on_header(char *line, size_t one, size_t n, void *user)
{
    struct client_try *t = user;
    const char *v;
    size_t k;
    n *= one;
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0) { /* also behind a 1xx answer */
        t->event_stream = false;
        t->retry_after_s = -1;
        t->may_retry = -1;
    } else if (header_is(line, n, "content-type", &v, &k)) {
        t->event_stream = k >= 17 && strncasecmp(v, "text/event-stream", 17) == 0;
    } else if (header_is(line, n, "retry-after-ms", &v, &k)) {
        pause_of(v, k, 1e-3, &t->retry_after_s);
    } else if (header_is(line, n, "retry-after", &v, &k)) {
        if (t->retry_after_s < 0)
            pause_of(v, k, 1, &t->retry_after_s);
    } else if (header_is(line, n, "x-should-retry", &v, &k)) {
        t->may_retry = k == 4 && strncasecmp(v, "true", 4) == 0    ? 1
                       : k == 5 && strncasecmp(v, "false", 5) == 0 ? 0
                                                                   : -1;
    } else if (header_is(line, n, "x-request-id", &v, &k)) {
        put_text(t->call->request_id, sizeof t->call->request_id, v, k < 60 ? k : 60);
    }
    return n;
}

static int http_code(CURL *easy)
{
    long code = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    return (int)code;
}

static size_t on_body(char *p, size_t one, size_t n, void *user)
{
    struct client_try *t = user;
    struct client_call *q = t->call;
    uint64_t now = clock_ns();
    n *= one;
    int http = http_code(t->easy);
    if (!t->began)
        q->first_ns = now;
    t->began = true;
    if (http < 200 || http > 299) { /* enough of it to tell what is wrong */
        size_t room = ERROR_MAX - q->answer.n;
        t->enough = n > room;
        buf_put(&q->answer, p, t->enough ? room : n);
        return t->enough ? 0 : n;
    }
    if (q->on_data && t->event_stream) {
        t->st = take_events(t, p, n, now);
        return t->st < 0 ? 0 : n;
    }
    buf_put(&q->answer, p, n);
    if (q->answer.st < 0)
        t->st = err_set(&q->err, q->answer.st, "the server's answer has more than %zu bytes",
                        t->c->o.max_answer_bytes);
    return t->st < 0 ? 0 : n;
}

/* ---- tries ---- */

static long to_ms(double s)
{
    return s <= 0 ? 0 : s >= 1e6 ? 1000000000 : s < 0.001 ? 1 : (long)(s * 1e3);
}

/* Prepares the handle; false when memory ran out. */
static bool set_up(struct client_try *t)
{
    struct client *c = t->c;
    struct client_call *q = t->call;
    struct buf url;
    buf_init(&url, 1 << 16);
    buf_printf(&url, "%s%s", c->base_url, q->path);
    CURL *h = t->easy;
    CURLcode r = url.st < 0 ? CURLE_OUT_OF_MEMORY : curl_easy_setopt(h, CURLOPT_URL, url.p);
    buf_fini(&url);
    curl_easy_setopt(h, CURLOPT_PRIVATE, t);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, t->why);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, to_ms(c->o.connect_timeout_s));
    curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, to_ms(c->o.timeout_s));
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, c->headers);
    if (q->body) {
        curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->n_body);
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, q->body);
    }
    return r == CURLE_OK;
}

static void begin_try(struct client_try *t)
{
    struct client *c = t->c;
    struct client_call *q = t->call;
    buf_clear(&q->answer);
    buf_clear(&t->line);
    buf_clear(&t->data);
    t->has_data = t->began = t->passed = t->enough = t->skip_lf = t->event_stream = false;
    t->retry_after_s = -1;
    t->may_retry = -1;
    t->st = OK;
    t->due_ns = 0;
    t->why[0] = '\0';
    q->err = (struct err){0};
    q->request_id[0] = '\0';
    q->http = 0;
    q->first_ns = q->end_ns = 0;
    q->n_try++;
    t->easy = c->n_spare ? c->spare[--c->n_spare] : curl_easy_init();
    q->start_ns = clock_ns();
    if (!t->easy || !set_up(t) || curl_multi_add_handle(c->multi, t->easy) != CURLM_OK)
        t->st = err_set(&q->err, E_NOMEM, "out of memory for a request");
}

/* Gives the handle back. */
static void drop_handle(struct client_try *t)
{
    struct client *c = t->c;
    if (!t->easy)
        return;
    curl_multi_remove_handle(c->multi, t->easy);
    curl_easy_reset(t->easy);
    if (c->n_spare < c->o.n_parallel)
        c->spare[c->n_spare++] = t->easy;
    else
        curl_easy_cleanup(t->easy);
    t->easy = NULL;
}

/* What a finished transfer means for its call; *again: another try may help. */
static status judge(struct client_try *t, CURLcode r, bool *again)
{
    struct client_call *q = t->call;
    struct err *e = &q->err;
    char text[TEXT_MAX + 8];
    *again = false;
    if (t->st < 0)
        return t->st;
    if (r != CURLE_OK && !t->enough) {
        bool wrong = r == CURLE_URL_MALFORMAT;
        bool trust = r == CURLE_PEER_FAILED_VERIFICATION || r == CURLE_SSL_CACERT_BADFILE;
        *again = !wrong && !trust && !t->passed;
        put_text(text, sizeof text, t->why[0] ? t->why : curl_easy_strerror(r),
                 strlen(t->why[0] ? t->why : curl_easy_strerror(r)));
        return err_set(e,
                       r == CURLE_OUT_OF_MEMORY ? E_NOMEM
                       : wrong                  ? E_INPUT
                                                : E_NET,
                       "%.100s: %s%s", t->c->base_url, t->began ? "the answer broke off: " : "",
                       text);
    }
    if (q->http >= 200 && q->http <= 299) {
        if (!q->on_data || t->event_stream)
            return OK;
        error_text(text, sizeof text, &q->answer);
        return err_set(e, E_FORMAT, "the server was asked for a stream and sent this: %s", text);
    }
    *again = q->http == 408 || q->http == 409 || q->http == 429 || q->http >= 500;
    if (t->may_retry >= 0)
        *again = t->may_retry;
    error_text(text, sizeof text, &q->answer);
    if (q->http >= 300 && q->http <= 399)
        return err_set(e, E_INPUT, "%.100s redirects (%d); give the address it redirects to",
                       t->c->base_url, q->http);
    status st = q->http == 404                     ? E_NOENT
                : q->http == 429 || q->http == 408 ? E_BUSY
                : q->http >= 500                   ? E_NET
                                                   : E_INPUT;
    return err_set(e, st, "the server answered %d: %s", q->http, text[0] ? text : "(no text)");
}

/* How long to wait before the try after n_try ones. */
static double pause_s(struct client *c, const struct client_try *t)
{
    double s = c->o.backoff_s;
    for (int i = 1; i < t->call->n_try && s < c->o.backoff_max_s; i++)
        s *= 2;
    s *= 0.5 + 0.5 * rng_uniform(c->seed, 0, c->n_pause++);
    if (t->retry_after_s >= 0)
        s = t->retry_after_s;
    return s < c->o.backoff_max_s ? s : c->o.backoff_max_s;
}

/* The try's transfer is over: another pause, or done (then it is no longer in `running`). */
static void end_try(struct client_try *t, CURLcode r)
{
    struct client *c = t->c;
    struct client_call *q = t->call;
    bool again;
    q->end_ns = clock_ns();
    if (t->easy)
        q->http = http_code(t->easy);
    q->st = judge(t, r, &again);
    drop_handle(t);
    if (q->st < 0 && again && q->n_try <= c->o.max_retries) {
        t->due_ns = clock_ns() + (uint64_t)(pause_s(c, t) * 1e9);
        return;
    }
    for (struct client_try **p = &c->running; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    c->n_running--;
    list_put(&c->done, t);
}

/* Begins what may begin; the next time something can, or 0. */
static uint64_t begin_due(struct client *c)
{
    uint64_t now = clock_ns(), soonest = 0;
    for (struct client_try *t = c->running, *next; t; t = next) {
        next = t->next;
        if (t->easy)
            continue;
        if (t->due_ns <= now) {
            begin_try(t);
            if (t->st < 0)
                end_try(t, CURLE_OK);
        } else if (!soonest || t->due_ns < soonest) {
            soonest = t->due_ns;
        }
    }
    while (c->n_running < c->o.n_parallel && c->queue.first) {
        struct client_try *t = list_take(&c->queue);
        t->next = c->running;
        c->running = t;
        c->n_running++;
        begin_try(t);
        if (t->st < 0)
            end_try(t, CURLE_OK);
    }
    return soonest;
}

static void collect(struct client *c)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode r = m->data.result; /* m does not outlive the handle's removal */
        struct client_try *t = NULL;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        end_try(t, r);
    }
}

static void free_try(struct client_try *t)
{
    drop_handle(t);
    buf_fini(&t->line);
    buf_fini(&t->data);
    t->call->transfer = NULL;
    mem_free(t);
}

/* ---- the contract ---- */

static bool add_header(struct client *c, const char *text)
{
    struct curl_slist *l = curl_slist_append(c->headers, text);
    if (l)
        c->headers = l;
    return l;
}

static status add_headers(struct client *c, struct err *e)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    bool ok = add_header(c, "Content-Type: application/json") && add_header(c, "Expect:") &&
              add_header(c, "User-Agent: gloss/" GLOSS_VERSION);
    if (c->key) {
        buf_printf(&b, "Authorization: Bearer %s", c->key);
        ok = ok && b.st == OK && add_header(c, b.p);
    }
    buf_fini(&b);
    return ok ? OK : err_set(e, E_NOMEM, "out of memory for the HTTP client");
}

static status check_opts(const struct client_opts *o, struct err *e)
{
    const char *url = o->base_url ? o->base_url : "";
    const char *rest = strncasecmp(url, "http://", 7) == 0    ? url + 7
                       : strncasecmp(url, "https://", 8) == 0 ? url + 8
                                                              : "";
    if (!*rest || *rest == '/')
        return err_set(e, E_INPUT,
                       "'%.80s' is no address of a server; for example "
                       "http://localhost:8000/v1",
                       url);
    for (const char *s = url; *s; s++)
        if ((unsigned char)*s <= 0x20 || *s == '?' || *s == '#')
            return err_set(e, E_INPUT, "the server's address '%.80s' may not hold blanks, ? or #",
                           url);
    for (const char *s = o->api_key ? o->api_key : ""; *s; s++)
        if ((unsigned char)*s < 0x21 || (unsigned char)*s > 0x7e)
            return err_set(e, E_INPUT, "the API key may only hold printable ASCII characters");
    return OK;
}

status client_open(const struct client_opts *o, struct client **client, struct err *e)
{
    *client = NULL;
    ASSERT(o->n_parallel > 0 && o->max_answer_bytes > 0);
    status st = check_opts(o, e);
    if (st < 0)
        return st;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(e, E_NOMEM, "libcurl could not be started");
    struct client *c = mem_calloc(1, sizeof *c);
    if (!c) {
        curl_global_cleanup();
        return err_set(e, E_NOMEM, "out of memory for the HTTP client");
    }
    c->o = *o;
    c->seed = rng_os_seed();
    list_init(&c->queue);
    list_init(&c->done);
    c->base_url = mem_strdup(o->base_url);
    c->key = o->api_key ? mem_strdup(o->api_key) : NULL;
    c->spare = mem_calloc((size_t)o->n_parallel, sizeof(CURL *));
    c->multi = curl_multi_init();
    if (!c->base_url || (o->api_key && !c->key) || !c->spare || !c->multi) {
        st = err_set(e, E_NOMEM, "out of memory for the HTTP client");
        goto out;
    }
    for (size_t n = strlen(c->base_url); n && c->base_url[n - 1] == '/'; n--)
        c->base_url[n - 1] = '\0';
    TRY(add_headers(c, e));
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)o->n_parallel);
    *client = c;
    return OK;
out:
    client_close(c);
    return st;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    struct client_try *t, *next;
    for (t = c->running; t; t = next) {
        next = t->next;
        free_try(t);
    }
    while ((t = list_take(&c->queue)) || (t = list_take(&c->done)))
        free_try(t);
    for (int i = 0; i < c->n_spare; i++)
        curl_easy_cleanup(c->spare[i]);
    if (c->multi)
        curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->headers);
    mem_free(c->spare);
    mem_free(c->key);
    mem_free(c->base_url);
    mem_free(c);
    curl_global_cleanup();
}

status client_send(struct client *c, struct client_call *q, struct err *e)
{
    struct client_try *t = mem_calloc(1, sizeof *t);
    if (!t)
        return err_set(e, E_NOMEM, "out of memory for a request");
    t->c = c;
    t->call = q;
    buf_init(&t->line, c->o.max_answer_bytes);
    buf_init(&t->data, c->o.max_answer_bytes);
    buf_init(&q->answer, c->o.max_answer_bytes);
    q->st = OK;
    q->n_try = 0;
    q->transfer = t;
    list_put(&c->queue, t);
    c->n_sent++;
    return OK;
}

/* Milliseconds until `at`, rounded up; at most `most`. */
static int ms_until(uint64_t at, uint64_t now, int most)
{
    uint64_t ms = at <= now ? 0 : (at - now + 999999) / 1000000;
    return ms < (uint64_t)most ? (int)ms : most;
}

struct client_call *client_next(struct client *c, int timeout_ms)
{
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : clock_ns() + (uint64_t)timeout_ms * 1000000;
    while (c->n_sent) {
        int n;
        begin_due(c);
        if (!c->done.first) {
            curl_multi_perform(c->multi, &n);
            collect(c);
        }
        struct client_try *t = list_take(&c->done);
        if (t) {
            struct client_call *q = t->call;
            c->n_sent--;
            free_try(t);
            begin_due(c); /* its place must not stay empty while the caller works */
            curl_multi_perform(c->multi, &n);
            return q;
        }
        uint64_t now = clock_ns();
        if (now >= until)
            break;
        uint64_t due = begin_due(c); /* of the pauses that just began, too */
        if (c->done.first)
            continue;
        int ms = ms_until(until, now, SLICE_MS);
        if (due)
            ms = ms_until(due, now, ms);
        curl_multi_poll(c->multi, NULL, 0, ms, NULL);
    }
    return NULL;
}

int client_running(const struct client *c)
{
    return c->n_sent;
}
