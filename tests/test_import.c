/* Features of others: NumPy, safetensors and HDF5 files written here or by other programs, joined with annotations; and
 * extraction of a folder of images. What lands in a shard is read back with shard_file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/make/extract.h"
#include "data/make/patches.h"
#include "data/format/image.h"
#include "data/make/import.h"
#include "data/format/npy.h"
#include "data/format/safetensors.h"
#include "data/shard.h"

enum { N = 6, P = 2, E = 3, ROW = P * E };

static char dir[] = "/tmp/qf-import-XXXXXX";

static int setup(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return rmdir(dir);            /* every test removes its own files */
}

/* The path of a file in the folder; the same pointer for the same name, good for the whole run. */
static const char *in_dir(const char *name) {
    static char path[40][96];
    for (int i = 0; i < 40; i++) {
        if (!path[i][0]) snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
        if (!strcmp(path[i] + strlen(dir) + 1, name)) return path[i];
    }
    fail();
    return NULL;
}

static void put(const char *name, const void *bytes, size_t n) {
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static float value(int row, int k) { return 0.5f * (float)(row * ROW + k) - 4; }

/* header and data as numpy writes them */
static void put_npy(const char *name, const char *header, const void *data, size_t n) {
    char bytes[1024] = "\x93NUMPY\x01";
    size_t len = strlen(header), pad = 64 - (10 + len + 1) % 64, total = len + pad + 1;
    bytes[8] = (char)total;
    memcpy(bytes + 10, header, len);
    memset(bytes + 10 + len, ' ', pad);
    bytes[10 + len + pad] = '\n';
    memcpy(bytes + 10 + total, data, n);
    put(name, bytes, 10 + total + n);
}

static const char ids_json[] = "[\"b/2.jpg\", \"b/1.jpg\", \"c/3.jpg\", \"b/2.jpg#1\", \"b/1.jpg#1\", \"c/3.jpg#1\"]";
static const char ids_text[] = "2.jpg\n./b/1.jpg\r\n/elsewhere/3.jpg\n2.jpg#1\n1.jpg#1\n3.jpg#1";
static const char notes[] =
         "[{\"image\": \"b/1.jpg\", \"caption\": \"one\"}, {\"image\": \"b/2.jpg\", \"caption\": [\"two\", \"zwei\"]},"
         " {\"image\": \"c/3.jpg\", \"caption\": \"three\"}]";

static ImportSpec spec_for(const char *features, const char *ids) {
    static AnnotationFile files[1];
    put("notes.json", notes, strlen(notes));
    files[0] = (AnnotationFile){.path = in_dir("notes.json"), .split = "val"};
    return (ImportSpec){.features = features,
                        .ids = ids,
                        .annotations = files,
                        .nannotations = 1,
                        .out = in_dir("out.h5"),
                        .encoder = {.name = "theirs", .weights_sha256 = "", .tap = "", .preprocessing = ""},
                        .dtype = -1};
}

/* ids_json and ids_text: rows 1, 0, 2 are view 0 of images 1, 2, 3; view 1 follows in the same order. */
static void check_shard(DType type) {
    static const int source[N] = {1, 4, 0, 3, 2, 5};
    Shard *s;
    if (shard_open(&s, in_dir("out.h5"), false) != OK) fail_msg("%s", err_message());
    assert_int_equal(s->images, 3);
    assert_int_equal(s->views, 2);
    assert_int_equal(s->P, P);
    assert_int_equal(s->E, E);
    assert_int_equal(s->dtype, type);
    assert_string_equal(column_text(&s->image_id, 1), "b/2.jpg");
    assert_string_equal(column_text(&s->split, 2), "val");
    assert_string_equal(s->encoder.name, "theirs");
    assert_int_equal(shard_captions_of(s, 1), 2);
    for (int row = 0; row < N; row++) {
        uint8_t raw[ROW * 8];
        float got[ROW];
        assert_int_equal(shard_read(s, row, true, raw), OK);
        dtype_to_f32(got, raw, type, ROW);
        for (int k = 0; k < ROW; k++) assert_true(got[k] == value(source[row], k));
    }
    shard_close(s);
}

static void import_good(const ImportSpec *spec, DType type) {
    ImportReport r;
    if (import(spec, &r) != OK) fail_msg("%s", err_message());
    assert_int_equal(r.captions, 4);
    check_shard(type);
    unlink(in_dir("out.h5"));
    unlink(in_dir("notes.json"));
}

static void import_bad(const ImportSpec *spec, Status want, const char *says) {
    ImportReport r;
    assert_int_equal(import(spec, &r), want);
    if (!strstr(err_message(), says)) fail_msg("%s", err_message());
    assert_int_not_equal(access(in_dir("out.h5"), F_OK), 0);
    unlink(in_dir("out.h5.part"));
    unlink(in_dir("notes.json"));
}

static void all_values(float *v) {
    for (int i = 0; i < N * ROW; i++) v[i] = value(i / ROW, i % ROW);
}

static void numpy_types(void **state) {
    (void)state;
    static const struct { const char *descr; DType file, shard; } cases[] = {{"<f2", DT_F16, DT_F16},
                 {"<f4", DT_F32, DT_F32},
                 {"<f8", DT_F64, DT_F32},
                 {"|V2", DT_BF16, DT_BF16},
                 {"<u2", DT_BF16, DT_BF16}};
    put("ids.json", ids_json, strlen(ids_json));
    put("ids.txt", ids_text, strlen(ids_text));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float v[N * ROW];
        uint8_t raw[sizeof v * 2];
        char header[128];
        all_values(v);
        dtype_from_f32(raw, cases[i].file, v, N * ROW);
        snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (6, 2, 3), }",
                 cases[i].descr);
        put_npy("f.npy", header, raw, (size_t)(N * ROW * dtype_size(cases[i].file)));
        ImportSpec spec = spec_for(in_dir("f.npy"), in_dir(i % 2 ? "ids.txt" : "ids.json"));
        import_good(&spec, cases[i].shard);
        spec = spec_for(in_dir("f.npy"), in_dir("ids.json"));
        spec.dtype = DT_BF16;
        import_good(&spec, DT_BF16);
    }
    unlink(in_dir("f.npy"));
    unlink(in_dir("ids.json"));
    unlink(in_dir("ids.txt"));
}

static void numpy_archives(void **state) {
    (void)state;
    static const char *const files[] = {"tests/golden/import/stored.npz", "tests/golden/import/deflated.npz"};
    put("ids.json", ids_json, strlen(ids_json));
    for (int i = 0; i < 2; i++) {
        ImportSpec spec = spec_for(files[i], in_dir("ids.json"));
        import_good(&spec, DT_F16);
        spec = spec_for(files[i], in_dir("ids.json"));
        spec.array = "features";
        import_good(&spec, DT_F16);
        spec = spec_for(files[i], in_dir("ids.json"));
        spec.array = "nothing";
        import_bad(&spec, ERR_FORMAT, "none of its arrays is called nothing; there are: features (6, 2, 3), other (");
        spec = spec_for(files[i], in_dir("ids.json"));
        spec.array = "other";
        import_bad(&spec, ERR_FORMAT, "other holds no floating-point numbers");
    }
    /* one flipped bit in the packed data */
    uint8_t bytes[4096];
    FILE *f = fopen(files[0], "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    uint8_t *at = memmem(bytes, n, "\x93NUMPY\x01", 7);      /* the second one is the features */
    assert_non_null(at = memmem(at + 1, n - (size_t)(at + 1 - bytes), "\x93NUMPY\x01", 7));
    at[128 + 30] ^= 1;
    put("bad.npz", bytes, n);
    ImportSpec spec = spec_for(in_dir("bad.npz"), in_dir("ids.json"));
    import_bad(&spec, ERR_FORMAT, "the checksum of features.npy is wrong");
    unlink(in_dir("bad.npz"));
    unlink(in_dir("ids.json"));
}

static void safetensors(void **state) {
    (void)state;
    float v[N * ROW];
    all_values(v);
    StTensor t[2] = {{.name = "x", .dtype = DT_F32, .ndim = 3, .shape = {N, P, E}, .data = v},
                     {.name = "y", .dtype = DT_F32, .ndim = 4, .shape = {N, 1, P, E}, .data = v}};
    put("ids.json", ids_json, strlen(ids_json));
    assert_int_equal(st_write(in_dir("f.safetensors"), t, 1, NULL, 0), OK);
    ImportSpec spec = spec_for(in_dir("f.safetensors"), in_dir("ids.json"));
    import_good(&spec, DT_F32);
    assert_int_equal(st_write(in_dir("f.safetensors"), t, 2, NULL, 0), OK);
    spec = spec_for(in_dir("f.safetensors"), in_dir("ids.json"));
    import_bad(&spec, ERR_FORMAT, "several tensors, none with a usual name");
    spec = spec_for(in_dir("f.safetensors"), in_dir("ids.json"));
    spec.array = "y";                                         /* a grid of 1 x 2 tokens */
    import_good(&spec, DT_F32);
    unlink(in_dir("f.safetensors"));
    unlink(in_dir("ids.json"));
}

/* As somebody else stores it: chunks of 4 rows x 2 x 2 channels, shuffled and compressed; names of variable length. */
static void put_h5(const char *name, hid_t file_type) {
    float v[N * ROW];
    all_values(v);
    hsize_t dim[3] = {N, P, E}, chunk[3] = {4, 2, 2}, n[1] = {N};
    const char *const names[N] = {"b/2.jpg", "b/1.jpg", "c/3.jpg", "b/2.jpg#1", "b/1.jpg#1", "c/3.jpg#1"};
    hid_t f = H5Fcreate(in_dir(name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), list = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(3, dim, NULL), line = H5Screate_simple(1, n, NULL), text = H5Tcopy(H5T_C_S1);
    H5Pset_chunk(list, 3, chunk);
    H5Pset_shuffle(list);
    H5Pset_deflate(list, 4);
    H5Tset_size(text, H5T_VARIABLE);
    H5Tset_cset(text, H5T_CSET_UTF8);
    hid_t d = H5Dcreate2(f, "/features", file_type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    hid_t s = H5Dcreate2(f, "/image_names", text, line, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >= 0);
    assert_true(H5Dwrite(s, text, H5S_ALL, H5S_ALL, H5P_DEFAULT, names) >= 0);
    H5Dclose(d);
    H5Dclose(s);
    H5Tclose(text);
    H5Sclose(space);
    H5Sclose(line);
    H5Pclose(list);
    assert_true(H5Fclose(f) >= 0);
}

static void hdf5(void **state) {
    (void)state;
    put_h5("f.h5", H5T_IEEE_F32LE);
    ImportSpec spec = spec_for(in_dir("f.h5"), NULL);
    import_good(&spec, DT_F32);
    spec = spec_for(in_dir("f.h5"), "");
    spec.array = "features";
    spec.ids_array = "/image_names";
    spec.dtype = DT_F16;
    import_good(&spec, DT_F16);
    spec = spec_for(in_dir("f.h5"), NULL);
    spec.array = "nothing";
    import_bad(&spec, ERR_FORMAT, "none of its data sets is called nothing");
    spec = spec_for(in_dir("f.h5"), NULL);
    spec.ids_array = "features";
    import_bad(&spec, ERR_FORMAT, "must have one dimension");
    put_h5("f.h5", H5T_IEEE_F64LE);
    spec = spec_for(in_dir("f.h5"), NULL);
    import_good(&spec, DT_F32);
    put_h5("f.h5", H5T_IEEE_F32BE);
    spec = spec_for(in_dir("f.h5"), NULL);
    import_good(&spec, DT_F32);
    put_h5("f.h5", H5T_STD_I32LE);
    spec = spec_for(in_dir("f.h5"), NULL);
    import_bad(&spec, ERR_FORMAT, "none of its data sets holds floating-point numbers");
    unlink(in_dir("f.h5"));
}

static void mismatches(void **state) {
    (void)state;
    float v[N * ROW];
    all_values(v);
    put_npy("f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2, 3), }", v, sizeof v);
    static const struct { const char *ids; Status st; const char *says; } cases[] = {
        {"[\"b/1.jpg\"]", ERR_FORMAT, "has 6 rows, but "},
        {"[\"b/1.jpg\", \"b/2.jpg\", \"c/3.jpg\", \"x\", \"y\", \"z\"]", ERR_FORMAT,
         "belong to no annotated image, the first is x"},
        {"[\"b/1.jpg\", \"b/1.jpg\", \"c/3.jpg\", \"x\", \"y\", \"z\"]", ERR_FORMAT,
         "ids 1 and 2 are both view 0 of image b/1.jpg"},
        {"[\"b/1.jpg\", \"b/1.jpg#1\", \"b/2.jpg\", \"b/2.jpg#1\", \"c/3.jpg\", \"y\"]", ERR_FORMAT,
         "the first is c/3.jpg of notes.json (1 of 2 views)"},
        {"[\"u\", \"v\", \"w\", \"x\", \"y\", \"z\"]", ERR_FORMAT,
         "is an annotated image; the first id is u, the first image of "},
        {"[\"b/1.jpg#999999\", \"2\", \"3\", \"x\", \"y\", \"z\"]", ERR_FORMAT, "asks for a view beyond"},
        {"[\"b/1.jpg\", null]", ERR_FORMAT, "entry 2 is neither a string nor a whole number"},
        {"a\n\nb\n", ERR_FORMAT, "id 2 is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("ids", cases[i].ids, strlen(cases[i].ids));
        ImportSpec spec = spec_for(in_dir("f.npy"), in_dir("ids"));
        import_bad(&spec, cases[i].st, cases[i].says);
    }
    ImportReport r;
    ImportSpec spec = spec_for(in_dir("f.npy"), in_dir("ids"));
    put("ids", cases[1].ids, strlen(cases[1].ids));
    spec.allow_extra = true;
    assert_int_equal(import(&spec, &r), OK);
    assert_int_equal(r.extra, 3);
    assert_int_equal(r.images, 3);
    unlink(in_dir("out.h5"));
    put("ids", cases[3].ids, strlen(cases[3].ids));
    spec = spec_for(in_dir("f.npy"), in_dir("ids"));
    spec.allow_extra = spec.allow_missing = true;
    assert_int_equal(import(&spec, &r), OK);
    assert_int_equal(r.images, 2);
    assert_int_equal(r.missing, 1);
    unlink(in_dir("out.h5"));
    spec = spec_for(in_dir("f.npy"), NULL);
    import_bad(&spec, ERR_USAGE, "has no list of ids in it");

    put("ids", ids_json, strlen(ids_json));
    uint32_t nan = 0x7fc00000;
    memcpy(&v[3 * ROW + 1], &nan, 4);
    put_npy("f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2, 3), }", v, sizeof v);
    spec = spec_for(in_dir("f.npy"), in_dir("ids"));
    import_bad(&spec, ERR_NUMERIC, "row 4 (b/2.jpg) holds numbers that are not finite");
    v[3 * ROW + 1] = 1e9f;                                    /* too large for f16 */
    put_npy("f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2, 3), }", v, sizeof v);
    spec = spec_for(in_dir("f.npy"), in_dir("ids"));
    spec.dtype = DT_F16;
    import_bad(&spec, ERR_NUMERIC, "not finite as f16");
    unlink(in_dir("ids"));
    unlink(in_dir("f.npy"));
}

/* The same numbers in Fortran order, big-endian, and both, as numpy would store them. */
static void numpy_orders(void **state) {
    (void)state;
    put("ids.json", ids_json, strlen(ids_json));
    for (int k = 1; k < 4; k++) {
        bool fortran = k & 1, swapped = k & 2;
        float v[N * ROW];
        uint8_t bytes[sizeof v];
        for (int n = 0; n < N; n++)
            for (int p = 0; p < P; p++)
                for (int e = 0; e < E; e++) {
                    float x = value(n, p * E + e);
                    v[fortran ? n + N * (p + P * e) : (n * P + p) * E + e] = x;
                }
        memcpy(bytes, v, sizeof v);
        for (size_t i = 0; swapped && i < sizeof bytes; i++) bytes[i] = ((uint8_t *)v)[i ^ 3];
        char header[128];
        snprintf(header, sizeof header, "{'descr': '%cf4', 'fortran_order': %s, 'shape': (6, 2, 3), }",
                 swapped ? '>' : '<', fortran ? "True" : "False");
        put_npy("f.npy", header, bytes, sizeof bytes);
        ImportSpec spec = spec_for(in_dir("f.npy"), in_dir("ids.json"));
        import_good(&spec, DT_F32);
    }
    unlink(in_dir("f.npy"));
    unlink(in_dir("ids.json"));
}

static void broken_numpy(void **state) {
    (void)state;
    static const struct { const char *header; size_t bytes; const char *says; } cases[] = {
        {"{'descr': '|O', 'fortran_order': False, 'shape': (6, 2, 3), }", 144, "pickled Python objects"},
        {"{'descr': '<U9', 'fortran_order': False, 'shape': (4,), }", 144, "an array of texts"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2, 3), }", 140,
         "promises 144 bytes of elements, there are 140"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2, 3), }", 148,
         "promises 144 bytes of elements, there are 148"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 3), }", 144, "too large"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 144, "not understood"},
        {"{'descr': '<f4', 'shape': (6, 2, 3), }", 144, "not understood"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }", 24, "records"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (6,), }", 48, "<c8"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 4, "not understood"},
        {"garbage", 0, "not understood"},
    };
    static const uint8_t zeros[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        NpyFile *f;
        put_npy("f.npy", cases[i].header, zeros, cases[i].bytes);
        assert_int_equal(npy_open(&f, in_dir("f.npy")), ERR_FORMAT);
        assert_null(f);
        if (!strstr(err_message(), cases[i].says)) fail_msg("case %zu: %s", i, err_message());
    }
    unlink(in_dir("f.npy"));
}

/* ---- extraction -------------------------------------------------------------------------------------------------- */

static bool always_stop(void *ctx, int64_t done, int64_t total) {
    (void)ctx, (void)done, (void)total;
    return false;
}

/* Three images, views, stopping and going on, two shards, a missing and a broken image. */
static void folder(void **state) {
    (void)state;
    enum { S = 8 };
    uint8_t rgb[3][S * S * 3];
    for (int i = 0; i < 3; i++) {
        char name[16];
        for (int k = 0; k < S * S * 3; k++) rgb[i][k] = (uint8_t)(k * 7 + i * 50);
        snprintf(name, sizeof name, "%d.png", i + 1);
        assert_int_equal(image_write_png(in_dir(name), rgb[i], S, S), OK);
    }
    static const char text[] = "image,caption,split\n1.png,one,train\n2.png,two,train\n3.png,three,test\n";
    put("notes.csv", text, strlen(text));
    ImageEncoder *e;
    assert_int_equal(patches_encoder(&e, S, 4), OK);
    AnnotationFile files[2] = {{.path = in_dir("notes.csv")}, {.path = in_dir("more.csv")}};
    ExtractSpec spec = {.images = dir, .annotations = files, .nannotations = 1, .out = in_dir("out.h5"), .encoder = e,
                        .dtype = DT_F32, .views = 4, .listener = {always_stop, NULL}};
    ExtractReport r;
    assert_int_equal(extract(&spec, &r), OK);     /* asked to stop when all is done: finishes */
    Shard *s;
    if (shard_open(&s, in_dir("out.h5"), false) != OK) fail_msg("%s", err_message());
    assert_int_equal(s->rows, 12);
    assert_string_equal(column_text(&s->split, 2), "test");
    float want[4 * 64], got[4 * 64];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(e->run(e, 1, rgb[i], want), OK);     /* 8 x 8 stays 8 x 8: view 0 is the image itself */
        assert_int_equal(shard_read(s, 4 * i, true, got), OK);
        assert_memory_equal(got, want, sizeof want);
        assert_int_equal(shard_read(s, 4 * i + 1, true, got), OK);
        for (int y = 0; y < S; y++) /* mirrored: pixel (x, y) of the red plane is (7 - x, y) */
            for (int x = 0; x < S; x++) {
                int a = (y / 4 * 2 + x / 4) * 64 + y % 4 * 4 + x % 4, m = S - 1 - x;
                assert_true(got[a] == want[(y / 4 * 2 + m / 4) * 64 + y % 4 * 4 + m % 4]);
            }
        assert_int_equal(shard_read(s, 4 * i + 2, true, got), OK);
        assert_memory_not_equal(got, want, sizeof want);      /* a crop */
    }
    shard_close(s);
    unlink(in_dir("out.h5"));

    spec.shard_images = 2;
    assert_int_equal(extract(&spec, &r), ERR_USAGE);          /* one file for several shards */
    spec.out = in_dir("set");
    assert_int_equal(extract(&spec, &r), ERR_INTERRUPTED);
    assert_int_equal(access(in_dir("set/set-00000.h5.part"), F_OK), 0);
    spec.listener.fn = NULL;
    assert_int_equal(extract(&spec, &r), OK);                 /* goes on */
    assert_int_not_equal(access(in_dir("set/set-00000.h5.part"), F_OK), 0);
    assert_int_equal(r.shards, 2);
    assert_int_equal(unlink(in_dir("set/set-00001.h5")), 0);
    assert_int_equal(extract(&spec, &r), OK);                 /* the first is kept, the second made again */
    assert_int_equal(unlink(in_dir("set/set-00000.h5")), 0);
    assert_int_equal(unlink(in_dir("set/set-00001.h5")), 0);
    assert_int_equal(unlink(in_dir("set/manifest.json")), 0);
    assert_int_equal(rmdir(in_dir("set")), 0);
    spec.shard_images = 0;
    spec.out = in_dir("out.h5");

    static const char more[] = "image,caption\nbroken.png,four\nmissing.png,five\n";
    put("more.csv", more, strlen(more));
    put("broken.png", "\x89PNG\r\n\x1a\nxyz", 11);
    spec.nannotations = 2;
    assert_int_equal(extract(&spec, &r), ERR_IO);
    assert_non_null(strstr(err_message(), "1 of 5 images cannot be read; the first: "));
    spec.skip_bad = true;
    assert_int_equal(extract(&spec, &r), OK);
    assert_int_equal(r.skipped, 2);
    assert_int_equal(r.images, 3);
    assert_non_null(strstr(r.first_skipped, "broken.png"));
    unlink(in_dir("out.h5"));
    spec.views = 65;
    assert_int_equal(extract(&spec, &r), ERR_USAGE);
    encoder_free(e);
    static const char *const names[] = {"1.png", "2.png", "3.png", "broken.png", "notes.csv", "more.csv"};
    for (int i = 0; i < 6; i++) assert_int_equal(unlink(in_dir(names[i])), 0);
}

/* All of the real drawings, JPEG and PNG, in three splits. */
static void openclipart(void **state) {
    (void)state;
    const char *root = "../shared/data/openclipart";
    AnnotationFile files[3] = {{.path = "../shared/data/openclipart/train.json"},
                               {.path = "../shared/data/openclipart/val.json"},
                               {.path = "../shared/data/openclipart/test.json"}};
    ImageEncoder *e;
    ExtractReport r;
    Shard *s;
    int test = 0;
    if (access(files[0].path, R_OK)) skip();
    assert_int_equal(patches_encoder(&e, 16, 8), OK);
    ExtractSpec spec = {.images = root, .annotations = files, .nannotations = 3, .out = in_dir("out.h5"), .encoder = e,
                        .dtype = DT_F16, .views = 2};
    if (extract(&spec, &r) != OK) fail_msg("%s", err_message());
    assert_int_equal(r.images, 3216);
    if (shard_open(&s, in_dir("out.h5"), false) != OK) fail_msg("%s", err_message());
    for (int64_t i = 0; i < s->images; i++) test += !strcmp(column_text(&s->split, i), "test");
    assert_int_equal(test, 273);
    shard_close(s);
    encoder_free(e);
    unlink(in_dir("out.h5"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numpy_types), cmocka_unit_test(numpy_archives), cmocka_unit_test(safetensors),
        cmocka_unit_test(hdf5),        cmocka_unit_test(mismatches),     cmocka_unit_test(broken_numpy),
        cmocka_unit_test(numpy_orders), cmocka_unit_test(folder),      cmocka_unit_test(openclipart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
