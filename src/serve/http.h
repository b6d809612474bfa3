/* HTTP: libmicrohttpd behind our own exchange type. http.c is the only file that sees the library.
 *
 * One io thread owns all sockets and never blocks: it reads requests, calls `head` and `request`,
 * and writes what others have put into an exchange. While somebody works on an exchange its
 * connection sleeps (suspended); http_reply, http_write and http_end wake it, from any thread.
 * Without TLS a stream's bytes go past the library: while its connection sleeps its socket is
 * nobody else's, and http_wake sends them from the writer's own thread. That saves two thread
 * switches and half of the CPU time per token. A second thread, the reaper, watches the clock and
 * the clients: it ends connections at the deadline of their phase (head, body, write: the whole
 * phase, not the idle moment), tells the owner of an exchange when its client has vanished, and
 * sends the rest to a client that reads slowly.
 *
 * An exchange lives while somebody holds a reference. The io thread holds one until the request is
 * over; who works on it takes one (exch_ref) and gives it back.
 */
#ifndef SERVE_HTTP_H
#define SERVE_HTTP_H

#include "base/buf.h"
#include "base/err.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct http;
struct conn;
struct MHD_Connection;

enum {
    HTTP_HEAD_BYTES = 16 << 10, /* request line and header lines */
    HTTP_OUT_BYTES = 64 << 20,  /* one answer */
    HTTP_HIGH_WATER = 32 << 10, /* unread bytes of a stream at which its producer should pause */
    HTTP_MAX_HEADER = 16
};

/* A request and its answer. The first group is constant once `request` was called. */
struct exch {
    const char *method, *path; /* path decoded, without the query */
    struct buf body;
    char id[72]; /* x-request-id: the client's, if it is a decent one, else ours */
    uint64_t start_ns;
    uint64_t tenant; /* set by `head`: who asks */
    const void *route;

    /* private to http.c */
    struct http *h;
    struct conn *conn;
    struct MHD_Connection *c;
    atomic_int refs;
    pthread_mutex_t lock;
    bool asleep;        /* suspended */
    bool past;          /* a stream may go past the library: plain HTTP/1.1 */
    bool replied;       /* status and headers are set */
    bool queued;        /* the library has the answer */
    bool stream, ended; /* body grows until ended */
    bool gone;          /* nobody reads any more */
    bool over_limit;    /* the body went past its ceiling */
    size_t body_bytes;  /* received so far */
    bool reading;       /* body still arriving */
    bool lax;           /* its head is not quite HTTP/1.1 (http_strict) */
    bool last;          /* of its connection, whatever the client wants */
    int status;
    const char *type;  /* content type of the answer */
    struct buf header; /* name NUL value NUL ... */
    struct buf out;    /* answer; of a stream what was not taken yet */
    size_t out_at;
    size_t n_framed; /* bytes at out_at that end a chunk begun past the library */
    uint64_t out_bytes;
    uint64_t stuck_ns; /* since when `out` waits for the client; 0: it is empty */
    uint64_t wrote_ns; /* last http_write */
    void (*on_gone)(void *);
    void (*on_room)(void *);
    void *on_arg;
};

struct http_opts {
    const char *host;
    int port;               /* 0: any free one */
    const char *cert, *key; /* PEM text, or NULL for plain HTTP */
    size_t max_body;        /* bytes of one request */
    size_t max_bodies;      /* of all that are held at once */
    int head_ms, body_ms, write_ms, idle_ms;
    void *ctx;
    /* The head has come (io thread). May reply: then the body is not read. */
    void (*head)(void *ctx, struct exch *);
    /* The whole request has come (io thread). Replies at once, or hands the exchange to another
     * thread (with a reference). */
    void (*request)(void *ctx, struct exch *);
    /* The body passed max_body, or (crowded) all bodies together max_bodies: must reply. */
    void (*too_large)(void *ctx, struct exch *, bool crowded);
    /* The client stopped sending inside its body (reaper): must reply. */
    void (*cut_short)(void *ctx, struct exch *);
    /* The exchange is over (io thread): for the log. */
    void (*done)(void *ctx, const struct exch *);
};

/* Binds and begins to serve. E_IO naming host and port when that fails. */
MUST_USE status http_open(const struct http_opts *, struct http **, struct err *);
/* Every exchange must have been answered. Closes all connections. */
void http_close(struct http *);
int http_port(const struct http *);
int http_connections(struct http *);
int http_active(struct http *); /* requests under way */

void exch_ref(struct exch *);
void exch_unref(struct exch *);

/* Of the request; valid until it is answered. */
const char *http_header(const struct exch *, const char *name);
int http_header_count(const struct exch *, const char *name);
/* Whether every line of the head ends in CRLF, none is folded, none holds a NUL or CR. */
bool http_strict(const struct exch *);
const char *http_query(const struct exch *, const char *name);

/* Adds a header line to the answer; before http_reply or http_stream. */
void http_set(struct exch *, const char *name, const char *value);
/* Answers with the bytes of `body`, which is emptied (NULL: no body). A second answer is ignored.
 */
void http_reply(struct exch *, int code, const char *type, struct buf *body);
/* Answers 200 with a body that grows. */
void http_stream(struct exch *, const char *type);
/* Adds to the stream; the bytes leave, together if they fit the socket, at the next http_wake. True
 * while the client keeps up. */
bool http_write(struct exch *, const void *p, size_t n);
void http_wake(struct exch *);
void http_end(struct exch *);

/* From now on `gone` is called (any thread, once) when the client vanishes, and `room` when it has
 * read enough for a paused producer to go on. NULL ends that. True: it has vanished already. */
bool http_watch(struct exch *, void (*gone)(void *), void (*room)(void *), void *arg);
bool http_gone(struct exch *);

#endif
