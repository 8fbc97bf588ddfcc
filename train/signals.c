/* signals: see signals.h. */
#include "train/signals.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop, save;

static void on_stop(int number) {
    static const char note[] = "\nqformer: stopping after this step and saving; Ctrl-C again ends at once\n";
    if (stop && number == SIGINT) {
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);                 /* delivered when this handler returns: the shell sees who killed us */
        return;
    }
    if (!stop && number == SIGINT && write(STDERR_FILENO, note, sizeof note - 1) < 0) { /* nobody reads it: fine */ }
    stop = 1;
}

static void on_save(int number) {
    (void)number;
    save = 1;
}

/* SA_RESTART: reads of the loader go on. A signal ignored by whoever started us (nohup) stays ignored. */
static void install(int number, void (*handler)(int)) {
    struct sigaction old, now;
    memset(&now, 0, sizeof now);
    now.sa_handler = handler;
    now.sa_flags = SA_RESTART;
    sigemptyset(&now.sa_mask);
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaction(number, &now, NULL);
}

void signals_install(void) {
    stop = save = 0;
    install(SIGINT, on_stop);
    install(SIGTERM, on_stop);
    install(SIGHUP, on_stop);
    install(SIGUSR1, on_save);
    install(SIGPIPE, SIG_IGN);
}

bool stop_requested(void) { return stop; }

bool save_requested(void) {
    if (!save) return false;
    save = 0;
    return true;
}
