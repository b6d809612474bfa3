/* The HTTP client: requests to OpenAI-compatible servers, many at once from one thread.
 *
 * A client owns its connections and a bounded number of running calls; a call belongs to its
 * caller, who keeps it in place from client_send until client_next returns it. Nothing runs
 * except inside client_next, so callbacks come on the caller's thread. The server is untrusted:
 * answers and event lines have ceilings, redirects are not followed, and error texts of servers
 * are shortened and made printable. This is the only file that sees libcurl.
 */
#ifndef REMOTE_CLIENT_H
#define REMOTE_CLIENT_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct client_opts {
    const char *base_url; /* "http://localhost:8000/v1" */
    const char *api_key;  /* sent as a bearer token, or NULL */
    int n_parallel;       /* calls under way at once, at least 1 */
    int max_retries;      /* after 408, 409, 429, 5xx and failed connections; not after the first
                             event of a stream */
    double backoff_s;     /* first pause, doubled each time, with jitter; Retry-After goes first */
    double backoff_max_s; /* longest pause, of Retry-After too */
    double connect_timeout_s; /* per connection */
    double timeout_s;         /* per try, 0: none */
    size_t max_answer_bytes;  /* of one answer or one event line; more is E_LIMIT */
};

/* One request. Zero it, set the first part, send it. */
struct client_call {
    const char *path; /* behind base_url: "/chat/completions" */
    const char *body; /* [n_body] JSON, borrowed; NULL: GET */
    size_t n_body;
    /* Text of each "data:" line of a stream with its time; "[DONE]" is not passed on. An error
     * ends the call with that error. NULL: the answer is kept whole. Not called for the bodies of
     * failed tries. */
    status (*on_data)(void *user, const char *data, size_t n, uint64_t t_ns, struct err *e);
    void *user;

    /* Set when client_next returns it. */
    struct buf answer; /* the body, of an error too; free with buf_fini */
    status st;         /* OK: a 2xx answer that came whole; its reason is in err */
    struct err err;
    int http;                    /* status code of the last try, 0: no answer */
    int n_try;                   /* tries made */
    uint64_t start_ns;           /* when the last try went out */
    uint64_t first_ns, end_ns;   /* its first byte of body, its end */
    char request_id[64];         /* x-request-id of the answer, or "" */
    struct client_try *transfer; /* the client's own */
};

struct client;
MUST_USE status client_open(const struct client_opts *, struct client **, struct err *e);
void client_close(struct client *); /* drops calls under way; NULL allowed */
/* Queues the call; more than n_parallel wait their turn. */
MUST_USE status client_send(struct client *, struct client_call *, struct err *e);
/* Works until a call is finished or timeout_ms passed (0: only what is ready, -1: no limit).
 * NULL: none finished. */
struct client_call *client_next(struct client *, int timeout_ms);
int client_running(const struct client *); /* sent and not returned */

#endif
