/* fuzz_runlog: a log of a run that anything may have happened to. */
#include "eval/report/runlog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    RunLog l;
    RunSums s;
    if (runlog_parse(&l, (const char *)data, size) != OK) return 0;
    runlog_sums(&l, &s);
    runlog_best(&l);
    runlog_close(&l);
    return 0;
}
