/* Pools and tables: pages are counted, come back, and are as many as the arithmetic says. */
#include "unit/unit.h"

#include "base/mem.h"
#include "engine/kv.h"

enum { PAGE = 32, WINDOW = 128 };

static void test_pool(void **state)
{
    (void)state;
    struct kv kv;
    struct kv_plan plan = {.page_tok = PAGE, .n_full = 5, .n_window = 3};
    assert_int_equal(kv_open(&kv, &plan, WINDOW), OK);
    int32_t page[5], seen = 0;
    for (int i = 0; i < 5; i++) {
        page[i] = kv_take(&kv.full);
        assert_true(page[i] >= 0 && page[i] < 5 && !(seen & 1 << page[i]));
        seen |= 1 << page[i];
    }
    assert_int_equal(kv_take(&kv.full), -1);
    kv_hold(&kv.full, page[2]);
    assert_int_equal(kv_drop(&kv.full, page[2]), 1);
    assert_int_equal(kv.full.n_free, 0);
    assert_int_equal(kv_drop(&kv.full, page[2]), 0);
    assert_int_equal(kv_take(&kv.full), page[2]);
    assert_int_equal(kv.win.n_free, 3);
    kv_close(&kv);
}

static void test_counts(void **state)
{
    (void)state;
    struct kv kv;
    struct kv_plan plan = {.page_tok = PAGE, .n_full = 1, .n_window = 1};
    assert_int_equal(kv_open(&kv, &plan, WINDOW), OK);
    assert_int_equal(kv_pages(&kv, 1), 1);
    assert_int_equal(kv_pages(&kv, 32), 1);
    assert_int_equal(kv_pages(&kv, 33), 2);
    /* By trying every place of a chunk: pages from the first visible position to the last. */
    for (int chunk = 1; chunk < 300; chunk += 7) {
        int most = 0;
        for (int pos = 0; pos < 1000; pos++) {
            int n = (pos + chunk - 1) / PAGE - kv_first_visible(&kv, pos) + 1;
            most = n > most ? n : most;
        }
        assert_int_equal(kv_window_pages(&kv, 1 << 20, chunk), most);
    }
    struct kv_seq s;
    assert_int_equal(kv_seq_open(&kv, &s, 100), OK);
    assert_int_equal(s.n_entry, 4);
    assert_int_equal(s.full[3], -1);
    kv_seq_close(&s);
    mem_fault_at(2);
    assert_int_equal(kv_seq_open(&kv, &s, 100), E_NOMEM);
    mem_fault_at(0);
    kv_close(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pool), cmocka_unit_test(test_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
