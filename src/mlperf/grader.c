#include "mlperf/grader.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Both ends are files without names, so that neither side can wait for the other. */
static status run(const char *command, FILE *in, FILE *out, struct err *e)
{
    posix_spawn_file_actions_t act;
    char *const argv[] = {"sh", "-c", (char *)(uintptr_t)command, NULL};
    pid_t pid;
    int code = 0;
    posix_spawn_file_actions_init(&act);
    posix_spawn_file_actions_adddup2(&act, fileno(in), 0);
    posix_spawn_file_actions_adddup2(&act, fileno(out), 1);
    int bad = posix_spawn(&pid, "/bin/sh", &act, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&act);
    if (bad)
        return err_set(e, E_IO, "cannot run the grader: %s", strerror(bad));
    while (waitpid(pid, &code, 0) < 0)
        if (errno != EINTR)
            return err_set(e, E_IO, "cannot wait for the grader");
    if (!WIFEXITED(code) || WEXITSTATUS(code) != 0)
        return err_set(e, E_IO, "the grader '%.100s' failed with status %d", command,
                       WIFEXITED(code) ? WEXITSTATUS(code) : 128 + WTERMSIG(code));
    return OK;
}

status grader_run(const char *command, const struct buf *programs, struct buf *verdicts,
                  struct err *e)
{
    FILE *in = tmpfile(), *out = tmpfile();
    status st = OK;
    if (!in || !out || fwrite(programs->p, 1, programs->n, in) != programs->n || fflush(in) != 0)
        TRY(err_set(e, E_IO, "cannot write a temporary file for the grader: %s", strerror(errno)));
    rewind(in);
    TRY(run(command, in, out, e));
    rewind(out);
    for (size_t n = 1; n > 0;) {
        char *to = buf_room(verdicts, 1 << 16);
        if (!to)
            TRY(err_set(e, buf_status(verdicts), "the grader's output is too large"));
        n = fread(to, 1, 1 << 16, out);
        verdicts->n += n;
        verdicts->p[verdicts->n] = 0;
    }
out:
    if (in)
        fclose(in);
    if (out)
        fclose(out);
    return st;
}
