/* patience: how long a thread of a team spins while it waits for the others.
 *
 * libgomp lets it spin for some milliseconds: as long as the scheduler's time slice. Where another process wants the
 * core, the thread that is waited for sleeps meanwhile, at every barrier: a step of the demo beside seven busy
 * processes on two cores trained 4 pairs/s, and 285 with a thousand spins (some 20 us), after which a thread sleeps
 * too. Alone on the machine a thousand cost nothing: 805 pairs/s by default, 802 with them, 616 with none (f32). */
#pragma once

/* Begins the program anew with GOMP_SPINCOUNT in its environment, which libgomp reads before main. Does nothing where
 * the user set that or OMP_WAIT_POLICY, and where the program cannot be begun anew.
 * To be called before there are threads and handlers of signals. */
void patience_set(char **argv);
