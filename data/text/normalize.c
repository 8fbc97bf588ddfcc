/* normalize: see normalize.h. */
#include "data/text/normalize.h"

#include <string.h>

#include "data/text/pieces.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

/* ---- the character map ---- */

/* A unit of the array: its label, whether a key ends below it, where its children are, and a leaf's value. */
static uint32_t label(uint32_t u) { return u & 0x800000FFu; }
static bool has_leaf(uint32_t u) { return u >> 8 & 1; }
static uint32_t offset(uint32_t u) { return (u >> 10) << ((u & 0x200) >> 6); }
static uint32_t value(uint32_t u) { return u & 0x7FFFFFFFu; }

/* Where the replacement of the shortest key that begins s[0..n) starts; -1 when none does. */
static int32_t lookup(const Charsmap *m, const char *s, size_t n) {
    uint32_t at = offset(m->unit[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        at ^= byte;
        if (!byte || at >= m->units || label(m->unit[at]) != byte) return -1; /* label 0 is where leaves hang */
        uint32_t u = m->unit[at];
        at ^= offset(u);
        if (!has_leaf(u)) continue;                          /* the shortest key counts */
        return at < m->units && value(m->unit[at]) < m->ntext ? (int32_t)value(m->unit[at]) : -1;
    }
    return -1;
}

Status charsmap_open(Charsmap *m, const void *bytes, size_t n, const char *name) {
    uint32_t size = 0;
    *m = (Charsmap){0};
    if (n >= 4) memcpy(&size, bytes, 4);
    /* its last byte a NUL: no replacement runs out of the text */
    if (n < 9 || size < 4 || size % 4 || size > n - 5 || ((const char *)bytes)[n - 1])
        return err_set(ERR_FORMAT, "%s: the character map of the normaliser has %zu bytes that do not fit together",
                       name, n);
    m->units = size / 4;
    m->ntext = (uint32_t)(n - 4 - size);
    m->unit = mem_new(m->units, 4);
    m->text = mem_new(m->ntext, 1);
    if (!m->unit || !m->text) return ERR_MEMORY;
    memcpy(m->unit, (const char *)bytes + 4, size);
    memcpy(m->text, (const char *)bytes + 4 + size, m->ntext);
    /* most text is ASCII: no walk for it */
    for (int c = 0; c < 128; c++) m->ascii[c] = lookup(m, (char[]){(char)c}, 1);
    return OK;
}

static Status put_mapped(const Charsmap *m, int32_t at, const char *s, size_t n, TextBytes *out) {
    return at < 0 ? bytes_push(out, s, n) : bytes_push(out, m->text + at, strlen(m->text + at));
}

/* One cluster. */
static Status map_cluster(const Charsmap *m, const char *s, size_t n, TextBytes *out) {
    enum { WHOLE = 6 };
    int32_t at = n < WHOLE ? lookup(m, s, n) : -1;           /* the reference's bound, though longer keys exist */
    if (at >= 0) return put_mapped(m, at, s, n, out);
    Status st = OK;
    for (size_t i = 0, len; i < n && st == OK; i += len) {
        uint32_t c;
        len = utf8_next(s + i, n - i, &c);
        st = put_mapped(m, lookup(m, s + i, len), s + i, len, out);
    }
    return st;
}

/* Bytes of the cluster at the start of s. */
static size_t cluster(const char *s, size_t n) {
    uint32_t c, d;
    int32_t state = 0;
    size_t at = utf8_next(s, n, &c);
    while (at < n) {
        size_t len = utf8_next(s + at, n - at, &d);
        if (uni_cluster_ends(c, d, &state)) break;
        at += len;
        c = d;
    }
    return at;
}

/* Between two ASCII characters a cluster ends, but for CR LF. */
static bool alone(const char *s, size_t n) {
    return (unsigned char)s[0] < 128 && s[0] != '\r' && (n == 1 || (unsigned char)s[1] < 128);
}

static Status map_text(const Charsmap *m, const char *s, size_t n, TextBytes *out) {
    Status st = OK;
    for (size_t i = 0, len; i < n && st == OK; i += len) {
        len = 1;
        if (alone(s + i, n - i)) st = put_mapped(m, m->ascii[(unsigned char)s[i]], s + i, 1, out);
        else st = map_cluster(m, s + i, len = cluster(s + i, n - i), out);
    }
    return st;
}

/* ---- Unicode's forms ---- */

static Status unicode_form(Form form, const char *s, size_t n, TextBytes *out) {
    UniText t = {0};
    Status st = uni_decode(&t, s, n);
    if (st == OK) st = form == FORM_NFC ? uni_nfc(&t) : uni_nfkc(&t);
    for (size_t i = 0; i < t.n && st == OK; i++) {
        char utf8[UTF8_MAX];
        st = bytes_push(out, utf8, utf8_put(t.v[i], utf8));
    }
    uni_free(&t);
    return st;
}

/* A text of characters below U+00A0 is its own NFKC, of characters below U+0300 its own NFC (they compose only with
 * what follows from there). */
static bool is_normal(Form form, const char *s, size_t n) {
    unsigned char least = form == FORM_NFC ? 0xCC : 0xC2, largest = 0;
    for (size_t i = 0; i < n; i++) largest = (unsigned char)s[i] > largest ? (unsigned char)s[i] : largest;
    return largest < least;
}

static Status to_form(const Normalizer *z, const char *s, size_t n, TextBytes *out) {
    if (z->form == FORM_MAP) return map_text(&z->map, s, n, out);
    if (z->form == FORM_NONE || is_normal(z->form, s, n)) return bytes_push(out, s, n);
    return unicode_form(z->form, s, n, out);
}

/* ---- blanks ---- */

static size_t without_blanks_behind(const char *s, size_t n) {
    size_t end = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += utf8_next(s + i, n - i, &c);
        if (!uni_is_white_space(c)) end = i;
    }
    return end;
}

static Status collapse_blanks(const char *s, size_t n, const char *to, TextBytes *out) {
    Status st = OK;
    for (size_t i = 0, run; i < n && st == OK; i += run) {
        for (run = 0; i + run < n && s[i + run] == ' '; run++) {}
        if (run > 1) st = bytes_push(out, to, strlen(to));
        else st = bytes_push(out, s + i, run = 1);
    }
    return st;
}

static Status mark_all(const Normalizer *z, const char *s, size_t n, TextBytes *out) {
    Status st = z->mark_front && n ? bytes_push(out, MARK, MARK_LEN) : OK; /* an empty text stays empty */
    for (size_t i = 0; i < n && st == OK; i++)
        st = z->mark_blanks && s[i] == ' ' ? bytes_push(out, MARK, MARK_LEN) : bytes_push(out, s + i, 1);
    return st;
}

static bool leaves_alone(const Normalizer *z, const char *s, size_t n) {
    if (z->mark_front || z->mark_blanks || z->collapse || z->strip_right || z->form == FORM_MAP) return false;
    return z->form == FORM_NONE || is_normal(z->form, s, n);
}

static void swap(NormalRoom *r) {
    TextBytes made = r->next;
    r->next = r->now;
    r->now = made;
    r->next.n = 0;
}

Status normalize(const Normalizer *z, const char *s, size_t n, NormalRoom *r, const char **out, size_t *nout) {
    *out = s, *nout = n;                                     /* the usual case: nothing to do, nothing copied */
    if (leaves_alone(z, s, n)) return OK;
    r->now.n = r->next.n = 0;
    Status st = to_form(z, s, n, &r->now);
    if (st == OK && z->strip_right) r->now.n = without_blanks_behind(r->now.v, r->now.n);
    if (st == OK && z->collapse) {
        st = collapse_blanks(r->now.v, r->now.n, z->collapse, &r->next);
        swap(r);
    }
    if (st == OK && (z->mark_front || z->mark_blanks)) {
        st = mark_all(z, r->now.v, r->now.n, &r->next);
        swap(r);
    }
    *out = r->now.v, *nout = r->now.n;
    return st;
}

void normalizer_close(Normalizer *z) {
    mem_free(z->map.unit, z->map.text);
    *z = (Normalizer){0};
}

uint64_t normalizer_hash(const Normalizer *z, uint64_t h) {
    const int32_t flags[] = {(int32_t)z->form, z->strip_right, z->mark_front, z->mark_blanks, z->collapse
                             ? z->collapse[0] : 0};
    h = hash_bytes(h, flags, sizeof flags);
    if (!z->map.units) return h;
    return hash_bytes(hash_bytes(h, z->map.unit, 4 * (size_t)z->map.units), z->map.text, z->map.ntext);
}
