/* svg: see svg.h. */
#include "eval/report/svg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report/html.h"

enum { W = 420, H = 226, LEFT = 46, RIGHT = 12, TOP = 10, BOTTOM = 24, MAX_TICKS = 16, DOTS = 40 };

/* ---- axes -------------------------------------------------------------------------------------------------------- */

static int linear_ticks(double lo, double hi, double *tick, int most) {
    double raw = (hi - lo) / 5, power = pow(10, floor(log10(raw))), f = raw / power;
    double step = power * (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10);  /* a reader counts in ones, twos and fives */
    int n = 0;
    for (double k = ceil(lo / step - 1e-9); n < most && k * step <= hi + 1e-9 * step; k++)
        tick[n++] = k * step + 0.0; /* not -0 */
    return n;
}

static int log_ticks(double lo, double hi, double *tick, int most) {
    static const double few[] = {1}, some[] = {1, 2, 5}, many[] = {1, 1.5, 2, 3, 4, 5, 6, 8};
    static const struct { const double *at; int n; } sets[] = {{few, 1}, {some, 3}, {many, 8}};
    int n = 0;
    for (int s = 0; s < 3 && n < 3; s++) {                   /* the coarsest set that gives three marks */
        n = 0;
        for (double d = floor(log10(lo)); d <= log10(hi); d++)
            for (int i = 0; i < sets[s].n && n < most; i++) {
                double v = sets[s].at[i] * pow(10, d);
                if (v >= lo * (1 - 1e-9) && v <= hi * (1 + 1e-9)) tick[n++] = v;
            }
    }
    return n >= 2 ? n : linear_ticks(lo, hi, tick, most);
}

int svg_ticks(double lo, double hi, bool log, double *tick, int most) {
    if (!(hi > lo)) return 0;
    return log ? log_ticks(lo, hi, tick, most) : linear_ticks(lo, hi, tick, most);
}

/* What a chart maps to pixels. */
typedef struct { double x0, x1, y0, y1; bool log; } Frame;

static double px(const Frame *a, double x) { return LEFT + (x - a->x0) / (a->x1 - a->x0) * (W - LEFT - RIGHT); }
static double py(const Frame *a, double y) {
    double t = a->log ? log(y / a->y0) / log(a->y1 / a->y0) : (y - a->y0) / (a->y1 - a->y0);
    t = t < 0 ? 0 : t > 1 ? 1 : t;                           /* rounding must not leave the frame */
    return TOP + (1 - t) * (H - TOP - BOTTOM);
}

static double x_of(const SvgSeries *s, int64_t i) {
    return (double)*(const int64_t *)(const void *)((const char *)s->x + (size_t)i * s->stride);
}

static double y_of(const SvgSeries *s, int64_t i) {
    return *(const double *)(const void *)((const char *)s->y + (size_t)i * s->stride);
}

static bool drawable(const SvgChart *c, double y) { return isfinite(y) && (!c->log || y > 0); }

static bool find_frame(const SvgChart *c, Frame *a) {
    *a = (Frame){INFINITY, -INFINITY, INFINITY, -INFINITY, c->log};
    for (int s = 0; s < c->nseries; s++)
        for (int64_t i = 0; i < c->series[s].n; i++) {
            double x = x_of(&c->series[s], i), y = y_of(&c->series[s], i);
            if (!drawable(c, y)) continue;
            a->x0 = fmin(a->x0, x), a->x1 = fmax(a->x1, x);
            a->y0 = fmin(a->y0, y), a->y1 = fmax(a->y1, y);
        }
    if (!(a->x1 >= a->x0)) return false;
    if (isfinite(c->level) && (!c->log || c->level > 0)) a->y0 = fmin(a->y0, c->level), a->y1 = fmax(a->y1, c->level);
    if (a->x1 == a->x0) a->x0 -= 1, a->x1 += 1;              /* one point has no width */
    if (c->log) {
        a->y0 /= 1.08, a->y1 *= 1.08;                        /* as much room in a ratio */
    } else {
        double room = a->y1 > a->y0 ? 0.06 * (a->y1 - a->y0) : fmax(fabs(a->y1), 1) * 0.1;
        a->y0 = c->zero && a->y0 >= 0 ? 0 : a->y0 - room;
        a->y1 += room;
    }
    return a->y1 > a->y0;
}

static void draw_axes(FILE *f, const Frame *a) {
    double tick[MAX_TICKS];
    char s[HTML_NUMBER];
    int n = svg_ticks(a->y0, a->y1, a->log, tick, MAX_TICKS);
    for (int i = 0; i < n; i++) {
        double y = py(a, tick[i]);
        html(f, "<path class=\"rule\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
             LEFT, y, W - RIGHT, LEFT - 6, y + 4, html_short(tick[i], s));
    }
    n = svg_ticks(a->x0, a->x1, false, tick, MAX_TICKS);
    for (int i = 0; i < n; i++)
        html(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">%s</text>\n", px(a, tick[i]), H - BOTTOM + 17,
             px(a, tick[i]) > W - RIGHT - 12 ? "end" /* the outermost numbers lean inwards: they would be cut off */
             : px(a, tick[i]) < LEFT + 14    ? "start"
                                             : "middle",
             html_short(tick[i], s));
    html(f, "<path class=\"axis\" d=\"M%d %dH%d\"/><text class=\"name\" x=\"%d\" y=\"%d\" text-anchor=\"end\">step"
            "</text>\n",
         LEFT, H - BOTTOM, W - RIGHT, LEFT - 6, H - BOTTOM + 17);
}

/* ---- series ------------------------------------------------------------------------------------------------------ */

/* Neighbours as one point: where, their mean, smallest, largest. */
typedef struct { double x, y, lo, hi; } Point;

/* At most SVG_POINTS points of a series; returns how many. */
static int thin(const SvgChart *c, const SvgSeries *s, Point *p) {
    int64_t good = 0, seen = 0;
    int n = 0;
    for (int64_t i = 0; i < s->n; i++) good += drawable(c, y_of(s, i));
    double each = good > SVG_POINTS ? (double)good / SVG_POINTS : 1;
    int64_t members = 0;
    for (int64_t i = 0; i < s->n; i++) {
        double y = y_of(s, i);
        if (!drawable(c, y)) continue;
        if (!members) p[n] = (Point){0, 0, y, y};
        p[n].x += x_of(s, i), p[n].y += y;
        p[n].lo = fmin(p[n].lo, y), p[n].hi = fmax(p[n].hi, y);
        members++;
        seen++;
        if ((double)seen < (n + 1) * each - 1e-9 && seen < good) continue;  /* the last group takes what is left */
        p[n].x /= (double)members, p[n].y /= (double)members;
        n++;
        members = 0;
    }
    return n;
}

static void draw_series(FILE *f, const SvgChart *c, const Frame *a, const SvgSeries *s) {
    Point p[SVG_POINTS + 1];
    int n = thin(c, s, p);
    char xs[HTML_NUMBER], ys[HTML_NUMBER];
    if (!n) return;
    /* a mean hides what its neighbours did */
    if (s->n > SVG_POINTS) {
        html(f, "<path class=\"band c%d\" d=\"", s->colour);
        for (int i = 0; i < n; i++) html(f, "%s%.1f %.1f", i ? "L" : "M", px(a, p[i].x), py(a, p[i].hi));
        for (int i = n; i-- > 0;) html(f, "L%.1f %.1f", px(a, p[i].x), py(a, p[i].lo));
        html(f, "Z\"/>\n");
    }
    if (n > 1) {
        html(f, "<path class=\"line c%d%s\" d=\"", s->colour, s->dashed ? " dashed" : "");
        for (int i = 0; i < n; i++) html(f, "%s%.1f %.1f", i ? "L" : "M", px(a, p[i].x), py(a, p[i].y));
        html(f, "\"/>\n");
    }
    /* many dots are a thick line */
    for (int i = 0; i < n && n <= DOTS; i++)
        html(f, "<circle class=\"dot c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.4\"><title>%s, step %s: %s</title></circle>\n",
             s->colour, px(a, p[i].x), py(a, p[i].y), s->name, html_short(p[i].x, xs),
             html_short(p[i].y, ys));
}

static double last_value(const SvgSeries *s) {
    for (int64_t i = s->n; i-- > 0;)
        if (isfinite(y_of(s, i))) return y_of(s, i);
    return NAN;
}

static void draw_legend(FILE *f, const SvgChart *c) {
    html(f, "<ul class=\"legend\">");
    for (int i = 0; i < c->nseries; i++) {
        const SvgSeries *s = &c->series[i];
        double v = last_value(s);
        char text[HTML_NUMBER] = "";
        if (!isfinite(v)) continue;                          /* a series that is not there needs no key */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, c->format, v);
#pragma GCC diagnostic pop
        html(f, "<li><i class=\"key c%d%s\"></i>%s <b>%s</b></li>", s->colour, s->dashed ? " dashed" : "", s->name,
             text);
    }
    if (isfinite(c->level)) html(f, "<li><i class=\"key level\"></i>%s</li>", c->level_name);
    html(f, "</ul>\n");
}

bool svg_chart(FILE *f, const SvgChart *c) {
    Frame a;
    if (!find_frame(c, &a)) return false;
    html(f, "<figure class=\"chart\"><h3>%s</h3>\n", c->title);
    draw_legend(f, c);
    html(f, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", W, H, c->says ? c->says : c->title);
    draw_axes(f, &a);
    if (isfinite(c->level) && (!c->log || c->level > 0))
        html(f, "<path class=\"level\" d=\"M%d %.1fH%d\"/>\n", LEFT, py(&a, c->level), W - RIGHT);
    for (int i = 0; i < c->nseries; i++) draw_series(f, c, &a, &c->series[i]);
    html(f, "</svg></figure>\n");
    return true;
}

/* ---- grids ------------------------------------------------------------------------------------------------------- */

enum { SHADES = 10 };

static int shade(float v) { return v >= 1 ? SHADES : v > 0 ? (int)lroundf(v * SHADES) : 0; }

/* One path a shade; neighbours in a row become one rectangle. */
static void draw_shade(FILE *f, const float *v, int rows, int cols, int k, const char *class) {
    bool begun = false;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            int n = 0;
            while (c + n < cols && shade(v[r * cols + c + n]) == k) n++;
            if (!n) continue;
            if (!begun) html(f, "<path class=\"%s\" fill-opacity=\"%.2g\" d=\"", class, (double)k / SHADES);
            begun = true;
            html(f, "M%d %dh%dv1h-%dz", c, r, n, n);
            c += n;
        }
    if (begun) html(f, "\"/>");
}

void svg_cells(FILE *f, const float *opacity, int rows, int cols, double w, double h, const char *class) {
    html(f, "<g transform=\"scale(%.5g %.5g)\" shape-rendering=\"crispEdges\">", w / cols, h / rows);
    for (int k = 1; k <= SHADES; k++) draw_shade(f, opacity, rows, cols, k, class);
    html(f, "</g>");
}

void svg_heat(FILE *f, const float *v, int rows, int cols, float most, const char *says) {
    float *o = malloc((size_t)rows * (size_t)cols * sizeof *o);
    if (!o) return;
    html(f, "<svg class=\"heat\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">", cols, rows, says);
    for (int sign = 1; sign >= -1; sign -= 2) {
        for (int i = 0; i < rows * cols; i++) o[i] = most > 0 ? (float)sign * v[i] / most : 0;
        svg_cells(f, o, rows, cols, cols, rows, sign > 0 ? "shade" : "shade minus");
    }
    html(f, "</svg>\n");
    free(o);
}
