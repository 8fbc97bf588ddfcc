/* features: the raw features of images on their way to the device, with their scales. Where the host's memory is the
 * device's nothing moves. With `ahead` two rooms take turns:
 * what comes next travels beside the work on what is here. */
#pragma once
#include "kernels/arena.h"
#include "kernels/model/dims.h"

/* Of some images: (n,P,E), and dims_scales numbers an image, or NULL. data NULL: none are known. */
typedef struct { const void *data; const float *scale; } FeatureRows;

/* holds: the host's rows that are on their way */
typedef struct { void *data; float *scale; const void *holds; } FeatureRoom;
typedef struct {
    const Backend *b;
    int64_t numbers, scales;            /* of an image */
    FeatureRoom room[2];
    int turn;                           /* which of them holds what was asked for last */
} Features;

/* Room for n images at a time of up to `widest` an element, from `run`. */
void features_open(Features *f, const Backend *b, Arena *run, const Dims *d, int64_t n, DType widest, bool ahead);

/* n images of type t from the host, where the device finds them; next: those that will be asked for after these, in
 * pinned memory and left alone until then, as many. One that is not open hands on what it is given. */
FeatureRows features_up(Features *f, FeatureRows here, int64_t n, DType t, FeatureRows next);

/* the host's from image `first` on */
FeatureRows features_from(const Dims *d, FeatureRows all, int64_t first, DType t);
