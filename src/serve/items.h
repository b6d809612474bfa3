/* Items of the Responses interface into the messages of a chat. */
#ifndef SERVE_ITEMS_H
#define SERVE_ITEMS_H

#include "serve/server.h"

/* Reads items in order and appends chat messages. */
struct items {
    struct server *s;
    uint64_t tenant;
    struct buf out;                /* messages, with commas */
    struct buf think, text, calls; /* of the assistant's message under way */
    bool open, has_text, preamble;
    int depth; /* of item references */
};

void items_init(struct items *, struct server *, uint64_t tenant);
void items_fini(struct items *);
/* One item; `place` names it in errors ("input[3]"). */
MUST_USE status items_add(struct items *, const struct json *item, const char *place, struct err *);
MUST_USE status items_add_list(struct items *, const struct json *list, const char *place,
                               struct err *);
/* The inputs and outputs of a stored response and of those before it. */
MUST_USE status items_add_stored(struct items *, const char *id, struct err *);
/* Ends the message under way. */
void items_flush(struct items *);

/* Appends the items of `input` (a text or a list) as they are stored: with type, id and status. */
MUST_USE status items_normal(const struct json *input, struct buf *, struct err *);

#endif
