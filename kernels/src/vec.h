/* Sixteen floats as one value, on every instruction set, with the same results to the last bit.
 *
 * vf holds floats and vi whole numbers. Nothing here is reordered or fused by the compiler
 * (-ffp-contract=off, no -ffast-math): a fused product is one that says vf_fma. */
#ifndef EMRL_VEC_H
#define EMRL_VEC_H

#include "kernels.h"

#include <math.h>
#include <string.h>

/* A sanitizer's checks, inlined sixteen times over, take compilers minutes. */
#if defined(EMRL_CALLS)
#define INLINE static
#else
#define INLINE static inline __attribute__((always_inline))
#endif

/* M(0) M(1) ... : sums of a tile are variables of their own, because arrays do not stay in registers. */
#define REPEAT_1(M) M(0)
#define REPEAT_2(M) REPEAT_1(M) M(1)
#define REPEAT_3(M) REPEAT_2(M) M(2)
#define REPEAT_4(M) REPEAT_3(M) M(3)
#define REPEAT_5(M) REPEAT_4(M) M(4)
#define REPEAT_6(M) REPEAT_5(M) M(5)
#define REPEAT_7(M) REPEAT_6(M) M(6)
#define REPEAT_8(M) REPEAT_7(M) M(7)
#define REPEAT_9(M) REPEAT_8(M) M(8)
#define REPEAT_10(M) REPEAT_9(M) M(9)
#define REPEAT_11(M) REPEAT_10(M) M(10)
#define REPEAT_12(M) REPEAT_11(M) M(11)

#if defined(EMRL_AVX512)
#include <immintrin.h>

typedef __m512 vf;
typedef __m512i vi;

INLINE vf vf_load(const float *at) { return _mm512_loadu_ps(at); }
INLINE void vf_store(float *at, vf a) { _mm512_storeu_ps(at, a); }
INLINE vf vf_set(float a) { return _mm512_set1_ps(a); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
INLINE vi vf_round(vf a) { return _mm512_cvtps_epi32(a); }
INLINE vf vf_of(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vi vi_set(int32_t a) { return _mm512_set1_epi32(a); }
INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vf vf_power(vi a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(a, vi_set(127)), 23)); }
INLINE vf vf_first(vf a, int count, vf others)
{
    return _mm512_mask_blend_ps((__mmask16)(0xFFFFu << count), a, others);
}
INLINE void vi_store_u8(uint8_t *at, vi a)
{
    _mm_storeu_si128((__m128i *)at, _mm512_cvtusepi32_epi8(_mm512_max_epi32(a, _mm512_setzero_si512())));
}

/* to[j * step + r] = row[r][j] for sixteen of each, ascending; rows from `rows` on are zeros. */
INLINE void vf_turn(const float *from, size_t stride, int rows, float *to, size_t step)
{
    vf r[16], t[16];
    for (int i = 0; i < 16; i++)
        r[i] = i < rows ? vf_load(from + (size_t)i * stride) : vf_set(0.0f);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#define PAIRS(call, x, y) _mm512_castpd_ps(call(_mm512_castps_pd(x), _mm512_castps_pd(y)))
    for (int i = 0; i < 16; i += 4) { /* r[i + c]: in quarter q the values 4 q + c of four rows */
        r[i] = PAIRS(_mm512_unpacklo_pd, t[i], t[i + 2]);
        r[i + 1] = PAIRS(_mm512_unpackhi_pd, t[i], t[i + 2]);
        r[i + 2] = PAIRS(_mm512_unpacklo_pd, t[i + 1], t[i + 3]);
        r[i + 3] = PAIRS(_mm512_unpackhi_pd, t[i + 1], t[i + 3]);
    }
#undef PAIRS
    for (int c = 0; c < 4; c++) {
        vf even = _mm512_shuffle_f32x4(r[c], r[c + 4], 0x88), odd = _mm512_shuffle_f32x4(r[c], r[c + 4], 0xDD);
        vf others = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0x88);
        vf last = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0xDD);
        t[c] = _mm512_shuffle_f32x4(even, others, 0x88);
        t[c + 4] = _mm512_shuffle_f32x4(odd, last, 0x88);
        t[c + 8] = _mm512_shuffle_f32x4(even, others, 0xDD);
        t[c + 12] = _mm512_shuffle_f32x4(odd, last, 0xDD);
    }
    for (int j = 0; j < 16; j++)
        vf_store(to + (size_t)j * step, t[j]);
}

/* a * 2^n */
INLINE vf vf_scale(vf a, vf n, vi whole)
{
    (void)whole;
    return _mm512_scalef_ps(a, n);
}

#elif defined(EMRL_AVX2)
#include <immintrin.h>

typedef struct { __m256 a, b; } vf;
typedef struct { __m256i a, b; } vi;
#define BOTH(call) ((vf){call(x.a, y.a), call(x.b, y.b)})

INLINE vf vf_load(const float *at) { return (vf){_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}; }
INLINE void vf_store(float *at, vf x) { _mm256_storeu_ps(at, x.a); _mm256_storeu_ps(at + 8, x.b); }
INLINE vf vf_set(float x) { return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vf vf_add(vf x, vf y) { return BOTH(_mm256_add_ps); }
INLINE vf vf_sub(vf x, vf y) { return BOTH(_mm256_sub_ps); }
INLINE vf vf_mul(vf x, vf y) { return BOTH(_mm256_mul_ps); }
INLINE vf vf_div(vf x, vf y) { return BOTH(_mm256_div_ps); }
INLINE vf vf_max(vf x, vf y) { return BOTH(_mm256_max_ps); }
INLINE vf vf_min(vf x, vf y) { return BOTH(_mm256_min_ps); }
INLINE vf vf_fma(vf x, vf y, vf z) { return (vf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
INLINE vf vf_abs(vf x) { vf y = vf_set(-0.0f); return (vf){_mm256_andnot_ps(y.a, x.a), _mm256_andnot_ps(y.b, x.b)}; }
INLINE vi vf_round(vf x) { return (vi){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
INLINE vf vf_of(vi x) { return (vf){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
INLINE vi vi_set(int32_t x) { return (vi){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE vi vi_add(vi x, vi y) { return (vi){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
INLINE vf vf_power(vi x)
{
    x = vi_add(x, vi_set(127));
    return (vf){_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 23)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 23))};
}
INLINE vf vf_first(vf x, int count, vf others)
{
    __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
    __m256i least = _mm256_set1_epi32(count - 1);
    return (vf){_mm256_blendv_ps(x.a, others.a, _mm256_castsi256_ps(_mm256_cmpgt_epi32(low, least))),
                _mm256_blendv_ps(x.b, others.b, _mm256_castsi256_ps(_mm256_cmpgt_epi32(high, least)))};
}
INLINE __m256i vi_u16(vi x) /* sixteen numbers of 0..65535 */
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xD8);
}
INLINE void vi_store_u8(uint8_t *at, vi x)
{
    __m256i words = vi_u16(x);
    words = _mm256_min_epu16(words, _mm256_set1_epi16(255));
    _mm_storeu_si128((__m128i *)at,
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

#elif defined(EMRL_NEON)
#include <arm_neon.h>

typedef struct { float32x4_t a, b, c, d; } vf;
typedef struct { int32x4_t a, b, c, d; } vi;
#define FOUR(type, call) ((type){call(x.a, y.a), call(x.b, y.b), call(x.c, y.c), call(x.d, y.d)})
#define EACH(type, call) ((type){call(x.a), call(x.b), call(x.c), call(x.d)})
/* Of a number and what is none, the number. Of zeros of both signs others take the second, which nothing here
 * can tell apart: what is made of the result is the same. */
#define GREATER(p, q) vmaxnmq_f32(p, q)
#define LESS(p, q) vminnmq_f32(p, q)

INLINE vf vf_load(const float *at) { return (vf){vld1q_f32(at), vld1q_f32(at + 4), vld1q_f32(at + 8), vld1q_f32(at + 12)}; }
INLINE void vf_store(float *at, vf x)
{
    vst1q_f32(at, x.a);
    vst1q_f32(at + 4, x.b);
    vst1q_f32(at + 8, x.c);
    vst1q_f32(at + 12, x.d);
}
INLINE vf vf_set(float x) { float32x4_t a = vdupq_n_f32(x); return (vf){a, a, a, a}; }
INLINE vf vf_add(vf x, vf y) { return FOUR(vf, vaddq_f32); }
INLINE vf vf_sub(vf x, vf y) { return FOUR(vf, vsubq_f32); }
INLINE vf vf_mul(vf x, vf y) { return FOUR(vf, vmulq_f32); }
INLINE vf vf_div(vf x, vf y) { return FOUR(vf, vdivq_f32); }
INLINE vf vf_max(vf x, vf y) { return FOUR(vf, GREATER); }
INLINE vf vf_min(vf x, vf y) { return FOUR(vf, LESS); }
INLINE vf vf_fma(vf x, vf y, vf z)
{
    return (vf){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
INLINE vf vf_abs(vf x) { return EACH(vf, vabsq_f32); }
/* powers[i] + powers[i + 1] * x, of powers that lie in registers: i is a number, not a variable. */
typedef struct { float32x4_t at[3]; } polynomial;
INLINE polynomial polynomial_of(const float *powers)
{
    return (polynomial){{vld1q_f32(powers), vld1q_f32(powers + 4), vld1q_f32(powers + 8)}};
}
#define PAIR_OF(t, i, p)                                                                                       \
    vfmaq_laneq_f32(vdupq_laneq_f32(t.at[(i) / 4], (i) % 4), p, t.at[((i) + 1) / 4], ((i) + 1) % 4)
#define PAIR(t, i, x) ((vf){PAIR_OF(t, i, x.a), PAIR_OF(t, i, x.b), PAIR_OF(t, i, x.c), PAIR_OF(t, i, x.d)})
INLINE vi vf_round(vf x) { return EACH(vi, vcvtnq_s32_f32); }
INLINE vf vf_of(vi x) { return EACH(vf, vcvtq_f32_s32); }
INLINE vi vi_set(int32_t x) { int32x4_t a = vdupq_n_s32(x); return (vi){a, a, a, a}; }
INLINE vi vi_add(vi x, vi y) { return FOUR(vi, vaddq_s32); }
#define POWER(p) vreinterpretq_f32_s32(vshlq_n_s32(p, 23))
INLINE vf vf_power(vi x)
{
    x = vi_add(x, vi_set(127));
    return EACH(vf, POWER);
}
INLINE vf vf_first(vf x, int count, vf others)
{
    float lane[2 * EMRL_LANES];
    vf_store(lane, x);
    vf_store(lane + EMRL_LANES, others);
    for (int i = count; i < EMRL_LANES; i++)
        lane[i] = lane[EMRL_LANES + i];
    return vf_load(lane);
}
INLINE uint8x16_t vi_u8(vi x)
{
    int16x8_t low = vcombine_s16(vqmovn_s32(x.a), vqmovn_s32(x.b)), high = vcombine_s16(vqmovn_s32(x.c), vqmovn_s32(x.d));
    return vcombine_u8(vqmovun_s16(low), vqmovun_s16(high));
}
INLINE void vi_store_u8(uint8_t *at, vi x) { vst1q_u8(at, vi_u8(x)); }

/* to[j * step + r] = row[r][j] for four of each. */
INLINE void vf_turn(const float *from, size_t stride, float *to, size_t step)
{
    float32x4_t a = vld1q_f32(from), b = vld1q_f32(from + stride);
    float32x4_t c = vld1q_f32(from + 2 * stride), d = vld1q_f32(from + 3 * stride);
    float32x4_t low = vzip1q_f32(a, c), high = vzip2q_f32(a, c), others = vzip1q_f32(b, d), last = vzip2q_f32(b, d);
    vst1q_f32(to, vzip1q_f32(low, others));
    vst1q_f32(to + step, vzip2q_f32(low, others));
    vst1q_f32(to + 2 * step, vzip1q_f32(high, last));
    vst1q_f32(to + 3 * step, vzip2q_f32(high, last));
}

/* By halves, as below. */
INLINE float vf_sum(vf x)
{
    float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
INLINE float vf_largest(vf x)
{
    return vmaxnmvq_f32(GREATER(GREATER(x.a, x.c), GREATER(x.b, x.d)));
}

#else /* plain C */

typedef struct { float at[EMRL_LANES]; } vf;
typedef struct { int32_t at[EMRL_LANES]; } vi;
#define LANES(type, expression)                                                                                \
    type made;                                                                                                 \
    for (int i = 0; i < EMRL_LANES; i++)                                                                       \
        made.at[i] = (expression);                                                                             \
    return made

INLINE vf vf_load(const float *at) { vf made; memcpy(&made, at, sizeof made); return made; }
INLINE void vf_store(float *at, vf x) { memcpy(at, &x, sizeof x); }
INLINE vf vf_set(float x) { LANES(vf, x); }
INLINE vf vf_add(vf x, vf y) { LANES(vf, x.at[i] + y.at[i]); }
INLINE vf vf_sub(vf x, vf y) { LANES(vf, x.at[i] - y.at[i]); }
INLINE vf vf_mul(vf x, vf y) { LANES(vf, x.at[i] * y.at[i]); }
INLINE vf vf_div(vf x, vf y) { LANES(vf, x.at[i] / y.at[i]); }
INLINE vf vf_max(vf x, vf y) { LANES(vf, x.at[i] > y.at[i] ? x.at[i] : y.at[i]); }
INLINE vf vf_min(vf x, vf y) { LANES(vf, x.at[i] < y.at[i] ? x.at[i] : y.at[i]); }
INLINE vf vf_fma(vf x, vf y, vf z) { LANES(vf, fmaf(x.at[i], y.at[i], z.at[i])); }
INLINE vf vf_abs(vf x) { LANES(vf, fabsf(x.at[i])); }
/* To the nearest, of two the even one: adding 1.5 * 2^23 leaves no bits for fractions. */
INLINE int32_t nearest(float x)
{
    union { float real; int32_t whole; } bits = {.real = x + 12582912.0f};
    return bits.whole - 0x4B400000;
}
INLINE vi vf_round(vf x) { LANES(vi, nearest(x.at[i])); }
INLINE vf vf_of(vi x) { LANES(vf, (float)x.at[i]); }
INLINE vi vi_set(int32_t x) { LANES(vi, x); }
INLINE vi vi_add(vi x, vi y) { LANES(vi, x.at[i] + y.at[i]); }
INLINE float power(int32_t x)
{
    union { uint32_t whole; float real; } bits = {.whole = (uint32_t)(x + 127) << 23};
    return bits.real;
}
INLINE vf vf_power(vi x) { LANES(vf, power(x.at[i])); }
INLINE vf vf_first(vf x, int count, vf others) { LANES(vf, i < count ? x.at[i] : others.at[i]); }
INLINE void vi_store_u8(uint8_t *at, vi x)
{
    for (int i = 0; i < EMRL_LANES; i++)
        at[i] = (uint8_t)(x.at[i] < 0 ? 0 : x.at[i] > 255 ? 255 : x.at[i]);
}
#endif

#if !defined(EMRL_NEON)
typedef const float *polynomial;
INLINE polynomial polynomial_of(const float *powers) { return powers; }
#define PAIR(t, i, x) vf_fma(vf_set(t[(i) + 1]), x, vf_set(t[i]))
#endif

#if !defined(EMRL_AVX512)
INLINE vf vf_scale(vf a, vf n, vi whole)
{
    (void)n;
    return vf_mul(a, vf_power(whole));
}
#endif

#if defined(EMRL_AVX512) || defined(EMRL_AVX2)
/* The sum of all lanes, by halves, and the largest. */
#if defined(EMRL_AVX512)
#define HALVES(a, call) call(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1))
#else
#define HALVES(x, call) call(x.a, x.b)
#endif
#define WITHIN(name, wide, half, one)                                                                          \
    INLINE float name(vf x)                                                                                    \
    {                                                                                                          \
        __m256 eight = HALVES(x, wide);                                                                        \
        __m128 four = half(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));                    \
        __m128 two = half(four, _mm_movehl_ps(four, four));                                                    \
        return _mm_cvtss_f32(one(two, _mm_shuffle_ps(two, two, 1)));                                           \
    }
WITHIN(vf_sum, _mm256_add_ps, _mm_add_ps, _mm_add_ss)
WITHIN(vf_largest, _mm256_max_ps, _mm_max_ps, _mm_max_ss)
#elif !defined(EMRL_NEON)
/* The sum of all lanes, by halves. */
INLINE float vf_sum(vf a)
{
    float lane[EMRL_LANES];
    vf_store(lane, a);
    for (int half = EMRL_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

INLINE float vf_largest(vf a)
{
    float lane[EMRL_LANES];
    vf_store(lane, a);
    for (int half = EMRL_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}
#endif

/* Of e^x = 1 + x + x^2 * (...), the lowest first. */
static const float exp_powers[12] = {5.0000001201e-1f, 1.6666665459e-1f, 4.1665795894e-2f,
                                     8.3334519073e-3f, 1.3981999507e-3f, 1.9875691500e-4f};

/* e^a for -87.3 <= a <= 88, and for lower ones as if they were there: the Cephes library's expf, whose error is
 * below 2e-7 of the result. */
INLINE vf vf_exp_below(vf a)
{
    polynomial powers = polynomial_of(exp_powers);
    a = vf_max(a, vf_set(-87.3f));
    vi whole = vf_round(vf_mul(a, vf_set(1.44269504f)));
    vf n = vf_of(whole);
    vf r = vf_fma(n, vf_set(-0.693359375f), a);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf square = vf_mul(r, r), p = PAIR(powers, 4, r);
    p = vf_fma(p, square, PAIR(powers, 2, r));
    p = vf_fma(p, square, PAIR(powers, 0, r));
    p = vf_fma(p, square, vf_add(r, vf_set(1.0f)));
    return vf_scale(p, n, whole);
}

/* The same, and for higher ones as if they were there. */
INLINE vf vf_exp(vf a)
{
    return vf_exp_below(vf_min(a, vf_set(88.0f)));
}

#endif
