/* Guesses (engine/draft.h) against a plain search through everything said, on random texts of few
 * words; and how many of them a step gets (engine/gain.h) under made-up costs of rows.
 */
#include "unit/unit.h"

#include "base/num.h"
#include "base/rng.h"
#include "engine/draft.h"
#include "engine/gain.h"
#include "seed.h"

#include <stdbool.h>

enum { N = 300, MAX_GUESS = 40 };

static uint64_t seed;

static int32_t word(int text, int i, int n_word)
{
    return (int32_t)(rng_uniform(seed, (uint64_t)text, (uint64_t)i) * n_word);
}

static int common(const int32_t *ids, int a, int b)
{
    int n = 0;
    while (n < a && n < b && n < 32 && ids[a - 1 - n] == ids[b - 1 - n])
        n++;
    return n;
}

/* The longest past in common with the end that any earlier position has. */
static int longest(const int32_t *ids, int n)
{
    int most = 0;
    for (int p = DRAFT_RUN; p < n; p++)
        most = max_int(most, common(ids, p, n));
    return most < DRAFT_RUN ? 0 : most;
}

/* Of many words no place is overlooked: few have the same past. Of few words the guess still has
 * one of three tokens in common. Right guesses are followed. */
static void test_guesses(void **state)
{
    (void)state;
    int n_best = 0, n_any = 0, n_right = 0;
    for (int text = 0; text < 40; text++) {
        int32_t ids[N], guess[MAX_GUESS];
        struct draft d, copy;
        int n_word = 2 + text % 8, n_prompt = text * 5;
        for (int i = 0; i < N; i++) /* a third of the texts is a period with faults */
            ids[i] = text % 3 || word(text, i, 20) == 0 ? word(text, i, n_word) : ids[i % 11];
        assert_int_equal(draft_open(&d, N), OK);
        assert_int_equal(draft_open(&copy, N), OK);
        draft_begin(&d, ids, n_prompt);
        draft_copy(&copy, &d, n_prompt);
        for (int n = n_prompt; n < N; n++) {
            int most = longest(ids, n), k = draft_get(&d, ids, n, MAX_GUESS, guess);
            float chance = draft_chance(&d);
            assert_int_equal(k, d.at ? MAX_GUESS : 0);
            assert_true(most > 0 || k == 0);
            assert_true(k ? chance > 0 && chance < 1 : chance == 0);
            if (k) {
                int len = common(ids, d.at, n);
                assert_true(d.at < n && len >= DRAFT_RUN);
                for (int i = 0; i < k; i++) /* a period goes on as one */
                    assert_int_equal(guess[i],
                                     d.at + i < n ? ids[d.at + i] : guess[i - (n - d.at)]);
                n_best += len == most;
                n_any++;
                n_right += guess[0] == ids[n];
            }
            draft_add(&d, ids, n + 1);
            draft_add(&copy, ids, n + 1);
            assert_true(d.at == copy.at && draft_chance(&d) == draft_chance(&copy));
        }
        draft_close(&d);
        draft_close(&copy);
    }
    printf("%d guesses, %d with the longest past, %d right\n", n_any, n_best, n_right);
    assert_true(n_any > 5000 && n_best > n_any / 2 && n_right > n_any / 3);
}

/* What was right often has a higher chance than what was wrong. */
static void test_chances(void **state)
{
    (void)state;
    struct draft d;
    int32_t ids[N];
    float after[2];
    for (int random = 0; random < 2; random++) {
        assert_int_equal(draft_open(&d, N), OK);
        for (int i = 0; i < N; i++)
            ids[i] = random ? word(99, i, 3) : i % 7;
        draft_begin(&d, ids, 1);
        for (int n = 2; n <= N; n++)
            draft_add(&d, ids, n);
        after[random] = draft_chance(&d);
        draft_close(&d);
    }
    assert_true(after[0] > 0.95f && after[1] < 0.6f);
    struct draft none = {0}; /* without an index: nothing, and no harm */
    draft_begin(&none, ids, N);
    draft_add(&none, ids, N);
    assert_int_equal(draft_get(&none, ids, N, 3, ids), 0);
    assert_true(draft_chance(&none) == 0);
}

/* Steps of one sequence with a guess of 15 tokens; a step of n rows takes fixed + n * row. Returns
 * the rows that the last of many steps had beyond the first. */
static int settle(float chance, double fixed, double row, int *n_tried)
{
    struct gain g = {0};
    int k = 0;
    *n_tried = 0;
    for (int i = 0; i < 2000; i++) {
        gain_begin(&g);
        gain_offer(&g, 15, chance);
        k = gain_take(15, chance, gain_decide(&g, 64));
        gain_measured(&g, 1 + k, (uint64_t)(fixed + row * (1 + k)));
        *n_tried += k > 0;
    }
    return k;
}

static void test_gain(void **state)
{
    (void)state;
    int tried, always;
    assert_int_equal(settle(0.9f, 1e6, 0, &always), 15); /* rows are free */
    assert_int_equal(settle(0.6f, 0, 1e6, &tried), 0);   /* a row costs a step */
    printf("%d, %d tried\n", always, tried);
    assert_true(tried < 30 && tried > 4 && always > 1990); /* but prices may change */
    int some = settle(0.8f, 1e6, 2e5, &tried), fewer = settle(0.5f, 1e6, 2e5, &tried);
    printf("of 15 guesses at a fifth of a step each: %d of chance 0.8, %d of 0.5\n", some, fewer);
    assert_true(some > fewer && fewer > 0 && some < 15);
    /* The best chances first, and never more rows than there may be. */
    struct gain g = {0};
    for (int n = 1; n <= 40; n++)
        for (int i = 0; i < 2; i++)
            gain_measured(&g, n, 1000);
    gain_begin(&g);
    gain_offer(&g, 4, 0.95f);
    gain_offer(&g, 4, 0.3f);
    int levels = gain_decide(&g, 4);
    assert_int_equal(gain_take(4, 0.95f, levels), 4);
    assert_int_equal(gain_take(4, 0.3f, levels), 0);
    assert_int_equal(gain_decide(&g, 0), 0);
}

int main(void)
{
    seed = test_seed();
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guesses),
        cmocka_unit_test(test_chances),
        cmocka_unit_test(test_gain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
