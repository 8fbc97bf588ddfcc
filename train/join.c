/* join: see join.h. */
#include "train/join.h"

#include "kernels/model/qformer.h"

void join_begin(Join *j, const Params *p, bool half, bool measuring) {
    *j = (Join){.p = p, .half = half, .measuring = measuring};
}

/* The device sums them beside its backward sweep. Through the host they go afterwards, all at once: measured at full
 * size on two ranks of one machine that is 0.2 to 0.4 s of a step of 5.4, and the cores that could move them before are
 * the ones that compute. */
bool join_beside(const Join *j) { return dist_size() > 1 && j->p->b->all_reduce && !j->measuring; }

static void sum_range(const Join *j, int64_t at, int64_t end) {
    const Params *p = j->p;
    if (end <= at) return;
    params_whole_grads(p, at, end);
    if (p->sharded) p->b->reduce_parts(p->g + at, at, end - at, p->own.n, j->half);
    else p->b->all_reduce(p->g + at, end - at, j->half);
}

void join_place(void *join, int place) {
    Join *j = join;
    /* in front of the first layer stands what all layers share: its gradients come last, all at once */
    DistPart r = place == QFORMER_EMBEDDED ? (DistPart){0, j->lo} : params_block(j->p, P_SELF_Q_W, place);
    if (!r.n) return;                                        /* a frozen layer */
    if (j->hi == 0) j->lo = j->hi = r.at + r.n;
    sum_range(j, r.at, j->lo);
    j->lo = r.at;
}

Status join_end(Join *j) {
    const Params *p = j->p;
    if (join_beside(j) && p->learns) {
        sum_range(j, 0, j->lo); /* the two ends: what lies between went while the walk made it */
        sum_range(j, j->hi, p->learns);
        p->b->all_reduce_wait();
        return dist_arrived(p->b, "the sum of gradients");
    }
    params_whole_grads(p, 0, p->learns);
    if (dist_size() == 1 || j->measuring || !p->learns) return OK;
    p->b->sync();
    Status st = dist_reduce_parts(p->g, p->learns, j->half, "the sum of gradients");
    if (p->sharded) return st;
    return st == OK ? dist_gather_parts(p->g, p->learns, j->half, "the gather of gradients") : st;
}
