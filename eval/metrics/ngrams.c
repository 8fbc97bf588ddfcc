/* ngrams: see ngrams.h. */
#include "eval/metrics/ngrams.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { NONE = UINT32_MAX >> 1 };           /* no node, no number */
enum { DIGIT = 11, BUCKETS = 1 << DIGIT }; /* of the radix sort: its counts fit the first cache */

/* ---- document frequencies ---- */

typedef struct { uint64_t key; uint32_t place, owner; } Item;   /* owner: 2 image + reference */

/* Bits of the numbers below `end`. */
static int bits_of(uint32_t end) {
    int bits = 1;
    while (bits < 32 && end >> bits) bits++;
    return bits;
}

/* Stable, by the lowest `bits` bits of the key. Returns the one of the two arrays that holds the result. */
static Item *sort_items(Item *a, Item *b, size_t n, int bits) {
    for (int shift = 0; shift < bits; shift += DIGIT) {
        size_t count[BUCKETS] = {0}, sum = 0;
        Item *swap = a;
        for (size_t i = 0; i < n; i++) count[a[i].key >> shift & (BUCKETS - 1)]++;
        for (int k = 0; k < BUCKETS; k++) {
            size_t here = count[k];
            count[k] = sum;
            sum += here;
        }
        for (size_t i = 0; i < n; i++) b[count[a[i].key >> shift & (BUCKETS - 1)]++] = a[i];
        a = b;
        b = swap;
    }
    return a;
}

/* Single words: df by counting. number[i] becomes the word where two images share it, NONE elsewhere. */
static Status count_words(Ngrams *g, const NgramAt *at, size_t n, uint32_t nwords, uint32_t *number) {
    uint32_t *df = mem_new(nwords, sizeof *df), *last = mem_new(nwords, sizeof *last);   /* last: image + 1 */
    if (!df || !last) {
        mem_free(df, last);
        return ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t w = g->words[i];
        if (!at[i].left || !at[i].reference || last[w] == at[i].image + 1u) continue;
        last[w] = at[i].image + 1u;
        df[w]++;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t w = g->words[i];
        bool shared = at[i].left && df[w] > 1;
        g->df[0][i] = shared ? df[w] : 0;
        number[i] = shared ? w : NONE;
    }
    mem_free(df, last);
    return OK;
}

/* The n-grams of order + 1 words both halves of which are shared. */
static size_t collect(const Ngrams *g, const NgramAt *at, size_t n, const uint32_t *number, uint32_t order,
                      int word_bits, Item *out) {
    size_t k = 0;
    for (size_t i = 0; i + order < n; i++) {
        /* an n-gram is shared only if both its halves are: most drop out at two words */
        if (at[i].left <= order || number[i] == NONE || number[i + 1] == NONE) continue;
        out[k++] = (Item){(uint64_t)number[i] << word_bits | g->words[i + order], (uint32_t)i,
                          (uint32_t)at[i].image << 1 | at[i].reference};
    }
    return k;
}

static uint32_t documents(const Item *run, size_t n) {
    uint32_t df = 0, last = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        if (!(run[i].owner & 1) || run[i].owner == last) continue;
        last = run[i].owner;
        df++;
    }
    return df;
}

/* Gives each run of equal keys that two images share a number, and its df to all its places. Returns how many. */
static uint32_t number_runs(const Item *items, size_t n, uint32_t *number, uint32_t *df) {
    uint32_t next = 0;
    for (size_t i = 0, end; i < n; i = end) {
        uint32_t d = 0;
        for (end = i + 1; end < n && items[end].key == items[i].key; end++) {}
        /* alone in its run: one image at most, and CIDEr wants no count of that */
        if (end - i > 1) d = documents(items + i, end - i);
        if (d < 2) continue;
        for (size_t k = i; k < end; k++) {
            number[items[k].place] = next;
            df[items[k].place] = d;
        }
        next++;
    }
    return next;
}

static Status count_all(Ngrams *g, const NgramAt *at, size_t n, uint32_t nwords, size_t images) {
    uint32_t *number = mem_new(n, sizeof *number), numbers = nwords;
    Item *a = mem_new(n, sizeof *a), *b = mem_new(n, sizeof *b);
    Status st = number && a && b ? OK : ERR_MEMORY;
    for (int k = 0; k < NGRAM_MAX && !st; k++) {
        if (!(g->df[k] = mem_new(n, sizeof *g->df[k]))) st = ERR_MEMORY;
    }
    if (!st && !(g->idf = mem_new(images + 1, sizeof *g->idf))) st = ERR_MEMORY;
    if (!st) st = count_words(g, at, n, nwords, number);
    for (uint32_t order = 1; order < NGRAM_MAX && !st; order++) {
        int word_bits = bits_of(nwords);
        size_t items = collect(g, at, n, number, order, word_bits, a);
        const Item *sorted = sort_items(a, b, items, word_bits + bits_of(numbers));
        for (size_t i = 0; i < n; i++) number[i] = NONE;
        numbers = number_runs(sorted, items, number, g->df[order]);
    }
    for (size_t d = 0; d <= images && !st; d++) g->idf[d] = log((double)images) - (d > 1 ? log((double)d) : 0);
    mem_free(number, a, b);
    return st;
}

Status ngrams_documents(Ngrams *g, const uint32_t *words, const NgramAt *at, size_t n, uint32_t nwords, size_t images) {
    if (n >= NONE || images >= 1 << 28)                      /* places have 32 bits, images 28 in NgramAt */
        return err_set(ERR_MEMORY, "%zu words of %zu images are more than can be scored at once", n, images);
    for (int k = 0; k < NGRAM_MAX; k++) {
        free(g->df[k]);
        g->df[k] = NULL;
    }
    free(g->idf);
    g->idf = NULL;
    g->words = words;
    return count_all(g, at, n, nwords, images);
}

/* ---- one image ---- */

static bool reserve_nodes(Ngrams *g, size_t words) {
    size_t cap = 64;                                         /* a power of two: mask takes the place of a division */
    while (cap < words * NGRAM_MAX) cap *= 2;
    if (cap <= g->cap) return true;
    mem_free(g->places, g->nodes, g->walked);
    g->places = mem_new(cap * 2, sizeof *g->places);
    g->nodes = mem_new(cap, sizeof *g->nodes);
    g->walked = mem_new(cap, sizeof *g->walked);
    g->cap = g->round = 0;
    if (!g->places || !g->nodes || !g->walked) return false;
    g->mask = cap * 2 - 1;
    g->cap = (uint32_t)cap;
    return true;
}

Status ngrams_begin(Ngrams *g, size_t words) {
    if (words >= NONE / NGRAM_MAX) return err_set(ERR_MEMORY, "the captions of one image have %zu words", words);
    if (!reserve_nodes(g, words)) return ERR_MEMORY;
    g->n = g->nwalked = 0;
    /* a round's number in each place saves clearing the table for every image */
    if (++g->round) return OK;
    memset(g->places, 0, (g->mask + 1) * sizeof *g->places);   /* after 2^32 images */
    g->round = 1;
    return OK;
}

/* The node of the n-gram that begins at words[at] and whose first n-1 words are `parent`. */
static uint32_t node_of(Ngrams *g, uint32_t parent, size_t at, uint32_t order) {
    uint64_t key = (uint64_t)parent << 32 | g->words[at + order];
    size_t i = (key * 0x9E3779B97F4A7C15u) >> 40 & g->mask;
    for (; g->places[i].round == g->round; i = (i + 1) & g->mask) {
        if (g->places[i].key == key) return g->places[i].id;
    }
    g->places[i] = (struct NgramPlace){key, g->round, g->n};
    g->nodes[g->n] = (NgramNode){.order = order, .idf = g->idf[g->df[order][at]]};
    return g->n++;
}

void ngrams_add(Ngrams *g, size_t at, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t node = NONE;
        for (uint32_t order = 0; order < NGRAM_MAX && i + order < n; order++) {
            node = node_of(g, node, at + i, order);
            g->walked[g->nwalked++] = node;
        }
    }
}

uint32_t ngrams_occurrences(uint32_t words) {
    uint32_t sum = 0;
    for (uint32_t k = 0; k < NGRAM_MAX; k++) sum += words > k ? words - k : 0;
    return sum;
}

void ngrams_free(Ngrams *g) {
    for (int k = 0; k < NGRAM_MAX; k++) free(g->df[k]);
    mem_free(g->nodes, g->walked, g->places, g->idf);
    *g = (Ngrams){0};
}
