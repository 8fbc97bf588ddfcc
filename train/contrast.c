/* contrast: see contrast.h. */
#include "train/contrast.h"

#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

#define TAKE(count, type) ((type *)arena_push(run, (size_t)(count), sizeof(type)))

Status contrast_open(Contrast *c, const Backend *b, Arena *run, const Dims *d, int64_t B, const ContrastSpec *spec,
                     bool weights) {
    int64_t W = dist_size(), G = B * W, Q = d->Q, Z = d->Z;
    *c = (Contrast){.b = b, .spec = *spec, .B = B, .G = G, .Q = Q, .Z = Z, .first = dist_rank() * B};
    c->I = TAKE(B * Q * Z, float);
    c->T = TAKE(B * Z, float);
    c->dI = TAKE(B * Q * Z, float);
    c->dT = TAKE(B * Z, float);
    /* one rank: what is gathered is what it has */
    c->I_all = W > 1 ? TAKE(G * Q * Z, float) : c->I;
    c->T_all = W > 1 ? TAKE(G * Z, float) : c->T;
    if (spec->full) {
        c->dI_all = W > 1 ? TAKE(G * Q * Z, float) : c->dI;
        c->dT_all = W > 1 ? TAKE(G * Z, float) : c->dT;
    }
    c->S_i2t = TAKE(B * G, float);
    c->S_t2i = TAKE(B * G, float);
    c->dS_i2t = TAKE(B * G, float);
    c->dS_t2i = TAKE(B * G, float);
    c->arg_i2t = TAKE(B * G, int32_t);
    c->arg_t2i = TAKE(B * G, int32_t);
    c->row_loss = TAKE(2 * B, float);
    c->dtemp = TAKE(2 * B, float);
    c->target = TAKE(B, int32_t);
    c->negative = TAKE(2 * B, int32_t);
    c->weights = weights ? TAKE(2 * B * G, float) : NULL;
    return run->full ? ERR_MEMORY : OK;
}

Status contrast_fill(Contrast *c) {
    int32_t *own = mem_new((size_t)c->B, sizeof *own);
    if (!own) return ERR_MEMORY;
    for (int32_t i = 0; i < c->B; i++) own[i] = (int32_t)c->first + i;
    c->b->upload(c->target, own, (size_t)c->B * sizeof *own);
    c->b->sync();                        /* `own` goes away */
    free(own);
    return OK;
}

/* Device memory by the backend's own collective when it has one, else through the host. */
static Status gather_features(Contrast *c) {
    const Backend *b = c->b;
    size_t image = (size_t)(c->B * c->Q * c->Z) * sizeof(float), text = (size_t)(c->B * c->Z) * sizeof(float);
    /* one rank: its features are all there are */
    if (c->I_all == c->I) return OK;
    if (b->all_gather) {
        b->all_gather(c->I_all, c->I, image);
        b->all_gather(c->T_all, c->T, text);
        return dist_arrived(b, "the gather of features");
    }
    b->sync();
    Status st = dist_all_gather(c->I_all, c->I, image, "the gather of image features");
    return st == OK ? dist_all_gather(c->T_all, c->T, text, "the gather of text features") : st;
}

/* Sums a gathered gradient over ranks and adds this rank's rows to d. */
static Status take_own(Contrast *c, float *all, float *d, int64_t row) {
    if (all == d) return OK;
    if (c->b->all_reduce) {
        c->b->all_reduce(all, c->G * row, false);
        c->b->all_reduce_wait();
        Status st = dist_arrived(c->b, "the sum of feature gradients");
        if (st != OK) return st;
    } else {
        Status st = dist_all_reduce_f32(all, c->G * row, "the sum of feature gradients");
        if (st != OK) return st;
    }
    /* the rest belongs to other ranks, who do the same */
    c->b->axpy(d, all + c->first * row, 1.0f, c->B * row);
    return OK;
}

static Status backward(Contrast *c) {
    const Backend *b = c->b;
    int64_t B = c->B, G = c->G, Q = c->Q, Z = c->Z;
    /* the kernels below add: each feature has many pairs */
    b->zero(c->dI, (size_t)(B * Q * Z) * sizeof(float));
    b->zero(c->dT, (size_t)(B * Z) * sizeof(float));
    /* own rows first: only `full` adds what own columns get */
    b->simmax_bwd_image(c->dI, c->dS_i2t, c->arg_i2t, c->T_all, B, G, Q, Z, G, 1);
    b->simmax_bwd_text(c->dT, c->dS_t2i, c->arg_t2i, c->I_all, G, B, Q, Z, 1, G);
    /* LAVIS's way: what other ranks gave is taken as a constant */
    if (!c->spec.full) return OK;
    if (c->dI_all != c->dI) {
        b->zero(c->dI_all, (size_t)(G * Q * Z) * sizeof(float));
        b->zero(c->dT_all, (size_t)(G * Z) * sizeof(float));
    }
    b->simmax_bwd_image(c->dI_all, c->dS_t2i, c->arg_t2i, c->T, G, B, Q, Z, 1, G);
    b->simmax_bwd_text(c->dT_all, c->dS_i2t, c->arg_i2t, c->I, B, G, Q, Z, G, 1);
    Status st = take_own(c, c->dI_all, c->dI, Q * Z);
    return st == OK ? take_own(c, c->dT_all, c->dT, Z) : st;
}

static const int64_t *row_ids(const Contrast *c) { return c->col_id ? c->col_id + c->first : NULL; }

Status contrast_loss(Contrast *c, const int64_t *ids, const float *temp, float *dtemp_grad, float *loss, bool grad) {
    const Backend *b = c->b;
    int64_t B = c->B, G = c->G;
    Status st = gather_features(c);
    if (st != OK) return st;
    c->col_id = ids;
    b->simmax(c->S_i2t, c->arg_i2t, c->I, c->T_all, B, G, c->Q, c->Z, G, 1);
    /* rows of S are local texts, so images are its columns: the same kernel, strides the other way */
    b->simmax(c->S_t2i, c->arg_t2i, c->I_all, c->T, G, B, c->Q, c->Z, 1, G);
    ItcLoss l = {.rows = B, .n = G, .si = G, .sj = 1, .temp = temp, .target = c->target, .row_id = row_ids(c),
                 .col_id = ids, .smoothing = c->spec.smoothing, .scale = 0.5f * c->spec.weight / (float)G};
    for (int k = 0; k < 2; k++) {
        l.S = k ? c->S_t2i : c->S_i2t;
        l.dS = grad ? (k ? c->dS_t2i : c->dS_i2t) : NULL;
        l.loss = c->row_loss + k * B;
        l.dtemp = grad ? c->dtemp + k * B : NULL;
        b->itc_loss(&l);
    }
    /* by one sum, in a fixed order, whatever the rows finished in */
    b->sum(loss, c->row_loss, 2 * B, true);
    if (!grad) return OK;
    if (dtemp_grad) b->sum(dtemp_grad, c->dtemp, 2 * B, true);
    return backward(c);
}

void contrast_negatives(Contrast *c, const float *temp, uint64_t seed, uint32_t step) {
    Negatives n = {.rows = c->B, .n = c->G, .si = c->G, .sj = 1, .temp = temp, .target = c->target,
                   .row_id = row_ids(c), .col_id = c->col_id, .row_pair = (const uint32_t *)c->target,
                   .rule = c->spec.rule, .seed = seed, .step = step};
    /* another site, other random bits: the two draws of a pair must not depend on each other */
    n.S = c->S_t2i, n.site = SITE_NEGATIVE_IMAGE, n.out = c->negative, n.weights = c->weights;
    c->b->negatives(&n);
    n.S = c->S_i2t, n.site = SITE_NEGATIVE_TEXT, n.out = c->negative + c->B;
    n.weights = c->weights ? c->weights + c->B * c->G : NULL;
    c->b->negatives(&n);
}
