/* log_fields: THE list of what a line of log.jsonl holds: written by train/log.c, read back by eval/report/runlog.c. */
#pragma once

/* What the loop hands over. NAN: not measured, left out everywhere.
 *   field       in events               over a line   in a line        on the live line */
#define LOG_FIELDS(X) \
    X( loss,       "loss/total",            MEAN,   "loss %.3f",     "loss %.2f"   ) \
    X( itc,        "loss/itc",              MEAN,   "itc %.3f",      "itc %.2f"    ) \
    X( itm,        "loss/itm",              MEAN,   "itm %.3f",      "itm %.2f"    ) \
    X( itg,        "loss/itg",              MEAN,   "itg %.3f",      "itg %.2f"    ) \
    X( lm,         "loss/lm",               MEAN,   NULL,            NULL          ) \
    X( targets,    "data/targets",          MEAN,   NULL,            NULL          ) \
    X( answers,    "watched/answers_right_percent", LAST, "answers %.0f %%", NULL  ) \
    X( different,  "watched/captions_different", LAST, NULL,         NULL          ) \
    X( shapes,     "watched/shapes_true_percent", LAST, "shapes %.0f %%", NULL     ) \
    X( temp,       "model/temperature",     LAST,   NULL,            NULL          ) \
    X( lr,         "optim/lr",              LAST,   "lr %.2e",       NULL          ) \
    X( grad_norm,  "optim/grad_norm",       MEAN,   "norm %.2f",     NULL          ) \
    X( skipped,    "optim/skipped_steps",   LAST,   NULL,            NULL          ) \
    X( epoch,      "data/epoch",            LAST,   NULL,            NULL          ) \
    X( memory,     "device/memory_bytes",   LAST,   NULL,            NULL          )

/* What follows from pairs, wait_s, flops and the clock. The live line fits into 80 columns. */
#define LOG_SPEEDS(X) \
    X( pairs_per_s,  "speed/pairs_per_s",           MEAN, "%.0f pairs/s", "%.0f/s"      ) \
    X( step_ms,      "speed/step_ms",               MEAN, NULL,           NULL          ) \
    X( peak_percent, "speed/share_of_peak_percent", MEAN, "peak %.0f %%", "peak %.0f%%" ) \
    X( wait_percent, "speed/data_wait_percent",     MEAN, "wait %.0f %%", "wait %.0f%%" )
