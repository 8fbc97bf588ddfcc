/* test_bad_input: every kind of file the program reads, damaged in every way that files get damaged. Each run ends with
 * one sentence that names the file and exit code 1 (2 where the request is to blame), in little time and memory, and
 * writes nothing. Never a signal, never a report of a sanitizer.
 *
 * Good files are made by the program itself; a case is a command that works with them and one of them to damage. A
 * flipped bit may be harmless: then the command may succeed. QFORMER_FLIPS=1000 tries so many for each case;
 * QFORMER_SENTENCES=FILE collects what was said, for a reader. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "data/format/safetensors.h"
#include "tests/bad_input.h"
#include "tests/kit/program.h"

enum { FLIPS = 6, MOST_BYTES = 1 << 20, MOST_MB = 1024, MOST_SECONDS = 10 };

static char dir[64] = "/tmp/qformer-bad-XXXXXX";
static FILE *sentences;

static const char *path(const char *name) {
    static char p[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(p[k], sizeof p[k], "%s/%s", dir, name);
    return p[k];
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

typedef struct { char *bytes; size_t n; } File;

static void put(const char *name, const void *bytes, size_t n) {
    FILE *f = fopen(path(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static File get(const char *name) {
    FILE *f = fopen(name[0] == '/' || !strncmp(name, "tests/", 6) ? name : path(name), "rb");
    File r = {calloc(MOST_BYTES, 1), 0};
    if (!f) fail_msg("%s was not made", name);
    assert_non_null(r.bytes);
    r.n = fread(r.bytes, 1, MOST_BYTES, f);
    assert_true(r.n < MOST_BYTES);
    fclose(f);
    return r;
}

static int remove_one(const char *name, const struct stat *st, int flag, struct FTW *w) {
    (void)st, (void)flag;
    return w->level == 0 ? 0 : remove(name);
}

static void empty_folder(const char *name) { nftw(path(name), remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* The first file below a folder, NULL when there is none. */
static const char *left_in(const char *name) {
    static char found[256];
    DIR *d = opendir(path(name));
    found[0] = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') snprintf(found, sizeof found, "%s", e->d_name);
    if (d) closedir(d);
    return found[0] ? found : NULL;
}

/* ---- one damaged run --------------------------------------------------------------------------------------------- */

static int wrong;                            /* complaints of this test */

static void complain(const Case *c, const char *damage, const Run *r, const char *what) {
    wrong++;
    print_message("%s, %s: %s\n    qformer %s\n    exit %d, signal %d, %.1f s, %ld MB\n    %.1500s\n", c->file,
            damage, what, c->line, r->code, r->signal,
                  r->cpu, r->kilobytes >> 10, r->err);
}

static const char *base_name(const char *file) {
    const char *slash = strrchr(file, '/');
    return slash ? slash + 1 : file;
}

/* "qformer COMMAND: sentence\n" and nothing else, with the file's name in it. */
static const char *wrong_with(const Case *c, const char *said) {
    char start[64];
    snprintf(start, sizeof start, "qformer %.*s: ", (int)strcspn(c->line, " "), c->line);
    const char *end = strchr(said, '\n');
    if (strncmp(said, start, strlen(start))) return "the sentence does not begin with the command";
    if (!end || end[1]) return "one line is wanted";
    if (!strstr(said, base_name(c->file))) return "the file is not named";
    for (const char *p = said; p < end; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) return "control characters";
    return NULL;
}

static void judge(const Case *c, const char *damage, bool harmless) {
    const Run *r = program_run(dir, c->line);
    assert_non_null(r);
    const char *what = NULL, *left = left_in("o");
    if (sentences) fprintf(sentences, "%-34s %-28s %d  %s%s", c->file, damage, r->code, r->err, r->err[0] ? "" : "\n");
    if (r->signal) what = r->signal == SIGKILL ? "it did not end" : "it crashed";
    else if (r->code == 0 && r->err[0]) what = "it succeeded, and complained";
    else if (r->code == 0 && !harmless) what = "it succeeded";
    else if (r->code == 2 && !(c->flags & REQUEST)) what = "the request was right: 1 is wanted";
    else if (r->code > 2) what = "exit code 1 is wanted";
    else if (r->cpu > MOST_SECONDS) what = "it took too long";
    else if (r->kilobytes > MOST_MB << 10) what = "it took too much memory";
    else if (r->code) what = wrong_with(c, r->err);
    bool may_stay = left && c->flags & GOES_ON && (strstr(left, ".part") || !strcmp(left, "run"));
    if (!what && r->code && left && !may_stay) what = "something was written";
    if (what) complain(c, damage, r, what);
    if (what && left) print_message("    o/%s is there\n", left);
    empty_folder("o");
}

/* Puts `bytes` in the place of the case's file, and looks on. */
static void try_bytes(const Case *c, const char *damage, const void *bytes, size_t n, bool harmless) {
    put(c->file, bytes, n);
    judge(c, damage, harmless || c->flags & FALLS_BACK);
    File now = get(c->file);
    if (now.n != n || memcmp(now.bytes, bytes, n)) fail_msg("qformer %s: wrote to what it reads, %s", c->line, c->file);
    free(now.bytes);
}

static void make_nonsense(const Nonsense *x, const Case *c) {
    size_t n = strlen(x->text), total = n * (size_t)x->times, head = 0, tail = 0;
    bool npy = strstr(x->file, ".npy") != NULL, st = strstr(x->file, ".safetensors") != NULL;
    char *b = calloc(total + 256, 1), damage[64];
    assert_non_null(b);
    if (npy) {
        memcpy(b, "\x93NUMPY\x01", 8);
        b[8] = (char)(total & 255), b[9] = (char)(total >> 8);
        head = 10, tail = 64;
    }
    if (st) {
        for (int i = 0; i < 8; i++) b[i] = (char)(total >> 8 * i);
        head = 8, tail = 64;
    }
    for (int i = 0; i < x->times; i++) memcpy(b + head + n * (size_t)i, x->text, n);
    snprintf(damage, sizeof damage, "nonsense %d", (int)(x - nonsense));
    try_bytes(c, damage, b, head + total + tail, c->flags & GLANCES);
    free(b);
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Half of them near the beginning, where headers are. */
static void flip_bits(const Case *c, const File *good) {
    const char *wish = getenv("QFORMER_FLIPS");
    int flips = wish ? atoi(wish) : FLIPS;
    uint64_t state = (uint64_t)(c - cases) + 1;
    for (int i = 0; i < flips; i++) {
        size_t within = i % 2 && good->n > 2048 ? 2048 : good->n;
        size_t at = next_random(&state) % within;
        int bit = (int)(next_random(&state) % 8);
        char damage[64];
        snprintf(damage, sizeof damage, "bit %d of byte %zu", bit, at);
        good->bytes[at] = (char)(good->bytes[at] ^ 1 << bit);
        try_bytes(c, damage, good->bytes, good->n, true);
        good->bytes[at] = (char)(good->bytes[at] ^ 1 << bit);
    }
}

static void cut(const Case *c, const File *good) {
    const size_t lengths[] = {0, 1, good->n / 50, good->n / 4, good->n / 2, good->n - good->n / 20, good->n - 1};
    size_t end = strstr(c->file, ".png") ? 12 : good->bytes[good->n - 1] == '\n';     /* nothing but marks the end */
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char damage[64];
        snprintf(damage, sizeof damage, "%zu of %zu bytes", lengths[i], good->n);
        try_bytes(c, damage, good->bytes, lengths[i], c->flags & LINES || good->n - lengths[i] <= end);
    }
}

static void replace(const Case *c) {
    static const char *const files[] = {"train/000001.png", "many/set-00000.h5", "f.npy", "scenes.json"};
    static char same[4096];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *ending = strrchr(files[i], '.');
        if (strstr(c->file, ending)) continue;
        File other = get(files[i]);
        char damage[64];
        snprintf(damage, sizeof damage, "a %s file", ending + 1);
        try_bytes(c, damage, other.bytes, other.n, c->flags & ANY_FORM);
        free(other.bytes);
    }
    memset(same, 0, sizeof same);
    try_bytes(c, "zeros", same, sizeof same, false);
    memset(same, 0xff, sizeof same);
    try_bytes(c, "ones", same, sizeof same, false);
}

/* Nothing, a folder, a link to itself, and what may not be read: in the place of the file. */
static void take_away(const Case *c) {
    char at[512];
    snprintf(at, sizeof at, "%s", path(c->file));
    Case request = *c;
    request.flags |= REQUEST;
    bool survives = c->flags & FALLS_BACK;
    unlink(at);
    judge(&request, "missing", survives || c->flags & OPTIONAL);
    mkdir(at, 0777);
    judge(&request, "a folder", survives);
    rmdir(at);
    assert_int_equal(symlink(base_name(c->file), at), 0);
    judge(&request, "a link to itself", survives);
    unlink(at);
    if (geteuid() == 0) return;               /* may read everything */
    put(c->file, "", 0);
    chmod(at, 0);
    judge(&request, "unreadable", survives);
    unlink(at);
}

static void one_case(void **state) {
    const Case *c = *state;
    if (!program_path()) skip();
    File good = get(c->file);
    const Run *r = program_run(dir, c->line);
    assert_non_null(r);
    if (r->code) fail_msg("qformer %s: exit code %d with good files: %s", c->line, r->code, r->err);
    if (r->err[0]) fail_msg("qformer %s: complains about good files: %s", c->line, r->err);
    empty_folder("o");
    wrong = 0;
    cut(c, &good);
    flip_bits(c, &good);
    replace(c);
    for (int i = 0; i < NONSENSE; i++)
        if (!strcmp(nonsense[i].file, c->file)) make_nonsense(&nonsense[i], c);
    take_away(c);
    put(c->file, good.bytes, good.n);
    free(good.bytes);
    if (wrong) fail_msg("%d runs ended otherwise than wanted", wrong);
}

/* ---- shards whose tables lie ------------------------------------------------------------------------------------- */

/* Numbers of /captions/first of 36 images with two captions each, and what they become. */
typedef struct { const char *what; uint64_t is[3], becomes[3]; } Lie;

static const Lie lies[] = {
    {"captions from beyond the end", {0, 2, 4}, {0, 1ull << 62, 4}},
    {"captions backwards", {0, 2, 4}, {4, 2, 0}},
    {"negative captions", {0, 2, 4}, {0, UINT64_MAX, 4}},
    {"captions that begin late", {0, 2, 4}, {1, 2, 4}},
};

static void tables_that_lie(void **state) {
    static const char *const lines[] = {"verify set.h5", "inspect set.h5", "repack set.h5 out=o/x.h5",
            "vocab set.h5 out=o/v.txt", TRAIN "data.train=set.h5",
                                        "retrieval run" USE};
    (void)state;
    if (!program_path()) skip();
    const File good = get("set.h5");
    char *bad = malloc(good.n);
    assert_non_null(bad);
    wrong = 0;
    for (size_t k = 0; k < sizeof lies / sizeof *lies; k++) {
        memcpy(bad, good.bytes, good.n);
        char *at = memmem(bad, good.n, lies[k].is, sizeof lies[k].is);
        if (!at) fail_msg("the numbers of '%s' are not in the shard", lies[k].what);
        memcpy(at, lies[k].becomes, sizeof lies[k].becomes);
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
            try_bytes(&(Case){"set.h5", lines[i], 0}, lies[k].what, bad, good.n, false);
    }
    put("set.h5", good.bytes, good.n);
    free(good.bytes);
    free(bad);
    if (wrong) fail_msg("%d runs ended otherwise than wanted", wrong);
}

/* ---- going on from a broken checkpoint --------------------------------------------------------------------------- */

static void shell(const char *line) {
    char all[512];
    snprintf(all, sizeof all, "cd %s && %s", dir, line);
    if (system(all)) fail_msg("this does not work: %s", line);
}

/* The newest step is broken in `how`; the run says so, goes on from the one before, and ends as it would have. */
static void resume_after(const char *how) {
    shell("rm -rf o/run && cp -r run o/run");
    shell(how);
    const Run *r = program_run(dir, TRAIN "data.train=set.h5 train.steps=7 train.save_every=3");
    assert_non_null(r);
    if (r->code || r->err[0] || !strstr(r->out, "step_000006 is broken and skipped: "))
        fail_msg("after '%s': exit %d\n%s%s", how, r->code, r->out, r->err);
    shell("cd o/run && test -e step_000007/state.json && ! ls | grep -q tmp");
}

static void resume_falls_back(void **state) {
    static const char *const files[] = {"model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"};
    static const char *const damages[] = {"rm %s", "truncate -s 0 %s", "truncate -s 100 %s", "truncate -s +1 %s",
            "rm %s && ln -s nowhere %s",
                                          "printf X | dd of=%s bs=1 seek=900 conv=notrunc 2>/dev/null"};
    (void)state;
    if (!program_path()) skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (size_t k = 0; k < sizeof damages / sizeof *damages; k++) {
            char file[64], how[256];
            snprintf(file, sizeof file, "o/run/step_000006/%s", files[i]);
            snprintf(how, sizeof how, "f=%s; ", file);
            size_t n = strlen(how);
            for (const char *d = damages[k]; *d && n + 1 < sizeof how; d++) {
                if (d[0] == '%') n += (size_t)snprintf(how + n, sizeof how - n, "$f"), d++;
                else how[n++] = *d, how[n] = 0;
            }
            resume_after(how);
        }
    shell("rm -rf o/run && cp -r run o/run && for s in o/run/step_*; do truncate -s 50 $s/model.safetensors; done");
    const Run *r = program_run(dir, TRAIN "data.train=set.h5 train.steps=7");
    assert_non_null(r);
    assert_int_equal(r->code, 1);
    if (!strstr(r->err, "none of its 2 checkpoints can be loaded")) fail_msg("%s", r->err);
    shell("test ! -e o/run/step_000007");
    empty_folder("o");
}

/* ---- good files -------------------------------------------------------------------------------------------------- */

static const char notes[] = "[{\"image\": \"b/1.jpg\", \"caption\": \"one\"}, {\"image\": \"b/2.jpg\", \"caption\": "
        "[\"two\", \"zwei\"]},"
                            " {\"image\": \"c/3.jpg\", \"caption\": \"three\"}]";
static const char ids_json[] = "[\"b/2.jpg\", \"b/1.jpg\", \"c/3.jpg\", \"b/2.jpg#1\", \"b/1.jpg#1\", \"c/3.jpg#1\"]";
static const char ids_text[] = "b/2.jpg\nb/1.jpg\nc/3.jpg\nb/2.jpg#1\nb/1.jpg#1\nc/3.jpg#1\n";

static void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

static void put_annotations(void) {
    put_text("c.yaml", "# a small set\nseed: 5\nsynth:\n  train: 4\n  val: 2\n  test: 2\n  size: 16\n  patch: 8\n  "
            "images: none\n  facts: false\n");
    put_text("lavis.json", "[{\"image\": \"train/000000.png\", \"caption\": \"a red ring\"}, {\"image\": "
            "\"train/photo.jpg\", \"caption\": [\"a photo\", \"grey\"]}]");
    put_text("coco.json", "{\"images\": [{\"id\": 4, \"file_name\": \"train/000000.png\"}, {\"id\": 7, "
            "\"file_name\": \"train/000001.png\"}],"
                          " \"annotations\": [{\"image_id\": 7, \"id\": 1, \"caption\": \"a star\"}, {\"image_id\": "
                                  "4, \"id\": 2, \"caption\": \"a ring\"}]}");
    put_text("karpathy.json", "{\"images\": [{\"filename\": \"000000.png\", \"filepath\": \"train\", \"split\": "
            "\"train\", \"sentences\": [{\"raw\": \"a ring\"}]},"
                              " {\"filename\": \"000001.png\", \"filepath\": \"train\", \"split\": \"restval\", "
                                      "\"sentences\": [{\"raw\": \"a star\"}]}], \"dataset\": \"x\"}");
    put_text("entries.jsonl", "{\"image\": \"train/000000.png\", \"caption\": \"a ring\"}\n{\"image\": "
            "\"train/000001.png\", \"caption\": \"a star\"}\n");
    put_text("pairs.csv", "image,caption\ntrain/000000.png,a ring\ntrain/000001.png,\"a star, or\n two\"\n");
    put_text("pairs.tsv", "image\tcaption\tsplit\ntrain/000000.png\ta ring\ttrain\ntrain/000001.png\ta star\ttest\n");
    put_text("notes.json", notes);
    put_text("ids.json", ids_json);
    put_text("ids.txt", ids_text);
    put_text("owner.json", "[0, 1, 2, 3, 0, 1, 2, 3]");
    put_text("names.txt", "ring\nstar\n");
    put_text("labels.csv", "image,label\ntest/000000.png,ring\ntest/000001.png,star\n");
}

static void put_npy(const char *name, const char *header, const void *data, size_t n) {
    char b[1024] = "\x93NUMPY\x01";
    memset(b + 10, ' ', 117);
    memcpy(b + 10, header, strlen(header));
    b[8] = 118, b[127] = '\n';
    memcpy(b + 128, data, n);
    put(name, b, 128 + n);
}

static void put_arrays(void) {
    float x[36];
    for (int i = 0; i < 36; i++) x[i] = 0.25f * (float)(i * 7 % 36) - 4;
    put_npy("f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2, 3), }", x, sizeof x);
    put_npy("sim.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 8), }", x, 32 * sizeof *x);
    const StTensor t = {.name = "features", .dtype = DT_F32, .ndim = 3, .shape = {6, 2, 3}, .nbytes = sizeof x,
            .data = x};
    assert_int_equal(st_write(path("f.safetensors"), &t, 1, NULL, 0), OK);
}

static void copy(const char *from, const char *to) {
    File f = get(from);
    put(to, f.bytes, f.n);
    free(f.bytes);
}

static void make(const char *line) {
    const Run *r = program_run(dir, line);
    if (!r || r->code) fail_msg("qformer %s: %s", line, r ? r->err : "it is not there");
}

static int setup(void **state) {
    (void)state;
    if (!program_path()) return 0;
    const char *wish = getenv("QFORMER_SENTENCES");
    if (wish) sentences = fopen(wish, "w");
    if (!mkdtemp(dir) || mkdir(path("o"), 0777)) return -1;
    put_text("lsan", "leak:libhdf5\n");        /* it forgets some memory over broken files: not ours to mend */
    char suppressions[600];
    snprintf(suppressions, sizeof suppressions, "suppressions=%s:print_suppressions=0", path("lsan"));
    setenv("LSAN_OPTIONS", suppressions, 0);
    make("synth out=set.h5 synth.train=24 synth.val=4 synth.test=8 synth.size=16 synth.patch=8 synth.captions=2 "
            "synth.images=all threads=1");
    make("vocab set.h5 out=vocab.txt vocab.size=120");
    make("repack set.h5 out=many/ repack.shard_images=12");
    make("pretrain data.train=set.h5 model.vocab=vocab.txt out=run " SIZES " train.batch=8 train.steps=6 "
            "train.save_every=3 train.eval_every=0 "
         "optim.ema=0.9 precision=f32 device=cpu threads=1 data.threads=1 train.events=false");
    make("caption run data.test=set.h5 out=cap.json caption.references=ref.json caption.mode=greedy "
            "caption.min_length=1 caption.max_length=8 threads=1");
    copy("set.h5", "other.h5");
    copy("run/step_000006/model.safetensors", "w.safetensors");
    copy("tests/golden/import/stored.npz", "stored.npz");
    copy("tests/golden/import/deflated.npz", "deflated.npz");
    copy("tests/golden/pth/fp16.pth", "fp16.pth");
    copy("tests/golden/images/files/gray.jpg", "train/photo.jpg");
    put_annotations();
    put_arrays();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    if (sentences) fclose(sentences);
    if (!program_path()) return 0;
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return rmdir(dir);
}

int main(void) {
    static struct CMUnitTest tests[CASES + 2] = {cmocka_unit_test(tables_that_lie),
            cmocka_unit_test(resume_falls_back)};
    static char names[CASES][96];
    for (int i = 0; i < CASES; i++) {
        snprintf(names[i], sizeof names[i], "%s: %.*s", cases[i].file, (int)strcspn(cases[i].line, " "), cases[i].line);
        tests[i + 2] = (struct CMUnitTest){names[i], one_case, NULL, NULL, (void *)(uintptr_t)&cases[i]};
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
