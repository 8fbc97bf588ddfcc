/* report: everything a run left behind and what its model does now, as one HTML page. Called by the command report.
 *
 *     report_open     files of the run; the model and its test set, and then each part                    (report.c)
 *     report_judge    what should worry the reader                                                  (report_notes.c)
 *     report_page     the page: no network, no script, all pictures inside                (report.c, report_style.c)
 *     report_write    its figures as JSON; report_say: the most important ones on the terminal
 *
 * A part has a struct below and a file of its own, which gathers what it needs, draws its sections and writes its
 * figures: training and speed, settings, recall, captions, answers, attention. A part reads of another only what the
 * struct says.
 *
 * What is missing is a sentence in its place, never a failure: a run without validation, without pictures, or whose
 * data have moved still gives a page. Only a folder with nothing of a run in it is an error. One process. */
#pragma once
#include "eval/evaluate.h"
#include "eval/metrics/metrics.h"
#include "eval/quiz.h"
#include "eval/report/gallery.h"
#include "eval/report/attention.h"
#include "eval/report/runlog.h"
#include "eval/report/thumbs.h"

enum {
    REPORT_ROWS = 16, REPORT_NOTES = 24, REPORT_HEAT = 32, REPORT_QUERIES = 8, REPORT_LAYERS = 8, REPORT_SHOWN = 12
};

/* What lies in the run's folder, and in that of an earlier run to compare with. */
typedef struct {
    char *folder, *before;              /* before: NULL when not given */
    RunLog log, old;                    /* empty when there is none */
    RunSums sums;
    char *config;                       /* as resolved by the run; NULL: unknown */
    Options *trained;                   /* the same, parsed; NULL */
} ReportRun;

/* A line of the recall table. */
typedef struct {
    const char *key;                    /* "chance" "itc" "itm" "sum", as in retrieval.json */
    char *name;
    Recall r;
    bool chance, before;                /* guessing, which has no median; of the earlier run */
} RecallLine;

typedef struct {
    RecallLine line[REPORT_ROWS];
    int lines;
    char *from;                         /* where the first lines come from, a sentence */
    int64_t step;                       /* checkpoint of retrieval.json, -1 */
    float *I, *T;
    Retrieval found;                    /* by cosine, here */
    bool retrieved;
    Gallery gallery;
    bool ranked;                        /* the gallery is from retrieval.jsonl */
    float heat[REPORT_HEAT * REPORT_HEAT];
    int heats, hits;                    /* side; rows whose largest value is on the diagonal */
} ReportRecall;

/* A line of the caption table: as metrics_names; NAN: not known. */
typedef struct { char *name; double v[METRICS]; bool before; } ScoreLine;

/* What a generated caption claims of a drawn scene: member of SynthClaims, in a list, in a table, as JSON. */
#define REPORT_CLAIMS(X) \
    X(pairs, "coloured shapes", "coloured shapes", "coloured_shapes") \
    X(details, "sizes, textures", "sizes and textures", "details") \
    X(relations, "relations", "relations", "relations") \
    X(places, "places", "places", "places") \
    X(grounds, "ground", "grounds", "grounds")

typedef struct {
    char **text;                        /* (n) of the first images of the set */
    int64_t n;
    char *none;                         /* why there are none */
    SynthClaims *claims, sum;           /* (n); over all that could be judged */
    bool *judged;                       /* (n) */
    int64_t known, all_true;            /* judged; free of error */
    ScoreLine score[4];
    int scores;
} ReportCaptions;

/* Stage 2: the questions of the set. */
typedef struct {
    Quiz quiz;
    Tally tally[3];                     /* by QuizFront */
    struct { double frequent, some; } *floor;                /* of each kind, per cent: report_answers.c; NAN */
    /* (n) as asked, the picture in sight; gaze (Q): quiz_gaze, of pictures that are shown, else NULL */
    struct { char *text; double right; float *gaze; } *given;
    int64_t n;
    char *none;
} ReportAnswers;

typedef struct {
    Attention maps;
    int64_t at[REPORT_SHOWN];           /* positions in the set */
    int query[REPORT_QUERIES], layer[REPORT_LAYERS], queries, layers;    /* shown; layer: index into maps.layer */
    char *none;
} ReportAttention;

typedef struct {
    const Options *o;
    char *page, *json;                  /* files to write: out=FILE.html, out=FOLDER, or the run's own folder */
    bool model, speaks;                 /* the model and its data are open; it is of stage 2 */
    char *no_model;                     /* why not */
    Evaluation e;                       /* set: at most report.limit images */
    int64_t split_images;               /* in all of the split */
    Scenes scenes;
    Thumbs thumbs;
    ReportRun run;
    ReportRecall recall;
    ReportCaptions captions;
    ReportAnswers answers;
    ReportAttention attention;
    struct { bool grave; char *text; } note[REPORT_NOTES];
    int notes;
} Report;

Status report_open(Report *r, const Options *o);
void report_close(Report *r);
void report_judge(Report *r);
Status report_page(Report *r, FILE *f);                      /* the page, whole. ERR_MEMORY, ERR_IO */
void report_write(JsonWriter *w, const void *report);
void report_say(const Report *r);

/* ---- for the files of the parts ---------------------------------------------------------------------------------- */

void report_note(Report *r, bool grave, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void report_note_error(Report *r, const char *what);         /* what went wrong just now ("%s: "), "": as it is */
void report_excuse(char **to);                               /* the same as words for the page */

/* A result file of a run; NULL when it is not there, or cannot be read, which then becomes a note. */
Json *report_result(Report *r, const char *folder, const char *name);
bool report_has(const char *folder, const char *name);
void report_number(JsonWriter *w, const char *key, double v);                /* unless it is not finite */
void report_no_model(const Report *r, FILE *f);

Status report_recall(Report *r);                             /* gather; the others likewise */
Status report_captions(Report *r);
Status report_answers(Report *r);                            /* of stage 2; its captions, too */
Status report_attention(Report *r);

typedef void ReportSection(Report *r, FILE *f);              /* what stands below its heading */
ReportSection report_section_training, report_section_speed, report_section_recall, report_section_gallery,
    report_section_batch, report_section_answers, report_section_captions, report_section_attention,
    report_section_about;

void report_write_training(JsonWriter *w, const Report *r);
void report_write_recall(JsonWriter *w, const Report *r);
void report_write_answers(JsonWriter *w, const Report *r);
void report_write_captions(JsonWriter *w, const Report *r);

/* The best ranking of this run, and chance; NULL where there is none. */
typedef struct { const RecallLine *main, *chance; } RecallBest;
RecallBest report_recall_best(const Report *r);

extern const char report_style[];                                            /* report_style.c */
