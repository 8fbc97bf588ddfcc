/* tokenizer: text to token ids and back, as the tokenizer of a model's folder does it.
 *
 * Four kinds: WordPiece (wordpiece.h; stage 1's text), byte-level BPE (GPT-2, OPT, SmolLM2, Llama-3, Qwen2),
 * SentencePiece's BPE with byte fallback (Llama-2, TinyLlama, Vicuna, Mistral), Unigram (T5, Flan-T5). All but the
 * first share one frame: added tokens are cut out of the raw text first (leftmost, longest), each being its id; each
 * stretch between them is normalised (normalize.h), cut into words (split.h; or at U+2581), and each word into pieces
 * (bpe.h, unigram.h). Source: spec/stage2.md 8; the `tokenizers` library computes the same ids.
 *
 * Files: tokenizer.json; vocab.json and merges.txt; spiece.model or tokenizer.model; vocab.txt; with
 * tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json beside them for the special
 * tokens. What a tokenizer.json asks for is done as it says or refused in one sentence; nothing is guessed. Of BERT's
 * the uncased rules are known, as the slow tokenizer has them (characters that Unicode has not assigned are dropped).
 *
 * Called by the loader and importers (captions to ids), and by everything that hands text to a model or takes it
 * from one. Read-only once open: any number of threads. Knows no chat templates (chat.h), does not pad or mask.
 * Invalid UTF-8 becomes U+FFFD. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/text/grow.h"

enum { TOKENIZER_AROUND = 4 };

typedef struct Tokenizer Tokenizer;

/* Ids with a meaning; -1 where the files name none. begin and end stand around every text. */
typedef struct {
    int32_t begin[TOKENIZER_AROUND], end[TOKENIZER_AROUND];
    int nbegin, nend;
    int32_t bos, eos, pad, unk;        /* WordPiece: [DEC], [SEP], [PAD], [UNK] */
} TokenizerIds;

/* `path`: a folder (the first of the forms above that is there), or one such file, whose folder is asked for the rest.
 * ERR_IO, or ERR_FORMAT with what is not known. */
Status tokenizer_open(Tokenizer **t, const char *path);
void tokenizer_close(Tokenizer *t);                        /* accepts NULL */

/* The same from memory, without any file beside it: a vocab.txt, a tokenizer.json, a SentencePiece model. */
Status tokenizer_open_lines(Tokenizer **t, const char *text, size_t n, const char *name);
Status tokenizer_open_json(Tokenizer **t, const char *text, size_t n, const char *name);
Status tokenizer_open_spm(Tokenizer **t, const void *bytes, size_t n, const char *name);

/* Appends the pieces of a text, without begin and end. */
Status tokenizer_pieces(const Tokenizer *t, const char *text, size_t n, TokenIds *out);

/* begin, pieces, end into ids[0..max_len); of more pieces than fit the first stay. *count ids are written; *full (may
 * be NULL) is the count without the limit. max_len has room for begin, end and a piece at least. */
Status tokenizer_encode(const Tokenizer *t, const char *text, size_t n, int max_len, int32_t *ids, int *count,
                        int64_t *full);

/* A new text (free it) of *len bytes (may be NULL) and a NUL behind: special tokens left out, ids that are nobody's (a
 * model's vocabulary may be padded) too. If the folder says so, or nothing, blanks before punctuation and clitics go,
 * as transformers' clean_up_tokenization does ("a dog ' s ball ." -> "a dog's ball."). */
Status tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, char **text, size_t *len);

const char *tokenizer_kind(const Tokenizer *t);            /* "WordPiece", "byte-level BPE", ... */
int32_t tokenizer_size(const Tokenizer *t);                /* the largest id and one */
const TokenizerIds *tokenizer_ids(const Tokenizer *t);
/* the id of a piece or added token as its file has it; -1 */
int32_t tokenizer_find(const Tokenizer *t, const char *piece);
uint64_t tokenizer_hash(const Tokenizer *t);               /* equal hash, equal ids of equal text */
void tokenizer_set_cleans(Tokenizer *t, bool cleans);

/* Which chat form the folder's own template is of, chat.h's names; "" when it has none or an unknown one. */
const char *tokenizer_chat(const Tokenizer *t);
