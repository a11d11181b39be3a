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
#define DECLARE(r) int32x4_t a##r = vdupq_n_s32(0), b##r = a##r, c##r = a##r, d##r = a##r;
#define CODES(r) int8x16_t code##r = vld1q_s8(codes + r * depth + k);
#define STEP(r, lane)                                                                                          \
    a##r = vdotq_laneq_s32(a##r, w0, code##r, lane);                                                           \
    b##r = vdotq_laneq_s32(b##r, w1, code##r, lane);                                                           \
    c##r = vdotq_laneq_s32(c##r, w2, code##r, lane);                                                           \
    d##r = vdotq_laneq_s32(d##r, w3, code##r, lane);
#define STEP_0(r) STEP(r, 0)
#define STEP_1(r) STEP(r, 1)
#define STEP_2(r) STEP(r, 2)
#define STEP_3(r) STEP(r, 3)
#define WEIGHTS                                                                                                \
    w0 = vld1q_s8(packed), w1 = vld1q_s8(packed + 16), w2 = vld1q_s8(packed + 32), w3 = vld1q_s8(packed + 48), \
    packed += 4 * EMRL_PANEL
#define FINISH(r)                                                                                              \
    finish(a##r, weights, zero, column, peaks[r], out + r * stride);                                           \
    finish(b##r, weights, zero, column + 4, peaks[r], out + r * stride);                                       \
    finish(c##r, weights, zero, column + 8, peaks[r], out + r * stride);                                       \
    finish(d##r, weights, zero, column + 12, peaks[r], out + r * stride);
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const int8_t *codes, const emrl_packed *weights, int column, int zero,                \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = half_panel(weights, column, 4);                                                 \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 16) {                                                               \
            int8x16_t w0, w1, w2, w3;                                                                          \
            REPEAT_##n(CODES)                                                                                  \
            WEIGHTS;                                                                                           \
            REPEAT_##n(STEP_0)                                                                                 \
            WEIGHTS;                                                                                           \
            REPEAT_##n(STEP_1)                                                                                 \
            WEIGHTS;                                                                                           \
            REPEAT_##n(STEP_2)                                                                                 \
            WEIGHTS;                                                                                           \
            REPEAT_##n(STEP_3)                                                                                 \
        }                                                                                                      \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)

static void multiply(const void *codes, const float *peaks, int count, int zero, const emrl_packed *weights,
                     float *out, size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4, tile_5};
    run_tiles(tiles, TILE_ROWS, codes, peaks, count, zero, weights, out, stride);
}

const emrl_kernels emrl_dotprod = {.name = "dotprod", .group = 4, .code_bytes = 1, ROW_KERNELS};
