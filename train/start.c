/* start: see run.h. */
#include "train/run.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoints/act_names.h"
#include "checkpoints/params_io.h"
#include "data/format/outfile.h"
#include "data/format/path.h"
#include "eval/use.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

/* What the user says stands; a clash is told when the weights are read. */
static Status give(Options *o, const Origin *g, const char *key, const char *value) {
    return options_is_set(o, key) ? OK : options_set(o, key, value, g->name);
}

/* 0: the weights do not tell. */
static Status give_size(Options *o, const Origin *g, const char *key, int64_t size) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)size);
    return size ? give(o, g, key, text) : OK;
}

static Status give_real(Options *o, const Origin *g, const char *key, float x) {
    char text[32];
    snprintf(text, sizeof text, "%.9g", (double)x);
    return give(o, g, key, text);
}

static Status give_run(Options *o, const Origin *g) {
    static const char *const keys[] = {START_SHAPE, "data.max_tokens"};
    char text[64];
    Status st = OK;
    for (size_t i = 0; st == OK && i < sizeof keys / sizeof *keys; i++)
        st = give(o, g, keys[i], options_value(g->trained, keys[i], text));
    return st;
}

static Status give_published(Options *o, const Origin *g, const Dims *d) {
    const struct { const char *key; int64_t size; } sizes[] = {
        {"model.layers", d->L}, {"model.hidden", d->C}, {"model.ffn", d->F}, {"model.queries", d->Q},
        {"model.proj", d->Z}, {"model.cross_every", d->X}, {"model.positions", d->N}};
    Status st = OK;
    for (size_t i = 0; st == OK && i < sizeof sizes / sizeof *sizes; i++)
        st = give_size(o, g, sizes[i].key, sizes[i].size);
    /* how they compute no tensor tells: their config.json does, where there is one */
    if (st != OK || !(g->habits.eps > 0)) return st;
    st = give_real(o, g, "model.eps", g->habits.eps);
    if (st == OK) st = give_real(o, g, "model.eps_vision", dims_eps_vision(&g->habits));
    return st == OK ? give(o, g, "model.act", act_name((ActKind)g->habits.act)) : st;
}

Status start_sizes(Options *o, const char *path) {
    WeightSource *ws = NULL;
    Origin g = {0};
    Dims d;
    int32_t heads = 0;
    Status st = ws_open(&ws, path, NULL, NULL);              /* it warns when its weights are taken */
    if (st == OK) st = origin_read(&g, ws);
    if (st == OK) dims_known(&d, ws);
    if (st == OK) st = g.trained ? give_run(o, &g) : give_published(o, &g, &d);
    if (st == OK && d.C && !options_is_set(o, "model.heads")) st = use_heads(&g, o, d.C, &heads);
    if (st == OK) st = give_size(o, &g, "model.heads", heads);
    if (st == OK) st = give_size(o, &g, "model.image_width", d.E);
    if (st == OK && g.vocab) st = give(o, &g, "model.vocab", g.vocab);
    origin_free(&g);
    ws_close(ws);
    return st;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

Status start_words(const Origin *g, const Tokenizer *tok, const Options *o, const char *key, const char *name,
                   const char *how) {
    if (!tok || !g->vocab_hash || g->vocab_hash == tokenizer_hash(tok)) return OK;
    return err_set(ERR_USAGE, "%s%s was %s with another vocabulary (%s) than model.vocab=%s: its rows stand for other "
                   "words", key, name, how, g->vocab, o->model.vocab);
}

/* Heads and words cannot be told from shapes; another encoder's features can be learned, so that is only said. */
static Status check_run(const Run *r, const Origin *g) {
    const char *prepared = NULL;
    if (g->heads && g->heads != r->d.H)
        return err_set(ERR_USAGE, "train.init=%s has %lld heads, model.heads=%d: with others the same weights are "
                       "another function", r->o->train.init, (long long)g->heads, r->d.H);
    Status st = start_words(g, r->tok, r->o, "train.init=", r->o->train.init, "trained");
    if (st == OK && origin_features(g, r->train, &prepared) != OK) {
        if (dist_rank() == 0) status_say("warning: %s", err_message());
        err_clear();
    }
    return st;
}

Status start_weights(Params *p, const char *path, const Options *o, const Tokenizer *tok, const Run *r, char **what) {
    WeightSource *ws = NULL;
    Origin g = {0};
    LoadReport report;
    bool speaks = dist_rank() == 0;
    *what = NULL;
    Status st = ws_open(&ws, path, speaks ? status_warn : NULL, NULL);
    if (st == OK) st = origin_read(&g, ws);
    if (st == OK) st = r ? check_run(r, &g) : start_words(&g, tok, o, "", path, "trained");
    /* the average, where there is one: it is what a run was judged by */
    if (st == OK) st = load_weights(p, ws, true, &report);
    if (st == OK) *what = load_describe(&report);
    if (*what && speaks && *ws_prefix(ws)) status_say("%s: '%s' comes off its names", path, ws_prefix(ws));
    origin_free(&g);
    ws_close(ws);
    return st;
}

/* ---- out --------------------------------------------------------------------------------------------------------- */

/* What torch.load would not read should not be called as if. */
Status start_claim(const Options *o) {
    static const char *const torch[] = {".pth", ".pt", ".bin", ".ckpt", NULL};
    if (path_ends_in(o->run.out, torch))
        return err_set(ERR_USAGE, "out=%s: what is written is safetensors, no file of torch.save; let it end in "
                       ".safetensors, which safetensors.torch.load_file reads", o->run.out);
    return outfile_claim(o->run.out, o->run.overwrite);
}
