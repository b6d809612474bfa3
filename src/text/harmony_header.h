/* One message header: the words between <|start|> and <|message|>. Private to the parser. */
#ifndef TEXT_HARMONY_HEADER_H
#define TEXT_HARMONY_HEADER_H

#include "text/harmony.h"

/* Strings point into the header text or the scratch buffer given to the reader. */
struct header {
    enum harmony_role role;
    struct str name, recipient, channel, content_type;
    struct str rest; /* what is no header word, when there is no body */
};

/* Reads the header as the library does. `preset`: h->role is given, else the first word names it.
 * `rest`: the malformed-message rule of lenient mode, which finds only the channel and leaves the
 * other words as h->rest; otherwise words left over are an error. E_INPUT, E_NOMEM, E_LIMIT. */
MUST_USE status header_read(const char *s, size_t n, bool preset, bool rest, struct buf *scratch,
                            struct header *h, struct err *e);

/* In recover mode the control tokens inside a header are bytes that UTF-8 never has, so that text
 * which only looks like one stays text. */
enum { HEADER_CHANNEL = 0xff, HEADER_CONSTRAIN = 0xfe };

enum header_end {
    HEADER_BODY,    /* <|message|> followed */
    HEADER_STOPPED, /* a stop token: the words were meant as a message */
    HEADER_CUT      /* the stream ended */
};

/* Reads any header at all. `preset` as above. E_NOMEM and E_LIMIT only. */
MUST_USE status header_recover(const char *s, size_t n, bool preset, enum header_end end,
                               struct buf *scratch, struct header *h);

#endif
