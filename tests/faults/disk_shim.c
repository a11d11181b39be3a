/* Stands between a process and its files below one folder: lets the n-th call fail, or records all calls.

   Compiled by tests/faults/media.py and loaded with LD_PRELOAD. The process itself says what to do, through
   the functions shim_*. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static long calls, fail_at = -1, fail_for;
static int fail_with, record_fd = -1;

void shim_watch(const char *path) {
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
}
/* From the n-th call on, `times` calls fail with this error; n = 0: none. */
void shim_fail(long n, long times, int error) {
    calls = 0;
    fail_at = n ? n : -1;
    fail_for = times;
    fail_with = error;
}
long shim_calls(void) { return calls; }
void shim_record(int fd) { record_fd = fd; }

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int watched(const char *path) {
    return folder_length && path && !strncmp(path, folder, folder_length) && !strstr(path, "-shm");
}
static int named(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return watched(path);
}
static int refused(void) {
    calls++;
    if (fail_at < 0 || calls < fail_at || calls >= fail_at + fail_for) return 0;
    errno = fail_with;
    return 1;
}
static void put(const void *data, size_t size) {
    static ssize_t (*plain)(int, const void *, size_t);
    if (!plain) plain = real("write");
    while (size) {
        ssize_t done = plain(record_fd, data, size);
        if (done <= 0) _exit(99);
        data = (const char *)data + done;
        size -= (size_t)done;
    }
}
/* kind, bytes of the path, bytes of the data, offset; then path and data. */
static void record(char kind, const char *path, const void *data, size_t size, int64_t offset) {
    if (record_fd < 0) return;
    uint32_t length = (uint32_t)strlen(path), bytes = (uint32_t)size;
    put(&kind, 1);
    put(&length, 4);
    put(&bytes, 4);
    put(&offset, 8);
    put(path, length);
    put(data, size);
}
void shim_mark(const char *text) { record('M', "", text, strlen(text), 0); }

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        static int (*next)(const char *, int, ...);                       \
        if (!next) next = real(#name);                                    \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        int mode = flags & O_CREAT ? va_arg(rest, int) : 0;               \
        va_end(rest);                                                     \
        int ours = watched(path);                                         \
        if (ours && refused()) return -1;                                 \
        int fd = next(path, flags, mode);                                 \
        if (ours && fd >= 0) {                                            \
            if (flags & O_CREAT) record('C', path, "", 0, 0);             \
            if (flags & O_TRUNC) record('T', path, "", 0, 0);             \
        }                                                                 \
        return fd;                                                        \
    }
OPEN(open)
OPEN(open64)

#define READ(name, offset_type)                                                     \
    ssize_t name(int fd, void *data, size_t size, offset_type offset) {             \
        static ssize_t (*next)(int, void *, size_t, offset_type);                   \
        if (!next) next = real(#name);                                              \
        char path[PATH_MAX];                                                        \
        if (folder_length && named(fd, path) && refused()) return -1;               \
        return next(fd, data, size, offset);                                        \
    }
READ(pread, off_t)
READ(pread64, off64_t)

#define WRITE(name, offset_type)                                                    \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {       \
        static ssize_t (*next)(int, const void *, size_t, offset_type);             \
        if (!next) next = real(#name);                                              \
        char path[PATH_MAX];                                                        \
        int ours = folder_length && named(fd, path);                                \
        if (ours && refused()) return -1;                                           \
        ssize_t done = next(fd, data, size, offset);                                \
        if (ours && done > 0) record('W', path, data, (size_t)done, offset);        \
        return done;                                                                \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = real("write");
    char path[PATH_MAX];
    int ours = folder_length && fd != record_fd && named(fd, path);
    if (ours && refused()) return -1;
    off_t at = ours ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = next(fd, data, size);
    if (ours && done > 0) record('W', path, data, (size_t)done, at);
    return done;
}

#define SYNC(name)                                                    \
    int name(int fd) {                                                \
        static int (*next)(int);                                      \
        if (!next) next = real(#name);                                \
        char path[PATH_MAX];                                          \
        int ours = folder_length && named(fd, path);                  \
        if (ours && refused()) return -1;                             \
        int done = next(fd);                                          \
        if (ours && !done) record('S', path, "", 0, 0);               \
        return done;                                                  \
    }
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name, offset_type)                                   \
    int name(int fd, offset_type size) {                              \
        static int (*next)(int, offset_type);                         \
        if (!next) next = real(#name);                                \
        char path[PATH_MAX];                                          \
        int ours = folder_length && named(fd, path);                  \
        if (ours && refused()) return -1;                             \
        int done = next(fd, size);                                    \
        if (ours && !done) record('T', path, "", 0, size);            \
        return done;                                                  \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int unlink(const char *path) {
    static int (*next)(const char *);
    if (!next) next = real("unlink");
    int ours = watched(path);
    if (ours && refused()) return -1;
    int done = next(path);
    if (ours && !done) record('U', path, "", 0, 0);
    return done;
}

int rename(const char *from, const char *to) {
    static int (*next)(const char *, const char *);
    if (!next) next = real("rename");
    int ours = watched(to);
    if (ours && refused()) return -1;
    int done = next(from, to);
    if (ours && !done) record('R', from, to, strlen(to), 0);
    return done;
}
