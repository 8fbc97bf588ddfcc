/* synth: a scene, and its picture. Captions are in synth_text.c, files in synth_write.c; see synth.h.
 *
 * Lengths are in cells of the 4 x 4 grid, y down. An object's own coordinates are relative to its centre, rotated back,
 * in units of its radius. Jitter: position +-0.08 cell, radius +-6 %, rotation +-0.14 rad, colour +-14, ground +-8. */
#include "data/make/synth.h"

#include <math.h>
#include <string.h>

#include "kernels/base/splitmix.h"

const char *const synth_splits[SYNTH_SPLITS] = {"train", "val", "test"};
const char *const synth_shapes[SYNTH_SHAPES] = {"circle", "square", "triangle", "star",
                                                "ring",   "cross",  "diamond",  "heart"};
const char *const synth_colours[SYNTH_COLOURS] = {"red",    "green",  "blue", "yellow",
                                                  "orange", "purple", "pink", "brown"};
const char *const synth_textures[SYNTH_TEXTURES] = {"plain", "striped", "dotted"};
const char *const synth_sizes[SYNTH_SIZES] = {"small", "large"};
const char *const synth_grounds[SYNTH_GROUNDS] = {"white", "grey", "black", "sky blue"};

static const uint8_t colour_rgb[SYNTH_COLOURS][3] = {{214, 40, 40},  {44, 160, 60},  {42, 84, 222},   {242, 206, 36},
                                                     {246, 136, 26}, {136, 56, 176}, {250, 140, 190}, {124, 78, 40}};
static const uint8_t ground_rgb[SYNTH_GROUNDS][3] = {{255, 255, 255}, {200, 200, 200}, {24, 24, 24}, {190, 225, 250}};
static const double size_radius[SYNTH_SIZES] = {0.29, 0.45};

enum { SHAPE_CIRCLE, SHAPE_SQUARE, SHAPE_TRIANGLE, SHAPE_STAR, SHAPE_RING, SHAPE_CROSS, SHAPE_DIAMOND, SHAPE_HEART };
enum { TEXTURE_PLAIN, TEXTURE_STRIPED, TEXTURE_DOTTED };

/* ---- the scene --------------------------------------------------------------------------------------------------- */

bool synth_held_out(const SynthObject *o) { return (o->colour - o->shape + 3 * o->texture + 8) % 8 == 3; }

const SynthObject *synth_find(const Scene *s, int colour, int shape) {
    for (int i = 0; i < s->n; i++)
        if (s->object[i].colour == colour && s->object[i].shape == shape) return &s->object[i];
    return NULL;
}

const char *synth_article(const char *word) { return strchr("aeiou", word[0]) ? "an" : "a"; }

static uint8_t jittered(SplitMix *r, uint8_t v, double by) {
    int t = v + (int)lround(splitmix_sym(r, by));
    return (uint8_t)(t < 0 ? 0 : t > 255 ? 255 : t);
}

/* Shapes, colours and textures of all objects: shapes differ, colours differ, and the split's rule holds. */
static void draw_kinds(Scene *s, SplitMix *r, int split) {
    bool good;
    do {
        int held_out = 0;
        good = true;
        for (int i = 0; i < s->n; i++) {
            SynthObject *o = &s->object[i];
            o->shape = (int)splitmix_below(r, SYNTH_SHAPES);
            o->colour = (int)splitmix_below(r, SYNTH_COLOURS);
            o->texture = (int)splitmix_below(r, SYNTH_TEXTURES);
            for (int k = 0; k < i; k++)
                /* else "the red shape" would be two */
                if (s->object[k].shape == o->shape || s->object[k].colour == o->colour) good = false;
            held_out += synth_held_out(o);
        }
        if (split == SYNTH_TEST ? !held_out : held_out) good = false; /* what is tested was never shown */
    } while (!good);
}

static void draw_cells(Scene *s, SplitMix *r) {
    bool taken[SYNTH_GRID * SYNTH_GRID] = {false};
    for (int i = 0; i < s->n; i++) {
        int cell;
        do cell = (int)splitmix_below(r, SYNTH_GRID * SYNTH_GRID); /* three of sixteen: a miss is rare */
        while (taken[cell]);
        taken[cell] = true;
        s->object[i].row = cell / SYNTH_GRID;
        s->object[i].col = cell % SYNTH_GRID;
    }
}

/* One, two or three objects with probability 0.15, 0.5, 0.35; of fewer the same shares of what is left. */
static int draw_count(SplitMix *r, int most) {
    static const double upto[SYNTH_OBJECTS] = {0.15, 0.65, 1};
    double u = splitmix_unit(r) * upto[most - 1];
    return u < upto[0] ? 1 : u < upto[1] ? 2 : 3;
}

Status synth_scene(Scene *s, uint64_t seed, int split, int64_t index) {
    return synth_draw(s, &(SynthKind){seed, SYNTH_OBJECTS, false}, split, index);
}

Status synth_draw(Scene *s, const SynthKind *kind, int split, int64_t index) {
    BUG_ON(kind->most < 1 || kind->most > SYNTH_OBJECTS, "synth: scenes of up to %d objects", kind->most);
    if (split < 0 || split >= SYNTH_SPLITS || index < 0)
        return err_set(ERR_USAGE, "there is no scene %lld of split %d", (long long)index, split);
    /* odd numbers: seeds, splits and places do not collide */
    SplitMix r = {kind->seed * 0x9E3779B97F4A7C15u + (uint64_t)split * 0xD1B54A32D192ED03u +
                  (uint64_t)index * 0x8CB92BA72F3D8DD7u};
    *s = (Scene){.say = kind->say};
    s->n = draw_count(&r, kind->most);
    draw_kinds(s, &r, split);
    draw_cells(s, &r);
    for (int i = 0; i < s->n; i++) {
        SynthObject *o = &s->object[i];
        o->size = (int)splitmix_below(&r, SYNTH_SIZES);
        o->x = o->col + 0.5 + splitmix_sym(&r, 0.08);
        o->y = o->row + 0.5 + splitmix_sym(&r, 0.08);
        o->radius = size_radius[o->size] * (1 + splitmix_sym(&r, 0.06));
        o->angle = splitmix_sym(&r, 0.14);
        for (int c = 0; c < 3; c++) {
            o->rgb[c] = jittered(&r, colour_rgb[o->colour][c], 14);
            o->other[c] = (uint8_t)((o->rgb[c] + 3 * 255 + 2) / 4); /* three parts white: still its colour */
        }
    }
    s->ground = (int)splitmix_below(&r, SYNTH_GROUNDS);
    for (int c = 0; c < 3; c++) s->rgb[c] = jittered(&r, ground_rgb[s->ground][c], 8);
    s->captions = r.state;                                   /* so captions need not draw the scene again */
    return OK;
}

/* ---- the picture ------------------------------------------------------------------------------------------------- */

/* Five tips at radius 1, inner corners at 0.42, a tip up: in the sector of a tenth of a turn from a tip, the inner side
 * of the line from the tip to the corner. */
static bool in_star(double x, double y) {
    const double tenth = 3.14159265358979323846 / 5, cx = 0.42 * 0.80901699437494742, cy = 0.42 * 0.58778525229247313;
    double turn = fmod(atan2(x, -y) + 20 * tenth, 2 * tenth);
    double a = turn > tenth ? 2 * tenth - turn : turn, r = sqrt(x * x + y * y);
    return (r * cos(a) - 1) * cy - r * sin(a) * (cx - 1) < 0;
}

static bool inside(int shape, double x, double y) {
    double ax = fabs(x), ay = fabs(y), rr = x * x + y * y;
    switch (shape) {
    case SHAPE_CIRCLE:   return rr < 1;
    case SHAPE_SQUARE:   return ax < 0.86 && ay < 0.86;
    case SHAPE_TRIANGLE: return y < 0.75 && y > -1 + 1.75 * ax / 0.95;
    case SHAPE_STAR:     return in_star(x, y);
    case SHAPE_RING:     return rr > 0.3 && rr < 1;
    case SHAPE_CROSS:    return (ax < 0.33 || ay < 0.33) && ax < 0.98 && ay < 0.98;
    case SHAPE_DIAMOND:  return ax / 0.8 + ay < 1.05;
    default: {           /* heart */
        double X = 1.15 * x, Y = 0.12 - 1.15 * y, q = X * X + Y * Y - 1;
        return q * q * q - X * X * Y * Y * Y < 0;
    }
    }
}

/* Whether a point (cells, own axes) has the second colour: bands of 1/8 cell, or discs on a grid of 1/4. */
static bool is_other(int texture, double x, double y) {
    if (texture == TEXTURE_STRIPED) return (int64_t)floor(y * 8) & 1;
    if (texture == TEXTURE_PLAIN) return false;
    double dx = x - 0.25 * round(x * 4), dy = y - 0.25 * round(y * 4);
    return dx * dx + dy * dy < 1.7 / 256;
}

/* The colour that object o has at a point (x, y) of the image in cells; NULL outside of it. */
static const uint8_t *colour_at(const SynthObject *o, double x, double y) {
    double c = cos(o->angle), s = sin(o->angle), dx = x - o->x, dy = y - o->y;
    double u = c * dx + s * dy, v = c * dy - s * dx;
    if (!inside(o->shape, u / o->radius, v / o->radius)) return NULL;
    return is_other(o->texture, u, v) ? o->other : o->rgb;
}

void synth_render(const Scene *s, int size, uint8_t *rgb) {
    enum { SUB = 4 };
    const double reach = 1.4;                       /* no shape goes beyond this many radii */
    for (int py = 0; py < size; py++)
        for (int px = 0; px < size; px++, rgb += 3) {
            double pixel = (double)SYNTH_GRID / size, x0 = px * pixel, y0 = py * pixel;
            const SynthObject *near[SYNTH_OBJECTS];
            int n = 0;
            for (int i = 0; i < s->n; i++) {
                const SynthObject *o = &s->object[i];
                double r = o->radius * reach + pixel;        /* most pixels are near nothing, and cost no atan2 */
                if (fabs(x0 - o->x) < r && fabs(y0 - o->y) < r) near[n++] = o;
            }
            unsigned sum[3] = {0};
            for (int k = 0; n && k < SUB * SUB; k++) {
                double x = x0 + (k % SUB + 0.5) * pixel / SUB, y = y0 + ((double)(k / SUB) + 0.5) * pixel / SUB;
                const uint8_t *colour = NULL;
                for (int i = n - 1; i >= 0 && !colour; i--) colour = colour_at(near[i], x, y);   /* last on top */
                if (!colour) colour = s->rgb;
                for (int c = 0; c < 3; c++) sum[c] += colour[c];
            }
            for (int c = 0; c < 3; c++) rgb[c] = n ? (uint8_t)((sum[c] + SUB * SUB / 2) / (SUB * SUB)) : s->rgb[c];
        }
}
