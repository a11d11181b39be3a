/* Kernels for AVX-VNNI: 256-bit registers, four products of codes in an instruction and lane. */
#define EMRL_AVX2
#define CODE_TYPE uint8_t
#define STORE_CODES vi_store_u8
#define ATTEND_KEYS 1
#include "rows.h"

#define TILE_ROWS 3

/* The same instruction as AVX-512 encodes it, for tests on processors that have only that. */
#if defined(EMRL_EVEX)
#define PRODUCTS _mm256_dpbusd_epi32
#else
#define PRODUCTS _mm256_dpbusd_avx_epi32
#endif

INLINE __m256i four_codes(const uint8_t *at)
{
    int32_t four;
    memcpy(&four, at, 4);
    return _mm256_set1_epi32(four);
}

#include "ymm.h"

#define CODES(r) __m256i code##r = four_codes(codes + r * depth + k);
#define STEP_A(r) a##r = PRODUCTS(a##r, code##r, weight);
#define STEP_B(r) b##r = PRODUCTS(b##r, code##r, weight);
#define STEP_C(r) c##r = PRODUCTS(c##r, code##r, weight);
#define STEP_D(r) d##r = PRODUCTS(d##r, code##r, weight);
#define WEIGHTS(at) _mm256_load_si256((const __m256i *)(at))
#define DEFINE_TILE(n)                                                                                         \
    static void tile_##n(const uint8_t *codes, const emrl_packed *weights, int panel, const float *peaks,       \
                         float *out, size_t stride)                                                            \
    {                                                                                                          \
        size_t depth = (size_t)weights->depth;                                                                 \
        const int8_t *packed = weights->weights + (size_t)panel * depth;                                       \
        REPEAT_##n(DECLARE)                                                                                    \
        for (size_t k = 0; k < depth; k += 4, packed += 4 * EMRL_PANEL) {                                      \
            REPEAT_##n(CODES)                                                                                  \
            __m256i weight = WEIGHTS(packed);                                                                  \
            REPEAT_##n(STEP_A)                                                                                 \
            weight = WEIGHTS(packed + 32);                                                                     \
            REPEAT_##n(STEP_B)                                                                                 \
            weight = WEIGHTS(packed + 64);                                                                     \
            REPEAT_##n(STEP_C)                                                                                 \
            weight = WEIGHTS(packed + 96);                                                                     \
            REPEAT_##n(STEP_D)                                                                                 \
        }                                                                                                      \
        REPEAT_##n(FINISH)                                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)

RUN_TILES

const emrl_kernels emrl_avxvnni = {.name = "avxvnni", .group = 4, .code_bytes = 1, ROW_KERNELS};
