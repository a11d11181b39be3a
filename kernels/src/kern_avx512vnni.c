/* Kernels for AVX-512 with VNNI: 512-bit registers, four products of codes in an instruction and lane. */
#define EMRL_AVX512
#define CODE_TYPE uint8_t
#define STORE_CODES vi_store_u8
#define ATTEND_KEYS 2
/* Rows of a tile: 24 sums in registers, two vectors of weights, and a row's codes. Their codes lie together, so
 * that one register points at all of them. */
#define TILE_ROWS 12
#define CODE_ROWS TILE_ROWS
#define CODE_GROUP 4
#define STORE_APART store_apart
#include "vec.h"

INLINE void store_apart(uint8_t *at, size_t step, vi values)
{
    __m128i codes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(values, _mm512_setzero_si512()));
    _mm_storeu_si32(at, codes);
    _mm_storeu_si32(at + step, _mm_shuffle_epi32(codes, 1));
    _mm_storeu_si32(at + 2 * step, _mm_shuffle_epi32(codes, 2));
    _mm_storeu_si32(at + 3 * step, _mm_shuffle_epi32(codes, 3));
}

#include "rows.h"

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

INLINE void finish(vi sum, const emrl_packed *weights, int column, float peak, float *out)
{
    vf whole = vf_mul(vf_of(sum), vf_load(weights->scale + column));
    vf_store(out + column, vf_add(vf_mul(whole, vf_set(peak)), vf_load(weights->bias + column)));
}

/* Weights are asked for so many bytes before they are read: the processor's own guesses end with a page of
 * memory. */
#define AHEAD 4096
#define DECLARE(r) vi low##r = low, high##r = high;
#define STEP(r)                                                                                                \
    code = four_codes(codes + 4 * r);                                                                          \
    low##r = add_products(low##r, code, first);                                                         \
    high##r = add_products(high##r, code, second);
#define FINISH(r)                                                                                              \
    finish(low##r, weights, panel, peaks[r], out + r * stride);                                          \
    finish(high##r, weights, panel + EMRL_LANES, peaks[r], out + r * stride);
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const uint8_t *codes, const emrl_packed *weights, int panel, const float *peaks,        \
                         float *out, size_t stride)                                                            \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = weights->weights + (size_t)panel * depth;                                       \
        vi low = _mm512_load_si512(weights->start + panel);                                                    \
        vi high = _mm512_load_si512(weights->start + panel + EMRL_LANES);                                      \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 4, codes += 4 * n, packed += 4 * EMRL_PANEL) {                      \
            vi code, first = _mm512_load_si512(packed), second = _mm512_load_si512(packed + 64);               \
            __builtin_prefetch(packed + AHEAD);                                                                \
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

typedef void tile_of(const uint8_t *codes, const emrl_packed *weights, int panel, const float *peaks, float *out,
                     size_t stride);

static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
                                     tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
    size_t depth = (size_t)weights->depth;
    for (int panel = 0; panel < weights->columns; panel += EMRL_PANEL)
        for (int row = 0; row < count; row += TILE_ROWS) {
            int rows = count - row < TILE_ROWS ? count - row : TILE_ROWS;
            tiles[rows - 1]((const uint8_t *)codes + (size_t)row * depth, weights, panel, peaks + row,
                            out + (size_t)row * stride, stride);
        }
}

const emrl_kernels emrl_avx512vnni = {.name = "avx512vnni", .group = 4, .code_bytes = 1, ROW_KERNELS};
