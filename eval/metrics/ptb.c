/* ptb: see ptb.h. A caption becomes an array of symbols, matches become tokens, tokens are printed one by one. */
#include "eval/metrics/ptb.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "eval/metrics/ptb_tables.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { BMP = 0x10000, TAIL = 2 };

struct Ptb {
    Dfa *dfa;
    uint8_t symbol_of[BMP];      /* code point to symbol */
    uint8_t *symbols;            /* (n + TAIL) the caption */
    uint32_t *at;                /* (n + TAIL) where each symbol's bytes begin */
    size_t cap;
    char *out;
    size_t nout, cap_out;
    UniText word, lower;         /* a token with letters beyond ASCII */
};

static uint8_t ascii(uint32_t c) {
    if (c >= ' ' && c < 0x7F) return (uint8_t)c;
    if (c == '\t') return '\t';
    return c == 0 || (c >= '\n' && c <= '\r') ? ' ' : OTHER;         /* no token contains NUL or a line end */
}

static void read_points(uint8_t *symbol_of) {
    memset(symbol_of, OTHER, BMP);
    for (uint32_t c = 0; c < 128; c++) symbol_of[c] = ascii(c);
    for (size_t i = 0; i < sizeof PTB_POINTS / sizeof *PTB_POINTS; i++)
        for (char *at = (char *)(uintptr_t)PTB_POINTS[i].points; *at;) {   /* only read: strtoul is older than const */
            unsigned long first = strtoul(at, &at, 16), last = *at == '-' ? strtoul(at + 1, &at, 16) : first;
            memset(symbol_of + first, PTB_POINTS[i].symbol, last - first + 1);
        }
}

Status ptb_new(Ptb **out) {
    const char *patterns[PTB_NRULES];
    Ptb *p = *out = mem_new(1, sizeof *p);
    if (!p) return ERR_MEMORY;
    for (size_t i = 0; i < PTB_NRULES; i++) patterns[i] = PTB_RULES[i].pattern;
    read_points(p->symbol_of);
    DfaSpec spec = { patterns, PTB_NRULES, PTB_NAMES, sizeof PTB_NAMES / sizeof *PTB_NAMES,
                     PTB_ESCAPES, sizeof PTB_ESCAPES / sizeof *PTB_ESCAPES, p->symbol_of };
    Status st = dfa_new(&p->dfa, &spec);
    if (st == OK) return OK;
    ptb_free(p);
    *out = NULL;
    return st;
}

void ptb_free(Ptb *p) {
    if (!p) return;
    dfa_free(p->dfa);
    mem_free(p->symbols, p->at, p->out);
    uni_free(&p->word);
    uni_free(&p->lower);
    free(p);
}

/* Fills p->symbols and p->at; returns the number of symbols without the tail. */
static Status decode(Ptb *p, const char *text, size_t n, size_t *count) {
    size_t k = 0;
    if (n + TAIL > p->cap) {
        size_t cap = 2 * (n + TAIL);
        uint8_t *symbols = mem_grow(p->symbols, cap, sizeof *symbols);
        uint32_t *at = symbols ? mem_grow(p->at, cap, sizeof *at) : NULL;
        if (symbols) p->symbols = symbols;
        if (!at) return ERR_MEMORY;
        p->at = at;
        p->cap = cap;
    }
    for (size_t i = 0; i < n; k++) {
        uint32_t c = (unsigned char)text[i];
        p->at[k] = (uint32_t)i;
        if (c < 128) i++;
        else i += utf8_next(text + i, n - i, &c);
        p->symbols[k] = c < BMP ? p->symbol_of[c] : OTHER;
    }
    p->symbols[k] = '\n';                                    /* rules may ask what follows the last token */
    p->symbols[k + 1] = '~';
    p->at[k] = p->at[k + 1] = (uint32_t)n;
    *count = k;
    return OK;
}

/* ---- printing ---- */

/* Not mem_room: every caption begins at 0 again, and the memory of the longest one so far should stay. */
static Status reserve(Ptb *p, size_t more) {
    if (more <= p->cap_out - p->nout) return OK;
    size_t cap = 2 * (p->nout + more);
    char *grown = mem_grow(p->out, cap, 1);
    if (!grown) return ERR_MEMORY;
    p->out = grown;
    p->cap_out = cap;
    return OK;
}

static void put(Ptb *p, const char *s, size_t n) {
    memcpy(p->out + p->nout, s, n);
    p->nout += n;
}

/* What a symbol of a copied token is printed as, if not as itself. */
static const char *replacement(uint8_t symbol, int form) {
    bool quotes = form == QUOTES;
    switch (symbol) {
    case ' ': case '\t': return "\xC2\xA0";
    case '(': return form == MARKUP ? NULL : "-lrb-";
    case ')': return form == MARKUP ? NULL : "-rrb-";
    case SHY: return "";
    case APOS: case RSINGLE: return quotes ? "'" : NULL;
    case LSINGLE: return quotes ? "`" : NULL;
    case LDOUBLE: return quotes ? "``" : NULL;
    case RDOUBLE: return quotes ? "''" : NULL;
    default: return NULL;
    }
}

/* A token that is not plain ASCII. Lower case depends on the neighbours (final sigma), so it is taken as a whole. */
static Status put_wide(Ptb *p, const char *text, size_t from, size_t to, int form) {
    Status st = OK;
    p->word.n = p->lower.n = 0;
    for (size_t i = from; i < to && !st; i++) {
        const char *r = replacement(p->symbols[i], form);
        st = r ? uni_decode(&p->word, r, strlen(r))
               : uni_decode(&p->word, text + p->at[i], p->at[i + 1] - p->at[i]);
    }
    if (st || (st = uni_lower(&p->lower, p->word.v, p->word.n))) return st;
    if ((st = reserve(p, (p->lower.n + 1) * UTF8_MAX))) return st;
    for (size_t i = 0; i < p->lower.n; i++) p->nout += utf8_put(p->lower.v[i], p->out + p->nout);
    if (!p->lower.n) put(p, "-", 1);   /* a soft hyphen alone */
    return OK;
}

/* Symbols [from, to) of the caption as a copied token. */
static Status put_copy(Ptb *p, const char *text, size_t from, size_t to, int form) {
    Status st;
    size_t begin = p->nout;
    if ((st = reserve(p, to - from))) return st;
    for (size_t i = from; i < to; i++) {
        uint8_t c = p->symbols[i];
        /* most tokens are ASCII and need no look at their neighbours */
        if (c >= 128 || c <= ' ' || c == '(' || c == ')') {
            p->nout = begin;
            return put_wide(p, text, from, to, form);
        }
        p->out[p->nout++] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    return OK;
}

/* The tokens that pycocoevalcap deletes. (-LRB- and its like are on its list too, but here they are in lower case.) */
static bool deleted(const char *s, size_t n) {
    static const char *const list[] = { "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";" };
    if (n > 3) return false;                                 /* no mark is longer */
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (strlen(list[i]) == n && !memcmp(list[i], s, n)) return true;
    }
    return false;
}

/* ---- tokens ---- */

static bool is_blank(uint8_t c) { return c == ' ' || c == '\t' || c == BLANK || c == NBSP; }

static size_t first_blank(const uint8_t *s) {
    size_t i = 0;
    while (!is_blank(s[i])) i++;
    return i;
}

/* How many of the `n` symbols matched are the token. */
static size_t take(int how, const uint8_t *s, size_t n) {
    switch (how) {
    case BUT_1: case BUT_2: case BUT_3: return n - (size_t)(how - BUT_1 + 1);
    case FIRST_1: case FIRST_2: return (size_t)(how - FIRST_1 + 1);
    case DOT_AGAIN: return first_blank(s);
    case TO_DOT: return (size_t)((const uint8_t *)memchr(s, '.', n) - s) + 1;
    default: return n;
    }
}

static const struct PtbRule COPIED = { ALL, COPY, NULL, NULL };

/* "at&amp;t" to "at&t", in what has been printed since `begin`. */
static void drop_entities(Ptb *p, size_t begin) {
    size_t to = begin;
    for (size_t i = begin; i < p->nout; i++) {
        p->out[to++] = p->out[i];
        if (p->out[i] == '&' && p->nout - i >= 5 && !memcmp(p->out + i, "&amp;", 5)) i += 4;
    }
    p->nout = to;
}

static Status put_token(Ptb *p, const char *text, size_t from, size_t to, const struct PtbRule *rule, bool raw) {
    size_t begin, space = p->nout > 0;
    Status st;
    if (rule->form == HALVES) {
        /* can|not, gim|me, wan|na: all break behind three letters */
        if ((st = put_token(p, text, from, from + 3, &COPIED, raw))) return st;
        return put_token(p, text, from + 3, to, &COPIED, raw);
    }
    begin = p->nout;
    if ((st = reserve(p, 16))) return st;
    if (space) put(p, " ", 1);
    if (rule->form == TEXT) put(p, rule->text, strlen(rule->text));
    else if ((st = put_copy(p, text, from, to, rule->form))) return st;
    if (rule->form == AMPS) drop_entities(p, begin);
    /* punctuation, which the scores do not see */
    if (!raw && deleted(p->out + begin + space, p->nout - begin - space)) p->nout = begin;
    return OK;
}

static Status run(Ptb *p, const char *text, size_t n, bool raw, const char **out, size_t *len) {
    size_t count, i = 0;
    Status st;
    *out = NULL;
    *len = 0;
    if (n > PTB_MAX_BYTES)
        return err_set(ERR_FORMAT, "a caption has %zu bytes, %d are the most that are tokenized", n, PTB_MAX_BYTES);
    p->nout = 0;
    if ((st = decode(p, text, n, &count))) return st;
    while (i < count) {
        const struct PtbRule *rule;
        size_t matched, used, ahead = count + TAIL - i;
        int r;
        if (is_blank(p->symbols[i]) || p->symbols[i] == OTHER) { i++; continue; }
        r = dfa_match(p->dfa, p->symbols + i, ahead < PTB_MAX_TOKEN ? ahead : PTB_MAX_TOKEN, &matched);
        if (r < 0) { i++; continue; }   /* a character that means something inside a word only */
        rule = &PTB_RULES[r];
        /* a rule may look further than its token reaches */
        used = take(rule->take, p->symbols + i, matched);
        if (rule->form != SKIP && (st = put_token(p, text, i, i + used, rule, raw))) return st;
        i += rule->take == DOT_AGAIN ? used - 1 : used;
    }
    if ((st = reserve(p, 1))) return st;
    p->out[p->nout] = 0;
    *out = p->out;
    *len = p->nout;
    return OK;
}

Status ptb_tokenize(Ptb *p, const char *text, size_t n, const char **out, size_t *len) {
    return run(p, text, n, false, out, len);
}

Status ptb_raw(Ptb *p, const char *text, size_t n, const char **out, size_t *len) {
    return run(p, text, n, true, out, len);
}
