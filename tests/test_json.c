/* json: values, positions of errors, limits, items one at a time, and that what is written reads back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/json.h"

static Json *parse(const char *text) {
    Json *j = NULL;
    if (json_parse(&j, text, strlen(text), "text") != OK) fail_msg("%s", err_message());
    return j;
}

static void values(void **state) {
    (void)state;
    Json *j = parse("\xEF\xBB\xBF{\"a\": [1, -2.5, true, null, \"x\\u0000y\\ud83d\\udc36\"], \"b\": {},"
                    " \"big\": 9223372036854775807}");
    const Json *a = json_get(j, "a"), *v = NULL;
    int64_t i = 0;
    double d = 0;
    bool b = false;
    size_t n = 0;
    assert_int_equal(json_type(j), J_OBJECT);
    assert_int_equal(json_len(j), 3);
    assert_int_equal(json_len(a), 5);
    assert_true(json_int(json_at(a, 0), &i) && i == 1);
    assert_true(json_num(json_at(a, 0), &d) && d == 1.0);
    assert_false(json_int(json_at(a, 1), &i));
    assert_true(json_num(json_at(a, 1), &d) && d == -2.5);
    assert_true(json_bool(json_at(a, 2), &b) && b);
    assert_int_equal(json_type(json_at(a, 3)), J_NULL);
    assert_memory_equal(json_str(json_at(a, 4), &n), "x\0y\xF0\x9F\x90\xB6", 7);
    assert_int_equal(n, 7);
    assert_true(json_int(json_get(j, "big"), &i) && i == INT64_MAX);

    /* what is absent stays absent along a chain */
    assert_null(json_at(a, 5));
    assert_null(json_get(a, "a"));
    assert_null(json_str(json_get(json_get(j, "nope"), "x"), &n));
    assert_int_equal(json_type(NULL), J_NONE);
    assert_int_equal(json_len(NULL), 0);
    assert_null(json_next(a, NULL, &v));

    const char *k = json_next(j, NULL, &v);
    assert_string_equal(k, "a");
    k = json_next(j, k, &v);
    assert_string_equal(k, "b");
    assert_int_equal(json_type(v), J_OBJECT);
    k = json_next(j, k, NULL);
    assert_string_equal(k, "big");
    assert_null(json_next(j, k, &v));
    json_free(j);
    json_free(NULL);
}

static void errors(void **state) {
    (void)state;
    static const struct { const char *text, *says; } bad[] = {
        {"", "t:1:"}, {"{\"a\": 1,\n  \"b\" 2}", "t:2:7: this is not JSON: ':' expected"}, {"[1, 2", "t:1:"},
        {"[1] x", "end of file expected"},
        {"{\"a\":1, \"a\":2}", "duplicate object key"}, {"[NaN]", "invalid token"}, {"[1e999]", "real number overflow"},
        {"[99999999999999999999]", "too big integer"}, {"[\"\xFF\"]", "unable to decode byte 0xff"},
        {"{\"a\\u0000b\": 1}", "NUL byte"},
        {"[\"\\ud800\"]", "invalid Unicode"}, {"[\n\n01]", "t:3:"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Json *j = (Json *)1;
        assert_int_equal(json_parse(&j, bad[i].text, strlen(bad[i].text), "t"), ERR_FORMAT);
        assert_null(j);
        if (!strstr(err_message(), bad[i].says)) fail_msg("%s does not say %s", err_message(), bad[i].says);
    }
    static char deep[200000];
    memset(deep, '[', sizeof deep);
    Json *j;
    assert_int_equal(json_parse(&j, deep, sizeof deep, "deep"), ERR_FORMAT);
    assert_int_equal(json_parse_file(&j, "/nowhere/x.json"), ERR_IO);
    assert_non_null(strstr(err_message(), "/nowhere/x.json"));
    assert_int_equal(json_parse_file(&j, "/"), ERR_IO);
}

/* ---- files ---- */

static char path[] = "/tmp/qf-json-XXXXXX";

static void put(const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(text, 1, strlen(text), f);
    fclose(f);
}

static Status sum(void *ctx, int64_t index, const Json *item) {
    int64_t v = 0, *s = ctx;
    assert_int_equal(index, s[1]++);
    if (!json_int(json_get(item, "v"), &v)) return err_set(ERR_FORMAT, "no v");
    s[0] += v;
    return OK;
}

static void items(void **state) {
    (void)state;
    static const struct { const char *text; Status st; int64_t sum, n; const char *says; } c[] = {
        {"[]", OK, 0, 0, ""}, {" [ ] \n", OK, 0, 0, ""}, {"", OK, 0, 0, ""}, {"\n\n", OK, 0, 0, ""},
        {"[{\"v\":1}\n,{\"v\": 2, \"s\":\"]},\\\"\"} ]", OK, 3, 2, ""},
        {"\xEF\xBB\xBF{\"v\":1}\n{\"v\":20}\n\n{\"v\":300}", OK, 321, 3, ""},
        {"{\"v\":1}{\"v\":2}", OK, 3, 2, ""},
        {"[{\"v\":1} {\"v\":2}]", ERR_FORMAT, 1, 1, ":1: ',' or ']'"},
        {"[{\"v\":1},]", ERR_FORMAT, 1, 1, ":1:10:"},
        {"[{\"v\":1},\n{\"v\" 2}]", ERR_FORMAT, 1, 1, ":2:6:"},
        {"[{\"v\":1},\n\n   {\"w\":2}]", ERR_FORMAT, 1, 2, ":3: no v"},
        {"[{\"v\":1}] 5", ERR_FORMAT, 1, 1, "text after"}, {"[{\"v\":1}", ERR_FORMAT, 1, 1, "',' or ']'"},
        {"[{\"v\":\"", ERR_FORMAT, 0, 0, ":1:"}, {"[", ERR_FORMAT, 0, 0, ""}, {"]", ERR_FORMAT, 0, 0, ""},
        {"{\"v\":1}\n}", ERR_FORMAT, 1, 1, ":2:1:"}, {"[,]", ERR_FORMAT, 0, 0, ""}, {"[\"\\", ERR_FORMAT, 0, 0, ""},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        int64_t s[2] = {0, 0};
        put(c[i].text);
        Status st = json_each(path, sum, s);
        if (st != c[i].st || s[0] != c[i].sum || s[1] != c[i].n || (st != OK && !strstr(err_message(), c[i].says)))
            fail_msg("case %zu: %s, sum %lld of %lld, %s", i, err_name(st), (long long)s[0], (long long)s[1],
                     err_message());
    }
    assert_int_equal(json_each("/nowhere", sum, NULL), ERR_IO);
    assert_int_equal(json_each("/", sum, NULL), ERR_IO);
}

static void written(void **state) {
    (void)state;
    static const double numbers[] = {0, -0.0, 1, 0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789012345678.0,
                                     2.5e-7};
    for (int indent = 0; indent <= 2; indent += 2) {
        FILE *f = fopen(path, "w+b");
        JsonWriter w;
        jw_begin(&w, f, indent);
        for (int line = 0; line < 2; line++) {
            jw_object(&w, NULL);
            jw_strn(&w, "s \"key\"", "a\"\\\n\t\x01\0\x7F \xC3\xA9\xF0\x9F\x90\xB6 bad \xE2\x82", 22);
            jw_array(&w, "numbers");
            for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) jw_num(&w, NULL, numbers[i]);
            jw_end(&w);
            jw_array(&w, "empty"); jw_end(&w);
            jw_object(&w, "o"); jw_bool(&w, "t", true); jw_null(&w, "n"); jw_end(&w);
            jw_int(&w, "i", INT64_MIN);
            jw_str(&w, "none", NULL);
            jw_raw(&w, "raw", "[1,2]");
            jw_end(&w);
        }
        assert_int_equal(jw_done(&w), OK);
        char text[4096];
        rewind(f);
        size_t n = fread(text, 1, sizeof text, f);
        fclose(f);
        if (!indent) assert_int_equal(n, 2 * (size_t)((char *)memchr(text, '\n', n) + 1 - text));
        Json *j;
        n /= 2;
        assert_memory_equal(text, text + n, n);
        if (json_parse(&j, text, n, "written") != OK) fail_msg("%s\n%.*s", err_message(), (int)n, text);
        size_t len;
        const char *s = json_str(json_get(j, "s \"key\""), &len);
        assert_int_equal(len, 23);
        assert_memory_equal(s, "a\"\\\n\t\x01\0\x7F \xC3\xA9\xF0\x9F\x90\xB6 bad \xEF\xBF\xBD", 23);
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            double d = 1;
            assert_true(json_num(json_at(json_get(j, "numbers"), i), &d));
            assert_memory_equal(&d, &numbers[i], numbers[i] == 0 ? 0 : sizeof d);
        }
        int64_t v;
        assert_true(json_int(json_get(j, "i"), &v) && v == INT64_MIN);
        assert_int_equal(json_len(json_get(j, "empty")), 0);
        assert_int_equal(json_type(json_get(json_get(j, "o"), "n")), J_NULL);
        assert_int_equal(json_len(json_get(j, "raw")), 2);
        json_free(j);
    }
}

static void failures(void **state) {
    (void)state;
    JsonWriter w;
    FILE *f = fopen(path, "wb");
    jw_begin(&w, f, 0);
    jw_object(&w, NULL);
    jw_num(&w, "loss", NAN);
    jw_num(&w, "other", INFINITY);
    jw_end(&w);
    assert_int_equal(jw_done(&w), ERR_NUMERIC);
    assert_non_null(strstr(err_message(), "\"loss\""));
    fclose(f);
    Json *j;
    assert_int_equal(json_parse_file(&j, path), OK);
    assert_int_equal(json_type(json_get(j, "loss")), J_NULL);
    json_free(j);
    f = fopen("/dev/full", "wb");
    if (!f) skip();
    jw_begin(&w, f, 0);
    jw_int(&w, NULL, 1);
    assert_int_equal(jw_done(&w), ERR_IO);
    fclose(f);
}

static int make_path(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state) {
    (void)state;
    return unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values), cmocka_unit_test(errors), cmocka_unit_test(items), cmocka_unit_test(written),
        cmocka_unit_test(failures),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
