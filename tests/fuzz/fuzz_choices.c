/* Any bytes as what a run keeps of its products (the file `products`): an answer is one that there is, and what was
 * taken, written and read again, is the same. The parser is of kernels/cuda but needs no CUDA, so a build without that,
 * which leaves it out, has it from here. */
#include "kernels/cuda/gemm_choice.c"

#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char TITLE[] = "cuBLASLt 120800, NVIDIA H100";

/* By the first byte: any text; any text behind a title that fits; or lines of small numbers, which bytes by themselves
 * would hardly ever become. */
static char *text_of(const uint8_t *data, size_t size) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) abort();
    int kind = size ? data[0] % 4 : 0;
    if (kind) fprintf(f, "%s\n", TITLE);
    for (size_t i = 1; i < size; i++)
        if (kind < 3) fputc(data[i], f);
        else fprintf(f, "%d%c", data[i] % 64 ? (int8_t)data[i] % 10 : 70000 * data[i], i % (NUMBERS + 1) ? ' ' : '\n');
    if (fclose(f) != 0) abort();
    return text;
}

static char *taken_of(const char *text) {
    char *again = NULL;
    my.choices = 0;
    if (gemm_choices_read(text, TITLE) != OK || gemm_choices_write(&again, TITLE) != OK) abort();
    return again;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = text_of(data, size), *once = taken_of(text);
    for (int i = 0; i < my.choices; i++)
        if (my.choice[i].answer < 0 || my.choice[i].answer > CANDIDATES) abort();
    int n = my.choices;
    char *twice = taken_of(once);
    if (my.choices != n || strcmp(once, twice)) abort();
    free(text);
    free(once);
    free(twice);
    return 0;
}
