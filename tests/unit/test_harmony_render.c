/* Rendering: worked streams, dropping policies, built-in tools, refusals, small and wrong
 * vocabularies, memory failures. Exactness on thousands of conversations is
 * tests/golden/harmony.test. */
#include "unit/harmony_util.h"

/* Renders a conversation in JSON. */
static status render(const struct vocab *v, const char *json, enum harmony_for mode,
                     enum harmony_drop drop, size_t max, struct ids *t, struct err *e)
{
    struct json *root = NULL;
    struct arena a;
    struct harmony_conversation c;
    const struct harmony_render_opts o = {.mode = mode, .drop = drop};
    arena_init(&a, 1 << 24);
    ids_init(t, max);
    status st = json_parse(json, strlen(json), &json_limits_file, &root, e);
    if (st == OK)
        st = harmony_from_json(root, FORM_LIBRARY, NULL, &a, &c, e);
    if (st == OK)
        st = harmony_render(v, &c, &o, t, e);
    arena_fini(&a);
    json_free(root);
    return st;
}

static void expect_ids(const struct ids *t, const int32_t *want, size_t n)
{
    assert_int_equal(t->n, n);
    assert_memory_equal(t->v, want, n * sizeof *want);
}

/* Renders and compares with the text that the tokens spell. */
static void expect_text(const char *json, enum harmony_for mode, enum harmony_drop drop,
                        const char *want)
{
    struct ids t;
    struct err e = {0};
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(render(vocab_o200k(), json, mode, drop, 1 << 20, &t, &e), OK);
    assert_int_equal(o200k_decode(vocab_o200k(), t.v, t.n, &b, &e), OK);
    assert_string_equal(b.p, want);
    buf_fini(&b);
    ids_fini(&t);
}

static void worked_streams(void **state)
{
    (void)state;
    static const int32_t prompt[] = {
        200006, 17360, 200008, 3575, 553,   17554,  162016, 11,     261,    4410, 6439,
        2359,   22203, 656,    7788, 17527, 558,    87447,  100594, 25,     220,  1323,
        19,     12,    3218,   279,  30377, 289,    25,     14093,  279,    2,    13888,
        18403,  25,    8450,   11,   49159, 11,     1721,   13,     21030,  2804, 413,
        7360,   395,   1753,   3176, 13,    200007, 200006, 1428,   200008, 4827, 382,
        220,    17,    659,    220,  17,    30,     200007, 200006, 173781};
    struct harmony_system sys;
    harmony_system_default(&sys);
    struct harmony_part part[] = {{.kind = CONTENT_SYSTEM, .system = &sys},
                                  {.kind = CONTENT_TEXT, .text = STR("What is 2 + 2?")}};
    struct harmony_message msg[] = {{.role = ROLE_SYSTEM, .part = &part[0], .n_part = 1},
                                    {.role = ROLE_USER, .part = &part[1], .n_part = 1}};
    const struct harmony_conversation c = {msg, 2};
    const struct harmony_render_opts o = {FOR_COMPLETION, DROP_LIBRARY};
    struct ids t;
    struct err e = {0};
    ids_init(&t, 1 << 10);
    assert_int_equal(harmony_render(vocab_o200k(), &c, &o, &t, &e), OK);
    expect_ids(&t, prompt, N_OF(prompt));
    ids_fini(&t);

    static const int32_t reply[] = {200006, 44580, 775, 170154, 316,    28,    173781,
                                    200005, 12606, 815, 200008, 10848,  7340,  1303,
                                    1243,   19,    92,  200007, 200006, 173781};
    assert_int_equal(render(vocab_o200k(),
                            "{\"messages\":[{\"role\":\"tool\",\"name\":\"functions.get_weather\","
                            "\"recipient\":\"assistant\",\"channel\":\"commentary\",\"content\":"
                            "\"{\\\"temp_c\\\":4}\"}]}",
                            FOR_COMPLETION, DROP_LIBRARY, 1 << 10, &t, &e),
                     OK);
    expect_ids(&t, reply, N_OF(reply));
    ids_fini(&t);
}

#define MSG(role, channel, text)                                                                   \
    "{\"role\":\"" role "\",\"channel\":\"" channel "\",\"content\":\"" text "\"}"
#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"

static void dropping(void **state)
{
    (void)state;
    expect_text("{\"messages\":[" USER("u1") "," MSG("assistant", "analysis",
                                                     "a1") "," MSG("assistant", "final", "f1") "]}",
                FOR_TRAINING, DROP_LIBRARY,
                "<|start|>user<|message|>u1<|end|><|start|>assistant<|channel|>final<|message|>f1"
                "<|return|>");
    /* Two closed turns and an open one: the library keeps a2 (and drops nothing here at all,
     * because the last assistant message is no final), the serving policy keeps only the open
     * turn's a3. */
    static const char three[] =
        "{\"messages\":[" USER("u1") "," MSG("assistant", "analysis", "a1") "," MSG(
            "assistant", "final",
            "f1") "," USER("u2") "," MSG("assistant", "analysis",
                                         "a2") "," MSG("assistant", "final",
                                                       "f2") "," USER("u3") "," MSG("assistant",
                                                                                    "analysis",
                                                                                    "a3") "]}";
#define T_USER(text) "<|start|>user<|message|>" text "<|end|>"
#define T_MSG(channel, text) "<|start|>assistant<|channel|>" channel "<|message|>" text "<|end|>"
    expect_text(three, FOR_CONVERSATION, DROP_CLOSED_TURNS,
                T_USER("u1") T_MSG("final", "f1") T_USER("u2") T_MSG("final", "f2") T_USER("u3")
                    T_MSG("analysis", "a3"));
    expect_text(three, FOR_CONVERSATION, DROP_LIBRARY,
                T_USER("u1") T_MSG("analysis", "a1") T_MSG("final", "f1") T_USER("u2")
                    T_MSG("analysis", "a2") T_MSG("final", "f2") T_USER("u3")
                        T_MSG("analysis", "a3"));
    static const char two[] =
        "{\"messages\":[" USER("u1") "," MSG("assistant", "analysis", "a1") "," MSG(
            "assistant", "final", "f1") "," MSG("assistant", "analysis",
                                                "a2") "," MSG("assistant", "final", "f2") "]}";
    expect_text(two, FOR_CONVERSATION, DROP_LIBRARY,
                T_USER("u1") T_MSG("final", "f1") T_MSG("analysis", "a2") T_MSG("final", "f2"));
    expect_text(two, FOR_CONVERSATION, DROP_CLOSED_TURNS,
                T_USER("u1") T_MSG("final", "f1") T_MSG("final", "f2"));
    expect_text(two, FOR_CONVERSATION, DROP_NOTHING,
                T_USER("u1") T_MSG("analysis", "a1") T_MSG("final", "f1") T_MSG("analysis", "a2")
                    T_MSG("final", "f2"));
}

static void structure(void **state)
{
    (void)state;
    /* Recipient "all" is not printed yet ends like a call; only a leading marker is a token. */
    expect_text("{\"messages\":[{\"role\":\"assistant\",\"recipient\":\"all\",\"content\":\"x\"}]}",
                FOR_CONVERSATION, DROP_LIBRARY, "<|start|>assistant<|message|>x<|call|>");
    struct ids t;
    struct err e = {0};
    assert_int_equal(
        render(vocab_o200k(),
               "{\"messages\":[{\"role\":\"user\",\"content_type\":\"<|constrain|>json\","
               "\"content\":\"<|end|>\"}]}",
               FOR_CONVERSATION, DROP_LIBRARY, 1 << 10, &t, &e),
        OK);
    static const int32_t want[] = {200006, 1428, 220, 200003, 4108, 200008,
                                   27,     91,   419, 91,     29,   200007};
    expect_ids(&t, want, N_OF(want));
    ids_fini(&t);
}

static void builtin_tools(void **state)
{
    (void)state;
    struct harmony_namespace ns[2];
    struct buf b;
    buf_init(&b, 1 << 16);
    harmony_builtin_python(&ns[0]);
    harmony_builtin_browser(&ns[1]);
    harmony_tools_section(&b, ns, 2); /* sorted: browser first */
    assert_int_equal(b.n, strlen("# Tools\n\n") + 1550 + 2 + 615);
    assert_true(strncmp(b.p, "# Tools\n\n## browser\n\n// Tool for browsing.\n", 41) == 0);
    struct harmony_system sys;
    harmony_system_default(&sys);
    sys.ns = ns;
    sys.n_ns = 2;
    struct harmony_part part = {.kind = CONTENT_SYSTEM, .system = &sys};
    struct harmony_message msg = {.role = ROLE_SYSTEM, .part = &part, .n_part = 1};
    const struct harmony_conversation c = {&msg, 1};
    const struct harmony_render_opts o = {FOR_CONVERSATION, DROP_LIBRARY};
    struct ids t;
    ids_init(&t, 1 << 12);
    assert_int_equal(harmony_render(vocab_o200k(), &c, &o, &t, NULL), OK);
    assert_int_equal(t.n, 584); /* known size of the default system message with both tools */
    ids_fini(&t);
    buf_fini(&b);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *json, *param;
    } row[] = {
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].name"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"system_content\"}]}]}",
         "messages[0].content"},
        {"{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"developer_content\"}]}]}",
         "messages[0].content"},
    };
    struct ids t;
    struct err e;
    for (size_t i = 0; i < N_OF(row); i++) {
        assert_int_equal(
            render(vocab_o200k(), row[i].json, FOR_COMPLETION, DROP_LIBRARY, 99, &t, &e), E_INPUT);
        assert_string_equal(e.param, row[i].param);
        assert_int_equal(t.n, 0); /* nothing half rendered */
        ids_fini(&t);
    }
    /* The ceiling of tokens. */
    assert_int_equal(render(vocab_o200k(), "{\"messages\":[" USER("one two three") "]}",
                            FOR_COMPLETION, DROP_LIBRARY, 5, &t, &e),
                     E_LIMIT);
    ids_fini(&t);
}

/* A tokenizer.json of 256 bytes and nothing else lacks the control tokens. */
static void wrong_vocabulary(void **state)
{
    (void)state;
    struct buf b;
    struct vocab *v = NULL;
    struct err e = {0};
    buf_init(&b, 1 << 22);
    assert_int_equal(file_read("assets/tiny/tokenizer.json", &b, &e), OK);
    /* The same file with one control token renamed. */
    char *at = memmem(b.p, b.n, "<|constrain|>", 13);
    while (at) {
        memcpy(at, "<|renamed00|>", 13);
        at = memmem(b.p, b.n, "<|constrain|>", 13);
    }
    assert_int_equal(vocab_from_json(b.p, b.n, &v, &e), OK);
    struct ids t;
    assert_int_equal(
        render(v, "{\"messages\":[" USER("x") "]}", FOR_COMPLETION, DROP_LIBRARY, 99, &t, &e),
        E_INPUT);
    assert_non_null(strstr(e.msg, "<|constrain|>"));
    struct harmony_parser *p;
    assert_int_equal(harmony_parser_new(v, HARMONY_RECOVER, true, ROLE_ASSISTANT, 99, &p), E_INPUT);
    assert_null(p);
    ids_fini(&t);
    vocab_free(v);
    buf_fini(&b);
}

static void small_vocabulary(void **state)
{
    (void)state;
    struct vocab *v = small_vocab();
    struct ids t;
    struct err e;
    struct buf b;
    buf_init(&b, 1 << 16);
    assert_int_equal(render(v, "{\"messages\":[" USER("Zwei und <|end|>") "]}", FOR_COMPLETION,
                            DROP_LIBRARY, 99, &t, &e),
                     OK);
    for (size_t i = 0; i < t.n; i++)
        assert_true(t.v[i] < vocab_size(v));
    assert_int_equal(o200k_decode(v, t.v, t.n, &b, &e), OK);
    assert_string_equal(b.p, "<|start|>user<|message|>Zwei und <|end|><|end|><|start|>assistant");
    ids_fini(&t);
    buf_fini(&b);
    vocab_free(v);
}

/* Every allocation of reading and rendering fails once. jansson's own are not hooked. */
static void memory_failures(void **state)
{
    (void)state;
    static const char json[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"system_content\",\"model_"
        "identity\":"
        "\"X\",\"channel_config\":{\"valid_channels\":[\"a\"],\"channel_required\":true}}]},"
        "{\"role\":\"developer\",\"content\":[{\"type\":\"developer_content\",\"instructions\":"
        "\"Be.\","
        "\"tools\":{\"functions\":{\"name\":\"functions\",\"tools\":[{\"name\":\"f\","
        "\"description\":\"d\","
        "\"parameters\":{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":"
        "\"number\",\"default\":1.5e3}}}}]}}}]}," USER("hi") "]}";
    int failed = 0;
    for (long n = 1;; n++) {
        struct ids t;
        struct err e;
        mem_fault_at(n);
        status st = render(vocab_o200k(), json, FOR_COMPLETION, DROP_LIBRARY, 1 << 12, &t, &e);
        mem_fault_at(0);
        ids_fini(&t);
        if (st == OK)
            break;
        assert_int_equal(st, E_NOMEM);
        assert_true(e.msg[0] != '\0');
        failed++;
        assert_true(n < 1000);
    }
    assert_true(failed >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_streams),   cmocka_unit_test(dropping),
        cmocka_unit_test(structure),        cmocka_unit_test(builtin_tools),
        cmocka_unit_test(refusals),         cmocka_unit_test(wrong_vocabulary),
        cmocka_unit_test(small_vocabulary), cmocka_unit_test(memory_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
