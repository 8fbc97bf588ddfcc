/* unicode: see unicode.h. */
#include "kernels/base/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "kernels/base/mem.h"

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
    if (b == 0xE0) low = 0xA0;                               /* below: longer than it need be, which is not allowed */
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
    static const unsigned lead[] = {0, 0, 0xC0, 0xE0, 0xF0};                 /* by length, which the first byte tells */
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(unsigned char)(0x80 | (c & 0x3F));
    out[0] = (char)(unsigned char)(lead[n] | c);
    return n;
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

/* ---- categories ---- */

/* Whether c is in one of the categories of a set, which is a bit a category. */
#define SET(id) (1u << UTF8PROC_CATEGORY_##id)
static bool in(uint32_t c, uint32_t set) { return set >> utf8proc_category((utf8proc_int32_t)c) & 1; }

bool uni_is_control(uint32_t c) { return in(c, SET(CC) | SET(CF) | SET(CN) | SET(CO) | SET(CS)); }
bool uni_is_punct(uint32_t c) { return in(c, SET(PC) | SET(PD) | SET(PS) | SET(PE) | SET(PI) | SET(PF) | SET(PO)); }
bool uni_is_letter(uint32_t c) { return in(c, SET(LU) | SET(LL) | SET(LT) | SET(LM) | SET(LO)); }
bool uni_is_number(uint32_t c) { return in(c, SET(ND) | SET(NL) | SET(NO)); }
bool uni_is_digit(uint32_t c) { return in(c, SET(ND)); }
bool uni_is_space_separator(uint32_t c) { return in(c, SET(ZS)); }
bool uni_is_mark_nonspacing(uint32_t c) { return in(c, SET(MN)); }

bool uni_is_white(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0x2028 || c == 0x2029 ||
           (c > 0x85 && uni_is_space_separator(c));
}

bool uni_is_white_space(uint32_t c) { return uni_is_white(c) && !(c >= 0x1C && c <= 0x1F); }

/* ---- lower case ---- */

static uint32_t lower_simple(uint32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

Status uni_push_lower(UniText *out, uint32_t c) {
    if (c != 0x130) return uni_push(out, lower_simple(c));   /* the only one whose small form is two characters */
    Status st = uni_push(out, 'i');
    return st == OK ? uni_push(out, 0x307) : st;
}

static bool in_ranges(uint32_t c, const uint32_t (*r)[2], size_t n) {
    for (size_t i = 0; i < n; i++)
        if (c >= r[i][0] && c <= r[i][1]) return true;
    return false;
}

/* Property Cased, as far as the rule below can tell it from Case_Ignorable: letters with case, and Other_Lowercase and
 * Other_Uppercase of PropList.txt less what is Lm or Mn, since the rule asks for ignorable first. */
static bool is_cased(uint32_t c) {
    static const uint32_t others[][2] = {
        {0xAA, 0xAA}, {0xBA, 0xBA}, {0x2160, 0x217F}, {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169},
        {0x1F170, 0x1F189},
    };
    return in(c, SET(LU) | SET(LL) | SET(LT)) || in_ranges(c, others, sizeof others / sizeof *others);
}

/* Property Case_Ignorable: Mn Me Cf Lm Sk, and the punctuation of Word_Break MidLetter, MidNumLet and Single_Quote. */
static bool is_case_ignorable(uint32_t c) {
    static const uint32_t punct[][2] = {
        {0x27, 0x27}, {0x2E, 0x2E}, {0x3A, 0x3A}, {0xB7, 0xB7}, {0x387, 0x387}, {0x55F, 0x55F}, {0x5F4, 0x5F4},
        {0x2018, 0x2019}, {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52}, {0xFE55, 0xFE55},
        {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A},
    };
    return in(c, SET(MN) | SET(ME) | SET(CF) | SET(LM) | SET(SK)) ||
           in_ranges(c, punct, sizeof punct / sizeof *punct);
}

/* Final_Sigma of SpecialCasing.txt: a cased letter before, none after, ignorable characters skipped on both sides. A
 * sigma is cased itself, so a walk ends at the next one and all walks together are linear. */
static bool sigma_is_final(const uint32_t *v, size_t n, size_t at) {
    size_t before = at, after = at + 1;
    while (before > 0 && is_case_ignorable(v[before - 1])) before--;
    if (before == 0 || !is_cased(v[before - 1])) return false;
    while (after < n && is_case_ignorable(v[after])) after++;
    return after == n || !is_cased(v[after]);
}

Status uni_lower(UniText *out, const uint32_t *v, size_t n) {
    Status st = OK;
    for (size_t i = 0; i < n && st == OK; i++) {
        if (v[i] == 0x3A3) st = uni_push(out, sigma_is_final(v, n, i) ? 0x3C2 : 0x3C3);
        else st = uni_push_lower(out, v[i]);
    }
    return st;
}

/* ---- decomposition ---- */

static unsigned combining_class(uint32_t c) {
    return c < 0x300 ? 0 : (unsigned)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

/* Puts a run of marks in the order of their classes, stably. Real text has two or three; a run of a million (someone's
 * attack) must not cost a million squared, hence the counting sort. */
static Status order_run(uint32_t *v, size_t n) {
    if (n <= 16) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = i; j > 0 && combining_class(v[j - 1]) > combining_class(v[j]); j--) {
                uint32_t c = v[j];
                v[j] = v[j - 1];
                v[j - 1] = c;
            }
        return OK;
    }
    size_t start[257] = {0};
    uint32_t *sorted = mem_new(n, sizeof *sorted);
    if (!sorted) return ERR_MEMORY;
    for (size_t i = 0; i < n; i++) start[combining_class(v[i]) + 1]++;
    for (size_t k = 1; k <= 256; k++) start[k] += start[k - 1];
    for (size_t i = 0; i < n; i++) sorted[start[combining_class(v[i])]++] = v[i];
    memcpy(v, sorted, n * sizeof *v);
    free(sorted);
    return OK;
}

static Status order_marks(UniText *t) {
    for (size_t i = 0, end; i < t->n; i = end + 1) {
        for (end = i; end < t->n && combining_class(t->v[end]); end++) {}
        Status st = end - i > 1 ? order_run(t->v + i, end - i) : OK;
        if (st != OK) return st;
    }
    return OK;
}

enum { DECOMPOSITION_MAX = 32 };   /* the longest has 18, of canonical ones 4 */

/* With `compat` UTF8PROC_COMPAT or 0. */
static Status decompose(UniText *t, utf8proc_option_t compat) {
    size_t first = 0;
    const uint32_t least = compat ? 0xA0 : 0xC0;   /* nothing below decomposes */
    while (first < t->n && t->v[first] < least) first++;
    if (first == t->n) return OK;                            /* nearly every text: no copy is made */
    UniText out = {0};
    Status st = OK;
    for (size_t i = 0; i < t->n && st == OK; i++) {
        utf8proc_int32_t parts[DECOMPOSITION_MAX];
        int boundary = 0;
        utf8proc_ssize_t k = t->v[i] < least ? -1 : utf8proc_decompose_char((utf8proc_int32_t)t->v[i], parts,
            DECOMPOSITION_MAX, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | compat, &boundary);
        if (k < 0 || k > DECOMPOSITION_MAX) st = uni_push(&out, t->v[i]);
        else for (utf8proc_ssize_t p = 0; p < k && st == OK; p++) st = uni_push(&out, (uint32_t)parts[p]);
    }
    if (st == OK) st = order_marks(&out);
    if (st != OK) {
        uni_free(&out);
        return st;
    }
    uni_free(t);
    *t = out;
    return OK;
}

Status uni_nfd(UniText *t) { return decompose(t, 0); }

/* Composition of what is decomposed and in order; it only shrinks. Piece by piece between U+11A7, which composes with
 * nothing: utf8proc takes it for a final consonant, the one before the first, and drops it behind a syllable. */
static Status compose(UniText *t, utf8proc_option_t compat) {
    enum { BEFORE_FINALS = 0x11A7 };
    size_t n = 0;
    Status st = decompose(t, compat);
    for (size_t i = 0, end; st == OK && i < t->n; i = end) {
        for (end = i; end < t->n && t->v[end] != BEFORE_FINALS; end++);
        utf8proc_ssize_t k = utf8proc_normalize_utf32((utf8proc_int32_t *)t->v + i, (utf8proc_ssize_t)(end - i),
                                                      UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        size_t kept = k < 0 ? end - i : (size_t)k;
        memmove(t->v + n, t->v + i, kept * sizeof *t->v);
        n += kept;
        if (end < t->n) t->v[n++] = t->v[end++];
    }
    if (st == OK) t->n = n;
    return st;
}

Status uni_nfc(UniText *t) { return compose(t, 0); }
Status uni_nfkc(UniText *t) { return compose(t, UTF8PROC_COMPAT); }

/* ---- clusters ---- */

bool uni_cluster_ends(uint32_t before, uint32_t after, int32_t *state) {
    return utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)after, state);
}
