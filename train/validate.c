/* validate: losses and retrieval on the held-out split, between two steps of a run (run.h). */
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/run.h"

enum { LOSS_BATCHES = 4 };               /* at most: the loss is a mean, recall is what decides */

/* The same pairs, in the same order, with the same draws, each time. */
static Status validation_loss(Run *r, ObjectiveLosses *mean, int *batches) {
    *mean = (ObjectiveLosses){0};
    *batches = 0;
    LoaderSpec spec = run_pairs(r, r->o->data.val_split);
    spec.seed = 1, spec.stop_step = LOSS_BATCHES, spec.threads = 1, spec.queue = 2;
    int64_t samples, steps;
    if (loader_count(r->val, &spec, &samples, &steps) != OK) {   /* fewer pairs than a batch: recall alone */
        err_clear();
        return OK;
    }
    /* a small split once, not the same pairs twice */
    if (steps < spec.stop_step) spec.stop_step = steps;
    Loader *l = NULL;
    Status st = loader_open(&l, r->val, &spec);
    while (st == OK) {
        const Batch *b;
        ObjectiveLosses one = {0};
        st = loader_next(l, &b, NULL);
        if (st != OK || !b) break;
        ObjectiveBatch sb;
        st = run_batch(r, &r->val_feed, b, &sb);
        if (st == OK) st = trainer_losses(&r->t, &sb, (uint32_t)b->step, 1.0f, false, &one);
        mean->loss += one.loss;
        for (int i = 0; i < OBJECTIVE_VALUES; i++) mean->value[i] += one.value[i];
        ++*batches;
        loader_release(l, b);
    }
    loader_close(l);
    double n = *batches ? *batches : 1;
    mean->loss /= n;
    for (int i = 0; i < OBJECTIVE_VALUES; i++) mean->value[i] /= n;
    return st;
}

static Status validation_recall(Run *r, Recall *c) {
    float *I = NULL, *T = NULL;
    Status st = evalset_encode(&r->evalset, &r->encoder, &I, &T, &(EvalProgress){0});
    if (st == OK)
        st = recall_from_features(r->b, I, r->evalset.NI, T, r->evalset.NT, r->d.Q, r->d.Z, r->evalset.owner, c, NULL,
                                  NULL);
    mem_free(I, T);
    return st;
}

Status run_validate(Run *r, bool *better) {
    *better = false;
    if (!r->validates) return OK;
    ObjectiveLosses l;
    Recall c = {0};
    QuizMarks marks = {0};
    int batches;
    bool recall = r->learns == LEARNS_STAGE1;                     /* stage 2 has no features to compare */
    Status st = validation_loss(r, &l, &batches);
    if (st == OK && recall) st = validation_recall(r, &c);
    if (st != OK) return err_context(st, "validation after step %lld", (long long)r->step);
    if (!recall && !batches) return OK;
    LogValue v[7 + OBJECTIVE_VALUES + WATCHED_VALUES] = {{"txt_r1", c.txt_r1}, {"txt_r5", c.txt_r5},
                                                         {"txt_r10", c.txt_r10},
                                        {"img_r1", c.img_r1}, {"img_r5", c.img_r5}, {"img_r10", c.img_r10}};
    int n = recall ? 6 : 0;
    if (batches) v[n++] = (LogValue){"loss", l.loss};
    for (int i = 0; batches && i < r->t.objective->nvalues; i++)
        if (r->t.objective->values[i].loss) v[n++] = (LogValue){r->t.objective->values[i].name, l.value[i]};
    if (!recall) st = watched_validate(r, &marks, v, &n);
    if (st != OK) tally_free(&marks.answers);
    if (st != OK) return err_context(st, "validation after step %lld", (long long)r->step);
    double result = 0.5 * (c.txt_r1 + c.img_r1) + 1e-3 * (c.txt_r10 + c.img_r10); /* recall@10 decides between equals */
    if (!recall || (batches && strcmp(r->o->train.watch.name, "loss") == 0))
        result = 1.0 / (1.0 + l.loss); /* more is better */
    *better = result > r->best;
    if (*better) r->best = result, r->best_step = r->step, r->evals_since_best = 0;
    else r->evals_since_best++;
    st = log_eval(r->log, r->step, v, n);
    tally_free(&marks.answers);                              /* kinds are named by it */
    return st;
}
