/* report_part: what the parts of the report share: notes, excuses, files of a run; see report.h. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "eval/report/html.h"
#include "eval/report/report.h"
#include "kernels/base/mem.h"

void report_note(Report *r, bool grave, const char *fmt, ...) {
    char text[1200];
    va_list ap;
    if (r->notes == REPORT_NOTES) return;                    /* more would not be read */
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->note[r->notes].grave = grave;
    r->note[r->notes].text = mem_strdup(text);
    r->notes += r->note[r->notes].text != NULL;
}

void report_note_error(Report *r, const char *what) {
    report_note(r, false, "%s%s", what, err_message());
    err_clear();
}

void report_excuse(char **to) {
    free(*to);                                               /* the last reason is the one that ended it */
    *to = mem_strdup(err_message());
    err_clear();
}

bool report_has(const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    bool there = path && access(path, R_OK) == 0;
    free(path);
    return there;
}

Json *report_result(Report *r, const char *folder, const char *name) {
    Json *doc = NULL;
    char *path = mem_format("%s/%s", folder, name);
    if (path && access(path, R_OK) == 0 && json_parse_file(&doc, path) != OK) report_note_error(r, "");
    free(path);
    return doc;
}

void report_number(JsonWriter *w, const char *key, double v) {
    if (isfinite(v)) jw_num(w, key, v);
}

void report_no_model(const Report *r, FILE *f) {
    html(f, "<p class=\"missing\">The model and its data could not be opened: %s.</p>\n",
         r->no_model ? r->no_model : "no reason is known");
}
