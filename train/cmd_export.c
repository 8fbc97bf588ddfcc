/* cmd_export: the command export: weights as other programs read them: LAVIS's one file, transformers' folder (alone,
 * with its language model, with the encoder as a tower), or a language model that learned here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/act_names.h"
#include "checkpoints/export_whole.h"
#include "checkpoints/lm_config.h"
#include "checkpoints/lm_write.h"
#include "checkpoints/params_io.h"
#include "checkpoints/vision_hf.h"
#include "configs/commands.h"
#include "data/format/outfile.h"
#include "eval/use.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "train/recipe.h"
#include "train/run.h"

typedef struct {
    const Options *o;
    Origin g;
    HfDims h;
    StTensor *t;                        /* (n) all that was found in `in` */
    size_t n;
    Vision e;                           /* the encoder whose features the model was trained on, */
    HfTower made, *tower;               /* as a tower; NULL: none was given */
} Export;

static bool is_hf(const Options *o) { return strcmp(o->export.form.name, "hf") == 0; }

/* ---- out --------------------------------------------------------------------------------------------------------- */

static Status claim_export(const Options *o) {
    bool hf = is_hf(o);
    static const char *const files[] = {"model.safetensors", "config.json", "preprocessor_config.json",
                                        "latest", "state.json"};
    Status st = hf ? outfile_folder(o->run.out, NULL) : start_claim(o);
    for (int i = 0; st == OK && hf && i < 5; i++) { /* the last two are what only a run has */
        char *path = mem_format("%s/%s", o->run.out, files[i]);
        if (!path) st = ERR_MEMORY;
        else if (i > 2 && !access(path, F_OK))
            st = err_set(ERR_USAGE, "out=%s is the folder of a run, whose weights are not to be written over; "
                         "name another out", o->run.out);
        else if (i < 3) st = outfile_claim(path, o->run.overwrite);
        free(path);
    }
    return st;
}

/* ---- the tower --------------------------------------------------------------------------------------------------- */

/* Which rows the model was trained on; what a set says of it. Readers of BLIP-2 take all rows of the last block that is
 * there: how many are written follows from it. */
static Status tap_of(const Vision *e, const Origin *g, VitTap *tap) {
    *tap = e->custom.tap;
    if (!g->features.name || !*g->features.tap) return OK;
    for (int t = VIT_SECOND_LAST; t <= VIT_NORMED; t++)
        if (strcmp(g->features.tap, vision_tap_text(e, (VitTap)t)) == 0) {
            *tap = (VitTap)t;
            return OK;
        }
    return err_set(ERR_USAGE, "%s was trained on the rows \"%s\" of its encoder; BLIP-2 elsewhere takes all rows of a "
                   "block", g->name, g->features.tap);
}

static Status same_weights(const Vision *e, const Origin *g) {
    char sha[65];
    const char *want = g->features.name && g->features.weights_sha256 ? g->features.weights_sha256 : "";
    Status st = *want ? vision_sha256(e, sha) : OK;
    if (st == OK && *want && strcmp(sha, want))
        /* said, not refused: one encoder may come in several files */
        status_say("warning: %s was trained on features of %s, of other weights (sha256 %.12s... and not %.12s...)",
                   g->name, g->features.name, want, sha);
    return st;
}

static Status open_tower(Export *x) {
    const Options *o = x->o;
    int size = (int)o->extract.size;
    VitTap tap;
    if (!options_is_set(o, "extract.encoder")) return OK;
    Status st = vision_open(&x->e, o->extract.encoder, (int)o->extract.heads);
    if (st == OK) st = tap_of(&x->e, &x->g, &tap);
    if (st == OK) st = same_weights(&x->e, &x->g);
    if (st == OK && x->e.d.E != x->h.E)
        st = err_set(ERR_USAGE, "%s has a width of %d, the features that %s was trained on have %lld", x->e.path,
                     x->e.d.E, x->g.name, (long long)x->h.E);
    if (st != OK) return st;
    x->tower = &x->made;
    if (size) preprocess_set_size(&x->e.custom.pre, size);
    return is_hf(o) ? vision_hf(x->tower, &x->h, &x->e, size, tap)
                    : vision_tower(x->tower, &x->e, VISION_TOWER_LAVIS, size, tap);
}

/* ---- the forms --------------------------------------------------------------------------------------------------- */

/* The words beside the weights, when they are known: foreign weights do not say. */
static Status write_words(const Export *x, const char *folder) {
    const char *vocab = x->o->model.vocab;
    Tokenizer *tok = NULL;
    char *path = NULL;
    bool asked = *vocab || x->tower;                         /* with a tower the folder is to be whole */
    if (!x->h.V || (!asked && !x->g.vocab)) return OK;
    Status st = origin_vocab(&x->g, vocab, &tok, &path);
    bool known = st == OK;
    if (!known && !asked) st = OK, err_clear();
    if (known) st = origin_keep_vocab(folder, path, tok, x->o->run.overwrite);
    if (known && st == OK) st = vision_hf_tokenizer(folder, x->h.V);
    tokenizer_close(tok);
    free(path);
    return st;
}

static void say_written(const Export *x, size_t n, bool all) {
    status_say("%s: %zu tensors%s", x->o->run.out, n,
               all ? "" : " (the LM head and the temperature have no place there)");
}

/* The Q-Former's tensors, and with an encoder its own, the recipe of its pixels and the vocabulary: all that
 * transformers wants. */
static Status write_hf(const Export *x) {
    const char *out = x->o->run.out;
    size_t left = 0;
    Status st = outfile_mkdir(out);
    /* first: they can be the wrong ones, and gigabytes follow */
    if (st == OK) st = write_words(x, out);
    if (st == OK) st = hf_export(out, &x->h, x->t, x->n, x->tower, &left);
    if (st == OK && x->tower) st = vision_hf_files(out, &x->e.custom.pre);
    if (st == OK) say_written(x, x->n - left, !left);
    return st;
}

/* Of stage 2: as the user says, else as it was trained. */
static const char *lm_folder(const Export *x) {
    return *x->o->stage2.lm || !x->g.trained ? x->o->stage2.lm : x->g.trained->stage2.lm;
}

/* LAVIS's models call the projection by the family it speaks to. */
static Status projection_name(const char **name, const Export *x) {
    static const char *const names[] = {[LM_OPT] = "opt_proj", [LM_T5] = "t5_proj", [LM_LLAMA] = "llm_proj"};
    const char *folder = lm_folder(x);
    LmDims d;
    Status st = lm_config_read(&d, *folder ? folder : x->o->run.in);
    if (st == OK) *name = names[d.family];
    else err_context(st, "stage2.lm says what the projection is called (opt_proj, t5_proj, llm_proj)");
    return st;
}

/* One file of both; without an encoder as LAVIS writes a model whose encoder is frozen. */
static Status write_lavis(const Export *x, bool speaks) {
    const char *speak = NULL;
    size_t n = 0;
    Status st = speaks ? projection_name(&speak, x) : OK;
    if (st == OK) st = lavis_export(x->o->run.out, x->t, x->n, x->tower, speak, &n);
    if (st == OK) say_written(x, n, true);
    return st;
}

/* Where transformers looks for the words of InstructBLIP's Q-Former. */
static Status write_qformer_words(const Export *x) {
    char *folder = mem_format("%s/qformer_tokenizer", x->o->run.out);
    Status st = folder ? outfile_mkdir(folder) : ERR_MEMORY;
    if (st == OK) st = write_words(x, folder);
    free(folder);
    return st;
}

/* A stage-2 model with its language model, and the tower when an encoder is given. */
static Status write_whole(const Export *x) {
    const char *out = x->o->run.out, *folder = lm_folder(x);
    Speaker s = {0};
    SpeakerSpec spec = {.instruct = x->h.V > 0, .max_prompt = 1, .max_target = 1};
    size_t count = 0;
    if (!*folder) return options_require(x->o, "stage2.lm");
    Status st = speaker_open(&s, backend_null(DT_F32), folder, &spec);
    HfWhole w = {.lm = folder, .image_token = -1, .decoder_only = s.src.d.family != LM_T5,
                 .act = s.src.d.family == LM_T5 && s.src.d.act == ACT_GELU ? "gelu" : NULL};
    /* rows of the embedding that no word has, as makers round their number up: one of them can stand for the picture */
    if (st == OK && tokenizer_size(s.tok) < s.src.d.V) w.image_token = tokenizer_size(s.tok);
    if (st == OK) st = hf_export_whole(out, &x->h, &w, x->t, x->n, x->tower, &count);
    if (st == OK && x->tower) st = vision_hf_pixels(out, &x->e.custom.pre);
    if (st == OK && x->h.V) st = write_qformer_words(x);
    if (st == OK)
        status_say("%s: %zu tensors: a whole %s%s", out, count,
                   x->h.V ? "InstructBlipForConditionalGeneration" : "Blip2ForConditionalGeneration", x->tower ? ""
                   : " but for the vision tower (encoder= names the folder that the features are from)");
    speaker_close(&s);
    return st;
}

static const char *dry(const Options *o) { return o->run.dry_run ? " (dry run, nothing was written)" : ""; }

/* A run of objective=lm as a folder that stage2.lm= takes. */
static Status export_lm(const Export *x) {
    const Options *o = x->o;
    LmDims d;
    Tokenizer *tok = NULL;
    char *vocab = NULL;
    Status st = origin_vocab(&x->g, o->model.vocab, &tok, &vocab);
    if (st == OK) st = recipe_lm(&d, x->g.trained, tok);
    if (st == OK && !o->run.dry_run) st = lm_write(o->run.out, &d, x->t, x->n, tok, vocab, o->run.overwrite);
    if (st == OK) status_say("%s: %zu tensors: a LlamaForCausalLM of %d words%s", o->run.out, x->n, d.V, dry(o));
    tokenizer_close(tok);
    free(vocab);
    return st;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static Status export_qformer_of(Export *x, const WeightSource *ws) {
    const Options *o = x->o;
    Dims d;
    int32_t heads = 0;
    Status st = dims_of_weights(&d, ws);
    if (st == OK) st = use_heads(&x->g, o, d.C, &heads); /* no tensor's shape says how many there are */
    if (st != OK) return st;
    origin_habits(&x->g, o, &d);
    if (o->run.dry_run) {
        st = options_print(o, stdout);
        status_say("%s: %zu tensors of %s%s", o->run.out, x->n, ws_path(ws), dry(o));
        return st;
    }
    x->h = (HfDims){.Q = d.Q, .C = d.C, .H = heads, .F = d.F, .L = d.L, .X = d.X, .E = d.E, .Z = d.Z, .V = d.V,
                    .N = d.N,
                    .dropout = 0.1, .eps = dims_eps(&d), .act = act_name((ActKind)d.act)};
    hf_vision_defaults(&x->h);
    x->h.vision_eps = dims_eps_vision(&d);
    st = outfile_parents(o->run.out);
    if (st == OK) st = open_tower(x);
    if (st != OK) return st;
    return !is_hf(o) ? write_lavis(x, d.W > 0) : d.W ? write_whole(x) : write_hf(x);
}

static Status list_tensors(Export *x, const WeightSource *ws) {
    x->n = ws_count(ws);
    if (!(x->t = mem_new(x->n, sizeof *x->t))) return ERR_MEMORY;
    for (size_t i = 0; i < x->n; i++) x->t[i] = *ws_at(ws, i);
    return OK;
}

Status cmd_export(const Options *o) {
    Export x = {.o = o};
    WeightSource *ws = NULL;
    Status st = options_require(o, "in");
    if (st == OK) st = options_require(o, "out");
    if (st == OK) st = claim_export(o);                      /* before gigabytes are read */
    if (st == OK) st = ws_open(&ws, o->run.in, status_warn, NULL);
    if (st == OK) st = origin_read(&x.g, ws);
    if (st == OK) st = list_tensors(&x, ws);
    bool lm = x.g.trained && recipe_learns(x.g.trained) == LEARNS_LM;
    if (st == OK) st = lm ? export_lm(&x) : export_qformer_of(&x, ws);
    vision_tower_free(&x.made);
    vision_close(&x.e);
    free(x.t);
    origin_free(&x.g);
    ws_close(ws);
    return st;
}
