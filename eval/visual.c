/* visual: see visual.h. */
#include "eval/visual.h"

#include <stdlib.h>

#include "kernels/base/mem.h"

static const Noise QUIET = {0};

static Status take_fixed(Visual *v) {
    const Dims *d = &v->model->d;
    int64_t n = v->spec.images;
    DType e = v->b->elem;
    v->soft = tape_leaf(arena_push(&v->fixed, (size_t)(n * d->Q * d->W), (size_t)dtype_size(e)), n * d->Q, d->W, e);
    features_open(&v->up, v->b, &v->fixed, d, n, v->spec.features, false);
    return staging_open(&v->room, v->b, &v->fixed, wave_bytes(n * d->Q, n * v->spec.asked, n, n));
}

static Segment segment_of(const Visual *v, int i, const VisualAsk *asks) {
    Segment g = {.nq = v->model->d.Q, .first_id = -1, .sees = -1, .image = i, .pass = PASS_ITC_IMAGE, .pair = (uint32_t)i};
    if (!asks) return g;
    BUG_ON(asks[i].n > v->spec.asked, "visual: %d word pieces, at most %d", asks[i].n, v->spec.asked);
    g.nt = asks[i].n, g.ids = asks[i].ids, g.joint = true;
    return g;
}

Status visual_rows(Visual *v, const void *features, const float *scale, int n, const VisualAsk *asks, Tensor *soft) {
    const QFormer *m = v->model;
    Tape *t = &v->tape;
    Wave w;
    ImageKV kv;
    BUG_ON(n < 1 || n > v->spec.images, "visual: %d pictures, at most %d", n, v->spec.images);
    tape_reset(t, false);
    staging_reset(&v->room);
    for (int i = 0; i < n; i++) v->seg[i] = segment_of(v, i, asks);
    Status st = wave_build(&w, &v->room, &m->d, v->seg, n, n);
    if (st != OK) return st;
    staging_upload(&v->room);
    FeatureRows up = features_up(&v->up, (FeatureRows){features, scale}, n, v->spec.features, (FeatureRows){0});
    qformer_image(&kv, t, m, up.data, v->spec.features, up.scale, n);
    Tensor x = tensor_rows(qformer_forward(t, m, &w, &kv, QUIET), 0, w.NQ);
    *soft = tensor_rows(v->soft, 0, (int64_t)n * m->d.Q);
    op_linear(t, *soft, x, params_get(&m->params, P_SPEAK_W, -1), params_get(&m->params, P_SPEAK_B, -1));
    t->b->sync();                        /* the lists in the room and the features are the caller's again */
    return tape_status(t);
}

/* The largest pass on measuring arenas. */
static Status measure(const Visual *v, size_t *fixed, size_t *mem) {
    Backend null = backend_measuring(v->b);
    Visual m = *v;
    int n = v->spec.images;
    Tensor soft;
    m.b = &null;
    arena_measure(&m.fixed, "visual rows");
    arena_measure(&m.mem, "visual rows");
    int32_t *ids = mem_new((size_t)v->spec.asked, sizeof *ids);
    VisualAsk *asks = mem_new((size_t)n, sizeof *asks);
    for (int i = 0; asks && i < n; i++) asks[i] = (VisualAsk){ids, v->spec.asked};
    Status st = ids && asks ? tape_open(&m.tape, &null, &m.mem) : ERR_MEMORY;
    if (st == OK) st = take_fixed(&m);
    if (st == OK) st = visual_rows(&m, m.soft.data, NULL, n, v->spec.asked ? asks : NULL, &soft);
    *fixed = m.fixed.peak;
    *mem = m.mem.peak;
    tape_close(&m.tape);
    staging_close(&m.room);
    free(ids);
    free(asks);
    return st;
}

Status visual_open(Visual *v, const Backend *b, const QFormer *model, const VisualSpec *spec) {
    size_t fixed = 0, mem = 0;
    *v = (Visual){.b = b, .model = model, .spec = *spec};
    BUG_ON(spec->images < 1 || !model->d.W, "visual: %d pictures, a projection to %d", spec->images, model->d.W);
    Status st = (v->seg = mem_new((size_t)spec->images, sizeof *v->seg)) ? OK : ERR_MEMORY;
    if (st == OK) st = measure(v, &fixed, &mem);
    if (st == OK) st = arena_open(&v->fixed, "visual rows'", b, fixed);
    if (st == OK) st = arena_open(&v->mem, "visual rows'", b, mem);
    if (st == OK) st = tape_open(&v->tape, b, &v->mem);
    if (st == OK) st = take_fixed(v);
    if (st == OK) return OK;
    err_context(st, "visual rows of %d pictures at a time", spec->images);
    visual_close(v);
    return st;
}

void visual_close(Visual *v) {
    tape_close(&v->tape);
    staging_close(&v->room);
    if (v->b) {
        arena_close(&v->mem, v->b);
        arena_close(&v->fixed, v->b);
    }
    free(v->seg);
    *v = (Visual){0};
}
