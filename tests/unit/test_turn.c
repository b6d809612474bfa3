/* The turn automaton: the streams of the format's description, every tool choice, what each place
 * allows, headers that are only watched. */
#include "unit/unit.h"

#include "base/mem.h"
#include "engine/schema.h"
#include "engine/turn.h"

enum {
    N_ID = 201088,
    START = 200006,
    END = 200007,
    MESSAGE = 200008,
    CHANNEL = 200005,
    CONSTRAIN = 200003,
    RETURN = 200002,
    CALL = 200012,
    ENDOFTEXT = 199999,
    RESERVED = 200000,
    ASSISTANT = 173781,
    ANALYSIS = 35644,
    FINAL = 17196
};

static struct masker *masker;
static struct grammar *weather, *object;
static uint32_t *bits;
static struct turn_tool tools[3];

static struct turn *open_turn(const struct turn_spec *s)
{
    struct turn *t;
    struct err e = {0};
    if (turn_new(masker, s, &t, &e) < 0)
        fail_msg("%s", e.msg);
    return t;
}

/* Feeds ids up to -1; each must be in the mask and nothing may be in the mask that is refused. */
static void feed(struct turn *t, const int32_t *ids)
{
    for (; *ids >= 0; ids++) {
        int32_t end, forced = turn_forced(t);
        turn_mask(t, bits, &end);
        if (!(bits[*ids / 32] >> (*ids % 32) & 1) || !turn_allows(t, *ids))
            fail_msg("token %d is not allowed", *ids);
        if (forced >= 0)
            assert_int_equal(forced, *ids);
        assert_int_equal(turn_accept(t, *ids), OK);
    }
}

static void text(struct turn *t, const char *s)
{
    struct ids ids;
    struct err e;
    ids_init(&ids, 1000);
    assert_int_equal(o200k_encode(vocab_o200k(), s, strlen(s), SPECIAL_TEXT, &ids, &e), OK);
    ids_put(&ids, -1);
    feed(t, ids.v);
    ids_fini(&ids);
}

static void feed_one(struct turn *t, int32_t id)
{
    const int32_t ids[] = {id, -1};
    feed(t, ids);
}

static bool allowed(struct turn *t, int32_t id)
{
    int32_t end;
    turn_mask(t, bits, &end);
    bool in = bits[id / 32] >> (id % 32) & 1;
    assert_int_equal(in, turn_allows(t, id));
    return in;
}

static enum turn_place place(struct turn *t)
{
    int tool;
    return turn_place(t, &tool);
}

/* harmony.md, section 10, stream 2. */
static void test_call(void **state)
{
    (void)state;
    struct turn *t = open_turn(&(struct turn_spec){.tool = tools, .n_tool = 3});
    static const int32_t before[] = {
        CHANNEL, ANALYSIS, MESSAGE, 23483, 11122, 13,     END, START,     ASSISTANT, CHANNEL, 12606,
        815,     316,      28,      44580, 775,   170154, 220, CONSTRAIN, 4108,      MESSAGE, -1};
    feed(t, before);
    int tool;
    assert_int_equal(turn_place(t, &tool), TURN_CALL);
    assert_int_equal(tool, 0);
    assert_int_equal(turn_end_id(t), CALL);
    assert_false(allowed(t, CALL) || allowed(t, END) || allowed(t, RETURN) || allowed(t, 13));
    static const int32_t args[] = {10848, 17500, 7534, 15097, 746, 18583, CALL, -1};
    feed(t, args);
    assert_int_equal(place(t), TURN_DONE);
    assert_false(allowed(t, START) || allowed(t, 13));
    turn_free(t);
}

/* The recipient after the role; a preamble first; each content type. */
static void test_other_headers(void **state)
{
    (void)state;
    static const char *const types[] = {"", " json", " <json", "<json"};
    for (int i = 0; i < 4; i++)
        for (int after = 0; after < 2; after++) {
            struct turn *t = open_turn(&(struct turn_spec){.tool = tools, .n_tool = 3});
            feed_one(t, CHANNEL);
            text(t, "commentary");
            feed_one(t, MESSAGE);
            assert_int_equal(place(t), TURN_PREAMBLE);
            text(t, "I'll look <|call|> that up.");
            assert_false(allowed(t, RETURN) || allowed(t, CALL) || allowed(t, CHANNEL));
            feed_one(t, END);
            feed_one(t, START);
            feed_one(t, ASSISTANT);
            if (!after)
                text(t, " to=functions.get_weather");
            feed_one(t, CHANNEL);
            text(t, "commentary");
            if (after)
                text(t, " to=functions.get_weather");
            if (types[i][0] == ' ')
                text(t, i == 1 ? " json" : " ");
            if (i >= 2) {
                feed_one(t, CONSTRAIN);
                text(t, "json");
            }
            feed_one(t, MESSAGE);
            text(t, "{\"city\": \"Oslo\"}");
            assert_true(allowed(t, CALL));
            feed_one(t, CALL);
            assert_int_equal(place(t), TURN_DONE);
            turn_free(t);
        }
}

static void test_builtin(void **state)
{
    (void)state;
    struct turn *t = open_turn(&(struct turn_spec){.tool = tools, .n_tool = 3});
    text(t, " to=python");
    feed_one(t, CHANNEL);
    text(t, "analysis code");
    feed_one(t, MESSAGE);
    text(t, "print('x' * 3)  # any text");
    int32_t end;
    assert_true(turn_mask(t, bits, &end)); /* free text and the end */
    assert_int_equal(end, CALL);
    feed_one(t, CALL);
    turn_free(t);
}

static void test_final(void **state)
{
    (void)state;
    struct turn *t = open_turn(&(struct turn_spec){.final = object});
    assert_int_equal(turn_forced(t), CHANNEL);
    static const int32_t head[] = {CHANNEL,   ANALYSIS, MESSAGE, 13,      END, START,
                                   ASSISTANT, CHANNEL,  FINAL,   MESSAGE, -1};
    feed(t, head);
    assert_int_equal(place(t), TURN_FINAL);
    assert_false(allowed(t, 13) || allowed(t, RETURN));
    text(t, "{\"a\": [1]}");
    assert_true(allowed(t, RETURN));
    assert_false(allowed(t, END));
    feed_one(t, RETURN);
    assert_int_equal(place(t), TURN_DONE);
    turn_free(t);
}

static void test_choices(void **state)
{
    (void)state;
    static const int32_t to_channel[] = {CHANNEL, -1};
    /* none: no recipients */
    struct turn *t = open_turn(&(struct turn_spec){0});
    assert_false(allowed(t, 316)); /* " to" */
    feed(t, to_channel);
    assert_true(allowed(t, ANALYSIS) && allowed(t, FINAL) && allowed(t, 12606));
    turn_free(t);
    /* required: no final */
    t = open_turn(&(struct turn_spec){.tool = tools, .n_tool = 3, .must_call = true});
    assert_true(allowed(t, 316));
    feed(t, to_channel);
    assert_true(allowed(t, ANALYSIS) && !allowed(t, FINAL));
    turn_free(t);
    /* a named one */
    t = open_turn(&(struct turn_spec){.tool = tools + 1, .n_tool = 1, .must_call = true});
    static const int32_t to_functions[] = {316, 28, 44580, -1};
    feed(t, to_functions);
    assert_true(turn_forced(t) >= 0);
    turn_free(t);
    /* effort none */
    t = open_turn(&(struct turn_spec){.no_analysis = true});
    feed(t, to_channel);
    assert_false(allowed(t, ANALYSIS));
    turn_free(t);
    /* the reasoning budget */
    t = open_turn(&(struct turn_spec){.tool = tools, .n_tool = 1});
    static const int32_t thinking[] = {CHANNEL, ANALYSIS, MESSAGE, 13, -1};
    feed(t, thinking);
    turn_stop_analysis(t);
    assert_int_equal(turn_end_id(t), END);
    static const int32_t closing[] = {END, START, ASSISTANT, CHANNEL, -1};
    feed(t, closing);
    assert_false(allowed(t, ANALYSIS));
    assert_true(allowed(t, FINAL));
    turn_free(t);
}

static void test_watched_headers(void **state)
{
    (void)state;
    struct turn *t = open_turn(
        &(struct turn_spec){.tool = tools, .n_tool = 3, .final = object, .free_headers = true});
    assert_true(allowed(t, 13) && allowed(t, MESSAGE) && allowed(t, ENDOFTEXT));
    assert_true(allowed(t, RESERVED)); /* the model may write it, so it is read past */
    text(t, " to=nobody commentary?");
    feed_one(t, MESSAGE);
    assert_int_equal(place(t), TURN_OTHER);
    text(t, "whatever");
    static const int32_t final[] = {CHANNEL, END, START, ASSISTANT, CHANNEL, FINAL, MESSAGE, -1};
    feed(t, final);
    assert_int_equal(place(t), TURN_FINAL);
    assert_false(allowed(t, 13) || allowed(t, END));
    text(t, "{}");
    feed_one(t, RETURN);
    assert_int_equal(place(t), TURN_DONE);
    turn_free(t);
}

static void test_errors(void **state)
{
    (void)state;
    static const char *const names[] = {"", "functions.a b", "functions.<|call|>", "functions.a\n"};
    for (int i = 0; i < 4; i++) {
        struct turn_tool tool = {.recipient = {names[i], strlen(names[i])}};
        struct turn *t;
        struct err e = {0};
        assert_int_equal(turn_new(masker, &(struct turn_spec){.tool = &tool, .n_tool = 1}, &t, &e),
                         E_INPUT);
        assert_non_null(strstr(e.msg, "tool name"));
    }
    struct turn *t;
    struct err e = {0};
    assert_int_equal(turn_new(masker, &(struct turn_spec){.must_call = true}, &t, &e), E_INPUT);
    t = open_turn(&(struct turn_spec){0});
    assert_int_equal(turn_accept(t, FINAL), E_INPUT);
    assert_int_equal(turn_accept(t, -1), E_INPUT);
    assert_int_equal(turn_accept(t, 201088), E_INPUT);
    feed_one(t, CHANNEL); /* it didn't move */
    turn_free(t);
}

/* Clones go their own ways; walking allocates nothing; every failing allocation is reported. */
static void test_memory(void **state)
{
    (void)state;
    struct turn_spec spec = {.tool = tools, .n_tool = 3, .final = object};
    struct turn *t = open_turn(&spec), *c;
    static const int32_t head[] = {CHANNEL, FINAL, MESSAGE, 10848, -1}; /* {" */
    feed(t, head);
    assert_int_equal(turn_clone(t, &c), OK);
    text(t, "a\":1}");
    feed_one(t, RETURN);
    turn_free(t);
    assert_false(allowed(c, RETURN));
    mem_fault_at(0);
    long before = mem_fault_count();
    for (int i = 0; i < 20; i++) {
        int32_t end, id = 64;
        turn_mask(c, bits, &end);
        if (turn_allows(c, id))
            assert_int_equal(turn_accept(c, id), OK);
    }
    assert_int_equal(mem_fault_count(), before);
    turn_free(c);
    status st = E_NOMEM;
    for (long n = 1; st != OK; n++) {
        struct err e;
        c = NULL;
        mem_fault_at(n);
        st = turn_new(masker, &spec, &t, &e);
        if (st == OK)
            st = turn_clone(t, &c);
        mem_fault_at(0);
        assert_true(st == OK || st == E_NOMEM);
        turn_free(c);
        turn_free(t);
    }
}

/* 128 tools, some names beginning like others. */
static void test_many_tools(void **state)
{
    (void)state;
    static struct turn_tool many[128];
    static char names[128][40];
    for (int i = 0; i < 128; i++) {
        int n = snprintf(names[i], sizeof names[i], "functions.tool_%d", i);
        many[i] = (struct turn_tool){.recipient = {names[i], (size_t)n}, .args = weather};
    }
    struct turn *t = open_turn(&(struct turn_spec){.tool = many, .n_tool = 128});
    text(t, " to=functions.tool_1");
    assert_true(allowed(t, CHANNEL));
    feed_one(t, CHANNEL);
    text(t, "commentary json");
    feed_one(t, MESSAGE);
    int tool;
    assert_int_equal(turn_place(t, &tool), TURN_CALL);
    assert_int_equal(tool, 1);
    turn_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),       cmocka_unit_test(test_other_headers),
        cmocka_unit_test(test_builtin),    cmocka_unit_test(test_final),
        cmocka_unit_test(test_choices),    cmocka_unit_test(test_watched_headers),
        cmocka_unit_test(test_errors),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_many_tools),
    };
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}"
        "},\"required\":[\"city\"]}";
    struct err e = {0};
    struct json *j;
    if (masker_new(vocab_o200k(), N_ID, &masker, &e) < 0 ||
        json_parse(schema, sizeof schema - 1, &schema_json_limits, &j, &e) < 0 ||
        schema_compile(masker_prelude(masker), j, &weather, &e) < 0 ||
        schema_any_object(masker_prelude(masker), &object, &e) < 0)
        return 1;
    json_free(j);
    tools[0] = (struct turn_tool){.recipient = STR("functions.get_weather"), .args = weather};
    tools[1] = (struct turn_tool){.recipient = STR("functions.get"), .args = object};
    tools[2] = (struct turn_tool){.recipient = STR("python"), .builtin = true};
    bits = mem_calloc(masker_words(masker), sizeof *bits);
    int rc = bits ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    mem_free(bits);
    grammar_unref(weather);
    grammar_unref(object);
    masker_free(masker);
    return rc;
}
