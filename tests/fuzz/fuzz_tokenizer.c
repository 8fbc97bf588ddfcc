/* A hostile tokenizer.json, and a hostile text for it: refused in a sentence, or ids in range that decode to UTF-8.
 * Input: the JSON, 0xFF, the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/tokenizer.h"
#include "kernels/base/unicode.h"

static void encode(const Tokenizer *t, const char *text, size_t n) {
    TokenIds ids = {0};
    char *back = NULL;
    size_t len;
    if (tokenizer_pieces(t, text, n, &ids) == OK) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.v[i] < 0 || ids.v[i] >= tokenizer_size(t)) abort();
        if (tokenizer_decode(t, ids.v, ids.n, &back, &len) == OK && !utf8_valid(back, len, NULL)) abort();
    }
    free(back);
    free(ids.v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *cut = memchr(data, 0xFF, size);
    size_t n = cut ? (size_t)(cut - data) : size;
    Tokenizer *t = NULL;
    if (tokenizer_open_json(&t, (const char *)data, n, "fuzz") == OK) encode(t, (const char *)data + n, size - n);
    tokenizer_close(t);
    return 0;
}
