/* words: see words.h. */
#include "eval/metrics/words.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

static uint64_t mix(uint64_t h) {
    h *= 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}

static uint64_t hash_text(const char *s, size_t n) {
    uint64_t h = n, w;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = mix(h ^ w);
    }
    w = 0;
    if (n) memcpy(&w, s, n);
    return mix(h ^ w) | 1;   /* 0 is a free place */
}

static bool grow_table(Words *w) {
    size_t size = w->table ? (w->mask + 1) * 2 : 4096;
    struct Word *table = mem_new(size, sizeof *table);
    if (!table) return false;
    for (size_t i = 0; w->table && i <= w->mask; i++) {
        size_t at = w->table[i].hash >> 8 & (size - 1);
        if (!w->table[i].hash) continue;
        while (table[at].hash) at = (at + 1) & (size - 1);
        table[at] = w->table[i];
    }
    free(w->table);
    w->table = table;
    w->mask = size - 1;
    return true;
}

static bool keep_text(Words *w, const char *s, size_t n) {
    if (mem_room(&w->text, w->ntext, n, 1) != OK) return false;
    if (n) memcpy(w->text + w->ntext, s, n);
    w->ntext += n;
    return true;
}

Status words_id(Words *w, const char *s, size_t n, uint32_t *id) {
    uint64_t h = hash_text(s, n);
    size_t at;
    if ((!w->table || w->n >= w->mask / 2) && !grow_table(w)) return ERR_MEMORY;
    for (at = h >> 8 & w->mask; w->table[at].hash; at = (at + 1) & w->mask) {
        const struct Word *x = &w->table[at];
        if (x->hash == h && x->len == n && (!n || !memcmp(w->text + x->at, s, n))) {
            *id = x->id;
            return OK;
        }
    }
    if (w->n == WORDS_MAX || n > UINT32_MAX || w->ntext > UINT32_MAX - n)
        return err_set(ERR_MEMORY, "the captions have more than 4 GiB of different words");
    w->table[at] = (struct Word){ h, (uint32_t)w->ntext, (uint32_t)n, w->n };
    if (!keep_text(w, s, n)) {
        w->table[at].hash = 0;                               /* a word that is not there must not be found */
        return ERR_MEMORY;
    }
    *id = w->n++;
    return OK;
}

void words_free(Words *w) {
    mem_free(w->table, w->text);
    *w = (Words){0};
}
