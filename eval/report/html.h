/* html: writing a page. Called by report.c, svg.c and whatever else puts words on the page.
 *
 * The one idea: text is escaped unless it is the program's own. html() takes a format as printf does; what stands in
 * the format is markup, what comes in by %s (a caption, a path, an error message) is text and cannot become markup. So
 * nobody has to remember. Writes to a FILE*, usually a memory stream; whoever closes it asks ferror. Does not check
 * that tags balance (tests/test_report.c does). */
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Markup with values: %s %.*s (escaped) %d %lld %zu %.1f %g ... and %%. */
void html(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Text, also fit for an attribute in quotes: & < > " ' become entities; what is no UTF-8, and control characters other
 * than blanks, become U+FFFD. html_textn: n bytes, which may hold anything. */
void html_text(FILE *f, const char *text);
void html_textn(FILE *f, const char *text, size_t n);

void html_missing(FILE *f, const char *why);     /* a sentence in the place of what is not there */

/* A cell of a table with a number, empty when it is not finite; fmt: literal, one conversion. */
#define html_cell(f, fmt, v) (isfinite(v) ? html(f, "<td>" fmt "</td>", v) : html(f, "<td></td>"))

void html_base64(FILE *f, const void *data, size_t n);

/* Numbers as people read them; `buf` is returned. 1,234,567; and 5k, 1.2M for axes. */
enum { HTML_NUMBER = 40 };
const char *html_count(int64_t v, char buf[HTML_NUMBER]);
const char *html_short(double v, char buf[HTML_NUMBER]);
