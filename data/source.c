/* source: see source.h. */
#include "data/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/format/path.h"
#include "kernels/base/mem.h"

/* Takes over `path`, also when it fails. */
static Status add(Source *s, char *path, const ManifestShard *listed, const char *manifest) {
    if (!path) return ERR_MEMORY;
    if (mem_room(&s->file, (size_t)s->n, 1, sizeof *s->file) != OK) {
        free(path);
        return ERR_MEMORY;
    }
    s->file[s->n++] = (SourceFile){path, listed, manifest};
    return OK;
}

static Status add_manifest(Source *s, const char *path) {
    if (mem_room(&s->manifest, (size_t)s->manifests, 1, sizeof *s->manifest) != OK) return ERR_MEMORY;
    Manifest *m;
    Status st = manifest_read(&m, path);
    if (st != OK) return st;
    char *name = mem_strdup(path);
    s->manifest[s->manifests++] = (struct SourceManifest){m, name};
    if (!name) return ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < m->n; i++)
        /* relative to the manifest: a set can be moved */
        st = add(s, path_beside(path, m->shard[i].file), &m->shard[i], name);
    return st;
}

static Status add_folder(Source *s, const char *dir) {
    struct stat sb;
    char **names, *manifest = mem_format("%s/manifest.json", dir);
    int64_t n = 0;
    if (!manifest) return ERR_MEMORY;
    if (lstat(manifest, &sb) == 0) {                 /* also one that cannot be followed: it is not to be passed over */
        Status st = add_manifest(s, manifest);
        free(manifest);
        return st;
    }
    free(manifest);
    Status st = manifest_scan(dir, &names, &n);
    if (st != OK) return st;
    if (n == 0) st = err_set(ERR_USAGE, "%s: holds neither manifest.json nor a shard (*.h5)", dir);
    for (int64_t i = 0; i < n && st == OK; i++) st = add(s, mem_format("%s/%s", dir, names[i]), NULL, NULL);
    mem_free_list(names, (size_t)n);
    return st;
}

static Status add_one(Source *s, const char *path) {
    struct stat sb;
    if (stat(path, &sb) != 0) return err_set(ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (S_ISDIR(sb.st_mode)) return add_folder(s, path);     /* first: a folder may be called x.json */
    if (path_ends(path, ".json")) return add_manifest(s, path);
    return add(s, mem_strdup(path), NULL, NULL);
}

Status source_list(Source *s, const char *path) {
    char *list = mem_strdup(path), *rest = list, *one;
    Status st = list ? OK : ERR_MEMORY;
    while (st == OK && (one = path_next(&rest))) st = add_one(s, one);
    if (st == OK && s->n == 0) st = err_set(ERR_USAGE, "no data set is given");
    free(list);
    return st;
}

void source_free(Source *s) {
    for (int64_t i = 0; i < s->n; i++) free(s->file[i].path);
    for (int64_t i = 0; i < s->manifests; i++) {
        manifest_free(s->manifest[i].m);
        free(s->manifest[i].path);
    }
    mem_free(s->file, s->manifest);
    *s = (Source){0};
}

Status source_check(const SourceFile *f, const Shard *shard) {
    const ManifestShard *m = f->listed;
    struct stat sb;
    if (!m) return OK;
    if (stat(f->path, &sb) != 0) return err_set(ERR_IO, "%s: %s", f->path, strerror(errno));
    if (sb.st_size != m->bytes)                              /* the cheapest sign of a copy that broke off */
        return err_set(ERR_FORMAT, "%s: has %lld bytes, %s says %" PRId64 ": it was cut short or replaced", f->path,
                       (long long)sb.st_size, f->manifest, m->bytes);
    if (shard->images != m->images)
        return err_set(ERR_FORMAT, "%s: has %" PRId64 " images, %s says %" PRId64, f->path, shard->images, f->manifest,
                       m->images);
    if ((m->content >= 0 && m->content != shard_content(shard)) || (m->made_from && m->made_from != shard->made_from))
        return err_set(ERR_FORMAT, "%s: is another version than the one %s lists; write the manifest again if this one "
                       "is right", f->path, f->manifest);
    return OK;
}
