/* Decoding and resizing against what Pillow gave (golden/vision/images), and what broken files must do. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/image.h"
#include "data/format/json.h"
#include "data/make/patches.h"
#include "data/format/resize.h"
#include "data/format/safetensors.h"

static void find_text(char *out, size_t n, const char *name, const char *what) {
    snprintf(out, n, "%s/%s", name, what);
}

static void check_resize(const Image *im, const StTensor *want, const char *name) {
    if (!want) return;
    int S = (int)want->shape[0];
    uint8_t *got = malloc((size_t)S * (size_t)S * 3);
    assert_non_null(got);
    assert_int_equal(resize_bicubic(got, S, S, im->rgb, im->w, im->h, (size_t)im->w * 3), OK);
    if (memcmp(got, want->data, want->nbytes)) fail_msg("%s resized to %d differs", name, S);
    free(got);
}

static void check_normalised(const Image *im, const StTensor *want) {
    if (!want) return;
    int S = (int)want->shape[1];
    uint8_t *got = malloc((size_t)S * (size_t)S * 3);
    assert_non_null(got);
    assert_int_equal(resize_bicubic(got, S, S, im->rgb, im->w, im->h, (size_t)im->w * 3), OK);
    const float *w = want->data;
    Preprocess clip = {0};
    memcpy(clip.mean, preprocess_clip_mean, sizeof clip.mean);
    memcpy(clip.std, preprocess_clip_std, sizeof clip.std);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < S * S; i++) assert_true(preprocess_normalised(&clip, got[3 * i + c], c) == w[c * S * S + i]);
    free(got);
}

static void check_good(const Image *im, const Json *row, const StFile *want, const char *name) {
    char key[128];
    int64_t w = 0, h = 0;
    assert_true(json_int(json_get(row, "width"), &w) && json_int(json_get(row, "height"), &h));
    assert_int_equal(im->w, w);
    assert_int_equal(im->h, h);
    find_text(key, sizeof key, name, "rgb_high");
    const StTensor *rgb = st_find(want, key);
    find_text(key, sizeof key, name, "rgb");
    if (!rgb) rgb = st_find(want, key);
    assert_non_null(rgb);
    assert_int_equal(rgb->nbytes, 3 * w * h);
    if (memcmp(im->rgb, rgb->data, rgb->nbytes)) fail_msg("%s: pixels differ", name);
    static const char *const sizes[] = {"s32", "s224"};
    if (rgb == st_find(want, key))       /* the resized 16-bit gray follows Pillow's clipping */
        for (int i = 0; i < 2; i++) {
            find_text(key, sizeof key, name, sizes[i]);
            check_resize(im, st_find(want, key), name);
        }
    find_text(key, sizeof key, name, "norm224");
    check_normalised(im, st_find(want, key));
}

/* Returns how many images were compared. */
static int check_folder(const char *dir, const char *data) {
    char path[512];
    Json *list = NULL;
    StFile *want = NULL;
    snprintf(path, sizeof path, "%s/list.json", dir);
    assert_int_equal(json_parse_file(&list, path), OK);
    snprintf(path, sizeof path, "%s/expected.safetensors", dir);
    assert_int_equal(st_open(&want, path), OK);
    const Json *rows = json_get(list, "images");
    int compared = 0;
    for (size_t i = 0; i < json_len(rows); i++) {
        const Json *row = json_at(rows, i);
        const char *name = json_str(json_get(row, "name"), NULL), *file = json_str(json_get(row, "file"), NULL);
        const char *error = json_str(json_get(row, "error"), NULL);
        if (!strncmp(file, "data/", 5)) snprintf(path, sizeof path, "%s/%s", data, file);
        else snprintf(path, sizeof path, "%s/%s", dir, file);
        Image im;
        Status st = image_read(&im, path);
        if (error) {
            assert_int_equal(st, ERR_FORMAT);
            assert_null(im.rgb);
            assert_non_null(strstr(err_message(), name));   /* the file is named */
        } else {
            if (st != OK) fail_msg("%s", err_message());
            check_good(&im, row, want, name);
        }
        compared++;
        image_free(&im);
    }
    st_close(want);
    json_free(list);
    return compared;
}

static void golden_small(void **state) {
    (void)state;
    assert_true(check_folder("tests/golden/images", "") >= 20);
}

static void golden_all(void **state) {
    (void)state;
    if (access("../shared/golden/vision/images/list.json", R_OK)) skip();
    assert_true(check_folder("../shared/golden/vision/images", "../shared") >= 60);
}

/* One row of ten values, enlarged and shrunk: spec values confirmed with Pillow. */
static void one_row(void **state) {
    (void)state;
    static const uint8_t in[10] = {0, 48, 170, 110, 124, 212, 118, 98, 152, 24};
    static const uint8_t w4[4] = {58, 141, 147, 91};
    static const uint8_t w16[16] = {0, 13, 54, 143, 162, 112, 109, 139, 206, 179, 115, 96, 116, 153, 77, 15};
    uint8_t src[30], dst[48];
    for (int i = 0; i < 30; i++) src[i] = in[i / 3];
    assert_int_equal(resize_bicubic(dst, 4, 1, src, 10, 1, 30), OK);
    for (int i = 0; i < 12; i++) assert_int_equal(dst[i], w4[i / 3]);
    assert_int_equal(resize_bicubic(dst, 16, 1, src, 10, 1, 30), OK);
    for (int i = 0; i < 48; i++) assert_int_equal(dst[i], w16[i / 3]);
    for (int i = 0; i < 10; i++) memset(src + 3 * i, in[i], 3);      /* the same numbers as a column */
    assert_int_equal(resize_bicubic(dst, 1, 4, src, 1, 10, 3), OK);
    for (int i = 0; i < 12; i++) assert_int_equal(dst[i], w4[i / 3]);
}

/* A crop of a larger picture is what the cropped picture gives. */
static void crop_by_stride(void **state) {
    (void)state;
    uint8_t big[20 * 30 * 3], small[7 * 9 * 3], a[5 * 5 * 3], b[5 * 5 * 3];
    for (size_t i = 0; i < sizeof big; i++) big[i] = (uint8_t)(i * 7919 >> 3);
    for (int y = 0; y < 9; y++) memcpy(small + y * 21, big + (y + 4) * 90 + 33, 21);
    assert_int_equal(resize_bicubic(a, 5, 5, big + 4 * 90 + 33, 7, 9, 90), OK);
    assert_int_equal(resize_bicubic(b, 5, 5, small, 7, 9, 21), OK);
    assert_memory_equal(a, b, sizeof a);
}

static void png_round_trip(void **state) {
    (void)state;
    char dir[] = "/tmp/qf-image-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.png", dir);
    uint8_t rgb[5 * 4 * 3];
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * 37);
    assert_int_equal(image_write_png(path, rgb, 5, 4), OK);
    Image im;
    assert_int_equal(image_read(&im, path), OK);
    assert_int_equal(im.w, 5);
    assert_int_equal(im.h, 4);
    assert_memory_equal(im.rgb, rgb, sizeof rgb);
    image_free(&im);
    unlink(path);
    assert_int_equal(image_read(&im, path), ERR_IO);
    assert_int_equal(image_read(&im, dir), ERR_IO);
    assert_int_equal(image_write_png(dir, rgb, 5, 4), ERR_IO);
    rmdir(dir);
}

/* A patch's pixels and the position code, by hand from the definition. */
static void patch_layout(void **state) {
    (void)state;
    ImageEncoder *e;
    assert_int_equal(patches_encoder(&e, 4, 2), OK);
    assert_int_equal(e->P, 4);
    assert_int_equal(e->E, 3 * 4 + 16);
    uint8_t rgb[4 * 4 * 3];
    for (int i = 0; i < 48; i++) rgb[i] = (uint8_t)(5 * i);
    float f[4 * 28];
    assert_int_equal(e->run(e, 1, rgb, f), OK);
    /* token 1 = top right: green of the lower left pixel stands at c=1, y=1, x=0 */
    assert_true(fabs(f[28 + 4 + 2] - (5 * (3 * (4 + 2) + 1) / 255.0 - 0.4578275) / 0.26130258) < 1e-5);
    /* its centre is (0.75, 0.25): f = 1: sin 135, cos 135, sin 45, cos 45 degrees;
     * f = 2: sin 270, cos 270, sin 90, cos 90 */
    static const double want[8] = {2.8284271, -2.8284271, 2.8284271, 2.8284271, -4, 0, 4, 0};
    for (int i = 0; i < 8; i++) assert_true(fabs(f[28 + 12 + i] - want[i]) < 1e-5);
    encoder_free(e);
    assert_int_equal(patches_encoder(&e, 64, 10), ERR_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_small), cmocka_unit_test(golden_all), cmocka_unit_test(one_row),
        cmocka_unit_test(crop_by_stride), cmocka_unit_test(png_round_trip), cmocka_unit_test(patch_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
