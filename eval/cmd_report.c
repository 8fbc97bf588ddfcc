/* cmd_report: a run as a page (report.h), and its figures as report.json beside it. */
#include <stdlib.h>

#include "configs/commands.h"
#include "data/format/outfile.h"
#include "eval/report/report.h"
#include "eval/result.h"

static Status write_page(Report *r, const char *path) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    Status st = report_page(r, f);
    if (fclose(f) && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    if (st == OK) st = outfile_put(path, text, n);           /* whole or not at all, as all results */
    if (st == OK) status_say("%s: one page of %.2f MB, nothing else is needed to read it", path, (double)n / 1e6);
    free(text);
    return st;
}

Status cmd_report(const Options *o) {
    Report r;
    Status st = report_open(&r, o);
    status_end();                                            /* the model has worked with a meter */
    if (st == OK && o->run.dry_run) {
        options_print(o, stdout);
        status_say("the page would be %s", r.page);
    } else if (st == OK) {
        report_judge(&r);
        report_say(&r);
        st = result_json(r.json, 1, report_write, &r);
        if (st == OK) st = write_page(&r, r.page);
    }
    report_close(&r);
    return st;
}
