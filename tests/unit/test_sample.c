/* Sampling: filters keep what they must, frequencies follow the distribution, seeds repeat. */
#include "unit/unit.h"

#include "engine/sample.h"

#include <math.h>

enum { V = 50, DRAWS = 20000 };

static float logits[V];
static struct sample_scratch scratch;

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < V; i++)
        logits[i] = 2.0f * sinf((float)i * 1.7f);
    return sample_scratch_open(&scratch, V);
}

static int teardown(void **state)
{
    (void)state;
    sample_scratch_close(&scratch);
    return 0;
}

static void draw(const struct sample_params *p, int *count)
{
    memset(count, 0, V * sizeof *count);
    for (int i = 0; i < DRAWS; i++)
        count[sample_token(logits, p, (uint64_t)i, &scratch)]++;
}

/* Ids by falling probability, ties by id: written apart from the code under test. */
static void sorted(int *id)
{
    for (int i = 0; i < V; i++)
        id[i] = i;
    for (int i = 0; i < V; i++)
        for (int j = i + 1; j < V; j++)
            if (logits[id[j]] > logits[id[i]]) {
                int t = id[i];
                id[i] = id[j];
                id[j] = t;
            }
}

static void check_frequencies(const struct sample_params *p, const double *want)
{
    int count[V];
    draw(p, count);
    for (int i = 0; i < V; i++) {
        double sd = sqrt(want[i] * (1 - want[i]) * DRAWS) + 1;
        if (want[i] == 0)
            assert_int_equal(count[i], 0);
        assert_true(fabs(count[i] - want[i] * DRAWS) < 5 * sd);
    }
}

static void test_temperature(void **state)
{
    (void)state;
    struct sample_params p = {.temperature = 0.7f, .seed = 11};
    double want[V], sum = 0;
    for (int i = 0; i < V; i++)
        sum += want[i] = exp((double)logits[i] / (double)0.7f);
    for (int i = 0; i < V; i++)
        want[i] /= sum;
    check_frequencies(&p, want);
}

static void test_top_k_then_top_p_then_min_p(void **state)
{
    (void)state;
    struct sample_params p = {
        .temperature = 1, .top_k = 20, .top_p = 0.7f, .min_p = 0.8f, .seed = 5};
    int id[V];
    double want[V] = {0}, sum = 0, kept = 0;
    sorted(id);
    for (int i = 0; i < 20; i++)
        sum += exp((double)logits[id[i]]);
    int n = 0;
    while (kept < (double)p.top_p * sum)
        kept += exp((double)logits[id[n++]]);
    double mass = 0, floor_p = (double)p.min_p * exp((double)logits[id[0]]);
    for (int i = 0; i < n; i++)
        if (exp((double)logits[id[i]]) >= floor_p)
            mass += want[id[i]] = exp((double)logits[id[i]]);
    int n_kept = 0;
    for (int i = 0; i < V; i++) {
        want[i] /= mass;
        n_kept += want[i] > 0;
    }
    assert_true(n_kept > 1 && n_kept < n && n < 20); /* each filter really cuts */
    check_frequencies(&p, want);
}

static void test_top_p_alone(void **state)
{
    (void)state;
    struct sample_params p = {.temperature = 1, .top_p = 0.5f, .seed = 5};
    int id[V], n = 0;
    double want[V] = {0}, sum = 0, kept = 0;
    sorted(id);
    for (int i = 0; i < V; i++)
        sum += exp((double)logits[i]);
    while (kept < 0.5 * sum)
        kept += want[id[n]] = exp((double)logits[id[n]]), n++;
    for (int i = 0; i < V; i++)
        want[i] /= kept;
    assert_true(n > 1 && n < V);
    check_frequencies(&p, want);
}

static void test_greedy_ties_and_seed(void **state)
{
    (void)state;
    float tie[V] = {0};
    tie[7] = tie[9] = 2;
    struct sample_params greedy = {0}, p = {.temperature = 1, .seed = 3};
    assert_int_equal(sample_token(tie, &greedy, 0, &scratch), 7);
    struct sample_params k1 = {.temperature = 1, .top_k = 1, .seed = 9};
    assert_int_equal(sample_token(tie, &k1, 4, &scratch), 7);
    int same = 0, other = 0;
    struct sample_params q = {.temperature = 1, .seed = 4};
    for (uint64_t i = 0; i < 200; i++) {
        int32_t a = sample_token(logits, &p, i, &scratch);
        same += a == sample_token(logits, &p, i, &scratch);
        other += a == sample_token(logits, &q, i, &scratch);
    }
    assert_int_equal(same, 200);
    assert_true(other < 100);
}

static void test_lse(void **state)
{
    (void)state;
    double sum = 0;
    for (int i = 0; i < V; i++)
        sum += exp((double)logits[i]);
    assert_true(fabs(sample_lse(logits, V) - log(sum)) < 1e-6);
    float far[3] = {1e30f, -1e30f, 0};
    assert_true(sample_lse(far, 3) == (double)1e30f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_temperature), cmocka_unit_test(test_top_k_then_top_p_then_min_p),
        cmocka_unit_test(test_top_p_alone), cmocka_unit_test(test_greedy_ties_and_seed),
        cmocka_unit_test(test_lse),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
