/* A text's rows to its vectors: pooling, then the steps behind it, then the code. */
#include "model.h"

#include <math.h>
#include <string.h>

/* Stands for the largest value of no rows, as in the exporter's graphs. */
#define LOWEST (-3.0e38f)

static void pool_rows(emrl_pool pool, const float *rows, size_t stride, int tokens, int width, float *out)
{
    float total = (float)tokens;
    int one = pool == EMRL_FIRST ? 0 : tokens - 1;
    for (int i = 0; i < width; i++)
        out[i] = pool == EMRL_LARGEST ? LOWEST : 0.0f;
    if (tokens == 0)
        return;
    if (pool == EMRL_WEIGHTED)
        total = 0.5f * (float)tokens * (float)(tokens + 1);
    if (pool == EMRL_FIRST || pool == EMRL_LAST) {
        memcpy(out, rows + (size_t)one * stride, (size_t)width * sizeof *out);
        return;
    }
    for (int t = 0; t < tokens; t++) {
        const float *row = rows + (size_t)t * stride;
        float weight = pool == EMRL_MEAN        ? 1.0f / total
                       : pool == EMRL_MEAN_SQRT ? 1.0f / sqrtf(total)
                                                : (float)(t + 1) / total;
        for (int i = 0; i < width; i++) {
            if (pool == EMRL_LARGEST)
                out[i] = row[i] > out[i] ? row[i] : out[i];
            else
                out[i] += row[i] * weight;
        }
    }
}

static void centre(float *vector, int width)
{
    float sum = 0.0f;
    for (int i = 0; i < width; i++)
        sum += vector[i];
    float mean = sum / (float)width;
    for (int i = 0; i < width; i++)
        vector[i] -= mean;
}

/* tanh by exp, in the kernels' own arithmetic */
static float tanh_of(const emrl_kernels *kernels, float x)
{
    float e = kernels->exponential(-2.0f * fabsf(x));
    return copysignf((1.0f - e) / (1.0f + e), x);
}

/* One step, from vector[0] to vector[0]. */
static void take_step(const emrl_model *model, const emrl_step *step, float **vector)
{
    const emrl_kernels *kernels = model->kernels;
    float *x = vector[0];
    int padded = (int)emrl_up((size_t)step->out, EMRL_LANES);
    if (step->kind == TAIL_UNIT) {
        float length = sqrtf(kernels->dot(x, x, step->in));
        float by = length > step->epsilon ? length : step->epsilon;
        for (int i = 0; i < step->in; i++)
            x[i] /= by;
    } else if (step->kind == TAIL_CENTRE) {
        centre(x, step->in);
    } else if (step->kind == TAIL_NORM) {
        kernels->norm(x, NULL, (size_t)padded, 1, step->in, step->matrix, step->bias, step->epsilon);
    } else if (step->kind == TAIL_MATRIX) {
        kernels->transform(x, step->matrix, step->in, padded, vector[1]);
        vector[0] = vector[1];
        vector[1] = x;
    } else if (step->kind == TAIL_CUT) {
        for (int i = step->out; i < padded; i++)
            x[i] = 0.0f;
    } else {
        for (int i = 0; i < step->in; i++)
            x[i] = step->kind == TAIL_BIAS   ? x[i] + step->bias[i]
                   : step->kind == TAIL_TANH ? tanh_of(kernels, x[i])
                                             : (x[i] > 0.0f ? x[i] : 0.0f);
    }
}

/* The nearest whole number, of two the even one; NaN becomes the least code. */
static int8_t code_of(float x)
{
    float kept = x > -127.0f ? x : -127.0f;
    kept = kept < 127.0f ? kept : 127.0f;
    int whole = (int)floorf(kept);
    float rest = kept - (float)whole;
    return (int8_t)(whole + (rest > 0.5f || (rest == 0.5f && whole % 2 != 0)));
}

void emrl_finish(const emrl_model *model, const float *rows, size_t stride, int tokens, float *const spare[2],
                 int8_t *coarse, float *full)
{
    float *vector[2] = {spare[0], spare[1]};
    int width = model->pools * model->width;
    for (int i = 0; i < model->pools; i++)
        pool_rows(model->pool[i], rows, stride, tokens, model->width, vector[0] + (size_t)i * (size_t)model->width);
    for (int i = width; i < (int)emrl_up((size_t)width, EMRL_LANES); i++)
        vector[0][i] = 0.0f;
    for (int i = 0; i <= model->steps; i++) {
        if (i == model->full_after && full != NULL)
            memcpy(full, vector[0], (size_t)model->shape.full * sizeof *full);
        if (i < model->steps)
            take_step(model, &model->step[i], vector);
    }
    for (int i = 0; i < model->shape.coarse; i++)
        coarse[i] = code_of(vector[0][i] * model->code_scale);
}
