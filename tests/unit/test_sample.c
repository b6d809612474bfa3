/* Sampling: filters keep what they must, frequencies follow the distribution, seeds repeat. */
#include "unit/unit.h"

#include "base/rng.h"
#include "engine/sample.h"

#include <math.h>
#include <stdbool.h>

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

static int32_t draw_one(const float *row, const struct sample_params *p, uint64_t pos)
{
    return sample_token(row, p, &(struct sample_rules){.pos = pos}, NULL, &scratch);
}

static void draw(const struct sample_params *p, int *count)
{
    memset(count, 0, V * sizeof *count);
    for (int i = 0; i < DRAWS; i++)
        count[draw_one(logits, p, (uint64_t)i)]++;
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
    assert_int_equal(draw_one(tie, &greedy, 0), 7);
    struct sample_params k1 = {.temperature = 1, .top_k = 1, .seed = 9};
    assert_int_equal(draw_one(tie, &k1, 4), 7);
    int same = 0, other = 0;
    struct sample_params q = {.temperature = 1, .seed = 4};
    for (uint64_t i = 0; i < 200; i++) {
        int32_t a = draw_one(logits, &p, i);
        same += a == draw_one(logits, &p, i);
        other += a == draw_one(logits, &q, i);
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

/* A flat and a steep distribution over a large vocabulary, every filter, against a plain sort. */
struct pair {
    double p;
    int id;
};

static int by_p(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p ? 1 : -1) : x->id - y->id;
}

static void test_large_vocabulary(void **state)
{
    (void)state;
    enum { N = 30011, TRIES = 300 };
    static float row[N];
    static struct pair sorted_p[N];
    struct sample_scratch s;
    assert_int_equal(sample_scratch_open(&s, N), OK);
    static const struct sample_params ways[] = {
        {.temperature = 1, .top_p = 0.9f, .seed = 1},
        {.temperature = 1.3f, .top_k = 40, .seed = 2},
        {.temperature = 0.6f, .top_k = 500, .top_p = 0.5f, .seed = 3},
        {.temperature = 1, .min_p = 0.05f, .seed = 4},
        {.temperature = 1, .top_k = 20000, .top_p = 0.99f, .min_p = 0.001f, .seed = 5},
    };
    for (int scale = 0; scale <= 6; scale += 3) {
        for (int i = 0; i < N; i++) /* values repeat: ties are common */
            row[i] = (float)(i * 7919 % 257) / 257.0f * (float)scale;
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            const struct sample_params *p = &ways[w];
            double sum = 0, kept = 0;
            for (int i = 0; i < N; i++) {
                double q = exp(((double)row[i] - (double)row[sample_argmax(row, N)]) /
                               (double)p->temperature);
                sorted_p[i] = (struct pair){q, i};
            }
            qsort(sorted_p, N, sizeof *sorted_p, by_p);
            int n = p->top_k ? p->top_k : N, m = 0;
            for (int i = 0; i < n; i++)
                sum += sorted_p[i].p;
            double most = p->top_p > 0 ? (double)p->top_p * sum : 1e300;
            while (m < n && kept < most)
                kept += sorted_p[m++].p;
            static char in[N];
            memset(in, 0, sizeof in);
            for (int i = 0; i < m; i++)
                in[sorted_p[i].id] = sorted_p[i].p >= (double)p->min_p * 0.999999;
            /* Rounding may move the border of a large nucleus by an element. */
            if (m < N)
                in[sorted_p[m].id] = 1;
            int outside = 0;
            double mean = 0, want = 0, mass = 0;
            for (int i = 0; i < TRIES; i++) {
                int id = sample_token(row, p, &(struct sample_rules){.pos = (uint64_t)i}, NULL, &s);
                outside += !in[id];
                mean += (double)row[id] / TRIES;
            }
            for (int i = 0; i < m; i++)
                if (in[sorted_p[i].id]) {
                    want += sorted_p[i].p * (double)row[sorted_p[i].id];
                    mass += sorted_p[i].p;
                }
            assert_int_equal(outside, 0);
            assert_true(fabs(mean - want / mass) < 0.08 * (scale + 1));
        }
    }
    sample_scratch_close(&s);
}

/* Top-p counts from what top-k left, also where the search for the k likeliest found no others:
 * here each of the three stands alone among its neighbours. */
static void test_top_p_of_top_k(void **state)
{
    (void)state;
    enum { N = 3000, TRIES = 400 };
    static float row[N];
    struct sample_scratch s;
    assert_int_equal(sample_scratch_open(&s, N), OK);
    row[100] = row[1000] = row[2000] = 7; /* together a little more than half of the mass */
    struct sample_params p = {.temperature = 1, .top_k = 3, .top_p = 0.6f, .seed = 8};
    int count[3] = {0};
    for (int i = 0; i < TRIES; i++) {
        int id = sample_token(row, &p, &(struct sample_rules){.pos = (uint64_t)i}, NULL, &s);
        count[id / 1000]++;
    }
    assert_true(count[0] > TRIES / 3 && count[1] > TRIES / 3);
    assert_int_equal(count[2], 0);
    sample_scratch_close(&s);
}

static void test_rules(void **state)
{
    (void)state;
    float row[V] = {0};
    row[3] = 2, row[4] = 1.5f, row[5] = -1;
    struct sample_seen seen;
    assert_int_equal(sample_seen_open(&seen, V), OK);
    for (int i = 0; i < 20; i++) /* every id finds its place again */
        sample_seen_add(&seen, i % 5 * 7 + 3, i >= 10);
    assert_int_equal(seen.n, 5);
    for (int i = 0; i < seen.n; i++)
        assert_int_equal(seen.list[i].n_out, 2);
    struct sample_params p = {.frequency = 0.5f}; /* 3 was generated twice */
    double lse = 0;
    assert_int_equal(sample_token(row, &p, &(struct sample_rules){.seen = &seen}, &lse, &scratch),
                     4);
    assert_true(fabs(lse - sample_lse(row, V)) < 1e-12); /* of the untouched logits */
    p = (struct sample_params){.presence = 0.4f};
    assert_int_equal(sample_token(row, &p, &(struct sample_rules){.seen = &seen}, NULL, &scratch),
                     3);
    p = (struct sample_params){.repetition = 2};
    assert_int_equal(sample_token(row, &p, &(struct sample_rules){.seen = &seen}, NULL, &scratch),
                     4);
    int32_t id[2] = {5, 3}, none[2] = {5, 4};
    float add[2] = {2.9f, -0.2f};
    p = (struct sample_params){.bias_id = id, .bias = add, .n_bias = 2};
    assert_int_equal(sample_token(row, &p, &(struct sample_rules){0}, NULL, &scratch), 5);
    assert_int_equal(
        sample_token(row, &p, &(struct sample_rules){.forbidden = none, .n_forbidden = 2, .pos = 0},
                     NULL, &scratch),
        3);
    p.temperature = 1;
    for (uint64_t i = 0; i < 500; i++) {
        int32_t t = sample_token(
            row, &p, &(struct sample_rules){.forbidden = none, .n_forbidden = 2, .pos = i}, NULL,
            &scratch);
        assert_true(t != 5 && t != 4);
    }
    sample_seen_close(&seen);
}

static void test_top(void **state)
{
    (void)state;
    float row[V];
    for (int i = 0; i < V; i++)
        row[i] = (float)(i * 13 % 10);
    int32_t id[12];
    sample_top(row, V, 12, id);
    for (int i = 0; i < 12; i++) {
        assert_true(row[id[i]] == (i < 5 ? 9 : i < 10 ? 8 : 7));
        assert_true(i == 0 || row[id[i]] < row[id[i - 1]] || id[i] > id[i - 1]);
    }
}

/* A mask does what forbidding the same tokens does, at every temperature and filter; where all that
 * it allows is forbidden, it wins. */
static void test_mask(void **state)
{
    (void)state;
    enum { N = 3000, WORDS = (N + 31) / 32 };
    static float row[N];
    static uint32_t bits[WORDS];
    static int32_t forbidden[N];
    struct sample_scratch s;
    assert_int_equal(sample_scratch_open(&s, N), OK);
    for (uint64_t round = 0; round < 400; round++) {
        double share = round % 4 == 0 ? 0.002 : round % 4 == 1 ? 0.5 : 0.9999;
        int n = 0;
        int32_t also = (int32_t)(rng_uniform(5, round, N) * N);
        memset(bits, 0, sizeof bits);
        for (int i = 0; i < N; i++) {
            row[i] = (float)(rng_uniform(6, round, (uint64_t)i) * 12);
            bool in = rng_uniform(7, round, (uint64_t)i) < share;
            if (in)
                bits[i / 32] |= (uint32_t)1 << (i % 32);
            if (!in && i != also)
                forbidden[n++] = i;
        }
        struct sample_params p = {.temperature = round % 3 ? 0.5f * (float)(round % 3) : 0,
                                  .top_p = round % 5 == 1 ? 0.8f : 0,
                                  .top_k = round % 5 == 2 ? 20 : 0,
                                  .min_p = round % 5 == 3 ? 0.1f : 0,
                                  .seed = 9};
        struct sample_rules masked = {.mask = {bits, also}, .pos = round},
                            listed = {.forbidden = forbidden, .n_forbidden = n, .pos = round};
        double lse, lse2;
        int32_t a = sample_token(row, &p, &masked, &lse, &s),
                b = sample_token(row, &p, &listed, &lse2, &s);
        assert_int_equal(a, b);
        assert_true(fabs(lse - lse2) < 1e-6);
        assert_true(a == also || bits[a / 32] >> (a % 32) & 1);
        for (n = 0; n < N; n++)
            forbidden[n] = n;
        masked.forbidden = forbidden;
        masked.n_forbidden = N;
        assert_int_equal(sample_token(row, &(struct sample_params){0}, &masked, NULL, &s),
                         sample_token(row, &(struct sample_params){0},
                                      &(struct sample_rules){.mask = {bits, also}}, NULL, &s));
    }
    sample_scratch_close(&s);
}

/* Every instruction set gives the same bits. */
static void test_passes_agree(void **state)
{
    (void)state;
    enum { N = PASS_BLOCK };
    const struct sample_pass *a = &sample_pass_base, *b = sample_pass_best();
    static float x[N], out[2][N];
    static int32_t index[2][N];
    for (uint64_t round = 0; round < 300; round++) {
        int n = 1 + (int)(rng_uniform(8, round, N) * N);
        for (int i = 0; i < n; i++)
            x[i] = (float)(rng_uniform(9, round, (uint64_t)i) * (round % 2 ? 40 : 1));
        float max[2], least[2], most[2];
        assert_int_equal(a->argmax(x, n, &max[0]), b->argmax(x, n, &max[1]));
        assert_true(max[0] == max[1]);
        assert_true(a->exp(x, n, max[0], 0.7f, out[0]) == b->exp(x, n, max[0], 0.7f, out[1]));
        assert_memory_equal(out[0], out[1], (size_t)n * sizeof(float));
        a->range(x, n, &least[0], &most[0]);
        b->range(x, n, &least[1], &most[1]);
        assert_true(least[0] == least[1] && most[0] == most[1] && most[0] == max[0]);
        int k = a->collect(x, n, max[0] / 2, out[0], index[0]);
        assert_int_equal(k, b->collect(x, n, max[0] / 2, out[1], index[1]));
        assert_memory_equal(index[0], index[1], (size_t)k * sizeof(int32_t));
        k = a->between(x, n, max[0] / 4, max[0] / 2, out[0]);
        assert_int_equal(k, b->between(x, n, max[0] / 4, max[0] / 2, out[1]));
        assert_memory_equal(out[0], out[1], (size_t)k * sizeof(float));
        a->group_max(x, n / PASS_LANE, out[0]);
        b->group_max(x, n / PASS_LANE, out[1]);
        assert_memory_equal(out[0], out[1], (size_t)(n / PASS_LANE) * sizeof(float));
        for (int t = 0; t < 2; t++) {
            const struct sample_pass *p = t ? b : a;
            memcpy(out[t], x, sizeof x);
            for (int i = 0; i < n; i += 32)
                p->mask(0x9d3c51e7, n - i < 32 ? n - i : 32, -1, out[t] + i);
            index[t][0] = p->keep(out[t], n, x[n / 2]);
        }
        assert_int_equal(index[0][0], index[1][0]);
        assert_memory_equal(out[0], out[1], (size_t)n * sizeof(float));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_top_k_then_top_p_then_min_p),
        cmocka_unit_test(test_top_p_alone),
        cmocka_unit_test(test_greedy_ties_and_seed),
        cmocka_unit_test(test_lse),
        cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_top),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_passes_agree),
        cmocka_unit_test(test_top_p_of_top_k),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
