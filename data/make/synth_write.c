/* synth_write: the synthetic set as files; see synth.h. */
#include "data/make/synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/fingerprint.h"
#include "data/format/image.h"
#include "data/format/jsonfile.h"
#include "data/format/outfile.h"
#include "data/format/path.h"
#include "data/make/extract.h"
#include "data/make/first.h"
#include "data/make/patches.h"
#include "data/setout.h"
#include "data/text/settext.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

typedef struct {
    const SynthSpec *spec;
    char *folder;                   /* of spec->out, with a final '/', or "" */
    int64_t total;
    ShardItem *items;               /* (total); image_id is the name of the PNG, written or not */
    char *text;                     /* the strings of items */
} Set;

/* Scene i of the set: train first, then val, then test. */
static int split_of(const SynthSpec *s, int64_t *i) {
    int split = 0;
    while (split < SYNTH_TEST && *i >= s->count[split]) *i -= s->count[split++];
    return split;
}

static Status scene_of(const SynthSpec *s, int64_t i, Scene *scene, int *split) {
    *split = split_of(s, &i);
    return synth_draw(scene, &s->kind, *split, i);
}

/* A question as a text of the set (settext.h), into `to`. */
static const char *ask(const Scene *s, int k, char *to) {
    SynthQuestion q;
    synth_ask(s, k, &q);
    sprintf(to, "\x1Dq%s\x1D%s\x1D%s", q.type, q.question, q.answer);
    return to;
}

static Status plan(Set *set, const SynthSpec *s) {
    enum { NAME = 40, TEXT = 2 * SYNTH_CAPTION };          /* a question has two parts */
    *set = (Set){.spec = s};
    for (int k = 0; k < SYNTH_SPLITS; k++) {
        if (s->count[k] < 0 || s->count[k] > 100000000)
            return err_set(ERR_USAGE, "%lld scenes are out of range", (long long)s->count[k]);
        set->total += s->count[k];
    }
    if (!set->total) return err_set(ERR_USAGE, "a synthetic set without scenes");
    if (s->captions < 1 || s->captions > 64)
        return err_set(ERR_USAGE, "%d captions a scene; 1 to 64 can be made", s->captions);
    if (!(set->folder = path_beside(s->out, ""))) return ERR_MEMORY;
    if (s->questions < 0 || s->questions > 64)
        return err_set(ERR_USAGE, "%d questions a scene; up to 64 can be made", s->questions);
    size_t captions = (size_t)s->captions, texts = captions + (size_t)s->questions,
           an_item = NAME + texts * (TEXT + sizeof(char *));
    set->items = mem_new((size_t)set->total, sizeof *set->items);
    set->text = mem_new((size_t)set->total, an_item);
    if (!set->items || !set->text) return ERR_MEMORY;
#pragma omp parallel for
    for (int64_t i = 0; i < set->total; i++) {
        int split = 0;
        int64_t index = i;
        Scene scene;
        char *p = set->text + (size_t)i * an_item, *name = p + texts * sizeof(char *);
        const char **list = (const char **)(void *)p;
        Status st = scene_of(s, i, &scene, &split);
        BUG_ON(st != OK, "%s", err_message());               /* splits and places are ours */
        split_of(s, &index);
        snprintf(name, NAME, "%s/%06lld.png", synth_splits[split], (long long)index);
        for (size_t k = 0; k < captions; k++) {
            char *caption = name + NAME + k * TEXT;
            synth_caption(&scene, (int)k, caption);
            list[k] = caption;
        }
        for (size_t k = captions; k < texts; k++) list[k] = ask(&scene, (int)(k - captions), name + NAME + k * TEXT);
        set->items[i] = (ShardItem){.image_id = name, .split = synth_splits[split], .source = "synth",
                                    .ncaptions = (int64_t)texts, .captions = list};
    }
    return OK;
}

/* Renders scene i. */
static Status draw(void *ctx, int64_t i, uint8_t *rgb) {
    const Set *set = ctx;
    Scene scene;
    int split;
    Status st = scene_of(set->spec, i, &scene, &split);
    if (st == OK) synth_render(&scene, set->spec->size, rgb);
    return st;
}

static Status write_image(const Set *set, int64_t i) {
    int size = set->spec->size;
    uint8_t *rgb = mem_new((size_t)size * (size_t)size, 3);
    char *path = mem_format("%s%s", set->folder, set->items[i].image_id);
    Status st = rgb && path ? draw((void *)(uintptr_t)set, i, rgb) : ERR_MEMORY;
    if (st == OK) st = image_write_png(path, rgb, size, size);
    mem_free(rgb, path);
    return st;
}

static Status write_images(const Set *set) {
    const SynthSpec *s = set->spec;
    int64_t from = s->images == SYNTH_ALL_IMAGES ? 0 : set->total - s->count[SYNTH_TEST];
    Status st = OK;
    for (int k = s->images == SYNTH_ALL_IMAGES ? 0 : SYNTH_TEST; k < SYNTH_SPLITS && st == OK; k++) {
        char *folder = mem_format("%s%s", set->folder, synth_splits[k]);
        st = !folder ? ERR_MEMORY : s->count[k] ? outfile_mkdir(folder) : OK;
        free(folder);
    }
    First first = {0};
    /* scenes take different times: whoever is free takes the next sixteen */
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = from; i < (st == OK ? set->total : from); i++) first_note(&first, write_image(set, i), i);
    return st == OK ? first_take(&first) : st;
}

static void write_scene(JsonWriter *w, const Scene *s, const ShardItem *item) {
    jw_object(w, NULL);
    jw_str(w, "image", item->image_id);
    jw_str(w, "split", item->split);
    jw_array(w, "caption");
    for (int64_t k = 0; k < item->ncaptions; k++)
        if (settext_of(item->captions[k], strlen(item->captions[k])).kind == TEXT_CAPTION)
            jw_str(w, NULL, item->captions[k]);
    jw_end(w);
    jw_str(w, "ground", synth_grounds[s->ground]);
    jw_array(w, "objects");
    for (int i = 0; i < s->n; i++) {
        const SynthObject *o = &s->object[i];
        jw_object(w, NULL);
        jw_str(w, "shape", synth_shapes[o->shape]);
        jw_str(w, "colour", synth_colours[o->colour]);
        jw_str(w, "texture", synth_textures[o->texture]);
        jw_str(w, "size", synth_sizes[o->size]);
        jw_int(w, "row", o->row);
        jw_int(w, "col", o->col);
        jw_bool(w, "held_out", synth_held_out(o));
        jw_end(w);
    }
    jw_end(w);
    jw_end(w);
}

/* One list, in the order of the set. */
static Status write_facts(const Set *set) {
    JsonFile f;
    char *path = mem_format("%sscenes.json", set->folder);
    Status st = path ? jsonfile_open(&f, 0) : ERR_MEMORY;
    if (st == OK) {
        jw_array(&f.w, NULL);
        for (int64_t i = 0; i < set->total && st == OK; i++) {
            Scene scene;
            int split;
            if ((st = scene_of(set->spec, i, &scene, &split)) == OK) write_scene(&f.w, &scene, &set->items[i]);
        }
        jw_end(&f.w);
        st = jsonfile_write(&f, st, path);
    }
    free(path);
    return st;
}

/* Pictures and facts belong to whoever wrote the shard beside them: others' are not written over. */
static Status beside_is_free(const Set *set) {
    const SynthSpec *s = set->spec;
    const char *image = NULL;
    if (s->images != SYNTH_NO_IMAGES && (s->images == SYNTH_ALL_IMAGES || s->count[SYNTH_TEST]))
        image = set->items[s->images == SYNTH_ALL_IMAGES ? 0 : set->total - s->count[SYNTH_TEST]].image_id;
    const char *name[] = {s->facts ? "scenes.json" : NULL, image};
    Status st = OK;
    for (int i = 0; st == OK && i < 2; i++) {
        char *path = name[i] ? mem_format("%s%s", set->folder, name[i]) : NULL;
        if (path) st = outfile_claim(path, s->overwrite);
        free(path);
    }
    return st;
}

/* The laid out shard comes first: it says for whom the rest is written, should this be killed. */
static Status write_all(Set *set, const ImageEncoder *e) {
    const SynthSpec *s = set->spec;
    uint64_t from = hash_int(hash_int(hash_text(HASH_START, "synth"), (int64_t)s->kind.seed), s->size);
    from = hash_int(hash_int(from, s->kind.most), s->kind.say); /* counts show in the shard itself */
    ShardSpec shard = {.encoder = e->info, .dtype = DT_F16, .images = set->total, .views = 1, .P = e->P, .E = e->E,
                       .items = set->items, .made_from = fingerprint_end(from)};
    SetOut out = {0};
    ShardWriter *w = NULL;
    Status st = setout_open(&out, s->out, 1, s->overwrite);
    if (st == OK) st = setout_shard(&out, 0, &shard, &w);
    if (!w) return setout_close(&out, st);
    if (!shard_goes_on(w) && (st = beside_is_free(set)) != OK) {
        shard_drop(w);                                       /* nothing of ours is in it yet */
        return setout_close(&out, st);
    }
    if (st == OK && s->images != SYNTH_NO_IMAGES) st = write_images(set);
    if (st == OK && s->facts) st = write_facts(set);
    ExtractProgress progress = {.listener = &s->listener, .total = set->total};
    if (st == OK) st = extract_shard(w, &shard, e, draw, set, &progress);
    else shard_abandon(w);
    return setout_close(&out, st);
}

Status synth_write(const SynthSpec *s) {
    Set set;
    ImageEncoder *e = NULL;
    Status st = patches_encoder(&e, s->size, s->patch);
    if (st != OK) return st;
    st = plan(&set, s);
    if (st == OK && !setout_is_file(s->out))
        st = err_set(ERR_USAGE, "%s: the drawn set is one shard; name it with .h5 at its end", s->out);
    if (st == OK) st = write_all(&set, e);
    mem_free(set.items, set.text, set.folder);
    encoder_free(e);
    return st;
}
