/* report_gather: what the page is made of; see report.h. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "eval/caption.h"
#include "eval/ptb.h"
#include "eval/report.h"
#include "kernels/mem.h"
#include "train/signals.h"

void report_note(Report *r, bool grave, const char *fmt, ...) {
    char text[1200];
    va_list ap;
    if (r->notes == REPORT_NOTES) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->note[r->notes].grave = grave;
    r->note[r->notes].text = mem_strdup(text);
    r->notes += r->note[r->notes].text != NULL;
}

/* The error at hand becomes words on the page. */
static void excuse(char **to) {
    free(*to);
    *to = mem_strdup(err_message());
    err_clear();
}

/* ---- files of a run ------------------------------------------------------------------------------------------------- */

/* `in` is a run's folder, or a step directory or a file in it. */
static char *folder_of(const char *in) {
    struct stat about;
    size_t n = strlen(in);
    while (n > 1 && in[n - 1] == '/') n--;
    bool folder = stat(in, &about) == 0 && S_ISDIR(about.st_mode);
    char *path = mem_format("%.*s", (int)n, in);
    if (!path || (folder && ckpt_step_of(path) < 0)) return path;
    char *slash = strrchr(path, '/');
    if (slash) *(slash == path ? slash + 1 : slash) = 0;
    else strcpy(path, ".");
    return path;
}

static bool exists(const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    bool there = path && access(path, R_OK) == 0;
    free(path);
    return there;
}

/* A result file of a run; NULL when it is not there or cannot be read, which then becomes a note. */
static Json *result_of(Report *r, const char *folder, const char *name) {
    Json *doc = NULL;
    char *path = mem_format("%s/%s", folder, name);
    if (path && access(path, R_OK) == 0 && json_parse_file(&doc, path) != OK) {
        report_note(r, false, "%s", err_message());
        err_clear();
    }
    free(path);
    return doc;
}

static Status read_log(RunLog *l, const char *folder) {
    char *path = mem_format("%s/log.jsonl", folder);
    Status st = !path ? ERR_MEMORY : access(path, F_OK) ? OK : runlog_read(l, path);
    free(path);
    return st;
}

static Status read_run(Report *r) {
    Status st = read_log(&r->log, r->run);
    if (st != OK) return st;
    runlog_sums(&r->log, &r->sums);
    if (r->log.starts) r->config = mem_strdup(r->log.start[r->log.starts - 1].config);
    if (r->config && options_parse_text(&r->trained, "pretrain", r->config, strlen(r->config), "the run's configuration") != OK) {
        report_note(r, false, "the run's configuration cannot be read: %s", err_message());
        err_clear();
    }
    return OK;
}

/* ---- recall --------------------------------------------------------------------------------------------------------- */

static void add_recall(Report *r, const Recall *c, bool chance, bool before, const char *name) {
    if (r->lines == REPORT_ROWS) return;
    RecallLine *l = &r->line[r->lines];
    *l = (RecallLine){.name = before ? mem_format("earlier run: %s", name) : mem_strdup(name), .r = *c, .chance = chance, .before = before};
    r->lines += l->name != NULL;
}

static bool recall_of(const Json *o, Recall *c) {
    const struct { const char *key; double *to; } all[] = {
        {"txt_r1", &c->txt_r1}, {"txt_r5", &c->txt_r5}, {"txt_r10", &c->txt_r10}, {"img_r1", &c->img_r1}, {"img_r5", &c->img_r5},
        {"img_r10", &c->img_r10}, {"txt_median_rank", &c->txt_median}, {"img_median_rank", &c->img_median}};
    *c = (Recall){.txt_median = NAN, .img_median = NAN};
    bool there = true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) there = (json_num(json_get(o, all[i].key), all[i].to) || i >= 6) && there;
    return there;
}

/* The lines of a retrieval.json (or of a report.json of ours, which has the same keys). */
static int add_file(Report *r, const Json *doc, bool before) {
    static const struct { const char *key, *name; } rules[] = {
        {"chance", "chance"}, {"itc", "ITC (cosine)"}, {"itm", "re-ranked by ITM"}, {"sum", "re-ranked by ITM + ITC"}};
    int n = 0;
    for (size_t i = before ? 1 : 0; i < sizeof rules / sizeof *rules; i++) {
        Recall c;
        if (!recall_of(json_get(doc, rules[i].key), &c)) continue;
        add_recall(r, &c, i == 0, before, rules[i].name);
        n++;
    }
    return n;
}

static void gather_before(Report *r) {
    if (!r->before) return;
    if (read_log(&r->old_log, r->before) != OK) {
        report_note(r, false, "the earlier run: %s", err_message());
        err_clear();
    }
    Json *found = result_of(r, r->before, "retrieval.json"), *page = found ? NULL : result_of(r, r->before, "report.json");
    int n = add_file(r, found ? found : json_get(page, "recall"), true);
    if (!n && !r->old_log.lines) report_note(r, false, "%s has neither retrieval.json nor report.json nor log.jsonl: there is nothing to compare with", r->before);
    else if (!n) report_note(r, false, "%s has neither retrieval.json nor report.json: only its curves are compared", r->before);
    json_free(found);
    json_free(page);
}

/* By cosine, over what is looked at here. */
static Status retrieve(Report *r) {
    const EvalSet *s = &r->e.set;
    const Dims *d = &r->e.use.d;
    Status st = evaluation_features(&r->e, &r->I, &r->T);
    RecallFeatures f = {r->e.use.b, r->I, r->T, s->NI, s->NT, d->Q, d->Z};
    if (st == OK) st = retrieval_open(&r->found, recall_feature_rows, &f, s->NI, s->NT, s->owner, GALLERY_TOP, 1);
    r->retrieved = st == OK;
    return st;
}

static Status gather_recall(Report *r) {
    Json *doc = result_of(r, r->run, "retrieval.json");
    char *lists = mem_format("%s/retrieval.jsonl", r->run);
    Status st = lists ? OK : ERR_MEMORY;
    r->recall_step = -1;
    if (doc && add_file(r, doc, false)) {
        const char *split = json_str(json_get(doc, "split"), NULL), *data = json_str(json_get(doc, "data"), NULL);
        int64_t images = 0, texts = 0;
        json_int(json_get(doc, "step"), &r->recall_step);
        json_int(json_get(doc, "images"), &images);
        json_int(json_get(doc, "texts"), &texts);
        r->recall_from = mem_format("Over all %lld images and %lld captions of split %s of %s, by qformer retrieval.", (long long)images,
                                    (long long)texts, split ? split : "?", data ? data : "?");
        if (exists(r->run, "retrieval.jsonl")) {
            r->gallery_ranked = gallery_from_file(&r->gallery, lists, r->model ? r->e.use.set : NULL) == OK;
            if (!r->gallery_ranked) report_note(r, false, "the ranked lists cannot be shown: %s", err_message());
            err_clear();
        }
    }
    if (st == OK && r->model && r->e.set.NT) st = retrieve(r);
    if (st == OK && r->retrieved && !r->recall_from) {
        add_recall(r, &r->found.chance, true, false, "chance");
        add_recall(r, &r->found.recall[RANK_ITC], false, false, "ITC (cosine)");
        r->recall_from = mem_format("Over %s%lld images and %lld captions of split %s of %s, computed for this page.",
                                    r->e.set.NI < r->split_images ? "the first " : "", (long long)r->e.set.NI, (long long)r->e.set.NT,
                                    r->e.use.split, set_path(r->e.set.set));
    }
    if (st == OK && r->retrieved && !r->gallery_ranked) st = gallery_from_retrieval(&r->gallery, &r->found, &r->e.set);
    json_free(doc);
    free(lists);
    return st;
}

/* One caption each of the first images: how alike is whom. */
static void gather_heat(Report *r) {
    const EvalSet *s = &r->e.set;
    const Dims *d = &r->e.use.d;
    int64_t image[REPORT_HEAT], text[REPORT_HEAT];
    int n = 0;
    for (int64_t t = 0; r->retrieved && t < s->NT && n < REPORT_HEAT; t++)
        if (s->caption[t] == 0) image[n] = s->owner[t], text[n++] = t;
    for (int i = 0; i < n; i++) {
        float own = 0, most = -2;
        for (int j = 0; j < n; j++) {
            float v = cosine_max(r->I + image[i] * d->Q * d->Z, r->T + text[j] * d->Z, d->Q, d->Z);
            r->heat[i * n + j] = v;
            if (j == i) own = v;
            else if (v > most) most = v;
        }
        r->heat_hits += own > most;
    }
    r->heats = n > 1 ? n : 0;
}

/* ---- captions ------------------------------------------------------------------------------------------------------- */

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
            st = ptb_tokenize(ptb, own, n, &text, &n);
            if (st == OK) st = metrics_reference(m, text, n);
        }
    }
    if (st == OK && metrics_count(m)) {
        st = metrics_compute(m, &all, NULL);
        for (int i = 0; i < 4; i++) line->v[i] = all.bleu[i];
        line->v[4] = all.rouge_l, line->v[5] = all.cider;
        line->name = mem_format("greedy, %zu images, here", metrics_count(m));
        r->scores += st == OK && line->name;
    }
    metrics_free(m);
    ptb_free(ptb);
    return st;
}

/* What `qformer caption` or an earlier report found. */
static void add_scores(Report *r, const char *folder, const char *file, const char *inside, const char *name, bool before) {
    static const char *const keys[] = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"};
    Json *doc = result_of(r, folder, file);
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
        a->pairs += c->pairs, a->pairs_true += c->pairs_true, a->details += c->details, a->details_true += c->details_true;
        a->relations += c->relations, a->relations_true += c->relations_true, a->places += c->places, a->places_true += c->places_true;
        a->grounds += c->grounds, a->grounds_true += c->grounds_true, a->foreign += c->foreign;
        r->claimed.captions++;
        r->claimed.all_true += c->all_true;
    }
}

static Status make_captions(Report *r, int64_t n) {
    const Dims *d = &r->e.use.d;
    Captions c = {0};
    EvalSet some = r->e.set;                                 /* a part: only its images are looked at */
    some.NI = n;
    SearchSpec greedy = {.mode = SEARCH_GREEDY, .beams = 1, .max_length = d->N < 30 ? d->N : 30, .min_length = 1, .length_penalty = 1,
                         .repetition_penalty = 1, .temperature = 1, .top_p = 1, .start = d->dec, .end = d->sep};
    EvalProgress p = evaluation_progress(&r->e, "caption", "images", n);
    Status st = captions_make(&c, &r->e.use, &some, &greedy, r->e.enc.batch, &p);
    if (st == OK) evaluation_progress_end(&r->e, &p);
    r->claims = mem_new((size_t)n, sizeof *r->claims);
    r->judged = mem_new((size_t)n, sizeof *r->judged);
    if (st == OK && !(r->claims && r->judged)) st = ERR_MEMORY;
    if (st == OK) {
        r->caption = c.text;
        r->captions = n;
        c.text = NULL;
    }
    captions_free(&c);
    return st;
}

static Status gather_captions(Report *r) {
    int64_t n = opt_int(r->o, "report.captions"), have = r->model ? r->e.set.NI : 0;
    Status st = OK;
    n = n < have ? n : have;
    if (n) st = make_captions(r, n);
    if (st == ERR_INTERRUPTED || st == ERR_MEMORY) return st;
    if (st != OK) excuse(&r->no_captions);                   /* say, too few positions: the page goes on without */
    if (st == OK && n) {
        judge_captions(r);
        st = score_captions(r, &r->score[r->scores]);
        if (st != OK) {
            report_note(r, false, "captions are not scored: %s", err_message());
            err_clear();
        }
    }
    add_scores(r, r->run, "scores.json", "corpus", "captions.json, by qformer caption", false);
    if (r->before) {
        int had = r->scores;
        add_scores(r, r->before, "scores.json", "corpus", "earlier run: captions.json", true);
        if (r->scores == had) add_scores(r, r->before, "report.json", "scores", "earlier run: greedy", true);
    }
    return OK;
}

/* ---- attention ------------------------------------------------------------------------------------------------------ */

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
            float v = cosine_max(r->I + (s->owner[t] * Q + q) * Z, r->T + t * Z, 1, Z);
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
    const char *queries = opt_str(r->o, "report.queries"), *layers = opt_str(r->o, "report.layers");
    const Dims *d = &r->e.use.d;
    int wanted[REPORT_LAYERS], all = dims_cross_layers(d);
    if (!*queries) busiest_queries(r);
    else if ((r->queries = number_list(queries, d->Q, r->query, REPORT_QUERIES)) < 0)
        return err_set(ERR_USAGE, "report.queries=%s: wanted are up to %d numbers below %d with commas between", queries, REPORT_QUERIES, d->Q);
    if (!*layers) {
        r->layers = all < 4 ? all : 4;
        for (int i = 0; i < r->layers; i++) r->layer[i] = r->layers > 1 ? i * (all - 1) / (r->layers - 1) : 0;
        return OK;
    }
    if ((r->layers = number_list(layers, d->L, wanted, REPORT_LAYERS)) < 0)
        return err_set(ERR_USAGE, "report.layers=%s: wanted are up to %d numbers below %d with commas between", layers, REPORT_LAYERS, d->L);
    for (int i = 0; i < r->layers; i++) {
        if (!dims_is_cross(d, wanted[i])) return err_set(ERR_USAGE, "report.layers=%s: layer %d does not look at the image; every %d. does, from 0", layers, wanted[i], d->X);
        r->layer[i] = wanted[i] / d->X;
    }
    return OK;
}

static Status attend(Report *r, int64_t n) {
    const Use *u = &r->e.use;
    size_t row = set_row_bytes(u->set);
    void *features = NULL;
    float scales[REPORT_SHOWN] = {0};
    Status st = u->b->host_alloc(&features, (size_t)n * row);
    for (int64_t i = 0; st == OK && i < n; i++) {
        r->attended[i] = (2 * i + 1) * r->e.set.NI / (2 * n);        /* at even distances */
        st = evalset_read(&r->e.set, r->attended[i], 1, (char *)features + (size_t)i * row, &scales[i]);
    }
    if (st == OK) st = attention_open(&r->attention, u->b, &u->params, features, set_scaled(u->set) ? scales : NULL, set_dtype(u->set), n);
    if (features) u->b->host_release(features);
    return st;
}

static Status gather_attention(Report *r) {
    int64_t n = opt_int(r->o, "report.attention");
    int side, lead;
    if (!r->model) return OK;
    Status st = choose_rows(r);
    if (st != OK) return st;
    n = n < r->e.set.NI ? n : r->e.set.NI;
    if (!attention_grid(r->e.use.d.P, &side, &lead)) {
        r->no_attention = mem_format("An image has %d tokens here, which is no square of patches (with or without a class token), so attention cannot "
                                     "be laid over the picture.", r->e.use.d.P);
        return OK;
    }
    return n ? attend(r, n) : OK;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------ */

/* The model and at most report.limit images of the split. What the user named himself must be there. */
static Status open_model(Report *r) {
    const Options *o = r->o;
    bool named = options_is_set(o, "data.test") && *opt_str(o, "data.test");
    EvaluationSpec spec = {.data = USE_DATA, .one_process = true};
    int64_t *all = NULL;
    Status st = evaluation_open(&r->e, o, &spec);
    bool opened = st == OK;
    if (st == OK) st = set_select(r->e.use.set, r->e.use.split, &all, &r->split_images);
    free(all);
    if (st == OK) st = evalset_open(&r->e.set, r->e.use.set, r->e.use.split, opt_int(o, "report.limit"), &r->e.use.text);
    r->model = st == OK;
    if (st == OK) {
        uint64_t seeds[3] = {(uint64_t)opt_int(o, "seed"), 42, r->trained ? (uint64_t)opt_int(r->trained, "seed") : 42};
        scenes_open(&r->scenes, r->e.use.set, seeds, 3);
        thumbs_open(&r->thumbs, r->e.use.set, opt_str(o, "report.images"), &r->scenes);
        return OK;
    }
    if (named || st == ERR_MEMORY || st == ERR_INTERRUPTED) return st;
    excuse(&r->no_model);
    if (opened) evaluation_close(&r->e);
    return OK;
}

Status report_open(Report *r, const Options *o) {
    *r = (Report){.o = o};
    Status st = options_require(o, "in");
    if (st != OK) return st;
    r->run = folder_of(opt_str(o, "in"));
    if (*opt_str(o, "report.before")) r->before = folder_of(opt_str(o, "report.before"));
    if (!r->run || (*opt_str(o, "report.before") && !r->before)) return ERR_MEMORY;
    if (r->before && access(r->before, R_OK)) return err_set(ERR_USAGE, "report.before=%s: there is no such folder", r->before);
    if ((st = read_run(r)) || (st = open_model(r))) return st;
    if (!r->model && !r->log.lines && !r->log.starts && !exists(r->run, "retrieval.json"))
        return err_set(ERR_USAGE, "%s is no run: it has neither log.jsonl nor retrieval.json, and no model: %s", r->run, r->no_model ? r->no_model : "");
    if ((st = gather_recall(r))) return st;
    gather_before(r);
    gather_heat(r);
    if ((st = gather_captions(r))) return st;
    return gather_attention(r);
}

void report_close(Report *r) {
    for (int i = 0; i < r->lines; i++) free(r->line[i].name);
    for (int i = 0; i < r->scores; i++) free(r->score[i].name);
    for (int i = 0; i < r->notes; i++) free(r->note[i].text);
    for (int64_t i = 0; i < r->captions; i++) free(r->caption[i]);
    free(r->caption);
    free(r->claims);
    free(r->judged);
    free(r->I);
    free(r->T);
    free(r->run);
    free(r->before);
    free(r->config);
    free(r->no_model);
    free(r->no_captions);
    free(r->no_attention);
    free(r->recall_from);
    gallery_close(&r->gallery);
    retrieval_close(&r->found);
    attention_close(&r->attention);
    thumbs_close(&r->thumbs);
    scenes_close(&r->scenes);
    runlog_close(&r->log);
    runlog_close(&r->old_log);
    options_free(r->trained);
    evaluation_close(&r->e);
    *r = (Report){0};
}
