/* trainer: see trainer.h. */
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/mem.h"

/* What learns: the Q-Former, or what the objective brings. */
static Status open_learner(Trainer *t, const TrainerSpec *spec, const ObjectiveSite *site) {
    t->params = &t->model.params;
    if (!t->objective->learner) return qformer_open(&t->model, &spec->d, t->b, &t->run, &spec->params);
    return t->objective->learner(t->self, site, spec->spec, &spec->params, &t->params);
}

/* Everything a training step takes from the run arena, in order; `t` has its backend and arenas. */
static Status build(Trainer *t, const TrainerSpec *spec) {
    ObjectiveSite site = {.b = t->b, .model = &t->model, .run = &t->run, .step = &t->stepmem, .B = spec->B,
                          .micro = spec->micro};
    t->objective = spec->objective;
    t->self = mem_new(1, t->objective->size);
    Status st = t->self ? open_learner(t, spec, &site) : ERR_MEMORY;
    if (st != OK) return st;
    const Params *p = t->params;
    t->plan.params = p->count;
    bool one = p->copy == (void *)p->w;
    t->plan.weights = (size_t)p->total * (sizeof(float) + (one ? 0 : (size_t)dtype_size(t->b->elem)));
    /* what the parameters took, less what they are: gradient, moments, average */
    t->plan.state = t->run.used - t->plan.weights;
    t->scratch = arena_push(&t->run, optim_scratch(), 1);
    t->b->set_workspace(arena_push(&t->run, t->b->workspace, 1), t->b->workspace);
    st = t->objective->open(t->self, &site, spec->spec);
    if (st == OK) objective_tape(t->objective, t->self)->roomy = spec->roomy;
    return st;
}

static void end_objective(Trainer *t) {
    if (t->self) t->objective->close(t->self);
    free(t->self);
    t->self = NULL;
}

Status trainer_plan(Plan *plan, const Backend *b, const TrainerSpec *spec) {
    /* the same code on a backend that computes nothing: what is counted cannot differ from what runs */
    Backend null = backend_measuring(b);
    /* the one kernel whose calls somebody wants to see */
    if (spec->product) null.gemm = spec->product, null.gemms = spec->products;
    Trainer t = {.b = &null, .plan.roomy = spec->roomy};
    arena_measure(&t.run, "run");
    arena_measure(&t.stepmem, "step");
    double flops[2] = {0};
    Status st = build(&t, spec);
    if (st == OK) st = t.objective->measure(t.self, spec->tokens, spec->features, spec->params.training, flops);
    t.plan.flops = flops[0];
    t.plan.flops_attention = flops[1];
    t.plan.buffers = t.run.peak - t.plan.weights - t.plan.state;
    t.plan.step = t.stepmem.peak;
    *plan = t.plan;
    end_objective(&t);
    qformer_close(&t.model);
    return st;
}

const char *plan_text(const Plan *p, char buf[PLAN_TEXT]) {
    snprintf(buf, PLAN_TEXT, "weights %.2f, optimizer %.2f, buffers %.2f", plan_gib((double)p->weights),
             plan_gib((double)p->state), plan_gib((double)p->buffers));
    return buf;
}

/* Arrays grow with the pairs or, those of similarities, with their square. Measured, a million pairs take a minute and
 * 10 GB for the lists of rows alone. */
Status trainer_foresee(Plan *plan, const Backend *b, const TrainerSpec *spec) {
    int64_t unit = (16384 + spec->micro - 1) / spec->micro * spec->micro;
    Plan p[3];
    if (spec->B <= 3 * unit) return trainer_plan(plan, b, spec);
    for (int i = 0; i < 3; i++) {
        TrainerSpec at = *spec;
        at.B = (i + 1) * unit;
        Status st = trainer_plan(&p[i], b, &at);
        if (st != OK) return st;
    }
    double x = (double)spec->B / (double)unit;
    double k[3] = {(x - 2) * (x - 3) / 2, -(x - 1) * (x - 3), (x - 1) * (x - 2) / 2};
#define CONTINUED(what) (k[0] * (double)p[0].what + k[1] * (double)p[1].what + k[2] * (double)p[2].what)
    *plan = p[2];
    plan->buffers = (size_t)CONTINUED(buffers), plan->step = (size_t)CONTINUED(step);
    plan->flops = CONTINUED(flops), plan->flops_attention = CONTINUED(flops_attention);
#undef CONTINUED
    return OK;
}

/* The arenas; ERR_MEMORY also when less than `spare` is left behind them. */
static Status take_memory(Trainer *t, const Plan *plan, size_t spare) {
    void *probe = NULL;
    Status st = arena_open(&t->run, "run's", t->b, plan->weights + plan->state + plan->buffers);
    if (st == OK) st = arena_open(&t->stepmem, "step's", t->b, plan->step);
    /* asked for and given back: what is free is not what can be had */
    if (st == OK && spare) st = t->b->alloc(&probe, spare);
    if (probe) t->b->release(probe);
    return st;
}

/* spec->roomy says what became of it. What else a run does on the GPU (evaluation,
 * libraries) finds a quarter as much free. */
static Status take_planned(Trainer *t, Plan *plan, TrainerSpec *spec) {
    /* a GPU's memory is the run's own, the host's is everybody's */
    spec->roomy = spec->roomy || !t->b->unified;
    Status st = trainer_plan(plan, t->b, spec);
    if (st == OK && spec->roomy) {
        if (take_memory(t, plan, plan_bytes(plan) / 4) == OK) return OK;
        /* not enough for the roomy plan is no error: the tight one may fit */
        err_clear();
        arena_close(&t->stepmem, t->b);
        arena_close(&t->run, t->b);
        spec->roomy = false;
        st = trainer_plan(plan, t->b, spec);
    }
    return st == OK ? take_memory(t, plan, 0) : st;
}

Status trainer_open(Trainer *t, const Backend *b, const TrainerSpec *given) {
    *t = (Trainer){.b = b};
    Plan plan;
    TrainerSpec taken = *given, *spec = &taken;
    Status st = take_planned(t, &plan, spec);
    if (st == OK) st = build(t, spec);
    void *pinned = NULL;
    if (st == OK) st = b->host_alloc(&pinned, sizeof *t->norm);
    t->norm = pinned;
    /* the measured one: build alone knows nothing of what a step takes */
    t->plan = plan;
    char parts[PLAN_TEXT];
    if (st == ERR_MEMORY)
        err_context(st, "%.2f GiB are needed (%s, a step of %lld pairs %.2f; a smaller train.batch or a larger "
                    "optim.accum needs less)", plan_gib((double)plan_bytes(&plan)), plan_text(&plan, parts),
                    (long long)spec->B, plan_gib((double)plan.step));
    if (st != OK) trainer_close(t);
    return st;
}

Status trainer_losses(Trainer *t, const ObjectiveBatch *batch, uint32_t step, float scale, bool grad,
                      ObjectiveLosses *l) {
    Status st = t->objective->run(t->self, batch, NULL, step, scale, grad);
    return st == OK ? t->objective->read(t->self, l) : st;
}

Status trainer_step(Trainer *t, const ObjectiveBatch *batch, const ObjectiveBatch *next, uint32_t step,
                    const AdamSpec *a, double lr, int64_t number, ObjectiveLosses *l, const ParamTensor **bad) {
    *bad = NULL;
    Status st = t->objective->run(t->self, batch, next, step, 1.0f, true);
    if (st == OK) st = optim_norm(t->params, t->scratch, a->clip, t->norm);
    /* enqueued before the losses are read: the device works while the host waits for them */
    if (st == OK) st = optim_update(t->params, t->scratch, a, lr, number);
    if (st == OK) st = t->objective->read(t->self, l);
    if (st == OK) optim_end(t->params, isfinite(*t->norm), bad);
    return st;
}

void trainer_close(Trainer *t) {
    end_objective(t);
    qformer_close(&t->model);
    if (t->b) {
        if (t->norm) t->b->host_release(t->norm);
        arena_close(&t->stepmem, t->b);
        arena_close(&t->run, t->b);
    }
    *t = (Trainer){0};
}
