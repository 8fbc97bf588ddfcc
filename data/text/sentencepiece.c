/* sentencepiece: a tokenizer from a SentencePiece model (spiece.model, tokenizer.model), as transformers converts it:
 * the pieces in order are the ids; BPE gets Llama's rules and its merges from the scores, Unigram T5's.
 *
 * The file is a protobuf message: fields, each a number (field << 3 | wire type) and a value. Only what is needed is
 * taken, the rest skipped; each length is held against what is left.
 *
 *     1 pieces { 1 text, 2 score (f32), 3 type }     2 trainer { 3 model_type (1 Unigram, 2 BPE), 35 byte_fallback }
 *     3 normaliser { 2 character map, 3 add_dummy_prefix } */
#include <stdlib.h>
#include <string.h>

#include "data/text/tokenizer_parts.h"
#include "kernels/base/unicode.h"

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

typedef struct { const unsigned char *s; size_t n; } View;
typedef struct { uint32_t number; uint64_t value; View bytes; } Field;     /* value of a varint or of 4 bytes */

typedef struct { View text; float score; int type; } Piece;

typedef struct {
    Piece *piece;
    size_t n;
    int model;
    bool fallback, prefix;
    View map;
} Model;

/* ---- protobuf ---- */

static bool varint(View *v, uint64_t *x) {
    *x = 0;
    for (int shift = 0; shift < 64 && v->n; shift += 7) {
        unsigned char b = *v->s++;
        v->n--;
        *x |= (uint64_t)(b & 127) << shift;
        if (b < 128) return true;
    }
    return false;
}

/* The next field of v; false when the bytes are none. */
static bool field(View *v, Field *f) {
    uint64_t key, n;
    *f = (Field){0};
    if (!varint(v, &key) || key >> 3 > UINT32_MAX) return false;
    f->number = (uint32_t)(key >> 3);
    switch (key & 7) {
    case 0: return varint(v, &f->value);
    case 1: n = 8; break;
    case 5: n = 4; break;
    case 2: if (varint(v, &n)) break; return false;
    default: return false;                                   /* groups (3, 4): proto2 has given them up */
    }
    if (n > v->n) return false;
    f->bytes = (View){v->s, (size_t)n};
    if ((key & 7) == 5) memcpy(&f->value, v->s, 4);
    v->s += n;
    v->n -= (size_t)n;
    return true;
}

static bool read_piece(View v, Piece *p) {
    *p = (Piece){.type = PIECE_NORMAL};                      /* its default in the message */
    for (Field f; v.n;) {
        if (!field(&v, &f)) return false;
        uint32_t bits = (uint32_t)f.value;
        if (f.number == 1) p->text = f.bytes;
        if (f.number == 2) memcpy(&p->score, &bits, 4);
        if (f.number == 3) p->type = (int)(f.value & 7);
    }
    return true;
}

static bool read_settings(View v, bool trainer, Model *m) {
    for (Field f; v.n;) {
        if (!field(&v, &f)) return false;
        if (trainer && f.number == 3) m->model = (int)(f.value & 7);
        if (trainer && f.number == 35) m->fallback = f.value != 0;
        if (!trainer && f.number == 2) m->map = f.bytes;
        if (!trainer && f.number == 3) m->prefix = f.value != 0;
    }
    return true;
}

static bool count_pieces(View v, size_t *n) {
    *n = 0;
    for (Field f; v.n; *n += f.number == 1)
        if (!field(&v, &f)) return false;
    return true;
}

static Status read_message(Model *m, View v, const char *name) {
    size_t n = 0;
    bool good = count_pieces(v, &n);
    *m = (Model){.model = MODEL_UNIGRAM, .prefix = true};    /* the message's defaults: absent fields mean these */
    if (good && !(m->piece = mem_new(n, sizeof *m->piece))) return ERR_MEMORY;
    for (Field f; good && v.n;) {
        good = field(&v, &f);
        if (good && f.number == 1) good = read_piece(f.bytes, &m->piece[m->n++]);
        if (good && f.number == 2) good = read_settings(f.bytes, true, m);
        if (good && f.number == 3) good = read_settings(f.bytes, false, m);
    }
    if (!good || !m->n) return err_set(ERR_FORMAT, "%s: this is not a SentencePiece model, or it is cut off", name);
    return OK;
}

/* ---- pieces ---- */

/* All pieces into `p`; control and user tokens also among the added ones. */
static Status take_pieces(Tokenizer *t, const Model *m, Pieces *p, const char *name) {
    size_t bytes = 0;
    for (size_t i = 0; i < m->n; i++) bytes += m->piece[i].text.n;
    Status st = pieces_open(p, (int64_t)m->n, (int64_t)m->n, bytes, name);
    for (size_t i = 0; i < m->n && st == OK; i++) {
        const Piece *x = &m->piece[i];
        const char *s = (const char *)x->text.s;
        if (!utf8_valid(s, x->text.n, NULL)) return err_set(ERR_FORMAT, "%s: piece %zu is not UTF-8", name, i);
        st = pieces_set(p, (int64_t)i, s, x->text.n, true, name);
        bool added = x->type == PIECE_CONTROL || x->type == PIECE_UNKNOWN || x->type == PIECE_USER;
        if (st == OK && added) st = tokenizer_add(t, s, x->text.n, (int64_t)i, x->type != PIECE_USER, name);
        if (x->type == PIECE_UNKNOWN) t->ids.unk = (int32_t)i;
    }
    if (st == OK && t->ids.unk < 0) return err_set(ERR_FORMAT, "%s: none of the %zu pieces is the unknown one", name,
                                                   m->n);
    t->ids.bos = pieces_find(p, "<s>", 3);
    t->ids.eos = pieces_find(p, "</s>", 4);
    t->ids.pad = pieces_find(p, "<pad>", 5);
    return st;
}

/* ---- merges from scores ---- */

/* A way to make a piece of two: best score first; of equals, of one piece the left with the smaller id first. */
typedef struct { float score; int32_t made, left, right; } Way;

static int best_first(const void *a, const void *b) {
    const Way *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->made != y->made) return x->made < y->made ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static size_t ways_of(const Pieces *p, const Model *m, int32_t id, Way *out) {
    size_t n, count = 0;
    const char *s = pieces_get(p, id, &n);
    uint32_t c;
    for (size_t i = n ? utf8_next(s, n, &c) : 0; i < n; i += utf8_next(s + i, n - i, &c)) {
        int32_t left = pieces_find(p, s, i), right = left < 0 ? -1 : pieces_find(p, s + i, n - i);
        if (right >= 0) out[count++] = (Way){m->piece[id].score, id, left, right};
    }
    return count;
}

static Status take_merges(Tokenizer *t, const Model *m, const char *name) {
    Bpe *b = &t->bpe;
    size_t n = 0;
    Way *way = mem_new(b->pieces.used + 1, sizeof *way); /* a piece of n bytes can be split in fewer than n places */
    if (!way) return ERR_MEMORY;
    for (int32_t id = 0; id < b->pieces.size; id++) n += ways_of(&b->pieces, m, id, way + n);
    qsort(way, n, sizeof *way, best_first);                  /* the file has no merges: scores say which came first */
    Status st = bpe_begin_merges(b, (int64_t)n, name);
    for (size_t i = 0; i < n && st == OK; i++) {
        size_t nl, nr;
        const char *l = pieces_get(&b->pieces, way[i].left, &nl), *r = pieces_get(&b->pieces, way[i].right, &nr);
        st = bpe_add_merge(b, l, nl, r, nr, name);
    }
    free(way);
    return st;
}

/* ---- the two kinds ---- */

static Status make_bpe(Tokenizer *t, const Model *m, const char *name) {
    t->kind = KIND_MARKS;
    t->decode = DECODE_MARKS;
    t->norm.mark_front = m->prefix;                          /* add_dummy_prefix */
    t->norm.mark_blanks = true;
    t->bpe.fallback = m->fallback;
    t->bpe.fuse_unk = true;                                  /* as the converter of transformers sets it */
    if (m->map.n) return err_set(ERR_FORMAT, "%s: a BPE model with a character map is none that is known here", name);
    Status st = take_pieces(t, m, &t->bpe.pieces, name);
    t->bpe.unk = t->ids.unk;
    if (t->ids.bos >= 0) t->ids.begin[t->ids.nbegin++] = t->ids.bos;
    return st == OK ? take_merges(t, m, name) : st;
}

static Status make_unigram(Tokenizer *t, const Model *m, const char *name) {
    t->kind = KIND_UNIGRAM;
    t->decode = DECODE_WORDS;
    t->split = SPLIT_WHITE;
    t->mark = MARK_ALWAYS;
    t->cut = true;
    Status st = take_pieces(t, m, &t->unigram.pieces, name);
    if (st == OK && !(t->unigram.score = mem_new(m->n + 1, sizeof *t->unigram.score))) st = ERR_MEMORY;
    for (size_t i = 0; i < m->n && st == OK; i++) t->unigram.score[i] = (double)m->piece[i].score;
    t->unigram.unk = t->ids.unk;
    if (t->ids.eos >= 0) t->ids.end[t->ids.nend++] = t->ids.eos;
    if (st != OK || !m->map.n) return st;
    t->norm.form = FORM_MAP;
    return charsmap_open(&t->norm.map, m->map.s, m->map.n, name);
}

Status tokenizer_read_spm(Tokenizer *t, const void *bytes, size_t n, const char *name) {
    Model m = {0};
    Status st = read_message(&m, (View){bytes, n}, name);
    if (st == OK && m.model == MODEL_BPE) st = make_bpe(t, &m, name);
    else if (st == OK && m.model == MODEL_UNIGRAM) st = make_unigram(t, &m, name);
    else if (st == OK)
        st = err_set(ERR_FORMAT, "%s: a SentencePiece model of type %d; Unigram (1) and BPE (2) are known", name,
                     m.model);
    free(m.piece);
    return st;
}
