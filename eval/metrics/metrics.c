/* metrics: see metrics.h. */
#include "eval/metrics/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eval/metrics/ngrams.h"
#include "eval/metrics/words.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

const char *const metrics_names[METRICS] = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"};

static const double TINY = 1e-15, SMALL = 1e-9;   /* of BLEU */
static const double BETA = 1.2;                   /* of ROUGE-L */
static const double SIGMA = 6.0;                  /* of CIDEr-D */

typedef struct { uint32_t at, n; } Span;          /* words[at .. at+n) */
typedef struct {
    Span split;                                   /* at any blank: BLEU, CIDEr */
    Span spaced;                                  /* at single spaces: ROUGE-L; mostly the same span */
} Caption;
typedef struct { uint32_t candidate, nrefs; } Image;   /* captions: the candidate, then the references */

struct Metrics {
    Words words;
    Ngrams ngrams;
    uint32_t *ids;                                /* word ids of all captions */
    size_t nids;
    Caption *captions;
    size_t ncaptions;
    Image *images;
    size_t nimages;
};

/* ---- captions to words ---- */

static Status add_word(Metrics *m, const char *s, size_t n) {
    if (m->nids >= UINT32_MAX) return err_set(ERR_MEMORY, "more than %u words in all captions", UINT32_MAX);
    if (mem_room(&m->ids, m->nids, 1, sizeof *m->ids) != OK) return ERR_MEMORY;
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
    if (mem_room(&m->captions, m->ncaptions, 1, sizeof *m->captions) != OK) return ERR_MEMORY;
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
    /* an image counts only when its candidate is in */
    if (mem_room(&m->images, m->nimages, 1, sizeof *m->images) != OK) return ERR_MEMORY;
    m->images[m->nimages] = (Image){(uint32_t)m->ncaptions, 0};
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

/* ---- scores ---- */

typedef struct {
    uint32_t length, reference;                /* words: of the candidate, of the closest reference */
    uint32_t guess[NGRAM_MAX], correct[NGRAM_MAX];
} ImageCounts;

/* BLEU of sums over images, or of one image. */
static void bleu(double length, double reference, const double *guess, const double *correct, double *out) {
    double product = 1.0, ratio = (length + TINY) / (reference + SMALL);
    for (int k = 0; k < NGRAM_MAX; k++) {
        /* as pycocoevalcap has it: no match is a tiny score, not 0 */
        product *= (correct[k] + TINY) / (guess[k] + SMALL);
        out[k] = pow(product, 1.0 / (k + 1)) * (ratio < 1.0 ? exp(1.0 - 1.0 / ratio) : 1.0);
    }
}

static Status count_documents(Metrics *m) {
    NgramAt *at = mem_new(m->nids, sizeof *at);
    Status st;
    if (!at) return ERR_MEMORY;
    for (size_t i = 0; i < m->nimages; i++) {
        for (uint32_t r = 0; r <= m->images[i].nrefs; r++) {
            Span s = m->captions[m->images[i].candidate + r].split;
            for (uint32_t k = 0; k < s.n; k++) {
                uint32_t left = s.n - k < NGRAM_MAX ? s.n - k : NGRAM_MAX;
                at[s.at + k] = (NgramAt){i & 0xFFFFFFF, r > 0, left & 7};   /* more images than that are refused */
            }
        }
    }
    st = ngrams_documents(&m->ngrams, m->ids, at, m->nids, m->words.n, m->nimages);
    free(at);
    return st;
}

static Status add_ngrams(Metrics *m, const Image *im) {
    const Caption *caption = &m->captions[im->candidate];
    size_t words = 0;
    Status st;
    for (uint32_t r = 0; r <= im->nrefs; r++) words += caption[r].split.n;
    if ((st = ngrams_begin(&m->ngrams, words))) return st;
    for (uint32_t r = 0; r <= im->nrefs; r++) ngrams_add(&m->ngrams, caption[r].split.at, caption[r].split.n);
    return OK;
}

/* CIDEr's sum over orders for one reference, whose n-grams are walked[0 .. n); keeps the largest count of each. */
static double compare(Ngrams *g, const uint32_t *walked, uint32_t n, const double *norm_c) {
    double dot[NGRAM_MAX] = {0}, norm_r[NGRAM_MAX] = {0}, sum = 0;
    for (uint32_t i = 0; i < n; i++) g->nodes[walked[i]].count++;
    for (uint32_t i = 0; i < n; i++) {
        NgramNode *x = &g->nodes[walked[i]];
        double c = x->candidate * x->idf, r = x->count * x->idf;
        dot[x->order] += (c < r ? c : r) * r;   /* 0 when this n-gram's turn has been: count is 0 then */
        norm_r[x->order] += r * r;
        if (x->count > x->most) x->most = x->count;
        x->count = 0;
    }
    for (int k = 0; k < NGRAM_MAX; k++) {
        /* as pycocoevalcap: two roots, not one of the product */
        double norms = sqrt(norm_c[k]) * sqrt(norm_r[k]);
        sum += norms > 0 ? dot[k] / norms : dot[k];
    }
    return sum;
}

static void candidate_counts(Ngrams *g, uint32_t n, double *norm_c) {
    for (uint32_t i = 0; i < n; i++) g->nodes[g->walked[i]].candidate++;
    for (uint32_t i = 0; i < g->n && g->nodes[i].candidate; i++) {
        const NgramNode *x = &g->nodes[i];
        norm_c[x->order] += (x->candidate * x->idf) * (x->candidate * x->idf);
    }
}

/* Distance of two lengths. */
static uint32_t apart(uint32_t a, uint32_t b) { return a > b ? a - b : b - a; }

/* BLEU's counts and CIDEr of an image whose n-grams have been added. */
static double score_ngrams(Metrics *m, const Image *im, ImageCounts *c) {
    Ngrams *g = &m->ngrams;
    const Caption *caption = &m->captions[im->candidate];
    uint32_t nc = caption->split.n, at = ngrams_occurrences(nc);
    double norm_c[NGRAM_MAX] = {0}, total = 0.0;

    candidate_counts(g, at, norm_c);
    for (uint32_t r = 1; r <= im->nrefs; r++) {
        uint32_t nr = caption[r].split.n, here = ngrams_occurrences(nr);
        uint32_t gap = apart(nr, nc), best = apart(c->reference, nc);
        double delta = (double)(nc ? nc - 1 : 0) - (double)(nr ? nr - 1 : 0);   /* in bigrams */
        total += compare(g, g->walked + at, here, norm_c) * exp(-delta * delta / (2 * SIGMA * SIGMA));
        at += here;
        if (r == 1 || gap < best || (gap == best && nr < c->reference)) c->reference = nr;   /* ties: the shorter */
    }
    c->length = nc;
    for (uint32_t n = 0; n < NGRAM_MAX; n++) c->guess[n] = nc > n ? nc - n : 0;
    for (uint32_t i = 0; i < g->n && g->nodes[i].candidate; i++) {
        const NgramNode *x = &g->nodes[i];
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
        if (p > precision) precision = p;                    /* the best of each, of two references maybe */
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
        if ((st = add_ngrams(m, im))) goto done;
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
        if (!images) continue;                               /* corpus scores alone */
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
    ngrams_free(&m->ngrams);
    mem_free(m->ids, m->captions, m->images, m);
}
