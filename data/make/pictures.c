/* pictures: see pictures.h. */
#include "data/make/pictures.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/fingerprint.h"
#include "data/format/pathlist.h"
#include "data/format/tar.h"
#include "data/format/textfile.h"
#include "data/make/annotation_names.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

enum { MAX_DEPTH = 16 };

static const char *const beside[] = {".txt", ".caption", ".json"};
enum { BESIDE = sizeof beside / sizeof *beside, BESIDE_JSON = BESIDE - 1 };

/* A folder or an archive. */
typedef struct {
    char *path;
    Tar *tar;                      /* NULL: a folder */
    bool folder;                   /* else one picture, which is its own name */
    char *stem;                    /* of an archive's name: "00000" of "cc3m/00000.tar" */
} Place;

/* A member of an archive that is a picture, or lies beside one. */
typedef struct { char *name; const Place *place; const TarMember *m; } Member;

struct Pictures {
    Place *place;                  /* (places) */
    int64_t room, places, folders, tars;
    Member *member;                /* (members) */
    int64_t members;
    bool prefixed;                 /* member names have the archive's name in front */
    StrMap by_name;                /* of members */
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_list(const char *name) {
    static const char *const ends[] = {".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".token"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n > strlen(ends[i]) && !strcasecmp(name + n - strlen(ends[i]), ends[i])) return true;
    return false;
}

static Status open_place(Pictures *p, const char *path) {
    struct stat about;
    if (p->places == p->room) {
        int64_t room = p->room ? 2 * p->room : 64;
        Place *more = mem_grow(p->place, (size_t)room, sizeof *more);
        if (!more) return ERR_MEMORY;
        p->place = more;
        p->room = room;
    }
    Place *at = &p->place[p->places];
    *at = (Place){.path = mem_strdup(path)};
    if (!at->path) return ERR_MEMORY;
    p->places++;
    if (stat(path, &about)) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    at->folder = S_ISDIR(about.st_mode);
    p->folders += at->folder;
    if (at->folder || annotation_is_picture(path)) return OK;
    const char *base = base_name(path), *dot = strchr(base, '.');
    if (is_list(base))
        return err_set(ERR_USAGE, "%s: a list, not pictures; extract.annotations=%s with in=FOLDER says where they lie",
                       path, path);
    if (!(at->stem = mem_format("%.*s", dot ? (int)(dot - base) : (int)strlen(base), base))) return ERR_MEMORY;
    p->tars++;
    return tar_open(&at->tar, path);
}

/* A folder of archives stands for them. */
static Status open_tars(Pictures *p, const char *folder, bool *any) {
    glob_t found;
    char *pattern = mem_format("%s/*.tar", folder);
    int none = pattern ? glob(pattern, 0, NULL, &found) : GLOB_NOSPACE;
    Status st = pattern && none != GLOB_NOSPACE ? OK : ERR_MEMORY;
    free(pattern);
    *any = !none;
    for (size_t i = 0; !none && i < found.gl_pathc && st == OK; i++) st = open_place(p, found.gl_pathv[i]);
    if (!none) globfree(&found);
    return st;
}

/* "shards/{00000..00031}.tar" as webdataset writes it: every number, as wide as the first. *is false for other texts.
 */
static Status open_range(Pictures *p, const char *item, bool *is) {
    enum { MOST = 1 << 20 };
    const char *open = strchr(item, '{');
    long long first = 0, last = -1;
    int width = 0, end = 0;
    *is = open && sscanf(open, "{%lld%n..%lld}%n", &first, &width, &last, &end) == 2 && end && first >= 0 &&
          last >= first && last - first < MOST;
    Status st = OK;
    for (long long k = first; *is && k <= last && st == OK; k++) {
        char *path = mem_format("%.*s%0*lld%s", (int)(open - item), item, width - 1, k, open + end);
        st = path ? open_place(p, path) : ERR_MEMORY;
        free(path);
    }
    return st;
}

static Status open_pattern(Pictures *p, const char *item) {
    glob_t found;
    if (glob(item, GLOB_BRACE, NULL, &found)) return err_set(ERR_IO, "%s: no file is called so", item);
    Status st = OK;
    for (size_t i = 0; i < found.gl_pathc && st == OK; i++) st = open_place(p, found.gl_pathv[i]);
    globfree(&found);
    return st;
}

static Status open_item(Pictures *p, const char *item) {
    struct stat about;
    bool done = false;
    if (stat(item, &about)) {
        Status st = open_range(p, item, &done);
        return done || st != OK ? st : strpbrk(item, "*?[{") ? open_pattern(p, item) : open_place(p, item);
    }
    Status st = S_ISDIR(about.st_mode) ? open_tars(p, item, &done) : OK;
    return done || st != OK ? st : open_place(p, item);
}

static Status enter_members(Pictures *p) {
    int64_t n = 0;
    for (int64_t i = 0; i < p->places; i++)
        for (size_t k = 0; p->place[i].tar && k < tar_count(p->place[i].tar); k++, n++) {
            Member *m = &p->member[n];
            *m = (Member){.place = &p->place[i], .m = tar_at(p->place[i].tar, k)};
            m->name = p->prefixed ? mem_format("%s/%s", m->place->stem, m->m->name) : mem_strdup(m->m->name);
            p->members = n + 1;
            if (!m->name) return ERR_MEMORY;
            const int64_t *before = strmap_get(&p->by_name, m->name);
            if (before && p->prefixed)
                return err_set(ERR_FORMAT,
                               "%s: %s stands twice, here and in %s; give each archive once, under a name of its own",
                               m->place->path, m->m->name, p->member[*before].place->path);
            if (before) return ERR_USAGE;                   /* with prefixes, then */
            if (strmap_put(&p->by_name, m->name, n) != OK) return ERR_MEMORY;
        }
    return OK;
}

static void forget_members(Pictures *p) {
    for (int64_t i = 0; i < p->members; i++) free(p->member[i].name);
    strmap_free(&p->by_name);
    p->by_name = (StrMap){0};
    p->members = 0;
}

static Status list_members(Pictures *p) {
    size_t n = 0;
    for (int64_t i = 0; i < p->places; i++) n += p->place[i].tar ? tar_count(p->place[i].tar) : 0;
    if (!n && p->tars) return err_set(ERR_FORMAT, "%s: an archive without files in it", p->place[0].path);
    if (!(p->member = mem_new(n, sizeof *p->member))) return ERR_MEMORY;
    Status st = enter_members(p);
    if (st != ERR_USAGE) return st;
    forget_members(p);
    p->prefixed = true;
    return enter_members(p);
}

Status pictures_open(Pictures **out, const char *in) {
    *out = NULL;
    Pictures *p = mem_new(1, sizeof *p);
    if (!p) return ERR_MEMORY;
    char *list = mem_strdup(in), *rest = list, *item;
    Status st = list ? OK : ERR_MEMORY;
    while (st == OK && (item = pathlist_next(&rest))) st = open_item(p, item);
    free(list);
    if (st == OK) st = list_members(p);
    if (st == OK) *out = p;
    else pictures_close(p);
    return st;
}

void pictures_close(Pictures *p) {
    if (!p) return;
    forget_members(p);
    free(p->member);
    for (int64_t i = 0; i < p->places; i++) {
        tar_close(p->place[i].tar);
        free(p->place[i].stem);
        free(p->place[i].path);
    }
    free(p->place);
    free(p);
}

int64_t pictures_places(const Pictures *p) { return p->places; }
const char *pictures_root(const Pictures *p, int64_t i) { return p->place[i].folder ? p->place[i].path : NULL; }

/* ---- finding one ------------------------------------------------------------------------------------------------- */

/* The spellings under which a picture may lie: as it is, with an ending, as COCO's number with one. NULL after the
 * last. */
static char *spelling(const char *name, int k) {
    static const char *const endings[] = {"jpg", "jpeg", "png", "webp", "JPG", "JPEG", "PNG"};
    enum { ENDINGS = sizeof endings / sizeof *endings };
    const char *base = base_name(name);
    size_t digits = strspn(base, "0123456789");
    if (k == 0) return mem_strdup(name);
    if (annotation_is_picture(name) || k > 2 * ENDINGS) return NULL;
    if (k <= ENDINGS) return mem_format("%s.%s", name, endings[k - 1]);
    if (base[digits] || !digits || digits >= 12) return NULL;
    return mem_format("%.*s%012lld.%s", (int)(base - name), name, strtoll(base, NULL, 10), endings[k - 1 - ENDINGS]);
}

static bool find_file(const Pictures *p, const char *name, PicturePlace *at) {
    for (int64_t i = 0; i <= p->places; i++) {
        bool alone = i == p->places; /* also as it stands: of several folders, names have them */
        if (alone ? name[0] != '/' && p->folders == 1 && p->places == 1 : name[0] == '/' || !p->place[i].folder)
            continue;
        char *path = alone ? mem_strdup(name) : mem_format("%s/%s", p->place[i].path, name);
        if (path && !access(path, R_OK)) {
            *at = (PicturePlace){.path = path};
            return true;
        }
        free(path);
    }
    return false;
}

static bool find_member(const Pictures *p, const char *name, PicturePlace *at) {
    const int64_t *k = p->tars ? strmap_get(&p->by_name, name) : NULL;
    if (!k) return false;
    const Member *m = &p->member[*k];
    *at = (PicturePlace){.path = mem_strdup(m->place->path), .archive = m->place->tar, .member = m->m};
    return at->path != NULL;
}

static const char *first_folder(const Pictures *p) {
    int64_t i = 0;
    while (!p->place[i].folder) i++;
    return p->place[i].path;
}

Status pictures_find(const Pictures *p, const char *name, PicturePlace *at) {
    char *other;
    *at = (PicturePlace){0};
    for (int k = 0; (other = spelling(name, k)); k++) {
        bool found = find_member(p, other, at) || (p->tars < p->places + !p->places && find_file(p, other, at));
        free(other);
        if (found) return OK;
    }
    if (p->tars == p->places && p->places)
        return err_set(ERR_IO, "%s: is a member of none of the %lld archives; the first of %s is %s", name,
                       (long long)p->tars, p->place[0].path, p->member[0].name);
    bool alone = name[0] == '/' || !p->folders;
    return err_set(ERR_IO, "%s%s%s: %s", alone ? "" : first_folder(p), alone ? "" : "/", name,
                   p->places > 1 ? "no such file there nor in the other folders" : strerror(ENOENT));
}

Status pictures_read(const PicturePlace *at, const char *name, bool upright, Image *im) {
    uint8_t *bytes;
    if (!at->archive) return image_read_turned(im, at->path, upright);
    const TarMember *m = at->member;
    *im = (Image){0};
    Status st = tar_read(at->archive, m, &bytes);
    if (st != OK) return st;
    st = err_context(image_decode_turned(im, bytes, (size_t)m->size, name, upright), "%s", at->path);
    free(bytes);
    return st;
}

Status pictures_fingerprint(const PicturePlace *at, uint64_t *h) {
    const TarMember *m = at->member;
    if (m) *h = hash_int(hash_int(*h, m->at), m->size);
    return fingerprint_stat(h, at->path);
}

PictureIdentity pictures_identity(const PicturePlace *at) {
    struct stat about = {0};
    const TarMember *m = at->member;
    if (stat(at->path, &about)) return (PictureIdentity){0};
    return (PictureIdentity){(uint64_t)about.st_dev, (uint64_t)about.st_ino, m ? m->at : -1};
}

/* ---- listing all ------------------------------------------------------------------------------------------------- */

typedef struct { Annotations *a; const char *folder_caption; bool captioned; } Listing;

/* What a folder on the way to a picture says of its split, NULL when none does. */
static const char *folder_split(const char *name) {
    char *folders = mem_format("%.*s", (int)(base_name(name) - name), name);
    const char *split = annotation_split_in(folders ? folders : "");
    free(folders);
    return split;
}

/* NAME without what follows the first dot of its last part (webdataset's key), or (files) the last. */
static size_t key_length(const char *name, bool member) {
    const char *base = base_name(name), *dot = member ? strchr(base, '.') : strrchr(base, '.');
    return dot && dot > base ? (size_t)(dot - name) : strlen(name);
}

/* The name of the folder that a picture lies in, "golden_retriever" as "golden retriever", put into the text. */
static char *class_caption(const char *text, const char *name) {
    const char *end = strrchr(name, '/'), *start = end;
    while (start && start > name && start[-1] != '/') start--;
    const char *hole = strstr(text, "{}");
    if (!end || !hole) return NULL;
    char *caption = mem_format("%.*s%.*s%s", (int)(hole - text), text, (int)(end - start), start, hole + 2);
    for (char *c = caption; c && *c; c++)
        if (*c == '_') *c = ' ';
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

static Status add_beside(Listing *l, int64_t index, int kind, const char *text, size_t n, const char *name) {
    return kind == BESIDE_JSON ? annotations_add_object(l->a, index, text, n, name)
                               : annotations_add_lines(l->a, index, text, n);
}

/* Archives: the key's other members; the first kind that there is counts. NULL: none. */
static const Member *member_beside(const Pictures *p, const Member *m, int *kind) {
    for (int k = 0; k < BESIDE; k++) {
        char *name = mem_format("%.*s%s", (int)key_length(m->name, true), m->name, beside[k]);
        const int64_t *other = name ? strmap_get(&p->by_name, name) : NULL;
        free(name);
        *kind = k;
        if (other) return &p->member[*other];
    }
    return NULL;
}

static Status member_captions(const Pictures *p, Listing *l, int64_t index, const Member *m) {
    int kind;
    uint8_t *bytes = NULL;
    const Member *other = member_beside(p, m, &kind);
    if (!other) return OK;
    Status st = tar_read(other->place->tar, other->m, &bytes);
    if (st == OK) st = add_beside(l, index, kind, (char *)bytes, (size_t)other->m->size, other->name);
    free(bytes);
    return st;
}

static Status list_archives(const Pictures *p, Listing *l) {
    Status st = OK;
    int kind;
    l->captioned = l->folder_caption != NULL;
    for (int64_t i = 0; i < p->members && !l->captioned; i++)
        l->captioned = annotation_is_picture(p->member[i].name) && member_beside(p, &p->member[i], &kind);
    for (int64_t i = 0; i < p->members && st == OK; i++) {
        const Member *m = &p->member[i];
        int64_t index;
        const char *split = folder_split(m->name);
        if (!annotation_is_picture(m->name)) continue;
        if (!split) split = annotation_split_in(base_name(m->place->path));
        st = annotations_add_image(l->a, m->name, split, l->captioned, m->place->path, &index);
        if (st == OK && l->folder_caption) st = add_class(l, index, m->name);
        else if (st == OK && l->captioned) st = member_captions(p, l, index, m);
    }
    return st;
}

/* ---- folders ---- */

typedef struct { char **path; int64_t n, room; } Names;

static Status keep(Names *names, char *path) {
    if (path && names->n == names->room) {
        int64_t room = names->room ? 2 * names->room : 256;
        char **more = mem_grow(names->path, (size_t)room, sizeof *more);
        if (more) names->path = more, names->room = room;
        else free(path), path = NULL;
    }
    if (!path) return ERR_MEMORY;
    names->path[names->n++] = path;
    return OK;
}

static bool is_metadata(const char *name) {
    static const char *const forms[] = {"metadata.jsonl", "metadata.json", "metadata.csv", "metadata.tsv",
                                        "metadata.parquet"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (!strcmp(base_name(name), forms[i])) return true;
    return false;
}

/* Everything below, but for hidden files; the depth is bounded, as links may lead round. */
static Status scan(const char *root, const char *below, int depth, Names *pictures, Names *metadata) {
    struct dirent *e;
    char *path = mem_format("%s/%s", root, below);
    DIR *d = path ? opendir(path) : NULL;
    Status st = d ? OK : err_set(ERR_IO, "%s: %s", path ? path : root, strerror(errno));
    while (st == OK && (e = readdir(d))) {
        struct stat about;
        if (e->d_name[0] == '.') continue;
        char *name = mem_format("%s%s%s", below, below[0] ? "/" : "", e->d_name),
             *full = mem_format("%s/%s", path, e->d_name);
        bool folder = full && !stat(full, &about) && S_ISDIR(about.st_mode);
        free(full);
        if (!name) st = ERR_MEMORY;
        else if (folder && depth < MAX_DEPTH) st = scan(root, name, depth + 1, pictures, metadata);
        else if (annotation_is_picture(name)) st = keep(pictures, name), name = NULL;
        else if (is_metadata(name)) st = keep(metadata, name), name = NULL;
        free(name);
    }
    if (d) closedir(d);
    free(path);
    return st;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The file of captions beside a picture: free it. NULL: there is none. */
static char *file_beside(const char *root, const char *name, int *kind) {
    for (int k = 0; k < BESIDE; k++) {
        char *path = mem_format("%s/%.*s%s", root, (int)key_length(name, false), name, beside[k]);
        *kind = k;
        if (path && !access(path, R_OK)) return path;
        free(path);
    }
    return NULL;
}

static bool any_beside(const char *root, const Names *pictures) {
    for (int64_t i = 0; i < pictures->n; i++) {
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
    free(text);
    free(path);
    return st;
}

/* prefix: in front of names, where there are several folders. */
static Status add_metadata(Listing *l, const char *root, const char *file, const char *prefix) {
    char *path = mem_format("%s/%s", root, file);
    int folder = (int)(base_name(file) - file);
    char *names = mem_format("%s%s%.*s", prefix, prefix[0] ? "/" : "", folder, file);
    const char *split = folder_split(file);
    Status st = path && names ? annotations_add(l->a, &(AnnotationFile){.path = path, .root = names, .split = split})
                              : ERR_MEMORY;
    free(path);
    free(names);
    return st;
}

static Status add_file(Listing *l, const Place *place, const char *name, const char *prefix, bool texts) {
    int64_t index;
    const char *split = folder_split(name);
    char *whole = mem_format("%s%s%s", prefix, prefix[0] ? "/" : "", name);
    if (!split) split = annotation_split_in(base_name(place->path));
    Status st =
        whole ? annotations_add_image(l->a, whole, split, texts || l->folder_caption, place->path, &index) : ERR_MEMORY;
    if (st == OK && l->folder_caption) st = add_class(l, index, name);
    else if (st == OK && texts) st = file_captions(l, index, place->path, name);
    free(whole);
    return st;
}

static Status list_folder(const Place *place, Listing *l, const char *prefix) {
    Names pictures = {0}, metadata = {0};
    Status st = scan(place->path, "", 0, &pictures, &metadata);
    if (pictures.n) qsort(pictures.path, (size_t)pictures.n, sizeof *pictures.path, by_name);
    if (metadata.n) qsort(metadata.path, (size_t)metadata.n, sizeof *metadata.path, by_name);
    bool listed = metadata.n && !l->folder_caption, texts = st == OK && !listed && any_beside(place->path, &pictures);
    for (int64_t i = 0; listed && i < metadata.n && st == OK; i++)
        st = add_metadata(l, place->path, metadata.path[i], prefix);
    for (int64_t i = 0; !listed && i < pictures.n && st == OK; i++)
        st = add_file(l, place, pictures.path[i], prefix, texts);
    if (st == OK && !pictures.n && !listed)
        st = err_set(ERR_FORMAT, "%s: a folder without pictures (JPEG, PNG, WebP) in it", place->path);
    for (int64_t i = 0; i < pictures.n; i++) free(pictures.path[i]);
    for (int64_t i = 0; i < metadata.n; i++) free(metadata.path[i]);
    free(pictures.path);
    free(metadata.path);
    return st;
}

Status pictures_list(Pictures *p, Annotations *a, const char *folder_caption) {
    Listing l = {.a = a, .folder_caption = folder_caption && folder_caption[0] ? folder_caption : NULL};
    bool several = p->folders > 1;
    if (l.folder_caption && !strstr(l.folder_caption, "{}"))
        return err_set(ERR_USAGE, "extract.folder_caption=%s has no {} for the name of the folder", l.folder_caption);
    Status st = list_archives(p, &l);
    for (int64_t i = 0, index; i < p->places && st == OK; i++) {
        const Place *at = &p->place[i];
        if (at->folder) st = list_folder(at, &l, several ? at->path : "");
        else if (!at->tar) st = annotations_add_image(a, at->path, NULL, false, at->path, &index);
    }
    if (st == OK && !a->count)
        st = err_set(ERR_FORMAT, "%s: no pictures (JPEG, PNG, WebP) in it", p->places ? p->place[0].path : "");
    return st;
}
