/* Everything but integer products: activations, coding, norms, attention, small matrices. Each kernel file
 * includes it behind vec.h, and defines first
 *   CODE_TYPE     what a code is stored as, uint8_t or uint16_t
 *   STORE_CODES   stores 16 codes of a vi at a CODE_TYPE *
 *   CODE_BIAS     what is taken from a code before it is stored modulo 256; 0 where it is not defined
 *   CODE_ROWS     rows of codes that lie interleaved, see emrl_kernels; 1 where it is not defined
 *   CODE_GROUP    codes of a row that lie together, and
 *   STORE_APART   stores 16 codes of a vi in such groups, so many bytes apart, where CODE_ROWS is not 1
 *   ATTEND_KEYS   vectors of keys that are compared at a time, 1 or 2: what the registers hold
 */
#ifndef EMRL_ROWS_H
#define EMRL_ROWS_H

#include "vec.h"

#if !defined(CODE_BIAS)
#define CODE_BIAS 0
#endif
#if !defined(CODE_ROWS)
#define CODE_ROWS 1
#define CODE_GROUP 1
#define STORE_APART(at, step, values) STORE_CODES(at, values)
#endif

/* Keys of a text behind its end: less than any score. */
#define NO_SCORE (-3.0e38f)

/* GELU, x times the normal distribution's integral, as a polynomial: 1/2 + x * p(s) up to |x| = 4.75, where the
 * integral is 1 within a float's last bits, with s = 2 (x / 4.75)^2 - 1, lowest power first. Fitted for the least
 * error of the product: below 6e-6 of the exact function, and of the one by tanh (arXiv 1606.08415). Steps of
 * codes are a thousand times as large. */
#define GELU_END 4.75f
#define GELU_POWERS 12
static const float gelu_erf[GELU_POWERS] = {
    0.148748353f,  -0.073669225f, 0.0532333963f,   -0.0405317731f, 0.0303973034f,  -0.02184866f,
    0.0135126589f, -0.00678688567f, 0.00474386523f, -0.00400537997f, 0.00146950386f};
static const float gelu_tanh[GELU_POWERS] = {
    0.148771256f,  -0.0737565905f,  0.0533579178f,  -0.0405828506f,  0.0302640088f, -0.0213372987f,
    0.0126850484f, -0.00647784863f, 0.00535154436f, -0.00466690073f, 0.00165487092f};

INLINE vf gelu(vf x, polynomial powers)
{
    vf end = vf_set(GELU_END), near = vf_max(vf_min(x, end), vf_set(-GELU_END));
    vf s = vf_fma(vf_mul(near, near), vf_set(2.0f / (GELU_END * GELU_END)), vf_set(-1.0f));
    /* By pairs: fewer sums wait for each other. */
    vf square = vf_mul(s, s), p = PAIR(powers, 10, s);
    p = vf_fma(p, square, PAIR(powers, 8, s));
    p = vf_fma(p, square, PAIR(powers, 6, s));
    p = vf_fma(p, square, PAIR(powers, 4, s));
    p = vf_fma(p, square, PAIR(powers, 2, s));
    p = vf_fma(p, square, PAIR(powers, 0, s));
    return vf_mul(x, vf_fma(near, p, vf_set(0.5f)));
}

/* What is coded: x * smooth + offset. */
INLINE vf coded(vf x, int at, const float *smooth, const float *offset)
{
    if (smooth != NULL)
        x = vf_mul(x, vf_load(smooth + at));
    if (offset != NULL)
        x = vf_add(x, vf_load(offset + at));
    return x;
}

/* Rows are changed in place: what points into `coding` is read before, so that the compiler keeps it. */
#define ACTIVATE(made)                                                                                         \
    for (int at = 0; at < width; at += EMRL_LANES) {                                                           \
        vf x = vf_load(row + at);                                                                              \
        vf_store(row + at, coded(made, at, smooth, offset));                                                   \
    }

static void activate(float *row, int width, const emrl_coding *coding)
{
    const float *smooth = coding->smooth, *offset = coding->offset;
    polynomial tanh_powers = polynomial_of(gelu_tanh), erf_powers = polynomial_of(gelu_erf);
    if (coding->activation == EMRL_GELU_TANH)
        ACTIVATE(gelu(x, tanh_powers))
    else if (coding->activation == EMRL_GELU_ERF)
        ACTIVATE(gelu(x, erf_powers))
    else
        ACTIVATE(vf_max(x, vf_set(0.0f)))
}

/* Codes of one of `rows` interleaved rows: the nearest of x * factor. */
static void code_row(const float *row, int width, const float *smooth, const float *offset, float factor, int zero,
                     size_t rows, CODE_TYPE *codes)
{
    vf by = vf_set(factor), most = vf_set(1024.0f), least = vf_set(-1024.0f);
    vi shift = vi_set(zero);
    for (int at = 0; at < width; at += EMRL_LANES) {
        vf x = vf_mul(coded(vf_load(row + at), at, smooth, offset), by);
        STORE_APART(codes + (size_t)at * rows, CODE_GROUP * rows, vi_add(vf_round(vf_min(vf_max(x, least), most)), shift));
    }
}

static float peak_of(const float *row, int width, const float *smooth, const float *offset, bool magnitude)
{
    vf most = vf_set(magnitude ? 0.0f : NO_SCORE);
    int at = 0;
    for (; at + EMRL_LANES <= width; at += EMRL_LANES) {
        vf x = coded(vf_load(row + at), at, smooth, offset);
        most = vf_max(most, magnitude ? vf_abs(x) : x);
    }
    if (at < width) { /* what lies behind the row does not count */
        vf x = coded(vf_load(row + at), at, smooth, offset);
        most = vf_max(most, vf_first(magnitude ? vf_abs(x) : x, width - at, most));
    }
    return vf_largest(most);
}

static void code(float *from, size_t stride, int count, int width, const emrl_coding *coding, void *codes,
                 int depth, float *peaks)
{
    for (int i = 0; i < count; i++) {
        float *row = from + (size_t)i * stride;
        int first = i / CODE_ROWS * CODE_ROWS, rest = count - first;
        size_t beside = (size_t)(rest < CODE_ROWS ? rest : CODE_ROWS);
        CODE_TYPE *out = (CODE_TYPE *)codes + (size_t)first * (size_t)depth + CODE_GROUP * (size_t)(i - first);
        const float *smooth = coding->smooth, *offset = coding->offset;
        if (coding->activation != EMRL_NO_ACTIVATION) {
            activate(row, width, coding);
            smooth = offset = NULL;
        }
        float peak = 1.0f;
        if (!coding->fixed) {
            peak = peak_of(row, width, smooth, offset, coding->magnitude);
            peak = peak > coding->least ? peak : coding->least;
        }
        peaks[i] = peak;
        code_row(row, width, smooth, offset, (coding->fixed ? 1.0f / coding->step : coding->levels / peak),
                 coding->zero, beside, out);
        for (size_t at = (size_t)width; at < (size_t)depth; at++) /* weights there are zeros */
            out[at / CODE_GROUP * CODE_GROUP * beside + at % CODE_GROUP] = CODE_BIAS;
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

/* --- attention --- */

#if defined(EMRL_NEON)
#include "attend_neon.h"
#else

/* Rows of queries that go through together: as many as there are registers for sums of a vector each, or of two. */
#if ATTEND_KEYS == 2
#define ATTEND_ROWS 12
#define EACH_ROW REPEAT_12
#else
#define ATTEND_ROWS 6
#define EACH_ROW REPEAT_6
#endif

#define TO_ZERO(r) vf sum##r = vf_set(0.0f);
#define SCORE(r) sum##r = vf_fma(vf_set(q[j * ATTEND_ROWS + r]), key, sum##r);
#define KEEP(r) vf_store(scores + r * padded, sum##r);

/* Scores of ATTEND_ROWS queries, which lie side by side, and a vector of keys. */
static void score_one(const float *q, const float *keys, size_t padded, int width, float *scores)
{
    EACH_ROW(TO_ZERO)
    for (int j = 0; j < width; j++) {
        vf key = vf_load(keys + (size_t)j * padded);
        EACH_ROW(SCORE)
    }
    EACH_ROW(KEEP)
}

#define MIX(r) sum##r = vf_fma(vf_set(weights[r * padded + (size_t)t]), value, sum##r);
#define KEEP_MIXED(r) vf_store(out + r * EMRL_LANES, vf_mul(sum##r, vf_set(factors[r])));

/* One vector of columns of ATTEND_ROWS outputs: weights @ values. */
static void mix_one(const float *weights, size_t padded, const float *values, size_t columns, int tokens,
                    const float *factors, float *out)
{
    EACH_ROW(TO_ZERO)
    for (int t = 0; t < tokens; t++) {
        vf value = vf_load(values + (size_t)t * columns);
        EACH_ROW(MIX)
    }
    EACH_ROW(KEEP_MIXED)
}

#endif

#if ATTEND_KEYS == 2
#define TO_ZERO_2(r) vf a##r = vf_set(0.0f), b##r = a##r;
#define SCORE_2(r)                                                                                             \
    x = vf_set(q[j * ATTEND_ROWS + r]);                                                                        \
    a##r = vf_fma(x, first, a##r);                                                                             \
    b##r = vf_fma(x, second, b##r);
#define KEEP_2(r)                                                                                              \
    vf_store(scores + r * padded, a##r);                                                                       \
    vf_store(scores + r * padded + EMRL_LANES, b##r);

/* The same for two vectors of keys. */
static void score_two(const float *q, const float *keys, size_t padded, int width, float *scores)
{
    EACH_ROW(TO_ZERO_2)
    for (int j = 0; j < width; j++) {
        vf x, first = vf_load(keys + (size_t)j * padded), second = vf_load(keys + (size_t)j * padded + EMRL_LANES);
        EACH_ROW(SCORE_2)
    }
    EACH_ROW(KEEP_2)
}

#define MIX_2(r)                                                                                               \
    x = vf_set(weights[r * padded + (size_t)t]);                                                               \
    a##r = vf_fma(x, first, a##r);                                                                             \
    b##r = vf_fma(x, second, b##r);
#define KEEP_MIXED_2(r)                                                                                        \
    vf_store(out + 2 * r * EMRL_LANES, vf_mul(a##r, vf_set(factors[r])));                                      \
    vf_store(out + (2 * r + 1) * EMRL_LANES, vf_mul(b##r, vf_set(factors[r])));

/* Two vectors of columns. */
static void mix_two(const float *weights, size_t padded, const float *values, size_t columns, int tokens,
                    const float *factors, float *out)
{
    EACH_ROW(TO_ZERO_2)
    for (int t = 0; t < tokens; t++) {
        vf x, first = vf_load(values + (size_t)t * columns);
        vf second = vf_load(values + (size_t)t * columns + EMRL_LANES);
        EACH_ROW(MIX_2)
    }
    EACH_ROW(KEEP_MIXED_2)
}
#endif

/* Turn rows of scores into weights that are not yet divided by their sums, and make the factors that do so. */
static void soften(float *scores, size_t padded, int rows, int tokens, float scale, float *factors)
{
    vf none = vf_set(NO_SCORE), by = vf_set(scale);
    int last = (tokens - 1) / EMRL_LANES * EMRL_LANES;
    float largest[ATTEND_ROWS];
    for (int r = 0; r < rows; r++) {
        const float *row = scores + (size_t)r * padded;
        vf most = vf_first(vf_load(row + last), tokens - last, none);
        for (int at = 0; at < last; at += EMRL_LANES)
            most = vf_max(most, vf_load(row + at));
        largest[r] = vf_largest(most);
    }
    for (int r = 0; r < rows; r++) {
        float *row = scores + (size_t)r * padded;
        vf sum = vf_set(0.0f), most = vf_set(largest[r]);
        for (int at = 0; at < last; at += EMRL_LANES) {
            vf x = vf_exp_below(vf_mul(vf_sub(vf_load(row + at), most), by));
            vf_store(row + at, x);
            sum = vf_add(sum, x);
        }
        vf x = vf_exp_below(vf_mul(vf_sub(vf_load(row + last), most), by));
        x = vf_first(x, tokens - last, vf_set(0.0f));
        vf_store(row + last, x);
        factors[r] = 1.0f / vf_sum(vf_add(sum, x));
    }
}

typedef struct {
    int first, end;
} span;

static void turn_rest(const float *from, size_t stride, int rows, span some, span columns, float *to, size_t step)
{
    for (int r = some.first; r < some.end; r++)
        for (int j = columns.first; j < columns.end; j++)
            to[(size_t)j * step + (size_t)r] = r < rows ? from[(size_t)r * stride + (size_t)j] : 0.0f;
}

/* to[j * step + r] = from[r * stride + j] for `rows` rows, and zeros up to `most`. Vectors are written whole: up to
 * fifteen floats behind the last value change. */
static void turn(const float *from, size_t stride, int rows, int most, int width, float *to, size_t step)
{
    int j = 0;
#if defined(EMRL_NEON)
    int whole = width / 4 * 4, r = 0;
    for (; r + 4 <= rows; r += 4)
        for (j = 0; j < whole; j += 4)
            vf_turn(from + (size_t)r * stride + j, stride, to + (size_t)j * step + r, step);
    turn_rest(from, stride, rows, (span){r, most}, (span){0, whole}, to, step);
    j = whole;
#elif defined(EMRL_AVX512)
    for (; j + EMRL_LANES <= width; j += EMRL_LANES)
        vf_turn(from + j, stride, rows, to + (size_t)j * step, step);
#endif
    turn_rest(from, stride, rows, (span){0, most}, (span){j, width}, to, step);
}

/* Keys with their tokens beside each other, and values without what lies between them. */
static void copy_text(const float *k, const float *v, size_t stride, int tokens, int width, float *keys, float *values)
{
    size_t padded = emrl_up((size_t)tokens, EMRL_LANES), columns = emrl_up((size_t)width, EMRL_LANES);
    int whole = width / EMRL_LANES * EMRL_LANES;
    for (int t = 0; t < tokens; t += EMRL_LANES) {
        int rows = tokens - t < EMRL_LANES ? tokens - t : EMRL_LANES;
        turn(k + (size_t)t * stride, stride, rows, EMRL_LANES, width, keys + t, padded);
    }
    for (int t = 0; t < tokens; t++) {
        const float *value = v + (size_t)t * stride;
        float *copy = values + (size_t)t * columns;
        for (int j = 0; j < whole; j += EMRL_LANES)
            vf_store(copy + j, vf_load(value + j));
        for (size_t j = (size_t)whole; j < columns; j++)
            copy[j] = j < (size_t)width ? value[j] : 0.0f;
    }
}

/* A vector of columns of `count` outputs, of which `used` columns are there. */
INLINE void copy_mixed(const float *mixed, int step, int count, size_t used, float *out, size_t stride)
{
    for (int r = 0; r < count; r++) {
        if (used >= EMRL_LANES)
            vf_store(out + (size_t)r * stride, vf_load(mixed + r * step));
        else
            memcpy(out + (size_t)r * stride, mixed + r * step, used * sizeof *out);
    }
}

/* Weighted values of `count` queries. */
static void mix(const float *scores, size_t padded, const float *values, int width, int tokens, int count,
                const float *factors, float *mixed, float *out, size_t stride)
{
    size_t columns = emrl_up((size_t)width, EMRL_LANES), column = 0;
#if ATTEND_KEYS == 2
    for (; column + 2 * EMRL_LANES <= columns; column += 2 * EMRL_LANES) {
        mix_two(scores, padded, values + column, columns, tokens, factors, mixed);
        copy_mixed(mixed, 2 * EMRL_LANES, count, EMRL_LANES, out + column, stride);
        copy_mixed(mixed + EMRL_LANES, 2 * EMRL_LANES, count, (size_t)width - column - EMRL_LANES,
                   out + column + EMRL_LANES, stride);
    }
#endif
    for (; column < columns; column += EMRL_LANES) {
        mix_one(scores, padded, values + column, columns, tokens, factors, mixed);
        copy_mixed(mixed, EMRL_LANES, count, (size_t)width - column, out + column, stride);
    }
}

static void attend(const float *q, const float *k, const float *v, size_t stride, int tokens, int width,
                   float scale, float *out, size_t out_stride, float *scratch)
{
    size_t padded = emrl_up((size_t)tokens, EMRL_LANES), columns = emrl_up((size_t)width, EMRL_LANES);
    float *keys = scratch, *values = keys + padded * (size_t)width;
    float *scores = values + (size_t)tokens * columns, *mixed = scores + ATTEND_ROWS * padded;
    float *queries = mixed + 2 * ATTEND_ROWS * EMRL_LANES;
    copy_text(k, v, stride, tokens, width, keys, values);
    for (int first = 0; first < tokens; first += ATTEND_ROWS) {
        int count = tokens - first < ATTEND_ROWS ? tokens - first : ATTEND_ROWS;
        float factors[ATTEND_ROWS] = {0};
        size_t t = 0;
        turn(q + (size_t)first * stride, stride, count, ATTEND_ROWS, width, queries, ATTEND_ROWS);
#if ATTEND_KEYS == 2
        for (; t + 2 * EMRL_LANES <= padded; t += 2 * EMRL_LANES)
            score_two(queries, keys + t, padded, width, scores + t);
#endif
        for (; t < padded; t += EMRL_LANES)
            score_one(queries, keys + t, padded, width, scores + t);
        soften(scores, padded, count, tokens, scale, factors);
        mix(scores, padded, values, width, tokens, count, factors, mixed, out + (size_t)first * out_stride,
            out_stride);
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
    .code_bias = CODE_BIAS, .code_rows = CODE_ROWS, .code = code, .multiply = multiply, .norm = norm,          \
    .attend = attend,                                                                                          \
    .transform = transform, .dot = dot, .exponential = exponential, .within8 = within8, .within16 = within16,  \
    .hamming8 = hamming8, .hamming16 = hamming16, .dot8 = dot8, .dot4 = dot4, .common = common

#include "bits.h"

#endif
