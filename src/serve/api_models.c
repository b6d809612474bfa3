/* GET /v1/models and what names the loaded model. */
#include "serve/server.h"

#include <string.h>

const char *model_shown(const struct server *s)
{
    return s->o.n_name ? s->o.name[0] : s->o.model;
}

/* gpt-oss-20b, openai/gpt-oss-20b and gpt-oss:20b are one. */
static bool same_model(const char *a, const char *b)
{
    static const char org[] = "openai/";
    if (strncmp(a, org, sizeof org - 1) == 0)
        a += sizeof org - 1;
    if (strncmp(b, org, sizeof org - 1) == 0)
        b += sizeof org - 1;
    if (strcmp(a, b) == 0)
        return true;
    static const char family[] = "gpt-oss";
    size_t n = sizeof family - 1;
    return strncmp(a, family, n) == 0 && strncmp(b, family, n) == 0 &&
           (a[n] == '-' || a[n] == ':') && (b[n] == '-' || b[n] == ':') &&
           strcmp(a + n + 1, b + n + 1) == 0;
}

bool model_named(const struct server *s, const char *name)
{
    if (s->o.any_name || same_model(name, s->o.model) ||
        (s->info.name && same_model(name, s->info.name)))
        return true;
    for (int i = 0; i < s->o.n_name; i++)
        if (strcmp(name, s->o.name[i]) == 0)
            return true;
    return false;
}

static void put_model(const struct server *s, struct buf *b, const char *name)
{
    buf_puts(b, "{\"id\":");
    json_quote(b, name, strlen(name));
    buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"openai\"",
               (long long)s->created);
    if (s->n_ctx)
        buf_printf(b,
                   ",\"max_model_len\":%d,\"context_length\":%d,\"meta\":{\"n_ctx_train\":%d,"
                   "\"n_params\":%lld,\"size\":%lld,\"n_vocab\":%d}",
                   s->n_ctx, s->n_ctx, s->info.n_ctx, (long long)s->info.n_param,
                   (long long)s->info.bytes_total, s->info.n_vocab);
    buf_putc(b, '}');
}

void api_models(struct server *s, struct exch *x, const char *id)
{
    (void)id;
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    put_model(s, &b, model_shown(s));
    for (int i = 1; i < s->o.n_name; i++) {
        buf_putc(&b, ',');
        put_model(s, &b, s->o.name[i]);
    }
    buf_puts(&b, "]}");
    http_reply(x, 200, "application/json", &b);
    buf_fini(&b);
}

void api_model(struct server *s, struct exch *x, const char *id)
{
    if (!model_named(s, id)) {
        api_error(x, 404, "model_not_found", "model", "the model '%.100s' is not loaded here", id);
        return;
    }
    struct buf b;
    buf_init(&b, 1 << 20);
    put_model(s, &b, id);
    http_reply(x, 200, "application/json", &b);
    buf_fini(&b);
}
