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

/* --- codes: what a search compares. Layouts are those of FORMAT.md, "Code file". --- */

/* Rows of a part: word w of row i is bits[w * stride + i]. */
typedef struct {
    const uint64_t *bits;
    size_t stride, rows;
} emrl_part;

/* Hamming distances of all rows of all parts to a query of `words` words.
 *   distances  uint8[rows] for up to four words, uint16[rows] for more
 *   capped     of 255 and 256 dimensions: what all words but the last of four count is 190 at most, so that
 *              a byte holds all distances and 255 stands for no distance
 *   rows       of all parts together, which is compared */
EMRL_API int emrl_hamming(const char *kernel, const emrl_part *parts, size_t part_count, const uint64_t *query,
                          size_t words, int capped, void *distances, size_t rows, char *error, size_t room);

/* Rows within the least distance that `width` rows have at least, ascending; at most 3 * width, of the
 * farthest the first.
 *   size       bytes of a distance, 1 or 2
 *   most       no distance that counts is larger
 *   found      int64[3 * width], of which `*count` are written */
EMRL_API int emrl_closest(const char *kernel, const void *distances, int size, size_t rows, uint32_t most,
                          size_t width, int64_t *found, size_t *count, char *error, size_t room);

/* Copy rows: `stride` bytes each, of a table of `rows`; which: int64[count]. */
EMRL_API int emrl_gather(const uint8_t *from, size_t rows, size_t stride, const int64_t *which, size_t count,
                         uint8_t *to, char *error, size_t room);

/* Check values of rows: codes of `words` words each, one row behind the other, their documents' keys and
 * numbers. factors: uint64[words + 2]. */
EMRL_API void emrl_checks(const uint64_t *codes, size_t rows, size_t words, const uint32_t *keys,
                          const int64_t *numbers, const uint64_t *factors, uint32_t *checks);

/* Cosines of a query and codes of `stride` bytes: double[rows] in [-1, 1], 0 where a length is 0.
 *   bits       8 for int8 codes, 4 for int4 codes */
EMRL_API int emrl_cosines(const char *kernel, const int8_t *query, size_t dim, int bits, const uint8_t *codes,
                          size_t stride, size_t rows, double *cosines, char *error, size_t room);

/* Sums of products of a query and the codes that planes of bits make, upper plane first: int64[rows].
 *   query      uint64[8, words], the query's bits, the lowest first, in two's complement
 *   bits       uint64[planes * words, rows] */
EMRL_API int emrl_weigh(const char *kernel, const uint64_t *query, size_t words, const uint64_t *bits,
                        size_t planes, size_t rows, int64_t *sums, char *error, size_t room);

#endif
