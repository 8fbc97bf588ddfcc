/* vision_hf: an image encoder as transformers' Blip2VisionModel (vision_tower.h), and the small files beside it, for
 * export.c. That class is EVA-g alone: joined q, k, v with a bias, GELU, no norm in front; others are refused. */
#pragma once
#include "checkpoints/export.h"
#include "checkpoints/vision_tower.h"

/* As vision_tower; fills the vision fields of d. */
Status vision_hf(HfTower *t, HfDims *d, const Vision *e, int size, VitTap tap);

/* For pixels made as p says: preprocessor_config.json; with processor_config.json; and for a BERT vocabulary with [DEC]
 * behind its words, of V in all: tokenizer_config.json, special_tokens_map.json. */
Status vision_hf_pixels(const char *folder, const Preprocess *p);
Status vision_hf_files(const char *folder, const Preprocess *p);
Status vision_hf_tokenizer(const char *folder, int64_t V);
