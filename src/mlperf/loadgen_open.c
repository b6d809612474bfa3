/* Opens libgloss-loadgen.so at run time: beside the program, then where the system looks. */
#include "mlperf/loadgen_open.h"

#include <dlfcn.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const char how[] = "'scripts/deps.sh mlperf && make' gets and builds it";

static void *open_library(void)
{
    static const char name[] = "libgloss-loadgen.so";
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof name - 1);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (slash) {
        memcpy(slash + 1, name, sizeof name);
        void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (lib || access(path, F_OK) == 0)
            return lib; /* one that is there but does not load is the error to report */
    }
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
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
