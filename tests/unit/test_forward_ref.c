/* The reference forward against transformers in float32, over the fixtures of tests/golden/logits:
 * within 1e-4 of the logit scale (issue: "reference forward within 1e-4"). */
#include "ref/forward_ref.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void logits_agree(void **state)
{
    int i = (int)(intptr_t)*state;
    struct fixture f;
    struct err e = {0};
    struct weights *w;
    char dir[FIXTURE_PATH];
    fixture_load(i, &f);
    fixture_checkpoint(&f, dir);
    status st = weights_open(dir, &(struct weights_opts){.check_all = true}, &w, &e);
    fixture_remove(&f, dir);
    if (st < 0)
        fail_msg("%s: %s", f.name, e.msg);

    /* The stored rows of a long prompt are its last ones: run those alone. */
    size_t n_vocab = (size_t)f.spec.n_vocab;
    float *all = mem_array((size_t)f.n_tok * n_vocab, sizeof *all);
    float *got = mem_array((size_t)f.n_row * n_vocab, sizeof *got);
    assert_non_null(all);
    assert_non_null(got);
    if (forward_ref(w, f.tok, f.n_tok, false, all, &e) < 0)
        fail_msg("%s: %s", f.name, e.msg);
    for (int r = 0; r < f.n_row; r++)
        memcpy(got + (size_t)r * n_vocab, all + (size_t)f.row[r] * n_vocab, n_vocab * sizeof *got);
    double rms, max;
    fixture_error(&f, got, &rms, &max);
    printf("%-20s n %4d  scale %7.3f  rms %.1e  max %.1e of the scale\n", f.name, f.n_tok, f.scale,
           rms / f.scale, max / f.scale);
    assert_true(max <= 1e-4 * f.scale);

    /* last_only gives the same last row. */
    if (f.n_tok <= 512) {
        assert_int_equal(forward_ref(w, f.tok, f.n_tok, true, got, &e), OK);
        assert_memory_equal(got, all + ((size_t)f.n_tok - 1) * n_vocab, n_vocab * sizeof *got);
    }
    mem_free(all);
    mem_free(got);
    weights_close(w);
    fixture_free(&f);
}

int main(void)
{
    return fixture_run_each("forward_ref", logits_agree);
}
