/* dfa: finds the longest match of a table of patterns. Called by ptb.c.
 *
 * The patterns become one nondeterministic automaton (Thompson), whose sets of states become states of a deterministic
 * one when a text first needs them (as in grep and RE2). So a table of hundreds of patterns costs a table look-up a
 * character, and the text is never matched by trying alternatives. All memory is taken in dfa_new; when the space for
 * states is used up they are thrown away and built again as needed.
 *
 * The alphabet is 256 symbols. Symbols below 128 are ASCII; what the others stand for is the caller's business: a
 * pattern names them with \A .. \Z (DfaEscape) or as characters beyond ASCII (symbol_of).
 *
 *     abc       these symbols; blanks in a pattern are ignored
 *     \.        the symbol itself, when no letter
 *     [a-z.,]   one of; [^...] one of all the symbols not listed, except a line end
 *     x* x+ x? x{2} x{2,4}   (x|y)   {name} a named pattern   ~x: x in any case of its ASCII letters
 *
 * Patterns are part of the program: a mistake in one is a bug and stops. Not safe for use by two threads at once. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct Dfa Dfa;

typedef struct {
    const char *name, *pattern;
} DfaName;

typedef struct {
    char letter;               /* \L */
    const uint8_t *symbols;    /* what it stands for */
    size_t n;
} DfaEscape;

typedef struct {
    const char *const *patterns;   /* (npatterns): when two match the same length, the earlier wins */
    size_t npatterns;
    const DfaName *names;          /* (nnames) */
    size_t nnames;
    const DfaEscape *escapes;      /* (nescapes) */
    size_t nescapes;
    const uint8_t *symbol_of;      /* (1 << 16) by code point; NULL: patterns are ASCII */
} DfaSpec;

Status dfa_new(Dfa **out, const DfaSpec *spec);
void dfa_free(Dfa *d);

/* The pattern with the longest match at text[0], and its length (at least 1); -1 when none matches. */
int dfa_match(Dfa *d, const uint8_t *text, size_t n, size_t *len);
