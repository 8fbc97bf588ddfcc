/* gold_weights: the fixture kinds pth (checkpoints as LAVIS and torch write them, and broken ones that must be refused)
 * and hf (what transformers saves: names, sizes, and the features, similarities and matching logits that it computes).
 */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/params_io.h"
#include "checkpoints/weights.h"
#include "data/format/pth.h"
#include "eval/encode.h"
#include "kernels/base/mem.h"
#include "tests/gold.h"

static void path_in(const Case *c, const char *name, char path[2048]) { snprintf(path, 2048, "%s/%s", c->dir, name); }

/* ---- pth --------------------------------------------------------------------------------------------------------- */

static bool same(const StTensor *got, const StTensor *want) {
    return got && got->dtype == want->dtype && got->ndim == want->ndim && got->nbytes == want->nbytes &&
           !memcmp(got->shape, want->shape, (size_t)want->ndim * sizeof *want->shape) &&
           !memcmp(got->data, want->data, want->nbytes);
}

/* Tensors of `expected` under the names that `rename` makes of theirs (NULL: their own); counts those that differ. */
static Status compare_file(Case *c, PthFile *f, const char *expected, void (*rename)(const char *, char[600]),
                           size_t *count) {
    StFile *want = NULL;
    char path[2048], name[600];
    double different = 0;
    path_in(c, expected, path);
    Status st = st_open(&want, path);
    for (size_t i = 0; st == OK && i < st_count(want); i++) {
        const StTensor *t = NULL;
        snprintf(name, sizeof name, "%s", st_at(want, i)->name);
        if (rename) rename(st_at(want, i)->name, name);
        st = pth_find(f, name, &t);
        different += st == OK && !same(t, st_at(want, i));
    }
    if (st == OK) gold_check(c, expected, different, 0.5);
    if (st == OK) *count = st_count(want);
    st_close(want);
    return st;
}

/* exp_avg.7 -> optimizer.state.7.exp_avg */
static void moment_name(const char *name, char to[600]) {
    const char *dot = strrchr(name, '.');
    snprintf(to, 600, "optimizer.state.%s.%.*s", dot + 1, (int)(dot - name), name);
}

static Status good_file(Case *c, const char *name, const char *expected) {
    PthFile *f = NULL;
    char path[2048], moments[600];
    size_t count = 0, in_model = 0, n = strlen(expected);
    path_in(c, name, path);
    Status st = pth_open(&f, path);
    if (st == OK) st = compare_file(c, f, expected, NULL, &count);
    for (size_t i = 0; st == OK && i < pth_count(f); i++) in_model += pth_in_model(f, i);
    if (st == OK) gold_check(c, name, (double)in_model - (double)count, 0.5);
    snprintf(moments, sizeof moments, "%.*s_optimizer.safetensors", n > 12 ? (int)(n - 12) : 0, expected);
    path_in(c, moments, path);
    FILE *there = st == OK ? fopen(path, "rb") : NULL;
    if (there) {
        fclose(there);
        st = compare_file(c, f, moments, moment_name, &count);
    }
    pth_close(f);
    return st;
}

/* Every bad_*.pth of the folder is refused with a sentence that begins with its name. */
static Status bad_files(Case *c) {
    struct dirent *e;
    DIR *d = opendir(c->dir);
    if (!d) return err_set(ERR_IO, "%s cannot be opened", c->dir);
    while ((e = readdir(d))) {
        PthFile *f;
        char path[2048];
        size_t n = strlen(e->d_name);
        if (strncmp(e->d_name, "bad_", 4) || n < 4 || strcmp(e->d_name + n - 4, ".pth")) continue;
        path_in(c, e->d_name, path);
        Status st = pth_open(&f, path);
        gold_check(c, e->d_name, st == ERR_FORMAT && strstr(err_message(), path) == err_message() ? 0 : NAN, 1);
        if (st == OK) pth_close(f);
    }
    closedir(d);
    return OK;
}

Status gold_pth(Case *c) {
    const Json *good = json_get(c->json, "good"), *v;
    Status st = OK;
    for (const char *k = json_next(good, NULL, &v); k && st == OK; k = json_next(good, k, &v)) {
        const char *expected = json_str(json_get(v, "expected"), NULL);
        st = expected ? good_file(c, k, expected) : err_set(ERR_FORMAT, "%s: \"%s\" has no \"expected\"", c->file, k);
    }
    return st == OK ? bad_files(c) : st;
}

/* ---- hf ---------------------------------------------------------------------------------------------------------- */

/* Each LAVIS name finds the tensor that names.json gives it, in a folder as transformers saves one. */
static Status check_names(Case *c, const Json *map, const char *folder) {
    char path[2048];
    WeightSource *ws = NULL;
    StFile *raw = NULL;
    const Json *v;
    double different = 0;
    path_in(c, folder, path);
    Status st = ws_open(&ws, path, NULL, NULL);
    path_in(c, folder[0] == '.' ? "model.safetensors" : "qformer_only/model.safetensors", path);
    if (st == OK) st = st_open(&raw, path);
    for (const char *k = json_next(map, NULL, &v); st == OK && k; k = json_next(map, k, &v)) {
        const char *theirs = json_str(v, NULL);               /* null: transformers has no such tensor */
        if (!theirs) continue;
        const StTensor *got = ws_find(ws, k), *want = st_find(raw, theirs);
        different += !want || !same(got, want);
    }
    if (st == OK) gold_check(c, folder[0] == '.' ? "names" : folder, different, 0.5);
    st_close(raw);
    ws_close(ws);
    return st;
}

static Status names_case(Case *c) {
    Json *names = NULL;
    char path[2048];
    path_in(c, "names.json", path);
    Status st = json_parse_file(&names, path);
    if (st == OK) st = check_names(c, json_get(names, "lavis_to_hf"), ".");
    if (st == OK && json_get(names, "lavis_to_qformer_only"))
        st = check_names(c, json_get(names, "lavis_to_qformer_only"), "qformer_only");
    json_free(names);
    return st;
}

static Status load(Case *c, Trainer *t) {
    WeightSource *ws = NULL;
    LoadReport r;
    Status st = ws_open(&ws, c->dir, NULL, NULL);
    const Dims *d = &t->model.d;
    Dims seen = *d;
    seen.L = seen.C = seen.F = seen.Q = seen.E = seen.Z = seen.V = seen.X = 0;
    if (st == OK) st = dims_of_weights(&seen, ws);
    if (st == OK) {
        bool fits = seen.L == d->L && seen.C == d->C && seen.F == d->F && seen.Q == d->Q && seen.E == d->E &&
                    seen.Z == d->Z && seen.V == d->V && seen.X == d->X;
        gold_check(c, "sizes told by the tensors", fits ? 0 : NAN, 1);
        st = load_weights(&t->model.params, ws, false, &r);
    }
    if (st == OK) gold_check(c, "tensors that images and texts need", (double)r.needed, 0.5);
    if (st == OK) params_refresh(&t->model.params);
    ws_close(ws);
    return st;
}

/* sim (B, B): the largest product of an image's queries with a text. */
static float *similarities(const float *I, const float *T, int64_t B, int64_t Q, int64_t Z) {
    float *sim = mem_new((size_t)(B * B), sizeof *sim);
    for (int64_t i = 0; sim && i < B; i++)
        for (int64_t j = 0; j < B; j++) {
            float best = -INFINITY;
            for (int64_t q = 0; q < Q; q++) {
                float s = 0;
                for (int64_t z = 0; z < Z; z++) s += I[(i * Q + q) * Z + z] * T[j * Z + z];
                best = s > best ? s : best;
            }
            sim[i * B + j] = best;
        }
    return sim;
}

static Status compute(Case *c, Trainer *t, const GoldBatch *b, int64_t B, const StFile *out) {
    const Dims *d = &t->model.d;
    double tol = c->precision == DT_F32 ? 1e-4 : 6e-2;
    Encoder e = {0};
    float *I = mem_new((size_t)(B * d->Q * d->Z), sizeof *I), *T = mem_new((size_t)(B * d->Z), sizeof *T), *sim = NULL;
    float *logits = mem_new((size_t)B * 2, sizeof *logits);
    int32_t *own = mem_new((size_t)B, sizeof *own);
    Status st = I && T && logits && own ? encoder_open(&e, c->b, &t->model, (int)B, DT_F32) : ERR_MEMORY;
    for (int64_t i = 0; own && i < B; i++) own[i] = (int32_t)i;
    if (st == OK) st = encode_images(&e, (FeatureRows){b->features, NULL}, B, I);
    if (st == OK) st = encode_texts(&e, b->ids, b->len, B, T);
    if (st == OK) st = encode_image_keys(&e, (FeatureRows){b->features, NULL}, (int)B);
    if (st == OK) st = encode_pairs(&e, own, b->ids, b->len, B, logits);
    if (st == OK && !(sim = similarities(I, T, B, d->Q, d->Z))) st = ERR_MEMORY;
    if (st == OK) {
        gold_tensor(c, "image_feats", I, B * d->Q * d->Z, st_find(out, "image_feats"), tol, 0);
        gold_tensor(c, "text_feats", T, B * d->Z, st_find(out, "text_feats"), tol, 0);
        gold_tensor(c, "sim", sim, B * B, st_find(out, "sim"), tol, 0);
        gold_tensor(c, "itm_logits", logits, B * 2, st_find(out, "itm_logits"), tol, 0);
    }
    encoder_close(&e);
    free(I);
    free(T);
    free(sim);
    free(logits);
    free(own);
    return st;
}

Status gold_hf(Case *c) {
    Trainer t;
    GoldBatch b = {0};
    StFile *f = NULL, *out = NULL;
    int64_t B = gold_int(json_get(c->json, "dims"), "B");
    Status st = names_case(c);
    if (st == OK) st = gold_open(c, NULL, "batch.safetensors", &f);
    if (st == OK) st = gold_open(c, NULL, "outputs.safetensors", &out);
    if (st != OK) goto done;
    if ((st = gold_empty(c, &t)) != OK) goto done;
    st = load(c, &t);
    if (st == OK) st = gold_batch(c, f, 0, &t.model.d, B, &b);
    if (st == OK) st = compute(c, &t, &b, B, out);
    trainer_close(&t);
done:
    gold_batch_free(&b);
    st_close(f);
    st_close(out);
    return st;
}
