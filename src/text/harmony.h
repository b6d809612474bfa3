/* The harmony format: conversations to tokens, tokens to conversations.
 *
 * Rendering is token-exact with the openai-harmony library 0.0.8. Parsing is total: in the mode
 * HARMONY_RECOVER no token stream fails, no text is lost and no control text reaches a client.
 * This folder knows no tensor and no HTTP. Conversions from and to JSON are in harmony_json.h.
 *
 * Reading order: the types here, harmony_render.c, harmony_ts.c (tool declarations as TypeScript),
 * harmony_header.c (one message header), harmony_parse.c.
 */
#ifndef TEXT_HARMONY_H
#define TEXT_HARMONY_H

#include "base/arena.h"
#include "base/err.h"
#include "text/o200k.h"

#include <stdbool.h>

struct json;

enum harmony_role { ROLE_SYSTEM, ROLE_DEVELOPER, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, N_ROLE };
enum harmony_effort { EFFORT_LOW, EFFORT_MEDIUM, EFFORT_HIGH };

extern const char *const harmony_role_name[N_ROLE]; /* "system", ... */

/* A string with length; p may be NULL for "absent" (n = 0). */
struct str {
    const char *p;
    size_t n;
};
#define STR_INIT(literal)                                                                          \
    {                                                                                              \
        "" literal, sizeof(literal) - 1                                                            \
    } /* of a static object */
#define STR(literal) ((struct str)STR_INIT(literal))
bool str_eq(struct str s, const char *z); /* an absent string equals nothing */

struct harmony_tool {
    struct str name, description;
    const struct json *parameters; /* JSON Schema, or NULL for a tool without arguments */
    struct str type;               /* the argument type ready to print; wins over parameters */
};

struct harmony_namespace {
    struct str key; /* what namespaces are sorted by; absent: the name */
    struct str name, description;
    const struct harmony_tool *tool; /* [n_tool], in source order */
    int n_tool;
};

/* The model's built-in tools, for a system message. They point at constants. */
void harmony_builtin_browser(struct harmony_namespace *ns);
void harmony_builtin_python(struct harmony_namespace *ns);

/* Body of a system message. Absent strings leave their line out. */
struct harmony_system {
    struct str identity, knowledge_cutoff, current_date;
    bool has_effort;
    enum harmony_effort effort;
    struct str *channel; /* [n_channel] valid channels; none leaves the section out */
    int n_channel;
    bool channel_required;
    struct harmony_namespace *ns; /* [n_ns], any order */
    int n_ns;
};

struct harmony_developer {
    struct str instructions;
    struct harmony_namespace *ns; /* [n_ns] */
    int n_ns;
    struct str response_format; /* "# Response Formats" section ready to print, or absent */
};

enum harmony_content { CONTENT_TEXT, CONTENT_SYSTEM, CONTENT_DEVELOPER };

struct harmony_part {
    enum harmony_content kind;
    struct str text;
    struct harmony_system *system;
    struct harmony_developer *developer;
};

struct harmony_message {
    enum harmony_role role;
    struct str name; /* user:bob; of a tool message the tool's name, required */
    struct str recipient, channel, content_type;
    struct harmony_part *part; /* [n_part] */
    int n_part;
};

struct harmony_conversation {
    struct harmony_message *msg; /* [n_msg] */
    int n_msg;
};

/* The defaults of the library's constructor (docs/harmony.md): identity, cutoff 2024-06,
 * medium effort, three channels required. */
void harmony_system_default(struct harmony_system *s);

/* ---- rendering ---- */

enum harmony_for {
    FOR_COMPLETION,  /* conversation, then <|start|>assistant: what the model continues */
    FOR_TRAINING,    /* a closing assistant/final message ends in <|return|> */
    FOR_CONVERSATION /* the messages alone */
};
enum harmony_drop {
    DROP_LIBRARY,      /* analysis before the first final, if the last assistant message is final */
    DROP_CLOSED_TURNS, /* analysis of every turn that a final closed; the open turn keeps its own */
    DROP_NOTHING
};

struct harmony_render_opts {
    enum harmony_for mode;
    enum harmony_drop drop;
};

/* Appends the conversation's tokens. All text is encoded as ordinary text, so that control tokens
 * come only from structure. E_INPUT for a nameless tool message or content of the wrong role. */
MUST_USE status harmony_render(const struct vocab *, const struct harmony_conversation *,
                               const struct harmony_render_opts *, struct ids *out, struct err *);

/* E_INPUT naming the control token that the vocabulary lacks, if it does. */
MUST_USE status harmony_check_vocab(const struct vocab *, struct err *);

/* Appends a tool schema as TypeScript; `indent` blanks is the current indentation. */
void harmony_ts(struct buf *out, const struct json *schema, int indent);

/* Appends the "# Tools" section of these namespaces [n], in the order of their keys. */
void harmony_tools_section(struct buf *out, const struct harmony_namespace *ns, int n);

/* Appends JSON as the harmony library prints defaults: compact, numbers as Rust's serde_json reads
 * and writes them. */
void harmony_json_compact(struct buf *out, const struct json *j);

/* ---- streaming parser ---- */

enum harmony_mode {
    HARMONY_STRICT,  /* the library's default: refuses what its grammar does not have */
    HARMONY_LENIENT, /* the library's strict=False: also takes a message whose <|message|> is
                        missing */
    HARMONY_RECOVER  /* for serving: refuses nothing */
};

/* What one token added. Strings are valid until the next call on the parser. `has_delta` is false
 * for header tokens and while a character is incomplete. */
struct harmony_delta {
    bool has_delta;
    struct str delta;                            /* newly decoded text of the body */
    struct str recipient, channel, content_type; /* absent outside a body */
    bool has_role;
    enum harmony_role role;
    int i_msg; /* index of the message the text belongs to */
};

struct harmony_parser;

/* What recover mode mends, by kind. */
enum harmony_repair {
    REPAIR_HEADER, /* a header that the library would refuse or read otherwise */
    REPAIR_START,  /* a message that did not begin with <|start|> */
    REPAIR_END,    /* one that did not end before the next began */
    REPAIR_BODY,   /* a control or reserved token inside a body, left out */
    N_REPAIR
};

/* `with_role`: the stream continues "<|start|>" + role (the prompt holds it), else it begins with
 * <|start|>. max_bytes is the ceiling of all text kept. */
MUST_USE status harmony_parser_new(const struct vocab *, enum harmony_mode, bool with_role,
                                   enum harmony_role, size_t max_bytes, struct harmony_parser **);
void harmony_parser_free(struct harmony_parser *);

/* Consumes one token. In strict and lenient mode E_INPUT for a stream they refuse, after which the
 * parser stays failed; in recover mode only E_NOMEM and E_LIMIT exist. In recover mode a delta may
 * come with the token that ends its message, and an assistant message without a channel is to be
 * shown like one on the final channel. */
MUST_USE status harmony_feed(struct harmony_parser *, int32_t id, struct harmony_delta *,
                             struct err *);

/* End of stream: closes the open message, flushes pending bytes as a last delta. */
MUST_USE status harmony_finish(struct harmony_parser *, struct harmony_delta *, struct err *);

/* Finished messages so far, each with one text part; borrowed until the parser is fed or freed. */
const struct harmony_message *harmony_messages(const struct harmony_parser *, int *n);

/* How often the stream so far was mended. */
int harmony_repairs(const struct harmony_parser *, enum harmony_repair);

/* The text of the message under way, with its header once known; false between messages. */
bool harmony_current(const struct harmony_parser *, struct harmony_message *m, struct str *text);

/* True when `id` ends an assistant turn: <|return|>, <|call|>, <|endoftext|>. */
bool harmony_is_stop(const struct vocab *, int32_t id);

#endif
