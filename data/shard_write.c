/* shard_write: see shard_write.h. */
#include "data/shard_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/crc32c.h"
#include "data/format/outfile.h"
#include "data/shard.h"
#include "kernels/base/mem.h"

enum { MOST_ID_BYTES = 4096 };

struct ShardWriter {
    char *path, *part;
    int fd;                        /* of PATH.part, locked */
    Shard *s;                      /* what stands in it; written, crc and scale follow what we write */
    int64_t missing;
    char *found;                   /* shard_found */
    bool goes_on;
};

/* ---- the spec ---- */

static const char *or_empty(const char *s) { return s ? s : ""; }

static Status check_spec(const char *path, const ShardSpec *spec) {
    BUG_ON(spec->images < 0 || spec->views < 1 || spec->P < 1 || spec->E < 1,
           "a shard of %lld images, %lld views, %lld x %lld",
           (long long)spec->images, (long long)spec->views, (long long)spec->P, (long long)spec->E);
    if (shard_kind(spec->dtype) == H5K_OTHER)
        return err_set(ERR_USAGE, "%s: features cannot be stored as %s (f16 bf16 f32 e4m3 i8)", path,
                       dtype_name(spec->dtype));
    if (spec->dtype == DT_I8 && !spec->scale)
        return err_set(ERR_USAGE, "%s: features stored as i8 need a scale a row", path);
    size_t bytes = (size_t)dtype_size(spec->dtype);
    if (!mem_mul(bytes, (size_t)spec->P, &bytes) || !mem_mul(bytes, (size_t)spec->E, &bytes) || bytes > INT32_MAX ||
        !mem_mul(bytes, (size_t)spec->images, &bytes) || !mem_mul(bytes, (size_t)spec->views, &bytes) ||
        bytes > INT64_MAX / 2)
        return err_set(ERR_USAGE, "%s: %" PRId64 " x %" PRId64 " rows of %" PRId64 " x %" PRId64 " are more than a "
                       "file can hold",
                       path, spec->images, spec->views, spec->P, spec->E);
    for (int64_t i = 0; i < spec->images; i++) {
        const ShardItem *it = &spec->items[i];
        if (!it->image_id || !it->image_id[0]) return err_set(ERR_USAGE, "%s: image %" PRId64 " has no id", path, i);
        /* the longest sets the width of all */
#define X(field) || strlen(or_empty(it->field)) > MOST_ID_BYTES
        if (false SHARD_COLUMNS(X))
#undef X
            return err_set(ERR_USAGE, "%s: image %" PRId64 " has an id, split or source of more than %d bytes", path, i,
                           MOST_ID_BYTES);
    }
    return OK;
}

/* ---- laying the file out ---- */

/* A text column of the items, by its place in them. */
typedef struct { const ShardItem *items; size_t at; } Column;

static const char *column_item(const void *ctx, int64_t i) {
    const Column *c = ctx;
    return or_empty(*(const char *const *)(const void *)((const char *)&c->items[i] + c->at));
}

static Status put_column(H5File *f, const char *path, const ShardSpec *spec, size_t at) {
    return h5_put_texts(f, path, spec->images, column_item, &(Column){spec->items, at});
}

static Status put_ids(H5File *f, const char *path, const uint32_t *ids, int64_t n) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) largest = ids[i] > largest ? ids[i] : largest;
    /* most vocabularies fit two bytes, and captions are what a small set consists of */
    if (largest > UINT16_MAX) return h5_put(f, path, H5K_U32, 0, 1, &n, ids);
    uint16_t *small = mem_new((size_t)n, sizeof *small);
    if (!small) return ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) small[i] = (uint16_t)ids[i];
    Status st = h5_put(f, path, H5K_U16, 0, 1, &n, small);
    free(small);
    return st;
}

static Status put_tokens(H5File *f, const TokenCache *t, int64_t captions) {
    static const char path[] = "/captions/tokens";
    int64_t n = (int64_t)t->offset[captions], pointers = captions + 1;
    char vocab[24];
    snprintf(vocab, sizeof vocab, "%016" PRIx64, t->key.vocab);
    Status st = h5_put(f, "/captions/token_offset", H5K_U64, 0, 1, &pointers, t->offset);
    if (st == OK) st = put_ids(f, path, t->ids, n);
    if (st == OK) st = h5_put_text(f, path, "vocab", vocab);
    if (st == OK) st = h5_put_int(f, path, "max_tokens", t->key.max_tokens);
    if (st == OK) st = h5_put_int(f, path, "max_words", t->key.max_words);
    if (st == OK) st = h5_put_text(f, path, "prompt", or_empty(t->key.prompt));
    return st;
}

static Status put_captions(H5File *f, const ShardSpec *spec) {
    int64_t captions = 0, pointers = spec->images + 1, nbytes = 0;
    for (int64_t i = 0; i < spec->images; i++) {
        captions += spec->items[i].ncaptions;
        for (int64_t k = 0; k < spec->items[i].ncaptions; k++) nbytes += (int64_t)strlen(spec->items[i].captions[k]);
    }
    uint64_t *first = mem_new((size_t)pointers, 8), *offset = mem_new((size_t)captions + 1, 8);
    char *bytes = mem_new((size_t)nbytes, 1);
    Status st = first && offset && bytes ? OK : ERR_MEMORY;
    uint64_t m = 0, at = 0;
    for (int64_t i = 0; st == OK && i < spec->images; i++) {
        for (int64_t k = 0; k < spec->items[i].ncaptions; k++) {
            size_t n = strlen(spec->items[i].captions[k]);
            memcpy(bytes + at, spec->items[i].captions[k], n);
            offset[++m] = at += n;                           /* its end is the next one's beginning */
        }
        first[i + 1] = m;
    }
    if (st == OK) st = h5_group(f, "/captions");
    if (st == OK) st = h5_put(f, "/captions/first", H5K_U64, 0, 1, &pointers, first);
    pointers = captions + 1;
    if (st == OK) st = h5_put(f, "/captions/offset", H5K_U64, 0, 1, &pointers, offset);
    if (st == OK) st = h5_put(f, "/captions/bytes", H5K_U8, 0, 1, &nbytes, bytes);
    if (st == OK && spec->tokens) st = put_tokens(f, spec->tokens, captions);
    mem_free(first, offset, bytes);
    return st;
}

static int64_t scales_of(const ShardSpec *spec) { return !spec->scale ? 0 : spec->token_scale ? spec->P : 1; }

/* So many numbers, all zero. */
static Status put_zeros(H5File *f, const char *path, H5Kind kind, size_t size, int64_t rows) {
    void *zeros = mem_new((size_t)rows, size);
    Status st = zeros ? h5_put(f, path, kind, 0, 1, &rows, zeros) : ERR_MEMORY;
    free(zeros);
    return st;
}

static Status put_images(H5File *f, const ShardSpec *spec) {
    const int64_t dim[3] = {spec->images * spec->views, spec->P, spec->E};
    Status st = h5_group(f, "/images");
    if (st == OK) st = h5_put_int(f, "/images", "views", spec->views);
    if (st == OK) st = h5_put(f, "/images/features", shard_kind(spec->dtype), 0, 3, dim, NULL);
    if (st == OK) st = h5_put_text(f, "/images/features", "dtype", dtype_name(spec->dtype));
    if (st == OK && spec->scale) st = put_zeros(f, "/images/scale", H5K_F32, 4, dim[0] * scales_of(spec));
    if (st == OK) st = put_zeros(f, "/images/crc32c", H5K_U32, 4, dim[0]);
    /* a row is there when its mark is: a kill in between loses that row alone */
    if (st == OK) st = put_zeros(f, "/images/written", H5K_U8, 1, dim[0]);
#define X(field) if (st == OK) st = put_column(f, "/images/" #field, spec, offsetof(ShardItem, field));
    SHARD_COLUMNS(X)
#undef X
    return st;
}

static Status lay_out(const char *path, const ShardSpec *spec) {
    H5File *f = NULL;
    /* check_spec has seen that it fits */
    int64_t bytes = spec->images * spec->views * spec->P * spec->E * dtype_size(spec->dtype);
    Status st = h5_create(&f, path, bytes < 4096 ? (size_t)bytes : 4096);
    if (st != OK) return st;
    const EncoderInfo *e = &spec->encoder;
    st = h5_put_text(f, "/", "format", "qformer-shard");
    if (st == OK) st = h5_put_int(f, "/", "version", spec->scale && spec->token_scale ? 2 : 1);
    char from[17];
    snprintf(from, sizeof from, "%016" PRIx64, spec->made_from);
    if (st == OK && spec->made_from) st = h5_put_text(f, "/", "made_from", from);
    if (st == OK) st = h5_group(f, "/encoder");
#define X(field) if (st == OK) st = h5_put_text(f, "/encoder", #field, or_empty(e->field));
    ENCODER_TEXTS(X)
#undef X
    if (st == OK) st = h5_put_int(f, "/encoder", "ln_applied", e->ln_applied);
    if (st == OK) st = put_images(f, spec);
    if (st == OK) st = put_captions(f, spec);
    Status closed = h5_close(f);                             /* what the library still held is written here */
    return st == OK ? closed : st;
}

/* ---- a file that is there already ---- */

static bool same_captions(const Shard *s, const ShardSpec *spec) {
    for (int64_t i = 0; i < spec->images; i++) {
        const ShardItem *it = &spec->items[i];
        if (shard_captions_of(s, i) != it->ncaptions) return false;
        for (int64_t k = 0; k < it->ncaptions; k++) {
            size_t n;
            const char *c = shard_caption(s, i, k, &n);
            if (n != strlen(it->captions[k]) || memcmp(c, it->captions[k], n) != 0) return false;
        }
    }
    return true;
}

static bool same_tokens(const Shard *s, const TokenCache *t) {
    if (!t || !s->tokens) return !t == !s->tokens;
    return t->key.vocab == s->key.vocab && t->key.max_tokens == s->key.max_tokens &&
           t->key.max_words == s->key.max_words && strcmp(or_empty(t->key.prompt), s->key.prompt) == 0 &&
           t->offset[s->captions] == s->token_offset[s->captions] &&
           memcmp(t->ids, s->tokens, t->offset[s->captions] * sizeof *t->ids) == 0;
}

static bool same_images(const Shard *s, const ShardSpec *spec) {
    bool same = true;
    for (int64_t i = 0; i < spec->images && same; i++) {
        const ShardItem *it = &spec->items[i];
#define X(field) same = same && !strcmp(or_empty(it->field), s->field.text ? column_text(&s->field, i) : "");
        SHARD_COLUMNS(X)
#undef X
    }
    return same;
}

const char *shard_difference(const Shard *s, const ShardSpec *spec) {
    const EncoderInfo *e = &spec->encoder;
#define X(field) .field = or_empty(e->field),
    const EncoderInfo wanted = {ENCODER_TEXTS(X) .ln_applied = e->ln_applied};
#undef X
    if (shard_encoder_difference(&wanted, &s->encoder)) return "another encoder";
    if (s->dtype != spec->dtype || s->scales != scales_of(spec)) return "another element type";
    if (s->images != spec->images || s->views != spec->views) return "another number of images or views";
    if (s->P != spec->P || s->E != spec->E) return "another size of features";
    if (!same_images(s, spec)) return "other images or splits";
    if (!same_captions(s, spec)) return "other captions";
    if (!same_tokens(s, spec->tokens)) return "another token cache";
    return s->made_from == spec->made_from ? NULL : "the files that the features come from, or their order, are others";
}

/* ---- taking possession ---- */

/* ERR_USAGE when somebody else has it. File systems without locks let everybody through. */
static Status take(int fd, const char *part) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return OK;
    return err_set(ERR_USAGE, "%s: is being written by another process", part);
}

/* The locked PATH.part, created empty if absent. Its name may have gone to another file while we waited: look again. */
static Status lock_part(ShardWriter *w, int64_t *bytes) {
    /* each turn somebody finished with the name; ten in a row is no accident */
    for (int attempt = 0; attempt < 10; attempt++) {
        struct stat ours, named;
        w->fd = open(w->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (w->fd < 0) return err_set(ERR_IO, "%s: cannot be created: %s", w->part, strerror(errno));
        Status st = take(w->fd, w->part);
        if (st != OK) return st;
        if (fstat(w->fd, &ours) == 0 && stat(w->part, &named) == 0 && ours.st_ino == named.st_ino) {
            *bytes = (int64_t)ours.st_size;
            return OK;
        }
        close(w->fd);
        w->fd = -1;
    }
    return err_set(ERR_IO, "%s: is being replaced by another process", w->part);
}

/* All room of the features at once: a disk that is too small says so now.
 * Not every file system can; then it shows later. */
static Status reserve(int fd, const char *path, const Shard *s) {
    int64_t bytes = s->rows * (int64_t)s->row_bytes;
    if (bytes == 0 || fallocate(fd, 0, (off_t)s->features_at, (off_t)bytes) == 0) return OK;
    /* the file system cannot reserve: that says nothing of its room */
    if (errno != ENOSPC && errno != EFBIG && errno != EDQUOT) return OK;
    return err_set(ERR_IO, "%s: needs %.1f GB: %s", path, (double)bytes * 1e-9, strerror(errno));
}

/* Builds the file beside PATH.part and lets it take that name, locked, in one step:
 * PATH.part is either empty or complete. */
static Status start(ShardWriter *w, const ShardSpec *spec) {
    int fd = -1;
    char *fresh = mem_format("%s.new", w->part);
    if (!fresh) return ERR_MEMORY;
    Status st = lay_out(fresh, spec);
    if (st == OK && (fd = open(fresh, O_RDWR | O_CLOEXEC)) < 0)
        st = err_set(ERR_IO, "%s: cannot be opened: %s", fresh, strerror(errno));
    if (st == OK) st = take(fd, fresh);                      /* before it gets the name under which others look */
    if (st == OK) st = shard_open(&w->s, fresh, true);
    if (st == OK) st = reserve(fd, w->path, w->s);
    if (st == OK) st = outfile_rename(fresh, w->part);
    if (st == OK) {
        close(w->fd);
        w->fd = fd;
    } else {
        if (fd >= 0) close(fd);
        unlink(fresh);
        unlink(w->part);
    }
    free(fresh);
    return st;
}

/* Rows that a power cut left half written lose their mark. */
static Status recheck(ShardWriter *w) {
    Shard *s = w->s;
    void *row = mem_new(s->row_bytes, 1);
    Status st = row ? OK : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < s->rows; i++) {
        if (!s->written[i]) continue;
        st = shard_read(s, i, true, row);
        if (st != ERR_FORMAT) continue;                      /* a disk that cannot be read is no damaged row */
        s->written[i] = 0;
        err_clear();
        st = OK;
    }
    free(row);
    return st;
}

static int64_t rows_written(const Shard *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->rows; i++) n += s->written[i] != 0;
    return n;
}

/* NULL: what lies in PATH.part can be gone on with. */
static const char *part_difference(ShardWriter *w, const ShardSpec *spec) {
    if (shard_open(&w->s, w->part, true) != OK) {
        err_clear();
        return "it cannot be read";
    }
    const Shard *s = w->s;
    /* rows go in by pwrite, at these places */
    if (s->rows > 0 && (s->features_at < 0 || s->written_at < 0 || s->crc_at < 0 || (s->scale && s->scale_at < 0)))
        return "another layout";
    return shard_difference(s, spec);
}

/* Its room is needed before the new one takes its own. */
static Status begin_anew(ShardWriter *w, const ShardSpec *spec, const char *why) {
    w->found = mem_format("%s was begun for something else (%s): its %" PRId64 " rows are given up, it begins anew",
                          w->part, why, w->s && w->s->written ? rows_written(w->s) : 0);
    shard_close(w->s);
    w->s = NULL;
    if (!w->found) return ERR_MEMORY;
    if (ftruncate(w->fd, 0) != 0) return err_set(ERR_IO, "%s: cannot be emptied: %s", w->part, strerror(errno));
    return start(w, spec);
}

static Status go_on(ShardWriter *w, const ShardSpec *spec) {
    const char *why = part_difference(w, spec);
    if (why) return begin_anew(w, spec, why);
    Status st = recheck(w);
    w->goes_on = true;
    if (st == OK && w->s->rows)
        w->found = mem_format("%s: goes on, %" PRId64 " of %" PRId64 " rows are there", w->part, rows_written(w->s),
                              w->s->rows);
    return st;
}

Status shard_create(ShardWriter **out, const char *path, const ShardSpec *spec) {
    *out = NULL;
    struct stat sb;
    int64_t bytes = 0;
    ShardWriter *w = NULL;
    Status st = check_spec(path, spec);
    if (st != OK) return st;
    if (!spec->replace && stat(path, &sb) == 0) return err_set(ERR_USAGE, "%s: exists already", path);
    if (!(w = mem_new(1, sizeof *w))) return ERR_MEMORY;
    w->fd = -1; /* 0 is stdin, and would be closed on the way out */
    w->path = mem_strdup(path);
    w->part = mem_format("%s.part", path);
    if (!w->path || !w->part) st = ERR_MEMORY;
    if (st == OK) st = lock_part(w, &bytes);
    if (st == OK) st = bytes == 0 ? start(w, spec) : go_on(w, spec);
    if (st == OK) {
        w->missing = w->s->rows - rows_written(w->s);
        *out = w;
        return OK;
    }
    shard_abandon(w);
    return st;
}

const char *shard_found(const ShardWriter *w) { return w->found; }
bool shard_goes_on(const ShardWriter *w) { return w->goes_on; }

/* ---- rows ---- */

bool shard_has(const ShardWriter *w, int64_t row) {
    BUG_ON(row < 0 || row >= w->s->rows, "row %lld of %lld", (long long)row, (long long)w->s->rows);
    return w->s->written[row] != 0;
}

int64_t shard_missing(const ShardWriter *w) { return w->missing; }

static Status put(const ShardWriter *w, const void *data, size_t n, int64_t at) {
    for (const char *p = data; n > 0;) {
        ssize_t k = pwrite(w->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0)
            return err_set(ERR_IO, "%s: cannot be written: %s; what is there stays, and the same command goes on from "
                           "it", w->part, strerror(k < 0 ? errno : ENOSPC));
        p += k;
        at += k;
        n -= (size_t)k;
    }
    return OK;
}

static Status mark(ShardWriter *w, int64_t row, uint8_t value) {
    Shard *s = w->s;
    Status st = put(w, &value, 1, s->written_at + row);
    if (st != OK) return st;
    w->missing += s->written[row] - value;
    s->written[row] = value;
    return OK;
}

/* The mark comes last, and goes first when a row is written again. */
Status shard_write(ShardWriter *w, int64_t row, const void *data, float scale) {
    BUG_ON(w->s->scales > 1, "one scale for a row of %lld", (long long)w->s->scales);
    return shard_write_scaled(w, row, data, &scale);
}

Status shard_write_scaled(ShardWriter *w, int64_t row, const void *data, const float *scales) {
    Shard *s = w->s;
    Status st = shard_has(w, row) ? mark(w, row, 0) : OK;    /* killed in between, the row is half old and half new */
    if (st == OK) st = put(w, data, s->row_bytes, s->features_at + row * (int64_t)s->row_bytes);
    uint32_t crc = crc32c(0, data, s->row_bytes);
    if (s->scale) {
        size_t bytes = 4 * (size_t)s->scales;
        crc = crc32c(crc, scales, bytes);
        memcpy(s->scale + row * s->scales, scales, bytes);
        if (st == OK) st = put(w, scales, bytes, s->scale_at + (int64_t)bytes * row);
    }
    s->crc[row] = crc;
    if (st == OK) st = put(w, &crc, 4, s->crc_at + 4 * row);
    return st == OK ? mark(w, row, 1) : st;
}

Status shard_finish(ShardWriter *w) {
    Status st = OK;
    if (w->missing)
        st = err_set(ERR_USAGE, "%s: %" PRId64 " of %" PRId64 " rows have not been written", w->part, w->missing,
                     w->s->rows);
    else if (fsync(w->fd) != 0) /* before the name: a renamed file that is not on the disk looks finished */
        st = err_set(ERR_IO, "%s: cannot be flushed to the disk: %s", w->part, strerror(errno));
    if (st == OK) st = outfile_rename(w->part, w->path);
    if (st == OK) st = outfile_sync_parent(w->path);
    shard_abandon(w);
    return st;
}

void shard_drop(ShardWriter *w) {
    unlink(w->part);
    shard_abandon(w);
}

void shard_abandon(ShardWriter *w) {
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    shard_close(w->s);
    mem_free(w->path, w->part, w->found, w);
}
