/* coco: reads captions to be scored, in COCO's format. Called by score.c.
 *
 *     ground truth  {"images": [{"id": 42}, ...], "annotations": [{"image_id": 42, "id": 1, "caption": "a cat"}, ...]}
 *     result        [{"image_id": 42, "caption": "a dog"}, ...]
 *     either        {"42": ["a cat", ...], ...}, as pycocoevalcap takes them: a caption, or a list of them, an image
 *
 * An id is a whole number or a string; 42 and "42" are the same image. Each image of the ground truth must have exactly
 * one caption in the result and at least one in the ground truth, and no other image may occur; anything else is an
 * error that names the file and the image. `subset`: images without a caption in the result are left out instead. An
 * image's "domain" (nocaps) is kept, other members are ignored. Does not tokenize. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/err.h"

enum { COCO_ID_MAX = 255 };       /* bytes of an id */

typedef struct { const char *text; size_t n; } CocoText;

typedef struct {
    const char *id;               /* as a string */
    bool number;                  /* the file has a number there */
    CocoText candidate;
    const CocoText *references;   /* (nrefs), in the order of the file */
    const char *domain;           /* "in-domain", ...; NULL: none is given */
    size_t nrefs;
} CocoImage;

typedef struct {
    CocoImage *images;            /* (n), in the order of the ground truth */
    size_t n;
    struct CocoStore *store;      /* everything the above points to */
} Coco;

/* ERR_IO, ERR_FORMAT, ERR_MEMORY; *out is empty then. */
Status coco_read(Coco *out, const char *gt_path, const char *res_path, bool subset);

/* The same from memory; the names are for messages. */
Status coco_parse(Coco *out, const char *gt, size_t ngt, const char *gt_name, const char *res, size_t nres,
                  const char *res_name);
void coco_free(Coco *c);          /* accepts an empty one */
