/* folder: the program, run as a user runs it, in a temporary folder that goes away: what it refuses, what it says,
 * what it leaves there.
 *
 * Used by the tests of whole commands. Words of a line are divided by blanks. Without a program the test is skipped. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "tests/kit/check.h"
#include "tests/kit/program.h"

int folder_setup(void **state);                             /* for cmocka_run_group_tests */
int folder_teardown(void **state);

Run *folder_run(const char *line);
void folder_must(const char *line);                         /* exit code 0 */
void folder_says(const char *line, const char *sentence);   /* the same, and it stands on either stream */
void folder_silent(const char *line, const char *word);     /* the same, and it stands on neither */
/* Exit code 2, or 1 where the request was right and a file was not: in one line on stderr that holds `sentence`. */
void folder_refuses(const char *line, const char *sentence);
void folder_fails(const char *line, const char *sentence);

const char *folder_path(const char *name);                  /* eight live at a time */
void folder_put(const char *name, const void *bytes, size_t n);
void folder_write(const char *name, const char *text);
bool folder_has(const char *name);
int folder_shell(const char *command);                      /* by sh, in the folder, $Q the program; its exit code */
