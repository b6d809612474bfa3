#include "unit.h"

#include "base/file.h"
#include "base/numa.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/gloss-test-file-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[16][300];
    static int i;
    i = (i + 1) % 16;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

/* Names in the folder; the test leaves none behind but those it removes. */
static int count_files(void)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *ent; (ent = readdir(d));)
        n += ent->d_name[0] != '.';
    closedir(d);
    return n;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static void expect_content(const char *path, const char *want, size_t n)
{
    struct buf b;
    struct err e = {0};
    buf_init(&b, 1 << 24);
    if (file_read(path, &b, &e) != OK)
        fail_msg("%s", e.msg);
    assert_int_equal(b.n, n);
    assert_memory_equal(b.p, want, n);
    buf_fini(&b);
    struct file_map m;
    assert_int_equal(file_map(path, &m, &e), OK);
    assert_int_equal(m.n, n);
    if (n)
        assert_memory_equal(m.p, want, n);
    file_unmap(&m);
    assert_null(m.p);
    file_unmap(&m); /* harmless */
}

static void test_round_trip(void **state)
{
    (void)state;
    struct err e;
    const char *path = in_dir("a");
    assert_int_equal(file_save(path, "", 0, &e), OK);
    expect_content(path, "", 0);
    assert_int_equal(file_save(path, "hello\0x", 7, &e), OK);
    expect_content(path, "hello\0x", 7);
    size_t n = 3 << 20;
    char *big = malloc(n);
    for (size_t i = 0; i < n; i++)
        big[i] = (char)(i * 31 >> 3);
    assert_int_equal(file_save(path, big, n, &e), OK);
    expect_content(path, big, n);
    /* The ceiling of the buffer: exact. */
    struct buf b;
    buf_init(&b, n);
    assert_int_equal(file_read(path, &b, &e), OK);
    buf_fini(&b);
    buf_init(&b, n - 1);
    assert_int_equal(file_read(path, &b, &e), E_LIMIT);
    buf_fini(&b);
    free(big);
    assert_int_equal(count_files(), 1);
    unlink(path);
}

static void expect_refused(const char *path, status want)
{
    struct buf b;
    struct file_map m;
    struct err e = {0};
    buf_init(&b, 100);
    assert_int_equal(file_read(path, &b, &e), want);
    assert_non_null(strstr(e.msg, path));
    assert_int_equal(file_map(path, &m, &e), want);
    assert_null(m.p);
    buf_fini(&b);
}

/* Nothing here blocks: a FIFO without a writer would, if it were opened the plain way. */
static void test_wrong_kinds(void **state)
{
    (void)state;
    expect_refused(in_dir("none"), E_NOENT);
    expect_refused(in_dir("none/none"), E_NOENT);
    expect_refused(dir, E_INPUT);
    expect_refused("/dev/null", E_INPUT);
    expect_refused("/dev/zero", E_INPUT);
    const char *fifo = in_dir("fifo"), *link = in_dir("link");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    alarm(20);
    expect_refused(fifo, E_INPUT);
    assert_int_equal(symlink("fifo", link), 0);
    expect_refused(link, E_INPUT);
    unlink(link);
    assert_int_equal(symlink("link", link), 0); /* a loop */
    expect_refused(link, E_IO);
    alarm(0);
    unlink(link);
    unlink(fifo);
    struct err e;
    const char *real = in_dir("real");
    assert_int_equal(file_save(real, "x", 1, &e), OK);
    assert_int_equal(symlink("real", link), 0);
    expect_content(link, "x", 1);
    expect_refused(in_dir("real/below"), E_NOENT);
    assert_false(file_exists(in_dir("none")));
    assert_true(file_exists(real) && !file_is_dir(real) && file_is_dir(dir));
    unlink(link);
    unlink(real);
}

static void test_atomic(void **state)
{
    (void)state;
    struct err e;
    struct file_new w;
    const char *path = in_dir("model");
    assert_int_equal(file_save(path, "old", 3, &e), OK);
    assert_int_equal(file_begin(&w, path, &e), OK);
    file_write(&w, "new and longer", 14);
    expect_content(path, "old", 3); /* until the commit */
    file_abort(&w);
    assert_int_equal(count_files(), 1);
    expect_content(path, "old", 3);
    assert_int_equal(file_begin(&w, path, &e), OK);
    file_write(&w, "new ", 4);
    file_write(&w, "", 0);
    file_write(&w, "one", 3);
    assert_int_equal(file_commit(&w, &e), OK);
    file_abort(&w); /* harmless now */
    expect_content(path, "new one", 7);
    assert_int_equal(count_files(), 1);
    unlink(path);
    /* A reader that has the old file keeps it. */
    assert_int_equal(file_save(path, "mapped", 6, &e), OK);
    struct file_map m;
    assert_int_equal(file_map(path, &m, &e), OK);
    assert_int_equal(file_save(path, "change", 6, &e), OK);
    assert_memory_equal(m.p, "mapped", 6);
    file_unmap(&m);
    unlink(path);
}

/* A write that fails, early or only when buffers are flushed: an error, and the old file stays. */
static void test_write_fails(void **state)
{
    (void)state;
    struct err e = {0};
    const char *path = in_dir("full");
    assert_int_equal(file_save(path, "old", 3, &e), OK);
    struct rlimit was, small = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &was);
    small.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    static const size_t sizes[] = {100001, 1000000};
    char *data = calloc(1, 1000000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        status st = file_save(path, data, sizes[i], &e);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(st, E_IO);
        assert_non_null(strstr(e.msg, "cannot write"));
        expect_content(path, "old", 3);
        assert_int_equal(count_files(), 1);
    }
    free(data);

    /* No space left: the stream goes to the device that never has any. */
    struct file_new w;
    assert_int_equal(file_begin(&w, path, &e), OK);
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    assert_int_equal(dup2(full, fileno(w.f)), fileno(w.f));
    close(full);
    file_write(&w, "new", 3);
    assert_int_equal(file_commit(&w, &e), E_IO);
    assert_non_null(strstr(e.msg, "No space left"));
    expect_content(path, "old", 3);
    assert_int_equal(count_files(), 1);

    assert_int_equal(file_save(in_dir("none/x"), "x", 1, &e), E_NOENT);
    mkdir(in_dir("sub"), 0755);
    assert_int_equal(file_save(in_dir("sub"), "x", 1, &e), E_IO); /* a folder in the way */
    assert_int_equal(count_files(), 2);
    rmdir(in_dir("sub"));
    unlink(path);
    char *longer = malloc(5000);
    memset(longer, 'x', 5000);
    longer[4999] = '\0';
    assert_int_equal(file_save(longer, "x", 1, &e), E_INPUT);
    free(longer);
}

static void test_mkdir(void **state)
{
    (void)state;
    struct err e;
    const char *sub = in_dir("sub");
    assert_int_equal(file_mkdir(sub, &e), OK);
    assert_int_equal(file_mkdir(sub, &e), OK);
    assert_true(file_is_dir(sub));
    assert_int_equal(file_mkdir(in_dir("a/b"), &e), E_NOENT);
    assert_int_equal(file_save(in_dir("plain"), "x", 1, &e), OK);
    assert_int_equal(file_mkdir(in_dir("plain"), &e), E_IO);
    unlink(in_dir("plain"));
    rmdir(sub);
}

static void test_stdin(void **state)
{
    (void)state;
    int fd[2], keep = dup(STDIN_FILENO);
    assert_int_equal(pipe(fd), 0);
    assert_int_equal(write(fd[1], "from a pipe", 11), 11);
    close(fd[1]);
    dup2(fd[0], STDIN_FILENO);
    close(fd[0]);
    struct buf b;
    struct err e;
    buf_init(&b, 100);
    assert_int_equal(file_read("-", &b, &e), OK);
    assert_string_equal(b.p, "from a pipe");
    buf_fini(&b);
    dup2(keep, STDIN_FILENO);
    close(keep);
}

/* Pages given back come again from the file; what is not of the mapping is left alone. */
static void test_release(void **state)
{
    (void)state;
    enum { N = 5 * 4096 + 123 };
    struct err e;
    struct file_map m;
    char path[512], want[N], own[2 * 4096];
    for (int i = 0; i < N; i++)
        want[i] = (char)(i * 31 % 251);
    memset(own, 7, sizeof own);
    snprintf(path, sizeof path, "%s/release", dir);
    assert_int_equal(file_save(path, want, N, &e), OK);
    assert_int_equal(file_map(path, &m, &e), OK);
    file_release(&m, m.p + 1, N - 1);
    assert_memory_equal(m.p, want, N);
    file_release(&m, m.p, 100); /* no whole page */
    file_release(&m, own, sizeof own);
    for (size_t i = 0; i < sizeof own; i++)
        assert_int_equal(own[i], 7);
    file_unmap(&m);
    assert_int_equal(unlink(path), 0);
}

/* A copy has the file's bytes, begins on a huge page, stays what it was when the file changes, and
 * refuses what a mapping refuses. */
static void test_copy(void **state)
{
    (void)state;
    enum { N = (4 << 20) + 5 };
    static uint8_t text[N];
    struct file_map m;
    struct err e = {0};
    const char *path = in_dir("copied");
    for (int i = 0; i < N; i++)
        text[i] = (uint8_t)(i * 7 + i / 4096);
    assert_int_equal(file_save(path, text, N, &e), OK);
    assert_int_equal(file_copy(path, &m, &e), OK);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(m.n, N);
    assert_int_equal((uintptr_t)m.p % (2 << 20), 0);
    file_release(&m, m.p, m.n);
    assert_memory_equal(m.p, text, N);
    file_unmap(&m);
    assert_int_equal(file_copy(path, &m, &e), OK);
    assert_null(m.p);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_copy(path, &m, &e), E_NOENT);
    assert_int_equal(file_copy(dir, &m, &e), E_INPUT);
    assert_null(m.p);
}

/* Pages are dealt out where there is more than one node, and are memory like any other. */
static void test_nodes(void **state)
{
    (void)state;
    size_t n = 64 * 4096;
    uint8_t *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED && numa_nodes() >= 1);
    assert_int_equal(numa_spread(p, n), numa_nodes() > 1);
    memset(p, 3, n);
    munmap(p, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_wrong_kinds),
        cmocka_unit_test(test_atomic),     cmocka_unit_test(test_write_fails),
        cmocka_unit_test(test_mkdir),      cmocka_unit_test(test_stdin),
        cmocka_unit_test(test_release),    cmocka_unit_test(test_copy),
        cmocka_unit_test(test_nodes),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
