/* pieces: the vocabulary of a tokenizer: bytes to ids and back. Ids may have holes; the empty string is no piece.
 * Called by bpe, unigram and the tokenizer's frame (added tokens). Read-only once filled: any number of threads. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/text/grow.h"
#include "kernels/base/err.h"
#include "kernels/base/hash.h"

/* the last: bytes of one piece */
enum { PIECES_MAX_IDS = 1 << 22, PIECES_MAX_BYTES = 1 << 28, PIECE_LONGEST = 4096 };

typedef struct {
    char *bytes;
    uint32_t *start, *len;     /* (size); len 0: nobody's id */
    int32_t size;              /* largest id + 1 */
    size_t longest;            /* bytes of the longest piece that can be found */
    struct PieceSlot { uint32_t check, id1; } *slots;     /* (1 << bits), id + 1, linear probing, at most half full */
    int bits;
    size_t used, room;
} Pieces;

/* Room for `count` pieces of ids below `size` and of `bytes` bytes in all. ERR_FORMAT when that is too many; `name` is
 * the file. */
Status pieces_open(Pieces *p, int64_t size, int64_t count, size_t bytes, const char *name);
void pieces_close(Pieces *p);

/* A piece that only decodes (`find` false) is never found by its bytes. ERR_FORMAT: the id or the bytes have a piece
 * already, or are out of range. */
Status pieces_set(Pieces *p, int64_t id, const char *s, size_t n, bool find, const char *name);

int32_t pieces_find(const Pieces *p, const char *s, size_t n);                   /* -1 when absent */
const char *pieces_get(const Pieces *p, int32_t id, size_t *n);                  /* NULL, 0 when nobody's */
uint64_t pieces_hash(const Pieces *p, uint64_t h);                               /* of all of it, after h */

/* Which pieces (size) a model makes of their own bytes, so that a word that is one costs a probe; those of more than
 * PIECES_SHORT bytes are not asked about. */
enum { PIECES_SHORT = 128 };
typedef Status PiecesCut(const void *model, const char *s, size_t n, TokenIds *out);
Status pieces_whole(const Pieces *p, PiecesCut *cut, const void *model, unsigned char **whole);
