/* What the programs that check the library share. */
#ifndef EMRL_CHECK_H
#define EMRL_CHECK_H

#include "../src/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kernel_names[] = {"plain", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod", "i8mm"};
#define KERNEL_NAMES (sizeof kernel_names / sizeof *kernel_names)

/* Memory of just so many bytes, so that a sanitizer sees a step beyond. */
static inline void *exactly(size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory == NULL && bytes > 0) {
        fputs("no memory\n", stderr);
        exit(2);
    }
    return memory;
}

/* A file's bytes, or the end of the program. */
static inline uint8_t *read_whole(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(2);
    }
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = exactly(*size + 1);
    if (fread(data, 1, *size, file) != *size) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(2);
    }
    fclose(file);
    uint8_t *tight = exactly(*size);
    memcpy(tight, data, *size);
    free(data);
    return tight;
}

#endif
