/* Token ids to vectors. Texts are run in groups, one behind the other without padding. Rows of tokens do
 * not depend on each other outside attention, and attention is computed for each text by itself. */
#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Texts are grouped up to so many tokens: enough rows for each weight that is read, few enough that the
 * rows stay in the second cache. */
#define GROUP_TOKENS 256
/* Rows that go through a feed-forward network at a time: their inner rows stay in the cache. A multiple of
 * the kernels' tiles. */
#define BLOCK_ROWS 48

/* Memory of one run. All rows have `stride` floats, except inner ones. */
struct emrl_work {
    size_t tokens, longest; /* that there is room for */
    float *hidden, *qkv, *mixed;
    float *block, *inner, *peaks;
    uint8_t *codes;
    float *scratch, *vector[2];
};

static size_t row_stride(const emrl_model *model)
{
    size_t embedding = emrl_up((size_t)model->embedding.width, EMRL_PANEL);
    size_t width = emrl_up((size_t)model->width, EMRL_PANEL);
    return width > embedding ? width : embedding;
}

static size_t inner_stride(const emrl_model *model)
{
    return emrl_up((size_t)model->inner, EMRL_PANEL);
}

/* Heads whose queries, keys and values are made and mixed at a time: few, so that they stay in the cache. Their
 * columns fill whole panels, or else all heads go together. */
static int heads_together(const emrl_model *model, const emrl_layer *layer)
{
    for (int heads = 1; heads < layer->heads; heads++)
        if (layer->heads % heads == 0 && heads * (model->width / layer->heads) % EMRL_PANEL == 0)
            return heads;
    return layer->heads;
}

static size_t qkv_stride(const emrl_model *model, const emrl_layer *layer)
{
    size_t width = (size_t)(heads_together(model, layer) * (model->width / layer->heads));
    return emrl_up(3 * width, EMRL_PANEL);
}

size_t emrl_attention_floats(size_t tokens, size_t width)
{
    size_t padded = emrl_up(tokens, EMRL_LANES), columns = emrl_up(width, EMRL_LANES), rows = 12;
    return padded * width + tokens * columns + rows * (padded + 2 * EMRL_LANES + width) +
           EMRL_LANES;
}

void emrl_work_free(emrl_work *work)
{
    if (work == NULL)
        return;
    void *parts[] = {work->hidden, work->qkv,   work->mixed,   work->block,     work->inner,
                     work->peaks,  work->codes, work->scratch, work->vector[0], work->vector[1]};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        emrl_aligned_free(parts[i]);
    free(work);
}

static float *zeros(size_t count)
{
    if (count > SIZE_MAX / sizeof(float))
        return NULL;
    float *made = emrl_aligned(count * sizeof *made);
    if (made != NULL)
        memset(made, 0, count * sizeof *made);
    return made;
}

static size_t widest_vector(const emrl_model *model)
{
    size_t most = (size_t)model->pools * emrl_up((size_t)model->width, EMRL_PANEL);
    for (int i = 0; i < model->steps; i++)
        if ((size_t)model->step[i].out > most)
            most = (size_t)model->step[i].out;
    return emrl_up(most, EMRL_PANEL);
}

static emrl_work *make_work(const emrl_model *model, size_t tokens, size_t longest)
{
    emrl_work *work = calloc(1, sizeof *work);
    if (work == NULL)
        return NULL;
    size_t stride = row_stride(model), inner = inner_stride(model), deepest = stride > inner ? stride : inner;
    int heads = model->layer[0].heads;
    size_t qkv = 0;
    for (int i = 0; i < model->layers; i++) {
        if (model->layer[i].heads < heads) /* fewer heads are wider */
            heads = model->layer[i].heads;
        if (qkv_stride(model, &model->layer[i]) > qkv)
            qkv = qkv_stride(model, &model->layer[i]);
    }
    size_t codes = tokens * stride > BLOCK_ROWS * deepest ? tokens * stride : BLOCK_ROWS * deepest;
    work->tokens = tokens;
    work->longest = longest;
    work->hidden = zeros(tokens * stride);
    work->qkv = zeros(tokens * qkv);
    work->mixed = zeros(tokens * stride);
    work->block = zeros(BLOCK_ROWS * stride);
    work->inner = zeros(BLOCK_ROWS * inner);
    work->peaks = zeros(tokens > BLOCK_ROWS ? tokens : BLOCK_ROWS);
    work->codes = (uint8_t *)zeros((codes + EMRL_CODES_BEHIND) * (size_t)model->kernels->code_bytes / sizeof(float) + 1);
    work->scratch = zeros(emrl_attention_floats(longest, (size_t)(model->width / heads)));
    for (int i = 0; i < 2; i++)
        work->vector[i] = zeros(widest_vector(model));
    if (work->hidden == NULL || work->qkv == NULL || work->mixed == NULL || work->block == NULL ||
        work->inner == NULL || work->peaks == NULL || work->codes == NULL || work->scratch == NULL ||
        work->vector[0] == NULL || work->vector[1] == NULL) {
        emrl_work_free(work);
        return NULL;
    }
    return work;
}

/* Memory that an earlier run has left, or new memory. */
emrl_work *emrl_work_take(emrl_model *model, size_t tokens, size_t longest)
{
    for (int i = 0; i < EMRL_SPARE; i++) {
        emrl_work *work = atomic_exchange(&model->spare[i], NULL);
        if (work != NULL && work->tokens >= tokens && work->longest >= longest)
            return work;
        emrl_work_free(work);
    }
    return make_work(model, tokens, longest);
}

void emrl_work_give(emrl_model *model, emrl_work *work)
{
    for (int i = 0; i < EMRL_SPARE && work != NULL; i++)
        work = atomic_exchange(&model->spare[i], work);
    emrl_work_free(work);
}

/* --- embedding --- */

static float half_at(const uint8_t *at)
{
    uint32_t half = (uint32_t)at[0] | (uint32_t)at[1] << 8, sign = half >> 15 << 31;
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    union {
        uint32_t whole;
        float real;
    } made;
    if (exponent == 0) { /* a multiple of 2^-24 */
        made.real = (float)fraction * 0x1p-24f;
        made.whole |= sign;
    } else {
        made.whole = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    }
    return made.real;
}

static void add_row(const emrl_table *table, int64_t index, float *row)
{
    size_t width = (size_t)table->width, first = (size_t)index * width;
    if (table->scales == NULL) {
        const uint8_t *from = table->rows->data + 4 * first;
        for (size_t i = 0; i < width; i++) {
            float value;
            memcpy(&value, from + 4 * i, 4);
            row[i] += value;
        }
        return;
    }
    const int8_t *codes = (const int8_t *)table->rows->data + first;
    float scale = half_at(table->scales->data + 2 * (size_t)index);
    for (size_t i = 0; i < width; i++)
        row[i] += (float)codes[i] * scale;
}

static void embed(const emrl_model *model, const int32_t *ids, int tokens, float *rows, float *spare)
{
    const emrl_embedding *embedding = &model->embedding;
    size_t stride = row_stride(model);
    int64_t counted = 0;
    for (int t = 0; t < tokens; t++) {
        float *row = rows + (size_t)t * stride;
        int64_t place = t;
        if (embedding->positions == EMRL_BEHIND_PADDING) {
            bool counts = ids[t] != embedding->padding;
            counted += counts;
            place = counts ? counted + embedding->padding : embedding->padding;
        }
        memset(row, 0, stride * sizeof *row);
        add_row(&embedding->words, ids[t], row);
        for (int i = 0; embedding->constant != NULL && i < embedding->width; i++)
            row[i] += embedding->constant[i];
        if (embedding->places.count != 0)
            add_row(&embedding->places, place, row);
    }
    model->kernels->norm(rows, NULL, stride, tokens, embedding->width, model->first.gain, model->first.bias,
                         model->first.epsilon);
    for (int t = 0; model->projector != NULL && t < tokens; t++) {
        float *row = rows + (size_t)t * stride;
        model->kernels->transform(row, model->projector, embedding->width,
                                  (int)emrl_up((size_t)model->width, EMRL_LANES), spare);
        memset(row, 0, stride * sizeof *row);
        for (int i = 0; i < model->width; i++)
            row[i] = spare[i] + model->projector_bias[i];
    }
}

/* --- layers --- */

/* Rows through one product: codes, then sums. */
static void run_product(const emrl_model *model, const emrl_product *product, float *rows, size_t stride,
                        int count, emrl_work *work, float *out, size_t out_stride)
{
    const emrl_kernels *kernels = model->kernels;
    kernels->code(rows, stride, count, product->in, &product->coding, work->codes, product->packed.depth,
                  work->peaks);
    kernels->multiply(work->codes, work->peaks, count, &product->packed, out, out_stride);
}

/* Some columns of a product's weights. */
static emrl_packed columns_of(const emrl_packed *packed, int first, int count)
{
    emrl_packed some = *packed;
    some.weights += (size_t)first * (size_t)packed->depth;
    some.start += first;
    some.scale += first;
    some.bias += first;
    some.columns = count;
    return some;
}

/* Queries, keys and values of some heads of all rows, side by side. */
static void make_qkv(const emrl_model *model, const emrl_layer *layer, int head, int heads, int tokens,
                     emrl_work *work)
{
    const emrl_packed *all = &layer->qkv.packed;
    int width = model->width / layer->heads;
    size_t stride = qkv_stride(model, layer);
    if (heads == layer->heads) {
        model->kernels->multiply(work->codes, work->peaks, tokens, all, work->qkv, stride);
        return;
    }
    for (int part = 0; part < 3; part++) {
        emrl_packed some = columns_of(all, part * model->width + head * width, heads * width);
        model->kernels->multiply(work->codes, work->peaks, tokens, &some, work->qkv + part * heads * width, stride);
    }
}

static void run_attention(const emrl_model *model, const emrl_layer *layer, const int64_t *starts, size_t texts,
                          int rows, emrl_work *work)
{
    size_t stride = qkv_stride(model, layer), to = row_stride(model);
    int heads = heads_together(model, layer), width = model->width / layer->heads, apart = heads * width;
    model->kernels->code(work->hidden, to, rows, layer->qkv.in, &layer->qkv.coding, work->codes,
                         layer->qkv.packed.depth, work->peaks);
    for (int first = 0; first < layer->heads; first += heads) {
        make_qkv(model, layer, first, heads, rows, work);
        for (size_t text = 0; text < texts; text++) {
            size_t row = (size_t)(starts[text] - starts[0]);
            int tokens = (int)(starts[text + 1] - starts[text]);
            for (int head = 0; head < heads && tokens > 0; head++) {
                const float *q = work->qkv + row * stride + (size_t)(head * width);
                model->kernels->attend(q, q + apart, q + 2 * apart, stride, tokens, width, layer->scale,
                                       work->mixed + row * to + (size_t)((first + head) * width), to, work->scratch);
            }
        }
    }
}

static void run_layer(const emrl_model *model, const emrl_layer *layer, const int64_t *starts, size_t texts,
                      int tokens, emrl_work *work)
{
    const emrl_kernels *kernels = model->kernels;
    size_t stride = row_stride(model), inner = inner_stride(model);
    run_attention(model, layer, starts, texts, tokens, work);
    for (int first = 0; first < tokens; first += BLOCK_ROWS) {
        int count = tokens - first < BLOCK_ROWS ? tokens - first : BLOCK_ROWS;
        float *rows = work->hidden + (size_t)first * stride;
        run_product(model, &layer->out, work->mixed + (size_t)first * stride, stride, count, work, work->block,
                    stride);
        kernels->norm(rows, work->block, stride, count, model->width, layer->middle.gain, layer->middle.bias,
                      layer->middle.epsilon);
        run_product(model, &layer->up, rows, stride, count, work, work->inner, inner);
        run_product(model, &layer->down, work->inner, inner, count, work, work->block, stride);
        kernels->norm(rows, work->block, stride, count, model->width, layer->last.gain, layer->last.bias,
                      layer->last.epsilon);
    }
}

static bool ids_are_sound(const emrl_model *model, const int32_t *ids, const int64_t *starts, size_t texts,
                          emrl_error *error)
{
    for (size_t text = 0; text < texts; text++) {
        int64_t tokens = starts[text + 1] - starts[text];
        int64_t most = model->shape.max_tokens > 0 ? model->shape.max_tokens : EMRL_MOST_TOKENS;
        if (starts[text] < 0 || tokens < 0 || tokens > most)
            return emrl_fail(error, EMRL_REFUSED, "text %zu has %lld tokens, expected at most %lld", text,
                             (long long)tokens, (long long)most) == EMRL_OK;
        for (int64_t i = starts[text]; i < starts[text + 1]; i++)
            if (ids[i] < 0 || ids[i] >= model->shape.vocabulary)
                return emrl_fail(error, EMRL_REFUSED, "text %zu has the token id %d, expected one below %d", text,
                                 (int)ids[i], (int)model->shape.vocabulary) == EMRL_OK;
    }
    return true;
}

/* Texts of which one group consists: at least one. */
static size_t group_end(const int64_t *starts, size_t first, size_t texts)
{
    size_t end = first + 1;
    while (end < texts && starts[end + 1] - starts[first] <= GROUP_TOKENS)
        end++;
    return end;
}

int emrl_encode(emrl_model *model, const int32_t *ids, const int64_t *starts, size_t texts, int8_t *coarse,
                float *full, char *error, size_t room)
{
    emrl_error report = {error, room};
    if (room > 0)
        error[0] = '\0';
    if (!ids_are_sound(model, ids, starts, texts, &report))
        return EMRL_REFUSED;
    for (size_t first = 0, end; first < texts; first = end) {
        size_t longest = 1;
        end = group_end(starts, first, texts);
        int tokens = (int)(starts[end] - starts[first]);
        for (size_t text = first; text < end; text++)
            if ((size_t)(starts[text + 1] - starts[text]) > longest)
                longest = (size_t)(starts[text + 1] - starts[text]);
        emrl_work *work = emrl_work_take(model, tokens > 0 ? (size_t)tokens : 1, longest);
        if (work == NULL)
            return emrl_fail(&report, EMRL_MEMORY, "not enough memory for a text of %zu tokens", longest);
        for (size_t text = first; text < end; text++)
            embed(model, ids + starts[text], (int)(starts[text + 1] - starts[text]),
                  work->hidden + (size_t)(starts[text] - starts[first]) * row_stride(model), work->block);
        for (int i = 0; i < model->layers; i++)
            run_layer(model, &model->layer[i], starts + first, end - first, tokens, work);
        for (size_t text = first; text < end; text++)
            emrl_finish(model, work->hidden + (size_t)(starts[text] - starts[first]) * row_stride(model),
                        row_stride(model), (int)(starts[text + 1] - starts[text]), work->vector,
                        coarse + text * (size_t)model->shape.coarse,
                        full == NULL ? NULL : full + text * (size_t)model->shape.full);
        emrl_work_give(model, work);
    }
    return EMRL_OK;
}
