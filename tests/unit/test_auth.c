/* API keys: what a key file may hold, headers that carry a key, and that the time of a refusal says
 * nothing about how near the key was. The file under test is included, with one header as its
 * request. */
#include "unit.h"

#include "base/clock.h"
#include "serve/auth.c"

#include <math.h>

static const char *authorization, *x_api_key;

const char *http_header(const struct exch *x, const char *name)
{
    (void)x;
    return strcmp(name, "Authorization") == 0 ? authorization : x_api_key;
}

static const char *const keys[] = {"first-key-0123456789", "second-key-9876543210"};

static struct auth *open_keys(struct server *s)
{
    struct auth *a = NULL;
    struct err e;
    *s = (struct server){.o = {.key = keys, .n_key = 2}, .salt = {1, 2}};
    assert_int_equal(auth_open(s, &a, &e), OK);
    return a;
}

static void headers(void **state)
{
    (void)state;
    static const struct {
        const char *authorization, *key;
        bool ok;
    } row[] = {
        {"Bearer first-key-0123456789", NULL, true},
        {"bearer  second-key-9876543210", NULL, true},
        {NULL, "first-key-0123456789", true},
        {NULL, NULL, false},
        {"Bearer ", NULL, false},
        {"Bearer first-key-012345678", NULL, false},
        {"Bearer first-key-01234567890", NULL, false},
        {"Basic first-key-0123456789", NULL, false},
        {"Basic x", "first-key-0123456789", false},
    };
    struct server s;
    struct auth *a = open_keys(&s);
    uint64_t tenant[2] = {0};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        authorization = row[i].authorization;
        x_api_key = row[i].key;
        assert_int_equal(auth_check(a, NULL, &tenant[i % 2]), row[i].ok);
        if (i == 1)
            assert_true(tenant[0] != tenant[1] && tenant[0] && tenant[1]);
    }
    auth_close(a);
}

/* Welch's t of the times of two kinds of wrong keys, taken in random order: one has nothing in
 * common with a known key, the other all but its last letter. */
static void refusals_take_equal_time(void **state)
{
    (void)state;
    enum { N = 1000000 };
    static const char wrong[2][24] = {"Bearer_zzzzzzzzzzzzzzzz", "first-key-012345678X"};
    struct server s;
    struct auth *a = open_keys(&s);
    char text[40] = "Bearer ";
    double n[2] = {0}, mean[2] = {0}, m2[2] = {0};
    authorization = text;
    for (int i = 0; i < N + 1000; i++) {
        int k = rng_uniform(28, 0, (uint64_t)i) < 0.5;
        memcpy(text + 7, wrong[k], 20);
        uint64_t tenant, start = clock_ns();
        bool ok = auth_check(a, NULL, &tenant);
        double t = (double)(clock_ns() - start);
        assert_false(ok);
        if (i < 1000 || t > 2000) /* cold, or the kernel's */
            continue;
        double d = t - mean[k];
        mean[k] += d / ++n[k];
        m2[k] += d * (t - mean[k]);
    }
    double t = (mean[0] - mean[1]) / sqrt(m2[0] / (n[0] - 1) / n[0] + m2[1] / (n[1] - 1) / n[1]);
    print_message("refusal: %.1f and %.1f ns, t = %.2f\n", mean[0], mean[1], t);
    assert_true(fabs(t) < 4.5);
    auth_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(refusals_take_equal_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
