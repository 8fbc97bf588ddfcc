/* encode: see encode.h. */
#include "eval/encode.h"

#include <stdlib.h>

#include "kernels/base/mem.h"

static const Noise QUIET = {0};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Pairs have the longest lists, texts one more than a wave. */
static Status take(void *self) {
    Encoder *e = self;
    const Dims *d = &e->model->d;
    int64_t n = e->batch;
    features_open(&e->up, e->f.b, &e->f.fixed, d, n, e->features, false);
    return staging_open(&e->f.room, e->f.b, &e->f.fixed,
                        wave_bytes(n * d->Q, n * d->T, n, n) + staging_bytes(n, sizeof(int32_t)));
}

static Status largest(void *self) {
    Encoder *e = self;
    const Dims *d = &e->model->d;
    int32_t *ids = mem_new((size_t)(e->batch * (d->T + 2)), sizeof *ids), *len = ids ? ids + e->batch * d->T : NULL;
    float *out = mem_new((size_t)e->batch * (size_t)(d->Q * d->Z + 2), sizeof *out);
    Status st = ids && out ? OK : ERR_MEMORY;
    for (int i = 0; st == OK && i < e->batch; i++) len[i] = d->T;
    FeatureRows nothing = {ids, NULL};                       /* nobody reads it here, but NULL would mean none */
    if (st == OK) st = encode_image_keys(e, nothing, e->batch);
    if (st == OK) st = encode_pairs(e, len + e->batch, ids, len, e->batch, out);
    if (st == OK) st = encode_images(e, nothing, e->batch, out);
    if (st == OK) st = encode_texts(e, ids, len, e->batch, out);
    mem_free(ids, out);
    return st;
}

Status encoder_open(Encoder *e, const Backend *b, const QFormer *model, int batch, DType features) {
    *e = (Encoder){.model = model, .batch = batch, .features = features};
    Status st = (e->seg = mem_new((size_t)batch, sizeof *e->seg)) ? OK : ERR_MEMORY;
    if (st == OK) st = forward_open(&e->f, b, "encoder's", take, largest, e);
    if (st == OK) return OK;
    err_context(st, "evaluating %d at a time", batch);
    encoder_close(e);
    return st;
}

void encoder_close(Encoder *e) {
    forward_close(&e->f);
    free(e->seg);
    *e = (Encoder){0};
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

/* Whole lists, of which a piece takes [at, at + n). */
typedef struct { FeatureRows rows; const int32_t *image, *ids, *len; float *out; } Lists;
typedef Status Piece(Encoder *e, const Lists *l, int64_t at, int n);

static Status in_pieces(Encoder *e, const Lists *l, int64_t n, Piece *piece) {
    Status st = OK;
    for (int64_t at = 0; st == OK && at < n; at += e->batch)
        st = piece(e, l, at, (int)(n - at < e->batch ? n - at : e->batch));
    return st;
}

static void image_keys(Encoder *e, FeatureRows rows, int n) {
    FeatureRows up = features_up(&e->up, rows, n, e->features, (FeatureRows){0});
    qformer_image(&e->kv, &e->f.tape, e->model, up.data, e->features, up.scale, n);
}

static Status build(Encoder *e, Wave *w, int n, int images) {
    Status st = wave_build(w, &e->f.room, &e->model->d, e->seg, n, images);
    if (st == OK) staging_upload(&e->f.room);
    return st;
}

static Status fetch(Encoder *e, float *out, Tensor y) {
    e->f.b->download(out, y.data, (size_t)tensor_count(y) * sizeof *out);
    return tape_status(&e->f.tape);
}

static Status images_piece(Encoder *e, const Lists *l, int64_t at, int n) {
    const Dims *d = &e->model->d;
    Wave w;
    forward_begin(&e->f);
    for (int i = 0; i < n; i++) e->seg[i] = (Segment){.nq = d->Q, .first_id = -1, .sees = -1, .image = i};
    Status st = build(e, &w, n, n);
    if (st != OK) return st;
    image_keys(e, features_from(d, l->rows, at, e->features), n);
    Tensor x = qformer_forward(&e->f.tape, e->model, &w, &e->kv, QUIET);
    Tensor y = qformer_features(&e->f.tape, e->model, x, P_VISION_PROJ_W, P_VISION_PROJ_B);
    return fetch(e, l->out + at * d->Q * d->Z, y);
}

Status encode_images(Encoder *e, FeatureRows rows, int64_t n, float *out) {
    return in_pieces(e, &(Lists){.rows = rows, .out = out}, n, images_piece);
}

static Segment text_of(const Encoder *e, const Lists *l, int64_t i) {
    return (Segment){.nt = l->len[i], .ids = l->ids + i * e->model->d.T, .first_id = -1, .sees = -1, .image = -1};
}

static Status texts_piece(Encoder *e, const Lists *l, int64_t at, int n) {
    const Dims *d = &e->model->d;
    Tape *t = &e->f.tape;
    Wave w;
    forward_begin(&e->f);
    for (int i = 0; i < n; i++) e->seg[i] = text_of(e, l, at + i);
    Status st = wave_build(&w, &e->f.room, d, e->seg, n, 0);
    if (st != OK) return st;
    int32_t *cls = staging_take(&e->f.room, (size_t)n, sizeof *cls);
    for (int i = 0; i < n; i++) cls[i] = e->seg[i].t0;       /* where the wave has put each text's [CLS] */
    staging_upload(&e->f.room);
    Tensor x = qformer_forward(t, e->model, &w, NULL, QUIET), first = tape_new(t, n, d->C, t->b->elem);
    op_gather(t, first, x, staging_device(&e->f.room, cls));
    return fetch(e, l->out + at * d->Z, qformer_features(t, e->model, first, P_TEXT_PROJ_W, P_TEXT_PROJ_B));
}

Status encode_texts(Encoder *e, const int32_t *ids, const int32_t *len, int64_t n, float *out) {
    return in_pieces(e, &(Lists){.ids = ids, .len = len, .out = out}, n, texts_piece);
}

Status encode_image_keys(Encoder *e, FeatureRows rows, int n) {
    BUG_ON(n > e->batch, "encode: %d images, at most %d at a time", n, e->batch);
    forward_begin(&e->f);
    image_keys(e, rows, n);
    e->after_kv = arena_mark(&e->f.mem);                     /* each piece of pairs begins here */
    return tape_status(&e->f.tape);
}

static Status pairs_piece(Encoder *e, const Lists *l, int64_t at, int n) {
    const Dims *d = &e->model->d;
    Wave w;
    arena_reset(&e->f.mem, e->after_kv);                     /* no tape_reset: the keys stay for the pairs to come */
    staging_reset(&e->f.room);
    for (int i = 0; i < n; i++) {
        int32_t image = l->image[at + i];
        /* an index past the keys would read a neighbour's picture */
        BUG_ON(image < 0 || image >= e->kv.images, "encode: image %d of %d", image, e->kv.images);
        e->seg[i] = text_of(e, l, at + i);
        e->seg[i].nq = d->Q, e->seg[i].joint = true, e->seg[i].image = image;
    }
    Status st = build(e, &w, n, e->kv.images);
    if (st != OK) return st;
    Tensor x = qformer_forward(&e->f.tape, e->model, &w, &e->kv, QUIET);
    return fetch(e, l->out + 2 * at, qformer_itm(&e->f.tape, e->model, tensor_rows(x, 0, w.NQ)));
}

Status encode_pairs(Encoder *e, const int32_t *image, const int32_t *ids, const int32_t *len, int64_t n,
                    float *logits) {
    return in_pieces(e, &(Lists){.image = image, .ids = ids, .len = len, .out = logits}, n, pairs_piece);
}
