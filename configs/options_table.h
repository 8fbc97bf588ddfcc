/* options_table: what options.c and options_print.c share. Nobody else includes this; options.h is for everyone. */
#ifndef QF_OPTIONS_TABLE_H
#define QF_OPTIONS_TABLE_H
#include "configs/options.h"

typedef enum { KIND_INT, KIND_REAL, KIND_BOOL, KIND_TEXT, KIND_PATH, KIND_PICK } Kind;

typedef struct {
    const char *key;
    Kind kind;
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
#define INT(k, d, l, h, c, t)  + 1
#define REAL(k, d, l, h, c, t) + 1
#define BOOL(k, d, c, t)       + 1
#define TEXT(k, d, c, t)       + 1
#define PATH(k, d, c, t)       + 1
#define PICK(k, d, p, c, t)    + 1
#include "configs/options.def"
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef PATH
#undef PICK
};

extern const Row option_rows[OPTION_ROWS];

typedef enum { FROM_DEFAULT, FROM_FILE, FROM_ARGUMENT, FROM_PROGRAM } Source;

typedef struct {
    int64_t i;                 /* INT, BOOL; place in the choices for PICK */
    double d;                  /* REAL */
    char *s;                   /* TEXT, PATH, PICK; NULL: the row's default */
    Source source;
    int line;                  /* in the file, when from there */
} Value;

struct Options {
    char *command;
    Value values[OPTION_ROWS];
};

Options *options_new(const char *command);                     /* all defaults; NULL when memory ran out */
bool option_used_by(const Row *row, const char *command);
const char *option_text(const Options *o, int r);              /* of a TEXT, PATH or PICK row */

#endif
