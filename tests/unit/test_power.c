#include "unit.h"

#include "base/clock.h"
#include "base/power.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/gloss-test-power-XXXXXX";
static char fake[1024]; /* the library beside this program */

static void put(const char *zone, const char *file, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, zone);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", dir, zone, file);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void remove_tree(void)
{
    const char *files[] = {"energy_uj", "name", "max_energy_range_uj", ""};
    char path[512];
    const char *zones[] = {"intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl-mmio:0",
                           "intel-rapl:2"};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 4; k++) {
            snprintf(path, sizeof path, "%s/%s/%s", dir, zones[i], files[k]);
            remove(path);
        }
}

static struct power *open_power(int i_gpu, const char *nvml)
{
    struct power_opts o = {.i_gpu = i_gpu, .nvml = nvml, .powercap = dir};
    struct power *p = NULL;
    struct err e = {0};
    if (power_open(&o, &p, &e) != OK)
        fail_msg("%s", e.msg);
    return p;
}

static int set_up(void **state)
{
    (void)state;
    ssize_t n = readlink("/proc/self/exe", fake, sizeof fake - 64);
    char *slash = n > 0 ? memrchr(fake, '/', (size_t)n) : NULL;
    if (!slash || !mkdtemp(dir))
        return -1;
    snprintf(slash, 64, "/fake/libnvidia-ml.so.1");
    setenv("PATH", dir, 1); /* no nvidia-smi but ours */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_tree();
    return rmdir(dir);
}

static void no_source_reads_as_nan(void **state)
{
    (void)state;
    struct power_now now;
    struct power_span span;
    struct err e = {0};
    struct power *p = open_power(0, "/nonexistent/libnvidia-ml.so.1");
    assert_string_equal(power_source(p), "none");
    assert_string_equal(power_card(p), "");
    power_read(p, &now);
    assert_true(isnan(now.gpu_w) && isnan(now.gpu_j) && isnan(now.cpu_j) && isnan(now.gpu_util) &&
                isnan(now.mem_util) && isnan(now.mem_used_b) && isnan(now.mem_total_b));
    assert_int_equal(power_span_begin(p, 200, &e), OK);
    power_span_end(p, &span);
    assert_true(isnan(span.gpu_w) && isnan(span.gpu_sampled_j) && isnan(span.gpu_counter_j) &&
                isnan(span.cpu_j));
    assert_int_equal(span.n_sample, 0);
    power_close(p);
    power_close(NULL);
}

static void packages_are_summed_and_unwrapped(void **state)
{
    (void)state;
    struct power_now now;
    struct power_span span;
    struct err e = {0};
    put("intel-rapl:0", "name", "package-0\n");
    put("intel-rapl:0", "max_energy_range_uj", "10000000\n");
    put("intel-rapl:0", "energy_uj", "9000000\n");
    put("intel-rapl:1", "name", "package-1\n");
    put("intel-rapl:1", "max_energy_range_uj", "10000000\n");
    put("intel-rapl:1", "energy_uj", "100\n");
    /* none of these is a package of its own */
    put("intel-rapl:0:0", "name", "core\n");
    put("intel-rapl:0:0", "energy_uj", "5\n");
    put("intel-rapl-mmio:0", "name", "package-0\n");
    put("intel-rapl-mmio:0", "energy_uj", "7\n");
    put("intel-rapl:2", "name", "psys\n");
    put("intel-rapl:2", "energy_uj", "9\n");
    struct power *p = open_power(-1, fake);
    assert_string_equal(power_source(p), "rapl");
    power_read(p, &now);
    assert_true(now.cpu_j == 0);
    assert_true(isnan(now.gpu_w));
    put("intel-rapl:0", "energy_uj", "9500000\n");
    put("intel-rapl:1", "energy_uj", "2000100\n");
    power_read(p, &now);
    assert_true(fabs(now.cpu_j - 2.5) < 1e-9);
    assert_int_equal(power_span_begin(p, 0, &e), OK);
    put("intel-rapl:0", "energy_uj", "250000\n"); /* wrapped */
    put("intel-rapl:0:0", "energy_uj", "5000000\n");
    put("intel-rapl-mmio:0", "energy_uj", "7000000\n");
    put("intel-rapl:2", "energy_uj", "9000000\n");
    power_span_end(p, &span);
    assert_true(fabs(span.cpu_j - 0.75) < 1e-9);
    power_read(p, &now);
    assert_true(fabs(now.cpu_j - 3.25) < 1e-9);
    put("intel-rapl:1", "energy_uj", "garbage\n"); /* a part is no sum */
    power_read(p, &now);
    assert_true(isnan(now.cpu_j));
    power_close(p);
    remove_tree();
}

static void card_is_read(void **state)
{
    (void)state;
    struct power_now now;
    setenv("FAKE_NVML_MW", "312500", 1);
    setenv("FAKE_NVML_STEP_MJ", "1500", 1);
    struct power *p = open_power(0, fake);
    assert_string_equal(power_source(p), "nvml");
    assert_string_equal(power_card(p), "Fake Card");
    power_read(p, &now);
    assert_true(now.gpu_w == 312.5);
    assert_true(fabs(now.gpu_j - 1.5) < 1e-9); /* the counter began at power_open */
    assert_true(now.gpu_util == 73 && now.mem_util == 41);
    assert_true(now.mem_used_b == 25.0 * (1 << 30) && now.mem_total_b == 80.0 * (1 << 30));
    assert_true(isnan(now.cpu_j));
    setenv("FAKE_NVML_DEAD", "1", 1); /* a card that falls off the bus */
    power_read(p, &now);
    assert_true(isnan(now.gpu_w) && isnan(now.gpu_j) && isnan(now.gpu_util) &&
                isnan(now.mem_used_b));
    power_close(p);
    p = open_power(0, fake);
    assert_string_equal(power_source(p), "none");
    power_close(p);
    unsetenv("FAKE_NVML_DEAD");
    p = open_power(1, fake); /* there is one card only */
    assert_string_equal(power_source(p), "none");
    power_close(p);
    p = open_power(-1, fake);
    assert_string_equal(power_source(p), "none");
    power_close(p);
}

static void ends_alone_are_a_mean(void **state)
{
    (void)state;
    struct power_span span;
    struct err e = {0};
    setenv("FAKE_NVML_STEP_MJ", "2000", 1);
    setenv("FAKE_NVML_MW", "100000,300000", 1);
    struct power *p = open_power(0, fake);
    assert_int_equal(power_span_begin(p, 0, &e), OK);
    power_span_end(p, &span);
    assert_int_equal(span.n_sample, 2);
    assert_true(fabs(span.gpu_w - 200) < 1e-9);
    assert_true(fabs(span.gpu_counter_j - 2) < 1e-9);
    assert_true(fabs(span.gpu_sampled_j - 200 * span.s) < 1e-9);
    power_close(p);
}

/* A known constant draw has known energy, whatever the times of the samples were. */
static void samples_of_a_constant_draw(void **state)
{
    (void)state;
    struct power_span span;
    struct err e = {0};
    unsetenv("FAKE_NVML_STEP_MJ");
    setenv("FAKE_NVML_MW", "250000", 1);
    put("intel-rapl:0", "name", "package-0\n");
    put("intel-rapl:0", "energy_uj", "1000000\n");
    struct power *p = open_power(0, fake);
    assert_string_equal(power_source(p), "nvml+rapl");
    for (int round = 0; round < 2; round++) { /* spans follow each other */
        uint64_t start = clock_ns();
        assert_int_equal(power_span_begin(p, 1000, &e), OK);
        put("intel-rapl:0", "energy_uj", round ? "4000000\n" : "2000000\n");
        usleep(100000);
        power_span_end(p, &span);
        double outside = (double)(clock_ns() - start) * 1e-9;
        assert_true(span.s >= 0.1 && span.s <= outside);
        assert_true(span.n_sample >= 3);
        assert_true(fabs(span.gpu_w - 250) < 1e-9);
        assert_true(fabs(span.gpu_sampled_j - 250 * span.s) < 1e-6);
        assert_true(span.gpu_counter_j >= 250 * 0.0999 && span.gpu_counter_j <= 251 * outside);
        assert_true(fabs(span.gpu_util - 73) < 1e-9 && fabs(span.mem_util - 41) < 1e-9);
        assert_true(fabs(span.cpu_j - (round ? 2 : 1)) < 1e-9);
    }
    assert_int_equal(power_span_begin(p, 1000, &e), OK);
    power_close(p); /* ends the span */
    remove_tree();
}

/* Where the library is missing, nvidia-smi is asked; ours is a script in front of the PATH. */
static void program_in_place_of_the_library(void **state)
{
    (void)state;
    struct power_now now;
    char path[128];
    snprintf(path, sizeof path, "%s/nvidia-smi", dir);
    FILE *f = fopen(path, "w");
    fputs("#!/bin/sh\n"
          "[ \"$1\" = --id=2 ] || { echo 'No devices were found'; exit 6; }\n"
          "case $2 in\n"
          "*=power.draw,name) echo '97.25, Smi Card' ;;\n"
          "*) echo '97.25, 12, [N/A], 1024, 2048' ;;\n"
          "esac\n",
          f);
    fclose(f);
    chmod(path, 0755);
    struct power *p = open_power(2, "/nonexistent/libnvidia-ml.so.1");
    assert_string_equal(power_source(p), "nvidia-smi");
    assert_string_equal(power_card(p), "Smi Card");
    power_read(p, &now);
    assert_true(now.gpu_w == 97.25 && now.gpu_util == 12 && isnan(now.mem_util));
    assert_true(now.mem_used_b == 1073741824.0 && now.mem_total_b == 2147483648.0);
    assert_true(isnan(now.gpu_j));
    power_close(p);
    p = open_power(0, "/nonexistent/libnvidia-ml.so.1");
    assert_string_equal(power_source(p), "none");
    power_close(p);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_source_reads_as_nan),
        cmocka_unit_test(packages_are_summed_and_unwrapped),
        cmocka_unit_test(card_is_read),
        cmocka_unit_test(ends_alone_are_a_mean),
        cmocka_unit_test(samples_of_a_constant_draw),
        cmocka_unit_test(program_in_place_of_the_library),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
