/* Counts executed guest instructions: a plugin for QEMU's user-mode emulator.
 *
 *   qemu-aarch64 -plugin ./insn_count.so,out=FILE ...
 *
 * The guest asks for a reading by the system call sched_get_priority_max(MARK), which fails with EINVAL and
 * changes nothing. FILE then gets one line, the instructions executed so far by all threads; it gets a
 * last one when the guest ends.
 *
 * A block of translated code is counted whole when it is entered. A block runs to its end unless an
 * instruction in it faults, which code that works does not do, so the difference of two readings is exact.
 *
 * QEMU's header is not needed: what is used of its interface has been the same from version 1 (QEMU 4.2; the
 * system call callback is in 5.0) to now, and QEMU itself refuses a plugin whose number it does not know.
 * The interface: https://www.qemu.org/docs/master/devel/tcg-plugins.html */
#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifndef PLUGIN_VERSION
#error "compile with -DPLUGIN_VERSION=1 for QEMU before 9.0, 2 from there on"
#endif

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

typedef struct {
    const char *target_name; /* the first member in all versions; the others are not read */
} plugin_info;

typedef void (*translated)(plugin_id, struct qemu_plugin_tb *);
typedef void (*executed)(unsigned int vcpu, void *data);
typedef void (*called)(plugin_id, unsigned int vcpu, int64_t number, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
typedef void (*ended)(plugin_id, void *data);
enum registers_used { NO_REGISTERS };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed, enum registers_used,
                                          void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, called);
void qemu_plugin_register_atexit_cb(plugin_id, ended, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = PLUGIN_VERSION;

enum {
    SCHED_GET_PRIORITY_MAX = 125, /* on arm64 */
    MARK = 0x5eed,
};

static atomic_uint_fast64_t count;
static FILE *out;

static void on_block(unsigned int vcpu, void *instructions)
{
    (void)vcpu;
    atomic_fetch_add_explicit(&count, (uintptr_t)instructions, memory_order_relaxed);
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    void *instructions = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, NO_REGISTERS, instructions);
}

static void write_count(void)
{
    fprintf(out, "%" PRIuFAST64 "\n", atomic_load(&count));
    fflush(out);
}

static void on_call(plugin_id id, unsigned int vcpu, int64_t number, uint64_t first, uint64_t b, uint64_t c,
                    uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)vcpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == SCHED_GET_PRIORITY_MAX && first == MARK) {
        write_count();
    }
}

static void on_end(plugin_id id, void *data)
{
    (void)id, (void)data;
    write_count();
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
        fprintf(stderr, "insn_count: give it one argument, out=FILE\n");
        return -1;
    }
    if (strcmp(info->target_name, "aarch64") != 0) {
        fprintf(stderr, "insn_count: knows the system calls of aarch64, not of %s\n", info->target_name);
        return -1;
    }
    out = fopen(argv[0] + 4, "w");
    if (out == NULL) {
        perror(argv[0] + 4);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
    return 0;
}
