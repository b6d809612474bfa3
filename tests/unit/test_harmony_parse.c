/* The streaming parser: worked streams with their deltas, the library's outcomes in strict and
 * lenient mode (each row observed on openai-harmony 0.0.8), recover mode's rules, limits, memory
 * failures. */
#include "unit/harmony_util.h"

/* A generated call: reasoning, then a function call; no delta before a body. */
static void worked_stream(void **state)
{
    (void)state;
    static const int32_t id[] = {200005, 35644,  200008, 23483, 11122,  13,    200007,
                                 200006, 173781, 200005, 12606, 815,    316,   28,
                                 44580,  775,    170154, 220,   200003, 4108,  200008,
                                 10848,  17500,  7534,   15097, 746,    18583, 200012};
    static const char *const delta[] = {
        [3] = "Need",   [4] = " weather", [5] = ".",   [21] = "{\"", [22] = "city",
        [23] = "\":\"", [24] = "Os",      [25] = "lo", [26] = "\"}", [27] = NULL};
    for (int mode = HARMONY_STRICT; mode <= HARMONY_RECOVER; mode++) {
        struct harmony_parser *p;
        struct harmony_delta d;
        struct err e;
        assert_int_equal(harmony_parser_new(vocab_o200k(), (enum harmony_mode)mode, true,
                                            ROLE_ASSISTANT, 1 << 16, &p),
                         OK);
        for (size_t i = 0; i < N_OF(id); i++) {
            assert_int_equal(harmony_feed(p, id[i], &d, &e), OK);
            assert_int_equal(d.has_delta, delta[i] != NULL);
            if (delta[i])
                assert_true(str_eq(d.delta, delta[i]));
            bool first = i >= 2 && i < 6, second = i >= 20 && i < 27;
            assert_int_equal(d.i_msg, i < 6 ? 0 : i < 27 ? 1 : 2);
            assert_int_equal(d.channel.p != NULL, first || second);
            if (second) {
                assert_true(str_eq(d.channel, "commentary"));
                assert_true(str_eq(d.recipient, "functions.get_weather"));
                assert_true(str_eq(d.content_type, "<|constrain|>json"));
            }
            if (first || second)
                assert_true(d.has_role && d.role == ROLE_ASSISTANT);
            struct harmony_message m;
            struct str text;
            assert_int_equal(harmony_current(p, &m, &text), first || second);
            if (i == 26)
                assert_true(str_eq(text, "{\"city\":\"Oslo\"}"));
        }
        assert_int_equal(harmony_finish(p, &d, &e), OK);
        int n;
        assert_true(str_eq(harmony_messages(p, &n)[1].part[0].text, "{\"city\":\"Oslo\"}"));
        assert_int_equal(n, 2);
        harmony_parser_free(p);
    }
}

/* Broken characters: at most one U+FFFD per token, the rest waits, and what still waits at the end
 * joins the message without a delta (recover: with one). An unknown id blocks to the message's end.
 */
static void broken_text(void **state)
{
    (void)state;
    static const int32_t id[] = {200005, 17196, 200008, 9552, 9552, 12194, 200007};
    static const char *const library[] = {NULL, NULL, NULL, " ", "\xef\xbf\xbd", " \xef\xbf\xbd",
                                          NULL};
    static const char *const recover[] = {NULL, NULL, NULL, " ", "\xef\xbf\xbd ", "\xef\xbf\xbdHi",
                                          NULL};
    for (int mode = HARMONY_STRICT; mode <= HARMONY_RECOVER; mode++) {
        const char *const *want = mode == HARMONY_RECOVER ? recover : library;
        struct harmony_parser *p;
        struct harmony_delta d;
        assert_int_equal(harmony_parser_new(vocab_o200k(), (enum harmony_mode)mode, true,
                                            ROLE_ASSISTANT, 1 << 16, &p),
                         OK);
        for (size_t i = 0; i < N_OF(id); i++) {
            assert_int_equal(harmony_feed(p, id[i], &d, NULL), OK);
            assert_int_equal(d.has_delta, want[i] != NULL);
            if (want[i])
                assert_true(str_eq(d.delta, want[i]));
        }
        int n;
        assert_true(
            str_eq(harmony_messages(p, &n)[0].part[0].text, " \xef\xbf\xbd \xef\xbf\xbdHi"));
        harmony_parser_free(p);
    }
    static const int32_t blocked[] = {200005, 17196, 200008, 12194, 2000000, 12194, 9552, 200007};
    struct buf out;
    buf_init(&out, 1 << 16);
    parse_ids(vocab_o200k(), HARMONY_LENIENT, true, blocked, N_OF(blocked), &out);
    assert_non_null(strstr(out.p, "\"text\":\"Hi\xef\xbf\xbd\"}"));
    buf_clear(&out);
    parse_ids(vocab_o200k(), HARMONY_RECOVER, true, blocked, N_OF(blocked), &out);
    assert_non_null(strstr(out.p, "\"text\":\"Hi\xef\xbf\xbdHi \xef\xbf\xbd\"}"));
    buf_fini(&out);
}

/* The pending bytes of a cut character come as recover mode's last delta, at a stop token and at
 * the stream's end (rule f). */
static void flushed_delta(void **state)
{
    (void)state;
    for (int at_end = 0; at_end < 2; at_end++) {
        static const int32_t id[] = {200005, 17196, 200008, 9552, 200006};
        struct harmony_parser *p;
        struct harmony_delta d;
        assert_int_equal(
            harmony_parser_new(vocab_o200k(), HARMONY_RECOVER, true, ROLE_ASSISTANT, 1 << 16, &p),
            OK);
        for (int i = 0; i < 5 - at_end; i++)
            assert_int_equal(harmony_feed(p, id[i], &d, NULL), OK);
        if (at_end)
            assert_int_equal(harmony_finish(p, &d, NULL), OK);
        assert_true(d.has_delta && str_eq(d.delta, "\xef\xbf\xbd") && d.i_msg == 0);
        assert_true(str_eq(d.channel, "final"));
        harmony_parser_free(p);
    }
}

static void library_outcomes(void **state)
{
    (void)state;
    static const struct {
        bool preset;
        const char *text, *strict, *lenient; /* lenient NULL: the same */
    } row[] = {
        {1, "<|channel|>final<|message|>Hi<|return|>", "assistant#final|Hi;", NULL},
        {1, "<|channel|>final<|message|>Hi<|return|><|return|>", "assistant#final|Hi;!5", NULL},
        {1, "<|channel|>final<|message|>Hi<|end|>Hi", "assistant#final|Hi;!5", NULL},
        {1, "<|channel|>final<|message|>Hi", "assistant#final|Hi;", NULL},
        {1, "<|channel|>final <|constrain|>json<|message|>{}",
         "assistant><|constrain|>json#final|{};", NULL},
        {1, "<|channel|>final json<|message|>{}", "assistant>json#final|{};", NULL},
        {1, "<|channel|>analysis code<|message|>x", "assistant>code#analysis|x;", NULL},
        {1, " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
         "assistant>functions.f#commentary~json|{};", NULL},
        {1, "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>",
         "assistant>functions.f#commentary~<|constrain|>json|{};", NULL},
        {1, "<|channel|>commentary functions.f<|message|>{}",
         "assistant>functions.f#commentary|{};", NULL},
        {1, "<|channel|>final to=a to=b<|message|>x", "!6", NULL},
        {1, "<|channel|>final json to=f<|message|>x", "!5", NULL},
        {1, "<|channel|>final a b c<|message|>x", "!5", NULL},
        {1, "<|channel|>final<|channel|>final a<|message|>x",
         "assistant><|channel|>final#final~a|x;", NULL},
        {1, "<|channel|><|message|>x", "!1", NULL},
        {1, "<|channel|>commentary?<|message|>x", "assistant#commentary?|x;", NULL},
        {1, "<|channel|>commentaryto=functions.f<|message|>x",
         "assistant#commentaryto=functions.f|x;", NULL},
        {1, "<|message|>x<|end|>", "assistant|x;", NULL},
        {1, "I can't.<|end|>", "!4", "assistant|I can't.;"},
        {1, "a  b\n c<|end|><|start|>assistant<|message|>x", "!8", "assistant|a b c;assistant|x;"},
        {1, "<|channel|>analysis I can't<|end|>", "!5", "assistant#analysis|I can't;"},
        {1, "<|channel|>analysis<|end|>", "!3", "assistant#analysis|;"},
        {1, "<|end|>", "!1", ""},
        {1, "assistant<|channel|>final<|message|>x", "assistant#final|x;", NULL},
        {1, "assistant assistant<|message|>x", "assistant>assistant|x;", NULL},
        {1, "<|start|>assistant<|message|>x", "assistant><|start|>assistant|x;", NULL},
        {1, "<|message|>a<|start|>assistant<|channel|>final<|message|>b<|end|>",
         "assistant|a<|start|>assistant<|channel|>final<|message|>b;", NULL},
        {1, "", "!0", NULL},
        {0, "", "", NULL},
        {0, "x", "!0", NULL},
        {0, "<|start|>functions.f to=assistant<|channel|>commentary<|message|>[1]<|end|>",
         "tool:functions.f>assistant#commentary|[1];", NULL},
        {0, "<|start|>functions.f<|message|>x", "!3", NULL},
        {0, "<|start|>user:bob<|message|>x", "!4", NULL},
        {0, "<|start|>python<|channel|>analysis<|message|>x", "!4", NULL},
        {0, "<|start|>foo bar<|message|>x", "tool:foo>bar|x;", NULL},
        {0, "<|start|>tool<|message|>x", "tool:tool|x;", NULL},
        {0, "<|start|><|message|>x", "!1", NULL},
        {0, "<|start|>user<|message|>x<|end|><|start|>hello<|end|>", "user|x;!8", "user|x;"},
    };
    for (size_t i = 0; i < N_OF(row); i++) {
        expect_parse(HARMONY_STRICT, row[i].preset, row[i].text, row[i].strict);
        expect_parse(HARMONY_LENIENT, row[i].preset, row[i].text,
                     row[i].lenient ? row[i].lenient : row[i].strict);
    }
}

static void recover_rules(void **state)
{
    (void)state;
    static const struct {
        bool preset;
        const char *text, *want;
    } row[] = {
        /* (a) between messages: stop tokens and blanks ignored, text goes on with the channel,
         * <|channel|> opens a message */
        {1, "<|channel|>final<|message|>Hi<|return|><|return|><|end|>", "assistant#final|Hi;"},
        {1, "<|channel|>final<|message|>Hi<|return|>junk",
         "assistant#final|Hi;assistant#final|junk;"},
        {1, "<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>b",
         "assistant#analysis|a;assistant#final|b;"},
        {1,
         "<|channel|>analysis<|message|>a<|end|>junk<|start|>assistant<|channel|>final<|message|>b",
         "assistant#analysis|a;assistant#analysis|junk;assistant#final|b;"},
        {1,
         "<|channel|>commentary to=functions.f<|message|>{}<|end|> \n x "
         "<|start|>assistant<|message|>b",
         "assistant>functions.f#commentary|{};assistant#commentary| x ;assistant|b;"},
        {1, "<|channel|>analysis<|message|>a<|end|><|message|>b",
         "assistant#analysis|a;assistant|b;"},
        {0, "x<|end|><|channel|>final<|message|>b", "assistant#final|b;"},
        /* (b) headers: restart, stop token, channels, recipients, types */
        {1, "<|start|>assistant<|channel|>final<|message|>x", "assistant#final|x;"},
        {1, "oops<|start|><|start|>assistant<|channel|>final<|message|>x", "assistant#final|x;"},
        {1, "I can't.<|end|>", "assistant|I can't.;"},
        {0, "<|start|>assistant I can't.<|end|>", "assistant|I can't.;"},
        {0, "<|start|>I can't.<|return|>", "assistant|I can't.;"},
        {1, "<|channel|>analysis I can't<|end|>", "assistant#analysis|I can't;"},
        {1, "<|channel|>Sure, here<|end|>", "assistant#final|Sure, here;"},
        {1, "<|end|>", ""},
        {1, "<|channel|>analysis<|channel|>final<|message|>x", "assistant#final|x;"},
        {1, "<|channel|>final<|channel|>oops<|message|>x", "assistant#final|x;"},
        {1, "<|channel|>commentary?<|message|>x", "assistant#commentary|x;"},
        {1, "<|channel|>commentaryto=functions.f<|message|>x",
         "assistant>functions.f#commentary|x;"},
        {1, "<|channel|><|message|>x", "assistant#final|x;"},
        {1, "<|channel|>thoughts<|message|>x", "assistant#final|x;"},
        {1, " to=functions.f<|channel|>commentary to=functions.f json<|message|>{}",
         "assistant>functions.f#commentary~json|{};"},
        {1, " to=user<|channel|>commentary to=functions.f<|message|>{}",
         "assistant>functions.f#commentary|{};"},
        {1, "<|channel|>final json<|message|>{}", "assistant#final~json|{};"},
        {1, "<|channel|>final <|constrain|>json<|message|>{}",
         "assistant#final~<|constrain|>json|{};"},
        {1, "<|channel|>final<|constrain|> json<|message|>{}",
         "assistant#final~<|constrain|>json|{};"},
        {1, "<|channel|>analysis code<|message|>x", "assistant#analysis~code|x;"},
        {1, "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}",
         "assistant>functions.f#commentary~<|constrain|>json|{};"},
        {1, "<|channel|>analysis I think we should answer<|message|>x", "assistant#analysis|x;"},
        {1, "assistant assistant<|channel|>final<|message|>x", "assistant#final|x;"},
        {0, "<|start|>user:bob<|message|>x", "user:bob|x;"},
        {0, "<|start|>functions.f<|message|>x", "tool:functions.f|x;"},
        {0, "<|start|>python<|channel|>analysis<|message|>x", "tool:python#analysis|x;"},
        {0, "<|start|><|message|>x", "assistant|x;"},
        /* (c) a body ends where the next message begins */
        {1, "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b",
         "assistant#analysis|a;assistant#final|b;"},
        {1, "<|channel|>analysis<|message|>a<|channel|>final<|message|>b",
         "assistant#analysis|a;assistant#final|b;"},
        {1, "<|channel|>final<|message|>a<|endoftext|>", "assistant#final|a;"},
        /* (d) the stream ends inside a header */
        {1, "I can't\nhelp.", "assistant#final|I can't\nhelp.;"},
        {1, "<|channel|>analysis I can't", "assistant#final|I can't;"},
        {1, "<|channel|>analysis", ""},
        {1, "<|channel|>comment", ""},
        {1, " to=functions.f<|channel|>commentary json", ""},
        {0, "<|start|>assistant", ""},
        {1, "", ""},
        /* (e) a function call may stand on any channel */
        {1, "<|channel|>analysis to=functions.f<|message|>{}<|call|>",
         "assistant>functions.f#analysis|{};"},
        /* (g) control tokens never come out as text */
        {1, "<|channel|>final<|message|>a<|message|>b<|constrain|>c<|reserved_200013|>d<|return|>",
         "assistant#final|abcd;"},
        {1, "a<|constrain|>b<|end|>", "assistant|a b;"},
        {1, "a<|constrain|>b", "assistant#final|a b;"},
    };
    for (size_t i = 0; i < N_OF(row); i++)
        expect_parse(HARMONY_RECOVER, row[i].preset, row[i].text, row[i].want);
    /* Text that only looks like a control token stays text; a recipient is cut there. */
    static const char *const spelled[] = {"<|channel|>", "commentary",  " to=functions.f",
                                          "<|end|>",     "<|message|>", "say ",
                                          "<|end|>",     "<|call|>"};
    static const bool token[] = {1, 0, 0, 0, 1, 0, 0, 1};
    struct ids t;
    ids_init(&t, 1 << 10);
    for (size_t i = 0; i < N_OF(spelled); i++)
        assert_int_equal(o200k_encode(vocab_o200k(), spelled[i], strlen(spelled[i]),
                                      token[i] ? SPECIAL_ALLOW : SPECIAL_TEXT, &t, NULL),
                         OK);
    struct buf out;
    buf_init(&out, 1 << 16);
    parse_ids(vocab_o200k(), HARMONY_RECOVER, true, t.v, t.n, &out);
    assert_string_equal(out.p, "{\"messages\":[{\"role\":\"assistant\",\"name\":null,\"content\":[{"
                               "\"type\":\"text\",\"text\":\"say <|end|>\"}],\"channel\":"
                               "\"commentary\",\"recipient\":\"functions.f\"}]}");
    buf_fini(&out);
    ids_fini(&t);
}

/* A failed parser stays failed; its finished messages stay readable. */
static void failure_stays(void **state)
{
    (void)state;
    struct ids t = encode_all(vocab_o200k(), "<|message|>x<|end|>y");
    struct harmony_parser *p;
    struct harmony_delta d;
    struct err e;
    assert_int_equal(
        harmony_parser_new(vocab_o200k(), HARMONY_STRICT, true, ROLE_USER, 1 << 16, &p), OK);
    for (size_t i = 0; i + 1 < t.n; i++)
        assert_int_equal(harmony_feed(p, t.v[i], &d, &e), OK);
    assert_int_equal(harmony_feed(p, t.v[t.n - 1], &d, &e), E_INPUT);
    assert_int_equal(harmony_feed(p, 200006, &d, &e), E_INPUT);
    assert_int_equal(harmony_finish(p, &d, &e), E_INPUT);
    int n;
    assert_int_equal(harmony_messages(p, &n)[0].role, ROLE_USER);
    assert_int_equal(n, 1);
    harmony_parser_free(p);
    ids_fini(&t);
}

/* Bodies, headers and the number of messages all count against max_bytes. */
static void limits(void **state)
{
    (void)state;
    static const char *const part[] = {"hello world", "<|start|>", "<|message|><|end|><|start|>"};
    static const char *const begin[] = {"<|message|>", "", ""};
    for (int mode = HARMONY_STRICT; mode <= HARMONY_RECOVER; mode++)
        for (size_t k = 0; k < N_OF(part); k++) {
            struct harmony_parser *p;
            struct harmony_delta d;
            struct err e;
            status st = OK;
            assert_int_equal(harmony_parser_new(vocab_o200k(), (enum harmony_mode)mode, true,
                                                ROLE_USER, 10000, &p),
                             OK);
            struct ids t = encode_all(vocab_o200k(), begin[k]),
                       u = encode_all(vocab_o200k(), part[k]);
            for (size_t i = 0; i < t.n; i++)
                assert_int_equal(harmony_feed(p, t.v[i], &d, &e), OK);
            for (size_t i = 0; i < 20000 && st == OK; i++)
                st = harmony_feed(p, u.v[i % u.n], &d, &e);
            /* Strict reads "user" headers without a role as an error; recover restarts at
             * <|start|>. */
            bool fine = k == 1 && mode == HARMONY_RECOVER;
            bool refused = k == 2 && mode != HARMONY_RECOVER;
            assert_int_equal(st, fine ? OK : refused ? E_INPUT : E_LIMIT);
            harmony_parser_free(p);
            ids_fini(&t);
            ids_fini(&u);
        }
}

/* Every allocation fails once: an error comes back, nothing leaks (asan), the parser can be freed.
 */
static void memory_failures(void **state)
{
    (void)state;
    struct ids t = encode_all(
        vocab_o200k(),
        "<|channel|>analysis<|message|>Hm \xf0\x9f\x98\x80.<|end|><|start|>assistant<|channel|>"
        "commentary to=functions.f <|constrain|>json<|message|>{}<|call|><|start|>functions.f "
        "to=assistant<|channel|>commentary<|message|>[1]<|end|><|start|>assistant");
    for (int mode = HARMONY_STRICT; mode <= HARMONY_RECOVER; mode++) {
        int failed = 0;
        for (long n = 1;; n++) {
            struct harmony_parser *p = NULL;
            struct harmony_delta d;
            struct err e;
            mem_fault_at(n);
            status st = harmony_parser_new(vocab_o200k(), (enum harmony_mode)mode, true,
                                           ROLE_ASSISTANT, 1 << 16, &p);
            for (size_t i = 0; i < t.n && st == OK; i++)
                st = harmony_feed(p, t.v[i], &d, &e);
            mem_fault_at(0);
            harmony_parser_free(p);
            if (st == OK)
                break;
            assert_int_equal(st, E_NOMEM);
            failed++;
            assert_true(n < 1000);
        }
        assert_true(failed >= 6);
    }
    ids_fini(&t);
}

/* The cost of a token does not grow with the message: 400,000 tokens in a moment, also when broken
 * bytes are left in the queue: one token's worth (9552), or more with every token (2203, of whose
 * two broken characters the library's rule takes one per step). */
static void long_messages(void **state)
{
    (void)state;
    static const struct {
        int32_t id;
        size_t bytes; /* of text per token */
    } kind[] = {{24912, 5}, {9552, 1 + 3}, {2203, 2 * 3}};
    enum { N_TOK = 400000 };
    for (int mode = HARMONY_STRICT; mode <= HARMONY_RECOVER; mode++)
        for (size_t k = 0; k < N_OF(kind); k++) {
            struct harmony_parser *p;
            struct harmony_delta d;
            int n;
            assert_int_equal(harmony_parser_new(vocab_o200k(), (enum harmony_mode)mode, true,
                                                ROLE_ASSISTANT, (size_t)1 << 26, &p),
                             OK);
            assert_int_equal(harmony_feed(p, 200008, &d, NULL), OK);
            for (int i = 0; i < N_TOK; i++)
                assert_int_equal(harmony_feed(p, kind[k].id, &d, NULL), OK);
            assert_int_equal(harmony_finish(p, &d, NULL), OK);
            assert_int_equal(harmony_messages(p, &n)[0].part[0].text.n, N_TOK * kind[k].bytes);
            harmony_parser_free(p);
        }
}

/* A checkpoint's own vocabulary, and one that lacks the control tokens. */
static void small_vocabulary(void **state)
{
    (void)state;
    struct vocab *v = small_vocab();
    struct ids t =
        encode_all(v, "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final"
                      "<|message|>Yes \xf0\x9f\x98\x80<|return|>");
    assert_true(t.v[0] < vocab_size(v) && vocab_size(v) < 5000);
    assert_true(harmony_is_stop(v, t.v[t.n - 1]));
    assert_false(harmony_is_stop(v, t.v[0]));
    struct buf out;
    buf_init(&out, 1 << 16);
    parse_ids(v, HARMONY_STRICT, true, t.v, t.n, &out);
    assert_non_null(strstr(out.p, "Yes \xf0\x9f\x98\x80\"}],\"channel\":\"final\"}]}"));
    buf_fini(&out);
    ids_fini(&t);
    vocab_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_stream), cmocka_unit_test(broken_text),
        cmocka_unit_test(flushed_delta), cmocka_unit_test(library_outcomes),
        cmocka_unit_test(recover_rules), cmocka_unit_test(failure_stays),
        cmocka_unit_test(limits),        cmocka_unit_test(memory_failures),
        cmocka_unit_test(long_messages), cmocka_unit_test(small_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
