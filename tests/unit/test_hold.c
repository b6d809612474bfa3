/* What gloss_params hold a request's tokens to, through the engine and tiny: tool choices, formats,
 * the reasoning budget, prompts that stop within a message, refusals, hostile schemas; and steps
 * with grammars allocate nothing.
 */
#include "unit/unit.h"

#include "base/clock.h"
#include "base/mem.h"
#include "gloss.h"

#include <stdbool.h>

enum { MAX_TEXT = 1 << 16 };

static gloss_model *model;
static gloss_engine *engine;

static const char city_schema[] =
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"maxLength\":12},"
    "\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}},\"required\":[\"city\",\"days\"],"
    "\"additionalProperties\":false}";
static const struct gloss_tool tools[] = {
    {.recipient = "functions.weather", .schema = city_schema, .n_schema = sizeof city_schema - 1},
    {.recipient = "functions.any"},
    {.recipient = "python", .builtin = 1},
};

static int setup(void **state)
{
    (void)state;
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.n_ctx = 1024;
    o.n_thread = 1;
    o.max_requests = 8;
    return gloss_model_open("tiny", NULL, &model, NULL) < 0 ||
           gloss_engine_new(model, &o, &engine, NULL) < 0;
}

static int teardown(void **state)
{
    (void)state;
    gloss_engine_free(engine);
    gloss_model_close(model);
    return 0;
}

/* A turn as text with its control tokens written out, and its parts. */
struct said {
    char text[MAX_TEXT], final[MAX_TEXT], arguments[MAX_TEXT], recipient[128];
    int finish, n_message, n_token;
    bool analysis;
    struct gloss_err e;
};

static gloss_status ask(const char *prompt, const struct gloss_params *p, struct said *s)
{
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    struct gloss_event ev = {0};
    struct gloss_delta d;
    struct gloss_message m;
    gloss_request *r;
    gloss_chat *c;
    int32_t *ids;
    size_t n, len = 0;
    *s = (struct said){0};
    assert_int_equal(
        gloss_encode(model, prompt, strlen(prompt), GLOSS_SPECIAL_ALLOW, &ids, &n, NULL), GLOSS_OK);
    gloss_status st = gloss_submit(engine, ids, n, p, &r, &s->e);
    gloss_free(ids);
    if (st < 0)
        return st;
    assert_int_equal(gloss_chat_new(model, &o, &c, NULL), GLOSS_OK);
    while (gloss_next(r, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH) {
        const char *b = gloss_token_bytes(model, ev.token, &n);
        assert_true(len + n < MAX_TEXT);
        memcpy(s->text + len, b, n);
        len += n;
        s->n_token++;
        assert_int_equal(gloss_chat_feed(c, ev.token, &d, NULL), GLOSS_OK);
    }
    s->finish = ev.finish;
    s->e = ev.err;
    assert_int_equal(gloss_chat_finish(c, &d, NULL), GLOSS_OK);
    s->n_message = gloss_chat_messages(c);
    for (int i = 0; i < s->n_message; i++) {
        assert_int_equal(gloss_chat_message(c, i, &m, NULL), GLOSS_OK);
        s->analysis = s->analysis || (m.channel && strcmp(m.channel, "analysis") == 0);
        if (m.recipient) {
            snprintf(s->recipient, sizeof s->recipient, "%s", m.recipient);
            memcpy(s->arguments, m.text, m.n_text + 1);
        } else if (m.channel && strcmp(m.channel, "final") == 0) {
            memcpy(s->final, m.text, m.n_text + 1);
        }
    }
    gloss_chat_free(c);
    gloss_request_free(r);
    return GLOSS_OK;
}

static const char prompt[] = "<|start|>user<|message|>What is 127 + 385?<|end|><|start|>assistant";

static struct gloss_params hot(uint64_t seed)
{
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.temperature = 1.5f;
    p.seed = seed;
    p.max_tokens = 200;
    p.tools = tools;
    p.n_tools = 3;
    p.no_logprobs = 1;
    return p;
}

static void test_tool_choice(void **state)
{
    (void)state;
    static struct said s;
    int n_call = 0;
    for (uint64_t seed = 1; seed < 14; seed++) {
        struct gloss_params p = hot(seed);
        p.tool_choice = GLOSS_TOOL_CHOICE_NONE;
        assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
        assert_null(strstr(s.text, " to="));
        assert_int_not_equal(s.finish, GLOSS_FINISH_CALL);
        p.tool_choice = GLOSS_TOOL_CHOICE_REQUIRED;
        assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
        assert_null(strstr(s.text, "<|channel|>final"));
        assert_int_not_equal(s.finish, GLOSS_FINISH_STOP);
        n_call += s.finish == GLOSS_FINISH_CALL;
        const char *named[] = {"functions.weather"};
        p.allowed_tools = named;
        p.n_allowed_tools = 1;
        assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
        if (s.finish == GLOSS_FINISH_CALL) {
            assert_string_equal(s.recipient, "functions.weather");
            assert_non_null(strstr(s.arguments, "\"city\""));
            assert_non_null(strstr(s.arguments, "\"days\""));
        }
        p.tool_choice = GLOSS_TOOL_CHOICE_AUTO;
        assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
        assert_null(strstr(s.text, "functions.any"));
        assert_null(strstr(s.text, "to=python"));
    }
    assert_true(n_call > 0);
}

static void test_formats(void **state)
{
    (void)state;
    static struct said s;
    static const struct {
        int format;
        const char *text;
    } cases[] = {{GLOSS_FORMAT_JSON_OBJECT, NULL},
                 {GLOSS_FORMAT_JSON_SCHEMA, city_schema},
                 {GLOSS_FORMAT_REGEX, "[0-9]{3} (ok|fine)"},
                 {GLOSS_FORMAT_CHOICE, "[\"yes\",\"no\",\"per\\\"haps\"]"}};
    int n_done[4] = {0}, n_analysis = 0;
    for (int i = 0; i < 40; i++) {
        struct gloss_params p = hot((uint64_t)i + 1);
        p.n_tools = 0;
        p.temperature = 1;
        p.format = cases[i % 4].format;
        p.format_text = cases[i % 4].text;
        p.n_format_text = cases[i % 4].text ? strlen(cases[i % 4].text) : 0;
        assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
        n_analysis += s.analysis;
        if (s.finish != GLOSS_FINISH_STOP)
            continue;
        n_done[i % 4]++;
        size_t n = strlen(s.final);
        if (i % 4 < 2)
            assert_true(s.final[0] == '{' && s.final[n - 1] == '}');
        if (i % 4 == 1)
            assert_non_null(strstr(s.final, "\"days\":"));
        if (i % 4 == 2) {
            assert_int_equal(strspn(s.final, "0123456789"), 3);
            assert_true(!strcmp(s.final + 3, " ok") || !strcmp(s.final + 3, " fine"));
        }
        if (i % 4 == 3)
            assert_true(!strcmp(s.final, "yes") || !strcmp(s.final, "no") ||
                        !strcmp(s.final, "per\"haps"));
    }
    for (int i = 0; i < 4; i++)
        assert_true(n_done[i] > 2);
    assert_true(n_analysis > 20); /* free text: the format concerns the answer alone */
}

/* The budget closes the analysis; without tools the answer is next, with a required call the call.
 */
static void test_budget(void **state)
{
    (void)state;
    static struct said s;
    for (uint64_t seed = 1; seed < 7; seed++) {
        struct gloss_params p = hot(seed);
        p.reasoning_budget = 4;
        p.n_tools = 0;
        p.temperature = 0.7f;
        assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
        assert_int_equal(s.n_message, 1 + s.analysis);
        assert_non_null(strstr(s.text, "<|channel|>final<|message|>"));
        p.n_tools = 1;
        p.tool_choice = GLOSS_TOOL_CHOICE_REQUIRED;
        p.max_tokens = 300;
        assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
        const char *first = strstr(s.text, "analysis<|message|>"),
                   *second = first ? strstr(first + 1, "analysis<|message|>") : NULL;
        assert_null(second);
        if (s.finish == GLOSS_FINISH_CALL)
            assert_string_equal(s.recipient, "functions.weather");
    }
}

/* A message of the assistant that the prompt began is gone on with, within its grammar. */
static void test_prompts_within_a_message(void **state)
{
    (void)state;
    static struct said s;
    static const char yes_no[] = "[\"yes and no\",\"no\"]";
    char text[1024];
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.format = GLOSS_FORMAT_CHOICE;
    p.format_text = yes_no;
    p.n_format_text = sizeof yes_no - 1;
    p.max_tokens = 40;
    snprintf(text, sizeof text, "%s<|channel|>final<|message|>yes a", prompt);
    assert_int_equal(ask(text, &p, &s), GLOSS_OK);
    assert_string_equal(s.text, "nd no<|return|>");
    snprintf(text, sizeof text, "%s<|channel|>analysis<|message|>So.<|end|>", prompt);
    p.no_analysis = 1;
    assert_int_equal(ask(text, &p, &s), GLOSS_OK);
    assert_int_equal(strncmp(s.text, "<|start|>assistant<|channel|>", 29), 0);
    assert_null(strstr(s.text, "analysis"));
    snprintf(text, sizeof text, "%s<|channel|>final<|message|>maybe", prompt);
    assert_int_equal(ask(text, &p, &s), GLOSS_E_INPUT);
    assert_string_equal(s.e.param, "prompt");
    snprintf(text, sizeof text, "%s<|channel|>thoughts<|message|>", prompt);
    assert_int_equal(ask(text, &p, &s), GLOSS_E_INPUT);
    p.no_header_grammar = 1; /* then anything goes */
    assert_int_equal(ask(text, &p, &s), GLOSS_OK);
}

/* Past the end of the turn nothing is held; before min_tokens the grammar's end wins if nothing
 * else is left. */
static void test_ends(void **state)
{
    (void)state;
    static struct said s;
    struct gloss_params p = hot(3);
    p.ignore_eos = 1;
    p.max_tokens = 200;
    p.temperature = 0;
    assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
    assert_int_equal(s.n_token, 200);
    p = hot(3);
    p.format = GLOSS_FORMAT_CHOICE;
    p.format_text = "[\"yes\"]";
    p.n_format_text = 7;
    p.no_analysis = 1;
    p.n_tools = 0;
    p.min_tokens = 100;
    assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
    assert_int_equal(s.finish, GLOSS_FINISH_STOP);
    assert_string_equal(s.final, "yes");
}

static void refused(struct gloss_params *p, gloss_status st, const char *param, const char *word)
{
    static struct said s;
    assert_int_equal(ask(prompt, p, &s), st);
    assert_string_equal(s.e.param, param);
    if (!strstr(s.e.msg, word))
        fail_msg("%s does not name %s", s.e.msg, word);
}

static void test_refusals(void **state)
{
    (void)state;
    const char *allowed[] = {"functions.nope"};
    struct gloss_tool t[2] = {{.recipient = "functions.f", .strict = 1},
                              {.recipient = "functions.f"}};
    struct gloss_params p = hot(1);
    p.allowed_tools = allowed;
    p.n_allowed_tools = 1;
    refused(&p, GLOSS_E_INPUT, "tool_choice", "functions.nope");
    p = hot(1);
    p.n_tools = 0;
    p.tool_choice = GLOSS_TOOL_CHOICE_REQUIRED;
    refused(&p, GLOSS_E_INPUT, "tool_choice", "no tool");
    p = hot(1);
    p.tool_choice = GLOSS_TOOL_CHOICE_REQUIRED;
    p.no_header_grammar = 1;
    refused(&p, GLOSS_E_INPUT, "tool_choice", "header grammar");
    p = hot(1);
    p.tools = t;
    p.n_tools = 2;
    refused(&p, GLOSS_E_INPUT, "tools", "functions.f");
    p.n_tools = 1;
    t[0].recipient = "functions.a b";
    refused(&p, GLOSS_E_INPUT, "tools", "blanks");
    t[0].recipient = "functions.f";
    t[0].schema = "{\"type\":\"object\",\"not\":{}}";
    t[0].n_schema = strlen(t[0].schema);
    refused(&p, GLOSS_E_INPUT, "tools", "not");
    t[0].strict = 0; /* then the arguments are any object */
    static struct said s;
    p.tool_choice = GLOSS_TOOL_CHOICE_REQUIRED;
    assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
    p = hot(1);
    p.n_tools = 0;
    p.format = GLOSS_FORMAT_REGEX;
    p.format_text = "(?=a)b";
    p.n_format_text = 6;
    refused(&p, GLOSS_E_INPUT, "format", "lookaround");
    p.plain = 1;
    refused(&p, GLOSS_E_INPUT, "format", "plain");
    p.plain = 0;
    p.format = 9;
    refused(&p, GLOSS_E_INPUT, "format", "9");
}

/* What a hostile client may send costs it an error within the time that compiling has, and the next
 * request is what it was before. */
static void test_hostile(void **state)
{
    (void)state;
    enum { BIG = 3 << 20 };
    static struct said before, s;
    static char text[BIG + 64];
    struct gloss_params p = hot(5);
    assert_int_equal(ask(prompt, &p, &before), GLOSS_OK);
    for (int kind = 0; kind < 9; kind++) {
        static const char *const fixed[] = {
            [3] = "{\"$ref\":\"#\"}",
            [4] = "{\"$ref\":\"http://example.com/schema\"}",
            [5] = "{\"type\":\"string\",\"pattern\":\"a{1,1000000}\"}",
            [6] = "{\"type\":\"string\",\"pattern\":\"+\"}",
            [7] = "{\"type\":\"tree\"}",
            [8] = "{\"type\":\"string\",\"pattern\":\"((a{1,900}){1,900}){1,900}\"}",
        };
        size_t n = 0;
        if (kind == 0) { /* nesting */
            for (int i = 0; i < 100000; i++)
                n += (size_t)snprintf(text + n, sizeof text - n, "{\"items\":");
        } else if (kind == 1) { /* an endless list of values */
            n += (size_t)snprintf(text + n, sizeof text - n, "{\"enum\":[0");
            for (int i = 1; n < BIG - 64; i++)
                n += (size_t)snprintf(text + n, sizeof text - n, ",%d", i);
            n += (size_t)snprintf(text + n, sizeof text - n, "]}");
        } else if (kind == 2) { /* alternatives */
            n += (size_t)snprintf(text + n, sizeof text - n, "{\"anyOf\":[{}");
            for (int i = 0; i < 30000; i++)
                n += (size_t)snprintf(text + n, sizeof text - n, ",{\"minItems\":%d}", i);
            n += (size_t)snprintf(text + n, sizeof text - n, "]}");
        } else {
            n = (size_t)snprintf(text, sizeof text, "%s", fixed[kind]);
        }
        p.format = GLOSS_FORMAT_JSON_SCHEMA;
        p.format_text = text;
        p.n_format_text = n;
        uint64_t start = clock_ns();
        gloss_status st = ask(prompt, &p, &s);
        double ms = clock_ms_since(start);
        printf("hostile %d: %.1f ms, %s\n", kind, ms, s.e.msg);
        assert_true(st == GLOSS_E_INPUT || st == GLOSS_E_LIMIT);
        assert_true(ms < 2000); /* 200 ms of one core; the machine may be busy */
    }
    p = hot(5);
    assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
    assert_string_equal(s.text, before.text);
}

/* Long turns through analysis, headers, a string without end and masks seen for the first time. */
static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    static const char endless[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\","
        "\"items\":{\"type\":\"string\",\"minLength\":4},\"minItems\":99}},"
        "\"required\":[\"a\"]}";
    struct gloss_params p = hot(2);
    struct gloss_event ev = {0};
    gloss_request *r[2];
    int32_t *ids;
    size_t n;
    p.no_analysis = 1;
    p.format = GLOSS_FORMAT_JSON_SCHEMA;
    p.format_text = endless;
    p.n_format_text = sizeof endless - 1;
    p.tool_choice = GLOSS_TOOL_CHOICE_NONE;
    p.max_tokens = 240;
    assert_int_equal(
        gloss_encode(model, prompt, sizeof prompt - 1, GLOSS_SPECIAL_ALLOW, &ids, &n, NULL), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(gloss_submit(engine, ids, n, &p, &r[i], NULL), GLOSS_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(gloss_next(r[i], &ev, -1), GLOSS_OK);
    long before = mem_fault_count();
    for (int i = 0; i < 440; i++)
        assert_int_equal(gloss_next(r[i % 2], &ev, -1), GLOSS_OK);
    assert_int_equal(mem_fault_count(), before);
    assert_int_equal(ev.kind, GLOSS_EV_TOKEN);
    for (int i = 0; i < 2; i++)
        gloss_request_free(r[i]);
    gloss_free(ids);
}

/* A script is emitted as it is, whatever the grammar says. */
static void test_scripts_are_not_held(void **state)
{
    (void)state;
    static struct said s;
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    gloss_engine *held = engine;
    o.script = "{\"text\":\"<|channel|>thoughts<|message|>hm<|end|>oops<|return|>\"}";
    o.n_script = strlen(o.script);
    o.n_ctx = 512;
    assert_int_equal(gloss_engine_new(model, &o, &engine, NULL), GLOSS_OK);
    assert_int_equal(ask(prompt, &p, &s), GLOSS_OK);
    assert_string_equal(s.text, "<|channel|>thoughts<|message|>hm<|end|>oops<|return|>");
    gloss_engine_free(engine);
    engine = held;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_choice),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_prompts_within_a_message),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_scripts_are_not_held),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
