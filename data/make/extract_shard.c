/* extract_shard: the engine of extraction: pixels of one block are drawn (decoded and resized, or rendered) by
 * threads of their own while the encoder works on the block before. See extract.h. */
#include "data/make/extract.h"

#include <pthread.h>

#include "data/features.h"
#include "data/make/first.h"
#include "data/repack.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

typedef struct {
    int64_t n;                     /* images */
    int64_t *image;                /* (capacity) which ones */
    uint8_t *pixels;               /* (capacity, V, S, S, 3) in the encoder's type */
} BlockOf;

typedef struct {
    const ShardSpec *s;
    const ImageEncoder *e;
    ExtractDraw *draw;
    void *ctx;
    ShardWriter *w;
    int64_t capacity, next;        /* images of a block; the first that no block has looked at */
    size_t pixels, row;            /* bytes of a view, numbers of its features */
    BlockOf block[3];              /* one is drawn while another is encoded, and of a third the features are stored */
    bool lanes;                    /* the encoder takes a block before it has given back the one before */
    float *features;               /* (capacity, V, P, E) */
    uint8_t *rows;                 /* the same in the shard's type, */
    float *scales;                 /* (capacity, V, P) and what its numbers are multiplied by, where it wants that */
    double square, error;
    Status drawn;
    char why[1024];                /* of drawn: its thread has a message of its own */
} Work;

/* An encoder that fills the machine by itself works on its batch: what a kill costs, and how often there is news. */
static int64_t capacity_of(const Work *k) {
    enum { BYTES = 128 << 20, MOST = 256 };
    size_t an_image = (size_t)k->s->views * (k->pixels + k->row * (4 + (size_t)dtype_size(k->s->dtype)));
    int64_t n = (int64_t)(BYTES / an_image);
    if (!k->e->threads) n = k->e->batch / k->s->views;       /* such an encoder fills the machine with a batch */
    return n < 1 ? 1 : n > MOST ? MOST : n;
}

static Status work_new(Work *k) {
    k->pixels = preprocess_bytes(&k->e->pre);
    k->row = (size_t)(k->e->P * k->e->E);
    k->capacity = capacity_of(k);
    size_t n = (size_t)(k->capacity * k->s->views);
    k->lanes = k->e->start && k->s->views <= k->e->batch;
    bool ok = true;
    for (int i = 0; i < 3; i++) {
        k->block[i].image = mem_new((size_t)k->capacity, sizeof *k->block[i].image);
        k->block[i].pixels = mem_new(n, k->pixels);
        ok = ok && k->block[i].image && k->block[i].pixels;
    }
    k->features = mem_new(n, k->row * sizeof(float));
    k->rows = mem_new(n, k->row * (size_t)dtype_size(k->s->dtype));
    k->scales = mem_new(n * (size_t)k->e->P, sizeof *k->scales);
    return ok && k->features && k->rows && k->scales ? OK : ERR_MEMORY;
}

static void work_free(Work *k) {
    for (int i = 0; i < 3; i++) mem_free(k->block[i].image, k->block[i].pixels);
    mem_free(k->features, k->rows, k->scales);
}

/* ---- a block ----------------------------------------------------------------------------------------------------- */

static bool has_image(const ShardWriter *w, int64_t i, int64_t V) {
    for (int64_t v = 0; v < V; v++)
        if (!shard_has(w, i * V + v)) return false;
    return true;
}

/* The next images of which one is missing. A block is always the same images in the same order: the last bits of a
 * product may depend on its number of rows, and a run that goes on must end with the bytes of one that was not stopped.
 * */
static void choose(Work *k, BlockOf *b) {
    bool missing = false;
    for (b->n = 0; k->next < k->s->images && !missing;) {
        for (b->n = 0; k->next < k->s->images && b->n < k->capacity; k->next++) {
            missing |= !has_image(k->w, k->next, k->s->views);
            b->image[b->n++] = k->next;
        }
        if (!missing) b->n = 0;                              /* all of it is there: the next block */
    }
}

static Status draw_block(const Work *k, const BlockOf *b) {
    First first = {0};
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < b->n; i++)
        first_note(&first, k->draw(k->ctx, b->image[i], b->pixels + (size_t)(i * k->s->views) * k->pixels), i);
    return first_take(&first);
}

static Status encode_block(const Work *k, const BlockOf *b) {
    First first = {0};
    int64_t n = b->n * k->s->views, step = k->e->batch;
#pragma omp parallel for schedule(dynamic) if (k->e->threads)
    for (int64_t r = 0; r < n; r += step) {
        int count = (int)(n - r < step ? n - r : step);
        const uint8_t *pixels = b->pixels + (size_t)r * k->pixels;
        first_note(&first, k->e->run(k->e, count, pixels, k->features + (size_t)r * k->row), r);
    }
    return first_take(&first);
}

/* A row in the shard's type. What rounding costs is told of the first of a block: a sample, at no price. */
static Status convert(Work *k, int64_t r) {
    const ShardSpec *s = k->s;
    const float *x = k->features + (size_t)r * k->row;
    uint8_t *to = k->rows + (size_t)r * k->row * (size_t)dtype_size(s->dtype);
    if (s->token_scale)
        return features_quantise_tokens(to, k->scales + r * s->P, s->dtype, x, s->P, s->E, r ? NULL : &k->square,
                                        &k->error);
    dtype_from_f32(to, s->dtype, x, k->row);
    return features_finite(to, s->dtype, k->row) ? OK : err_set(ERR_NUMERIC, "a number is not finite");
}

static Status write_block(Work *k, const BlockOf *b) {
    int64_t V = k->s->views, n = b->n * V;
    size_t bytes = k->row * (size_t)dtype_size(k->s->dtype);
    First first = {0};
#pragma omp parallel for
    for (int64_t r = 0; r < n; r++)
        if (convert(k, r) != OK)                             /* threads have messages of their own: the first is kept */
            first_note(&first, err_set(ERR_NUMERIC, "%s: its features are not finite numbers as %s",
                                       k->s->items[b->image[r / V]].image_id, dtype_name(k->s->dtype)), r);
    Status st = first_take(&first);
    for (int64_t r = 0; r < n && st == OK; r++) {
        int64_t row = b->image[r / V] * V + r % V;
        if (!shard_has(k->w, row))                           /* there already: the same bytes */
            st = shard_write_scaled(k->w, row, k->rows + (size_t)r * bytes, k->scales + r * k->e->P);
    }
    return st;
}

/* ---- one ahead --------------------------------------------------------------------------------------------------- */

typedef struct { Work *k; BlockOf *b; } Ahead;

static void *draw_ahead(void *p) {
    const Ahead *a = p;
    a->k->drawn = draw_block(a->k, a->b);
    if (a->k->drawn != OK) snprintf(a->k->why, sizeof a->k->why, "%s", err_message());
    return NULL;
}

/* With lanes `before` is finished when the encoder has b, or is NULL; without, b is finished here and now. */
static Status encode_and_write(Work *k, const BlockOf *before, const BlockOf *b) {
    Status st = OK;
    if (!k->lanes) st = encode_block(k, b);
    else if (b->n) st = k->e->start(k->e, (int)(b->n * k->s->views), b->pixels);
    if (st == OK && k->lanes && before) st = k->e->finish(k->e, k->features); /* in the order they were started */
    if (st == OK && (before || !k->lanes)) st = write_block(k, k->lanes ? before : b);
    return st;
}

/* Encodes one block and writes it, or the one before, while the next is drawn. */
static Status do_block(Work *k, const BlockOf *before, const BlockOf *b, BlockOf *next, double *waited) {
    pthread_t t;
    Ahead a = {k, next};
    choose(k, next);
    bool apart = next->n && pthread_create(&t, NULL, draw_ahead, &a) == 0;
    Status st = encode_and_write(k, before, b);
    double since = status_clock();
    if (apart) pthread_join(t, NULL);
    else if (next->n) draw_ahead(&a);                        /* no thread to be had: one after the other */
    if (waited) *waited += status_clock() - since;
    /* said again here: its thread and its message are gone */
    return st == OK && next->n && k->drawn != OK ? err_set(k->drawn, "%s", k->why) : st;
}

Status extract_shard(ShardWriter *w, const ShardSpec *spec, const ImageEncoder *e, ExtractDraw *draw, void *ctx,
                     const ExtractProgress *progress) {
    BUG_ON(spec->P != e->P || spec->E != e->E, "shard of %lld x %lld, encoder of %lld x %lld", (long long)spec->P,
           (long long)spec->E, (long long)e->P, (long long)e->E);
    Work k = {.s = spec, .e = e, .draw = draw, .ctx = ctx, .w = w};
    Status st = work_new(&k);
    if (st == OK) choose(&k, &k.block[0]);
    double since = status_clock();
    if (st == OK && k.block[0].n) st = draw_block(&k, &k.block[0]);
    if (progress->waited) *progress->waited += status_clock() - since; /* the first block has nothing to hide behind */
    const BlockOf *before = NULL;
    for (int i = 0; st == OK && k.block[i].n; i = (i + 1) % 3) {
        int64_t done = before && k.lanes ? before->image[before->n - 1] + 1 : k.next;
        st = do_block(&k, before, &k.block[i], &k.block[(i + 1) % 3], progress->waited);
        if (st == OK && (before || !k.lanes))
            st = listener_tell(progress->listener, progress->before + done, progress->total);
        before = &k.block[i];
    }
    if (st == OK && before && k.lanes) {
        st = encode_and_write(&k, before, &(BlockOf){0});
        if (st == OK) st = listener_tell(progress->listener, progress->before + k.next, progress->total);
    }
    if (progress->square) *progress->square += k.square, *progress->error += k.error;
    work_free(&k);
    if (st == OK) return shard_finish(w);
    shard_abandon(w);
    return st;
}
