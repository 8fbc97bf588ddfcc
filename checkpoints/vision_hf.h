/* vision_hf: an image encoder as transformers' Blip2VisionModel (vision_tower.h), and the small files beside it, for
 * export.c. That class is EVA-g alone: joined q, k, v with a bias, GELU, no norm in front; others are refused. */
#ifndef QF_VISION_HF_H
#define QF_VISION_HF_H
#include "checkpoints/export.h"
#include "checkpoints/vision_tower.h"

/* As vision_tower; fills the vision fields of d. */
Status vision_hf(HfTower *t, HfDims *d, const Vision *e, int size, VitTap tap);

/* preprocessor_config.json, processor_config.json, tokenizer_config.json, special_tokens_map.json in the folder, for
 * pixels made as p says and a BERT vocabulary with [DEC] behind its words, of V in all. */
Status vision_hf_pixels(const char *folder, const Preprocess *p);           /* the first of them alone */
Status vision_hf_tokenizer(const char *folder, int64_t V);                   /* the last two alone */
Status vision_hf_files(const char *folder, const Preprocess *p, int64_t V);

#endif
