#include "base/dynlib.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void *dynlib_open(const char *name)
{
    static const char *const places[] = {"", "../lib/"};
    char self[PATH_MAX], path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    const char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;
    for (int i = 0; slash && i < 2; i++) {
        int len =
            snprintf(path, sizeof path, "%.*s/%s%s", (int)(slash - self), self, places[i], name);
        if (len < 0 || (size_t)len >= sizeof path)
            continue;
        void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (lib || access(path, F_OK) == 0)
            return lib;
    }
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
}
