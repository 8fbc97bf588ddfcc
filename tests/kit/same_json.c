/* same_json: see same_json.h. */
#include "tests/kit/same_json.h"

#include <math.h>
#include <string.h>

#include "tests/kit/check.h"

static double score_of(const Json *list, size_t i) {
    double s = NAN;
    json_num(json_get(json_at(list, i), "score"), &s);
    return s;
}

/* Whether two hits are of the same thing: their strings, and the number of a text, which name it, are equal. */
static bool same_hit(const Json *a, const Json *b) {
    const Json *x;
    const char *key, *s, *t;
    int64_t p = -1, q = -1;
    json_int(json_get(a, "text"), &p), json_int(json_get(b, "text"), &q);
    if (p != q) return false;
    for (key = json_next(a, NULL, &x); key; key = json_next(a, key, &x))
        if ((s = json_str(x, NULL)) && (!(t = json_str(json_get(b, key), NULL)) || strcmp(s, t))) return false;
    return true;
}

/* Best first: place for place the scores are the same, and whoever stands elsewhere, or not at all, in the other list
 * ties with who stands in its place: another rounding may turn them round. */
static void same_ranking(const Json *a, const Json *b, const char *at, double limit) {
    size_t n = json_len(a);
    for (size_t i = 0; i < n; i++) {
        double s = score_of(a, i), t = score_of(b, i);
        if (!(fabs(s - t) <= limit * fmax(1, fabs(t)))) fail_msg("%s: scores %.9g and %.9g in place %zu", at, s, t, i);
        size_t j = 0;
        while (j < n && !same_hit(json_at(a, i), json_at(b, j))) j++;
        if (j < n && j == i) same_json(json_at(a, i), json_at(b, i), at, limit);
        double place = score_of(b, j < n ? j : n - 1);
        if (!(fabs(s - place) <= 2 * limit * fmax(1, fabs(s))))
            fail_msg("%s: what has %.9g in place %zu stands elsewhere, with %.9g", at, s, i, place);
    }
}

void same_json(const Json *a, const Json *b, const char *at, double limit) {
    static const char *const times[] = {"time", "step_ms", "peak_percent", "wait_percent", "start", "gflop_per_pair"};
    const Json *x, *y;
    const char *key, *s, *t;
    double p, q;
    bool u, v;
    if (json_num(a, &p) && json_num(b, &q)) {
        if (!(fabs(p - q) <= limit * fmax(1, fabs(q)))) fail_msg("%s: %.9g and %.9g", at, p, q);
    } else if (json_type(a) != json_type(b) || json_len(a) != json_len(b)) {
        fail_msg("%s: another type or length", at);
    } else if (json_bool(a, &u) && json_bool(b, &v)) {
        if (u != v) fail_msg("%s: true and false", at);
    } else if ((s = json_str(a, NULL)) && (t = json_str(b, NULL))) {
        if (strcmp(s, t)) fail_msg("%s: '%s' and '%s'", at, s, t);
    } else if (json_type(a) == J_ARRAY && !isnan(score_of(a, 0))) {
        same_ranking(a, b, at, limit);
    } else if (json_type(a) == J_ARRAY) {
        for (size_t i = 0; i < json_len(a); i++) same_json(json_at(a, i), json_at(b, i), at, limit);
    } else if (json_type(a) == J_OBJECT) {
        for (key = json_next(a, NULL, &x); key; key = json_next(a, key, &x)) {
            bool skipped = strncmp(key, "pairs_per_s", 11) == 0;
            for (size_t k = 0; k < sizeof times / sizeof *times; k++) skipped |= strcmp(key, times[k]) == 0;
            if (skipped) continue;
            if (!(y = json_get(b, key))) fail_msg("%s: only one has %s", at, key);
            same_json(x, y, key, limit);
        }
    }
}

void same_results(char *x, char *y, const char *name, double limit) {
    char *sx = NULL, *sy = NULL;
    const char *ends = name[strlen(name) - 1] == 'l' ? "\n" : "\1";
    int n = 0;
    x = strtok_r(x, ends, &sx), y = strtok_r(y, ends, &sy);
    for (; x && y; x = strtok_r(NULL, ends, &sx), y = strtok_r(NULL, ends, &sy), n++) {
        Json *p = NULL, *q = NULL;
        assert_int_equal(json_parse(&p, x, strlen(x), name), OK);
        assert_int_equal(json_parse(&q, y, strlen(y), name), OK);
        same_json(p, q, name, limit);
        json_free(p);
        json_free(q);
    }
    if (x || y || !n) fail_msg("%s has more lines on one side, or none", name);
}
