/* run: see run.h. What a run is, and its loop; run_open.c has what it works with, run_start.c where it starts. */
#include "train/run.h"

#include <math.h>
#include <string.h>

#include "kernels/base/signals.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"

/* Steps beside their arithmetic at the peak: 1.1 (f32) and 1.2 (bf16) at full size, 1.6 to 2.2 of the demo's small rows
 * (README, "Figures"), and validation and saving come on top. A run that shows its own pace says the time better. */
static const double SLOWER = 1.6;

void run_describe(const Run *r, FILE *f) {
    const Plan *p = &r->t.plan;
    const Dims *d = &r->d;
    char parts[PLAN_TEXT], time[32];
    if (r->learns == LEARNS_LM)
        fprintf(f, "model     %.2f M parameters: a language model of the Llama family, L %d, C %d, H %d, F %d, V %d; "
                "texts of up to %d ids behind up to %d\n",
                (double)p->params / 1e6, r->reader.d.L, r->reader.d.C, r->reader.d.H, r->reader.d.F, r->reader.d.V,
                r->reader.ids, r->reader.front);
    else
        fprintf(f,
                "model     %.1f M parameters: L %d, C %d, H %d, F %d, Q %d, Z %d, V %d, cross-attention in every %d. "
                "layer\n",
                (double)p->params / 1e6, d->L, d->C, d->H, d->F, d->Q, d->Z, d->V, d->X);
    if (r->learns != LEARNS_LM)
        fprintf(f, "images    %lld tokens of %d (%s, %s)\n", (long long)d->P, d->E, set_encoder(r->train)->name,
                dtype_name(set_dtype(r->train)));
    if (r->learns == LEARNS_STAGE2)
        fprintf(f, "speaks    to %s: %s, %.1f M numbers, frozen, %.2f GiB; texts of up to %d ids\n", r->speaker.folder,
                lm_family_name(r->speaker.lm.d.family), (double)r->speaker.lm.params.count / 1e6,
                plan_gib((double)r->speaker.bytes), speaker_ids(&r->speaker));
    fprintf(f, "device    %s in %s, %.0f GFLOP/s measured; %d rank%s\n", r->b->name, dtype_name(r->b->elem),
            r->peak / 1e9, dist_size(), dist_size() > 1 ? "s" : "");
    fprintf(f, "memory    %.2f GiB: %s, a step of the longest captions %.2f\n", plan_gib((double)plan_bytes(p)),
            plan_text(p, parts), plan_gib((double)p->step));
    fprintf(f, "step      %lld pairs, at most %.4g TFLOP (%.4g GFLOP a pair), %.3g s at that rate\n",
            (long long)(r->spec.B * dist_size()), p->flops / 1e12, p->flops / 1e9 / (double)r->spec.B,
            r->peak > 0 ? p->flops / r->peak : 0);
    fprintf(f, "run       %lld steps (%lld an epoch), at most %.4g TFLOP on this rank, about %s\n", (long long)r->steps,
            (long long)r->steps_per_epoch, p->flops * (double)r->steps / 1e12,
            status_time(r->peak > 0 ? SLOWER * p->flops * (double)r->steps / r->peak : 0, time, sizeof time));
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

/* What the user or the clock asked of any rank. Here a rank that failed in the step is heard by the others. */
static Status agree_on_signals(const Run *r, bool late, bool *stop, bool *save) {
    /* any rank's wish is all ranks': they must leave the loop at the same step */
    double v[2] = {late || stop_requested(), save_requested()};
    dist_step(r->step - 1);
    Status st = dist_all_reduce_f64(v, 2, "the end of the step");
    *stop = v[0] > 0, *save = v[1] > 0;
    return st;
}

/* A gradient that is not finite: which tensor first, and what optim.on_nonfinite says. */
static Status not_finite(Run *r, const ParamTensor *bad, const ObjectiveLosses *l) {
    enum { PATIENCE = 20 }; /* a run that skips every step looks like one that trains */
    const char *policy = r->o->optim.on_nonfinite.name, *name = bad ? bad->name : "their sum";
    char where[40] = "";
    if (dist_size() > 1 && l->bad_rank >= 0) snprintf(where, sizeof where, ", first on rank %d", l->bad_rank);
    r->skipped++;
    r->bad_in_row++;
    log_text(r->log, "step %lld: the gradient is not finite, first in %s (loss %.4g%s); %s", (long long)r->step + 1,
             name,
             l->loss, where, strcmp(policy, "skip") == 0 ? "skipped" : policy);
    if (strcmp(policy, "stop") == 0)
        return err_set(ERR_NUMERIC,
                       "step %lld: the gradient of %s is not finite (loss %.4g%s); optim.on_nonfinite=skip goes on",
                       (long long)r->step + 1, name, l->loss, where);
    if (r->bad_in_row >= PATIENCE)
        return err_set(ERR_NUMERIC,
                       "%d steps in a row had a gradient that is not finite, first in %s%s; lower optim.lr or set "
                       "optim.clip",
                       PATIENCE, name, where);
    return strcmp(policy, "rollback") == 0 ? run_rollback(r) : OK;
}

static Status one_step(Run *r) {
    const Batch *b;
    LogStep s = log_blank(r->step + 1);
    Status st = watched_look(r, &s);
    if (st == OK) st = loader_next(r->loader, &b, &s.wait_s);
    if (st != OK) return st;
    /* never waited for: what is not read yet does not travel early */
    const Batch *ready = r->b->unified ? NULL : loader_peek(r->loader);
    ObjectiveBatch sb, next;
    st = run_batch(r, &r->feed, b, &sb);
    if (ready) next = run_features(ready);
    ObjectiveLosses l;
    const ParamTensor *bad = NULL;
    double flops = trainer_flops(&r->t), lr = schedule_lr(&r->schedule, r->step);
    if (st == OK)
        st = trainer_step(&r->t, &sb, ready ? &next : NULL, (uint32_t)r->step, &r->adam, lr, r->updates + 1, &l,
                          &bad);
    /* the norm is all ranks', so all skip or none */
    bool skip = st == OK && !(isfinite(*r->t.norm) && isfinite(l.loss));
    if (st == OK) {
        /* AdamW's t counts updates: a step left out must not age the moments */
        r->updates += isfinite(*r->t.norm);
        if (skip) st = not_finite(r, bad, &l);
        else r->bad_in_row = 0;
    }
    /* before it is given back */
    int64_t epoch = b->epoch, pairs = b->G;
    loader_release(r->loader, b);
    if (st != OK) return st;
    r->step++;
    if (!skip) s.loss = l.loss, s.grad_norm = *r->t.norm;
    for (int i = 0; i < r->t.objective->nvalues; i++) {
        ObjectiveValue v = r->t.objective->values[i];
        if (!skip || !v.loss) *log_field(&s, v.name) = l.value[i];
    }
    s.lr = lr, s.skipped = (double)r->skipped, s.epoch = (double)epoch, s.pairs = (double)pairs;
    s.flops = trainer_flops(&r->t) - flops;
    return log_step(r->log, &s);
}

static Status between_steps(Run *r, bool stopping, bool asked) {
    int64_t every = r->o->train.save_every, eval = r->o->train.eval_every;
    bool last = r->step >= r->steps, better = false;
    Status st = OK;
    /* who wants to stop now gets a checkpoint, not an evaluation */
    if (eval && !stopping && (r->step % eval == 0 || last)) {
        st = run_validate(r, &better);
        log_pause(r->log);
    }
    if (st == OK && (last || stopping || asked || better || (every && r->step % every == 0))) st = run_save(r, better);
    return st;
}

Status run_loop(Run *r) {
    const double limit = r->o->train.time_limit, start = status_clock();
    const int64_t patience = r->o->train.patience;
    Status st = OK;
    bool stop = false, save = false;
    while (st == OK && r->step < r->steps && !stop) {
        dist_step(r->step);
        st = one_step(r);
        st = dist_blame(st);
        if (st == ERR_DEVICE) err_context(st, "step %lld", (long long)r->step + 1);
        if (st == OK) st = agree_on_signals(r, limit > 0 && status_clock() - start > limit, &stop, &save);
        /* counted from all ranks' results: no word is needed */
        if (patience && r->evals_since_best >= patience) stop = true;
        if (st == OK) st = between_steps(r, stop && r->step < r->steps, save);
    }
    status_end();
    st = dist_agree(st);
    if (st == OK && stop && r->step < r->steps)
        log_text(r->log, "stopped after step %lld of %lld, saved; the same command goes on from there",
                 (long long)r->step, (long long)r->steps);
    return st;
}
