/* test_belongs: data sets and results know what they were made from: old output is never taken for new, and nothing
 * that is there is written over unasked. The program is $QFORMER_BIN, else build/qformer; without it all is skipped. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/kit/folder.h"

#define SCENES "synth.train=8 synth.val=2 synth.test=4 synth.size=16 synth.patch=8 synth.captions=2 threads=1 "

/* ---- data sets --------------------------------------------------------------------------------------------------- */

/* The same request keeps what is whole, without computing; any other is refused, or replaces it when told to. */
static void extraction(void **state) {
    (void)state;
    folder_must("synth out=pictures.h5 synth.images=all synth.facts=false " SCENES);
    folder_write("p.csv", "image,caption\ntrain/000000.png,first text\ntrain/000001.png,b\ntrain/000002.png,c\n");
#define EXTRACT "extract in=. extract.annotations=p.csv extract.size=16 extract.shard_images=1 out=set "
    folder_must(EXTRACT);
    folder_says(EXTRACT, "set: all is there already, made from the same files with the same options");
    folder_refuses(EXTRACT "extract.views=2", "set/set-00000.h5: exists and was made of something else (another number of images");
    folder_refuses(EXTRACT "extract.dtype=f32", "(another element type); overwrite=true replaces it, or name another out");
    folder_write("p.csv", "image,caption\ntrain/000000.png,corrected\ntrain/000001.png,b\ntrain/000002.png,c\n");
    folder_refuses(EXTRACT, "(other captions)");
    folder_says(EXTRACT "overwrite=true", "set/set-00000.h5: replaced (other captions; overwrite=true)");
    folder_says("inspect set", "corrected");
    folder_says("verify set", "0 problems");

    folder_write("p.csv", "image,caption\ntrain/000000.png,corrected\n");       /* two files of the larger set are left over */
    folder_refuses(EXTRACT, "set: holds set-00001.h5 of a larger set, now 1 file are to be written");
    folder_must(EXTRACT "overwrite=true");
    assert_false(folder_has("set/set-00001.h5") || folder_has("set/set-00002.h5"));
    folder_says("inspect set", ": 1 images, 1 captions, 1 shard,");

    folder_must("synth out=others/x.h5 synth.images=all synth.facts=false seed=7 " SCENES);
    assert_int_equal(rename(folder_path("others/train/000000.png"), folder_path("train/000000.png")), 0);
    folder_refuses(EXTRACT, "(the files that the features come from");             /* the same name, another picture */
    folder_refuses("extract in=. extract.annotations=p.csv extract.size=16 out=pictures.h5", "pictures.h5: exists and was made of");
}

static void put_npy(const char *name, float first, bool broken) {
    static const char start[] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2, 4), }";
    char file[128 + 6 * 8 * 4];
    float x[48];
    memset(file, ' ', 128);
    memcpy(file, start, sizeof start - 1);
    file[127] = '\n';
    for (int i = 0; i < 48; i++) x[i] = first + (float)i;
    if (broken) x[40] = (float)NAN;
    memcpy(file + 128, x, sizeof x);
    folder_put(name, file, sizeof file);
}

/* Four rows of one file, then the user computes all features anew: no row of the first may be in the set. */
static void import_after_a_failure(void **state) {
    (void)state;
    folder_write("ids.json", "[\"0\", \"1\", \"2\", \"3\", \"4\", \"5\"]");
    folder_write("n.csv", "image,caption\n0,a\n1,b\n2,c\n3,d\n4,e\n5,f\n");
    put_npy("f.npy", 1, true);
#define IMPORT "import f.npy import.ids=ids.json extract.annotations=n.csv out=imported.h5 "
    Run *r = folder_run(IMPORT);
    assert_int_equal(r->code, 1);
    assert_true(folder_has("imported.h5.part"));
    put_npy("f.npy", 1001, false);
    folder_says(IMPORT, "imported.h5.part was begun for something else (the files that the features come from, or their order, "
                 "are others): its 5 rows are given up, it begins anew");
    char bytes[1 << 16];
    FILE *f = fopen(folder_path("imported.h5"), "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    static const float old[2] = {1, 2}, fresh[2] = {1001, 1002};
    assert_null(memmem(bytes, n, old, sizeof old));
    assert_non_null(memmem(bytes, n, fresh, sizeof fresh));
    folder_says(IMPORT, "imported.h5: is there already, made from the same files");
    folder_write("ids.json", "[\"1\", \"0\", \"2\", \"3\", \"4\", \"5\"]");       /* the same rows for other images */
    folder_refuses(IMPORT, "imported.h5: exists and was made of something else");
}

/* The remedy that the failure names works, whatever the failure left behind. */
static void skipping_bad_pictures(void **state) {
    (void)state;
    folder_write("train/000002.png", "<html>404</html>");
    folder_write("p.csv", "image,caption\ntrain/000003.png,a\ntrain/000002.png,b\ntrain/000004.png,c\n");
    Run *r = folder_run("extract in=. extract.annotations=p.csv out=skip.h5 extract.size=16");
    assert_int_equal(r->code, 1);
    assert_true(folder_has("skip.h5.part"));
    folder_says("extract in=. extract.annotations=p.csv out=skip.h5 extract.size=16 extract.skip_bad=true", "skip.h5: 2 images");
}

/* What lies beside the drawn set is not written over either. */
static void drawn_sets(void **state) {
    (void)state;
    folder_must("synth out=drawn/a.h5 " SCENES);
    folder_refuses("synth out=drawn/b.h5 seed=7 " SCENES, "drawn/scenes.json: exists already; overwrite=true replaces it");
    assert_false(folder_has("drawn/b.h5.part"));
    folder_refuses("synth out=drawn/b.h5 seed=7 synth.facts=false " SCENES, "drawn/test/000000.png: exists already");
    folder_must("synth out=drawn/b.h5 seed=7 synth.facts=false synth.images=none " SCENES);
    folder_says("synth out=drawn/a.h5 " SCENES, "drawn/a.h5: is there already");
    folder_refuses("synth out=drawn/a.h5 seed=8 " SCENES, "drawn/a.h5: exists and was made of something else");
    folder_must("synth out=drawn/a.h5 seed=8 overwrite=true " SCENES);
}

/* ---- one rule for all commands ----------------------------------------------------------------------------------- */

#define TINY "model.layers=1 model.hidden=16 model.heads=2 model.queries=2 model.proj=8 model.cross_every=1 " \
             "model.positions=40 model.vocab=vocab.txt "
#define ON   "device=cpu precision=f32 threads=1 "

static void the_rule(void **state) {
    (void)state;
    static const struct { const char *line, *file; } commands[] = {
        {"vocab s.h5 vocab.size=120 out=vocab.txt ", "vocab.txt"},
        {"init model.image_width=208 out=w.safetensors " TINY, "w.safetensors"},
        {"pretrain data.train=s.h5 data.threads=1 train.batch=4 train.steps=2 train.eval_every=0 train.events=false out=run "
             TINY ON, NULL},
        {"export run out=hf ", "hf/model.safetensors"},
        {"export run export.form=lavis out=l.safetensors ", "l.safetensors"},
        {"retrieval run data.test=s.h5 out=r " ON, "r/retrieval.json"},
        {"caption run data.test=s.h5 out=r " ON, "r/captions.json"},
        {"match run data.test=s.h5 out=r " ON, "r/match.jsonl"},
        {"embed run data.test=s.h5 out=r " ON, "r/embeddings.h5"},
        {"classify run data.test=s.h5 classify.names=names out=r " ON, "r/classify.json"},
        {"score score.sim=sim.npy out=r ", "r/recall.json"},
        {"report run data.test=s.h5 out=r " ON, "r/report.html"},
    };
    static const char start[] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }";
    char line[600], sentence[200], file[132];
    memset(file, ' ', sizeof file);
    memcpy(file, start, sizeof start - 1);
    file[127] = '\n';
    folder_put("sim.npy", file, sizeof file);
    folder_write("names", "circle\nsquare\n");
    folder_must("synth out=s.h5 synth.images=none synth.facts=false " SCENES);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        folder_must(commands[i].line);
        if (!commands[i].file) continue;
        struct stat before, after;
        assert_int_equal(stat(folder_path(commands[i].file), &before), 0);
        snprintf(sentence, sizeof sentence, "%s: exists already; overwrite=true replaces it, or name another out",
                 commands[i].file);
        folder_refuses(commands[i].line, sentence);
        assert_int_equal(stat(folder_path(commands[i].file), &after), 0);
        assert_true(before.st_ino == after.st_ino && before.st_size == after.st_size);
        snprintf(line, sizeof line, "%soverwrite=true", commands[i].line);
        folder_must(line);
    }
    /* nor is anything computed for a file that cannot be */
    folder_fails("vocab s.h5 out=names/deep/v.txt vocab.size=100 dry_run=true", "names: Not a directory");
    if (geteuid() == 0) return;                              /* may write everywhere */
    assert_int_equal(folder_shell("mkdir shut && chmod 555 shut"), 0);
    folder_fails("vocab s.h5 out=shut/v.txt vocab.size=100 dry_run=true", "shut: Permission denied");
}

/* Nothing may be written over what the same command reads, whatever it is told; nor over a run,
 * nor in a device's place. */
static void what_is_read_stays(void **state) {
    (void)state;
    folder_write("text.csv", "image,caption\na.png,a red circle\nb.png,a blue square\n");
    folder_refuses("vocab extract.annotations=text.csv out=./text.csv vocab.size=30 overwrite=true",
                   "out=./text.csv is the file that extract.annotations names, which would be lost; name another out");
    folder_refuses("embed run data.test=s.h5 out=s.h5 overwrite=true " ON, "out=s.h5 is the file that data.test names");
    folder_says("verify s.h5", "0 problems");
    folder_refuses("export run/step_000002 out=run/step_000002 overwrite=true", "is the folder of a run, whose weights");
    folder_refuses("export run out=run overwrite=true", "out=run is the folder of a run");
    folder_refuses("pretrain data.train=s.h5 out=text.csv " TINY ON, "out=text.csv is a file, a run is a folder");

    folder_refuses("repack s.h5 out=x.hdf5", "out=x.hdf5 would become a folder of that name; name a folder, or a file that ends in .h5");
    folder_refuses("match run data.test=s.h5 out=m.csv " ON, "or a file that ends in .jsonl");
    folder_refuses("export run out=hf.safetensors", "out=hf.safetensors would become a folder");
    folder_refuses("export run export.form=lavis out=l.pth", "what is written is safetensors, no file of torch.save");
    folder_must("match run data.test=s.h5 out=m.csv/ " ON);                      /* asked for */
    folder_must("report run data.test=s.h5 out=r/second.html " ON);
    assert_true(folder_has("r/second.json"));
    folder_must("vocab extract.annotations=text.csv out=/dev/null vocab.size=30");
    folder_says("vocab extract.annotations=text.csv out=/dev/stdout vocab.size=30", "[PAD]");
    assert_int_equal(folder_shell("mkfifo pipe; cat pipe > copy & $Q vocab extract.annotations=text.csv out=pipe vocab.size=30; wait; "
                                  "test -p pipe -a -s copy"), 0);
    folder_must("repack s.h5 out=not/yet/r.h5");
    folder_must("caption run data.test=s.h5 caption.references=nor/this/gt.json " ON);
}

/* dry_run=true writes nothing, whatever the command. */
static void dry_runs(void **state) {
    (void)state;
    folder_must("init model.image_width=208 dry_run=true out=d.safetensors " TINY);
    folder_must("export run dry_run=true out=dhf");
    folder_must("score score.sim=sim.npy dry_run=true out=dscore");
    folder_must("vocab s.h5 vocab.size=120 dry_run=true out=dvocab.txt");
    assert_false(folder_has("d.safetensors") || folder_has("dhf") || folder_has("dscore") || folder_has("dvocab.txt"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extraction), cmocka_unit_test(import_after_a_failure), cmocka_unit_test(skipping_bad_pictures),
        cmocka_unit_test(drawn_sets), cmocka_unit_test(the_rule),               cmocka_unit_test(what_is_read_stays),
        cmocka_unit_test(dry_runs),
    };
    return cmocka_run_group_tests(tests, folder_setup, folder_teardown);
}
