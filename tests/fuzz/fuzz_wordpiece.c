/* The bytes up to the first 0xFF continue a vocabulary of specials and letters, the rest is text: no id out of range,
 * the count of a limited encoding follows from the unlimited one, processors and decoding take whatever comes. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/caption.h"
#include "data/text/tokenizer.h"
#include "kernels/base/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM = 4096 };

static void encode(const Tokenizer *wp, const char *text, size_t n) {
    static int32_t ids[ROOM], few[8];
    int count = 0, few_count = 0;
    int64_t full = 0;
    char *back = NULL;
    size_t nback = 0;
    if (tokenizer_encode(wp, text, n, ROOM, ids, &count, &full) != OK) return;
    if (count != (full < ROOM ? full : ROOM) || ids[0] != tokenizer_ids(wp)->begin[0] || ids[count - 1] != tokenizer_ids(wp)->end[0]) abort();
    for (int i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= tokenizer_size(wp)) abort();
    if (tokenizer_encode(wp, text, n, 8, few, &few_count, NULL) != OK) return;
    if (few_count != (full < 8 ? full : 8) || memcmp(few, ids, (size_t)(few_count - 1) * sizeof *ids)) abort();
    if (tokenizer_decode(wp, ids, (size_t)count, &back, &nback) == OK && !utf8_valid(back, nback, NULL)) abort();
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *cut = memchr(data, 0xFF, size);
    size_t n = cut ? (size_t)(cut - data) : 0, len = 0;
    const char start[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##a\n", *text = (const char *)data + (cut ? n + 1 : 0);
    size_t rest = size - (cut ? n + 1 : 0);
    char *vocab = malloc(sizeof start + n), *out = NULL;
    Tokenizer *wp = NULL;
    if (!vocab) return 0;
    memcpy(vocab, start, sizeof start - 1);
    memcpy(vocab + sizeof start - 1, data, n);
    if (tokenizer_open_lines(&wp, vocab, sizeof start - 1 + n, "fuzz") == OK) encode(wp, text, rest);
    if (caption_blip(&out, &len, text, rest, "a photo of ", CAPTION_MAX_WORDS) == OK) {
        if (!utf8_valid(out, len, NULL)) abort();
        if (wp) encode(wp, out, len);
    }
    free(out);
    if (caption_question(&out, &len, text, rest, 3) == OK && !utf8_valid(out, len, NULL)) abort();
    free(out);
    tokenizer_close(wp);
    free(vocab);
    return 0;
}
