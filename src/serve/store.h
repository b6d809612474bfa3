/* Stored responses: SQLite, in memory or in a file (WAL). Bounded in number and bytes; the oldest
 * go first. Each belongs to a tenant, who alone sees it. The store also keeps the secrets that must
 * outlive the process when its responses do.
 */
#ifndef SERVE_STORE_H
#define SERVE_STORE_H

#include "base/buf.h"
#include "base/hash.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

struct store_secrets {
    struct hash_key salt; /* of tenants */
    uint8_t seal[32];     /* key of sealed thoughts */
};

/* path NULL: in memory. */
MUST_USE status store_open(const char *path, struct store **, struct err *);
void store_close(struct store *);
MUST_USE status store_secrets(struct store *, struct store_secrets *, struct err *);

/* A response as its JSON object, the items of its input as a JSON list, and the response before. */
MUST_USE status store_put(struct store *, uint64_t tenant, const char *id, const char *previous,
                          const struct buf *object, const struct buf *input);
/* Appends what is asked for (NULL: not wanted); false when there is no such response. `previous`
 * receives the id before, or "". */
bool store_get(struct store *, uint64_t tenant, const char *id, struct buf *object,
               struct buf *input, char previous[64]);
bool store_delete(struct store *, uint64_t tenant, const char *id);
/* Of the tenant's last 200 responses, the one whose input or output holds the item. */
bool store_find_item(struct store *, uint64_t tenant, const char *item, char id[64]);

#endif
