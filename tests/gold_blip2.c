/* gold_blip2: whole models of Hugging Face, Blip2ForConditionalGeneration and InstructBlipForConditionalGeneration: a
 * folder with config.json, weights, io.safetensors and expected.json. Vision features go through Q-Former, projection
 * and language model as training has them (train/stage2.h); losses and gradients within 1e-5. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/lm_config.h"
#include "checkpoints/params_io.h"
#include "kernels/base/mem.h"
#include "tests/gold_speak.h"
#include "train/stage2.h"

bool gold_is_blip2(const char *dir, const char *name) {
    static const char *const beside[] = {"config.json", "io.safetensors"};
    char path[1200];
    if (strcmp(name, "expected.json") != 0) return false;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, beside[i]);
        if (access(path, R_OK) != 0) return false;
    }
    return true;
}

typedef struct {
    Case *c;
    StFile *io;
    LmSource src;
    Dims d;
    Arena run, step;
    QFormer model;
    Lm lm;
    float *features;                    /* (images, P, E) */
    int32_t images;
} Whole;

/* ---- the model --------------------------------------------------------------------------------------------------- */

static Status open_parts(Whole *a, const Backend *b) {
    Status st = qformer_open(&a->model, &a->d, b, &a->run, &(ParamsSpec){.training = true});
    if (st == OK) st = lm_open(&a->lm, &a->src.d, b, &a->run, a->src.d.N ? a->src.d.N : 512);
    b->set_workspace(arena_push(&a->run, b->workspace, 1), b->workspace);
    return st;
}

static int32_t size_of(const Json *o, const char *key, int32_t otherwise) {
    int64_t n = otherwise;
    json_int(json_get(o, key), &n);
    return (int32_t)n;
}

/* Of the Q-Former, with transformers' defaults; words only where prompts enter it. */
static Status qformer_sizes(Dims *d, const Json *config, const LmDims *lm, const char *path) {
    const Json *q = json_get(config, "qformer_config");
    const char *type = json_str(json_get(config, "model_type"), NULL);
    bool text = type && strcmp(type, "instructblip") == 0;
    json_bool(json_get(q, "use_qformer_text_input"), &text);
    *d = (Dims){.W = lm->E, .Q = size_of(config, "num_query_tokens", 32), .L = size_of(q, "num_hidden_layers", 12),
                .C = size_of(q, "hidden_size", 768), .H = size_of(q, "num_attention_heads", 12),
                .F = size_of(q, "intermediate_size", 3072), .E = size_of(q, "encoder_hidden_size", 1408),
                .X = size_of(q, "cross_attention_frequency", 2), .V = text ? size_of(q, "vocab_size", 30522) : 0,
                .N = text ? size_of(q, "max_position_embeddings", 512) : 0};
    return lm_config_habits(d, config, path);
}

static Status read_sizes(Whole *a) {
    char path[1200];
    Json *config = NULL;
    snprintf(path, sizeof path, "%s/config.json", a->c->dir);
    Status st = lm_source_open(&a->src, a->c->dir);
    if (st == OK) st = json_parse_file(&config, path);
    if (st == OK) st = qformer_sizes(&a->d, config, &a->src.d, path);
    json_free(config);
    return st;
}

static Status read_features(Whole *a) {
    StTensor shape = {0};
    a->features = gold_floats(a->io, "vision_features", &shape);
    if (!a->features) a->features = gold_floats(a->io, "vision_last_hidden_state", &shape);
    if (!a->features || shape.ndim != 3) return err_set(ERR_FORMAT, "io.safetensors has no vision features");
    a->images = (int32_t)shape.shape[0], a->d.P = (int32_t)shape.shape[1];
    return OK;
}

static float *norm_part(const Whole *a, const char *tail) {
    char name[64];
    snprintf(name, sizeof name, "vision_model.post_layernorm.%s", tail);
    const StTensor *t = ws_find(a->src.ws, name);
    float *x = t ? mem_new((size_t)st_elements(t), sizeof *x) : NULL;
    if (x) dtype_to_f32(x, t->data, t->dtype, (size_t)st_elements(t));
    return x;
}

/* Features as ln_vision meets them: what is given behind the norm goes back through gain, offset and eps. A row y of
 * variance v came of s y with (s y) / sqrt(s^2 v + eps) = y. */
static void undo_norm(float *x, const double *y, int64_t E, const float *gain, const float *offset, double eps) {
    double mean = 0, v = 0;
    for (int64_t e = 0; e < E; e++) mean += (y[e] - offset[e]) / gain[e] / (double)E;
    for (int64_t e = 0; e < E; e++) v += pow((y[e] - offset[e]) / gain[e] - mean, 2) / (double)E;
    double s = sqrt(eps / fmax(1 - v, 1e-14));
    for (int64_t e = 0; e < E; e++) x[e] = (float)(s * (y[e] - offset[e]) / gain[e]);
}

static Status prepare_features(Whole *a) {
    int64_t E = a->d.E, rows = (int64_t)a->images * a->d.P;
    if (st_find(a->io, "vision_features")) return OK;
    const StTensor *y = st_find(a->io, "vision_last_hidden_state");
    float *gain = norm_part(a, "weight"), *offset = norm_part(a, "bias");
    bool given = gain && offset && y->dtype == DT_F64;
    for (int64_t r = 0; r < rows && given; r++)
        undo_norm(a->features + r * E, (const double *)y->data + r * E, E, gain, offset, dims_eps_vision(&a->d));
    free(gain);
    free(offset);
    return given ? OK : err_set(ERR_FORMAT, "%s: no vision_model.post_layernorm, or features behind it in no float64",
                                a->c->dir);
}

static Status load_parts(Whole *a) {
    WeightSource *ws = NULL;
    LoadReport r = {0};
    Status st = lm_load(&a->lm, &a->src);
    if (st == OK) st = ws_open(&ws, a->c->dir, NULL, NULL);
    if (st == OK) st = load_weights(&a->model.params, ws, false, &r);
    if (st == OK && r.missing)
        st = err_set(ERR_FORMAT, "%s: %d tensors are missing, first %s", a->c->dir, r.missing, r.first);
    ws_close(ws);
    return st;
}

static Status open_whole(Whole *a) {
    Backend null = *backend_null(a->c->b->elem);
    Status st = gold_open(a->c, NULL, "io.safetensors", &a->io);
    if (st == OK) st = read_sizes(a);
    if (st == OK) st = read_features(a);
    if (st != OK) return st;
    st = prepare_features(a);
    if (st != OK) return st;
    null.workspace = a->c->b->workspace;
    arena_measure(&a->run, "model");
    st = open_parts(a, &null);
    size_t bytes = a->run.peak;
    qformer_close(&a->model);
    lm_close(&a->lm);
    if (st == OK) st = arena_open(&a->run, "model's", a->c->b, bytes);
    if (st == OK) st = open_parts(a, a->c->b);
    return st == OK ? load_parts(a) : st;
}

static void close_whole(Whole *a) {
    qformer_close(&a->model);
    lm_close(&a->lm);
    arena_close(&a->run, a->c->b);
    lm_source_close(&a->src);
    st_close(a->io);
    free(a->features);
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

enum { MOST_TEXTS = 64, MOST_IDS = 512 };
typedef struct {
    LmItem items[MOST_TEXTS];
    ObjectiveView views[MOST_TEXTS];
    int n, nviews;
    int32_t ids[MOST_TEXTS][MOST_IDS], asked[MOST_TEXTS][MOST_IDS];
} Texts;

static int32_t put_ids(int32_t *to, const Json *list) {
    for (size_t i = 0; i < json_len(list) && i < MOST_IDS / 2; i++) {
        int64_t v = 0;
        json_int(json_at(list, i), &v);
        to[i] = (int32_t)v;
    }
    return (int32_t)json_len(list);
}

static int64_t int_at(const Json *list, size_t i) {
    int64_t v = 0;
    json_int(json_at(list, i), &v);
    return v;
}

static void add_text(Texts *x, int64_t image, const Json *prompt, const Json *target) {
    LmItem *it = &x->items[x->n];
    *it = (LmItem){.image = (int32_t)image, .ids = x->ids[x->n]};
    it->target = put_ids(x->ids[x->n], prompt);
    it->n = it->target + put_ids(x->ids[x->n] + it->target, target);
    x->n++;
}

/* Cases of items, or of lists beside each other, where every text asks the Q-Former, too. */
static void texts_of_case(Texts *x, const Json *j) {
    const Json *items = json_get(j, "items"), *asked = json_get(j, "qformer_ids");
    x->n = x->nviews = 0;
    for (size_t i = 0; i < json_len(items) && i < MOST_TEXTS; i++) {
        const Json *it = json_at(items, i);
        add_text(x, gold_int(it, "image"), json_get(it, "prompt_ids"), json_get(it, "target_ids"));
    }
    for (size_t i = 0; i < json_len(asked) && i < MOST_TEXTS; i++) {
        x->views[x->nviews] = (ObjectiveView){.image = (int32_t)int_at(json_get(j, "images"), i), .ids = x->asked[i]};
        x->views[x->nviews++].n = put_ids(x->asked[i], json_at(asked, i));
        add_text(x, (int64_t)i, json_at(json_get(j, "prompt_ids"), i), json_at(json_get(j, "target_ids"), i));
    }
}

/* From what HF's forward takes: image tokens in front, labels of all rows, or (T5) of the decoder's. */
static void texts_of_tensors(Texts *x, const Whole *a, const char *labels_name) {
    const StTensor *in = st_find(a->io, "input_ids"), *mask = st_find(a->io, "attention_mask");
    const StTensor *labels = st_find(a->io, labels_name);
    BUG_ON(!in || !mask || !labels || in->ndim != 2 || labels->ndim != 2, "no input_ids, attention_mask, %s",
           labels_name);
    int64_t W = in->shape[1], L = labels->shape[1], Q = a->d.Q;
    const int64_t *id = in->data, *m = mask->data, *l = labels->data;
    bool t5 = a->src.d.family == LM_T5;
    x->n = x->nviews = 0;
    for (int64_t r = 0; r < in->shape[0]; r++) {
        LmItem *it = &x->items[x->n];
        int32_t *ids = x->ids[x->n++];
        *it = (LmItem){.image = (int32_t)r, .ids = ids, .target = -1};
        for (int64_t i = Q; i < W; i++) {
            if (!m[r * W + i]) continue;
            if (!t5 && it->target < 0 && l[r * L + i] >= 0) it->target = it->n;
            ids[it->n++] = (int32_t)id[r * W + i];
        }
        if (t5) it->target = it->n;
        for (int64_t i = 0; t5 && i < L; i++)
            if (l[r * L + i] >= 0) ids[it->n++] = (int32_t)l[r * L + i];
    }
}

/* ---- a pass ------------------------------------------------------------------------------------------------------ */

static Status open_step(Whole *a, Stage2 *s, const Stage2Spec *spec, Arena *buffers) {
    Backend null = *backend_null(a->c->b->elem);
    Arena run, step;
    Stage2 m;
    ObjectiveBatch worst;
    ObjectiveLosses l;
    void *room = NULL;
    null.unified = a->c->b->unified;
    arena_measure(&run, "buffers");
    arena_measure(&step, "step");
    Status st = stage2_open(&m, &(ObjectiveSite){&null, &a->model, &run, &step, a->images, 1}, spec);
    if (st == OK) st = stage2_worst_batch(&worst, &m, DT_F32, &room);
    if (st == OK) st = stage2_losses(&m, &worst, 0, 1, true, &l);
    stage2_close(&m);
    free(room);
    if (st == OK) st = arena_open(buffers, "buffers", a->c->b, run.peak);
    if (st == OK) st = arena_open(&a->step, "step's", a->c->b, step.peak);
    return st == OK ? stage2_open(s, &(ObjectiveSite){a->c->b, &a->model, buffers, &a->step, a->images, 1}, spec) : st;
}

static Status run_texts(Whole *a, const Texts *x, double *loss, int64_t *targets) {
    Stage2 s = {0};
    Arena buffers = {0};
    ObjectiveLosses l = {0};
    Stage2Spec spec = {.lm = &a->lm, .texts = MOST_TEXTS / 8};
    for (int i = 0; i < x->n; i++)
        if (x->items[i].n > spec.ids) spec.ids = x->items[i].n;
    for (int i = 0; i < x->nviews; i++)
        if (x->views[i].n > spec.asked) spec.asked = x->views[i].n;
    a->c->b->zero(a->model.params.g, (size_t)a->model.params.learns * sizeof(float));
    Status st = open_step(a, &s, &spec, &buffers);
    ObjectiveBatch batch = {.features = a->features, .dt = DT_F32, .views = x->nviews ? x->views : NULL,
                         .nviews = x->nviews, .said = x->items, .nsaid = x->n};
    if (st == OK) st = stage2_losses(&s, &batch, 0, 1, true, &l);
    *loss = l.loss;
    *targets = (int64_t)l.value[1];
    stage2_close(&s);
    arena_close(&a->step, a->c->b);
    arena_close(&buffers, a->c->b);
    return st;
}

/* Tensors CASE.grad.NAME, NAME being Hugging Face's. */
static void check_gradients(Whole *a, const char *front) {
    const Params *p = &a->model.params;
    size_t n = strlen(front);
    for (size_t i = 0; i < st_count(a->io); i++) {
        const StTensor *want = st_at(a->io, i);
        char name[NAME_ROOM];
        if (strncmp(want->name, front, n) != 0 || !name_to_lavis(NAMES_HF, want->name + n, name)) continue;
        const ParamTensor *t = params_find(p, name);
        float *x = t ? mem_new((size_t)t->n, sizeof *x) : NULL;
        if (x) params_read(p, t, p->g, x);
        gold_tensor(a->c, want->name, x ? x : (const float[]){NAN}, x ? t->n : 1, want, 1e-5, 0);
        free(x);
    }
}

static Status run_one(Whole *a, const Texts *x, const char *name, const char *front, double want, double counted) {
    double loss = 0;
    int64_t targets = 0;
    Status st = run_texts(a, x, &loss, &targets);
    if (st != OK) return err_context(st, "%s", name);
    gold_check(a->c, name, loss - want, 1e-5 * fmax(1.0, fabs(want)));
    if (counted > 0) gold_check(a->c, name, (double)targets - counted, 0.5);
    check_gradients(a, front);
    return OK;
}

static Status run_cases(Whole *a, Texts *x) {
    const Json *cases = json_get(a->c->json, "cases"), *j;
    Status st = OK;
    for (const char *name = json_next(cases, NULL, &j); name && st == OK; name = json_next(cases, name, &j)) {
        char front[200];
        snprintf(front, sizeof front, "%s.grad.", name);
        texts_of_case(x, j);
        st = run_one(a, x, name, front, gold_num(j, "loss"), gold_num(j, "targets_counted"));
    }
    return st;
}

/* loss: labels; loss_labels_with_bos: labels_with_bos; ... */
static Status run_tensors(Whole *a, Texts *x) {
    const Json *v;
    Status st = OK;
    for (const char *k = json_next(a->c->json, NULL, &v); k && st == OK; k = json_next(a->c->json, k, &v)) {
        double want;
        char front[200];
        if (strncmp(k, "loss", 4) != 0 || !json_num(v, &want)) continue;
        bool plain = k[4] == 0;
        snprintf(front, sizeof front, "%s%sgrad.", plain ? "" : k + 5, plain ? "" : ".");
        texts_of_tensors(x, a, plain ? "labels" : k + 5);
        st = run_one(a, x, k, front, want, 0);
    }
    return st;
}

/* Prompts as texts need the tokenizers that lie beside. */
static Status run_generate(Whole *a) {
    GoldSpeak g = {.c = a->c, .model = &a->model, .lm = &a->lm, .features = a->features, .images = a->images};
    Tokenizer *t = NULL, *words = NULL;
    Speech speech;
    char path[1200];
    bool texts = json_get(json_get(a->c->json, "generate"), "prompts") != NULL;
    snprintf(path, sizeof path, "%s/qformer_tokenizer", a->c->dir);
    Status st = texts ? tokenizer_open(&t, a->c->dir) : OK;
    if (st == OK && texts && a->d.V) st = tokenizer_open(&words, path);
    if (st == OK && texts) st = speech_open(&speech, &a->src.d, t, a->d.V > 0);
    if (st == OK && texts) g.speech = &speech, g.words = words;
    if (st == OK) st = gold_speak(&g, json_get(a->c->json, "generate"));
    tokenizer_close(t);
    tokenizer_close(words);
    return st;
}

Status gold_blip2(Case *c) {
    Whole a = {.c = c};
    if (c->precision != DT_F32) return err_set(ERR_MISSING, "runs in f32; bf16.json holds what bf16 must reach");
    Texts *x = mem_new(1, sizeof *x);
    Status st = x ? open_whole(&a) : ERR_MEMORY;
    if (st == OK) st = json_get(c->json, "cases") ? run_cases(&a, x) : run_tensors(&a, x);
    if (st == OK) st = run_generate(&a);
    close_whole(&a);
    free(x);
    return st;
}
