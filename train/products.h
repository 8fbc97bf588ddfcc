/* products: of what the library for matrix products offers, the fastest for the products of this run, timed once and
 * kept in its folder: a clock never says the same twice, and a run that is resumed is to have the same bits. */
#pragma once
#include "train/trainer.h"

/* Every product of steps with texts of any length, on a trainer that is open. Rank 0 times (or reads out/products), all
 * take its choices. Nothing where there is nothing to choose. */
Status products_choose(const Backend *b, const TrainerSpec *spec, const char *out);
