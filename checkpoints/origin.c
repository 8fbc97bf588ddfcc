/* origin: see origin.h. */
#include "checkpoints/origin.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/lm_config.h"
#include "data/format/mapfile.h"
#include "data/format/outfile.h"
#include "data/format/path.h"
#include "kernels/base/mem.h"

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static char *text_of(const Json *o, const char *key) {
    const char *s = json_str(json_get(o, key), NULL);
    return s ? mem_strdup(s) : NULL;
}

static uint64_t hash_of(const Json *o, const char *key) {
    const char *s = json_str(json_get(o, key), NULL);
    return s ? strtoull(s, NULL, 16) : 0;
}

static void int_of(const Json *o, const char *key, int64_t *v) {
    int64_t n;
    /* 0 and what is absent mean the same: unknown */
    if (json_int(json_get(o, key), &n) && n > 0) *v = n;
}

/* The vocabulary of a folder; NULL: it has none. BERT's folders have both: the plain list is what a Q-Former reads. In
 * InstructBLIP's it has a folder of its own, beside the language model's tokenizer. */
static const char *const vocab_names[] = {"vocab.txt", "tokenizer.json"};
static char *vocab_in(const char *folder) {
    char *own = mem_format("%s/qformer_tokenizer", folder), *found = NULL;
    if (own && access(own, F_OK) == 0) found = vocab_in(own);
    free(own);
    if (found) return found;
    for (size_t i = 0; i < sizeof vocab_names / sizeof *vocab_names; i++) {
        char *path = mem_format("%s/%s", folder, vocab_names[i]);
        if (path && access(path, R_OK) == 0) return path;
        free(path);
    }
    return NULL;
}

static const char *owned(const Json *o, const char *key) {
    char *s = text_of(o, key);
    return s ? s : mem_strdup("");
}

static void read_features(Origin *g, const Json *run) {
    const Json *f = json_get(run, "features");
    bool ln = false;
    if (!f) {                                                /* a run of before: the name alone */
        if (json_get(run, "encoder")) g->features.name = text_of(run, "encoder");
        return;
    }
    json_bool(json_get(f, "ln_applied"), &ln);
    g->features = (EncoderInfo){owned(f, "name"), owned(f, "weights_sha256"), owned(f, "tap"),
                                owned(f, "preprocessing"), ln};
    int_of(f, "tokens", &g->P);
}

static void take_habits(Dims *d, const Options *o) {
    d->eps = (float)o->model.eps, d->eps_vision = (float)o->model.eps_vision;
    d->act = o->model.act.i;                                 /* ORDER model.act: an ActKind */
}

void origin_habits(const Origin *g, const Options *o, Dims *d) {
    Dims asked;
    take_habits(&asked, o);
    d->eps = options_is_set(o, "model.eps") ? asked.eps : g->habits.eps;
    d->eps_vision = options_is_set(o, "model.eps_vision") ? asked.eps_vision : g->habits.eps_vision;
    d->act = options_is_set(o, "model.act") ? asked.act : g->habits.act;
}

Status origin_of_checkpoint(Origin *g, const Ckpt *c) {
    *g = (Origin){0};
    const Json *run = ckpt_run(c), *data = json_get(run, "data");
    size_t n = 0;
    const char *text = json_str(json_get(run, "config"), &n);
    Status st = text ? options_parse_text(&g->trained, "pretrain", text, n, "its configuration") : OK;
    if (st != OK) return err_context(ERR_FORMAT, "%s/state.json", ckpt_dir(c));
    g->name = path_folder(ckpt_dir(c));
    if (!g->name) return ERR_MEMORY;
    int_of(run, "heads", &g->heads);
    /* runs before `heads` was written */
    if (!g->heads && g->trained) g->heads = g->trained->model.heads;
    if (g->trained) take_habits(&g->habits, g->trained);
    g->vocab = vocab_in(g->name);
    /* the copy in the run's folder first: what the path names may have changed */
    if (!g->vocab) g->vocab = text_of(run, "vocab");
    g->vocab_hash = hash_of(run, "vocab_hash");
    read_features(g, run);
    g->data = text_of(data, "train");
    g->data_hash = hash_of(data, "fingerprint");
    int_of(data, "images", &g->images);
    int_of(data, "captions", &g->captions);
    int_of(data, "short_text", &g->short_text);
    return OK;
}

/* config.json of a Q-Former (inside BLIP-2's or alone) or a BERT. ERR_FORMAT: it computes in a way that is not known
 * here, and the weights would be another function. */
static Status read_published(Origin *g, const char *folder) {
    char *path = mem_format("%s/config.json", folder);
    Json *doc = NULL;
    Status st = OK;
    if (path && access(path, R_OK) == 0 && json_parse_file(&doc, path) == OK) {
        const Json *q = json_get(doc, "qformer_config");
        int_of(q ? q : doc, "num_attention_heads", &g->heads);
        if (q) st = lm_config_habits(&g->habits, doc, path);
    } else {
        err_clear();
    }
    json_free(doc);
    free(path);
    return st;
}

/* A vocabulary beside published weights is theirs: its words are what their rows stand for. */
static Status read_beside(Origin *g, const char *folder) {
    Tokenizer *tok = NULL;
    Status st = read_published(g, folder);
    if (st != OK || !(g->vocab = vocab_in(folder))) return st;
    if (tokenizer_open(&tok, g->vocab) == OK) g->vocab_hash = tokenizer_hash(tok);
    else {                                                   /* of a kind that is not known here: it says nothing */
        free(g->vocab);
        g->vocab = NULL;
        err_clear();
    }
    tokenizer_close(tok);
    return OK;
}

static bool has_tower(const WeightSource *ws) {
    return ws_find(ws, "vision_model.embeddings.patch_embedding.weight") != NULL;
}

/* LAVIS's is one file: of models whose encoder was trained too, or as export wrote it. */
static bool has_lavis_tower(const WeightSource *ws) {
    return ws_find(ws, "visual_encoder.patch_embed.proj.weight") || ws_find(ws, "visual_encoder.conv1.weight");
}

Status origin_read(Origin *g, const WeightSource *ws) {
    if (ws_checkpoint(ws)) return origin_of_checkpoint(g, ws_checkpoint(ws));
    char *folder = path_folder(ws_path(ws));
    Ckpt *c = NULL;
    if (folder && ckpt_open(&c, folder, false) == OK) {      /* model.safetensors of a step, named by itself */
        Status st = origin_of_checkpoint(g, c);
        ckpt_close(c);
        free(folder);
        return st;
    }
    err_clear();
    *g = (Origin){.name = mem_strdup(ws_path(ws))};
    Status st = g->name && folder ? OK : ERR_MEMORY;
    bool whole = folder && ws_in_folder(ws);                 /* a lone file says nothing about what lies beside it */
    g->tower = (whole && has_tower(ws)) || has_lavis_tower(ws);
    if (st == OK && whole) st = read_beside(g, folder);
    free(folder);
    return st;
}

static void drop(const char *s) { free((char *)(uintptr_t)s); }

void origin_free(Origin *g) {
    free(g->name);
    options_free(g->trained);
    mem_free(g->vocab, g->data);
    drop(g->features.name);
    drop(g->features.weights_sha256);
    drop(g->features.tap);
    drop(g->features.preprocessing);
    *g = (Origin){0};
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

Status origin_vocab(const Origin *g, const char *asked, Tokenizer **tok, char **path) {
    const char *use = asked[0] ? asked : g->vocab ? g->vocab : "";
    *tok = NULL;
    *path = mem_strdup(use);
    if (!*path) return ERR_MEMORY;
    /* rows without their words are numbers: nothing can be guessed */
    if (!use[0])
        return err_set(ERR_USAGE, "%s does not say which vocabulary it was trained with; write model.vocab=vocab.txt",
                       g->name);
    Status st = tokenizer_open(tok, use);
    if (st != OK || !g->vocab_hash || tokenizer_hash(*tok) == g->vocab_hash) return st;
    if (g->vocab && strcmp(use, g->vocab) != 0)
        return err_set(ERR_USAGE, "%s is another vocabulary (%d word pieces) than that of %s, which is %s: leave "
                       "model.vocab out, or name that one", use, tokenizer_size(*tok), g->name, g->vocab);
    return err_set(ERR_USAGE, "%s is not the vocabulary (any more) that %s was trained with: its rows stand for other "
                   "words", use, g->name);
}

Status origin_features(const Origin *g, const Set *set, const char **other) {
    const EncoderInfo *is = set_encoder(set), *was = &g->features;
    *other = NULL;
    if (!was->name) return OK;
    EncoderInfo want = *is;                                  /* older runs know the name alone */
    want.name = was->name;
    if (was->tap)
        want.weights_sha256 = was->weights_sha256, want.tap = was->tap, want.ln_applied = was->ln_applied;
    const char *field = shard_encoder_difference(&want, is);
    if (field)
        return err_set(ERR_USAGE, "%s has features of \"%s\" (%s), %s was trained on those of \"%s\" (%s): another "
                       "encoder (%s)", set_path(set), is->name, is->tap, g->name, was->name, was->tap ? was->tap : "",
                       field);
    if (was->preprocessing && strcmp(was->preprocessing, is->preprocessing) != 0) *other = was->preprocessing;
    return OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void put_hash(JsonWriter *w, const char *key, uint64_t h) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, h);
    jw_str(w, key, text);
}

Status origin_write(const OriginSpec *s, JsonWriter *w) {
    const EncoderInfo *e = set_encoder(s->train);
    char *config = NULL;
    Status st = options_text(s->o, &config);
    if (st != OK) return st;
    jw_int(w, "heads", s->heads);
    jw_str(w, "vocab", s->o->model.vocab);
    if (s->tok) put_hash(w, "vocab_hash", tokenizer_hash(s->tok));
    jw_object(w, "features");
    jw_str(w, "name", e->name);
    jw_str(w, "weights_sha256", e->weights_sha256);
    jw_str(w, "tap", e->tap);
    jw_str(w, "preprocessing", e->preprocessing);
    jw_bool(w, "ln_applied", e->ln_applied);
    jw_int(w, "tokens", set_P(s->train));
    jw_int(w, "width", set_E(s->train));
    jw_end(w);
    jw_object(w, "data");
    jw_str(w, "train", s->o->data.train);
    put_hash(w, "fingerprint", set_fingerprint(s->train));
    jw_int(w, "images", set_images(s->train));
    jw_int(w, "captions", set_captions(s->train));
    jw_int(w, "short_text", s->short_text);
    jw_end(w);
    jw_str(w, "config", config);
    free(config);
    return OK;
}

static Status same_file(const char *a, const char *b, bool *same) {
    MapFile x = {0}, y = {0};
    Status st = mapfile_open(&x, a);
    if (st == OK) st = mapfile_open(&y, b);
    *same = st == OK && x.n == y.n && memcmp(x.bytes, y.bytes, x.n) == 0;
    mapfile_close(&x);
    mapfile_close(&y);
    return st;
}

/* What else stood beside it may have counted: a copy that is not the same vocabulary by itself does not stay. */
static void check_copy(const char *path, uint64_t hash) {
    Tokenizer *tok = NULL;
    if (tokenizer_open(&tok, path) != OK || tokenizer_hash(tok) != hash) unlink(path);
    tokenizer_close(tok);
    err_clear();
}

Status origin_keep_vocab(const char *run, const char *vocab, const Tokenizer *tok, bool overwrite) {
    struct stat sb;
    bool folder = stat(vocab, &sb) == 0 && S_ISDIR(sb.st_mode), same = false;
    char *from = folder ? vocab_in(vocab) : mem_strdup(vocab);
    if (!from) return OK;                                    /* of another kind: it stays where it is */
    char *path = mem_format("%s/%s", run, vocab_names[path_ends(from, ".json")]);
    Status st = path ? OK : ERR_MEMORY;
    if (st == OK && access(path, F_OK) == 0) st = same_file(from, path, &same);
    if (st == OK && !same) st = outfile_claim(path, overwrite);
    if (st == OK && !same) st = outfile_copy(from, path);
    if (st == OK && !same) check_copy(path, tokenizer_hash(tok));
    mem_free(path, from);
    return st;
}
