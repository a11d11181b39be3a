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

/* Four sums of four columns: two products of sixteen bits are added before they are widened, since
 * 2 * 128 * 127 fits. As one block, or GCC 12 moves the instructions apart and copies registers. */
#define PRODUCTS(sum, half, size, first, second)                                                               \
    "smull" half "\t%[x].8h, %[one]." size ", %[" first "]." size "\n\t"                                       \
    "smlal" half "\t%[x].8h, %[two]." size ", %[" second "]." size "\n\t"                                      \
    "sadalp\t%[" sum "].4s, %[x].8h\n\t"
#define ADD_PAIRS(sum0, sum1, sum2, sum3, x0, x1, y0, y1, y2, y3)                                              \
    do {                                                                                                       \
        int16x8_t both;                                                                                        \
        __asm__(PRODUCTS("a", "", "8b", "w0", "w2") PRODUCTS("b", "2", "16b", "w0", "w2")                      \
                    PRODUCTS("c", "", "8b", "w1", "w3") PRODUCTS("d", "2", "16b", "w1", "w3")                  \
                : [a] "+w"(sum0), [b] "+w"(sum1), [c] "+w"(sum2), [d] "+w"(sum3), [x] "=&w"(both)              \
                : [one] "w"(x0), [two] "w"(x1), [w0] "w"(y0), [w1] "w"(y1), [w2] "w"(y2), [w3] "w"(y3));       \
    } while (0)

/* Two codes in all lanes; `at` moves on. */
#define NEXT_TWO(made, from) __asm__("ld1r\t{%0.8h}, [%1], #2" : "=w"(made), "+r"(from) : : "memory")

/* Eight codes as four pairs, each in all lanes. */
#define NEXT_EIGHT(made, from)                                                                                 \
    __asm__("ld4r\t{%S0.8h - %V0.8h}, [%1], #8" : "=w"(made), "+r"(from) : : "memory")

#define TILE_ROWS 4
#define STEP(r)                                                                                                \
    {                                                                                                          \
        int16x8x4_t pairs;                                                                                     \
        NEXT_EIGHT(pairs, at##r);                                                                              \
        ADD_PAIRS(a##r, b##r, c##r, d##r, pairs.val[0], pairs.val[1], w0, w1, w2, w3);                         \
        ADD_PAIRS(a##r, b##r, c##r, d##r, pairs.val[2], pairs.val[3], w4, w5, w6, w7);                         \
    }
/* Weights of one more pair of values. */
#define NEXT_WEIGHTS(x, y)                                                                                     \
    int8x16_t x, y;                                                                                            \
    {                                                                                                          \
        int8x16x2_t two;                                                                                       \
        __asm__("ld1\t{%S0.16b - %T0.16b}, [%1], %2" : "=w"(two), "+r"(packed) : "r"(step) : "memory");        \
        x = two.val[0], y = two.val[1];                                                                        \
    }
#define ROW(r) const int8_t *at##r = codes + r * depth;
#define FINISH(r)                                                                                              \
    FINISH_FOUR(a##r, a, 0, r)                                                                                 \
    FINISH_FOUR(b##r, b, 4, r)                                                                                 \
    FINISH_FOUR(c##r, c, 8, r)                                                                                 \
    FINISH_FOUR(d##r, d, 12, r)
/* n rows and sixteen columns. Weights lie as pairs of values: k and k + 1 of 32 columns, then the next. */
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const int8_t *codes, const emrl_packed *weights, int column,                \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = part_of_panel(weights, column, 2);                                                 \
        REPEAT_##n(ROW)                                                                                        \
        REPEAT_##n(DECLARE)                                                                                    \
        size_t step = 2 * EMRL_PANEL;                                                                          \
        for (size_t k = 0; k < depth; k += 8) {                                                                \
            NEXT_WEIGHTS(w0, w1)                                                                               \
            NEXT_WEIGHTS(w2, w3)                                                                               \
            NEXT_WEIGHTS(w4, w5)                                                                               \
            NEXT_WEIGHTS(w6, w7)                                                                               \
            REPEAT_##n(STEP)                                                                                   \
        }                                                                                                      \
        SCALES(a, 0)                                                                                           \
        SCALES(b, 4)                                                                                           \
        SCALES(c, 8)                                                                                           \
        SCALES(d, 12)                                                                                          \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)

/* Where a weight is -128, two products with it may not fit: one at a time. */
static void tile_wide(const int8_t *codes, const emrl_packed *weights, int column, const float *peaks,
                      float *out, size_t stride)
{
    (void)stride;
    const int8_t *packed = part_of_panel(weights, column, 2), *at = codes;
    int32x4_t sum[4] = {START(0), START(4), START(8), START(12)};
    for (size_t k = 0; k < (size_t)weights->depth; k += 2, packed += 2 * EMRL_PANEL) {
        int8x16_t code;
        NEXT_TWO(code, at);
        for (int i = 0; i < 4; i++)
            sum[i] = vpadalq_s16(sum[i], vmull_s8(vld1_s8(packed + 8 * i), vget_low_s8(code)));
    }
    SCALES(a, 0)
    SCALES(b, 4)
    SCALES(c, 8)
    SCALES(d, 12)
    FINISH_FOUR(sum[0], a, 0, 0)
    FINISH_FOUR(sum[1], b, 4, 0)
    FINISH_FOUR(sum[2], c, 8, 0)
    FINISH_FOUR(sum[3], d, 12, 0)
}

static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4}, *const wide[] = {tile_wide};
    if (weights->least)
        run_tiles(wide, 1, EMRL_LANES, codes, peaks, count, weights, out, stride);
    else
        run_tiles(tiles, TILE_ROWS, EMRL_LANES, codes, peaks, count, weights, out, stride);
}

const emrl_kernels emrl_neon = {.name = "neon", .group = 2, .code_bytes = 1, ROW_KERNELS};
