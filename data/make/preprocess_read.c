/* preprocess_read: the recipes that models carry in their folders, in three dialects. See preprocess.h. */
#include <math.h>
#include <string.h>

#include "data/make/preprocess.h"

/* ---- values, each checked ---------------------------------------------------------------------------------------- */

static Status read_pixels(int *to, const Json *v, const char *name, const char *key) {
    int64_t n = 0;
    if (!json_int(v, &n) || n < 1 || n > PREPROCESS_MAX_SIZE)
        return err_set(ERR_FORMAT, "%s: \"%s\" is not a number of pixels from 1 to %d", name, key, PREPROCESS_MAX_SIZE);
    *to = (int)n;
    return OK;
}

/* Three numbers, or one for all; each inside (lo, hi). */
static Status read_triple(float to[3], const Json *v, double lo, double hi, const char *name, const char *key) {
    for (size_t c = 0; c < 3; c++) {
        double x = 0;
        bool one = json_num(v, &x);
        if (!one && (json_len(v) != 3 || !json_num(json_at(v, c), &x))) x = NAN;
        if (!(x > lo && x < hi))                             /* so put that NaN fails, too */
            return err_set(ERR_FORMAT, "%s: \"%s\" is not three numbers between %g and %g", name, key, lo, hi);
        to[c] = (float)x;
    }
    return OK;
}

static Status read_colours(Preprocess *p, const Json *mean, const char *mean_key, const Json *std, const char *std_key,
                           const char *name) {
    Status st = mean ? read_triple(p->mean, mean, -1000, 1000, name, mean_key) : OK;
    return st == OK && std ? read_triple(p->std, std, 1e-6, 1000, name, std_key) : st;
}

static Status read_kernel(TapsKernel *to, const Json *v, const char *name, const char *key) {
    static const struct { const char *word; TapsKernel kernel; } words[] = {
        {"lanczos", TAPS_LANCZOS}, {"bilinear", TAPS_LINEAR}, {"bicubic", TAPS_CUBIC}};
    int64_t pillow = 0;                                      /* Pillow's numbers are the list's order, from 1 */
    const char *s = json_str(v, NULL);
    for (int64_t i = 0; i < 3; i++)
        if ((json_int(v, &pillow) && pillow == i + 1) || (s && strcmp(s, words[i].word) == 0)) {
            *to = words[i].kernel;
            return OK;
        }
    return err_set(ERR_FORMAT, "%s: \"%s\" is no kernel that pictures are resized with here (bicubic, bilinear, "
                   "lanczos)", name, key);
}

static Status check_cut(const Preprocess *p, const char *name) {
    if (p->edge >= p->size) return OK;
    return err_set(ERR_USAGE, "%s: the middle %d x %d cannot be cut out of pictures resized to %d", name, p->size,
                   p->size, p->edge);
}

static bool is_false(const Json *v) {
    bool b = true;
    return json_bool(v, &b) && !b;
}

/* ---- transformers ------------------------------------------------------------------------------------------------ */

/* A number, {"height": n, "width": n}, or {"shortest_edge": n}. */
static Status read_size(int *to, bool *shortest, const Json *v, const char *name, const char *key) {
    int height = 0;
    *shortest = json_get(v, "shortest_edge") != NULL;
    if (json_type(v) == J_INT) return read_pixels(to, v, name, key);
    if (*shortest) return read_pixels(to, json_get(v, "shortest_edge"), name, key);
    Status st = read_pixels(&height, json_get(v, "height"), name, key);
    if (st == OK) st = read_pixels(to, json_get(v, "width"), name, key);
    if (st == OK && *to != height)
        st = err_set(ERR_USAGE, "%s: \"%s\" is %d x %d; only square pixels are taken here", name, key, *to, height);
    return st;
}

/* In old files a bare number is CLIP's shortest edge when a crop follows, and a square otherwise. */
static Status read_geometry(Preprocess *p, const Json *doc, const char *name) {
    const Json *size = json_get(doc, "size"), *crop = json_get(doc, "crop_size"), *on = json_get(doc, "do_center_crop");
    bool shortest = false, ignored, cut = crop && !is_false(on);
    if (json_bool(on, &cut) && cut && !crop) crop = size;    /* cuts, and does not say how much */
    if (!size) return OK;
    Status st = read_size(&p->edge, &shortest, size, name, "size");
    if (st != OK) return st;
    p->size = p->edge;
    p->squash = !shortest && !(json_type(size) == J_INT && cut);
    if (cut) st = read_size(&p->size, &ignored, crop, name, "crop_size");
    if (st == OK && !p->squash && !cut)
        st = err_set(ERR_USAGE, "%s: resizes the shortest edge and cuts nothing out; only square pixels are taken here",
                     name);
    return st == OK ? check_cut(p, name) : st;
}

/* Another factor than 1/255 goes into mean and deviation, of values that are divided by 255 here. */
static Status read_rescale(Preprocess *p, const Json *doc, const char *name) {
    const Json *v = json_get(doc, "rescale_factor");
    double factor = 1.0 / 255;
    if (v && json_type(v) != J_NULL && (!json_num(v, &factor) || !(factor > 1e-6 && factor < 1e6)))
        return err_set(ERR_FORMAT, "%s: \"rescale_factor\" is not a number between 1e-6 and 1e6", name);
    if (is_false(json_get(doc, "do_rescale"))) factor = 1;
    if (fabs(factor * 255 - 1) < 1e-6) return OK;            /* 0.00392156862745098, as files write it */
    for (int c = 0; c < 3; c++) {
        p->mean[c] = (float)((double)p->mean[c] / (255 * factor));
        p->std[c] = (float)((double)p->std[c] / (255 * factor));
    }
    return OK;
}

Status preprocess_read_transformers(Preprocess *p, const Json *doc, const char *name) {
    if (json_type(doc) != J_OBJECT) return err_set(ERR_FORMAT, "%s: not an object", name);
    if (is_false(json_get(doc, "do_resize")))
        return err_set(ERR_USAGE, "%s: pictures are not resized by this recipe; here they are", name);
    const Json *resample = json_get(doc, "resample");
    const char *type = json_str(json_get(doc, "image_processor_type"), NULL);
    if (type) p->in_float = strncmp(type, "DINOv3ViT", 9) == 0;
    Status st = read_geometry(p, doc, name);
    p->half_even = false;                                    /* transformers rounds the offset down */
    if (st == OK && resample) st = read_kernel(&p->kernel, resample, name, "resample");
    if (st == OK)
        st = read_colours(p, json_get(doc, "image_mean"), "image_mean", json_get(doc, "image_std"), "image_std", name);
    for (int c = 0; st == OK && is_false(json_get(doc, "do_normalize")) && c < 3; c++) p->mean[c] = 0, p->std[c] = 1;
    return st == OK ? read_rescale(p, doc, name) : st;
}

/* ---- OpenCLIP and timm ------------------------------------------------------------------------------------------- */

/* What both have in common; keeps: what the mode is called in which a picture keeps its shape. */
static Status read_rest(Preprocess *p, const Json *doc, const char *mode_key, const char *keeps, const char *name) {
    const Json *kernel = json_get(doc, "interpolation");
    const char *mode = json_str(json_get(doc, mode_key), NULL);
    p->half_even = true;                                     /* torchvision rounds half to even */
    if (mode && strcmp(mode, "squash") && strcmp(mode, keeps))
        return err_set(ERR_USAGE, "%s: \"%s\" is %.40s; squash and %s are known here", name, mode_key, mode, keeps);
    if (mode) p->squash = strcmp(mode, "squash") == 0;
    Status st = kernel ? read_kernel(&p->kernel, kernel, name, "interpolation") : OK;
    return st == OK ? read_colours(p, json_get(doc, "mean"), "mean", json_get(doc, "std"), "std", name) : st;
}

Status preprocess_read_openclip(Preprocess *p, const Json *doc, const char *name) {
    const Json *size = json_get(doc, "size");
    if (json_type(size) == J_ARRAY) size = json_at(size, 0);
    Status st = json_get(doc, "size") ? read_pixels(&p->size, size, name, "size") : OK;
    p->edge = p->size;
    return st == OK ? read_rest(p, doc, "resize_mode", "shortest", name) : st;
}

Status preprocess_read_timm(Preprocess *p, const Json *doc, const char *name) {
    const Json *size = json_get(doc, "input_size"), *part = json_get(doc, "crop_pct");
    double pct = 1;
    Status st = size ? read_pixels(&p->size, json_at(size, 2), name, "input_size") : OK;     /* channels come first */
    if (st != OK) return st;
    if (part && (!json_num(part, &pct) || !(pct > 0.1 && pct <= 1)))
        return err_set(ERR_FORMAT, "%s: \"crop_pct\" is not a number from 0.1 to 1", name);
    p->edge = (int)floor(p->size / pct);                     /* timm's own rounding */
    p->in_float = false;
    return read_rest(p, doc, "crop_mode", "center", name);
}
