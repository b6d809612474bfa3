/* The prefix cache against its promises, with random sequences: what is found is what was computed
 * for equal tokens of the same tenant, pages that are visible are there, nobody's page is free,
 * nothing is lost, and forged equal hashes change nothing. */
#include "unit/unit.h"

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/prefix.h"
#include "seed.h"

enum { PAGE = PREFIX_PAGE_TOK, WINDOW = 128, N_FULL = 60, N_WIN = 40, N_SEQ = 6, MAX_TOK = 600 };

static uint64_t seed, n_drawn;

static uint32_t draw(uint32_t n)
{
    uint32_t r[4];
    rng_block(seed, 1, n_drawn++, r);
    return r[0] % n;
}

/* What the "backend" stored: the tokens of each page, so that a wrong page is noticed. */
struct world {
    struct kv kv;
    struct prefix p;
    int32_t full[N_FULL][PAGE], win[N_WIN][PAGE];
    uint64_t full_tenant[N_FULL], win_tenant[N_WIN];
};

struct runner {
    struct kv_seq kv;
    struct prefix_seq s;
    int32_t ids[MAX_TOK];
    int n_done;
    bool live;
};

static void open_world(struct world *w, uint64_t hash_mask)
{
    struct kv_plan plan = {.page_tok = PAGE, .n_full = N_FULL, .n_window = N_WIN};
    struct hash_key key = {seed, 2};
    memset(w, 0, sizeof *w);
    assert_int_equal(kv_open(&w->kv, &plan, WINDOW), OK);
    assert_int_equal(prefix_open(&w->p, &w->kv, true, key), OK);
    w->p.hash_mask = hash_mask;
    w->p.mark[0] = 1;
    w->p.n_mark = 1;
}

static void close_world(struct world *w)
{
    prefix_close(&w->p);
    kv_close(&w->kv);
}

/* All that a row at position `pos` may see must hold the sequence's own tokens. */
static void check_visible(struct world *w, const struct runner *r, int pos)
{
    for (int q = 0; q < pos; q++) {
        int32_t page = r->kv.full[q / PAGE];
        assert_true(page >= 0 && w->kv.full.ref[page] > 0);
        assert_int_equal(w->full[page][q % PAGE], r->ids[q]);
        assert_true(w->full_tenant[page] == r->s.tenant);
        if (q < pos - (WINDOW - 1))
            continue;
        page = r->kv.win[q / PAGE];
        assert_true(page >= 0 && w->kv.win.ref[page] > 0);
        assert_int_equal(w->win[page][q % PAGE], r->ids[q]);
        assert_true(w->win_tenant[page] == r->s.tenant);
    }
}

static void feed(struct world *w, struct runner *r, int n)
{
    for (int q = r->n_done; q < r->n_done + n; q++) {
        int32_t full = r->kv.full[q / PAGE], win = r->kv.win[q / PAGE];
        /* what is written belongs to nobody else */
        assert_int_equal(w->kv.full.ref[full], 1);
        assert_int_equal(w->kv.win.ref[win], 1);
        w->full[full][q % PAGE] = w->win[win][q % PAGE] = r->ids[q];
        w->full_tenant[full] = w->win_tenant[win] = r->s.tenant;
    }
    check_visible(w, r, r->n_done + n);
    r->n_done += n;
    prefix_learn(&w->p, &r->s, r->n_done);
    check_visible(w, r, r->n_done);
}

static void begin(struct world *w, struct runner *r)
{
    int n = 1 + (int)draw(MAX_TOK - 1), shared = (int)draw(4) * 70;
    for (int i = 0; i < n; i++)
        r->ids[i] = i < shared ? 100 + i : draw(20) == 0 ? 1 : 2 + (int32_t)draw(50);
    r->s = (struct prefix_seq){.tenant = draw(2),
                               .ids = r->ids,
                               .n_ids = n,
                               .n_prompt = 1 + (int)draw((uint32_t)n),
                               .kv = &r->kv};
    assert_int_equal(kv_seq_open(&w->kv, &r->kv, n), OK);
    r->n_done = prefix_match(&w->p, &r->s);
    assert_true(r->n_done < n && r->n_done % PAGE == 0);
    check_visible(w, r, r->n_done);
    r->live = true;
}

static void end(struct world *w, struct runner *r)
{
    prefix_release(&w->p, &r->s, r->n_done);
    kv_seq_close(&r->kv);
    r->live = false;
}

/* Holders counted from the tables and the cache are those of the pools. */
static void check_counts(struct world *w, struct runner *r)
{
    int held_full = 0, held_win = 0, ref_full = 0, ref_win = 0, used_full = 0, used_win = 0;
    for (int i = 0; i < N_SEQ; i++) {
        for (int k = 0; r[i].live && k < r[i].kv.n_full; k++)
            held_full++;
        for (int k = r[i].kv.win_lo; r[i].live && k < r[i].kv.win_hi; k++)
            held_win++;
    }
    for (int i = 0; i < N_FULL; i++) {
        ref_full += w->kv.full.ref[i];
        used_full += w->kv.full.ref[i] > 0;
    }
    for (int i = 0; i < N_WIN; i++) {
        ref_win += w->kv.win.ref[i];
        used_win += w->kv.win.ref[i] > 0;
    }
    assert_int_equal(ref_full, held_full + w->p.n_node);
    assert_int_equal(ref_win, held_win + w->p.n_win);
    assert_int_equal(used_full + w->kv.full.n_free, N_FULL);
    assert_int_equal(used_win + w->kv.win.n_free, N_WIN);
    assert_true(w->p.n_idle >= 0 && w->p.n_idle <= w->p.n_node);
    assert_true(w->p.n_win_idle >= 0 && w->p.n_win_idle <= w->p.n_win);
}

static void random_life(uint64_t hash_mask)
{
    static struct world w;
    static struct runner r[N_SEQ];
    int n_reused = 0, n_lacking = 0;
    open_world(&w, hash_mask);
    memset(r, 0, sizeof r);
    for (int i = 0; i < 12000; i++) {
        struct runner *k = &r[draw(N_SEQ)];
        if (!k->live) {
            begin(&w, k);
            n_reused += k->n_done > 0;
        } else if (k->n_done == k->s.n_ids || draw(100) == 0) {
            end(&w, k);
        } else {
            int n = min_int(1 + (int)draw(draw(2) ? 8 : 120), k->s.n_ids - k->n_done);
            if (prefix_extend(&w.p, &k->s, k->n_done, n)) {
                feed(&w, k, n);
            } else {
                n_lacking++;
                end(&w, k); /* preempted */
            }
        }
        if (i % 16 == 0)
            check_counts(&w, r);
    }
    printf("%d reused, %d lacking, %llu and %llu evicted\n", n_reused, n_lacking,
           (unsigned long long)w.p.n_evict, (unsigned long long)w.p.n_evict_win);
    assert_true(n_reused > 20 && n_lacking > 2 && w.p.n_evict > 20 && w.p.n_evict_win > 5);
    for (int i = 0; i < N_SEQ; i++)
        if (r[i].live)
            end(&w, &r[i]);
    assert_int_equal(prefix_room(&w.p), N_FULL);
    assert_int_equal(prefix_room_window(&w.p), N_WIN);
    prefix_clear(&w.p);
    assert_int_equal(w.p.n_node + w.p.n_win, 0);
    assert_int_equal(w.kv.full.n_free, N_FULL);
    assert_int_equal(w.kv.win.n_free, N_WIN);
    close_world(&w);
}

static void test_random_life(void **state)
{
    (void)state;
    random_life(~(uint64_t)0);
}

static void test_equal_hashes_do_not_mix(void **state)
{
    (void)state;
    random_life(0);
}

/* A fork shares complete pages and owns its copy of the last one. */
static void test_fork(void **state)
{
    (void)state;
    static struct world w;
    static struct runner a, b;
    struct prefix_copy c;
    open_world(&w, ~(uint64_t)0);
    begin(&w, &a);
    end(&w, &a);
    for (int i = 0; i < 300; i++)
        a.ids[i] = b.ids[i] = i;
    a.s.n_ids = a.s.n_prompt = b.s.n_ids = b.s.n_prompt = 300;
    a.s.ids = a.ids;
    b.s = a.s;
    b.s.ids = b.ids;
    a.s.kv = &a.kv;
    b.s.kv = &b.kv;
    assert_int_equal(kv_seq_open(&w.kv, &a.kv, 300), OK);
    assert_int_equal(kv_seq_open(&w.kv, &b.kv, 300), OK);
    a.n_done = 0;
    assert_true(prefix_extend(&w.p, &a.s, 0, 200));
    feed(&w, &a, 200);
    assert_true(prefix_fork(&w.p, &a.kv, &b.kv, 200, &c));
    assert_int_equal(c.full_from, a.kv.full[6]);
    assert_int_equal(c.win_from, a.kv.win[6]);
    memcpy(w.full[c.full_to], w.full[c.full_from], sizeof w.full[0]);
    memcpy(w.win[c.win_to], w.win[c.win_from], sizeof w.win[0]);
    w.full_tenant[c.full_to] = w.win_tenant[c.win_to] = a.s.tenant;
    b.n_done = 200;
    b.live = a.live = true;
    b.ids[205] = 999; /* they part inside a page */
    assert_true(prefix_extend(&w.p, &a.s, 200, 60));
    assert_true(prefix_extend(&w.p, &b.s, 200, 60));
    feed(&w, &a, 60);
    feed(&w, &b, 60);
    check_visible(&w, &a, 260);
    assert_int_equal(a.kv.full[5], b.kv.full[5]);
    assert_int_not_equal(a.kv.full[6], b.kv.full[6]);
    end(&w, &a);
    check_visible(&w, &b, 260);
    end(&w, &b);
    prefix_clear(&w.p);
    assert_int_equal(w.kv.full.n_free, N_FULL);
    assert_int_equal(w.kv.win.n_free, N_WIN);
    close_world(&w);
}

/* The next turn drops an analysis: it goes on from the mark before it. */
static void test_snapshot_at_marks(void **state)
{
    (void)state;
    static struct world w;
    static struct runner a;
    open_world(&w, ~(uint64_t)0);
    for (int i = 0; i < 500; i++)
        a.ids[i] = 10 + i;
    a.ids[205] = 1; /* the mark, in page 6 */
    a.s = (struct prefix_seq){.ids = a.ids, .n_ids = 500, .n_prompt = 260, .kv = &a.kv};
    assert_int_equal(kv_seq_open(&w.kv, &a.kv, 500), OK);
    for (a.n_done = 0; a.n_done < 500;) {
        assert_true(prefix_extend(&w.p, &a.s, a.n_done, 10));
        feed(&w, &a, 10);
    }
    end(&w, &a);
    static const struct {
        int differs, reused;
    } cases[] = {{206, 192}, {230, 224}, {262, 256}, {300, 256}, {499, 480}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int k = 0; k < 500; k++)
            a.ids[k] = k == 205 ? 1 : k < cases[i].differs ? 10 + k : 5;
        assert_int_equal(kv_seq_open(&w.kv, &a.kv, 500), OK);
        int got = prefix_match(&w.p, &a.s);
        if (got != cases[i].reused && !(cases[i].differs == 230 && got == 192))
            fail_msg("differs at %d: %d reused", cases[i].differs, got);
        prefix_release(&w.p, &a.s, got);
        kv_seq_close(&a.kv);
    }
    prefix_clear(&w.p);
    close_world(&w);
}

static int setup(void **state)
{
    (void)state;
    seed = test_seed();
    printf("seed %llu\n", (unsigned long long)seed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_life),
        cmocka_unit_test(test_equal_hashes_do_not_mix),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_snapshot_at_marks),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
