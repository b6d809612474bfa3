/* Conversations from JSON: both forms and how they are told apart, every refusal with its place,
 * the answer's schema; messages to JSON; numbers that keep their text (base/json.h). */
#include "unit/harmony_util.h"

struct loaded {
    struct json *root;
    struct arena a;
    struct harmony_conversation c;
    struct err e;
    status st;
};

static void load(struct loaded *l, const char *json, enum harmony_json_form form,
                 const struct harmony_openai_opts *o)
{
    *l = (struct loaded){0};
    arena_init(&l->a, 1 << 22);
    l->st = json_parse(json, strlen(json), &json_limits_file, &l->root, &l->e);
    if (l->st == OK)
        l->st = harmony_from_json(l->root, form, o, &l->a, &l->c, &l->e);
}

static void unload(struct loaded *l)
{
    arena_fini(&l->a);
    json_free(l->root);
}

/* The rendered text of an OpenAI request, from its developer message on. */
static void expect_openai(const char *json, const struct harmony_openai_opts *o, const char *want)
{
    struct loaded l;
    struct ids t;
    struct buf b;
    const struct harmony_render_opts ro = {FOR_CONVERSATION, DROP_NOTHING};
    buf_init(&b, 1 << 20);
    ids_init(&t, 1 << 16);
    load(&l, json, FORM_OPENAI, o);
    if (l.st < 0)
        fail_msg("%s: %s", l.e.param, l.e.msg);
    assert_int_equal(harmony_render(vocab_o200k(), &l.c, &ro, &t, &l.e), OK);
    assert_int_equal(o200k_decode(vocab_o200k(), t.v, t.n, &b, &l.e), OK);
    const char *body = strstr(b.p, "<|end|>") + strlen("<|end|>");
    assert_string_equal(body, want);
    ids_fini(&t);
    buf_fini(&b);
    unload(&l);
}

static void refusals(void **state)
{
    (void)state;
#define ONE(m) "{\"messages\":[" m "]}"
    static const struct {
        enum harmony_json_form form;
        const char *json, *param;
    } row[] = {
        {FORM_AUTO, "3", "messages"},
        {FORM_AUTO, "{}", "messages"},
        {FORM_AUTO, "{\"messages\":{}}", "messages"},
        {FORM_OPENAI, "[]", "messages"},
        {FORM_LIBRARY, ONE("3"), "messages[0]"},
        {FORM_LIBRARY, ONE("{\"content\":\"x\"}"), "messages[0].role"},
        {FORM_LIBRARY, ONE("{\"role\":\"robot\",\"content\":\"x\"}"), "messages[0].role"},
        {FORM_LIBRARY, ONE("{\"role\":\"user\"}"), "messages[0].content"},
        {FORM_LIBRARY, ONE("{\"role\":\"user\",\"content\":null}"), "messages[0].content"},
        {FORM_LIBRARY, ONE("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"),
         "messages[0].content[0].text"},
        {FORM_LIBRARY, ONE("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"),
         "messages[0].content[0].type"},
        {FORM_LIBRARY, ONE("{\"role\":\"user\",\"content\":\"x\",\"channel\":1}"),
         "messages[0].channel"},
        {FORM_LIBRARY,
         ONE("{\"role\":\"system\",\"content\":[{\"type\":\"system_content\",\"reasoning_effort\":"
             "\"low\"}]}"),
         "messages[0].content[0].reasoning_effort"},
        {FORM_LIBRARY,
         ONE("{\"role\":\"system\",\"content\":[{\"type\":\"system_content\",\"channel_config\":{"
             "\"valid_channels\":[1],\"channel_required\":true}}]}"),
         "messages[0].content[0].channel_config.valid_channels[0]"},
        {FORM_LIBRARY,
         ONE("{\"role\":\"system\",\"content\":[{\"type\":\"system_content\",\"channel_config\":{"
             "\"valid_channels\":[]}}]}"),
         "messages[0].content[0].channel_config.channel_required"},
        {FORM_LIBRARY,
         ONE("{\"role\":\"developer\",\"content\":[{\"type\":\"developer_content\",\"tools\":{"
             "\"f\":{"
             "\"name\":\"f\",\"tools\":[{\"name\":\"x\"}]}}}]}"),
         "messages[0].content[0].tools[0].tools[0].description"},
        {FORM_OPENAI, ONE("{\"role\":\"user\"}"), "messages[0].content"},
        {FORM_OPENAI, ONE("{\"role\":\"system\",\"content\":null}"), "messages[0].content"},
        {FORM_OPENAI, ONE("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"),
         "messages[0].content[0].type"},
        {FORM_OPENAI, ONE("{\"role\":\"system\",\"content\":[{\"type\":\"input_audio\"}]}"),
         "messages[0].content[0].type"},
        {FORM_OPENAI, ONE("{\"role\":\"assistant\",\"content\":null}"), "messages[0].content"},
        {FORM_OPENAI,
         ONE("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{}}]}"),
         "messages[0].tool_calls[0].function.name"},
        {FORM_OPENAI,
         ONE("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{"
             "}}}]}"),
         "messages[0].tool_calls[0].function.arguments"},
        {FORM_OPENAI, ONE("{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\"}]}"),
         "messages[0].tool_calls[0].type"},
        {FORM_OPENAI, ONE("{\"role\":\"tool\",\"content\":\"x\"}"), "messages[0].name"},
        {FORM_OPENAI, ONE("{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"x\"}"),
         "messages[0].tool_call_id"},
        {FORM_OPENAI, ONE("{\"role\":\"tool\",\"name\":\"f\"}"), "messages[0].content"},
        {FORM_OPENAI,
         "{\"tools\":[{\"type\":\"function\",\"function\":{}}],\"messages\":[{\"role\":"
         "\"user\",\"content\":\"x\"}]}",
         "tools[0].function.name"},
        {FORM_OPENAI, "{\"tools\":[{\"type\":\"web_search\"}],\"messages\":[]}", "messages"},
        {FORM_OPENAI,
         "{\"tools\":[{\"type\":\"web_search\"}],\"messages\":[{\"role\":\"user\",\"content\":"
         "\"x\"}]}",
         "tools[0].type"},
        {FORM_OPENAI,
         "{\"reasoning_effort\":\"huge\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         "reasoning_effort"},
    };
    for (size_t i = 0; i < N_OF(row); i++) {
        struct loaded l;
        load(&l, row[i].json, row[i].form, NULL);
        if (l.st != E_INPUT || strcmp(l.e.param, row[i].param) != 0)
            fail_msg("%s: status %d, param %s, want %s", row[i].json, l.st, l.e.param,
                     row[i].param);
        assert_true(l.e.msg[0] != '\0');
        unload(&l);
    }
}

/* A system message at the front tells that a text was read as an OpenAI request. */
static void forms(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool openai;
    } row[] = {
        {"[{\"role\":\"user\",\"content\":\"x\"}]", true},
        {ONE("{\"role\":\"user\",\"content\":\"x\"}"), true},
        {ONE("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}"), false},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
         "\"text\":\"x\"}]}]}",
         true},
        {ONE("{\"role\":\"user\",\"name\":null,\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}"),
         false},
        {ONE("{\"role\":\"assistant\",\"content\":\"x\",\"channel\":\"final\"}"), false},
        {ONE("{\"role\":\"system\",\"content\":[{\"type\":\"system_content\"}]}"), false},
        {ONE("{\"role\":\"assistant\",\"content\":\"x\",\"reasoning\":\"y\"}"), true},
        {ONE("{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":null}"), true},
    };
    for (size_t i = 0; i < N_OF(row); i++) {
        struct loaded l;
        load(&l, row[i].json, FORM_AUTO, NULL);
        assert_int_equal(l.st, OK);
        bool made = l.c.n_msg > 1 && l.c.msg[0].role == ROLE_SYSTEM;
        if (made != row[i].openai)
            fail_msg("%s", row[i].json);
        unload(&l);
    }
}

static void openai_mapping(void **state)
{
    (void)state;
    expect_openai(
        "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
        "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"Be "
        "\"},{\"type\":\"text\","
        "\"text\":\"kind.\"}]},{\"role\":\"user\",\"content\":\"Weather?\"},"
        "{\"role\":\"assistant\",\"reasoning_content\":\"Call.\",\"content\":\"One moment.\","
        "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"weather\","
        "\"arguments\":\"{ \\\"city\\\" : 1.50 }\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"rain\"},"
        "{\"role\":\"assistant\",\"content\":\"Rain.\"}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\"}}]}",
        NULL,
        "<|start|>developer<|message|># Instructions\n\nBe brief.\n\nBe kind.\n\n# Tools\n\n"
        "## functions\n\nnamespace functions {\n\ntype weather = () => any;\n\n} // namespace "
        "functions"
        "<|end|><|start|>user<|message|>Weather?<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Call.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>One moment.<|end|>"
        "<|start|>assistant to=functions.weather<|channel|>commentary <|constrain|>json<|message|>"
        "{ \"city\" : 1.50 }<|call|>"
        "<|start|>functions.weather to=assistant<|channel|>commentary<|message|>rain<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Rain.<|end|>");
    /* The old function names, refusals, empty content beside calls. */
    expect_openai("[{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":\"f\","
                  "\"arguments\":\"\"}},"
                  "{\"role\":\"function\",\"name\":\"f\",\"content\":\"1\"},"
                  "{\"role\":\"assistant\",\"content\":null,\"refusal\":\"No.\"},"
                  "{\"role\":\"assistant\",\"content\":\"\"}]",
                  NULL,
                  "<|start|>assistant to=functions.f<|channel|>commentary "
                  "<|constrain|>json<|message|><|call|>"
                  "<|start|>functions.f to=assistant<|channel|>commentary<|message|>1<|end|>"
                  "<|start|>assistant<|channel|>final<|message|>No.<|end|>"
                  "<|start|>assistant<|channel|>final<|message|><|end|>");
    /* An id used twice means the later call. */
    expect_openai("[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":"
                  "\"a\",\"arguments\":"
                  "\"1\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"x\"},"
                  "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":"
                  "\"b\",\"arguments\":"
                  "\"2\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"y\"}]",
                  NULL,
                  "<|start|>assistant to=functions.a<|channel|>commentary "
                  "<|constrain|>json<|message|>1<|call|>"
                  "<|start|>functions.a to=assistant<|channel|>commentary<|message|>x<|end|>"
                  "<|start|>assistant to=functions.b<|channel|>commentary "
                  "<|constrain|>json<|message|>2<|call|>"
                  "<|start|>functions.b to=assistant<|channel|>commentary<|message|>y<|end|>");
}

static void system_fields(void **state)
{
    (void)state;
    static const char json[] =
        "{\"reasoning_effort\":\"high\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    struct loaded l;
    load(&l, json, FORM_OPENAI, NULL);
    const struct harmony_system *s = l.c.msg[0].part[0].system;
    assert_true(str_eq(s->identity, "You are ChatGPT, a large language model trained by OpenAI."));
    assert_true(str_eq(s->knowledge_cutoff, "2024-06") && !s->current_date.p);
    assert_int_equal(s->effort, EFFORT_HIGH);
    assert_int_equal(s->n_channel, 3);
    assert_true(s->channel_required);
    unload(&l);
    const struct harmony_openai_opts o = {.identity = STR("You are G."),
                                          .current_date = STR("2025-06-28"),
                                          .has_effort = true,
                                          .effort = EFFORT_LOW};
    load(&l, json, FORM_OPENAI, &o);
    s = l.c.msg[0].part[0].system;
    assert_true(str_eq(s->identity, "You are G.") && str_eq(s->current_date, "2025-06-28"));
    assert_int_equal(s->effort, EFFORT_LOW);
    unload(&l);
}

static void response_formats(void **state)
{
    (void)state;
    const struct harmony_openai_opts bare = {
        .response_schema =
            STR("{ \"type\" : \"object\", \"title\":\"Person\", \"x\": [1e5, -0] }")};
    expect_openai("[{\"role\":\"user\",\"content\":\"x\"}]", &bare,
                  "<|start|>developer<|message|># Response Formats\n\n## Person\n\n"
                  "{\"type\":\"object\",\"title\":\"Person\",\"x\":[100000.0,-0.0]}<|end|>"
                  "<|start|>user<|message|>x<|end|>");
    expect_openai(
        "{\"messages\":[{\"role\":\"system\",\"content\":\"Do.\"}],\"response_format\":{\"type\":"
        "\"json_schema\",\"json_schema\":{\"name\":\"p\",\"description\":\"A p\",\"schema\":{"
        "\"type\":\"object\"}}}}",
        NULL,
        "<|start|>developer<|message|># Instructions\n\nDo.\n\n# Response Formats\n\n## p\n\n"
        "// A p\n{\"type\":\"object\"}<|end|>");
    struct loaded l;
    const struct harmony_openai_opts bad = {.response_schema = STR("{")};
    load(&l, "[{\"role\":\"user\",\"content\":\"x\"}]", FORM_OPENAI, &bad);
    assert_int_equal(l.st, E_INPUT);
    unload(&l);
}

static void to_json(void **state)
{
    (void)state;
    struct harmony_part part = {.kind = CONTENT_TEXT, .text = STR("a\"\n\xc3\xa9")};
    const struct harmony_message m[] = {
        {.role = ROLE_ASSISTANT, .part = &part, .n_part = 1},
        {.role = ROLE_TOOL,
         .name = STR("functions.f"),
         .recipient = STR("assistant"),
         .channel = STR("commentary"),
         .content_type = STR("json")},
    };
    struct buf b;
    buf_init(&b, 1 << 12);
    harmony_to_json(&b, m, 2);
    assert_string_equal(
        b.p, "{\"messages\":[{\"role\":\"assistant\",\"name\":null,\"content\":[{\"type\":\"text\","
             "\"text\":\"a\\\"\\n\xc3\xa9\"}]},{\"role\":\"tool\",\"name\":\"functions.f\","
             "\"content\":[],"
             "\"channel\":\"commentary\",\"recipient\":\"assistant\",\"content_type\":\"json\"}]}");
    buf_fini(&b);
}

/* How the library prints a default, for the spellings that a plain double would lose. */
static void numbers(void **state)
{
    (void)state;
    static const char *const row[][2] = {
        {"-0", "-0.0"},
        {"0", "0"},
        {"1.0", "1.0"},
        {"1.50", "1.5"},
        {"1e5", "100000.0"},
        {"1e15", "1000000000000000.0"},
        {"1e16", "1e16"},
        {"1e-5", "0.00001"},
        {"1e-6", "1e-6"},
        {"9223372036854775807", "9223372036854775807"},
        {"18446744073709551615", "18446744073709551615"},
        {"18446744073709551616", "1.8446744073709552e19"},
        {"-9223372036854775809", "-9.223372036854776e18"},
        {"1e-400", "0.0"},
        {"5e-324", "5e-324"},
        {"[1e5,{\"k\":-0}]", "[100000.0,{\"k\":-0.0}]"},
        {"\"\\u0000#1.5\"", "\"\\u0000#1.5\""},
        {"\"\\u0000\\u0000\"", "\"\\u0000\\u0000\""},
        /* serde_json's fast reader is a unit off here, and the library prints that */
        {"26.633056045725954", "26.63305604572595"},
    };
    for (size_t i = 0; i < N_OF(row); i++) {
        struct json *j;
        struct buf b;
        buf_init(&b, 1 << 10);
        assert_int_equal(json_parse(row[i][0], strlen(row[i][0]), &json_limits_file, &j, NULL), OK);
        harmony_json_compact(&b, j);
        assert_string_equal(b.p, row[i][1]);
        buf_clear(&b);
        json_dump(&b, j); /* base/json gives numbers back as they were written */
        assert_string_equal(b.p, row[i][0]);
        buf_fini(&b);
        json_free(j);
    }
    static const char *const bad[] = {"1e400",    "-1e999", "01", "1.",     ".5",
                                      "1e",       "-",      "+1", "[1.5,]", "{\"a\":1.5,\"a\":2.5}",
                                      "\"\\u0000"};
    for (size_t i = 0; i < N_OF(bad); i++) {
        struct json *j;
        struct err e;
        assert_int_equal(json_parse(bad[i], strlen(bad[i]), &json_limits_file, &j, &e), E_INPUT);
        assert_null(j);
    }
    /* The place of an error is that of the text as written, kept numbers before it or not. */
    struct json *j;
    struct err e1, e2;
    static const char with[] = "[1.5, 2.50,\n 3.5, \"\\u0000x\", oops]",
                      without[] = "[111, 2222,\n 333, \"......x\", oops]";
    assert_int_equal(json_parse(with, strlen(with), &json_limits_file, &j, &e1), E_INPUT);
    assert_int_equal(json_parse(without, strlen(without), &json_limits_file, &j, &e2), E_INPUT);
    assert_string_equal(e1.msg, e2.msg);
    /* Values through the getters. */
    double d = 0;
    int64_t n = 7;
    assert_int_equal(json_parse("{\"a\":1.5e3,\"b\":-0}", 18, &json_limits_file, &j, NULL), OK);
    assert_int_equal(json_get_num(j, "a", 0, 1e4, &d, NULL), OK);
    assert_true(d == 1500.0);
    assert_int_equal(json_get_int(j, "b", -5, 5, &n, NULL), OK);
    assert_int_equal(n, 0);
    assert_int_equal(json_get_int(j, "a", 0, 2000, &n, NULL), OK);
    assert_int_equal(n, 1500);
    json_free(j);
}

/* The arena's ceiling is an error, not a crash; so is each failed allocation. */
static void memory_failures(void **state)
{
    (void)state;
    static const char json[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"assistant\","
        "\"reasoning\":\"r\","
        "\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"1.5\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]"
        "}],"
        "\"temperature\":0.5,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}";
    const struct harmony_openai_opts o = {.response_schema = STR("{\"a\":1.5}")};
    int failed = 0;
    for (long n = 1;; n++) {
        struct loaded l;
        mem_fault_at(n);
        load(&l, json, FORM_OPENAI, &o);
        mem_fault_at(0);
        status st = l.st;
        unload(&l);
        if (st == OK)
            break;
        assert_int_equal(st, E_NOMEM);
        failed++;
        assert_true(n < 1000);
    }
    assert_true(failed >= 4);
    struct json *root;
    struct arena a;
    struct harmony_conversation c;
    struct err e;
    arena_init(&a, 100);
    assert_int_equal(json_parse(json, strlen(json), &json_limits_file, &root, &e), OK);
    assert_int_equal(harmony_from_json(root, FORM_OPENAI, NULL, &a, &c, &e), E_NOMEM);
    arena_fini(&a);
    json_free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),         cmocka_unit_test(forms),
        cmocka_unit_test(openai_mapping),   cmocka_unit_test(system_fields),
        cmocka_unit_test(response_formats), cmocka_unit_test(to_json),
        cmocka_unit_test(numbers),          cmocka_unit_test(memory_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
