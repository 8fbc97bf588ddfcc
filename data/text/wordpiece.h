/* wordpiece: text to token ids, as the slow BertTokenizer of transformers 4.33.2 does it (uncased), for any
 * vocab.txt. Called by the loader and importers (captions to the token cache), by commands that take text, and by the
 * vocabulary trainer (the splitting into words).
 *
 * The idea: almost all text is ASCII, so one pass over bytes with a table of classes cuts and lowers words; a
 * text with any other byte takes the long way through code points (lower, clean, decompose, drop marks). A word is
 * then cut greedily, longest piece first, so a word in the vocabulary costs one probe.
 *
 * A Wordpiece is read-only after wp_open: any number of threads may encode with it.
 *
 * Does not apply a caption processor (data/text/caption.h), pad, or build masks. Invalid UTF-8 in text becomes U+FFFD,
 * which the cleaning drops. Source of the rules: spec model.md section 9;
 * Unicode tables are those of the utf8proc found. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/text/grow.h"
#include "data/text/pieces.h"
#include "kernels/base/err.h"
#include "kernels/base/unicode.h"

enum {
    WP_MAX_WORD = 100,         /* code points; a longer word is one [UNK] */
    WP_MAX_PIECE = 1024,       /* bytes of a line of vocab.txt */
};

typedef enum { WP_PAD, WP_UNK, WP_CLS, WP_SEP, WP_MASK, WP_DEC, WP_SPECIALS } WpSpecial;

typedef struct {
    Pieces pieces;             /* as in the file: "##ing" */
    int32_t special[WP_SPECIALS];          /* [MASK]: -1 when the file has none */
    uint64_t hash;             /* names the vocabulary: equal hash, equal ids of equal text */
    int32_t size;              /* lines added so far; pieces.size in the end */
} Wordpiece;

/* Reads vocab.txt: one piece a line, the id is the line number from 0. ERR_FORMAT names file and line of what is wrong:
 * empty, too long, repeated or not UTF-8 lines, or [PAD] [UNK] [CLS] [SEP] missing. [MASK] may be missing. [DEC] gets
 * the id after the last line unless the file has it. wp_open_lines does the same from text[0..n). After a failure
 * wp can only be closed. */
Status wp_open(Wordpiece *wp, const char *path);
Status wp_open_lines(Wordpiece *wp, const char *text, size_t n, const char *name);
void wp_close(Wordpiece *wp);

/* Appends the pieces of a text. The words [UNK] [SEP] [PAD] [CLS] [MASK] [DEC] in it, in this case, become the special
 * ids. Fails only for want of memory. */
Status wp_pieces(const Wordpiece *wp, const char *text, size_t n, TokenIds *out);

/* Appends the text of pieces: joined, special tokens and ids out of range left out. */
Status wp_join(const Wordpiece *wp, const int32_t *ids, size_t n, TextBytes *out);

/* The splitting before the pieces: fn gets each word (UTF-8, lowered, without marks; not ended by NUL) and its length
 * in code points; a word of more than WP_MAX_WORD comes cut, with WP_MAX_WORD + 1 points, a special token typed in
 * the text with none. Stops at the first status other than OK. */
typedef Status WpWordFn(void *ctx, const char *word, size_t n, int points);
Status wp_words(const char *text, size_t n, WpWordFn *fn, void *ctx);
bool wp_stands_alone(uint32_t c);     /* is always a word of one character: punctuation, ideographs */
