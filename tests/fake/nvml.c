/* A stand-in for NVIDIA's management library, with one card whose readings the tests know.
 *
 *   FAKE_NVML_MW       its draw in milliwatts; a list "100000,300000" is gone through in a circle
 *   FAKE_NVML_STEP_MJ  what its energy counter gains at each reading; unset: the first draw of the
 *                      list times the time since the start, as a real one
 *   FAKE_NVML_DEAD     every call fails
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

enum { FAILED = 999 };

static int card; /* its handle is this variable's address */

static int dead(void)
{
    return getenv("FAKE_NVML_DEAD") ? FAILED : 0;
}

static unsigned nth_draw(unsigned i)
{
    const char *s = getenv("FAKE_NVML_MW");
    unsigned v[16], n = 0;
    while (s && *s && n < 16) {
        char *end;
        v[n++] = (unsigned)strtoul(s, &end, 10);
        s = *end ? end + 1 : end;
    }
    return n ? v[i % n] : 0;
}

EXPORT int nvmlInit_v2(void)
{
    return dead();
}

EXPORT int nvmlShutdown(void)
{
    return dead();
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **to)
{
    *to = &card;
    return i == 0 ? dead() : FAILED;
}

EXPORT int nvmlDeviceGetName(void *c, char *to, unsigned cap)
{
    snprintf(to, cap, "Fake Card");
    return c == &card ? dead() : FAILED;
}

EXPORT int nvmlDeviceGetPowerUsage(void *c, unsigned *mw)
{
    static unsigned n_call;
    *mw = nth_draw(__atomic_fetch_add(&n_call, 1, __ATOMIC_RELAXED));
    return c == &card ? dead() : FAILED;
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(void *c, unsigned long long *mj)
{
    static unsigned long long n_call;
    const char *step = getenv("FAKE_NVML_STEP_MJ");
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (step)
        *mj = strtoull(step, NULL, 10) * __atomic_add_fetch(&n_call, 1, __ATOMIC_RELAXED);
    else
        *mj = (unsigned long long)(nth_draw(0) * ((double)t.tv_sec + (double)t.tv_nsec * 1e-9));
    return c == &card ? dead() : FAILED;
}

EXPORT int nvmlDeviceGetUtilizationRates(void *c, unsigned v[2])
{
    v[0] = 73;
    v[1] = 41;
    return c == &card ? dead() : FAILED;
}

EXPORT int nvmlDeviceGetMemoryInfo(void *c, unsigned long long v[3])
{
    v[0] = 80ull << 30;
    v[1] = 55ull << 30;
    v[2] = 25ull << 30;
    return c == &card ? dead() : FAILED;
}
