/* Kernels for AVX-512 with VNNI: 512-bit registers, four products of codes in an instruction and lane. */
#define EMRL_AVX512
#define CODE_TYPE uint8_t
#define STORE_CODES vi_store_u8
#define ATTEND_KEYS 4
#include "rows.h"

/* Rows of a tile: 24 sums in registers, two vectors of weights, and a row's codes. */
#define TILE_ROWS 12

INLINE vi four_codes(const uint8_t *at)
{
    int32_t four;
    memcpy(&four, at, 4);
    return _mm512_set1_epi32(four);
}

/* sum += codes * weights, four products to a lane. GCC 12 copies the sums of its own function for this
 * between registers and memory, which takes twice the time; so the instruction is named. */
INLINE vi add_products(vi sum, vi codes, vi weights)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(weights));
    return sum;
}

INLINE void finish(vi sum, const emrl_packed *weights, int zero, int column, float peak, float *out)
{
    vi shift = _mm512_mullo_epi32(_mm512_load_si512(weights->sums + column), vi_set(zero));
    vf whole = vf_mul(vf_of(_mm512_sub_epi32(sum, shift)), vf_load(weights->scale + column));
    vf_store(out + column, vf_add(vf_mul(whole, vf_set(peak)), vf_load(weights->bias + column)));
}

#define DECLARE(r) vi low##r = _mm512_setzero_si512(), high##r = low##r;
#define STEP(r)                                                                                                \
    code = four_codes(codes + r * depth + k);                                                                  \
    low##r = add_products(low##r, code, first);                                                         \
    high##r = add_products(high##r, code, second);
#define FINISH(r)                                                                                              \
    finish(low##r, weights, zero, panel, peaks[r], out + r * stride);                                          \
    finish(high##r, weights, zero, panel + EMRL_LANES, peaks[r], out + r * stride);
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const uint8_t *codes, const emrl_packed *weights, int panel, int zero,                \
                         const float *peaks, float *out, size_t stride)                                        \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = weights->weights + (size_t)panel * depth;                                       \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 4) {                                                                \
            vi code, first = _mm512_load_si512(packed + k * EMRL_PANEL);                                       \
            vi second = _mm512_load_si512(packed + k * EMRL_PANEL + 64);                                       \
            REPEAT_##n(STEP)                                                                                   \
        }                                                                                                      \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)
DEFINE_TILE(6)
DEFINE_TILE(7)
DEFINE_TILE(8)
DEFINE_TILE(9)
DEFINE_TILE(10)
DEFINE_TILE(11)
DEFINE_TILE(12)

typedef void tile_of(const uint8_t *codes, const emrl_packed *weights, int panel, int zero, const float *peaks,
                     float *out, size_t stride);

static void multiply(const void *codes, const float *peaks, int count, int zero, const emrl_packed *weights,
                     float *out, size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
                                     tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
    size_t depth = (size_t)weights->depth;
    for (int panel = 0; panel < weights->columns; panel += EMRL_PANEL)
        for (int row = 0; row < count; row += TILE_ROWS) {
            int rows = count - row < TILE_ROWS ? count - row : TILE_ROWS;
            tiles[rows - 1]((const uint8_t *)codes + (size_t)row * depth, weights, panel, zero, peaks + row,
                            out + (size_t)row * stride, stride);
        }
}

const emrl_kernels emrl_avx512vnni = {.name = "avx512vnni", .group = 4, .code_bytes = 1, ROW_KERNELS};
