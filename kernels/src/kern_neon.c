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
#define PAIR(sum, half, size, first, second)                                                                   \
    "smull" half "\t%[x].8h, %[one]." size ", %[" first "]." size "\n\t"                                       \
    "smlal" half "\t%[x].8h, %[two]." size ", %[" second "]." size "\n\t"                                      \
    "sadalp\t%[" sum "].4s, %[x].8h\n\t"
#define ADD_PAIRS(sum0, sum1, sum2, sum3)                                                                      \
    __asm__(PAIR("a", "", "8b", "w0", "w2") PAIR("b", "2", "16b", "w0", "w2")                                  \
                PAIR("c", "", "8b", "w1", "w3") PAIR("d", "2", "16b", "w1", "w3")                              \
            : [a] "+w"(sum0), [b] "+w"(sum1), [c] "+w"(sum2), [d] "+w"(sum3), [x] "=&w"(both)                  \
            : [one] "w"(one), [two] "w"(two), [w0] "w"(w0), [w1] "w"(w1), [w2] "w"(w2), [w3] "w"(w3))

/* Two codes in all lanes; `at` moves on. */
#define NEXT_TWO(made, at) __asm__("ld1r\t{%0.8h}, [%1], #2" : "=w"(made), "+r"(at) : : "memory")

#define TILE_ROWS 4
#define STEP(r)                                                                                                \
    {                                                                                                          \
        int16x8_t both;                                                                                        \
        int8x16_t one, two;                                                                                    \
        NEXT_TWO(one, at##r);                                                                                  \
        NEXT_TWO(two, at##r);                                                                                  \
        ADD_PAIRS(a##r, b##r, c##r, d##r);                                                                     \
    }
#define ROW(r) const int8_t *at##r = codes + r * depth;
#define FINISH(r)                                                                                              \
    finish(a##r, weights, column, peaks[r], out + r * stride);                                           \
    finish(b##r, weights, column + 4, peaks[r], out + r * stride);                                       \
    finish(c##r, weights, column + 8, peaks[r], out + r * stride);                                       \
    finish(d##r, weights, column + 12, peaks[r], out + r * stride);
/* n rows and sixteen columns. Weights lie as pairs of values: k and k + 1 of 32 columns, then the next. */
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const int8_t *codes, const emrl_packed *weights, int column,                \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = half_panel(weights, column, 2);                                                 \
        REPEAT_##n(ROW)                                                                                        \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 4, packed += 4 * EMRL_PANEL) {                                      \
            int8x16_t w0 = vld1q_s8(packed), w1 = vld1q_s8(packed + 16);                                       \
            int8x16_t w2 = vld1q_s8(packed + 2 * EMRL_PANEL), w3 = vld1q_s8(packed + 2 * EMRL_PANEL + 16);     \
            REPEAT_##n(STEP)                                                                                   \
        }                                                                                                      \
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
    const int8_t *packed = half_panel(weights, column, 2), *at = codes;
    int32x4_t sum[4] = {START(0), START(4), START(8), START(12)};
    for (size_t k = 0; k < (size_t)weights->depth; k += 2, packed += 2 * EMRL_PANEL) {
        int8x16_t code;
        NEXT_TWO(code, at);
        for (int i = 0; i < 4; i++)
            sum[i] = vpadalq_s16(sum[i], vmull_s8(vld1_s8(packed + 8 * i), vget_low_s8(code)));
    }
    for (int i = 0; i < 4; i++)
        finish(sum[i], weights, column + 4 * i, peaks[0], out);
}

static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4}, *const wide[] = {tile_wide};
    if (weights->least)
        run_tiles(wide, 1, codes, peaks, count, weights, out, stride);
    else
        run_tiles(tiles, TILE_ROWS, codes, peaks, count, weights, out, stride);
}

const emrl_kernels emrl_neon = {.name = "neon", .group = 2, .code_bytes = 1, ROW_KERNELS};
