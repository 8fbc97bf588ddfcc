/* report_recall: what of a stage-1 model's comparisons goes on the page: recall from the run's files or computed here,
 * queries with their best hits, the similarities of a batch; see report.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report/html.h"
#include "eval/report/report.h"
#include "eval/report/svg.h"
#include "kernels/base/mem.h"

/* ---- gathering --------------------------------------------------------------------------------------------------- */

/* Ordered from what knows least to what knows most: the last line of a run is its best ranking. */
static const struct { const char *key, *name; } rules[] = {
    {"chance", "chance"}, {"itc", "ITC (cosine)"}, {"itm", "re-ranked by ITM"}, {"sum", "re-ranked by ITM + ITC"}};

static void add_recall(ReportRecall *r, const Recall *c, int rule, bool before) {
    if (r->lines == REPORT_ROWS) return;
    const char *name = rules[rule].name;
    RecallLine *l = &r->line[r->lines];
    *l = (RecallLine){.key = rules[rule].key, .name = before ? mem_format("earlier run: %s", name) : mem_strdup(name),
                      .r = *c, .chance = rule == 0, .before = before};
    r->lines += l->name != NULL;
}

/* Files of chance have no median. */
static bool recall_of(const Json *o, Recall *c) {
    const struct { const char *key; double *to; } all[] = {
        {"txt_r1", &c->txt_r1}, {"txt_r5", &c->txt_r5}, {"txt_r10", &c->txt_r10}, {"img_r1", &c->img_r1},
        {"img_r5", &c->img_r5}, {"img_r10", &c->img_r10}, {"txt_median_rank", &c->txt_median},
        {"img_median_rank", &c->img_median}};
    *c = (Recall){.txt_median = NAN, .img_median = NAN};
    bool there = true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        there = (json_num(json_get(o, all[i].key), all[i].to) || i >= 6) && there;
    return there;
}

/* The lines of a retrieval.json (or of a report.json of ours, which has the same keys). */
static int add_file(ReportRecall *r, const Json *doc, bool before) {
    int n = 0;
    for (int i = before ? 1 : 0; i < (int)(sizeof rules / sizeof *rules); i++) {
        Recall c;
        if (!recall_of(json_get(doc, rules[i].key), &c)) continue;
        add_recall(r, &c, i, before);
        n++;
    }
    return n;
}

static void gather_before(Report *r) {
    if (!r->run.before) return;
    Json *found = report_result(r, r->run.before, "retrieval.json"),
         /* a run that was only reported has its figures there */
         *page = found ? NULL : report_result(r, r->run.before, "report.json");
    int n = add_file(&r->recall, found ? found : json_get(page, "recall"), true);
    if (!n && !r->run.old.lines)
        report_note(r, false,
                    "%s has neither retrieval.json nor report.json nor log.jsonl: there is nothing to compare with",
                    r->run.before);
    else if (!n)
        report_note(r, false, "%s has neither retrieval.json nor report.json: only its curves are compared",
                    r->run.before);
    json_free(found);
    json_free(page);
}

/* By cosine, over what is looked at here. */
static Status retrieve(Report *r) {
    const EvalSet *s = &r->e.set;
    const Dims *d = &r->e.use.d;
    Status st = evaluation_features(&r->e, &r->recall.I, &r->recall.T);
    RecallFeatures f = {r->e.use.b, r->recall.I, r->recall.T, s->NI, s->NT, d->Q, d->Z};
    if (st == OK)
        st = retrieval_open(&r->recall.found, recall_feature_rows, &f, s->NI, s->NT, s->owner, GALLERY_TOP, 1);
    r->recall.retrieved = st == OK;
    return st;
}

/* What qformer retrieval left in the run's folder. */
static Status gather_files(Report *r) {
    ReportRecall *x = &r->recall;
    Json *doc = report_result(r, r->run.folder, "retrieval.json");
    char *lists = mem_format("%s/retrieval.jsonl", r->run.folder);
    int64_t images = 0, texts = 0;
    if (!lists || !doc || !add_file(x, doc, false)) goto done;
    const char *split = json_str(json_get(doc, "split"), NULL), *data = json_str(json_get(doc, "data"), NULL);
    json_int(json_get(doc, "step"), &x->step);
    json_int(json_get(doc, "images"), &images);
    json_int(json_get(doc, "texts"), &texts);
    x->from = mem_format("Over all %lld images and %lld captions of split %s of %s, by qformer retrieval.",
                         (long long)images, (long long)texts, split ? split : "?", data ? data : "?");
    if (!report_has(r->run.folder, "retrieval.jsonl")) goto done;
    /* a broken file costs the page its section, not the page */
    x->ranked = gallery_from_file(&x->gallery, lists, r->model ? r->e.use.set : NULL) == OK;
    if (!x->ranked) report_note_error(r, "the ranked lists cannot be shown: ");
done:
    json_free(doc);
    free(lists);
    return lists ? OK : ERR_MEMORY;
}

/* One caption each of the first images: how alike is whom. */
static void gather_heat(Report *r) {
    const EvalSet *s = &r->e.set;
    const Dims *d = &r->e.use.d;
    int64_t image[REPORT_HEAT], text[REPORT_HEAT];
    int n = 0;
    for (int64_t t = 0; r->recall.retrieved && t < s->NT && n < REPORT_HEAT; t++)
        if (s->caption[t] == 0) image[n] = s->owner[t], text[n++] = t;  /* images without a caption are passed over */
    for (int i = 0; i < n; i++) {
        float own = 0, most = -2;                            /* below any cosine */
        for (int j = 0; j < n; j++) {
            float v = recall_cosine(r->recall.I + image[i] * d->Q * d->Z, r->recall.T + text[j] * d->Z, d->Q, d->Z);
            r->recall.heat[i * n + j] = v;
            if (j == i) own = v;
            else if (v > most) most = v;
        }
        r->recall.hits += own > most;
    }
    r->recall.heats = n > 1 ? n : 0;
}

Status report_recall(Report *r) {
    ReportRecall *x = &r->recall;
    x->step = -1;
    Status st = gather_files(r);
    /* also when files are there: examples and heat are of the model at hand */
    if (st == OK && r->model && r->e.set.NT && !r->speaks) st = retrieve(r);
    if (st == OK && x->retrieved && !x->from) {
        add_recall(x, &x->found.chance, 0, false);
        add_recall(x, &x->found.recall[RANK_ITC], 1, false);
        x->from = mem_format("Over %s%lld images and %lld captions of split %s of %s, computed for this page.",
                             r->e.set.NI < r->split_images ? "the first " : "", (long long)r->e.set.NI,
                             (long long)r->e.set.NT, r->e.use.split, set_path(r->e.set.set));
    }
    if (st == OK && x->retrieved && !x->ranked) st = gallery_from_retrieval(&x->gallery, &x->found, &r->e.set);
    if (st != OK) return st;
    gather_before(r);
    gather_heat(r);
    return OK;
}

RecallBest report_recall_best(const Report *r) {
    RecallBest best = {NULL, NULL};
    for (int i = 0; i < r->recall.lines; i++) {
        const RecallLine *l = &r->recall.line[i];
        if (!l->before) *(l->chance ? &best.chance : &best.main) = l;
    }
    return best;
}

/* ---- recall ------------------------------------------------------------------------------------------------------ */

static void recall_table(const Report *r, FILE *f, bool texts) {
    int main = -1;
    for (int i = 0; i < r->recall.lines; i++)
        if (!r->recall.line[i].before && !r->recall.line[i].chance) main = i;
    html(f,
         "<div class=\"card\"><table><caption>%s</caption><thead><tr><th></th><th scope=\"col\">R@1</th><th "
         "scope=\"col\">R@5</th><th scope=\"col\">R@10</th>"
         "<th scope=\"col\">median rank</th></tr></thead><tbody>\n",
         texts ? "Image to text" : "Text to image");
    for (int i = 0; i < r->recall.lines; i++) {
        const RecallLine *l = &r->recall.line[i];
        const Recall *c = &l->r;
        html(f, "<tr class=\"%s\"><th scope=\"row\">%s</th>",
             l->chance || l->before ? "quiet" : i == main ? "main" : "plain", l->name);
        html(f, "<td>%.1f</td><td>%.1f</td><td>%.1f</td>", texts ? c->txt_r1 : c->img_r1, texts ? c->txt_r5 : c->img_r5,
             texts ? c->txt_r10 : c->img_r10);
        double median = texts ? c->txt_median : c->img_median;
        if (l->chance || !isfinite(median)) html(f, "<td></td></tr>\n");
        else html(f, "<td>%.4g</td></tr>\n", median);
    }
    html(f, "</tbody></table></div>\n");
}

void report_section_recall(Report *r, FILE *f) {
    if (!r->recall.lines && !r->model) report_no_model(r, f);
    else if (!r->recall.lines)
        html_missing(f, "None of the images of the split has a caption: there is nothing to retrieve.");
    if (!r->recall.lines) return;
    html(f, "<p class=\"says\">Per cent of queries whose own partner is among the first 1, 5 and 10. %s</p>\n<div "
         "class=\"two\">\n", r->recall.from ? r->recall.from : "");
    recall_table(r, f, true);
    recall_table(r, f, false);
    html(f, "</div>\n");
    if (!r->run.before) html(f, "<p class=\"says\">report.before=FOLDER puts an earlier run beside this one.</p>\n");
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
        snprintf(place, sizeof place, "%d", k + 1);          /* marks are drawn by the style sheet */
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
    const Gallery *g = &r->recall.gallery;
    if (!g->n[asks][outcome]) return;
    html(f, "<h3>%s</h3><p class=\"says\">%s</p>\n<div class=\"grid wide\">\n", title, says);
    for (int i = 0; i < g->n[asks][outcome]; i++) {
        const GalleryQuery *q = &g->query[asks][outcome][i];
        if (!q->text) continue;                              /* a hit of a file that changed meanwhile */
        if (asks == ASKS_IMAGE) image_query(r, f, q);
        else text_query(r, f, q);
    }
    html(f, "</div>\n");
}

void report_section_gallery(Report *r, FILE *f) {
    const Gallery *g = &r->recall.gallery;
    char a[HTML_NUMBER], b[HTML_NUMBER], c[HTML_NUMBER], d[HTML_NUMBER];
    bool none = !g->queries[ASKS_IMAGE] && !g->queries[ASKS_TEXT];
    if (none && r->model) html_missing(f, "There is nothing to retrieve in this split.");
    else if (none) report_no_model(r, f);
    if (none) return;
    html(f,
         "<p class=\"says\">Ranked %s. %s of %s images found an own text first, %s of %s texts their image. What went "
         "well is taken at even distances "
         "through the split, what went wrong are the worst. A tick marks what belongs together.</p>\n",
         r->recall.ranked ? "as in retrieval.jsonl" : "by cosine", html_count(g->first[ASKS_IMAGE], a),
         html_count(g->queries[ASKS_IMAGE], b), html_count(g->first[ASKS_TEXT], c),
         html_count(g->queries[ASKS_TEXT], d));
    examples(r, f, ASKS_IMAGE, WENT_WELL, "Image to text: found", "The best texts for each picture.");
    examples(r, f, ASKS_IMAGE, WENT_WRONG, "Image to text: missed", "Where the best own text came last.");
    examples(r, f, ASKS_TEXT, WENT_WELL, "Text to image: found", "The best pictures for each text.");
    examples(r, f, ASKS_TEXT, WENT_WRONG, "Text to image: missed", "Where the own picture came last.");
    /* one missing picture is a gap, all of them a wrong folder */
    if (r->thumbs.n && !r->thumbs.found)
        html_missing(f, "No picture of the set was found, so names stand in their places: report.images=FOLDER says "
                        "where the files lie.");
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

void report_section_batch(Report *r, FILE *f) {
    int n = r->recall.heats;
    if (!r->model) report_no_model(r, f);
    else if (!n) html_missing(f, "Fewer than two images of the split have captions: there is no batch to compare.");
    if (!n) return;
    float most = 0;
    double own = 0, other = 0;
    for (int i = 0; i < n * n; i++) {
        most = fmaxf(most, fabsf(r->recall.heat[i]));        /* shades are of the strongest, either way */
        *(i / n == i % n ? &own : &other) += (double)r->recall.heat[i];
    }
    html(f,
         "<p class=\"says\">%d images (downwards) and the first caption of each (across): the largest cosine over the "
         "queries. Pairs that belong together lie on the diagonal: "
         "%.2f on average there, %.2f elsewhere. In %d of %d rows the diagonal is the largest.</p>\n",
         n, own / n, n > 1 ? other / (n * (n - 1)) : 0, r->recall.hits, n);
    svg_heat(f, r->recall.heat, n, n, most, "Similarities of images and captions; the diagonal holds the true pairs");
    html(f, "<p class=\"ramp\"><span>-%.2f</span><i></i><span>%.2f</span></p>\n", (double)most, (double)most);
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

void report_write_recall(JsonWriter *w, const Report *r) {
    jw_object(w, "recall");
    for (int i = 0; i < r->recall.lines; i++) {
        const RecallLine *l = &r->recall.line[i];
        if (l->before) continue;
        jw_object(w, l->key);
        jw_num(w, "txt_r1", l->r.txt_r1), jw_num(w, "txt_r5", l->r.txt_r5), jw_num(w, "txt_r10", l->r.txt_r10);
        jw_num(w, "img_r1", l->r.img_r1), jw_num(w, "img_r5", l->r.img_r5), jw_num(w, "img_r10", l->r.img_r10);
        if (!l->chance) report_number(w, "txt_median_rank", l->r.txt_median);
        if (!l->chance) report_number(w, "img_median_rank", l->r.img_median);
        jw_end(w);
    }
    jw_end(w);
}
