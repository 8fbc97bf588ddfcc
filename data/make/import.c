/* import: see import.h. First every row of the array gets its place or none (match), then rows are moved (copy). */
#include "data/make/import.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/features.h"
#include "data/fingerprint.h"
#include "data/format/path.h"
#include "data/make/annotation_names.h"
#include "data/make/import_ids.h"
#include "data/setout.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

enum { MAX_VIEW = 1024, TELL_EVERY = 256 };

typedef struct {
    const ImportSpec *spec;
    ImportReport *rep;
    Annotations a;
    ImportSource src;
    ImportIds ids;
    int64_t *image;            /* (N) index into a.images of each row, -1: none */
    int *view;                 /* (N) */
    int64_t *place;            /* (a.count) index of an image among those that are imported, -1: left out */
    bool *empty;               /* (a.count) its rows are all zero and skipped */
    int64_t images, views;
    int64_t zero, first_zero;  /* rows that are all zero and refused */
    ShardItem *items;          /* (images) */
} Import;

static const char *ids_file(const Import *m) {
    return m->spec->ids && m->spec->ids[0] ? m->spec->ids : m->spec->features;
}

/* ---- where each row goes ----------------------------------------------------------------------------------------- */

/* Cuts a trailing "#12" off and returns 12; 0 when there is none. -1: too many views to be true. */
static int cut_view(char *id) {
    char *hash = strrchr(id, '#');
    if (!hash || !hash[1] || strspn(hash + 1, "0123456789") != strlen(hash + 1)) return 0;
    long v = strtol(hash + 1, NULL, 10);
    *hash = 0;
    return v < MAX_VIEW ? (int)v : -1;                       /* room is made for every view of every image */
}

/* The length of a base name without an ending that says picture or array. */
static size_t stem_length(const char *base) {
    static const char *const arrays[] = {".npy", ".npz", ".pt", ".pth", ".json", ".txt", NULL};
    const char *dot = strrchr(base, '.');
    bool known = dot && dot > base && (annotation_is_picture(base) || path_ends_in(base, arrays));
    return known ? (size_t)(dot - base) : strlen(base);
}

/* What a name is called at a level; NULL: nothing, or memory ran out. COCO's number: the digits that are all of the
 * stem, or follow its last '_', without leading zeros. */
static char *key_at(ImportMatch level, const char *name) {
    const char *base = path_base(name);
    size_t n = stem_length(base), digits = 0;
    if (level == MATCH_BASE) return mem_strdup(base);
    if (level == MATCH_STEM) return mem_format("%.*s", (int)n, base);
    while (digits < n && base[n - 1 - digits] >= '0' && base[n - 1 - digits] <= '9') digits++;
    /* more would overflow, and is no COCO number */
    if (!digits || digits > 18 || (digits < n && base[n - 1 - digits] != '_')) return NULL;
    return mem_format("%lld", strtoll(base + n - digits, NULL, 10));
}

/* Names of annotated images at one level; -2 where two images share one. */
typedef struct { StrMap map; char **key; int64_t n; } Level;

static Status level_open(Level *l, ImportMatch level, const Annotations *a) {
    if (!(l->key = mem_new((size_t)a->count, sizeof *l->key))) return ERR_MEMORY;
    for (int64_t i = 0; i < a->count; i++) {
        char *key = l->key[l->n++] = key_at(level, a->images[i].image);
        int64_t *known = key ? strmap_get(&l->map, key) : NULL;
        if (known) *known = -2;                              /* two images share it, so it finds neither */
        else if (key && strmap_put(&l->map, key, i) != OK) return ERR_MEMORY;
    }
    return OK;
}

static void level_close(Level *l) {
    mem_free_list(l->key, (size_t)l->n);
    strmap_free(&l->map);
}

/* By full name, else by base name, else without its ending, else by COCO's number. */
static Status find_image(const Import *m, const Level *level, const char *id, int64_t *image, ImportMatch *by) {
    *by = MATCH_NAME;
    *image = annotations_find(&m->a, id);
    for (int k = MATCH_BASE; *image < 0 && k < MATCH_LEVELS; k++) { /* from sure to guessed */
        char *key = key_at((ImportMatch)k, id);
        const int64_t *found = key ? strmap_get(&level[k].map, key) : NULL;
        free(key);
        if (found && *found == -2)
            return err_set(ERR_FORMAT, "%s: id %s fits several annotated images called %s; full names are needed",
                           ids_file(m), id, path_base(id));
        if (found) *image = *found, *by = (ImportMatch)k;
    }
    return OK;
}

static Status match_row(Import *m, const Level *level, int64_t n) {
    char *id = m->ids.id[n];
    ImportMatch by = MATCH_NAME;
    if ((m->image[n] = annotations_find(&m->a, id)) < 0) {                  /* a name may end in "#1" */
        if ((m->view[n] = cut_view(id)) < 0)
            return err_set(ERR_FORMAT, "%s: id %lld: %s asks for a view beyond %d", ids_file(m), (long long)n + 1, id,
                           MAX_VIEW - 1);
        Status st = find_image(m, level, id, &m->image[n], &by);
        if (st != OK) return st;
    }
    if (m->image[n] >= 0) m->rep->matched[by]++;
    else if (!m->rep->extra++) snprintf(m->rep->first_extra, sizeof m->rep->first_extra, "%.*s", 255, id);
    return OK;
}

static Status match_rows(Import *m) {
    Level level[MATCH_LEVELS] = {0};
    Status st = OK;
    for (int k = MATCH_BASE; k < MATCH_LEVELS && st == OK; k++) st = level_open(&level[k], (ImportMatch)k, &m->a);
    for (int64_t n = 0; n < m->src.N && st == OK; n++) st = match_row(m, level, n);
    for (int k = MATCH_BASE; k < MATCH_LEVELS; k++) level_close(&level[k]);
    return st;
}

static RowKind kind_of_row(const ImportSource *s, const void *row) {
    return features_kind(row, s->row_bytes, (size_t)dtype_size(s->dtype));
}

/* Rows that nobody computed do not count as there, and their images not as missing. */
static Status skip_zero_rows(Import *m) {
    void *row = mem_new(m->src.row_bytes, 1);
    Status st = row ? OK : ERR_MEMORY;
    for (int64_t n = 0; n < m->src.N && st == OK; n++) {
        st = import_source_next(&m->src, row);
        if (st != OK || m->image[n] < 0 || kind_of_row(&m->src, row) != ROW_ZERO) continue;
        m->empty[m->image[n]] = true;                        /* so that its image counts as left out, not as missing */
        m->image[n] = -1;
    }
    free(row);
    return st == OK ? import_source_rewind(&m->src) : st;
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
    memset(seen, 0xff, cells * sizeof *seen);                /* -1: row 0 is a row */
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
        m->place[i] = have == m->views ? m->images++ : -1;   /* an image is in with all its views or not at all */
        if (have < m->views && m->empty[i]) m->rep->zero++;
        else if (have == m->views || m->rep->missing++) continue;
        if (m->empty[i]) continue;
        snprintf(m->rep->first_missing, sizeof m->rep->first_missing, "%.150s of %.60s (%lld of %lld views)",
                 m->a.images[i].image, m->a.images[i].file, (long long)have, (long long)m->views);
    }
    free(seen);
    return st;
}

static Status check_match(const Import *m) {
    const ImportReport *r = m->rep;
    if (!m->images)
        return err_set(
            ERR_FORMAT,
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
    m->empty = mem_new((size_t)m->a.count, sizeof *m->empty);
    if (!m->image || !m->view || !m->place || !m->empty) return ERR_MEMORY;
    m->views = 1;
    Status st = match_rows(m);
    /* another reading of the file, only if asked for */
    if (st == OK && m->spec->zero_rows == ZERO_SKIP) st = skip_zero_rows(m);
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
static const void *converted(const ImportSource *s, DType to, void *row, float *wide, void *out) {
    size_t n = s->row_bytes / (size_t)dtype_size(s->dtype);
    if (!features_finite(row, s->dtype, n)) return NULL;
    if (s->dtype == to) return row;
    dtype_to_f32(wide, row, s->dtype, n);
    dtype_from_f32(out, to, wide, n);
    return features_finite(out, to, n) ? out : NULL;         /* f16 ends at 65,504 */
}

static Status copy_rows(Import *m, ShardWriter *w, DType to) {
    ImportSource *s = &m->src;
    size_t n = s->row_bytes / (size_t)dtype_size(s->dtype);
    void *row = mem_new(s->row_bytes, 1), *out = mem_new(n, (size_t)dtype_size(to));
    float *wide = mem_new(n, sizeof *wide);
    Status st = row && out && wide ? OK : ERR_MEMORY;
    for (int64_t i = 0; i < s->N && st == OK; i++) {
        if ((st = import_source_next(s, row)) != OK) break;
        int64_t image = m->image[i] < 0 ? -1 : m->place[m->image[i]], dst = image * m->views + m->view[i];
        RowKind kind = image < 0 ? ROW_COMPUTED : kind_of_row(s, row); /* what is left out may be anything */
        if (kind == ROW_FLAT && !m->rep->flat++)
            snprintf(m->rep->first_flat, sizeof m->rep->first_flat, "%.150s", m->ids.id[i]);
        if (kind == ROW_ZERO && m->spec->zero_rows == ZERO_REFUSE) {
            if (!m->zero++) m->first_zero = i; /* all are counted before the sentence: one row or half the file */
        } else if (image >= 0 && !shard_has(w, dst)) {
            const void *data = converted(s, to, row, wide, out);
            st = data ? shard_write(w, dst, data, 1)
                      : err_set(ERR_NUMERIC, "%s: row %lld (%s) holds numbers that are not finite as %s",
                                m->spec->features, (long long)i + 1, m->ids.id[i], dtype_name(to));
        }
        if (st == OK && (i % TELL_EVERY == TELL_EVERY - 1 || i == s->N - 1))
            st = listener_tell(&m->spec->listener, i + 1, s->N);
    }
    mem_free(row, out, wide);
    if (st != OK || !m->zero) return st;
    return err_set(ERR_FORMAT,
                   "%s: %lld of %lld rows are all zero, features that nobody computed; the first is row %lld (%s); "
                   "import.zero_rows=skip leaves these images out, import.zero_rows=keep takes them",
                   m->spec->features, (long long)m->zero, (long long)s->N, (long long)m->first_zero + 1,
                   m->ids.id[m->first_zero]);
}

/* The features, and which row goes where. */
static Status fingerprint_rows(const Import *m, uint64_t *made_from) {
    uint64_t h =
        hash_int(hash_text(hash_text(HASH_START, "import"), m->spec->array ? m->spec->array : ""), m->spec->layout);
    Status st = fingerprint_file(&h, m->spec->features);
    for (int64_t n = 0; n < m->src.N; n++)
        /* the same files joined in another way are another set */
        h = hash_int(hash_int(h, m->image[n] < 0 ? -1 : m->place[m->image[n]]), m->view[n]);
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
    /* known before a row is written: a part of other rows is not gone on with */
    if (st == OK) st = fingerprint_rows(m, &shard.made_from);
    if (st == OK) st = setout_open(&out, m->spec->out, 1, m->spec->overwrite);
    if (st == OK) st = setout_shard(&out, 0, &shard, &w);
    if (w && (st = copy_rows(m, w, to)) == OK) st = shard_finish(w);
    else shard_abandon(w);
    return setout_close(&out, st);
}

/* "img_emb_0", "part_00001": pieces of one array as programs number them, from 0. */
static bool numbered_parts(const Import *m) {
    for (int64_t n = 0; n < m->ids.n; n++) {
        const char *id = m->ids.id[n];
        size_t len = strlen(id), digits = 0;
        while (digits < len && isdigit((unsigned char)id[len - 1 - digits])) digits++;
        /* a name of digits alone is COCO's, not a part's */
        if (!digits || digits == len || digits > 9 || strtoll(id + len - digits, NULL, 10) >= m->ids.n) return false;
    }
    return m->src.P > 1;
}

/* Without annotations every id is an image. */
static Status images_of_ids(Import *m) {
    Status st = OK;
    if (m->src.kind == SOURCE_EACH && !(m->spec->ids && m->spec->ids[0]) && numbered_parts(m))
        return err_set(ERR_USAGE,
                       "%s: holds %lld array%s called like %s, which may be the parts of one set as well as one an "
                       "image; import.ids=FILE names the image of each row, extract.annotations=FILE the images",
                       m->spec->features, (long long)m->ids.n, m->ids.n > 1 ? "s" : "", m->ids.id[0]);
    for (int64_t n = 0, index; n < m->ids.n && st == OK; n++) {
        char *id = mem_strdup(m->ids.id[n]);
        if (!id) return ERR_MEMORY;
        cut_view(id);                                        /* "a#1" is a second view of a, not an image */
        st = annotations_add_image(&m->a, id, NULL, false, m->spec->features, &index);
        free(id);
    }
    return st == OK ? annotations_finish(&m->a) : st;
}

static void report(const Import *m, ImportReport *rep) {
    rep->rows = m->src.N;
    rep->arrays = import_source_arrays(&m->src);
    rep->kind = m->src.kind;
    rep->images = m->images;
    rep->views = m->views;
    rep->P = m->src.P;
    rep->E = m->src.E;
    rep->blank = m->a.blank;
    rep->uncaptioned = m->a.uncaptioned;
    rep->imageless = m->a.imageless;
    rep->dtype = m->spec->dtype >= 0 ? (DType)m->spec->dtype : m->src.dtype == DT_F64 ? DT_F32 : m->src.dtype;
}

Status import(const ImportSpec *spec, ImportReport *rep) {
    Import m = {.spec = spec, .rep = rep};
    *rep = (ImportReport){0};
    Status st = spec->nannotations ? annotations_load(&m.a, spec->annotations, spec->nannotations) : OK;
    if (st == OK) st = import_source_open(&m.src, spec->features, spec->array, spec->layout);
    if (st == OK) st = import_ids_read(&m.ids, spec->ids, spec->ids_array, &m.src);
    if (st == OK && !spec->nannotations) st = images_of_ids(&m);
    if (st == OK) st = match(&m);
    if (st == OK) {
        report(&m, rep);
        st = copy(&m);
    }
    mem_free(m.image, m.view, m.place, m.empty, m.items);
    import_ids_free(&m.ids);
    import_source_close(&m.src);
    annotations_free(&m.a);
    return st;
}
