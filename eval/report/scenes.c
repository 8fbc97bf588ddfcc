/* scenes: see scenes.h. */
#include "eval/report/scenes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/path.h"
#include "kernels/base/mem.h"

void scenes_open(Scenes *s, const Set *set, const uint64_t *seed, int n) {
    *s = (Scenes){.set = set};
    for (int i = 0; i < n && s->nseeds < 3; i++) s->seed[s->nseeds++] = seed[i];
}

void scenes_close(Scenes *s) {
    for (int64_t i = 0; i < s->facts; i++) free(s->fact[i].image);
    free(s->fact);
    *s = (Scenes){0};
}

/* ---- from the seed ----------------------------------------------------------------------------------------------- */

static bool scene_number(const Set *set, int64_t image, int *split, int64_t *index) {
    const char *id = set_image_id(set, image);
    if (strcmp(set_source(set, image), "synth") != 0) return false;
    for (int k = 0; k < SYNTH_SPLITS; k++) {
        size_t n = strlen(synth_splits[k]);
        char *end;
        if (strncmp(id, synth_splits[k], n) != 0 || id[n] != '/') continue;
        long long v = strtoll(id + n + 1, &end, 10);
        *split = k, *index = v;
        return end > id + n + 1 && v >= 0 && strcmp(end, ".png") == 0;
    }
    return false;
}

/* Whether the scene says what the set says of the image. */
static bool captions_agree(const Set *set, int64_t image, const Scene *scene) {
    int64_t n = set_ncaptions(set, image);
    for (int64_t k = 0; k < n && k < 2; k++) {               /* two are enough: a wrong seed agrees in neither */
        char own[SYNTH_CAPTION];
        size_t len;
        const char *caption = set_caption(set, image, k, &len);
        synth_caption(scene, (int)k, own);
        if (strlen(own) != len || memcmp(own, caption, len) != 0) return false;
    }
    return n > 0;
}

enum { SAYS = SYNTH_LOOKS + 1, KINDS = SAYS * SYNTH_OBJECTS };     /* of scenes to a seed: synth.objects, synth.say */

static bool from_seed(Scenes *s, int64_t image, Scene *scene) {
    int split;
    int64_t index;
    if (!scene_number(s->set, image, &split, &index)) return false;
    for (int i = 0; i < s->nseeds * KINDS; i++) {
        /* the usual number of objects first */
        SynthKind kind = {s->seed[i / KINDS], SYNTH_OBJECTS - i % KINDS / SAYS, (SynthSay)(i % SAYS)};
        if (synth_draw(scene, &kind, split, index) == OK && captions_agree(s->set, image, scene)) return true;
    }
    err_clear();
    return false;
}

/* ---- from scenes.json -------------------------------------------------------------------------------------------- */

static bool pick(const Json *o, const char *key, const char *const *names, int n, int *value) {
    const char *s = json_str(json_get(o, key), NULL);
    for (int i = 0; s && i < n; i++)
        if (strcmp(s, names[i]) == 0) return *value = i, true;
    return false;
}

static bool cell(const Json *o, const char *key, int *value) {
    int64_t v;
    if (!json_int(json_get(o, key), &v) || v < 0 || v >= SYNTH_GRID) return false;
    *value = (int)v;
    return true;
}

static bool parse_scene(const Json *o, Scene *s) {
    const Json *list = json_get(o, "objects");
    *s = (Scene){.n = (int)json_len(list)};
    if (!pick(o, "ground", synth_grounds, SYNTH_GROUNDS, &s->ground) || json_len(list) > SYNTH_OBJECTS) return false;
    for (int i = 0; i < s->n; i++) {
        const Json *j = json_at(list, (size_t)i);
        SynthObject *a = &s->object[i];
        if (!pick(j, "shape", synth_shapes, SYNTH_SHAPES, &a->shape) ||
            !pick(j, "colour", synth_colours, SYNTH_COLOURS, &a->colour) ||
            !pick(j, "texture", synth_textures, SYNTH_TEXTURES, &a->texture) ||
            !pick(j, "size", synth_sizes, SYNTH_SIZES, &a->size) || !cell(j, "row", &a->row) ||
            !cell(j, "col", &a->col))
            return false;
    }
    return true;
}

static Status keep_scene(void *ctx, int64_t index, const Json *item) {
    Scenes *s = ctx;
    Scene scene;
    (void)index;
    const char *image = json_str(json_get(item, "image"), NULL);
    if (!image || !parse_scene(item, &scene)) return OK;
    if (mem_room(&s->fact, (size_t)s->facts, 1, sizeof *s->fact) != OK) return ERR_MEMORY;
    s->fact[s->facts].scene = scene;
    s->fact[s->facts].image = mem_strdup(image);
    if (!s->fact[s->facts].image) return ERR_MEMORY;
    s->facts++;
    return OK;
}

static void read_facts(Scenes *s) {
    char *file = path_beside(set_path(s->set), "scenes.json");
    s->read = true;
    if (!file || json_each(file, keep_scene, s) != OK) err_clear();      /* no such file: nothing is known */
    free(file);
}

bool scenes_find(Scenes *s, int64_t image, Scene *scene, bool *drawable) {
    *drawable = from_seed(s, image, scene);
    if (*drawable) return true;
    if (strcmp(set_source(s->set, image), "synth") != 0) return false;
    if (!s->read) read_facts(s);
    for (int64_t i = 0; i < s->facts; i++)
        if (strcmp(s->fact[i].image, set_image_id(s->set, image)) == 0) return *scene = s->fact[i].scene, true;
    return false;
}
