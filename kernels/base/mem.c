/* mem: see mem.h. */
#include "kernels/base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/err.h"

bool mem_mul(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}

/* malloc(0) may return NULL, which would look like a failure. */
static size_t at_least_one(size_t n) { return n ? n : 1; }

void *mem_new(size_t count, size_t size) {
    void *p = calloc(at_least_one(count), at_least_one(size));
    if (!p) err_set(ERR_MEMORY, "out of memory: %zu x %zu bytes were asked for", count, size);
    return p;
}

void *mem_grow(void *old, size_t count, size_t size) {
    size_t n = 0;
    void *p = mem_mul(count, size, &n) ? realloc(old, at_least_one(n)) : NULL;
    if (!p) err_set(ERR_MEMORY, "out of memory: %zu x %zu bytes were asked for", count, size);
    return p;
}

static size_t room_of(size_t n) {
    size_t room = 16; /* small enough for a list of one, and past the first four reallocs of a long one */
    while (room < n && room <= SIZE_MAX / 2) room *= 2;
    return room < n ? n : room;
}

Status mem_room(void *array, size_t n, size_t more, size_t size) {
    size_t want = n + more < n ? SIZE_MAX : room_of(n + more);
    void *p;
    if (n && want == room_of(n)) return OK; /* the n came by here, so there is room up to their power */
    memcpy(&p, array, sizeof p);         /* a T * is not a void *, whatever their bits */
    if (!(p = mem_grow(p, want, size))) return ERR_MEMORY;
    memcpy(array, &p, sizeof p);
    return OK;
}

char *mem_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    char *p = mem_new(n, 1);
    if (p) memcpy(p, s, n);
    return p;
}

char *mem_keep(char ***list, size_t *n, char *text) {
    if (text && mem_room(list, *n, 1, sizeof text) == OK) return (*list)[(*n)++] = text;
    free(text);
    return NULL;
}

void mem_free_each(void *const *list, size_t n) {
    for (size_t i = 0; i < n; i++) free(list[i]);
}

void mem_free_list(char **list, size_t n) {
    for (size_t i = 0; list && i < n; i++) free(list[i]);
    free(list);
}

char *mem_format(const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap); /* for the length, then for the text: a list is walked once */
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : mem_new((size_t)n + 1, 1);
    if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}
