/* pictures: see pictures.h. */
#include "data/make/pictures.h"

#include <ctype.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/fingerprint.h"
#include "data/format/path.h"
#include "data/make/annotation_names.h"
#include "data/make/pictures_own.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static Status open_place(Pictures *p, const char *path) {
    static const char *const lists[] = {".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".token", NULL};
    struct stat about;
    if (mem_room(&p->place, (size_t)p->places, 1, sizeof *p->place) != OK) return ERR_MEMORY;
    PicturesPlace *at = &p->place[p->places];
    *at = (PicturesPlace){.path = mem_strdup(path)};
    if (!at->path) return ERR_MEMORY;
    p->places++;
    if (stat(path, &about))
        return err_set(ERR_IO, "%s: %s%s", path, strerror(errno),
                       strstr(path, "://") ? "; addresses are not fetched, img2dataset does that" : "");
    at->folder = S_ISDIR(about.st_mode);
    p->folders += at->folder;
    if (at->folder || annotation_is_picture(path)) return OK; /* a single picture is its own name */
    const char *base = path_base(path), *dot = strchr(base, '.'); /* webdataset's key ends at the first dot */
    if (path_ends_in(base, lists))
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
    /* glob sorts: the order is not the folder's */
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
    /* webdataset's own notation, which glob does not know */
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
            PicturesMember *m = &p->member[n];
            *m = (PicturesMember){.place = &p->place[i], .m = tar_at(p->place[i].tar, k)};
            m->name = p->prefixed ? mem_format("%s/%s", m->place->stem, m->m->name) : mem_strdup(m->m->name);
            p->members = n + 1;
            if (!m->name) return ERR_MEMORY;
            const int64_t *before = strmap_get(&p->by_name, m->name);
            if (before && p->prefixed)
                return err_set(ERR_FORMAT,
                               "%s: %s stands twice%s%s%s", m->place->path, m->m->name,
                               p->member[*before].place == m->place ? " in it" : ", here and in ",
                               p->member[*before].place == m->place ? "" : p->member[*before].place->path,
                               p->member[*before].place == m->place ? ""
                                   : "; give each archive once, under a name of its own");
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
    p->prefixed = true; /* archives may all count from 000000 */
    return enter_members(p);
}

Status pictures_open(Pictures **out, const char *in) {
    *out = NULL;
    Pictures *p = mem_new(1, sizeof *p);
    if (!p) return ERR_MEMORY;
    char *list = mem_strdup(in), *rest = list, *item;
    Status st = list ? OK : ERR_MEMORY;
    while (st == OK && (item = path_next(&rest))) st = open_item(p, item);
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
        mem_free(p->place[i].stem, p->place[i].path);
    }
    mem_free(p->place, p);
}

int64_t pictures_places(const Pictures *p) { return p->places; }
const char *pictures_root(const Pictures *p, int64_t i) { return p->place[i].folder ? p->place[i].path : NULL; }

/* ---- finding one ------------------------------------------------------------------------------------------------- */

/* Prefixes of COCO's numbers: those of 2017 have none. */
static const char *const coco[] = {"", "COCO_train2014_", "COCO_val2014_", "COCO_test2014_", "COCO_test2015_"};
enum { COCO = sizeof coco / sizeof *coco };

/* 391895 or 391895.jpg as COCO writes it; NULL: the name is no such number, or k too large. */
static char *coco_spelling(const char *name, int k) {
    static const char *const endings[] = {"jpg", "png", "jpeg", "webp"};
    enum { ENDINGS = sizeof endings / sizeof *endings };
    const char *base = path_base(name);
    size_t digits = strspn(base, "0123456789");
    bool number = digits && digits < 12 && (!base[digits] || (base[digits] == '.' && annotation_is_picture(name)));
    if (!number || k >= COCO * ENDINGS) return NULL;
    return mem_format("%.*s%s%012lld.%s", (int)(base - name), name, coco[k / ENDINGS], strtoll(base, NULL, 10),
                      endings[k % ENDINGS]);
}

/* The spellings under which a picture may lie: as it is, with (another case of) its ending, as COCO's number. NULL
 * after the last. */
static char *spelling(const char *name, int k) {
    static const char *const endings[] = {"jpg", "jpeg", "png", "webp", "JPG", "JPEG", "PNG"};
    enum { ENDINGS = sizeof endings / sizeof *endings };
    bool ends = annotation_is_picture(name);
    if (k == 0) return mem_strdup(name);
    if (ends && k == 1) {                                    /* x.JPG for x.jpg */
        char *other = mem_strdup(name), *end = other ? strrchr(other, '.') : NULL;
        for (bool up = end && islower((unsigned char)end[1]); end && *end; end++)
            *end = (char)(up ? toupper((unsigned char)*end) : tolower((unsigned char)*end));
        return other;
    }
    if (!ends && k <= ENDINGS) return mem_format("%s.%s", name, endings[k - 1]);
    return coco_spelling(name, k - 1 - (ends ? 1 : ENDINGS));
}

static bool find_file(const Pictures *p, const char *name, PicturePlace *at, bool whole) {
    for (int64_t i = 0; i < p->places + whole; i++) {
        bool alone = i == p->places; /* also as it stands: of several folders, names have them */
        if (alone ? name[0] != '/' && p->folders == 1 && p->places == 1 : name[0] == '/' || !p->place[i].folder)
            continue;
        char *path = alone ? mem_strdup(name) : mem_format("%s/%s", p->place[i].path, name);
        if (path && !access(path, R_OK)) { /* asked of the file system: a list of millions would have to be held */
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
    const PicturesMember *m = &p->member[*k];
    *at = (PicturePlace){.path = mem_strdup(m->place->path), .archive = m->place->tar, .member = m->m};
    return at->path != NULL;
}

static const char *first_folder(const Pictures *p) {
    int64_t i = 0;
    while (!p->place[i].folder) i++;
    return p->place[i].path;
}

/* Under any spelling; `whole`: also as the name stands, not only below the folders. */
static bool find_spelled(const Pictures *p, const char *name, PicturePlace *at, bool whole) {
    char *other;
    bool found = false;
    *at = (PicturePlace){.otherwise = !whole};
    for (int k = 0; !found && (other = spelling(name, k)); k++) {
        /* archives are in memory, so they are asked first */
        found = find_member(p, other, at) || (p->tars < p->places + !p->places && find_file(p, other, at, whole));
        free(other);
    }
    at->otherwise = !whole;
    return found;
}

/* "%20" as " ". */
static char *percents_taken(const char *name) {
    char *to = mem_strdup(name), *p = to;
    unsigned byte;
    for (const char *c = name; to && *c; c++) {
        /* %00 would end the name */
        bool coded = *c == '%' && isxdigit((unsigned char)c[1]) && isxdigit((unsigned char)c[2]) &&
                     sscanf(c + 1, "%2x", &byte) == 1;
        *p++ = coded && byte ? (char)byte : *c;
        if (coded && byte) c += 2;
    }
    if (p) *p = 0;
    return to;
}

static bool find_otherwise(const Pictures *p, const char *name, PicturePlace *at) {
    char *plain = p->places ? percents_taken(name) : NULL;
    bool found = plain && strcmp(plain, name) && find_spelled(p, plain, at, false);
    const char *base = plain ? path_base(plain) : "", *end = strncmp(base, "COCO_", 5) ? NULL : strchr(base + 5, '_');
    char *folder = end ? mem_format("%.*s/%s", (int)(end - base) - 5, base + 5, base) : NULL;
    if (!found && folder) found = find_spelled(p, folder, at, false);
    free(folder);
    /* the longest rest first: a/x.jpg before x.jpg */
    for (const char *tail = plain; !found && tail && (tail = strchr(tail, '/'));)
        found = find_spelled(p, ++tail, at, false);
    free(plain);
    return found;
}

Status pictures_find(const Pictures *p, const char *name, PicturePlace *at) {
    if (find_spelled(p, name, at, true) || find_otherwise(p, name, at)) return OK;
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
    if (m) *h = hash_int(hash_int(*h, m->at), m->size);      /* members move when an archive is written anew */
    return fingerprint_stat(h, at->path);
}

PictureIdentity pictures_identity(const PicturePlace *at) {
    struct stat about = {0};
    const TarMember *m = at->member;
    if (stat(at->path, &about)) return (PictureIdentity){0};
    return (PictureIdentity){(uint64_t)about.st_dev, (uint64_t)about.st_ino, m ? m->at : -1};
}
