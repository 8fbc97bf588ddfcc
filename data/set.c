/* set: see set.h. */
#include "data/set.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "data/fingerprint.h"
#include "data/source.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

typedef struct {
    Shard *s;                      /* NULL: another part's, or missing */
    const SourceFile *file;
    int64_t first, images;
} Entry;

struct Set {
    char *path;
    Source source;
    Entry *entry;                  /* (n) */
    int64_t n, images, captions;
    const Shard *any;              /* some shard that is open */
    int part, parts;
    bool allow_missing, scaled;
    int64_t scales;
};

/* ---- opening ---- */

/* Each shard keeps a file open; the usual soft limit is 1024. */
static void allow_files(int64_t n) {
    struct rlimit r;
    /* fewer leave room for all else */
    if (n < 500 || getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= r.rlim_max) return;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

static Status open_entry(Set *s, Entry *e) {
    const SourceFile *f = e->file;
    struct stat sb;
    if (f->listed && stat(f->path, &sb) != 0 && errno == ENOENT)
        /* asked again when somebody wants what lies there */
        return s->allow_missing ? OK : err_set(ERR_IO, "%s: is missing, %s lists it", f->path, f->manifest);
    Status st = shard_open(&e->s, f->path, false);
    if (st == OK) st = source_check(f, e->s);
    if (st == OK && s->any) st = shard_same_kind(s->any, e->s);
    if (st != OK) return st;
    if (!s->any) s->any = e->s;                              /* what the others are compared with */
    s->scaled |= e->s->scale != NULL;
    if (e->s->scales > s->scales) s->scales = e->s->scales;
    s->captions += e->s->captions;
    e->images = e->s->images;
    return OK;
}

static Status open_entries(Set *s) {
    allow_files(s->source.n / s->parts);
    if (!(s->entry = mem_new((size_t)s->source.n, sizeof *s->entry))) return ERR_MEMORY;
    for (int64_t k = 0; k < s->source.n; k++) {
        const SourceFile *f = &s->source.file[k];
        Entry *e = &s->entry[k];
        *e = (Entry){.file = f, .first = s->images, .images = f->listed ? f->listed->images : 0};
        s->n = k + 1;
        if (s->parts > 1 && !f->listed)                      /* sizes of what others hold are known from it alone */
            return err_set(ERR_USAGE, "%s: a set that is read in parts needs a manifest.json", f->path);
        Status st = k % s->parts == s->part ? open_entry(s, e) : OK;
        if (st != OK) return st;
        s->images += e->images;
    }
    if (s->any) return OK;
    return err_set(ERR_USAGE, "%s: has no shard for part %d of %d (%" PRId64 " are listed)", s->path, s->part, s->parts,
                   s->n);
}

/* The split of the image of this name in shard k. */
static const char *split_in(const Set *s, int64_t k, const char *id) {
    const Shard *h = s->entry[k].s;
    int64_t i = 0;
    while (strcmp(column_text(&h->image_id, i), id)) i++;    /* it is there: once, for a sentence */
    return column_text(&h->split, i);
}

/* An image that stands in two shards would be trained on twice, or leak from train into test. */
static Status check_ids(const Set *s) {
    StrMap ids = {0};
    Status st = OK;
    for (int64_t k = 0; k < s->n && st == OK; k++)
        /* ids of shards that other parts hold are not here: each part checks its own */
        for (int64_t i = 0; s->entry[k].s && i < s->entry[k].images && st == OK; i++) {
            const char *id = column_text(&s->entry[k].s->image_id, i);
            const int64_t *before = strmap_get(&ids, id);
            st = before ? err_set(ERR_FORMAT,
                                  "%s: image \"%s\" stands twice in the set, in %s (split %s) and in %s (split %s)",
                                  s->path, id, set_shard(s, *before, NULL)->path, split_in(s, *before, id),
                                  s->entry[k].s->path, column_text(&s->entry[k].s->split, i))
                        : strmap_put(&ids, id, k);
        }
    strmap_free(&ids);
    return st;
}

Status set_open_part(Set **out, const char *path, int part, int parts, bool allow_missing) {
    BUG_ON(parts < 1 || part < 0 || part >= parts, "part %d of %d", part, parts);
    *out = NULL;
    Set *s = mem_new(1, sizeof *s);
    if (!s) return ERR_MEMORY;
    s->part = part;
    s->parts = parts;
    s->allow_missing = allow_missing;
    Status st = (s->path = mem_strdup(path)) ? source_list(&s->source, path) : ERR_MEMORY;
    if (st == OK) st = open_entries(s);
    if (st == OK) st = check_ids(s);
    if (st == OK) {
        *out = s;
        return OK;
    }
    set_close(s);
    return st;
}

Status set_open(Set **s, const char *path) { return set_open_part(s, path, 0, 1, false); }

void set_close(Set *s) {
    if (!s) return;
    for (int64_t i = 0; i < s->n; i++) shard_close(s->entry[i].s);
    source_free(&s->source);
    mem_free(s->entry, s->path, s);
}

/* ---- what it is ---- */

const char *set_path(const Set *s) { return s->path; }

Status set_call(Set *s, const char *name) {
    char *copy = mem_strdup(name);
    if (!copy) return ERR_MEMORY;
    free(s->path);
    s->path = copy;
    return OK;
}

int64_t set_images(const Set *s) { return s->images; }
int64_t set_captions(const Set *s) { return s->captions; }
int64_t set_views(const Set *s) { return s->any->views; }
int64_t set_P(const Set *s) { return s->any->P; }
int64_t set_E(const Set *s) { return s->any->E; }
DType set_dtype(const Set *s) { return s->any->dtype; }
bool set_scaled(const Set *s) { return s->scaled; }
int64_t set_scales(const Set *s) { return s->scales > 1 ? s->scales : 1; }
size_t set_row_bytes(const Set *s) { return s->any->row_bytes; }
const EncoderInfo *set_encoder(const Set *s) { return &s->any->encoder; }
int set_part(const Set *s) { return s->part; }

uint64_t set_fingerprint(const Set *s) {
    uint64_t h = HASH_START;
    for (int64_t k = 0; k < s->n; k++) {
        const Entry *e = &s->entry[k];
        const ManifestShard *m = e->file->listed;
        h = hash_int(h, e->images);
        /* recorded, so that ranks with other shards get the same number */
        h = hash_int(h, m && m->content >= 0 ? m->content : e->s ? (int64_t)shard_content(e->s) : 0);
    }
    return fingerprint_end(h);
}

int set_parts(const Set *s) { return s->parts; }
int64_t set_shards(const Set *s) { return s->n; }

const Shard *set_shard(const Set *s, int64_t k, int64_t *first_image) {
    BUG_ON(k < 0 || k >= s->n, "shard %lld of %lld", (long long)k, (long long)s->n);
    if (first_image) *first_image = s->entry[k].first;
    return s->entry[k].s;
}

const char *set_warning(const Set *s, int64_t i) {
    for (int64_t k = 0; k < s->n; k++)
        if (s->entry[k].s && s->entry[k].s->warning && i-- == 0) return s->entry[k].s->warning;
    return NULL;
}

/* ---- images ---- */

/* The last shard that starts at or before the image: shards without images never hold one. */
static const Entry *entry_of(const Set *s, int64_t image) {
    BUG_ON(image < 0 || image >= s->images, "image %lld of %lld", (long long)image, (long long)s->images);
    int64_t low = 0, high = s->n;
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        if (s->entry[mid].first <= image) low = mid;
        else high = mid;
    }
    return &s->entry[low];
}

static const Shard *shard_of(const Set *s, int64_t image, int64_t *local) {
    const Entry *e = entry_of(s, image);
    BUG_ON(!e->s, "image %lld lies in %s, which is not open", (long long)image, e->file->path);
    *local = image - e->first;
    return e->s;
}

bool set_has(const Set *s, int64_t image) { return entry_of(s, image)->s != NULL; }

const char *set_image_id(const Set *s, int64_t image) {
    const Shard *h = shard_of(s, image, &image);
    return column_text(&h->image_id, image);
}

const char *set_split(const Set *s, int64_t image) {
    const Shard *h = shard_of(s, image, &image);
    return column_text(&h->split, image);
}

const char *set_source(const Set *s, int64_t image) {
    const Shard *h = shard_of(s, image, &image);
    return h->source.text ? column_text(&h->source, image) : "";
}

int64_t set_ncaptions(const Set *s, int64_t image) {
    const Shard *h = shard_of(s, image, &image);
    return shard_captions_of(h, image);
}

const char *set_caption(const Set *s, int64_t image, int64_t k, size_t *n) {
    const Shard *h = shard_of(s, image, &image);
    return shard_caption(h, image, k, n);
}

const uint32_t *set_tokens(const Set *s, int64_t image, int64_t k, const TokenKey *key, int *n) {
    const Shard *h = shard_of(s, image, &image);
    /* a cache made for other words or limits is none: the caller cuts the text itself */
    if (!h->tokens || h->key.vocab != key->vocab || h->key.max_tokens != key->max_tokens ||
        h->key.max_words != key->max_words || strcmp(h->key.prompt, key->prompt ? key->prompt : "") != 0) return NULL;
    BUG_ON(k < 0 || k >= shard_captions_of(h, image), "caption %lld of image %lld", (long long)k, (long long)image);
    uint64_t m = h->first[image] + (uint64_t)k;
    *n = (int)(h->token_offset[m + 1] - h->token_offset[m]);
    return h->tokens + h->token_offset[m];
}

/* ---- splits ---- */

bool set_split_matches(const char *wanted, const char *split) {
    if (!wanted[0]) return true;
    size_t len = strlen(split);
    for (const char *p = wanted;;) {
        size_t n = strcspn(p, ",");
        if (n == 3 && memcmp(p, "all", 3) == 0) return true;
        if (n == len && memcmp(p, split, n) == 0) return true;
        /* Karpathy's rest of val, which everybody trains on */
        if (n == 5 && memcmp(p, "train", 5) == 0 && strcmp(split, "restval") == 0) return true;
        if (!p[n]) return false;
        p += n + 1;
    }
}

/* A shard of this part that should be here and is not, and of whose images some are wanted. */
static Status check_missing(const Set *s, const Entry *e, const char *split) {
    if ((e - s->entry) % s->parts != s->part) return OK;
    for (int64_t i = 0; i < e->file->listed->nsplits; i++)
        if (e->file->listed->split[i].images && set_split_matches(split, e->file->listed->split[i].name))
            return err_set(ERR_USAGE, "%s: is missing, and holds %" PRId64 " images of split \"%s\"", e->file->path,
                           e->file->listed->split[i].images, e->file->listed->split[i].name);
    return OK;
}

void set_name_splits(const Set *s, char *text, size_t size) {
    size_t used = 0;
    const char *seen[8];
    int n = 0;
    text[0] = 0;
    for (int64_t i = 0; i < s->images && n < 8; i++) {       /* a sentence names a few, not hundreds */
        if (!set_has(s, i)) continue;
        const char *split = set_split(s, i);
        int k = 0;
        while (k < n && strcmp(seen[k], split) != 0) k++;
        if (k < n) continue;
        seen[n++] = split;
        int wrote = snprintf(text + used, size - used, "%s\"%.40s\"", used ? ", " : "", split);
        if (wrote > 0) used += (size_t)wrote;
    }
}

Status set_select(const Set *s, const char *split, int64_t **images, int64_t *n) {
    *n = 0;
    *images = mem_new((size_t)s->images, sizeof **images);
    Status st = *images ? OK : ERR_MEMORY;
    for (int64_t k = 0; st == OK && k < s->n; k++) {
        const Entry *e = &s->entry[k];
        if (!e->s) {
            st = check_missing(s, e, split);
            continue;
        }
        for (int64_t i = 0; i < e->images; i++)
            if (set_split_matches(split, column_text(&e->s->split, i))) (*images)[(*n)++] = e->first + i;
    }
    if (st == OK && *n == 0) {
        char there[512];
        set_name_splits(s, there, sizeof there);
        st = err_set(ERR_USAGE, "%s: has no image of split \"%s\"; there are %s", s->path, split,
                     there[0] ? there : "none");
    }
    if (st == OK) return OK;
    free(*images);
    *images = NULL;
    *n = 0;
    return st;
}

SplitCount set_count(const Set *s, const char *split, int part) {
    SplitCount c = {0, 0};
    for (int64_t k = part; k < s->n; k += s->parts) {
        const Entry *e = &s->entry[k];
        /* the manifest has counted: no shard need be read */
        for (int64_t i = 0; e->file->listed && i < e->file->listed->nsplits; i++) {
            const ManifestSplit *p = &e->file->listed->split[i];
            if (!set_split_matches(split, p->name)) continue;
            c.captioned += p->captioned;
            c.captions += p->captions;
        }
        for (int64_t i = 0; !e->file->listed && i < e->images; i++) {
            if (!set_split_matches(split, column_text(&e->s->split, i))) continue;
            int64_t captions = shard_captions_of(e->s, i);
            c.captioned += captions > 0;
            c.captions += captions;
        }
    }
    return c;
}

/* ---- features ---- */

Status set_read_row(const Set *s, int64_t row, bool verify, void *dst, float *scale) {
    int64_t views = s->any->views, image = row / views, local;
    const Entry *e = entry_of(s, image);
    if (!e->s)
        return err_set(ERR_USAGE, "%s: is missing here, and holds image %" PRId64 " of the set", e->file->path, image);
    local = (image - e->first) * views + row % views;
    /* shards of one scale a row may stand beside others of one a token */
    for (int64_t k = 0, each = e->s->scales > 1; scale && k < set_scales(s); k++)
        scale[k] = each ? e->s->scale[local * e->s->scales + k] : shard_scale(e->s, local);
    return shard_read(e->s, local, verify, dst);
}

Status set_read_rows(const Set *s, const int64_t *rows, int64_t n, void *dst, float *scales) {
    Status st = OK;
    for (int64_t i = 0; st == OK && i < n; i++)
        st = set_read_row(s, rows[i], true, (char *)dst + (size_t)i * s->any->row_bytes,
                          scales ? scales + i * set_scales(s) : NULL);
    return st;
}
