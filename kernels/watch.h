/* watch: what the ops of a tape do, a line each: name, shape, seconds, and which of them is the first to make a number
 * that is not finite, in the forward or on the walk back. It waits for the device at every op and reads all results:
 * for looking (-vv), not for training. */
#pragma once
#include "kernels/tape.h"

typedef struct {
    void (*say)(const char *fmt, ...);  /* a lasting line, as status_say */
    bool back, bad;                     /* on the walk back; a number was not finite in this sweep */
} Watch;

/* From now on ops of t are told of; w must outlive t. */
void watch_tape(Watch *w, Tape *t);
