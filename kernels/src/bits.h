/* Comparisons of codes. Each kernel file gets its own through rows.h. */
#ifndef EMRL_BITS_H
#define EMRL_BITS_H

#define NEVER 190 /* most that counts before the last of four words; see emrl_hamming */

INLINE size_t ones(uint64_t word)
{
    return (size_t)__builtin_popcountll(word);
}

static size_t common(const uint64_t *a, size_t a_stride, const uint64_t *b, size_t words)
{
    size_t count = 0;
    for (size_t w = 0; w < words; w++)
        count += ones(a[w * a_stride] & b[w]);
    return count;
}

static size_t distance_of(const uint64_t *row, size_t stride, const uint64_t *query, size_t words, bool capped)
{
    size_t sum = 0;
    for (size_t w = 0; w < words; w++) {
        if (capped && w == 3 && sum > NEVER)
            sum = NEVER;
        sum += ones(row[w * stride] ^ query[w]);
    }
    return sum;
}

#if defined(EMRL_AVX512)

static uint64_t within8(const uint8_t *distances, uint8_t most)
{
    return _mm512_cmple_epu8_mask(_mm512_loadu_si512(distances), _mm512_set1_epi8((char)most));
}

static uint64_t within16(const uint16_t *distances, uint16_t most)
{
    __m512i least = _mm512_set1_epi16((short)most);
    uint64_t low = _mm512_cmple_epu16_mask(_mm512_loadu_si512(distances), least);
    return low | (uint64_t)_mm512_cmple_epu16_mask(_mm512_loadu_si512(distances + 32), least) << 32;
}

/* Bits that are set in each 64-bit lane: of each half byte, by a table of sixteen. */
INLINE __m512i ones_of(__m512i words)
{
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i half = _mm512_set1_epi8(15);
    __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(words, half));
    __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(words, 4), half));
    return _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512());
}

INLINE __m512i eight_distances(const uint64_t *columns, size_t stride, const uint64_t *query, size_t words,
                               bool capped)
{
    __m512i sum = _mm512_setzero_si512();
    for (size_t w = 0; w < words; w++) {
        if (capped && w == 3)
            sum = _mm512_min_epu64(sum, _mm512_set1_epi64(NEVER));
        __m512i word = _mm512_loadu_si512(columns + w * stride);
        sum = _mm512_add_epi64(sum, ones_of(_mm512_xor_si512(word, _mm512_set1_epi64((long long)query[w]))));
    }
    return sum;
}

static void hamming8(const uint64_t *columns, size_t stride, size_t rows, const uint64_t *query, size_t words,
                     bool capped, uint8_t *distances)
{
    size_t row = 0;
    for (; row + 8 <= rows; row += 8)
        _mm_storel_epi64((__m128i *)(distances + row),
                         _mm512_cvtepi64_epi8(eight_distances(columns + row, stride, query, words, capped)));
    for (; row < rows; row++)
        distances[row] = (uint8_t)distance_of(columns + row, stride, query, words, capped);
}

static void hamming16(const uint64_t *columns, size_t stride, size_t rows, const uint64_t *query, size_t words,
                      uint16_t *distances)
{
    size_t row = 0;
    for (; row + 8 <= rows; row += 8)
        _mm_storeu_si128((__m128i *)(distances + row),
                         _mm512_cvtepi64_epi16(eight_distances(columns + row, stride, query, words, false)));
    for (; row < rows; row++)
        distances[row] = (uint16_t)distance_of(columns + row, stride, query, words, false);
}

#else

#if defined(EMRL_AVX2)

INLINE uint64_t within32(const uint8_t *distances, __m256i most)
{
    __m256i values = _mm256_loadu_si256((const __m256i *)distances);
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(values, most), values));
}

static uint64_t within8(const uint8_t *distances, uint8_t most)
{
    __m256i least = _mm256_set1_epi8((char)most);
    return within32(distances, least) | within32(distances + 32, least) << 32;
}

#else

static uint64_t within8(const uint8_t *distances, uint8_t most)
{
    uint64_t bits = 0;
    for (int i = 0; i < 64; i++)
        bits |= (uint64_t)(distances[i] <= most) << i;
    return bits;
}

#endif

static uint64_t within16(const uint16_t *distances, uint16_t most)
{
    uint64_t bits = 0;
    for (int i = 0; i < 64; i++)
        bits |= (uint64_t)(distances[i] <= most) << i;
    return bits;
}

static void hamming8(const uint64_t *columns, size_t stride, size_t rows, const uint64_t *query, size_t words,
                     bool capped, uint8_t *distances)
{
    for (size_t row = 0; row < rows; row++)
        distances[row] = (uint8_t)distance_of(columns + row, stride, query, words, capped);
}

static void hamming16(const uint64_t *columns, size_t stride, size_t rows, const uint64_t *query, size_t words,
                      uint16_t *distances)
{
    for (size_t row = 0; row < rows; row++)
        distances[row] = (uint16_t)distance_of(columns + row, stride, query, words, false);
}

#endif

/* Sums of so many products of codes fit into 32 bits. */
#define SUM_VALUES 65536

static void dot8(const int8_t *query, const int8_t *codes, size_t dim, int64_t *product, int64_t *square)
{
    *product = *square = 0;
    for (size_t first = 0; first < dim; first += SUM_VALUES) {
        size_t end = dim - first < SUM_VALUES ? dim : first + SUM_VALUES;
        int32_t products = 0, squares = 0;
        for (size_t i = first; i < end; i++) {
            products += (int16_t)query[i] * (int16_t)codes[i];
            squares += (int16_t)codes[i] * (int16_t)codes[i];
        }
        *product += products;
        *square += squares;
    }
}

static void dot4(const int8_t *even, const int8_t *odd, const uint8_t *codes, size_t bytes, int64_t *product,
                 int64_t *square, int64_t *sum)
{
    *product = *square = *sum = 0;
    for (size_t first = 0; first < bytes; first += SUM_VALUES) {
        size_t end = bytes - first < SUM_VALUES ? bytes : first + SUM_VALUES;
        int32_t products = 0, squares = 0, sums = 0;
        for (size_t i = first; i < end; i++) {
            int16_t high = (int16_t)(codes[i] >> 4), low = (int16_t)(codes[i] & 15);
            products += (int16_t)even[i] * high + (int16_t)odd[i] * low;
            squares += high * high + low * low;
            sums += high + low;
        }
        *product += products;
        *square += squares;
        *sum += sums;
    }
}

#endif
