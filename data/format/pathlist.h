/* pathlist: several paths in one text, commas between. A comma that belongs to the name of something that exists does
 * not separate: an existing path wins, the longest first. */
#ifndef QF_PATHLIST_H
#define QF_PATHLIST_H
#include <stddef.h>

/* Cuts the next path off *rest and returns it, NULL at the end. Blanks around it and empty items are left out. */
char *pathlist_next(char **rest);

size_t pathlist_most(const char *list);          /* no more paths than this are in it */

#endif
