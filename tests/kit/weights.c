/* weights: see weights.h. */
#include "tests/kit/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "tests/kit/check.h"

double lcg_draw(Lcg *r) {
    r->s = 1664525u * r->s + 1013904223u;
    return 2 * ((double)r->s / 4294967296.0) - 1;
}

float *weights_add(Weights *w, const char *name, int ndim, const int64_t *shape) {
    StTensor *t = &w->t[w->n++];
    assert_true(w->n <= WEIGHTS_MOST);
    *t = (StTensor){.name = strdup(name), .dtype = DT_F32, .ndim = ndim, .nbytes = sizeof(float)};
    for (int i = 0; i < ndim; i++) t->shape[i] = shape[i], t->nbytes *= (size_t)shape[i];
    float *x = mem_new(t->nbytes, 1);
    assert_non_null(x);
    t->data = x;
    return x;
}

void weights_save(Weights *w, const char *path) {
    assert_int_equal(st_write(path, w->t, w->n, NULL, 0), OK);
    for (size_t i = 0; i < w->n; i++) free((void *)(uintptr_t)w->t[i].data), free((void *)(uintptr_t)w->t[i].name);
    w->n = 0;
}

void weights_fill(float *x, int64_t n, const char *key, size_t len) {
    Lcg r = {0};
    for (size_t i = 0; i < len; i++) r.s = 31 * r.s + (uint8_t)key[i];
    for (int64_t i = 0; i < n; i++) {
        double v = lcg_draw(&r);
        x[i] = len == 3 && !memcmp(key, "one", 3) ? 1 : (float)(key[len - 1] == 'g' ? 1 + 0.2 * v : 0.5 * v);
    }
}

static void add_line(Weights *w, const char *line, size_t len) {
    char name[128];
    int64_t shape[4], n = 1;
    int ndim = 0, keys = 1;
    const char *eq = memchr(line, '=', len), *colon = memchr(line, ':', len);
    assert_true(eq && colon);
    snprintf(name, sizeof name, "%.*s", (int)(eq - line), line);
    for (const char *c = eq; c < colon; c++) keys += *c == ',';
    for (const char *c = colon; c && c < line + len && ndim < 4; c = memchr(c, ',', (size_t)(line + len - c)))
        n *= shape[ndim++] = strtoll(++c, (char **)&c, 10);
    shape[0] *= keys;
    float *x = weights_add(w, name, ndim, shape);
    for (const char *c = eq + 1; c < colon; x += n) {
        size_t k = strcspn(c, ",:");
        weights_fill(x, n, c, k);
        c += k + 1;
    }
}

void weights_text(const char *path, const char *text) {
    Weights w = {0};
    for (size_t n; *text; text += n + (text[n] != 0)) {
        n = strcspn(text, " \n");
        if (n) add_line(&w, text, n);
    }
    weights_save(&w, path);
}
