/* features: see features.h. */
#include "kernels/model/features.h"

void features_open(Features *f, const Backend *b, Arena *run, const Dims *d, int64_t n, DType widest, bool ahead) {
    *f = (Features){.b = b, .numbers = (int64_t)d->P * d->E, .scales = dims_scales(d)};
    /* two rooms: one is read while the other is filled */
    for (int i = 0; !b->unified && i < 1 + ahead; i++) {
        f->room[i].data = arena_push(run, (size_t)(n * f->numbers), (size_t)dtype_size(widest));
        f->room[i].scale = arena_push(run, (size_t)(n * f->scales), sizeof(float));
    }
}

typedef void CopyFn(void *dst, const void *src, size_t bytes);

static void send(const Features *f, CopyFn *copy, FeatureRoom *to, FeatureRows from, int64_t n, DType t) {
    copy(to->data, from.data, (size_t)(n * f->numbers) * (size_t)dtype_size(t));
    if (from.scale) copy(to->scale, from.scale, (size_t)(n * f->scales) * sizeof(float));
}

FeatureRows features_up(Features *f, FeatureRows here, int64_t n, DType t, FeatureRows next) {
    FeatureRoom *other = &f->room[!f->turn];
    /* the device reads the host's memory itself */
    if (!f->room[0].data) return here;
    /* by address: the loader leaves a batch alone until it is released */
    if (other->holds && other->holds == here.data) {
        f->b->prefetch_wait();
        f->turn = !f->turn;
        other->holds = NULL;                                 /* the same address will hold another batch */
    } else {
        send(f, f->b->upload, &f->room[f->turn], here, n, t);
    }
    other = &f->room[!f->turn];
    if (next.data && other->data) {
        send(f, f->b->prefetch, other, next, n, t);
        other->holds = next.data;
    }
    return (FeatureRows){f->room[f->turn].data, here.scale ? f->room[f->turn].scale : NULL};
}

FeatureRows features_from(const Dims *d, FeatureRows all, int64_t first, DType t) {
    size_t row = (size_t)((int64_t)d->P * d->E) * (size_t)dtype_size(t);
    return (FeatureRows){(const char *)all.data + (size_t)first * row,
                         all.scale ? all.scale + first * dims_scales(d) : NULL};
}
