/* What the products of codes on ARM share: tiles of a part of a panel. */
#ifndef EMRL_NEON_H
#define EMRL_NEON_H

INLINE void finish(int32x4_t sum, float32x4_t scale, float32x4_t bias, float peak, float *out)
{
    float32x4_t scaled = vmulq_f32(vcvtq_f32_s32(sum), scale);
    vst1q_f32(out, vaddq_f32(vmulq_n_f32(scaled, peak), bias));
}

/* What four columns of all rows are finished with. */
#define SCALES(name, at)                                                                                       \
    float32x4_t scale_##name = vld1q_f32(weights->scale + column + at);                                        \
    float32x4_t bias_##name = vld1q_f32(weights->bias + column + at);
#define FINISH_FOUR(sum, name, at, row)                                                                        \
    finish(sum, scale_##name, bias_##name, peaks[row], out + (size_t)(row) * stride + column + at);

/* Weights from a column on: a multiple of eight. */
INLINE const int8_t *part_of_panel(const emrl_packed *weights, int column, int group)
{
    int panel = column / EMRL_PANEL * EMRL_PANEL;
    return weights->weights + (size_t)panel * (size_t)weights->depth + (column - panel) * group;
}

#if CODE_BIAS != 0 /* tiles of single rows */

typedef void tile_of(const int8_t *codes, const emrl_packed *weights, int column, const float *peaks, float *out,
                     size_t stride);

#define START(at) vld1q_s32(weights->start + column + at)
#define DECLARE(r) int32x4_t a##r = START(0), b##r = START(4), c##r = START(8), d##r = START(12);

/* All columns and rows by tiles of up to `most` rows; tiles[i] has i + 1. */
static void run_tiles(tile_of *const *tiles, int most, int columns, const void *codes, const float *peaks, int count,
                      const emrl_packed *weights, float *out, size_t stride)
{
    size_t depth = (size_t)weights->depth;
    for (int column = 0; column < weights->columns; column += columns)
        for (int row = 0; row < count; row += most) {
            int rows = count - row < most ? count - row : most;
            tiles[rows - 1]((const int8_t *)codes + (size_t)row * depth, weights, column, peaks + row,
                            out + (size_t)row * stride, stride);
        }
}

#endif

#endif
