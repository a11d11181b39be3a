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
#include <cpuid.h>

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

static bool has_avxvnni(void)
{
#if defined(EMRL_EVEX)
    return has_avx512vnni();
#else
    unsigned a = 0, b, c, d; /* compilers do not know its name yet: CPUID leaf 7, part 1 */
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1) != 0;
#endif
}
#endif

#if defined(__aarch64__)
#if defined(__linux__) || defined(__ANDROID__)
#include <sys/auxv.h>
/* Of <asm/hwcap.h>, which not every system's headers have whole. */
#define HAS_DOTPROD (getauxval(AT_HWCAP) >> 20 & 1)
#define HAS_I8MM (getauxval(AT_HWCAP2) >> 13 & 1)
#elif defined(__APPLE__)
#include <sys/sysctl.h>
static bool feature(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value == 1;
}
#define HAS_DOTPROD feature("hw.optional.arm.FEAT_DotProd")
#define HAS_I8MM feature("hw.optional.arm.FEAT_I8MM")
#else /* others have no way to ask */
#define HAS_DOTPROD false
#define HAS_I8MM false
#endif

static bool has_dotprod(void)
{
    return HAS_DOTPROD;
}

static bool has_i8mm(void)
{
    return HAS_DOTPROD && HAS_I8MM;
}
#endif

/* From the fastest. */
static const choice choices[] = {
#if defined(__x86_64__)
    {&emrl_avx512vnni, has_avx512vnni},
    {&emrl_avxvnni, has_avxvnni},
    {&emrl_avx2, has_avx2},
#endif
#if defined(__aarch64__)
    {&emrl_i8mm, has_i8mm},
    {&emrl_dotprod, has_dotprod},
    {&emrl_neon, always}, /* each such processor has it */
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
