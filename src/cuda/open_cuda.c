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
    status (*fn)(const char *abi, const struct weights *, const struct backend_opts *,
                 struct backend *, struct backend **, struct err *);
    void *sym = dlsym(lib, "cuda_backend_open");
    if (!sym)
        return err_set(e, E_DEVICE, "libgloss-cuda.so is not gloss's: make CUDA=1 builds it");
    memcpy(&fn, &sym, sizeof fn);
    struct backend *cpu = NULL; /* costs little as long as no layer is left to it */
    struct backend_opts own = {.arith = ARITH_BF16, .n_thread = opts->n_thread};
    status st = opts->n_cpu_moe ? backend_cpu_open(w, &own, &cpu, e) : OK;
    if (st == OK)
        st = fn(BACKEND_CUDA_ABI, w, opts, cpu, out, e);
    if (st < 0 && cpu)
        cpu->close(cpu);
    return st;
}
