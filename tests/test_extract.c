/* test_extract: from pictures and a released encoder to a set, and from pictures to words, by the program: killed at
 * any moment, shared by ranks, options, and what it says. The program is $QFORMER_BIN, else build/qformer; without it
 * all is skipped. Numbers of the encoder itself: test_vision. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/set.h"
#include "kernels/base/mem.h"
#include "tests/kit/distance.h"
#include "tests/kit/folder.h"
#include "tests/kit/weights.h"

#define SCENES "synth.train=24 synth.val=2 synth.test=4 synth.size=32 synth.patch=8 synth.captions=2 threads=1 "
#define NORMS(b) b "norm1.weight=n1g:8 " b "norm1.bias=n1b:8 " b "norm2.weight=n2g:8 " b "norm2.bias=n2b:8 "
#define BLOCK(b) NORMS(b) b "attn.qkv.weight=q,k,v:8,8 " b "attn.qkv.bias=qb,kb,vb:8 " b "attn.proj.weight=o:8,8 " \
    b "attn.proj.bias=ob:8 " b "mlp.fc1.weight=uw:12,8 " b "mlp.fc1.bias=ub:12 " b "mlp.fc2.weight=dw:8,12 " \
    b "mlp.fc2.bias=db:8 "

/* timm's plain ViT: patches of 4 in 16 x 16 pixels, width 8, two blocks. */
static int setup(void **state) {
    if (folder_setup(state)) return 1;
    Run *r = program_run(folder_path("."), "synth out=s/scenes.h5 synth.images=all synth.facts=false " SCENES);
    if (!r) return 0;                                        /* every test skips itself */
    if (folder_shell("mkdir vit && (echo image,caption; for f in s/*/*.png; do echo $f,a scene; done) > p.csv")) return 1;
    weights_text(folder_path("vit/model.safetensors"),
                 "cls_token=cls:1,1,8 pos_embed=pos:1,17,8 patch_embed.proj.weight=pw:8,3,4,4 patch_embed.proj.bias=pb:8 "
                 BLOCK("blocks.0.") BLOCK("blocks.1.") "norm.weight=fg:8 norm.bias=fb:8 head.weight=h:3,8 ");
    folder_write("vit/config.json", "{\"architecture\": \"vit_tiny\", \"model_args\": {\"num_heads\": 2}, \"pretrained_cfg\":"
                 " {\"input_size\": [3, 16, 16], \"crop_pct\": 1.0}}");
    return r->code;
}

#define EXTRACT "extract in=. extract.annotations=p.csv encoder=vit precision=f32 threads=1 "

static void says(void **state) {
    (void)state;
    folder_says(EXTRACT "out=a.h5", "ViT 8x2, 2 heads, patch 4, timm's names");
    folder_says("inspect a.h5", "17 tokens of 8");
    folder_says("inspect a.h5", "after the last block, normed");
    folder_says("verify a.h5", "0 problems");
    folder_says(EXTRACT "out=a.h5", "is there already");
    folder_refuses(EXTRACT "out=a.h5 tap=second_last", "exists and was made of something else");
    folder_says(EXTRACT "out=b.h5 dry_run=true", "30 pictures x 1 view x 17 tokens x 8 numbers as f16");
    assert_false(folder_has("b.h5"));
    folder_says(EXTRACT "out=b.h5 tokens=grid views=3 size=24", "30 pictures x 3 views x 36 tokens");
    folder_says("inspect b.h5", "after the last block, normed; patches");
}

static void refuses(void **state) {
    (void)state;
    folder_fails("extract in=. extract.annotations=p.csv encoder=s out=x.h5", "no weights here");
    folder_write("text", "not weights at all, but words");
    folder_fails("extract in=. extract.annotations=p.csv encoder=text out=x.h5", "text");
    assert_int_equal(folder_shell("mkdir cut && head -c 3000 vit/model.safetensors > cut/model.safetensors"), 0);
    folder_fails("extract in=. extract.annotations=p.csv encoder=cut out=x.h5", "cut/model.safetensors");
    assert_int_equal(folder_shell("cp -r vit odd && echo '{\"model_args\": {\"num_heads\": 3}}' > odd/config.json"), 0);
    folder_refuses("extract in=. extract.annotations=p.csv encoder=odd out=x.h5", "3 heads do not divide a width of 8");
    assert_false(folder_has("x.h5") || folder_has("x.h5.part"));
}

/* Twenty runs that are killed after a moment, then one to the end: the bytes of a run that nobody disturbed. */
static void killed(void **state) {
    (void)state;
    folder_must(EXTRACT "out=whole.h5 views=4 batch=8");
    assert_int_equal(folder_shell("n=0; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do"
                                  " $Q " EXTRACT "out=killed.h5 views=4 batch=8 >/dev/null 2>&1 & p=$!;"
                                  " sleep 0.0$((i * 7 % 10))$((i % 10)); kill -9 $p 2>/dev/null && n=$((n + 1));"
                                  " wait $p 2>/dev/null; done; echo $n killed >&2; true"), 0);
    folder_must(EXTRACT "out=killed.h5 views=4 batch=8");
    assert_int_equal(folder_shell("cmp whole.h5 killed.h5"), 0);
}

static void ranks(void **state) {
    (void)state;
    folder_must(EXTRACT "out=one shard_images=7");
    if (folder_shell("command -v mpirun >/dev/null && $Q doctor | grep -q MPI")) skip();
#define MPIRUN "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe "
    assert_int_equal(folder_shell(MPIRUN "-n 2 $Q " EXTRACT "out=two shard_images=7 >two.txt 2>&1"), 0);
    assert_int_equal(folder_shell("diff -r one two"), 0);
    assert_int_equal(folder_shell("test $(grep -c '30 images' two.txt) = 1"), 0);          /* one of them speaks */
    assert_int_not_equal(folder_shell(MPIRUN "-n 2 $Q " EXTRACT "out=two.h5 >two.txt 2>&1"), 0);
    assert_int_equal(folder_shell("grep -q 'two.h5 is one shard; name a folder' two.txt"), 0);
}

/* Numbers of all rows, whatever they are stored as; each image's first view, in the order of the set. */
static float *values(const char *file, int64_t *rows, int64_t *row) {
    Set *s;
    if (set_open(&s, folder_path(file)) != OK) fail_msg("%s", err_message());
    int64_t P = set_P(s), E = set_E(s), S = set_scales(s);
    *rows = set_images(s) * set_views(s), *row = P * E;
    void *raw = mem_new(set_row_bytes(s), 1);
    float *scale = mem_new((size_t)S, sizeof *scale), *x = mem_new((size_t)(*rows * P * E), sizeof *x);
    assert_true(raw && scale && x);
    for (int64_t r = 0; r < *rows; r++) {
        assert_int_equal(set_read_row(s, r, true, raw, scale), OK);
        dtype_to_f32(x + r * P * E, raw, set_dtype(s), (size_t)(P * E));
        for (int64_t k = 0; k < P * E && set_scaled(s); k++) x[r * P * E + k] *= scale[S == 1 ? 0 : k / E];
    }
    free(raw);
    free(scale);
    set_close(s);
    return x;
}

/* Rows of a picture: those that are asked for, out of all; two bytes less a number cost what they can. */
static void stores(void **state) {
    (void)state;
    static const struct { const char *type; double at_most; } all[] = {{"f16", 5e-4}, {"bf16", 4e-3}, {"e4m3", 0.04},
                                                                       {"i8", 0.01}};
    int64_t n, row, m, part;
    folder_must(EXTRACT "out=all.h5 dtype=f32");
    folder_must(EXTRACT "out=mean.h5 dtype=f32 tokens=mean");
    float *whole = values("all.h5", &n, &row), *mean = values("mean.h5", &m, &part);
    assert_true(n == 30 && m == n && row == 17 * 8 && part == 4 * 8);
    for (int64_t r = 0; r < n; r++)
        for (int k = 0; k < 32; k++) {                       /* cls, then 4 x 4 patches */
            const float *at = whole + r * row + (1 + k / 16 * 8 + k / 8 % 2 * 2) * 8 + k % 8;
            float want = (at[0] + at[8] + at[32] + at[40]) / 4;
            if (!(fabsf(mean[r * part + k] - want) < 1e-5f)) fail_msg("row %d, number %d", (int)r, k);
        }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char line[200];
        snprintf(line, sizeof line, EXTRACT "out=less.h5 overwrite=true tokens=mean dtype=%s", all[i].type);
        folder_must(line);
        float *less = values("less.h5", &m, &part);
        double away = distance(less, mean, n * part);
        if (!(m == n && away > all[i].at_most / 50 && away < all[i].at_most)) fail_msg("%s: %g", all[i].type, away);
        free(less);
    }
    free(whole);
    free(mean);
}

/* Of pictures of all kinds the broken ones are left out when asked; turned upright, one of them is another. */
static void kinds(void **state) {
    (void)state;
    char here[1024], line[1400];
    int64_t n, row;
    assert_non_null(getcwd(here, sizeof here));
    snprintf(line, sizeof line, "extract in=%s/tests/golden/images/files encoder=vit precision=f32 threads=1 out=kinds.h5",
             here);
    folder_fails(line, "broken_crc.png: broken PNG");
    strcat(line, " skip_bad=true");
    folder_says(line, "7 images left out; the first: ");
    float *as_is = values("kinds.h5", &n, &row);
    strcat(line, " exif=true overwrite=true");
    folder_must(line);
    float *upright = values("kinds.h5", &n, &row);
    folder_says("inspect kinds.h5", "upright by EXIF");
    assert_int_equal(n, 15);
    int others = 0;
    for (int64_t r = 0; r < n * row; r += row) others += memcmp(as_is + r, upright + r, (size_t)row * sizeof *as_is) != 0;
    assert_int_equal(others, 1);
    free(as_is);
    free(upright);
}

#define MODEL "model.layers=2 model.hidden=16 model.heads=2 model.queries=2 model.proj=8 model.cross_every=1 " \
    "model.positions=40 train.batch=4 train.steps=2 train.save_every=0 train.eval_every=0 device=cpu precision=f32 "

/* The model sees the same through a set as through the pictures it was made of. */
static void pictures(void **state) {
    (void)state;
    folder_must("extract in=s encoder=vit precision=f32 threads=1 out=s.h5 extract.dtype=f32");
    folder_must(EXTRACT "out=t.h5");
    folder_must("vocab s/scenes.h5 out=vocab.txt vocab.size=120");
    folder_must("pretrain data.train=t.h5 model.vocab=vocab.txt out=run threads=1 " MODEL);
    folder_must("caption run data.test=s.h5 data.test_split=test out=a.json min_length=0 device=cpu precision=f32");
    folder_must("caption run data.test=s/test encoder=vit out=b.json min_length=0 device=cpu precision=f32");
    assert_int_equal(folder_shell("grep caption a.json >a.txt; grep caption b.json | diff a.txt -"), 0);
    folder_must("caption run data.test=s/test/000001.png encoder=vit out=c.csv device=cpu");
    assert_int_equal(folder_shell("head -1 c.csv | grep -qx image,caption && grep -q '^\".*000001.png\",\"' c.csv"), 0);
    folder_must("embed run data.test=s/test encoder=vit out=e device=cpu");
    folder_refuses("caption run data.test=s/test device=cpu", "extract.encoder=FOLDER says where that is");
    folder_refuses("caption run data.test=s/test encoder=vit tap=last device=cpu", "another encoder (tap)");
    assert_int_equal(folder_shell("test -z \"$(find . -name 'qformer-*')\""), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says), cmocka_unit_test(refuses), cmocka_unit_test(killed), cmocka_unit_test(ranks),
        cmocka_unit_test(stores), cmocka_unit_test(kinds), cmocka_unit_test(pictures),
    };
    return cmocka_run_group_tests(tests, setup, folder_teardown);
}
