/* cmd_score: the metrics of results that lie in files: captions against what people wrote (score.h), answers against
 * theirs (vqa.h), or recall of a matrix of similarities (retrieval.h). Needs no model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "configs/commands.h"
#include "data/format/npy.h"
#include "eval/metrics/score.h"
#include "eval/metrics/vqa.h"
#include "eval/result.h"
#include "eval/retrieval.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

/* ---- captions ---------------------------------------------------------------------------------------------------- */

static const char *given(const char *text) { return *text ? text : NULL; }

static Status score_captions(const Options *o, const char *res) {
    ScoreOptions how = {.subset = o->score.subset, .java = given(o->score.java),
                        .meteor_jar = given(o->score.meteor_jar), .spice_jar = given(o->score.spice_jar)};
    Scores s;
    Status st = score_files(o->run.gt, res, &how, &s);
    if (st != OK) return st;
    score_print(&s, stdout);
    st = result_write(o, "scores.json", score_json, &s);
    score_free(&s);
    return st;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

/* A result file holds answers when its first entry has one. */
static Status first_entry(void *ctx, int64_t i, const Json *item) {
    bool *answers = ctx;
    (void)i;
    bool asked = !json_get(item, "image_id") || json_get(item, "question_id") || json_get(item, "questionId");
    *answers = json_get(item, "answer") || (asked && json_get(item, "prediction")) || json_get(item, "direct_answer");
    return ERR_INTERRUPTED;              /* ends the walk */
}

static Status holds_answers(const Options *o, const char *path, bool *answers) {
    struct stat sb;
    *answers = o->score.rule.i != VQA_RULE_FOUND;            /* who names a rule means answers */
    if (*answers || stat(path, &sb) || !S_ISREG(sb.st_mode)) return OK;       /* a pipe can be read once */
    /* what caption writes to x.csv is a likely slip */
    const char *dot = strrchr(path, '.');
    if (dot && (!strcmp(dot, ".csv") || !strcmp(dot, ".tsv")))
        return err_set(ERR_USAGE, "%s: a table; captions are scored from JSON (caption out=x.json writes it)", path);
    Status st = json_each(path, first_entry, answers);
    if (st == ERR_INTERRUPTED) err_clear();                  /* our own end of the walk */
    return st == ERR_INTERRUPTED ? OK : st;
}

static Status score_answers(const Options *o, const char *res) {
    /* ORDER score.rule */
    static const VqaRule rules[] = {VQA_RULE_FOUND, VQA_RULE_VQA, VQA_RULE_EXACT, VQA_RULE_DIRECT};
    VqaScores s;
    Status st = vqa_score(&s, o->run.gt, res, rules[o->score.rule.i]);
    if (st != OK) return st;
    vqa_print(&s, stdout);
    st = result_write(o, "scores.json", vqa_json, &s);
    vqa_free(&s);
    return st;
}

/* ---- a matrix ---------------------------------------------------------------------------------------------------- */

typedef struct { const char *path; int64_t NI, NT; } Matrix;

static Status open_matrix(const char *path, NpyFile **f) {
    Status st = npy_open(f, path);
    if (st != OK) return st;
    const NpyArray *a = npy_array(*f);
    if (a->ndim == 2 && (a->dtype == DT_F32 || a->dtype == DT_F64 || a->dtype == DT_F16 || a->dtype == DT_BF16))
        return OK;
    st = err_set(ERR_FORMAT, "%s holds %d dimensions of %s; similarities are 2, images by texts, of f2, f4 or f8", path,
                 a->ndim, dtype_name(a->dtype));
    npy_close(*f);
    *f = NULL;
    return st;
}

/* A row at a time, each time from the beginning (RecallSource). */
static Status matrix_rows(void *source, RecallRow *row, void *ctx) {
    const Matrix *m = source;
    NpyFile *f = NULL;
    Status st = open_matrix(m->path, &f);
    if (st != OK) return st;
    DType type = npy_array(f)->dtype;
    size_t bytes = (size_t)m->NT * (size_t)dtype_size(type);
    void *raw = mem_new(bytes, 1);
    float *s = mem_new((size_t)m->NT, sizeof *s);
    st = raw && s ? OK : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < m->NI; i++) {
        st = npy_read(f, raw, bytes);
        if (st != OK) break;
        dtype_to_f32(s, raw, type, (size_t)m->NT);           /* figures are of f32, as our own similarities */
        row(ctx, i, s);
    }
    mem_free(raw, s);
    npy_close(f);
    return st;
}

static Status owners_of_list(const char *path, const Matrix *m, int32_t *owner) {
    Json *doc = NULL;
    Status st = json_parse_file(&doc, path);
    if (st != OK) return st;
    if (json_type(doc) != J_ARRAY || json_len(doc) != (size_t)m->NT)
        st = err_set(ERR_FORMAT, "%s: a list of %lld numbers is wanted, the image of each text of %s", path,
                     (long long)m->NT, m->path);
    for (int64_t t = 0; st == OK && t < m->NT; t++) {
        int64_t i;
        if (!json_int(json_at(doc, (size_t)t), &i) || i < 0 || i >= m->NI)
            st = err_set(ERR_FORMAT, "%s: item %lld is no image, which is a number from 0 to %lld", path, (long long)t,
                         (long long)m->NI - 1);
        else owner[t] = (int32_t)i;
    }
    json_free(doc);
    return st;
}

static Status owners(const char *path, const Matrix *m, int32_t *owner) {
    if (*path) return owners_of_list(path, m, owner);
    /* COCO's order: an image's texts follow one another, as many for each */
    if (m->NT % m->NI)
        return err_set(
            ERR_USAGE,
            "%s has %lld texts, which is no multiple of its %lld images; name the image of each text (score.owner=...)",
            m->path, (long long)m->NT, (long long)m->NI);
    for (int64_t t = 0; t < m->NT; t++) owner[t] = (int32_t)(t / (m->NT / m->NI));
    return OK;
}

typedef struct { const Matrix *m; const Retrieval *r; } Ranked;

static void write_recall(JsonWriter *w, const void *ranked) {
    const Ranked *x = ranked;
    jw_object(w, NULL);
    jw_str(w, "similarities", x->m->path);
    jw_int(w, "images", x->m->NI);
    jw_int(w, "texts", x->m->NT);
    recall_write(w, &x->r->recall[RANK_ITC], true);
    jw_object(w, "chance");
    recall_write(w, &x->r->chance, false);
    jw_end(w);
    jw_end(w);
}

static Status score_matrix(const Options *o, const char *path) {
    NpyFile *f = NULL;
    Retrieval r = {0};
    Status st = open_matrix(path, &f);
    if (st != OK) return st;
    Matrix m = {path, npy_array(f)->shape[0], npy_array(f)->shape[1]};
    npy_close(f);
    /* owners and ranks are counted in 32 bits */
    if (m.NI < 1 || m.NT < 1 || m.NI > INT32_MAX || m.NT > INT32_MAX)
        return err_set(ERR_FORMAT, "%s holds %lld images by %lld texts", path, (long long)m.NI, (long long)m.NT);
    int32_t *owner = mem_new((size_t)m.NT, sizeof *owner);
    st = owner ? owners(o->score.owner, &m, owner) : ERR_MEMORY;
    if (st == OK) st = retrieval_open(&r, matrix_rows, &m, m.NI, m.NT, owner, 0, 1);
    if (st == OK) {
        status_say("%s: %lld images, %lld texts", path, (long long)m.NI, (long long)m.NT);
        recall_print_head();
        recall_print("chance", &r.chance, false);
        recall_print("similarities", &r.recall[RANK_ITC], true);
        st = result_write(o, "recall.json", write_recall, &(Ranked){&m, &r});
    }
    retrieval_close(&r);
    free(owner);
    return st;
}

Status cmd_score(const Options *o) {
    const char *sim = o->score.sim, *res = *o->run.res ? o->run.res : o->run.in;
    bool answers = false;
    if (!*sim && (!*o->run.gt || !*res))
        return err_set(ERR_USAGE, "score needs gt=FILE and res=FILE (captions), or score.sim=FILE.npy (similarities)");
    Status st = *sim ? OK : holds_answers(o, res, &answers);
    if (st == OK) st = result_claim(o, *sim ? "recall.json" : "scores.json", NULL);
    if (st == OK && o->run.dry_run) return options_print(o, stdout);
    if (st != OK) return st;
    return *sim ? score_matrix(o, sim) : answers ? score_answers(o, res) : score_captions(o, res);
}
