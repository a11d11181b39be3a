/* What Android's libraries expect of bionic, on glibc for arm64: enough for ONNX Runtime and SQLite.
 *
 * names.py gives a call a name with "zz" in front where glibc has one of the same name that works otherwise.
 * Sizes and numbers are those of bionic's headers for LP64:
 * https://android.googlesource.com/platform/bionic/+/refs/heads/main/libc/include/ */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

/* Standard streams of code that is built for old levels: three of 152 bytes. */
char __sF[3][152];

static FILE *stream(void *file)
{
    if (file == __sF[0])
        return stdin;
    if (file == __sF[1])
        return stdout;
    return file == __sF[2] ? stderr : file;
}

int zzlush(void *file) { return fflush(file ? stream(file) : NULL); }
size_t zzrite(const void *data, size_t size, size_t count, void *file) { return fwrite(data, size, count, stream(file)); }

volatile int *__errno(void) { return &errno; }

/* The one of POSIX, which glibc has under this name. */
int __xpg_strerror_r(int number, char *buffer, size_t size);

int zzrerror_r(int number, char *buffer, size_t size) { return __xpg_strerror_r(number, buffer, size); }
char *__gnu_strerror_r(int number, char *buffer, size_t size) { return strerror_r(number, buffer, size); }

/* Sets of signals have 8 bytes there, 128 here. */
int zzgfillset(unsigned long *set)
{
    *set = ~0UL;
    return 0;
}

int zzhread_sigmask(int how, const unsigned long *set, unsigned long *old)
{
    sigset_t wide, before;
    sigemptyset(&wide);
    if (set)
        memcpy(&wide, set, sizeof *set);
    int failed = pthread_sigmask(how, set ? &wide : NULL, &before);
    if (!failed && old)
        memcpy(old, &before, sizeof *old);
    return failed;
}

/* Attributes of threads have 56 bytes there, 64 here: only the size of the stack is kept. */
struct attributes {
    unsigned flags;
    void *base;
    size_t stack;
};

int zzhread_attr_init(struct attributes *attributes)
{
    memset(attributes, 0, sizeof *attributes);
    return 0;
}

int zzhread_attr_setstacksize(struct attributes *attributes, size_t size)
{
    attributes->stack = size;
    return 0;
}

int zzhread_create(pthread_t *thread, const struct attributes *wanted, void *(*run)(void *), void *value)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (wanted && wanted->stack)
        pthread_attr_setstacksize(&attributes, wanted->stack);
    int failed = pthread_create(thread, &attributes, run, value);
    pthread_attr_destroy(&attributes);
    return failed;
}

long zzsconf(int name)
{
    switch (name) {
    case 0x0006:
        return sysconf(_SC_CLK_TCK);
    case 0x0027: /* PAGESIZE */
    case 0x0028:
        return sysconf(_SC_PAGESIZE);
    case 0x0060:
        return sysconf(_SC_NPROCESSORS_CONF);
    case 0x0061:
        return sysconf(_SC_NPROCESSORS_ONLN);
    case 0x0062:
        return sysconf(_SC_PHYS_PAGES);
    default:
        errno = EINVAL;
        return -1;
    }
}

size_t __strlen_chk(const char *text, size_t size) { (void)size; return strlen(text); }
char *__strchr_chk(const char *text, int c, size_t size) { (void)size; return strchr(text, c); }
void __FD_SET_chk(int fd, fd_set *set, size_t size) { (void)size; FD_SET(fd, set); }
int __FD_ISSET_chk(int fd, const fd_set *set, size_t size) { (void)size; return FD_ISSET(fd, set) != 0; }

void __assert2(const char *file, int line, const char *function, const char *what)
{
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, function, what);
    abort();
}

int __system_property_get(const char *name, char *value)
{
    (void)name;
    *value = 0;
    return 0;
}

void android_set_abort_message(const char *text) { fprintf(stderr, "abort: %s\n", text); }

int __android_log_write(int level, const char *tag, const char *text) { return fprintf(stderr, "%d %s: %s\n", level, tag, text); }

int __android_log_vprint(int level, const char *tag, const char *form, va_list values)
{
    fprintf(stderr, "%d %s: ", level, tag);
    return vfprintf(stderr, form, values);
}

int __android_log_print(int level, const char *tag, const char *form, ...)
{
    va_list values;
    va_start(values, form);
    int count = __android_log_vprint(level, tag, form, values);
    va_end(values);
    return count;
}
