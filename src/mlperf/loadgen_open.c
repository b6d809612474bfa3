/* Opens libgloss-loadgen.so at run time. */
#include "mlperf/loadgen_open.h"
#include "base/dynlib.h"

#include <dlfcn.h>
#include <string.h>

static const char how[] = "'scripts/deps.sh mlperf && make' gets and builds it";

status loadgen_open(const struct loadgen **out, struct err *e)
{
    *out = NULL;
    /* Stays open: LoadGen has threads and a logger of its own. */
    void *lib = dynlib_open("libgloss-loadgen.so");
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
