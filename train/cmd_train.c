/* cmd_train: the commands pretrain and finetune: one run; they differ in their presets only (configs/). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/commands.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/run.h"

static Status train(const Options *o) {
    Run r;
    signals_ask();
    Status st = run_open(&r, o);
    if (st == OK && dist_rank() == 0) {
        if (o->run.dry_run) options_print(o, stdout);
        run_describe(&r, stdout);
        fflush(stdout);
        st = run_look(&r);
    }
    if (st == OK && !o->run.dry_run) {
        /* no error: who calls twice has what was wanted */
        if (r.step >= r.steps && dist_rank() == 0)
            status_say("%s has its %lld steps already; train.steps=N goes on, another out= starts anew",
                       o->run.out, (long long)r.steps);
        st = run_loop(&r);
    }
    run_close(&r);
    return st;
}

Status cmd_pretrain(const Options *o) {
    Options *own = NULL;
    if (!*o->train.init) return train(o);                    /* there is nothing to take sizes from */
    Status st = options_copy(&own, o);
    if (st == OK) st = start_sizes(own, o->train.init);
    if (st == OK) st = train(own);
    options_free(own);
    return st;
}

/* `qformer finetune run` is train.init=run. */
Status cmd_finetune(const Options *o) {
    Options *own = NULL;
    if (!*o->run.in) {
        Status st = options_require(o, "train.init");
        return st == OK ? cmd_pretrain(o) : st;
    }
    if (*o->train.init && strcmp(o->train.init, o->run.in) != 0)
        return err_set(ERR_USAGE, "finetune begins from one source of weights, not from '%s' and train.init=%s",
                       o->run.in, o->train.init);
    Status st = options_copy(&own, o);
    if (st == OK) st = options_set(own, "train.init", o->run.in, NULL);
    if (st == OK) st = cmd_pretrain(own);
    options_free(own);
    return st;
}
