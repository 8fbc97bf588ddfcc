/* extract: see extract.h. */
#include "data/make/extract.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/fingerprint.h"
#include "data/make/first.h"
#include "data/make/pictures.h"
#include "data/setout.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

/* ---- a folder of images ------------------------------------------------------------------------------------------ */

typedef struct {
    const ExtractSpec *spec;
    const AnnotatedImage *images;          /* those of the shard, */
    const PicturePlace *place;             /* and where they lie */
} Folder;

/* The mistake may be in the file that asks for the image. */
static Status named_in(Status st, const AnnotatedImage *im) { return err_context(st, "an image of %s", im->file); }

static Status draw_file(void *ctx, int64_t i, uint8_t *pixels) {
    const Folder *f = ctx;
    const Preprocess *pre = &f->spec->encoder->pre;
    const char *name = f->images[i].image;
    Image im = {0};
    Status st = pictures_read(&f->place[i], name, f->spec->upright, &im);
    for (int64_t v = 0; v < f->spec->views && st == OK; v++)
        st = preprocess_view(pixels + (size_t)v * preprocess_bytes(pre), pre, &im, name, v);
    image_free(&im);
    return named_in(st, &f->images[i]);
}

/* Looks at every image before the work begins: whether it is there, and with skip_bad whether it decodes. Those that do
 * not are taken out of the list. */
static Status check_images(const ExtractSpec *s, const Pictures *p, Annotations *a, PicturePlace *place,
                           ExtractReport *rep) {
    bool *bad = mem_new((size_t)a->count, sizeof *bad);
    if (!bad) return ERR_MEMORY;
    First first = {0};
    int64_t count = 0, kept = 0;
#pragma omp parallel for schedule(dynamic, 16) reduction(+ : count)
    for (int64_t i = 0; i < a->count; i++) {
        Image im = {0};
        Status st = pictures_find(p, a->images[i].image, &place[i]);
        /* decoding is the only way to know */
        if (st == OK && s->skip_bad) st = pictures_read(&place[i], a->images[i].image, s->upright, &im);
        first_note(&first, named_in(st, &a->images[i]), i);  /* of several the first in the list, however threads ran */
        bad[i] = st != OK;
        count += bad[i];
        image_free(&im);
    }
    Status st = OK;
    if (count && (!s->skip_bad || count == a->count))
        st = err_set(first.st, "%lld of %lld images cannot be read; the first: %s", (long long)count,
                     (long long)a->count, first.why);
    rep->skipped = count;
    snprintf(rep->first_skipped, sizeof rep->first_skipped, "%.*s", (int)sizeof rep->first_skipped - 1, first.why);
    for (int64_t i = 0; i < a->count; i++) {
        PicturePlace here = place[i];
        place[i] = (PicturePlace){0};
        if (!bad[i] && here.otherwise && !rep->otherwise++)
            snprintf(rep->first_otherwise, sizeof rep->first_otherwise, "%.240s as %.240s", a->images[i].image,
                     here.path);
        if (bad[i]) free(here.path);
        else a->images[kept] = a->images[i], place[kept++] = here;
    }
    a->count = kept;
    free(bad);
    return st;
}

typedef struct { PictureIdentity id; int64_t image; } Known;

static int by_identity(const void *a, const void *b) {
    const Known *x = a, *y = b;
    int c = memcmp(&x->id, &y->id, sizeof x->id);
    return c ? c : (x->image > y->image) - (x->image < y->image);
}

/* One file under two names, by links or by spelling: in two splits it would leak.
 * Copies show by their features (twins.h). */
static Status check_links(const Annotations *a, const PicturePlace *place) {
    Status st = OK;
    Known *k = mem_new((size_t)a->count, sizeof *k);
    if (!k) return ERR_MEMORY;
    for (int64_t i = 0; i < a->count; i++) k[i] = (Known){pictures_identity(&place[i]), i};
    qsort(k, (size_t)a->count, sizeof *k, by_identity);      /* one file's names become neighbours */
    for (int64_t i = 1; i < a->count && st == OK; i++) {
        const AnnotatedImage *x = &a->images[k[i - 1].image], *y = &a->images[k[i].image];
        if (!memcmp(&k[i - 1].id, &k[i].id, sizeof k->id) && strcmp(x->split, y->split))
            st = err_set(ERR_FORMAT, "%s in split %s (%s) and %s in split %s (%s) are the same file, which would leak",
                         x->image, x->split, x->file, y->image, y->split, y->file);
    }
    free(k);
    return st;
}

/* The files themselves: captions and the encoder are compared with what a shard says of them. */
static Status fingerprint_images(const Folder *f, int64_t count, uint64_t *made_from) {
    /* features of a turned picture are others */
    uint64_t h = hash_int(hash_text(HASH_START, "extract"), f->spec->upright);
    Status st = OK;
    for (int64_t i = 0; st == OK && i < count; i++) st = pictures_fingerprint(&f->place[i], &h);
    *made_from = fingerprint_end(h);
    return st;
}

static Status folder_shard(const ExtractSpec *s, SetOut *to, const Annotations *a, const PicturePlace *place,
                           int64_t from, int64_t count, int64_t k, ExtractReport *rep) {
    const ImageEncoder *e = s->encoder;
    Folder folder = {.spec = s, .images = a->images + from, .place = place + from};
    ShardWriter *w = NULL;
    ShardItem *items = mem_new((size_t)count, sizeof *items);
    if (!items) return ERR_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        const AnnotatedImage *im = &folder.images[i];
        items[i] = (ShardItem){.image_id = im->image, .split = im->split, .source = im->file,
                               .ncaptions = im->ncaptions, .captions = im->captions};
    }
    bool scaled = s->dtype == DT_E4M3 || s->dtype == DT_I8; /* eight bits span too little for all tokens of a picture */
    ShardSpec shard = {.encoder = e->info, .dtype = s->dtype, .scale = scaled, .token_scale = scaled, .images = count,
                       .views = s->views, .P = e->P, .E = e->E, .items = items};
    Status st = fingerprint_images(&folder, count, &shard.made_from);
    if (st == OK) st = setout_shard(to, k, &shard, &w);
    ExtractProgress progress = {&s->listener, from, a->count, s->waited, &rep->square, &rep->error};
    if (st == OK && w) st = extract_shard(w, &shard, e, draw_file, &folder, &progress);
    else if (st == OK) st = listener_tell(&s->listener, from + count, a->count);
    free(items);
    return st;
}

/* All ranks are through, and as many shards as all of them kept were there already. */
static Status join_ranks(SetOut *to, Status st) {
    double kept = (double)to->kept;
    dist_set_timeout(0);                                     /* shares of a day's work do not end in one minute */
    st = dist_agree_at(st, "the end of the extraction");
    if (st == OK) st = dist_all_reduce_f64(&kept, 1, "the count of shards");
    to->kept = (int64_t)kept;
    return st;
}

/* Ranks take turns in the list of shards; the first makes room before the others write,
 * and lists what all have written. */
static Status write_shards(const ExtractSpec *s, const Annotations *a, const PicturePlace *place, ExtractReport *rep) {
    int64_t ranks = dist_size(), rank = dist_rank(), size = s->shard_images;
    SetOut to = {.quiet = rank > 0};
    if (!size) size = (a->count + ranks - 1) / ranks;        /* one shard a rank */
    rep->shards = (a->count + size - 1) / size;
    for (int64_t i = 0; i < a->count; i++) rep->captions += a->images[i].ncaptions;
    rep->images = a->count;
    if (s->dry_run) return OK;
    Status st = dist_agree_at(rank ? OK : setout_open(&to, s->out, rep->shards, s->overwrite), "opening the data set");
    if (st == OK && rank) st = setout_open(&to, s->out, rep->shards, s->overwrite);
    for (int64_t k = rank; st == OK && k < rep->shards; k += ranks) { /* in turns: no rank waits for another's */
        int64_t from = k * size, count = a->count - from < size ? a->count - from : size;
        st = folder_shard(s, &to, a, place, from, count, k, rep);
    }
    return setout_close(&to, ranks > 1 ? join_ranks(&to, st) : st);
}

/* As many folders as annotation files: each file's pictures lie in its own. */
static Status load_with_roots(const ExtractSpec *s, const Pictures *p, Annotations *a) {
    /* COCO: train2014 and val2014 each have a file of captions */
    bool own = s->nannotations > 1 && pictures_places(p) == (int64_t)s->nannotations;
    AnnotationFile *files = mem_new(s->nannotations, sizeof *files);
    if (!files) return ERR_MEMORY;
    for (size_t i = 0; i < s->nannotations; i++) {
        files[i] = s->annotations[i];
        if (own) files[i].root = pictures_root(p, (int64_t)i);
    }
    Status st = annotations_load(a, files, s->nannotations);
    free(files);
    return st;
}

static Status list_images(const ExtractSpec *s, Pictures *p, Annotations *a) {
    if (s->nannotations) return load_with_roots(s, p, a);
    Status st = pictures_list(p, a, s->folder_caption);
    return st == OK ? annotations_finish(a) : st;
}

Status extract(const ExtractSpec *s, ExtractReport *rep) {
    Annotations a = {0};
    Pictures *p = NULL;
    PicturePlace *place = NULL;
    int64_t count = 0;
    *rep = (ExtractReport){0};
    if (s->views < 1 || s->views > MAX_VIEWS)
        return err_set(ERR_USAGE, "%lld views an image; 1 to %d can be made", (long long)s->views, MAX_VIEWS);
    if (setout_is_file(s->out) && s->shard_images)
        return err_set(ERR_USAGE, "%s is one shard; name a folder for shards of %lld images", s->out,
                       (long long)s->shard_images);
    if (setout_is_file(s->out) && dist_size() > 1)           /* HDF5 has one writer */
        return err_set(ERR_USAGE, "%s is one shard; name a folder, in which %d ranks write their own", s->out,
                       dist_size());
    Status st = pictures_open(&p, s->images);
    if (st == OK) st = list_images(s, p, &a);
    rep->blank = a.blank;
    rep->uncaptioned = a.uncaptioned;
    rep->imageless = a.imageless;
    if (st == OK && !(place = mem_new((size_t)(count = a.count), sizeof *place))) st = ERR_MEMORY;
    if (st == OK) st = check_images(s, p, &a, place, rep);
    if (st == OK) st = check_links(&a, place);
    if (st == OK) st = write_shards(s, &a, place, rep);
    for (int64_t i = 0; place && i < count; i++) free(place[i].path);
    free(place);
    pictures_close(p);
    annotations_free(&a);
    return st;
}
