/* shard: what is written is what is read, by HDF5 itself too; killed writers go on; wrong files get a true sentence. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "data/format/crc32c.h"
#include "data/shard.h"
#include "tests/kit/foreign.h"

static void assert_message(const char *part) {
    if (!strstr(err_message(), part)) fail_msg("\"%s\" is not in: %s", part, err_message());
}

/* HDF5 forgets its write buffer when a write fails, as it must in full_disk. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

/* ---- crc32c ---- */

/* RFC 3720 B.4, and the usual check value. */
static void crc_vectors(void **state) {
    (void)state;
    unsigned char b[48];
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(crc32c(0, "", 0), 0);
    memset(b, 0, 32);
    assert_int_equal(crc32c(0, b, 32), 0x8A9136AAu);
    memset(b, 0xff, 32);
    assert_int_equal(crc32c(0, b, 32), 0x62A8AB43u);
    for (int i = 0; i < 32; i++) b[i] = (unsigned char)i;
    assert_int_equal(crc32c(0, b, 32), 0x46DD794Eu);
    for (int i = 0; i < 32; i++) b[i] = (unsigned char)(31 - i);
    assert_int_equal(crc32c(0, b, 32), 0x113FDB5Cu);
}

/* The fast form against the slow one, over lengths and starts that meet every branch; and in two halves. */
static void crc_forms_agree(void **state) {
    (void)state;
    enum { N = 20000 };
    unsigned char *b = mem_new(N + 64, 1);
    for (int i = 0; i < N + 64; i++) b[i] = (unsigned char)((unsigned)i * 2654435761u >> 13);
    for (size_t n = 0; n < N; n = n < 1100 ? n + 1 : n + n / 9) {
        uint32_t want = crc32c_soft(77, b + n % 61, n);
        assert_int_equal(crc32c(77, b + n % 61, n), want);
        assert_int_equal(crc32c(crc32c(77, b + n % 61, n / 3), b + n % 61 + n / 3, n - n / 3), want);
    }
    free(b);
}

/* ---- there and back ---- */

static void check_shard(const Shard *s, const Fixture *f, int64_t first) {
    const ShardSpec *p = &f->spec;
    assert_int_equal(s->images, p->images);
    assert_int_equal(s->rows, p->images * p->views);
    assert_int_equal(s->P, FIX_P);
    assert_int_equal(s->E, FIX_E);
    assert_int_equal(s->dtype, p->dtype);
    assert_null(shard_encoder_difference(&s->encoder, &p->encoder));
    assert_int_equal(s->features_at % 4096, 0);
    assert_null(s->warning);
    uint64_t want[FIX_ELEMENTS], got[FIX_ELEMENTS];
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t image = first + r / p->views, view = r % p->views;
        fix_row(want, image, view, p->dtype);
        assert_int_equal(shard_read(s, r, true, got), OK);
        assert_memory_equal(got, want, s->row_bytes);
        assert_true(shard_scale(s, r) == (p->scale ? fix_scale(image, view) : 1.0f));
        uint32_t crc = crc32c_soft(0, want, s->row_bytes);
        float scale = fix_scale(image, view);
        if (p->scale) crc = crc32c_soft(crc, &scale, 4);
        assert_int_equal(s->crc[r], crc);
    }
    for (int64_t i = 0; i < p->images; i++) {
        assert_string_equal(column_text(&s->image_id, i), p->items[i].image_id);
        assert_string_equal(column_text(&s->split, i), p->items[i].split);
        assert_string_equal(column_text(&s->source, i), p->items[i].source);
        assert_int_equal(shard_captions_of(s, i), p->items[i].ncaptions);
        for (int64_t k = 0; k < p->items[i].ncaptions; k++) {
            size_t n;
            const char *c = shard_caption(s, i, k, &n);
            assert_int_equal(n, strlen(p->items[i].captions[k]));
            assert_memory_equal(c, p->items[i].captions[k], n);
        }
    }
}

static void round_trip(void **state) {
    (void)state;
    static const struct { DType dtype; bool scale; int64_t views; } cases[] = {
        {DT_F16, false, 1}, {DT_F16, true, 2}, {DT_BF16, false, 1}, {DT_F32, false, 3}, {DT_E4M3, true, 1},
            {DT_I8, true, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Fixture f;
        Shard *s;
        char name[32];
        snprintf(name, sizeof name, "rt%zu.h5", i);
        const char *path = fix_path(name);
        fix_init(&f, 3, 9, cases[i].views, cases[i].dtype, cases[i].scale);
        assert_int_equal(fix_write(path, &f, 3), OK);
        assert_int_equal(shard_open(&s, path, false), OK);
        check_shard(s, &f, 3);
        shard_close(s);
    }
}

static void empty_shard(void **state) {
    (void)state;
    Fixture f;
    Shard *s;
    fix_init(&f, 0, 0, 1, DT_F16, false);
    assert_int_equal(fix_write(fix_path("empty.h5"), &f, 0), OK);
    assert_int_equal(shard_open(&s, fix_path("empty.h5"), false), OK);
    assert_int_equal(s->images, 0);
    assert_int_equal(s->captions, 0);
    shard_close(s);
}

/* What another program sees: types, shapes and values by the library's own calls. */
static void read_by_hdf5(void **state) {
    (void)state;
    Fixture f;
    fix_init(&f, 0, 6, 1, DT_F16, false);
    const char *path = fix_path("lib.h5");
    assert_int_equal(fix_write(path, &f, 0), OK);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), ds = H5Dopen2(file, "/images/features", H5P_DEFAULT);
    float got[6][FIX_ELEMENTS];
    uint16_t want[FIX_ELEMENTS];
    assert_true(H5Dread(ds, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, got) >= 0);     /* converts */
    for (int i = 0; i < 6; i++) {
        fix_row(want, i, 0, DT_F16);
        for (int e = 0; e < FIX_ELEMENTS; e++) assert_true(got[i][e] == f16_to_f32(want[e]));
    }
    H5Dclose(ds);
    ds = H5Dopen2(file, "/images/written", H5P_DEFAULT);
    int written[6] = {0};
    assert_true(H5Dread(ds, H5T_NATIVE_INT, H5S_ALL, H5S_ALL, H5P_DEFAULT, written) >= 0);
    for (int i = 0; i < 6; i++) assert_int_equal(written[i], 1);
    H5Dclose(ds);
    H5Fclose(file);
}

static void token_cache(void **state) {
    (void)state;
    Fixture f;
    Shard *s;
    fix_init(&f, 0, 4, 1, DT_F16, false);                   /* 0 + 1 + 2 + 3 captions */
    uint64_t offset[7] = {0, 2, 4, 7, 9, 12, 14};
    uint32_t ids[14] = {1, 2, 1, 2, 1, 9, 2, 1, 2, 1, 8, 2, 1, 65535};
    TokenCache t = {{0xfedcba9876543210u, 8, 50, "a photo of "}, offset, ids};
    f.spec.tokens = &t;
    assert_int_equal(fix_write(fix_path("tok.h5"), &f, 0), OK);
    assert_int_equal(shard_open(&s, fix_path("tok.h5"), false), OK);
    assert_true(s->key.vocab == t.key.vocab);
    assert_int_equal(s->key.max_tokens, 8);
    assert_string_equal(s->key.prompt, "a photo of ");
    assert_memory_equal(s->token_offset, offset, sizeof offset);
    assert_memory_equal(s->tokens, ids, sizeof ids);
    shard_close(s);
}

/* ---- the writer ---- */

static void unfinished(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    Shard *s;
    struct stat sb;
    uint16_t row[FIX_ELEMENTS];
    const char *path = fix_path("unf.h5"), *part = fix_path("unf.h5.part");
    fix_init(&f, 0, 4, 1, DT_F16, false);
    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    fix_row(row, 2, 0, DT_F16);
    assert_int_equal(shard_write(w, 2, row, 1), OK);
    assert_int_equal(shard_write(w, 2, row, 1), OK);        /* twice is once */
    assert_int_equal(shard_missing(w), 3);
    ShardWriter *second;
    assert_int_equal(shard_create(&second, path, &f.spec), ERR_USAGE);
    assert_message("another process");
    assert_int_equal(shard_finish(w), ERR_USAGE);
    assert_message("3 of 4 rows");
    assert_int_equal(stat(path, &sb), -1);
    assert_int_equal(stat(part, &sb), 0);
    assert_int_equal(shard_open(&s, part, false), ERR_FORMAT);
    assert_message("3 of 4 rows are not written (row 0");
    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    assert_non_null(strstr(shard_found(w), "unf.h5.part: goes on, 1 of 4 rows are there"));
    assert_true(shard_goes_on(w) && shard_has(w, 2));
    assert_false(shard_has(w, 1));
    shard_abandon(w);
    assert_int_equal(fix_write(path, &f, 0), OK);
    assert_int_equal(shard_create(&w, path, &f.spec), ERR_USAGE);
    assert_message("exists already");
}

/* What a part was begun for is never mixed with anything else: not even when all that it says of itself is the same,
 * and only the files that the features come from are others. */
static void another_spec(void **state) {
    (void)state;
    Fixture f, g;
    ShardWriter *w;
    uint16_t row[FIX_ELEMENTS] = {0};
    const char *path = fix_path("spec.h5");
    fix_init(&f, 0, 8, 1, DT_F16, false);
    f.spec.made_from = 7;
#define ANEW(change, word)                                         \
    do {                                                           \
        assert_int_equal(shard_create(&w, path, &f.spec), OK);     \
        assert_int_equal(shard_write(w, 1, row, 1), OK);           \
        shard_abandon(w);                                          \
        fix_init(&g, 0, 8, 1, DT_F16, false);                      \
        g.spec.made_from = 7;                                      \
        change;                                                    \
        assert_int_equal(shard_create(&w, path, &g.spec), OK);     \
        assert_false(shard_goes_on(w));                            \
        assert_int_equal(shard_missing(w), g.spec.images);         \
        if (!shard_found(w) || !strstr(shard_found(w), word)) fail_msg("%s", shard_found(w)); \
        assert_non_null(strstr(shard_found(w), "spec.h5.part was begun for something else")); \
        assert_non_null(strstr(shard_found(w), "its 1 rows are given up")); \
        shard_drop(w);                                             \
        assert_int_not_equal(access(fix_path("spec.h5.part"), F_OK), 0); \
    } while (0)
    ANEW(g.spec.encoder.name = "other", "another encoder");
    ANEW(g.spec.encoder.ln_applied = true, "another encoder");
    ANEW(g.spec.dtype = DT_BF16, "element type");
    ANEW(g.spec.scale = true, "element type");
    ANEW(g.spec.images = 7, "number of images");
    ANEW(g.spec.P = 4, "size of features");
    ANEW(g.item[3].image_id = "x", "other images");
    ANEW(g.item[3].split = "x", "other images");
    ANEW(g.caption[3][1] = "x", "other captions");
    ANEW(g.item[3].ncaptions = 1, "other captions");
    ANEW(g.spec.made_from = 8, "the files that the features come from");
    FILE *broken = fopen(fix_path("spec.h5.part"), "wb");
    assert_non_null(broken);
    fputs("no HDF5", broken);
    fclose(broken);
    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    assert_non_null(strstr(shard_found(w), "it cannot be read"));
    shard_abandon(w);
    fix_init(&g, 0, 8, 1, DT_I8, false);
    assert_int_equal(shard_create(&w, fix_path("i8.h5"), &g.spec), ERR_USAGE);
    assert_message("need a scale");
    assert_int_equal(shard_create(&w, fix_path("none/x.h5"), &f.spec), ERR_IO);
    assert_message("none/x.h5.part: cannot be created");
}

/* A row that lost its bytes in a power cut is written again. */
static void power_cut(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    Shard *s;
    uint16_t row[FIX_ELEMENTS];
    const char *path = fix_path("cut.h5"), *part = fix_path("cut.h5.part");
    fix_init(&f, 0, 4, 1, DT_F16, false);
    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    for (int i = 0; i < 3; i++) {
        fix_row(row, i, 0, DT_F16);
        assert_int_equal(shard_write(w, i, row, 1), OK);
    }
    shard_abandon(w);
    assert_int_equal(shard_open(&s, part, true), OK);
    int64_t at = s->features_at + (int64_t)s->row_bytes + 10;
    shard_close(s);
    assert_int_equal(fix_poke(part, at, "\0\0\0", 3), 0);
    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    assert_true(shard_has(w, 0) && !shard_has(w, 1) && shard_has(w, 2));
    assert_int_equal(shard_missing(w), 2);
    shard_abandon(w);
}

/* A disk that fails: the C library's call, but where the test wants an error. */
static bool disk_fails;
ssize_t preadv2(int fd, const struct iovec *v, int n, off_t at, int flags) {
    if (!disk_fails) return (ssize_t)syscall(SYS_preadv2, fd, v, n, at, 0, flags);
    errno = EIO;
    return -1;
}

/* Rows that cannot be read are no damaged ones: they keep their mark, and one is told why it does not go on. */
static void unreadable_part(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    uint16_t row[FIX_ELEMENTS];
    const char *path = fix_path("eio.h5");
    fix_init(&f, 0, 4, 1, DT_F16, false);
    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    fix_row(row, 1, 0, DT_F16);
    assert_int_equal(shard_write(w, 1, row, 1), OK);
    shard_abandon(w);
    disk_fails = true;
    assert_int_equal(shard_create(&w, path, &f.spec), ERR_IO);
    disk_fails = false;
    assert_message("eio.h5.part: row 1 cannot be read");
    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    assert_true(shard_has(w, 1));
    shard_abandon(w);
}

/* RLIMIT_FSIZE stands in for a full disk. */
static void full_disk(void **state) {
    (void)state;
    Fixture f;
    ShardWriter *w;
    struct stat sb;
    struct rlimit before, r;
    uint64_t *row = mem_new(FIX_ELEMENTS * 1000, 4);
    const char *path = fix_path("full.h5"), *part = fix_path("full.h5.part"), *fresh = fix_path("full.h5.part.new");
    fix_init(&f, 0, 40, 1, DT_F32, false);
    f.spec.E = FIX_E * 1000;                                /* 40 rows of 160,000 bytes */
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    r = before;
    r.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_FSIZE, &r);
    assert_int_equal(shard_create(&w, path, &f.spec), ERR_IO);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_message("full.h5");
    assert_int_equal(stat(path, &sb), -1);
    assert_int_equal(stat(part, &sb), -1);
    assert_int_equal(stat(fresh, &sb), -1);

    assert_int_equal(shard_create(&w, path, &f.spec), OK);
    setrlimit(RLIMIT_FSIZE, &r);
    assert_int_equal(shard_write(w, 0, row, 1), OK);
    assert_int_equal(shard_write(w, 39, row, 1), ERR_IO);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_message("what is there stays");
    assert_int_equal(shard_missing(w), 39);
    for (int i = 1; i < 40; i++) assert_int_equal(shard_write(w, i, row, 1), OK);
    assert_int_equal(shard_finish(w), OK);
    free(row);
}

static void *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    void *p = mem_new(*n, 1);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

/* A child writes, slowly, and is killed; twenty times; then one is let finish. */
static void killed(void **state) {
    (void)state;
    Fixture f;
    int64_t had = 0, resumed = 0;
    struct stat sb;
    const char *path = fix_path("kill.h5"), *part = fix_path("kill.h5.part"), *whole = fix_path("whole.h5");
    fix_init(&f, 0, 60, 1, DT_F16, true);
    assert_int_equal(fix_write(whole, &f, 0), OK);
    srand(7);
    for (int attempt = 0; attempt <= 20 && stat(path, &sb) != 0; attempt++) {
        pid_t child = fork();
        if (child == 0) {
            ShardWriter *w;
            uint16_t row[FIX_ELEMENTS];
            if (shard_create(&w, path, &f.spec) != OK) _exit(3);
            for (int64_t r = 0; r < 60; r++) {
                if (shard_has(w, r)) continue;
                fix_row(row, r, 0, DT_F16);
                if (shard_write(w, r, row, fix_scale(r, 0)) != OK) _exit(4);
                if (attempt < 20) usleep(1000);
            }
            _exit(shard_finish(w) == OK ? 0 : 5);
        }
        int status;
        if (attempt < 20) {
            usleep((useconds_t)(rand() % 60000));               /* 60 rows of a millisecond take longer */
            kill(child, SIGKILL);
        }
        waitpid(child, &status, 0);
        if (WIFEXITED(status)) assert_int_equal(WEXITSTATUS(status), 0);
        Shard *s;
        if (shard_open(&s, part, true) == OK) {
            int64_t has = 0;
            for (int i = 0; i < 60; i++) has += s->written[i];
            assert_true(has >= had);
            resumed += had > 0;
            had = has;
            shard_close(s);
        }
    }
    size_t n, m;
    void *a = slurp(path, &n), *b = slurp(whole, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    assert_true(resumed > 0);
    free(a);
    free(b);
}

/* ---- files of others, and wrong ones ---- */

static void other_layouts(void **state) {
    (void)state;
    static const struct { hsize_t rows, tokens; bool deflate, slow; } cases[] = {
        {1, FIX_P, false, false}, {1, FIX_P, true, true}, {4, FIX_P, false, true}, {1, 2, false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Fixture f;
        Shard *s;
        char name[32];
        snprintf(name, sizeof name, "lay%zu.h5", i);
        const char *path = fix_path(name);
        fix_init(&f, 0, 10, 1, DT_F16, false);
        assert_int_equal(fix_write(path, &f, 0), OK);
        foreign_layout(path, cases[i].rows, cases[i].tokens, cases[i].deflate);
        assert_int_equal(shard_open(&s, path, false), OK);
        assert_int_equal(s->h5 != NULL, cases[i].slow);
        assert_int_equal(s->row_at != NULL, !cases[i].slow);
        assert_int_equal(s->warning != NULL, cases[i].slow);
        uint16_t want[FIX_ELEMENTS], got[FIX_ELEMENTS];
        for (int r = 9; r >= 0; r--) {
            fix_row(want, r, 0, DT_F16);
            assert_int_equal(shard_read(s, r, true, got), OK);
            assert_memory_equal(got, want, sizeof want);
        }
        shard_close(s);
    }
}

/* h5py writes text attributes of variable length, and True as an enumeration; others write smaller integers. */
static void attributes_of_others(void **state) {
    (void)state;
    Fixture f;
    Shard *s;
    const char *path = fix_path("attr.h5"), *name = "another", *version = "one";
    fix_init(&f, 0, 3, 1, DT_F32, false);
    assert_int_equal(fix_write(path, &f, 0), OK);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), group = H5Gopen2(file, "/encoder", H5P_DEFAULT);
    hid_t space = H5Screate(H5S_SCALAR), text = H5Tcopy(H5T_C_S1), truth = H5Tenum_create(H5T_NATIVE_INT8);
    int8_t no = 0, yes = 1;
    H5Tset_size(text, H5T_VARIABLE);
    H5Tset_cset(text, H5T_CSET_UTF8);
    H5Tenum_insert(truth, "FALSE", &no);
    H5Tenum_insert(truth, "TRUE", &yes);
    H5Adelete(group, "name");
    H5Adelete(group, "ln_applied");
    hid_t a = H5Acreate2(group, "name", text, space, H5P_DEFAULT, H5P_DEFAULT);
    hid_t b = H5Acreate2(group, "ln_applied", truth, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, text, &name) >= 0 && H5Awrite(b, truth, &yes) >= 0);
    H5Aclose(a);
    H5Aclose(b);
    H5Ldelete(file, "/images/written", H5P_DEFAULT);
    H5Gclose(group);
    H5Fclose(file);
    assert_int_equal(shard_open(&s, path, false), OK);
    assert_string_equal(s->encoder.name, "another");
    assert_true(s->encoder.ln_applied);
    shard_close(s);

    file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
    H5Adelete(root, "version");
    a = H5Acreate2(root, "version", text, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, text, &version) >= 0);
    H5Aclose(a);
    H5Gclose(root);
    H5Tclose(text);
    H5Tclose(truth);
    H5Sclose(space);
    H5Fclose(file);
    assert_int_equal(shard_open(&s, path, false), ERR_FORMAT);
    assert_message("attribute \"version\" of / must be a whole number");
}

static int64_t place_of(const char *path, const char *object) {
    H5File *f;
    H5Info info;
    assert_int_equal(h5_open(&f, path), OK);
    assert_int_equal(h5_info(f, object, &info), OK);
    h5_close(f);
    return info.offset;
}

static void damaged(void **state) {
    (void)state;
    Fixture f;
    Shard *s;
    uint16_t row[FIX_ELEMENTS];
    const char *path = fix_path("bad.h5");
    const uint64_t huge = UINT64_MAX, two = 2;
    fix_init(&f, 0, 6, 1, DT_F16, false);
    assert_int_equal(fix_write(path, &f, 0), OK);
    int64_t features = place_of(path, "/images/features"), first = place_of(path, "/captions/first"),
            offset = place_of(path, "/captions/offset"), written = place_of(path, "/images/written");

    assert_int_equal(fix_poke(path, features + FIX_ELEMENTS * 2 * 3 + 1, "\x7f", 1), 0);
    assert_int_equal(shard_open(&s, path, false), OK);
    assert_int_equal(shard_read(s, 2, true, row), OK);
    assert_int_equal(shard_read(s, 3, true, row), ERR_FORMAT);
    assert_message("row 3 (image \"img_3\") is damaged");
    assert_int_equal(shard_read(s, 3, false, row), OK);
    shard_close(s);

#define WRONG(at, bytes, n, word)                                  \
    do {                                                           \
        unlink(path);                                              \
        assert_int_equal(fix_write(path, &f, 0), OK);              \
        assert_int_equal(fix_poke(path, at, bytes, n), 0);         \
        assert_int_equal(shard_open(&s, path, false), ERR_FORMAT); \
        assert_null(s);                                            \
        assert_message(word);                                      \
        assert_message("bad.h5");                                  \
    } while (0)
    WRONG(first + 8, &huge, 8, "/captions/first falls");
    WRONG(first, &two, 8, "/captions/first starts at 2");
    WRONG(first + 48, &two, 8, "/captions/first falls");
    WRONG(offset + 8, &huge, 8, "/captions/offset falls");
    WRONG(written + 4, "\0", 1, "1 of 6 rows are not written (row 4");
    WRONG(0, "x", 1, "is not an HDF5 file");
    unlink(path);
    assert_int_equal(fix_write(path, &f, 0), OK);
    assert_int_equal(truncate(path, features + 100), 0);
    assert_int_equal(shard_open(&s, path, false), ERR_FORMAT);
    assert_message("bad.h5");
    assert_int_equal(shard_open(&s, fix_path("absent.h5"), false), ERR_IO);
    assert_message("absent.h5: cannot be opened: No such file");
    assert_int_equal(shard_open(&s, fix_dir, false), ERR_FORMAT);
    assert_message("is not a file");
}

/* Links and storage that lead out of the file. */
static void outside(void **state) {
    (void)state;
    Fixture f;
    Shard *s;
    const char *path = fix_path("out.h5"), *other = fix_path("other.h5");
    fix_init(&f, 0, 4, 1, DT_F16, false);
    assert_int_equal(fix_write(path, &f, 0), OK);
    assert_int_equal(fix_write(other, &f, 0), OK);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "/images/features", H5P_DEFAULT);
    assert_true(H5Lcreate_external(other, "/images/features", file, "/images/features", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    assert_int_equal(shard_open(&s, path, false), ERR_FORMAT);
    assert_message("has no /images/features");

    file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "/images/features", H5P_DEFAULT);
    hsize_t dim[3] = {4, FIX_P, FIX_E};
    hid_t space = H5Screate_simple(3, dim, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(list, "/etc/hostname", 0, H5F_UNLIMITED);
    hid_t ds = H5Dcreate2(file, "/images/features", H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(ds >= 0);
    H5Dclose(ds);
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    assert_int_equal(shard_open(&s, path, false), ERR_FORMAT);
    assert_message("lies in another file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_vectors),  cmocka_unit_test(crc_forms_agree), cmocka_unit_test(round_trip),
        cmocka_unit_test(empty_shard),  cmocka_unit_test(read_by_hdf5),    cmocka_unit_test(token_cache),
        cmocka_unit_test(unfinished),   cmocka_unit_test(another_spec),    cmocka_unit_test(power_cut),
        cmocka_unit_test(unreadable_part),
        cmocka_unit_test(full_disk),    cmocka_unit_test(killed),          cmocka_unit_test(other_layouts),
        cmocka_unit_test(attributes_of_others),
        cmocka_unit_test(damaged),      cmocka_unit_test(outside),
    };
    return cmocka_run_group_tests(tests, fix_setup, fix_teardown);
}
