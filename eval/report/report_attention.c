/* report_attention: where queries look in pictures of the set; see report.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report/html.h"
#include "eval/report/report.h"
#include "eval/report/svg.h"
#include "kernels/base/mem.h"

/* ---- gathering --------------------------------------------------------------------------------------------------- */

/* "0,3,5" into numbers below `below`; returns how many, -1 when it is something else. */
static int number_list(const char *text, int64_t below, int *to, int most) {
    int n = 0;
    while (*text) {
        char *end;
        long long v = strtoll(text, &end, 10);
        if (end == text || v < 0 || v >= below || n == most || (*end && *end != ',')) return -1;
        to[n++] = (int)v;
        text = *end ? end + 1 : end;
    }
    return n;
}

/* The queries that most often decide how similar an image and its own caption are. */
static void busiest_queries(Report *r) {
    const EvalSet *s = &r->e.set;
    int64_t Q = r->e.use.d.Q, Z = r->e.use.d.Z, *wins = mem_new((size_t)Q, sizeof *wins);
    for (int64_t t = 0; wins && r->recall.retrieved && t < s->NT; t++) {
        int64_t best = 0;
        float most = -2;
        for (int64_t q = 0; q < Q; q++) {
            float v = recall_cosine(r->recall.I + (s->owner[t] * Q + q) * Z, r->recall.T + t * Z, 1, Z);
            if (v > most) most = v, best = q;
        }
        wins[best]++;
    }
    int want = Q < 4 ? (int)Q : 4;                           /* as many columns as a phone shows */
    for (r->attention.queries = 0; wins && r->attention.queries < want; r->attention.queries++) {
        int64_t best = -1;
        for (int64_t q = 0; q < Q; q++)
            if (wins[q] >= 0 && (best < 0 || wins[q] > wins[best])) best = q;
        r->attention.query[r->attention.queries] = (int)best;
        wins[best] = -1;                                     /* taken */
    }
    free(wins);
}

static Status choose_rows(Report *r) {
    const char *queries = r->o->report.queries, *layers = r->o->report.layers;
    const Dims *d = &r->e.use.d;
    ReportAttention *x = &r->attention;
    int wanted[REPORT_LAYERS], all = dims_cross_layers(d);
    if (!*queries) busiest_queries(r);
    else if ((x->queries = number_list(queries, d->Q, x->query, REPORT_QUERIES)) < 0)
        return err_set(ERR_USAGE, "report.queries=%s: wanted are up to %d numbers below %d with commas between",
                       queries, REPORT_QUERIES, d->Q);
    if (!*layers) {                      /* four at even distances, the first and the last among them */
        x->layers = all < 4 ? all : 4;
        for (int i = 0; i < x->layers; i++) x->layer[i] = x->layers > 1 ? i * (all - 1) / (x->layers - 1) : 0;
        return OK;
    }
    if ((x->layers = number_list(layers, d->L, wanted, REPORT_LAYERS)) < 0)
        return err_set(ERR_USAGE, "report.layers=%s: wanted are up to %d numbers below %d with commas between", layers,
                       REPORT_LAYERS, d->L);
    for (int i = 0; i < x->layers; i++) {
        if (!dims_is_cross(d, wanted[i]))
            return err_set(ERR_USAGE, "report.layers=%s: layer %d does not look at the image; every %d. does, from 0",
                           layers, wanted[i], d->X);
        x->layer[i] = wanted[i] / d->X;
    }
    return OK;
}

static Status attend(Report *r, int64_t n) {
    const Use *u = &r->e.use;
    EvalRows rows;
    Status st = evalrows_open(&rows, &r->e.set, u->b, n);
    for (int64_t i = 0; st == OK && i < n; i++) {
        r->attention.at[i] = (2 * i + 1) * r->e.set.NI / (2 * n);        /* at even distances */
        st = evalset_read(&r->e.set, r->attention.at[i], 1, (char *)rows.data + (size_t)i * set_row_bytes(u->set),
                          rows.scale + i * set_scales(u->set));
    }
    FeatureRows all = {rows.data, set_scaled(u->set) ? rows.scale : NULL};
    if (st == OK) st = attention_open(&r->attention.maps, u->b, &u->model, all, set_dtype(u->set), n);
    evalrows_close(&rows);
    return st;
}

Status report_attention(Report *r) {
    int64_t n = r->o->report.attention;
    int side, lead;
    if (!r->model) return OK;
    Status st = choose_rows(r);
    if (st != OK) return st;
    n = n < r->e.set.NI ? n : r->e.set.NI;
    /* after the options: a wrong one is told whatever the set is */
    if (!attention_grid(r->e.use.d.P, &side, &lead)) {
        r->attention.none = mem_format("An image has %d tokens here, which is no square of patches (with or without a "
                                       "class token), so attention cannot be laid over the picture.", r->e.use.d.P);
        return OK;
    }
    return n ? attend(r, n) : OK;
}

/* ---- the section ------------------------------------------------------------------------------------------------- */

/* One map over the picture: what is not looked at lies in the dark. w:
 * P shares of which the first `lead` are no patches. */
static void one_map(FILE *f, const Thumb *k, const float *w, int side, int lead, const char *says) {
    int n = side * side;
    float most = 0, *o = mem_new((size_t)n, sizeof *o);
    if (!o) return;
    for (int i = 0; i < n; i++) most = w[lead + i] > most ? w[lead + i] : most;
    /* over a picture the rest is veiled, not black; alone, what is looked at is dark */
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
    const ReportAttention *x = &r->attention;
    const Attention *a = &x->maps;
    int side, lead, layer = a->layer[x->layer[l]];
    char says[120];
    attention_grid(a->P, &side, &lead);
    mean_of_queries(a, image, x->layer[l], mean);
    html(f, "<span class=\"row\">layer %d%s", layer, lead ? ": " : "");
    if (lead) html(f, "%.0f %% on the class token", 100 * (double)mean[0]);
    html(f, "</span>");
    snprintf(says, sizeof says, "layer %d, all queries: spread %.0f %%", layer, 100 * attention_spread(mean, a->P));
    one_map(f, k, mean, side, lead, says);
    for (int q = 0; q < x->queries; q++) {
        const float *w = attention_row(a, image, x->layer[l], x->query[q]);
        snprintf(says, sizeof says, "layer %d, query %d: spread %.0f %%", layer, x->query[q],
                 100 * attention_spread(w, a->P));
        one_map(f, k, w, side, lead, says);
    }
}

static void look(Report *r, FILE *f, int64_t i, float *mean) {
    const Set *set = r->e.set.set;
    int64_t image = r->e.set.image[r->attention.at[i]];
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
         r->attention.queries + 1);
    for (int q = 0; q < r->attention.queries; q++)
        html(f, "<span class=\"head\">query %d</span>", r->attention.query[q]);
    const Thumb *k = thumbs_get(&r->thumbs, image);
    for (int l = 0; l < r->attention.layers; l++) map_row(r, f, i, l, k, mean);
    html(f, "</div></article>\n");
}

void report_section_attention(Report *r, FILE *f) {
    const Attention *a = &r->attention.maps;
    if (r->attention.none) html_missing(f, r->attention.none);
    else if (!r->model) report_no_model(r, f);
    else if (!a->images) html_missing(f, "No attention was asked for (report.attention=0).");
    float *mean = a->images ? mem_new((size_t)a->P, sizeof *mean) : NULL;
    if (!mean) return;
    html(f, "<p class=\"says\">Where queries look in the picture: softmax(q&#183;k / &#8730;D), the mean over %d "
            "heads, each map scaled to its largest patch; what lies under grey is not looked at. %s</p>\n",
         r->e.use.d.H,
         *r->o->report.queries
             ? "The queries are those of report.queries."
             : "Shown are the queries that most often decide how similar an image and its own text are.");
    for (int64_t i = 0; i < a->images; i++) look(r, f, i, mean);
    free(mean);
}
