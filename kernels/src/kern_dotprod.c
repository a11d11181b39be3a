/* Kernels for ARM with dot products of four codes (FEAT_DotProd). Codes are kept less 128, as signed bytes. */
#define EMRL_NEON
#define CODE_TYPE uint8_t
#define STORE_CODES store_codes
#define CODE_BIAS 128
#define ATTEND_KEYS 1
#include "vec.h"

INLINE void store_codes(uint8_t *at, vi x)
{
    vst1q_u8(at, veorq_u8(vi_u8(x), vdupq_n_u8(128)));
}

#include "rows.h"
#include "neon.h"

#define TILE_ROWS 5
#define CODES(r) int8x16_t code##r = vld1q_s8(codes + r * depth + k);
/* Two vectors of weights at a time, so that all sums stay in registers. */
#define STEP_A0(r) a##r = vdotq_laneq_s32(a##r, weight, code##r, 0);
#define STEP_B0(r) b##r = vdotq_laneq_s32(b##r, other, code##r, 0);
#define STEP_C0(r) c##r = vdotq_laneq_s32(c##r, weight, code##r, 0);
#define STEP_D0(r) d##r = vdotq_laneq_s32(d##r, other, code##r, 0);
#define STEP_A1(r) a##r = vdotq_laneq_s32(a##r, weight, code##r, 1);
#define STEP_B1(r) b##r = vdotq_laneq_s32(b##r, other, code##r, 1);
#define STEP_C1(r) c##r = vdotq_laneq_s32(c##r, weight, code##r, 1);
#define STEP_D1(r) d##r = vdotq_laneq_s32(d##r, other, code##r, 1);
#define STEP_A2(r) a##r = vdotq_laneq_s32(a##r, weight, code##r, 2);
#define STEP_B2(r) b##r = vdotq_laneq_s32(b##r, other, code##r, 2);
#define STEP_C2(r) c##r = vdotq_laneq_s32(c##r, weight, code##r, 2);
#define STEP_D2(r) d##r = vdotq_laneq_s32(d##r, other, code##r, 2);
#define STEP_A3(r) a##r = vdotq_laneq_s32(a##r, weight, code##r, 3);
#define STEP_B3(r) b##r = vdotq_laneq_s32(b##r, other, code##r, 3);
#define STEP_C3(r) c##r = vdotq_laneq_s32(c##r, weight, code##r, 3);
#define STEP_D3(r) d##r = vdotq_laneq_s32(d##r, other, code##r, 3);
#define ADD_FOUR(n, lane)                                                                                      \
    weight = vld1q_s8(packed), other = vld1q_s8(packed + 16);                                                  \
    REPEAT_##n(STEP_A##lane)                                                                                   \
    REPEAT_##n(STEP_B##lane)                                                                                   \
    weight = vld1q_s8(packed + 32), other = vld1q_s8(packed + 48);                                             \
    REPEAT_##n(STEP_C##lane)                                                                                   \
    REPEAT_##n(STEP_D##lane)                                                                                   \
    packed += 4 * EMRL_PANEL;
#define FINISH(r)                                                                                              \
    finish(a##r, weights, column, peaks[r], out + r * stride);                                           \
    finish(b##r, weights, column + 4, peaks[r], out + r * stride);                                       \
    finish(c##r, weights, column + 8, peaks[r], out + r * stride);                                       \
    finish(d##r, weights, column + 12, peaks[r], out + r * stride);
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const int8_t *codes, const emrl_packed *weights, int column,                \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = half_panel(weights, column, 4);                                                 \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 16) {                                                               \
            int8x16_t weight, other;                                                                           \
            REPEAT_##n(CODES)                                                                                  \
            ADD_FOUR(n, 0)                                                                                     \
            ADD_FOUR(n, 1)                                                                                     \
            ADD_FOUR(n, 2)                                                                                     \
            ADD_FOUR(n, 3)                                                                                     \
        }                                                                                                      \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)

static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4, tile_5};
    run_tiles(tiles, TILE_ROWS, codes, peaks, count, weights, out, stride);
}

const emrl_kernels emrl_dotprod = {.name = "dotprod", .group = 4, .code_bytes = 1, ROW_KERNELS};
