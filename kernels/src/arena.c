#include "arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct emrl_block {
    emrl_block *next;
    void *memory;
};

emrl_arena emrl_arena_of(size_t most)
{
    emrl_arena arena = {NULL, most};
    return arena;
}

void *emrl_aligned(size_t bytes)
{
    if (bytes > SIZE_MAX - 2 * EMRL_ALIGNMENT)
        return NULL;
    size_t whole = (bytes + EMRL_ALIGNMENT) / EMRL_ALIGNMENT * EMRL_ALIGNMENT;
#if defined(_WIN32)
    return _aligned_malloc(whole, EMRL_ALIGNMENT);
#else
    void *memory = NULL;
    return posix_memalign(&memory, EMRL_ALIGNMENT, whole) == 0 ? memory : NULL;
#endif
}

void emrl_aligned_free(void *memory)
{
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

void *emrl_take(emrl_arena *arena, size_t count, size_t size)
{
    if (size != 0 && count > arena->left / size)
        return NULL;
    emrl_block *block = malloc(sizeof *block);
    if (block == NULL)
        return NULL;
    block->memory = emrl_aligned(count * size);
    if (block->memory == NULL) {
        free(block);
        return NULL;
    }
    memset(block->memory, 0, count * size);
    arena->left -= count * size;
    block->next = arena->blocks;
    arena->blocks = block;
    return block->memory;
}

void emrl_release(emrl_arena *arena)
{
    while (arena->blocks != NULL) {
        emrl_block *block = arena->blocks;
        arena->blocks = block->next;
        emrl_aligned_free(block->memory);
        free(block);
    }
}

int emrl_fail(emrl_error *error, int code, const char *format, ...)
{
    if (error->text == NULL || error->room == 0 || error->text[0] != '\0')
        return code;
    va_list values;
    va_start(values, format);
    vsnprintf(error->text, error->room, format, values);
    va_end(values);
    return code;
}
