/* gold_metrics: fixtures of metrics: caption sets, the caption tokenizer, answers to questions.
 *
 *     NAME_scores.json with NAME_gt.json, NAME_res.json    corpus and per-image values: from raw captions 4 decimals;
 *                          with NAME_tokens.jsonl beside, from the tokens to 1e-9 as well
 *     ptb*.jsonl           {"text", "tokens"[, "cat"]}: exactly; of the categories that are there to find rules by, the
 *                          rows that differ are counted, not judged
 *     vqa_answers.jsonl    {"raw", "punctuation", "normalised"}: exactly
 *     vqa_scores.json      "official", of vqa_annotations.json and vqa_results.json: two decimals, each question */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/metrics/metrics.h"
#include "eval/metrics/ptb.h"
#include "eval/metrics/score.h"
#include "eval/metrics/vqa.h"
#include "kernels/base/mem.h"
#include "tests/gold.h"

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* DIR/NAME<tail> beside DIR/NAME<of>. */
static void beside(char *path, size_t n, const char *dir, const char *name, const char *of, const char *tail) {
    snprintf(path, n, "%s/%.*s%s", dir, (int)(strlen(name) - strlen(of)), name, tail);
}

bool gold_is_caption_scores(const char *dir, const char *name) {
    char path[2200];
    if (!ends(name, "_scores.json")) return false;
    beside(path, sizeof path, dir, name, "scores.json", "gt.json");
    return access(path, R_OK) == 0;
}

bool gold_is_vqa(const char *dir, const char *name) {
    char path[2200];
    if (!ends(name, "_scores.json")) return false;
    beside(path, sizeof path, dir, name, "scores.json", "annotations.json");
    return access(path, R_OK) == 0;
}

bool gold_is_answers(const char *dir, const char *name) { return (void)dir, ends(name, "_answers.jsonl"); }
bool gold_is_ptb(const char *dir, const char *name) {
    return (void)dir, strncmp(name, "ptb", 3) == 0 && ends(name, ".jsonl");
}

/* ---- captions ---------------------------------------------------------------------------------------------------- */

static void compare_value(Case *c, const char *set, const char *name, double got, const Json *want, double tolerance) {
    char what[160];
    double w;
    if (!json_num(json_get(want, name), &w)) return;
    snprintf(what, sizeof what, "%s %s", set, name);
    gold_check(c, what, got - w, tolerance * fmax(1, fabs(w)));
}

static void compare_scores(Case *c, const char *set, const MetricScores *m, const Json *want, double tolerance) {
    char name[16];
    for (int k = 0; k < 4; k++) {
        snprintf(name, sizeof name, "Bleu_%d", k + 1);
        compare_value(c, set, name, m->bleu[k], want, tolerance);
    }
    compare_value(c, set, "ROUGE_L", m->rouge_l, want, tolerance);
    compare_value(c, set, "CIDEr", m->cider, want, tolerance);
}

static Status add_tokens(void *ctx, int64_t i, const Json *row) {
    size_t n;
    const char *text = json_str(json_get(row, "candidate"), &n);
    const Json *references = json_get(row, "references");
    Status st = metrics_image(ctx, text ? text : "", text ? n : 0);
    (void)i;
    for (size_t k = 0; k < json_len(references) && st == OK; k++) {
        text = json_str(json_at(references, k), &n);
        st = metrics_reference(ctx, text ? text : "", text ? n : 0);
    }
    return st;
}

static Status from_tokens(Case *c, const char *path) {
    Metrics *m = NULL;
    MetricScores corpus, *each = NULL;
    const Json *images = json_get(c->json, "images");
    Status st = metrics_new(&m);
    if (st == OK) st = json_each(path, add_tokens, m);
    if (st == OK && !(each = mem_new(metrics_count(m) + 1, sizeof *each))) st = ERR_MEMORY;
    if (st == OK) st = metrics_compute(m, &corpus, each);
    if (st == OK) compare_scores(c, "tokens, corpus", &corpus, json_get(c->json, "corpus"), 1e-9);
    for (size_t i = 0; st == OK && i < json_len(images) && i < metrics_count(m); i++)
        compare_scores(c, "tokens, an image", &each[i], json_at(images, i), 1e-9);
    free(each);
    metrics_free(m);
    return st;
}

Status gold_caption_scores(Case *c) {
    char gt[2200], res[2200], tokens[2200];
    const char *name = strrchr(c->file, '/') + 1;
    Scores s;
    beside(gt, sizeof gt, c->dir, name, "scores.json", "gt.json");
    beside(res, sizeof res, c->dir, name, "scores.json", "res.json");
    beside(tokens, sizeof tokens, c->dir, name, "scores.json", "tokens.jsonl");
    Status st = score_files(gt, res, NULL, &s);
    if (st != OK) return st;
    compare_scores(c, "corpus", &s.corpus, json_get(c->json, "corpus"), 5e-5);
    score_free(&s);
    return access(tokens, R_OK) ? OK : from_tokens(c, tokens);
}

/* ---- the caption tokenizer --------------------------------------------------------------------------------------- */

typedef struct { Case *c; Ptb *p; int differ; } PtbRows;

static Status compare_tokens(void *ctx, int64_t i, const Json *row) {
    PtbRows *k = ctx;
    size_t n, nw, len;
    const char *text = json_str(json_get(row, "text"), &n), *want = json_str(json_get(row, "tokens"), &nw), *got;
    const char *cat = json_str(json_get(row, "cat"), NULL);
    char what[80];
    if (!text || !want) return err_set(ERR_FORMAT, "row %lld has no text or no tokens", (long long)i);
    Status st = ptb_tokenize(k->p, text, n, &got, &len);
    bool wrong = st != OK || len != nw || memcmp(got, want, len);
    bool judged = !cat || !strcmp(cat, "openclipart");
    if (!judged) k->differ += wrong;
    snprintf(what, sizeof what, "tokens of row %lld", (long long)i);
    gold_check(k->c, what, judged && wrong, 0.5);
    return st;
}

Status gold_ptb(Case *c) {
    PtbRows k = {.c = c};
    Status st = ptb_new(&k.p);
    if (st == OK) st = json_each(c->file, compare_tokens, &k);
    if (k.differ) printf("      %d rows of the categories that rules were found by differ\n", k.differ);
    ptb_free(k.p);
    return st;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static Status compare_answer(void *ctx, int64_t i, const Json *row) {
    static const struct { const char *key; enum VqaSteps steps; } steps[] = {{"punctuation", VQA_PUNCTUATION},
                                                                             {"normalised", VQA_ALL}};
    size_t n;
    const char *raw = json_str(json_get(row, "raw"), &n);
    for (size_t k = 0; raw && k < 2; k++) {
        const char *want = json_str(json_get(row, steps[k].key), NULL);
        char *got = NULL, what[80];
        if (!want) continue;
        Status st = vqa_normalise(&got, raw, n, steps[k].steps);
        snprintf(what, sizeof what, "%s of row %lld", steps[k].key, (long long)i);
        gold_check(ctx, what, st != OK || strcmp(got, want) != 0, 0.5);
        free(got);
    }
    return OK;
}

Status gold_answers(Case *c) { return json_each(c->file, compare_answer, c); }

static void compare_parts(Case *c, const char *key, const Tally *t) {
    const Json *want = json_get(json_get(c->json, "official"), key);
    gold_check(c, key, (double)json_len(want) - t->kinds, 0.5);
    for (int k = 0; k < t->kinds; k++) {
        double w = NAN;
        json_num(json_get(want, t->kind[k].name), &w);
        gold_check(c, t->kind[k].name, tally_share(&t->kind[k]) - w, 0.00501);
    }
}

Status gold_vqa(Case *c) {
    char human[2200], ours[2200];
    const char *name = strrchr(c->file, '/') + 1;
    const Json *want = json_get(c->json, "official");
    double all = NAN;
    VqaScores s;
    beside(human, sizeof human, c->dir, name, "scores.json", "annotations.json");
    beside(ours, sizeof ours, c->dir, name, "scores.json", "results.json");
    Status st = vqa_score(&s, human, ours, VQA_RULE_FOUND);
    if (st != OK) return st;
    json_num(json_get(want, "overall"), &all);
    gold_check(c, "overall", 100 * s.accuracy - all, 0.00501);
    compare_parts(c, "perAnswerType", &s.answer_type);
    compare_parts(c, "perQuestionType", &s.question_type);
    for (int64_t i = 0; i < s.n; i++) {
        double w = NAN;
        json_num(json_get(json_get(want, "question"), s.question[i].id), &w);
        gold_check(c, s.question[i].id, 100 * s.question[i].accuracy - w, 0.00501);
    }
    vqa_free(&s);
    return OK;
}
