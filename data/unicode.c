/* unicode: see unicode.h. */
#include "data/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "kernels/mem.h"

/* ---- code points and bytes ---- */

Status uni_push(UniText *t, uint32_t c) {
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        uint32_t *v = mem_grow(t->v, cap, sizeof *v);
        if (!v) return ERR_MEMORY;
        t->v = v;
        t->cap = cap;
    }
    t->v[t->n++] = c;
    return OK;
}

void uni_free(UniText *t) {
    free(t->v);
    *t = (UniText){0};
}

/* Table 3-7 of the Unicode standard: the lead byte fixes the length and the range of the second byte; a sequence is
 * given up at its first byte out of range, which is what makes the replaced part maximal. */
size_t utf8_next(const char *s, size_t n, uint32_t *c) {
    const unsigned char *p = (const unsigned char *)s;
    unsigned b = p[0], low = 0x80, high = 0xBF;
    size_t len;
    *c = b;
    if (b < 0x80) return 1;
    if (b >= 0xC2 && b <= 0xDF) len = 2, *c = b & 0x1F;
    else if (b >= 0xE0 && b <= 0xEF) len = 3, *c = b & 0x0F;
    else if (b >= 0xF0 && b <= 0xF4) len = 4, *c = b & 0x07;
    else { *c = UNI_REPLACEMENT; return 1; }
    if (b == 0xE0) low = 0xA0;
    if (b == 0xED) high = 0x9F;   /* surrogates */
    if (b == 0xF0) low = 0x90;
    if (b == 0xF4) high = 0x8F;   /* above U+10FFFF */
    for (size_t i = 1; i < len; i++, low = 0x80, high = 0xBF) {
        if (i >= n || p[i] < low || p[i] > high) { *c = UNI_REPLACEMENT; return i; }
        *c = *c << 6 | (p[i] & 0x3Fu);
    }
    return len;
}

size_t utf8_put(uint32_t c, char out[UTF8_MAX]) {
    unsigned char *o = (unsigned char *)out;
    if (c < 0x80) { o[0] = (unsigned char)c; return 1; }
    if (c < 0x800) {
        o[0] = (unsigned char)(0xC0 | c >> 6);
        o[1] = (unsigned char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        o[0] = (unsigned char)(0xE0 | c >> 12);
        o[1] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
        o[2] = (unsigned char)(0x80 | (c & 0x3F));
        return 3;
    }
    o[0] = (unsigned char)(0xF0 | c >> 18);
    o[1] = (unsigned char)(0x80 | (c >> 12 & 0x3F));
    o[2] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
    o[3] = (unsigned char)(0x80 | (c & 0x3F));
    return 4;
}

bool utf8_valid(const char *s, size_t n, size_t *bad) {
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t k = utf8_next(s + i, n - i, &c);
        if (c == UNI_REPLACEMENT && !(k == 3 && !memcmp(s + i, "\xEF\xBF\xBD", 3))) {
            if (bad) *bad = i;
            return false;
        }
        i += k;
    }
    return true;
}

Status uni_decode(UniText *out, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += utf8_next(s + i, n - i, &c);
        Status st = uni_push(out, c);
        if (st != OK) return st;
    }
    return OK;
}
