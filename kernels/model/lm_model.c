/* lm_model: see lm_model.h. */
#include "kernels/model/lm_model.h"

#include <math.h>

#include "kernels/model/lm_family.h"

static const Param NONE = {.frozen = true};

static const LmFamilyOps *ops_of(const LmDims *d) {
    return d->family == LM_OPT ? &opt_ops : d->family == LM_T5 ? &t5_ops : &llama_ops;
}

Status lm_open(Lm *m, const LmDims *d, const Backend *b, Arena *run, int32_t rows) {
    return lm_open_table(m, ops_of(d)->table, d, b, run, rows, &(ParamsSpec){.frozen = true, .held = d->held});
}

/* OPT's positions and T5's biases have no gradient. */
Status lm_open_learner(Lm *m, const LmDims *d, const Backend *b, Arena *run, int32_t rows, const ParamsSpec *spec) {
    BUG_ON(d->family != LM_LLAMA, "lm: %s learns nothing here", lm_family_name(d->family));
    return lm_open_table(m, ops_of(d)->table, d, b, run, rows, spec);
}

Tensor lm_rows(Tape *t, const Lm *m, int64_t N, const int32_t *ids, const int32_t *pos, Tensor soft) {
    return ops_of(&m->d)->embed(t, m, N, ids, pos, soft);
}

LmAttend lm_attend(const Lm *m, int side, const AttnPlan *plan, const int32_t *pos) {
    bool llama = m->d.family == LM_LLAMA, t5 = m->d.family == LM_T5;
    return (LmAttend){.plan = plan, .side = side, .pos = llama ? pos : NULL, .bias = t5 ? m->bias[side] : NULL,
                      /* T5 does not scale: its start values did */
                      .scale = t5 ? 1.0f : (float)(1.0 / sqrt((double)m->d.D))};
}

BlockStream lm_stack(Tape *t, const Lm *m, Tensor x0, LmAttend how) {
    BlockStream x = block_stream(t, x0);
    for (how.layer = 0; how.layer < m->d.L; how.layer++) ops_of(&m->d)->layer(t, m, how.layer, &x, &how);
    return x;
}

BlockStream lm_decoder_stack(Tape *t, const Lm *m, Tensor y0, LmAttend how, const Tensor *kv, const AttnPlan *cross) {
    BlockStream y = block_stream(t, y0);
    for (how.layer = 0; how.layer < m->d.M; how.layer++)
        t5_decoder_layer(t, m, how.layer, &y, &how, kv[how.layer], cross);
    return y;
}

Tensor lm_finish(Tape *t, const Lm *m, BlockStream *x) { return ops_of(&m->d)->finish(t, m, x); }

/* The rows that predict, round by round: in one round no row stands twice. */
static Tensor gather_targets(Tape *t, const LmWave *w, Tensor x) {
    if (!x.data) return x;
    Tensor y = tape_new(t, w->T, x.cols, x.dt);
    /* the walk back adds into x row by row: twice the same row at once would be a race */
    for (int32_t r = 0; r < w->nrounds; r++) {
        int32_t at = w->round[r], n = w->round[r + 1] - at;
        /* the head is the largest product: it is spared the rows that predict nothing */
        if (n) op_gather(t, tensor_rows(y, at, n), x, w->row + at);
    }
    return y;
}

static LmAttend noisy(const Lm *m, const LmWave *w, int side) {
    LmAttend how = side ? lm_attend(m, 1, &w->yself, NULL) : lm_attend(m, 0, &w->self, w->pos);
    how.noise = w->noise, how.rows = side ? w->yrows : w->rows;
    return how;
}

/* T5 drops where rows enter a stack and behind its last norm; the others nowhere but in layers. */
static Tensor dropped(Tape *t, const Lm *m, Tensor x, LmAttend how, int site) {
    if (m->d.family == LM_T5) op_dropout(t, x, lm_drop(&how, site, m->d.dropout));
    return x;
}

Tensor lm_hidden(Tape *t, const Lm *m, const LmWave *w, Tensor soft) {
    BUG_ON(w->longest > m->rows, "lm: a text of %d rows, the model was opened for %d", w->longest, m->rows);
    LmAttend how = noisy(m, w, 0);
    BlockStream x = lm_stack(t, m, dropped(t, m, lm_rows(t, m, w->N, w->ids, w->pos, soft), how, SITE_ENTER), how);
    if (m->d.family == LM_T5) {
        /* keys and values of all layers come of it: it is normed and dropped once */
        Tensor encoded = dropped(t, m, t5_encoded(t, m, &x), how, SITE_LEAVE), *kv = m->kv;
        for (int l = 0; l < m->d.M; l++) kv[l] = t5_cross_kv(t, m, l, encoded);
        how = noisy(m, w, 1);
        Tensor y = dropped(t, m, lm_rows(t, m, w->M, w->yids, NULL, (Tensor){0}), how, SITE_ENTER);
        x = lm_decoder_stack(t, m, y, how, kv, &w->cross);
    }
    x.x = gather_targets(t, w, x.x);
    x.s = gather_targets(t, w, x.s);
    /* picked rows keep the random bits of where they stood */
    how.rows = x.drop.rows = w->trows;
    return dropped(t, m, lm_finish(t, m, &x), how, SITE_LEAVE);
}

static Param head_of(const Lm *m) {
    int row = m->d.head == LM_HEAD_OWN ? ops_of(&m->d)->head : ops_of(&m->d)->word;
    return lm_one(m, row, -1);
}

void lm_loss(Tape *t, const Lm *m, const LmWave *w, Tensor hidden, float *nll, float scale) {
    op_lm_loss(t, nll, NULL, hidden, head_of(m), NONE, w->target, 0.0f, scale);
}

void lm_logits(Tape *t, const Lm *m, Tensor logits, Tensor hidden) { op_linear(t, logits, hidden, head_of(m), NONE); }
