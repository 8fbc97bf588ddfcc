/* setout: see setout.h. */
#include "data/setout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/outfile.h"
#include "data/manifest.h"
#include "data/shard.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

bool setout_is_file(const char *out) {
    size_t n = strlen(out);
    return n > 3 && strcmp(out + n - 3, ".h5") == 0;
}

static char *path_of(const SetOut *s, const char *name) {
    size_t n = strlen(s->out);
    while (n > 1 && s->out[n - 1] == '/') n--;               /* "out/" as shells complete it */
    return s->folder ? mem_format("%.*s/%s", (int)n, s->out, name) : mem_strdup(name);
}

/* Not a file of the user's own naming: those are left alone, and the manifest does not list them. */
static bool is_ours(const char *name) {
    size_t digits = strncmp(name, "set-", 4) == 0 ? strspn(name + 4, "0123456789") : 0;
    return digits >= 5 && strcmp(name + 4 + digits, ".h5") == 0;
}

static Status remove_file(const SetOut *s, const char *name) {
    char *path = path_of(s, name);
    if (!path) return ERR_MEMORY;
    if (access(path, F_OK) == 0 && unlink(path) == 0) status_say("%s: removed (overwrite=true)", path);
    free(path);
    return OK;
}

/* Shards beyond those of this request: of a larger set that was here before. */
static Status leftovers(const SetOut *s) {
    char **names;
    int64_t n = 0;
    Status st = manifest_scan(s->out, &names, &n);
    if (st != OK) return st;
    for (int64_t i = 0; i < n; i++) {
        /* a folder without its manifest would be read whole */
        bool extra = is_ours(names[i]) && strtoll(names[i] + 4, NULL, 10) >= s->shards;
        if (st == OK && extra && s->overwrite) st = remove_file(s, names[i]);
        else if (st == OK && extra)
            st = err_set(ERR_USAGE, "%s: holds %s of a larger set, now %" PRId64 " file%s are to be written; "
                         "overwrite=true removes it, or name another out", s->out, names[i], s->shards,
                         s->shards > 1 ? "s" : "");
    }
    mem_free_list(names, (size_t)n);
    return st;
}

Status setout_open(SetOut *s, const char *out, int64_t shards, bool overwrite) {
    *s = (SetOut){.out = out, .overwrite = overwrite, .quiet = s->quiet, .folder = !setout_is_file(out)};
    BUG_ON(!s->folder && shards > 1, "%lld shards in one file", (long long)shards);
    if (!(s->name = mem_new((size_t)shards, sizeof *s->name))) return ERR_MEMORY;
    for (; s->shards < shards; s->shards++) {
        s->name[s->shards] = s->folder ? mem_format("set-%05" PRId64 ".h5", s->shards) : mem_strdup(out);
        if (!s->name[s->shards]) return ERR_MEMORY;
    }
    Status st = s->folder ? outfile_folder(out, ".h5") : OK;
    if (st != OK) return st;
    if (outfile_parents(out) != OK) err_clear();         /* what failed fails again, where a sentence says more */
    st = s->folder ? outfile_mkdir(out) : OK;
    return st == OK && s->folder ? leftovers(s) : st;
}

/* A finished shard stands there: *keep when it is what is wanted, else whether it may be replaced. */
static Status judge(SetOut *s, const char *path, const ShardSpec *spec, bool *keep) {
    Shard *there = NULL;
    const char *why = "it cannot be read";
    Status st = shard_open(&there, path, false);
    if (st == OK) why = shard_difference(there, spec);
    shard_close(there);
    *keep = st == OK && !why; /* made of the same, so computing it again would give the same */
    if (*keep) return OK;
    if (s->overwrite) {
        err_clear();
        status_say("%s: replaced (%s; overwrite=true)", path, why);
        return s->folder ? remove_file(s, "manifest.json") : OK;        /* it would list what is no longer there */
    }
    return err_set(ERR_USAGE, "%s: exists and was made of something else (%s); overwrite=true replaces it, or name "
                   "another out", path, why);
}

Status setout_shard(SetOut *s, int64_t k, ShardSpec *spec, ShardWriter **w) {
    BUG_ON(k < 0 || k >= s->shards, "shard %lld of %lld", (long long)k, (long long)s->shards);
    bool keep = false;
    *w = NULL;
    char *path = path_of(s, s->name[k]);
    Status st = path ? OK : ERR_MEMORY;
    if (st == OK && (spec->replace = access(path, F_OK) == 0)) st = judge(s, path, spec, &keep);
    if (st == OK && keep) s->kept++;
    else if (st == OK) st = shard_create(w, path, spec);
    if (*w && shard_found(*w)) status_say("%s", shard_found(*w)); /* why it takes less, or more, than was thought */
    free(path);
    return st;
}

Status setout_close(SetOut *s, Status st) {
    if (st == OK && s->folder && !s->quiet) st = manifest_write(s->out, s->name, s->shards);
    if (st == OK && s->kept && !s->quiet)
        status_say("%s: %s already, made from the same files with the same options%s", s->out,
                   !s->folder ? "is there" : s->kept == s->shards ? "all is there" : "a part was there",
                   s->kept == s->shards ? ": nothing was to be done" : "");
    mem_free_list(s->name, (size_t)s->shards);
    *s = (SetOut){0};
    return st;
}
