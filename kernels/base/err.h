/* err: status codes, and one message a thread.
 *
 * A user's error (a bad file, a full disk, a dead device) travels as a Status; the words wait here, in a message of
 * this thread, until main prints them. Each level may put its own context in front (err_context). Our own errors (two
 * ops that disagree about a shape) are bugs: BUG_ON stops at once and says where. Library code never ends the process
 * otherwise.
 *
 *     if ((st = h5_open(&f, path)) != OK) goto fail;
 *     return err_set(ERR_FORMAT, "%s: /images/features has %d dimensions, 3 are needed", path, nd);
 *
 * `break err_fail` in a debugger shows the first cause of anything. */
#pragma once

/*   code              what happened                                */
#define STATUS_LIST(X) \
    X(OK,              "no error")                                  \
    X(ERR_USAGE,       "the request is wrong")                      \
    X(ERR_IO,          "a file could not be read or written")       \
    X(ERR_FORMAT,      "a file holds something it must not")        \
    X(ERR_MEMORY,      "out of memory")                             \
    X(ERR_DEVICE,      "the device failed")                         \
    X(ERR_DIST,        "another process failed")                    \
    X(ERR_NUMERIC,     "a number is not finite")                    \
    X(ERR_MISSING,     "not in this build")                         \
    X(ERR_INTERRUPTED, "stopped on request")

typedef enum {
#define X(code, text) code,
    STATUS_LIST(X)
#undef X
    STATUS_COUNT
} Status;

#if defined(__GNUC__)
#define ERR_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define ERR_PRINTF(a, b)
#endif

/* Sets this thread's message (replacing any) and returns `st`, so that it can stand in a return statement. A message is
 * one line: control characters in it become '?'. */
Status err_set(Status st, const char *fmt, ...) ERR_PRINTF(2, 3);
#ifdef __clang_analyzer__   /* it does not look into err.c, and would go on as if an error could be OK */
#define err_set(st, ...) (err_set(st, __VA_ARGS__), (st))
#endif

/* Puts "context: " in front of this thread's message and returns `st`; does nothing when st is OK. */
Status err_context(Status st, const char *fmt, ...) ERR_PRINTF(2, 3);

/* The message, "" when there is none. Valid until the next err_ call of this thread. */
const char *err_message(void);
const char *err_name(Status st);   /* "ERR_IO" */
void err_clear(void);

/* Prints where and why to stderr, then aborts. For our own mistakes only. */
_Noreturn void err_bug(const char *file, int line, const char *fmt, ...) ERR_PRINTF(3, 4);

#define BUG_ON(cond, ...) \
    do { if (cond) err_bug(__FILE__, __LINE__, __VA_ARGS__); } while (0)
