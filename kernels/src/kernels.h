/* What is compiled once for each instruction set. */
#ifndef EMRL_KERNELS_H
#define EMRL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Floats are summed in so many lanes on every processor, so that sums have the same bits. */
#define EMRL_LANES 16
/* Columns of a panel of packed weights. */
#define EMRL_PANEL 32
#define EMRL_CODES_BEHIND 64

static inline size_t emrl_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

typedef enum { EMRL_NO_ACTIVATION, EMRL_GELU_TANH, EMRL_GELU_ERF, EMRL_RELU } emrl_activation;

/* How rows become codes 0..255: an activation, then x * smooth + offset, then rounded in steps that are fixed, or
 * such that the row's peak is `levels` steps away from 0. */
typedef struct {
    const float *smooth, *offset; /* of a row's padded width, or NULL */
    bool fixed;
    float step; /* fixed */
    int zero;   /* the code of 0 */
    float levels, least;
    bool magnitude; /* the peak is that of magnitudes */
    emrl_activation activation;
} emrl_coding;

/* Weights for codes of `depth` values, in panels of EMRL_PANEL columns: [panel][value / group][column][group].
 * Zeros behind the last column and value. */
typedef struct {
    const int8_t *weights;
    const int32_t *start; /* of each column's sum: (code_bias - zero) * the sum of its weights */
    const float *scale, *bias; /* of each column */
    int depth;   /* values of a row of codes, a multiple of EMRL_LANES */
    int columns; /* a multiple of EMRL_PANEL */
    bool least;  /* whether a weight is -128 */
} emrl_packed;

typedef struct {
    const char *name;
    int group;      /* values of a column that lie together: a divisor of EMRL_LANES */
    int code_bytes; /* bytes of a code in a row of codes */
    int code_bias;  /* what is taken from a code before it is stored, modulo 256 */
    /* Rows of codes lie interleaved, so many together: `group` codes of each, then the next ones of each. Behind
     * the last whole number of them are fewer rows. 1: a row lies behind the other. Kernels may read up to
     * EMRL_CODES_BEHIND codes behind the last row. */
    int code_rows;

    /* Code `count` rows of `width` floats into rows of `depth` codes, zeros behind them. `peaks` get what
     * products of the rows are multiplied with: 1 where the step is fixed. Rows with an activation are not
     * what they were before. */
    void (*code)(float *rows, size_t stride, int count, int width, const emrl_coding *coding, void *codes,
                 int depth, float *peaks);
    /* out = (start + codes @ weights) * scale * peak + bias; `out` has weights->columns columns. */
    void (*multiply)(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride);
    /* rows = norm(rows + others) * gain + bias; others may be NULL */
    void (*norm)(float *rows, const float *others, size_t stride, int count, int width, const float *gain,
                 const float *bias, float epsilon);
    /* Attention of one text and head. q, k and v are its columns in rows of `stride` floats; `width` columns
     * are written to rows of `out_stride` floats. `scratch` has emrl_attention_floats floats. */
    void (*attend)(const float *q, const float *k, const float *v, size_t stride, int tokens, int width,
                   float scale, float *out, size_t out_stride, float *scratch);
    /* out[j] = sum over i of x[i] * matrix[i][j]; `columns` is a multiple of EMRL_LANES */
    void (*transform)(const float *x, const float *matrix, int in, int columns, float *out);
    /* Sum of products of `width` floats, of rows that are padded with zeros. */
    float (*dot)(const float *a, const float *b, int width);
    float (*exponential)(float x); /* for tests */

    /* Bits of sixty-four distances: which are `most` at most. */
    uint64_t (*within8)(const uint8_t *distances, uint8_t most);
    uint64_t (*within16)(const uint16_t *distances, uint16_t most);
    /* Hamming distances of rows whose word w lies at columns[w * stride + row]; see emrl_hamming. */
    void (*hamming8)(const uint64_t *columns, size_t stride, size_t rows, const uint64_t *query, size_t words,
                     bool capped, uint8_t *distances);
    void (*hamming16)(const uint64_t *columns, size_t stride, size_t rows, const uint64_t *query, size_t words,
                      uint16_t *distances);
    /* The sums of products of int8 codes, and of squares of the second ones. */
    void (*dot8)(const int8_t *query, const int8_t *codes, size_t dim, int64_t *product, int64_t *square);
    /* Of codes 0..15 in halves of `bytes` bytes: sums of products with the query's even and odd values, sums
     * of squares, sums. */
    void (*dot4)(const int8_t *even, const int8_t *odd, const uint8_t *codes, size_t bytes, int64_t *product,
                 int64_t *square, int64_t *sum);
    /* Bits that are set in both. */
    size_t (*common)(const uint64_t *a, size_t a_stride, const uint64_t *b, size_t words);
} emrl_kernels;

/* Where the code of a row lies among those of `count` rows. */
static inline size_t emrl_code_place(const emrl_kernels *kernels, size_t count, size_t depth, size_t row, size_t k)
{
    size_t most = (size_t)kernels->code_rows, group = (size_t)kernels->group, first = row / most * most;
    size_t beside = count - first < most ? count - first : most;
    return first * depth + (k / group * beside + row - first) * group + k % group;
}

/* Floats that `attend` needs for texts of so many tokens and heads of so many values. */
size_t emrl_attention_floats(size_t tokens, size_t width);

/* The kernels of a name that this processor can run; NULL where there are none. */
const emrl_kernels *emrl_choose(const char *name);

extern const emrl_kernels emrl_plain, emrl_avx2, emrl_avxvnni, emrl_avx512vnni;
extern const emrl_kernels emrl_neon, emrl_dotprod, emrl_i8mm;

#endif
