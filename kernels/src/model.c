/* A model is made of a matched graph: weights are packed for the kernels, floats copied and padded. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

/* Packed weights and copies take about as much as the files; a graph cannot ask for more than this. */
#define MOST_BYTES ((size_t)8 << 30)

static float float_at(const onnx_tensor *tensor, size_t index)
{
    float value;
    memcpy(&value, tensor->data + 4 * index, 4);
    return value;
}

static int weight_at(const onnx_tensor *weight, size_t index)
{
    return weight->type == ONNX_INT8 ? (int8_t)weight->data[index] : (int)weight->data[index] - 128;
}

/* Weights that several layers share, as ALBERT's do, are packed once. */
static const emrl_product *packed_before(const emrl_model *model, const emrl_product *product, int layer)
{
    for (int i = 0; i < layer; i++) {
        const emrl_layer *other = &model->layer[i];
        const emrl_product *known[] = {&other->qkv, &other->out, &other->up, &other->down};
        for (size_t j = 0; j < sizeof known / sizeof *known; j++)
            if (known[j]->parts == product->parts && known[j]->step == product->step &&
                known[j]->coding.zero == product->coding.zero &&
                memcmp(known[j]->weight, product->weight, sizeof product->weight) == 0 &&
                memcmp(known[j]->scale, product->scale, sizeof product->scale) == 0 &&
                memcmp(known[j]->bias, product->bias, sizeof product->bias) == 0)
                return known[j];
    }
    return NULL;
}

static bool pack(emrl_model *model, emrl_product *product)
{
    size_t depth = emrl_up((size_t)product->in, EMRL_LANES), group = (size_t)model->kernels->group;
    size_t out = (size_t)product->out, parts = (size_t)product->parts;
    size_t columns = emrl_up(out * parts, EMRL_PANEL);
    int8_t *weights = emrl_take(&model->arena, depth * columns, 1);
    int32_t *start = emrl_take(&model->arena, columns, sizeof *start);
    float *scale = emrl_take(&model->arena, columns, sizeof *scale);
    float *bias = emrl_take(&model->arena, columns, sizeof *bias);
    if (weights == NULL || start == NULL || scale == NULL || bias == NULL)
        return false;
    bool least = false;
    for (size_t part = 0; part < parts; part++) {
        const onnx_tensor *from = product->weight[part];
        for (size_t n = 0; n < out; n++) {
            scale[part * out + n] = product->step * float_at(product->scale[part], n);
            bias[part * out + n] = product->bias[part] == NULL ? 0.0f : float_at(product->bias[part], n);
        }
        for (size_t k = 0; k < (size_t)product->in; k++)
            for (size_t n = 0; n < out; n++) {
                size_t column = part * out + n, panel = column / EMRL_PANEL * EMRL_PANEL;
                size_t place = panel * depth + k / group * group * EMRL_PANEL + (column - panel) * group + k % group;
                int weight = weight_at(from, k * out + n);
                weights[place] = (int8_t)weight;
                start[column] += weight;
                least |= weight == -128;
            }
    }
    for (size_t n = 0; n < columns; n++)
        start[n] *= model->kernels->code_bias - product->coding.zero;
    product->packed = (emrl_packed){weights, start, scale, bias, (int)depth, (int)columns, least};
    return true;
}

static bool pack_layers(emrl_model *model)
{
    for (int i = 0; i < model->layers; i++) {
        emrl_layer *layer = &model->layer[i];
        emrl_product *products[] = {&layer->qkv, &layer->out, &layer->up, &layer->down};
        for (size_t j = 0; j < sizeof products / sizeof *products; j++) {
            const emrl_product *before = packed_before(model, products[j], i);
            if (before != NULL)
                products[j]->packed = before->packed;
            else if (!pack(model, products[j]))
                return false;
        }
    }
    return true;
}

/* float[in, padded out] */
static float *copy_matrix(emrl_model *model, const onnx_tensor *matrix)
{
    size_t in = (size_t)matrix->dims[0], out = (size_t)matrix->dims[1], padded = emrl_up(out, EMRL_LANES);
    float *copy = emrl_take(&model->arena, in * padded, sizeof *copy);
    for (size_t i = 0; copy != NULL && i < in; i++)
        memcpy(copy + i * padded, matrix->data + 4 * i * out, 4 * out);
    return copy;
}

static float *copy_vector(emrl_model *model, const onnx_tensor *vector, int width)
{
    float *copy = emrl_take(&model->arena, emrl_up((size_t)width, EMRL_LANES), sizeof *copy);
    for (int i = 0; copy != NULL && i < width; i++)
        copy[i] = float_at(vector, vector->elements == 1 ? 0 : (size_t)i);
    return copy;
}

static bool fits(const onnx_tensor *vector, int width)
{
    return vector->elements == (size_t)width;
}

/* Give each step its widths and copies of what it needs. */
static int build_tail(emrl_model *model, emrl_error *error)
{
    int width = model->pools * model->width;
    model->shape.full = model->full_after == 0 ? width : 0;
    for (int i = 0; i < model->steps; i++) {
        emrl_step *step = &model->step[i];
        bool sound = width <= EMRL_MOST_WIDTH, copied = true;
        step->in = width;
        if (step->kind == TAIL_MATRIX && (sound = step->first->dims[0] == width)) {
            width = (int)step->first->dims[1];
            copied = (step->matrix = copy_matrix(model, step->first)) != NULL;
        } else if (step->kind == TAIL_CUT && (sound = step->out <= width)) {
            width = step->out;
        } else if (step->kind == TAIL_NORM && (sound = fits(step->first, width) && fits(step->second, width))) {
            step->matrix = copy_vector(model, step->first, width);
            step->bias = copy_vector(model, step->second, width);
            copied = step->matrix != NULL && step->bias != NULL;
        } else if (step->kind == TAIL_BIAS && (sound = fits(step->first, width) || fits(step->first, 1))) {
            copied = (step->bias = copy_vector(model, step->first, width)) != NULL;
        }
        step->out = width;
        if (!sound)
            return emrl_fail(error, EMRL_FOREIGN, "the graph's shapes behind the pooling do not fit together");
        if (!copied)
            return emrl_fail(error, EMRL_MEMORY, "not enough memory for the model");
        if (model->full_after == i + 1)
            model->shape.full = width;
    }
    model->shape.coarse = width;
    return EMRL_OK;
}

static int build(emrl_model *model, emrl_error *error)
{
    if (model->projection != NULL && (model->projector = copy_matrix(model, model->projection)) == NULL)
        return emrl_fail(error, EMRL_MEMORY, "not enough memory for the model");
    if (!pack_layers(model))
        return emrl_fail(error, EMRL_MEMORY, "not enough memory for the model");
    return build_tail(model, error);
}

/* The graph points into memory of its own, which goes when the model is made. What the model keeps of it
 * are the tables' tensors. */
static int keep_tables(emrl_model *model, emrl_error *error)
{
    emrl_table *tables[] = {&model->embedding.words, &model->embedding.places};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        const onnx_tensor **parts[] = {&tables[i]->rows, &tables[i]->scales};
        for (size_t j = 0; j < sizeof parts / sizeof *parts; j++) {
            if (*parts[j] == NULL)
                continue;
            onnx_tensor *kept = emrl_take(&model->arena, 1, sizeof *kept);
            if (kept == NULL)
                return emrl_fail(error, EMRL_MEMORY, "not enough memory for the model");
            *kept = **parts[j];
            *parts[j] = kept;
        }
    }
    return EMRL_OK;
}

/* Tables are read where the files are, which must stay; what lies in the graph's own bytes must not. */
static bool outside(const emrl_table *table, const uint8_t *graph, size_t size)
{
    const onnx_tensor *parts[] = {table->rows, table->scales};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i] != NULL && parts[i]->data >= graph && parts[i]->data < graph + size)
            return false;
    return true;
}

static int copy_inner_tables(emrl_model *model, const uint8_t *graph, size_t size, emrl_error *error)
{
    emrl_table *tables[] = {&model->embedding.words, &model->embedding.places};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        if (tables[i]->rows == NULL || outside(tables[i], graph, size))
            continue;
        onnx_tensor *parts[] = {(onnx_tensor *)tables[i]->rows, (onnx_tensor *)tables[i]->scales};
        for (size_t j = 0; j < sizeof parts / sizeof *parts; j++) {
            if (parts[j] == NULL)
                continue;
            uint8_t *copy = emrl_take(&model->arena, parts[j]->bytes, 1);
            if (copy == NULL)
                return emrl_fail(error, EMRL_MEMORY, "not enough memory for the model");
            memcpy(copy, parts[j]->data, parts[j]->bytes);
            parts[j]->data = copy;
        }
    }
    return EMRL_OK;
}

int emrl_open(const uint8_t *graph, size_t size, const emrl_file *files, size_t file_count, const char *kernel,
              emrl_model **model, char *error, size_t room)
{
    emrl_error report = {error, room};
    if (room > 0)
        error[0] = '\0';
    *model = NULL;
    const emrl_kernels *kernels = emrl_choose(kernel);
    if (kernels == NULL)
        return emrl_fail(&report, EMRL_KERNEL, "there are no kernels \"%s\", or this processor cannot run them",
                         kernel);
    emrl_model *made = calloc(1, sizeof *made);
    if (made == NULL)
        return emrl_fail(&report, EMRL_MEMORY, "not enough memory for the model");
    made->arena = emrl_arena_of(MOST_BYTES);
    made->kernels = kernels;
    emrl_arena scratch = emrl_arena_of(16 * size + (1 << 20));
    onnx_graph parsed;
    int code = onnx_read(graph, size, files, file_count, &scratch, &parsed, &report);
    if (code == EMRL_OK)
        code = emrl_match(&parsed, made, &report);
    if (code == EMRL_OK)
        code = build(made, &report);
    if (code == EMRL_OK)
        code = keep_tables(made, &report);
    if (code == EMRL_OK)
        code = copy_inner_tables(made, graph, size, &report);
    emrl_release(&scratch);
    if (code == EMRL_OK)
        *model = made;
    else
        emrl_close(made);
    return code;
}

void emrl_close(emrl_model *model)
{
    if (model == NULL)
        return;
    for (int i = 0; i < EMRL_SPARE; i++)
        emrl_work_free(atomic_load(&model->spare[i]));
    emrl_release(&model->arena);
    free(model);
}

emrl_shape emrl_shape_of(const emrl_model *model)
{
    return model->shape;
}

int emrl_api_version(void)
{
    return EMRL_API_VERSION;
}
