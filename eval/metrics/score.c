/* score: see score.h. */
#include "eval/metrics/score.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "eval/metrics/ptb.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

/* All captions as tokens, one string after another: an image's candidate, then its references, and so on. */
typedef struct {
    char *bytes;
    size_t n;
    size_t *at;              /* (captions) */
    size_t captions;
} TokenText;

/* ---- tokens ---- */

static Status tokenize_one(Ptb *ptb, TokenText *t, CocoText caption, const char *id) {
    const char *tokens;
    size_t n;
    Status st = ptb_tokenize(ptb, caption.text, caption.n, &tokens, &n);
    if (st) return err_context(st, "image %s", id);
    if (mem_room(&t->bytes, t->n, n + 1, 1) != OK) return ERR_MEMORY;  /* with the NUL: the jars take strings */
    t->at[t->captions++] = t->n;
    memcpy(t->bytes + t->n, tokens, n + 1);
    t->n += n + 1;
    return OK;
}

static Status tokenize(const Coco *coco, TokenText *t) {
    size_t captions = coco->n;
    Ptb *ptb = NULL;
    Status st = OK;
    for (size_t i = 0; i < coco->n; i++) captions += coco->images[i].nrefs;
    if (!(t->at = mem_new(captions, sizeof *t->at))) return ERR_MEMORY;
    if ((st = ptb_new(&ptb))) return st; /* one for all: its automaton grows as it meets texts */
    for (size_t i = 0; i < coco->n && !st; i++) {
        const CocoImage *im = &coco->images[i];
        st = tokenize_one(ptb, t, im->candidate, im->id);
        for (size_t r = 0; r < im->nrefs && !st; r++) st = tokenize_one(ptb, t, im->references[r], im->id);
    }
    ptb_free(ptb);
    return st;
}

static void tokens_free(TokenText *t) {
    mem_free(t->bytes, t->at);
}

/* ---- scores ---- */

/* Of the images of a domain, NULL: all of them. */
static Status compute_metrics(const TokenText *t, const Coco *coco, const char *domain, MetricScores *corpus,
                              MetricScores *images) {
    Metrics *m = NULL;
    Status st = metrics_new(&m);
    for (size_t i = 0, k = 0; i < coco->n && !st; i++) {
        const CocoImage *im = &coco->images[i];
        bool counts = !domain || (im->domain && strcmp(im->domain, domain) == 0);
        for (size_t r = 0; r <= im->nrefs && !st; r++, k++) {
            const char *text = t->bytes + t->at[k];
            size_t n = (k + 1 < t->captions ? t->at[k + 1] : t->n) - t->at[k] - 1;
            if (counts) st = r ? metrics_reference(m, text, n) : metrics_image(m, text, n);
        }
    }
    if (!st) st = metrics_compute(m, corpus, images);        /* k counts captions of all domains: places in the text */
    metrics_free(m);
    return st;
}

static Status compute_domains(const TokenText *t, Scores *s) {
    Status st = OK;
    for (size_t i = 0; i < s->coco.n; i++) {
        const char *name = s->coco.images[i].domain;
        size_t d = 0;
        while (name && d < s->domains && strcmp(s->domain[d].name, name) != 0) d++;
        if (!name || d == SCORE_DOMAINS) continue;           /* nocaps has three */
        if (d == s->domains) s->domain[s->domains++] = (DomainScores){.name = name};
        s->domain[d].n++;
    }
    for (size_t d = 0; d < s->domains && !st; d++)
        /* each by itself: CIDEr's document frequencies are those of the domain */
        st = compute_metrics(t, &s->coco, s->domain[d].name, &s->domain[d].scores, NULL);
    return st;
}

static Status run_jars(const TokenText *t, const ScoreOptions *o, Scores *s) {
    size_t n = s->coco.n;
    const char **text = mem_new(t->captions, sizeof *text);
    JarImage *images = mem_new(n, sizeof *images);
    Status st = OK;
    if (!text || !images) { st = ERR_MEMORY; goto done; }
    for (size_t k = 0; k < t->captions; k++) text[k] = t->bytes + t->at[k];  /* only now: the bytes stand still */
    for (size_t i = 0, k = 0; i < n; i++) {
        images[i] = (JarImage){text[k], text + k + 1, s->coco.images[i].nrefs};
        k += 1 + images[i].nrefs;
    }
    if (o->meteor_jar) {
        if (!(s->meteor.images = mem_new(n, sizeof(double)))) { st = ERR_MEMORY; goto done; }
        if ((st = meteor_score(o->java, o->meteor_jar, images, n, &s->meteor.corpus, s->meteor.images))) goto done;
        s->meteor.computed = true;
    }
    if (o->spice_jar) {
        if (!(s->spice.images = mem_new(n, sizeof(double)))) { st = ERR_MEMORY; goto done; }
        st = spice_score(o->java, o->spice_jar, images, n, &s->spice.corpus, s->spice.images);
        if (st) goto done;
        s->spice.computed = true;
    }
done:
    mem_free(text, images);
    return st;
}

Status score_coco(Coco *coco, const ScoreOptions *options, Scores *s) {
    TokenText tokens = {0};
    double t0 = status_clock(), t1;
    Status st;
    *s = (Scores){.coco = *coco};
    *coco = (Coco){0};                                       /* ours now, also when this fails */
    if (!(s->images = mem_new(s->coco.n, sizeof *s->images))) { st = ERR_MEMORY; goto done; }
    if ((st = tokenize(&s->coco, &tokens))) goto done;
    t1 = status_clock();
    /* told apart: the reference spends its time in a JVM here */
    s->seconds_tokenize = t1 - t0;
    if ((st = compute_metrics(&tokens, &s->coco, NULL, &s->corpus, s->images))) goto done;
    if ((st = compute_domains(&tokens, s))) goto done;
    t0 = status_clock();
    s->seconds_metrics = t0 - t1;
    if (options && (options->meteor_jar || options->spice_jar)) st = run_jars(&tokens, options, s);
    s->seconds_jars = status_clock() - t0;
done:
    tokens_free(&tokens);
    if (st) score_free(s);
    return st;
}

Status score_files(const char *gt_path, const char *res_path, const ScoreOptions *options, Scores *s) {
    Coco coco;
    Status st = coco_read(&coco, gt_path, res_path, options && options->subset);
    *s = (Scores){0};
    return st ? st : score_coco(&coco, options, s);
}

void score_free(Scores *s) {
    coco_free(&s->coco);
    mem_free(s->images, s->meteor.images, s->spice.images);
    *s = (Scores){0};
}

/* ---- output ---- */

enum { NVALUES = NGRAM_MAX + 4 };

/* In pycocoevalcap's order. */
static const char *const names[NVALUES] = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4",
                                             "METEOR", "ROUGE_L", "CIDEr", "SPICE"};

/* NaN: not computed. image SIZE_MAX: the corpus. */
static void values(const Scores *s, size_t image, double value[NVALUES]) {
    bool all = image == SIZE_MAX;
    const MetricScores *m = all ? &s->corpus : &s->images[image];
    for (int i = 0; i < NGRAM_MAX; i++) value[i] = m->bleu[i];
    value[4] = !s->meteor.computed ? NAN : all ? s->meteor.corpus : s->meteor.images[image];
    value[5] = m->rouge_l;
    value[6] = m->cider;
    value[7] = !s->spice.computed ? NAN : all ? s->spice.corpus : s->spice.images[image];
}

void score_print(const Scores *s, FILE *f) {
    double value[NVALUES];
    values(s, SIZE_MAX, value);
    fprintf(f, "%zu images\n", s->coco.n);
    for (int i = 0; i < NVALUES; i++) {
        if (isnan(value[i])) fprintf(f, "  %-8s not computed (needs its jar)\n", names[i]);
        else fprintf(f, "  %-8s %.4f\n", names[i], value[i]);
    }
    /* or the 0 looks like a bug */
    if (s->coco.n == 1)
        fputs("  CIDEr of one image is always 0: each of its n-grams is in every image there is, and weighs nothing\n",
              f);
    for (size_t d = 0; d < s->domains; d++) {
        const MetricScores *m = &s->domain[d].scores;
        fprintf(f, "  %-12.40s %6zu images   Bleu_4 %.4f   ROUGE_L %.4f   CIDEr %.4f\n", s->domain[d].name,
                s->domain[d].n, m->bleu[3], m->rouge_l, m->cider);
    }
}

static void write_domains(JsonWriter *w, const Scores *s) {
    if (!s->domains) return;
    jw_object(w, "domains");
    for (size_t d = 0; d < s->domains; d++) {
        const MetricScores *m = &s->domain[d].scores;
        jw_object(w, s->domain[d].name);
        jw_int(w, "images", (int64_t)s->domain[d].n);
        for (int i = 0; i < METRICS; i++) jw_num(w, metrics_names[i], m->v[i]);
        jw_end(w);
    }
    jw_end(w);
}

static void write_values(JsonWriter *w, const Scores *s, size_t image) {
    double value[NVALUES];
    values(s, image, value);
    for (int i = 0; i < NVALUES; i++) {
        if (isnan(value[i])) jw_null(w, names[i]);            /* 0 would be a score */
        else jw_num(w, names[i], value[i]);
    }
}

void score_json(JsonWriter *w, const void *scores) {
    const Scores *s = scores;
    jw_object(w, NULL);
    jw_object(w, "corpus");
    write_values(w, s, SIZE_MAX);
    jw_end(w);
    write_domains(w, s);
    jw_array(w, "images");
    for (size_t i = 0; i < s->coco.n; i++) {
        const CocoImage *im = &s->coco.images[i];
        jw_object(w, NULL);
        if (im->number) jw_raw(w, "image_id", im->id);
        else jw_str(w, "image_id", im->id);
        jw_strn(w, "caption", im->candidate.text, im->candidate.n);
        write_values(w, s, i);
        jw_end(w);
    }
    jw_end(w);
    jw_end(w);
}
