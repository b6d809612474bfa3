/* Opens libgloss-cuda.so at run time: the same gloss runs with and without a card. */
#include "base/dynlib.h"
#include "model/backend.h"

#include <dlfcn.h>
#include <string.h>

status backend_cuda_open(const struct weights *w, const struct backend_opts *opts,
                         struct backend **out, struct err *e)
{
    static void *lib; /* stays open: a CUDA library does not unload cleanly */
    *out = NULL;
    if (!lib)
        lib = dynlib_open("libgloss-cuda.so");
    if (!lib) {
        const char *why = dlerror();
        return err_set(e, E_DEVICE, "no CUDA backend here (make CUDA=1 builds it): %s",
                       why ? why : "libgloss-cuda.so was not found");
    }
    /* cpu: for layers whose experts the card has no room for */
    status (*fn)(const char *abi, const struct weights *, const struct backend_opts *,
                 status (*cpu)(const struct weights *, const struct backend_opts *,
                               struct backend **, struct err *),
                 struct backend **, struct err *);
    void *sym = dlsym(lib, "cuda_backend_open");
    if (!sym)
        return err_set(e, E_DEVICE, "libgloss-cuda.so is not gloss's: make CUDA=1 builds it");
    memcpy(&fn, &sym, sizeof fn);
    return fn(BACKEND_CUDA_ABI, w, opts, backend_cpu_open, out, e);
}
