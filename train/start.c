/* start: where a run starts, and what it says of that (run.h): fresh, from weights, or on from the newest checkpoint in
 * `out`; what was another then, and what cannot be. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/act_names.h"
#include "checkpoints/origin.h"
#include "checkpoints/params_io.h"
#include "data/format/outfile.h"
#include "eval/use.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/run.h"

/* ---- sizes of weights -------------------------------------------------------------------------------------------- */

/* A text of the old run, which keeps its own. */
static Status take_from_run(Options *o, const Origin *g) {
    static const char *const keys[] = {"model.layers", "model.hidden",      "model.ffn",       "model.queries",
                                       "model.proj",   "model.cross_every", "model.positions", "model.eps",
                                       "model.eps_vision", "model.act", "data.max_tokens",
                                       "lm.layers",    "lm.hidden",    "lm.heads",        "lm.ffn"};
    Status st = OK;
    for (size_t i = 0; st == OK && i < sizeof keys / sizeof *keys; i++) {
        char buf[64];
        /* what the user says stands; a clash is told by check_init */
        if (!options_is_set(o, keys[i])) st = options_set(o, keys[i], options_value(g->trained, keys[i], buf), g->name);
    }
    return st;
}

static Status take_from_tensors(Options *o, const Origin *g, const Dims *d) {
    const struct { const char *key; int64_t value; } sizes[] = {
        {"model.layers", d->L}, {"model.hidden", d->C}, {"model.ffn", d->F}, {"model.queries", d->Q},
        {"model.proj", d->Z}, {"model.cross_every", d->X}, {"model.positions", d->N}};
    Status st = OK;
    for (size_t i = 0; st == OK && i < sizeof sizes / sizeof *sizes; i++) {
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)sizes[i].value);
        /* 0: the file does not tell */
        if (sizes[i].value && !options_is_set(o, sizes[i].key)) st = options_set(o, sizes[i].key, text, g->name);
    }
    return st;
}

/* How published weights compute, as their config.json says it. */
static Status take_habits(Options *o, const Origin *g) {
    static const char *const keys[] = {"model.eps", "model.eps_vision", "model.act"};
    char text[3][32];
    Status st = OK;
    if (!(g->habits.eps > 0)) return OK;
    snprintf(text[0], sizeof text[0], "%.9g", (double)g->habits.eps);
    snprintf(text[1], sizeof text[1], "%.9g", (double)dims_eps_vision(&g->habits));
    snprintf(text[2], sizeof text[2], "%s", act_name((ActKind)g->habits.act));
    for (int i = 0; i < 3 && st == OK; i++)
        if (!options_is_set(o, keys[i])) st = options_set(o, keys[i], text[i], g->name);
    return st;
}

Status start_sizes(Options *o, const char *path) {
    WeightSource *ws = NULL;
    Origin g = {0};
    Dims d;
    int32_t heads = 0;
    char text[24];
    Status st = ws_open(&ws, path, NULL, NULL);
    if (st == OK) st = origin_read(&g, ws);
    if (st == OK) dims_known(&d, ws);
    if (st == OK) st = g.trained ? take_from_run(o, &g) : take_from_tensors(o, &g, &d);
    if (st == OK && !g.trained) st = take_habits(o, &g);
    if (st == OK && d.C && !options_is_set(o, "model.heads") && (st = use_heads(&g, o, d.C, &heads)) == OK) {
        snprintf(text, sizeof text, "%d", heads);
        st = options_set(o, "model.heads", text, g.name);
    }
    if (st == OK && d.E && !options_is_set(o, "model.image_width")) {
        snprintf(text, sizeof text, "%d", d.E);
        st = options_set(o, "model.image_width", text, g.name);
    }
    if (st == OK && g.vocab && !options_is_set(o, "model.vocab")) st = options_set(o, "model.vocab", g.vocab, g.name);
    origin_free(&g);
    ws_close(ws);
    return st;
}

/* What torch.load would not read should not be called as if. */
Status start_claim(const Options *o) {
    static const char *const torch[] = {".pth", ".pt", ".bin", ".ckpt"};
    const char *dot = strrchr(o->run.out, '.');
    for (size_t i = 0; dot && i < sizeof torch / sizeof *torch; i++)
        if (!strcmp(dot, torch[i]))
            return err_set(ERR_USAGE,
                           "out=%s: what is written is safetensors, no file of torch.save; let it end in .safetensors, "
                           "which safetensors.torch.load_file reads", o->run.out);
    return outfile_claim(o->run.out, o->run.overwrite);
}

/* ---- going on ---------------------------------------------------------------------------------------------------- */

/* What a resumed run may not change: sizes, and whatever decides which numbers are drawn. */
static const char *const fixed[] = {"model.layers", "model.hidden",      "model.heads",     "model.ffn",
                                    "model.queries",
                                    "model.proj",   "model.cross_every", "model.positions", "seed", "stage",
                                        "objective",
                                    "model.eps", "model.eps_vision", "model.act", "stage2.instruct",
                                    "lm.layers", "lm.hidden", "lm.heads", "lm.ffn"};
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
    if (r->tok && g->vocab_hash && g->vocab_hash != tokenizer_hash(r->tok))
        return err_set(ERR_USAGE,
                       "%s was made with another vocabulary (%s) than model.vocab=%s: its rows stand for other "
                       "words", ckpt_dir(c), g->vocab, r->o->model.vocab);
    if (!g->trained) return OK;
    options_changes(g->trained, r->o, change, &changes);
    Status st = changes.st;
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

/* Heads and words cannot be told from shapes; another encoder's features can be learned, so that is only said. */
static Status check_init(const Run *r, const WeightSource *ws) {
    Origin g;
    const char *prepared = NULL;
    Status st = origin_read(&g, ws);
    if (st == OK && g.heads && g.heads != r->d.H)
        st = err_set(ERR_USAGE,
                     "train.init=%s has %lld heads, model.heads=%d: with others the same weights are another "
                     "function", r->o->train.init, (long long)g.heads, r->d.H);
    if (st == OK && r->tok && g.vocab_hash && g.vocab_hash != tokenizer_hash(r->tok))
        st = err_set(ERR_USAGE, "train.init=%s was trained with another vocabulary (%s) than model.vocab=%s: its rows "
                     "stand for other words", r->o->train.init, g.vocab, r->o->model.vocab);
    if (st == OK && origin_features(&g, r->train, &prepared) != OK) {
        if (dist_rank() == 0) status_say("warning: %s", err_message());
        err_clear();
    }
    origin_free(&g);
    return st;
}

static Status from_weights(Run *r, const char *path) {
    WeightSource *ws = NULL;
    LoadReport report;
    bool speaks = dist_rank() == 0;
    Status st = ws_open(&ws, path, speaks ? status_warn : NULL, NULL);
    if (st == OK) st = check_init(r, ws);
    if (st == OK) st = load_weights(r->t.params, ws, true, &report);
    char *what = st == OK ? load_describe(&report) : NULL;
    if (what && speaks && *ws_prefix(ws)) status_say("%s: '%s' comes off its names", path, ws_prefix(ws));
    if (what && speaks) status_say("begins    with the weights of %s: %s", path, what);
    free(what);
    ws_close(ws);
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

static Status begin(Run *r) {
    Status st = dist_rank() == 0 ? claim_out(r) : OK;
    st = dist_agree_at(st, "the look into out");
    if (st == OK) st = params_init(r->t.params, (uint64_t)r->o->run.seed, recipe_init_std(r->o, &r->d));
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
    if (st == OK && found && c) st = compare_old(r, c);
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
