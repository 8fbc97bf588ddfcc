/* signals: see signals.h. */
#include "kernels/base/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static _Atomic int asked, stop, save; /* of two threads, not of a handler */
static sigset_t watched;

static void end_by(int number) {
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
    raise(number);                     /* the shell sees who ended us */
}

static void on_stop(int number) {
    static const char note[] = "\nqformer: stopping after this step and saving; Ctrl-C again ends at once\n";
    /* a second Ctrl-C means it; a second SIGTERM is a scheduler that repeats itself */
    if (!asked || (stop && number == SIGINT)) end_by(number);
    if (!stop && number == SIGINT && write(STDERR_FILENO, note, sizeof note - 1) < 0) { /* nobody reads it: fine */ }
    stop = 1;
}

/* No handler ever runs on a thread that computes: oneDNN 2.6's generated f32 kernels do not survive a signal frame on
 * their stack (measured: one SIGTERM in forty corrupted the heap; none in this form).
 * All signals wait for this thread. */
static void *watch(void *unused) {
    (void)unused;
    for (int number; sigwait(&watched, &number) == 0;) {
        if (number == SIGUSR1 && asked) save = 1;
        else on_stop(number);
    }
    return NULL;
}

void signals_open(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
    sigemptyset(&watched);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction old;
        /* nohup's ignored SIGHUP stays ignored */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaddset(&watched, numbers[i]);
    }
    /* a reader that went away is an error of a write, not an end without a word */
    signal(SIGPIPE, SIG_IGN);
    pthread_t thread;
    pthread_sigmask(SIG_BLOCK, &watched, NULL);
    if (pthread_create(&thread, NULL, watch, NULL) == 0) pthread_detach(thread);
    else pthread_sigmask(SIG_UNBLOCK, &watched, NULL);       /* then they end the run, as they would without us */
}

void signals_ask(void) {
    stop = save = 0;
    asked = 1;
}

bool stop_requested(void) { return stop; }

bool save_requested(void) {
    if (!save) return false;
    save = 0;
    return true;
}
