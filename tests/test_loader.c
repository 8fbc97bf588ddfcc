/* set and loader: what a folder of shards is, and that batches are a formula of (seed, step),
 * whoever reads them and when. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "data/text/caption.h"
#include "data/loader.h"
#include "data/manifest.h"
#include "data/repack.h"
#include "tests/kit/foreign.h"

static Tokenizer *tok;

static void assert_message(const char *part) {
    if (!strstr(err_message(), part)) fail_msg("\"%s\" is not in: %s", part, err_message());
}

/* Three shards of 20, 17 and 13 images in a folder, with a manifest or without. */
static const char *make_set(const char *name, int64_t views, bool manifest) {
    static const int64_t sizes[] = {20, 17, 13};
    static char dir[8][128];
    static int next;
    char *d = dir[next++ % 8], path[200];
    snprintf(d, sizeof dir[0], "%s/%s", fix_dir, name);
    assert_int_equal(mkdir(d, 0777), 0);
    for (int64_t k = 0, first = 0; k < 3; first += sizes[k++]) {
        Fixture f;
        fix_init(&f, first, sizes[k], views, DT_F16, true);
        snprintf(path, sizeof path, "%s/s-%lld.h5", d, (long long)k);
        assert_int_equal(fix_write(path, &f, first), OK);
    }
    if (manifest) assert_int_equal(manifest_write(d, NULL, 0), OK);
    return d;
}

static const char *in(const char *dir, const char *file) {
    static char path[8][200];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", dir, file);
    return p;
}

/* ---- sets ---- */

static void check_images(const Set *s) {
    uint16_t want[FIX_ELEMENTS], got[FIX_ELEMENTS];
    char id[24];
    assert_int_equal(set_images(s), 50);
    for (int64_t i = 0; i < 50; i++) {
        float scale;
        snprintf(id, sizeof id, "img_%lld", (long long)i);
        assert_string_equal(set_image_id(s, i), id);
        assert_string_equal(set_split(s, i), fix_splits[i % 5]);
        assert_string_equal(set_source(s, i), "a/b.jpg");
        assert_int_equal(set_ncaptions(s, i), i % 4);
        for (int64_t k = 0; k < i % 4; k++) {
            size_t n;
            const char *c = set_caption(s, i, k, &n);
            assert_int_equal(n, strlen(fix_words[(i + k) % 6]));
            assert_memory_equal(c, fix_words[(i + k) % 6], n);
        }
        for (int64_t v = 0; v < set_views(s); v++) {
            fix_row(want, i, v, DT_F16);
            assert_int_equal(set_read_row(s, i * set_views(s) + v, true, got, &scale), OK);
            assert_memory_equal(got, want, sizeof want);
            assert_true(scale == fix_scale(i, v));
        }
    }
}

static void ways_to_name_a_set(void **state) {
    (void)state;
    const char *dir = make_set("named", 2, false);
    char list[600], missing[200];
    snprintf(list, sizeof list, "%s,%s,%s", in(dir, "s-0.h5"), in(dir, "s-1.h5"), in(dir, "s-2.h5"));
    snprintf(missing, sizeof missing, "%s/manifest.json", dir);
    const char *names[] = {dir, list, dir, missing};
    for (int i = 0; i < 4; i++) {
        Set *s;
        if (i == 2) assert_int_equal(manifest_write(dir, NULL, 0), OK);
        assert_int_equal(set_open(&s, names[i]), OK);
        check_images(s);
        assert_int_equal(set_shards(s), 3);
        assert_null(set_warning(s, 0));
        set_close(s);
    }
    Set *s;
    assert_int_equal(set_open(&s, ""), ERR_USAGE);
    assert_int_equal(set_open(&s, in(dir, "nothing")), ERR_IO);
    assert_message("named/nothing: cannot be opened");
    assert_int_equal(set_open(&s, fix_dir), ERR_USAGE);
    assert_message("holds neither manifest.json nor a shard");
}

static void splits(void **state) {
    (void)state;
    Set *s;
    int64_t *images, n;
    assert_int_equal(set_open(&s, make_set("splits", 1, true)), OK);
    static const struct { const char *name; int64_t n, captioned, captions; } cases[] = {
        {"train", 30, 23, 45}, {"val", 10, 7, 15}, {"test", 10, 7, 13}, {"val,test", 20, 14, 28}, {"", 50, 37, 73},
            {"all", 50, 37, 73},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(set_select(s, cases[i].name, &images, &n), OK);
        assert_int_equal(n, cases[i].n);
        for (int64_t k = 0; k < n; k++) assert_true(set_split_matches(cases[i].name, set_split(s, images[k])));
        SplitCount c = set_count(s, cases[i].name, 0);
        assert_int_equal(c.captioned, cases[i].captioned);
        assert_int_equal(c.captions, cases[i].captions);
        free(images);
    }
    assert_true(set_split_matches("train", "restval"));
    assert_false(set_split_matches("val", "restval"));
    assert_false(set_split_matches("restval", "train"));
    assert_int_equal(set_select(s, "dev", &images, &n), ERR_USAGE);
    assert_message("no image of split \"dev\"; there are \"train\", \"restval\", \"val\", \"test\"");
    set_close(s);
}

static void manifest_holds(void **state) {
    (void)state;
    Set *s;
    Fixture f;
    const char *dir = make_set("held", 1, true);
    const char *one = in(dir, "s-1.h5"), *away = in(dir, "away");
    assert_int_equal(rename(one, away), 0);
    assert_int_equal(set_open(&s, dir), ERR_IO);
    assert_message("s-1.h5: is missing, ");
    assert_message("manifest.json lists it");

    int64_t *images, n;
    assert_int_equal(set_open_part(&s, dir, 0, 1, true), OK);
    assert_int_equal(set_images(s), 50);
    assert_false(set_has(s, 25));
    assert_true(set_has(s, 37));
    assert_string_equal(set_image_id(s, 37), "img_37");
    assert_int_equal(set_select(s, "val", &images, &n), ERR_USAGE);
    assert_message("s-1.h5: is missing, and holds 3 images of split \"val\"");
    uint16_t row[FIX_ELEMENTS];
    assert_int_equal(set_read_row(s, 25, true, row, NULL), ERR_USAGE);
    assert_message("holds image 25");
    set_close(s);

    fix_init(&f, 20, 17, 1, DT_F16, true);                  /* the same counts, another caption */
    f.caption[1][0] = "A cat";
    assert_int_equal(fix_write(one, &f, 20), OK);
    assert_int_equal(set_open(&s, dir), ERR_FORMAT);
    assert_message("is another version");
    assert_int_equal(rename(away, one), 0);
    assert_int_equal(truncate(one, 5000), 0);
    assert_int_equal(set_open(&s, dir), ERR_FORMAT);
    assert_message("s-1.h5");

    unlink(one);
    fix_init(&f, 20, 17, 1, DT_F16, true);
    f.spec.encoder.tap = "other";
    assert_int_equal(fix_write(one, &f, 20), OK);
    unlink(in(dir, "manifest.json"));
    assert_int_equal(set_open(&s, dir), ERR_FORMAT);
    assert_message("made by another encoder");
    assert_int_equal(manifest_write(dir, NULL, 0), ERR_FORMAT);
    assert_message("\"tap\" differs");
}

static void bad_manifests(void **state) {
    (void)state;
#define HEAD "{\"format\":\"qformer-set\",\"version\":1,\"shards\":"
    static const struct { const char *text, *word; } cases[] = {
        {"{}", "is not a manifest"},
        {"{\"format\":\"qformer-set\",\"version\":2,\"shards\":[]}", "version 2"},
        {HEAD "[]}", "not empty"},
        {HEAD "[{\"file\":\"../x.h5\",\"images\":1,\"bytes\":1,\"splits\":{}}]}", "below the manifest's folder"},
        {HEAD "[{\"file\":\"/x.h5\",\"images\":1,\"bytes\":1,\"splits\":{}}]}", "below the manifest's folder"},
        {HEAD "[{\"file\":\"a/../../x.h5\",\"images\":1,\"bytes\":1,\"splits\":{}}]}", "below the manifest's folder"},
        {HEAD "[{\"file\":\"x.h5\",\"images\":-1,\"bytes\":1,\"splits\":{}}]}", "must be counts"},
        {HEAD "[{\"file\":\"x.h5\",\"images\":1,\"bytes\":1}]}", "\"splits\" must be an object"},
        {HEAD "[{\"file\":\"x.h5\",\"images\":1,\"bytes\":1,"
              "\"splits\":{\"a\":{\"images\":2,\"captioned\":0,\"captions\":0}}}]}",
         "split \"a\" are missing or impossible"},
        {HEAD "[{\"file\":\"x.h5\",\"images\":2,\"bytes\":1,"
              "\"splits\":{\"a\":{\"images\":1,\"captioned\":0,\"captions\":0}}}]}",
         "1 images together, it has 2"},
        {HEAD "[{\"file\":\"x.h5\",\"images\":0,\"bytes\":1,\"content\":4294967296,\"splits\":{}}]}", "32 bits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Manifest *m;
        assert_int_equal(manifest_parse(&m, cases[i].text, strlen(cases[i].text), "m.json"), ERR_FORMAT);
        assert_null(m);
        assert_message(cases[i].word);
        assert_message("m.json");
    }
}

/* ---- loaders ---- */

static LoaderSpec spec_of(int64_t B, int rank, int ranks) {
    return (LoaderSpec){.split = "train", .shuffle = true, .drop_last = true, .B = B, .rank = rank, .ranks = ranks,
        .seed = 42,
                        .threads = 3, .queue = 3, .verify_crc = true, .tok = tok, .max_tokens = 6};
}

/* Everything a batch says of a row must follow from what the row says it is. */
static void check_row(const Set *s, const Batch *t, int64_t b) {
    uint16_t want[FIX_ELEMENTS];
    int64_t image = t->image[b];
    const uint16_t *got = (const uint16_t *)t->features + b * FIX_ELEMENTS;
    int found = 0;
    for (int64_t v = 0; v < set_views(s); v++) {
        fix_row(want, image, v, DT_F16);
        if (memcmp(want, got, sizeof want) != 0) continue;
        found++;
        assert_true(t->scale[b] == fix_scale(image, v));
    }
    assert_int_equal(found, 1);
    size_t n;
    char *clean;
    int32_t ids[6] = {0};
    int len;
    const char *text = set_caption(s, image, t->caption[b], &n);
    assert_int_equal(caption_blip(&clean, &n, text, n, NULL, 50), OK);
    assert_int_equal(tokenizer_encode(tok, clean, n, 6, ids, &len, NULL), OK);
    free(clean);
    assert_int_equal(t->len[b], len);
    assert_memory_equal(t->ids + b * 6, ids, sizeof ids);
}

/* Samples and rows of n steps from `start`, into sample (n * B). */
static void run_loader(const Set *s, LoaderSpec spec, int64_t start, int64_t n, int64_t *sample, int64_t *image,
                       uint64_t *hash) {
    Loader *l;
    spec.start_step = start;
    assert_int_equal(loader_open(&l, s, &spec), OK);
    for (int64_t i = 0; i < n; i++) {
        const Batch *t;
        double waited;
        assert_int_equal(loader_next(l, &t, &waited), OK);
        assert_non_null(t);
        assert_true(waited >= 0);
        assert_int_equal(t->step, start + i);
        assert_int_equal(t->B, spec.B);
        assert_int_equal(t->G, spec.B * spec.ranks);
        assert_int_equal(t->first_pair, spec.B * spec.rank);
        for (int64_t b = 0; b < t->B; b++) {
            check_row(s, t, b);
            if (sample) sample[i * spec.B + b] = t->sample[b];
            if (image) image[i * spec.B + b] = t->image[b];
            if (hash) for (int e = 0; e < FIX_ELEMENTS; e++)
                *hash = *hash * 1000003u + ((const uint16_t *)t->features)[b * FIX_ELEMENTS + e];
        }
        loader_release(l, t);
    }
    loader_close(l);
}

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void every_pair_once(void **state) {
    (void)state;
    Set *s;
    int64_t a[45], b[45], samples, steps;
    assert_int_equal(set_open(&s, make_set("once", 2, true)), OK);
    LoaderSpec spec = spec_of(5, 0, 1);
    assert_int_equal(loader_count(s, &spec, &samples, &steps), OK);
    assert_int_equal(samples, 45);
    assert_int_equal(steps, 9);
    run_loader(s, spec, 0, 9, a, NULL, NULL);
    run_loader(s, spec, 9, 9, b, NULL, NULL);
    assert_memory_not_equal(a, b, sizeof a);
    qsort(a, 45, sizeof a[0], compare);
    qsort(b, 45, sizeof b[0], compare);
    for (int64_t i = 0; i < 45; i++) assert_true(a[i] == i && b[i] == i);
    set_close(s);
}

/* The global batch does not depend on the number of ranks, of threads or of batches read ahead,
 * nor on where one starts. */
static void ranks_and_resume(void **state) {
    (void)state;
    Set *s;
    int64_t whole[6 * 8], part[6 * 8], tail[2 * 8];
    uint64_t h1 = 0, h2 = 0;
    assert_int_equal(set_open(&s, make_set("ranks", 2, false)), OK);
    run_loader(s, spec_of(8, 0, 1), 0, 6, whole, NULL, &h1);
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        int64_t B = 8 / ranks;
        for (int r = 0; r < ranks; r++) {
            run_loader(s, spec_of(B, r, ranks), 0, 6, part, NULL, NULL);
            for (int64_t i = 0; i < 6; i++)
                for (int64_t b = 0; b < B; b++) assert_int_equal(part[i * B + b], whole[i * 8 + r * B + b]);
        }
    }
    run_loader(s, spec_of(8, 0, 1), 4, 2, tail, NULL, NULL);
    assert_memory_equal(tail, whole + 32, sizeof tail);
    LoaderSpec spec = spec_of(8, 0, 1);
    spec.threads = 1;
    spec.queue = 2;
    run_loader(s, spec, 0, 6, part, NULL, &h2);
    assert_memory_equal(part, whole, sizeof whole);
    assert_true(h1 == h2);
    spec.seed = 43;
    run_loader(s, spec, 0, 6, part, NULL, NULL);
    assert_memory_not_equal(part, whole, sizeof whole);
    set_close(s);
}

static void images_mode(void **state) {
    (void)state;
    Set *s;
    int64_t image[22 * 2];
    assert_int_equal(set_open(&s, make_set("images", 1, true)), OK);
    LoaderSpec spec = spec_of(2, 0, 1);
    spec.images = true;
    run_loader(s, spec, 0, 22, NULL, image, NULL);          /* two epochs of 11 steps */
    qsort(image, 22, sizeof image[0], compare);
    for (int i = 1; i < 22; i++) assert_true(image[i] > image[i - 1]);
    set_close(s);
}

/* Evaluation: in order, short at the end, empty where nothing is left, and then no more. */
static void in_order(void **state) {
    (void)state;
    Set *s;
    assert_int_equal(set_open(&s, make_set("order", 2, true)), OK);
    static const struct { int64_t B, rank, seen; } cases[] = {{5, 0, 10}, {5, 1, 5}, {4, 0, 8}, {4, 1, 7}};
    for (int i = 0; i < 4; i++) {
        Loader *l;
        int64_t samples, steps, seen = 0, B = cases[i].B, rank = cases[i].rank;
        LoaderSpec spec = spec_of(B, (int)rank, 2);
        spec.split = "val";
        spec.shuffle = spec.drop_last = false;
        assert_int_equal(loader_count(s, &spec, &samples, &steps), OK);
        assert_int_equal(samples, 15);
        assert_int_equal(steps, 2);
        spec.stop_step = steps;
        assert_int_equal(loader_open(&l, s, &spec), OK);
        for (const Batch *t;;) {
            assert_int_equal(loader_next(l, &t, NULL), OK);
            if (!t) break;
            for (int64_t b = 0; b < t->B; b++) assert_int_equal(t->sample[b], t->step * 2 * B + rank * B + b);
            assert_int_equal(t->G, t->step == 0 ? 2 * B : 15 - 2 * B);
            seen += t->B;
            loader_release(l, t);
        }
        assert_int_equal(seen, cases[i].seen);
        loader_close(l);
    }
    LoaderSpec spec = spec_of(200, 0, 1);
    int64_t samples, steps;
    assert_int_equal(loader_count(s, &spec, &samples, &steps), ERR_USAGE);
    assert_message("has 45 pairs, which is less than one batch of 200");
    set_close(s);
}

/* Each rank reads its own shards only. */
static void parts(void **state) {
    (void)state;
    const char *dir = make_set("parts", 1, true);
    for (int r = 0; r < 3; r++) {
        Set *s;
        static const int64_t first[] = {0, 20, 37, 50};
        const char *other = in(dir, r == 0 ? "s-1.h5" : "s-0.h5"), *away = in(dir, "away");
        assert_int_equal(rename(other, away), 0);
        assert_int_equal(set_open_part(&s, dir, r, 3, false), OK);
        assert_int_equal(set_images(s), 50);
        LoaderSpec spec = spec_of(2, r, 3);
        int64_t samples, steps, image[40];
        assert_int_equal(loader_count(s, &spec, &samples, &steps), OK);
        assert_int_equal(samples, 45);
        assert_int_equal(steps, 5);                          /* the third shard has 10 pairs of train and restval */
        run_loader(s, spec, 0, steps, NULL, image, NULL);
        for (int64_t i = 0; i < steps * 2; i++) assert_in_range(image[i], first[r], first[r + 1] - 1);
        set_close(s);
        assert_int_equal(rename(away, other), 0);
    }
    Set *s;
    unlink(in(dir, "manifest.json"));
    assert_int_equal(set_open_part(&s, dir, 0, 3, false), ERR_USAGE);
    assert_message("needs a manifest.json");
}

/* The cache of repack gives the ids that tokenizing gives; another length does not use it. */
static void token_cache(void **state) {
    (void)state;
    Set *s;
    RepackReport r;
    RepackSpec pack = {.in = make_set("plain", 1, true), .out = fix_path("cached"), .dtype = -1, .split = "",
        .shard_images = 30,
                       .tok = tok, .max_tokens = 6};
    assert_int_equal(repack(&pack, &r), OK);
    assert_int_equal(r.shards, 2);
    assert_int_equal(set_open(&s, pack.out), OK);
    TokenKey key = {tokenizer_hash(tok), 6, 50, ""};
    int n;
    assert_non_null(set_tokens(s, 1, 0, &key, &n));
    assert_in_range(n, 2, 6);
    key.max_tokens = 7;
    assert_null(set_tokens(s, 1, 0, &key, &n));
    key = (TokenKey){tokenizer_hash(tok), 6, 50, "a photo of "};
    assert_null(set_tokens(s, 1, 0, &key, &n));
    run_loader(s, spec_of(4, 0, 1), 0, 11, NULL, NULL, NULL);
    set_close(s);
}

/* A damaged row spoils its own batch only, and says where it is. */
static void damaged_row(void **state) {
    (void)state;
    Set *s;
    Loader *l;
    const Batch *t;
    const char *dir = make_set("damaged", 1, true);
    assert_int_equal(set_open(&s, dir), OK);
    LoaderSpec spec = spec_of(4, 0, 1);
    spec.shuffle = false;
    int64_t bad = 0, sample[44], image[44];
    run_loader(s, spec, 0, 11, sample, image, NULL);
    const Shard *h = set_shard(s, 1, NULL);
    for (int64_t i = 0; i < 44; i++) if (!bad && image[i] >= 20) bad = i;
    int64_t row = image[bad] - 20;
    assert_int_equal(fix_poke(in(dir, "s-1.h5"), h->features_at + row * (int64_t)h->row_bytes, "\x77", 1), 0);
    assert_int_equal(loader_open(&l, s, &spec), OK);
    for (int64_t step = 0; step < bad / 4; step++) {
        assert_int_equal(loader_next(l, &t, NULL), OK);
        loader_release(l, t);
    }
    for (int again = 0; again < 2; again++) {
        err_clear();
        assert_int_equal(loader_next(l, &t, NULL), ERR_FORMAT);
        assert_null(t);
        assert_message("s-1.h5: row ");
        assert_message("is damaged");
    }
    loader_close(l);
    spec.verify_crc = false;
    assert_int_equal(loader_open(&l, s, &spec), OK);
    for (int64_t step = 0; step < 11; step++) {
        assert_int_equal(loader_next(l, &t, NULL), OK);
        loader_release(l, t);
    }
    loader_close(l);
    set_close(s);
}

/* A set that has to be read through HDF5, which serves one thread at a time, gives the same batches. */
static void odd_layout(void **state) {
    (void)state;
    Set *s;
    int64_t plain[40], odd[40];
    const char *dir = make_set("odd", 1, false);
    assert_int_equal(set_open(&s, dir), OK);
    run_loader(s, spec_of(4, 0, 1), 0, 10, plain, NULL, NULL);
    set_close(s);
    for (int k = 0; k < 3; k++) foreign_layout(in(dir, k == 0 ? "s-0.h5" : k == 1 ? "s-1.h5" : "s-2.h5"), 3, FIX_P,
                                               true);
    assert_int_equal(set_open(&s, dir), OK);
    assert_non_null(strstr(set_warning(s, 2), "s-2.h5: features are compressed"));
    assert_null(set_warning(s, 3));
    run_loader(s, spec_of(4, 0, 1), 0, 10, odd, NULL, NULL);
    assert_memory_equal(plain, odd, sizeof odd);
    set_close(s);
}

static int live;

static void *counted_alloc(void *ctx, size_t bytes) {
    if (*(int *)ctx == live) return NULL;
    live++;
    return malloc(bytes);
}

static void counted_release(void *ctx, void *p) {
    (void)ctx;
    live--;
    free(p);
}

static void own_memory(void **state) {
    (void)state;
    Set *s;
    Loader *l;
    const Batch *t, *u;
    int most = 100;
    assert_int_equal(set_open(&s, make_set("memory", 1, true)), OK);
    LoaderSpec spec = spec_of(4, 0, 1);
    spec.alloc = counted_alloc;
    spec.release = counted_release;
    spec.ctx = &most;
    assert_int_equal(loader_open(&l, s, &spec), OK);
    assert_int_equal(live, 3);
    assert_int_equal(loader_next(l, &t, NULL), OK);         /* two may be held, and given back in any order */
    assert_int_equal(loader_next(l, &u, NULL), OK);
    loader_release(l, u);
    loader_release(l, t);
    assert_int_equal(loader_next(l, &t, NULL), OK);
    loader_close(l);                                        /* with one held and others in work */
    assert_int_equal(live, 0);
    most = 2;
    assert_int_equal(loader_open(&l, s, &spec), ERR_MEMORY);
    assert_message("lower data.queue or train.batch");
    assert_int_equal(live, 0);
    set_close(s);
}

static int setup(void **state) {
    static const char vocab[] =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ndog\n##s\nrun\nred\nthe\ncar\ntwo\nmen\non\nboat\nete\ncat\n";
    if (tokenizer_open_lines(&tok, vocab, sizeof vocab - 1, "vocab") != OK) return 1;
    return fix_setup(state);
}

static int teardown(void **state) {
    tokenizer_close(tok);
    return fix_teardown(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ways_to_name_a_set), cmocka_unit_test(splits),      cmocka_unit_test(manifest_holds),
        cmocka_unit_test(bad_manifests),      cmocka_unit_test(every_pair_once), cmocka_unit_test(ranks_and_resume),
        cmocka_unit_test(images_mode),        cmocka_unit_test(in_order),    cmocka_unit_test(parts),
        cmocka_unit_test(token_cache),        cmocka_unit_test(damaged_row), cmocka_unit_test(odd_layout),
        cmocka_unit_test(own_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
