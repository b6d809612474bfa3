/* Stop texts: found in what a client sees, over token borders.
 *
 * Visible is the text of the final channel, of messages without a channel, and of commentary that
 * is not addressed to a tool; of a plain (not harmony) stream, everything. Analysis and the
 * arguments of tool calls never match, nor does a text match over the border of two messages.
 * Positions count the visible bytes of the whole stream.
 */
#ifndef ENGINE_STOP_H
#define ENGINE_STOP_H

#include "text/harmony.h"

enum { STOP_MAX = 64, STOP_MAX_BYTES = 1024 };

struct stop {
    const struct vocab *vocab;
    struct harmony_parser *parser; /* NULL for a plain stream */
    char *text;                    /* the stop texts, one behind the other */
    const char *at[STOP_MAX];
    size_t len[STOP_MAX];
    int n; /* 0: no stop texts, nothing is done */
    size_t longest;
    struct buf tail; /* the last visible bytes of the message under way */
    uint64_t end;    /* visible bytes so far */
    int message;
};

/* Copies the texts [n]. E_INPUT for an empty one, E_LIMIT for too many or too long. */
MUST_USE status stop_open(struct stop *s, const struct vocab *, bool plain, const char *const *text,
                          int n, struct err *e);
void stop_close(struct stop *s);

struct stop_found {
    uint64_t from, to;  /* the token's visible bytes */
    uint64_t undecided; /* from here on bytes may still turn out to begin a stop text */
    int which;          /* index of the stop text that the token completed, or -1 */
    uint64_t match;     /* where it begins */
};
/* One generated token. Fails only for lack of memory. */
MUST_USE status stop_feed(struct stop *s, int32_t id, struct stop_found *f);

#endif
