/* encode: see encode.h. */
#include "eval/encode.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

static const Noise QUIET = {0};

static size_t feature_bytes(const Encoder *e, int64_t n) {
    return (size_t)n * (size_t)e->model->d.P * (size_t)e->model->d.E * (size_t)dtype_size(e->features);
}

/* What lives as long as the encoder and not on the host. Pairs have the longest lists, texts one more than a wave. */
static Status take_fixed(Encoder *e) {
    const Dims *d = &e->model->d;
    int64_t n = e->batch;
    features_open(&e->up, e->b, &e->fixed, d, n, e->features, false);
    return staging_open(&e->room, e->b, &e->fixed,
                        wave_bytes(n * d->Q, n * d->T, n, n) + staging_bytes(n, sizeof(int32_t)));
}

/* What the encoder computes for full pieces, on measuring arenas. */
static Status measure(Encoder *e, size_t *fixed, size_t *bytes) {
    const Dims *d = &e->model->d;
    Backend null = backend_measuring(e->b);
    Encoder m = *e;
    m.b = &null;
    arena_measure(&m.fixed, "encoder");
    arena_measure(&m.mem, "encoder");
    int32_t *ids = mem_new((size_t)(e->batch * (d->T + 2)), sizeof *ids), *len = ids ? ids + e->batch * d->T : NULL;
    float *out = mem_new((size_t)e->batch * (size_t)(d->Q * d->Z + 2), sizeof *out);
    Status st = ids && out ? tape_open(&m.tape, &null, &m.mem) : ERR_MEMORY;
    if (st == OK) st = take_fixed(&m);
    for (int i = 0; st == OK && i < e->batch; i++) len[i] = d->T;
    if (st == OK) st = encode_image_keys(&m, ids, NULL, e->batch);
    if (st == OK) st = encode_pairs(&m, len + e->batch, ids, len, e->batch, out);
    if (st == OK) st = encode_images(&m, ids, NULL, e->batch, out);
    if (st == OK) st = encode_texts(&m, ids, len, e->batch, out);
    *fixed = m.fixed.peak;
    *bytes = m.mem.peak;
    tape_close(&m.tape);
    staging_close(&m.room);
    free(ids);
    free(out);
    return st;
}

Status encoder_open(Encoder *e, const Backend *b, const QFormer *model, int batch, DType features) {
    *e = (Encoder){.b = b, .model = model, .batch = batch, .features = features};
    size_t bytes = 0, fixed = 0;
    e->seg = mem_new((size_t)batch, sizeof *e->seg);
    Status st = e->seg ? measure(e, &fixed, &bytes) : ERR_MEMORY;
    if (st == OK) st = arena_open(&e->fixed, "encoder's", b, fixed);
    if (st == OK) st = arena_open(&e->mem, "encoder's", b, bytes);
    if (st == OK) st = tape_open(&e->tape, b, &e->mem);
    if (st == OK) st = take_fixed(e);
    if (st != OK) {
        err_context(st, "evaluating %d at a time", batch);
        encoder_close(e);
    }
    return st;
}

void encoder_close(Encoder *e) {
    tape_close(&e->tape);
    staging_close(&e->room);
    if (e->b) {
        arena_close(&e->mem, e->b);
        arena_close(&e->fixed, e->b);
    }
    free(e->seg);
    *e = (Encoder){0};
}

static void image_keys(Encoder *e, const void *features, const float *scale, int n) {
    FeatureRows up = features_up(&e->up, (FeatureRows){features, scale}, n, e->features, (FeatureRows){0});
    qformer_image(&e->kv, &e->tape, e->model, up.data, e->features, up.scale, n);
}

static Status build(Encoder *e, Wave *w, int n, int images) {
    staging_reset(&e->room);
    Status st = wave_build(w, &e->room, &e->model->d, e->seg, n, images);
    if (st == OK) staging_upload(&e->room);
    return st;
}

static Status images_piece(Encoder *e, const void *features, const float *scale, int n, float *out) {
    const Dims *d = &e->model->d;
    Wave w;
    tape_reset(&e->tape, false);
    for (int i = 0; i < n; i++) e->seg[i] = (Segment){.nq = d->Q, .first_id = -1, .sees = -1, .image = i};
    Status st = build(e, &w, n, n);
    if (st != OK) return st;
    image_keys(e, features, scale, n);
    Tensor x = qformer_forward(&e->tape, e->model, &w, &e->kv, QUIET);
    Tensor y = qformer_features(&e->tape, e->model, x, P_VISION_PROJ_W, P_VISION_PROJ_B);
    e->b->download(out, y.data, (size_t)tensor_count(y) * sizeof *out);
    return tape_status(&e->tape);
}

Status encode_images(Encoder *e, const void *features, const float *scale, int64_t n, float *out) {
    const Dims *d = &e->model->d;
    Status st = OK;
    for (int64_t at = 0; st == OK && at < n; at += e->batch) {
        int m = (int)(n - at < e->batch ? n - at : e->batch);
        st = images_piece(e, (const char *)features + feature_bytes(e, at), scale ? scale + at * dims_scales(d) : NULL, m,
                          out + at * d->Q * d->Z);
    }
    return st;
}

static Status texts_piece(Encoder *e, const int32_t *ids, const int32_t *len, int n, float *out) {
    const Dims *d = &e->model->d;
    Wave w;
    tape_reset(&e->tape, false);
    for (int i = 0; i < n; i++)
        e->seg[i] = (Segment){.nt = len[i], .ids = ids + (int64_t)i * d->T, .first_id = -1, .sees = -1, .image = -1};
    staging_reset(&e->room);
    Status st = wave_build(&w, &e->room, d, e->seg, n, 0);
    if (st != OK) return st;
    int32_t *cls = staging_take(&e->room, (size_t)n, sizeof *cls);
    for (int i = 0; i < n; i++) cls[i] = e->seg[i].t0;
    staging_upload(&e->room);
    Tensor x = qformer_forward(&e->tape, e->model, &w, NULL, QUIET), first = tape_new(&e->tape, n, d->C, e->b->elem);
    op_gather(&e->tape, first, x, staging_device(&e->room, cls));
    Tensor y = qformer_features(&e->tape, e->model, first, P_TEXT_PROJ_W, P_TEXT_PROJ_B);
    e->b->download(out, y.data, (size_t)tensor_count(y) * sizeof *out);
    return tape_status(&e->tape);
}

Status encode_texts(Encoder *e, const int32_t *ids, const int32_t *len, int64_t n, float *out) {
    const Dims *d = &e->model->d;
    Status st = OK;
    for (int64_t at = 0; st == OK && at < n; at += e->batch) {
        int m = (int)(n - at < e->batch ? n - at : e->batch);
        st = texts_piece(e, ids + at * d->T, len + at, m, out + at * d->Z);
    }
    return st;
}

Status encode_image_keys(Encoder *e, const void *features, const float *scale, int n) {
    BUG_ON(n > e->batch, "encode: %d images, at most %d at a time", n, e->batch);
    tape_reset(&e->tape, false);
    image_keys(e, features, scale, n);
    e->after_kv = arena_mark(&e->mem);
    return tape_status(&e->tape);
}

static Status pairs_piece(Encoder *e, const int32_t *image, const int32_t *ids, const int32_t *len, int n,
                          float *logits) {
    const Dims *d = &e->model->d;
    Wave w;
    arena_reset(&e->mem, e->after_kv);
    for (int i = 0; i < n; i++) {
        BUG_ON(image[i] < 0 || image[i] >= e->kv.images, "encode: image %d of %d", image[i], e->kv.images);
        e->seg[i] = (Segment){.nq = d->Q, .nt = len[i], .ids = ids + (int64_t)i * d->T, .first_id = -1, .sees = -1,
                              .joint = true, .image = image[i]};
    }
    Status st = build(e, &w, n, e->kv.images);
    if (st != OK) return st;
    Tensor x = qformer_forward(&e->tape, e->model, &w, &e->kv, QUIET);
    Tensor y = qformer_itm(&e->tape, e->model, tensor_rows(x, 0, w.NQ));
    e->b->download(logits, y.data, (size_t)tensor_count(y) * sizeof *logits);
    return tape_status(&e->tape);
}

Status encode_pairs(Encoder *e, const int32_t *image, const int32_t *ids, const int32_t *len, int64_t n,
                    float *logits) {
    const Dims *d = &e->model->d;
    Status st = OK;
    for (int64_t at = 0; st == OK && at < n; at += e->batch) {
        int m = (int)(n - at < e->batch ? n - at : e->batch);
        st = pairs_piece(e, image + at, ids + at * d->T, len + at, m, logits + 2 * at);
    }
    return st;
}
