/* Layers of a transformer, found from their output towards their input. Whatever differs from what the
 * exporter writes is no match, and another engine runs the bundle. */
#include "model.h"

#include <math.h>
#include <string.h>

const onnx_node *emrl_made(const emrl_matcher *m, int value, const char *op)
{
    const onnx_node *maker = value < 0 ? NULL : m->graph->value[value].maker;
    return maker != NULL && onnx_is(maker->op, op) && maker->output[0] == value ? maker : NULL;
}

int emrl_input(const onnx_node *node, int index)
{
    return index < node->inputs ? node->input[index] : ONNX_NO_VALUE;
}

const onnx_tensor *emrl_constant(const emrl_matcher *m, int value)
{
    const onnx_tensor *weight = value < 0 ? NULL : m->graph->value[value].weight;
    return weight != NULL && weight->data != NULL ? weight : NULL;
}

const onnx_tensor *emrl_floats(const emrl_matcher *m, int value, int64_t elements)
{
    const onnx_tensor *weight = emrl_constant(m, value);
    bool fits = weight != NULL && weight->type == ONNX_FLOAT && weight->elements == (size_t)elements;
    return fits ? weight : NULL;
}

bool emrl_real(const emrl_matcher *m, int value, float *real)
{
    const onnx_tensor *weight = emrl_floats(m, value, 1);
    if (weight == NULL)
        return false;
    memcpy(real, weight->data, 4);
    return isfinite(*real);
}

bool emrl_whole(const emrl_matcher *m, int value, int64_t *whole)
{
    const onnx_tensor *weight = emrl_constant(m, value);
    if (weight == NULL || weight->elements != 1)
        return false;
    if (weight->type == ONNX_INT64) {
        memcpy(whole, weight->data, 8);
        return true;
    }
    if (weight->type == ONNX_INT32) {
        int32_t narrow;
        memcpy(&narrow, weight->data, 4);
        *whole = narrow;
        return true;
    }
    return false;
}

/* The two inputs of a node, one of which is a weight. */
bool emrl_with_constant(const emrl_matcher *m, const onnx_node *node, int *value, int *constant)
{
    int left = emrl_input(node, 0), right = emrl_input(node, 1);
    bool first = emrl_constant(m, left) != NULL, second = emrl_constant(m, right) != NULL;
    if (first == second)
        return false;
    *value = first ? right : left;
    *constant = first ? left : right;
    return true;
}

static const onnx_attribute *attribute(const onnx_node *node, const char *name)
{
    for (int i = 0; i < node->attributes; i++)
        if (onnx_is(node->attribute[i].name, name))
            return &node->attribute[i];
    return NULL;
}

float emrl_attribute_real(const onnx_node *node, const char *name, float otherwise)
{
    const onnx_attribute *found = attribute(node, name);
    return found != NULL ? found->real : otherwise;
}

int64_t emrl_attribute_whole(const onnx_node *node, const char *name, int64_t otherwise)
{
    const onnx_attribute *found = attribute(node, name);
    return found != NULL ? found->whole : otherwise;
}

/* A float[width] in padded memory of the model; a single value is repeated. */
float *emrl_copy_floats(emrl_matcher *m, const onnx_tensor *weight, int width)
{
    float *copy = emrl_take(&m->model->arena, emrl_up((size_t)width, EMRL_LANES), sizeof *copy);
    if (copy == NULL)
        return NULL;
    for (int i = 0; i < width; i++)
        memcpy(&copy[i], weight->data + (weight->elements == 1 ? 0 : 4 * (size_t)i), 4);
    return copy;
}

/* The axes of a reduction over a row's values: [-1], kept. */
static bool over_last(const emrl_matcher *m, const onnx_node *node)
{
    int64_t axis;
    return emrl_whole(m, emrl_input(node, 1), &axis) && axis == -1 &&
           emrl_attribute_whole(node, "keepdims", 1) == 1;
}

/* peak = max(ReduceMax(|x| or x), least) */
static bool match_peak(emrl_matcher *m, int peak, int x, emrl_coding *coding)
{
    const onnx_node *most = emrl_made(m, peak, "Max"), *reduced, *magnitude;
    if (most == NULL || most->inputs != 2 || !emrl_real(m, most->input[1], &coding->least) ||
        !(coding->least > 0) || (reduced = emrl_made(m, most->input[0], "ReduceMax")) == NULL ||
        !over_last(m, reduced))
        return false;
    magnitude = emrl_made(m, reduced->input[0], "Abs");
    coding->magnitude = magnitude != NULL;
    return (magnitude != NULL ? emrl_input(magnitude, 0) : reduced->input[0]) == x;
}

/* codes = QuantizeLinear(x * smooth + offset, ...) with a fixed step, or with that of the row's peak. */
static bool match_coding(emrl_matcher *m, int codes, int peak, int width, emrl_coding *coding, int *input)
{
    const onnx_node *node = emrl_made(m, codes, "QuantizeLinear"), *scaled, *divided;
    const onnx_tensor *zero, *smooth, *offset;
    int value, constant;
    if (node == NULL || node->inputs != 3 || !emrl_real(m, node->input[1], &coding->step) ||
        (zero = emrl_constant(m, node->input[2])) == NULL || zero->type != ONNX_UINT8 ||
        zero->elements != 1 || !(coding->step > 0))
        return false;
    coding->zero = zero->data[0];
    coding->fixed = peak < 0;
    value = node->input[0];
    if (!coding->fixed) {
        if (coding->step != 1.0f || (scaled = emrl_made(m, value, "Mul")) == NULL || scaled->inputs != 2 ||
            (divided = emrl_made(m, scaled->input[1], "Div")) == NULL || divided->inputs != 2 ||
            !emrl_real(m, divided->input[0], &coding->levels) || divided->input[1] != peak ||
            !match_peak(m, peak, scaled->input[0], coding))
            return false;
        value = scaled->input[0];
    }
    if ((node = emrl_made(m, value, "Add")) != NULL && emrl_with_constant(m, node, input, &constant)) {
        if ((offset = emrl_floats(m, constant, width)) == NULL && (offset = emrl_floats(m, constant, 1)) == NULL)
            return false;
        coding->offset = emrl_copy_floats(m, offset, width);
        if (coding->offset == NULL)
            return false;
        value = *input;
    }
    if ((node = emrl_made(m, value, "Mul")) != NULL && emrl_with_constant(m, node, input, &constant)) {
        if ((smooth = emrl_floats(m, constant, width)) == NULL)
            return false;
        coding->smooth = emrl_copy_floats(m, smooth, width);
        if (coding->smooth == NULL)
            return false;
        value = *input;
    }
    *input = value;
    return true;
}

/* int8 weights, or uint8 ones with the zero point 128. */
static const onnx_tensor *product_weight(const emrl_matcher *m, const onnx_node *node)
{
    const onnx_tensor *weight = emrl_constant(m, emrl_input(node, 1));
    const onnx_tensor *zero = emrl_constant(m, emrl_input(node, 5));
    if (weight == NULL || weight->rank != 2 || weight->dims[0] < 1 || weight->dims[1] < 1 ||
        weight->dims[0] > EMRL_MOST_WIDTH || weight->dims[1] > EMRL_MOST_WIDTH)
        return NULL;
    if (weight->type == ONNX_INT8) /* a zero point of 0 may be there */
        return zero == NULL || (zero->type == ONNX_INT8 && zero->elements == 1 && zero->data[0] == 0) ? weight : NULL;
    bool shifted = zero != NULL && zero->type == ONNX_UINT8 && zero->elements == 1 && zero->data[0] == 128;
    return weight->type == ONNX_UINT8 && shifted ? weight : NULL;
}

/* value = [Add(] [Mul(] MatMulIntegerToFloat(codes, weight, ...) [, peak)] [, bias)]; `codes` is what it reads. */
static bool match_integer(emrl_matcher *m, int value, emrl_product *product, int part, int *codes, int *peak)
{
    const onnx_node *node = emrl_made(m, value, "Add"), *scaled;
    const onnx_tensor *bias = NULL, *weight;
    float step;
    int constant, rest;
    if (node != NULL) {
        if (!emrl_with_constant(m, node, &rest, &constant) || (bias = emrl_constant(m, constant)) == NULL)
            return false;
        value = rest;
    }
    *peak = ONNX_NO_VALUE;
    if ((scaled = emrl_made(m, value, "Mul")) != NULL) {
        if (scaled->inputs != 2)
            return false;
        value = scaled->input[0];
        *peak = scaled->input[1];
    }
    node = emrl_made(m, value, "MatMulIntegerToFloat");
    if (node == NULL || (weight = product_weight(m, node)) == NULL)
        return false;
    int out = (int)weight->dims[1];
    if (emrl_input(node, 6) >= 0) { /* before the row's peak is multiplied, unless that is fixed */
        if (bias != NULL || *peak >= 0 || (bias = emrl_constant(m, node->input[6])) == NULL)
            return false;
    }
    if (bias != NULL && (bias->type != ONNX_FLOAT || bias->elements != (size_t)out))
        return false;
    if (!emrl_real(m, node->input[2], &step) ||
        (product->scale[part] = emrl_floats(m, node->input[3], out)) == NULL)
        return false;
    if (part > 0 && (step != product->step || out != product->out || weight->dims[0] != product->in))
        return false;
    product->step = step;
    product->in = (int)weight->dims[0];
    product->out = out;
    product->weight[part] = weight;
    product->bias[part] = bias;
    product->parts = part + 1;
    *codes = node->input[0];
    /* The zero point of the product is that of the codes. */
    const onnx_node *coder = emrl_made(m, *codes, "QuantizeLinear");
    return coder != NULL && coder->inputs == 3 && emrl_input(node, 4) == coder->input[2] &&
           (*peak >= 0 || emrl_input(node, 2) == coder->input[1]);
}

bool emrl_match_product(emrl_matcher *m, int value, emrl_product *product, int *input)
{
    int codes, peak;
    memset(product, 0, sizeof *product);
    return match_integer(m, value, product, 0, &codes, &peak) &&
           match_coding(m, codes, peak, product->in, &product->coding, input);
}

bool emrl_match_norm(emrl_matcher *m, int value, emrl_norm *norm, int *left, int *right, const onnx_tensor **bias)
{
    const onnx_node *node = emrl_made(m, value, "LayerNormalization"), *sum;
    int gain_at = 1;
    *bias = NULL;
    *left = *right = ONNX_NO_VALUE;
    if (node != NULL) {
        if (emrl_attribute_whole(node, "axis", -1) != -1)
            return false;
        sum = emrl_made(m, emrl_input(node, 0), "Add");
        *left = sum == NULL ? node->input[0] : emrl_input(sum, 0);
        *right = sum == NULL ? ONNX_NO_VALUE : emrl_input(sum, 1);
    } else {
        node = emrl_made(m, value, "SkipLayerNormalization");
        if (node == NULL)
            return false;
        *left = emrl_input(node, 0);
        *right = emrl_input(node, 1);
        gain_at = 2;
        if (emrl_input(node, 4) >= 0 && (*bias = emrl_constant(m, node->input[4])) == NULL)
            return false;
    }
    const onnx_tensor *gain = emrl_constant(m, emrl_input(node, gain_at));
    if (gain == NULL || gain->elements < 1 || gain->elements > EMRL_MOST_WIDTH)
        return false;
    int width = (int)gain->elements;
    const onnx_tensor *shift = emrl_floats(m, emrl_input(node, gain_at + 1), width);
    if (gain->type != ONNX_FLOAT || shift == NULL ||
        (*bias != NULL && ((*bias)->type != ONNX_FLOAT || (*bias)->elements != gain->elements)))
        return false;
    if (m->model->width != 0 && width != m->model->width)
        return false;
    norm->epsilon = emrl_attribute_real(node, "epsilon", 1e-5f);
    norm->gain = emrl_copy_floats(m, gain, width);
    norm->bias = emrl_copy_floats(m, shift, width);
    m->model->width = width;
    return norm->gain != NULL && norm->bias != NULL && norm->epsilon >= 0;
}

/* Give a product the bias that a node behind it adds. */
static bool add_bias(emrl_product *product, const onnx_tensor *bias)
{
    if (bias == NULL)
        return true;
    if (product->bias[0] != NULL || bias->elements != (size_t)product->out)
        return false;
    product->bias[0] = bias;
    return true;
}

static bool match_activation(emrl_matcher *m, int value, emrl_layer *layer, int *before, const onnx_tensor **bias)
{
    static const struct {
        const char *op;
        emrl_activation activation;
        bool biased;
    } known[] = {{"FastGelu", EMRL_GELU_TANH, true},
                 {"BiasGelu", EMRL_GELU_ERF, true},
                 {"Gelu", EMRL_GELU_ERF, false},
                 {"Relu", EMRL_RELU, false}};
    *bias = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const onnx_node *node = emrl_made(m, value, known[i].op);
        if (node == NULL)
            continue;
        if (node->attributes != 0 || node->inputs > (known[i].biased ? 2 : 1))
            return false;
        layer->down.coding.activation = known[i].activation;
        *before = emrl_input(node, 0);
        if (emrl_input(node, 1) < 0)
            return true;
        *bias = emrl_constant(m, node->input[1]);
        return *bias != NULL && (*bias)->type == ONNX_FLOAT;
    }
    return false;
}

/* The key length of a text: ReduceSum(Cast(attention_mask, int32), axis 1). */
static bool match_lengths(const emrl_matcher *m, int value)
{
    const onnx_node *sum = emrl_made(m, value, "ReduceSum"), *cast;
    int64_t axis;
    return sum != NULL && emrl_whole(m, emrl_input(sum, 1), &axis) && axis == 1 &&
           emrl_attribute_whole(sum, "keepdims", 1) == 0 &&
           (cast = emrl_made(m, sum->input[0], "Cast")) != NULL && emrl_input(cast, 0) == m->graph->mask;
}

static bool match_attention(emrl_matcher *m, int value, emrl_layer *layer, int *input)
{
    const onnx_node *node = emrl_made(m, value, "MultiHeadAttention");
    const onnx_tensor *bias = NULL;
    int first_codes = ONNX_NO_VALUE, first_peak = ONNX_NO_VALUE, width = m->model->width;
    emrl_product *qkv = &layer->qkv;
    if (node == NULL || node->inputs < 4 || emrl_attribute_whole(node, "unidirectional", 0) != 0)
        return false;
    memset(qkv, 0, sizeof *qkv);
    for (int part = 0; part < 3; part++) {
        int codes, peak;
        if (!match_integer(m, node->input[part], qkv, part, &codes, &peak))
            return false;
        if (part > 0 && (codes != first_codes || peak != first_peak))
            return false;
        first_codes = codes;
        first_peak = peak;
    }
    int64_t heads = emrl_attribute_whole(node, "num_heads", 0);
    if (qkv->out != width || qkv->in != width || heads < 1 || heads > width || width % heads != 0)
        return false;
    if (node->input[3] >= 0) {
        bias = emrl_floats(m, node->input[3], 3 * (int64_t)width);
        if (bias == NULL || qkv->bias[0] != NULL || qkv->bias[1] != NULL || qkv->bias[2] != NULL)
            return false;
        onnx_tensor *parts = emrl_take(&m->model->arena, 3, sizeof *parts);
        if (parts == NULL)
            return false;
        for (int part = 0; part < 3; part++) {
            parts[part] = *bias;
            parts[part].elements = (size_t)width;
            parts[part].data = bias->data + 4 * (size_t)width * (size_t)part;
            qkv->bias[part] = &parts[part];
        }
    }
    for (int i = 5; i < node->inputs; i++) /* biases of scores, earlier keys */
        if (node->input[i] >= 0)
            return false;
    layer->heads = (int)heads;
    layer->scale = emrl_attribute_real(node, "scale", 0.0f);
    if (layer->scale == 0.0f)
        layer->scale = 1.0f / sqrtf((float)(width / heads));
    return match_lengths(m, emrl_input(node, 4)) &&
           match_coding(m, first_codes, first_peak, width, &qkv->coding, input);
}

/* norm(product + residual): the product may stand on either side. */
static bool match_sum(emrl_matcher *m, int value, emrl_norm *norm, emrl_product *product, int *input, int *residual)
{
    const onnx_tensor *bias;
    int left, right;
    if (!emrl_match_norm(m, value, norm, &left, &right, &bias) || right < 0)
        return false;
    for (int side = 0; side < 2; side++) {
        *residual = side == 0 ? right : left;
        if (emrl_match_product(m, side == 0 ? left : right, product, input) && add_bias(product, bias) &&
            product->out == m->model->width)
            return true;
    }
    return false;
}

bool emrl_match_layer(emrl_matcher *m, int value, emrl_layer *layer, int *input)
{
    const onnx_tensor *bias;
    int activated, before, middle, attention, residual, again;
    if (!match_sum(m, value, &layer->last, &layer->down, &activated, &middle) ||
        !match_activation(m, activated, layer, &before, &bias) ||
        !emrl_match_product(m, before, &layer->up, &again) || again != middle || !add_bias(&layer->up, bias) ||
        layer->up.out != layer->down.in || layer->up.in != m->model->width)
        return false;
    return match_sum(m, middle, &layer->middle, &layer->out, &attention, &residual) &&
           layer->out.in == m->model->width && match_attention(m, attention, layer, input) &&
           *input == residual;
}
