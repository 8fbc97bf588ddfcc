/* run_start: where a run starts, and what it says of that (run.h): fresh, from weights, or on from the newest
 * checkpoint in `out`; what was another then, and what cannot be. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/origin.h"
#include "checkpoints/params_io.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/run.h"

/* ---- going on ---------------------------------------------------------------------------------------------------- */

/* What a resumed run may not change: sizes, and whatever decides which numbers are drawn. */
static const char *const fixed[] = {START_SHAPE, "model.heads", "seed", "stage", "objective", "stage2.instruct"};
/* What changes no number, or is compared by what it holds and not by its name. */
static const char *const indifferent[] = {
    "out", "in", "threads", "train.resume", "train.init", "train.log_every", "train.save_every", "train.keep",
    "train.time_limit", "train.events", "data.threads", "data.queue", "data.verify_crc", "data.train", "data.val",
    "model.vocab", "model.image_width", "model.image_tokens", "dist.timeout_s"};

#define AMONG(key, list) among(key, list, sizeof list / sizeof *list)
static bool among(const char *key, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, list[i]) == 0) return true;
    return false;
}

typedef struct { const char *dir; const Options *old, *now; Status st; bool saying; } Changes;

/* model.ffn=0 is four times the width. */
static bool same_ffn(const Changes *c) {
    int64_t a = c->old->model.ffn, b = c->now->model.ffn;
    return (a ? a : 4 * c->old->model.hidden) == (b ? b : 4 * c->now->model.hidden);
}

static void change(void *ctx, const char *key, const char *was, const char *is) {
    Changes *c = ctx;
    /* what a step's bits hang on, and what shapes hang on */
    bool refused = AMONG(key, fixed) && !(strcmp(key, "model.ffn") == 0 && same_ffn(c));
    /* quotes show where a value begins and ends */
    bool words = !*was || !*is || strchr(was, ' ') || strchr(is, ' ');
    if (c->saying && !AMONG(key, fixed) && !AMONG(key, indifferent))
        status_say(words ? "  %s was \"%s\", now \"%s\"" : "  %s was %s, now %s", key, was, is);
    if (!c->saying && refused && c->st == OK)
        c->st = err_set(ERR_USAGE, "%s was made with %s=%s, now it is %s: go on with the old value, or start anew in "
                        "another out=", c->dir, key, was, is);
}

static int64_t int_of(const Json *o, const char *key) {
    int64_t v = 0;
    json_int(json_get(o, key), &v);
    return v;
}

static Status same_batch(const Run *r, const Origin *g, const Ckpt *c) {
    const Json *run = ckpt_run(c);
    /* older runs have it in their configuration alone */
    int64_t G = json_get(run, "global_batch") ? int_of(run, "global_batch") : g->trained->train.batch;
    if (G == r->spec.B * dist_size()) return OK;
    return err_set(ERR_USAGE, "%s was made with %lld pairs a step, now they are %lld (train.batch=%lld on each of %d "
                   "ranks): keep their product, or start anew in another out=", ckpt_dir(c), (long long)G,
                   (long long)(r->spec.B * dist_size()), (long long)r->spec.B, dist_size());
}

/* Weights that were asked for are not passed over in silence. */
static Status same_init(const Run *r, const Origin *g, const Ckpt *c) {
    const char *init = r->o->train.init, *was = g->trained->train.init;
    if (!*init || strcmp(init, was) == 0) return OK;
    return err_set(ERR_USAGE, "%s holds step %lld of a run that began from %s, not from train.init=%s: go on without "
                   "train.init, or begin in another out", r->o->run.out, (long long)ckpt_step(c),
                   *was ? was : "fresh weights", init);
}

static Status check_old(const Run *r, const Origin *g, const Ckpt *c) {
    Changes changes = {.dir = ckpt_dir(c), .old = g->trained, .now = r->o};
    const char *prepared = NULL;
    Status st = start_words(g, r->tok, r->o, "", ckpt_dir(c), "made");
    if (st != OK || !g->trained) return st;
    options_changes(g->trained, r->o, change, &changes);
    st = changes.st;
    if (st == OK) st = same_batch(r, g, c);
    if (st == OK) st = same_init(r, g, c);
    return st == OK ? origin_features(g, r->train, &prepared) : st;
}

static void say_changes(const Run *r, const Origin *g, const Ckpt *c) {
    Changes changes = {.dir = ckpt_dir(c), .old = g->trained, .now = r->o, .saying = true};
    const char *prepared = NULL;
    status_say("goes on   from %s: %lld of %lld steps are done", ckpt_dir(c), (long long)ckpt_step(c),
               (long long)r->steps);
    if (g->trained) options_changes(g->trained, r->o, change, &changes);
    if (g->data_hash && g->data_hash != set_fingerprint(r->train))
        status_say("  warning: data.train is another set than this run has seen so far: it had %lld captions of %lld "
                   "images (%s), now %lld of %lld (%s)", (long long)g->captions, (long long)g->images, g->data,
                   (long long)set_captions(r->train), (long long)set_images(r->train), r->o->data.train);
    if (origin_features(g, r->train, &prepared) == OK && prepared)
        status_say("  warning: images were prepared otherwise (%s)", prepared);
}

static void read_state(Run *r, const Json *run) {
    double best;
    r->updates = int_of(run, "updates");
    r->skipped = int_of(run, "skipped");
    r->best_step = int_of(run, "best_step");
    r->evals_since_best = int_of(run, "evals_since_best");
    if (json_num(json_get(run, "best"), &best)) r->best = best;
}

static Status compare_old(const Run *r, const Ckpt *c) {
    Origin g;
    Status st = origin_of_checkpoint(&g, c);
    if (st == OK) st = check_old(r, &g, c);
    if (st == OK) say_changes(r, &g, c);
    origin_free(&g);
    return st;
}

/* Rank 0 reads, the others receive: `out` may lie where only rank 0 sees it. c: NULL but on rank 0. */
static Status resume(Run *r, const Ckpt *c) {
    Status st = load_run(r->t.params, c);
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

/* ---- beginning --------------------------------------------------------------------------------------------------- */

static Status from_weights(const Run *r, const char *path) {
    char *what = NULL;
    Status st = start_weights(r->t.params, path, r->o, r->tok, r, &what);
    if (what && dist_rank() == 0) status_say("begins    with the weights of %s: %s", path, what);
    free(what);
    return st;
}

/* `out` is free for a run that begins, or what it holds goes because the user said so. */
static Status claim_out(const Run *r) {
    const char *out = r->o->run.out;
    int64_t *steps;
    size_t n;
    Status st = ckpt_list(out, &steps, &n);
    if (st == OK && n && !r->o->run.overwrite)
        st = err_set(ERR_USAGE,
                     "%s holds step %lld of a run already (train.resume=false): overwrite=true removes it, or "
                     "name another out", out, (long long)steps[0]);
    else if (st == OK && n && (st = ckpt_remove_all(out)) == OK)
        status_say("%s: the steps of another run are removed (overwrite=true)", out);
    free(steps);
    return st;
}

static Status multiply(const Params *p, int row, float factor) {
    const ParamTensor *t = params_tensor(p, row, -1);
    float *x = mem_new((size_t)t->n, sizeof *x);
    if (!x) return ERR_MEMORY;
    params_read(p, t, p->w, x);
    for (int64_t i = 0; i < t->n; i++) x[i] *= factor;
    params_write(p, t, p->w, x);
    free(x);
    return OK;
}

/* Torch's Linear makes visual rows 4.4 times as large as SmolLM2's words: after 105 steps of short captions the loss is
 * 3.45 with it and 1.45 with rows of the words' size. */
static Status scale_projection(const Run *r) {
    double rms = 0, scale = r->o->stage2.scale;
    if (r->learns != LEARNS_STAGE2 || scale == 0) return OK;
    Status st = lm_words_rms(&r->speaker.lm, &rms);
    /* numbers of U(-1, 1) / sqrt(C), and queries leave a norm: rows have the root of a third */
    float factor = (float)(scale * rms * sqrt(3.0));
    if (st == OK) st = multiply(r->t.params, P_SPEAK_W, factor);
    if (st == OK) st = multiply(r->t.params, P_SPEAK_B, factor);
    if (st == OK) params_refresh(r->t.params);
    return st;
}

static Status begin(Run *r) {
    Status st = dist_rank() == 0 ? claim_out(r) : OK;
    st = dist_agree_at(st, "the look into out");             /* rank 0 alone sees the folder */
    if (st == OK) st = params_init(r->t.params, (uint64_t)r->o->run.seed, recipe_init_std(r->o, &r->d));
    if (st == OK) st = scale_projection(r);
    if (st == OK && *r->o->train.init) return from_weights(r, r->o->train.init);
    if (st == OK && dist_rank() == 0) status_say("begins    with fresh weights, seed %lld", (long long)r->o->run.seed);
    return st;
}

/* The newest checkpoint, on rank 0; *found on all. */
static Status find_latest(const Run *r, Ckpt **c, bool *found) {
    Status st = OK;
    *c = NULL;
    /* one look: two ranks could see two states of a folder that is written to */
    if (dist_rank() == 0) st = ckpt_find_latest(c, r->o->run.out, status_warn, NULL);
    *found = *c != NULL;
    st = dist_agree_at(st, "the search for a checkpoint");
    return st == OK ? dist_broadcast(found, sizeof *found, 0, "the spread of whether there is a checkpoint") : st;
}

Status run_start(Run *r) {
    Ckpt *c = NULL;
    Status st = OK;
    bool found = false, first = dist_rank() == 0;
    r->best = -1;
    if (r->o->train.resume) st = find_latest(r, &c, &found);
    if (st == OK && found && c) st = compare_old(r, c);      /* on rank 0: the others hold none */
    if (st == OK && found) st = resume(r, c);
    else if (st == OK) st = begin(r);
    if (st == OK && first && r->tok)
        st = origin_keep_vocab(r->o->run.out, r->o->model.vocab, r->tok, r->o->run.overwrite);
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
    return dist_agree_at(st, "the end of going back");
}
