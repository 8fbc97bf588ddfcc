/* gold_images: pictures and position tables against what the reference libraries made of them.
 *
 * A list is a list*.json beside an expected*.safetensors with the same tail; its "images" name files and how they
 * decode, tensors NAME/WHAT what came of them. WHAT says the recipe by its name:
 *     rgb, rgb_high    decoded; the second of 16-bit gray, of which nothing else is compared
 *     s32              squashed to 32 by bicubic; s32_bilinear, s32_lanczos by those
 *     crop32           shortest edge 32, middle 32 x 32; crop256to224 edge 256; ..._tv with torchvision's offset
 *     norm224          squashed, mean and deviation of CLIP, channel by channel
 *     dinov3_32        squashed in float, bilinear, mean and deviation of ImageNet, channel by channel
 * Bytes must be equal, floating-point numbers within 1e-5 (norm: equal).
 *
 * A table file has tensors AtoB.table (1 + A*A rows, the first for cls) and AtoB.RULE for three rules. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/make/preprocess.h"
#include "kernels/base/mem.h"
#include "kernels/model/vit_position.h"
#include "tests/gold.h"

bool gold_is_images(const char *dir, const char *name) {
    char path[2048];
    size_t n = strlen(name);
    if (strncmp(name, "list", 4) || n < 9 || strcmp(name + n - 5, ".json")) return false;
    snprintf(path, sizeof path, "%s/expected%.*s.safetensors", dir, (int)(n - 9), name + 4);
    return access(path, R_OK) == 0;
}

/* ---- recipes ----------------------------------------------------------------------------------------------------- */

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static Preprocess recipe(const char *what) {
    bool norm = !strncmp(what, "norm", 4), dino = !strncmp(what, "dinov3_", 7), crop = !strncmp(what, "crop", 4);
    const char *digits = what + strcspn(what, "0123456789") + (dino ? 2 : 0);
    const char *to = strstr(digits, "to");
    Preprocess p = {.edge = atoi(digits), .squash = !crop, .half_even = ends(what, "_tv"), .in_float = dino,
                    .kernel = dino || ends(what, "_bilinear") ? TAPS_LINEAR
                            : ends(what, "_lanczos") ? TAPS_LANCZOS : TAPS_CUBIC};
    p.size = to ? atoi(to + 2) : p.edge;
    memcpy(p.mean, norm ? preprocess_clip_mean : preprocess_imagenet_mean, sizeof p.mean);
    memcpy(p.std, norm ? preprocess_clip_std : preprocess_imagenet_std, sizeof p.std);
    return p;
}

static void compare_bytes(Case *c, const char *what, const uint8_t *got, size_t n, const StTensor *want) {
    double worst = want->nbytes == n && want->dtype == DT_U8 ? 0 : INFINITY;
    for (size_t i = 0; i < n && isfinite(worst); i++)
        worst = gold_most(worst, abs(got[i] - ((const uint8_t *)want->data)[i]));
    gold_check(c, what, worst, 0.5);                         /* equal */
}

/* Normalised pixels (3, S, S); those of 8-bit pixels are equal, not only near. */
static void compare_numbers(Case *c, const char *what, const void *got, const Preprocess *p, const StTensor *want) {
    int64_t S = p->size;
    double worst = st_elements(want) == 3 * S * S && want->dtype == DT_F32 ? 0 : INFINITY;
    for (int64_t i = 0; i < S * S && isfinite(worst); i++)
        for (int k = 0; k < 3; k++) {
            float v = p->in_float ? 255 * ((const float *)got)[3 * i + k] : ((const uint8_t *)got)[3 * i + k];
            double wanted = (double)((const float *)want->data)[k * S * S + i];
            worst = gold_most(worst, fabs((double)preprocess_normalised(p, v, k) - wanted));
        }
    gold_check(c, what, worst, p->in_float ? 1e-5 : 1e-12);
}

static Status compare(Case *c, const Image *im, const StTensor *want, const char *what) {
    if (!strcmp(what, "rgba")) return OK;                    /* we keep no alpha */
    if (!strncmp(what, "rgb", 3)) {
        compare_bytes(c, want->name, im->rgb, 3 * (size_t)im->w * (size_t)im->h, want);
        return OK;
    }
    Preprocess p = recipe(what);
    if (p.size < 1 || p.size > PREPROCESS_MAX_SIZE)
        return err_set(ERR_FORMAT, "%s: no recipe of this name is known", want->name);
    void *pixels = mem_new(preprocess_bytes(&p), 1);
    Status st = pixels ? preprocess_view(pixels, &p, im, want->name, 0) : ERR_MEMORY;
    if (st == OK && want->dtype == DT_F32) compare_numbers(c, want->name, pixels, &p, want);
    else if (st == OK) compare_bytes(c, want->name, pixels, preprocess_bytes(&p), want);
    free(pixels);
    return st;
}

static Status compare_all(Case *c, const StFile *want, const char *name, const Image *im, bool gray16) {
    size_t n = strlen(name);
    Status st = OK;
    for (size_t i = 0; st == OK && i < st_count(want); i++) {
        const StTensor *t = st_at(want, i);
        if (strncmp(t->name, name, n) || t->name[n] != '/' || (gray16 && !ends(t->name, "/rgb_high"))) continue;
        st = compare(c, im, t, t->name + n + 1);
    }
    return st;
}

/* ---- a list ------------------------------------------------------------------------------------------------------ */

/* Pillow reads 16-bit gray as its clipped low end, nearly white; what follows from that is not ours to follow. */
static bool is_gray16(const char *path) {
    uint8_t head[26] = {0};
    FILE *f = fopen(path, "rb");
    if (f && fread(head, 1, sizeof head, f) < sizeof head) head[24] = 0;
    if (f) fclose(f);
    return !memcmp(head, "\x89PNG", 4) && head[24] == 16 && head[25] == 0;
}

/* Beside the list, or below one of the folders that it lies in. */
static void find_file(char *path, size_t n, const char *dir, const char *file) {
    char up[16] = "";
    for (int i = 0; i < 5; i++) {
        snprintf(path, n, "%s/%s%s", dir, up, file);
        if (access(path, R_OK) == 0) return;
        strcat(up, "../");
    }
}

static Status image_row(Case *c, const StFile *want, const Json *row) {
    const char *name = json_str(json_get(row, "name"), NULL), *file = json_str(json_get(row, "file"), NULL);
    char path[2048];
    Image im;
    if (!name || !file) return err_set(ERR_FORMAT, "%s: an image without \"name\" or \"file\"", c->file);
    find_file(path, sizeof path, c->dir, file);
    Status st = image_read(&im, path);
    if (json_get(row, "error")) {                            /* a sentence is wanted, whatever Pillow's was */
        gold_check(c, name, st == ERR_FORMAT ? 0 : INFINITY, 1);
        image_free(&im);
        return OK;
    }
    if (st == OK) st = compare_all(c, want, name, &im, is_gray16(path));
    image_free(&im);
    return st;
}

Status gold_images(Case *c) {
    StFile *want = NULL;
    char file[300];
    const char *tail = strrchr(c->file, '/') + 5;
    snprintf(file, sizeof file, "expected%.*s.safetensors", (int)(strlen(tail) - 5), tail);
    Status st = gold_open(c, NULL, file, &want);
    const Json *rows = json_get(c->json, "images");
    for (size_t i = 0; st == OK && i < json_len(rows); i++) st = image_row(c, want, json_at(rows, i));
    st_close(want);
    return st;
}

/* ---- position tables --------------------------------------------------------------------------------------------- */

static const struct { const char *word; VitResize rule; } rules[] = {
    {"align_false", VIT_RESIZE_CUBIC}, {"align_true", VIT_RESIZE_CUBIC_CORNERS},
    {"antialias", VIT_RESIZE_CUBIC_ANTIALIAS}};

bool gold_is_positions(const char *dir, const char *name) {
    char path[2048];
    StFile *f = NULL;
    bool found = false;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!ends(name, ".safetensors") || st_open(&f, path) != OK) return false;
    for (size_t i = 0; i < st_count(f) && !found; i++) {
        int a, b, end = 0;
        found = sscanf(st_at(f, i)->name, "%dto%d.table%n", &a, &b, &end) == 2 && end && !st_at(f, i)->name[end];
    }
    st_close(f);
    return found;
}

static Status positions_row(Case *c, const StTensor *table, const StTensor *want, int from, int to, VitResize rule) {
    int64_t E = table->shape[table->ndim - 1], rows = (int64_t)to * to;
    bool fits = st_elements(table) == (1LL + (int64_t)from * from) * E && st_elements(want) == (1 + rows) * E;
    float *got = mem_new((size_t)((1 + rows) * E), sizeof *got);
    const float *in = table->data, *out = want->data;
    if (!got || !fits) {
        free(got);
        return fits ? ERR_MEMORY : err_set(ERR_FORMAT, "%s: not the size that its name says", want->name);
    }
    memcpy(got, in, (size_t)E * sizeof *got);
    Status st = vit_position_resize(got + E, to, to, in + E, from, (int)E, rule);
    double worst = 0;
    for (int64_t i = 0; i < (1 + rows) * E; i++) worst = gold_most(worst, fabs((double)got[i] - (double)out[i]));
    gold_check(c, want->name, worst, 1e-5);
    free(got);
    return st;
}

Status gold_positions(Case *c) {
    StFile *f = NULL;
    Status st = st_open(&f, c->file);
    for (size_t i = 0; st == OK && i < st_count(f); i++) {
        int from, to;
        char name[256];
        const StTensor *t = st_at(f, i);
        if (!ends(t->name, ".table") || sscanf(t->name, "%dto%d", &from, &to) != 2) continue;
        for (size_t r = 0; st == OK && r < sizeof rules / sizeof *rules; r++) {
            snprintf(name, sizeof name, "%dto%d.%s", from, to, rules[r].word);
            const StTensor *want = st_find(f, name);
            if (want) st = positions_row(c, t, want, from, to, rules[r].rule);
        }
    }
    st_close(f);
    return st;
}
