/* tokenizer_parts: what a Tokenizer is made of: shared by tokenizer.c, which uses the parts, and tokenizer_json.c,
 * tokenizer_open.c and sentencepiece.c, which fill them in from files. */
#pragma once
#include "data/format/json.h"
#include "data/text/bpe.h"
#include "data/text/normalize.h"
#include "data/text/split.h"
#include "data/text/tokenizer.h"
#include "data/text/unigram.h"
#include "data/text/wordpiece.h"

typedef enum { KIND_WORDPIECE, KIND_BYTES, KIND_MARKS, KIND_UNIGRAM } TokenizerKind;   /* MARKS: SentencePiece's BPE */

/* Metaspace: U+2581 for each U+0020 and in front of the stretch (or only at the start of the text), unless it begins
 * with one; with `cut` a word ends before each. */
typedef enum { MARK_OFF, MARK_NEVER, MARK_FIRST, MARK_ALWAYS } MarkRule;

/* How pieces become text again. */
typedef enum { DECODE_BYTES, DECODE_MARKS, DECODE_WORDS } DecodeRule;

typedef struct {
    char *text;
    size_t n;
    int64_t id;
    bool special;              /* left out when decoding */
} AddedToken;

struct Tokenizer {
    TokenizerKind kind;
    Normalizer norm;
    SplitRule split;
    MarkRule mark;
    bool cut, blank_front;     /* each stretch of text begins with a blank, if need be with one that is put there */
    DecodeRule decode;
    bool keep_front;           /* the blank in front of a decoded text stays */
    Bpe bpe;
    Unigram unigram;
    Wordpiece wp;
    Pieces added;
    bool *special;             /* (added.size) */
    bool starts[256];          /* some added token starts with this byte */
    int lengths[64], nlengths; /* of the added tokens, longest first */
    TokenizerIds ids;
    bool cleans;
    const char *chat;
    uint64_t hash;
    AddedToken *list;          /* as read; becomes `added` in tokenizer_ready */
    size_t nlist;
};

/* A new one with nothing in it; ids all -1. */
Status tokenizer_new(Tokenizer **t);

/* Adds a token that is cut out of the raw text; the same one again with the same id is nothing new. */
Status tokenizer_add(Tokenizer *t, const char *s, size_t n, int64_t id, bool special, const char *name);

/* Model, rules and added tokens are there: makes what encoding needs, and the hash. */
Status tokenizer_ready(Tokenizer *t, const char *name);

const Pieces *tokenizer_vocabulary(const Tokenizer *t);    /* the model's, without added tokens */

Status tokenizer_valid(const char *s, size_t n, TextBytes *out);    /* added to out, invalid parts as U+FFFD */

/* Fills t from the document of a tokenizer.json; not ready yet. */
Status tokenizer_read_json(Tokenizer *t, const Json *doc, const char *name);

/* t->wp is there: its kind and ids. */
void tokenizer_take_wordpiece(Tokenizer *t);

/* Its parts for vocab.json and merges.txt: pieces with their ids, and one merge. */
Status tokenizer_read_vocab(Tokenizer *t, const Json *vocab, const char *name);
Status tokenizer_read_merge(Tokenizer *t, const char *left, size_t nleft, const char *right, size_t nright,
                            const char *name);

/* Fills t from a SentencePiece model; not ready yet. Llama's (BPE) and T5's (Unigram) rules,
 * as transformers converts them. */
Status tokenizer_read_spm(Tokenizer *t, const void *bytes, size_t n, const char *name);
