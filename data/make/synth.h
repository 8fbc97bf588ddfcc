/* synth: the synthetic set. Small scenes of one to three coloured shapes, rendered, with captions from a small
 * grammar, so that the whole program can be tried in minutes and a caption can be judged by what is really there.
 *
 * Called by the command synth, by the demo and by tests. Everything follows from (seed, split, index): one stream of
 * random numbers a scene (splitmix.h), so any scene can be drawn again alone, and no file is needed to judge captions.
 *
 * A scene is a 4 x 4 grid of cells with a shape in one to three of them. Held out: 24 of the 192 triples (shape,
 * colour, texture), those with (colour - shape + 3 texture) mod 8 = 3, never occur in train and val; every test scene
 * has one. Sizes of pictures are free; the set uses 64 x 64. The full definition with the shapes' formulas is in
 * synth.c.
 *
 * Does not tokenize and does not judge style: synth_check_caption counts claims, true and false. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/listener.h"
#include "kernels/base/err.h"

enum { SYNTH_TRAIN, SYNTH_VAL, SYNTH_TEST, SYNTH_SPLITS };
enum { SYNTH_GRID = 4, SYNTH_OBJECTS = 3, SYNTH_CAPTION = 256 };

enum { SYNTH_SHAPES = 8, SYNTH_COLOURS = 8, SYNTH_TEXTURES = 3, SYNTH_SIZES = 2, SYNTH_GROUNDS = 4 };
extern const char *const synth_shapes[SYNTH_SHAPES], *const synth_colours[SYNTH_COLOURS],
    *const synth_textures[SYNTH_TEXTURES], *const synth_sizes[SYNTH_SIZES], *const synth_grounds[SYNTH_GROUNDS],
    *const synth_splits[SYNTH_SPLITS];

typedef struct {
    int shape, colour, texture, size;      /* indices into the lists above */
    int row, col;                          /* cell */
    double x, y, radius, angle;            /* centre and radius in cells, rotation in radians */
    uint8_t rgb[3], other[3];              /* its colour, and that of its stripes or dots */
} SynthObject;

/* What a caption says: now this, now that; size, texture and place of each object and the ground; colours and shapes
 * alone; those and textures. */
typedef enum { SYNTH_SOME, SYNTH_ALL, SYNTH_NAMES, SYNTH_LOOKS } SynthSay;

typedef struct {
    int n, ground;                         /* objects; index into synth_grounds */
    SynthObject object[SYNTH_OBJECTS];
    uint8_t rgb[3];                        /* of the ground */
    uint64_t captions;                     /* state of the stream after the scene: captions go on from there */
    SynthSay say;
} Scene;

/* What scenes are drawn: of one to `most` objects. The usual: {seed, SYNTH_OBJECTS, SYNTH_SOME}. */
typedef struct { uint64_t seed; int most; SynthSay say; } SynthKind;

/* ERR_USAGE unless split is SYNTH_TRAIN, _VAL or _TEST and index >= 0. synth_scene: of the usual kind. */
Status synth_draw(Scene *s, const SynthKind *kind, int split, int64_t index);
Status synth_scene(Scene *s, uint64_t seed, int split, int64_t index);

void synth_render(const Scene *s, int size, uint8_t *rgb /* (size, size, 3) */);

/* Caption k = 0, 1, 2, ... of the scene, each drawn anew, into buf of SYNTH_CAPTION bytes. */
void synth_caption(const Scene *s, int k, char *buf);

bool synth_held_out(const SynthObject *o);
const SynthObject *synth_find(const Scene *s, int colour, int shape);      /* the first of these two; NULL: none */
const char *synth_article(const char *word);                               /* "a" or "an" */

/* Question k = 0, 1, 2, ... about the scene, its answer, and of what sort it is: synth_ask.c has the list. */
typedef struct { const char *type; char question[SYNTH_CAPTION], answer[SYNTH_CAPTION]; } SynthQuestion;
void synth_ask(const Scene *s, int k, SynthQuestion *q);

/* What a caption claims of a scene. Any text will do: words are looked for, the rest is counted as foreign. */
typedef struct {
    int pairs, pairs_true;                 /* coloured shapes named, and how many of them are in the scene */
    int details, details_true;             /* sizes and textures said of a pair */
    int relations, relations_true;         /* to the left of, above, ...; true if both pairs are there and lie so */
    int places, places_true;               /* in the middle, at the top, ... */
    int grounds, grounds_true;
    int foreign;                           /* words that the grammar does not have */
    bool all_true;                         /* at least one pair, and every claim true */
} SynthClaims;

void synth_check_caption(const Scene *s, const char *caption, SynthClaims *claims);

/* ---- the set ---- */

enum SynthImages { SYNTH_NO_IMAGES, SYNTH_TEST_IMAGES, SYNTH_ALL_IMAGES };

typedef struct {
    SynthKind kind;
    int64_t count[SYNTH_SPLITS];           /* scenes of train, val, test: 4000, 200, 200 */
    int captions, questions;               /* a scene: 3, 0 */
    int size, patch;                       /* 64, 16: 16 tokens of 784 */
    const char *out;                       /* the shard; images and scenes.json go into the folder that holds it */
    enum SynthImages images;               /* PNG files: train/000000.png, ... */
    bool facts;                            /* scenes.json: a list of {image, split, caption, ground, objects}, which
                                              is also an annotation file for extract */
    bool overwrite;                        /* of the shard (setout.h), the pictures and scenes.json */
    Listener listener;
} SynthSpec;

Status synth_write(const SynthSpec *spec);
