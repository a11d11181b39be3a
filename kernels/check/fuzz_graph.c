/* For a fuzzer: a graph from a stranger is opened beside sound weights, and run where it opens.
 * EMRL_FUZZ_WEIGHTS names the weights; behind them there are zeros, so that other graphs open too. */
#include "../src/emrl.h"
#include "common.h"

#define ROOM 50000

static uint8_t *weights;
static size_t weights_size;

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    const char *path = getenv("EMRL_FUZZ_WEIGHTS");
    size_t size = 0;
    uint8_t *sound = path == NULL ? NULL : read_whole(path, &size);
    (void)count;
    (void)arguments;
    weights_size = size > ROOM ? size : ROOM;
    weights = calloc(1, weights_size);
    if (weights != NULL && sound != NULL)
        memcpy(weights, sound, size);
    free(sound);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    emrl_file files[] = {{"model.onnx.data", weights, weights_size}, {"head.npy", weights, weights_size / 2}};
    emrl_model *model;
    char error[200];
    if (emrl_open(data, size, files, 2, "", &model, error, sizeof error) != EMRL_OK)
        return strlen(error) == 0; /* a refusal says why */
    emrl_shape shape = emrl_shape_of(model);
    int32_t ids[] = {0, shape.vocabulary - 1, 3, shape.vocabulary / 2, 5, 0x7FFFFFFF};
    int64_t starts[] = {0, 0, 1, 4, 4, 5, 6};
    int8_t *coarse = exactly(6 * (size_t)shape.coarse);
    float *full = exactly(6 * (size_t)shape.full * sizeof *full);
    /* The last text's id is beyond every table. */
    for (size_t texts = 6; texts >= 5; texts--) {
        int code = emrl_encode(model, ids, starts, texts, coarse, shape.full > 0 ? full : NULL, error, sizeof error);
        if (texts == 6 && code != EMRL_REFUSED)
            abort();
    }
    free(coarse);
    free(full);
    emrl_close(model);
    return 0;
}
