/* Kernels for ARM with products of 2x8 and 8x2 codes (FEAT_I8MM): rows go through in pairs. */
#define EMRL_NEON
#define CODE_TYPE uint8_t
#define STORE_CODES vi_store_u8
#define ATTEND_KEYS 1
#include "rows.h"
#include "neon.h"

/* Pairs of rows of a tile; its columns are eight. */
#define TILE_PAIRS 5

/* sums: [row, column], [row, column + 1], [next row, column], [next row, column + 1] */
#define START(at) vcombine_s32(vld1_s32(weights->start + column + at), vld1_s32(weights->start + column + at))
#define DECLARE(r) int32x4_t a##r = START(0), b##r = START(2), c##r = START(4), d##r = START(6);
/* Behind an odd last row is that row again. */
#define ROW(r) const uint8_t *at##r = codes + 2 * r * depth, *next##r = at##r + (2 * r + 1 < rows ? depth : 0);
#define ADD(r, w0, w1, w2, w3)                                                                                 \
    a##r = vusmmlaq_s32(a##r, code, w0);                                                                       \
    b##r = vusmmlaq_s32(b##r, code, w1);                                                                       \
    c##r = vusmmlaq_s32(c##r, code, w2);                                                                       \
    d##r = vusmmlaq_s32(d##r, code, w3);
#define ZIPPED(which, x, y) vreinterpretq_u8_u64(vzip##which##q_u64(vreinterpretq_u64_u8(x), vreinterpretq_u64_u8(y)))
#define STEP(r)                                                                                                \
    {                                                                                                          \
        uint8x16_t one = vld1q_u8(at##r + k), two = vld1q_u8(next##r + k), code = ZIPPED(1, one, two);         \
        ADD(r, w0, w1, w2, w3)                                                                                 \
        code = ZIPPED(2, one, two);                                                                            \
        ADD(r, w4, w5, w6, w7)                                                                                 \
    }
#define PART(x, y, half) vcombine_s32(vget_##half##_s32(x), vget_##half##_s32(y))
#define FINISH(r)                                                                                              \
    finish(PART(a##r, b##r, low), weights, column, peaks[2 * r], out + 2 * r * stride);                  \
    finish(PART(c##r, d##r, low), weights, column + 4, peaks[2 * r], out + 2 * r * stride);              \
    if (2 * r + 1 < rows) {                                                                                    \
        finish(PART(a##r, b##r, high), weights, column, peaks[2 * r + 1], out + (2 * r + 1) * stride);   \
        finish(PART(c##r, d##r, high), weights, column + 4, peaks[2 * r + 1], out + (2 * r + 1) * stride); \
    }
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const uint8_t *codes, size_t rows, const emrl_packed *weights, int column,  \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = half_panel(weights, column, 8);                                                 \
        REPEAT_##n(ROW)                                                                                        \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 16, packed += 16 * EMRL_PANEL) {                                    \
            const int8_t *more = packed + 8 * EMRL_PANEL;                                                      \
            int8x16_t w0 = vld1q_s8(packed), w1 = vld1q_s8(packed + 16);                                       \
            int8x16_t w2 = vld1q_s8(packed + 32), w3 = vld1q_s8(packed + 48);                                  \
            int8x16_t w4 = vld1q_s8(more), w5 = vld1q_s8(more + 16);                                           \
            int8x16_t w6 = vld1q_s8(more + 32), w7 = vld1q_s8(more + 48);                                      \
            REPEAT_##n(STEP)                                                                                   \
        }                                                                                                      \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)

typedef void pairs_of(const uint8_t *codes, size_t rows, const emrl_packed *weights, int column,
                      const float *peaks, float *out, size_t stride);

static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride)
{
    static pairs_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4, tile_5};
    size_t depth = (size_t)weights->depth;
    for (int column = 0; column < weights->columns; column += 8)
        for (int row = 0; row < count; row += 2 * TILE_PAIRS) {
            int rows = count - row < 2 * TILE_PAIRS ? count - row : 2 * TILE_PAIRS;
            tiles[(rows - 1) / 2]((const uint8_t *)codes + (size_t)row * depth, (size_t)rows, weights, column,
                                  peaks + row, out + (size_t)row * stride, stride);
        }
}

const emrl_kernels emrl_i8mm = {.name = "i8mm", .group = 8, .code_bytes = 1, ROW_KERNELS};
