#include "base/sysmem.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* The beginning of a small file as text; "" when it can't be read. */
static void read_text(const char *path, char *to, size_t cap)
{
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, to, cap - 1);
        close(fd);
    }
    to[n > 0 ? n : 0] = '\0';
}

/* The number at s, behind blanks; -1 when there is none ("max"). */
static int64_t number(const char *s)
{
    int64_t v = 0;
    while (*s == ' ')
        s++;
    if (*s < '0' || *s > '9')
        return -1;
    for (; *s >= '0' && *s <= '9' && v < INT64_MAX / 16; s++)
        v = v * 10 + (*s - '0');
    return v;
}

size_t sysmem_available(void)
{
    char text[4096];
    int64_t best = -1;
    read_text("/proc/meminfo", text, sizeof text);
    const char *line = strstr(text, "MemAvailable:");
    if (line)
        best = number(line + strlen("MemAvailable:")) * 1024;
    read_text("/sys/fs/cgroup/memory.max", text, sizeof text);
    int64_t max = number(text);
    read_text("/sys/fs/cgroup/memory.current", text, sizeof text);
    int64_t now = number(text);
    if (max >= 0 && now >= 0 && (best < 0 || max - now < best))
        best = max > now ? max - now : 0;
    return best > 0 ? (size_t)best : 0;
}
