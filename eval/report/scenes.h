/* scenes: what is really on a picture of the synthetic set, found from its name. Called by the report (and by whoever
 * wants to judge captions of drawn scenes).
 *
 * An image "test/000012.png" of source "synth" is scene 12 of split test, for some seed. A seed is believed when the
 * scene it gives has the caption that the set has; then everything is known and the scene can be drawn at any size.
 * Otherwise scenes.json beside the set says what is there, which is enough to judge a caption (not to draw it). */
#pragma once
#include "data/make/synth.h"
#include "data/set.h"

typedef struct {
    const Set *set;
    uint64_t seed[3];                   /* to be tried */
    int nseeds;
    bool read;                          /* scenes.json was looked for */
    struct { char *image; Scene scene; } *fact;
    int64_t facts;
} Scenes;

void scenes_open(Scenes *s, const Set *set, const uint64_t *seed, int n);
void scenes_close(Scenes *s);

/* The scene of an image; false when it is none, or nothing says what it shows. *drawable:
 * synth_render gives this picture. */
bool scenes_find(Scenes *s, int64_t image, Scene *scene, bool *drawable);
