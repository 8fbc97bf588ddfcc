/* annotations: see annotations.h. What was read is kept by annotation_store.c;
 * the forms are in annotation_json.c and annotation_table.c. */
#include "data/make/annotations.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/textfile.h"
#include "data/make/annotation_store.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { MAX_NAME = 4096 };

#define WANTED "captions (JSON, JSON Lines or a table)"

/* ---- files ------------------------------------------------------------------------------------------------------- */

static const char *split_of_folders(const char *image, const char *otherwise) {
    const char *split = annotation_split_on_way(image);
    return split ? split : otherwise;
}

static Status read_form(Annotations *a, const char *text, size_t n, const char *path) {
    size_t blank = 0;
    int64_t before = a->count;
    while (blank < n && strchr(" \t\r\n", text[blank])) blank++;
    if (blank == n) return err_set(ERR_FORMAT, "%s: the file is empty", path);
    bool json = text[blank] == '[' || text[blank] == '{';
    Status st = json ? annotation_json(a, text, n, path) : annotation_table(a, text, n, path);
    const char *column = annotation_columns(a)->caption;
    if (st == OK && column && column[0] && strcmp(column, "none") && !a->store->file_texts)
        return err_set(ERR_FORMAT, "%s: nothing in it is called %s (extract.caption_column)", path, column);
    for (int64_t i = before; st == OK && !a->store->file_texts && i < a->count; i++) {
        a->images[i].bare = true; /* a file without a single caption lists what is to be captioned */
        if (a->images[i].unsaid) a->images[i].split = split_of_folders(a->images[i].image, "test");
    }
    return st;
}

Status annotations_add(Annotations *a, const AnnotationFile *file) {
    char *text = NULL;
    size_t n = 0;
    Status st = annotation_open(a, file);
    if (st == OK) st = textfile_read(&text, &n, file->path, WANTED);
    if (st == OK) st = read_form(a, text, n, file->path);
    free(text);
    return st;
}

Status annotations_add_text(Annotations *a, const char *bytes, size_t size, const AnnotationFile *file) {
    char *text = NULL;
    size_t n = 0;
    Status st = annotation_open(a, file);
    if (st == OK) st = textfile_decode(&text, &n, bytes, size, file->path, WANTED);
    if (st == OK) st = read_form(a, text, n, file->path);
    free(text);
    return st;
}

Status annotations_add_image(Annotations *a, const char *image, const char *split, bool captioned, const char *source,
                             int64_t *index) {
    Status st =
        !a->store || a->store->current.path != source ? annotation_open(a, &(AnnotationFile){.path = source}) : OK;
    if (st != OK) return st;
    /* what nobody captioned is to be captioned: no training data */
    st = annotation_image(a, image, split ? split : split_of_folders(image, captioned ? "train" : "test"), index);
    if (st == OK && !captioned) a->images[*index].bare = true;
    return st;
}

Status annotations_add_caption(Annotations *a, int64_t index, const char *text) {
    return annotation_caption(a, index, text);
}

Status annotations_add_lines(Annotations *a, int64_t index, const char *text, size_t n) {
    char *copy = NULL;
    const char *at, *line;
    size_t len;
    Status st = textfile_decode(&copy, &n, text, n, a->images[index].image, "a caption");
    if (st == OK && (strlen(copy) != n || !utf8_valid(copy, n, NULL))) /* a zero byte would end it early */
        st = err_set(ERR_FORMAT, "the caption beside %s is not UTF-8", a->images[index].image);
    for (at = copy; st == OK && textfile_line(&at, copy + n, &line, &len);) {
        copy[line - copy + (ptrdiff_t)len] = 0;
        if (line[strspn(line, " \t")]) st = annotation_caption(a, index, line);
    }
    free(copy);
    return st;
}

Status annotations_add_object(Annotations *a, int64_t index, const char *json, size_t n, const char *name) {
    return annotation_object(a, index, json, n, name);
}

Status annotations_finish(Annotations *a) {
    struct AnnotationStore *s = a->store;
    if (s && !a->count && s->by_question.n)
        return err_set(ERR_FORMAT, "%s: questions without answers; name the file of their answers after it", s->file);
    if (!s || !a->count) return err_set(ERR_FORMAT, "%s: no images in it", s && s->file ? s->file : "annotations");
    if (!(s->sorted = mem_new((size_t)a->ncaptions, sizeof *s->sorted))) return ERR_MEMORY;
    int64_t *at = mem_new((size_t)a->count, sizeof *at), kept = 0;
    if (!at) return ERR_MEMORY;
    /* counting sort: file order within an image stays */
    for (int64_t i = 0, sum = 0; i < a->count; sum += a->images[i++].ncaptions) {
        at[i] = sum;
        a->images[i].captions = s->sorted + sum;
    }
    for (int64_t k = 0; k < a->ncaptions; k++) s->sorted[at[s->caption[k].image]++] = s->caption[k].text;
    free(at);
    for (int64_t i = 0; i < a->count; i++)
        if (a->images[i].ncaptions || a->images[i].bare) {
            *strmap_get(&s->by_image, a->images[i].image) = kept; /* names go on pointing to where the image moves */
            a->images[kept++] = a->images[i];
        } else {
            *strmap_get(&s->by_image, a->images[i].image) = -1; /* known, and left out */
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
    char name[MAX_NAME];
    const int64_t *i = a->store ? strmap_get(&a->store->by_image, image) : NULL;
    if (i || !a->store || strlen(image) >= sizeof name) return i ? *i : -1;
    annotation_tidy(name, image);
    i = strmap_get(&a->store->by_image, name);
    return i ? *i : -1;
}

void annotations_free(Annotations *a) {
    annotation_store_free(a->store);
    free(a->images);
    *a = (Annotations){0};
}
