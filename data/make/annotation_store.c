/* annotation_store: see annotation_store.h. */
#include "data/make/annotation_store.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/path.h"
#include "kernels/base/mem.h"

enum { BLOCK = 1 << 20, MAX_NAME = 4096 };

typedef struct AnnotationBlock { struct AnnotationBlock *next; size_t used, size; char bytes[]; } Block;

const char *annotation_keep(Annotations *a, const char *s) {
    size_t n = strlen(s) + 1;
    Block *b = a->store->blocks;
    if (!b || b->size - b->used < n) {                       /* the rest of a block is given up: names are short */
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

Status annotation_open(Annotations *a, const AnnotationFile *f) {
    if (!a->store && !(a->store = mem_new(1, sizeof *a->store))) return ERR_MEMORY;
    struct AnnotationStore *s = a->store;
    BUG_ON(s->sorted != NULL, "annotations_add after annotations_finish");
    s->current = *f;
    s->split = NULL;
    s->file_texts = 0;
    if (f->split && f->split[0] && !(s->split = annotation_keep(a, annotation_split_word(f->split)))) return ERR_MEMORY;
    if (!(s->file = annotation_keep(a, path_base(f->path)))) return ERR_MEMORY;
    s->file_split = annotation_split_in(s->file);
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

void annotation_tidy(char *to, const char *name) {
    const char *slash = strchr(name, '\\') && !strchr(name, '/') ? "\\" : "/";
    if (name[0] == '/') *to++ = '/';
    char *start = to;
    size_t depth = 0, n;                            /* parts that ".." may take back */
    for (; *name; name += n, name += *name != 0) {
        n = strcspn(name, slash);
        bool up = n == 2 && !memcmp(name, "..", 2);
        if (!n || (n == 1 && name[0] == '.')) continue;
        if (up && depth) {
            while (to > start && *--to != '/') continue;     /* back over one part */
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
    if (mem_room(&a->images, (size_t)a->count, 1, sizeof *a->images) != OK) return ERR_MEMORY;
    const char *last = a->count ? a->images[a->count - 1].split : ""; /* mostly the one before: kept once */
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
    bool unsaid = !split;
    if (unsaid) split = "train";
    if (!image[0]) return err_set(ERR_FORMAT, "the image has no name");
    if (!strncmp(image, "file:///", 8)) image += 7;          /* an address that is a path */
    if (strstr(image, "://"))
        return err_set(ERR_FORMAT,
                       "%.200s is an address, not the name of a file; fetch the pictures first (img2dataset does), "
                       "then give its tars or folder to extract",
                       image);
    if (strlen(image) > MAX_NAME || strlen(root) > MAX_NAME)
        return err_set(ERR_FORMAT, "the name of an image has more than %d bytes", MAX_NAME);
    snprintf(whole, sizeof whole, "%s%s%s", image[0] == '/' ? "" : root, root[0] && image[0] != '/' ? "/" : "", image);
    annotation_tidy(name, whole);
    if (!name[0]) return err_set(ERR_FORMAT, "%s is a folder, not an image", image);
    int64_t *known = strmap_get(&s->by_image, name);
    if (!known) {
        Status st = new_image(a, name, split, index);
        if (st == OK) a->images[*index].unsaid = unsaid;
        return st;
    }
    const AnnotatedImage *im = &a->images[*known];
    if (strcmp(im->split, split))                            /* the same picture would train and judge */
        return err_set(ERR_FORMAT, "image %s is in split %s here and in %s in %s", image, split, im->split, im->file);
    *index = *known;
    return OK;
}

Status annotation_caption(Annotations *a, int64_t image, const char *text) {
    struct AnnotationStore *s = a->store;
    s->file_texts++; /* blank ones, too: the file has captions, only this is none */
    if (!text[strspn(text, " \t\r\n")]) {
        a->blank++;
        return OK;
    }
    if (mem_room(&s->caption, (size_t)a->ncaptions, 1, sizeof *s->caption) != OK) return ERR_MEMORY;
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
    /* most fields are no list: parsed as JSON they would only cost */
    if (n < 4 || text[0] != '[' || (text[1] != '"' && text[1] != '\'') || text[n - 1] != ']')
        return annotation_caption(a, index, text);
    if (json_list(a, index, text, &st)) return st;
    char *copy = mem_strdup(text), *at = copy + 1, *one;     /* Python's repr, as csv files of pandas have it */
    if (!copy) return ERR_MEMORY;
    while (st == OK && listed_string(&at, &one)) st = annotation_caption(a, index, one);
    free(copy);
    return st;
}

Status annotation_each(Annotations *a, const Json *doc, const char *list, AnnotationEntryFn *fn, void *ctx) {
    const Json *entries = json_get(doc, list);
    Status st = OK;
    for (size_t i = 0; i < json_len(entries) && st == OK; i++)
        st = err_context(fn(a, json_at(entries, i), ctx), "entry %zu of \"%s\"", i + 1, list);
    return st;
}

void annotation_store_free(struct AnnotationStore *s) {
    if (!s) return;
    for (Block *b = s->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    strmap_free(&s->by_image);
    strmap_free(&s->by_question);
    mem_free(s->question, s->caption, s->sorted, s);
}
