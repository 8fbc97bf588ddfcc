/* Pictures found in folders and tar archives, with the captions that lie beside them; archives written here byte by
 * byte, whole and broken; WebP by way of its own encoder, which loses nothing when told so. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef HAVE_WEBP
#include <webp/encode.h>
#endif

#include "data/format/path.h"
#include "data/format/tar.h"
#include "data/make/extract.h"
#include "data/make/patches.h"
#include "data/make/pictures.h"
#include "data/shard.h"
#include "tests/kit/scratch.h"

enum { S = 8, BYTES = S * S * 3 };

static void pixels(uint8_t *rgb, int k) {
    for (int i = 0; i < BYTES; i++) rgb[i] = (uint8_t)(i * 5 + k * 31);
}

static void picture(const char *name, int k) {
    uint8_t rgb[BYTES];
    pixels(rgb, k);
    assert_int_equal(image_write_png(name, rgb, S, S), OK);
}

static void folders(const char *names) {
    char copy[200], *rest = copy;
    snprintf(copy, sizeof copy, "%s", names);
    for (char *p; (p = strsep(&rest, " "));) mkdir(p, 0700);
}

/* "image@split caption/caption; ..." of everything in `in`. */
static const char *listed(const char *in, const char *folder_caption) {
    static char text[4096];
    Pictures *p;
    Annotations a = {0};
    size_t used = 0;
    text[0] = 0;
    Status st = pictures_open(&p, in);
    if (st == OK) st = pictures_list(p, &a, folder_caption);
    if (st == OK) st = annotations_finish(&a);
    if (st != OK) snprintf(text, sizeof text, "%s", err_message());
    for (int64_t i = 0; st == OK && i < a.count; i++) {
        const AnnotatedImage *m = &a.images[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s@%s", i ? "; " : "", m->image, m->split);
        for (int64_t k = 0; k < m->ncaptions; k++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", k ? "/" : " ", m->captions[k]);
    }
    annotations_free(&a);
    pictures_close(p);
    return text;
}

static void a_folder(void **state) {
    (void)state;
    folders("f f/train f/train/cat f/val f/val/golden_retriever f/.hidden f/empty");
    picture("f/train/cat/1.png", 1), picture("f/val/golden_retriever/2.png", 2), picture("f/3.png", 3),
        picture("f/.hidden/4.png", 4);
    scratch_put("f/notes.md", "x", 1), scratch_put("f/README.txt", "x", 1),
        scratch_put("f/train/annotations.json", "{}", 2); /* beside nothing */
    assert_string_equal(listed("f", NULL), "3.png@test; train/cat/1.png@train; val/golden_retriever/2.png@val");
    assert_string_equal(listed("f/train,f/val", ""), "f/train/cat/1.png@train; f/val/golden_retriever/2.png@val");
    assert_string_equal(
        listed("f/train,f/val", "a photo of a {}"),
        "f/train/cat/1.png@train a photo of a cat; f/val/golden_retriever/2.png@val a photo of a golden retriever");
    assert_non_null(strstr(listed("f", "{}"), "3.png lies in no folder that could be its class"));
    assert_non_null(strstr(listed("f", "class"), "has no {}"));
    assert_non_null(strstr(listed("f/empty", NULL), "f/empty: a folder without pictures"));
    assert_non_null(strstr(listed("nowhere", NULL), "nowhere: No such file"));
    scratch_put("f.txt", "f/3.png\n", 8);
    assert_non_null(strstr(listed("f.txt", NULL), "f.txt: a list, not pictures; extract.annotations=f.txt"));
    assert_string_equal(listed("f/3.png,f/train/cat/1.png", NULL), "f/3.png@test; f/train/cat/1.png@train");
}

/* What lies beside a picture, and what a metadata file says. */
static void captions_beside(void **state) {
    (void)state;
    folders("g h h/train h/validation");
    picture("g/a.b.png", 1), picture("g/c.png", 2), picture("g/d.png", 3), picture("g/e.png", 4);
    scratch_put("g/a.b.txt", "one\n", 4);
    static const char object[] = "{\"caption\": \"two\", \"url\": \"http://x\", \"key\": \"c\"}";
    scratch_put("g/c.json", object, sizeof object - 1);
    scratch_put("g/d.caption", "three\r\nfour", 11);
    assert_string_equal(listed("g", NULL), "a.b.png@train one; c.png@train two; d.png@train three/four");
    picture("h/train/a.png", 1), picture("h/validation/b.png", 2), picture("h/validation/unlisted.png", 3);
    static const char one[] = "{\"file_name\": \"a.png\", \"text\": \"one\"}\n", two[] = "file_name,text\nb.png,two\n";
    scratch_put("h/train/metadata.jsonl", one, sizeof one - 1);
    scratch_put("h/validation/metadata.csv", two, sizeof two - 1);
    assert_string_equal(listed("h", NULL), "train/a.png@train one; validation/b.png@val two");
    scratch_put("h/metadata.parquet", "PAR1....", 8);
    assert_non_null(strstr(listed("h", NULL), "h/metadata.parquet: is a Parquet table"));
}

/* ---- archives ---- */

static uint8_t tar[1 << 18];
static size_t tar_n;

static void header(const char *name, char type, size_t size, const char *prefix) {
    uint8_t *h = tar + tar_n;
    memset(h, 0, 512);
    memcpy(h, name, strlen(name) < 100 ? strlen(name) : 100);
    snprintf((char *)h + 100, 8, "0000644");
    snprintf((char *)h + 124, 12, "%011zo", size);
    memcpy(h + 257, "ustar\0" "00", 8);
    h[156] = (uint8_t)type;
    memcpy(h + 345, prefix, strlen(prefix));
    memset(h + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
    tar_n += 512;
}

static void member(const char *name, char type, const void *bytes, size_t n) {
    header(name, type, n, "");
    memset(tar + tar_n, 0, (n + 511) / 512 * 512);
    memcpy(tar + tar_n, bytes, n);
    tar_n += (n + 511) / 512 * 512;
}

static void member_text(const char *name, const char *text) { member(name, '0', text, strlen(text)); }

static void member_file(const char *name, const char *file) {
    static uint8_t bytes[1 << 14];
    FILE *f = fopen(file, "rb");
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    member(name, '0', bytes, n);
}

static void tar_put(const char *name) {
    memset(tar + tar_n, 0, 1024);
    scratch_put(name, tar, tar_n + 1024);
    tar_n = 0;
}

static void webdataset(void **state) {
    (void)state;
    picture("p1.png", 1), picture("p2.png", 2), picture("p3.png", 3);
    member_file("000000000.png", "p1.png"), member_text("000000000.txt", "one"),
        member_text("000000000.json", "{\"caption\": \"no\"}");
    member_file("./000000001.png", "p2.png"),
        member_text("./000000001.json", "{\"caption\": \"two\", \"key\": \"000000001\"}");
    tar_put("00000.tar");
    member_file("000010000.png", "p3.png"), member_text("000010000.txt", "three");
    tar_put("00001-val.tar");
    assert_string_equal(listed("00000.tar,00001-val.tar", NULL),
                        "000000000.png@train one; 000000001.png@train two; 000010000.png@val three");
    assert_string_equal(listed("00000.tar", "a {}"), "000000000.png lies in no folder that could be its class; "
                                                      "extract.folder_caption=a {} wants ROOT/class/x.jpg");
    member_file("000000000.png", "p3.png");
    tar_put("other.tar");
    assert_string_equal(listed("00000.tar,other.tar", NULL),
                        "00000/000000000.png@train one; 00000/000000001.png@train two"); /* one is without caption */
    assert_non_null(strstr(listed("00000.tar,00000.tar", NULL), "stands twice, here and in 00000.tar"));
    folders("w");
    assert_int_equal(rename("00000.tar", "w/00000.tar") | rename("other.tar", "w/00001.tar"), 0);
    const char *both = "00000/000000000.png@train one; 00000/000000001.png@train two";
    assert_string_equal(listed("w", NULL), both);
    assert_string_equal(listed("w/*.tar", NULL), both);
    assert_string_equal(listed("w/{00000..00001}.tar", NULL), both);
    assert_non_null(strstr(listed("w/{00000..00002}.tar", NULL), "w/00002.tar: No such file"));
    assert_non_null(strstr(listed("w/9*.tar", NULL), "w/9*.tar: no file is called so"));
    assert_int_equal(rename("w/00000.tar", "00000.tar"), 0);
    member_text("x.txt", "alone");
    tar_put("texts.tar");
    assert_non_null(strstr(listed("texts.tar", NULL), "texts.tar: no pictures"));

    /* through extract: an annotation file that names keys, pixels as in the file */
    static const char notes[] =
        "{\"key\": \"000000001\", \"caption\": \"deux\"}\n{\"key\": \"000010000\", \"caption\": \"trois\"}\n";
    scratch_put("notes.jsonl", notes, sizeof notes - 1);
    AnnotationFile file = {.path = "notes.jsonl", .split = "train"};
    ImageEncoder *e;
    ExtractReport r;
    Shard *s;
    uint8_t rgb[BYTES];
    float want[4 * 64], got[4 * 64];
    assert_int_equal(patches_encoder(&e, S, 4), OK);
    ExtractSpec spec = {.images = "00000.tar,00001-val.tar",
                        .annotations = &file,
                        .nannotations = 1,
                        .out = "out.h5",
                        .encoder = e,
                        .dtype = DT_F32,
                        .views = 1};
    if (extract(&spec, &r) != OK) fail_msg("%s", err_message());
    if (shard_open(&s, "out.h5", false) != OK) fail_msg("%s", err_message());
    assert_int_equal(s->images, 2);
    assert_string_equal(column_text(&s->image_id, 1), "000010000");
    for (int i = 0; i < 2; i++) {
        pixels(rgb, i + 2);
        assert_int_equal(e->run(e, 1, rgb, want), OK);
        assert_int_equal(shard_read(s, i, true, got), OK);
        assert_memory_equal(got, want, sizeof want);
    }
    shard_close(s);
    spec.images = "00000.tar";
    spec.overwrite = true;
    assert_int_equal(extract(&spec, &r), ERR_IO);
    assert_non_null(
        strstr(err_message(),
               "1 of 2 images cannot be read; the first: an image of notes.jsonl: 000010000: is a member of "
               "none of the 1 archives"));
    encoder_free(e);
}

/* Members of a key whatever stands between key and ending, in any case and order; what is no sample of its own. */
static void kin(void **state) {
    (void)state;
    picture("p1.png", 1);
    member_file("s1.input.png", "p1.png"), member_text("s1.output.txt", "one");
    member_text("s2.TXT", "two"), member_file("s2.PNG", "p1.png");
    member_text("._s3.png", "junk"), member_file("s3.png", "p1.png"), member_file("s3.seg.png", "p1.png");
    member_text("__MACOSX/._s3.png", "junk"), member_file("s4.png", "p1.png");
    member_text("s3.txt", "three"), member_text("s4.txt", "four");                /* as `tar cf x.tar *.png *.txt` has them */
    tar_put("kin.tar");
    assert_string_equal(listed("kin.tar", NULL), "s1.input.png@train one; s2.PNG@train two; s3.png@train three; s4.png@train four");
    member_file("a.png", "p1.png"), member_file("a.png", "p1.png");
    tar_put("twice.tar");
    assert_string_equal(listed("twice.tar", NULL), "twice.tar: a.png stands twice in it");
}

/* Lists carry paths of other machines, of Windows, of browsers: the picture is found, and it is told that it was looked for. */
static void other_paths(void **state) {
    (void)state;
    static const struct { const char *name; bool otherwise; } names[] = {
        {"sub/b c.png", false}, {"sub/b%20c.png", true}, {"/data/coco/sub/b c.png", true}, {"C:/x/sub/b c.png", true},
        {"pics/a.png", true}, {"a.PNG", false}, {"/data/100%.png", true},
        {"7", false}, {"7.jpg", false}, {"COCO_sub_x.png", true},
    };
    Pictures *p;
    PicturePlace at;
    folders("pics pics/sub");
    picture("pics/COCO_val2014_000000000007.jpg", 5), picture("pics/sub/COCO_sub_x.png", 6);
    picture("pics/a.png", 1), picture("pics/sub/b c.png", 2), picture("pics/100%.png", 3), picture("outside.png", 4);
    assert_int_equal(pictures_open(&p, "pics"), OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (pictures_find(p, names[i].name, &at) != OK) fail_msg("%s: %s", names[i].name, err_message());
        assert_int_equal(at.otherwise, names[i].otherwise);
        assert_int_equal(strncmp(at.path, "pics/", 5), 0);
        free(at.path);
    }
    assert_int_equal(pictures_find(p, "/data/b c.png", &at), ERR_IO);            /* it lies deeper: not guessed */
    assert_int_equal(pictures_find(p, "x/outside.png", &at), ERR_IO);
    pictures_close(p);
}

/* Long names of both kinds, prefixes, links; what is broken, and where */
static void tar_forms(void **state) {
    (void)state;
    char lengthy[300], record[340];
    Tar *t;
    memset(lengthy, 'a', 250), strcpy(lengthy + 250, "/b.png");
    member("././@LongLink", 'L', lengthy, strlen(lengthy) + 1);
    member_text("aaa", "one");
    int n = snprintf(record, sizeof record, "%d path=%s\n", 10 + (int)strlen(lengthy), lengthy);
    assert_int_equal(n, 10 + (int)strlen(lengthy));
    member("PaxHeader", 'x', record, (size_t)n);
    member_text("bbb", "two");
    header("c.png", '0', 5, "deep/er");
    memset(tar + tar_n, 0, 512), memcpy(tar + tar_n, "three", 5), tar_n += 512;
    member("folder/", '5', "", 0), member("link", '2', "", 0);
    tar_put("a.tar");
    if (tar_open(&t, "a.tar") != OK) fail_msg("%s", err_message());
    assert_int_equal(tar_count(t), 3);
    assert_string_equal(tar_at(t, 0)->name, lengthy);
    assert_string_equal(tar_at(t, 1)->name, lengthy);
    assert_string_equal(tar_at(t, 2)->name, "deep/er/c.png");
    uint8_t *bytes;
    assert_int_equal(tar_read(t, tar_at(t, 2), &bytes), OK);
    assert_string_equal((char *)bytes, "three");
    free(bytes);
    tar_close(t);

    static const struct { int64_t at; const char *bytes; size_t n, keep; const char *says; } breaks[] = {
        {0, "", 0, 513, "broken tar archive at byte 0: a member reaches beyond the end"},
        {0, "", 0, 1300, "broken tar archive at byte 1024: it ends within a header"},
        {512, "x", 1, 2048, "broken tar archive at byte 512: the checksum of a header"},
        {0, "x", 1, 2048, "broken tar archive at byte 0: the checksum of a header"},
        {257, "other", 5, 2048, "is not a tar archive"},
    };
    for (size_t i = 0; i < sizeof breaks / sizeof *breaks; i++) {
        member("one", '0', "", 0);
        if (i != 2) tar_n = 0, member("one", '0', "12", 2);
        member_text("two", "3");
        memcpy(tar + breaks[i].at, breaks[i].bytes, breaks[i].n);
        scratch_put("b.tar", tar, breaks[i].keep);
        tar_n = 0;
        assert_int_equal(tar_open(&t, "b.tar"), ERR_FORMAT);
        assert_null(t);
        if (!strstr(err_message(), breaks[i].says)) fail_msg("break %zu: %s", i, err_message());
    }
    static const char packed[600] = "\x1f\x8b";
    scratch_put("b.tar", packed, sizeof packed);
    assert_int_equal(tar_open(&t, "b.tar"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "is compressed by gzip, not a tar archive; gunzip b.tar unpacks it"));
    member("PaxHeader", 'x', "27 GNU.sparse.major=1......\n", 27);
    tar_put("b.tar");
    assert_int_equal(tar_open(&t, "b.tar"), ERR_FORMAT);
    member("S", 'S', "", 0);
    tar_put("b.tar");
    assert_int_equal(tar_open(&t, "b.tar"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "a sparse file"));
    header("huge", '0', 0, "");
    memcpy(tar + 124, "\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12);
    unsigned sum = 8 * ' ';
    for (int i = 0; i < 512; i++) sum += i < 148 || i >= 156 ? tar[i] : 0;
    snprintf((char *)tar + 148, 8, "%06o", sum);
    tar_put("b.tar");
    assert_int_equal(tar_open(&t, "b.tar"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "a member reaches beyond the end of the file"));
}

/* One file under two names in two splits; a folder an annotation file; names without ending and COCO's numbers */
/* An encoder that answers late, as one on a GPU: two batches are under way, the older is finished first. */
typedef struct { ImageEncoder base; ImageEncoder *inner; int n[2], oldest, under, most; uint8_t *pixels[2]; } Late;

static Status late_start(const ImageEncoder *self, int n, const void *pixels) {
    Late *l = (Late *)(uintptr_t)self;
    int i = (l->oldest + l->under++) % 2;
    assert_true(l->under <= 2 && n <= self->batch);
    if (l->under > l->most) l->most = l->under;
    l->n[i] = n;
    memcpy(l->pixels[i], pixels, (size_t)n * preprocess_bytes(&self->pre));
    return OK;
}

static Status late_finish(const ImageEncoder *self, float *features) {
    Late *l = (Late *)(uintptr_t)self;
    int i = l->oldest;
    assert_true(l->under-- > 0);
    l->oldest = 1 - i;
    return l->inner->run(l->inner, l->n[i], l->pixels[i], features);
}

/* The set is the same, whichever way its encoder answers; also where a run goes on that had come half way. */
static void lanes(void **state) {
    (void)state;
    Late late = {0};
    ExtractReport r;
    char name[32];
    folders("many");
    for (int k = 0; k < 7; k++) {
        snprintf(name, sizeof name, "many/%d.png", k);
        picture(name, 3 * k);
    }
    assert_int_equal(patches_encoder(&late.inner, S, 4), OK);
    late.inner->batch = 4, late.inner->threads = false;
    late.base = *late.inner;
    late.base.start = late_start, late.base.finish = late_finish;
    for (int i = 0; i < 2; i++) assert_non_null(late.pixels[i] = malloc(4 * preprocess_bytes(&late.base.pre)));
    ExtractSpec spec = {.images = "many", .out = "plain.h5", .encoder = late.inner, .dtype = DT_F16, .views = 2};
    if (extract(&spec, &r) != OK) fail_msg("%s", err_message());
    spec.encoder = &late.base, spec.out = "lanes.h5";
    if (extract(&spec, &r) != OK) fail_msg("%s", err_message());
    assert_true(late.most == 2 && late.under == 0);
    assert_int_equal(system("cmp plain.h5 lanes.h5"), 0);
    for (int i = 0; i < 2; i++) free(late.pixels[i]);
    encoder_free(late.inner);
}

static void one_file_two_names(void **state) {
    (void)state;
    ImageEncoder *e;
    ExtractReport r;
    Shard *s;
    folders("x x/a x/b");
    picture("x/a/000000000042.png", 1), picture("x/b/7.png", 2);
    assert_int_equal(symlink("000000000042.png", "x/a/same.png"), 0);
    scratch_put("train.csv", "image,caption\n000000000042.png,one\n", 35);
    scratch_put("test.csv", "image,caption\nsame.png,two\n", 27);
    scratch_put("ids.json", "[{\"image_id\": 42, \"caption\": \"one\"}]", 36);
    AnnotationFile files[2] = {{.path = "train.csv"}, {.path = "test.csv"}};
    assert_int_equal(patches_encoder(&e, S, 4), OK);
    ExtractSpec spec = {.images = "x/a",
                        .annotations = files,
                        .nannotations = 2,
                        .out = "links.h5",
                        .encoder = e,
                        .dtype = DT_F32,
                        .views = 1};
    assert_int_equal(extract(&spec, &r), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "are the same file, which would leak"));
    scratch_put("test.csv", "image,caption\n7,two\n", 20);
    spec.images = "x/a,x/b";
    if (extract(&spec, &r) != OK) fail_msg("%s", err_message());
    assert_int_equal(shard_open(&s, "links.h5", false), OK);
    assert_string_equal(column_text(&s->image_id, 0), "x/a/000000000042.png");
    assert_string_equal(column_text(&s->image_id, 1), "x/b/7");
    shard_close(s);
    files[0].path = "ids.json";
    spec.images = "x/b,x/a", spec.nannotations = 1, spec.out = "number.h5";
    if (extract(&spec, &r) != OK) fail_msg("%s", err_message());
    assert_int_equal(r.images, 1);
    encoder_free(e);
}

static void webp(void **state) {
    (void)state;
#ifdef HAVE_WEBP
    uint8_t rgb[BYTES], *packed;
    Image im;
    pixels(rgb, 9);
    size_t n = WebPEncodeLosslessRGB(rgb, S, S, 3 * S, &packed);
    assert_true(n > 0);
    if (image_decode(&im, packed, n, "x.webp", IMAGE_MAX_PIXELS) != OK) fail_msg("%s", err_message());
    assert_int_equal(im.w, S);
    assert_int_equal(im.h, S);
    assert_memory_equal(im.rgb, rgb, BYTES);
    image_free(&im);
    assert_int_equal(image_decode(&im, packed, n, "x.webp", S * S - 1), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "the header says 8 x 8 pixels"));
    for (size_t cut = 12; cut < n; cut += 7) {
        assert_int_equal(image_decode(&im, packed, cut, "x.webp", IMAGE_MAX_PIXELS), ERR_FORMAT);
        assert_non_null(strstr(err_message(), "x.webp: broken WebP"));
    }
    WebPFree(packed);
#else
    Image im;
    assert_int_equal(image_decode(&im, "RIFF....WEBPVP8 ", 16, "x.webp", IMAGE_MAX_PIXELS), ERR_MISSING);
    assert_non_null(strstr(err_message(), "install libwebp-dev"));
#endif
    Image other;
    assert_int_equal(image_decode(&other, "GIF89a......", 12, "x.gif", IMAGE_MAX_PIXELS), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "x.gif: is a GIF image, not a JPEG, PNG or WebP image; convert it: magick"));
}

static void expect_text(char *text, const char *want) {
    assert_string_equal(text, want);
    free(text);
}

/* What names say without a look at the disk. */
static void names_of_files(void **state) {
    (void)state;
    assert_string_equal(path_base("a/b.c/d.e"), "d.e");
    assert_string_equal(path_base("d"), "d");
    expect_text(path_folder("a/b"), "a");
    expect_text(path_folder("b"), ".");
    expect_text(path_folder("/b"), "/");
    expect_text(path_beside("a/b/set.h5", "scenes.json"), "a/b/scenes.json");
    expect_text(path_beside("set.h5", "scenes.json"), "scenes.json");
    expect_text(path_beside("/set.h5", ""), "/");
    assert_true(path_is_below("a/b") && path_is_below("a..b/..c") && path_is_below("..."));
    assert_false(path_is_below("") || path_is_below("/a") || path_is_below("..") || path_is_below("a/../../b"));
    assert_false(path_is_below("a/.."));
    assert_true(path_ends("X.H5", ".h5") && !path_ends("h5", ".h5"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_files),
        cmocka_unit_test(a_folder),  cmocka_unit_test(captions_beside),    cmocka_unit_test(webdataset),
        cmocka_unit_test(kin), cmocka_unit_test(other_paths), cmocka_unit_test(tar_forms),
        cmocka_unit_test(one_file_two_names), cmocka_unit_test(webp), cmocka_unit_test(lanes),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
