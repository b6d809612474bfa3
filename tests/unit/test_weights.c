/* weights_open: layouts, folders and links, the index, and everything it must refuse
 * (reliability.md cases 4-7). The checkpoints come from gloss_synth. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/num.h"
#include "gloss.h"
#include "model/weights.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char top[64]; /* one folder for everything, removed at the end */
static int n_made;

static void run(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void run(const char *fmt, ...)
{
    char cmd[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-ec", cmd, (char *)NULL);
        _exit(127);
    }
    int code;
    assert_int_equal(waitpid(pid, &code, 0), pid);
    if (code)
        fail_msg("%s", cmd);
}

/* A fresh small checkpoint; returns its folder (static storage of several). */
static const char *make(int original, int bf16)
{
    static char ring[4][128];
    char *dir = ring[n_made % 4];
    snprintf(dir, sizeof ring[0], "%s/%d", top, n_made++);
    struct gloss_synth_opts o = GLOSS_INIT(struct gloss_synth_opts);
    struct gloss_err e;
    o.n_layer = 2;
    o.n_expert = 4;
    o.d_model = 64;
    o.d_ff = 32;
    o.n_head = 2;
    o.n_kv_head = 1;
    o.n_vocab = 40;
    o.original = original;
    o.bf16 = bf16;
    o.seed = 5;
    if (gloss_synth(dir, &o, &e) < 0)
        fail_msg("%s", e.msg);
    return dir;
}

static struct weights *must_open(const char *dir, bool check_all)
{
    struct weights *w;
    struct err e = {0};
    if (weights_open(dir, &(struct weights_opts){.check_all = check_all}, &w, &e) < 0)
        fail_msg("%s: %s", dir, e.msg);
    return w;
}

/* Opening must fail with this code and a message containing `says`. */
static void must_fail(const char *dir, bool check_all, status want, const char *says)
{
    struct weights *w;
    struct err e = {0};
    status st = weights_open(dir, &(struct weights_opts){.check_all = check_all}, &w, &e);
    if (st != want || e.code != st || !strstr(e.msg, says))
        fail_msg("got %d \"%s\", expected %d \"%s\"", st, e.msg, want, says);
    assert_null(w);
}

/* Overwrites bytes of a tensor in DIR/model.safetensors. */
static void patch(const char *dir, const char *tensor, size_t at, const void *p, size_t n)
{
    char path[256];
    struct st_file *f;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(st_open(path, &f, &e), OK);
    const struct st_tensor *t = st_find(f, tensor);
    assert_non_null(t);
    uint64_t n_header;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &n_header, 8, 0) == 8);
    size_t start = 8 + n_header + (size_t)(t->p - st_at(f, 0)->p) + at;
    assert_int_equal(pwrite(fd, p, n, (off_t)start), (ssize_t)n);
    close(fd);
    st_close(f);
}

static void edit(const char *dir, const char *file, const char *sed)
{
    run("sed -i -e '%s' %s/%s", sed, dir, file);
}

static void both_layouts(void **state)
{
    (void)state;
    for (int original = 0; original < 2; original++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct weights *w = must_open(make(original, bf16), true);
            assert_int_equal(w->spec.n_layer, 2);
            assert_int_equal(w->layer[1].gate_up.layout, !bf16      ? EXPERT_MXFP4
                                                         : original ? EXPERT_OUT_MAJOR
                                                                    : EXPERT_IN_MAJOR);
            assert_int_equal(w->layer[0].k.n_out, 64);
            assert_true(w->n_expert_bytes > 0 && w->n_expert_bytes < w->n_bytes);
            /* matrices are not copied: they point into the mapped file */
            if (!bf16)
                assert_ptr_equal(w->layer[0].down.blocks[1], w->layer[0].down.blocks[0] + 64 * 16);
            weights_close(w);
        }
}

/* Every way of naming the same folder. */
static void folders(void **state)
{
    (void)state;
    const char *hf = make(0, 0), *orig = make(1, 0);
    char path[256];
    snprintf(path, sizeof path, "%s/parent", top);
    run("mkdir %s && mv %s %s/original", path, orig, path);
    weights_close(must_open(path, false));
    snprintf(path, sizeof path, "%s/parent/original/", top);
    weights_close(must_open(path, false));

    /* the hub's cache: names are links into blobs/, refs/main names the snapshot */
    snprintf(path, sizeof path, "%s/models--a--b", top);
    run("mkdir -p %s/refs %s/blobs %s/snapshots/abc123; printf abc123 > %s/refs/main; cd %s; "
        "for f in %s/*; do b=$(basename $f); mv $f blobs/x$b; ln -s ../../blobs/x$b "
        "snapshots/abc123/$b; done",
        path, path, path, path, path, hf);
    struct weights *w = must_open(path, true);
    assert_non_null(strstr(w->dir, "snapshots/abc123"));
    weights_close(w);
    snprintf(path, sizeof path, "%s/models--a--b/snapshots/abc123", top);
    weights_close(must_open(path, false));
    snprintf(path, sizeof path, "%s/models--a--b", top);
    run("printf ../../etc > %s/refs/main", path);
    must_fail(path, false, E_FORMAT, "does not name a snapshot");
    run("printf gone > %s/refs/main", path);
    must_fail(path, false, E_NOENT, "safetensors");

    must_fail("/nonexistent/model", false, E_NOENT, "no such folder");
    must_fail("/etc/passwd", false, E_INPUT, "not a folder");
    run("mkdir %s/empty", top);
    snprintf(path, sizeof path, "%s/empty", top);
    must_fail(path, false, E_NOENT, "no *.safetensors");
    run("touch %s/empty/model.safetensors", top);
    must_fail(path, false, E_NOENT, "config.json");
}

/* Case 4: what a file name may lead to. */
static void file_kinds(void **state)
{
    (void)state;
    char file[256];
    const char *dir = make(0, 0);
    snprintf(file, sizeof file, "%s/model.safetensors", dir);
    run("mv %s %s.real; mkfifo %s", file, file, file);
    must_fail(dir, false, E_FORMAT, "not a regular file");
    run("rm %s; mkdir %s", file, file);
    must_fail(dir, false, E_FORMAT, "not a regular file");
    run("rmdir %s; ln -s /dev/zero %s", file, file);
    must_fail(dir, false, E_FORMAT, "not a regular file");
    run("rm %s; ln -s gone %s", file, file);
    must_fail(dir, false, E_NOENT, "cannot open");
    run("rm %s; ln -s model.safetensors %s", file, file);
    must_fail(dir, false, E_IO, "cannot open");
    run("rm %s; ln -s model.safetensors.real %s", file, file);
    weights_close(must_open(dir, false));
    run("rm %s/config.json; mkfifo %s/config.json", dir, dir);
    must_fail(dir, false, E_FORMAT, "config.json");
}

static void index_file(void **state)
{
    (void)state;
    char path[256];
    const char *dir = make(0, 0);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    static const struct {
        const char *map;
        status code;
        const char *says;
    } bad[] = {
        {"{}", E_FORMAT, "weight_map"},
        {"{\"weight_map\":[]}", E_FORMAT, "weight_map"},
        {"{\"weight_map\":{\"a\":1}}", E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"../../etc/passwd\"}}", E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}", E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"\"}}", E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"model.safetensors\\u0000\"}}", E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"config.json\"}}", E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"other.safetensors\"}}", E_NOENT, "other.safetensors"},
        {"{\"weight_map\":{\"a\":\"model.safetensors\"}}", E_FORMAT, "tensor a is not in"},
        {"{\"weight_map\":{}}", E_FORMAT, "missing"},
        {"{\"weight_map\":{\"lm_head.weight\":\"model.safetensors\"}}", E_FORMAT,
         "is not in the index"},
        {"{\"weight_map\":", E_FORMAT, "invalid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e;
        assert_int_equal(file_save(path, bad[i].map, strlen(bad[i].map), &e), OK);
        must_fail(dir, false, bad[i].code, bad[i].says);
    }
    unlink(path);
    weights_close(must_open(dir, false));
    run("cp %s/model.safetensors %s/more.safetensors", dir, dir);
    must_fail(dir, false, E_FORMAT, "is both in model.safetensors and in more.safetensors");
}

/* Case 5: the configuration and the tensors must be one model. */
static void wrong_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *sed, *says;
    } bad[] = {
        {"s/\"num_local_experts\": 4/\"num_local_experts\": 128/", "has shape [4"},
        {"s/\"hidden_size\": 64/\"hidden_size\": 2881/", "2881 is not a multiple of 32"},
        {"s/\"hidden_size\": 64/\"hidden_size\": 96/", "the configuration asks for [40, 96]"},
        {"s/\"intermediate_size\": 32/\"intermediate_size\": 64/", "has shape"},
        {"s/\"vocab_size\": 40/\"vocab_size\": 41/", "the configuration asks for [41, 64]"},
        {"s/\"num_key_value_heads\": 1/\"num_key_value_heads\": 2/", "k_proj"},
        {"s/\"head_dim\": 64/\"head_dim\": 32/", "q_proj"},
        {"s/\"tie_word_embeddings\": false/\"tie_word_embeddings\": true/",
         "lm_head.weight is not part"},
        {"s/\"num_hidden_layers\": 2/\"num_hidden_layers\": 1/;/full_attention/d;"
         "s/\"sliding_attention\",/\"sliding_attention\"/",
         "is not part of a model"},
        {"s/\"num_hidden_layers\": 2/\"num_hidden_layers\": 3/;"
         "s/\"full_attention\"/\"full_attention\",\"full_attention\"/",
         "model.layers.2.input_layernorm.weight is missing"},
        {"s/gpt_oss/llama/", "llama"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *dir = make(0, 0);
        edit(dir, "config.json", bad[i].sed);
        must_fail(dir, false, E_FORMAT, bad[i].says);
    }
    /* a renamed tensor: one missing, one left over; both named */
    const char *dir = make(0, 0);
    edit(dir, "model.safetensors",
         "1s/layers.1.self_attn.sinks/layers.1.self_attn.stinks/;"
         "1s/\"__metadata__\":{\"format\":\"pt\"},/\"__metadata__\":{\"format\":\"p\"},/");
    must_fail(dir, false, E_FORMAT, "self_attn.sinks is missing; model.safetensors has");
    must_fail(dir, false, E_FORMAT, "stinks");
}

/* Case 6. */
static void not_numbers(void **state)
{
    (void)state;
    static const char *const always[] = {"model.norm.weight",
                                         "model.layers.1.self_attn.sinks",
                                         "model.layers.0.mlp.router.weight",
                                         "model.layers.1.mlp.router.bias",
                                         "model.layers.0.self_attn.q_proj.bias",
                                         "model.layers.0.mlp.experts.gate_up_proj_bias",
                                         "model.layers.1.post_attention_layernorm.weight"};
    static const uint16_t specials[] = {0x7fc0, 0x7f80, 0xff80, 0x7f81};
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
        const char *dir = make(0, 0);
        patch(dir, always[i], 2, &specials[i % 4], 2);
        must_fail(dir, false, E_NUMERIC, always[i]);
    }
    static const char *const when_asked[] = {"model.embed_tokens.weight", "lm_head.weight",
                                             "model.layers.1.self_attn.o_proj.weight"};
    for (size_t i = 0; i < sizeof when_asked / sizeof when_asked[0]; i++) {
        const char *dir = make(0, 0);
        patch(dir, when_asked[i], 64 * 40 * 2 - 2 * (i + 1), &specials[i], 2);
        weights_close(must_open(dir, false));
        must_fail(dir, true, E_NUMERIC, when_asked[i]);
    }
    const char *dir = make(0, 0);
    uint8_t scale = 255;
    patch(dir, "model.layers.1.mlp.experts.down_proj_scales", 200, &scale, 1);
    weights_close(must_open(dir, false));
    must_fail(dir, true, E_NUMERIC, "down_proj_scales holds a scale of 255");
    dir = make(0, 1);
    patch(dir, "model.layers.0.mlp.experts.down_proj", 4000, &specials[1], 2);
    weights_close(must_open(dir, false));
    must_fail(dir, true, E_NUMERIC, "experts.down_proj");
    dir = make(0, 0);
    scale = 254;
    patch(dir, "model.layers.1.mlp.experts.down_proj_scales", 0, &scale, 1);
    weights_close(must_open(dir, true));
}

/* Case 7: a mapped file that shrinks ends the process with 70 and its name. */
static void truncated_while_mapped(void **state)
{
    (void)state;
    const char *dir = make(0, 0);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        struct weights *w;
        struct err e;
        char path[256];
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        alarm(20);
        if (weights_open(dir, NULL, &w, &e) < 0 || truncate(path, 4096) != 0)
            _exit(1);
        float row[64], sum = 0;
        for (int i = 0; i < 40; i++) {
            mat_row(&w->unembed, i, row);
            sum += row[0];
        }
        _exit(sum == 0 ? 2 : 3);
    }
    close(fds[1]);
    char said[512] = "";
    size_t n = 0;
    for (ssize_t k; n + 1 < sizeof said && (k = read(fds[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)k;
    close(fds[0]);
    int code;
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 70);
    assert_non_null(strstr(said, "model.safetensors: the file was cut short"));
}

/* A copy in memory of our own has the same bytes in every tensor, outlives a file that is cut
 * short, and keeps what is released: nothing could bring it back. */
static void copied(void **state)
{
    (void)state;
    const char *dir = make(0, 0);
    struct weights *a = must_open(dir, false), *b[2];
    struct err e = {0};
    char path[256];
    static const enum load_mode modes[] = {LOAD_HUGE, LOAD_AUTO};
    for (int k = 0; k < 2; k++) {
        if (weights_open(dir, &(struct weights_opts){.mode = modes[k]}, &b[k], &e) < 0)
            fail_msg("%s", e.msg);
        assert_int_equal(weights_count(a), weights_count(b[k]));
        for (int i = 0; i < weights_count(a); i++) {
            const struct st_tensor *x = weights_at(a, i), *y = weights_at(b[k], i);
            assert_ptr_not_equal(x->p, y->p);
            assert_memory_equal(x->p, y->p, x->n_bytes);
        }
    }
    weights_close(a);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(truncate(path, 4096), 0);
    const struct mat *m = &b[0]->unembed;
    weights_release(b[0], m->p, (size_t)m->n_out * (size_t)m->n_in * dtype_size(m->dtype));
    float row[64], sum = 0;
    for (int i = 0; i < 40; i++) {
        mat_row(m, i, row);
        sum += row[0] * row[0];
    }
    assert_true(sum > 0);
    weights_close(b[0]);
    weights_close(b[1]);
}

static void rows_agree_between_layouts(void **state)
{
    (void)state;
    /* the same experts input-major and, transposed by hand, output-major */
    uint16_t in_major[3 * 2], out_major[2 * 3];
    float a[3], b[3];
    for (int j = 0; j < 3; j++)
        for (int o = 0; o < 2; o++)
            in_major[j * 2 + o] = out_major[o * 3 + j] = f32_bf16((float)(10 * o + j));
    const uint8_t *pi = (const uint8_t *)in_major, *po = (const uint8_t *)out_major;
    struct expert_mat mi = {EXPERT_IN_MAJOR, DT_BF16, 2, 3, &pi, NULL};
    struct expert_mat mo = {EXPERT_OUT_MAJOR, DT_BF16, 2, 3, &po, NULL};
    for (int o = 0; o < 2; o++) {
        expert_row(&mi, 0, o, a);
        expert_row(&mo, 0, o, b);
        assert_memory_equal(a, b, sizeof a);
        assert_true(a[2] == (float)(10 * o + 2));
    }
}

static void allocation_failures(void **state)
{
    (void)state;
    const char *dirs[2] = {make(0, 0), make(1, 1)};
    for (int k = 0; k < 2; k++) {
        struct weights *w = NULL;
        struct err e;
        status st = E_NOMEM;
        long n = 0;
        while (st != OK) {
            mem_fault_at(++n);
            st = weights_open(dirs[k], NULL, &w, &e);
            mem_fault_at(0);
            if (st != OK && st != E_NOMEM)
                fail_msg("allocation %ld: %d %s", n, st, e.msg);
            assert_true(n < 2000);
        }
        printf("%ld allocations, each failed once\n", n - 1);
        weights_close(w);
    }
}

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/gloss-weights-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    run("rm -rf %s", top);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_layouts),
        cmocka_unit_test(folders),
        cmocka_unit_test(file_kinds),
        cmocka_unit_test(index_file),
        cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(not_numbers),
        cmocka_unit_test(truncated_while_mapped),
        cmocka_unit_test(copied),
        cmocka_unit_test(rows_agree_between_layouts),
        cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests_name("weights", tests, setup, teardown);
}
