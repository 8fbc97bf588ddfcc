/* The caption tokenizer: any bytes give tokens without empty ones. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eval/metrics/ptb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static Ptb *ptb;   /* kept: its states grow from input to input, as in a run */
    const char *out;
    size_t n;
    if (!ptb && ptb_new(&ptb)) abort();
    if (size > PTB_MAX_BYTES) return 0;
    if (ptb_raw(ptb, (const char *)data, size, &out, &n) || strlen(out) != n || strstr(out, "  ")) abort();
    if (ptb_tokenize(ptb, (const char *)data, size, &out, &n) || strlen(out) != n) abort();
    return 0;
}
