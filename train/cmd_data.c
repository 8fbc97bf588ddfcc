/* cmd_data: the commands that make data sets (synth, extract, import), look after them (verify, repack), and vocab. The
 * work is in data/; here options become its specs, and its progress and reports become lines. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "configs/commands.h"
#include "data/format/outfile.h"
#include "data/format/path.h"
#include "data/make/annotation_files.h"
#include "data/make/extract.h"
#include "data/make/import.h"
#include "data/make/synth.h"
#include "data/repack.h"
#include "data/set.h"
#include "data/text/caption.h"
#include "data/text/settext.h"
#include "data/text/vocab.h"
#include "data/twins.h"
#include "data/verify.h"
#include "eval/setup.h"
#include "kernels/base/mem.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"

/* ---- annotation files -------------------------------------------------------------------------------------------- */

/* The files of extract.annotations; none is no error. roots: NULL, or folders of pictures, as many as files. */
static Status file_list(AnnotationFiles *l, const Options *o) {
    const char *separator = o->extract.separator;
    AnnotationColumns c = {.image = o->extract.image_column, .caption = o->extract.caption_column,
                           .split = o->extract.split_column, .questions = o->extract.questions,
                           .separator = !strcmp(separator, "tab") || !strcmp(separator, "\\t") ? '\t' : separator[0]};
    return annotation_files(l, o->extract.annotations, &c);
}

static void say_dropped(int64_t blank, int64_t uncaptioned, int64_t imageless) {
    if (blank) status_say("  %lld blank captions left out", (long long)blank);
    if (uncaptioned) status_say("  %lld images without a caption left out", (long long)uncaptioned);
    if (imageless) status_say("  %lld entries that are not about one image left out", (long long)imageless);
}

/* One picture under two names, seen by its features. */
static void say_twins(const char *out) {
    Twins t;
    if (twins_of(out, &t) == OK && t.images + t.leaks)
        status_say("  %s: %lld images are the same as another one, %lld of them in another split: %s",
                   t.leaks ? "warning, test figures will flatter" : "note", (long long)(t.images + t.leaks),
                   (long long)t.leaks, t.first);
}

/* What fails in making the folders fails again, with a better sentence, at opening the file. */
static Status out_folder(const Options *o) {
    Status st = options_require(o, "out");
    if (st == OK && !o->run.dry_run && outfile_parents(o->run.out) != OK) err_clear();
    return st;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

Status cmd_synth(const Options *o) {
    signals_ask();
    Meter m = meter_start("synth", "scenes", 0, 0);
    SynthSpec s = {
        .kind = {(uint64_t)o->run.seed, (int)o->synth.objects, (SynthSay)o->synth.say.i},
        .count = {o->synth.train, o->synth.val, o->synth.test},
        .captions = (int)o->synth.captions, .questions = (int)o->synth.questions,
        .size = (int)o->synth.size, .patch = (int)o->synth.patch,
        .out = o->run.out,
        .images = (enum SynthImages)o->synth.images.i, .facts = o->synth.facts,
        .overwrite = o->run.overwrite,
        .listener = {meter_listen, &m},
    };
    Status st = out_folder(o);
    if (st == OK && o->run.dry_run) return options_print(o, stdout);
    if (st == OK) st = synth_write(&s);
    status_end();
    if (st == OK) status_say("%s: %lld training, %lld validation and %lld test scenes with %d captions each", s.out,
                             (long long)s.count[0], (long long)s.count[1], (long long)s.count[2], s.captions);
    return st;
}

/* What will lie on the disk, and whether there is room for it. */
static void say_storage(const ExtractSpec *s, const ExtractReport *r) {
    const ImageEncoder *e = s->encoder;
    struct statvfs disk;
    char *folder = path_folder(s->out);                      /* the file is not there yet: its folder's disk */
    double gb = (double)(r->images * s->views * e->P * e->E) * dtype_size(s->dtype) / 1e9;
    status_say("  %lld pictures x %lld view%s x %lld tokens x %lld numbers as %s: %.3f GB", (long long)r->images,
               (long long)s->views, s->views > 1 ? "s" : "", (long long)e->P, (long long)e->E, dtype_name(s->dtype),
               gb);
    if (folder && statvfs(folder, &disk) == 0) {
        double room = (double)disk.f_bavail * (double)disk.f_frsize / 1e9;
        status_say("  %.1f GB are free there%s", room, room < gb ? ": not enough" : "");
    }
    free(folder);
}

static void say_extracted(const ExtractSpec *s, const ExtractReport *r, double seconds) {
    const ImageEncoder *e = s->encoder;
    status_say("%s: %lld images, %lld captions by %s in %lld file%s%s", s->out, (long long)r->images,
               (long long)r->captions, e->info.name, (long long)r->shards, r->shards > 1 ? "s" : "",
               s->dry_run ? " (dry run, nothing was written)" : "");
    say_storage(s, r);
    if (r->square > 0)
        status_say("  %s loses %.2f %% of the features (root of the mean square, relative)", dtype_name(s->dtype),
                   100 * sqrt(r->error / r->square));
    if (!s->dry_run && seconds > 1)
        status_say("  %.1f images/s, data wait %.0f %%", (double)r->images / seconds, 100 * *s->waited / seconds);
    say_dropped(r->blank, r->uncaptioned, r->imageless);
    if (!s->dry_run) say_twins(s->out);
    if (r->otherwise)
        status_say("  %lld images lie under another path than the list says: the first, %s", (long long)r->otherwise,
                   r->first_otherwise);
    if (r->skipped) status_say("  %lld images left out; the first: %s", (long long)r->skipped, r->first_skipped);
}

/* The first rank speaks, all of them listen. */
static bool listen_to_all(void *m, int64_t done, int64_t total) {
    return dist_rank() ? !stop_requested() : meter_listen(m, done, total);
}

Status cmd_extract(const Options *o) {
    static const DType types[] = {DT_F16, DT_BF16, DT_F32, DT_E4M3, DT_I8};        /* ORDER extract.dtype */
    signals_ask();
    double waited = 0;
    AnnotationFiles files = {0};
    ImageEncoder *e = NULL;
    const Backend *b = NULL;
    ExtractReport r = {0};
    size_t bytes = 0;
    Status st = options_require(o, "in");
    if (st == OK) st = out_folder(o);
    if (st == OK) st = file_list(&files, o);
    if (st == OK) st = setup_backend(&b, o);
    if (st == OK) st = setup_encoder(&e, o, b, &bytes);
    if (st != OK) goto done;
    if (bytes && !dist_rank())                               /* all ranks take as much */
        status_say("  %.2f GB of memory for weights and %d images at a time", (double)bytes / 1e9, e->batch);
    Meter m = meter_start("extract", "images", 0, 0);
    m.waited = &waited;
    ExtractSpec s = {
        .images = o->run.in, .folder_caption = o->extract.folder_caption, .annotations = files.file,
        .nannotations = files.n, .out = o->run.out,
        .encoder = e, .dtype = types[o->extract.dtype.i], .views = o->extract.views,
        .shard_images = o->extract.shard_images, .skip_bad = o->extract.skip_bad, .upright = o->extract.exif,
        .dry_run = o->run.dry_run, .overwrite = o->run.overwrite, .listener = {listen_to_all, &m}, .waited = &waited,
    };
    st = extract(&s, &r);
    status_end();
    if (st == OK && !dist_rank()) say_extracted(&s, &r, status_clock() - m.start);
done:
    encoder_free(e);
    if (b) backend_close(b);
    annotation_files_free(&files);
    return st;
}

/* Which rule found the images, unless it was the plain one for all. */
static void say_matched(const ImportReport *r) {
    static const char *const by[MATCH_LEVELS] = {"full name", "base name", "name without ending", "COCO number"};
    char text[200] = "";
    size_t used = 0;
    for (int k = 0; k < MATCH_LEVELS; k++)
        if (r->matched[k])
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld by %s", used ? ", " : "",
                                     (long long)r->matched[k], by[k]);
    /* all by full name is what one expects: nothing to say */
    if (used && r->matched[MATCH_NAME] < r->rows) status_say("  rows found: %s", text);
}

Status cmd_import(const Options *o) {
    static const int types[] = {-1, DT_F16, DT_BF16, DT_F32};     /* ORDER import.dtype */
    signals_ask();
    Meter m = meter_start("import", "rows", 0, 0);
    AnnotationFiles files = {0};
    ImportReport r = {0};
    Status st = options_require(o, "in");
    if (st == OK) st = out_folder(o);
    if (st == OK) st = file_list(&files, o);
    if (st != OK) goto done;
    ImportSpec s = {
        .features = o->run.in,
        .array = o->import.array,
        .ids = o->import.ids,
        .ids_array = o->import.ids_array,
        .layout = (SourceLayout)o->import.layout.i,           /* ORDER import.layout */
        .zero_rows = (ZeroRows)o->import.zero_rows.i,         /* ORDER import.zero_rows */
        .annotations = files.file,
        .nannotations = files.n,
        .out = o->run.out,
        .encoder = {.name = o->import.encoder,
                    .weights_sha256 = o->import.weights_sha256,
                    .tap = o->import.tap,
                    .preprocessing = o->import.preprocessing,
                    .ln_applied = o->import.ln_applied},
        .dtype = types[o->import.dtype.i],
        .allow_missing = o->import.allow_missing,
        .allow_extra = o->import.allow_extra,
        .dry_run = o->run.dry_run,
        .overwrite = o->run.overwrite,
        .listener = {meter_listen, &m},
    };
    st = import(&s, &r);
    status_end();
    if (st != OK) goto done;
    status_say("%s: %lld images, %lld captions, %lld view%s of %lld x %lld %s%s", s.out, (long long)r.images,
               (long long)r.captions, (long long)r.views, r.views > 1 ? "s" : "", (long long)r.P, (long long)r.E,
               dtype_name(r.dtype), s.dry_run ? " (dry run, nothing was written)" : "");
    say_dropped(r.blank, r.uncaptioned, r.imageless);
    if (!s.dry_run) say_twins(s.out);
    if (r.kind == SOURCE_EACH) status_say("  one array an image, named by it");
    if (r.kind == SOURCE_PARTS)
        status_say("  the rows of %lld arrays, one after the other in the order of their names", (long long)r.arrays);
    say_matched(&r);
    if (r.flat)
        status_say("  warning: %lld rows are one number throughout, as a file is filled before anybody computes; the "
                   "first is that of %s", (long long)r.flat, r.first_flat);
    if (r.zero) status_say("  %lld images left out, their features are all zero", (long long)r.zero);
    if (r.missing)
        status_say("  %lld annotated images have no features; the first: %s", (long long)r.missing, r.first_missing);
    if (r.extra) status_say("  %lld rows have no annotation; the first: %s", (long long)r.extra, r.first_extra);
done:
    annotation_files_free(&files);
    return st;
}

/* ---- vocab ------------------------------------------------------------------------------------------------------- */

/* As the tokenizer will see it. */
static Status count_caption(VocabTrainer *t, const char *caption, size_t n) {
    char *text = NULL;
    size_t len = 0;
    Status st = settext_blip(&text, &len, caption, n, NULL, CAPTION_MAX_WORDS);
    if (st == OK) st = vocab_add(t, text, len);
    free(text);
    return st;
}

static Status count_files(VocabTrainer *t, const Options *o) {
    AnnotationFiles files = {0};
    Annotations a = {0};
    Status st = file_list(&files, o);
    if (st == OK) st = annotations_load_captions(&a, files.file, files.n);
    for (int64_t i = 0; st == OK && i < a.count; i++)
        for (int64_t k = 0; k < a.images[i].ncaptions && st == OK; k++)
            if (set_split_matches(o->vocab.split, a.images[i].split))
                st = count_caption(t, a.images[i].captions[k], strlen(a.images[i].captions[k]));
    annotations_free(&a);
    annotation_files_free(&files);
    return st;
}

static Status count_set(VocabTrainer *t, const Options *o) {
    Set *set = NULL;
    int64_t *images = NULL, count = 0;
    Status st = set_open(&set, o->run.in);
    if (st == OK) st = set_select(set, o->vocab.split, &images, &count);
    for (int64_t i = 0; st == OK && i < count; i++)
        for (int64_t k = 0; k < set_ncaptions(set, images[i]) && st == OK; k++) {
            size_t n;
            const char *caption = set_caption(set, images[i], k, &n);
            st = count_caption(t, caption, n);
        }
    free(images);
    set_close(set);
    return st;
}

Status cmd_vocab(const Options *o) {
    VocabTrainer *t = NULL;
    VocabReport r = {0};
    char *text = NULL;
    size_t n = 0;
    bool from_set = o->run.in[0] != 0;
    Status st = out_folder(o);
    /* before all captions are read */
    if (st == OK) st = outfile_claim(o->run.out, o->run.overwrite);
    if (st == OK && !from_set && !o->extract.annotations[0])
        st = err_set(ERR_USAGE,
                     "vocab needs a data set (vocab set.h5) or caption files (extract.annotations=train.json)");
    if (st == OK) st = vocab_new(&t);
    if (st == OK) st = from_set ? count_set(t, o) : count_files(t, o);
    if (st == OK) st = vocab_train(t, (int)o->vocab.size, o->vocab.min_count, &text, &n, &r);
    if (st == OK && !o->run.dry_run) st = outfile_put(o->run.out, text, n);
    if (st == OK)
        status_say("%s: %lld pieces from %lld words, %lld of them different; %lld characters",
                   o->run.out, (long long)r.pieces, (long long)r.words, (long long)r.different,
                   (long long)r.characters);
    if (st == OK && r.dropped)
        status_say("  the rarest %lld of the characters (at the start of a word, or inside) have no piece: their words "
                   "become [UNK]; a larger vocab.size has room for them", (long long)r.dropped);
    free(text);
    vocab_free(t);
    return st;
}

/* ---- looking after sets ------------------------------------------------------------------------------------------ */

enum { MOST_SENTENCES = 50 };

typedef struct {
    const VerifyReport *r;
    int n;
    char first[512];           /* problem, among warnings */
} Said;

static void say(void *ctx, const char *sentence) {
    Said *s = ctx;
    if (!s->first[0] && s->r->problems) snprintf(s->first, sizeof s->first, "%s", sentence);
    /* a broken disk says the same of a million rows */
    if (++s->n <= MOST_SENTENCES) status_say("  %s", sentence);
}

Status cmd_verify(const Options *o) {
    signals_ask();
    Meter m = meter_start("verify", "rows", 0, 0);
    Listener listener = {meter_listen, &m};
    VerifyReport r = {0};
    Said said = {.r = &r};
    Status st = options_require(o, "in");
    if (st == OK) st = verify_set(o->run.in, say, &said, &listener, &r);
    status_end();
    if (st != OK) return st;
    if (said.n > MOST_SENTENCES) status_say("  ... and %d more", said.n - MOST_SENTENCES);
    status_say("%s: %lld shards, %lld images, %lld rows, %lld captions; %lld problems, %lld warnings", o->run.in,
               (long long)r.shards, (long long)r.images, (long long)r.rows, (long long)r.captions,
               (long long)r.problems, (long long)r.warnings);
    if (r.uncaptioned) status_say("  %lld images have no caption", (long long)r.uncaptioned);
    return r.problems
               ? err_set(ERR_FORMAT, "%s is not in order, %lld problem%s; first: %s", o->run.in,
                         (long long)r.problems, r.problems > 1 ? "s" : "", said.first)
               : OK;
}

Status cmd_repack(const Options *o) {
    static const int types[] = {-1, DT_F16, DT_BF16, DT_F32, DT_E4M3, DT_I8};     /* ORDER repack.dtype */
    signals_ask();
    Meter m = meter_start("repack", "images", 0, 0);
    Tokenizer *tok = NULL;
    RepackReport r = {0};
    Status st = options_require(o, "in");
    if (st == OK) st = options_require(o, "out");
    if (st == OK && o->model.vocab[0]) st = tokenizer_open(&tok, o->model.vocab);
    RepackSpec s = {
        .in = o->run.in, .out = o->run.out, .shard_images = o->repack.shard_images,
        .dtype = types[o->repack.dtype.i], .split = o->repack.split, .tok = tok,
        .max_tokens = (int)o->data.max_tokens, .max_words = (int)o->data.max_words,
        .prompt = o->data.prompt, .overwrite = o->run.overwrite, .listener = {meter_listen, &m},
    };
    if (st == OK && o->run.dry_run) st = options_print(o, stdout);
    else if (st == OK) st = repack(&s, &r);
    status_end();
    if (st == OK && r.shards)
        status_say("%s: %lld images, %lld captions in %lld file%s%s", s.out, (long long)r.images, (long long)r.captions,
                   (long long)r.shards, r.shards > 1 ? "s" : "", tok ? ", with word pieces" : "");
    if (st == OK && r.square > 0)
        status_say("  %s loses %.2f %% of the features (root of the mean square, relative)", o->repack.dtype.name,
                   100 * sqrt(r.error / r.square));
    tokenizer_close(tok);
    return st;
}
