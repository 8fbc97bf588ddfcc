/* gold_whole: the whole way, from PNG files to scores, captions and answers (spec/stage2.md 14): a folder with
 * expected.json ("pictures", "texts", "generate"), io.safetensors, the pictures, retrieval/
 * (Blip2ForImageTextRetrieval) and caption/ (Blip2ForConditionalGeneration). Everything runs as the commands run it:
 * use_open on the folders.
 *
 *     NAME.resized, NAME.pixel_values     of each picture: bytes equal, numbers equal
 *     vision_features                     1e-4; soft_tokens, image_embeds, text_embeds, itc, itm_logits: 1e-5
 *     text_ids, generate                  equal */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/vision.h"
#include "eval/evaluate.h"
#include "eval/rerank.h"
#include "kernels/base/mem.h"
#include "tests/gold_speak.h"

typedef struct { Case *c; StFile *io; char *pictures; } Whole;

bool gold_is_whole(const char *dir, const char *name) {
    static const char *const beside[] = {"io.safetensors", "caption/config.json", "retrieval/config.json"};
    char path[1200];
    bool all = strcmp(name, "expected.json") == 0;
    for (int i = 0; i < 3 && all; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, beside[i]);
        all = access(path, R_OK) == 0;
    }
    return all;
}

static const char *picture(const Whole *w, size_t i) {
    return json_str(json_at(json_get(w->c->json, "pictures"), i), NULL);
}

/* Largest distance from a tensor of the file; infinite when it has another size. */
static void check(Whole *w, const char *name, const float *x, int64_t n, double tolerance) {
    StTensor shape = {0};
    float *want = gold_floats(w->io, name, &shape);
    double worst = want && st_elements(&shape) == n ? 0 : INFINITY;
    for (int64_t i = 0; i < n && isfinite(worst); i++) worst = gold_most(worst, fabs((double)x[i] - want[i]));
    gold_check(w->c, name, worst, tolerance);
    free(want);
}

/* ---- pixels ------------------------------------------------------------------------------------------------------ */

static void check_pixels(Whole *w, const char *name, const uint8_t *rgb, const Preprocess *p) {
    char key[200];
    int64_t S = p->size, n = 3 * S * S;
    snprintf(key, sizeof key, "%s.resized", name);
    const StTensor *bytes = st_find(w->io, key);
    bool same = bytes && (int64_t)bytes->nbytes == n && !memcmp(bytes->data, rgb, bytes->nbytes);
    gold_check(w->c, key, same ? 0 : 1, 0.5);
    float *planar = mem_new((size_t)n, sizeof *planar);
    BUG_ON(!planar, "out of memory");
    for (int64_t i = 0; i < n; i++) planar[i % 3 * S * S + i / 3] = preprocess_normalised(p, rgb[i], (int)(i % 3));
    snprintf(key, sizeof key, "%s.pixel_values", name);
    check(w, key, planar, n, 1e-12);
    free(planar);
}

static Status pixels(Whole *w, const char *folder) {
    Vision e;
    Status st = vision_open(&e, folder, 0);
    if (st != OK) return st;
    uint8_t *rgb = mem_new(preprocess_bytes(&e.custom.pre), 1);
    for (size_t i = 0; i < json_len(json_get(w->c->json, "pictures")) && st == OK; i++) {
        char path[1300];
        Image im = {0};
        snprintf(path, sizeof path, "%s/%s", w->c->dir, picture(w, i));
        st = rgb ? image_read(&im, path) : ERR_MEMORY;
        if (st == OK) st = preprocess_view(rgb, &e.custom.pre, &im, picture(w, i), 0);
        if (st == OK) check_pixels(w, picture(w, i), rgb, &e.custom.pre);
        image_free(&im);
    }
    free(rgb);
    vision_close(&e);
    return st;
}

/* ---- a model on the pictures ------------------------------------------------------------------------------------- */

/* The encoder is the model's own: the same folder. */
static Status options_of(Options **o, const Whole *w, const char *command, const char *folder) {
    char in[1200], test[8192], device[40];
    snprintf(in, sizeof in, "in=%s/%s", w->c->dir, folder);
    snprintf(test, sizeof test, "data.test=%s", w->pictures);
    snprintf(device, sizeof device, "device=%s", strncmp(w->c->b->name, "cpu", 3) == 0 ? "cpu" : "cuda");
    char *argv[] = {in, test, device, (char *)(uintptr_t)"precision=f32"};
    return options_parse(o, command, 4, argv);
}

static Status features_of(const EvalSet *e, float **x) {
    size_t n = (size_t)e->NI * set_row_bytes(e->set);
    *x = mem_new(n, 1);
    return *x ? evalset_read(e, 0, e->NI, *x, NULL) : ERR_MEMORY;
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* As they are: a caption's clean-up is LAVIS's, and the library has none. */
typedef struct { int32_t *ids, *len; int64_t NT; int T; } Texts;

static void texts_free(Texts *t) {
    free(t->ids);
    free(t->len);
}

static Status take_texts(Whole *w, const Use *u, Texts *t) {
    const Json *list = json_get(w->c->json, "texts");
    *t = (Texts){.NT = (int64_t)json_len(list), .T = u->d.T};
    t->ids = mem_new((size_t)(t->NT * t->T), sizeof *t->ids);
    t->len = mem_new((size_t)t->NT, sizeof *t->len);
    Status st = t->ids && t->len ? OK : ERR_MEMORY;
    for (int64_t i = 0; i < t->NT && st == OK; i++) {
        const char *text = json_str(json_at(list, (size_t)i), NULL);
        int n = 0;
        st = tokenizer_encode(u->tok, text ? text : "", text ? strlen(text) : 0, t->T, t->ids + i * t->T, &n, NULL);
        t->len[i] = n;
    }
    return st;
}

static void check_ids(Whole *w, const Texts *t) {
    const Json *want = json_get(w->c->json, "text_ids");
    for (int64_t i = 0; i < t->NT; i++) {
        const Json *ids = json_at(want, (size_t)i);
        int64_t v = -1, wrong = (int64_t)json_len(ids) != t->len[i];
        for (int32_t k = 0; k < t->len[i] && !wrong; k++)
            wrong = !json_int(json_at(ids, (size_t)k), &v) || v != t->ids[i * t->T + k];
        gold_check(w->c, "text ids", (double)wrong, 0.5);
    }
}

static void check_itc(Whole *w, const Evaluation *e, const Texts *t, const float *I, const float *T) {
    int64_t NI = e->set.NI, Q = e->use.d.Q, Z = e->use.d.Z;
    float *itc = mem_new((size_t)(NI * t->NT), sizeof *itc);
    BUG_ON(!itc, "out of memory");
    for (int64_t i = 0; i < NI * t->NT; i++) itc[i] = recall_cosine(I + i / t->NT * Q * Z, T + i % t->NT * Z, Q, Z);
    check(w, "image_embeds", I, NI * Q * Z, 1e-5);
    check(w, "text_embeds", T, t->NT * Z, 1e-5);
    check(w, "itc", itc, NI * t->NT, 1e-5);
    free(itc);
}

static Status scores(Whole *w, Evaluation *e, const Texts *t, const float *features) {
    int64_t NI = e->set.NI, n = NI * t->NT, Q = e->use.d.Q, Z = e->use.d.Z;
    float *I = mem_new((size_t)(NI * Q * Z), sizeof *I), *T = mem_new((size_t)(t->NT * Z), sizeof *T);
    float *logits = mem_new((size_t)n, 2 * sizeof *logits);
    int32_t *image = mem_new((size_t)t->NT, sizeof *image);
    Status st = I && T && logits && image ? encode_images(&e->enc, (FeatureRows){features, NULL}, NI, I) : ERR_MEMORY;
    if (st == OK) st = encode_texts(&e->enc, t->ids, t->len, t->NT, T);
    if (st == OK) check_itc(w, e, t, I, T);
    if (st == OK) st = encode_image_keys(&e->enc, (FeatureRows){features, NULL}, (int)NI);
    for (int64_t i = 0; i < NI && st == OK; i++) {
        for (int64_t k = 0; k < t->NT; k++) image[k] = (int32_t)i;
        st = encode_pairs(&e->enc, image, t->ids, t->len, t->NT, logits + i * t->NT * 2);
    }
    if (st == OK) check(w, "itm_logits", logits, 2 * n, 1e-5);
    free(I);
    free(T);
    free(logits);
    free(image);
    return st;
}

static Status retrieval(Whole *w, Evaluation *e, const float *features) {
    Texts texts = {0};
    Status st = take_texts(w, &e->use, &texts);
    if (st == OK) check_ids(w, &texts);
    if (st == OK) check(w, "vision_features", features, e->set.NI * e->use.d.P * e->use.d.E, 1e-4);
    if (st == OK) st = scores(w, e, &texts, features);
    texts_free(&texts);
    return st;
}

/* ---- captions and answers ---------------------------------------------------------------------------------------- */

static Status captions(Whole *w, Evaluation *e, const float *features) {
    const Use *u = &e->use;
    float *soft = NULL;
    GoldSpeak g = {w->c, &u->model, &u->speaker.lm, features, (int32_t)e->set.NI, &u->speaker.speech, NULL};
    Status st = gold_speak_soft(&g, &soft);
    if (st == OK) check(w, "soft_tokens", soft, e->set.NI * u->d.Q * u->d.W, 1e-5);
    if (st == OK) st = gold_speak(&g, json_get(w->c->json, "generate"));
    free(soft);
    return st;
}

/* The model in folder `name` as a command opens it, with the features of the pictures. */
typedef Status Look(Whole *w, Evaluation *e, const float *features);

static Status look_with(Whole *w, const char *command, const char *name, Look *look) {
    Options *o = NULL;
    Evaluation e = {0};
    float *features = NULL;
    Status st = options_of(&o, w, command, name);
    if (st == OK) st = evaluation_open(&e, o, &(EvaluationSpec){.split = true, .writes = look == captions});
    if (st == OK) st = features_of(&e.set, &features);
    if (st == OK) st = look(w, &e, features);
    free(features);
    evaluation_close(&e);
    options_free(o);
    return err_context(st, "%s", name);
}

static Status list_pictures(Whole *w) {
    w->pictures = mem_strdup("");
    for (size_t i = 0; picture(w, i) && w->pictures; i++) {
        char *more = mem_format("%s%s%s/%s", w->pictures, i ? "," : "", w->c->dir, picture(w, i));
        free(w->pictures);
        w->pictures = more;
    }
    return w->pictures ? OK : ERR_MEMORY;
}

Status gold_whole(Case *c) {
    Whole w = {.c = c};
    char folder[1100];
    if (c->precision != DT_F32) return err_set(ERR_MISSING, "runs in f32: in bf16 a rounding may choose another token");
    snprintf(folder, sizeof folder, "%s/caption", c->dir);
    Status st = gold_open(c, NULL, "io.safetensors", &w.io);
    if (st == OK) st = list_pictures(&w);
    if (st == OK) st = pixels(&w, folder);
    if (st == OK) st = look_with(&w, "match", "retrieval", retrieval);
    if (st == OK) st = look_with(&w, "caption", "caption", captions);
    free(w.pictures);
    st_close(w.io);
    return st;
}
