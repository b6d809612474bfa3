#define PASS sample_pass_base
#include "engine/pass_loops.h"
