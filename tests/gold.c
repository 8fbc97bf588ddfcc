/* gold: see gold.h. */
#include "tests/gold.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/mem.h"

void gold_check(Case *c, const char *what, double error, double tolerance) {
    double e = isnan(error) ? INFINITY : fabs(error) / tolerance;
    c->compared++;
    if (e > c->worst || c->compared == 1) {
        c->worst = e;
        snprintf(c->worst_what, sizeof c->worst_what, "%s", what);
    }
    if (e > 1.0 && getenv("GOLD_VERBOSE")) printf("      %s: %s: error %.3g, tolerance %.3g\n", c->name, what, error,
                                                  tolerance);
}

double gold_num(const Json *o, const char *key) {
    double v = 0;
    BUG_ON(!json_num(json_get(o, key), &v), "case.json has no number '%s'", key);
    return v;
}

int64_t gold_int(const Json *o, const char *key) {
    int64_t v = 0;
    BUG_ON(!json_int(json_get(o, key), &v), "case.json has no integer '%s'", key);
    return v;
}

void gold_value(Case *c, const char *what, double got, double tolerance) {
    double want = gold_num(c->json, what);
    gold_check(c, what, got - want, tolerance * fmax(1.0, fabs(want)));
}

Status gold_open(const Case *c, const char *key, const char *file, StFile **f) {
    char path[2300];
    const char *other = key ? json_str(json_get(c->json, key), NULL) : NULL;
    if (other) snprintf(path, sizeof path, "%s/%s/%s", c->dir, other, file);
    else snprintf(path, sizeof path, "%s/%s", c->dir, file);
    return st_open(f, path);
}

Status gold_open_first(const Case *c, const char *stem, StFile **f) {
    char path[1200], file[128];
    snprintf(file, sizeof file, "%s.safetensors", stem);
    snprintf(path, sizeof path, "%s/%s", c->dir, file);
    if (access(path, R_OK) != 0) snprintf(file, sizeof file, "%s_digest.safetensors", stem);
    return gold_open(c, NULL, file, f);
}

static double element(const StTensor *t, int64_t i) {
    float x;
    if (t->dtype == DT_F64) return ((const double *)t->data)[i];
    if (t->dtype == DT_I64) return (double)((const int64_t *)t->data)[i];
    dtype_to_f32(&x, (const char *)t->data + (size_t)i * (size_t)dtype_size(t->dtype), t->dtype, 1);
    return x;
}

static bool is_digest(const StFile *f) { return strstr(st_path(f), "_digest") != NULL; }

static double norm_of(const StTensor *t, bool digest) {
    if (digest) return sqrt(element(t, 2));
    double s = 0;
    for (int64_t i = 0; i < st_elements(t); i++) s += element(t, i) * element(t, i);
    return sqrt(s);
}

double gold_norm(const StFile *f) {
    double most = 0;
    for (size_t i = 0; i < st_count(f); i++) most = gold_most(most, norm_of(st_at(f, i), is_digest(f)));
    return most;
}

/* The 13 numbers of a digest: n, sum, sum of squares, max abs, sum of x_k u_k, eight elements. An error vector of norm
 * e moves a sum by at most e sqrt(n), an element by at most e. */
static void digest_check(Case *c, const char *what, const float *x, int64_t n, const StTensor *want, double tol,
                         double norm) {
    double sum = 0, sq = 0, most = 0, dot = 0, e = tol * norm, root = sqrt((double)n);
    for (int64_t k = 0; k < n; k++) {
        uint32_t h = (uint32_t)((uint64_t)k * 2654435761u + 12345u);
        sum += x[k], sq += (double)x[k] * x[k], most = gold_most(most, fabs(x[k]));
        dot += x[k] * ((double)h / 2147483648.0 - 1.0);
    }
    gold_check(c, what, (double)n - element(want, 0), 0.5);
    gold_check(c, what, sum - element(want, 1), e * root);
    gold_check(c, what, sqrt(sq) - sqrt(element(want, 2)), e);
    gold_check(c, what, most - element(want, 3), e);
    gold_check(c, what, dot - element(want, 4), e * root);
    for (int64_t j = 0; j < 8; j++) gold_check(c, what, x[(j * (n - 1)) / 7] - element(want, 5 + j), e);
}

void gold_tensor(Case *c, const char *what, const float *x, int64_t n, const StTensor *want, double tol, double floor) {
    if (!want) {
        gold_check(c, what, NAN, 1);
        return;
    }
    bool digest = st_elements(want) == 13 && n != 13;
    double norm = fmax(norm_of(want, digest), floor), d = 0;
    if (digest) {
        digest_check(c, what, x, n, want, tol, norm);
        return;
    }
    if (st_elements(want) != n) {
        gold_check(c, what, NAN, 1);
        return;
    }
    for (int64_t i = 0; i < n; i++) d += (x[i] - element(want, i)) * (x[i] - element(want, i));
    gold_check(c, what, sqrt(d) / norm, tol);
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

void gold_params(Case *c, const Trainer *t, const float *flat, const StFile *f, const char *what, double tol,
                 bool absolute) {
    const Params *p = &t->model.params;
    double floor = absolute ? 0 : 1e-6 * gold_norm(f);
    for (int i = 0; i < p->n; i++) {
        const ParamTensor *q = &p->tensor[i];
        if (ends_with(q->name, "key.bias")) continue;        /* zero in exact arithmetic: a shift common to all keys */
        float *x = mem_new((size_t)q->n, sizeof *x);
        BUG_ON(!x, "out of memory");
        params_read(p, q, flat, x);
        char name[200];
        snprintf(name, sizeof name, "%s %s", what, q->name);
        const StTensor *want = st_find(f, q->name);
        if (absolute && want && !is_digest(f)) {
            double most = 0;
            for (int64_t k = 0; k < q->n; k++) most = gold_most(most, fabs(x[k] - element(want, k)));
            gold_check(c, name, most, tol);
        } else if (absolute && want) digest_check(c, name, x, q->n, want, tol, 1.0);
        else gold_tensor(c, name, x, q->n, want, tol, floor);
        free(x);
    }
}

/* ---- models and batches ------------------------------------------------------------------------------------------ */

static Dims dims_of(const Json *j) {
    Dims d = {0};
    const struct { const char *key; int32_t *to; } all[] = {
        {"L", &d.L}, {"C", &d.C}, {"H", &d.H}, {"F", &d.F}, {"Q", &d.Q}, {"E", &d.E}, {"P", &d.P}, {"Z", &d.Z},
            {"V", &d.V},
        {"N", &d.N}, {"X", &d.X}, {"T", &d.T}, {"pad", &d.pad}, {"cls", &d.cls}, {"sep", &d.sep}, {"dec", &d.dec}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) *all[i].to = (int32_t)gold_int(j, all[i].key);
    return d;
}

Status gold_weights(Case *c, Trainer *t) {
    StFile *f = NULL;
    Status st = gold_open(c, "model", "model.safetensors", &f);
    for (int i = 0; st == OK && i < t->model.params.n; i++) {
        const ParamTensor *p = &t->model.params.tensor[i];
        const StTensor *w = st_find(f, p->name);
        if (!w || st_elements(w) != p->n) {
            st = err_set(ERR_FORMAT, "%s: no tensor %s of %lld elements", st_path(f), p->name, (long long)p->n);
            break;
        }
        float *x = mem_new((size_t)p->n, sizeof *x);
        BUG_ON(!x, "out of memory");
        dtype_to_f32(x, w->data, w->dtype, (size_t)p->n);
        params_write(&t->model.params, p, t->model.params.w, x);
        free(x);
    }
    if (st == OK) {
        size_t bytes = (size_t)t->model.params.learns * sizeof(float);
        params_refresh(&t->model.params);
        t->b->zero(t->model.params.g, bytes);
        t->b->zero(t->model.params.m, bytes);
        t->b->zero(t->model.params.v, bytes);
        st = t->b->status();
    }
    st_close(f);
    return st;
}

Status gold_trainer(Case *c, Trainer *t, Stage1Spec step) {
    const Json *dims = json_get(c->json, "dims");
    TrainerSpec spec = {.d = dims_of(dims), .params = {.training = true, .rule = DECAY_LAVIS},
                        .features = DT_F32};
    spec.B = gold_int(dims, "B");
    double e;
    step.smoothing = json_num(json_get(c->json, "label_smoothing"), &e) ? (float)e : 0.1f;
    spec.micro = 1, spec.objective = &stage1_objective, spec.spec = &step;
    spec.tokens = spec.d.T;
    Status st = trainer_open(t, c->b, &spec);
    if (st == OK && (st = gold_weights(c, t)) != OK) trainer_close(t);
    return st;
}

Status gold_empty(Case *c, Trainer *t) {
    Dims d = dims_of(json_get(c->json, "dims"));
    *t = (Trainer){.b = c->b};
    Status st = qformer_open_alone(&t->model, &t->run, &d, c->b, &(ParamsSpec){.training = true});
    if (st != OK) trainer_close(t);
    return st;
}

Status gold_model(Case *c, Trainer *t) {
    Status st = gold_empty(c, t);
    if (st == OK && (st = gold_weights(c, t)) != OK) trainer_close(t);
    return st;
}

static int32_t *ints_of(const StFile *f, const char *name, int64_t index, int64_t n) {
    const StTensor *t = st_find(f, name);
    if (!t || t->dtype != DT_I64 || st_elements(t) < (index + 1) * n) return NULL;
    int32_t *x = mem_new((size_t)n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = (int32_t)((const int64_t *)t->data)[index * n + i];
    return x;
}

static int32_t *ints_of_json(const Json *list, int64_t n) {
    if (json_len(list) != (size_t)n) return NULL;
    int32_t *x = mem_new((size_t)n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) {
        int64_t v = 0;
        json_int(json_at(list, (size_t)i), &v);
        x[i] = (int32_t)v;
    }
    return x;
}

Status gold_batch(Case *c, const StFile *f, int64_t index, const Dims *d, int64_t B, GoldBatch *out) {
    *out = (GoldBatch){0};
    const StTensor *x = st_find(f, "features");
    int64_t n = B * d->P * d->E;
    out->ids = ints_of(f, "input_ids", index, B * d->T);
    int32_t *mask = ints_of(f, "attention_mask", index, B * d->T);
    out->len = mem_new((size_t)B, sizeof *out->len);
    out->features = mem_new((size_t)n, sizeof *out->features);
    if (!x || st_elements(x) < (index + 1) * n || !out->ids || !mask || !out->len || !out->features) {
        free(mask);
        return err_set(ERR_FORMAT, "%s: features, input_ids or attention_mask are missing or too short", st_path(f));
    }
    dtype_to_f32(out->features, (const char *)x->data + (size_t)(index * n) * (size_t)dtype_size(x->dtype), x->dtype,
                 (size_t)n);
    for (int64_t i = 0; i < B * d->T; i++) out->len[i / d->T] += mask[i];
    free(mask);
    out->negative_image = ints_of(f, "negative_image", index, B);
    out->negative_text = ints_of(f, "negative_text", index, B);
    if (!out->negative_image) out->negative_image = ints_of_json(json_get(c->json, "negative_image"), B);
    if (!out->negative_text) out->negative_text = ints_of_json(json_get(c->json, "negative_text"), B);
    const Json *ids = json_get(c->json, "image_id");
    if (json_type(ids) == J_ARRAY && (out->image_id = mem_new((size_t)B, sizeof *out->image_id)))
        for (int64_t i = 0; i < B; i++) json_int(json_at(ids, (size_t)i), &out->image_id[i]);
    out->batch = (ObjectiveBatch){.features = out->features, .dt = DT_F32, .ids = out->ids, .len = out->len,
                             .image_id = out->image_id,
                             .negative_image = out->negative_image, .negative_text = out->negative_text};
    return OK;
}

void gold_batch_free(GoldBatch *b) {
    free(b->features);
    free(b->ids);
    free(b->len);
    free(b->negative_image);
    free(b->negative_text);
    free(b->image_id);
    *b = (GoldBatch){0};
}
