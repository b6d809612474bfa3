#include "unit.h"

#include "base/buf.h"
#include "base/mem.h"

static void test_append(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_string_equal(b.p, "");
    buf_put(&b, "a\0b", 3);
    buf_putc(&b, 'c');
    buf_puts(&b, "def");
    buf_printf(&b, "%d-%s", 42, "x");
    assert_int_equal(b.n, 11);
    assert_memory_equal(b.p, "a\0bcdef42-x", 12); /* the NUL behind included */
    for (int i = 0; i < 100000; i++)
        buf_putc(&b, (char)('a' + i % 26));
    assert_int_equal(b.n, 100011);
    assert_int_equal(b.p[100010], 'a' + 99999 % 26);
    assert_int_equal(b.p[100011], '\0');
    buf_clear(&b);
    assert_int_equal(b.n, 0);
    assert_string_equal(b.p, "");
    assert_true(b.cap > 100000);
    buf_fini(&b);
    assert_string_equal(b.p, "");
    assert_int_equal(b.max, 1 << 20); /* usable again */
    buf_puts(&b, "again");
    assert_string_equal(b.p, "again");
    buf_fini(&b);
}

static void test_ceiling(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 8);
    buf_put(&b, "12345678", 8);
    assert_int_equal(buf_status(&b), OK);
    buf_putc(&b, '9');
    assert_int_equal(buf_status(&b), E_LIMIT);
    assert_string_equal(b.p, "12345678");
    buf_clear(&b);
    buf_puts(&b, "12345");
    buf_printf(&b, "%d", 6789); /* does not fit: nothing of it is written */
    buf_putc(&b, '6');          /* would fit, but errors stick */
    assert_int_equal(buf_status(&b), E_LIMIT);
    assert_string_equal(b.p, "12345");
    assert_null(buf_room(&b, 1));
    buf_clear(&b);
    assert_int_equal(buf_status(&b), OK);
    assert_null(buf_room(&b, SIZE_MAX));
    assert_int_equal(buf_status(&b), E_LIMIT);
    buf_fini(&b);
    buf_init(&b, 0);
    buf_put(&b, "", 0);
    assert_int_equal(buf_status(&b), OK);
    buf_putc(&b, 'x');
    assert_int_equal(buf_status(&b), E_LIMIT);
    buf_fini(&b);
}

static void test_room(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    char *to = buf_room(&b, 500);
    assert_non_null(to);
    memset(to, 'x', 500);
    b.n += 500;
    buf_putc(&b, 'y');
    assert_int_equal(b.n, 501);
    assert_int_equal(b.p[500], 'y');
    buf_fini(&b);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_puts(&b, "kept");
    mem_fault_at(1);
    for (int i = 0; i < 100; i++)
        buf_puts(&b, "more");
    mem_fault_at(0);
    assert_int_equal(buf_status(&b), E_NOMEM);
    assert_memory_equal(b.p, "keptmore", 8);
    buf_puts(&b, "x"); /* sticks */
    assert_int_equal(buf_status(&b), E_NOMEM);
    buf_fini(&b);
}

static void test_html(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 10);
    buf_html(&b, "a < b && \"c\" > 'd'");
    assert_string_equal(b.p, "a &lt; b &amp;&amp; &#34;c&#34; &gt; 'd'");
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append), cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_room),   cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_html),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
