/* options_table: the rows of options.def as a table, and what is asked of it by key or command; see options_table.h. */
#include "configs/options_table.h"

#include <string.h>

/* Keys of the group `run` are written without it. */
#define KEY(g, n) (&(#g "." #n)[sizeof #g == sizeof "run" && #g[0] == 'r' && #g[1] == 'u' && #g[2] == 'n' ? 4 : 0])

const Row option_rows[] = {
#define ROW(g, n, kind, text, num, lo, hi, choices, c, t) \
    { KEY(g, n), kind, offsetof(Options, g.n), text, (double)(num), (double)(lo), (double)(hi), choices, c, t },
#define INT(g, n, d, l, h, c, t)  ROW(g, n, KIND_INT, NULL, d, l, h, NULL, c, t)
#define REAL(g, n, d, l, h, c, t) ROW(g, n, KIND_REAL, NULL, d, l, h, NULL, c, t)
#define BOOL(g, n, d, c, t)       ROW(g, n, KIND_BOOL, NULL, d, 0, 1, NULL, c, t)
#define TEXT(g, n, d, c, t)       ROW(g, n, KIND_TEXT, d, 0, 0, 0, NULL, c, t)
#define PATH(g, n, d, c, t)       ROW(g, n, KIND_PATH, d, 0, 0, 0, NULL, c, t)
#define PICK(g, n, d, p, c, t)    ROW(g, n, KIND_PICK, d, 0, 0, 0, p, c, t)
#include "configs/options.def"
#undef ROW
};

int option_row(const char *key) {
    for (int r = 0; r < OPTION_ROWS; r++)
        if (strcmp(option_rows[r].key, key) == 0) return r;
    return -1;
}

bool option_has_word(const char *list, char separator, const char *word, int *place) {
    size_t n = strlen(word);
    int at = 0;
    for (const char *p = list; *p; at++) {
        const char *end = strchrnul(p, separator);
        if ((size_t)(end - p) == n && n && memcmp(p, word, n) == 0) {  /* no word is empty */
            if (place) *place = at;
            return true;
        }
        p = *end ? end + 1 : end;
    }
    return false;
}

bool option_used_by(const Row *row, const char *command) {
    return option_has_word(row->commands, ' ', "*", NULL) || option_has_word(row->commands, ' ', command, NULL);
}

bool options_used_by(const char *key, const char *command) {
    int r = option_row(key);
    return r >= 0 && option_used_by(&option_rows[r], command);
}
