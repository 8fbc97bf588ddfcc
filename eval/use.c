/* use: see use.h. */
#include "eval/use.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/params_io.h"
#include "eval/setup.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

static void warn(void *ctx, const char *sentence) {
    (void)ctx;
    status_say("warning: %s", sentence);
}

Status use_trained_with(Options **old, const WeightSource *ws) {
    const Ckpt *c = ws_checkpoint(ws);
    size_t n = 0;
    const char *text = c ? json_str(json_get(ckpt_run(c), "config"), &n) : NULL;
    *old = NULL;
    if (!text || options_parse_text(old, "pretrain", text, n, "its configuration") == OK) return OK;
    return err_context(ERR_FORMAT, "%s/state.json", ckpt_dir(c));
}

/* What the user gave, else what the model was trained with, else the default. */
#define WHOSE(o, old, key) (options_is_set((o), #key) || !(old) ? (o)->key : (old)->key)

static Status find_sizes(Use *u, const WeightSource *ws, const Options *old) {
    Status st = dims_of_weights(&u->d, ws);
    if (st != OK) return st;
    u->d.H = (int32_t)WHOSE(u->o, old, model.heads);
    u->d.T = (int32_t)WHOSE(u->o, old, data.max_tokens);
    if (u->d.H < 1 || u->d.C % u->d.H) return err_set(ERR_USAGE, "model.heads=%d does not divide the width %d of %s",
                                                      u->d.H, u->d.C, ws_path(ws));
    if (u->d.T > u->d.N) return err_set(ERR_USAGE, "data.max_tokens=%d, but %s has %d positions", u->d.T, ws_path(ws),
                                        u->d.N);
    if (tokenizer_size(u->tok) != u->d.V)
        return err_set(ERR_USAGE, "%s has %d word pieces with [DEC], the model %d: it was trained with another vocabulary (model.vocab)", u->vocab, tokenizer_size(u->tok), u->d.V);
    return setup_tokens(&u->d, u->tok);
}

static Status open_set(Use *u, const Options *old, UseData data) {
    const char *path = u->o->data.test;
    u->split = u->o->data.test_split;
    if (!*path && data == USE_DATA && old) path = old->data.train;
    if (!*path) return data == USE_DATA ? options_require(u->o, "data.test") : OK;
    u->data = mem_strdup(path);
    Status st = u->data ? set_open(&u->set, u->data) : ERR_MEMORY;
    if (st != OK) return st;
    if (set_E(u->set) != u->d.E)
        return err_set(ERR_USAGE, "%s has image tokens of %lld numbers, the model was trained on %d: not the same encoder", path, (long long)set_E(u->set), u->d.E);
    u->d.P = (int32_t)set_P(u->set);
    return OK;
}

static Status open_params(Use *u, const WeightSource *ws) {
    ParamsSpec spec = {0};
    Arena measure;
    Backend null = *backend_null(u->b->elem);
    int missing;
    char first[96];
    arena_measure(&measure, "weights");
    Status st = qformer_open(&u->model, &u->d, &null, &measure, &spec);
    qformer_close(&u->model);
    if (st == OK) st = arena_open(&u->mem, "weights'", u->b, measure.peak + u->b->workspace + 256);
    if (st == OK) st = qformer_open(&u->model, &u->d, u->b, &u->mem, &spec);
    if (st != OK) return st;
    u->b->set_workspace(arena_push(&u->mem, u->b->workspace, 1), u->b->workspace);
    st = load_weights(&u->model.params, ws, u->o->use.ema, &missing, first, sizeof first);
    if (st == OK && missing)
        st = err_set(ERR_FORMAT, "%s lacks %d of %d tensors of a stage-1 Q-Former (the first: %s)", ws_path(ws),
                     missing, u->model.params.n, first);
    return st;
}

Status use_open(Use *u, const Options *o, UseData data) {
    *u = (Use){.o = o, .step = -1};
    WeightSource *ws = NULL;
    Options *old = NULL;
    Status st = options_require(o, "in");
    if (st == OK) st = ws_open(&ws, o->run.in, warn, NULL);
    if (st != OK) return st;
    st = use_trained_with(&old, ws);
    snprintf(u->path, sizeof u->path, "%s", ws_path(ws));
    if (ws_checkpoint(ws)) u->step = ckpt_step(ws_checkpoint(ws));
    if (st == OK) st = setup_backend(&u->b, o);
    u->vocab = mem_strdup(WHOSE(o, old, model.vocab));
    u->prompt = mem_strdup(WHOSE(o, old, data.prompt));
    if (st == OK && !(u->vocab && u->prompt)) st = ERR_MEMORY;
    if (st == OK && !*u->vocab) st = options_require(o, "model.vocab");
    if (st == OK) st = tokenizer_open(&u->tok, u->vocab);
    if (st == OK) st = find_sizes(u, ws, old);
    if (st == OK) st = open_set(u, old, data);
    if (st == OK) st = open_params(u, ws);
    u->text = (TextSpec){u->tok, u->d.T, (int)WHOSE(o, old, data.max_words), u->prompt};
    options_free(old);
    ws_close(ws);
    if (st != OK) use_close(u);
    return st;
}

void use_close(Use *u) {
    qformer_close(&u->model);
    if (u->b) {
        arena_close(&u->mem, u->b);
        backend_close(u->b);
    }
    set_close(u->set);
    tokenizer_close(u->tok);
    free(u->vocab);
    free(u->prompt);
    free(u->data);
    *u = (Use){0};
}
