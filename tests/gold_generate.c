/* gold_generate: the fixture kind generate (captions, their scores, what sampling may draw, logits along given
 * ids), and the greedy captions that a step case may carry. All on the path with cached keys. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/tokenizer.h"
#include "eval/generate.h"
#include "kernels/base/mem.h"
#include "tests/gold.h"

typedef struct {
    Case *c;
    Trainer t;
    float *features;                    /* (B,P,E) */
    Tokenizer *tok;                     /* of the model's folder; NULL when it has none */
    int32_t B;
} Captioner;

static int64_t int_at(const Json *list, size_t i) {
    int64_t v = -1;
    json_int(json_at(list, i), &v);
    return v;
}

static bool flag(const Json *o, const char *key) {
    bool v = false;
    json_bool(json_get(o, key), &v);
    return v;
}

static void open_vocabulary(Captioner *k) {
    char path[2300];
    const char *model = json_str(json_get(k->c->json, "model"), NULL);
    snprintf(path, sizeof path, "%s/%s/vocab.txt", k->c->dir, model ? model : ".");
    if (tokenizer_open(&k->tok, path) != OK) err_clear();
    else if (tokenizer_size(k->tok) != k->t.model.d.V) {
        tokenizer_close(k->tok);
        k->tok = NULL;
    }
}

static Status captioner_open(Captioner *k, Case *c, const char *file) {
    StFile *f = NULL;
    *k = (Captioner){.c = c, .B = (int32_t)gold_int(json_get(c->json, "dims"), "B")};
    Status st = gold_trainer(c, &k->t, (Stage1Spec){.itc = 1, .itm = 1, .itg = 1});
    if (st != OK) return st;
    const Dims *d = &k->t.model.d;
    int64_t n = (int64_t)k->B * d->P * d->E;
    st = gold_open(c, NULL, file, &f);
    const StTensor *x = st == OK ? st_find(f, "features") : NULL;
    if (st == OK && (!x || st_elements(x) != n))
        st = err_set(ERR_FORMAT, "%s: no features of %lld elements", st_path(f), (long long)n);
    if (st == OK && !(k->features = mem_new((size_t)n, sizeof(float)))) st = ERR_MEMORY;
    if (st == OK) dtype_to_f32(k->features, x->data, x->dtype, (size_t)n);
    st_close(f);
    if (st != OK) trainer_close(&k->t);
    else open_vocabulary(k);
    return st;
}

static void captioner_close(Captioner *k) {
    tokenizer_close(k->tok);
    trainer_close(&k->t);
    free(k->features);
}

static SearchSpec greedy_spec(const Dims *d, int32_t max_length) {
    return (SearchSpec){.mode = SEARCH_GREEDY, .beams = 1, .max_length = max_length, .length_penalty = 1,
                        .repetition_penalty = 1, .temperature = 1, .top_p = 1, .start = d->dec, .ends = {d->sep},
                            .nends = 1};
}

static SearchSpec spec_of(const Json *v, const Dims *d) {
    SearchSpec s = greedy_spec(d, (int32_t)gold_int(v, "max_length"));
    s.beams = (int32_t)gold_int(v, "num_beams");
    s.mode = s.beams > 1 ? SEARCH_BEAM : SEARCH_GREEDY;
    s.min_length = (int32_t)gold_int(v, "min_length");
    s.length_penalty = gold_num(v, "length_penalty");
    s.repetition_penalty = gold_num(v, "repetition_penalty");
    s.early_stopping = flag(v, "early_stopping");
    return s;
}

static double logit_tolerance(const Case *c) { return c->precision == DT_F32 ? 1e-4 : 0.4; }

/* Largest difference of n logits; fixtures write -1e30 for minus infinity. */
static void compare_row(Case *c, const char *what, const float *x, const double *score, const double *want, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        double got = x ? (double)x[i] : score[i];
        if (want[i] < -1e29 && got < -1e29) continue;
        double e = fabs(got - want[i]);
        most = e > most || isnan(e) ? e : most;
    }
    gold_check(c, what, most, logit_tolerance(c));
}

/* ---- captions --------------------------------------------------------------------------------------------------- */

typedef struct { Case *c; const Json *v; const char *name; const Dims *d; const Tokenizer *tok; int64_t seen; } Compare;

static void compare_text(const Compare *k, const char *what, size_t i, const Hypothesis *h) {
    const char *want = json_str(json_at(json_get(k->v, "captions"), i), NULL);
    char *got = NULL;
    if (!k->tok || !want) return;
    BUG_ON(tokenizer_decode(k->tok, h->tokens, (size_t)h->len, &got, NULL) != OK, "%s", err_message());
    gold_check(k->c, what, strcmp(got, want) != 0, 0.5);
    free(got);
}

static Status compare_caption(void *ctx, int64_t i, const Search *s) {
    Compare *k = ctx;
    char what[160];
    const Hypothesis *h = &s->closed[0];
    const Json *want = json_at(json_get(k->v, "sequences"), (size_t)i),
               *all = json_at(json_get(k->v, "hypotheses"), (size_t)i);
    int64_t wrong = 0;
    for (size_t t = 0; t < json_len(want); t++) {
        int32_t end = h->ended && (int32_t)t == h->len ? k->d->sep : k->d->pad,
                got = (int32_t)t < h->len ? h->tokens[t] : end;
        wrong += int_at(want, t) != got;
    }
    wrong += (size_t)h->len > json_len(want);
    snprintf(what, sizeof what, "%s, image %lld: tokens", k->name, (long long)i);
    gold_check(k->c, what, (double)wrong, 0.5);
    bool ended = false;
    if (json_bool(json_at(json_get(k->v, "ended"), (size_t)i), &ended)) gold_check(k->c, what, ended != h->ended, 0.5);
    compare_text(k, what, (size_t)i, h);
    if (all) gold_check(k->c, what, (double)json_len(all) - s->nclosed, 0.5);
    for (int32_t r = 0; r < s->nclosed && (size_t)r < json_len(all); r++) {
        const Json *one = json_at(all, (size_t)r), *tokens = json_get(one, "tokens");
        double score = gold_num(one, "score");
        wrong = (int64_t)json_len(tokens) != s->closed[r].len;
        for (int32_t t = 0; !wrong && t < s->closed[r].len; t++)
            wrong = int_at(tokens, (size_t)t) != s->closed[r].tokens[t];
        snprintf(what, sizeof what, "%s, image %lld: hypothesis %d", k->name, (long long)i, r);
        gold_check(k->c, what, (double)wrong, 0.5);
        gold_check(k->c, what, s->closed[r].score - score, 1e-5 * fmax(1, fabs(score)));
    }
    k->seen++;
    return OK;
}

/* The same search as transformers 5 does it: "v5_sequences", "v5_scores" (f32 there). */
static Status compare_v5(void *ctx, int64_t i, const Search *s) {
    Compare *k = ctx;
    char what[160];
    const Hypothesis *h = &s->closed[0];
    const Json *want = json_at(json_get(k->v, "v5_sequences"), (size_t)i);
    double score = 0;
    int64_t wrong = (size_t)h->len > json_len(want);
    for (int32_t t = 0; t < h->len; t++) wrong += int_at(want, (size_t)t) != h->tokens[t];
    if (h->ended) wrong += int_at(want, (size_t)h->len) != h->end;
    snprintf(what, sizeof what, "%s, image %lld by transformers 5", k->name, (long long)i);
    gold_check(k->c, what, (double)wrong, 0.5);
    if (json_num(json_at(json_get(k->v, "v5_scores"), (size_t)i), &score))
        gold_check(k->c, what, h->score - score, 1e-4 * fmax(1, fabs(score)));
    k->seen++;
    return OK;
}

static Status search_v5(Captioner *c, const Json *v) {
    Generator g;
    Compare k = {.c = c->c, .v = v, .name = json_str(json_get(v, "name"), NULL)};
    GenerateSpec spec = {.search = spec_of(v, &c->t.model.d), .images = c->B, .features = DT_F32};
    spec.search.rule = SEARCH_V5;
    Status st = generate_open(&g, c->c->b, &c->t.model, &spec);
    if (st != OK) return st;
    st = generate_captions(&g, (FeatureRows){c->features, NULL}, c->B, 0, compare_v5, &k);
    generate_close(&g);
    return st;
}

/* Twice: all images at once, and two at a time (with a rest when B is odd). */
static Status search_variant(Captioner *c, const Json *v) {
    const QFormer *p = &c->t.model;
    Status st = OK;
    for (int round = 0; st == OK && round < 2; round++) {
        Generator g;
        Compare k = {.c = c->c, .v = v, .name = json_str(json_get(v, "name"), NULL), .d = &p->d, .tok = c->tok};
        GenerateSpec spec = {.search = spec_of(v, &p->d), .images = round ? 2 : c->B, .features = DT_F32};
        st = generate_open(&g, c->c->b, p, &spec);
        if (st != OK) return st;
        st = generate_captions(&g, (FeatureRows){c->features, NULL}, c->B, 0, compare_caption, &k);
        gold_check(c->c, k.name ? k.name : "variant", (double)(k.seen - c->B), 0.5);
        generate_close(&g);
    }
    return st;
}

/* ---- logits ----------------------------------------------------------------------------------------------------- */

/* Logits of all images along ids (B,T) against want (B,T,V). */
static Status along(Captioner *c, const char *what, const int64_t *ids, int64_t ld, int32_t T, const double *want) {
    const QFormer *p = &c->t.model;
    GenerateSpec spec = {.search = greedy_spec(&p->d, T + 1), .images = c->B, .features = DT_F32};
    Generator g;
    Status st = generate_open(&g, c->c->b, p, &spec);
    if (st != OK) return st;
    st = generate_prefix(&g, (FeatureRows){c->features, NULL}, c->B);
    for (int32_t t = 0; st == OK && t < T; t++) {
        for (int32_t i = 0; i < c->B; i++) g.decode.rows[i] = (DecoderRow){i, i, (int32_t)ids[i * ld + t]};
        st = generate_step(&g, t, g.decode.rows, c->B, NULL, 0);
        for (int32_t i = 0; st == OK && i < c->B; i++)
            compare_row(c->c, what, g.logits + (int64_t)i * p->d.V, NULL, want + ((int64_t)i * T + t) * p->d.V, p->d.V);
    }
    generate_close(&g);
    return st;
}

/* Scores that greedy search chose from (after penalties), step by step, of the first steps. */
static Status processed_scores(Captioner *c, const Json *v, const StTensor *want) {
    const QFormer *p = &c->t.model;
    const char *name = json_str(json_get(v, "name"), NULL);
    int64_t steps = want->shape[1], V = p->d.V;
    GenerateSpec spec = {.search = spec_of(v, &p->d), .images = c->B, .features = DT_F32};
    Generator g;
    Status st = generate_open(&g, c->c->b, p, &spec);
    if (st == OK) st = generate_prefix(&g, (FeatureRows){c->features, NULL}, c->B);
    for (int32_t i = 0; st == OK && i < c->B; i++) {
        Search *s = &g.decode.search[i];
        search_begin(s, (uint32_t)i);
        for (int32_t t = 0; st == OK && s->rows && t < steps; t++) {
            DecoderRow row = {i, i, search_last(s, 0)};
            st = generate_step(&g, t, &row, 1, NULL, 0);
            if (st == OK) st = search_step(s, g.logits, V);
            if (st == OK) compare_row(c->c, name, NULL, s->score, (const double *)want->data + (i * steps + t) * V, V);
        }
    }
    generate_close(&g);
    return st;
}

/* ---- what sampling may draw ------------------------------------------------------------------------------------- */

static void nucleus(Captioner *c, const StFile *f) {
    const Json *list = json_get(c->c->json, "nucleus");
    const StTensor *logits = st_find(f, "nucleus.logits");
    int32_t V = c->t.model.d.V, rows = logits ? (int32_t)(st_elements(logits) / V) : 0;
    Candidate *cand = mem_new((size_t)V, sizeof *cand);
    BUG_ON(!cand, "out of memory");
    for (size_t k = 0; k < json_len(list); k++) {
        const Json *one = json_at(list, k);
        SearchSpec spec = {.top_p = gold_num(one, "top_p"), .top_k = (int32_t)gold_int(one, "top_k"),
                           .temperature = gold_num(one, "temperature")};
        char name[64];
        snprintf(name, sizeof name, "nucleus.%zu.prob", k);
        const StTensor *prob = st_find(f, name);
        for (int32_t r = 0; r < rows; r++) {
            int32_t n = search_filter(&spec, (const double *)logits->data + (int64_t)r * V, V, cand), missing = n;
            double most = prob ? 0 : NAN;
            for (int32_t v = 0; prob && v < V; v++) missing -= ((const double *)prob->data)[(int64_t)r * V + v] > 0;
            for (int32_t i = 0; prob && i < n; i++)
                most = gold_most(most, fabs(cand[i].score - ((const double *)prob->data)[(int64_t)r * V + cand[i].token]));
            gold_check(c->c, name, (double)(n - int_at(json_get(one, "kept"), (size_t)r)), 0.5);
            gold_check(c->c, name, missing, 0.5);
            gold_check(c->c, name, most, 1e-12);
        }
    }
    free(cand);
}

static bool f64_of(const StTensor *t, int64_t n) { return t && t->dtype == DT_F64 && st_elements(t) == n; }

Status gold_generate(Case *c) {
    Captioner k;
    StFile *f = NULL;
    Status st = captioner_open(&k, c, "outputs.safetensors");
    if (st != OK) return st;
    st = gold_open(c, NULL, "outputs.safetensors", &f);
    int64_t V = k.t.model.d.V;
    const StTensor *ids = f ? st_find(f, "teacher.ids") : NULL, *logits = f ? st_find(f, "teacher.logits") : NULL;
    if (st == OK && ids && ids->dtype == DT_I64 && ids->ndim == 2 && ids->shape[0] == k.B &&
        f64_of(logits, k.B * ids->shape[1] * V))
        st = along(&k, "teacher", ids->data, ids->shape[1], (int32_t)ids->shape[1], logits->data);
    if (st == OK) nucleus(&k, f);
    const Json *all = json_get(c->json, "variants");
    for (size_t i = 0; st == OK && i < json_len(all); i++) {
        const Json *v = json_at(all, i);
        char name[128];
        bool close_call = json_get(v, "same_in_float32") && !flag(v, "same_in_float32");
        if (close_call || c->precision != DT_F32)
            continue; /* rounding may choose another token, and all that follow differ */
        snprintf(name, sizeof name, "%s.scores", json_str(json_get(v, "name"), NULL));
        const StTensor *scores = st_find(f, name);
        st = search_variant(&k, v);
        if (st == OK && json_get(v, "v5_sequences")) st = search_v5(&k, v);
        if (st == OK && scores && scores->ndim == 3 && f64_of(scores, k.B * scores->shape[1] * V))
            st = processed_scores(&k, v, scores);
    }
    st_close(f);
    captioner_close(&k);
    return st;
}

/* {"greedy": {"max_length", "sequences", "first_logprob"}} and generate.safetensors with their logits (B,
 * max_length - 1, V). */
Status gold_greedy(Case *c) {
    Captioner k;
    StFile *f = NULL;
    const Json *v = json_get(c->json, "greedy");
    Status st = captioner_open(&k, c, "batch.safetensors");
    if (st != OK) return st;
    const QFormer *p = &k.t.model;
    st = gold_open(c, NULL, "generate.safetensors", &f);
    int64_t T = gold_int(v, "max_length");
    const StTensor *ids = f ? st_find(f, "sequences") : NULL, *logits = f ? st_find(f, "logits") : NULL;
    if (st == OK &&
        (!ids || ids->dtype != DT_I64 || st_elements(ids) != k.B * T || !f64_of(logits, k.B * (T - 1) * p->d.V)))
        st = err_set(ERR_FORMAT, "%s: sequences (%d,%lld) and their logits", st_path(f), k.B, (long long)T);
    if (st == OK) st = along(&k, "greedy logits", ids->data, T, (int32_t)T - 1, logits->data);
    Generator g;
    GenerateSpec spec = {.search = greedy_spec(&p->d, (int32_t)T), .images = k.B, .features = DT_F32};
    if (st == OK && c->precision == DT_F32 && (st = generate_open(&g, c->b, p, &spec)) == OK) {
        Compare cmp = {.c = c, .v = v, .name = "greedy", .d = &p->d};
        st = generate_captions(&g, (FeatureRows){k.features, NULL}, k.B, 0, compare_caption, &cmp);
        generate_close(&g);
    }
    st_close(f);
    captioner_close(&k);
    return st;
}
