/* extract: see extract.h. */
#include "data/make/extract.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/features.h"
#include "data/fingerprint.h"
#include "data/setout.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

/* ---- the engine -------------------------------------------------------------------------------------------------- */

/* The error of the first failing item; threads have messages of their own. */
typedef struct {
    Status st;
    int64_t item;
    char why[1024];
} First;

static void first_note(First *f, Status st, int64_t item) {
    if (st == OK) return;
#pragma omp critical(extract_first)
    if (f->st == OK || item < f->item) {
        f->st = st;
        f->item = item;
        snprintf(f->why, sizeof f->why, "%s", err_message());
    }
}

static Status first_take(const First *f) { return f->st == OK ? OK : err_set(f->st, "%s", f->why); }

typedef struct {
    int64_t capacity, n;           /* images */
    int64_t *image;                /* (capacity) which ones */
    uint8_t *rgb;                  /* (capacity, V, S, S, 3) */
    float *features;               /* (capacity, V, P, E) */
    uint8_t *rows;                 /* the same in the shard's type */
} BlockOf;

static Status block_new(BlockOf *b, const ShardSpec *s, size_t pixels, size_t row) {
    enum { BYTES = 128 << 20, MOST = 256 };
    size_t an_image = (size_t)s->views * (pixels + row * (4 + (size_t)dtype_size(s->dtype)));
    b->capacity = (int64_t)(BYTES / an_image);
    if (b->capacity < 1) b->capacity = 1;
    if (b->capacity > MOST) b->capacity = MOST;
    size_t n = (size_t)(b->capacity * s->views);
    b->image = mem_new((size_t)b->capacity, sizeof *b->image);
    b->rgb = mem_new(n, pixels);
    b->features = mem_new(n, row * sizeof(float));
    b->rows = mem_new(n, row * (size_t)dtype_size(s->dtype));
    return b->image && b->rgb && b->features && b->rows ? OK : ERR_MEMORY;
}

static Status block_encode(const BlockOf *b, const ImageEncoder *e, int64_t n, size_t pixels, size_t row) {
    First first = {0};
    int64_t step = e->batch;
#pragma omp parallel for schedule(dynamic) if (e->threads)
    for (int64_t r = 0; r < n; r += step) {
        int count = (int)(n - r < step ? n - r : step);
        first_note(&first, e->run(e, count, b->rgb + (size_t)r * pixels, b->features + (size_t)r * row), r);
    }
    return first_take(&first);
}

static Status block_do(const BlockOf *b, const ShardSpec *s, const ImageEncoder *e, ExtractDraw *draw, void *ctx,
                       ShardWriter *w) {
    size_t pixels = preprocess_bytes(&e->pre), row = (size_t)(e->P * e->E);
    size_t row_bytes = row * (size_t)dtype_size(s->dtype);
    int64_t V = s->views, n = b->n * V;
    First first = {0};
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < b->n; i++)
        first_note(&first, draw(ctx, b->image[i], b->rgb + (size_t)(i * V) * pixels), i);
    Status st = first_take(&first);
    if (st == OK) st = block_encode(b, e, n, pixels, row);
    if (st != OK) return st;
#pragma omp parallel for
    for (int64_t r = 0; r < n; r++) {
        dtype_from_f32(b->rows + (size_t)r * row_bytes, s->dtype, b->features + (size_t)r * row, row);
        if (!features_finite(b->rows + (size_t)r * row_bytes, s->dtype, row))
            first_note(&first, err_set(ERR_NUMERIC, "%s: its features are not finite numbers as %s",
                                       s->items[b->image[r / V]].image_id, dtype_name(s->dtype)), r);
    }
    st = first_take(&first);
    for (int64_t r = 0; r < n && st == OK; r++)
        st = shard_write(w, b->image[r / V] * V + r % V, b->rows + (size_t)r * row_bytes, 1);
    return st;
}

static bool has_image(const ShardWriter *w, int64_t i, int64_t V) {
    for (int64_t v = 0; v < V; v++)
        if (!shard_has(w, i * V + v)) return false;
    return true;
}

Status extract_shard(ShardWriter *w, const ShardSpec *spec, const ImageEncoder *e, ExtractDraw *draw, void *ctx,
                     const Listener *listener, int64_t before, int64_t total) {
    BUG_ON(spec->P != e->P || spec->E != e->E, "shard of %lld x %lld, encoder of %lld x %lld", (long long)spec->P,
           (long long)spec->E, (long long)e->P, (long long)e->E);
    BlockOf b = {0};
    Status st = block_new(&b, spec, preprocess_bytes(&e->pre), (size_t)(e->P * e->E));
    for (int64_t i = 0; st == OK && i < spec->images;) {
        for (b.n = 0; i < spec->images && b.n < b.capacity; i++)
            if (!has_image(w, i, spec->views)) b.image[b.n++] = i;
        if (b.n) st = block_do(&b, spec, e, draw, ctx, w);
        if (st == OK) st = listener_tell(listener, before + i, total);
    }
    free(b.image);
    free(b.rgb);
    free(b.features);
    free(b.rows);
    if (st == OK) return shard_finish(w);
    shard_abandon(w);
    return st;
}

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
    Status st = path ? image_read(im, path) : ERR_MEMORY;
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
    if (st == OK && w) st = extract_shard(w, &shard, e, draw_file, &folder, &s->listener, from, a->count);
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
