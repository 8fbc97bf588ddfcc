/* same_json: two results of one command, computed in two ways, say the same: the same shape and strings, numbers within
 * a tolerance. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/json.h"

/* Two values of one shape: numbers within `limit`, all else equal. How fast it went, and what it took,
 * is nobody's answer. */
void same_json(const Json *a, const Json *b, const char *at, double limit);

/* The texts of two files `name`, which are cut up: one value each, or (.jsonl) a value a line. */
void same_results(char *x, char *y, const char *name, double limit);
