/* A graph file as a list of nodes: a reader of ONNX's protobuf that knows what bundles have. */
#ifndef EMRL_ONNX_H
#define EMRL_ONNX_H

#include "arena.h"
#include "emrl.h"

#include <stdbool.h>

/* TensorProto.DataType */
enum { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT8 = 3, ONNX_INT32 = 6, ONNX_INT64 = 7, ONNX_FLOAT16 = 10 };

#define ONNX_MOST_RANK 4
#define ONNX_NO_VALUE (-1)

/* Bytes that lie in the graph file. */
typedef struct {
    const uint8_t *at;
    size_t size;
} onnx_text;

/* A weight. `data` are its little-endian values, of any alignment, `bytes` of them. */
typedef struct {
    int type;
    int rank;
    int64_t dims[ONNX_MOST_RANK];
    const uint8_t *data;
    size_t bytes;
    size_t elements;
} onnx_tensor;

typedef struct {
    onnx_text name;
    int64_t whole;
    float real;
} onnx_attribute;

typedef struct {
    onnx_text op;
    int inputs, outputs, attributes;
    int *input;  /* numbers of values; ONNX_NO_VALUE where an input is left out */
    int *output;
    onnx_attribute *attribute;
} onnx_node;

/* A value by its number: made by a node, or a weight, or an input of the graph. */
typedef struct {
    onnx_text name;
    const onnx_node *maker;
    const onnx_tensor *weight;
} onnx_value;

typedef struct {
    onnx_node *node;
    int nodes;
    onnx_value *value;
    int values;
    int ids, mask;    /* the inputs input_ids and attention_mask */
    int coarse, full; /* the outputs; full may be ONNX_NO_VALUE */
} onnx_graph;

/* Read a graph. What is not known is EMRL_FOREIGN. The graph lies in the arena, and its weights point
 * into `data` and `files`. */
int onnx_read(const uint8_t *data, size_t size, const emrl_file *files, size_t file_count, emrl_arena *arena,
              onnx_graph *graph, emrl_error *error);

bool onnx_is(onnx_text text, const char *word);

#endif
