/* extract: see extract.h. */
#include "data/make/extract.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/fingerprint.h"
#include "data/make/first.h"
#include "data/setout.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

/* ---- a folder of images ------------------------------------------------------------------------------------------ */

typedef struct {
    const ExtractSpec *spec;
    const AnnotatedImage *images;          /* those of the shard */
} Folder;

static char *image_path(const ExtractSpec *s, const char *image) {
    return image[0] == '/' || !s->images || !s->images[0] ? mem_strdup(image) : mem_format("%s/%s", s->images, image);
}

static Status open_image(const ExtractSpec *s, const char *image, Image *im) {
    char *path = image_path(s, image);
    Status st = path ? image_read_turned(im, path, s->upright) : ERR_MEMORY;
    free(path);
    return st;
}

/* The mistake may be in the file that asks for the image. */
static Status named_in(Status st, const AnnotatedImage *im) { return err_context(st, "an image of %s", im->file); }

static Status draw_file(void *ctx, int64_t i, uint8_t *pixels) {
    const Folder *f = ctx;
    const Preprocess *pre = &f->spec->encoder->pre;
    const char *name = f->images[i].image;
    Image im = {0};
    Status st = open_image(f->spec, name, &im);
    for (int64_t v = 0; v < f->spec->views && st == OK; v++)
        st = preprocess_view(pixels + (size_t)v * preprocess_bytes(pre), pre, &im, name, v);
    image_free(&im);
    return named_in(st, &f->images[i]);
}

/* Looks at every image before the work begins: whether it can be opened, and with skip_bad whether it decodes. Those
 * that do not are taken out of the list. */
static Status check_images(const ExtractSpec *s, Annotations *a, ExtractReport *rep) {
    bool *bad = mem_new((size_t)a->count, sizeof *bad);
    if (!bad) return ERR_MEMORY;
    First first = {0};
    int64_t count = 0, kept = 0;
#pragma omp parallel for schedule(dynamic, 16) reduction(+ : count)
    for (int64_t i = 0; i < a->count; i++) {
        Image im = {0};
        char *path = image_path(s, a->images[i].image);
        Status st = !path ? ERR_MEMORY
                    : access(path, R_OK) ? err_set(ERR_IO, "%s: %s", path, strerror(errno))
                    : s->skip_bad ? image_read(&im, path) : OK;
        first_note(&first, named_in(st, &a->images[i]), i);
        bad[i] = st != OK;
        count += bad[i];
        image_free(&im);
        free(path);
    }
    Status st = OK;
    if (count && (!s->skip_bad || count == a->count))
        st = err_set(first.st, "%lld of %lld images cannot be read; the first: %s", (long long)count,
                     (long long)a->count, first.why);
    rep->skipped = count;
    snprintf(rep->first_skipped, sizeof rep->first_skipped, "%.*s", (int)sizeof rep->first_skipped - 1, first.why);
    for (int64_t i = 0; i < a->count; i++)
        if (!bad[i]) a->images[kept++] = a->images[i];
    a->count = kept;
    free(bad);
    return st;
}

/* The files themselves: captions and the encoder are compared with what a shard says of them. */
static Status fingerprint_images(const Folder *f, int64_t count, uint64_t *made_from) {
    uint64_t h = hash_text(HASH_START, "extract");
    Status st = OK;
    for (int64_t i = 0; st == OK && i < count; i++) {
        char *path = image_path(f->spec, f->images[i].image);
        st = path ? fingerprint_stat(&h, path) : ERR_MEMORY;
        free(path);
    }
    *made_from = fingerprint_end(h);
    return st;
}

static Status folder_shard(const ExtractSpec *s, SetOut *to, const Annotations *a, int64_t from, int64_t count,
                           int64_t k) {
    const ImageEncoder *e = s->encoder;
    Folder folder = {.spec = s, .images = a->images + from};
    ShardWriter *w = NULL;
    ShardItem *items = mem_new((size_t)count, sizeof *items);
    if (!items) return ERR_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        const AnnotatedImage *im = &folder.images[i];
        items[i] = (ShardItem){.image_id = im->image, .split = im->split, .source = im->file,
                               .ncaptions = im->ncaptions, .captions = im->captions};
    }
    ShardSpec shard = {.encoder = e->info, .dtype = s->dtype, .images = count, .views = s->views, .P = e->P, .E = e->E,
                       .items = items};
    Status st = fingerprint_images(&folder, count, &shard.made_from);
    if (st == OK) st = setout_shard(to, k, &shard, &w);
    ExtractProgress progress = {&s->listener, from, a->count, s->waited};
    if (st == OK && w) st = extract_shard(w, &shard, e, draw_file, &folder, &progress);
    else if (st == OK) st = listener_tell(&s->listener, from + count, a->count);
    free(items);
    return st;
}

static Status write_shards(const ExtractSpec *s, const Annotations *a, ExtractReport *rep) {
    int64_t size = s->shard_images ? s->shard_images : a->count;
    SetOut to = {0};
    rep->shards = (a->count + size - 1) / size;
    for (int64_t i = 0; i < a->count; i++) rep->captions += a->images[i].ncaptions;
    rep->images = a->count;
    if (s->dry_run) return OK;
    Status st = setout_open(&to, s->out, rep->shards, s->overwrite);
    for (int64_t k = 0; st == OK && k < rep->shards; k++) {
        int64_t from = k * size, count = a->count - from < size ? a->count - from : size;
        st = folder_shard(s, &to, a, from, count, k);
    }
    return setout_close(&to, st);
}

Status extract(const ExtractSpec *s, ExtractReport *rep) {
    Annotations a;
    *rep = (ExtractReport){0};
    if (s->views < 1 || s->views > MAX_VIEWS)
        return err_set(ERR_USAGE, "%lld views an image; 1 to %d can be made", (long long)s->views, MAX_VIEWS);
    if (setout_is_file(s->out) && s->shard_images)
        return err_set(ERR_USAGE, "%s is one shard; name a folder for shards of %lld images", s->out,
                       (long long)s->shard_images);
    Status st = annotations_load(&a, s->annotations, s->nannotations);
    if (st != OK) return st;
    rep->blank = a.blank;
    rep->uncaptioned = a.uncaptioned;
    rep->imageless = a.imageless;
    st = check_images(s, &a, rep);
    if (st == OK) st = write_shards(s, &a, rep);
    annotations_free(&a);
    return st;
}
