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

INLINE void finish(__m256i sum, const emrl_packed *weights, int zero, int column, float peak, float *out)
{
    __m256i sums = _mm256_load_si256((const __m256i *)(weights->sums + column));
    __m256i shifted = _mm256_sub_epi32(sum, _mm256_mullo_epi32(sums, _mm256_set1_epi32(zero)));
    __m256 whole = _mm256_mul_ps(_mm256_cvtepi32_ps(shifted), _mm256_load_ps(weights->scale + column));
    __m256 scaled = _mm256_mul_ps(whole, _mm256_set1_ps(peak));
    _mm256_storeu_ps(out + column, _mm256_add_ps(scaled, _mm256_load_ps(weights->bias + column)));
}

#define DECLARE(r) __m256i a##r = _mm256_setzero_si256(), b##r = a##r, c##r = a##r, d##r = a##r;
#define CODES(r) __m256i code##r = two_codes(codes + r * depth + k);
#define STEP_A(r) a##r = _mm256_add_epi32(a##r, _mm256_madd_epi16(code##r, weight));
#define STEP_B(r) b##r = _mm256_add_epi32(b##r, _mm256_madd_epi16(code##r, weight));
#define STEP_C(r) c##r = _mm256_add_epi32(c##r, _mm256_madd_epi16(code##r, weight));
#define STEP_D(r) d##r = _mm256_add_epi32(d##r, _mm256_madd_epi16(code##r, weight));
#define FINISH(r)                                                                                              \
    finish(a##r, weights, zero, panel, peaks[r], out + r * stride);                                            \
    finish(b##r, weights, zero, panel + 8, peaks[r], out + r * stride);                                        \
    finish(c##r, weights, zero, panel + 16, peaks[r], out + r * stride);                                       \
    finish(d##r, weights, zero, panel + 24, peaks[r], out + r * stride);
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const uint16_t *codes, const emrl_packed *weights, int panel, int zero,               \
                         const float *peaks, float *out, size_t stride)                                        \
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

typedef void tile_of(const uint16_t *codes, const emrl_packed *weights, int panel, int zero, const float *peaks,
                     float *out, size_t stride);

static void multiply(const void *codes, const float *peaks, int count, int zero, const emrl_packed *weights,
                     float *out, size_t stride)
{
    static tile_of *const tiles[] = {tile_1, tile_2, tile_3};
    size_t depth = (size_t)weights->depth;
    for (int panel = 0; panel < weights->columns; panel += EMRL_PANEL)
        for (int row = 0; row < count; row += TILE_ROWS) {
            int rows = count - row < TILE_ROWS ? count - row : TILE_ROWS;
            tiles[rows - 1]((const uint16_t *)codes + (size_t)row * depth, weights, panel, zero, peaks + row,
                            out + (size_t)row * stride, stride);
        }
}

const emrl_kernels emrl_avx2 = {.name = "avx2", .group = 2, .code_bytes = 2, ROW_KERNELS};
