/* cmd_train: the commands pretrain and finetune: one run; they differ in their presets only (configs/). */
#include <stdio.h>

#include "kernels/dist.h"
#include "train/commands.h"
#include "train/run.h"
#include "train/signals.h"
#include "train/status.h"

Status cmd_pretrain(const Options *o) {
    Run r;
    signals_install();
    Status st = run_open(&r, o);
    if (st == OK && dist_rank() == 0) {
        if (opt_bool(o, "dry_run")) options_print(o, stdout);
        run_describe(&r, stdout);
        fflush(stdout);
    }
    if (st == OK && !opt_bool(o, "dry_run")) {
        if (r.step >= r.steps && dist_rank() == 0)
            status_say("%s has its %lld steps already; train.steps=N goes on, another out= starts anew", opt_str(o, "out"), (long long)r.steps);
        st = run_loop(&r);
    }
    run_close(&r);
    return st;
}

Status cmd_finetune(const Options *o) {
    Status st = options_require(o, "train.init");
    return st == OK ? cmd_pretrain(o) : st;
}
