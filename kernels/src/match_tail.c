/* What turns a pooled vector into the full vector and the code: dense layers, norms, head, rounding. */
#include "model.h"

#include <math.h>
#include <string.h>

/* x / max(|x|, least) */
static bool match_unit(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    const onnx_node *ratio = emrl_made(m, value, "Div"), *most, *length;
    int64_t axis;
    step->kind = TAIL_UNIT;
    if (ratio == NULL || ratio->inputs != 2 || (most = emrl_made(m, ratio->input[1], "Max")) == NULL ||
        most->inputs != 2 || !emrl_real(m, most->input[1], &step->epsilon) || !(step->epsilon > 0) ||
        (length = emrl_made(m, most->input[0], "ReduceL2")) == NULL || length->input[0] != ratio->input[0] ||
        !emrl_whole(m, emrl_input(length, 1), &axis) || axis != -1)
        return false;
    *input = ratio->input[0];
    return true;
}

/* x - mean(x) */
static bool match_centre(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    const onnx_node *rest = emrl_made(m, value, "Sub"), *mean;
    int64_t axis;
    step->kind = TAIL_CENTRE;
    if (rest == NULL || rest->inputs != 2 || (mean = emrl_made(m, rest->input[1], "ReduceMean")) == NULL ||
        mean->input[0] != rest->input[0] || !emrl_whole(m, emrl_input(mean, 1), &axis) || axis != -1)
        return false;
    *input = rest->input[0];
    return true;
}

static bool match_norm(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    const onnx_node *node = emrl_made(m, value, "LayerNormalization");
    step->kind = TAIL_NORM;
    if (node == NULL || emrl_attribute_whole(node, "axis", -1) != -1 ||
        (step->first = emrl_constant(m, emrl_input(node, 1))) == NULL ||
        (step->second = emrl_constant(m, emrl_input(node, 2))) == NULL)
        return false;
    step->epsilon = emrl_attribute_real(node, "epsilon", 1e-5f);
    *input = node->input[0];
    return step->first->type == ONNX_FLOAT && step->second->type == ONNX_FLOAT && step->epsilon >= 0;
}

static bool match_matrix(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    const onnx_node *node = emrl_made(m, value, "MatMul");
    step->kind = TAIL_MATRIX;
    if (node == NULL || (step->first = emrl_constant(m, emrl_input(node, 1))) == NULL)
        return false;
    *input = node->input[0];
    return step->first->type == ONNX_FLOAT && step->first->rank == 2 && step->first->dims[0] > 0 &&
           step->first->dims[1] > 0 && step->first->dims[0] <= EMRL_MOST_WIDTH &&
           step->first->dims[1] <= EMRL_MOST_WIDTH;
}

static bool match_bias(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    const onnx_node *node = emrl_made(m, value, "Add");
    int constant;
    step->kind = TAIL_BIAS;
    return node != NULL && emrl_with_constant(m, node, input, &constant) &&
           (step->first = emrl_constant(m, constant)) != NULL && step->first->type == ONNX_FLOAT;
}

/* The first values: Slice(x, 0, dim, axis 1) */
static bool match_prefix(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    const onnx_node *node = emrl_made(m, value, "Slice");
    int64_t start, end, axis, by = 1;
    step->kind = TAIL_CUT;
    if (node == NULL || node->inputs < 4 || !emrl_whole(m, node->input[1], &start) || start != 0 ||
        !emrl_whole(m, node->input[2], &end) || end < 1 || end > EMRL_MOST_WIDTH ||
        !emrl_whole(m, node->input[3], &axis) || axis != 1 ||
        (node->inputs > 4 && (!emrl_whole(m, node->input[4], &by) || by != 1)))
        return false;
    step->out = (int)end;
    *input = node->input[0];
    return true;
}

static bool match_function(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    const onnx_node *node = emrl_made(m, value, "Tanh");
    step->kind = TAIL_TANH;
    if (node == NULL) {
        node = emrl_made(m, value, "Relu");
        step->kind = TAIL_RELU;
    }
    *input = node == NULL ? ONNX_NO_VALUE : emrl_input(node, 0);
    return node != NULL;
}

static bool match_step(const emrl_matcher *m, int value, emrl_step *step, int *input)
{
    return match_unit(m, value, step, input) || match_centre(m, value, step, input) ||
           match_norm(m, value, step, input) || match_matrix(m, value, step, input) ||
           match_bias(m, value, step, input) || match_prefix(m, value, step, input) ||
           match_function(m, value, step, input);
}

/* coarse = Cast(Clip(Round(x * scale), -127, 127), int8) */
static bool match_rounding(emrl_matcher *m, int *input)
{
    const onnx_node *node = emrl_made(m, m->graph->coarse, "Cast");
    float least, most;
    int constant;
    if (node == NULL || emrl_attribute_whole(node, "to", 0) != ONNX_INT8 ||
        (node = emrl_made(m, node->input[0], "Clip")) == NULL || node->inputs != 3 ||
        !emrl_real(m, node->input[1], &least) || !emrl_real(m, node->input[2], &most) || least != -127.0f ||
        most != 127.0f || (node = emrl_made(m, node->input[0], "Round")) == NULL ||
        (node = emrl_made(m, node->input[0], "Mul")) == NULL)
        return false;
    return emrl_with_constant(m, node, input, &constant) && emrl_real(m, constant, &m->model->code_scale);
}

bool emrl_match_tail(emrl_matcher *m, int *pooled)
{
    emrl_model *model = m->model;
    emrl_step found[EMRL_MOST_TAIL];
    int value, next = ONNX_NO_VALUE, steps = 0, full_at = -1;
    if (!match_rounding(m, &value))
        return false;
    for (;; steps++, value = next) {
        if (value == m->graph->full)
            full_at = steps;
        if (steps == EMRL_MOST_TAIL)
            return false;
        memset(&found[steps], 0, sizeof found[steps]);
        if (!match_step(m, value, &found[steps], &next))
            break;
    }
    for (int i = 0; i < steps; i++) /* they were found from the last */
        model->step[i] = found[steps - 1 - i];
    model->steps = steps;
    model->full_after = full_at < 0 ? -1 : steps - full_at;
    *pooled = value;
    return m->graph->full < 0 || full_at >= 0;
}
