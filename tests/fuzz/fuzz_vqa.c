/* Hostile answers: normalising them gives UTF-8, and an accuracy between 0 and 1. Input: answers, 0xFF between; the
 * first is ours. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eval/metrics/vqa.h"
#include "kernels/base/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1), *out = NULL;
    const char *part[16];
    size_t n = 1;
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    part[0] = text;
    for (size_t i = 0; i < size; i++)
        if (data[i] == 0xFF && n < 16) text[i] = 0, part[n++] = text + i + 1;
    if (vqa_normalise(&out, (const char *)data, size, VQA_ALL) == OK && !utf8_valid(out, strlen(out), NULL)) abort();
    free(out);
    for (VqaRule rule = VQA_RULE_VQA; n > 1 && rule <= VQA_RULE_DIRECT; rule++) {
        double a = 0;
        if (vqa_accuracy(&a, rule, part[0], part + 1, n - 1) == OK && !(a >= 0 && a <= 1)) abort();
    }
    free(text);
    return 0;
}
