/* What requests ask for: bodies, sampling parameters, prompts, tools and formats; shared by the
 * endpoints that generate. All of it runs on a prep thread. Errors name the field (err.param).
 */
#ifndef SERVE_ASK_H
#define SERVE_ASK_H

#include "serve/gen.h"

enum ask_kind { ASK_CHAT, ASK_COMPLETIONS, ASK_RESPONSES, ASK_GENERATE };

/* The body as an object; false: answered with an error. */
bool ask_body(struct server *, struct exch *, struct json **root);
/* `model`: false when it was answered with an error. Absent means the loaded one. */
bool ask_model(struct server *, struct exch *, const struct json *root, const char **name);
/* Refuses fields that can't be honoured (prompt_embeds, audio, ...). */
MUST_USE status ask_refused(const struct json *root, struct err *);
/* Sampling, lengths, stops, streaming: into g->p and g. */
MUST_USE status ask_params(struct gen *, const struct json *root, enum ask_kind, struct err *);

/* Sets what the answer is held to: tools, tool_choice, response_format and the tier-3 spellings. */
MUST_USE status ask_hold(struct gen *, const struct json *chat, struct err *);
/* Renders {"messages","tools","response_format",...} and adds the prompt to g. */
MUST_USE status ask_prompt(struct gen *, const struct json *chat, struct err *);

/* truncate_prompt_tokens, when all prompts are there. */
MUST_USE status ask_truncate(struct gen *, const struct json *root, struct err *);

/* A list of token ids, checked against the vocabulary. Free with mem_free. */
MUST_USE status ask_ids(struct server *, const struct json *list, const char *param, int32_t **ids,
                        size_t *n, struct err *);

#endif
