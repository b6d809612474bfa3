#include "bench/machine.h"
#include "base/buf.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* The beginning of a file of /proc or /etc as text, "" when it can't be read. */
static void read_text(const char *path, char *to, size_t cap)
{
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 1; fd >= 0 && got > 0 && n<cap - 1; n += got> 0 ? (size_t)got : 0)
        got = read(fd, to + n, cap - 1 - n);
    if (fd >= 0)
        close(fd);
    to[n] = '\0';
}

/* The value behind "name" and the separators, up to the line's end. */
static void value_of(const char *text, const char *name, char *to, size_t cap)
{
    const char *p = strstr(text, name);
    to[0] = '\0';
    if (!p)
        return;
    p += strlen(name);
    p += strspn(p, " \t:=\"");
    snprintf(to, cap, "%.*s", (int)strcspn(p, "\"\n"), p);
}

static uint64_t kib_of(const char *path, const char *name)
{
    char text[16384], v[64];
    read_text(path, text, sizeof text);
    value_of(text, name, v, sizeof v);
    return strtoull(v, NULL, 10) * 1024;
}

void machine_read(struct machine *m)
{
    char text[16384], distribution[96];
    struct utsname u;
    cpu_set_t set;
    *m = (struct machine){0};
    read_text("/proc/cpuinfo", text, sizeof text);
    value_of(text, "model name", m->cpu, sizeof m->cpu);
    m->n_cpu = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    m->memory_bytes = kib_of("/proc/meminfo", "MemTotal");
    read_text("/sys/fs/cgroup/memory.max", text, sizeof text);
    uint64_t most = strtoull(text, NULL, 10);
    if (most > 0 && most < m->memory_bytes)
        m->memory_bytes = most;
    read_text("/etc/os-release", text, sizeof text);
    value_of(text, "PRETTY_NAME", distribution, sizeof distribution);
    if (uname(&u) == 0)
        snprintf(m->system, sizeof m->system, "%.20s %.40s %.20s, %.60s", u.sysname, u.release,
                 u.machine, distribution);
}

void machine_date(char to[32])
{
    time_t now = time(NULL);
    struct tm t;
    gmtime_r(&now, &t);
    strftime(to, 32, "%Y-%m-%dT%H:%M:%SZ", &t);
}

uint64_t machine_resident(void)
{
    return kib_of("/proc/self/status", "VmRSS");
}

uint64_t machine_peak_resident(void)
{
    return kib_of("/proc/self/status", "VmHWM");
}

void machine_reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = write(fd, "5", 1); /* without the right to, the peak is the process's */
        (void)n;
        close(fd);
    }
}
