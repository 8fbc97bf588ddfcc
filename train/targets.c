/* targets: see targets.h. */
#include "train/targets.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

Status targets_count(Targets *t, const ObjectiveBatch *batch, bool measuring) {
    t->total = 0;
    for (int i = 0; i < batch->nsaid; i++) t->total += batch->said[i].n - batch->said[i].target;
    dist_step(t->number);
    return measuring ? OK : dist_all_reduce_f64(&t->total, 1, "the count of targets");
}

static int first_bad(const double *sums) {
    for (int r = 0; r < dist_size(); r++)
        if (!isfinite(sums[r])) return r;
    return -1;
}

Status targets_read(const Targets *t, TargetsLoss *out) {
    t->b->fetch(t->report, t->sum, sizeof *t->sum);
    t->b->fetch_wait();
    double mine = *t->report, sum = 0, *all = mem_new((size_t)dist_size(), sizeof *all);
    if (!all) return ERR_MEMORY;
    dist_step(t->number);
    Status st = dist_all_gather(all, &mine, sizeof mine, "the gather of losses");
    for (int i = 0; st == OK && i < dist_size(); i++) sum += all[i];
    *out = (TargetsLoss){.loss = t->total > 0 ? sum / t->total : 0, .targets = (int64_t)t->total,
                         .bad_rank = st == OK ? first_bad(all) : -1};
    free(all);
    return st == OK ? t->b->status() : st;
}
