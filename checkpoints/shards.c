/* shards: see shards.h. */
#include "checkpoints/shards.h"

#include <string.h>

#include "kernels/base/mem.h"

static bool inside_folder(const char *name, size_t n) {
    /* a zero inside, a dot in front, a slash: ways out of the folder */
    return n > 0 && n < 256 && strlen(name) == n && name[0] != '.' && !strchr(name, '/');
}

/* Files are few and tensors many: a file is found by comparing with the one of the tensor before, then with all. */
static size_t file_number(ShardIndex *x, const char *name) {
    size_t last = x->n ? x->entries[x->n - 1].file : 0;
    if (x->nfiles && strcmp(x->files[last], name) == 0) return last;
    for (size_t i = 0; i < x->nfiles; i++)
        if (strcmp(x->files[i], name) == 0) return i;
    if (x->nfiles == SHARDS_MAX_FILES) return SHARDS_MAX_FILES;
    x->files[x->nfiles] = name;
    return x->nfiles++;
}

static Status add_entry(ShardIndex *x, const char *tensor, const Json *value, const char *path) {
    size_t n = 0;
    const char *file = json_str(value, &n);
    if (!file || !inside_folder(file, n))
        return err_set(ERR_FORMAT, "%s: the file of %.80s must be a name in the same folder, found '%.80s'", path,
                       tensor,
                       file ? file : "no string");
    size_t number = file_number(x, file);
    if (number == SHARDS_MAX_FILES)
        return err_set(ERR_FORMAT, "%s: names more than %d files", path, SHARDS_MAX_FILES);
    x->entries[x->n++] = (ShardEntry){tensor, number};
    return OK;
}

static Status read_doc(ShardIndex *x, const char *path) {
    const Json *map = json_get(x->doc, "weight_map"), *value;
    size_t n = json_len(map);
    /* before memory is asked for what a file says */
    if (json_type(map) != J_OBJECT || n == 0 || n > SHARDS_MAX_TENSORS)
        return err_set(ERR_FORMAT, "%s: an index of weights has an object weight_map of 1 to %d tensors", path,
                       SHARDS_MAX_TENSORS);
    x->entries = mem_new(n, sizeof *x->entries);
    x->files = mem_new(n < SHARDS_MAX_FILES ? n : SHARDS_MAX_FILES, sizeof *x->files);
    if (!x->entries || !x->files) return ERR_MEMORY;
    Status st = OK;
    for (const char *k = json_next(map, NULL, &value); k && st == OK; k = json_next(map, k, &value))
        st = add_entry(x, k, value, path);
    return st;
}

static Status finish(ShardIndex *x, Status st, const char *path) {
    if (st == OK) st = read_doc(x, path);
    if (st != OK) shards_free(x);
    return st;
}

Status shards_read(ShardIndex *x, const char *path) {
    *x = (ShardIndex){0};
    return finish(x, json_parse_file(&x->doc, path), path);
}

Status shards_parse(ShardIndex *x, const char *text, size_t n, const char *path) {
    *x = (ShardIndex){0};
    return finish(x, json_parse(&x->doc, text, n, path), path);
}

void shards_free(ShardIndex *x) {
    mem_free(x->files, x->entries);
    json_free(x->doc);
    *x = (ShardIndex){0};
}
