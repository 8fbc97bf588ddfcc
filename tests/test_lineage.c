/* test_lineage: a run knows what it belongs to: its vocabulary, data, encoder and sizes; it says where it starts, what
 * is another than before, and refuses what cannot be. Two runs in one folder know of each other. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "data/format/safetensors.h"
#include "kernels/base/lockfile.h"
#include "kernels/base/mem.h"
#include "tests/kit/folder.h"

#define SIZES "model.layers=1 model.hidden=16 model.queries=2 model.proj=8 model.cross_every=1 model.positions=40 "
#define CPU   "device=cpu precision=f32 threads=1 "
#define TRAIN "data.train=s.h5 data.threads=1 train.batch=8 train.eval_every=0 train.events=false optim.warmup_steps=0 " CPU
#define TINY  SIZES "model.heads=2 model.vocab=vocab.txt " TRAIN
#define DRAW  "synth.val=4 synth.test=8 synth.images=none synth.facts=false threads=1 "

/* s.h5, vocab.txt, and `run` with 4 steps. */
static int setup(void **state) {
    if (folder_setup(state)) return 1;
    if (!program_path()) return 0;
    return folder_shell("$Q synth out=s.h5 synth.train=24 synth.captions=2 synth.size=16 synth.patch=8 " DRAW "&& "
                        "$Q vocab s.h5 out=vocab.txt vocab.size=120 && "
                        "$Q pretrain out=run train.steps=4 optim.lr=2e-3 " TINY "> log 2>&1");
}

/* ---- vocabulary, heads, encoder ---------------------------------------------------------------------------------- */

/* The run has a vocabulary of its own: it can be moved, and the file it came from can be replaced. */
static void own_vocabulary(void **state) {
    (void)state;
    assert_int_equal(folder_shell("cmp vocab.txt run/vocab.txt && $Q match run data.test=s.h5 out=a " CPU "> log && "
                                  "(head -5 vocab.txt; tail -n +6 vocab.txt | tac) > other.txt"), 0);
    folder_refuses("match run data.test=s.h5 model.vocab=other.txt " CPU, "other.txt is another vocabulary");
    folder_refuses("retrieval run data.test=s.h5 model.vocab=other.txt " CPU, "than that of run, which is run/vocab.txt");
    folder_refuses("finetune run out=ft train.steps=1 model.vocab=other.txt " TRAIN, "another vocabulary (run/vocab.txt)");
    folder_refuses("pretrain out=run train.steps=8 " SIZES "model.heads=2 model.vocab=other.txt " TRAIN,
                   "was made with another vocabulary (run/vocab.txt) than model.vocab=other.txt");
    assert_int_equal(folder_shell("mkdir away && cp -r run away/moved && mv vocab.txt hidden.txt && "
                                  "cd away && $Q match moved data.test=../s.h5 out=b " CPU "> log && "
                                  "cmp ../a/match.jsonl b/match.jsonl; rc=$?; cd ..; mv hidden.txt vocab.txt; exit $rc"), 0);
    assert_int_equal(folder_shell("cp other.txt away/moved/vocab.txt"), 0);
    folder_refuses("match away/moved data.test=s.h5 " CPU, "is not the vocabulary (any more) that away/moved was trained");
}

static void own_heads(void **state) {
    (void)state;
    folder_refuses("match run data.test=s.h5 model.heads=4 " CPU, "model.heads=4, but run has 2 heads");
    folder_refuses("classify run data.test=s.h5 model.heads=1 classify.names=vocab.txt " CPU, "but run has 2 heads");
    folder_refuses("finetune run out=ft train.steps=1 model.heads=4 " TRAIN, "train.init=run has 2 heads, model.heads=4");
    folder_must("match run data.test=s.h5 model.heads=2 " CPU);
    folder_must("match run/step_000004/model.safetensors data.test=s.h5 " CPU);          /* its state.json is beside it */
    folder_refuses("match run/step_000004/model.safetensors data.test=s.h5 model.heads=4 " CPU, "but run has 2 heads");
    folder_fails("match run/step_000004/optimizer.safetensors data.test=s.h5 " CPU, "not a Q-Former");
}

/* As wide, from another encoder. */
static void own_encoder(void **state) {
    (void)state;
    folder_must("synth out=t.h5 synth.train=24 synth.captions=2 synth.size=24 synth.patch=8 " DRAW);
    folder_refuses("match run data.test=t.h5 " CPU, "t.h5 has features of \"patches8-24\"");
    folder_refuses("retrieval run data.test=t.h5 " CPU, "run was trained on those of \"patches8-16\"");
    folder_refuses("pretrain out=run train.steps=8 data.train=t.h5 data.threads=1 train.batch=8 train.eval_every=0 " SIZES
                   "model.heads=2 model.vocab=vocab.txt " CPU, "another encoder");
    folder_says("finetune run out=ft1 train.steps=1 data.train=t.h5 data.threads=1 train.batch=8 train.eval_every=0 " CPU,
                "warning: t.h5 has features of \"patches8-24\"");
}

/* ---- where a run starts ------------------------------------------------------------------------------------------ */

static void it_says_where_it_starts(void **state) {
    (void)state;
    folder_says("pretrain out=fresh train.steps=1 seed=9 " TINY, "begins    with fresh weights, seed 9");
    folder_says("finetune run out=tuned train.steps=1 " TRAIN, "begins    with the weights of run: 51 of 51 tensors");
    Run *r = folder_run("pretrain out=run train.steps=6 optim.lr=1e-2 loss.itm=0.5 train.log_every=3 " TINY);
    assert_int_equal(r->code, 0);
    assert_non_null(strstr(r->out, "goes on   from run/step_000004: 4 of 6 steps are done"));
    assert_non_null(strstr(r->out, "  optim.lr was 0.002, now 0.01"));
    assert_non_null(strstr(r->out, "  loss.itm was 1, now 0.5"));
    assert_non_null(strstr(r->out, "  train.steps was 4, now 6"));
    assert_null(strstr(r->out, "log_every"));               /* changes no number */
    assert_null(strstr(r->out, "model."));
    folder_refuses("pretrain out=run train.steps=8 model.ffn=32 " TINY, "was made with model.ffn=0, now it is 32");
    folder_silent("pretrain out=run train.steps=6 optim.lr=1e-2 loss.itm=0.5 model.ffn=64 " TINY, "refused");
    folder_refuses("pretrain out=run train.steps=8 seed=1 " TINY, "was made with seed=42, now it is 1");
}

/* A run by its best or its newest step; a running average that begins later; weights that are none. */
static void steps_and_weights(void **state) {
    (void)state;
    assert_int_equal(folder_shell("$Q match run data.test=s.h5 out=x1 " CPU "> log && $Q match run/latest data.test=s.h5 out=x2 " CPU
                                  "> log && cmp x1/match.jsonl x2/match.jsonl"), 0);
    folder_fails("match run/log.jsonl data.test=s.h5 " CPU, "run/log.jsonl: is a text, not a safetensors file");
    folder_fails("match run/config.json data.test=s.h5 " CPU, "cannot be opened");
    assert_int_equal(folder_shell("mkdir fsdp && : > fsdp/.metadata"), 0);
    folder_fails("match fsdp data.test=s.h5 " CPU, "is a sharded checkpoint of PyTorch (FSDP); python3 -m torch.distributed");
    folder_must("pretrain out=later train.steps=2 " TINY);
    folder_says("pretrain out=later train.steps=4 optim.ema=0.9 " TINY, "optim.ema was 0, now 0.9");
    assert_true(folder_has("later/step_000004/ema.safetensors"));

    StFile *f;
    float nan[2 * 16] = {__builtin_nanf("")};
    int8_t whole[2 * 16] = {1};
    folder_must("init model.image_width=208 out=ok.safetensors " SIZES "model.heads=2 model.vocab=vocab.txt");
    assert_int_equal(st_open(&f, folder_path("ok.safetensors")), OK);
    size_t n = st_count(f);
    StTensor *t = mem_new(n, sizeof *t);
    assert_non_null(t);
    for (int kind = 0; kind < 2; kind++) {
        for (size_t i = 0; i < n; i++) {
            t[i] = *st_at(f, i);
            if (strcmp(t[i].name, "query_tokens")) continue;
            t[i].data = kind ? (void *)whole : (void *)nan;
            if (kind) t[i].dtype = DT_I8, t[i].nbytes = sizeof whole;
        }
        assert_int_equal(st_write(folder_path(kind ? "whole.safetensors" : "nan.safetensors"), t, n, NULL, 0), OK);
    }
    free(t);
    st_close(f);
#define USE " data.test=s.h5 model.vocab=vocab.txt model.heads=2 " CPU
    folder_fails("match nan.safetensors" USE, "query_tokens holds a number that is not finite");
    folder_fails("match whole.safetensors" USE, "query_tokens is i8: quantised weights");
}

static void weights_asked_for_are_not_passed_over(void **state) {
    (void)state;
    folder_must("init model.image_width=208 seed=9 out=w.safetensors " SIZES "model.heads=2 model.vocab=vocab.txt");
    folder_refuses("finetune out=run train.steps=9 train.init=w.safetensors " TINY,
                   "run holds step 6 of a run that began from fresh weights, not from train.init=w.safetensors");
    folder_must("finetune w.safetensors out=ft2 train.steps=2 " TINY);
    folder_says("finetune w.safetensors out=ft2 train.steps=4 " TINY, "goes on   from ft2/step_000002");     /* its own */
    folder_refuses("pretrain out=ft2 train.resume=false train.steps=1 " TINY, "ft2 holds step 4 of a run already");
    folder_says("pretrain out=ft2 train.resume=false overwrite=true train.steps=1 " TINY, "the steps of another run are");
    assert_true(folder_has("ft2/step_000001") && !folder_has("ft2/step_000004"));
}

static void other_data_is_said(void **state) {
    (void)state;
    folder_must("pretrain out=data train.steps=2 " TINY);
    folder_silent("pretrain out=data train.steps=3 " TINY, "another set");
    assert_int_equal(folder_shell("cp s.h5 kept.h5 && $Q synth out=n.h5 synth.train=16 synth.captions=1 synth.size=16 "
                                  "synth.patch=8 seed=7 " DRAW "&& mv n.h5 s.h5"), 0);
    folder_says("pretrain out=data train.steps=4 " TINY,
                "warning: data.train is another set than this run has seen so far: it had 72 captions of 36 images (s.h5), "
                "now 28 of 28 (s.h5)");
    assert_int_equal(folder_shell("mv kept.h5 s.h5"), 0);
}

/* ---- foreign weights --------------------------------------------------------------------------------------------- */

/* The run's weights under other names; prefix NULL: under names that say nothing. */
static void rename_weights(const char *to, const char *prefix) {
    StFile *f = NULL;
    StTensor t[128];
    char names[128][200];
    assert_int_equal(st_open(&f, folder_path("run/step_000004/model.safetensors")), OK);
    size_t n = st_count(f);
    assert_true(n > 0 && n <= 128);
    for (size_t i = 0; i < n; i++) {
        t[i] = *st_at(f, i);
        if (prefix) snprintf(names[i], sizeof names[i], "%s%s", prefix, t[i].name);
        else snprintf(names[i], sizeof names[i], "tensor_%zu", i);
        t[i].name = names[i];
    }
    assert_int_equal(st_write(folder_path(to), t, n, NULL, 0), OK);
    st_close(f);
}

static void prefixes_come_off(void **state) {
    (void)state;
    static const char *const prefixes[] = {"module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.",
                                           "state_dict.model.", "net.blip2."};
    char line[600], sentence[100];
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        rename_weights("p.safetensors", prefixes[i]);
        snprintf(line, sizeof line, "init p.safetensors model.image_width=208 out=q.safetensors overwrite=true " SIZES
                 "model.heads=2 model.vocab=vocab.txt");
        snprintf(sentence, sizeof sentence, "'%s' comes off its names", prefixes[i]);
        folder_says(line, sentence);
        folder_says(line, "51 of 51 tensors come from it");
        assert_int_equal(folder_shell("cmp q.safetensors plain.safetensors 2> /dev/null || "
                                      "{ [ ! -e plain.safetensors ] && cp q.safetensors plain.safetensors; }"), 0);
    }
    rename_weights("p.safetensors", "");
    folder_silent("init p.safetensors model.image_width=208 out=q.safetensors overwrite=true " SIZES
                  "model.heads=2 model.vocab=vocab.txt", "comes off");
    rename_weights("p.safetensors", NULL);
    folder_fails("finetune p.safetensors out=ft3 train.steps=1 " TINY,
                 "p.safetensors: none of its 51 tensors is one of a Q-Former or BERT");
    assert_false(folder_has("ft3/step_000001"));
}

/* Rows are words: the vocabulary of a BERT of another size has other ones in them. */
static void words_of_another_vocabulary(void **state) {
    (void)state;
    float zeros[200 * 16] = {0};
    char sentence[120];
    int words = 0;
    FILE *f = fopen(folder_path("vocab.txt"), "r");
    for (int c; (c = fgetc(f)) != EOF;) words += c == '\n';
    fclose(f);
    for (int rows = 40; rows <= words + 2; rows = rows < words - 1 ? words - 1 : rows + 1) {
        StTensor t = {.name = "bert.embeddings.word_embeddings.weight", .dtype = DT_F32, .ndim = 2, .shape = {rows, 16},
                      .data = zeros, .nbytes = (size_t)rows * 64};
        assert_int_equal(st_write(folder_path("bert.safetensors"), &t, 1, NULL, 0), OK);
        static const char line[] = "init bert.safetensors model.image_width=208 out=b.safetensors overwrite=true " SIZES
                                   "model.heads=2 model.vocab=vocab.txt";
        snprintf(sentence, sizeof sentence, "has %d rows, the vocabulary (model.vocab) %d word pieces with [DEC]", rows,
                 words + 1);
        if (rows == words) folder_says(line, "of the words [DEC] alone starts fresh");
        else if (rows == words + 1) folder_silent(line, "[DEC]");
        else folder_fails(line, sentence);
    }
}

/* What lies beside published weights is theirs: their vocabulary, as far as it can be read. */
static void a_vocabulary_beside_weights(void **state) {
    (void)state;
    static const char line[] = "init bert model.image_width=208 out=bb.safetensors overwrite=true " SIZES
                               "model.heads=2 model.vocab=";
    char text[400];
    assert_int_equal(folder_shell("mkdir -p bert && cp plain.safetensors bert/model.safetensors && cp vocab.txt bert/ && "
                                  "echo '{\"version\": 7}' > bert/tokenizer.json"), 0);
    snprintf(text, sizeof text, "%svocab.txt", line);
    folder_says(text, "51 of 51 tensors come from it");
    snprintf(text, sizeof text, "%sother.txt", line);
    folder_refuses(text, "bert was trained with another vocabulary (bert/vocab.txt) than model.vocab=other.txt");
    assert_int_equal(folder_shell("rm bert/vocab.txt"), 0);  /* the other file says nothing that is known */
    snprintf(text, sizeof text, "%svocab.txt", line);
    folder_says(text, "51 of 51 tensors come from it");
}

/* Transformers' retrieval class has no head that writes: what needs none works all the same. */
static void without_a_text_head(void **state) {
    (void)state;
    folder_must("export run out=hf");
    folder_must("retrieval hf data.test=s.h5 out=hfr " CPU);      /* heads from config.json, the vocabulary beside it */
    assert_true(folder_has("hf/tokenizer_config.json"));
    folder_must("match hf data.test=s.h5 model.vocab=vocab.txt " CPU);
    folder_must("embed hf data.test=s.h5 out=e.h5 model.vocab=vocab.txt " CPU);
    folder_write("names", "circle\nsquare\n");
    folder_must("classify hf data.test=s.h5 classify.names=names model.vocab=vocab.txt " CPU);
    folder_fails("caption hf data.test=s.h5 model.vocab=vocab.txt " CPU, "has no head that writes captions");
    folder_refuses("match hf data.test=s.h5 model.vocab=vocab.txt model.heads=4 " CPU, "has 2 heads");
    folder_says("finetune hf out=hft train.steps=1 model.vocab=vocab.txt " TRAIN, "45 of 51 tensors come from it");
    assert_int_equal(folder_shell("$Q retrieval run data.test=s.h5 out=own " CPU "> log && "
                                  "grep -o '\"txt_mean_rank\": *[0-9.]*' own/retrieval.json > o1 && "
                                  "grep -o '\"txt_mean_rank\": *[0-9.]*' hfr/retrieval.json > o2 && cmp o1 o2"), 0);
}

/* ---- what a run will learn from ---------------------------------------------------------------------------------- */

/* Chinese captions under an English vocabulary, captions that are cut. */
static void captions_are_looked_at(void **state) {
    (void)state;
    folder_write("same.csv", "image,caption\ntest/000000,a red circle\ntest/000001,a red circle\n"
                 "test/000002,a red circle\ntest/000003,a blue circle\n");
    folder_write("one.csv", "image,caption\ntest/000000,a red circle\ntest/000000,a circle\ntest/000000,red\ntest/000000,round\n");
    folder_must("synth out=few/p.h5 synth.train=1 synth.captions=1 synth.size=16 synth.patch=8 synth.val=1 synth.test=4 threads=1");
    folder_must("extract in=few extract.annotations=train:same.csv extract.size=16 out=same.h5");
    folder_must("extract in=few extract.annotations=train:one.csv extract.size=16 out=one.h5");
    folder_must("extract in=few extract.annotations=val:same.csv extract.size=16 out=sameval.h5");
#define LITTLE SIZES "model.heads=2 model.vocab=vocab.txt data.threads=1 train.batch=2 train.events=false train.steps=1 " CPU
    folder_says("pretrain data.train=same.h5 out=t1 train.eval_every=0 " LITTLE, "50 % of the captions are");
    folder_says("pretrain data.train=one.h5 out=t2 train.eval_every=0 " LITTLE, "all captions are of one image");
    folder_says("pretrain data.train=same.h5 data.val=sameval.h5 out=t3 train.eval_every=1 " LITTLE,
                "4 of the 4 images of data.val are trained on as well (test/000000)");
    folder_says("pretrain data.train=s.h5 out=t4 train.eval_every=0 optim.lr=1e-6 train.patience=2 " LITTLE, "the rate rises");
    folder_says("pretrain data.train=s.h5 out=t5 train.eval_every=0 train.patience=2 " LITTLE, "counts evaluations, and there are none");
    folder_must("extract in=few extract.size=16 out=bare.h5");
    folder_refuses("pretrain data.train=bare.h5 data.train_split=test out=t6 " LITTLE,
                   "none of the images of split \"test\" has a caption");
    folder_says("pretrain out=l1 train.steps=1 " TINY, "0 % of them [UNK]; 8.33 % of captions cut at 32");
    folder_silent("pretrain out=l2 train.steps=1 " TINY, "warning");
    folder_says("pretrain out=l3 train.steps=1 data.max_tokens=6 " TINY, "lose their end");
    assert_int_equal(folder_shell("$Q synth out=pics/p.h5 synth.train=24 synth.val=1 synth.test=1 synth.size=16 synth.patch=8 "
                                  "synth.images=all threads=1 > log && (echo image,caption; for i in $(seq -w 0 23); do "
                                  "echo \"train/0000$i.png,红色的圆形图画\"; done) > zh.csv && "
                                  "$Q extract in=pics extract.annotations=zh.csv out=zh.h5 extract.size=16 > log"), 0);
    folder_says("pretrain out=l4 train.steps=1 data.train=zh.h5 data.threads=1 train.batch=8 train.eval_every=0 " SIZES
                "model.heads=2 model.vocab=vocab.txt " CPU, "warning: 100 % of the words are [UNK], unknown to vocab.txt");
}

static void warm_up(void **state) {
    (void)state;
    folder_says("pretrain out=w1 train.steps=20 optim.warmup_steps=2k dry_run=true data.train=s.h5 train.batch=8 " SIZES
                "model.heads=2 model.vocab=vocab.txt " CPU, "warning: the warm-up takes 2000 steps, the run has 20");
    folder_silent("pretrain out=w1 train.steps=20 optim.warmup_steps=0.5 dry_run=true data.train=s.h5 train.batch=8 " SIZES
                  "model.heads=2 model.vocab=vocab.txt " CPU, "warning");
    folder_says("pretrain out=w2 train.steps=20 optim.warmup_steps=0.5 optim.warmup_lr=0 optim.lr=1e-3 train.log_every=1 "
                "optim.schedule=constant data.train=s.h5 data.threads=1 train.batch=8 train.eval_every=0 " SIZES
                "model.heads=2 model.vocab=vocab.txt " CPU, "lr 5.00e-04");             /* step 6: half of 10 steps */
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static void inspecting(void **state) {
    (void)state;
    assert_int_equal(folder_shell("mkdir -p two && cp s.h5 two/a.h5 && cp s.h5 run/s.h5"), 0);
    folder_says("inspect two", "set       two: 36 images");
    folder_says("inspect run", "weights   run/step_0000");  /* a run may hold shards */
    folder_says("inspect run", "trained   on s.h5 (72 captions of 36 images), features of patches8-16");
    folder_fails("retrieval s.h5 data.test=s.h5 " CPU, "s.h5: an HDF5 file, so a data set and not weights");
    folder_fails("finetune s.h5 out=ft9 " TRAIN, "s.h5: an HDF5 file, so a data set and not weights");
}

/* ---- two that do not know of each other -------------------------------------------------------------------------- */

static void one_run_a_folder(void **state) {
    (void)state;
    if (!program_path()) skip();
    LockFile *l = NULL, *second = NULL;
    char name[64], who[64];
    assert_int_equal(folder_shell("mkdir -p busy"), 0);
    assert_int_equal(lockfile_take(&l, folder_path("busy/lock"), "out=busy"), OK);
    snprintf(who, sizeof who, "out=busy is in use by process %ld on ", (long)getpid());
    folder_refuses("pretrain out=busy train.steps=1 " TINY, who);
    assert_int_equal(gethostname(name, sizeof name), 0);
    folder_refuses("pretrain out=busy train.steps=1 " TINY, name);
    assert_int_equal(lockfile_take(&second, folder_path("busy/lock"), "it"), ERR_USAGE);
    lockfile_drop(l);
    assert_false(folder_has("busy/lock"));
    folder_write("busy/lock", "process 1 on elsewhere\n");  /* left by one that is gone: nobody holds it */
    folder_must("pretrain out=busy train.steps=1 " TINY);
    assert_false(folder_has("busy/lock"));
}

static void *ends_later(void *state) {
    (void)state;
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    _exit(0);
}

/* As one that was killed with much memory: no command line is left of it, and its files are still open. */
static void an_owner_that_is_ending_is_waited_for(void **state) {
    (void)state;
    LockFile *l = NULL;
    char line[64], byte = 0;
    int ready[2];
    pthread_t last;
    assert_int_equal(pipe(ready), 0);
    pid_t owner = fork();
    if (owner == 0) {
        if (lockfile_take(&l, folder_path("ending"), "it") != OK || pthread_create(&last, NULL, ends_later, NULL) != 0) _exit(1);
        if (write(ready[1], "", 1) != 1) _exit(1);
        pthread_exit(NULL);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(line, sizeof line, "/proc/%d/cmdline", (int)owner);
    for (ssize_t n = 1; n > 0;) {
        int fd = open(line, O_RDONLY);
        n = read(fd, &byte, 1);
        close(fd);
    }
    assert_int_equal(lockfile_take(&l, folder_path("ending"), "it"), OK);
    lockfile_drop(l);
    assert_int_equal(waitpid(owner, NULL, 0), owner);
    close(ready[0]);
    close(ready[1]);
}

/* A launcher whose processes MPI does not tie together would start as many lone runs. */
static void launchers_that_mpi_does_not_know(void **state) {
    (void)state;
    static const struct { const char *variables, *says; } cases[] = {
        {"SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=2",
             "srun started 2 tasks (SLURM_STEP_NUM_TASKS), but MPI knows of 1"},
        {"WORLD_SIZE=4 RANK=1", "started 4 tasks (WORLD_SIZE), but MPI knows of 1"},
        {"PMI_SIZE=2", "mpiexec started 2 tasks"},
    };
    char line[900];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(line, sizeof line, "%s $Q pretrain out=lone train.steps=1 %s> log 2>&1; [ $? = 2 ] && grep -qF '%s' log && "
                 "[ ! -e lone ]", cases[i].variables, TINY, cases[i].says);
        assert_int_equal(folder_shell(line), 0);
    }
    assert_int_equal(folder_shell("SLURM_STEP_NUM_TASKS=1 WORLD_SIZE=1 $Q pretrain out=lone train.steps=1 " TINY "> log"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_vocabulary),
        cmocka_unit_test(own_heads),
        cmocka_unit_test(own_encoder),
        cmocka_unit_test(prefixes_come_off),
        cmocka_unit_test(words_of_another_vocabulary),
        cmocka_unit_test(a_vocabulary_beside_weights),
        cmocka_unit_test(without_a_text_head),
        cmocka_unit_test(it_says_where_it_starts),
        cmocka_unit_test(weights_asked_for_are_not_passed_over),
        cmocka_unit_test(steps_and_weights),
        cmocka_unit_test(other_data_is_said),
        cmocka_unit_test(captions_are_looked_at),
        cmocka_unit_test(warm_up),
        cmocka_unit_test(inspecting),
        cmocka_unit_test(one_run_a_folder),
        cmocka_unit_test(an_owner_that_is_ending_is_waited_for),
        cmocka_unit_test(launchers_that_mpi_does_not_know),
    };
    return cmocka_run_group_tests(tests, setup, folder_teardown);
}
