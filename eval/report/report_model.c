/* report_model: the parts of the page that show the model at work: recall, examples, captions,
 * attention, a batch; see report.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/settext.h"
#include "eval/report/html.h"
#include "eval/report/report.h"
#include "eval/report/svg.h"

static void missing(FILE *f, const char *why) { html(f, "<p class=\"missing\">%s</p>\n", why); }

static void no_model(const Report *r, FILE *f) {
    html(f, "<p class=\"missing\">The model and its data could not be opened: %s.</p>\n",
         r->no_model ? r->no_model : "no reason is known");
}

/* ---- recall ------------------------------------------------------------------------------------------------------ */

static void recall_table(const Report *r, FILE *f, bool texts) {
    int main = -1;
    for (int i = 0; i < r->lines; i++)
        if (!r->line[i].before && !r->line[i].chance) main = i;
    html(f,
         "<div class=\"card\"><table><caption>%s</caption><thead><tr><th></th><th scope=\"col\">R@1</th><th "
         "scope=\"col\">R@5</th><th scope=\"col\">R@10</th>"
         "<th scope=\"col\">median rank</th></tr></thead><tbody>\n",
         texts ? "Image to text" : "Text to image");
    for (int i = 0; i < r->lines; i++) {
        const RecallLine *l = &r->line[i];
        const Recall *c = &l->r;
        html(f, "<tr class=\"%s\"><th scope=\"row\">%s</th>",
             l->chance || l->before ? "quiet"
             : i == main            ? "main"
                                    : "plain",
             l->name);
        html(f, "<td>%.1f</td><td>%.1f</td><td>%.1f</td>", texts ? c->txt_r1 : c->img_r1, texts ? c->txt_r5 : c->img_r5,
             texts ? c->txt_r10 : c->img_r10);
        double median = texts ? c->txt_median : c->img_median;
        if (l->chance || !isfinite(median)) html(f, "<td></td></tr>\n");
        else html(f, "<td>%.4g</td></tr>\n", median);
    }
    html(f, "</tbody></table></div>\n");
}

static void section_recall(const Report *r, FILE *f) {
    html(f, "<section id=\"recall\"><h2>Recall</h2>\n");
    if (!r->lines) {
        if (r->model) missing(f, "None of the images of the split has a caption: there is nothing to retrieve.");
        else no_model(r, f);
    } else {
        html(f,
             "<p class=\"says\">Per cent of queries whose own partner is among the first 1, 5 and 10. %s</p>\n<div "
             "class=\"two\">\n",
             r->recall_from ? r->recall_from : "");
        recall_table(r, f, true);
        recall_table(r, f, false);
        html(f, "</div>\n");
        if (!r->before) html(f, "<p class=\"says\">report.before=FOLDER puts an earlier run beside this one.</p>\n");
    }
    html(f, "</section>\n");
}

/* ---- examples ---------------------------------------------------------------------------------------------------- */

static void rank_line(FILE *f, const GalleryQuery *q) {
    char s[HTML_NUMBER];
    if (q->rank == 0) html(f, "<p class=\"rank good\">right at first place</p>");
    else html(f, "<p class=\"rank bad\">the right one came in place %s</p>", html_count(q->rank + 1, s));
}

static void image_query(Report *r, FILE *f, const GalleryQuery *q) {
    html(f, "<article class=\"card pair\"><div>");
    thumbs_show(f, &r->thumbs, q->image, "thumb", q->text);
    html(f, "</div><div>");
    rank_line(f, q);
    html(f, "<ol class=\"ranked\">");
    for (int k = 0; k < q->n; k++) {
        const GalleryHit *h = &q->hit[k];
        char place[12];
        snprintf(place, sizeof place, "%d", k + 1);
        html(f, "<li class=\"%s\" data-mark=\"%s\">%s</li>", h->own ? "own" : "other", h->own ? "\xe2\x9c\x93" : place,
             h->text);
    }
    html(f, "</ol></div></article>\n");
}

static void text_query(Report *r, FILE *f, const GalleryQuery *q) {
    html(f, "<article class=\"card\"><p class=\"ask\">%s</p>", q->text);
    rank_line(f, q);
    html(f, "<ol class=\"strip\">");
    for (int k = 0; k < q->n; k++) {
        const GalleryHit *h = &q->hit[k];
        html(f, "<li class=\"%s\">", h->own ? "own" : "other");
        thumbs_show(f, &r->thumbs, h->image, "thumb", h->text);
        html(f, "%d%s</li>", k + 1, h->own ? " \xe2\x9c\x93" : "");
    }
    html(f, "</ol></article>\n");
}

static void examples(Report *r, FILE *f, int asks, int outcome, const char *title, const char *says) {
    const Gallery *g = &r->gallery;
    if (!g->n[asks][outcome]) return;
    html(f, "<h3>%s</h3><p class=\"says\">%s</p>\n<div class=\"grid wide\">\n", title, says);
    for (int i = 0; i < g->n[asks][outcome]; i++) {
        const GalleryQuery *q = &g->query[asks][outcome][i];
        if (!q->text) continue;
        if (asks == ASKS_IMAGE) image_query(r, f, q);
        else text_query(r, f, q);
    }
    html(f, "</div>\n");
}

static void section_gallery(Report *r, FILE *f) {
    const Gallery *g = &r->gallery;
    char a[HTML_NUMBER], b[HTML_NUMBER], c[HTML_NUMBER], d[HTML_NUMBER];
    html(f, "<section id=\"gallery\"><h2>Examples</h2>\n");
    if (!g->queries[ASKS_IMAGE] && !g->queries[ASKS_TEXT]) {
        if (r->model) missing(f, "There is nothing to retrieve in this split.");
        else no_model(r, f);
        html(f, "</section>\n");
        return;
    }
    html(f,
         "<p class=\"says\">Ranked %s. %s of %s images found an own text first, %s of %s texts their image. What went "
         "well is taken at even distances "
         "through the split, what went wrong are the worst. A tick marks what belongs together.</p>\n",
         r->gallery_ranked ? "as in retrieval.jsonl" : "by cosine", html_count(g->first[ASKS_IMAGE], a),
         html_count(g->queries[ASKS_IMAGE], b), html_count(g->first[ASKS_TEXT], c),
         html_count(g->queries[ASKS_TEXT], d));
    examples(r, f, ASKS_IMAGE, WENT_WELL, "Image to text: found", "The best texts for each picture.");
    examples(r, f, ASKS_IMAGE, WENT_WRONG, "Image to text: missed", "Where the best own text came last.");
    examples(r, f, ASKS_TEXT, WENT_WELL, "Text to image: found", "The best pictures for each text.");
    examples(r, f, ASKS_TEXT, WENT_WRONG, "Text to image: missed", "Where the own picture came last.");
    if (r->thumbs.n && !r->thumbs.found)
        missing(f, "No picture of the set was found, so names stand in their places: report.images=FOLDER says where "
                   "the files lie.");
    html(f, "</section>\n");
}

/* ---- captions ---------------------------------------------------------------------------------------------------- */

static void claim(FILE *f, const char *what, int said, int is) {
    if (!said) return;
    html(f, "<li class=\"%s\">%s %s %d/%d</li>", is == said ? "yes" : "no",
         is == said ? "\xe2\x9c\x93" : "\xe2\x9c\x97", what, is, said);
}

static void claims(FILE *f, const SynthClaims *c) {
    html(f, "<ul class=\"claims\">");
    claim(f, "coloured shapes", c->pairs, c->pairs_true);
    claim(f, "sizes, textures", c->details, c->details_true);
    claim(f, "relations", c->relations, c->relations_true);
    claim(f, "places", c->places, c->places_true);
    claim(f, "ground", c->grounds, c->grounds_true);
    html(f, "</ul>");
}

static void caption_card(Report *r, FILE *f, int64_t i) {
    const Set *set = r->e.set.set;
    int64_t image = r->e.set.image[i], n = set_ncaptions(set, image);
    html(f, "<article class=\"card pair\"><div>");
    thumbs_show(f, &r->thumbs, image, "thumb", set_image_id(set, image));
    html(f, "</div><div><p class=\"made\">%s</p>", *r->caption[i] ? r->caption[i] : "(nothing)");
    if (r->judged[i]) claims(f, &r->claims[i]);
    if (n) html(f, "<ul class=\"refs\">");
    for (int64_t k = 0; k < n && k < 5; k++) {
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

static void claims_table(const Report *r, FILE *f) {
    const Judged *j = &r->claimed;
    const SynthClaims *c = &j->sum;
    html(f, "<div class=\"card\"><table><caption>What captions say, and what is really there</caption><tbody>\n");
    share(f, "coloured shapes", c->pairs_true, c->pairs);
    share(f, "sizes and textures", c->details_true, c->details);
    share(f, "relations", c->relations_true, c->relations);
    share(f, "places", c->places_true, c->places);
    share(f, "grounds", c->grounds_true, c->grounds);
    share(f, "captions without any error", (int)j->all_true, (int)j->captions);
    html(f, "</tbody></table></div>\n");
}

static void score_table(const Report *r, FILE *f) {
    static const char *const names[] = {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"};
    html(f, "<div class=\"card\"><table class=\"scores\"><caption>Likeness to the references</caption>"
            "<thead><tr><th></th>");
    for (int i = 0; i < r->scores; i++) html(f, "<th scope=\"col\">%s</th>", r->score[i].name);
    html(f, "</tr></thead><tbody>\n");
    for (int k = 0; k < 6; k++) {
        html(f, "<tr><th scope=\"row\">%s</th>", names[k]);
        for (int i = 0; i < r->scores; i++) {
            if (isfinite(r->score[i].v[k])) html(f, "<td>%.3f</td>", r->score[i].v[k]);
            else html(f, "<td></td>");
        }
        html(f, "</tr>\n");
    }
    html(f, "</tbody></table></div>\n");
}

static void section_captions(Report *r, FILE *f) {
    html(f, "<section id=\"captions\"><h2>Captions</h2>\n");
    if (r->no_captions) html(f, "<p class=\"missing\">There are no captions: %s.</p>\n", r->no_captions);
    else if (!r->model) no_model(r, f);
    else if (!r->captions) missing(f, "No captions were asked for (report.captions=0).");
    if (r->captions)
        html(f,
             "<p class=\"says\">Generated greedily by the %s for the first %lld images of the split; under each "
             "caption the references.%s</p>\n",
             r->e.use.d.W ? "language model" : "ITG head", (long long)r->captions,
             r->claimed.captions ? " The scenes are drawn, so every claim can be checked." : "");
    if (r->claimed.captions || r->scores) {
        html(f, "<div class=\"two\">\n");
        if (r->claimed.captions) claims_table(r, f);
        if (r->scores) score_table(r, f);
        html(f, "</div>\n");
    }
    int64_t shown = r->captions < REPORT_SHOWN ? r->captions : REPORT_SHOWN;
    if (shown) html(f, "<div class=\"grid wide\" style=\"margin-top:1rem\">\n");
    for (int64_t k = 0; k < shown; k++) caption_card(r, f, k * r->captions / shown);
    if (shown) html(f, "</div>\n");
    html(f, "</section>\n");
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* One map over the picture: what is not looked at lies in the dark. w:
 * P shares of which the first `lead` are no patches. */
static void one_map(FILE *f, const Thumb *k, const float *w, int side, int lead, const char *says) {
    int n = side * side;
    float most = 0, *o = malloc((size_t)n * sizeof *o);
    if (!o) return;
    for (int i = 0; i < n; i++) most = w[lead + i] > most ? w[lead + i] : most;
    for (int i = 0; i < n; i++) o[i] = most > 0 ? (k ? 0.9f * (1 - w[lead + i] / most) : w[lead + i] / most) : 0;
    html(f, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\"><title>%s</title>", k ? k->w : side,
         k ? k->h : side, says, says);
    if (k) thumb_use(f, k);
    svg_cells(f, o, side, side, k ? k->w : side, k ? k->h : side, k ? "veil" : "shade");
    html(f, "</svg>");
    free(o);
}

static void mean_of_queries(const Attention *a, int64_t image, int64_t layer, float *to) {
    memset(to, 0, (size_t)a->P * sizeof *to);
    for (int64_t q = 0; q < a->Q; q++)
        for (int64_t k = 0; k < a->P; k++) to[k] += attention_row(a, image, layer, q)[k] / (float)a->Q;
}

static void map_row(const Report *r, FILE *f, int64_t image, int l, const Thumb *k, float *mean) {
    const Attention *a = &r->attention;
    int side, lead;
    char says[120];
    attention_grid(a->P, &side, &lead);
    mean_of_queries(a, image, r->layer[l], mean);
    html(f, "<span class=\"row\">layer %d%s", a->layer[r->layer[l]], lead ? ": " : "");
    if (lead) html(f, "%.0f %% on the class token", 100 * (double)mean[0]);
    html(f, "</span>");
    snprintf(says, sizeof says, "layer %d, all queries: spread %.0f %%", a->layer[r->layer[l]],
             100 * attention_spread(mean, a->P));
    one_map(f, k, mean, side, lead, says);
    for (int q = 0; q < r->queries; q++) {
        const float *w = attention_row(a, image, r->layer[l], r->query[q]);
        snprintf(says, sizeof says, "layer %d, query %d: spread %.0f %%", a->layer[r->layer[l]], r->query[q],
                 100 * attention_spread(w, a->P));
        one_map(f, k, w, side, lead, says);
    }
}

static void look(Report *r, FILE *f, int64_t i, float *mean) {
    const Set *set = r->e.set.set;
    int64_t image = r->e.set.image[r->attended[i]];
    size_t len;
    html(f, "<article class=\"card look\" style=\"margin-bottom:1rem\"><div>");
    thumbs_show(f, &r->thumbs, image, "thumb", set_image_id(set, image));
    if (set_ncaptions(set, image)) {
        const char *text = set_caption(set, image, 0, &len);
        html(f, "<p class=\"says\" style=\"margin-top:.4rem\">");
        html_textn(f, text, len);
        html(f, "</p>");
    }
    html(f,
         "</div><div class=\"maps\" style=\"grid-template-columns:repeat(%d,minmax(0,1fr))\"><span class=\"head\">mean "
         "of all</span>",
         r->queries + 1);
    for (int q = 0; q < r->queries; q++) html(f, "<span class=\"head\">query %d</span>", r->query[q]);
    const Thumb *k = thumbs_get(&r->thumbs, image);
    for (int l = 0; l < r->layers; l++) map_row(r, f, i, l, k, mean);
    html(f, "</div></article>\n");
}

static void section_attention(Report *r, FILE *f) {
    const Attention *a = &r->attention;
    html(f, "<section id=\"attention\"><h2>Attention</h2>\n");
    if (r->no_attention) missing(f, r->no_attention);
    else if (!r->model) no_model(r, f);
    else if (!a->images) missing(f, "No attention was asked for (report.attention=0).");
    float *mean = a->images ? malloc((size_t)a->P * sizeof *mean) : NULL;
    if (mean) {
        html(f,
             "<p class=\"says\">Where queries look in the picture: softmax(q&#183;k / &#8730;D), the mean over %d "
             "heads, each map scaled to its largest patch; what lies under "
             "grey is not looked at. %s</p>\n",
             r->e.use.d.H,
             *r->o->report.queries
                 ? "The queries are those of report.queries."
                 : "Shown are the queries that most often decide how similar an image and its own text are.");
        for (int64_t i = 0; i < a->images; i++) look(r, f, i, mean);
        free(mean);
    }
    html(f, "</section>\n");
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

static void section_batch(const Report *r, FILE *f) {
    html(f, "<section id=\"batch\"><h2>Similarity in a batch</h2>\n");
    int n = r->heats;
    if (!n) {
        if (!r->model) no_model(r, f);
        else missing(f, "Fewer than two images of the split have captions: there is no batch to compare.");
        html(f, "</section>\n");
        return;
    }
    float most = 0;
    double own = 0, other = 0;
    for (int i = 0; i < n * n; i++) {
        most = fmaxf(most, fabsf(r->heat[i]));
        *(i / n == i % n ? &own : &other) += (double)r->heat[i];
    }
    html(f,
         "<p class=\"says\">%d images (downwards) and the first caption of each (across): the largest cosine over the "
         "queries. Pairs that belong together lie on the diagonal: "
         "%.2f on average there, %.2f elsewhere. In %d of %d rows the diagonal is the largest.</p>\n",
         n, own / n, n > 1 ? other / (n * (n - 1)) : 0, r->heat_hits, n);
    svg_heat(f, r->heat, n, n, most, "Similarities of images and captions; the diagonal holds the true pairs");
    html(f, "<p class=\"ramp\"><span>-%.2f</span><i></i><span>%.2f</span></p></section>\n", (double)most, (double)most);
}

void report_model_parts(Report *r, FILE *f) {
    bool speaks = r->model && r->e.use.d.W;                  /* then nothing is compared */
    if (!speaks) section_recall(r, f);
    if (!speaks) section_gallery(r, f);
    report_section_answers(r, f);
    section_captions(r, f);
    section_attention(r, f);
    if (!speaks) section_batch(r, f);
}
