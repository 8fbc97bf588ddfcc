/* attention: see attention.h. */
#include "eval/report/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/forward.h"

static const Noise QUIET = {0};

typedef struct {
    const QFormer *model;
    Forward f;
    Features up;                        /* one image's */
    DType dt;                           /* of features */
    Wave wave;
    float *q, *k;                       /* host: (Q,C), (P,C) */
    void *raw;                          /* host: what comes down before it is f32 */
} Work;

/* ---- the forward pass -------------------------------------------------------------------------------------------- */

static Status pass(Work *w, FeatureRows rows) {
    const Dims *d = &w->model->d;
    Segment seg = {.nq = d->Q, .first_id = -1, .sees = -1, .image = 0};
    ImageKV kv;
    forward_begin(&w->f);
    w->f.tape.recording = true;          /* nothing is walked back: the nodes are what is wanted */
    Status st = wave_build(&w->wave, &w->f.room, d, &seg, 1, 1);
    if (st != OK) return st;
    staging_upload(&w->f.room);
    FeatureRows up = features_up(&w->up, rows, 1, w->dt, (FeatureRows){0});
    qformer_image(&kv, &w->f.tape, w->model, up.data, w->dt, up.scale, 1);
    qformer_forward(&w->f.tape, w->model, &w->wave, &kv, QUIET);
    return tape_status(&w->f.tape);
}

static Status take(void *self) {
    Work *w = self;
    const Dims *d = &w->model->d;
    features_open(&w->up, w->f.b, &w->f.fixed, d, 1, w->dt, false);
    return staging_open(&w->f.room, w->f.b, &w->f.fixed, wave_bytes(d->Q, 0, 1, 1));
}

static Status largest(void *self) {
    Work *w = self;
    float nowhere = 0;
    return pass(w, (FeatureRows){&nowhere, &nowhere});
}

/* ---- on the host ------------------------------------------------------------------------------------------------- */

/* rows x C elements, ld apart, on the device -> dense f32 on the host. */
static void fetch(const Work *w, float *to, const void *from, int64_t rows, int64_t C, int64_t ld) {
    size_t size = (size_t)dtype_size(w->f.b->elem);
    /* one copy, gaps included: keys of all layers lie side by side */
    w->f.b->download(w->raw, from, ((size_t)(rows - 1) * (size_t)ld + (size_t)C) * size);
    for (int64_t r = 0; r < rows; r++)
        dtype_to_f32(to + r * C, (const char *)w->raw + (size_t)(r * ld) * size, w->f.b->elem, (size_t)C);
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
                double dot = 0;                              /* these are looked at closely, and few */
                for (int i = 0; i < a->D; i++) dot += (double)x[i] * (double)y[i];
                row[k] = dot * (double)a->scale;
                most = fmax(most, row[k]);
            }
            for (int64_t k = 0; k < P; k++) sum += row[k] = exp(row[k] - most);
            for (int64_t k = 0; k < P; k++) to[q * P + k] += (float)(row[k] / sum / a->H);
        }
}

static Status one_image(Attention *a, Work *w, int64_t i, FeatureRows rows, double *row) {
    int64_t layer = 0;
    Status st = pass(w, rows);
    for (int n = 0; st == OK && n < w->f.tape.nnodes; n++) {
        const Node *node = &w->f.tape.nodes[n];
        /* self-attention leaves nodes of the same name */
        if (strcmp(node->name, "attention") != 0 || node->u.attn.plan != &w->wave.cross) continue;
        BUG_ON(layer == a->layers, "attention: more than %lld layers look at the image", (long long)a->layers);
        shares(w, &node->u.attn, a->Q, a->P, attention_row(a, i, layer++, 0), row);
    }
    if (st == OK && (st = w->f.b->status()) != OK) return st;
    BUG_ON(st == OK && layer != a->layers, "attention: %lld layers of %lld look at the image", (long long)layer,
           (long long)a->layers);
    return st;
}

Status attention_open(Attention *a, const Backend *b, const QFormer *model, FeatureRows rows, DType dt, int64_t n) {
    const Dims *d = &model->d;
    Work w = {.model = model, .dt = dt};
    int64_t widest = 2LL * d->C * dims_cross_layers(d);      /* a row of keys and values of all layers */
    double *row = mem_new((size_t)d->P, sizeof *row);
    *a = (Attention){.images = n, .layers = dims_cross_layers(d), .Q = d->Q, .P = d->P};
    for (int l = 0, i = 0; l < d->L; l++)
        if (dims_is_cross(d, l)) a->layer[i++] = l;
    a->w = mem_new((size_t)(n * a->layers), (size_t)(a->Q * a->P) * sizeof *a->w);
    w.q = mem_new((size_t)d->Q * (size_t)d->C, sizeof *w.q);
    w.k = mem_new((size_t)d->P * (size_t)d->C, sizeof *w.k);
    w.raw = mem_new((size_t)(d->P > d->Q ? d->P : d->Q), (size_t)widest * sizeof(float));
    Status st = a->w && row && w.q && w.k && w.raw ? OK : ERR_MEMORY;
    if (st == OK) st = forward_open(&w.f, b, "attention's", take, largest, &w);
    for (int64_t i = 0; st == OK && i < n; i++) st = one_image(a, &w, i, features_from(d, rows, i, dt), row);
    forward_close(&w.f);
    mem_free(row, w.q, w.k, w.raw);
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
