/* What lies before the layers (tables of tokens and positions) and behind them (pooling, norms, head,
 * codes), and the matching of a whole graph. */
#include "model.h"

#include <math.h>
#include <string.h>

enum { TO_FLOAT = 1, TO_INT8 = 3 };

static const onnx_node *cast_to(const emrl_matcher *m, int value, int64_t type)
{
    const onnx_node *cast = emrl_made(m, value, "Cast");
    return cast != NULL && emrl_attribute_whole(cast, "to", 0) == type ? cast : NULL;
}

/* --- tables --- */

/* A term of the embedding: rows of a table, int8 rows with scales too. */
static bool match_rows(const emrl_matcher *m, int value, emrl_table *table, int *index)
{
    const onnx_node *rows = emrl_made(m, value, "Mul"), *scales = NULL;
    memset(table, 0, sizeof *table);
    if (rows != NULL) {
        const onnx_node *codes = cast_to(m, emrl_input(rows, 0), TO_FLOAT);
        const onnx_node *steps = cast_to(m, emrl_input(rows, 1), TO_FLOAT);
        if (codes == NULL || steps == NULL || (scales = emrl_made(m, steps->input[0], "Gather")) == NULL)
            return false;
        value = codes->input[0];
    }
    rows = emrl_made(m, value, "Gather");
    if (rows == NULL || rows->inputs != 2 || emrl_attribute_whole(rows, "axis", 0) != 0 ||
        (table->rows = emrl_constant(m, rows->input[0])) == NULL || table->rows->rank != 2 ||
        table->rows->type != (scales == NULL ? ONNX_FLOAT : ONNX_INT8))
        return false;
    table->count = table->rows->dims[0];
    if (table->rows->dims[1] < 1 || table->rows->dims[1] > EMRL_MOST_WIDTH || table->count < 1 ||
        table->count > INT32_MAX)
        return false;
    table->width = (int)table->rows->dims[1];
    *index = rows->input[1];
    if (scales == NULL)
        return true;
    table->scales = emrl_constant(m, emrl_input(scales, 0));
    return scales->inputs == 2 && table->scales != NULL && table->scales->type == ONNX_FLOAT16 &&
           table->scales->elements == (size_t)table->count && emrl_attribute_whole(scales, "axis", 0) == 0 &&
           scales->input[1] == *index;
}

/* The number of tokens: Unsqueeze(Gather(Shape(ids or rows), 1)). */
static bool is_token_count(const emrl_matcher *m, int value)
{
    const onnx_node *one = emrl_made(m, value, "Unsqueeze"), *gather, *shape;
    int64_t index;
    emrl_table table;
    int ids;
    if (one == NULL || (gather = emrl_made(m, one->input[0], "Gather")) == NULL ||
        !emrl_whole(m, emrl_input(gather, 1), &index) || index != 1 ||
        (shape = emrl_made(m, gather->input[0], "Shape")) == NULL || emrl_attribute_whole(shape, "start", 0) != 0)
        return false;
    int of = emrl_input(shape, 0);
    return of == m->graph->ids || of == m->graph->mask ||
           (match_rows(m, of, &table, &ids) && ids == m->graph->ids);
}

/* What Slice(constant[1, n], 0, tokens, axis 1) cuts. */
static const onnx_tensor *match_cut(const emrl_matcher *m, int value)
{
    const onnx_node *slice = emrl_made(m, value, "Slice");
    const onnx_tensor *list;
    int64_t start, axis, step = 1;
    if (slice == NULL || slice->inputs < 4 || (list = emrl_constant(m, slice->input[0])) == NULL ||
        list->type != ONNX_INT64 || list->rank != 2 || list->dims[0] != 1 ||
        !emrl_whole(m, slice->input[1], &start) || start != 0 || !is_token_count(m, slice->input[2]) ||
        !emrl_whole(m, slice->input[3], &axis) || axis != 1 ||
        (slice->inputs > 4 && (!emrl_whole(m, slice->input[4], &step) || step != 1)))
        return NULL;
    return list;
}

static bool counts_up(const onnx_tensor *list, int64_t step)
{
    for (size_t i = 0; i < list->elements; i++) {
        int64_t value;
        memcpy(&value, list->data + 8 * i, 8);
        if (value != (int64_t)i * step)
            return false;
    }
    return true;
}

/* RoBERTa's positions: CumSum(ids != padding) * (ids != padding) + padding. */
static bool match_behind_padding(const emrl_matcher *m, int value, int64_t *padding)
{
    const onnx_node *sum = emrl_made(m, value, "Add"), *cast, *product, *running, *flags, *equal;
    int rest, constant;
    int64_t shift, axis;
    if (sum == NULL || !emrl_with_constant(m, sum, &rest, &constant) || !emrl_whole(m, constant, &shift) ||
        (cast = emrl_made(m, rest, "Cast")) == NULL || (product = emrl_made(m, cast->input[0], "Mul")) == NULL ||
        product->inputs != 2 || (running = emrl_made(m, product->input[0], "CumSum")) == NULL ||
        running->input[0] != product->input[1] || !emrl_whole(m, emrl_input(running, 1), &axis) || axis != 1 ||
        emrl_attribute_whole(running, "exclusive", 0) != 0 || emrl_attribute_whole(running, "reverse", 0) != 0)
        return false;
    if ((flags = emrl_made(m, product->input[1], "Cast")) == NULL ||
        (flags = emrl_made(m, flags->input[0], "Not")) == NULL ||
        (equal = emrl_made(m, flags->input[0], "Equal")) == NULL || equal->inputs != 2 ||
        !emrl_with_constant(m, equal, &rest, &constant) || !emrl_whole(m, constant, padding))
        return false;
    return rest == m->graph->ids && shift == *padding && shift >= 0 && shift < INT32_MAX;
}

/* Add the first row of a table to what is added to every token: one token type. */
static bool add_constant_row(emrl_matcher *m, const emrl_table *table)
{
    emrl_embedding *embedding = &m->model->embedding;
    if (table->scales != NULL)
        return false;
    if (embedding->constant == NULL)
        embedding->constant = emrl_take(&m->model->arena, emrl_up((size_t)table->width, EMRL_LANES), sizeof(float));
    if (embedding->constant == NULL)
        return false;
    for (int i = 0; i < table->width; i++) {
        float value;
        memcpy(&value, table->rows->data + 4 * (size_t)i, 4);
        embedding->constant[i] += value;
    }
    return true;
}

/* The terms of a sum: the table of tokens once, one of positions at most, and token types. */
static bool match_terms(emrl_matcher *m, int value, int depth)
{
    emrl_embedding *embedding = &m->model->embedding;
    const onnx_node *sum = emrl_made(m, value, "Add"), *expand;
    emrl_table table;
    int index;
    if (sum != NULL && sum->inputs == 2)
        return depth < 8 && match_terms(m, sum->input[0], depth + 1) && match_terms(m, sum->input[1], depth + 1);
    if (!match_rows(m, value, &table, &index) || (embedding->width != 0 && table.width != embedding->width))
        return false;
    embedding->width = table.width;
    if (index == m->graph->ids) {
        bool first = embedding->words.count == 0;
        embedding->words = table;
        return first;
    }
    if ((expand = emrl_made(m, index, "Expand")) != NULL)
        index = emrl_input(expand, 0);
    const onnx_tensor *list = match_cut(m, index);
    if (list != NULL && counts_up(list, 0))
        return add_constant_row(m, &table);
    if (embedding->places.count != 0 || expand != NULL)
        return false;
    embedding->places = table;
    if (list != NULL) {
        embedding->positions = EMRL_COUNTED;
        m->model->shape.max_tokens = (int32_t)(list->dims[1] < table.count ? list->dims[1] : table.count);
        return counts_up(list, 1);
    }
    embedding->positions = EMRL_BEHIND_PADDING;
    if (!match_behind_padding(m, index, &embedding->padding) || table.count < embedding->padding + 2)
        return false;
    m->model->shape.max_tokens = (int32_t)(table.count - embedding->padding - 1);
    return true;
}

/* rows @ matrix + bias, in floats */
static bool match_projection(emrl_matcher *m, int value, int *input)
{
    const onnx_node *sum = emrl_made(m, value, "Add"), *product;
    int rest, constant;
    if (sum == NULL || !emrl_with_constant(m, sum, &rest, &constant) ||
        (product = emrl_made(m, rest, "MatMul")) == NULL)
        return false;
    const onnx_tensor *matrix = emrl_constant(m, emrl_input(product, 1));
    const onnx_tensor *bias = emrl_floats(m, constant, m->model->width);
    if (matrix == NULL || matrix->type != ONNX_FLOAT || matrix->rank != 2 || bias == NULL ||
        matrix->dims[1] != m->model->width)
        return false;
    m->model->projection = matrix;
    m->model->projector_bias = emrl_copy_floats(m, bias, m->model->width);
    *input = product->input[0];
    return m->model->projector_bias != NULL;
}

bool emrl_match_embedding(emrl_matcher *m, int value)
{
    emrl_model *model = m->model;
    const onnx_tensor *bias;
    int width = model->width, left, right, normed;
    if (match_projection(m, value, &normed)) {
        model->width = 0;
        value = normed;
    }
    bool sound = emrl_match_norm(m, value, &model->first, &left, &right, &bias) && bias == NULL;
    int normed_width = model->width;
    model->width = width;
    if (!sound || !match_terms(m, left, 0) || (right >= 0 && !match_terms(m, right, 0)))
        return false;
    model->shape.vocabulary = (int32_t)model->embedding.words.count;
    int64_t before = model->projection != NULL ? model->projection->dims[0] : width;
    return model->embedding.words.count != 0 && model->embedding.width == normed_width &&
           before == normed_width;
}

/* --- pooling --- */

static bool is_mask(const emrl_matcher *m, int value)
{
    const onnx_node *cast = cast_to(m, value, TO_FLOAT);
    return cast != NULL && emrl_input(cast, 0) == m->graph->mask;
}

static bool is_running_mask(const emrl_matcher *m, int value)
{
    const onnx_node *sum = emrl_made(m, value, "CumSum");
    int64_t axis;
    return sum != NULL && is_mask(m, sum->input[0]) && emrl_whole(m, emrl_input(sum, 1), &axis) && axis == 1 &&
           emrl_attribute_whole(sum, "exclusive", 0) == 0 && emrl_attribute_whole(sum, "reverse", 0) == 0;
}

static bool is_one(const emrl_matcher *m, int value)
{
    float real;
    return emrl_real(m, value, &real) && real == 1.0f;
}

/* max(ReduceSum(x), 1), of the mask (or the mask times its running sum) */
static bool is_total(const emrl_matcher *m, int value, int of)
{
    const onnx_node *most = emrl_made(m, value, "Max"), *sum;
    int64_t axis;
    return most != NULL && most->inputs == 2 && is_one(m, most->input[1]) &&
           (sum = emrl_made(m, most->input[0], "ReduceSum")) != NULL && sum->input[0] == of &&
           emrl_whole(m, emrl_input(sum, 1), &axis) && axis == -1;
}

static bool match_weights(const emrl_matcher *m, int value, emrl_pool *pool)
{
    const onnx_node *node = emrl_made(m, value, "Div"), *inner;
    if (node != NULL && node->inputs == 2) {
        int of = node->input[0], by = node->input[1];
        if ((inner = emrl_made(m, of, "Mul")) != NULL && inner->inputs == 2) {
            *pool = EMRL_WEIGHTED;
            return is_mask(m, inner->input[0]) && is_running_mask(m, inner->input[1]) && is_total(m, by, of);
        }
        *pool = EMRL_MEAN;
        if ((inner = emrl_made(m, by, "Sqrt")) != NULL) {
            *pool = EMRL_MEAN_SQRT;
            by = emrl_input(inner, 0);
        }
        return is_mask(m, of) && is_total(m, by, of);
    }
    node = emrl_made(m, value, "Mul");
    if (node == NULL || node->inputs != 2 || !is_mask(m, node->input[0]) ||
        (inner = cast_to(m, node->input[1], TO_FLOAT)) == NULL ||
        (inner = emrl_made(m, inner->input[0], "Equal")) == NULL || inner->inputs != 2 ||
        !is_running_mask(m, inner->input[0]))
        return false;
    *pool = is_one(m, inner->input[1]) ? EMRL_FIRST : EMRL_LAST;
    return *pool == EMRL_FIRST || is_total(m, inner->input[1], node->input[0]);
}

/* ReduceMax(Where(mask, hidden, lowest), axis 1) */
static bool match_largest(const emrl_matcher *m, int value, int *hidden)
{
    const onnx_node *most = emrl_made(m, value, "ReduceMax"), *shown, *flags;
    int64_t axis;
    float lowest;
    if (most == NULL || !emrl_whole(m, emrl_input(most, 1), &axis) || axis != 1 ||
        emrl_attribute_whole(most, "keepdims", 1) != 0 || (shown = emrl_made(m, most->input[0], "Where")) == NULL ||
        shown->inputs != 3 || !emrl_real(m, shown->input[2], &lowest) || lowest > -1e38f ||
        (flags = emrl_made(m, shown->input[0], "Cast")) == NULL ||
        (flags = emrl_made(m, flags->input[0], "Unsqueeze")) == NULL || !is_mask(m, flags->input[0]))
        return false;
    *hidden = shown->input[1];
    return true;
}

static bool match_pool(const emrl_matcher *m, int value, emrl_pool *pool, int *hidden)
{
    const onnx_node *squeeze = emrl_made(m, value, "Squeeze"), *product, *row;
    int64_t axis;
    *pool = EMRL_LARGEST;
    if (squeeze == NULL)
        return match_largest(m, value, hidden);
    if (!emrl_whole(m, emrl_input(squeeze, 1), &axis) || axis != 1 ||
        (product = emrl_made(m, squeeze->input[0], "MatMul")) == NULL || product->inputs != 2 ||
        (row = emrl_made(m, product->input[0], "Unsqueeze")) == NULL ||
        !emrl_whole(m, emrl_input(row, 1), &axis) || axis != 1)
        return false;
    *hidden = product->input[1];
    return match_weights(m, row->input[0], pool);
}

bool emrl_match_pools(emrl_matcher *m, int value, int *hidden)
{
    emrl_model *model = m->model;
    const onnx_node *concat = emrl_made(m, value, "Concat");
    if (concat == NULL) {
        model->pools = 1;
        return match_pool(m, value, &model->pool[0], hidden);
    }
    if (concat->inputs > EMRL_MOST_POOLS || emrl_attribute_whole(concat, "axis", 0) != -1)
        return false;
    for (model->pools = 0; model->pools < concat->inputs; model->pools++) {
        int of;
        if (!match_pool(m, concat->input[model->pools], &model->pool[model->pools], &of) ||
            (model->pools > 0 && of != *hidden))
            return false;
        *hidden = of;
    }
    return model->pools > 0;
}

/* --- the graph --- */

int emrl_match(const onnx_graph *graph, emrl_model *model, emrl_error *error)
{
    emrl_matcher m = {graph, model, "what follows pooling"};
    int value, hidden, pooled;
    if (!emrl_match_tail(&m, &pooled) || !emrl_match_pools(&m, pooled, &hidden))
        return emrl_fail(error, EMRL_FOREIGN, "the graph's %s is none that the kernels know",
                         model->steps == 0 ? "end" : "pooling");
    model->layer = emrl_take(&model->arena, EMRL_MOST_LAYERS, sizeof *model->layer);
    if (model->layer == NULL)
        return emrl_fail(error, EMRL_MEMORY, "not enough memory to read the graph");
    int before = ONNX_NO_VALUE;
    for (value = hidden; model->layers < EMRL_MOST_LAYERS; model->layers++, value = before) {
        emrl_layer *layer = &model->layer[model->layers];
        if (!emrl_match_layer(&m, value, layer, &before))
            break;
        if (layer->up.out > model->inner)
            model->inner = layer->up.out;
    }
    if (model->layers == 0)
        return emrl_fail(error, EMRL_FOREIGN, "the graph's last layer is none that the kernels know");
    for (int i = 0; i < model->layers / 2; i++) { /* they were found from the last */
        emrl_layer layer = model->layer[i];
        model->layer[i] = model->layer[model->layers - 1 - i];
        model->layer[model->layers - 1 - i] = layer;
    }
    if (!emrl_match_embedding(&m, value))
        return emrl_fail(error, EMRL_FOREIGN, "the kernels do not know what comes before the last %d layers",
                         model->layers);
    return EMRL_OK;
}
