/* gold_causal: cases of Llama-like models: NAME.json with cases "LM.CASE" of items (image, prompt_ids, target_ids),
 * the model in folder LM, visual rows from NAME_seeds.safetensors, what they give in NAME.safetensors. Losses and
 * gradients to 1e-5 in f32; the prefix shared by all texts of an image against each by itself: losses to 1e-6,
 * gradients to 1e-5. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/mem.h"
#include "tests/gold_lm.h"

static bool beside(const char *dir, const char *stem, size_t n, const char *tail) {
    char path[1200];
    snprintf(path, sizeof path, "%s/%.*s%s", dir, (int)n, stem, tail);
    return access(path, R_OK) == 0;
}

bool gold_is_causal(const char *dir, const char *name) {
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".json") == 0 && beside(dir, name, n - 5, "_seeds.safetensors") &&
           beside(dir, name, n - 5, ".safetensors");
}

/* ---- items ------------------------------------------------------------------------------------------------------- */

static int32_t put_ids(int32_t *to, const Json *list) {
    int64_t v = 0;
    for (size_t i = 0; i < json_len(list); i++) {
        json_int(json_at(list, i), &v);
        to[i] = (int32_t)v;
    }
    return (int32_t)json_len(list);
}

typedef struct { LmItem *items; int32_t *ids; int n; } Items;

static Items items_of(const Json *list) {
    Items x = {.n = (int)json_len(list)};
    size_t total = 0, at = 0;
    for (int i = 0; i < x.n; i++) {
        const Json *j = json_at(list, (size_t)i);
        total += json_len(json_get(j, "prompt_ids")) + json_len(json_get(j, "target_ids"));
    }
    x.items = mem_new((size_t)x.n, sizeof *x.items);
    x.ids = mem_new(total, sizeof *x.ids);
    BUG_ON(!x.items || !x.ids, "out of memory");
    for (int i = 0; i < x.n; i++) {
        const Json *j = json_at(list, (size_t)i);
        LmItem *it = &x.items[i];
        *it = (LmItem){.image = (int32_t)gold_int(j, "image"), .ids = x.ids + at};
        it->target = put_ids(x.ids + at, json_get(j, "prompt_ids"));
        it->n = it->target + put_ids(x.ids + at + it->target, json_get(j, "target_ids"));
        at += (size_t)it->n;
    }
    return x;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static Status run_case(Case *c, GoldLm *g, const StFile *f, GoldTexts *x, const char *name, const Json *j) {
    GoldSaid together = {0}, apart = {0};
    bool half = c->precision == DT_BF16;
    if (half && !gold_lm_has_bf16(c, name)) return OK;
    Items items = items_of(json_get(j, "items"));
    x->items = items.items, x->n = items.n;
    x->shared = true;
    Status st = gold_lm_run(g, x, &together);
    x->shared = false;
    if (st == OK && half) st = gold_lm_check_bf16(c, name, x, g->m.d.E, &together);
    if (st == OK && !half) st = gold_lm_run(g, x, &apart);
    if (st == OK && !half) {
        char what[200];
        double loss = gold_num(j, "loss");
        snprintf(what, sizeof what, "%s loss", name);
        gold_check(c, what, together.loss - loss, 1e-5 * fmax(1.0, fabs(loss)));
        gold_check(c, what, (double)together.T - gold_num(j, "targets_counted"), 0.5);
        gold_lm_check(c, f, name, x, g->m.d.E, &together);
        gold_lm_same(c, name, x, g->m.d.E, &together, &apart);
    }
    gold_lm_free(&apart);
    gold_lm_free(&together);
    free(items.items);
    free(items.ids);
    return st;
}

/* ---- a file ------------------------------------------------------------------------------------------------------ */

typedef struct { Case *c; StFile *seeds, *f; char lm[128]; GoldLm g; bool open; float *query, *w, *bias; GoldTexts x;
                } File;

static void close_model(File *a) {
    if (a->open) gold_lm_close(&a->g);
    free(a->query);
    free(a->w);
    free(a->bias);
    a->open = false;
    a->query = a->w = a->bias = NULL;
}

static float *seed(File *a, const char *tail, StTensor *shape) {
    char name[200];
    snprintf(name, sizeof name, "%s.%s", a->lm, tail);
    return gold_floats(a->seeds, name, shape);
}

static Status open_model(File *a, const char *lm) {
    char path[1200];
    StTensor q = {0};
    if (a->open && strcmp(a->lm, lm) == 0) return OK;
    close_model(a);
    snprintf(a->lm, sizeof a->lm, "%s", lm);
    snprintf(path, sizeof path, "%s/%s", a->c->dir, lm);
    a->query = seed(a, "query_output", &q), a->w = seed(a, "proj.weight", NULL), a->bias = seed(a, "proj.bias", NULL);
    if (!a->query || !a->w || !a->bias || q.ndim != 3) return err_set(ERR_FORMAT, "%s: no seeds of %s", a->c->file, lm);
    a->x = (GoldTexts){.query = a->query, .w = a->w, .bias = a->bias, .images = (int32_t)q.shape[0],
                       .Q = (int32_t)q.shape[1],
                       .Cq = (int32_t)q.shape[2]};
    Status st = gold_lm_open(&a->g, a->c->b, path, NULL, 1 << 20);
    a->open = true;
    return st;
}

/* The greedy runs of "generate": no penalty, no least length. */
static Status run_greedy(Case *c, File *a, const char *name, const Json *j) {
    enum { MOST = 30 };
    const Json *want = json_get(j, "ids");
    int32_t prompt[512], n[64], ids[64 * MOST], np = put_ids(prompt, json_get(j, "prompt_ids"));
    if (a->x.images > 64 || np > 512) return OK;
    Status st = gold_lm_greedy(&a->g, &a->x, prompt, np, MOST, ids, n);
    for (int i = 0; st == OK && i < a->x.images; i++) {
        int32_t w[MOST + 1];
        if (json_len(json_at(want, (size_t)i)) > MOST) continue;
        int32_t k = put_ids(w, json_at(want, (size_t)i));
        bool same = k == n[i] && memcmp(w, ids + i * MOST, (size_t)k * sizeof *w) == 0;
        gold_check(c, name, same ? 0 : 1, 0.5);
    }
    return st;
}

static bool plain_greedy(const char *name) {
    const char *tail = strchr(name, '.');
    return tail && (strcmp(tail, ".greedy") == 0 || strcmp(tail, ".greedy_prompt") == 0);
}

static Status run_searches(Case *c, File *a) {
    const Json *all = json_get(c->json, "generate"), *j;
    Status st = OK;
    for (const char *name = json_next(all, NULL, &j); name && st == OK; name = json_next(all, name, &j)) {
        char lm[128];
        if (!plain_greedy(name)) continue;
        snprintf(lm, sizeof lm, "%.*s", (int)strcspn(name, "."), name);
        st = open_model(a, lm);
        if (st == OK) st = run_greedy(c, a, name, j);
    }
    return st;
}

Status gold_causal(Case *c) {
    char path[1200];
    size_t n = strlen(c->file) - strlen(".json");
    const Json *cases = json_get(c->json, "cases"), *j;
    File a = {.c = c};
    snprintf(path, sizeof path, "%.*s_seeds.safetensors", (int)n, c->file);
    Status st = st_open(&a.seeds, path);
    snprintf(path, sizeof path, "%.*s.safetensors", (int)n, c->file);
    if (st == OK) st = st_open(&a.f, path);
    for (const char *name = json_next(cases, NULL, &j); name && st == OK; name = json_next(cases, name, &j)) {
        char lm[128];
        snprintf(lm, sizeof lm, "%.*s", (int)strcspn(name, "."), name);
        st = open_model(&a, lm);
        if (st == OK) st = err_context(run_case(c, &a.g, a.f, &a.x, name, j), "%s", name);
    }
    if (st == OK && c->precision == DT_F32) st = run_searches(c, &a);
    if (st == OK && !c->compared) st = err_set(ERR_MISSING, "no case of it is in bf16.json");
    close_model(&a);
    st_close(a.f);
    st_close(a.seeds);
    return st;
}
