/* Runs a bundle without Python, for processors that are emulated.
 *
 *     run KERNEL GRAPH NAME=FILE... < IDS      a line of ids for each text; codes and full vectors, hexadecimal
 *     run KERNEL GRAPH NAME=FILE... RUNS < IDS  nothing; asks for a reading around each run, as bench/arm does
 */
#include "../src/emrl.h"
#include "common.h"

#include <sched.h>

#define MARK 0x5EED /* as in tests/arm/insn_count.c; no policy has this number */
#define MOST_IDS 100000
#define MOST_TEXTS 1000
#define MOST_FILES 4

static int32_t ids[MOST_IDS];
static int64_t starts[MOST_TEXTS + 1];

static size_t read_texts(void)
{
    static char line[1 << 20];
    size_t texts = 0, count = 0;
    while (texts < MOST_TEXTS && fgets(line, sizeof line, stdin) != NULL) {
        char *at = line, *end;
        for (long id = strtol(at, &end, 10); end != at && count < MOST_IDS; id = strtol(at, &end, 10)) {
            ids[count++] = (int32_t)id;
            at = end;
        }
        starts[++texts] = (int64_t)count;
    }
    return texts;
}

static void print_bytes(const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        printf("%02x", ((const uint8_t *)data)[i]);
    putchar('\n');
}

static void need(int code, const char *error)
{
    if (code == EMRL_OK)
        return;
    fprintf(stderr, "%d: %s\n", code, error);
    exit(1);
}

int main(int count, char **arguments)
{
    emrl_file files[MOST_FILES];
    size_t file_count = 0, size, texts;
    int runs = 0;
    char error[200] = "usage: run KERNEL GRAPH NAME=FILE... [RUNS]";
    need(count < 4 || count > 3 + MOST_FILES, error);
    for (int i = 3; i < count; i++) {
        char *path = strchr(arguments[i], '=');
        if (path == NULL) {
            runs = atoi(arguments[i]);
            continue;
        }
        *path++ = '\0';
        uint8_t *data = read_whole(path, &size);
        files[file_count++] = (emrl_file){arguments[i], data, size};
    }
    uint8_t *graph = read_whole(arguments[2], &size);
    emrl_model *model;
    need(emrl_open(graph, size, files, file_count, arguments[1], &model, error, sizeof error), error);
    emrl_shape shape = emrl_shape_of(model);
    texts = read_texts();
    int8_t *coarse = exactly(texts * (size_t)shape.coarse);
    float *full = exactly(texts * (size_t)shape.full * sizeof *full);
    for (int run = -2; run <= runs; run++) { /* the first allocates what the others use again */
        if (run >= 0 && runs > 0)
            sched_get_priority_max(MARK);
        if (run != 0 || runs == 0)
            need(emrl_encode(model, ids, starts, texts, coarse, full, error, sizeof error), error);
        if (runs == 0)
            break;
    }
    for (size_t i = 0; i < texts && runs == 0; i++) {
        print_bytes(coarse + i * (size_t)shape.coarse, (size_t)shape.coarse);
        print_bytes(full + i * (size_t)shape.full, (size_t)shape.full * sizeof *full);
    }
    if (runs > 0)
        sched_get_priority_max(MARK);
    emrl_close(model);
    return 0;
}
