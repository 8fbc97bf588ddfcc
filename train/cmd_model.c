/* cmd_model: the commands init (start weights into a file),
 * inspect (a checkpoint or a data set in a page of text) and export. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/act_names.h"
#include "checkpoints/export.h"
#include "checkpoints/export_whole.h"
#include "checkpoints/lm_config.h"
#include "checkpoints/lm_write.h"
#include "checkpoints/params_io.h"
#include "checkpoints/vision_hf.h"
#include "configs/commands.h"
#include "data/format/outfile.h"
#include "data/manifest.h"
#include "data/set.h"
#include "data/text/settext.h"
#include "eval/setup.h"
#include "eval/use.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "train/recipe.h"
#include "train/run.h"

static void warn(void *ctx, const char *sentence) {
    (void)ctx;
    status_say("warning: %s", sentence);
}

static const char *dry(const Options *o) { return o->run.dry_run ? " (dry run, nothing was written)" : ""; }

/* ---- init -------------------------------------------------------------------------------------------------------- */

static Status fill(QFormer *m, const Options *o, const Tokenizer *tok) {
    Params *p = &m->params;
    Status st = params_init(p, (uint64_t)o->run.seed, recipe_init_std(o, &m->d));
    const char *from = o->run.in;
    if (st != OK || !*from) return st;
    WeightSource *ws = NULL;
    Origin g = {0};
    LoadReport report;
    st = ws_open(&ws, from, warn, NULL);
    if (st == OK) st = origin_read(&g, ws);
    if (st == OK && g.vocab_hash && g.vocab_hash != tokenizer_hash(tok))
        st = err_set(ERR_USAGE, "%s was trained with another vocabulary (%s) than model.vocab=%s: its rows stand for "
                     "other words", from, g.vocab, o->model.vocab);
    if (st == OK) st = load_weights(p, ws, true, &report);
    char *what = st == OK ? load_describe(&report) : NULL;
    if (what && *ws_prefix(ws)) status_say("%s: '%s' comes off its names", from, ws_prefix(ws));
    if (what) status_say("%s: %s", from, what);
    free(what);
    origin_free(&g);
    ws_close(ws);
    return st;
}

static Status make_weights(const Options *o) {
    const Backend *b = backend_cpu(DT_F32);
    Tokenizer *tok = NULL;
    QFormer m = {0};
    Arena mem = {0};
    Dims d;
    int64_t P = o->model.image_tokens, E = o->model.image_width;
    Status st = options_require(o, "model.vocab");
    if (st == OK && !E)
        st = err_set(ERR_USAGE, "init needs model.image_width: 1408 for ViT-g, 1024 for ViT-L, or that of your "
                     "features");
    if (st == OK) st = tokenizer_open(&tok, o->model.vocab);
    if (st == OK) st = setup_dims(&d, o, tok, P ? P : 257, E);
    if (st == OK) st = qformer_open_alone(&m, &mem, &d, b, &(ParamsSpec){0});
    if (st == OK) st = fill(&m, o, tok);
    if (st == OK && !o->run.dry_run) st = outfile_parents(o->run.out);
    if (st == OK && !o->run.dry_run) st = save_weights(&m.params, m.params.w, o->run.out);
    if (st == OK && o->run.dry_run) st = options_print(o, stdout);
    if (st == OK)
        status_say("%s: %.1f M parameters in %d tensors%s", o->run.out, (double)m.params.count / 1e6, m.params.n,
                   dry(o));
    qformer_close(&m);
    arena_close(&mem, b);
    tokenizer_close(tok);
    return st;
}

/* What torch.load would not read should not be called as if. */
static Status claim_weights(const Options *o) {
    static const char *const torch[] = {".pth", ".pt", ".bin", ".ckpt"};
    const char *dot = strrchr(o->run.out, '.');
    for (size_t i = 0; dot && i < sizeof torch / sizeof *torch; i++)
        if (!strcmp(dot, torch[i]))
            return err_set(ERR_USAGE, "out=%s: what is written is safetensors, no file of torch.save; let it end in .safetensors, "
                           "which safetensors.torch.load_file reads", o->run.out);
    return outfile_claim(o->run.out, o->run.overwrite);
}

Status cmd_init(const Options *asked) {
    Options *o = NULL;
    Status st = options_require(asked, "out");
    if (st == OK) st = claim_weights(asked);
    if (st == OK) st = options_copy(&o, asked);
    if (st == OK && *asked->run.in) st = start_sizes(o, asked->run.in);
    if (st == OK) st = make_weights(o);
    options_free(o);
    return st;
}

/* ---- inspect ----------------------------------------------------------------------------------------------------- */

typedef struct { double mean, rms, most; int64_t bad; } Stats;

static Stats stats_of(const StTensor *t) {
    enum { PIECE = 4096 };
    float x[PIECE];
    Stats s = {0};
    int64_t n = st_elements(t);
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t m = n - at < PIECE ? n - at : PIECE;
        dtype_to_f32(x, (const char *)t->data + (size_t)at * (size_t)dtype_size(t->dtype), t->dtype, (size_t)m);
        for (int64_t i = 0; i < m; i++) {
            if (!isfinite(x[i])) {
                s.bad++;
                continue;
            }
            s.mean += x[i];
            s.rms += (double)x[i] * x[i];
            s.most = fmax(s.most, fabs(x[i]));
        }
    }
    s.mean /= n ? (double)n : 1;
    s.rms = sqrt(s.rms / (n ? (double)n : 1));
    return s;
}

static void inspect_run(const Ckpt *c) {
    const Json *run = ckpt_run(c);
    int64_t v;
    double best;
    printf("step      %lld", (long long)ckpt_step(c));
    if (json_int(json_get(run, "updates"), &v)) printf(" (%lld updates", (long long)v);
    if (json_int(json_get(run, "skipped"), &v)) printf(", %lld skipped)", (long long)v);
    if (json_num(json_get(run, "best"), &best) && best >= 0 && json_int(json_get(run, "best_step"), &v))
        printf("; best recall %.1f at step %lld", best, (long long)v);
    puts("");
    Origin g;
    if (origin_of_checkpoint(&g, c) == OK) {
        printf("trained   on %s", g.data ? g.data : "?");
        if (g.captions) printf(" (%lld captions of %lld images)", (long long)g.captions, (long long)g.images);
        printf(", features of %s; vocabulary %s; %lld heads\n", g.features.name ? g.features.name : "?",
               g.vocab ? g.vocab : "?", (long long)g.heads);
    }
    err_clear();
    origin_free(&g);
}

static Status inspect_weights(const Options *o, const char *path) {
    WeightSource *ws = NULL;
    Dims d;
    int64_t numbers = 0, bad = 0;
    Status st = ws_open(&ws, path, warn, NULL);
    if (st != OK) return st;
    for (size_t i = 0; i < ws_count(ws); i++) numbers += st_elements(ws_at(ws, i));
    printf("weights   %s: %zu tensors, %.2f M numbers\n", ws_path(ws), ws_count(ws), (double)numbers / 1e6);
    if (ws_checkpoint(ws)) inspect_run(ws_checkpoint(ws));
    if (dims_of_weights(&d, ws) == OK)
        printf("model     L %d, C %d, F %d, Q %d, E %d, Z %d, V %d, positions %d, cross-attention in every %d. layer\n",
               d.L, d.C, d.F, d.Q, d.E, d.Z, d.V, d.N, d.X);
    else {
        printf("model     %s\n", err_message());
        err_clear();
    }
    printf("\n%-76s %-5s %-18s %10s %10s %10s\n", "tensor", "type", "shape", "mean", "rms", "largest");
    for (size_t i = 0; i < ws_count(ws); i++) {
        const StTensor *t = ws_at(ws, i);
        char shape[ST_SHAPE_TEXT];
        if (t->dtype == DT_BOOL) continue;
        Stats s = stats_of(t);
        bad += s.bad;
        if (!o->run.verbose && i >= 40 && !s.bad) continue;
        printf("%-76s %-5s %-18s %10.3g %10.3g %10.3g%s\n", t->name, dtype_name(t->dtype),
               st_shape_text(t, shape, sizeof shape), s.mean, s.rms, s.most, s.bad ? "  NOT FINITE" : "");
    }
    if (!o->run.verbose && ws_count(ws) > 40) printf("... %zu tensors in all; -v shows each\n", ws_count(ws));
    printf("\n%s\n", bad ? "some numbers are NOT FINITE: this file cannot be used" : "all numbers are finite");
    ws_close(ws);
    return OK;
}

/* Distinct split names with their images and captions, in order of appearance. */
static void inspect_splits(const Set *s) {
    enum { MOST = 32 };
    const char *names[MOST];
    int64_t images[MOST] = {0}, captions[MOST] = {0};
    int n = 0;
    for (int64_t i = 0; i < set_images(s); i++) {
        if (!set_has(s, i)) continue;
        int k = 0;
        while (k < n && strcmp(names[k], set_split(s, i))) k++;
        if (k == MOST) continue;
        if (k == n) names[n++] = set_split(s, i);
        images[k]++;
        captions[k] += set_ncaptions(s, i);
    }
    for (int k = 0; k < n; k++)
        printf("split     %-10s %8lld images %9lld captions\n", names[k], (long long)images[k], (long long)captions[k]);
}

static Status inspect_set(const char *path) {
    Set *s = NULL;
    Status st = set_open(&s, path);
    if (st != OK) return st;
    const EncoderInfo *e = set_encoder(s);
    printf("set       %s: %lld images, %lld captions, %lld shard%s, %lld view%s\n", path, (long long)set_images(s),
           (long long)set_captions(s),
           (long long)set_shards(s), set_shards(s) > 1 ? "s" : "", (long long)set_views(s), set_views(s) > 1 ? "s"
               : "");
    printf("features  %lld tokens of %lld, %s%s: %zu bytes a row\n", (long long)set_P(s), (long long)set_E(s),
           dtype_name(set_dtype(s)), set_scaled(s) ? " with a scale" : "", set_row_bytes(s));
    printf("encoder   %s; %s; %s; ln_vision %s; weights %s\n", e->name, e->tap, e->preprocessing, e->ln_applied
           ? "applied" : "not applied", *e->weights_sha256 ? e->weights_sha256 : "none");
    inspect_splits(s);
    for (int64_t i = 0, shown = 0; i < set_images(s) && shown < 5; i++) {
        if (!set_has(s, i) || !set_ncaptions(s, i)) continue;
        size_t n;
        const char *c = set_caption(s, i, 0, &n);
        char *plain = NULL;
        if (settext_plain(&plain, &n, c, n) == OK)
            printf("for example  %s: %.*s\n", set_image_id(s, i), (int)(n > 200 ? 200 : n), plain);
        free(plain);
        shown++;
    }
    for (int64_t i = 0; set_warning(s, i); i++) printf("note      %s\n", set_warning(s, i));
    set_close(s);
    return OK;
}

static bool ends_with(const char *path, const char *end) {
    size_t n = strlen(path), e = strlen(end);
    return n >= e && strcmp(path + n - e, end) == 0;
}

/* A folder of shards, with its manifest or without; a run's folder may hold shards too, and is a run all the same. */
static bool is_folder_of_shards(const char *path) {
    char **names = NULL, *manifest = mem_format("%s/manifest.json", path);
    int64_t n = 0;
    WeightSource *ws = NULL;
    bool yes = manifest && access(manifest, F_OK) == 0;
    if (!yes && manifest_scan(path, &names, &n) == OK && n > 0) yes = ws_open(&ws, path, NULL, NULL) != OK;
    err_clear();
    for (int64_t i = 0; i < n; i++) free(names[i]);
    free(names);
    free(manifest);
    ws_close(ws);
    return yes;
}

static bool is_set(const char *path) {
    struct stat sb;
    bool there = stat(path, &sb) == 0;
    if (there && S_ISDIR(sb.st_mode)) return is_folder_of_shards(path);
    return ends_with(path, ".h5") || ends_with(path, ".hdf5") || ends_with(path, ".h5.part") ||
           ends_with(path, ".json") || (!there && strchr(path, ','));
}

Status cmd_inspect(const Options *o) {
    Status st = options_require(o, "in");
    if (st != OK) return st;
    return is_set(o->run.in) ? inspect_set(o->run.in) : inspect_weights(o, o->run.in);
}

/* ---- export ------------------------------------------------------------------------------------------------------ */

static Status claim_export(const Options *o, bool hf) {
    static const char *const files[] = {"model.safetensors", "config.json", "preprocessor_config.json",
                                        "latest", "state.json"};
    Status st = hf ? outfile_folder(o->run.out, NULL) : claim_weights(o);
    for (int i = 0; st == OK && hf && i < 5; i++) {
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
        status_say("warning: %s was trained on features of %s, of other weights (sha256 %.12s... and not %.12s...)",
                   g->name, g->features.name, want, sha);
    return st;
}

/* The encoder whose features the model was trained on, as a tower. */
static Status open_tower(const Options *o, const Origin *g, HfDims *h, Vision *e, HfTower *tower) {
    int size = (int)o->extract.size;
    VitTap tap;
    Status st = vision_open(e, o->extract.encoder, (int)o->extract.heads);
    if (st == OK) st = tap_of(e, g, &tap);
    if (st == OK) st = same_weights(e, g);
    if (st == OK && e->d.E != h->E)
        st = err_set(ERR_USAGE, "%s has a width of %d, the features that %s was trained on have %lld", e->path, e->d.E,
                     g->name, (long long)h->E);
    if (st == OK && strcmp(o->export.form.name, "lavis") == 0)
        return vision_tower(tower, e, VISION_TOWER_LAVIS, size, tap);
    return st == OK ? vision_hf(tower, h, e, size, tap) : st;
}

/* The words beside the weights, when they are known: foreign weights do not say. */
static Status write_words(const Options *o, const Origin *g, const char *folder, int64_t V) {
    Tokenizer *tok = NULL;
    char *vocab = NULL;
    bool asked = o->model.vocab[0], known = false;
    if (!V || (!asked && !g->vocab)) return OK;
    Status st = origin_vocab(g, o->model.vocab, &tok, &vocab);
    known = st == OK;
    if (!known && !asked) st = OK, err_clear();
    if (known) st = origin_keep_vocab(folder, vocab, tok, o->run.overwrite);
    if (known && st == OK) st = vision_hf_tokenizer(folder, V);
    tokenizer_close(tok);
    free(vocab);
    return st;
}

/* The Q-Former's tensors, and with an encoder its own, the recipe of its pixels and the vocabulary: all that
 * transformers wants. */
static Status write_hf(const Options *o, const Origin *g, HfDims *h, const StTensor *t, size_t n, size_t *left) {
    Vision e = {0};
    HfTower tower = {0};
    Tokenizer *tok = NULL;
    char *vocab = NULL;
    Status st = OK;
    if (!options_is_set(o, "extract.encoder")) {
        st = hf_export(o->run.out, h, t, n, NULL, left);
        return st == OK ? write_words(o, g, o->run.out, h->V) : st;
    }
    int size = (int)o->extract.size;
    st = open_tower(o, g, h, &e, &tower);
    if (st == OK) st = origin_vocab(g, o->model.vocab, &tok, &vocab);
    if (st == OK) st = hf_export(o->run.out, h, t, n, &tower, left);
    if (st == OK && size) preprocess_set_size(&e.custom.pre, size);
    if (st == OK) st = vision_hf_files(o->run.out, &e.custom.pre, h->V);
    if (st == OK) st = origin_keep_vocab(o->run.out, vocab, tok, o->run.overwrite);
    tokenizer_close(tok);
    free(vocab);
    vision_tower_free(&tower);
    vision_close(&e);
    return st;
}

/* LAVIS's models call the projection by the family it speaks to. */
static Status projection_name(const char **name, const Options *o, const Origin *g) {
    static const char *const names[] = {[LM_OPT] = "opt_proj", [LM_T5] = "t5_proj", [LM_LLAMA] = "llm_proj"};
    const char *folder = *o->stage2.lm || !g->trained ? o->stage2.lm : g->trained->stage2.lm;
    LmDims d;
    Status st = lm_config_read(&d, *folder ? folder : o->run.in);
    if (st == OK) *name = names[d.family];
    else err_context(st, "stage2.lm says what the projection is called (opt_proj, t5_proj, llm_proj)");
    return st;
}

/* One file of both; without an encoder as LAVIS writes a model whose encoder is frozen. */
static Status write_lavis(const Options *o, const Origin *g, HfDims *h, const StTensor *t, size_t *n, bool speaks) {
    const char *speak = NULL;
    Vision e = {0};
    HfTower tower = {0};
    bool seen = options_is_set(o, "extract.encoder");
    Status st = seen ? open_tower(o, g, h, &e, &tower) : OK;
    if (st == OK && speaks) st = projection_name(&speak, o, g);
    if (st == OK) st = lavis_export(o->run.out, t, *n, seen ? &tower : NULL, speak, n);
    vision_tower_free(&tower);
    vision_close(&e);
    return st;
}

/* Where transformers looks for the words of InstructBLIP's Q-Former. */
static Status write_qformer_words(const Options *o, const Origin *g, int64_t V) {
    char *folder = mem_format("%s/qformer_tokenizer", o->run.out);
    Status st = folder ? outfile_mkdir(folder) : ERR_MEMORY;
    if (st == OK) st = write_words(o, g, folder, V);
    free(folder);
    return st;
}

/* A stage-2 model with its language model, and the tower when an encoder is given. */
static Status export_whole(const Options *o, HfDims *h, const Origin *g, const StTensor *t, size_t n) {
    const Options *old = g->trained;
    const char *folder = *o->stage2.lm || !old ? o->stage2.lm : old->stage2.lm;
    bool seen = options_is_set(o, "extract.encoder");
    Speaker s = {0};
    Vision e = {0};
    HfTower tower = {0};
    SpeakerSpec spec = {.instruct = h->V > 0, .max_prompt = 1, .max_target = 1};
    size_t count = 0;
    if (!*folder) return options_require(o, "stage2.lm");
    Status st = speaker_open(&s, backend_null(DT_F32), folder, &spec);
    HfWhole x = {.lm = folder, .image_token = -1, .decoder_only = s.src.d.family != LM_T5,
                 .act = s.src.d.family == LM_T5 && s.src.d.act == ACT_GELU ? "gelu" : NULL};
    if (st == OK && tokenizer_size(s.tok) < s.src.d.V) x.image_token = tokenizer_size(s.tok);
    if (st == OK && seen) st = open_tower(o, g, h, &e, &tower);
    if (st == OK) st = hf_export_whole(o->run.out, h, &x, t, n, seen ? &tower : NULL, &count);
    if (st == OK && seen) st = vision_hf_pixels(o->run.out, &e.custom.pre);
    if (st == OK && h->V) st = write_qformer_words(o, g, h->V);
    if (st == OK)
        status_say("%s: %zu tensors: a whole %s%s", o->run.out, count,
                   h->V ? "InstructBlipForConditionalGeneration" : "Blip2ForConditionalGeneration",
                   seen ? "" : " but for the vision tower (encoder= names the folder that the features are from)");
    vision_tower_free(&tower);
    vision_close(&e);
    speaker_close(&s);
    return st;
}

/* A run of objective=lm as a folder that stage2.lm= takes. */
static Status export_lm(const Options *o, const WeightSource *ws, const Origin *g) {
    LmDims d;
    Tokenizer *tok = NULL;
    char *vocab = NULL;
    size_t n = ws_count(ws);
    StTensor *t = mem_new(n, sizeof *t);
    for (size_t i = 0; t && i < n; i++) t[i] = *ws_at(ws, i);
    Status st = t ? origin_vocab(g, o->model.vocab, &tok, &vocab) : ERR_MEMORY;
    if (st == OK) st = recipe_lm(&d, g->trained, tok);
    if (st == OK && !o->run.dry_run) st = lm_write(o->run.out, &d, t, n, tok, vocab, o->run.overwrite);
    if (st == OK)
        status_say("%s: %zu tensors: a LlamaForCausalLM of %d words%s", o->run.out, n, d.V, dry(o));
    tokenizer_close(tok);
    free(vocab);
    free(t);
    return st;
}

static bool is_lm(const Origin *g) { return g->trained && recipe_learns(g->trained) == LEARNS_LM; }

static Status write_export(const Options *o, const WeightSource *ws, const Origin *g, const Dims *d, int64_t heads) {
    size_t left = 0, n = ws_count(ws);
    StTensor *t = mem_new(n, sizeof *t);
    if (!t) return ERR_MEMORY;
    for (size_t i = 0; i < n; i++) t[i] = *ws_at(ws, i);
    Status st = outfile_parents(o->run.out);
    if (st == OK) {
        HfDims h = {.Q = d->Q, .C = d->C, .H = heads, .F = d->F, .L = d->L, .X = d->X, .E = d->E, .Z = d->Z, .V = d->V,
                    .N = d->N, .dropout = 0.1, .eps = dims_eps(d), .act = act_name((ActKind)d->act)};
        hf_vision_defaults(&h);
        h.vision_eps = dims_eps_vision(d);
        bool hf = strcmp(o->export.form.name, "hf") == 0;
        if (hf && d->W) {
            st = export_whole(o, &h, g, t, n);
            free(t);
            return st;
        }
        st = hf ? write_hf(o, g, &h, t, n, &left) : write_lavis(o, g, &h, t, &n, d->W > 0);
    }
    if (st == OK) status_say("%s: %zu tensors%s", o->run.out, n - left, left
                             ? " (the LM head and the temperature have no place there)" : "");
    free(t);
    return st;
}

Status cmd_export(const Options *o) {
    WeightSource *ws = NULL;
    Dims d;
    Origin g = {0};
    int32_t heads = 0;
    Status st = options_require(o, "in");
    if (st == OK) st = options_require(o, "out");
    if (st == OK) st = claim_export(o, strcmp(o->export.form.name, "hf") == 0);
    if (st == OK) st = ws_open(&ws, o->run.in, warn, NULL);
    if (st == OK) st = origin_read(&g, ws);
    if (st == OK && is_lm(&g)) {
        st = export_lm(o, ws, &g);
        origin_free(&g);
        ws_close(ws);
        return st;
    }
    if (st == OK) st = dims_of_weights(&d, ws);
    if (st == OK) st = use_heads(&g, o, d.C, &heads);
    if (st == OK) origin_habits(&g, o, &d);
    if (st == OK && o->run.dry_run) {
        st = options_print(o, stdout);
        status_say("%s: %zu tensors of %s%s", o->run.out, ws_count(ws), ws_path(ws), dry(o));
    } else if (st == OK) st = write_export(o, ws, &g, &d, heads);
    origin_free(&g);
    ws_close(ws);
    return st;
}
