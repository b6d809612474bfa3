/* The chain of thought behind each tool call, by the call's id: clients that send the call back
 * without it lose nothing. Bounded in number and bytes; the oldest goes first. Tenants never see
 * each other's.
 */
#include "base/mem.h"
#include "serve/server.h"

#include <string.h>

enum {
    SLOTS = 4096,         /* a power of two */
    MAX_BYTES = 64 << 20, /* in all */
    MAX_ONE = 1 << 20     /* a longer thought is not kept */
};

struct thought {
    uint64_t tenant;
    char id[40];
    char *text; /* [n], NULL: free */
    size_t n;
    uint64_t age;
};

/* A ring in order of age, searched from the newest: lookups are few, and their calls are recent. */
struct thoughts {
    pthread_mutex_t lock;
    struct thought slot[SLOTS];
    uint64_t next; /* its slot is the oldest */
    uint64_t first;
    size_t bytes;
};

status thoughts_open(struct thoughts **out)
{
    struct thoughts *t = mem_calloc(1, sizeof *t);
    *out = t;
    if (!t)
        return E_NOMEM;
    pthread_mutex_init(&t->lock, NULL);
    return OK;
}

static void drop_oldest(struct thoughts *t)
{
    struct thought *s = &t->slot[t->first++ & (SLOTS - 1)];
    t->bytes -= s->n;
    mem_free(s->text);
    *s = (struct thought){0};
}

void thoughts_close(struct thoughts *t)
{
    if (!t)
        return;
    while (t->first != t->next)
        drop_oldest(t);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

void thoughts_keep(struct thoughts *t, uint64_t tenant, const char *call_id, const char *text,
                   size_t n)
{
    if (!n || n > MAX_ONE || strlen(call_id) >= sizeof t->slot[0].id)
        return;
    char *copy = mem_strndup(text, n);
    if (!copy)
        return; /* a client that replays it loses nothing */
    pthread_mutex_lock(&t->lock);
    while (t->next - t->first == SLOTS || (t->first != t->next && t->bytes + n > MAX_BYTES))
        drop_oldest(t);
    struct thought *s = &t->slot[t->next++ & (SLOTS - 1)];
    *s = (struct thought){.tenant = tenant, .text = copy, .n = n};
    memcpy(s->id, call_id, strlen(call_id) + 1);
    t->bytes += n;
    pthread_mutex_unlock(&t->lock);
}

bool thoughts_get(struct thoughts *t, uint64_t tenant, const char *call_id, struct buf *b)
{
    bool found = false;
    pthread_mutex_lock(&t->lock);
    for (uint64_t i = t->next; i != t->first && !found; i--) {
        const struct thought *s = &t->slot[(i - 1) & (SLOTS - 1)];
        found = s->tenant == tenant && strcmp(s->id, call_id) == 0;
        if (found)
            buf_put(b, s->text, s->n);
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}
