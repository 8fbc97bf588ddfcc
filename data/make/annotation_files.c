/* annotation_files: see annotation_files.h. */
#include "data/make/annotation_files.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/path.h"
#include "kernels/base/mem.h"

/* The length of "split:" at the front; 0: there is none, or a file has it in its name. */
static size_t split_prefix(const char *p) {
    size_t n = 0;
    while (isalnum((unsigned char)p[n]) || p[n] == '_') n++;
    if (!n || p[n] != ':') return 0;
    char *first = mem_strdup(p);
    if (!first) return 0;
    char *rest = first, *path = path_next(&rest);
    bool file = path && !access(path, F_OK);                 /* "val:a.json" may be somebody's file */
    free(first);
    return file ? 0 : n;
}

Status annotation_files(AnnotationFiles *l, const char *list, const AnnotationColumns *columns) {
    *l = (AnnotationFiles){.columns = *columns};
    l->text = mem_strdup(list);
    l->file = mem_new(path_most(list), sizeof *l->file);     /* as many as commas allow: none is moved */
    if (!l->text || !l->file) return ERR_MEMORY;
    for (char *rest = l->text, *path; rest;) {
        rest += strspn(rest, " ,");
        size_t word = split_prefix(rest);
        char *split = word ? rest : NULL;
        if (word) rest[word] = 0, rest += word + 1;
        if (!(path = path_next(&rest))) break;
        l->file[l->n++] = (AnnotationFile){.path = path, .split = split, .columns = &l->columns};
    }
    return OK;
}

void annotation_files_free(AnnotationFiles *l) {
    mem_free(l->file, l->text);
    *l = (AnnotationFiles){0};
}
