/* piece: see piece.h. */
#include "train/piece.h"

#include <stdlib.h>

#include "kernels/base/mem.h"
#include "train/pairs.h"

/* ---- wave 1 ------------------------------------------------------------------------------------------------------ */

/* Pair i of the piece: local pair first + i, global pair g. */
static void list_segments(Piece *c, const Stage1 *s, bool all) {
    int32_t n = (int32_t)c->n, Q = s->model->d.Q;
    bool itg = all && s->spec.itg != 0, itm = all && s->spec.itm != 0;
    c->itg0 = itg ? 2 * n : -1;
    c->itm0 = itm ? 2 * n + (itg ? n : 0) : -1;
    for (int32_t i = 0; i < n; i++) {
        int64_t g = s->contrast.first + c->first + i;
        Segment image = {.nq = Q, .first_id = -1, .sees = -1, .image = i, .pass = PASS_ITC_IMAGE, .pair = (uint32_t)g};
        Segment text = {.nt = s->len[g], .ids = pairs_text(s, g), .first_id = -1, .sees = -1, .image = -1,
                        .pass = PASS_ITC_TEXT, .pair = (uint32_t)g};
        c->seg[i] = image;
        c->seg[n + i] = text;
        if (itg) {
            Segment gen = text;
            /* [DEC] in place of [CLS]: the same words, but the model is told to write */
            gen.pass = PASS_ITG, gen.first_id = s->model->d.dec, gen.sees = i, gen.causal = true;
            c->seg[c->itg0 + i] = gen;
        }
        if (itm) {
            Segment match = text;
            match.nq = Q, match.image = i, match.joint = true, match.pass = PASS_ITM;
            c->seg[c->itm0 + i] = match;
        }
    }
}

/* The text rows that are read behind the last layer: [CLS] of the n contrastive texts, then those that predict, whose
 * targets are listed beside. */
static void list_read(Piece *c, Stage1 *s) {
    int64_t n = c->n, most = c->itg0 < 0 ? 0 : pairs_targets(s, s->contrast.first + c->first, n), k = 0;
    int32_t *rows = staging_take(&s->room, (size_t)(n + most), sizeof *rows),
        *target = staging_take(&s->room, (size_t)most, sizeof *target);
    for (int64_t i = 0; i < n; i++) rows[i] = c->seg[n + i].t0;
    for (int64_t i = 0; i < n && most; i++) {
        int64_t g = s->contrast.first + c->first + i;
        for (int32_t t = 1; t < s->len[g]; t++) {
            if (!pairs_is_target(s, g, t)) continue;
            /* the row before a token predicts it */
            rows[n + k] = c->seg[c->itg0 + i].t0 + t - 1;
            target[k++] = pairs_text(s, g)[t];
        }
    }
    wave_pick(&c->wave, &s->room, rows, n + most);
    c->nlm = most;
    c->lm_target = staging_device(&s->room, target);
}

/* Pairs [first, first + n) of a batch; past its end the first piece of what comes after it, if anything is known to:
 * `again`: the whole batch, once more after this pass over it. */
static FeatureRows rows_at(const Stage1 *s, const ObjectiveBatch *batch, int64_t first, bool again) {
    if (first >= s->B) first = 0, batch = again ? batch : s->next;
    if (!batch) return (FeatureRows){0};
    return features_from(&s->model->d, (FeatureRows){batch->features, batch->scale}, first, batch->dt);
}

/* For the query rows of the negative pairs to come, and their texts: each of this batch once, and once more whichever
 * is longest for each of our images. */
static void leave_room(Piece *c, Stage1 *s) {
    int64_t longest = 0, all = 0, before = s->itm_cap * s->model->d.Q;
    for (int64_t g = 0; g < s->G; g++) longest = s->len[g] > longest ? s->len[g] : longest, all += s->len[g];
    int64_t behind = s->itm_cap * longest, once = all + c->n * longest;
    behind = once < behind ? once : behind;
    wave_between(&c->wave, before, behind);
    tape_first(&s->tape, before, behind);
}

Status piece_forward(Piece *c, Stage1 *s, const ObjectiveBatch *batch, int64_t first, int64_t n, Noise noise,
                     bool all) {
    const Dims *d = &s->model->d;
    Tape *t = &s->tape;
    c->first = first;
    c->n = n;
    c->noise = noise;
    c->together = t->recording && all && s->together && !t->watch;   /* who watches wants an op at a time */
    c->both = (Wave){0};
    list_segments(c, s, all);
    int count = (int)(n * (2 + (c->itg0 >= 0) + (c->itm0 >= 0)));
    Status st = wave_build(&c->wave, &s->room, d, c->seg, count, (int)n);
    if (st != OK) return st;
    list_read(c, s);
    staging_upload(&s->room);

    FeatureRows up = features_up(&s->features, rows_at(s, batch, first, false), n, batch->dt,
                                 rows_at(s, batch, first + n, !all));
    qformer_image(&c->kv, t, s->model, up.data, batch->dt, up.scale, (int)n);
    if (c->together) leave_room(c, s);
    c->x = qformer_forward(t, s->model, &c->wave, &c->kv, noise);
    tape_alone(t);
    c->I = qformer_features(t, s->model, tensor_rows(c->x, 0, n * d->Q), P_VISION_PROJ_W, P_VISION_PROJ_B);
    c->T = qformer_features(t, s->model, tensor_rows(c->x, c->wave.NQ, n), P_TEXT_PROJ_W, P_TEXT_PROJ_B);
    return tape_status(t);
}

/* ---- matching ---------------------------------------------------------------------------------------------------- */

static void matching_loss(Stage1 *s, Tensor rows, int32_t label, float scale) {
    Tape *t = &s->tape;
    Tensor logits = qformer_itm(t, s->model, rows);
    float *loss = tape_push(t, logits.rows, sizeof *loss);
    int32_t *target = staging_take(&s->room, (size_t)logits.rows, sizeof *target);
    for (int64_t i = 0; i < logits.rows; i++) target[i] = label;
    staging_upload(&s->room);
    op_xent(t, loss, NULL, logits, staging_device(&s->room, target), 0.0f, scale);
    t->b->sum(s->sums + SUM_ITM, loss, logits.rows, true);
}

/* Negative pairs whose image is here: for each text of the global batch the image drawn for it, when it is ours; for
 * each of our images the text drawn for it. Returns how many, or -1 when there are more than were planned for. */
static int list_negatives(const Piece *c, const Stage1 *s, Segment *seg) {
    int n = 0;
    int64_t lo = s->contrast.first + c->first, hi = lo + c->n;
    Segment pair = {.nq = s->model->d.Q, .first_id = -1, .sees = -1, .joint = true};
    for (int64_t g = 0; g < s->G; g++) {
        int64_t image = s->negative_image[g];
        /* only where the image is: its keys need not travel */
        if (image < lo || image >= hi || !pairs_is_negative(s, g, image)) continue;
        if (n == s->itm_cap) return -1;
        pair.image = (int32_t)(image - lo), pair.pass = PASS_ITM_IMAGE, pair.pair = (uint32_t)g;
        pair.ids = pairs_text(s, g), pair.nt = s->len[g];
        seg[n++] = pair;
    }
    for (int64_t g = lo; g < hi; g++) {
        int64_t text = s->negative_text[g];
        if (!pairs_is_negative(s, g, text)) continue;
        if (n == s->itm_cap) return -1;
        pair.image = (int32_t)(g - lo), pair.pass = PASS_ITM_TEXT, pair.pair = (uint32_t)g;
        pair.ids = pairs_text(s, text), pair.nt = s->len[text];
        seg[n++] = pair;
    }
    return n;
}

/* Wave 2's plans, and those of both waves where they are walked back together. */
static Status build_second(Piece *c, Stage1 *s, Segment *seg, int n) {
    Staging *r = &s->room;
    const Dims *d = &s->model->d;
    int images = (int)c->n, first = images * (2 + (c->itg0 >= 0) + (c->itm0 >= 0));
    Status st = c->together ? wave_second(&c->wave2, &c->both, &c->wave, r, d, c->seg, first, seg, n, images)
                            : wave_build(&c->wave2, r, d, seg, n, images);
    /* matching is judged by its queries: no text row of it is read */
    if (st == OK) wave_pick(&c->wave2, r, staging_take(r, 0, sizeof(int32_t)), 0);
    return st;
}

static void run_second(Piece *c, Stage1 *s, float scale) {
    Tape *t = &s->tape;
    if (c->together) tape_second(t, c->wave2.NQ);
    Tensor x = qformer_forward(t, s->model, &c->wave2, &c->kv, c->noise);
    tape_alone(t);
    matching_loss(s, tensor_rows(x, 0, c->wave2.NQ), 0, scale);
}

static Status negative_pairs(Piece *c, Stage1 *s, float scale) {
    Segment *seg = mem_new((size_t)s->itm_cap, sizeof *seg);
    if (!seg) return ERR_MEMORY;
    Status st = OK;
    int n = list_negatives(c, s, seg);
    if (n < 0)
        st = err_set(ERR_MEMORY,
                     "more than %lld negative pairs fall to one rank or piece: a few images are drawn for most texts "
                                 "(lower optim.accum, or raise train.batch)", (long long)s->itm_cap);
    else if (n > 0 && (st = build_second(c, s, seg, n)) == OK) {
        staging_upload(&s->room);
        run_second(c, s, scale);
    }
    free(seg);
    return st;
}

Status piece_matching(Piece *c, Stage1 *s, float scale, int64_t pairs) {
    if (c->itm0 < 0 || !pairs) return OK;
    /* one mean over true and negative pairs, as LAVIS takes it */
    float k = scale * s->spec.itm / (float)pairs;
    /* label 1: the true pairs went along in wave 1 */
    matching_loss(s, tensor_rows(c->x, (int64_t)c->seg[c->itm0].q0, c->n * s->model->d.Q), 1, k);
    return negative_pairs(c, s, k);
}

/* ---- generation -------------------------------------------------------------------------------------------------- */

void piece_generation(Piece *c, Stage1 *s, float scale, double tokens) {
    Tape *t = &s->tape;
    if (c->itg0 < 0 || !c->nlm) return;
    Tensor h = qformer_lm_transform(t, s->model, tensor_rows(c->x, c->wave.NQ + c->n, c->nlm));
    float *loss = tape_push(t, c->nlm, sizeof *loss);
    op_lm_loss(t, loss, NULL, h, params_get(&s->model->params, P_WORD, -1),
               params_get(&s->model->params, P_LM_BIAS, -1), c->lm_target,
               s->spec.smoothing, (float)(scale * s->spec.itg / tokens));
    t->b->sum(s->sums + SUM_ITG, loss, c->nlm, true);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* What both waves computed, recorded as one pass over the rows of both. Without negative pairs the first is both. */
static Status record_both(Piece *c, Stage1 *s) {
    Tape *t = &s->tape;
    Segment none;
    Status st = c->both.NQ ? OK : build_second(c, s, &none, 0);
    if (st != OK) return st;
    staging_upload(&s->room);
    t->second = c->wave2.NQ;
    tape_both(t);
    qformer_forward(t, s->model, &c->both, &c->kv, c->noise);
    tape_alone(t);
    return OK;
}

Status piece_backward(Piece *c, Stage1 *s, const float *dI, const float *dT) {
    Tape *t = &s->tape;
    Status st = c->together ? record_both(c, s) : OK;
    if (st != OK) return st;
    if (t->recording) {
        /* the contrastive loss is outside the tape: it needs all pieces' features at once */
        tape_seed(t, c->I, dI);
        tape_seed(t, c->T, dT);
        tape_backward(t);
    }
    return tape_status(t);
}
