/* pictures_list: all pictures that there are, with the captions that lie beside them; see pictures.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "data/format/path.h"
#include "data/format/tar.h"
#include "data/format/textfile.h"
#include "data/make/annotation_names.h"
#include "data/make/pictures_own.h"
#include "kernels/base/mem.h"

static const char *const beside[] = {".txt", ".caption", ".json"};
enum { BESIDE = sizeof beside / sizeof *beside, BESIDE_JSON = BESIDE - 1 };

typedef struct { Annotations *a; const char *folder_caption; bool captioned; } Listing;

/* NAME without what follows the first dot of its last part (webdataset's key), or (files) the last. */
static size_t key_length(const char *name, bool member) {
    const char *base = path_base(name), *dot = member ? strchr(base, '.') : strrchr(base, '.');
    return dot && dot > base ? (size_t)(dot - name) : strlen(name); /* a name that begins with a dot has no ending */
}

/* The name of the folder that a picture lies in, "golden_retriever" as "golden retriever", put into the text. */
static char *class_caption(const char *text, const char *name) {
    const char *end = strrchr(name, '/'), *start = end;
    while (start && start > name && start[-1] != '/') start--;
    const char *hole = strstr(text, "{}");
    if (!end || !hole) return NULL;
    char *caption = mem_format("%.*s%.*s%s", (int)(hole - text), text, (int)(end - start), start, hole + 2);
    for (char *c = caption; c && *c; c++)
        if (*c == '_') *c = ' '; /* folders cannot have blanks everywhere: golden_retriever */
    return caption;
}

static Status add_class(Listing *l, int64_t index, const char *name) {
    char *caption = class_caption(l->folder_caption, name);
    if (!caption)
        return err_set(ERR_USAGE,
                       "%s lies in no folder that could be its class; extract.folder_caption=%s wants ROOT/class/x.jpg",
                       name, l->folder_caption);
    Status st = annotations_add_caption(l->a, index, caption);
    free(caption);
    return st;
}

/* One picture of a place; `name` within it, `whole` in the set. Its split is what a folder or else the place is
 * called. */
static Status add_picture(Listing *l, const PicturesPlace *place, const char *name, const char *whole, int64_t *index) {
    const char *split = annotation_split_on_way(name);
    if (!split) split = annotation_split_in(path_base(place->path)); /* imagenet-train-000000.tar */
    Status st = annotations_add_image(l->a, whole, split, l->captioned, place->path, index);
    return st == OK && l->folder_caption ? add_class(l, *index, name) : st;
}

static Status add_beside(Listing *l, int64_t index, int kind, const char *text, size_t n, const char *name) {
    return kind == BESIDE_JSON ? annotations_add_object(l->a, index, text, n, name)
                               : annotations_add_lines(l->a, index, text, n);
}

enum { KIN = 32 };

/* The next member of the same key on one side (step) of `o`, which is m or kin of m;
 * webdataset writes them together. */
static const PicturesMember *kin(const Pictures *p, const PicturesMember *m, const PicturesMember *o, int step) {
    size_t key = key_length(m->name, true);
    o += step;
    bool in = o >= p->member && o < p->member + p->members && o - m < KIN && m - o < KIN;
    return in && !strncmp(o->name, m->name, key) && o->name[key] == '.' ? o : NULL;
}

/* Archives: the key's other members, wherever they stand; the first kind that there is counts. Else kin, whatever
 * stands between key and ending (0001.input.jpg, 0001.output.txt). NULL: none. */
static const PicturesMember *member_beside(const Pictures *p, const PicturesMember *m, int *kind) {
    for (int k = 0; k < BESIDE; k++) {
        char *name = mem_format("%.*s%s", (int)key_length(m->name, true), m->name, beside[k]);
        const int64_t *other = name ? strmap_get(&p->by_name, name) : NULL;
        free(name);
        *kind = k;
        if (other) return &p->member[*other];
    }
    for (int step = -1; step <= 1; step += 2)
        for (const PicturesMember *o = m; (o = kin(p, m, o, step));)
            for (*kind = 0; *kind < BESIDE; ++*kind)
                if (!strcasecmp(strrchr(o->name, '.'), beside[*kind])) return o;
    return NULL;
}

/* What macOS puts beside each file; and a further picture (0001.seg.png) of a key that
 * has one of its own (0001.jpg). */
static bool is_extra(const Pictures *p, const PicturesMember *m) {
    const char *base = path_base(m->name);
    size_t key = key_length(m->name, true);
    /* a resource fork has the picture's name, and no pixels */
    if (base[0] == '.' || !strncmp(m->name, "__MACOSX/", 9)) return true;
    if (strrchr(base, '.') == m->name + key) return false;
    for (int step = -1; step <= 1; step += 2)
        for (const PicturesMember *o = m; (o = kin(p, m, o, step));)
            if (strrchr(o->name, '.') == o->name + key && annotation_is_picture(o->name)) return true;
    return false;
}

static Status member_captions(const Pictures *p, Listing *l, int64_t index, const PicturesMember *m) {
    int kind;
    uint8_t *bytes = NULL;
    const PicturesMember *other = member_beside(p, m, &kind);
    if (!other) return OK;
    Status st = tar_read(other->place->tar, other->m, &bytes);
    if (st == OK) st = add_beside(l, index, kind, (char *)bytes, (size_t)other->m->size, other->name);
    free(bytes);
    return st;
}

static Status list_archives(const Pictures *p, Listing *l) {
    Status st = OK;
    int kind;
    l->captioned = l->folder_caption != NULL; /* known before the first is added: bare pictures go to another split */
    for (int64_t i = 0; i < p->members && !l->captioned; i++)
        l->captioned = annotation_is_picture(p->member[i].name) && !is_extra(p, &p->member[i]) &&
                       member_beside(p, &p->member[i], &kind);
    for (int64_t i = 0; i < p->members && st == OK; i++) {
        const PicturesMember *m = &p->member[i];
        int64_t index;
        if (!annotation_is_picture(m->name) || is_extra(p, m)) continue;
        st = add_picture(l, m->place, m->name, m->name, &index);
        if (st == OK && l->captioned && !l->folder_caption) st = member_captions(p, l, index, m);
    }
    return st;
}

/* ---- folders ---- */

typedef struct { char **path; size_t n; } Names;

static Status keep(Names *names, const char *path) {
    return mem_keep(&names->path, &names->n, mem_strdup(path)) ? OK : ERR_MEMORY;
}

typedef struct { Names pictures, metadata; } Found;

static Status found_file(void *ctx, const char *name) {
    static const char *const forms[] = {"metadata.jsonl", "metadata.json", "metadata.csv", "metadata.tsv",
                                        "metadata.parquet"};
    Found *f = ctx;
    if (annotation_is_picture(name)) return keep(&f->pictures, name);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (!strcmp(path_base(name), forms[i])) return keep(&f->metadata, name);
    return OK;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The file of captions beside a picture: free it. NULL: there is none. */
static char *file_beside(const char *root, const char *name, int *kind) {
    for (int k = 0; k < BESIDE; k++) {
        char *path = mem_format("%s/%.*s%s", root, (int)key_length(name, false), name, beside[k]);
        *kind = k;
        /* the first kind that there is: two files would caption it twice */
        if (path && !access(path, R_OK)) return path;
        free(path);
    }
    return NULL;
}

static bool any_beside(const char *root, const Names *pictures) {
    for (size_t i = 0; i < pictures->n; i++) {
        int kind;
        char *path = file_beside(root, pictures->path[i], &kind);
        bool there = path != NULL;
        free(path);
        if (there) return true;
    }
    return false;
}

static Status file_captions(Listing *l, int64_t index, const char *root, const char *name) {
    int kind;
    char *path = file_beside(root, name, &kind), *text = NULL;
    size_t n = 0;
    if (!path) return OK;
    Status st = textfile_read(&text, &n, path, "a caption");
    if (st == OK) st = add_beside(l, index, kind, text, n, path);
    mem_free(text, path);
    return st;
}

/* prefix: in front of names, where there are several folders. */
static Status add_metadata(Listing *l, const char *root, const char *file, const char *prefix) {
    char *path = mem_format("%s/%s", root, file);
    int folder = (int)(path_base(file) - file);
    char *names = mem_format("%s%s%.*s", prefix, prefix[0] ? "/" : "", folder, file);
    const char *split = annotation_split_on_way(file);
    Status st = path && names ? annotations_add(l->a, &(AnnotationFile){.path = path, .root = names, .split = split})
                              : ERR_MEMORY;
    mem_free(path, names);
    return st;
}

static Status add_file(Listing *l, const PicturesPlace *place, const char *name, const char *prefix) {
    int64_t index;
    char *whole = mem_format("%s%s%s", prefix, prefix[0] ? "/" : "", name);
    Status st = whole ? add_picture(l, place, name, whole, &index) : ERR_MEMORY;
    if (st == OK && l->captioned && !l->folder_caption) st = file_captions(l, index, place->path, name);
    free(whole);
    return st;
}

static void sort(Names *names) {
    if (names->n) qsort(names->path, names->n, sizeof *names->path, by_name);
}

static Status list_folder(const PicturesPlace *place, Listing *l, const char *prefix) {
    Found f = {0};
    Status st = path_walk(place->path, found_file, &f);
    sort(&f.pictures);                               /* a folder's own order is that of its hash table */
    sort(&f.metadata);
    bool listed = f.metadata.n && !l->folder_caption;
    l->captioned = l->folder_caption || (st == OK && !listed && any_beside(place->path, &f.pictures));
    for (size_t i = 0; listed && i < f.metadata.n && st == OK; i++)
        st = add_metadata(l, place->path, f.metadata.path[i], prefix);
    for (size_t i = 0; !listed && i < f.pictures.n && st == OK; i++)
        st = add_file(l, place, f.pictures.path[i], prefix);
    if (st == OK && !f.pictures.n && !listed)
        st = err_set(ERR_FORMAT, "%s: a folder without pictures (JPEG, PNG, WebP) in it", place->path);
    mem_free_list(f.pictures.path, f.pictures.n);
    mem_free_list(f.metadata.path, f.metadata.n);
    return st;
}

Status pictures_list(Pictures *p, Annotations *a, const char *folder_caption) {
    Listing l = {.a = a, .folder_caption = folder_caption && folder_caption[0] ? folder_caption : NULL};
    bool several = p->folders > 1;
    if (l.folder_caption && !strstr(l.folder_caption, "{}"))
        return err_set(ERR_USAGE, "extract.folder_caption=%s has no {} for the name of the folder", l.folder_caption);
    Status st = list_archives(p, &l);
    for (int64_t i = 0, index; i < p->places && st == OK; i++) {
        const PicturesPlace *at = &p->place[i];
        if (at->folder) st = list_folder(at, &l, several ? at->path : "");
        else if (!at->tar) st = annotations_add_image(a, at->path, NULL, false, at->path, &index);
    }
    if (st == OK && !a->count)
        st = err_set(ERR_FORMAT, "%s: no pictures (JPEG, PNG, WebP) in it", p->places ? p->place[0].path : "");
    return st;
}
