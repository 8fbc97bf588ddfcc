/* svg: charts as inline SVG that take their colours from the page's style (light, dark, print). Called by the report.
 *
 * Drawn in units of which a chart is 420 wide, so that it is legible from a phone to a desk; colours are classes (c0
 * c1 ...), never the only difference: series differ in dashes too, and the legend gives names and last values in
 * words. Long series are thinned to means of neighbours, with a band from the smallest to the largest of each group,
 * so nothing is hidden. Does not lay out the page. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
    const char *name;
    const int64_t *x;                   /* (n) steps, `stride` bytes apart: a column of an array of structs */
    const double *y;                    /* (n) likewise; what is not finite is left out */
    size_t stride;
    int64_t n;
    int colour;                         /* 0..4 */
    bool dashed;
} SvgSeries;

typedef struct {
    const char *title;
    const char *format;                 /* of a last value in the legend: one %g or %f */
    const char *says;                   /* what one sees, for those who do not: the picture's label */
    SvgSeries series[8];
    int nseries;
    bool log;                           /* the y axis; values <= 0 are then left out */
    bool zero;                          /* linear: the y axis begins at 0 */
    double level;                       /* a dashed line at this height, named level_name; NAN: none */
    const char *level_name;
} SvgChart;

enum { SVG_POINTS = 280 };              /* of a series; what is longer is thinned */

/* A figure with title, legend and chart; false (and nothing written) when there is no point to draw. */
bool svg_chart(FILE *f, const SvgChart *c);

/* v (rows, cols) as shades: none at 0, full at `most` in one colour, at -most in another;
 * columns to the right, rows downwards. */
void svg_heat(FILE *f, const float *v, int rows, int cols, float most, const char *says);

/* A grid of g x g cells over an area of w x h, row by row; `opacity` 0..1 of each, in steps of 1/10.
 * For use inside an svg. */
void svg_cells(FILE *f, const float *opacity, int rows, int cols, double w, double h, const char *class);

/* Round steps: writes up to `most` ticks that lie in [lo, hi]; returns how many. */
int svg_ticks(double lo, double hi, bool log, double *tick, int most);
