/* What a bundle's graph does, in a form that can be run. Rows of floats are padded with zeros to a whole
 * number of vectors of EMRL_LANES, and so are the weights that belong to them. */
#ifndef EMRL_MODEL_H
#define EMRL_MODEL_H

#include "kernels.h"
#include "onnx.h"

#include <stdatomic.h>

#define EMRL_MOST_LAYERS 128
#define EMRL_MOST_TAIL 32
#define EMRL_MOST_POOLS 6
#define EMRL_MOST_WIDTH 16384
#define EMRL_MOST_TOKENS 1000000
#define EMRL_SPARE 8

/* A table of rows: floats, or int8 with a float16 scale for each row. */
typedef struct {
    const onnx_tensor *rows;
    const onnx_tensor *scales; /* NULL for floats */
    int64_t count;
    int width;
} emrl_table;

typedef enum { EMRL_COUNTED, EMRL_BEHIND_PADDING } emrl_positions;

typedef struct {
    emrl_table words;
    emrl_table places; /* count is 0 where there is none */
    emrl_positions positions;
    int64_t padding;   /* the id that does not count, for EMRL_BEHIND_PADDING */
    float *constant;   /* float[padded width] that is added to each row, or NULL */
    int width;
} emrl_embedding;

/* rows -> codes -> integer product -> rows */
typedef struct {
    emrl_coding coding;
    int in, out;
    int parts; /* weights side by side: 3 for queries, keys and values */
    const onnx_tensor *weight[3];
    const onnx_tensor *scale[3];
    const onnx_tensor *bias[3]; /* each may be NULL */
    float step;                 /* of the codes; times the row's peak where that is not fixed */
    emrl_packed packed;
} emrl_product;

typedef struct {
    float *gain, *bias;
    float epsilon;
} emrl_norm;

typedef struct {
    emrl_product qkv, out, up, down;
    emrl_norm middle, last;
    int heads;
    float scale; /* of scores */
} emrl_layer;

typedef enum {
    EMRL_MEAN,
    EMRL_MEAN_SQRT,
    EMRL_FIRST,
    EMRL_LAST,
    EMRL_WEIGHTED,
    EMRL_LARGEST
} emrl_pool;

typedef enum { TAIL_UNIT, TAIL_CENTRE, TAIL_NORM, TAIL_MATRIX, TAIL_BIAS, TAIL_TANH, TAIL_RELU, TAIL_CUT } emrl_step_kind;

typedef struct {
    emrl_step_kind kind;
    int in, out;
    float epsilon;
    const onnx_tensor *first, *second; /* as the graph has them */
    float *matrix, *bias;              /* matrix: float[in, padded out] */
} emrl_step;

typedef struct emrl_work emrl_work;

struct emrl_model {
    emrl_arena arena;
    const emrl_kernels *kernels;
    emrl_shape shape;
    emrl_embedding embedding;
    emrl_norm first;
    /* From the embedding's width to the layers', as ELECTRA has it; NULL where both are equal. */
    const onnx_tensor *projection;
    float *projector, *projector_bias; /* float[embedding.width, padded width] */
    int layers, width, inner;
    emrl_layer *layer;
    int pools;
    emrl_pool pool[EMRL_MOST_POOLS];
    int steps, full_after; /* `full` is what there is after so many steps; -1 where there is none */
    emrl_step step[EMRL_MOST_TAIL];
    float code_scale;
    _Atomic(emrl_work *) spare[EMRL_SPARE];
};

/* Match a graph: fills in all but packed weights and the copies of floats. */
int emrl_match(const onnx_graph *graph, emrl_model *model, emrl_error *error);
/* Its parts; `value` is what the part makes. */
typedef struct {
    const onnx_graph *graph;
    emrl_model *model;
    const char *lost; /* what could not be matched */
} emrl_matcher;
bool emrl_match_layer(emrl_matcher *m, int value, emrl_layer *layer, int *input);
bool emrl_match_product(emrl_matcher *m, int value, emrl_product *product, int *input);
bool emrl_match_norm(emrl_matcher *m, int value, emrl_norm *norm, int *left, int *right, const onnx_tensor **bias);
bool emrl_match_embedding(emrl_matcher *m, int value);
bool emrl_match_pools(emrl_matcher *m, int value, int *hidden);
bool emrl_match_tail(emrl_matcher *m, int *pooled);
float *emrl_copy_floats(emrl_matcher *m, const onnx_tensor *weight, int width);

/* Helpers of matching: what a value is. */
const onnx_node *emrl_made(const emrl_matcher *m, int value, const char *op);
int emrl_input(const onnx_node *node, int index);
const onnx_tensor *emrl_constant(const emrl_matcher *m, int value);
const onnx_tensor *emrl_floats(const emrl_matcher *m, int value, int64_t elements);
bool emrl_real(const emrl_matcher *m, int value, float *real);
bool emrl_whole(const emrl_matcher *m, int value, int64_t *whole);
bool emrl_with_constant(const emrl_matcher *m, const onnx_node *node, int *value, int *constant);
float emrl_attribute_real(const onnx_node *node, const char *name, float otherwise);
int64_t emrl_attribute_whole(const onnx_node *node, const char *name, int64_t otherwise);

/* A text's rows to its vectors; `spare` are two vectors. */
void emrl_finish(const emrl_model *model, const float *rows, size_t stride, int tokens, float *const spare[2],
                 int8_t *coarse, float *full);

/* Memory of one run, kept for the next. */
emrl_work *emrl_work_take(emrl_model *model, size_t tokens, size_t longest);
void emrl_work_give(emrl_model *model, emrl_work *work);
void emrl_work_free(emrl_work *work);

#endif
