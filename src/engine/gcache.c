#include "engine/gcache.h"

#include "base/mem.h"
#include "base/rng.h"
#include "engine/schema.h"

#include <pthread.h>
#include <string.h>

enum { N_BUCKET = 1024 };

struct entry {
    struct entry *next;          /* in its bucket */
    struct entry *newer, *older; /* by use */
    struct grammar *g;
    uint64_t hash;
    size_t n, bytes;
    enum gcache_kind kind;
    char text[]; /* [n] */
};

struct gcache {
    pthread_mutex_t lock;
    const struct prelude *p;
    uint64_t seed; /* of the hash: clients choose the texts */
    struct entry *bucket[N_BUCKET];
    struct entry *newest, *oldest;
    size_t max_bytes;
    struct gcache_stats stats;
};

static uint64_t hash_text(uint64_t seed, enum gcache_kind kind, const char *s, size_t n)
{
    uint64_t h = seed ^ n ^ (uint64_t)kind << 60;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = 0;
        memcpy(&v, s + i, n - i < 8 ? n - i : 8);
        h = (h ^ v) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
        h ^= h >> 32;
    }
    return h ^ h >> 29;
}

static void unlink_use(struct gcache *c, struct entry *x)
{
    *(x->newer ? &x->newer->older : &c->newest) = x->older;
    *(x->older ? &x->older->newer : &c->oldest) = x->newer;
}

static void link_newest(struct gcache *c, struct entry *x)
{
    x->newer = NULL;
    x->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = x;
    c->newest = x;
}

static void drop(struct gcache *c, struct entry *x)
{
    struct entry **at = &c->bucket[x->hash % N_BUCKET];
    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    unlink_use(c, x);
    c->stats.bytes -= x->bytes;
    c->stats.n--;
    grammar_unref(x->g);
    mem_free(x);
}

static struct entry *find(struct gcache *c, uint64_t hash, enum gcache_kind kind, const char *s,
                          size_t n)
{
    for (struct entry *x = c->bucket[hash % N_BUCKET]; x; x = x->next)
        if (x->hash == hash && x->kind == kind && x->n == n && (!n || memcmp(x->text, s, n) == 0))
            return x;
    return NULL;
}

static status compile(struct gcache *c, enum gcache_kind kind, const char *text, size_t n,
                      struct grammar **g, struct err *e)
{
    status st = OK;
    struct json *j = NULL;
    const char **s = NULL;
    size_t *len = NULL;
    if (kind == GRAMMAR_OBJECT)
        return schema_any_object(c->p, g, e);
    if (kind == GRAMMAR_REGEX)
        return schema_regex(c->p, text, n, g, e);
    TRY(json_parse(text, n, &schema_json_limits, &j, e));
    if (kind == GRAMMAR_SCHEMA) {
        TRY(schema_compile(c->p, j, g, e));
        goto out;
    }
    size_t n_s = json_len(j);
    s = mem_array(n_s + 1, sizeof *s);
    len = mem_array(n_s + 1, sizeof *len);
    if (!s || !len) {
        st = err_set(e, E_NOMEM, "out of memory for choices");
        goto out;
    }
    for (size_t i = 0; i < n_s; i++) {
        if (json_kind(json_at(j, i)) != J_STR) {
            st = err_param(e, E_INPUT, "choice", "choices must be a list of strings");
            goto out;
        }
        s[i] = json_str(json_at(j, i), &len[i]);
    }
    TRY(schema_choice(c->p, s, len, n_s, g, e));
out:
    mem_free(s);
    mem_free(len);
    json_free(j);
    return st;
}

status gcache_get(struct gcache *c, enum gcache_kind kind, const char *text, size_t n,
                  struct grammar **g, struct err *e)
{
    uint64_t hash = hash_text(c->seed, kind, text, n);
    *g = NULL;
    pthread_mutex_lock(&c->lock);
    struct entry *x = find(c, hash, kind, text, n);
    if (x) {
        unlink_use(c, x);
        link_newest(c, x);
        *g = grammar_ref(x->g);
        c->stats.hits++;
    } else {
        c->stats.misses++;
    }
    pthread_mutex_unlock(&c->lock);
    if (x)
        return OK;
    status st = compile(c, kind, text, n, g, e);
    if (st < 0)
        return st;
    size_t bytes = sizeof *x + n + (*g)->bytes;
    if (bytes > c->max_bytes || !(x = mem_alloc(sizeof *x + n)))
        return OK; /* usable, just not kept */
    *x = (struct entry){.g = *g, .hash = hash, .n = n, .bytes = bytes, .kind = kind};
    if (n)
        memcpy(x->text, text, n);
    pthread_mutex_lock(&c->lock);
    if (find(c, hash, kind, text, n)) { /* another thread was quicker */
        mem_free(x);
    } else {
        while (c->stats.bytes + bytes > c->max_bytes) {
            drop(c, c->oldest);
            c->stats.dropped++;
        }
        grammar_ref(*g);
        x->next = c->bucket[hash % N_BUCKET];
        c->bucket[hash % N_BUCKET] = x;
        link_newest(c, x);
        c->stats.bytes += bytes;
        c->stats.n++;
    }
    pthread_mutex_unlock(&c->lock);
    return OK;
}

status gcache_new(const struct prelude *p, size_t max_bytes, struct gcache **out)
{
    struct gcache *c = mem_calloc(1, sizeof *c);
    *out = c;
    if (!c)
        return E_NOMEM;
    pthread_mutex_init(&c->lock, NULL);
    c->p = p;
    c->seed = rng_os_seed();
    c->max_bytes = max_bytes;
    return OK;
}

void gcache_free(struct gcache *c)
{
    if (!c)
        return;
    while (c->oldest)
        drop(c, c->oldest);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

void gcache_stats(struct gcache *c, struct gcache_stats *s)
{
    pthread_mutex_lock(&c->lock);
    *s = c->stats;
    pthread_mutex_unlock(&c->lock);
}
