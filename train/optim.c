/* optim: see optim.h. */
#include "train/optim.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/mem.h"

static const double PI = 3.14159265358979323846;

static double cosine(const Schedule *s, double at, double of) {
    return s->min + (s->peak - s->min) * 0.5 * (1.0 + cos(PI * at / (of > 0 ? of : 1)));
}

/* LAVIS's linear warm-up; a negative warmup_lr starts at the peak. */
static double warm(const Schedule *s, int64_t step) {
    double from = s->warmup_lr < 0 ? s->peak : s->warmup_lr;
    double lr = from + (s->peak - from) * (double)step / (double)(s->warmup > 1 ? s->warmup : 1);
    return lr < s->peak ? lr : s->peak;
}

double schedule_lr(const Schedule *s, int64_t step) {
    int64_t a = s->steps_per_epoch > 0 ? s->steps_per_epoch : 1, epoch = step / a, epochs = s->steps / a;
    bool warming = step < s->warmup;
    switch (s->kind) {
    case SCHED_COSINE: return warming ? warm(s, step) : cosine(s, (double)step, (double)s->steps);
    case SCHED_COSINE_TAIL:
        return warming ? warm(s, step) : cosine(s, (double)(step - s->warmup), (double)(s->steps - s->warmup));
    case SCHED_LAVIS_EPOCH: return epoch == 0 ? warm(s, step) : cosine(s, (double)epoch, (double)epochs);
    case SCHED_LAVIS_STEP:
        return epoch == 0 ? warm(s, step) : fmax(s->min, s->peak * pow(s->decay_rate, (double)epoch));
    case SCHED_CONSTANT: return warming ? warm(s, step) : s->peak;
    case SCHED_LAVIS_CONSTANT: return epoch == 0 ? warm(s, step) : s->peak;
    }
    BUG_ON(1, "schedule %d", (int)s->kind);
}

/* Device scratch: the factor, the norm, the sum of squares (of every rank, when each has its part). */
typedef struct { float scale, norm; double sumsq[]; } Scratch;
size_t optim_scratch(void) { return sizeof(Scratch) + (size_t)dist_size() * sizeof(double); }

static const ParamTensor *first_bad(const Params *p) {
    const ParamTensor *bad = NULL;
    for (int i = 0; i < p->n && !bad; i++) {
        const ParamTensor *t = &p->tensor[i];
        /* on the host: this is rare, and wants a name */
        float *g = t->frozen ? NULL : mem_new((size_t)t->n, sizeof *g);
        if (!g) continue;
        params_read(p, t, p->g, g);
        for (int64_t k = 0; k < t->n && !bad; k++)
            if (!isfinite(g[k])) bad = t;
        free(g);
    }
    return bad;
}

/* The part of a range whose state is here. */
static ParamRange own_part(const Params *p, const ParamRange *r) {
    ParamRange own = *r;
    int64_t hi = r->at + r->n, end = p->own.at + p->own.n;
    if (own.at < p->own.at) own.at = p->own.at;
    if (hi > end) hi = end;
    own.n = hi > own.at ? hi - own.at : 0;
    return own;
}

/* Sharded: gradients were summed in the own part only, so the squares are joined here. */
static Status join_squares(const Params *p, double *sumsq) {
    double *own = sumsq + dist_rank();
    if (p->b->all_gather) {
        p->b->all_gather(sumsq, own, sizeof *own);
        return dist_arrived(p->b, "the norm of the gradient");
    }
    p->b->sync();
    return dist_all_gather(sumsq, own, sizeof *own, "the norm of the gradient");
}

Status optim_norm(const Params *p, void *scratch, float clip, float *norm) {
    Scratch *s = scratch;
    /* each rank's sum in its place, added in rank order: the same norm, so the same factor, on every rank */
    double *sumsq = s->sumsq + (p->sharded ? dist_rank() : 0);
    Status st = OK;
    params_arrived(p);                                       /* the last update reads the factor that is made here */
    p->b->zero(sumsq, sizeof *sumsq);
    for (int i = 0; i < p->nranges;) {                       /* neighbours at once, decay or not */
        ParamRange all = p->range[i++];
        /* gaps between them are zero: one kernel instead of two a layer */
        for (; i < p->nranges && !p->range[i].apart; i++) all.n = p->range[i].at + p->range[i].n - all.at;
        ParamRange r = own_part(p, &all);
        if (r.n) p->b->sumsq(sumsq, p->g + r.at, r.n, true);
    }
    if (p->sharded) st = join_squares(p, s->sumsq);
    p->b->grad_scale(&s->scale, &s->norm, s->sumsq, p->sharded ? dist_size() : 1, clip);
    p->b->fetch(norm, &s->norm, sizeof *norm);
    return st;
}

/* Every rank's part of the new weights to all, and their copies in the type of products. */
static Status share_weights(const Params *p) {
    const Backend *b = p->b;
    Status st = OK;
    if (!p->learns) return OK;
    if (b->all_gather) {
        b->all_gather(p->w, p->w + p->own.at, (size_t)p->own.n * sizeof *p->w);
        st = dist_arrived(b, "the gather of weights");
    } else {
        b->sync();
        st = dist_gather_parts(p->w, p->learns, false, "the gather of weights");
    }
    if (p->copy != (void *)p->w) b->cast(p->copy, b->elem, p->w, DT_F32, p->learns);
    return st;
}

Status optim_update(const Params *p, const void *scratch, const AdamSpec *a, double lr, int64_t t) {
    const Scratch *s = scratch;
    const int *order = params_order(p);
    for (int k = 0; k < p->nranges; k++) {
        ParamRange *whole = &p->range[order[k]], r = own_part(p, whole);
        /* moments are those of the own part alone, so they begin at 0 */
        int64_t here = r.at - p->own.at;
        if (!r.n) continue;
        /* sharded: everything goes to the others at once, so nothing is gained by waiting for it in parts */
        if (a->beside && !p->sharded) whole->late = 1 + k * ADAMW_BESIDE / p->nranges;
        char *copy = p->copy == (void *)p->w ? NULL : (char *)p->copy + (size_t)r.at * (size_t)dtype_size(p->b->elem);
        p->b->adamw(&(AdamW){.p = p->w + r.at, .g = p->g + r.at, .m = p->m + here, .v = p->v + here,
                             .ema = p->ema ? p->ema + here : NULL, .copy = copy, .n = r.n, .gscale = &s->scale,
                             .lr = (float)(lr * r.rate), .beta1 = a->beta1, .beta2 = a->beta2, .eps = a->eps,
                             .weight_decay = r.decay ? a->weight_decay : 0.0f,
                             /* in double: 1 - beta^t of the first steps is a difference of near equals */
                             .c1 = (float)(1.0 - pow(a->beta1, (double)t)),
                             .c2 = (float)(1.0 - pow(a->beta2, (double)t)), .ema_decay = a->ema, .keep_g = r.decay,
                             .beside = whole->late});
    }
    return p->sharded ? share_weights(p) : OK;
}

void optim_end(const Params *p, bool finite, const ParamTensor **bad) {
    if (bad) *bad = finite ? NULL : first_bad(p);
    for (int i = 0; i < p->n; i++)
        p->grad[i].state = p->tensor[i].decay || p->tensor[i].frozen ? GRAD_STALE : GRAD_ZERO;
    if (finite && !p->sharded) return;                       /* AdamW has passed all that does not decay */
    params_arrived(p);
    for (int i = 0; i < p->nranges; i++)
        if (!p->range[i].decay) p->b->zero(p->g + p->range[i].at, (size_t)p->range[i].n * sizeof *p->g);
}
