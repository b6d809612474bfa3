/* Where the readings come from: the card's driver (NVML), its program (nvidia-smi) when the library
 * is missing, and the files energy_uj of the powercap packages. Whatever fails reads as NAN; a
 * source that was there and stops answering does so too.
 *
 * A span's samples are taken by a thread of its own, which lives from power_span_begin to
 * power_span_end. The lock guards the counters' last readings and the span's sums: power_read may
 * be called by any thread beside it.
 */
#include "base/power.h"
#include "base/clock.h"
#include "base/mem.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PACKAGE = 64, SMI_WAIT_MS = 5000 };

/* What is used of NVML; its functions return 0 for success. */
struct nvml_util {
    unsigned gpu, memory; /* per cent */
};
struct nvml_memory {
    unsigned long long total, free, used; /* bytes */
};
struct nvml {
    void *lib, *card;
    int (*init)(void);
    int (*shutdown)(void);
    int (*by_index)(unsigned i, void **card);
    int (*name)(void *card, char *to, unsigned cap);
    int (*draw)(void *card, unsigned *mw);
    int (*energy)(void *card,
                  unsigned long long *mj); /* since the driver was loaded; may be NULL */
    int (*util)(void *card, struct nvml_util *);
    int (*memory)(void *card, struct nvml_memory *);
};

struct package {
    char path[512]; /* of energy_uj */
    uint64_t last_uj, range_uj;
    double sum_j; /* since power_open */
};

/* Sums over a span: each value times the seconds it stands for. */
struct mean {
    double area, s, last;
    uint64_t t_ns;
    int n; /* readings that were numbers */
};

struct power {
    struct nvml nvml;
    bool has_nvml, has_smi;
    int i_gpu;
    double energy0_mj; /* the card's counter at power_open, NAN without one */
    struct package package[MAX_PACKAGE];
    int n_package;
    char source[16], card[96];

    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t sampler;
    bool sampling, stop;
    uint64_t period_ns;
    struct power_now begin;
    struct mean watt, gpu_util, mem_util;
};

/* ---- NVML ---- */

static bool load(void *lib, const char *name, void *fn, size_t n)
{
    void *sym = dlsym(lib, name);
    memcpy(fn, &sym, n);
    return sym != NULL;
}

static bool nvml_open(struct nvml *v, const char *lib, int i_gpu)
{
    *v = (struct nvml){.lib = dlopen(lib, RTLD_NOW | RTLD_LOCAL)};
    if (!v->lib)
        return false;
    bool all = load(v->lib, "nvmlInit_v2", &v->init, sizeof v->init) &&
               load(v->lib, "nvmlShutdown", &v->shutdown, sizeof v->shutdown) &&
               load(v->lib, "nvmlDeviceGetHandleByIndex_v2", &v->by_index, sizeof v->by_index) &&
               load(v->lib, "nvmlDeviceGetName", &v->name, sizeof v->name) &&
               load(v->lib, "nvmlDeviceGetPowerUsage", &v->draw, sizeof v->draw) &&
               load(v->lib, "nvmlDeviceGetUtilizationRates", &v->util, sizeof v->util) &&
               load(v->lib, "nvmlDeviceGetMemoryInfo", &v->memory, sizeof v->memory);
    (void)load(v->lib, "nvmlDeviceGetTotalEnergyConsumption", &v->energy, sizeof v->energy);
    bool up = all && v->init() == 0;
    if (up && v->by_index((unsigned)i_gpu, &v->card) == 0)
        return true;
    if (up)
        v->shutdown();
    dlclose(v->lib);
    *v = (struct nvml){0};
    return false;
}

static double nvml_energy_mj(const struct nvml *v)
{
    unsigned long long mj;
    return v->energy && v->energy(v->card, &mj) == 0 ? (double)mj : NAN;
}

static void nvml_read(const struct power *p, struct power_now *now)
{
    const struct nvml *v = &p->nvml;
    unsigned mw;
    struct nvml_util util;
    struct nvml_memory memory;
    if (v->draw(v->card, &mw) == 0)
        now->gpu_w = mw * 1e-3;
    now->gpu_j = (nvml_energy_mj(v) - p->energy0_mj) * 1e-3;
    if (v->util(v->card, &util) == 0) {
        now->gpu_util = util.gpu;
        now->mem_util = util.memory;
    }
    if (v->memory(v->card, &memory) == 0) {
        now->mem_used_b = (double)memory.used;
        now->mem_total_b = (double)memory.total;
    }
}

/* ---- nvidia-smi ---- */

/* What comes down the pipe until its end, at most cap - 1 bytes and SMI_WAIT_MS. */
static size_t read_pipe(int fd, char *to, size_t cap)
{
    size_t n = 0;
    uint64_t start = clock_ns();
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (n < cap - 1) {
        int left = SMI_WAIT_MS - (int)clock_ms_since(start);
        if (left <= 0 || poll(&wait, 1, left) <= 0)
            break;
        ssize_t got = read(fd, to + n, cap - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    to[n] = '\0';
    return n;
}

/* One line of values for the card, "" when the program is not there or has none. */
static bool smi_ask(int i_gpu, const char *fields, char *line, size_t cap)
{
    char id[32], query[160];
    snprintf(id, sizeof id, "--id=%d", i_gpu);
    snprintf(query, sizeof query, "--query-gpu=%s", fields);
    char name[] = "nvidia-smi", format[] = "--format=csv,noheader,nounits";
    char *argv[] = {name, id, query, format, NULL};
    int fd[2];
    pid_t child;
    line[0] = '\0';
    if (pipe2(fd, O_CLOEXEC) < 0)
        return false;
    posix_spawn_file_actions_t act;
    bool ok = posix_spawn_file_actions_init(&act) == 0;
    if (ok) {
        ok = posix_spawn_file_actions_adddup2(&act, fd[1], STDOUT_FILENO) == 0 &&
             posix_spawn_file_actions_addopen(&act, STDERR_FILENO, "/dev/null", O_WRONLY, 0) == 0 &&
             posix_spawnp(&child, name, &act, NULL, argv, environ) == 0;
        posix_spawn_file_actions_destroy(&act);
    }
    close(fd[1]);
    if (ok) {
        int rc = -1;
        read_pipe(fd[0], line, cap);
        kill(child, SIGKILL); /* it has ended, or hangs */
        ok = waitpid(child, &rc, 0) == child && line[0] != '\0';
    }
    close(fd[0]);
    line[strcspn(line, "\n")] = '\0';
    return ok;
}

/* The number at *s, which moves behind the next comma; NAN for "[N/A]" and the like. */
static double smi_number(const char **s)
{
    char *end;
    double v = strtod(*s, &end);
    if (end == *s)
        v = NAN;
    const char *comma = strchr(*s, ',');
    *s = comma ? comma + 1 : "";
    return v;
}

static void smi_read(const struct power *p, struct power_now *now)
{
    char line[256];
    if (!smi_ask(p->i_gpu, "power.draw,utilization.gpu,utilization.memory,memory.used,memory.total",
                 line, sizeof line))
        return;
    const char *s = line;
    now->gpu_w = smi_number(&s);
    now->gpu_util = smi_number(&s);
    now->mem_util = smi_number(&s);
    now->mem_used_b = smi_number(&s) * 1048576;
    now->mem_total_b = smi_number(&s) * 1048576;
}

static bool smi_open(struct power *p)
{
    char line[256];
    const char *s = line;
    if (!smi_ask(p->i_gpu, "power.draw,name", line, sizeof line) || isnan(smi_number(&s)))
        return false;
    snprintf(p->card, sizeof p->card, "%s", s + strspn(s, " "));
    return true;
}

/* ---- RAPL ---- */

static bool read_line(const char *path, char *to, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, to, cap - 1) : -1;
    if (fd >= 0)
        close(fd);
    to[n > 0 ? n : 0] = '\0';
    to[strcspn(to, "\n")] = '\0';
    return n > 0;
}

static bool read_u64(const char *path, uint64_t *v)
{
    char text[64], *end;
    if (!read_line(path, text, sizeof text))
        return false;
    *v = strtoull(text, &end, 10);
    return end != text && *end == '\0';
}

/* Zones "intel-rapl:N" (on AMD's processors too) are packages; those with a second number are
 * parts of one, and intel-rapl-mmio repeats them. */
static void rapl_open(struct power *p, const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        struct package *k = &p->package[p->n_package];
        char path[512], name[64];
        const char *colon = strchr(ent->d_name, ':');
        if (p->n_package == MAX_PACKAGE || strncmp(ent->d_name, "intel-rapl:", 11) != 0 ||
            strchr(colon + 1, ':'))
            continue;
        if ((size_t)snprintf(path, sizeof path, "%s/%s/name", folder, ent->d_name) >= sizeof path ||
            !read_line(path, name, sizeof name) || strncmp(name, "package", 7) != 0)
            continue;
        *k = (struct package){0};
        snprintf(path, sizeof path, "%s/%s/max_energy_range_uj", folder, ent->d_name);
        (void)read_u64(path, &k->range_uj); /* 0: a counter that never wraps */
        if ((size_t)snprintf(k->path, sizeof k->path, "%s/%s/energy_uj", folder, ent->d_name) <
                sizeof k->path &&
            read_u64(k->path, &k->last_uj))
            p->n_package++;
    }
    if (d)
        closedir(d);
}

static double rapl_read(struct power *p)
{
    double sum = p->n_package ? 0 : NAN;
    for (int i = 0; i < p->n_package; i++) {
        struct package *k = &p->package[i];
        uint64_t uj;
        if (!read_u64(k->path, &uj)) {
            sum = NAN;
            continue;
        }
        uint64_t more = uj >= k->last_uj ? uj - k->last_uj : uj + k->range_uj - k->last_uj;
        k->sum_j += (double)more * 1e-6;
        k->last_uj = uj;
        sum += k->sum_j;
    }
    return sum;
}

/* ---- readings ---- */

status power_open(const struct power_opts *o, struct power **out, struct err *e)
{
    struct power *p = mem_calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_set(e, E_NOMEM, "out of memory");
    p->i_gpu = o->i_gpu;
    p->energy0_mj = NAN;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (o->i_gpu >= 0) {
        p->has_nvml = nvml_open(&p->nvml, o->nvml ? o->nvml : "libnvidia-ml.so.1", o->i_gpu);
        p->has_smi = !p->has_nvml && smi_open(p);
    }
    if (p->has_nvml) {
        p->energy0_mj = nvml_energy_mj(&p->nvml);
        if (p->nvml.name(p->nvml.card, p->card, sizeof p->card) != 0)
            p->card[0] = '\0';
    }
    rapl_open(p, o->powercap ? o->powercap : "/sys/class/powercap");
    const char *gpu = p->has_nvml ? "nvml" : p->has_smi ? "nvidia-smi" : "";
    snprintf(p->source, sizeof p->source, "%s%s%s", gpu, *gpu && p->n_package ? "+" : "",
             p->n_package ? "rapl" : "");
    if (!p->source[0])
        snprintf(p->source, sizeof p->source, "none");
    *out = p;
    return OK;
}

void power_close(struct power *p)
{
    if (!p)
        return;
    if (p->sampling) {
        struct power_span dropped;
        power_span_end(p, &dropped);
    }
    if (p->has_nvml) {
        p->nvml.shutdown();
        dlclose(p->nvml.lib);
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

const char *power_source(const struct power *p)
{
    return p->source;
}

const char *power_card(const struct power *p)
{
    return p->card;
}

/* With the lock held. */
static void read_all(struct power *p, struct power_now *now)
{
    *now = (struct power_now){clock_ns(), NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    if (p->has_nvml)
        nvml_read(p, now);
    else if (p->has_smi)
        smi_read(p, now);
    now->cpu_j = rapl_read(p);
}

void power_read(struct power *p, struct power_now *now)
{
    pthread_mutex_lock(&p->lock);
    read_all(p, now);
    pthread_mutex_unlock(&p->lock);
}

/* ---- spans ---- */

static void mean_add(struct mean *m, double v, uint64_t t_ns)
{
    if (isnan(v))
        return;
    if (m->n) {
        double s = (double)(t_ns - m->t_ns) * 1e-9;
        m->area += (v + m->last) / 2 * s;
        m->s += s;
    }
    m->last = v;
    m->t_ns = t_ns;
    m->n++;
}

static double mean_of(const struct mean *m)
{
    return m->n == 0 ? NAN : m->s > 0 ? m->area / m->s : m->last;
}

static void take_sample(struct power *p, const struct power_now *now)
{
    mean_add(&p->watt, now->gpu_w, now->t_ns);
    mean_add(&p->gpu_util, now->gpu_util, now->t_ns);
    mean_add(&p->mem_util, now->mem_util, now->t_ns);
}

static void *sampler_main(void *arg)
{
    struct power *p = arg;
    uint64_t next = p->begin.t_ns;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        uint64_t now_ns = clock_ns();
        while (next <= now_ns) /* a late sample is not made up for */
            next += p->period_ns;
        struct timespec t = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        if (pthread_cond_timedwait(&p->wake, &p->lock, &t) == 0)
            continue;
        struct power_now now;
        read_all(p, &now);
        take_sample(p, &now);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

status power_span_begin(struct power *p, double hz, struct err *e)
{
    ASSERT(!p->sampling);
    p->watt = p->gpu_util = p->mem_util = (struct mean){0};
    p->stop = false;
    p->period_ns = hz > 0 ? (uint64_t)(1e9 / hz) + 1 : 0;
    power_read(p, &p->begin);
    take_sample(p, &p->begin);
    if (p->period_ns && pthread_create(&p->sampler, NULL, sampler_main, p) != 0)
        return err_set(e, E_IO, "cannot start the thread that samples the power");
    p->sampling = p->period_ns != 0;
    return OK;
}

void power_span_end(struct power *p, struct power_span *span)
{
    struct power_now end;
    if (p->sampling) {
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_signal(&p->wake);
        pthread_mutex_unlock(&p->lock);
        pthread_join(p->sampler, NULL);
        p->sampling = false;
    }
    power_read(p, &end);
    take_sample(p, &end);
    *span = (struct power_span){
        .s = (double)(end.t_ns - p->begin.t_ns) * 1e-9,
        .gpu_w = mean_of(&p->watt),
        .gpu_util = mean_of(&p->gpu_util),
        .mem_util = mean_of(&p->mem_util),
        .gpu_counter_j = end.gpu_j - p->begin.gpu_j,
        .cpu_j = end.cpu_j - p->begin.cpu_j,
        .n_sample = p->watt.n,
    };
    span->gpu_sampled_j = span->gpu_w * span->s;
}
