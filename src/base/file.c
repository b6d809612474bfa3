#include "base/file.h"
#include "base/num.h"
#include "base/numa.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static status os_error(struct err *e, const char *path, const char *what)
{
    int en = errno;
    status code = en == ENOENT || en == ENOTDIR ? E_NOENT : en == ENOMEM ? E_NOMEM : E_IO;
    return err_set(e, code, "%s: %s: %s", path, what, strerror(en));
}

/* Opens a regular file. O_NONBLOCK keeps a FIFO from blocking the open before we can refuse it. */
static status open_regular(const char *path, int *fd, struct stat *sb, struct err *e)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0)
        return os_error(e, path, "cannot open");
    if (fstat(*fd, sb) != 0 || !S_ISREG(sb->st_mode)) {
        close(*fd);
        *fd = -1;
        return err_set(e, E_INPUT, "%s: not a regular file", path);
    }
    return OK;
}

status file_read(const char *path, struct buf *b, struct err *e)
{
    int fd = STDIN_FILENO;
    bool is_stdin = strcmp(path, "-") == 0;
    struct stat sb;
    if (!is_stdin) {
        status st = open_regular(path, &fd, &sb, e);
        if (st < 0)
            return st;
    }
    status st = OK;
    for (;;) {
        size_t room = b->max - b->n < 65536 ? b->max - b->n + 1 : 65536;
        char tmp[65536];
        ssize_t n = read(fd, tmp, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            st = os_error(e, path, "cannot read");
        if (n <= 0)
            break;
        buf_put(b, tmp, (size_t)n);
        if (b->st < 0) {
            st = b->st == E_LIMIT ? err_set(e, E_LIMIT, "%s: larger than %zu bytes", path, b->max)
                                  : err_set(e, b->st, "%s: out of memory", path);
            break;
        }
    }
    if (!is_stdin)
        close(fd);
    return st;
}

status file_map(const char *path, struct file_map *m, struct err *e)
{
    *m = (struct file_map){0};
    int fd;
    struct stat sb;
    status st = open_regular(path, &fd, &sb, e);
    if (st < 0)
        return st;
    if (sb.st_size > 0) {
        void *p = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            st = os_error(e, path, "cannot map");
        else
            *m = (struct file_map){.p = p, .n = (size_t)sb.st_size};
    }
    close(fd);
    return st;
}

/* n bytes of new memory that begin on a huge page, or NULL. */
static uint8_t *huge_pages(size_t n)
{
    enum { HUGE_PAGE = 2 << 20 };
    size_t room;
    if (!add_ok(n, HUGE_PAGE, &room))
        return NULL;
    uint8_t *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), end = (n + page - 1) / page * page;
    size_t head = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (head)
        munmap(p, head);
    if (room - head > end)
        munmap(p + head + end, room - head - end);
    (void)madvise(p + head, n, MADV_HUGEPAGE); /* without these slower only */
    (void)numa_spread(p + head, n);
    return p + head;
}

status file_copy(const char *path, struct file_map *m, struct err *e)
{
    enum { PIECE = 1 << 30 }; /* a single read has a limit of the system's */
    *m = (struct file_map){0};
    int fd;
    struct stat sb;
    status st = open_regular(path, &fd, &sb, e);
    if (st < 0)
        return st;
    size_t n = (size_t)sb.st_size, at = 0;
    uint8_t *p = n ? huge_pages(n) : NULL;
    if (n && !p)
        st = err_set(e, E_NOMEM, "%s: no memory for a copy of %.1f MiB", path,
                     (double)n / (1 << 20));
    while (st == OK && at < n) {
        ssize_t got = read(fd, p + at, n - at < PIECE ? n - at : PIECE);
        if (got < 0 && errno != EINTR)
            st = os_error(e, path, "cannot read");
        if (got == 0)
            st = err_set(e, E_IO, "%s: shrank while it was read", path);
        at += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (st < 0 && p)
        munmap(p, n);
    if (st == OK && p) {
        (void)mprotect(p, n, PROT_READ); /* as a mapping: nobody writes */
        *m = (struct file_map){.p = p, .n = n, .copied = true};
    }
    return st;
}

void file_unmap(struct file_map *m)
{
    if (m->p)
        munmap((void *)(uintptr_t)m->p, m->n);
    *m = (struct file_map){0};
}

void file_release(const struct file_map *m, const void *p, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), lo = (uintptr_t)p, hi = lo + n;
    uintptr_t first = (uintptr_t)m->p;
    if (!m->p || m->copied || lo < first || hi > first + m->n || n == 0)
        return;
    lo = (lo + page - 1) / page * page;
    hi = hi / page * page;
    if (lo < hi)
        (void)madvise((void *)lo, hi - lo, MADV_DONTNEED); /* only memory is at stake */
}

status file_begin(struct file_new *w, const char *path, struct err *e)
{
    w->f = NULL;
    w->fault = 0;
    w->lazy = false;
    int n = snprintf(w->path, sizeof w->path, "%s", path);
    int m = snprintf(w->tmp, sizeof w->tmp, "%s.tmp-%ld", path, (long)getpid());
    if (n >= (int)sizeof w->path || m >= (int)sizeof w->tmp)
        return err_set(e, E_INPUT, "path too long");
    int fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return os_error(e, path, "cannot create");
    w->f = fdopen(fd, "wb");
    if (!w->f) {
        close(fd);
        unlink(w->tmp);
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    }
    return OK;
}

void file_write(struct file_new *w, const void *p, size_t n)
{
    if (n && fwrite(p, 1, n, w->f) != n && !w->fault)
        w->fault = errno ? errno : EIO;
}

void file_abort(struct file_new *w)
{
    if (!w->f)
        return;
    fclose(w->f);
    w->f = NULL;
    unlink(w->tmp);
}

/* A rename is durable once its folder is synced. */
static void sync_folder_of(const char *path)
{
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

status file_commit(struct file_new *w, struct err *e)
{
    if (!w->fault && fflush(w->f) != 0)
        w->fault = errno;
    if (!w->fault && !w->lazy && fsync(fileno(w->f)) != 0)
        w->fault = errno;
    if (!w->fault && rename(w->tmp, w->path) != 0)
        w->fault = errno;
    if (w->fault) {
        int en = w->fault;
        file_abort(w);
        errno = en;
        return os_error(e, w->path, "cannot write");
    }
    fclose(w->f);
    w->f = NULL;
    if (!w->lazy)
        sync_folder_of(w->path);
    return OK;
}

status file_save(const char *path, const void *p, size_t n, struct err *e)
{
    struct file_new w;
    status st = file_begin(&w, path, e);
    if (st < 0)
        return st;
    file_write(&w, p, n);
    return file_commit(&w, e);
}

status file_mkdir(const char *path, struct err *e)
{
    if (mkdir(path, 0755) == 0 || (errno == EEXIST && file_is_dir(path)))
        return OK;
    return os_error(e, path, "cannot make the folder");
}

bool file_is_dir(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool file_exists(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0;
}
