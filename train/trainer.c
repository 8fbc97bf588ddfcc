/* trainer: see trainer.h. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>

/* Everything a training step takes from the run arena, in order; `t` has its backend and arenas. */
static Status build(Trainer *t, const TrainerSpec *spec) {
    Status st = qformer_open(&t->model, &spec->d, t->b, &t->run, &spec->params);
    if (st != OK) return st;
    t->plan.params = t->model.params.count;
    const Params *p = &t->model.params;
    bool one = p->copy == (void *)p->w;
    t->plan.weights = (size_t)p->total * (sizeof(float) + (one ? 0 : (size_t)dtype_size(t->b->elem)));
    t->plan.state = t->run.used - t->plan.weights;
    t->scratch = arena_push(&t->run, optim_scratch(), 1);
    t->b->set_workspace(arena_push(&t->run, t->b->workspace, 1), t->b->workspace);
    return step_open(&t->step, t->b, &t->model, &t->run, &t->stepmem, &spec->step);
}

Status trainer_plan(Plan *plan, const Backend *b, const TrainerSpec *spec) {
    Backend null = *backend_null(b->elem);                   /* does nothing, but asks for the memory that b asks for */
    null.unified = b->unified;
    null.workspace = b->workspace;
    Trainer t = {.b = &null};
    arena_measure(&t.run, "run");
    arena_measure(&t.stepmem, "step");
    StepBatch batch;
    StepLosses losses;
    void *room = NULL;
    Status st = build(&t, spec);
    if (st == OK) st = step_worst_batch(&batch, &t.step, spec->tokens, spec->features, &room);
    if (st == OK) st = step_losses(&t.step, &batch, 0, 1.0f, spec->params.training, &losses);
    t.plan.flops = t.step.tape.flops;
    t.plan.flops_attention = t.step.tape.flops_attention;
    t.step.crowd = t.step.G != spec->step.B / spec->step.micro;          /* draws of others may crowd on one piece */
    if (st == OK && t.step.crowd) st = step_losses(&t.step, &batch, 0, 1.0f, spec->params.training, &losses);
    t.plan.buffers = t.run.peak - t.plan.weights - t.plan.state;
    t.plan.step = t.stepmem.peak;
    *plan = t.plan;
    free(room);
    step_close(&t.step);
    qformer_close(&t.model);
    return st;
}

Status trainer_open(Trainer *t, const Backend *b, const TrainerSpec *spec) {
    *t = (Trainer){.b = b};
    Plan plan;
    Status st = trainer_plan(&plan, b, spec);
    if (st == OK) st = arena_open(&t->run, "run's", b, plan.weights + plan.state + plan.buffers);
    if (st == OK) st = arena_open(&t->stepmem, "step's", b, plan.step);
    if (st == OK) st = build(t, spec);
    void *pinned = NULL;
    if (st == OK) st = b->host_alloc(&pinned, sizeof *t->norm);
    t->norm = pinned;
    t->plan = plan;
    if (st == ERR_MEMORY)
        err_context(st,
                    "%.2f GiB are needed (weights %.2f, optimizer %.2f, buffers %.2f, a step of %lld pairs %.2f; a "
                    "smaller "
                    "train.batch or a larger optim.accum needs less)",
                    (double)plan_bytes(&plan) / (1 << 30), (double)plan.weights / (1 << 30),
                    (double)plan.state / (1 << 30), (double)plan.buffers / (1 << 30), (long long)spec->step.B,
                    (double)plan.step / (1 << 30));
    if (st != OK) trainer_close(t);
    return st;
}

Status trainer_step(Trainer *t, const StepBatch *batch, const StepBatch *next, uint32_t step, const AdamSpec *a,
                    double lr, int64_t number, StepLosses *l, const ParamTensor **bad) {
    *bad = NULL;
    Status st = step_run(&t->step, batch, next, step, 1.0f, true);
    if (st == OK) st = optim_norm(&t->model.params, t->scratch, a->clip, t->norm);
    if (st == OK) st = optim_update(&t->model.params, t->scratch, a, lr, number);
    if (st == OK) st = step_read(&t->step, l);
    if (st == OK) optim_end(&t->model.params, isfinite(*t->norm), bad);
    return st;
}

Status trainer_update(Trainer *t, const AdamSpec *a, double lr, int64_t number, const ParamTensor **bad) {
    Status st = optim_norm(&t->model.params, t->scratch, a->clip, t->norm);
    if (st == OK) st = optim_update(&t->model.params, t->scratch, a, lr, number);
    t->b->fetch_wait();
    optim_end(&t->model.params, isfinite(*t->norm), bad);
    return st == OK ? t->b->status() : st;
}

void trainer_close(Trainer *t) {
    step_close(&t->step);
    qformer_close(&t->model);
    if (t->b) {
        if (t->norm) t->b->host_release(t->norm);
        arena_close(&t->stepmem, t->b);
        arena_close(&t->run, t->b);
    }
    *t = (Trainer){0};
}
