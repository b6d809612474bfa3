/* The HTTP client behind a pipe. Arguments: base URL, calls at once, retries, first pause, longest
 * pause, time limit (s), most bytes of an answer. Standard input: a JSON object per call with
 * "path", "body" (text, absent: GET) and "stream". Standard output: an object per finished call.
 */
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "remote/client.h"

#include <stdio.h>
#include <string.h>

struct one {
    struct client_call call;
    struct json *spec;
    struct buf data; /* JSON array items: [milliseconds since the call's start, text] */
    int n_data;
    int i;
};

static status on_data(void *user, const char *data, size_t n, uint64_t t_ns, struct err *e)
{
    struct one *x = user;
    if (n == 6 && memcmp(data, "refuse", 6) == 0)
        return err_set(e, E_FORMAT, "refused by the caller");
    buf_printf(&x->data, "%s[%.3f,", x->n_data++ ? "," : "",
               (double)(t_ns - x->call.start_ns) * 1e-6);
    json_quote(&x->data, data, n);
    buf_putc(&x->data, ']');
    return OK;
}

static void print(const struct one *x)
{
    const struct client_call *q = &x->call;
    struct buf b;
    buf_init(&b, 1 << 30);
    buf_printf(&b, "{\"i\":%d,\"status\":%d,\"error\":", x->i, q->st);
    json_quote(&b, q->err.msg, strlen(q->err.msg));
    buf_printf(&b, ",\"http\":%d,\"n_try\":%d,\"ms\":%.3f,\"request_id\":", q->http, q->n_try,
               (double)(q->end_ns - q->start_ns) * 1e-6);
    json_quote(&b, q->request_id, strlen(q->request_id));
    buf_puts(&b, ",\"answer\":");
    json_quote(&b, q->answer.p, q->answer.n);
    buf_printf(&b, ",\"data\":[%s]}", x->data.p);
    puts(b.p);
    buf_fini(&b);
}

static double arg(char **argv, int i)
{
    double v = 0;
    return num_f64(argv[i], 0, 1e12, &v) == OK ? v : 0;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct client *c = NULL;
    struct buf in;
    buf_init(&in, 1 << 30);
    if (argc != 8)
        return 2;
    struct client_opts o = {
        .base_url = argv[1],
        .api_key = "sk-test",
        .n_parallel = (int)arg(argv, 2),
        .max_retries = (int)arg(argv, 3),
        .backoff_s = arg(argv, 4),
        .backoff_max_s = arg(argv, 5),
        .connect_timeout_s = 5,
        .timeout_s = arg(argv, 6),
        .max_answer_bytes = (size_t)arg(argv, 7),
    };
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0)
        buf_put(&in, block, n);
    if (client_open(&o, &c, &e) < 0) {
        printf("{\"status\":%d,\"error\":\"%s\"}\n", e.code, e.msg);
        buf_fini(&in);
        return 1;
    }
    int i = 0;
    for (char *p = in.p, *end; (end = strchr(p, '\n')); p = end + 1) {
        struct one *x = mem_calloc(1, sizeof *x);
        if (!x || json_parse(p, (size_t)(end - p), &json_limits_file, &x->spec, &e) < 0)
            return 2;
        const struct json *body = json_get(x->spec, "body");
        bool stream = false;
        if (json_get_bool(x->spec, "stream", &stream, &e) < 0)
            return 2;
        buf_init(&x->data, 1 << 30);
        x->i = i++;
        x->call.path = json_str(json_get(x->spec, "path"), NULL);
        if (json_kind(body) == J_STR)
            x->call.body = json_str(body, &x->call.n_body);
        x->call.on_data = stream ? on_data : NULL;
        x->call.user = x;
        if (client_send(c, &x->call, &e) < 0)
            return 2;
    }
    struct client_call *q;
    while ((q = client_next(c, -1))) {
        struct one *x = q->user;
        print(x);
        buf_fini(&q->answer);
        buf_fini(&x->data);
        json_free(x->spec);
        mem_free(x);
    }
    client_close(c);
    buf_fini(&in);
    return 0;
}
