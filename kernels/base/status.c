/* status: see status.h. */
#include "kernels/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/signals.h"

static bool showing;                 /* a live line stands on the terminal */
static bool detailed;
static double shown_at;
static int lost;                     /* errno of the first line that could not be written */

double status_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool status_is_live(void) {
    static int known = -1;                                   /* asked once: a terminal does not become a file */
    if (known < 0) {
        const char *term = getenv("TERM");
        known = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    }
    return known;
}

/* Bytes of `text` that fit into `width` columns, a UTF-8 character counted as one column. */
static int fitting(const char *text, int width) {
    int bytes = 0;
    for (int columns = 0; text[bytes]; bytes++)
        if (((unsigned char)text[bytes] & 0xc0) != 0x80 && columns++ == width) break;
    return bytes;
}

void status_line(const char *text) {
    double now = status_clock();
    struct winsize w;
    /* ten a second: a terminal behind a network is slow */
    if (!status_is_live() || (showing && now - shown_at < 0.1)) return;
    /* one column less: a full line wraps, and \r finds its second half only */
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1 : 79;
    fprintf(stderr, "\r%.*s\033[K", fitting(text, width), text);
    showing = true;
    shown_at = now;
}

void status_end(void) {
    if (showing) fputs("\r\033[K", stderr);
    showing = false;
}

static __attribute__((format(printf, 1, 0))) void say(const char *fmt, va_list ap) {
    status_end();
    vprintf(fmt, ap);
    putchar('\n');
    if (fflush(stdout) != 0 && !lost) lost = errno;
}

void status_say(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

void status_detailed(bool wanted) { detailed = wanted; }

void status_detail(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (detailed) say(fmt, ap);
    va_end(ap);
}

void status_warn(void *unused, const char *sentence) {
    (void)unused;
    status_say("warning: %s", sentence);
}

int status_lost(void) {
    if (fflush(stdout) != 0 && !lost) lost = errno;
    if (!lost && ferror(stdout)) {                           /* by printf, which does not say why: once more */
        clearerr(stdout);
        if (putchar('\n') == EOF || fflush(stdout) != 0) lost = errno;
        else lost = EIO;
    }
    return lost == EPIPE ? 0 : lost;
}

const char *status_time(double seconds, char *buf, size_t n) {
    /* a rate of nothing would promise more seconds than a long holds */
    long long s = seconds > 0 && seconds < 1e15 ? (long long)(seconds + 0.5) : 0;
    if (s < 60) snprintf(buf, n, "%llds", s);
    else if (s < 3600) snprintf(buf, n, "%lldm %02llds", s / 60, s % 60);
    else if (s < 86400) snprintf(buf, n, "%lldh %02lldm", s / 3600, s / 60 % 60);
    else snprintf(buf, n, "%lldd %02lldh", s / 86400, s / 3600 % 24);
    return buf;
}

/* ---- the meter --------------------------------------------------------------------------------------------------- */

enum { PLAIN_INTERVAL = 10 };        /* seconds between lines where there is no live one */

Meter meter_start(const char *what, const char *unit, int64_t total, int64_t first) {
    double now = status_clock();
    return (Meter){ .what = what, .unit = unit, .total = total, .first = first, .start = now, .said = now };
}

static void describe(const Meter *p, int64_t done, double now, bool last, char *buf, size_t n) {
    char part[64] = "", rest[64] = "", wait[32] = "", t[32];
    double took = now - p->start, rate = took > 0 ? (double)(done - p->first) / took : 0;
    if (p->total > 0 && !last)
        snprintf(part, sizeof part, "/%lld", (long long)p->total);
    if (last) snprintf(rest, sizeof rest, "  in %s", status_time(took, t, sizeof t));
    else if (p->total > 0 && rate > 0)
        snprintf(rest, sizeof rest, "  (%.0f %%)  %s left", 100.0 * (double)done / (double)p->total,
                 status_time((double)(p->total - done) / rate, t, sizeof t));
    if (p->waited && took > 0) snprintf(wait, sizeof wait, "  data wait %.0f %%", 100 * *p->waited / took);
    snprintf(buf, n, "%s  %lld%s %s  %.1f/s%s%s", p->what, (long long)done, part, p->unit, rate, rest, wait);
}

void meter_at(Meter *p, int64_t done) {
    char buf[256];
    double now = status_clock();
    /* a log of a night is read by people: six lines a minute */
    if (now - p->said < (status_is_live() ? 0.1 : PLAIN_INTERVAL)) return;
    p->said = now;
    describe(p, done, now, false, buf, sizeof buf);
    if (status_is_live()) status_line(buf);
    else status_say("%s", buf);
}

void meter_end(Meter *p, int64_t done) {
    char buf[256];
    describe(p, done, status_clock(), true, buf, sizeof buf);
    status_say("%s", buf);
}

bool meter_listen(void *m, int64_t done, int64_t total) {
    ((Meter *)m)->total = total;                             /* a source may learn on its way how much there is */
    meter_at(m, done);
    return !stop_requested();
}
