/* Kernels for ARM without products of codes that are added up: two products fit into 16 bits. Codes are
 * kept less 128, as signed bytes. */
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

/* sums[r] of four columns: two products of sixteen bits are added before they are widened, since
 * 2 * 128 * 127 fits. Three instructions as one, or GCC 12 moves them apart and spills registers. */
#define PAIRS(sum, low, first, high, second, HALF)                                                             \
    do {                                                                                                       \
        int16x8_t both;                                                                                        \
        __asm__("smull" HALF "\t%1.8h, %2.8b, %3.8b\n\tsmlal" HALF "\t%1.8h, %4.8b, %5.8b\n\t"                  \
                "sadalp\t%0.4s, %1.8h"                                                                         \
                : "+w"(sum), "=&w"(both)                                                                       \
                : "w"(low), "w"(first), "w"(high), "w"(second));                                               \
    } while (0)
#define PAIRS_2(sum, low, first, high, second)                                                                 \
    do {                                                                                                       \
        int16x8_t both;                                                                                        \
        __asm__("smull2\t%1.8h, %2.16b, %3.16b\n\tsmlal2\t%1.8h, %4.16b, %5.16b\n\tsadalp\t%0.4s, %1.8h"        \
                : "+w"(sum), "=&w"(both)                                                                       \
                : "w"(low), "w"(first), "w"(high), "w"(second));                                               \
    } while (0)

#define TILE_ROWS 4
#define DECLARE(r) int32x4_t a##r = vdupq_n_s32(0), b##r = a##r, c##r = a##r, d##r = a##r;
#define STEP(r)                                                                                                \
    {                                                                                                          \
        int8x16_t one = two_codes(codes + r * depth + k), two = two_codes(codes + r * depth + k + 2);          \
        PAIRS(a##r, one, w0, two, w2, "");                                                                     \
        PAIRS_2(b##r, one, w0, two, w2);                                                                       \
        PAIRS(c##r, one, w1, two, w3, "");                                                                     \
        PAIRS_2(d##r, one, w1, two, w3);                                                                       \
    }
#define FINISH(r)                                                                                              \
    finish(a##r, weights, zero, column, peaks[r], out + r * stride);                                           \
    finish(b##r, weights, zero, column + 4, peaks[r], out + r * stride);                                       \
    finish(c##r, weights, zero, column + 8, peaks[r], out + r * stride);                                       \
    finish(d##r, weights, zero, column + 12, peaks[r], out + r * stride);
/* n rows and sixteen columns. Weights lie as pairs of values: k and k + 1 of 32 columns, then the next. */
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const int8_t *codes, const emrl_packed *weights, int column, int zero,                \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = half_panel(weights, column, 2);                                                 \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 4, packed += 4 * EMRL_PANEL) {                                      \
            int8x16_t w0 = vld1q_s8(packed), w1 = vld1q_s8(packed + 16);                                       \
            int8x16_t w2 = vld1q_s8(packed + 2 * EMRL_PANEL), w3 = vld1q_s8(packed + 2 * EMRL_PANEL + 16);     \
            REPEAT_##n(STEP)                                                                                   \
        }                                                                                                      \
        REPEAT_##n(FINISH)                                                                                     \
    }

INLINE int8x16_t two_codes(const int8_t *at)
{
    int16_t two;
    memcpy(&two, at, 2);
    return vreinterpretq_s8_s16(vdupq_n_s16(two));
}

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)

/* Where a weight is -128, two products with it may not fit: one at a time. */
static void tile_wide(const int8_t *codes, const emrl_packed *weights, int column, int zero, const float *peaks,
                      float *out, size_t stride)
{
    (void)stride;
    const int8_t *packed = half_panel(weights, column, 2);
    int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (size_t k = 0; k < (size_t)weights->depth; k += 2, packed += 2 * EMRL_PANEL)
        for (int i = 0; i < 4; i++) {
            int8x8_t weight = vld1_s8(packed + 8 * i);
            sum[i] = vpadalq_s16(sum[i], vmull_s8(weight, vget_low_s8(two_codes(codes + k))));
        }
    for (int i = 0; i < 4; i++)
        finish(sum[i], weights, zero, column + 4 * i, peaks[0], out);
}

static void multiply(const void *codes, const float *peaks, int count, int zero, const emrl_packed *weights,
                     float *out, size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4}, *const wide[] = {tile_wide};
    if (weights->least)
        run_tiles(wide, 1, codes, peaks, count, zero, weights, out, stride);
    else
        run_tiles(tiles, TILE_ROWS, codes, peaks, count, zero, weights, out, stride);
}

const emrl_kernels emrl_neon = {.name = "neon", .group = 2, .code_bytes = 1, ROW_KERNELS};
