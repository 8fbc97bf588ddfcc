/* checkpoint_load: opening and choosing step directories; see checkpoint.h. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"
#include "data/format/crc32c.h"
#include "data/format/mapfile.h"
#include "kernels/base/mem.h"

enum { FILES_LIMIT = 64, NAME_LIMIT = 64, POINTER_LIMIT = 64 };
static const char extension[] = ".safetensors";

struct Ckpt {
    char *dir;
    int64_t step;
    Json *doc;
    CkptFileInfo *info;         /* (nfiles) */
    StFile **files;             /* (nfiles) */
    size_t nfiles;
};

/* ---- state.json -------------------------------------------------------------------------------------------------- */

/* A plain file name with our extension: nothing that leads out of the directory. */
static bool good_name(const char *name) {
    size_t n = strlen(name), e = sizeof extension - 1;
    if (n <= e || n > NAME_LIMIT || strcmp(name + n - e, extension) != 0 || name[0] == '.') return false;
    for (size_t i = 0; i < n; i++)
        /* no / and no control character: the name goes into a path and into messages */
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", name[i])) return false;
    return true;
}

static bool parse_crc(const Json *j, uint32_t *out) {
    size_t n;
    const char *s = json_str(j, &n);
    if (!s || n != 8 || strspn(s, "0123456789abcdef") != 8) return false;
    *out = (uint32_t)strtoul(s, NULL, 16);
    return true;
}

bool ckpt_state_crc(const char *text, size_t n, uint32_t *crc, size_t *digits) {
    static const char key[] = "\"crc32c\": \"", zeros[] = "00000000";
    const size_t k = sizeof key - 1, z = sizeof zeros - 1;
    const char *at = memmem(text, n, key, k);
    if (!at || n - (size_t)(at - text) < k + z) return false;
    *digits = (size_t)(at - text) + k;
    *crc = crc32c(crc32c(crc32c(0, text, *digits), zeros, z), text + *digits + z, n - *digits - z);
    return true;
}

/* Files written before there was one are taken without. */
static Status check_own_crc(const Json *doc, const char *text, size_t n, const char *path) {
    const Json *own = json_get(doc, "crc32c");
    uint32_t was, is;
    size_t digits;
    if (!own || (parse_crc(own, &was) && ckpt_state_crc(text, n, &is, &digits) && is == was)) return OK;
    return err_set(ERR_FORMAT, "%s: its text changed since it was written (its crc32c does not fit); who changed it on "
                   "purpose removes \"crc32c\" from it", path);
}

Status ckpt_parse_state(const char *text, size_t n, const char *path, Json **doc, int64_t *step, CkptFileInfo **files,
                        size_t *nfiles) {
    int64_t format;
    *doc = NULL;
    *files = NULL;
    *nfiles = 0;
    Status st = json_parse(doc, text, n, path);
    if (st != OK) return st;
    /* before the sum: another version may keep it elsewhere */
    if (!json_int(json_get(*doc, "format"), &format) || format != 1) {
        st = err_set(ERR_FORMAT, "%s: \"format\" is not 1; it was written by another version", path);
        goto done;
    }
    if ((st = check_own_crc(*doc, text, n, path)) != OK) goto done;
    const Json *list = json_get(*doc, "files");
    if (!json_int(json_get(*doc, "step"), step) || *step < 0 || json_type(list) != J_OBJECT ||
        json_len(list) > FILES_LIMIT || json_type(json_get(*doc, "run")) != J_OBJECT) {
        st = err_set(ERR_FORMAT, "%s: a whole number \"step\" and the objects \"files\" and \"run\" were expected",
                     path);
        goto done;
    }
    if (!(*files = mem_new(json_len(list), sizeof **files))) { st = ERR_MEMORY; goto done; }
    const Json *value;
    for (const char *k = json_next(list, NULL, &value); k; k = json_next(list, k, &value)) {
        CkptFileInfo f = {.name = k};
        if (!good_name(k) || !json_int(json_get(value, "bytes"), &f.bytes) || f.bytes < 0 ||
            !parse_crc(json_get(value, "crc32c"), &f.crc)) {
            st = err_set(ERR_FORMAT, "%s: \"files\" needs names that end in %s, each with bytes and crc32c", path,
                         extension);
            goto done;
        }
        (*files)[(*nfiles)++] = f;
    }
done:
    if (st != OK) {
        json_free(*doc);
        free(*files);
        *doc = NULL;
        *files = NULL;
        *nfiles = 0;
    }
    return st;
}

/* ---- one directory ----------------------------------------------------------------------------------------------- */

static Status check_file(const CkptFileInfo *info, const char *path, bool verify) {
    MapFile map;
    Status st = mapfile_open(&map, path);
    if (st != OK) return st;
    /* the length first: a file cut short is found without reading it */
    if (map.n != (uint64_t)info->bytes) {
        st = err_set(ERR_FORMAT, "%s: %zu bytes were found, %" PRId64 " were written", path, map.n, info->bytes);
    } else if (verify) {
        uint32_t crc = crc32c(0, map.bytes, map.n);
        if (crc != info->crc)
            st = err_set(ERR_FORMAT, "%s: its bytes changed since they were written (crc32c %08x, was %08x)", path, crc,
                         info->crc);
    }
    mapfile_close(&map);
    return st;
}

static Status open_file(Ckpt *c, size_t i, bool verify) {
    char *path = mem_format("%s/%s", c->dir, c->info[i].name);
    if (!path) return ERR_MEMORY;
    Status st = check_file(&c->info[i], path, verify);
    if (st == OK) st = st_open(&c->files[i], path);
    free(path);
    return st;
}

Status ckpt_open(Ckpt **out, const char *dir, bool verify) {
    *out = NULL;
    MapFile state = {0};
    char *path = mem_format("%s/state.json", dir);
    Ckpt *c = mem_new(1, sizeof *c);
    Status st = path && c && (c->dir = mem_strdup(dir)) ? OK : ERR_MEMORY;
    if (st == OK) st = mapfile_open(&state, path);
    if (st == OK)
        st = ckpt_parse_state((const char *)state.bytes, state.n, path, &c->doc, &c->step, &c->info, &c->nfiles);
    if (st == OK && !(c->files = mem_new(c->nfiles, sizeof *c->files))) st = ERR_MEMORY;
    for (size_t i = 0; st == OK && i < c->nfiles; i++) st = open_file(c, i, verify);
    if (st == OK) *out = c;
    else ckpt_close(c);
    mapfile_close(&state);
    free(path);
    return st;
}

void ckpt_close(Ckpt *c) {
    if (!c) return;
    for (size_t i = 0; c->files && i < c->nfiles; i++) st_close(c->files[i]);
    mem_free(c->files, c->info);
    json_free(c->doc);
    mem_free(c->dir, c);
}

int64_t ckpt_step(const Ckpt *c) { return c->step; }
const char *ckpt_dir(const Ckpt *c) { return c->dir; }
const Json *ckpt_run(const Ckpt *c) { return json_get(c->doc, "run"); }

const StFile *ckpt_part(const Ckpt *c, const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < c->nfiles; i++)
        if (strncmp(c->info[i].name, name, n) == 0 && strcmp(c->info[i].name + n, extension) == 0) return c->files[i];
    return NULL;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

int64_t ckpt_step_of(const char *name) {
    const char *slash = strrchr(name, '/');
    if (slash) name = slash + 1;
    if (strncmp(name, "step_", 5) != 0) return -1;
    size_t n = strspn(name + 5, "0123456789");
    /* one spelling a number: two folders of one step must not both be found */
    if (n < 6 || n > 18 || (n > 6 && name[5] == '0') || name[5 + n] != 0) return -1;
    return strtoll(name + 5, NULL, 10);
}

static int newest_first(const void *a, const void *b) {
    /* compared, not subtracted: steps are 64 bits, the answer is an int */
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

Status ckpt_list(const char *out, int64_t **steps, size_t *n) {
    Status st = OK;
    *steps = NULL;
    *n = 0;
    DIR *d = opendir(out);
    if (!d) return errno == ENOENT ? OK : err_set(ERR_IO, "%s: cannot be opened: %s", out, strerror(errno));
    for (struct dirent *e; st == OK && (e = readdir(d));) {
        int64_t step = ckpt_step_of(e->d_name);
        if (step < 0) continue;
        if ((st = mem_room(steps, *n, 1, sizeof **steps)) == OK) (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n) qsort(*steps, *n, sizeof **steps, newest_first);
    return st;
}

Status ckpt_find_latest(Ckpt **c, const char *out, CkptWarn *warn, void *ctx) {
    int64_t *steps;
    size_t n, broken = 0;
    *c = NULL;
    Status st = ckpt_list(out, &steps, &n);
    for (size_t i = 0; st == OK && i < n && !*c; i++) {
        char *dir = ckpt_step_dir(out, steps[i]);
        if (!dir) { st = ERR_MEMORY; break; }
        /* whole and unchanged, or the one before it */
        if (ckpt_open(c, dir, true) != OK) {
            broken++;
            char *sentence = mem_format("%s is broken and skipped: %s", dir, err_message());
            if (warn && sentence) warn(ctx, sentence);
            free(sentence);
        }
        free(dir);
    }
    if (st == OK && !*c && broken)
        st = err_set(ERR_FORMAT, "%s: none of its %zu checkpoints can be loaded; move them away to start anew", out,
                     broken);
    free(steps);
    return st;
}

char *ckpt_step_dir(const char *out, int64_t step) { return mem_format("%s/step_%06" PRId64, out, step); }

/* What stands in the file of that name, without the newlines that people leave behind it. */
static Status read_pointer(char line[POINTER_LIMIT + 1], const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) return err_set(ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    size_t n = fread(line, 1, POINTER_LIMIT, f);             /* what is longer is no name of a step */
    fclose(f);
    while (n && line[n - 1] == '\n') n--;
    line[n] = 0;
    /* a pointer leads nowhere but into its own folder */
    if (!strchr(line, '/') && ckpt_step_of(line) >= 0) return OK;
    return err_set(ERR_FORMAT, "%s: the name of a step directory was expected in it", path);
}

int64_t ckpt_pointer(const char *out, const char *name) {
    char line[POINTER_LIMIT + 1], *path = mem_format("%s/%s", out, name);
    int64_t step = path && read_pointer(line, path) == OK ? ckpt_step_of(line) : -1;
    if (step < 0) err_clear();                               /* mostly there is none yet */
    free(path);
    return step;
}

Status ckpt_find_named(Ckpt **c, const char *out, const char *name) {
    char line[POINTER_LIMIT + 1], *path = mem_format("%s/%s", out, name), *dir = NULL;
    *c = NULL;
    Status st = path ? read_pointer(line, path) : ERR_MEMORY;
    if (st == OK) st = (dir = mem_format("%s/%s", out, line)) ? ckpt_open(c, dir, true) : ERR_MEMORY;
    mem_free(dir, path);
    return st;
}
