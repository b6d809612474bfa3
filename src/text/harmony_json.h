/* Conversations from and to JSON: the harmony library's own form and OpenAI chat requests. */
#ifndef TEXT_HARMONY_JSON_H
#define TEXT_HARMONY_JSON_H

#include "base/json.h"
#include "text/harmony.h"

enum harmony_json_form {
    FORM_AUTO,    /* told apart by content */
    FORM_LIBRARY, /* {"messages":[{role, content parts, channel, recipient, content_type}]} */
    FORM_OPENAI   /* a messages array, or an object with messages, tools, reasoning_effort */
};

/* How an OpenAI request becomes a conversation (docs/harmony.md). Absent strings take defaults. */
struct harmony_openai_opts {
    struct str identity;     /* replaces the default identity line */
    struct str current_date; /* "YYYY-MM-DD"; absent prints no date line */
    bool has_effort;         /* overrides the request's reasoning_effort */
    enum harmony_effort effort;
    struct str response_schema; /* JSON Schema of the answer, printed as the response format */
};

/* Builds the conversation in `a`; strings and schemas may point into `root`, which must live as
 * long. E_INPUT with `param` naming the field ("messages[2].role") for anything missing or wrong.
 */
MUST_USE status harmony_from_json(const struct json *root, enum harmony_json_form,
                                  const struct harmony_openai_opts *, struct arena *a,
                                  struct harmony_conversation *, struct err *);

/* Appends {"messages":[...]} in the library's form / one message of it. */
void harmony_to_json(struct buf *out, const struct harmony_message *msg, int n);
void harmony_message_json(struct buf *out, const struct harmony_message *msg);

#endif
