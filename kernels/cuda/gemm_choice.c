/* gemm_choice: see gemm_choice.h. */
#include "kernels/cuda/gemm_choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

/* Which of the heuristic's answers is taken for a shape. */
typedef struct { GemmKey key; int answer; } Choice;

static struct {
    Choice *choice;
    int choices, cap_choices;
} my;

/* Up to the next number of four significant bits. */
static int64_t bucket(int64_t x) {
    int64_t step = 1;
    while (x / step >= 16) step *= 2;
    return (x + step - 1) / step * step;
}

static uint8_t alignment(const void *p) {
    uint8_t s = 0;
    while (s < 4 && !((uintptr_t)p >> s & 1)) s++;
    return s;
}

GemmKey gemm_key(const Gemm *g, const void *bias) {
    return (GemmKey){.m = bucket(g->m), .n = bucket(g->n), .k = bucket(g->k),
                     .lda = g->lda, .ldb = g->ldb, .ldc = g->ldc, .ab = (uint8_t)g->ab, .ct = (uint8_t)g->ct,
                     .ta = g->ta, .tb = g->tb, .add = g->add, .bias = !bias ? NO_BIAS : g->sums ? SUMS : ADDED,
                     .align_a = alignment(g->a), .align_b = alignment(g->b),
                     .align_c = alignment(g->c), .align_bias = bias ? alignment(bias) : 0,
                     .act = g->act && !g->act->up ? (uint8_t)(1 + g->act->kind) : 0,
                     .grad = g->act && g->grad && !g->act->up ? g->act->h ? 2 : 1 : 0};
}

GemmKey gemm_group_key(const Gemm *g, int n) {
    /* the first and the number say enough: groups of a model are its layers, in one order */
    GemmKey key = gemm_key(g, g->sums);
    key.group = (uint8_t)n;
    return key;
}

Gemm gemm_rounded(const GemmKey *key, const Gemm *g) {
    Gemm r = *g;
    r.m = key->m, r.n = key->n, r.k = key->k;
    if (g->lda < (g->ta ? r.m : r.k)) r.m = g->ta ? g->m : r.m, r.k = g->ta ? r.k : g->k;
    if (g->ldb < (g->tb ? r.k : r.n)) r.k = g->tb ? g->k : r.k, r.n = g->tb ? r.n : g->n;
    if (g->ldc < r.n) r.n = g->n;
    return r;
}

int gemm_choice(const GemmKey *key) {
    for (int i = 0; i < my.choices; i++)
        if (!memcmp(&my.choice[i].key, key, sizeof *key)) return my.choice[i].answer;
    return -1;
}

Status gemm_choose(const GemmKey *key, int answer) {
    void *list = my.choice;
    /* the first stands: a resumed run reads its choices before it times anything */
    if (gemm_choice(key) >= 0) return OK;
    if (my.choices == my.cap_choices) {
        my.cap_choices = my.cap_choices ? 2 * my.cap_choices : 64;
        if (!(list = mem_grow(list, (size_t)my.cap_choices, sizeof *my.choice))) return ERR_MEMORY;
        my.choice = list;
    }
    my.choice[my.choices++] = (Choice){*key, answer};
    return OK;
}

/* A line a choice: the key's numbers, and which answer. The first is the title. */
#define KEY_NUMBERS(X) X(m) X(n) X(k) X(lda) X(ldb) X(ldc) X(ab) X(ct) X(ta) X(tb) X(add) X(bias) X(align_a)           \
    X(align_b) X(align_c) X(align_bias) X(act) X(grad) X(group)
enum {
#define X(field) + 1
    NUMBERS = 0 KEY_NUMBERS(X)
#undef X
};

Status gemm_choices_read(const char *text, const char *title) {
    size_t n = strlen(title);
    if (strncmp(text, title, n) || text[n] != '\n') return OK;  /* of another library or GPU */
    for (const char *at = text + n + 1; *at;) {
        long long v[NUMBERS + 1];
        GemmKey key = {0};
        char *end;
        for (int i = 0; i <= NUMBERS; i++, at = end) {
            v[i] = strtoll(at, &end, 10);
            if (end == at || memchr(at, '\n', (size_t)(end - at))) return OK;   /* not this many in a line */
        }
        if (*end != '\n' || v[NUMBERS] < 0 || v[NUMBERS] > CANDIDATES) return OK;
        int i = 0;
        bool fits = true;
        /* a number cut to its last bits might be another product's */
#define X(field) key.field = (__typeof__(key.field))v[i], fits = fits && (long long)key.field == v[i], i++;
        KEY_NUMBERS(X)
#undef X
        if (!fits) return OK;
        Status st = gemm_choose(&key, (int)v[NUMBERS]);
        if (st != OK) return st;
        at = end + 1;
    }
    return OK;
}

Status gemm_choices_write(char **text, const char *title) {
    size_t at = strlen(title), size = at + 2 + (size_t)my.choices * (NUMBERS + 1) * 21;
    char *s = *text = mem_new(size, 1);
    if (!s) return ERR_MEMORY;
    memcpy(s, title, at);
    s[at++] = '\n';
    for (int i = 0; i < my.choices; i++) {
        const GemmKey *key = &my.choice[i].key;
#define X(field) at += (size_t)snprintf(s + at, size - at, "%lld ", (long long)key->field);
        KEY_NUMBERS(X)
#undef X
        at += (size_t)snprintf(s + at, size - at, "%d\n", my.choice[i].answer);
    }
    return OK;
}
