/* test_newcomers: what people type first, and what they are told: sentences that say what to type next. */
#include <string.h>

#include "tests/kit/folder.h"

#define SIZES "model.layers=1 model.hidden=16 model.queries=2 model.proj=8 model.cross_every=1 model.positions=40 "
#define CPU   "device=cpu precision=f32 threads=1 "
#define TINY  SIZES "model.heads=2 model.vocab=vocab.txt data.train=s.h5 data.threads=1 train.eval_every=0 " CPU

static int setup(void **state) {
    if (folder_setup(state)) return 1;
    if (!program_path()) return 0;
    return folder_shell("$Q synth out=s.h5 synth.train=24 synth.val=4 synth.test=8 synth.captions=2 synth.size=16 "
                        "synth.patch=8 synth.images=none synth.facts=false threads=1 && "
                        "$Q vocab s.h5 out=vocab.txt vocab.size=120 && "
                        "$Q pretrain out=run train.steps=4 train.batch=8 " TINY "> log 2>&1");
}

static void too_small_for_a_batch(void **state) {
    (void)state;
    folder_refuses("pretrain out=x " TINY, "has 48 pairs, which is less than one batch of 128; train.batch=48 is the largest");
    folder_must("pretrain out=x train.batch=48 train.steps=1 " TINY);
    folder_refuses("pretrain out=x data.train_split=dev " TINY, "s.h5: split \"dev\" has no image with a caption; there are "
                   "\"train\", \"val\", \"test\"");
    folder_refuses("retrieval run data.test=s.h5 data.test_split=dev " CPU, "there are \"train\", \"val\", \"test\"");
}

static void classes_nobody_knows(void **state) {
    (void)state;
    folder_write("names", "circle\nsquare\n");
    folder_says("classify run data.test=s.h5 classify.names=names " CPU, "no accuracy: no image's class is known; name a file");
    folder_write("names.json", "[\"circle\", \"square\"]");
    folder_fails("classify run data.test=s.h5 classify.names=names.json " CPU, "names.json: is JSON; one name a line is wanted: python3");
    folder_fails("retrieval openai/clip-vit-base-patch32 data.test=s.h5 " CPU, "nothing is downloaded here: hf download");
    folder_refuses("caption run data.test=s.h5 caption.min_length=9 caption.max_length=5 " CPU, "caption.min_length=9 is above");
    folder_write("gt0.json", "{\"images\": [{\"id\": 1}], \"annotations\": []}");
    folder_write("table.csv", "image,caption\n1,red\n");
    folder_refuses("score table.csv gt=gt0.json", "table.csv: a table; captions are scored from JSON");
    folder_fails("extract in=https://x/y.tar out=o.h5", "addresses are not fetched, img2dataset does that");
}

static void rare_characters(void **state) {
    (void)state;
    folder_silent("vocab s.h5 out=v1.txt vocab.size=120", "no piece");
    folder_says("vocab s.h5 out=v2.txt vocab.size=16", "have no piece: their words become [UNK]; a larger vocab.size");
}

/* A model that learned short captions is not made to write long ones. */
static void shortest_captions(void **state) {
    (void)state;
    folder_write("p.csv", "image,caption\ntest/000000.png,a circle\ntest/000001.png,a circle\ntest/000002.png,a circle\n"
                          "test/000003.png,a circle\n");
    assert_int_equal(folder_shell("$Q synth out=d/p.h5 synth.train=1 synth.val=1 synth.test=4 synth.size=16 synth.patch=8 "
                                  "threads=1 > log && $Q extract in=d extract.annotations=p.csv out=short.h5 extract.size=16 "
                                  "> log && $Q pretrain out=short train.steps=60 train.batch=4 optim.lr=1e-2 " SIZES
                                  "model.heads=2 model.vocab=vocab.txt data.train=short.h5 data.threads=1 train.eval_every=0 "
                                  CPU "> log && $Q caption short data.test=short.h5 data.test_split=train out=c.json " CPU
                                  "> log && grep -q '\"a circle\"' c.json"), 0);
}

/* A plan is of the data and the weights that the configuration names. */
static void plans(void **state) {
    (void)state;
    folder_says("plan " TINY, "images of 4 tokens of 208");
    folder_says("plan data.train=s.h5 train.init=run", "L 1, C 16, H 2, F 64, Q 2, Z 8, V 121; images of 4 tokens of 208");
    folder_says("plan model.layers=1 data.train=absent.h5", "data.train=absent.h5 cannot be opened here: images of 257 tokens");
    folder_silent("plan model.layers=1", "taken for granted (model");
    /* 257 tokens of 1408 numbers of two bytes */
    folder_says("plan model.layers=1", "disk      724 kB a picture in f16: ");
}

/* ---- score ------------------------------------------------------------------------------------------------------- */

static void references_by_id(void **state) {
    (void)state;
    folder_write("gt.json", "{\"images\":[{\"id\":1},{\"id\":2}],\"annotations\":["
                            "{\"image_id\":1,\"id\":1,\"caption\":\"a red circle\"},"
                            "{\"image_id\":1,\"id\":2,\"caption\":\"a round thing\"},"
                            "{\"image_id\":2,\"id\":3,\"caption\":\"two blue dogs run\"}]}");
    folder_write("res.json", "[{\"image_id\":1,\"caption\":\"a red circle\"},{\"image_id\":2,\"caption\":\"a dog\"}]");
    folder_write("gt2.json", "{\"1\": [\"a red circle\", {\"caption\": \"a round thing\"}], \"2\": \"two blue dogs run\"}");
    folder_write("res2.json", "{\"2\": [\"a dog\"], \"1\": \"a red circle\"}");
    folder_must("score res.json gt=gt.json out=one");
    folder_must("score res2.json gt=gt2.json out=two");
    folder_must("score res.json gt=gt2.json out=three");
    assert_int_equal(folder_shell("cmp one/scores.json two/scores.json && cmp one/scores.json three/scores.json"), 0);
    folder_write("bad.json", "{\"1\": [\"a\", 3], \"2\": \"b\"}");
    folder_fails("score res.json gt=bad.json", "bad.json: image 1: a caption or a list of captions is wanted");
    folder_write("bad.json", "{\"1\": [\"a\", \"b\"], \"2\": \"b\"}");
    folder_fails("score bad.json gt=gt.json", "bad.json: image 1 has 2 captions, one is wanted");
    folder_write("bad.json", "{\"7\": \"a\"}");
    folder_fails("score bad.json gt=gt.json", "bad.json: image 7 is not among the 2 images of gt.json");
}

/* A part of the ground truth scores as that part alone would. */
static void a_subset(void **state) {
    (void)state;
    folder_write("some.json", "[{\"image_id\":2,\"caption\":\"a dog\"},{\"image_id\":3,\"caption\":\"a tree\"}]");
    folder_write("all.json", "{\"1\": [\"a red circle\"], \"2\": [\"two blue dogs run\"], \"3\": [\"a tree\", \"an oak\"]}");
    folder_write("part.json", "{\"2\": [\"two blue dogs run\"], \"3\": [\"a tree\", \"an oak\"]}");
    folder_fails("score some.json gt=all.json", "1 of the 3 images of all.json have no caption, the first of them is image 1; "
                 "score.subset=true scores the others");
    folder_must("score some.json gt=all.json score.subset=true out=s1");
    folder_must("score some.json gt=part.json out=s2");
    assert_int_equal(folder_shell("cmp s1/scores.json s2/scores.json"), 0);
    folder_write("one.json", "[{\"image_id\":3,\"caption\":\"a tree\"}]");
    folder_says("score one.json gt=all.json score.subset=true", "CIDEr of one image is always 0");
    folder_silent("score some.json gt=part.json", "always 0");
    folder_write("none.json", "[]");
    folder_fails("score none.json gt=all.json score.subset=true", "3 of the 3 images");
}

/* nocaps: each domain as if it were all there is. */
static void domains(void **state) {
    (void)state;
    folder_write("nocaps.json",
                 "{\"images\":[{\"id\":1,\"domain\":\"in-domain\"},{\"id\":2,\"domain\":\"out-domain\"},"
                 "{\"id\":3,\"domain\":\"out-domain\"}],\"annotations\":["
                 "{\"image_id\":1,\"id\":1,\"caption\":\"a red circle\"},{\"image_id\":2,\"id\":2,\"caption\":\"two blue dogs run\"},"
                 "{\"image_id\":3,\"id\":3,\"caption\":\"a tree\"},{\"image_id\":3,\"id\":4,\"caption\":\"an oak\"}]}");
    folder_write("n.json", "[{\"image_id\":1,\"caption\":\"a circle\"},{\"image_id\":2,\"caption\":\"a dog\"},"
                           "{\"image_id\":3,\"caption\":\"a tree\"}]");
    folder_says("score n.json gt=nocaps.json out=n", "in-domain         1 images");
    assert_int_equal(folder_shell("$Q score some.json gt=part.json out=n2 > log && "
                                  "grep -A9 out-domain n/scores.json | grep CIDEr | tr -d ' ,' > a && "
                                  "grep -A9 corpus n2/scores.json | grep CIDEr | tr -d ' ,' > b && cmp a b"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_small_for_a_batch), cmocka_unit_test(classes_nobody_knows), cmocka_unit_test(rare_characters),
        cmocka_unit_test(shortest_captions),     cmocka_unit_test(references_by_id),     cmocka_unit_test(a_subset),
        cmocka_unit_test(domains),               cmocka_unit_test(plans),
    };
    return cmocka_run_group_tests(tests, setup, folder_teardown);
}
