/* html: see html.h. */
#include "eval/report/html.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/err.h"
#include "kernels/base/unicode.h"

/* ---- text -------------------------------------------------------------------------------------------------------- */

static const char *entity(uint32_t c) {
    switch (c) {
    case '&': return "&amp;";
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '"': return "&quot;";
    case '\'': return "&#39;";                               /* a number: HTML 4 has no name for it */
    default: return NULL;
    }
}

void html_textn(FILE *f, const char *text, size_t n) {
    while (n) {
        uint32_t c;
        size_t used = utf8_next(text, n, &c);
        const char *e = entity(c);
        /* HTML allows none of them */
        bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
        if (e) fputs(e, f);
        else if (control || c == UNI_REPLACEMENT) fputs("\xef\xbf\xbd", f);
        else fwrite(text, 1, used, f);
        text += used;
        n -= used;
    }
}

void html_text(FILE *f, const char *text) { html_textn(f, text, strlen(text)); }

/* ---- markup with values ------------------------------------------------------------------------------------------ */

/* Copies the conversion that begins at fmt ("%5.1f") into spec; returns the place behind it. */
static const char *conversion(const char *fmt, char spec[16]) {
    size_t n = strcspn(fmt + 1, "diuxXcsfeEgGp%") + 2;
    BUG_ON(n > 15, "html: the format '%s' has a long conversion", fmt);
    memcpy(spec, fmt, n);
    spec[n] = 0;
    return fmt + n;
}

static void put_string(FILE *f, const char *spec, va_list *ap) {
    if (strcmp(spec, "%.*s") == 0) {
        int most = va_arg(*ap, int);
        const char *s = va_arg(*ap, const char *);
        html_textn(f, s, most < 0 ? strlen(s) : strnlen(s, (size_t)most));
        return;
    }
    BUG_ON(strcmp(spec, "%s") != 0, "html: strings come by %%s or %%.*s, not by '%s'", spec);
    html_text(f, va_arg(*ap, const char *));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* one conversion, cut from a format the compiler has checked */
static void put_number(FILE *f, const char *spec, va_list *ap) {
    char last = spec[strlen(spec) - 1];
    if (strchr("feEgG", last)) fprintf(f, spec, va_arg(*ap, double));
    /* by the letters of the format: va_arg must be told the type */
    else if (strstr(spec, "ll")) fprintf(f, spec, va_arg(*ap, long long));
    else if (strchr(spec, 'z') || strchr(spec, 'l')) fprintf(f, spec, va_arg(*ap, size_t));
    else fprintf(f, spec, va_arg(*ap, int));
}
#pragma GCC diagnostic pop

void html(FILE *f, const char *fmt, ...) {
    va_list ap;
    char spec[16];
    va_start(ap, fmt);
    while (*fmt) {
        size_t plain = strcspn(fmt, "%");
        fwrite(fmt, 1, plain, f);
        fmt += plain;
        if (!*fmt) break;
        fmt = conversion(fmt, spec);
        char kind = spec[strlen(spec) - 1];
        if (kind == '%') fputc('%', f);
        else if (kind == 's') put_string(f, spec, &ap);
        else put_number(f, spec, &ap);
    }
    va_end(ap);
}

void html_missing(FILE *f, const char *why) { html(f, "<p class=\"missing\">%s</p>\n", why); }

/* ---- bytes and numbers ------------------------------------------------------------------------------------------- */

void html_base64(FILE *f, const void *data, size_t n) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        fputc(digit[v >> 18], f);
        fputc(digit[v >> 12 & 63], f);
        fputc(i + 1 < n ? digit[v >> 6 & 63] : '=', f);
        fputc(i + 2 < n ? digit[v & 63] : '=', f);
    }
}

const char *html_count(int64_t v, char buf[HTML_NUMBER]) {
    char plain[24];
    int n = snprintf(plain, sizeof plain, "%lld", (long long)v), at = 0;
    for (int i = 0; i < n; i++) {
        buf[at++] = plain[i];
        int left = n - 1 - i;
        if (left && left % 3 == 0 && plain[i] != '-') buf[at++] = ',';  /* no comma behind a minus sign */
    }
    buf[at] = 0;
    return buf;
}

const char *html_short(double v, char buf[HTML_NUMBER]) {
    double a = fabs(v);
    const struct { double unit; const char *name; } big[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    for (size_t i = 0; i < sizeof big / sizeof *big; i++)
        if (a >= big[i].unit) {
            snprintf(buf, HTML_NUMBER, "%.4g%s", v / big[i].unit, big[i].name);
            return buf;
        }
    snprintf(buf, HTML_NUMBER, "%.4g", v);
    return buf;
}
