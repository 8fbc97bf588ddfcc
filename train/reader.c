/* reader: see reader.h. run is the whole machine. */
#include "train/reader.h"

#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static Status learner(void *self, const ObjectiveSite *site, const void *spec, const ParamsSpec *how, Params **params) {
    Reader *s = self;
    s->spec = *(const ReaderSpec *)spec;
    *params = &s->lm.params;
    return lm_open_learner(&s->lm, &s->spec.d, site->b, site->run, s->spec.front + s->spec.ids, how);
}

static void close_reader(void *self) {
    Reader *s = self;
    tape_close(&s->tape);
    staging_close(&s->room);
    lm_close(&s->lm);
    mem_free(s->prefix, s->text);
    *s = (Reader){0};
}

static Status open_reader(void *self, const ObjectiveSite *site, const void *spec) {
    Reader *s = self;
    const ReaderSpec *x = spec;
    int64_t n = site->B / site->micro, texts = n * x->texts;
    BUG_ON(site->B % site->micro, "reader: %lld pictures in %d pieces", (long long)site->B, site->micro);
    s->b = site->b, s->step = site->step, s->B = site->B, s->micro = site->micro;
    s->prefix = mem_new((size_t)n, sizeof *s->prefix);
    s->text = mem_new((size_t)texts, sizeof *s->text);
    Status st = s->prefix && s->text ? tape_open(&s->tape, site->b, site->step) : ERR_MEMORY;
    size_t wave = lm_wave_bytes(n * x->front + texts * x->ids, n, texts);
    if (st == OK) st = staging_open(&s->room, site->b, site->run, (size_t)s->micro * wave + targets_room());
    s->targets = (Targets){.b = site->b, .sum = arena_push(site->run, 1, sizeof(float))};
    if (st == OK && site->run->full)
        st = err_set(ERR_MEMORY, "the step's buffers need more memory than was planned");
    if (st == OK && !site->run->measuring) st = lm_ready(&s->lm);           /* its rotation depends on no weight */
    return st;
}

/* ---- a piece ----------------------------------------------------------------------------------------------------- */

/* Texts of pictures [first, first + n): one prefix a picture. Returns how many. */
static int list_texts(Reader *s, const ObjectiveBatch *batch, int64_t first, int64_t n) {
    int texts = 0;
    for (int64_t i = 0; i < n; i++) {
        const ObjectiveView *v = &batch->views[first + i];
        BUG_ON(v->n > s->spec.front, "reader: %d ids in front, at most %d", v->n, s->spec.front);
        s->prefix[i] = (LmPrefix){.ids = v->ids, .n = v->n};
    }
    for (int k = 0; k < batch->nsaid; k++) {
        const LmItem *it = &batch->said[k];
        if (it->image < first || it->image >= first + n) continue; /* another piece's */
        BUG_ON(it->n > s->spec.ids, "reader: a text of %d ids, at most %d", it->n, s->spec.ids);
        s->text[texts++] = (LmText){.prefix = (int32_t)(it->image - first), .ids = it->ids, .n = it->n,
                                    .target = it->target};
    }
    return texts;
}

static Status piece(Reader *s, const ObjectiveBatch *batch, int64_t first, int64_t n, float scale, bool grad) {
    Tape *t = &s->tape;
    LmWave w;
    tape_reset(t, grad);
    lm_wave_build(&w, &s->room, &s->lm.d, s->prefix, (int)n, s->text, list_texts(s, batch, first, n));
    staging_upload(&s->room);
    /* a piece of pictures that nobody says anything of */
    if (!w.T) return OK;
    Tensor hidden = lm_hidden(t, &s->lm, &w, (Tensor){0});
    float *nll = tape_push(t, w.T, sizeof *nll);
    lm_loss(t, &s->lm, &w, hidden, nll, scale);
    t->b->sum(s->targets.sum, nll, w.T, true);
    if (grad) tape_backward(t);
    return tape_status(t);
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static Status run(void *self, const ObjectiveBatch *batch, const ObjectiveBatch *next, uint32_t step, float scale,
                  bool grad) {
    Reader *s = self;
    int64_t n = s->B / s->micro;
    (void)next;                                              /* words are few: nothing is sent ahead */
    staging_reset(&s->room);
    join_begin(&s->join, &s->lm.params, s->spec.wire_bf16, s->step->measuring);
    Status st = targets_begin(&s->targets, &s->room, batch, step, s->step->measuring);
    for (int64_t at = 0; st == OK && at < s->B; at += n)
        st = piece(s, batch, at, n, targets_share(&s->targets, scale), grad);
    return st == OK && grad ? join_end(&s->join) : st;
}

static Status read(void *self, ObjectiveLosses *out) { return targets_read(&((Reader *)self)->targets, out); }

/* The largest batch that the spec allows: all texts of all pictures, as long as may be. */
static Status measure(void *self, int tokens, DType features, bool grad, double flops[2]) {
    Reader *s = self;
    int64_t n = s->B * s->spec.texts, most = s->spec.ids > s->spec.front ? s->spec.ids : s->spec.front;
    LmItem *items = mem_new((size_t)n * sizeof *items + (size_t)s->B * sizeof(ObjectiveView) +
                            (size_t)most * sizeof(int32_t), 1);
    (void)tokens, (void)features;
    if (!items) return ERR_MEMORY;
    ObjectiveView *views = (ObjectiveView *)(items + n);
    const int32_t *ids = (const int32_t *)(views + s->B);
    for (int64_t i = 0; i < n; i++)
        /* a text with its first id given: the most rows that ids can make */
        items[i] = (LmItem){.image = (int32_t)(i / s->spec.texts), .ids = ids, .n = s->spec.ids, .target = 1};
    for (int64_t i = 0; i < s->B; i++)
        views[i] = (ObjectiveView){.image = (int32_t)i, .ids = ids, .n = s->spec.front};
    ObjectiveBatch worst = {.views = views, .nviews = (int)s->B, .said = items, .nsaid = (int)n};
    Status st = run(s, &worst, NULL, 0, 1.0f, grad);
    flops[0] = s->tape.flops, flops[1] = s->tape.flops_attention;
    free(items);
    return st;
}

const Objective reader_objective = {
    .name = "lm", TARGETS_VALUES, .size = sizeof(Reader), .tape = offsetof(Reader, tape),
    .learner = learner, .open = open_reader, .close = close_reader, .measure = measure, .run = run, .read = read,
};
