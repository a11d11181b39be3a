/* Compares every kernel that this processor has with plain C, bit for bit: random shapes, extreme values,
 * tails of every length, any address.
 *
 *     compare [ROUNDS [SEED]]     says how many comparisons each kernel passed
 *     compare --sabotage          changes one bit of each result, and ends with 0 where all are noticed
 *     compare --overrun           compares more rows than there are, which a sanitizer has to notice
 */
#include "common.h"

#include <math.h>

static uint64_t state;
static bool sabotage;
static size_t compared, noticed;

static uint32_t chance(uint32_t below) /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717u) >> 32) % below;
}

static void same(const char *kernel, const char *what, const void *found, void *expected, size_t bytes)
{
    compared++;
    if (sabotage && bytes > 0)
        ((uint8_t *)expected)[chance((uint32_t)bytes)] ^= (uint8_t)(1u << chance(8));
    if (memcmp(found, expected, bytes) == 0)
        return;
    noticed++;
    if (sabotage)
        return;
    size_t at = 0;
    while (((const uint8_t *)found)[at] == ((const uint8_t *)expected)[at])
        at++;
    fprintf(stderr, "%s differs from plain: %s, byte %zu of %zu\n", kernel, what, at, bytes);
    exit(1);
}

/* Mostly ordinary values; now and then zeros, huge and tiny ones, and both zeros. */
static float some_float(bool wild)
{
    static const float extremes[] = {0.0f, -0.0f, 1e30f, -1e30f, 1e-38f, -1e-42f, 88.5f, -104.0f, 1024.5f, 0.5f};
    if (wild && chance(8) == 0)
        return extremes[chance(10)];
    return ((float)chance(1u << 24) / (float)(1u << 23) - 1.0f) * (chance(4) == 0 ? 40.0f : 2.0f);
}

/* Rows with room for whole vectors behind each, as the encoder's have. */
static float *some_rows(size_t rows, size_t stride, bool wild)
{
    float *made = exactly(rows * stride * sizeof *made);
    for (size_t i = 0; i < rows * stride; i++)
        made[i] = some_float(wild);
    return made;
}

static void *copy_of(const void *from, size_t bytes)
{
    return memcpy(exactly(bytes), from, bytes);
}

/* --- encoding --- */

static int8_t *packed_for(const emrl_kernels *kernels, const int8_t *weights, size_t depth, size_t columns)
{
    size_t group = (size_t)kernels->group;
    int8_t *packed = aligned_alloc(64, depth * columns);
    for (size_t k = 0; k < depth; k++)
        for (size_t n = 0; n < columns; n++) {
            size_t panel = n / EMRL_PANEL * EMRL_PANEL;
            size_t place = panel * depth + k / group * group * EMRL_PANEL + (n - panel) * group + k % group;
            packed[place] = weights[k * columns + n];
        }
    return packed;
}

static uint8_t *narrow_codes(const emrl_kernels *kernels, const void *codes, size_t count, size_t depth)
{
    uint8_t *narrow = exactly(count * depth);
    for (size_t row = 0; row < count; row++)
        for (size_t k = 0; k < depth; k++) {
            size_t at = emrl_code_place(kernels, count, depth, row, k);
            narrow[row * depth + k] = kernels->code_bytes == 1
                                          ? (uint8_t)(((const uint8_t *)codes)[at] + kernels->code_bias)
                                          : (uint8_t)((const uint16_t *)codes)[at];
        }
    return narrow;
}

static void *wide_codes(const emrl_kernels *kernels, const uint8_t *codes, size_t count, size_t depth)
{
    void *wide = aligned_alloc(64, emrl_up(count * depth * (size_t)kernels->code_bytes + 64, 64));
    for (size_t row = 0; row < count; row++)
        for (size_t k = 0; k < depth; k++) {
            size_t at = emrl_code_place(kernels, count, depth, row, k);
            if (kernels->code_bytes == 1)
                ((uint8_t *)wide)[at] = (uint8_t)(codes[row * depth + k] - kernels->code_bias);
            else
                ((uint16_t *)wide)[at] = codes[row * depth + k];
        }
    return wide;
}

static void compare_coding(const emrl_kernels *kernels)
{
    int width = 1 + (int)chance(100), count = 1 + (int)chance(30);
    size_t depth = emrl_up((size_t)width, EMRL_LANES), stride = depth + EMRL_LANES * chance(3);
    float *smooth = some_rows(1, depth, false), *offset = some_rows(1, depth, false);
    float *rows = some_rows((size_t)count, stride, true), peaks[2][30];
    emrl_coding coding = {chance(2) ? smooth : NULL, chance(2) ? offset : NULL, chance(2) != 0, 0.01f + (float)chance(100) * 0.01f,
                          (int)chance(256), chance(2) ? 127.0f : 255.0f, 1e-6f, chance(2) != 0,
                          (emrl_activation)chance(4)};
    size_t codes = (size_t)count * depth;
    void *out[2] = {exactly(codes), exactly(codes * (size_t)kernels->code_bytes)};
    float *again = copy_of(rows, (size_t)count * stride * sizeof *rows);
    emrl_plain.code(again, stride, count, width, &coding, out[0], (int)depth, peaks[0]);
    kernels->code(rows, stride, count, width, &coding, out[1], (int)depth, peaks[1]);
    uint8_t *narrow = narrow_codes(kernels, out[1], (size_t)count, depth);
    same(kernels->name, "code", narrow, out[0], codes);
    same(kernels->name, "peaks", peaks[1], peaks[0], (size_t)count * sizeof(float));
    same(kernels->name, "activation", rows, again, (size_t)count * stride * sizeof *rows);
    void *all[] = {smooth, offset, rows, again, out[0], out[1], narrow};
    for (size_t i = 0; i < 7; i++)
        free(all[i]);
}

static void compare_products(const emrl_kernels *kernels)
{
    size_t depth = EMRL_LANES * (1 + chance(9)), columns = EMRL_PANEL * (1 + chance(3)), count = 1 + chance(30);
    bool extreme = chance(3) == 0; /* all products are as large as they can be */
    int8_t *weights = exactly(depth * columns);
    uint8_t *codes = exactly(count * depth);
    int least = chance(2) ? -128 : -127;
    for (size_t i = 0; i < depth * columns; i++)
        weights[i] = (int8_t)(extreme ? (chance(8) ? least : 127) : (int)chance((uint32_t)(128 - least)) + least);
    for (size_t i = 0; i < count * depth; i++)
        codes[i] = (uint8_t)(extreme ? (chance(8) ? 255 * (i / depth % 2) : 127 + chance(2)) : chance(256));
    int32_t *sums = aligned_alloc(64, columns * sizeof *sums), *start = aligned_alloc(64, columns * sizeof *start);
    float *scale = aligned_alloc(64, columns * sizeof *scale), *bias = aligned_alloc(64, columns * sizeof *bias);
    float *peaks = some_rows(1, count, false);
    for (size_t n = 0; n < columns; n++) {
        scale[n] = some_float(false) * 0.01f;
        bias[n] = some_float(true);
        sums[n] = 0;
        for (size_t k = 0; k < depth; k++)
            sums[n] += weights[k * columns + n];
    }
    float *out[2];
    const emrl_kernels *both[] = {&emrl_plain, kernels};
    int zero = (int)chance(256);
    for (int i = 0; i < 2; i++) {
        int8_t *packed = packed_for(both[i], weights, depth, columns);
        void *rows = wide_codes(both[i], codes, count, depth);
        for (size_t n = 0; n < columns; n++)
            start[n] = (both[i]->code_bias - zero) * sums[n];
        emrl_packed made = {packed, start, scale, bias, (int)depth, (int)columns, least == -128};
        out[i] = exactly(count * columns * sizeof(float));
        both[i]->multiply(rows, peaks, (int)count, &made, out[i], columns);
        free(packed);
        free(rows);
    }
    same(kernels->name, "multiply", out[1], out[0], count * columns * sizeof(float));
    void *all[] = {weights, codes, sums, start, scale, bias, peaks, out[0], out[1]};
    for (size_t i = 0; i < 9; i++)
        free(all[i]);
}

static void compare_rows(const emrl_kernels *kernels)
{
    int width = 1 + (int)chance(200), count = 1 + (int)chance(4);
    size_t stride = emrl_up((size_t)width, EMRL_LANES) + EMRL_LANES * chance(3), floats = (size_t)count * stride;
    float *rows = some_rows((size_t)count, stride, false), *others = some_rows((size_t)count, stride, false);
    float *gain = some_rows(1, stride, false), *bias = some_rows(1, stride, false);
    float *out[2] = {copy_of(rows, floats * sizeof(float)), copy_of(rows, floats * sizeof(float))};
    const float *second = chance(2) ? others : NULL;
    emrl_plain.norm(out[0], second, stride, count, width, gain, bias, 1e-12f);
    kernels->norm(out[1], second, stride, count, width, gain, bias, 1e-12f);
    same(kernels->name, "norm", out[1], out[0], floats * sizeof(float));
    float dot[2];
    size_t padded = emrl_up((size_t)width, EMRL_LANES);
    for (size_t i = (size_t)width; i < padded; i++)
        gain[i] = bias[i] = 0.0f;
    dot[0] = emrl_plain.dot(gain, bias, width);
    dot[1] = kernels->dot(gain, bias, width);
    same(kernels->name, "dot", &dot[1], &dot[0], sizeof *dot);
    int in = 1 + (int)chance(30), columns = EMRL_LANES * (1 + (int)chance(4));
    float *matrix = some_rows((size_t)in, (size_t)columns, false), *x = some_rows(1, (size_t)in, false), made[2][64];
    emrl_plain.transform(x, matrix, in, columns, made[0]);
    kernels->transform(x, matrix, in, columns, made[1]);
    same(kernels->name, "transform", made[1], made[0], (size_t)columns * sizeof(float));
    void *all[] = {rows, others, gain, bias, out[0], out[1], matrix, x};
    for (size_t i = 0; i < 8; i++)
        free(all[i]);
}

static void compare_exponential(const emrl_kernels *kernels)
{
    float x = chance(4) ? some_float(true) : (float)chance(400) - 200.0f, e[2];
    e[0] = emrl_plain.exponential(x);
    e[1] = kernels->exponential(x);
    same(kernels->name, "exponential", &e[1], &e[0], sizeof *e);
    double exact = exp((double)(x < -87.3f ? -87.3f : x > 88.0f ? 88.0f : x));
    if (!sabotage && fabs((double)e[1] - exact) > 3e-7 * exact) {
        fprintf(stderr, "%s: exp(%g) is %g\n", kernels->name, (double)x, (double)e[1]);
        exit(1);
    }
}

static void compare_attention(const emrl_kernels *kernels)
{
    int tokens = 1 + (int)chance(chance(4) ? 40 : 150), width = 1 + (int)chance(chance(3) ? 70 : 33);
    size_t stride = 3 * (size_t)width + chance(20), out_stride = (size_t)width + chance(9);
    float *qkv = some_rows((size_t)tokens, stride, false), *out[2];
    size_t floats = emrl_attention_floats((size_t)tokens, (size_t)width), bytes = (size_t)tokens * out_stride * sizeof(float);
    const emrl_kernels *both[] = {&emrl_plain, kernels};
    for (int i = 0; i < 2; i++) {
        out[i] = calloc(1, bytes);
        float *scratch = aligned_alloc(64, emrl_up(floats * sizeof *scratch, 64));
        both[i]->attend(qkv, qkv + width, qkv + 2 * width, stride, tokens, width, 0.25f, out[i], out_stride, scratch);
        free(scratch);
    }
    same(kernels->name, "attend", out[1], out[0], bytes);
    free(qkv);
    free(out[0]);
    free(out[1]);
}

/* --- searching --- */

static uint8_t *some_bytes(size_t bytes)
{
    uint8_t *made = exactly(bytes), kind = (uint8_t)chance(4);
    for (size_t i = 0; i < bytes; i++)
        made[i] = (uint8_t)(kind == 0 ? 0x80 : kind == 1 ? (chance(2) ? 0xFF : 0x7F) : chance(256));
    return made;
}

static void compare_distances(const emrl_kernels *kernels)
{
    size_t words = 1 + chance(chance(2) ? 4 : 12), rows = 1 + chance(100), stride = rows + chance(5);
    size_t shift = chance(2); /* words of a file are not aligned to vectors */
    uint64_t *memory = (uint64_t *)(void *)some_bytes((words * stride + shift) * 8), *bits = memory + shift;
    uint64_t *query = (uint64_t *)(void *)some_bytes(words * 8);
    bool capped = words == 4 && chance(2);
    uint16_t *out[2] = {calloc(rows, 2), calloc(rows, 2)};
    if (words <= 4) {
        emrl_plain.hamming8(bits, stride, rows, query, words, capped, (uint8_t *)out[0]);
        kernels->hamming8(bits, stride, rows, query, words, capped, (uint8_t *)out[1]);
    } else {
        emrl_plain.hamming16(bits, stride, rows, query, words, out[0]);
        kernels->hamming16(bits, stride, rows, query, words, out[1]);
    }
    same(kernels->name, "hamming", out[1], out[0], rows * 2);
    size_t counts[2] = {emrl_plain.common(bits, stride, query, words), kernels->common(bits, stride, query, words)};
    same(kernels->name, "common", &counts[1], &counts[0], sizeof *counts);
    uint8_t *distances = some_bytes(128);
    uint16_t most = (uint16_t)chance(chance(2) ? 256 : 65536);
    uint64_t within[2] = {emrl_plain.within8(distances, (uint8_t)most), kernels->within8(distances, (uint8_t)most)};
    same(kernels->name, "within8", &within[1], &within[0], 8);
    within[0] = emrl_plain.within16((uint16_t *)(void *)distances, most);
    within[1] = kernels->within16((uint16_t *)(void *)distances, most);
    same(kernels->name, "within16", &within[1], &within[0], 8);
    void *all[] = {memory, query, out[0], out[1], distances};
    for (size_t i = 0; i < 5; i++)
        free(all[i]);
}

static void compare_scores(const emrl_kernels *kernels)
{
    size_t dim = 1 + chance(chance(8) ? 300 : 70000), shift = chance(4);
    uint8_t *memory = some_bytes(dim + shift), *query = some_bytes(2 * dim), *codes = memory + shift;
    int64_t sums[2][3] = {{0}};
    emrl_plain.dot8((int8_t *)query, (int8_t *)codes, dim, &sums[0][0], &sums[0][1]);
    kernels->dot8((int8_t *)query, (int8_t *)codes, dim, &sums[1][0], &sums[1][1]);
    same(kernels->name, "dot8", sums[1], sums[0], sizeof *sums);
    const int8_t *even = (int8_t *)query, *odd = even + dim;
    emrl_plain.dot4(even, odd, codes, dim, &sums[0][0], &sums[0][1], &sums[0][2]);
    kernels->dot4(even, odd, codes, dim, &sums[1][0], &sums[1][1], &sums[1][2]);
    same(kernels->name, "dot4", sums[1], sums[0], sizeof *sums);
    free(memory);
    free(query);
}

/* One row more than there is memory for. */
static int overrun(void)
{
    uint64_t *bits = exactly(8 * sizeof *bits), query = 0;
    uint8_t distances[16];
    memset(bits, 0, 8 * sizeof *bits);
    emrl_plain.hamming8(bits, 9, 9, &query, 1, false, distances);
    free(bits);
    return distances[8];
}

int main(int count, char **arguments)
{
    static void (*const comparisons[])(const emrl_kernels *) = {compare_coding,    compare_products,    compare_rows,
                                                                compare_attention, compare_exponential, compare_distances,
                                                                compare_scores};
    if (count > 1 && strcmp(arguments[1], "--overrun") == 0)
        return overrun();
    sabotage = count > 1 && strcmp(arguments[1], "--sabotage") == 0;
    int rounds = count > 1 && !sabotage ? atoi(arguments[1]) : 20, kernels_seen = 0;
    uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    for (size_t i = 0; i < KERNEL_NAMES; i++) {
        const emrl_kernels *kernels = emrl_choose(kernel_names[i]);
        if (kernels == NULL)
            continue;
        kernels_seen++;
        compared = noticed = 0;
        state = seed * 0x9E3779B97F4A7C15u + 1;
        for (int round = 0; round < rounds; round++)
            for (size_t c = 0; c < sizeof comparisons / sizeof *comparisons; c++)
                comparisons[c](kernels);
        printf("%s %zu\n", kernels->name, sabotage ? noticed : compared);
        if (sabotage && noticed != compared)
            return 1;
    }
    return kernels_seen > 0 ? 0 : 1;
}
