/* Kernels for ARM with products of 2x8 and 8x2 codes (FEAT_I8MM): rows go through in pairs. */
#define EMRL_NEON
#define CODE_TYPE uint8_t
#define STORE_CODES vi_store_u8
/* Pairs of rows of a tile; its columns are eight. */
#define TILE_PAIRS 5
#define CODE_ROWS (2 * TILE_PAIRS)
#define CODE_GROUP 8
#define STORE_APART store_apart
#define ATTEND_KEYS 1
#include "vec.h"

INLINE void store_apart(uint8_t *at, size_t step, vi values)
{
    uint8x16_t codes = vi_u8(values);
    vst1_u8(at, vget_low_u8(codes));
    vst1_u8(at + step, vget_high_u8(codes));
}

#include "rows.h"
#include "neon.h"

/* sums: [row, column], [row, column + 1], [next row, column], [next row, column + 1] */
#undef START
#undef DECLARE
#define START(at) vcombine_s32(vld1_s32(weights->start + column + at), vld1_s32(weights->start + column + at))
#define DECLARE(r) int32x4_t a##r = START(0), b##r = START(2), c##r = START(4), d##r = START(6);
#define STEP(r) STEP_##r
#define ADD(r, code)                                                                                           \
    a##r = vusmmlaq_s32(a##r, code, w.val[0]);                                                                 \
    b##r = vusmmlaq_s32(b##r, code, w.val[1]);                                                                 \
    c##r = vusmmlaq_s32(c##r, code, w.val[2]);                                                                 \
    d##r = vusmmlaq_s32(d##r, code, w.val[3]);
#define STEP_0 ADD(0, c.val[0])
#define STEP_1 ADD(1, c.val[1])
#define STEP_2 ADD(2, c.val[2])
#define STEP_3 ADD(3, c.val[3])
#define STEP_4 ADD(4, last)
/* The codes of eight values of all rows. Behind an odd last row are others, whose sums are not kept. */
#define LOAD_1 struct { uint8x16_t val[1]; } c = {{vld1q_u8(codes)}};
#define LOAD_2 uint8x16x2_t c = vld1q_u8_x2(codes);
#define LOAD_3 uint8x16x3_t c = vld1q_u8_x3(codes);
#define LOAD_4 uint8x16x4_t c = vld1q_u8_x4(codes);
#define LOAD_5                                                                                                 \
    LOAD_4                                                                                                     \
    uint8x16_t last = vld1q_u8(codes + 64);
#define PART(x, y, half) vcombine_s32(vget_##half##_s32(x), vget_##half##_s32(y))
#define FINISH(r)                                                                                              \
    FINISH_FOUR(PART(a##r, b##r, low), a, 0, 2 * r)                                                            \
    FINISH_FOUR(PART(c##r, d##r, low), b, 4, 2 * r)                                                            \
    if (2 * r + 1 < rows) {                                                                                    \
        FINISH_FOUR(PART(a##r, b##r, high), a, 0, 2 * r + 1)                                                   \
        FINISH_FOUR(PART(c##r, d##r, high), b, 4, 2 * r + 1)                                                   \
    }
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const uint8_t *codes, size_t rows, const emrl_packed *weights, int column,  \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        const int8_t *packed = part_of_panel(weights, column, 8);                                              \
        REPEAT_##n(DECLARE)                                                                                    \
        for (int k = 0; k < weights->depth; k += 8, packed += 8 * EMRL_PANEL, codes += 8 * rows) {             \
            int8x16x4_t w = vld1q_s8_x4(packed);                                                               \
            LOAD_##n                                                                                           \
            REPEAT_##n(STEP)                                                                                   \
        }                                                                                                      \
        SCALES(a, 0)                                                                                           \
        SCALES(b, 4)                                                                                           \
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
