/* manual: the man page and the completions of shells, written from the tables of commands and options. Called by
 * qformer.c (--man, --completion SHELL); `make install` puts them where man and shells look. */
#pragma once
#include <stdio.h>

#include "kernels/base/err.h"

Status manual_page(FILE *f);                                 /* qformer(1), in man's macros */
Status manual_completion(const char *shell, FILE *f);        /* bash, zsh or fish; ERR_USAGE for another */
