/* overlay: see overlay.h. */
#include "eval/report/overlay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/features.h"

static const Noise QUIET = {0};

typedef struct {
    const Backend *b;
    const QFormer *model;
    Arena mem, fixed;
    Tape tape;
    Staging room;
    Features up;                        /* one image's */
    float *q, *k;                       /* host: (Q,C), (P,C) */
    void *raw;                          /* host: what comes down before it is f32 */
} Work;

/* ---- the forward pass -------------------------------------------------------------------------------------------- */

static Status forward(Work *w, Wave *wave, const void *features, const float *scale, DType dt) {
    const Dims *d = &w->model->d;
    Segment seg = {.nq = d->Q, .first_id = -1, .sees = -1, .image = 0};
    ImageKV kv;
    tape_reset(&w->tape, true);
    staging_reset(&w->room);
    Status st = wave_build(wave, &w->room, d, &seg, 1, 1);
    if (st != OK) return st;
    staging_upload(&w->room);
    FeatureRows up = features_up(&w->up, (FeatureRows){features, scale}, 1, dt, (FeatureRows){0});
    qformer_image(&kv, &w->tape, w->model, up.data, dt, up.scale, 1);
    qformer_forward(&w->tape, w->model, wave, &kv, QUIET);
    return tape_status(&w->tape);
}

/* The room and the features lie in an arena of their own: tape_reset empties the tape's. */
static Status open_memory(Work *w, DType dt) {
    const Dims *d = &w->model->d;
    Status st = tape_open(&w->tape, w->b, &w->mem);
    if (st == OK) st = staging_open(&w->room, w->b, &w->fixed, wave_bytes(d->Q, 0, 1, 1));
    if (st == OK) features_open(&w->up, w->b, &w->fixed, d, 1, dt, false);
    return st;
}

static void close_memory(Work *w) {
    tape_close(&w->tape);
    staging_close(&w->room);
    arena_close(&w->mem, w->b);
    arena_close(&w->fixed, w->b);
}

/* Bytes of both arenas, by a pass on the null backend. */
static Status measure(const Work *w, DType dt, size_t *fixed, size_t *mem) {
    Backend null = backend_measuring(w->b);
    Work m = {.b = &null, .model = w->model};
    Wave wave;
    float *scale = mem_new((size_t)dims_scales(&w->model->d), sizeof *scale);
    void *features = mem_new((size_t)w->model->d.P * (size_t)w->model->d.E, (size_t)dtype_size(dt));
    arena_measure(&m.mem, "attention's");
    arena_measure(&m.fixed, "attention's");
    Status st = features && scale ? open_memory(&m, dt) : ERR_MEMORY;
    if (st == OK) st = forward(&m, &wave, features, scale, dt);
    *fixed = m.fixed.peak, *mem = m.mem.peak;
    close_memory(&m);
    free(features);
    free(scale);
    return st;
}

/* ---- on the host ------------------------------------------------------------------------------------------------- */

/* rows x C elements, ld apart, on the device -> dense f32 on the host. */
static void fetch(const Work *w, float *to, const void *from, int64_t rows, int64_t C, int64_t ld) {
    size_t size = (size_t)dtype_size(w->b->elem);
    w->b->download(w->raw, from, ((size_t)(rows - 1) * (size_t)ld + (size_t)C) * size);
    for (int64_t r = 0; r < rows; r++)
        dtype_to_f32(to + r * C, (const char *)w->raw + (size_t)(r * ld) * size, w->b->elem, (size_t)C);
}

/* w (Q,P) = mean over heads of softmax(q k^T scale). */
static void shares(const Work *w, const Attn *a, int64_t Q, int64_t P, float *to, double *row) {
    int64_t C = (int64_t)a->H * a->D;
    fetch(w, w->q, a->q, Q, C, a->ldq);
    fetch(w, w->k, a->k, P, C, a->ldk);
    for (int64_t q = 0; q < Q; q++)
        for (int h = 0; h < a->H; h++) {
            double most = -INFINITY, sum = 0;
            for (int64_t k = 0; k < P; k++) {
                const float *x = w->q + q * C + h * a->D, *y = w->k + k * C + h * a->D;
                double dot = 0;
                for (int i = 0; i < a->D; i++) dot += (double)x[i] * (double)y[i];
                row[k] = dot * (double)a->scale;
                most = fmax(most, row[k]);
            }
            for (int64_t k = 0; k < P; k++) sum += row[k] = exp(row[k] - most);
            for (int64_t k = 0; k < P; k++) to[q * P + k] += (float)(row[k] / sum / a->H);
        }
}

static Status one_image(Attention *a, Work *w, int64_t i, const void *features, const float *scale, DType dt,
                        double *row) {
    Wave wave;
    int64_t layer = 0;
    Status st = forward(w, &wave, features, scale, dt);
    for (int n = 0; st == OK && n < w->tape.nnodes; n++) {
        const Node *node = &w->tape.nodes[n];
        if (strcmp(node->name, "attention") != 0 || node->u.attn.plan != &wave.cross) continue;
        BUG_ON(layer == a->layers, "attention: more than %lld layers look at the image", (long long)a->layers);
        shares(w, &node->u.attn, a->Q, a->P, attention_row(a, i, layer++, 0), row);
    }
    if (st == OK && (st = w->b->status()) != OK) return st;
    BUG_ON(st == OK && layer != a->layers, "attention: %lld layers of %lld look at the image", (long long)layer,
           (long long)a->layers);
    return st;
}

Status attention_open(Attention *a, const Backend *b, const QFormer *model, const void *features, const float *scale,
                      DType dt, int64_t n) {
    const Dims *d = &model->d;
    Work w = {.b = b, .model = model};
    size_t fixed = 0, bytes = 0, image = (size_t)d->P * (size_t)d->E * (size_t)dtype_size(dt);
    int64_t widest = 2LL * d->C * dims_cross_layers(d);      /* a row of keys and values of all layers */
    double *row = mem_new((size_t)d->P, sizeof *row);
    *a = (Attention){.images = n, .layers = dims_cross_layers(d), .Q = d->Q, .P = d->P};
    for (int l = 0, i = 0; l < d->L; l++)
        if (dims_is_cross(d, l)) a->layer[i++] = l;
    a->w = mem_new((size_t)(n * a->layers), (size_t)(a->Q * a->P) * sizeof *a->w);
    w.q = mem_new((size_t)d->Q * (size_t)d->C, sizeof *w.q);
    w.k = mem_new((size_t)d->P * (size_t)d->C, sizeof *w.k);
    w.raw = mem_new((size_t)(d->P > d->Q ? d->P : d->Q), (size_t)widest * sizeof(float));
    Status st = a->w && row && w.q && w.k && w.raw ? measure(&w, dt, &fixed, &bytes) : ERR_MEMORY;
    if (st == OK) st = arena_open(&w.mem, "attention's", b, bytes);
    if (st == OK) st = arena_open(&w.fixed, "attention's", b, fixed);
    if (st == OK) st = open_memory(&w, dt);
    for (int64_t i = 0; st == OK && i < n; i++)
        st = one_image(a, &w, i, (const char *)features + (size_t)i * image, scale ? scale + i * dims_scales(&model->d) : NULL, dt, row);
    close_memory(&w);
    free(row);
    free(w.q);
    free(w.k);
    free(w.raw);
    if (st != OK) attention_close(a);
    return st;
}

void attention_close(Attention *a) {
    free(a->w);
    *a = (Attention){0};
}

bool attention_grid(int64_t P, int *side, int *lead) {
    for (*lead = 0; *lead < 2; ++*lead) {
        *side = (int)lround(sqrt((double)(P - *lead)));
        if (*side > 1 && (int64_t)*side * *side == P - *lead) return true;
    }
    return false;
}

double attention_spread(const float *w, int64_t P) {
    double entropy = 0;
    for (int64_t k = 0; k < P; k++)
        if (w[k] > 0) entropy -= (double)w[k] * log((double)w[k]);
    return exp(entropy) / (double)P;
}
