/* thumbs: see thumbs.h. */
#include "eval/report/thumbs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/format/image.h"
#include "data/format/path.h"
#include "data/format/resize.h"
#include "eval/report/html.h"
#include "kernels/base/mem.h"

void thumbs_open(Thumbs *t, const Set *set, const char *folder, Scenes *scenes) {
    *t = (Thumbs){.set = set, .folder = folder, .scenes = scenes};
}

void thumbs_close(Thumbs *t) {
    for (int64_t i = 0; i < t->n; i++) free(t->list[i].png);
    free(t->list);
    *t = (Thumbs){0};
}

/* ---- pixels ------------------------------------------------------------------------------------------------------ */

static Status png_bytes(Thumb *k, const uint8_t *rgb, int w, int h) {
    FILE *f = open_memstream(&k->png, &k->n);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    Status st = image_put_png(f, rgb, w, h);
    if (fclose(f) && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    return st;
}

static Status shrink(Thumb *k, const uint8_t *rgb, int w, int h) {
    int most = w > h ? w : h, tw = w, th = h;
    if (most > THUMB_SIDE) {
        tw = (int)((int64_t)w * THUMB_SIDE / most), th = (int)((int64_t)h * THUMB_SIDE / most);
        tw = tw ? tw : 1, th = th ? th : 1;                  /* a picture may be a line */
    }
    uint8_t *small = mem_new((size_t)tw * (size_t)th, 3);
    Status st = small ? resize_bicubic(small, tw, th, rgb, w, h, 3 * (size_t)w) : ERR_MEMORY;
    if (st == OK) st = png_bytes(k, small, tw, th);
    if (st == OK) k->w = tw, k->h = th;
    free(small);
    return st;
}

static Status draw_scene(Thumb *k, const Scene *scene) {
    uint8_t *rgb = mem_new((size_t)THUMB_SIDE * THUMB_SIDE, 3);
    if (!rgb) return ERR_MEMORY;
    synth_render(scene, THUMB_SIDE, rgb);
    Status st = shrink(k, rgb, THUMB_SIDE, THUMB_SIDE);
    free(rgb);
    return st;
}

/* ---- finding the file -------------------------------------------------------------------------------------------- */

static bool is_file(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

/* start, which ends in a stroke or is "", and a name below it, also with the usual endings. */
static char *below(const char *start, const char *name) {
    static const char *const endings[] = {"", ".jpg", ".jpeg", ".png", ".JPEG"};
    /* names come from the set: none may lead a reader of the page elsewhere */
    for (size_t i = 0; start && path_is_below(name) && i < sizeof endings / sizeof *endings; i++) {
        char *path = mem_format("%s%s%s", start, name, endings[i]);
        if (!path || is_file(path)) return path;
        free(path);
    }
    return NULL;
}

/* The user's folder first; then beside the set; then what the set calls its source, as it stands. */
static char *find_file(const Thumbs *t, int64_t image) {
    const char *id = set_image_id(t->set, image), *source = set_source(t->set, image);
    /* the user may have copied the files into one folder */
    const char *const names[] = {id, source, path_base(id)};
    char *given = *t->folder ? mem_format("%s/", t->folder) : NULL, *beside = path_beside(set_path(t->set), "");
    char *found = NULL;
    for (int i = 0; given && !found && i < 3; i++) found = below(given, names[i]);
    if (!found) found = below(beside, id);
    if (!found && *source && is_file(source)) found = mem_strdup(source);
    mem_free(given, beside);
    return found;
}

static Status read_file(Thumb *k, const char *path) {
    Image im;
    Status st = image_read(&im, path);
    if (st == OK) st = shrink(k, im.rgb, im.w, im.h);
    image_free(&im);
    return st;
}

static void make(Thumbs *t, Thumb *k) {
    Scene scene;
    bool drawable = false;
    Status st = OK;
    if (scenes_find(t->scenes, k->image, &scene, &drawable) && drawable) {
        st = draw_scene(k, &scene);
    } else {
        char *path = find_file(t, k->image);
        if (path) st = read_file(k, path);
        free(path);
    }
    /* decoration lost is no failure; the first reason becomes a note */
    if (st != OK && !t->why[0]) snprintf(t->why, sizeof t->why, "%.500s", err_message());
    if (st != OK) err_clear();
    t->found += k->w > 0;
}

const Thumb *thumbs_get(Thumbs *t, int64_t image) {
    for (int64_t i = 0; i < t->n; i++)
        if (t->list[i].image == image) return t->list[i].w ? &t->list[i] : NULL;
    if (mem_room(&t->list, (size_t)t->n, 1, sizeof *t->list) != OK) return NULL;
    Thumb *k = &t->list[t->n++];
    *k = (Thumb){.image = image};                            /* listed also when there is none: nobody looks twice */
    make(t, k);
    return k->w ? k : NULL;
}

/* ---- on the page ------------------------------------------------------------------------------------------------- */

void thumb_use(FILE *f, const Thumb *k) { html(f, "<use href=\"#im%lld\"/>", (long long)k->image); }

void thumbs_show(FILE *f, Thumbs *t, int64_t image, const char *class, const char *says) {
    const Thumb *k = image < 0 ? NULL : thumbs_get(t, image);
    if (!k) {
        html(f, "<span class=\"%s noimage\">%s</span>", class, image < 0 ? says : set_image_id(t->set, image));
        return;
    }
    html(f, "<svg class=\"%s\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">", class, k->w, k->h, says);
    thumb_use(f, k);
    html(f, "</svg>");
}

void thumbs_write(FILE *f, const Thumbs *t) {
    html(f, "<svg class=\"store\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs>\n");
    for (int64_t i = 0; i < t->n; i++) {
        const Thumb *k = &t->list[i];
        if (!k->w) continue;
        html(f, "<image id=\"im%lld\" width=\"%d\" height=\"%d\" href=\"data:image/png;base64,", (long long)k->image,
             k->w, k->h);
        html_base64(f, k->png, k->n);
        html(f, "\"/>\n");
    }
    html(f, "</defs></svg>\n");
}
