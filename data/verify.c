/* verify: see verify.h. */
#include "data/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/features.h"
#include "data/source.h"
#include "data/twins.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"
#include "kernels/base/unicode.h"

typedef struct {
    VerifySay *say;
    void *ctx;
    const Listener *listener;
    VerifyReport *r;
    StrMap ids;                    /* image id -> number of its image in the set; keys belong to the shards */
    Shard **shard;                 /* (n) those that opened; they stay open for the sake of the keys */
    int64_t n, known_rows;
} Verify;

/* Both get what was just said by err_set: it goes on to the caller, and the work goes on. */
static void problem(Verify *v, Status said) {
    (void)said;
    v->r->problems++;
    v->say(v->ctx, err_message());
}

static void warn(Verify *v, Status said) {
    (void)said;
    v->r->warnings++;
    v->say(v->ctx, err_message());
}

static void check_captions(Verify *v, const Shard *s, int64_t image) {
    int64_t captions = shard_captions_of(s, image);
    v->r->captions += captions;
    v->r->uncaptioned += captions == 0;
    for (int64_t k = 0; k < captions; k++) {
        size_t n, bad;
        const char *text = shard_caption(s, image, k, &n), *id = column_text(&s->image_id, image);
        if (n == 0)
            problem(v, err_set(ERR_FORMAT, "%s: caption %" PRId64 " of image %" PRId64 " (\"%s\") is empty", s->path, k,
                               image, id));
        else if (!utf8_valid(text, n, &bad))
            problem(v, err_set(ERR_FORMAT, "%s: caption %" PRId64 " of image %" PRId64
                               " (\"%s\") is not UTF-8 at byte %zu", s->path, k, image, id, bad));
    }
}

static Status check_ids(Verify *v, const Shard *s) {
    for (int64_t i = 0; i < s->images; i++) {
        const char *id = column_text(&s->image_id, i);
        const int64_t *before = strmap_get(&v->ids, id);
        if (!id[0] || !utf8_valid(id, strlen(id), NULL))
            problem(v, err_set(ERR_FORMAT, "%s: the id of image %" PRId64 " is %s", s->path, i,
                               id[0] ? "not UTF-8" : "empty"));
        else if (before)
            problem(v, err_set(ERR_FORMAT, "%s: image %" PRId64 " has the id \"%s\", which image %" PRId64
                               " of the set has already", s->path, i, id, *before));
        /* memory alone ends the walk: a problem is one of many to tell */
        else if (strmap_put(&v->ids, id, v->r->images + i) != OK) return ERR_MEMORY;
        check_captions(v, s, i);
    }
    return OK;
}

/* Maps (N, C, H, W) that were taken for C x H tokens of W numbers: few numbers a token, and a multiple of their square.
 */
static void check_width(Verify *v, const Shard *s) {
    /* no network has tokens of so few numbers */
    if (s->E < 2 || s->E >= 64 || s->P % s->E || s->P / s->E <= s->E) return;
    warn(v, err_set(ERR_FORMAT,
                    "%s: %" PRId64 " tokens of %" PRId64 " numbers look like maps (%" PRId64 ", %" PRId64 ", %" PRId64
                    ") with channels first; import.layout=channels turns such maps round",
                    s->path, s->P, s->E, s->P / s->E, s->E, s->E));
}

static Status check_rows(Verify *v, const Shard *s) {
    void *row = mem_new(s->row_bytes, 1);
    if (!row) return ERR_MEMORY;
    Status st = OK;
    /* said once for all: a run that was cut off leaves thousands */
    int64_t zeros = 0, first = 0;
    size_t size = (size_t)dtype_size(s->dtype);
    bool flat = false;
    v->known_rows += s->rows;
    check_width(v, s);
    for (int64_t i = 0; st == OK && i < s->rows; i++) {
        Status read = shard_read(s, i, true, row);
        RowKind kind = ROW_COMPUTED;
        if (read != OK) {
            problem(v, read);                        /* a damaged row says nothing of the next */
        } else if (!features_finite(row, s->dtype, (size_t)(s->P * s->E))) {
            problem(v, err_set(ERR_FORMAT, "%s: row %" PRId64 " (image \"%s\") holds a number that is not finite",
                               s->path, i, column_text(&s->image_id, i / s->views)));
        } else if ((kind = features_kind(row, s->row_bytes, size)) != ROW_COMPUTED) {
            if (!zeros++) first = i;
            flat |= kind == ROW_FLAT;                /* of rows of both kinds, the wider word is true */
        }
        v->r->rows++;
        st = listener_tell(v->listener, v->r->rows, v->known_rows);
    }
    free(row);
    if (st == OK && zeros)
        warn(v, err_set(ERR_FORMAT, "%s: %" PRId64 " of %" PRId64 " rows are all %s, features that nobody computed; "
                        "the first is row %" PRId64 " (image \"%s\")", s->path, zeros, s->rows,
                        flat ? "one number" : "zero", first, column_text(&s->image_id, first / s->views)));
    return st;
}

static Status check_file(Verify *v, const SourceFile *f) {
    Shard *s;
    Status st = shard_open(&s, f->path, false);
    v->r->shards++;
    if (st == OK) {
        v->shard[v->n++] = s;
        st = source_check(f, s);
        if (st == OK && v->n > 1) st = shard_same_kind(v->shard[0], s);
    }
    if (st == ERR_MEMORY) return st;                         /* no finding about the set */
    if (st != OK) problem(v, st);
    if (!s) return OK;                                       /* it did not open: that was the problem */
    if (s->warning) warn(v, err_set(ERR_FORMAT, "%s", s->warning));
    if ((st = check_ids(v, s)) != OK) return st;
    v->r->images += s->images;
    return check_rows(v, s);
}

/* Only shards of the first one's kind can be compared; others are problems already. */
static Status check_twins(Verify *v) {
    Twins t;
    int64_t n = 0;
    const Shard **same = mem_new((size_t)v->n, sizeof *same);
    if (!same) return ERR_MEMORY;
    for (int64_t i = 0; i < v->n; i++)
        if (shard_same_kind(v->shard[0], v->shard[i]) == OK) same[n++] = v->shard[i];
    Status st = twins_find(same, n, &t);
    free(same);
    if (st == OK && t.images + t.leaks)
        warn(v,
             err_set(ERR_FORMAT, "%" PRId64 " images are another one again, %" PRId64 " of them in another split: %s",
                        t.images + t.leaks, t.leaks, t.first));
    return st == ERR_MEMORY ? st : OK;                       /* rows that cannot be read are problems already */
}

Status verify_set(const char *path, VerifySay *say, void *ctx, const Listener *listener, VerifyReport *r) {
    *r = (VerifyReport){0};
    Source source = {0};
    static const Listener nobody = {0};
    Verify v = {.say = say, .ctx = ctx, .listener = listener ? listener : &nobody, .r = r};
    Status st = source_list(&source, path);
    if (st == OK && !(v.shard = mem_new((size_t)source.n, sizeof(Shard *)))) st = ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < source.n; i++) st = check_file(&v, &source.file[i]);
    if (st == OK) st = check_twins(&v);
    strmap_free(&v.ids);
    for (int64_t i = 0; i < v.n; i++) shard_close(v.shard[i]);
    free(v.shard);
    source_free(&source);
    return st;
}
