/* signals: what the user and the scheduler say to a run that is under way.
 *
 *     SIGINT, SIGTERM, SIGHUP   finish the step, save, stop; a second SIGINT ends at once
 *     SIGUSR1                   save after this step, and go on
 *
 * Called by training (and by long commands that can stop between two items). A thread of their own waits for them and sets flags. A signal may
 * reach one rank and not the others: whoever runs several must agree on the answer before acting on it. */
#ifndef QF_SIGNALS_H
#define QF_SIGNALS_H
#include <stdbool.h>

void signals_install(void);        /* also ignores SIGPIPE: a closed pager must not end a night's run */
bool stop_requested(void);
bool save_requested(void);         /* true once for each request */

#endif
