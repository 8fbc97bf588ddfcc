/* visual: see visual.h. */
#include "eval/visual.h"

#include <stdlib.h>

#include "kernels/base/mem.h"

static const Noise QUIET = {0};

static Status take(void *self) {
    Visual *v = self;
    Forward *f = &v->f;
    const Dims *d = &v->model->d;
    int64_t n = v->spec.images;
    DType e = f->b->elem;
    v->soft = tape_leaf(arena_push(&f->fixed, (size_t)(n * d->Q * d->W), (size_t)dtype_size(e)), n * d->Q, d->W, e);
    features_open(&v->up, f->b, &f->fixed, d, n, v->spec.features, false);
    return staging_open(&f->room, f->b, &f->fixed, wave_bytes(n * d->Q, n * v->spec.asked, n, n));
}

static Segment segment_of(const Visual *v, int i, const VisualAsk *asks) {
    Segment g = {.nq = v->model->d.Q, .first_id = -1, .sees = -1, .image = i, .pass = PASS_ITC_IMAGE,
                 .pair = (uint32_t)i};
    if (!asks) return g;                                     /* the queries alone */
    /* lists were sized by this bound */
    BUG_ON(asks[i].n > v->spec.asked, "visual: %d word pieces, at most %d", asks[i].n, v->spec.asked);
    g.nt = asks[i].n, g.ids = asks[i].ids, g.joint = true;
    return g;
}

Status visual_rows(Visual *v, FeatureRows rows, int n, const VisualAsk *asks, Tensor *soft) {
    const QFormer *m = v->model;
    Tape *t = &v->f.tape;
    Wave w;
    ImageKV kv;
    BUG_ON(n < 1 || n > v->spec.images, "visual: %d pictures, at most %d", n, v->spec.images);
    forward_begin(&v->f);
    for (int i = 0; i < n; i++) v->seg[i] = segment_of(v, i, asks);
    Status st = wave_build(&w, &v->f.room, &m->d, v->seg, n, n);
    if (st != OK) return st;
    staging_upload(&v->f.room);
    FeatureRows up = features_up(&v->up, rows, n, v->spec.features, (FeatureRows){0});
    qformer_image(&kv, t, m, up.data, v->spec.features, up.scale, n);
    Tensor x = tensor_rows(qformer_forward(t, m, &w, &kv, QUIET), 0, w.NQ);
    *soft = tensor_rows(v->soft, 0, (int64_t)n * m->d.Q);
    op_linear(t, *soft, x, params_get(&m->params, P_SPEAK_W, -1), params_get(&m->params, P_SPEAK_B, -1));
    t->b->sync();                        /* the lists in the room and the features are the caller's again */
    return tape_status(t);
}

static Status largest(void *self) {
    Visual *v = self;
    int n = v->spec.images;
    Tensor soft;
    int32_t *ids = mem_new((size_t)v->spec.asked, sizeof *ids);
    VisualAsk *asks = mem_new((size_t)n, sizeof *asks);
    Status st = ids && asks ? OK : ERR_MEMORY;
    for (int i = 0; asks && i < n; i++) asks[i] = (VisualAsk){ids, v->spec.asked};
    if (st == OK) st = visual_rows(v, (FeatureRows){v->soft.data, NULL}, n, v->spec.asked ? asks : NULL, &soft);
    mem_free(ids, asks);
    return st;
}

Status visual_open(Visual *v, const Backend *b, const QFormer *model, const VisualSpec *spec) {
    *v = (Visual){.model = model, .spec = *spec};
    BUG_ON(spec->images < 1 || !model->d.W, "visual: %d pictures, a projection to %d", spec->images, model->d.W);
    Status st = (v->seg = mem_new((size_t)spec->images, sizeof *v->seg)) ? OK : ERR_MEMORY;
    if (st == OK) st = forward_open(&v->f, b, "visual rows'", take, largest, v);
    if (st == OK) return OK;
    err_context(st, "visual rows of %d pictures at a time", spec->images);
    visual_close(v);
    return st;
}

void visual_close(Visual *v) {
    forward_close(&v->f);
    free(v->seg);
    *v = (Visual){0};
}
