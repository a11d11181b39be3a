/* Kernels for ARM with dot products of four codes (FEAT_DotProd). Codes are kept less 128, as signed bytes. */
#define EMRL_NEON
#define CODE_TYPE uint8_t
#define STORE_CODES store_codes
#define CODE_BIAS 128
/* Rows of a tile, and its columns: 24 sums in registers, three of codes, four of each of four rows, and two of
 * weights. */
#define TILE_ROWS 12
#define TILE_COLUMNS 8
#define CODE_ROWS TILE_ROWS
#define CODE_GROUP 4
#define STORE_APART store_apart
#define ATTEND_KEYS 1
#include "vec.h"

INLINE void store_apart(uint8_t *at, size_t step, vi values)
{
    uint32x4_t codes = vreinterpretq_u32_u8(veorq_u8(vi_u8(values), vdupq_n_u8(128)));
    vst1q_lane_u32((uint32_t *)(void *)at, codes, 0);
    vst1q_lane_u32((uint32_t *)(void *)(at + step), codes, 1);
    vst1q_lane_u32((uint32_t *)(void *)(at + 2 * step), codes, 2);
    vst1q_lane_u32((uint32_t *)(void *)(at + 3 * step), codes, 3);
}

#include "rows.h"
#include "neon.h"

#undef DECLARE /* two registers of sums, not four */
#define DECLARE(r) int32x4_t a##r = START(0), b##r = START(4);
/* Row r has lane r % 4 of the codes' register r / 4. */
#define STEP(r) STEP_##r
#define ADD(r, codes, lane)                                                                                    \
    a##r = vdotq_laneq_s32(a##r, weight, codes, lane);                                                         \
    b##r = vdotq_laneq_s32(b##r, other, codes, lane);
#define STEP_0 ADD(0, c0, 0)
#define STEP_1 ADD(1, c0, 1)
#define STEP_2 ADD(2, c0, 2)
#define STEP_3 ADD(3, c0, 3)
#define STEP_4 ADD(4, c1, 0)
#define STEP_5 ADD(5, c1, 1)
#define STEP_6 ADD(6, c1, 2)
#define STEP_7 ADD(7, c1, 3)
#define STEP_8 ADD(8, c2, 0)
#define STEP_9 ADD(9, c2, 1)
#define STEP_10 ADD(10, c2, 2)
#define STEP_11 ADD(11, c2, 3)
#define FINISH(r)                                                                                              \
    FINISH_FOUR(a##r, a, 0, r)                                                                                 \
    FINISH_FOUR(b##r, b, 4, r)
/* One instruction loads the codes of four values of all rows, and one the weights, and moves on. */
#define NEXT(made, last, at, step)                                                                             \
    __asm__("ld1\t{%S0.16b - %" last "0.16b}, [%1], %2" : "=w"(made), "+r"(at) : "r"(step) : "memory")
#define LOAD_1                                                                                                 \
    int8x16_t c0;                                                                                              \
    __asm__("ld1\t{%0.16b}, [%1], %2" : "=w"(c0), "+r"(codes) : "r"(beside) : "memory");
#define LOAD_2                                                                                                 \
    int8x16x2_t all;                                                                                           \
    NEXT(all, "T", codes, beside);                                                                             \
    int8x16_t c0 = all.val[0], c1 = all.val[1];
#define LOAD_3                                                                                                 \
    int8x16x3_t all;                                                                                           \
    NEXT(all, "U", codes, beside);                                                                             \
    int8x16_t c0 = all.val[0], c1 = all.val[1], c2 = all.val[2];
#define DEFINE_TILE(n, registers)                                                                              \
    static void tile_##n(const int8_t *codes, const emrl_packed *weights, int column, const float *peaks,      \
                         float *out, size_t stride)                                                            \
    {                                                                                                          \
        const int8_t *packed = part_of_panel(weights, column, 4);                                              \
        REPEAT_##n(DECLARE)                                                                                    \
        size_t step = 4 * EMRL_PANEL, beside = 4 * n;                                                          \
        _Pragma("GCC unroll 4") for (int k = weights->depth; k > 0; k -= 4) {                                  \
            int8x16x2_t pair;                                                                                  \
            NEXT(pair, "T", packed, step);                                                                     \
            int8x16_t weight = pair.val[0], other = pair.val[1];                                               \
            LOAD_##registers                                                                                   \
            REPEAT_##n(STEP)                                                                                   \
        }                                                                                                      \
        SCALES(a, 0)                                                                                           \
        SCALES(b, 4)                                                                                           \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1, 1)
DEFINE_TILE(2, 1)
DEFINE_TILE(3, 1)
DEFINE_TILE(4, 1)
DEFINE_TILE(5, 2)
DEFINE_TILE(6, 2)
DEFINE_TILE(7, 2)
DEFINE_TILE(8, 2)
DEFINE_TILE(9, 3)
DEFINE_TILE(10, 3)
DEFINE_TILE(11, 3)
DEFINE_TILE(12, 3)

static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
                                     tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
    run_tiles(tiles, TILE_ROWS, TILE_COLUMNS, codes, peaks, count, weights, out, stride);
}

const emrl_kernels emrl_dotprod = {.name = "dotprod", .group = 4, .code_bytes = 1, ROW_KERNELS};
