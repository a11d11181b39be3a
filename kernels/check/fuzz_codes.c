/* For a fuzzer: searches of codes that lie in memory of just their size, with sizes that are true or not.
 * What two kernels find must be equal. */
#include "../src/emrl.h"
#include "common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *at;
    size_t left;
} input;

static size_t number(input *from, size_t below)
{
    size_t value = 0;
    for (int i = 0; i < 2 && from->left > 0; i++, from->at++, from->left--)
        value = value << 8 | *from->at;
    return value % below;
}

/* So many bytes of the input, repeated where it is too short. */
static void *bytes(input *from, size_t count)
{
    uint8_t *made = exactly(count);
    for (size_t i = 0; i < count; i++)
        made[i] = from->left > 0 ? from->at[i % from->left] : (uint8_t)i;
    return made;
}

static void equal(const void *a, const void *b, size_t count)
{
    if (count > 0 && memcmp(a, b, count) != 0)
        abort();
}

static void distances(input *from, const char *kernel)
{
    size_t words = number(from, 10), rows[2] = {number(from, 90), number(from, 90)}, all = number(from, 200);
    size_t width = 1 + number(from, 60), each = words <= 4 ? 1 : 2;
    int capped = (int)number(from, 2);
    uint64_t *bits[2] = {bytes(from, words * rows[0] * 8), bytes(from, words * rows[1] * 8)}, *query = bytes(from, words * 8);
    emrl_part parts[2] = {{bits[0], rows[0], rows[0]}, {bits[1], rows[1], number(from, 2 * rows[1] + 1)}};
    uint8_t *found[2] = {calloc(all + 1, each), calloc(all + 1, each)};
    char error[200];
    int codes[2];
    size_t counts[2] = {0, 0};
    int64_t *closest[2] = {calloc(3 * width, 8), calloc(3 * width, 8)};
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "plain" : kernel;
        codes[i] = emrl_hamming(name, parts, 2, query, words, capped, found[i], all, error, sizeof error);
        if (codes[i] == EMRL_OK && emrl_closest(name, found[i], (int)each, all, (uint32_t)(64 * words), width, closest[i],
                                                &counts[i], error, sizeof error) != EMRL_OK)
            abort();
    }
    if (codes[0] != codes[1] || counts[0] != counts[1] || counts[0] > 3 * width)
        abort();
    if (codes[0] == EMRL_OK)
        equal(found[0], found[1], all * each);
    equal(closest[0], closest[1], counts[0] * 8);
    for (size_t i = 0; i < counts[0]; i++)
        if (closest[0][i] < 0 || (size_t)closest[0][i] >= all)
            abort();
    void *memory[] = {bits[0], bits[1], query, found[0], found[1], closest[0], closest[1]};
    for (size_t i = 0; i < 7; i++)
        free(memory[i]);
}

static void cosines(input *from, const char *kernel)
{
    size_t dim = number(from, 300), rows = number(from, 20), stride = number(from, 310);
    int bits = (int)number(from, 3) * 4;
    int8_t *query = bytes(from, dim);
    uint8_t *codes = bytes(from, rows * stride);
    double *found[2] = {calloc(rows + 1, 8), calloc(rows + 1, 8)};
    char error[200];
    for (int i = 0; i < 2; i++)
        emrl_cosines(i == 0 ? "plain" : kernel, query, dim, bits, codes, stride, rows, found[i], error, sizeof error);
    equal(found[0], found[1], rows * 8);
    void *memory[] = {query, codes, found[0], found[1]};
    for (size_t i = 0; i < 4; i++)
        free(memory[i]);
}

static void rows(input *from, const char *kernel)
{
    size_t count = number(from, 40), stride = number(from, 40), wanted = number(from, 30), words = number(from, 6);
    size_t planes = number(from, 10);
    uint8_t *table = bytes(from, count * stride), *copies = exactly(wanted * stride);
    int64_t *which = calloc(wanted + 1, 8);
    for (size_t i = 0; i < wanted; i++)
        which[i] = (int64_t)number(from, 42) - 1;
    char error[200];
    if (emrl_gather(table, count, stride, which, wanted, copies, error, sizeof error) == EMRL_OK)
        for (size_t i = 0; i < wanted; i++)
            equal(copies + i * stride, table + (size_t)which[i] * stride, stride);
    uint64_t *bits = bytes(from, planes * words * count * 8), *query = bytes(from, 8 * words * 8);
    int64_t *sums[2] = {calloc(count + 1, 8), calloc(count + 1, 8)};
    for (int i = 0; i < 2; i++)
        emrl_weigh(i == 0 ? "plain" : kernel, query, words, bits, planes, count, sums[i], error, sizeof error);
    equal(sums[0], sums[1], count * 8);
    uint32_t *keys = bytes(from, count * 4), *checks = exactly(count * 4);
    int64_t *numbers = bytes(from, count * 8);
    uint64_t *factors = bytes(from, (words + 2) * 8), *codes = bytes(from, count * words * 8);
    emrl_checks(codes, count, words, keys, numbers, factors, checks);
    void *memory[] = {table, copies, which, bits, query, sums[0], sums[1], keys, checks, numbers, factors, codes};
    for (size_t i = 0; i < 12; i++)
        free(memory[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input from = {data, size};
    const char *kernel = emrl_kernel(kernel_names[number(&from, KERNEL_NAMES)]);
    size_t what = number(&from, 3);
    if (kernel == NULL)
        kernel = emrl_kernel("");
    if (what == 0)
        distances(&from, kernel);
    else if (what == 1)
        cosines(&from, kernel);
    else
        rows(&from, kernel);
    return 0;
}
