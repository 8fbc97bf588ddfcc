/* safetensors: files written by hand and by the reference library are read; broken headers are refused; what is
 * written has the bytes the format asks for; a disk that fails at the n-th step leaves the old file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/outfile.h"
#include "data/format/safetensors.h"
#include "kernels/base/mem.h"
#include "tests/kit/scratch.h"

/* A file of this header and data in memory. */
static unsigned char *image(const char *header, const void *data, size_t ndata, size_t *n) {
    size_t h = strlen(header);
    unsigned char *p = malloc(8 + h + ndata);
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(h >> 8 * i);
    memcpy(p + 8, header, h);
    if (ndata) memcpy(p + 8 + h, data, ndata);
    *n = 8 + h + ndata;
    return p;
}

static Status open_image(StFile **f, unsigned char **bytes, const char *header, size_t ndata) {
    static const unsigned char zeros[64];
    size_t n;
    *bytes = image(header, zeros, ndata, &n);
    return st_open_memory(f, *bytes, n, "image");
}

static void reads_what_stands_there(void **state) {
    (void)state;
    float data[3] = {1.5f, -2, 0.25f};
    size_t n;
    StFile *f;
    /* 3 blanks so that the data is misaligned for f32 */
    unsigned char *p = image("{\"__metadata__\":{\"format\":\"pt\",\"a\":\"\\u00e9\\n\\ud83d\\ude00\"},"
                             "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]},"
                             " \"a.\\\"x\" : {\"shape\":[2,1],\"data_offsets\":[0,8],\"dtype\":\"F32\"},"
                             "\"none\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[12,12]}}   ", data, 12, &n);
    assert_int_equal(st_open_memory(&f, p, n, "hand"), OK);
    assert_int_equal(st_count(f), 3);
    assert_string_equal(st_at(f, 0)->name, "a.\"x");
    assert_string_equal(st_at(f, 1)->name, "b");
    assert_null(st_at(f, 3));
    assert_string_equal(st_meta(f, "format"), "pt");
    assert_string_equal(st_meta(f, "a"), "\xc3\xa9\n\xf0\x9f\x98\x80");
    assert_null(st_meta(f, "b"));
    const StTensor *t = st_find(f, "a.\"x");
    assert_int_equal(t->ndim, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->nbytes, 8);
    assert_int_equal((uintptr_t)t->data % 4, 0);
    assert_memory_equal(t->data, data, 8);
    t = st_find(f, "b");
    assert_int_equal(t->ndim, 0);
    assert_int_equal(st_elements(t), 1);
    assert_memory_equal(t->data, data + 2, 4);
    assert_int_equal(st_find(f, "none")->nbytes, 0);
    assert_null(st_find(f, "c"));
    st_close(f);
    free(p);
}

static void refuses_broken_headers(void **state) {
    (void)state;
#define T(body) "{\"w\":{" body "}}"
    static const struct { const char *header; size_t ndata; const char *says; } cases[] = {
        {"",                                                                        0, "nothing is here"},
        {"[]",                                                                      0, "no object"},
        {"{",                                                                       0, "ends before"},
        {"{}x",                                                                     0, "end of file expected"},
        {"{} ",                                                                     4, "0 bytes"},
        {"{\"w\":1}",                                                               0, "lacks"},
        {"{\"w\":{}}",                                                              0, "lacks"},
        {T("\"dtype\":\"F32\",\"shape\":[1]"),                                      4, "lacks"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1"),       4, "more than these"},
        {T("\"dtype\":\"F32\",\"dtype\":\"F32\",\"data_offsets\":[0,4]"),           4, "duplicate"},
        {T("\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,4]"),                4, "F4"},
        {T("\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]"),               4, "f32"},
        {T("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"),               4, "takes 8"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"),               4, "takes 4"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"),               3, "cut short"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"),               5, "file holds 5"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]"),               8, "begins at byte 4"},
        {T("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"),              4, "whole number"},
        {T("\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]"),             4, "whole number"},
        {T("\"dtype\":\"F32\",\"shape\":[01],\"data_offsets\":[0,4]"),              4, "not JSON"},
        {T("\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,4]"), 4, "too big integer"},
        {T("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0, "too large"},
        {T("\"dtype\":\"U8\",\"shape\":[4611686018427387904,2,0],\"data_offsets\":[0,0]"), 0, "too large"},
        {T("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1, "more than 8"},
        {"{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",          2, "duplicate"},
        {"{\"v\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",          3, "begins at byte 1"},
        {"{\"v\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}",          5, "begins at byte 3"},
        {"{\"__metadata__\":{\"a\":1}}",                                            0, "no string"},
        {"{\"__metadata__\":{},\"__metadata__\":{\"a\":\"b\"}}",                    0, "duplicate"},
        {"{\"a\\u0000\":{}}",                                                       0, "NUL"},
        {"{\"a\\u0007\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",  0, "control"},
        {"{\"\\ud800\":{}}",                                                        0, "Unicode"},
        {"{\"\\x\":{}}",                                                            0, "escape"},
        {"{\"\xc0\x80\":{}}",                                                       0, "decode"},
        {"{\"\xed\xa0\x80\":{}}",                                                   0, "decode"},
        {"{\"\xf4\x90\x80\x80\":{}}",                                               0, "decode"},
        {"{\"\xe2\x82",                                                             0, "decode"},
        {"{\"abc",                                                                  0, "ends before"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        StFile *f;
        unsigned char *bytes;
        assert_int_equal(open_image(&f, &bytes, cases[i].header, cases[i].ndata), ERR_FORMAT);
        assert_null(f);
        if (!strstr(err_message(), cases[i].says)) fail_msg("case %zu: %s", i, err_message());
        assert_ptr_equal(strstr(err_message(), "image:"), err_message());
        free(bytes);
    }
}

static void refuses_every_cut(void **state) {
    (void)state;
    size_t n;
    unsigned char *p = image("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "12345678", 8, &n);
    for (size_t k = 0; k < n; k++) {
        StFile *f;
        assert_int_equal(st_open_memory(&f, p, k, "cut"), ERR_FORMAT);
    }
    p[7] = 0xff;                                           /* a header of 2^63 bytes */
    StFile *f;
    assert_int_equal(st_open_memory(&f, p, n, "huge"), ERR_FORMAT);
    free(p);
}

static void writes_the_bytes_of_the_format(void **state) {
    (void)state;
    float w[2] = {1, 2};
    uint16_t h[1] = {0x3c00};
    StTensor t[] = {{.name = "w\"", .dtype = DT_F32, .ndim = 2, .shape = {1, 2}, .data = w},
                    {.name = "h", .dtype = DT_F16, .ndim = 0, .data = h}};
    StMeta meta[] = {{"format", "pt"}};
    assert_int_equal(st_write(scratch_path("a.safetensors"), t, 2, meta, 1), OK);
    unsigned char got[512];
    FILE *f = fopen(scratch_path("a.safetensors"), "rb");
    size_t n = fread(got, 1, sizeof got, f);
    fclose(f);
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"w\\\"\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
        "\"h\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[8,10]}}";
    size_t data = (8 + strlen(header) + 63) / 64 * 64;
    assert_int_equal(n, data + 10);
    assert_int_equal(got[0] + 256 * got[1], data - 8);
    assert_memory_equal(got + 8, header, strlen(header));
    for (size_t i = 8 + strlen(header); i < data; i++) assert_int_equal(got[i], ' ');
    assert_memory_equal(got + data, w, 8);
    assert_memory_equal(got + data + 8, h, 2);

    StFile *s;
    assert_int_equal(st_open(&s, scratch_path("a.safetensors")), OK);
    assert_memory_equal(st_find(s, "w\"")->data, w, 8);
    assert_string_equal(st_meta(s, "format"), "pt");
    st_close(s);
    t[1].name = t[0].name;
    assert_int_equal(st_write(scratch_path("b.safetensors"), t, 2, NULL, 0), ERR_FORMAT);
    assert_int_equal(st_write(scratch_path("empty.safetensors"), t, 0, NULL, 0), OK);
    assert_int_equal(st_open(&s, scratch_path("empty.safetensors")), OK);
    assert_int_equal(st_count(s), 0);
    assert_null(st_find(s, "w"));
    st_close(s);
    assert_int_equal(st_open(&s, scratch_path("absent.safetensors")), ERR_IO);
    assert_int_equal(st_open(&s, scratch_dir()), ERR_IO);
}

/* ---- the disk fails ---- */

static int countdown;

static int fail_at_zero(const char *step, const char *path) {
    (void)step;
    (void)path;
    return countdown-- == 0 ? ENOSPC : 0;
}

static void old_file_survives_every_failure(void **state) {
    (void)state;
    float old[4] = {1, 2, 3, 4}, new[4] = {5, 6, 7, 8};
    StTensor t[] = {{.name = "a", .dtype = DT_F32, .ndim = 1, .shape = {2}},
                    {.name = "b", .dtype = DT_F32, .ndim = 1, .shape = {2}}};
    int failures = 0;
    for (int n = 0;; n++) {
        outfile_set_hook(NULL);
        t[0].data = old, t[1].data = old + 2;
        assert_int_equal(st_write(scratch_path("w"), t, 2, NULL, 0), OK);
        t[0].data = new, t[1].data = new + 2;
        countdown = n;
        outfile_set_hook(fail_at_zero);
        Status st = st_write(scratch_path("w"), t, 2, NULL, 0);
        outfile_set_hook(NULL);
        StFile *f;
        assert_int_equal(st_open(&f, scratch_path("w")), OK);
        /* The last step, flushing the folder, comes after the rename: then the new one stands there. */
        bool is_new = memcmp(st_find(f, "b")->data, new + 2, 8) == 0;
        assert_true(is_new || memcmp(st_find(f, "b")->data, old + 2, 8) == 0);
        st_close(f);
        glob_t left;
        assert_int_equal(glob(scratch_path("*.tmp-*"), 0, NULL, &left), GLOB_NOMATCH);
        if (st == OK) {
            assert_true(is_new);
            break;
        }
        assert_int_equal(st, ERR_IO);
        assert_non_null(strstr(err_message(), strerror(ENOSPC)));
        failures++;
    }
    assert_int_equal(failures, 7);            /* open, header, two tensors, fsync, rename, fsync of the folder */
}

static void a_really_full_disk_is_a_sentence(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    OutFile *f;
    /* /dev/full answers ENOSPC to every write: reach it through the temporary name. */
    char link[160];
    snprintf(link, sizeof link, "%s/full.tmp-%ld", scratch_dir(), (long)getpid());
    assert_int_equal(symlink("/dev/full", link), 0);
    assert_int_equal(outfile_create(&f, scratch_path("full")), OK);
    assert_int_equal(outfile_write(f, "x", 1), ERR_IO);
    assert_non_null(strstr(err_message(), strerror(ENOSPC)));
    outfile_abandon(f);
}

static void reads_the_reference_librarys_files(void **state) {
    (void)state;
    glob_t g;
    if (glob("../shared/golden/stage1/*/*.safetensors", 0, NULL, &g) != 0) skip();
    for (size_t i = 0; i < g.gl_pathc; i++) {
        StFile *f;
        if (st_open(&f, g.gl_pathv[i]) != OK) fail_msg("%s", err_message());
        assert_true(st_count(f) > 0);
        for (size_t k = 0; k < st_count(f); k++) assert_ptr_equal(st_find(f, st_at(f, k)->name), st_at(f, k));
        st_close(f);
    }
    globfree(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_stands_there),
        cmocka_unit_test(refuses_broken_headers),
        cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(writes_the_bytes_of_the_format),
        cmocka_unit_test(old_file_survives_every_failure),
        cmocka_unit_test(a_really_full_disk_is_a_sentence),
        cmocka_unit_test(reads_the_reference_librarys_files),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_teardown);
}
