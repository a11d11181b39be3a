/* Kernels in plain C: for processors that have no others, and what the others are compared with. */
#define CODE_TYPE uint8_t
#define STORE_CODES vi_store_u8
#define ATTEND_KEYS 1
#include "rows.h"

static void multiply(const void *codes, const float *peaks, int count, const emrl_packed *weights, float *out,
                     size_t stride)
{
    const uint8_t *rows = codes;
    for (int panel = 0; panel < weights->columns; panel += EMRL_PANEL) {
        const int8_t *packed = weights->weights + (size_t)panel * (size_t)weights->depth;
        for (int row = 0; row < count; row++) {
            const uint8_t *values = rows + (size_t)row * (size_t)weights->depth;
            int32_t sum[EMRL_PANEL];
            memcpy(sum, weights->start + panel, sizeof sum);
            for (int k = 0; k < weights->depth; k++)
                for (int n = 0; n < EMRL_PANEL; n++)
                    sum[n] += values[k] * packed[(size_t)k * EMRL_PANEL + (size_t)n];
            for (int n = 0; n < EMRL_PANEL; n++) {
                float whole = (float)sum[n];
                out[(size_t)row * stride + (size_t)(panel + n)] =
                    whole * weights->scale[panel + n] * peaks[row] + weights->bias[panel + n];
            }
        }
    }
}

const emrl_kernels emrl_plain = {.name = "plain", .group = 1, .code_bytes = 1, ROW_KERNELS};
