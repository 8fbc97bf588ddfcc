/* Image encoders: worked values of EVA-g and CLIP; EVA-g as it is exported; recipes of pixels; which way up. Names:
 * test_vision_names. Whole fixtures of all families: make golden DIR=... */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/vision_encoder.h"
#include "checkpoints/vision_hf.h"
#include "data/format/exif.h"
#include "kernels/base/mem.h"
#include "kernels/base/sha256.h"
#include "tests/kit/check.h"
#include "tests/kit/scratch.h"
#include "tests/kit/tower.h"
#include "tests/kit/weights.h"

static void save_text(const char *file, const char *text) { weights_text(scratch_path(file), text); }

/* ---- worked values: patch 2 of 4 x 4 pixels, width 8, 2 heads, 12, 2 blocks -------------------------------------- */

static void drawn(Weights *w, Lcg *r, const char *name, double scale, double about, int ndim, int64_t a, int64_t b) {
    int64_t shape[] = {a, b}, patch[] = {8, 3, 2, 2};
    float *x = b == -1 ? weights_add(w, name, 4, patch) : weights_add(w, name, ndim, shape);
    for (int64_t i = 0, n = st_elements(&w->t[w->n - 1]); i < n; i++) x[i] = (float)(about + scale * lcg_draw(r));
}

static void drawn_norm(Weights *w, Lcg *r, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    drawn(w, r, full, 0.1, 1, 1, 8, 0);
    snprintf(full, sizeof full, "%s.bias", name);
    drawn(w, r, full, 0.1, 0, 1, 8, 0);
}

static void drawn_linear(Weights *w, Lcg *r, const char *name, int64_t out, int64_t in) {
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    drawn(w, r, full, 0.5, 0, 2, out, in);
    snprintf(full, sizeof full, "%s.bias", name);
    drawn(w, r, full, 0.1, 0, 1, out, 0);
}

static const char *in_block(int i, const char *before, const char *name) {
    static char s[2][64];
    static int k;
    k = !k;
    snprintf(s[k], sizeof s[k], "%s%d.%s", before, i, name);
    return s[k];
}

static void draw_model(Weights *w, Lcg *r, bool clip) {
    const char *b = clip ? "visual.transformer.resblocks." : "blocks.";
    drawn(w, r, clip ? "visual.conv1.weight" : "patch_embed.proj.weight", 0.5, 0, 4, 8, -1);
    if (!clip) drawn(w, r, "patch_embed.proj.bias", 0.1, 0, 1, 8, 0);
    drawn(w, r, clip ? "visual.class_embedding" : "cls_token", 0.5, 0, 1, 8, 0);
    drawn(w, r, clip ? "visual.positional_embedding" : "pos_embed", 0.5, 0, 2, 5, 8);
    if (clip) drawn_norm(w, r, "visual.ln_pre");
    for (int i = 0; i < 2; i++) {
        drawn_norm(w, r, in_block(i, b, clip ? "ln_1" : "norm1"));
        drawn(w, r, in_block(i, b, clip ? "attn.in_proj_weight" : "attn.qkv.weight"), 0.5, 0, 2, 24, 8);
        if (clip) drawn(w, r, in_block(i, b, "attn.in_proj_bias"), 0.1, 0, 1, 24, 0);
        else drawn(w, r, in_block(i, b, "attn.q_bias"), 0.1, 0, 1, 8, 0), drawn(w, r, in_block(i, b, "attn.v_bias"), 0.1, 0, 1, 8, 0);
        drawn_linear(w, r, in_block(i, b, clip ? "attn.out_proj" : "attn.proj"), 8, 8);
        drawn_norm(w, r, in_block(i, b, clip ? "ln_2" : "norm2"));
        drawn_linear(w, r, in_block(i, b, clip ? "mlp.c_fc" : "mlp.fc1"), 12, 8);
        drawn_linear(w, r, in_block(i, b, clip ? "mlp.c_proj" : "mlp.fc2"), 8, 12);
    }
}

typedef struct { bool clip; uint32_t seed, state; double in[2][8], out[2][8], sum; } Worked;

static void near_row(const float *row, const double want[8]) {
    for (int c = 0; c < 8; c++)
        if (!(fabs((double)row[c] - want[c]) < 2e-6)) fail_msg("%g instead of %g", (double)row[c], want[c]);
}

static void check_worked(const Worked *k) {
    Weights w = {0};
    Lcg r = {k->seed};
    float pixels[48];
    int P;
    draw_model(&w, &r, k->clip);
    if (k->clip) {                                           /* by this norm a file of OpenAI's is known */
        weights_add(&w, "visual.ln_post.weight", 1, (const int64_t[]){8});
        weights_add(&w, "visual.ln_post.bias", 1, (const int64_t[]){8});
        scratch_write("config.json", "{\"hidden_act\": \"quick_gelu\"}");
    }
    weights_save(&w, scratch_path("worked.safetensors"));
    for (int i = 0; i < 48; i++) pixels[i] = (float)(2 * lcg_draw(&r));
    assert_int_equal(r.s, k->state);                         /* the numbers are those that were meant */
    float *x = tower_rows(scratch_path("worked.safetensors"), pixels, 4, 0, false, 2, &P);
    assert_int_equal(P, 5);
    near_row(x, k->in[0]), near_row(x + 32, k->in[1]);
    free(x);
    x = tower_rows(scratch_path("worked.safetensors"), pixels, 4, 2, false, 2, &P);
    near_row(x, k->out[0]), near_row(x + 32, k->out[1]);
    double sum = 0;
    for (int i = 0; i < 40; i++) sum += (double)x[i];
    assert_true(fabs(sum - k->sum) < 2e-5);
    free(x);
    unlink(scratch_path("config.json"));
}

static void worked(void **state) {
    (void)state;
    check_worked(&(Worked){false, 2024, 912179272,
        {{-0.443223497, -0.119814982, -0.560288967, -0.520824585, -0.070394192, 0.579103549, -0.192946434, -0.690177748},
         {0.243328626, -0.884149127, -0.386996114, 0.315364108, -0.490251012, 1.183320294, -0.775824741, 0.769365422}},
        {{-0.047899721, 0.548897067, 0.448517482, -1.615409647, 0.019459169, 1.089240219, -0.869008962, -1.529668199},
         {-0.131996820, -0.438598695, 0.647958871, 0.419452780, -1.110348471, 1.227777506, 0.253484981, 1.311332303}},
        4.745590336});
    check_worked(&(Worked){true, 2025, 2491396385u,
        {{0.116642832, -0.656528116, 1.630032344, -0.787193777, -1.503716198, -0.089141960, 0.188149457, 1.247441225},
         {-1.309458027, -0.810862192, -1.170065118, -0.001332148, 0.000389136, 0.724885142, 1.788642210, 0.958860266}},
        {{-1.651950216, -1.134271689, 2.082130925, -0.880674056, -3.337567859, -0.717388590, -1.879377628, 0.907964100},
         {-2.423446376, -1.739028690, 0.361595828, 0.657517663, 0.197969151, 1.344763269, 0.380753248, 1.052777653}},
        -14.367823400});
}

/* EVA-g whose class is timm's has all its blocks and its norm; in LAVIS's file the last block is not used. */
static void eva_of_timm(void **state) {
    (void)state;
    Weights w = {0};
    Lcg r = {7};
    Vision e;
    draw_model(&w, &r, false);
    weights_add(&w, "norm.weight", 1, (const int64_t[]){8});
    weights_add(&w, "norm.bias", 1, (const int64_t[]){8});
    weights_save(&w, scratch_path("model.safetensors"));
    assert_int_equal(vision_open(&e, scratch_path("model.safetensors"), 2), OK);
    assert_true(e.d.L == 1 && e.dropped == 1 && !e.d.post && e.custom.tap == VIT_LAST);
    vision_close(&e);
    scratch_write("config.json", "{\"architecture\": \"eva_giant_patch14_clip_224\", \"model_args\": {\"num_heads\": 2}}");
    assert_int_equal(vision_open(&e, scratch_dir(), 0), OK);
    assert_true(e.d.L == 2 && !e.dropped && e.d.post && e.custom.tap == VIT_SECOND_LAST);
    vision_close(&e);
    scratch_write("config.json", "{\"architecture\": \"eva02_enormous_patch14_clip_224\"}");
    assert_int_equal(vision_open(&e, scratch_dir(), 2), ERR_USAGE);
    assert_non_null(strstr(err_message(), "has its norms behind its blocks"));
    unlink(scratch_path("config.json"));
    unlink(scratch_path("model.safetensors"));
}

/* Exported under transformers' names, with the small files beside: the same model, found there by its names. */
static void to_transformers(void **state) {
    (void)state;
    Weights w = {0};
    Lcg r = {7};
    Vision e;
    HfTower tower;
    HfDims d = {.Q = 2, .C = 8, .H = 2, .F = 8, .L = 1, .X = 1, .E = 8, .Z = 4, .V = 30, .N = 16};
    float pixels[48], *a, *b, ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    int P, Q;
    char folder[64];
    const StTensor norm[] = {{.name = "ln_vision.weight", .dtype = DT_F32, .ndim = 1, .shape = {8}, .data = ones},
                             {.name = "ln_vision.bias", .dtype = DT_F32, .ndim = 1, .shape = {8}, .data = ones}};
    draw_model(&w, &r, false);
    weights_save(&w, scratch_path("lavis.safetensors"));
    weights_fill(pixels, 48, "pixels", 6);
    snprintf(folder, sizeof folder, "%s", scratch_path("hf"));
    assert_int_equal(vision_open(&e, scratch_path("lavis.safetensors"), 2), OK);
    assert_int_equal(vision_hf(&tower, &d, &e, 0, e.custom.tap), OK);
    assert_int_equal(hf_export(folder, &d, norm, 2, &tower, NULL), OK);
    assert_int_equal(vision_hf_files(folder, &e.custom.pre), OK);
    assert_int_equal(vision_hf_tokenizer(folder, 30), OK);
    vision_tower_free(&tower);
    vision_close(&e);
    a = tower_rows(scratch_path("lavis.safetensors"), pixels, 4, -1, false, 2, &P);
    b = tower_rows(folder, pixels, 4, -1, false, 0, &Q);
    assert_int_equal(P, Q);
    assert_memory_equal(a, b, (size_t)P * 8 * sizeof *a);
    free(a);
    free(b);
    assert_int_equal(vision_open(&e, folder, 0), OK);
    assert_true(e.print->family == FAMILY_EVA_G && e.d.post && e.custom.pre.size == 4 && e.custom.pre.squash);
    vision_close(&e);
    save_text("a.safetensors", tower_aimv2);
    assert_int_equal(vision_open(&e, scratch_path("a.safetensors"), 2), OK);
    assert_int_equal(vision_hf(&tower, &d, &e, 0, e.custom.tap), ERR_USAGE);
    assert_non_null(strstr(err_message(), "transformers' BLIP-2 has no other vision model than EVA-g"));
    vision_close(&e);
}

/* ---- recipes ----------------------------------------------------------------------------------------------------- */

typedef Status Recipe(Preprocess *, const Json *, const char *);

static Status read_recipe(Recipe *read, Preprocess *p, const char *text) {
    Json *doc = NULL;
    *p = (Preprocess){.size = 224, .edge = 224, .squash = true, .kernel = TAPS_CUBIC, .std = {1, 1, 1}};
    Status st = json_parse(&doc, text, strlen(text), "recipe.json");
    if (st == OK) st = read(p, doc, "recipe.json");
    json_free(doc);
    return st;
}

static void recipes(void **state) {
    (void)state;
    static const struct { Recipe *read; const char *text, *want; } all[] = {
        {preprocess_read_transformers, "{\"size\": {\"shortest_edge\": 256}, \"do_center_crop\": true,"
         " \"crop_size\": {\"height\": 224, \"width\": 224}, \"resample\": 3}", "shortest edge 256 bicubic, middle 224x224"},
        {preprocess_read_transformers, "{\"size\": 224, \"crop_size\": 224, \"do_center_crop\": true, \"resample\": 1}",
         "shortest edge 224 Lanczos, middle 224x224"},
        {preprocess_read_transformers, "{\"size\": {\"height\": 384, \"width\": 384}, \"do_normalize\": false}",
         "squash to 384 bicubic, mean 0 0 0, std 1 1 1"},
        {preprocess_read_transformers, "{\"rescale_factor\": 0.00784313725490196, \"image_mean\": 1, \"image_std\": 1}",
         "squash to 224 bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"},
        {preprocess_read_transformers, "{\"do_rescale\": false, \"image_mean\": 51, \"image_std\": 102}",
         "squash to 224 bicubic, mean 0.2 0.2 0.2, std 0.4 0.4 0.4"},
        {preprocess_read_transformers, "{\"image_processor_type\": \"DINOv3ViTImageProcessorFast\", \"resample\": 2}",
         "squash to 224 bilinear in float"},
        {preprocess_read_openclip, "{\"size\": 336, \"interpolation\": \"bilinear\", \"resize_mode\": \"shortest\"}",
         "shortest edge 336 bilinear, middle 336x336 (half to even)"},
        {preprocess_read_timm, "{\"input_size\": [3, 224, 224], \"crop_pct\": 0.9, \"crop_mode\": \"center\"}",
         "shortest edge 248 bicubic, middle 224x224 (half to even)"}};
    static const struct { Recipe *read; const char *text, *sentence; } bad[] = {
        {preprocess_read_transformers, "{\"size\": {\"height\": 224, \"width\": 200}}", "only square pixels"},
        {preprocess_read_transformers, "{\"size\": {\"shortest_edge\": 224}}", "cuts nothing out"},
        {preprocess_read_transformers, "{\"size\": 99999999}", "not a number of pixels"},
        {preprocess_read_transformers, "{\"size\": 100, \"crop_size\": 200, \"do_center_crop\": true}", "cannot be cut out"},
        {preprocess_read_transformers, "{\"image_std\": [1, 0, 1]}", "three numbers between"},
        {preprocess_read_transformers, "{\"rescale_factor\": 0}", "not a number between"},
        {preprocess_read_transformers, "{\"resample\": 0}", "no kernel"},
        {preprocess_read_timm, "{\"crop_pct\": 0}", "crop_pct"},
        {preprocess_read_openclip, "{\"resize_mode\": \"longest\"}", "squash and shortest are known"}};
    char text[PREPROCESS_TEXT];
    Preprocess p;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(read_recipe(all[i].read, &p, all[i].text), OK);
        preprocess_text(&p, text, sizeof text);
        if (strncmp(text, all[i].want, strlen(all[i].want))) fail_msg("%s: %s", all[i].text, text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(read_recipe(bad[i].read, &p, bad[i].text), OK);
        if (!strstr(err_message(), bad[i].sentence)) fail_msg("%s: %s", bad[i].text, err_message());
    }
}

/* 501 x 351 to 224: the offset of the middle is 47 or 48 (Pillow's 319 x 224; transformers and torchvision). */
static void middles(void **state) {
    (void)state;
    Image im = {501, 351, NULL};
    uint8_t *a, *b, *whole;
    assert_non_null(im.rgb = mem_new(501 * 351, 3));
    for (size_t i = 0; i < 501 * 351 * 3; i++) im.rgb[i] = (uint8_t)(i * 2654435761u >> 23);
    Preprocess p = {.size = 224, .edge = 224, .kernel = TAPS_CUBIC};
    assert_non_null(a = mem_new(preprocess_bytes(&p), 1));
    assert_non_null(b = mem_new(preprocess_bytes(&p), 1));
    assert_non_null(whole = mem_new(319 * 224, 3));
    assert_int_equal(preprocess_view(a, &p, &im, "x", 0), OK);
    p.half_even = true;
    assert_int_equal(preprocess_view(b, &p, &im, "x", 0), OK);
    assert_int_equal(resize_bicubic(whole, 319, 224, im.rgb, 501, 351, 501 * 3), OK);
    for (int y = 0; y < 224; y++) {
        assert_memory_equal(a + y * 672, whole + (y * 319 + 47) * 3, 672);
        assert_memory_equal(b + y * 672, whole + (y * 319 + 48) * 3, 672);
    }
    assert_int_equal(preprocess_view(b, &p, &im, "x", 1), OK);     /* mirrored */
    p.half_even = false;
    assert_int_equal(preprocess_view(b, &p, &im, "x", 1), OK);
    for (int x = 0; x < 224; x++) assert_memory_equal(a + 3 * x, b + 3 * (223 - x), 3);
    free(a), free(b), free(whole), free(im.rgb);
}

/* ---- which way up ------------------------------------------------------------------------------------------------ */

static int orientation_of(uint8_t value, bool big) {
    uint8_t j[] = {0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,
                   'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, value, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xda};
    uint8_t b[] = {'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, value};
    if (big) memcpy(j + 18, b, sizeof b);
    for (size_t n = 0; n < sizeof j; n++) assert_true(exif_orientation(j, n) <= 8);   /* cut short anywhere */
    return exif_orientation(j, sizeof j);
}

static void upright(void **state) {
    (void)state;
    static const char *const want[9] = {"", "abcdef", "cbafed", "fedcba", "defabc", "adbecf", "daebfc", "fcebda", "cfbead"};
    for (int o = 1; o <= 8; o++) {
        Image im = {3, 2, mem_new(6, 3)};
        for (int i = 0; i < 18; i++) im.rgb[i] = (uint8_t)("abcdef"[i / 3]);
        assert_int_equal(exif_turn(&im, o), OK);
        assert_int_equal(im.w, o >= 5 ? 2 : 3);
        for (int i = 0; i < 6; i++) assert_int_equal(im.rgb[3 * i], want[o][i]);
        image_free(&im);
        assert_int_equal(orientation_of((uint8_t)o, false), o);
        assert_int_equal(orientation_of((uint8_t)o, true), o);
    }
    assert_int_equal(orientation_of(9, false), 1);
    assert_int_equal(exif_orientation("", 0), 1);
}

static void sha256(void **state) {
    (void)state;
    char hex[65];
    Sha256 s;
    sha256_begin(&s);
    sha256_add(&s, "abc", 3);
    sha256_hex(&s, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_begin(&s);
    sha256_add(&s, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    sha256_hex(&s, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

/* ---- as extraction sees it --------------------------------------------------------------------------------------- */

static void rows_that_are_kept(void **state) {
    (void)state;
    static const int64_t P[] = {3 + 16, 1 + 16, 16, 4};      /* cls, two registers, 4 x 4 patches */
    float f[4][19 * 8];
    uint8_t rgb[8 * 8 * 3];
    float pixels[8 * 8 * 3];
    save_text("d.safetensors", tower_dinov3);
    for (int i = 0; i < 192; i++) pixels[i] = (float)(rgb[i] = (uint8_t)(i * 37)) / 255;
    for (int k = 0; k < 4; k++) {
        ImageEncoder *e;
        VisionWish w = {.b = backend_cpu(DT_F32), .size = 8, .batch = 2, .heads = 2, .tap = -1, .quiet = true,
                        .tokens = (VisionTokens)k};
        assert_int_equal(vision_encoder(&e, scratch_path("d.safetensors"), &w, NULL), OK);
        assert_int_equal(e->P, P[k]);
        assert_int_equal(e->run(e, 1, pixels, f[k]), OK);
        encoder_free(e);
    }
    assert_memory_equal(f[0], f[1], 8 * sizeof(float));
    assert_memory_equal(f[0] + 3 * 8, f[1] + 8, 16 * 8 * sizeof(float));
    assert_memory_equal(f[1] + 8, f[2], 16 * 8 * sizeof(float));
    for (int c = 0; c < 8; c++)
        assert_true(fabsf((f[2][c] + f[2][8 + c] + f[2][32 + c] + f[2][40 + c]) / 4 - f[3][c]) < 1e-6f);
    ImageEncoder *e;
    VisionWish w = {.b = backend_cpu(DT_F32), .heads = 2, .tap = VIT_NORMED, .quiet = true};
    save_text("e.safetensors", tower_eva02);
    assert_int_equal(vision_encoder(&e, scratch_path("e.safetensors"), &w, NULL), ERR_USAGE);
    assert_non_null(strstr(err_message(), "has no norm behind its last block"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked), cmocka_unit_test(eva_of_timm), cmocka_unit_test(to_transformers),
        cmocka_unit_test(recipes), cmocka_unit_test(middles), cmocka_unit_test(upright), cmocka_unit_test(sha256),
        cmocka_unit_test(rows_that_are_kept),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_teardown);
}
