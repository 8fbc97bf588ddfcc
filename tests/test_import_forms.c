/* Features as people have them: ids beside the array, one array an image, maps with channels first, rows that nobody
 * computed, big-endian and compressed HDF5, PyTorch's files. All are written here byte by byte or by HDF5 itself. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "data/format/lzf.h"
#include "data/make/import.h"
#include "data/shard.h"
#include "tests/kit/scratch.h"

enum { N = 6, P = 2, E = 3, ROW = P * E };

static void put_text(const char *name, const char *text) { scratch_put(name, text, strlen(text)); }

/* What row r holds; no row is zero. */
static float value(int r, int k) { return 0.5f * (float)(r * ROW + k) + 1; }

static void fill(float *v, int from, int rows) {
    for (int i = 0; i < rows * ROW; i++) v[i] = value(from + i / ROW, i % ROW);
}

/* A .npy in memory; returns its bytes. */
static size_t npy(uint8_t *to, const char *descr, const char *shape, const void *data, size_t n) {
    char head[128];
    int len = snprintf(head, sizeof head, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    memset(to, ' ', 128);
    memcpy(to, "\x93NUMPY\x01\0\x76\0", 10);
    memcpy(to + 10, head, (size_t)len);
    to[127] = '\n';
    memcpy(to + 128, data, n);
    return 128 + n;
}

static void put_npy(const char *name, const char *descr, const char *shape, const void *data, size_t n) {
    static uint8_t bytes[1 << 16];
    scratch_put(name, bytes, npy(bytes, descr, shape, data, n));
}

/* ---- a zip archive of stored members ---- */

static uint8_t zip[1 << 16], central[1 << 14];
static size_t zip_n, central_n;
static int zip_members;

static void le(uint8_t *p, uint32_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> 8 * i);
}

static void zip_add(const char *name, const void *data, size_t n) {
    uint8_t local[30] = "PK\3\4\x14", entry[46] = "PK\1\2\x14\0\x14";
    size_t len = strlen(name);
    uint32_t crc = (uint32_t)crc32(0, data, (uInt)n);
    le(local + 14, crc, 4), le(local + 18, (uint32_t)n, 4), le(local + 22, (uint32_t)n, 4),
        le(local + 26, (uint32_t)len, 2);
    le(entry + 16, crc, 4), le(entry + 20, (uint32_t)n, 4), le(entry + 24, (uint32_t)n, 4),
        le(entry + 28, (uint32_t)len, 2);
    le(entry + 42, (uint32_t)zip_n, 4);
    memcpy(zip + zip_n, local, 30), memcpy(zip + zip_n + 30, name, len), memcpy(zip + zip_n + 30 + len, data, n);
    zip_n += 30 + len + n;
    memcpy(central + central_n, entry, 46), memcpy(central + central_n + 46, name, len);
    central_n += 46 + len;
    zip_members++;
}

static void zip_put(const char *file) {
    uint8_t end[22] = "PK\5\6";
    le(end + 8, (uint32_t)zip_members, 2), le(end + 10, (uint32_t)zip_members, 2);
    le(end + 12, (uint32_t)central_n, 4), le(end + 16, (uint32_t)zip_n, 4);
    memcpy(zip + zip_n, central, central_n), memcpy(zip + zip_n + central_n, end, 22);
    scratch_put(file, zip, zip_n + central_n + 22);
    zip_n = central_n = 0, zip_members = 0;
}

static void zip_npy(const char *name, const char *descr, const char *shape, const void *data, size_t n) {
    static uint8_t bytes[1 << 14];
    zip_add(name, bytes, npy(bytes, descr, shape, data, n));
}

/* ---- importing ---- */

static const char notes[] = "image,caption\nv/COCO_val2014_000000000391.jpg,one\nv/COCO_val2014_000000000052.jpg,two\n"
                            "v/COCO_val2014_000000000007.jpg,three\nv/b.x.jpg,four\nv/c.jpg,five\nv/d.png,six\n";
static const char *const images[N] = {"v/COCO_val2014_000000000391.jpg", "v/COCO_val2014_000000000052.jpg",
                                      "v/COCO_val2014_000000000007.jpg", "v/b.x.jpg", "v/c.jpg", "v/d.png"};

static ImportSpec spec_for(const char *features) {
    static AnnotationFile file = {.path = "notes.csv"};
    put_text("notes.csv", notes);
    return (ImportSpec){.features = features, .annotations = &file, .nannotations = 1, .out = "out.h5", .dtype = -1,
                        .encoder = {.name = "theirs", .weights_sha256 = "", .tap = "", .preprocessing = ""}};
}

/* Image i has row of[i]. */
static ImportReport taken(const ImportSpec *spec, const int *of, int count) {
    ImportReport r;
    Shard *s;
    unlink("out.h5"), unlink("out.h5.part");
    if (import(spec, &r) != OK) fail_msg("%s", err_message());
    if (shard_open(&s, "out.h5", false) != OK) fail_msg("%s", err_message());
    assert_int_equal(s->images, count);
    assert_int_equal(s->P, P);
    assert_int_equal(s->E, E);
    for (int i = 0; i < count; i++) {
        float row[ROW];
        assert_int_equal(s->dtype, DT_F32);
        assert_int_equal(shard_read(s, i, true, row), OK);
        for (int k = 0; k < ROW; k++)
            if (row[k] != value(of[i], k)) fail_msg("%s: image %d has %g at %d", spec->features, i, row[k], k);
    }
    shard_close(s);
    return r;
}

static void refused(const ImportSpec *spec, const char *says) {
    ImportReport r;
    unlink("out.h5"), unlink("out.h5.part");
    assert_int_not_equal(import(spec, &r), OK);
    if (!strstr(err_message(), says)) fail_msg("says: %s\nwanted: %s", err_message(), says);
    assert_int_not_equal(access("out.h5", F_OK), 0);
}

static const int in_order[N] = {0, 1, 2, 3, 4, 5};

/* ids in the same .npz, as U, S or numbers; in a .npy; found by full name, base name, without ending, by number */
static void numpy_ids(void **state) {
    (void)state;
    float v[N * ROW];
    uint32_t wide[N][40] = {{0}};
    char narrow[N][12] = {"391.jpg", "52.jpg", "7", "b.x", "c.npy", "d"};
    int64_t numbers[3] = {391, 52, 7};
    fill(v, 0, N);
    for (int i = 0; i < N; i++)
        for (size_t k = 0; images[i][k]; k++) wide[i][k] = (uint32_t)images[i][k];
    zip_npy("features.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    zip_npy("image_ids.npy", "<U40", "(6,)", wide, sizeof wide);
    zip_put("f.npz");
    ImportSpec spec = spec_for("f.npz");
    ImportReport r = taken(&spec, in_order, N);
    assert_int_equal(r.matched[MATCH_NAME], N);

    zip_npy("a.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    zip_npy("b.npy", "|S12", "(6,)", narrow, sizeof narrow);
    zip_put("f.npz");
    r = taken(&spec, in_order, N);
    assert_int_equal(r.matched[MATCH_STEM], 3);              /* b.x, c.npy, d */
    assert_int_equal(r.matched[MATCH_NUMBER], 3);

    zip_npy("a.npy", "<f4", "(3, 2, 3)", v, sizeof v / 2);
    zip_npy("b.npy", "<i8", "(3,)", numbers, sizeof numbers);
    zip_npy("c.npy", "<i8", "(3,)", numbers, sizeof numbers);
    zip_put("f.npz");
    spec.allow_missing = true;
    refused(&spec,
            "more than one of its arrays could be ids (there are: a (3, 2, 3), b (3), c (3)); import.ids_array=NAME");
    spec.ids_array = "c";
    r = taken(&spec, in_order, 3);
    assert_int_equal(r.missing, 3);

    zip_npy("features.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    zip_npy("names.npy", "|O", "(6,)", "\x80\4.", 3);
    zip_put("f.npz");
    spec = spec_for("f.npz");
    refused(&spec, "f.npz: names is an array of pickled Python objects (dtype=object), which are not read; python3 -c "
                   "\"import numpy;");

    put_npy("f.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    put_npy("ids.npy", "<U40", "(6,)", wide, sizeof wide);
    spec = spec_for("f.npy");
    refused(&spec, "f.npy has no list of ids in it (there are: one array (6, 2, 3)); import.ids=FILE gives one");
    spec.ids = "ids.npy";
    taken(&spec, in_order, N);
    put_text("ids.json", "{\"d.png\": 5, \"c.jpg\": 4, \"b.x.jpg\": 3, \"7\": 2, \"52\": 1, \"391\": 0}");
    spec.ids = "ids.json";
    taken(&spec, in_order, N);
    put_text("ids.json",
             "{\"0\": \"391\", \"1\": \"52\", \"2\": \"7\", \"3\": \"b.x.jpg\", \"4\": \"c\", \"5\": \"d\"}");
    taken(&spec, in_order, N);
    put_text("ids.json", "{\"0\": \"391\", \"1\": \"52\", \"2\": \"7\", \"3\": \"b\", \"4\": \"c\", \"4a\": \"d\"}");
    refused(&spec, "\"4a\" is no row of its own");
    put_text("ids.csv", "image_path,similarity\n391,0.5\n52,0.5\n7,0.5\nb.x.jpg,0.5\nc.jpg,0.5\nd.png,0.5\n");
    spec.ids = "ids.csv";
    taken(&spec, in_order, N);
    put_text(
        "ids.jsonl",
        "{\"image_path\": \"391\"}\n{\"image_path\": \"52\"}\n{\"image_path\": \"7\"}\n{\"image_path\": \"b.x.jpg\"}\n"
        "{\"image_path\": \"c.jpg\"}\n{\"image_path\": \"d.png\"}\n");
    spec.ids = "ids.jsonl";
    taken(&spec, in_order, N);
    put_text("ids.txt", "\xef\xbb\xbf" "391\r\n52\r\n7\r\nb.x.jpg\r\nc.jpg\r\nd.png\r\n");
    spec.ids = "ids.txt";
    taken(&spec, in_order, N);
}

static hid_t h5_set(hid_t file, const char *path, hid_t type, int rank, const hsize_t *dim, const void *v, hid_t in) {
    hid_t links = H5Pcreate(H5P_LINK_CREATE), space = H5Screate_simple(rank, dim, NULL);
    H5Pset_create_intermediate_group(links, 1);
    hid_t d = H5Dcreate2(file, path, type, space, links, H5P_DEFAULT, H5P_DEFAULT);
    if (v) assert_true(H5Dwrite(d, in, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >= 0);
    H5Sclose(space);
    H5Pclose(links);
    return d;
}

/* One array an image: members, groups of HDF5, names with an ending, a folder of files */
static void one_array_an_image(void **state) {
    (void)state;
    static const char *const ids[N] = {"391", "52", "7", "b.x", "c", "d"};
    static const int sorted[N] = {0, 1, 2, 3, 4, 5};
    hsize_t dim[2] = {P, E}, box[2] = {4, 4};
    float v[N][ROW], boxes[16] = {1};
    char name[64];
    fill(v[0], 0, N);
    for (int i = 0; i < N; i++)
        snprintf(name, sizeof name, "%s.npy", ids[i]), zip_npy(name, "<f4", "(2, 3)", v[i], sizeof v[i]);
    zip_put("f.npz");
    ImportSpec spec = spec_for("f.npz");
    taken(&spec, sorted, N);

    assert_int_equal(mkdir("each", 0700), 0);
    assert_int_equal(mkdir("each/more", 0700), 0);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "each/%s%s.npy", i > 3 ? "more/" : "", ids[i]);
        put_npy(name, "<f4", i ? "(2, 3)" : "(1, 2, 3)", v[i], sizeof v[i]);
    }
    spec = spec_for("each");
    refused(&spec, "one array an image, but of different shapes or types: 7.npy and 391.npy");
    put_npy("each/391.npy", "<f4", "(2, 3)", v[0], sizeof v[0]);
    taken(&spec, sorted, N);
    put_npy("each/more/c.npy", "<f4", "(1, 3)", v[0], 12);
    refused(&spec, "one number of tokens is needed");

    hid_t f = H5Fcreate("f.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "/val/%s/features", ids[i]);
        H5Dclose(h5_set(f, name, H5T_IEEE_F32LE, 2, dim, v[i], H5T_NATIVE_FLOAT));
        snprintf(name, sizeof name, "/val/%s/boxes", ids[i]);
        H5Dclose(h5_set(f, name, H5T_IEEE_F32LE, 2, box, boxes, H5T_NATIVE_FLOAT));
    }
    H5Fclose(f);
    spec = spec_for("f.h5");
    taken(&spec, sorted, N);

    f = H5Fcreate("g.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "/%s_grids", ids[i]);
        H5Dclose(h5_set(f, name, H5T_IEEE_F32LE, 2, dim, v[i], H5T_NATIVE_FLOAT));
        snprintf(name, sizeof name, "/%s_boxes", ids[i]);
        H5Dclose(h5_set(f, name, H5T_IEEE_F32LE, 2, box, boxes, H5T_NATIVE_FLOAT));
    }
    H5Fclose(f);
    spec = spec_for("g.h5");
    spec.allow_missing = true;
    refused(&spec, "import.array=NAME says which one: /7_boxes (4, 4), /7_grids (2, 3), /52_boxes");
    spec.array = "grids";
    taken(&spec, sorted, 3);
}

/* A dump in several files, with one list of ids */
static void parts(void **state) {
    (void)state;
    float v[N * ROW];
    fill(v, 0, N);
    assert_int_equal(mkdir("parts", 0700), 0);
    put_npy("parts/emb_2.npy", "<f4", "(4, 2, 3)", v, 4 * ROW * 4);
    put_npy("parts/emb_10.npy", "<f4", "(2, 2, 3)", v + 4 * ROW, 2 * ROW * 4);          /* after 2, though "1" < "2" */
    put_text("ids.txt", "391\n52\n7\nb.x\nc\nd\n");
    ImportSpec spec = spec_for("parts");
    spec.ids = "ids.txt";
    ImportReport r = taken(&spec, in_order, N);
    assert_int_equal(r.kind, SOURCE_PARTS);
    assert_int_equal(r.arrays, 2);
}

/* (N, C, H, W): asked about, turned round, or taken as it is */
static void channels_first(void **state) {
    (void)state;
    enum { C = 8, S = 3 };
    float v[2 * C * S * S], want[C * S * S], got[C * S * S];
    for (int i = 0; i < 2 * C * S * S; i++) v[i] = (float)i + 1;
    put_npy("f.npy", "<f4", "(2, 8, 3, 3)", v, sizeof v);
    put_text("ids.txt", "c\nd\n");
    ImportSpec spec = spec_for("f.npy");
    spec.ids = "ids.txt";
    spec.allow_missing = true;
    refused(
        &spec,
        "(N, 8, 3, 3) looks like maps (N, C, H, W), whose channels would be taken for tokens; import.layout=channels");
    for (int turned = 0; turned < 2; turned++) {
        ImportReport r;
        Shard *s;
        unlink("out.h5"), unlink("out.h5.part");
        spec.layout = turned ? LAYOUT_CHANNELS : LAYOUT_TOKENS;
        if (import(&spec, &r) != OK) fail_msg("%s", err_message());
        assert_int_equal(r.E, turned ? C : S);
        assert_int_equal(r.P, turned ? S * S : C * S);
        for (int p = 0; p < S * S; p++)
            for (int c = 0; c < C; c++) want[turned ? p * C + c : c * S * S + p] = v[(C + c) * S * S + p];
        assert_int_equal(shard_open(&s, "out.h5", false), OK);
        assert_int_equal(shard_read(s, 1, true, got), OK);
        assert_memory_equal(got, want, sizeof got);
        shard_close(s);
    }
    spec.layout = LAYOUT_AUTO;
    float *many = calloc(2 * 128 * 49, sizeof *many);
    for (int i = 0; i < 2 * 128 * 49; i++) many[i] = 1;
    put_npy("f.npy", "<f4", "(2, 128, 49)", many, 2 * 128 * 49 * 4);
    refused(&spec, "(N, 128, 49) looks like (N, C, H*W)");
    put_npy("f.npy", "<f4", "(1, 192, 64)", many, 192 * 64 * 4);
    refused(&spec, "(N, 192, 64) looks like (N, C, H*W)");
    free(many);
    put_npy("f.npy", "<f4", "(2, 3, 3, 8)", v, sizeof v);              /* a grid as it should be */
    ImportReport r;
    assert_int_equal(import(&spec, &r), OK);
    assert_int_equal(r.P, 9);
}

static void rows_of_zeros(void **state) {
    (void)state;
    static const int some[4] = {0, 2, 3, 5};
    float v[N * ROW];
    fill(v, 0, N);
    memset(v + ROW, 0, ROW * 4);
    memset(v + 4 * ROW, 0, ROW * 4);
    put_npy("f.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    put_text("ids.txt", "391\n52\n7\nb.x\nc\nd\n");
    ImportSpec spec = spec_for("f.npy");
    spec.ids = "ids.txt";
    refused(&spec,
            "2 of 6 rows are all zero, features that nobody computed; the first is row 2 (52); import.zero_rows=skip");
    spec.zero_rows = ZERO_SKIP;
    ImportReport r = taken(&spec, some, 4);
    assert_int_equal(r.zero, 2);
    spec.zero_rows = ZERO_KEEP;
    unlink("out.h5");
    assert_int_equal(import(&spec, &r), OK);
    assert_int_equal(r.images, N);
    fill(v, 0, N);
    for (int i = 0; i < ROW; i++) v[2 * ROW + i] = -1;                           /* what a file was filled with */
    put_npy("f.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    spec.zero_rows = ZERO_REFUSE;
    unlink("out.h5");
    assert_int_equal(import(&spec, &r), OK);
    assert_int_equal(r.flat, 1);
    assert_string_equal(r.first_flat, "7");
}

/* Ids without annotations make images without captions */
static void no_captions(void **state) {
    (void)state;
    float v[N * ROW];
    Shard *s;
    fill(v, 0, N);
    put_npy("f.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    put_text("ids.txt", "train/1.jpg\n./x/2.jpg\nval/3.jpg\n4\n5\n6\n");
    ImportSpec spec = spec_for("f.npy");
    spec.ids = "ids.txt";
    spec.nannotations = 0;
    taken(&spec, in_order, N);
    assert_int_equal(shard_open(&s, "out.h5", false), OK);
    assert_string_equal(column_text(&s->image_id, 1), "x/2.jpg");
    assert_string_equal(column_text(&s->split, 0), "train");
    assert_string_equal(column_text(&s->split, 1), "test");
    assert_string_equal(column_text(&s->split, 2), "val");
    assert_int_equal(s->captions, 0);
    shard_close(s);
}

/* Names as lists have them; and arrays that may be parts as well as images. */
static void names_and_parts(void **state) {
    (void)state;
    static const char *const lists[] = {
        "391 \r\n52\r\n7\r\nb.x\r\nc\r\nd\r\n\r\n",
        "[{\"image\": \"391\"}, {\"image\": \"52\"}, {\"image\": \"7\"}, {\"image\": \"b.x\"}, {\"image\": \"c\"}, {\"image\": \"d\"}]"};
    float v[N * ROW];
    fill(v, 0, N);
    put_npy("f.npy", "<f4", "(6, 2, 3)", v, sizeof v);
    ImportSpec spec = spec_for("f.npy");
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        put_text("names", lists[i]);
        spec.ids = "names";
        taken(&spec, in_order, N);
    }
    ImportReport r;
    assert_int_equal(import(&spec, &r), OK);
    assert_int_equal(rename("out.h5", "was.h5"), 0);
    spec = spec_for("was.h5");
    refused(&spec, "was.h5: is a data set already; repack rewrites one");
    mkdir("emb", 0700), mkdir("z", 0700);
    put_npy("emb/img_emb_0.npy", "<f4", "(4, 2, 3)", v, 4 * ROW * sizeof *v);
    put_npy("emb/img_emb_1.npy", "<f4", "(2, 2, 3)", v + 4 * ROW, 2 * ROW * sizeof *v);
    spec = spec_for("emb");
    spec.nannotations = 0;
    refused(&spec, "emb: holds 2 arrays called like img_emb_0, which may be the parts of one set as well as one an image");
    spec = spec_for("emb");
    spec.ids = "names";
    taken(&spec, in_order, N);
    put_text("z/.zarray", "{}");
    spec.features = "z";
    refused(&spec, "z: is a Zarr array; python3 -c \"import zarr, numpy;");
}

/* HDF5: big-endian, still open, a filter that is not there, names that are listed */
static void hdf5(void **state) {
    (void)state;
    hsize_t dim[3] = {N, P, E}, line[1] = {N};
    int32_t numbers[N] = {391, 52, 7, 1, 2, 3};
    float v[N * ROW];
    fill(v, 0, N);
    hid_t f = H5Fcreate("f.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Dclose(h5_set(f, "/strange/visual", H5T_IEEE_F32BE, 3, dim, v, H5T_NATIVE_FLOAT));
    H5Dclose(h5_set(f, "/strange/who", H5T_STD_I32BE, 1, line, numbers, H5T_NATIVE_INT));
    H5Fclose(f);
    ImportSpec spec = spec_for("f.h5");
    spec.allow_missing = spec.allow_extra = true;
    taken(&spec, in_order, 3);
    spec.array = "nothing";
    refused(&spec, "none of its data sets is called nothing; there are: /strange/visual (6, 2, 3), /strange/who (6)");

    spec.array = NULL;
    int fd = open("f.h5", O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);                           /* as HDF5 does while it writes */
    refused(&spec, "f.h5: another process has it open for writing");
    close(fd);
    pid_t pid = fork();
    if (pid == 0) {                                                    /* a writer that dies */
        hid_t list = H5Pcreate(H5P_FILE_ACCESS);
        H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110);
        f = H5Fcreate("g.h5", H5F_ACC_TRUNC, H5P_DEFAULT, list);
        H5Dclose(h5_set(f, "/features", H5T_IEEE_F32LE, 3, dim, v, H5T_NATIVE_FLOAT));
        H5Fflush(f, H5F_SCOPE_GLOBAL);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    spec.features = "g.h5";
    refused(&spec, "g.h5: is still open for writing, or the program that wrote it did not close it");
    Shard *s;
    assert_int_equal(shard_open(&s, "g.h5", false), ERR_FORMAT);
    if (!strstr(err_message(), "h5clear -s g.h5 takes the mark away")) fail_msg("%s", err_message());

    hid_t cpl = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(3, dim, NULL);
    hsize_t chunk[3] = {1, P, E};
    H5Pset_chunk(cpl, 3, chunk);
    H5Pset_filter(cpl, 32015, H5Z_FLAG_OPTIONAL, 0, NULL);             /* zstd, which nobody has registered */
    f = H5Fcreate("h.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t d = H5Dcreate2(f, "/features", H5T_IEEE_F32LE, space, H5P_DEFAULT, cpl, H5P_DEFAULT);
    assert_true(d >= 0);
    H5Dclose(d), H5Fclose(f), H5Sclose(space), H5Pclose(cpl);
    spec.features = "h.h5";
    refused(&spec,
            "/features is compressed by zstd (HDF5 filter 32015), which the HDF5 of this program lacks; h5repack");
}

/* torch.save({"features": (6, 2, 3), "ids": [...]}) and a tensor alone, as torch 2 pickles them */
static void pytorch(void **state) {
    (void)state;
#define STR(n, s) "X" n "\0\0\0" s
#define TENSOR                                                                                                         \
    "ctorch._utils\n_rebuild_tensor_v2\n((" STR("\7", "storage") "ctorch\nFloatStorage\n" STR("\1", "0")               \
        STR("\3", "cpu") "K\44tQK\0K\6K\2K\3\x87K\6K\3K\1\x87\x89"                                                     \
                         "ccollections\nOrderedDict\n)RtR"
    static const char dict[] = "\x80\2}(" STR("\x8", "features") TENSOR STR("\3", "ids") "](" STR("\3", "391")
        STR("\2", "52") STR("\1", "7") STR("\7", "b.x.jpg") STR("\1", "c") STR("\1", "d") "eu.";
    static const char alone[] = "\x80\2" TENSOR ".";
    float v[N * ROW];
    fill(v, 0, N);
    zip_add("f/data.pkl", dict, sizeof dict - 1);
    zip_add("f/data/0", v, sizeof v);
    zip_put("f.pt");
    ImportSpec spec = spec_for("f.pt");
    taken(&spec, in_order, N);
    zip_add("f/data.pkl", alone, sizeof alone - 1);
    zip_add("f/data/0", v, sizeof v);
    zip_put("g.pt");
    spec = spec_for("g.pt");
    put_text("ids.txt", "391\n52\n7\nb.x\nc\nd\n");
    spec.ids = "ids.txt";
    taken(&spec, in_order, N);
    static const char tuple[] = "\x80\2" TENSOR "](" STR("\3", "391") STR("\2", "52") STR("\1", "7") STR("\3", "b.x")
        STR("\1", "c") STR("\1", "d") "e\x86.", none[] = "\x80\2}.";
    zip_add("f/data.pkl", tuple, sizeof tuple - 1);                       /* (features, names) */
    zip_add("f/data/0", v, sizeof v);
    zip_put("t.pt");
    spec = spec_for("t.pt");
    taken(&spec, in_order, N);
    zip_add("f/data.pkl", none, sizeof none - 1);
    zip_put("n.pt");
    spec.features = "n.pt";
    refused(&spec, "n.pt: holds no tensors where they are looked for");
    scratch_put("p.pkl", "\x80\4\x95\0\0\0\0\0\0\0\0.", 12);
    spec.features = "p.pkl";
    refused(&spec, "p.pkl: is a Python pickle, not features (.npy, .npz, .safetensors, .pt, HDF5); python3 -c \"import "
                   "pickle, numpy;");
    put_text("t.parquet", "PAR1....PAR1");
    spec.features = "t.parquet";
    refused(&spec, "t.parquet: is a Parquet table, not features (.npy, .npz, .safetensors, .pt, HDF5); python3 -c "
                   "\"import pandas, numpy;");
    put_text("p.txt", "hello, world\n");
    spec.features = "p.txt";
    refused(&spec, "p.txt: is not features");
}

/* The example of liblzf's own description: a run, a copy that overlaps itself, a long one; and what must not unpack */
static void lzf(void **state) {
    (void)state;
    static const uint8_t packed[] = {2, 'a', 'b', 'c', 0x20, 2, 0xe0, 1, 0};
    uint8_t out[32];
    assert_int_equal(lzf_unpack(out, sizeof out, packed, sizeof packed), 3 + 3 + 10);
    assert_memory_equal(out, "abcabccccccccccc", 16);
    assert_int_equal(lzf_unpack(out, 15, packed, sizeof packed), 0);
    assert_int_equal(lzf_unpack(out, sizeof out, packed, sizeof packed - 1), 0);
    assert_int_equal(lzf_unpack(out, sizeof out, packed + 4, 2), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numpy_ids),     cmocka_unit_test(one_array_an_image), cmocka_unit_test(parts),
        cmocka_unit_test(channels_first), cmocka_unit_test(rows_of_zeros),     cmocka_unit_test(no_captions),
        cmocka_unit_test(names_and_parts),
        cmocka_unit_test(hdf5),          cmocka_unit_test(pytorch),            cmocka_unit_test(lzf),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
