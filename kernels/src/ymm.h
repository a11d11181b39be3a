/* What products of codes in 256-bit registers share: sums of 32 columns in four registers. */
#ifndef EMRL_YMM_H
#define EMRL_YMM_H

INLINE void finish(__m256i sum, const emrl_packed *weights, int column, float peak, float *out)
{
    __m256 whole = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(weights->scale + column));
    __m256 scaled = _mm256_mul_ps(whole, _mm256_set1_ps(peak));
    _mm256_storeu_ps(out + column, _mm256_add_ps(scaled, _mm256_load_ps(weights->bias + column)));
}

#define START(at) _mm256_load_si256((const __m256i *)(weights->start + panel + at))
#define DECLARE(r) __m256i a##r = START(0), b##r = START(8), c##r = START(16), d##r = START(24);
#define FINISH(r)                                                                                              \
    finish(a##r, weights, panel, peaks[r], out + r * stride);                                            \
    finish(b##r, weights, panel + 8, peaks[r], out + r * stride);                                        \
    finish(c##r, weights, panel + 16, peaks[r], out + r * stride);                                       \
    finish(d##r, weights, panel + 24, peaks[r], out + r * stride);
/* All panels and rows, behind the tiles. */
#define RUN_TILES                                                                                              \
    typedef void tile_of(const CODE_TYPE *codes, const emrl_packed *weights, int panel, const float *peaks,    \
                         float *out, size_t stride);                                                           \
                                                                                                               \
    static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights,         \
                         float *out, size_t stride)                                                            \
    {                                                                                                          \
        static tile_of *const tiles[] = {tile_1, tile_2, tile_3};                                              \
        size_t depth = (size_t)weights->depth;                                                                 \
        for (int panel = 0; panel < weights->columns; panel += EMRL_PANEL)                                     \
            for (int row = 0; row < count; row += TILE_ROWS) {                                                 \
                int rows = count - row < TILE_ROWS ? count - row : TILE_ROWS;                                  \
                tiles[rows - 1]((const CODE_TYPE *)codes + (size_t)row * depth, weights, panel, peaks + row,   \
                                out + (size_t)row * stride, stride);                                           \
            }                                                                                                  \
    }

#endif
