/* Opens libgloss-cuda.so at run time: the same gloss runs with and without a card. Looked for
 * beside the program, in ../lib as `make install` puts it, then where the system looks.
 */
#include "model/backend.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void *open_library(void)
{
    static const char *const places[] = {"libgloss-cuda.so", "../lib/libgloss-cuda.so"};
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    for (int i = 0; slash && i < 2; i++) {
        memcpy(slash + 1, places[i], strlen(places[i]) + 1);
        void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (lib || access(path, F_OK) == 0)
            return lib; /* one that is there but does not load is the error to report */
    }
    return dlopen(places[0], RTLD_NOW | RTLD_LOCAL);
}

status backend_cuda_open(const struct weights *w, const struct backend_opts *opts,
                         struct backend **out, struct err *e)
{
    static void *lib; /* stays open: a CUDA library does not unload cleanly */
    *out = NULL;
    if (!lib)
        lib = open_library();
    if (!lib) {
        const char *why = dlerror();
        return err_set(e, E_DEVICE, "no CUDA backend here (make CUDA=1 builds it): %s",
                       why ? why : "libgloss-cuda.so was not found");
    }
    status (*fn)(const char *abi, const struct weights *, const struct backend_opts *,
                 struct backend **, struct err *);
    void *sym = dlsym(lib, "cuda_backend_open");
    if (!sym)
        return err_set(e, E_DEVICE, "libgloss-cuda.so is not gloss's: make CUDA=1 builds it");
    memcpy(&fn, &sym, sizeof fn);
    return fn(BACKEND_CUDA_ABI, w, opts, out, e);
}
