/* Retrieval: ranks, candidates, folds and recall against a ranking of the whole matrix made here, with many ties;
 * pairs kept by image against each pair computed alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/splitmix.h"
#include "eval/rerank.h"
#include "tests/kit/model_fixture.h"

/* ---- a matrix as a source of rows, and the ranking of it by definition ------------------------------------------- */

enum { MOST = 40 };

typedef struct { int64_t NI, NT; float s[MOST][MOST], itm[MOST][MOST]; int32_t owner[MOST]; } Matrix;

static Status matrix_rows(void *source, RecallRow *row, void *ctx) {
    const Matrix *m = source;
    for (int64_t i = 0; i < m->NI; i++) row(ctx, i, m->s[i]);
    return OK;
}

static Matrix matrix(uint64_t seed, int64_t NI, int64_t NT, int levels) {
    Matrix m = {.NI = NI, .NT = NT};
    SplitMix r = {seed};
    for (int64_t i = 0; i < NI; i++)
        for (int64_t t = 0; t < NT; t++) {
            m.s[i][t] = (float)(int)(splitmix_next(&r) % (uint64_t)levels) / 8;
            m.itm[i][t] = (float)(int)(splitmix_next(&r) % (uint64_t)levels) / 4 - 1;
        }
    for (int64_t t = 0; t < NT; t++) m.owner[t] = (int32_t)(splitmix_next(&r) % (uint64_t)NI);
    return m;
}

/* evaluation.md 3: -100 but for the k most similar; then how many stand before column `x` (lower index first), of
 * those in use. */
static int rank_of(const float *sim, const float *score, const bool *use, int64_t n, int64_t k, int64_t x) {
    float full[MOST];
    for (int64_t a = 0; a < n; a++) {
        int64_t before = 0;
        for (int64_t b = 0; b < n; b++) before += use[b] && (sim[b] > sim[a] || (sim[b] == sim[a] && b < a));
        full[a] = before < k ? score[a] : -100;
    }
    int rank = 0;
    for (int64_t b = 0; b < n; b++) rank += use[b] && (full[b] > full[x] || (full[b] == full[x] && b < x));
    return rank;
}

static float score_of(const Matrix *m, int64_t i, int64_t t, RankRule rule) {
    return rule == RANK_ITC ? m->s[i][t] : rule == RANK_ITM ? m->itm[i][t] : m->itm[i][t] + m->s[i][t];
}

static int image_rank(const Matrix *m, int64_t i, RankRule rule, int64_t k, int folds) {
    bool use[MOST];
    float sim[MOST], score[MOST];
    int best = INT32_MAX;
    for (int64_t t = 0; t < m->NT; t++) {
        use[t] = m->owner[t] * folds / m->NI == i * folds / m->NI;
        sim[t] = m->s[i][t], score[t] = score_of(m, i, t, rule);
    }
    for (int64_t t = 0; t < m->NT; t++) {
        int r = m->owner[t] == i ? rank_of(sim, score, use, m->NT, k, t) : INT32_MAX;
        best = r < best ? r : best;
    }
    return best;
}

static int text_rank(const Matrix *m, int64_t t, RankRule rule, int64_t k, int folds) {
    bool use[MOST];
    float sim[MOST], score[MOST];
    for (int64_t i = 0; i < m->NI; i++) {
        use[i] = i * folds / m->NI == m->owner[t] * folds / m->NI;
        sim[i] = m->s[i][t], score[i] = score_of(m, i, t, rule);
    }
    return rank_of(sim, score, use, m->NI, k, m->owner[t]);
}

static void fill_itm(const Matrix *m, Retrieval *r) {
    for (int64_t i = 0; i < r->NI; i++)
        for (int32_t j = 0; j < r->i2t.n[i]; j++)
            topk_row(&r->i2t, i)[j].itm = m->itm[i][topk_row(&r->i2t, i)[j].index];
    for (int64_t t = 0; t < r->NT; t++)
        for (int32_t j = 0; j < r->t2i.n[t]; j++)
            topk_row(&r->t2i, t)[j].itm = m->itm[topk_row(&r->t2i, t)[j].index][t];
}

static void compare_ranks(const Matrix *m, const Retrieval *r, RankRule rule, int64_t k, int folds) {
    for (int64_t i = 0; i < m->NI; i++) assert_int_equal(r->txt_rank[i], image_rank(m, i, rule, k, folds));
    for (int64_t t = 0; t < m->NT; t++) assert_int_equal(r->img_rank[t], text_rank(m, t, rule, k, folds));
}

static void ranks_by_definition(void **state) {
    (void)state;
    static const struct { int64_t NI, NT, k; int levels, folds;
    } cases[] = {{12, 30, 5, 1000, 1}, {12, 30, 10, 6, 1}, {7, 7, 3, 3, 1},   {1, 1, 128, 4, 1}, {1, 9, 2, 3, 1},
                 {20, 4, 128, 5, 1},   {12, 40, 4, 5, 3},  {13, 31, 6, 4, 4}, {9, 30, 64, 3, 9}, {10, 10, 1, 1, 2}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        Matrix m = matrix(c + 1, cases[c].NI, cases[c].NT, cases[c].levels);
        int64_t k = cases[c].k;
        int folds = cases[c].folds;
        Retrieval r;
        assert_int_equal(retrieval_open(&r, matrix_rows, &m, m.NI, m.NT, m.owner, k, folds), OK);
        compare_ranks(&m, &r, RANK_ITC, MOST, folds);
        for (int64_t i = 0; i < m.NI; i++)                    /* the k most similar, best first */
            for (int32_t j = 1; j < r.i2t.n[i]; j++) {
                const Hit *h = topk_row(&r.i2t, i);
                assert_true(h[j - 1].itc > h[j].itc || (h[j - 1].itc == h[j].itc && h[j - 1].index < h[j].index));
            }
        fill_itm(&m, &r);
        for (RankRule rule = RANK_ITM; rule <= RANK_SUM; rule++) {
            assert_int_equal(retrieval_rank(&r, rule), OK);
            compare_ranks(&m, &r, rule, k, folds);
        }
        retrieval_close(&r);
    }
}

/* Recall of folds is the mean of each fold ranked alone. */
static void folds_are_tests_of_their_own(void **state) {
    (void)state;
    Matrix m = matrix(77, 20, 40, 1000);
    for (int64_t t = 0; t < m.NT; t++) m.owner[t] = (int32_t)(t / 2);
    Retrieval all;
    Recall mean = {0};
    assert_int_equal(retrieval_open(&all, matrix_rows, &m, m.NI, m.NT, m.owner, 3, 4), OK);
    for (int f = 0; f < 4; f++) {
        Matrix part = {.NI = 5, .NT = 10};
        for (int64_t i = 0; i < 5; i++)
            for (int64_t t = 0; t < 10; t++)
                part.s[i][t] = m.s[5 * f + i][10 * f + t], part.owner[t] = (int32_t)(t / 2);
        Retrieval one;
        assert_int_equal(retrieval_open(&one, matrix_rows, &part, 5, 10, part.owner, 3, 1), OK);
        mean.txt_r1 += one.recall[RANK_ITC].txt_r1 / 4, mean.img_r5 += one.recall[RANK_ITC].img_r5 / 4;
        mean.txt_mean += one.recall[RANK_ITC].txt_mean / 4, mean.img_median += one.recall[RANK_ITC].img_median / 4;
        for (int64_t i = 0; i < 5; i++) assert_int_equal(one.txt_rank[i], all.txt_rank[5 * f + i]);
        for (int64_t i = 0; i < 5; i++)
            for (int32_t j = 0; j < 3; j++)
                assert_int_equal(topk_row(&all.i2t, 5 * f + i)[j].index, topk_row(&one.i2t, i)[j].index + 10 * f);
        retrieval_close(&one);
    }
    const Recall *r = &all.recall[RANK_ITC];
    assert_true(fabs(r->txt_r1 - mean.txt_r1) < 1e-9 && fabs(r->img_r5 - mean.img_r5) < 1e-9);
    assert_true(fabs(r->txt_mean - mean.txt_mean) < 1e-9 && fabs(r->img_median - mean.img_median) < 1e-9);
    retrieval_close(&all);
}

/* Five texts each of 100 images: the chance that none of five stands among the first K of 500. */
static void chance(void **state) {
    (void)state;
    enum { NI = 100, NT = 500 };
    float *I = calloc(NI, sizeof *I), *T = calloc(NT, sizeof *T);
    int32_t *owner = calloc(NT, sizeof *owner);
    for (int t = 0; t < NT; t++) owner[t] = t / 5;
    const Backend *b = backend_cpu(DT_F32);
    RecallFeatures f = {b, I, T, NI, NT, 1, 1};
    Retrieval r;
    assert_int_equal(retrieval_open(&r, recall_feature_rows, &f, NI, NT, owner, 0, 1), OK);
    double miss = 1;
    for (int j = 0; j < 10; j++) miss *= (double)(NT - 5 - j) / (double)(NT - j);
    assert_true(fabs(r.chance.txt_r10 - 100 * (1 - miss)) < 1e-9);
    assert_true(fabs(r.chance.txt_r1 - 1) < 1e-9 && fabs(r.chance.img_r1 - 1) < 1e-9 &&
                fabs(r.chance.img_r10 - 10) < 1e-9);
    assert_int_equal(r.img_rank[7], 1);                       /* all alike: lower index first */
    assert_int_equal(r.txt_rank[3], 15);
    retrieval_close(&r);
    free(I);
    free(T);
    free(owner);
}

static void refusals(void **state) {
    (void)state;
    Matrix m = matrix(5, 4, 8, 100);
    Retrieval r;
    assert_int_equal(retrieval_open(&r, matrix_rows, &m, 4, 8, m.owner, 2, 5), ERR_USAGE);
    assert_non_null(strstr(err_message(), "4 images do not make 5 folds"));
    assert_int_equal(retrieval_open(&r, matrix_rows, &m, 0, 0, m.owner, 2, 1), ERR_USAGE);
    m.s[2][3] = NAN;
    assert_int_equal(retrieval_open(&r, matrix_rows, &m, 4, 8, m.owner, 2, 1), ERR_NUMERIC);
    assert_non_null(strstr(err_message(), "image 2"));
    err_clear();
}

/* An image without texts is beyond every K, and does not enter the mean rank. */
static void images_without_texts(void **state) {
    (void)state;
    Matrix m = matrix(9, 3, 2, 1000);
    m.owner[0] = 0, m.owner[1] = 2;
    Retrieval r;
    assert_int_equal(retrieval_open(&r, matrix_rows, &m, 3, 2, m.owner, 9, 1), OK);
    assert_int_equal(r.txt_rank[1], INT32_MAX);
    assert_true(r.recall[RANK_ITC].txt_mean <= 2 && fabs(r.recall[RANK_ITC].txt_r10 - 200.0 / 3) < 1e-9);
    fill_itm(&m, &r);
    assert_int_equal(retrieval_rank(&r, RANK_SUM), OK);
    assert_int_equal(r.txt_rank[1], INT32_MAX);
    retrieval_close(&r);
}

/* ---- pairs ------------------------------------------------------------------------------------------------------- */

/* Pairs of two retrievals, merged, computed by image, are what each pair gives alone. */
static void pairs_by_image(void **state) {
    ModelFixture *f = *state;
    Encoder e, one;
    float *I, *T;
    Retrieval whole, folds;
    Rerank p = {0};
    EvalProgress progress = {0};
    const Dims *d = &f->model.d;
    assert_int_equal(encoder_open(&e, f->b, &f->model, 3, DT_F32), OK);
    assert_int_equal(encoder_open(&one, f->b, &f->model, 1, DT_F32), OK);
    assert_int_equal(evalset_encode(&f->set, &e, &I, &T, &(EvalProgress){0}), OK);
    RecallFeatures rows = {f->b, I, T, f->set.NI, f->set.NT, d->Q, d->Z};
    assert_int_equal(retrieval_open(&whole, recall_feature_rows, &rows, f->set.NI, f->set.NT, f->set.owner, 4, 1), OK);
    assert_int_equal(retrieval_open(&folds, recall_feature_rows, &rows, f->set.NI, f->set.NT, f->set.owner, 2, 2), OK);
    const Retrieval *both[] = {&whole, &folds};
    assert_int_equal(rerank_of_candidates(&p, both, 2), OK);
    assert_int_equal(rerank_score(&p, &e, &f->set, &progress), OK);
    assert_int_equal(progress.done, p.n);
    assert_true(p.flops > 0);

    bool wanted[FIX_IMAGES][FIX_TEXTS] = {{false}};
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < both[k]->NI; i++)
            for (int32_t j = 0; j < both[k]->i2t.n[i]; j++) wanted[i][topk_row(&both[k]->i2t, i)[j].index] = true;
        for (int64_t t = 0; t < both[k]->NT; t++)
            for (int32_t j = 0; j < both[k]->t2i.n[t]; j++) wanted[topk_row(&both[k]->t2i, t)[j].index][t] = true;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < f->set.NI; i++) {
        float features[FIX_P * FIX_E];
        assert_int_equal(evalset_read(&f->set, i, 1, features, NULL), OK);
        assert_int_equal(encode_image_keys(&one, (FeatureRows){features, NULL}, 1), OK);
        for (int64_t j = p.start[i]; j < p.start[i + 1]; j++, n++) {
            int64_t t = p.text[j];
            float logits[2];
            assert_true(wanted[i][t]);
            wanted[i][t] = false;                             /* once */
            assert_int_equal(encode_pairs(&one, &(int32_t){0}, f->set.ids + t * d->T, f->set.len + t, 1, logits), OK);
            assert_true(fabsf(logits[0] - p.logit[2 * j]) < 1e-5f && fabsf(logits[1] - p.logit[2 * j + 1]) < 1e-5f);
        }
    }
    assert_int_equal(n, p.n);
    for (int64_t i = 0; i < f->set.NI; i++)
        for (int64_t t = 0; t < f->set.NT; t++) assert_false(wanted[i][t]);
    rerank_fill(&p, &whole);
    rerank_fill(&p, &folds);
    assert_int_equal(retrieval_rank(&folds, RANK_SUM), OK);
    rerank_close(&p);

    assert_int_equal(rerank_of_owners(&p, &f->set), OK);
    assert_int_equal(p.n, f->set.NT);
    progress = (EvalProgress){.tell = NULL};
    assert_int_equal(rerank_score(&p, &e, &f->set, &progress), OK);
    rerank_close(&p);
    retrieval_close(&whole);
    retrieval_close(&folds);
    encoder_close(&e);
    encoder_close(&one);
    free(I);
    free(T);
}

static bool stop_at_once(void *ctx, int64_t done, int64_t total) {
    (void)ctx, (void)done, (void)total;
    return false;
}

static void stopped(void **state) {
    ModelFixture *f = *state;
    Encoder e;
    Rerank p;
    EvalProgress progress = {.tell = stop_at_once};
    assert_int_equal(encoder_open(&e, f->b, &f->model, 2, DT_F32), OK);
    assert_int_equal(rerank_of_owners(&p, &f->set), OK);
    assert_int_equal(rerank_score(&p, &e, &f->set, &progress), ERR_INTERRUPTED);
    rerank_close(&p);
    encoder_close(&e);
    err_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_by_definition),
        cmocka_unit_test(folds_are_tests_of_their_own),
        cmocka_unit_test(chance),
        cmocka_unit_test(refusals),
        cmocka_unit_test(images_without_texts),
        cmocka_unit_test(pairs_by_image),
        cmocka_unit_test(stopped),
    };
    return cmocka_run_group_tests(tests, model_setup, model_teardown);
}
