/* stage1: see stage1.h. stage1_run is the whole machine; every line of it is a door. */
#include "train/stage1.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"
#include "train/pairs.h"
#include "train/piece.h"

/* Whether the walk back over what is recorded from here on tells of gradients that are finished. */
static void tell_passed(Stage1 *s, bool on) {
    s->tape.passed = on && join_beside(&s->join) ? join_place : NULL;
    s->tape.passed_ctx = &s->join;
}

static Status forward(Stage1 *s, Piece *c, const ObjectiveBatch *batch, int64_t at, Noise noise, bool all, bool grad) {
    int64_t n = s->B / s->micro;
    tape_reset(&s->tape, grad);
    tell_passed(s, grad && at + n == s->B);
    Status st = piece_forward(c, s, batch, at, n, noise, all);
    tell_passed(s, false);                                   /* wave 2 is walked back before wave 1, or with it */
    return st;
}

/* Forward of every piece for the contrastive loss; the last tape stays when there is one piece. */
static Status features(Stage1 *s, Piece *c, const ObjectiveBatch *batch, Noise noise, bool grad) {
    const Dims *d = &s->model->d;
    int64_t n = s->B / s->micro;
    bool whole = s->micro == 1;
    for (int64_t at = 0; at < s->B; at += n) {
        Status st = forward(s, c, batch, at, noise, whole, grad && whole);
        if (st != OK) return st;
        /* out of the step's memory, which the next piece takes again */
        s->b->copy(s->contrast.I + at * d->Q * d->Z, c->I.data, (size_t)(n * d->Q * d->Z) * sizeof(float));
        s->b->copy(s->contrast.T + at * d->Z, c->T.data, (size_t)(n * d->Z) * sizeof(float));
    }
    return OK;
}

static const int64_t *image_ids(Stage1 *s) {
    if (!s->spec.image_ids) return NULL;
    int64_t *ids = staging_take(&s->room, (size_t)s->G, sizeof *ids);
    memcpy(ids, s->image_id, (size_t)s->G * sizeof *ids);
    return staging_device(&s->room, ids);
}

static Status contrastive(Stage1 *s, const int64_t *ids, float scale, bool grad) {
    Contrast *k = &s->contrast;
    Param temp = params_get(&s->model->params, P_TEMP, -1);
    k->spec.weight = s->spec.itc * scale;
    Status st = contrast_loss(k, ids, temp.w, grad ? tape_param_grad(&s->tape, temp) : NULL, s->sums + SUM_ITC, grad);
    if (st != OK) return st;
    contrast_negatives(k, temp.w, s->spec.seed, s->number);
    /* on its way while the first piece's generation loss is enqueued */
    s->b->fetch(s->drawn, k->negative, (size_t)(2 * s->B) * sizeof *s->drawn);
    return OK;
}

/* Losses and gradients of all pieces. Draws are waited for when the first piece
 * has enqueued what does not need them. */
static Status pieces(Stage1 *s, Piece *c, const ObjectiveBatch *batch, Noise noise, float scale, bool grad) {
    const Dims *d = &s->model->d;
    int64_t n = s->B / s->micro;
    Status st = OK;
    for (int64_t at = 0; st == OK && at < s->B; at += n) {
        /* the same random bits as before, so the same features; only now their tape is kept */
        if (s->micro > 1) st = forward(s, c, batch, at, noise, true, grad);
        if (st != OK) return st;
        piece_generation(c, s, scale, s->itg_over);
        /* all pieces' draws at once: a negative may belong to another piece */
        if (at == 0) st = pairs_draw(s, batch);
        if (at == 0) s->itm_pairs = s->spec.itm != 0 ? pairs_matched(s) : 0;
        if (st == OK) st = piece_matching(c, s, scale, s->itm_pairs);
        if (grad && at + n == s->B && join_beside(&s->join)) dist_watch("the sum of gradients");
        tell_passed(s, grad && at + n == s->B);
        if (st == OK) st = piece_backward(c, s, s->contrast.dI + at * d->Q * d->Z, s->contrast.dT + at * d->Z);
        tell_passed(s, false);
    }
    return st;
}

Status stage1_run(void *self, const ObjectiveBatch *batch, const ObjectiveBatch *next, uint32_t step, float scale,
                  bool grad) {
    Stage1 *s = self;
    int64_t n = s->B / s->micro;
    Noise noise = {.p = grad ? s->spec.dropout : 0.0f, .seed = s->spec.seed, .step = step};
    Piece c = {.seg = mem_new((size_t)(4 * n), sizeof *c.seg)};
    if (!c.seg) return ERR_MEMORY;
    s->next = next, s->number = step;
    join_begin(&s->join, &s->model->params, s->spec.wire_bf16, s->step->measuring);
    staging_reset(&s->room);
    /* pinned, taken first: they stay where they are whatever follows */
    s->drawn = staging_take(&s->room, (size_t)(2 * s->B), sizeof *s->drawn);
    s->report = staging_take(&s->room, 1, sizeof *s->report);
    s->b->zero(s->sums, SUM_COUNT * sizeof *s->sums);
    Status st = pairs_gather(s, batch, step);
    const int64_t *ids = image_ids(s);
    s->itg_tokens = st == OK ? pairs_targets(s, 0, s->G) : 0;
    s->itg_over = (double)s->itg_tokens;        /* mean of the global batch, or as the reference: of the ranks' means */
    if (st == OK && s->spec.itg_rank_mean)
        s->itg_over = (double)(pairs_targets(s, s->contrast.first, s->B) * dist_size());
    if (st == OK) st = features(s, &c, batch, noise, grad);
    if (st == OK) st = contrastive(s, ids, scale, grad);
    if (st == OK) st = pieces(s, &c, batch, noise, scale, grad);
    if (st == OK && grad) st = join_end(&s->join);
    s->next = NULL;
    free(c.seg);
    return st;
}

/* A broken image spoils the similarities of every rank, but matching and generation only of the rank that owns it. */
static int first_bad(const double *sums) {
    for (int k = 0; k < 2; k++)
        for (int r = 0; r < dist_size(); r++) {
            const double *x = sums + r * SUM_COUNT;
            if (!isfinite(x[SUM_ITM] + x[SUM_ITG]) || (k && !isfinite(x[SUM_ITC]))) return r;
        }
    return -1;
}

Status stage1_read(Stage1 *s, Stage1Losses *out) {
    Stage1Report *r = s->report;
    s->b->fetch(&r->temp, params_get(&s->model->params, P_TEMP, -1).w, sizeof r->temp);
    s->b->fetch(r->sums, s->sums, sizeof r->sums);
    s->b->fetch_wait();
    /* a batch without any text that predicts: 0 of 0 is 0 */
    double over = s->itg_over > 0 ? s->itg_over : 1;
    double mine[SUM_COUNT] = {r->sums[SUM_ITC], r->sums[SUM_ITM], r->sums[SUM_ITG] / over};
    double sum[SUM_COUNT] = {0}, *all = mem_new((size_t)dist_size(), sizeof mine);
    if (!all) return ERR_MEMORY;
    dist_step(s->number);
    /* gathered and added in rank order: the log of every rank says the same */
    Status st = dist_all_gather(all, mine, sizeof mine, "the gather of losses");
    for (int i = 0; st == OK && i < dist_size(); i++)
        for (int k = 0; k < SUM_COUNT; k++) sum[k] += all[i * SUM_COUNT + k];
    *out = (Stage1Losses){.itm_pairs = s->itm_pairs, .itg_tokens = s->itg_tokens, .temp = r->temp,
                        .itc = sum[SUM_ITC] / (2.0 * (double)s->G),
                        .itm = sum[SUM_ITM] / (double)(s->itm_pairs ? s->itm_pairs : 1), .itg = sum[SUM_ITG]};
    out->bad_rank = st == OK ? first_bad(all) : -1;
    out->loss = s->spec.itc * out->itc + s->spec.itm * out->itm + s->spec.itg * out->itg;
    free(all);
    return st == OK ? s->b->status() : st;
}

Status stage1_losses(Stage1 *s, const ObjectiveBatch *batch, uint32_t step, float scale, bool grad, Stage1Losses *out) {
    Status st = stage1_run(s, batch, NULL, step, scale, grad);
    return st == OK ? stage1_read(s, out) : st;
}
