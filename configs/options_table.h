/* options_table: what options.c, options_near.c, options_print.c and manual.c share. Nobody else includes this;
 * options.h is for everyone. */
#pragma once
#include "configs/options.h"

typedef enum { KIND_INT, KIND_REAL, KIND_BOOL, KIND_TEXT, KIND_PATH, KIND_PICK } Kind;

typedef struct {
    const char *key;
    Kind kind;
    size_t at;                 /* where in Options its value lies */
    const char *text;          /* default of a text, path or choice */
    double num;                /* default of the others */
    double lo, hi;             /* of INT and REAL */
    const char *choices;       /* of PICK, "a|b|c" */
    const char *commands;      /* words, or "*" */
    const char *help;
} Row;

/* The number of rows, so that arrays beside the table have a fixed size. */
enum {
    OPTION_ROWS = 0
#define INT(g, n, ...)  + 1
#define REAL(g, n, ...) + 1
#define BOOL(g, n, ...) + 1
#define TEXT(g, n, ...) + 1
#define PATH(g, n, ...) + 1
#define PICK(g, n, ...) + 1
#include "configs/options.def"
};

extern const Row option_rows[OPTION_ROWS];

typedef enum { FROM_DEFAULT, FROM_FILE, FROM_ARGUMENT, FROM_PROGRAM } Origin;

/* Where a value came from; the values themselves are the typed fields of Options. */
typedef struct OptionOrigin {
    Origin from;
    int line;                  /* in the file, when from there */
    char *owned;               /* the text that a TEXT, PATH or PICK points to, unless it is the row's default */
} OptionOrigin;

Options *options_new(const char *command);                     /* all defaults; NULL when memory ran out */
int option_row(const char *key);                               /* -1: there is none */

/* Whether `word` is one of the words of `list`, which `separator` divides; its place in *place unless that is NULL. */
bool option_has_word(const char *list, char separator, const char *word, int *place);

/* The key that was probably meant, or that others call so (batch_size: train.batch); NULL when none is near. */
const char *option_near_key(const char *word, const char *command);

bool option_used_by(const Row *row, const char *command);

const char *option_value(const Options *o, int r, char buf[64]);        /* as options_value */

/* The fields of row r. */
int64_t option_int(const Options *o, int r);                   /* INT and BOOL */
double option_real(const Options *o, int r);
const char *option_text(const Options *o, int r);              /* of a TEXT, PATH or PICK row */
