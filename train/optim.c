/* optim: see optim.h. */
#include "train/optim.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/mem.h"

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
    case SCHED_COSINE_TAIL: return warming ? warm(s, step) : cosine(s, (double)(step - s->warmup), (double)(s->steps - s->warmup));
    case SCHED_LAVIS_EPOCH: return epoch == 0 ? warm(s, step) : cosine(s, (double)epoch, (double)epochs);
    case SCHED_LAVIS_STEP: return epoch == 0 ? warm(s, step) : fmax(s->min, s->peak * pow(s->decay_rate, (double)epoch));
    case SCHED_CONSTANT: return warming ? warm(s, step) : s->peak;
    case SCHED_LAVIS_CONSTANT: return epoch == 0 ? warm(s, step) : s->peak;
    }
    BUG_ON(1, "schedule %d", (int)s->kind);
}

/* Device scratch: the sum of squares, the factor, the norm. */
typedef struct { double sumsq; float scale, norm; } Scratch;
size_t optim_scratch(void) { return sizeof(Scratch); }

static const ParamTensor *first_bad(const Params *p) {
    const ParamTensor *bad = NULL;
    for (int i = 0; i < p->n && !bad; i++) {
        const ParamTensor *t = &p->tensor[i];
        float *g = t->frozen ? NULL : mem_new((size_t)t->n, sizeof *g);
        if (!g) continue;
        params_read(p, t, p->g, g);
        for (int64_t k = 0; k < t->n && !bad; k++)
            if (!isfinite(g[k])) bad = t;
        free(g);
    }
    return bad;
}

Status optim_norm(const Params *p, void *scratch, float clip, float *norm, const ParamTensor **bad) {
    Scratch *s = scratch;
    for (int i = 0; i < p->nranges; i++) p->b->sumsq(&s->sumsq, p->g + p->range[i].at, p->range[i].n, i > 0);
    p->b->grad_scale(&s->scale, &s->norm, &s->sumsq, clip);
    p->b->download(norm, &s->norm, sizeof *norm);
    *bad = isfinite(*norm) ? NULL : first_bad(p);
    return p->b->status();
}

void optim_update(const Params *p, const void *scratch, const AdamSpec *a, double lr, int64_t t, bool skip) {
    const Scratch *s = scratch;
    for (int i = 0; i < p->nranges && !skip; i++) {
        const ParamRange *r = &p->range[i];
        char *copy = p->copy == (void *)p->w ? NULL : (char *)p->copy + (size_t)r->at * (size_t)dtype_size(p->b->elem);
        p->b->adamw(&(AdamW){.p = p->w + r->at, .g = p->g + r->at, .m = p->m + r->at, .v = p->v + r->at,
                             .ema = p->ema ? p->ema + r->at : NULL, .copy = copy, .n = r->n, .gscale = &s->scale, .lr = (float)lr,
                             .beta1 = a->beta1, .beta2 = a->beta2, .eps = a->eps, .weight_decay = r->decay ? a->weight_decay : 0.0f,
                             .c1 = (float)(1.0 - pow(a->beta1, (double)t)), .c2 = (float)(1.0 - pow(a->beta2, (double)t)),
                             .ema_decay = a->ema});
    }
    for (int i = 0; i < p->n; i++)                           /* what no range covered: all when skipping, else frozen ones */
        if (skip || p->tensor[i].frozen) p->b->zero(p->g + p->tensor[i].at, (size_t)p->tensor[i].n * sizeof(float));
}
