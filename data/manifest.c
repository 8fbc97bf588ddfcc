/* manifest: see manifest.h. */
#include "data/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/format/jsonfile.h"
#include "data/format/outfile.h"
#include "data/format/path.h"
#include "data/shard.h"
#include "kernels/base/mem.h"

enum { MOST_SPLITS = 256 };

/* ---- reading ---- */

static bool count_of(const Json *object, const char *key, int64_t *value) {
    return json_int(json_get(object, key), value) && *value >= 0;
}

static Status parse_splits(ManifestShard *s, const Json *splits, const char *name, size_t i) {
    size_t n = json_len(splits), k = 0;
    if (json_type(splits) != J_OBJECT || n > MOST_SPLITS)
        return err_set(ERR_FORMAT, "%s: shards[%zu]: \"splits\" must be an object of at most %d members", name, i,
                       MOST_SPLITS);
    if (!(s->split = mem_new(n, sizeof *s->split))) return ERR_MEMORY;
    const Json *v;
    int64_t images = 0;
    for (const char *key = json_next(splits, NULL, &v); key; key = json_next(splits, key, &v), k++) {
        ManifestSplit *p = &s->split[k];
        s->nsplits = (int64_t)k + 1;
        if (!(p->name = mem_strdup(key))) return ERR_MEMORY;
        if (!count_of(v, "images", &p->images) || !count_of(v, "captioned", &p->captioned) ||
            !count_of(v, "captions", &p->captions) || p->captioned > p->images || p->captions < p->captioned ||
            p->images > s->images - images || p->captions > INT64_C(1) << 48) /* sums of these cannot wrap */
            return err_set(ERR_FORMAT, "%s: shards[%zu]: the counts of split \"%s\" are missing or impossible", name, i,
                           key);
        images += p->images;
    }
    if (images != s->images)
        return err_set(ERR_FORMAT, "%s: shards[%zu]: its splits have %" PRId64 " images together, it has %" PRId64,
                       name, i, images, s->images);
    return OK;
}

static Status parse_shard(ManifestShard *s, const Json *v, const char *name, size_t i) {
    size_t n = 0;
    const char *file = json_str(json_get(v, "file"), &n);
    /* nothing above the manifest; a NUL within would hide the rest */
    if (!file || strlen(file) != n || !path_is_below(file))
        return err_set(ERR_FORMAT, "%s: shards[%zu]: \"file\" must name a file below the manifest's folder", name, i);
    if (!(s->file = mem_strdup(file))) return ERR_MEMORY;
    if (!count_of(v, "images", &s->images) || !count_of(v, "bytes", &s->bytes) || s->images > INT64_C(1) << 40)
        return err_set(ERR_FORMAT, "%s: shards[%zu]: \"images\" and \"bytes\" must be counts", name, i);
    s->content = -1;                                         /* none: 0 is a checksum like any other */
    /* older manifests have none */
    if (json_get(v, "content") && (!count_of(v, "content", &s->content) || s->content > UINT32_MAX))
        return err_set(ERR_FORMAT, "%s: shards[%zu]: \"content\" must be a number of 32 bits", name, i);
    const char *from = json_str(json_get(v, "made_from"), &n);
    if (json_get(v, "made_from") && (!from || n != 16 || strspn(from, "0123456789abcdef") != 16))
        return err_set(ERR_FORMAT, "%s: shards[%zu]: \"made_from\" must be 16 hexadecimal digits", name, i);
    s->made_from = from ? strtoull(from, NULL, 16) : 0;
    return parse_splits(s, json_get(v, "splits"), name, i);
}

static Status from_json(Manifest **out, const Json *doc, const char *name) {
    *out = NULL;
    size_t n = 0;
    int64_t version = 0;
    const char *format = json_str(json_get(doc, "format"), &n);
    if (!format || strcmp(format, "qformer-set") != 0)
        return err_set(ERR_FORMAT, "%s: is not a manifest (\"format\" must be \"qformer-set\")", name);
    if (!json_int(json_get(doc, "version"), &version) || version != 1)
        return err_set(ERR_FORMAT, "%s: has version %" PRId64 ", this program reads 1", name, version);
    const Json *shards = json_get(doc, "shards");
    n = json_len(shards);
    if (json_type(shards) != J_ARRAY || n == 0)
        return err_set(ERR_FORMAT, "%s: \"shards\" must be a list, and not empty", name);
    Manifest *m = mem_new(1, sizeof *m);
    if (!m) return ERR_MEMORY;
    Status st = (m->shard = mem_new(n, sizeof *m->shard)) ? OK : ERR_MEMORY;
    for (size_t i = 0; st == OK && i < n; i++) {
        m->n = (int64_t)i + 1; /* before it is read: what a failure leaves is freed with the list */
        st = parse_shard(&m->shard[i], json_at(shards, i), name, i);
    }
    if (st == OK) *out = m;
    else manifest_free(m);
    return st;
}

/* Of a document that was just parsed, or was not. */
static Status take(Manifest **m, Status st, Json *doc, const char *name) {
    *m = NULL;
    if (st == OK) st = from_json(m, doc, name);
    json_free(doc);
    return st;
}

Status manifest_parse(Manifest **m, const char *text, size_t n, const char *name) {
    Json *doc;
    Status st = json_parse(&doc, text, n, name);
    return take(m, st, doc, name);
}

Status manifest_read(Manifest **m, const char *path) {
    Json *doc;
    Status st = json_parse_file(&doc, path);
    return take(m, st, doc, path);
}

void manifest_free(Manifest *m) {
    if (!m) return;
    for (int64_t i = 0; i < m->n; i++) {
        for (int64_t k = 0; k < m->shard[i].nsplits; k++) free(m->shard[i].split[k].name);
        mem_free(m->shard[i].split, m->shard[i].file);
    }
    mem_free(m->shard, m);
}

/* ---- writing ---- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool is_shard(const char *name) {
    size_t n = strlen(name);
    return n > 3 && name[0] != '.' && strcmp(name + n - 3, ".h5") == 0; /* x.h5.part is not done */
}

Status manifest_scan(const char *dir, char ***names, int64_t *n) {
    *names = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d) return err_set(ERR_IO, "%s: cannot be read: %s", dir, strerror(errno));
    Status st = OK;
    for (struct dirent *e; st == OK && (e = readdir(d));) {
        if (!is_shard(e->d_name)) continue;
        st = mem_room(names, (size_t)*n, 1, sizeof **names);
        if (st == OK && !((*names)[*n] = mem_strdup(e->d_name))) st = ERR_MEMORY;
        if (st == OK) ++*n;
    }
    closedir(d);
    /* a folder's own order is another on every machine */
    if (st == OK && *n) qsort(*names, (size_t)*n, sizeof **names, by_name);
    if (st == OK) return OK;
    mem_free_list(*names, (size_t)*n);
    *names = NULL;
    *n = 0;
    return st;
}

static Status write_splits(JsonWriter *w, const Shard *s) {
    ManifestSplit split[MOST_SPLITS];
    int n = 0;
    for (int64_t i = 0; i < s->images; i++) {
        char *name = s->split.text + (size_t)i * s->split.stride;
        int k = 0;
        while (k < n && strcmp(split[k].name, name) != 0) k++; /* a handful: no table needed */
        if (k == MOST_SPLITS) return err_set(ERR_FORMAT, "%s: has more than %d splits", s->path, MOST_SPLITS);
        if (k == n) split[n++] = (ManifestSplit){name, 0, 0, 0};
        int64_t captions = shard_captions_of(s, i);
        split[k].images++;
        split[k].captioned += captions > 0;
        split[k].captions += captions;
    }
    jw_object(w, "splits");
    for (int k = 0; k < n; k++) {
        jw_object(w, split[k].name);
        jw_int(w, "images", split[k].images);
        jw_int(w, "captioned", split[k].captioned);
        jw_int(w, "captions", split[k].captions);
        jw_end(w);
    }
    jw_end(w);
    return OK;
}

static Status write_shard(JsonWriter *w, const char *file, const Shard *s) {
    struct stat sb;
    if (stat(s->path, &sb) != 0) return err_set(ERR_IO, "%s: %s", s->path, strerror(errno));
    jw_object(w, NULL);
    jw_str(w, "file", file);
    jw_int(w, "images", s->images);
    jw_int(w, "bytes", (int64_t)sb.st_size);
    jw_int(w, "content", shard_content(s));
    if (s->made_from) {
        char from[17];
        snprintf(from, sizeof from, "%016" PRIx64, s->made_from);
        jw_str(w, "made_from", from);
    }
    Status st = write_splits(w, s);
    jw_end(w);
    return st;
}

/* Keeps the first shard open, to compare the others with it. */
static Status write_shards(JsonWriter *w, const char *dir, char *const *names, int64_t n) {
    Shard *first = NULL;
    Status st = OK;
    for (int64_t i = 0; st == OK && i < n; i++) {
        Shard *s = NULL;
        char *path = mem_format("%s/%s", dir, names[i]);
        st = path ? shard_open(&s, path, false) : ERR_MEMORY;
        if (st == OK && first) st = shard_same_kind(first, s); /* said now, not when training begins */
        if (st == OK) st = write_shard(w, names[i], s);
        if (i == 0) first = s;                               /* stays open: the others are compared with it */
        else shard_close(s);
        free(path);
    }
    shard_close(first);
    return st;
}

static Status write_list(const char *dir, char *const *names, int64_t n) {
    JsonFile f;
    char *path = mem_format("%s/manifest.json", dir);
    Status st = path ? jsonfile_open(&f, 1) : ERR_MEMORY;
    if (st == OK) {
        jw_object(&f.w, NULL);
        jw_str(&f.w, "format", "qformer-set");
        jw_int(&f.w, "version", 1);
        jw_array(&f.w, "shards");
        st = write_shards(&f.w, dir, names, n);
        if (st == OK) jw_end(&f.w), jw_end(&f.w);
        st = jsonfile_write(&f, st, path);
    }
    free(path);
    return st;
}

Status manifest_write(const char *dir, char *const *names, int64_t n) {
    char **all = NULL;
    int64_t found = 0;
    Status st = names ? OK : manifest_scan(dir, &all, &found);
    if (st == OK && !names && found == 0) st = err_set(ERR_USAGE, "%s: has no shard (*.h5) to list", dir);
    if (st == OK) st = names ? write_list(dir, names, n) : write_list(dir, all, found);
    mem_free_list(all, (size_t)found);
    return st;
}
