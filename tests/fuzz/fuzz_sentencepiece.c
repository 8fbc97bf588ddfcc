/* A hostile SentencePiece model: refused in a sentence, or a tokenizer that takes any text. Its character map is read
 * by the same file. Input: the model; its last 64 bytes are the text as well. */
#include <stdint.h>
#include <stdlib.h>

#include "data/text/tokenizer.h"
#include "kernels/base/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Tokenizer *t = NULL;
    TokenIds ids = {0};
    char *back = NULL;
    size_t len, n = size < 64 ? size : 64;
    if (tokenizer_open_spm(&t, data, size, "fuzz") == OK && tokenizer_pieces(t, (const char *)data + size - n, n, &ids) == OK)
        if (tokenizer_decode(t, ids.v, ids.n, &back, &len) == OK && !utf8_valid(back, len, NULL)) abort();
    free(back);
    free(ids.v);
    tokenizer_close(t);
    return 0;
}
