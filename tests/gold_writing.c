/* gold_writing: texts that language models write, searched for as transformers and LAVIS do it, and what sampling draws
 * from. All by decode.h over lm_decoder.h: keys cached, visual rows of a picture once.
 *
 *     NAME.json with NAME_seeds.safetensors    "generate": "LM.RUN", transformers 5's rules (llama, causal)
 *     transformers5*.json                      "generate": "MODEL_RUN", the same
 *     lavis*.json                              "generate": "MODEL_RUN", LAVIS's calls, transformers 4.33's rules
 *     vicuna.json                              LAVIS's Vicuna on llama_untied_lm
 *     sampling.json                            next-token distributions of llama_lm: exactly, and 20,000 draws
 *
 * Ids must be equal, scores within 1e-4. In f32: in bf16 one rounding may choose another token. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/text/speech.h"
#include "eval/decode.h"
#include "kernels/base/mem.h"
#include "tests/gold_lm.h"

enum Form { FORM_CAUSAL, FORM_LIBRARY, FORM_LAVIS, FORM_VICUNA, FORM_SAMPLING };

typedef struct {
    Case *c;
    enum Form form;
    StFile *seeds;
    char model[64];                     /* which is open */
    GoldLm g;
    Tokenizer *t;
    Speech speech;
    GoldTexts x;
    void *memory;
    Tensor soft;
    bool open;
} Writer;

static bool starts(const char *s, const char *head) { return strncmp(s, head, strlen(head)) == 0; }

static bool there(const char *dir, const char *name) {
    char path[1300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, R_OK) == 0;
}

/* The file of visual rows, beside the case. */
static void seeds_of(const char *name, char *to, size_t n) {
    size_t stem = strlen(name) - strlen(".json");
    bool own = starts(name, "vicuna") || starts(name, "sampling"), older = starts(name, "lavis") || starts(name,
        "trans");
    if (own) snprintf(to, n, "llama_seeds.safetensors");
    else if (older) snprintf(to, n, "seeds%s.safetensors", strstr(name, "_more") ? "_more" : "");
    else snprintf(to, n, "%.*s_seeds.safetensors", (int)stem, name);
}

bool gold_is_writing(const char *dir, const char *name) {
    char seeds[200];
    size_t n = strlen(name);
    if (n < 6 || n > 100 || strcmp(name + n - 5, ".json") != 0 || starts(name, "lavis_captions")) return false;
    seeds_of(name, seeds, sizeof seeds);
    return there(dir, seeds);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static void close_model(Writer *w) {
    if (w->memory) w->c->b->release(w->memory);
    if (w->open) gold_lm_close(&w->g);
    tokenizer_close(w->t);
    free((void *)w->x.query);
    free((void *)w->x.w);
    free((void *)w->x.bias);
    w->x = (GoldTexts){0};
    w->memory = NULL, w->t = NULL, w->open = false;
}

static float *seed(const Writer *w, const char *tail, StTensor *shape) {
    char name[200];
    bool folder = w->form != FORM_LIBRARY && w->form != FORM_LAVIS;
    snprintf(name, sizeof name, "%s%c%s", w->model, folder ? '.' : '_', tail);
    return gold_floats(w->seeds, name, shape);
}

static Status open_model(Writer *w, const char *model) {
    char path[1300];
    StTensor q = {0};
    bool folder = w->form != FORM_LIBRARY && w->form != FORM_LAVIS;
    if (w->open && strcmp(w->model, model) == 0) return OK;
    close_model(w);
    snprintf(w->model, sizeof w->model, "%s", model);
    snprintf(path, sizeof path, "%s/%s%s", w->c->dir, model, folder ? "" : "_lm");
    w->x = (GoldTexts){.query = seed(w, "query_output", &q), .w = seed(w, "proj.weight", NULL),
                       .bias = seed(w, "proj.bias", NULL)};
    if (!w->x.query || !w->x.w || !w->x.bias || q.ndim != 3)
        return err_set(ERR_FORMAT, "%s: no seeds of %s", w->c->file, model);
    w->x.images = (int32_t)q.shape[0], w->x.Q = (int32_t)q.shape[1], w->x.Cq = (int32_t)q.shape[2];
    Status st = gold_lm_open(&w->g, w->c->b, path, w->form == FORM_LAVIS && strstr(model, "t5") ? "gelu" : NULL,
                             1 << 20);
    w->open = true;
    if (st == OK) st = tokenizer_open(&w->t, path);
    if (st == OK) st = speech_open(&w->speech, &w->g.m.d, w->t, false);
    if (w->form != FORM_LAVIS) w->speech.max_prompt = INT32_MAX;      /* the library cuts nothing off */
    if (st == OK) w->soft = gold_lm_soft(&w->g, &w->x, &w->memory);
    return st;
}

/* "t5_tied_beam5": the longest of the folders' names that begins it; "llama_lm.beam5": what stands before the point. */
static void model_of(const Writer *w, const char *name, char *model, size_t n) {
    char folder[100];
    const char *dot = strchr(name, '.');
    model[0] = 0;
    if (w->form == FORM_VICUNA) snprintf(model, n, "llama_untied_lm");
    else if (dot) snprintf(model, n, "%.*s", (int)(dot - name), name);
    for (size_t k = strlen(name); k > 0 && !model[0]; k--) {
        if (name[k] != '_') continue;
        snprintf(folder, sizeof folder, "%.*s_lm", (int)k, name);
        if (there(w->c->dir, folder)) snprintf(model, n, "%.*s", (int)k, name);
    }
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

typedef struct { TokenIds ids; int32_t *start; LmPrefix *p; int n; int32_t longest; } Prompts;

static void prompts_free(Prompts *x) {
    free(x->ids.v);
    free(x->start);
    free(x->p);
}

/* The i-th prompt of a run as text: one for all, a list, or questions in a template. */
static const char *prompt_text(const Json *run, int i, char *room, size_t n) {
    const Json *prompt = json_get(run, "prompt"), *many = json_get(run, "prompts"), *questions = json_get(run,
        "questions");
    const char *text = json_str(many ? json_at(many, (size_t)i) : json_len(prompt) ? json_at(prompt, (size_t)i)
                                : prompt, NULL);
    const char *question = json_str(json_at(questions, (size_t)i), NULL), *at = text ? strstr(text, "{}") : NULL;
    if (!question || !at) return text ? text : "";
    snprintf(room, n, "%.*s%s%s", (int)(at - text), text, question, at + 2);
    return room;
}

static Status put_prompt(Writer *w, const char *text, TokenIds *ids) {
    int32_t target;
    if (w->form != FORM_VICUNA) return speech_ids(&w->speech, text, NULL, ids, &target);
    /* LAVIS sets bos to </s>, and cuts on the left where nothing here is too long */
    Status st = ids_push(ids, 2);
    return st == OK ? tokenizer_pieces(w->t, text, strlen(text), ids) : st;
}

/* The fixture's own prompt ids, where it names them, are what our tokenizer must give. */
static void check_ids(Case *c, const char *name, const Json *want, const int32_t *ids, size_t n) {
    char what[160];
    int64_t v = -1, wrong = json_len(want) != n;
    for (size_t i = 0; i < n && !wrong; i++) wrong = !json_int(json_at(want, i), &v) || v != ids[i];
    snprintf(what, sizeof what, "%s: prompt ids", name);
    gold_check(c, what, (double)wrong, 0.5);
}

static Status take_prompts(Writer *w, const char *name, const Json *run, Prompts *x) {
    const Json *want = json_get(run, "prompt_ids");
    Status st = OK;
    *x = (Prompts){.n = w->x.images};
    x->start = mem_new((size_t)x->n + 1, sizeof *x->start);
    x->p = mem_new((size_t)x->n, sizeof *x->p);
    if (!x->start || !x->p) return ERR_MEMORY;
    for (int i = 0; i < x->n && st == OK; i++) {
        char room[2000];
        st = put_prompt(w, prompt_text(run, i, room, sizeof room), &x->ids);
        x->start[i + 1] = (int32_t)x->ids.n;
    }
    for (int i = 0; i < x->n && st == OK; i++) {
        int32_t n = x->start[i + 1] - x->start[i];
        const Json *own = json_type(json_at(want, 0)) == J_ARRAY ? json_at(want, (size_t)i) : want;
        x->p[i] = (LmPrefix){.soft = i * w->x.Q, .nsoft = w->x.Q, .ids = x->ids.v + x->start[i], .n = n};
        x->longest = n > x->longest ? n : x->longest;
        if (want) check_ids(w->c, name, own, x->p[i].ids, (size_t)n);
    }
    return st;
}

/* ---- what is searched for ---------------------------------------------------------------------------------------- */

static double num_or(const Json *o, const char *key, double otherwise) {
    double v = otherwise;
    json_num(json_get(o, key), &v);
    return v;
}

/* LAVIS's defaults: generate, and predict_answers where questions are asked. */
static void as_lavis(const Writer *w, const Json *run, SearchSpec *s) {
    bool asked = json_get(run, "questions") != NULL, t5 = w->g.m.d.family == LM_T5, vicuna = w->form == FORM_VICUNA;
    int32_t most = (int32_t)num_or(run, asked ? "max_len" : "max_length", asked ? 10 : vicuna ? 256 : 30);
    s->rule = SEARCH_V4;
    s->beams = (int32_t)num_or(run, "num_beams", 5);
    s->start = t5 ? w->g.m.d.start : vicuna ? 1 : tokenizer_ids(w->t)->bos;
    s->max_length = most + (t5 || (asked && !vicuna));       /* max_new_tokens there */
    s->min_length = (int32_t)num_or(run, "min_length", 1);
    s->length_penalty = num_or(run, "length_penalty", asked ? t5 ? -1 : 0 : 1);
    s->repetition_penalty = num_or(run, "repetition_penalty", vicuna ? 1.5 : 1);
}

static void as_library(const Writer *w, const Json *run, SearchSpec *s) {
    s->rule = SEARCH_V5;
    s->start = w->g.m.d.family == LM_T5 ? w->g.m.d.start : -1;
    s->beams = (int32_t)num_or(run, "num_beams", 1);
    s->max_length = (int32_t)num_or(run, "max_new_tokens", 30) + 1;
    s->min_length = (int32_t)num_or(run, "min_new_tokens", 0) + 1;
    s->length_penalty = num_or(run, "length_penalty", 1);
    s->repetition_penalty = num_or(run, "repetition_penalty", 1);
}

static SearchSpec spec_of(const Writer *w, const Json *run) {
    SearchSpec s = {.temperature = 1, .top_p = 1};
    if (w->form == FORM_LAVIS || w->form == FORM_VICUNA) as_lavis(w, run, &s);
    else as_library(w, run, &s);
    s.mode = s.beams > 1 ? SEARCH_BEAM : SEARCH_GREEDY;
    bool opt = w->g.m.d.family == LM_OPT;
    s.nends = opt ? 1 : w->g.m.d.nends;
    for (int i = 0; i < s.nends; i++) s.ends[i] = opt ? w->speech.end : w->g.m.d.end[i];
    return s;
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

typedef struct { Writer *w; const char *name; const Json *run; SearchSpec spec; int64_t each; } Compare;

/* Ids as the library returned them: made-up and real start ids in front (4.33), the end token, pads behind. */
static int64_t wrong_ids(const Compare *k, const Json *want, const Hypothesis *h) {
    size_t at = 0;
    int64_t v = -1, wrong = 0;
    if (k->spec.rule == SEARCH_V4) wrong += !json_int(json_at(want, at++), &v) || v != k->spec.start;
    for (int32_t t = 1; t < h->len; t++) wrong += !json_int(json_at(want, at++), &v) || v != h->tokens[t];
    if (h->ended) wrong += !json_int(json_at(want, at++), &v) || v != h->end;
    if (h->ended && k->w->form != FORM_CAUSAL) return wrong;         /* pads, or the end token again */
    return wrong + (json_len(want) != at);
}

static Status compare_text(void *ctx, int64_t i, const Search *s) {
    const Compare *k = ctx;
    const Json *one = json_get(k->run, "one_by_one"), *ids = one ? one : json_get(k->run, "ids");
    char what[160];
    for (int64_t n = 0; n < k->each; n++) {
        size_t at = (size_t)(i * k->each + n);
        double score;
        snprintf(what, sizeof what, "%s, picture %lld", k->name, (long long)i);
        gold_check(k->w->c, what, n < s->nclosed ? (double)wrong_ids(k, json_at(ids, at), &s->closed[n]) : 1, 0.5);
        if (n < s->nclosed && json_num(json_at(json_get(k->run, "scores"), at), &score))
            gold_check(k->w->c, what, s->closed[n].score - score, 1e-4 * fmax(1, fabs(score)));
    }
    return OK;
}

static Status run_search(Writer *w, const char *name, const Json *run) {
    Prompts x = {0};
    LmDecoder dec = {0};
    Decode decode = {0};
    Compare k = {w, name, run, spec_of(w, run), (int64_t)num_or(run, "num_return_sequences",
                                                                num_or(run, "num_captions", 1))};
    Status st = take_prompts(w, name, run, &x);
    int32_t length = decode_length(&k.spec, w->g.m.d.family == LM_T5);
    LmDecoderSpec spec = {.prefixes = 3, .slots = decode_slots(&k.spec, 3), .rows = w->x.Q + x.longest,
                          .length = length > 1 ? length : 1};         /* one new token is never fed */
    if (st == OK) st = lm_decoder_open(&dec, w->c->b, &w->g.m, &spec);
    Decoder d = lm_decoder(&dec);
    if (st == OK) st = decode_open(&decode, &d, &k.spec);
    if (st == OK) st = decode_texts(&decode, &(LmGiven){w->soft, x.p}, x.n, 0, compare_text, &k);
    decode_close(&decode);
    lm_decoder_close(&dec);
    prompts_free(&x);
    return st;
}

/* ---- sampling ---------------------------------------------------------------------------------------------------- */

/* Logits behind the picture, the prompt and the tokens of `before`. */
static Status logits_after(Writer *w, const Json *one, const Prompts *x, float *out) {
    const Json *before = json_get(one, "before");
    int64_t image = gold_int(one, "image"), v = 0;
    int32_t n = (int32_t)json_len(before);
    const float *logits = NULL;
    LmDecoder dec = {0};
    LmDecoderSpec spec = {.prefixes = 1, .slots = 1, .length = n + 1, .rows = w->x.Q + x->longest};
    Status st = lm_decoder_open(&dec, w->c->b, &w->g.m, &spec);
    Decoder d = lm_decoder(&dec);
    if (st == OK) st = d.prefix(d.self, &(LmGiven){w->soft, x->p}, image, 1, &logits);
    for (int32_t i = 0; i < n && st == OK; i++) {
        json_int(json_at(before, (size_t)i), &v);
        st = d.step(d.self, i, &(DecoderRow){0, 0, (int32_t)v}, 1, NULL, 0, &logits);
    }
    if (st == OK) memcpy(out, logits, (size_t)d.V * sizeof *out);
    lm_decoder_close(&dec);
    return st;
}

static void begin_after(Search *s, const Json *before, uint32_t draw) {
    int64_t v = 0;
    search_begin(s, draw);
    for (size_t i = 0; i < json_len(before); i++) {
        json_int(json_at(before, i), &v);
        s->tokens[s->len++] = (int32_t)v;
    }
}

/* The distribution, candidate by candidate; then chi-square of draws over cells of five expected at least. */
static void check_distribution(Case *c, const char *name, const Json *one, const Candidate *cand, int32_t n) {
    const Json *ids = json_get(one, "ids"), *p = json_get(one, "probabilities");
    int64_t kept = gold_int(one, "kept");
    gold_check(c, name, (double)(n - kept), 0.5);
    for (size_t i = 0; i < json_len(ids); i++) {
        int64_t id = -1;
        double want = NAN, got = NAN;
        json_int(json_at(ids, i), &id);
        json_num(json_at(p, i), &want);
        for (int32_t k = 0; k < n; k++)
            if (cand[k].token == id) got = cand[k].score;
        gold_check(c, name, got - want, 1e-6);
    }
}

static double chi_square(const Json *one, const int32_t *count, int32_t draws, double *outside) {
    const Json *ids = json_get(one, "ids"), *p = json_get(one, "probabilities");
    double chi = 0, rest = 0;
    int64_t seen = 0, in_rest = 0;
    for (size_t i = 0; i < json_len(ids); i++) {
        int64_t id = 0;
        double want = 0;
        json_int(json_at(ids, i), &id);
        json_num(json_at(p, i), &want);
        seen += count[id];
        if (want * draws < 5) rest += want * draws, in_rest += count[id];
        else chi += pow(count[id] - want * draws, 2) / (want * draws);
    }
    *outside = (double)(draws - seen);
    return rest > 0 ? chi + pow((double)in_rest - rest, 2) / rest : chi;
}

static Status run_sampling(Writer *w, const Json *one, const Prompts *x, int32_t draws) {
    const char *name = json_str(json_get(one, "name"), NULL);
    const Json *before = json_get(one, "before");
    int32_t V = w->g.m.d.V;
    SearchSpec spec = {.mode = SEARCH_SAMPLE, .rule = SEARCH_V5, .beams = 1, .max_length =
        (int32_t)json_len(before) + 3,
                       .length_penalty = 1, .repetition_penalty = num_or(one, "repetition_penalty", 1), .start = -1,
                       .temperature = num_or(one, "temperature", 1), .top_p = num_or(one, "top_p", 1),
                       .top_k = (int32_t)num_or(one, "top_k", 0), .seed = 5};
    Search s = {0};
    float *logits = mem_new((size_t)V, sizeof *logits);
    int32_t *count = mem_new((size_t)V, sizeof *count);
    Candidate *cand = mem_new((size_t)V, sizeof *cand);
    Status st = logits && count && cand ? search_open(&s, &spec, V) : ERR_MEMORY;
    if (st == OK) st = logits_after(w, one, x, logits);
    for (int32_t i = 0; i < draws && st == OK; i++) {
        begin_after(&s, before, (uint32_t)i);
        st = search_step(&s, logits, V);
        if (st == OK) count[s.tokens[s.len - 1]]++;
        if (st == OK && !i) check_distribution(w->c, name, one, cand, search_filter(&spec, s.score, V, cand));
    }
    if (st == OK) {
        double outside, chi = chi_square(one, count, draws, &outside);
        gold_check(w->c, name, outside, gold_num(one, "sum_of_listed") > 1 - 1e-9 ? 0.5 : draws);
        gold_check(w->c, name, chi, gold_num(one, "chi2_limit"));
    }
    search_close(&s);
    free(logits);
    free(count);
    free(cand);
    return st;
}

static Status all_sampling(Writer *w) {
    const Json *cases = json_get(w->c->json, "cases");
    Prompts x = {0};
    Status st = open_model(w, "llama_lm");
    if (st == OK) st = take_prompts(w, "sampling", w->c->json, &x);
    for (size_t i = 0; i < json_len(cases) && st == OK; i++)
        st = run_sampling(w, json_at(cases, i), &x, (int32_t)gold_int(w->c->json, "draws"));
    prompts_free(&x);
    return st;
}

Status gold_writing(Case *c) {
    char path[1300], seeds[200], model[64];
    const char *name = strrchr(c->file, '/') + 1;
    const Json *runs = json_get(c->json, "generate"), *run;
    Writer w = {.c = c, .form = starts(name, "lavis") ? FORM_LAVIS : starts(name, "trans") ? FORM_LIBRARY
                : starts(name, "vicuna") ? FORM_VICUNA : starts(name, "sampling") ? FORM_SAMPLING : FORM_CAUSAL};
    if (c->precision != DT_F32) return err_set(ERR_MISSING, "runs in f32: in bf16 a rounding may choose another token");
    seeds_of(name, seeds, sizeof seeds);
    snprintf(path, sizeof path, "%s/%s", c->dir, seeds);
    Status st = st_open(&w.seeds, path);
    if (st == OK && w.form == FORM_SAMPLING) st = all_sampling(&w);
    for (const char *key = json_next(runs, NULL, &run); key && st == OK; key = json_next(runs, key, &run)) {
        model_of(&w, key, model, sizeof model);
        st = open_model(&w, model);
        if (st == OK) st = err_context(run_search(&w, key, run), "%s", key);
    }
    close_model(&w);
    st_close(w.seeds);
    return st;
}
