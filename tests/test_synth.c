/* The synthetic set: what its definition says of scenes, pictures and captions, and how captions are judged. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/make/annotations.h"
#include "data/format/image.h"
#include "data/make/patches.h"
#include "data/shard.h"
#include "kernels/base/splitmix.h"
#include "data/make/synth.h"

/* The first outputs of splitmix64 from state 0, as published with xoshiro (prng.di.unimi.it). */
static void generator(void **state) {
    (void)state;
    SplitMix r = {0};
    assert_true(splitmix_next(&r) == 0xe220a8397b1dcdafu);
    assert_true(splitmix_next(&r) == 0x6e789e6aa1b965f4u);
    assert_true(splitmix_next(&r) == 0x06c45d188009454fu);
}

static bool held_out(const SynthObject *o) { return ((o->colour - o->shape + 3 * o->texture) % 8 + 8) % 8 == 3; }

static void scenes_follow_the_rules(void **state) {
    (void)state;
    int counts[4] = {0};
    for (int split = 0; split < SYNTH_SPLITS; split++)
        for (int64_t i = 0; i < 3000; i++) {
            Scene s;
            int held = 0;
            assert_int_equal(synth_scene(&s, 42, split, i), OK);
            assert_in_range(s.n, 1, 3);
            counts[s.n]++;
            for (int a = 0; a < s.n; a++) {
                held += held_out(&s.object[a]);
                for (int b = 0; b < a; b++) {
                    assert_int_not_equal(s.object[a].shape, s.object[b].shape);
                    assert_int_not_equal(s.object[a].colour, s.object[b].colour);
                    assert_int_not_equal(s.object[a].row * 4 + s.object[a].col, s.object[b].row * 4 + s.object[b].col);
                }
            }
            if (split == SYNTH_TEST) assert_true(held >= 1);
            else assert_int_equal(held, 0);
        }
    const double want[4] = {0, 0.15, 0.5, 0.35};
    for (int n = 1; n <= 3; n++) assert_true(fabs(counts[n] / 9000.0 - want[n]) < 0.02);
    Scene s;
    assert_int_equal(synth_scene(&s, 42, 3, 0), ERR_USAGE);
    assert_int_equal(synth_scene(&s, 42, 0, -1), ERR_USAGE);
}

/* Of at most so many objects, in the shares that are left; and captions that leave nothing out say size, texture and
 * place of each, and the ground, those that name say nothing else, those of looks the texture; all of it true. */
static void kinds_of_scenes(void **state) {
    (void)state;
    for (int most = 1; most <= SYNTH_OBJECTS; most++) {
        int single = 0;
        for (int64_t i = 0; i < 600; i++) {
            Scene s, usual;
            SynthKind kind = {42, most, (SynthSay)(i % 4)};
            assert_int_equal(synth_draw(&s, &kind, SYNTH_TRAIN, i), OK);
            assert_in_range(s.n, 1, most);
            single += s.n == 1;
            synth_scene(&usual, 42, SYNTH_TRAIN, i);
            if (most == SYNTH_OBJECTS) assert_true(s.n == usual.n && s.captions == usual.captions);
            for (int k = 0; kind.say != SYNTH_SOME && k < 4; k++) {
                char caption[SYNTH_CAPTION];
                SynthClaims c;
                synth_caption(&s, k, caption);
                synth_check_caption(&s, caption, &c);
                int all = kind.say == SYNTH_ALL, each = all ? s.n : 0;       /* sizes said, and places */
                int textures = all || kind.say == SYNTH_LOOKS ? s.n : 0;
                assert_true(c.all_true && c.pairs == s.n && c.details == textures + each && c.places == each &&
                            c.grounds == all && c.relations == 0);
                assert_int_equal(c.foreign, 0);
            }
        }
        const double share[] = {1, 0.15 / 0.65, 0.15};
        assert_true(fabs(single / 600.0 - share[most - 1]) < 0.05);
    }
}

/* 24 of the 192 triples are held out. */
static void held_out_count(void **state) {
    (void)state;
    int n = 0;
    for (int shape = 0; shape < 8; shape++)
        for (int colour = 0; colour < 8; colour++)
            for (int texture = 0; texture < 3; texture++) {
                SynthObject o = {.shape = shape, .colour = colour, .texture = texture};
                assert_int_equal(synth_held_out(&o), held_out(&o));
                n += synth_held_out(&o);
            }
    assert_int_equal(n, 24);
}

/* A scene drawn alone is the scene drawn among others; another seed, split or index is another scene. */
static void deterministic(void **state) {
    (void)state;
    Scene a, b;
    char ca[SYNTH_CAPTION], cb[SYNTH_CAPTION];
    uint8_t pa[64 * 64 * 3], pb[64 * 64 * 3];
    synth_scene(&a, 7, SYNTH_VAL, 5);
    synth_render(&a, 64, pa);
    synth_caption(&a, 2, ca);
    synth_scene(&b, 7, SYNTH_VAL, 4);
    synth_scene(&b, 7, SYNTH_VAL, 5);
    synth_caption(&b, 0, cb);
    synth_caption(&b, 2, cb);
    synth_render(&b, 64, pb);
    assert_string_equal(ca, cb);
    assert_memory_equal(pa, pb, sizeof pa);
    synth_scene(&b, 8, SYNTH_VAL, 5);
    assert_true(a.captions != b.captions);
}

static Scene one_object(int shape, int colour, int texture) {
    Scene s = {.n = 1, .rgb = {255, 255, 255}};
    s.object[0] = (SynthObject){.shape = shape,
                                .colour = colour,
                                .texture = texture,
                                .row = 1,
                                .col = 1,
                                .x = 2,
                                .y = 2,
                                .radius = 1.4,
                                .rgb = {100, 0, 0},
                                .other = {200, 0, 0}};
    return s;
}

/* Areas of the shapes in units of radius squared, by geometry; the picture is 96 pixels for 4 cells. */
static void areas(void **state) {
    (void)state;
    const double pi = 3.14159265358979;
    const struct { int shape; double area; } cases[] = {
        {0, pi}, {1, 4 * 0.86 * 0.86}, {2, 0.95 * 1.75}, {3, 5 * 0.42 * sin(pi / 5)}, {4, 0.7 * pi},
        {5, 4 * (2 * 0.33 * 0.98 - 0.33 * 0.33)}, {6, 2 * 0.8 * 1.05 * 1.05},
    };
    static uint8_t rgb[96 * 96 * 3];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Scene s = one_object(cases[i].shape, 0, 0);
        synth_render(&s, 96, rgb);
        double sum = 0;
        for (int p = 0; p < 96 * 96; p++) sum += (255 - rgb[3 * p + 1]) / 255.0;     /* green is 0 inside */
        double want = cases[i].area * pow(1.4 * 96 / 4, 2);
        if (fabs(sum - want) > 0.02 * want)
            fail_msg("%s: %.0f pixels, geometry says %.0f", synth_shapes[cases[i].shape], sum, want);
    }
}

/* Half of a striped square has the other colour; a dotted one pi 1.7/256 * 16 of it. */
static void textures(void **state) {
    (void)state;
    static uint8_t rgb[256 * 256 * 3];
    const double want[3] = {0, 0.5, 3.14159265 * 1.7 / 256 * 16};
    for (int t = 0; t < 3; t++) {
        Scene s = one_object(1, 0, t);
        double other = 0, all = 0;
        synth_render(&s, 256, rgb);
        for (int y = 64; y < 192; y++)               /* a whole number of bands and dots around the centre */
            for (int x = 64; x < 192; x++, all++) other += (rgb[3 * (256 * y + x)] - 100) / 100.0;
        assert_true(fabs(other / all - want[t]) < 0.02);
    }
}

static void check(const Scene *s, const char *caption, int pairs, int pairs_true, bool all_true) {
    SynthClaims c;
    synth_check_caption(s, caption, &c);
    if (c.pairs != pairs || c.pairs_true != pairs_true || c.all_true != all_true)
        fail_msg("\"%s\": %d pairs, %d true, all true %d", caption, c.pairs, c.pairs_true, c.all_true);
}

static void claims(void **state) {
    (void)state;
    Scene s = {.n = 2, .ground = 3};
    s.object[0] = (SynthObject){
        .shape = 4, .colour = 2, .texture = 1, .size = 0, .row = 0, .col = 0}; /* small blue striped ring */
    s.object[1] = (SynthObject){
        .shape = 7, .colour = 0, .texture = 0, .size = 1, .row = 0, .col = 3}; /* large red heart */
    check(&s, "a small blue striped ring to the left of a large red heart on a sky blue background", 2, 2, true);
    check(&s, "A BLUE RING, and a red heart.", 2, 2, true);
    check(&s, "a blue ring to the right of a red heart", 2, 2, false);
    check(&s, "a red heart is to the right of a blue ring", 2, 2, true);
    check(&s, "a blue ring above a red heart", 2, 2, false);
    check(&s, "a red ring and a red heart", 2, 1, false);
    check(&s, "a large blue ring", 1, 1, false);
    check(&s, "a blue dotted ring", 1, 1, false);
    check(&s, "a blue ring in the top left corner", 1, 1, true);
    check(&s, "a blue ring in the middle", 1, 1, false);
    check(&s, "a blue ring on a white background", 1, 1, false);
    check(&s, "a ring", 1, 0, false);
    check(&s, "to the left of a blue ring", 1, 1, false);
    check(&s, "a blue ring above", 1, 1, false);
    check(&s, "", 0, 0, false);
    check(&s, "a a a the blue", 0, 0, false);
    SynthClaims c;
    synth_check_caption(&s, "a blue ring eats sky cheese", &c);
    assert_int_equal(c.foreign, 3);
    char flood[4000];
    memset(flood, 'x', sizeof flood);
    for (size_t i = 3; i < sizeof flood; i += 4) flood[i] = ' ';
    flood[sizeof flood - 1] = 0;
    check(&s, flood, 0, 0, false);
}

/* Every caption of every scene is true of it, knows only words of the grammar, and names as many pairs as there are;
 * and a judge who knows the facts finds the scene of a caption among 200 nearly always,
 * as the definition promises (98 %). */
static void captions_are_true_and_telling(void **state) {
    (void)state;
    enum { N = 200, K = 3 };
    static Scene scene[N];
    double found = 0;
    for (int i = 0; i < N; i++) assert_int_equal(synth_scene(&scene[i], 42, SYNTH_TEST, i), OK);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < K; k++) {
            char caption[SYNTH_CAPTION];
            SynthClaims c;
            int fits = 0;
            synth_caption(&scene[i], k, caption);
            synth_check_caption(&scene[i], caption, &c);
            if (!c.all_true || c.foreign || c.pairs != scene[i].n) fail_msg("%s", caption);
            assert_null(strstr(caption, "a orange"));
            for (int j = 0; j < N; j++) {
                synth_check_caption(&scene[j], caption, &c);
                fits += c.all_true && c.pairs == scene[j].n;      /* captions name every object */
            }
            found += 1.0 / fits;
        }
    assert_true(found / (N * K) > 0.98);
}

/* The files: rows of the shard are the encoder's, images are the pictures, scenes.json reads as annotations. */
static void set_on_disk(void **state) {
    (void)state;
    char dir[] = "/tmp/qf-synth-XXXXXX", out[64], path[96];
    assert_non_null(mkdtemp(dir));
    snprintf(out, sizeof out, "%s/set.h5", dir);
    SynthSpec spec = {.kind = {3, SYNTH_OBJECTS, false}, .count = {20, 5, 5}, .captions = 2, .size = 64, .patch = 16, .out = out,
                      .images = SYNTH_TEST_IMAGES, .facts = true};
    if (synth_write(&spec) != OK) fail_msg("%s", err_message());
    Shard *sh;
    if (shard_open(&sh, out, false) != OK) fail_msg("%s", err_message());
    assert_int_equal(sh->images, 30);
    assert_int_equal(sh->P, 16);
    assert_int_equal(sh->E, 784);
    assert_string_equal(column_text(&sh->image_id, 21), "val/000001.png");
    assert_string_equal(column_text(&sh->split, 29), "test");
    Scene s;
    static uint8_t rgb[64 * 64 * 3];
    static float want[16 * 784];
    static uint16_t got[16 * 784];
    ImageEncoder *e;
    assert_int_equal(patches_encoder(&e, 64, 16), OK);
    assert_int_equal(synth_scene(&s, 3, SYNTH_TEST, 4), OK);
    synth_render(&s, 64, rgb);
    assert_int_equal(e->run(e, 1, rgb, want), OK);
    assert_int_equal(shard_read(sh, 29, true, got), OK);
    for (int i = 0; i < 16 * 784; i++) assert_int_equal(got[i], f16_from_f32(want[i]));
    encoder_free(e);
    char caption[SYNTH_CAPTION];
    size_t n;
    synth_caption(&s, 1, caption);
    const char *stored = shard_caption(sh, 29, 1, &n);
    assert_int_equal(n, strlen(caption));
    assert_memory_equal(stored, caption, n);
    shard_close(sh);

    snprintf(path, sizeof path, "%s/test/000004.png", dir);
    Image im;
    assert_int_equal(image_read(&im, path), OK);
    assert_memory_equal(im.rgb, rgb, sizeof rgb);
    image_free(&im);

    snprintf(path, sizeof path, "%s/scenes.json", dir);
    Annotations a = {0};
    if (annotations_add(&a, &(AnnotationFile){.path = path}) != OK || annotations_finish(&a) != OK) fail_msg("%s", err_message());
    assert_int_equal(a.count, 30);
    assert_string_equal(a.images[29].image, "test/000004.png");
    assert_string_equal(a.images[29].split, "test");
    assert_string_equal(a.images[29].captions[1], caption);
    annotations_free(&a);
    unlink(path);
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/test/%06d.png", dir, i);
        assert_int_equal(unlink(path), 0);
    }
    snprintf(path, sizeof path, "%s/test", dir);
    rmdir(path);
    unlink(out);
    assert_int_equal(rmdir(dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generator), cmocka_unit_test(scenes_follow_the_rules), cmocka_unit_test(kinds_of_scenes), cmocka_unit_test(held_out_count),
        cmocka_unit_test(deterministic), cmocka_unit_test(areas), cmocka_unit_test(textures), cmocka_unit_test(claims),
        cmocka_unit_test(captions_are_true_and_telling), cmocka_unit_test(set_on_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
