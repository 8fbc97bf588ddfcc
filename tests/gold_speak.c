/* gold_speak: see gold_speak.h. Ids must be equal, scores within 1e-4; not those under a repetition penalty, which in
 * transformers also sees the prompt's ids (spec/stage2.md 2b). */
#include "tests/gold_speak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/decode.h"
#include "eval/visual.h"
#include "kernels/base/mem.h"

enum { MOST = 64, ROOM = 512 };         /* texts of a run; ids of a prompt */

typedef struct {
    int n;
    int32_t ids[MOST][ROOM], asked[MOST][ROOM];
    LmPrefix p[MOST];
    VisualAsk ask[MOST];
    int32_t longest, longest_asked;
} Prompts;

/* ---- what is asked ----------------------------------------------------------------------------------------------- */

static const Json *own_or_common(const Json *run, const Json *common, const char *key) {
    const Json *own = json_get(run, key);
    return own ? own : json_get(common, key);
}

static int32_t put_ids(int32_t *to, const Json *list, int i) {
    const Json *own = json_type(json_at(list, 0)) == J_ARRAY ? json_at(list, (size_t)i) : list;
    int32_t n = (int32_t)json_len(own);
    for (int32_t k = 0; k < n && k < ROOM; k++) {
        int64_t v = 0;
        json_int(json_at(own, (size_t)k), &v);
        to[k] = (int32_t)v;
    }
    return n < ROOM ? n : ROOM;
}

static Status put_text(const GoldSpeak *g, Prompts *x, int i, const char *text) {
    TokenIds ids = {0};
    int32_t target;
    int count = 0;
    if (!g->speech) return err_set(ERR_FORMAT, "a prompt as text, and no tokenizer beside");
    Status st = speech_ids(g->speech, text, NULL, &ids, &target);
    x->p[i].n = (int32_t)(ids.n < ROOM ? ids.n : ROOM);
    if (st == OK) memcpy(x->ids[i], ids.v, (size_t)x->p[i].n * sizeof *ids.v);
    free(ids.v);
    if (st == OK && g->words) st = tokenizer_encode(g->words, text, strlen(text), ROOM, x->asked[i], &count, NULL);
    x->ask[i].n = count;
    return st;
}

/* One prompt a picture, or what one run asks of all. */
static Status take_prompts(const GoldSpeak *g, const Json *run, const Json *common, Prompts *x) {
    const Json *ids = own_or_common(run, common, "prompt_ids"), *asked = own_or_common(run, common, "qformer_ids");
    const Json *texts = own_or_common(run, common, "prompts"), *text = own_or_common(run, common, "prompt");
    Status st = g->images > MOST ? err_set(ERR_MISSING, "more than %d pictures", MOST) : OK;
    *x = (Prompts){.n = g->images};
    for (int i = 0; i < x->n && st == OK; i++) {
        const char *said = json_str(texts ? json_at(texts, (size_t)i) : text, NULL);
        if (ids) x->p[i].n = put_ids(x->ids[i], ids, i), x->ask[i].n = put_ids(x->asked[i], asked, i);
        else st = put_text(g, x, i, said ? said : "");
        x->p[i].soft = i * g->model->d.Q, x->p[i].nsoft = g->model->d.Q, x->p[i].ids = x->ids[i];
        x->ask[i].ids = x->asked[i];
        x->longest = x->p[i].n > x->longest ? x->p[i].n : x->longest;
        x->longest_asked = x->ask[i].n > x->longest_asked ? x->ask[i].n : x->longest_asked;
    }
    return st;
}

/* ---- what is searched for ---------------------------------------------------------------------------------------- */

static double num_or(const Json *o, const char *key, double otherwise) {
    double v = otherwise;
    json_num(json_get(o, key), &v);
    return v;
}

static void take_ends(const GoldSpeak *g, SearchSpec *s) {
    int64_t v;
    s->nends = g->lm->d.nends;
    for (int i = 0; i < s->nends; i++) s->ends[i] = g->lm->d.end[i];
    if (json_int(json_get(g->c->json, "eos_token_id"), &v)) s->ends[0] = (int32_t)v, s->nends = 1;
}

static SearchSpec spec_of(const GoldSpeak *g, const Json *run) {
    SearchSpec s = {.rule = SEARCH_V5, .start = g->lm->d.family == LM_T5 ? g->lm->d.start : -1, .temperature = 1,
                    .top_p = 1, .beams = (int32_t)num_or(run, "num_beams", 1),
                    .max_length = (int32_t)num_or(run, "max_new_tokens", 30) + 1,
                    .min_length = (int32_t)num_or(run, "min_new_tokens", 0) + 1,
                    .length_penalty = num_or(run, "length_penalty", 1),
                    .repetition_penalty = num_or(run, "repetition_penalty", 1),
                    .no_repeat = (int32_t)num_or(run, "no_repeat_ngram_size", 0)};
    s.mode = s.beams > 1 ? SEARCH_BEAM : SEARCH_GREEDY;
    take_ends(g, &s);
    return s;
}

typedef struct { const GoldSpeak *g; const char *name; const Json *run; int64_t each; } Compare;

/* New tokens and the end token; behind it the library pads. */
static int64_t wrong_ids(const Json *want, const Hypothesis *h) {
    size_t at = 0;
    int64_t v = -1, wrong = 0;
    for (int32_t t = 1; t < h->len; t++) wrong += !json_int(json_at(want, at++), &v) || v != h->tokens[t];
    if (h->ended) return wrong + (!json_int(json_at(want, at++), &v) || v != h->end);
    return wrong + (json_len(want) != at);
}

static Status compare_text(void *ctx, int64_t i, const Search *s) {
    const Compare *k = ctx;
    const Json *ids = json_get(k->run, "ids"), *scores = json_get(k->run, "scores");
    char what[160];
    if (json_get(k->run, "repetition_penalty")) scores = NULL;
    snprintf(what, sizeof what, "%s, picture %lld", k->name, (long long)i);
    for (int64_t n = 0; n < k->each; n++) {
        size_t at = (size_t)(i * k->each + n);
        double score;
        bool there = n < s->nclosed;
        gold_check(k->g->c, what, there ? (double)wrong_ids(json_at(ids, at), &s->closed[n]) : 1, 0.5);
        if (there && json_num(json_at(scores, at), &score))
            gold_check(k->g->c, what, s->closed[n].score - score, 1e-4 * fmax(1, fabs(score)));
    }
    return OK;
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

static Status look(const GoldSpeak *g, const Prompts *x, Visual *v, Tensor *soft) {
    int32_t asked = x && g->model->d.V ? x->longest_asked : 0;
    VisualSpec spec = {.images = g->images, .asked = asked, .features = DT_F32};
    Status st = visual_open(v, g->c->b, g->model, &spec);
    return st == OK ? visual_rows(v, (FeatureRows){g->features, NULL}, g->images, asked ? x->ask : NULL, soft) : st;
}

Status gold_speak_soft(const GoldSpeak *g, float **out) {
    Visual v = {0};
    Tensor soft;
    Status st = look(g, NULL, &v, &soft);
    size_t n = st == OK ? (size_t)tensor_count(soft) : 0;
    *out = st == OK ? mem_new(n, sizeof **out) : NULL;
    if (st == OK && !*out) st = ERR_MEMORY;
    if (st == OK) g->c->b->download(*out, soft.data, n * sizeof **out);
    visual_close(&v);
    return st;
}

static Status run_search(const GoldSpeak *g, const char *name, const Json *run, const Json *common, Prompts *x) {
    Visual v = {0};
    LmDecoder dec = {0};
    Decode decode = {0};
    Tensor soft;
    SearchSpec s = spec_of(g, run);
    Compare k = {g, name, run, (int64_t)num_or(run, "num_return_sequences", 1)};
    bool fed = g->lm->d.family == LM_T5;
    Status st = take_prompts(g, run, common, x);
    if (st == OK) st = look(g, x, &v, &soft);
    LmDecoderSpec spec = {.prefixes = 3, .slots = decode_slots(&s, 3), .length = decode_length(&s, fed),
                          .rows = g->model->d.Q + x->longest};
    if (st == OK) st = lm_decoder_open(&dec, g->c->b, g->lm, &spec);
    Decoder d = lm_decoder(&dec);
    if (st == OK) st = decode_open(&decode, &d, &s);
    if (st == OK) st = decode_texts(&decode, &(LmGiven){soft, x->p}, x->n, 0, compare_text, &k);
    decode_close(&decode);
    lm_decoder_close(&dec);
    visual_close(&v);
    return st;
}

Status gold_speak(const GoldSpeak *g, const Json *generate) {
    const Json *searches = json_get(generate, "searches"), *runs = searches ? searches : generate, *run;
    Prompts *x = mem_new(1, sizeof *x);
    Status st = x ? OK : ERR_MEMORY;
    for (const char *name = json_next(runs, NULL, &run); name && st == OK; name = json_next(runs, name, &run))
        if (json_type(run) == J_OBJECT && json_get(run, "ids"))
            st = err_context(run_search(g, name, run, searches ? generate : NULL, x), "%s", name);
    free(x);
    return st;
}
