/* edge-mrl's native kernels: bundles are run, and codes are searched, without ONNX Runtime and numpy.
 *
 * The library keeps no state of its own. A model may be used by several threads at the same time.
 * Functions return EMRL_OK or one of the other codes, and write what is wrong to `error`, which has room
 * for `room` bytes and always ends with a zero.
 *
 * Vectors and codes have the same bits on every processor: products of codes are sums of whole numbers,
 * and sums of floats are added in one order, whatever the width of the processor's registers.
 */
#ifndef EMRL_H
#define EMRL_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EMRL_API __declspec(dllexport)
#else
#define EMRL_API __attribute__((visibility("default")))
#endif

/* Grows with every change of this header; a caller refuses a number that it does not know. */
#define EMRL_API_VERSION 1

enum {
    EMRL_OK = 0,
    EMRL_FOREIGN = 1, /* the graph is none that the library knows, or is damaged: another engine may run it */
    EMRL_REFUSED = 2, /* an argument is wrong: a token id beyond the table, a text that is too long */
    EMRL_MEMORY = 3,  /* there is not enough memory */
    EMRL_KERNEL = 4   /* no such kernels, or this processor cannot run them */
};

/* A file of the bundle. Its bytes must stay as they are until the model is closed. */
typedef struct {
    const char *name;
    const uint8_t *data;
    size_t size;
} emrl_file;

typedef struct {
    int32_t coarse;     /* dimensions of a code */
    int32_t full;       /* dimensions of a full vector, 0 where the bundle gives codes only */
    int32_t max_tokens; /* most tokens of a text, 0 where the graph has no table of positions */
    int32_t vocabulary; /* token ids are below this */
} emrl_shape;

typedef struct emrl_model emrl_model;

/* Version of this header that the library was built with. */
EMRL_API int emrl_api_version(void);

/* Name of the kernels that `wanted` stands for on this processor, or NULL where there are none: "plain",
 * "avx2", "avxvnni", "avx512vnni", "neon", "dotprod", "i8mm"; NULL or "" stands for the fastest. */
EMRL_API const char *emrl_kernel(const char *wanted);

/* Open a bundle's graph. `files` are the files that its weights lie in. */
EMRL_API int emrl_open(const uint8_t *graph, size_t size, const emrl_file *files, size_t file_count,
                       const char *kernel, emrl_model **model, char *error, size_t room);

EMRL_API void emrl_close(emrl_model *model);

EMRL_API emrl_shape emrl_shape_of(const emrl_model *model);

/* Encode texts. Text i has the ids starts[i] up to starts[i + 1] - 1.
 * A vector does not depend on the other texts of a call.
 *   coarse  int8[texts, shape.coarse]
 *   full    float[texts, shape.full], or NULL
 */
EMRL_API int emrl_encode(emrl_model *model, const int32_t *ids, const int64_t *starts, size_t texts,
                         int8_t *coarse, float *full, char *error, size_t room);

#endif
