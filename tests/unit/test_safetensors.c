/* The safetensors reader refuses every malformed header with a message of its own, quickly and in
 * little memory (reliability.md cases 1-3), and reads back what the writer wrote. */
#include "base/clock.h"
#include "base/mem.h"
#include "model/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* A file image: header length, header, n_data zero bytes. Exact size, so that the address sanitizer
 * sees any read past the end. */
static uint8_t *image(const char *header, size_t n_data, size_t *n)
{
    size_t len = strlen(header);
    *n = 8 + len + n_data;
    uint8_t *p = calloc(1, *n);
    assert_non_null(p);
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(len >> 8 * i);
    memcpy(p + 8, header, len);
    return p;
}

static status open_image(const char *header, size_t n_data, struct err *e)
{
    size_t n;
    uint8_t *p = image(header, n_data, &n);
    struct st_file *f;
    memset(e, 0, sizeof *e);
    status st = st_open_memory(p, n, "file.safetensors", &f, e);
    st_close(f);
    free(p);
    return st;
}

#define T(name, dtype, shape, b, e)                                                                \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #b "," #e "]" \
    "}"

static void good(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        int count;
    } files[] = {
        {"{}", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {"{\"__metadata__\":{\"format\":\"pt\",\"a\\\"b\":\"\\\\\"}," T("a", "F32", "2,3", 0,
                                                                        24) "}",
         24, 1},
        {"{" T("b", "BF16", "4", 24, 32) "," T("a", "F32", "2,3", 0, 24) "}   ", 32, 2},
        {"{" T("s", "F16", "", 0, 2) "," T("z", "U8", "0,5", 2, 2) "," T("i", "I64", "1", 2,
                                                                         10) "}",
         10, 3},
        {"{ \"a\" : { \"shape\" : [ 2 ] , \"data_offsets\" : [ 0 , 2 ] , \"dtype\" : \"U8\" } }", 2,
         1},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        size_t n;
        uint8_t *p = image(files[i].header, files[i].n_data, &n);
        struct st_file *f;
        struct err e = {0};
        if (st_open_memory(p, n, "x", &f, &e) < 0)
            fail_msg("%zu: %s", i, e.msg);
        assert_int_equal(st_count(f), files[i].count);
        for (int k = 0; k < st_count(f); k++) {
            const struct st_tensor *t = st_at(f, k);
            assert_ptr_equal(st_find(f, t->name), t);
            assert_true(t->p >= p && t->p + t->n_bytes <= p + n);
        }
        assert_null(st_find(f, "nothing"));
        st_close(f);
        free(p);
    }
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        const char *says;
    } bad[] = {
        {"[]", 0, "expected '{'"},
        {" {}", 0, "expected '{'"},
        {"{", 0, "the header is empty"},
        {"{ ", 0, "too early"},
        {"{}x", 0, "text after"},
        {"{\"a\"", 0, "too early"},
        {"{\"a", 0, "inside a name"},
        {"{\"a\\u0041\":1}", 0, "escaped"},
        {"{\"a\x01\":1}", 0, "printable ASCII"},
        {"{\"a\xc3\xa9\":1}", 0, "printable ASCII"},
        {"{\"a\":1}", 0, "expected '{' after"},
        {"{\"a\":{}}", 0, "quoted name"},
        {"{\"a\":{\"dtype\":\"U8\"}}", 0, "lacks one of"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 0, "given twice"},
        {"{\"a\":{\"color\":\"U8\"}}", 0, "unknown"},
        {"{\"a\":{\"shape\":{}}}", 0, "list of numbers"},
        {"{\"a\":{\"shape\":[[1]]}}", 0, "expected a number"},
        {"{\"a\":{\"shape\":[1,1,1,1,1,1,1,1,1]}}", 0, "too many numbers"},
        {"{\"a\":{\"data_offsets\":[1]}}", 0, "two numbers"},
        {"{" T("a", "F5", "1", 0, 1) "}", 1, "unknown type F5"},
        {"{" T("a", "U8", "-1", 0, 1) "}", 1, "negative"},
        {"{" T("a", "U8", "1.0", 0, 1) "}", 1, "not an integer"},
        {"{" T("a", "U8", "1e3", 0, 1) "}", 1, "not an integer"},
        {"{" T("a", "U8", "01", 0, 1) "}", 1, "leading zeros"},
        {"{" T("a", "U8", "9223372036854775808", 0, 1) "}", 1, "2^63"},
        {"{" T("a", "U8", "2,", 0, 1) "}", 1, "expected a number"},
        {"{" T("a", "U8", "4294967296,4294967296", 0, 1) "}", 1, "shape overflows"},
        {"{" T("a", "F32", "4611686018427387904", 0, 1) "}", 1, "shape overflows"},
        {"{" T("a", "F32", "2", 0, 4) "}", 4, "its shape takes 8 bytes, its offsets span 4"},
        {"{" T("a", "U8", "4", 4, 0) "}", 4, "run backwards"},
        {"{" T("a", "U8", "5", 0, 5) "}", 4, "ends at byte 5 of 4"},
        {"{" T("a", "U8", "4", 0, 9223372036854775807) "}", 4, "ends at byte"},
        {"{" T("a", "U8", "3", 0, 3) "," T("b", "U8", "2", 2, 4) "}", 4, "overlaps"},
        {"{" T("a", "U8", "1", 0, 1) "," T("b", "U8", "2", 2, 4) "}", 4, "a gap of 1 bytes"},
        {"{" T("a", "U8", "2", 2, 4) "}", 4, "a gap of 2 bytes"},
        {"{" T("a", "U8", "2", 0, 2) "}", 4, "2 bytes after the last tensor"},
        {"{}", 4, "4 bytes after the last tensor"},
        {"{" T("a", "U8", "2", 0, 2) "," T("a", "U8", "2", 2, 4) "}", 4, "there twice"},
        {"{" T("a", "U8", "2", 0, 2) "," T("a", "U8", "2", 0, 2) "}", 2, "overlaps"},
        {"{" T("a", "U8", "2", 0, 2) ",}", 2, "quoted name"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"},
        {"{\"__metadata__\":[]}", 0, "not an object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "expected a string"},
        {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "expected a string"},
        {"{\"__metadata__\":{\"a\":\"\n\"}}", 0, "control character"},
        {"{\"__metadata__\":{\"a\":\"b\\", 0, "ends inside"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e;
        status st = open_image(bad[i].header, bad[i].n_data, &e);
        if (st != E_FORMAT || !strstr(e.msg, bad[i].says) || !strstr(e.msg, "file.safetensors"))
            fail_msg("%zu %s: %d \"%s\", expected \"%s\"", i, bad[i].header, st, e.msg,
                     bad[i].says);
    }
}

static void header_lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t len;
        const char *says;
    } bad[] = {{0, "empty"},
               {1, "empty"},
               {3, "cut short"},
               {1ull << 63, "cut short"},
               {UINT64_MAX, "cut short"},
               {100u << 20, "cut short"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t p[10] = {0};
        memcpy(p + 8, "{}", 2);
        memcpy(p, &bad[i].len, 8);
        struct st_file *f;
        struct err e = {0};
        assert_int_equal(st_open_memory(p, sizeof p, "x", &f, &e), E_FORMAT);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%zu: %s", i, e.msg);
    }
}

/* Every prefix of a valid file is refused, and every single byte of its header may be anything. */
static void truncated_and_damaged(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = image("{\"__metadata__\":{\"format\":\"pt\"}," T("a.b", "F32", "2,3", 0, 24) "," T(
                           "c", "BF16", "4", 24, 32) "}  ",
                       32, &n);
    struct st_file *f;
    struct err e;
    for (size_t k = 0; k < n; k++) {
        uint8_t *cut = malloc(k ? k : 1);
        assert_non_null(cut);
        memcpy(cut, p, k);
        e.msg[0] = '\0';
        assert_int_equal(st_open_memory(cut, k, "x", &f, &e), E_FORMAT);
        assert_true(e.msg[0] != '\0');
        free(cut);
    }
    for (size_t k = 0; k < n - 32; k++)
        for (int v = 0; v < 256; v++) {
            uint8_t keep = p[k];
            p[k] = (uint8_t)v;
            if (st_open_memory(p, n, "x", &f, &e) == OK)
                for (int i = 0; i < st_count(f); i++) {
                    const struct st_tensor *t = st_at(f, i);
                    assert_true(t->p >= p && t->p + t->n_bytes <= p + n);
                }
            st_close(f);
            p[k] = keep;
        }
    free(p);
}

/* Opens a file in a child of its own and reports the peak memory it needed beyond its start. */
static void costs_little(const char *path, const char *says)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct st_file *f;
        struct err e = {0};
        struct rusage before, after;
        getrusage(RUSAGE_SELF, &before);
        uint64_t t0 = clock_ns();
        status st = st_open(path, &f, &e);
        double ms = clock_ms_since(t0);
        getrusage(RUSAGE_SELF, &after);
        long kb = after.ru_maxrss - before.ru_maxrss;
        printf("%s: %.1f ms, %ld KB: %s\n", says, ms, kb, e.msg);
        fflush(stdout);
#if defined __SANITIZE_ADDRESS__
        ms = 0, kb = 0; /* not what is measured there */
#endif
        _exit(st != E_FORMAT || !strstr(e.msg, says) ? 1 : ms > 100 ? 2 : kb > 64 << 10 ? 3 : 0);
    }
    int code;
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
}

static void write_hostile(const char *path, size_t n_header, void (*fill)(FILE *, size_t))
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    uint64_t len = n_header;
    fwrite(&len, 1, 8, f);
    fill(f, n_header);
    assert_int_equal(fflush(f), 0);
    assert_int_equal(ftruncate(fileno(f), (off_t)(8 + n_header)), 0);
    fclose(f);
}

static void million_tensors(FILE *f, size_t n)
{
    (void)n;
    for (int i = 0; i < 1000000; i++)
        fprintf(f,
                "%c"
                "\"%d\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[%d,%d]}",
                i ? ',' : '{', i, i, i + 1);
}
/* As many tensors as fit below the header's limit. */
static void many_tensors(FILE *f, size_t n)
{
    size_t at = 0;
    for (int i = 0; at + 200 < n; i++)
        at += (size_t)fprintf(f,
                              "%c"
                              "\"%x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                              i ? ',' : '{', i);
}
static void deep(FILE *f, size_t n)
{
    fputs("{\"a\":", f);
    for (size_t i = 5; i < n; i++)
        fputc('[', f);
}
static void fat_metadata(FILE *f, size_t n)
{
    static char block[1 << 20];
    memset(block, 'x', sizeof block);
    fputs("{\"__metadata__\":{\"a\":\"", f);
    for (size_t i = 0; i + sizeof block < n; i += sizeof block)
        fwrite(block, 1, sizeof block, f);
}

static void hostile_headers(void **state)
{
    (void)state;
    char path[] = "/tmp/gloss-st-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_hostile(path, 80u << 20, million_tensors);
    costs_little(path, "at most");
    write_hostile(path, 15u << 20, many_tensors);
    costs_little(path, "more than 65536 tensors");
    write_hostile(path, 100000, deep);
    costs_little(path, "expected '{'");
    write_hostile(path, 90u << 20, fat_metadata);
    costs_little(path, "at most");
    write_hostile(path, 15u << 20, fat_metadata);
    costs_little(path, "control character");
    assert_int_equal(truncate(path, 3), 0);
    costs_little(path, "no safetensors file");
    assert_int_equal(truncate(path, 0), 0);
    costs_little(path, "no safetensors file");
    unlink(path);
}

static void not_files(void **state)
{
    (void)state;
    struct st_file *f;
    struct err e = {0};
    char dir[] = "/tmp/gloss-st-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(st_open(dir, &f, &e), E_FORMAT);
    assert_int_equal(st_open("/dev/zero", &f, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "not a regular file"));
    snprintf(path, sizeof path, "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(st_open(path, &f, &e), E_FORMAT);
    unlink(path);
    assert_int_equal(st_open(path, &f, &e), E_NOENT);
    assert_int_equal(symlink("loop", path), 0);
    unlink(path);
    rmdir(dir);
}

static void writer(void **state)
{
    (void)state;
    char dir[] = "/tmp/gloss-st-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.safetensors", dir);
    struct err e = {0};
    struct st_writer *w;
    static const float x[6] = {1, 2, 3, 4, 5, 6};
    static const uint8_t y[5] = {9, 8, 7, 6, 5};
    const int64_t dim[2] = {2, 3}, five = 5;
    for (int round = 0; round < 2; round++) { /* first abandoned, then finished */
        assert_int_equal(st_writer_new(path, &w, &e), OK);
        assert_int_equal(st_declare(w, "x", DT_F32, dim, 2, &e), OK);
        assert_int_equal(st_declare(w, "y", DT_U8, &five, 1, &e), OK);
        assert_int_equal(st_write_begin(w, &e), OK);
        st_write(w, x, sizeof x);
        if (round == 0) {
            assert_int_equal(st_write_end(w, &e), E_BUG);
            st_writer_free(w);
            assert_int_equal(access(path, F_OK), -1);
            continue;
        }
        st_write(w, y, sizeof y);
        assert_int_equal(st_write_end(w, &e), OK);
        st_writer_free(w);
    }
    struct st_file *f;
    assert_int_equal(st_open(path, &f, &e), OK);
    const struct st_tensor *t = st_find(f, "x");
    assert_non_null(t);
    assert_int_equal((uintptr_t)t->p % 64, 0);
    assert_int_equal(t->dtype, DT_F32);
    assert_int_equal(t->dim[1], 3);
    assert_memory_equal(t->p, x, sizeof x);
    assert_memory_equal(st_find(f, "y")->p, y, sizeof y);
    st_close(f);
    unlink(path);
    assert_int_equal(rmdir(dir), 0); /* no temporary left */
}

static void allocation_failures(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = image("{" T("a", "U8", "1", 0, 1) "," T("b", "U8", "2", 1, 3) "}", 3, &n);
    struct st_file *f;
    struct err e;
    status st = E_NOMEM;
    for (long i = 1; st != OK; i++) {
        mem_fault_at(i);
        st = st_open_memory(p, n, "x", &f, &e);
        mem_fault_at(0);
        assert_true(st == OK || st == E_NOMEM);
        assert_true(i < 100);
    }
    st_close(f);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good),
                                       cmocka_unit_test(refused),
                                       cmocka_unit_test(header_lengths),
                                       cmocka_unit_test(truncated_and_damaged),
                                       cmocka_unit_test(hostile_headers),
                                       cmocka_unit_test(not_files),
                                       cmocka_unit_test(writer),
                                       cmocka_unit_test(allocation_failures)};
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
