/* err: see err.h. The message is a fixed buffer: reporting an error must not need memory. */
#include "kernels/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_SIZE = 2048 };

static _Thread_local char message[MESSAGE_SIZE];

/* Names and values in a message may come from a broken file:
 * what could break the line or drive a terminal becomes '?'. */
static void make_plain(char *text) {
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
}

ERR_PRINTF(1, 0) static void err_fail(const char *fmt, va_list ap) {
    vsnprintf(message, sizeof message, fmt, ap);
    make_plain(message);
}

#undef err_set                           /* of the analyzer (err.h) */
Status err_set(Status st, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    err_fail(fmt, ap);
    va_end(ap);
    return st;
}

Status err_context(Status st, const char *fmt, ...) {
    if (st == OK) return st;
    char tail[MESSAGE_SIZE];
    memcpy(tail, message, sizeof tail);                     /* kept aside: the context is printed where it stands */
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    make_plain(message);
    /* cut, not refused: the front of a long chain says most */
    size_t at = n < 0 ? 0 : (size_t)n, room = sizeof message - 1;
    for (const char *p = ": "; *p && at < room; p++) message[at++] = *p;
    for (const char *p = tail; *p && at < room; p++) message[at++] = *p;
    message[at < room ? at : room] = 0;
    return st;
}

const char *err_message(void) { return message; }

void err_clear(void) { message[0] = 0; }

const char *err_name(Status st) {
    static const char *const names[] = {
#define X(code, text) #code,
        STATUS_LIST(X)
#undef X
    };
    return (unsigned)st < STATUS_COUNT ? names[st] : "ERR_?";
}

_Noreturn void err_bug(const char *file, int line, const char *fmt, ...) {
    fprintf(stderr, "qformer: bug at %s:%d: ", file, line);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort(); /* a core to look at; exit would run what others registered, on a state that is wrong */
}
