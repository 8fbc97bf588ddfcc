/* annotations: see annotations.h.
 *
 * While reading, captions form one list in file order, each with the number of its image; finish sorts it by counting.
 * Strings are copied into blocks that live as long as the Annotations. */
#include "data/make/annotations.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/csv.h"
#include "data/format/json.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

enum { BLOCK = 1 << 20, MAX_TEXT = 1 << 20, LOOK = 1 << 16 };

typedef struct Block { struct Block *next; size_t used, size; char bytes[]; } Block;

struct AnnotationStore {
    Block *blocks;
    StrMap by_image;                                /* name of an image to its index */
    size_t image_cap, caption_cap;
    struct { int64_t image; const char *text; } *caption;   /* (ncaptions), file order */
    const char **sorted;                            /* (ncaptions), by image; after finish */
    const char *split;                              /* of the file being read: the caller's, or NULL */
    const char *file, *file_split;                  /* its base name, and the split that this name says */
    int image_column, caption_column, split_column; /* CSV */
};

/* ---- the store --------------------------------------------------------------------------------------------------- */

static const char *keep(Annotations *a, const char *s) {
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

static Status store_open(Annotations *a, const char *path, const char *split) {
    if (!a->store && !(a->store = mem_new(1, sizeof *a->store))) return ERR_MEMORY;
    struct AnnotationStore *s = a->store;
    BUG_ON(s->sorted != NULL, "annotations_add after annotations_finish");
    const char *slash = strrchr(path, '/');
    s->split = NULL;
    if (split && split[0] && !(s->split = keep(a, split))) return ERR_MEMORY;
    if (!(s->file = keep(a, slash ? slash + 1 : path))) return ERR_MEMORY;
    static const struct { const char *word, *split; } words[] = {
        {"train", "train"}, {"val", "val"}, {"valid", "val"}, {"validation", "val"}, {"dev", "val"}, {"test", "test"}};
    s->file_split = "train";
    for (const char *c = s->file; *c;) {      /* words are runs of letters: captions_val2014.json, not latest.json */
        size_t n = 0;
        while ((c[n] >= 'a' && c[n] <= 'z') || (c[n] >= 'A' && c[n] <= 'Z')) n++;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (strlen(words[i].word) == n && !strncasecmp(c, words[i].word, n)) s->file_split = words[i].split;
        c += n ? n : 1;
    }
    return OK;
}

/* The index of an image, new or known. `split` NULL: the file's. */
static Status image_index(Annotations *a, const char *image, const char *split, int64_t *index) {
    struct AnnotationStore *s = a->store;
    if (s->split || !split || !split[0]) split = s->split ? s->split : s->file_split;
    if (!image[0]) return err_set(ERR_FORMAT, "the image has no name");
    int64_t *known = strmap_get(&s->by_image, image);
    if (known) {
        const AnnotatedImage *im = &a->images[*known];
        if (strcmp(im->split, split))
            return err_set(ERR_FORMAT, "image %s is in split %s here and in %s in %s", image, split, im->split,
                           im->file);
        *index = *known;
        return OK;
    }
    if ((size_t)a->count == s->image_cap) {
        size_t cap = s->image_cap ? 2 * s->image_cap : 256;
        AnnotatedImage *bigger = mem_grow(a->images, cap, sizeof *bigger);
        if (!bigger) return ERR_MEMORY;
        a->images = bigger;
        s->image_cap = cap;
    }
    const char *last = a->count ? a->images[a->count - 1].split : "";
    const char *own_split = !strcmp(last, split) ? last : keep(a, split), *own_image = keep(a, image);
    if (!own_split || !own_image || strmap_put(&s->by_image, own_image, a->count) != OK) return ERR_MEMORY;
    a->images[a->count] = (AnnotatedImage){.image = own_image, .split = own_split, .file = s->file};
    *index = a->count++;
    return OK;
}

static Status caption_add(Annotations *a, int64_t image, const char *text) {
    struct AnnotationStore *s = a->store;
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
    const char *own = keep(a, text);
    if (!own) return ERR_MEMORY;
    s->caption[a->ncaptions].image = image;
    s->caption[a->ncaptions++].text = own;
    a->images[image].ncaptions++;
    return OK;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* object[key] as a C string; *s is NULL when it is absent. */
static Status text_of(const Json *object, const char *key, const char **s) {
    size_t n = 0;
    const Json *v = json_get(object, key);
    *s = json_str(v, &n);
    if (v && !*s) return err_set(ERR_FORMAT, "\"%s\" is not a string", key);
    if (*s && (n > MAX_TEXT || strlen(*s) != n))
        return err_set(ERR_FORMAT, "\"%s\" is too long or has a NUL in it", key);
    return OK;
}

static Status text_needed(const Json *object, const char *key, const char **s) {
    if (json_type(object) != J_OBJECT) return err_set(ERR_FORMAT, "an object {...} is wanted here");
    Status st = text_of(object, key, s);
    return st == OK && !*s ? err_set(ERR_FORMAT, "there is no \"%s\"", key) : st;
}

/* All strings of an array of strings, or the member `key` of all its objects. */
static Status captions_of(Annotations *a, int64_t image, const Json *list, const char *key) {
    Status st = OK;
    for (size_t i = 0; i < json_len(list) && st == OK; i++) {
        const Json *v = json_at(list, i);
        const char *text = NULL;
        size_t n = 0;
        if (key) st = text_needed(v, key, &text);
        else if (!(text = json_str(v, &n)) || n > MAX_TEXT || strlen(text) != n)
            st = err_set(ERR_FORMAT, "caption %zu is not a string, too long, or has a NUL in it", i + 1);
        if (st == OK) st = caption_add(a, image, text);
    }
    return st;
}

/* LAVIS: {image, caption: string or list, split?} */
static Status entry(void *ctx, int64_t i, const Json *e) {
    Annotations *a = ctx;
    const char *image, *split = NULL, *caption = NULL;
    int64_t index;
    const Json *list = json_get(e, "caption");
    bool many = json_type(list) == J_ARRAY;
    Status st = text_needed(e, "image", &image);
    if (st == OK) st = text_of(e, "split", &split);
    if (st == OK && !many) st = text_needed(e, "caption", &caption);
    if (st == OK) st = image_index(a, image, split, &index);
    if (st == OK) st = many ? captions_of(a, index, list, NULL) : caption_add(a, index, caption);
    return err_context(st, "entry %lld", (long long)i + 1);
}

/* Karpathy: {filename, filepath?, split, sentences: [{raw}]} */
static Status karpathy(Annotations *a, const Json *images) {
    Status st = OK;
    for (size_t i = 0; i < json_len(images) && st == OK; i++) {
        const Json *e = json_at(images, i);
        const char *name, *folder = NULL, *split = NULL;
        char *path = NULL;
        int64_t index;
        st = text_needed(e, "filename", &name);
        if (st == OK) st = text_of(e, "filepath", &folder);
        if (st == OK) st = text_of(e, "split", &split);
        if (st == OK) {
            path = folder && folder[0] ? mem_format("%s/%s", folder, name) : mem_strdup(name);
            st = path ? image_index(a, path, split, &index) : ERR_MEMORY;
        }
        if (st == OK) st = captions_of(a, index, json_get(e, "sentences"), "raw");
        err_context(st, "entry %zu of \"images\"", i + 1);
        free(path);
    }
    return st;
}

/* COCO ids are numbers; some sets use strings. Both become a key. */
static Status coco_key(char *key, size_t size, const Json *object, const char *member) {
    int64_t number;
    const char *s;
    if (json_int(json_get(object, member), &number)) {
        snprintf(key, size, "%lld", (long long)number);
        return OK;
    }
    const Json *v = json_get(object, member);
    if (v && json_type(v) != J_STR) return err_set(ERR_FORMAT, "\"%s\" is neither a whole number nor a string", member);
    Status st = text_needed(object, member, &s);
    if (st == OK && (size_t)snprintf(key, size, "\"%s", s) >= size)
        st = err_set(ERR_FORMAT, "\"%s\" is too long", member);
    return st;
}

static const char *quote(const char *key) { return key[0] == '"' ? "\"" : ""; }

/* COCO: images [{id, file_name}], annotations [{image_id, caption}] */
static Status coco(Annotations *a, const Json *images, const Json *notes) {
    StrMap ids = {0};
    char key[256];
    Status st = OK;
    for (size_t i = 0; i < json_len(images) && st == OK; i++) {
        const char *name, *own = NULL;
        int64_t index = 0;
        const Json *e = json_at(images, i);
        st = text_needed(e, "file_name", &name);
        if (st == OK) st = coco_key(key, sizeof key, e, "id");
        if (st == OK && strmap_get(&ids, key)) st = err_set(ERR_FORMAT, "id %s%s occurs twice", key, quote(key));
        if (st == OK) st = image_index(a, name, NULL, &index);
        if (st == OK && !(own = keep(a, key))) st = ERR_MEMORY;
        if (st == OK) st = strmap_put(&ids, own, index);
        err_context(st, "entry %zu of \"images\"", i + 1);
    }
    for (size_t i = 0; i < json_len(notes) && st == OK; i++) {
        const char *caption;
        const Json *e = json_at(notes, i);
        st = text_needed(e, "caption", &caption);
        if (st == OK) st = coco_key(key, sizeof key, e, "image_id");
        int64_t *index = st == OK ? strmap_get(&ids, key) : NULL;
        if (st == OK && !index) st = err_set(ERR_FORMAT, "image_id %s%s is not among \"images\"", key, quote(key));
        if (st == OK) st = caption_add(a, *index, caption);
        err_context(st, "entry %zu of \"annotations\"", i + 1);
    }
    strmap_free(&ids);
    return st;
}

static Status document(Annotations *a, const Json *doc) {
    Status st = OK;
    if (json_type(doc) == J_ARRAY) {
        for (size_t i = 0; i < json_len(doc) && st == OK; i++) st = entry(a, (int64_t)i, json_at(doc, i));
        return st;
    }
    const Json *images = json_get(doc, "images"), *notes = json_get(doc, "annotations");
    if (json_type(images) == J_ARRAY && json_type(notes) == J_ARRAY) return coco(a, images, notes);
    if (json_type(images) == J_ARRAY && json_get(json_at(images, 0), "sentences")) return karpathy(a, images);
    return err_set(ERR_FORMAT, "this JSON is none of the known forms: a list of {image, caption}, "
                               "COCO (images, annotations) or Karpathy (images with sentences)");
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

static int column(size_t n, const char *const *fields, const char *const *names) {
    for (; *names; names++)
        for (size_t i = 0; i < n; i++)
            if (!strcmp(fields[i], *names)) return (int)i;
    return -1;
}

static Status csv_row(void *ctx, int64_t line, size_t n, const char *const *fields) {
    static const char *const image_names[] = {"image", "image_name", "file_name", "filename", "filepath", NULL};
    static const char *const caption_names[] = {"caption", "title", "text", NULL};
    static const char *const split_names[] = {"split", NULL};
    Annotations *a = ctx;
    struct AnnotationStore *s = a->store;
    int64_t index;
    (void)line;
    if (s->image_column < 0) {
        s->image_column = column(n, fields, image_names);
        s->caption_column = column(n, fields, caption_names);
        s->split_column = column(n, fields, split_names);
        if (s->image_column >= 0 && s->caption_column >= 0) return OK;
        return err_set(ERR_FORMAT,
                       "neither JSON nor a table: the first line should name the columns, as in image,caption");
    }
    Status st = image_index(a, fields[s->image_column], s->split_column >= 0 ? fields[s->split_column] : NULL, &index);
    return st == OK ? caption_add(a, index, fields[s->caption_column]) : st;
}

static Status table(Annotations *a, FILE *f, const char *name) {
    a->store->image_column = -1;
    Status st = csv_read(f, name, csv_row, a);
    if (st == OK && a->store->image_column < 0) st = err_set(ERR_FORMAT, "%s: the file is empty", name);
    return st;
}

/* ---- which form -------------------------------------------------------------------------------------------------- */

static char first_char(const char *text, size_t n) {
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;
    while (n && (*text == ' ' || *text == '\t' || *text == '\r' || *text == '\n')) text++, n--;
    return n ? *text : 0;
}

/* Whether the first line alone is an object with an "image". */
static bool is_json_lines(const char *text, size_t n) {
    const char *end = memchr(text, '\n', n);
    Json *line = NULL;
    bool yes = json_parse(&line, text, end ? (size_t)(end - text) : n, "") == OK && json_get(line, "image");
    json_free(line);
    return yes;
}

Status annotations_add(Annotations *a, const char *path, const char *split) {
    Json *doc = NULL;
    char *start = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    Status st = store_open(a, path, split);
    if (st == OK && !(start = mem_new(LOOK, 1))) st = ERR_MEMORY;
    if (st != OK) goto done;
    size_t n = fread(start, 1, LOOK, f);
    if (ferror(f)) {
        st = err_set(ERR_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    char c = first_char(start, n);
    if (c == '[' || (c == '{' && is_json_lines(start, n))) {
        st = json_each(path, entry, a);
    } else if (c == '{') {
        if ((st = json_parse_file(&doc, path)) == OK) st = err_context(document(a, doc), "%s", path);
    } else {
        rewind(f);
        st = table(a, f, path);
    }
done:
    json_free(doc);
    free(start);
    fclose(f);
    return st;
}

Status annotations_add_text(Annotations *a, const char *text, size_t n, const char *name, const char *split) {
    Json *doc = NULL;
    FILE *f = NULL;
    Status st = store_open(a, name, split);
    if (st != OK) return st;
    char c = first_char(text, n);
    if (c == '[' || c == '{') {
        if ((st = json_parse(&doc, text, n, name)) == OK) st = err_context(document(a, doc), "%s", name);
    } else if (!n) {
        st = err_set(ERR_FORMAT, "%s: the file is empty", name);
    } else {
        f = fmemopen((void *)(uintptr_t)text, n, "rb");      /* only read */
        st = f ? table(a, f, name) : err_set(ERR_IO, "%s: %s", name, strerror(errno));
        if (f) fclose(f);
    }
    json_free(doc);
    return st;
}

Status annotations_finish(Annotations *a) {
    struct AnnotationStore *s = a->store;
    if (!s || !a->ncaptions)
        return err_set(ERR_FORMAT, "%s: no captions in it", s && s->file ? s->file : "annotations");
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
        if (a->images[i].ncaptions) {
            *strmap_get(&s->by_image, a->images[i].image) = kept;
            a->images[kept++] = a->images[i];
        } else {
            *strmap_get(&s->by_image, a->images[i].image) = -1;
        }
    a->uncaptioned = a->count - kept;
    a->count = kept;
    return OK;
}

Status annotations_load(Annotations *a, const AnnotationFile *files, size_t n) {
    *a = (Annotations){0};
    Status st = n ? OK : err_set(ERR_USAGE, "no annotation file is given");
    for (size_t i = 0; i < n && st == OK; i++) st = annotations_add(a, files[i].path, files[i].split);
    if (st == OK) st = annotations_finish(a);
    if (st != OK) annotations_free(a);
    return st;
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
