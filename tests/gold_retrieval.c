/* gold_retrieval: the fixture kind retrieval: features, similarities, candidates, matching logits, scores, ranks
 * and every report key, by cosine, re-ranked at each k_test, and by matching alone. Runs the path of the command: a
 * data set on disk, streamed similarities, pairs grouped by image. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/shard_write.h"
#include "eval/evaluate.h"
#include "eval/rerank.h"
#include "kernels/base/mem.h"
#include "tests/gold.h"

typedef struct {
    Case *c;
    StFile *out;
    Trainer t;
    Set *set;
    EvalSet s;
    Encoder enc;
    float *I, *T, *features;
    Rerank all;                          /* every pair there is */
    char dir[64], path[96];
    double tol, feature_tol;
} Gold;

static double number_at(const StTensor *t, int64_t i) {
    return t->dtype == DT_F64   ? ((const double *)t->data)[i]
           : t->dtype == DT_I64 ? (double)((const int64_t *)t->data)[i]
                                : NAN;
}

static const StTensor *wanted(Gold *g, const char *name, int64_t n) {
    const StTensor *t = st_find(g->out, name);
    bool ok = t && st_elements(t) == n && (t->dtype == DT_F64 || t->dtype == DT_I64);
    gold_check(g->c, name, ok ? 0 : NAN, 1);
    return ok ? t : NULL;
}

/* Largest absolute difference of n numbers. */
static void compare(Gold *g, const char *name, const float *x, int64_t n, double tol) {
    const StTensor *want = wanted(g, name, n);
    double most = 0;
    for (int64_t i = 0; want && i < n; i++) {
        double e = fabs(x[i] - number_at(want, i));
        most = e > most || isnan(e) ? e : most;
    }
    gold_check(g->c, name, most, tol);
}

/* ---- the case as a data set -------------------------------------------------------------------------------------- */

static Status write_set(Gold *g) {
    const Json *captions = json_get(g->c->json, "captions");
    int64_t NI = g->s.NI;
    const Dims *d = &g->t.model.d;
    ShardWriter *w = NULL;
    ShardItem *items = mem_new((size_t)NI, sizeof *items);
    const char **texts = mem_new((size_t)g->s.NT, sizeof *texts), **next = texts;
    char (*ids)[32] = mem_new((size_t)NI, sizeof *ids);
    Status st = items && texts && ids ? OK : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < NI; i++) {
        const Json *list = json_at(captions, (size_t)i);
        snprintf(ids[i], sizeof ids[i], "image-%lld", (long long)i);
        if (next + json_len(list) > texts + g->s.NT) {
            st = err_set(ERR_FORMAT, "captions: more than the %lld texts", (long long)g->s.NT);
            break;
        }
        items[i] = (ShardItem){
            .image_id = ids[i], .split = "test", .ncaptions = (int64_t)json_len(list), .captions = next};
        for (size_t k = 0; k < json_len(list); k++) *next++ = json_str(json_at(list, k), NULL);
    }
    ShardSpec spec = {.encoder = {"gold", "", "", "", false},
                      .dtype = DT_F32,
                      .images = NI,
                      .views = 1,
                      .P = d->P,
                      .E = d->E,
                      .items = items};
    if (st == OK) st = shard_create(&w, g->path, &spec);
    for (int64_t i = 0; st == OK && i < NI; i++) st = shard_write(w, i, g->features + i * d->P * d->E, 1);
    if (st == OK) st = shard_finish(w);
    else shard_abandon(w);
    free(items);
    free(texts);
    free(ids);
    return st;
}

/* Texts are the fixture's ids; where its vocabulary lies beside the model, ours must give the same. */
static Status open_texts(Gold *g, int64_t T) {
    EvalSet *s = &g->s;
    const StTensor *ids = wanted(g, "input_ids", s->NT * T), *mask = wanted(g, "attention_mask", s->NT * T);
    const Json *owner = json_get(g->c->json, "txt2img"), *model = json_get(g->c->json, "model");
    s->T = (int)T;
    s->ids = mem_new((size_t)(s->NT * T), sizeof *s->ids);
    s->len = mem_new((size_t)s->NT, sizeof *s->len);
    s->owner = mem_new((size_t)s->NT, sizeof *s->owner);
    if (!ids || !mask || !s->ids || !s->len || !s->owner) return err_set(ERR_FORMAT, "%s: no texts", st_path(g->out));
    for (int64_t k = 0; k < s->NT * T; k++) {
        s->ids[k] = (int32_t)number_at(ids, k);
        s->len[k / T] += (int32_t)number_at(mask, k);
    }
    for (int64_t t = 0; t < s->NT; t++) {
        int64_t i = -1;
        json_int(json_at(owner, (size_t)t), &i);
        if (i < 0 || i >= s->NI) return err_set(ERR_FORMAT, "txt2img: text %lld has no image", (long long)t);
        s->owner[t] = (int32_t)i;
    }
    char path[2300];
    snprintf(path, sizeof path, "%s/%s/vocab.txt", g->c->dir, json_str(model, NULL) ? json_str(model, NULL) : ".");
    if (access(path, R_OK) != 0) return OK;
    Tokenizer *tok;
    EvalSet own;
    Status st = tokenizer_open(&tok, path);
    if (st != OK) return st;
    st = evalset_open(&own, g->set, "test", 0, &(TextSpec){tok, (int)T, 50, ""});
    if (st == OK) {
        bool same = own.NI == s->NI && own.NT == s->NT &&
                    memcmp(own.owner, s->owner, (size_t)s->NT * sizeof *s->owner) == 0;
        for (int64_t t = 0; same && t < s->NT; t++)
            same = own.len[t] == s->len[t] &&
                   memcmp(own.ids + t * T, s->ids + t * T, (size_t)s->len[t] * sizeof *s->ids) == 0;
        gold_check(g->c, "word pieces of the captions", same ? 0 : NAN, 1);
        evalset_close(&own);
    }
    tokenizer_close(tok);
    return st;
}

static Status open_case(Gold *g, Case *c) {
    int64_t T = gold_int(c->json, "max_length"), n;
    const Json *dims = json_get(c->json, "dims");
    bool exact = c->precision == DT_F32;
    *g = (Gold){.c = c, .tol = exact ? 1e-4 : 6e-2, .feature_tol = exact ? 2e-5 : 3e-2};
    Status st = gold_open(c, NULL, "outputs.safetensors", &g->out);
    if (st == OK) st = gold_model(c, &g->t);
    if (st != OK) return st;
    g->s.NI = gold_int(dims, "NI"), g->s.NT = gold_int(dims, "NT");
    Dims *d = &g->t.model.d;
    d->T = (int32_t)T;
    n = g->s.NI * d->P * d->E;
    const StTensor *x = wanted(g, "features", n);
    g->features = mem_new((size_t)n, sizeof(float));
    if (!x || !g->features)
        return err_set(ERR_FORMAT, "%s: no features of %lld elements", st_path(g->out), (long long)n);
    dtype_to_f32(g->features, x->data, x->dtype, (size_t)n);
    snprintf(g->dir, sizeof g->dir, "/tmp/golden-XXXXXX");
    if (!mkdtemp(g->dir)) return err_set(ERR_IO, "%s cannot be made", g->dir);
    snprintf(g->path, sizeof g->path, "%s/set.h5", g->dir);
    st = write_set(g);
    if (st == OK) st = set_open(&g->set, g->path);
    if (st == OK) st = open_texts(g, T);
    if (st == OK) st = encoder_open(&g->enc, c->b, &g->t.model, 4, DT_F32);
    g->s.set = g->set;
    if (st == OK && !(g->s.image = mem_new((size_t)g->s.NI, sizeof *g->s.image))) st = ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < g->s.NI; i++) g->s.image[i] = i;
    return st;
}

static void close_case(Gold *g) {
    rerank_close(&g->all);
    encoder_close(&g->enc);
    evalset_close(&g->s);
    set_close(g->set);
    trainer_close(&g->t);
    st_close(g->out);
    free(g->features);
    free(g->I);
    free(g->T);
    if (g->path[0]) unlink(g->path);
    if (g->dir[0]) rmdir(g->dir);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static void compare_ranks(Gold *g, const Json *want, const char *key, const int32_t *rank, int64_t n) {
    const Json *list = json_get(want, key);
    int64_t different = (int64_t)json_len(list) != n;
    for (int64_t i = 0; i < n; i++) {
        int64_t r = -1;
        json_int(json_at(list, (size_t)i), &r);
        different += r != rank[i];
    }
    gold_check(g->c, key, (double)different, 0.5);
}

/* In bf16 close scores change places: only the figures are held, loosely. */
static void compare_report(Gold *g, const char *name, const Retrieval *r, RankRule rule) {
    const Json *want = json_get(g->c->json, name), *report = json_get(want, "report");
    const Recall *f = &r->recall[rule];
    double txt = (f->txt_r1 + f->txt_r5 + f->txt_r10) / 3, img = (f->img_r1 + f->img_r5 + f->img_r10) / 3;
    const struct { const char *key; double value;
    } all[] = {{"txt_r1", f->txt_r1},         {"txt_r5", f->txt_r5}, {"txt_r10", f->txt_r10}, {"txt_r_mean", txt},
               {"img_r1", f->img_r1},         {"img_r5", f->img_r5}, {"img_r10", f->img_r10}, {"img_r_mean", img},
               {"r_mean", 0.5 * (txt + img)}, {"agg_metrics", txt}};
    bool exact = g->c->precision == DT_F32;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        gold_check(g->c, all[i].key, all[i].value - gold_num(report, all[i].key), exact ? 1e-9 : 20);
    if (!exact) return;
    compare_ranks(g, want, "image_rank", r->txt_rank, r->NI);
    compare_ranks(g, want, "text_rank", r->img_rank, r->NT);
}

static void compare_topk(Gold *g, const char *name, const TopK *t) {
    const StTensor *want = wanted(g, name, t->rows * t->k);
    int64_t different = 0;
    for (int64_t i = 0; want && i < t->rows * t->k; i++) different += t->hit[i].index != (int32_t)number_at(want, i);
    gold_check(g->c, name, (double)different, 0.5);
}

static void compare_scores(Gold *g, const char *name, const TopK *t, int64_t columns) {
    float *m = mem_new((size_t)(t->rows * columns), sizeof *m);
    BUG_ON(!m, "out of memory");
    for (int64_t i = 0; i < t->rows * columns; i++) m[i] = -100;
    for (int64_t row = 0; row < t->rows; row++)
        for (int32_t j = 0; j < t->n[row]; j++)
            m[row * columns + topk_row(t, row)[j].index] = hit_score(&topk_row(t, row)[j], RANK_SUM);
    compare(g, name, m, t->rows * columns, g->tol);
    free(m);
}

static Status retrieve(Gold *g, Retrieval *r, int64_t k) {
    const Dims *d = &g->t.model.d;
    RecallFeatures f = {g->c->b, g->I, g->T, g->s.NI, g->s.NT, d->Q, d->Z};
    return retrieval_open(r, recall_feature_rows, &f, g->s.NI, g->s.NT, g->s.owner, k, 1);
}

static Status rerank_case(Gold *g, int64_t k) {
    char name[40];
    Retrieval r;
    Rerank p = {0};
    const Retrieval *one = &r;
    EvalProgress progress = {0};
    bool exact = g->c->precision == DT_F32;
    Status st = retrieve(g, &r, k);
    if (st != OK) return st;
    for (int both = 0; exact && both < 2; both++) {
        snprintf(name, sizeof name, "k%lld.topk_%s", (long long)k, both ? "t2i" : "i2t");
        compare_topk(g, name, both ? &r.t2i : &r.i2t);
    }
    st = rerank_of_candidates(&p, &one, 1);
    if (st == OK) st = rerank_score(&p, &g->enc, &g->s, &progress);
    if (st == OK) {
        rerank_fill(&p, &r);
        for (int both = 0; exact && both < 2; both++) {
            snprintf(name, sizeof name, "k%lld.score_%s", (long long)k, both ? "t2i" : "i2t");
            compare_scores(g, name, both ? &r.t2i : &r.i2t, both ? g->s.NI : g->s.NT);
        }
        st = retrieval_rank(&r, RANK_SUM);
        snprintf(name, sizeof name, "rerank_k%lld", (long long)k);
        if (st == OK) compare_report(g, name, &r, RANK_SUM);
    }
    rerank_close(&p);
    retrieval_close(&r);
    return st;
}

static void keep_row(void *ctx, int64_t i, const float *s) {
    Gold *g = ctx;
    float *all = g->features;            /* reused: (NI,NT) */
    memcpy(all + i * g->s.NT, s, (size_t)g->s.NT * sizeof *s);
}

/* Every pair: logits, and ranks by cosine and by matching alone. */
static Status whole_case(Gold *g) {
    int64_t NI = g->s.NI, NT = g->s.NT;
    const Dims *d = &g->t.model.d;
    Retrieval r;
    Rerank p = {0};
    const Retrieval *one = &r;
    EvalProgress progress = {0};
    float *m = mem_new((size_t)(NI * NT), sizeof *m);
    free(g->features);
    g->features = mem_new((size_t)(NI * NT), sizeof *g->features);
    Status st = m && g->features ? retrieve(g, &r, NI > NT ? NI : NT) : ERR_MEMORY;
    if (st != OK) goto done;
    compare_report(g, "itc_only", &r, RANK_ITC);
    st = recall_rows(g->c->b, g->I, NI, g->T, NT, d->Q, d->Z, keep_row, g);
    if (st == OK) compare(g, "sim", g->features, NI * NT, g->feature_tol);
    if (st == OK) st = rerank_of_candidates(&p, &one, 1);
    if (st == OK) st = rerank_score(&p, &g->enc, &g->s, &progress);
    if (st == OK) {
        gold_check(g->c, "pairs", (double)(p.n - NI * NT), 0.5);
        for (int64_t i = 0; i < NI; i++)
            for (int64_t j = p.start[i]; j < p.start[i + 1]; j++) m[i * NT + p.text[j]] = p.logit[2 * j + 1];
        compare(g, "itm", m, NI * NT, g->tol);
        rerank_fill(&p, &r);
        st = retrieval_rank(&r, RANK_ITM);
        if (st == OK) compare_report(g, "itm_only", &r, RANK_ITM);
    }
    rerank_close(&p);
    retrieval_close(&r);
done:
    free(m);
    return st;
}

Status gold_retrieval(Case *c) {
    Gold g;
    Status st = open_case(&g, c);
    if (st == OK) st = evalset_encode(&g.s, &g.enc, &g.I, &g.T, &(EvalProgress){0});
    if (st == OK) {
        const Dims *d = &g.t.model.d;
        compare(&g, "image_feats", g.I, g.s.NI * d->Q * d->Z, g.feature_tol);
        compare(&g, "text_feats", g.T, g.s.NT * d->Z, g.feature_tol);
    }
    const Json *ks = json_get(c->json, "k_test");
    for (size_t i = 0; st == OK && i < json_len(ks); i++) {
        int64_t k = 0;
        json_int(json_at(ks, i), &k);
        st = rerank_case(&g, k);
    }
    if (st == OK) st = whole_case(&g);
    close_case(&g);
    return st;
}
