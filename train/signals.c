/* signals: see signals.h. */
#include "train/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t stop, save;
static sigset_t watched;

static void on_stop(int number) {
    static const char note[] = "\nqformer: stopping after this step and saving; Ctrl-C again ends at once\n";
    if (stop && number == SIGINT) {
        signal(SIGINT, SIG_DFL);
        pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
        raise(SIGINT);                 /* the shell sees who ended us */
    }
    if (!stop && number == SIGINT && write(STDERR_FILENO, note, sizeof note - 1) < 0) { /* nobody reads it: fine */ }
    stop = 1;
}

/* No handler ever runs on a thread that computes: oneDNN 2.6's generated f32 kernels do not survive a signal frame on their
 * stack (measured: one SIGTERM in forty corrupted the heap; none in this form). All signals wait for this thread. */
static void *watch(void *unused) {
    (void)unused;
    for (int number; sigwait(&watched, &number) == 0;) {
        if (number == SIGUSR1) save = 1;
        else on_stop(number);
    }
    return NULL;
}

/* Before any other thread is started, which inherit the mask. A signal ignored by whoever started us (nohup) stays ignored. */
void signals_install(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
    static bool installed;
    stop = save = 0;
    if (installed) return;
    installed = true;
    sigemptyset(&watched);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction old;
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaddset(&watched, numbers[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    pthread_t thread;
    pthread_sigmask(SIG_BLOCK, &watched, NULL);
    if (pthread_create(&thread, NULL, watch, NULL) == 0) pthread_detach(thread);
    else pthread_sigmask(SIG_UNBLOCK, &watched, NULL);       /* then they end the run, as they would without us */
}

bool stop_requested(void) { return stop; }

bool save_requested(void) {
    if (!save) return false;
    save = 0;
    return true;
}
