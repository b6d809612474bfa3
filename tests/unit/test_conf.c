/* The option table machinery, on a table of its own. */
#include "unit.h"

#include "base/conf.h"
#include "base/mem.h"

enum { RUN, LOOK, ALBUM_ADD, N_CMD };

static const struct conf_opt options[] = {
    {"count", "number amount", 'n', CONF_INT, "N", 1, 100, .def = "5", .cmds = 1,
     .help = "how many"},
    {"heat", NULL, 0, CONF_NUM, "X", 0, 1, .above = true, .cmds = 1, .help = "how warm"},
    {"name", NULL, 'm', CONF_STR, "NAME", .cmds = 1, .help = "what it is called"},
    {"name", NULL, 'm', CONF_STR, "NAME", .required = true, .cmds = 2, .help = "whom to look at"},
    {"level", "effort", 'r', CONF_CHOICE, "low|mid|high", .def = "mid", .cmds = 1,
     .help = "how hard"},
    {"device", NULL, 0, CONF_CHOICE, "cpu|cuda|cuda:N|N", .cmds = 1, .help = "where"},
    {"stop", NULL, 's', CONF_LIST, "TEXT", .cmds = 1, .help = "where to end"},
    {"json", NULL, 'j', CONF_FLAG, .cmds = 3, .help = "as JSON"},
    {"two-words", NULL, 0, CONF_FLAG, .cmds = 1, .help = "twice"},
    {"sure", NULL, 0, CONF_FLAG, .def = "1", .cmds = 1, .help = "ask before"},
    {"seed", NULL, 0, CONF_INT, "N", 0, 0x1p63, .cmds = 1, .help = "which"},
    {"help", NULL, 'h', CONF_FLAG, .cmds = 7, .group = "General", .help = "print this text"},
};
static const struct conf_cmd commands[] = {
    {"run", "[WORD]...", -1, "runs", "Runs it.\n  as it stands", "prog run x"},
    {"look", "", 0, "looks", "Looks at it.", NULL},
    {"album add", "a|b", 1, "adds", "Adds.", NULL, "old_add"},
};
static const char *const notes[] = {"Files", ".hidden and back\\slash"};
static const struct conf_table table = {
    .program = "prog",
    .brief = "a program",
    .version = "1",
    .env_prefix = "PROG_",
    .notes = notes,
    .n_note = 1,
    .cmd = commands,
    .n_cmd = N_CMD,
    .opt = options,
    .n_opt = sizeof options / sizeof options[0],
};

enum { MAX_ARGS = 16 };

/* Parses a line of blank-separated words for command `cmd`. */
static status parse(struct conf *c, int cmd, const char *line, struct err *e)
{
    static char text[512];
    static char *argv[MAX_ARGS];
    int n = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *p = text, *w; (w = strsep(&p, " "));)
        if (*w)
            argv[n++] = w;
    *e = (struct err){0};
    return conf_parse(c, &table, cmd, n, argv, e);
}

static void clear_env(void)
{
    for (int i = 0; i < table.n_opt; i++) {
        struct buf b;
        buf_init(&b, 100);
        conf_env_name(&b, &table, options[i].name);
        unsetenv(b.p);
        buf_fini(&b);
    }
    unsetenv("PROG_AMOUNT");
}

static int setup(void **state)
{
    (void)state;
    clear_env();
    return 0;
}

static void defaults(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    assert_int_equal(parse(&c, RUN, "", &e), OK);
    assert_int_equal(conf_int(&c, "count"), 5);
    assert_int_equal(conf_get(&c, "count")->source, CONF_DEFAULT);
    assert_false(conf_given(&c, "count"));
    assert_string_equal(conf_str(&c, "level"), "mid");
    assert_int_equal(conf_get(&c, "level")->i, 1);
    assert_null(conf_str(&c, "name"));
    assert_false(conf_on(&c, "json"));
    assert_true(conf_on(&c, "sure"));
    assert_int_equal(c.n_pos, 0);
    conf_fini(&c);
}

/* Every accepted spelling of count = 7. */
static void spellings(void **state)
{
    (void)state;
    static const char *const lines[] = {"-n7",        "-n 7",     "-n=7",        "--count 7",
                                        "--count=7",  "-jn7",     "-jn 7",       "--number 7",
                                        "--amount=7", "-n3 -n 7", "x --count 7", "--json -n 7"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct conf c;
        struct err e;
        assert_int_equal(parse(&c, RUN, lines[i], &e), OK);
        assert_int_equal(conf_int(&c, "count"), 7);
        assert_int_equal(conf_get(&c, "count")->source, CONF_ARG);
        conf_fini(&c);
    }
}

static void arguments(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    assert_int_equal(parse(&c, RUN, "a -j -5 - b -.5 -- --json -n", &e), OK);
    static const char *const want[] = {"a", "-5", "-", "b", "-.5", "--json", "-n"};
    assert_int_equal(c.n_pos, 7);
    for (int i = 0; i < 7; i++)
        assert_string_equal(c.pos[i], want[i]);
    assert_true(conf_on(&c, "json"));
    conf_fini(&c);

    assert_int_equal(parse(&c, LOOK, "-m x y", &e), E_INPUT);
    assert_non_null(strstr(e.msg, "'y'"));
    conf_fini(&c);
}

static void booleans_and_lists(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    assert_int_equal(parse(&c, RUN, "--no-sure --json --no-json -s a --stop=b -sc", &e), OK);
    assert_false(conf_on(&c, "sure"));
    assert_false(conf_on(&c, "json"));
    const struct conf_val *v = conf_get(&c, "stop");
    assert_int_equal(v->n_list, 3);
    assert_string_equal(v->list[0], "a");
    assert_string_equal(v->list[2], "c");
    conf_fini(&c);
}

static void numbered_choice(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    assert_int_equal(parse(&c, RUN, "--device cuda:3", &e), OK);
    assert_string_equal(conf_str(&c, "device"), "cuda:3");
    conf_fini(&c);
    assert_int_equal(parse(&c, RUN, "--device 64", &e), OK);
    assert_string_equal(conf_str(&c, "device"), "64");
    conf_fini(&c);
    static const char *const bad[] = {
        "0", "-1", "N", "1x", "cuda:", "cuda:x", "cuda:-1", "cuda:N", "cud", "cpu:0"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "--device %s", bad[i]);
        assert_int_equal(parse(&c, RUN, line, &e), E_INPUT);
        conf_fini(&c);
    }
}

/* Each wrong line, and what its message must name. */
static void refusals(void **state)
{
    (void)state;
    static const struct {
        int cmd;
        const char *line, *a, *b, *c;
    } cases[] = {
        {RUN, "--count 0", "--count", "'0'", "from 1 to 100"},
        {RUN, "--count 101", "--count", "'101'", "from 1 to 100"},
        {RUN, "-n x", "-n", "'x'", "whole number"},
        {RUN, "--number 1.5", "--number", "'1.5'", "whole number"},
        {RUN, "--heat 0", "--heat", "'0'", "above 0, at most 1"},
        {RUN, "--heat nan", "--heat", "'nan'", "at most 1"},
        {RUN, "--level=max", "--level", "'max'", "low, mid or high"},
        {RUN, "--name=", "--name", "''", "not empty"},
        {RUN, "--json=1", "--json", "no value", "--no-json"},
        {RUN, "--count", "--count", "needs a value", "1 to 100"},
        {RUN, "-r", "-r", "needs a value", "low, mid or high"},
        {RUN, "--cuont 7", "--cuont", "did you mean --count", "prog help run"},
        {RUN, "--efort high", "--efort", "did you mean --effort", "prog"},
        {RUN, "-count 7", "-count", "did you mean --count", "prog"},
        {RUN, "-N 7", "-N", "did you mean -n", "prog"},
        {RUN, "-d cpu", "-d", "did you mean --device", "prog"},
        {RUN, "-jz", "-z", "unknown flag", "prog"},
        {RUN, "--no-count", "--no-count", "unknown flag", "--count"},
        {RUN, "--no-", "--no-", "unknown flag", "prog"},
        {LOOK, "", "missing --name", "whom to look at", "prog help look"},
        {LOOK, "--count 3", "--count", "unknown flag", "prog help look"},
        {RUN, "--seed 9223372036854775808", "--seed", "9223372036854775808", "from 0 to"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct conf c;
        struct err e;
        assert_int_equal(parse(&c, cases[i].cmd, cases[i].line, &e), E_INPUT);
        if (!strstr(e.msg, cases[i].a) || !strstr(e.msg, cases[i].b) || !strstr(e.msg, cases[i].c))
            fail_msg("%s: %s", cases[i].line, e.msg);
        conf_fini(&c);
    }
}

static void environment(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    setenv("PROG_COUNT", "8", 1);
    setenv("PROG_JSON", "yes", 1);
    setenv("PROG_SURE", "off", 1);
    setenv("PROG_STOP", "end", 1);
    setenv("PROG_LEVEL", "", 1); /* empty counts as unset */
    assert_int_equal(parse(&c, RUN, "", &e), OK);
    assert_int_equal(conf_int(&c, "count"), 8);
    assert_int_equal(conf_get(&c, "count")->source, CONF_ENV);
    assert_true(conf_given(&c, "count"));
    assert_true(conf_on(&c, "json"));
    assert_false(conf_on(&c, "sure"));
    assert_int_equal(conf_get(&c, "stop")->n_list, 1);
    assert_string_equal(conf_str(&c, "level"), "mid");
    conf_fini(&c);

    assert_int_equal(parse(&c, RUN, "-n 9 --no-json --stop a --stop b", &e), OK);
    assert_int_equal(conf_int(&c, "count"), 9);
    assert_false(conf_on(&c, "json"));
    assert_int_equal(conf_get(&c, "stop")->n_list, 2); /* arguments replace the variable */
    conf_fini(&c);

    setenv("PROG_COUNT", "many", 1);
    assert_int_equal(parse(&c, RUN, "", &e), E_INPUT);
    assert_non_null(strstr(e.msg, "PROG_COUNT"));
    assert_non_null(strstr(e.msg, "'many'"));
    conf_fini(&c);
    /* help is there even so, and other commands do not look at the variable */
    assert_int_equal(parse(&c, RUN, "--help", &e), OK);
    assert_true(c.help);
    conf_fini(&c);
    assert_int_equal(parse(&c, LOOK, "-m x", &e), OK);
    conf_fini(&c);

    clear_env();
    setenv("PROG_AMOUNT", "6", 1); /* an alias has its variable too */
    assert_int_equal(parse(&c, RUN, "", &e), OK);
    assert_int_equal(conf_int(&c, "count"), 6);
    conf_fini(&c);
    setenv("PROG_NAME", "it", 1); /* and fulfils an obligation */
    assert_int_equal(parse(&c, LOOK, "", &e), OK);
    assert_string_equal(conf_str(&c, "name"), "it");
    conf_fini(&c);
}

static void suggestions(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    setenv("PROG_HEAT", "0.5", 1);
    assert_int_equal(parse(&c, RUN, "", &e), OK);
    conf_suggest_int(&c, "count", 42);
    conf_suggest_num(&c, "heat", 0.25);
    assert_int_equal(conf_int(&c, "count"), 42); /* above the default */
    assert_false(conf_given(&c, "count"));
    assert_true(conf_num(&c, "heat") == 0.5); /* below the environment */
    conf_fini(&c);
    assert_int_equal(parse(&c, RUN, "-n 5", &e), OK);
    conf_suggest_int(&c, "count", 42);
    assert_int_equal(conf_int(&c, "count"), 5);
    conf_fini(&c);
}

static void underscores(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    assert_int_equal(parse(&c, RUN, "--two_words", &e), OK);
    assert_true(conf_on(&c, "two-words"));
    conf_fini(&c);
    assert_int_equal(parse(&c, RUN, "--no-two_words", &e), OK);
    assert_false(conf_on(&c, "two-words"));
    conf_fini(&c);
    assert_int_equal(parse(&c, RUN, "--two_word", &e), E_INPUT);
    conf_fini(&c);
}

static void command_names(void **state)
{
    (void)state;
    char run[] = "run", album[] = "album", add[] = "add", x[] = "x";
    char *a[] = {album, add}, *b[] = {run, x}, *d[] = {album, x};
    int n = 0;
    assert_int_equal(conf_find_cmd(&table, 2, a, &n), ALBUM_ADD);
    assert_int_equal(n, 2);
    assert_int_equal(conf_find_cmd(&table, 2, b, &n), RUN);
    assert_int_equal(n, 1);
    assert_int_equal(conf_find_cmd(&table, 2, d, &n), -1);
    assert_int_equal(conf_find_cmd(&table, 1, a, &n), -1);
    assert_int_equal(conf_find_cmd(&table, 0, a, &n), -1);
    char other[] = "old_add";
    char *o[] = {other, x};
    assert_int_equal(conf_find_cmd(&table, 2, o, &n), ALBUM_ADD);
    assert_int_equal(n, 1);
    assert_string_equal(conf_nearest_cmd(&table, "rnu"), "run");
    assert_string_equal(conf_nearest_cmd(&table, "lok"), "look");
    assert_string_equal(conf_nearest_cmd(&table, "albun"), "album add");
}

static void distances(void **state)
{
    (void)state;
    assert_int_equal(conf_distance("", ""), 0);
    assert_int_equal(conf_distance("abc", ""), 3);
    assert_int_equal(conf_distance("", "abc"), 3);
    assert_int_equal(conf_distance("kitten", "sitting"), 3);
    assert_int_equal(conf_distance("ab", "ba"), 1);
    assert_int_equal(conf_distance("infer", "infre"), 1);
    char a[200], b[200];
    memset(a, 'a', 199);
    memset(b, 'b', 199);
    a[199] = b[199] = '\0';
    assert_int_equal(conf_distance(a, b), 63);
}

/* Every option of every command stands in every text made from the table. */
static void texts(void **state)
{
    (void)state;
    struct buf b;
    struct err e;
    buf_init(&b, 1 << 20);
    for (int cmd = 0; cmd < N_CMD; cmd++) {
        buf_clear(&b);
        conf_help(&b, &table, cmd);
        for (int i = 0; i < table.n_opt; i++)
            if (conf_applies(&options[i], cmd)) {
                assert_non_null(strstr(b.p, options[i].name));
                assert_non_null(strstr(b.p, options[i].help));
            }
        for (const char *p = b.p; *p; p += strcspn(p, "\n") + 1) {
            size_t n = strcspn(p, "\n");
            assert_true(n <= 100);
            assert_true(n == 0 || p[n - 1] != ' ');
        }
    }
    buf_clear(&b);
    conf_man(&b, &table);
    assert_non_null(strstr(b.p, ".TH GLOSS"));
    assert_non_null(strstr(b.p, "\\-\\-no\\-sure"));
    assert_non_null(strstr(b.p, "\\&.hidden and back\\eslash"));
    buf_clear(&b);
    conf_markdown(&b, &table);
    assert_non_null(strstr(b.p, "low\\|mid\\|high"));
    assert_non_null(strstr(b.p, "`PROG_COUNT`"));
    static const char *const shells[] = {"bash", "zsh", "fish"};
    for (int s = 0; s < 3; s++) {
        buf_clear(&b);
        assert_int_equal(conf_completion(&b, &table, shells[s], &e), OK);
        for (int i = 0; i < table.n_opt; i++)
            assert_non_null(strstr(b.p, options[i].name));
        assert_int_equal(buf_status(&b), OK);
    }
    assert_int_equal(conf_completion(&b, &table, "csh", &e), E_INPUT);
    buf_fini(&b);
}

/* The nth allocation fails for every n: an error, never a crash, and nothing leaks (ASan). */
static void without_memory(void **state)
{
    (void)state;
    setenv("PROG_STOP", "end", 1);
    for (long n = 1;; n++) {
        struct conf c;
        struct err e;
        mem_fault_at(n);
        status st = parse(&c, RUN, "-n 3 --stop a --stop b word", &e);
        bool reached = mem_fault_count() >= n;
        mem_fault_at(0);
        assert_true(st == OK || st == E_NOMEM);
        conf_fini(&c);
        if (!reached)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults, setup),
        cmocka_unit_test_setup(spellings, setup),
        cmocka_unit_test_setup(arguments, setup),
        cmocka_unit_test_setup(booleans_and_lists, setup),
        cmocka_unit_test_setup(numbered_choice, setup),
        cmocka_unit_test_setup(refusals, setup),
        cmocka_unit_test_setup(environment, setup),
        cmocka_unit_test_setup(suggestions, setup),
        cmocka_unit_test_setup(underscores, setup),
        cmocka_unit_test_setup(command_names, setup),
        cmocka_unit_test_setup(distances, setup),
        cmocka_unit_test_setup(texts, setup),
        cmocka_unit_test_setup(without_memory, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
