/* annotations: see annotations.h. Here the store; the forms are in annotation_json.c and annotation_table.c.
 *
 * While reading, captions form one list in file order, each with the number of its image; finish sorts it by counting.
 * Strings are copied into blocks that live as long as the Annotations. */
#include "data/make/annotations.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/textfile.h"
#include "data/make/annotation_store.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"
#include "kernels/base/unicode.h"

enum { BLOCK = 1 << 20, MAX_NAME = 4096 };

#define WANTED "captions (JSON, JSON Lines or a table)"

typedef struct Block { struct Block *next; size_t used, size; char bytes[]; } Block;

struct AnnotationStore {
    Block *blocks;
    StrMap by_image;                                /* name of an image to its index */
    size_t image_cap, caption_cap;
    struct { int64_t image; const char *text; } *caption;   /* (ncaptions), file order */
    const char **sorted;                            /* (ncaptions), by image; after finish */
    /* of the file being read */
    AnnotationFile current;
    const char *file, *split, *file_split;          /* base name; the caller's split, or NULL; the one the name says */
    int64_t file_texts;                             /* captions, blank ones too */
};

/* ---- the store --------------------------------------------------------------------------------------------------- */

const char *annotation_keep(Annotations *a, const char *s) {
    size_t n = strlen(s) + 1;
    Block *b = a->store->blocks;
    if (!b || b->size - b->used < n) {
        size_t size = n > BLOCK ? n : BLOCK;
        if (!(b = mem_new(1, sizeof *b + size))) return NULL;
        *b = (Block){.next = a->store->blocks, .size = size};
        a->store->blocks = b;
    }
    char *to = b->bytes + b->used;
    memcpy(to, s, n);
    b->used += n;
    return to;
}

static Status store_open(Annotations *a, const AnnotationFile *f) {
    if (!a->store && !(a->store = mem_new(1, sizeof *a->store))) return ERR_MEMORY;
    struct AnnotationStore *s = a->store;
    BUG_ON(s->sorted != NULL, "annotations_add after annotations_finish");
    const char *slash = strrchr(f->path, '/');
    s->current = *f;
    s->split = NULL;
    s->file_texts = 0;
    if (f->split && f->split[0] && !(s->split = annotation_keep(a, annotation_split_word(f->split)))) return ERR_MEMORY;
    if (!(s->file = annotation_keep(a, slash ? slash + 1 : f->path))) return ERR_MEMORY;
    s->file_split = annotation_split_in(s->file);
    if (!s->file_split) s->file_split = "train";
    return OK;
}

const AnnotationColumns *annotation_columns(const Annotations *a) {
    static const AnnotationColumns usual;
    return a->store->current.columns ? a->store->current.columns : &usual;
}

int annotation_fits(const Annotations *a, enum AnnotationRole role, const char *name) {
    const AnnotationColumns *c = annotation_columns(a);
    const char *given = role == ROLE_IMAGE     ? c->image
                        : role == ROLE_CAPTION ? c->caption
                        : role == ROLE_SPLIT   ? c->split
                                               : NULL;
    if (!given || !given[0]) return annotation_rank(role, name);
    return annotation_name_equal(given, name) ? 0 : NO_RANK;
}

/* "./a//b/../c" is "a/c", and so is ".\\a\\c": two spellings of one picture would be two images. */
static void tidy(char *to, const char *name) {
    const char *slash = strchr(name, '\\') && !strchr(name, '/') ? "\\" : "/";
    if (name[0] == '/') *to++ = '/';
    char *start = to;
    size_t depth = 0, n;                            /* parts that ".." may take back */
    for (; *name; name += n, name += *name != 0) {
        n = strcspn(name, slash);
        bool up = n == 2 && !memcmp(name, "..", 2);
        if (!n || (n == 1 && name[0] == '.')) continue;
        if (up && depth) {
            while (to > start && *--to != '/') continue;
            depth--;
            continue;
        }
        if (to > start) *to++ = '/';
        memcpy(to, name, n);
        to += n;
        depth += !up;
    }
    *to = 0;
}

static Status new_image(Annotations *a, const char *name, const char *split, int64_t *index) {
    struct AnnotationStore *s = a->store;
    if ((size_t)a->count == s->image_cap) {
        size_t cap = s->image_cap ? 2 * s->image_cap : 256;
        AnnotatedImage *bigger = mem_grow(a->images, cap, sizeof *bigger);
        if (!bigger) return ERR_MEMORY;
        a->images = bigger;
        s->image_cap = cap;
    }
    const char *last = a->count ? a->images[a->count - 1].split : "";
    const char *own_split = !strcmp(last, split) ? last : annotation_keep(a, split), *own = annotation_keep(a, name);
    if (!own_split || !own || strmap_put(&s->by_image, own, a->count) != OK) return ERR_MEMORY;
    a->images[a->count] = (AnnotatedImage){.image = own, .split = own_split, .file = s->file};
    *index = a->count++;
    return OK;
}

Status annotation_image(Annotations *a, const char *image, const char *split, int64_t *index) {
    struct AnnotationStore *s = a->store;
    char name[2 * MAX_NAME + 2], whole[2 * MAX_NAME + 2];
    const char *root = s->current.root ? s->current.root : "";
    split = s->split ? s->split : split && split[0] ? annotation_split_word(split) : s->file_split;
    if (!image[0]) return err_set(ERR_FORMAT, "the image has no name");
    if (strstr(image, "://"))
        return err_set(ERR_FORMAT,
                       "%.200s is an address, not the name of a file; fetch the pictures first (img2dataset does), "
                       "then give its tars or folder to extract",
                       image);
    if (strlen(image) > MAX_NAME || strlen(root) > MAX_NAME)
        return err_set(ERR_FORMAT, "the name of an image has more than %d bytes", MAX_NAME);
    snprintf(whole, sizeof whole, "%s%s%s", image[0] == '/' ? "" : root, root[0] && image[0] != '/' ? "/" : "", image);
    tidy(name, whole);
    if (!name[0]) return err_set(ERR_FORMAT, "%s is a folder, not an image", image);
    int64_t *known = strmap_get(&s->by_image, name);
    if (!known) return new_image(a, name, split, index);
    const AnnotatedImage *im = &a->images[*known];
    if (strcmp(im->split, split))
        return err_set(ERR_FORMAT, "image %s is in split %s here and in %s in %s", image, split, im->split, im->file);
    *index = *known;
    return OK;
}

Status annotation_caption(Annotations *a, int64_t image, const char *text) {
    struct AnnotationStore *s = a->store;
    s->file_texts++;
    if (!text[strspn(text, " \t\r\n")]) {
        a->blank++;
        return OK;
    }
    if ((size_t)a->ncaptions == s->caption_cap) {
        size_t cap = s->caption_cap ? 2 * s->caption_cap : 1024;
        void *bigger = mem_grow(s->caption, cap, sizeof *s->caption);
        if (!bigger) return ERR_MEMORY;
        s->caption = bigger;
        s->caption_cap = cap;
    }
    const char *own = annotation_keep(a, text);
    if (!own) return ERR_MEMORY;
    s->caption[a->ncaptions].image = image;
    s->caption[a->ncaptions++].text = own;
    a->images[image].ncaptions++;
    return OK;
}

/* The next string of a list written by JSON or Python, "one" or 'two'; false when it is none. Changes the text. */
static bool listed_string(char **at, char **text) {
    char *p = *at + strspn(*at, ", \t\n"), quote = *p, *to;
    if (quote != '"' && quote != '\'') return false;
    *text = to = ++p;
    for (; *p && *p != quote; p++) {
        if (*p == '\\' && p[1]) p++;
        *to++ = *p;
    }
    if (!*p) return false;
    *at = p + 1;
    *to = 0;
    return true;
}

/* All strings of a JSON list; false (and nothing done) when it is not one. */
static bool json_list(Annotations *a, int64_t index, const char *text, Status *st) {
    Json *doc = NULL;
    bool strings = json_parse(&doc, text, strlen(text), "") == OK && json_type(doc) == J_ARRAY;
    for (size_t i = 0; strings && i < json_len(doc); i++) strings = json_type(json_at(doc, i)) == J_STR;
    for (size_t i = 0; strings && *st == OK && i < json_len(doc); i++)
        *st = annotation_caption(a, index, json_str(json_at(doc, i), NULL));
    json_free(doc);
    return strings;
}

Status annotation_captions(Annotations *a, int64_t index, const char *text) {
    size_t n = strlen(text);
    Status st = OK;
    if (n < 4 || text[0] != '[' || (text[1] != '"' && text[1] != '\'') || text[n - 1] != ']')
        return annotation_caption(a, index, text);
    if (json_list(a, index, text, &st)) return st;
    char *copy = mem_strdup(text), *at = copy + 1, *one;
    if (!copy) return ERR_MEMORY;
    while (st == OK && listed_string(&at, &one)) st = annotation_caption(a, index, one);
    free(copy);
    return st;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static Status read_form(Annotations *a, const char *text, size_t n, const char *path) {
    size_t blank = 0;
    int64_t before = a->count;
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;
    while (blank < n && strchr(" \t\r\n", text[blank])) blank++;
    if (blank == n) return err_set(ERR_FORMAT, "%s: the file is empty", path);
    bool json = text[blank] == '[' || text[blank] == '{';
    Status st = json ? annotation_json(a, text, n, path) : annotation_table(a, text, n, path);
    for (int64_t i = before; st == OK && !a->store->file_texts && i < a->count; i++) a->images[i].bare = true;
    return st;
}

Status annotations_add(Annotations *a, const AnnotationFile *file) {
    char *text = NULL;
    size_t n = 0;
    Status st = store_open(a, file);
    if (st == OK) st = textfile_read(&text, &n, file->path, WANTED);
    if (st == OK) st = read_form(a, text, n, file->path);
    free(text);
    return st;
}

Status annotations_add_text(Annotations *a, const char *bytes, size_t size, const AnnotationFile *file) {
    char *text = NULL;
    size_t n = 0;
    Status st = store_open(a, file);
    if (st == OK) st = textfile_decode(&text, &n, bytes, size, file->path, WANTED);
    if (st == OK) st = read_form(a, text, n, file->path);
    free(text);
    return st;
}

Status annotations_add_image(Annotations *a, const char *image, const char *caption, const char *file) {
    int64_t index;
    const char *slash = strrchr(image, '/');
    char folders[MAX_NAME];
    snprintf(folders, sizeof folders, "%.*s", slash ? (int)(slash - image) : 0, image);
    Status st = !a->store || a->store->current.path != file ? store_open(a, &(AnnotationFile){.path = file}) : OK;
    if (st != OK) return st;
    const char *split = annotation_split_in(folders);
    st = annotation_image(a, image, split ? split : caption ? "train" : "test", &index);
    if (st == OK && caption) return annotation_caption(a, index, caption);
    if (st == OK) a->images[index].bare = true;
    return st;
}

Status annotations_finish(Annotations *a) {
    struct AnnotationStore *s = a->store;
    if (!s || !a->count) return err_set(ERR_FORMAT, "%s: no images in it", s && s->file ? s->file : "annotations");
    if (!(s->sorted = mem_new((size_t)a->ncaptions, sizeof *s->sorted))) return ERR_MEMORY;
    int64_t *at = mem_new((size_t)a->count, sizeof *at), kept = 0;
    if (!at) return ERR_MEMORY;
    for (int64_t i = 0, sum = 0; i < a->count; sum += a->images[i++].ncaptions) {
        at[i] = sum;
        a->images[i].captions = s->sorted + sum;
    }
    for (int64_t k = 0; k < a->ncaptions; k++) s->sorted[at[s->caption[k].image]++] = s->caption[k].text;
    free(at);
    for (int64_t i = 0; i < a->count; i++)
        if (a->images[i].ncaptions || a->images[i].bare) {
            *strmap_get(&s->by_image, a->images[i].image) = kept;
            a->images[kept++] = a->images[i];
        } else {
            *strmap_get(&s->by_image, a->images[i].image) = -1;
        }
    a->uncaptioned = a->count - kept;
    a->count = kept;
    return kept ? OK : err_set(ERR_FORMAT, "%s: no captions in it", s->file);
}

Status annotations_load(Annotations *a, const AnnotationFile *files, size_t n) {
    *a = (Annotations){0};
    Status st = n ? OK : err_set(ERR_USAGE, "no annotation file is given");
    for (size_t i = 0; i < n && st == OK; i++) st = annotations_add(a, &files[i]);
    if (st == OK) st = annotations_finish(a);
    if (st != OK) annotations_free(a);
    return st;
}

Status annotations_load_captions(Annotations *a, const AnnotationFile *files, size_t n) {
    Status st = annotations_load(a, files, n);
    if (st != OK || a->ncaptions) return st;
    annotations_free(a);
    return err_set(ERR_FORMAT, "%s: no captions in it, only names of images", files[0].path);
}

int64_t annotations_find(const Annotations *a, const char *image) {
    const int64_t *i = a->store ? strmap_get(&a->store->by_image, image) : NULL;
    return i ? *i : -1;
}

void annotations_free(Annotations *a) {
    if (a->store) {
        for (Block *b = a->store->blocks, *next; b; b = next) {
            next = b->next;
            free(b);
        }
        strmap_free(&a->store->by_image);
        free(a->store->caption);
        free(a->store->sorted);
        free(a->store);
    }
    free(a->images);
    *a = (Annotations){0};
}
