/* Searches of codes. Everything is a sum of whole numbers, so every way of computing it agrees; cosines are
 * rounded in one order. */
#include "arena.h"
#include "emrl.h"
#include "kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64
/* Rows that are passed on at most, in widths: if all codes are equal, not every row is a candidate. */
#define TIES 3

static const emrl_kernels *choose(const char *name, emrl_error *error, char *text, size_t room)
{
    *error = (emrl_error){text, room};
    if (room > 0)
        text[0] = '\0';
    const emrl_kernels *kernels = emrl_choose(name);
    if (kernels == NULL)
        emrl_fail(error, EMRL_KERNEL, "there are no kernels \"%s\", or this processor cannot run them", name);
    return kernels;
}

int emrl_hamming(const char *kernel, const emrl_part *parts, size_t part_count, const uint64_t *query,
                 size_t words, int capped, void *distances, size_t rows, char *error, size_t room)
{
    emrl_error report;
    const emrl_kernels *kernels = choose(kernel, &report, error, room);
    if (kernels == NULL)
        return EMRL_KERNEL;
    if (words == 0 || words > UINT16_MAX / 64 || (capped && words != 4))
        return emrl_fail(&report, EMRL_REFUSED, "a code has %zu words", words);
    size_t first = 0;
    for (size_t i = 0; i < part_count; i++) {
        const emrl_part *part = &parts[i];
        if (part->rows > rows - first || part->rows > part->stride)
            return emrl_fail(&report, EMRL_REFUSED, "part %zu has %zu rows, expected %zu at most", i, part->rows,
                             rows - first);
        if (words <= 4)
            kernels->hamming8(part->bits, part->stride, part->rows, query, words, capped != 0,
                              (uint8_t *)distances + first);
        else
            kernels->hamming16(part->bits, part->stride, part->rows, query, words, (uint16_t *)distances + first);
        first += part->rows;
    }
    return first == rows ? EMRL_OK
                         : emrl_fail(&report, EMRL_REFUSED, "the parts have %zu rows, expected %zu", first, rows);
}

/* Bits of up to sixty-four distances from a row on: which are `most` at most. */
static uint64_t within(const emrl_kernels *kernels, const void *distances, int size, size_t row, size_t rows,
                       uint32_t most)
{
    uint16_t rest[BLOCK]; /* room for either size */
    const void *at = (const uint8_t *)distances + row * (size_t)size;
    if (rows - row < BLOCK) { /* behind the last row there is no distance */
        memset(rest, 0xFF, sizeof rest);
        memcpy(rest, at, (rows - row) * (size_t)size);
        at = rest;
    }
    uint64_t bits = size == 1 ? kernels->within8(at, (uint8_t)(most < UINT8_MAX ? most : UINT8_MAX))
                              : kernels->within16(at, (uint16_t)(most < UINT16_MAX ? most : UINT16_MAX));
    return rows - row < BLOCK ? bits & (((uint64_t)1 << (rows - row)) - 1) : bits;
}

static size_t count_within(const emrl_kernels *kernels, const void *distances, int size, size_t rows,
                           uint32_t most)
{
    size_t count = 0;
    for (size_t row = 0; row < rows; row += BLOCK)
        count += (size_t)__builtin_popcountll(within(kernels, distances, size, row, rows, most));
    return count;
}

static uint32_t distance_at(const void *distances, int size, size_t row)
{
    return size == 1 ? ((const uint8_t *)distances)[row] : ((const uint16_t *)distances)[row];
}

int emrl_closest(const char *kernel, const void *distances, int size, size_t rows, uint32_t most, size_t width,
                 int64_t *found, size_t *count, char *error, size_t room)
{
    emrl_error report;
    const emrl_kernels *kernels = choose(kernel, &report, error, room);
    if (kernels == NULL)
        return EMRL_KERNEL;
    if ((size != 1 && size != 2) || width == 0 || width > SIZE_MAX / TIES)
        return emrl_fail(&report, EMRL_REFUSED, "distances of %d bytes, or no width", size);
    uint32_t low = 0, high = most;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (count_within(kernels, distances, size, rows, middle) >= width)
            high = middle;
        else
            low = middle + 1;
    }
    size_t all = count_within(kernels, distances, size, rows, low), level = all, written = 0;
    if (all > TIES * width) { /* of those at the last distance, the first */
        size_t closer = low == 0 ? 0 : count_within(kernels, distances, size, rows, low - 1);
        level = closer < TIES * width ? TIES * width - closer : 0;
    }
    for (size_t row = 0; row < rows; row += BLOCK)
        for (uint64_t bits = within(kernels, distances, size, row, rows, low); bits != 0; bits &= bits - 1) {
            size_t one = row + (size_t)__builtin_ctzll(bits);
            if (all > TIES * width && distance_at(distances, size, one) == low && level-- == 0) {
                level = 0;
                continue;
            }
            if (written < TIES * width)
                found[written++] = (int64_t)one;
        }
    *count = written;
    return EMRL_OK;
}

/* Rows that are asked for before they are copied: about as many as a processor loads at a time. */
#define AHEAD 12
#define LINE 64

static void ask_for(const uint8_t *row, size_t stride)
{
    for (size_t at = 0; at < stride; at += LINE)
        __builtin_prefetch(row + at);
}

int emrl_gather(const uint8_t *from, size_t rows, size_t stride, const int64_t *which, size_t count, uint8_t *to,
                char *error, size_t room)
{
    emrl_error report = {error, room};
    if (room > 0)
        error[0] = '\0';
    for (size_t i = 0; i < count; i++)
        if (which[i] < 0 || (uint64_t)which[i] >= rows)
            return emrl_fail(&report, EMRL_REFUSED, "row %lld of %zu", (long long)which[i], rows);
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            ask_for(from + (size_t)which[i + AHEAD] * stride, stride);
        memcpy(to + i * stride, from + (size_t)which[i] * stride, stride);
    }
    return EMRL_OK;
}

void emrl_checks(const uint64_t *codes, size_t rows, size_t words, const uint32_t *keys, const int64_t *numbers,
                 const uint64_t *factors, uint32_t *checks)
{
    for (size_t row = 0; row < rows; row++) {
        uint64_t hash = keys[row] * factors[0] + ((uint64_t)numbers[row] + 1) * factors[1];
        for (size_t w = 0; w < words; w++)
            hash += codes[row * words + w] * factors[w + 2];
        checks[row] = (uint32_t)(hash >> 32);
    }
}

static double cosine(double product, double own, double square)
{
    double by = own * sqrt(square), ratio;
    ratio = product / (by > 1.0 ? by : 1.0);
    return ratio < -1.0 ? -1.0 : ratio > 1.0 ? 1.0 : ratio; /* rounding may exceed 1 by the last bit */
}

/* The query's even and odd values, zeros behind them: int8[2, bytes]. */
static int8_t *split(const int8_t *query, size_t dim, size_t bytes)
{
    int8_t *halves = calloc(2 * bytes + 1, 1);
    for (size_t i = 0; halves != NULL && i < dim; i++)
        halves[(i % 2) * bytes + i / 2] = query[i];
    return halves;
}

int emrl_cosines(const char *kernel, const int8_t *query, size_t dim, int bits, const uint8_t *codes,
                 size_t stride, size_t rows, double *cosines, char *error, size_t room)
{
    emrl_error report;
    const emrl_kernels *kernels = choose(kernel, &report, error, room);
    if (kernels == NULL)
        return EMRL_KERNEL;
    size_t bytes = bits == 8 ? dim : (dim + 1) / 2;
    if ((bits != 8 && bits != 4) || stride < bytes)
        return emrl_fail(&report, EMRL_REFUSED, "codes of %d bits in %zu bytes", bits, stride);
    int64_t product, square, sum = 0, own, queries = 0;
    kernels->dot8(query, query, dim, &product, &own);
    double length = sqrt((double)own);
    if (bits == 8) {
        for (size_t row = 0; row < rows; row++) {
            kernels->dot8(query, (const int8_t *)codes + row * stride, dim, &product, &square);
            cosines[row] = cosine((double)product, length, (double)square);
        }
        return EMRL_OK;
    }
    int8_t *halves = split(query, dim, bytes);
    if (halves == NULL)
        return emrl_fail(&report, EMRL_MEMORY, "not enough memory for a query");
    for (size_t i = 0; i < dim; i++)
        queries += query[i];
    for (size_t row = 0; row < rows; row++) { /* levels are 2 * code - 15 */
        kernels->dot4(halves, halves + bytes, codes + row * stride, bytes, &product, &square, &sum);
        cosines[row] = cosine((double)(2 * product - 15 * queries), length,
                              (double)(4 * square - 60 * sum + 225 * (int64_t)dim));
    }
    free(halves);
    return EMRL_OK;
}

int emrl_weigh(const char *kernel, const uint64_t *query, size_t words, const uint64_t *bits, size_t planes,
               size_t rows, int64_t *sums, char *error, size_t room)
{
    static const int64_t worth[] = {1, 2, 4, 8, 16, 32, 64, -128};
    emrl_error report;
    const emrl_kernels *kernels = choose(kernel, &report, error, room);
    if (kernels == NULL)
        return EMRL_KERNEL;
    if (planes < 1 || planes > 8)
        return emrl_fail(&report, EMRL_REFUSED, "codes of %zu planes", planes);
    for (size_t row = 0; row < rows; row++) {
        int64_t sum = 0;
        for (size_t plane = 0; plane < planes; plane++)
            for (size_t bit = 0; bit < 8; bit++)
                sum += (int64_t)kernels->common(bits + plane * words * rows + row, rows, query + bit * words, words) *
                       worth[bit] * ((int64_t)1 << (planes - 1 - plane));
        sums[row] = sum;
    }
    return EMRL_OK;
}
