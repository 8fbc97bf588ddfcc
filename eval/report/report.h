/* report: everything a run left behind and what its model does now, as one HTML page. Called by the command report.
 *
 *     report_open     reads log, results, configuration; opens the model and its test set            (report_gather.c)
 *                     and lets it work: recall, a batch of similarities, captions, attention         (report_work.c)
 *                     or, of stage 2, answers and captions                                        (report_answers.c)
 *     report_judge    what should worry the reader                                                   (report_notes.c)
 *     report_page     the page: no network, no script, all pictures inside           (report.c, _model.c, _style.c)
 *
 * A part that is missing is a sentence in its place, never a failure: a run without validation, without pictures, or
 * whose data have moved still gives a page. Only a folder with nothing of a run in it is an error. One process. */
#ifndef QF_REPORT_H
#define QF_REPORT_H
#include "eval/evaluate.h"
#include "eval/metrics/metrics.h"
#include "eval/quiz.h"
#include "eval/report/gallery.h"
#include "eval/report/overlay.h"
#include "eval/report/runlog.h"
#include "eval/report/thumbs.h"

enum {
    REPORT_ROWS = 16,
    REPORT_NOTES = 24,
    REPORT_HEAT = 32,
    REPORT_QUERIES = 8,
    REPORT_LAYERS = 8,
    REPORT_SHOWN = 12
};

/* A line of the recall table. */
typedef struct {
    char *name;
    Recall r;
    bool chance, before;                /* guessing, which has no median; of the earlier run */
} RecallLine;

/* A line of the caption table: BLEU-1..4, ROUGE-L, CIDEr as in score.h; NAN: not known. */
typedef struct { char *name; double v[6]; bool before; } ScoreLine;

/* What generated captions claim, over all that could be judged. */
typedef struct { SynthClaims sum; int64_t captions, all_true; } Judged;

typedef struct {
    const Options *o;
    char *run, *before;                 /* folders; before: NULL when not given */
    char *page, *json;                  /* files to write: out=FILE.html, out=FOLDER, or the run's own folder */
    RunLog log, old_log;                /* empty when there is none */
    RunSums sums;
    char *config;                       /* as resolved by the run; NULL: unknown */
    Options *trained;                   /* the same, parsed; NULL */

    bool model;                         /* the model and its data are open */
    char *no_model;                     /* why not */
    Evaluation e;                       /* set: at most report.limit images */
    int64_t split_images;               /* in all of the split */
    float *I, *T;
    Retrieval found;                    /* by cosine, here */
    bool retrieved;

    RecallLine line[REPORT_ROWS];
    int lines;
    char *recall_from;                  /* where the first lines come from, a sentence */
    int64_t recall_step;                /* checkpoint of retrieval.json, -1 */
    Gallery gallery;
    bool gallery_ranked;                /* from retrieval.jsonl */

    float heat[REPORT_HEAT * REPORT_HEAT];
    int heats, heat_hits;               /* side; rows whose largest value is on the diagonal */

    char **caption;                     /* (captions) of the first images of the set */
    int64_t captions;
    char *no_captions;
    SynthClaims *claims;                /* (captions) */
    bool *judged;
    Judged claimed;
    ScoreLine score[4];
    int scores;

    Quiz quiz;                          /* stage 2: the questions of the set */
    QuizMarks marks[3];                 /* by QuizFront */
    struct { double frequent, some; } floor[QUIZ_KINDS];     /* of each kind, per cent: report_answers.c; NAN */
    /* (answers) as asked, the picture in sight; gaze (Q): quiz_gaze, of pictures that are shown, else NULL */
    struct { char *text; double right; float *gaze; } *answered;
    int64_t answers;
    char *no_answers;

    Attention attention;
    int64_t attended[REPORT_SHOWN];     /* positions in the set */
    int query[REPORT_QUERIES], layer[REPORT_LAYERS], queries, layers;    /* shown; layer: index into attention.layer */
    char *no_attention;

    Scenes scenes;
    Thumbs thumbs;

    struct { bool grave; char *text; } note[REPORT_NOTES];
    int notes;
} Report;

Status report_open(Report *r, const Options *o);
void report_close(Report *r);
void report_judge(Report *r);
void report_note(Report *r, bool grave, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* For the files named above. report_excuse: the error at hand becomes words on the page. report_result: a result file
 * of a run; NULL when it is not there, or cannot be read, which then becomes a note. */
void report_excuse(char **to);
Json *report_result(Report *r, const char *folder, const char *name);
void report_heat(Report *r);
Status report_captions(Report *r);
Status report_answers(Report *r);       /* of stage 2; its captions, too */
Status report_attention(Report *r);

/* The page, whole. ERR_MEMORY, ERR_IO. */
Status report_page(Report *r, FILE *f);
void report_section_answers(Report *r, FILE *f);             /* nothing of stage 1 */
void report_model_parts(Report *r, FILE *f); /* recall tables to attention (report_model.c) */

extern const char report_style[];                                            /* report_style.c */

#endif
