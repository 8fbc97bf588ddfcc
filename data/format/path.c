/* path: see path.h. */
#include "data/format/path.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/mem.h"

enum { MAX_DEPTH = 16 };

const char *path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *path_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_strdup(".");
    return slash == path ? mem_strdup("/") : mem_format("%.*s", (int)(slash - path), path);
}

char *path_beside(const char *path, const char *name) {
    return mem_format("%.*s%s", (int)(path_base(path) - path), path, name);
}

bool path_is_below(const char *name) {
    if (!*name || *name == '/') return false;
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2])) return false;
    }
    return true;
}

bool path_ends(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && !strcasecmp(path + n - m, end);
}

bool path_ends_in(const char *path, const char *const *ends) {
    while (*ends && !path_ends(path, *ends)) ends++;
    return *ends != NULL;
}

/* ---- lists ---- */

/* Whether text[0..n) is the path of something; n is where a comma stands, or the end. */
static bool exists(char *text, size_t n) {
    char kept = text[n];
    text[n] = 0;
    bool yes = !access(text, F_OK);
    text[n] = kept;
    return yes;
}

char *path_next(char **rest) {
    char *p = *rest;
    if (!p) return NULL;
    p += strspn(p, " ,");
    if (!*p) return *rest = NULL;                            /* only commas and blanks were left */
    size_t first = strcspn(p, ","), n = strlen(p);
    while (n > first && !exists(p, n))                       /* back to the comma before */
        do n--; while (n > first && p[n] != ',');
    *rest = p[n] ? p + n + 1 : NULL;
    p[n] = 0;
    while (n && p[n - 1] == ' ') p[--n] = 0;
    return p;
}

size_t path_most(const char *list) {
    size_t n = 1;
    for (; *list; list++) n += *list == ',';
    return n;
}

/* ---- folders ---- */

static Status walk(const char *root, const char *below, int depth, PathFn *fn, void *ctx) {
    struct dirent *e;
    char *path = mem_format("%s/%s", root, below);
    DIR *d = path ? opendir(path) : NULL;
    Status st = d ? OK : err_set(ERR_IO, "%s: %s", path ? path : root, strerror(errno));
    while (st == OK && (e = readdir(d))) {
        struct stat about;
        if (e->d_name[0] == '.') continue;           /* hidden; and the folder itself, and the one above */
        char *name = mem_format("%s%s%s", below, below[0] ? "/" : "", e->d_name),
             *full = mem_format("%s/%s", path, e->d_name);
        if (!name || !full) st = ERR_MEMORY;
        else if (stat(full, &about) || !S_ISDIR(about.st_mode)) st = fn(ctx, name);
        else if (depth < MAX_DEPTH) st = walk(root, name, depth + 1, fn, ctx);      /* bounded: links may lead round */
        mem_free(name, full);
    }
    if (d) closedir(d);
    free(path);
    return st;
}

Status path_walk(const char *root, PathFn *fn, void *ctx) { return walk(root, "", 0, fn, ctx); }
