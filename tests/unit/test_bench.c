#include "unit.h"

#include "base/file.h"
#include "bench/bench.h"
#include "bench/quantile.h"
#include "bench/sheet.h"

#include <math.h>
#include <unistd.h>

static char dir[] = "/tmp/gloss-test-bench-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(dir);
}

static const char *in_dir(const char *name)
{
    static char path[4][300];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static void close_to(double got, double want)
{
    if (!(fabs(got - want) <= 1e-9 * fmax(1, fabs(want))))
        fail_msg("%.17g is not %.17g", got, want);
}

/* Two kinds of percentile, on lists whose answers are worked out by hand. */
static void percentiles(void **state)
{
    (void)state;
    struct series s = {0};
    assert_true(isnan(series_ceil(&s, 0.5)) && isnan(series_linear(&s, 0.5)) &&
                isnan(series_mean(&s)) && isnan(series_std(&s)));
    series_put(&s, 7);
    close_to(series_ceil(&s, 0.99), 7);
    close_to(series_linear(&s, 0.01), 7);
    close_to(series_std(&s), 0);
    series_clear(&s);
    const double v[] = {100, 20, 60, 10, 50, 30, 90, 70, 40, 80};
    for (int i = 0; i < 10; i++)
        series_put(&s, v[i]);
    close_to(series_ceil(&s, 0.5), 60); /* ceil(4.5) = 5: the sixth */
    close_to(series_ceil(&s, 0.95), 100);
    close_to(series_ceil(&s, 0.99), 100);
    close_to(series_ceil(&s, 0), 10);
    close_to(series_median(&s), 55);
    close_to(series_linear(&s, 0.95), 95.5);
    close_to(series_linear(&s, 0.99), 99.1);
    close_to(series_linear(&s, 1), 100);
    close_to(series_mean(&s), 55);
    close_to(series_std(&s), sqrt(825));
    for (int i = 0; i < 1000; i++)
        series_put(&s, 1000 + i);
    assert_int_equal(s.n, 1010);
    close_to(series_linear(&s, 1), 1999);
    series_fini(&s);
}

static void lines(void **state)
{
    (void)state;
    const double x[] = {1, 2, 4, 8}, y[] = {5, 7, 11, 19}, bent[] = {5, 7, 11, 18};
    struct line_fit f = fit_line(x, y, 4);
    close_to(f.a, 3);
    close_to(f.b, 2);
    close_to(f.r2, 1);
    f = fit_line(x, bent, 4);
    assert_true(f.r2 > 0.99 && f.r2 < 1);
    f = fit_line(x, y, 1);
    assert_true(isnan(f.a) && isnan(f.b) && isnan(f.r2));
}

static void lists(void **state)
{
    (void)state;
    struct int_list l;
    struct err e = {0};
    assert_int_equal(int_list_read(&l, "128,512,1024", 2048, "x", &e), OK);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.v[2], 1024);
    static const char *const bad[] = {"",
                                      ",",
                                      "1,",
                                      "1,,2",
                                      "0",
                                      "4096",
                                      "1;2",
                                      " 1",
                                      "-1",
                                      "1.5",
                                      "1e3",
                                      "0x10",
                                      "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(int_list_read(&l, bad[i], 2048, "x", &e), E_INPUT);
}

static void tags(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"openai/gpt-oss-20b", "gpt-oss-20b"},
                                           {"tiny", "tiny"},
                                           {"/models/a b/", "a_b"},
                                           {"/", "_"},
                                           {"x/../y$z", "y_z"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char tag[128];
        bench_tag(cases[i][0], tag);
        assert_string_equal(tag, cases[i][1]);
    }
}

static void begin(struct sheet *s)
{
    struct err e = {0};
    assert_int_equal(sheet_init(s, "name a\nb  c", &e), OK);
    assert_int_equal(s->n_col, 4);
}

static void fill(struct sheet *s, const char *name, double a)
{
    struct err e = {0};
    sheet_row(s);
    sheet_text(s, "name", name);
    sheet_num(s, "a", a);
    sheet_int(s, "c", 7);
    if (sheet_end_row(s, &e) != OK)
        fail_msg("%s", e.msg);
}

/* Any text survives a file, and a number keeps all its digits. */
static void tables_and_files(void **state)
{
    (void)state;
    struct sheet s, t = {0};
    struct buf b;
    struct err e = {0};
    begin(&s);
    fill(&s, "plain", 0.1);
    fill(&s, "a,b \"quoted\"\nline", 1.0 / 3);
    fill(&s, NULL, NAN);
    buf_init(&b, 1 << 16);
    sheet_csv(&s, &b);
    assert_string_equal(b.p, "name,a,b,c\nplain,0.1,,7\n\"a,b \"\"quoted\"\"\nline\","
                             "0.3333333333333333,,7\n,,,7\n");
    assert_int_equal(sheet_save(&s, in_dir("t.csv"), &e), OK);
    assert_int_equal(sheet_read(&t, in_dir("t.csv"), &e), OK);
    assert_int_equal(t.n_row, 3);
    assert_string_equal(sheet_get(&t, 1, "name"), "a,b \"quoted\"\nline");
    assert_true(sheet_get_num(&t, 1, "a") == 1.0 / 3);
    assert_true(isnan(sheet_get_num(&t, 2, "a")));
    assert_string_equal(sheet_get(&t, 0, "no such"), "");
    assert_int_equal(sheet_find(&t, "name", "plain"), 0);
    assert_int_equal(sheet_find2(&t, "a", 0.1, "c", 7), 0);
    assert_int_equal(sheet_find2(&t, "a", 0.1, "c", 8), -1);
    buf_clear(&b);
    sheet_json_row(&t, 0, &b);
    assert_string_equal(b.p, "{\"name\": \"plain\", \"a\": 0.1, \"b\": null, \"c\": 7}");
    buf_fini(&b);
    sheet_fini(&s);
    sheet_fini(&t);
    unlink(in_dir("t.csv"));
}

static void bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        status st;
        int n_row;
    } cases[] = {{"a,b\n1,2\n", OK, 1},         {"a,b\r\n1,2\r\n\r\n3,4", OK, 2},
                 {"a,b\n1\n", E_FORMAT, 0},     {"a,b\n1,2,3\n", E_FORMAT, 0},
                 {"a,b\n\"1,2\n", E_FORMAT, 0}, {"a,b\n", OK, 0},
                 {"\"a", E_FORMAT, 0},          {"a,b\n\"1\"\"\",2\n", OK, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sheet s = {0};
        struct err e = {0};
        assert_int_equal(file_save(in_dir("b.csv"), cases[i].text, strlen(cases[i].text), &e), OK);
        assert_int_equal(sheet_read(&s, in_dir("b.csv"), &e), cases[i].st);
        assert_int_equal(s.n_row, cases[i].n_row);
        sheet_fini(&s);
    }
    struct sheet s = {0};
    assert_int_equal(sheet_read(&s, in_dir("none.csv"), NULL), E_NOENT);
    unlink(in_dir("b.csv"));
}

/* A run that was broken off: whole rows are taken up, a cut one is not, and other options or
 * columns begin anew. */
static void rows_kept_on_disk(void **state)
{
    (void)state;
    struct sheet s;
    struct err e = {0};
    const char *path = in_dir("r.csv"), *part = in_dir("r.csv.part");
    begin(&s);
    assert_int_equal(sheet_resume(&s, path, "options 1", &e), OK);
    fill(&s, "one", 1);
    fill(&s, "two", 2);
    sheet_fini(&s); /* as if killed */
    FILE *f = fopen(part, "a");
    fputs("three,3", f);
    fclose(f);
    assert_false(file_exists(path));
    begin(&s);
    assert_int_equal(sheet_resume(&s, path, "options 1", &e), OK);
    assert_int_equal(s.n_row, 2);
    assert_string_equal(sheet_get(&s, 1, "name"), "two");
    fill(&s, "three", 3);
    sheet_fini(&s);
    begin(&s);
    assert_int_equal(sheet_resume(&s, path, "options 1", &e), OK);
    assert_int_equal(s.n_row, 3);
    assert_int_equal(sheet_save(&s, path, &e), OK);
    assert_false(file_exists(part));
    sheet_fini(&s);
    begin(&s);
    assert_int_equal(sheet_resume(&s, path, "options 1", &e), OK);
    assert_int_equal(s.n_row, 0);
    fill(&s, "one", 1);
    sheet_fini(&s);
    begin(&s);
    assert_int_equal(sheet_resume(&s, path, "options 2", &e), OK);
    assert_int_equal(s.n_row, 0);
    sheet_fini(&s);
    unlink(path);
    unlink(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles),
        cmocka_unit_test(lines),
        cmocka_unit_test(lists),
        cmocka_unit_test(tags),
        cmocka_unit_test(tables_and_files),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(rows_kept_on_disk),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
