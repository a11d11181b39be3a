/* Gives files to a fuzzer's function, for compilers without a fuzzer: replay FILE...
 * Each file is also tried cut short and with single bits changed. */
#include "common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *count, char ***arguments);

#define CHANGES 20

int main(int count, char **arguments)
{
    size_t runs = 0;
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&count, &arguments);
    for (int i = 1; i < count; i++) {
        size_t size;
        uint8_t *data = read_whole(arguments[i], &size);
        LLVMFuzzerTestOneInput(data, size);
        for (size_t change = 0; size > 0 && change < CHANGES; change++, runs += 2) {
            size_t at = (change * 2654435761u + size * 40503u) % size;
            uint8_t *cut = exactly(at), before = data[at];
            memcpy(cut, data, at);
            LLVMFuzzerTestOneInput(cut, at);
            free(cut);
            data[at] ^= (uint8_t)(1u << change % 8);
            LLVMFuzzerTestOneInput(data, size);
            data[at] = before;
        }
        free(data);
    }
    printf("%zu\n", runs);
    return 0;
}
