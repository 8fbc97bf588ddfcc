/* pth: checkpoints that PyTorch wrote give the tensors PyTorch says they hold; broken and hostile ones are refused. The
 * fixtures were written by LAVIS and torch (tests/golden/pth, more in ../shared); the small ones below by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/pth.h"
#include "checkpoints/weights.h"

#define HERE "tests/golden/pth/"
#define SHARED "../shared/golden/stage1/pth/"

static void check_same(const StTensor *got, const StTensor *want) {
    assert_non_null(got);
    assert_int_equal(got->dtype, want->dtype);
    assert_int_equal(got->ndim, want->ndim);
    assert_memory_equal(got->shape, want->shape, (size_t)want->ndim * sizeof *want->shape);
    assert_int_equal(got->nbytes, want->nbytes);
    assert_int_equal((uintptr_t)got->data % (unsigned)dtype_size(got->dtype), 0);
    if (memcmp(got->data, want->data, want->nbytes) != 0) fail_msg("%s differs", want->name);
}

/* All tensors of the expected file, under prefix + name, and (model) no other in the state dict. */
static void check_file(const char *pth, const char *expected) {
    PthFile *f;
    StFile *want;
    size_t in_model = 0;
    if (pth_open(&f, pth) != OK || st_open(&want, expected) != OK) fail_msg("%s", err_message());
    for (size_t i = 0; i < st_count(want); i++) {
        const StTensor *t;
        assert_int_equal(pth_find(f, st_at(want, i)->name, &t), OK);
        check_same(t, st_at(want, i));
    }
    for (size_t i = 0; i < pth_count(f); i++) in_model += pth_in_model(f, i);
    assert_int_equal(in_model, st_count(want));
    st_close(want);
    pth_close(f);

    WeightSource *ws;                                      /* and through the door that everybody uses */
    if (ws_open(&ws, pth, NULL, NULL) != OK || st_open(&want, expected) != OK) fail_msg("%s", err_message());
    assert_int_equal(ws_form(ws), NAMES_LAVIS);
    for (size_t i = 0; i < st_count(want); i++) check_same(ws_find(ws, st_at(want, i)->name), st_at(want, i));
    st_close(want);
    ws_close(ws);
}

static void reads_what_torch_wrote(void **state) {
    (void)state;
    check_file(HERE "bare.pth", HERE "bare.safetensors");
    check_file(HERE "fp16.pth", HERE "fp16.safetensors");
}

/* A traced module, as OpenAI published CLIP: parameters and buffers by name, its code neither read nor run. */
static void reads_torchscript(void **state) {
    (void)state;
    PthFile *f;
    StFile *want;
    const StTensor *t;
    if (pth_open(&f, HERE "script.pth") != OK || st_open(&want, HERE "script.safetensors") != OK)
        fail_msg("%s", err_message());
    assert_int_equal(pth_count(f), st_count(want));
    for (size_t i = 0; i < st_count(want); i++) {
        assert_int_equal(pth_find(f, st_at(want, i)->name, &t), OK);
        check_same(t, st_at(want, i));
    }
    st_close(want);
    pth_close(f);
}

static void reads_all_containers(void **state) {
    (void)state;
    static const char *const files[] = {"zip.pth", "zip_torch1.pth", "legacy.pth"};
    if (access(SHARED "zip.safetensors", R_OK) != 0) skip();
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, SHARED "%s", files[i]);
        check_file(path, SHARED "zip.safetensors");

        PthFile *f;
        StFile *want;
        const StTensor *t;
        assert_int_equal(pth_open(&f, path), OK);
        assert_int_equal(st_open(&want, SHARED "zip_optimizer.safetensors"), OK);
        for (size_t k = 0; k < st_count(want); k++) {      /* exp_avg.7 -> optimizer.state.7.exp_avg */
            const char *name = st_at(want, k)->name, *dot = strrchr(name, '.');
            snprintf(path, sizeof path, "optimizer.state.%s.%.*s", dot + 1, (int)(dot - name), name);
            assert_int_equal(pth_find(f, path, &t), OK);
            check_same(t, st_at(want, k));
        }
        st_close(want);
        pth_close(f);
    }
}

static void refuses_bad_files(void **state) {
    (void)state;
    static const char *const folders[] = {HERE "bad_*.pth", SHARED "bad_*.pth"};
    for (int k = 0; k < 2; k++) {
        glob_t g;
        if (glob(folders[k], 0, NULL, &g) != 0) continue;
        for (size_t i = 0; i < g.gl_pathc; i++) {
            PthFile *f;
            if (pth_open(&f, g.gl_pathv[i]) != ERR_FORMAT) fail_msg("%s was taken", g.gl_pathv[i]);
            assert_null(f);
            assert_ptr_equal(strstr(err_message(), g.gl_pathv[i]), err_message());
        }
        globfree(&g);
    }
    PthFile *f;
    assert_int_equal(pth_open(&f, HERE "bad_command.pth"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "posix.system"));
    assert_int_equal(pth_open(&f, HERE "absent.pth"), ERR_IO);
}

/* ---- the older container, by hand ---- */

static unsigned char file[300000];
static size_t used;

static void put(const void *p, size_t n) {
    memcpy(file + used, p, n);
    used += n;
}
#define PUT(literal) put(literal, sizeof literal - 1)

static void put_start(void) {
    used = 0;
    PUT("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");
    PUT("\x80\x02M\xe9\x03.");
    PUT("\x80\x02}q\x00X\x0d\x00\x00\x00little_endianq\x01\x88s.");
}

/* {name: view of storage "7" of 6 halves} with the given size, stride and offset opcodes. */
static void put_object(const char *size_stride, size_t n) {
    PUT("\x80\x02}X\x01\x00\x00\x00w");
    PUT("ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x00" "7"
        "X\x03\x00\x00\x00" "cpuK\x06NtQ");
    put(size_stride, n);
    PUT("\x89" "ccollections\nOrderedDict\n)RtRs.");
}

static void put_storage(void) {
    int64_t n = 6;
    uint16_t data[6] = {10, 11, 12, 13, 14, 15};
    PUT("\x80\x02]X\x01\x00\x00\x00" "7a.");
    put(&n, sizeof n);
    put(data, sizeof data);
}

static void views_are_made_dense(void **state) {
    (void)state;
    PthFile *f;
    const StTensor *t;
    static const uint16_t want[4] = {11, 14, 12, 15};                 /* w[i][j] = 10 + (1 + i + 3 j) */
    put_start();
    put_object("K\x01K\x02K\x02\x86K\x01K\x03\x86", 12);
    put_storage();
    if (pth_open_memory(&f, file, used, "hand") != OK) fail_msg("%s", err_message());
    assert_int_equal(pth_find(f, "w", &t), OK);
    assert_int_equal(t->dtype, DT_F16);
    assert_int_equal(t->shape[0], 2);
    assert_memory_equal(t->data, want, sizeof want);
    pth_close(f);
    for (size_t k = 0; k < used; k++)                                  /* no cut of it is taken */
        assert_int_equal(pth_open_memory(&f, file, k, "cut"), ERR_FORMAT);

    put_start();                                                       /* one element further: 1 + 1 + 4 = 6 */
    put_object("K\x01K\x02K\x02\x86K\x01K\x04\x86", 12);
    put_storage();
    assert_int_equal(pth_open_memory(&f, file, used, "hand"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "beyond the 6 elements"));

    put_start();                                                       /* 2^31-1 squared elements of stride 0 */
    put_object("K\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\x00K\x00\x86", 18);
    put_storage();
    assert_int_equal(pth_open_memory(&f, file, used, "hand"), OK);
    assert_int_equal(pth_find(f, "w", &t), ERR_FORMAT);                /* refused, not allocated */
    assert_non_null(strstr(err_message(), "repeats"));
    pth_close(f);
}

/* {"e": a dict of what people leave beside weights, as Python's pickle wrote it, "w": the view above}. The dict holds
 * numpy scalars, an array and a dtype, dates, a path, sets, a Namespace, an object of the writer's own class, a deque,
 * Counter, defaultdict, Decimal, UUID, Fraction, complex, bytearray and a long number. */
static void what_lies_beside_weights_is_skipped(void **state) {
    (void)state;
    static const char *const files[] = {HERE "beside_protocol2.bin", HERE "beside_protocol4.bin", HERE "beside_protocol5.bin"};
    char extra[4096];
    for (size_t i = 0; i < 3; i++) {
        PthFile *f;
        const StTensor *t;
        FILE *in = fopen(files[i], "rb");
        if (!in) skip();
        size_t n = fread(extra, 1, sizeof extra, in);
        fclose(in);
        put_start();
        PUT("\x80\x02}X\x01\x00\x00\x00" "e");
        put(extra, n);
        PUT("sX\x01\x00\x00\x00w");
        PUT("ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x00" "7"
            "X\x03\x00\x00\x00" "cpuK\x06NtQK\x01K\x02K\x02\x86K\x01K\x03\x86\x89" "ccollections\nOrderedDict\n)RtRs.");
        put_storage();
        if (pth_open_memory(&f, file, used, "beside") != OK) fail_msg("%s: %s", files[i], err_message());
        assert_int_equal(pth_count(f), 1);
        assert_int_equal(pth_find(f, "w", &t), OK);
        assert_int_equal(((const uint16_t *)t->data)[1], 14);
        pth_close(f);
    }
}

/* Names that only an attack needs, and ways to make a tensor that are not known, which would lose weights. */
static void some_names_are_refused(void **state) {
    (void)state;
    static const char *const names[] = {"cos\nsystem\n", "cposix\nsystem\n", "cbuiltins\neval\n", "c__builtin__\nexec\n",
                                        "csubprocess\nPopen\n", "cos.path\njoin\n", "cbuiltins\n__import__\n",
                                        "ctorch._utils\n_rebuild_qtensor\n", "ctorch._tensor\n_rebuild_from_type_v2\n"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PthFile *f;
        put_start();
        PUT("\x80\x02}X\x01\x00\x00\x00" "e");
        put(names[i], strlen(names[i]));
        PUT("X\x01\x00\x00\x00x\x85Rs.");
        put_storage();
        assert_int_equal(pth_open_memory(&f, file, used, "attack"), ERR_FORMAT);
        if (!strstr(err_message(), "nothing was executed")) fail_msg("%s: %s", names[i], err_message());
    }
}

/* ---- a zip archive by hand, with 32-bit or 64-bit fields ---- */

static void number(uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) file[used++] = (unsigned char)(v >> 8 * i);
}

static void put_zip(bool wide, unsigned method) {
    static unsigned char pickle[512];
    static const char *const names[2] = {"a/data.pkl", "a/data/7"};
    const uint16_t numbers[6] = {10, 11, 12, 13, 14, 15};
    size_t at[2], size[2];
    used = 0;
    put_object("K\x01K\x02K\x02\x86K\x01K\x03\x86", 12);
    memcpy(pickle, file, used);
    size[0] = used, size[1] = sizeof numbers;
    used = 0;
    for (int i = 0; i < 2; i++) {
        at[i] = used;
        number(0x04034b50, 4), number(20, 2), number(0, 2), number(method, 2), number(0, 8), number(size[i], 4),
            number(size[i], 4);
        number(strlen(names[i]), 2), number(3, 2), put(names[i], strlen(names[i])), PUT("FB\x00");
        if (i) put(numbers, size[i]);
        else put(pickle, size[i]);
    }
    size_t directory = used, all = 0xffffffffu;
    for (int i = 0; i < 2; i++) {
        number(0x02014b50, 4), number(45, 2), number(45, 2), number(0, 2), number(method, 2), number(0, 8);
        number(wide ? all : size[i], 4), number(wide ? all : size[i], 4), number(strlen(names[i]), 2);
        number(wide ? 33 : 0, 2), number(0, 2), number(0, 2), number(0, 2), number(0, 4), number(wide ? all : at[i], 4);
        put(names[i], strlen(names[i]));
        if (!wide) continue;
        number(0x5455, 2), number(1, 2), number(0, 1);                /* somebody else's field first */
        number(1, 2), number(24, 2), number(size[i], 8), number(size[i], 8), number(at[i], 8);
    }
    size_t end = used;
    if (wide) {
        number(0x06064b50, 4), number(44, 8), number(45, 2), number(45, 2), number(0, 4), number(0, 4);
        number(2, 8), number(2, 8), number(end - directory, 8), number(directory, 8);
        number(0x07064b50, 4), number(0, 4), number(end, 8), number(1, 4);
    }
    number(0x06054b50, 4), number(0, 4), number(wide ? 0xffff : 2, 2), number(wide ? 0xffff : 2, 2);
    number(wide ? all : end - directory, 4), number(wide ? all : directory, 4), number(3, 2), PUT("hi!");
}

static void reads_both_widths_of_zip(void **state) {
    (void)state;
    static const uint16_t want[4] = {11, 14, 12, 15};
    PthFile *f;
    const StTensor *t;
    for (int wide = 0; wide < 2; wide++) {
        put_zip(wide, 0);
        if (pth_open_memory(&f, file, used, "hand") != OK) fail_msg("%d: %s", wide, err_message());
        assert_int_equal(pth_find(f, "w", &t), OK);
        assert_memory_equal(t->data, want, sizeof want);
        pth_close(f);
        for (size_t k = 0; k < used; k++) assert_int_equal(pth_open_memory(&f, file, k, "cut"), ERR_FORMAT);
        put_zip(wide, 8);
        assert_int_equal(pth_open_memory(&f, file, used, "deflated"), ERR_FORMAT);
        assert_non_null(strstr(err_message(), "compressed"));
    }
}

static void deep_and_circular_values_are_harmless(void **state) {
    (void)state;
    PthFile *f;
    put_start();                                                       /* 60000 lists inside each other */
    PUT("\x80\x02");
    for (int i = 0; i < 60000; i++) PUT("]");
    for (int i = 1; i < 60000; i++) PUT("a");
    PUT(".");
    PUT("\x80\x02].");
    assert_int_equal(pth_open_memory(&f, file, used, "deep"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "no tensors"));

    put_start();                                                       /* d[0] = d[1] = ... = d */
    PUT("\x80\x02}q\x00(");
    for (int i = 0; i < 200; i++) {
        unsigned char item[4] = {'K', (unsigned char)i, 'h', 0};
        put(item, 4);
    }
    PUT("u.");
    PUT("\x80\x02].");
    assert_int_equal(pth_open_memory(&f, file, used, "circle"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "contain each other"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_torch_wrote), cmocka_unit_test(reads_torchscript),
        cmocka_unit_test(reads_all_containers),
        cmocka_unit_test(refuses_bad_files),
        cmocka_unit_test(what_lies_beside_weights_is_skipped),
        cmocka_unit_test(some_names_are_refused),
        cmocka_unit_test(views_are_made_dense),
        cmocka_unit_test(reads_both_widths_of_zip),
        cmocka_unit_test(deep_and_circular_values_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
