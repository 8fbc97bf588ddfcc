/* thumbs: small pictures of a set's images, each on the page once. Called by the report.
 *
 * The idea: every picture is an <image> with a number inside one hidden <svg> (thumbs_write, at the end of the page),
 * and each place that shows it is a <use> of that number: a gallery shows the same image many times. Pictures come
 * from a drawn scene (scenes.h), from the folder the user named, from beside the set, or from where the set says they
 * came from; they are scaled down and written as PNG, whatever they were. An image without a picture is no error: its
 * name is shown instead.
 *
 * Names come from files: one that leads out of its folder ("../x", "/x") is not followed there. */
#pragma once
#include <stdio.h>

#include "eval/report/scenes.h"

enum { THUMB_SIDE = 144 };

typedef struct {
    int64_t image;
    int w, h;                           /* 0: no picture */
    char *png;
    size_t n;
} Thumb;

typedef struct {
    const Set *set;
    const char *folder;                 /* of the user; "" when not given */
    Scenes *scenes;
    Thumb *list;
    int64_t n, found;
    char why[512];                      /* the first picture that was there and could not be read; "" */
} Thumbs;

void thumbs_open(Thumbs *t, const Set *set, const char *folder, Scenes *scenes);
void thumbs_close(Thumbs *t);

/* The picture of an image, made when first asked for; NULL when there is none (or no memory: it is decoration). */
const Thumb *thumbs_get(Thumbs *t, int64_t image);

/* Shows it: an svg of class `class` with the words `says`; the image's name in a box when there is no picture. */
void thumbs_show(FILE *f, Thumbs *t, int64_t image, const char *class, const char *says);
void thumb_use(FILE *f, const Thumb *k); /* the <use> alone, inside an svg of its size */
void thumbs_write(FILE *f, const Thumbs *t);
