/* fuzz_config: any bytes as a configuration. What is taken must print as a text that is taken and prints the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "configs/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Options *a, *b;
    char *one = NULL, *two = NULL;
    if (options_parse_text(&a, "pretrain", (const char *)data, size, "fuzz")) return 0;
    if (options_text(a, &one) || options_parse_text(&b, "pretrain", one, strlen(one), "printed")) abort();
    if (options_text(b, &two) || strcmp(one, two)) abort();
    free(one);
    free(two);
    options_free(a);
    options_free(b);
    return 0;
}
