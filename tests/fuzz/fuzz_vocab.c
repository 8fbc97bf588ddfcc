/* Lines as captions, a size from the first byte: the vocabulary must open, and know every word when
 * no form was dropped. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/tokenizer.h"
#include "data/text/vocab.h"
#include "data/text/wordpiece.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Status known(void *ctx, const char *word, size_t n, int points) {
    const Tokenizer *wp = ctx;
    int32_t ids[WP_MAX_WORD + 2];
    int count;
    if (points == 0 || points > WP_MAX_WORD) return OK;
    if (tokenizer_encode(wp, word, n, WP_MAX_WORD + 2, ids, &count, NULL) != OK) return OK;
    for (int i = 0; i < count; i++)
        if (ids[i] == tokenizer_ids(wp)->unk) abort();
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    VocabTrainer *t = NULL;
    Tokenizer *wp = NULL;
    VocabReport r;
    char *text = NULL;
    size_t n = 0;
    if (size < 2 || size > 4096 || vocab_new(&t) != OK) return 0;
    for (size_t i = 1; i < size;) {
        const uint8_t *end = memchr(data + i, '\n', size - i);
        size_t stop = end ? (size_t)(end - data) : size;
        if (vocab_add(t, (const char *)data + i, stop - i) != OK) abort();
        i = stop + 1;
    }
    if (vocab_train(t, VOCAB_MIN + 4 * data[0], 1 + data[0] % 3, &text, &n, &r) == OK) {
        if (tokenizer_open_lines(&wp, text, n, "made") != OK || tokenizer_size(wp) != r.pieces + 1) abort();
        if (!r.dropped) wp_words((const char *)data + 1, size - 1, known, wp);
    }
    tokenizer_close(wp);
    free(text);
    vocab_free(t);
    return 0;
}
