/* shard: see shard.h. */
#include "data/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "data/format/crc32c.h"
#include "kernels/base/mem.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "data sets are little-endian and used as they lie"
#endif

#define FEATURES "/images/features"

/* ---- how features are stored ---- */

static const struct { DType dtype; H5Kind kind; } storage[] = {
    {DT_F16, H5K_F16}, {DT_F32, H5K_F32}, {DT_I8, H5K_I8}, {DT_BF16, H5K_U16}, {DT_E4M3, H5K_U8},
};
enum { NSTORAGE = sizeof storage / sizeof storage[0] };

H5Kind shard_kind(DType t) {
    for (int i = 0; i < NSTORAGE; i++)
        if (storage[i].dtype == t) return storage[i].kind;
    return H5K_OTHER;
}

/* ---- tables ---- */

/* A whole table of `want` rows (-1: any number, told in *count) into a new block.
 * at: where it lies, -1 if not plain. */
static Status table(H5File *f, const char *path, const char *file, H5Kind as, size_t size, int64_t want, void *dst,
                    int64_t *count, int64_t *at) {
    H5Info info;
    Status st = h5_info(f, path, &info);
    if (st != OK) return st;
    if (info.ndim != 1) return err_set(ERR_FORMAT, "%s: %s has %d dimensions, it must have 1", file, path, info.ndim);
    if (want >= 0 && info.count != want)
        return err_set(ERR_FORMAT, "%s: %s has %" PRId64 " entries, it must have %" PRId64, file, path, info.count,
                       want);
    void *p = mem_new((size_t)info.count, size);
    if (!p) return err_context(ERR_MEMORY, "%s: %s", file, path);
    if ((st = h5_get(f, path, &info, as, p)) != OK) {
        free(p);
        return st;
    }
    memcpy(dst, &p, sizeof p);                               /* dst is a pointer to a pointer of some type */
    if (count) *count = info.count;
    if (at) *at = info.kind == as ? info.offset : -1;
    return OK;
}

static Status column(H5File *f, const char *path, const char *file, int64_t images, TextColumn *c) {
    H5Info info;
    Status st = h5_info(f, path, &info);
    if (st != OK) return st;
    if (info.kind != H5K_TEXT || info.ndim != 1)
        return err_set(ERR_FORMAT, "%s: %s must be a list of strings of a fixed width", file, path);
    if (info.count != images)
        return err_set(ERR_FORMAT, "%s: %s has %" PRId64 " entries for %" PRId64 " images", file, path, info.count,
                       images);
    c->stride = info.size + 1;
    c->text = mem_new((size_t)images, c->stride);
    if (!c->text) return err_context(ERR_MEMORY, "%s: %s", file, path);
    return h5_get(f, path, &info, H5K_TEXT, c->text);
}

/* Pointers into a list of `end` things: from 0, never falling, to the end. */
static Status check_pointers(const char *file, const char *path, const uint64_t *p, int64_t n, int64_t end) {
    if (p[0] != 0) return err_set(ERR_FORMAT, "%s: %s starts at %" PRIu64 ", it must start at 0", file, path, p[0]);
    for (int64_t i = 0; i < n; i++)
        if (p[i + 1] < p[i]) return err_set(ERR_FORMAT, "%s: %s falls after entry %" PRId64, file, path, i);
    if (p[n] != (uint64_t)end)
        return err_set(ERR_FORMAT, "%s: %s ends at %" PRIu64 ", it must end at %" PRId64, file, path, p[n], end);
    return OK;
}

/* ---- opening, part by part ---- */

static Status read_fingerprint(Shard *s, H5File *f) {
    char *text, *end;
    if (!h5_has_attr(f, "/", "made_from")) return OK;
    Status st = h5_get_text(f, "/", "made_from", &text);
    if (st != OK) return st;
    s->made_from = strtoull(text, &end, 16);
    if (*end || end != text + 16)
        st = err_set(ERR_FORMAT, "%s: attribute \"made_from\" of / must be a hexadecimal number of 16 digits", s->path);
    free(text);
    return st;
}

static Status read_header(Shard *s, H5File *f) {
    char *format = NULL;
    int64_t version = 0, ln = 0;
    Status st = h5_get_text(f, "/", "format", &format);
    if (st != OK || strcmp(format, "qformer-shard") != 0) {
        st = err_set(ERR_FORMAT,
                     "%s: is an HDF5 file but not a shard (attribute \"format\" of / must be \"qformer-shard\")",
                     s->path);
        goto done;
    }
    if ((st = h5_get_int(f, "/", "version", &version)) != OK) goto done;
    /* a later version may lay rows out in a way that would be read as wrong numbers */
    if (version != 1 && version != 2) {
        st = err_set(ERR_FORMAT, "%s: has version %" PRId64 " of the format, this program reads 1 and 2", s->path,
                     version);
        goto done;
    }
    char *value;                                             /* owned: shard_close frees them */
#define X(field)                                                                     \
    if ((st = h5_get_text(f, "/encoder", #field, &value)) != OK) goto done;          \
    s->encoder.field = value;
    ENCODER_TEXTS(X)
#undef X
    if ((st = h5_get_int(f, "/encoder", "ln_applied", &ln)) != OK) goto done;
    s->encoder.ln_applied = ln != 0;
    if ((st = read_fingerprint(s, f)) != OK) goto done;
    if ((st = h5_get_int(f, "/images", "views", &s->views)) != OK) goto done;
    if (s->views < 1 || s->views > 1 << 20)
        st = err_set(ERR_FORMAT, "%s: %" PRId64 " views of an image are impossible", s->path, s->views);
done:
    free(format);
    return st;
}

static Status find_dtype(Shard *s, H5File *f, const H5Info *info) {
    char *name = NULL;
    Status st = OK;
    int dtype = -1;
    if (h5_has_attr(f, FEATURES, "dtype")) {
        if ((st = h5_get_text(f, FEATURES, "dtype", &name)) != OK) return st;
        dtype = dtype_from_name(name);
    } else if (info->kind == H5K_F16 || info->kind == H5K_F32 || info->kind == H5K_I8) {
        dtype = info->kind == H5K_F16 ? DT_F16 : info->kind == H5K_F32 ? DT_F32 : DT_I8;
    }
    if (dtype < 0 || shard_kind((DType)dtype) == H5K_OTHER || shard_kind((DType)dtype) != info->kind)
        st = err_set(ERR_FORMAT, "%s: " FEATURES " has elements of a type that does not fit its attribute dtype \"%s\" "
                     "(f16 bf16 f32 e4m3 i8, little-endian)", s->path, name ? name : "");
    else s->dtype = (DType)dtype;
    free(name);
    return st;
}

/* Where the rows lie. */
static Status place_rows(Shard *s, H5File *f, const H5Info *info) {
    enum { MOST_CHUNKS = 16384 };              /* looking one up takes the library time linear in their number */
    s->features_at = info->offset;
    if (info->offset >= 0 || s->rows == 0) return OK;
    bool row_chunks = info->chunk[0] == 1 && info->chunk[1] == info->dim[1] && info->chunk[2] == info->dim[2];
    /* a row a chunk, as h5py writes them: still one pread a row */
    if (row_chunks && !info->filtered && s->rows <= MOST_CHUNKS) {
        bool all = false;
        s->row_at = mem_new((size_t)s->rows, sizeof *s->row_at);
        if (!s->row_at) return ERR_MEMORY;
        Status st = h5_row_offsets(f, FEATURES, info, s->row_at, &all);
        if (st != OK || all) return st;
        free(s->row_at);
        s->row_at = NULL;
    }
    s->h5 = f;
    s->warning = mem_format("%s: features are %s and must be read through HDF5, which is slow; 'qformer repack' makes "
                            "a plain copy", s->path, info->filtered ? "compressed" : "not stored row by row");
    return s->warning ? OK : ERR_MEMORY;
}

static Status read_features(Shard *s, H5File *f) {
    H5Info info;
    Status st = h5_info(f, FEATURES, &info);
    if (st != OK) return st;
    if (info.ndim != 3)
        return err_set(ERR_FORMAT, "%s: " FEATURES " has %d dimensions, it must have 3 (rows, tokens, width)", s->path,
                       info.ndim);
    s->rows = info.dim[0];
    s->P = info.dim[1];
    s->E = info.dim[2];
    /* products of these are sizes everywhere else, and are not checked there again */
    if (s->P < 1 || s->E < 1 || s->P > INT32_MAX || s->E > INT32_MAX || s->P * s->E > INT32_MAX)
        return err_set(ERR_FORMAT, "%s: %" PRId64 " tokens of width %" PRId64 " are impossible", s->path, s->P, s->E);
    if (s->rows % s->views != 0)
        return err_set(ERR_FORMAT, "%s: %" PRId64 " rows cannot be images of %" PRId64 " views each", s->path, s->rows,
                       s->views);
    s->images = s->rows / s->views;
    if ((st = find_dtype(s, f, &info)) != OK) return st;
    s->row_bytes = (size_t)(s->P * s->E) * info.size;
    return place_rows(s, f, &info);
}

static Status check_rows(const Shard *s, bool unfinished) {
    int64_t missing = 0, first = -1;
    for (int64_t i = 0; s->written && i < s->rows; i++) {    /* foreign shards have no marks: all is there */
        if (s->written[i]) continue;
        if (first < 0) first = i;
        missing++;
    }
    if (missing && !unfinished)
        return err_set(ERR_FORMAT, "%s: %" PRId64 " of %" PRId64 " rows are not written (row %" PRId64 " is the first)"
                       ": the command that makes it was not finished", s->path, missing, s->rows, first);
    for (int64_t i = 0; s->scale && i < s->rows * s->scales; i++)
        /* a row that is not written yet has no scale either */
        if (!isfinite(s->scale[i]) && (!s->written || s->written[i / s->scales]))
            return err_set(ERR_FORMAT, "%s: /images/scale of row %" PRId64 " is not finite", s->path, i / s->scales);
    /* without one nobody knows what 127 stands for */
    if (s->dtype == DT_I8 && !s->scale) return err_set(ERR_FORMAT, "%s: i8 features need /images/scale", s->path);
    return OK;
}

/* One a row, or, since version 2, one a token. */
static Status read_scales(Shard *s, H5File *f) {
    int64_t count = 0;
    if (!h5_has(f, "/images/scale")) return OK;
    Status st = table(f, "/images/scale", s->path, H5K_F32, 4, -1, &s->scale, &count, &s->scale_at);
    if (st != OK) return st;
    /* told apart by their number: no attribute says which */
    s->scales = count == s->rows || !s->rows ? 1 : s->P;
    if (count == s->rows * s->scales) return OK;
    return err_set(ERR_FORMAT,
                   "%s: /images/scale has %" PRId64 " entries, it must have %" PRId64 " (one a row) or %" PRId64
                   " (one a token)", s->path, count, s->rows, s->rows * s->P);
}

static Status read_images(Shard *s, H5File *f, bool unfinished) {
    Status st = read_scales(s, f);
    if (st == OK && h5_has(f, "/images/crc32c"))
        st = table(f, "/images/crc32c", s->path, H5K_U32, 4, s->rows, &s->crc, NULL, &s->crc_at);
    if (st == OK && h5_has(f, "/images/written"))
        st = table(f, "/images/written", s->path, H5K_U8, 1, s->rows, &s->written, NULL, &s->written_at);
    if (st == OK) st = check_rows(s, unfinished);
    if (st == OK) st = column(f, "/images/image_id", s->path, s->images, &s->image_id);
    if (st == OK) st = column(f, "/images/split", s->path, s->images, &s->split);
    if (st == OK && h5_has(f, "/images/source")) st = column(f, "/images/source", s->path, s->images, &s->source);
    if (st == OK && !s->crc && !s->warning) {
        s->warning = mem_format("%s: has no checksums, so damage will not be noticed; 'qformer repack' adds them",
                                s->path);
        if (!s->warning) st = ERR_MEMORY;
    }
    return st;
}

static Status read_captions(Shard *s, H5File *f) {
    int64_t nbytes = 0;
    if (!h5_has(f, "/captions/first")) return OK;
    Status st = table(f, "/captions/first", s->path, H5K_U64, 8, s->images + 1, &s->first, NULL, NULL);
    if (st == OK) st = table(f, "/captions/offset", s->path, H5K_U64, 8, -1, &s->offset, &s->captions, NULL);
    if (st == OK) st = table(f, "/captions/bytes", s->path, H5K_U8, 1, -1, &s->bytes, &nbytes, NULL);
    if (st != OK) return st;
    if (s->captions-- == 0)                                  /* the list of pointers is one longer */
        return err_set(ERR_FORMAT, "%s: /captions/offset is empty, it must have one entry at least", s->path);
    st = check_pointers(s->path, "/captions/first", s->first, s->images, s->captions);
    if (st == OK) st = check_pointers(s->path, "/captions/offset", s->offset, s->captions, nbytes);
    return st;
}

static Status read_tokens(Shard *s, H5File *f) {
    static const char path[] = "/captions/tokens";
    int64_t count = 0;
    char *vocab = NULL, *prompt = NULL, *end = NULL;
    if (!s->first || !h5_has(f, path)) return OK;
    Status st = h5_get_text(f, path, "vocab", &vocab);
    if (st == OK) st = h5_get_text(f, path, "prompt", &prompt);
    s->key.prompt = prompt;
    if (st == OK) st = h5_get_int(f, path, "max_tokens", &s->key.max_tokens);
    if (st == OK) st = h5_get_int(f, path, "max_words", &s->key.max_words);
    if (st == OK)
        st = table(f, "/captions/token_offset", s->path, H5K_U64, 8, s->captions + 1, &s->token_offset, NULL, NULL);
    if (st == OK) st = table(f, path, s->path, H5K_U32, 4, -1, &s->tokens, &count, NULL);
    if (st == OK) st = check_pointers(s->path, "/captions/token_offset", s->token_offset, s->captions, count);
    if (st != OK) goto done;
    s->key.vocab = strtoull(vocab, &end, 16);
    if (*end || end == vocab)
        st = err_set(ERR_FORMAT, "%s: attribute \"vocab\" of %s must be a hexadecimal number", s->path, path);
    for (int64_t m = 0; st == OK && m < s->captions; m++) {
        uint64_t n = s->token_offset[m + 1] - s->token_offset[m];
        /* a caption is [CLS] at least, and a slot has room for max_tokens */
        if (n < 1 || n > (uint64_t)s->key.max_tokens)
            st = err_set(ERR_FORMAT, "%s: caption %" PRId64 " has %" PRIu64 " cached tokens, 1 to %" PRId64 " can be",
                         s->path, m, n, s->key.max_tokens);
    }
done:
    free(vocab);
    return st;
}

Status shard_open(Shard **out, const char *path, bool unfinished) {
    *out = NULL;
    H5File *f = NULL;
    Shard *s = mem_new(1, sizeof *s);
    if (!s) return ERR_MEMORY;
    s->fd = -1;
    /* 0 is a place in a file; -1 says that there is none */
    s->features_at = s->scale_at = s->crc_at = s->written_at = -1;
    Status st = (s->path = mem_strdup(path)) ? h5_open(&f, path) : ERR_MEMORY;
    if (st == OK) st = read_header(s, f);
    if (st == OK) st = read_features(s, f);
    if (st == OK) st = read_images(s, f, unfinished);
    if (st == OK) st = read_captions(s, f);
    if (st == OK) st = read_tokens(s, f);
    /* rows are read by pread at their offsets: HDF5 serves one thread at a time */
    if (st == OK && !s->h5 && (s->fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        st = err_set(ERR_IO, "%s: cannot be opened: %s%s", path, strerror(errno),
                     errno == EMFILE ? " (raise 'ulimit -n', or repack into larger shards)" : "");
    if (f != s->h5) h5_close(f);                             /* kept where rows must come through it */
    if (st == OK) {
        *out = s;
        return OK;
    }
    shard_close(s);
    return st;
}

static void free_const(const char *p) {
    char *q;
    memcpy(&q, &p, sizeof q);
    free(q);
}

void shard_close(Shard *s) {
    if (!s) return;
    if (s->fd >= 0) close(s->fd);
    h5_close(s->h5);
#define X(field) free_const(s->encoder.field);
    ENCODER_TEXTS(X)
#undef X
#define X(field) free(s->field.text);
    SHARD_COLUMNS(X)
#undef X
    free_const(s->key.prompt);
    mem_free(s->row_at, s->scale, s->crc, s->written, s->first, s->offset, s->bytes, s->token_offset, s->tokens,
             s->warning, s->path, s);
}

/* ---- reading ---- */

/* The row at `at`; when it is to be checked a piece at a time, so that the CRC finds what it sums still in the
 * cache. Pieces are slow to come from a disk, one after the other; so if a piece is not in memory yet, the rest of
 * the row is asked for at once (measured on a virtual disk: 0.5 against 0.2 GB/s). */
static Status read_plain(const Shard *s, int64_t row, int64_t at, bool verify, char *dst, uint32_t *crc) {
    const size_t piece = verify ? (size_t)1 << 18 : s->row_bytes;
    int flags = RWF_NOWAIT;
    for (size_t done = 0; done < s->row_bytes;) {
        size_t rest = s->row_bytes - done, n = rest < piece ? rest : piece;
        off_t from = (off_t)(at + (int64_t)done);
        ssize_t k = preadv2(s->fd, &(struct iovec){dst + done, n}, 1, from, flags);
        if (flags && k < (ssize_t)n) {                       /* not in the page cache */
            flags = 0;
            posix_fadvise(s->fd, from, (off_t)rest, POSIX_FADV_WILLNEED);
            if (k <= 0) continue;
        }
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0)
            return err_set(ERR_IO, "%s: row %" PRId64 " cannot be read: %s", s->path, row,
                           k < 0 ? strerror(errno) : "the file has become shorter");
        if (verify) *crc = crc32c(*crc, dst + done, (size_t)k);
        done += (size_t)k;
    }
    return OK;
}

Status shard_read(const Shard *s, int64_t row, bool verify, void *dst) {
    BUG_ON(row < 0 || row >= s->rows, "row %lld of %lld", (long long)row, (long long)s->rows);
    uint32_t crc = 0;
    verify = verify && s->crc;
    Status st;
    if (s->h5) {
        st = h5_rows(s->h5, FEATURES, H5K_OTHER, row, 1, dst);
        if (st == OK && verify) crc = crc32c(0, dst, s->row_bytes);
    } else {
        int64_t at = s->row_at ? s->row_at[row] : s->features_at + row * (int64_t)s->row_bytes;
        st = read_plain(s, row, at, verify, dst, &crc);
    }
    if (st != OK || !verify) return st;
    /* a wrong scale is a wrong row */
    if (s->scale) crc = crc32c(crc, &s->scale[row * s->scales], 4 * (size_t)s->scales);
    if (crc == s->crc[row]) return OK;
    return err_set(ERR_FORMAT, "%s: row %" PRId64 " (image \"%s\") is damaged: its CRC is %08x, it was written with "
                   "%08x", s->path, row, column_text(&s->image_id, row / s->views), crc, s->crc[row]);
}

int64_t shard_captions_of(const Shard *s, int64_t image) {
    return s->first ? (int64_t)(s->first[image + 1] - s->first[image]) : 0;
}

const char *shard_caption(const Shard *s, int64_t image, int64_t k, size_t *n) {
    BUG_ON(image < 0 || image >= s->images || k < 0 || k >= shard_captions_of(s, image), "caption %lld of image %lld",
           (long long)k, (long long)image);
    uint64_t m = s->first[image] + (uint64_t)k;              /* checked when it was opened: no bound here */
    *n = (size_t)(s->offset[m + 1] - s->offset[m]);
    return s->bytes + s->offset[m];
}

/* ---- comparing ---- */

const char *shard_encoder_difference(const EncoderInfo *a, const EncoderInfo *b) {
#define X(field) if (strcmp(a->field, b->field) != 0) return #field;
    ENCODER_TEXTS(X)
#undef X
    return a->ln_applied != b->ln_applied ? "ln_applied" : NULL;
}

Status shard_same_kind(const Shard *a, const Shard *b) {
    const char *field = shard_encoder_difference(&a->encoder, &b->encoder);
    if (field)
        return err_set(ERR_FORMAT, "%s: was made by another encoder than %s: /encoder attribute \"%s\" differs",
                       b->path, a->path, field);
    if (a->P != b->P || a->E != b->E || a->views != b->views || a->dtype != b->dtype)
        return err_set(ERR_FORMAT, "%s: has %" PRId64 " views of %" PRId64 " x %" PRId64 " %s, but %s has %" PRId64
                       " of %" PRId64 " x %" PRId64 " %s", b->path, b->views, b->P, b->E, dtype_name(b->dtype), a->path,
                       a->views, a->P, a->E, dtype_name(a->dtype));
    return OK;
}

static uint32_t add_column(uint32_t c, const TextColumn *t, int64_t n) {
    for (int64_t i = 0; t->text && i < n; i++) {
        const char *s = column_text(t, i);
        c = crc32c(c, s, strlen(s) + 1);                  /* the end mark keeps "ab","c" and "a","bc" apart */
    }
    return c;
}

uint32_t shard_content(const Shard *s) {
    const int64_t shape[4] = {s->rows, s->views, s->P, s->E};
    uint32_t c = crc32c(0, shape, sizeof shape);
    if (s->crc) c = crc32c(c, s->crc, (size_t)s->rows * 4);
#define X(field) c = add_column(c, &s->field, s->images);
    SHARD_COLUMNS(X)
#undef X
    if (!s->first) return c;
    c = crc32c(c, s->first, ((size_t)s->images + 1) * 8);
    c = crc32c(c, s->offset, ((size_t)s->captions + 1) * 8);
    return crc32c(c, s->bytes, (size_t)s->offset[s->captions]);
}
