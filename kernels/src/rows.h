/* Everything but integer products: coding, norms, activations, attention, small matrices. Each kernel file
 * includes it behind vec.h, and defines first
 *   CODE_TYPE     what a code is stored as, uint8_t or uint16_t
 *   STORE_CODES   stores 16 codes of a vi at a CODE_TYPE *
 *   CODE_BIAS     what is taken from a code before it is stored modulo 256; 0 where it is not defined
 *   ATTEND_KEYS   vectors of keys that are compared at a time: what the registers hold
 */
#ifndef EMRL_ROWS_H
#define EMRL_ROWS_H

#include "vec.h"

#if !defined(CODE_BIAS)
#define CODE_BIAS 0
#endif

/* Keys of a text behind its end: less than any score. */
#define NO_SCORE (-3.0e38f)

INLINE vf coded(const float *row, int at, const emrl_coding *coding)
{
    vf x = vf_load(row + at);
    if (coding->smooth != NULL)
        x = vf_mul(x, vf_load(coding->smooth + at));
    if (coding->offset != NULL)
        x = vf_add(x, vf_load(coding->offset + at));
    return x;
}

/* Codes of a row: the nearest of x * factor, or x / step. */
static void code_row(const float *row, int width, const emrl_coding *coding, float factor, CODE_TYPE *codes)
{
    vf by = vf_set(coding->fixed ? coding->step : factor), most = vf_set(1024.0f), least = vf_set(-1024.0f);
    vi zero = vi_set(coding->zero);
    for (int at = 0; at < width; at += EMRL_LANES) {
        vf x = coded(row, at, coding);
        x = coding->fixed ? vf_div(x, by) : vf_mul(x, by);
        STORE_CODES(codes + at, vi_add(vf_round(vf_min(vf_max(x, least), most)), zero));
    }
}

static float peak_of(const float *row, int width, const emrl_coding *coding)
{
    vf most = vf_set(0.0f);
    int at = 0;
    if (!coding->magnitude)
        most = vf_set(NO_SCORE);
    for (; at + EMRL_LANES <= width; at += EMRL_LANES) {
        vf x = coded(row, at, coding);
        most = vf_max(most, coding->magnitude ? vf_abs(x) : x);
    }
    if (at < width) { /* what lies behind the row does not count */
        vf x = coded(row, at, coding);
        most = vf_max(most, vf_first(coding->magnitude ? vf_abs(x) : x, width - at, most));
    }
    float peak = vf_largest(most);
    return peak > coding->least ? peak : coding->least;
}

static void code(const float *rows, size_t stride, int count, int width, const emrl_coding *coding, void *codes,
                 int depth, float *peaks)
{
    for (int i = 0; i < count; i++) {
        const float *row = rows + (size_t)i * stride;
        CODE_TYPE *out = (CODE_TYPE *)codes + (size_t)i * (size_t)depth;
        peaks[i] = coding->fixed ? 1.0f : peak_of(row, width, coding);
        code_row(row, width, coding, coding->levels / peaks[i], out);
        for (int at = width; at < depth; at++) /* weights there are zeros; this keeps rows the same */
            out[at] = CODE_BIAS;
    }
}

static void norm(float *rows, const float *others, size_t stride, int count, int width, const float *gain,
                 const float *bias, float epsilon)
{
    int whole = width / EMRL_LANES * EMRL_LANES;
    vf zero = vf_set(0.0f);
    for (int i = 0; i < count; i++) {
        float *row = rows + (size_t)i * stride;
        vf sum = zero, squares = zero;
        for (int at = 0; at < width; at += EMRL_LANES) {
            vf x = vf_load(row + at);
            if (others != NULL) {
                x = vf_add(x, vf_load(others + (size_t)i * stride + at));
                vf_store(row + at, x);
            }
            sum = vf_add(sum, x);
        }
        vf mean = vf_set(vf_sum(sum) / (float)width);
        for (int at = 0; at < width; at += EMRL_LANES) {
            vf x = vf_sub(vf_load(row + at), mean);
            if (at == whole)
                x = vf_first(x, width - at, zero);
            squares = vf_fma(x, x, squares);
        }
        vf factor = vf_set(1.0f / sqrtf(vf_sum(squares) / (float)width + epsilon));
        for (int at = 0; at < width; at += EMRL_LANES) {
            vf x = vf_mul(vf_sub(vf_load(row + at), mean), factor);
            vf_store(row + at, vf_fma(x, vf_load(gain + at), vf_load(bias + at)));
        }
    }
}

/* GELU by tanh (arXiv 1606.08415): x * sigmoid(2 u) */
INLINE vf gelu_tanh(vf x)
{
    vf u = vf_mul(x, vf_fma(vf_mul(x, x), vf_set(-2.0f * 0.035677408136f), vf_set(-2.0f * 0.7978845608f)));
    return vf_div(x, vf_add(vf_set(1.0f), vf_exp(u)));
}

/* GELU by erf, of Abramowitz and Stegun 7.1.26: its error is below 1.5e-7. */
INLINE vf gelu_erf(vf x)
{
    vf one = vf_set(1.0f), z = vf_mul(vf_abs(x), vf_set(0.70710678f));
    vf t = vf_div(one, vf_fma(z, vf_set(0.3275911f), one));
    vf p = vf_fma(t, vf_set(1.061405429f), vf_set(-1.453152027f));
    p = vf_fma(p, t, vf_set(1.421413741f));
    p = vf_fma(p, t, vf_set(-0.284496736f));
    p = vf_fma(p, t, vf_set(0.254829592f));
    vf tail = vf_mul(vf_mul(p, t), vf_exp(vf_sub(vf_set(0.0f), vf_mul(z, z)))); /* 1 - erf(z) */
    /* x * (1 + erf(x / sqrt 2)) / 2, which is max(x, 0) - |x| * (1 - erf) / 2 on both sides */
    return vf_sub(vf_max(x, vf_set(0.0f)), vf_mul(vf_mul(vf_abs(x), vf_set(0.5f)), tail));
}

static void activate(float *rows, size_t stride, int count, int width, int activation)
{
    for (int i = 0; i < count; i++) {
        float *row = rows + (size_t)i * stride;
        for (int at = 0; at < width; at += EMRL_LANES) {
            vf x = vf_load(row + at);
            x = activation == 0 ? gelu_tanh(x) : activation == 1 ? gelu_erf(x) : vf_max(x, vf_set(0.0f));
            vf_store(row + at, x);
        }
    }
}

/* --- attention --- */

#if defined(EMRL_NEON)
#include "attend_neon.h"
#else

#define ATTEND_ROWS 6
#define TO_ZERO(r) vf sum##r = vf_set(0.0f);
#define SCORE(r) sum##r = vf_fma(vf_set(q[r][j]), key, sum##r);
#define KEEP(r) vf_store(scores + r * padded, sum##r);

/* Scores of ATTEND_ROWS queries and a vector of keys. */
static void score_one(const float *const *q, const float *keys, size_t padded, int width, float *scores)
{
    REPEAT_6(TO_ZERO)
    for (int j = 0; j < width; j++) {
        vf key = vf_load(keys + (size_t)j * padded);
        REPEAT_6(SCORE)
    }
    REPEAT_6(KEEP)
}

#define MIX(r) sum##r = vf_fma(vf_set(weights[r * padded + (size_t)t]), value, sum##r);
#define KEEP_MIXED(r) vf_store(out + r * EMRL_LANES, vf_mul(sum##r, vf_set(factors[r])));

/* One vector of columns of ATTEND_ROWS outputs: weights @ values. */
static void mix_tile(const float *weights, size_t padded, const float *values, size_t columns, int tokens,
                     const float *factors, float *out)
{
    REPEAT_6(TO_ZERO)
    for (int t = 0; t < tokens; t++) {
        vf value = vf_load(values + (size_t)t * columns);
        REPEAT_6(MIX)
    }
    REPEAT_6(KEEP_MIXED)
}

#endif

#if ATTEND_KEYS == 4
#define TO_ZERO_4(r) vf a##r = vf_set(0.0f), b##r = a##r, c##r = a##r, d##r = a##r;
#define SCORE_4(r)                                                                                             \
    x = vf_set(q[r][j]);                                                                                       \
    a##r = vf_fma(x, first, a##r);                                                                             \
    b##r = vf_fma(x, second, b##r);                                                                            \
    c##r = vf_fma(x, third, c##r);                                                                             \
    d##r = vf_fma(x, fourth, d##r);
#define KEEP_4(r)                                                                                              \
    vf_store(scores + r * padded, a##r);                                                                       \
    vf_store(scores + r * padded + EMRL_LANES, b##r);                                                          \
    vf_store(scores + r * padded + 2 * EMRL_LANES, c##r);                                                      \
    vf_store(scores + r * padded + 3 * EMRL_LANES, d##r);

/* The same for four vectors of keys, where there are registers for 24 sums. */
static void score_four(const float *const *q, const float *keys, size_t padded, int width, float *scores)
{
    REPEAT_6(TO_ZERO_4)
    for (int j = 0; j < width; j++) {
        const float *at = keys + (size_t)j * padded;
        vf x, first = vf_load(at), second = vf_load(at + EMRL_LANES);
        vf third = vf_load(at + 2 * EMRL_LANES), fourth = vf_load(at + 3 * EMRL_LANES);
        REPEAT_6(SCORE_4)
    }
    REPEAT_6(KEEP_4)
}
#endif

/* Turn a row of scores into weights that are not yet divided by their sum, which is returned. */
static float soften(float *scores, int tokens, float scale)
{
    vf none = vf_set(NO_SCORE), by = vf_set(scale), sum = vf_set(0.0f), most = none;
    int last = (tokens - 1) / EMRL_LANES * EMRL_LANES;
    vf_store(scores + last, vf_first(vf_load(scores + last), tokens - last, none));
    for (int at = 0; at <= last; at += EMRL_LANES)
        most = vf_max(most, vf_load(scores + at));
    most = vf_set(vf_largest(most));
    for (int at = 0; at <= last; at += EMRL_LANES) {
        vf x = vf_exp(vf_mul(vf_sub(vf_load(scores + at), most), by));
        if (at == last)
            x = vf_first(x, tokens - last, vf_set(0.0f));
        vf_store(scores + at, x);
        sum = vf_add(sum, x);
    }
    return vf_sum(sum);
}

static void attend(const float *q, const float *k, const float *v, size_t stride, int tokens, int width,
                   float scale, float *out, size_t out_stride, float *scratch)
{
    size_t padded = emrl_up((size_t)tokens, EMRL_LANES), columns = emrl_up((size_t)width, EMRL_LANES);
    float *keys = scratch, *values = keys + padded * (size_t)width;
    float *scores = values + (size_t)tokens * columns, *mixed = scores + ATTEND_ROWS * padded;
    for (int t = 0; t < tokens; t++) {
        const float *key = k + (size_t)t * stride;
        for (int j = 0; j < width; j++)
            keys[(size_t)j * padded + (size_t)t] = key[j];
        memcpy(values + (size_t)t * columns, v + (size_t)t * stride, (size_t)width * sizeof *values);
        memset(values + (size_t)t * columns + width, 0, (columns - (size_t)width) * sizeof *values);
    }
    for (int j = 0; j < width; j++)
        for (size_t t = (size_t)tokens; t < padded; t++)
            keys[(size_t)j * padded + t] = 0.0f;
    for (int first = 0; first < tokens; first += ATTEND_ROWS) {
        const float *rows[ATTEND_ROWS];
        float factors[ATTEND_ROWS];
        for (int r = 0; r < ATTEND_ROWS; r++) /* behind the last row it is computed again */
            rows[r] = q + (size_t)(first + r < tokens ? first + r : tokens - 1) * stride;
        size_t t = 0;
#if ATTEND_KEYS == 4
        for (; t + 4 * EMRL_LANES <= padded; t += 4 * EMRL_LANES)
            score_four(rows, keys + t, padded, width, scores + t);
#endif
        for (; t < padded; t += EMRL_LANES)
            score_one(rows, keys + t, padded, width, scores + t);
        int count = tokens - first < ATTEND_ROWS ? tokens - first : ATTEND_ROWS;
        for (int r = 0; r < ATTEND_ROWS; r++)
            factors[r] = r < count ? 1.0f / soften(scores + (size_t)r * padded, tokens, scale) : 0.0f;
        for (size_t column = 0; column < columns; column += EMRL_LANES) {
            size_t used = (size_t)width - column < EMRL_LANES ? (size_t)width - column : EMRL_LANES;
            mix_tile(scores, padded, values + column, columns, tokens, factors, mixed);
            for (int r = 0; r < count; r++)
                memcpy(out + (size_t)(first + r) * out_stride + column, mixed + r * EMRL_LANES, used * sizeof *out);
        }
    }
}

/* --- small matrices --- */

static void transform(const float *x, const float *matrix, int in, int columns, float *out)
{
    for (int at = 0; at < columns; at += EMRL_LANES) {
        vf sum = vf_set(0.0f);
        for (int i = 0; i < in; i++)
            sum = vf_fma(vf_set(x[i]), vf_load(matrix + (size_t)i * (size_t)columns + at), sum);
        vf_store(out + at, sum);
    }
}

static float dot(const float *a, const float *b, int width)
{
    vf sum = vf_set(0.0f);
    for (int at = 0; at < width; at += EMRL_LANES)
        sum = vf_fma(vf_load(a + at), vf_load(b + at), sum);
    return vf_sum(sum);
}

static float exponential(float x)
{
    float lane[EMRL_LANES];
    vf_store(lane, vf_exp(vf_set(x)));
    return lane[0];
}

#define ROW_KERNELS                                                                                            \
    .code_bias = CODE_BIAS, .code = code, .multiply = multiply, .norm = norm, .activate = activate, .attend = attend,                  \
    .transform = transform, .dot = dot, .exponential = exponential, .within8 = within8, .within16 = within16,  \
    .hamming8 = hamming8, .hamming16 = hamming16, .dot8 = dot8, .dot4 = dot4, .common = common

#include "bits.h"

#endif
