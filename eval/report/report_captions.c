/* report_captions: what the model writes about pictures: captions beside their references, what of their claims is true
 * where the scenes are drawn, and their scores; see report.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/settext.h"
#include "eval/caption.h"
#include "eval/metrics/ptb.h"
#include "eval/report/html.h"
#include "eval/report/report.h"
#include "kernels/base/mem.h"

enum { LONGEST = 30 };                  /* tokens of a caption, as caption.max_length has it */

/* ---- gathering --------------------------------------------------------------------------------------------------- */

static Status score_captions(Report *r, ScoreLine *line) {
    const EvalSet *s = &r->e.set;
    Metrics *m = NULL;
    Ptb *ptb = NULL;
    MetricScores all;
    Status st = metrics_new(&m);
    if (st == OK) st = ptb_new(&ptb);
    for (int64_t i = 0; st == OK && i < r->captions.n; i++) {
        const char *text;
        size_t n, k = (size_t)set_ncaptions(s->set, s->image[i]);
        if (!k) continue;                                    /* nothing to compare with */
        st = ptb_tokenize(ptb, r->captions.text[i], strlen(r->captions.text[i]), &text, &n);
        if (st == OK) st = metrics_image(m, text, n);
        for (size_t j = 0; st == OK && j < k; j++) {
            const char *own = set_caption(s->set, s->image[i], (int64_t)j, &n);
            if (settext_of(own, n).kind != TEXT_CAPTION) continue;  /* a question is no reference */
            st = ptb_tokenize(ptb, own, n, &text, &n);
            if (st == OK) st = metrics_reference(m, text, n);
        }
    }
    if (st == OK && metrics_count(m)) {
        st = metrics_compute(m, &all, NULL);
        memcpy(line->v, all.v, sizeof line->v);
        line->name = mem_format("greedy, %zu images", metrics_count(m));
        r->captions.scores += st == OK && line->name;
    }
    metrics_free(m);
    ptb_free(ptb);
    return st;
}

/* What `qformer caption` or an earlier report found. */
static void add_scores(Report *r, const char *folder, const char *file, const char *inside, const char *name,
                       bool before) {
    Json *doc = report_result(r, folder, file);
    const Json *c = json_get(doc, inside);
    if (c && r->captions.scores < 4) {                       /* columns: more do not fit a phone */
        ScoreLine *l = &r->captions.score[r->captions.scores];
        *l = (ScoreLine){.name = mem_strdup(name), .before = before};
        for (int i = 0; i < METRICS; i++)
            if (!json_num(json_get(c, metrics_names[i]), &l->v[i])) l->v[i] = NAN;
        r->captions.scores += l->name != NULL;
    }
    json_free(doc);
}

static Status judge_captions(Report *r) {
    ReportCaptions *x = &r->captions;
    x->claims = mem_new((size_t)x->n, sizeof *x->claims);
    x->judged = mem_new((size_t)x->n, sizeof *x->judged);
    if (!x->claims || !x->judged) return ERR_MEMORY;
    for (int64_t i = 0; i < x->n; i++) {
        Scene scene;
        bool drawable;
        SynthClaims *c = &x->claims[i];
        x->judged[i] = scenes_find(&r->scenes, r->e.set.image[i], &scene, &drawable);
        if (!x->judged[i]) continue; /* not a drawn picture: nobody knows what is true of it */
        synth_check_caption(&scene, x->text[i], c);
#define X(name, ...) x->sum.name += c->name, x->sum.name##_true += c->name##_true;
        REPORT_CLAIMS(X)
#undef X
        x->known++;
        x->all_true += c->all_true;
    }
    return OK;
}

static Status make_captions(Report *r, int64_t n) {
    const Dims *d = &r->e.use.d;
    Captions c = {0};
    EvalSet some = r->e.set;                                 /* a part: only its images are looked at */
    some.NI = n;                                             /* its other figures are of all: nobody looks at them */
    SearchSpec greedy = search_greedy(d->N < LONGEST ? d->N : LONGEST, 1);
    greedy.start = d->dec, greedy.ends[0] = d->sep, greedy.nends = 1;
    EvalProgress p = evaluation_progress(&r->e, "caption", "images", n);
    Status st = captions_make(&c, &r->e.use, &some, &greedy, r->e.enc.batch, &p);
    if (st == OK) evaluation_progress_end(&r->e, &p);
    if (st == OK) {
        r->captions.text = c.text;
        r->captions.n = n;
        c.text = NULL;                                       /* ours now */
    }
    captions_free(&c);
    return st;
}

Status report_captions(Report *r) {
    ReportCaptions *x = &r->captions;
    int64_t have = r->model ? r->e.set.NI : 0, n = r->o->report.captions < have ? r->o->report.captions : have;
    bool made = r->speaks;               /* then they are there (report_answers.c) */
    if (made) n = x->n;
    Status st = n && !made ? use_text_head(&r->e.use) : OK;
    if (st == OK && n && !made) st = make_captions(r, n);
    if (st == OK && n) st = judge_captions(r);
    if (st == ERR_INTERRUPTED || st == ERR_MEMORY) return st;
    if (st != OK) report_excuse(&x->none);                   /* say, too few positions: the page goes on without */
    else if (n && score_captions(r, &x->score[x->scores]) != OK) report_note_error(r, "captions are not scored: ");
    add_scores(r, r->run.folder, "scores.json", "corpus", "captions.json", false);
    if (r->run.before) {
        /* an earlier scores.json is of all images: better than ten of a page */
        int had = x->scores;
        add_scores(r, r->run.before, "scores.json", "corpus", "earlier captions.json", true);
        if (x->scores == had) add_scores(r, r->run.before, "report.json", "scores", "earlier greedy", true);
    }
    return OK;
}

/* ---- the section ------------------------------------------------------------------------------------------------- */

static void claim(FILE *f, const char *what, int said, int is) {
    if (!said) return;
    html(f, "<li class=\"%s\">%s %s %d/%d</li>", is == said ? "yes" : "no",
         is == said ? "\xe2\x9c\x93" : "\xe2\x9c\x97", what, is, said);
}

static void claims(FILE *f, const SynthClaims *c) {
    html(f, "<ul class=\"claims\">");
#define X(name, list, ...) claim(f, list, c->name, c->name##_true);
    REPORT_CLAIMS(X)
#undef X
    html(f, "</ul>");
}

static void caption_card(Report *r, FILE *f, int64_t i) {
    const Set *set = r->e.set.set;
    int64_t image = r->e.set.image[i], n = set_ncaptions(set, image);
    html(f, "<article class=\"card pair\"><div>");
    thumbs_show(f, &r->thumbs, image, "thumb", set_image_id(set, image));
    /* a model may end at once */
    html(f, "</div><div><p class=\"made\">%s</p>", *r->captions.text[i] ? r->captions.text[i] : "(nothing)");
    if (r->captions.judged[i]) claims(f, &r->captions.claims[i]);
    if (n) html(f, "<ul class=\"refs\">");
    for (int64_t k = 0; k < n && k < 5; k++) {               /* COCO has five */
        size_t len;
        const char *text = set_caption(set, image, k, &len);
        if (settext_of(text, len).kind != TEXT_CAPTION) continue;
        html(f, "<li>");
        html_textn(f, text, len);
        html(f, "</li>");
    }
    if (n) html(f, "</ul>");
    html(f, "</div></article>\n");
}

static void share(FILE *f, const char *what, int is, int said) {
    if (said)
        html(f, "<tr><th scope=\"row\">%s</th><td>%.1f %%</td><td>%d of %d</td></tr>\n", what, 100.0 * is / said, is,
             said);
}

static void claims_table(const ReportCaptions *x, FILE *f) {
    html(f, "<div class=\"card\"><table><caption>What captions say, and what is really there</caption><tbody>\n");
#define X(name, list, title, ...) share(f, title, x->sum.name##_true, x->sum.name);
    REPORT_CLAIMS(X)
#undef X
    share(f, "captions without any error", (int)x->all_true, (int)x->known);
    html(f, "</tbody></table></div>\n");
}

static void score_table(const Report *r, FILE *f) {
    static const char *const names[] = {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"};
    html(f, "<div class=\"card\"><table class=\"scores\"><caption>Likeness to the references</caption>"
            "<thead><tr><th></th>");
    for (int i = 0; i < r->captions.scores; i++) html(f, "<th scope=\"col\">%s</th>", r->captions.score[i].name);
    html(f, "</tr></thead><tbody>\n");
    for (int k = 0; k < METRICS; k++) {
        html(f, "<tr><th scope=\"row\">%s</th>", names[k]);
        for (int i = 0; i < r->captions.scores; i++) html_cell(f, "%.3f", r->captions.score[i].v[k]);
        html(f, "</tr>\n");
    }
    html(f, "</tbody></table></div>\n");
}

void report_section_captions(Report *r, FILE *f) {
    if (r->captions.none) html(f, "<p class=\"missing\">There are no captions: %s.</p>\n", r->captions.none);
    else if (!r->model) report_no_model(r, f);
    else if (!r->captions.n) html_missing(f, "No captions were asked for (report.captions=0).");
    if (r->captions.n)
        html(f,
             "<p class=\"says\">Generated greedily by the %s for the first %lld images of the split; under each "
             "caption the references.%s</p>\n",
             r->e.use.d.W ? "language model" : "ITG head", (long long)r->captions.n,
             r->captions.known ? " The scenes are drawn, so every claim can be checked." : "");
    if (r->captions.known || r->captions.scores) {
        html(f, "<div class=\"two\">\n");
        if (r->captions.known) claims_table(&r->captions, f);
        if (r->captions.scores) score_table(r, f);
        html(f, "</div>\n");
    }
    int64_t shown = r->captions.n < REPORT_SHOWN ? r->captions.n : REPORT_SHOWN;
    if (shown) html(f, "<div class=\"grid wide\" style=\"margin-top:1rem\">\n");
    for (int64_t k = 0; k < shown; k++) caption_card(r, f, k * r->captions.n / shown);
    if (shown) html(f, "</div>\n");
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

static void write_share(JsonWriter *w, const char *key, int64_t is, int64_t said) {
    jw_object(w, key);
    jw_int(w, "said", said);
    jw_int(w, "true", is);
    if (said) jw_num(w, "percent", 100.0 * (double)is / (double)said);
    jw_end(w);
}

/* Scores of an earlier file are that file's: only those of this page's captions are written. */
void report_write_captions(JsonWriter *w, const Report *r) {
    const ReportCaptions *x = &r->captions;
    jw_int(w, "captions", x->n);
    if (x->n && x->scores && !x->score[0].before && strncmp(x->score[0].name, "greedy", 6) == 0) {
        jw_object(w, "scores");
        for (int i = 0; i < METRICS; i++) report_number(w, metrics_names[i], x->score[0].v[i]);
        jw_end(w);
    }
    if (!x->known) return;
    jw_object(w, "claims");
    jw_int(w, "captions", x->known);
    jw_int(w, "all_true", x->all_true);
#define X(name, list, title, key) write_share(w, key, x->sum.name##_true, x->sum.name);
    REPORT_CLAIMS(X)
#undef X
    jw_end(w);
}
