/* dfa: see dfa.h. Thompson's construction, then subset construction on demand (Aho, Sethi, Ullman, section 3.7). */
#include "eval/metrics/dfa.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

enum { SYMBOLS = 256, STATES_MAX = 4096, POOL_MAX = 1 << 20, DEPTH_MAX = 64 };
enum { UNKNOWN = 0, DEAD = 1, SPECIAL = 2 };   /* numbers of states with a meaning; 0 so that calloc says unknown */

typedef struct { uint64_t w[4]; } Set;
enum { SPLIT, SET, ACCEPT };
typedef struct { int kind; int32_t a, b; } Node;   /* SPLIT a|b; SET set a, next b; ACCEPT a */
typedef struct { uint32_t at, n; int32_t accept; } State;                  /* nodes pool[at .. at+n) */

struct Dfa {
    Node *nodes;
    int32_t nnodes, start;
    Set *sets;
    int32_t nsets;
    bool failed;                    /* out of memory while building */

    uint8_t column[SYMBOLS];        /* symbols that no pattern tells apart share a column */
    uint8_t symbol_of[SYMBOLS];     /* one symbol of each column */
    size_t ncolumns;

    State *states;                  /* (STATES_MAX) */
    uint16_t *next;                 /* (STATES_MAX, ncolumns) */
    uint16_t *table;                /* (2*STATES_MAX) open addressing by set of nodes; 0 empty */
    uint32_t nstates, first;        /* first: where a match begins; UNKNOWN until the first match */
    uint32_t times_forgotten;
    int32_t *pool;                  /* (POOL_MAX) */
    uint32_t npool;
    int32_t *list, *stack, *mark;   /* (nnodes) the set under construction; mark[node] == round: it is in */
    uint32_t nlist;
    int32_t round;
};

/* ---- patterns to nodes ---- */

typedef struct {
    Dfa *d;
    const DfaSpec *spec;
    const char *p, *whole;
    bool nocase;
    int depth;
} Parser;

/* A piece of automaton: enter at `in`; every way out is a SPLIT node `out` whose a is still open. */
typedef struct { int32_t in, out; } Piece;

static Piece parse_alternatives(Parser *ps);

static bool set_has(const Set *s, unsigned c) { return (s->w[c >> 6] >> (c & 63)) & 1; }
static void set_add(Set *s, unsigned c) { s->w[c >> 6] |= (uint64_t)1 << (c & 63); }

static int32_t new_node(Dfa *d, int kind, int32_t a, int32_t b) {
    if (mem_room(&d->nodes, (size_t)d->nnodes, 1, sizeof *d->nodes) != OK) { d->failed = true; return 0; }
    d->nodes[d->nnodes] = (Node){ kind, a, b };
    return d->nnodes++;
}

static int32_t open_end(Dfa *d) { return new_node(d, SPLIT, -1, -1); }

static void join(Dfa *d, int32_t out, int32_t in) {
    if (!d->failed) d->nodes[out].a = in;
}

static Piece set_piece(Dfa *d, const Set *s) {
    int32_t at = 0, out;
    while (at < d->nsets && memcmp(&d->sets[at], s, sizeof *s)) at++;  /* few differ: columns are then found quickly */
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
    return c < 128 ? (uint8_t)c : ps->spec->symbol_of[c];
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
        if (*ps->p == ' ') { ps->p++; continue; }            /* blanks are for the reader of the table, in a set, too */
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
        s.w[0] &= ~((uint64_t)1 << '\n');                    /* a line end is meant by name only */
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
        const DfaName *name = &ps->spec->names[i];
        if (strncmp(name->name, ps->p, n) || name->name[n]) continue;
        ps->p = name->pattern;
        /* a name inside itself would never end */
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
    bool before = ps->nocase;                                /* ~ reaches as far as its atom */
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
static Piece repeat(Dfa *d, Piece x, char how) {
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
        all = (Piece){ new_node(ps->d, SPLIT, all.in, y.in), out };  /* both ends meet in one */
    }
    return all;
}

/* ---- nodes to states ---- */

static void find_columns(Dfa *d) {
    d->ncolumns = 1;
    for (int32_t i = 0; i < d->nsets; i++) {
        int split_to[SYMBOLS];
        for (int c = 0; c < SYMBOLS; c++) split_to[c] = -1;
        for (unsigned c = 0; c < SYMBOLS; c++) {   /* a column that lies partly in the set gives its members away */
            unsigned old = d->column[c];
            bool outside = false;
            if (!set_has(&d->sets[i], c)) continue;
            for (unsigned k = 0; k < SYMBOLS && split_to[old] < 0; k++)
                outside |= d->column[k] == old && !set_has(&d->sets[i], k);
            if (split_to[old] < 0) split_to[old] = outside ? (int)d->ncolumns++ : (int)old;
            d->column[c] = (uint8_t)split_to[old];
        }
    }
    for (unsigned c = 0; c < SYMBOLS; c++) d->symbol_of[d->column[c]] = (uint8_t)c;
}

static void begin_set(Dfa *d) {
    d->nlist = 0;
    if (++d->round == INT32_MAX) {                           /* marks of earlier rounds need no clearing */
        memset(d->mark, 0, (size_t)d->nnodes * sizeof *d->mark);
        d->round = 1;
    }
}

/* Adds `node` and all that is reached from it without reading a symbol. Only SET and ACCEPT nodes are kept. */
static void add_node(Dfa *d, int32_t node) {
    size_t top = 0;
    if (d->mark[node] == d->round) return;
    d->mark[node] = d->round;
    d->stack[top++] = node;
    while (top) {
        int32_t at = d->stack[--top], ways[2] = { -1, -1 };
        if (d->nodes[at].kind != SPLIT) { d->list[d->nlist++] = at; continue; }
        ways[0] = d->nodes[at].b;
        ways[1] = d->nodes[at].a;
        for (int i = 0; i < 2; i++) {
            if (ways[i] < 0 || d->mark[ways[i]] == d->round) continue;
            d->mark[ways[i]] = d->round;                     /* on the stack once: its size is the number of nodes */
            d->stack[top++] = ways[i];
        }
    }
}

static void forget_states(Dfa *d) {
    memset(d->table, 0, 2 * STATES_MAX * sizeof *d->table);
    memset(d->next, 0, STATES_MAX * d->ncolumns * sizeof *d->next);
    d->npool = 0;
    d->nstates = SPECIAL;                                    /* numbers below mean something else */
    d->first = UNKNOWN;
    d->times_forgotten++;
}

/* The state of the set in d->list; the nodes come in an order that depends only on how it was reached, which may give
 * one set two states. That costs a little space and nothing else. */
static uint32_t intern_state(Dfa *d) {
    uint64_t h = HASH_START;
    uint32_t slot, at;
    State *s;
    if (!d->nlist) return DEAD;                              /* no pattern goes on */
    for (uint32_t i = 0; i < d->nlist; i++) h = hash_word(h, (uint32_t)d->list[i]);
    slot = (uint32_t)(h >> 40) & (2 * STATES_MAX - 1);
    for (; (at = d->table[slot]) != 0; slot = (slot + 1) & (2 * STATES_MAX - 1)) {
        s = &d->states[at];
        if (s->n == d->nlist && !memcmp(d->pool + s->at, d->list, s->n * sizeof *d->list)) return at;
    }
    /* memory is bounded whatever the text is; the states at hand are made again */
    if (d->nstates == STATES_MAX || d->nlist > POOL_MAX - d->npool) {
        forget_states(d);
        slot = (uint32_t)(h >> 40) & (2 * STATES_MAX - 1);
    }
    at = d->nstates++;
    d->table[slot] = (uint16_t)at;
    s = &d->states[at];
    *s = (State){ d->npool, d->nlist, -1 };
    memcpy(d->pool + d->npool, d->list, d->nlist * sizeof *d->list);
    d->npool += d->nlist;
    for (uint32_t i = 0; i < s->n; i++) {
        const Node *node = &d->nodes[d->list[i]];
        /* the earlier rule wins a tie */
        if (node->kind == ACCEPT && (s->accept < 0 || node->a < s->accept)) s->accept = node->a;
    }
    return at;
}

static uint32_t start_state(Dfa *d) {
    begin_set(d);
    add_node(d, d->start);
    return intern_state(d);
}

static uint32_t make_step(Dfa *d, uint32_t from, uint8_t column) {
    const State s = d->states[from];
    uint32_t to, before = d->times_forgotten;
    begin_set(d);
    for (uint32_t i = 0; i < s.n; i++) {
        const Node *node = &d->nodes[d->pool[s.at + i]];
        if (node->kind == SET && set_has(&d->sets[node->a], d->symbol_of[column])) add_node(d, node->b);
    }
    to = intern_state(d);
    if (d->times_forgotten == before) d->next[from * d->ncolumns + column] = (uint16_t)to;   /* else `from` is gone */
    return to;
}

/* ---- public ---- */

static void parse_all(Dfa *d, const DfaSpec *spec) {
    d->start = -1;
    for (size_t i = 0; i < spec->npatterns && !d->failed; i++) {
        Parser ps = { d, spec, spec->patterns[i], spec->patterns[i], false, 0 };
        Piece x = parse_alternatives(&ps);
        if (*ps.p) bad_pattern(&ps, "not understood");
        join(d, x.out, new_node(d, ACCEPT, (int32_t)i, -1));
        d->start = d->start < 0 ? x.in : new_node(d, SPLIT, d->start, x.in);
    }
}

Status dfa_new(Dfa **out, const DfaSpec *spec) {
    Dfa *d = mem_new(1, sizeof *d);
    *out = NULL;
    if (!d) return ERR_MEMORY;
    parse_all(d, spec);
    if (!d->failed) {
        size_t n = (size_t)d->nnodes;
        find_columns(d);
        BUG_ON(d->ncolumns > SYMBOLS - 1, "%zu columns", d->ncolumns);
        d->states = mem_new(STATES_MAX, sizeof *d->states);
        d->next = mem_new(STATES_MAX * d->ncolumns, sizeof *d->next);
        d->table = mem_new(2 * STATES_MAX, sizeof *d->table);
        d->pool = mem_new(POOL_MAX, sizeof *d->pool);
        d->list = mem_new(n, sizeof *d->list);
        d->stack = mem_new(n, sizeof *d->stack);
        d->mark = mem_new(n, sizeof *d->mark);
        BUG_ON(n > POOL_MAX / 2, "%zu nodes", n);
        d->nstates = SPECIAL;
    }
    if (d->failed || !d->states || !d->next || !d->table || !d->pool || !d->list || !d->stack || !d->mark) {
        dfa_free(d);
        return ERR_MEMORY;
    }
    *out = d;
    return OK;
}

void dfa_free(Dfa *d) {
    if (!d) return;
    mem_free(d->nodes, d->sets, d->states, d->next, d->table, d->pool, d->list, d->stack, d->mark, d);
}

int dfa_match(Dfa *d, const uint8_t *text, size_t n, size_t *len) {
    int best = -1;
    uint32_t at;
    if (d->first == UNKNOWN) d->first = start_state(d);
    at = d->first;
    *len = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t column = d->column[text[i]];
        uint32_t to = d->next[at * d->ncolumns + column];
        if (to == UNKNOWN) to = make_step(d, at, column);
        if (to == DEAD) break;                               /* nothing longer can match */
        at = to;
        if (d->states[at].accept >= 0) {
            best = d->states[at].accept;                     /* of patterns that end here the earliest */
            *len = i + 1;
        }
    }
    return best;
}
