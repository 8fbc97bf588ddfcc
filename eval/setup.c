/* setup: see setup.h. */
#include "eval/setup.h"

#include <string.h>

#include "checkpoints/vision_encoder.h"
#include "data/make/patches.h"
#include "kernels/dist/dist.h"

Status setup_backend(const Backend **b, const Options *o) {
    const char *device = o->run.device.name, *precision = o->run.precision.name;
    /* each process of a machine takes the GPU of its place there */
    bool cuda = strcmp(device, "cpu") != 0 && backend_open(b, "cuda", DT_BF16, dist_local_rank()) == OK;
    if (strcmp(device, "cuda") == 0 && !cuda) return ERR_DEVICE;
    bool half = strcmp(precision, "bf16") == 0 || (strcmp(precision, "auto") == 0 && (cuda || cpu_has_bf16()));
    err_clear();                                             /* auto: no GPU is no error */
    if (cuda && !half) backend_close(*b);                    /* f32 is wanted: opened again in that type */
    Status st = cuda && half ? OK : backend_open(b, cuda ? "cuda" : "cpu", half ? DT_BF16 : DT_F32, dist_local_rank());
    if (st != OK || strcmp(o->run.attention.name, "cudnn") != 0) return st;
    return (*b)->use_cudnn ? (*b)->use_cudnn(true) : err_set(ERR_USAGE, "attention=cudnn needs device=cuda");
}

static Status from_data(int64_t asked, const char *key, const char *what, int64_t data, int32_t *out) {
    if (asked && asked != data)
        return err_set(ERR_USAGE, "%s=%lld, but the data has %lld %s", key, (long long)asked, (long long)data, what);
    *out = (int32_t)data;
    return OK;
}

Status setup_tokens(Dims *d, const Tokenizer *tok) {
    const TokenizerIds *t = tokenizer_ids(tok);
    if (t->nbegin != 1 || t->nend != 1 || t->bos < 0 || t->pad < 0)
        return err_set(ERR_USAGE, "model.vocab: a %s tokenizer; the Q-Former reads WordPiece (vocab.txt)",
                       tokenizer_kind(tok));
    d->V = tokenizer_size(tok);
    d->pad = t->pad, d->cls = t->begin[0], d->sep = t->end[0], d->dec = t->bos;
    return OK;
}

Status setup_dims(Dims *d, const Options *o, const Tokenizer *tok, int64_t P, int64_t E) {
    *d = (Dims){.L = (int32_t)o->model.layers, .C = (int32_t)o->model.hidden, .H = (int32_t)o->model.heads,
                .F = (int32_t)o->model.ffn, .Q = (int32_t)o->model.queries, .Z = (int32_t)o->model.proj,
                .X = (int32_t)o->model.cross_every, .N = (int32_t)o->model.positions, .T = (int32_t)o->data.max_tokens,
                .eps = (float)o->model.eps, .eps_vision = (float)o->model.eps_vision,
                .act = o->model.act.i,                       /* ORDER model.act: an ActKind */
                .V = 30523, .pad = 0, .cls = 101, .sep = 102, .dec = 30522};
    if (!d->F) d->F = 4 * d->C;
    Status st = tok ? setup_tokens(d, tok) : OK;
    if (st == OK) st = from_data(o->model.image_width, "model.image_width", "numbers in an image token", E, &d->E);
    if (st == OK) st = from_data(o->model.image_tokens, "model.image_tokens", "tokens an image", P, &d->P);
    if (st != OK) return st;
    if (d->C % d->H) return err_set(ERR_USAGE, "model.heads=%d does not divide model.hidden=%d", d->H, d->C);
    if (d->T > d->N) return err_set(ERR_USAGE, "data.max_tokens=%d is more than model.positions=%d", d->T, d->N);
    return OK;
}

Status setup_encoder(ImageEncoder **e, const Options *o, const Backend *b, size_t *bytes) {
    const char *path = o->extract.encoder;
    int size = (int)o->extract.size;
    if (bytes) *bytes = 0;
    if (!*path || strcmp(path, "patches") == 0) return patches_encoder(e, size ? size : 64, (int)o->extract.patch);
    VisionWish w = {.b = b, .size = size, .batch = (int)o->extract.batch, .heads = (int)o->extract.heads,
                    .tap = o->extract.tap.i - 1, .tokens = (VisionTokens)o->extract.tokens.i,   /* ORDER extract.* */
                    .upright = o->extract.exif, .quiet = dist_rank() > 0};
    return vision_encoder(e, path, &w, bytes);
}
