/* Memory that is freed as a whole, and messages of errors. */
#ifndef EMRL_ARENA_H
#define EMRL_ARENA_H

#include <stddef.h>

/* Alignment of all blocks: a cache line, and the widest register. */
#define EMRL_ALIGNMENT 64

typedef struct emrl_block emrl_block;

typedef struct {
    emrl_block *blocks;
    size_t left; /* bytes that may still be taken */
} emrl_arena;

/* An arena that gives at most `most` bytes. */
emrl_arena emrl_arena_of(size_t most);

/* `count` zeroed elements of `size` bytes, aligned; NULL where there is no room. */
void *emrl_take(emrl_arena *arena, size_t count, size_t size);

void emrl_release(emrl_arena *arena);

/* Aligned memory that is not zeroed, and its end. */
void *emrl_aligned(size_t bytes);
void emrl_aligned_free(void *memory);

/* Where a message goes. */
typedef struct {
    char *text;
    size_t room;
} emrl_error;

/* Write a message and return `code`. Only the first message of an error is kept. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
int emrl_fail(emrl_error *error, int code, const char *format, ...);

#endif
