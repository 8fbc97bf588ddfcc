/* step: see step.h. step_run is the whole machine; every line of it is a door. */
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"
#include "train/losses.h"

Status step_open(Step *s, const Backend *b, QFormer *model, Arena *run, Arena *step, const StepSpec *spec) {
    const Dims *d = &model->d;
    int64_t B = spec->B, G = B * dist_size(), n = B / spec->micro;
    *s = (Step){.b = b, .model = model, .spec = *spec, .run = run, .step = step, .G = G};
    BUG_ON(B % spec->micro, "step: %lld pairs in %d pieces", (long long)B, spec->micro);
    /* One rank in one piece: n of either kind. Otherwise draws may crowd: twice the mean and some. */
    s->itm_cap = G == n ? 2 * n : 3 * n + 64 < G + n ? 3 * n + 64 : G + n;
    ContrastSpec cs = {.full = spec->itc_full, .smoothing = spec->smoothing, .weight = spec->itc,
                       .rule = spec->negatives};
    Status st = tape_open(&s->tape, b, step);
    if (st == OK) st = contrast_open(&s->contrast, b, run, d, B, &cs, spec->keep_weights);
    /* A whole step's waves: nothing there is written again before the device has read it. */
    int64_t segments = spec->micro * (4 * n + s->itm_cap) + (spec->micro > 1 ? 2 * B : 0);
    if (st == OK) st = room_open(&s->room, b, run, d, segments * (d->Q + d->T) + 4 * G, segments, 4 * B);
    s->ids = mem_new((size_t)(G * d->T), sizeof *s->ids);
    s->len = mem_new((size_t)G, sizeof *s->len);
    s->negative_image = mem_new((size_t)G, sizeof *s->negative_image);
    s->negative_text = mem_new((size_t)G, sizeof *s->negative_text);
    s->image_id = mem_new((size_t)G, sizeof *s->image_id);
    if (st == OK && !(s->ids && s->len && s->negative_image && s->negative_text && s->image_id)) st = ERR_MEMORY;
    if (st != OK) {
        step_close(s);
        return st;
    }
    for (int i = 0; !b->unified && i < 2; i++) {
        s->ahead[i].features = arena_push(run, (size_t)n * (size_t)d->P * (size_t)d->E, sizeof(float));
        s->ahead[i].scale = arena_push(run, (size_t)n, sizeof(float));
    }
    s->sums = arena_push(run, SUM_COUNT, sizeof(float));
    if (!run->measuring && !run->full) contrast_fill(&s->contrast);
    return run->full ? err_set(ERR_MEMORY, "the step's buffers need more memory than was planned") : OK;
}

void step_close(Step *s) {
    tape_close(&s->tape);
    room_close(&s->room);
    free(s->ids);
    free(s->len);
    free(s->negative_image);
    free(s->negative_text);
    free(s->image_id);
    *s = (Step){0};
}

/* The texts and ids of all ranks: small integers, on the host. */
static Status gather_texts(Step *s, const StepBatch *batch, uint32_t step) {
    size_t B = (size_t)s->spec.B, T = (size_t)s->model->d.T;
    dist_step(step);
    Status st = dist_all_gather(s->ids, batch->ids, B * T * sizeof *s->ids, "the gather of texts");
    if (st == OK) st = dist_all_gather(s->len, batch->len, B * sizeof *s->len, "the gather of text lengths");
    if (st == OK && batch->image_id)
        st = dist_all_gather(s->image_id, batch->image_id, B * sizeof *s->image_id, "the gather of image ids");
    for (int64_t g = 0; st == OK && g < s->G; g++)
        BUG_ON(s->len[g] < 2 || s->len[g] > s->model->d.T, "step: a text of %d word pieces, 2 to %d are possible",
               s->len[g], s->model->d.T);
    return st;
}

/* The worst case of memory: texts from everywhere draw images of this rank's first piece, up to the cap. */
static void crowd_first_piece(Step *s) {
    int64_t first = s->contrast.first, n = s->spec.B / s->spec.micro, left = s->itm_cap - n, after = (first + n) % s->G;
    for (int64_t g = 0; g < s->G; g++) {
        int64_t inside = first + (g == first && n > 1), outside = g == after ? (after + 1) % s->G : after;
        bool draw = left > 0 && inside != g;
        s->negative_image[g] = (int32_t)(draw ? inside : outside);
        left -= draw;
    }
}

/* Who stands against whom, over all ranks: drawn here, or given. Waits for the draws. */
static Status draw_negatives(Step *s, const StepBatch *batch) {
    int64_t B = s->spec.B;
    size_t bytes = (size_t)B * sizeof(int32_t);
    int32_t *image = s->negative_image + s->contrast.first, *text = s->negative_text + s->contrast.first;
    s->b->fetch_wait();
    Status st = tape_status(&s->tape);                       /* what came back may be anything after a failure */
    if (st != OK) return st;
    memcpy(image, s->drawn, bytes);
    memcpy(text, s->drawn + B, bytes);
    if (s->step->measuring)                                  /* nothing was drawn: measure with a shift */
        for (int64_t i = 0; i < B; i++) image[i] = text[i] = (int32_t)((s->contrast.first + i + 1) % s->G);
    if (batch->negative_image) memcpy(image, batch->negative_image, bytes);
    if (batch->negative_text) memcpy(text, batch->negative_text, bytes);
    st = dist_all_gather(s->negative_image, image, bytes, "the gather of negatives");
    if (st == OK) st = dist_all_gather(s->negative_text, text, bytes, "the gather of negatives");
    if (s->crowd) crowd_first_piece(s);
    return st;
}

static int64_t count_itm_pairs(const Step *s) {
    int64_t n = s->G;
    for (int64_t g = 0; g < s->G; g++)
        n += losses_is_negative(s, g, s->negative_image[g]) + losses_is_negative(s, g, s->negative_text[g]);
    return n;
}

static int64_t count_targets(const Step *s, int64_t first, int64_t n) {
    int64_t k = 0;
    for (int64_t g = first; g < first + n; g++) k += losses_targets(s, g);
    return k;
}

/* ---- gradients over ranks ---------------------------------------------------------------------------------------- */

/* The device sums them beside its backward sweep. Through the host they go afterwards, all at once: measured at full size
 * on two ranks of one machine that is 0.2 to 0.4 s of a step of 5.4, and the cores that could move them before are the
 * ones that compute. */
static bool sums_beside(const Step *s) { return dist_size() > 1 && s->b->all_reduce && !s->step->measuring; }

/* Means were taken over the global batch already. Sharded: the optimizer wants no more than its part. */
static void sum_range(Step *s, int64_t at, int64_t end) {
    const Params *p = &s->model->params;
    if (end <= at) return;
    if (p->sharded) s->b->reduce_parts(p->g + at, at, end - at, p->own.n, s->spec.wire_bf16);
    else s->b->all_reduce(p->g + at, end - at, s->spec.wire_bf16);
}

/* The walk back has passed a layer, from the last to the first, and then what is in front of them. */
static void gradients_passed(void *ctx, int place) {
    Step *s = ctx;
    DistPart r = place == QFORMER_EMBEDDED ? (DistPart){0, s->summed_lo}
                                           : params_block(&s->model->params, P_SELF_Q_W, place);
    if (!r.n) return;                                        /* a frozen layer */
    if (s->summed_hi == 0) s->summed_lo = s->summed_hi = r.at + r.n;
    sum_range(s, r.at, s->summed_lo);
    s->summed_lo = r.at;
}

static Status join_gradients(Step *s) {
    const Params *p = &s->model->params;
    if (dist_size() == 1 || s->step->measuring || !p->learns) return OK;
    if (sums_beside(s)) {
        sum_range(s, 0, s->summed_lo);
        sum_range(s, s->summed_hi, p->learns);
        s->b->all_reduce_wait();
        return dist_arrived(s->b, "the sum of gradients");
    }
    s->b->sync();
    Status st = dist_reduce_parts(p->g, p->learns, s->spec.wire_bf16, "the sum of gradients");
    if (p->sharded) return st;
    return st == OK ? dist_gather_parts(p->g, p->learns, s->spec.wire_bf16, "the gather of gradients") : st;
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static Status forward(Step *s, Piece *c, const StepBatch *batch, int64_t at, Noise noise, bool all, bool grad) {
    int64_t n = s->spec.B / s->spec.micro;
    tape_reset(&s->tape, grad);
    s->tape.passed = grad && at + n == s->spec.B && sums_beside(s) ? gradients_passed : NULL;
    s->tape.passed_ctx = s;
    Status st = piece_forward(c, s, batch, at, n, noise, all);
    s->tape.passed = NULL;                                   /* wave 2 is walked back before wave 1 */
    return st;
}

/* Forward of every piece for the contrastive loss; the last tape stays when there is one piece. */
static Status features(Step *s, Piece *c, const StepBatch *batch, Noise noise, bool grad) {
    const Dims *d = &s->model->d;
    int64_t n = s->spec.B / s->spec.micro;
    bool whole = s->spec.micro == 1;
    for (int64_t at = 0; at < s->spec.B; at += n) {
        Status st = forward(s, c, batch, at, noise, whole, grad && whole);
        if (st != OK) return st;
        s->b->copy(s->contrast.I + at * d->Q * d->Z, c->I.data, (size_t)(n * d->Q * d->Z) * sizeof(float));
        s->b->copy(s->contrast.T + at * d->Z, c->T.data, (size_t)(n * d->Z) * sizeof(float));
    }
    return OK;
}

static const int64_t *image_ids(Step *s) {
    if (!s->spec.image_ids) return NULL;
    int64_t *ids = room_take(&s->room, (size_t)s->G, sizeof *ids);
    memcpy(ids, s->image_id, (size_t)s->G * sizeof *ids);
    return room_device(&s->room, ids);
}

static Status contrastive(Step *s, const int64_t *ids, float scale, bool grad) {
    Contrast *k = &s->contrast;
    Param temp = params_get(&s->model->params, P_TEMP, -1);
    k->spec.weight = s->spec.itc * scale;
    Status st = contrast_loss(k, ids, temp.w, grad ? temp.g : NULL, s->sums + SUM_ITC, grad);
    if (st != OK) return st;
    contrast_negatives(k, temp.w, s->spec.seed, s->number);
    s->b->fetch(s->drawn, k->negative, (size_t)(2 * s->spec.B) * sizeof *s->drawn);
    return OK;
}

/* Losses and gradients of all pieces. Draws are waited for when the first piece has enqueued what does not need
 * them. */
static Status pieces(Step *s, Piece *c, const StepBatch *batch, Noise noise, float scale, bool grad) {
    const Dims *d = &s->model->d;
    int64_t n = s->spec.B / s->spec.micro;
    Status st = OK;
    for (int64_t at = 0; st == OK && at < s->spec.B; at += n) {
        if (s->spec.micro > 1) st = forward(s, c, batch, at, noise, true, grad);
        if (st != OK) return st;
        piece_generation(c, s, scale, s->itg_over);
        if (at == 0) st = draw_negatives(s, batch);
        if (at == 0) s->itm_pairs = s->spec.itm != 0 ? count_itm_pairs(s) : 0;
        if (st == OK) st = piece_matching(c, s, noise, scale, s->itm_pairs);
        if (grad && at + n == s->spec.B && sums_beside(s)) dist_watch("the sum of gradients");
        if (st == OK) st = piece_backward(c, s, s->contrast.dI + at * d->Q * d->Z, s->contrast.dT + at * d->Z);
    }
    return st;
}

Status step_run(Step *s, const StepBatch *batch, const StepBatch *next, uint32_t step, float scale, bool grad) {
    int64_t n = s->spec.B / s->spec.micro;
    Noise noise = {.p = grad ? s->spec.dropout : 0.0f, .seed = s->spec.seed, .step = step};
    Piece c = {.seg = mem_new((size_t)(4 * n), sizeof *c.seg)};
    if (!c.seg) return ERR_MEMORY;
    s->next = next, s->number = step, s->summed_lo = s->summed_hi = 0;
    room_reset(&s->room);
    s->drawn = room_take(&s->room, (size_t)(2 * s->spec.B), sizeof *s->drawn);
    s->report = room_take(&s->room, 1, sizeof *s->report);
    s->b->zero(s->sums, SUM_COUNT * sizeof *s->sums);
    Status st = gather_texts(s, batch, step);
    const int64_t *ids = image_ids(s);
    s->itg_tokens = st == OK ? count_targets(s, 0, s->G) : 0;
    s->itg_over = (double)s->itg_tokens;        /* mean of the global batch, or as the reference: of the ranks' means */
    if (st == OK && s->spec.itg_rank_mean)
        s->itg_over = (double)(count_targets(s, s->contrast.first, s->spec.B) * dist_size());
    if (st == OK) st = features(s, &c, batch, noise, grad);
    if (st == OK) st = contrastive(s, ids, scale, grad);
    if (st == OK) st = pieces(s, &c, batch, noise, scale, grad);
    if (st == OK && grad) st = join_gradients(s);
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

Status step_read(Step *s, StepLosses *out) {
    StepReport *r = s->report;
    s->b->fetch(&r->temp, params_get(&s->model->params, P_TEMP, -1).w, sizeof r->temp);
    s->b->fetch(r->sums, s->sums, sizeof r->sums);
    s->b->fetch_wait();
    double over = s->itg_over > 0 ? s->itg_over : 1;
    double mine[SUM_COUNT] = {r->sums[SUM_ITC], r->sums[SUM_ITM], r->sums[SUM_ITG] / over};
    double sum[SUM_COUNT] = {0}, *all = mem_new((size_t)dist_size(), sizeof mine);
    if (!all) return ERR_MEMORY;
    dist_step(s->number);
    Status st = dist_all_gather(all, mine, sizeof mine, "the gather of losses");
    for (int i = 0; st == OK && i < dist_size(); i++)
        for (int k = 0; k < SUM_COUNT; k++) sum[k] += all[i * SUM_COUNT + k];
    *out = (StepLosses){.itm_pairs = s->itm_pairs, .itg_tokens = s->itg_tokens, .temp = r->temp,
                        .itc = sum[SUM_ITC] / (2.0 * (double)s->G),
                        .itm = sum[SUM_ITM] / (double)(s->itm_pairs ? s->itm_pairs : 1), .itg = sum[SUM_ITG]};
    out->bad_rank = st == OK ? first_bad(all) : -1;
    out->loss = s->spec.itc * out->itc + s->spec.itm * out->itm + s->spec.itg * out->itg;
    free(all);
    return st == OK ? s->b->status() : st;
}

Status step_losses(Step *s, const StepBatch *batch, uint32_t step, float scale, bool grad, StepLosses *out) {
    Status st = step_run(s, batch, NULL, step, scale, grad);
    return st == OK ? step_read(s, out) : st;
}

Status step_worst_batch(StepBatch *batch, const Step *s, int tokens, DType features_type, void **room) {
    int64_t B = s->spec.B, T = s->model->d.T;
    int64_t *image_id = mem_new((size_t)B, sizeof *image_id + (size_t)(T + 1) * sizeof(int32_t));
    *room = image_id;
    if (!image_id) return ERR_MEMORY;
    int32_t *ids = (int32_t *)(image_id + B), *len = ids + B * T;
    for (int64_t i = 0; i < B * T; i++) ids[i] = i % T < tokens ? s->model->d.sep : s->model->d.pad;
    for (int64_t i = 0; i < B; i++) len[i] = tokens, image_id[i] = s->contrast.first + i;
    *batch = (StepBatch){.features = ids, .ids = ids, .len = len, .image_id = image_id,
                         .dt = features_type}; /* features: never read */
    return OK;
}
