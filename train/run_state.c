/* resume: where a run starts, and what it leaves behind (run.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/params_io.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/run.h"

static void warn(void *ctx, const char *sentence) {
    (void)ctx;
    status_say("warning: %s", sentence);
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

static char *describe(const Run *r) {
    char *text = NULL, *config = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    JsonWriter w;
    if (options_text(r->o, &config) == OK) {
        jw_begin(&w, f, 0);
        jw_object(&w, NULL);
        jw_int(&w, "updates", r->updates);
        jw_int(&w, "skipped", r->skipped);
        jw_num(&w, "best", r->best);
        jw_int(&w, "best_step", r->best_step);
        jw_int(&w, "evals_since_best", r->evals_since_best);
        jw_int(&w, "seed", r->o->run.seed);
        jw_int(&w, "global_batch", r->t.step.G);
        jw_int(&w, "heads", r->d.H);
        jw_str(&w, "vocab", r->o->model.vocab);
        jw_str(&w, "encoder", set_encoder(r->train)->name);
        jw_str(&w, "config", config);
        jw_end(&w);
        jw_done(&w);
    }
    fclose(f);
    free(config);
    return text;
}

Status run_save(Run *r, bool best) {
    char *run = describe(r);
    SaveSpec s = {.out = r->o->run.out, .run = run, .step = r->step, .keep = (int)r->o->train.keep,
                  .best = best, .warn = warn};
    dist_step(r->step - 1);
    Status st = run ? save_run(&r->t.model.params, &s) : ERR_MEMORY;
    free(run);
    log_pause(r->log);
    dist_step(r->step - 1);
    return dist_agree_at(st, "the end of saving");
}

/* ---- starting ---------------------------------------------------------------------------------------------------- */

static int64_t int_of(const Json *o, const char *key) {
    int64_t v = 0;
    json_int(json_get(o, key), &v);
    return v;
}

/* Options that a resumed run may not change: others (steps, intervals, rates) it may. */
static Status same_model(const Run *r, const Json *run, const char *dir) {
    static const char *const fixed[] = {"model.layers", "model.hidden",      "model.heads", "model.queries",
                                        "model.proj",   "model.cross_every", "seed"};
    size_t n = 0;
    const char *text = json_str(json_get(run, "config"), &n);
    Options *old = NULL;
    if (!text) return OK;
    Status st = options_parse_text(&old, "pretrain", text, n, "its configuration");
    if (st != OK) return err_context(ERR_FORMAT, "%s/state.json", dir);
    for (size_t i = 0; st == OK && i < sizeof fixed / sizeof *fixed; i++) {
        char was[64], is[64];
        const char *a = options_value(old, fixed[i], was), *b = options_value(r->o, fixed[i], is);
        if (strcmp(a, b) != 0)
            st = err_set(ERR_USAGE,
                         "%s was made with %s=%s, now it is %s: go on with the old value, or start anew in another out=",
                         dir, fixed[i], a, b);
    }
    int64_t G = json_get(run, "global_batch") ? int_of(run, "global_batch") : old->train.batch;
    if (st == OK && G != r->t.step.G)
        st = err_set(ERR_USAGE,
                     "%s was made with %lld pairs a step, now they are %lld (train.batch=%lld on each of %d ranks): "
                     "keep their product, or start anew in another out=",
                     dir, (long long)G, (long long)r->t.step.G, (long long)r->spec.step.B, dist_size());
    options_free(old);
    return st;
}

static void read_state(Run *r, const Json *run) {
    double best;
    r->updates = int_of(run, "updates");
    r->skipped = int_of(run, "skipped");
    r->best_step = int_of(run, "best_step");
    r->evals_since_best = int_of(run, "evals_since_best");
    if (json_num(json_get(run, "best"), &best)) r->best = best;
}

/* Rank 0 reads, the others receive: `out` may lie where only rank 0 sees it. c: NULL but on rank 0. */
static Status resume(Run *r, const Ckpt *c) {
    Status st = c ? same_model(r, ckpt_run(c), ckpt_dir(c)) : OK;
    if (st == OK) st = load_run(&r->t.model.params, c);
    if (st != OK) return st;
    if (c) read_state(r, ckpt_run(c)), r->step = ckpt_step(c);
    struct {
        int64_t step, updates, skipped, best_step, evals;
        double best;
    } s = {r->step, r->updates, r->skipped, r->best_step, r->evals_since_best, r->best};
    st = dist_broadcast(&s, sizeof s, 0, "the spread of what a checkpoint says");
    r->step = s.step, r->updates = s.updates, r->skipped = s.skipped, r->best_step = s.best_step,
    r->evals_since_best = s.evals, r->best = s.best;
    return st;
}

static Status from_weights(Run *r, const char *path) {
    WeightSource *ws = NULL;
    int missing;
    char first[96];
    Status st = ws_open(&ws, path, warn, NULL);
    if (st == OK) st = load_weights(&r->t.model.params, ws, true, &missing, first, sizeof first);
    if (st == OK && missing && dist_rank() == 0)
        status_say("%s: %d of %d tensors are not in it and start fresh (the first: %s)", path, missing, r->t.model.params.n,
                   first);
    ws_close(ws);
    return st;
}

/* The newest checkpoint, on rank 0; *found on all. */
static Status find_latest(const Run *r, Ckpt **c, bool *found) {
    Status st = OK;
    *c = NULL;
    if (dist_rank() == 0) st = ckpt_find_latest(c, r->o->run.out, warn, NULL);
    *found = *c != NULL;
    st = dist_agree_at(st, "the search for a checkpoint");
    return st == OK ? dist_broadcast(found, sizeof *found, 0, "the spread of what a checkpoint says") : st;
}

Status run_start(Run *r) {
    Ckpt *c = NULL;
    Status st = OK;
    bool found = false;
    r->best = -1;
    if (r->o->train.resume) st = find_latest(r, &c, &found);
    if (st == OK && found) st = resume(r, c);
    else if (st == OK) {
        st = params_init(&r->t.model.params, (uint64_t)r->o->run.seed, recipe_init_std(r->o, &r->d));
        if (st == OK && *r->o->train.init) st = from_weights(r, r->o->train.init);
    }
    ckpt_close(c);
    return dist_agree_at(st, "the end of reading start values");
}

Status run_rollback(Run *r) {
    Ckpt *c = NULL;
    bool found;
    int64_t step = r->step, skipped = r->skipped;
    Status st = find_latest(r, &c, &found);
    if (st == OK && !found) st = err_set(ERR_NUMERIC, "there is no checkpoint to go back to");
    if (st == OK) st = resume(r, c);
    r->step = step, r->skipped = skipped;                    /* weights and moments go back; the data goes on */
    ckpt_close(c);
    return dist_agree(st);
}
