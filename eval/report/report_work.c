/* report_work: the model at work for the page: a batch of similarities,
 * captions and what they claim, attention; see report.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/settext.h"
#include "eval/caption.h"
#include "eval/metrics/ptb.h"
#include "eval/report/report.h"
#include "kernels/base/mem.h"

/* One caption each of the first images: how alike is whom. */
void report_heat(Report *r) {
    const EvalSet *s = &r->e.set;
    const Dims *d = &r->e.use.d;
    int64_t image[REPORT_HEAT], text[REPORT_HEAT];
    int n = 0;
    for (int64_t t = 0; r->retrieved && t < s->NT && n < REPORT_HEAT; t++)
        if (s->caption[t] == 0) image[n] = s->owner[t], text[n++] = t;
    for (int i = 0; i < n; i++) {
        float own = 0, most = -2;
        for (int j = 0; j < n; j++) {
            float v = recall_cosine(r->I + image[i] * d->Q * d->Z, r->T + text[j] * d->Z, d->Q, d->Z);
            r->heat[i * n + j] = v;
            if (j == i) own = v;
            else if (v > most) most = v;
        }
        r->heat_hits += own > most;
    }
    r->heats = n > 1 ? n : 0;
}

/* ---- captions ---------------------------------------------------------------------------------------------------- */

static Status score_captions(Report *r, ScoreLine *line) {
    const EvalSet *s = &r->e.set;
    Metrics *m = NULL;
    Ptb *ptb = NULL;
    MetricScores all;
    Status st = metrics_new(&m);
    if (st == OK) st = ptb_new(&ptb);
    for (int64_t i = 0; st == OK && i < r->captions; i++) {
        const char *text;
        size_t n, k = (size_t)set_ncaptions(s->set, s->image[i]);
        if (!k) continue;
        st = ptb_tokenize(ptb, r->caption[i], strlen(r->caption[i]), &text, &n);
        if (st == OK) st = metrics_image(m, text, n);
        for (size_t j = 0; st == OK && j < k; j++) {
            const char *own = set_caption(s->set, s->image[i], (int64_t)j, &n);
            if (settext_of(own, n).kind != TEXT_CAPTION) continue;
            st = ptb_tokenize(ptb, own, n, &text, &n);
            if (st == OK) st = metrics_reference(m, text, n);
        }
    }
    if (st == OK && metrics_count(m)) {
        st = metrics_compute(m, &all, NULL);
        for (int i = 0; i < 4; i++) line->v[i] = all.bleu[i];
        line->v[4] = all.rouge_l, line->v[5] = all.cider;
        line->name = mem_format("greedy, %zu images", metrics_count(m));
        r->scores += st == OK && line->name;
    }
    metrics_free(m);
    ptb_free(ptb);
    return st;
}

/* What `qformer caption` or an earlier report found. */
static void add_scores(Report *r, const char *folder, const char *file, const char *inside, const char *name,
                       bool before) {
    static const char *const keys[] = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"};
    Json *doc = report_result(r, folder, file);
    const Json *c = json_get(doc, inside);
    if (c && r->scores < 4) {
        ScoreLine *l = &r->score[r->scores];
        *l = (ScoreLine){.name = mem_strdup(name), .before = before};
        for (int i = 0; i < 6; i++)
            if (!json_num(json_get(c, keys[i]), &l->v[i])) l->v[i] = NAN;
        r->scores += l->name != NULL;
    }
    json_free(doc);
}

static void judge_captions(Report *r) {
    for (int64_t i = 0; i < r->captions; i++) {
        Scene scene;
        bool drawable;
        SynthClaims *c = &r->claims[i], *a = &r->claimed.sum;
        r->judged[i] = scenes_find(&r->scenes, r->e.set.image[i], &scene, &drawable);
        if (!r->judged[i]) continue;
        synth_check_caption(&scene, r->caption[i], c);
        a->pairs += c->pairs, a->pairs_true += c->pairs_true, a->details += c->details,
            a->details_true += c->details_true;
        a->relations += c->relations, a->relations_true += c->relations_true, a->places += c->places,
            a->places_true += c->places_true;
        a->grounds += c->grounds, a->grounds_true += c->grounds_true, a->foreign += c->foreign;
        r->claimed.captions++;
        r->claimed.all_true += c->all_true;
    }
}

static Status make_judgement(Report *r, int64_t n) {
    r->claims = mem_new((size_t)n, sizeof *r->claims);
    r->judged = mem_new((size_t)n, sizeof *r->judged);
    return r->claims && r->judged ? OK : ERR_MEMORY;
}

static Status make_captions(Report *r, int64_t n) {
    const Dims *d = &r->e.use.d;
    Captions c = {0};
    EvalSet some = r->e.set;                                 /* a part: only its images are looked at */
    some.NI = n;
    SearchSpec greedy = {.mode = SEARCH_GREEDY,
                         .beams = 1,
                         .max_length = d->N < 30 ? d->N : 30,
                         .min_length = 1,
                         .length_penalty = 1,
                         .repetition_penalty = 1,
                         .temperature = 1,
                         .top_p = 1,
                         .start = d->dec,
                         .ends = {d->sep}, .nends = 1};
    EvalProgress p = evaluation_progress(&r->e, "caption", "images", n);
    Status st = captions_make(&c, &r->e.use, &some, &greedy, r->e.enc.batch, &p);
    if (st == OK) evaluation_progress_end(&r->e, &p);
    if (st == OK) {
        r->caption = c.text;
        r->captions = n;
        c.text = NULL;
    }
    captions_free(&c);
    return st;
}

Status report_captions(Report *r) {
    int64_t n = r->o->report.captions, have = r->model ? r->e.set.NI : 0;
    Status st = OK;
    n = n < have ? n : have;
    bool speaks = r->model && r->e.use.d.W;                  /* then they are there (report_answers.c) */
    if (speaks) n = r->captions;
    if (n && !speaks) st = use_text_head(&r->e.use);
    if (st == OK && n && !speaks) st = make_captions(r, n);
    if (st == OK && n) st = make_judgement(r, n);
    if (st == ERR_INTERRUPTED || st == ERR_MEMORY) return st;
    if (st != OK) report_excuse(&r->no_captions);         /* say, too few positions: the page goes on without */
    if (st == OK && n) {
        judge_captions(r);
        st = score_captions(r, &r->score[r->scores]);
        if (st != OK) {
            report_note(r, false, "captions are not scored: %s", err_message());
            err_clear();
        }
    }
    add_scores(r, r->run, "scores.json", "corpus", "captions.json", false);
    if (r->before) {
        int had = r->scores;
        add_scores(r, r->before, "scores.json", "corpus", "earlier captions.json", true);
        if (r->scores == had) add_scores(r, r->before, "report.json", "scores", "earlier greedy", true);
    }
    return OK;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

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
    for (int64_t t = 0; wins && r->retrieved && t < s->NT; t++) {
        int64_t best = 0;
        float most = -2;
        for (int64_t q = 0; q < Q; q++) {
            float v = recall_cosine(r->I + (s->owner[t] * Q + q) * Z, r->T + t * Z, 1, Z);
            if (v > most) most = v, best = q;
        }
        wins[best]++;
    }
    int want = Q < 4 ? (int)Q : 4;
    for (r->queries = 0; wins && r->queries < want; r->queries++) {
        int64_t best = -1;
        for (int64_t q = 0; q < Q; q++)
            if (wins[q] >= 0 && (best < 0 || wins[q] > wins[best])) best = q;
        r->query[r->queries] = (int)best;
        wins[best] = -1;
    }
    free(wins);
}

static Status choose_rows(Report *r) {
    const char *queries = r->o->report.queries, *layers = r->o->report.layers;
    const Dims *d = &r->e.use.d;
    int wanted[REPORT_LAYERS], all = dims_cross_layers(d);
    if (!*queries) busiest_queries(r);
    else if ((r->queries = number_list(queries, d->Q, r->query, REPORT_QUERIES)) < 0)
        return err_set(ERR_USAGE, "report.queries=%s: wanted are up to %d numbers below %d with commas between",
                       queries, REPORT_QUERIES, d->Q);
    if (!*layers) {
        r->layers = all < 4 ? all : 4;
        for (int i = 0; i < r->layers; i++) r->layer[i] = r->layers > 1 ? i * (all - 1) / (r->layers - 1) : 0;
        return OK;
    }
    if ((r->layers = number_list(layers, d->L, wanted, REPORT_LAYERS)) < 0)
        return err_set(ERR_USAGE, "report.layers=%s: wanted are up to %d numbers below %d with commas between", layers,
                       REPORT_LAYERS, d->L);
    for (int i = 0; i < r->layers; i++) {
        if (!dims_is_cross(d, wanted[i]))
            return err_set(ERR_USAGE, "report.layers=%s: layer %d does not look at the image; every %d. does, from 0",
                           layers, wanted[i], d->X);
        r->layer[i] = wanted[i] / d->X;
    }
    return OK;
}

static Status attend(Report *r, int64_t n) {
    const Use *u = &r->e.use;
    EvalRows rows;
    Status st = evalrows_open(&rows, &r->e.set, u->b, n);
    for (int64_t i = 0; st == OK && i < n; i++) {
        r->attended[i] = (2 * i + 1) * r->e.set.NI / (2 * n);        /* at even distances */
        st = evalset_read(&r->e.set, r->attended[i], 1, (char *)rows.data + (size_t)i * set_row_bytes(u->set),
                          rows.scale + i * set_scales(u->set));
    }
    FeatureRows all = {rows.data, set_scaled(u->set) ? rows.scale : NULL};
    if (st == OK) st = attention_open(&r->attention, u->b, &u->model, all, set_dtype(u->set), n);
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
    if (!attention_grid(r->e.use.d.P, &side, &lead)) {
        r->no_attention = mem_format("An image has %d tokens here, which is no square of patches (with or without a "
                                     "class token), so attention cannot "
                                     "be laid over the picture.",
                                     r->e.use.d.P);
        return OK;
    }
    return n ? attend(r, n) : OK;
}
