/* synth_ask: questions about a scene, and their answers; see synth.h.
 *
 *     colour      what colour is the SHAPE?                    one shape of its kind
 *     shape       what shape is the COLOUR object?             one object of its colour
 *     texture     is the SHAPE plain, striped or dotted?       one shape of its kind
 *     count       how many objects are there?
 *     exists      is there a COLOUR SHAPE?                     as often yes as no: then one of the two is in the scene
 *     relation    is the A to the left of the B?               as often yes as no: then the other way round
 *     background  what colour is the background?
 *
 * A sort of question is drawn first, evenly among those that the scene can answer, so that no answer is likely before
 * the picture is seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/make/synth.h"
#include "kernels/base/splitmix.h"

enum { COLOUR, SHAPE, TEXTURE, COUNT, EXISTS, RELATION, BACKGROUND, SORTS };
static const char *const sorts[SORTS] = {"colour", "shape", "texture", "count", "exists", "relation", "background"};

/* An object, from a random one on, that is alone of its shape (or colour); NULL: none is. */
static const SynthObject *single(const Scene *s, SplitMix *r, bool by_colour) {
    uint32_t from = splitmix_below(r, (uint32_t)s->n);
    for (int i = 0; i < s->n; i++) {
        const SynthObject *o = &s->object[(from + (uint32_t)i) % (uint32_t)s->n];
        int alike = 0;
        for (int k = 0; k < s->n; k++)
            alike += by_colour ? s->object[k].colour == o->colour : s->object[k].shape == o->shape;
        if (alike == 1) return o;
    }
    return NULL;
}

static void ask_exists(const Scene *s, SplitMix *r, SynthQuestion *q) {
    const SynthObject *o = &s->object[splitmix_below(r, (uint32_t)s->n)];
    /* as often no: always saying yes must not pay */
    bool yes = splitmix_below(r, 2), other_colour = splitmix_below(r, 2);
    int colour = o->colour, shape = o->shape;
    while (!yes && synth_find(s, colour, shape)) {           /* one of the two is changed: the other is really there */
        if (other_colour) colour = (int)splitmix_below(r, SYNTH_COLOURS);
        else shape = (int)splitmix_below(r, SYNTH_SHAPES);
    }
    snprintf(q->question, SYNTH_CAPTION, "is there %s %s %s?", synth_article(synth_colours[colour]),
             synth_colours[colour], synth_shapes[shape]);
    snprintf(q->answer, SYNTH_CAPTION, "%s", yes ? "yes" : "no");
}

/* Two objects that differ in column and are told apart by colour and shape. */
static bool ask_relation(const Scene *s, SplitMix *r, SynthQuestion *q) {
    if (s->n < 2) return false;
    int i = (int)splitmix_below(r, (uint32_t)s->n), k = (i + 1 + (int)splitmix_below(r, (uint32_t)s->n - 1)) % s->n;
    const SynthObject *a = &s->object[i], *b = &s->object[k];
    int alike = 0;
    for (int m = 0; m < s->n; m++) {
        const SynthObject *o = &s->object[m];
        alike += (o->colour == a->colour && o->shape == a->shape) || (o->colour == b->colour && o->shape == b->shape);
    }
    if (a->col == b->col || alike != 2) return false; /* neither left nor right, or not told apart by their names */
    snprintf(q->question, SYNTH_CAPTION, "is the %s %s to the left of the %s %s?", synth_colours[a->colour],
             synth_shapes[a->shape], synth_colours[b->colour], synth_shapes[b->shape]);
    snprintf(q->answer, SYNTH_CAPTION, "%s", a->col < b->col ? "yes" : "no");
    return true;
}

/* False when the scene has no answer to a question of this sort. */
static bool ask(const Scene *s, SplitMix *r, int sort, SynthQuestion *q) {
    const SynthObject *o = sort <= TEXTURE ? single(s, r, sort == SHAPE) : NULL;
    if (sort <= TEXTURE && !o) return false;
    const char *shape = o ? synth_shapes[o->shape] : "", *colour = o ? synth_colours[o->colour] : "";
    switch (sort) {
    case COLOUR:
        snprintf(q->question, SYNTH_CAPTION, "what colour is the %s?", shape);
        snprintf(q->answer, SYNTH_CAPTION, "%s", colour);
        return true;
    case SHAPE:
        snprintf(q->question, SYNTH_CAPTION, "what shape is the %s object?", colour);
        snprintf(q->answer, SYNTH_CAPTION, "%s", shape);
        return true;
    case TEXTURE:
        snprintf(q->question, SYNTH_CAPTION, "is the %s %s, %s or %s?", shape, synth_textures[0], synth_textures[1],
                 synth_textures[2]);
        snprintf(q->answer, SYNTH_CAPTION, "%s", synth_textures[o->texture]);
        return true;
    case COUNT:
        snprintf(q->question, SYNTH_CAPTION, "how many objects are there?");
        snprintf(q->answer, SYNTH_CAPTION, "%d", s->n);
        return true;
    case EXISTS: ask_exists(s, r, q); return true;
    case RELATION: return ask_relation(s, r, q);
    default:
        snprintf(q->question, SYNTH_CAPTION, "what colour is the background?");
        snprintf(q->answer, SYNTH_CAPTION, "%s", synth_grounds[s->ground]);
        return true;
    }
}

void synth_ask(const Scene *s, int k, SynthQuestion *q) {
    SplitMix r = {s->captions ^ (0x5155455354494F4Eu + (uint64_t)k)};
    int sort;
    do sort = (int)splitmix_below(&r, SORTS);
    while (!ask(s, &r, sort, q));
    q->type = sorts[sort];
}
