/* signals: what the user and the scheduler say to a run that is under way.
 *
 *     SIGINT, SIGTERM, SIGHUP   finish the step, save, stop; a second SIGINT ends at once
 *     SIGUSR1                   save after this step, and go on
 *
 * for commands that ask (training, and long ones that can stop between two items); any other is ended, as usual. A
 * thread of its own waits for them. A signal may reach one rank and not the others: whoever runs several must agree on
 * the answer before acting on it. */
#pragma once
#include <stdbool.h>

/* Once, before any other thread is started (MPI's too): they inherit the mask. A signal ignored by whoever started us
 * (nohup) stays ignored, and so is SIGPIPE: a closed pager must not end a night's run. */
void signals_open(void);
void signals_ask(void);            /* from here on this command asks the two below; forgets earlier requests */
bool stop_requested(void);
bool save_requested(void);         /* true once for each request */
