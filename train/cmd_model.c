/* cmd_model: the commands init (start weights into a file) and inspect (a checkpoint or a data set in a page of
 * text). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/params_io.h"
#include "configs/commands.h"
#include "data/format/outfile.h"
#include "data/format/path.h"
#include "data/manifest.h"
#include "data/set.h"
#include "data/text/settext.h"
#include "eval/setup.h"
#include "eval/use.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "train/recipe.h"
#include "train/run.h"

/* ---- init -------------------------------------------------------------------------------------------------------- */

static Status fill(QFormer *m, const Options *o, const Tokenizer *tok) {
    Status st = params_init(&m->params, (uint64_t)o->run.seed, recipe_init_std(o, &m->d));
    char *what = NULL;
    if (st == OK && *o->run.in) st = start_weights(&m->params, o->run.in, o, tok, NULL, &what);
    if (what) status_say("%s: %s", o->run.in, what);
    free(what);
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
    if (st == OK) st = setup_dims(&d, o, tok, P ? P : 257, E); /* how many tokens an image has shapes no weight */
    if (st == OK) st = qformer_open_alone(&m, &mem, &d, b, &(ParamsSpec){0});
    if (st == OK) st = fill(&m, o, tok);
    if (st == OK && !o->run.dry_run) st = outfile_parents(o->run.out);
    if (st == OK && !o->run.dry_run) st = save_weights(&m.params, m.params.w, o->run.out);
    if (st == OK && o->run.dry_run) st = options_print(o, stdout);
    if (st == OK)
        status_say("%s: %.1f M parameters in %d tensors%s", o->run.out, (double)m.params.count / 1e6, m.params.n,
                   o->run.dry_run ? " (dry run, nothing was written)" : "");
    qformer_close(&m);
    arena_close(&mem, b);
    tokenizer_close(tok);
    return st;
}

Status cmd_init(const Options *asked) {
    Options *o = NULL;
    Status st = options_require(asked, "out");
    if (st == OK) st = start_claim(asked);
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
    /* in pieces: files are mapped, and a tensor may be larger than memory */
    float x[PIECE];
    Stats s = {0};
    int64_t n = st_elements(t);
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t m = n - at < PIECE ? n - at : PIECE;
        dtype_to_f32(x, (const char *)t->data + (size_t)at * (size_t)dtype_size(t->dtype), t->dtype, (size_t)m);
        for (int64_t i = 0; i < m; i++) {
            if (!isfinite(x[i])) { /* counted apart: one of them would be all that mean and rms say */
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
        /* older runs say less: what they say is shown */
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
    Status st = ws_open(&ws, path, status_warn, NULL);
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
        if (t->dtype == DT_BOOL) continue;                   /* a mask has no mean */
        Stats s = stats_of(t);
        bad += s.bad;
        /* a page; what is not finite is shown wherever it stands */
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
        if (k == MOST) continue;                             /* a page: no set that is in order has more */
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

/* A folder of shards, with its manifest or without; a run's folder may hold shards too, and is a run all the same. */
static bool is_folder_of_shards(const char *path) {
    char **names = NULL, *manifest = mem_format("%s/manifest.json", path);
    int64_t n = 0;
    WeightSource *ws = NULL;
    bool yes = manifest && access(manifest, F_OK) == 0;
    if (!yes && manifest_scan(path, &names, &n) == OK && n > 0) yes = ws_open(&ws, path, NULL, NULL) != OK;
    err_clear();
    mem_free_list(names, (size_t)n);
    free(manifest);
    ws_close(ws);
    return yes;
}

static bool is_set(const char *path) {
    static const char *const ends[] = {".h5", ".hdf5", ".h5.part", ".json", NULL};
    struct stat sb;
    bool there = stat(path, &sb) == 0;
    if (there && S_ISDIR(sb.st_mode)) return is_folder_of_shards(path);
    /* no such file, but commas: a list of shards */
    return path_ends_in(path, ends) || (!there && strchr(path, ','));
}

Status cmd_inspect(const Options *o) {
    Status st = options_require(o, "in");
    if (st != OK) return st;
    return is_set(o->run.in) ? inspect_set(o->run.in) : inspect_weights(o, o->run.in);
}
