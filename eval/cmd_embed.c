/* cmd_embed: query features of images and features of texts, as HDF5, for use elsewhere:
 *
 *     /images/queries   f32 (N,Q,Z)   normalised; an image and a text are as similar as the largest of Q dot products
 *     /images/image_id  text (N)
 *     /texts/features   f32 (M,Z)     normalised; /texts/image  i64 (M): the row of its image
 *     /texts/offset     u64 (M+1)     caption m is /texts/bytes [offset[m], offset[m+1])
 *
 * Features are written as they are computed, a block at a time, to a name that becomes the file's when all is there. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/commands.h"
#include "data/format/h5.h"
#include "data/format/outfile.h"
#include "eval/evaluate.h"
#include "eval/result.h"
#include "kernels/base/mem.h"

static const char *image_id(const void *set, int64_t i) {
    const EvalSet *s = set;
    return set_image_id(s->set, s->image[i]);
}

static Status put_captions(H5File *f, const EvalSet *s) {
    int64_t M1 = s->NT + 1, total = 0;
    uint64_t *offset = mem_new((size_t)M1, sizeof *offset);
    int64_t *image = mem_new((size_t)s->NT, sizeof *image);
    char *bytes = NULL;
    Status st = offset && image ? OK : ERR_MEMORY;
    for (int pass = 0; st == OK && pass < 2; pass++) {       /* lengths first, then the bytes at once */
        if (pass && !(bytes = mem_new((size_t)total, 1))) st = ERR_MEMORY;
        int64_t at = 0;
        for (int64_t t = 0; st == OK && t < s->NT; t++) {
            size_t n;
            const char *text = set_caption(s->set, s->image[s->owner[t]], s->caption[t], &n);
            if (pass) memcpy(bytes + at, text, n);
            at += (int64_t)n;
            offset[t + 1] = (uint64_t)at;
            image[t] = s->owner[t];
        }
        total = at;
    }
    if (st == OK) st = h5_put(f, "/texts/image", H5K_I64, 0, 1, &s->NT, image);
    if (st == OK) st = h5_put(f, "/texts/offset", H5K_U64, 0, 1, &M1, offset);
    if (st == OK) st = h5_put(f, "/texts/bytes", H5K_U8, 0, 1, &total, bytes);
    mem_free(offset, image, bytes);
    return st;
}

/* Everything but the features, for which there is room at *queries and *features. */
static Status lay_out(const Evaluation *e, const char *path, int64_t *queries, int64_t *features) {
    const EvalSet *s = &e->set;
    const Dims *d = &e->use.d;
    int64_t I[3] = {s->NI, d->Q, d->Z}, T[2] = {s->NT, d->Z};
    H5File *f = NULL;
    H5Info info;
    Status st = h5_create(&f, path, 4096);
    if (st == OK) st = h5_put_text(f, "/", "format", "qformer-embeddings");
    if (st == OK) st = h5_put_int(f, "/", "version", 1);
    if (st == OK) st = h5_put_text(f, "/", "model", e->use.path);
    if (st == OK) st = h5_put_int(f, "/", "step", e->use.step);
    if (st == OK) st = h5_group(f, "/images");
    /* NULL: room alone, filled as it is computed */
    if (st == OK) st = h5_put(f, "/images/queries", H5K_F32, 0, 3, I, NULL);
    if (st == OK) st = h5_put_texts(f, "/images/image_id", s->NI, image_id, s);
    if (st == OK && s->NT) {
        st = h5_group(f, "/texts");
        if (st == OK) st = h5_put(f, "/texts/features", H5K_F32, 0, 2, T, NULL);
        if (st == OK) st = put_captions(f, s);
        if (st == OK) st = h5_info(f, "/texts/features", &info);
        if (st == OK) *features = info.offset;
    }
    if (st == OK) st = h5_info(f, "/images/queries", &info);
    if (st == OK) *queries = info.offset;
    Status closed = h5_close(f);
    return st == OK ? closed : st;
}

static Status put_at(int fd, const char *path, const float *x, int64_t n, int64_t at) {
    const char *p = (const char *)x;
    for (size_t left = (size_t)n * sizeof *x; left;) {
        ssize_t k = pwrite(fd, p, left, at);
        if (k < 0 && errno == EINTR) continue;
        /* nothing was taken and nothing went wrong: that is a full disk */
        if (k <= 0) return err_set(ERR_IO, "%s cannot be written: %s", path, strerror(k ? errno : ENOSPC));
        p += k, at += k, left -= (size_t)k;
    }
    return OK;
}

static Status fill(Evaluation *e, const char *path, int64_t queries, int64_t features) {
    const EvalSet *s = &e->set;
    /* several batches a write; all of COCO would be 4 GB */
    int64_t block = 8 * e->enc.batch, image = (int64_t)e->use.d.Q * e->use.d.Z, Z = e->use.d.Z;
    float *x = mem_new((size_t)block, (size_t)image * sizeof *x);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    EvalProgress p = evaluation_progress(e, "embed", "images and texts", s->NI + s->NT);
    Status st = !x ? ERR_MEMORY : fd < 0 ? err_set(ERR_IO, "%s cannot be opened: %s", path, strerror(errno)) : OK;
    for (int64_t i = 0; st == OK && i < s->NI; i += block) {
        int64_t n = s->NI - i < block ? s->NI - i : block;
        st = evalset_encode_images(s, &e->enc, i, n, x, &p);
        if (st == OK) st = put_at(fd, path, x, n * image, queries + i * image * (int64_t)sizeof *x);
    }
    for (int64_t t = 0; st == OK && t < s->NT; t += block) {
        int64_t n = s->NT - t < block ? s->NT - t : block;
        st = evalset_encode_texts(s, &e->enc, t, n, x, &p);
        if (st == OK) st = put_at(fd, path, x, n * Z, features + t * Z * (int64_t)sizeof *x);
    }
    /* before the name: it must not stand for bytes that are not there */
    if (st == OK && fsync(fd) != 0) st = err_set(ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    if (st == OK) evaluation_progress_end(e, &p);
    free(x);
    return st;
}

Status cmd_embed(const Options *o) {
    Evaluation e = {0};
    char *path = NULL, *part = NULL;
    int64_t queries = 0, features = 0;
    Status st = options_require(o, "out");
    if (st == OK) st = evaluation_open(&e, o, &(EvaluationSpec){.split = true, .result = "embeddings.h5"});
    if (st != OK) return st;
    if (o->run.dry_run) {
        options_print(o, stdout);
        status_say("%lld images and %lld texts", (long long)e.set.NI, (long long)e.set.NT);
        goto done;
    }
    if ((st = result_path(o, "embeddings.h5", &path))) goto done;
    part = mem_format("%s.part", path);
    st = part ? lay_out(&e, part, &queries, &features) : ERR_MEMORY;
    if (st == OK) st = fill(&e, part, queries, features);
    if (st == OK) st = outfile_rename(part, path);
    if (st == OK) st = outfile_sync_parent(path);
    if (st == OK)
        status_say("%s: %lld images of %d queries of %d, %lld texts", path, (long long)e.set.NI, e.use.d.Q, e.use.d.Z,
                   (long long)e.set.NT);
    else if (part) unlink(part);                             /* a file with holes is no result */
done:
    mem_free(part, path);
    evaluation_close(&e);
    return st;
}
