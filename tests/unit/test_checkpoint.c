/* gloss_synth and gloss_quantize: sizes, reproducibility, exactness, and that nothing is ever left
 * half-written. */
#include "base/file.h"
#include "base/folder.h"
#include "base/mem.h"
#include "gloss.h"
#include "model/mxfp4.h"
#include "model/weights.h"
#include "synth.h"

#include <dirent.h>
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

static char top[64];

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/gloss-checkpoint-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/rm", "rm", "-rf", top, (char *)NULL);
        _exit(127);
    }
    int code;
    return waitpid(pid, &code, 0) == pid && code == 0 ? 0 : -1;
}

static void in_top(char *path, const char *name)
{
    snprintf(path, 128, "%s/%s", top, name);
}

static struct gloss_synth_opts small(void)
{
    struct gloss_synth_opts o = GLOSS_INIT(struct gloss_synth_opts);
    o.n_layer = 2;
    o.n_expert = 6;
    o.d_model = 96;
    o.d_ff = 64;
    o.n_head = 4;
    o.n_kv_head = 2;
    o.n_vocab = 50;
    o.seed = 9;
    return o;
}

static void must_synth(const char *path, const struct gloss_synth_opts *o)
{
    struct gloss_err e = {0};
    if (gloss_synth(path, o, &e) < 0)
        fail_msg("%s", e.msg);
}

static struct weights *must_open(const char *dir)
{
    struct weights *w;
    struct err e = {0};
    if (weights_open(dir, &(struct weights_opts){.check_all = true}, &w, &e) < 0)
        fail_msg("%s: %s", dir, e.msg);
    return w;
}

static int files_in(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *ent; (ent = readdir(d));)
        n += ent->d_name[0] != '.';
    closedir(d);
    return n;
}

/* The sizes of model.md section 7, from the plan alone. */
static void released_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool original, bf16;
        int64_t bytes;
        int files;
    } want[] = {{"gpt-oss-20b", false, false, 13761264768, 3},
                {"gpt-oss-20b", true, false, 13761264768, 1},
                {"gpt-oss-120b", false, false, 65248815744, 15},
                {"gpt-oss-120b", true, false, 65248815744, 5},
                {"gpt-oss-20b", false, true, 2 * 20914757184, 10}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        struct shards *s;
        struct err e;
        size_t most = want[i].original ? 15000000000u : 4810000000u;
        assert_int_equal(shards_new("nowhere", most, &s, &e), OK);
        assert_int_equal(
            synth_declare(spec_known(want[i].name), want[i].original, want[i].bf16, s, &e), OK);
        printf("%s original=%d bf16=%d: %zu bytes in %d files\n", want[i].name, want[i].original,
               want[i].bf16, shards_bytes(s), shards_files(s));
        assert_true((int64_t)shards_bytes(s) == want[i].bytes);
        assert_int_equal(shards_files(s), want[i].files);
        shards_free(s);
    }
}

static void synth_is_reproducible(void **state)
{
    (void)state;
    char a[128], b[128], c[128];
    struct gloss_synth_opts o = small();
    in_top(a, "a");
    in_top(b, "b");
    in_top(c, "c");
    must_synth(a, &o);
    must_synth(b, &o);
    o.seed = 10;
    must_synth(c, &o);
    struct weights *wa = must_open(a), *wb = must_open(b), *wc = must_open(c);
    for (int i = 0; i < weights_count(wa); i++) {
        const struct st_tensor *x = weights_at(wa, i), *y = weights_at(wb, i),
                               *z = weights_at(wc, i);
        assert_string_equal(x->name, y->name);
        assert_memory_equal(x->p, y->p, x->n_bytes);
        assert_true(memcmp(x->p, z->p, x->n_bytes) != 0);
    }
    weights_close(wa);
    weights_close(wb);
    weights_close(wc);
}

/* The same shape in every layout loads, and its numbers have the intended spread. */
static void synth_layouts(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        char dir[128], name[24];
        struct gloss_synth_opts o = small();
        o.original = i & 1;
        o.bf16 = i >> 1;
        snprintf(name, sizeof name, "layout%d", i);
        in_top(dir, name);
        must_synth(dir, &o);
        struct weights *w = must_open(dir);
        assert_int_equal(w->spec.n_expert, 6);
        assert_int_equal(w->spec.d_ff, 64);
        double sum = 0;
        float row[96];
        for (int e = 0; e < 6; e++)
            for (int k = 0; k < 128; k++) {
                expert_row(&w->layer[1].gate_up, e, k, row);
                for (int j = 0; j < 96; j++)
                    sum += (double)row[j] * row[j];
            }
        double sigma = sqrt(sum / (6 * 128 * 96)) * sqrt(96);
        assert_true(sigma > 0.7 && sigma < 2.5);
        weights_close(w);
    }
}

static int stop_at_once(void *ctx, int64_t done, int64_t total)
{
    assert_true(done > 0 && done <= total);
    return ++*(int *)ctx >= 3;
}

static void synth_refusals(void **state)
{
    (void)state;
    char dir[128];
    struct gloss_err e;
    int calls = 0, before = files_in(top);
    in_top(dir, "refused");
    struct gloss_synth_opts o = small();
    o.d_model = 2881;
    assert_int_equal(gloss_synth(dir, &o, &e), GLOSS_E_INPUT);
    assert_non_null(strstr(e.msg, "2881 is not a multiple of 32"));
    o = small();
    o.like = "llama";
    assert_int_equal(gloss_synth(dir, &o, &e), GLOSS_E_INPUT);
    o = small();
    o.n_kv_head = 3;
    assert_int_equal(gloss_synth(dir, &o, &e), GLOSS_E_INPUT);
    o = small();
    o.n_layer = -1;
    assert_int_equal(gloss_synth(dir, &o, &e), GLOSS_E_INPUT);
    assert_int_equal(gloss_synth("/etc", NULL, &e), GLOSS_E_INPUT);
    assert_non_null(strstr(e.msg, "not an empty folder"));
    assert_int_equal(gloss_synth("/nonexistent/a/b", &o, &e), GLOSS_E_INPUT);
    o = small();
    assert_int_equal(gloss_synth("/nonexistent/a/b", &o, &e), GLOSS_E_NOENT);
    o.progress = stop_at_once;
    o.ctx = &calls;
    assert_int_equal(gloss_synth(dir, &o, &e), GLOSS_E_CANCEL);
    assert_int_equal(calls, 3);
    /* 120b with 1024 experts and 256 layers fits no disk of ours: refused before a byte is written
     */
    o = (struct gloss_synth_opts)GLOSS_INIT(struct gloss_synth_opts);
    o.n_layer = 256;
    o.n_expert = 1024;
    assert_int_equal(gloss_synth(dir, &o, &e), GLOSS_E_IO);
    assert_non_null(strstr(e.msg, "GB needed"));
    assert_int_equal(files_in(top), before); /* and nothing is left behind */
}

static int count_report(void *ctx, const struct gloss_quant_report *r)
{
    int *n = ctx;
    assert_non_null(strstr(r->tensor, "experts."));
    n[0]++;
    n[1] += r->rel_rmse > 0.08 && r->rel_rmse < 0.14;
    n[2] += r->rel_rmse == 0 && r->max_abs == 0 && r->n_saturated == 0;
    return 0;
}

static status quantize(const char *src, const char *dst, int method, int rule, int *n,
                       struct gloss_err *e)
{
    struct gloss_quant_opts o = GLOSS_INIT(struct gloss_quant_opts);
    o.method = method;
    o.scale_rule = rule;
    o.report = n ? count_report : NULL;
    o.ctx = n;
    return gloss_quantize(src, dst, &o, e);
}

/* bf16 -> MXFP4 -> bf16 -> MXFP4: the first step rounds, the others are exact. */
static void quantize_round_trip(void **state)
{
    (void)state;
    char a[128], b[128], c[128], d[128], path[160];
    struct gloss_err e = {0};
    struct gloss_synth_opts o = small();
    o.bf16 = 1;
    in_top(a, "dense");
    in_top(b, "packed");
    in_top(c, "dense2");
    in_top(d, "packed2");
    must_synth(a, &o);
    static const char side[] = "{\"tokenizer\": \"\xc3\xa9\"}";
    snprintf(path, sizeof path, "%s/tokenizer.json", a);
    assert_int_equal(file_save(path, side, strlen(side), NULL), OK);
    int n[3] = {0};
    if (quantize(a, b, GLOSS_QUANT_MXFP4, 0, n, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(n[0] == 4 && n[1] == 4);
    memset(n, 0, sizeof n);
    if (quantize(b, c, GLOSS_QUANT_BF16, 0, n, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(n[0] == 4 && n[2] == 4);
    memset(n, 0, sizeof n);
    assert_int_equal(quantize(c, d, GLOSS_QUANT_MXFP4, GLOSS_SCALE_OCP, n, &e), GLOSS_OK);
    assert_true(n[0] == 4 && n[2] == 4);

    struct weights *wa = must_open(a), *wb = must_open(b), *wc = must_open(c), *wd = must_open(d);
    assert_int_equal(wb->layer[0].gate_up.layout, EXPERT_MXFP4);
    assert_int_equal(wc->layer[0].gate_up.layout, EXPERT_IN_MAJOR);
    float x[96], y[96], z[96], u[96];
    for (int l = 0; l < 2; l++)
        for (int k = 0; k < 6 * 128; k++) {
            expert_row(&wa->layer[l].gate_up, k / 128, k % 128, x);
            expert_row(&wb->layer[l].gate_up, k / 128, k % 128, y);
            expert_row(&wc->layer[l].gate_up, k / 128, k % 128, z);
            expert_row(&wd->layer[l].gate_up, k / 128, k % 128, u);
            assert_memory_equal(y, z, sizeof y);
            assert_memory_equal(y, u, sizeof y);
            /* the packed row is the source row packed by the default rule */
            uint8_t blocks[48], scales[3];
            mxfp4_pack(x, 3, MX_SEARCH, blocks, scales);
            mxfp4_unpack(blocks, scales, 3, x);
            assert_memory_equal(x, y, sizeof x);
        }
    /* everything else is untouched, side files included */
    assert_memory_equal(wa->final_norm, wb->final_norm, 96 * sizeof(float));
    assert_memory_equal(wa->unembed.p, wc->unembed.p, 50 * 96 * 2);
    assert_memory_equal(wa->layer[1].b_down, wb->layer[1].b_down, 6 * 96 * sizeof(float));
    assert_int_equal(wa->spec.n_eos, wc->spec.n_eos);
    struct buf text;
    buf_init(&text, 1 << 20);
    snprintf(path, sizeof path, "%s/tokenizer.json", d);
    assert_int_equal(file_read(path, &text, NULL), OK);
    assert_string_equal(text.p, side);
    buf_clear(&text);
    snprintf(path, sizeof path, "%s/config.json", c);
    assert_int_equal(file_read(path, &text, NULL), OK);
    assert_null(strstr(text.p, "quantization_config"));
    buf_clear(&text);
    snprintf(path, sizeof path, "%s/config.json", b);
    assert_int_equal(file_read(path, &text, NULL), OK);
    assert_non_null(strstr(text.p, "\"quant_method\": \"mxfp4\""));
    assert_non_null(strstr(text.p, "\"swiglu_limit\": 7.0")); /* numbers as written */
    buf_fini(&text);
    weights_close(wa);
    weights_close(wb);
    weights_close(wc);
    weights_close(wd);
}

static int stop_report(void *ctx, const struct gloss_quant_report *r)
{
    (void)ctx;
    (void)r;
    return 1;
}

static void quantize_refusals(void **state)
{
    (void)state;
    char packed[128], dense[128], orig[128], out[128];
    struct gloss_err e;
    struct gloss_synth_opts o = small();
    in_top(packed, "r-packed");
    in_top(dense, "r-dense");
    in_top(orig, "r-orig");
    in_top(out, "r-out");
    must_synth(packed, &o);
    o.bf16 = 1;
    must_synth(dense, &o);
    o.original = 1;
    must_synth(orig, &o);
    int before = files_in(top);
    assert_int_equal(quantize(packed, out, GLOSS_QUANT_MXFP4, 0, NULL, &e), GLOSS_E_INPUT);
    assert_non_null(strstr(e.msg, "already"));
    assert_int_equal(quantize(dense, out, GLOSS_QUANT_BF16, 0, NULL, &e), GLOSS_E_INPUT);
    assert_non_null(strstr(e.msg, "not MXFP4"));
    assert_int_equal(quantize(orig, out, GLOSS_QUANT_MXFP4, 0, NULL, &e), GLOSS_E_INPUT);
    assert_int_equal(quantize(dense, packed, GLOSS_QUANT_MXFP4, 0, NULL, &e), GLOSS_E_INPUT);
    assert_non_null(strstr(e.msg, "not an empty folder"));
    assert_int_equal(quantize("/nonexistent", out, GLOSS_QUANT_MXFP4, 0, NULL, &e), GLOSS_E_NOENT);
    assert_int_equal(quantize(dense, out, 7, 0, NULL, &e), GLOSS_E_INPUT);
    struct gloss_quant_opts stop = GLOSS_INIT(struct gloss_quant_opts);
    stop.report = stop_report;
    assert_int_equal(gloss_quantize(dense, out, &stop, &e), GLOSS_E_CANCEL);

    /* memory out at every allocation: no result, nothing left */
    status st = GLOSS_E_NOMEM;
    for (long n = 1; st != GLOSS_OK; n++) {
        mem_fault_at(n);
        st = quantize(dense, out, GLOSS_QUANT_MXFP4, 0, NULL, &e);
        mem_fault_at(0);
        if (st != GLOSS_OK && st != GLOSS_E_NOMEM)
            fail_msg("allocation %ld: %d %s", n, st, e.msg);
        assert_int_equal(files_in(top), before + (st == GLOSS_OK));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(released_sizes),      cmocka_unit_test(synth_is_reproducible),
        cmocka_unit_test(synth_layouts),       cmocka_unit_test(synth_refusals),
        cmocka_unit_test(quantize_round_trip), cmocka_unit_test(quantize_refusals),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, setup, teardown);
}
