/* dist_watch: an eye on the ranks of this machine while the host waits for the device, which it cannot poll. Private to
 * dist; dist.h has what others call. */
#pragma once
#include <sys/types.h>
#include <time.h>

/* Less than one second. */
static inline void nap(double seconds) { nanosleep(&(struct timespec){.tv_nsec = (long)(seconds * 1e9)}, NULL); }

char process_state(pid_t pid);          /* R running, T stopped, X gone; '?' of pid 0 */
void watch_off(void);                   /* the host waits in dist again, or not at all */
void watch_close(void);
