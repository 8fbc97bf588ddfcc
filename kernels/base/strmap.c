/* strmap: see strmap.h. The hash is FNV-1a with a final mix, so that the low bits depend on every byte. */
#include "kernels/base/strmap.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

static struct StrSlot *probe(const StrMap *m, const char *key) {
    uint64_t h = hash_bytes(HASH_START, key, strlen(key));
    /* FNV's low bits alone decide the slot, and are its worst */
    h ^= h >> 32;
    for (size_t i = (size_t)h & (m->cap - 1);; i = (i + 1) & (m->cap - 1))
        if (!m->slot[i].key || !strcmp(m->slot[i].key, key)) return &m->slot[i];
}

int64_t *strmap_get(const StrMap *m, const char *key) {
    if (!m->cap) return NULL;
    struct StrSlot *s = probe(m, key);
    return s->key ? &s->value : NULL;
}

static Status grow(StrMap *m) {
    StrMap bigger = {.cap = m->cap ? 2 * m->cap : 64, .n = m->n};
    bigger.slot = mem_new(bigger.cap, sizeof *bigger.slot);
    if (!bigger.slot) return ERR_MEMORY;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slot[i].key) *probe(&bigger, m->slot[i].key) = m->slot[i];
    free(m->slot);
    *m = bigger;
    return OK;
}

Status strmap_put(StrMap *m, const char *key, int64_t value) {
    /* at most half full: a search mostly ends at its first slot */
    if (2 * (m->n + 1) > m->cap && grow(m) != OK) return ERR_MEMORY;
    struct StrSlot *s = probe(m, key);
    /* whoever counts occurrences asks first: two values for one key are a slip */
    BUG_ON(s->key != NULL, "strmap_put: %s is there already", key);
    *s = (struct StrSlot){.key = key, .value = value};
    m->n++;
    return OK;
}

void strmap_free(StrMap *m) {
    free(m->slot);
    *m = (StrMap){0};
}
