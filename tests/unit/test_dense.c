/* The 8-bit copies of the dense matrices: the same with and without the file that keeps them, which
 * is replaced whenever it does not fit; and memory that may not leave. */
#include "base/file.h"
#include "cpu/dense_cache.h"
#include "gloss.h"
#include "model/backend.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_VOCAB = 65536 }; /* so that the copies are worth a file */

static char dir[64], cache[128], other[64];

static int setup(void **state)
{
    (void)state;
    struct gloss_synth_opts o = GLOSS_INIT(struct gloss_synth_opts);
    struct gloss_err e;
    snprintf(dir, sizeof dir, "/tmp/gloss-test-dense-XXXXXX");
    snprintf(other, sizeof other, "/tmp/gloss-test-cache-XXXXXX");
    if (!mkdtemp(dir) || !mkdtemp(other) || rmdir(dir) != 0)
        return -1;
    snprintf(cache, sizeof cache, "%s/gloss-dense-q8.cache", dir);
    o.n_layer = 2;
    o.n_expert = 4;
    o.d_model = 256;
    o.d_ff = 64;
    o.n_head = 4;
    o.n_kv_head = 2;
    o.n_vocab = N_VOCAB;
    o.seed = 3;
    setenv("XDG_CACHE_HOME", other, 1);
    return gloss_synth(dir, &o, &e) < 0 ? -1 : 0;
}

static int remove_all(const char *path)
{
    char command[128];
    snprintf(command, sizeof command, "%s", path);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", command, (char *)NULL);
        _exit(1);
    }
    int code;
    return waitpid(pid, &code, 0) == pid ? code : -1;
}

static int teardown(void **state)
{
    (void)state;
    return remove_all(dir) || remove_all(other);
}

/* Logits of one row, [N_VOCAB]. */
static void run(bool no_cache, enum load_mode mode, float *logits)
{
    struct err e = {0};
    struct weights *w;
    struct backend *b;
    struct backend_opts o = {.arith = ARITH_Q8, .n_thread = 2, .no_dense_cache = no_cache};
    struct kv_plan plan = {
        .page_tok = 32, .n_full = 1, .n_window = 1, .max_rows = 1, .max_logit_rows = 1};
    int32_t page = 0, tok = 77, row = 0;
    struct batch_seq q = {.n_row = 1, .full = &page, .window = &page};
    struct batch batch = {
        .n_row = 1, .tok = &tok, .n_seq = 1, .seq = &q, .n_logit = 1, .logit_row = &row};
    struct step_out out;
    if (weights_open(dir, &(struct weights_opts){.mode = mode}, &w, &e) < 0 ||
        backend_cpu_open(w, &o, &b, &e) < 0 || b->kv_init(b, &plan, &e) < 0 ||
        b->step(b, &batch, &out, &e) < 0)
        fail_msg("%s", e.msg);
    memcpy(logits, out.logits, N_VOCAB * sizeof *logits);
    b->close(b);
    weights_close(w);
}

static float want[N_VOCAB], got[N_VOCAB];

static void must_run(void)
{
    memset(got, 0, sizeof got);
    run(false, LOAD_MMAP, got);
    assert_memory_equal(got, want, sizeof want);
}

static void read_cache(const char *path, struct buf *b)
{
    struct err e = {0};
    buf_init(b, 64 << 20);
    if (file_read(path, b, &e) < 0)
        fail_msg("%s", e.msg);
}

static ino_t inode(void)
{
    struct stat sb;
    assert_int_equal(stat(cache, &sb), 0);
    return sb.st_ino;
}

/* Writes v over a byte of the file. */
static void patch(long at, uint8_t v)
{
    int fd = open(cache, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &v, 1, at), 1);
    close(fd);
}

static void kept_and_found(void **state)
{
    (void)state;
    struct stat sb;
    run(true, LOAD_MMAP, want);
    assert_int_equal(stat(cache, &sb), -1);
    must_run();
    ino_t first = inode();
    must_run();
    assert_int_equal(inode(), first);
    run(false, LOAD_HUGE, got);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(inode(), first);
}

/* Magic, version, identity, a byte in the middle, the last byte; a shorter and a longer file; other
 * weights: replaced by the same bytes as before, and never believed. */
static void replaced_when_wrong(void **state)
{
    (void)state;
    struct buf good, now;
    must_run();
    read_cache(cache, &good);
    long n = (long)good.n, at[] = {0, 8, 16, 4096, n / 2, n - 1};
    for (int i = 0; i < 8; i++) {
        if (i < 6)
            patch(at[i], (uint8_t)(good.p[at[i]] ^ 1));
        else
            assert_int_equal(truncate(cache, i == 6 ? n - 1 : n + 1), 0);
        must_run();
        read_cache(cache, &now);
        assert_int_equal(now.n, good.n);
        assert_memory_equal(now.p, good.p, good.n);
        buf_fini(&now);
    }
    char path[192];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    struct timespec t[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    must_run();
    read_cache(cache, &now);
    assert_memory_not_equal(now.p, good.p, 4096);
    assert_memory_equal(now.p + 4096, good.p + 4096, good.n - 4096);
    buf_fini(&now);
    buf_fini(&good);
}

/* Where the checkpoint's folder takes no file (here: a folder of that name is in the way), the
 * user's own does. */
static void second_place(void **state)
{
    (void)state;
    char path[192];
    unlink(cache);
    assert_int_equal(mkdir(cache, 0700), 0);
    snprintf(path, sizeof path, "%s/in", cache);
    assert_int_equal(mkdir(path, 0700), 0);
    must_run();
    snprintf(path, sizeof path, "%s/gloss", other);
    assert_true(file_is_dir(path));
    must_run();
    assert_int_equal(remove_all(cache), 0);
}

/* Without the right to lock memory, opening says which limit to raise. */
static void lock_refused(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0};
        struct err e = {0};
        struct weights *w;
        struct backend *b;
        struct backend_opts o = {.n_thread = 1, .lock = true};
        if (weights_open(dir, NULL, &w, &e) < 0 || setrlimit(RLIMIT_MEMLOCK, &none) != 0 ||
            (getuid() == 0 && setresuid(65534, 65534, 65534) != 0))
            _exit(1);
        status st = backend_cpu_open(w, &o, &b, &e);
        if (write(fds[1], e.msg, strlen(e.msg)) < 0)
            _exit(2);
        _exit(st == E_LIMIT ? 0 : 3);
    }
    close(fds[1]);
    char said[512] = "";
    ssize_t n = read(fds[0], said, sizeof said - 1);
    close(fds[0]);
    int code;
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_int_equal(code, 0);
    assert_true(n > 0);
    assert_non_null(strstr(said, "ulimit -l"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_and_found),
        cmocka_unit_test(replaced_when_wrong),
        cmocka_unit_test(second_place),
        cmocka_unit_test(lock_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
