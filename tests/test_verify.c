/* verify finds what is wrong and says where; repack changes sizes, splits and element types and nothing else. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include <math.h>

#include "data/manifest.h"
#include "data/features.h"
#include "data/repack.h"
#include "data/set.h"
#include "data/verify.h"
#include "tests/kit/foreign.h"

enum { MOST_SAID = 32 };
static char said[MOST_SAID][512];
static int nsaid;

static void say(void *ctx, const char *sentence) {
    (void)ctx;
    if (nsaid < MOST_SAID) snprintf(said[nsaid++], sizeof said[0], "%s", sentence);
}

static void assert_said(const char *part) {
    for (int i = 0; i < nsaid; i++)
        if (strstr(said[i], part)) return;
    fail_msg("nothing says \"%s\"; first of %d: %s", part, nsaid, nsaid ? said[0] : "");
}

static VerifyReport check(const char *path, int64_t problems) {
    VerifyReport r;
    nsaid = 0;
    assert_int_equal(verify_set(path, say, NULL, NULL, &r), OK);
    if (r.problems != problems) fail_msg("%lld problems, first: %s", (long long)r.problems, nsaid ? said[0] : "");
    return r;
}

static void clean_and_dirty(void **state) {
    (void)state;
    Fixture f;
    Shard *s;
    const char *path = fix_path("v.h5");
    fix_init(&f, 0, 10, 2, DT_F16, false);
    assert_int_equal(fix_write(path, &f, 0), OK);
    VerifyReport r = check(path, 0);
    assert_int_equal(r.shards, 1);
    assert_int_equal(r.images, 10);
    assert_int_equal(r.rows, 20);
    assert_int_equal(r.captions, 13);
    assert_int_equal(r.uncaptioned, 3);

    f.caption[3][1] = "\xff" "broken";
    f.caption[3][2] = "";
    f.item[5].image_id = "img_1";
    unlink(path);
    assert_int_equal(fix_write(path, &f, 0), OK);
    check(path, 3);
    assert_said("v.h5: caption 1 of image 3 (\"img_3\") is not UTF-8 at byte 0");
    assert_said("caption 2 of image 3 (\"img_3\") is empty");
    assert_said("image 5 has the id \"img_1\", which image 1 of the set has already");

    assert_int_equal(shard_open(&s, path, false), OK);
    assert_int_equal(fix_poke(path, s->features_at + 7 * (int64_t)s->row_bytes, "\x31\x32", 2), 0);
    shard_close(s);
    check(path, 4);
    assert_said("row 7 (image \"img_3\") is damaged");
}

static void not_finite(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    uint16_t row[FIX_ELEMENTS];
    fix_init(&f, 0, 2, 1, DT_BF16, false);
    assert_int_equal(shard_create(&w, fix_path("nan.h5"), &f.spec), OK);
    for (int r = 0; r < 2; r++) {
        fix_row(row, r, 0, DT_BF16);
        if (r == 1) row[17] = 0x7fc0;
        assert_int_equal(shard_write(w, r, row, 1), OK);
    }
    assert_int_equal(shard_finish(w), OK);
    check(fix_path("nan.h5"), 1);
    assert_said("row 1 (image \"img_1\") holds a number that is not finite");
}

/* Rows of zeros, and an image that is there twice under two names, in two splits. */
static void nobody_computed(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    uint16_t row[FIX_ELEMENTS] = {0};
    fix_init(&f, 0, 5, 1, DT_BF16, false);                    /* splits: train, train, restval, val, test */
    assert_int_equal(shard_create(&w, fix_path("zero.h5"), &f.spec), OK);
    for (int r = 0; r < 5; r++) {
        if (r == 2) memset(row, 0, sizeof row);
        else fix_row(row, r == 4 ? 0 : r, 0, DT_BF16);
        assert_int_equal(shard_write(w, r, row, 1), OK);
    }
    assert_int_equal(shard_finish(w), OK);
    VerifyReport r = check(fix_path("zero.h5"), 0);
    assert_int_equal(r.warnings, 2);
    assert_said("1 of 5 rows are all zero, features that nobody computed; the first is row 2 (image \"img_2\")");
    assert_said("1 images are another one again, 1 of them in another split: img_0 (train) and img_4 (test)");
}

/* Rows of zeros are rows of one number, but not the other way round. */
static void zeros_and_ones(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    uint16_t row[FIX_ELEMENTS];
    fix_init(&f, 0, 5, 1, DT_BF16, false);
    assert_int_equal(shard_create(&w, fix_path("flat.h5"), &f.spec), OK);
    for (int r = 0; r < 5; r++) {
        fix_row(row, r, 0, DT_BF16);
        for (int i = 0; r > 2 && i < FIX_ELEMENTS; i++) row[i] = r == 3 ? 0 : 0x3f80;
        assert_int_equal(shard_write(w, r, row, 1), OK);
    }
    assert_int_equal(shard_finish(w), OK);
    assert_int_equal(check(fix_path("flat.h5"), 0).warnings, 1);
    assert_said("2 of 5 rows are all one number, features that nobody computed; the first is row 3 (image \"img_3\")");
}

/* Channels that became tokens: 8 x 4 tokens of 4 numbers. */
static void channels_first(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    float row[128];
    fix_init(&f, 0, 1, 1, DT_F32, false);
    f.spec.P = 32, f.spec.E = 4;
    for (int i = 0; i < 128; i++) row[i] = (float)i;
    assert_int_equal(shard_create(&w, fix_path("maps.h5"), &f.spec), OK);
    assert_int_equal(shard_write(w, 0, row, 1), OK);
    assert_int_equal(shard_finish(w), OK);
    check(fix_path("maps.h5"), 0);
    assert_said("32 tokens of 4 numbers look like maps (8, 4, 4) with channels first");
}

/* One image in two shards is found when the set is opened. */
static void twice_in_a_set(void **state) {
    (void)state;
    Fixture f;
    Set *s;
    char both[300];
    fix_init(&f, 0, 4, 1, DT_F16, false);
    assert_int_equal(fix_write(fix_path("one.h5"), &f, 0), OK);
    fix_init(&f, 3, 3, 1, DT_F16, false);
    assert_int_equal(fix_write(fix_path("two.h5"), &f, 3), OK);
    snprintf(both, sizeof both, "%s,%s", fix_path("one.h5"), fix_path("two.h5"));
    assert_int_equal(set_open(&s, both), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "image \"img_3\" stands twice in the set, in "));
}

static void a_folder(void **state) {
    (void)state;
    Fixture f;
    char dir[128], path[200];
    snprintf(dir, sizeof dir, "%s/folder", fix_dir);
    assert_int_equal(mkdir(dir, 0777), 0);
    for (int k = 0; k < 4; k++) {
        snprintf(path, sizeof path, "%s/s%d.h5", dir, k);
        fix_init(&f, k * 5, 5, 1, DT_F16, false);
        assert_int_equal(fix_write(path, &f, k * 5), OK);
    }
    assert_int_equal(manifest_write(dir, NULL, 0), OK);
    assert_int_equal(check(dir, 0).images, 20);
    unlink(path);                                           /* s3 is missing, s2 is not HDF5, s1 has another encoder */
    snprintf(path, sizeof path, "%s/s2.h5", dir);
    assert_int_equal(fix_poke(path, 0, "JUNK", 4), 0);
    snprintf(path, sizeof path, "%s/s1.h5", dir);
    unlink(path);
    fix_init(&f, 5, 5, 1, DT_F16, false);
    f.spec.encoder.tap = "other";
    assert_int_equal(fix_write(path, &f, 5), OK);
    check(dir, 3);
    assert_said("s3.h5: cannot be opened");
    assert_said("s2.h5: is not an HDF5 file");
    assert_said("s1.h5: was made by another encoder");
    VerifyReport r;
    assert_int_equal(verify_set(fix_path("nowhere"), say, NULL, NULL, &r), ERR_IO);
}

/* ---- repack ---- */

static void read_values(const Set *s, int64_t row, double *x) {
    uint64_t raw[FIX_ELEMENTS];
    float f[FIX_ELEMENTS], scale[FIX_P];
    assert_true(set_scales(s) == 1 || set_scales(s) == FIX_P);
    assert_int_equal(set_read_row(s, row, true, raw, scale), OK);
    dtype_to_f32(f, raw, set_dtype(s), FIX_ELEMENTS);
    for (int e = 0; e < FIX_ELEMENTS; e++) x[e] = (double)f[e] * (double)scale[set_scales(s) > 1 ? e / FIX_E : 0];
}

/* Features of every image in `out` against those in `in`: equal within `tolerance` times the token's largest. */
static void compare_sets(const char *in, const char *out, double tolerance) {
    Set *a, *b;
    double x[FIX_ELEMENTS], y[FIX_ELEMENTS];
    assert_int_equal(set_open(&a, in), OK);
    assert_int_equal(set_open(&b, out), OK);
    for (int64_t i = 0, j = 0; j < set_images(b); i++) {
        if (strcmp(set_image_id(a, i), set_image_id(b, j)) != 0) continue;
        assert_string_equal(set_split(a, i), set_split(b, j));
        assert_int_equal(set_ncaptions(a, i), set_ncaptions(b, j));
        for (int64_t k = 0; k < set_ncaptions(a, i); k++) {
            size_t n, m;
            const char *c = set_caption(a, i, k, &n), *d = set_caption(b, j, k, &m);
            assert_int_equal(n, m);
            assert_memory_equal(c, d, n);
        }
        for (int64_t v = 0; v < set_views(a); v++) {
            read_values(a, i * set_views(a) + v, x);
            read_values(b, j * set_views(b) + v, y);
            for (int e = 0; e < FIX_ELEMENTS; e += FIX_E) {
                double most = 0;
                for (int k = e; k < e + FIX_E; k++) most = fmax(most, fabs(x[k]));
                for (int k = e; k < e + FIX_E; k++) assert_true(fabs(x[k] - y[k]) <= tolerance * most);
            }
        }
        j++;
    }
    set_close(a);
    set_close(b);
}

static void repacking(void **state) {
    (void)state;
    Fixture f;
    RepackReport r;
    const char *in = fix_path("src.h5");
    fix_init(&f, 0, 30, 2, DT_F16, false);
    assert_int_equal(fix_write(in, &f, 0), OK);
    static const struct { const char *out; int dtype; double tolerance; } cases[] = {
        {"r-same", -1, 0}, {"r-f32", DT_F32, 0}, {"r-bf16", DT_BF16, 1.0 / 256}, {"r-i8", DT_I8, 0.5001 / 127},
            {"r-e4m3", DT_E4M3, 1.0 / 16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        RepackSpec spec = {.in = in, .out = fix_path(cases[i].out), .shard_images = 8, .dtype = cases[i].dtype,
            .split = ""};
        assert_int_equal(repack(&spec, &r), OK);
        assert_int_equal(r.images, 30);
        assert_int_equal(r.shards, 4);
        assert_int_equal(check(spec.out, 0).images, 30);
        compare_sets(in, spec.out, cases[i].tolerance);
        bool small = cases[i].dtype == DT_I8 || cases[i].dtype == DT_E4M3;
        assert_true(small ? r.square > 0 && sqrt(r.error / r.square) < 2 * cases[i].tolerance : r.square == 0);
        assert_int_equal(repack(&spec, &r), OK);            /* again: everything is there */
        RepackSpec back = {.in = spec.out, .out = fix_path("back.h5"), .dtype = DT_F16, .split = "train"};
        assert_int_equal(repack(&back, &r), OK);
        assert_int_equal(r.images, 18);
        assert_int_equal(r.shards, 1);
        compare_sets(in, back.out, cases[i].tolerance + 1.0 / 2048);
        unlink(back.out);
    }
    RepackSpec other = {.in = in, .out = fix_path("r-i8"), .shard_images = 8, .dtype = DT_F32, .split = ""};
    assert_int_equal(repack(&other, &r), ERR_USAGE);
    assert_non_null(
        strstr(err_message(), "set-00000.h5: exists and was made of something else (another element type)"));
    other.overwrite = true;
    assert_int_equal(repack(&other, &r), OK);
    compare_sets(in, other.out, 0);
    other.shard_images = 16;                                /* fewer files: what is left of the others does not stay */
    other.overwrite = false;
    assert_int_equal(repack(&other, &r), ERR_USAGE);
    assert_non_null(strstr(err_message(), "r-i8: holds set-0000"));
    other.overwrite = true;
    assert_int_equal(repack(&other, &r), OK);
    assert_int_equal(r.shards, 2);
    compare_sets(in, other.out, 0);
    other.in = other.out;
    assert_int_equal(repack(&other, &r), ERR_USAGE);
    assert_non_null(strstr(err_message(), "cannot be rewritten onto itself"));

    fix_init(&f, 0, 30, 2, DT_F16, false);                  /* the same names and captions, other features */
    RepackSpec anew = {.in = in, .out = fix_path("r-same"), .shard_images = 8, .dtype = -1, .split = ""};
    assert_int_equal(repack(&anew, &r), OK);
    unlink(in);
    assert_int_equal(fix_write(in, &f, 5), OK);
    assert_int_equal(repack(&anew, &r), ERR_USAGE);
    assert_non_null(strstr(err_message(), "something else (the files that the features come from"));
}

/* Compressed files without checksums become plain ones with. */
static void repack_foreign(void **state) {
    (void)state;
    Fixture f;
    RepackReport r;
    const char *in = fix_path("foreign.h5"), *out = fix_path("own.h5");
    fix_init(&f, 0, 12, 1, DT_F32, false);
    assert_int_equal(fix_write(in, &f, 0), OK);
    foreign_layout(in, 5, 2, true);
    hid_t file = H5Fopen(in, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "/images/crc32c", H5P_DEFAULT);
    H5Ldelete(file, "/images/written", H5P_DEFAULT);
    H5Ldelete(file, "/images/source", H5P_DEFAULT);
    H5Fclose(file);
    assert_int_equal(check(in, 0).warnings, 1);
    RepackSpec spec = {.in = in, .out = out, .dtype = -1, .split = ""};
    assert_int_equal(repack(&spec, &r), OK);
    assert_int_equal(check(out, 0).warnings, 0);
    compare_sets(in, out, 0);
}

static void too_large(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    RepackReport r;
    float row[FIX_ELEMENTS] = {0};
    fix_init(&f, 0, 2, 1, DT_F32, false);
    assert_int_equal(shard_create(&w, fix_path("large.h5"), &f.spec), OK);
    row[3] = 1e6f;
    for (int i = 0; i < 2; i++) assert_int_equal(shard_write(w, i, row, 1), OK);
    assert_int_equal(shard_finish(w), OK);
    RepackSpec spec = {.in = fix_path("large.h5"), .out = fix_path("small.h5"), .dtype = DT_F16, .split = ""};
    assert_int_equal(repack(&spec, &r), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "large.h5: image \"img_0\": a number is too large for f16"));
}

static void quantising(void **state) {
    (void)state;
    float x[4] = {1, -2, 0.5f, 0}, scale;
    int8_t q[4];
    uint8_t e[4];
    assert_int_equal(features_quantise(q, &scale, DT_I8, x, 4), OK);
    assert_true(scale == 2.0f / 127);
    const int8_t want[4] = {64, -127, 32, 0};               /* 63.5 and 31.75, to nearest even */
    assert_memory_equal(q, want, 4);
    assert_int_equal(features_quantise(e, &scale, DT_E4M3, x, 4), OK);
    assert_true(e4m3_to_f32(e[1]) == -448);
    assert_true(e4m3_to_f32(e[3]) == 0);
    float zero[4] = {0};
    assert_int_equal(features_quantise(q, &scale, DT_I8, zero, 4), OK);
    assert_true(scale == 1 && q[0] == 0);
    x[2] = NAN;
    assert_int_equal(features_quantise(q, &scale, DT_I8, x, 4), ERR_NUMERIC);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clean_and_dirty), cmocka_unit_test(not_finite), cmocka_unit_test(nobody_computed),
        cmocka_unit_test(zeros_and_ones),
        cmocka_unit_test(channels_first), cmocka_unit_test(twice_in_a_set),     cmocka_unit_test(a_folder),
        cmocka_unit_test(repacking),       cmocka_unit_test(repack_foreign), cmocka_unit_test(too_large),
        cmocka_unit_test(quantising),
    };
    return cmocka_run_group_tests(tests, fix_setup, fix_teardown);
}
