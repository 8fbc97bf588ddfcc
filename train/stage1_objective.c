/* stage1_objective: stage 1 as what a trainer trains: its buffers, its largest batch, and how its losses are called. */
#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"
#include "train/pairs.h"

/* Lists of a whole step, n pairs a piece: nothing is written again before the device has read it. A piece is two waves
 * and their targets; with several pieces the features of each went before, by a wave of their own. */
static size_t lists_bytes(const Stage1 *s, int64_t n) {
    int64_t Q = s->model->d.Q, T = s->model->d.T, cap = s->itm_cap;
    size_t word = sizeof(int32_t), read = staging_bytes(n + n * T, word) + staging_bytes(n + n * T, sizeof(RowKey)),
           features = wave_bytes(n * Q, n * T, 2 * n, n) + read;
    size_t first = wave_bytes(2 * n * Q, 3 * n * T, 4 * n, n) + read + staging_bytes(n * T, word);
    size_t second = wave_bytes(cap * Q, cap * T, cap, n) + staging_bytes(n, word) + staging_bytes(cap, word);
    /* the lists of both waves as one, beside those of each */
    if (s->together) first += wave_bytes((2 * n + cap) * Q, (3 * n + cap) * T, 4 * n + cap, n);
    size_t step = staging_bytes(2 * s->B, sizeof *s->drawn) + staging_bytes(1, sizeof *s->report) +
                  staging_bytes(s->G, sizeof(int64_t));
    return step + (size_t)s->micro * (first + second + (s->micro > 1 ? features : 0));
}

void stage1_close(void *self) {
    Stage1 *s = self;
    tape_close(&s->tape);
    staging_close(&s->room);
    mem_free(s->ids, s->len, s->negative_image, s->negative_text, s->image_id);
    *s = (Stage1){0};
}

Status stage1_open(void *self, const ObjectiveSite *site, const void *given) {
    Stage1 *s = self;
    const Stage1Spec *spec = given;
    const Backend *b = site->b;
    const Dims *d = &site->model->d;
    Arena *run = site->run;
    int64_t B = site->B, G = B * dist_size(), n = B / site->micro;
    *s = (Stage1){.b = b, .model = site->model, .spec = *spec, .run = run, .step = site->step, .B = B,
                  /* without matching there is no second wave */
                  .micro = site->micro, .G = G, .together = spec->itm != 0};
    BUG_ON(B % site->micro, "step: %lld pairs in %d pieces", (long long)B, site->micro);
    /* One rank in one piece: n of either kind. Otherwise draws may crowd: twice the mean and some. */
    s->itm_cap = G == n ? 2 * n : 3 * n + 64 < G + n ? 3 * n + 64 : G + n;
    ContrastSpec cs = {.full = spec->itc_full, .smoothing = spec->smoothing, .weight = spec->itc,
                       .rule = spec->negatives};
    Status st = tape_open(&s->tape, b, site->step);
    if (st == OK) st = contrast_open(&s->contrast, b, run, d, B, &cs, spec->keep_weights);
    if (st == OK) st = staging_open(&s->room, b, run, lists_bytes(s, n));
    s->ids = mem_new((size_t)(G * d->T), sizeof *s->ids);
    s->len = mem_new((size_t)G, sizeof *s->len);
    s->negative_image = mem_new((size_t)G, sizeof *s->negative_image);
    s->negative_text = mem_new((size_t)G, sizeof *s->negative_text);
    s->image_id = mem_new((size_t)G, sizeof *s->image_id);
    if (st == OK && !(s->ids && s->len && s->negative_image && s->negative_text && s->image_id)) st = ERR_MEMORY;
    if (st != OK) {
        stage1_close(s);
        return st;
    }
    features_open(&s->features, b, run, d, n, DT_F32, true); /* the widest that a set can have */
    s->sums = arena_push(run, SUM_COUNT, sizeof(float));
    if (run->full) return err_set(ERR_MEMORY, "the step's buffers need more memory than was planned");
    return run->measuring ? OK : contrast_fill(&s->contrast);
}

/* Arithmetic is that of an even draw; memory also that of draws which crowd on one piece, where that can be. */
static Status measure(void *self, int tokens, DType features, bool grad, double flops[2]) {
    Stage1 *s = self;
    ObjectiveBatch batch;
    Stage1Losses losses;
    void *room = NULL;
    Status st = pairs_worst(&batch, s, tokens, features, &room);
    if (st == OK) st = stage1_losses(s, &batch, 0, 1.0f, grad, &losses);
    flops[0] = s->tape.flops, flops[1] = s->tape.flops_attention;
    s->crowd = s->G != s->B / s->micro; /* the arenas keep their peak: the worse of two draws is planned for */
    if (st == OK && s->crowd) st = stage1_losses(s, &batch, 0, 1.0f, grad, &losses);
    free(room);
    return st;
}

static Status read(void *self, ObjectiveLosses *out) {
    Stage1Losses l;
    Status st = stage1_read(self, &l);
    *out = (ObjectiveLosses){.loss = l.loss, .value = {l.itc, l.itm, l.itg, l.temp}, .bad_rank = l.bad_rank};
    return st;
}

const Objective stage1_objective = {
    .name = "stage1", .values = {{"itc", true}, {"itm", true}, {"itg", true}, {"temp", false}}, .nvalues = 4,
    .size = sizeof(Stage1), .tape = offsetof(Stage1, tape), .open = stage1_open, .close = stage1_close,
    .measure = measure, .run = stage1_run, .read = read,
};
