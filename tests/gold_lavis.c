/* gold_lavis: cases of LAVIS's OPT and T5 models: lavis*.json with cases "MODEL_CASE", the model in folder MODEL_lm
 * with its tokenizer, visual rows from seeds*.safetensors. Texts go through the program's own rules of prompts,
 * truncation and labels (data/text/speech.h). Tolerances as gold_causal. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/text/speech.h"
#include "kernels/base/mem.h"
#include "tests/gold_lm.h"

/* lavis_captions_more.json: its models and seeds are those of _more. */
static void seeds_of(const char *name, char *to, size_t n) {
    bool more = strstr(name, "_more") != NULL, vicuna = strncmp(name, "vicuna", 6) == 0;
    snprintf(to, n, "%sseeds%s.safetensors", vicuna ? "llama_" : "", more ? "_more" : "");
}

bool gold_is_lavis(const char *dir, const char *name) {
    char path[1200], seeds[64];
    size_t n = strlen(name);
    bool vicuna = strcmp(name, "vicuna.json") == 0;
    if (!vicuna && (strncmp(name, "lavis", 5) != 0 || n < 6 || strcmp(name + n - 5, ".json") != 0)) return false;
    seeds_of(name, seeds, sizeof seeds);
    snprintf(path, sizeof path, "%s/%s", dir, seeds);
    return access(path, R_OK) == 0;
}

typedef struct {
    Case *c;
    StFile *seeds, *f;
    char model[64];
    GoldLm g;
    Tokenizer *t;
    Speech speech;
    float *query, *w, *bias;
    GoldTexts x;
    bool open, vicuna;
} File;

static void close_model(File *a) {
    if (a->open) gold_lm_close(&a->g);
    tokenizer_close(a->t);
    free(a->query);
    free(a->w);
    free(a->bias);
    a->open = false;
    a->t = NULL;
    a->query = a->w = a->bias = NULL;
}

static float *seed(File *a, const char *tail, StTensor *shape) {
    char name[200];
    snprintf(name, sizeof name, "%s%c%s", a->model, a->vicuna ? '.' : '_', tail);
    return gold_floats(a->seeds, name, shape);
}

static Status open_model(File *a, const char *model) {
    char path[1200];
    StTensor q = {0};
    if (a->open && strcmp(a->model, model) == 0) return OK;
    close_model(a);
    snprintf(a->model, sizeof a->model, "%s", model);
    snprintf(path, sizeof path, "%s/%s%s", a->c->dir, model, a->vicuna ? "" : "_lm");
    a->query = seed(a, "query_output", &q), a->w = seed(a, "proj.weight", NULL), a->bias = seed(a, "proj.bias", NULL);
    if (!a->query || !a->w || !a->bias || q.ndim != 3) return err_set(ERR_FORMAT, "%s: no seeds of %s", a->c->file,
                                                                      model);
    a->x = (GoldTexts){.query = a->query, .w = a->w, .bias = a->bias, .images = (int32_t)q.shape[0],
                       .Q = (int32_t)q.shape[1], .Cq = (int32_t)q.shape[2]};
    Status st = gold_lm_open(&a->g, a->c->b, path, NULL, 1 << 20);
    a->open = true;
    if (st == OK) st = tokenizer_open(&a->t, path);
    if (st == OK) st = speech_open(&a->speech, &a->g.m.d, a->t, a->vicuna);
    return st;
}

/* "t5_tied_prefix": the longest of the folders' names that begins it. */
static void model_of(const File *a, const char *name, char *model, size_t n) {
    char path[1300];
    snprintf(model, n, "llama_untied_lm");
    if (a->vicuna) return;
    for (size_t k = strlen(name); k > 0; k--) {
        if (name[k] != '_') continue;
        snprintf(model, n, "%.*s", (int)k, name);
        snprintf(path, sizeof path, "%s/%s_lm", a->c->dir, model);
        if (access(path, R_OK) == 0) return;
    }
    model[0] = 0;
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

static const char *text_at(const Json *list, size_t i) {
    const char *s = json_str(json_at(list, i), NULL);
    return s ? s : "";
}

/* The text of OPT has its prompt in front already. */
static Status item_ids(File *a, const Json *j, size_t i, TokenIds *ids, LmItem *it) {
    const Json *in = json_get(j, "text_input"), *out = json_get(j, "text_output"), *texts = json_get(j, "texts");
    const char *prompt = json_str(json_get(j, "prompt"), NULL);
    size_t from = ids->n;
    Status st;
    if (out) {
        st = speech_ids(&a->speech, text_at(in, i), text_at(out, i), ids, &it->target);
    } else {
        const char *text = text_at(texts ? texts : in, i);
        size_t n = prompt ? strlen(prompt) : 0;
        bool front = n && strncmp(text, prompt, n) == 0;
        st = speech_ids(&a->speech, prompt ? prompt : "", front ? text + n + (text[n] == ' ') : text, ids, &it->target);
    }
    it->n = (int32_t)(ids->n - from);
    return st;
}

typedef struct { LmItem *items; TokenIds ids; int n; } Items;

static Status items_of(File *a, const Json *j, Items *x) {
    const Json *out = json_get(j, "text_output"), *texts = json_get(j, "texts"), *images = json_get(j, "images");
    double most = 32, target;
    json_num(json_get(j, "max_txt_len"), &most);
    a->speech.max_prompt = a->speech.max_target = (int32_t)most;
    if (json_num(json_get(j, "max_output_txt_len"), &target)) a->speech.max_target = (int32_t)target;
    *x = (Items){.n = (int)json_len(out ? out : texts ? texts : json_get(j, "text_input"))};
    x->items = mem_new((size_t)x->n, sizeof *x->items);
    Status st = x->items ? OK : ERR_MEMORY;
    for (int i = 0; i < x->n && st == OK; i++) {
        int64_t image = i;
        json_int(json_at(images, (size_t)i), &image);
        x->items[i].image = (int32_t)image;
        st = item_ids(a, j, (size_t)i, &x->ids, &x->items[i]);
    }
    const int32_t *at = x->ids.v;
    for (int i = 0; i < x->n && st == OK; i++) x->items[i].ids = at, at += x->items[i].n;
    for (int i = 0; i < x->n && st == OK && a->vicuna; i++)  /* LAVIS sets bos to </s> */
        x->ids.v[x->items[i].ids - x->ids.v] = a->g.m.d.end[0];
    return st;
}

static void items_free(Items *x) {
    free(x->items);
    free(x->ids.v);
}

/* ---- a case ------------------------------------------------------------------------------------------------------ */

static void check_case(File *a, const char *name, const Json *j, const GoldSaid *s) {
    Case *c = a->c;
    char what[200];
    double loss = gold_num(j, "loss"), counted;
    snprintf(what, sizeof what, "%s loss", name);
    gold_check(c, what, s->loss - loss, 1e-5 * fmax(1.0, fabs(loss)));
    if (json_num(json_get(j, "targets_counted"), &counted)) gold_check(c, what, (double)s->T - counted, 0.5);
    gold_lm_check(c, a->f, name, &a->x, a->g.m.d.E, s);
}

static Status run_case(File *a, const char *name, const Json *j) {
    GoldSaid together = {0}, apart = {0};
    Items items = {0};
    bool half = a->c->precision == DT_BF16;
    if (half && !gold_lm_has_bf16(a->c, name)) return OK;
    const char *act = json_str(json_get(j, "dense_act_fn"), NULL);
    if (a->g.m.d.family == LM_T5) a->g.m.d.act = act && strcmp(act, "gelu_new") == 0 ? ACT_GELU_TANH : ACT_GELU;
    Status st = items_of(a, j, &items);
    a->x.items = items.items, a->x.n = items.n;
    a->x.shared = true;
    if (st == OK) st = gold_lm_run(&a->g, &a->x, &together);
    a->x.shared = false;
    if (st == OK && half) st = gold_lm_check_bf16(a->c, name, &a->x, a->g.m.d.E, &together);
    if (st == OK && !half) st = gold_lm_run(&a->g, &a->x, &apart);
    if (st == OK && !half) {
        check_case(a, name, j, &together);
        gold_lm_same(a->c, name, &a->x, a->g.m.d.E, &together, &apart);
    }
    gold_lm_free(&apart);
    gold_lm_free(&together);
    items_free(&items);
    return st;
}

Status gold_lavis(Case *c) {
    char path[1200], seeds[64];
    const Json *cases = json_get(c->json, "cases"), *j;
    File a = {.c = c};
    const char *file = strrchr(c->file, '/') + 1;
    a.vicuna = strcmp(file, "vicuna.json") == 0;
    seeds_of(file, seeds, sizeof seeds);
    snprintf(path, sizeof path, "%s/%s", c->dir, seeds);
    Status st = st_open(&a.seeds, path);
    snprintf(path, sizeof path, "%.*s.safetensors", (int)(strlen(c->file) - strlen(".json")), c->file);
    if (st == OK) st = st_open(&a.f, path);
    for (const char *name = json_next(cases, NULL, &j); name && st == OK; name = json_next(cases, name, &j)) {
        char model[64];
        model_of(&a, name, model, sizeof model);
        st = open_model(&a, model);
        if (st == OK) st = err_context(run_case(&a, name, j), "%s", name);
    }
    if (st == OK && !c->compared) st = err_set(ERR_MISSING, "no case of it is in bf16.json");
    close_model(&a);
    st_close(a.f);
    st_close(a.seeds);
    return st;
}
