/* metrics: see metrics.h. */
#include "eval/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/unicode.h"
#include "eval/words.h"
#include "kernels/mem.h"

static const double TINY = 1e-15, SMALL = 1e-9;   /* of BLEU */
static const double BETA = 1.2;                   /* of ROUGE-L */
static const double SIGMA = 6.0;                  /* of CIDEr-D */

enum { NONE = INT32_MAX };                        /* no node; also the parent of single words */

typedef struct { uint32_t at, n; } Span;          /* words[at .. at+n) */
typedef struct {
    Span split;                                   /* at any blank: BLEU, CIDEr */
    Span spaced;                                  /* at single spaces: ROUGE-L; mostly the same span */
} Caption;
typedef struct { uint32_t candidate, nrefs; } Image;   /* captions: the candidate, then the references */

/* The large trie: every n-gram of the references. */
typedef struct { uint64_t key; uint32_t id, df; } Gram;   /* key 0: free; df: images whose references contain it */
typedef struct { Gram *table; size_t mask; uint32_t n; } Grams;

/* The small trie: the n-grams of one image. Places of an older `round` count as free. */
typedef struct {
    uint32_t parent, word, order;                 /* order 0: one word */
    uint32_t candidate, count, most;              /* times in the candidate, in one reference, at most in one */
    uint32_t global;                              /* the node of the large trie, or NONE */
    size_t place;                                 /* where it is or would be in the large table */
    double idf;
} Node;
typedef struct { uint64_t key; uint32_t round, id; } Place;
typedef struct {
    Place *table;
    size_t mask;
    uint32_t round, n, cap;
    Node *nodes;                                  /* (cap) */
    uint32_t *walked, nwalked;                    /* (cap) the nodes of one caption, one an occurrence */
} Local;

struct Metrics {
    Words words;
    Grams grams;
    Local local;
    uint32_t *ids;                                /* word ids of all captions */
    size_t nids, cap_ids;
    Caption *captions;
    size_t ncaptions, cap_captions;
    Image *images;
    size_t nimages, cap_images;
};

static size_t hash(uint64_t key)   /* Fibonacci hashing: the middle bits depend on all below */
{
    key *= 0x9E3779B97F4A7C15u;
    return (size_t)((key ^ key >> 32) >> 16);
}

/* Room for one more item: doubles. */
static bool grow(void *array, size_t n, size_t *cap, size_t size) {
    void *old, *bigger;
    size_t more = *cap ? *cap * 2 : 1024;
    if (n < *cap) return true;
    memcpy(&old, array, sizeof old);   /* `array` is the address of some pointer */
    bigger = mem_grow(old, more, size);
    if (!bigger) return false;
    memcpy(array, &bigger, sizeof bigger);
    *cap = more;
    return true;
}

/* ---- captions to words ---- */

static Status add_word(Metrics *m, const char *s, size_t n) {
    if (m->nids >= UINT32_MAX) return err_set(ERR_MEMORY, "more than %u words in all captions", UINT32_MAX);
    if (!grow(&m->ids, m->nids, &m->cap_ids, sizeof *m->ids)) return ERR_MEMORY;
    return words_id(&m->words, s, n, &m->ids[m->nids++]);
}

/* Length in bytes of the blank at s, 0 when there is none. */
static size_t blank_at(const char *s, size_t n) {
    uint32_t c = (unsigned char)*s;
    size_t len = 1;
    if (c > ' ' && c < 128) return 0;
    if (c >= 128) len = utf8_next(s, n, &c);
    return uni_is_white(c) ? len : 0;
}

/* Words between blanks. *plain: single spaces only lay between them, so that splitting at spaces gives the same. */
static Status split_blanks(Metrics *m, const char *s, size_t n, bool *plain) {
    size_t begin = 0, blank;
    *plain = n > 0 && s[0] != ' ' && s[n - 1] != ' ';
    for (size_t i = 0; i <= n; i += i < n ? blank : 1) {
        Status st;
        blank = i < n ? blank_at(s + i, n - i) : 1;
        if (!blank) { blank = 1; continue; }   /* the later bytes of a character are no blanks by themselves */
        if (i > begin && (st = add_word(m, s + begin, i - begin))) return st;
        if (i < n && (s[i] != ' ' || i == begin)) *plain = false;
        begin = i + blank;
    }
    return OK;
}

/* Words between single spaces, as many as spaces and one. */
static Status split_spaces(Metrics *m, const char *s, size_t n) {
    for (;;) {
        const char *space = n ? memchr(s, ' ', n) : NULL;
        size_t len = space ? (size_t)(space - s) : n;
        Status st = add_word(m, s, len);
        if (st || !space) return st;
        s = space + 1;
        n -= len + 1;
    }
}

static Status add_caption(Metrics *m, const char *s, size_t n) {
    Caption c;
    bool plain;
    Status st;
    if (!grow(&m->captions, m->ncaptions, &m->cap_captions, sizeof *m->captions)) return ERR_MEMORY;
    c.split.at = (uint32_t)m->nids;
    if ((st = split_blanks(m, s, n, &plain))) return st;
    c.split.n = (uint32_t)m->nids - c.split.at;
    c.spaced = c.split;
    if (!plain) {
        c.spaced.at = (uint32_t)m->nids;
        if ((st = split_spaces(m, s, n))) return st;
        c.spaced.n = (uint32_t)m->nids - c.spaced.at;
    }
    m->captions[m->ncaptions++] = c;
    return OK;
}

Status metrics_image(Metrics *m, const char *candidate, size_t n) {
    if (!grow(&m->images, m->nimages, &m->cap_images, sizeof *m->images)) return ERR_MEMORY;
    m->images[m->nimages] = (Image){ (uint32_t)m->ncaptions, 0 };
    Status st = add_caption(m, candidate, n);
    if (!st) m->nimages++;
    return st;
}

Status metrics_reference(Metrics *m, const char *text, size_t n) {
    Status st;
    BUG_ON(!m->nimages, "a reference before the first image");
    if (!(st = add_caption(m, text, n))) m->images[m->nimages - 1].nrefs++;
    return st;
}

size_t metrics_count(const Metrics *m) { return m->nimages; }

/* ---- the trie of one image ---- */

static uint64_t key_of(uint32_t parent, uint32_t word) { return ((uint64_t)parent << 32 | word) + 1; }   /* never 0 */

static bool size_local(Local *l, size_t words) {
    size_t cap = 1024;
    while (cap < words * NGRAM_MAX) cap *= 2;
    if (cap <= l->cap) return true;
    free(l->table);
    free(l->nodes);
    free(l->walked);
    l->table = mem_new(cap * 2, sizeof *l->table);
    l->nodes = mem_new(cap, sizeof *l->nodes);
    l->walked = mem_new(cap, sizeof *l->walked);
    l->cap = 0;
    l->round = 0;
    if (!l->table || !l->nodes || !l->walked) return false;
    l->mask = cap * 2 - 1;
    l->cap = (uint32_t)cap;
    return true;
}

static void begin_local(Local *l) {
    l->n = 0;
    if (++l->round) return;
    memset(l->table, 0, (l->mask + 1) * sizeof *l->table);   /* after 2^32 images */
    l->round = 1;
}

static uint32_t local_node(Local *l, uint32_t parent, uint32_t word, uint32_t order) {
    uint64_t key = key_of(parent, word);
    size_t at = hash(key) & l->mask;
    for (; l->table[at].round == l->round; at = (at + 1) & l->mask) {
        if (l->table[at].key == key) return l->table[at].id;
    }
    l->table[at] = (Place){ key, l->round, l->n };
    l->nodes[l->n] = (Node){ .parent = parent, .word = word, .order = order, .global = NONE };
    return l->n++;
}

/* All n-grams of a caption, in l->walked. */
static void walk(Metrics *m, Span s) {
    Local *l = &m->local;
    const uint32_t *w = m->ids + s.at;
    l->nwalked = 0;
    for (uint32_t i = 0; i < s.n; i++) {
        uint32_t node = NONE;
        for (uint32_t order = 0; order < NGRAM_MAX && i + order < s.n; order++) {
            node = local_node(l, node, w[i + order], order);
            l->walked[l->nwalked++] = node;
        }
    }
}

static Status begin_image(Metrics *m, const Image *im) {
    size_t words = 0;
    for (uint32_t r = 0; r <= im->nrefs; r++) words += m->captions[im->candidate + r].split.n;
    if (words >= NONE / NGRAM_MAX) return err_set(ERR_MEMORY, "one image has %zu words of captions", words);
    if (!size_local(&m->local, words)) return ERR_MEMORY;
    begin_local(&m->local);
    return OK;
}

/* ---- the large trie ---- */

static bool reserve_grams(Grams *g, size_t more) {
    size_t size = g->table ? g->mask + 1 : 1 << 16;
    Gram *table;
    while (g->n + more > size / 2) size *= 2;
    if (g->table && size == g->mask + 1) return true;
    table = mem_new(size, sizeof *table);
    if (!table) return false;
    for (size_t i = 0; g->table && i <= g->mask; i++) {
        size_t at = hash(g->table[i].key) & (size - 1);
        if (!g->table[i].key) continue;
        while (table[at].key) at = (at + 1) & (size - 1);
        table[at] = g->table[i];
    }
    free(g->table);
    g->table = table;
    g->mask = size - 1;
    return true;
}

/* Calls for each node of the image, parents first: adds it to the large table (df + 1), or only finds it (idf).
 * A parent's place in the large trie must be known before its children's key is, so an order at a time; each order's
 * places are prefetched before the first is looked at. */
static void visit_grams(Metrics *m, bool add) {
    Local *l = &m->local;
    Grams *g = &m->grams;
    double log_images = log((double)m->nimages);
    for (uint32_t order = 0; order < NGRAM_MAX; order++) {
        for (uint32_t i = 0; i < l->n; i++) {
            Node *x = &l->nodes[i];
            if (x->order != order) continue;
            if (order && l->nodes[x->parent].global == NONE) { x->place = SIZE_MAX; continue; }
            x->place = hash(key_of(order ? l->nodes[x->parent].global : NONE, x->word)) & g->mask;
            __builtin_prefetch(&g->table[x->place], 1);
        }
        for (uint32_t i = 0; i < l->n; i++) {
            Node *x = &l->nodes[i];
            Gram *gram = NULL;
            if (x->order != order) continue;
            if (x->place != SIZE_MAX) {
                uint64_t key = key_of(order ? l->nodes[x->parent].global : NONE, x->word);
                size_t at = x->place;
                while (g->table[at].key && g->table[at].key != key) at = (at + 1) & g->mask;
                gram = &g->table[at];
                if (!gram->key && add) *gram = (Gram){ key, g->n++, 0 };
                if (!gram->key) gram = NULL;
            }
            if (gram) x->global = gram->id;
            if (gram && add) gram->df++;
            if (!add) x->idf = log_images - (gram ? log((double)gram->df) : 0.0);
        }
    }
}

static Status count_documents(Metrics *m) {
    m->grams.n = 0;
    if (m->grams.table) memset(m->grams.table, 0, (m->grams.mask + 1) * sizeof *m->grams.table);
    for (size_t i = 0; i < m->nimages; i++) {
        const Image *im = &m->images[i];
        Status st = begin_image(m, im);
        if (st) return st;
        for (uint32_t r = 1; r <= im->nrefs; r++) walk(m, m->captions[im->candidate + r].split);
        if (m->grams.n + (size_t)m->local.n >= NONE) return err_set(ERR_MEMORY, "more than %d different n-grams", NONE);
        if (!reserve_grams(&m->grams, m->local.n)) return ERR_MEMORY;
        visit_grams(m, true);
    }
    return OK;
}

/* ---- scores ---- */

typedef struct {
    uint32_t length, reference;                /* words: of the candidate, of the closest reference */
    uint32_t guess[NGRAM_MAX], correct[NGRAM_MAX];
} ImageCounts;

/* BLEU of sums over images, or of one image. */
static void bleu(double length, double reference, const double *guess, const double *correct, double *out) {
    double product = 1.0, ratio = (length + TINY) / (reference + SMALL);
    for (int k = 0; k < NGRAM_MAX; k++) {
        product *= (correct[k] + TINY) / (guess[k] + SMALL);
        out[k] = pow(product, 1.0 / (k + 1)) * (ratio < 1.0 ? exp(1.0 - 1.0 / ratio) : 1.0);
    }
}

/* Fills the candidate's counts, each reference's, and CIDEr on the way. */
static double score_ngrams(Metrics *m, const Image *im, ImageCounts *c) {
    Local *l = &m->local;
    const Caption *candidate = &m->captions[im->candidate];
    double norm_c[NGRAM_MAX] = {0}, total = 0.0;
    uint32_t nc = candidate->split.n, ncandidate;

    walk(m, candidate->split);
    ncandidate = l->n;
    for (uint32_t i = 0; i < l->nwalked; i++) l->nodes[l->walked[i]].candidate++;
    for (uint32_t r = 1; r <= im->nrefs; r++) walk(m, candidate[r].split);
    visit_grams(m, false);
    for (uint32_t i = 0; i < ncandidate; i++) {
        const Node *x = &l->nodes[i];
        norm_c[x->order] += (x->candidate * x->idf) * (x->candidate * x->idf);
    }
    for (uint32_t r = 1; r <= im->nrefs; r++) {
        uint32_t nr = candidate[r].split.n, gap = nr > nc ? nr - nc : nc - nr;
        double dot[NGRAM_MAX] = {0}, norm_r[NGRAM_MAX] = {0};
        double delta = (double)(nc ? nc - 1 : 0) - (double)(nr ? nr - 1 : 0);   /* in bigrams */
        double penalty = exp(-delta * delta / (2 * SIGMA * SIGMA));
        walk(m, candidate[r].split);
        for (uint32_t i = 0; i < l->nwalked; i++) l->nodes[l->walked[i]].count++;
        for (uint32_t i = 0; i < l->nwalked; i++) {
            Node *x = &l->nodes[l->walked[i]];
            double cv = x->candidate * x->idf, rv = x->count * x->idf;
            dot[x->order] += (cv < rv ? cv : rv) * rv;   /* 0 when counted already */
            norm_r[x->order] += rv * rv;
            if (x->count > x->most) x->most = x->count;
            x->count = 0;
        }
        for (int n = 0; n < NGRAM_MAX; n++) {
            double norms = sqrt(norm_c[n]) * sqrt(norm_r[n]);
            total += (norms > 0 ? dot[n] / norms : dot[n]) * penalty;
        }
        if (r == 1) c->reference = nr;
        else {
            uint32_t best = c->reference > nc ? c->reference - nc : nc - c->reference;
            if (gap < best || (gap == best && nr < c->reference)) c->reference = nr;   /* ties: the shorter */
        }
    }
    c->length = nc;
    for (uint32_t n = 0; n < NGRAM_MAX; n++) {
        c->guess[n] = nc > n ? nc - n : 0;
        c->correct[n] = 0;
    }
    for (uint32_t i = 0; i < ncandidate; i++) {
        const Node *x = &l->nodes[i];
        c->correct[x->order] += x->candidate < x->most ? x->candidate : x->most;
    }
    return 10.0 * total / NGRAM_MAX / im->nrefs;
}

/* Longest common subsequence, one row of the table at a time. row: (b.n + 1). */
static uint32_t common(const uint32_t *ids, Span a, Span b, uint32_t *row) {
    const uint32_t *wa = ids + a.at, *wb = ids + b.at;
    memset(row, 0, ((size_t)b.n + 1) * sizeof *row);
    for (uint32_t i = 0; i < a.n; i++) {
        uint32_t diagonal = 0, word = wa[i];
        for (uint32_t j = 0; j < b.n; j++) {
            uint32_t above = row[j + 1], best = above > row[j] ? above : row[j];
            row[j + 1] = word == wb[j] ? diagonal + 1 : best;
            diagonal = above;
        }
    }
    return row[b.n];
}

static double rouge_l(const Metrics *m, const Image *im, uint32_t *row) {
    const Caption *candidate = &m->captions[im->candidate];
    double precision = 0, recall = 0;
    for (uint32_t r = 1; r <= im->nrefs; r++) {
        double lcs = common(m->ids, candidate->spaced, candidate[r].spaced, row);
        double p = lcs / candidate->spaced.n, q = lcs / candidate[r].spaced.n;
        if (p > precision) precision = p;
        if (q > recall) recall = q;
    }
    if (precision <= 0 || recall <= 0) return 0;
    return (1 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision);
}

static Status check_images(const Metrics *m) {
    if (!m->nimages) return err_set(ERR_USAGE, "there is no image to score");
    for (size_t i = 0; i < m->nimages; i++) {
        if (!m->images[i].nrefs) return err_set(ERR_USAGE, "image %zu of %zu has no reference caption", i, m->nimages);
    }
    return OK;
}

Status metrics_compute(Metrics *m, MetricScores *corpus, MetricScores *images) {
    double length = 0, reference = 0, guess[NGRAM_MAX] = {0}, correct[NGRAM_MAX] = {0};
    uint32_t longest = 0, *row = NULL;
    Status st;
    memset(corpus, 0, sizeof *corpus);
    if ((st = check_images(m)) || (st = count_documents(m))) return st;
    for (size_t i = 0; i < m->ncaptions; i++) {
        if (m->captions[i].spaced.n > longest) longest = m->captions[i].spaced.n;
    }
    if (!(row = mem_new((size_t)longest + 1, sizeof *row))) return ERR_MEMORY;
    for (size_t i = 0; i < m->nimages; i++) {
        const Image *im = &m->images[i];
        ImageCounts c = {0};
        double cider, rouge, g[NGRAM_MAX], k[NGRAM_MAX];
        if ((st = begin_image(m, im))) goto done;
        cider = score_ngrams(m, im, &c);
        rouge = rouge_l(m, im, row);
        length += c.length;
        reference += c.reference;
        for (int n = 0; n < NGRAM_MAX; n++) {
            guess[n] += g[n] = c.guess[n];
            correct[n] += k[n] = c.correct[n];
        }
        corpus->cider += cider / (double)m->nimages;
        corpus->rouge_l += rouge / (double)m->nimages;
        if (!images) continue;
        images[i].cider = cider;
        images[i].rouge_l = rouge;
        bleu(c.length, c.reference, g, k, images[i].bleu);
    }
    bleu(length, reference, guess, correct, corpus->bleu);
done:
    free(row);
    return st;
}

Status metrics_new(Metrics **out) {
    *out = mem_new(1, sizeof **out);
    return *out ? OK : ERR_MEMORY;
}

void metrics_free(Metrics *m) {
    if (!m) return;
    words_free(&m->words);
    free(m->grams.table);
    free(m->local.table);
    free(m->local.nodes);
    free(m->local.walked);
    free(m->ids);
    free(m->captions);
    free(m->images);
    free(m);
}
