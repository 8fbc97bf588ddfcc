/* bpe: byte-pair encoding of one word: it starts as single symbols, and the adjacent pair whose merge stands first in
 * the list is joined (of equals the leftmost), until no pair is in the list. Two kinds: over bytes (GPT-2, OPT,
 * SmolLM2, Llama-3, Qwen2), and over characters, one that is no piece becoming its bytes as <0x..> pieces (Llama-2).
 *
 * The idea: pairs are numbers, a merge is one probe, and the next merge comes from a heap, so a long word costs
 * n log n. Most words are one piece, though; opening finds out which pieces the merges make of their own bytes, and
 * such a word costs one probe in all.
 *
 * Called by tokenizer.c with words, and by what reads tokenizer files. Read-only once open. Does not cut text into
 * words (split.h). Reference: Sennrich, Haddow, Birch (2016); spec/stage2.md 8b, 8c. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "data/text/grow.h"
#include "data/text/pieces.h"

typedef struct {
    Pieces pieces;             /* over bytes: the bytes themselves, not GPT-2's letters for them */
    bool of_bytes;
    bool ignore_merges;        /* a word that is a piece is that piece, whatever the merges say */
    bool fallback;             /* over characters: unknown ones become <0x..> pieces */
    bool fuse_unk;             /* neighbouring unknown characters are one */
    int32_t unk;               /* over characters; -1: an unknown one vanishes, as over bytes */
    /* private */
    int32_t first[256];        /* id of a byte: as a symbol over bytes, as <0x..> otherwise; -1: none */
    struct BpeMerge { uint64_t pair; uint32_t rank; int32_t made; } *merges;       /* (1 << bits), rank 0: empty */
    int bits;
    int64_t nmerges;
    unsigned char *whole;      /* (size) the merges make this piece of its bytes */
} Bpe;

/* Pieces and flags are set; then merges in order (at most `most`), then bpe_ready. ERR_FORMAT names what is wrong. */
Status bpe_begin_merges(Bpe *b, int64_t most, const char *name);
Status bpe_add_merge(Bpe *b, const char *left, size_t nleft, const char *right, size_t nright, const char *name);
Status bpe_ready(Bpe *b);
void bpe_close(Bpe *b);

Status bpe_word(const Bpe *b, const char *s, size_t n, TokenIds *out);
uint64_t bpe_hash(const Bpe *b, uint64_t h);

/* The bytes that a piece written in GPT-2's letters stands for, into out (strlen(s) of room); returns how many, -1 when
 * some character is none of the 256 letters. */
int64_t bpe_bytes_of_letters(const char *s, size_t n, char *out);
