/* coco: see coco.h. Captions stay where the JSON documents hold them; ids of numbers become strings of their own. */
#include "eval/metrics/coco.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

typedef struct { char text[24]; } NumberId;

struct CocoStore {
    Json *gt, *res;
    NumberId *numbers;            /* (images) those ids that are numbers, as strings */
    CocoText *references;         /* (annotations) by image */
    StrMap index;                 /* id to place in images */
    bool subset;
    const char *gt_name, *res_name;   /* while reading */
};

/* Writes an id as a string into buffer, or points to the document's; NULL when it is none. */
static const char *id_string(const Json *value, NumberId *buffer, bool *number) {
    int64_t i;
    size_t n = 0;
    const char *s = json_str(value, &n);
    *number = false;
    if (s) return n > 0 && n <= COCO_ID_MAX && strlen(s) == n ? s : NULL;  /* a NUL inside would make two ids one */
    if (!json_int(value, &i)) return NULL;
    *number = true;
    snprintf(buffer->text, sizeof buffer->text, "%" PRId64, i);
    return buffer->text;
}

static Status bad_id(const char *file, const char *list, size_t i, const char *key) {
    return err_set(ERR_FORMAT, "%s: %s[%zu].%s is not a whole number or a string of 1 to %d bytes without NUL", file,
                   list, i, key, COCO_ID_MAX);
}

static Status read_images(Coco *c, const Json *images) {
    struct CocoStore *s = c->store;
    size_t n = json_len(images);
    if (json_type(images) != J_ARRAY || !n)
        return err_set(ERR_FORMAT, "%s: \"images\" is not a list of at least one image", s->gt_name);
    c->images = mem_new(n, sizeof *c->images);
    s->numbers = mem_new(n, sizeof *s->numbers);
    if (!c->images || !s->numbers) return ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        CocoImage *im = &c->images[i];
        im->id = id_string(json_get(json_at(images, i), "id"), &s->numbers[i], &im->number);
        if (!im->id) return bad_id(s->gt_name, "images", i, "id");
        if (strmap_get(&s->index, im->id)) {                 /* its captions would count twice */
            return err_set(ERR_FORMAT, "%s: image %s is listed twice", s->gt_name, im->id);
        }
        if (strmap_put(&s->index, im->id, (int64_t)i)) return ERR_MEMORY;
        /* nocaps: in-, near- and out-of-domain, which its tables tell apart */
        im->domain = json_str(json_get(json_at(images, i), "domain"), NULL);
        c->n++;
    }
    return OK;
}

/* {"42": ["a cat", ...], ...}: neither COCO's document nor its list of results. */
static bool is_by_id(const Json *doc) {
    return json_type(doc) == J_OBJECT && json_len(doc) && !json_get(doc, "images") && !json_get(doc, "annotations");
}

/* Caption k of an image's value, which is one or a list of them, each a string or {"caption": ...}; NULL: none. */
static const Json *caption_of(const Json *value, size_t k) {
    const Json *one = json_type(value) == J_ARRAY ? json_at(value, k) : k == 0 ? value : NULL;
    return json_type(one) == J_OBJECT ? json_get(one, "caption") : one;
}

static size_t captions_of(const Json *value) { return json_type(value) == J_ARRAY ? json_len(value) : 1; }

static Status take_caption(const char *file, const char *id, const Json *caption, CocoText *text) {
    text->text = json_str(caption, &text->n);
    if (text->text) return OK;                               /* an empty caption is one: BLEU punishes it */
    return err_set(ERR_FORMAT, "%s: image %.80s: a caption or a list of captions is wanted", file, id);
}

static Status images_by_id(Coco *c, const Json *doc) {
    struct CocoStore *s = c->store;
    size_t at = 0, all = 0;
    const Json *value;
    Status st = OK;
    /* one block for all: images point into it */
    for (const char *k = json_next(doc, NULL, &value); k; k = json_next(doc, k, &value)) all += captions_of(value);
    c->images = mem_new(json_len(doc), sizeof *c->images);
    s->references = mem_new(all, sizeof *s->references);
    if (!c->images || !s->references) return ERR_MEMORY;
    for (const char *k = json_next(doc, NULL, &value); k && !st; k = json_next(doc, k, &value)) {
        CocoImage *im = &c->images[c->n];
        if (!k[0] || strlen(k) > COCO_ID_MAX)
            return err_set(ERR_FORMAT, "%s: an image's name has no or more than %d bytes", s->gt_name, COCO_ID_MAX);
        /* an id that reads as a number is written back as one; 007 is a name */
        *im = (CocoImage){.id = k, .number = k[0] != '0' && strlen(k) < 19 && strspn(k, "0123456789") == strlen(k),
                          .references = s->references + at, .nrefs = captions_of(value)};
        /* a mean over references needs one */
        if (!im->nrefs) return err_set(ERR_FORMAT, "%s: image %s has no caption", s->gt_name, k);
        for (size_t r = 0; r < im->nrefs && !st; r++)
            st = take_caption(s->gt_name, k, caption_of(value, r), &s->references[at++]);
        if (!st) st = strmap_put(&s->index, k, (int64_t)c->n++);
    }
    return st || c->n ? st : err_set(ERR_FORMAT, "%s: names no image", s->gt_name);
}

static Status candidates_by_id(Coco *c, const Json *doc) {
    struct CocoStore *s = c->store;
    const Json *value;
    Status st = OK;
    for (const char *k = json_next(doc, NULL, &value); k && !st; k = json_next(doc, k, &value)) {
        const int64_t *at = strmap_get(&s->index, k);
        if (!at)
            return err_set(ERR_FORMAT, "%s: image %.80s is not among the %zu images of %s", s->res_name, k, c->n,
                           s->gt_name);
        /* of two the better one would be judged */
        if (captions_of(value) != 1)
            return err_set(ERR_FORMAT, "%s: image %.80s has %zu captions, one is wanted", s->res_name, k,
                           captions_of(value));
        st = take_caption(s->res_name, k, caption_of(value, 0), &c->images[*at].candidate);
    }
    return st;
}

/* The image and the caption of item i of a list. */
static Status read_item(const Coco *c, const char *file, const char *list, const Json *item, size_t i, size_t *image,
                        CocoText *caption) {
    NumberId buffer;
    bool number;
    const char *id = id_string(json_get(item, "image_id"), &buffer, &number);
    const int64_t *at;
    if (!json_get(item, "image_id")) return err_set(ERR_FORMAT, "%s: %s[%zu] has no \"image_id\"", file, list, i);
    if (!id) return bad_id(file, list, i, "image_id");
    if (!(at = strmap_get(&c->store->index, id)))
        return err_set(ERR_FORMAT, "%s: %s[%zu] is of image %s, which is not among the %zu \"images\" of %s", file,
                       list, i, id, c->n, c->store->gt_name);
    *image = (size_t)*at;
    caption->text = json_str(json_get(item, "caption"), &caption->n);
    if (!json_get(item, "caption")) return err_set(ERR_FORMAT, "%s: %s[%zu] has no \"caption\"", file, list, i);
    if (!caption->text) return err_set(ERR_FORMAT, "%s: %s[%zu].caption is not a string", file, list, i);
    return OK;
}

/* Twice over the annotations: counts an image's, then puts each at its image's place. */
static Status read_references(Coco *c, const Json *list) {
    struct CocoStore *s = c->store;
    size_t n = json_len(list), at = 0, image;
    CocoText text;
    Status st;
    if (json_type(list) != J_ARRAY) return err_set(ERR_FORMAT, "%s: \"annotations\" is not a list", s->gt_name);
    if (!(s->references = mem_new(n, sizeof *s->references))) return ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        if ((st = read_item(c, s->gt_name, "annotations", json_at(list, i), i, &image, &text))) return st;
        c->images[image].nrefs++;
    }
    for (size_t i = 0; i < c->n; i++) {
        CocoImage *im = &c->images[i];
        if (!im->nrefs)
            return err_set(ERR_FORMAT, "%s: image %s has no caption among the %zu \"annotations\"", s->gt_name,
                           im->id, n);
        im->references = s->references + at;
        at += im->nrefs;
        im->nrefs = 0;                                       /* counts again, now as the place of the next */
    }
    for (size_t i = 0; i < n; i++) {
        if ((st = read_item(c, s->gt_name, "annotations", json_at(list, i), i, &image, &text))) return st;
        s->references[(size_t)(c->images[image].references - s->references) + c->images[image].nrefs++] = text;
    }
    return OK;
}

static Status candidates_of_list(Coco *c, const Json *list) {
    struct CocoStore *s = c->store;
    size_t n = json_len(list), image;
    CocoText text;
    Status st;
    if (json_type(list) != J_ARRAY)
        return err_set(ERR_FORMAT, "%s: not a list of {\"image_id\": ..., \"caption\": ...}", s->res_name);
    for (size_t i = 0; i < n; i++) {
        if ((st = read_item(c, s->res_name, "result", json_at(list, i), i, &image, &text))) return st;
        if (c->images[image].candidate.text)
            return err_set(ERR_FORMAT, "%s: image %s has two captions, one is wanted", s->res_name,
                           c->images[image].id);
        c->images[image].candidate = text;
    }
    return OK;
}

/* Every image has a caption, or those that have one are all there is (subset). */
static Status check_whole(Coco *c) {
    struct CocoStore *s = c->store;
    size_t n = c->n, missing = 0, first = 0, kept = 0;
    for (size_t i = n; i-- > 0;) {                           /* backwards: the last one found is the first */
        if (c->images[i].candidate.text) continue;
        missing++;
        first = i;
    }
    /* none at all is the wrong file, whatever was asked for */
    if (missing && (!s->subset || missing == n))
        return err_set(ERR_FORMAT, "%s: %zu of the %zu images of %s have no caption, the first of them is image %s%s",
                       s->res_name, missing, n, s->gt_name, c->images[first].id,
                       missing < n ? "; score.subset=true scores the others" : "");
    for (size_t i = 0; i < n; i++)
        if (c->images[i].candidate.text) c->images[kept++] = c->images[i];
    c->n = kept;
    return OK;
}

static Status begin(Coco *c, const char *gt_name, const char *res_name) {
    *c = (Coco){0};
    if (!(c->store = mem_new(1, sizeof *c->store))) return ERR_MEMORY;
    c->store->gt_name = gt_name;
    c->store->res_name = res_name;
    return OK;
}

/* A list, or lines; of one object, a map from ids. */
static const Json *results(const Json *res) {
    /* json_parse_items makes a list of one of an object */
    const Json *only = json_type(res) == J_ARRAY && json_len(res) == 1 ? json_at(res, 0) : NULL;
    return is_by_id(only) && !json_get(only, "image_id") && !json_get(only, "caption") ? only : res;
}

static Status read_both(Coco *c) {
    struct CocoStore *s = c->store;
    const Json *res = results(s->res);
    Status st = is_by_id(s->gt) ? images_by_id(c, s->gt) : read_images(c, json_get(s->gt, "images"));
    if (!st && !is_by_id(s->gt)) st = read_references(c, json_get(s->gt, "annotations"));
    if (!st) st = is_by_id(res) ? candidates_by_id(c, res) : candidates_of_list(c, res);
    return st ? st : check_whole(c);
}

static Status finish(Coco *c, Status st) {
    if (!st) st = read_both(c);
    if (st) coco_free(c);
    return st;
}

Status coco_read(Coco *c, const char *gt_path, const char *res_path, bool subset) {
    Status st = begin(c, gt_path, res_path);
    if (!st) c->store->subset = subset;
    if (!st) st = json_parse_file(&c->store->gt, gt_path);
    if (!st) st = json_parse_items(&c->store->res, res_path);
    return finish(c, st);
}

Status coco_parse(Coco *c, const char *gt, size_t ngt, const char *gt_name, const char *res, size_t nres,
                  const char *res_name) {
    Status st = begin(c, gt_name, res_name);
    if (!st) st = json_parse(&c->store->gt, gt, ngt, gt_name);
    if (!st) st = json_parse(&c->store->res, res, nres, res_name);
    return finish(c, st);
}

void coco_free(Coco *c) {
    if (c->store) {
        json_free(c->store->gt);
        json_free(c->store->res);
        mem_free(c->store->numbers, c->store->references);
        strmap_free(&c->store->index);
        free(c->store);
    }
    free(c->images);
    *c = (Coco){0};
}
