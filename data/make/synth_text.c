/* synth_text: captions of a scene, and what a caption claims; see synth.h.
 *
 *   noun phrase   article [size] colour [texture] shape         "a small blue striped ring"; size is said with
 *                                                               probability 0.6, a texture other than plain with 0.85
 *   one object    [there is | a picture of] o [is] place
 *   two           [there is | a picture of] a [is] relation b   or   a and b
 *   three         a relation b, and c | there is a relation b and also c | [a picture of] a, b and c
 *   all           [on a ground background]                      with probability 0.3
 *   SYNTH_ALL     [there is | a picture of] a place and b place, or a place, b place and c place; of one object as
 *                 above; size, texture (also plain) and ground are always said
 *   SYNTH_NAMES   a; a and b; a, b and c: neither size nor texture, place, relation or ground
 *   SYNTH_LOOKS   the same with the texture (also plain)
 *
 * A relation follows the longer axis between the two cells, ties count as left or right. */
#include "data/make/synth.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/splitmix.h"

/* ---- writing ----------------------------------------------------------------------------------------------------- */

enum { LEFT_OF, RIGHT_OF, ABOVE, BELOW, RELATIONS };
static const char *const relation_text[RELATIONS] = {"to the left of", "to the right of", "above", "below"};

static int relation(const SynthObject *a, const SynthObject *b) {
    int dx = a->col - b->col, dy = a->row - b->row;
    return abs(dx) >= abs(dy) ? (dx < 0 ? LEFT_OF : RIGHT_OF) : (dy < 0 ? ABOVE : BELOW);
}

/* -1, 0 or 1: the first line, one of the two in the middle, the last */
static int third(int line) { return line == 0 ? -1 : line == SYNTH_GRID - 1 ? 1 : 0; }

/* By row (top, middle, bottom), then by column. */
enum { PLACES = 9 };
static const char *const place_text[PLACES] = {
    "in the top left corner",    "at the top",    "in the top right corner",
    "on the left side",          "in the middle", "on the right side",
    "in the bottom left corner", "at the bottom", "in the bottom right corner",
};

static int place(const SynthObject *o) { return 3 * (third(o->row) + 1) + third(o->col) + 1; }

static void add(char *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(char *buf, const char *fmt, ...) {
    size_t n = strlen(buf);
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(buf + n, SYNTH_CAPTION - n, fmt, ap);
    va_end(ap);
    BUG_ON(more < 0 || (size_t)more >= SYNTH_CAPTION - n, "a caption of more than %d bytes", SYNTH_CAPTION);
}

static void add_object(char *buf, SplitMix *r, const SynthObject *o, SynthSay say) {
    /* drawn in either case: the stream goes on the same */
    bool often = splitmix_unit(r) < 0.6, mostly = splitmix_unit(r) < 0.85;
    bool say_size = say == SYNTH_ALL || (say == SYNTH_SOME && often);
    bool say_texture = say == SYNTH_ALL || say == SYNTH_LOOKS || (say == SYNTH_SOME && mostly && o->texture);
    const char *first = say_size ? synth_sizes[o->size] : synth_colours[o->colour];
    add(buf, "%s ", synth_article(first));
    if (say_size) add(buf, "%s ", synth_sizes[o->size]);
    add(buf, "%s ", synth_colours[o->colour]);
    if (say_texture) add(buf, "%s ", synth_textures[o->texture]);
    add(buf, "%s", synth_shapes[o->shape]);
}

/* Forms a caption by a pattern: A B C are the objects, R the relation of A to B, P the place of the object before it,
 * the rest is text. */
static void add_pattern(char *buf, SplitMix *r, const char *pattern, const SynthObject *const *o, SynthSay say) {
    const SynthObject *last = o[0];
    for (; *pattern; pattern++) {
        if (*pattern >= 'A' && *pattern <= 'C') add_object(buf, r, last = o[*pattern - 'A'], say);
        else if (*pattern == 'R') add(buf, "%s", relation_text[relation(o[0], o[1])]);
        else if (*pattern == 'P') add(buf, "%s", place_text[place(last)]);
        else add(buf, "%c", *pattern);
    }
}

static void draw_caption(const Scene *s, SplitMix *r, char *buf) {
    static const char *const one[] = {"A P", "there is A P", "a picture of A P", "A is P"};
    static const char *const two[] = {"A R B", "A is R B", "there is A R B", "a picture of A R B", "A and B"};
    static const char *const three[] = {"A R B, and C", "there is A R B and also C", "A, B and C",
                                        "a picture of A, B and C"};
    static const char *const all2[] = {"A P and B P", "there is A P and B P", "a picture of A P and B P"};
    static const char *const all3[] = {"A P, B P and C P", "there is A P, B P and C P",
                                         "a picture of A P, B P and C P"};
    static const char *const names[][1] = {{"A"}, {"A and B"}, {"A, B and C"}};
    static const struct { const char *const *pattern; uint32_t n; } forms[][SYNTH_OBJECTS] = {
        {{one, 4}, {two, 5}, {three, 4}}, {{one, 4}, {all2, 3}, {all3, 3}},
        {{names[0], 1}, {names[1], 1}, {names[2], 1}}, {{names[0], 1}, {names[1], 1}, {names[2], 1}}}, *form;
    const SynthObject *o[SYNTH_OBJECTS];
    for (int i = 0; i < s->n; i++) {                    /* a random order, by insertion */
        int at = (int)splitmix_below(r, (uint32_t)i + 1);
        for (int k = i; k > at; k--) o[k] = o[k - 1];
        o[at] = &s->object[i];
    }
    buf[0] = 0;
    form = &forms[s->say][s->n - 1];
    add_pattern(buf, r, form->pattern[splitmix_below(r, form->n)], o, s->say);
    bool ground = splitmix_unit(r) < 0.3 ? s->say <= SYNTH_ALL : s->say == SYNTH_ALL;
    if (ground) add(buf, " on a %s background", synth_grounds[s->ground]);
}

void synth_caption(const Scene *s, int k, char *buf) {
    SplitMix r = {s->captions};
    for (int i = 0; i <= k; i++) draw_caption(s, &r, buf);   /* how much a caption draws is not known before */
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

enum { MAX_WORDS = 128, WORD = 24 };

typedef struct { char word[MAX_WORDS][WORD]; int n; } Words;

/* Lower-case runs of letters; everything else separates. */
static void split_words(Words *w, const char *text) {
    w->n = 0;
    while (*text && w->n < MAX_WORDS) {
        int len = 0;
        for (; (*text | 32) >= 'a' && (*text | 32) <= 'z'; text++)
            if (len < WORD - 1) w->word[w->n][len++] = (char)(*text | 32);
        w->word[w->n][len] = 0;
        if (len) w->n++;                                     /* a sign, a digit, a byte of UTF-8: only separates */
        else text++;
    }
}

/* How many words of `phrase` stand at position i: all of them, or 0. */
static int match(const Words *w, int i, const char *phrase) {
    Words p;
    split_words(&p, phrase);
    if (i + p.n > w->n) return 0;
    for (int k = 0; k < p.n; k++)
        if (strcmp(w->word[i + k], p.word[k])) return 0;
    return p.n;
}

/* The index of the phrase that stands at i, and its length; -1. */
static int match_any(const Words *w, int i, const char *const *phrases, int n, int *len) {
    for (int k = 0; k < n; k++)
        if ((*len = match(w, i, phrases[k]))) return k;
    return -1;
}

/* What has been read so far and waits for its other half. */
typedef struct {
    const Scene *s;
    SynthClaims *c;
    int size, colour, texture;             /* said of the shape to come; -1: not */
    const SynthObject *last;               /* the pair before, NULL when it is not in the scene */
    int named;                             /* pairs so far */
    int relation;                          /* of the last pair to the one to come; -1 */
} Reading;

static void read_shape(Reading *r, int shape) {
    const SynthObject *o = r->colour < 0 ? NULL : synth_find(r->s, r->colour, shape);
    SynthClaims *c = r->c;
    c->pairs++;
    c->pairs_true += o != NULL;
    if (r->size >= 0) c->details++, c->details_true += o && o->size == r->size;
    if (r->texture >= 0) c->details++, c->details_true += o && o->texture == r->texture;
    if (r->relation >= 0)
        c->relations++, c->relations_true += o && r->last && o != r->last && relation(r->last, o) == r->relation;
    r->last = o;
    r->named++;
    r->size = r->colour = r->texture = r->relation = -1;     /* said of this one, not of the next */
}

/* Reads what stands at word i; returns how many words it took. */
static int read_at(Reading *r, const Words *w, int i) {
    static const char *const glue[] = {"a", "an", "the", "there", "is", "picture", "of", "and", "also", "on"};
    SynthClaims *c = r->c;
    int len, k;
    if ((k = match_any(w, i, relation_text, RELATIONS, &len)) >= 0) {
        r->relation = r->named ? k : -1;
        if (!r->named) c->relations++;              /* of nothing: a claim that cannot be true */
        return len;
    }
    if ((k = match_any(w, i, place_text, PLACES, &len)) >= 0) {
        c->places++;
        c->places_true += r->last && place(r->last) == k;
        return len;
    }
    if ((k = match_any(w, i, synth_grounds, SYNTH_GROUNDS, &len)) >= 0 && match(w, i + len, "background")) {
        c->grounds++;
        c->grounds_true += r->s->ground == k;
        return len + 1;
    }
    if ((k = match_any(w, i, synth_sizes, SYNTH_SIZES, &len)) >= 0) return r->size = k, len;
    if ((k = match_any(w, i, synth_colours, SYNTH_COLOURS, &len)) >= 0) return r->colour = k, len;
    if ((k = match_any(w, i, synth_textures, SYNTH_TEXTURES, &len)) >= 0) return r->texture = k, len;
    if ((k = match_any(w, i, synth_shapes, SYNTH_SHAPES, &len)) >= 0) return read_shape(r, k), len;
    if (match_any(w, i, glue, (int)(sizeof glue / sizeof *glue), &len) < 0) c->foreign++;
    return 1;
}

void synth_check_caption(const Scene *s, const char *caption, SynthClaims *c) {
    Words w;
    *c = (SynthClaims){0};
    Reading r = {.s = s, .c = c, .size = -1, .colour = -1, .texture = -1, .relation = -1};
    split_words(&w, caption);
    for (int i = 0; i < w.n;) i += read_at(&r, &w, i);
    if (r.relation >= 0) c->relations++;            /* to nothing */
    c->all_true = c->pairs > 0 && c->pairs == c->pairs_true && c->details == c->details_true &&
                  c->relations == c->relations_true && c->places == c->places_true && c->grounds == c->grounds_true;
}
