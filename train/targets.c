/* targets: see targets.h. */
#include "train/targets.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

Status targets_begin(Targets *t, Staging *room, const ObjectiveBatch *batch, uint32_t number, bool measuring) {
    t->number = number, t->total = 0;
    t->report = staging_take(room, 1, sizeof *t->report);
    t->b->zero(t->sum, sizeof *t->sum);
    for (int i = 0; i < batch->nsaid; i++) t->total += batch->said[i].n - batch->said[i].target;
    dist_step(t->number);
    /* before any gradient: each is divided by the count of all ranks */
    return measuring ? OK : dist_all_reduce_f64(&t->total, 1, "the count of targets");
}

static int first_bad(const double *sums) {
    for (int r = 0; r < dist_size(); r++)
        if (!isfinite(sums[r])) return r;
    return -1;
}

Status targets_read(const Targets *t, ObjectiveLosses *out) {
    t->b->fetch(t->report, t->sum, sizeof *t->sum);
    t->b->fetch_wait();
    double mine = *t->report, sum = 0, *all = mem_new((size_t)dist_size(), sizeof *all);
    if (!all) return ERR_MEMORY;
    dist_step(t->number);
    Status st = dist_all_gather(all, &mine, sizeof mine, "the gather of losses");
    /* in rank order, so that the log of every rank says the same number */
    for (int i = 0; st == OK && i < dist_size(); i++) sum += all[i];
    double loss = t->total > 0 ? sum / t->total : 0;
    *out = (ObjectiveLosses){.loss = loss, .value = {loss, t->total}, .bad_rank = st == OK ? first_bad(all) : -1};
    free(all);
    return st == OK ? t->b->status() : st;
}
