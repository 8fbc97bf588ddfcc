/* stage2: see stage2.h. run is the whole machine. */
#include "train/stage2.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

static int64_t piece_images(const Stage2 *s) { return s->B / s->micro; }

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static Status open_rooms(Stage2 *s) {
    int64_t Q = s->model->d.Q, n = piece_images(s), texts = n * s->spec.texts, views = s->spec.asked ? texts : n;
    size_t wave = wave_bytes(views * Q, views * s->spec.asked, views, n);
    size_t lm = lm_wave_bytes(texts * (s->spec.ids + 1) + texts * Q, texts, texts) +
                staging_bytes(texts * Q, sizeof(int32_t));
    Status st = staging_open(&s->room, s->b, s->run, (size_t)s->micro * wave + targets_room());
    return st == OK ? staging_open(&s->lm_room, s->b, s->run, (size_t)s->micro * lm) : st;
}

Status stage2_open(void *self, const ObjectiveSite *site, const void *given) {
    Stage2 *s = self;
    const Stage2Spec *spec = given;
    const Backend *b = site->b;
    const QFormer *model = site->model;
    Arena *run = site->run;
    *s = (Stage2){.b = b, .model = site->model, .lm = spec->lm, .spec = *spec, .run = run, .step = site->step,
                  .B = site->B, .micro = site->micro};
    BUG_ON(s->B % s->micro, "stage2: %lld images in %d pieces", (long long)s->B, s->micro);
    BUG_ON(model->d.W != s->lm->d.E, "stage2: a projection to %d for words of %d", model->d.W, s->lm->d.E);
    int64_t n = piece_images(s);
    size_t texts = (size_t)(n * spec->texts);
    Status st = tape_open(&s->tape, b, site->step);
    if (st == OK) st = open_rooms(s);
    s->seg = mem_new(texts > (size_t)n ? texts : (size_t)n, sizeof *s->seg);
    s->prefix = mem_new(texts, sizeof *s->prefix);
    s->text = mem_new(texts, sizeof *s->text);
    s->image = mem_new(texts, sizeof *s->image);
    if (st == OK && !(s->seg && s->prefix && s->text && s->image)) st = ERR_MEMORY;
    if (st != OK) {
        stage2_close(s);
        return st;
    }
    features_open(&s->features, b, run, &model->d, n, DT_F32, true); /* the widest that a set can have */
    s->targets = (Targets){.b = b, .sum = arena_push(run, 1, sizeof(float))};
    return run->full ? err_set(ERR_MEMORY, "the step's buffers need more memory than was planned") : OK;
}

void stage2_close(void *self) {
    Stage2 *s = self;
    tape_close(&s->tape);
    staging_close(&s->room);
    staging_close(&s->lm_room);
    mem_free(s->seg, s->prefix, s->text, s->image);
    *s = (Stage2){0};
}

/* ---- a piece ----------------------------------------------------------------------------------------------------- */

/* The waves hold the plans that the walk back reads: they live as long as the piece. */
typedef struct {
    int64_t first, n;                   /* images */
    int view0, views, texts;            /* their views, and what is said of those */
    const LmItem *items;
    Wave wave;
    LmWave said;
} Piece;

static int64_t image_of(const ObjectiveBatch *b, int view) { return b->views ? b->views[view].image : view; }

static Piece piece_of(const ObjectiveBatch *b, int64_t B, int64_t first, int64_t n) {
    int views = b->views ? b->nviews : (int)B, lo = 0, hi, from = 0, to;
    while (lo < views && image_of(b, lo) < first) lo++;
    for (hi = lo; hi < views && image_of(b, hi) < first + n; hi++) {}
    /* items come in the order of their views: a piece's are one run */
    while (from < b->nsaid && b->said[from].image < lo) from++;
    for (to = from; to < b->nsaid && b->said[to].image < hi; to++) {}
    return (Piece){.first = first, .n = n, .view0 = lo, .views = hi - lo, .items = b->said + from, .texts = to - from};
}

/* Where random bits come from: the image in the global batch, and which of its views, prefixes or texts it is. */
static uint32_t pair_of(const Stage2 *s, int64_t image, int64_t turn) {
    return (uint32_t)(((int64_t)dist_rank() * s->B + image) * s->spec.texts + turn);
}

static Segment segment_of(const Stage2 *s, const ObjectiveBatch *b, const Piece *c, int view) {
    int64_t image = image_of(b, view), turn = 0;
    for (int before = view; before > 0 && image_of(b, before - 1) == image; before--) turn++;
    Segment g = {.nq = s->model->d.Q, .first_id = -1, .sees = -1, .image = (int32_t)(image - c->first),
                 .pass = PASS_ITC_IMAGE, .pair = pair_of(s, image, turn)};
    if (!b->views) return g;
    const ObjectiveView *v = &b->views[view];
    BUG_ON(v->n > s->spec.asked, "stage2: %d word pieces beside the queries, at most %d", v->n, s->spec.asked);
    g.nt = v->n, g.ids = v->ids, g.joint = true;
    return g;
}

/* What travels while the piece is worked on: the batch's next piece, or the first of the coming batch. */
static FeatureRows behind(const Stage2 *s, const ObjectiveBatch *b, const Piece *c) {
    bool last = c->first + c->n == s->B;
    const ObjectiveBatch *from = last ? s->next : b;
    /* a set of another type waits for its turn */
    if (!s->next || from->dt != b->dt) return (FeatureRows){0};
    return features_from(&s->model->d, (FeatureRows){from->features, from->scale}, last ? 0 : c->first + c->n, b->dt);
}

/* The queries of the piece's views, projected: (views Q, W). */
static Status visual_rows(Stage2 *s, const ObjectiveBatch *batch, Piece *c, Noise noise, Tensor *soft) {
    Tape *t = &s->tape;
    ImageKV kv;
    for (int i = 0; i < c->views; i++) s->seg[i] = segment_of(s, batch, c, c->view0 + i);
    Status st = wave_build(&c->wave, &s->room, &s->model->d, s->seg, c->views, (int)c->n);
    if (st != OK) return st;
    staging_upload(&s->room);
    FeatureRows here = features_from(&s->model->d, (FeatureRows){batch->features, batch->scale}, c->first, batch->dt);
    FeatureRows up = features_up(&s->features, here, c->n, batch->dt, behind(s, batch, c));
    qformer_image(&kv, t, s->model, up.data, batch->dt, up.scale, (int)c->n);
    Tensor x = tensor_rows(qformer_forward(t, s->model, &c->wave, &kv, noise), 0, c->wave.NQ);
    *soft = tape_new(t, x.rows, s->model->d.W, t->b->elem);
    op_linear(t, *soft, x, params_get(&s->model->params, P_SPEAK_W, -1), params_get(&s->model->params, P_SPEAK_B, -1));
    return tape_status(t);
}

/* The visual rows prefix by prefix. Where a view has several prefixes (T5 with several prompts), one gather a prefix,
 * so that none takes a row twice. */
static Tensor for_prefixes(Stage2 *s, Tensor soft, int np, int views) {
    int32_t Q = s->model->d.Q;
    bool same = np == views;
    for (int i = 0; i < np && same; i++) same = s->image[i] == i;
    /* the usual case costs nothing: no copy, no gather */
    if (same) return soft;
    int32_t *rows = staging_take(&s->lm_room, (size_t)(np * Q), sizeof *rows);
    for (int i = 0; i < np * Q; i++) rows[i] = s->image[i / Q] * Q + i % Q;
    staging_upload(&s->lm_room);
    Tensor y = tape_new(&s->tape, (int64_t)np * Q, soft.cols, soft.dt);
    const int32_t *device = staging_device(&s->lm_room, rows);
    for (int i = 0; i < np; i++)
        op_gather(&s->tape, tensor_rows(y, (int64_t)i * Q, Q), soft, device + (int64_t)i * Q);
    return y;
}

static void number_rows(Stage2 *s, const ObjectiveBatch *b, const Piece *c, int np) {
    int64_t before = -1, turn = 0; /* the how manieth of its picture: two texts of one draw masks of their own */
    for (int i = 0; i < np; i++) {
        int64_t image = image_of(b, s->image[i]);
        turn = image == before ? turn + 1 : 0;
        s->prefix[i].pair = pair_of(s, before = image, turn);
    }
    before = -1;
    for (int k = 0; k < c->texts; k++) {
        int64_t image = image_of(b, c->items[k].image);
        turn = image == before ? turn + 1 : 0;
        s->text[k].pair = pair_of(s, before = image, turn);
    }
}

/* Losses of what is said of the piece's images, added to the running sum. */
static Status speak(Stage2 *s, const ObjectiveBatch *batch, Piece *c, Noise noise, Tensor soft, float scale) {
    Tape *t = &s->tape;
    LmWave *w = &c->said;
    for (int i = 0; i < c->texts; i++)
        BUG_ON(c->items[i].n > s->spec.ids, "stage2: a text of %d ids, at most %d", c->items[i].n, s->spec.ids);
    BUG_ON(c->texts > c->n * s->spec.texts || c->views > c->n * s->spec.texts, "stage2: %d texts of %lld images",
           c->texts, (long long)c->n);
    int np = lm_share(&s->lm->d, s->model->d.Q, c->items, c->texts, !s->spec.apart, s->prefix, s->image, s->text);
    number_rows(s, batch, c, np);
    for (int i = 0; i < np; i++) s->image[i] -= c->view0;
    lm_wave_build(w, &s->lm_room, &s->lm->d, s->prefix, np, s->text, c->texts);
    w->noise = (LmNoise){.on = s->spec.lm_dropout && t->recording, .seed = noise.seed, .step = noise.step};
    staging_upload(&s->lm_room);
    /* a piece whose pictures have no text says nothing, and must not divide by it */
    if (!w->T) return OK;
    Tensor rows = for_prefixes(s, soft, np, c->views), hidden = lm_hidden(t, s->lm, w, rows);
    float *nll = tape_push(t, w->T, sizeof *nll);
    lm_loss(t, s->lm, w, hidden, nll, scale);
    t->b->sum(s->targets.sum, nll, w->T, true);
    return tape_status(t);
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static Status run(void *self, const ObjectiveBatch *batch, const ObjectiveBatch *next, uint32_t step, float scale,
                  bool grad) {
    Stage2 *s = self;
    Noise noise = {.p = grad ? s->spec.dropout : 0.0f, .seed = s->spec.seed, .step = step};
    int64_t n = piece_images(s);
    s->next = next;
    staging_reset(&s->room);
    staging_reset(&s->lm_room);
    join_begin(&s->join, &s->model->params, s->spec.wire_bf16, s->step->measuring);
    Status st = targets_begin(&s->targets, &s->room, batch, step, s->step->measuring);
    for (int64_t at = 0; st == OK && at < s->B; at += n) {
        Piece c = piece_of(batch, s->B, at, n);
        Tensor soft;
        /* whole are the gradients of a layer with the last piece alone */
        bool last = grad && at + n == s->B && join_beside(&s->join);
        tape_reset(&s->tape, grad);
        s->tape.passed = last ? join_place : NULL;
        s->tape.passed_ctx = &s->join;
        st = visual_rows(s, batch, &c, noise, &soft);
        if (st == OK) st = speak(s, batch, &c, noise, soft, targets_share(&s->targets, scale));
        if (st == OK && grad) tape_backward(&s->tape);
        if (st == OK) st = tape_status(&s->tape);
    }
    s->tape.passed = NULL;
    s->next = NULL;
    return st == OK && grad ? join_end(&s->join) : st;
}

static Status read(void *self, ObjectiveLosses *out) { return targets_read(&((Stage2 *)self)->targets, out); }

Status stage2_losses(Stage2 *s, const ObjectiveBatch *batch, uint32_t step, float scale, bool grad,
                     ObjectiveLosses *out) {
    Status st = run(s, batch, NULL, step, scale, grad);
    return st == OK ? read(s, out) : st;
}

Status stage2_worst_batch(ObjectiveBatch *batch, const Stage2 *s, DType features, void **room) {
    int64_t n = s->B * s->spec.texts, most = s->spec.ids > s->spec.asked ? s->spec.ids : s->spec.asked;
    LmItem *items = mem_new((size_t)n * (sizeof *items + sizeof(ObjectiveView)) + (size_t)most * sizeof(int32_t), 1);
    *room = items;
    if (!items) return ERR_MEMORY;
    ObjectiveView *views = (ObjectiveView *)(items + n);
    const int32_t *ids = (const int32_t *)(views + n);
    bool asked = s->spec.asked > 0;                          /* a view a text then, else one an image */
    /* T5: half a text to the encoder, so that both sides are long; prompts of two lengths in turn share no prefix */
    int32_t target = s->lm->d.family == LM_T5 ? s->spec.ids / 2 : 0;
    for (int64_t i = 0; i < n; i++)
        items[i] = (LmItem){.image = (int32_t)(asked ? i : i / s->spec.texts), .ids = ids, .n = s->spec.ids,
                            .target = target - (target > 1 && !s->spec.one_prompt && i % 2)};
    for (int64_t i = 0; i < n; i++)
        views[i] = (ObjectiveView){.image = (int32_t)(i / s->spec.texts), .ids = ids, .n = s->spec.asked};
    *batch = (ObjectiveBatch){.features = ids, .dt = features, .views = asked ? views : NULL, .nviews = (int)n,
                           .said = items, .nsaid = (int)n};     /* features: never read */
    return OK;
}

/* ---- as what a trainer trains ------------------------------------------------------------------------------------ */

static Status measure(void *self, int tokens, DType features, bool grad, double flops[2]) {
    Stage2 *s = self;
    ObjectiveBatch worst;
    ObjectiveLosses l;
    void *room = NULL;
    (void)tokens;                                            /* the spec says how long what is said may be */
    Status st = stage2_worst_batch(&worst, s, features, &room);
    if (st == OK) st = stage2_losses(s, &worst, 0, 1.0f, grad, &l);
    flops[0] = s->tape.flops, flops[1] = s->tape.flops_attention;
    free(room);
    return st;
}

const Objective stage2_objective = {
    .name = "stage2", TARGETS_VALUES, .size = sizeof(Stage2), .tape = offsetof(Stage2, tape), .open = stage2_open,
    .close = stage2_close, .measure = measure, .run = run, .read = read,
};
