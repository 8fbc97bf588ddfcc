/* vocab: see vocab.h. */
#include "data/text/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/wordpiece.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"
#include "kernels/base/unicode.h"

enum { PIECE_BYTES = WP_MAX_WORD * UTF8_MAX + 3 };

static const char *const first_lines[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
enum { FIRST_LINES = sizeof first_lines / sizeof *first_lines };

/* ---- the words ---- */

typedef struct {
    char *text;
    int64_t count;
} Word;

struct VocabTrainer {
    Word *words;
    size_t n;
    StrMap index;             /* text to place in words */
    int64_t total;
};

Status vocab_new(VocabTrainer **t) { return (*t = mem_new(1, sizeof **t)) ? OK : ERR_MEMORY; }

void vocab_free(VocabTrainer *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n; i++) free(t->words[i].text);
    free(t->words);
    strmap_free(&t->index);
    free(t);
}

static Status new_word(VocabTrainer *t, const char *text) {
    if (mem_room(&t->words, t->n, 1, sizeof *t->words) != OK) return ERR_MEMORY;
    char *copy = mem_strdup(text);
    if (!copy) return ERR_MEMORY;
    Status st = strmap_put(&t->index, copy, (int64_t)t->n);
    if (st != OK) free(copy);
    else t->words[t->n++] = (Word){copy, 1};
    return st;
}

static Status count_word(void *ctx, const char *word, size_t n, int points) {
    VocabTrainer *t = ctx;
    char text[PIECE_BYTES];
    if (points == 0 || points > WP_MAX_WORD) return OK;      /* special tokens, and words that become [UNK] whole */
    memcpy(text, word, n);
    text[n] = 0;
    t->total++;
    int64_t *at = strmap_get(&t->index, text);
    if (!at) return new_word(t, text);
    t->words[*at].count++;
    return OK;
}

Status vocab_add(VocabTrainer *t, const char *caption, size_t n) { return wp_words(caption, n, count_word, t); }

/* ---- the state of training ---- */

typedef struct { int32_t *v; int n; } Symbols;        /* a word as pieces; -1: a character without one */

typedef struct {
    uint64_t key;             /* left piece << 32 | right piece */
    int64_t count;            /* occurrences in all captions */
    int32_t *words;           /* where it occurs; may name a word twice, or one that has lost it */
    size_t n;
    int64_t touched;          /* the merge that last added to it */
} Pair;

typedef struct { int64_t count; uint64_t key; size_t pair; } Candidate;

typedef struct {
    const VocabTrainer *t;
    char **pieces;
    size_t npieces;
    StrMap ids;               /* piece to id */
    Symbols *words;
    int32_t *symbols;         /* storage of all words */
    Pair *pairs;
    size_t npairs;
    uint32_t *slots;          /* hash table of pairs: index + 1, at most half full */
    size_t nslots;
    Candidate *heap;
    size_t nheap;
    size_t *fresh;            /* pairs touched by the merge at work */
    size_t nfresh;
    int64_t merges;
} Train;

static Status add_piece(Train *r, const char *text, int32_t *id) {
    if (mem_room(&r->pieces, r->npieces, 1, sizeof *r->pieces) != OK) return ERR_MEMORY;
    char *copy = mem_strdup(text);
    if (!copy) return ERR_MEMORY;
    Status st = strmap_put(&r->ids, copy, (int64_t)r->npieces);
    if (st != OK) { free(copy); return st; }
    *id = (int32_t)r->npieces;
    r->pieces[r->npieces++] = copy;
    return OK;
}

/* ---- characters ---- */

typedef struct { uint32_t c; bool inner; int64_t count; } Form;
typedef struct { int64_t count[2]; } Seen;             /* of a code point: starts a word, inside one; later the ids */

static int by_count(const void *x, const void *y) {
    const Form *a = x, *b = y;
    if (a->count != b->count) return a->count < b->count ? 1 : -1;
    if (a->inner != b->inner) return a->inner ? 1 : -1;
    return a->c < b->c ? -1 : 1;
}

static int by_code(const void *x, const void *y) {
    const Form *a = x, *b = y;
    if (a->inner != b->inner) return a->inner ? 1 : -1;
    return a->c < b->c ? -1 : 1;
}

/* How many characters all words have; *last is the largest. */
static size_t count_points(const VocabTrainer *t, uint32_t *last) {
    size_t points = 0;
    for (size_t i = 0; i < t->n; i++)
        for (size_t at = 0, n = strlen(t->words[i].text); at < n; points++) {
            uint32_t c;
            at += utf8_next(t->words[i].text + at, n - at, &c);
            if (c > *last) *last = c;
        }
    return points;
}

static void see_words(const VocabTrainer *t, Seen *seen) {
    for (size_t i = 0; i < t->n; i++)
        for (size_t at = 0, n = strlen(t->words[i].text); at < n;) {
            uint32_t c;
            bool inner = at > 0;
            at += utf8_next(t->words[i].text + at, n - at, &c);
            seen[c].count[inner] += t->words[i].count;
        }
}

static Status spell_words(Train *r, const Seen *ids, size_t points) {
    r->words = mem_new(r->t->n, sizeof *r->words);
    r->symbols = mem_new(points, sizeof *r->symbols);
    if (!r->words || !r->symbols) return ERR_MEMORY;
    int32_t *next = r->symbols;
    for (size_t i = 0; i < r->t->n; i++) {
        const char *text = r->t->words[i].text;
        size_t n = strlen(text);
        r->words[i].v = next;
        for (size_t at = 0; at < n;) {
            uint32_t c;
            bool inner = at > 0;
            at += utf8_next(text + at, n - at, &c);
            *next++ = (int32_t)ids[c].count[inner]; /* add_forms left ids where counts were */
        }
        r->words[i].n = (int)(next - r->words[i].v);
    }
    return OK;
}

/* Gives the most frequent forms their pieces, in the order of code points. On return `seen` holds ids, -1 for none. */
static Status add_forms(Train *r, Seen *seen, Form *forms, size_t n, size_t most, VocabReport *report) {
    for (size_t i = 0; i < n; i++) seen[forms[i].c].count[0] = seen[forms[i].c].count[1] = -1;
    qsort(forms, n, sizeof *forms, by_count);                /* which stay when there is no room for all */
    if (n > most) {
        report->dropped = (int64_t)(n - most);
        n = most;
    }
    qsort(forms, n, sizeof *forms, by_code);                 /* ids by code point: a stable file */
    for (size_t i = 0; i < n; i++) {
        char text[UTF8_MAX + 3] = "##";
        int32_t id;
        size_t at = forms[i].inner ? 2 : 0;
        text[at + utf8_put(forms[i].c, text + at)] = 0;
        Status st = add_piece(r, text, &id);
        if (st != OK) return st;
        seen[forms[i].c].count[forms[i].inner] = id;
    }
    return OK;
}

static Status start_with_characters(Train *r, size_t size, VocabReport *report) {
    Form *forms = NULL;
    size_t n = 0;
    uint32_t last = 0;
    size_t points = count_points(r->t, &last);
    Status st = OK;
    Seen *seen = mem_new((size_t)last + 1, sizeof *seen);
    if (!seen) return ERR_MEMORY;
    see_words(r->t, seen);
    for (uint32_t c = 0; c <= last; c++) {
        if (!seen[c].count[0] && !seen[c].count[1]) continue;
        report->characters++;
        /* what is a word by itself stands inside none */
        for (int inner = 0; inner < (wp_stands_alone(c) ? 1 : 2); inner++) {
            if ((st = mem_room(&forms, n, 1, sizeof *forms)) != OK) goto done;
            forms[n++] = (Form){c, inner, seen[c].count[inner]};
        }
    }
    st = add_forms(r, seen, forms, n, size - r->npieces, report);
    if (st == OK) st = spell_words(r, seen, points);
done:
    mem_free(forms, seen);
    return st;
}

/* ---- pairs ---- */

static uint64_t key_of(int32_t left, int32_t right) { return (uint64_t)(uint32_t)left << 32 | (uint32_t)right; }

static uint32_t *pair_slot(const Train *r, uint64_t key) {
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    for (size_t i = (size_t)(h >> 32) & (r->nslots - 1);; i = (i + 1) & (r->nslots - 1))
        if (!r->slots[i] || r->pairs[r->slots[i] - 1].key == key) return &r->slots[i];
}

static Status more_slots(Train *r) {
    size_t n = r->nslots ? 2 * r->nslots : 1024;
    uint32_t *slots = mem_new(n, sizeof *slots);
    if (!slots) return ERR_MEMORY;
    free(r->slots);
    r->slots = slots;
    r->nslots = n;
    for (size_t i = 0; i < r->npairs; i++) *pair_slot(r, r->pairs[i].key) = (uint32_t)i + 1;
    return OK;
}

static Status pair_of(Train *r, uint64_t key, size_t *at) {
    /* half full at the most, or probes grow long */
    if (2 * (r->npairs + 1) > r->nslots && more_slots(r) != OK) return ERR_MEMORY;
    uint32_t *slot = pair_slot(r, key);
    if (!*slot) {
        if (mem_room(&r->pairs, r->npairs, 1, sizeof *r->pairs) != OK) return ERR_MEMORY;
        r->pairs[r->npairs++] = (Pair){.key = key, .touched = -1};
        *slot = (uint32_t)r->npairs;
    }
    *at = *slot - 1;
    return OK;
}

/* Candidates: the largest count first, then the smallest key. */
static bool before(Candidate a, Candidate b) { return a.count != b.count ? a.count > b.count : a.key < b.key; }

static Status heap_push(Train *r, size_t pair) {
    if (mem_room(&r->heap, r->nheap, 1, sizeof *r->heap) != OK) return ERR_MEMORY;
    Candidate c = {r->pairs[pair].count, r->pairs[pair].key, pair};
    size_t i = r->nheap++;
    for (; i && before(c, r->heap[(i - 1) / 2]); i = (i - 1) / 2) r->heap[i] = r->heap[(i - 1) / 2];
    r->heap[i] = c;
    return OK;
}

static Candidate heap_pop(Train *r) {
    Candidate top = r->heap[0], last = r->heap[--r->nheap];
    size_t i = 0;
    for (size_t kid; (kid = 2 * i + 1) < r->nheap; i = kid) {
        if (kid + 1 < r->nheap && before(r->heap[kid + 1], r->heap[kid])) kid++;
        if (!before(r->heap[kid], last)) break;
        r->heap[i] = r->heap[kid];
    }
    r->heap[i] = last;
    return top;
}

/* Adds the occurrences of a word's pairs. Only pairs with `joined` in them (any, if it is -1) are new to the word; the
 * others know it already. */
static Status add_pairs(Train *r, size_t word, int32_t joined) {
    const Symbols *w = &r->words[word];
    for (int i = 0; i + 1 < w->n; i++) {
        size_t at;
        if (w->v[i] < 0 || w->v[i + 1] < 0) continue;        /* a character that got no piece joins nothing */
        if (pair_of(r, key_of(w->v[i], w->v[i + 1]), &at) != OK) return ERR_MEMORY;
        Pair *p = &r->pairs[at];
        p->count += r->t->words[word].count;
        if (joined >= 0 && w->v[i] != joined && w->v[i + 1] != joined) continue; /* counted again, but known */
        if (mem_room(&p->words, p->n, 1, sizeof *p->words) != OK) return ERR_MEMORY;
        /* a word may hold a pair twice */
        if (!p->n || p->words[p->n - 1] != (int32_t)word) p->words[p->n++] = (int32_t)word;
        if (p->touched == r->merges) continue;
        p->touched = r->merges;                              /* once a merge on the heap */
        if (mem_room(&r->fresh, r->nfresh, 1, sizeof *r->fresh) != OK) return ERR_MEMORY;
        r->fresh[r->nfresh++] = at;
    }
    return OK;
}

static void take_pairs(Train *r, size_t word) {
    const Symbols *w = &r->words[word];
    for (int i = 0; i + 1 < w->n; i++)
        if (w->v[i] >= 0 && w->v[i + 1] >= 0)
            r->pairs[*pair_slot(r, key_of(w->v[i], w->v[i + 1])) - 1].count -= r->t->words[word].count;
}

static Status push_fresh(Train *r) {
    Status st = OK;
    for (size_t i = 0; i < r->nfresh && st == OK; i++) st = heap_push(r, r->fresh[i]);
    r->nfresh = 0;
    r->merges++;
    return st;
}

/* ---- joining ---- */

static bool holds(const Symbols *w, int32_t left, int32_t right) {
    for (int i = 0; i + 1 < w->n; i++)
        if (w->v[i] == left && w->v[i + 1] == right) return true;
    return false;
}

static void join_in(Symbols *w, int32_t left, int32_t right, int32_t joined) {
    int n = 0;
    for (int i = 0; i < w->n; i++) {
        bool both = i + 1 < w->n && w->v[i] == left && w->v[i + 1] == right;
        w->v[n++] = both ? joined : w->v[i];
        i += both;
    }
    w->n = n;
}

/* The piece may exist: "abc" can come from "ab" + "##c" and from "a" + "##bc". */
static Status joined_piece(Train *r, int32_t left, int32_t right, int32_t *id) {
    char text[2 * PIECE_BYTES];
    strcpy(text, r->pieces[left]);
    strcat(text, r->pieces[right] + 2);   /* what stands to the right begins with ## */
    const int64_t *known = strmap_get(&r->ids, text);
    if (!known) return add_piece(r, text, id);
    *id = (int32_t)*known;
    return OK;
}

static Status join(Train *r, size_t pair) {
    int32_t left = (int32_t)(r->pairs[pair].key >> 32), right = (int32_t)(uint32_t)r->pairs[pair].key, joined;
    Status st = joined_piece(r, left, right, &joined);
    int32_t *words = r->pairs[pair].words;   /* taken over: all of them lose the pair now */
    size_t n = r->pairs[pair].n;
    r->pairs[pair].words = NULL;
    r->pairs[pair].n = 0;
    for (size_t i = 0; i < n && st == OK; i++) {
        size_t word = (size_t)words[i];
        if (!holds(&r->words[word], left, right)) continue;  /* it has lost the pair to another merge */
        take_pairs(r, word); /* all of them, as the neighbours of what joins change, too */
        join_in(&r->words[word], left, right, joined);
        st = add_pairs(r, word, joined);
    }
    free(words);
    return st == OK ? push_fresh(r) : st;
}

static Status join_pairs(Train *r, size_t size, int64_t min_count) {
    Status st = OK;
    for (size_t i = 0; i < r->t->n && st == OK; i++) st = add_pairs(r, i, -1);
    if (st == OK) st = push_fresh(r);
    while (st == OK && r->npieces < size && r->nheap) {
        Candidate c = heap_pop(r);
        int64_t count = r->pairs[c.pair].count;
        if (count < min_count) continue; /* never pushed again: counts only fall, but for pairs that are new */
        if (count != c.count) st = heap_push(r, c.pair);   /* stale: back to where it belongs now */
        else st = join(r, c.pair);
    }
    return st;
}

/* ---- the result ---- */

static Status write_lines(const Train *r, char **text, size_t *n) {
    FILE *f = open_memstream(text, n);
    for (size_t i = 0; f && i < r->npieces; i++) fprintf(f, "%s\n", r->pieces[i]);
    return f && fclose(f) == 0 ? OK : err_set(ERR_MEMORY, "out of memory");
}

static void train_free(Train *r) {
    for (size_t i = 0; i < r->npieces; i++) free(r->pieces[i]);
    for (size_t i = 0; i < r->npairs; i++) free(r->pairs[i].words);
    strmap_free(&r->ids);
    mem_free(r->pieces, r->words, r->symbols, r->pairs, r->slots, r->heap, r->fresh);
}

Status vocab_train(const VocabTrainer *t, int size, int64_t min_count, char **text, size_t *n, VocabReport *report) {
    Train r = {.t = t};
    VocabReport seen = {.words = t->total, .different = (int64_t)t->n};
    Status st = OK;
    *text = NULL;
    if (size < VOCAB_MIN || size > VOCAB_MAX)
        return err_set(ERR_USAGE, "a vocabulary of %d pieces was asked for; %d to %d can be made", size, VOCAB_MIN,
                       VOCAB_MAX);
    if (!t->n) return err_set(ERR_USAGE, "no caption holds a word: there is nothing to make a vocabulary of");
    /* words are named by 32 bits in pairs */
    if (t->n > INT32_MAX / 2) return err_set(ERR_USAGE, "%zu different words are too many to train on", t->n);
    for (size_t i = 0; i < FIRST_LINES && st == OK; i++) {
        int32_t id;
        st = add_piece(&r, first_lines[i], &id);
    }
    if (st == OK) st = start_with_characters(&r, (size_t)size, &seen);
    if (st == OK) st = join_pairs(&r, (size_t)size, min_count < 1 ? 1 : min_count);
    seen.pieces = (int64_t)r.npieces;
    if (st == OK) st = write_lines(&r, text, n);
    if (st == OK && report) *report = seen;
    train_free(&r);
    return st;
}
