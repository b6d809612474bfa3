#include "base/guard.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>

/* The handler may run at any moment, so a slot becomes visible by its `hi` alone, set last and
 * cleared first; writers are serialised by the lock, which the handler never takes. */
static struct {
    _Atomic uintptr_t hi; /* one past the end; 0: free */
    uintptr_t lo;
    char name[256];
} slot[GUARD_MAX];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;

static void say(const char *s)
{
    size_t n = strlen(s);
    while (n > 0) {
        ssize_t k = write(STDERR_FILENO, s, n);
        if (k <= 0)
            return;
        s += k;
        n -= (size_t)k;
    }
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    for (int i = 0; i < GUARD_MAX; i++) {
        uintptr_t hi = atomic_load(&slot[i].hi);
        if (hi && at >= slot[i].lo && at < hi) {
            say("gloss: ");
            say(slot[i].name);
            say(": the file was cut short, or its disk failed, while it was in use\n");
            _exit(GUARD_EXIT);
        }
    }
    /* Not ours: the faulting instruction runs again under the earlier handler. */
    sigaction(sig, &before, NULL);
}

status guard_add(const void *p, size_t n, const char *name, struct err *e)
{
    status st = OK;
    pthread_mutex_lock(&lock);
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction != on_bus) {
        struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
        sa.sa_sigaction = on_bus;
        sigemptyset(&sa.sa_mask);
        before = now;
        sigaction(SIGBUS, &sa, NULL);
    }
    int i = 0;
    while (i < GUARD_MAX && atomic_load(&slot[i].hi))
        i++;
    if (i == GUARD_MAX) {
        st = err_set(e, E_LIMIT, "%s: more than %d files are mapped", name, GUARD_MAX);
    } else {
        size_t len = strlen(name);
        const char *tail = len < sizeof slot[i].name ? name : name + len - sizeof slot[i].name + 1;
        snprintf(slot[i].name, sizeof slot[i].name, "%s", tail);
        slot[i].lo = (uintptr_t)p;
        atomic_store(&slot[i].hi, (uintptr_t)p + n);
    }
    pthread_mutex_unlock(&lock);
    return st;
}

void guard_remove(const void *p)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < GUARD_MAX; i++)
        if (atomic_load(&slot[i].hi) && slot[i].lo == (uintptr_t)p)
            atomic_store(&slot[i].hi, 0);
    pthread_mutex_unlock(&lock);
}
