/* Which kernels this processor can run. */
#include "emrl.h"
#include "kernels.h"

#include <string.h>

typedef struct {
    const emrl_kernels *kernels;
    bool (*runs)(void);
} choice;

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512vnni(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

/* From the fastest. */
static const choice choices[] = {
#if defined(__x86_64__)
    {&emrl_avx512vnni, has_avx512vnni},
    {&emrl_avx2, has_avx2},
#endif
    {&emrl_plain, always},
};

const emrl_kernels *emrl_choose(const char *name)
{
    bool any = name == NULL || name[0] == '\0';
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if ((any || strcmp(name, choices[i].kernels->name) == 0) && choices[i].runs())
            return choices[i].kernels;
    return NULL;
}

const char *emrl_kernel(const char *wanted)
{
    const emrl_kernels *kernels = emrl_choose(wanted);
    return kernels == NULL ? NULL : kernels->name;
}
