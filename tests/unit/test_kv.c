/* Page bookkeeping: no page has two owners, window pages come back, reservations hold. */
#include "unit/unit.h"

#include "base/mem.h"
#include "engine/kv.h"

enum { PAGE = 32, WINDOW = 128 };

static void open_kv(struct kv *kv, int n_full, int n_win)
{
    struct kv_plan plan = {.page_tok = PAGE, .n_full = n_full, .n_window = n_win};
    assert_int_equal(kv_open(kv, &plan, WINDOW), OK);
}

/* Marks the pages of one table in `owner`; a page seen twice fails. */
static void claim(int *owner, const int32_t *table, int n, int who)
{
    for (int i = 0; i < n; i++) {
        if (table[i] < 0)
            continue;
        assert_int_equal(owner[table[i]], 0);
        owner[table[i]] = who;
    }
}

static void test_two_sequences_share_nothing(void **state)
{
    (void)state;
    struct kv kv;
    open_kv(&kv, 64, 24);
    struct kv_seq a, b;
    assert_int_equal(kv_admit(&kv, &a, 900, 64), OK);
    assert_int_equal(kv_admit(&kv, &b, 900, 64), OK);
    int pa = 0, pb = 0;
    while (pa < 900 || pb < 900) {
        int na = pa < 512 ? 64 : 1, nb = pb < 300 ? 7 : 1;
        if (pa < 900) {
            kv_advance(&kv, &a, pa, na);
            pa += na;
        }
        if (pb + nb <= 900) {
            kv_advance(&kv, &b, pb, nb);
            pb += nb;
        } else {
            pb = 900;
        }
        int full[64] = {0}, win[24] = {0};
        claim(full, a.full, a.n_entry, 1);
        claim(full, b.full, b.n_entry, 2);
        claim(win, a.win, a.n_entry, 1);
        claim(win, b.win, b.n_entry, 2);
        /* Every position that the next row of a may see is there. */
        for (int p = pa < WINDOW ? 0 : pa - WINDOW; p < pa; p++)
            assert_true(a.win[p / PAGE] >= 0);
        for (int p = 0; p < pa; p++)
            assert_true(a.full[p / PAGE] >= 0);
    }
    kv_release(&kv, &a);
    kv_release(&kv, &b);
    assert_int_equal(kv.full.n_free, 64);
    assert_int_equal(kv.win.n_free, 24);
    assert_int_equal(kv.full.n_reserved, 0);
    assert_int_equal(kv.win.n_reserved, 0);
    kv_close(&kv);
}

static void test_window_stays_small(void **state)
{
    (void)state;
    struct kv kv;
    int need;
    open_kv(&kv, 4000, 8);
    need = kv_need_window(&kv, 100000, 64);
    assert_true(need <= 8);
    struct kv_seq s;
    assert_int_equal(kv_admit(&kv, &s, 100000, 64), OK);
    for (int p = 0; p + 64 <= 100000; p += 64) {
        kv_advance(&kv, &s, p, 64);
        assert_true(kv.win.n - kv.win.n_free <= need);
    }
    kv_release(&kv, &s);
    kv_close(&kv);
}

static void test_busy_then_admitted(void **state)
{
    (void)state;
    struct kv kv;
    open_kv(&kv, 10, 10);
    struct kv_seq a, b;
    assert_int_equal(kv_admit(&kv, &a, 6 * PAGE, 32), OK);
    assert_int_equal(kv_admit(&kv, &b, 5 * PAGE, 32), E_BUSY);
    assert_int_equal(kv.full.n_reserved, 6); /* the refused one left nothing behind */
    kv_release(&kv, &a);
    assert_int_equal(kv_admit(&kv, &b, 5 * PAGE, 32), OK);
    kv_release(&kv, &b);
    kv_close(&kv);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct kv kv;
    struct kv_plan plan = {.page_tok = PAGE, .n_full = 8, .n_window = 8};
    for (long n = 1; n <= 2; n++) {
        mem_fault_at(n);
        assert_int_equal(kv_open(&kv, &plan, WINDOW), E_NOMEM);
    }
    mem_fault_at(0);
    assert_int_equal(kv_open(&kv, &plan, WINDOW), OK);
    struct kv_seq s;
    mem_fault_at(2);
    assert_int_equal(kv_admit(&kv, &s, 64, 32), E_NOMEM);
    mem_fault_at(0);
    assert_int_equal(kv.full.n_reserved, 0);
    kv_close(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_sequences_share_nothing),
        cmocka_unit_test(test_window_stays_small),
        cmocka_unit_test(test_busy_then_admitted),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
