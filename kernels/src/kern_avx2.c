/* Kernels for AVX2: codes and weights are widened to 16 bits, so that no sum saturates. */
#define EMRL_AVX2
#define CODE_TYPE uint16_t
#define STORE_CODES store_codes
#define ATTEND_KEYS 1
#include "vec.h"

INLINE void store_codes(uint16_t *at, vi x)
{
    _mm256_storeu_si256((__m256i *)at, _mm256_min_epu16(vi_u16(x), _mm256_set1_epi16(255)));
}

#include "rows.h"

#define TILE_ROWS 3

INLINE __m256i two_codes(const uint16_t *at)
{
    int32_t two;
    memcpy(&two, at, 4);
    return _mm256_set1_epi32(two);
}

INLINE __m256i wide_weights(const int8_t *at)
{
    return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)at));
}

#include "ymm.h"

#define CODES(r) __m256i code##r = two_codes(codes + r * depth + k);
#define STEP_A(r) a##r = _mm256_add_epi32(a##r, _mm256_madd_epi16(code##r, weight));
#define STEP_B(r) b##r = _mm256_add_epi32(b##r, _mm256_madd_epi16(code##r, weight));
#define STEP_C(r) c##r = _mm256_add_epi32(c##r, _mm256_madd_epi16(code##r, weight));
#define STEP_D(r) d##r = _mm256_add_epi32(d##r, _mm256_madd_epi16(code##r, weight));
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const uint16_t *codes, const emrl_packed *weights, int panel, const float *peaks,       \
                         float *out, size_t stride)                                                            \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = weights->weights + (size_t)panel * depth;                                       \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 2, packed += 2 * EMRL_PANEL) {                                      \
            REPEAT_##n(CODES)                                                                                  \
            __m256i weight = wide_weights(packed);                                                             \
            REPEAT_##n(STEP_A)                                                                                 \
            weight = wide_weights(packed + 16);                                                                \
            REPEAT_##n(STEP_B)                                                                                 \
            weight = wide_weights(packed + 32);                                                                \
            REPEAT_##n(STEP_C)                                                                                 \
            weight = wide_weights(packed + 48);                                                                \
            REPEAT_##n(STEP_D)                                                                                 \
        }                                                                                                      \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)

RUN_TILES

const emrl_kernels emrl_avx2 = {.name = "avx2", .group = 2, .code_bytes = 2, ROW_KERNELS};
