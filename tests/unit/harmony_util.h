/* Shared by the harmony unit tests: text with control tokens to ids, ids through a parser to JSON.
 */
#ifndef TESTS_HARMONY_UTIL_H
#define TESTS_HARMONY_UTIL_H

#include "unit/unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "text/harmony_json.h"

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

/* "<|start|>assistant" and so on, control tokens allowed. Free with ids_fini. */
static inline struct ids encode_all(const struct vocab *v, const char *text)
{
    struct ids t;
    struct err e = {0};
    ids_init(&t, 1 << 20);
    assert_int_equal(o200k_encode(v, text, strlen(text), SPECIAL_ALLOW, &t, &e), OK);
    return t;
}

/* The finished messages as {"messages":[...]} and, when the mode refuses a token, "!I" behind them,
 * I its index (the number of tokens for the end of the stream). */
static inline void parse_ids(const struct vocab *v, enum harmony_mode mode, bool preset,
                             const int32_t *id, size_t n, struct buf *out)
{
    struct harmony_parser *p;
    struct harmony_delta d;
    struct err e = {0};
    assert_int_equal(harmony_parser_new(v, mode, preset, ROLE_ASSISTANT, 1 << 24, &p), OK);
    size_t i = 0;
    while (i < n && harmony_feed(p, id[i], &d, &e) == OK)
        i++;
    bool refused = i < n || harmony_finish(p, &d, &e) < 0;
    int n_msg;
    const struct harmony_message *m = harmony_messages(p, &n_msg);
    harmony_to_json(out, m, n_msg);
    if (refused) {
        buf_printf(out, "!%zu", i);
        assert_true(e.msg[0] != '\0');
    }
    harmony_parser_free(p);
}

/* Parses `text` and compares with `want`: messages in a short form, one after the other,
 *     role[:name][>recipient][#channel][~type]|text;
 * and "!I" for a refusal. */
static inline void expect_parse(enum harmony_mode mode, bool preset, const char *text,
                                const char *want)
{
    const struct vocab *v = vocab_o200k();
    struct ids t = encode_all(v, text);
    struct harmony_parser *p;
    struct harmony_delta d;
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_int_equal(harmony_parser_new(v, mode, preset, ROLE_ASSISTANT, 1 << 24, &p), OK);
    size_t i = 0;
    while (i < t.n && harmony_feed(p, t.v[i], &d, NULL) == OK)
        i++;
    bool refused = i < t.n || harmony_finish(p, &d, NULL) < 0;
    int n;
    const struct harmony_message *m = harmony_messages(p, &n);
    for (int k = 0; k < n; k++) {
        const struct {
            const char *mark;
            struct str s;
        } field[] = {
            {":", m[k].name}, {">", m[k].recipient}, {"#", m[k].channel}, {"~", m[k].content_type}};
        buf_puts(&out, harmony_role_name[m[k].role]);
        for (int f = 0; f < 4; f++) {
            buf_puts(&out, field[f].s.p ? field[f].mark : "");
            buf_put(&out, field[f].s.p, field[f].s.n);
        }
        buf_putc(&out, '|');
        buf_put(&out, m[k].part[0].text.p, m[k].part[0].text.n);
        buf_putc(&out, ';');
    }
    if (refused)
        buf_printf(&out, "!%zu", i);
    if (strcmp(out.p, want) != 0)
        fail_msg("%s\n  got  %s\n  want %s", text, out.p, want);
    harmony_parser_free(p);
    buf_fini(&out);
    ids_fini(&t);
}

/* The small vocabulary of the tiny model: a prefix of the ranks and the control tokens. */
static inline struct vocab *small_vocab(void)
{
    struct buf b;
    struct vocab *v = NULL;
    struct err e = {0};
    buf_init(&b, 1 << 22);
    assert_int_equal(file_read("assets/tiny/tokenizer.json", &b, &e), OK);
    assert_int_equal(vocab_from_json(b.p, b.n, &v, &e), OK);
    buf_fini(&b);
    return v;
}

#endif
