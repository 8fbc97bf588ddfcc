/* pathlist: see pathlist.h. */
#include "data/format/pathlist.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

/* Whether text[0..n) is the path of something; n is where a comma stands, or the end. */
static bool exists(char *text, size_t n) {
    char kept = text[n];
    text[n] = 0;
    bool yes = !access(text, F_OK);
    text[n] = kept;
    return yes;
}

char *pathlist_next(char **rest) {
    char *p = *rest;
    if (!p) return NULL;
    p += strspn(p, " ,");
    if (!*p) return *rest = NULL;
    size_t first = strcspn(p, ","), n = strlen(p);
    while (n > first && !exists(p, n))                       /* back to the comma before */
        do n--; while (n > first && p[n] != ',');
    *rest = p[n] ? p + n + 1 : NULL;
    p[n] = 0;
    while (n && p[n - 1] == ' ') p[--n] = 0;
    return p;
}

size_t pathlist_most(const char *list) {
    size_t n = 1;
    for (; *list; list++) n += *list == ',';
    return n;
}
