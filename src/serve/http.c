/* libmicrohttpd behind exchanges, and the reaper. See http.h.
 *
 * Locks: h->lock guards the list of connections, and conn fields that two threads touch; x->lock
 * guards an exchange. Order: h->lock, x->lock, the library's own. Connections are freed by the
 * reaper alone, so that a pointer in its batch of events stays valid; the io thread only marks them
 * closed.
 *
 * A connection that ends while its client may still be sending would be reset by the kernel, and
 * the client could lose the answer. So its socket is duplicated before the library closes it, and
 * the reaper reads the rest into nothing for a moment (linger).
 */
#include "serve/http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <microhttpd.h>
#include <netdb.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    TICK_MS = 250,
    QUIET_TICKS = 4,
    POOL_BYTES = HTTP_HEAD_BYTES + (8 << 10), /* the library's memory of one connection */
    LINGER_MS = 2000,
    MAX_LINGER = 512,
    MAX_CONN = 16384,
    PING_MS = 15000,       /* a stream says something at least that often */
    SEND_BYTES = 64 << 10, /* what the kernel may hold of an answer (it takes twice that): 2.5 MB by
                              itself, ten thousand tokens for a client who reads none */
    N_EVENT = 256
};

enum phase { PH_HEAD, PH_BODY, PH_WORK, PH_WRITE, PH_IDLE };

struct conn {
    struct http *h;
    int fd;
    enum phase phase;
    uint64_t since_ns;   /* begin of the phase */
    uint64_t base_bytes; /* PH_IDLE: bytes received when it began */
    bool peer_done;      /* the client has closed its sending side, or is gone */
    bool killed, closed, linger;
    bool dry;       /* peer_done, and at the last sweep nothing was left to read of its body */
    struct exch *x; /* the request under way, or NULL */
    struct conn *prev, *next;
};

struct leaving {
    int fd;
    uint64_t until_ns;
};

struct http {
    struct http_opts o;
    struct MHD_Daemon *d;
    int port, ep, wake;
    pthread_t reaper;
    bool has_reaper;
    atomic_bool stop;
    pthread_mutex_t lock;
    struct conn *conn; /* all, closed ones too */
    int n_conn;
    struct leaving linger[MAX_LINGER]; /* [n_linger] */
    int n_linger;
    size_t body_bytes; /* of all requests; io thread only */
    atomic_int n_exch; /* under way */
    atomic_bool used;  /* an exchange began since memory was given back */
    int n_quiet;       /* ticks in a row without one under way; reaper only */
};

/* ---- exchanges ---- */

void exch_ref(struct exch *x)
{
    atomic_fetch_add(&x->refs, 1);
}

void exch_unref(struct exch *x)
{
    if (atomic_fetch_sub(&x->refs, 1) != 1)
        return;
    buf_fini(&x->body);
    buf_fini(&x->header);
    buf_fini(&x->out);
    pthread_mutex_destroy(&x->lock);
    mem_free((void *)(uintptr_t)x->method);
    mem_free((void *)(uintptr_t)x->path);
    mem_free(x);
}

static bool decent_id(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    return n >= 1 && n <= 64 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static struct exch *exch_new(struct http *h, struct conn *c, struct MHD_Connection *mc,
                             const char *method, const char *path)
{
    struct exch *x = mem_calloc(1, sizeof *x);
    char *m = mem_strdup(method), *p = mem_strdup(path);
    if (!x || !m || !p) {
        mem_free(x);
        mem_free(m);
        mem_free(p);
        return NULL;
    }
    x->method = m;
    x->path = p;
    x->h = h;
    x->conn = c;
    x->c = mc;
    x->start_ns = clock_ns();
    x->reading = true;
    atomic_init(&x->refs, 1);
    pthread_mutex_init(&x->lock, NULL);
    buf_init(&x->body, h->o.max_body);
    buf_init(&x->header, HTTP_HEAD_BYTES);
    buf_init(&x->out, HTTP_OUT_BYTES);
    const char *id = http_header(x, "x-request-id");
    if (decent_id(id))
        snprintf(x->id, sizeof x->id, "%s", id);
    else
        snprintf(x->id, sizeof x->id, "req_%016llx", (unsigned long long)rng_os_seed());
    return x;
}

const char *http_header(const struct exch *x, const char *name)
{
    return MHD_lookup_connection_value(x->c, MHD_HEADER_KIND, name);
}

struct count {
    const char *name;
    int n;
};

static enum MHD_Result count_one(void *ctx, enum MHD_ValueKind kind, const char *key,
                                 const char *value)
{
    (void)kind;
    (void)value;
    struct count *c = ctx;
    c->n += strcasecmp(key, c->name) == 0;
    return MHD_YES;
}

int http_header_count(const struct exch *x, const char *name)
{
    struct count c = {.name = name};
    MHD_get_connection_values(x->c, MHD_HEADER_KIND, count_one, &c);
    return c.n;
}

const char *http_query(const struct exch *x, const char *name)
{
    return MHD_lookup_connection_value(x->c, MHD_GET_ARGUMENT_KIND, name);
}

void http_set(struct exch *x, const char *name, const char *value)
{
    buf_put(&x->header, name, strlen(name) + 1);
    buf_put(&x->header, value, strlen(value) + 1);
}

/* With x->lock held. */
static void wake(struct exch *x)
{
    if (!x->asleep)
        return;
    x->asleep = false;
    MHD_resume_connection(x->c);
}

/* The client of x reads no more. With x->lock held, as the next six. */
static void lose(struct exch *x)
{
    if (x->gone)
        return;
    x->gone = true;
    if (x->stream) {
        buf_clear(&x->out);
        x->out_at = x->n_framed = 0;
    }
    if (x->on_gone)
        x->on_gone(x->on_arg);
}

/* Ends the connection under a stream: its client must see that the answer is not whole. */
static void cut(struct exch *x)
{
    shutdown(x->conn->fd, SHUT_RDWR);
    lose(x);
    wake(x);
}

/* Fewer bytes wait than `before`. */
static void moved(struct exch *x, size_t before)
{
    size_t have = x->out.n - x->out_at;
    x->stuck_ns = have ? clock_ns() : 0;
    if (before >= HTTP_HIGH_WATER && have < HTTP_HIGH_WATER && x->on_room)
        x->on_room(x->on_arg);
}

/* `n` bytes of `out` are the kernel's now. */
static void taken(struct exch *x, size_t n)
{
    size_t have = x->out.n - x->out_at;
    x->out_at += n;
    x->out_bytes += n;
    if (n == have) {
        buf_clear(&x->out);
        x->out_at = 0;
    }
    moved(x, have);
}

/* Sends what waits as one chunk; false when the socket is full. Of a chunk that fits in part the
 * rest stays in `out`, framed. */
static bool send_chunk(struct exch *x)
{
    char head[24];
    size_t n = x->out.n - x->out_at;
    size_t n_head = (size_t)snprintf(head, sizeof head, "%zx\r\n", n);
    struct iovec part[3] = {{head, n_head}, {x->out.p + x->out_at, n}, {(char[]){'\r', '\n'}, 2}};
    struct msghdr m = {.msg_iov = part, .msg_iovlen = 3};
    ssize_t sent = sendmsg(x->conn->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0)
        return false;
    if ((size_t)sent == n_head + n + 2) {
        taken(x, n);
        return true;
    }
    struct buf rest;
    buf_init(&rest, HTTP_OUT_BYTES);
    size_t skip = (size_t)sent;
    for (int i = 0; i < 3; i++) {
        size_t k = skip < part[i].iov_len ? skip : part[i].iov_len;
        buf_put(&rest, (char *)part[i].iov_base + k, part[i].iov_len - k);
        skip -= k;
    }
    x->n_framed = rest.n;
    buf_fini(&x->out);
    x->out = rest;
    x->out_at = 0;
    x->out_bytes += n - (rest.n < n ? rest.n : n);
    if (buf_status(&rest) < 0)
        cut(x);
    else
        moved(x, n);
    return false;
}

static bool send_framed(struct exch *x)
{
    ssize_t sent =
        send(x->conn->fd, x->out.p + x->out_at, x->n_framed, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0)
        return false;
    x->n_framed -= (size_t)sent;
    taken(x, (size_t)sent);
    return x->n_framed == 0;
}

/* Sends the stream past the library. What the socket does not take waits for the reaper, who is
 * told when there is room. */
static void send_past(struct exch *x)
{
    bool room = true;
    while (room && x->out.n > x->out_at)
        room = x->n_framed ? send_framed(x) : send_chunk(x);
    if (!room) {
        struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLOUT | EPOLLET, .data.ptr = x->conn};
        epoll_ctl(x->h->ep, EPOLL_CTL_MOD, x->conn->fd, &ev);
    } else if (x->ended) {
        wake(x);
    }
}

/* Lets the stream's bytes go on their way. */
static void move(struct exch *x)
{
    if (x->asleep && x->queued && x->past && !x->gone)
        send_past(x);
    else
        wake(x);
}

void http_reply(struct exch *x, int code, const char *type, struct buf *body)
{
    pthread_mutex_lock(&x->lock);
    if (!x->replied) {
        x->replied = true;
        x->status = code;
        x->type = type;
        if (body) {
            struct buf old = x->out;
            x->out = *body;
            *body = old;
        }
        if (buf_status(&x->out) < 0) { /* no memory for the answer */
            buf_clear(&x->out);
            x->status = 500;
            x->type = "text/plain";
        }
        wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

void http_stream(struct exch *x, const char *type)
{
    pthread_mutex_lock(&x->lock);
    if (!x->replied) {
        x->replied = x->stream = true;
        x->status = 200;
        x->type = type;
        x->wrote_ns = clock_ns();
        wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

bool http_write(struct exch *x, const void *p, size_t n)
{
    pthread_mutex_lock(&x->lock);
    bool keeps_up = true;
    if (!x->gone && !x->ended) {
        x->wrote_ns = clock_ns();
        if (x->out.n == x->out_at)
            x->stuck_ns = x->wrote_ns;
        buf_put(&x->out, p, n);
        keeps_up = x->out.n - x->out_at < HTTP_HIGH_WATER;
        if (buf_status(&x->out) < 0)
            cut(x);
    }
    pthread_mutex_unlock(&x->lock);
    return keeps_up;
}

void http_wake(struct exch *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->queued && x->out.n > x->out_at)
        move(x);
    pthread_mutex_unlock(&x->lock);
}

void http_end(struct exch *x)
{
    pthread_mutex_lock(&x->lock);
    x->ended = true;
    move(x);
    pthread_mutex_unlock(&x->lock);
}

bool http_watch(struct exch *x, void (*gone)(void *), void (*room)(void *), void *arg)
{
    pthread_mutex_lock(&x->lock);
    x->on_gone = gone;
    x->on_room = room;
    x->on_arg = arg;
    bool is_gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    return is_gone;
}

bool http_gone(struct exch *x)
{
    pthread_mutex_lock(&x->lock);
    bool gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    return gone;
}

/* ---- the library's side: answers ---- */

/* Fills `to` with what a stream has; sleeps when it has nothing. */
static ssize_t take(void *ctx, uint64_t pos, char *to, size_t max)
{
    (void)pos;
    struct exch *x = ctx;
    ssize_t n = 0;
    pthread_mutex_lock(&x->lock);
    size_t have = x->out.n - x->out_at;
    if (have) {
        n = (ssize_t)(have < max ? have : max);
        memcpy(to, x->out.p + x->out_at, (size_t)n);
        taken(x, (size_t)n);
    } else if (x->ended || x->gone) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        x->asleep = true;
        MHD_suspend_connection(x->c);
    }
    pthread_mutex_unlock(&x->lock);
    return n;
}

static void set_phase(struct conn *c, enum phase p)
{
    pthread_mutex_lock(&c->h->lock);
    c->phase = p;
    c->since_ns = clock_ns();
    pthread_mutex_unlock(&c->h->lock);
}

/* Hands the answer to the library (io thread). */
static enum MHD_Result queue(struct exch *x)
{
    struct MHD_Response *r;
    pthread_mutex_lock(&x->lock);
    x->queued = true;
    if (x->stream) {
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, take, x, NULL);
    } else {
        x->out_bytes = x->out.n;
        r = MHD_create_response_from_buffer(x->out.n, x->out.p, MHD_RESPMEM_PERSISTENT);
    }
    pthread_mutex_unlock(&x->lock);
    if (!r)
        return MHD_NO;
    if (x->type)
        MHD_add_response_header(r, "Content-Type", x->type);
    if (x->stream)
        MHD_add_response_header(r, "Cache-Control", "no-cache");
    if (x->last)
        MHD_add_response_header(r, "Connection", "close");
    MHD_add_response_header(r, "x-request-id", x->id);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    for (size_t at = 0; at < x->header.n;) {
        const char *name = x->header.p + at, *value = name + strlen(name) + 1;
        MHD_add_response_header(r, name, value);
        at = (size_t)(value - x->header.p) + strlen(value) + 1;
    }
    set_phase(x->conn, x->stream ? PH_WORK : PH_WRITE);
    enum MHD_Result ok = MHD_queue_response(x->c, (unsigned)x->status, r);
    MHD_destroy_response(r);
    return ok;
}

/* The library takes no answer while a body arrives. Without TLS it can be written past it. */
static enum MHD_Result answer_past(struct exch *x)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_printf(&b,
               "HTTP/1.1 %d Refused\r\nContent-Type: %s\r\nx-request-id: %s\r\n"
               "Content-Length: %zu\r\nConnection: close\r\n\r\n",
               x->status, x->type ? x->type : "text/plain", x->id, x->out.n);
    buf_put(&b, x->out.p, x->out.n);
    if (buf_status(&b) == OK)
        (void)!send(x->conn->fd, b.p, b.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    buf_fini(&b);
    x->queued = true;
    x->conn->linger = true;
    return MHD_NO;
}

/* ---- the library's side: requests ---- */

/* Where the line that holds `s` at its end is over: behind CR and LF, which the library has made
 * NULs. NULL: it ends in another way. */
static const char *line_end(const char *s)
{
    s += strlen(s);
    return s[0] == 0 && s[1] == 0 ? s + 2 : NULL;
}

struct walk {
    const char *at; /* where the next line must begin; NULL: the head is not strict */
};

static enum MHD_Result walk_header(void *ctx, enum MHD_ValueKind kind, const char *key,
                                   const char *value)
{
    (void)kind;
    struct walk *w = ctx;
    w->at = w->at && w->at == key && !strchr(value, '\r') ? line_end(value) : NULL;
    return MHD_YES;
}

/* Libraries before 1.0 take bare LFs, folded lines and NULs, which a proxy in front may read in
 * another way. They parse in place, so the lines of a strict head lie one behind the other:
 * version, NUL, NUL, name, NUL ... value, NUL, NUL, and the empty line's two NULs. */
static bool strict_head(struct MHD_Connection *mc, const char *version)
{
    if (strncmp(MHD_get_version(), "0.", 2) != 0)
        return true; /* it refuses them itself */
    struct walk w = {line_end(version)};
    MHD_get_connection_values(mc, MHD_HEADER_KIND, walk_header, &w);
    return w.at && w.at[0] == 0 && w.at[1] == 0;
}

/* Those libraries take bare LFs around the sizes of chunks, too, and don't show them to us. Who
 * reads them in another way may see another end of this body, so nothing behind it is a request. */
static bool ends_unsurely(const struct exch *x)
{
    return strncmp(MHD_get_version(), "0.", 2) == 0 && http_header(x, "Transfer-Encoding");
}

bool http_strict(const struct exch *x)
{
    return !x->lax;
}

static enum MHD_Result begin(struct http *h, struct MHD_Connection *mc, const char *method,
                             const char *url, const char *version, void **slot)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct conn *c = info ? info->socket_context : NULL;
    struct exch *x = c ? exch_new(h, c, mc, method, url) : NULL;
    if (!x)
        return MHD_NO;
    *slot = x;
    x->past = !h->o.cert && strcmp(version, MHD_HTTP_VERSION_1_1) == 0;
    x->lax = !strict_head(mc, version);
    x->last = ends_unsurely(x);
    c->linger = x->last;
    atomic_fetch_add(&h->n_exch, 1);
    atomic_store(&h->used, true);
    pthread_mutex_lock(&h->lock);
    c->x = x;
    c->phase = PH_BODY;
    c->since_ns = x->start_ns;
    pthread_mutex_unlock(&h->lock);
    h->o.head(h->o.ctx, x);
    if (!x->replied)
        return MHD_YES;
    c->linger = true;
    return queue(x);
}

static enum MHD_Result more(struct http *h, struct exch *x, const char *p, size_t *n)
{
    if (!x->over_limit) {
        bool crowded = *n > h->o.max_bodies - h->body_bytes;
        if (!crowded) {
            buf_put(&x->body, p, *n);
            x->body_bytes += *n;
            h->body_bytes += *n;
        }
        if (crowded || buf_status(&x->body) < 0) {
            x->over_limit = true;
            buf_fini(&x->body);
            buf_init(&x->body, 0);
            h->o.too_large(h->o.ctx, x, crowded);
            if (!h->o.cert)
                return answer_past(x);
        }
    }
    *n = 0;
    return MHD_YES;
}

/* The request is whole: work begins, or its answer is there. */
static enum MHD_Result ready(struct http *h, struct exch *x)
{
    if (x->reading) {
        x->reading = false;
        set_phase(x->conn, PH_WORK);
        if (!x->replied)
            h->o.request(h->o.ctx, x);
    }
    pthread_mutex_lock(&x->lock);
    bool now = x->replied;
    if (!now) {
        x->asleep = true;
        MHD_suspend_connection(x->c);
    }
    pthread_mutex_unlock(&x->lock);
    if (now)
        return queue(x);
    /* The client may have gone while the request was read. */
    pthread_mutex_lock(&h->lock);
    bool gone = x->conn->peer_done;
    pthread_mutex_unlock(&h->lock);
    if (gone) {
        pthread_mutex_lock(&x->lock);
        lose(x);
        pthread_mutex_unlock(&x->lock);
    }
    return MHD_YES;
}

static enum MHD_Result on_access(void *ctx, struct MHD_Connection *mc, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *n, void **slot)
{
    struct http *h = ctx;
    struct exch *x = *slot;
    if (!x)
        return begin(h, mc, method, url, version, slot);
    if (*n)
        return more(h, x, data, n);
    if (x->queued)
        return MHD_YES;
    return ready(h, x);
}

static uint64_t bytes_received(int fd)
{
    struct tcp_info t;
    socklen_t n = sizeof t;
    memset(&t, 0, sizeof t);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &n) == 0 ? t.tcpi_bytes_received : 0;
}

static void on_completed(void *ctx, struct MHD_Connection *mc, void **slot,
                         enum MHD_RequestTerminationCode how)
{
    (void)mc;
    struct http *h = ctx;
    struct exch *x = *slot;
    if (!x)
        return;
    *slot = NULL;
    if (x->reading && !x->replied && how == MHD_REQUEST_TERMINATED_CLIENT_ABORT) {
        h->o.cut_short(h->o.ctx, x);
        if (!h->o.cert)
            (void)answer_past(x);
    }
    h->body_bytes -= x->body_bytes;
    pthread_mutex_lock(&h->lock);
    struct conn *c = x->conn;
    c->x = NULL;
    c->phase = PH_IDLE;
    c->since_ns = clock_ns();
    c->base_bytes = bytes_received(c->fd);
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&x->lock);
    if (how != MHD_REQUEST_TERMINATED_COMPLETED_OK || !x->replied)
        lose(x);
    x->on_gone = x->on_room = NULL;
    x->gone = true; /* nobody reads on */
    pthread_mutex_unlock(&x->lock);
    h->o.done(h->o.ctx, x);
    exch_unref(x);
    atomic_fetch_sub(&h->n_exch, 1);
}

/* ---- connections ---- */

static void open_conn(struct http *h, struct MHD_Connection *mc, void **slot)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct conn *c = info ? mem_calloc(1, sizeof *c) : NULL;
    *slot = c;
    if (!c)
        return; /* its requests will be refused */
    c->h = h;
    c->fd = info->connect_fd;
    c->phase = PH_HEAD;
    c->since_ns = clock_ns();
    int on = 1, send_bytes = SEND_BYTES;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
    pthread_mutex_lock(&h->lock);
    c->next = h->conn;
    if (h->conn)
        h->conn->prev = c;
    h->conn = c;
    h->n_conn++;
    pthread_mutex_unlock(&h->lock);
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = c};
    epoll_ctl(h->ep, EPOLL_CTL_ADD, c->fd, &ev);
}

static void begin_linger(struct http *h, struct conn *c)
{
    if (h->n_linger == MAX_LINGER)
        return;
    int fd = dup(c->fd);
    if (fd < 0)
        return;
    shutdown(fd, SHUT_WR);
    h->linger[h->n_linger++] =
        (struct leaving){.fd = fd, .until_ns = clock_ns() + LINGER_MS * 1000000ull};
}

static void close_conn(struct http *h, struct conn *c)
{
    epoll_ctl(h->ep, EPOLL_CTL_DEL, c->fd, NULL);
    pthread_mutex_lock(&h->lock);
    /* a head that was never finished and yet ends: the library has refused it */
    bool refused = c->phase == PH_HEAD && bytes_received(c->fd) > 0;
    if ((c->linger || refused) && !c->killed && !c->peer_done)
        begin_linger(h, c);
    c->closed = true;
    h->n_conn--;
    pthread_mutex_unlock(&h->lock);
}

static void on_connection(void *ctx, struct MHD_Connection *mc, void **slot,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http *h = ctx;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        open_conn(h, mc, slot);
    else if (*slot)
        close_conn(h, *slot);
}

int http_connections(struct http *h)
{
    pthread_mutex_lock(&h->lock);
    int n = h->n_conn;
    pthread_mutex_unlock(&h->lock);
    return n;
}

int http_active(struct http *h)
{
    return atomic_load(&h->n_exch);
}

/* ---- the reaper; all below with h->lock held ---- */

/* Ends the connection: the library meets the end of its socket, a sleeping exchange its owner. */
static void kill_conn(struct conn *c)
{
    if (c->killed || c->closed)
        return;
    c->killed = true;
    shutdown(c->fd, SHUT_RDWR);
    if (c->x) {
        pthread_mutex_lock(&c->x->lock);
        lose(c->x);
        if (c->x->stream)
            wake(c->x);
        pthread_mutex_unlock(&c->x->lock);
    }
}

static void peer_left(struct conn *c)
{
    if (c->closed)
        return;
    c->peer_done = true;
    if (c->x && c->phase == PH_WORK)
        kill_conn(c);
}

static void has_room(struct conn *c)
{
    if (c->closed || !c->x)
        return;
    pthread_mutex_lock(&c->x->lock);
    if (c->x->stream && (c->x->out.n > c->x->out_at || c->x->ended))
        move(c->x);
    pthread_mutex_unlock(&c->x->lock);
}

/* A stream that nobody reads, and one that has been silent. */
static void check_stream(struct conn *c, uint64_t now)
{
    struct exch *x = c->x;
    bool stuck = false;
    pthread_mutex_lock(&x->lock);
    if (x->stream && !x->ended && !x->gone) {
        stuck = x->stuck_ns && now > x->stuck_ns + (uint64_t)c->h->o.write_ms * 1000000;
        /* To who doesn't read nothing more is said: a few bytes that the kernel takes are no sign
         * of life. */
        if (x->queued && !x->stuck_ns && now > x->wrote_ns + PING_MS * 1000000ull) {
            x->wrote_ns = x->stuck_ns = now;
            buf_puts(&x->out, ": ping\n\n");
            move(x);
        }
    } else if (x->stream && !x->gone) { /* ended: the rest must be read */
        stuck = x->stuck_ns && now > x->stuck_ns + (uint64_t)c->h->o.write_ms * 1000000;
    }
    pthread_mutex_unlock(&x->lock);
    if (stuck)
        kill_conn(c);
}

/* The client stopped sending inside its body. The library does not see an end that comes together
 * with the last bytes, so it is told by the socket: nothing left to read, at two sweeps. */
static void check_body(struct conn *c)
{
    int left = 0;
    bool dry = c->peer_done && ioctl(c->fd, FIONREAD, &left) == 0 && left == 0;
    bool waits = false; /* for the rest; not if it was refused before */
    if (c->x) {
        pthread_mutex_lock(&c->x->lock);
        waits = !c->x->replied;
        pthread_mutex_unlock(&c->x->lock);
    }
    if (dry && c->dry && waits) {
        c->h->o.cut_short(c->h->o.ctx, c->x);
        if (!c->h->o.cert)
            (void)answer_past(c->x);
        kill_conn(c);
    }
    c->dry = dry;
}

static void check_conn(struct conn *c, uint64_t now)
{
    const struct http_opts *o = &c->h->o;
    uint64_t ms = now > c->since_ns ? (now - c->since_ns) / 1000000 : 0;
    switch (c->phase) {
    case PH_HEAD:
        if (ms > (uint64_t)o->head_ms)
            kill_conn(c);
        break;
    case PH_BODY:
        if (ms > (uint64_t)o->body_ms)
            kill_conn(c);
        else
            check_body(c);
        break;
    case PH_WRITE:
        if (ms > 2 * (uint64_t)o->write_ms)
            kill_conn(c);
        break;
    case PH_IDLE:
        if (ms > (uint64_t)o->idle_ms) {
            kill_conn(c);
        } else if (bytes_received(c->fd) > c->base_bytes) {
            c->phase = PH_HEAD;
            c->since_ns = now;
        }
        break;
    case PH_WORK:
        if (c->x)
            check_stream(c, now);
        break;
    }
}

static void sweep(struct http *h, uint64_t now)
{
    for (struct conn *c = h->conn, *next; c; c = next) {
        next = c->next;
        if (!c->closed) {
            if (!c->killed)
                check_conn(c, now);
            continue;
        }
        *(c->prev ? &c->prev->next : &h->conn) = c->next;
        if (c->next)
            c->next->prev = c->prev;
        mem_free(c);
    }
    for (int i = 0; i < h->n_linger;) {
        char drop[4096];
        ssize_t n = 1;
        for (int k = 0; k < 64 && n > 0; k++)
            n = recv(h->linger[i].fd, drop, sizeof drop, MSG_DONTWAIT);
        bool over = n == 0 || (n < 0 && errno != EAGAIN) || now > h->linger[i].until_ns;
        if (!over) {
            i++;
            continue;
        }
        close(h->linger[i].fd);
        h->linger[i] = h->linger[--h->n_linger];
    }
}

/* After a crowd the allocator keeps what it took, up to 100 KB a request, until asked. */
static void give_back(struct http *h)
{
    h->n_quiet = atomic_load(&h->n_exch) ? 0 : h->n_quiet + 1;
    if (h->n_quiet >= QUIET_TICKS && atomic_exchange(&h->used, false))
        malloc_trim(0);
}

static void *reap(void *arg)
{
    struct http *h = arg;
    struct epoll_event ev[N_EVENT];
    uint64_t next = 0;
    while (!atomic_load(&h->stop)) {
        int n = epoll_wait(h->ep, ev, N_EVENT, TICK_MS);
        uint64_t now = clock_ns();
        pthread_mutex_lock(&h->lock);
        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            if (c && ev[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                peer_left(c);
            else if (c && ev[i].events & EPOLLOUT)
                has_room(c);
        }
        bool tick = now >= next;
        if (tick) {
            sweep(h, now);
            next = now + TICK_MS * 1000000ull;
        }
        pthread_mutex_unlock(&h->lock);
        if (tick)
            give_back(h);
    }
    return NULL;
}

/* ---- start and end ---- */

static void quiet(void *ctx, const char *fmt, va_list ap)
{
    (void)ctx;
    (void)fmt;
    (void)ap;
}

static int max_connections(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return 256;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    getrlimit(RLIMIT_NOFILE, &r);
    long n = r.rlim_cur > MAX_CONN + 1024 ? MAX_CONN : (long)r.rlim_cur - 128;
    return n < 16 ? 16 : (int)n;
}

static status listen_on(const char *host, int port, int *fd, struct err *e)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0)
        return err_set(e, E_IO, "cannot listen on %.80s: %s", host, gai_strerror(rc));
    int why = 0;
    *fd = -1;
    for (struct addrinfo *a = list; a && *fd < 0; a = a->ai_next) {
        int s = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
        if (s < 0) {
            why = errno;
            continue;
        }
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(s, a->ai_addr, a->ai_addrlen) == 0 && listen(s, 4096) == 0) {
            *fd = s;
        } else {
            why = errno;
            close(s);
        }
    }
    freeaddrinfo(list);
    if (*fd >= 0)
        return OK;
    return err_set(e, E_IO, "cannot listen on %.80s port %d: %s%s", host, port, strerror(why),
                   why == EADDRINUSE ? "; choose another with --port" : "");
}

static int port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

static struct MHD_Daemon *start_library(struct http *h, int fd)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG | (h->o.cert ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)h->o.cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)h->o.key},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    return MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, h, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)max_connections(),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        h, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_ARRAY,
        h->o.cert ? tls : none, MHD_OPTION_END);
}

status http_open(const struct http_opts *o, struct http **out, struct err *e)
{
    int fd = -1;
    status st = OK;
    *out = NULL;
    struct http *h = mem_calloc(1, sizeof *h);
    if (!h)
        return err_set(e, E_NOMEM, "out of memory");
    h->o = *o;
    pthread_mutex_init(&h->lock, NULL);
    h->ep = epoll_create1(EPOLL_CLOEXEC);
    h->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->ep < 0 || h->wake < 0)
        TRY(err_set(e, E_IO, "cannot watch connections: %s", strerror(errno)));
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
    epoll_ctl(h->ep, EPOLL_CTL_ADD, h->wake, &ev);
    TRY(listen_on(o->host, o->port, &fd, e));
    h->port = port_of(fd);
    h->d = start_library(h, fd);
    if (!h->d) {
        close(fd);
        TRY(err_set(e, E_IO, "cannot start the HTTP server%s",
                    o->cert ? "; are --tls-cert and --tls-key a pair in PEM?" : ""));
    }
    if (pthread_create(&h->reaper, NULL, reap, h) != 0)
        TRY(err_set(e, E_LIMIT, "the system refuses another thread"));
    h->has_reaper = true;
    *out = h;
    return OK;
out:
    http_close(h);
    return st;
}

void http_close(struct http *h)
{
    if (!h)
        return;
    if (h->d)
        MHD_stop_daemon(h->d); /* closes the listening socket too */
    if (h->has_reaper) {
        atomic_store(&h->stop, true);
        (void)!eventfd_write(h->wake, 1);
        pthread_join(h->reaper, NULL);
    }
    for (struct conn *c = h->conn, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    for (int i = 0; i < h->n_linger; i++)
        close(h->linger[i].fd);
    if (h->ep >= 0)
        close(h->ep);
    if (h->wake >= 0)
        close(h->wake);
    pthread_mutex_destroy(&h->lock);
    mem_free(h);
}

int http_port(const struct http *h)
{
    return h->port;
}
