/* nfa: finds the longest match of a table of patterns. Called by ptb.c.
 *
 * The patterns become one nondeterministic automaton (Thompson). A text moves a set of its states from symbol to
 * symbol, so no alternative is ever tried and taken back: the cost is that of the patterns that still may match, which
 * after the first symbol are few; what each first symbol leads to is laid down beforehand. All memory is taken in nfa_new.
 *
 * The alphabet is 256 symbols. Symbols below 128 are ASCII; what the others stand for is the caller's business: a
 * pattern names them with \A .. \Z (NfaEscape) or as characters beyond ASCII (NfaSymbolFn).
 *
 *     abc       these symbols; blanks in a pattern are ignored
 *     \.        the symbol itself, when no letter
 *     [a-z.,]   one of; [^...] one of all the symbols not listed, except a line end
 *     x* x+ x? x{2} x{2,4}   (x|y)   {name} a named pattern   ~x: x in any case of its ASCII letters
 *
 * Patterns are part of the program: a mistake in one is a bug and stops. Not safe for use by two threads at once. */
#ifndef QF_NFA_H
#define QF_NFA_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct Nfa Nfa;

typedef struct {
    const char *name, *pattern;
} NfaName;

typedef struct {
    char letter;               /* \L */
    const uint8_t *symbols;    /* what it stands for */
    size_t n;
} NfaEscape;

typedef uint8_t NfaSymbolFn(uint32_t code_point);

typedef struct {
    const char *const *patterns;   /* (npatterns): when two match the same length, the earlier wins */
    size_t npatterns;
    const NfaName *names;          /* (nnames) */
    size_t nnames;
    const NfaEscape *escapes;      /* (nescapes) */
    size_t nescapes;
    NfaSymbolFn *symbol;           /* of a character beyond ASCII inside a pattern */
} NfaSpec;

Status nfa_new(Nfa **out, const NfaSpec *spec);
void nfa_free(Nfa *d);

/* The pattern with the longest match at text[0], and its length (at least 1); -1 when none matches. */
int nfa_match(Nfa *d, const uint8_t *text, size_t n, size_t *len);

#endif
