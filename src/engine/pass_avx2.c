#define PASS sample_pass_avx2
#include "engine/pass_loops.h"

const struct sample_pass *sample_pass_best(void)
{
    return __builtin_cpu_supports("avx2") ? &sample_pass_avx2 : &sample_pass_base;
}
