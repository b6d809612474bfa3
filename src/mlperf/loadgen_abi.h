/* MLCommons LoadGen as C sees it: the one interface between the benchmark and the C++ library.
 *
 * LoadGen lives in libgloss-loadgen.so (loadgen_shim.cc and LoadGen's own sources), opened at run
 * time, so that the same gloss runs with and without it. LOADGEN_ABI changes with these structs.
 * The callbacks of a test come on LoadGen's thread and must not block; complete and first_token may
 * be called on any thread while `run` is at work.
 */
#ifndef MLPERF_LOADGEN_ABI_H
#define MLPERF_LOADGEN_ABI_H

#include <stddef.h>
#include <stdint.h>

#define LOADGEN_ABI "gloss-loadgen-1"

/* A sample that LoadGen wants computed: its own id, and the row of the data set. */
struct loadgen_sample {
    uintptr_t id;
    size_t index;
};

struct loadgen_response {
    uintptr_t id;
    const int32_t *ids; /* [n_ids] copied before the call returns */
    size_t n_ids;
    int64_t n_tokens; /* what is counted */
};

struct loadgen_test {
    const char *model;        /* "gpt-oss-120b": the first part of the keys in the conf files */
    const char *scenario;     /* "Offline" or "Server" */
    int accuracy;             /* every row once, answers logged; else performance */
    const char *mlperf_conf;  /* NULL: the one compiled into LoadGen */
    const char *user_conf;    /* NULL: none */
    const char *audit_config; /* a file that need not exist */
    const char *outdir;       /* folder of the log files */
    const char *sut_name, *qsl_name;
    int trace;      /* write mlperf_log_trace.json's content too */
    size_t n_total; /* rows of the data set */
    void *ctx;
    void (*issue)(void *ctx, const struct loadgen_sample *, size_t n);
    void (*flush)(void *ctx); /* no more samples follow until the next issue */
};

struct loadgen {
    /* Runs a test to its end. 0, or -1 with a line in why. */
    int (*run)(const struct loadgen_test *, char *why, size_t cap);
    void (*first_token)(const struct loadgen_response *);
    void (*complete)(const struct loadgen_response *);
};

#ifdef __cplusplus
extern "C"
#endif
    /* What the shared object exports; NULL for another LOADGEN_ABI. */
    const struct loadgen *
    gloss_loadgen(const char *abi);

#endif
