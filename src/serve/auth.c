/* Who may ask: API keys, Host and Origin.
 *
 * Keys are kept as two 64-bit keyed hashes and compared without a branch on the result, all of them
 * each time, so that the time says nothing about a key. A tenant is a third hash under the server's
 * own salt: it names whose prefix cache and whose share of the machine a request uses.
 */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "serve/server.h"

#include <string.h>

enum { MAX_KEYS = 4096, KEY_FILE_MAX = 1 << 20 };

struct digest {
    uint64_t a, b;
};

struct auth {
    struct server *s;
    pthread_mutex_t lock;
    struct hash_key salt[2];
    struct digest *key; /* [n] */
    int n;
};

static struct digest digest_of(const struct auth *a, const char *key, size_t n)
{
    return (struct digest){hash_sip(a->salt[0], key, n), hash_sip(a->salt[1], key, n)};
}

static status add(struct auth *a, struct digest **key, int *n, const char *s, size_t len,
                  struct err *e)
{
    if (*n == MAX_KEYS)
        return err_set(e, E_LIMIT, "more than %d API keys", MAX_KEYS);
    struct digest *to = mem_realloc_array(*key, (size_t)*n + 1, sizeof *to);
    if (!to)
        return err_set(e, E_NOMEM, "out of memory for the API keys");
    *key = to;
    to[(*n)++] = digest_of(a, s, len);
    return OK;
}

/* A key a line; blank lines and those that begin with # are none. */
static status read_file(struct auth *a, const char *path, struct digest **key, int *n,
                        struct err *e)
{
    struct buf b;
    buf_init(&b, KEY_FILE_MAX);
    status st = OK;
    TRY(file_read(path, &b, e));
    for (const char *p = b.p, *end = b.p + b.n; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((nl ? nl : end) - p);
        const char *line = p;
        p += len + 1;
        while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
            len--;
        if (len && line[0] != '#')
            TRY(add(a, key, n, line, len, e));
    }
    if (*n == 0)
        st = err_set(e, E_INPUT, "--api-key-file %.80s: holds no key", path);
out:
    buf_fini(&b);
    return st;
}

status auth_reload(struct auth *a, struct err *e)
{
    struct digest *key = NULL;
    int n = 0;
    status st = OK;
    const struct serve_opts *o = &a->s->o;
    for (int i = 0; i < o->n_key; i++)
        TRY(add(a, &key, &n, o->key[i], strlen(o->key[i]), e));
    if (o->key_file)
        TRY(read_file(a, o->key_file, &key, &n, e));
    pthread_mutex_lock(&a->lock);
    struct digest *old = a->key;
    a->key = key;
    a->n = n;
    pthread_mutex_unlock(&a->lock);
    key = old;
out:
    mem_free(key);
    return st;
}

status auth_open(struct server *s, struct auth **out, struct err *e)
{
    struct auth *a = mem_calloc(1, sizeof *a);
    *out = a;
    if (!a)
        return err_set(e, E_NOMEM, "out of memory");
    a->s = s;
    for (int i = 0; i < 2; i++)
        a->salt[i] = (struct hash_key){rng_os_seed(), rng_os_seed()};
    pthread_mutex_init(&a->lock, NULL);
    return auth_reload(a, e);
}

void auth_close(struct auth *a)
{
    if (!a)
        return;
    pthread_mutex_destroy(&a->lock);
    mem_free(a->key);
    mem_free(a);
}

bool auth_needed(struct auth *a)
{
    pthread_mutex_lock(&a->lock);
    bool any = a->n > 0;
    pthread_mutex_unlock(&a->lock);
    return any;
}

static bool auth_known(struct auth *a, const char *key, uint64_t *tenant)
{
    size_t len = strlen(key);
    struct digest d = digest_of(a, key, len);
    *tenant = hash_sip(a->s->salt, key, len);
    uint64_t found = 0;
    pthread_mutex_lock(&a->lock);
    for (int i = 0; i < a->n; i++) {
        uint64_t diff = (a->key[i].a ^ d.a) | (a->key[i].b ^ d.b);
        found |= ~(diff | (0 - diff)) >> 63; /* 1 when diff is 0 */
    }
    pthread_mutex_unlock(&a->lock);
    return found != 0;
}

bool auth_check(struct auth *a, const struct exch *x, uint64_t *tenant)
{
    *tenant = 0;
    if (!auth_needed(a))
        return true;
    const char *h = http_header(x, "Authorization"), *key = NULL;
    if (h && strncasecmp(h, "Bearer ", 7) == 0)
        key = h + 7;
    else if (!h)
        key = http_header(x, "x-api-key");
    while (key && *key == ' ')
        key++;
    return key && auth_known(a, key, tenant);
}

/* Whether `host`, perhaps with a port behind it, is `name`. */
static bool same_host(const char *host, const char *name)
{
    size_t n = strlen(name);
    bool bare6 = strchr(name, ':') && name[0] != '[';
    if (bare6) { /* written in brackets in a header */
        if (host[0] != '[' || strncasecmp(host + 1, name, n) != 0 || host[n + 1] != ']')
            return false;
        host += n + 2;
    } else {
        if (strncasecmp(host, name, n) != 0)
            return false;
        host += n;
    }
    return *host == '\0' || (*host == ':' && strspn(host + 1, "0123456789") == strlen(host + 1));
}

bool auth_host_ok(const struct server *s, const char *host)
{
    static const char *const loopback[] = {"localhost", "127.0.0.1", "::1"};
    for (int i = 0; i < 3; i++)
        if (same_host(host, loopback[i]))
            return true;
    if (same_host(host, s->o.host))
        return true;
    for (int i = 0; i < s->o.n_allowed_host; i++)
        if (strcmp(s->o.allowed_host[i], "*") == 0 || same_host(host, s->o.allowed_host[i]))
            return true;
    return false;
}

bool auth_origin_ok(const struct server *s, const char *origin)
{
    for (int i = 0; i < s->o.n_origin; i++)
        if (strcmp(s->o.origin[i], "*") == 0 || strcasecmp(s->o.origin[i], origin) == 0)
            return true;
    return false;
}
