/* import: see import.h. First every row of the array gets its place or none (match), then rows are moved (copy). */
#include "data/make/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/features.h"
#include "data/fingerprint.h"
#include "data/make/import_source.h"
#include "data/setout.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

enum { MAX_VIEW = 1024, TELL_EVERY = 256 };

typedef struct {
    const ImportSpec *spec;
    ImportReport *rep;
    Annotations a;
    Source src;
    Ids ids;
    int64_t *image;            /* (N) index into a.images of each row, -1: none */
    int *view;                 /* (N) */
    int64_t *place;            /* (a.count) index of an image among those that are imported, -1: left out */
    int64_t images, views;
    ShardItem *items;          /* (images) */
} Import;

static const char *ids_file(const Import *m) {
    return m->spec->ids && m->spec->ids[0] ? m->spec->ids : m->spec->features;
}

/* ---- where each row goes ----------------------------------------------------------------------------------------- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Cuts a trailing "#12" off and returns 12; 0 when there is none. -1: too many views to be true. */
static int cut_view(char *id) {
    char *hash = strrchr(id, '#');
    if (!hash || !hash[1] || strspn(hash + 1, "0123456789") != strlen(hash + 1)) return 0;
    long v = strtol(hash + 1, NULL, 10);
    *hash = 0;
    return v < MAX_VIEW ? (int)v : -1;
}

/* Base names of annotated images to their index; -2 where two images share one. */
static Status base_names(const Annotations *a, StrMap *m) {
    for (int64_t i = 0; i < a->count; i++) {
        const char *base = base_name(a->images[i].image);
        int64_t *known = strmap_get(m, base);
        if (known) *known = -2;
        else if (strmap_put(m, base, i) != OK) return ERR_MEMORY;
    }
    return OK;
}

/* By full name, else by base name. */
static Status find_image(const Import *m, const StrMap *bases, const char *id, int64_t *image) {
    *image = annotations_find(&m->a, id);
    if (*image < 0 && !strncmp(id, "./", 2)) *image = annotations_find(&m->a, id + 2);
    const int64_t *base = *image < 0 ? strmap_get(bases, base_name(id)) : NULL;
    if (base && *base == -2)
        return err_set(ERR_FORMAT, "%s: id %s fits several annotated images called %s; full names are needed",
                       ids_file(m), id, base_name(id));
    if (base) *image = *base;
    return OK;
}

static Status match_rows(Import *m) {
    StrMap bases = {0};
    Status st = base_names(&m->a, &bases);
    for (int64_t n = 0; n < m->src.N && st == OK; n++) {
        char *id = m->ids.id[n];
        if ((m->image[n] = annotations_find(&m->a, id)) >= 0) continue;      /* also a name that ends in "#1" */
        m->view[n] = cut_view(id);
        if (m->view[n] < 0) {
            st = err_set(ERR_FORMAT, "%s: id %lld: %s asks for a view beyond %d", ids_file(m), (long long)n + 1, id,
                         MAX_VIEW - 1);
            break;
        }
        st = find_image(m, &bases, id, &m->image[n]);
        if (st != OK || m->image[n] >= 0) continue;
        if (!m->rep->extra++) snprintf(m->rep->first_extra, sizeof m->rep->first_extra, "%.*s", 255, id);
    }
    strmap_free(&bases);
    return st;
}

/* Every image needs one row for each view. `seen` (count, views) holds the row of each, or -1. */
static Status check_views(Import *m) {
    for (int64_t n = 0; n < m->src.N; n++)
        if (m->image[n] >= 0 && m->view[n] >= m->views) m->views = m->view[n] + 1;
    size_t cells;
    if (!mem_mul((size_t)m->a.count, (size_t)m->views, &cells)) return err_set(ERR_FORMAT, "too many views");
    int64_t *seen = mem_new(cells, sizeof *seen);
    if (!seen) return ERR_MEMORY;
    Status st = OK;
    memset(seen, 0xff, cells * sizeof *seen);
    for (int64_t n = 0; n < m->src.N && st == OK; n++) {
        if (m->image[n] < 0) continue;
        int64_t *cell = &seen[m->image[n] * m->views + m->view[n]];
        if (*cell >= 0)
            st = err_set(ERR_FORMAT, "%s: ids %lld and %lld are both view %d of image %s", ids_file(m),
                         (long long)*cell + 1, (long long)n + 1, m->view[n], m->a.images[m->image[n]].image);
        *cell = n;
    }
    for (int64_t i = 0; i < m->a.count && st == OK; i++) {
        int64_t have = 0;
        for (int64_t v = 0; v < m->views; v++) have += seen[i * m->views + v] >= 0;
        m->place[i] = have == m->views ? m->images++ : -1;
        if (have == m->views || m->rep->missing++) continue;
        snprintf(m->rep->first_missing, sizeof m->rep->first_missing, "%.150s of %.60s (%lld of %lld views)",
                 m->a.images[i].image, m->a.images[i].file, (long long)have, (long long)m->views);
    }
    free(seen);
    return st;
}

static Status check_match(const Import *m) {
    const ImportReport *r = m->rep;
    if (!m->images)
        return err_set(ERR_FORMAT,
                       "none of the %lld ids of %s is an annotated image; the first id is %s, the first image of %s is %s",
                       (long long)m->src.N, ids_file(m), m->src.N ? m->ids.id[0] : "(none)", m->a.images[0].file,
                       m->a.images[0].image);
    if (r->missing && !m->spec->allow_missing)
        return err_set(ERR_FORMAT,
                       "%lld of %lld annotated images are not among the ids of %s, the first is %s; "
                       "import.allow_missing=true leaves them out",
                       (long long)r->missing, (long long)m->a.count, ids_file(m), r->first_missing);
    if (r->extra && !m->spec->allow_extra)
        return err_set(ERR_FORMAT,
                       "%lld of %lld ids of %s belong to no annotated image, the first is %s; "
                       "import.allow_extra=true leaves them out",
                       (long long)r->extra, (long long)m->src.N, ids_file(m), r->first_extra);
    return OK;
}

static Status match(Import *m) {
    m->image = mem_new((size_t)m->src.N, sizeof *m->image);
    m->view = mem_new((size_t)m->src.N, sizeof *m->view);
    m->place = mem_new((size_t)m->a.count, sizeof *m->place);
    if (!m->image || !m->view || !m->place) return ERR_MEMORY;
    m->views = 1;
    Status st = match_rows(m);
    if (st == OK) st = check_views(m);
    return st == OK ? check_match(m) : st;
}

/* ---- moving rows ------------------------------------------------------------------------------------------------- */

static Status make_items(Import *m) {
    if (!(m->items = mem_new((size_t)m->images, sizeof *m->items))) return ERR_MEMORY;
    for (int64_t i = 0; i < m->a.count; i++) {
        const AnnotatedImage *im = &m->a.images[i];
        if (m->place[i] < 0) continue;
        m->items[m->place[i]] = (ShardItem){.image_id = im->image, .split = im->split, .source = im->file,
                                            .ncaptions = im->ncaptions, .captions = im->captions};
        m->rep->captions += im->ncaptions;
    }
    return OK;
}

/* One row in the shard's type: `row` itself when nothing changes, else `out`, by way of f32. NULL: not finite. */
static const void *converted(const Source *s, DType to, void *row, float *wide, void *out) {
    size_t n = s->row_bytes / (size_t)dtype_size(s->dtype);
    if (!features_finite(row, s->dtype, n)) return NULL;
    if (s->dtype == to) return row;
    dtype_to_f32(wide, row, s->dtype, n);
    dtype_from_f32(out, to, wide, n);
    return features_finite(out, to, n) ? out : NULL;
}

static Status copy_rows(Import *m, ShardWriter *w, DType to) {
    Source *s = &m->src;
    size_t n = s->row_bytes / (size_t)dtype_size(s->dtype);
    void *row = mem_new(s->row_bytes, 1), *out = mem_new(n, (size_t)dtype_size(to));
    float *wide = mem_new(n, sizeof *wide);
    Status st = row && out && wide ? OK : ERR_MEMORY;
    for (int64_t i = 0; i < s->N && st == OK; i++) {
        if ((st = source_next(s, row)) != OK) break;
        int64_t image = m->image[i] < 0 ? -1 : m->place[m->image[i]], dst = image * m->views + m->view[i];
        if (image >= 0 && !shard_has(w, dst)) {
            const void *data = converted(s, to, row, wide, out);
            st = data ? shard_write(w, dst, data, 1)
                      : err_set(ERR_NUMERIC, "%s: row %lld (%s) holds numbers that are not finite as %s",
                                m->spec->features, (long long)i + 1, m->ids.id[i], dtype_name(to));
        }
        if (st == OK && (i % TELL_EVERY == TELL_EVERY - 1 || i == s->N - 1))
            st = listener_tell(&m->spec->listener, i + 1, s->N);
    }
    free(row);
    free(out);
    free(wide);
    return st;
}

/* The features, and which row goes where. */
static Status fingerprint_rows(const Import *m, uint64_t *made_from) {
    uint64_t h = hash_text(hash_text(HASH_START, "import"), m->spec->array ? m->spec->array : "");
    Status st = fingerprint_file(&h, m->spec->features);
    for (int64_t n = 0; n < m->src.N; n++) h = hash_int(hash_int(h, m->image[n] < 0 ? -1 : m->place[m->image[n]]), m->view[n]);
    *made_from = fingerprint_end(h);
    return st;
}

static Status copy(Import *m) {
    ShardWriter *w = NULL;
    SetOut out = {0};
    DType to = m->rep->dtype;
    Status st = make_items(m);
    if (st == OK && m->spec->dry_run) return OK;
    ShardSpec shard = {.encoder = m->spec->encoder, .dtype = to, .images = m->images, .views = m->views, .P = m->src.P,
                       .E = m->src.E, .items = m->items};
    if (st == OK) st = fingerprint_rows(m, &shard.made_from);
    if (st == OK) st = setout_open(&out, m->spec->out, 1, m->spec->overwrite);
    if (st == OK) st = setout_shard(&out, 0, &shard, &w);
    if (w && (st = copy_rows(m, w, to)) == OK) st = shard_finish(w);
    else shard_abandon(w);
    return setout_close(&out, st);
}

Status import(const ImportSpec *spec, ImportReport *rep) {
    Import m = {.spec = spec, .rep = rep};
    *rep = (ImportReport){0};
    Status st = annotations_load(&m.a, spec->annotations, spec->nannotations);
    if (st == OK) st = source_open(&m.src, spec->features, spec->array);
    if (st == OK) st = ids_read(&m.ids, spec->ids, spec->ids_array, spec->features);
    if (st == OK && m.ids.n != m.src.N)
        st = err_set(ERR_FORMAT, "%s has %lld rows, but %s %lld ids: one id a row is wanted", spec->features,
                     (long long)m.src.N, ids_file(&m), (long long)m.ids.n);
    if (st == OK) st = match(&m);
    if (st == OK) {
        rep->rows = m.src.N;
        rep->images = m.images;
        rep->views = m.views;
        rep->P = m.src.P;
        rep->E = m.src.E;
        rep->blank = m.a.blank;
        rep->uncaptioned = m.a.uncaptioned;
        rep->dtype = spec->dtype >= 0 ? (DType)spec->dtype : m.src.dtype == DT_F64 ? DT_F32 : m.src.dtype;
        st = copy(&m);
    }
    free(m.image);
    free(m.view);
    free(m.place);
    free(m.items);
    ids_free(&m.ids);
    source_close(&m.src);
    annotations_free(&m.a);
    return st;
}
