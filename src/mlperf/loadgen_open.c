/* Opens libgloss-loadgen.so at run time: beside the program, as make builds it,
 * in lib beside bin, as make installs it, then where the system looks. */
#include "mlperf/loadgen_open.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static const char how[] = "'scripts/deps.sh mlperf && make' gets and builds it";

/* At `place` of the program's own folder; NULL when there is none, or it does not load. */
static void *open_beside(const char *place, bool *there)
{
    char path[PATH_MAX];
    size_t n_place = strlen(place) + 1;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - n_place - 1);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (!slash)
        return NULL;
    memcpy(slash + 1, place, n_place);
    *there = access(path, F_OK) == 0;
    return *there ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

/* One that is there but does not load is the error to report. */
static void *open_library(void)
{
    bool there = false;
    void *lib = open_beside("libgloss-loadgen.so", &there);
    if (!lib && !there)
        lib = open_beside("../lib/libgloss-loadgen.so", &there);
    return lib || there ? lib : dlopen("libgloss-loadgen.so", RTLD_NOW | RTLD_LOCAL);
}

status loadgen_open(const struct loadgen **out, struct err *e)
{
    *out = NULL;
    void *lib = open_library(); /* stays open: LoadGen has threads and a logger of its own */
    if (!lib) {
        const char *why = dlerror();
        return err_set(e, E_NOENT, "MLCommons LoadGen is not here; %s (%.120s)", how,
                       why ? why : "libgloss-loadgen.so was not found");
    }
    const struct loadgen *(*fn)(const char *abi);
    void *sym = dlsym(lib, "gloss_loadgen");
    if (sym)
        memcpy(&fn, &sym, sizeof fn);
    *out = sym ? fn(LOADGEN_ABI) : NULL;
    if (!*out)
        return err_set(e, E_NOENT, "libgloss-loadgen.so is of another version of gloss; %s", how);
    return OK;
}
