/* normalize: what is done to a text before it is cut into words: the steps that tokenizer.json calls normalizer, in
 * the one order in which the files have them.
 *
 *     form         none, NFC, NFKC, or a character map (SentencePiece's nmt_nfkc, which lies in the file)
 *     strip_right  blanks at the end go
 *     collapse     a run of two or more U+0020 becomes one, or one U+2581
 *     mark_front   U+2581 in front of a text that is not empty
 *     mark_blanks  each U+0020 becomes U+2581
 *
 * The character map is a double array of bytes (Darts) with replacements behind it. As in the tokenizers library it is
 * looked up a grapheme cluster at a time: a cluster of fewer than six bytes whole, else its characters one by one; the
 * shortest key that begins there counts, and stands for all of it. Every index is checked: the array comes from a file.
 * Source: spec/stage2.md 8d. Called by tokenizer.c. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "data/text/grow.h"

#define MARK "\xE2\x96\x81"    /* U+2581, SentencePiece's blank */
enum { MARK_LEN = 3 };

typedef struct {
    uint32_t *unit;
    uint32_t units;
    char *text;                /* replacements, each ended by a NUL */
    uint32_t ntext;
    int32_t ascii[128];        /* where the replacement of a single ASCII character starts; -1: none */
} Charsmap;

typedef enum { FORM_NONE, FORM_NFC, FORM_NFKC, FORM_MAP } Form;

typedef struct {
    Form form;
    Charsmap map;
    bool strip_right, mark_front, mark_blanks;
    const char *collapse;      /* NULL: no; what a run of blanks becomes */
} Normalizer;

/* The map from its bytes: u32 size of the array, the array, the replacements. ERR_FORMAT. */
Status charsmap_open(Charsmap *m, const void *bytes, size_t n, const char *name);
void normalizer_close(Normalizer *z);
uint64_t normalizer_hash(const Normalizer *z, uint64_t h);

/* Starts as {0}; free both when done. */
typedef struct { TextBytes now, next; } NormalRoom;

/* *out is s itself when there is nothing to do, else it lies in the room, until the next call with it. */
Status normalize(const Normalizer *z, const char *s, size_t n, NormalRoom *r, const char **out, size_t *nout);
