/* nfa: see nfa.h. Thompson's construction (Aho, Sethi, Ullman, section 3.7). */
#include "eval/metrics/nfa.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { SYMBOLS = 256, DEPTH_MAX = 64 };

typedef struct { uint64_t w[4]; } Set;
enum { SPLIT, SET, ACCEPT };
typedef struct { int kind; int32_t a, b; } Node;   /* SPLIT a|b; SET set a, next b; ACCEPT a */

/* Nodes that wait for a symbol, and the earliest pattern that ends here, or -1. */
typedef struct { int32_t *node, n, accept; } States;

struct Nfa {
    Node *nodes;
    int32_t nnodes, start;
    Set *sets;
    int32_t nsets;
    bool failed;                    /* out of memory while building */

    States after[SYMBOLS];          /* each first symbol */
    States turn[2];                 /* (nnodes) the states now and next */
    int32_t *stack, *mark;          /* (nnodes) mark[node] == round: it is in the set under construction */
    int32_t round;
};

/* ---- patterns to nodes ---- */

typedef struct {
    Nfa *d;
    const NfaSpec *spec;
    const char *p, *whole;
    bool nocase;
    int depth;
} Parser;

/* A piece of automaton: enter at `in`; every way out is a SPLIT node `out` whose a is still open. */
typedef struct { int32_t in, out; } Piece;

static Piece parse_alternatives(Parser *ps);

static bool set_has(const Set *s, unsigned c) { return (s->w[c >> 6] >> (c & 63)) & 1; }
static void set_add(Set *s, unsigned c) { s->w[c >> 6] |= (uint64_t)1 << (c & 63); }

static int32_t new_node(Nfa *d, int kind, int32_t a, int32_t b) {
    d->failed |= mem_room(&d->nodes, (size_t)d->nnodes, 1, sizeof *d->nodes) != OK;
    if (d->failed) return 0;
    d->nodes[d->nnodes] = (Node){ kind, a, b };
    return d->nnodes++;
}

static int32_t open_end(Nfa *d) { return new_node(d, SPLIT, -1, -1); }

static void join(Nfa *d, int32_t out, int32_t in) {
    if (!d->failed) d->nodes[out].a = in;
}

static Piece set_piece(Nfa *d, const Set *s) {
    int32_t at = 0, out;
    while (at < d->nsets && memcmp(&d->sets[at], s, sizeof *s)) at++;
    if (at == d->nsets) {
        d->failed |= mem_room(&d->sets, (size_t)d->nsets, 1, sizeof *d->sets) != OK;
        if (d->failed) return (Piece){ 0, 0 };
        d->sets[d->nsets++] = *s;
    }
    out = open_end(d);
    return (Piece){ new_node(d, SET, at, out), out };
}

static void bad_pattern(const Parser *ps, const char *what) {
    BUG_ON(true, "pattern \"%s\" at \"%s\": %s", ps->whole, ps->p, what);
}

/* One character of a pattern as a symbol; the patterns are valid UTF-8. */
static uint8_t symbol(Parser *ps) {
    const unsigned char *u = (const unsigned char *)ps->p;
    uint32_t c = u[0];
    int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC0 ? 1 : 0;
    if (!c) bad_pattern(ps, "ends too early");
    if (more) c &= 0x3Fu >> more;
    for (int i = 1; i <= more; i++) c = c << 6 | (u[i] & 0x3Fu);
    ps->p += more + 1;
    return c < 128 ? (uint8_t)c : ps->spec->symbol(c);
}

/* \x: a symbol or a group of symbols. True: it was one symbol, *c. */
static bool escape(Parser *ps, Set *s, uint8_t *c) {
    char x = *ps->p;
    if (!((x >= 'A' && x <= 'Z') || (x >= 'a' && x <= 'z'))) {
        *c = symbol(ps);
        set_add(s, *c);
        return true;
    }
    ps->p++;
    for (size_t i = 0; i < ps->spec->nescapes; i++) {
        if (ps->spec->escapes[i].letter != x) continue;
        for (size_t j = 0; j < ps->spec->escapes[i].n; j++) set_add(s, ps->spec->escapes[i].symbols[j]);
        return false;
    }
    bad_pattern(ps, "unknown escape");
    return false;
}

static void both_cases(Set *s) {
    for (unsigned c = 'a'; c <= 'z'; c++) {
        if (set_has(s, c)) set_add(s, c - 32);
        else if (set_has(s, c - 32)) set_add(s, c);
    }
}

static Piece parse_set(Parser *ps) {
    Set s = {{0}};
    bool negated = *ps->p == '^';
    if (negated) ps->p++;
    while (*ps->p != ']') {
        uint8_t first;
        if (*ps->p == ' ') { ps->p++; continue; }
        if (*ps->p == '\\') {
            ps->p++;
            if (!escape(ps, &s, &first)) continue;
        } else {
            first = symbol(ps);
            set_add(&s, first);
        }
        if (ps->p[0] == '-' && ps->p[1] != ']') {
            ps->p++;
            for (unsigned c = first, last = symbol(ps); c <= last; c++) set_add(&s, c);
        }
    }
    ps->p++;
    if (ps->nocase) both_cases(&s);
    if (negated) {
        for (int i = 0; i < 4; i++) s.w[i] = ~s.w[i];
        s.w[0] &= ~((uint64_t)1 << '\n');
    }
    return set_piece(ps->d, &s);
}

static Piece parse_name(Parser *ps) {
    const char *end = strchr(ps->p, '}'), *after;
    Piece piece = { 0, 0 };
    size_t n;
    if (!end) bad_pattern(ps, "no closing brace");
    n = (size_t)(end - ps->p);
    after = end + 1;
    for (size_t i = 0; i < ps->spec->nnames; i++) {
        const NfaName *name = &ps->spec->names[i];
        if (strncmp(name->name, ps->p, n) || name->name[n]) continue;
        ps->p = name->pattern;
        BUG_ON(++ps->depth > DEPTH_MAX, "pattern {%s} contains itself", name->name);
        piece = parse_alternatives(ps);
        if (*ps->p) bad_pattern(ps, "not understood");
        ps->depth--;
        ps->p = after;
        return piece;
    }
    bad_pattern(ps, "unknown name");
    return piece;
}

static Piece parse_atom(Parser *ps) {
    Set s = {{0}};
    Piece piece;
    uint8_t c;
    bool before = ps->nocase;
    switch (*ps->p) {
    case '~':
        ps->p++;
        ps->nocase = true;
        piece = parse_atom(ps);
        ps->nocase = before;
        return piece;
    case '(':
        ps->p++;
        piece = parse_alternatives(ps);
        if (*ps->p++ != ')') bad_pattern(ps, "no closing parenthesis");
        return piece;
    case '[': ps->p++; return parse_set(ps);
    case '{': ps->p++; return parse_name(ps);
    case '\\': ps->p++; escape(ps, &s, &c); break;
    default: set_add(&s, symbol(ps));
    }
    if (ps->nocase) both_cases(&s);
    return set_piece(ps->d, &s);
}

/* x*, x+, x? from one copy of x. */
static Piece repeat(Nfa *d, Piece x, char how) {
    int32_t out = open_end(d), split;
    if (how == '?') {
        split = new_node(d, SPLIT, x.in, out);
        join(d, x.out, out);
        return (Piece){ split, out };
    }
    split = new_node(d, SPLIT, x.in, out);
    join(d, x.out, split);
    return (Piece){ how == '+' ? x.in : split, out };
}

/* x{m,n}: m copies, then n-m optional ones; a copy is made by parsing the atom again. */
static Piece parse_counted(Parser *ps, const char *atom, Piece x) {
    char *end;
    const char *after;
    long low = strtol(ps->p, &end, 10), high = low;
    if (*end == ',') high = strtol(end + 1, &end, 10);
    if (*end != '}' || low < 0 || high < low || high < 1 || high > 99) bad_pattern(ps, "not a count");
    after = end + 1;
    if (low == 0) x = repeat(ps->d, x, '?');
    for (long i = 2; i <= high; i++) {
        Piece y;
        ps->p = atom;
        y = parse_atom(ps);
        if (i > low) y = repeat(ps->d, y, '?');
        join(ps->d, x.out, y.in);
        x.out = y.out;
    }
    ps->p = after;
    return x;
}

static void skip_blanks(Parser *ps) {
    while (*ps->p == ' ') ps->p++;
}

static Piece parse_sequence(Parser *ps) {
    int32_t empty = open_end(ps->d);
    Piece all = { empty, empty };
    for (;;) {
        const char *atom;
        Piece x;
        skip_blanks(ps);
        if (!*ps->p || *ps->p == '|' || *ps->p == ')') return all;
        atom = ps->p;
        x = parse_atom(ps);
        for (;;) {
            skip_blanks(ps);
            if (*ps->p == '*' || *ps->p == '+' || *ps->p == '?') x = repeat(ps->d, x, *ps->p++);
            else if (*ps->p == '{' && ps->p[1] >= '0' && ps->p[1] <= '9') { ps->p++; x = parse_counted(ps, atom, x); }
            else break;
        }
        join(ps->d, all.out, x.in);
        all.out = x.out;
    }
}

static Piece parse_alternatives(Parser *ps) {
    Piece all = parse_sequence(ps);
    while (*ps->p == '|') {
        Piece y;
        int32_t out;
        ps->p++;
        y = parse_sequence(ps);
        out = open_end(ps->d);
        join(ps->d, all.out, out);
        join(ps->d, y.out, out);
        all = (Piece){ new_node(ps->d, SPLIT, all.in, y.in), out };
    }
    return all;
}

/* ---- sets of states ---- */

static void begin_set(Nfa *d, States *s) {
    s->n = 0;
    s->accept = -1;
    if (++d->round == INT32_MAX) {       /* marks of two billion sets ago are not to be taken for this one's */
        memset(d->mark, 0, (size_t)d->nnodes * sizeof *d->mark);
        d->round = 1;
    }
}

/* Adds `node` and all that is reached from it without reading a symbol. */
static void add_node(Nfa *d, States *s, int32_t node) {
    size_t top = 0;
    if (d->mark[node] == d->round) return;
    d->mark[node] = d->round;
    d->stack[top++] = node;
    while (top) {
        const Node *at = &d->nodes[d->stack[--top]];
        int32_t ways[2] = { at->b, at->a };
        if (at->kind == SET) s->node[s->n++] = (int32_t)(at - d->nodes);
        if (at->kind == ACCEPT && (s->accept < 0 || at->a < s->accept)) s->accept = at->a;
        for (int i = 0; i < 2 && at->kind == SPLIT; i++) {
            if (ways[i] < 0 || d->mark[ways[i]] == d->round) continue;
            d->mark[ways[i]] = d->round;
            d->stack[top++] = ways[i];
        }
    }
}

static void step(Nfa *d, States *to, const States *from, uint8_t symbol) {
    begin_set(d, to);
    for (int32_t i = 0; i < from->n; i++) {
        const Node *node = &d->nodes[from->node[i]];
        if (set_has(&d->sets[node->a], symbol)) add_node(d, to, node->b);
    }
}

/* Every pattern begins at the start, so that set is large: it is walked here, once a symbol, and never again. */
static Status find_first(Nfa *d) {
    States *start = &d->turn[0], *next = &d->turn[1];
    begin_set(d, start);
    add_node(d, start, d->start);
    for (int c = 0; c < SYMBOLS; c++) {
        step(d, next, start, (uint8_t)c);
        d->after[c] = (States){ mem_new((size_t)next->n, sizeof *next->node), next->n, next->accept };
        if (!d->after[c].node) return ERR_MEMORY;
        memcpy(d->after[c].node, next->node, (size_t)next->n * sizeof *next->node);
    }
    return OK;
}

/* ---- public ---- */

static void parse_all(Nfa *d, const NfaSpec *spec) {
    d->start = -1;
    for (size_t i = 0; i < spec->npatterns && !d->failed; i++) {
        Parser ps = { d, spec, spec->patterns[i], spec->patterns[i], false, 0 };
        Piece x = parse_alternatives(&ps);
        if (*ps.p) bad_pattern(&ps, "not understood");
        join(d, x.out, new_node(d, ACCEPT, (int32_t)i, -1));
        d->start = d->start < 0 ? x.in : new_node(d, SPLIT, d->start, x.in);
    }
}

Status nfa_new(Nfa **out, const NfaSpec *spec) {
    Nfa *d = mem_new(1, sizeof *d);
    *out = NULL;
    if (!d) return ERR_MEMORY;
    parse_all(d, spec);
    size_t n = (size_t)d->nnodes;
    d->stack = mem_new(n, sizeof *d->stack);
    d->mark = mem_new(n, sizeof *d->mark);
    for (int i = 0; i < 2; i++) d->turn[i].node = mem_new(n, sizeof *d->turn[i].node);
    bool failed = d->failed || !d->stack || !d->mark || !d->turn[0].node || !d->turn[1].node;
    Status st = failed ? ERR_MEMORY : find_first(d);
    if (st == OK) *out = d;
    else nfa_free(d);
    return st;
}

void nfa_free(Nfa *d) {
    if (!d) return;
    for (int c = 0; c < SYMBOLS; c++) free(d->after[c].node);
    for (int i = 0; i < 2; i++) free(d->turn[i].node);
    free(d->nodes);
    free(d->sets);
    free(d->stack);
    free(d->mark);
    free(d);
}

int nfa_match(Nfa *d, const uint8_t *text, size_t n, size_t *len) {
    const States *now = n ? &d->after[text[0]] : NULL;
    int best = -1;
    *len = 0;
    for (size_t i = 0; i < n; ) {
        if (now->accept >= 0) best = now->accept, *len = i + 1;
        if (!now->n || ++i == n) break;
        States *next = &d->turn[i % 2];
        step(d, next, now, text[i]);
        now = next;
    }
    return best;
}
