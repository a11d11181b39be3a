#include "onnx.h"

#include <stdlib.h>
#include <string.h>

/* Fields: onnx/onnx.proto; encoding: protobuf.dev/programming-guides/encoding. Lengths are compared with what is left. */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

/* More than any bundle has: transformers of 48 layers have about 3,000 nodes. */
#define MOST_NODES 20000
#define MOST_NAMES 100000
#define MOST_ITEMS 64 /* inputs, outputs or attributes of a node */
#define MOST_ELEMENTS ((size_t)1 << 32)

typedef struct {
    uint32_t number;
    int wire;
    uint64_t whole;
    onnx_text part;
} field;

typedef struct {
    const emrl_file *files;
    size_t file_count;
    emrl_arena *arena;
    onnx_graph *graph;
    emrl_error *error;
    int *buckets; /* of names: numbers of values, -1 where empty */
    size_t bucket_mask;
    int most_values;
} reader;

static int damaged(reader *r, const char *what)
{
    return emrl_fail(r->error, EMRL_FOREIGN, "model.onnx is damaged or unknown: %s", what);
}

static int no_memory(reader *r)
{
    return emrl_fail(r->error, EMRL_MEMORY, "not enough memory to read the graph");
}

static bool read_varint(onnx_text *span, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (span->size == 0)
            return false;
        uint8_t byte = *span->at++;
        span->size--;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* The next field of a message: 1, or 0 at its end, or -1 where it is damaged. */
static int next_field(onnx_text *span, field *found)
{
    uint64_t key, size;
    if (span->size == 0)
        return 0;
    if (!read_varint(span, &key) || key >> 3 == 0 || key >> 32 != 0)
        return -1;
    found->number = (uint32_t)(key >> 3);
    found->wire = (int)(key & 7);
    found->whole = 0;
    switch (found->wire) {
    case VARINT:
        return read_varint(span, &found->whole) ? 1 : -1;
    case FIXED64:
        size = 8;
        break;
    case FIXED32:
        size = 4;
        break;
    case BYTES:
        if (!read_varint(span, &size))
            return -1;
        break;
    default:
        return -1;
    }
    if (size > span->size)
        return -1;
    found->part.at = span->at;
    found->part.size = (size_t)size;
    span->at += size;
    span->size -= (size_t)size;
    return 1;
}

/* How many fields of a number a message has; -1 where it is damaged. */
static int count_fields(onnx_text span, uint32_t number, int most)
{
    field found;
    int count = 0, more;
    while ((more = next_field(&span, &found)) == 1)
        if (found.number == number && (found.wire != BYTES || ++count > most))
            return -1;
    return more == 0 ? count : -1;
}

bool onnx_is(onnx_text text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.at, word, text.size) == 0;
}

/* --- names --- */

static uint64_t hash_of(onnx_text name)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < name.size; i++)
        hash = (hash ^ name.at[i]) * 1099511628211u;
    return hash;
}

/* The number of a value, which is new where the name is; -1 where there are too many. */
static int value_of(reader *r, onnx_text name)
{
    onnx_graph *graph = r->graph;
    size_t bucket = (size_t)hash_of(name) & r->bucket_mask;
    for (; r->buckets[bucket] >= 0; bucket = (bucket + 1) & r->bucket_mask) {
        onnx_text known = graph->value[r->buckets[bucket]].name;
        if (known.size == name.size && (name.size == 0 || memcmp(known.at, name.at, name.size) == 0))
            return r->buckets[bucket];
    }
    if (graph->values == r->most_values)
        return -1;
    graph->value[graph->values].name = name;
    r->buckets[bucket] = graph->values;
    return graph->values++;
}

static bool make_names(reader *r, int most)
{
    size_t buckets = 16;
    while (buckets < 2 * (size_t)most)
        buckets *= 2;
    r->most_values = most;
    r->bucket_mask = buckets - 1;
    r->buckets = emrl_take(r->arena, buckets, sizeof *r->buckets);
    r->graph->value = emrl_take(r->arena, (size_t)most, sizeof *r->graph->value);
    if (r->buckets == NULL || r->graph->value == NULL)
        return false;
    for (size_t i = 0; i < buckets; i++)
        r->buckets[i] = -1;
    return true;
}

/* --- weights --- */

static size_t element_bytes(int type)
{
    switch (type) {
    case ONNX_UINT8:
    case ONNX_INT8:
        return 1;
    case ONNX_FLOAT16:
        return 2;
    case ONNX_FLOAT:
    case ONNX_INT32:
        return 4;
    case ONNX_INT64:
        return 8;
    default:
        return 0;
    }
}

static bool read_decimal(onnx_text text, uint64_t *value)
{
    *value = 0;
    if (text.size == 0 || text.size > 18)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        *value = *value * 10 + (uint64_t)(text.at[i] - '0');
    }
    return true;
}

typedef struct {
    onnx_text location, offset, length;
} location;

static bool read_place(onnx_text entry, location *found)
{
    onnx_text key = {NULL, 0}, value = {NULL, 0};
    field part;
    int more;
    while ((more = next_field(&entry, &part)) == 1) {
        if (part.wire != BYTES)
            return false;
        if (part.number == 1)
            key = part.part;
        else if (part.number == 2)
            value = part.part;
    }
    if (onnx_is(key, "location"))
        found->location = value;
    else if (onnx_is(key, "offset"))
        found->offset = value;
    else if (onnx_is(key, "length"))
        found->length = value;
    else
        return false;
    return more == 0;
}

/* Point a weight at its bytes in one of the files. */
static int find_outside(reader *r, const location *where, onnx_tensor *tensor)
{
    uint64_t offset = 0, length;
    if ((where->offset.size != 0 && !read_decimal(where->offset, &offset)) ||
        !read_decimal(where->length, &length))
        return damaged(r, "the place of a weight");
    for (size_t i = 0; i < r->file_count; i++) {
        const emrl_file *file = &r->files[i];
        if (!onnx_is(where->location, file->name))
            continue;
        if (length > file->size || offset > file->size - length)
            return damaged(r, "a weight that is not inside its file");
        tensor->data = file->data + offset;
        tensor->bytes = (size_t)length;
        return EMRL_OK;
    }
    return damaged(r, "a weight in another file");
}

static bool read_dims(onnx_text packed, onnx_tensor *tensor)
{
    while (packed.size != 0) {
        uint64_t dim;
        if (tensor->rank == ONNX_MOST_RANK || !read_varint(&packed, &dim) || dim > MOST_ELEMENTS)
            return false;
        tensor->dims[tensor->rank++] = (int64_t)dim;
    }
    return true;
}

static bool measure(onnx_tensor *tensor)
{
    size_t elements = 1, bytes = element_bytes(tensor->type);
    for (int i = 0; i < tensor->rank; i++) {
        size_t dim = (size_t)tensor->dims[i];
        if (dim != 0 && elements > MOST_ELEMENTS / dim)
            return false;
        elements *= dim;
    }
    tensor->elements = elements;
    return bytes == 0 || tensor->data == NULL || tensor->bytes == elements * bytes;
}

/* A weight with values of another kind than raw bytes keeps no data, and fits no pattern. */
static int read_tensor(reader *r, onnx_text span, onnx_tensor *tensor, int *value)
{
    onnx_text name = {NULL, 0};
    location where = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    bool outside = false;
    field part;
    int more, code;
    while ((more = next_field(&span, &part)) == 1) {
        bool sound = true;
        if (part.number == 1 && part.wire == VARINT) {
            uint8_t one[10];
            size_t used = 0;
            for (uint64_t rest = part.whole; used == 0 || rest != 0; rest >>= 7)
                one[used++] = (uint8_t)((rest & 0x7F) | (rest >> 7 != 0 ? 0x80 : 0));
            sound = read_dims((onnx_text){one, used}, tensor);
        } else if (part.number == 1) {
            sound = part.wire == BYTES && read_dims(part.part, tensor);
        } else if (part.number == 2) {
            tensor->type = part.wire == VARINT && part.whole < 64 ? (int)part.whole : 0;
        } else if (part.number == 8) {
            sound = part.wire == BYTES;
            name = part.part;
        } else if (part.number == 9 && part.wire == BYTES) {
            tensor->data = part.part.at;
            tensor->bytes = part.part.size;
        } else if (part.number == 13) {
            sound = part.wire == BYTES && read_place(part.part, &where);
        } else if (part.number == 14) {
            outside = part.whole == 1;
        }
        if (!sound)
            return damaged(r, "a weight");
    }
    if (more != 0)
        return damaged(r, "a weight is cut short");
    if (outside && (code = find_outside(r, &where, tensor)) != EMRL_OK)
        return code;
    if (!measure(tensor))
        return damaged(r, "a weight has another size than its shape");
    *value = value_of(r, name);
    return *value < 0 ? damaged(r, "too many names") : EMRL_OK;
}

/* --- nodes --- */

static bool read_attribute(onnx_text span, onnx_attribute *attribute)
{
    field part;
    int more;
    while ((more = next_field(&span, &part)) == 1) {
        if (part.number == 1 && part.wire == BYTES)
            attribute->name = part.part;
        else if (part.number == 2 && part.wire == FIXED32)
            memcpy(&attribute->real, part.part.at, 4);
        else if (part.number == 3 && part.wire == VARINT)
            attribute->whole = (int64_t)part.whole;
    }
    return more == 0;
}

static int read_node(reader *r, onnx_text span, onnx_node *node)
{
    int inputs = count_fields(span, 1, MOST_ITEMS), outputs = count_fields(span, 2, MOST_ITEMS);
    int attributes = count_fields(span, 5, MOST_ITEMS), more;
    if (inputs < 0 || outputs < 0 || attributes < 0)
        return damaged(r, "a node");
    node->input = emrl_take(r->arena, (size_t)inputs, sizeof *node->input);
    node->output = emrl_take(r->arena, (size_t)outputs, sizeof *node->output);
    node->attribute = emrl_take(r->arena, (size_t)attributes, sizeof *node->attribute);
    if (node->input == NULL || node->output == NULL || node->attribute == NULL)
        return no_memory(r);
    field part;
    while ((more = next_field(&span, &part)) == 1) {
        if (part.number == 4 && part.wire == BYTES)
            node->op = part.part;
        if (part.number == 5 && !read_attribute(part.part, &node->attribute[node->attributes++]))
            return damaged(r, "an attribute");
        if (part.number != 1 && part.number != 2)
            continue;
        int value = part.part.size == 0 ? ONNX_NO_VALUE : value_of(r, part.part);
        if (value < 0 && part.part.size != 0)
            return damaged(r, "too many names");
        if (part.number == 1) {
            node->input[node->inputs++] = value;
            continue;
        }
        node->output[node->outputs++] = value;
        if (value >= 0 && r->graph->value[value].maker != NULL)
            return damaged(r, "two nodes make one value");
        if (value >= 0)
            r->graph->value[value].maker = node;
    }
    return more == 0 ? EMRL_OK : damaged(r, "a node is cut short");
}

/* The value that an input or output of the graph names. */
static int read_named(reader *r, onnx_text span, int *value)
{
    field part;
    int more;
    *value = ONNX_NO_VALUE;
    while ((more = next_field(&span, &part)) == 1)
        if (part.number == 1 && part.wire == BYTES)
            *value = value_of(r, part.part);
    return more == 0 && *value >= 0 ? EMRL_OK : damaged(r, "an input or output");
}

static int read_edges(reader *r, const field *part)
{
    int value, code = read_named(r, part->part, &value);
    if (code != EMRL_OK)
        return code;
    onnx_text name = r->graph->value[value].name;
    int *place = part->number == 11 ? (onnx_is(name, "input_ids")        ? &r->graph->ids
                                       : onnx_is(name, "attention_mask") ? &r->graph->mask
                                                                         : NULL)
                                    : (onnx_is(name, "coarse") ? &r->graph->coarse
                                       : onnx_is(name, "full") ? &r->graph->full
                                                               : NULL);
    if (place == NULL)
        return damaged(r, "an input or output that no bundle has");
    *place = value;
    return EMRL_OK;
}

static int read_graph(reader *r, onnx_text span)
{
    onnx_graph *graph = r->graph;
    int nodes = count_fields(span, 1, MOST_NODES), weights = count_fields(span, 5, MOST_NODES);
    if (nodes < 0 || weights < 0)
        return damaged(r, "the graph");
    graph->node = emrl_take(r->arena, (size_t)nodes, sizeof *graph->node);
    onnx_tensor *tensors = emrl_take(r->arena, (size_t)weights, sizeof *tensors);
    size_t names = span.size / 3 + 16; /* a name takes three bytes at least */
    if (names > MOST_NAMES)
        names = MOST_NAMES;
    if (graph->node == NULL || tensors == NULL || !make_names(r, (int)names))
        return no_memory(r);
    field part;
    int more = 0, code = EMRL_OK, value = 0;
    while (code == EMRL_OK && (more = next_field(&span, &part)) == 1) {
        if (part.number == 1) {
            code = read_node(r, part.part, &graph->node[graph->nodes++]);
        } else if (part.number == 5) {
            code = read_tensor(r, part.part, tensors, &value);
            if (code == EMRL_OK && graph->value[value].weight != NULL)
                code = damaged(r, "two weights of one name");
            if (code == EMRL_OK)
                graph->value[value].weight = tensors++;
        } else if (part.number == 11 || part.number == 12) {
            code = part.wire == BYTES ? read_edges(r, &part) : damaged(r, "the graph");
        } else if (part.number == 15) {
            code = damaged(r, "a sparse weight");
        }
    }
    return code != EMRL_OK ? code : more == 0 ? EMRL_OK : damaged(r, "the graph is cut short");
}

int onnx_read(const uint8_t *data, size_t size, const emrl_file *files, size_t file_count, emrl_arena *arena,
              onnx_graph *graph, emrl_error *error)
{
    reader r = {files, file_count, arena, graph, error, NULL, 0, 0};
    onnx_text span = {data, size}, body = {NULL, 0};
    field part;
    int more;
    memset(graph, 0, sizeof *graph);
    graph->ids = graph->mask = graph->coarse = graph->full = ONNX_NO_VALUE;
    while ((more = next_field(&span, &part)) == 1) {
        if (part.number == 7 && (part.wire != BYTES || body.at != NULL))
            return damaged(&r, "it has no single graph");
        if (part.number == 7)
            body = part.part;
        if (part.number == 20 || part.number == 25)
            return damaged(&r, "training or functions");
    }
    if (more != 0 || body.at == NULL)
        return damaged(&r, "it has no graph");
    int code = read_graph(&r, body);
    if (code != EMRL_OK)
        return code;
    if (graph->ids < 0 || graph->mask < 0 || graph->coarse < 0)
        return damaged(&r, "inputs or outputs are missing");
    /* A name stands for one thing: what a node makes is neither a weight nor an input. */
    for (int i = 0; i < graph->values; i++) {
        const onnx_value *value = &graph->value[i];
        bool given = value->weight != NULL || i == graph->ids || i == graph->mask;
        if (given && value->maker != NULL)
            return damaged(&r, "a node makes what is given");
    }
    return EMRL_OK;
}
