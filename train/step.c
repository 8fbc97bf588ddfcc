/* step: see step.h. step_losses is the whole machine; every line of it is a door. */
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dist.h"
#include "kernels/mem.h"
#include "train/losses.h"

Status step_open(Step *s, const Backend *b, Params *p, Arena *run, Arena *step, const StepSpec *spec) {
    const Dims *d = &p->d;
    int64_t B = spec->B, G = B * dist_size(), n = B / spec->micro;
    *s = (Step){.b = b, .p = p, .spec = *spec, .run = run, .step = step, .G = G};
    BUG_ON(B % spec->micro, "step: %lld pairs in %d pieces", (long long)B, spec->micro);
    /* One rank in one piece: n of either kind. Otherwise draws may crowd: twice the mean and some. */
    s->itm_cap = G == n ? 2 * n : 3 * n + 64 < G + n ? 3 * n + 64 : G + n;
    ContrastSpec cs = {.full = spec->itc_full, .smoothing = spec->smoothing, .weight = spec->itc,
                       .rule = spec->negatives};
    Status st = tape_open(&s->tape, b, step);
    if (st == OK) st = contrast_open(&s->contrast, b, run, d, B, &cs, spec->image_ids, spec->keep_weights);
    if (st == OK) st = room_open(&s->room, b, run, d, (4 * n + s->itm_cap) * (d->Q + d->T), 4 * n + s->itm_cap, 2 * n);
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
    if (!b->unified) {
        s->features = arena_push(run, (size_t)n * (size_t)d->P * (size_t)d->E, sizeof(float));
        s->scales = arena_push(run, (size_t)n, sizeof(float));
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
    size_t B = (size_t)s->spec.B, T = (size_t)s->p->d.T;
    dist_at(step, "the gather of texts");
    Status st = dist_all_gather(s->ids, batch->ids, B * T * sizeof *s->ids);
    dist_name("the gather of text lengths");
    if (st == OK) st = dist_all_gather(s->len, batch->len, B * sizeof *s->len);
    dist_name("the gather of image ids");
    if (st == OK && batch->image_id) st = dist_all_gather(s->image_id, batch->image_id, B * sizeof *s->image_id);
    for (int64_t g = 0; st == OK && g < s->G; g++)
        BUG_ON(s->len[g] < 2 || s->len[g] > s->p->d.T, "step: a text of %d word pieces, 2 to %d are possible",
               s->len[g], s->p->d.T);
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

/* Who stands against whom, over all ranks: drawn here, or given. */
static Status draw_negatives(Step *s, const StepBatch *batch, uint32_t step) {
    size_t bytes = (size_t)s->spec.B * sizeof(int32_t);
    int32_t *image = s->negative_image + s->contrast.first, *text = s->negative_text + s->contrast.first;
    Status st = contrast_negatives(&s->contrast, params_get(s->p, P_TEMP, -1).w, s->spec.seed, step, image, text);
    if (st != OK) return st;
    if (s->tape.b != s->b || s->step->measuring)             /* nothing was drawn: measure with a shift */
        for (int64_t i = 0; i < s->spec.B; i++) image[i] = text[i] = (int32_t)((s->contrast.first + i + 1) % s->G);
    if (batch->negative_image) memcpy(image, batch->negative_image, bytes);
    if (batch->negative_text) memcpy(text, batch->negative_text, bytes);
    dist_at(step, "the gather of negatives");
    st = dist_all_gather(s->negative_image, image, bytes);
    dist_name("the gather of negatives");
    if (st == OK) st = dist_all_gather(s->negative_text, text, bytes);
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

/* A broken image spoils the similarities of every rank, but matching and generation only of the rank that owns it. */
static int first_bad(const double *sums) {
    for (int k = 0; k < 2; k++)
        for (int r = 0; r < dist_size(); r++) {
            const double *x = sums + r * SUM_COUNT;
            if (!isfinite(x[SUM_ITM] + x[SUM_ITG]) || (k && !isfinite(x[SUM_ITC]))) return r;
        }
    return -1;
}

static Status read_losses(Step *s, StepLosses *out, double itg_mean_over, uint32_t step) {
    float sums[SUM_COUNT] = {0};
    s->b->download(sums, s->sums, sizeof sums);
    double mine[SUM_COUNT] = {sums[SUM_ITC], sums[SUM_ITM], sums[SUM_ITG] / (itg_mean_over > 0 ? itg_mean_over : 1)};
    double sum[SUM_COUNT] = {0}, *all = mem_new((size_t)dist_size(), sizeof mine);
    if (!all) return ERR_MEMORY;
    dist_at(step, "the gather of losses");
    Status st = dist_all_gather(all, mine, sizeof mine);
    for (int r = 0; st == OK && r < dist_size(); r++)
        for (int k = 0; k < SUM_COUNT; k++) sum[k] += all[r * SUM_COUNT + k];
    out->bad_rank = st == OK ? first_bad(all) : -1;
    free(all);
    out->itc = sum[SUM_ITC] / (2.0 * (double)s->G);
    out->itm = sum[SUM_ITM] / (double)(out->itm_pairs ? out->itm_pairs : 1);
    out->itg = sum[SUM_ITG];
    out->loss = s->spec.itc * out->itc + s->spec.itm * out->itm + s->spec.itg * out->itg;
    return st == OK ? s->b->status() : st;
}

/* Forward of every piece for the contrastive loss; the last tape stays when there is one piece. */
static Status features(Step *s, Piece *c, const StepBatch *batch, Noise noise, bool grad) {
    const Dims *d = &s->p->d;
    int64_t n = s->spec.B / s->spec.micro;
    bool whole = s->spec.micro == 1;
    for (int64_t at = 0; at < s->spec.B; at += n) {
        tape_reset(&s->tape, grad && whole);
        Status st = piece_forward(c, s, batch, at, n, noise, whole);
        if (st != OK) return st;
        s->b->copy(s->contrast.I + at * d->Q * d->Z, c->I.data, (size_t)(n * d->Q * d->Z) * sizeof(float));
        s->b->copy(s->contrast.T + at * d->Z, c->T.data, (size_t)(n * d->Z) * sizeof(float));
    }
    return OK;
}

/* The sum over ranks: means were taken over the global batch already. */
static Status join_gradients(Step *s, uint32_t step) {
    if (dist_size() == 1 || s->step->measuring) return OK;
    if (s->b->all_reduce) {
        s->b->all_reduce(s->p->g, s->p->total, s->spec.wire_bf16);
        s->b->all_reduce_wait();
        return dist_arrived(s->b, "the sum of gradients");
    }
    s->b->sync();
    dist_at(step, "the sum of gradients");
    Status st = dist_reduce_parts(s->p->g, s->p->total, s->spec.wire_bf16);
    if (s->p->sharded) return st;                            /* the optimizer wants no more than its part */
    dist_at(step, "the gather of gradients");
    return st == OK ? dist_gather_parts(s->p->g, s->p->total, s->spec.wire_bf16) : st;
}

Status step_losses(Step *s, const StepBatch *batch, uint32_t step, float scale, bool grad, StepLosses *out) {
    const Dims *d = &s->p->d;
    Contrast *k = &s->contrast;
    int64_t n = s->spec.B / s->spec.micro;
    Noise noise = {.p = grad ? s->spec.dropout : 0.0f, .seed = s->spec.seed, .step = step};
    Piece c = {.seg = mem_new((size_t)(4 * n), sizeof *c.seg)};
    if (!c.seg) return ERR_MEMORY;
    s->b->zero(s->sums, SUM_COUNT * sizeof *s->sums);
    k->spec.weight = s->spec.itc * scale;

    Status st = gather_texts(s, batch, step);
    if (st == OK) st = features(s, &c, batch, noise, grad);
    Param temp = params_get(s->p, P_TEMP, -1);
    if (st == OK)
        st = contrast_loss(k, s->spec.image_ids ? batch->image_id : NULL, temp.w, grad ? temp.g : NULL,
                           s->sums + SUM_ITC, grad);
    if (st == OK) st = draw_negatives(s, batch, step);
    if (st != OK) goto done;

    out->itm_pairs = s->spec.itm != 0 ? count_itm_pairs(s) : 0;
    out->itg_tokens = count_targets(s, 0, s->G);
    double mean_over = (double)out->itg_tokens; /* of the global batch, or as the reference: mean of the ranks' means */
    if (s->spec.itg_rank_mean) mean_over = (double)(count_targets(s, k->first, s->spec.B) * dist_size());
    for (int64_t at = 0; st == OK && at < s->spec.B; at += n) {
        if (s->spec.micro > 1) {
            tape_reset(&s->tape, grad);
            st = piece_forward(&c, s, batch, at, n, noise, true);
        }
        if (st == OK)
            st = piece_losses(&c, s, noise, scale, out->itm_pairs, mean_over, k->dI + at * d->Q * d->Z,
                              k->dT + at * d->Z);
    }
    if (st == OK && grad) st = join_gradients(s, step);
    if (st == OK) st = read_losses(s, out, mean_over, step);
done:
    free(c.seg);
    return st;
}

Status step_worst_batch(StepBatch *batch, const Step *s, int tokens, DType features_type, void **room) {
    int64_t B = s->spec.B, T = s->p->d.T;
    int64_t *image_id = mem_new((size_t)B, sizeof *image_id + (size_t)(T + 1) * sizeof(int32_t));
    *room = image_id;
    if (!image_id) return ERR_MEMORY;
    int32_t *ids = (int32_t *)(image_id + B), *len = ids + B * T;
    for (int64_t i = 0; i < B * T; i++) ids[i] = i % T < tokens ? s->p->d.sep : s->p->d.pad;
    for (int64_t i = 0; i < B; i++) len[i] = tokens, image_id[i] = s->contrast.first + i;
    *batch = (StepBatch){.features = ids, .ids = ids, .len = len, .image_id = image_id,
                         .dt = features_type}; /* features: never read */
    return OK;
}
