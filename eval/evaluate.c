/* evaluate: see evaluate.h. */
#include "eval/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/outfile.h"
#include "kernels/base/mem.h"
#include "kernels/base/signals.h"
#include "kernels/dist/dist.h"

/* Images, texts or pairs at a time: what fills the device, and of what only so many keys fit. */
static int batch_of(const Use *u) {
    int64_t asked = u->o->use.batch;
    return asked ? (int)asked : u->b->unified ? 32 : 128;
}

static void limit_texts(Use *u, int tokens) {
    enum { LEAST = 3 };                 /* [CLS], a piece, [SEP] */
    if (!tokens) return;
    if (tokens > u->d.N) tokens = u->d.N;
    if (tokens < LEAST) tokens = LEAST;
    u->d.T = u->model.d.T = tokens;
    u->text.T = tokens;
}

Status evaluation_open(Evaluation *e, const Options *o, const EvaluationSpec *spec) {
    *e = (Evaluation){.speaks = dist_rank() == 0};
    signals_ask();
    Status st = e->speaks ? results_claim(o, spec->result, spec->beside) : OK;
    if (st == OK) st = use_open(&e->use, o, spec->data);
    if (st == OK) {
        const Use *u = &e->use;
        limit_texts(&e->use, spec->tokens);
        if (spec->split && u->set) st = evalset_open(&e->set, u->set, u->split, 0, &u->text);
        if (st == OK && u->d.W && !spec->any)
            st = err_set(ERR_USAGE, "%s is a stage-2 model, which compares nothing: caption and ask let it speak",
                         u->path);
        DType features = u->set ? set_dtype(u->set) : DT_F32;
        if (st == OK && !u->d.W) st = encoder_open(&e->enc, u->b, &u->model, batch_of(u), features);
        for (int64_t i = 0; st == OK && e->speaks && u->set && set_warning(u->set, i); i++)
            status_say("warning: %s", set_warning(u->set, i));
    }
    st = dist_agree(st);
    if (st != OK) evaluation_close(e);
    return st;
}

void evaluation_close(Evaluation *e) {
    encoder_close(&e->enc);
    evalset_close(&e->set);
    use_close(&e->use);
    *e = (Evaluation){0};
}

static bool tell(void *ctx, int64_t done, int64_t total) {
    (void)total;
    Evaluation *e = ctx;
    if (e->speaks && (!e->quiet || status_is_live())) meter_at(&e->meter, done);
    return !stop_requested();
}

EvalProgress evaluation_progress(Evaluation *e, const char *what, const char *unit, int64_t total) {
    e->meter = meter_start(what, unit, total, 0);
    return (EvalProgress){tell, e, 0, total};
}

void evaluation_progress_end(Evaluation *e, const EvalProgress *p) {
    if (e->speaks && !e->quiet) meter_end(&e->meter, p->done);
}

Status evaluation_features(Evaluation *e, float **I, float **T) {
    EvalProgress p = evaluation_progress(e, "encode", "images and texts", evalset_share(&e->set));
    Status st = evalset_encode(&e->set, &e->enc, I, T, &p);
    if (st == OK) evaluation_progress_end(e, &p);
    return st;
}

float cosine_max(const float *I, const float *T, int64_t Q, int64_t Z) {
    float best = -2;
    for (int64_t q = 0; q < Q; q++) {
        double dot = 0;
        for (int64_t z = 0; z < Z; z++) dot += (double)I[q * Z + z] * (double)T[z];
        if ((float)dot > best) best = (float)dot;
    }
    return best;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static bool ends_like(const char *path, const char *name) {
    const char *end = strrchr(name, '.');
    size_t n = strlen(path), m = end ? strlen(end) : 0;
    return m && n > m && strcmp(path + n - m, end) == 0;
}

static char *path_of(const Options *o, const char *name) {
    const char *out = o->run.out;
    return ends_like(out, name) ? mem_strdup(out) : mem_format("%s/%s", out, name);
}

Status results_claim(const Options *o, const char *name, const char *beside) {
    if (!*o->run.out || !name) return OK;
    bool lines = beside && strcmp(beside, "l") == 0, folder = !ends_like(o->run.out, name);
    char *path = path_of(o, name), *second = NULL;
    Status st = path ? outfile_claim(path, o->run.overwrite) : ERR_MEMORY;
    if (st == OK && folder) st = outfile_folder(o->run.out, strrchr(name, '.'));
    if (st == OK && beside && (lines || folder) &&
        !(second = lines ? mem_format("%sl", path) : mem_format("%s/%s", o->run.out, beside)))
        st = ERR_MEMORY;
    if (st == OK && second) st = outfile_claim(second, o->run.overwrite);
    free(path);
    free(second);
    return st;
}

Status result_path(const Options *o, const char *name, char **path) {
    *path = NULL;
    if (!*o->run.out) return OK;
    *path = path_of(o, name);
    if (!*path) return ERR_MEMORY;
    Status st = outfile_parents(*path);
    if (st != OK) {
        free(*path);
        *path = NULL;
    }
    return st;
}

/* ---- recall ------------------------------------------------------------------------------------------------------ */

void recall_print_head(void) {
    status_say("%-17s%29s   %29s", "", "image to text", "text to image");
    status_say("%-17s%7s%7s%7s%8s   %7s%7s%7s%8s", "", "R@1", "R@5", "R@10", "median", "R@1", "R@5", "R@10", "median");
}

void recall_print(const char *name, const Recall *r, bool ranks) {
    char txt[24] = "", img[24] = "";
    if (ranks) snprintf(txt, sizeof txt, "%.4g", r->txt_median);
    if (ranks) snprintf(img, sizeof img, "%.4g", r->img_median);
    status_say("%-17s%7.1f%7.1f%7.1f%8s   %7.1f%7.1f%7.1f%8s", name, r->txt_r1, r->txt_r5, r->txt_r10, txt, r->img_r1,
               r->img_r5, r->img_r10, img);
}

void recall_write(JsonWriter *w, const Recall *r, bool ranks) {
    double txt = (r->txt_r1 + r->txt_r5 + r->txt_r10) / 3, img = (r->img_r1 + r->img_r5 + r->img_r10) / 3;
    const struct { const char *key; double value; } all[] = {
        {"txt_r1", r->txt_r1}, {"txt_r5", r->txt_r5}, {"txt_r10", r->txt_r10}, {"txt_r_mean", txt},
        {"img_r1", r->img_r1}, {"img_r5", r->img_r5}, {"img_r10", r->img_r10}, {"img_r_mean", img},
        {"r_mean", 0.5 * (txt + img)}, {"agg_metrics", txt}, {"txt_median_rank", r->txt_median},
        {"txt_mean_rank", r->txt_mean}, {"img_median_rank", r->img_median}, {"img_mean_rank", r->img_mean}};
    for (size_t i = 0; i < sizeof all / sizeof *all - (ranks ? 0 : 4); i++) jw_num(w, all[i].key, all[i].value);
}
