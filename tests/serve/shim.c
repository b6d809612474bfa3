/* Loaded before a server under test (LD_PRELOAD): sets the wall clock a day back while the file
 * $SHIM_BACK is there, and writes a line to $SHIM_LOG for every connection the server opens. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t shift(void)
{
    const char *path = getenv("SHIM_BACK");
    return path && access(path, F_OK) == 0 ? 86400 : 0;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec -= shift();
    return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *to)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}

int connect(int fd, const struct sockaddr *to, socklen_t n)
{
    const char *path = getenv("SHIM_LOG");
    int log = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (log >= 0) {
        dprintf(log, "connect to family %d\n", to->sa_family);
        close(log);
    }
    return (int)syscall(SYS_connect, fd, to, n);
}
