#include "base/folder.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool is_empty(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *ent; d && (ent = readdir(d));)
        n += strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0;
    if (d)
        closedir(d);
    return d && n == 0;
}

status folder_begin(struct folder_new *f, const char *path, struct err *e)
{
    f->tmp[0] = '\0';
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (n == 0 || n + 32 > sizeof f->path)
        return err_set(e, E_INPUT, n ? "path too long" : "no output folder named");
    memcpy(f->path, path, n);
    f->path[n] = '\0';
    struct stat sb;
    if (lstat(f->path, &sb) == 0 && !(S_ISDIR(sb.st_mode) && is_empty(f->path)))
        return err_set(e, E_INPUT, "%s: exists and is not an empty folder", f->path);
    char tmp[sizeof f->tmp];
    snprintf(tmp, sizeof tmp, "%.*s.tmp-%ld", (int)n, f->path, (long)getpid());
    if (mkdir(tmp, 0755) != 0) {
        status code = errno == ENOENT ? E_NOENT : E_IO;
        return err_set(e, code, "%s: cannot make the folder: %s", f->path, strerror(errno));
    }
    memcpy(f->tmp, tmp, sizeof tmp);
    return OK;
}

static void sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

status folder_commit(struct folder_new *f, struct err *e)
{
    sync_folder(f->tmp);
    if (rename(f->tmp, f->path) != 0) {
        status st = err_set(e, E_IO, "%s: cannot rename: %s", f->path, strerror(errno));
        folder_abort(f);
        return st;
    }
    f->tmp[0] = '\0';
    char *slash = strrchr(f->path, '/');
    if (slash && slash != f->path)
        *slash = '\0';
    sync_folder(!slash ? "." : slash == f->path ? "/" : f->path);
    return OK;
}

void folder_abort(struct folder_new *f)
{
    if (!f->tmp[0])
        return;
    DIR *d = opendir(f->tmp);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        char path[sizeof f->tmp + 260];
        snprintf(path, sizeof path, "%s/%s", f->tmp, ent->d_name);
        unlink(path); /* "." and ".." refuse */
    }
    if (d)
        closedir(d);
    rmdir(f->tmp);
    f->tmp[0] = '\0';
}

status folder_has_room(const struct folder_new *f, uint64_t n, struct err *e)
{
    struct statvfs v;
    if (statvfs(f->tmp, &v) != 0)
        return OK; /* unknown: the write will tell */
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    if (room < n)
        return err_set(e, E_IO, "%s: %.1f GB needed, %.1f GB free on that disk", f->path,
                       (double)n * 1e-9, (double)room * 1e-9);
    return OK;
}
